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
	"maps"
	"math/bits"
	"slices"
)

const (
	// Align is the alignment of every extent, in bytes.
	Align = 64
	// slabMax is the largest extent that lives in a slab.
	slabMax = 1024
	// slabSize is the size of a slab and its alignment in the file.
	slabSize = 4 << 10

	classes   = slabMax / Align
	firstBits = 40 // sizes up to 2^40 granules
	secondLog = 5  // each power of two is split 32 ways
	secondCnt = 1 << secondLog
)

// Allocator hands out extents of [base, base+size). It keeps its books outside
// of the memory that it manages, since clients can write there. Three kinds of
// extents are kept apart, so that few small ones do not pin the memory of large
// ones: the smallest come from slabs of one size class each, slabs and small
// extents from the small heap, which takes whole chunks from the large heap and
// returns them when they are free, the others from the large heap. Only when a
// heap has no room left does it take what the other has. Memory is given back
// to the system by the large heap alone. The allocator is not safe for
// concurrent use.
type Allocator struct {
	base, size int64
	used       int64 // bytes in live extents, rounded up to Align
	chunk      int64 // in granules, a power of two
	large      heap
	small      heap
	chunks     map[int64]struct{} // by offset / chunk: those that the small heap has
	slabs      map[int64]*slab    // by offset / slabSize
	part       [classes + 1]*slab // slabs of a class that have a free slot
}

// heap is a set of free runs, found by a two-level segregated fit (Masmano et
// al., TLSF, 2004): constant time, at most 1/32 of a run's size away from the
// best fit, last freed first used.
type heap struct {
	heads [firstBits][secondCnt]*run
	first uint64            // bit f: heads[f] has a run
	secnd [firstBits]uint32 // bit s: heads[f][s] is not empty
	start map[int64]*run    // free runs by first granule
	end   map[int64]*run    // free runs by the granule after their last
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

// NewAllocator manages [base, base+size); both must be multiples of Align.
func NewAllocator(base, size int64) *Allocator {
	a := &Allocator{
		base: base, size: size, chunk: slabSize / Align,
		large: newHeap(), small: newHeap(), chunks: map[int64]struct{}{}, slabs: map[int64]*slab{},
	}
	for a.chunk*Align < Unit && a.chunk*Align*64 < size {
		a.chunk *= 2
	}
	a.large.insert(base/Align, size/Align)
	return a
}

func newHeap() heap { return heap{start: map[int64]*run{}, end: map[int64]*run{}} }

// Round returns the bytes that an extent of n bytes takes.
func Round(n int64) int64 { return (n + Align - 1) &^ (Align - 1) }

// Size returns the bytes managed; Used those in live extents.
func (a *Allocator) Size() int64 { return a.size }

// Used returns the bytes in live extents, rounded up to Align each.
func (a *Allocator) Used() int64 { return a.used }

// Alloc returns the offset of a free extent of n bytes, n > 0.
func (a *Allocator) Alloc(n int64) (off int64, ok bool) {
	granules := Round(n) / Align
	if n <= slabMax {
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

// allocRun finds n granules whose offset is a multiple of align.
func (a *Allocator) allocRun(n, align int64) (int64, bool) {
	if n > a.chunk/8 {
		if g, ok := a.large.alloc(n, align); ok {
			return g, true
		}
		return a.small.alloc(n, align)
	}
	if g, ok := a.small.alloc(n, align); ok {
		return g, true
	}
	if g, size, ok := a.takeChunk(); ok {
		a.chunks[g/a.chunk] = struct{}{}
		a.small.insert(g, size)
		if g, ok := a.small.alloc(n, align); ok {
			return g, true
		}
	}
	return a.large.alloc(n, align)
}

// takeChunk takes a chunk out of the large heap: the first if it is free, which
// lacks what lies before base and fits no large extent well.
func (a *Allocator) takeChunk() (off, n int64, ok bool) {
	base := a.base / Align
	if n := a.chunk - base%a.chunk; n < a.chunk {
		if r := a.large.start[base]; r != nil && r.n >= n {
			a.large.take(r, base, n)
			return base, n, true
		}
	}
	off, ok = a.large.alloc(a.chunk, a.chunk)
	return off, a.chunk, ok
}

// Fits reports whether Alloc would find n bytes in one piece now.
func (a *Allocator) Fits(n int64) bool {
	granules := Round(n) / Align
	return n <= slabMax && a.part[granules] != nil || a.large.fits(granules) || a.small.fits(granules)
}

// Free returns an extent that Alloc gave out; n is the size asked for then.
func (a *Allocator) Free(off, n int64) {
	granules := Round(n) / Align
	a.used -= granules * Align
	if s := a.slabs[off/slabSize]; s != nil {
		a.freeSlot(s, off)
		return
	}
	a.freeRun(off/Align, granules)
}

// freeRun returns a run to the heap that it came from. A chunk that is free as
// a whole goes back to the large heap, unless it is the small heap's only one.
func (a *Allocator) freeRun(off, n int64) {
	if _, ok := a.chunks[off/a.chunk]; !ok {
		a.large.insert(off, n)
		return
	}
	r := a.small.insert(off, n)
	if len(a.chunks) > 1 {
		a.returnChunks(r)
	}
}

// returnChunks gives the whole chunks of a free run of the small heap back.
func (a *Allocator) returnChunks(r *run) {
	lo, hi := (r.off+a.chunk-1)/a.chunk*a.chunk, (r.off+r.n)/a.chunk*a.chunk
	if base := a.base / Align; r.off == base {
		lo = base
	}
	if hi <= lo {
		return
	}
	a.small.take(r, lo, hi-lo)
	for c := lo / a.chunk; c < hi/a.chunk; c++ {
		delete(a.chunks, c)
	}
	a.large.insert(lo, hi-lo)
}

// Carve takes a given extent that lies in one free run of the large heap out of
// use; Free it later with the same arguments. Both must be multiples of Align.
func (a *Allocator) Carve(off, n int64) bool {
	o, g := off/Align, n/Align
	for _, r := range a.large.start {
		if r.off <= o && o+g <= r.off+r.n {
			a.large.take(r, o, g)
			a.used += n
			return true
		}
	}
	return false
}

// Tail returns the free extent at the end, where new memory is taken from when
// nothing fits elsewhere; its size is 0 if there is none.
func (a *Allocator) Tail() Extent {
	if r := a.large.end[(a.base+a.size)/Align]; r != nil {
		return Extent{r.off * Align, r.n * Align}
	}
	return Extent{a.base + a.size, 0}
}

// CarveTail takes an extent out of the free one at the end, as Carve does.
func (a *Allocator) CarveTail(off, n int64) bool {
	r := a.large.end[(a.base+a.size)/Align]
	if r == nil || off/Align < r.off || (off+n)/Align > r.off+r.n {
		return false
	}
	a.large.take(r, off/Align, n/Align)
	a.used += n
	return true
}

// FreeUnits returns the largest runs of whole units that are free.
func (a *Allocator) FreeUnits(unit int64) []Extent {
	var out []Extent
	for _, r := range a.large.start {
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

// insert adds a free run, merged with its neighbours, and returns the whole.
func (h *heap) insert(off, n int64) *run {
	if left := h.end[off]; left != nil {
		h.remove(left)
		off, n = left.off, n+left.n
	}
	if right := h.start[off+n]; right != nil {
		h.remove(right)
		n += right.n
	}
	r := &run{off: off, n: n}
	f, s := mapping(n)
	if r.next = h.heads[f][s]; r.next != nil {
		r.next.prev = r
	}
	h.heads[f][s] = r
	h.first |= 1 << f
	h.secnd[f] |= 1 << s
	h.start[off], h.end[off+n] = r, r
	return r
}

func (h *heap) remove(r *run) {
	f, s := mapping(r.n)
	if r.next != nil {
		r.next.prev = r.prev
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		h.heads[f][s] = r.next
		if r.next == nil {
			h.secnd[f] &^= 1 << s
			if h.secnd[f] == 0 {
				h.first &^= 1 << f
			}
		}
	}
	delete(h.start, r.off)
	delete(h.end, r.off+r.n)
}

// take cuts [off, off+n) out of a free run and returns the rest.
func (h *heap) take(r *run, off, n int64) {
	h.remove(r)
	if off > r.off {
		h.insert(r.off, off-r.off)
	}
	if rest := r.off + r.n - off - n; rest > 0 {
		h.insert(off+n, rest)
	}
}

// alloc finds n granules whose offset is a multiple of align.
func (h *heap) alloc(n, align int64) (int64, bool) {
	r := h.find(n + align - 1)
	if r == nil {
		// A run of the very size class may still fit where the next class is empty.
		if r = h.search(n, align); r == nil {
			return 0, false
		}
	}
	off := (r.off + align - 1) / align * align
	h.take(r, off, n)
	return off, true
}

func (h *heap) fits(n int64) bool { return h.find(n) != nil || h.search(n, 1) != nil }

// find returns a run of a class in which every run has at least n granules.
func (h *heap) find(n int64) *run {
	if k := bits.Len64(uint64(n)) - 1; k >= secondLog {
		n += 1<<(k-secondLog) - 1
	}
	f, s := mapping(n)
	if f >= firstBits {
		return nil
	}
	if m := h.secnd[f] &^ (1<<s - 1); m != 0 {
		return h.heads[f][bits.TrailingZeros32(m)]
	}
	if m := h.first &^ (1<<(f+1) - 1); m != 0 {
		f = bits.TrailingZeros64(m)
		return h.heads[f][bits.TrailingZeros32(h.secnd[f])]
	}
	return nil
}

// search looks through the one class that may hold runs both shorter and longer
// than n.
func (h *heap) search(n, align int64) *run {
	f, s := mapping(n)
	if f >= firstBits {
		return nil
	}
	for tries, r := 0, h.heads[f][s]; r != nil && tries < 64; tries, r = tries+1, r.next {
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
		a.freeRun(s.off/Align, slabSize/Align)
		return
	}
	if !s.listed {
		a.list(s)
	}
}

// ReleaseSlabs returns empty slabs that are kept for their class, and empty
// chunks.
func (a *Allocator) ReleaseSlabs() {
	for _, s := range a.part {
		for s != nil {
			next := s.next
			if s.free == s.slots {
				a.unlist(s)
				delete(a.slabs, s.off/slabSize)
				a.freeRun(s.off/Align, slabSize/Align)
			}
			s = next
		}
	}
	for _, r := range slices.Collect(maps.Values(a.small.start)) {
		a.returnChunks(r)
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

// Check verifies the invariants: runs and slabs do not overlap, each lies in
// the heap that has its chunk, neighbours are merged, and free plus used bytes
// make the whole. Tests call it after every operation.
func (a *Allocator) Check() error {
	large, err := a.checkHeap(&a.large, false)
	if err != nil {
		return fmt.Errorf("large heap: %w", err)
	}
	small, err := a.checkHeap(&a.small, true)
	if err != nil {
		return fmt.Errorf("small heap: %w", err)
	}
	free := large + small
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

func (a *Allocator) checkHeap(h *heap, small bool) (free int64, err error) {
	for off, r := range h.start {
		switch {
		case off != r.off || r.n <= 0 || r.off*Align < a.base || (r.off+r.n)*Align > a.base+a.size:
			return 0, fmt.Errorf("run [%d,+%d) is out of place", r.off, r.n)
		case h.end[r.off+r.n] != r:
			return 0, fmt.Errorf("run [%d,+%d) has no end entry", r.off, r.n)
		case h.start[r.off+r.n] != nil:
			return 0, fmt.Errorf("run [%d,+%d) is not merged with its neighbour", r.off, r.n)
		}
		for c := r.off / a.chunk; c <= (r.off+r.n-1)/a.chunk; c++ {
			if _, ok := a.chunks[c]; ok != small {
				return 0, fmt.Errorf("run [%d,+%d) touches chunk %d, which is small: %v", r.off, r.n, c, ok)
			}
		}
		for _, s := range a.slabs {
			if s.off < (r.off+r.n)*Align && r.off*Align < s.off+slabSize {
				return 0, fmt.Errorf("slab %d lies in the free run [%d,+%d)", s.off, r.off, r.n)
			}
		}
		free += r.n * Align
	}
	if len(h.start) != len(h.end) {
		return 0, fmt.Errorf("%d runs start, %d end", len(h.start), len(h.end))
	}
	return free, nil
}
