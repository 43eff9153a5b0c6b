package server

import (
	"context"
	"slices"

	"github.com/v6d-go/v6d/internal/meta"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

func init() {
	handle(protocol.CreateData, createData)
	handle(protocol.CreateDatas, createDatas)
	handleRaw(protocol.GetData, getData)
	handleRaw(protocol.ListData, listData)
	handle(protocol.DeleteData, deleteData)
	handle(protocol.DeleteFeedback, deleteFeedback)
	handle(protocol.Exists, exists)
	handle(protocol.Persist, persist)
	handle(protocol.IfPersist, ifPersist)
	handle(protocol.Label, label)
	handle(protocol.ShallowCopy, shallowCopy)
	handle(protocol.Clear, clearAll)
	handle(protocol.MemoryTrim, memoryTrim)
	handle(protocol.PutName, putName)
	handle(protocol.GetName, getName)
	handle(protocol.ListName, listName)
	handle(protocol.DropName, dropName)
}

func createData(_ context.Context, c *conn, q *protocol.CreateDataRequest, r *protocol.CreateDataReply) error {
	made, err := c.ss.tree.Create([]wirejson.Value{q.Content})
	if err != nil {
		return err
	}
	r.ID, r.Signature, r.InstanceID = made[0].ID, made[0].Signature, made[0].Instance
	return nil
}

func createDatas(_ context.Context, c *conn, q *protocol.CreateDatasRequest, r *protocol.CreateDatasReply) error {
	made, err := c.ss.tree.Create(q.Contents)
	if err != nil {
		return err
	}
	r.Num = uint64(len(made))
	for _, m := range made {
		r.IDs = append(r.IDs, m.ID)
		r.Signatures = append(r.Signatures, m.Signature)
		r.InstanceIDs = append(r.InstanceIDs, m.Instance)
	}
	return nil
}

// replyContent answers with {"type":"get_data_reply","content":…}, where fill
// appends the content straight into the frame: it can be many megabytes.
func (c *conn) replyContent(fill func([]byte) ([]byte, error)) error {
	c.begin()
	c.out = append(c.out, `{"type":"get_data_reply","content":`...)
	out, err := fill(c.out)
	if err != nil {
		return err
	}
	c.out = append(out, '}')
	c.flush()
	return nil
}

func getData(ctx context.Context, c *conn, q *protocol.GetDataRequest) error {
	if q.SyncRemote {
		if err := c.ss.tree.SyncFor(ctx, q.IDs); err != nil {
			return err
		}
	}
	fill := func(b []byte) (out []byte, err error) {
		if !q.Wait {
			return c.ss.tree.AppendObjects(ctx, b, q.IDs, false)
		}
		err = c.park(ctx, func(ctx context.Context) error {
			out, err = c.ss.tree.AppendObjects(ctx, b, q.IDs, true)
			return err
		})
		return out, err
	}
	return c.replyContent(fill)
}

func listData(_ context.Context, c *conn, q *protocol.ListRequest) error {
	return c.replyContent(func(b []byte) ([]byte, error) {
		return c.ss.tree.AppendList(b, q.Pattern, q.Regex, q.Limit), nil
	})
}

// deleteIDs deletes as a request asks and returns the blobs that went.
func (c *conn) deleteIDs(ctx context.Context, q *protocol.DeleteRequest) ([]object.ID, error) {
	free := func(blobs []object.ID) { c.ss.blobs.DropAll(c.holder, blobs) }
	blobs := q.IDs
	if q.Fastpath {
		for _, id := range q.IDs {
			if !id.IsBlob() {
				return nil, status.Errorf(status.AssertionFailed, "fastpath deletes blobs only, %s is none", id)
			}
		}
		for _, id := range q.IDs {
			if c.ss.blobs.Exists(id) {
				if err := c.ss.blobs.Drop(c.holder, id); err != nil {
					return nil, err
				}
			}
		}
	} else {
		var err error
		blobs, err = c.ss.tree.Delete(ctx, q.IDs, meta.DeleteOptions{Force: q.Force, Deep: q.Deep}, free)
		if err != nil {
			return nil, err
		}
		c.ss.dropStreams(q.IDs)
	}
	if q.MemoryTrim {
		if _, err := c.srv.store.Trim(); err != nil {
			c.srv.log.Warn("trim", "err", err)
		}
	}
	return blobs, nil
}

func deleteData(ctx context.Context, c *conn, q *protocol.DeleteRequest, _ *protocol.None) error {
	_, err := c.deleteIDs(ctx, q)
	return err
}

func deleteFeedback(ctx context.Context, c *conn, q *protocol.DeleteRequest, r *protocol.DeleteFeedbackReply) (err error) {
	r.Deleted, err = c.deleteIDs(ctx, q)
	return err
}

func exists(ctx context.Context, c *conn, q *protocol.IDRequest, r *protocol.ExistsReply) error {
	if err := c.ss.tree.SyncFor(ctx, []object.ID{q.ID}); err != nil {
		return err
	}
	r.Exists = c.ss.tree.Exists(q.ID)
	return nil
}

func persist(ctx context.Context, c *conn, q *protocol.IDRequest, _ *protocol.None) error {
	return c.ss.tree.Persist(ctx, q.ID)
}

func ifPersist(_ context.Context, c *conn, q *protocol.IDRequest, r *protocol.IfPersistReply) (err error) {
	r.Persist, err = c.ss.tree.IsPersistent(q.ID)
	return err
}

func label(ctx context.Context, c *conn, q *protocol.LabelRequest, _ *protocol.None) error {
	return c.ss.tree.Label(ctx, q.ID, q.Keys, q.Values)
}

func shallowCopy(ctx context.Context, c *conn, q *protocol.ShallowCopyRequest, r *protocol.ShallowCopyReply) (err error) {
	r.Target, err = c.ss.tree.ShallowCopy(ctx, q.ID, q.Extra)
	return err
}

// clearAll deletes every object and blob of the session and gives the memory
// back before it answers.
func clearAll(ctx context.Context, c *conn, _ *protocol.None, _ *protocol.None) error {
	ids := slices.Concat(c.ss.tree.AllIDs(), c.ss.blobs.AllIDs())
	_, err := c.deleteIDs(ctx, &protocol.DeleteRequest{IDs: ids, Force: true, Deep: true, MemoryTrim: true})
	return err
}

func memoryTrim(_ context.Context, c *conn, _ *protocol.None, _ *protocol.TrimReply) error {
	_, err := c.srv.store.Trim()
	return err
}

func putName(ctx context.Context, c *conn, q *protocol.PutNameRequest, _ *protocol.None) error {
	return c.ss.tree.PutName(ctx, q.ObjectID, q.Name)
}

func getName(ctx context.Context, c *conn, q *protocol.GetNameRequest, r *protocol.GetNameReply) (err error) {
	if err := c.ss.tree.Sync(ctx); err != nil {
		return err
	}
	if !q.Wait {
		r.ObjectID, err = c.ss.tree.GetName(ctx, q.Name, false)
		return err
	}
	return c.park(ctx, func(ctx context.Context) error {
		r.ObjectID, err = c.ss.tree.GetName(ctx, q.Name, true)
		return err
	})
}

func listName(ctx context.Context, c *conn, q *protocol.ListRequest, r *protocol.ListNameReply) error {
	if err := c.ss.tree.Sync(ctx); err != nil {
		return err
	}
	r.Names = c.ss.tree.ListNames(q.Pattern, q.Regex, q.Limit)
	r.Size = uint64(len(r.Names))
	return nil
}

func dropName(ctx context.Context, c *conn, q *protocol.DropNameRequest, _ *protocol.None) error {
	return c.ss.tree.DropName(ctx, q.Name)
}
