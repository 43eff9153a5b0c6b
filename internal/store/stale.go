package store

import (
	"container/heap"
	"slices"

	"github.com/v6d-go/v6d/internal/object"
)

// After a damaged journal a blob can be back whose deletion was lost, although
// another one lay in its place since. Of two that both seem to live EndReplay
// notices that; of a later one that was deleted again only the record of its
// sealing tells.

// placed is the record of a sealing: which bytes of a file a blob took, in the
// order of the records.
type placed struct {
	off, end int64
	order    int
	id       object.ID
}

// stale returns those of a file's live blobs whose bytes were sealed again as
// part of another blob.
func stale(live []*Blob, seals []placed) (out []*Blob) {
	mine := map[object.ID]int{} // the order in which a blob took its place
	for _, p := range seals {
		mine[p.id] = max(mine[p.id], p.order)
	}
	// What was moved between sessions lies where another id was sealed.
	live = slices.DeleteFunc(slices.Clone(live), func(b *Blob) bool { return b.shared != nil })
	found := map[*Blob]bool{}
	for _, seg := range youngest(seals) {
		// Blobs are in the order of their offsets; those that end before this
		// segment are done, and so are those that are found.
		for len(live) > 0 && (found[live[0]] || live[0].off+live[0].extent <= seg.off) {
			live = live[1:]
		}
		for _, b := range live {
			if b.off >= seg.end {
				break
			}
			if seg.id != b.id && b.off+b.extent > seg.off && seg.order > mine[b.id] && !found[b] {
				found[b] = true
				out = append(out, b)
			}
		}
	}
	return out
}

// youngest cuts the file into segments and tells who sealed each last, in the
// order of the offsets.
func youngest(seals []placed) (out []placed) {
	starts := slices.Clone(seals)
	slices.SortFunc(starts, func(a, b placed) int { return int(a.off - b.off) })
	cuts := make([]int64, 0, 2*len(seals))
	for _, p := range seals {
		cuts = append(cuts, p.off, p.end)
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var active byOrder
	for i, at := range cuts {
		for len(starts) > 0 && starts[0].off == at {
			heap.Push(&active, starts[0])
			starts = starts[1:]
		}
		for len(active) > 0 && active[0].end <= at {
			heap.Pop(&active)
		}
		if len(active) == 0 || i+1 == len(cuts) {
			continue
		}
		seg := active[0]
		seg.off, seg.end = at, cuts[i+1]
		out = append(out, seg)
	}
	return out
}

// byOrder is a heap with the youngest on top.
type byOrder []placed

func (h byOrder) Len() int           { return len(h) }
func (h byOrder) Less(i, j int) bool { return h[i].order > h[j].order }
func (h byOrder) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *byOrder) Push(x any) { *h = append(*h, x.(placed)) }

// Pop implements heap.Interface.
func (h *byOrder) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
