package store

import (
	"errors"
	"testing"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
)

// cache pulls blobs for h, as a fetch does.
func (k *kit) cache(h *Holder, sizes ...int64) []View {
	k.Helper()
	views, err := k.root.CreateIncoming(h, sizes)
	k.must(err)
	k.root.FinishCached(views)
	return views
}

// TestCache lets cached blobs go, the one used longest ago first, but not those that
// are read; nothing of them is left after a crash.
func TestCache(t *testing.T) {
	k := newKit(t, true)
	filler, reader := NewHolder(1, 1), NewHolder(2, 2)
	var ids []object.ID
	for range 4 {
		ids = append(ids, k.cache(filler, 1000)[0].ID)
	}
	k.s.Close(filler)
	k.get(reader, k.root, ids[0]) // is read, and stays
	k.get(reader, k.root, ids[1])
	k.must(k.root.Release(reader, ids[1])) // was read, and goes last
	k.ledger("cached", 4, 0, reader)
	if a := k.s.Account(); a.Cached != 4000 || a.CachedIdle != 3000 || len(k.root.SealedIDs()) != 0 {
		t.Errorf("cached: %+v, listed: %v", a, k.root.SealedIDs())
	}
	for _, want := range []object.ID{ids[2], ids[3], ids[1]} {
		k.s.mu.Lock()
		ok := k.s.evictOne(nil)
		k.s.mu.Unlock()
		if !ok || k.root.Exists(want) {
			t.Fatalf("%v: blob %s of %v did not go", ok, want, ids)
		}
	}
	k.s.mu.Lock()
	if k.s.evictOne(nil) {
		t.Error("a blob went that is read")
	}
	k.s.mu.Unlock()
	k.ledger("evicted", 1, 0, reader)
	k.restart()
	k.ledger("after a crash", 0, 0)
}

// TestKeep makes ordinary blobs of cached ones: they do not go, are listed, and
// outlive a crash.
func TestKeep(t *testing.T) {
	k := newKit(t, true)
	filler, reader := NewHolder(1, 1), NewHolder(2, 2)
	views := k.cache(filler, 1000, 2000, 3000)
	k.s.Close(filler)
	k.get(reader, k.root, views[1].ID)
	plain := k.sealed(reader, k.root, 50).ID
	kept := []object.ID{views[0].ID, views[1].ID, plain, 1<<63 | 12345, object.EmptyBlob}
	for range 2 {
		_, err := k.root.Keep(kept)
		k.must(err)
	}
	k.ledger("kept", 4, 0, reader)
	if a := k.s.Account(); a.Cached != 3000 || a.CachedIdle != 3000 || len(k.root.SealedIDs()) != 3 {
		t.Errorf("kept: %+v, listed: %v", a, k.root.SealedIDs())
	}
	k.s.Close(reader)
	k.s.mu.Lock()
	for k.s.evictOne(nil) {
	}
	k.s.mu.Unlock()
	k.ledger("what can go went", 3, 0)
	k.restart()
	k.ledger("after a crash", 3, 0)
	for i, want := range []int64{1000, 2000} {
		if n, ok := k.root.Sealed(views[i].ID); !ok || n != want {
			t.Errorf("after a crash blob %d has %d bytes, %v", i, n, ok)
		}
	}
	undone := k.cache(filler, 4000)[0].ID
	undo, err := k.root.Keep([]object.ID{undone, views[0].ID})
	k.must(err)
	undo() // what was kept before stays
	k.s.Close(filler)
	k.ledger("undone", 3, 0)
	k.must(k.root.Drop(nil, views[0].ID))
	k.restart()
	k.ledger("dropped", 2, 0)
	if err := k.root.Drop(nil, views[2].ID); !errors.Is(err, status.ObjectNotExists) {
		t.Error(err)
	}
}
