package store

import "fmt"

// check is Check with mu held.
func (s *Store) check(holders []*Holder) error {
	var usage, deferred, cached, idle int64
	type sums struct {
		live  int
		bytes int64
	}
	regions := map[*region]*sums{}
	for _, r := range s.regions {
		regions[r] = &sums{}
	}
	seen := map[*sharing]bool{}
	count := func(b *Blob) error {
		sum := regions[b.region]
		if sum == nil {
			return fmt.Errorf("blob %s lies in a region that is gone", b.id)
		}
		if b.shared != nil {
			if seen[b.shared] {
				return nil
			}
			seen[b.shared] = true
		}
		sum.live++
		sum.bytes += b.extent
		return nil
	}
	refs := map[*Blob][3]int32{}
	for _, h := range holders {
		for _, r := range h.refs {
			if r.blob == nil {
				continue
			}
			c := refs[r.blob]
			c[0]++
			if r.get {
				c[1]++
				if h.strict {
					c[2]++
				}
			}
			refs[r.blob] = c
		}
		for _, b := range h.transit {
			c := refs[b]
			refs[b] = [3]int32{c[0] + 1, c[1] + 1, c[2] + 1}
		}
	}
	for _, ss := range s.sessions {
		for id, b := range ss.blobs {
			if b.id != id || b.session != ss || b.gone {
				return fmt.Errorf("blob %s is filed wrongly", id)
			}
			if b.counted {
				usage += b.size
			}
			if got := [3]int32{b.refs, b.gets, b.strict}; got != refs[b] {
				return fmt.Errorf("blob %s: references %v, holders say %v", id, got, refs[b])
			}
			if b.cached {
				cached += b.size
				if !b.sealed || b.inList(&s.idle) != (b.refs == 0) {
					return fmt.Errorf("cached blob %s: sealed %v, %d references, idle %v", id, b.sealed, b.refs, b.inList(&s.idle))
				}
			}
			if err := count(b); err != nil {
				return err
			}
		}
	}
	for b := s.idle.first; b != nil; b = b.next {
		idle += b.size
	}
	if cached != s.cached || idle != s.idleBytes {
		return fmt.Errorf("cached %d (sum %d), idle %d (sum %d)", s.cached, cached, s.idleBytes, idle)
	}
	n := 0
	for b := s.zombies.first; b != nil; b = b.next {
		n++
		deferred += b.extent
		if !b.gone || b.gets == 0 {
			return fmt.Errorf("zombie %s: gone %v, gets %d", b.id, b.gone, b.gets)
		}
		if err := count(b); err != nil {
			return err
		}
	}
	if usage != s.usage || deferred != s.deferred || n != s.zombies.n {
		return fmt.Errorf("usage %d (sum %d), deferred %d (sum %d), zombies %d (list %d)", s.usage, usage, s.deferred, deferred, s.zombies.n, n)
	}
	for r, sum := range regions {
		if r.live != sum.live || r.bytes != sum.bytes {
			return fmt.Errorf("file %d: %d blobs of %d bytes, sums say %d of %d", r.file.Number, r.live, r.bytes, sum.live, sum.bytes)
		}
		if r.alloc == nil {
			continue
		}
		if err := r.alloc.Check(); err != nil {
			return fmt.Errorf("file %d: %w", r.file.Number, err)
		}
	}
	return nil
}
