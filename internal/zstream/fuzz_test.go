package zstream

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"testing"
)

// FuzzReader: whatever a peer sends, the reader ends, reads no more than was
// asked for, and holds at most one chunk.
func FuzzReader(f *testing.F) {
	gold, _ := hex.DecodeString(golden)
	f.Add(gold, uint32(80), uint8(1))
	f.Add(gold[:30], uint32(80), uint8(2))
	two, _ := compress(f, [][]byte{bytes.Repeat([]byte("ab"), 20), []byte("and a second blob")}, 100)
	f.Add(two, uint32(40), uint8(2))
	big, _ := compress(f, [][]byte{noise(2000), make([]byte, 100000)}, 1<<20)
	f.Add(big, uint32(2000), uint8(3))
	f.Add(append(binary.LittleEndian.AppendUint64(nil, 4), "junk"...), uint32(10), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, size uint32, blobs uint8) {
		if len(in) > 1<<18 {
			return
		}
		src := bytes.NewReader(in)
		r, err := NewReader(src)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		buf := make([]byte, size%(1<<20))
		for range blobs % 8 {
			n, err := io.ReadFull(r, buf)
			if n > len(buf) || err == nil && n < len(buf) {
				t.Fatalf("%d of %d bytes, %v", n, len(buf), err)
			}
			if held := r.chunks.rest.Len() + r.chunks.left; held > 2*MaxChunk {
				t.Fatalf("%d bytes are held", held)
			}
			if err != nil || r.EndBlob() != nil {
				return
			}
		}
	})
}

// FuzzRoundTrip: any bytes, cut into any blobs and written in any pieces, come
// back, in chunks that 0.24 clients can take.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte(nil), uint32(0), uint32(0), uint8(0))
	f.Add([]byte("hello, hello, hello"), uint32(5), uint32(3), uint8(0))
	f.Add(noise(3000), uint32(2999), uint32(1), uint8(100))
	f.Add(noise(1000), uint32(500), uint32(999), uint8(255))
	f.Fuzz(func(t *testing.T, data []byte, cut, piece uint32, repeat uint8) {
		if len(data) > 1<<14 {
			return
		}
		at := 0
		if len(data) > 0 {
			at = int(cut) % (len(data) + 1)
		}
		// The second blob is long enough to need several chunks.
		blobs := [][]byte{data[:at], bytes.Repeat(data[at:], int(repeat)+1), data}
		stream, ends := compress(t, blobs, int(piece)%(1<<20)+64)
		check(t, blobs, stream, ends)
		if len(data) > 0 {
			lastChunkIsNeeded(t, blobs, stream)
		}
	})
}
