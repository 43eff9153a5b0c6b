package tui

import (
	"charm.land/lipgloss/v2"
)

// theme is how things look. Colour never carries a meaning alone.
type theme struct {
	name                                                string
	head, crumb, tab, tabOn, column, cursor, marked     lipgloss.Style
	dim, good, warn, bad, key, border, match            lipgloss.Style
	full, empty, point, branch, last, pipe, more, frame string
	sides                                               lipgloss.Border
}

// themes are gone through with one key. plain has neither colour nor letters
// beyond ASCII.
var themeNames = []string{"dark", "light", "plain"}

func newTheme(name string) theme {
	t := theme{
		name: name, full: "█", empty: "░", point: "▸", branch: "├─ ", last: "└─ ", pipe: "│  ", more: "…", frame: "─",
		sides: lipgloss.RoundedBorder(),
	}
	s := lipgloss.NewStyle
	t.cursor, t.column, t.tabOn = s().Reverse(true), s().Bold(true), s().Bold(true).Reverse(true)
	t.crumb, t.key = s().Bold(true), s().Bold(true)
	t.marked = s().Bold(true) // an underlined text would be drawn letter by letter, and flags fall apart
	if name == "plain" {
		t.full, t.empty, t.point, t.branch, t.last, t.pipe, t.more, t.frame = "#", ".", ">", "|- ", "`- ", "|  ", "...", "-"
		t.sides = lipgloss.ASCIIBorder()
		return t
	}
	accent, good, warn, bad, dim := "12", "10", "11", "9", "8"
	if name == "light" {
		accent, good, warn, bad, dim = "4", "2", "3", "1", "8"
	}
	color := func(c string) lipgloss.Style { return s().Foreground(lipgloss.Color(c)) }
	t.head, t.crumb, t.column, t.key = color(accent), color(accent).Bold(true), color(accent).Bold(true), color(accent).Bold(true)
	t.good, t.warn, t.bad, t.dim = color(good), color(warn), color(bad), color(dim)
	t.border, t.match, t.marked, t.tab = color(dim), color(warn).Bold(true), color(warn).Bold(true), color(dim)
	return t
}
