package replay

import (
	"slices"
	"strings"
	"testing"
)

// TestExcluded checks the list of what is not replayed.
func TestExcluded(t *testing.T) {
	files, err := Recordings()
	if err != nil {
		t.Fatal(err)
	}
	excluded, err := Excluded()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range excluded {
		// The one file beside the recordings that holds no traffic.
		if !slices.Contains(files, e.File) && e.File != "etcd_dump" {
			t.Errorf("excluded.json: no recording %q", e.File)
		}
		if e.Issue == "" || e.Reason == "" {
			t.Errorf("excluded.json: %s has no issue or no reason", e.File)
		}
	}
}

// TestDeviations checks that each deviation stands in the place of an answer,
// rests on a recommendation and is one.
func TestDeviations(t *testing.T) {
	deviations, err := Deviations()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, d := range deviations {
		lines, err := load(d.File)
		if err != nil {
			t.Error(err)
			continue
		}
		if d.Line < 1 || d.Line > len(lines) {
			t.Errorf("deviations.json: %s.jsonl has no line %d", d.File, d.Line)
			continue
		}
		l := lines[d.Line-1]
		if seen[l.at()] {
			t.Errorf("%s: two deviations", l.at())
		}
		seen[l.at()] = true
		if !strings.Contains(d.Reason, "[R]") {
			t.Errorf("%s: the deviation quotes no recommendation: %q", l.at(), d.Reason)
		}
		if !l.reply() {
			if l.Ev != "eof" && !strings.HasPrefix(l.Ev, "timeout (") {
				t.Errorf("%s: expected a reply, an eof or a timeout, got %q", l.at(), l.Ev)
			}
			continue
		}
		x := &exchange{names: newNames(), root: rootOf(l)}
		if len(compare(x, reply{l.JSON, l.NFDs}, reply{d.Answer, l.NFDs})) == 0 {
			t.Errorf("%s: the deviation's answer is the recorded one", l.at())
		}
	}
}

// TestSetup checks that what setup.json says of a recording fits it.
func TestSetup(t *testing.T) {
	var table map[string]setup
	if err := loadTable("setup.json", &table); err != nil {
		t.Fatal(err)
	}
	for file, s := range table {
		if file == "default" {
			continue
		}
		lines, err := load(file)
		if err != nil {
			t.Error(err)
		}
		for _, h := range s.Hangups {
			before := slices.ContainsFunc(lines[:h.After], func(l *line) bool { return l.Conn == h.Conn })
			after := slices.ContainsFunc(lines[h.After:], func(l *line) bool { return l.Conn == h.Conn })
			if !before || after {
				t.Errorf("setup.json: %s: %s is not used up at line %d", file, h.Conn, h.After)
			}
		}
	}
}
