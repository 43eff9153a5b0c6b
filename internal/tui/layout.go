package tui

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/charmbracelet/x/ansi"

	"github.com/v6d-go/v6d/internal/config"
)

// The smallest screen that anything fits on.
const (
	minWidth  = 40
	minHeight = 10
)

// layout says which lines are whose.
type layout struct {
	width, height int
	tabs          bool // a line for the views
	body          int  // lines
	top           int  // the body's first line
}

func newLayout(width, height int) layout {
	l := layout{width: width, height: height, tabs: height >= 14}
	l.top = 1
	if l.tabs {
		l.top++
	}
	l.body = max(height-l.top-1, 1) // the last line is the footer
	return l
}

// fit cuts or pads text to a width in cells.
func fit(text string, width int, more string) string {
	if width <= 0 {
		return ""
	}
	w := ansi.StringWidth(text)
	if w > width {
		text = ansi.Truncate(text, width, cutMark(more, width))
		w = ansi.StringWidth(text)
	}
	return text + strings.Repeat(" ", max(width-w, 0))
}

func cutMark(more string, width int) string {
	if ansi.StringWidth(more) >= width {
		return ""
	}
	return more
}

// right is fit with the text at the right.
func right(text string, width int, more string) string {
	if w := ansi.StringWidth(text); w < width {
		return strings.Repeat(" ", width-w) + text
	}
	return fit(text, width, more)
}

// clean makes text of others safe to draw: one line without control characters.
func clean(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return unsafe(r) || selects(r) }) {
		return text
	}
	return strings.Map(func(r rune) rune {
		switch {
		case unsafe(r):
			return '·'
		case selects(r):
			return -1
		}
		return r
	}, text)
}

// unsafe reports characters that would move the cursor, or reorder the line.
func unsafe(r rune) bool {
	switch {
	case r < 0x7f:
		return r < ' '
	case r < 0xa0, r == '\u2028', r == '\u2029', r == 0xfffd:
		return true
	}
	return unicode.Is(unicode.Cf, r)
}

// typable is what could be typed of a pasted text.
func typable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unsafe(r) || selects(r):
			return -1
		}
		return r
	}, strings.TrimSpace(text))
}

// selects reports variation selectors: terminals do not agree how wide a character
// is that one follows.
func selects(r rune) bool { return r >= 0xfe00 && r <= 0xfe0f }

// size writes bytes for people.
func size(n int64) string {
	if n < 0 {
		return "-"
	}
	return config.FormatSize(n)
}

// bar draws how much of limit is used.
func (t *theme) bar(used, limit int64, width int) string {
	if limit <= 0 || used < 0 || width <= 0 {
		return strings.Repeat(" ", max(width, 0))
	}
	n := int(float64(used) / float64(limit) * float64(width))
	if used > 0 && n == 0 {
		n = 1
	}
	n = min(max(n, 0), width)
	style := t.good
	switch {
	case used*10 >= limit*9:
		style = t.bad
	case used*10 >= limit*7:
		style = t.warn
	}
	return style.Render(strings.Repeat(t.full, n)) + t.dim.Render(strings.Repeat(t.empty, width-n))
}

func percent(used, limit int64) string {
	if limit <= 0 || used < 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", used*100/limit)
}
