// Package stream holds streams: queues of chunks between writers and readers, in
// the memory of one daemon.
//
// A chunk is a blob (or an object) in the pool. The writer either asks for the
// next buffer, which queues the one before (Next), or queues something it made
// itself (Push, Write). A reader has a cursor: what it was handed out it gives
// back with its next request. A chunk is freed when every reader has given it
// back. A writer waits while memory is short, a reader while there is nothing
// for it. The states of a stream:
//
//	open     -> drained  by Stop without a reason: readers get what is queued, then the end
//	open     -> failed   by Stop with one, or (shared) when the writer's connection ends:
//	                     readers get what is queued, then the failure
//	any      -> dropped  by Drop; (plain) when the reader's connection ends: chunks are freed
//
// A plain stream is what 0.24 has: one cursor, which whoever pulls moves, and the
// stream ends with the connection of its reader. A shared stream is v6d's own: its
// readers have cursors each, by name or for the life of a connection, it retains
// what its Retain says, and it outlives readers and, with a journal, the daemon.
//
// At most one request waits on each cursor, and one writer.
package stream

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

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
	// NewChunk makes an unsealed blob for a writer's connection. An owned one ends
	// with that connection unless it was queued before.
	NewChunk(h *store.Holder, size int64, owned bool) (store.View, error)
	// Seal makes a chunk immutable.
	Seal(id object.ID) error
	// Shorten makes an unsealed chunk smaller.
	Shorten(id object.ID, size int64) error
	// Size returns the bytes of a blob, or of the blobs of an object. It is called
	// without the table's lock.
	Size(id object.ID) int64
	// Delete deletes a blob, or an object with its members, for a connection;
	// h may be nil.
	Delete(h *store.Holder, id object.ID)
	// Queued and Dequeued keep the store's journal informed: what is queued and in
	// no stream when the daemon comes back is deleted.
	Queued(id object.ID) error
	Dequeued(id object.ID)
	// Record appends to the journal what happened to a shared stream; what only
	// takes things away may use the room that is kept for that. Like Seal, Shorten,
	// Queued and Dequeued it is called with the table's lock held.
	Record(payload []byte, freeing bool) error
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

// Retain says what a shared stream keeps of what all its readers have given back.
// With one of these it also keeps no more than that for readers that do not exist
// yet; the zero value keeps what nobody has read.
type Retain struct {
	All   bool          `json:"all,omitempty"`
	Bytes int64         `json:"bytes,omitempty"`  // the newest chunks, up to so many bytes
	Age   time.Duration `json:"age_ns,omitempty"` // what was written in that time
}

// Table is the set of streams of one session. It is safe for concurrent use.
type Table struct {
	back Backing

	mu      sync.Mutex
	streams map[object.ID]*stream // guarded by mu, and all of the streams
	quiet   bool                  // what happens is being read from the journal; guarded by mu
}

type chunk struct {
	id   object.ID
	size int64
	at   time.Time
}

type stream struct {
	id      object.ID
	shared  bool
	retain  Retain
	state   state
	reason  string // of the failure
	mode    int64  // open mask of 0.24
	chunks  []chunk
	size    int64                       // bytes of those
	base    uint64                      // number of chunks[0]; chunks have consecutive numbers from 0 on
	writing object.ID                   // chunk that a 0.24 writer is filling; 0 for none
	filling int64                       // its size
	writer  *store.Holder               // who wrote last, while it is connected
	wrote   bool                        // somebody began to write
	waits   bool                        // a writer waits for memory
	lent    map[object.ID]*store.Holder // chunks that Write gave to a connection
	lost    bool                        // records of it are missing in the journal
	readers map[readerKey]*reader
	changed chan struct{}              // closed when something happens
	pullers map[*store.Holder]struct{} // connections that ever pulled from a plain stream
	timer   *time.Timer                // for the next chunk that is too old
}

// readerKey names a cursor: that of a plain stream, a named one, or that of a
// connection.
type readerKey struct {
	name string
	conn *store.Holder
}

type reader struct {
	done  uint64        // chunks before it were given back
	at    uint64        // the next chunk to hand out
	by    *store.Holder // the connection that reads
	waits bool
}

// NewTable returns an empty table.
func NewTable(back Backing) *Table {
	return &Table{back: back, streams: map[object.ID]*stream{}}
}

// head is the number of the chunk that is queued next.
func (st *stream) head() uint64 { return st.base + uint64(len(st.chunks)) }

// notify wakes whoever waits on the stream. Called with mu held.
func (st *stream) notify() {
	close(st.changed)
	st.changed = make(chan struct{})
}

func unknown(id object.ID) error {
	return status.Errorf(status.ObjectNotExists, "no stream %s", id)
}

// Create makes id a plain stream. The object itself need not exist.
func (t *Table) Create(id object.ID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	st, err := t.create(id)
	if err == nil {
		st.readers[readerKey{}] = &reader{}
	}
	return err
}

// CreateShared makes id a shared stream.
func (t *Table) CreateShared(id object.ID, retain Retain) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if retain.Bytes < 0 || retain.Age < 0 {
		return status.Errorf(status.Invalid, "a stream cannot retain %d bytes, or %v", retain.Bytes, retain.Age)
	}
	if !t.back.Possible(retain.Bytes) {
		return status.Errorf(status.NotEnoughMemory, "a stream cannot retain %d bytes: that is above the stream threshold of the pool", retain.Bytes)
	}
	st, err := t.create(id)
	if err != nil {
		return err
	}
	st.shared, st.retain = true, retain
	if err := t.record(recordCreate(st)); err != nil {
		delete(t.streams, id)
		return err
	}
	return nil
}

// create adds a stream. Called with mu held.
func (t *Table) create(id object.ID) (*stream, error) {
	if t.streams[id] != nil {
		return nil, status.Errorf(status.ObjectExists, "stream %s exists", id)
	}
	st := &stream{
		id: id, changed: make(chan struct{}), readers: map[readerKey]*reader{}, pullers: map[*store.Holder]struct{}{},
		lent: map[object.ID]*store.Holder{},
	}
	t.streams[id] = st
	return st, nil
}

// Open claims an end of the stream for a connection. In a plain stream an end can
// be claimed once; in a shared one a connection reads with a cursor of its own, and
// only the writing end is claimed.
func (t *Table) Open(h *store.Holder, id object.ID, mode int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	if st == nil {
		return unknown(id)
	}
	if st.shared {
		if mode&Write != 0 {
			if err := t.claim(st, h); err != nil {
				return err
			}
		}
		if mode&Read != 0 {
			st.attach(readerKey{conn: h}, h, false)
		}
		return nil
	}
	if st.mode&mode != 0 {
		return status.Errorf(status.StreamOpened, "stream %s is already open in that mode", id)
	}
	st.mode |= mode
	if mode&Write != 0 {
		st.writer, st.wrote = h, true
	}
	return nil
}

// attach gives a connection a cursor, at the oldest chunk that there is or behind
// the newest one. Called with mu held.
func (st *stream) attach(key readerKey, h *store.Holder, newest bool) *reader {
	r := st.readers[key]
	if r == nil {
		r = &reader{done: st.base, at: st.base}
		if newest {
			r.done, r.at = st.head(), st.head()
		}
		st.readers[key] = r
	}
	r.by = h
	return r
}

// OpenReader gives a connection a cursor: a named one goes on where it was last
// given back to, a new one begins at the oldest chunk, or behind the newest: then
// what no other cursor needs is freed. It returns the number of the next chunk; shared is false for a plain stream, whose
// reading end is claimed instead.
func (t *Table) OpenReader(h *store.Holder, id object.ID, name string, newest bool) (at uint64, shared bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	switch {
	case st == nil:
		return 0, false, unknown(id)
	case !st.shared && (name != "" || newest):
		return 0, false, status.Errorf(status.Invalid, "stream %s is one of a 0.24 client: it has one reader, without a name", id)
	case !st.shared:
		if st.mode&Read != 0 {
			return 0, false, status.Errorf(status.StreamOpened, "stream %s already has its reader", id)
		}
		st.mode |= Read
		return st.readers[readerKey{}].at, false, nil
	}
	key := readerKey{name: name}
	if name == "" {
		key.conn = h
	}
	old := st.readers[key]
	if old != nil && old.by != nil {
		return 0, true, status.Errorf(status.StreamOpened, "reader %q of stream %s is connected already", name, id)
	}
	r := st.attach(key, h, newest)
	if old == nil && name != "" {
		if err := t.record(recordReader(st, name, r.done)); err != nil {
			delete(st.readers, key)
			return 0, true, err
		}
	}
	if newest { // perhaps nobody else wants what is there
		t.collect(st, h)
	}
	return r.at, true, nil
}

// Forget removes a named reader: what only it has not read is freed.
func (t *Table) Forget(id object.ID, name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	if st == nil {
		return unknown(id)
	}
	key := readerKey{name: name}
	r := st.readers[key]
	switch {
	case name == "" || r == nil:
		return status.Errorf(status.ObjectNotExists, "stream %s has no reader %q", id, name)
	case r.by != nil:
		return status.Errorf(status.InvalidStreamState, "reader %q of stream %s is connected", name, id)
	}
	if err := t.record(recordForget(st, name)); err != nil {
		return err
	}
	delete(st.readers, key)
	t.collect(st, nil)
	return nil
}

// CloseReader ends a connection's use of a cursor: one with a name goes back to
// what was given back, one without goes.
func (t *Table) CloseReader(h *store.Holder, id object.ID, name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	if st == nil {
		return unknown(id)
	}
	key := readerKey{name: name}
	if name == "" {
		key.conn = h
	}
	r := st.readers[key]
	if r == nil || r.by != h || r.waits {
		return status.Errorf(status.Invalid, "reader %q of stream %s is not open on this connection", name, id)
	}
	if name != "" {
		r.by, r.at = nil, r.done
		return nil
	}
	delete(st.readers, key)
	t.collect(st, h)
	return nil
}

// Undo takes back that a cursor was handed out the chunks from a number on: they
// could not be delivered.
func (t *Table) Undo(h *store.Holder, id object.ID, name string, from uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := readerKey{name: name}
	if name == "" {
		key.conn = h
	}
	if st := t.streams[id]; st != nil {
		if r := st.readers[key]; r != nil && r.by == h {
			r.at = max(r.done, min(r.at, from))
		}
	}
}

// claim makes a connection the writer of a shared stream. Called with mu held.
func (t *Table) claim(st *stream, h *store.Holder) error {
	if err := st.writable(); err != nil {
		return err
	}
	if st.writer != nil && st.writer != h {
		return status.Errorf(status.StreamOpened, "stream %s has a writer already", st.id)
	}
	if !st.wrote {
		if err := t.record(recordWriter(st)); err != nil {
			return err
		}
	}
	st.writer, st.wrote = h, true
	return nil
}

// OpenWriter claims the writing end for a connection.
func (t *Table) OpenWriter(h *store.Holder, id object.ID) (shared bool, err error) {
	t.mu.Lock()
	st := t.streams[id]
	if st == nil {
		t.mu.Unlock()
		return false, unknown(id)
	}
	if st.shared {
		defer t.mu.Unlock()
		return true, t.claim(st, h)
	}
	t.mu.Unlock()
	return false, t.Open(h, id, Write)
}

// writable checks that a writer may go on. Called with mu held.
func (st *stream) writable() error {
	switch {
	case st.state == dropped:
		return status.Errorf(status.StreamFailed, "stream %s was dropped", st.id)
	case st.state == failed && st.reason != "":
		return status.Errorf(status.InvalidStreamState, "stream %s is already stopped: %s", st.id, st.reason)
	case st.state != open:
		return status.Errorf(status.InvalidStreamState, "stream %s is already stopped", st.id)
	}
	return nil
}

// admit finds a stream for a writer. Called with mu held.
func (t *Table) admit(h *store.Holder, id object.ID) (*stream, error) {
	st := t.streams[id]
	if st == nil {
		return nil, unknown(id)
	}
	if err := st.writable(); err != nil {
		return nil, err
	}
	if st.waits {
		return nil, status.Errorf(status.InvalidStreamState, "another writer waits on stream %s", id)
	}
	if st.shared {
		return st, t.claim(st, h)
	}
	st.writer, st.wrote = h, true
	return st, nil
}

// queue appends a chunk for the readers. Called with mu held.
func (t *Table) queue(st *stream, id object.ID, size int64) error {
	if err := t.back.Queued(id); err != nil {
		return err
	}
	c := chunk{id, size, time.Now()}
	if st.shared {
		if err := t.record(recordPush(st, st.head(), c)); err != nil {
			t.back.Dequeued(id)
			return err
		}
	}
	st.chunks = append(st.chunks, c)
	st.size += c.size
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
	if err := t.queue(st, st.writing, st.filling); err != nil {
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
	st, err := t.admit(h, id)
	if err != nil {
		return store.View{}, err
	}
	if err := t.flush(st); err != nil {
		return store.View{}, err
	}
	t.collect(st, h)
	v, err := t.allocate(ctx, h, st, size, ofStream)
	if err == nil {
		st.writing, st.filling = v.ID, size
	}
	return v, err
}

// Write queues the first used bytes of a chunk that Write returned before, if
// there is one (0: none), and returns a new one of size bytes, if that is not 0.
// The chunk belongs to the connection until it is queued. It waits as Next does.
func (t *Table) Write(ctx context.Context, h *store.Holder, id, filled object.ID, used, size int64) (v store.View, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st, err := t.admit(h, id)
	if err != nil {
		return store.View{}, err
	}
	if filled != 0 {
		if st.lent[filled] != h {
			return store.View{}, status.Errorf(status.Invalid, "%s is no chunk that this connection fills", filled)
		}
		if err := t.back.Shorten(filled, used); err != nil {
			return store.View{}, err
		}
		delete(st.lent, filled)
		err := t.back.Seal(filled)
		if err == nil {
			err = t.queue(st, filled, used)
		}
		if err != nil {
			t.deleteUnlocked(h, filled)
			return store.View{}, err
		}
		t.collect(st, h)
	}
	if size > 0 {
		if v, err = t.allocate(ctx, h, st, size, ofConnection); err == nil {
			st.lent[v.ID] = h
		}
	}
	return v, err
}

// Room waits as Write does until there is room for a chunk, which comes by another
// way and is pushed then.
func (t *Table) Room(ctx context.Context, h *store.Holder, id object.ID, size int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	st, err := t.admit(h, id)
	if err == nil {
		_, err = t.allocate(ctx, h, st, size, roomOnly)
	}
	return err
}

// deleteUnlocked deletes a chunk that is not queued. Called with mu held, which it
// gives up: what deletes takes the tree's lock, which comes before this one.
func (t *Table) deleteUnlocked(h *store.Holder, id object.ID) {
	t.mu.Unlock()
	t.back.Delete(h, id)
	t.mu.Lock()
}

// What allocate makes.
const (
	ofStream     = iota // a chunk that belongs to the stream
	ofConnection        // one that belongs to its writer
	roomOnly            // nothing
)

// allocate returns memory for a chunk when there is room. Called with mu held,
// which it gives up while it waits.
func (t *Table) allocate(ctx context.Context, h *store.Holder, st *stream, size int64, kind int) (store.View, error) {
	if size < 0 || !t.back.Possible(size) {
		return store.View{}, status.Errorf(status.NotEnoughMemory, "a chunk of %d bytes is above the stream threshold of the pool", uint64(size))
	}
	st.waits = true
	defer func() { st.waits = false }()
	for {
		// Both channels are taken before the test, so that no change is missed.
		freed, changed := t.back.Freed(), st.changed
		if err := st.writable(); err != nil {
			return store.View{}, err
		}
		if t.back.Fits(size) {
			if kind == roomOnly {
				return store.View{}, nil
			}
			t.mu.Unlock()
			v, err := t.back.NewChunk(h, size, kind == ofConnection)
			t.mu.Lock()
			if status.Of(err) == status.NotEnoughMemory && !t.back.Fits(size) {
				continue // others took the room meanwhile
			}
			if err != nil {
				return store.View{}, err
			}
			if err := st.writable(); err != nil {
				t.deleteUnlocked(h, v.ID)
				return store.View{}, err
			}
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
func (t *Table) Push(h *store.Holder, id, chunk object.ID) error {
	size := t.back.Size(chunk)
	t.mu.Lock()
	defer t.mu.Unlock()
	st, err := t.admit(h, id)
	if err != nil {
		return err
	}
	if err := t.queue(st, chunk, size); err != nil {
		return err
	}
	t.collect(st, h)
	return nil
}

// Pull gives back the chunk that the pull before handed out and returns the next,
// waiting for it until gone or ctx end. At the end of the stream it fails with
// StreamDrained or StreamFailed.
func (t *Table) Pull(ctx context.Context, h *store.Holder, id object.ID) (object.ID, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	if st == nil {
		return 0, unknown(id)
	}
	r := st.readers[readerKey{}]
	if st.shared {
		r = st.attach(readerKey{conn: h}, h, false)
	}
	if r.waits {
		return 0, status.Errorf(status.InvalidStreamState, "another reader waits on stream %s", id)
	}
	if h != nil && !st.shared {
		st.pullers[h] = struct{}{}
	}
	_, list, err := t.read(ctx, h, st, readerKey{conn: r.by}, r, r.at, 1)
	if err != nil {
		return 0, err
	}
	return list[0], nil
}

// Read gives back the chunks before number done of what a cursor got, and returns
// at most limit chunks that follow, and the number of the first. It waits as Pull
// does; with a limit of 0 it only gives back. The connection must have opened the
// cursor.
func (t *Table) Read(ctx context.Context, h *store.Holder, id object.ID, name string, done uint64, limit int) (first uint64, ids []object.ID, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	if st == nil {
		return 0, nil, unknown(id)
	}
	key := readerKey{name: name}
	if name == "" {
		key.conn = h
	}
	r := st.readers[key]
	switch {
	case !st.shared:
		return 0, nil, status.Errorf(status.Invalid, "stream %s is one of a 0.24 client: pull from it", id)
	case r == nil || r.by != h:
		return 0, nil, status.Errorf(status.Invalid, "reader %q of stream %s is not open on this connection", name, id)
	case r.waits:
		return 0, nil, status.Errorf(status.InvalidStreamState, "reader %q of stream %s waits already", name, id)
	case done < r.done || done > r.at:
		return 0, nil, status.Errorf(status.Invalid, "chunk %d cannot be given back: reader %q has %d to %d", done, name, r.done, r.at)
	}
	return t.read(ctx, h, st, key, r, done, limit)
}

// readBudget bounds the bytes of several chunks that are handed out together: the
// writer shall not wait for a reader that works on them one by one.
const readBudget = 4 << 20

// read moves a cursor. Called with mu held, which it gives up while it waits.
func (t *Table) read(ctx context.Context, h *store.Holder, st *stream, key readerKey, r *reader, done uint64, limit int) (uint64, []object.ID, error) {
	r.waits = true
	defer func() { r.waits = false }()
	if done > r.done {
		r.done = done
		if st.shared && key.name != "" {
			if err := t.record(recordReader(st, key.name, done)); err != nil {
				return 0, nil, err
			}
		}
		garbage := t.trim(st)
		t.mu.Unlock()
		t.free(h, garbage)
		t.mu.Lock()
	}
	for {
		switch n := st.head() - r.at; {
		case limit == 0:
			return r.at, nil, nil
		case st.state == dropped:
			return 0, nil, status.Errorf(status.StreamFailed, "stream %s was dropped", st.id)
		case n > 0:
			first, from := r.at, r.at-st.base
			var ids []object.ID
			room := int64(readBudget)
			for _, c := range st.chunks[from:][:min(n, uint64(limit))] {
				if room -= c.size; room < 0 && len(ids) > 0 {
					break
				}
				ids = append(ids, c.id)
			}
			r.at, r.by = first+uint64(len(ids)), h
			return first, ids, nil
		case st.state == drained:
			return 0, nil, status.Errorf(status.StreamDrained, "stream %s has ended", st.id)
		case st.state == failed && st.reason != "":
			return 0, nil, status.Errorf(status.StreamFailed, "the producer of stream %s failed: %s", st.id, st.reason)
		case st.state == failed:
			return 0, nil, status.Errorf(status.StreamFailed, "the producer of stream %s failed", st.id)
		}
		changed := st.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		t.mu.Lock()
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
	}
}

// trim takes off the chunks that nobody needs any more and returns them, for
// free. Called with mu held.
func (t *Table) trim(st *stream) (garbage []object.ID) {
	needed, nobody := st.head(), true
	for _, r := range st.readers {
		needed, nobody = min(needed, r.done), false
	}
	keep := st.retain
	if nobody && keep == (Retain{}) {
		needed = st.base // for the first reader
	}
	if keep.All {
		return nil
	}
	left, n := st.size, 0
	var wait time.Duration
	for ; st.base+uint64(n) < needed; n++ {
		c := st.chunks[n]
		if keep.Bytes > 0 && (left <= keep.Bytes || n == len(st.chunks)-1) {
			break // the newest is kept, however large it is
		}
		if wait = keep.Age - time.Since(c.at); keep.Age > 0 && wait > 0 {
			t.later(st, wait)
			break
		}
		left -= c.size
		garbage = append(garbage, c.id)
	}
	if n == 0 {
		return nil
	}
	if st.shared {
		if err := t.record(recordTrim(st, st.base+uint64(n))); err != nil {
			t.later(st, time.Second) // the journal is full
			return nil
		}
	}
	st.chunks, st.size, st.base = st.chunks[n:], left, st.base+uint64(n)
	return garbage
}

// later trims again when the oldest chunk may be old enough. Called with mu held.
func (t *Table) later(st *stream, wait time.Duration) {
	if st.timer != nil {
		st.timer.Stop()
	}
	st.timer = time.AfterFunc(wait, func() {
		t.mu.Lock()
		var garbage []object.ID
		if st.state != dropped {
			garbage = t.trim(st)
		}
		t.mu.Unlock()
		t.free(nil, garbage)
	})
}

// collect frees what nobody needs any more, without holding up who called. Called
// with mu held; the chunks are freed by the time the next call has it.
func (t *Table) collect(st *stream, h *store.Holder) {
	if garbage := t.trim(st); len(garbage) > 0 {
		t.mu.Unlock()
		t.free(h, garbage)
		t.mu.Lock()
	}
}

// Stop ends the stream, in failure if fail is set; a chunk being written is
// queued first.
func (t *Table) Stop(id object.ID, fail bool, reason string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.streams[id]
	switch {
	case st == nil:
		return unknown(id)
	case st.state != open:
		return status.Errorf(status.InvalidStreamState, "stream %s is already stopped", id)
	case st.waits && !st.shared:
		return status.Errorf(status.InvalidStreamState, "a writer still waits on stream %s", id)
	}
	if err := t.flush(st); err != nil {
		return err
	}
	return t.end(st, fail, reason)
}

// end stops a stream. Called with mu held.
func (t *Table) end(st *stream, fail bool, reason string) error {
	s := drained
	if fail {
		s = failed
	}
	if st.shared {
		if err := t.record(recordEnd(st, s, reason)); err != nil {
			return err
		}
	}
	st.state, st.reason = s, reason
	st.notify()
	return nil
}

// Drop forgets the stream: waiting readers and writers fail, queued chunks and
// the one being written are freed. Of a plain stream the chunk being read stays.
func (t *Table) Drop(id object.ID) error {
	t.mu.Lock()
	st := t.streams[id]
	if st == nil {
		t.mu.Unlock()
		return unknown(id)
	}
	if st.shared {
		if err := t.record(recordDrop(st)); err != nil {
			t.mu.Unlock()
			return err
		}
	}
	garbage := t.drop(st)
	t.mu.Unlock()
	t.free(nil, garbage)
	return nil
}

// drop takes a stream out of the table and returns the chunks to free. Called
// with mu held.
func (t *Table) drop(st *stream) (garbage []object.ID) {
	kept := 0 // what the reader of a plain stream has
	if !st.shared {
		kept = int(st.readers[readerKey{}].at - st.base)
	}
	for i, c := range st.chunks {
		if i < kept {
			t.back.Dequeued(c.id)
		} else {
			garbage = append(garbage, c.id)
		}
	}
	if st.writing != 0 {
		garbage = append(garbage, st.writing)
	}
	if st.timer != nil {
		st.timer.Stop()
	}
	st.state, st.chunks, st.size, st.writing = dropped, nil, 0, 0
	delete(t.streams, st.id)
	st.notify()
	return garbage
}

func (t *Table) free(h *store.Holder, chunks []object.ID) {
	for _, id := range chunks {
		t.back.Delete(h, id)
	}
}

// Close ends what a connection has: plain streams that it pulled from are
// dropped, shared ones that it writes fail, and its cursors go, or, those with a
// name, back to what was given back.
func (t *Table) Close(h *store.Holder) {
	t.mu.Lock()
	var garbage []object.ID
	for _, st := range t.streams {
		if !st.shared {
			if _, pulled := st.pullers[h]; pulled {
				// Nobody pulls again, which would free it. Objects stay: somebody made
				// them, and can see and delete them.
				if r := st.readers[readerKey{}]; r.at > r.done && r.by == h && st.chunks[0].id.IsBlob() {
					garbage = append(garbage, st.chunks[0].id)
				}
				garbage = append(garbage, t.drop(st)...)
			} else if st.writer == h {
				st.writer = nil
			}
			continue
		}
		garbage = append(garbage, t.leave(st, h)...)
	}
	t.mu.Unlock()
	t.free(nil, garbage)
}

// leave ends what a connection has of a shared stream. Called with mu held.
func (t *Table) leave(st *stream, h *store.Holder) (garbage []object.ID) {
	if st.writer == h {
		st.writer = nil
		if st.state == open {
			if st.writing != 0 {
				garbage, st.writing = append(garbage, st.writing), 0
			}
			const reason = "its connection ended before the stream did"
			if t.end(st, true, reason) != nil { // the journal is full: recovery says the same
				st.state, st.reason = failed, reason
				st.notify()
			}
		}
	}
	for id, by := range st.lent {
		if by == h {
			delete(st.lent, id)
		}
	}
	left := false
	for key, r := range st.readers {
		switch {
		case r.by != h:
		case key.name == "":
			delete(st.readers, key)
			left = true
		default:
			r.by, r.at = nil, r.done
		}
	}
	if left {
		garbage = append(garbage, t.trim(st)...)
	}
	return garbage
}

// Shared returns those of the ids that are shared streams.
func (t *Table) Shared(ids []object.ID) (list []object.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if st := t.streams[id]; st != nil && st.shared {
			list = append(list, id)
		}
	}
	return list
}

// Discard forgets all streams, without freeing anything: their session ends.
func (t *Table) Discard() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, st := range t.streams {
		if st.timer != nil {
			st.timer.Stop()
		}
		st.state = dropped
		st.notify()
		delete(t.streams, id)
	}
}

// Info describes a stream for status.
type Info struct {
	ID      object.ID    `json:"id"`
	State   string       `json:"state"`
	Reason  string       `json:"reason,omitempty"` // of a failure
	Shared  bool         `json:"shared"`           // one of v6d's own: it has cursors
	Retain  Retain       `json:"retain,omitzero"`
	Chunks  int          `json:"chunks"` // in memory
	Bytes   int64        `json:"bytes"`  // of those
	Ready   int          `json:"ready"`  // chunks that wait for the slowest reader
	Pushed  uint64       `json:"pushed"`
	Pulled  uint64       `json:"pulled"` // by the fastest reader
	Mode    int64        `json:"mode"`
	Waits   string       `json:"waits"`   // reader, writer or ""
	Writer  string       `json:"writer"`  // none, connected or gone
	Readers []ReaderInfo `json:"readers"` // by name, then those of connections
}

// ReaderInfo describes a cursor of a shared stream.
type ReaderInfo struct {
	Name      string `json:"name"` // "" for that of a connection
	Done      uint64 `json:"done"` // chunks before it were given back
	At        uint64 `json:"at"`   // the next chunk to hand out
	Connected bool   `json:"connected"`
	Waits     bool   `json:"waits"`
}

// List describes all streams, in the order of their ids.
func (t *Table) List() []Info {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Info, 0, len(t.streams))
	for _, st := range t.streams {
		out = append(out, st.info())
	}
	slices.SortFunc(out, func(a, b Info) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Chunks tells which stream a chunk lies in, of all that wait for readers, are kept,
// or are being written.
func (t *Table) Chunks() map[object.ID]object.ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[object.ID]object.ID{}
	for _, st := range t.streams {
		for _, c := range st.chunks {
			out[c.id] = st.id
		}
		for id := range st.lent {
			out[id] = st.id
		}
		if st.writing != 0 {
			out[st.writing] = st.id
		}
	}
	return out
}

// info describes the stream. Called with the table's lock held.
func (st *stream) info() Info {
	in := Info{
		ID: st.id, State: st.state.String(), Reason: st.reason, Shared: st.shared, Retain: st.retain,
		Chunks: len(st.chunks), Bytes: st.size, Pushed: st.head(), Mode: st.mode, Writer: "none", Readers: []ReaderInfo{},
	}
	slowest := st.head()
	if len(st.readers) == 0 {
		slowest = st.base
	}
	for key, r := range st.readers {
		slowest, in.Pulled = min(slowest, r.at), max(in.Pulled, r.at)
		if r.waits {
			in.Waits = "reader"
		}
		if st.shared {
			in.Readers = append(in.Readers, ReaderInfo{key.name, r.done, r.at, r.by != nil, r.waits})
		}
	}
	in.Ready = int(st.head() - slowest)
	slices.SortFunc(in.Readers, func(a, b ReaderInfo) int {
		return cmp.Or(-cmp.Compare(min(1, len(a.Name)), min(1, len(b.Name))), cmp.Compare(a.Name, b.Name), cmp.Compare(a.At, b.At))
	})
	if st.waits && in.Waits == "" {
		in.Waits = "writer"
	}
	switch {
	case st.writer != nil:
		in.Writer = "connected"
	case st.wrote:
		in.Writer = "gone"
	}
	return in
}
