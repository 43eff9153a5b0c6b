package journal

import (
	"bytes"
	"os"
	"testing"
)

// FuzzReplay reads any bytes as a journal: good records come out in order, the
// rest is accounted for as damage, and good records behind damage are found.
func FuzzReplay(f *testing.F) {
	b, _, offs := sample(f)
	whole := b[:offs[len(offs)-1]]
	f.Add(whole, uint16(0), byte(0))
	f.Add(whole, uint16(50), byte(1))
	f.Add(whole[:len(whole)-3], uint16(20), byte(0xff))
	f.Add(append(bytes.Clone(whole), whole...), uint16(5), byte(4))
	f.Add([]byte("1J6v"), uint16(0), byte(0))
	f.Add(append(make([]byte, 64), whole...), uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, flip byte) {
		if len(b) > 1<<16 {
			return
		}
		if len(b) > 0 {
			b[int(at)%len(b)] ^= flip
		}
		got, rep := list(t, b)
		used, end := rep.Bytes, 0
		for _, g := range rep.Damaged {
			if g.Off < end || g.Size <= 0 || g.Off+g.Size > len(b) {
				t.Fatalf("damage %+v in %d bytes", rep.Damaged, len(b))
			}
			used += g.Size
			end = g.Off + g.Size
		}
		if used > aligned(len(b)) || rep.Records*header > len(b) {
			t.Fatalf("%d bytes hold %+v", len(b), rep)
		}
		// A good record behind the whole is found, however bad the whole is.
		if len(b)%8 != 0 || lastSeq(b) >= 1<<62 {
			return
		}
		j := Journal{file: &os.File{}, mem: make([]byte, 64), seq: 1 << 62}
		if err := j.AppendFreeing([]byte("found")); err != nil { // it needs no spare room
			t.Fatal(err)
		}
		again, _ := list(t, append(bytes.Clone(b), j.mem...))
		if len(again) != len(got)+1 || again[len(got)] != "found" {
			t.Fatalf("%q, then with one more %q", got, again)
		}
	})
}

// lastSeq returns the greatest sequence number of anything in b that looks like
// a record.
func lastSeq(b []byte) (last uint64) {
	for ; len(b) >= 8; b = b[8:] {
		if _, seq, ok := decode(b); ok {
			last = max(last, seq)
		}
	}
	return last
}
