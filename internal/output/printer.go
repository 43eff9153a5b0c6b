package output

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"text/template"

	"github.com/itchyny/gojq"
	"go.yaml.in/yaml/v3"

	"github.com/v6d-go/v6d/internal/status"
)

// Formats lists what -o understands.
var Formats = []string{"table", "wide", "json", "yaml", "ndjson", "csv", "tsv", "name", "template=TEMPLATE"}

// Printer writes results.
type Printer struct {
	out       io.Writer
	format    string
	tmpl      *template.Template
	jq        *gojq.Code
	color     bool
	noHeaders bool
	noTrunc   bool
	exact     bool
	width     int // 0: do not cut, and print a table for programs
}

// Options configures a Printer; they are flags that every command has.
type Options struct {
	Format    string // see Formats
	JQ        string // expression that is applied to the JSON
	Quiet     bool   // ids only
	NoHeaders bool
	NoTrunc   bool
	Bytes     bool // exact sizes and times
	Color     string
}

func wrong(format string, args ...any) error {
	return &status.Error{Code: status.UserInputError, Msg: fmt.Sprintf(format, args...)}
}

// NewPrinter checks the options.
func NewPrinter(out io.Writer, o Options) (*Printer, error) {
	p := &Printer{
		out: out, format: o.Format, color: UseColor(o.Color, out), noHeaders: o.NoHeaders, noTrunc: o.NoTrunc,
		exact: o.Bytes, width: Width(out),
	}
	if o.Quiet {
		p.format = "name"
	}
	if text, ok := strings.CutPrefix(p.format, "template="); ok {
		t, err := template.New("-o template").Option("missingkey=zero").Parse(text)
		if err != nil {
			return nil, wrong("-o template: %v", err)
		}
		p.format, p.tmpl = "template", t
	}
	switch p.format {
	case "table", "wide", "json", "yaml", "ndjson", "csv", "tsv", "name", "template":
	default:
		return nil, wrong("-o %q: want %s", o.Format, strings.Join(Formats, ", "))
	}
	if o.JQ != "" {
		q, err := gojq.Parse(o.JQ)
		if err == nil {
			p.jq, err = gojq.Compile(q)
		}
		if err != nil {
			return nil, wrong("--jq: %v", err)
		}
	}
	switch o.Color {
	case "auto", "always", "never", "":
	default:
		return nil, wrong("--color %q: want auto, always or never", o.Color)
	}
	return p, nil
}

// OnlyIDs reports whether the printer prints nothing of a list but its ids.
func (p *Printer) OnlyIDs() bool { return p.jq == nil && p.format == "name" }

// List prints many items.
func (p *Printer) List(l List) error {
	if p.jq != nil || p.format != "table" && p.format != "wide" && p.format != "csv" && p.format != "tsv" && p.format != "name" {
		return p.structured("items", l.Items)
	}
	switch p.format {
	case "name":
		return p.lines(l.IDs)
	case "csv", "tsv":
		return p.separated(l)
	}
	return p.table(l)
}

// Item prints one thing: as JSON and so on, as its id, or as text.
func (p *Printer) Item(id string, item any, text func(io.Writer) error) error {
	switch {
	case p.jq != nil:
		return p.structured("item", item)
	case p.format == "name":
		return p.lines([]string{id})
	case p.format == "table" || p.format == "wide" || p.format == "csv" || p.format == "tsv":
		return text(p.out)
	}
	return p.structured("item", item)
}

// Event prints one of many things that come one after the other: a line of
// JSON, or text.
func (p *Printer) Event(id string, item any, text func(io.Writer) error) error {
	if p.jq == nil && p.format == "json" {
		return p.jsonLine(item)
	}
	return p.Item(id, item, text)
}

// Query applies --jq to data, which has no envelope of ours.
func (p *Printer) Query(data any) error { return p.query(data) }

func (p *Printer) structured(key string, v any) error {
	switch {
	case p.jq != nil:
		return p.query(map[string]any{"apiVersion": APIVersion, key: v})
	case p.format == "json":
		return p.json(map[string]any{"apiVersion": APIVersion, key: v})
	}
	g, err := generic(v)
	if err != nil {
		return err
	}
	list, isList := g.([]any)
	if !isList {
		list = []any{g}
	}
	switch p.format {
	case "ndjson":
		for _, e := range list {
			if err := p.jsonLine(e); err != nil {
				return err
			}
		}
		return nil
	case "template":
		for _, e := range list {
			if err := p.tmpl.Execute(p.out, e); err != nil {
				return wrong("-o template: %v", err)
			}
			if _, err := io.WriteString(p.out, "\n"); err != nil {
				return err
			}
		}
		return nil
	}
	enc := yaml.NewEncoder(p.out)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(map[string]any{"apiVersion": APIVersion, key: yamlNumbers(g)}), enc.Close())
}

// yamlNumbers makes exact numbers print as numbers.
func yamlNumbers(v any) any {
	switch x := v.(type) {
	case json.Number:
		tag := "!!int"
		if strings.ContainsAny(string(x), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: string(x)}
	case []any:
		for i := range x {
			x[i] = yamlNumbers(x[i])
		}
	case map[string]any:
		for k := range x {
			x[k] = yamlNumbers(x[k])
		}
	}
	return v
}

// query applies the jq expression; strings are printed raw, as gh does.
func (p *Printer) query(v any) error {
	g, err := generic(v)
	if err != nil {
		return err
	}
	for it := p.jq.Run(jqNumbers(g)); ; {
		r, ok := it.Next()
		if !ok {
			return nil
		}
		if err, bad := r.(error); bad {
			return wrong("--jq: %v", err)
		}
		if s, isText := r.(string); isText {
			if err := p.lines([]string{s}); err != nil {
				return err
			}
			continue
		}
		b, err := gojq.Marshal(r)
		if err != nil {
			return err
		}
		if err := p.lines([]string{string(b)}); err != nil {
			return err
		}
	}
}

// jqNumbers gives gojq its kinds of numbers; integers stay exact.
func jqNumbers(v any) any {
	switch x := v.(type) {
	case json.Number:
		if i, ok := new(big.Int).SetString(string(x), 10); ok {
			if i.IsInt64() {
				return int(i.Int64())
			}
			return i
		}
		f, _ := x.Float64() // JSON's own encoder wrote it
		return f
	case []any:
		for i := range x {
			x[i] = jqNumbers(x[i])
		}
	case map[string]any:
		for k := range x {
			x[k] = jqNumbers(x[k])
		}
	}
	return v
}

func (p *Printer) lines(lines []string) error {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l)
		b.WriteByte('\n')
	}
	_, err := io.WriteString(p.out, b.String())
	return err
}

func (p *Printer) json(v any) error {
	enc := json.NewEncoder(p.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (p *Printer) jsonLine(v any) error {
	enc := json.NewEncoder(p.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (p *Printer) separated(l List) error {
	w := csv.NewWriter(p.out)
	if p.format == "tsv" {
		w.Comma = '\t'
	}
	if !p.noHeaders {
		head := make([]string, len(l.Columns))
		for i, c := range l.Columns {
			head[i] = strings.ToLower(c.Name)
		}
		if err := w.Write(head); err != nil {
			return err
		}
	}
	for _, r := range l.Rows {
		rec := make([]string, len(r))
		for i := range r {
			rec[i] = r[i].Exact
		}
		if err := w.Write(rec); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}
