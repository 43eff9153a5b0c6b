package server

import (
	"context"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/store"
)

func init() {
	handle(protocol.CreateStream, func(_ context.Context, c *conn, q *protocol.ObjectIDRequest, _ *protocol.None) error {
		if err := c.local(false); err != nil {
			return err
		}
		return c.ss.streams.Create(q.ObjectID)
	})
	handle(protocol.OpenStream, func(_ context.Context, c *conn, q *protocol.OpenStreamRequest, _ *protocol.None) error {
		return c.ss.streams.Open(q.ObjectID, q.Mode)
	})
	handle(protocol.NextChunk, nextChunk)
	handle(protocol.PushChunk, func(_ context.Context, c *conn, q *protocol.PushChunkRequest, _ *protocol.None) error {
		return c.ss.streams.Push(q.ID, q.Chunk)
	})
	handle(protocol.PullChunk, func(ctx context.Context, c *conn, q *protocol.IDRequest, r *protocol.PullChunkReply) error {
		return c.park(ctx, func(ctx context.Context) (err error) {
			r.Chunk, err = c.ss.streams.Pull(ctx, c.holder, q.ID)
			return err
		})
	})
	handle(protocol.StopStream, func(_ context.Context, c *conn, q *protocol.StopStreamRequest, _ *protocol.None) error {
		return c.ss.streams.Stop(q.ID, q.Failed)
	})
	handle(protocol.DropStream, func(_ context.Context, c *conn, q *protocol.IDRequest, _ *protocol.None) error {
		return c.ss.streams.Drop(q.ID)
	})
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
