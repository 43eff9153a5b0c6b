package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
)

// fill writes a blob's id all over it; full checks that it is there.
func fill(v View) error {
	_, err := v.File.WriteAt(bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(v.ID)), int(v.Size/8)), v.Off)
	return err
}

func full(v View) bool {
	got := make([]byte, v.Size)
	_, err := v.File.ReadAt(got, v.Off)
	return err == nil && bytes.Equal(got, bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(v.ID)), int(v.Size/8)))
}

// TestTogether has clients create, read and delete each other's blobs while the
// store tidies and trims. Whoever has got a blob must be able to read it until
// the release, whoever deletes it, and wherever it is moved before.
func TestTogether(t *testing.T) {
	k := newKit(t, true)
	first := NewHolder(1, 1)
	for i := range 30 { // some blobs in the file of an earlier daemon
		v := k.sealed(first, k.root, int64(1+i)*4096)
		k.must(fill(v))
	}
	k.restart()
	var wg sync.WaitGroup
	holders := make([]*Holder, 4)
	stop := time.Now().Add(700 * time.Millisecond)
	for i := range holders {
		holders[i] = NewHolder(i, i)
		wg.Go(func() {
			h, r := holders[i], rand.New(rand.NewPCG(uint64(i), 3))
			var held []View
			for time.Now().Before(stop) {
				if all := k.root.AllIDs(); len(all) > 0 && len(held) == 0 { // others find blobs that are being made
					id := all[r.IntN(len(all))]
					k.root.AddRefs(h, []object.ID{id})
					_ = k.root.Release(h, id)
				}
				switch ids := k.root.SealedIDs(); {
				case r.IntN(3) == 0 || len(ids) == 0:
					v, err := k.root.Create(h, int64(1+r.IntN(2000))*8)
					if errors.Is(err, status.NotEnoughMemory) {
						continue
					}
					if err = errors.Join(err, fill(v)); err == nil {
						err = k.root.Seal(h, v.ID)
					}
					if err != nil && !errors.Is(err, status.ObjectNotExists) {
						t.Error(err)
						return
					}
				case r.IntN(3) == 0:
					id := ids[r.IntN(len(ids))]
					if err := k.root.Drop(h, id); err != nil && !errors.Is(err, status.ObjectNotExists) {
						t.Error(err)
						return
					}
					// Its own reading of it has ended with that.
					held = slices.DeleteFunc(held, func(v View) bool { return v.ID == id })
				default:
					views, err := k.root.Get(nil, h, []object.ID{ids[r.IntN(len(ids))], ids[r.IntN(len(ids))]}, false)
					if err != nil {
						t.Error(err)
						return
					}
					for _, v := range append(views, held...) {
						if !full(v) {
							t.Errorf("blob %s at %d of file %d is not what it was", v.ID, v.Off, v.File.Number)
							return
						}
					}
					if held = append(held, views...); len(held) < 6 {
						continue
					}
					for _, v := range held {
						_ = k.root.Release(h, v.ID) // the second of two equal ones is an error
					}
					held = nil
				}
			}
		})
	}
	wg.Go(func() {
		for time.Now().Before(stop) {
			if err := k.s.Tidy(200 << 10); err != nil {
				t.Error(err)
				return
			}
			if _, err := k.s.Trim(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Wait()
	if err := k.s.Check(holders); err != nil {
		t.Error(err)
	}
	for _, h := range holders {
		k.s.Close(h)
	}
	a := k.s.Account()
	if a.Zombies != 0 || a.Deferred != 0 || a.Unsealed != 0 {
		t.Errorf("with everybody gone: %+v", a)
	}
}

// TestTidyWhileRead: a blob that somebody gets while it is being copied to
// another file stays where that client reads it.
func TestTidyWhileRead(t *testing.T) {
	caught := 0
	for range 10 {
		k := newKit(t, true)
		v := k.sealed(NewHolder(1, 1), k.root, 3<<20)
		k.restart()
		h := NewHolder(2, 2)
		tidied := make(chan error, 1)
		go func() { tidied <- k.s.Tidy(8 << 20) }()
		copying := func() bool { // room is taken for the blob, but it is not there yet
			k.s.mu.Lock()
			defer k.s.mu.Unlock()
			return k.root.pool.alloc.Used() > 0 && k.root.blobs[v.ID].region.kind == generationRegion
		}
		for start := time.Now(); !copying() && time.Since(start) < 100*time.Millisecond; {
			runtime.Gosched()
		}
		first := k.get(h, k.root, v.ID)
		k.must(<-tidied)
		again := k.get(h, k.root, v.ID)
		if again.File != first.File || again.Off != first.Off {
			t.Fatalf("the blob moved from file %d to %d while it is held", first.File.Number, again.File.Number)
		}
		k.ledger("tidied", 1, 0, h)
		if k.s.Account().Earlier > 0 {
			caught++
		}
	}
	t.Logf("got the blob in time in %d of 10 rounds", caught)
}
