package replay

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

//go:embed testdata/vectors/*.jsonl testdata/*.json
var testdata embed.FS

// A line is one line of a recording: a message, a raw payload or an event.
type line struct {
	file string // recording, without the suffix
	n    int    // line number, from 1

	Dir  string `json:"dir"` // c2s or s2c; empty in an event
	Conn string `json:"conn"`
	T    string `json:"t"` // ipc or rpc
	JSON any    `json:"json"`
	NFDs int    `json:"nfds"` // descriptors that followed this reply

	// A raw payload has a null JSON and says what went over the socket.
	RawLen     int    `json:"raw_payload_len"`
	RawHex     string `json:"raw_hex"` // the first 64 bytes
	Compressed bool   `json:"compressed"`
	Inflated   int    `json:"expect_uncompressed"`

	Ev string `json:"ev"`
	By string `json:"by"` // who closed, in a close event
}

func (l *line) at() string { return fmt.Sprintf("%s.jsonl:%d", l.file, l.n) }

// request reports whether the line is a message from client to daemon.
func (l *line) request() bool { return l.Dir == "c2s" && l.JSON != nil }

// reply reports whether the line is a message from daemon to client.
func (l *line) reply() bool { return l.Dir == "s2c" && l.JSON != nil }

// message returns the JSON object of the line, or nil.
func (l *line) message() map[string]any {
	m, _ := l.JSON.(map[string]any)
	return m
}

// typ returns the message's type, or "".
func (l *line) typ() string {
	s, _ := l.message()["type"].(string)
	return s
}

// Recordings lists every recording of the specification by name, in order.
func Recordings() ([]string, error) {
	entries, err := testdata.ReadDir("testdata/vectors")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".jsonl"))
	}
	return names, nil
}

// load reads a recording.
func load(file string) ([]*line, error) {
	name := path.Join("testdata/vectors", file+".jsonl")
	text, err := testdata.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var lines []*line
	for i, row := range bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n")) {
		l := &line{file: file, n: i + 1}
		if err := decode(row, l); err != nil {
			return nil, fmt.Errorf("%s: %w", l.at(), err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// An Exclusion is a recording, or some lines of one, that is not replayed.
type Exclusion struct {
	File   string   `json:"file"`
	Lines  [][2]int `json:"lines,omitempty"` // closed ranges; none: the whole recording
	Issue  string   `json:"issue"`           // the issue that will replay it
	Reason string   `json:"reason"`
}

func (e *Exclusion) covers(n int) bool {
	return len(e.Lines) == 0 || slices.ContainsFunc(e.Lines, func(r [2]int) bool { return r[0] <= n && n <= r[1] })
}

// Excluded returns the committed list of what is not replayed.
func Excluded() ([]Exclusion, error) {
	var list []Exclusion
	return list, loadTable("excluded.json", &list)
}

// A Deviation is a recorded line that the daemon answers otherwise on purpose.
// The line is a reply, or the timeout or eof event in a reply's place.
type Deviation struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Reason string `json:"reason"` // quotes the recommendation it rests on
	Answer any    `json:"answer"` // the whole expected reply, with the recording's ids
	// Undefined says that the reference itself answers now so, now so: from
	// it both the recorded and our answer are right.
	Undefined bool `json:"undefined,omitempty"`
}

// Deviations returns the committed list of deviations.
func Deviations() ([]Deviation, error) {
	var list []Deviation
	return list, loadTable("deviations.json", &list)
}

func loadTable(name string, into any) error {
	text, err := testdata.ReadFile(path.Join("testdata", name))
	if err != nil {
		return err
	}
	if err := decode(text, into); err != nil {
		return fmt.Errorf("testdata/%s: %w", name, err)
	}
	return nil
}

// decode parses JSON without rounding numbers: 64-bit ids do not fit float64.
func decode(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("bytes after the JSON value")
	}
	return nil
}

// encode is the inverse of decode and leaves number texts as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
