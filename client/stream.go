package client

import (
	"context"
	"strconv"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
)

func decimal(id ID) string { return strconv.FormatUint(uint64(id), 10) }

// CreateStream makes an object id a stream of chunks between one writer and one
// reader.
func (c *Client) CreateStream(ctx context.Context, id ID) error {
	return do(ctx, c, protocol.CreateStream, protocol.ObjectIDRequest{ObjectID: id})
}

// OpenStream claims the reading or the writing end of a stream; each can be
// claimed once.
func (c *Client) OpenStream(ctx context.Context, id ID, write bool) error {
	mode := int64(1)
	if write {
		mode = 2
	}
	return do(ctx, c, protocol.OpenStream, protocol.OpenStreamRequest{ObjectID: id, Mode: mode})
}

// NextChunk queues the chunk before and returns the memory of the next one. It
// waits while the pool is short of memory. The slice ends with the next call or
// StopStream. It needs IPC; over TCP, PutBlob and PushChunk do the same.
func (c *Client) NextChunk(ctx context.Context, id ID, size int) ([]byte, error) {
	switch {
	case size < 0:
		return nil, status.Errorf(status.Invalid, "a chunk of %d bytes", size)
	case !c.info.Local: // the daemon would make a chunk that nobody can fill
		return nil, status.Errorf(status.Invalid, "chunks cannot be filled over TCP: use PutBlob and PushChunk")
	}
	var r protocol.NextChunkReply
	var b []byte
	q := protocol.NextChunkRequest{ID: id, Size: uint64(size)}
	err := call(ctx, c, protocol.NextChunk, &q, &r, func() (err error) {
		b, err = c.writable(&r.Buffer)
		return err
	})
	return b, err
}

// PushChunk queues an object or blob as a chunk; the reader's next pull deletes
// it.
func (c *Client) PushChunk(ctx context.Context, id, chunk ID) error {
	return do(ctx, c, protocol.PushChunk, protocol.PushChunkRequest{ID: id, Chunk: chunk})
}

// PullChunk deletes the chunk pulled before and returns the id of the next,
// waiting for it. It fails with Drained at the end, with StreamFailed when the
// writer failed.
func (c *Client) PullChunk(ctx context.Context, id ID) (ID, error) {
	var r protocol.PullChunkReply
	err := call(ctx, c, protocol.PullChunk, &protocol.IDRequest{ID: id}, &r, nil)
	return r.Chunk, err
}

// StopStream ends a stream, in failure or not.
func (c *Client) StopStream(ctx context.Context, id ID, failed bool) error {
	return do(ctx, c, protocol.StopStream, protocol.StopStreamRequest{ID: id, Failed: failed})
}

// DropStream forgets a stream and frees its chunks.
func (c *Client) DropStream(ctx context.Context, id ID) error {
	return do(ctx, c, protocol.DropStream, protocol.IDRequest{ID: id})
}
