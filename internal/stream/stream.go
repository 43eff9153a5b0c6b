// Package stream holds the streams that 0.24 clients know: queues of chunks
// between one writer and one reader, in the memory of one daemon.
//
// A chunk is a blob (or an object) in the pool. The writer either asks for the
// next buffer, which queues the one before (Next), or queues something it made
// itself (Push). The reader pulls; a pull deletes the chunk that the pull before
// handed out. A writer waits while memory is short, a reader while the queue is
// empty. The states of a stream:
//
//	open     -> drained  by Stop(failed=false): the reader gets what is queued, then the end
//	open     -> failed   by Stop(failed=true): the reader gets what is queued, then the failure
//	any      -> dropped  by Drop, or when the reader's connection ends: chunks are freed
//
// At most one reader and one writer wait on a stream at a time.
package stream

import (
	"context"
	"sync"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
)

// Backing is what streams need of a session: memory for chunks, and a way to
// delete what was read.
type Backing interface {
	// Fits reports whether a chunk of size bytes stays below the threshold now.
	Fits(size int64) bool
	// Possible reports whether such a chunk fits below the threshold at all.
	Possible(size int64) bool
	// Freed returns a channel that is closed when memory becomes free next.
	Freed() <-chan struct{}
	// NewChunk makes an unsealed blob for a writer's connection.
	NewChunk(h *store.Holder, size int64) (store.View, error)
	// Seal makes a chunk immutable.
	Seal(id object.ID) error
	// Delete deletes a blob, or an object with its members, for a connection;
	// h may be nil.
	Delete(h *store.Holder, id object.ID)
	// Queued and Dequeued keep the journal informed.
	Queued(id object.ID) error
	Dequeued(id object.ID)
}

type state uint8

const (
	open state = iota
	drained
	failed
	dropped
)

func (s state) String() string { return [...]string{"open", "drained", "failed", "dropped"}[s] }

// Modes of Open.
const (
	Read  = 1
	Write = 2
)

// Table is the set of streams of one session. It is safe for concurrent use.
type Table struct {
	back Backing

	mu      sync.Mutex
	streams map[object.ID]*stream // guarded by mu, and all of the streams
}

type stream struct {
	id      object.ID
	state   state
	ready   []object.ID
	writing object.ID     // chunk that the writer is filling; 0 for none
	reading object.ID     // chunk that was handed out last; 0 for none
	by      *store.Holder // who got it
	mode    int64         // open mask
	reader  bool          // a pull is waiting
	writer  bool          // a Next is waiting
	changed chan struct{}
	readers map[*store.Holder]struct{} // connections that ever pulled
	pulled  uint64
	pushed  uint64
}

// NewTable returns an empty table.
func NewTable(back Backing) *Table {
	return &Table{back: back, streams: map[object.ID]*stream{}}
}

// notify wakes whoever waits on the stream. Called with mu held.
func (st *stream) notify() {
	close(st.changed)
	st.changed = make(chan struct{})
}

func unknown(id object.ID) error {
	return status.Errorf(status.ObjectNotExists, "no stream %s", id)
}

// Create makes id a stream. The object itself need not exist.
func (t *Table) Create(id object.ID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams[id] != nil {
		return status.Errorf(status.ObjectExists, "stream %s exists", id)
	}
	t.streams[id] = &stream{id: id, changed: make(chan struct{}), readers: map[*store.Holder]struct{}{}}
	return nil
}

// Open claims an end of the stream; an end can be claimed once.
func (t *Table) Open(id object.ID, mode int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	if st == nil {
		return unknown(id)
	}
	if st.mode&mode != 0 {
		return status.Errorf(status.StreamOpened, "stream %s is already open in that mode", id)
	}
	st.mode |= mode
	return nil
}

// writable checks that a writer may go on. Called with mu held.
func (st *stream) writable() error {
	switch {
	case st.state == dropped:
		return status.Errorf(status.StreamFailed, "stream %s was dropped", st.id)
	case st.state != open:
		return status.Errorf(status.InvalidStreamState, "stream %s is already stopped", st.id)
	}
	return nil
}

// queue appends a chunk for the reader. Called with mu held.
func (t *Table) queue(st *stream, id object.ID) error {
	if err := t.back.Queued(id); err != nil {
		return err
	}
	st.ready = append(st.ready, id)
	st.pushed++
	st.notify()
	return nil
}

// flush seals and queues the chunk being written. Called with mu held.
func (t *Table) flush(st *stream) error {
	if st.writing == 0 {
		return nil
	}
	if err := t.back.Seal(st.writing); err != nil {
		return err
	}
	// Until the journal has it, the chunk stays the one being written.
	if err := t.queue(st, st.writing); err != nil {
		return err
	}
	st.writing = 0
	return nil
}

// Next queues the chunk being written and returns a new one of size bytes. It
// waits while memory is above the threshold, until gone or ctx end.
func (t *Table) Next(ctx context.Context, h *store.Holder, id object.ID, size int64) (store.View, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	if st == nil {
		return store.View{}, unknown(id)
	}
	if err := st.writable(); err != nil {
		return store.View{}, err
	}
	if st.writer {
		return store.View{}, status.Errorf(status.InvalidStreamState, "another writer waits on stream %s", id)
	}
	if err := t.flush(st); err != nil {
		return store.View{}, err
	}
	if size < 0 || !t.back.Possible(size) {
		return store.View{}, status.Errorf(status.NotEnoughMemory, "a chunk of %d bytes is above the stream threshold of the pool", uint64(size))
	}
	st.writer = true
	defer func() { st.writer = false }()
	for {
		// Both channels are taken before the test, so that no change is missed.
		freed, changed := t.back.Freed(), st.changed
		if err := st.writable(); err != nil {
			return store.View{}, err
		}
		if t.back.Fits(size) {
			t.mu.Unlock()
			v, err := t.back.NewChunk(h, size)
			t.mu.Lock()
			if status.Of(err) == status.NotEnoughMemory && !t.back.Fits(size) {
				continue // others took the room meanwhile
			}
			if err != nil {
				return store.View{}, err
			}
			if err := st.writable(); err != nil {
				t.back.Delete(h, v.ID)
				return store.View{}, err
			}
			st.writing = v.ID
			return v, nil
		}
		t.mu.Unlock()
		select {
		case <-freed:
		case <-changed:
		case <-ctx.Done():
		}
		t.mu.Lock()
		if err := ctx.Err(); err != nil {
			return store.View{}, err
		}
	}
}

// Push queues an object or blob that the writer made itself. It is not checked.
func (t *Table) Push(id, chunk object.ID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	if st == nil {
		return unknown(id)
	}
	if err := st.writable(); err != nil {
		return err
	}
	if st.writer {
		return status.Errorf(status.InvalidStreamState, "another writer waits on stream %s", id)
	}
	return t.queue(st, chunk)
}

// Pull deletes the chunk that the last pull handed out and returns the next,
// waiting for it until gone or ctx end. At the end of the stream it fails with
// StreamDrained or StreamFailed.
func (t *Table) Pull(ctx context.Context, h *store.Holder, id object.ID) (object.ID, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	if st == nil {
		return 0, unknown(id)
	}
	if st.reader {
		return 0, status.Errorf(status.InvalidStreamState, "another reader waits on stream %s", id)
	}
	if h != nil {
		st.readers[h] = struct{}{}
	}
	st.reader = true
	defer func() { st.reader = false }()
	if last := st.reading; last != 0 {
		st.reading = 0
		t.mu.Unlock()
		t.back.Delete(h, last)
		t.mu.Lock()
	}
	for {
		switch {
		case st.state == dropped:
			return 0, status.Errorf(status.StreamFailed, "stream %s was dropped", id)
		case len(st.ready) > 0:
			chunk := st.ready[0]
			st.ready = st.ready[1:]
			st.reading, st.by = chunk, h
			st.pulled++
			return chunk, nil
		case st.state == drained:
			return 0, status.Errorf(status.StreamDrained, "stream %s has ended", id)
		case st.state == failed:
			return 0, status.Errorf(status.StreamFailed, "the producer of stream %s failed", id)
		}
		changed := st.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		t.mu.Lock()
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
}

// Stop ends the stream; the chunk being written is queued first.
func (t *Table) Stop(id object.ID, fail bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	switch {
	case st == nil:
		return unknown(id)
	case st.state != open:
		return status.Errorf(status.InvalidStreamState, "stream %s is already stopped", id)
	case st.writer:
		return status.Errorf(status.InvalidStreamState, "a writer still waits on stream %s", id)
	}
	if err := t.flush(st); err != nil {
		return err
	}
	st.state = drained
	if fail {
		st.state = failed
	}
	st.notify()
	return nil
}

// Drop forgets the stream: waiting readers and writers fail, queued chunks and
// the one being written are freed. The chunk being read stays.
func (t *Table) Drop(id object.ID) error {
	t.mu.Lock()
	st := t.streams[id]
	if st == nil {
		t.mu.Unlock()
		return unknown(id)
	}
	if st.reader && st.reading != 0 {
		t.mu.Unlock()
		return status.Errorf(status.InvalidStreamState, "a reader of stream %s is at work", id)
	}
	garbage := t.drop(st)
	t.mu.Unlock()
	t.free(garbage)
	return nil
}

// drop takes a stream out of the table and returns the chunks to free. Called
// with mu held.
func (t *Table) drop(st *stream) []object.ID {
	garbage := st.ready
	if st.writing != 0 {
		garbage = append(garbage, st.writing)
	}
	if st.reading != 0 {
		t.back.Dequeued(st.reading)
	}
	st.state, st.ready, st.writing = dropped, nil, 0
	delete(t.streams, st.id)
	st.notify()
	return garbage
}

func (t *Table) free(chunks []object.ID) {
	for _, id := range chunks {
		t.back.Delete(nil, id)
	}
}

// Close drops every stream that a connection pulled from.
func (t *Table) Close(h *store.Holder) {
	t.mu.Lock()
	var garbage []object.ID
	for _, st := range t.streams {
		if _, ok := st.readers[h]; ok {
			// Nobody pulls again, which would free it. Objects stay: somebody made
			// them, and can see and delete them.
			if st.reading.IsBlob() && st.by == h {
				garbage = append(garbage, st.reading)
			}
			garbage = append(garbage, t.drop(st)...)
		}
	}
	t.mu.Unlock()
	t.free(garbage)
}

// Info describes a stream for status.
type Info struct {
	ID     object.ID `json:"id"`
	State  string    `json:"state"`
	Ready  int       `json:"ready"` // chunks that wait for the reader
	Pushed uint64    `json:"pushed"`
	Pulled uint64    `json:"pulled"`
	Mode   int64     `json:"mode"`
	Waits  string    `json:"waits"` // reader, writer or ""
}

// List describes all streams.
func (t *Table) List() []Info {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Info, 0, len(t.streams))
	for _, st := range t.streams {
		in := Info{ID: st.id, State: st.state.String(), Ready: len(st.ready), Pushed: st.pushed, Pulled: st.pulled, Mode: st.mode}
		switch {
		case st.reader:
			in.Waits = "reader"
		case st.writer:
			in.Waits = "writer"
		}
		out = append(out, in)
	}
	return out
}
