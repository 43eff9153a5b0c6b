package shm

import (
	"testing"

	"pgregory.net/rapid"
)

// TestAllocatorModel drives the allocator against a list of live extents and
// checks its invariants, and that no two extents overlap, after every step.
func TestAllocatorModel(t *testing.T) {
	const size = 4 << 20
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.Int64Range(0, 2).Draw(t, "base") * Align
		a := NewAllocator(base, size-base)
		type extent struct{ off, n int64 }
		var live []extent
		owner := make([]int, size/Align) // 0: free, else 1+id of the extent
		nextID := 0
		ids := map[int64]int{}
		t.Repeat(map[string]func(*rapid.T){
			"alloc": func(t *rapid.T) {
				n := rapid.OneOf(rapid.Int64Range(1, 2048), rapid.Int64Range(1, 600<<10)).Draw(t, "n")
				off, ok := a.Alloc(n)
				if !ok {
					return
				}
				if off%Align != 0 || off < base || off+n > size {
					t.Fatalf("extent [%d,+%d) is out of place", off, n)
				}
				nextID++
				for g := off / Align; g < (off+Round(n))/Align; g++ {
					if owner[g] != 0 {
						t.Fatalf("extent [%d,+%d) overlaps extent %d", off, n, owner[g])
					}
					owner[g] = nextID
				}
				ids[off] = nextID
				live = append(live, extent{off, n})
			},
			"free": func(t *rapid.T) {
				if len(live) == 0 {
					t.Skip("nothing is live")
				}
				i := rapid.IntRange(0, len(live)-1).Draw(t, "i")
				e := live[i]
				live[i] = live[len(live)-1]
				live = live[:len(live)-1]
				for g := e.off / Align; g < (e.off+Round(e.n))/Align; g++ {
					owner[g] = 0
				}
				delete(ids, e.off)
				a.Free(e.off, e.n)
			},
			"carve": func(t *rapid.T) {
				units := a.FreeUnits(256 << 10)
				if len(units) == 0 {
					t.Skip("no free unit")
				}
				u := units[0]
				if !a.Carve(u.Off, u.Size) {
					t.Fatalf("free unit %v cannot be carved", u)
				}
				a.Free(u.Off, u.Size)
			},
			"": func(t *rapid.T) {
				if err := a.Check(); err != nil {
					t.Fatal(err)
				}
				var used int64
				for _, e := range live {
					used += Round(e.n)
				}
				if used != a.Used() {
					t.Fatalf("used %d, model says %d", a.Used(), used)
				}
			},
		})
		for _, e := range live {
			a.Free(e.off, e.n)
		}
		a.ReleaseSlabs()
		if off, ok := a.Alloc(size - base); !ok || off != base {
			t.Fatalf("after all is freed the whole cannot be had: %d %v", off, ok)
		}
	})
}

// largestRun returns the bytes of the largest free run.
func (a *Allocator) largestRun() (n int64) {
	for _, h := range []*heap{&a.large, &a.small} {
		for _, r := range h.start {
			n = max(n, r.n*Align)
		}
	}
	return n
}

// TestFragmentation plays what grows pools: fill it, free every second extent,
// go on with extents 10% larger, which do not fit the holes. However scattered
// the memory is, a request may only fail when no run is free that is 1/32
// larger; and once everything is freed, all of it is one run again.
func TestFragmentation(t *testing.T) {
	for _, first := range []int64{64, 900, 1025, 4 << 10, 100 << 10, 1 << 20} {
		limit := max(32<<20, 64*first)
		if first < 1<<10 {
			limit = 4 << 20
		}
		size := limit + limit/8 // as fileSpace has it
		a := NewAllocator(0, size)
		type extent struct{ off, n int64 }
		var live []extent
		var used, lowest int64 = 0, size
		for round, n := 0, first; round < 30; round, n = round+1, n+n/10 {
			for used+n <= limit {
				off, ok := a.Alloc(n)
				if !ok {
					if most := a.largestRun(); most >= Round(n)+Round(n)/32+Align {
						t.Fatalf("extents from %d bytes, round %d: %d bytes are refused, a run of %d is free", first, round, n, most)
					}
					lowest = min(lowest, used)
					break
				}
				live = append(live, extent{off, n})
				used += n
			}
			kept := live[:0]
			for i, e := range live {
				if i%2 == 0 {
					a.Free(e.off, e.n)
					used -= e.n
				} else {
					kept = append(kept, e)
				}
			}
			live = kept
			if round%6 > 0 {
				continue
			}
			if err := a.Check(); err != nil {
				t.Fatalf("extents from %d bytes, round %d: %v", first, round, err)
			}
		}
		// Slabs are worse off than runs: one live slot in a thousand keeps a slab
		// from serving another size.
		if first > slabMax && lowest < limit/2 {
			t.Errorf("extents from %d bytes: refused at %d of %d bytes in use", first, lowest, limit)
		}
		t.Logf("extents from %d bytes: %d%% of the limit were in use at worst when one was refused", first, lowest*100/limit)
		for _, e := range live {
			a.Free(e.off, e.n)
		}
		a.ReleaseSlabs()
		if a.largestRun() != size || a.Used() != 0 {
			t.Errorf("extents from %d bytes: all is freed, the largest run is %d of %d, used %d", first, a.largestRun(), size, a.Used())
		}
	}
}

// TestExactFit: a run that fits exactly is found although most runs of its
// class are too short.
func TestExactFit(t *testing.T) {
	for granules := int64(17); granules < 300; granules++ {
		a := NewAllocator(0, granules*Align)
		if _, ok := a.Alloc(granules * Align); !ok || a.Check() != nil {
			t.Errorf("%d granules do not fit into as many: %v", granules, a.Check())
		}
	}
}
