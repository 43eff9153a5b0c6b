package meta

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
)

// A change of what the cluster sees goes four steps: it is planned on the tree
// as it is, committed to the backend if that still is so, recorded, applied. The
// plan is made again when the backend refuses it. A plan of one transaction is
// committed together with those of other clients, under the condition that
// nobody holds the cluster's lock; what is larger, refused or a deletion takes
// the lock.

// plan is a change before it is made.
type plan struct {
	ops        []op
	changes    []Change    // for the cluster; none: the change is local
	conditions []Condition // under which the plan holds without the lock
	ids        []object.ID // objects that the changes make visible
}

// Bounds of one transaction of the backend: what several requests may share, what
// one may have, and bytes. A backend takes 127 operations at a time, as 0.24 does,
// or more in parts that are made together; a request of etcd is at most 1.5 MiB.
const (
	maxShared = 127
	maxOps    = 64 * 64
	maxBytes  = 1 << 20
)

// commitTimeout bounds a commit: the metadata service may be away.
const commitTimeout = 5 * time.Second

// changeTimeout bounds a whole change, with all that it waits for.
const changeTimeout = 12 * time.Second

// isShared reports whether other instances can see the tree.
func (t *Tree) isShared() bool { return t.cluster != nil && t.cluster.shared }

// isHeld reports whether the store says that an own object was deleted, which is
// not believed yet. Called with mu held.
func (t *Tree) isHeld(id object.ID) bool {
	if !t.isShared() {
		return false
	}
	t.cluster.mu.Lock()
	defer t.cluster.mu.Unlock()
	return t.cluster.held[id]
}

// settled waits until nothing of an object is on its way to the cluster. Called
// with mu held, which it gives up meanwhile.
func (t *Tree) settled(id object.ID) {
	for t.publishing[id] > 0 {
		t.published.Wait()
	}
}

// transact makes a change. make plans it with mu held; it may be called again.
func (t *Tree) transact(ctx context.Context, make func() (*plan, error)) error {
	p, done, err := t.begin(make)
	if err != nil && t.isShared() && isMissing(err) {
		// Perhaps it came into being a moment ago, elsewhere.
		if err := t.cluster.Sync(ctx); err != nil {
			return err
		}
		p, done, err = t.begin(make)
	}
	if err != nil || done {
		return err
	}
	c := t.cluster
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if err := c.unreachable(); err != nil {
		t.abandon(p)
		return err
	}
	if small(p.changes) && len(p.conditions) < maxShared && !c.busy() {
		p.conditions = append(p.conditions, Condition{Key: keyLockHolder, Is: NoneUnder})
		asked := time.Now()
		at, ok, err := c.commits.do(ctx, p.conditions, p.changes)
		switch {
		case err != nil:
			t.doubt(p)
			if _, said := errors.AsType[*status.Error](err); !said {
				c.fail(err, asked) // others need not wait for the same
				c.nudge()
			}
			return unavailable(err)
		case ok:
			c.heard(asked)
			return t.land(p, at.Revision)
		}
	}
	t.abandon(p)
	return c.exclusively(ctx, func(ctx context.Context) error {
		p, done, err := t.begin(make)
		if err != nil || done {
			return err
		}
		at, err := c.commitAll(ctx, p.changes)
		if err != nil {
			t.doubt(p)
			return err
		}
		return t.land(p, at.Revision)
	})
}

// begin plans a change. A local one is made at once: done is true.
func (t *Tree) begin(make func() (*plan, error)) (p *plan, done bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err = make()
	if err != nil {
		return nil, false, err
	}
	if len(p.changes) == 0 || !t.isShared() {
		return p, true, t.commit(p.ops)
	}
	for _, id := range p.ids {
		t.publishing[id]++
	}
	for _, o := range p.ops {
		if o.kind == opPut {
			t.pending[o.id] = o.entry
		}
	}
	return p, false, nil
}

// land applies a plan that was committed at a revision, unless the watch has
// come past it already: then there may have been changes since.
func (t *Tree) land(p *plan, rev int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unmark(p)
	if t.cluster.appliedRevision() >= rev {
		return nil
	}
	return t.commit(p.ops)
}

// abandon forgets a plan that was refused or not sent.
func (t *Tree) abandon(p *plan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unmark(p)
}

// doubt leaves a mark at objects that others may know or not: nobody answered.
func (t *Tree) doubt(p *plan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unmark(p)
	for _, id := range p.ids {
		if e := t.objects[id]; e != nil && e.transient {
			e.uncertain = true
		}
	}
}

// unmark takes a plan's objects off those under way. Called with mu held.
func (t *Tree) unmark(p *plan) {
	for _, id := range p.ids {
		if t.publishing[id]--; t.publishing[id] <= 0 {
			delete(t.publishing, id)
		}
		delete(t.pending, id)
	}
	t.published.Broadcast()
}

// small reports whether changes fit one transaction.
func small(changes []Change) bool {
	n := 0
	for _, c := range changes {
		n += len(c.Key) + len(c.Value)
	}
	return len(changes) <= maxOps && (n <= maxBytes || len(changes) == 1)
}

// isMissing reports whether an error says that something is not known here.
func isMissing(err error) bool {
	e, ok := errors.AsType[*status.Error](err)
	return ok && (e.Code == status.ObjectNotExists || e.Code == status.MetaTreeSubtreeNotExists)
}

// unavailable is the error of a backend that does not answer.
func unavailable(err error) error {
	if _, ok := errors.AsType[*status.Error](err); ok {
		return err
	}
	return status.Errorf(status.EtcdError, "the metadata service failed: %w", err).
		WithHint("nothing of the change is visible here yet; it is safe to try again")
}

// committer commits the changes of several requests as one transaction.
type committer struct {
	backend Backend
	queue   chan *commit
	ended   <-chan struct{} // run has been told to end
}

// commit is one request's changes on their way.
type commit struct {
	conditions []Condition
	changes    []Change
	done       chan committed
}

type committed struct {
	at  Position
	ok  bool
	err error
}

// do commits changes, with those of others if they come at the same time.
func (c *committer) do(ctx context.Context, conditions []Condition, changes []Change) (Position, bool, error) {
	req := &commit{conditions, changes, make(chan committed, 1)}
	select {
	case c.queue <- req:
	case <-c.ended:
		return Position{}, false, errLeft
	case <-ctx.Done():
		return Position{}, false, context.Cause(ctx)
	}
	// From here on the changes may be made: their fate is waited for.
	r := <-req.done
	return r.at, r.ok, r.err
}

// run commits until ctx ends.
func (c *committer) run(ctx context.Context) {
	var left *commit
	for {
		first := left
		left = nil
		if first == nil {
			select {
			case first = <-c.queue:
			case <-ctx.Done():
				return
			}
		}
		group := []*commit{first}
		keys := map[string]bool{}
		alone := !merge(keys, first)
		ops := len(first.changes)
		for left == nil && ops < maxShared && !alone {
			var next *commit
			select {
			case next = <-c.queue:
			default:
			}
			if next == nil {
				break
			}
			if ops+len(next.changes) > maxShared || !merge(keys, next) {
				left = next
				break
			}
			group = append(group, next)
			ops += len(next.changes)
		}
		c.commit(ctx, group)
	}
}

// merge reports whether a request can be in a transaction with others: no key
// twice, and nothing but puts.
func merge(keys map[string]bool, c *commit) bool {
	for _, ch := range c.changes {
		if ch.Delete || keys[ch.Key] {
			return false
		}
	}
	for _, ch := range c.changes {
		keys[ch.Key] = true
	}
	return true
}

// commit commits a group; if that is refused, each by itself.
func (c *committer) commit(ctx context.Context, group []*commit) {
	var conditions []Condition
	var changes []Change
	size := 0
	for _, g := range group {
		for _, cond := range g.conditions {
			if !slices.ContainsFunc(conditions, func(have Condition) bool {
				return have.Key == cond.Key && have.Is == cond.Is && bytes.Equal(have.Equals, cond.Equals)
			}) {
				conditions = append(conditions, cond)
			}
		}
		changes = append(changes, g.changes...)
		for _, ch := range g.changes {
			size += len(ch.Key) + len(ch.Value)
		}
	}
	if len(group) > 1 && (size > maxBytes || len(conditions) > maxShared) {
		for _, g := range group {
			c.commit(ctx, []*commit{g})
		}
		return
	}
	limited, cancel := context.WithTimeout(ctx, commitTimeout)
	at, ok, err := c.backend.Commit(limited, conditions, changes)
	cancel()
	if len(group) > 1 && err == nil && !ok {
		for _, g := range group {
			c.commit(ctx, []*commit{g})
		}
		return
	}
	for _, g := range group {
		g.done <- committed{at, ok, err}
	}
}
