package output

import (
	"fmt"
	"io"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/pkg/twwidth"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// Box is a table of values that is drawn with its column types.
type Box struct {
	Names, Types []string
	Numeric      []bool // columns to align at the right
	Rows         [][]string
	Caption      string // a line below it
}

// Bounds of a cell, in columns of the terminal.
const (
	minCell = 5
	maxCell = 40
)

// WriteBox draws a box that is at most width wide, 0 for any: cells are cut to
// what is left, and columns in the middle are left out where nothing is.
func WriteBox(w io.Writer, b Box, width int) error {
	widths := make([]int, len(b.Names))
	for i := range b.Names {
		widths[i] = max(twwidth.Width(OneLine(b.Names[i])), twwidth.Width(b.Types[i]), 1)
		for _, r := range b.Rows {
			widths[i] = max(widths[i], twwidth.Width(r[i]))
		}
		widths[i] = min(widths[i], maxCell)
	}
	shown, hidden := fit(widths, width)
	t := tablewriter.NewTable(w,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{Symbols: tw.NewSymbols(tw.StyleLight)})),
		tablewriter.WithHeaderAutoFormat(tw.Off), tablewriter.WithRowAutoWrap(tw.WrapNone), tablewriter.WithHeaderAlignment(tw.AlignLeft),
		tablewriter.WithRowAlignmentConfig(tw.CellAlignment{PerColumn: alignments(b.Numeric, shown)}),
		tablewriter.WithTrimSpace(tw.Off))
	cell := func(i int, text string) string {
		if i < 0 {
			return "…"
		}
		return clip(OneLine(text), widths[i])
	}
	head := make([]any, len(shown))
	for k, i := range shown {
		if i < 0 {
			head[k] = "…\n "
			continue
		}
		head[k] = cell(i, b.Names[i]) + "\n" + cell(i, b.Types[i])
	}
	t.Header(head...)
	for _, r := range b.Rows {
		line := make([]string, len(shown))
		for k, i := range shown {
			if i < 0 {
				line[k] = "…"
				continue
			}
			line[k] = cell(i, r[i])
		}
		if err := t.Append(line); err != nil {
			return err
		}
	}
	if len(shown) > 0 {
		if err := t.Render(); err != nil {
			return err
		}
	}
	if hidden > 0 {
		b.Caption += fmt.Sprintf(" (%d shown)", len(b.Names)-hidden)
	}
	_, err := fmt.Fprintln(w, b.Caption)
	return err
}

// clip cuts a text to a width, with an ellipsis.
func clip(s string, width int) string {
	if twwidth.Width(s) <= width {
		return s
	}
	return twwidth.Truncate(s, width-1) + "…"
}

func alignments(numeric []bool, shown []int) tw.Alignment {
	var list tw.Alignment
	for _, i := range shown {
		a := tw.AlignLeft
		if i >= 0 && numeric[i] {
			a = tw.AlignRight
		}
		list = append(list, a)
	}
	return list
}

// fit returns the columns that are drawn, -1 for those left out, and makes
// widths narrower where they do not fit.
func fit(widths []int, width int) (shown []int, hidden int) {
	for i := range widths {
		shown = append(shown, i)
	}
	total := func() int {
		n := 1
		for _, i := range shown {
			if i < 0 {
				n += 4
			} else {
				n += widths[i] + 3
			}
		}
		return n
	}
	if width <= 0 || total() <= width {
		return shown, 0
	}
	for total() > width { // the widest first
		widest := 0
		for i, n := range widths {
			if n > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= minCell*2 {
			break
		}
		widths[widest]--
	}
	for total() > width {
		middle := (len(shown) - 1) / 2
		if hidden > 0 {
			middle = gap(shown)
			if right := len(shown) - 1 - middle; right > middle || middle == 0 {
				if right == 0 {
					break
				}
				shown = append(shown[:middle+1], shown[middle+2:]...)
			} else {
				shown = append(shown[:middle-1], shown[middle:]...)
			}
			hidden++
			continue
		}
		if len(shown) < 2 {
			widths[shown[0]] = max(1, width-4)
			break
		}
		shown[middle+1] = -1
		hidden++
	}
	return shown, hidden
}

func gap(shown []int) int {
	for k, i := range shown {
		if i < 0 {
			return k
		}
	}
	return -1
}
