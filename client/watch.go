package client

import (
	"context"
	"encoding/json"
	"iter"
	"time"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
)

// Event is one change of the metadata.
type Event struct {
	Seq    uint64 `json:"seq"`
	TimeMS int64  `json:"time_ms"` // unix milliseconds
	Kind   string `json:"event"`   // created, persisted, labelled, named, unnamed or deleted
	ID     ID     `json:"id"`
	Type   string `json:"typename"`
	Name   string `json:"name,omitempty"`
}

// ErrEventsLost is yielded by Watch when the watcher was too slow and events
// were forgotten. The events after it are complete again.
var ErrEventsLost = &Error{Code: status.EndOfFile, Msg: "events were lost: the watcher was too slow"}

// Watch yields the changes of objects whose typename matches a glob ("" for
// all) until ctx ends. What changes after Watch has returned is seen, whenever
// the iteration starts: to miss nothing, call Watch, then list, then iterate. A
// second iteration goes on where the first one was left. It needs a v6d daemon
// and holds the connection while it waits; between events the connection is
// free.
func (c *Client) Watch(ctx context.Context, typeGlob string) iter.Seq2[Event, error] {
	var events []Event
	var cursor uint64
	var lost bool
	err := c.needsV6D("watching")
	if err == nil {
		events, cursor, lost, err = c.watchOnce(ctx, 0, typeGlob, 0) // returns at once with the cursor of now
	}
	return func(yield func(Event, error) bool) {
		for err == nil {
			if lost {
				lost = false
				if !yield(Event{}, ErrEventsLost) {
					return
				}
			}
			for len(events) > 0 {
				e := events[0]
				events = events[1:]
				if !yield(e, nil) {
					return
				}
			}
			events, cursor, lost, err = c.watchOnce(ctx, cursor, typeGlob, 30*time.Second)
		}
		yield(Event{}, err)
	}
}

// WatchSince is Watch, but starts with those events since a time that the daemon
// remembers (it keeps some thousand). A zero time means from now on.
func (c *Client) WatchSince(ctx context.Context, typeGlob string, since time.Time) iter.Seq2[Event, error] {
	live := c.Watch(ctx, typeGlob)
	if since.IsZero() {
		return live
	}
	return func(yield func(Event, error) bool) {
		if err := c.needsV6D("watching"); err != nil {
			yield(Event{}, err)
			return
		}
		// Cursor 1 is older than all: what is remembered comes back, and what
		// lies between counts as lost, which is no news here.
		var last uint64
		for cursor := uint64(1); ; {
			past, next, _, err := c.watchOnce(ctx, cursor, typeGlob, 0)
			for _, e := range past {
				last = e.Seq
				if e.TimeMS >= since.UnixMilli() && !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
			if len(past) == 0 {
				break
			}
			cursor = next
		}
		for e, err := range live {
			if (err != nil || e.Seq > last) && !yield(e, err) {
				return
			}
		}
	}
}

// Events returns the changes after a cursor, and the cursor to go on with; 0 means
// now, and returns at once. It waits for a first event as long as it may. lost means
// that events between the cursor and the first one returned were forgotten. It needs
// a v6d daemon.
func (c *Client) Events(ctx context.Context, cursor uint64, wait time.Duration) (events []Event, next uint64, lost bool, err error) {
	if err := c.needsV6D("watching"); err != nil {
		return nil, 0, false, err
	}
	if cursor == 0 {
		wait = 0
	}
	return c.watchOnce(ctx, cursor, "", wait)
}

func (c *Client) watchOnce(ctx context.Context, cursor uint64, typeGlob string, wait time.Duration) (events []Event, next uint64, lost bool, err error) {
	q := protocol.WatchRequest{Cursor: cursor, Pattern: typeGlob, WaitMS: uint64(wait.Milliseconds())}
	var r protocol.WatchReply
	var bad error
	err = call(ctx, c, protocol.Watch, &q, &r, func() error {
		bad = json.Unmarshal(r.Events, &events)
		return nil
	})
	if err == nil && bad != nil {
		err = status.Errorf(status.IOError, "the daemon's events: %w", bad)
	}
	return events, r.Cursor, r.Lost, err
}
