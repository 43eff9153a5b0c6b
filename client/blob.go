package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
	"github.com/v6d-go/v6d/internal/wirejson"
	"github.com/v6d-go/v6d/internal/zstream"
)

// file is a pool file of the daemon, mapped at most twice: read-only for blobs,
// read-write for builders. The mappings last as long as the connection: a fresh
// one for each blob would pay its page faults again.
type file struct {
	f      *os.File
	size   int
	ro, rw []byte
}

func (f *file) mapped(writable bool) (_ []byte, err error) {
	m := &f.ro
	if writable {
		m = &f.rw
	}
	if *m == nil {
		*m, err = sys.Map(f.f, f.size, writable)
	}
	return *m, err
}

func (f *file) close() error {
	var errs []error
	for _, m := range [][]byte{f.ro, f.rw} {
		if m != nil {
			errs = append(errs, sys.Unmap(m))
		}
	}
	return errors.Join(append(errs, f.f.Close())...)
}

// receive takes the descriptor of a payload's file if the daemon sent one: it
// does so the first time that a connection meets a file. Called with mu held.
func (c *Client) receive(p *protocol.Payload) error {
	if !c.pc.IsUnix() || p.DataSize == 0 || c.files[p.StoreFD] != nil {
		return nil
	}
	f, err := c.pc.RecvFD()
	if err != nil {
		return err
	}
	// 0.24 announces 8 bytes more than the file has.
	c.files[p.StoreFD] = &file{f: f, size: int(p.MapSize - 8)}
	if p.MapSize-8 < p.DataOffset+p.DataSize { // a reference daemon's disk blob
		c.files[p.StoreFD].size = int(p.MapSize)
	}
	return nil
}

// slice returns the bytes of a payload in its mapping. Called with mu held.
func (c *Client) slice(p *protocol.Payload, writable bool) ([]byte, error) {
	if p.DataSize == 0 {
		return []byte{}, nil
	}
	f := c.files[p.StoreFD]
	if f == nil {
		return nil, status.Errorf(status.IOError, "no descriptor came for mapping %d", p.StoreFD)
	}
	m, err := f.mapped(writable)
	if err != nil {
		return nil, status.Errorf(status.IOError, "map the pool: %w", err)
	}
	lo, hi := p.DataOffset, p.DataOffset+p.DataSize
	if lo < 0 || hi < lo || hi > int64(len(m)) {
		return nil, status.Errorf(status.IOError, "blob %s at [%d,%d) lies outside of the mapping of %d bytes", p.ObjectID, lo, hi, len(m))
	}
	return m[lo:hi:hi], nil
}

// writable returns the memory of a new blob. Called with mu held.
func (c *Client) writable(p *protocol.Payload) ([]byte, error) {
	if err := c.receive(p); err != nil {
		return nil, err
	}
	b, err := c.slice(p, true)
	if err != nil || !c.opts.Strict || len(b) == 0 {
		return b, err
	}
	// Where an earlier blob was protected, this one must be written.
	if err := sys.Protect(pagesAround(c.files[p.StoreFD].rw, p.DataOffset, p.DataSize), true); err != nil {
		return nil, status.Errorf(status.IOError, "unprotect the memory of a blob: %w", err)
	}
	return b, nil
}

// Builder is a blob that is being written.
type Builder struct {
	c      *Client
	id     ID
	b      []byte
	remote bool
	done   bool
}

// CreateBlob makes an unsealed blob of size bytes. Its memory is not zeroed.
// The daemon frees it when the connection ends before Seal.
func (c *Client) CreateBlob(ctx context.Context, size int) (*Builder, error) {
	if size < 0 {
		return nil, status.Errorf(status.Invalid, "a blob of %d bytes", size)
	}
	if !c.info.Local {
		return &Builder{c: c, b: make([]byte, size), remote: true}, nil
	}
	var r protocol.CreateBufferReply
	var b []byte
	err := call(ctx, c, protocol.CreateBuffer, &protocol.SizeRequest{Size: uint64(size)}, &r, func() (err error) {
		b, err = c.writable(&r.Created)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Builder{c: c, id: r.ID, b: b}, nil
}

// ID returns the blob's id. Over TCP it is known after Seal.
func (b *Builder) ID() ID { return b.id }

// Bytes returns the memory to fill; over IPC it is the pool's own. It ends with
// Seal, Abort, or the Client's Close.
func (b *Builder) Bytes() []byte { return b.b }

// Seal makes the blob immutable and returns its id. The builder's slice must
// not be touched any more.
func (b *Builder) Seal(ctx context.Context) (ID, error) {
	if b.done {
		return b.id, status.Errorf(status.ObjectSealed, "the builder of blob %s is finished", b.id)
	}
	if b.remote {
		id, err := b.c.putRemote(ctx, b.b)
		if err == nil {
			b.id, b.done, b.b = id, true, nil
		}
		return id, err
	}
	if err := do(ctx, b.c, protocol.Seal, protocol.ObjectIDRequest{ObjectID: b.id}); err != nil {
		return b.id, err
	}
	if pages := pagesInside(b.b); b.c.opts.Strict && len(pages) > 0 {
		if err := sys.Protect(pages, false); err != nil {
			return b.id, err
		}
	}
	b.done, b.b = true, nil
	return b.id, nil
}

// Shrink shortens the blob to n bytes before it is sealed. Bytes returns the
// shorter slice from then on.
func (b *Builder) Shrink(ctx context.Context, n int) error {
	if b.done {
		return status.Errorf(status.ObjectSealed, "the builder of blob %s is finished", b.id)
	}
	if n < 0 || n > len(b.b) {
		return status.Errorf(status.Invalid, "shrink a blob of %d bytes to %d", len(b.b), n)
	}
	if !b.remote && n < len(b.b) {
		if err := do(ctx, b.c, protocol.ShrinkBuffer, protocol.ShrinkRequest{ID: b.id, Size: uint64(n)}); err != nil {
			return err
		}
	}
	b.b = b.b[:n:n]
	return nil
}

// Abort gives the blob up. After Seal it does nothing, so that it can be
// deferred.
func (b *Builder) Abort(ctx context.Context) error {
	if b.done {
		return nil
	}
	b.done, b.b = true, nil
	if b.remote {
		return nil
	}
	return do(ctx, b.c, protocol.DropBuffer, protocol.IDRequest{ID: b.id})
}

// Blob is a sealed blob that this client holds a reference to.
type Blob struct {
	c  *Client
	id ID
	b  []byte
}

// ID returns the blob's id.
func (b *Blob) ID() ID { return b.id }

// Bytes returns the blob's bytes: over IPC the pool's own memory, which faults
// when written; over TCP a copy. They end with Release, or with the Client's
// Close.
func (b *Blob) Bytes() []byte { return b.b }

// Release gives the reference back. The slice must not be used any more.
// Releasing again does nothing.
//
// The daemon counts one reference a connection: if a blob is got twice through
// one Client, the first Release ends both.
func (b *Blob) Release(ctx context.Context) error {
	released := b.b == nil
	b.b = nil
	if released || !b.c.info.Local || b.id == EmptyBlob {
		return nil
	}
	return do(ctx, b.c, protocol.Release, protocol.ReleaseRequest{ObjectID: b.id})
}

// GetBlob takes a reference to a sealed blob.
func (c *Client) GetBlob(ctx context.Context, id ID) (*Blob, error) {
	list, err := c.GetBlobs(ctx, []ID{id})
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// GetBlobs takes references to sealed blobs, in the order asked. It fails with
// NotExist if one of them is unknown; the references to the others then last as
// long as the connection.
func (c *Client) GetBlobs(ctx context.Context, ids []ID) ([]*Blob, error) {
	var blobs []*Blob
	var r protocol.GetBuffersReply
	var err error
	if c.info.Local {
		err = call(ctx, c, protocol.GetBuffers, &protocol.GetBuffersRequest{IDs: ids}, &r, func() (err error) {
			blobs, err = c.mapBlobs(r.Payloads)
			return err
		})
	} else {
		q := protocol.GetRemoteRequest{IDs: ids, Compress: c.zstd}
		err = call(ctx, c, protocol.GetRemote, &q, &r, func() error {
			src, end, err := c.payloadReader(r.Compress)
			if err != nil {
				return err
			}
			defer end.Close()
			blobs, err = c.eachBlob(r.Payloads, func(p *protocol.Payload) ([]byte, error) { return readBlob(src, p) })
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	if len(blobs) < len(ids) {
		got := map[ID]bool{}
		for _, b := range blobs {
			got[b.id] = true
		}
		for _, id := range ids {
			if !got[id] {
				return nil, status.Errorf(status.ObjectNotExists, "no blob %s", id)
			}
		}
	}
	return blobs, nil
}

// mapBlobs returns the blobs of a reply in their mappings. Called with mu held.
func (c *Client) mapBlobs(list protocol.Payloads) ([]*Blob, error) {
	for i := range list { // all descriptors first: they follow the reply
		if err := c.receive(&list[i]); err != nil {
			return nil, err
		}
	}
	return c.eachBlob(list, func(p *protocol.Payload) ([]byte, error) { return c.slice(p, false) })
}

func (c *Client) eachBlob(list protocol.Payloads, get func(*protocol.Payload) ([]byte, error)) ([]*Blob, error) {
	blobs := make([]*Blob, len(list))
	for i := range list {
		b, err := get(&list[i])
		if err != nil {
			return nil, err
		}
		blobs[i] = &Blob{c: c, id: list[i].ObjectID, b: b}
	}
	return blobs, nil
}

type nopCloser struct{}

func (nopCloser) Close() {}

// payloadReader reads the bytes that follow a reply.
func (c *Client) payloadReader(compressed bool) (io.Reader, interface{ Close() }, error) {
	if !compressed {
		return c.pc, nopCloser{}, nil
	}
	r, err := zstream.NewReader(c.pc)
	return r, r, err
}

// readBlob reads one blob's bytes. The memory grows as they come: a peer that
// lies about a size cannot make us allocate it.
func readBlob(src io.Reader, p *protocol.Payload) ([]byte, error) {
	if p.DataSize < 0 {
		return nil, fmt.Errorf("blob %s claims %d bytes", p.ObjectID, p.DataSize)
	}
	const trusted = 64 << 20
	if p.DataSize <= trusted {
		b := make([]byte, p.DataSize)
		_, err := io.ReadFull(src, b)
		return b, endOfBlob(src, err)
	}
	b := make([]byte, 0, trusted)
	for int64(len(b)) < p.DataSize {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(int64(cap(b))*2, p.DataSize)), b...)
		}
		n, err := src.Read(b[len(b):min(int64(cap(b)), p.DataSize)])
		b = b[:len(b)+n]
		if err != nil && int64(len(b)) < p.DataSize {
			return nil, err
		}
	}
	return b, endOfBlob(src, nil)
}

func endOfBlob(src io.Reader, err error) error {
	if z, ok := src.(*zstream.Reader); ok && err == nil {
		return z.EndBlob()
	}
	return err
}

// putRemote stores bytes as a sealed blob over TCP. The daemon answers twice:
// when the bytes may come, and when they are stored.
func (c *Client) putRemote(ctx context.Context, b []byte) (ID, error) {
	q := protocol.CreateRemoteRequest{Size: uint64(len(b)), Compress: c.zstd}
	var r protocol.CreateBufferReply
	err := call(ctx, c, protocol.CreateRemote, &q, &r, func() error {
		if err := c.sendPayload(b); err != nil {
			return err
		}
		frame, err := c.pc.ReadFrame()
		if err != nil {
			return err
		}
		members, err := wirejson.ParseObject(frame, nil)
		if err != nil {
			return err
		}
		return protocol.CreateRemote.DecodeReply(members, &r)
	})
	return r.ID, err
}

func (c *Client) sendPayload(b []byte) error {
	if !c.zstd || len(b) == 0 {
		_, err := c.pc.Write(b)
		return err
	}
	shrinks, err := zstream.Shrinks(int64(len(b)), func(p []byte, off int64) error { copy(p, b[off:]); return nil })
	if err != nil {
		return err
	}
	w, err := zstream.NewWriter(c.pc.Conn, shrinks)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.EndBlob()
}

// PutBlob stores a copy of b as a sealed blob.
func (c *Client) PutBlob(ctx context.Context, b []byte) (ID, error) {
	if !c.info.Local {
		return c.putRemote(ctx, b)
	}
	w, err := c.CreateBlob(ctx, len(b))
	if err != nil {
		return 0, err
	}
	copy(w.Bytes(), b)
	id, err := w.Seal(ctx)
	if err != nil {
		return 0, errors.Join(err, w.Abort(ctx))
	}
	return id, nil
}

// DropBlob deletes a blob, whatever refers to it. Readers that hold it keep
// right bytes; it can no longer be got.
func (c *Client) DropBlob(ctx context.Context, id ID) error {
	return do(ctx, c, protocol.DropBuffer, protocol.IDRequest{ID: id})
}
