package server_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

// chunk is one chunk of a compressed payload, whose length may lie.
func chunk(length uint64, b []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, length), b...)
}

func honest(b []byte) []byte { return chunk(uint64(len(b)), b) }

// flushed compresses as clients do: a stream that is flushed, never ended.
func flushed(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	enc, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	if _, err := enc.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := enc.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(out.Bytes())
}

// ended compresses to a complete zstd frame.
func ended(t testing.TB, data []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return enc.EncodeAll(data, nil)
}

// bomb is a zstd frame of n blocks of 128 KiB zeros, 4 bytes each.
func bomb(n int) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58} // magic, descriptor, window of 2 MiB
	for range n {
		const size = 128 << 10
		header := uint32(size<<3 | 1<<1) // RLE, not the last
		b = append(b, byte(header), byte(header>>8), byte(header>>16), 0)
	}
	return b
}

// guarded is a daemon whose pool is so full of known blobs that a byte written
// to a wrong place shows.
type guarded struct {
	*testserver.Daemon
	t      testing.TB
	c      *raw
	guards []payload
}

func startGuarded(t testing.TB) *guarded {
	g := &guarded{Daemon: testserver.Start(t, nil), t: t}
	g.c = connect(t, g.Daemon)
	var holes []uint64
	for i := range 40 { // holes of 64 KiB between guards
		g.guards = append(g.guards, g.c.put(pattern(byte(i), 64<<10)))
		holes = append(holes, g.c.put(pattern(0, 64<<10)).id)
	}
	g.c.del(holes...)
	return g
}

func (g *guarded) check(what string) {
	g.t.Helper()
	for i, p := range g.guards {
		sameBytes(g.t, what+": a neighbour", g.c.bytes(p), pattern(byte(i), 64<<10))
	}
}

// settled waits until nothing but the guards is left.
func (g *guarded) settled(what string) {
	g.t.Helper()
	waitStatus(g.t, g.Daemon, what+": its blobs to go", func(s server.Status) bool {
		return s.Ledger.Unsealed == 0 && s.Ledger.Blobs == len(g.guards) && s.Ledger.Deferred == 0
	})
}

// TestLyingPayload: a compressed payload that is not what it says costs its
// sender an IOError and the connection; no blob and no byte stays.
func TestLyingPayload(t *testing.T) {
	g := startGuarded(t)
	data := pattern(77, 60_000)
	good := flushed(t, data)
	noise := pattern(3, 5000)
	window := append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff}, 0x0b, 0, 0, 0) // 3.75 TiB
	dict := append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x03, 0x58, 1, 2, 3, 4}, 0x0b, 0, 0, 0)
	cases := map[string][]byte{
		"length 0":               chunk(0, nil),
		"length 0 after half":    append(honest(good[:len(good)/2]), chunk(0, nil)...),
		"length just too large":  chunk(131592, noise),
		"length 2^32":            chunk(1<<32, noise),
		"length 2^63":            chunk(1<<63, noise),
		"length 2^64-1":          chunk(1<<64-1, noise),
		"garbage":                honest(noise),
		"garbage after half":     append(honest(good[:len(good)/2]), honest(noise)...),
		"garbage with magic":     honest(append([]byte{0x28, 0xb5, 0x2f, 0xfd}, noise...)),
		"a request, not a chunk": request("exists_request", "id", 1),
		"huge window":            honest(window),
		"dictionary":             honest(dict),
		"another magic":          honest([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}),
		"less, then garbage":     append(honest(ended(t, data[:1000])), honest(noise)...),
	}
	for what, bytes := range cases {
		for _, transport := range []func(testing.TB, *testserver.Daemon) *raw{connectRPC, connect} {
			c := transport(t, g.Daemon)
			c.call("create_remote_buffer_request", "size", len(data), "compress", true)
			c.write(bytes)
			c.expectError(status.IOError, what)
			c.hungUp(what)
			c.close()
		}
		g.check(what)
	}
	g.settled("lies")
	alive(t, g.Daemon)
}

// TestPayloadTooLong: bytes beyond a blob's size never reach the pool.
func TestPayloadTooLong(t *testing.T) {
	g := startGuarded(t)
	long := pattern(78, 120_000)
	for what, bytes := range map[string][]byte{
		"one chunk":   honest(flushed(t, long)),
		"whole frame": honest(ended(t, long)),
		"bomb":        honest(bomb(30_000)), // decodes to 3.7 GiB
	} {
		c := connectRPC(t, g.Daemon)
		p := c.call("create_remote_buffer_request", "size", 60_000, "compress", true).payload("created")
		c.write(bytes)
		if r := c.recv(); r.code() == 0 { // an error and a hang-up would be right, too
			got := make([]byte, 60_000)
			g.c.get(p.id)
			if _, err := g.c.fds[p.fd].ReadAt(got, p.off); err != nil {
				t.Fatal(err)
			}
			if what == "bomb" {
				sameBytes(t, what, got, make([]byte, 60_000))
			} else {
				sameBytes(t, what, got, long[:60_000])
			}
			c.exists(1) // still in step
			g.c.del(p.id)
		}
		g.check(what)
		c.close()
	}
	g.settled("too long")
}

// TestPayloadInChunks: any cut of an honest stream is accepted, down to single
// bytes, and the connection is in step afterwards.
func TestPayloadInChunks(t *testing.T) {
	g := startGuarded(t)
	data := pattern(5, 50_000)
	for _, cut := range []int{1, 7, 1000, 131591} {
		var wire []byte
		for rest := flushed(t, data); len(rest) > 0; {
			n := min(cut, len(rest))
			wire = append(wire, honest(rest[:n])...)
			rest = rest[n:]
		}
		c := connectRPC(t, g.Daemon)
		p := c.call("create_remote_buffer_request", "size", len(data), "compress", true).payload("created")
		c.write(wire)
		c.expect("second reply")
		if !c.exists(p.id) {
			t.Fatalf("cut %d: the blob is missing", cut)
		}
		sameBytes(t, fmt.Sprintf("cut %d", cut), g.c.bytes(g.c.get(p.id)), data)
		g.c.del(p.id)
	}
	g.check("chunks")
}

// TestUnfinishedUpload hangs up at every stage of an upload: nothing stays.
func TestUnfinishedUpload(t *testing.T) {
	g := startGuarded(t)
	data := pattern(6, 60_000)
	packed := honest(flushed(t, data))
	for _, compress := range []bool{false, true} {
		body := data
		if compress {
			body = packed
		}
		for _, n := range []int{0, 1, 7, 8, 9, len(body) / 2, len(body) - 1} {
			c := connectRPC(t, g.Daemon)
			p := c.call("create_remote_buffer_request", "size", len(data), "compress", compress).payload("created")
			c.write(body[:n])
			g.c.refused(status.ObjectNotSealed, "get_buffers_request", "ids", []uint64{p.id}) // not to be had yet
			c.close()
		}
	}
	g.settled("unfinished uploads")
	g.check("unfinished uploads")
}

// TestUploadTooLong: what follows an upload is taken for a frame.
func TestUploadTooLong(t *testing.T) {
	g := startGuarded(t)
	c := connectRPC(t, g.Daemon)
	p := c.call("create_remote_buffer_request", "size", 100).payload("created")
	c.write(bytes.Repeat([]byte{0xee}, 5000))
	c.expect("second reply")
	c.hungUp("garbage after an upload")
	sameBytes(t, "upload", g.c.bytes(g.c.get(p.id)), bytes.Repeat([]byte{0xee}, 100))
	g.c.del(p.id)
	g.check("too long")
}

// TestDropDuringUpload: a blob that is deleted while its bytes still come in
// keeps its memory until they are in; nobody else's blob may lie there.
func TestDropDuringUpload(t *testing.T) {
	for what, del := range map[string]func(*raw, uint64){
		"drop":     func(c *raw, id uint64) { c.call("drop_buffer_request", "id", id) },
		"delete":   func(c *raw, id uint64) { c.del(id) },
		"fastpath": func(c *raw, id uint64) { c.call("del_data_request", "id", []uint64{id}, "fastpath", true) },
		"clear":    func(c *raw, _ uint64) { c.call("clear_request") },
	} {
		for _, compress := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s compress=%v", what, compress), func(t *testing.T) {
				d := testserver.Start(t, func(c *config.Serve) { c.Size = "4MiB" })
				up, other := connectRPC(t, d), connect(t, d)
				data := pattern(1, 512<<10)
				p := up.call("create_remote_buffer_request", "size", len(data), "compress", compress).payload("created")
				wire := data
				if compress {
					wire = nil
					for part := flushed(t, data); len(part) > 0; {
						n := min(1000, len(part))
						wire = append(wire, honest(part[:n])...)
						part = part[n:]
					}
				}
				up.write(wire[:len(wire)/2])
				del(other, p.id)
				// Whoever gets the memory now must keep it to itself.
				var later []payload
				for i := range 6 {
					later = append(later, other.put(pattern(byte(100+i), 512<<10)))
				}
				up.write(wire[len(wire)/2:])
				up.recv() // a success or an error
				for i, q := range later {
					sameBytes(t, "a blob made meanwhile", other.bytes(q), pattern(byte(100+i), 512<<10))
				}
				up.close()
				waitStatus(t, d, "the upload's memory", func(s server.Status) bool {
					return s.Ledger.Blobs == len(later) && s.Ledger.Deferred == 0
				})
			})
		}
	}
}

// unpack reads one compressed blob of size bytes, chunk by chunk.
func (c *raw) unpack(size int) []byte {
	c.t.Helper()
	dec, err := zstd.NewReader(&chunks{c: c}, zstd.WithDecoderConcurrency(1))
	if err != nil {
		c.t.Fatal(err)
	}
	defer dec.Close()
	b := make([]byte, size)
	if _, err := io.ReadFull(dec, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// chunks reads the chunks of a compressed payload, each only when it is needed.
type chunks struct {
	c    *raw
	rest []byte
}

func (r *chunks) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		n := binary.LittleEndian.Uint64(r.c.read(8))
		if n == 0 || n > 131591 {
			return 0, fmt.Errorf("a chunk of %d bytes", n)
		}
		r.rest = r.c.read(int(n))
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
