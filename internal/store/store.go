// Package store keeps the blobs of one daemon: their memory, who holds them,
// and what they add up to.
//
// Vocabulary: a Session is an isolated set of blobs in a pool file of its own;
// all sessions count against one limit. A region is one file that blobs lie in:
// a session's pool file, a closed generation (the pool file of an earlier
// daemon on this socket: served from, never allocated from), a disk file or an
// arena. A Holder is what one connection holds. A zombie is a deleted blob whose
// memory another connection may still be reading. The ledger is the account of
// all that: every byte of every region belongs to a blob, a zombie, or is free.
//
// Life of a blob: created (unsealed, owned by its creator's connection), sealed,
// referenced or cold, deleted. A connection that dies takes its unsealed blobs
// and its references with it.
//
// Every change that must survive a crash is a record: it is appended to the
// journal and then goes through apply, which is the only way in; recovery is
// apply in a loop.
package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
)

// Options configures a Store.
type Options struct {
	Limit  int64 // bytes that blobs of all sessions may take together
	Strict bool  // never reuse memory that a 0.24 client may still read
	IDs    *object.Generator
	Log    *slog.Logger
}

// Store is the blob store of a daemon. Its methods are safe for concurrent use.
type Store struct {
	opts   Options
	home   *shm.Home
	limits *shm.Limits
	ids    *object.Generator
	log    *slog.Logger

	journal atomic.Pointer[journal.Journal] // nil while recovering

	mu          sync.Mutex
	sessions    map[object.SessionID]*Session // guarded by mu, as all below
	regions     map[int32]*region             // by store_fd number
	lastFD      int32
	usage       int64 // bytes of blobs that count against the limit; zombies do not
	deferred    int64 // bytes of zombies
	zombies     blobList
	idle        blobList // cached blobs that nobody reads, the one used longest ago first
	idleBytes   int64    // of those
	cached      int64    // bytes of all cached blobs
	cachedBlobs int
	scratch     []byte        // for journal records
	freed       chan struct{} // closed and replaced whenever memory becomes free
	queued      map[QueuedID]struct{}
	replaying   *replay  // nil but for the time of recovery
	carved      *carving // what is being reserved ahead, nil for nothing
	resting     bool     // nothing is reserved ahead until the next create
	count       Counters

	ahead     chan struct{} // wakes KeepAhead
	stepping  sync.Mutex    // held while a step is reserved ahead; before mu
	reserving atomic.Int32  // creates that wait for memory
}

// QueuedID names a blob or object of a session that lies in a 0.24 stream;
// recovery deletes what is still queued, since such streams do not survive.
type QueuedID struct {
	Session object.SessionID
	ID      object.ID
}

// Session is one isolated set of blobs. Its fields are guarded by the store.
type Session struct {
	store  *Store
	ID     object.SessionID
	Plasma bool
	dead   bool
	doomed bool    // deleted, but still in use by connections
	pool   *region // current pool file
	blobs  map[object.ID]*Blob
	plasma map[string]*Blob
}

// region is one file that blobs lie in.
type region struct {
	file    *shm.File
	alloc   *shm.Allocator // nil where nothing is allocated: closed generations, disk, arenas
	session object.SessionID
	kind    regionKind
	live    int   // blobs and zombies in it
	bytes   int64 // their bytes
	busy    bool  // something was created in it: worth reserving ahead for
	closed  bool  // remove the file with its last blob
	missing bool  // while recovering: the file is not there
	dead    []shm.Extent
}

type regionKind uint8

const (
	poolRegion regionKind = iota
	generationRegion
	diskRegion
	arenaRegion
)

func (k regionKind) String() string {
	return [...]string{"pool", "generation", "disk", "arena"}[k]
}

// blobBase is where the first blob of a pool file starts: the pseudo blob that
// spans the pool begins there too, and 0.24 never uses offset 0.
const blobBase = 64

// Blob is one blob. Its fields are guarded by the store; the store hands out
// Views.
type Blob struct {
	id      object.ID
	session *Session
	region  *region
	off     int64
	size    int64
	extent  int64 // size at creation: what was allocated
	created int64 // unix seconds
	pid     int32 // of the creator
	uid     int32
	refs    int32 // connections that hold any reference
	gets    int32 // connections that hold a reference by get
	strict  int32 // gets that are always waited for

	sealed  bool
	foreign bool // owned by another session since a move
	moved   bool // pinned by a move
	chunk   bool // belongs to a stream
	counted bool // counts against the limit
	cached  bool // a copy of another instance's blob: see cache.go
	gone    bool // deleted; the record lives on as long as someone refers to it

	creator *Holder // while unsealed
	plasma  *plasmaInfo
	shared  *sharing // set once the blob was moved, or made by a move

	prev, next *Blob // in the list of zombies, or of idle cached blobs
}

// sharing is an extent that blobs of several sessions have in common since a
// move. Its bytes count once against the limit, for one of the live ones.
type sharing struct {
	users int     // blobs, zombies included
	live  []*Blob // those that are not deleted, in the order of the moves
}

type plasmaInfo struct {
	id   string
	size int64
}

// View is what a client needs to know to read or write a blob.
type View struct {
	ID         object.ID
	File       *shm.File // nil for the empty blob
	Off, Size  int64
	MapSize    int64
	Sealed     bool
	Owner      bool
	Plasma     string
	PlasmaSize int64
	Refs       int32
}

func (b *Blob) view() View {
	v := View{ID: b.id, File: b.region.file, Off: b.off, Size: b.size, Sealed: b.sealed, Owner: !b.foreign, Refs: b.refs}
	v.MapSize = b.region.file.MapSize()
	if b.plasma != nil {
		v.Plasma, v.PlasmaSize = b.plasma.id, b.plasma.size
	}
	return v
}

// emptyView is the empty blob, which needs no memory.
var emptyView = View{ID: object.EmptyBlob, Owner: true}

// Counters count what happened since the start.
type Counters struct {
	Reclaimed      uint64 `json:"reclaimed_blobs"` // zombies reused although a 0.24 client might read them
	ReclaimedBytes uint64 `json:"reclaimed_bytes"`
	Orphans        uint64 `json:"orphaned_blobs"` // unsealed blobs of connections that died
	OrphanBytes    uint64 `json:"orphaned_bytes"`
	OutOfMemory    uint64 `json:"out_of_memory"`
	Evicted        uint64 `json:"evicted_blobs"` // cached ones that went for want of memory
	EvictedBytes   uint64 `json:"evicted_bytes"`
}

// New returns a store without sessions whose pool files lie in home. The
// journal is attached by Recover or Start.
func New(home *shm.Home, opts Options) *Store {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{
		opts: opts, home: home, limits: shm.NewLimits(), ids: opts.IDs, log: opts.Log,
		sessions: map[object.SessionID]*Session{}, regions: map[int32]*region{},
		queued: map[QueuedID]struct{}{}, ahead: make(chan struct{}, 1),
	}
}

// Limit returns the most bytes that blobs may take together.
func (s *Store) Limit() int64 { return s.opts.Limit }

// Usage returns the bytes of all live blobs that count against the limit.
func (s *Store) Usage() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usage
}

// Freed returns a channel that is closed when memory becomes free next.
func (s *Store) Freed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.freed == nil {
		s.freed = make(chan struct{})
	}
	return s.freed
}

// Fits reports whether so many more bytes stay below a percentage of the limit,
// and are to be had in one piece: free, or held by clients that are not waited
// for.
func (ss *Session) Fits(size int64, percent int) bool {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.usage-s.idleBytes+size >= s.opts.Limit/100*int64(percent) {
		return false
	}
	return ss.dead || ss.pool.alloc.Fits(size) || s.idle.n > 0 || s.oldestReclaimable(ss.pool) != nil
}

// NewSession adds a session with a pool file of its own.
func (s *Store) NewSession(id object.SessionID, plasma bool) (*Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[id] != nil {
		return nil, status.Errorf(status.ObjectExists, "session %s exists", id)
	}
	if err := s.commit(record{kind: recSession, session: id, flag: plasma}); err != nil {
		return nil, err
	}
	ss := s.sessions[id]
	if err := s.openPool(ss); err != nil {
		return nil, errors.Join(err, s.commit(record{kind: recEndSession, session: id}))
	}
	return ss, nil
}

// openPool gives a session a new pool file. Called with mu held.
func (s *Store) openPool(ss *Session) error {
	s.lastFD++
	number := s.lastFD
	name := fmt.Sprintf("pool-%s-%d", ss.ID, number)
	f, err := s.home.NewPoolFile(name, number, s.opts.Limit)
	if err != nil {
		return fmt.Errorf("create the pool file: %w", err)
	}
	if err := s.commit(record{kind: recFile, session: ss.ID, file: number, text: name}); err != nil {
		return errors.Join(err, f.Close(), f.Remove())
	}
	space := (f.Size - blobBase) / shm.Align * shm.Align
	r := &region{file: f, alloc: shm.NewAllocator(blobBase, space), session: ss.ID}
	s.regions[number] = r
	ss.pool = r
	return nil
}

// Session returns a session by id.
func (s *Store) Session(id object.SessionID) (*Session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ss, ok := s.sessions[id]
	return ss, ok
}

// Delete ends a session: all its blobs go. Blobs that another session took over
// keep the file alive.
func (ss *Session) Delete() error {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if ss.dead {
		return nil
	}
	return s.commit(record{kind: recEndSession, session: ss.ID})
}

// Doom records that a session was deleted, while connections still use it.
// Should the daemon die before the last of them ends, it does not come back.
func (ss *Session) Doom() error {
	s := ss.store
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commit(record{kind: recDoom, session: ss.ID})
}

// endSession drops the blobs of a session and forgets it. Called with mu held.
func (s *Store) endSession(ss *Session) {
	ss.dead = true
	for _, b := range ss.blobs {
		s.remove(b, nil)
	}
	for key := range s.queued {
		if key.Session == ss.ID { // a record of it would bring the session back
			delete(s.queued, key)
		}
	}
	delete(s.sessions, ss.ID)
	if ss.pool != nil {
		ss.pool.closed = true
		s.dropRegionIfEmpty(ss.pool)
	}
}

// dropRegionIfEmpty closes and unlinks a closed file without blobs. Clients
// that map it keep their mapping. Called with mu held.
func (s *Store) dropRegionIfEmpty(r *region) {
	if !r.closed || r.live > 0 || r.kind == generationRegion || s.regions[r.file.Number] != r {
		return // generations are let go by Tidy, once nobody maps them
	}
	delete(s.regions, r.file.Number)
	if r.kind != diskRegion {
		if err := r.file.Remove(); err != nil {
			s.log.Warn("cannot remove a pool file", "file", r.file.Path(), "err", err)
		}
	}
	if err := r.file.Close(); err != nil {
		s.log.Warn("cannot close a pool file", "file", r.file.Path(), "err", err)
	}
}

// Create makes an unsealed blob of size bytes that the holder owns. Size 0 is
// the empty blob. The memory is not zeroed.
func (ss *Session) Create(h *Holder, size int64) (View, error) {
	if size == 0 {
		return emptyView, nil
	}
	_, v, err := ss.create(h, size, false)
	return v, err
}

// CreateAll makes several blobs, all or none.
func (ss *Session) CreateAll(h *Holder, sizes []int64) ([]View, error) {
	return ss.createAll(h, sizes, false)
}

func (ss *Session) createAll(h *Holder, sizes []int64, keep bool) ([]View, error) {
	views := make([]View, len(sizes))
	for i, size := range sizes {
		if size == 0 {
			views[i] = emptyView
			continue
		}
		_, v, err := ss.create(h, size, keep)
		if err != nil {
			for _, made := range views[:i] {
				if made.File == nil {
					continue
				}
				_ = ss.Drop(h, made.ID)
				if keep { // nobody writes there any more
					ss.store.mu.Lock()
					ss.store.unholdLast(h)
					ss.store.mu.Unlock()
				}
			}
			return nil, err
		}
		views[i] = v
	}
	return views, nil
}

// create makes an unsealed blob. Whoever deletes it before its pages are
// reserved must not free it: it is held meanwhile, and with keep until Unhold.
func (ss *Session) create(h *Holder, size int64, keep bool) (*Blob, View, error) {
	s := ss.store
	s.mu.Lock()
	off, err := ss.place(size)
	for s.carved != nil && (errors.Is(err, errNoRoom) || err == nil && size >= aheadStep && s.carved.before(ss.pool, off)) {
		// Part of the pool is out of use while it is reserved ahead: it may be
		// what is lacking, or keep a blob from the memory that is ready.
		if err == nil {
			ss.pool.alloc.Free(off, size)
		}
		step := s.carved
		s.mu.Unlock()
		<-step.done
		s.mu.Lock()
		off, err = ss.place(size)
	}
	if errors.Is(err, errNoRoom) || errors.Is(err, errOverLimit) {
		err = s.outOfMemory(size)
	}
	if err != nil {
		s.mu.Unlock()
		return nil, View{}, err
	}
	b := &Blob{
		id: s.ids.Blob(), session: ss, region: ss.pool, off: off, size: size, extent: size,
		created: time.Now().Unix(), pid: h.pid, uid: h.uid, creator: h, counted: true,
	}
	ss.pool.live++
	ss.pool.bytes += size
	s.usage += size
	ss.blobs[b.id] = b
	h.unsealed[b] = struct{}{}
	s.hold(h, b)
	file := ss.pool.file
	s.wantAhead(ss.pool)
	s.mu.Unlock()

	err = s.reserve(file, shm.Extent{Off: off, Size: size})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.remove(b, h)
	}
	if err != nil || !keep {
		s.unholdLast(h)
	}
	if errors.Is(err, status.NotEnoughMemory) {
		s.count.OutOfMemory++
		err = status.Errorf(status.NotEnoughMemory, "Failed to allocate memory of size %d: %w%s", size, err, s.topConsumers())
	}
	if err != nil {
		return nil, View{}, err
	}
	return b, b.view(), nil
}

var (
	errOverLimit = errors.New("more than the pool may hold")
	errNoRoom    = errors.New("no free extent is that large")
)

// place finds room for a new blob. Called with mu held.
func (ss *Session) place(size int64) (int64, error) {
	s := ss.store
	if ss.dead {
		return 0, status.Errorf(status.Invalid, "session %s is gone", ss.ID)
	}
	if size < 0 || size > s.opts.Limit || s.usage-s.idleBytes+size > s.opts.Limit {
		return 0, errOverLimit
	}
	for s.usage+size > s.opts.Limit {
		s.evictOne(nil)
	}
	if err := ss.pool.file.Damaged(); err != nil {
		return 0, err
	}
	off, ok := s.allocate(ss.pool, size)
	if !ok {
		return 0, errNoRoom
	}
	return off, nil
}

// JournalRoom reports whether the machine, the memory cgroups and the file
// system of the pool have room for so many more bytes beside the pool.
func (s *Store) JournalRoom(n int64) error {
	if err := s.limits.Room(n); err != nil {
		return err
	}
	if free, ok := s.home.Free(); ok && free < n {
		return status.Errorf(status.NotEnoughMemory, "the file system of the pool has %d KiB left, %d are needed", free>>10, n>>10).
			WithHint("delete objects, or give it more room")
	}
	return nil
}

// reserve puts an extent on real memory. When there is none left, memory that
// lies free elsewhere in the pools is given back for it, then that of zombies
// which only 0.24 clients hold. Called without mu: it takes its time.
func (s *Store) reserve(f *shm.File, e shm.Extent) error {
	s.reserving.Add(1)
	defer s.reserving.Add(-1)
	for {
		err := f.Reserve(e, s.limits)
		if !errors.Is(err, status.NotEnoughMemory) {
			return err
		}
		given, trimErr := s.trimFree(e.Size + shm.Unit)
		if trimErr != nil {
			return errors.Join(err, trimErr)
		}
		if given > 0 {
			continue
		}
		s.mu.Lock()
		ok := s.evictOne(nil) || s.reclaimOne(nil)
		s.mu.Unlock()
		if !ok {
			return err
		}
	}
}

// allocate finds room in a pool, reusing zombies if need be. Called with mu held.
func (s *Store) allocate(r *region, size int64) (int64, bool) {
	for {
		if off, ok := r.alloc.Alloc(size); ok {
			return off, true
		}
		if s.evictOne(r) {
			continue
		}
		if s.carved != nil || !s.reclaimOne(r) {
			return 0, false
		}
	}
}

// reclaimOne frees the oldest zombie of a region, or of any, that only 0.24
// clients hold. Called with mu held.
func (s *Store) reclaimOne(r *region) bool {
	b := s.oldestReclaimable(r)
	if b == nil {
		return false
	}
	s.count.Reclaimed++
	s.count.ReclaimedBytes += uint64(b.extent)
	s.log.Warn("reused the memory of a deleted blob that a 0.24 client never released",
		"blob", b.id, "bytes", b.extent, "creator_pid", b.pid)
	s.bury(b)
	return true
}

func (s *Store) oldestReclaimable(r *region) *Blob {
	if s.opts.Strict {
		return nil
	}
	for b := s.zombies.first; b != nil; b = b.next {
		if b.strict == 0 && (r == nil || b.region == r) {
			return b
		}
	}
	return nil
}

// outOfMemory makes the error for a request that does not fit. Called with mu
// held.
func (s *Store) outOfMemory(size int64) error {
	s.count.OutOfMemory++
	err := status.Errorf(status.NotEnoughMemory,
		"Failed to allocate memory of size %d, total available memory size are %d, and %d are already in use%s",
		uint64(size), s.opts.Limit, s.usage, s.topConsumers())
	return err.WithHint("delete objects (v6d ls shows them), or start the daemon with a larger --size")
}

// topConsumers names the creators that hold most. Called with mu held.
func (s *Store) topConsumers() string {
	type consumer struct{ pid, bytes int64 }
	byPID := map[int64]int64{}
	for _, ss := range s.sessions {
		for _, b := range ss.blobs {
			if b.counted {
				byPID[int64(b.pid)] += b.size
			}
		}
	}
	var top []consumer
	for pid, n := range byPID {
		i := 0
		for i < len(top) && top[i].bytes >= n {
			i++
		}
		top = append(top[:i], append([]consumer{{pid, n}}, top[i:]...)...)
		top = top[:min(len(top), 3)]
	}
	text := ""
	for _, c := range top {
		text += fmt.Sprintf("; blobs made by process %d: %d bytes", c.pid, c.bytes)
	}
	if s.deferred > 0 {
		text += fmt.Sprintf("; deleted but still held: %d bytes", s.deferred)
	}
	return text
}

// Exists reports whether a blob is known, sealed or not. The all-ones id is,
// the empty blob is not, as in 0.24.
func (ss *Session) Exists(id object.ID) bool {
	if id == object.InvalidID {
		return true
	}
	ss.store.mu.Lock()
	defer ss.store.mu.Unlock()
	return ss.blobs[id] != nil
}

// Sealed returns the size of a sealed blob.
func (ss *Session) Sealed(id object.ID) (size int64, ok bool) {
	switch id {
	case object.EmptyBlob:
		return 0, true
	case object.InvalidID:
		return ss.store.opts.Limit, true
	}
	ss.store.mu.Lock()
	defer ss.store.mu.Unlock()
	b := ss.blobs[id]
	if b == nil || !b.sealed {
		return 0, false
	}
	return b.size, true
}

// SealedIDs returns the ids of all sealed blobs, in no order; cached ones are left
// out.
func (ss *Session) SealedIDs() []object.ID {
	ss.store.mu.Lock()
	defer ss.store.mu.Unlock()
	ids := make([]object.ID, 0, len(ss.blobs))
	for id, b := range ss.blobs {
		if b.sealed && !b.cached {
			ids = append(ids, id)
		}
	}
	return ids
}

// CheckFiles reports a pool file that a client truncated.
func (s *Store) CheckFiles() error {
	s.mu.Lock()
	files := make([]*shm.File, 0, len(s.regions))
	for _, r := range s.regions {
		if r.kind <= generationRegion {
			files = append(files, r.file)
		}
	}
	s.mu.Unlock()
	for _, f := range files {
		if err := f.CheckSize(); err != nil && !errors.Is(err, os.ErrClosed) {
			return err
		}
	}
	return nil
}

// AllIDs returns the ids of all blobs, in no order.
func (ss *Session) AllIDs() []object.ID {
	ss.store.mu.Lock()
	defer ss.store.mu.Unlock()
	ids := make([]object.ID, 0, len(ss.blobs))
	for id := range ss.blobs {
		ids = append(ids, id)
	}
	return ids
}
