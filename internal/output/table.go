package output

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/pkg/twwidth"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// table prints columns: aligned, with a heading and cut to the width of the
// terminal; separated by tabs, exact and without a heading for a pipe.
func (p *Printer) table(l List) error {
	var shown []int
	for i, c := range l.Columns {
		if !c.Wide || p.format == "wide" {
			shown = append(shown, i)
		}
	}
	rows := make([][]string, len(l.Rows))
	for i, r := range l.Rows {
		for _, c := range shown {
			if text := r[c].Human; p.width > 0 && !p.exact {
				rows[i] = append(rows[i], OneLine(text))
			} else {
				rows[i] = append(rows[i], OneLine(r[c].Exact))
			}
		}
	}
	if p.width == 0 {
		var b strings.Builder
		for _, r := range rows {
			b.WriteString(strings.Join(r, "\t"))
			b.WriteByte('\n')
		}
		_, err := io.WriteString(p.out, b.String())
		return err
	}
	head := make([]string, len(shown))
	for i, c := range shown {
		head[i] = l.Columns[c].Name
	}
	if !p.noTrunc {
		p.cut(l.Columns, shown, head, rows)
	}
	t := tablewriter.NewTable(p.out,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders:  tw.BorderNone,
			Settings: tw.Settings{Separators: tw.SeparatorsNone, Lines: tw.LinesNone},
		})),
		tablewriter.WithHeaderAlignment(tw.AlignLeft), tablewriter.WithRowAlignment(tw.AlignLeft),
		tablewriter.WithRowAutoWrap(tw.WrapNone), tablewriter.WithHeaderAutoFormat(tw.Off),
		tablewriter.WithPadding(tw.Padding{Right: "  "}))
	if !p.noHeaders {
		cells := make([]any, len(head))
		for i, h := range head {
			if p.color {
				h = "\x1b[1m" + h + "\x1b[0m"
			}
			cells[i] = h
		}
		t.Header(cells...)
	}
	for _, r := range rows {
		if err := t.Append(r); err != nil {
			return err
		}
	}
	return t.Render()
}

// OneLine makes text of others safe for terminals and for programs that read lines:
// characters that would move the cursor, end the line or the cell, or turn the
// direction of writing are written as in Go, such as \n and \x1b.
func OneLine(text string) string {
	if !strings.ContainsFunc(text, escaped) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if escaped(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func escaped(r rune) bool {
	return unicode.IsControl(r) || r == utf8.RuneError || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

// cut shortens the columns that may be cut until a row fits the terminal.
func (p *Printer) cut(cols []Column, shown []int, head []string, rows [][]string) {
	widths := make([]int, len(shown))
	total := 0
	for i := range shown {
		widths[i] = twwidth.Width(head[i])
		for _, r := range rows {
			widths[i] = max(widths[i], twwidth.Width(r[i]))
		}
		total += widths[i] + 2
	}
	for total > p.width {
		widest := -1
		for i, c := range shown {
			if cols[c].Cut && widths[i] > 8 && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
		total--
		for _, r := range rows {
			if twwidth.Width(r[widest]) > widths[widest] {
				r[widest] = twwidth.Truncate(r[widest], widths[widest]-1, "…")
			}
		}
	}
}

// Fields writes aligned "name: value" lines.
func Fields(w io.Writer, pairs ...[2]string) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, p := range pairs {
		fmt.Fprintf(tw, "%s:\t%s\n", OneLine(p[0]), OneLine(p[1]))
	}
	return tw.Flush()
}
