package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"slices"
	"time"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
)

// The types of streams. Chunks of a ByteStream are blobs of bytes; of the others
// each is a whole Arrow IPC stream with one record batch, or (RecordBatchStream) a
// RecordBatch object.
const (
	ByteStream        = "vineyard::ByteStream"
	RecordBatchStream = "vineyard::RecordBatchStream"
	DataframeStream   = "vineyard::DataframeStream"
)

// StreamOptions describe a new stream.
type StreamOptions struct {
	Typename string            // ByteStream by default
	Params   map[string]string // of the metadata, for readers
	Retain   Retain
	// Plain makes a stream as 0.24 clients do: it has one reader, and ends with the
	// connection of that reader. A daemon of the reference knows no others.
	Plain bool
}

// Retain says what a stream keeps of what its readers have finished with, and for
// readers that do not exist yet. The zero value keeps what nobody has read: with no
// reader, the writer waits when the pool's stream threshold is reached.
type Retain struct {
	All   bool
	Bytes int64         // the newest chunks, up to so many bytes
	Age   time.Duration // what was written in that time, to the millisecond
}

// NewStream makes a stream: its metadata, and the queue on this daemon. Persist and
// PutName make it known by a name.
func (c *Client) NewStream(ctx context.Context, o StreamOptions) (ID, error) {
	if o.Typename == "" {
		o.Typename = ByteStream
	}
	if !o.Plain {
		if err := c.needsV6D("a stream with several readers"); err != nil {
			return 0, err
		}
	}
	if o.Params == nil {
		o.Params = map[string]string{}
	}
	m := NewMeta(o.Typename).Set("params_", o.Params).Set("nbytes", 0)
	id, err := c.CreateObject(ctx, m)
	if err != nil {
		return 0, err
	}
	if o.Plain {
		err = c.CreateStream(ctx, id)
	} else {
		err = do(ctx, c, protocol.CreateShared, protocol.CreateSharedRequest{
			ID: id, RetainAll: o.Retain.All, RetainBytes: uint64(max(0, o.Retain.Bytes)), RetainMS: uint64(max(0, o.Retain.Age.Milliseconds())),
		})
	}
	if err != nil {
		return 0, errors.Join(err, c.Delete(context.WithoutCancel(ctx), []ID{id}, DeleteOptions{}))
	}
	return id, nil
}

// openEnd opens an end of a stream. A daemon without extensions has plain streams
// only.
func (c *Client) openEnd(ctx context.Context, q protocol.OpenEndRequest) (protocol.OpenEndReply, error) {
	var r protocol.OpenEndReply
	if !c.info.Extended {
		if q.Reader != "" || q.Newest {
			return r, c.needsV6D("a reader with a name")
		}
		return r, c.OpenStream(ctx, q.ID, q.Write)
	}
	err := call(ctx, c, protocol.OpenEnd, &q, &r, nil)
	return r, err
}

// StreamWriter is the writing end of a stream. It is not safe for concurrent use.
//
// When its Client is closed before Close, the stream has failed, unless it is a
// plain one: then its reader waits on.
type StreamWriter struct {
	c      *Client
	id     ID
	shared bool
	chunk  ID     // that b is, over IPC; 0 for none
	b      []byte // being filled
	used   int    // bytes of b that count
	ended  bool
}

// OpenWriter claims the writing end of a stream. It fails with StreamOpened when
// somebody has it.
func (c *Client) OpenWriter(ctx context.Context, id ID) (*StreamWriter, error) {
	r, err := c.openEnd(ctx, protocol.OpenEndRequest{ID: id, Write: true})
	if err != nil {
		return nil, err
	}
	return &StreamWriter{c: c, id: id, shared: r.Shared}, nil
}

// Plain reports whether the stream is one of a 0.24 client, or of such a daemon.
func (w *StreamWriter) Plain() bool { return !w.shared }

// Next queues the chunk before, if there is one, and returns the memory of the
// next, size bytes (at least one), which are not zeroed. It waits while the pool is
// short of memory. Over IPC the slice is the pool's own; it ends with the next call.
func (w *StreamWriter) Next(ctx context.Context, size int) ([]byte, error) {
	if size < 1 {
		return nil, status.Errorf(status.Invalid, "a chunk of %d bytes", size)
	}
	if err := w.exchange(ctx, size); err != nil {
		return nil, err
	}
	return w.b, nil
}

// Shorten makes only the first n bytes of the chunk count.
func (w *StreamWriter) Shorten(n int) { w.used = min(max(n, 0), len(w.b)) }

// Flush queues the chunk before now, without another one. In a plain stream it is
// queued by the next Next, or by Close.
func (w *StreamWriter) Flush(ctx context.Context) error {
	if !w.shared && w.c.info.Local {
		return nil
	}
	return w.exchange(ctx, 0)
}

// exchange queues the chunk before and gets the next one; size is 0 for none.
func (w *StreamWriter) exchange(ctx context.Context, size int) error {
	done, b, used := w.chunk, w.b, w.used
	if b != nil && used == 0 && w.shared && w.c.info.Local {
		if err := w.c.DropBlob(ctx, done); err != nil {
			return err
		}
		done = 0
	}
	w.chunk, w.b, w.used = 0, nil, 0
	switch {
	case w.ended:
		return status.Errorf(status.InvalidStreamState, "the writer of stream %s is closed", w.id)
	case !w.c.info.Local:
		if used > 0 {
			if err := w.Put(ctx, b[:used]); err != nil {
				return err
			}
		}
		if size > 0 {
			w.b, w.used = make([]byte, size), size
		}
		return nil
	case !w.shared:
		if used < len(b) {
			if err := do(ctx, w.c, protocol.ShrinkBuffer, protocol.ShrinkRequest{ID: done, Size: uint64(used)}); err != nil {
				return err
			}
		}
		if size == 0 {
			return nil
		}
		var r protocol.NextChunkReply
		return w.receive(size, call(ctx, w.c, protocol.NextChunk, &protocol.NextChunkRequest{ID: w.id, Size: uint64(size)}, &r, w.mapped(&r)))
	}
	if done == 0 && size == 0 {
		return nil
	}
	var r protocol.NextChunkReply
	q := protocol.WriteChunkRequest{ID: w.id, Done: done, Used: uint64(used), Size: uint64(size)}
	return w.receive(size, call(ctx, w.c, protocol.WriteChunk, &q, &r, w.mapped(&r)))
}

// mapped takes the memory of a reply.
func (w *StreamWriter) mapped(r *protocol.NextChunkReply) func() error {
	return func() (err error) {
		if r.Buffer.DataSize > 0 {
			w.chunk = r.Buffer.ObjectID
			w.b, err = w.c.writable(&r.Buffer)
		}
		return err
	}
}

func (w *StreamWriter) receive(size int, err error) error {
	if err != nil {
		w.chunk, w.b = 0, nil
		return err
	}
	w.used = size
	return nil
}

// Put queues a chunk with a copy of b, behind what Next returned before. It waits as
// Next does.
func (w *StreamWriter) Put(ctx context.Context, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if !w.c.info.Local {
		if w.shared { // wait for room: an upload is refused when there is none
			q := protocol.WriteChunkRequest{ID: w.id, Size: uint64(len(b))}
			if err := call(ctx, w.c, protocol.WriteChunk, &q, &protocol.NextChunkReply{}, nil); err != nil {
				return err
			}
		}
		id, err := w.c.PutBlob(ctx, b)
		if err != nil {
			return err
		}
		if err := w.c.PushChunk(ctx, w.id, id); err != nil {
			return errors.Join(err, w.c.DropBlob(context.WithoutCancel(ctx), id))
		}
		return nil
	}
	chunk, err := w.Next(ctx, len(b))
	if err != nil {
		return err
	}
	copy(chunk, b)
	return w.Flush(ctx)
}

// Push queues an object or blob that exists. Readers delete it when they have read
// it.
func (w *StreamWriter) Push(ctx context.Context, chunk ID) error {
	if err := w.Flush(ctx); err != nil {
		return err
	}
	return w.c.PushChunk(ctx, w.id, chunk)
}

// Close queues the last chunk and ends the stream: readers get what is queued, then
// the end. Closing again does nothing.
func (w *StreamWriter) Close(ctx context.Context) error {
	if w.ended {
		return nil
	}
	if err := w.exchange(ctx, 0); err != nil {
		return err
	}
	w.ended = true
	return w.c.StopStream(ctx, w.id, false)
}

// Abort ends the stream in failure: readers get what is queued, then an error with
// the reason. After Close it does nothing, so that it can be deferred.
func (w *StreamWriter) Abort(ctx context.Context, reason string) error {
	if w.ended {
		return nil
	}
	w.ended, w.chunk, w.b = true, 0, nil
	return w.c.AbortStream(ctx, w.id, reason)
}

// AbortStream ends a stream in failure, whoever writes it.
func (c *Client) AbortStream(ctx context.Context, id ID, reason string) error {
	if !c.info.Extended {
		return c.StopStream(ctx, id, true)
	}
	return do(ctx, c, protocol.EndStream, protocol.EndStreamRequest{ID: id, Failed: true, Reason: reason})
}

// ForgetReader removes a reader with a name, which must not be connected: what only
// it has not read is freed.
func (c *Client) ForgetReader(ctx context.Context, id ID, name string) error {
	if err := c.needsV6D("a reader with a name"); err != nil {
		return err
	}
	return do(ctx, c, protocol.ForgetReader, protocol.ForgetReaderRequest{ID: id, Reader: name})
}

// Streams returns the streams of this session as JSON; docs/json-output.md has the
// fields.
func (c *Client) Streams(ctx context.Context) ([]byte, error) {
	if err := c.needsV6D("listing streams"); err != nil {
		return nil, err
	}
	var r protocol.StreamsReply
	err := call(ctx, c, protocol.Streams, &protocol.None{}, &r, nil)
	return slices.Clone(r.Streams), err
}

// ReaderOptions say how a stream is read.
type ReaderOptions struct {
	// Name of the cursor. One with a name outlives its connection: the next reader
	// of that name goes on behind the last chunk that was given back. Without a name
	// the cursor ends with the connection.
	Name string
	// Newest makes a new cursor begin behind the newest chunk, not at the oldest.
	Newest bool
	// Ahead is how many chunks may be handed out at once, up to 4 MiB; 16 by default.
	// They are given back together: where it matters that little is read twice after
	// a crash, use 1.
	Ahead int
}

// Chunk is a part of a stream.
type Chunk struct {
	Number uint64 // of the chunk in its stream, from 0 on; in a plain one, as this reader counts
	ID     ID     // of the blob, or of the object
	Bytes  []byte // of a blob: over IPC the pool's own memory, until the next call; nil for an object
}

// StreamReader is a reading end of a stream. It is not safe for concurrent use.
type StreamReader struct {
	c      *Client
	id     ID
	o      ReaderOptions
	shared bool
	got    []Chunk // handed out, not yet returned
	done   uint64  // the chunk after the last one that was returned and is finished
	next   uint64
	blob   *Blob // of a plain stream: the chunk that was returned
	start  uint64
	err    error // how it ended
}

// OpenReader opens a stream for reading. It fails with StreamOpened when the reader
// of that name, or of a plain stream, is connected already.
func (c *Client) OpenReader(ctx context.Context, id ID, o ReaderOptions) (*StreamReader, error) {
	if o.Ahead < 1 {
		o.Ahead = 16
	}
	r, err := c.openEnd(ctx, protocol.OpenEndRequest{ID: id, Reader: o.Name, Newest: o.Newest})
	if err != nil {
		return nil, err
	}
	return &StreamReader{c: c, id: id, o: o, shared: r.Shared, done: r.At, next: r.At, start: r.At}, nil
}

// Next gives the chunk before back and returns the next one, waiting for it. At the
// end of the stream it fails with io.EOF, when the producer failed with
// StreamFailed and the producer's reason. After an error it fails for good.
func (r *StreamReader) Next(ctx context.Context) (Chunk, error) {
	if r.err != nil {
		return Chunk{}, r.err
	}
	ch, err := r.read(ctx)
	if errors.Is(err, status.StreamDrained) {
		err = io.EOF
	}
	if err != nil {
		r.err = err // going on would leave something out
	}
	return ch, err
}

// Start returns the number of the chunk with which this reader began: those before
// it were read by others and not retained, or by an earlier reader of this name.
func (r *StreamReader) Start() uint64 { return r.start }

// Close ends the reading: a cursor without a name goes, so that nothing is kept for
// it any more, one with a name goes on behind the last chunk that was given back.
// Chunks must no longer be used. Of a plain stream the end of the Client is needed.
func (r *StreamReader) Close(ctx context.Context) error {
	if !r.shared || errors.Is(r.err, net.ErrClosed) {
		return nil
	}
	r.err, r.got = net.ErrClosed, nil
	return do(ctx, r.c, protocol.ForgetReader, protocol.ForgetReaderRequest{ID: r.id, Reader: r.o.Name, Close: true})
}

func (r *StreamReader) read(ctx context.Context) (Chunk, error) {
	if !r.shared {
		return r.pull(ctx)
	}
	r.done = r.next
	if len(r.got) == 0 {
		if err := r.fetch(ctx, r.o.Ahead); err != nil {
			return Chunk{}, err
		}
	}
	ch := r.got[0]
	r.got, r.next = r.got[1:], ch.Number+1
	return ch, nil
}

// fetch gives back what is finished and gets the next chunks.
func (r *StreamReader) fetch(ctx context.Context, limit int) error {
	c := r.c
	q := protocol.ReadChunksRequest{ID: r.id, Reader: r.o.Name, Done: r.done, Limit: uint64(limit)}
	var p protocol.ReadChunksReply
	bytes := map[ID][]byte{}
	err := call(ctx, c, protocol.ReadChunks, &q, &p, func() error {
		for i := range p.Payloads { // all descriptors first: they follow the reply
			if err := c.receive(&p.Payloads[i]); err != nil {
				return err
			}
		}
		for i := range p.Payloads {
			b, err := c.slice(&p.Payloads[i], false)
			if err != nil {
				return err
			}
			bytes[p.Payloads[i].ObjectID] = b
		}
		return nil
	})
	if err != nil || limit == 0 {
		return err
	}
	if !c.info.Local {
		var ids []ID
		for _, id := range p.IDs {
			if id.IsBlob() {
				ids = append(ids, id)
			}
		}
		blobs, err := c.GetBlobs(ctx, ids)
		if err != nil {
			return err
		}
		for _, b := range blobs {
			bytes[b.id] = b.b
		}
	}
	for i, id := range p.IDs {
		b, ok := bytes[id]
		if !ok && id.IsBlob() {
			return status.Errorf(status.StreamFailed, "chunk %d of stream %s was deleted before it was read", p.First+uint64(i), r.id)
		}
		r.got = append(r.got, Chunk{Number: p.First + uint64(i), ID: id, Bytes: b})
	}
	return nil
}

// pull reads from a plain stream.
func (r *StreamReader) pull(ctx context.Context) (Chunk, error) {
	if r.blob != nil {
		if err := r.blob.Release(ctx); err != nil {
			return Chunk{}, err
		}
		r.blob = nil
	}
	id, err := r.c.PullChunk(ctx, r.id)
	if err != nil {
		return Chunk{}, err
	}
	ch := Chunk{Number: r.next, ID: id}
	r.next++
	if id.IsBlob() {
		if r.blob, err = r.c.GetBlob(ctx, id); err != nil {
			return Chunk{}, err
		}
		ch.Bytes = r.blob.Bytes()
	}
	return ch, nil
}

// All returns the chunks up to the end of the stream. The end is no error; any other
// error is the last thing that it yields. A chunk's bytes end with the next one.
func (r *StreamReader) All(ctx context.Context) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		for {
			ch, err := r.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(ch, err) || err != nil {
				return
			}
		}
	}
}

// Done gives back the chunk that Next returned last, too, so that the next reader of
// this name goes on behind it. In a plain stream the next Next does that.
func (r *StreamReader) Done(ctx context.Context) error {
	if !r.shared || r.done == r.next {
		return nil
	}
	r.done = r.next
	return r.fetch(ctx, 0)
}
