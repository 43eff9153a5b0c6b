package meta

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// Persist makes an object and its transient members visible to the cluster.
// Repeating it is fine.
func (t *Tree) Persist(ctx context.Context, id object.ID) error {
	if id.IsBlob() {
		return status.Errorf(status.AssertionFailed, "blobs cannot be persisted: persist an object that holds %s", id)
	}
	return t.transact(ctx, func() (*plan, error) {
		top := t.objects[id]
		if top == nil {
			return nil, status.Errorf(status.MetaTreeSubtreeNotExists, "no object %s", id)
		}
		p := &plan{}
		return p, p.persist(t, top)
	})
}

// persist adds an object and its transient members, members first. Called with
// mu held.
func (p *plan) persist(t *Tree, top *entry) error {
	if !top.transient {
		return nil
	}
	if err := p.include(t, top, map[object.ID]bool{}); err != nil {
		return err
	}
	p.sign(t, top)
	return nil
}

// include adds an object that others do not see, and its own members that they
// do not see either, members first. Members that they see have to be there still
// when the plan is committed. Called with mu held.
func (p *plan) include(t *Tree, e *entry, seen map[object.ID]bool) error {
	if seen[e.id] {
		return nil
	}
	seen[e.id] = true
	for _, m := range e.members {
		switch c := t.resolve(m); {
		case c == nil || c.id.IsBlob() || seen[c.id]:
		case !c.foreign && (c.transient || t.isHeld(c.id)):
			if err := p.include(t, c, seen); err != nil {
				return err
			}
		case !c.transient && t.isShared():
			seen[c.id] = true
			p.conditions = append(p.conditions, Condition{Key: dataKey(c.id), Is: SomeUnder})
		}
	}
	if e.transient {
		p.ops = append(p.ops, op{kind: opPersist, id: e.id})
	}
	return p.publish(t, e)
}

// sign adds the signatures by which an object, or the members of a global one,
// can be found. Called with mu held.
func (p *plan) sign(t *Tree, top *entry) {
	signed := map[string]bool{}
	add := func(n object.InstanceID, e *entry) {
		key := signatureKey(n, e.sig)
		if signed[key] {
			return
		}
		signed[key] = true
		p.ops = append(p.ops, op{kind: opSig, sig: e.sig, inst: n, id: e.id})
		if t.isShared() {
			p.changes = append(p.changes, Put(key, quoted(e.id)))
		}
	}
	if !top.global {
		if !top.copied && t.maySign(top.sig, t.opts.Instance, top.id) {
			add(t.opts.Instance, top)
		}
		return
	}
	for _, m := range top.members {
		if e := t.resolve(m); e != nil {
			add(e.instance, e)
		}
	}
}

// maySign reports whether an object can be what a signature means on an instance:
// not when another persistent object is that already. Called with mu held.
func (t *Tree) maySign(sig object.Signature, n object.InstanceID, id object.ID) bool {
	other := t.objects[t.sigs[sig][n]]
	return other == nil || other.id == id || other.transient
}

// publish adds an object's own key. Called with mu held.
func (p *plan) publish(t *Tree, e *entry) error {
	if !t.isShared() {
		return nil
	}
	for _, m := range e.members {
		if to := t.resolve(m); to != nil && to.foreign && to.transient {
			return status.Errorf(status.MetaTreeSubtreeNotExists, "member %q of %s, %s, was deleted on instance %d", m.key, e.id, to.id, to.instance)
		}
	}
	value, err := t.encodeObject(e)
	if err != nil {
		return err
	}
	p.changes = append(p.changes, Put(dataKey(e.id), value))
	if e.name != "" {
		p.changes = append(p.changes, Put(fieldKey(e.id, "__name"), appendValue(nil, e.name)))
	}
	p.ids = append(p.ids, e.id)
	return nil
}

func quoted(id object.ID) []byte { return []byte(`"` + id.String() + `"`) }

// Label merges labels into an object's. Blobs have none: they are accepted and
// ignored, as in 0.24.
func (t *Tree) Label(ctx context.Context, id object.ID, keys, values []string) error {
	if len(keys) != len(values) {
		return status.Errorf(status.Invalid, "%d label keys, but %d values", len(keys), len(values))
	}
	if id.IsBlob() {
		return nil
	}
	return t.transact(ctx, func() (*plan, error) {
		t.settled(id)
		e := t.objects[id]
		switch {
		case e == nil:
			return nil, status.Errorf(status.ObjectNotExists, "no object %s", id)
		case e.foreign && e.transient: // what its instance has again, it will have without the label
			return nil, status.Errorf(status.ObjectNotExists, "object %s has gone from instance %d; it is here for what refers to it", id, e.instance)
		}
		labels := map[string]string{}
		if text, err := e.labels.Text(); err == nil {
			_ = json.Unmarshal([]byte(text), &labels) // foreign labels that are no map are replaced
		}
		for i, k := range keys {
			labels[k] = values[i]
		}
		text, err := json.Marshal(labels)
		if err != nil {
			return nil, status.Errorf(status.Invalid, "labels: %w", err)
		}
		merged := wirejson.Value(wirejson.AppendString(nil, text))
		p := &plan{ops: []op{{kind: opLabel, id: id, labels: merged}}}
		if e.transient {
			return p, nil
		}
		key := fieldKey(id, "__labels")
		p.changes = []Change{Put(key, appendStored(nil, merged))}
		p.conditions = []Condition{{Key: dataKey(id), Is: SomeUnder}, {Key: key, Is: NoneUnder}}
		if len(e.labels) > 0 {
			// Labels that were in the object when it was persisted have no key of
			// their own: then the condition fails, and the lock is taken.
			p.conditions[1] = Condition{Key: key, Is: Equals, Equals: appendStored(nil, e.labels)}
		}
		return p, nil
	})
}

// PutName points a name at a persistent object.
func (t *Tree) PutName(ctx context.Context, id object.ID, name string) error {
	if id.IsBlob() {
		return status.Errorf(status.Invalid, "a blob cannot have a name: name an object that holds %s", id)
	}
	if name == "" {
		return status.Errorf(status.Invalid, "a name must not be empty")
	}
	return t.transact(ctx, func() (*plan, error) {
		t.settled(id)
		e := t.objects[id]
		switch {
		case e == nil:
			return nil, status.Errorf(status.ObjectNotExists, "no object %s", id)
		case e.transient:
			return nil, status.Errorf(status.Invalid, "transient objects cannot have a name, please persist %s first", id)
		}
		return &plan{
			ops: []op{{kind: opName, id: id, name: name}},
			changes: []Change{
				Put(nameKey(name), strconv.AppendUint(nil, uint64(id), 10)),
				Put(fieldKey(id, "__name"), appendValue(nil, escapeName(name))),
			},
			conditions: []Condition{{Key: dataKey(id), Is: SomeUnder}},
		}, nil
	})
}

// GetName resolves a name; with wait it waits until the name exists.
func (t *Tree) GetName(ctx context.Context, name string, wait bool) (object.ID, error) {
	if wait && name != "" {
		if err := t.wait(ctx, &waiter{name: name}); err != nil {
			return 0, err
		}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	id, ok := t.named(name)
	if !ok {
		return 0, status.Errorf(status.ObjectNotExists, "no name %q", name)
	}
	return id, nil
}

// named returns what a name points at. In a cluster, names of objects that are
// gone are what a daemon of the reference left behind: they count as absent.
// Without one they stay, as in 0.24. Called with mu held.
func (t *Tree) named(name string) (object.ID, bool) {
	id, ok := t.names[name]
	if ok && t.isShared() && t.objects[id] == nil {
		return 0, false
	}
	return id, ok
}

// ListNames returns at most limit names that match, in order of the names.
func (t *Tree) ListNames(pattern string, regex bool, limit uint64) map[string]object.ID {
	m := newMatcher(pattern, regex)
	t.mu.RLock()
	defer t.mu.RUnlock()
	var names []string
	for name := range t.names {
		if _, ok := t.named(name); ok && m.match(name) {
			names = append(names, name)
		}
	}
	if uint64(len(names)) > limit {
		slices.Sort(names)
		names = names[:limit]
	}
	out := make(map[string]object.ID, len(names))
	for _, name := range names {
		out[name] = t.names[name]
	}
	return out
}

// DropName forgets a name; an unknown one is no error, unless others may know it.
func (t *Tree) DropName(ctx context.Context, name string) error {
	if err := t.Sync(ctx); err != nil {
		return err
	}
	return t.transact(ctx, func() (*plan, error) {
		id, ok := t.names[name]
		if !ok {
			if t.isShared() { // while the store is away, others may know the name
				return &plan{}, t.cluster.unreachable()
			}
			return &plan{}, nil
		}
		p := &plan{
			ops:        []op{{kind: opUnname, name: name}},
			changes:    []Change{Delete(nameKey(name))},
			conditions: []Condition{{Key: nameKey(name), Is: Equals, Equals: strconv.AppendUint(nil, uint64(id), 10)}},
		}
		if e := t.objects[id]; e != nil && e.name == escapeName(name) {
			p.changes = append(p.changes, Delete(fieldKey(id, "__name")))
		}
		return p, nil
	})
}

// DeleteOptions are the flags of a deletion.
type DeleteOptions struct {
	Force bool // delete what refers to the object, too
	Deep  bool // delete members that nothing else refers to, too
}

// Delete deletes objects and blobs and returns the blobs that go with them;
// free is called with those blobs before any other change of the tree. Ids that
// may not be deleted, or that are unknown, are left out silently.
func (t *Tree) Delete(ctx context.Context, ids []object.ID, o DeleteOptions, free func([]object.ID)) ([]object.ID, error) {
	t.mu.Lock()
	d := t.deletion(ids, o)
	if !d.public() {
		defer t.mu.Unlock()
		return d.blobs, t.bury(d, free)
	}
	t.mu.Unlock()
	var gone []object.ID
	err := t.cluster.exclusively(ctx, func(ctx context.Context) error {
		t.mu.Lock()
		// What is on its way to the cluster arrives before, or will be refused.
		for d = t.deletion(ids, o); d.underWay(); d = t.deletion(ids, o) {
			t.published.Wait()
		}
		changes := d.changes()
		t.mu.Unlock()
		if _, err := t.cluster.commitAll(ctx, changes); err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		settled := t.settle(slices.Concat(d.objects, d.blobs))
		gone = settled.blobs
		return t.bury(settled, free)
	})
	return gone, err
}

// bury applies a deletion. Called with mu held.
func (t *Tree) bury(d *deletion, free func([]object.ID)) error {
	if err := t.commit(d.ops()); err != nil {
		return err
	}
	if len(d.blobs) > 0 {
		free(d.blobs)
	}
	return nil
}

// deletion plans what a request takes with it. Called with mu held.
func (t *Tree) deletion(ids []object.ID, o DeleteOptions) *deletion {
	d := &deletion{t: t, gone: map[object.ID]bool{}, want: map[object.ID]bool{}}
	for _, id := range ids {
		d.want[id] = true
	}
	for _, id := range ids {
		d.visit(id, o)
	}
	return d
}

// settle plans the end of objects that the cluster has forgotten. What is still
// referred to here stays as a transient object. Called with mu held.
func (t *Tree) settle(ids []object.ID) *deletion {
	d := t.deletion(ids, DeleteOptions{})
	for _, id := range ids {
		if e := t.objects[id]; e != nil && !d.gone[id] {
			d.kept = append(d.kept, id)
		}
	}
	return d
}

// deletion is what a delete request takes with it.
type deletion struct {
	t       *Tree
	want    map[object.ID]bool // requested and not yet looked at
	gone    map[object.ID]bool
	objects []object.ID
	blobs   []object.ID
	kept    []object.ID // objects that become transient
}

// ops returns the changes of the tree.
func (d *deletion) ops() []op {
	ops := make([]op, 0, len(d.objects)+len(d.kept)+1)
	for _, id := range d.objects {
		ops = append(ops, op{kind: opDelete, id: id})
	}
	for _, id := range d.kept {
		ops = append(ops, op{kind: opUnpersist, id: id})
	}
	if len(d.blobs) > 0 {
		ops = append(ops, op{kind: opBlobs, blobs: d.blobs})
	}
	return ops
}

// public reports whether other instances may know any of the objects. Called
// with mu held.
func (d *deletion) public() bool {
	if !d.t.isShared() {
		return false
	}
	return d.underWay() || slices.ContainsFunc(d.objects, func(id object.ID) bool {
		e := d.t.objects[id]
		return !e.transient || e.uncertain
	})
}

func (d *deletion) underWay() bool {
	return slices.ContainsFunc(d.objects, func(id object.ID) bool { return d.t.publishing[id] > 0 })
}

// changes are the keys of the objects that go: their own, all that lie below,
// their signatures, and the names that point at them. Called with mu held.
func (d *deletion) changes() (list []Change) {
	t := d.t
	public := map[object.ID]bool{}
	for _, id := range d.objects {
		e := t.objects[id]
		if e.transient && !e.uncertain {
			continue
		}
		public[id] = true
		list = append(list, DeleteAll(dataKey(id)))
		for inst, of := range t.sigs[e.sig] {
			if of == id {
				list = append(list, Delete(signatureKey(inst, e.sig)))
			}
		}
	}
	if len(public) == 0 {
		return nil
	}
	for name, id := range t.names {
		if public[id] {
			list = append(list, Delete(nameKey(name)))
		}
	}
	return list
}

// visit takes a requested id, its requested owners first: so the order of a
// request does not matter.
func (d *deletion) visit(id object.ID, o DeleteOptions) {
	if !d.want[id] {
		return
	}
	delete(d.want, id)
	for _, owner := range d.t.ownersOf(id) {
		d.visit(owner, o)
	}
	d.take(id, o)
}

// take deletes an id if that is allowed.
func (d *deletion) take(id object.ID, o DeleteOptions) {
	if d.gone[id] {
		return
	}
	e := d.t.objects[id]
	if e == nil && !id.IsBlob() {
		return
	}
	var owners []object.ID
	for _, owner := range d.t.ownersOf(id) {
		if !d.gone[owner] && !d.findsOther(owner, e) {
			owners = append(owners, owner)
		}
	}
	if len(owners) > 0 && !o.Force && !d.hasEquivalent(e) {
		return
	}
	d.gone[id] = true
	if e == nil {
		d.blobs = append(d.blobs, id)
	} else {
		d.objects = append(d.objects, id)
		for _, b := range e.blobs {
			d.take(b, DeleteOptions{})
		}
		for _, m := range e.members {
			for _, c := range d.t.equivalents(m) {
				// What others deleted is here only for what refers to it.
				if o.Deep || c.foreign && c.transient {
					d.take(c.id, DeleteOptions{Deep: o.Deep})
				}
			}
		}
	}
	if o.Force {
		for _, owner := range owners {
			d.take(owner, DeleteOptions{Force: true})
		}
	}
}

// findsOther reports whether an owner finds another object by the signature of one
// that is deleted: it is a global object, which links its members so. Called with mu
// held.
func (d *deletion) findsOther(owner object.ID, e *entry) bool {
	o := d.t.objects[owner]
	if o == nil || e == nil || !o.global || !d.t.isShared() { // alone, the rules of 0.24 go by the signatures only
		return false
	}
	for _, id := range d.t.sigs[e.sig] {
		if other := d.t.objects[id]; other != nil && id != e.id && !other.transient && !d.gone[id] {
			return true
		}
	}
	return false
}

// hasEquivalent reports whether another instance has another object of the same
// signature. Called with mu held.
func (d *deletion) hasEquivalent(e *entry) bool {
	if e == nil || len(d.t.sigs[e.sig]) < 2 {
		return false
	}
	for _, id := range d.t.sigs[e.sig] {
		if id != e.id {
			return true
		}
	}
	return false
}

// AllIDs lists every object, for clear.
func (t *Tree) AllIDs() []object.ID {
	t.mu.RLock()
	defer t.mu.RUnlock()
	ids := make([]object.ID, 0, len(t.objects))
	for _, id := range t.all.ids {
		if t.objects[id] != nil {
			ids = append(ids, id)
		}
	}
	return ids
}
