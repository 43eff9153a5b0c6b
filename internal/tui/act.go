package tui

import (
	"context"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/v6d-go/v6d/client"
)

// act does what a key means on every page; handled is false for what is the page's
// own.
func (m *Model) act(do string) (cmd tea.Cmd, handled bool) {
	p := m.page()
	switch do {
	case "quit":
		if m.running > 0 {
			m.confirm(confirm{title: "Quit?", text: "A command is still at work; it ends with the browser.", yes: func(*Model) tea.Cmd { return tea.Quit }})
			return nil, true
		}
		return tea.Quit, true
	case "interrupt":
		return tea.Quit, true
	case "back":
		return m.back(), true
	case "help":
		return m.push(m.helpPage()), true
	case "log":
		return m.push(newLines("commands that were run", "no action was taken yet", m.log)), true
	case "columns":
		return m.chooseColumns(), true
	case "command":
		return m.askCommand(), true
	case "filter":
		m.askFilter()
	case "next", "previous":
		p.act(m, map[string]string{"next": "down", "previous": "up"}[do])
	case "nextview":
		return m.show((m.viewIndex() + 1) % len(views)), true
	case "previousview":
		return m.show((m.viewIndex() + len(views) - 1) % len(views)), true
	case "refresh":
		return tea.Batch(p.load(m), m.overview()), true
	case "theme":
		i := slices.Index(themeNames, m.theme.name)
		m.theme, m.fixed = newTheme(themeNames[(i+1)%len(themeNames)]), true
		if o, ok := p.(*objectPage); ok {
			o.unfold(m)
		}
		return m.say("theme: " + m.theme.name), true
	case "suspend":
		return tea.Suspend, true
	case "redraw":
		return tea.ClearScreen, true
	case "copycommand":
		line := strings.TrimSpace("v6d " + p.command())
		return tea.Batch(tea.SetClipboard(line), m.say("copied: "+line)), true
	default:
		return m.actOn(do)
	}
	return nil, true
}

// actOn does what is about subjects.
func (m *Model) actOn(do string) (tea.Cmd, bool) {
	list := m.page().subjects()
	one := func(f func(s subject) tea.Cmd) (tea.Cmd, bool) {
		if len(list) == 0 {
			return m.say("nothing is selected"), true
		}
		return f(list[0]), true
	}
	switch do {
	case "value":
		return one(func(s subject) tea.Cmd {
			if s.stream {
				return m.say("a stream has no value; `v6d stream cat` reads it")
			}
			return m.push(newValue(m, s.id, s.name))
		})
	case "describe":
		return one(func(s subject) tea.Cmd { return m.push(newText(m, "describe", "describe", s.arg())) })
	case "raw":
		return one(func(s subject) tea.Cmd { return m.push(newText(m, "metadata", "meta", s.arg(), "-o", "json")) })
	case "copyid":
		return one(func(s subject) tea.Cmd { return tea.Batch(tea.SetClipboard(s.arg()), m.say("copied: "+s.arg())) })
	case "actions":
		return one(func(subject) tea.Cmd {
			if possible := m.possible(list); len(possible) > 0 {
				m.dialog = &menu{about: about(list), list: list, actions: possible}
				return nil
			}
			return m.say("nothing can be done to " + about(list))
		})
	case "delete":
		name := "delete"
		if len(list) > 0 && list[0].stream {
			name = "remove the stream"
		}
		return m.begin(actionNamed(name), list), true
	case "unname":
		return m.begin(actionNamed("drop the name"), list), true
	case "migrate":
		return m.begin(actionNamed("migrate"), list), true
	case "label":
		return m.begin(actionNamed("label"), list), true
	case "export":
		return m.begin(actionNamed("save to a file"), list), true
	}
	return nil, false
}

// back gives up one thing: a question under way, marks, the filter, the page.
func (m *Model) back() tea.Cmd {
	p := m.page()
	switch {
	case p.state().busy && !p.state().done && p.state().stop():
		p.state().halted = true
		return nil
	case p.filterText() != "":
		p.setFilter("")
		return nil
	}
	if o, ok := p.(interface{ unmark() bool }); ok && o.unmark() {
		return nil
	}
	if len(m.stack) > 1 {
		return m.pop()
	}
	return m.say("q leaves")
}

func (p *listPage[T]) unmark() bool {
	had := len(p.l.marks) > 0
	p.l.marks = nil
	return had
}

// viewIndex returns which view the stack began with.
func (m *Model) viewIndex() int {
	for i, v := range views {
		if v.name == m.stack[0].kind() {
			return i
		}
	}
	return 1
}

// askFilter filters while it is typed.
func (m *Model) askFilter() {
	p := m.page()
	before := p.filterText()
	f := m.newField("/")
	f.SetValue(before)
	f.CursorEnd()
	m.prompt = &prompt{
		field:  f,
		live:   func(_ *Model, text string) { p.setFilter(text) },
		submit: func(_ *Model, text string) tea.Cmd { p.setFilter(text); return nil },
		cancel: func(*Model) { p.setFilter(before) },
	}
}

// shortViews are what the command line calls views beside their names.
var shortViews = map[string]string{"obj": "objects", "inst": "cluster", "instances": "cluster", "sess": "clients", "mem": "memory", "du": "memory"}

// askCommand goes where one types: a view, an id or a name.
// askCommand completes views, and names as soon as these have come.
func (m *Model) askCommand() tea.Cmd {
	known := append(Views(), "quit", "help", "log")
	p := &prompt{
		field:  m.newField(":"),
		submit: func(m *Model, text string) tea.Cmd { return m.command(strings.TrimSpace(text)) },
	}
	p.choices = func(text string) (out []string) {
		for _, k := range known {
			if strings.HasPrefix(k, text) {
				out = append(out, k)
			}
		}
		for _, n := range p.names {
			if text != "" && strings.HasPrefix(n.Name, text) && clean(n.Name) == n.Name { // others go by their ids
				out = append(out, n.Name)
			}
		}
		return out
	}
	m.prompt = p
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	src := m.src
	p.stop = cancel
	return func() tea.Msg {
		defer cancel()
		names, err := src.Names(ctx)
		if err != nil { // what is typed is still found by its id
			names = nil
		}
		return namesMsg{p, names}
	}
}

// namesMsg is what can be gone to by name.
type namesMsg struct {
	p     *prompt // that they are for
	names []Name
}

func (m *Model) command(text string) tea.Cmd {
	switch text {
	case "":
		return nil
	case "q", "quit":
		text = "quit"
		fallthrough
	case "help", "log":
		cmd, _ := m.act(text)
		return cmd
	}
	if long, ok := shortViews[text]; ok {
		text = long
	}
	for i, v := range views {
		if v.name == text {
			return m.show(i)
		}
	}
	if id, err := client.ParseID(text); err == nil {
		if id.IsBlob() {
			return m.goTo(newValue(m, id, ""))
		}
		return m.goTo(newObject(m, id))
	}
	src, ctx, page := m.src, m.ctx, m.page().state().id
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		names, err := src.Names(ctx)
		if err != nil {
			return foundMsg{page: page, text: text, err: err}
		}
		for _, n := range names {
			if n.Name == text {
				return foundMsg{page: page, text: text, id: n.ID}
			}
		}
		return foundMsg{page: page, text: text}
	}
}

// foundMsg is what a name stands for; 0 for nothing.
type foundMsg struct {
	page int // that it was asked on
	text string
	id   client.ID
	err  error
}

// found opens what a name stands for, unless the user has gone elsewhere since.
func (m *Model) found(msg foundMsg) tea.Cmd {
	switch {
	case msg.page != m.page().state().id || m.asks():
		return nil
	case msg.err != nil:
		return m.say(msg.err.Error())
	case msg.id == 0:
		return m.say("there is no view, id or name " + msg.text)
	}
	return m.goTo(newObject(m, msg.id))
}

// goTo opens a page over the view that was begun with.
func (m *Model) goTo(p page) tea.Cmd {
	for _, old := range m.stack[1:] {
		old.state().stop()
	}
	m.stack = m.stack[:1]
	return m.push(p)
}

// helpPage lists the keys of the page that is looked at.
func (m *Model) helpPage() page {
	kind := m.page().kind()
	var lines []string
	add := func(own bool) {
		for i := range m.bindings {
			b := &m.bindings[i]
			if (b.on != "") != own || !b.has(kind) || b.write && m.opts.ReadOnly || len(b.keys) == 0 {
				continue
			}
			lines = append(lines, fit(b.label(), 16, "")+b.help)
		}
	}
	lines = append(lines, "on this page")
	add(true)
	lines = append(lines, "", "everywhere")
	add(false)
	lines = append(lines, "", "A line begins with > where the cursor is, with * where it is marked.",
		"In a question esc always leaves. Every action shows the command that it equals.")
	return newLines("help: "+kind, "", lines)
}
