package typed

import (
	"context"
	"errors"
	"slices"

	"github.com/v6d-go/v6d/client"
)

// Writer makes an object: blobs of the buffers, then objects of metadata. It
// remembers what it made, so that a failure leaves nothing behind. A Writer
// serves one goroutine, for one object.
type Writer struct {
	c    *client.Client
	reg  *Registry
	pool *Pool // where buffers may lie already; may be nil

	blobs   []client.ID // sealed here
	objects []client.ID // filed here, members first
}

// NewWriter returns a writer of objects. Buffers that were allocated from pool,
// which may be nil, are not copied; reg is nil for the default registry.
func NewWriter(c *client.Client, reg *Registry, pool *Pool) *Writer {
	if reg == nil {
		reg = Default
	}
	return &Writer{c: c, reg: reg, pool: pool}
}

// Blob returns a member that holds b: the blob that b lies in, if it was
// allocated from the writer's Pool, or a new one with a copy.
func (w *Writer) Blob(ctx context.Context, b []byte) (*client.Meta, error) {
	if len(b) == 0 {
		return client.BlobMember(client.EmptyBlob), nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	long, end := lasting(ctx)
	defer end()
	id, fresh, ok, err := w.pool.adopt(long, b)
	if err != nil {
		return nil, err
	}
	if !ok {
		return w.Fill(ctx, len(b), func(into []byte) error { copy(into, b); return nil })
	}
	if fresh {
		w.blobs = append(w.blobs, id)
	}
	return client.BlobMember(id), nil
}

// Fill returns a member with a new blob of n bytes that f writes.
func (w *Writer) Fill(ctx context.Context, n int, f func(into []byte) error) (*client.Meta, error) {
	if n == 0 {
		return client.BlobMember(client.EmptyBlob), nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	ctx, end := lasting(ctx)
	defer end()
	b, err := w.c.CreateBlob(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := f(b.Bytes()); err != nil {
		return nil, errors.Join(err, b.Abort(context.WithoutCancel(ctx)))
	}
	id, err := b.Seal(ctx)
	if err != nil {
		return nil, err
	}
	w.blobs = append(w.blobs, id)
	return client.BlobMember(id), nil
}

// Build returns the metadata of a value, of which nothing is filed yet, by the
// builder of its Go type.
func (w *Writer) Build(ctx context.Context, value any) (*client.Meta, error) {
	build, err := w.reg.builder(value)
	if err != nil {
		return nil, err
	}
	return build(ctx, w, value)
}

// batch is how many objects are filed with one request.
const batch = 256

// File files an object and those of its members that have no id, members first,
// and returns its id.
func (w *Writer) File(ctx context.Context, m *client.Meta) (client.ID, error) {
	var levels [][]*client.Meta // by the length of the longest way down
	seen := map[*client.Meta]int{}
	var height func(m *client.Meta) int
	height = func(m *client.Meta) int {
		if m.ID != 0 {
			return -1
		}
		if h, ok := seen[m]; ok {
			return h
		}
		h := 0
		for _, member := range m.Members {
			h = max(h, height(member)+1)
		}
		seen[m] = h
		for len(levels) <= h {
			levels = append(levels, nil)
		}
		levels[h] = append(levels[h], m)
		return h
	}
	height(m)
	long, end := lasting(ctx)
	defer end()
	for _, level := range levels {
		for some := range slices.Chunk(level, batch) {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			ids, err := w.c.CreateObjects(long, some)
			if err != nil {
				return 0, err
			}
			w.objects = append(w.objects, ids...)
		}
	}
	return m.ID, nil
}

// Undo deletes all that the writer made.
func (w *Writer) Undo(ctx context.Context) error {
	var errs []error
	slices.Reverse(w.objects)
	for ids := range slices.Chunk(w.objects, batch) {
		errs = append(errs, w.c.Delete(ctx, ids, client.DeleteOptions{Shallow: true}))
	}
	for _, id := range w.blobs {
		if err := w.c.DropBlob(ctx, id); err != nil && !errors.Is(err, client.NotExist) {
			errs = append(errs, err)
		}
	}
	w.objects, w.blobs = nil, nil
	return errors.Join(errs...)
}

// Put stores a value as an object and returns its id. A failure leaves nothing
// behind. The object is transient; [client.Client.Persist] shows it to others.
func Put(ctx context.Context, c *client.Client, value any) (client.ID, error) {
	return PutFrom(ctx, c, nil, nil, value)
}

// PutFrom is Put with a registry, nil for the default one, and the pool from
// which buffers of the value were allocated, which may be nil.
func PutFrom(ctx context.Context, c *client.Client, reg *Registry, pool *Pool, value any) (id client.ID, err error) {
	w := NewWriter(c, reg, pool)
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Undo(context.WithoutCancel(ctx)))
		}
	}()
	m, err := w.Build(ctx, value)
	if err != nil {
		return 0, err
	}
	return w.File(ctx, m)
}
