package tui

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
)

// View implements tea.Model.
func (m *Model) View() tea.View {
	v := tea.NewView(m.content())
	v.AltScreen = true
	v.WindowTitle = clean("v6d " + m.over.Address)
	if !m.opts.NoMouse {
		v.MouseMode = tea.MouseModeCellMotion
	}
	return v
}

// content draws the screen.
func (m *Model) content() string {
	l := &m.lay
	if l.width < minWidth || l.height < minHeight {
		lines := []string{fmt.Sprintf("too small: %dx%d", l.width, l.height), fmt.Sprintf("needs %dx%d", minWidth, minHeight)}
		for i := range lines {
			lines[i] = ansi.Truncate(lines[i], max(l.width, 0), "")
		}
		return strings.Join(lines[:min(max(l.height, 1), len(lines))], "\n")
	}
	lines := make([]string, 0, l.height)
	lines = append(lines, m.head())
	if l.tabs {
		lines = append(lines, m.tabs())
	}
	body := m.page().draw(m, l.width, l.body)
	for i := range l.body {
		if i < len(body) {
			lines = append(lines, body[i])
		} else {
			lines = append(lines, "")
		}
	}
	lines = append(lines, m.foot())
	if m.dialog != nil {
		m.overlay(lines)
	}
	return strings.Join(lines, "\n")
}

// head is where we are, and how full the pool is.
func (m *Model) head() string {
	t := &m.theme
	width := m.lay.width
	var rightSide string
	switch {
	case m.overErr != nil:
		rightSide = t.bad.Bold(true).Render("NO ANSWER")
	case !m.known:
		rightSide = t.dim.Render(m.spinner() + " connecting")
	case m.over.Failure != "":
		rightSide = t.bad.Bold(true).Render("TROUBLE")
	default:
		w := 10
		if width < 70 {
			w = 5
		}
		if width < 70 && (m.opts.ReadOnly || m.over.Moving > 0) {
			w = 0
		}
		rightSide = t.bar(m.over.Used, m.over.Limit, w) + " " + size(m.over.Used) + "/" + size(m.over.Limit)
		if m.over.Moving > 0 {
			rightSide = fmt.Sprintf("%d moving  ", m.over.Moving) + rightSide
		}
	}
	if m.opts.ReadOnly {
		rightSide = "read-only  " + rightSide
	}
	if m.running > 0 || m.page().state().busy && m.page().state().done {
		rightSide = m.spinner() + " " + rightSide
	}
	rightSide = ansi.Truncate(rightSide, width-12, t.more)
	room := width - ansi.StringWidth(rightSide) - 1
	crumbs := []string{"v6d"}
	if width >= 60 && m.known {
		crumbs = append(crumbs, place(m.over.Instance))
	}
	for _, p := range m.stack {
		crumbs = append(crumbs, p.crumb())
	}
	between := " › "
	if t.name == "plain" {
		between = " > "
	}
	text := clean(strings.Join(crumbs, between))
	for ansi.StringWidth(text) > room && len(crumbs) > 2 { // the newest ones stay
		crumbs = append(crumbs[:1], crumbs[2:]...)
		text = clean(strings.Join(crumbs, between))
	}
	return t.crumb.Render(fit(text, room, t.more)) + " " + rightSide
}

// tabs are the views with their digits.
func (m *Model) tabs() string {
	t := &m.theme
	var b strings.Builder
	on := m.viewIndex()
	full := 0
	for _, v := range views {
		full += len(v.name) + len(" 1  ")
	}
	for i, v := range views {
		text := fmt.Sprintf(" %d %s ", i+1, v.name)
		switch short := len(" 1 abc "); {
		case m.lay.width >= full:
		case i == on || m.lay.width >= len(views)*short:
			text = text[:short-1] + " "
		default:
			text = fmt.Sprintf(" %d ", i+1)
		}
		if i == on {
			text = t.tabOn.Render(text)
		} else {
			text = t.tab.Render(text)
		}
		b.WriteString(text)
	}
	line := b.String()
	if state := m.liveness(); state != "" && ansi.StringWidth(line)+ansi.StringWidth(state)+2 <= m.lay.width {
		line += strings.Repeat(" ", m.lay.width-ansi.StringWidth(line)-ansi.StringWidth(state)-1) + state
	}
	return ansi.Truncate(line, m.lay.width, "")
}

// liveness says how the browser learns of changes.
func (m *Model) liveness() string {
	t := &m.theme
	if m.overErr != nil {
		return t.bad.Render("not live")
	}
	switch m.watching {
	case watchLive:
		return t.good.Render("live")
	case watchBroken:
		return t.bad.Render("not live")
	case watchNone:
		return t.dim.Render("every 3s")
	case watchStarting:
	}
	return ""
}

// foot is what is typed, what was said, or the keys.
func (m *Model) foot() string {
	t := &m.theme
	width := m.lay.width
	switch {
	case m.prompt != nil:
		return m.prompt.draw(m, width)
	case m.toast != "":
		return fit(" "+m.toast, width, t.more)
	case m.overErr != nil && m.known:
		return t.bad.Render(fit(" "+clean(m.overErr.Error()), width, t.more))
	case m.over.Failure != "":
		return t.bad.Render(fit(" "+clean(m.over.Failure), width, t.more))
	}
	var b strings.Builder
	kind := m.page().kind()
	if text := m.page().filterText(); text != "" {
		b.WriteString(" " + t.match.Render("/"+clean(text)))
	}
	last := " " + t.key.Render(m.keyOf("help")) + " help"
	for i := range m.bindings {
		k := &m.bindings[i]
		if !k.foot || !k.has(kind) || k.do == "help" || len(k.keys) == 0 {
			continue
		}
		help, _, _ := strings.Cut(k.help, " (")
		if k.do == "command" {
			help = "go to"
		}
		item := " " + t.key.Render(k.keys[0]) + " " + help + " "
		if ansi.StringWidth(b.String())+ansi.StringWidth(item)+ansi.StringWidth(last) > width {
			break
		}
		b.WriteString(item)
	}
	return ansi.Truncate(b.String()+last, width, t.more)
}

// overlay draws the dialog over the middle of the screen.
func (m *Model) overlay(lines []string) {
	t := &m.theme
	width := min(m.lay.width-4, 76)
	most := m.lay.height - 4
	inner := m.dialog.draw(m, width-4, most)
	if len(inner) > most { // the last line says how to leave
		inner = append(inner[:most-1], inner[len(inner)-1])
	}
	box := strings.Split(lipgloss.NewStyle().Border(t.sides).Padding(0, 1).Width(width).Render(strings.Join(inner, "\n")), "\n")
	top := max((len(lines)-len(box))/2, 0)
	left := (m.lay.width - width) / 2
	for i, b := range box {
		if top+i >= len(lines) {
			break
		}
		under := fit(lines[top+i], m.lay.width, "")
		after := left + ansi.StringWidth(b)
		room := m.lay.width - after
		rest := ansi.TruncateLeft(under, after, "")
		if ansi.StringWidth(rest) > room { // a wide character lies under the edge
			rest = ansi.TruncateLeft(under, after+1, "")
		}
		lines[top+i] = fit(under, left, "") + b + strings.Repeat(" ", max(room-ansi.StringWidth(rest), 0)) + rest
	}
}
