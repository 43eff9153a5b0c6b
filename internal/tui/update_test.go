package tui

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"pgregory.net/rapid"

	"github.com/v6d-go/v6d/client"
)

// in runs a test of a browser in a bubble.
func in(t *testing.T, f func(*fake), o Options, test func(h *harness)) {
	t.Helper()
	bubble(t, func(t *testing.T) {
		src := newFake()
		if f == nil {
			src.fill(30)
		} else {
			f(src)
		}
		if o.View == "" {
			o.View = "objects"
		}
		test(start(t, src, o, 100, 24))
	})
}

// with30 is a browser over 30 of everything.
func with30(t *testing.T, test func(h *harness)) {
	t.Helper()
	in(t, nil, Options{}, test)
}

func TestBindingsAreUnique(t *testing.T) {
	for _, sc := range screens {
		kind := sc.kind()
		seen := map[string]string{}
		for i := range bindings {
			if !bindings[i].has(kind) {
				continue
			}
			for _, key := range bindings[i].keys {
				if seen[key] != "" {
					t.Errorf("%s: %s means %s and %s", kind, key, seen[key], bindings[i].do)
				}
				seen[key] = bindings[i].do
			}
		}
	}
	for i := range bindings {
		for _, key := range bindings[i].keys {
			if got := press(key).String(); got != key {
				t.Errorf("%s: the program calls this key %q", key, got)
			}
		}
		for kind := range strings.FieldsSeq(bindings[i].on) {
			if !slices.ContainsFunc(screens, func(sc screen) bool { return sc.kind() == kind }) {
				t.Errorf("%s: there is no page %s", bindings[i].do, kind)
			}
		}
	}
}

// TestBindingsWork presses every key on every page that has it: something happens.
func TestBindingsWork(t *testing.T) {
	before := map[string][]string{ // keys that make something to do
		"up": {"G"}, "pageup": {"G"}, "halfup": {"G"}, "first": {"G"}, "previous": {"G"},
		"down": {"g"}, "pagedown": {"g"}, "halfdown": {"g"}, "last": {"g"}, "next": {"g"},
		"left": {"right"}, "reverse": {"s"},
	}
	for _, sc := range screens {
		kind := sc.kind()
		if sc.name == "value_array" || sc.name == "value_bytes" {
			continue // as value_table, but that nothing is to the right
		}
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			for i := range bindings {
				b := &bindings[i]
				if !b.has(kind) {
					continue
				}
				for _, key := range b.keys {
					bubble(t, func(t *testing.T) {
						f := sc.fake(30)
						long := strings.ReplaceAll(textOf(30), "text", strings.Repeat("long text ", 20))
						f.texts["describe"] = long
						if sc.name == "value_text" {
							f.values[oid(0)].Text = long
						}
						h := sc.start(t, f, Options{}, 60, 16)
						if kind == "events" {
							f.change("created", []client.ID{oid(0), oid(1), oid(2), oid(3)}, func() {})
							h.wait(time.Second)
						}
						keys := before[b.do]
						if kind == "object" && (b.do == "left" || b.do == "right") { // they fold
							for h.subject() != oid(1) {
								h.keys("j")
							}
							keys = map[string][]string{"left": nil, "right": {"left"}}[b.do]
						}
						h.keys(keys...)
						state := func() string { return fmt.Sprint(h.screen(), h.quit, h.copied, h.other, f.calls, h.m.lastID) }
						was := state()
						h.keys(key)
						if state() == was {
							t.Errorf("%s does nothing\n%s", key, h.screen())
						}
					})
				}
			}
		})
	}
}

// TestHelpIsComplete finds every key that works on a page in its help.
func TestHelpIsComplete(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, newFake(), Options{View: "objects"}, 120, 120)
		h.keys("?")
		for i := range bindings {
			if b := &bindings[i]; b.has("objects") {
				h.shows(b.label(), b.help)
			}
		}
		if got := Bindings(); len(got) != len(bindings) || got[0].Help != "open (cluster, objects, names, streams, types, memory, object, events)" {
			t.Errorf("for the manual: %+v", got[0])
		}
	})
}

// TestPlainTheme draws neither colours nor letters beyond ASCII.
func TestPlainTheme(t *testing.T) {
	t.Parallel()
	for _, sc := range screens {
		if sc.name == "value_table" {
			continue // towns
		}
		bubble(t, func(t *testing.T) {
			h := sc.start(t, sc.fake(3), Options{Theme: "plain"}, 80, 24)
			for _, keys := range [][]string{nil, {"x"}, {"esc", "a"}, {"esc", "/", "n"}} {
				h.keys(keys...)
				raw := h.m.View().Content
				if i := strings.IndexFunc(raw, func(r rune) bool { return r >= utf8.RuneSelf }); i >= 0 {
					t.Errorf("%s: %q", sc.name, raw[i:min(i+20, len(raw))])
				}
				if found := regexp.MustCompile(`\x1b\[[0-9;]*[34]\d[;m]`).FindString(raw); found != "" {
					t.Errorf("%s: a colour: %q", sc.name, found)
				}
			}
		})
	}
}

// TestThemeOfTerminal follows what the terminal says, and the user before it.
func TestThemeOfTerminal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := New(context.Background(), newFake(), Options{})
		theme := func() string { return m.theme.name }
		if theme() != "dark" {
			t.Error(theme())
		}
		m.Update(tea.BackgroundColorMsg{Color: ansi.IndexedColor(231)})
		if theme() != "light" {
			t.Errorf("on white: %s", theme())
		}
		m.Update(tea.ColorProfileMsg{Profile: 2}) // ASCII
		m.Update(tea.BackgroundColorMsg{Color: ansi.IndexedColor(231)})
		if theme() != "plain" {
			t.Errorf("without colours, on white: %s", theme())
		}
		m.Update(press("T"))
		if theme() != "dark" {
			t.Errorf("after T: %s", theme())
		}
		m.Update(tea.BackgroundColorMsg{Color: ansi.IndexedColor(231)})
		if theme() != "dark" {
			t.Errorf("chosen, but: %s", theme())
		}
	})
}

// TestCursorSticks checks against a model that what actions are about is what was
// selected, or nothing, whatever comes and goes.
func TestCursorSticks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := New(context.Background(), newFake(), Options{Theme: "dark", View: "objects"})
		m.now = func() time.Time { return epoch }
		m.Update(tea.WindowSizeMsg{Width: 120, Height: rapid.IntRange(minHeight, 30).Draw(t, "height")})
		p := m.page().(*objectsPage)
		p.load(m)
		p.tree = rapid.Bool().Draw(t, "tree")
		rows := map[client.ID]client.Row{}
		row := func(n int) client.Row {
			r := client.Row{ID: oid(n), Type: fmt.Sprintf("t%d", n%3), Bytes: int64(rapid.IntRange(0, 9).Draw(t, "bytes")), Owned: rapid.Bool().Draw(t, "owned")}
			if rapid.Bool().Draw(t, "named") {
				r.Names = []string{rapid.SampledFrom([]string{"a", "b", "ab", "c"}).Draw(t, "name")}
			}
			return r
		}
		all := func() []client.Row {
			list := make([]client.Row, 0, len(rows))
			for _, r := range rows {
				list = append(list, r)
			}
			slices.SortFunc(list, func(a, b client.Row) int { return cmp.Compare(a.ID, b.ID) })
			return list
		}
		load := func() { m.Update(answer{page: p.id, gen: p.gen, data: all()}) }
		id := rapid.IntRange(0, 40)
		for range rapid.IntRange(0, 20).Draw(t, "n") {
			r := row(id.Draw(t, "id"))
			rows[r.ID] = r
		}
		load()
		subject := func() client.ID {
			if list := p.subjects(); len(list) > 0 {
				return list[0].id
			}
			return 0
		}
		shown := func(id client.ID) bool {
			return slices.ContainsFunc(p.l.shown, func(i int32) bool { return p.all[i].ID == id })
		}
		want, none := subject(), len(p.l.shown) == 0 // none: nothing was there to select
		var left client.ID                           // what was selected when the filter was begun
		var leftNone bool
		check := func(what string) {
			t.Helper()
			if none && len(p.l.shown) > 0 { // the first one that comes
				want, none = p.all[p.l.shown[0]].ID, false
			}
			if want != 0 && !shown(want) {
				want = 0
			}
			if got := subject(); got != want {
				t.Fatalf("%s: the subject is %v, want %v", what, got, want)
			}
			var pointed []string
			for line := range strings.SplitSeq(ansi.Strip(m.View().Content), "\n") {
				if strings.HasPrefix(line, "▸") {
					pointed = append(pointed, line)
				}
			}
			if len(pointed) > 1 || (len(pointed) == 1) != (want != 0) || want != 0 && !strings.Contains(pointed[0], want.String()) {
				t.Fatalf("%s: the subject is %v, the screen points at %q", what, want, pointed)
			}
		}
		check("at first")
		merge := func(ids ...client.ID) {
			slices.Sort(ids)
			var c changed
			for _, id := range slices.Compact(ids) {
				c.ids = append(c.ids, id)
				if r, ok := rows[id]; ok {
					c.rows = append(c.rows, r)
				}
			}
			m.Update(changesMsg{page: p.id, gen: p.gen, change: c})
			if got := p.all; !slices.EqualFunc(got, all(), func(a, b client.Row) bool { return a.ID == b.ID && a.Bytes == b.Bytes }) {
				t.Fatalf("merged: %v, want %v", got, all())
			}
		}
		moved := func() {
			want, none = subject(), len(p.l.shown) == 0
			if want == 0 && !none {
				t.Fatal("it was moved to nothing")
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				r := row(id.Draw(t, "id"))
				rows[r.ID] = r
				merge(r.ID)
				check("change")
			},
			"delete": func(t *rapid.T) {
				r := oid(id.Draw(t, "id"))
				delete(rows, r)
				merge(r)
				check("delete")
			},
			"delete the selected": func(*rapid.T) {
				delete(rows, want)
				merge(want)
				check("delete the selected")
			},
			"many": func(t *rapid.T) {
				var ids []client.ID
				for range 10 {
					r := row(id.Draw(t, "id"))
					ids = append(ids, r.ID)
					if r.Bytes < 5 {
						delete(rows, r.ID)
					} else {
						rows[r.ID] = r
					}
				}
				merge(ids...)
				check("many")
			},
			"load": func(t *rapid.T) {
				delete(rows, oid(id.Draw(t, "id")))
				r := row(id.Draw(t, "id"))
				rows[r.ID] = r
				p.load(m)
				load()
				check("load")
			},
			"sort":    func(*rapid.T) { m.Update(press("s")); check("sort") },
			"reverse": func(*rapid.T) { m.Update(press("S")); check("reverse") },
			"resize": func(t *rapid.T) {
				m.Update(tea.WindowSizeMsg{Width: 120, Height: rapid.IntRange(minHeight, 30).Draw(t, "height")})
				check("resize")
				if err := checkView(m); err != nil {
					t.Fatal(err)
				}
			},
			"filter": func(t *rapid.T) {
				text := rapid.SampledFrom([]string{"", "", "a", "ab", "!a", "b", "t1", "a|c", "-f ab", "nothing", "["}).Draw(t, "filter")
				if !p.l.filter.on() {
					left, leftNone = want, none
				}
				wasNone := none
				p.setFilter(text)
				switch {
				case shown(want):
				case p.l.filter.on(): // the user has hidden it
					want, none = 0, true
				case wasNone: // nothing matched: what was selected before
					want, none = left, leftNone
				}
				check("filter")
			},
			"move": func(t *rapid.T) {
				m.Update(press(rapid.SampledFrom([]string{"j", "k", "g", "G", "pgdown", "pgup", "ctrl+d", "ctrl+u"}).Draw(t, "key")))
				moved()
				check("move")
			},
			"click": func(t *rapid.T) {
				m.View()
				y := rapid.IntRange(0, 30).Draw(t, "y")
				lines := strings.Split(ansi.Strip(m.View().Content), "\n")
				m.Update(tea.MouseClickMsg{X: 20, Y: y, Button: tea.MouseLeft})
				if y < len(lines) && strings.HasPrefix(strings.TrimSpace(strings.TrimPrefix(lines[y], "▸")), "o00") {
					moved()
					if !strings.Contains(lines[y], want.String()) {
						t.Fatalf("a click on %q selects %v", lines[y], want)
					}
				}
				check("click")
			},
		})
	})
}

// TestListOrder compares sorting and filtering with the plain ways to do it.
func TestListOrder(t *testing.T) {
	t.Parallel()
	type item struct {
		n    int64
		text string
	}
	rapid.Check(t, func(t *rapid.T) {
		l := list[item]{
			columns: []column[item]{
				{title: "N", right: true, text: func(i *item) string { return fmt.Sprint(i.n) }, rank: byNumber(func(i *item) int64 { return i.n })},
				{title: "TEXT", text: func(i *item) string { return i.text }},
			},
			key: func(i *item) string { return i.text }, sortBy: -1,
			search: func(b []byte, i *item) []byte { return join(b, i.text, fmt.Sprint(i.n)) },
		}
		text := rapid.OneOf(rapid.StringMatching(`[aAbB]{0,10}`), rapid.StringMatching(`prefix_(Ä|ä|K|日|x){0,3}`), rapid.String())
		items := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) item {
			return item{rapid.OneOf(rapid.Int64Range(-2, 2), rapid.Int64()).Draw(t, "n"), text.Draw(t, "text")}
		}), 0, 50).Draw(t, "items")
		l.set(items)
		by, desc := rapid.IntRange(-1, 1).Draw(t, "by"), rapid.Bool().Draw(t, "desc")
		l.sortBy, l.desc = by, desc
		l.arrange()
		word := rapid.SampledFrom([]string{"", "ab", "A", "ä", "!b", "-f ab", "^a+", "(?:a|Ä)b*$", "prefix_", `\d\S`, "[A-B]", "b a", "日x", "x)"}).Draw(t, "filter")
		for i := range word { // as it is typed
			l.setFilter(word[:i])
		}
		l.setFilter(word)

		want := slices.Clone(items)
		slices.SortStableFunc(want, func(a, b item) int {
			n := []int{0, cmp.Compare(a.n, b.n), strings.Compare(a.text, b.text)}[by+1]
			if desc {
				return -n
			}
			return n
		})
		want = slices.DeleteFunc(want, func(i item) bool { return !plainMatch(word, i.text+"\n"+fmt.Sprint(i.n)) })
		got := make([]item, 0, len(items))
		for _, i := range l.shown {
			got = append(got, items[i])
		}
		if !slices.Equal(got, want) {
			t.Fatalf("by %d, %v, /%s:\n got %+v\nwant %+v", by, desc, word, got, want)
		}
	})
}

// plainMatch is what filters mean.
func plainMatch(word, text string) bool {
	rest, not := strings.CutPrefix(word, "!")
	if rest == "" {
		return true
	}
	if letters, ok := strings.CutPrefix(rest, "-f "); ok {
		for at := range strings.SplitSeq(strings.ToLower(text), "\n") {
			all := true
			for _, r := range letters {
				i := strings.IndexRune(at, r)
				if all = all && i >= 0; all {
					at = at[i+utf8.RuneLen(r):]
				}
			}
			if all {
				return !not
			}
		}
		return not
	}
	if re, err := regexp.Compile("(?im)" + rest); err == nil && strings.ContainsAny(rest, `*+?[]()|^$\`) {
		return re.MatchString(text) != not
	}
	all := true
	for word := range strings.FieldsSeq(strings.ToLower(rest)) {
		all = all && strings.Contains(strings.ToLower(text), word)
	}
	return all != not
}

func TestFilters(t *testing.T) {
	t.Parallel()
	with30(t, func(h *harness) {
		n := func(filter string) int {
			h.keys("/")
			h.m.prompt.field.SetValue("")
			h.typed(filter)
			h.keys("enter")
			return len(h.m.page().(*objectsPage).l.shown)
		}
		for filter, want := range map[string]int{
			"name_2": 6, "NAME_2": 6, "!name_2": 24, "name_2$": 1, "^name_2": 6, "^2": 0, "name_(2|4)0?( |$)": 3, "-f dtfrm": 8, "name_[": 0, "dataframe i1": 3, "i1 frame": 3, "i1 frame zzz": 0,
			"i1": 10, "transient": 6, "stage=raw": 10, "n=27": 1, "  ": 30, "!": 30, "!zzz": 30, "zzz": 0, "c000a": 1,
		} {
			if got := n(filter); got != want {
				t.Errorf("/%s shows %d, want %d\n%s", filter, got, want, h.screen())
			}
		}
		n("name_[")
		h.shows("nothing matches name_[", "objects 0/30")
		if f := h.m.page().(*objectsPage).l.filter; !f.bad {
			t.Error("a wrong expression is not known as one")
		}
		h.keys("esc")
		h.shows("objects 30")

		// Esc while typing puts the filter back that was there.
		n("name_2")
		h.keys("/", "backspace", "backspace")
		h.shows("objects 15/30")
		h.keys("esc")
		h.shows("objects 6/30", "/name_2")

		// The list can be walked meanwhile.
		h.keys("/", "down", "down")
		if h.subject() != oid(22) {
			t.Errorf("walked to %v", h.subject())
		}
		h.keys("enter")
		if h.subject() != oid(22) {
			t.Errorf("entered on %v", h.subject())
		}
	})
}

// TestDeletedWhileSelected never lets an action hit what has taken the place of an
// object that went.
func TestDeletedWhileSelected(t *testing.T) {
	drop := func(h *harness, id client.ID) {
		h.src.change("deleted", []client.ID{id}, func() {
			h.src.rows = slices.DeleteFunc(h.src.rows, func(r client.Row) bool { return r.ID == id })
		})
		h.wait(300 * time.Millisecond)
	}
	t.Run("before the question", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.keys("j", "j", "j")
			drop(h, oid(3))
			h.shows("!"+oid(3).String(), "!▸")
			for _, key := range []string{"x", "m", "e", "a", "v", "d", "y", "c", "ctrl+s"} {
				h.keys(key)
				h.shows("nothing is selected")
				if h.m.dialog != nil || len(h.m.stack) != 1 || len(h.copied) > 0 {
					t.Fatalf("%s did something\n%s", key, h.screen())
				}
			}
			h.keys("j") // to what has taken its place, not past it
			if h.subject() != oid(4) {
				t.Errorf("then on %v", h.subject())
			}
		})
	})
	t.Run("while it is asked", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.keys("j", "j", "j", "x")
			drop(h, oid(3))
			h.shows("v6d rm " + oid(3).String())
			h.keys("y")
			if got := h.src.commands(); got != "rm "+oid(3).String()+"\n" {
				t.Error(got)
			}
		})
	})
	t.Run("while one is typed", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.keys("j", "m")
			drop(h, oid(1))
			h.typed("i2")
			h.keys("enter", "enter")
			if got := h.src.commands(); got != "migrate "+oid(1).String()+" --to i2\n" {
				t.Error(got)
			}
		})
	})
	t.Run("marked", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.keys("space", "space", "k", "k", "k")
			drop(h, oid(0))
			h.shows("objects 29, 1 marked")
			h.keys("x")
			h.shows("rm " + oid(1).String())
			h.keys("esc")
			// Another one of the same name, or id, is not marked.
			drop(h, oid(1))
			h.src.change("created", []client.ID{oid(1)}, func() { h.src.rows = append(h.src.rows, client.Row{ID: oid(1)}) })
			h.wait(300 * time.Millisecond)
			h.shows("!marked", oid(1).String())
		})
	})
	t.Run("a member of an object", func(t *testing.T) {
		fill := func(f *fake) {
			f.fill(30)
			f.objects[oid(0)] = object(oid(0), "vineyard::DataFrame", 2, 5)
		}
		in(t, fill, Options{}, func(h *harness) {
			h.keys("enter")
			for h.subject() != oid(3) {
				h.keys("j")
			}
			h.src.change("labelled", []client.ID{oid(0)}, func() { h.src.objects[oid(0)] = object(oid(0), "vineyard::DataFrame", 2, 2) })
			h.wait(2 * time.Second)
			h.shows("!__columns_-2", "__columns_-1")
			if id := h.subject(); id != 0 {
				t.Errorf("the subject is %v", id)
			}
			h.keys("x")
			h.shows("nothing is selected")
		})
	})
}

// TestStaleAnswers drops what nobody waits for any more.
func TestStaleAnswers(t *testing.T) {
	t.Run("an older generation", func(t *testing.T) {
		with30(t, func(h *harness) {
			p := h.m.page().(*objectsPage)
			old := answer{page: p.id, gen: p.gen, data: []client.Row{{ID: oid(99)}}}
			p.load(h.m)
			h.send(old)
			if len(p.all) != 30 {
				t.Errorf("%d objects", len(p.all))
			}
			old.err = errBroken
			h.send(old)
			h.shows("!broken")
		})
	})
	t.Run("a page that was left", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.src.hold("Object")
			h.keys("enter")
			h.shows("loading")
			st := h.m.page().state()
			h.keys("esc", "esc") // stop, back
			h.shows("objects 30")
			h.send(answer{page: st.id, gen: st.gen, data: object(oid(0), "late", 1, 1)})
			h.src.release("Object")
			h.wait(time.Second)
			h.shows("!late", "objects 30")
		})
	})
	t.Run("a view that was left", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.src.hold("Names")
			h.keys("3", "2")
			h.src.release("Names")
			h.wait(time.Second)
			h.shows("objects 30", "!name_00000")
		})
	})
	t.Run("a name that was looked for", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.src.hold("Names")
			h.keys(":")
			h.typed("name_00000")
			h.keys("enter", "6")
			h.src.release("Names")
			h.settle()
			h.shows("types 4", "!› name_0")
			h.keys(":")
			h.typed("name_00000")
			h.keys("enter")
			h.shows("types 4 › name_0")
		})
	})
	t.Run("a question of long ago about changes", func(t *testing.T) {
		with30(t, func(h *harness) {
			f := h.src
			f.hold("Rows")
			f.change("labelled", []client.ID{oid(5)}, func() {})
			h.wait(200 * time.Millisecond) // asked, the old row is under way
			f.change("deleted", []client.ID{oid(5)}, func() { f.rows = slices.Delete(f.rows, 5, 6) })
			h.wait(time.Second)
			if f.asked("Rows") != 1 {
				t.Errorf("asked %d times at once", f.asked("Rows"))
			}
			f.release("Rows")
			h.wait(time.Second)
			h.shows("objects 29", "!"+oid(5).String())

			// An answer that was asked for before everything was loaded again is not
			// taken: everything is loaded once more.
			p := h.m.page().(*objectsPage)
			gen := p.gen
			h.keys("r")
			loads := f.asked("Objects")
			h.m.looking++
			h.send(changesMsg{page: p.id, gen: gen, change: changed{ids: []client.ID{oid(5)}, rows: []client.Row{{ID: oid(5)}}}})
			h.shows("!" + oid(5).String())
			h.wait(2 * time.Second)
			if f.asked("Objects") == loads {
				t.Error("not loaded again")
			}
		})
	})
}

// TestEsc gives up one thing after the other.
func TestEsc(t *testing.T) {
	with30(t, func(h *harness) {
		h.keys("/")
		h.typed("name_")
		h.keys("enter", "space", "space")
		h.shows("objects 15/30, 2 marked")
		h.src.hold("Object")
		h.keys("enter")
		h.shows("loading")
		h.keys("esc")
		h.shows("stopped; r loads again")
		h.src.change("labelled", []client.ID{h.m.page().(*objectPage).object}, func() {})
		h.wait(10 * time.Second) // by itself it does not
		h.shows("stopped")
		if n := h.src.asked("Object"); n != 1 {
			t.Errorf("asked %d times", n)
		}
		h.src.fail(errBroken, "Object")
		h.src.release("Object")
		h.keys("r")
		h.shows("it is broken", "in two lines")
		h.keys("esc")
		h.shows("objects 15/30, 2 marked")
		h.keys("esc")
		h.shows("objects 30, 2 marked")
		h.keys("esc")
		h.shows("objects 30", "!marked")
		h.keys("esc")
		h.shows("q leaves")
		if h.quit {
			t.Error("it left")
		}
		h.keys("q")
		if !h.quit {
			t.Error("it did not leave")
		}
	})
}

// TestSlowSource never blocks: Update and View return while every question hangs.
func TestSlowSource(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake().fill(30)
		f.hold(methods...)
		h := start(t, f, Options{View: "objects"}, 80, 24)
		h.shows("connecting", "loading, esc stops")
		for i := range bindings {
			for _, key := range bindings[i].keys {
				if key == "q" || key == "ctrl+c" || key == "ctrl+z" {
					continue
				}
				h.keys(key) // a call that waited here would never end
				h.keys("esc", "esc")
			}
		}
		h.keys("3")
		h.shows("loading")
		if n := f.ended["Names"]; n != f.asked("Names")-1 {
			t.Errorf("%d questions of %d have ended", n, f.asked("Names"))
		}
		h.keys("esc")
		h.shows("stopped")
		if n := f.ended["Names"]; n != f.asked("Names") {
			t.Errorf("after esc %d questions of %d have ended", n, f.asked("Names"))
		}
		h.keys("2", "esc")
		f.release(methods...)
		h.settle()
		h.shows("stopped")
		h.keys("r")
		h.shows("objects 30")
	})
}

// TestPatience ends a question that is never answered.
func TestPatience(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake().fill(3)
		f.hold("Objects")
		h := start(t, f, Options{View: "objects"}, 80, 24)
		h.wait(patience + time.Second)
		h.shows("no answer within 30s", "r tries again")
		f.release("Objects")
		h.keys("r")
		h.shows("objects 3", "!NO ANSWER")

		// A daemon that hangs is known sooner.
		f.hold(methods...)
		h.wait(8 * time.Second)
		h.shows("objects 3", "NO ANSWER", "not live", "no answer within 5s")
		f.release(methods...)
		h.wait(3 * time.Second)
		h.shows("objects 3", "!NO ANSWER", "!not live", "answers again")
	})
}

func TestMarks(t *testing.T) {
	t.Run("some", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.keys("space", "j", "space", "x")
			h.shows("2 objects", "and 1 more", "type 2 and enter")
			h.keys("y", "enter")
			h.shows("type 2 and enter")
			h.keys("backspace", "2", "1", "enter", "backspace")
			if h.src.commands() != "" {
				t.Error(h.src.commands())
			}
			h.keys("enter")
			if got, want := h.src.commands(), fmt.Sprintf("rm %s\nrm %s\n", oid(0), oid(2)); got != want {
				t.Errorf("%q", got)
			}
			h.shows("objects 28", "!marked", "done: 2 commands, the last: v6d rm "+oid(2).String())
		})
	})
	t.Run("all that the filter shows", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.keys("/")
			h.typed("name_2")
			h.keys("enter", "*", "x", "6", "enter")
			if got := strings.Count(h.src.commands(), "rm "); got != 6 {
				t.Errorf("%d were deleted\n%s", got, h.screen())
			}
			h.keys("esc")
			h.shows("objects 24")
			h.keys("*")
			h.shows("24 marked")
			h.keys("*")
			h.shows("!marked")
		})
	})
	t.Run("until one fails", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.src.fail(errRefused, "Run")
			h.keys("space", "space", "space", "x", "3", "enter")
			h.shows("It did not work", "connection refused", "v6d rm "+oid(0).String())
			if got := h.src.commands(); strings.Count(got, "rm") != 1 {
				t.Error(got)
			}
			h.keys("q")
			h.shows("!It did not work")
			if h.quit {
				t.Error("any key goes on, but q left")
			}
			h.keys("@")
			h.shows("commands that were run", "failed: ", "v6d rm "+oid(2).String())
		})
	})
	t.Run("what works on one", func(t *testing.T) {
		in(t, nil, Options{View: "names"}, func(h *harness) {
			h.keys("space", "space", "u")
			h.shows("works on one object at a time")
			h.keys("a")
			h.shows("! u  drop", "delete", "label")
			h.keys("esc", "esc", "u")
			h.shows("v6d name rm name_00002")
		})
	})
}

func TestReadOnly(t *testing.T) {
	for _, view := range []string{"objects", "names", "streams"} {
		in(t, nil, Options{View: view, ReadOnly: true}, func(h *harness) {
			h.shows("read-only")
			for i := range bindings {
				if b := &bindings[i]; b.write && b.has(view) {
					h.keys(b.keys[0])
					h.shows("--readonly: nothing can be changed")
				}
			}
			h.keys("a")
			if view == "streams" {
				h.shows("nothing can be done")
				return
			}
			h.shows("save to a file", "!delete", "!migrate", "!drop", "!persist", "!label", "!name  ")
			for i := range actions {
				h.keys(actions[i].key) // s among them: a file is no change of the daemon
				if h.src.commands() != "" {
					t.Fatal(h.src.commands())
				}
			}
		})
		in(t, nil, Options{View: view, ReadOnly: true}, func(h *harness) {
			if view != "streams" {
				h.keys("ctrl+s")
				h.typed("file.bin")
				h.keys("enter", "enter")
				if got := h.src.commands(); got != "get "+oid(0).String()+" file.bin\n" {
					t.Error(got)
				}
			}
		})
	}
}

func TestFarPreview(t *testing.T) {
	far := func(n int64) func(*fake) {
		return func(f *fake) { f.fill(30); f.far[oid(0)] = n }
	}
	in(t, far(farLimit), Options{}, func(h *harness) {
		h.keys("v")
		h.shows("30 rows", "!Bring")
	})
	in(t, far(farLimit+1), Options{}, func(h *harness) {
		h.keys("v")
		h.shows("Bring the value here?", "1MiB of it lie on other instances")
		h.wait(10 * time.Second)
		if got := fmt.Sprint(h.src.limits); got != fmt.Sprintf("[%d]", farLimit) {
			t.Errorf("asked before the answer: %s", got)
		}
		h.keys("y")
		h.shows("30 rows", "!Bring")
		if got := fmt.Sprint(h.src.limits); got != fmt.Sprintf("[%d -1]", farLimit) {
			t.Error(got)
		}
		// Other objects change: that is no reason to bring it again.
		h.src.change("created", []client.ID{oid(77)}, func() {})
		h.wait(5 * time.Second)
		if n := len(h.src.limits); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
	in(t, far(1<<40), Options{}, func(h *harness) {
		h.keys("v", "esc")
		h.shows("objects 30", "!› value", "!Bring")
		if n := len(h.src.limits); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
	// The question waits for its page: it does not come over another one, nor in the
	// middle of another answer.
	in(t, far(1<<40), Options{}, func(h *harness) {
		h.src.hold("Value")
		h.keys("v", "?")
		h.src.release("Value")
		h.wait(3 * time.Second)
		h.shows("help: value", "!Bring")
		h.src.hold("Value")
		h.keys("esc", "/")
		h.src.release("Value")
		h.wait(3 * time.Second)
		h.shows("!Bring")
		h.typed("y")
		h.keys("enter")
		h.wait(3 * time.Second)
		h.shows("Bring the value here?")
		if slices.Contains(h.src.limits, -1) {
			t.Error("it was brought")
		}
	})
}

func TestConnection(t *testing.T) {
	t.Parallel()
	t.Run("none at first", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			f := newFake().fill(3)
			f.fail(errRefused, methods...)
			h := start(t, f, Options{View: "objects"}, 80, 24)
			h.wait(10 * time.Second)
			h.shows("NO ANSWER", "no daemon answers", "v6d serve", "not live")
			f.fail(nil, methods...)
			h.wait(3 * time.Second)
			h.shows("objects 3", "!NO ANSWER", "live", "!not live")
		})
	})
	t.Run("lost and back", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.keys("j", "j")
			h.src.fail(errRefused, methods...)
			h.src.told <- told{err: errRefused}
			h.wait(3 * time.Second)
			h.shows("NO ANSWER", "not live", "connection refused", oid(5).String())
			h.src.rows = h.src.rows[:10] // another daemon
			h.src.fail(nil, methods...)
			h.wait(3 * time.Second)
			h.shows("objects 10", "!NO ANSWER", "!not live", "the daemon answers again")
			if h.subject() != oid(2) {
				t.Errorf("the cursor is on %v", h.subject())
			}
			h.src.change("created", []client.ID{oid(50)}, func() { h.src.rows = append(h.src.rows, client.Row{ID: oid(50)}) })
			h.wait(time.Second)
			h.shows("objects 11")
		})
	})
	t.Run("all but the events are lost", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.src.fail(errRefused, "Overview", "Objects")
			h.keys("r")
			h.wait(3 * time.Second)
			h.shows("NO ANSWER", "not up to date: no daemon answers")
			h.src.fail(nil, "Overview", "Objects")
			h.wait(3 * time.Second)
			h.shows("!NO ANSWER", "!not up to date", "the daemon answers again")
		})
	})
	t.Run("only the events are lost", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.src.told <- told{err: errBroken}
			h.settle()
			h.shows("not live")
			h.src.rows = h.src.rows[:7] // not told
			h.wait(1500 * time.Millisecond)
			h.shows("objects 7", "!not live")
		})
	})
	t.Run("some events were forgotten", func(t *testing.T) {
		with30(t, func(h *harness) {
			h.src.rows = h.src.rows[:7]
			h.src.told <- told{lost: true}
			h.wait(2 * time.Second)
			h.shows("objects 7")
		})
	})
	t.Run("too many events to look at each", func(t *testing.T) {
		with30(t, func(h *harness) {
			var ids []client.ID
			for i := range mostLooked + 1 {
				ids = append(ids, oid(i))
			}
			h.src.change("deleted", ids, func() { h.src.rows = nil })
			h.wait(2 * time.Second)
			h.shows("objects 0")
			if h.src.asked("Rows") != 0 {
				t.Error("it looked at each")
			}
		})
	})
	t.Run("what happened before events were told", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			f := newFake().fill(3)
			f.hold("Watch")
			h := start(t, f, Options{View: "objects"}, 80, 24)
			h.shows("objects 3")
			f.rows = f.rows[:1] // after the list was made, before the watch
			f.release("Watch")
			h.wait(2 * time.Second)
			h.shows("objects 1")
		})
	})
	t.Run("a daemon without events", func(t *testing.T) {
		fill := func(f *fake) { f.fill(3); f.fail(client.NotImplemented, "Watch") }
		in(t, fill, Options{}, func(h *harness) {
			h.shows("every 3s")
			h.src.rows = h.src.rows[:1]
			h.wait(4 * time.Second)
			h.shows("objects 1")
			h.keys("8")
			h.shows("this daemon tells no events")
			if n := h.src.asked("Watch"); n != 1 {
				t.Errorf("watched %d times", n)
			}
			// After a command all pages are old.
			h.keys("3", "enter", "x", "y", "esc", "esc", "esc")
			h.shows("names 2", "!name_00000")
			// Another one that has events.
			h.src.fail(errRefused, methods...)
			h.wait(5 * time.Second)
			h.src.fail(nil, methods...)
			h.wait(3 * time.Second)
			h.shows("live", "!every 3s", "!not live")
		})
	})
	t.Run("a busy daemon", func(t *testing.T) {
		in(t, nil, Options{View: "names"}, func(h *harness) {
			before := h.src.asked("Names")
			for range 100 { // ten seconds
				h.src.change("named", []client.ID{oid(1)}, func() {})
				h.wait(100 * time.Millisecond)
			}
			if n := h.src.asked("Names") - before; n < 5 || n > 22 {
				t.Errorf("loaded %d times in ten seconds", n)
			}
		})
	})
}

// TestPast shows what the daemon remembers, before what it tells, and nothing twice.
func TestPast(t *testing.T) {
	fill := func(f *fake) {
		for i := range 6 {
			f.past = append(f.past, client.Event{Seq: uint64(i + 1), TimeMS: epoch.UnixMilli() + int64(i+1)*1500, Kind: "created", ID: oid(i), Type: "vineyard::Tensor<int32>"})
		}
		f.seq = 4 // 5 and 6 are told, too
	}
	ids := func(h *harness) (list []client.ID) {
		p := h.m.page().(*eventsPage)
		for _, e := range p.l.items {
			list = append(list, e.ID)
		}
		return list
	}
	want := []client.ID{oid(0), oid(1), oid(2), oid(3), oid(4), oid(5), oid(6)}
	in(t, fill, Options{View: "objects"}, func(h *harness) {
		h.src.change("created", []client.ID{oid(4), oid(5)}, func() {})
		h.wait(time.Second)
		h.keys("8")
		h.shows("events 6")
		h.src.change("created", []client.ID{oid(6)}, func() {})
		h.wait(time.Second)
		if got := ids(h); !slices.Equal(got, want) {
			t.Errorf("events of %v, want %v", got, want)
		}
		h.keys("2", "8", "r")
		if n := h.src.asked("Past"); n != 1 || len(ids(h)) != 7 {
			t.Errorf("asked %d times, %d events", n, len(ids(h)))
		}
	})
	// The connection breaks before they are asked for: some were collected then.
	in(t, fill, Options{View: "objects"}, func(h *harness) {
		h.src.change("created", []client.ID{oid(4)}, func() {})
		h.wait(time.Second)
		h.src.told <- told{err: errBroken}
		h.src.mu.Lock()
		h.src.seq = 6 // the sixth came meanwhile
		h.src.mu.Unlock()
		h.wait(3 * time.Second)
		h.src.change("created", []client.ID{oid(6)}, func() {})
		h.keys("8")
		h.wait(time.Second)
		if got := ids(h); !slices.Equal(got, want) {
			t.Errorf("after a break events of %v, want %v", got, want)
		}
	})
	// What happens meanwhile neither asks again nor undoes that it was stopped.
	in(t, fill, Options{View: "objects"}, func(h *harness) {
		h.src.hold("Past")
		h.keys("8")
		for i := range 20 {
			h.src.change("created", []client.ID{oid(i)}, func() {})
			h.wait(200 * time.Millisecond)
		}
		if n := h.src.asked("Past"); n != 1 {
			t.Errorf("asked %d times", n)
		}
		h.keys("esc")
		h.src.change("created", []client.ID{oid(1)}, func() {})
		h.wait(3 * time.Second)
		if n := h.src.asked("Past"); n != 1 {
			t.Errorf("stopped, then asked %d times", n)
		}
		h.src.release("Past")
		h.keys("r")
		h.shows("events 25")
	})
	in(t, func(f *fake) { fill(f); f.fail(errBroken, "Past") }, Options{View: "events"}, func(h *harness) {
		h.shows("r tries again")
		h.src.fail(nil, "Past")
		h.keys("r")
		h.shows("events 4")
	})
}

// TestEvents follows the newest until the user looks elsewhere.
func TestEvents(t *testing.T) {
	in(t, nil, Options{View: "events"}, func(h *harness) {
		tell := func(ids ...client.ID) {
			h.src.change("created", ids, func() {})
			h.wait(time.Second)
		}
		h.shows("nothing has happened yet")
		tell(oid(1), oid(2))
		tell(oid(3))
		if h.subject() != oid(3) {
			t.Errorf("follows to %v", h.subject())
		}
		h.keys("k")
		tell(oid(4))
		if h.subject() != oid(2) {
			t.Errorf("stays on %v", h.subject())
		}
		h.keys("w")
		if h.subject() != oid(4) {
			t.Errorf("follows again to %v", h.subject())
		}
		h.send(tea.MouseClickMsg{X: 5, Y: 3, Button: tea.MouseLeft})
		tell(oid(5))
		if h.subject() != oid(1) {
			t.Errorf("after a click on %v", h.subject())
		}
		// Another daemon numbers its events from 1 again.
		h.keys("G")
		h.src.seq = 0
		tell(oid(6), oid(7), oid(8), oid(9), oid(10), oid(11))
		if h.subject() != oid(5) {
			t.Errorf("the subject became %v", h.subject())
		}
		keys := map[string]bool{}
		p := h.m.page().(*eventsPage)
		for i := range p.l.items {
			keys[p.l.key(&p.l.items[i])] = true
		}
		if len(keys) != 11 {
			t.Errorf("%d keys of 11 events", len(keys))
		}
	})
}

func TestCommandPrompt(t *testing.T) {
	for typed, want := range map[string]string{
		"names": "names 30", "obj": "objects 30", "inst": "cluster 30", "sess": "clients 30", "du": "memory by type 30", "mem": "memory by type 30", "": "objects 30",
		"help": "help: objects", "log": "no action was taken yet", oid(0).String(): "objects 30 › name_0", bid(1).String(): "480 bytes",
		"name_00000": "objects 30 › name_0", "nobody": "there is no view, id or name nobody", " types ": "types 4", "o12": "there is no view, id or name o12",
	} {
		with30(t, func(h *harness) {
			h.keys(":")
			h.typed(typed)
			h.keys("enter")
			h.shows(want)
		})
	}
	with30(t, func(h *harness) {
		h.keys(":", "m")
		h.shows(":m", "memory")
		h.keys("tab", "enter")
		h.shows("memory by type 30")
		h.keys(":", "x", "esc")
		h.shows("memory by type 30", "!:x")
		h.src.hold("Run")
		h.keys("2", "x", "y", ":", "q", "enter")
		h.shows("Quit?")
		if h.quit {
			t.Error("it left a command at work")
		}
		h.keys("n", "q", "y")
		if !h.quit {
			t.Error("it did not leave")
		}
	})
}

func TestCopy(t *testing.T) {
	with30(t, func(h *harness) {
		h.keys("j", "c", "Y", "enter", "Y", "esc", "7", "F", "Y")
		want := []string{oid(1).String(), "v6d ls", "v6d describe " + oid(1).String(), "v6d du --by name"}
		if !slices.Equal(h.copied, want) {
			t.Errorf("copied %q", h.copied)
		}
		h.shows("copied: v6d du --by name")
	})
}

// TestCommandLine has a shell read what is shown.
// TestGoTo completes names, and goes from the view to what is named.
func TestGoTo(t *testing.T) {
	fill := func(f *fake) {
		f.names = []Name{{Name: "go\x1b[2J", ID: oid(1)}, {Name: "go\u200b", ID: oid(2)}, {Name: "good", ID: oid(3)}}
	}
	in(t, fill, Options{}, func(h *harness) { // no more of what others wrote than can be drawn
		h.keys(":")
		h.typed("go")
		h.shows("good", "!go\x1b", "!go\u200b")
		if err := checkView(h.m); err != nil {
			t.Error(err)
		}
	})
	with30(t, func(h *harness) {
		for _, text := range []string{"name_0000", oid(0).String()} {
			h.keys(":")
			h.typed(text)
			if text == "name_0000" {
				h.shows("name_00000 name_00001")
				h.keys("tab")
			}
			h.keys("enter")
			if len(h.m.stack) != 2 {
				t.Errorf(":%s leads to %d pages", text, len(h.m.stack))
			}
			h.shows("FIELDS AND MEMBERS")
		}
		h.send(tea.KeyPressMsg{Code: tea.KeyEscape, Mod: tea.ModAlt}) // twice at once
		if len(h.m.stack) != 1 {
			t.Error("esc does not lead back")
		}
	})
}

func TestCommandLine(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	shells := [][]string{{sh, "-c"}}
	if bash, err := exec.LookPath("bash"); err == nil {
		shells = append(shells, []string{bash, "-O", "extglob", "-c"})
	}
	read := func(args []string) {
		t.Helper()
		for _, s := range shells {
			script := "v6d() { printf '%s\\n' \"$@\"; }\n" + commandLine(args)
			cmd := exec.Command(s[0], append(slices.Clone(s[1:]), script)...)
			cmd.Dir = t.TempDir()
			out, err := cmd.CombinedOutput()
			if want := strings.Join(args, "\n") + "\n"; err != nil || string(out) != want {
				t.Errorf("%s is read as %q, want %q: %v", commandLine(args), out, want, err)
			}
		}
	}
	var every []string
	for c := ' '; c < 0x7f; c++ {
		every = append(every, string(c), "a"+string(c)+"b", string(c)+string(c))
	}
	read(append([]string{"name", "rm"}, every...))
	read([]string{"label", "", "a=b c", "$(id)", "`id`", "it's", "~/x", "{a,b}", "!!", "*", "東京 🎉", "-n", "--", "\\", "\\n", "a\u3000b"})
	if got := commandLine([]string{"rm", oid(1).String(), "x=y,z:/.@%+-_"}); got != "v6d rm "+oid(1).String()+" x=y,z:/.@%+-_" {
		t.Errorf("quoted for nothing: %s", got)
	}
	if got := commandLine([]string{"name", "rm", strange[3]}); strings.ContainsFunc(got, unsafe) {
		t.Errorf("%q", got)
	}
}

// TestActions runs the command of every action, as it was shown.
func TestActions(t *testing.T) {
	t.Parallel()
	for i := range actions {
		a := &actions[i]
		view := "objects"
		if a.fits != nil && a.fits(subject{id: oid(0), stream: true}) {
			view = "streams"
		}
		in(t, nil, Options{View: view}, func(h *harness) {
			h.keys("a")
			h.shows(" " + a.key + "  " + a.name)
			h.keys(a.key)
			if a.asks != "" {
				h.shows(a.asks + ":")
				h.keys("enter")
				h.shows("nothing was typed")
				if h.src.commands() != "" || h.m.dialog != nil {
					t.Errorf("%s without a word: %s", a.name, h.src.commands())
				}
				h.keys("a", a.key)
				h.typed("two words")
				h.keys("enter")
			}
			line := commandLine(a.args(h.m.page().subjects()[0], "two words"))
			h.shows("$ " + line)
			if a.danger {
				h.keys("enter") // is not enough
				if h.src.commands() != "" {
					t.Errorf("%s: enter did it", a.name)
				}
			}
			h.keys("y")
			if got := commandLine(strings.Fields(h.src.commands())); got != strings.ReplaceAll(line, "'", "") {
				t.Errorf("ran %s, shown was %s", got, line)
			}
			h.keys("@")
			h.shows(line)
		})
	}
	// A file that is there is replaced only when that was said.
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	in(t, nil, Options{}, func(h *harness) {
		h.keys("ctrl+s")
		h.typed(there)
		h.keys("enter")
		h.shows("there is there, 8B: it is replaced", "y does it")
		h.keys("enter") // is not enough
		if got := h.src.commands(); got != "" {
			t.Errorf("it ran %s", got)
		}
		h.keys("y")
		if got := h.src.commands(); got != "get "+oid(0).String()+" "+there+"\n" {
			t.Errorf("it ran %s", got)
		}
	})
	// The value of one label may have blanks.
	in(t, nil, Options{}, func(h *harness) {
		h.keys("e")
		h.typed("note=two words")
		h.keys("enter")
		h.shows("v6d label " + oid(0).String() + " 'note=two words'")
		h.keys("esc", "e")
		h.typed("a=1 b=2")
		h.keys("enter")
		h.shows("v6d label " + oid(0).String() + " a=1 b=2")
	})
	// What goes with a deletion is said, and wants the number.
	owner := "would delete " + oid(7).String() + " vineyard::Table, which refers to it"
	fill := func(f *fake) {
		f.fill(30)
		f.dry = "would delete " + oid(0).String() + "\n" + owner + "\n"
	}
	in(t, fill, Options{View: "objects"}, func(h *harness) {
		h.keys("a", "X")
		h.shows(owner, "!would delete "+oid(0).String(), "type 2 and enter")
		h.keys("y", "enter")
		if got := h.src.commands(); got != "" {
			t.Errorf("it ran %s", got)
		}
		h.keys("backspace", "2", "enter")
		if got := h.src.commands(); got != "rm --force "+oid(0).String()+"\n" {
			t.Errorf("it ran %s", got)
		}
	})
	in(t, func(f *fake) { fill(f); f.fail(errBroken, "Run") }, Options{View: "objects"}, func(h *harness) {
		h.keys("a", "X")
		h.shows("It did not work", "rm --force")
	})
	in(t, nil, Options{View: "streams"}, func(h *harness) {
		h.keys("v")
		h.shows("a stream has no value")
		h.keys("x")
		h.shows("v6d stream rm")
		h.keys("esc", "enter")
		h.shows("line 0:")
	})
	fill = func(f *fake) {
		f.rows = []client.Row{{ID: oid(1), Names: []string{"--all"}}}
	}
	in(t, fill, Options{}, func(h *harness) {
		h.keys("a", "u", "y")
		if got := h.src.commands(); got != "name rm -- --all\n" {
			t.Error(got)
		}
	})
}

// TestFailureWhileAsking does not take away what is asked.
func TestFailureWhileAsking(t *testing.T) {
	with30(t, func(h *harness) {
		h.src.hold("Run")
		h.src.fail(errRefused, "Run")
		h.keys("x", "y", "j", "x")
		h.src.release("Run")
		h.settle()
		h.shows("rm "+oid(1).String(), "failed: v6d rm "+oid(0).String(), "!It did not work")
	})
}

// TestLargeList shows the first objects before all have come.
func TestLargeList(t *testing.T) {
	fill := func(f *fake) { f.fill(1234) }
	in(t, fill, Options{}, func(h *harness) {
		h.shows("objects 1234")
		if n := h.src.asked("Objects"); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
	bubble(t, func(t *testing.T) {
		h := start(t, newFake().fill(1234), Options{View: "objects"}, 80, 24)
		h.src.hold("Objects")
		p := h.m.page().(*objectsPage)
		p.done = false
		p.load(h.m)
		h.send(answer{page: p.id, gen: p.gen, data: h.src.rows[:firstRows], partial: true})
		h.shows("objects 500", "▸")
		if !p.busy {
			t.Error("it does not wait for the others")
		}
	})
}

// TestValueOrder sorts numbers as numbers.
func TestValueOrder(t *testing.T) {
	with30(t, func(h *harness) {
		v := &Value{Kind: "table", Columns: []string{"n"}, Numeric: []bool{true}}
		for _, n := range []string{"9.5", "10", "-Inf", "NaN", "-3", "-20", "+Inf", "", "0", "1e400", "-0.5"} {
			v.Rows = append(v.Rows, []string{n})
		}
		h.src.values[oid(0)] = v
		h.keys("v", "s", "s", "S")
		p := h.m.page().(*valuePage)
		var got []string
		for _, i := range p.l.shown {
			got = append(got, p.l.items[i].cells[0])
		}
		if want := []string{"NaN", "", "-Inf", "-20", "-3", "-0.5", "0", "9.5", "10", "+Inf", "1e400"}; !slices.Equal(got, want) {
			t.Errorf("sorted: %q, want %q", got, want)
		}
	})
}

// TestValuePage keeps sorting and scrolling when the columns change.
func TestValuePage(t *testing.T) {
	with30(t, func(h *harness) {
		h.keys("v", "s", "s", "s", "s", "right", "right")
		h.shows("note", "!city")
		h.src.values[oid(0)] = arrayValue(5)
		h.keys("r", "s", "S", "s", "left", "left")
		h.shows("array 5", "+Inf", "mean 0.5", "▁")
		h.src.values[oid(0)] = &Value{Kind: "value", About: "empty"}
		h.keys("r", "s", "s", "right")
		h.shows("empty")
	})
}
