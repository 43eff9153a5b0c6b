package tui

import (
	"slices"
	"strings"
	"testing"
)

// header is the line of the columns' titles.
func header(h *harness) string {
	for line := range strings.Lines(h.screen()) {
		if strings.Contains(line, "ID ") || strings.Contains(line, "BYTES") {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return ""
}

// TestColumns hides, shows and moves columns; later pages of the view have them, too.
func TestColumns(t *testing.T) {
	with30(t, func(h *harness) {
		if got := header(h); got != "ID NAME TYPE BYTES WHERE STATE AGE MEMBERS" {
			t.Fatalf("the header is %q", got)
		}
		h.keys("s", "s", "s", "s") // by BYTES
		h.keys("o")
		h.shows("Columns of objects", "[x] NAME", "space shows or hides")
		h.keys("j", "space") // not NAME
		h.shows("[ ] NAME")
		h.keys("j", "space", "J", "J") // not TYPE
		h.keys("esc")
		h.shows("!Columns of")
		if got := header(h); got != "ID BYTES- WHERE STATE AGE MEMBERS LABELS" {
			t.Errorf("the header is %q", got)
		}
		h.keys("3", "2")
		if got := header(h); got != "ID BYTES WHERE STATE AGE MEMBERS LABELS" {
			t.Errorf("of another page of objects the header is %q", got)
		}
		// Hiding what it is sorted by leaves it unsorted; one column stays.
		h.keys("s", "s", "o")
		for range 12 {
			h.keys("space", "j")
		}
		h.keys("k", "k", "k", "k", "k", "k", "k", "k", "k", "k", "k", "k")
		for range 12 {
			h.keys("space", "j")
		}
		h.keys("esc", "s", "s", "s", "left", "right", "G", "k")
		if err := checkView(h.m); err != nil {
			t.Error(err)
		}
		if n := len(h.m.page().(tabular).shownColumns()); n == 0 {
			t.Error("no column is left")
		}
	})
}

// TestChosenColumns takes columns from the settings.
func TestChosenColumns(t *testing.T) {
	o := Options{Columns: map[string][]string{"objects": {"BYTES", "nothing", "ID"}, "names": {"nothing"}}}
	in(t, nil, o, func(h *harness) {
		if got := header(h); got != "BYTES ID" {
			t.Errorf("the header is %q", got)
		}
		h.keys("3")
		h.shows("NAME", "TYPE")
	})
	if wrong := o.Check(); len(wrong) != 2 || !strings.Contains(wrong[0], "names has no nothing") || !strings.Contains(wrong[1], "objects has no nothing") {
		t.Errorf("wrong: %q", wrong)
	}
}

// TestKeys gives other keys to what they mean.
func TestKeys(t *testing.T) {
	o := Options{
		Theme: "pink", View: "nowhere", Columns: map[string][]string{"value": {"x"}},
		Keys: map[string][]string{"describe": {"i"}, "delete": {"d"}, "down": {"n"}, "next": {"j"}, "open": {"q", "G", "enter"}, "fly": {"f"}, "view": {"0"}, "mark": {}, "tree": {"j", "Space", "ctrl+", "nosuch"}, "theme": {"ctrl+t", "f12", "é"}},
	}
	want := []string{
		"theme: pink", "view: nowhere", "columns: value is no view", "there is no fly", "there is no view", "q means quit already, not open", `mark gets none of [] and has ["space"]`,
		"j means next already, not tree", `"Space" is no key`, `"ctrl+" is no key`, `"nosuch" is no key`, `tree gets none of ["j" "Space" "ctrl+" "nosuch"] and has ["t"]`,
	}
	wrong := o.Check()
	if len(wrong) != len(want) {
		t.Errorf("wrong: %q", wrong)
	}
	for _, w := range want {
		if !slices.ContainsFunc(wrong, func(s string) bool { return strings.Contains(s, w) }) {
			t.Errorf("%q is not said of %q", w, wrong)
		}
	}
	o.Notes = wrong
	in(t, nil, o, func(h *harness) {
		h.shows("theme: pink is none of")
		first := h.subject()
		h.keys("n")
		if h.subject() == first {
			t.Error("n is not down")
		}
		h.keys("space", "up", "up") // as they were
		if len(h.m.page().(*objectsPage).l.marks) != 1 {
			t.Error("space does not mark")
		}
		h.keys("esc")
		h.keys("d")
		h.shows("Delete?")
		h.keys("esc", "G") // opens
		h.shows("FIELDS AND MEMBERS")
		h.keys("?")
		h.shows("d               delete", "i               describe", "q               quit")
		if b := h.m.bound("objects", "end"); b == nil || b.do != "last" {
			t.Errorf("end means %+v", b)
		}
	})
	// What is printed as the default changes nothing.
	o = Options{Columns: Columns(), Keys: Keys()}
	if wrong := o.Check(); len(wrong) > 0 {
		t.Errorf("of the default: %q", wrong)
	}
	list, _ := bind(o.Keys)
	for i := range list {
		if !slices.Equal(list[i].keys, bindings[i].keys) {
			t.Errorf("%s has the keys %q, by default %q", list[i].do, list[i].keys, bindings[i].keys)
		}
	}
}
