package tui

import (
	"fmt"
	"strings"

	"charm.land/bubbles/v2/textinput"
	tea "charm.land/bubbletea/v2"
)

// dialog is drawn over the page and gets the keys.
type dialog interface {
	key(m *Model, msg tea.KeyPressMsg) tea.Cmd
	update(m *Model, msg tea.Msg) tea.Cmd // other messages: pasted text, a blinking cursor
	draw(m *Model, width int) []string
}

func (m *Model) close() { m.dialog = nil }

// confirm asks whether to do something.
type confirm struct {
	title, text, command string
	typed                string // what has to be typed; "" for one key
	danger               bool
	yes, no              func(*Model) tea.Cmd
	line                 string // what was typed so far
}

func (m *Model) confirm(c confirm) { m.dialog = &c }

func (c *confirm) update(*Model, tea.Msg) tea.Cmd { return nil }

func (c *confirm) key(m *Model, msg tea.KeyPressMsg) tea.Cmd {
	key := msg.String()
	switch {
	case key == "esc" || c.typed == "" && (key == "n" || key == "q"):
		m.close()
		if c.no != nil {
			return c.no(m)
		}
	case c.typed != "":
		switch {
		case key == "enter" && c.line == c.typed:
			m.close()
			return c.yes(m)
		case key == "backspace" && c.line != "":
			c.line = c.line[:len(c.line)-1]
		case len(key) == 1 && len(c.line) < 20:
			c.line += key
		}
	case key == "y" || key == "enter" && !c.danger:
		m.close()
		return c.yes(m)
	}
	return nil
}

func (c *confirm) draw(m *Model, width int) []string {
	t := &m.theme
	title := t.crumb
	if c.danger {
		title = t.bad.Bold(true)
	}
	lines := []string{title.Render(fit(c.title, width, t.more)), ""}
	lines = append(lines, wrap(c.text, width)...)
	if c.command != "" {
		lines = append(lines, "")
		for _, l := range wrap("$ "+c.command, width) {
			lines = append(lines, t.dim.Render(l))
		}
	}
	lines = append(lines, "")
	switch {
	case c.typed != "":
		lines = append(lines, fmt.Sprintf("type %s and enter to do it, esc leaves: %s_", t.key.Render(c.typed), c.line))
	case c.danger:
		lines = append(lines, t.key.Render("y")+" does it, "+t.key.Render("esc")+" leaves")
	default:
		lines = append(lines, t.key.Render("y")+" or "+t.key.Render("enter")+" does it, "+t.key.Render("esc")+" leaves")
	}
	return lines
}

// input asks for a word.
type input struct {
	title, about, label, hint string
	preview                   func(word string) string
	submit                    func(m *Model, word string) tea.Cmd
	field                     textinput.Model
}

func newField(prompt string) textinput.Model {
	f := textinput.New()
	f.Prompt = prompt
	f.CharLimit = 1000
	f.SetVirtualCursor(true)
	f.Focus()
	return f
}

func (m *Model) input(i input) {
	i.field = newField(i.label + ": ")
	i.field.Placeholder = i.hint
	m.dialog = &i
}

func (i *input) key(m *Model, msg tea.KeyPressMsg) tea.Cmd {
	switch msg.String() {
	case "esc":
		m.close()
		return nil
	case "enter":
		m.close()
		return i.submit(m, i.field.Value())
	}
	return i.update(m, msg)
}

func (i *input) update(_ *Model, msg tea.Msg) (cmd tea.Cmd) {
	i.field, cmd = i.field.Update(msg)
	return cmd
}

func (i *input) draw(m *Model, width int) []string {
	t := &m.theme
	i.field.SetWidth(max(width-len(i.label)-4, 8))
	lines := []string{t.crumb.Render(fit(i.title, width, t.more)), ""}
	lines = append(lines, wrap(i.about, width)...)
	lines = append(lines, "", i.field.View(), "")
	for _, l := range wrap("$ "+i.preview(i.field.Value()), width) {
		lines = append(lines, t.dim.Render(l))
	}
	return append(lines, "", t.key.Render("enter")+" goes on, "+t.key.Render("esc")+" leaves")
}

// menu offers actions.
type menu struct {
	about   string
	list    []subject
	actions []*action
	at      int
}

func (n *menu) update(*Model, tea.Msg) tea.Cmd { return nil }

func (n *menu) key(m *Model, msg tea.KeyPressMsg) tea.Cmd {
	key := msg.String()
	switch key {
	case "esc", "q":
		m.close()
		return nil
	case "up", "k":
		n.at = max(n.at-1, 0)
		return nil
	case "down", "j":
		n.at = min(n.at+1, len(n.actions)-1)
		return nil
	case "enter":
		m.close()
		return m.begin(n.actions[n.at], n.list)
	}
	for _, a := range n.actions {
		if a.key == key {
			m.close()
			return m.begin(a, n.list)
		}
	}
	return nil
}

func (n *menu) draw(m *Model, width int) []string {
	t := &m.theme
	lines := []string{t.crumb.Render(fit("Actions", width, t.more))}
	lines = append(lines, wrap(n.about, width)...)
	lines = append(lines, "")
	for i, a := range n.actions {
		line := fit(" "+a.key+"  "+a.name, width, t.more)
		if i == n.at {
			line = t.cursor.Render(line)
		}
		lines = append(lines, line)
	}
	return append(lines, "", t.key.Render("enter")+" chooses, "+t.key.Render("esc")+" leaves")
}

// prompt is the line at the bottom: a filter while it is typed, or a command.
type prompt struct {
	field   textinput.Model
	live    func(m *Model, text string)         // while typing; may be nil
	submit  func(m *Model, text string) tea.Cmd // enter
	cancel  func(m *Model)
	choices func(text string) []string // completions; may be nil
}

func (p *prompt) update(m *Model, msg tea.Msg) (cmd tea.Cmd) {
	before := p.field.Value()
	p.field, cmd = p.field.Update(msg)
	if p.live != nil && p.field.Value() != before {
		p.live(m, p.field.Value())
	}
	return cmd
}

func (p *prompt) key(m *Model, msg tea.KeyPressMsg) tea.Cmd {
	switch msg.String() {
	case "esc":
		m.prompt = nil
		if p.cancel != nil {
			p.cancel(m)
		}
		return nil
	case "enter":
		m.prompt = nil
		return p.submit(m, p.field.Value())
	case "tab":
		if p.choices != nil {
			if list := p.choices(p.field.Value()); len(list) > 0 {
				p.field.SetValue(list[0])
				p.field.CursorEnd()
			}
			return nil
		}
	case "up", "down", "pgup", "pgdown":
		if p.live != nil { // the list can be walked while a filter is typed
			return m.actPage(bound(m.page().kind(), msg.String()))
		}
	}
	return p.update(m, msg)
}

func (p *prompt) draw(m *Model, width int) string {
	t := &m.theme
	line := p.field.View()
	if p.choices != nil {
		if list := p.choices(p.field.Value()); len(list) > 0 {
			line += "  " + t.dim.Render(strings.Join(list[:min(len(list), 6)], " "))
		}
	}
	return fit(line, width, t.more)
}
