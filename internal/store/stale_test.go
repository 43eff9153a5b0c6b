package store

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/v6d-go/v6d/internal/object"
)

// TestStale compares stale with the plain way to say it: a live blob is stale if
// any of its bytes was sealed later as another's.
func TestStale(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var seals []placed
		places := map[object.ID]placed{}
		for i := range rapid.IntRange(0, 20).Draw(t, "records") {
			id := object.ID(rapid.IntRange(1, 8).Draw(t, "id"))
			off := rapid.Int64Range(0, 30).Draw(t, "off")
			p := placed{off, off + rapid.Int64Range(1, 10).Draw(t, "size"), i, id}
			seals, places[id] = append(seals, p), p
		}
		var live []*Blob
		for id, p := range places {
			if rapid.Bool().Draw(t, "alive") {
				live = append(live, &Blob{id: id, off: p.off, extent: p.end - p.off})
			}
		}
		slices.SortFunc(live, func(a, b *Blob) int { return int(a.off - b.off) })
		var want []object.ID
		for _, b := range live {
			for at := b.off; at < b.off+b.extent; at++ {
				var last placed
				for _, p := range seals {
					if p.off <= at && at < p.end {
						last = p
					}
				}
				if last.id != b.id {
					want = append(want, b.id)
					break
				}
			}
		}
		var got []object.ID
		for _, b := range stale(live, seals) {
			got = append(got, b.id)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("stale %v, want %v; seals %+v", got, want, seals)
		}
	})
}
