package tui

import (
	"context"
	"fmt"
	"time"

	tea "charm.land/bubbletea/v2"
)

// listPage is a page that is one list.
type listPage[T any] struct {
	loading
	l     list[T]
	name  string
	title func() string // nil: the name
	empty string
	show  string // the command that shows the same
	fetch func(ctx context.Context, src Source) ([]T, error)
	about func(*T) (subject, bool)
	enter func(m *Model, item *T) page // nil: nothing opens
	extra func(m *Model, do string) (tea.Cmd, bool)
	top   func(m *Model, width int) []string // lines above the list
	got   func(old, items []T) []T           // looks at what came before it is shown
	above int                                // lines above the list when it was last drawn
}

func newListPage[T any](name, empty, show string, columns []column[T], key func(*T) string, search func([]byte, *T) []byte) *listPage[T] {
	return &listPage[T]{
		name: name, empty: empty, show: show,
		l: list[T]{columns: columns, key: key, search: search, sortBy: -1},
	}
}

func (p *listPage[T]) kind() string          { return p.name }
func (p *listPage[T]) state() *loading       { return &p.loading }
func (p *listPage[T]) command() string       { return p.show }
func (p *listPage[T]) setFilter(text string) { p.l.setFilter(text) }
func (p *listPage[T]) filterText() string    { return p.l.filter.text }

func (p *listPage[T]) crumb() string {
	text := p.name
	if p.title != nil {
		text = p.title()
	}
	if p.done && (p.name != "text" || p.l.filter.on()) {
		if p.l.filter.on() {
			text += fmt.Sprintf(" %d/%d", len(p.l.shown), p.l.total)
		} else {
			text += fmt.Sprintf(" %d", p.l.total)
		}
	}
	if n := len(p.l.marks); n > 0 { // the filter may hide them
		text += fmt.Sprintf(", %d marked", n)
	}
	return text
}

func (p *listPage[T]) load(m *Model) tea.Cmd {
	if p.fetch == nil {
		return nil
	}
	return m.ask(&p.loading, func(ctx context.Context, src Source) (any, error) { return p.fetch(ctx, src) })
}

func (p *listPage[T]) receive(_ *Model, a answer) tea.Cmd {
	if !p.settle(a) {
		return nil
	}
	items, _ := a.data.([]T)
	if p.got != nil {
		items = p.got(p.l.items, items)
	}
	p.l.set(items)
	return nil
}

func (p *listPage[T]) subjects() (list []subject) {
	if p.about == nil {
		return nil
	}
	items := p.l.marked()
	if len(items) == 0 {
		if c := p.l.current(); c != nil {
			items = []*T{c}
		}
	}
	for _, item := range items {
		if s, ok := p.about(item); ok {
			s.hidden = !p.l.passes(item)
			list = append(list, s)
		}
	}
	return list
}

func (p *listPage[T]) act(m *Model, do string) (tea.Cmd, bool) {
	if p.extra != nil {
		if cmd, ok := p.extra(m, do); ok {
			return cmd, true
		}
	}
	if do == "open" {
		c := p.l.current()
		if c == nil || p.enter == nil {
			return nil, true
		}
		if next := p.enter(m, c); next != nil {
			return m.push(next), true
		}
		return m.say("nothing opens here"), true
	}
	return nil, p.l.move(do)
}

// move does what moves the cursor, scrolls, sorts and marks.
func (l *list[T]) move(do string) bool {
	page := max(l.height-1, 1)
	switch do {
	case "up":
		l.goTo(l.at - 1)
	case "down":
		if l.on != gone { // what came into its place is the next one
			l.at++
		}
		l.goTo(l.at)
	case "pageup":
		l.goTo(l.at - page)
	case "pagedown":
		l.goTo(l.at + page)
	case "halfup":
		l.goTo(l.at - page/2)
	case "halfdown":
		l.goTo(l.at + page/2)
	case "first":
		l.goTo(0)
	case "last":
		l.goTo(len(l.shown) - 1)
	case "left":
		l.scroll = max(l.scroll-1, 0)
	case "right":
		most := len(l.columns) - 2
		if len(l.columns) == 1 {
			most = (l.widest - 1) / scrollStep
		}
		l.scroll = min(l.scroll+1, max(most, 0))
	case "sort":
		if l.sortBy+1 >= len(l.columns) {
			l.sortBy, l.desc = -1, false
			l.arrange()
		} else {
			l.setSort(l.sortBy + 1)
		}
	case "reverse":
		if l.sortBy >= 0 {
			l.setSort(l.sortBy)
		}
	case "mark":
		l.mark()
	case "markall":
		if len(l.marks) > 0 {
			l.marks = nil
			break
		}
		l.marks = map[string]bool{}
		for _, i := range l.shown {
			l.marks[l.key(&l.items[i])] = true
		}
	default:
		return false
	}
	return true
}

func (p *listPage[T]) click(m *Model, line int) {
	line -= p.above
	if n := p.l.top + line - 1; line > 0 && n < len(p.l.shown) {
		if p.extra != nil {
			p.extra(m, "click")
		}
		p.l.goTo(n)
	}
}

func (p *listPage[T]) draw(m *Model, width, height int) []string {
	var lines []string
	if p.top != nil {
		lines = p.top(m, width)
	}
	if p.l.total == 0 || p.err != nil && !p.done {
		p.l.height = max(height-len(lines)-1, 1)
		return append(lines, m.notice(&p.loading, p.empty, width)...)
	}
	if p.err != nil {
		lines = append(lines, m.theme.bad.Render(fit("  not up to date: "+clean(p.err.Error()), width, m.theme.more)))
	}
	p.above = len(lines)
	lines = append(lines, p.l.draw(&m.theme, width, height-len(lines), true)...)
	if len(p.l.shown) == 0 {
		lines = append(lines, "", fit("  nothing matches "+clean(p.l.filter.text)+"; esc clears the filter", width, m.theme.more))
	}
	return lines
}

// polled sets how often a page loads again while it is looked at.
func polled[T any](p *listPage[T], every time.Duration) *listPage[T] {
	p.poll = every
	return p
}
