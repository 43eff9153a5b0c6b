package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// Loading makes the tree what the store says, except for what this node knows
// better. An own object is one that was created here, or whose loss would be
// ours to mend. A persistent own object that the store does not have was either
// deleted by another instance, or the store has lost it: because it was replaced
// by an empty one (another identity, or a revision that has gone back), or
// because peers took this node for dead and cleaned up after it (its own keys
// are gone). What was deleted is deleted here, what was lost is stored again
// under the same id. What others did before that clean-up is read from the
// store's history, as far as it goes back: see missed.

// Join loads the store and decides the number of this instance. The tree may
// hold what was recovered; nobody else uses it yet. ctx bounds how long the
// store is waited for.
func (c *Cluster) Join(ctx context.Context) error {
	for {
		err := c.join(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrUnusable) {
			return err
		}
		c.log.Warn("cannot load the cluster's metadata, trying again", "err", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return err
		}
	}
}

// ErrUnusable means that it is of no use to try again: the store refuses us.
var ErrUnusable = errors.New("the metadata store cannot be used")

func (c *Cluster) join(ctx context.Context) error {
	pairs, at, err := c.b.Load(ctx)
	if err != nil {
		return err
	}
	s := parseStore(pairs)
	number, known, err := c.chooseNumber(ctx, s, at, 0)
	if err != nil {
		return err
	}
	var l loss
	l.wiped = !known || at.Revision < c.opts.Saved.At.Revision
	if l.any = l.wiped || s.hostID(number) != c.opts.HostID; l.any && !l.wiped {
		l.missed = c.readMissed(ctx, c.opts.Saved, at)
	}
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	t.quiet = true
	defer func() { t.quiet = false }()
	if c.opts.Saved.HostID != 0 && c.opts.Saved.Number != number {
		t.follow([]op{{kind: opRenumber, inst: c.opts.Saved.Number, to: number}})
	}
	t.setInstance(number)
	c.reconcile(s, at, l)
	return nil
}

// chooseNumber returns the number of this instance, and whether the store is one
// that knew it by that number. A recovered node keeps its number unless somebody
// else may have had it; a new number is at least floor.
func (c *Cluster) chooseNumber(ctx context.Context, s *storeState, at Position, floor object.InstanceID) (n object.InstanceID, known bool, err error) {
	if !c.shared {
		return 0, c.opts.Saved.At.Cluster == at.Cluster, nil
	}
	if saved := c.opts.Saved; saved.HostID != 0 {
		same := saved.At.Cluster == at.Cluster
		taken := s.instances[saved.Number] != nil
		switch mine := s.hostID(saved.Number) == saved.HostID; {
		case mine:
			return saved.Number, same, nil
		case !taken && (same || s.next <= uint64(saved.Number)):
			return saved.Number, same, nil
		}
	}
	// Daemons of the reference read the next number and raise it under the lock.
	full, err := c.b.Lock(ctx, keyLock)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = c.b.Unlock(context.WithoutCancel(ctx), full) }()
	for range 100 {
		condition := Condition{Key: keyNext, Is: NoneUnder}
		if s.nextText != nil {
			condition = Condition{Key: keyNext, Is: Equals, Equals: s.nextText}
		}
		number := max(s.next, uint64(floor))
		_, ok, err := c.b.Commit(ctx, []Condition{condition}, []Change{Put(keyNext, strconv.AppendUint(nil, number+1, 10))})
		if err != nil {
			return 0, false, err
		}
		if ok {
			return object.InstanceID(number), false, nil
		}
		pairs, _, err := c.b.Load(ctx)
		if err != nil {
			return 0, false, err
		}
		s = parseStore(pairs)
	}
	return 0, false, fmt.Errorf("%w: no number for this instance could be had", ErrUnusable)
}

// storeState is what the keys of a store say.
type storeState struct {
	objects   map[object.ID]map[string][]byte // by field; "" is the object itself
	order     []object.ID                     // of objects, ascending
	names     map[string]object.ID
	sigs      []sigRecord
	instances map[object.InstanceID]map[string]json.RawMessage
	next      uint64
	nextText  []byte
}

type sigRecord struct {
	sig  object.Signature
	inst object.InstanceID
	id   object.ID
}

func parseStore(pairs []Pair) *storeState {
	s := &storeState{
		objects: map[object.ID]map[string][]byte{}, names: map[string]object.ID{},
		instances: map[object.InstanceID]map[string]json.RawMessage{},
	}
	for _, p := range pairs {
		switch at := parsePlace(p.Key); at.kind {
		case placeData:
			if s.objects[at.id] == nil {
				s.objects[at.id] = map[string][]byte{}
				s.order = append(s.order, at.id)
			}
			s.objects[at.id][at.field] = p.Value
		case placeName:
			if id, ok := parseNameValue(p.Value); ok {
				s.names[at.name] = id
			}
		case placeSignature:
			if id, ok := parseSigValue(p.Value); ok {
				s.sigs = append(s.sigs, sigRecord{at.sig, at.instance, id})
			}
		case placeInstance:
			if json.Valid(p.Value) {
				setField(s.instances, at.instance, at.field, p.Value)
			}
		case placeNext:
			if n, err := strconv.ParseUint(strings.TrimSpace(string(p.Value)), 10, 64); err == nil {
				s.next, s.nextText = n, p.Value
			}
		}
	}
	return s
}

func setField(m map[object.InstanceID]map[string]json.RawMessage, n object.InstanceID, field string, v []byte) {
	if m[n] == nil {
		m[n] = map[string]json.RawMessage{}
	}
	m[n][field] = v
}

func parseNameValue(v []byte) (object.ID, bool) {
	value, err := wirejson.Parse(v)
	if err != nil {
		return 0, false
	}
	n, err := value.Uint64()
	return object.ID(n), err == nil
}

func parseSigValue(v []byte) (object.ID, bool) {
	value, err := wirejson.Parse(v)
	if err != nil {
		return 0, false
	}
	text, err := value.Text()
	if err != nil {
		return 0, false
	}
	id, err := parseIDText(text)
	return id, err == nil
}

func (s *storeState) hostID(n object.InstanceID) uint64 {
	id, _ := wirejson.Value(s.instances[n]["hostid"]).Uint64()
	return id
}

// fieldsOf merges an object and the fields that have keys of their own.
func fieldsOf(parts map[string][]byte) ([]wirejson.Member, error) {
	var list []wirejson.Member
	if whole, ok := parts[""]; ok {
		v, err := wirejson.Parse(whole)
		if err != nil {
			return nil, err
		}
		if list, err = fields(v); err != nil {
			return nil, err
		}
	}
	for _, field := range slices.Sorted(maps.Keys(parts)) {
		if field == "" {
			continue
		}
		v, err := wirejson.Parse(parts[field])
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", field, err)
		}
		m := wirejson.Member{Key: []byte(unescaper.Replace(field)), Value: v}
		if i := slices.IndexFunc(list, func(have wirejson.Member) bool { return string(have.Key) == string(m.Key) }); i >= 0 {
			list[i] = m
		} else {
			list = append(list, m)
		}
	}
	return list, nil
}

// decodeParts reads an object from its keys. Called with mu held.
func (t *Tree) decodeParts(id object.ID, parts map[string][]byte) (*entry, error) {
	list, err := fieldsOf(parts)
	if err != nil {
		return nil, status.Errorf(status.MetaTreeInvalid, "object %s: %w", id, err)
	}
	return t.decodeObject(id, list)
}

// loss is what happened to this instance's keys in the store.
type loss struct {
	any    bool // they are gone: what else the store lacks of this instance it has lost
	wiped  bool // with all others: the store was replaced
	missed missed
}

// missed is what other instances did while this one was away, before one of them
// took it for dead.
type missed struct {
	objects map[object.ID]map[string][]byte // what was put, by field; nil: the object was deleted
	names   map[string]object.ID            // 0: the name was dropped
}

// readMissed reads the history of the store from where a node was last part of
// the cluster to the moment at which its keys were removed: the clean-up after
// it comes then. Where the store has forgotten that time it is empty.
func (c *Cluster) readMissed(ctx context.Context, saved Saved, to Position) missed {
	m := missed{map[object.ID]map[string][]byte{}, map[string]object.ID{}}
	if saved.At == (Position{}) || saved.At.Revision >= to.Revision || !c.shared {
		return m
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	hostID := instanceKey(saved.Number) + "hostid"
	buried := false
	asking := make(chan struct{})
	go func() { // the watch tells of the end only when it is asked
		defer close(asking)
		for ctx.Err() == nil {
			_ = c.b.Progress(ctx) // it is asked again
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	err := c.b.Watch(ctx, saved.At.Revision, func(b Batch) {
		if buried || ctx.Err() != nil {
			return
		}
		buried = slices.ContainsFunc(b.Changes, func(ch Change) bool { return ch.Delete && ch.Key == hostID })
		if buried || b.Revision > to.Revision {
			cancel()
			return
		}
		m.note(b.Changes)
		if b.Revision == to.Revision {
			cancel()
		}
	})
	cancel()
	<-asking
	if !buried {
		c.log.Debug("the history of the metadata store does not tell when this instance was removed", "err", err)
		return missed{}
	}
	return m
}

// note adds the changes of one revision.
func (m *missed) note(changes []Change) {
	for _, ch := range changes {
		switch p := parsePlace(ch.Key); {
		case p.kind == placeData && ch.Delete && p.field == "":
			m.objects[p.id] = nil
		case p.kind == placeData && p.field != "":
			if m.objects[p.id] == nil {
				if _, deleted := m.objects[p.id]; deleted {
					break
				}
				m.objects[p.id] = map[string][]byte{}
			}
			m.objects[p.id][p.field] = ch.Value // nil when it was deleted
		case p.kind == placeName:
			id, _ := parseNameValue(ch.Value)
			m.names[p.name] = id
		}
	}
}

// deleted reports whether others deleted an object.
func (m *missed) deleted(id object.ID) bool {
	parts, known := m.objects[id]
	return known && parts == nil
}

// reconcile makes the tree what the store says, but for what was lost. Called
// with the tree's lock held, with no watch running.
func (c *Cluster) reconcile(s *storeState, at Position, l loss) {
	t := c.t
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.held)
	clear(c.orphans)
	clear(c.partial)
	clear(c.again)
	c.instances, c.next = s.instances, s.next
	c.registered = !l.any && c.isRegistered(s.instances[t.opts.Instance])
	defer c.arrive(at)
	if !c.shared {
		return
	}

	var ops []op
	var gone []object.ID
	var adopted []*entry
	for _, id := range t.all.ids {
		e := t.objects[id]
		if e == nil {
			continue
		}
		switch stored := isWhole(s.objects[id]); {
		case stored && e.transient:
			ops = append(ops, op{kind: opPersist, id: id})
		case e.draft && t.journal == nil: // from before a crash: who asked for it has no answer
			gone = append(gone, id)
		case stored || e.transient:
		case l.missed.deleted(id):
			gone = append(gone, id)
		case l.any && !e.foreign:
			c.again[id] = lost{since: time.Now()}
		case l.any && !l.wiped && t.holdsOwn(e):
			// Its end was the end of a member of ours: it is ours to mend.
			e.foreign = false
			adopted = append(adopted, e)
			c.again[id] = lost{since: time.Now()}
		default:
			gone = append(gone, id)
		}
	}
	for _, e := range adopted { // as if it had been made here: for the journal
		ops = append(ops, op{kind: opDelete, id: e.id}, op{kind: opPut, id: e.id, entry: e})
	}
	t.follow(ops)

	ops = ops[:0]
	for _, id := range s.order {
		if have := t.objects[id]; have != nil {
			ops = append(ops, t.refresh(have, s.objects[id])...)
			if _, named := s.objects[id]["__name"]; !named && !have.foreign && have.name != "" && !c.isLost(id) {
				ops = append(ops, op{kind: opTitle, id: id}) // it was taken away while we were
			}
			continue
		}
		e, err := t.decodeParts(id, s.objects[id])
		switch {
		case err != nil:
			c.partial[id] = s.objects[id]
			c.log.Debug("ignoring an incomplete object", "err", err)
		case c.isOrphan(e):
			c.orphans[id] = true
		default:
			ops = append(ops, op{kind: opPut, id: id, entry: e})
		}
	}
	for id := range c.again {
		e, parts := t.objects[id], l.missed.objects[id]
		ops = append(ops, t.relabel(e, parts)...)
		if name, changed := parts["__name"]; changed && name == nil && e.name != "" {
			ops = append(ops, op{kind: opTitle, id: id})
		}
	}
	t.follow(ops)
	t.discard(t.settle(gone)) // now: a new shallow copy may need what a deleted object held

	// Signatures: what the store says, and what own objects need.
	own := map[object.Signature]map[object.InstanceID]object.ID{}
	for sig, by := range t.sigs {
		for inst, id := range by {
			if e := t.objects[id]; e != nil && (!e.foreign || len(t.sigOwners[sig]) > 0) {
				setSig(own, sig, inst, id)
			}
		}
	}
	t.sigs = own
	for _, r := range s.sigs {
		setSig(t.sigs, r.sig, r.inst, r.id)
	}

	ops = ops[:0]
	for name, id := range t.names {
		now, changed := l.missed.names[name]
		if _, stored := s.names[name]; !stored && (!c.isLost(id) || changed && now != id) {
			ops = append(ops, op{kind: opUnname, name: name, elsewhere: true})
		}
	}
	for name, id := range s.names {
		if t.names[name] != id {
			ops = append(ops, op{kind: opName, name: name, id: id, elsewhere: true})
		}
	}
	for name, id := range l.missed.names {
		if _, stored := s.names[name]; !stored && c.isLost(id) && t.names[name] != id {
			ops = append(ops, op{kind: opName, name: name, id: id, elsewhere: true})
		}
	}
	t.follow(ops)
	if len(c.again)+len(c.orphans) > 0 || !c.registered {
		c.nudge()
	}
}

// isLost reports whether an own object has to be stored again. Called with mu held.
func (c *Cluster) isLost(id object.ID) bool {
	_, lost := c.again[id]
	return lost
}

// isWhole reports whether the keys of an object are more than the name and labels
// that the reference leaves behind of deleted ones.
func isWhole(parts map[string][]byte) bool {
	return len(parts[""]) > 0 || len(parts["typename"]) > 0
}

// isRegistered reports whether an instance's keys say what this one would.
func (c *Cluster) isRegistered(fields map[string]json.RawMessage) bool {
	for key, value := range c.selfFields() {
		if string(fields[key]) != string(value) {
			return false
		}
	}
	return len(fields["timestamp"]) > 0
}

func setSig(sigs map[object.Signature]map[object.InstanceID]object.ID, sig object.Signature, inst object.InstanceID, id object.ID) {
	if sigs[sig] == nil {
		sigs[sig] = map[object.InstanceID]object.ID{}
	}
	sigs[sig][inst] = id
}

// holdsOwn reports whether a foreign object has a member that was made here.
// Called with mu held.
func (t *Tree) holdsOwn(e *entry) bool {
	return slices.ContainsFunc(e.members, func(m member) bool {
		return slices.ContainsFunc(t.equivalents(m), func(to *entry) bool { return !to.foreign })
	})
}

// relabel returns the ops that bring labels and name of an object up to date.
// Called with mu held.
func (t *Tree) relabel(e *entry, parts map[string][]byte) (ops []op) {
	if raw, ok := parts["__name"]; ok {
		if v, err := wirejson.Parse(raw); err == nil {
			if name, err := storedText(v); err == nil && name != e.name {
				ops = append(ops, op{kind: opTitle, id: e.id, name: name})
			}
		}
	}
	if raw, ok := parts["__labels"]; ok {
		if v, err := wirejson.Parse(raw); err == nil {
			if labels, err := storedValue(v); err == nil && string(labels) != string(e.labels) {
				ops = append(ops, op{kind: opLabel, id: e.id, labels: labels})
			}
		}
	}
	return ops
}

// refresh returns the ops that make an object what its keys say. Of an own one
// only labels and name can differ. Called with mu held.
func (t *Tree) refresh(have *entry, parts map[string][]byte) []op {
	if !have.foreign || len(parts[""]) == 0 {
		return t.relabel(have, parts)
	}
	e, err := t.decodeParts(have.id, parts)
	switch {
	case err != nil:
		return nil
	case have.instance != e.instance || string(have.plain) != string(e.plain):
		// Its instance has another number now.
		return []op{{kind: opDelete, id: have.id}, {kind: opPut, id: have.id, entry: e}}
	}
	var ops []op
	if have.name != e.name {
		ops = append(ops, op{kind: opTitle, id: have.id, name: e.name})
	}
	if string(have.labels) != string(e.labels) {
		ops = append(ops, op{kind: opLabel, id: have.id, labels: e.labels})
	}
	return ops
}

// isOrphan reports whether an object says that it is on this instance and was
// made here, but is not known: a crash lost it, or it was deleted here while it
// was on its way. Called with the tree's lock held.
func (c *Cluster) isOrphan(e *entry) bool {
	if e.instance != c.t.opts.Instance {
		return false
	}
	if uint64(e.id)>>12&0x3ff == uint64(c.t.opts.Instance)&0x3ff {
		return true
	}
	return slices.ContainsFunc(e.blobs, func(b object.ID) bool { return !c.t.opts.Blobs.Exists(b) })
}

// discard applies the end of objects that others deleted. Called with mu held.
func (t *Tree) discard(d *deletion) {
	t.follow(d.ops())
	if len(d.blobs) > 0 && t.opts.Free != nil {
		t.opts.Free(d.blobs)
	}
}

// setInstance makes the tree that of an instance. Called with mu held.
func (t *Tree) setInstance(n object.InstanceID) {
	t.opts.Instance = n
	t.opts.IDs.SetInstance(n)
}

// Renumber makes the tree that of another instance number. Clients that know the
// instance by the old one go on.
func (t *Tree) Renumber(from, to object.InstanceID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if from != to {
		t.follow([]op{{kind: opRenumber, inst: from, to: to}})
	}
	if t.opts.Instance != to {
		t.former = append(t.former, t.opts.Instance)
	}
	t.opts.Instance = to
}

// renumber makes the objects of one instance number those of another: the node
// has another number than in its earlier life. Called with mu held.
func (t *Tree) renumber(from, to object.InstanceID) {
	if from == to {
		return
	}
	for _, e := range t.objects {
		if e.foreign {
			continue
		}
		if e.instance == from {
			e.instance = to
		}
		e.plain = renumberLinks(e.plain, from, to)
	}
	for _, by := range t.sigs {
		if id, ok := by[from]; ok {
			delete(by, from)
			by[to] = id
		}
	}
}

// renumberLinks returns plain fields with the blob links of one instance made
// those of another.
func renumberLinks(plain []byte, from, to object.InstanceID) []byte {
	out := make([]byte, 0, len(plain)+16)
	for k, v := range asObject(plain).Members() {
		if v.Kind() == wirejson.Object {
			inst, err := v.Get("instance_id").Uint64()
			text, err2 := v.Get("id").Text()
			id, err3 := parseIDText(text)
			if err == nil && err2 == nil && err3 == nil && object.InstanceID(inst) == from {
				v = appendBlobLink(nil, id, to)
			}
		}
		out = appendPlain(out, string(k), v)
	}
	return out
}

// Start registers the instance and follows the changes of others until Leave.
// It returns when this node is part of the cluster; ctx bounds how long it tries.
func (c *Cluster) Start(ctx context.Context) error {
	run, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	c.stop, c.done = stop, &errgroup.Group{}
	c.commits.ended = run.Done()
	c.done.Go(func() error { c.commits.run(run); return nil })
	c.done.Go(func() error { c.watch(run); return nil })
	for {
		err := c.beat(ctx)
		if err == nil {
			break
		}
		// Perhaps the lock is that of a daemon that died, or somebody had our number.
		select {
		case <-time.After(min(time.Second, c.opts.Beat)):
		case <-ctx.Done():
			stop(errLeft)
			return errors.Join(err, c.done.Wait())
		}
	}
	beating, stopHeart := context.WithCancel(run)
	stopped := make(chan struct{})
	c.stopHeart = func() {
		stopHeart()
		<-stopped
	}
	c.done.Go(func() error {
		defer close(stopped)
		c.heart(beating)
		return nil
	})
	return nil
}

// Leave ends what Start began. Unless the node keeps its pool, its keys and its
// objects leave the cluster; where that fails, others remove them in half a
// minute.
func (c *Cluster) Leave(ctx context.Context, keep bool) error {
	if c.stop == nil {
		return c.b.Close()
	}
	if c.stopHeart != nil {
		c.stopHeart()
	}
	c.mu.Lock()
	c.registered = false // that the keys go is no reason to register again
	c.mu.Unlock()
	var err error
	if c.shared && !keep && c.Health() == nil {
		limited, cancel := context.WithTimeout(ctx, commitTimeout)
		err = c.exclusively(limited, func(ctx context.Context) error {
			_, err := c.remove(ctx, c.Number(), nil)
			return err
		})
		cancel()
	}
	c.stop(errLeft)
	return errors.Join(err, c.done.Wait(), c.b.Close())
}

// watch follows the store until ctx ends; when it cannot go on from where it is,
// or the store is another one, it loads everything again.
func (c *Cluster) watch(ctx context.Context) {
	for ctx.Err() == nil {
		watching, cancel := context.WithCancelCause(ctx)
		c.mu.Lock()
		c.rejoin = cancel
		at := c.at
		c.mu.Unlock()
		var err error
		if at != (Position{}) {
			err = c.b.Watch(watching, at.Revision, func(b Batch) { c.apply(at.Cluster, b) })
		}
		again := at == (Position{}) || errors.Is(context.Cause(watching), errRejoin) || errors.Is(err, ErrCompacted)
		cancel(nil)
		if ctx.Err() != nil {
			return
		}
		if again {
			c.log.Info("loading the cluster's metadata again", "why", errors.Join(context.Cause(watching), err))
			if err = c.load(ctx); err == nil {
				continue
			}
			c.mu.Lock()
			c.at = Position{}
			c.mu.Unlock()
		}
		if err != nil {
			c.log.Debug("the watch of the metadata store ended", "err", err)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// load reads the store anew while the node is running.
func (c *Cluster) load(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c.mu.Lock()
	before := c.opts.Saved
	floor := c.t.opts.Instance + 1
	for n := range c.instances {
		floor = max(floor, n+1) // others of that store come back, too, with their numbers
	}
	c.mu.Unlock()
	pairs, at, err := c.b.Load(limited)
	if err != nil {
		return err
	}
	s := parseStore(pairs)
	old := c.Number()
	number := old
	if id := s.hostID(old); s.instances[old] != nil && id != c.opts.HostID {
		if number, _, err = c.chooseNumber(limited, s, at, floor); err != nil {
			return err
		}
		c.log.Warn("another instance has this node's number: taking a new one", "old", old, "new", number)
	}
	var l loss
	l.wiped = at.Cluster != before.At.Cluster || at.Revision < before.At.Revision
	if l.any = l.wiped || s.hostID(number) != c.opts.HostID; l.any && !l.wiped {
		l.missed = c.readMissed(limited, before, at)
	}
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if number != old {
		c.t.follow([]op{{kind: opRenumber, inst: old, to: number}})
		c.t.setInstance(number)
		c.t.former = append(c.t.former, old)
		c.mu.Lock()
		c.opts.Saved.Number = number
		c.mu.Unlock()
		if c.opts.Renumbered != nil {
			defer c.opts.Renumbered(old, number)
		}
	}
	if l.any {
		c.log.Warn("the metadata store has lost this instance, or was replaced: registering again", "instance", c.t.opts.Instance,
			"revision", at.Revision)
	}
	c.reconcile(s, at, l)
	if number != old {
		// What the store has of this node has the old number.
		c.mu.Lock()
		for id, e := range c.t.objects {
			if !e.foreign && !e.transient {
				c.again[id] = lost{since: time.Now()}
			}
		}
		c.mu.Unlock()
	}
	return nil
}
