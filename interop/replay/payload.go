package replay

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
)

// filler returns n bytes that no compressor makes smaller.
func filler(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// sendPayload streams the bytes of the blobs that the daemon just made. A
// recording keeps the first 64 bytes of what went over the socket: if that is
// all, exactly this is sent, otherwise other bytes of the same length.
func (p *player) sendPayload(l *line) error {
	c := p.clients[l.Conn]
	if c == nil {
		return fmt.Errorf("no connection %s", l.Conn)
	}
	sizes, total := c.sizes()
	if want := max(l.Inflated, l.RawLen); !l.Compressed && want != total || l.Compressed && l.Inflated != total {
		return fmt.Errorf("recorded payload of %d bytes, but the blobs have %d", want, total)
	}
	sent, err := hex.DecodeString(l.RawHex)
	if err != nil {
		return err
	}
	complete := len(sent) == l.RawLen
	blobs := make([][]byte, len(sizes))
	reader := stream{take: bytesReader(sent)}
	plain := bytesReader(sent)
	for i, size := range sizes {
		switch {
		case !complete:
			blobs[i] = filler(size, uint64(l.n+i))
		case size == 0:
		case l.Compressed:
			blobs[i], err = reader.blob(size)
		default:
			blobs[i], err = plain(size)
		}
		if err != nil {
			return fmt.Errorf("recorded payload: %w", err)
		}
		id, _ := asUint(c.payloads[i]["object_id"])
		p.contents[id] = blobs[i]
	}
	switch {
	case complete:
	case l.Compressed:
		sent = deflate(blobs)
	default:
		sent = bytes.Join(blobs, nil)
	}
	c.unpaid++ // the second reply
	p.stats.Payloads++
	return c.write(sent)
}

// bytesReader takes from b as a connection takes from the wire.
func bytesReader(b []byte) func(n int) ([]byte, error) {
	return func(n int) ([]byte, error) {
		if n > len(b) {
			return nil, fmt.Errorf("%d bytes missing", n-len(b))
		}
		head := b[:n]
		b = b[n:]
		return head, nil
	}
}

// awaitPayload reads the blobs that follow a reply and compares them with what
// was sent.
func (p *player) awaitPayload(l *line) error {
	c := p.clients[l.Conn]
	if c == nil {
		return fmt.Errorf("no connection %s", l.Conn)
	}
	sizes, _ := c.sizes()
	reader := stream{take: c.take}
	for i, size := range sizes {
		if size == 0 {
			continue
		}
		read := c.take
		if c.compressed() {
			read = reader.blob
		}
		got, err := read(size)
		if err != nil {
			return fmt.Errorf("payload %d: %w", i, err)
		}
		id, _ := asUint(c.payloads[i]["object_id"])
		if want, known := p.contents[id]; known && !bytes.Equal(got, want) {
			p.differs(l, "payload %d: expected the %d bytes that were put, got others", i, size)
		}
	}
	p.stats.Payloads++
	return nil
}
