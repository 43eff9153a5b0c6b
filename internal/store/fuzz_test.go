package store

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
)

// records cuts bytes into records, each behind its length.
func records(in []byte) (list [][]byte) {
	for len(in) > 0 {
		n, used := binary.Uvarint(in)
		if used <= 0 || n > uint64(len(in)-used) {
			return append(list, in)
		}
		list = append(list, in[used:used+int(n)])
		in = in[used+int(n):]
	}
	return list
}

// FuzzReplay replays records that make no sense. The store may refuse them or
// call blobs lost; what it keeps must lie in its file, overlap nothing and add
// up, and a snapshot of it must say the same.
func FuzzReplay(f *testing.F) {
	f.Add(seedRecords(f))
	f.Add([]byte{0})
	f.Add([]byte{3, recSession, 0, 0, 3, recSession, 9, 1, 2, recEndSession, 9})
	const name = "pool-S0000000000000000-1"
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1<<12 {
			return
		}
		home := newHome(t)
		defer home.Close(true)
		file, err := home.Create(name, 1, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		opts := Options{Limit: testLimit, IDs: object.NewGenerator(0)}
		s := New(home, opts)
		defer func() { _ = s.Shutdown() }()
		for _, rec := range records(in) {
			_ = s.Replay(rec)
		}
		rec := s.EndReplay(false)
		before := consistent(t, s)
		if rec.Blobs != len(before) {
			t.Fatalf("recovered %d blobs, %d are there", rec.Blobs, len(before))
		}
		next := New(home, opts)
		defer func() { _ = next.Shutdown() }()
		if err := s.Snapshot(next.Replay); err != nil {
			t.Fatalf("snapshot: %v", err)
		}
		next.EndReplay(false)
		if after := consistent(t, next); !slices.Equal(before, after) {
			t.Fatalf("after a snapshot %+v, before %+v", after, before)
		}
	})
}

// entry is a blob as FuzzReplay compares it.
type entry struct {
	session   object.SessionID
	id        object.ID
	file      int32
	off, size int64
	plasma    string
}

// consistent checks the ledger and returns all blobs in a fixed order.
func consistent(t *testing.T, s *Store) (list []entry) {
	if err := s.Check(nil); err != nil {
		t.Fatal(err)
	}
	a := s.Account()
	if a.Usage < 0 || a.Deferred != 0 || a.Zombies != 0 || a.Uncounted != 0 {
		t.Fatalf("the ledger says %+v", a)
	}
	places := map[*region][]*Blob{}
	for _, ss := range s.sessions {
		for _, b := range ss.blobs {
			e := entry{session: ss.ID, id: b.id, file: b.region.file.Number, off: b.off, size: b.size}
			if b.plasma != nil {
				e.plasma = b.plasma.id
			}
			list = append(list, e)
			if b.off < 0 || b.size < 0 || b.size > b.extent || b.off > b.region.file.Size || b.extent > b.region.file.Size-b.off {
				t.Fatalf("blob %s of %d bytes, extent %d, at %d of %d", b.id, b.size, b.extent, b.off, b.region.file.Size)
			}
			if b.shared == nil || b.shared.live[0] == b {
				places[b.region] = append(places[b.region], b)
			}
		}
	}
	for _, blobs := range places {
		slices.SortFunc(blobs, func(a, b *Blob) int { return int(a.off - b.off) })
		for i := 1; i < len(blobs); i++ {
			if a, b := blobs[i-1], blobs[i]; b.off < a.off+a.extent {
				t.Fatalf("blob %s [%d,+%d) overlaps %s at %d", a.id, a.off, a.extent, b.id, b.off)
			}
		}
	}
	slices.SortFunc(list, func(a, b entry) int {
		if a.session < b.session || a.session == b.session && a.id < b.id {
			return -1
		}
		return 1
	})
	return list
}

// seedRecords is the journal of a short but full life.
func seedRecords(f *testing.F) (out []byte) {
	home := newHome(f)
	x := newMachine(f, home, false)
	defer func() {
		x.end(f)
		_ = home.Close(true)
		// At once: the processes that fuzz end without their clean-up.
		_ = os.RemoveAll(filepath.Dir(filepath.Dir(home.JournalPath())))
	}()
	x.newSession(f, 9, true)
	root, _ := x.s.Session(object.RootSession)
	plasma, _ := x.s.Session(9)
	h := NewHolder(1, 1)
	var ids []object.ID
	for _, size := range []int64{100, 5000, 64} {
		v, err := root.Create(h, size)
		if err != nil {
			f.Fatal(err)
		}
		ids = append(ids, v.ID)
		_ = root.Seal(h, v.ID)
	}
	v, err := plasma.CreatePlasma(h, "name", 10, 20)
	if err != nil {
		f.Fatal(err)
	}
	for _, err := range []error{
		plasma.Seal(h, v.ID), root.Drop(h, ids[0]), root.Queue(ids[1]), root.Queue(5), root.Dequeue(5),
		plasma.MoveFrom(root, []MovePair{{From: ids[1], ToPlasma: "moved"}, {From: ids[2], To: ids[2]}}), plasma.Doom(),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	if _, err := journal.Replay(x.home.JournalPath(), func(p []byte) error {
		out = append(binary.AppendUvarint(out, uint64(len(p))), p...)
		return nil
	}); err != nil {
		f.Fatal(err)
	}
	return out
}
