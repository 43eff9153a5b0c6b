package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/sys"
	"github.com/v6d-go/v6d/internal/testserver"
)

// The environment of a helper process: this test binary, told to be something
// else than the tests.
const (
	envRole   = "V6D_TEST_ROLE"
	envSocket = "V6D_TEST_SOCKET"
	envRPC    = "V6D_TEST_RPC"
	envConfig = "V6D_TEST_CONFIG"
	envCgroup = "V6D_TEST_CGROUP"
	envFiles  = "V6D_TEST_FILES"
)

// roles are what a helper process can be. Each says "ready" when it has done
// its work, and then waits to be killed.
var roles = map[string]func(*testing.T){
	"hoarder":   hoard,
	"truncater": truncate,
	"daemon":    serve,
}

// TestHelperProcess is not a test: it is the main function of helper processes.
func TestHelperProcess(t *testing.T) {
	role := roles[os.Getenv(envRole)]
	if role == nil {
		return
	}
	role(t)
}

// ready tells the parent and waits until it closes our input, or kills us.
func ready(text string) {
	os.Stdout.WriteString("ready " + text + "\n")
	io.Copy(io.Discard, os.Stdin)
}

// process is a helper process that is ready.
type process struct {
	*exec.Cmd
	stdin io.WriteCloser
	said  string // what it said when it was ready
}

// start runs a helper process until the test ends, and waits for it to be ready.
func start(t *testing.T, role string, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperProcess$", "-test.count=1")
	cmd.Env = append(os.Environ(), append(env, envRole+"="+role)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &process{Cmd: cmd}
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	lines := bufio.NewReader(out)
	var all strings.Builder
	for {
		line, err := lines.ReadString('\n')
		all.WriteString(line)
		if rest, ok := strings.CutPrefix(line, "ready "); ok {
			p.said = strings.TrimSpace(rest)
			return p
		}
		if err != nil {
			t.Fatalf("helper process %s: %v\n%s", role, err, &all)
		}
	}
}

// kill ends the process as SIGKILL does, and collects it. It may be repeated.
func (p *process) kill() {
	p.Process.Kill()
	p.Wait()
	p.stdin.Close()
}

// alive reports whether the process runs.
func (p *process) alive() bool { return p.Process.Signal(syscall.Signal(0)) == nil }

// discardPool removes the pool of a daemon of its own process when the test ends,
// for the case that it was killed.
func discardPool(t *testing.T, d *testserver.Daemon) {
	t.Helper()
	path := nodeStatus(t, d).Start.Place.Path
	t.Cleanup(func() { os.RemoveAll(path) })
}

// serve is a daemon of its own process.
func serve(t *testing.T) {
	cfg := config.Default()
	if err := json.Unmarshal([]byte(os.Getenv(envConfig)), &cfg); err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv(envCgroup); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := strconv.ParseUint(os.Getenv(envFiles), 10, 64); err == nil {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := server.New(context.Background(), server.Options{Config: cfg, Version: "test", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(ctx, func() { os.Stdout.WriteString("ready " + s.Report().CgroupNote + "\n") }); err != nil {
		t.Fatal(err)
	}
}

// hoard holds one of everything that a connection can hold, each on a
// connection of its own: a killed process must leave none of it behind.
func hoard(t *testing.T) {
	d := &testserver.Daemon{Socket: os.Getenv(envSocket), RPC: os.Getenv(envRPC)}
	var shared struct{ Blob, WriterStream, ReaderStream uint64 }
	if err := json.Unmarshal([]byte(os.Getenv(envConfig)), &shared); err != nil {
		t.Fatal(err)
	}
	connect(t, d).create(1 << 20)
	connect(t, d).call("create_buffers_request", "sizes", []int{1 << 20, 100}, "num", 2)
	connect(t, d).get(shared.Blob)
	connectExtended(t, d).get(shared.Blob)
	connect(t, d).call("increase_reference_count_request", "ids", []uint64{shared.Blob})
	connect(t, d).call("acquire_lock_request", "key", "hoard")
	connect(t, d).send("acquire_lock_request", "key", "busy")
	connect(t, d).send("get_data_request", "id", []uint64{1}, "wait", true)
	connectRPC(t, d).send("get_name_request", "name", "never", "wait", true)
	connect(t, d).call("make_arena_request", "size", 1<<20)
	connect(t, d).call("create_disk_buffer_request", "size", 1<<20, "path", "")
	connect(t, d).call("get_next_stream_chunk_request", "id", shared.WriterStream, "size", 5000)
	connect(t, d).send("pull_next_stream_chunk_request", "id", shared.ReaderStream)
	upload := connectRPC(t, d)
	upload.call("create_remote_buffer_request", "size", 1<<20)
	upload.write(pattern(1, 1000))
	connect(t, d).write(request("create_buffer_request", "size", 1)[:20])
	ready("")
}

// truncate shortens the pool file of a daemon while it maps it.
func truncate(t *testing.T) {
	c := connect(t, &testserver.Daemon{Socket: os.Getenv(envSocket)})
	p := c.put(pattern(1, 1<<20))
	m, err := sys.Map(c.fds[p.fd], 4096, false)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Unmap(m)
	if err := c.fds[p.fd].Truncate(4096); err != nil {
		t.Fatal(err)
	}
	ready("")
}

// TestKilledClient kills a process that holds everything a client can hold.
// Within two seconds all of it is free, but what belongs to a stream.
func TestKilledClient(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	blob := c.put(pattern(1, 100_000))
	c.call("release_request", "object_id", blob.id) // the seal's reference
	c.call("acquire_lock_request", "key", "busy")
	c.call("create_stream_request", "object_id", 1)
	c.call("create_stream_request", "object_id", 2)
	shared, err := json.Marshal(map[string]uint64{"Blob": blob.id, "WriterStream": 1, "ReaderStream": 2})
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "hoarder", envSocket+"="+d.Socket, envRPC+"="+d.RPC, envConfig+"="+string(shared))
	const hoarded = 1<<20 + 1<<20 + 100 + 1<<20 // creates and the upload
	waitStatus(t, d, "the hoarder to wait", func(s server.Status) bool {
		return s.Sessions[0].Deferred == 4 && s.Ledger.Unsealed == hoarded+1<<20+5000 && len(s.Connections) == 2+15
	})
	if c.call("is_in_use_request", "id", blob.id)["is_in_use"] != true {
		t.Error("a blob that others hold is not in use")
	}
	if st := nodeStatus(t, d); st.Ledger.Files != 1 || st.Ledger.Uncounted != 1<<20 {
		t.Errorf("%d pool files, %d bytes of disk blobs", st.Ledger.Files, st.Ledger.Uncounted)
	}

	begin := time.Now()
	p.kill()
	waitStatus(t, d, "all that it held to be free", func(s server.Status) bool {
		return s.Sessions[0].Deferred == 0 && len(s.Connections) == 2 && s.Ledger.Unsealed == 5000 && s.Ledger.Uncounted == 0
	})
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if c.call("is_in_use_request", "id", blob.id)["is_in_use"] != false {
		t.Error("a reference outlives its process")
	}
	other := connect(t, d)
	other.call("acquire_lock_request", "key", "hoard")
	c.refused(12, "push_next_stream_chunk_request", "id", 2, "chunk", blob.id) // its reader has gone: dropped
	c.call("stop_stream_request", "id", 1, "failed", false)                    // its writer has gone: still there
	chunk := other.call("pull_next_stream_chunk_request", "id", 1).id("chunk")
	if got := other.get(chunk); got.size != 5000 || !got.sealed {
		t.Errorf("the dead writer's chunk is %+v", got)
	}
	c.call("drop_stream_request", "id", 1)
	c.del(chunk, blob.id)
	st := nodeStatus(t, d)
	if st.Ledger.Blobs != 0 || st.Ledger.Usage != 0 {
		t.Errorf("%d blobs of %d bytes are left", st.Ledger.Blobs, st.Ledger.Usage)
	}
	if st.Ledger.Orphans < 4 {
		t.Errorf("%d orphans are counted, want at least 4", st.Ledger.Orphans)
	}
}

// TestUnsealedOfOthers: unsealed blobs of a dead connection that someone else
// uses, or that belong to a stream, stay.
func TestUnsealedOfOthers(t *testing.T) {
	d := testserver.Start(t, nil)
	c, reader := connect(t, d), connect(t, d)
	plain, read, sealed := c.create(100), c.create(200), c.create(400)
	c.fill(read, pattern(9, 200))
	got := reader.call("get_buffers_request", "ids", []uint64{read.id}, "unsafe", true).payloads()
	c.call("seal_request", "object_id", sealed.id)
	c.close()
	waitStatus(t, d, "the plain one to go", func(s server.Status) bool { return s.Ledger.Usage == 600 })
	if reader.exists(plain.id) || !reader.exists(read.id) || !reader.exists(sealed.id) {
		t.Error("the wrong blobs went")
	}
	sameBytes(t, "the blob in use", reader.bytes(got[0]), pattern(9, 200))
	reader.del(read.id, sealed.id)
	if st := nodeStatus(t, d); st.Ledger.Usage != 0 || st.Ledger.Deferred != 0 {
		t.Errorf("usage %d, deferred %d", st.Ledger.Usage, st.Ledger.Deferred)
	}
}

// waitFor is testserver.WaitFor with more patience, for other processes.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}
