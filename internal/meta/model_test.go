package meta

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/v6d-go/v6d/internal/object"
)

// The model is a second, naive reading of docs/protocol.md on metadata: maps,
// recursion, no indexes, nothing encoded.
type model struct {
	own    uint64
	clock  int64 // unix milliseconds
	objs   map[object.ID]*thing
	blobs  map[object.ID]int64 // sealed ones, with their sizes
	names  map[string]object.ID
	sigs   map[uint64]map[uint64]object.ID // signature, instance -> object
	events []string                        // since the last look
}

// thing is an object.
type thing struct {
	id        object.ID
	typ       string
	sig, inst uint64
	ts        int64
	global    bool
	hasGlobal bool
	transient bool
	copied    bool
	name      string // __name
	labels    map[string]string
	plain     map[string]any
	links     map[string]link // members and blobs
	keys      []string        // in the order in which they were sent
}

// link is one member of an object.
type link struct {
	id   object.ID
	sig  uint64 // of a member of a global object
	inst uint64 // of a blob
}

func newModel(own uint64) *model {
	return &model{
		own: own, clock: 1e12, objs: map[object.ID]*thing{}, blobs: map[object.ID]int64{},
		names: map[string]object.ID{}, sigs: map[uint64]map[uint64]object.ID{},
	}
}

func (m *model) event(kind EventKind, id object.ID, name string) {
	m.events = append(m.events, fmt.Sprint(kind, " ", id, " ", name))
}

// ids lists all objects in ascending order.
func (m *model) ids() []object.ID { return slices.Sorted(maps.Keys(m.objs)) }

func (m *model) add(o *thing) {
	m.objs[o.id] = o
	for _, key := range o.keys {
		if l, ok := o.links[key]; ok && o.global && !m.objs[l.id].copied {
			m.setSig(l.sig, uint64(m.objs[l.id].inst), l.id)
		}
	}
	m.event(Created, o.id, "")
}

func (m *model) setSig(sig, inst uint64, id object.ID) {
	if other := m.objs[m.sigs[sig][inst]]; other != nil && other.id != id && !other.transient {
		return
	}
	if m.sigs[sig] == nil {
		m.sigs[sig] = map[uint64]object.ID{}
	}
	m.sigs[sig][inst] = id
}

// resolve finds what a link to an object shows: of a global object's members
// the equivalent on this instance first.
func (m *model) resolve(l link) *thing {
	if l.sig == 0 {
		return m.objs[l.id]
	}
	if o := m.objs[m.sigs[l.sig][m.own]]; o != nil {
		return o
	}
	var first *thing
	key := ""
	for inst, id := range m.sigs[l.sig] {
		if o := m.objs[id]; o != nil && (first == nil || fmt.Sprint(inst) < key) {
			first, key = o, fmt.Sprint(inst)
		}
	}
	if first == nil {
		return m.objs[l.id]
	}
	return first
}

func num[T int64 | uint64 | int](n T) json.Number { return json.Number(fmt.Sprint(n)) }

func blobTree(id object.ID, inst uint64, size int64) map[string]any {
	return map[string]any{
		"id": id.String(), "typename": "vineyard::Blob", "length": num(size), "nbytes": num(size),
		"instance_id": num(inst), "transient": true,
	}
}

// tree is what get_data returns of an object; false if a member is gone, or if
// the tree has no end: an equivalent of a member may contain the object.
func (m *model) tree(o *thing) (map[string]any, bool) { return m.subtree(o, 0) }

func (m *model) subtree(o *thing, depth int) (map[string]any, bool) {
	if depth > 100 {
		return nil, false
	}
	out := map[string]any{
		"id": o.id.String(), "typename": o.typ, "signature": num(o.sig), "instance_id": num(o.inst),
		"transient": o.transient, "__timestamp": num(o.ts),
	}
	if o.hasGlobal {
		out["global"] = o.global
	}
	if o.name != "" {
		out["__name"] = o.name
	}
	if o.labels != nil {
		out["__labels"] = o.labels
	}
	maps.Copy(out, o.plain)
	for key, l := range o.links {
		if l.id.IsBlob() {
			out[key] = blobTree(l.id, l.inst, 0)
			continue
		}
		member := m.resolve(l)
		if member == nil {
			return nil, false
		}
		sub, ok := m.subtree(member, depth+1)
		if !ok {
			return nil, false
		}
		out[key] = sub
	}
	return out, true
}

// get is the content of a get_data reply.
func (m *model) get(ids []object.ID) map[string]any {
	var out map[string]any
	put := func(id object.ID, tree map[string]any) {
		if out == nil {
			out = map[string]any{}
		}
		out[id.String()] = tree
	}
	for _, id := range ids {
		if size, ok := m.sealed(id); ok {
			put(id, blobTree(id, m.own, size))
		}
		if o := m.objs[id]; o != nil {
			if tree, ok := m.tree(o); ok {
				put(id, tree)
			}
		}
	}
	return out
}

func (m *model) sealed(id object.ID) (int64, bool) {
	size, ok := m.blobs[id]
	return size, ok || id == object.EmptyBlob
}

// owners lists the objects that link to an id. Links to blobs of other
// instances count for nobody here.
func (m *model) owners(id object.ID) (out []object.ID) {
	for _, o := range m.objs {
		for _, l := range o.links {
			refers := l.id == id && (!id.IsBlob() || l.inst == m.own && id != object.EmptyBlob)
			if l.sig != 0 && slices.Contains(slices.Collect(maps.Values(m.sigs[l.sig])), id) {
				refers = m.objs[id] != nil // a global object refers to every equivalent
			}
			if refers {
				out = append(out, o.id)
				break
			}
		}
	}
	slices.Sort(out)
	return out
}

func (m *model) persist(id object.ID) {
	o := m.objs[id]
	if !o.transient {
		return
	}
	other := m.objs[m.sigs[o.sig][m.own]]
	free := other == nil || other == o || other.transient
	m.persistMembers(o)
	if !o.global && free && !o.copied {
		m.setSig(o.sig, m.own, o.id)
	}
	if !o.global {
		return
	}
	var found []*thing
	for _, l := range o.links {
		if c := m.resolve(l); c != nil {
			found = append(found, c)
		}
	}
	for _, c := range found {
		m.setSig(c.sig, uint64(c.inst), c.id)
	}
}

func (m *model) persistMembers(o *thing) {
	if !o.transient {
		return
	}
	o.transient = false
	for _, l := range o.links {
		if !l.id.IsBlob() {
			if c := m.resolve(l); c != nil {
				m.persistMembers(c)
			}
		}
	}
	m.event(Persisted, o.id, "")
}

// del deletes what a request for ids takes with it and returns the blobs.
func (m *model) del(ids []object.ID, force, deep bool) (blobs []object.ID) {
	gone := map[object.ID]bool{}
	equivalent := func(o *thing) bool {
		for _, id := range m.sigs[o.sig] {
			if id != o.id {
				return len(m.sigs[o.sig]) > 1
			}
		}
		return false
	}
	var deleted []*thing
	var take func(id object.ID, force, deep bool)
	take = func(id object.ID, force, deep bool) {
		o := m.objs[id]
		owners := slices.DeleteFunc(m.owners(id), func(o object.ID) bool { return gone[o] })
		switch {
		case gone[id] || o == nil && !id.IsBlob():
			return
		case len(owners) > 0 && !force && (o == nil || !equivalent(o)):
			return
		}
		gone[id] = true
		if o == nil {
			blobs = append(blobs, id)
		} else {
			deleted = append(deleted, o)
			for _, l := range o.links {
				if l.id.IsBlob() && l.inst == m.own && l.id != object.EmptyBlob {
					take(l.id, false, false)
				}
			}
			for _, l := range o.links {
				if l.id.IsBlob() || !deep {
					continue
				}
				all := []object.ID{l.id}
				if l.sig != 0 {
					all = append(all, slices.Collect(maps.Values(m.sigs[l.sig]))...)
				}
				slices.Sort(all)
				for _, id := range all {
					if m.objs[id] != nil {
						take(id, false, true)
					}
				}
			}
		}
		if force {
			for _, owner := range owners {
				take(owner, true, false)
			}
		}
	}
	// Of requested ids, owners go first.
	var visit func(id object.ID)
	asked := map[object.ID]bool{}
	visit = func(id object.ID) {
		if asked[id] {
			return
		}
		asked[id] = true
		for _, owner := range m.owners(id) {
			if slices.Contains(ids, owner) {
				visit(owner)
			}
		}
		take(id, force, deep)
	}
	for _, id := range ids {
		visit(id)
	}
	for _, o := range deleted {
		delete(m.objs, o.id)
		for sig, by := range m.sigs {
			maps.DeleteFunc(by, func(_ uint64, id object.ID) bool { return id == o.id })
			if len(by) == 0 {
				delete(m.sigs, sig)
			}
		}
		m.event(Deleted, o.id, "")
	}
	for _, id := range blobs {
		delete(m.blobs, id)
	}
	slices.Sort(blobs)
	return blobs
}

func (m *model) putName(id object.ID, name string) {
	m.names[name] = id
	m.objs[id].name = strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	m.event(Named, id, name)
}

func (m *model) dropName(name string) {
	id, ok := m.names[name]
	if !ok {
		return
	}
	delete(m.names, name)
	if o := m.objs[id]; o != nil {
		if o.name == strings.NewReplacer("~", "~0", "/", "~1").Replace(name) {
			o.name = ""
		}
		m.event(Unnamed, id, name)
	}
}

// bytes sums the distinct local blobs in the tree of an object.
func (m *model) bytes(o *thing) (n int64) {
	seen := map[object.ID]bool{}
	var walk func(o *thing)
	walk = func(o *thing) {
		if seen[o.id] {
			return
		}
		seen[o.id] = true
		for _, l := range o.links {
			switch {
			case l.id.IsBlob() && l.inst == m.own && !seen[l.id]:
				seen[l.id] = true
				n += m.blobs[l.id]
			case !l.id.IsBlob():
				if c := m.resolve(l); c != nil {
					walk(c)
				}
			}
		}
	}
	walk(o)
	return n
}
