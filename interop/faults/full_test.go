//go:build linux

package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/testserver"
)

// testFull fills the pool until the daemon refuses: by its limit, by its tmpfs,
// by its memory cgroup.
func testFull(t *testing.T) {
	t.Run("limit", fullLimit)
	t.Run("tmpfs", fullTmpfs)
	t.Run("cgroup", fullCgroup)
	t.Run("cgroup-small", fullCgroupSmall)
	t.Run("cgroup-metadata", fullCgroupMetadata)
}

// fillUp puts blobs until the daemon answers 41, and returns them and what it
// said.
func fillUp(t testing.TB, p *peer, size int) (made []client.ID, message string) {
	t.Helper()
	for len(made) < 10_000 {
		id, err := p.put(pattern(uint64(len(made)), size))
		if errors.Is(err, client.NoMemory) {
			return made, err.Error()
		}
		if err != nil {
			t.Fatalf("blob %d: %v, want error 41 at the end", len(made), err)
		}
		made = append(made, id)
	}
	t.Fatal("the pool has no end")
	return nil, ""
}

func connect(t testing.TB, address string) *peer {
	t.Helper()
	p, err := dialPeer(address, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.drop)
	p.limit(3 * patience)
	return p
}

func (p *peer) delete(t testing.TB, ids ...client.ID) {
	t.Helper()
	if err := ask(p, protocol.DeleteData, protocol.DeleteRequest{IDs: ids, Deep: true}, &protocol.None{}); err != nil {
		t.Fatal(err)
	}
}

// whole reads blobs that fillUp made back.
func (p *peer) whole(t testing.TB, made []client.ID, size int) {
	t.Helper()
	for i, id := range made {
		at, found, err := p.get(id)
		if err != nil || !found {
			t.Fatalf("blob %d: found %v, %v", i, found, err)
		}
		b, err := p.read(at)
		if err != nil {
			t.Fatal(err)
		}
		sameBytes(t, fmt.Sprintf("blob %d", i), b, pattern(uint64(i), size))
	}
	if err := ask(p, protocol.IncreaseRefs, protocol.IDListRequest{}, &protocol.None{}); err != nil {
		t.Fatal(err)
	}
}

func contains(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s does not mention %q: %s", what, p, text)
		}
	}
}

// fullLimit: the refusal names who made most, dead or alive, in that order; all
// ways to make blobs refuse; a delete makes room again.
func fullLimit(t *testing.T) {
	d := serve(t, "--size", "32MiB")
	before := d.books(t, 0)
	refusals := 0
	for round := range 3 {
		p, far := connect(t, d.socket), connect(t, d.rpc)
		large, small := d.spawn(t, "hoard", 12), d.spawn(t, "hoard", 4)
		large.arrive(t)
		small.arrive(t)
		if round > 0 { // what is sealed outlives its maker, also in this list
			if err := errors.Join(large.kill(), small.kill()); err != nil {
				t.Fatal(err)
			}
		}
		made, message := fillUp(t, p, mib)
		if len(made) != 16 {
			t.Fatalf("%d blobs of 1 MiB beside 16 in a pool of 32 MiB", len(made))
		}
		consumer := func(pid, n int) string { return fmt.Sprintf("process %d: %d bytes", pid, n*mib) }
		first, second, third := consumer(os.Getpid(), 16), consumer(large.cmd.Process.Pid, 12), consumer(small.cmd.Process.Pid, 4)
		contains(t, "the refusal", message, first, second, third, strconv.Itoa(mib), strconv.Itoa(32*mib))
		if a, b, c := strings.Index(message, first), strings.Index(message, second), strings.Index(message, third); a > b || b > c {
			t.Errorf("the largest is not named first: %s", message)
		}
		for i, err := range []error{
			ask(p, protocol.CreateBuffer, protocol.SizeRequest{Size: 1}, &protocol.CreateBufferReply{}),
			ask(p, protocol.CreateBuffers, protocol.CreateBuffersRequest{Sizes: []uint64{0, 1, mib}}, &protocol.CreateBuffersReply{}),
			ask(far, protocol.CreateRemote, protocol.CreateRemoteRequest{Size: 1}, &protocol.CreateBufferReply{}),
			ask(far, protocol.CreateRemotes, protocol.CreateRemotesRequest{Sizes: []uint64{1, 1}}, &protocol.CreateBuffersReply{}),
		} {
			if !errors.Is(err, client.NoMemory) {
				t.Errorf("request %d on a full pool: %v, want 41", i, err)
			}
		}
		refusals += 5
		for i := range made { // each delete makes room for one more
			p.delete(t, made[i])
			id, err := p.put(pattern(uint64(i), mib))
			if err != nil {
				t.Fatalf("put after a delete: %v", err)
			}
			made[i] = id
			if _, err := p.create(1); !errors.Is(err, client.NoMemory) {
				t.Errorf("the pool is full again: %v", err)
			}
			refusals++
		}
		p.whole(t, made, mib)
		if err := ask(p, protocol.Clear, protocol.None{}, &protocol.None{}); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			if err := errors.Join(large.kill(), small.kill()); err != nil {
				t.Fatal(err)
			}
		}
		p.drop()
		far.drop()
		d.even(t, before)
	}
	if n := d.status(t).Ledger.OutOfMemory; int(n) < refusals {
		t.Errorf("%d refusals, %d are counted", refusals, n)
	}
	d.balanced(t, before)
	d.stop()
	t.Logf("%d puts refused with 41; ledger balanced", refusals)
}

// cycles fills a daemon up, reads all back, deletes a part and fills again, and
// returns how often it refused.
func cycles(t testing.TB, d *daemon, size, least int, named ...string) (refusals int) {
	t.Helper()
	for range 3 {
		p := connect(t, d.socket)
		made, message := fillUp(t, p, size)
		refusals++
		contains(t, "the refusal", message, append(named, fmt.Sprintf("process %d: %d bytes", os.Getpid(), len(made)*size))...)
		if len(made) < least {
			t.Errorf("only %d blobs of %d MiB fit, want %d", len(made), size/mib, least)
		}
		p.whole(t, made, size)
		p.delete(t, made[len(made)/2])
		id, err := p.put(pattern(uint64(len(made)/2), size))
		if err != nil {
			t.Fatalf("put after a delete: %v", err)
		}
		made[len(made)/2] = id
		p.whole(t, made, size)
		p.delete(t, made...)
		p.drop()
		if !d.running() {
			t.Fatalf("the daemon is dead: %v\n%s", d.cmd.ProcessState, d.log)
		}
	}
	return refusals
}

// fullTmpfs: a tmpfs that is smaller than the pool fills up. No page is promised
// that does not exist: every byte is written and read back.
func fullTmpfs(t *testing.T) {
	dir := testserver.Tmpfs(t, 64*mib)
	d := serve(t, "--size", "256MiB", "--memory", dir)
	before := d.books(t, 0)
	refusals := cycles(t, d, 3*mib, 10, "file system of the pool is full")
	d.balanced(t, before)
	d.stop()
	t.Logf("%d puts refused with 41; ledger balanced", refusals)
}

// memoryCgroup makes a memory cgroup with a limit until the test ends, and
// returns its folder and the file that counts who was killed in it.
func memoryCgroup(t testing.TB, limit int) (dir, events string) {
	t.Helper()
	parent, file := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	events = "memory.oom_control"
	if _, err := os.Stat(filepath.Join(parent, file)); err != nil {
		if _, err := os.Stat(filepath.Join(parent, "memory.usage_in_bytes")); err != nil {
			parent, file, events = "/sys/fs/cgroup", "memory.max", "memory.events"
		}
	}
	dir = filepath.Join(parent, fmt.Sprintf("v6d-faults-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no memory cgroup can be made here: %v", err)
	}
	t.Cleanup(func() {
		if err := within(patience, func() error { return os.Remove(dir) }); err != nil {
			t.Errorf("remove the cgroup: %v", err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0); err != nil {
		t.Skipf("the memory cgroup takes no limit: %v", err)
	}
	return dir, filepath.Join(dir, events)
}

// serveIn starts a daemon inside a cgroup.
func serveIn(t testing.TB, cgroup, prefix string, args ...string) *daemon {
	t.Helper()
	d := newDaemon(t, args...)
	d.prefix = "echo $$ > " + filepath.Join(cgroup, "cgroup.procs") + prefix
	d.start()
	return d
}

func nobodyKilled(t testing.TB, events string) {
	t.Helper()
	b, err := os.ReadFile(events)
	if err != nil || !strings.Contains(string(b)+"\n", "oom_kill 0\n") {
		t.Errorf("the kernel killed something: %v\n%s", err, b)
	}
}

// fullCgroup: a memory cgroup that is smaller than the pool. Going over it would
// get the daemon killed; it must answer 41.
func fullCgroup(t *testing.T) {
	dir, events := memoryCgroup(t, 128*mib)
	d := serveIn(t, dir, "", "--size", "1GiB", "--huge", "never")
	contains(t, "the start", d.status(t).Start.CgroupNote, "memory cgroup "+dir, "128MiB")
	before := d.books(t, 0)
	refusals := cycles(t, d, 4*mib, 10, "memory cgroup "+dir)
	// Over TCP as well: there the daemon writes the pages itself.
	far := connect(t, d.rpc)
	var made []client.ID
	for {
		id, err := far.uploadAll(pattern(1, 4*mib))
		if errors.Is(err, client.NoMemory) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, id)
	}
	far.delete(t, made...)
	far.drop()
	d.balanced(t, before)
	d.stop()
	nobodyKilled(t, events)
	t.Logf("%d puts refused with 41 in a cgroup of 128 MiB, nobody killed; ledger balanced", refusals+1)
}

// fullCgroupSmall fills the same cgroup with small blobs and objects: there the
// journal and the daemon's own books grow beside the pool.
func fullCgroupSmall(t *testing.T) {
	dir, events := memoryCgroup(t, 128*mib)
	d := serveIn(t, dir, "", "--size", "1GiB", "--huge", "never")
	before := d.books(t, 0)
	p := connect(t, d.socket)
	big, _ := fillUp(t, p, 4*mib)
	p.delete(t, big[0])
	small, refused := 0, false
	for !refused && small < 40_000 {
		var r protocol.CreateBuffersReply
		sizes := make([]uint64, 500)
		for i := range sizes {
			sizes[i] = 1 + uint64((small+i)%500)
		}
		err := ask(p, protocol.CreateBuffers, protocol.CreateBuffersRequest{Sizes: sizes}, &r)
		if err == nil {
			err = p.take(r.FDs...)
		}
		if refused = errors.Is(err, client.NoMemory); refused {
			break
		}
		if err != nil {
			t.Fatalf("after %d small blobs: %v\n%s", small, err, d.log)
		}
		for _, id := range r.IDs {
			if err := ask(p, protocol.Seal, protocol.ObjectIDRequest{ObjectID: id}, &protocol.None{}); err != nil && !errors.Is(err, client.NoMemory) {
				t.Fatalf("seal after %d small blobs: %v\n%s", small, err, d.log)
			}
			small++
		}
	}
	if err := ask(p, protocol.Clear, protocol.None{}, &protocol.None{}); err != nil {
		t.Fatalf("delete everything: %v\n%s", err, d.log)
	}
	p.drop()
	d.balanced(t, before)
	d.stop()
	nobodyKilled(t, events)
	t.Logf("%d large and %d small blobs in a cgroup of 128 MiB, refused at the end: %v, nobody killed; ledger balanced", len(big), small, refused)
}

// fullCgroupMetadata goes on with objects when the cgroup takes no more blobs:
// their metadata grows in the journal and in the daemon.
func fullCgroupMetadata(t *testing.T) {
	dir, events := memoryCgroup(t, 128*mib)
	d := serveIn(t, dir, "", "--size", "1GiB", "--huge", "never")
	before := d.books(t, 0)
	p := connect(t, d.socket)
	fillUp(t, p, 4*mib)
	content := []byte(`{"typename":"faults::Large","instance_id":0,"text":"` + strings.Repeat("x", 100_000) + `"}`)
	made := 0
	for ; made < 2000; made++ {
		err := ask(p, protocol.CreateData, protocol.CreateDataRequest{Content: content}, &protocol.CreateDataReply{})
		if errors.Is(err, client.NoMemory) {
			break
		}
		if err != nil {
			t.Fatalf("object %d of 100 kB: %v, want 41 at the end", made, err)
		}
	}
	if err := ask(p, protocol.Clear, protocol.None{}, &protocol.None{}); err != nil {
		t.Fatalf("delete everything: %v", err)
	}
	p.drop()
	d.balanced(t, before)
	d.stop()
	nobodyKilled(t, events)
	t.Logf("%d objects of 100 kB in a full cgroup, nobody killed; ledger balanced", made)
}
