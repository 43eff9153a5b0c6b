package meta

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Local is a Backend in the memory of this process. A node without a cluster
// has one to itself; several trees can share one, which is how the rules of a
// cluster are tested without a network.
type Local struct {
	shared bool
	name   string

	mu      sync.Mutex
	data    map[string][]byte     // guarded by mu, as all below
	rev     int64                 // of the newest change
	log     []Batch               // the changes since compacted
	compact int64                 // revisions up to this one are forgotten
	locks   map[string]*localLock // by user key
	lease   uint64                // of the last lock
	moved   chan struct{}         // closed at the next change
}

type localLock struct {
	holder string        // full key of the holder
	freed  chan struct{} // closed when the holder gives it back
}

var _ Backend = (*Local)(nil)

// NewLocal returns the backend of a node on its own.
func NewLocal() *Local {
	return &Local{name: "local", data: map[string][]byte{}, locks: map[string]*localLock{}, moved: make(chan struct{})}
}

// NewHub returns a backend that several trees of this process share.
func NewHub(name string) *Local {
	l := NewLocal()
	l.shared, l.name = true, name
	return l
}

// Shared implements Backend.
func (l *Local) Shared() bool { return l.shared }

// Load implements Backend.
func (l *Local) Load(ctx context.Context) ([]Pair, Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, Position{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	pairs := make([]Pair, 0, len(l.data))
	for k, v := range l.data {
		pairs = append(pairs, Pair{k, v})
	}
	slices.SortFunc(pairs, func(a, b Pair) int { return strings.Compare(a.Key, b.Key) })
	return pairs, Position{l.name, l.rev}, nil
}

// Head implements Backend.
func (l *Local) Head(ctx context.Context) (Position, error) {
	if err := ctx.Err(); err != nil {
		return Position{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return Position{l.name, l.rev}, nil
}

// Watch implements Backend.
func (l *Local) Watch(ctx context.Context, after int64, apply func(Batch)) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		l.mu.Lock()
		if after < l.compact {
			l.mu.Unlock()
			return ErrCompacted
		}
		var next []Batch
		for _, b := range l.log {
			if b.Revision > after {
				next = append(next, b)
			}
		}
		moved := l.moved
		l.mu.Unlock()
		for _, b := range next {
			apply(b)
			after = b.Revision
		}
		if len(next) > 0 {
			continue
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Progress implements Backend: watches are told of every revision anyway.
func (*Local) Progress(context.Context) error { return nil }

// Commit implements Backend.
func (l *Local) Commit(ctx context.Context, conditions []Condition, changes []Change) (Position, bool, error) {
	if err := ctx.Err(); err != nil {
		return Position{}, false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conditions {
		if !l.holds(c) {
			return Position{l.name, l.rev}, false, nil
		}
	}
	var done []Change
	for _, c := range changes {
		switch {
		case !c.Delete:
			l.data[c.Key] = c.Value
			done = append(done, c)
		default:
			for k := range l.data {
				if k == c.Key || c.Prefix && strings.HasPrefix(k, c.Key) {
					delete(l.data, k)
					done = append(done, Delete(k))
				}
			}
		}
	}
	if len(done) > 0 {
		l.step(done)
	}
	return Position{l.name, l.rev}, true, nil
}

// step makes a revision of changes. Called with mu held.
func (l *Local) step(done []Change) {
	l.rev++
	l.log = append(l.log, Batch{l.rev, done})
	if !l.shared && len(l.log) > 1024 { // one watcher, which is never far behind
		l.log = slices.Clone(l.log[512:])
		l.compact = l.log[0].Revision - 1
	}
	close(l.moved)
	l.moved = make(chan struct{})
}

func (l *Local) holds(c Condition) bool {
	switch c.Is {
	case Equals:
		v, ok := l.data[c.Key]
		return ok && bytes.Equal(v, c.Equals)
	case NoneUnder, SomeUnder:
		some := false
		for k := range l.data {
			some = some || strings.HasPrefix(k, c.Key)
		}
		for _, held := range l.locks {
			some = some || strings.HasPrefix(held.holder, c.Key)
		}
		return some == (c.Is == SomeUnder)
	}
	return false
}

// Forget drops the history: watches that are behind must load again.
func (l *Local) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log, l.compact = nil, l.rev
}

// Wipe replaces the store by an empty one.
func (l *Local) Wipe() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data, l.log, l.rev, l.compact = map[string][]byte{}, nil, 0, 0
	l.locks = map[string]*localLock{}
	close(l.moved)
	l.moved = make(chan struct{})
}

// Lock implements Backend.
func (l *Local) Lock(ctx context.Context, key string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	for {
		l.mu.Lock()
		held := l.locks[key]
		if held == nil {
			l.lease++
			full := key + "/" + strconv.FormatUint(l.lease, 16)
			l.locks[key] = &localLock{holder: full, freed: make(chan struct{})}
			l.mu.Unlock()
			return full, nil
		}
		l.mu.Unlock()
		select {
		case <-held.freed:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for lock %q: %w", key, ctx.Err())
		}
	}
}

// Unlock implements Backend.
func (l *Local) Unlock(_ context.Context, full string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, held := range l.locks {
		if held.holder == full {
			delete(l.locks, key)
			close(held.freed)
		}
	}
	return nil
}

// Close implements Backend: there is nothing to end.
func (*Local) Close() error { return nil }
