package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
)

// TestJournalFull fills the file system of a pool to the last page. What would
// need the journal to grow is then refused with 41, and has not happened, but for
// deletions, for which there is room; with room for all again everything goes on,
// and survives a crash.
func TestJournalFull(t *testing.T) {
	dir := t.TempDir()
	if err := sys.MountHugeTmpfs(dir, 32<<20, "never"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = sys.Detach(dir) })
	home, err := shm.OpenHome(shm.HomeOptions{Memory: dir, Huge: "never", Socket: filepath.Join(dir, "sock"), Size: testLimit})
	if err != nil {
		t.Fatal(err)
	}
	k := &kit{T: t, machine: newMachine(t, home, false)}
	k.root, _ = k.s.Session(object.RootSession)
	defer func() { _ = errors.Join(k.s.Shutdown(), k.journal.Close()) }()
	h := NewHolder(1, 1)
	kept := k.sealed(h, k.root, 1<<20)
	k.must(fill(kept))
	doomed := k.sealed(h, k.root, 5000)
	open, err := k.root.Create(h, 1000)
	k.must(err)

	filler, err := os.Create(filepath.Join(dir, "filler"))
	k.must(err)
	defer filler.Close()
	var filled int64
	for size := int64(8 << 20); size >= 4096; {
		if sys.Fallocate(filler, filled, size) == nil {
			filled += size
		} else {
			size /= 2
		}
	}
	for n := object.ID(1); err == nil; n++ {
		if n > 1<<21 {
			t.Fatal("the journal never fills")
		}
		if err = k.root.Queue(n); err == nil {
			err = k.root.Dequeue(n)
		}
	}
	if !errors.Is(err, status.NotEnoughMemory) {
		t.Fatalf("with the file system full: %v", err)
	}
	k.must(k.root.Drop(h, doomed.ID)) // deleting finds room that others do not
	before := k.s.Account()
	_, createErr := k.root.Create(h, 3<<20)
	for what, err := range map[string]error{
		"seal": k.root.Seal(h, open.ID), "create": createErr,
	} {
		if !errors.Is(err, status.NotEnoughMemory) {
			t.Errorf("%s: %v", what, err)
		}
	}
	before.OutOfMemory++ // the create
	if _, ok := k.root.Sealed(open.ID); ok || !full(k.get(h, k.root, kept.ID)) || k.s.Account() != before {
		t.Errorf("sealed %v; %+v, before %+v", ok, k.s.Account(), before)
	}
	k.ledger("full", 2, 0, h)
	// An unsealed blob is in no journal: it can go.
	k.must(k.root.Drop(h, open.ID))

	k.must(filler.Truncate(0))
	next := k.sealed(h, k.root, 504)
	k.must(fill(next))
	rec := k.restart()
	if rec.Blobs != 2 || len(rec.Lost) > 0 || !full(k.get(NewHolder(1, 1), k.root, kept.ID)) || !full(k.get(NewHolder(1, 1), k.root, next.ID)) {
		t.Errorf("recovered %+v", rec)
	}
	// What was being queued when the journal was full is a chunk, or it is not.
	if len(rec.Chunks) > 1 {
		t.Errorf("chunks %v", rec.Chunks)
	}
}
