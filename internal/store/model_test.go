package store

import (
	"maps"
	"slices"

	"github.com/v6d-go/v6d/internal/object"
)

// The model says what a store must do, in maps and without counters: who sees
// which blob, who may still read one that is deleted, and what that adds up to.
type model struct {
	strict   bool // the store waits for every reader
	sessions map[object.SessionID]*modelSession
	zombies  []*thing // deleted blobs that someone may read, oldest first
	queued   map[QueuedID]bool
	holders  []*modelHolder
}

type modelSession struct {
	id     object.SessionID
	plasma bool
	doomed bool
	blobs  map[object.ID]*thing
	names  map[string]*thing // of the plasma type
}

// thing is a blob. Those that share an extent since a move share a family.
type thing struct {
	id           object.ID
	in           object.SessionID
	file         int32
	off          int64
	size, extent int64
	seed         int64 // what its bytes are
	sealed       bool
	chunk        bool
	moved        bool
	foreign      bool
	gone         bool
	name         string
	creator      *modelHolder
	family       *[]*thing
}

type modelHolder struct {
	h      *Holder
	in     object.SessionID
	strict bool
	refs   map[object.ID]*modelRef
	held   []*thing
}

type modelRef struct {
	b   *thing // nil for an id that was no blob then
	get bool
}

func newModel(strict bool) *model {
	return &model{strict: strict, sessions: map[object.SessionID]*modelSession{}, queued: map[QueuedID]bool{}}
}

func (m *model) addSession(id object.SessionID, plasma bool) {
	m.sessions[id] = &modelSession{id: id, plasma: plasma, blobs: map[object.ID]*thing{}, names: map[string]*thing{}}
}

// readers counts references to a blob: all, those by get, and those that are
// always waited for.
func (m *model) readers(b *thing) (refs, gets, strict int) {
	for _, h := range m.holders {
		for _, r := range h.refs {
			if r.b != b {
				continue
			}
			refs++
			if r.get {
				gets++
				if h.strict {
					strict++
				}
			}
		}
		for _, held := range h.held {
			if held == b {
				refs, gets, strict = refs+1, gets+1, strict+1
			}
		}
	}
	return refs, gets, strict
}

func (m *model) depend(h *modelHolder, id object.ID, get bool) {
	b := m.sessions[h.in].blobs[id]
	r := h.refs[id]
	if r == nil || r.b == nil {
		r = &modelRef{b, r != nil && r.get && b == nil}
		h.refs[id] = r
	}
	r.get = r.get || get
}

func (m *model) release(h *modelHolder, id object.ID) {
	b := h.refs[id].b
	delete(h.refs, id)
	if b != nil {
		m.settle(b)
	}
}

func (m *model) unhold(h *modelHolder) {
	for len(h.held) > 0 {
		b := h.held[0]
		h.held = h.held[1:]
		m.settle(b)
	}
}

// settle follows a reference that is gone.
func (m *model) settle(b *thing) {
	refs, gets, _ := m.readers(b)
	switch {
	case b.gone && gets == 0:
		m.zombies = slices.DeleteFunc(m.zombies, func(z *thing) bool { return z == b })
	case b.gone:
	case gets == 0 && m.orphan(b):
		m.remove(b, nil)
	case b.sealed && refs == 0 && b.name != "" && !b.moved:
		m.remove(b, nil)
	}
}

// orphan: an unsealed blob whose creator is gone.
func (m *model) orphan(b *thing) bool { return !b.sealed && b.creator == nil && !b.chunk && !b.moved }

// remove deletes a blob for a holder, whose own references end with it.
func (m *model) remove(b *thing, by *modelHolder) {
	ss := m.sessions[b.in]
	delete(ss.blobs, b.id)
	if ss.names[b.name] == b {
		delete(ss.names, b.name)
	}
	b.gone, b.creator = true, nil
	if by != nil && by.refs[b.id] != nil && by.refs[b.id].b == b {
		by.refs[b.id].b = nil
	}
	if _, gets, _ := m.readers(b); gets > 0 {
		m.zombies = append(m.zombies, b)
	}
}

func (m *model) seal(b *thing) { b.sealed, b.creator = true, nil }

// close takes everything from a holder and makes it a new connection.
func (m *model) close(h *modelHolder) {
	m.unhold(h)
	for _, id := range slices.Collect(maps.Keys(h.refs)) {
		m.release(h, id)
	}
	for _, ss := range m.sessions {
		for _, b := range slices.Collect(maps.Values(ss.blobs)) {
			if b.creator != h {
				continue
			}
			b.creator = nil
			if _, gets, _ := m.readers(b); gets == 0 && m.orphan(b) {
				m.remove(b, nil)
			}
		}
	}
	h.h, h.strict = NewHolder(1, 1), false
}

func (m *model) move(b *thing, to object.SessionID, id object.ID, name string) {
	m.seal(b)
	if b.family == nil {
		b.family = &[]*thing{b}
	}
	c := *b
	c.id, c.in, c.name, c.moved, c.foreign, c.chunk = id, to, name, true, false, false
	b.moved, b.foreign = true, true
	*b.family = append(*b.family, &c)
	m.sessions[to].blobs[id] = &c
	if name != "" {
		m.sessions[to].names[name] = &c
	}
}

func (m *model) endSession(id object.SessionID) {
	for _, b := range slices.Collect(maps.Values(m.sessions[id].blobs)) {
		m.remove(b, nil)
	}
	delete(m.sessions, id)
	maps.DeleteFunc(m.queued, func(key QueuedID, _ bool) bool { return key.Session == id })
}

// live lists all blobs that are not deleted.
func (m *model) live() (out []*thing) {
	for _, ss := range m.sessions {
		for _, b := range ss.blobs {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b *thing) int {
		if a.id < b.id || a.id == b.id && a.in < b.in {
			return -1
		}
		return 1
	})
	return out
}

// usage counts the bytes of live blobs, those of a family once.
func (m *model) usage() (usage, deferred int64) {
	seen := map[*[]*thing]bool{}
	for _, b := range m.live() {
		if b.family == nil || !seen[b.family] {
			usage += b.size
		}
		if b.family != nil {
			seen[b.family] = true
		}
	}
	for _, b := range m.zombies {
		deferred += b.extent
	}
	return usage, deferred
}

// crash leaves what a kill of the daemon leaves: what was sealed and not
// deleted. It returns the chunks of streams, which recovery deletes.
func (m *model) crash() (chunks map[QueuedID]bool) {
	for id, ss := range m.sessions {
		if ss.doomed {
			m.endSession(id)
		}
	}
	chunks = m.queued
	m.queued = map[QueuedID]bool{}
	for _, h := range m.holders {
		h.h, h.strict, h.held = NewHolder(1, 1), false, nil
		clear(h.refs)
		if m.sessions[h.in] == nil {
			h.in = object.RootSession
		}
	}
	m.zombies = nil
	for _, b := range m.live() {
		if !b.sealed {
			m.remove(b, nil)
		}
		if b.family != nil {
			*b.family = slices.DeleteFunc(*b.family, func(o *thing) bool { return o.gone })
		}
	}
	for _, b := range m.live() {
		if b.chunk {
			chunks[QueuedID{b.in, b.id}] = true
		}
	}
	for key := range chunks {
		if ss := m.sessions[key.Session]; ss != nil && ss.blobs[key.ID] != nil {
			m.remove(ss.blobs[key.ID], nil)
		}
	}
	return chunks
}
