package tui

import (
	"context"
	"fmt"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// newText returns a page with what a command of v6d prints.
func newText(_ *Model, title string, args ...string) page {
	p := newListPage("text", "it printed nothing", strings.Join(args, " "), textColumns(title),
		func(l *textLine) string { return fmt.Sprint(l.n) }, func(b []byte, l *textLine) []byte { return join(b, l.text) })
	p.title = func() string { return title }
	p.fetch = func(ctx context.Context, src Source) ([]textLine, error) {
		out, err := src.Run(ctx, args...)
		if err != nil {
			return nil, err
		}
		return textLines(out), nil
	}
	return p
}

// newLines returns a page of lines that are known.
func newLines(title, empty string, lines []string) page {
	p := newListPage("text", empty, "", textColumns(title), func(l *textLine) string { return fmt.Sprint(l.n) }, func(b []byte, l *textLine) []byte { return join(b, l.text) })
	p.title = func() string { return title }
	p.done = true
	p.l.set(textLines(strings.Join(lines, "\n")))
	return p
}

func textColumns(title string) []column[textLine] {
	return []column[textLine]{{title: strings.ToUpper(title), least: 20, text: func(l *textLine) string { return l.text }}}
}

type textLine struct {
	n    int
	text string
}

func textLines(text string) []textLine {
	text = strings.TrimRight(ansi.Strip(text), "\n")
	if text == "" {
		return nil
	}
	var out []textLine
	for i, line := range strings.Split(strings.ReplaceAll(text, "\t", "    "), "\n") {
		out = append(out, textLine{i, line})
	}
	return out
}

// wrap breaks text into lines of a width.
func wrap(text string, width int) []string {
	return strings.Split(ansi.Wrap(text, max(width, 10), ""), "\n")
}
