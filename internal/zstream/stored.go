package zstream

import (
	"encoding/binary"
	"net"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Data that does not shrink travels as what RFC 8878 calls raw blocks: the same
// stream to its receiver, at the speed of a copy.
const (
	maxBlock    = 128 << 10
	blockHeader = 3
)

// frameHeader begins a zstd frame without content size, checksum or dictionary,
// whose window is 2 MiB (RFC 8878, 3.1.1).
var frameHeader = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 11 << 3}

// store sends bytes of the current blob at once.
func (w *Writer) store(p []byte) (int, error) {
	total := len(p)
	var pieces net.Buffers // one system call for all where dst is a socket
	for len(p) > 0 {
		n := min(len(p), maxBlock)
		head := make([]byte, headerSize, headerSize+len(frameHeader)+blockHeader)
		if !w.begun {
			head = append(head, frameHeader...)
			w.begun = true
		}
		head = append(head, byte(n<<3), byte(n>>5), byte(n>>13)) // not the last, raw, its size
		binary.LittleEndian.PutUint64(head, uint64(len(head)-headerSize+n))
		pieces = append(pieces, head, p[:n])
		p = p[n:]
	}
	_, err := pieces.WriteTo(w.dst)
	return total, err
}

// A sample tells whether compression is worth its time: a few pieces of a blob.
const (
	sampleFrom  = 64 << 10 // shorter payload is always compressed
	samplePiece = 8 << 10
	samples     = 4
)

var sampler = sync.OnceValue(func() *zstd.Encoder {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil // none of these options can be wrong
	}
	return enc
})

// Shrinks guesses from a few pieces whether compression makes payload of size
// bytes at least a tenth smaller. read fills p from an offset.
func Shrinks(size int64, read func(p []byte, off int64) error) (bool, error) {
	enc := sampler()
	if size < sampleFrom || enc == nil {
		return true, nil
	}
	piece := make([]byte, samplePiece)
	out := make([]byte, 0, samplePiece+256)
	packed := 0
	for i := range int64(samples) {
		if err := read(piece, (size-samplePiece)/(samples-1)*i); err != nil {
			return false, err
		}
		packed += len(enc.EncodeAll(piece, out[:0]))
	}
	return packed < samples*samplePiece*9/10, nil
}
