package zstream

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// noise returns n bytes that do not compress, the same ones every time.
func noise(n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = src.Read(b)
	return b
}

// chunksOf cuts a stream at its chunk headers.
func chunksOf(t testing.TB, b []byte) (chunks [][]byte) {
	for len(b) > 0 {
		if len(b) < 8 {
			t.Fatalf("%d bytes where a chunk header is due", len(b))
		}
		n := binary.LittleEndian.Uint64(b)
		if n == 0 || n > MaxChunk || n > uint64(len(b)-8) {
			t.Fatalf("a chunk of %d bytes, with %d left", n, len(b)-8)
		}
		chunks = append(chunks, b[:8+n])
		b = b[8+n:]
	}
	return chunks
}

// compress writes blobs in pieces and returns the stream and the places where
// blobs end in it.
func compress(t testing.TB, blobs [][]byte, piece int) (stream []byte, ends []int) {
	var out bytes.Buffer
	w, err := NewWriter(&out, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, blob := range blobs {
		for rest := blob; len(rest) > 0; {
			n, err := w.Write(rest[:min(piece, len(rest))])
			if err != nil || n != min(piece, len(rest)) {
				t.Fatalf("write: %d, %v", n, err)
			}
			rest = rest[n:]
		}
		if err := w.EndBlob(); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, out.Len())
	}
	return out.Bytes(), ends
}

// check reads a stream back and holds it to the rules of docs/protocol.md: the
// bytes come out, each blob ends where one of its chunks does, no chunk is
// longer than clients allow, and every last chunk of a blob is needed for it.
func check(t testing.TB, blobs [][]byte, stream []byte, ends []int) {
	src := bytes.NewReader(stream)
	r, err := NewReader(src)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	start := 0
	for i, blob := range blobs {
		got := make([]byte, len(blob))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, blob) {
			t.Fatalf("blob %d of %d bytes: %v, equal %v", i, len(blob), err, bytes.Equal(got, blob))
		}
		if err := r.EndBlob(); err != nil {
			t.Fatal(err)
		}
		if at := len(stream) - src.Len(); at != ends[i] {
			t.Fatalf("blob %d ends at byte %d, the reader is at %d", i, ends[i], at)
		}
		chunks := chunksOf(t, stream[start:ends[i]])
		if (len(chunks) == 0) != (len(blob) == 0) {
			t.Fatalf("blob %d of %d bytes has %d chunks", i, len(blob), len(chunks))
		}
		start = ends[i]
	}
}

// lastChunkIsNeeded: without its last chunk the last blob cannot be read whole.
func lastChunkIsNeeded(t testing.TB, blobs [][]byte, stream []byte) {
	chunks := chunksOf(t, stream)
	if len(chunks) == 0 {
		return
	}
	r, err := NewReader(bytes.NewReader(stream[:len(stream)-len(chunks[len(chunks)-1])]))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, len(bytes.Join(blobs, nil)))); err == nil {
		t.Fatalf("the last of %d chunks decodes to nothing", len(chunks))
	}
}

func TestRoundTrip(t *testing.T) {
	mixed := append(noise(MaxChunk+100), make([]byte, flushEvery)...)
	for name, blobs := range map[string][][]byte{
		"nothing":        {},
		"empty blobs":    {{}, {}},
		"one byte":       {{7}},
		"empty between":  {{1, 2}, {}, {3}},
		"zeros":          {make([]byte, 3*flushEvery)},
		"noise":          {noise(700000)},
		"piece boundary": {noise(flushEvery), noise(flushEvery + 1), noise(flushEvery - 1), noise(2 * flushEvery)},
		"chunk boundary": {noise(MaxChunk - 20), noise(MaxChunk), noise(MaxChunk + 1), noise(2*MaxChunk + 1)},
		"mixed":          {mixed, noise(10), mixed[:MaxChunk+200], []byte("end")},
	} {
		for _, piece := range []int{1 << 30, 64 << 10, 99991} {
			stream, ends := compress(t, blobs, piece)
			check(t, blobs, stream, ends)
			for i := range blobs {
				if len(blobs[i]) > 0 {
					lastChunkIsNeeded(t, blobs[:i+1], stream[:ends[i]])
				}
			}
			if t.Failed() {
				t.Fatal(name, piece)
			}
		}
	}
}

// golden is what the reference sent for the int64 numbers 0 to 9.
const golden = "2a00000000000000" + "28b52ffd00580c0100d00000010002000300040005000600070008000900000000000000095402000301"

func TestGolden(t *testing.T) {
	stream, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for i := range uint64(10) {
		want = binary.LittleEndian.AppendUint64(want, i)
	}
	check(t, [][]byte{want}, stream, []int{len(stream)})
}

// TestBadChunks: lengths that cannot be right are refused before anything of
// the chunk is read, and an early end is an error.
func TestBadChunks(t *testing.T) {
	header := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	good, _ := hex.DecodeString(golden)
	for name, c := range map[string]struct {
		stream []byte
		want   error
	}{
		"length 0":     {header(0), ErrChunk},
		"one too long": {append(header(MaxChunk+1), make([]byte, MaxChunk+1)...), ErrChunk},
		"huge":         {header(1<<64 - 1), ErrChunk},
		"no header":    {nil, io.EOF},
		"cut header":   {good[:5], io.ErrUnexpectedEOF},
		"cut chunk":    {good[:20], io.EOF},
	} {
		r, err := NewReader(bytes.NewReader(c.stream))
		if err != nil {
			t.Fatal(err)
		}
		n, err := r.Read(make([]byte, 80))
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %d, %v; want %v", name, n, err, c.want)
		}
		r.Close()
	}
}

// TestTrailingEmptyBlock: the reference may end a chunk with a block of no
// bytes. It belongs to the blob, and the next blob begins behind it.
func TestTrailingEmptyBlock(t *testing.T) {
	blobs := [][]byte{[]byte("the first blob"), noise(5000)}
	stream, ends := compress(t, blobs, 1<<20)
	first := binary.LittleEndian.AppendUint64(nil, uint64(ends[0]-8+3))
	first = append(append(first, stream[8:ends[0]]...), 0, 0, 0)
	check(t, blobs, append(first, stream[ends[0]:]...), []int{ends[0] + 3, ends[1] + 3})
}
