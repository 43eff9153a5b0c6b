package client

import (
	"context"
	"fmt"
	"slices"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// CreateObject files an object; its members must exist. It fills in the
// metadata's ID, Signature and InstanceID.
func (c *Client) CreateObject(ctx context.Context, m *Meta) (ID, error) {
	var r protocol.CreateDataReply
	q := protocol.CreateDataRequest{Content: m.append(nil, c.info.InstanceID)}
	if err := call(ctx, c, protocol.CreateData, &q, &r, nil); err != nil {
		return 0, err
	}
	m.ID, m.Signature, m.InstanceID = r.ID, r.Signature, r.InstanceID
	return r.ID, nil
}

// CreateObjects files several objects, all or none.
func (c *Client) CreateObjects(ctx context.Context, list []*Meta) ([]ID, error) {
	q := protocol.CreateDatasRequest{Contents: make([]wirejson.Value, len(list))}
	for i, m := range list {
		q.Contents[i] = m.append(nil, c.info.InstanceID)
	}
	var r protocol.CreateDatasReply
	if err := call(ctx, c, protocol.CreateDatas, &q, &r, nil); err != nil {
		return nil, err
	}
	if len(r.IDs) != len(list) || len(r.Signatures) != len(list) || len(r.InstanceIDs) != len(list) {
		return nil, status.Errorf(status.AssertionFailed, "%d objects were asked for, %d answered", len(list), len(r.IDs))
	}
	for i, m := range list {
		m.ID, m.Signature, m.InstanceID = r.IDs[i], r.Signatures[i], r.InstanceIDs[i]
	}
	return r.IDs, nil
}

// GetOptions are options of GetObjects.
type GetOptions struct {
	Wait bool // wait until all objects exist
	Sync bool // catch up with the other instances first
}

// GetObject returns an object's tree, or NotExist.
func (c *Client) GetObject(ctx context.Context, id ID) (*Meta, error) {
	list, err := c.GetObjects(ctx, []ID{id}, GetOptions{Sync: true})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, status.Errorf(status.ObjectNotExists, "no object %s", id)
	}
	return list[0], nil
}

// GetObjects returns the trees of those objects that exist, in the order asked.
func (c *Client) GetObjects(ctx context.Context, ids []ID, o GetOptions) ([]*Meta, error) {
	q := protocol.GetDataRequest{IDs: ids, SyncRemote: o.Sync, Wait: o.Wait}
	byID, err := getContent(ctx, c, protocol.GetData, &q)
	if err != nil {
		return nil, err
	}
	var out []*Meta
	for _, id := range ids {
		if m := byID[id]; m != nil {
			out = append(out, m)
		}
	}
	return out, nil
}

// getContent asks for trees and parses them before the reply's buffer is used
// again.
func getContent[Q any](ctx context.Context, c *Client, d *protocol.Def[Q, protocol.GetDataReply], q *Q) (map[ID]*Meta, error) {
	out := map[ID]*Meta{}
	var r protocol.GetDataReply
	var bad error
	err := call(ctx, c, d, q, &r, func() error {
		for k, v := range r.Content.Members() {
			m, err := parseMeta(v)
			if err != nil {
				bad = status.Errorf(status.MetaTreeTypeInvalid, "object %s: %w", k, err)
				return nil
			}
			out[m.ID] = m
		}
		return nil
	})
	if err == nil {
		err = bad
	}
	return out, err
}

// ListObjects returns at most limit objects, in id order, whose typename
// matches a glob, or as a whole a regular expression; sealed blobs follow if the
// pattern, as a glob, matches BlobType. Rows is better for many.
func (c *Client) ListObjects(ctx context.Context, pattern string, regex bool, limit int) ([]*Meta, error) {
	byID, err := getContent(ctx, c, protocol.ListData, &protocol.ListRequest{Pattern: pattern, Regex: regex, Limit: uint64(max(limit, 0))})
	if err != nil {
		return nil, err
	}
	out := make([]*Meta, 0, len(byID))
	for _, m := range byID {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *Meta) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out, nil
}

// Exists reports whether a blob or object is known, sealed or not.
func (c *Client) Exists(ctx context.Context, id ID) (bool, error) {
	var r protocol.ExistsReply
	err := call(ctx, c, protocol.Exists, &protocol.IDRequest{ID: id}, &r, nil)
	return r.Exists, err
}

// DeleteOptions are options of Delete.
type DeleteOptions struct {
	Force    bool // delete what refers to the objects, too
	Shallow  bool // keep members that are objects
	GiveBack bool // return the freed pages to the system
}

// Delete deletes objects, their blobs and, unless Shallow, members that nothing
// else refers to. What others still refer to is kept silently without Force;
// unknown ids are ignored.
func (c *Client) Delete(ctx context.Context, ids []ID, o DeleteOptions) error {
	return do(ctx, c, protocol.DeleteData, protocol.DeleteRequest{IDs: ids, Force: o.Force, Deep: !o.Shallow, MemoryTrim: o.GiveBack})
}

// Persist makes an object and its members visible to the cluster.
func (c *Client) Persist(ctx context.Context, id ID) error {
	return do(ctx, c, protocol.Persist, protocol.IDRequest{ID: id})
}

// IsPersistent reports whether an object is visible to the cluster.
func (c *Client) IsPersistent(ctx context.Context, id ID) (bool, error) {
	var r protocol.IfPersistReply
	err := call(ctx, c, protocol.IfPersist, &protocol.IDRequest{ID: id}, &r, nil)
	return r.Persist, err
}

// Label merges labels into an object's.
func (c *Client) Label(ctx context.Context, id ID, labels map[string]string) error {
	q := protocol.LabelRequest{ID: id, Keys: []string{}, Values: []string{}}
	for k, v := range labels {
		q.Keys = append(q.Keys, k)
		q.Values = append(q.Values, v)
	}
	return do(ctx, c, protocol.Label, q)
}

// ShallowCopy makes a new object over the same members, with plain fields of
// extra added or changed.
func (c *Client) ShallowCopy(ctx context.Context, id ID, extra map[string]any) (ID, error) {
	m := &Meta{}
	for k, v := range extra {
		m.Set(k, v)
	}
	b := []byte{'{'}
	for i := range m.fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(wirejson.AppendKey(b, m.fields[i].key), m.fields[i].value...)
	}
	var r protocol.ShallowCopyReply
	err := call(ctx, c, protocol.ShallowCopy, &protocol.ShallowCopyRequest{ID: id, Extra: append(b, '}')}, &r, nil)
	return r.Target, err
}

// PutName points a name at a persistent object, wherever it pointed before.
func (c *Client) PutName(ctx context.Context, id ID, name string) error {
	return do(ctx, c, protocol.PutName, protocol.PutNameRequest{ObjectID: id, Name: name})
}

// GetName resolves a name; with wait it waits until somebody puts it.
func (c *Client) GetName(ctx context.Context, name string, wait bool) (ID, error) {
	var r protocol.GetNameReply
	err := call(ctx, c, protocol.GetName, &protocol.GetNameRequest{Name: name, Wait: wait}, &r, nil)
	return r.ObjectID, err
}

// ListNames returns at most limit names that match a glob.
func (c *Client) ListNames(ctx context.Context, glob string, limit int) (map[string]ID, error) {
	var r protocol.ListNameReply
	err := call(ctx, c, protocol.ListName, &protocol.ListRequest{Pattern: glob, Limit: uint64(max(limit, 0))}, &r, nil)
	return r.Names, err
}

// DropName forgets a name; an unknown one is no error.
func (c *Client) DropName(ctx context.Context, name string) error {
	return do(ctx, c, protocol.DropName, protocol.DropNameRequest{Name: name})
}

// Clear deletes every object and blob of the session.
func (c *Client) Clear(ctx context.Context) error { return do(ctx, c, protocol.Clear, protocol.None{}) }

// GiveBack returns free memory of the pool to the system.
func (c *Client) GiveBack(ctx context.Context) error {
	return call(ctx, c, protocol.MemoryTrim, &protocol.None{}, &protocol.TrimReply{}, nil)
}

// needsV6D refuses an extension on a daemon that lacks it.
func (c *Client) needsV6D(what string) error {
	if c.info.Extended {
		return nil
	}
	return (&Error{Code: status.NotImplemented, Msg: fmt.Sprintf("%s needs a v6d daemon; this one speaks plain %s", what, c.info.Version)}).
		WithHint("start the daemon with `v6d serve`")
}
