package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/v6d-go/v6d/internal/object"
)

// Account is the ledger's sums. All are bytes unless they say otherwise;
// Used + Free is the size of all pool files that are allocated from.
type Account struct {
	Limit       int64 `json:"limit"`
	Usage       int64 `json:"usage"`       // live blobs, counted against the limit
	Deferred    int64 `json:"deferred"`    // deleted, but still held by a reader
	Unsealed    int64 `json:"unsealed"`    // part of usage
	Uncounted   int64 `json:"uncounted"`   // disk and arena blobs
	Cached      int64 `json:"cached"`      // part of usage: copies of other instances' blobs, which go first
	CachedIdle  int64 `json:"cached_idle"` // part of cached that nobody reads
	Overhead    int64 `json:"overhead"`    // rounding and shrunk tails inside the pool files
	Free        int64 `json:"free"`        // free in the pool files
	Reserved    int64 `json:"reserved"`    // real memory behind the pool files
	Blobs       int   `json:"blobs"`       // number of live blobs
	Zombies     int   `json:"zombies"`     // number of deleted blobs that are still held
	Sessions    int   `json:"sessions"`    // number of sessions
	Files       int   `json:"files"`       // number of pool files, earlier generations included
	Ahead       int64 `json:"ahead"`       // part of reserved that is free at the end of a pool file
	Earlier     int64 `json:"earlier"`     // bytes of blobs in files of earlier daemons
	Counters          // since the start
	PoolFileMax int64 `json:"pool_file_bytes"` // size of all pool files that are allocated from
}

// Account sums the ledger up.
func (s *Store) Account() Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := Account{
		Limit: s.opts.Limit, Usage: s.usage, Deferred: s.deferred, Zombies: s.zombies.n,
		Sessions: len(s.sessions), Counters: s.count, Cached: s.cached, CachedIdle: s.idleBytes,
	}
	var used int64
	for _, r := range s.regions {
		if r.kind <= generationRegion {
			a.Files++
		}
		switch {
		case r.alloc != nil:
			a.PoolFileMax += r.alloc.Size()
			a.Free += r.alloc.Size() - r.alloc.Used()
			a.Reserved += r.file.ReservedBytes()
			a.Ahead += r.file.BackedFrom(r.alloc.Tail())
			used += r.alloc.Used()
		case r.kind == generationRegion:
			a.Earlier += r.bytes
		default:
			a.Uncounted += r.bytes
		}
	}
	for _, ss := range s.sessions {
		a.Blobs += len(ss.blobs)
		for _, b := range ss.blobs {
			if !b.sealed {
				a.Unsealed += b.size
			}
			if b.counted && b.region.alloc != nil {
				used -= b.size
			}
		}
	}
	if s.carved != nil { // out of use for a moment, but free
		used -= s.carved.at.Size
		a.Free += s.carved.at.Size
	}
	for z := s.zombies.first; z != nil; z = z.next {
		if z.region.alloc != nil {
			used -= z.extent
		}
	}
	a.Overhead = used
	return a
}

// Entry is one blob as the ledger sees it.
type Entry struct {
	ID      object.ID        `json:"id"`
	Session object.SessionID `json:"-"`
	Size    int64            `json:"size"`
	Sealed  bool             `json:"sealed"`
	Deleted bool             `json:"deleted"`
	Refs    int              `json:"refs"` // connections that hold a reference
	PID     int              `json:"pid"`  // of the creator; 0 for remote ones
	UID     int              `json:"uid"`
	Created time.Time        `json:"created"`
	Where   string           `json:"where"` // pool, generation, disk, arena or cache
	Chunk   bool             `json:"chunk"` // belongs to a stream
}

// Entries lists about limit blobs of a session with ids above one, zombies included,
// in id order. With next it goes on, unless that is 0.
func (ss *Session) Entries(after object.ID, limit int) (list []Entry, next object.ID) {
	all := ss.above(after)
	slices.SortFunc(all, func(a, b *Blob) int { return cmp.Compare(a.id, b.id) }) // not under the lock
	if len(all) > limit {
		all = all[:limit]
		next = all[limit-1].id
	}
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	list = make([]Entry, 0, len(all))
	for _, b := range all {
		if !b.gone || b.gets > 0 { // or it was freed meanwhile
			list = append(list, b.entry())
		}
	}
	return list, next
}

// above returns blobs with ids above one, in no order.
func (ss *Session) above(after object.ID) (all []*Blob) {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, b := range ss.blobs {
		if id > after {
			all = append(all, b)
		}
	}
	for b := s.zombies.first; b != nil; b = b.next {
		if b.session == ss && b.id > after {
			all = append(all, b)
		}
	}
	return all
}

func (b *Blob) entry() Entry {
	where := b.region.kind.String()
	if b.cached {
		where = "cache"
	}
	return Entry{
		ID: b.id, Session: b.session.ID, Size: b.size, Sealed: b.sealed, Deleted: b.gone, Refs: int(b.refs),
		PID: int(b.pid), UID: int(b.uid), Created: time.Unix(b.created, 0).UTC(), Where: where, Chunk: b.chunk,
	}
}

// Check verifies that the ledger balances: usage, deferred bytes and reference
// counts are the sums of their parts, and every allocator's invariants hold.
// holders are all connections. Tests call it when nothing is running.
func (s *Store) Check(holders []*Holder) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.check(holders)
}
