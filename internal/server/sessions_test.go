package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

// newSession makes a session and returns its socket.
func (c *raw) newSession(storeType int) string {
	c.t.Helper()
	return c.call("new_session_request", "bulk_store_type", storeType).str("socket_path")
}

func poolFiles(t testing.TB, d *testserver.Daemon) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.Server.Report().Place.Path, "pool-*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// TestSessionsAreIsolated: what is in one session cannot be had, seen, sealed,
// deleted or written through another.
func TestSessionsAreIsolated(t *testing.T) {
	d := testserver.Start(t, nil)
	root := connect(t, d)
	socket := root.newSession(1)
	other := dialUnix(t, socket).register()
	blob, theirs := root.put(pattern(1, 5000)), other.put(pattern(2, 5000))
	object := root.call("create_data_request", "content", map[string]any{"typename": "test::X", "instance_id": 0}).id("id")
	root.call("persist_request", "id", object)
	root.call("put_name_request", "object_id", object, "name", "mine")
	root.call("create_stream_request", "object_id", object)
	unsealed := root.create(100)

	if other.exists(blob.id) || other.exists(object) {
		t.Error("things of the root session exist in another")
	}
	if n := len(other.call("get_buffers_request", "ids", []uint64{blob.id, unsealed.id}, "unsafe", true).payloads()); n != 0 {
		t.Errorf("%d blobs of the root session can be had in another", n)
	}
	if r := other.call("get_data_request", "id", []uint64{object, blob.id}); r["content"] != nil {
		t.Errorf("metadata of the root session: %v", r)
	}
	if r := other.call("list_data_request", "pattern", "*", "limit", 100); fmt.Sprint(r["content"]) == "<nil>" {
		t.Error("the session does not list its own blob")
	}
	other.refused(status.ObjectNotExists, "get_name_request", "name", "mine", "wait", false)
	other.refused(status.ObjectNotExists, "seal_request", "object_id", unsealed.id)
	other.refused(status.ObjectNotExists, "drop_buffer_request", "id", blob.id)
	other.refused(status.ObjectNotExists, "shrink_buffer_request", "id", unsealed.id, "size", 1)
	other.refused(status.ObjectNotExists, "push_next_stream_chunk_request", "id", object, "chunk", 1)
	other.del(blob.id, object, unsealed.id)
	other.call("clear_request")
	if !root.exists(blob.id) || !root.exists(object) || other.exists(theirs.id) {
		t.Error("clear in a session reached another, or not itself")
	}
	sameBytes(t, "the root session's blob", root.bytes(root.get(blob.id)), pattern(1, 5000))

	// A file of its own, but one limit for all.
	p := other.create(1000)
	rootInfo, err1 := root.fds[blob.fd].Stat()
	otherInfo, err2 := other.fds[p.fd].Stat()
	if err1 != nil || err2 != nil || os.SameFile(rootInfo, otherInfo) || p.fd == blob.fd {
		t.Errorf("sessions share a file: %v %v, store_fd %d and %d", err1, err2, p.fd, blob.fd)
	}
	big := other.create(40 * mib)
	root.refused(status.NotEnoughMemory, "create_buffer_request", "size", 30*mib)
	other.call("drop_buffer_request", "id", big.id)
	root.create(30 * mib)
}

// TestDeleteSession: the socket goes at once, the rest with the last connection.
func TestDeleteSession(t *testing.T) {
	d := testserver.Start(t, nil)
	root := connect(t, d)
	root.refused(status.Invalid, "delete_session_request")
	socket := root.newSession(1)
	a, b := dialUnix(t, socket).register(), dialUnix(t, socket).register()
	rpc := dialTCP(t, d.RPC)
	id := b.call("register_request").id("session_id")
	rpc.register("session_id", id)
	p := a.put(pattern(1, 10_000))
	a.call("delete_session_request")
	a.hungUp("delete_session")
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	late := dialTCP(t, d.RPC)
	late.refused(status.Invalid, "register_request", "session_id", id)
	sameBytes(t, "for those who are still there", b.bytes(b.get(p.id)), pattern(1, 10_000))
	b.put(pattern(2, 1000))
	if poolFiles(t, d) != 2 {
		t.Errorf("%d pool files", poolFiles(t, d))
	}
	b.close()
	if !rpc.exists(p.id) {
		t.Error("the session ended before its last connection")
	}
	rpc.close()
	waitStatus(t, d, "the session to end", func(s server.Status) bool {
		return len(s.Sessions) == 1 && s.Ledger.Blobs == 0 && s.Ledger.Usage == 0 && s.Ledger.Files == 1
	})
	if poolFiles(t, d) != 1 {
		t.Errorf("%d pool files are left", poolFiles(t, d))
	}
	alive(t, d)
}

// TestMovedBlobs: blobs that another session took over outlive the session that
// they came from, and its file lives as long as they do.
func TestMovedBlobs(t *testing.T) {
	d := testserver.Start(t, nil)
	root := connect(t, d)
	socket := root.newSession(1)
	src := dialUnix(t, socket).register()
	id := src.call("register_request").id("session_id")
	moved, left := src.put(pattern(1, 100_000)), src.put(pattern(2, 100_000))
	unsealed := src.create(5000)
	src.fill(unsealed, pattern(3, 5000))
	to, to2 := moved.id+1<<40, unsealed.id+1<<40
	root.call("move_buffers_ownership_request", "session_id", id, "id_to_id", [][2]uint64{{moved.id, to}, {unsealed.id, to2}, {12345, to + 7}})
	root.call("move_buffers_ownership_request", "session_id", 0, "id_to_id", [][2]uint64{{to, to + 9}}) // its own session: ok, no-op
	root.refused(status.Invalid, "move_buffers_ownership_request", "session_id", 4711, "id_to_id", [][2]uint64{{1, 2}})
	if p := src.get(moved.id); p.off != moved.off {
		t.Errorf("the source sees the blob at %d, not %d", p.off, moved.off)
	}
	src.call("delete_session_request")
	src.hungUp("delete_session")
	waitStatus(t, d, "the source to end", func(s server.Status) bool { return len(s.Sessions) == 1 })

	for i, want := range map[uint64][]byte{to: pattern(1, 100_000), to2: pattern(3, 5000)} {
		p := root.get(i)
		sameBytes(t, "a moved blob", root.bytes(p), want)
		rpc := connectRPC(t, d)
		rpc.call("get_remote_buffers_request", "num", 1, "0", i)
		sameBytes(t, "a moved blob from afar", rpc.read(len(want)), want)
		rpc.close() // which had the blob until its next request
	}
	if root.exists(left.id) || root.exists(moved.id) {
		t.Error("blobs that were not moved are there")
	}
	if st := nodeStatus(t, d); st.Ledger.Usage != 105_000 || st.Ledger.Files != 2 {
		t.Errorf("usage %d in %d files", st.Ledger.Usage, st.Ledger.Files)
	}
	// New blobs never lie in the old file.
	if p := root.put(pattern(4, 1000)); p.fd == moved.fd {
		t.Error("a new blob lies in the file of a session that has ended")
	}
	root.del(to)
	root.del(to2)
	waitStatus(t, d, "the old file to go", func(s server.Status) bool { return s.Ledger.Files == 1 })
	if poolFiles(t, d) != 1 {
		t.Errorf("%d pool files are left", poolFiles(t, d))
	}
}

// TestMoveToOddIDs: the ids that a move gives are a client's choice; reserved
// ones, ids of objects and ids in use are not to be had.
func TestMoveToOddIDs(t *testing.T) {
	d := testserver.Start(t, nil)
	root := connect(t, d)
	src := dialUnix(t, root.newSession(1)).register()
	id := src.call("register_request").id("session_id")
	blob, taken := src.put(pattern(1, 1000)), root.put(pattern(2, 1000))
	for _, to := range []uint64{0, 1, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		root.refused(status.Invalid, "move_buffers_ownership_request", "session_id", id, "id_to_id", [][2]uint64{{blob.id, to}})
	}
	root.call("move_buffers_ownership_request", "session_id", id, "id_to_id", [][2]uint64{{blob.id, taken.id}})
	sameBytes(t, "a blob whose id was wanted", root.bytes(root.get(taken.id)), pattern(2, 1000))

	// A reader may ask for the id before the blob is there. Its reference counts
	// from when it is.
	reader := connectExtended(t, d)
	to := blob.id + 1<<40
	if n := len(reader.call("get_buffers_request", "ids", []uint64{to}).payloads()); n != 0 {
		t.Fatal("a blob that is not there")
	}
	root.call("move_buffers_ownership_request", "session_id", id, "id_to_id", [][2]uint64{{blob.id, to}})
	reader.get(to)
	root.del(to)
	if _, deferred, _ := ledger(t, d); deferred != 1000 {
		t.Errorf("deferred %d: the reader is not waited for", deferred)
	}
}

// TestPlasmaSession: requests of the other store type are refused, entries live
// as long as they are referenced, and a dead client leaves nothing.
func TestPlasmaSession(t *testing.T) {
	d := testserver.Start(t, nil)
	root := connect(t, d)
	socket := root.newSession(2)
	if r := dialUnix(t, socket).call("register_request", "store_type", 1); r["store_match"] != false {
		t.Error("the store types match")
	}
	c := dialUnix(t, socket).register("store_type", "Plasma")
	for _, refused := range [][]any{
		{"create_buffer_request", "size", 10},
		{"create_buffers_request", "sizes", []int{10}},
		{"create_disk_buffer_request", "size", 10, "path", ""},
		{"create_remote_buffer_request", "size", 10},
		{"get_buffers_request", "ids", []uint64{1}},
		{"create_stream_request", "object_id", 1},
		{"create_buffer_by_plasma_request", "plasma_id", "zero", "size", 0, "plasma_size", 0},
	} {
		c.refused(status.Invalid, refused[0].(string), refused[1:]...)
	}
	create := func(c *raw, id string, size int) payload {
		t.Helper()
		return c.call("create_buffer_by_plasma_request", "plasma_id", id, "size", size, "plasma_size", size).payload("created")
	}
	data := pattern(1, 3000)
	p := create(c, "a", 3000)
	c.fill(p, data)
	c.call("plasma_seal_request", "plasma_id", "a")
	reader := dialUnix(t, socket).register("store_type", 2)
	r := reader.call("get_buffers_by_plasma_request", "num", 1, "0", "a")
	q := newPayload(r["0"])
	f, err := recvFD(reader)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 3000)
	if _, err := f.ReadAt(got, q.off); err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "a plasma blob", got, data)

	create(c, "b", 500)
	create(c, "b", 700) // replaces it
	create(c, "b", 900)
	if l := nodeStatus(t, d).Ledger; l.Usage != 3000+900 {
		t.Errorf("usage %d, want %d", l.Usage, 3000+900)
	}
	c.call("plasma_release_request", "plasma_id", "a")
	if l := nodeStatus(t, d).Ledger; l.Usage != 3000+900 {
		t.Errorf("usage %d: an entry with a reference went", l.Usage)
	}
	c.close()
	waitStatus(t, d, "the unsealed entry to go", func(s server.Status) bool { return s.Ledger.Usage == 3000 })
	reader.close()
	waitStatus(t, d, "the last reference to go", func(s server.Status) bool { return s.Ledger.Usage == 0 && s.Ledger.Blobs == 0 })
}

// TestSessionStorm makes, uses and deletes sessions from many connections while
// others ask for the status.
func TestSessionStorm(t *testing.T) {
	d := testserver.Start(t, func(c *config.Serve) { c.Size = "16MiB" })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			root := connect(t, d)
			for i := range 10 {
				socket := root.newSession(1)
				a, b := dialUnix(t, socket).register(), dialUnix(t, socket).register()
				p := a.put(pattern(byte(i), 10_000))
				sameBytes(t, "a blob", b.bytes(b.get(p.id)), pattern(byte(i), 10_000))
				a.call("delete_session_request")
				a.close()
				b.put(pattern(byte(i), 10_000))
				b.close()
			}
		})
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := connectExtended(t, d)
		for {
			select {
			case <-stop:
				return
			default:
				c.call("v6d_status_request")
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-done
	waitStatus(t, d, "all sessions to end", func(s server.Status) bool {
		return len(s.Sessions) == 1 && s.Ledger.Blobs == 0 && s.Ledger.Files == 1
	})
}

// TestStopWhileSessionsAreMade: a session that is being made when the daemon
// stops does not keep it from stopping, nor stays behind.
func TestStopWhileSessionsAreMade(t *testing.T) {
	for range 10 {
		d := testserver.Start(t, func(c *config.Serve) { c.Size = "1MiB" })
		for range 3 {
			c := connect(t, d)
			go func() {
				for {
					if _, err := c.net.Write(request("new_session_request", "bulk_store_type", 1)); err != nil {
						return
					}
					if _, err := c.tryRecv(); err != nil {
						return
					}
				}
			}()
		}
		time.Sleep(3 * time.Millisecond)
		begin := time.Now()
		if err := d.Stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Fatalf("the stop took %v", took)
		}
		if left, err := filepath.Glob(d.Socket + "*"); err != nil || len(left) > 0 {
			t.Fatalf("left behind: %v, %v", left, err)
		}
	}
}
