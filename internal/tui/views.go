package tui

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/v6d-go/v6d/client"
)

// views are the pages that a digit opens, in their order.
var views = []struct {
	name string
	make func(*Model) page
}{
	{"cluster", newCluster},
	{"objects", newObjects},
	{"names", newNames},
	{"streams", newStreams},
	{"clients", newClients},
	{"types", newTypes},
	{"memory", newMemory},
	{"events", newEvents},
}

func number(n int64) string {
	if n < 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

// place is how an instance is written.
func place(n uint64) string {
	if n == ^uint64(0) {
		return "several"
	}
	return "i" + strconv.FormatUint(n, 10)
}

func newCluster(m *Model) page {
	p := newListPage("cluster", "no instance is registered", "cluster ls", []column[Instance]{
		{title: "INSTANCE", width: 10, text: func(i *Instance) string {
			if i.Self {
				return place(i.Number) + " (asked)"
			}
			return place(i.Number)
		}, rank: byNumber(func(i *Instance) uint64 { return i.Number })},
		{title: "STATE", width: 12, text: func(i *Instance) string { return i.State }},
		{title: "USED", width: 8, right: true, text: func(i *Instance) string { return size(i.Used) }, rank: byNumber(func(i *Instance) int64 { return i.Used })},
		{title: "POOL", width: 8, right: true, text: func(i *Instance) string { return size(i.Limit) }, rank: byNumber(func(i *Instance) int64 { return i.Limit })},
		{title: "FULL", width: 14, text: func(i *Instance) string {
			return plainBar(m.theme.full, m.theme.empty, i.Used, i.Limit, 8) + " " + percent(i.Used, i.Limit)
		}},
		{title: "OBJECTS", width: 8, right: true, text: func(i *Instance) string { return number(int64(i.Objects)) }, rank: byNumber(func(i *Instance) int { return i.Objects })},
		{title: "CLIENTS", width: 7, right: true, text: func(i *Instance) string { return number(int64(i.Clients)) }, rank: byNumber(func(i *Instance) int { return i.Clients })},
		{
			title: "HEARTBEAT", width: 9, right: true, text: func(i *Instance) string { return i.Heartbeat.Round(100 * time.Millisecond).String() },
			rank: byNumber(func(i *Instance) time.Duration { return i.Heartbeat }),
		},
		{title: "REMOTE", least: 10, text: func(i *Instance) string { return i.Endpoint }},
		{title: "HOST", least: 6, text: func(i *Instance) string { return i.Host }},
	}, func(i *Instance) string { return place(i.Number) }, func(b []byte, i *Instance) []byte { return join(b, place(i.Number), i.Host, i.Endpoint, i.State) })
	p.fetch = func(ctx context.Context, src Source) ([]Instance, error) { return src.Instances(ctx) }
	p.enter = func(m *Model, i *Instance) page {
		next := newObjects(m).(*objectsPage)
		next.where = place(i.Number)
		return next
	}
	return polled(p, 5*time.Second)
}

func plainBar(full, empty string, used, limit int64, width int) string {
	if limit <= 0 || used < 0 {
		return strings.Repeat(" ", width)
	}
	n := min(int(used*int64(width)/limit), width)
	if used > 0 && n == 0 {
		n = 1
	}
	return strings.Repeat(full, n) + strings.Repeat(empty, width-n)
}

// objectsPage is the list of objects, live.
type objectsPage struct {
	*listPage[client.Row]
	tree  bool   // members of others, unless they have a name, are seen below these only
	typ   string // of this type only
	where string // on this instance only
	all   []client.Row
}

func newObjects(m *Model) page {
	p := &objectsPage{tree: true}
	l := newListPage("objects", "no objects: `v6d put FILE` makes one", "ls", []column[client.Row]{
		{title: "ID", width: 17, text: func(r *client.Row) string { return r.ID.String() }, rank: byNumber(func(r *client.Row) client.ID { return r.ID })},
		{title: "NAME", least: 10, text: func(r *client.Row) string { return strings.Join(r.Names, ", ") }},
		{title: "TYPE", least: 12, text: func(r *client.Row) string { return short(r.Type) }},
		{title: "BYTES", width: 9, right: true, text: func(r *client.Row) string { return size(r.Bytes) }, rank: byNumber(func(r *client.Row) int64 { return r.Bytes })},
		{title: "WHERE", width: 7, text: func(r *client.Row) string { return place(r.Instance) }, rank: byNumber(func(r *client.Row) uint64 { return r.Instance })},
		{title: "STATE", width: 9, text: stateOf},
		{
			title: "AGE", width: 4, right: true, text: func(r *client.Row) string { return m.ago(time.UnixMilli(r.TimeMS)) },
			rank: byNumber(func(r *client.Row) int64 { return -r.TimeMS }),
		},
		{title: "MEMBERS", width: 7, right: true, text: func(r *client.Row) string { return number(int64(r.Members)) }, rank: byNumber(func(r *client.Row) int { return r.Members })},
		{title: "LABELS", least: 8, text: func(r *client.Row) string { return labels(r.Labels) }},
	}, func(r *client.Row) string { return r.ID.String() }, func(b []byte, r *client.Row) []byte {
		b, _ = r.ID.AppendText(b) // never fails
		b = join(append(b, '\n'), r.Names...)
		b = join(append(b, '\n'), r.Type, stateOf(r))
		b = strconv.AppendUint(append(b, "\ni"...), r.Instance, 10)
		return appendLabels(append(b, '\n'), r.Labels)
	})
	p.listPage, l.l.hide = l, p.hidden
	l.title = func() string {
		text := "objects"
		if !p.tree {
			text = "all objects"
		}
		if p.typ != "" {
			text += " of " + short(p.typ)
		}
		if p.where != "" {
			text += " on " + p.where
		}
		return text
	}
	l.about = func(r *client.Row) (subject, bool) {
		s := subject{id: r.ID, typ: r.Type, bytes: r.Bytes}
		if len(r.Names) > 0 {
			s.name = r.Names[0]
		}
		return s, true
	}
	l.enter = func(m *Model, r *client.Row) page { return newObject(m, r.ID) }
	l.extra = func(_ *Model, do string) (tea.Cmd, bool) {
		if do != "tree" {
			return nil, false
		}
		p.tree = !p.tree
		p.l.set(p.all)
		return nil, true
	}
	return p
}

func stateOf(r *client.Row) string {
	switch {
	case r.Global:
		return "global"
	case r.Transient:
		return "transient"
	}
	return "cluster"
}

func labels(l map[string]string) string { return string(appendLabels(nil, l)) }

func appendLabels(b []byte, l map[string]string) []byte {
	var some [8]string
	keys := some[:0]
	for k := range l {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for i, k := range keys {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(append(append(b, k...), '='), l[k]...)
	}
	return b
}

// short leaves the usual namespace of typenames out.
func short(typ string) string { return strings.TrimPrefix(typ, "vineyard::") }

// firstRows is how many objects are shown before all are known.
const firstRows = 500

// load asks for the first objects, and then for all: the first ones are on the
// screen at once however many there are.
func (p *objectsPage) load(m *Model) tea.Cmd {
	first := !p.done
	cmd := m.ask(&p.loading, func(ctx context.Context, src Source) (any, error) { return rows(ctx, src, first) })
	return func() tea.Msg {
		a := cmd().(answer)
		list, _ := a.data.([]client.Row)
		a.partial = first && len(list) >= firstRows
		return a
	}
}

func rows(ctx context.Context, src Source, some bool) (list []client.Row, err error) {
	err = src.Objects(ctx, func(page []client.Row) bool {
		list = append(list, page...)
		return !some || len(list) < firstRows
	})
	return list, err
}

func (p *objectsPage) receive(m *Model, a answer) tea.Cmd {
	if change, ok := a.data.(changed); ok {
		p.merge(change)
		return nil
	}
	if !p.settle(a) {
		return nil
	}
	p.all, _ = a.data.([]client.Row)
	p.l.set(p.all)
	if a.partial {
		return p.load(m)
	}
	return nil
}

// changed is what became of some objects.
type changed struct {
	ids  []client.ID
	rows []client.Row // of those that exist, in the order of the ids
}

// merge brings changes into the list, which is in the order of the ids.
func (p *objectsPage) merge(c changed) {
	touched := make(map[client.ID]bool, len(c.ids))
	for _, id := range c.ids {
		touched[id] = true
	}
	kept := make([]client.Row, 0, len(p.all)+len(c.rows))
	more := c.rows
	for i := range p.all {
		id := p.all[i].ID
		for len(more) > 0 && more[0].ID < id {
			kept = append(kept, more[0])
			more = more[1:]
		}
		if !touched[id] {
			kept = append(kept, p.all[i])
		}
	}
	p.all = append(kept, more...)
	p.l.set(p.all)
}

// hidden reports objects that the page is not about.
func (p *objectsPage) hidden(r *client.Row) bool {
	return p.tree && p.typ == "" && r.Owned && len(r.Names) == 0 || p.typ != "" && r.Type != p.typ || p.where != "" && place(r.Instance) != p.where
}

func newNames(*Model) page {
	p := newListPage("names", "no names: `v6d put FILE --name NAME` gives one", "name ls", []column[Name]{
		{title: "NAME", least: 14, text: func(n *Name) string { return n.Name }},
		{title: "ID", width: 17, text: func(n *Name) string { return n.ID.String() }, rank: byNumber(func(n *Name) client.ID { return n.ID })},
		{title: "TYPE", least: 10, text: func(n *Name) string {
			if n.Gone {
				return "(nothing is there)"
			}
			return short(n.Type)
		}},
		{title: "BYTES", width: 9, right: true, text: func(n *Name) string { return size(n.Bytes) }, rank: byNumber(func(n *Name) int64 { return n.Bytes })},
	}, func(n *Name) string { return n.Name }, func(b []byte, n *Name) []byte { return join(b, n.Name, n.ID.String(), n.Type) })
	p.fetch = func(ctx context.Context, src Source) ([]Name, error) { return src.Names(ctx) }
	p.about = func(n *Name) (subject, bool) {
		return subject{id: n.ID, name: n.Name, typ: n.Type, bytes: n.Bytes}, true
	}
	p.enter = func(m *Model, n *Name) page { return newObject(m, n.ID) }
	return p
}

func newStreams(m *Model) page {
	p := newListPage("streams", "no streams: `v6d stream put NAME` starts one", "stream ls", []column[Stream]{
		{title: "NAME", least: 12, text: func(s *Stream) string { return cmp.Or(s.Name, s.ID.String()) }},
		{title: "STATE", width: 8, text: func(s *Stream) string { return s.State }},
		{title: "WRITER", width: 9, text: func(s *Stream) string { return s.Writer }},
		{title: "WAITS", width: 6, text: func(s *Stream) string { return s.Waits }},
		{title: "READY", width: 6, right: true, text: func(s *Stream) string { return number(s.Ready) }, rank: byNumber(func(s *Stream) int64 { return s.Ready })},
		{title: "CHUNKS", width: 6, right: true, text: func(s *Stream) string { return number(s.Chunks) }, rank: byNumber(func(s *Stream) int64 { return s.Chunks })},
		{title: "BYTES", width: 9, right: true, text: func(s *Stream) string { return size(s.Bytes) }, rank: byNumber(func(s *Stream) int64 { return s.Bytes })},
		{title: "PUSHED", width: 8, right: true, text: func(s *Stream) string { return number(int64(s.Pushed)) }, rank: byNumber(func(s *Stream) uint64 { return s.Pushed })},
		{title: "PULLED", width: 8, right: true, text: func(s *Stream) string { return number(int64(s.Pulled)) }, rank: byNumber(func(s *Stream) uint64 { return s.Pulled })},
		{title: "RATE", width: 7, right: true, text: func(s *Stream) string {
			if s.Rate < 0 {
				return "-"
			}
			return fmt.Sprintf("%.0f/s", s.Rate)
		}, rank: byNumber(func(s *Stream) int64 { return int64(s.Rate * 1000) })},
		{title: "READERS", least: 10, text: func(s *Stream) string { return strings.Join(s.Readers, ", ") }},
		{title: "REASON", least: 8, text: func(s *Stream) string { return s.Reason }},
	}, func(s *Stream) string { return s.ID.String() }, func(b []byte, s *Stream) []byte { return join(b, s.Name, s.ID.String(), s.State, s.Type) })
	var before map[client.ID]uint64
	var at time.Time
	p.fetch = func(ctx context.Context, src Source) ([]Stream, error) { return src.Streams(ctx) }
	p.got = func(_, items []Stream) []Stream { // in Update: one at a time
		now := m.now()
		pushed := map[client.ID]uint64{}
		for i := range items {
			s := &items[i]
			pushed[s.ID] = s.Pushed
			s.Rate = -1
			if was, ok := before[s.ID]; ok && s.Pushed >= was {
				s.Rate = float64(s.Pushed-was) / max(now.Sub(at).Seconds(), 0.001)
			}
		}
		before, at = pushed, now
		return items
	}
	p.about = func(s *Stream) (subject, bool) {
		return subject{id: s.ID, name: s.Name, typ: s.Type, bytes: s.Bytes, stream: true}, true
	}
	p.enter = func(m *Model, s *Stream) page {
		return newText(m, cmp.Or(s.Name, s.ID.String()), "stream", "info", s.ID.String())
	}
	return polled(p, 2*time.Second)
}

func newClients(m *Model) page {
	p := newListPage("clients", "nobody is connected", "status", []column[Client]{
		{title: "CLIENT", least: 32, text: func(c *Client) string { return c.Process }},
		{title: "MADE", width: 9, right: true, text: func(c *Client) string { return size(c.Made) }, rank: byNumber(func(c *Client) int64 { return c.Made })},
		{title: "UNSEALED", width: 9, right: true, text: func(c *Client) string { return size(c.Unsealed) }, rank: byNumber(func(c *Client) int64 { return c.Unsealed })},
		{title: "REQUESTS", width: 9, right: true, text: func(c *Client) string { return number(int64(c.Requests)) }, rank: byNumber(func(c *Client) uint64 { return c.Requests })},
		{title: "STATE", width: 8, text: func(c *Client) string {
			switch {
			case c.Gone:
				return "GONE"
			case c.Idle:
				return "idle"
			}
			return "at work"
		}},
		{title: "SINCE", width: 5, right: true, text: func(c *Client) string { return m.ago(c.Since) }, rank: byNumber(func(c *Client) int64 { return -c.Since.UnixNano() })},
		{title: "KIND", width: 5, text: func(c *Client) string {
			switch {
			case c.Since.IsZero(): // not connected
				return "-"
			case c.Extended:
				return "v6d"
			}
			return "0.24"
		}},
		{title: "SESSION", width: 17, text: func(c *Client) string { return c.Session }},
	}, func(c *Client) string { return c.Key }, func(b []byte, c *Client) []byte { return join(b, c.Process, c.Session) })
	p.fetch = func(ctx context.Context, src Source) ([]Client, error) { return src.Clients(ctx) }
	return polled(p, 2*time.Second)
}

// typeRow is one typename.
type typeRow struct {
	typ     string
	objects int
	bytes   int64
}

func newTypes(*Model) page {
	p := newListPage("types", "no objects, so no types", "du", []column[typeRow]{
		{title: "TYPE", least: 20, text: func(r *typeRow) string { return r.typ }},
		{title: "OBJECTS", width: 9, right: true, text: func(r *typeRow) string { return number(int64(r.objects)) }, rank: byNumber(func(r *typeRow) int { return r.objects })},
		{title: "BYTES", width: 9, right: true, text: func(r *typeRow) string { return size(r.bytes) }, rank: byNumber(func(r *typeRow) int64 { return r.bytes })},
	}, func(r *typeRow) string { return r.typ }, func(b []byte, r *typeRow) []byte { return join(b, r.typ) })
	p.fetch = func(ctx context.Context, src Source) ([]typeRow, error) {
		list, err := rows(ctx, src, false)
		if err != nil {
			return nil, err
		}
		by := map[string]*typeRow{}
		var out []typeRow
		for i := range list {
			r := by[list[i].Type]
			if r == nil {
				r = &typeRow{typ: list[i].Type}
				by[r.typ] = r
			}
			r.objects++
			r.bytes += list[i].Bytes
		}
		for _, r := range by {
			out = append(out, *r)
		}
		slices.SortFunc(out, func(a, b typeRow) int {
			return cmp.Or(cmp.Compare(b.objects, a.objects), strings.Compare(a.typ, b.typ))
		})
		return out, nil
	}
	p.enter = func(m *Model, r *typeRow) page {
		next := newObjects(m).(*objectsPage)
		next.typ = r.typ
		return next
	}
	return p
}

// groups are what the memory view sums up by.
var groups = []string{"type", "name", "owner", "state"}

func newMemory(m *Model) page {
	by := 0
	p := newListPage("memory", "the pool is empty", "du", []column[Share]{
		{title: "WHO OR WHAT", least: 16, text: func(s *Share) string { return s.Key }},
		{title: "BYTES", width: 9, right: true, text: func(s *Share) string { return size(s.Bytes) }, rank: byNumber(func(s *Share) int64 { return s.Bytes })},
		{title: "BLOBS", width: 7, right: true, text: func(s *Share) string { return number(int64(s.Blobs)) }, rank: byNumber(func(s *Share) int { return s.Blobs })},
		{title: "SHARE", width: 15, text: func(s *Share) string {
			return plainBar(m.theme.full, m.theme.empty, s.Bytes, m.over.Used, 10) + " " + percent(s.Bytes, m.over.Used)
		}},
	}, func(s *Share) string { return s.Key }, func(b []byte, s *Share) []byte { return join(b, s.Key) })
	p.title = func() string { return "memory by " + groups[by] }
	p.fetch = func(ctx context.Context, src Source) ([]Share, error) { return src.Shares(ctx, groups[by]) }
	p.extra = func(m *Model, do string) (tea.Cmd, bool) {
		if do != "group" {
			return nil, false
		}
		by = (by + 1) % len(groups)
		p.show = "du --by " + groups[by]
		p.done = false
		p.l.set(nil)
		return p.load(m), true
	}
	p.enter = func(m *Model, s *Share) page {
		next := newObjects(m).(*objectsPage)
		switch groups[by] {
		case "type":
			next.typ = s.Key
		case "name":
			next.setFilter(s.Key)
		default:
			return nil
		}
		return next
	}
	return p
}

// eventRow is an event with a number of its own.
type eventRow struct {
	client.Event
	n int // those of a daemon begin again when it does
}

// mostEvents are kept.
const mostEvents = 5000

// eventsPage shows what happens, and what the daemon remembers of before.
type eventsPage struct {
	*listPage[eventRow]
	follow bool
}

func newEvents(m *Model) page {
	p := newListPage("events", "nothing has happened yet", "events", []column[eventRow]{
		{
			title: "TIME", width: 12, text: func(e *eventRow) string { return time.UnixMilli(e.TimeMS).Format("15:04:05.000") },
			rank: byNumber(func(e *eventRow) uint64 { return e.Seq }),
		},
		{title: "EVENT", width: 9, text: func(e *eventRow) string { return e.Kind }},
		{title: "ID", width: 17, text: func(e *eventRow) string { return e.ID.String() }},
		{title: "TYPE", least: 10, text: func(e *eventRow) string { return short(e.Type) }},
		{title: "NAME", least: 8, text: func(e *eventRow) string { return e.Name }},
	}, func(e *eventRow) string { return strconv.Itoa(e.n) }, func(b []byte, e *eventRow) []byte {
		return join(b, e.Kind, e.ID.String(), e.Type, e.Name)
	})
	p.about = func(e *eventRow) (subject, bool) { return subject{id: e.ID, name: e.Name, typ: e.Type}, true }
	p.enter = func(m *Model, e *eventRow) page { return newObject(m, e.ID) }
	ep := &eventsPage{listPage: p, follow: true}
	p.extra = func(_ *Model, do string) (tea.Cmd, bool) {
		switch do {
		case "follow":
			ep.follow = !ep.follow
			ep.collect(m)
			if ep.follow {
				return m.say("the newest is followed"), true
			}
			return m.say("the cursor stays"), true
		case "up", "pageup", "halfup", "first", "click":
			ep.follow = false
		}
		return nil, false
	}
	ep.collect(m)
	return ep
}

// load asks for what was before, once: the model collects events from the start.
func (p *eventsPage) load(m *Model) tea.Cmd {
	p.collect(m)
	if m.recalled || m.watching != watchLive || p.busy {
		return nil
	}
	until := m.since
	return m.ask(&p.loading, func(ctx context.Context, src Source) (any, error) { return src.Past(ctx, until) })
}

func (p *eventsPage) receive(m *Model, a answer) tea.Cmd {
	if !p.settle(a) {
		return nil
	}
	past, _ := a.data.([]client.Event)
	m.recall(past)
	p.collect(m)
	return nil
}

// collect shows what the model has collected.
func (p *eventsPage) collect(m *Model) {
	p.done = true
	switch m.watching {
	case watchNone:
		p.empty = "this daemon tells no events; lists are loaded again now and then"
	case watchLive:
		p.empty = "nothing has happened yet"
	case watchStarting, watchBroken:
		p.empty = "not connected"
	}
	p.l.set(m.events)
	if p.follow {
		p.l.goTo(len(p.l.shown) - 1)
	}
}
