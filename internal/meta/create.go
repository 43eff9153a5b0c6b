package meta

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// Created is what a client learns about a new object.
type CreatedObject struct {
	ID        object.ID
	Signature object.Signature
	Instance  object.InstanceID
}

// Create files objects from the metadata that clients send, all or none.
// Members that are objects must exist, or be sent complete.
func (t *Tree) Create(contents []wirejson.Value) ([]CreatedObject, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := builder{t: t}
	out := make([]CreatedObject, 0, len(contents))
	for _, content := range contents {
		e, err := b.object(content)
		if err != nil {
			return nil, err
		}
		out = append(out, CreatedObject{e.id, e.sig, e.instance})
	}
	var blobs []object.ID
	for _, o := range b.ops {
		if o.kind == opPut {
			blobs = append(blobs, o.entry.blobs...)
		}
	}
	undo, err := t.opts.Blobs.Keep(blobs)
	if err != nil {
		return nil, err
	}
	if err := t.commit(b.ops); err != nil {
		undo()
		return nil, err
	}
	return out, nil
}

// builder turns client metadata into ops. It runs with the tree's lock held.
type builder struct {
	t   *Tree
	ops []op
	new map[object.ID]*entry // unknown members that were sent complete; nil while being made
}

// fields collects an object's keys; of duplicates the last wins.
func fields(content wirejson.Value) ([]wirejson.Member, error) {
	var list []wirejson.Member
	for k, v := range content.Members() {
		if len(k) == 0 {
			return nil, status.Errorf(status.MetaTreeInvalid, "a key of the metadata is empty")
		}
		list = append(list, wirejson.Member{Key: k, Value: v})
	}
	if !hasDuplicates(list) {
		return list, nil
	}
	seen := map[string]int{}
	kept := list[:0]
	for _, m := range list {
		if i, ok := seen[string(m.Key)]; ok {
			kept[i].Value = m.Value
			continue
		}
		seen[string(m.Key)] = len(kept)
		kept = append(kept, m)
	}
	return kept, nil
}

func hasDuplicates(list []wirejson.Member) bool {
	if len(list) <= 24 {
		for i := range list {
			for j := range i {
				if string(list[i].Key) == string(list[j].Key) {
					return true
				}
			}
		}
		return false
	}
	seen := make(map[string]struct{}, len(list))
	for i := range list {
		seen[string(list[i].Key)] = struct{}{}
	}
	return len(seen) < len(list)
}

// draft is an object's metadata as the client sent it, less what the daemon
// decides.
type draft struct {
	typename string
	id       object.ID // as sent; 0 for none
	sig      object.Signature
	instance object.InstanceID
	hasInst  bool
	global   bool
	hasGlob  bool
	members  []wirejson.Member
	plain    []byte
}

// object makes a new object with a new id.
func (b *builder) object(content wirejson.Value) (*entry, error) {
	if content.Kind() != wirejson.Object {
		return nil, status.Errorf(status.Invalid, "content must be object, but is %s", content.Kind())
	}
	d, err := parseDraft(content)
	if err != nil {
		return nil, err
	}
	if d.typename == BlobType {
		return nil, status.Errorf(status.AssertionFailed, "blobs are created by create_buffer, not as metadata")
	}
	if !d.hasInst {
		return nil, status.Errorf(status.AssertionFailed, "the metadata lacks instance_id")
	}
	d.id = b.t.opts.IDs.Object()
	return b.file(d)
}

// file makes the entry of a draft and the ops that file it.
func (b *builder) file(d draft) (*entry, error) {
	t := b.t
	d.instance = t.current(d.instance)
	if d.sig == 0 {
		d.sig = t.opts.IDs.Signature()
	}
	if len(d.members) == 0 && !d.global && d.instance == object.AnyInstance {
		d.instance = t.opts.Instance // the Go client's RPC connections send this
	}
	e := &entry{
		id: d.id, sig: d.sig, instance: d.instance, typ: t.typeFor(d.typename),
		timestamp: t.now().UnixMilli(), global: d.global, hasGlobal: d.hasGlob, transient: true, plain: d.plain,
	}
	var spread *object.InstanceID // where the members of a global object are
	for _, m := range d.members {
		inst, err := b.member(e, m)
		if err != nil {
			return nil, err
		}
		switch {
		case !e.global && inst != e.instance:
			return nil, status.Errorf(status.GlobalObjectInvalid, "a local object cannot refer to remote objects: member %q is on instance %d", m.Key, inst)
		case e.global && spread == nil:
			spread = &inst
		case e.global && *spread != inst:
			*spread = object.AnyInstance
		}
	}
	if spread != nil {
		e.instance = *spread
	}
	e.plain = slices.Clip(e.plain)
	b.ops = append(b.ops, op{kind: opPut, id: e.id, entry: e})
	return e, nil
}

// parseDraft reads the keys that the daemon knows and copies all others.
func parseDraft(content wirejson.Value) (draft, error) {
	var d draft
	list, err := fields(content)
	if err != nil {
		return d, err
	}
	d.plain = make([]byte, 0, len(content))
	for _, m := range list {
		switch key := string(m.Key); key {
		case "id", "transient", "__timestamp", "__name", "__labels":
			// The daemon's own.
		case "typename":
			if d.typename, err = m.Value.Text(); err != nil {
				return d, status.Errorf(status.MetaTreeInvalid, "typename %v", err)
			}
		case "signature":
			sig, err := m.Value.Uint64()
			if err != nil {
				return d, status.Errorf(status.Invalid, "signature %v", err)
			}
			d.sig = object.Signature(sig)
		case "instance_id":
			inst, err := m.Value.Uint64()
			if err != nil {
				return d, status.Errorf(status.MetaTreeInvalid, "instance_id %v", err)
			}
			d.instance, d.hasInst = object.InstanceID(inst), true
		case "global":
			if d.global, err = m.Value.Bool(); err != nil {
				return d, status.Errorf(status.MetaTreeInvalid, "global %v", err)
			}
			d.hasGlob = true
		default:
			if m.Value.Kind() == wirejson.Object {
				d.members = append(d.members, m)
				continue
			}
			d.plain = appendPlain(d.plain, key, m.Value)
		}
	}
	if d.typename == "" {
		return d, status.Errorf(status.MetaTreeInvalid, "the metadata lacks a typename")
	}
	return d, nil
}

func appendPlain(b []byte, key string, v wirejson.Value) []byte {
	if len(b) > 0 {
		b = append(b, ',')
	}
	return append(wirejson.AppendKey(b, key), v...)
}

// member links one member into e and returns the instance that it is on.
func (b *builder) member(e *entry, m wirejson.Member) (object.InstanceID, error) {
	var (
		idValue, instValue, typeValue wirejson.Value
		keys                          int
	)
	for k, v := range m.Value.Members() {
		keys++
		switch string(k) {
		case "id":
			idValue = v
		case "instance_id":
			instValue = v
		case "typename":
			typeValue = v
		}
	}
	if len(idValue) == 0 {
		return 0, status.Errorf(status.MetaTreeNameNotExists, "member %q has no id", m.Key)
	}
	idText, err := idValue.Text()
	if err != nil {
		return 0, status.Errorf(status.MetaTreeInvalid, "id of member %q %v", m.Key, err)
	}
	if strings.Contains(idText, "/") {
		return 0, status.Errorf(status.MetaTreeNameInvalid, "id %q of member %q contains a slash", idText, m.Key)
	}
	id, idErr := parseIDText(idText)
	if keys == 1 {
		if idErr != nil {
			return 0, idErr
		}
		if id.IsBlob() {
			return 0, status.Errorf(status.MetaTreeInvalid, "blob member %q needs its typename and instance_id", m.Key)
		}
		known := b.t.objects[id]
		if known == nil {
			return 0, status.Errorf(status.MetaTreeSubtreeNotExists, "member %q: no object %s", m.Key, idText)
		}
		return known.instance, b.link(e, m, known)
	}
	if len(typeValue) == 0 {
		return 0, status.Errorf(status.MetaTreeTypeNotExists, "member %q has no typename", m.Key)
	}
	typename, err := typeValue.Text()
	if err != nil {
		return 0, status.Errorf(status.MetaTreeInvalid, "typename of member %q %v", m.Key, err)
	}
	inst64, err := instValue.Uint64()
	if err != nil {
		return 0, status.Errorf(status.MetaTreeInvalid, "instance_id of member %q %v", m.Key, err)
	}
	inst := b.t.current(object.InstanceID(inst64))
	if idErr != nil {
		return 0, idErr
	}
	if typename == BlobType {
		if e.global {
			return 0, status.Errorf(status.MetaTreeInvalid, "blob %q cannot be a direct member of a global object", m.Key)
		}
		if len(e.plain) > 0 {
			e.plain = append(e.plain, ',')
		}
		e.plain = wirejson.AppendKey(e.plain, string(m.Key))
		e.plain = appendBlobLink(e.plain, id, inst)
		if inst == b.t.opts.Instance && id != object.EmptyBlob && id.IsBlob() && !slices.Contains(e.blobs, id) {
			e.blobs = append(e.blobs, id)
		}
		return inst, nil
	}
	known := b.t.objects[id]
	if known == nil {
		made, ok := b.new[id]
		if ok && made == nil {
			return 0, status.Errorf(status.MetaTreeInvalid, "member %q: object %s contains itself", m.Key, id)
		}
		known = made
	}
	if known == nil {
		// Unknown, but complete: it becomes an object under the id that it brings.
		d, err := parseDraft(m.Value)
		if err != nil {
			return 0, err
		}
		d.id = id
		if b.new == nil {
			b.new = map[object.ID]*entry{}
		}
		b.new[id] = nil
		if known, err = b.file(d); err != nil {
			return 0, err
		}
		b.new[id] = known
	}
	return inst, b.link(e, m, known)
}

func (b *builder) link(e *entry, m wirejson.Member, to *entry) error {
	l := member{key: string(m.Key), id: to.id}
	if e.global {
		if to.global {
			return status.Errorf(status.GlobalObjectInvalid, "a global object cannot have global member %q", m.Key)
		}
		l.sig = to.sig
		if !to.copied {
			b.ops = append(b.ops, op{kind: opSig, sig: to.sig, inst: to.instance, id: to.id})
		}
	}
	e.members = append(e.members, l)
	return nil
}

// parseIDText reads an id as 0.24 does: one letter, which must be o, and hex.
func parseIDText(s string) (object.ID, error) {
	if len(s) < 2 || s[0] != 'o' {
		return 0, status.Errorf(status.MetaTreeSubtreeNotExists, "%q is no object id", s)
	}
	v, err := strconv.ParseUint(s[1:], 16, 64)
	if err != nil {
		return 0, status.Errorf(status.MetaTreeSubtreeNotExists, "%q is no object id", s)
	}
	return object.ID(v), nil
}

// ShallowCopy makes a new object over the same members, with the same
// signature and extra or changed plain fields.
// The copy of a persistent object is persistent.
func (t *Tree) ShallowCopy(ctx context.Context, id object.ID, extra wirejson.Value) (object.ID, error) {
	if id.IsBlob() {
		return 0, status.Errorf(status.AssertionFailed, "a blob cannot be copied shallowly")
	}
	changed := map[string]wirejson.Value{}
	if extra.Kind() != wirejson.Object && len(extra) > 0 && extra.Kind() != wirejson.Null {
		return 0, status.Errorf(status.Invalid, "extra must be object, but is %s", extra.Kind())
	}
	for k, v := range extra.Members() {
		if v.Kind() == wirejson.Object || v.Kind() == wirejson.Array {
			return 0, status.Errorf(status.AssertionFailed, "extra field %q must not be nested", k)
		}
		if len(k) == 0 {
			return 0, status.Errorf(status.MetaTreeInvalid, "a key of extra is empty")
		}
		changed[string(k)] = v
	}
	if err := t.SyncFor(ctx, []object.ID{id}); err != nil {
		return 0, err
	}
	var made object.ID
	err := t.transact(ctx, func() (*plan, error) {
		src := t.objects[id]
		if src == nil {
			return nil, status.Errorf(status.MetaTreeSubtreeNotExists, "no object %s", id)
		}
		c, err := t.copyOf(src, changed)
		if err != nil {
			return nil, err
		}
		made = c.id
		p := &plan{ops: []op{{kind: opPut, id: c.id, entry: c}}}
		if !c.transient {
			p.conditions = []Condition{{Key: dataKey(id), Is: SomeUnder}}
			err = p.publish(t, c)
		}
		return p, err
	})
	return made, err
}

// copyOf makes a shallow copy with some plain fields changed. Called with mu
// held.
func (t *Tree) copyOf(src *entry, changed map[string]wirejson.Value) (*entry, error) {
	changed = maps.Clone(changed)
	c := *src
	c.id, c.foreign, c.copied, c.draft, c.origin = t.opts.IDs.Object(), false, true, false, 0
	if v, ok := changed["typename"]; ok {
		name, err := v.Text()
		if err != nil || name == "" || name == BlobType {
			return nil, status.Errorf(status.MetaTreeInvalid, "typename in extra must be the name of a type")
		}
		c.typ = t.typeFor(name)
	} else {
		c.typ = t.typeFor(src.typ.name)
	}
	for _, own := range []string{"typename", "id", "signature", "instance_id", "transient", "global", "__timestamp", "__name", "__labels"} {
		delete(changed, own)
	}
	if len(changed) > 0 {
		c.plain = overridePlain(src.plain, changed)
		// A member or blob whose key is overridden is the copy's no more.
		c.members = slices.DeleteFunc(slices.Clone(src.members), func(m member) bool {
			_, ok := changed[m.key]
			return ok
		})
		c.blobs = t.localBlobs(c.plain)
	}
	return &c, nil
}

// localBlobs lists the blobs of this instance that plain fields link to.
func (t *Tree) localBlobs(plain []byte) (blobs []object.ID) {
	for _, v := range asObject(plain).Members() {
		if v.Kind() != wirejson.Object {
			continue // only links are objects: members lie apart
		}
		text, _ := v.Get("id").Text()
		inst, _ := v.Get("instance_id").Uint64()
		id, err := parseIDText(text)
		if err == nil && object.InstanceID(inst) == t.opts.Instance && id != object.EmptyBlob && id.IsBlob() && !slices.Contains(blobs, id) {
			blobs = append(blobs, id)
		}
	}
	return blobs
}

// overridePlain returns plain fields with some replaced or added.
func overridePlain(plain []byte, changed map[string]wirejson.Value) []byte {
	out := make([]byte, 0, len(plain)+64)
	for k, v := range asObject(plain).Members() {
		if _, ok := changed[string(k)]; !ok {
			out = appendPlain(out, string(k), v)
		}
	}
	for k, v := range changed {
		out = appendPlain(out, k, v)
	}
	return out
}
