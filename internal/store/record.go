package store

import (
	"fmt"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
)

// Kinds of journal records of this package; internal/meta and internal/server
// have theirs above FirstForeign.
const (
	recSession    = 1 // a session was made
	recEndSession = 2
	recFile       = 3 // a session got a pool file
	recSeal       = 4 // a blob was sealed, or moved to another place
	recDrop       = 5
	recMove       = 6 // a blob got a second name in another session
	recQueue      = 7 // a blob or object entered (flag) or left a 0.24 stream
	recCounter    = 8 // file numbers up to this one were used
	recDoom       = 9 // a session was deleted: it ends with its last connection, or with the daemon

	// FirstForeign is the first record kind that is not the store's.
	FirstForeign = 32
)

// record is one change of the store that survives a crash. Which fields count
// depends on the kind.
type record struct {
	kind       byte
	session    object.SessionID
	id         object.ID
	file       int32
	off        int64
	size       int64
	extent     int64
	created    int64
	pid, uid   int32
	flag       bool   // session: plasma; seal: stream chunk; move: owned by yet another session; queue: entered
	text       string // file: name; seal and move: plasma id
	plasmaSize int64
	toSession  object.SessionID
	toID       object.ID
}

// encode writes a record into the store's scratch buffer. Called with mu held.
func (s *Store) encode(r record) []byte {
	w := journal.Begin(s.scratch, r.kind)
	w.Uint(uint64(r.session))
	switch r.kind {
	case recSession:
		w.Bool(r.flag)
	case recFile:
		w.Uint(uint64(r.file))
		w.Text(r.text)
	case recCounter:
		w.Uint(uint64(r.file))
	case recSeal:
		w.Uint(uint64(r.id))
		w.Uint(uint64(r.file))
		w.Uint(uint64(r.off))
		w.Uint(uint64(r.size))
		w.Uint(uint64(r.extent))
		w.Int(r.created)
		w.Int(int64(r.pid))
		w.Int(int64(r.uid))
		w.Bool(r.flag)
		w.Text(r.text)
		w.Int(r.plasmaSize)
	case recDrop:
		w.Uint(uint64(r.id))
	case recMove:
		w.Uint(uint64(r.id))
		w.Uint(uint64(r.toSession))
		w.Uint(uint64(r.toID))
		w.Text(r.text)
		w.Bool(r.flag)
	case recQueue:
		w.Uint(uint64(r.id))
		w.Bool(r.flag)
	}
	s.scratch = w
	return w
}

func decodeRecord(payload []byte) (record, error) {
	if len(payload) == 0 {
		return record{}, journal.ErrRecord
	}
	r := record{kind: payload[0]}
	d := journal.NewReader(payload)
	r.session = object.SessionID(d.Uint())
	switch r.kind {
	case recSession:
		r.flag = d.Bool()
	case recEndSession, recDoom:
	case recFile:
		r.file = int32(d.Uint())
		r.text = d.Text()
	case recCounter:
		r.file = int32(d.Uint())
	case recSeal:
		r.id = object.ID(d.Uint())
		r.file = int32(d.Uint())
		r.off = int64(d.Uint())
		r.size = int64(d.Uint())
		r.extent = int64(d.Uint())
		r.created = d.Int()
		r.pid = int32(d.Int())
		r.uid = int32(d.Int())
		r.flag = d.Bool()
		r.text = d.Text()
		r.plasmaSize = d.Int()
	case recDrop:
		r.id = object.ID(d.Uint())
	case recMove:
		r.id = object.ID(d.Uint())
		r.toSession = object.SessionID(d.Uint())
		r.toID = object.ID(d.Uint())
		r.text = d.Text()
		r.flag = d.Bool()
	case recQueue:
		r.id = object.ID(d.Uint())
		r.flag = d.Bool()
	default:
		return r, fmt.Errorf("unknown record kind %d", r.kind)
	}
	return r, d.Err()
}

// commit makes a change durable and applies it. Called with mu held.
func (s *Store) commit(r record) error { return s.commitFor(r, nil) }

// commitFor is commit for a connection, whose own references do not count.
func (s *Store) commitFor(r record, h *Holder) error {
	if j := s.journal.Load(); j != nil {
		add := j.Append
		switch r.kind {
		case recDrop, recEndSession, recDoom:
			add = j.AppendFreeing
		case recQueue:
			if !r.flag {
				add = j.AppendFreeing
			}
		}
		if err := add(s.encode(r)); err != nil {
			return err
		}
	}
	return s.apply(r, h)
}

// apply changes the state by one record: the only way in, for live requests
// and for recovery. Called with mu held.
func (s *Store) apply(r record, h *Holder) error {
	switch r.kind {
	case recCounter:
		s.lastFD = max(s.lastFD, r.file)
		return nil
	case recSession:
		if s.sessions[r.session] == nil {
			s.sessions[r.session] = &Session{
				store: s, ID: r.session, Plasma: r.flag, blobs: map[object.ID]*Blob{}, plasma: map[string]*Blob{},
			}
		}
		return nil
	}
	ss := s.sessions[r.session]
	if ss == nil {
		return status.Errorf(status.Invalid, "no session %s", r.session)
	}
	switch r.kind {
	case recEndSession:
		s.endSession(ss)
	case recDoom:
		ss.doomed = true
	case recFile:
		s.lastFD = max(s.lastFD, r.file)
	case recSeal:
		return s.applyLocated(ss, r)
	case recDrop:
		if b := ss.blobs[r.id]; b != nil {
			s.remove(b, h)
		}
	case recMove:
		s.applyMove(r)
	case recQueue:
		key := QueuedID{ss.ID, r.id}
		if r.flag {
			s.queued[key] = struct{}{}
		} else {
			delete(s.queued, key)
		}
	}
	return nil
}

// applyLocated seals a blob: one that exists (a live seal), one that exists
// elsewhere (it moved to another file), or one that recovery makes.
func (s *Store) applyLocated(ss *Session, r record) error {
	b := ss.blobs[r.id]
	to := s.regions[r.file]
	if to == nil {
		return status.Errorf(status.IOError, "blob %s lies in pool file %d, which is gone", r.id, r.file)
	}
	switch {
	case b == nil:
		b = &Blob{
			id: r.id, session: ss, region: to, off: r.off, size: r.size, extent: r.extent,
			created: r.created, pid: r.pid, uid: r.uid, sealed: true, chunk: r.flag, counted: true,
		}
		if r.text != "" {
			b.plasma = &plasmaInfo{r.text, r.plasmaSize}
			ss.plasma[r.text] = b
		}
		ss.blobs[b.id] = b
		s.usage += b.size
		to.live++
		to.bytes += b.extent
		s.ids.Continue(uint64(r.id))
	case b.region != to || b.off != r.off:
		old, all := *b, []*Blob{b}
		if b.shared != nil { // they move together
			old.shared, all = nil, b.shared.live
		}
		for _, b := range all {
			b.region, b.off, b.extent = to, r.off, r.extent
		}
		to.live++
		to.bytes += r.extent
		s.freeExtent(&old)
	default:
		s.applySeal(b)
	}
	return nil
}

func (s *Store) applyMove(r record) {
	from, to := s.sessions[r.session], s.sessions[r.toSession]
	if from == nil || to == nil || from.blobs[r.id] == nil {
		return
	}
	b := from.blobs[r.id]
	if from == to && r.id == r.toID { // of a snapshot: pins and owner as they were
		b.moved, b.foreign = true, r.flag
		return
	}
	if b.shared == nil {
		b.shared = &sharing{users: 1, live: []*Blob{b}}
	}
	c := &Blob{
		id: r.toID, session: to, region: b.region, off: b.off, size: b.size, extent: b.extent,
		created: b.created, pid: b.pid, uid: b.uid, sealed: true, foreign: r.flag, moved: true, counted: b.counted, shared: b.shared,
	}
	b.foreign, b.moved, b.counted = true, true, false
	b.shared.users++
	b.shared.live = append(b.shared.live, c)
	if r.text != "" {
		c.plasma = &plasmaInfo{id: r.text}
		to.plasma[r.text] = c
	}
	to.blobs[c.id] = c
}
