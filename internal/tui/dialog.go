package tui

import (
	"fmt"
	"slices"
	"strings"

	"charm.land/bubbles/v2/textinput"
	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// dialog is drawn over the page and gets the keys.
type dialog interface {
	key(m *Model, msg tea.KeyPressMsg) tea.Cmd
	update(m *Model, msg tea.Msg) tea.Cmd // other messages: pasted text, a blinking cursor
	draw(m *Model, width, height int) []string
}

// stack puts the parts of a dialog on top of each other: with blank lines between
// them where there is room, and with less of the second one, which is the text,
// where there is none.
func stack(height int, parts ...[]string) (lines []string) {
	n := 0
	parts = slices.DeleteFunc(parts, func(p []string) bool { return len(p) == 0 })
	for _, p := range parts {
		n += len(p)
	}
	if n > height {
		parts[1] = parts[1][:max(len(parts[1])-(n-height), 1)]
	}
	for i, p := range parts {
		if i > 0 && n+len(parts)-1 <= height {
			lines = append(lines, "")
		}
		lines = append(lines, p...)
	}
	return lines
}

// commandLines writes a command as it is shown before it is run.
func commandLines(t *theme, command string, width int) (lines []string) {
	for _, l := range wrap("$ "+command, width) {
		lines = append(lines, t.dim.Render(l))
	}
	return lines
}

func (m *Model) close() { m.dialog = nil }

// asks reports whether the user is in the middle of an answer.
func (m *Model) asks() bool { return m.dialog != nil || m.prompt != nil }

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

func (c *confirm) draw(m *Model, width, height int) []string {
	t := &m.theme
	title := t.crumb
	if c.danger {
		title = t.bad.Bold(true)
	}
	var command []string
	if c.command != "" {
		command = commandLines(t, c.command, width)
	}
	how := t.key.Render("y") + " or " + t.key.Render("enter") + " does it, " + t.key.Render("esc") + " leaves"
	switch {
	case c.typed != "":
		how = fmt.Sprintf("type %s and enter to do it, esc leaves: %s_", t.key.Render(c.typed), c.line)
	case c.danger:
		how = t.key.Render("y") + " does it, " + t.key.Render("esc") + " leaves"
	}
	return stack(height, []string{title.Render(fit(c.title, width, t.more))}, wrap(c.text, width), command, wrap(how, width))
}

// input asks for a word.
type input struct {
	title, about, label, hint string
	preview                   func(word string) string
	submit                    func(m *Model, word string) tea.Cmd
	field                     textinput.Model
}

func (m *Model) newField(prompt string) textinput.Model {
	f := textinput.New()
	var s textinput.Styles
	s.Focused.Prompt, s.Focused.Placeholder = m.theme.key, m.theme.dim
	f.SetStyles(s)
	f.Prompt = prompt
	f.CharLimit = 1000
	f.SetVirtualCursor(true)
	f.Focus()
	return f
}

func (m *Model) input(i input) {
	i.field = m.newField(i.label + ": ")
	i.field.Placeholder = "such as " + i.hint
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

func (i *input) draw(m *Model, width, height int) []string {
	t := &m.theme
	i.field.SetWidth(max(width-len(i.label)-4, 8))
	return stack(height, []string{t.crumb.Render(fit(i.title, width, t.more))}, wrap(i.about, width), []string{i.field.View()},
		commandLines(t, i.preview(i.field.Value()), width), []string{t.key.Render("enter") + " goes on, " + t.key.Render("esc") + " leaves"})
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

func (n *menu) draw(m *Model, width, height int) []string {
	t := &m.theme
	most := max(height-3, 1) // of the actions, on a small screen
	from := max(min(n.at-most/2, len(n.actions)-most), 0)
	var lines []string
	for i, a := range n.actions {
		if i < from || i >= from+most {
			continue
		}
		line := fit("  "+a.key+"  "+a.name, width, t.more)
		if i == n.at {
			line = t.cursor.Render(fit(t.point+" "+a.key+"  "+a.name, width, t.more))
		}
		lines = append(lines, line)
	}
	return stack(height, []string{t.crumb.Render(fit("Actions", width, t.more))}, wrap(n.about, width), lines,
		[]string{t.key.Render("enter") + " chooses, " + t.key.Render("esc") + " leaves"})
}

// prompt is the line at the bottom: a filter while it is typed, or a command.
type prompt struct {
	field   textinput.Model
	live    func(m *Model, text string)         // while typing; may be nil
	submit  func(m *Model, text string) tea.Cmd // enter
	cancel  func(m *Model)
	choices func(text string) []string // completions; may be nil
	names   []Name                     // that are known
	stop    func()                     // ends the question for them; may be nil
}

func (p *prompt) update(m *Model, msg tea.Msg) (cmd tea.Cmd) {
	before := p.field.Value()
	p.field, cmd = p.field.Update(msg)
	if p.live != nil && p.field.Value() != before {
		p.live(m, p.field.Value())
	}
	return cmd
}

func (p *prompt) close(m *Model) {
	m.prompt = nil
	if p.stop != nil {
		p.stop()
	}
}

func (p *prompt) key(m *Model, msg tea.KeyPressMsg) tea.Cmd {
	switch msg.String() {
	case "esc":
		p.close(m)
		if p.cancel != nil {
			p.cancel(m)
		}
		return nil
	case "enter":
		p.close(m)
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
			return m.actPage(m.bound(m.page().kind(), msg.String()))
		}
	}
	return p.update(m, msg)
}

func (p *prompt) draw(m *Model, width int) string {
	t := &m.theme
	p.field.SetWidth(0)
	if room := width - 2; ansi.StringWidth(p.field.Value()) > room { // the end is seen
		p.field.SetWidth(room)
	}
	line := p.field.View()
	if p.choices != nil {
		if list := p.choices(p.field.Value()); len(list) > 0 {
			line += "  " + t.dim.Render(strings.Join(list[:min(len(list), 6)], " "))
		}
	}
	return fit(line, width, t.more)
}
