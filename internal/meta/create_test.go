package meta

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
	"pgregory.net/rapid"
)

// refused lists contents that create_data refuses, and the code that it
// answers. o…77 is an unknown object, o8…99 an unknown blob.
var refused = []struct {
	content string
	code    status.Code
}{
	{`[]`, status.Invalid},
	{`"x"`, status.Invalid},
	{`null`, status.Invalid},
	{`7`, status.Invalid},
	{`{"instance_id":3}`, status.MetaTreeInvalid},
	{`{"typename":7,"instance_id":3}`, status.MetaTreeInvalid},
	{`{"typename":null,"instance_id":3}`, status.MetaTreeInvalid},
	{`{"typename":"t::A","typename":7,"instance_id":3}`, status.MetaTreeInvalid},
	{`{"typename":"vineyard::Blob","instance_id":3}`, status.AssertionFailed},
	{`{"typename":"t::A"}`, status.AssertionFailed},
	{`{"typename":"t::A","instance_id":"3"}`, status.MetaTreeInvalid},
	{`{"typename":"t::A","instance_id":3,"global":1}`, status.MetaTreeInvalid},
	{`{"typename":"t::A","instance_id":3,"signature":"s1"}`, status.Invalid},
	{`{"typename":"t::A","instance_id":3,"":1}`, status.MetaTreeInvalid},
	{`{"typename":"t::A","instance_id":3,"m":{}}`, status.MetaTreeNameNotExists},
	{`{"typename":"t::A","instance_id":3,"m":{"typename":"t::A","instance_id":3}}`, status.MetaTreeNameNotExists},
	{`{"typename":"t::A","instance_id":3,"m":{"id":5}}`, status.MetaTreeInvalid},
	{`{"typename":"t::A","instance_id":3,"m":{"id":5,"typename":"t::A","instance_id":3}}`, status.MetaTreeInvalid},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"o1/2"}}`, status.MetaTreeNameInvalid},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"o/","typename":"t::A","instance_id":3}}`, status.MetaTreeNameInvalid},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"x0000000000000077"}}`, status.MetaTreeSubtreeNotExists},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"x0000000000000077","typename":"t::A","instance_id":3}}`, status.MetaTreeSubtreeNotExists},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"o0000000000000077"}}`, status.MetaTreeSubtreeNotExists},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"o8000000000000099"}}`, status.MetaTreeInvalid},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"o0000000000000077","instance_id":3}}`, status.MetaTreeTypeNotExists},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"o0000000000000077","typename":"t::A"}}`, status.MetaTreeInvalid},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"o8000000000000099","typename":"vineyard::Blob"}}`, status.MetaTreeInvalid},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"o8000000000000099","typename":"vineyard::Blob","instance_id":9}}`, status.GlobalObjectInvalid},
	{`{"typename":"t::A","instance_id":3,"global":true,"m":{"id":"o8000000000000099","typename":"vineyard::Blob","instance_id":3}}`, status.MetaTreeInvalid},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"o0000000000000077","typename":"t::B","instance_id":9}}`, status.GlobalObjectInvalid},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"o0000000000000077","typename":"t::B","instance_id":3,"global":7}}`, status.MetaTreeInvalid},
	{`{"typename":"t::A","instance_id":3,"global":true,"m":{"id":"o0000000000000077","typename":"t::B","instance_id":3,"global":true}}`, status.GlobalObjectInvalid},
	{`{"typename":"t::A","instance_id":3,"m":{"id":"o0000000000000077","typename":"t::B","instance_id":3,"n":{"id":"o0000000000000077","typename":"t::B","instance_id":3}}}`, status.MetaTreeInvalid},
}

func TestRefused(t *testing.T) {
	x := newMachine(t, t.TempDir())
	for _, c := range refused {
		v, err := wirejson.Parse([]byte(c.content))
		if err != nil {
			t.Fatal(err)
		}
		good := wirejson.Value(`{"typename":"t::G","instance_id":3,"m":{"id":"o0000000000000078","typename":"t::H","instance_id":3}}`)
		if _, err := x.tree.Create([]wirejson.Value{good, v}); !errors.Is(err, c.code) {
			t.Errorf("%s: %v, want code %d", c.content, err, c.code)
		}
		if x.tree.Len() > 0 || len(x.tree.types) > 0 || len(x.tree.owners) > 0 || len(x.tree.sigs) > 0 || x.journal.Stats().Records > 0 {
			t.Fatalf("%s: left something behind: %d objects, types %v, owners %v", c.content, x.tree.Len(), x.tree.types, x.tree.owners)
		}
	}
}

// drawer makes contents and what must become of them.
type drawer struct {
	x    *machine
	made []*thing // members before the objects that hold them
}

func quote(s string) string { b, _ := json.Marshal(s); return string(b) }

var plainValues = []string{
	`0`, `-5`, `1.10`, `1E5`, `18446744073709551615`, `-9223372036854775808`, `"txt\u0000\ud83d\ude00"`, `""`, `null`, `true`,
	`[1,{"a":[2]},null]`, `[ ]`, `"中"`, `"{\"id\":1}"`,
}

// candidates are the objects that may be a member.
func (d *drawer) candidates(inst uint64, global bool) (out []*thing) {
	for _, id := range d.x.m.ids() {
		if o := d.x.m.objs[id]; global && !o.global || !global && o.inst == inst {
			out = append(out, o)
		}
	}
	for _, o := range d.made {
		if o.id != 0 && (global && !o.global || !global && o.inst == inst) {
			out = append(out, o)
		}
	}
	return out
}

// content draws the metadata of one object; id is 0 at the top.
func (d *drawer) content(t *rapid.T, id object.ID, inst uint64, mayBeGlobal bool, depth int) string {
	o := &thing{
		id: id, typ: rapid.SampledFrom(typenames).Draw(t, "typename"), inst: inst, ts: d.x.m.clock,
		transient: true, plain: map[string]any{}, links: map[string]link{},
	}
	fields := []string{`"typename":` + quote(o.typ), fmt.Sprintf(`"instance_id":%d`, inst)}
	if g := rapid.IntRange(0, 5).Draw(t, "global"); g < 2 {
		o.hasGlobal, o.global = true, g == 1 && mayBeGlobal
		fields = append(fields, fmt.Sprintf(`"global":%v`, o.global))
	}
	switch known := d.x.m.ids(); rapid.IntRange(0, 5).Draw(t, "signature") {
	case 0:
		o.sig = rapid.Uint64Range(1, 4).Draw(t, "own signature")
	case 1:
		if len(known) > 0 {
			o.sig = d.x.m.objs[rapid.SampledFrom(known).Draw(t, "equivalent of")].sig
		}
	}
	if o.sig != 0 {
		fields = append(fields, fmt.Sprintf(`"signature":%d`, o.sig))
	}
	if id != 0 {
		fields = append(fields, `"id":`+quote(id.String()))
	}
	fields = append(fields, rapid.SliceOfN(rapid.SampledFrom([]string{
		`"transient":false`, `"__timestamp":5`, `"__name":"mine"`, `"__labels":"{}"`,
	}), 0, 1).Draw(t, "ignored")...)
	var front, members []string // of duplicates the last wins
	insts := map[uint64]bool{}
	o.keys = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c/1", "ü\n", "~x", "nbytes"}), 0, 4, rapid.ID).Draw(t, "keys")
	for _, key := range o.keys {
		value := d.field(t, o, key, insts, mayBeGlobal, depth)
		members = append(members, quote(key)+":"+value)
		if rapid.IntRange(0, 5).Draw(t, "twice") == 0 && o.links[key].id == 0 {
			front = append(front, quote(key)+":"+rapid.SampledFrom([]string{"5", `{"id":7}`, `{}`}).Draw(t, "first"))
		}
	}
	switch {
	case o.global && len(insts) == 1:
		for o.inst = range insts { //nolint:revive // the only one
		}
	case o.global && len(insts) > 1:
		o.inst = 1<<64 - 1
	case !o.global && len(o.links) == 0 && inst == 1<<64-1:
		o.inst = ownInstance
	}
	d.made = append(d.made, o)
	// The order of the members stays: one may repeat what another introduced.
	fields = rapid.Permutation(fields).Draw(t, "order")
	at := rapid.IntRange(0, len(fields)).Draw(t, "members at")
	fields = slices.Concat(front, fields[:at], members, fields[at:])
	return "{" + strings.Join(fields, rapid.SampledFrom([]string{",", " ,\n"}).Draw(t, "comma")) + "}"
}

// field draws one value of an object and notes it.
func (d *drawer) field(t *rapid.T, o *thing, key string, insts map[uint64]bool, mayBeGlobal bool, depth int) string {
	to := (*thing)(nil)
	if c := d.candidates(o.inst, o.global); len(c) > 0 {
		to = rapid.SampledFrom(c).Draw(t, "member")
	}
	kind := rapid.IntRange(0, 5).Draw(t, "kind")
	switch {
	case kind == 1 && !o.global:
		ids := append(slices.Sorted(maps.Keys(d.x.blobs)), 1<<63|0x55, object.EmptyBlob)
		id := rapid.SampledFrom(ids).Draw(t, "blob")
		o.links[key] = link{id: id, inst: o.inst}
		return fmt.Sprintf(`{"id":"%s","typename":"vineyard::Blob","instance_id":%d,"length":5}`, id, o.inst)
	case kind == 2 && to != nil && d.x.m.objs[to.id] != nil:
		d.link(o, key, to)
		insts[to.inst] = true
		return fmt.Sprintf(`{"id":"%s"}`, to.id)
	case kind == 3 && to != nil:
		d.link(o, key, to)
		insts[to.inst] = true
		return fmt.Sprintf(`{"id":"%s","typename":"ignored","instance_id":%d,"signature":99,"junk":[1],"m":{"id":"oX"}}`, to.id, to.inst)
	case kind == 4 && depth < 3:
		d.x.unknown++
		id, inst := d.x.unknown, o.inst
		if n := len(d.x.free); n > 0 && rapid.Bool().Draw(t, "an id again") {
			id, d.x.free = d.x.free[n-1], d.x.free[:n-1]
		}
		if o.global {
			inst = rapid.SampledFrom([]uint64{ownInstance, otherInstance}).Draw(t, "instance")
		}
		insts[inst] = true
		text := d.content(t, id, inst, mayBeGlobal && !o.global, depth+1)
		d.link(o, key, d.made[len(d.made)-1])
		return text
	}
	text := rapid.SampledFrom(plainValues).Draw(t, "value")
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	_ = dec.Decode(&v)
	o.plain[key] = v
	return text
}

// link notes a member; its signature is set once it is known.
func (d *drawer) link(o *thing, key string, to *thing) { o.links[key] = link{id: to.id} }

func (x *machine) create(t *rapid.T) {
	x.m.clock++
	d := drawer{x: x}
	var contents []wirejson.Value
	var tops []*thing
	for range rapid.IntRange(1, 2).Draw(t, "contents") {
		inst := rapid.SampledFrom([]uint64{ownInstance, ownInstance, otherInstance, 1<<64 - 1}).Draw(t, "instance")
		text := d.content(t, 0, inst, true, 0)
		v, err := wirejson.Parse([]byte(text))
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		contents = append(contents, v)
		tops = append(tops, d.made[len(d.made)-1])
	}
	if rapid.IntRange(0, 7).Draw(t, "refused") == 0 {
		bad := rapid.SampledFrom(refused).Draw(t, "content")
		_, err := x.tree.Create(append(contents, wirejson.Value(bad.content)))
		want(t, bad.content, err, bad.code)
		return
	}
	made, err := x.tree.Create(contents)
	if err != nil {
		t.Fatalf("create %s: %v", contents, err)
	}
	for i, o := range tops {
		if o.id = made[i].ID; o.id.IsBlob() || x.m.objs[o.id] != nil || uint64(made[i].Instance) != o.inst {
			t.Fatalf("create %s answers %+v, want instance %d", contents[i], made[i], o.inst)
		}
	}
	for _, o := range d.made {
		e := x.tree.objects[o.id]
		if e == nil || o.sig != 0 && uint64(e.sig) != o.sig || e.sig == 0 {
			t.Fatalf("create %s: object %s has signature %v, want %d", contents, o.id, e, o.sig)
		}
		o.sig = uint64(e.sig)
		for key, l := range o.links {
			if o.global {
				if to := x.m.objs[l.id]; to != nil {
					l.sig = to.sig
				}
				o.links[key] = l
			}
		}
		x.m.add(o)
	}
}

func (x *machine) shallowCopy(t *rapid.T) {
	id := x.anyID(t, "id")
	extra, code := map[string]string{}, status.OK
	keys := []string{"a", "new", "typename"}
	if o := x.m.objs[id]; o != nil {
		keys = append(keys, o.keys...)
	}
	for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 0, 3, rapid.ID).Draw(t, "extra") {
		extra[key] = rapid.SampledFrom([]string{`1`, `"x"`, `null`, `true`}).Draw(t, "value")
		if key == "typename" {
			extra[key] = `"t::C"`
		}
	}
	if rapid.IntRange(0, 9).Draw(t, "nested") == 0 {
		extra["deep"], code = `{"a":1}`, status.AssertionFailed
	}
	src := x.m.objs[id]
	switch {
	case id.IsBlob():
		code = status.AssertionFailed
	case src == nil && code == status.OK:
		code = status.MetaTreeSubtreeNotExists
	}
	var text []string
	for k, v := range extra {
		text = append(text, quote(k)+":"+v)
	}
	got, err := x.tree.ShallowCopy(t.Context(), id, wirejson.Value("{"+strings.Join(text, ",")+"}"))
	want(t, "shallow copy", err, code)
	if code != status.OK {
		return
	}
	c := *src
	c.copied = true
	c.id, c.plain, c.links = got, maps.Clone(src.plain), maps.Clone(src.links) // what is overridden stays in keys
	for k, v := range extra {
		if k == "typename" {
			c.typ = "t::C"
			continue
		}
		var value any
		dec := json.NewDecoder(strings.NewReader(v))
		dec.UseNumber()
		_ = dec.Decode(&value)
		c.plain[k] = value
		delete(c.links, k)
	}
	x.m.objs[got] = &c
	x.m.event(Created, got, "")
}
