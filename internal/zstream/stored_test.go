package zstream

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestStored: what is stored follows the rules of the wire and comes
// back as it was, whatever pieces it was written in.
func TestStored(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, sizes := range [][]int{{1}, {maxBlock}, {maxBlock + 1}, {3, 0, 500_000, 1}, {1 << 20, 1 << 20}} {
		for _, piece := range []int{7777, maxBlock, 1 << 20} {
			var blobs [][]byte
			var out bytes.Buffer
			w, err := NewWriter(&out, false)
			if err != nil {
				t.Fatal(err)
			}
			var ends []int
			for _, n := range sizes {
				blob := make([]byte, n)
				for i := range blob {
					blob[i] = byte(rnd.Uint32())
				}
				blobs = append(blobs, blob)
				for rest := blob; len(rest) > 0; {
					n, err := w.Write(rest[:min(piece, len(rest))])
					if err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if err := w.EndBlob(); err != nil {
					t.Fatal(err)
				}
				ends = append(ends, out.Len())
			}
			check(t, blobs, out.Bytes(), ends)
		}
	}
}

// TestShrinks: noise is not worth compressing, text is, and neither is looked at
// where it is short.
func TestShrinks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	text := bytes.Repeat([]byte("the quick brown fox "), 1<<16)
	for _, c := range []struct {
		what string
		data []byte
		want bool
	}{{"noise", noise, false}, {"text", text, true}, {"a little noise", noise[:1000], true}, {"nothing", nil, true}} {
		got, err := Shrinks(int64(len(c.data)), func(p []byte, off int64) error {
			if n := copy(p, c.data[off:]); n != len(p) {
				t.Errorf("%s: read of %d bytes at %d", c.what, len(p), off)
			}
			return nil
		})
		if err != nil || got != c.want {
			t.Errorf("%s: %v, %v", c.what, got, err)
		}
	}
}
