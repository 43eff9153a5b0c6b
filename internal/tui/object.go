package tui

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/v6d-go/v6d/client"
)

// objectPage is one object: what it is, its fields, its members down to the blobs,
// and what refers to it.
type objectPage struct {
	*listPage[node]
	object client.ID
	known  *Object
	folded map[string]bool // paths of members that are not shown open, or are: see open
}

// node is a line: a heading, a field, a member or an object that refers to this one.
type node struct {
	path  string
	depth int
	lead  string // branches
	key   string
	text  string
	meta  *client.Meta // of a member
	ref   *Ref
	more  bool // it has members
	open  bool
	head  bool
}

// openDepth is how deep members are shown open at first.
const openDepth = 2

func newObject(m *Model, id client.ID) page {
	p := &objectPage{object: id, folded: map[string]bool{}}
	l := newListPage("object", "nothing is known of it", "describe "+id.String(), []column[node]{
		{title: "FIELDS AND MEMBERS", least: 20, text: func(n *node) string { return m.nodeText(n) }},
	}, func(n *node) string { return n.path }, func(b []byte, n *node) []byte { return join(b, n.key, n.text) })
	l.title = func() string {
		if p.known != nil && len(p.known.Names) > 0 {
			return p.known.Names[0]
		}
		return id.String()
	}
	l.about = func(n *node) (subject, bool) {
		switch {
		case n.meta != nil:
			return subject{id: n.meta.ID, typ: n.meta.Typename}, true
		case n.ref != nil:
			return subject{id: n.ref.ID, name: n.ref.Name, typ: n.ref.Type}, true
		}
		return p.self(), true
	}
	l.enter = func(m *Model, n *node) page {
		switch {
		case n.meta != nil && n.meta.IsBlob():
			return newValue(m, n.meta.ID, n.key)
		case n.meta != nil:
			return newObject(m, n.meta.ID)
		case n.ref != nil:
			return newObject(m, n.ref.ID)
		case n.head:
			return nil
		}
		return newValue(m, id, l.title())
	}
	l.extra = func(_ *Model, do string) (tea.Cmd, bool) {
		n := l.l.current()
		if n == nil || !n.more || do != "left" && do != "right" {
			return nil, do == "left" || do == "right"
		}
		if n.open != (do == "right") {
			p.folded[n.path] = do == "left"
			p.unfold(m)
		}
		return nil, true
	}
	l.top = p.header
	p.listPage = l
	return p
}

// self is the object itself.
func (p *objectPage) self() subject {
	s := subject{id: p.object}
	if p.known != nil {
		s.typ, s.bytes = p.known.Meta.Typename, p.known.Bytes
		if len(p.known.Names) > 0 {
			s.name = p.known.Names[0]
		}
	}
	return s
}

// subjects of an object page is the member at the cursor for looking, and the
// object when the cursor is on none.
func (p *objectPage) subjects() []subject {
	if list := p.listPage.subjects(); len(list) > 0 || p.l.on == gone {
		return list
	}
	return []subject{p.self()}
}

func (p *objectPage) crumb() string { return p.title() }

func (p *objectPage) load(m *Model) tea.Cmd {
	return m.ask(&p.loading, func(ctx context.Context, src Source) (any, error) { return src.Object(ctx, p.object) })
}

func (p *objectPage) receive(m *Model, a answer) tea.Cmd {
	if !p.settle(a) {
		return nil
	}
	p.known, _ = a.data.(*Object)
	p.unfold(m)
	return nil
}

// header says what the object is, in as many lines as there is room for.
func (p *objectPage) header(m *Model, width int) []string {
	o := p.known
	if o == nil {
		return nil
	}
	t := &m.theme
	meta := o.Meta
	state := "persistent"
	if meta.Transient {
		state = "transient"
	}
	if meta.Global {
		state += ", global"
	}
	where := place(uint64(meta.InstanceID))
	if uint64(meta.InstanceID) != o.Here && !meta.Global {
		where += " (not here)"
	}
	frees := "deleting it frees " + size(o.Frees)
	if o.Frees < 0 {
		frees = ""
	}
	pairs := [][2]string{
		{"id", meta.ID.String() + "  " + cmp.Or(strings.Join(o.Names, ", "), "no name")},
		{"type", meta.Typename},
		{"where", where + ", " + state + ", made " + m.ago(meta.Time) + " ago"},
		{"holds", fmt.Sprintf("%s in %d blobs  %s", size(o.Bytes), o.Blobs, frees)},
	}
	if len(meta.Labels) > 0 {
		pairs = append(pairs, [2]string{"labels", labels(meta.Labels)})
	}
	if m.lay.height < 16 {
		pairs = pairs[:2]
	}
	lines := make([]string, 0, len(pairs)+1)
	for _, kv := range pairs {
		lines = append(lines, "  "+t.dim.Render(fit(kv[0], 7, ""))+fit(clean(kv[1]), width-9, t.more))
	}
	return lines
}

// unfold makes the lines.
func (p *objectPage) unfold(m *Model) {
	if p.known == nil {
		return
	}
	t := &m.theme
	var nodes []node
	meta := p.known.Meta
	nodes = append(nodes, node{path: "fields", key: "fields", head: true, text: fmt.Sprint(len(meta.Keys()))})
	for _, key := range meta.Keys() {
		nodes = append(nodes, node{path: "f/" + key, depth: 1, lead: "  ", key: key, text: string(meta.Raw(key))})
	}
	count := 0
	for range meta.Members {
		count++
	}
	nodes = append(nodes, node{path: "members", key: "members", head: true, text: fmt.Sprint(count)})
	var walk func(m *client.Meta, path, lead string, depth int)
	walk = func(m *client.Meta, path, lead string, depth int) {
		var keys []string
		byKey := map[string]*client.Meta{}
		for k, member := range m.Members {
			keys = append(keys, k)
			byKey[k] = member
		}
		for i, k := range keys {
			branch, below := t.branch, t.pipe
			if i == len(keys)-1 {
				branch, below = t.last, "   "
			}
			member := byKey[k]
			n := node{path: path + "/" + k, depth: depth, lead: lead + branch, key: k, meta: member, text: memberText(member)}
			for range member.Members {
				n.more = true
				break
			}
			fold, said := p.folded[n.path]
			n.open = n.more && (said && !fold || !said && depth < openDepth)
			nodes = append(nodes, n)
			if n.open {
				walk(member, n.path, lead+below, depth+1)
			}
		}
	}
	walk(meta, "m", "  ", 1)
	nodes = append(nodes, node{path: "owners", key: "referred to by", head: true, text: fmt.Sprint(len(p.known.Owners))})
	for i := range p.known.Owners {
		r := &p.known.Owners[i]
		nodes = append(nodes, node{path: "o/" + r.ID.String(), lead: "  ", key: r.ID.String(), text: strings.TrimSpace(short(r.Type) + "  " + r.Name), ref: r})
	}
	p.l.set(nodes)
}

func memberText(m *client.Meta) string {
	text := m.ID.String() + "  " + short(m.Typename)
	if n, ok := m.Int("nbytes"); ok && n > 0 {
		text += "  " + size(n)
	}
	return text + "  on " + place(uint64(m.InstanceID))
}

// nodeText is one line of an object.
func (m *Model) nodeText(n *node) string {
	switch {
	case n.head:
		return n.key + " (" + n.text + ")"
	case n.meta != nil:
		sign := ""
		if n.more && !n.open {
			sign = "+ "
		}
		return n.lead + sign + n.key + ": " + n.text
	case n.ref != nil:
		return n.lead + n.key + "  " + n.text
	}
	return n.lead + n.key + " = " + n.text
}

// shows returns whether any of the ids is part of what the page shows.
func (p *objectPage) shows(ids map[client.ID]bool) bool {
	if ids[p.object] {
		return true
	}
	return slices.ContainsFunc(p.l.items, func(n node) bool { return n.meta != nil && ids[n.meta.ID] || n.ref != nil && ids[n.ref.ID] })
}
