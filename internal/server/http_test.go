package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

func webDaemon(t *testing.T) (d *testserver.Daemon, base string) {
	t.Helper()
	d = testserver.Start(t, func(c *config.Serve) { c.HTTPListen, c.Pprof = "127.0.0.1:0", true })
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return d, "http://" + d.Server.Report().HTTP
}

func fetch(t *testing.T, url string) (code int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// metrics reads /metrics as name and labels -> value.
func metrics(t *testing.T, base string) map[string]float64 {
	t.Helper()
	_, body := fetch(t, base+"/metrics")
	out := map[string]float64{}
	for sc := bufio.NewScanner(strings.NewReader(body)); sc.Scan(); {
		name, value, ok := strings.Cut(sc.Text(), "} ")
		if ok {
			name += "}"
		} else {
			name, value, _ = strings.Cut(sc.Text(), " ")
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil && !strings.HasPrefix(name, "#") {
			out[name] = v
		}
	}
	return out
}

// TestMetrics compares what /metrics says with what was done.
func TestMetrics(t *testing.T) {
	d, base := webDaemon(t)
	c := connect(t, d)
	const size = 3000
	p := c.put(make([]byte, size))
	c.call("create_data_request", "content", map[string]any{
		"typename": "test::Holder", "instance_id": 0, "nbytes": size,
		"b": map[string]any{"typename": "vineyard::Blob", "id": fmt.Sprintf("o%016x", p.id), "length": size, "nbytes": size, "instance_id": 0},
	})
	c.put(make([]byte, 100)) // belongs to no object
	c.refused(status.ObjectNotExists, "seal_request", "object_id", uint64(12345))
	var got map[string]float64
	testserver.WaitFor(t, "the last request to be counted", func() bool { // that is after its reply
		got = metrics(t, base)
		return got[`v6d_request_errors_total{request="seal_request"}`] == 1
	})
	for name, want := range map[string]float64{
		`v6d_pool_usage_bytes`: size + 100,
		`v6d_blobs`:            2,
		`v6d_objects{session="S0000000000000000"}`:                                    1,
		`v6d_blob_bytes_by_type{typename="test::Holder"}`:                             size,
		`v6d_blob_bytes_by_type{typename=""}`:                                         100,
		`v6d_blob_bytes_by_owner{uid="0"}`:                                            size + 100,
		`v6d_connections{session="S0000000000000000",transport="ipc"}`:                1,
		`v6d_request_duration_seconds_count{request="seal_request"}`:                  3,
		`v6d_request_duration_seconds_bucket{request="seal_request",le="+Inf"}`:       3,
		`v6d_request_errors_total{request="seal_request"}`:                            1,
		`v6d_request_duration_seconds_count{request="create_buffer_request"}`:         2,
		`v6d_request_duration_seconds_count{request="get_next_stream_chunk_request"}`: 0,
	} {
		if strings.Contains(name, `uid="0"`) {
			name = strings.Replace(name, `"0"`, strconv.Quote(strconv.Itoa(os.Getuid())), 1)
		}
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, want)
		}
	}
	for _, name := range []string{"v6d_journal_bytes", "v6d_pool_limit_bytes", "v6d_pool_reserved_bytes", "process_resident_memory_bytes", "go_goroutines"} {
		if got[name] <= 0 {
			t.Errorf("%s is %v", name, got[name])
		}
	}
	if code, body := fetch(t, base+"/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("/debug/pprof/goroutine answers %d", code)
	}
	if code, _ := fetch(t, base+"/nowhere"); code != 404 {
		t.Errorf("/nowhere answers %d", code)
	}
}

// TestHealth: the daemon is healthy and ready until it stops, or until a client
// truncates the pool: then it is alive, but takes no new work.
func TestHealth(t *testing.T) {
	d, base := webDaemon(t)
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := fetch(t, base+path); code != 200 || body != "ok\n" {
			t.Errorf("%s answers %d %q", path, code, body)
		}
	}
	c := connect(t, d)
	p := c.put([]byte("some bytes"))
	if err := c.fds[p.fd].Truncate(0); err != nil {
		t.Fatal(err)
	}
	if code, _ := fetch(t, base+"/healthz"); code != 200 {
		t.Errorf("/healthz answers %d after the pool was truncated", code)
	}
	if code, body := fetch(t, base+"/readyz"); code != 503 || !strings.Contains(body, "truncated") {
		t.Errorf("/readyz answers %d %q after the pool was truncated", code, body)
	}
}
