package store

import (
	"context"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
)

// Pages are put behind the pool before somebody asks for them, because the first
// write to a page that the machine must find and zero is many times slower than
// one to a page that is there: on virtual machines that give free huge pages
// back to their host most of all. What is reserved ahead lies at the end of each
// pool file that is in use, where new extents are cut from when nothing that was
// freed fits.
const (
	aheadLeast = 72 << 20  // room for a blob of 64 MiB, wherever it starts
	aheadMost  = 256 << 20 // of all pools together
	aheadStep  = 4 << 20   // reserved at a time: creates wait for one step at most
	aheadSpare = 256 << 20 // the machine keeps this much for others
)

// carving is a place that is out of use while it is reserved ahead.
type carving struct {
	in   *region
	at   shm.Extent
	done chan struct{} // closed when it is in use again
}

// before reports whether an extent lies behind the place, in the same pool.
func (c *carving) before(r *region, off int64) bool { return c.in == r && c.at.Off < off }

// aheadTarget returns how many free bytes of a pool should lie on real memory.
// Called with mu held.
func (s *Store) aheadTarget() int64 {
	if s.opts.Limit < 64<<20 {
		return 0
	}
	n := min(max(s.opts.Limit/16, aheadLeast), aheadMost, s.opts.Limit/4, s.opts.Limit-s.usage)
	return max(n, 0) / shm.Unit * shm.Unit
}

// slack returns how many free bytes of a pool lie on real memory.
func (r *region) slack() int64 { return r.file.ReservedBytes() - r.alloc.Used() }

// wantAhead notes that a pool is in use, and wakes KeepAhead when little is left
// there. Called with mu held.
func (s *Store) wantAhead(r *region) {
	s.resting = false
	r.busy = true
	if r.slack() < s.aheadTarget()/2 {
		select {
		case s.ahead <- struct{}{}:
		default: // it is awake
		}
	}
}

// KeepAhead reserves memory ahead of need, in small steps and at most half of
// the time, until ctx ends. Trim makes it rest until the next create.
func (s *Store) KeepAhead(ctx context.Context) {
	s.mu.Lock()
	if ss := s.sessions[object.RootSession]; ss != nil {
		s.wantAhead(ss.pool)
	}
	s.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.ahead:
		}
		for {
			start := time.Now()
			if !s.stepAhead() {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(max(time.Since(start), 2*time.Millisecond)):
			}
		}
	}
}

// stepAhead reserves one step for one pool. It returns false when there is
// nothing to do.
func (s *Store) stepAhead() bool {
	s.stepping.Lock()
	defer s.stepping.Unlock()
	if s.reserving.Load() > 0 { // who waits for memory goes first
		return true
	}
	s.mu.Lock()
	r, e := s.nextStep()
	if r == nil {
		s.mu.Unlock()
		return false
	}
	rest := s.opts.Limit - s.usage - r.slack()
	s.mu.Unlock()

	err := s.limits.Room(e.Size + aheadSpare)
	if lacks := s.home.Lacks(rest); err == nil && lacks > 0 {
		err = status.Errorf(status.NotEnoughMemory, "the file system of the pool lacks %d bytes", lacks)
	}
	s.mu.Lock()
	if err != nil {
		s.log.Debug("no memory is reserved ahead", "err", err)
		s.resting = true
	}
	if err != nil || !r.alloc.CarveTail(e.Off, e.Size) {
		s.mu.Unlock()
		return err == nil
	}
	s.carved = &carving{r, e, make(chan struct{})}
	s.mu.Unlock()

	err = r.file.Prefault(e, s.limits)
	s.mu.Lock()
	defer s.mu.Unlock()
	r.alloc.Free(e.Off, e.Size)
	close(s.carved.done)
	s.carved = nil
	s.wake() // who found no room meanwhile
	if err != nil {
		s.log.Debug("no memory is reserved ahead", "err", err)
		r.busy = false // until the next create there
	}
	return true
}

// nextStep finds the pool that needs memory ahead most, and where. Called with
// mu held.
func (s *Store) nextStep() (most *region, at shm.Extent) {
	least := s.aheadTarget()
	if s.resting || least == 0 {
		return nil, at
	}
	var total int64
	for _, r := range s.regions {
		if r.alloc == nil || r.closed {
			continue
		}
		slack := r.slack()
		total += slack
		if !r.busy || slack >= least {
			continue
		}
		tail := r.alloc.Tail()
		e := shm.Extent{Off: (tail.Off+shm.Unit-1)/shm.Unit*shm.Unit + r.file.BackedFrom(tail)}
		if e.Size = min(aheadStep, (tail.Off+tail.Size-e.Off)/shm.Unit*shm.Unit); e.Size > 0 {
			most, least, at = r, slack, e
		}
	}
	if total >= aheadMost {
		return nil, at
	}
	return most, at
}
