package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

const mib = 1 << 20

// onTmpfs starts a daemon whose pool is larger than the tmpfs that it lies on.
func onTmpfs(t testing.TB, tmpfs, pool int64) *testserver.Daemon {
	dir := testserver.Tmpfs(t, tmpfs)
	return testserver.Start(t, func(c *config.Serve) {
		c.Memory = dir
		c.Size = strconv.FormatInt(pool, 10)
		c.Keep = true // a folder that was named is always kept
	})
}

// fillUp makes sealed blobs until the daemon refuses one, and returns them and
// what it said. Every page of them is written: nobody may meet SIGBUS.
func fillUp(t testing.TB, c *raw, size int) (made []payload, message string) {
	t.Helper()
	for len(made) < 1000 {
		c.send("create_buffer_request", "size", size)
		r := c.recv()
		if r.code() != 0 {
			if r.code() != status.NotEnoughMemory {
				t.Fatalf("blob %d: %v", len(made), r)
			}
			return made, r.str("message")
		}
		c.takeFDs(r)
		p := r.payload("created")
		c.fill(p, pattern(byte(len(made)), size))
		c.call("seal_request", "object_id", p.id)
		made = append(made, p)
	}
	t.Fatal("the pool has no end")
	return nil, ""
}

func checkBlobs(t testing.TB, c *raw, made []payload) {
	t.Helper()
	for i, p := range made {
		if p.id != 0 {
			sameBytes(t, fmt.Sprintf("blob %d", i), c.bytes(p), pattern(byte(i), int(p.size)))
		}
	}
}

func ids(list []payload) []uint64 {
	var out []uint64
	for _, p := range list {
		out = append(out, p.id)
	}
	return out
}

// TestPoolLargerThanTmpfs: the start warns; blobs beyond the tmpfs are refused
// with 41, which names who holds most; deleting makes room again, every time.
func TestPoolLargerThanTmpfs(t *testing.T) {
	d := onTmpfs(t, 48*mib, 128*mib)
	contains(t, "the log of the start", d.Log(), "level=WARN", "too small for the pool")
	contains(t, "the report of the start", d.Server.Report().SpaceNote, "lacks")
	c := connect(t, d)
	first := 0
	for round := range 3 {
		made, message := fillUp(t, c, 3*mib)
		if round == 0 {
			first = len(made)
		}
		if len(made) < 7 || len(made) < first-1 { // small blobs keep a unit to themselves
			t.Fatalf("round %d: %d blobs of 3 MiB fit in 48 MiB, %d before", round, len(made), first)
		}
		contains(t, "the refusal", message, "file system", strconv.Itoa(os.Getpid()), strconv.Itoa(len(made)*3*mib))
		checkBlobs(t, c, made)
		c.put([]byte("small blobs still fit beside the large"))
		if round == 0 { // and metadata: the journal has room to grow, else nothing could be deleted
			text := strings.Repeat("x", 200_000)
			for range 20 {
				c.call("create_data_request", "content", map[string]any{"typename": "test::Text", "instance_id": 0, "text": text})
			}
		}
		c.call("clear_request")
		alive(t, d)
	}
	if st := nodeStatus(t, d); st.Ledger.OutOfMemory != 3 || st.Ledger.Usage != 0 {
		t.Errorf("%d refusals are counted, %d bytes are in use", st.Ledger.OutOfMemory, st.Ledger.Usage)
	}
}

// TestFreePagesAreUsedAgain: memory that lies free in one place of the file
// serves a blob that only fits in another.
func TestFreePagesAreUsedAgain(t *testing.T) {
	d := onTmpfs(t, 48*mib, 128*mib)
	c := connect(t, d)
	made, _ := fillUp(t, c, 4*mib)
	for i := 0; i < len(made); i += 2 { // every other one: no two neighbours
		c.del(made[i].id)
		made[i].id = 0
	}
	p := c.put(pattern(200, 8*mib))
	sameBytes(t, "a large blob", c.bytes(p), pattern(200, 8*mib))
	checkBlobs(t, c, made)
}

// TestZombiesOnFullTmpfs: memory that only 0.24 readers hold is reused before
// 41, also when it is the file system that is full.
func TestZombiesOnFullTmpfs(t *testing.T) {
	d := onTmpfs(t, 48*mib, 128*mib)
	c, reader := connect(t, d), connect(t, d)
	made, _ := fillUp(t, c, 2*mib)
	for _, p := range made {
		reader.get(p.id)
	}
	c.del(ids(made)...)
	p := c.put(pattern(200, 16*mib))
	sameBytes(t, "a large blob", c.bytes(p), pattern(200, 16*mib))
	strict := connectExtended(t, d)
	strict.get(p.id)
	c.del(p.id)
	c.refused(status.NotEnoughMemory, "create_buffer_request", "size", 20*mib) // a v6d reader is waited for
	q := strict.bytes(p)
	sameBytes(t, "what the v6d reader sees", q, pattern(200, 16*mib))
	strict.close()
	waitStatus(t, d, "the reader to go", func(s server.Status) bool { return s.Ledger.Deferred == 0 })
	c.create(20 * mib)
}

// TestFullPool: 41 names the top consumers, all ways to make blobs refuse alike,
// and after deletes all is as before.
func TestFullPool(t *testing.T) {
	d := testserver.Start(t, func(c *config.Serve) { c.Size = "16MiB" })
	c, other := connect(t, d), connectRPC(t, d)
	for range 2 {
		made, message := fillUp(t, c, mib)
		if len(made) != 16 {
			t.Fatalf("%d blobs of 1 MiB fit in 16 MiB", len(made))
		}
		contains(t, "the refusal", message, fmt.Sprintf("process %d: %d bytes", os.Getpid(), 16*mib), "1048576", "16777216")
		c.refused(status.NotEnoughMemory, "create_buffers_request", "sizes", []int{1, mib}, "num", 2)
		other.refused(status.NotEnoughMemory, "create_remote_buffer_request", "size", 1)
		other.refused(status.NotEnoughMemory, "create_remote_buffers_request", "sizes", []int{0, 1}, "num", 2)
		if st := nodeStatus(t, d); st.Ledger.Blobs != 16 || st.Ledger.Usage != 16*mib || st.Ledger.Unsealed != 0 {
			t.Errorf("refusals left something: %+v", st.Ledger)
		}
		checkBlobs(t, c, made)
		c.call("create_buffer_request", "size", 0)
		c.del(ids(made)...)
	}
	// The whole limit in one blob, and in 64-byte blobs.
	p := c.put(pattern(1, 16*mib))
	c.del(p.id)
	sizes := make([]int, 4096)
	for i := range sizes {
		sizes[i] = 64
	}
	small := c.call("create_buffers_request", "sizes", sizes, "num", len(sizes)).payloads()
	c.refused(status.NotEnoughMemory, "create_buffer_request", "size", 16*mib-4096*64+1)
	p = c.put(pattern(2, 16*mib-4096*64))
	c.del(append(ids(small), p.id)...)
	if st := nodeStatus(t, d); st.Ledger.Usage != 0 || st.Ledger.Free != st.Ledger.PoolFileMax && st.Ledger.Overhead != 0 {
		t.Errorf("after all is deleted: %+v", st.Ledger)
	}
}

// memoryCgroup makes a memory cgroup (v1) with a limit until the test ends.
func memoryCgroup(t testing.TB, limit int64) string {
	t.Helper()
	dir := filepath.Join("/sys/fs/cgroup/memory", fmt.Sprintf("v6d-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no memory cgroup (v1) can be made here: %v", err)
	}
	t.Cleanup(func() {
		waitFor(t, "the cgroup to be empty", func() bool { return os.Remove(dir) == nil })
	})
	if err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
		t.Skipf("the memory cgroup takes no limit: %v", err)
	}
	return dir
}

// TestPoolLargerThanCgroup: a daemon whose memory cgroup is smaller than its
// pool warns at its start, refuses what does not fit, and is not killed.
func TestPoolLargerThanCgroup(t *testing.T) {
	const limit = 128 * mib
	cgroup := memoryCgroup(t, limit)
	socket := filepath.Join(testserver.ShortTempDir(t), "v6d.sock")
	cfg := config.Default()
	cfg.Socket, cfg.RPCListen, cfg.Size, cfg.Huge = socket, "off", "1GiB", "never"
	p := start(t, "daemon", envConfig+"="+mustJSON(cfg), envCgroup+"="+cgroup)
	contains(t, "the start", p.said, "memory cgroup", cgroup, "128MiB")

	d := &testserver.Daemon{Socket: socket}
	discardPool(t, d)
	c := connect(t, d)
	for round := range 2 {
		made, message := fillUp(t, c, 8*mib)
		if n := int64(len(made)) * 8 * mib; n < limit/4 || n > limit {
			t.Errorf("round %d: %d MiB of blobs in a cgroup of %d MiB", round, n/mib, limit/mib)
		}
		contains(t, "the refusal", message, "memory cgroup "+cgroup, fmt.Sprintf("process %d", os.Getpid()))
		checkBlobs(t, c, made)
		c.del(ids(made)...)
	}
	if !p.alive() {
		t.Fatal("the daemon is dead")
	}
	if b, err := os.ReadFile(filepath.Join(cgroup, "memory.oom_control")); err == nil && !strings.Contains(string(b), "oom_kill 0") {
		t.Errorf("the kernel killed something: %s", b)
	}
	c.close()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("the daemon's end: %v", err)
	}
}
