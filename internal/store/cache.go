package store

import "github.com/v6d-go/v6d/internal/object"

// A cached blob is a copy of another instance's. It is sealed and read like any
// other, but nobody depends on it: it has no record in the journal, clients do not
// find it in lists, and when memory is short it goes before anything is refused,
// unless somebody reads it just then. An object that has it as a member makes it an
// ordinary one.

// FinishCached seals blobs of CreateIncoming that were filled, as cached ones.
func (ss *Session) FinishCached(views []View) {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range views {
		if b := ss.blobs[v.ID]; b != nil && !b.sealed {
			b.cached = true
			s.cached += b.size
			s.cachedBlobs++
			s.applySeal(b)
			s.settle(b)
		}
	}
}

// durable reports whether a blob has records in the journal: disk and arena blobs
// are not recovered, and cached ones are not worth it.
func (b *Blob) durable() bool { return b.region.kind <= generationRegion && !b.cached }

// rest puts a cached blob that nobody reads among those that may go, as the one
// that was used last. Called with mu held.
func (s *Store) rest(b *Blob) {
	if b.cached && !b.gone && b.refs == 0 && !b.inList(&s.idle) {
		s.idle.push(b)
		s.idleBytes += b.size
	}
}

// use takes a cached blob off those that may go. Called with mu held.
func (s *Store) use(b *Blob) {
	if b.cached && b.inList(&s.idle) {
		s.idle.remove(b)
		s.idleBytes -= b.size
	}
}

// uncache takes a blob out of the books of cached ones. Called with mu held.
func (s *Store) uncache(b *Blob) {
	s.use(b)
	s.cached -= b.size
	s.cachedBlobs--
}

// Keep makes ordinary blobs of those that are cached: an object is about to have
// them as members. Others, and unknown ones, are left as they are. When that object
// is not made after all, undo lets them go: nobody would delete them.
func (ss *Session) Keep(ids []object.ID) (undo func(), err error) {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept []*Blob
	discard := func() {
		for _, b := range kept {
			if b.gone {
				continue
			}
			if err := s.drop(b, nil); err != nil {
				s.log.Error("a blob that nothing needs stays", "blob", b.id, "err", err)
			}
		}
	}
	for _, id := range ids {
		b := ss.blobs[id]
		if b == nil || !b.cached {
			continue
		}
		if err := s.commit(sealRecord(b)); err != nil {
			discard()
			return nil, err
		}
		s.uncache(b)
		b.cached = false
		kept = append(kept, b)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		discard()
	}, nil
}

// evictOne drops the cached blob that was not used for longest, of a region or of
// any. It reports whether there was one. Called with mu held.
func (s *Store) evictOne(r *region) bool {
	for b := s.idle.first; b != nil; b = b.next {
		if r != nil && b.region != r {
			continue
		}
		s.count.Evicted++
		s.count.EvictedBytes += uint64(b.size)
		s.remove(b, nil)
		return true
	}
	return false
}

// GetAll locates sealed blobs and takes references for h, to all or none: it
// reports whether all are there.
func (ss *Session) GetAll(h *Holder, ids []object.ID) (views []View, all bool, err error) {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		b := ss.blobs[id]
		switch {
		case id == object.EmptyBlob:
			views = append(views, emptyView)
			continue
		case b == nil || !b.sealed:
			return nil, false, nil
		}
		if err := b.region.file.Damaged(); err != nil {
			return nil, false, err
		}
		views = append(views, b.view())
	}
	for i, id := range ids {
		if b := ss.blobs[id]; b != nil {
			s.depend(h, id, b, true)
			views[i].Refs = b.refs
		}
	}
	return views, true, nil
}
