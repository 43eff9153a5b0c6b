package server_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

func openDescriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestSilentCrowd: a thousand connections that say nothing disturb nobody, and
// leave nothing behind.
func TestSilentCrowd(t *testing.T) {
	d := testserver.Start(t, nil)
	alive(t, d)
	waitStatus(t, d, "quiet", func(s server.Status) bool { return len(s.Connections) == 1 })
	before := openDescriptors(t)
	var crowd []net.Conn
	for i := range 1000 {
		network, addr := "unix", d.Socket
		if i%4 == 0 {
			network, addr = "tcp", d.RPC
		}
		c, err := net.Dial(network, addr)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		crowd = append(crowd, c)
	}
	waitStatus(t, d, "all of them", func(s server.Status) bool { return len(s.Connections) == 1001 })
	begin := time.Now()
	for range 20 {
		alive(t, d)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("20 rounds beside a silent crowd took %v", took)
	}
	for _, c := range crowd {
		c.Close()
	}
	waitStatus(t, d, "all of them to be gone", func(s server.Status) bool { return len(s.Connections) == 1 })
	testserver.WaitFor(t, "all descriptors to be back", func() bool { return openDescriptors(t) <= before })
}

// deaf makes clients that ask for more than sockets hold and never read it, one
// of each kind, and waits until the daemon is stuck writing to all of them.
func deaf(t testing.TB, d *testserver.Daemon, blob payload) []*raw {
	t.Helper()
	c := connect(t, d)
	object := c.call("create_data_request", "content", map[string]any{
		"typename": "test::Large", "instance_id": 0, "text": strings.Repeat("x", 1<<20),
	}).id("id")
	c.close()
	var list []*raw
	for _, transport := range []func(testing.TB, *testserver.Daemon) *raw{connect, connectRPC} {
		download := transport(t, d)
		download.send("get_remote_buffers_request", "num", 1, "0", blob.id)
		packed := transport(t, d)
		packed.send("get_remote_buffers_request", "num", 1, "0", blob.id, "compress", true)
		talker := transport(t, d)
		for range 32 {
			talker.send("get_data_request", "id", []uint64{object})
		}
		list = append(list, download, packed, talker)
	}
	var last []uint64
	steady := 0
	testserver.WaitFor(t, "the daemon to be stuck", func() bool {
		var now []uint64
		for _, c := range nodeStatus(t, d).Connections {
			if !c.Idle && !c.Extended {
				now = append(now, c.Requests)
			}
		}
		if steady++; len(now) < len(list) || !slices.Equal(now, last) {
			steady = 0
		}
		last = now
		time.Sleep(2 * time.Millisecond)
		return steady > 20
	})
	return list
}

// TestDeafClients: clients that stop reading their replies hold up nobody else,
// and when they go, what they held is free.
func TestDeafClients(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	blob := c.put(noiseBytes(32 << 20))
	list := deaf(t, d, blob)
	for range 20 {
		alive(t, d)
	}
	c.del(blob.id)
	if st := nodeStatus(t, d); st.Ledger.Deferred != 32<<20 || st.Ledger.Usage != 0 {
		t.Errorf("a blob on its way out is deleted: deferred %d, usage %d", st.Ledger.Deferred, st.Ledger.Usage)
	}
	for _, x := range list {
		x.close()
	}
	waitStatus(t, d, "the blob's memory", func(s server.Status) bool { return s.Ledger.Deferred == 0 && len(s.Connections) == 2 })
}

// TestStopWithDeafClients: they cannot keep the daemon from stopping.
func TestStopWithDeafClients(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	deaf(t, d, c.put(noiseBytes(32<<20)))
	upload := connectRPC(t, d)
	upload.call("create_remote_buffer_request", "size", 1<<20)
	upload.write(pattern(0, 1000))
	begin := time.Now()
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

// TestStopIsPrompt: idle, half-said, unregistered and waiting clients do not
// delay a stop.
func TestStopIsPrompt(t *testing.T) {
	d := testserver.Start(t, nil)
	connect(t, d)
	dialUnix(t, d.Socket)
	dialTCP(t, d.RPC)
	half := connect(t, d)
	half.write(request("exists_request", "id", 1)[:10])
	waiting := connect(t, d)
	waiting.send("get_data_request", "id", []uint64{1}, "wait", true)
	named := connectRPC(t, d)
	named.send("get_name_request", "name", "x", "wait", true)
	holder, locked := connect(t, d), connect(t, d)
	holder.call("acquire_lock_request", "key", "k")
	locked.send("acquire_lock_request", "key", "k")
	puller := connect(t, d)
	puller.call("create_stream_request", "object_id", 7)
	puller.send("pull_next_stream_chunk_request", "id", 7)
	watcher := connectExtended(t, d)
	watcher.send("v6d_watch_request", "wait_ms", 60_000)
	waitStatus(t, d, "all to wait", func(s server.Status) bool { return s.Sessions[0].Deferred == 5 })
	begin := time.Now()
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the stop took %v", took)
	}
	for _, c := range []*raw{waiting, named, locked, puller} {
		if r, err := c.tryRecv(); err == nil && r.code() == 0 {
			t.Errorf("a request that waited for nothing succeeded: %v", r)
		}
	}
}

// TestOutOfDescriptors: when connections take all descriptors of the daemon,
// those that are served stay served, and when some go, the next come in.
func TestOutOfDescriptors(t *testing.T) {
	socket := filepath.Join(testserver.ShortTempDir(t), "v6d.sock")
	cfg := config.Default()
	cfg.Socket, cfg.RPCListen, cfg.Size, cfg.Huge = socket, "off", "16MiB", "never"
	p := start(t, "daemon", envConfig+"="+mustJSON(cfg), envFiles+"=60")
	d := &testserver.Daemon{Socket: socket}
	discardPool(t, d)
	c := connect(t, d)
	blob := c.put(pattern(1, 3*mib))
	var crowd []net.Conn
	for range 100 {
		x, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		crowd = append(crowd, x)
	}
	for range 10 {
		sameBytes(t, "a blob", c.bytes(c.get(blob.id)), pattern(1, 3*mib))
		q := c.put(pattern(2, 3*mib))
		c.del(q.id)
	}
	// What needs a descriptor of the daemon fails, without hurting anyone.
	c.refused(status.IOError, "create_disk_buffer_request", "path", "", "size", 100)
	for _, typ := range []string{"new_session_request", "make_arena_request"} {
		c.send(typ, "bulk_store_type", 1, "size", 100)
		if r := c.recv(); r.code() == 0 {
			t.Errorf("%s: %v", typ, r)
		}
	}
	sameBytes(t, "a blob", c.bytes(c.get(blob.id)), pattern(1, 3*mib))
	for _, x := range crowd {
		x.Close()
	}
	alive(t, d)
	c.newSession(1)
	if st := nodeStatus(t, d); len(st.Sessions) != 2 || st.Ledger.Blobs != 1 {
		t.Errorf("%d sessions, %d blobs", len(st.Sessions), st.Ledger.Blobs)
	}
	c.close()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("the daemon's end: %v", err)
	}
}
