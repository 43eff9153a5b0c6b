package testserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// EtcdOptions say how an etcd runs. The zero value is good: one that listens on
// a free port, and is fast rather than safe from power cuts.
type EtcdOptions struct {
	Dir        string   // of the data; a temporary one by default
	On         *Host    // where it runs; on the machine itself by default
	Listen     string   // numeric address for clients; by default the host's, or 127.0.0.1
	ClientPort int      // picked by default
	PeerPort   int      // picked by default; on the loopback interface
	Fsync      bool     // survive the death of the machine, not just of the process
	Quota      int64    // bytes of data at which it raises the NOSPACE alarm; etcd's own by default
	Args       []string // more flags; they override ours
}

// Etcd is a real etcd, a cluster of one, in a process of its own. Its methods
// that act on the process fail the test, so they belong on the test's goroutine.
type Etcd struct {
	t      testing.TB
	binary string
	o      EtcdOptions
	out    *Output
	http   *http.Client

	cmd  *exec.Cmd     // nil while it is stopped
	done chan struct{} // closed when cmd has ended
}

// etcdPatience is how long etcd may take to start or to stop.
const etcdPatience = 30 * time.Second

// StartEtcd runs an etcd until the test ends. It is what `make etcd` builds:
// without that the test is skipped, or fails if $V6D_REQUIRE_TOOLS is set.
func StartEtcd(t testing.TB, o EtcdOptions) *Etcd {
	t.Helper()
	binary, err := etcdBinary()
	switch {
	case err == nil:
	case os.Getenv("V6D_REQUIRE_TOOLS") != "":
		t.Fatalf("%v: make etcd", err)
	default:
		t.Skipf("%v: what needs etcd is not tested; make etcd", err)
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "etcd")
	}
	listen, dial := net.Listen, (&net.Dialer{}).DialContext
	if o.On != nil {
		listen, dial = o.On.Listen, o.On.DialContext
	}
	switch {
	case o.Listen != "":
	case o.On != nil:
		o.Listen = o.On.Addr
	default:
		o.Listen = "127.0.0.1"
	}
	if o.ClientPort == 0 {
		o.ClientPort = lastingPort(t, listen, o.Listen)
	}
	for o.PeerPort == 0 || o.PeerPort == o.ClientPort {
		o.PeerPort = lastingPort(t, listen, "127.0.0.1")
	}
	e := &Etcd{
		t: t, binary: binary, o: o, out: &Output{},
		http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}},
	}
	t.Cleanup(func() {
		if e.cmd != nil {
			e.Kill()
		}
		if t.Failed() {
			t.Logf("the end of etcd's output:\n%s", e.out.Tail(40))
		}
	})
	e.Start()
	return e
}

// Endpoint is the URL for clients. It stays the same when etcd starts again.
func (e *Etcd) Endpoint() string {
	return "http://" + net.JoinHostPort(e.o.Listen, strconv.Itoa(e.o.ClientPort))
}

// Output is what etcd wrote so far, in all its lives.
func (e *Etcd) Output() string { return e.out.String() }

// Pid is the process ID, while etcd runs.
func (e *Etcd) Pid() int { return e.cmd.Process.Pid }

// Start runs etcd again with the data and at the endpoint that it had, and waits
// until it serves.
func (e *Etcd) Start() {
	e.t.Helper()
	if e.cmd != nil {
		e.t.Fatal("start etcd: it runs")
	}
	cmd := e.command()
	cmd.Stdout, cmd.Stderr = e.out, e.out
	if err := StartProcess(cmd); err != nil {
		e.t.Fatalf("start etcd: %v", err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	e.cmd, e.done = cmd, done
	for deadline := time.Now().Add(etcdPatience); ; {
		err := e.healthy()
		if err == nil {
			return
		}
		select {
		case <-done:
			e.t.Fatalf("etcd ended at once: %v", cmd.ProcessState)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("etcd does not get ready in %v: %v", etcdPatience, err)
		}
	}
}

func (e *Etcd) command() *exec.Cmd {
	peer := "http://127.0.0.1:" + strconv.Itoa(e.o.PeerPort)
	args := []string{
		"--name=e", "--data-dir=" + e.o.Dir,
		"--listen-client-urls=" + e.Endpoint(), "--advertise-client-urls=" + e.Endpoint(),
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=e=" + peer,
		// It elects itself at once, and leases may be as short as a second.
		"--heartbeat-interval=10", "--election-timeout=100",
	}
	if !e.o.Fsync {
		args = append(args, "--unsafe-no-fsync")
	}
	if e.o.Quota > 0 {
		args = append(args, "--quota-backend-bytes="+strconv.FormatInt(e.o.Quota, 10))
	}
	args = append(args, e.o.Args...)
	if e.o.On != nil {
		return e.o.On.Command(context.Background(), e.binary, args...)
	}
	return exec.Command(e.binary, args...)
}

// healthy asks whether etcd has a leader, itself, and can write.
func (e *Etcd) healthy() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	b, err := e.do(ctx, http.MethodGet, "/health", nil)
	switch {
	case err != nil:
		return err
	case !bytes.Contains(b, []byte(`"health":"true"`)):
		return fmt.Errorf("etcd: %s", b)
	}
	return nil
}

// Call asks etcd through its JSON gateway, which needs no client library:
// e.Call(ctx, "/v3/kv/range", map[string]any{"key": []byte("k")}). Bytes are
// base64 in JSON, as encoding/json does anyway.
func (e *Etcd) Call(ctx context.Context, path string, in any) ([]byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	return e.do(ctx, http.MethodPost, path, body)
}

func (e *Etcd) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.Endpoint()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("etcd: %s: %s: %s", path, resp.Status, bytes.TrimSpace(b))
	}
	return b, err
}

// Event is one change of a key that Etcd.History tells of.
type Event struct {
	Revision int64
	Key      string
	Value    string // of a put
	Deleted  bool
}

// History returns every change below a prefix since the data were last wiped or
// compacted. It takes as long as ctx lets it: nothing says where the past ends.
func (e *Etcd) History(ctx context.Context, prefix string) (list []Event) {
	end := []byte(prefix)
	end[len(end)-1]++
	body, err := json.Marshal(map[string]any{
		"create_request": map[string]any{"key": []byte(prefix), "range_end": end, "start_revision": "1"},
	})
	if err != nil {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.Endpoint()+"/v3/watch", bytes.NewReader(body))
	if err != nil {
		return nil
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	for from := json.NewDecoder(resp.Body); ; {
		var r struct {
			Result struct {
				Events []struct {
					Type string
					KV   struct {
						Key, Value  []byte
						ModRevision int64 `json:"mod_revision,string"`
					}
				}
			}
		}
		if from.Decode(&r) != nil {
			return list
		}
		for _, ev := range r.Result.Events {
			list = append(list, Event{ev.KV.ModRevision, string(ev.KV.Key), string(ev.KV.Value), ev.Type == "DELETE"})
		}
	}
}

// Kill ends etcd as a crash does.
func (e *Etcd) Kill() {
	e.t.Helper()
	e.signal(syscall.SIGKILL)
	<-e.done
	e.cmd = nil
}

// Stop ends etcd as a service manager does.
func (e *Etcd) Stop() {
	e.t.Helper()
	e.signal(syscall.SIGTERM)
	e.signal(syscall.SIGCONT)
	select {
	case <-e.done:
		e.cmd = nil
	case <-time.After(etcdPatience):
		e.t.Fatalf("etcd does not stop in %v", etcdPatience)
	}
}

// Wipe removes the data of an etcd that is stopped: when it starts again it
// counts revisions from 1, which clients must survive.
func (e *Etcd) Wipe() {
	e.t.Helper()
	if e.cmd != nil {
		e.t.Fatal("wipe etcd: it runs")
	}
	if err := os.RemoveAll(e.o.Dir); err != nil {
		e.t.Fatalf("wipe etcd: %v", err)
	}
}

// Pause makes etcd hang: connections stay, and new ones come about since the
// kernel accepts them, but nobody answers. It hangs when Pause returns.
func (e *Etcd) Pause() {
	e.t.Helper()
	e.signal(syscall.SIGSTOP)
	WaitFor(e.t, "etcd to pause", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", e.Pid()))
		for _, name := range threads {
			if b, err := os.ReadFile(name); err == nil && !bytes.Contains(b, []byte(") T ")) {
				return false
			}
		}
		return err == nil
	})
}

// Resume undoes Pause. The clock went on meanwhile, so leases may end at once.
func (e *Etcd) Resume() {
	e.t.Helper()
	e.signal(syscall.SIGCONT)
}

func (e *Etcd) signal(s syscall.Signal) {
	e.t.Helper()
	if e.cmd == nil {
		e.t.Fatalf("%v to etcd: it does not run", s)
	}
	if err := e.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		e.t.Fatalf("%v to etcd: %v", s, err)
	}
}

// lastingPort returns a port that is free, and stays so while etcd is down: it
// is below those that the kernel gives to whoever asks for any.
func lastingPort(t testing.TB, listen func(network, addr string) (net.Listener, error), host string) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		if l, err := listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatalf("no free port on %s", host)
	return 0
}

// etcdBinary finds what `make etcd` built: it lies in the checkout's root, and
// tests run in the folder of their package.
func etcdBinary() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module github.com/v6d-go/v6d\n") {
			break
		}
	}
	path := filepath.Join(dir, ".tools", "etcd")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no etcd: %w", err)
	}
	return path, nil
}
