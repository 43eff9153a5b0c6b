// Package zstream is the compressed form of payload on the 0.24 wire.
//
// The blobs of one request are one zstd stream that is never ended. The stream
// is cut into chunks, each an 8-byte little-endian length and that many bytes.
// At the end of each blob the stream is flushed, and no chunk holds bytes of two
// blobs. A chunk is at most MaxChunk bytes long, and none may follow that
// decodes to nothing: the receiver stops reading a blob at its last byte.
package zstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// MaxChunk is the size of the input buffer that 0.24 clients own.
const MaxChunk = 131591

// flushEvery bounds what the encoder holds before chunks leave.
const flushEvery = 1 << 20

// headerSize is the length of a chunk's length.
const headerSize = 8

// Encoders and decoders have windows of megabytes: they are used again.
var (
	encoders sync.Pool // of *zstd.Encoder
	decoders sync.Pool // of *zstd.Decoder
)

// Writer sends blobs on a connection: compressed, or as they are in the form of a
// compressed stream.
type Writer struct {
	dst     io.Writer
	enc     *zstd.Encoder // nil to store
	begun   bool          // a stored stream has its frame header
	out     bytes.Buffer  // begins with room for a header
	pending int
}

// NewWriter starts a stream; payload that does not shrink (see Shrinks) is better
// stored. Close it when the request is done.
func NewWriter(dst io.Writer, compress bool) (*Writer, error) {
	w := &Writer{dst: dst}
	if !compress {
		return w, nil
	}
	w.begin()
	if enc, ok := encoders.Get().(*zstd.Encoder); ok {
		w.enc = enc
		enc.Reset(&w.out)
		return w, nil
	}
	enc, err := zstd.NewWriter(&w.out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(2<<20))
	if err != nil {
		return nil, err
	}
	w.enc = enc
	return w, nil
}

func (w *Writer) begin() {
	w.out.Reset()
	w.out.Write(make([]byte, headerSize))
}

// Close gives the encoder back. It writes nothing: the stream is never ended.
func (w *Writer) Close() {
	if w.enc == nil {
		return
	}
	w.enc.Reset(nil)
	encoders.Put(w.enc)
	w.enc = nil
}

// Write sends bytes of the current blob, or keeps them for EndBlob.
func (w *Writer) Write(p []byte) (int, error) {
	if w.enc == nil {
		return w.store(p)
	}
	total := 0
	for len(p) > 0 {
		n := min(len(p), flushEvery-w.pending)
		if _, err := w.enc.Write(p[:n]); err != nil {
			return total, err
		}
		total += n
		p = p[n:]
		// Keep the last piece for EndBlob, so that a flush never stands alone.
		if w.pending += n; w.pending == flushEvery && len(p) > 0 {
			if err := w.flush(); err != nil {
				return total, err
			}
		}
	}
	return total, nil
}

// EndBlob flushes the stream so that all bytes of the blob can be decoded.
func (w *Writer) EndBlob() error { return w.flush() }

func (w *Writer) flush() error {
	if w.pending == 0 {
		return nil
	}
	w.pending = 0
	if err := w.enc.Flush(); err != nil {
		return err
	}
	defer w.begin()
	// Each chunk's header overwrites what lies before it: room for the first
	// one's, the end of the chunk before for the others.
	for rest := w.out.Bytes(); len(rest) > headerSize; {
		n := min(len(rest)-headerSize, MaxChunk)
		// A last chunk of a few bytes could decode to nothing: share evenly.
		if over := len(rest) - headerSize - n; over > 0 && over < MaxChunk/2 {
			n = (len(rest) - headerSize) / 2
		}
		binary.LittleEndian.PutUint64(rest, uint64(n))
		if _, err := w.dst.Write(rest[:headerSize+n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// Reader decompresses blobs from a connection. It reads a chunk only when its
// bytes are needed.
type Reader struct {
	chunks chunkReader
	dec    *zstd.Decoder
}

// NewReader starts a stream. Close it when the request is done.
func NewReader(src io.Reader) (*Reader, error) {
	r := &Reader{chunks: chunkReader{src: src}}
	if dec, ok := decoders.Get().(*zstd.Decoder); ok && dec.Reset(&r.chunks) == nil {
		r.dec = dec
		return r, nil
	}
	dec, err := zstd.NewReader(&r.chunks, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	r.dec = dec
	return r, nil
}

// ErrChunk is returned for a chunk whose length cannot be right.
var ErrChunk = errors.New("bad chunk of compressed payload")

// Read decompresses bytes of the current blob; the caller asks for no more
// than the blob has.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.dec.Read(p)
	if r.chunks.err != nil && (err != nil || n == 0) {
		err = r.chunks.err
	}
	return n, err
}

// EndBlob checks that the blob ended where a chunk did.
func (r *Reader) EndBlob() error {
	if r.chunks.left > 0 {
		// Bytes of the last chunk that the decoder did not need are an empty
		// block's; another blob's would be an error of the sender.
		_, err := io.CopyN(&r.chunks.rest, r.chunks.src, int64(r.chunks.left))
		r.chunks.left = 0
		return err
	}
	return nil
}

// Close gives the decoder back.
func (r *Reader) Close() {
	if r.dec.Reset(nil) == nil {
		decoders.Put(r.dec)
	}
	r.dec = nil
}

// chunkReader strips the chunk headers.
type chunkReader struct {
	src  io.Reader
	left int          // of the current chunk
	rest bytes.Buffer // bytes read ahead of the decoder by EndBlob
	err  error
}

func (c *chunkReader) Read(p []byte) (int, error) {
	if c.rest.Len() > 0 {
		return c.rest.Read(p)
	}
	for c.left == 0 {
		var header [8]byte
		if _, err := io.ReadFull(c.src, header[:]); err != nil {
			c.err = err
			return 0, err
		}
		n := binary.LittleEndian.Uint64(header[:])
		if n == 0 || n > MaxChunk {
			c.err = fmt.Errorf("%w: length %d, want 1 to %d", ErrChunk, n, MaxChunk)
			return 0, c.err
		}
		c.left = int(n)
	}
	n, err := c.src.Read(p[:min(len(p), c.left)])
	c.left -= n
	if err != nil {
		c.err = err
	}
	return n, err
}
