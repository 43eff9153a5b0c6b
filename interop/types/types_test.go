//go:build linux

// Package types_test is the type matrix: values of every type are written by the
// command line, by package typed, by the published Python client, and restored
// from what the reference wrote (typed/testdata/objects); each is read by the
// first three and compared with what was meant, in a form that all have in common
// (canon_test.go). The cases are in cases_test.go and the files named after it,
// Python's part is matrix.py, what cannot work is in holes.txt.
//
// It needs interop/venv.sh to have run, and is skipped otherwise. V6D_BIN names the
// binary to test; otherwise one is built.
package types_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
	"github.com/v6d-go/v6d/typed"
)

// testCase is a value, and how each writer makes it. A writer that makes none is
// in without, with the reason; recordings are there or not.
type testCase struct {
	name    string
	section string // of the object model
	want    string // the canonical value
	kind    string // the canonical type, or several with | between; empty: it is not compared

	python   string                // an expression: a value, or the id of an object
	golang   func(w *world) any    // a value for typed.Put, or a client.ID
	cli      func(w *world) string // makes it with the command line, and returns its id
	recorded string                // a file of typed/testdata/objects

	without map[string]string // by writer: why it makes none

	view   string // the format of text that the command line is asked for; json unless given
	noJSON string // why it is not compared as JSON
	noCSV  string // why the table is not compared as CSV
	noFile string // why it is not compared as an Arrow or npy file
}

var (
	writers = []string{"cli", "go", "py", "rec"}
	readers = []string{"cli", "go", "py"}
)

// world is what the writers and readers use.
type world struct {
	ctx    context.Context //nolint:containedctx // lives for one test
	dir    string
	v6d    string
	socket string
	c      *client.Client
	py     *python

	mu    sync.Mutex
	files int // guarded by mu
}

func TestTypes(t *testing.T) {
	w := start(t)
	holes := readHoles(t)
	cases := allCases()
	checkCases(t, cases)
	began := time.Now()

	results := make([]map[string]error, len(cases)) // by "writer>reader"
	made := make([]map[string]client.ID, len(cases))
	work := make(chan int)
	var wait sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for i := range work {
				results[i], made[i] = w.row(&cases[i])
			}
		})
	}
	for i := range cases {
		work <- i
	}
	close(work)
	wait.Wait()
	if err := w.py.failed(); err != nil {
		t.Fatal(err)
	}

	report(t, cases, results, holes)
	t.Logf("%d cases took %v", len(cases), time.Since(began).Round(100*time.Millisecond))
	checkTypes(t, w, made)
	checkMapped(t, w, cases, made)
}

// row writes a case in every way, and reads each in every way.
func (w *world) row(tc *testCase) (results map[string]error, made map[string]client.ID) {
	results, made = map[string]error{}, map[string]client.ID{}
	for _, writer := range writers {
		if !tc.has(writer) {
			continue
		}
		id, err := w.write(tc, writer)
		if err == nil {
			made[writer] = id
		}
		for _, reader := range readers {
			cell := writer + ">" + reader
			if err != nil {
				results[cell] = fmt.Errorf("it is not written: %w", err)
				continue
			}
			results[cell] = w.read(tc, reader, id)
		}
	}
	return results, made
}

func (tc *testCase) has(writer string) bool {
	return map[string]bool{"cli": tc.cli != nil, "go": tc.golang != nil, "py": tc.python != "", "rec": tc.recorded != ""}[writer]
}

// write makes the object of a case.
func (w *world) write(tc *testCase, writer string) (id client.ID, err error) {
	defer func() {
		if r := recover(); r != nil { // must
			err = fmt.Errorf("%v", r)
		}
	}()
	switch writer {
	case "cli":
		return client.ParseID(tc.cli(w))
	case "go":
		v := tc.golang(w)
		if id, ok := v.(client.ID); ok {
			return id, nil
		}
		return typed.Put(w.ctx, w.c, v)
	case "py":
		a, err := w.py.ask(command{Op: "put", Expr: tc.python})
		if err != nil {
			return 0, err
		}
		return client.ParseID(a.ID)
	}
	return w.restore(tc.recorded), nil
}

// must is for the writers of cases: write returns the error.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// view is what a reader made of an object: the text of the canonical value, and
// the type, empty if it does not tell.
type view struct {
	how   string
	value []byte
	kind  string
}

// read reads an object and compares it with what was meant.
func (w *world) read(tc *testCase, reader string, id client.ID) error {
	switch reader {
	case "go":
		o, err := typed.Get(w.ctx, w.c, id)
		if err != nil {
			return err
		}
		v, kind, err := canonical(o.Value)
		kind += place(o.Value)
		if err = errors.Join(err, o.Release(w.ctx)); err != nil {
			return err
		}
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return tc.compare(view{"typed.Get", b, kind})
	case "py":
		a, err := w.py.ask(command{Op: "get", ID: id.String()})
		if err != nil {
			return err
		}
		return tc.compare(view{"client.get", a.Value, a.Type})
	}
	return w.readCLI(tc, id)
}

func (tc *testCase) compare(v view) error {
	got, err := normal(v.value)
	if err != nil {
		return fmt.Errorf("%s: %w", v.how, err)
	}
	want, err := normal([]byte(tc.want))
	if err != nil {
		return fmt.Errorf("want: %w", err)
	}
	if got != want {
		return fmt.Errorf("%s: got %s\n\twant %s", v.how, short(got, want), short(want, got))
	}
	if v.kind != "" && tc.kind != "" && !slices.Contains(strings.Split(tc.kind, " | "), v.kind) {
		return fmt.Errorf("%s: got the type %s\n\twant %s", v.how, short(v.kind, tc.kind), short(tc.kind, v.kind))
	}
	return nil
}

// short cuts text around the first difference to another.
func short(s, other string) string {
	const most = 240
	at := 0
	for at < min(len(s), len(other)) && s[at] == other[at] {
		at++
	}
	from := max(0, min(at-most/2, len(s)-most))
	out := s[from:min(len(s), from+most)]
	if from > 0 {
		out = "…" + out
	}
	if from+most < len(s) {
		out += "…"
	}
	return out
}

// The kinds of values that the command line is asked for as files, too.
var (
	tableKind = regexp.MustCompile(`^(table|batch|frame)\b`)
	npyKind   = regexp.MustCompile(`^(bool|u?int\d+|float\d+|complex\d+|datetime64\[\w+\]|timedelta64\[\w+\])\[[\d,]*\]( F)?$`)
)

// readCLI reads an object with the command line: as JSON, as a file that Python
// reads back, and as CSV where that has the same values.
func (w *world) readCLI(tc *testCase, id client.ID) error {
	if tc.noJSON == "" {
		format := "json"
		if tc.view != "" {
			format = tc.view
		}
		out, err := w.command("get", id.String(), "--format", format)
		if err != nil {
			return err
		}
		if out, err = tc.fromCLI(out, format); err != nil {
			return err
		}
		if err := tc.compare(view{"get --format " + format, out, ""}); err != nil {
			return err
		}
	}
	isTable := tableKind.MatchString(tc.kind)
	if tc.noFile == "" && (isTable || npyKind.MatchString(tc.kind)) {
		path := w.file(map[bool]string{true: "x.arrow", false: "x.npy"}[isTable])
		if _, err := w.command("get", id.String(), path); err != nil {
			return err
		}
		a, err := w.py.ask(command{Op: "read", Path: path, Frame: strings.HasPrefix(tc.kind, "frame")})
		if err != nil {
			return fmt.Errorf("read %s in Python: %w", filepath.Base(path), err)
		}
		if rest, ok := strings.CutPrefix(a.Type, "table"); ok && strings.HasPrefix(tc.kind, "batch") {
			a.Type = "batch" + rest
		}
		if strings.HasSuffix(tc.kind, " F") && !strings.HasSuffix(a.Type, " F") {
			a.Type += " F" // files are written in C's order
		}
		if err := tc.compare(view{"get " + filepath.Ext(path), a.Value, a.Type}); err != nil {
			return err
		}
	}
	if isTable && tc.noCSV == "" {
		out, err := w.command("get", id.String(), "--format", "csv")
		if err != nil {
			return err
		}
		if err := tc.compareCSV(out); err != nil {
			return fmt.Errorf("get --format csv: %w", err)
		}
	}
	return nil
}

// fromCLI makes the canonical form of what `get --format json` and ndjson write
// otherwise: complex numbers, sequences with names, series with an index.
func (tc *testCase) fromCLI(out []byte, format string) ([]byte, error) {
	switch {
	case format == "ndjson":
		list := bytes.Join(bytes.Split(bytes.TrimSpace(out), []byte("\n")), []byte(","))
		v, err := parse(append(append([]byte("["), list...), ']'))
		if err != nil {
			return nil, err
		}
		index, values := []any{}, []any{}
		for _, row := range v.([]any) {
			o := row.(object)
			if len(o) != 2 {
				return nil, fmt.Errorf("a row has %d columns, not an index and values: %s", len(o), out)
			}
			index, values = append(index, o[0].value), append(values, o[1].value)
		}
		return json.Marshal(object{{"index", index}, {"values", values}})
	case strings.Contains(tc.kind, "complex"):
		v, err := parse(out)
		if err != nil {
			return nil, err
		}
		var each func(v any) (any, error)
		each = func(v any) (any, error) {
			switch x := v.(type) {
			case []any:
				for i := range x {
					var err error
					if x[i], err = each(x[i]); err != nil {
						return nil, err
					}
				}
			case object:
				for i := range x {
					var err error
					if x[i].value, err = each(x[i].value); err != nil {
						return nil, err
					}
				}
			case string:
				z, err := strconv.ParseComplex(x, 128)
				if err != nil {
					return nil, err
				}
				return plain(z)
			}
			return v, nil
		}
		if v, err = each(v); err != nil {
			return nil, err
		}
		return json.Marshal(v)
	case strings.HasPrefix(tc.kind, "(") && bytes.HasPrefix(out, []byte("{")):
		v, err := parse(out)
		if err != nil {
			return nil, err
		}
		list := []any{}
		for _, m := range v.(object) {
			list = append(list, m.value)
		}
		return json.Marshal(list)
	case tc.kind == "schema":
		return []byte(schemaType.ReplaceAllStringFunc(string(out), arrowName)), nil
	}
	return out, nil
}

var schemaType = regexp.MustCompile(`"type":"[^"]*"`)

// compareCSV compares rows of text: null is an empty field.
func (tc *testCase) compareCSV(out []byte) error {
	v, err := parse([]byte(tc.want))
	if err != nil {
		return err
	}
	rows := v.([]any)
	if len(rows) == 0 || len(rows[0].(object)) == 0 {
		return nil
	}
	in := csv.NewReader(bytes.NewReader(out))
	got, err := in.ReadAll()
	if err != nil {
		return err
	}
	if len(got) != len(rows)+1 {
		return fmt.Errorf("got %d lines of %d rows:\n%.200s", len(got), len(rows), out)
	}
	for i, row := range rows {
		for k, m := range row.(object) {
			if got[0][k] != m.key {
				return fmt.Errorf("column %d is called %q, want %q", k, got[0][k], m.key)
			}
			field := got[i+1][k]
			want := ""
			switch x := m.value.(type) {
			case nil:
			case json.Number:
				want, field = x.String(), normalNumber(field)
			case string:
				want, field = x, normalTime(field)
			default:
				want = fmt.Sprint(x)
			}
			if field != want {
				return fmt.Errorf("row %d, column %s: got %q, want %q", i, m.key, field, want)
			}
		}
	}
	return nil
}

// errCrashed is of a command that panics. No hole excuses that.
var errCrashed = errors.New("it crashed")

// command runs v6d, and returns what it prints.
func (w *world) command(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.v6d, args...)
	cmd.Env = append(os.Environ(), "V6D_SOCKET="+w.socket)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if text := errs.String(); strings.Contains(text, "\ngoroutine ") {
			return nil, fmt.Errorf("v6d %s: %w: %s", args[0], errCrashed, text[:strings.IndexByte(text, '\n')])
		}
		return nil, fmt.Errorf("v6d %s: %w: %.600s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}

// file returns the path of a new file.
func (w *world) file(name string) string {
	w.mu.Lock()
	w.files++
	n := w.files
	w.mu.Unlock()
	return filepath.Join(w.dir, fmt.Sprintf("%d-%s", n, name))
}

// put stores a value and returns its id.
func (w *world) put(v any) client.ID { return must(typed.Put(w.ctx, w.c, v)) }

// make files an object whose metadata was made by hand.
func (w *world) make(m *client.Meta) client.ID {
	return must(typed.NewWriter(w.c, nil, nil).File(w.ctx, m))
}

// blob stores bytes, as a member.
func (w *world) blob(b []byte) *client.Meta {
	if len(b) == 0 {
		return client.BlobMember(client.EmptyBlob)
	}
	return client.BlobMember(must(w.c.PutBlob(w.ctx, b)))
}

// restore makes a recorded object again, and returns its id.
func (w *world) restore(name string) client.ID {
	var r struct {
		Metadata map[string]any
		Blobs    map[string]struct{ Hex string }
	}
	d := json.NewDecoder(bytes.NewReader(must(os.ReadFile(filepath.Join(recordings, name+".json")))))
	d.UseNumber()
	if err := d.Decode(&r); err != nil {
		panic(err)
	}
	blobs := map[string]*client.Meta{}
	for id, b := range r.Blobs {
		blobs[id] = w.blob(must(hex.DecodeString(b.Hex)))
	}
	var build func(tree map[string]any) *client.Meta
	build = func(tree map[string]any) *client.Meta {
		if tree["typename"] == client.BlobType {
			if b := blobs[tree["id"].(string)]; b != nil {
				return b
			}
			return w.blob(nil)
		}
		m := client.NewMeta(tree["typename"].(string))
		m.Global, _ = tree["global"].(bool)
		for _, key := range slices.Sorted(maps.Keys(tree)) {
			switch x := tree[key].(type) {
			case map[string]any:
				m.Add(key, build(x))
			case json.Number:
				if !slices.Contains(daemonsOwn, key) {
					m.Set(key, json.RawMessage(x.String()))
				}
			default:
				if !slices.Contains(daemonsOwn, key) {
					m.Set(key, x)
				}
			}
		}
		return m
	}
	return w.make(build(r.Metadata))
}

const recordings = "../../typed/testdata/objects"

// daemonsOwn are the fields that the daemon sets.
var daemonsOwn = []string{"id", "typename", "instance_id", "signature", "transient", "global", "__timestamp"}

// start runs a daemon, and Python.
func start(t *testing.T) *world {
	path, err := filepath.Abs("../../.interop/venv/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("no Python with the published client: run interop/venv.sh")
	}
	dir, err := os.MkdirTemp("", "v6d-ty") // short: socket paths are
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{ctx: t.Context(), dir: dir, socket: filepath.Join(dir, "s")}
	if w.v6d, err = testserver.Binary(dir); err != nil {
		t.Fatal(err)
	}
	var log testserver.Output
	daemon := exec.Command(w.v6d, "serve", "--socket", w.socket, "--size", "256MiB", "--rpc-listen", "off")
	daemon.Stdout, daemon.Stderr = &log, &log
	if err := testserver.StartProcess(daemon); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
		if t.Failed() {
			t.Logf("the daemon said:\n%s", log.Tail(30))
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		if w.c, err = client.Dial(t.Context(), client.Options{Socket: w.socket}); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the daemon does not start: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Cleanup(func() { _ = w.c.Close() })
	w.py = newPython(t, path, w.socket)
	return w
}

// python is matrix.py at work.
type python struct {
	errs testserver.Output

	mu     sync.Mutex // guards the rest: one command at a time
	in     io.WriteCloser
	out    *bufio.Reader
	broken error // it died
}

type command struct {
	Op     string `json:"op"`
	Expr   string `json:"expr,omitempty"`
	ID     string `json:"id,omitempty"`
	Path   string `json:"path,omitempty"`
	Column string `json:"column,omitempty"`
	Frame  bool   `json:"frame"`
}

type answer struct {
	ID     string
	Value  json.RawMessage
	Type   string
	Error  string
	Where  string
	Shared bool
}

func newPython(t *testing.T, path, socket string) *python {
	p := &python{}
	cmd := exec.Command(path, "matrix.py", socket)
	cmd.Stderr = &p.errs
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReaderSize(out, 1<<20)
	if err := testserver.StartProcess(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.in.Close()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Python said:\n%s", p.errs.Tail(30))
		}
	})
	if _, err := p.out.ReadString('\n'); err != nil {
		t.Fatalf("Python does not start: %v\n%s", err, p.errs.Tail(30))
	}
	return p
}

// ask sends a command and returns the answer, or the error that it is.
func (p *python) ask(c command) (a answer, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return a, p.broken
	}
	b, err := json.Marshal(c)
	if err != nil {
		return a, err
	}
	line := ""
	if _, err = p.in.Write(append(b, '\n')); err == nil {
		line, err = p.out.ReadString('\n')
	}
	if err == nil {
		err = json.Unmarshal([]byte(line), &a)
	}
	if err != nil {
		p.broken = fmt.Errorf("python died of %s: %w", b, err)
		return a, p.broken
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func (p *python) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

// hole is a line of holes.txt: cells that cannot work.
type hole struct {
	line             int
	name             string
	writers, readers []string // nil for all
	used             bool
}

func (h *hole) covers(name, writer, reader string) bool {
	return h.name == name && (h.writers == nil || slices.Contains(h.writers, writer)) && (h.readers == nil || slices.Contains(h.readers, reader))
}

var holeLine = regexp.MustCompile(`^(\S+) ((?:cli|go|py|rec|,)+|\*)>((?:cli|go|py|,)+|\*) (§\d[\d.]*) \S.*$`)

func readHoles(t *testing.T) []*hole {
	b, err := os.ReadFile("holes.txt")
	if err != nil {
		t.Fatal(err)
	}
	var holes []*hole
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := holeLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("holes.txt:%d: want CASE WRITER>READER §SECTION reason: %s", i+1, line)
		}
		h := &hole{line: i + 1, name: m[1]}
		if m[2] != "*" {
			h.writers = strings.Split(m[2], ",")
		}
		if m[3] != "*" {
			h.readers = strings.Split(m[3], ",")
		}
		holes = append(holes, h)
	}
	return holes
}

// report prints the matrix, and fails for what differs from holes.txt.
func report(t *testing.T, cases []testCase, results []map[string]error, holes []*hole) {
	var b strings.Builder
	width := 0
	for i := range cases {
		width = max(width, len(cases[i].name))
	}
	fmt.Fprintf(&b, "\n%-*s %-6s", width, "WRITER>READER", "")
	for _, wr := range writers {
		for _, r := range readers {
			fmt.Fprintf(&b, " %-7s", wr+">"+r)
		}
	}
	count := map[string]int{}
	var faults []string
	for i := range cases {
		tc := &cases[i]
		fmt.Fprintf(&b, "\n%-*s %-6s", width, tc.name, tc.section)
		for _, wr := range writers {
			for _, r := range readers {
				err, there := results[i][wr+">"+r]
				state := "ok"
				listed := slices.DeleteFunc(slices.Clone(holes), func(h *hole) bool { return !h.covers(tc.name, wr, r) })
				for _, h := range listed {
					h.used = h.used || there
				}
				switch {
				case !there:
					state = "-"
				case err != nil && len(listed) > 0 && !errors.Is(err, errCrashed):
					state = "hole"
				case err != nil:
					state = "FAIL"
					faults = append(faults, fmt.Sprintf("%s %s>%s: %v", tc.name, wr, r, err))
				case len(listed) > 0:
					state = "STALE"
					faults = append(faults, fmt.Sprintf("%s %s>%s works: holes.txt:%d is stale", tc.name, wr, r, listed[0].line))
				}
				count[state]++
				fmt.Fprintf(&b, " %-7s", state)
			}
		}
	}
	t.Log(b.String())
	t.Logf("%d cases: %d cells ok, %d holes, %d failed, %d stale holes; %d not written from there (-)",
		len(cases), count["ok"], count["hole"], count["FAIL"], count["STALE"], count["-"])
	for _, f := range faults {
		t.Error(f)
	}
	for _, h := range holes {
		if !h.used {
			t.Errorf("holes.txt:%d: there is no such cell of %s", h.line, h.name)
		}
	}
}

// unrecorded are recordings that hold no object: the reference could not put them.
var unrecorded = []string{"arrow_decimal", "arrow_fixed_size_binary"}

// checkCases checks that names are unique, that writers that are absent have a
// reason, and that every recording is a case.
func checkCases(t *testing.T, cases []testCase) {
	names := map[string]bool{}
	recorded := map[string]bool{}
	for i := range cases {
		tc := &cases[i]
		if names[tc.name] {
			t.Errorf("two cases are called %s", tc.name)
		}
		names[tc.name] = true
		recorded[tc.recorded] = true
		for _, writer := range writers[:3] {
			if tc.has(writer) == (tc.without[writer] != "") {
				t.Errorf("%s: either %s writes it, or there is a reason why not: %q", tc.name, writer, tc.without[writer])
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(recordings, "[a-z]*.json"))
	if err != nil || len(files) < 90 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if !recorded[name] && !slices.Contains(unrecorded, name) {
			t.Errorf("no case reads the recording %s", name)
		}
	}
}

// checkTypes checks that every type that package typed knows was in some object.
func checkTypes(t *testing.T, w *world, made []map[string]client.ID) {
	seen := map[string]bool{client.BlobType: true}
	var walk func(m *client.Meta)
	walk = func(m *client.Meta) {
		known, _ := typed.Default.Lookup(m.Typename)
		seen[known.Name] = true
		for _, member := range m.Members {
			walk(member)
		}
	}
	for _, ids := range made {
		for _, id := range ids {
			if id.IsBlob() {
				continue
			}
			m, err := w.c.GetObject(w.ctx, id)
			if err != nil {
				t.Error(err)
				continue
			}
			walk(m)
		}
	}
	for _, known := range typed.Default.Types() {
		if !seen[known.Name] {
			t.Errorf("no case has a %s", known.Name)
		}
	}
}

// checkMapped checks that Python's values lie in the pool: nothing was copied.
func checkMapped(t *testing.T, w *world, cases []testCase, made []map[string]client.ID) {
	for _, c := range []command{{ID: "tensor_int64"}, {ID: "table", Column: "i"}} {
		i := slices.IndexFunc(cases, func(tc testCase) bool { return tc.name == c.ID })
		for writer, id := range made[i] {
			a, err := w.py.ask(command{Op: "mapped", ID: id.String(), Column: c.Column})
			if err != nil || !a.Shared || !strings.Contains(a.Where, "v6d") {
				t.Errorf("%s, written by %s, lies in %q in Python, shared: %v, %v", c.ID, writer, a.Where, a.Shared, err)
			}
		}
	}
}
