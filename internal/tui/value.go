package tui

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/v6d-go/v6d/client"
)

// valuePage is a preview: a table as a grid, an array with statistics, a value as
// text, bytes as hex.
type valuePage struct {
	*listPage[gridRow]
	object client.ID
	name   string
	limit  int64 // bytes that may come from other instances
	value  *Value
}

// gridRow is one line.
type gridRow struct {
	n     int
	cells []string
}

// farLimit is how much of a value may come from other instances without a
// question.
const farLimit = 1 << 20

func newValue(_ *Model, id client.ID, name string) page {
	p := &valuePage{object: id, name: name, limit: farLimit}
	p.listPage = newListPage("value", "it is empty", "head "+id.String(), nil,
		func(r *gridRow) string { return fmt.Sprint(r.n) }, func(b []byte, r *gridRow) []byte { return join(b, r.cells...) })
	p.about = func(*gridRow) (subject, bool) { return subject{id: id, name: name}, true }
	p.top = p.header
	return p
}

func (p *valuePage) crumb() string { return "value of " + cmp.Or(p.name, p.object.String()) }

func (p *valuePage) load(m *Model) tea.Cmd {
	limit := p.limit
	return m.ask(&p.loading, func(ctx context.Context, src Source) (any, error) { return src.Value(ctx, p.object, limit) })
}

func (p *valuePage) receive(m *Model, a answer) tea.Cmd {
	if far, ok := errors.AsType[*FarError](a.err); ok && a.gen == p.gen {
		p.busy = false
		if m.page() != page(p) || m.asks() { // later, when that is done
			p.stale = true
			return nil
		}
		m.confirm(confirm{
			title: "Bring the value here?", text: fmt.Sprintf("%s of it lie on other instances. They go into the cache of this daemon.", size(far.Bytes)),
			yes: func(m *Model) tea.Cmd {
				p.limit = -1
				return p.load(m)
			},
			no: func(m *Model) tea.Cmd { return m.pop() },
		})
		return nil
	}
	if !p.settle(a) {
		return nil
	}
	p.value, _ = a.data.(*Value)
	v := p.value
	p.l.columns = nil
	var items []gridRow
	switch {
	case v.Bytes != nil:
		p.l.columns = []column[gridRow]{{title: "OFFSET    BYTES", least: 20, text: func(r *gridRow) string { return r.cells[0] }}}
		for i := 0; i < len(v.Bytes); i += 16 {
			items = append(items, gridRow{i, []string{hexLine(i, v.Bytes[i:min(i+16, len(v.Bytes))])}})
		}
	case len(v.Columns) > 0:
		p.columns(v)
		for i, cells := range v.Rows {
			items = append(items, gridRow{i, cells})
		}
	default:
		p.l.columns = []column[gridRow]{{title: "VALUE", least: 20, text: func(r *gridRow) string { return r.cells[0] }}}
		for i, line := range strings.Split(strings.TrimRight(strings.ReplaceAll(v.Text, "\t", "    "), "\n"), "\n") {
			items = append(items, gridRow{i, []string{line}})
		}
	}
	p.l.set(items)
	return nil
}

// columns makes those of a grid: as wide as what is in them, within bounds.
func (p *valuePage) columns(v *Value) {
	const most = 40
	p.l.columns = append(p.l.columns, column[gridRow]{
		title: "#", width: len(fmt.Sprint(max(len(v.Rows)-1, 0))), right: true, text: func(r *gridRow) string { return fmt.Sprint(r.n) },
		rank: byNumber(func(r *gridRow) int { return r.n }),
	})
	for i, name := range v.Columns {
		title := name
		if i < len(v.Types) && v.Types[i] != "" {
			title += " " + v.Types[i]
		}
		title = clean(title)
		w := ansi.StringWidth(title)
		for _, r := range v.Rows[:min(len(v.Rows), 200)] {
			if i < len(r) {
				w = max(w, ansi.StringWidth(clean(r[i])))
			}
		}
		c := column[gridRow]{
			title: title, width: min(max(w, 1), most), right: i < len(v.Numeric) && v.Numeric[i],
			text: func(r *gridRow) string {
				if i < len(r.cells) {
					return r.cells[i]
				}
				return ""
			},
		}
		if c.right {
			c.rank = func(r *gridRow) uint64 { return numberIn(c.text(r)) }
		}
		p.l.columns = append(p.l.columns, c)
	}
}

// numberIn is the rank of a number that is a text; of no number, or NaN, the lowest.
func numberIn(text string) uint64 {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && f == 0 || math.IsNaN(f) {
		return 0
	}
	bits := math.Float64bits(f)
	if f < 0 {
		return ^bits
	}
	return bits | 1<<63
}

func hexLine(off int, b []byte) string {
	var hex, text strings.Builder
	for i := range 16 {
		if i == 8 {
			hex.WriteByte(' ')
		}
		if i >= len(b) {
			hex.WriteString("   ")
			continue
		}
		fmt.Fprintf(&hex, "%02x ", b[i])
		if b[i] >= ' ' && b[i] < 0x7f {
			text.WriteByte(b[i])
		} else {
			text.WriteByte('.')
		}
	}
	return fmt.Sprintf("%08x  %s |%s|", off, hex.String(), text.String())
}

// header says what the value is, with its statistics and a histogram.
func (p *valuePage) header(m *Model, width int) []string {
	v := p.value
	if v == nil {
		return nil
	}
	t := &m.theme
	lines := []string{"  " + t.crumb.Render(fit(clean(v.About), width-2, t.more))}
	if m.lay.height < 16 {
		return lines
	}
	if len(v.Stats) > 0 {
		lines = append(lines, "  "+fit(clean(strings.Join(v.Stats, "  ")), width-2, t.more))
	}
	if len(v.Bars) > 0 {
		lines = append(lines, "  "+fit(clean(v.From)+" "+t.spark(v.Bars)+" "+clean(v.To), width-2, t.more))
	}
	return lines
}

// spark draws a histogram in one line.
func (t *theme) spark(bars []int) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	if t.name == "plain" {
		levels = []rune(" .:-=+*#")
	}
	most := 1
	for _, n := range bars {
		most = max(most, n)
	}
	var b strings.Builder
	for _, n := range bars {
		i := n * (len(levels) - 1) / most
		if n > 0 && i == 0 {
			i = 1
		}
		b.WriteRune(levels[i])
	}
	return b.String()
}
