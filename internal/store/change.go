package store

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
)

// Seal makes a blob immutable and records a dependency of h.
func (ss *Session) Seal(h *Holder, id object.ID) error {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == object.EmptyBlob || id == object.InvalidID {
		s.depend(h, id, nil, false)
		return nil
	}
	b := ss.blobs[id]
	if b == nil {
		return status.Errorf(status.ObjectNotExists, "seal: no blob %s", id)
	}
	if err := s.seal(b); err != nil {
		return err
	}
	s.depend(h, id, b, false)
	return nil
}

// seal commits the sealing of a blob. Called with mu held.
func (s *Store) seal(b *Blob) error {
	if b.sealed {
		return nil
	}
	if b.region.kind != poolRegion || b.session.Plasma && b.plasma == nil {
		s.applySeal(b) // disk and arena blobs are not recovered
		return nil
	}
	return s.commit(sealRecord(b))
}

func (s *Store) applySeal(b *Blob) {
	b.sealed = true
	if b.creator != nil {
		delete(b.creator.unsealed, b)
		b.creator = nil
	}
}

// Drop deletes a blob whoever refers to it in metadata.
func (ss *Session) Drop(h *Holder, id object.ID) error {
	if id == object.EmptyBlob || id == object.InvalidID {
		return nil
	}
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	b := ss.blobs[id]
	if b == nil {
		return status.Errorf(status.ObjectNotExists, "delete: no blob %s", id)
	}
	return s.drop(b, h)
}

// drop deletes a blob for h. Called with mu held.
func (s *Store) drop(b *Blob, h *Holder) error {
	if !b.sealed || !b.durable() {
		s.remove(b, h) // never was in the journal
		return nil
	}
	return s.commitFor(record{kind: recDrop, session: b.session.ID, id: b.id}, h)
}

// DropAll deletes blobs whose deletion is part of a record that the caller has
// appended to the journal: the deletion of the objects that owned them.
// Unknown ids are ignored.
func (ss *Session) DropAll(h *Holder, ids []object.ID) {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if s.replaying != nil {
			s.replaying.dropped[QueuedID{ss.ID, id}] = true
		}
		if b := ss.blobs[id]; b != nil {
			s.remove(b, h)
		}
	}
}

// remove makes a blob invisible. Its memory is free at once, or, while another
// connection than h holds a reference by get, with the last of these. Called
// with mu held.
func (s *Store) remove(b *Blob, h *Holder) {
	if b.gone {
		return
	}
	ss := b.session
	delete(ss.blobs, b.id)
	if b.plasma != nil && ss.plasma[b.plasma.id] == b {
		delete(ss.plasma, b.plasma.id)
	}
	if b.shared != nil {
		b.shared.live = slices.DeleteFunc(b.shared.live, func(other *Blob) bool { return other == b })
	}
	if b.counted {
		if b.shared != nil && len(b.shared.live) > 0 {
			b.shared.live[0].counted = true
		} else {
			s.usage -= b.size
		}
		b.counted = false
	}
	if b.creator != nil {
		delete(b.creator.unsealed, b)
		b.creator = nil
	}
	if b.cached {
		s.uncache(b)
	}
	b.gone = true
	if h != nil {
		if r := h.refs[b.id]; r != nil && r.blob == b {
			// The deleter's own reference no longer counts; the id stays tracked,
			// so that a later release is answered as 0.24 does.
			r.blob = nil
			b.refs--
			if r.get {
				b.gets--
				if h.strict {
					b.strict--
				}
			}
		}
	}
	if b.gets > 0 {
		s.zombies.push(b)
		s.deferred += b.extent
		s.wake() // the usage fell, though the memory is not free yet
		return
	}
	s.freeExtent(b)
}

// Shrink shortens an unsealed blob.
func (ss *Session) Shrink(id object.ID, size int64) error {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	b := ss.blobs[id]
	switch {
	case b == nil:
		return status.Errorf(status.ObjectNotExists, "shrink: no blob %s", id)
	case b.sealed:
		return status.Errorf(status.ObjectSealed, "cannot shrink as the blob has already been sealed")
	case size < 0 || size > b.size:
		return status.Errorf(status.Invalid, "cannot shrink to size %d since the current size is %d", uint64(size), b.size)
	}
	if b.counted {
		s.usage -= b.size - size
		s.wake()
	}
	b.size = size
	return nil
}

// CreateIncoming makes blobs for bytes that the daemon itself will write. As in
// 0.24 they are announced as sealed at once; they are sealed, and can be had by
// others, with Finish. They are held like those that Hold returns: a blob that
// someone deletes meanwhile keeps its memory while the daemon writes there.
func (ss *Session) CreateIncoming(h *Holder, sizes []int64) ([]View, error) {
	views, err := ss.createAll(h, sizes, true)
	if err != nil {
		return nil, err
	}
	for i := range views {
		views[i].Sealed = views[i].File != nil
	}
	return views, nil
}

// Finish seals blobs that have been filled.
func (ss *Session) Finish(views []View) error {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range views {
		if b := ss.blobs[v.ID]; b != nil {
			if err := s.seal(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// NextChunk makes an unsealed blob that belongs to a stream rather than to the
// connection that writes it.
func (ss *Session) NextChunk(h *Holder, size int64) (View, error) {
	if size == 0 {
		return emptyView, nil
	}
	b, _, err := ss.create(h, size, false)
	if err != nil {
		return View{}, err
	}
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	b.chunk = true
	return b.view(), nil
}

// SealChunk seals a stream's chunk; it takes no reference.
func (ss *Session) SealChunk(id object.ID) error {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := ss.blobs[id]; b != nil {
		return s.seal(b)
	}
	return nil
}

// Queue records that a blob or object lies in a 0.24 stream, Dequeue that it
// was handed out or deleted. What is queued when the daemon dies is deleted by
// recovery.
func (ss *Session) Queue(id object.ID) error {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commit(record{kind: recQueue, session: ss.ID, id: id, flag: true})
}

// Dequeue ends what Queue began.
func (ss *Session) Dequeue(id object.ID) error {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commit(record{kind: recQueue, session: ss.ID, id: id})
}

// CreatePlasma makes an unsealed blob under a client's id. An entry of the same
// id is replaced.
func (ss *Session) CreatePlasma(h *Holder, pid string, size, plasmaSize int64) (View, error) {
	if !ss.Plasma {
		return View{}, wrongType(ss)
	}
	b, _, err := ss.create(h, size, false)
	if err != nil {
		return View{}, err
	}
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := ss.plasma[pid]; old != nil {
		if err := s.drop(old, h); err != nil {
			s.remove(b, h)
			return View{}, err
		}
	}
	b.plasma = &plasmaInfo{pid, plasmaSize}
	ss.plasma[pid] = b
	return b.view(), nil
}

func wrongType(ss *Session) error {
	kind := "default"
	if ss.Plasma {
		kind = "plasma"
	}
	return status.Errorf(status.Invalid, "this is a session of the %s store type", kind)
}

// CheckType refuses a request of the other store type.
func (ss *Session) CheckType(plasma bool) error {
	if ss.Plasma != plasma {
		return wrongType(ss)
	}
	return nil
}

// PlasmaID returns the blob id of a client's id.
func (ss *Session) PlasmaID(pid string) (object.ID, bool) {
	ss.store.mu.Lock()
	defer ss.store.mu.Unlock()
	b := ss.plasma[pid]
	if b == nil {
		return 0, false
	}
	return b.id, true
}

// CreateDisk makes a blob in a file of its own. It is not counted against the
// limit and not recovered. f is the open file, which the store takes over.
func (ss *Session) CreateDisk(h *Holder, f *shm.File, size int64) View {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &region{file: f, session: ss.ID, kind: diskRegion, live: 1, bytes: size, closed: true}
	s.regions[f.Number] = r
	b := &Blob{
		id: s.ids.Blob(), session: ss, region: r, size: size, extent: size, pid: h.pid, uid: h.uid, creator: h,
	}
	ss.blobs[b.id] = b
	h.unsealed[b] = struct{}{}
	return b.view()
}

// NextFileNumber returns a store_fd number that was never used.
func (s *Store) NextFileNumber() int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastFD++
	return s.lastFD
}

// AddArena takes over a file whose spans become blobs when h finalizes it.
func (ss *Session) AddArena(h *Holder, f *shm.File) {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &region{file: f, session: ss.ID, kind: arenaRegion}
	s.regions[f.Number] = r
	h.arenas[f.Number] = r
}

// FinalizeArena turns spans of an arena of h into blobs, which are sealed as in
// 0.24, and consumes the arena.
func (ss *Session) FinalizeArena(h *Holder, number int32, offsets, sizes []uint64) error {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	r := h.arenas[number]
	if r == nil {
		return status.Errorf(status.ObjectNotExists, "arena for fd %d cannot be found", number)
	}
	if len(offsets) != len(sizes) {
		return status.Errorf(status.UserInputError, "%d offsets, but %d sizes", len(offsets), len(sizes))
	}
	total := uint64(r.file.Size)
	for i := range offsets {
		if offsets[i] > total || sizes[i] > total-offsets[i] {
			return status.Errorf(status.UserInputError, "span %d does not lie in the arena of %d bytes", i, total)
		}
	}
	for i := range offsets {
		if sizes[i] == 0 {
			continue
		}
		b := &Blob{
			id: s.ids.Blob(), session: ss, region: r, off: int64(offsets[i]), size: int64(sizes[i]),
			extent: int64(sizes[i]), pid: h.pid, uid: h.uid, sealed: true,
		}
		ss.blobs[b.id] = b
		r.live++
		r.bytes += b.size
	}
	delete(h.arenas, number)
	r.closed = true
	s.dropRegionIfEmpty(r)
	return nil
}

// MovePair names a blob of the source session and its name in the destination;
// either may be a plasma id.
type MovePair struct {
	From, To             object.ID
	FromPlasma, ToPlasma string
}

// MoveFrom takes blobs over from another session: no bytes are copied, the
// blobs stay in their file. Unknown ones are left out.
func (ss *Session) MoveFrom(src *Session, pairs []MovePair) error {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if src == ss {
		return nil
	}
	for _, p := range pairs {
		if p.ToPlasma == "" && (!p.To.IsBlob() || p.To == object.EmptyBlob || p.To == object.InvalidID) {
			return status.Errorf(status.Invalid, "%s cannot be the id of a blob", p.To)
		}
	}
	for _, p := range pairs {
		b := src.blobs[p.From]
		if p.FromPlasma != "" {
			b = src.plasma[p.FromPlasma]
		}
		if b == nil || b.cached {
			continue
		}
		to := p.To
		if p.ToPlasma != "" {
			to = s.ids.Blob()
		}
		if ss.blobs[to] != nil || p.ToPlasma != "" && ss.plasma[p.ToPlasma] != nil {
			continue
		}
		if err := s.seal(b); err != nil {
			return err
		}
		rec := record{kind: recMove, session: src.ID, id: b.id, toSession: ss.ID, toID: to, text: p.ToPlasma}
		if b.region.kind > generationRegion {
			s.applyMove(rec) // disk and arena blobs are not recovered
			continue
		}
		if err := s.commit(rec); err != nil {
			return err
		}
	}
	return nil
}

// Trim gives memory back: cached blobs that nobody reads, zombies that only 0.24 clients hold, and the pages of
// every free unit, those reserved ahead included. It returns the bytes given
// back.
func (s *Store) Trim() (int64, error) {
	s.stepping.Lock()
	defer s.stepping.Unlock()
	s.mu.Lock()
	s.resting = true
	for s.evictOne(nil) {
		// What others could fetch again is no reason to keep memory.
	}
	for b := s.zombies.first; b != nil && !s.opts.Strict; {
		next := b.next
		if b.strict == 0 {
			s.bury(b)
		}
		b = next
	}
	s.mu.Unlock()
	return s.trimFree(math.MaxInt64)
}

// trimFree gives pages of free units back until it has given enough. It goes
// through each pool once: what others free or take meanwhile does not hold it up.
func (s *Store) trimFree(enough int64) (int64, error) {
	type hole struct {
		in *region
		at shm.Extent
	}
	var holes []hole
	s.mu.Lock()
	for _, r := range s.regions {
		if r.alloc == nil || r.closed {
			continue
		}
		r.alloc.ReleaseSlabs()
		for _, e := range r.alloc.FreeUnits(1) {
			if backed, ok := r.file.BackedUnits(e, e.Size); ok { // of many pools few hold any
				holes = append(holes, hole{r, shm.Extent{Off: backed.Off, Size: e.Off + e.Size - backed.Off}})
			}
		}
	}
	s.mu.Unlock()
	var total int64
	for _, h := range holes {
		for end := h.at.Off + h.at.Size; total < enough; {
			given, next, err := s.trimOne(h.in, h.at)
			if total += given; err != nil {
				return total, err
			}
			if next == 0 {
				break
			}
			h.at = shm.Extent{Off: next, Size: end - next}
		}
	}
	return total, nil
}

// trimOne gives back the first stretch of units in e that hold memory and are
// still free, taking it out of use meanwhile. Stretches are short, so that a
// create beside it still finds room in the slack of the file. It returns the
// bytes given back and where to go on, 0 for nowhere.
func (s *Store) trimOne(r *region, e shm.Extent) (given, next int64, err error) {
	most := max(s.opts.Limit/16/shm.Unit, 1) * shm.Unit
	s.mu.Lock()
	hole, ok := r.file.BackedUnits(e, most)
	if !ok || r.closed {
		s.mu.Unlock()
		return 0, 0, nil
	}
	next = hole.Off + hole.Size
	if !r.alloc.Carve(hole.Off, hole.Size) { // part of it was taken meanwhile
		s.mu.Unlock()
		return 0, next, nil
	}
	s.mu.Unlock()
	err = r.file.GiveBack(hole)
	s.mu.Lock()
	defer s.mu.Unlock()
	r.alloc.Free(hole.Off, hole.Size)
	s.wake() // who found no room meanwhile
	if errors.Is(err, os.ErrClosed) {
		return 0, 0, nil // its session ended meanwhile, and the file with it
	}
	if err != nil {
		return 0, 0, fmt.Errorf("give memory back: %w", err)
	}
	return hole.Size, next, nil
}
