package tui

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"pgregory.net/rapid"

	"github.com/v6d-go/v6d/client"
)

// sizes of the screens that golden files have.
var sizes = [][2]int{{40, 10}, {80, 24}, {200, 50}}

// screen is a page to look at: a view, or what is opened from there.
type screen struct {
	name, view string
	open       func(*Model) page
	fill       func(f *fake, n int) // after fake.fill
}

func (sc *screen) kind() string {
	kind, _, _ := strings.Cut(sc.name, "_")
	return kind
}

// fake is a source with n of everything.
func (sc *screen) fake(n int) *fake {
	f := newFake().fill(n)
	if sc.fill != nil {
		sc.fill(f, n)
	}
	return f
}

// start opens a browser on the page.
func (sc *screen) start(t testing.TB, f *fake, o Options, width, height int) *harness {
	t.Helper()
	o.View = sc.view
	h := start(t, f, o, width, height)
	if sc.open != nil {
		h.do(h.m.push(sc.open(h.m)))
		h.settle()
	}
	return h
}

// screens are all pages.
var screens = []screen{
	{name: "cluster", view: "cluster"},
	{name: "objects", view: "objects"},
	{name: "names", view: "names"},
	{name: "streams", view: "streams"},
	{name: "clients", view: "clients"},
	{name: "types", view: "types"},
	{name: "memory", view: "memory"},
	{name: "events", view: "events"},
	{
		name: "object", view: "names", open: func(m *Model) page { return newObject(m, oid(0)) },
		fill: func(f *fake, n int) {
			if n > 1000 {
				owners := f.objects[oid(0)].Owners
				f.objects[oid(0)] = object(oid(0), "vineyard::DataFrame", 12, n, "name_0")
				f.objects[oid(0)].Owners = owners
			}
		},
	},
	{name: "value_table", view: "objects", open: func(m *Model) page { return newValue(m, oid(0), "sales") }},
	{
		name: "value_array", view: "objects", open: func(m *Model) page { return newValue(m, oid(0), "sales") },
		fill: func(f *fake, n int) { f.values[oid(0)] = arrayValue(n) },
	},
	{
		name: "value_text", view: "objects", open: func(m *Model) page { return newValue(m, oid(0), "sales") },
		fill: func(f *fake, n int) {
			f.values[oid(0)] = &Value{Kind: "value", About: "vineyard::Map", Text: textOf(n)}
		},
	},
	{name: "value_bytes", view: "objects", open: func(m *Model) page { return newValue(m, bid(1), "") }},
	{name: "text", view: "objects", open: func(m *Model) page { return newText(m, "describe", "describe", oid(0).String()) }},
}

// states are what the pages are shown with.
var states = []struct {
	name string
	make func(sc *screen) *fake
}{
	{"empty", func(sc *screen) *fake { return sc.fake(0) }},
	{"loading", func(sc *screen) *fake {
		f := sc.fake(0)
		f.hold(methods...)
		return f
	}},
	{"error", func(sc *screen) *fake {
		f := sc.fake(0)
		f.fail(errRefused, methods...)
		return f
	}},
	{"one", func(sc *screen) *fake { return sc.fake(1) }},
	{"many", func(sc *screen) *fake { return sc.fake(10_000) }},
	{"strange", func(*screen) *fake { return newFake().fillStrange() }},
}

// TestGolden draws every page in every state, and compares with testdata/golden;
// -update writes it.
func TestGolden(t *testing.T) {
	for _, sc := range screens {
		for _, st := range states {
			t.Run(sc.name+"_"+st.name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					f := st.make(&sc)
					h := sc.start(t, f, Options{}, 80, 24)
					h.wait(1500 * time.Millisecond) // what was loaded before events were told is loaded again by now
					if sc.name == "events" {
						switch st.name {
						case "one":
							f.change("created", []client.ID{oid(0)}, func() {})
						case "many":
							for i := range 10 {
								var ids []client.ID
								for k := range 1000 {
									ids = append(ids, oid(i*1000+k))
								}
								f.change("created", ids, func() {})
							}
						case "strange":
							f.strangeEvents()
						}
						h.wait(200 * time.Millisecond)
					}
					golden(t, h, sc.name+"_"+st.name)
				})
			})
		}
	}
}

// golden compares what is on screens of all sizes with a file.
func golden(t *testing.T, h *harness, name string) {
	t.Helper()
	var b strings.Builder
	for _, s := range sizes {
		h.send(tea.WindowSizeMsg{Width: s[0], Height: s[1]})
		h.m.View()
		if err := checkView(h.m); err != nil {
			t.Errorf("%dx%d: %v", s[0], s[1], err)
		}
		fmt.Fprintf(&b, "%dx%d\n", s[0], s[1])
		for line := range strings.SplitSeq(h.screen(), "\n") {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	compare(t, name, b.String())
}

func compare(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata/golden", name+".txt")
	if updating() {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			t.Fatalf("%s: line %d differs (-update writes it)\ngot:  %q\nwant: %q", path, i+1, strings.Join(g[min(i, len(g)):min(i+1, len(g))], ""), strings.Join(w[min(i, len(w)):min(i+1, len(w))], ""))
		}
	}
}

// TestGoldenHelp draws the help of every kind of page.
func TestGoldenHelp(t *testing.T) {
	for _, sc := range screens {
		if strings.HasPrefix(sc.name, "value_") && sc.name != "value_table" {
			continue
		}
		for _, readOnly := range []bool{false, true} {
			name := "help_" + sc.name
			if readOnly {
				name += "_readonly"
				if sc.name != "objects" {
					continue
				}
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					h := sc.start(t, sc.fake(2), Options{ReadOnly: readOnly}, 80, 24)
					h.wait(1500 * time.Millisecond)
					h.keys("?")
					golden(t, h, name)
				})
			})
		}
	}
}

// TestGoldenDialogs draws questions over pages.
func TestGoldenDialogs(t *testing.T) {
	dialogs := []struct {
		name string
		do   func(h *harness)
	}{
		{"delete", func(h *harness) { h.keys("x") }},
		{"delete_some", func(h *harness) { h.keys("space", "space", "x", "9", "9") }},
		{"delete_all", func(h *harness) { h.keys("*", "x", "1", "0") }},
		{"migrate", func(h *harness) { h.keys("m") }},
		{"label", func(h *harness) { h.keys("e"); h.typed("stage=raw") }},
		{"actions", func(h *harness) { h.keys("a", "j") }},
		{"columns", func(h *harness) { h.keys("o", "j", "space") }},
		{"actions_last", func(h *harness) { h.keys("a", "j", "j", "j", "j", "j", "j", "j", "j", "j") }},
		{"failed", func(h *harness) {
			h.src.fail(errRefused, "Run")
			h.keys("x", "y")
		}},
		{"far", func(h *harness) {
			h.src.far[oid(0)] = 5 << 30
			h.keys("v")
		}},
		{"filter", func(h *harness) { h.keys("/"); h.typed("name_0") }},
		{"filtered", func(h *harness) { h.keys("/"); h.typed("name_0"); h.keys("enter") }},
		{"bad_filter", func(h *harness) { h.keys("/"); h.typed("nam[e") }},
		{"command", func(h *harness) { h.keys(":"); h.typed("e") }},
		{"quit", func(h *harness) {
			h.src.hold("Run")
			h.keys("x", "y", "q")
		}},
		{"marked", func(h *harness) { h.keys("space", "space", "k", "k") }},
		{"lost", func(h *harness) {
			h.src.fail(errRefused, methods...)
			h.wait(3 * time.Second)
		}},
		{"not_current", func(h *harness) {
			h.src.fail(errBroken, "Objects")
			h.keys("r")
		}},
	}
	for _, fill := range []string{"few", "strange"} {
		for _, d := range dialogs {
			for _, theme := range []string{"dark", "plain"} {
				if theme == "plain" && d.name != "delete" && d.name != "filtered" {
					continue
				}
				name := "dialog_" + d.name + "_" + fill
				if theme == "plain" {
					name += "_plain"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						f := newFake()
						if fill == "few" {
							f.fill(30)
						} else {
							f.fillStrange()
						}
						h := start(t, f, Options{View: "objects", Theme: theme}, 80, 24)
						h.wait(1500 * time.Millisecond)
						d.do(h)
						golden(t, h, name)
					})
				})
			}
		}
	}
}

// TestTooSmall says so, on screens that nothing fits on.
func TestTooSmall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, newFake().fill(3), Options{}, 20, 5)
		h.shows("too small", "20x5")
		if err := checkView(h.m); err != nil {
			t.Error(err)
		}
		h.send(tea.WindowSizeMsg{Width: minWidth, Height: minHeight})
		h.shows("!too small", "objects")
	})
}

// TestStrangeTitles opens what strange names make into titles.
func TestStrangeTitles(t *testing.T) {
	t.Parallel()
	for _, view := range Views() {
		bubble(t, func(t *testing.T) {
			f := newFake().fillStrange()
			for i := range strange {
				f.objects[oid(i)], f.values[oid(i)] = object(oid(i), strange[i], 1, 1, strange[i]), f.values[oid(0)]
			}
			h := start(t, f, Options{View: view}, 70, 20)
			f.strangeEvents()
			h.wait(2 * time.Second)
			for range 7 {
				for _, key := range []string{"enter", "v", "d", "a", "x", "m", "u", "c", "Y", "F"} {
					h.keys(key)
					if err := checkView(h.m); err != nil {
						t.Fatalf("%s: %v\n%s", key, err, h.screen())
					}
					for n := 0; h.m.dialog != nil || len(h.m.stack) > 1; n++ {
						if h.keys("esc"); n > 10 {
							t.Fatalf("%s is not left\n%s", key, h.screen())
						}
					}
				}
				h.keys("j")
			}
		})
	}
}

// TestDialogsFit draws questions over wide characters on screens of many sizes.
func TestDialogsFit(t *testing.T) {
	t.Parallel()
	for _, keys := range [][]string{{"a"}, {"x"}, {"*", "x"}, {"e"}, {"a", "n"}} {
		bubble(t, func(t *testing.T) {
			h := start(t, newFake().fillStrange(), Options{View: "objects"}, 80, 24)
			h.keys(keys...)
			for width := minWidth; width < minWidth+10; width++ {
				for _, height := range []int{minHeight, 13, 14, 15, 24} {
					h.send(tea.WindowSizeMsg{Width: width, Height: height})
					if err := checkView(h.m); err != nil {
						t.Fatalf("%dx%d: %v\n%s", width, height, err, h.screen())
					}
					edges, screen := 0, h.screen()
					if !strings.Contains(screen, "leaves") {
						t.Errorf("%dx%d: how to leave is not said\n%s", width, height, screen)
					}
					for line := range strings.SplitSeq(screen, "\n") {
						for _, corner := range []string{"╭", "╰"} {
							if before, _, ok := strings.Cut(line, corner+"─"); ok && ansi.StringWidth(before) == (width-min(width-4, 76))/2 {
								edges++
							}
						}
					}
					if edges != 2 {
						t.Fatalf("%dx%d: the frame\n%s", width, height, screen)
					}
				}
			}
		})
	}
}

// TestMonkey presses random keys on screens of random sizes while the daemon
// changes, answers late, and fails: nothing panics, every view is well-formed, and
// nothing is run that was not asked about.
func TestMonkey(t *testing.T) {
	t.Parallel()
	var keys []string
	for i := range bindings {
		keys = append(keys, bindings[i].keys...)
	}
	keys = append(keys, "enter", "esc", "esc", "esc", "a", "v", "1", "0", "$", "[", "f", "o", "ctrl+k")
	type step struct{ What, A, B int }
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{rapid.IntRange(0, 12).Draw(t, "what"), rapid.IntRange(0, 250).Draw(t, "a"), rapid.IntRange(0, 250).Draw(t, "b")}
	}), 1, 60)
	rapid.Check(t, func(rt *rapid.T) {
		rows := rapid.SampledFrom([]int{-1, 0, 1, 3, 40}).Draw(rt, "rows")
		far := rapid.Bool().Draw(rt, "far")
		o := Options{View: rapid.SampledFrom(Views()).Draw(rt, "view"), Theme: rapid.SampledFrom(Themes()).Draw(rt, "theme"), ReadOnly: rapid.Bool().Draw(rt, "readonly")}
		todo := steps.Draw(rt, "steps")
		var err error
		bubble(t, func(t *testing.T) {
			f := newFake()
			if rows < 0 {
				f.fillStrange()
			} else {
				f.fill(rows)
			}
			if far {
				f.far[oid(0)] = 1 << 40
			}
			h := start(t, f, o, 80, 24)
			for i, s := range todo {
				switch s.What {
				case 0:
					h.send(tea.WindowSizeMsg{Width: s.A, Height: s.B})
				case 1:
					h.send(tea.MouseClickMsg{X: s.A % 100, Y: s.B % 30, Button: tea.MouseLeft})
				case 2:
					f.change("created", []client.ID{oid(s.A % 50)}, func() {
						if n := s.A % 50; n < len(f.rows) {
							f.rows = append(f.rows[:n:n], f.rows[n+1:]...)
						}
					})
					h.wait(300 * time.Millisecond)
				case 3:
					method := methods[s.A%len(methods)]
					switch {
					case f.holds[method] != nil:
						f.release(method)
					case f.errs[method] != nil:
						f.fail(nil, method)
					case s.B%2 == 0:
						f.hold(method)
					default:
						f.fail(errBroken, method)
					}
					h.settle()
				case 4:
					h.send(tea.MouseWheelMsg{Button: []tea.MouseButton{tea.MouseWheelUp, tea.MouseWheelDown}[s.A%2]})
				case 5:
					h.wait(5 * time.Second)
				case 6:
					h.send(tea.PasteMsg{Content: strange[s.A%len(strange)]})
				default:
					_, asks := h.m.dialog.(*confirm)
					before, key := len(f.ran), keys[s.A%len(keys)]
					h.keys(key)
					for _, args := range f.ran[before:] {
						changes := args[0] != "describe" && args[0] != "meta" && (args[0] != "stream" || args[1] != "info")
						if changes && (!asks || o.ReadOnly && args[0] != "get") {
							err = fmt.Errorf("step %d: %q ran %q", i, key, args)
							return
						}
					}
				}
				if err = checkView(h.m); err != nil {
					err = fmt.Errorf("step %d: %w\n%s", i, err, h.screen())
				}
				if err != nil || h.quit {
					return
				}
			}
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}
