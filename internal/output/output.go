// Package output prints what commands found: tables for people, JSON, YAML and
// CSV for programs, ids for pipes. Results are values; a command builds a List
// or an item and a Printer writes it in the form that the user asked for.
//
// The JSON form is a contract: an object with apiVersion, and either item or
// items (docs/json-output.md). Sizes are integers of bytes, times RFC 3339, ids
// text. Tables may change; on a terminal they show sizes and ages for people,
// in a pipe they are tab-separated, without headings, and exact.
package output

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/term"

	"github.com/v6d-go/v6d/internal/config"
)

// APIVersion names the version of the JSON forms.
const APIVersion = "v6d/v1"

// Streams are the standard streams of a command, and what is known of them.
// Tests hand in buffers.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// System returns the process's own streams.
func System() Streams { return Streams{os.Stdin, os.Stdout, os.Stderr} }

// IsTerminal reports whether a stream is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Width returns the width of a terminal in columns: $COLUMNS, what the terminal
// says, or 80. It is 0 for what is no terminal: nothing is cut there.
func Width(stream any) int {
	if !IsTerminal(stream) {
		return 0
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if w, _, err := term.GetSize(int(stream.(*os.File).Fd())); err == nil && w > 0 {
		return w
	}
	return 80
}

// UseColor decides by the --color flag, the usual variables and the stream.
func UseColor(flag string, stream any) bool {
	switch flag {
	case "always":
		return true
	case "never":
		return false
	}
	if os.Getenv("NO_COLOR") != "" || os.Getenv("CLICOLOR") == "0" || os.Getenv("TERM") == "dumb" {
		return false
	}
	if f := os.Getenv("CLICOLOR_FORCE"); f != "" && f != "0" {
		return true
	}
	return IsTerminal(stream)
}

// Cell is one value of a table: as people read it, and exactly.
type Cell struct{ Human, Exact string }

// Text is a cell that is the same for people and programs.
func Text(s string) Cell { return Cell{s, s} }

// Size is a number of bytes; negative means unknown.
func Size(n int64) Cell {
	if n < 0 {
		return Cell{"?", ""}
	}
	return Cell{config.FormatSize(n), strconv.FormatInt(n, 10)}
}

// Count is a number.
func Count(n int64) Cell { return Text(strconv.FormatInt(n, 10)) }

// Age is a point of time, shown as how long ago it was.
func Age(t time.Time) Cell {
	d := time.Since(t)
	var s string
	switch {
	case d < time.Minute:
		s = strconv.Itoa(max(0, int(d.Seconds()))) + "s"
	case d < time.Hour:
		s = strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		s = strconv.Itoa(int(d.Hours())) + "h"
	default:
		s = strconv.Itoa(int(d.Hours()/24)) + "d"
	}
	return Cell{s, t.UTC().Format(time.RFC3339)}
}

// Column is one column of a table.
type Column struct {
	Name string
	Wide bool // shown by -o wide, csv and tsv only
	Cut  bool // may be cut to fit the terminal
}

// Columns makes plain columns.
func Columns(names ...string) []Column {
	cols := make([]Column, len(names))
	for i, n := range names {
		cols[i] = Column{Name: n}
	}
	return cols
}

// List is a result of many items. Rows, IDs and Items have the same order; IDs
// are what -q prints.
type List struct {
	Columns []Column
	Rows    [][]Cell
	IDs     []string
	Items   any // a slice
}

// generic turns a result into plain maps, slices and values, numbers exact.
func generic(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var out any
	err = dec.Decode(&out)
	return out, err
}
