package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
	"pgregory.net/rapid"
)

const testLimit = 4 << 20

// newHome is a home in a folder of its own in /dev/shm.
func newHome(t testing.TB) *shm.Home {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "v6d-store-test-")
	if err != nil {
		t.Skipf("no folder in /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h, err := shm.OpenHome(shm.HomeOptions{Memory: dir, Huge: "never", Socket: filepath.Join(dir, "sock"), Size: testLimit})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// machine drives a store and the model side by side.
type machine struct {
	m        *model
	s        *Store
	home     *shm.Home
	ids      *object.Generator
	journal  *journal.Journal
	seeds    int64
	reclaims uint64
	made     object.ID // ids that clients choose for moved blobs
}

func (x *machine) options() Options {
	return Options{Limit: testLimit, Strict: x.m.strict, IDs: x.ids}
}

// startJournal makes a journal from a snapshot of the store, as a start does.
func (x *machine) startJournal(t fataler) {
	snap, err := journal.NewSnapshot(x.home.JournalPath())
	if err == nil {
		err = x.s.Snapshot(snap.Append)
	}
	if err == nil {
		x.journal, err = snap.Commit()
	}
	if err == nil {
		err = x.s.Start(x.journal)
	}
	if err != nil {
		t.Fatalf("start: %v", err)
	}
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func newMachine(t fataler, home *shm.Home, strict bool) *machine {
	x := &machine{m: newModel(strict), home: home, ids: object.NewGenerator(0), made: 1 << 63}
	x.s = New(home, x.options())
	x.startJournal(t)
	x.newSession(t, object.RootSession, false)
	for range 3 {
		x.m.holders = append(x.m.holders, &modelHolder{h: NewHolder(1, 1), refs: map[object.ID]*modelRef{}})
	}
	return x
}

func (x *machine) newSession(t fataler, id object.SessionID, plasma bool) {
	if _, err := x.s.NewSession(id, plasma); err != nil {
		t.Fatalf("new session: %v", err)
	}
	x.m.addSession(id, plasma)
}

func (x *machine) end(t fataler) {
	if err := errors.Join(x.s.Shutdown(), x.journal.Close()); err != nil {
		t.Fatalf("shutdown: %v", err)
	}
}

// ramp holds the bytes of all blobs: a blob with seed s has ramp[s:] in it.
var ramp = func() []byte {
	b := make([]byte, testLimit+251)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}()

// add notes a blob that was made, and fills it as its creator does.
func (x *machine) add(t *rapid.T, h *modelHolder, v View, size int64) *thing {
	if size == 0 {
		if v != emptyView {
			t.Fatalf("a blob of no bytes: %+v", v)
		}
		return nil
	}
	ss := x.m.sessions[h.in]
	if v.Size != size || v.ID == object.EmptyBlob || !v.ID.IsBlob() || ss.blobs[v.ID] != nil || !v.Owner || v.Off%shm.Align != 0 || v.Off < blobBase {
		t.Fatalf("new blob of %d bytes: %+v", size, v)
	}
	x.seeds++
	b := &thing{id: v.ID, in: h.in, file: v.File.Number, off: v.Off, size: size, extent: size, seed: x.seeds % 251, creator: h}
	if _, err := v.File.WriteAt(ramp[b.seed:b.seed+size], v.Off); err != nil {
		t.Fatal(err)
	}
	ss.blobs[b.id] = b
	return b
}

// made checks a failed creation: it may fail for want of memory only.
func (x *machine) refused(t *rapid.T, h *modelHolder, sizes []int64, err error) {
	usage, _ := x.m.usage()
	var taken, n int64
	for _, b := range append(x.m.live(), x.m.zombies...) {
		if ss := x.m.sessions[h.in]; ss != nil && b.in == h.in {
			taken += shm.Round(b.extent)
		}
	}
	for _, size := range sizes {
		n += size
	}
	if !errors.Is(err, status.NotEnoughMemory) {
		t.Fatalf("create %v: %v", sizes, err)
	}
	if usage+n <= testLimit && taken+n < testLimit/2 {
		t.Fatalf("create %v is refused with %d bytes used and %d taken: %v", sizes, usage, taken, err)
	}
}

// byCreate takes the zombies from the model that a creation reclaimed: the
// oldest of those in the session's file that nobody is waiting for.
func (x *machine) byCreate(t *rapid.T, h *modelHolder, do func()) {
	x.s.mu.Lock()
	file := x.s.sessions[h.in].pool.file.Number
	x.s.mu.Unlock()
	do()
	n := x.s.Account().Reclaimed - x.reclaims
	x.reclaims += n
	x.m.zombies = slices.DeleteFunc(x.m.zombies, func(z *thing) bool {
		_, _, strict := x.m.readers(z)
		if n == 0 || strict > 0 || z.file != file || x.m.strict {
			return false
		}
		n--
		return true
	})
	if n > 0 {
		t.Fatalf("%d blobs too many were reclaimed", n)
	}
}

func want(t *rapid.T, what string, err error, code status.Code) {
	t.Helper()
	if code == status.OK && err != nil || code != status.OK && !errors.Is(err, code) {
		t.Fatalf("%s: %v, want code %d", what, err, code)
	}
}

func texts(views []View) (out []string) {
	for _, v := range views {
		out = append(out, fmt.Sprint(v.ID, v.Size, v.Sealed, v.Owner, v.Plasma))
	}
	return out
}

func (b *thing) text() string { return fmt.Sprint(b.id, b.size, b.sealed, !b.foreign, b.name) }

// check compares all that can be asked for, what the ledger says, and the bytes
// of every blob that anybody may read.
func (x *machine) check(t *rapid.T) {
	var holders []*Holder
	for _, h := range x.m.holders {
		holders = append(holders, h.h)
	}
	if err := x.s.Check(holders); err != nil {
		t.Fatal(err)
	}
	a := x.s.Account()
	usage, deferred := x.m.usage()
	if a.Usage != usage || a.Deferred != deferred || a.Zombies != len(x.m.zombies) || a.Blobs != len(x.m.live()) || a.Sessions != len(x.m.sessions) || a.Usage > testLimit {
		t.Fatalf("the ledger says %+v; want usage %d, deferred %d, %d zombies, %d blobs", a, usage, deferred, len(x.m.zombies), len(x.m.live()))
	}
	for id, ss := range x.m.sessions {
		got, ok := x.s.Session(id)
		if !ok || got.Plasma != ss.plasma {
			t.Fatalf("session %s: %v", id, ok)
		}
		ids, sealed := []object.ID{}, []object.ID{}
		for _, b := range x.m.live() {
			if b.in != id {
				continue
			}
			ids = append(ids, b.id)
			if b.sealed {
				sealed = append(sealed, b.id)
			}
			if size, ok := got.Sealed(b.id); ok != b.sealed || ok && size != b.size || !got.Exists(b.id) {
				t.Fatalf("blob %s: sealed %v with %d bytes, exists %v", b.id, ok, size, got.Exists(b.id))
			}
			refs, _, _ := x.m.readers(b)
			if inUse := !b.sealed || refs > 0 || b.moved; got.InUse(b.id) != inUse {
				t.Fatalf("blob %s in use: %v, want %v", b.id, !inUse, inUse)
			}
		}
		all, allSealed := got.AllIDs(), got.SealedIDs()
		slices.Sort(all)
		slices.Sort(allSealed)
		if !slices.Equal(all, ids) || !slices.Equal(allSealed, sealed) {
			t.Fatalf("session %s: blobs %v, sealed %v; want %v, %v", id, all, allSealed, ids, sealed)
		}
		for name, b := range ss.names {
			if got, ok := got.PlasmaID(name); !ok || got != b.id {
				t.Fatalf("plasma id %q is blob %s, %v", name, got, ok)
			}
		}
	}
	entries, err := os.ReadDir(filepath.Dir(x.home.JournalPath()))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]bool{}
	for _, e := range entries {
		files[e.Name()] = true
	}
	delete(files, "journal")
	if known := x.s.Files(); !maps.Equal(files, known) {
		t.Fatalf("files %v, the store knows %v", files, known)
	}
	x.checkBytes(t)
}

// checkBytes reads the bytes of every blob and zombie, and sees that no two of
// them overlap, unless they are one family.
func (x *machine) checkBytes(t *rapid.T) {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	type place struct {
		off, end int64
		b        *thing
	}
	places := map[int32][]place{}
	got := make([]byte, 32)
	for _, b := range append(x.m.live(), x.m.zombies...) {
		if ss := x.s.sessions[b.in]; ss != nil && !b.gone {
			real := ss.blobs[b.id]
			b.file, b.off = real.region.file.Number, real.off // Tidy moves blobs
		}
		r := x.s.regions[b.file]
		if r == nil {
			t.Fatalf("blob %s lies in file %d, which is gone", b.id, b.file)
		}
		places[b.file] = append(places[b.file], place{b.off, b.off + b.extent, b})
		for _, at := range []int64{0, max(b.size-32, 0)} {
			n := min(b.size-at, 32)
			if _, err := r.file.ReadAt(got[:n], b.off+at); err != nil || !bytes.Equal(got[:n], ramp[b.seed+at:b.seed+at+n]) {
				t.Fatalf("blob %s (deleted %v) at byte %d: % x, %v", b.id, b.gone, at, got[:n], err)
			}
		}
	}
	for _, list := range places {
		slices.SortFunc(list, func(a, b place) int { return int(a.off - b.off) })
		for i := 1; i < len(list); i++ {
			if a, b := list[i-1], list[i]; b.off < a.end && (a.b.family == nil || a.b.family != b.b.family) {
				t.Fatalf("blobs %s and %s overlap", a.b.id, b.b.id)
			}
		}
	}
	var zombies, wanted []object.ID
	for z := x.s.zombies.first; z != nil; z = z.next {
		zombies = append(zombies, z.id)
	}
	for _, z := range x.m.zombies {
		wanted = append(wanted, z.id)
	}
	slices.Sort(zombies) // the references of a holder end in any order
	slices.Sort(wanted)
	if !slices.Equal(zombies, wanted) {
		t.Fatalf("zombies %v, want %v", zombies, wanted)
	}
}

// crash kills the daemon and starts another on what it leaves.
func (x *machine) crash(t *rapid.T) {
	files := x.s.Files()
	x.end(t)
	next := New(x.home, x.options())
	rep, err := journal.Replay(x.home.JournalPath(), next.Replay)
	if err != nil || len(rep.Damaged) > 0 {
		t.Fatalf("replay: %+v, %v", rep, err)
	}
	rec := next.EndReplay(false)
	chunks := x.m.crash()
	got := map[QueuedID]bool{}
	for _, q := range rec.Chunks {
		got[q] = true
		if ss, ok := next.Session(q.Session); ok && ss.Exists(q.ID) {
			want(t, "drop a chunk", ss.Drop(nil, q.ID), status.OK)
		}
	}
	if len(rec.Lost) > 0 || !maps.Equal(got, chunks) || !slices.Equal(rec.Session, slices.Sorted(maps.Keys(x.m.sessions))) {
		t.Fatalf("recovered %+v of files %v, want the chunks %v", rec, files, chunks)
	}
	x.s, x.reclaims = next, 0
	x.startJournal(t)
	keep := next.Files()
	keep["journal"] = true
	if _, err := x.home.RemoveOthers(keep); err != nil {
		t.Fatal(err)
	}
}

// TestModel lets random clients loose on a store and the model.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		home := newHome(t)
		x := newMachine(rt, home, rapid.Bool().Draw(rt, "wait for every reader"))
		defer func() { _ = errors.Join(x.s.Shutdown(), x.journal.Close(), home.Close(true)) }()
		rt.Repeat(x.actions())
		x.crash(rt)
		x.check(rt)
	})
}
