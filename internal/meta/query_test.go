package meta

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/wirejson"
	"pgregory.net/rapid"
)

// listing is a pattern and what it means, by hand.
type listing struct {
	pattern string
	regex   bool
	match   func(string) bool
	blobs   bool // the pattern, as a glob, matches vineyard::Blob
}

func is(list ...string) func(string) bool {
	return func(s string) bool { return slices.Contains(list, s) }
}

var listings = []listing{
	{"*", false, func(string) bool { return true }, true},
	{"t::*", false, func(s string) bool { return strings.HasPrefix(s, "t::") }, false},
	{"t::[AC]", false, is("t::A", "t::C"), false},
	{"t::[!A]", false, is("t::B", "t::C"), false},
	{"?::[A-B]", false, is("t::A", "t::B"), false},
	{"*i*e*a*/*", false, is("vineyard::a/e"), false},
	{"vineyard::?*", false, is("vineyard::a/e"), true},
	{"vineyard::Blob", false, is(), true},
	{"t::A", false, is("t::A"), false},
	{`\t::A`, false, is("t::A"), false},
	{"[", false, is("["), false},
	{"", false, is(), false},
	{"t::.", true, is("t::A", "t::B", "t::C"), false},
	{"t::(A|C)", true, is("t::A", "t::C"), false},
	{"A|t::B", true, is("t::B"), false},
	{"::", true, is(), false},
	{"(", true, is(), false},
	{"t::A)|(.*", true, is(), false},
	{".*", true, func(string) bool { return true }, false},
	{"vineyard::Blob", true, is(), true},
}

var typenames = []string{"t::A", "t::B", "t::C", "vineyard::a/e", "[", "中\"<x>"}

func (x *machine) list(t *rapid.T) {
	l := rapid.SampledFrom(listings).Draw(t, "pattern")
	limit := rapid.SampledFrom([]uint64{0, 1, 2, 5, 1 << 63}).Draw(t, "limit")
	var ids []object.ID
	for _, id := range x.m.ids() {
		if _, ok := x.m.tree(x.m.objs[id]); ok && l.match(x.m.objs[id].typ) && uint64(len(ids)) < limit {
			ids = append(ids, id)
		}
	}
	if l.blobs {
		for _, id := range slices.Sorted(maps.Keys(x.m.blobs)) {
			if uint64(len(ids)) < limit {
				ids = append(ids, id)
			}
		}
	}
	text := x.tree.AppendList([]byte("kept"), l.pattern, l.regex, limit)
	if d := differs("content", decode(t, text[4:]), x.m.get(ids)); d != "" {
		t.Fatalf("list %q (regex %v) up to %d: %s", l.pattern, l.regex, limit, d)
	}
}

// page walks all pages of a listing and compares the rows.
func (x *machine) page(t *rapid.T) {
	l := rapid.SampledFrom(listings[:12]).Draw(t, "pattern")
	byName := rapid.SampledFrom([]listing{
		{pattern: "", match: func(string) bool { return true }}, {pattern: "a*", match: is("a/b", "a~b", "a~1b")}, {pattern: "?", match: is("n")},
	}).Draw(t, "name")
	limit := rapid.IntRange(1, 4).Draw(t, "limit")
	var got, want []string
	line := func(id object.ID, typ string, sig, inst uint64, transient, global, owned bool, ts, bytes int64, members int, names []string) string {
		return fmt.Sprint(id, typ, sig, inst, transient, global, owned, ts, bytes, members, names)
	}
	for after, more := object.ID(0), true; more; {
		var rows []Row
		rows, more = x.tree.Page(l.pattern, byName.pattern, after, limit, false)
		if len(rows) > limit || more && len(rows) < limit || len(rows) > 0 && rows[0].ID <= after {
			t.Fatalf("a page of %d rows after %s, more %v", len(rows), after, more)
		}
		for _, r := range rows {
			after = r.ID
			got = append(got, line(r.ID, r.Type, uint64(r.Signature), uint64(r.Instance), r.Transient, r.Global, r.Owned, r.Timestamp, r.Bytes, r.Members, r.Names))
			if _, err := wirejson.Parse(r.Plain); err != nil {
				t.Fatalf("plain fields %s: %v", r.Plain, err)
			}
		}
	}
	for _, id := range x.m.ids() {
		o := x.m.objs[id]
		var names []string
		for name, to := range x.m.names {
			if to == id {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if l.pattern != "" && !l.match(o.typ) || byName.pattern != "" && !slices.ContainsFunc(names, byName.match) {
			continue
		}
		members := map[string]bool{} // blobs of other instances, and of a repeated id, are no members of their own
		for _, k := range o.links {
			if !k.id.IsBlob() {
				members[fmt.Sprint(len(members))] = true
			}
		}
		blobs := map[object.ID]bool{}
		for _, k := range o.links {
			if k.id.IsBlob() && k.inst == ownInstance && k.id != object.EmptyBlob {
				blobs[k.id] = true
			}
		}
		want = append(want, line(o.id, o.typ, o.sig, o.inst, o.transient, o.global, len(x.m.owners(id)) > 0, o.ts, x.m.bytes(o), len(members)+len(blobs), names))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("pages of %q named %q:\ngot  %q\nwant %q", l.pattern, byName.pattern, got, want)
	}
}

// TestGlob has patterns and texts of fnmatch(3).
func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, yes, no string // texts, separated by spaces; _ is the empty one
	}{
		{"", "_", "a"},
		{"*", "_ a a/b vineyard::Blob", ""},
		{"**", "_ a", ""},
		{"?", "a / :", "_ ab"},
		{"a*", "a ab a/b", "_ ba"},
		{"*a", "a ba aa a/a", "_ ab"},
		{"*a*b", "ab xaxb aabb abab", "ba a b aba"},
		{"a*b*c", "abc aXbXc abcbc abbc", "acb ab abcd"},
		{"vineyard::*Tensor<*>", "vineyard::Tensor<int> vineyard::XTensor<a<b>>", "vineyard::Tensor vineyard::Tensor<int>x"},
		{"[abc]", "a b c", "d _ ab"},
		{"[!abc]", "d ! ]", "a _"},
		{"[^abc]", "d", "b"},
		{"[a-c]x", "ax bx cx", "dx -x"},
		{"[a-]", "a -", "b"},
		{"[]a]", "] a", "b"},
		{"[!]a]", "b", "] a"},
		{"[a", "[a", "a"},
		{"[", "[", "a _"},
		{"*[0-9]", "a1 1 11", "1a _"},
		{`\*`, "*", `a \*`},
		{`a\?`, "a?", `ab a\`},
		{`\`, "", `\ _`},
		{`[\]]`, "]", `\`},
		{"中*", "中文 中", "文"},
	} {
		for _, s := range strings.Fields(c.yes) {
			if s = strings.TrimPrefix(s, "_"); !Glob(c.pattern, s) {
				t.Errorf("%q does not match %q", c.pattern, s)
			}
		}
		for _, s := range strings.Fields(c.no) {
			if s = strings.TrimPrefix(s, "_"); Glob(c.pattern, s) {
				t.Errorf("%q matches %q", c.pattern, s)
			}
		}
	}
	// A pattern of many stars must not take for ever.
	start := time.Now()
	if Glob(strings.Repeat("*a", 60)+"b", strings.Repeat("a", 5000)) || time.Since(start) > 5*time.Second {
		t.Errorf("many stars: %v", time.Since(start))
	}
}
