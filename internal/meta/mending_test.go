package meta

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// noObjects is a store that takes what nodes say of themselves, and no objects.
type noObjects struct {
	*Local
	on *atomic.Bool
}

func (b noObjects) Commit(ctx context.Context, conditions []Condition, changes []Change) (Position, bool, error) {
	for _, c := range changes {
		if b.on.Load() && strings.HasPrefix(c.Key, "/data/") {
			return Position{}, false, errAway
		}
	}
	return b.Local.Commit(ctx, conditions, changes)
}

// TestCrashWhileMending: a store was replaced, a node has registered there, but not
// yet stored its objects again when it crashes. Its next life must not take them for
// deleted by others.
func TestCrashWhileMending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, refuse, away := NewHub("hub"), atomic.Bool{}, atomic.Bool{}
		a := newNode(t, hub, 100, nil)
		b := newNode(t, noObjects{hub, &refuse}, 200, nil)
		x := b.put(t, "t::A")
		b.persist(t, x)
		for range 30 { // so that the new store is behind the old one for long: the hub keeps its name
			b.persist(t, b.put(t, "t::B"))
		}
		time.Sleep(11 * time.Second)
		refuse.Store(true)
		hub.Wipe()
		time.Sleep(14 * time.Second)
		if len(keysOf(hub, instanceKey(b.Number()))) == 0 || len(keysOf(hub, "/data/")) != 0 {
			t.Fatalf("the node has not registered again, or its objects are there: %v", keysOf(hub, ""))
		}
		again := newNode(t, cut{hub, &away}, 200, b)
		time.Sleep(2 * time.Second)
		if a.seen(t, x) == "" || again.seen(t, x) == "" {
			t.Errorf("after a crash: there %q, here %q", a.seen(t, x), again.seen(t, x))
		}
	})
}
