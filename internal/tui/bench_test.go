package tui

import (
	"fmt"
	"slices"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/v6d-go/v6d/client"
)

// large is the objects page with so many rows, on a screen of 200x50.
func large(b testing.TB, n int) (*Model, *objectsPage) {
	f := newFake()
	f.fill(1)
	m := New(b.Context(), f, Options{Theme: "dark", View: "objects"})
	m.now = func() time.Time { return epoch }
	m.Update(tea.WindowSizeMsg{Width: 200, Height: 50})
	p := m.page().(*objectsPage)
	p.load(m)
	rows := make([]client.Row, n)
	for i := range rows {
		rows[i] = client.Row{
			ID: oid(2 * i), Type: "vineyard::Tensor<int32>", Instance: uint64(i % 3), TimeMS: epoch.UnixMilli() - int64(i), Bytes: int64(i*7919) % 1_000_000,
			Members: 1, Names: []string{fmt.Sprintf("name_%d", i*7919%n)}, Labels: map[string]string{"stage": "raw", "owner": fmt.Sprint(i % 100)},
		}
	}
	m.Update(answer{page: p.id, gen: p.gen, data: rows})
	if len(p.l.shown) != n {
		b.Fatalf("%d of %d are shown", len(p.l.shown), n)
	}
	m.View()
	return m, p
}

func BenchmarkView100k(b *testing.B) {
	m, _ := large(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		m.View()
	}
}

// BenchmarkKey100k is a key and what is drawn then.
func BenchmarkKey100k(b *testing.B) {
	m, _ := large(b, 100_000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Update(press([]string{"j", "pgdown", "k", "G", "j", "g"}[i%6]))
		m.View()
	}
}

// BenchmarkFilter100k types a filter, and takes it away: 9 keys.
func BenchmarkFilter100k(b *testing.B) {
	m, p := large(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		m.Update(press("/"))
		for _, r := range "name_77" {
			m.Update(tea.KeyPressMsg{Code: r, Text: string(r)})
			m.View()
		}
		if n := len(p.l.shown); n == 0 || n == len(p.l.items) {
			b.Fatalf("%d match", n)
		}
		m.Update(press("esc"))
	}
}

// BenchmarkFilterKey100k types the letter of a filter that costs most: the first.
func BenchmarkFilterKey100k(b *testing.B) {
	for _, filter := range []string{"z", "raw", "!name_1", "-f nm9", "name_.*9$"} {
		b.Run(filter, func(b *testing.B) {
			_, p := large(b, 100_000)
			b.ReportAllocs()
			for b.Loop() {
				p.setFilter("")
				p.setFilter(filter)
			}
		})
	}
}

// BenchmarkMerge100k brings 100 changed rows into the list.
func BenchmarkMerge100k(b *testing.B) {
	for _, by := range []string{"", "BYTES", "NAME", "LABELS"} {
		b.Run("by"+by, func(b *testing.B) {
			m, p := large(b, 100_000)
			if by != "" {
				p.l.setSort(slices.IndexFunc(p.l.columns, func(c column[client.Row]) bool { return c.title == by }))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				var c changed
				for k := range 100 {
					id := oid(k*1000 + i%2)
					c.ids = append(c.ids, id)
					c.rows = append(c.rows, client.Row{ID: id, Type: "vineyard::Tensor<int32>", Names: []string{"changed"}, Bytes: int64(i)})
				}
				m.Update(changesMsg{page: p.id, gen: p.gen, change: c})
				m.View()
				if len(p.l.shown) != len(p.all) || p.all[0].Names[0] != "changed" {
					b.Fatal("the changes were not taken")
				}
			}
		})
	}
}

// BenchmarkSort100k sorts by each column.
func BenchmarkSort100k(b *testing.B) {
	_, p := large(b, 100_000)
	for i := range p.l.columns {
		b.Run(p.l.columns[i].title, func(b *testing.B) {
			for b.Loop() {
				p.l.sortBy = -1
				p.l.setSort(i)
			}
		})
	}
}
