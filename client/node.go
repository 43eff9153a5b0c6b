package client

import (
	"context"
	"encoding/json"
	"iter"
	"slices"
	"time"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// InstanceStatus is what every daemon tells of its memory and connections.
type InstanceStatus struct {
	InstanceID     uint64 `json:"instance_id"`
	Deployment     string `json:"deployment"`
	MemoryUsage    int64  `json:"memory_usage"` // bytes
	MemoryLimit    int64  `json:"memory_limit"` // bytes
	Deferred       int64  `json:"deferred_requests"`
	IPCConnections int64  `json:"ipc_connections"`
	RPCConnections int64  `json:"rpc_connections"`
}

// InstanceStatus asks for memory and connections.
func (c *Client) InstanceStatus(ctx context.Context) (st InstanceStatus, err error) {
	err = metaReply(ctx, c, protocol.InstanceStatus, &st)
	return st, err
}

// Instance describes a daemon of the cluster.
type Instance struct {
	HostID      uint64 `json:"hostid"`
	Hostname    string `json:"hostname"`
	Nodename    string `json:"nodename"`
	IPCSocket   string `json:"ipc_socket"`
	RPCEndpoint string `json:"rpc_endpoint"`
	Timestamp   int64  `json:"timestamp"` // unix seconds << 32 + microseconds
}

// Cluster lists the instances by "i" and their number.
func (c *Client) Cluster(ctx context.Context) (instances map[string]Instance, err error) {
	err = metaReply(ctx, c, protocol.ClusterMeta, &instances)
	return instances, err
}

func metaReply(ctx context.Context, c *Client, d *protocol.Def[protocol.None, protocol.MetaReply], into any) error {
	var r protocol.MetaReply
	var bad error
	err := call(ctx, c, d, &protocol.None{}, &r, func() error {
		bad = json.Unmarshal(r.Meta, into)
		return nil
	})
	if err == nil && bad != nil {
		err = status.Errorf(status.IOError, "the daemon's answer: %w", bad)
	}
	return err
}

// NodeStatus returns what a v6d daemon tells of itself, as JSON (see
// docs/json-output.md). Other daemons fail with NotImplemented.
func (c *Client) NodeStatus(ctx context.Context) (json.RawMessage, error) {
	if err := c.needsV6D("the full status"); err != nil {
		return nil, err
	}
	var r protocol.NodeStatusReply
	var out json.RawMessage
	err := call(ctx, c, protocol.NodeStatus, &protocol.None{}, &r, func() error {
		out = json.RawMessage(r.Status.Clone())
		return nil
	})
	return out, err
}

// PageOptions select what Rows lists.
type PageOptions struct {
	Type   string   // glob on the typename; "" for all
	Name   string   // glob on the names; "" for all objects, named or not
	Fields []string // plain fields to return in Row.Fields
	Size   int      // objects in one request; 0 for the daemon's choice
}

// Row is one object of a listing.
type Row struct {
	ID        ID                `json:"id"`
	Type      string            `json:"typename"`
	Instance  uint64            `json:"instance_id"`
	Signature uint64            `json:"signature"`
	Transient bool              `json:"transient"`
	Global    bool              `json:"global"`
	TimeMS    int64             `json:"timestamp"` // unix milliseconds
	Bytes     int64             `json:"bytes"`     // of the distinct local blobs below
	Members   int               `json:"members"`   // distinct ones directly below
	Owned     bool              `json:"owned"`     // another object refers to it
	Names     []string          `json:"names"`
	Labels    map[string]string `json:"labels"`

	Fields map[string]json.RawMessage `json:"-"` // those of PageOptions.Fields that it has
}

// rowKeys are the keys of Row: a daemon that is asked for plain fields returns
// them only if they are asked for, too.
var rowKeys = []string{
	"typename", "instance_id", "signature", "transient", "global", "timestamp", "bytes", "members", "owned", "names", "labels",
}

// parseRows reads a page. A plain field may be called as one of Row's keys; it
// comes second then.
func parseRows(items wirejson.Value, fields []string) ([]Row, error) {
	var rows []Row
	for item := range items.Elements() {
		r := Row{Fields: map[string]json.RawMessage{}}
		usual := []byte("{")
		seen := map[string]bool{}
		for k, v := range item.Members() {
			key := string(k)
			switch {
			case !seen[key] && (key == "id" || slices.Contains(rowKeys, key)):
				if len(usual) > 1 {
					usual = append(usual, ',')
				}
				usual = append(wirejson.AppendKey(usual, key), v...)
			case slices.Contains(fields, key):
				r.Fields[key] = json.RawMessage(v.Clone())
			}
			seen[key] = true
		}
		if err := json.Unmarshal(append(usual, '}'), &r); err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// Rows yields all objects that match, in id order, a page at a time: listing
// costs what it returns, however many objects there are. It needs a v6d daemon.
func (c *Client) Rows(ctx context.Context, o PageOptions) iter.Seq2[Row, error] {
	q := protocol.PageRequest{Pattern: o.Type, Name: o.Name, Limit: uint64(max(o.Size, 0))}
	if len(o.Fields) > 0 {
		q.Fields = slices.Concat(rowKeys, o.Fields)
	}
	return pages(ctx, c, "paged listing", q, func(items wirejson.Value) (rows []Row, err error) {
		if len(o.Fields) > 0 {
			return parseRows(items, o.Fields)
		}
		err = json.Unmarshal(items, &rows)
		return rows, err
	})
}

// RowsOf returns the rows of those objects that exist, in id order. It needs a v6d
// daemon.
func (c *Client) RowsOf(ctx context.Context, ids []ID) (rows []Row, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	for r, err := range pages(ctx, c, "paged listing", protocol.PageRequest{IDs: ids}, func(items wirejson.Value) (rows []Row, err error) {
		err = json.Unmarshal(items, &rows)
		return rows, err
	}) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// IDs yields the ids of all objects that match, in id order: Rows without the
// rows. It needs a v6d daemon.
func (c *Client) IDs(ctx context.Context, o PageOptions) iter.Seq2[ID, error] {
	q := protocol.PageRequest{Pattern: o.Type, Name: o.Name, Limit: uint64(max(o.Size, 0)), Fields: []string{"id"}}
	return pages(ctx, c, "paged listing", q, func(items wirejson.Value) (ids []ID, err error) {
		for item := range items.Elements() {
			text, err := item.Get("id").Text()
			if err != nil {
				return nil, err
			}
			id, err := ParseID(text)
			if err != nil {
				return nil, err
			}
			ids = append(ids, id)
		}
		return ids, nil
	})
}

// BlobRow is one blob of a listing.
type BlobRow struct {
	ID      ID        `json:"id"`
	Size    int64     `json:"size"`
	Sealed  bool      `json:"sealed"`
	Deleted bool      `json:"deleted"` // deleted, but a reader still holds it
	Refs    int       `json:"refs"`    // connections that hold a reference
	PID     int       `json:"pid"`     // of the creator; 0 for remote ones
	UID     int       `json:"uid"`
	Created time.Time `json:"created"`
	Where   string    `json:"where"`  // pool, generation, disk, arena or cache
	Chunk   bool      `json:"chunk"`  // belongs to a stream
	Owners  []ID      `json:"owners"` // objects that have it as a member, or the stream it lies in
}

// BlobRows yields all blobs, sealed or not, deleted but held ones included. It
// needs a v6d daemon.
func (c *Client) BlobRows(ctx context.Context) iter.Seq2[BlobRow, error] {
	return pages(ctx, c, "listing blobs", protocol.PageRequest{Blobs: true, Limit: 10_000}, func(items wirejson.Value) (rows []BlobRow, err error) {
		err = json.Unmarshal(items, &rows)
		return rows, err
	})
}

// pages yields the items of all pages of a listing; what names it in the error
// of a daemon that cannot do it.
func pages[T any](ctx context.Context, c *Client, what string, q protocol.PageRequest, parse func(wirejson.Value) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		if err := c.needsV6D(what); err != nil {
			yield(none, err)
			return
		}
		for q := q; ; { // a copy: the sequence can be walked again
			var r protocol.PageReply
			var list []T
			var bad error
			err := call(ctx, c, protocol.Page, &q, &r, func() error {
				list, bad = parse(r.Items)
				return nil
			})
			if err == nil && bad != nil {
				err = status.Errorf(status.IOError, "the daemon's list: %w", bad)
			}
			if err != nil {
				yield(none, err)
				return
			}
			for _, item := range list {
				if !yield(item, nil) {
					return
				}
			}
			if q.Cursor = r.Cursor; q.Cursor == "" {
				return
			}
		}
	}
}

// NewSession makes an isolated session and returns its socket: dial that to use
// it. plasma makes it one where clients choose the ids of blobs.
func (c *Client) NewSession(ctx context.Context, plasma bool) (socket string, err error) {
	q := protocol.NewSessionRequest{StoreType: protocol.StoreDefault}
	if plasma {
		q.StoreType = protocol.StorePlasma
	}
	var r protocol.NewSessionReply
	err = call(ctx, c, protocol.NewSession, &q, &r, nil)
	return r.SocketPath, err
}

// DeleteSession ends the session of this connection and hangs up; its blobs go
// with its last connection.
func (c *Client) DeleteSession(ctx context.Context) error {
	if err := do(ctx, c, protocol.DeleteSession, protocol.None{}); err != nil {
		return err
	}
	return c.Close()
}

// TakeBlobs takes sealed blobs over from another session under the same ids,
// without copying. Both sessions can then map the whole file that they lie in.
func (c *Client) TakeBlobs(ctx context.Context, from SessionID, ids []ID) error {
	q := protocol.MoveRequest{SessionID: from, IDToID: protocol.Moves{Set: true}}
	for _, id := range ids {
		q.IDToID.Pairs = append(q.IDToID.Pairs, protocol.Move{From: decimal(id), To: decimal(id)})
	}
	return do(ctx, c, protocol.MoveBuffers, q)
}

// Lock takes a named lock, waiting for it, and returns the function that gives
// it back. It is given back as well when the connection ends.
func (c *Client) Lock(ctx context.Context, key string) (unlock func(context.Context) error, err error) {
	var r protocol.AcquireLockReply
	if err := call(ctx, c, protocol.AcquireLock, &protocol.LockRequest{Key: key}, &r, nil); err != nil {
		return nil, err
	}
	if !r.Result {
		return nil, status.Errorf(status.EtcdError, "lock %q could not be taken", key)
	}
	return func(ctx context.Context) error {
		return call(ctx, c, protocol.ReleaseLock, &protocol.LockRequest{Key: r.Key}, &protocol.ReleaseLockReply{}, nil)
	}, nil
}
