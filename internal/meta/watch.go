package meta

import (
	"encoding/json"
	"slices"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// apply brings what happened at one revision into the tree, in the order that
// 0.24 has: signatures, names and instances, objects; then what was deleted, the
// objects as one set. The changes of this node come back here, too, and change
// nothing then.
func (c *Cluster) apply(cluster string, b Batch) {
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.Cluster != cluster || b.Revision <= c.at.Revision {
		return // being loaded again, or known
	}
	if c.expelled(b) {
		// Others took this node for dead. What goes with its keys must not go here:
		// everything is loaded again, with that in mind.
		c.registered = false
		c.at = Position{}
		c.rejoin(errRejoin)
		return
	}
	defer c.arrive(Position{cluster, b.Revision})
	if len(b.Changes) == 0 {
		return
	}
	places := make([]place, len(b.Changes))
	for i, ch := range b.Changes {
		places[i] = parsePlace(ch.Key)
	}
	each := func(kind placeKind, deleted bool, f func(place, []byte)) {
		for i, p := range places {
			if p.kind == kind && b.Changes[i].Delete == deleted {
				f(p, b.Changes[i].Value)
			}
		}
	}
	each(placeInstance, false, func(p place, v []byte) {
		if json.Valid(v) {
			setField(c.instances, p.instance, p.field, v)
		}
	})
	each(placeNext, false, func(_ place, v []byte) {
		if value, err := wirejson.Parse(v); err == nil {
			c.next, _ = value.Uint64()
		}
	})
	if c.shared {
		c.applyObjects(each)
	}
	each(placeInstance, true, func(p place, _ []byte) {
		delete(c.instances[p.instance], p.field)
		if len(c.instances[p.instance]) == 0 {
			delete(c.instances, p.instance)
		}
	})
}

// expelled reports whether changes take away this instance's own keys. Called
// with both locks held.
func (c *Cluster) expelled(b Batch) bool {
	own := instanceKey(c.t.opts.Instance) + "hostid"
	return c.registered && c.rejoin != nil && slices.ContainsFunc(b.Changes, func(ch Change) bool { return ch.Delete && ch.Key == own })
}

// applyObjects applies what concerns objects. Called with both locks held.
func (c *Cluster) applyObjects(each func(placeKind, bool, func(place, []byte))) {
	t := c.t
	each(placeSignature, false, func(p place, v []byte) {
		if id, ok := parseSigValue(v); ok && t.maySign(p.sig, p.instance, id) { // not instead of what persists
			setSig(t.sigs, p.sig, p.instance, id)
		}
	})
	var ops []op
	each(placeName, false, func(p place, v []byte) {
		if id, ok := parseNameValue(v); ok && t.names[p.name] != id {
			ops = append(ops, op{kind: opName, name: p.name, id: id, elsewhere: true})
		}
	})
	t.follow(ops)

	parts := map[object.ID]map[string][]byte{}
	var order []object.ID
	each(placeData, false, func(p place, v []byte) {
		if parts[p.id] == nil {
			parts[p.id] = map[string][]byte{}
			order = append(order, p.id)
		}
		parts[p.id][p.field] = v
	})
	for _, id := range order {
		t.follow(c.put(id, parts[id]))
	}
	if len(order) > 0 && len(c.again) > 0 {
		c.nudge() // perhaps what an own object waited for
	}

	var gone []object.ID
	seen := map[object.ID]bool{}
	each(placeData, true, func(p place, _ []byte) {
		switch {
		case p.field == "__name":
			t.follow([]op{{kind: opTitle, id: p.id}})
		case !seen[p.id]:
			seen[p.id] = true
			gone = append(gone, p.id)
		}
	})
	suspects := c.suspects()
	gone = slices.DeleteFunc(gone, func(id object.ID) bool {
		delete(c.partial, id)
		delete(c.orphans, id)
		e := t.objects[id]
		if e == nil {
			return true
		}
		hold := suspects && (!e.foreign || t.holdsOwn(e))
		if hold {
			c.held[id] = true
		}
		return hold || e.transient && !e.uncertain
	})
	left := map[object.ID]*entry{} // own objects of which something may be left in the store
	for _, id := range gone {
		if e := t.objects[id]; !e.foreign && (e.name != "" || len(e.labels) > 0) {
			left[id] = e
		}
	}
	each(placeData, true, func(p place, _ []byte) {
		if p.field != "" {
			delete(left, p.id) // deleted with all that belongs to it
		}
	})
	if len(gone) > 0 {
		t.discard(t.settle(gone))
	}
	for id := range left {
		if t.objects[id] == nil {
			// A daemon of the reference leaves name and labels behind: its owner tidies up.
			c.orphans[id] = true
			c.nudge()
		}
	}

	ops = ops[:0]
	each(placeName, true, func(p place, _ []byte) {
		if id, ok := t.names[p.name]; ok && !c.held[id] {
			ops = append(ops, op{kind: opUnname, name: p.name, elsewhere: true})
		}
	})
	t.follow(ops)
	each(placeSignature, true, func(p place, _ []byte) {
		if by := t.sigs[p.sig]; by != nil && !c.held[by[p.instance]] {
			if delete(by, p.instance); len(by) == 0 {
				delete(t.sigs, p.sig)
			}
		}
	})
}

// put returns the ops for an object of which keys were put. Called with both
// locks held.
func (c *Cluster) put(id object.ID, parts map[string][]byte) []op {
	t := c.t
	delete(c.held, id)
	have := t.objects[id]
	if own := t.pending[id]; have == nil && own != nil {
		return []op{{kind: opPut, id: id, entry: own}}
	}
	_, whole := parts[""]
	if have != nil && whole && have.transient {
		t.follow([]op{{kind: opPersist, id: id}}) // ours, or one that was kept after its end
	}
	if have != nil {
		return t.refresh(have, parts)
	}
	if earlier := c.partial[id]; earlier != nil {
		for field, v := range parts {
			earlier[field] = v
		}
		parts = earlier
	}
	e, err := t.decodeParts(id, parts)
	if err != nil {
		c.log.Debug("ignoring an incomplete object", "err", err)
		c.partial[id] = parts
		return nil
	}
	delete(c.partial, id)
	if c.isOrphan(e) {
		c.orphans[id] = true
		c.nudge()
		return nil
	}
	return []op{{kind: opPut, id: id, entry: e}}
}
