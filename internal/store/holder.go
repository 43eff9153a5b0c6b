package store

import (
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
)

// Holder is what one connection holds: references, unsealed blobs and arenas.
// Its maps are guarded by the store.
type Holder struct {
	pid, uid int32
	strict   bool // negotiated v6d's extensions: always waited for
	refs     map[object.ID]*ref
	unsealed map[*Blob]struct{}
	arenas   map[int32]*region
	transit  []*Blob // blobs that the daemon itself reads or writes, or whose pages the kernel may still be sending
}

// ref is one connection's dependency on one blob. blob is nil where 0.24
// tracks an id that is no blob of the session.
type ref struct {
	blob *Blob
	get  bool // by get_buffers or increase_reference_count, not by seal alone
}

// NewHolder returns the holder of a connection of a process; pid 0 is a remote
// client.
func NewHolder(pid, uid int) *Holder {
	return &Holder{
		pid: int32(pid), uid: int32(uid),
		refs: map[object.ID]*ref{}, unsealed: map[*Blob]struct{}{}, arenas: map[int32]*region{},
	}
}

// SetStrict makes the holder one that is always waited for.
func (s *Store) SetStrict(h *Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.strict {
		return
	}
	h.strict = true
	for _, r := range h.refs { // taken before the client negotiated
		if r.get && r.blob != nil {
			r.blob.strict++
		}
	}
}

// depend records a dependency of h on a blob, once per blob. Called with mu
// held.
func (s *Store) depend(h *Holder, id object.ID, b *Blob, get bool) {
	r := h.refs[id]
	if r == nil || r.blob == nil && b != nil { // new, or tracked before the blob was there
		r = &ref{blob: b}
		h.refs[id] = r
		if b != nil {
			s.use(b)
			b.refs++
		}
	}
	if get && !r.get {
		r.get = true
		if b != nil {
			b.gets++
			if h.strict {
				b.strict++
			}
		}
	}
}

// undepend removes a dependency. Called with mu held.
func (s *Store) undepend(h *Holder, id object.ID, r *ref) {
	delete(h.refs, id)
	if b := r.blob; b != nil {
		s.unref(b, h, r)
	}
}

func (s *Store) unref(b *Blob, h *Holder, r *ref) {
	b.refs--
	if r.get {
		b.gets--
		if h.strict {
			b.strict--
		}
	}
	s.settle(b)
}

// settle acts on a blob that lost a reference: zombies that nobody reads are
// buried, plasma blobs without references are deleted. Called with mu held.
func (s *Store) settle(b *Blob) {
	switch {
	case b.gone:
		if b.gets == 0 && b.inList(&s.zombies) {
			s.bury(b)
		}
	case !b.sealed && b.gets == 0 && b.orphaned():
		s.dropOrphan(b)
	case b.cached:
		s.rest(b)
	case b.plasma != nil && b.refs == 0 && b.sealed && !b.moved: // a move pins for ever
		if err := s.drop(b, nil); err != nil {
			s.log.Error("a plasma blob without references could not be deleted", "blob", b.id, "err", err)
		}
	}
}

// Get locates blobs and takes references for h; it appends their views. Unknown
// ids are left out. One unsealed blob fails the whole request unless unsafe.
func (ss *Session) Get(views []View, h *Holder, ids []object.ID, unsafe bool) ([]View, error) {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		switch b := ss.blobs[id]; {
		case id == object.EmptyBlob:
			views = append(views, emptyView)
		case id == object.InvalidID:
			views = append(views, ss.wholePool())
		case b == nil:
		case !b.sealed && !unsafe:
			return nil, status.Errorf(status.ObjectNotSealed, "blob %s is not sealed yet", id)
		default:
			if err := b.region.file.Damaged(); err != nil {
				return nil, err // who maps it would die of SIGBUS
			}
			views = append(views, b.view())
		}
	}
	for _, id := range ids {
		s.depend(h, id, ss.blobs[id], true)
	}
	for i := range views {
		if b := ss.blobs[views[i].ID]; b != nil {
			views[i].Refs = b.refs
		}
	}
	return views, nil
}

// wholePool is the pseudo blob that spans the session's current pool file.
func (ss *Session) wholePool() View {
	f := ss.pool.file
	return View{ID: object.InvalidID, File: f, Off: blobBase, Size: ss.store.opts.Limit, MapSize: f.MapSize(), Sealed: true, Owner: true}
}

// AddRefs takes references for h; unknown ids are accepted.
func (ss *Session) AddRefs(h *Holder, ids []object.ID) {
	ss.store.mu.Lock()
	defer ss.store.mu.Unlock()
	for _, id := range ids {
		ss.store.depend(h, id, ss.blobs[id], true)
	}
}

// Release gives h's reference to a blob back.
func (ss *Session) Release(h *Holder, id object.ID) error {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(h.refs) == 0 {
		return status.Errorf(status.KeyError, "this connection holds no blob")
	}
	r := h.refs[id]
	if r == nil {
		return status.Errorf(status.ObjectNotExists, "this connection does not hold blob %s", id)
	}
	s.undepend(h, id, r)
	return nil
}

// InUse is false only for a sealed blob without references, as observed of
// 0.24.
func (ss *Session) InUse(id object.ID) bool {
	ss.store.mu.Lock()
	defer ss.store.mu.Unlock()
	b := ss.blobs[id]
	return b == nil || !b.sealed || b.refs > 0 || b.moved
}

// Hold keeps blobs from being reused while their pages are on the way out of
// the kernel; the next Unhold or Close of h ends it. It returns their views.
func (ss *Session) Hold(h *Holder, ids []object.ID, unsafe bool) ([]View, error) {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	views := make([]View, 0, len(ids))
	var held []*Blob
	for _, id := range ids {
		switch b := ss.blobs[id]; {
		case id == object.EmptyBlob:
			views = append(views, emptyView)
		case b == nil:
		case !b.sealed && !unsafe:
			return nil, status.Errorf(status.KeyError, "blob %s is not sealed yet", id)
		default:
			views = append(views, b.view())
			held = append(held, b)
		}
	}
	for _, b := range held {
		s.hold(h, b)
	}
	return views, nil
}

// hold keeps one blob's memory from being reused until Unhold. Called with mu
// held.
func (s *Store) hold(h *Holder, b *Blob) {
	s.use(b)
	b.refs++
	b.gets++
	b.strict++
	h.transit = append(h.transit, b)
}

// unholdLast ends the youngest hold of h. Called with mu held.
func (s *Store) unholdLast(h *Holder) {
	last := len(h.transit) - 1
	b := h.transit[last]
	h.transit = h.transit[:last]
	s.release(b)
}

// Unhold ends what Hold began.
func (s *Store) Unhold(h *Holder) {
	if len(h.transit) == 0 { // only this connection's goroutine appends
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unhold(h)
}

func (s *Store) unhold(h *Holder) {
	held := h.transit
	h.transit = nil
	for _, b := range held {
		s.release(b)
	}
}

// release ends one hold. Called with mu held.
func (s *Store) release(b *Blob) {
	b.refs--
	b.gets--
	b.strict--
	s.settle(b)
}

// Close gives everything back that h holds: references, unsealed blobs that
// nobody else reads, arenas. The connection is gone.
func (s *Store) Close(h *Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unhold(h)
	for id, r := range h.refs {
		s.undepend(h, id, r)
	}
	for b := range h.unsealed {
		b.creator = nil
		if b.gets == 0 && b.orphaned() {
			s.dropOrphan(b)
		}
	}
	clear(h.unsealed)
	for n, r := range h.arenas {
		delete(h.arenas, n)
		r.closed = true
		s.dropRegionIfEmpty(r)
	}
}

// orphaned reports whether an unsealed blob has lost its creator and belongs to
// nothing else. While others read it, it stays: one of them may seal it.
func (b *Blob) orphaned() bool {
	return b.creator == nil && !b.gone && !b.chunk && !b.moved && b.region.kind != arenaRegion
}

func (s *Store) dropOrphan(b *Blob) {
	s.count.Orphans++
	s.count.OrphanBytes += uint64(b.size)
	s.remove(b, nil)
}

// blobList is a list of blobs in the order in which they came into it.
type blobList struct {
	first, last *Blob
	n           int
}

func (l *blobList) push(b *Blob) {
	b.prev, b.next = l.last, nil
	if l.last != nil {
		l.last.next = b
	} else {
		l.first = b
	}
	l.last = b
	l.n++
}

func (b *Blob) inList(l *blobList) bool { return b.prev != nil || l.first == b }

func (l *blobList) remove(b *Blob) {
	if b.prev != nil {
		b.prev.next = b.next
	} else {
		l.first = b.next
	}
	if b.next != nil {
		b.next.prev = b.prev
	} else {
		l.last = b.prev
	}
	b.prev, b.next = nil, nil
	l.n--
}

// bury frees the memory of a zombie. References to it become void. Called with
// mu held.
func (s *Store) bury(b *Blob) {
	s.zombies.remove(b)
	s.deferred -= b.extent
	s.freeExtent(b)
}

// freeExtent returns a blob's memory to where it came from. Called with mu
// held.
func (s *Store) freeExtent(b *Blob) {
	if b.shared != nil {
		if b.shared.users--; b.shared.users > 0 {
			return
		}
	}
	r := b.region
	r.live--
	r.bytes -= b.extent
	switch {
	case r.alloc != nil:
		r.alloc.Free(b.off, b.extent)
	case r.kind == generationRegion && s.replaying == nil:
		r.dead = append(r.dead, shm.Extent{Off: b.off, Size: b.extent})
	}
	s.dropRegionIfEmpty(r)
	s.wake()
}

// wake tells those who wait for memory that usage, or what is allocated, fell.
// Called with mu held.
func (s *Store) wake() {
	if s.freed != nil {
		close(s.freed)
		s.freed = nil
	}
}
