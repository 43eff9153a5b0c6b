package meta

import (
	"context"
	"sync"
	"time"

	"github.com/v6d-go/v6d/internal/object"
)

// EventKind tells what happened to an object.
type EventKind string

// The kinds of events.
const (
	Created   EventKind = "created"
	Persisted EventKind = "persisted"
	Labelled  EventKind = "labelled"
	Named     EventKind = "named"
	Unnamed   EventKind = "unnamed"
	Deleted   EventKind = "deleted"
	Migrated  EventKind = "migrated" // a copy of an object of another instance has come here
)

// Event is one change of the tree. Seq numbers are consecutive in one life of
// the daemon and keep growing across lives.
type Event struct {
	Seq    uint64    `json:"seq"`
	TimeMS int64     `json:"time_ms"`
	Kind   EventKind `json:"event"`
	ID     object.ID `json:"id"`
	Type   string    `json:"typename"`
	Name   string    `json:"name,omitempty"`
}

// feedSize is how many events are remembered for watchers.
const feedSize = 8192

// feed remembers the newest events and wakes watchers. It has its own lock, so
// that watchers do not hold up the tree.
type feed struct {
	*feedState
}

type feedState struct {
	mu    sync.Mutex
	ring  []Event       // guarded by mu: the last feedSize events, oldest at start
	start uint64        // sequence number of ring[0]'s slot base
	next  uint64        // sequence number of the next event
	more  chan struct{} // closed when an event comes; nil while nobody waits
}

// newFeed starts numbering at the time of day, so that cursors of an earlier
// daemon lie below.
func newFeed() feed {
	now := uint64(time.Now().UnixMicro())
	return feed{&feedState{start: now, next: now}}
}

func (f feed) add(kind EventKind, e *entry, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ev := Event{Seq: f.next, TimeMS: time.Now().UnixMilli(), Kind: kind, ID: e.id, Type: e.typ.name, Name: name}
	if len(f.ring) < feedSize {
		f.ring = append(f.ring, ev)
	} else {
		f.ring[(f.next-f.start)%feedSize] = ev
	}
	f.next++
	if f.more != nil {
		close(f.more)
		f.more = nil
	}
}

// Watch returns up to limit events from cursor on, waiting for the first one
// until ctx ends; cursor 0 means from now on. lost tells that events between
// the cursor and the first one returned were forgotten.
func (t *Tree) Watch(ctx context.Context, cursor uint64, typeGlob string, limit int) (events []Event, next uint64, lost bool) {
	f := t.events
	for {
		f.mu.Lock()
		if cursor == 0 || cursor > f.next {
			cursor = f.next
		}
		oldest := f.next - uint64(len(f.ring))
		if cursor < oldest {
			lost, cursor = true, oldest
		}
		for cursor < f.next && len(events) < limit {
			ev := f.ring[(cursor-f.start)%feedSize]
			if typeGlob == "" || Glob(typeGlob, ev.Type) {
				events = append(events, ev)
			}
			cursor++
		}
		if len(events) > 0 || lost || ctx.Err() != nil {
			f.mu.Unlock()
			return events, cursor, lost
		}
		if f.more == nil {
			f.more = make(chan struct{})
		}
		more := f.more
		f.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
		}
	}
}
