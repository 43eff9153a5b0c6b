package meta

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// Origin is an object of another instance that is to be brought here.
type Origin struct {
	ID       object.ID
	Instance object.InstanceID
	Here     object.ID   // what stands for it on this instance already, or 0
	Blobs    []object.ID // that have to be brought, ascending, without the empty blob
}

// Origin tells what bringing an object here takes.
func (t *Tree) Origin(id object.ID) (Origin, error) {
	if id.IsBlob() {
		return Origin{}, status.Errorf(status.Invalid, "blobs cannot be directly migrated")
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.objects[id]
	switch {
	case e == nil:
		return Origin{}, status.Errorf(status.MetaTreeSubtreeNotExists, "no object %s", id)
	case e.global:
		return Origin{}, status.Errorf(status.Invalid, "global objects cannot be directly migrated")
	case e.instance == t.opts.Instance:
		return Origin{ID: id, Instance: e.instance, Here: id}, nil
	case e.transient:
		return Origin{}, status.Errorf(status.MetaTreeSubtreeNotExists, "object %s has gone from instance %d; it is here for what refers to it", id, e.instance)
	case !t.isShared() || e.instance == object.AnyInstance:
		return Origin{}, status.Errorf(status.Invalid, "instance %d of object %s is not in the cluster", e.instance, id)
	}
	o := Origin{ID: id, Instance: e.instance}
	if copied := t.copyHere(e); copied != nil {
		o.Here = copied.id
		return o, nil
	}
	err := t.walkOrigin(e, map[object.ID]bool{}, func(e *entry) {
		for _, link := range blobLinks(e.plain) {
			o.Blobs = append(o.Blobs, link.id)
		}
	})
	slices.Sort(o.Blobs)
	o.Blobs = slices.Compact(o.Blobs)
	return o, err
}

// walkOrigin calls f for an object of another instance and for all its members
// of which there is no copy here, members first. Called with mu held.
func (t *Tree) walkOrigin(e *entry, seen map[object.ID]bool, f func(*entry)) error {
	if seen[e.id] {
		return nil
	}
	seen[e.id] = true
	for _, m := range e.members {
		to := t.resolve(m)
		switch {
		case to == nil:
			return status.Errorf(status.MetaTreeSubtreeNotExists, "member %q of %s, %s, is not known", m.key, e.id, m.id)
		case to.global || to.instance != e.instance:
			return status.Errorf(status.Invalid, "member %q of %s does not lie on instance %d with it", m.key, e.id, e.instance)
		case t.copyHere(to) != nil:
			continue
		}
		if err := t.walkOrigin(to, seen, f); err != nil {
			return err
		}
	}
	f(e)
	return nil
}

// copyHere returns the object of this instance that stands for one of another, or
// nil: what was brought here before, or what has its signature. Called with mu
// held.
func (t *Tree) copyHere(e *entry) *entry {
	if c := t.objects[t.copies[e.id]]; c != nil && !c.transient {
		return c
	}
	by := t.sigs[e.sig]
	if by[e.instance] != e.id {
		return nil // a shallow copy has the signature of its source
	}
	if c := t.objects[by[t.opts.Instance]]; c != nil && !c.transient && !c.copied && c.instance == t.opts.Instance && c.typ.name == e.typ.name {
		return c
	}
	return nil
}

// blobLink is a link to a blob among plain fields.
type blobLink struct {
	key string
	id  object.ID
}

// blobLinks lists the links to blobs, whichever instance these are on; the empty
// blob is left out.
func blobLinks(plain []byte) (links []blobLink) {
	for k, v := range asObject(plain).Members() {
		if v.Kind() != wirejson.Object {
			continue
		}
		text, _ := v.Get("id").Text()
		if id, err := parseIDText(text); err == nil && id.IsBlob() && id != object.EmptyBlob {
			links = append(links, blobLink{string(k), id})
		}
	}
	return links
}

// Adopt files copies of an object of another instance and of its members, over
// blobs that were brought here, and persists them: the same fields and signatures,
// new ids. Which blobs stand for those of the origin, blobs tells; those of members
// of which there is a copy by now are not needed. seal seals them, when the copies
// are filed: a crash takes both back, as long as the copies are not persisted.
func (t *Tree) Adopt(ctx context.Context, id object.ID, blobs map[object.ID]object.ID, seal func() error) (object.ID, error) {
	made, err := t.copyOrigin(id, blobs)
	if err != nil {
		return 0, err
	}
	if err = seal(); err == nil {
		err = t.Persist(ctx, made[id])
	}
	if err != nil {
		t.retract(made)
		return 0, err
	}
	if err := t.signParts(ctx, made); err != nil {
		// Only a global object that has a part of this one as a member lacks something.
		t.opts.Log.Warn("the members of a copy cannot be found by their signatures", "id", made[id], "err", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for old, id := range made {
		if e := t.objects[id]; e != nil {
			e.origin = old
			t.copies[old] = id
		}
	}
	if e := t.objects[made[id]]; e != nil {
		t.tell(Migrated, e, "")
	}
	return made[id], nil
}

// retract takes copies back that could not be persisted, here alone, since the
// cluster may be out of reach. What it has got of them all the same is removed from
// there when it answers again.
func (t *Tree) retract(made map[object.ID]object.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ops []op
	for _, id := range made {
		e := t.objects[id]
		if e == nil {
			continue
		}
		ops = append(ops, op{kind: opDelete, id: id})
		if c := t.cluster; t.isShared() && (e.uncertain || !e.transient) {
			c.mu.Lock()
			c.orphans[id] = true
			c.mu.Unlock()
			c.nudge()
		}
	}
	t.follow(ops)
}

// signParts files the signatures of copies whose origins are found by theirs: they
// are members of global objects, too. 0.24 files only that of the object itself.
func (t *Tree) signParts(ctx context.Context, made map[object.ID]object.ID) error {
	return t.transact(ctx, func() (*plan, error) {
		p := &plan{}
		for old, id := range made {
			from, e := t.objects[old], t.objects[id]
			if from == nil || e == nil || e.transient || len(t.sigOwners[e.sig]) == 0 || t.sigs[e.sig][e.instance] == id ||
				t.sigs[e.sig][from.instance] != old || !t.maySign(e.sig, e.instance, id) {
				continue
			}
			p.ops = append(p.ops, op{kind: opSig, sig: e.sig, inst: e.instance, id: id})
			p.changes = append(p.changes, Put(signatureKey(e.instance, e.sig), quoted(id)))
			p.conditions = append(p.conditions, Condition{Key: dataKey(id), Is: SomeUnder})
		}
		return p, nil
	})
}

// copyOrigin files the copies as transient objects.
func (t *Tree) copyOrigin(id object.ID, blobs map[object.ID]object.ID) (made map[object.ID]object.ID, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	top := t.objects[id]
	if top == nil || top.transient || top.instance == t.opts.Instance {
		return nil, status.Errorf(status.ObjectNotExists, "object %s was deleted meanwhile", id)
	}
	made = map[object.ID]object.ID{}
	var ops []op
	walked := t.walkOrigin(top, map[object.ID]bool{}, func(e *entry) {
		c := *e
		c.id, c.instance, c.timestamp = t.opts.IDs.Object(), t.opts.Instance, t.now().UnixMilli()
		c.transient, c.draft, c.foreign, c.uncertain = true, true, false, false
		c.blobs = nil
		links := map[string]wirejson.Value{}
		for _, link := range blobLinks(e.plain) {
			to := blobs[link.id]
			if to == 0 {
				err = status.Errorf(status.ObjectNotExists, "object %s has changed meanwhile: blob %s was not brought", id, link.id)
				return
			}
			links[link.key] = appendBlobLink(nil, to, c.instance)
			if !slices.Contains(c.blobs, to) {
				c.blobs = append(c.blobs, to)
			}
		}
		c.plain = replacePlain(e.plain, links, e.instance, c.instance)
		c.members = slices.Clone(e.members)
		for i := range c.members {
			m := &c.members[i]
			to := t.resolve(*m)
			if copied := made[to.id]; copied != 0 {
				m.id = copied
			} else if here := t.copyHere(to); here != nil {
				m.id = here.id
			}
			m.sig = 0
		}
		made[e.id] = c.id
		ops = append(ops, op{kind: opPut, id: c.id, entry: &c})
	})
	if err = cmp.Or(walked, err); err != nil {
		return nil, err
	}
	return made, t.commit(ops)
}

// replacePlain returns plain fields with links to blobs replaced; links to the
// empty blob name the new instance.
func replacePlain(plain []byte, links map[string]wirejson.Value, from, to object.InstanceID) []byte {
	out := make([]byte, 0, len(plain)+16*len(links))
	for k, v := range asObject(plain).Members() {
		if link, ok := links[string(k)]; ok {
			v = link
		} else if v.Kind() == wirejson.Object && from != to {
			v = appendBlobLink(nil, object.EmptyBlob, to)
		}
		out = appendPlain(out, string(k), v)
	}
	return out
}

// MoveNames points the names of an object of another instance, and of its members,
// at what stands for them here: to, and its members.
func (t *Tree) MoveNames(ctx context.Context, from, to object.ID) error {
	t.mu.RLock()
	made := map[object.ID]object.ID{}
	t.pair(t.objects[from], t.objects[to], made)
	names := map[string]object.ID{}
	for name, id := range t.names {
		if made[id] != 0 {
			names[name] = id
		}
	}
	t.mu.RUnlock()
	for name, old := range names {
		to := made[old]
		err := t.transact(ctx, func() (*plan, error) {
			if t.names[name] != old {
				return &plan{}, nil // it names something else by now
			}
			if e := t.objects[to]; e == nil || e.transient {
				return nil, status.Errorf(status.ObjectNotExists, "no object %s", to)
			}
			return &plan{
				ops: []op{{kind: opName, id: to, name: name}},
				changes: []Change{
					Put(nameKey(name), strconv.AppendUint(nil, uint64(to), 10)),
					Put(fieldKey(to, "__name"), appendValue(nil, escapeName(name))),
				},
				conditions: []Condition{
					{Key: dataKey(to), Is: SomeUnder},
					{Key: nameKey(name), Is: Equals, Equals: strconv.AppendUint(nil, uint64(old), 10)},
				},
			}, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pair notes which parts of a copy stand for which of its origin. Called with mu
// held.
func (t *Tree) pair(from, to *entry, made map[object.ID]object.ID) {
	if from == nil || to == nil || from == to || made[from.id] != 0 {
		return
	}
	made[from.id] = to.id
	byKey := map[string]member{}
	for _, m := range to.members {
		byKey[m.key] = m
	}
	for _, m := range from.members {
		if n, ok := byKey[m.key]; ok {
			t.pair(t.resolve(m), t.resolve(n), made)
		}
	}
}
