package meta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// Each instance changes its timestamp every ten seconds and looks at that of the
// next one: the smallest number above its own, or the smallest of all. A
// neighbour whose timestamp is the same in three rounds is dead, and its keys
// and objects are removed. A round counts only when this node's own heartbeat
// was acknowledged and everything up to it was applied, so that a node that
// cannot see the store takes nobody for dead.

// neighbour is what is known of the next instance in the ring.
type neighbour struct {
	number    object.InstanceID
	timestamp string
	unchanged int       // rounds
	counted   time.Time // the last round
}

const deadRounds = 3

// heart beats until ctx ends: every Beat, a second after a failure, and when
// there is something to do.
func (c *Cluster) heart(ctx context.Context) {
	timer := time.NewTimer(c.opts.Beat)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		next := c.opts.Beat
		if err := c.beat(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			c.neighbour.unchanged = 0
			next = min(next, time.Second)
		}
		timer.Reset(next)
	}
}

// nudge makes the heart beat now.
func (c *Cluster) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// beat does what is due: register, tell that this instance is alive, apply
// deletions that were held, store lost objects again, look at the neighbour.
func (c *Cluster) beat(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, 2*commitTimeout)
	defer cancel()
	asked := time.Now()
	err := c.pulse(limited)
	if err == nil || !errors.Is(err, errRejoin) {
		c.fail(err, asked)
	}
	return err
}

func (c *Cluster) pulse(ctx context.Context) error {
	c.mu.Lock()
	registered, before := c.registered, c.at
	loading := c.at == (Position{})
	c.mu.Unlock()
	if loading {
		return fmt.Errorf("%w: it is being loaded", errRejoin)
	}
	if !registered {
		if err := c.register(ctx); err != nil {
			return err
		}
	}
	n := c.Number()
	at, ok, err := c.b.Commit(ctx,
		[]Condition{{Key: instanceKey(n) + "hostid", Is: Equals, Equals: c.hostID()}},
		[]Change{Put(instanceKey(n)+"timestamp", c.timestamp())})
	if err != nil {
		return err
	}
	if before.Cluster != at.Cluster || at.Revision < before.Revision || !ok {
		c.reload()
		return errRejoin
	}
	c.acknowledge(at)
	if err := c.reach(ctx, at.Revision); err != nil {
		return err
	}
	c.release()
	// Only now: the store has just said that this number is ours.
	c.mu.Lock()
	mend := len(c.again)+len(c.orphans) > 0
	c.mu.Unlock()
	if mend {
		if err := c.mend(ctx); err != nil {
			return err
		}
	}
	c.remember()
	return c.lookAtNeighbour(ctx)
}

func (c *Cluster) hostID() []byte { return strconv.AppendUint(nil, c.opts.HostID, 10) }

// timestamp is the time as 0.24 writes it: seconds, shifted by 32, and
// microseconds.
func (c *Cluster) timestamp() []byte {
	now := c.opts.Now()
	return strconv.AppendInt(nil, now.Unix()<<32+int64(now.Nanosecond()/1000), 10)
}

// acknowledge notes that the store has seen this instance. After a long silence
// others may be about to clean up after it: deletions of own objects are held
// for a while.
func (c *Cluster) acknowledge(at Position) {
	now := time.Now()
	c.mu.Lock()
	if !c.acked.IsZero() && now.Sub(c.acked) > 2*c.opts.Beat {
		c.suspicious = now.Add(2 * c.opts.Beat)
	}
	c.acked = now
	c.opts.Saved = Saved{HostID: c.opts.HostID, Number: c.t.opts.Instance, At: Position{at.Cluster, c.at.Revision}}
	c.mu.Unlock()
}

// remember has the position recorded for the node's next life, but not while own
// objects that the store has lost are to be stored again: a node that crashed then
// would take them for deleted when it is back.
func (c *Cluster) remember() {
	c.mu.Lock()
	saved := c.opts.Saved
	lacks := false
	for _, l := range c.again {
		lacks = lacks || !l.waits
	}
	c.mu.Unlock()
	if c.opts.Acknowledged != nil && !lacks {
		c.opts.Acknowledged(saved)
	}
}

// suspects reports whether a deletion of an own object may be a clean-up after a
// node that was taken for dead. Called with mu held.
func (c *Cluster) suspects() bool {
	now := time.Now()
	return !c.acked.IsZero() && (now.Sub(c.acked) > 2*c.opts.Beat || now.Before(c.suspicious))
}

// release applies the deletions that were held, when this instance turns out to
// be alive for all that time.
func (c *Cluster) release() {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	c.mu.Lock()
	var ids []object.ID
	if time.Now().After(c.suspicious) {
		for id := range c.held {
			ids = append(ids, id)
		}
		clear(c.held)
	}
	c.mu.Unlock()
	if len(ids) > 0 {
		slices.Sort(ids)
		c.t.discard(c.t.settle(ids))
	}
}

// selfFields is what an instance's keys say of it, but for the timestamp.
func (c *Cluster) selfFields() map[string][]byte {
	self := c.opts.Self()
	text := func(s string) []byte { return wirejson.AppendString(nil, s) }
	return map[string][]byte{
		"hostid": c.hostID(), "hostname": text(self.Hostname), "nodename": text(self.Nodename),
		"rpc_endpoint": text(self.RPCEndpoint), "ipc_socket": text(self.IPCSocket),
	}
}

// register puts this instance's keys, all at once.
func (c *Cluster) register(ctx context.Context) error {
	changes := func() (list []Change) {
		fields := c.selfFields()
		c.mu.Lock()
		defer c.mu.Unlock()
		n := c.t.opts.Instance
		fields["timestamp"] = c.timestamp()
		for _, field := range slices.Sorted(maps.Keys(fields)) {
			list = append(list, Put(instanceKey(n)+field, fields[field]))
		}
		return append(list, Put(keyNext, strconv.AppendUint(nil, max(c.next, uint64(n)+1), 10)))
	}
	err := c.withLock(ctx, func(ctx context.Context) error {
		if c.isTaken() {
			c.reload()
			return fmt.Errorf("%w: another instance has the number %d", errRejoin, c.Number())
		}
		at, err := c.commitAll(ctx, changes())
		if err != nil {
			return err
		}
		return c.reach(ctx, at.Revision)
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.registered = true
	c.mu.Unlock()
	return nil
}

// isTaken reports whether somebody else has this instance's number: the store was
// replaced, and a new node was faster.
func (c *Cluster) isTaken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	fields := c.instances[c.t.opts.Instance]
	holder, err := wirejson.Value(fields["hostid"]).Uint64()
	return err == nil && holder != c.opts.HostID
}

// mend stores own objects again that the store has lost, and removes those from
// it that this node does not have.
func (c *Cluster) mend(ctx context.Context) error {
	return c.withLock(ctx, func(ctx context.Context) error {
		t := c.t
		var changes []Change
		t.mu.Lock()
		c.mu.Lock()
		again := maps.Clone(c.again)
		ids := slices.Collect(maps.Keys(again))
		orphans := make([]object.ID, 0, len(c.orphans))
		for id := range c.orphans {
			orphans = append(orphans, id)
		}
		c.mu.Unlock()
		slices.Sort(ids) // members have lower ids than what holds them
		mended, later := map[object.ID]bool{}, map[object.ID]bool{}
		var dangling []object.ID
		for _, id := range ids {
			e := t.objects[id]
			if e == nil || e.transient != again[id].waits {
				continue
			}
			p := &plan{}
			// With it own members that another node has deleted meanwhile: it could not
			// know that something holds them.
			if err := p.include(t, e, map[object.ID]bool{}); err != nil {
				if time.Since(again[id].since) > strangerRounds*c.opts.Beat {
					c.log.Warn("an object that held what is gone is deleted", "id", id, "err", err)
					dangling = append(dangling, id)
					continue
				}
				// A member on another instance, which stores it again as well.
				c.log.Debug("an object cannot be stored again yet", "id", id, "err", err)
				later[id] = true
				if !e.transient {
					t.follow([]op{{kind: opUnpersist, id: id}})
					c.mu.Lock()
					c.again[id] = lost{since: again[id].since, waits: true}
					c.mu.Unlock()
				}
				continue
			}
			mended[id] = true
			if e.global || t.isEquivalent(e) {
				p.sign(t, e) // members of others, and shallow copies, have no signature in the store
			}
			changes = append(changes, p.changes...)
			for _, n := range t.former {
				changes = append(changes, Delete(signatureKey(n, e.sig)))
			}
		}
		for name, id := range t.names {
			if mended[id] {
				changes = append(changes, Put(nameKey(name), strconv.AppendUint(nil, uint64(id), 10)))
			} else if slices.Contains(orphans, id) && t.objects[id] == nil {
				changes = append(changes, Delete(nameKey(name)))
			}
		}
		if len(orphans) > 0 {
			for sig, by := range t.sigs {
				for n, id := range by {
					if slices.Contains(orphans, id) && t.objects[id] == nil {
						changes = append(changes, Delete(signatureKey(n, sig)))
					}
				}
			}
		}
		if len(dangling) > 0 {
			t.discard(t.deletion(dangling, DeleteOptions{Force: true}))
		}
		t.mu.Unlock()
		for _, id := range orphans {
			changes = append(changes, DeleteAll(dataKey(id)))
		}
		at, err := c.commitAll(ctx, unique(changes))
		if err != nil {
			return err
		}
		if len(mended)+len(orphans) > 0 {
			c.log.Info("mended the cluster's metadata", "stored_again", len(mended), "removed", len(orphans))
		}
		c.mu.Lock()
		for _, id := range ids {
			if !later[id] {
				delete(c.again, id)
			}
		}
		for _, id := range orphans {
			delete(c.orphans, id)
		}
		c.mu.Unlock()
		return c.reach(ctx, at.Revision)
	})
}

// unique leaves the last change of each key: a signature can be needed by
// several objects.
func unique(changes []Change) []Change {
	last := make(map[string]int, len(changes))
	for i, ch := range changes {
		last[ch.Key] = i
	}
	kept := changes[:0]
	for i, ch := range changes {
		if last[ch.Key] == i {
			kept = append(kept, ch)
		}
	}
	return kept
}

// lookAtNeighbour counts the rounds in which the neighbour did nothing.
func (c *Cluster) lookAtNeighbour(ctx context.Context) error {
	if !c.shared {
		return nil
	}
	self := c.Number()
	c.mu.Lock()
	next, found := self, false
	for n := range c.instances {
		if n == self {
			continue
		}
		// In the order of a ring that begins behind this instance.
		if !found || n-self < next-self {
			next, found = n, true
		}
	}
	timestamp := string(c.instances[next]["timestamp"])
	c.mu.Unlock()
	if err := c.lookForStrangers(ctx); err != nil {
		return err
	}
	seen := &c.neighbour
	now := time.Now()
	switch {
	case !found:
		*seen = neighbour{}
	case seen.number != next || seen.timestamp != timestamp || seen.unchanged == 0:
		*seen = neighbour{number: next, timestamp: timestamp, unchanged: 1, counted: now}
	case now.Sub(seen.counted) < c.opts.Beat*9/10:
		// This heart beats sooner when it has something to do: that is no round.
	default:
		seen.counted = now
		if seen.unchanged++; seen.unchanged > deadRounds {
			dead := *seen
			*seen = neighbour{}
			return c.bury(ctx, dead)
		}
	}
	return nil
}

// strangerRounds is for how many rounds objects may name an instance that is not
// registered: after a wipe, nodes come back one by one.
const strangerRounds = 6

// lookForStrangers removes objects and signatures that name an instance which has
// no keys: it died while the store was replaced. The instance with the lowest
// number does that for all.
func (c *Cluster) lookForStrangers(ctx context.Context) error {
	now := time.Now()
	if now.Sub(c.searched) < c.opts.Beat*9/10 {
		return nil
	}
	c.searched = now
	c.t.mu.RLock()
	c.mu.Lock()
	self, first := c.t.opts.Instance, true
	for n := range c.instances {
		first = first && n >= self
	}
	found := map[object.InstanceID]int{}
	note := func(n object.InstanceID) {
		if first && n != self && n != object.AnyInstance && c.instances[n] == nil {
			found[n] = c.strangers[n] + 1
		}
	}
	for _, e := range c.t.objects {
		if !e.transient {
			note(e.instance)
		}
	}
	for _, by := range c.t.sigs {
		for n := range by {
			note(n)
		}
	}
	c.mu.Unlock()
	c.t.mu.RUnlock()
	c.strangers = found
	for n, rounds := range found {
		if rounds > strangerRounds {
			delete(c.strangers, n)
			if err := c.bury(ctx, neighbour{number: n}); err != nil {
				return err
			}
		}
	}
	return nil
}

// bury removes the keys and objects of a dead instance.
func (c *Cluster) bury(ctx context.Context, dead neighbour) error {
	return c.withLock(ctx, func(ctx context.Context) error {
		conditions := []Condition{{Key: instanceKey(dead.number) + "timestamp", Is: Equals, Equals: []byte(dead.timestamp)}}
		if dead.timestamp == "" {
			conditions[0] = Condition{Key: instanceKey(dead.number) + "timestamp", Is: NoneUnder}
		}
		n, err := c.remove(ctx, dead.number, conditions)
		if err == nil && n >= 0 {
			c.log.Warn("an instance is dead: its keys and objects are removed", "instance", dead.number, "objects", n)
		}
		return err
	})
}

// remove takes an instance's keys out of the store, if the conditions hold, and
// then its objects with all that cannot be without them. It returns how many
// objects that were, or -1 if the conditions do not hold. Called with the
// cluster's lock held.
func (c *Cluster) remove(ctx context.Context, number object.InstanceID, conditions []Condition) (int, error) {
	t := c.t
	t.mu.Lock()
	var ids []object.ID
	for id, e := range t.objects {
		if e.instance == number && !e.transient {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	d := t.deletion(nil, DeleteOptions{})
	for _, id := range ids {
		d.want[id] = true
	}
	for _, id := range ids {
		// What another instance has as well is not missed by those that refer to it.
		d.visit(id, DeleteOptions{Force: !d.hasEquivalent(t.objects[id])})
	}
	changes := append(d.changes(), DeleteAll(keySignatures+number.String()+"/"))
	t.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, ok, err := c.b.Commit(limited, conditions, []Change{DeleteAll(instanceKey(number))})
	if err != nil {
		return 0, unavailable(err)
	}
	if !ok {
		return -1, nil
	}
	at, err := c.commitAll(ctx, changes)
	if err != nil {
		return 0, err
	}
	if number == c.Number() {
		return len(d.objects), nil // this node is leaving: its tree ends with it
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.appliedRevision() < at.Revision {
		t.discard(t.settle(slices.Concat(d.objects, d.blobs)))
	}
	return len(d.objects), nil
}
