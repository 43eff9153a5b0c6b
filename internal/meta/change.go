package meta

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

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
	t.mu.Lock()
	top := t.objects[id]
	if top == nil {
		t.mu.Unlock()
		return status.Errorf(status.MetaTreeSubtreeNotExists, "no object %s", id)
	}
	var ops []op
	var changes []Change
	seen := map[object.ID]bool{}
	var walk func(*entry)
	walk = func(e *entry) {
		if seen[e.id] || !e.transient {
			return
		}
		seen[e.id] = true
		for _, m := range e.members {
			if c := t.resolve(m); c != nil {
				walk(c)
			}
		}
		ops = append(ops, op{kind: opPersist, id: e.id})
		changes = append(changes, Change{Kind: PutObject, ID: e.id})
	}
	walk(top)
	if len(ops) > 0 && !top.global {
		ops = append(ops, op{kind: opSig, sig: top.sig, inst: t.opts.Instance, id: top.id})
	}
	t.mu.Unlock()
	if len(ops) == 0 {
		return nil
	}
	return t.publish(ctx, ops, changes)
}

// publish commits changes to the cluster, then to this tree.
func (t *Tree) publish(ctx context.Context, ops []op, changes []Change) error {
	if err := t.backend.Commit(ctx, t.opts.Session, changes); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.commit(ops)
}

// Label merges labels into an object's. Blobs have none: they are accepted and
// ignored, as in 0.24.
func (t *Tree) Label(ctx context.Context, id object.ID, keys, values []string) error {
	if len(keys) != len(values) {
		return status.Errorf(status.Invalid, "%d label keys, but %d values", len(keys), len(values))
	}
	if id.IsBlob() {
		return nil
	}
	t.labelling.Lock()
	defer t.labelling.Unlock()
	t.mu.RLock()
	e := t.objects[id]
	if e == nil {
		t.mu.RUnlock()
		return status.Errorf(status.ObjectNotExists, "no object %s", id)
	}
	labels := map[string]string{}
	if text, err := e.labels.Text(); err == nil {
		_ = json.Unmarshal([]byte(text), &labels) // foreign labels that are no map are replaced
	}
	persistent := !e.transient
	t.mu.RUnlock()
	for i, k := range keys {
		labels[k] = values[i]
	}
	text, err := json.Marshal(labels)
	if err != nil {
		return status.Errorf(status.Invalid, "labels: %w", err)
	}
	var changes []Change
	if persistent {
		changes = []Change{{Kind: PutLabels, ID: id}}
	}
	return t.publish(ctx, []op{{kind: opLabel, id: id, labels: wirejson.AppendString(nil, text)}}, changes)
}

// PutName points a name at a persistent object.
func (t *Tree) PutName(ctx context.Context, id object.ID, name string) error {
	if id.IsBlob() {
		return status.Errorf(status.Invalid, "a blob cannot have a name: name an object that holds %s", id)
	}
	if name == "" {
		return status.Errorf(status.Invalid, "a name must not be empty")
	}
	t.mu.RLock()
	e := t.objects[id]
	transient := e != nil && e.transient
	t.mu.RUnlock()
	switch {
	case e == nil:
		return status.Errorf(status.ObjectNotExists, "no object %s", id)
	case transient:
		return status.Errorf(status.Invalid, "transient objects cannot have a name, please persist %s first", id)
	}
	return t.publish(ctx, []op{{kind: opName, id: id, name: name}}, []Change{{Kind: PutName, ID: id, Name: name}})
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
	id, ok := t.names[name]
	if !ok {
		return 0, status.Errorf(status.ObjectNotExists, "no name %q", name)
	}
	return id, nil
}

// ListNames returns at most limit names that match, in order of the names.
func (t *Tree) ListNames(pattern string, regex bool, limit uint64) map[string]object.ID {
	m := newMatcher(pattern, regex)
	t.mu.RLock()
	defer t.mu.RUnlock()
	var names []string
	for name := range t.names {
		if m.match(name) {
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

// DropName forgets a name; an unknown one is no error.
func (t *Tree) DropName(ctx context.Context, name string) error {
	t.mu.RLock()
	_, ok := t.names[name]
	t.mu.RUnlock()
	if !ok {
		return nil
	}
	return t.publish(ctx, []op{{kind: opUnname, name: name}}, []Change{{Kind: DeleteName, Name: name}})
}

// escapeName is how 0.24 shows a name in an object's __name.
func escapeName(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
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
	defer t.mu.Unlock()
	d := deletion{t: t, gone: map[object.ID]bool{}, want: map[object.ID]bool{}}
	for _, id := range ids {
		d.want[id] = true
	}
	for _, id := range ids {
		d.visit(id, o)
	}
	var ops []op
	var changes []Change
	for _, id := range d.objects {
		ops = append(ops, op{kind: opDelete, id: id})
		if e := t.objects[id]; !e.transient {
			changes = append(changes, Change{Kind: DeleteObject, ID: id})
		}
	}
	if len(d.blobs) > 0 {
		ops = append(ops, op{kind: opBlobs, blobs: d.blobs})
	}
	if len(changes) > 0 {
		if err := t.backend.Commit(ctx, t.opts.Session, changes); err != nil {
			return nil, err
		}
	}
	if err := t.commit(ops); err != nil {
		return nil, err
	}
	if len(d.blobs) > 0 {
		free(d.blobs)
	}
	return d.blobs, nil
}

// deletion computes what a delete request takes with it.
type deletion struct {
	t       *Tree
	want    map[object.ID]bool // requested and not yet looked at
	gone    map[object.ID]bool
	objects []object.ID
	blobs   []object.ID
}

// visit takes a requested id, its requested owners first: so the order of a
// request does not matter.
func (d *deletion) visit(id object.ID, o DeleteOptions) {
	if !d.want[id] {
		return
	}
	delete(d.want, id)
	for _, owner := range d.t.owners[id] {
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
	for _, owner := range d.t.owners[id] {
		if !d.gone[owner] {
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
		if o.Deep {
			for _, m := range e.members {
				if c := d.t.resolve(m); c != nil {
					d.take(c.id, DeleteOptions{Deep: true})
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

// hasEquivalent reports whether another instance has an object of the same
// signature. Called with mu held.
func (d *deletion) hasEquivalent(e *entry) bool {
	return e != nil && len(d.t.sigs[e.sig]) > 1
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
