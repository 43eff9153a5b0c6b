package server

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/store"
	"github.com/v6d-go/v6d/internal/stream"
)

func init() {
	handle(protocol.CreateStream, func(_ context.Context, c *conn, q *protocol.ObjectIDRequest, _ *protocol.None) error {
		if err := c.local(false); err != nil {
			return err
		}
		return c.ss.streams.Create(q.ObjectID)
	})
	handle(protocol.OpenStream, func(_ context.Context, c *conn, q *protocol.OpenStreamRequest, _ *protocol.None) error {
		return c.ss.streams.Open(c.holder, q.ObjectID, q.Mode)
	})
	handle(protocol.NextChunk, nextChunk)
	handle(protocol.PushChunk, func(_ context.Context, c *conn, q *protocol.PushChunkRequest, _ *protocol.None) error {
		return c.ss.streams.Push(c.holder, q.ID, q.Chunk)
	})
	handle(protocol.PullChunk, func(ctx context.Context, c *conn, q *protocol.IDRequest, r *protocol.PullChunkReply) error {
		return c.park(ctx, func(ctx context.Context) (err error) {
			r.Chunk, err = c.ss.streams.Pull(ctx, c.holder, q.ID)
			return err
		})
	})
	handle(protocol.StopStream, func(_ context.Context, c *conn, q *protocol.StopStreamRequest, _ *protocol.None) error {
		return c.ss.streams.Stop(q.ID, q.Failed, "")
	})
	handle(protocol.DropStream, func(_ context.Context, c *conn, q *protocol.IDRequest, _ *protocol.None) error {
		return c.ss.streams.Drop(q.ID)
	})

	handle(protocol.CreateShared, func(_ context.Context, c *conn, q *protocol.CreateSharedRequest, _ *protocol.None) error {
		return c.ss.streams.CreateShared(q.ID, stream.Retain{
			All: q.RetainAll, Bytes: int64(min(q.RetainBytes, 1<<62)), Age: time.Duration(min(q.RetainMS, 1<<40)) * time.Millisecond,
		})
	})
	handle(protocol.OpenEnd, func(_ context.Context, c *conn, q *protocol.OpenEndRequest, r *protocol.OpenEndReply) (err error) {
		if q.Write {
			r.Shared, err = c.ss.streams.OpenWriter(c.holder, q.ID)
			return err
		}
		r.At, r.Shared, err = c.ss.streams.OpenReader(c.holder, q.ID, q.Reader, q.Newest)
		return err
	})
	handle(protocol.WriteChunk, writeChunk)
	handle(protocol.ReadChunks, readChunks)
	handle(protocol.EndStream, func(_ context.Context, c *conn, q *protocol.EndStreamRequest, _ *protocol.None) error {
		return c.ss.streams.Stop(q.ID, q.Failed, q.Reason)
	})
	handle(protocol.ForgetReader, func(_ context.Context, c *conn, q *protocol.ForgetReaderRequest, _ *protocol.None) error {
		if !q.Close {
			return c.ss.streams.Forget(q.ID, q.Reader)
		}
		c.giveBack(cursor{q.ID, q.Reader}, math.MaxUint64)
		return c.ss.streams.CloseReader(c.holder, q.ID, q.Reader)
	})
	handle(protocol.Streams, func(_ context.Context, c *conn, _ *protocol.None, r *protocol.StreamsReply) (err error) {
		r.Streams, err = json.Marshal(c.ss.streams.List())
		return err
	})
}

func writeChunk(ctx context.Context, c *conn, q *protocol.WriteChunkRequest, r *protocol.NextChunkReply) error {
	size, err := byteSize(q.Size)
	if err != nil {
		return err
	}
	if !c.pc.IsUnix() { // nobody could fill it: it comes as a blob
		return c.park(ctx, func(ctx context.Context) error { return c.ss.streams.Room(ctx, c.holder, q.ID, size) })
	}
	used, err := byteSize(q.Used)
	if err != nil {
		return err
	}
	var v store.View
	err = c.park(ctx, func(ctx context.Context) (err error) {
		v, err = c.ss.streams.Write(ctx, c.holder, q.ID, q.Done, used, size)
		return err
	})
	if err != nil {
		return err
	}
	r.Buffer, r.FD = c.payload(v)
	return nil
}

// cursor is a reader of a shared stream on a connection.
type cursor struct {
	stream object.ID
	reader string
}

// held is a chunk that a cursor was handed out and has not given back.
type held struct {
	number uint64
	id     object.ID
}

// giveBack releases what a cursor holds of the chunks before a number, and returns
// what it still holds.
func (c *conn) giveBack(key cursor, done uint64) []held {
	left := c.reading[key][:0]
	for _, h := range c.reading[key] {
		if h.number >= done {
			left = append(left, h)
		} else if err := c.ss.blobs.Release(c.holder, h.id); err != nil {
			c.srv.log.Debug("a reader's chunk is gone", "id", h.id, "err", err)
		}
	}
	if len(left) > 0 {
		c.reading[key] = left
	} else {
		delete(c.reading, key)
	}
	return left
}

// maxRead bounds the chunks of one reply.
const maxRead = 1024

func readChunks(ctx context.Context, c *conn, q *protocol.ReadChunksRequest, r *protocol.ReadChunksReply) error {
	key := cursor{q.ID, q.Reader}
	left := c.giveBack(key, q.Done)
	err := c.park(ctx, func(ctx context.Context) (err error) {
		r.First, r.IDs, err = c.ss.streams.Read(ctx, c.holder, q.ID, q.Reader, q.Done, int(min(q.Limit, maxRead)))
		return err
	})
	if err != nil || !c.pc.IsUnix() {
		return err
	}
	var blobs []object.ID
	for i, id := range r.IDs {
		if id.IsBlob() {
			blobs, left = append(blobs, id), append(left, held{r.First + uint64(i), id})
		}
	}
	views, err := c.ss.blobs.Get(c.views[:0], c.holder, blobs, false)
	if err != nil {
		c.ss.streams.Undo(c.holder, q.ID, q.Reader, r.First)
		return err
	}
	if c.reading == nil {
		c.reading = map[cursor][]held{}
	}
	c.reading[key] = left
	r.Payloads, r.FDs = c.payloads(nil, nil, views)
	c.views = views[:0]
	return nil
}

func nextChunk(ctx context.Context, c *conn, q *protocol.NextChunkRequest, r *protocol.NextChunkReply) error {
	size, err := byteSize(q.Size)
	if err != nil {
		return err
	}
	var v store.View
	err = c.park(ctx, func(ctx context.Context) (err error) {
		v, err = c.ss.streams.Next(ctx, c.holder, q.ID, size)
		return err
	})
	if err != nil {
		return err
	}
	r.Buffer, r.FD = c.payload(v)
	return nil
}
