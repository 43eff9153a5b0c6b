package typed

import (
	"context"
	"errors"
	"slices"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

// Object is a value and the memory that it lies in.
type Object struct {
	Meta  *client.Meta
	Value any // what the resolver of the typename returned
	held  []*client.Blob
}

// Release gives the memory back. The value must not be used any more.
func (o *Object) Release(ctx context.Context) error {
	var errs []error
	for _, b := range o.held {
		errs = append(errs, b.Release(ctx))
	}
	o.held = nil
	return errors.Join(errs...)
}

// Reader resolves the members of one object.
type Reader struct {
	reg   *Registry
	blobs map[blobAt]*client.Blob
	here  client.InstanceID
	far   bool // members on other instances are fetched
	depth int
}

// blobAt names a blob: ids are unique on an instance only.
type blobAt struct {
	instance client.InstanceID
	id       client.ID
}

// maxDepth bounds how deep objects may be nested.
const maxDepth = 200

// Get returns an object with its value, over the memory of its blobs where the
// client is local, and a copy of it where it is not. Members on other instances
// are [*Absent], unless [client.Fetch] brings them.
func Get(ctx context.Context, c *client.Client, id client.ID, options ...client.GetOption) (*Object, error) {
	return GetWith(ctx, c, nil, id, options...)
}

// GetWith is Get with a registry, nil for the default one.
func GetWith(ctx context.Context, c *client.Client, reg *Registry, id client.ID, options ...client.GetOption) (*Object, error) {
	if id.IsBlob() {
		b, err := c.GetBlob(ctx, id)
		if err != nil {
			return nil, err
		}
		return &Object{Meta: client.BlobMember(id), Value: b.Bytes(), held: []*client.Blob{b}}, nil
	}
	m, err := c.GetObject(ctx, id)
	if err != nil {
		return nil, err
	}
	return Load(ctx, c, reg, m, options...)
}

// Load resolves an object of which the metadata is known already. A member of an
// object can be loaded by itself: only its blobs are got.
func Load(ctx context.Context, c *client.Client, reg *Registry, m *client.Meta, options ...client.GetOption) (o *Object, err error) {
	if reg == nil {
		reg = Default
	}
	r := &Reader{reg: reg, blobs: map[blobAt]*client.Blob{}, here: c.Info().InstanceID, far: slices.Contains(options, client.Fetch)}
	o = &Object{Meta: m}
	for instance, ids := range r.wanted(m) {
		blobs, err := r.get(ctx, c, instance, ids)
		if err != nil {
			return nil, errors.Join(err, o.Release(context.WithoutCancel(ctx)))
		}
		for i, b := range blobs {
			r.blobs[blobAt{instance, ids[i]}] = b
		}
		o.held = append(o.held, blobs...)
	}
	if o.Value, err = r.Resolve(m); err != nil {
		return nil, errors.Join(err, o.Release(context.WithoutCancel(ctx)))
	}
	return o, nil
}

// get gets blobs from where they lie.
func (r *Reader) get(ctx context.Context, c *client.Client, instance client.InstanceID, ids []client.ID) ([]*client.Blob, error) {
	switch {
	case instance == r.here:
		return c.GetBlobs(ctx, ids)
	case c.Info().Local && c.Info().Extended:
		return c.FetchBlobs(ctx, instance, ids)
	}
	peer, err := c.DialInstance(ctx, instance)
	if err != nil {
		return nil, err
	}
	blobs, err := peer.GetBlobs(ctx, ids) // copies
	return blobs, errors.Join(err, peer.Close())
}

// wanted lists the blobs that are to be got, by instance, of those types that use
// them.
func (r *Reader) wanted(m *client.Meta) map[client.InstanceID][]client.ID {
	ids := map[client.InstanceID][]client.ID{}
	seen := map[blobAt]bool{}
	var walk func(m *client.Meta)
	walk = func(m *client.Meta) {
		if m.IsBlob() {
			at := blobAt{m.InstanceID, m.ID}
			if !seen[at] && (r.far || m.InstanceID == r.here) && m.ID != client.EmptyBlob {
				seen[at] = true
				ids[m.InstanceID] = append(ids[m.InstanceID], m.ID)
			}
			return
		}
		if t, ok := r.reg.Lookup(m.Typename); !ok || t.Resolve == nil {
			return
		}
		for _, member := range m.Members {
			walk(member)
		}
	}
	walk(m)
	return ids
}

// Resolve returns the value of an object: what the resolver of its type makes of
// it, or [*Opaque].
func (r *Reader) Resolve(m *client.Meta) (any, error) {
	if m.IsBlob() {
		return r.Blob(m)
	}
	if !m.Global && m.InstanceID != r.here && !r.far {
		return &Absent{ID: m.ID, Typename: m.Typename, Instance: m.InstanceID}, nil
	}
	t, ok := r.reg.Lookup(m.Typename)
	if !ok || t.Resolve == nil {
		return &Opaque{Meta: m, Known: ok, Note: t.Note}, nil
	}
	if r.depth++; r.depth > maxDepth {
		return nil, damaged(m, "it is nested more than %d deep", maxDepth)
	}
	defer func() { r.depth-- }()
	return t.Resolve(r, m)
}

// Member returns the value of a member.
func (r *Reader) Member(m *client.Meta, key string) (any, error) {
	member := m.Member(key)
	if member == nil {
		return nil, damaged(m, "it has no member %s", key)
	}
	return r.Resolve(member)
}

// Blob returns the bytes of a blob that is a member.
func (r *Reader) Blob(m *client.Meta) ([]byte, error) {
	if m.ID == client.EmptyBlob {
		return nil, nil
	}
	b := r.blobs[blobAt{m.InstanceID, m.ID}]
	if b == nil {
		return nil, status.Errorf(status.ObjectNotExists, "blob %s lies on instance %d, not here", m.ID, m.InstanceID)
	}
	return b.Bytes(), nil
}

// blob returns the bytes of a member that has to be a blob.
func (r *Reader) blob(m *client.Meta, key string) ([]byte, error) {
	member := m.Member(key)
	if member == nil || !member.IsBlob() {
		return nil, damaged(m, "it has no blob %s", key)
	}
	return r.Blob(member)
}

// Absent is a member of a global object that lies on another instance.
type Absent struct {
	ID       client.ID
	Typename string
	Instance client.InstanceID
}

// Opaque is an object that has no value in Go.
type Opaque struct {
	Meta  *client.Meta
	Known bool   // the type is one of Vineyard's
	Note  string // why it has no value
}

// damaged is the error of an object whose fields do not fit each other.
func damaged(m *client.Meta, format string, args ...any) error {
	err := status.Errorf(status.MetaTreeTypeInvalid, format, args...)
	return status.Errorf(status.MetaTreeTypeInvalid, "%s %s cannot be read: %w", m.Typename, m.ID, err)
}

// need returns an error unless a blob has n bytes.
func need(m *client.Meta, key string, b []byte, n int64) error {
	if n < 0 || int64(len(b)) < n {
		return damaged(m, "%s has %d bytes, %d are needed", key, len(b), n)
	}
	return nil
}

// count returns a field that is a number of things, at most 2^40.
func count(m *client.Meta, key string) (int, error) {
	n, ok := m.Int(key)
	if !ok || n < 0 || n > 1<<40 {
		return 0, damaged(m, "%s is %s, not a count", key, m.Raw(key))
	}
	return int(n), nil
}

// list returns the members key-0 to key-(n-1), where n is in the field key-size
// or, in objects of other makers, sizeKey.
func list(m *client.Meta, key string, sizeKeys ...string) ([]*client.Meta, error) {
	n := -1
	for _, k := range append([]string{key + "-size"}, sizeKeys...) {
		if m.Raw(k) != nil {
			var err error
			if n, err = count(m, k); err != nil {
				return nil, err
			}
			break
		}
	}
	var members []*client.Meta
	byKey := map[string]*client.Meta{}
	for k, member := range m.Members {
		byKey[k] = member
	}
	for i := 0; n < 0 || i < n; i++ {
		member := byKey[key+"-"+itoa(i)]
		if member == nil {
			if n < 0 {
				break
			}
			return nil, damaged(m, "it has no member %s-%d of %d", key, i, n)
		}
		members = append(members, member)
	}
	return members, nil
}
