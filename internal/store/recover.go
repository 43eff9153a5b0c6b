package store

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/shm"
)

// Replay applies one record of an earlier daemon's journal. Pool files become
// closed generations.
func (s *Store) Replay(payload []byte) error {
	r, err := decodeRecord(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replaying == nil {
		s.replaying = &replay{ended: map[object.SessionID]bool{}, dropped: map[QueuedID]bool{}, seals: map[int32][]placed{}}
	}
	switch {
	case r.kind == recCounter:
	case s.replaying.ended[r.session]:
		return nil
	case r.kind == recEndSession:
		s.replaying.ended[r.session] = true
		if s.sessions[r.session] == nil {
			return nil
		}
	case r.kind != recSession && s.sessions[r.session] == nil:
		// Its own record is damaged. A blob with a client's id tells of the type.
		made := record{kind: recSession, session: r.session, flag: r.kind == recSeal && r.text != ""}
		if err := s.apply(made, nil); err != nil {
			return err
		}
	}
	switch key := (QueuedID{r.session, r.id}); r.kind {
	case recSeal:
		if s.replaying.dropped[key] {
			return nil
		}
		s.openGeneration(r) // if its own record is damaged
		s.replaying.seals[r.file] = append(s.replaying.seals[r.file], placed{r.off, r.off + r.extent, len(s.replaying.seals[r.file]), r.id})
	case recFile:
		s.openGeneration(r)
	case recDrop:
		s.replaying.dropped[key] = true
	case recMove:
		delete(s.replaying.dropped, QueuedID{r.toSession, r.toID})
	}
	return s.apply(r, nil)
}

// replay is what is known only while a journal is replayed. The deletion of
// objects is recorded before their blobs are dropped; another connection can
// seal such a blob, or Tidy relocate it, in between. Ids are not used again, so a
// seal that follows a drop is void.
type replay struct {
	ended   map[object.SessionID]bool
	dropped map[QueuedID]bool
	seals   map[int32][]placed // by file
}

// openGeneration opens the file that a record names, or whose number it has. A
// file that is not there was removed with its last blob: journals go on to tell
// of the blobs that were in it. What is still in it at the end is lost.
func (s *Store) openGeneration(r record) {
	if s.regions[r.file] != nil {
		return
	}
	name := ""
	if r.kind == recFile {
		name = r.text
	}
	f, err := s.home.Open(name, r.file)
	gen := &region{file: f, session: r.session, kind: generationRegion, closed: true}
	if err != nil {
		gen.file, gen.missing = shm.MissingFile(r.file), true
	}
	s.regions[r.file] = gen
}

// Recovered is what Finish found after the journal was replayed.
type Recovered struct {
	Blobs   int
	Bytes   int64
	Lost    []object.ID // blobs whose bytes were reused or whose file is gone
	Chunks  []QueuedID  // stream chunks and queued objects, to be deleted
	Session []object.SessionID
}

// EndReplay completes recovery before the store is used: it drops blobs that
// contradict each other (possible only after a damaged journal) and lists what
// does not survive: the chunks of 0.24 streams.
func (s *Store) EndReplay(damaged bool) Recovered {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rec Recovered
	var seals map[int32][]placed
	if s.replaying != nil && damaged {
		seals = s.replaying.seals
	}
	s.replaying = nil
	s.lastFD = max(s.lastFD, s.home.HighestNumber()) // of files whose records are damaged
	byRegion := map[*region][]*Blob{}
	for _, ss := range s.sessions {
		if ss.doomed {
			s.endSession(ss)
			continue
		}
		rec.Session = append(rec.Session, ss.ID)
		for _, b := range ss.blobs {
			byRegion[b.region] = append(byRegion[b.region], b)
		}
	}
	slices.Sort(rec.Session)
	for r, blobs := range byRegion {
		slices.SortFunc(blobs, func(a, b *Blob) int { return int(a.off - b.off) })
		for _, b := range stale(blobs, seals[r.file.Number]) {
			rec.Lost = append(rec.Lost, b.id)
			s.log.Error("a blob whose deletion is damaged is lost: its bytes were used again", "blob", b.id, "file", r.file.Number)
			s.remove(b, nil)
		}
		var last *Blob
		for _, b := range blobs {
			if b.gone {
				continue
			}
			if r.missing || b.off < 0 || b.size < 0 || b.size > b.extent || b.extent > r.file.Size-b.off {
				rec.Lost = append(rec.Lost, b.id)
				s.log.Error("a blob is lost: its pool file is gone or too short", "blob", b.id, "file", r.file.Number)
				s.remove(b, nil)
				continue
			}
			if last != nil && b.off < last.off+last.extent && (b.shared == nil || b.shared != last.shared) {
				older := last
				if b.id < last.id {
					older = b
				}
				rec.Lost = append(rec.Lost, older.id)
				s.log.Error("two blobs claim the same bytes; the older one is lost", "lost", older.id, "file", r.file.Number,
					"first", last.id, "at", last.off, "bytes", last.extent, "second", b.id, "offset", b.off)
				s.remove(older, nil)
				if older == b {
					continue
				}
			}
			last = b
		}
	}
	for n, r := range s.regions {
		if r.missing {
			delete(s.regions, n)
			continue
		}
		r.dead = gaps(r.file.Size, byRegion[r])
	}
	// At once, since a daemon that crashes in its first second would pile them up.
	for _, r := range unmapped(s.generations(func(r *region) bool { return r.live == 0 })) {
		s.letGo(r)
	}
	for key := range s.queued {
		rec.Chunks = append(rec.Chunks, key)
	}
	for _, ss := range s.sessions {
		for _, b := range ss.blobs {
			if _, listed := s.queued[QueuedID{ss.ID, b.id}]; b.chunk && !listed {
				rec.Chunks = append(rec.Chunks, QueuedID{ss.ID, b.id})
			}
			rec.Blobs++
			rec.Bytes += b.size
		}
	}
	clear(s.queued)
	return rec
}

// gaps lists what lies between the live blobs of an earlier file: what was
// deleted there and not used again, and what clients had not sealed.
func gaps(size int64, blobs []*Blob) (out []shm.Extent) {
	var end int64
	for _, b := range blobs {
		if b.gone {
			continue
		}
		if b.off > end {
			out = append(out, shm.Extent{Off: end, Size: b.off - end})
		}
		end = max(end, b.off+b.extent)
	}
	if size > end {
		out = append(out, shm.Extent{Off: end, Size: size - end})
	}
	return out
}

// Start attaches the journal and gives every recovered session a pool file.
func (s *Store) Start(j *journal.Journal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal.Store(j)
	for _, ss := range s.sessions {
		if ss.pool == nil {
			if err := s.openPool(ss); err != nil {
				return err
			}
		}
	}
	return nil
}

// Lock stops every change, for a snapshot that spans packages. Unlock resumes.
func (s *Store) Lock() { s.mu.Lock() }

// Unlock ends Lock.
func (s *Store) Unlock() { s.mu.Unlock() }

// Snapshot appends the whole state as records. The caller holds Lock.
func (s *Store) Snapshot(add func(payload []byte) error) error {
	if err := add(s.encode(record{kind: recCounter, file: s.lastFD})); err != nil {
		return err
	}
	for _, ss := range s.sessions {
		if err := add(s.encode(record{kind: recSession, session: ss.ID, flag: ss.Plasma})); err != nil {
			return err
		}
		if ss.doomed {
			if err := add(s.encode(record{kind: recDoom, session: ss.ID})); err != nil {
				return err
			}
		}
	}
	for _, r := range s.regions {
		if r.kind > generationRegion {
			continue
		}
		owner := r.session
		if s.sessions[owner] == nil { // the session is gone, blobs moved out of it live on
			owner = object.RootSession
		}
		rec := record{kind: recFile, session: owner, file: r.file.Number, text: baseName(r.file)}
		if err := add(s.encode(rec)); err != nil {
			return err
		}
	}
	// A moved blob shares its extent with the one that it was moved from: the
	// first is written as itself, the others as moves.
	for _, ss := range s.sessions {
		for _, b := range ss.blobs {
			if !b.sealed || !b.durable() {
				continue
			}
			if b.shared != nil && b.shared.live[0] != b {
				continue
			}
			if err := add(s.encode(sealRecord(b))); err != nil {
				return err
			}
			for i := 1; b.shared != nil && i < len(b.shared.live); i++ {
				if err := add(s.encode(moveRecord(b, b.shared.live[i]))); err != nil {
					return err
				}
			}
			if b.moved { // a move to itself: what it was moved from may be gone
				if err := add(s.encode(moveRecord(b, b))); err != nil {
					return err
				}
			}
		}
	}
	for key := range s.queued {
		if err := add(s.encode(record{kind: recQueue, session: key.Session, id: key.ID, flag: true})); err != nil {
			return err
		}
	}
	return nil
}

func sealRecord(b *Blob) record {
	rec := record{
		kind: recSeal, session: b.session.ID, id: b.id, file: b.region.file.Number, off: b.off, size: b.size,
		extent: b.extent, created: b.created, pid: b.pid, uid: b.uid, flag: b.chunk,
	}
	if b.plasma != nil {
		rec.text, rec.plasmaSize = b.plasma.id, b.plasma.size
	}
	return rec
}

func moveRecord(from, to *Blob) record {
	rec := record{kind: recMove, session: from.session.ID, id: from.id, toSession: to.session.ID, toID: to.id, flag: to.foreign}
	if to.plasma != nil {
		rec.text = to.plasma.id
	}
	return rec
}

func baseName(f *shm.File) string {
	p := f.Path()
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] == '/' {
			return p[i+1:]
		}
	}
	return p
}

// Files names the pool files that belong to the state.
func (s *Store) Files() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := map[string]bool{}
	for _, r := range s.regions {
		if r.file.Path() != "" {
			keep[baseName(r.file)] = true
		}
	}
	return keep
}

// Tidy works on the closed generations that no other process maps any more:
// blobs that nobody holds move to the session's current file, memory of deleted
// ones is given back, and an empty file is removed. The daemon calls it now and
// then; it copies at most budget bytes.
func (s *Store) Tidy(budget int64) error {
	s.mu.Lock()
	all := s.generations(func(*region) bool { return true })
	// The emptiest first: should the daemon die on the way, files have become
	// fewer, not more.
	slices.SortFunc(all, func(a, b *region) int { return a.live - b.live })
	s.mu.Unlock()
	var errs []error
	for _, r := range unmapped(all) {
		s.mu.Lock()
		dead := r.dead
		r.dead = nil
		s.mu.Unlock()
		for _, e := range dead {
			if err := r.file.Punch(e); err != nil {
				errs = append(errs, fmt.Errorf("give memory of %s back: %w", r.file.Path(), err))
				break
			}
		}
		for _, b := range s.unheld(r) {
			if budget <= 0 {
				break
			}
			budget -= b.extent
			if err := s.relocate(b); err != nil {
				errs = append(errs, err)
				break
			}
		}
		s.mu.Lock()
		s.letGo(r)
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

// letGo removes a generation without blobs. Called with mu held.
func (s *Store) letGo(r *region) {
	if r.live == 0 && s.regions[r.file.Number] == r {
		r.kind = poolRegion
		s.dropRegionIfEmpty(r)
	}
}

// generations lists those that a condition holds for. Called with mu held.
func (s *Store) generations(which func(*region) bool) (out []*region) {
	for _, r := range s.regions {
		if r.kind == generationRegion && which(r) {
			out = append(out, r)
		}
	}
	return out
}

// unmapped leaves those regions that no other process maps.
func unmapped(list []*region) []*region {
	files := make([]*shm.File, len(list))
	for i, r := range list {
		files[i] = r.file
	}
	used := shm.Used(files...)
	return slices.DeleteFunc(list, func(r *region) bool { return used[r.file] })
}

// unheld lists the blobs of a region that nobody refers to.
func (s *Store) unheld(r *region) []*Blob {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*Blob
	for _, ss := range s.sessions {
		for _, b := range ss.blobs {
			if b.region == r && b.unheld() {
				out = append(out, b)
			}
		}
	}
	return out
}

// unheld reports whether a blob may change its place: nobody refers to it, or to
// another blob in the same extent. Of those that share one it is true for the
// first. Called with mu held.
func (b *Blob) unheld() bool {
	switch {
	case b.gone || b.refs > 0:
		return false
	case b.shared == nil:
		return true
	case b.shared.live[0] != b || b.shared.users > len(b.shared.live):
		return false
	}
	return !slices.ContainsFunc(b.shared.live, func(other *Blob) bool { return other.refs > 0 })
}

// relocate copies a blob that nobody holds to its session's current file.
func (s *Store) relocate(b *Blob) error {
	s.mu.Lock()
	to := b.session.pool
	off, ok := int64(0), false
	if b.unheld() && to != nil {
		off, ok = to.alloc.Alloc(b.extent)
	}
	from, size, src := b.off, b.size, b.region
	s.mu.Unlock()
	if !ok {
		return nil
	}
	err := to.file.Reserve(shm.Extent{Off: off, Size: b.extent}, s.limits)
	if err == nil {
		// A client may have truncated the file: then nothing moves.
		_, err = io.CopyN(io.NewOffsetWriter(to.file, off), io.NewSectionReader(src.file, from, size), size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && b.unheld() && b.region == src {
		rec := sealRecord(b)
		rec.file, rec.off = to.file.Number, off
		if err = s.commit(rec); err == nil {
			return nil
		}
	}
	to.alloc.Free(off, b.extent)
	if err != nil {
		return fmt.Errorf("move blob %s out of an earlier pool file: %w", b.id, err)
	}
	return nil
}

// Shutdown closes all files. What lies in the home stays there.
func (s *Store) Shutdown() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	s.limits.Close()
	for n, r := range s.regions {
		errs = append(errs, r.file.Close())
		delete(s.regions, n)
	}
	return errors.Join(errs...)
}
