package csv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

// Options say how text is read.
type Options struct {
	Delimiter byte                      // 0: found in the first line
	NoQuotes  bool                      // a " is an ordinary character
	NoHeader  bool                      // the columns are called f0, f1, ...
	Columns   []string                  // only these, in this order; nil for all
	Types     map[string]arrow.DataType // of columns, instead of what is inferred
	Nulls     []string                  // what else means that there is no value, in text as well
	Latin1    bool                      // the text is Windows-1252, which includes ISO 8859-1

	// Size is the number of bytes that will come, -1 if that is not known.
	Size int64
	// Sample returns pieces of whole lines from all over the text, in which types
	// are looked for besides the first block; nil for none.
	Sample func(yield func([]byte) bool)
	// Alloc is where columns are decoded to.
	Alloc memory.Allocator
}

// Bounds of a block, in bytes: one is a record batch, and enough of them keep
// all processors busy.
const (
	minBlock = 1 << 20
	maxBlock = 32 << 20
	// maxRow is how long rows are taken for where none is known.
	maxRow = 4096
	// maxRecord bounds a record.
	maxRecord = 1 << 30
	// sample is how much of the first block is looked at.
	sample = 1 << 20
)

// bom is the mark that some programs begin UTF-8 with.
var bom = []byte{0xef, 0xbb, 0xbf}

// block is a run of whole records on its way.
type block struct {
	text  []byte
	first bool // it begins with the header
	done  chan parsed
}

// parsed is what became of a block.
type parsed struct {
	batch arrow.RecordBatch
	rows  int64
	lines int
	err   *cellError
}

// cellError is a field or record that cannot be read.
type cellError struct {
	row    int64 // of its block, from 0
	line   int   // of its block, from 0
	column string
	err    error
}

// layout is what all blocks have in common.
type layout struct {
	dialect
	opts    *Options
	columns []column
	pick    []int // of those, which in which order
	schema  *arrow.Schema
	header  int // bytes of the header and what is before it
	rowSize int // bytes, about
}

// Read reads a table. The batches' memory is from o.Alloc.
func Read(ctx context.Context, in io.Reader, o Options) (t *typed.Table, err error) {
	if o.Alloc == nil {
		o.Alloc = memory.DefaultAllocator
	}
	workers := runtime.GOMAXPROCS(0)
	size := maxBlock
	if o.Size >= 0 {
		size = int(min(max(o.Size/int64(2*workers)+1, minBlock), maxBlock))
	}
	r := &reader{in: in, size: size, latin1: o.Latin1}
	first, err := r.block(dialect{comma: o.Delimiter, quote: !o.NoQuotes})
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(bytes.TrimSpace(first)) == 0 && !o.NoHeader || len(first) == 0 {
		return nil, status.Errorf(status.Invalid, "it is empty: there is not even a header").
			WithHint("--no-header reads files without one")
	}
	l, err := o.layout(first, errors.Is(err, io.EOF))
	if err != nil {
		return nil, err
	}
	return l.run(ctx, r, first, workers)
}

// run parses blocks side by side, and puts the batches in their order.
func (l *layout) run(ctx context.Context, r *reader, first []byte, workers int) (t *typed.Table, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	work, order := make(chan *block), make(chan *block, 2*workers)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for b := range work {
				p, err := l.guarded(b)
				if err != nil {
					cancel(err)
				}
				b.done <- p
			}
		})
	}
	group.Go(func() {
		defer close(order)
		defer close(work)
		text, err := first, error(nil)
		for begin := true; len(text) > 0; begin = false {
			b := &block{text: text, first: begin, done: make(chan parsed, 1)}
			select {
			case order <- b:
			case <-ctx.Done():
				return
			}
			select {
			case work <- b:
			case <-ctx.Done():
				b.done <- parsed{}
				return
			}
			if text, err = r.block(l.dialect); err != nil && !errors.Is(err, io.EOF) {
				cancel(err)
				return
			}
		}
	})
	defer group.Wait()
	defer cancel(nil)

	t = typed.NewTable(l.schema)
	var rows int64
	lines := 0
	for b := range order {
		p := <-b.done
		if p.err != nil && err == nil {
			err = p.err.located(rows, lines)
			cancel(err)
		}
		rows, lines = rows+p.rows, lines+p.lines
		if p.batch != nil && p.rows > 0 {
			t.Batches = append(t.Batches, p.batch)
		}
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		for _, b := range t.Batches {
			b.Release()
		}
		return nil, err
	}
	return t, nil
}

// located says where in the whole text a field is.
func (e *cellError) located(rows int64, lines int) error {
	where := fmt.Sprintf("row %d (line %d)", rows+e.row+1, lines+e.line+1)
	if e.column == "" {
		return status.Errorf(status.Invalid, "%s: %w", where, e.err)
	}
	err := status.Errorf(status.Invalid, "%s, column %q: %w", where, e.column, e.err)
	if strings.HasSuffix(e.err.Error(), "is not UTF-8") {
		return err.WithHint("--encoding latin1 reads ISO 8859-1 and Windows-1252")
	}
	return err.WithHint(fmt.Sprintf("--schema %s=string reads the column as text, =float64, =timestamp[us] and so on as that; the type was inferred from a part of the file", e.column))
}

// layout finds out the columns and their types.
func (o *Options) layout(first []byte, all bool) (*layout, error) {
	l := &layout{opts: o, dialect: dialect{comma: o.Delimiter, quote: !o.NoQuotes}}
	if bytes.HasPrefix(first, bom) {
		l.header = len(bom)
	}
	if len(first) > 1 && (first[0] == 0xff && first[1] == 0xfe || first[0] == 0xfe && first[1] == 0xff) {
		return nil, status.Errorf(status.Invalid, "it is UTF-16, not UTF-8").WithHint("convert it: iconv -f UTF-16 -t UTF-8")
	}
	if l.comma == 0 {
		l.comma = findDelimiter(first[l.header:])
	}
	s := scanner{dialect: l.dialect, b: first, at: l.header}
	ok, err := s.next()
	if err != nil || !ok {
		return nil, (&cellError{err: cmpErr(err, errors.New("there is no header"))}).located(0, 0)
	}
	var names []string
	for i, f := range s.fields {
		name := string(f)
		if !s.quoted[i] && strings.Contains(name, "\r") {
			return nil, status.Errorf(status.Invalid, "its lines end with carriage returns alone").WithHint("convert it: tr '\\r' '\\n'")
		}
		if o.NoHeader {
			name = fmt.Sprintf("f%d", i)
		}
		names = append(names, name)
	}
	guesses := make([]guess, len(names))
	if o.NoHeader {
		s = scanner{dialect: l.dialect, b: first, at: l.header}
	} else {
		l.header = s.at
	}
	nulls := map[string]bool{}
	for _, word := range o.Nulls {
		nulls[word] = true
	}
	rows, from := 0, s.at
	look := func(s *scanner, limit int) {
		for s.at < limit {
			ok, err := s.next()
			if err != nil || !ok || len(s.fields) != len(guesses) {
				return // it will be said where
			}
			for i, f := range s.fields {
				guesses[i].look(f, s.quoted[i], nulls)
			}
			rows++
		}
	}
	look(&s, l.header+sample)
	if l.rowSize = maxRow; rows > 0 { // only the header fits a block: columns grow
		l.rowSize = max((s.at-from)/rows, 1)
	}
	if o.Sample != nil && !(all && s.at >= len(first)) {
		o.Sample(func(piece []byte) bool {
			if bytes.IndexByte(piece, '"') < 0 || o.NoQuotes {
				look(&scanner{dialect: l.dialect, b: piece}, len(piece))
			}
			return true
		})
	}
	for i, name := range names {
		c := column{name: name, nulls: nulls, mem: o.Alloc, size: float64(guesses[i].size) / float64(max(rows, 1))}
		c.kind, c.t = guesses[i].kind()
		if c.kind == kindNull && !(all && s.at >= len(first)) {
			c.kind, c.t = kindText, arrow.BinaryTypes.LargeString // there may be text further on
		}
		if t, ok := o.Types[name]; ok {
			if c.t, err = typed.Storable(t); err != nil {
				return nil, fmt.Errorf("column %q: %w", name, err)
			}
			c.kind = kindOf(c.t)
		}
		l.columns = append(l.columns, c)
	}
	return l, l.choose()
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// choose picks the columns that are wanted.
func (l *layout) choose() error {
	at := map[string]int{}
	names := make([]string, len(l.columns))
	for i := len(l.columns) - 1; i >= 0; i-- {
		names[i] = l.columns[i].name
		at[names[i]] = i
	}
	missing := func(name string) error {
		return status.Errorf(status.Invalid, "there is no column %q", name).WithHint(fmt.Sprintf("there are: %.500q", names))
	}
	for name := range l.opts.Types {
		if _, ok := at[name]; !ok {
			return missing(name)
		}
	}
	if l.opts.Columns == nil {
		for i := range l.columns {
			l.pick = append(l.pick, i)
		}
	} else {
		for i := range l.columns {
			l.columns[i].skip = true
		}
		for _, name := range l.opts.Columns {
			i, ok := at[name]
			if !ok {
				return missing(name)
			}
			l.columns[i].skip = false
			l.pick = append(l.pick, i)
		}
	}
	fields := make([]arrow.Field, len(l.pick))
	for k, i := range l.pick {
		fields[k] = arrow.Field{Name: l.columns[i].name, Type: l.columns[i].t, Nullable: true}
	}
	l.schema = arrow.NewSchema(fields, nil)
	return nil
}

// findDelimiter returns the comma, unless the first line has none and one of
// the others that are in use.
func findDelimiter(b []byte) byte {
	line, _, _ := bytes.Cut(b, []byte{'\n'})
	for _, c := range []byte{',', '\t', ';', '|'} {
		if bytes.IndexByte(line, c) >= 0 {
			return c
		}
	}
	return ','
}

// guarded parses a block; err is what the allocator failed with.
func (l *layout) guarded(b *block) (p parsed, err error) {
	columns := make([]column, len(l.columns))
	copy(columns, l.columns)
	err = typed.Guard(func() error {
		p = l.parse(b, columns)
		return nil
	})
	if err != nil || p.err != nil {
		for i := range columns {
			columns[i].release()
		}
	}
	return p, err
}

func (l *layout) parse(b *block, columns []column) (p parsed) {
	s := scanner{dialect: l.dialect, b: b.text}
	if b.first {
		s.at = l.header
	}
	rows := (len(b.text)-s.at)/l.rowSize + 16
	rows += rows / 16
	for i := range columns {
		columns[i].reserve(rows)
	}
	for {
		ok, err := s.next()
		if err == nil && !ok {
			break
		}
		if err == nil && len(s.fields) != len(columns) {
			err = fmt.Errorf("%d fields, not %d (--delimiter is %q)", len(s.fields), len(columns), l.comma)
		}
		if err != nil {
			p.err = s.failed(p.rows, "", err)
			return p
		}
		for i := range columns {
			c := &columns[i]
			if c.skip {
				continue
			}
			if err := c.add(s.fields[i], s.quoted[i]); err != nil {
				p.err = s.failed(p.rows, c.name, err)
				return p
			}
		}
		p.rows++
	}
	p.lines = bytes.Count(b.text, []byte{'\n'})
	picked := make([]arrow.Array, len(l.pick))
	for k, i := range l.pick {
		picked[k] = columns[i].array()
	}
	p.batch = array.NewRecordBatch(l.schema, picked, p.rows)
	return p
}

// failed is the error of the record that was just read.
func (s *scanner) failed(row int64, column string, err error) *cellError {
	return &cellError{row: row, line: bytes.Count(s.b[:s.from], []byte{'\n'}), column: column, err: err}
}

// reader cuts the input into blocks.
type reader struct {
	in     io.Reader
	size   int
	latin1 bool
	rest   []byte // the beginning of the next block
	ended  bool
}

// block returns the next run of whole records, empty at the end.
func (r *reader) block(d dialect) ([]byte, error) {
	b := make([]byte, len(r.rest), max(r.size, 2*len(r.rest))+4096)
	copy(b, r.rest)
	r.rest = nil
	for {
		for !r.ended && len(b) < cap(b)-1 {
			n, err := r.in.Read(b[len(b):cap(b)])
			b = b[:len(b)+n]
			if errors.Is(err, io.EOF) {
				r.ended = true
			} else if err != nil {
				return nil, err
			}
		}
		if r.ended {
			return r.decoded(b), io.EOF
		}
		if d.comma == 0 { // the first block
			d.comma = findDelimiter(bytes.TrimPrefix(b, bom))
		}
		if n := whole(b, d); n > 0 {
			r.rest = bytes.Clone(b[n:])
			return r.decoded(b[:n]), nil
		}
		if len(b) > maxRecord {
			return nil, status.Errorf(status.Invalid, "a record has more than %d bytes", maxRecord).
				WithHint(`is a " missing? --no-quotes reads it as an ordinary character`)
		}
		b = append(make([]byte, 0, 2*cap(b)), b...)
	}
}

// c1 are the characters that Windows-1252 has where ISO 8859-1 has controls,
// which nobody means; 0 where it has none. This is what the web calls latin1.
var c1 = [32]rune{
	'€', 0, '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', 0, 'Ž', 0,
	0, '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', 0, 'ž', 'Ÿ',
}

// decoded turns Windows-1252 into UTF-8, if that is what the text is.
func (r *reader) decoded(b []byte) []byte {
	if !r.latin1 {
		return b
	}
	out := make([]byte, 0, len(b)+len(b)/8)
	for _, c := range b {
		switch {
		case c < 0x80:
			out = append(out, c)
		case c < 0xa0 && c1[c-0x80] != 0:
			out = utf8.AppendRune(out, c1[c-0x80])
		default:
			out = utf8.AppendRune(out, rune(c))
		}
	}
	return out
}
