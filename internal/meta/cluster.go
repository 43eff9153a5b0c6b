package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6d-go/v6d/internal/object"
)

// Cluster connects a node's tree with those of other nodes over a Backend.
//
// Join loads what is there and decides which number this instance has; Start
// registers it, follows the changes of others and keeps telling them that it is
// alive; Leave takes it out again. See join.go for what happens to objects when
// a node, or the backend, comes back different, and heartbeat.go for the dead.
type Cluster struct {
	b      Backend
	t      *Tree
	opts   ClusterOptions
	log    *slog.Logger
	shared bool

	commits committer
	holders atomic.Int32 // requests that hold or want the lock

	heads headReader

	mu         sync.Mutex                                       // after the tree's lock
	at         Position                                         // what the tree has applied; zero while it is loaded; guarded by mu, as all below
	moved      chan struct{}                                    // closed when at changes
	instances  map[object.InstanceID]map[string]json.RawMessage // by number, as their keys say
	next       uint64                                           // next_instance_id
	failure    error                                            // why the backend cannot be reached, or nil
	answered   time.Time                                        // when the youngest question was asked that it answered
	registered bool                                             // this instance's keys are there, as far as is known
	again      map[object.ID]lost                               // own objects that the store has lost
	acked      time.Time                                        // of the last heartbeat that was acknowledged
	suspicious time.Time                                        // until then deletions of own objects are held
	held       map[object.ID]bool                               // those deletions
	orphans    map[object.ID]bool                               // objects of this instance that it does not have
	partial    map[object.ID]map[string][]byte                  // fields that came without their object
	rejoin     context.CancelCauseFunc                          // ends the watch
	wake       chan struct{}                                    // the heart has something to do before its time

	// Of the heart's goroutine alone.
	neighbour neighbour
	strangers map[object.InstanceID]int // rounds for which objects named an instance that is not there
	searched  time.Time                 // when they were last looked for

	stop      context.CancelCauseFunc // ends what Start began
	stopHeart func()                  // ends the heart and waits for it
	done      *errgroup.Group
}

// ClusterOptions configures a Cluster.
type ClusterOptions struct {
	HostID uint64
	// Self describes this instance; the timestamp is the cluster's.
	Self func() Instance
	// Beat is the time between heartbeats (10 s): an instance is dead when three
	// of its neighbour's pass without one of its own.
	Beat time.Duration
	// Saved is what Acknowledged got last in this node's earlier life, if any.
	Saved Saved
	// Acknowledged is called with every acknowledged heartbeat; may be nil.
	Acknowledged func(Saved)
	// Renumbered is called when the instance has got another number; may be nil.
	Renumbered func(from, to object.InstanceID)
	// Now is the wall clock, for tests; nil for time.Now.
	Now func() time.Time
}

// Saved is what a node remembers of its cluster.
type Saved struct {
	HostID uint64
	Number object.InstanceID
	At     Position // applied at the last acknowledged heartbeat
}

// Instance describes a daemon to its cluster.
type Instance struct {
	Hostname    string
	Nodename    string
	IPCSocket   string
	RPCEndpoint string
}

// lost is an own object on its way back into the store.
type lost struct {
	since time.Time
	waits bool // for a member on another instance; meanwhile it is transient
}

var (
	errLeft   = errors.New("the cluster is being left")
	errRejoin = errors.New("the metadata service is not what it was")
)

// NewCluster connects a tree to a backend. Nothing happens before Join.
func NewCluster(b Backend, t *Tree, o ClusterOptions) *Cluster {
	if o.Beat == 0 {
		o.Beat = 10 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Cluster{
		b: b, t: t, opts: o, log: t.opts.Log, shared: b.Shared(),
		commits: committer{backend: b, queue: make(chan *commit)},
		moved:   make(chan struct{}), instances: map[object.InstanceID]map[string]json.RawMessage{},
		again: map[object.ID]lost{}, held: map[object.ID]bool{}, orphans: map[object.ID]bool{},
		partial: map[object.ID]map[string][]byte{}, wake: make(chan struct{}, 1),
	}
	c.heads.read = c.readHead
	t.cluster = c
	return c
}

// Number returns the number of this instance. It does not change after Join,
// unless another instance took it while this one was away.
func (c *Cluster) Number() object.InstanceID { return c.t.Instance() }

// appliedRevision returns the revision that the tree is at.
func (c *Cluster) appliedRevision() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at.Revision
}

// Position returns what the tree has applied.
func (c *Cluster) Position() Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Instances returns what the instances of the cluster say of themselves, in the
// words of their keys (hostname, rpc_endpoint, …), by number.
func (c *Cluster) Instances() map[object.InstanceID]map[string]json.RawMessage {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[object.InstanceID]map[string]json.RawMessage, len(c.instances))
	for n, fields := range c.instances {
		if alive(fields) {
			out[n] = maps.Clone(fields)
		}
	}
	return out
}

// alive reports whether an instance's keys are those of one that has registered.
func alive(fields map[string]json.RawMessage) bool {
	return len(fields["hostid"]) > 0 && len(fields["timestamp"]) > 0
}

// Health returns why the metadata service cannot be reached, or nil.
func (c *Cluster) Health() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// unreachable is Health as the answer to a request that needs the service.
func (c *Cluster) unreachable() error {
	if err := c.Health(); err != nil {
		return unavailable(err)
	}
	return nil
}

// fail notes whether the backend answered what it was asked at a time. That a
// question of before an outage fails says nothing when a later one was answered.
func (c *Cluster) fail(err error, asked time.Time) {
	if errors.Is(err, context.Canceled) || errors.Is(err, errLeft) {
		return
	}
	c.mu.Lock()
	if err != nil && c.answered.After(asked) {
		c.mu.Unlock()
		return
	}
	if err == nil && asked.After(c.answered) {
		c.answered = asked
	}
	was := c.failure
	c.failure = err
	c.mu.Unlock()
	if (was == nil) != (err == nil) {
		if err != nil {
			c.log.Warn("the metadata service cannot be reached: local work goes on, changes for others are refused", "err", err)
		} else {
			c.log.Info("the metadata service is back")
		}
	}
}

// heard notes that the backend has answered what it was asked at a time.
func (c *Cluster) heard(asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if asked.After(c.answered) {
		c.answered = asked
	}
}

// syncTimeout is how long a read waits for what others have written; after it
// the read is answered from what is here.
const syncTimeout = 3 * time.Second

// Sync returns when every change that was acknowledged anywhere before the call
// is applied here. While the backend cannot be reached it returns at once, so
// that local work goes on.
func (c *Cluster) Sync(ctx context.Context) error {
	if !c.shared || c.Health() != nil {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	before := c.Position()
	head, err := c.heads.newest(limited)
	if err == nil {
		c.check(before, head)
		err = c.reach(limited, head.Revision)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		c.log.Debug("answering from what is here", "err", err)
	}
	return nil
}

// headTimeout is how long the store has to tell its head before it counts as
// unreachable.
const headTimeout = syncTimeout - 500*time.Millisecond

func (c *Cluster) readHead(ctx context.Context) (Position, error) {
	asked := time.Now()
	at, err := c.b.Head(ctx)
	if err != nil {
		c.fail(err, asked)
		c.nudge() // the heart finds out what is the matter
	} else {
		c.heard(asked)
	}
	return at, err
}

// catchUp waits until the tree has applied everything up to the backend's head.
func (c *Cluster) catchUp(ctx context.Context) error {
	before := c.Position()
	head, err := c.heads.newest(ctx)
	if err != nil {
		return err
	}
	c.check(before, head)
	return c.reach(ctx, head.Revision)
}

// check compares the head of the store with what was known before it was read:
// a store that has gone back was replaced, and everything is loaded again.
func (c *Cluster) check(before, head Position) {
	if before != (Position{}) && (head.Cluster != before.Cluster || head.Revision < before.Revision) {
		c.reload()
	}
}

// reload ends the watch, so that everything is loaded again. Until that is done
// the tree is at no position.
func (c *Cluster) reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rejoin != nil && c.at != (Position{}) {
		c.at = Position{}
		c.rejoin(errRejoin)
	}
}

// reach waits until the tree is at a revision. Changes elsewhere in the store
// raise its revision without an event for us: after a moment the watch is asked
// how far it is.
func (c *Cluster) reach(ctx context.Context, revision int64) error {
	ask := time.NewTimer(time.Millisecond)
	defer ask.Stop()
	for wait := time.Millisecond; ; {
		c.mu.Lock()
		at, moved := c.at, c.moved
		c.mu.Unlock()
		if at.Revision >= revision && at != (Position{}) {
			return nil
		}
		select {
		case <-moved:
		case <-ask.C:
			if err := c.b.Progress(ctx); err != nil {
				return err
			}
			wait = min(2*wait, 200*time.Millisecond)
			ask.Reset(wait)
		case <-ctx.Done():
			return fmt.Errorf("catch up with revision %d from %d: %w", revision, at.Revision, context.Cause(ctx))
		}
	}
}

// arrive notes that the tree is at a position. Called with mu held.
func (c *Cluster) arrive(at Position) {
	c.at = at
	close(c.moved)
	c.moved = make(chan struct{})
}

// headReader reads the head once for all that ask at the same time.
type headReader struct {
	read func(context.Context) (Position, error)

	mu      sync.Mutex
	next    *headRead // not yet begun; guarded by mu, as all below
	running int
	started time.Time // of the last read that began
}

type headRead struct {
	done chan struct{}
	at   Position
	err  error
}

// overlap is after which time a read does not wait for the one before it.
const overlap = 20 * time.Millisecond

// newest returns a head that was read after the call began.
func (h *headReader) newest(ctx context.Context) (Position, error) {
	h.mu.Lock()
	if h.next == nil {
		h.next = &headRead{done: make(chan struct{})}
	}
	r := h.next
	if h.running == 0 || time.Since(h.started) > overlap {
		h.running++
		h.begin()
	}
	h.mu.Unlock()
	select {
	case <-r.done:
		return r.at, r.err
	case <-ctx.Done():
		return Position{}, context.Cause(ctx)
	}
}

// begin starts the next read. Called with mu held.
func (h *headReader) begin() {
	r := h.next
	h.next, h.started = nil, time.Now()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), headTimeout)
		r.at, r.err = h.read(ctx)
		cancel()
		close(r.done)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.next != nil {
			h.begin()
		} else {
			h.running--
		}
	}()
}

// lockTimeout bounds the wait for the cluster's lock.
const lockTimeout = 10 * time.Second

// busy reports whether this node holds the lock, or wants it: a transaction
// without it would be refused.
func (c *Cluster) busy() bool { return c.holders.Load() > 0 }

// exclusively calls f while this node holds the cluster's lock and has applied
// everything before it. The context that f gets does not end with the request:
// what was begun is ended.
func (c *Cluster) exclusively(ctx context.Context, f func(context.Context) error) error {
	if err := c.unreachable(); err != nil {
		return err
	}
	return c.withLock(ctx, f)
}

// withLock is exclusively for the heart, which tries even when the backend did
// not answer last time.
func (c *Cluster) withLock(ctx context.Context, f func(context.Context) error) error {
	c.holders.Add(1)
	defer c.holders.Add(-1)
	limited, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	full, err := c.b.Lock(limited, keyLock)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return unavailable(fmt.Errorf("wait for the lock %s: %w", keyLock[1:], err))
	}
	lasting := context.WithoutCancel(ctx)
	defer func() {
		limited, cancel := context.WithTimeout(lasting, commitTimeout)
		defer cancel()
		if err := c.b.Unlock(limited, full); err != nil {
			c.log.Warn("cannot give the cluster's lock back; it ends by itself", "err", err)
		}
	}()
	if err := c.catchUp(limited); err != nil {
		return unavailable(err)
	}
	return f(lasting)
}

// commitAll commits any number of changes while the lock is held, in as many
// transactions as it takes. Deletions are made in their order: others must see
// an owner go before its members. Of puts only the last ones have to come last.
func (c *Cluster) commitAll(ctx context.Context, changes []Change) (Position, error) {
	var chunks [][]Change
	for len(changes) > 0 {
		n, size := 0, 0
		for n < len(changes) && n < maxOps {
			if size += len(changes[n].Key) + len(changes[n].Value); size > maxBytes && n > 0 {
				break
			}
			n++
		}
		chunks = append(chunks, changes[:n])
		changes = changes[n:]
	}
	if len(chunks) == 0 {
		return c.Position(), nil
	}
	commit := func(chunk []Change) (Position, error) {
		ctx, cancel := context.WithTimeout(ctx, commitTimeout)
		defer cancel()
		at, _, err := c.b.Commit(ctx, nil, chunk)
		return at, err
	}
	last := len(chunks) - 1
	var g errgroup.Group
	g.SetLimit(4)
	if chunks[0][0].Delete {
		g.SetLimit(1)
	}
	for _, chunk := range chunks[:last] {
		g.Go(func() error { _, err := commit(chunk); return err })
	}
	if err := g.Wait(); err != nil {
		return Position{}, unavailable(err)
	}
	at, err := commit(chunks[last])
	if err != nil {
		return Position{}, unavailable(err)
	}
	return at, nil
}

// Lock takes a lock for a user, waiting for it, and returns the key by which to
// give it back.
func (c *Cluster) Lock(ctx context.Context, session object.SessionID, key string) (string, error) {
	if err := c.unreachable(); err != nil {
		return "", err
	}
	base := userLockBase(session)
	full, err := c.b.Lock(ctx, base+key)
	if err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", unavailable(err)
	}
	return full[len(base):], nil
}

// Unlock gives a lock back; an unknown key is no error.
func (c *Cluster) Unlock(ctx context.Context, session object.SessionID, key string) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	if err := c.b.Unlock(ctx, userLockBase(session)+key); err != nil {
		return unavailable(err)
	}
	return nil
}

// userLockBase keeps the locks of other sessions than the root session apart.
func userLockBase(session object.SessionID) string {
	if session == object.RootSession {
		return ""
	}
	return keyUserLocks + "." + session.String()
}
