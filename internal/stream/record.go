package stream

import (
	"time"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
)

// What happens to shared streams is recorded, so that they outlive the daemon
// with the chunks that are sealed. A record is the op, the stream, and:
const (
	opCreate = iota + 1 // all, bytes, nanoseconds to retain; number of the first chunk
	opPush              // number, chunk, bytes, Unix nanoseconds
	opReader            // name, what it has given back
	opForget            // name of a reader
	opWriter            // -: somebody writes
	opTrim              // number of the first chunk that is left
	opEnd               // number of the chunk that would be next, state, reason
	opDrop              // -
)

func begin(op uint64, st *stream) journal.Writer {
	var w journal.Writer
	w.Uint(op)
	w.Uint(uint64(st.id))
	return w
}

func recordCreate(st *stream) journal.Writer {
	w := begin(opCreate, st)
	w.Bool(st.retain.All)
	w.Int(st.retain.Bytes)
	w.Int(int64(st.retain.Age))
	w.Uint(st.base)
	return w
}

func recordPush(st *stream, number uint64, c chunk) journal.Writer {
	w := begin(opPush, st)
	w.Uint(number)
	w.Uint(uint64(c.id))
	w.Int(c.size)
	w.Int(c.at.UnixNano())
	return w
}

func recordReader(st *stream, name string, done uint64) journal.Writer {
	w := begin(opReader, st)
	w.Text(name)
	w.Uint(done)
	return w
}

func recordForget(st *stream, name string) journal.Writer {
	w := begin(opForget, st)
	w.Text(name)
	return w
}

func recordWriter(st *stream) journal.Writer { return begin(opWriter, st) }

func recordTrim(st *stream, base uint64) journal.Writer {
	w := begin(opTrim, st)
	w.Uint(base)
	return w
}

func recordEnd(st *stream, s state, reason string) journal.Writer {
	w := begin(opEnd, st)
	w.Uint(st.head())
	w.Uint(uint64(s))
	w.Text(reason)
	return w
}

func recordDrop(st *stream) journal.Writer { return begin(opDrop, st) }

// record appends to the journal. Called with mu held.
func (t *Table) record(w journal.Writer) error {
	if t.quiet {
		return nil
	}
	op := journal.Writer(w)[0] // ops are one byte
	return t.back.Record(w, op == opTrim || op == opEnd || op == opDrop || op == opForget)
}

// Replay applies one record of an earlier daemon. Nobody else uses the table yet.
func (t *Table) Replay(r *journal.Reader) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.quiet = true
	defer func() { t.quiet = false }()
	op, id := r.Uint(), object.ID(r.Uint())
	st := t.streams[id]
	if st == nil && op != opCreate && r.Err() == nil {
		return nil // its beginning was in a damaged part of the journal
	}
	switch op {
	case opCreate:
		retain := Retain{All: r.Bool(), Bytes: r.Int(), Age: time.Duration(r.Int())}
		base := r.Uint()
		if r.Err() != nil {
			break
		}
		delete(t.streams, id) // a snapshot repeats what it begins with
		st, err := t.create(id)
		if err != nil {
			return err
		}
		st.shared, st.retain, st.base = true, retain, base
	case opPush:
		number := r.Uint()
		c := chunk{object.ID(r.Uint()), r.Int(), time.Unix(0, r.Int())}
		switch {
		case r.Err() != nil:
		case number != st.head():
			st.lost = true // and what follows is of no use
		case !st.lost:
			st.chunks, st.size = append(st.chunks, c), st.size+c.size
		}
	case opReader:
		name, done := r.Text(), r.Uint()
		if r.Err() == nil && done >= st.base {
			st.readers[readerKey{name: name}] = &reader{done: done, at: done}
		}
	case opForget:
		delete(st.readers, readerKey{name: r.Text()})
	case opWriter:
		st.wrote = true
	case opTrim:
		if base := r.Uint(); r.Err() == nil && base > st.base && base <= st.head() { // else pushes are lost
			for _, c := range st.chunks[:base-st.base] {
				st.size -= c.size
			}
			st.chunks, st.base = st.chunks[base-st.base:], base
		}
	case opEnd:
		st.lost = r.Uint() != st.head() || st.lost
		st.state, st.reason = state(r.Uint()), r.Text()
		if r.Err() == nil && st.state != drained && st.state != failed {
			return status.Errorf(status.IOError, "stream %s has state %d", id, st.state)
		}
	case opDrop:
		delete(t.streams, id)
	default:
		return status.Errorf(status.IOError, "unknown change %d of a stream", op)
	}
	return r.Err()
}

// Recovered ends what Replay began: a stream that was being written has failed,
// and one that lost a chunk ends before it. exists tells of a chunk whether it is
// there; known of a stream whether its metadata are: without them it goes. Chunks
// behind a lost one are left to be deleted: they are not among those of Held.
func (t *Table) Recovered(exists, known func(object.ID) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, st := range t.streams {
		if !known(id) {
			delete(t.streams, id)
			continue
		}
		for i, c := range st.chunks {
			if !exists(c.id) {
				for _, lost := range st.chunks[i:] {
					st.size -= lost.size
				}
				st.chunks = st.chunks[:i]
				st.state, st.reason = failed, "chunks were lost when the daemon ended"
				break
			}
		}
		if st.lost {
			st.state, st.reason = failed, "a part of it was lost with a part of the journal"
		}
		for _, r := range st.readers {
			r.done = min(max(r.done, st.base), st.head())
			r.at = r.done
		}
		if st.state == open && st.wrote {
			st.state, st.reason = failed, "the daemon ended before the stream did"
		}
	}
}

// Resume begins to forget again what may be forgotten, once there is a journal
// that can tell.
func (t *Table) Resume() {
	t.mu.Lock()
	var garbage []object.ID
	for _, st := range t.streams {
		if st.shared {
			garbage = append(garbage, t.trim(st)...)
		}
	}
	t.mu.Unlock()
	t.free(nil, garbage)
}

// Held returns the chunks that lie in streams.
func (t *Table) Held() map[object.ID]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	held := map[object.ID]bool{}
	for _, st := range t.streams {
		for _, c := range st.chunks {
			held[c.id] = true
		}
	}
	return held
}

// Lock stops every change, for a snapshot that spans packages; Unlock resumes.
func (t *Table) Lock() { t.mu.Lock() }

// Unlock ends Lock.
func (t *Table) Unlock() { t.mu.Unlock() }

// Snapshot appends the shared streams as records. The caller holds Lock.
func (t *Table) Snapshot(add func(payload []byte) error) error {
	for _, st := range t.streams {
		if !st.shared {
			continue
		}
		list := []journal.Writer{recordCreate(st)}
		for i, c := range st.chunks {
			list = append(list, recordPush(st, st.base+uint64(i), c))
		}
		for key, r := range st.readers {
			if key.name != "" {
				list = append(list, recordReader(st, key.name, r.done))
			}
		}
		if st.wrote {
			list = append(list, recordWriter(st))
		}
		if st.state != open {
			list = append(list, recordEnd(st, st.state, st.reason))
		}
		for _, w := range list {
			if err := add(w); err != nil {
				return err
			}
		}
	}
	return nil
}
