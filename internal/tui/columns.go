package tui

import (
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
)

// tabular is a page whose columns can be chosen.
type tabular interface {
	page
	columnNames() []string      // all, those that are shown first
	shownColumns() []string     // in their order
	showColumns(names []string) // those that it has; none of them, or none at all, is all
}

func (l *list[T]) titles(columns []column[T]) []string {
	out := make([]string, len(columns))
	for i := range columns {
		out[i] = columns[i].title
	}
	return out
}

func (p *listPage[T]) shownColumns() []string { return p.l.titles(p.l.columns) }

func (p *listPage[T]) columnNames() []string {
	names := p.shownColumns()
	for _, name := range p.l.titles(p.l.every) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (p *listPage[T]) showColumns(names []string) {
	l := &p.l
	sorted := ""
	if l.sortBy >= 0 && l.sortBy < len(l.columns) {
		sorted = l.columns[l.sortBy].title
	}
	if l.every == nil {
		l.every = l.columns
	}
	var chosen []column[T]
	for _, name := range names {
		for _, c := range l.every {
			if c.title == name {
				chosen = append(chosen, c)
			}
		}
	}
	if len(chosen) == 0 {
		chosen = l.every
	}
	l.columns, l.scroll = chosen, 0
	l.sortBy = slices.IndexFunc(chosen, func(c column[T]) bool { return c.title == sorted })
	if l.sortBy < 0 {
		l.desc = false
	}
	l.arrange()
}

// Columns returns the columns of each view, in their usual order.
func Columns() map[string][]string {
	m := &Model{}
	out := map[string][]string{}
	for _, v := range views {
		if p, ok := v.make(m).(tabular); ok {
			out[v.name] = p.shownColumns()
		}
	}
	return out
}

// columnMenu chooses the columns of a view.
type columnMenu struct {
	page  tabular
	names []string // in the order of the menu
	at    int
}

func (m *Model) chooseColumns() tea.Cmd {
	p, ok := m.page().(tabular)
	if !ok {
		return m.say("nothing to choose here")
	}
	m.dialog = &columnMenu{page: p, names: p.columnNames()}
	return nil
}

func (c *columnMenu) update(*Model, tea.Msg) tea.Cmd { return nil }

func (c *columnMenu) key(m *Model, msg tea.KeyPressMsg) tea.Cmd {
	switch msg.String() {
	case "esc", "q", "enter", "o":
		m.close()
	case "up", "k":
		c.at = max(c.at-1, 0)
	case "down", "j":
		c.at = min(c.at+1, len(c.names)-1)
	case "K":
		c.swap(m, c.at-1)
	case "J":
		c.swap(m, c.at+1)
	case "space":
		shown := c.page.shownColumns()
		if name := c.names[c.at]; !slices.Contains(shown, name) {
			shown = append(shown, name)
		} else if len(shown) > 1 {
			shown = slices.DeleteFunc(shown, func(s string) bool { return s == name })
		}
		c.show(m, shown)
	}
	return nil
}

// swap moves the column at the cursor to another place.
func (c *columnMenu) swap(m *Model, to int) {
	if to < 0 || to >= len(c.names) {
		return
	}
	c.names[c.at], c.names[to] = c.names[to], c.names[c.at]
	c.at = to
	c.show(m, c.page.shownColumns())
}

// show shows the chosen columns in the order of the menu, here and on later pages of
// the view.
func (c *columnMenu) show(m *Model, chosen []string) {
	names := slices.DeleteFunc(slices.Clone(c.names), func(s string) bool { return !slices.Contains(chosen, s) })
	c.page.showColumns(names)
	if m.columns == nil {
		m.columns = map[string][]string{}
	}
	m.columns[c.page.kind()] = names
}

func (c *columnMenu) draw(m *Model, width, height int) []string {
	t := &m.theme
	shown := c.page.shownColumns()
	most := max(height-3, 1)
	from := max(min(c.at-most/2, len(c.names)-most), 0)
	var lines []string
	for i, name := range c.names {
		if i < from || i >= from+most {
			continue
		}
		box := "[ ] "
		if slices.Contains(shown, name) {
			box = "[x] "
		}
		line := fit("  "+box+name, width, t.more)
		if i == c.at {
			line = t.cursor.Render(fit(t.point+" "+box+name, width, t.more))
		}
		lines = append(lines, line)
	}
	how := t.key.Render("space") + " shows or hides, " + t.key.Render("J") + " " + t.key.Render("K") + " move, " + t.key.Render("esc") + " leaves"
	return stack(height, []string{t.crumb.Render(fit("Columns of "+strings.TrimSpace(c.page.kind()), width, t.more))}, lines, wrap(how, width))
}
