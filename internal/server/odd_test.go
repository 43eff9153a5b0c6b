package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

// TestDiskBufferAbuse: what a client names need not be a file of its.
func TestDiskBufferAbuse(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, "/dev/null", "/dev/zero", filepath.Join(dir, "no", "such"), "a\x00b", strings.Repeat("x", 5000)} {
		c.refused(status.IOError, "create_disk_buffer_request", "path", path, "size", 10)
	}
	c.refused(status.IOError, "create_disk_buffer_request", "path", empty, "size", 0)
	c.refused(status.Invalid, "create_disk_buffer_request", "path", "", "size", 0)
	rpc := connectRPC(t, d)
	rpc.refused(status.Invalid, "create_disk_buffer_request", "path", filepath.Join(dir, "x"), "size", 10)
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a remote client made a file")
	}

	// Sizes that only a sparse file system takes.
	shm, err := os.MkdirTemp("/dev/shm", "v6d-test")
	if err != nil {
		t.Skipf("no /dev/shm: %v", err)
	}
	defer os.RemoveAll(shm)
	for i, size := range []uint64{1 << 40, 1 << 50, 1 << 61, 1<<62 - 1} {
		c.send("create_disk_buffer_request", "path", filepath.Join(shm, fmt.Sprint(i)), "size", size)
		if r := c.recv(); r.code() == 0 {
			c.takeFDs(r)
			c.call("drop_buffer_request", "id", r.id("id"))
		}
	}
	if st := nodeStatus(t, d); st.Ledger.Blobs != 0 || st.Ledger.Uncounted != 0 || st.Ledger.Usage != 0 {
		t.Errorf("left: %+v", st.Ledger)
	}
}

// TestArenaAbuse: arenas that lie about their spans, and arenas nobody finishes.
func TestArenaAbuse(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	c.refused(status.Invalid, "make_arena_request", "size", 0)
	c.refused(status.NotEnoughMemory, "make_arena_request", "size", uint64(1<<64-2))
	c.refused(status.NotEnoughMemory, "make_arena_request", "size", 64*mib+1)
	connectRPC(t, d).refused(status.Invalid, "make_arena_request", "size", 100)
	all := c.call("make_arena_request", "size", uint64(1<<64-1))
	if all.id("size") != 64*mib {
		t.Errorf("an arena of all memory has %d bytes", all.id("size"))
	}
	fd := c.call("make_arena_request", "size", mib).id("fd")
	other := connect(t, d)
	other.refused(status.ObjectNotExists, "finalize_arena_request", "fd", fd, "offsets", []int{0}, "sizes", []int{10})
	for _, span := range [][2][]uint64{
		{{0}, {mib + 1}},
		{{mib + 1}, {0}},
		{{mib}, {1}},
		{{1<<64 - 1}, {1}},
		{{1}, {1<<64 - 1}},
		{{1 << 63}, {1 << 63}},
		{{0, 0}, {1}},
		{{0}, {1, 1}},
	} {
		c.refused(status.UserInputError, "finalize_arena_request", "fd", fd, "offsets", span[0], "sizes", span[1])
	}
	for _, number := range []any{0, -1, 999999, uint64(1 << 32), uint64(1 << 63)} {
		c.refused(status.ObjectNotExists, "finalize_arena_request", "fd", number, "offsets", []int{}, "sizes", []int{})
	}
	c.call("finalize_arena_request", "fd", fd, "offsets", []int{0, 0, mib}, "sizes", []int{mib, 100, 0}) // overlaps are the client's affair
	c.refused(status.ObjectNotExists, "finalize_arena_request", "fd", fd, "offsets", []int{}, "sizes", []int{})
	if st := nodeStatus(t, d); st.Ledger.Blobs != 2 || st.Ledger.Uncounted != mib+100 || st.Ledger.Usage != 0 {
		t.Errorf("%+v", st.Ledger)
	}
	c.close()
	waitStatus(t, d, "the unfinished arena to go", func(s server.Status) bool { return len(s.Connections) == 3 })
	other.call("clear_request")
	if st := nodeStatus(t, d); st.Ledger.Blobs != 0 || st.Ledger.Uncounted != 0 {
		t.Errorf("%+v", st.Ledger)
	}
}

// TestLocks: a lock waits, is given on at its owner's release and death, and
// cannot be taken by a client that died waiting.
func TestLocks(t *testing.T) {
	d := testserver.Start(t, nil)
	a, b, dead, c := connect(t, d), connectRPC(t, d), connect(t, d), connect(t, d)
	key := a.call("acquire_lock_request", "key", "k").str("key")
	dead.send("acquire_lock_request", "key", "k")
	b.send("acquire_lock_request", "key", "k")
	waits(t, d, 2)
	dead.close()
	waits(t, d, 1)
	c.call("release_lock_request", "key", "k") // not the key that acquire gave
	c.call("release_lock_request", "key", "no such lock")
	b.silent(shortly)
	a.call("release_lock_request", "key", key)
	b.expect("acquire_lock_request")
	c.send("acquire_lock_request", "key", "k")
	waits(t, d, 1)
	b.close()
	c.expect("acquire_lock_request")
	a.call("release_lock_request", "key", key) // of old: does not free the new owner's
	a.send("acquire_lock_request", "key", "k")
	a.silent(shortly)
	other := dialUnix(t, connect(t, d).newSession(1)).register()
	other.call("acquire_lock_request", "key", "k") // sessions are apart
	c.close()
	a.expect("acquire_lock_request")
}

// TestWaitingRequests: get_data and get_name wait for what others make, from
// both transports, and are answered once.
func TestWaitingRequests(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	object := func() uint64 {
		id := c.call("create_data_request", "content", map[string]any{"typename": "test::X", "instance_id": 0}).id("id")
		c.call("persist_request", "id", id)
		return id
	}
	var named []*raw
	for i := range 50 {
		w := connect(t, d)
		if i%2 == 0 {
			w = connectRPC(t, d)
		}
		w.send("get_name_request", "name", "n", "wait", true)
		named = append(named, w)
	}
	waits(t, d, 50)
	id := object()
	c.call("put_name_request", "object_id", id, "name", "other")
	waits(t, d, 50)
	for _, w := range named[:10] {
		w.close()
	}
	waits(t, d, 40)
	c.call("put_name_request", "object_id", id, "name", "n")
	for _, w := range named[10:] {
		if got := w.expect("get_name_request").id("object_id"); got != id {
			t.Errorf("object %x, want %x", got, id)
		}
	}
	waits(t, d, 0)
	p := c.create(100) // an unsealed blob satisfies the wait and is left out
	w := connect(t, d)
	if r := w.call("get_data_request", "id", []uint64{p.id}, "wait", true); r["content"] != nil {
		t.Errorf("%v", r)
	}
}

// TestManyIDs: long lists cost their sender some time, and nobody else theirs.
func TestManyIDs(t *testing.T) {
	d := testserver.Start(t, nil)
	c, other := connect(t, d), connect(t, d)
	list := make([]uint64, 20_000)
	for i := range list {
		list[i] = uint64(i + 1)
	}
	for _, kv := range [][]any{
		{"get_data_request", "id", list},
		{"get_buffers_request", "ids", list},
		{"increase_reference_count_request", "ids", list},
		{"del_data_request", "id", list, "deep", true, "force", true},
		{"get_remote_buffers_request", "ids", list},
		{"create_buffers_request", "sizes", make([]int, 20_000), "num", 20_000},
	} {
		c.send(kv[0].(string), kv[1:]...)
		begin := time.Now()
		time.Sleep(20 * time.Millisecond) // let it begin
		other.exists(1)
		other.call("create_data_request", "content", map[string]any{"typename": "test::X", "instance_id": 0})
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("beside %s others waited %v", kv[0], took)
		}
		c.expect(kv[0].(string))
	}
}

// TestSameBlobManyTimes: a list may name a blob again and again.
func TestSameBlobManyTimes(t *testing.T) {
	d := testserver.Start(t, nil)
	c, rpc := connect(t, d), connectRPC(t, d)
	p := c.put(pattern(1, 1000))
	list := []uint64{p.id, p.id, 1 << 63, p.id, 1<<64 - 1}
	if n := len(c.call("get_buffers_request", "ids", list).payloads()); n != 5 {
		t.Errorf("%d payloads", n)
	}
	rpc.call("get_remote_buffers_request", "ids", []uint64{p.id, p.id, 1 << 63, p.id})
	for range 3 {
		sameBytes(t, "a download", rpc.read(1000), pattern(1, 1000))
	}
	c.del(p.id, p.id)
	if _, deferred, _ := ledger(t, d); deferred != 1000 {
		t.Errorf("deferred %d", deferred)
	}
	rpc.exists(1)
	if _, deferred, _ := ledger(t, d); deferred != 0 {
		t.Errorf("deferred %d", deferred)
	}
}

// TestTooManyBlobs: two bytes that name a blob become hundreds in the reply, so
// that their number in one request has an end.
func TestTooManyBlobs(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	list := strings.Repeat("0,", 1<<20) + "0"
	for _, head := range []string{
		`{"type":"create_remote_buffers_request","num":1,"sizes":[`, `{"type":"get_buffers_request","ids":[`,
	} {
		c.write(frame([]byte(head + list + "]}")))
		c.expectError(status.Invalid, head)
	}
}

// TestManyBlobsAtOnce: a request for many blobs is answered as one for few, and
// does not change the next one on any connection.
func TestManyBlobsAtOnce(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	var all []uint64
	for i := range 300 {
		all = append(all, c.put([]byte{byte(i), byte(i >> 8)}).id)
	}
	for _, n := range []int{1, 63, 64, 65, 300, 2, 0} {
		for range 2 {
			list := append([]uint64{}, all[:n]...)
			got := c.call("get_buffers_request", "ids", list).payloads()
			if len(got) != n {
				t.Fatalf("%d blobs asked for, %d got", n, len(got))
			}
			for i, p := range got {
				sameBytes(t, "a blob", c.bytes(p), []byte{byte(i), byte(i >> 8)})
			}
			if r := c.call("get_data_request", "id", list); n > 0 && len(r["content"].(map[string]any)) != n {
				t.Fatalf("metadata of %d blobs asked for, %d got", n, len(r["content"].(map[string]any)))
			}
		}
	}
}
