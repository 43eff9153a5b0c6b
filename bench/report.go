package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// report collects rows, prints them as they come, and writes the document.
type report struct {
	When    string
	Machine string
	Load    string
	Version string
	Rounds  int
	Groups  []groupRows
	started time.Time
	took    time.Duration
}

type groupRows struct {
	Name, Doc string
	Rows      []row
}

// describe notes where and when a run takes place.
func (r *report) describe(b *bench) {
	r.started = time.Now()
	r.When = r.started.UTC().Format("2006-01-02 15:04 UTC")
	r.Rounds = b.rounds
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	r.Machine = fmt.Sprintf("%d cores, %s, Linux %s", runtime.NumCPU(), memTotal(), strings.TrimSpace(string(kernel)))
	r.Load = load()
	if out, err := exec.Command(b.v6d, "version", "-q").Output(); err == nil {
		r.Version = strings.TrimSpace(string(out))
	}
	fmt.Printf("%s; %s; load before %s; %d rounds a row\n", r.When, r.Machine, r.Load, r.Rounds)
}

func memTotal() string {
	b, _ := os.ReadFile("/proc/meminfo")
	var kb int64
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kb); err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%.0f GiB", float64(kb)/(1<<20))
}

func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(b))
	if len(fields) < 1 {
		return "unknown"
	}
	return fields[0]
}

func (r *report) begin(w io.Writer, g group) {
	r.Groups = append(r.Groups, groupRows{Name: g.name, Doc: g.doc})
	fmt.Fprintf(w, "\n### %s\n\n%s", g.doc, tableHead)
}

const tableHead = "| what | unit | side: best / median / p99 | ratio (rounds) | noise | mark |\n|---|---|---|---|---|---|\n"

func (r *report) add(w io.Writer, one row) {
	g := &r.Groups[len(r.Groups)-1]
	one.Group = g.Name
	g.Rows = append(g.Rows, one)
	fmt.Fprint(w, one.line())
}

// absent adds a row for what could not be measured, with the reason.
func (r *report) absent(w io.Writer, name, why string) {
	r.add(w, row{Name: name, Absent: why})
}

func (r *report) end(w io.Writer) {
	r.took = time.Since(r.started)
	fmt.Fprintf(w, "\n%d rows in %v; load after %s. Marks missed: %s\n", r.count(), r.took.Round(time.Second), load(), r.missed())
}

func (r *report) count() (n int) {
	for _, g := range r.Groups {
		n += len(g.Rows)
	}
	return n
}

func (r *report) missed() string {
	var names []string
	for _, g := range r.Groups {
		for _, one := range g.Rows {
			if met, has := one.met(); has && !met {
				names = append(names, one.Name)
			}
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, "; ")
}

// met reports whether a row has a mark, and reaches it.
func (r row) met() (met, has bool) {
	switch {
	case r.Limit == 0 || r.Absent != "":
		return false, false
	case r.Ratio != nil:
		return r.Ratio.Median >= r.Limit || r.Share != nil && r.Share.Median >= r.Enough, true
	}
	return r.Sides[0].Median <= r.Limit, true
}

func (r row) line() string {
	if r.Absent != "" {
		return fmt.Sprintf("| %s | | not measured: %s | | | |\n", r.Name, r.Absent)
	}
	var parts []string
	for _, s := range r.Sides {
		if s.Samples == 1 || s.Best == s.P99 {
			parts = append(parts, fmt.Sprintf("%s: %s", s.Name, digits(s.Median)))
			continue
		}
		parts = append(parts, fmt.Sprintf("%s: %s / %s / %s", s.Name, digits(s.Best), digits(s.Median), digits(s.P99)))
	}
	cell := func(s *spread) string {
		if s == nil {
			return ""
		}
		return fmt.Sprintf("%s x (%s-%s)", digits(s.Median), digits(s.Low), digits(s.High))
	}
	ratio := cell(r.Ratio)
	if r.Ratio != nil {
		ratio = "**" + strings.Replace(ratio, " x", " x**", 1)
	}
	judged := ""
	if met, has := r.met(); has {
		judged = digits(r.Limit) + " x"
		if r.Share != nil {
			judged += fmt.Sprintf(" or %.0f%% of bare sockets (%.0f%%)", 100*r.Enough, 100*r.Share.Median)
		}
		if r.Ratio == nil {
			judged = "at most " + digits(r.Limit)
		}
		if met {
			judged += ", met"
		} else {
			judged += ", **missed**"
		}
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s |\n", r.Name, r.Unit, strings.Join(parts, "; "), ratio, cell(r.Noise), judged)
}

// digits shows three of them.
func digits(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func (r *report) save(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

const (
	markBegin = "<!-- tables: written by make bench -->"
	markEnd   = "<!-- end of tables -->"
)

// write puts the tables into a document, between its marker lines.
func (r *report) write(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(b), markBegin)
	_, tail, ok2 := strings.Cut(rest, markEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the lines %q and %q", path, markBegin, markEnd)
	}
	var text strings.Builder
	text.WriteString(head)
	fmt.Fprintf(&text, "%s\nRun of %s, v6d %s, %s, load before it %s, %d rounds a row, %v. Marks missed: %s.\n",
		markBegin, r.When, r.Version, r.Machine, r.Load, r.Rounds, r.took.Round(time.Second), r.missed())
	for _, g := range r.Groups {
		fmt.Fprintf(&text, "\n### %s\n\n%s", g.Doc, tableHead)
		for _, one := range g.Rows {
			text.WriteString(one.line())
		}
	}
	text.WriteString(markEnd + tail)
	return os.WriteFile(path, []byte(text.String()), 0o644)
}

// compareRuns shows the rows that two saved runs have in common: their ratios
// to the same peers, since times of different runs say nothing.
func compareRuns(w io.Writer, oldPath, newPath string) error {
	var runs [2]report
	for i, path := range []string{oldPath, newPath} {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &runs[i]); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	old := map[string]row{}
	for _, g := range runs[0].Groups {
		for _, one := range g.Rows {
			old[one.Group+"\t"+one.Name] = one
		}
	}
	fmt.Fprintf(w, "old: %s, %s; new: %s, %s\n\n", runs[0].When, runs[0].Version, runs[1].When, runs[1].Version)
	fmt.Fprintln(w, "| what | old ratio | new ratio | change | beyond the rounds' spread |\n|---|---|---|---|---|")
	for _, g := range runs[1].Groups {
		for _, one := range g.Rows {
			was, ok := old[one.Group+"\t"+one.Name]
			if !ok || was.Ratio == nil || one.Ratio == nil {
				continue
			}
			verdict := "no"
			if one.Ratio.Low > was.Ratio.High {
				verdict = "better"
			} else if one.Ratio.High < was.Ratio.Low {
				verdict = "**worse**"
			}
			fmt.Fprintf(w, "| %s | %s x | %s x | %+.0f%% | %s |\n", one.Name, digits(was.Ratio.Median), digits(one.Ratio.Median),
				100*(one.Ratio.Median/was.Ratio.Median-1), verdict)
		}
	}
	return nil
}
