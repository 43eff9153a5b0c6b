package migrate

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/v6d-go/v6d/client"
)

// TestQueue takes pieces of random sizes and gives parts of some back, as broken
// connections do: every byte of every blob is brought exactly once, and no request
// names a blob twice.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.Int64Range(0, 3*firstPiece), 1, 40).Draw(t, "sizes")
		q := &queue{ids: make([]client.ID, len(sizes)), sizes: sizes}
		brought := make([]map[int64]int64, len(sizes)) // by offset
		for i := range brought {
			brought[i] = map[int64]int64{}
		}
		var total int64
		for {
			piece := q.take(rapid.Int64Range(1, 2*firstPiece).Draw(t, "piece"))
			if len(piece) == 0 {
				break
			}
			seen := map[int]bool{}
			for i := range piece {
				s := &piece[i]
				if seen[s.i] {
					t.Fatalf("blob %d is twice in one piece", s.i)
				}
				seen[s.i] = true
				if s.n <= 0 || s.off < 0 || s.off+s.n > sizes[s.i] {
					t.Fatalf("%d bytes from %d on of a blob of %d", s.n, s.off, sizes[s.i])
				}
				came := s.n
				if rapid.Bool().Draw(t, "breaks") {
					came = rapid.Int64Range(min(s.n, firstPiece/4), s.n).Draw(t, "came")
				}
				if came > 0 {
					brought[s.i][s.off] = came
					total += came
				}
				s.off, s.n = s.off+came, s.n-came
			}
			q.giveBack(piece)
		}
		var want int64
		for i, size := range sizes {
			want += size
			at := int64(0)
			for at < size {
				n := brought[i][at]
				if n == 0 {
					t.Fatalf("byte %d of blob %d of %d was not brought", at, i, size)
				}
				at += n
			}
		}
		if total != want {
			t.Fatalf("%d bytes were brought of %d", total, want)
		}
	})
}

// TestSettings refuses what makes no sense before anything is dialled.
func TestSettings(t *testing.T) {
	for _, s := range []Settings{{Compress: "gzip"}, {Parallel: -1}, {Parallel: 33}, {Limit: -1}} {
		if s.Check() == nil {
			t.Errorf("%+v is accepted", s)
		}
	}
	if err := (&Settings{Compress: On, Parallel: 32, Limit: 1}).Check(); err != nil {
		t.Error(err)
	}
}
