package store

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
)

// kit is a store with a journal, its root session, and a plasma session.
type kit struct {
	*testing.T
	*machine
	root, plasma *Session
}

func newKit(t *testing.T, strict bool) *kit {
	t.Helper()
	k := &kit{T: t, machine: newMachine(t, newHome(t), strict)}
	k.newSession(t, 7, true)
	k.root, _ = k.s.Session(object.RootSession)
	k.plasma, _ = k.s.Session(7)
	t.Cleanup(func() { _ = errors.Join(k.s.Shutdown(), k.journal.Close(), k.home.Close(true)) })
	return k
}

func (k *kit) must(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

func (k *kit) sealed(h *Holder, ss *Session, size int64) View {
	k.Helper()
	v, err := ss.Create(h, size)
	k.must(err)
	k.must(ss.Seal(h, v.ID))
	return v
}

func (k *kit) get(h *Holder, ss *Session, id object.ID) View {
	k.Helper()
	views, err := ss.Get(nil, h, []object.ID{id}, false)
	k.must(err)
	if len(views) != 1 {
		k.Fatalf("blob %s is not there", id)
	}
	return views[0]
}

func (k *kit) ledger(what string, blobs, zombies int, holders ...*Holder) {
	k.Helper()
	if err := k.s.Check(holders); err != nil {
		k.Errorf("%s: %v", what, err)
	}
	if a := k.s.Account(); a.Blobs != blobs || a.Zombies != zombies {
		k.Errorf("%s: %d blobs and %d zombies, want %d and %d", what, a.Blobs, a.Zombies, blobs, zombies)
	}
}

// TestSealIsNoReading: the creator's reference by seal keeps nobody's memory.
func TestSealIsNoReading(t *testing.T) {
	k := newKit(t, true)
	creator, reader, other := NewHolder(1, 1), NewHolder(2, 2), NewHolder(3, 3)
	v := k.sealed(creator, k.root, 1000)
	k.get(reader, k.root, v.ID)
	k.must(k.root.Drop(other, v.ID))
	k.ledger("dropped", 0, 1, creator, reader, other)
	k.must(k.root.Release(reader, v.ID))
	k.ledger("released by the reader", 0, 0, creator, reader, other)
}

// TestGetBeforeMove: a client that asked for an id before a blob had it reads
// that blob like any other, once it has asked again.
func TestGetBeforeMove(t *testing.T) {
	k := newKit(t, true)
	k.newSession(t, 9, false)
	dest, _ := k.s.Session(9)
	h, reader := NewHolder(1, 1), NewHolder(2, 2)
	v := k.sealed(h, k.root, 1000)
	dest.AddRefs(reader, []object.ID{v.ID})
	k.must(dest.MoveFrom(k.root, []MovePair{{From: v.ID, To: v.ID}}))
	k.get(reader, dest, v.ID)
	k.must(dest.Drop(h, v.ID))
	k.ledger("dropped", 1, 1, h, reader)
	k.must(dest.Release(reader, v.ID))
	k.ledger("released", 1, 0, h, reader)
}

// TestMovedPlasmaStays: a plasma blob goes with its last reference, unless it
// was moved, which pins it; and a move does not take another's name.
func TestMovedPlasmaStays(t *testing.T) {
	k := newKit(t, false)
	h := NewHolder(1, 1)
	v := k.sealed(h, k.root, 100)
	k.must(k.plasma.MoveFrom(k.root, []MovePair{{From: v.ID, ToPlasma: "moved"}}))
	id, ok := k.plasma.PlasmaID("moved")
	if !ok {
		t.Fatal("the moved blob has no name")
	}
	k.get(h, k.plasma, id)
	k.must(k.plasma.Release(h, id))
	k.ledger("released", 2, 0, h)
	own, err := k.plasma.CreatePlasma(h, "own", 100, 0)
	k.must(err)
	k.must(k.plasma.Seal(h, own.ID))
	k.must(k.plasma.MoveFrom(k.root, []MovePair{{From: v.ID, ToPlasma: "own"}, {From: v.ID, To: 1<<63 | 5}}))
	if id, _ := k.plasma.PlasmaID("own"); id != own.ID {
		t.Errorf("the name is blob %s now, want %s", id, own.ID)
	}
	k.ledger("moved once more", 4, 0, h)
	k.must(k.plasma.Release(h, own.ID))
	k.ledger("its own blob released", 3, 0, h)
	for _, to := range []object.ID{5, object.EmptyBlob, object.InvalidID} {
		if err := k.plasma.MoveFrom(k.root, []MovePair{{From: v.ID, To: to}}); !errors.Is(err, status.Invalid) {
			t.Errorf("move to id %s: %v", to, err)
		}
	}
}

// restart is a crash and a start without the model.
func (k *kit) restart() Recovered {
	k.Helper()
	k.must(errors.Join(k.s.Shutdown(), k.journal.Close()))
	k.s = New(k.home, k.options())
	_, err := journal.Replay(k.home.JournalPath(), k.s.Replay)
	k.must(err)
	rec := k.s.EndReplay(false)
	k.startJournal(k.T)
	k.root, _ = k.s.Session(object.RootSession)
	k.plasma, _ = k.s.Session(7)
	return rec
}

// TestTidySharedZombie: bytes that a deleted blob shares with a live one stay
// where a client reads them.
func TestTidySharedZombie(t *testing.T) {
	k := newKit(t, true)
	k.newSession(t, 9, false)
	v := k.sealed(NewHolder(1, 1), k.root, 1000)
	dest, _ := k.s.Session(9)
	k.must(dest.MoveFrom(k.root, []MovePair{{From: v.ID, To: v.ID}}))
	k.restart()
	h, reader := NewHolder(1, 1), NewHolder(2, 2)
	dest, _ = k.s.Session(9)
	before := k.get(reader, dest, v.ID)
	k.must(dest.Drop(h, v.ID))
	k.must(k.s.Tidy(1 << 20))
	k.ledger("tidied", 1, 1, h, reader)
	if after := k.get(h, k.root, v.ID); after.File != before.File || after.Off != before.Off {
		t.Errorf("blob moved from file %d, offset %d to %d, %d", before.File.Number, before.Off, after.File.Number, after.Off)
	}
	k.s.Close(reader)
	k.s.Close(h)
	k.must(k.s.Tidy(1 << 20))
	if after := k.get(h, k.root, v.ID); after.File == before.File {
		t.Error("with nobody reading, the blob stays in the old file")
	}
	k.ledger("tidied again", 1, 0, h)
}

// TestNoPoolFile: a session that gets no pool file is none, now and after a
// crash.
func TestNoPoolFile(t *testing.T) {
	k := newKit(t, false)
	name := fmt.Sprintf("pool-%s-%d", object.SessionID(9), k.s.lastFD+1)
	if _, err := k.home.Create(name, 99, 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := k.s.NewSession(9, false); !errors.Is(err, os.ErrExist) {
		t.Errorf("new session: %v", err)
	}
	if _, ok := k.s.Session(9); ok {
		t.Error("the session is there")
	}
	if rec := k.restart(); len(rec.Session) != 2 {
		t.Errorf("sessions %v come back", rec.Session)
	}
	if ss, err := k.s.NewSession(9, false); err != nil {
		t.Error(err)
	} else if _, err := ss.Create(NewHolder(1, 1), 10); err != nil {
		t.Error(err)
	}
}

// TestNothingRecorded: what the journal cannot take does not happen.
func TestNothingRecorded(t *testing.T) {
	k := newKit(t, false)
	h := NewHolder(1, 1)
	v, err := k.root.Create(h, 100)
	k.must(err)
	kept := k.sealed(h, k.root, 200)
	name, err := k.plasma.CreatePlasma(h, "p", 100, 0)
	k.must(err)
	k.must(k.plasma.Seal(h, name.ID))
	k.must(k.journal.Close())
	before := k.s.Account()
	files := len(k.s.Files())
	_, plasmaErr := k.plasma.CreatePlasma(h, "p", 50, 0)
	_, sessionErr := k.s.NewSession(50, false)
	for what, err := range map[string]error{
		"seal": k.root.Seal(h, v.ID), "drop": k.root.Drop(h, kept.ID), "finish": k.root.Finish([]View{v}),
		"queue": k.root.Queue(kept.ID), "session": sessionErr, "replace": plasmaErr, "end": k.plasma.Delete(), "doom": k.plasma.Doom(),
		"move": k.plasma.MoveFrom(k.root, []MovePair{{From: kept.ID, To: kept.ID}}),
	} {
		if !errors.Is(err, status.AlreadyStopped) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, ok := k.root.Sealed(v.ID); ok || !k.root.Exists(kept.ID) || len(k.s.Files()) != files || k.s.Account() != before {
		t.Errorf("sealed %v, exists %v, %d files, %+v; before %+v", ok, k.root.Exists(kept.ID), len(k.s.Files()), k.s.Account(), before)
	}
	if id, ok := k.plasma.PlasmaID("p"); !ok || id != name.ID {
		t.Errorf("the plasma blob is %s, %v", id, ok)
	}
	k.ledger("after all", 3, 0, h)
}

// TestBoundsOfAFile: blobs whose records make no sense are lost, and no others.
func TestBoundsOfAFile(t *testing.T) {
	k := newKit(t, false)
	h := NewHolder(1, 1)
	v := k.sealed(h, k.root, 1000)
	for i, rec := range []record{
		{kind: recSeal, id: 1<<63 | 1, file: v.File.Number, off: -64, size: 10, extent: 10},
		{kind: recSeal, id: 1<<63 | 2, file: v.File.Number, off: v.File.Size - 5, size: 10, extent: 10},
		{kind: recSeal, id: 1<<63 | 3, file: 99, off: 64, size: 10, extent: 10},
		{kind: recSeal, id: 1<<63 | 4, file: v.File.Number, off: v.Off + 64, size: 10, extent: 10},
	} {
		k.s.mu.Lock()
		err := k.journal.Append(k.s.encode(rec))
		k.s.mu.Unlock()
		if err != nil {
			t.Fatal(i, err)
		}
	}
	rec := k.restart()
	h = NewHolder(1, 1)
	if len(rec.Lost) != 4 || rec.Blobs != 1 || !k.root.Exists(v.ID) {
		t.Errorf("recovered %+v, blob %s exists: %v", rec, v.ID, k.root.Exists(v.ID))
	}
	k.ledger("recovered", 1, 0)
	if got := k.get(h, k.root, v.ID); got.Size != 1000 || got.Off%shm.Align != 0 {
		t.Errorf("%+v", got)
	}
}
