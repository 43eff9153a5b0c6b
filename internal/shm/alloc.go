// Package shm owns the pool's memory: where its files lie and on which pages,
// which parts of a file hold real memory, and which parts are in use.
//
// Vocabulary: a Home is the place of a daemon's pool files (a tmpfs of its own
// with huge pages, /dev/shm, a folder, or anonymous memory). A File is one pool
// file, known to clients by its store_fd number. An extent is a run of bytes in
// a file. A unit is 2 MiB, the size of a huge page: memory is reserved and given
// back in whole units.
package shm

import (
	"fmt"
	"math/bits"
)

const (
	// Align is the alignment of every extent, in bytes.
	Align = 64
	// smallMax is the largest extent that lives in a slab.
	smallMax = 1024
	// slabSize is the size of a slab and its alignment in the file.
	slabSize = 64 << 10

	classes   = smallMax / Align
	firstBits = 40 // sizes up to 2^40 granules
	secondLog = 5  // each power of two is split 32 ways
	secondCnt = 1 << secondLog
)

// Allocator hands out extents of [0, size). It keeps its books outside of the
// memory that it manages, since clients can write there. Small extents come
// from slabs of one size class each; larger ones are runs, found by a
// two-level segregated fit (Masmano et al., TLSF, 2004): constant time, at most
// 1/32 of a run's size away from the best fit, last freed first used. It is not
// safe for concurrent use.
type Allocator struct {
	size  int64
	used  int64 // bytes in live extents, rounded up to Align
	heads [firstBits][secondCnt]*run
	first uint64             // bit f: heads[f] has a run
	secnd [firstBits]uint32  // bit s: heads[f][s] is not empty
	start map[int64]*run     // free runs by first granule
	end   map[int64]*run     // free runs by the granule after their last
	slabs map[int64]*slab    // by offset / slabSize
	part  [classes + 1]*slab // slabs of a class that have a free slot
}

// run is a free run, in granules of Align bytes.
type run struct {
	off, n     int64
	prev, next *run
}

type slab struct {
	off        int64 // in bytes
	class      int   // slot size in granules
	slots      int
	free       int
	bitmap     [slabSize / Align / 64]uint64 // bit set: slot in use
	prev, next *slab                         // in part; nil and unlisted when full
	listed     bool
}

// NewAllocator manages [0, size); size must be a multiple of Align.
func NewAllocator(size int64) *Allocator {
	a := &Allocator{size: size, start: map[int64]*run{}, end: map[int64]*run{}, slabs: map[int64]*slab{}}
	a.insert(0, size/Align)
	return a
}

// Round returns the bytes that an extent of n bytes takes.
func Round(n int64) int64 { return (n + Align - 1) &^ (Align - 1) }

// Size returns the bytes managed; Used those in live extents.
func (a *Allocator) Size() int64 { return a.size }

// Used returns the bytes in live extents, rounded up to Align each.
func (a *Allocator) Used() int64 { return a.used }

// Alloc returns the offset of a free extent of n bytes, n > 0.
func (a *Allocator) Alloc(n int64) (off int64, ok bool) {
	granules := Round(n) / Align
	if n <= smallMax {
		if off, ok = a.allocSlot(int(granules)); ok {
			a.used += granules * Align
			return off, true
		}
	}
	g, ok := a.allocRun(granules, 1)
	if !ok {
		return 0, false
	}
	a.used += granules * Align
	return g * Align, true
}

// Fits reports whether Alloc would find n bytes in one piece now.
func (a *Allocator) Fits(n int64) bool {
	granules := Round(n) / Align
	if n <= smallMax && a.part[granules] != nil {
		return true
	}
	return a.find(granules) != nil || a.search(granules, 1) != nil
}

// Free returns an extent that Alloc gave out; n is the size asked for then.
func (a *Allocator) Free(off, n int64) {
	granules := Round(n) / Align
	a.used -= granules * Align
	if s := a.slabs[off/slabSize]; s != nil {
		a.freeSlot(s, off)
		return
	}
	a.insert(off/Align, granules)
}

// Carve takes a given extent that lies in one free run out of use; Free it
// later with the same arguments. Both must be multiples of Align.
func (a *Allocator) Carve(off, n int64) bool {
	o, g := off/Align, n/Align
	for _, r := range a.start {
		if r.off <= o && o+g <= r.off+r.n {
			a.take(r, o, g)
			a.used += n
			return true
		}
	}
	return false
}

// FreeUnits returns the largest runs of whole units that are free.
func (a *Allocator) FreeUnits(unit int64) []Extent {
	var out []Extent
	for _, r := range a.start {
		lo := (r.off*Align + unit - 1) / unit * unit
		hi := (r.off + r.n) * Align / unit * unit
		if hi > lo {
			out = append(out, Extent{lo, hi - lo})
		}
	}
	return out
}

// Extent is a run of bytes in a pool file.
type Extent struct{ Off, Size int64 }

func mapping(n int64) (f, s int) {
	f = bits.Len64(uint64(n)) - 1
	if f < secondLog {
		return 0, int(n)
	}
	return f - secondLog + 1, int(n>>(f-secondLog)) - secondCnt
}

func (a *Allocator) insert(off, n int64) {
	if left := a.end[off]; left != nil {
		a.remove(left)
		off, n = left.off, n+left.n
	}
	if right := a.start[off+n]; right != nil {
		a.remove(right)
		n += right.n
	}
	r := &run{off: off, n: n}
	f, s := mapping(n)
	if r.next = a.heads[f][s]; r.next != nil {
		r.next.prev = r
	}
	a.heads[f][s] = r
	a.first |= 1 << f
	a.secnd[f] |= 1 << s
	a.start[off], a.end[off+n] = r, r
}

func (a *Allocator) remove(r *run) {
	f, s := mapping(r.n)
	if r.next != nil {
		r.next.prev = r.prev
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		a.heads[f][s] = r.next
		if r.next == nil {
			a.secnd[f] &^= 1 << s
			if a.secnd[f] == 0 {
				a.first &^= 1 << f
			}
		}
	}
	delete(a.start, r.off)
	delete(a.end, r.off+r.n)
}

// take cuts [off, off+n) out of a free run and returns the rest.
func (a *Allocator) take(r *run, off, n int64) {
	a.remove(r)
	if off > r.off {
		a.insert(r.off, off-r.off)
	}
	if rest := r.off + r.n - off - n; rest > 0 {
		a.insert(off+n, rest)
	}
}

// allocRun finds n granules whose offset is a multiple of align.
func (a *Allocator) allocRun(n, align int64) (int64, bool) {
	r := a.find(n + align - 1)
	if r == nil {
		// A run of the very size class may still fit where the next class is empty.
		if r = a.search(n, align); r == nil {
			return 0, false
		}
	}
	off := (r.off + align - 1) / align * align
	a.take(r, off, n)
	return off, true
}

// find returns a run of a class in which every run has at least n granules.
func (a *Allocator) find(n int64) *run {
	if k := bits.Len64(uint64(n)) - 1; k >= secondLog {
		n += 1<<(k-secondLog) - 1
	}
	f, s := mapping(n)
	if f >= firstBits {
		return nil
	}
	if m := a.secnd[f] &^ (1<<s - 1); m != 0 {
		return a.heads[f][bits.TrailingZeros32(m)]
	}
	if m := a.first &^ (1<<(f+1) - 1); m != 0 {
		f = bits.TrailingZeros64(m)
		return a.heads[f][bits.TrailingZeros32(a.secnd[f])]
	}
	return nil
}

// search looks through the one class that may hold runs both shorter and longer
// than n.
func (a *Allocator) search(n, align int64) *run {
	f, s := mapping(n)
	if f >= firstBits {
		return nil
	}
	for tries, r := 0, a.heads[f][s]; r != nil && tries < 64; tries, r = tries+1, r.next {
		off := (r.off + align - 1) / align * align
		if off+n <= r.off+r.n {
			return r
		}
	}
	return nil
}

func (a *Allocator) allocSlot(class int) (int64, bool) {
	s := a.part[class]
	if s == nil {
		g, ok := a.allocRun(slabSize/Align, slabSize/Align)
		if !ok {
			return 0, false
		}
		slots := slabSize / Align / class
		s = &slab{off: g * Align, class: class, slots: slots, free: slots}
		a.slabs[s.off/slabSize] = s
		a.list(s)
	}
	for w := range s.bitmap {
		if s.bitmap[w] == ^uint64(0) {
			continue
		}
		slot := w*64 + bits.TrailingZeros64(^s.bitmap[w])
		if slot >= s.slots {
			break
		}
		s.bitmap[w] |= 1 << (slot % 64)
		if s.free--; s.free == 0 {
			a.unlist(s)
		}
		return s.off + int64(slot*class)*Align, true
	}
	panic("shm: a listed slab has no free slot")
}

func (a *Allocator) freeSlot(s *slab, off int64) {
	slot := int(off-s.off) / Align / s.class
	s.bitmap[slot/64] &^= 1 << (slot % 64)
	s.free++
	if s.free == s.slots && (a.part[s.class] != nil && (a.part[s.class] != s || s.next != nil)) {
		// Empty, and not the last of its class: give it back.
		if s.listed {
			a.unlist(s)
		}
		delete(a.slabs, s.off/slabSize)
		a.insert(s.off/Align, slabSize/Align)
		return
	}
	if !s.listed {
		a.list(s)
	}
}

// ReleaseSlabs returns empty slabs that are kept for their class.
func (a *Allocator) ReleaseSlabs() {
	for _, s := range a.part {
		for s != nil {
			next := s.next
			if s.free == s.slots {
				a.unlist(s)
				delete(a.slabs, s.off/slabSize)
				a.insert(s.off/Align, slabSize/Align)
			}
			s = next
		}
	}
}

func (a *Allocator) list(s *slab) {
	s.listed, s.prev, s.next = true, nil, a.part[s.class]
	if s.next != nil {
		s.next.prev = s
	}
	a.part[s.class] = s
}

func (a *Allocator) unlist(s *slab) {
	if s.next != nil {
		s.next.prev = s.prev
	}
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		a.part[s.class] = s.next
	}
	s.listed, s.prev, s.next = false, nil, nil
}

// Check verifies the invariants: runs and slabs do not overlap, neighbours are
// merged, and free plus used bytes make the whole. Tests call it after every
// operation.
func (a *Allocator) Check() error {
	var free int64
	for off, r := range a.start {
		switch {
		case off != r.off || r.n <= 0 || r.off < 0 || (r.off+r.n)*Align > a.size:
			return fmt.Errorf("run [%d,+%d) is out of place", r.off, r.n)
		case a.end[r.off+r.n] != r:
			return fmt.Errorf("run [%d,+%d) has no end entry", r.off, r.n)
		case a.start[r.off+r.n] != nil:
			return fmt.Errorf("run [%d,+%d) is not merged with its neighbour", r.off, r.n)
		}
		for _, s := range a.slabs {
			if s.off < (r.off+r.n)*Align && r.off*Align < s.off+slabSize {
				return fmt.Errorf("slab %d lies in the free run [%d,+%d)", s.off, r.off, r.n)
			}
		}
		free += r.n * Align
	}
	if len(a.start) != len(a.end) {
		return fmt.Errorf("%d runs start, %d end", len(a.start), len(a.end))
	}
	for _, s := range a.slabs {
		used := 0
		for _, w := range s.bitmap {
			used += bits.OnesCount64(w)
		}
		if used+s.free != s.slots {
			return fmt.Errorf("slab %d: %d used + %d free of %d slots", s.off, used, s.free, s.slots)
		}
		if s.listed != (s.free > 0) {
			return fmt.Errorf("slab %d: %d free, listed %v", s.off, s.free, s.listed)
		}
		free += slabSize - int64(used*s.class)*Align
	}
	if free+a.used != a.size {
		return fmt.Errorf("free %d + used %d != size %d", free, a.used, a.size)
	}
	return nil
}
