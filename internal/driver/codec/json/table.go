package json

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

const (
	// maxLine bounds a line, in bytes.
	maxLine = 64 << 20
	// sparse is how many places a table may have for each byte of text: rows that
	// all have other keys would take memory that grows with their square.
	sparse = 64
)

// Options say how a table is read.
type Options struct {
	Columns []string                  // only these, in this order; nil for all
	Types   map[string]arrow.DataType // of columns, instead of what is inferred
	Alloc   memory.Allocator          // where columns are decoded to; nil for Go's memory
}

// ReadTable reads objects, one a line or all in one array, as the rows of a
// table. A column is where its key appears first; rows without the key are null.
// Of a key that an object has twice the last value counts.
//
// The type of a column follows from all of its values: bool, int64, uint64 if
// some need it and none is below 0, float64, large_utf8 for strings, large_list
// for arrays. Objects, and values of several kinds, are kept as JSON text. A
// column of Options.Types that is text takes other values as JSON text, too.
func ReadTable(r io.Reader, o Options) (*typed.Table, error) {
	b, err := readAll(r, math.MaxInt64-1)
	if err != nil {
		return nil, err
	}
	t := &reader{all: b, byName: map[string]int{}, types: o.Types, wanted: o.Columns}
	t.member = t.keep
	if err := t.each(t.guess); err != nil {
		return nil, err
	}
	rows := t.row
	if rows == 0 {
		return nil, status.Errorf(status.Invalid, "it is empty: there are no objects in it")
	}
	pick, err := t.pick(o)
	if err != nil {
		return nil, err
	}
	if int64(rows)*int64(len(pick)) > sparse*int64(len(b))+1<<20 {
		return nil, status.Errorf(status.Invalid, "%d rows of %d columns have hardly any values: it is no table", rows, len(pick)).
			WithHint("--columns keeps those that matter")
	}
	if o.Alloc == nil {
		o.Alloc = memory.DefaultAllocator
	}
	return t.decode(pick, o.Alloc)
}

// reader makes a table of text.
type reader struct {
	scanner
	all     []byte
	columns []*column
	byName  map[string]int
	types   map[string]arrow.DataType
	wanted  []string

	row     int       // of this pass, from 1
	depth   int       // of its values
	place   int       // where the next key was in the row before
	touched []*column // by the row
	member  func() error
}

// column is a column of the table.
type column struct {
	name   string
	quoted []byte // as in the text
	wanted bool
	typed  bool // its type is given
	guess  guess
	size   int // bytes of its values' text
	sink   *sink

	row    int // where it was last
	latest token
}

// each goes through the rows and calls done after each.
func (r *reader) each(done func() error) error {
	r.b, r.at, r.row, r.lines = r.all, 0, 0, false
	if r.next() == '[' {
		err := r.list(1, func() error {
			r.space()
			if err := r.record(2); err != nil {
				return err
			}
			return done()
		})
		if r.space(); err == nil && r.at < len(r.b) {
			err = r.expected("the end")
		}
		return err
	}
	r.lines = true
	for start := 0; start < len(r.all); start = len(r.b) + 1 {
		end := bytes.IndexByte(r.all[start:], '\n')
		if end < 0 {
			end = len(r.all) - start
		}
		r.b, r.at = r.all[:start+end], start
		if end > maxLine {
			return status.Errorf(status.Invalid, "line %d has %d bytes, more than %d", r.line(start), end, maxLine)
		}
		if r.space(); r.at == len(r.b) {
			continue
		}
		if err := r.record(1); err != nil {
			return err
		}
		if r.space(); r.at < len(r.b) {
			return r.expected("the end of the line")
		}
		if err := done(); err != nil {
			return err
		}
	}
	return nil
}

// record notes where the values of a row are.
func (r *reader) record(depth int) error {
	if r.at >= len(r.b) || r.b[r.at] != '{' {
		return r.expected("an object")
	}
	r.row++
	r.place, r.depth = 0, depth+1
	r.touched = r.touched[:0]
	return r.object(depth, r.member)
}

// keep notes where a value is.
func (r *reader) keep() error {
	c, err := r.column()
	if err != nil {
		return err
	}
	if c.latest, err = r.value(r.depth); err != nil {
		return err
	}
	if c.row != r.row {
		c.row = r.row
		r.touched = append(r.touched, c)
	}
	return nil
}

// column skips a key and returns its column. Most rows have the same keys in the
// same order.
func (r *reader) column() (*column, error) {
	r.space()
	if r.place < len(r.columns) {
		if c := r.columns[r.place]; bytes.HasPrefix(r.b[r.at:], c.quoted) {
			r.at += len(c.quoted)
			r.place++
			return c, r.colon()
		}
	}
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	name := r.content(key, nil)
	i, ok := r.byName[string(name)]
	if !ok {
		i = len(r.columns)
		c := &column{name: string(name), quoted: r.b[key.start:key.end]}
		c.wanted = r.wanted == nil || slices.Contains(r.wanted, c.name)
		c.typed = r.types[c.name] != nil
		r.byName[c.name] = i
		r.columns = append(r.columns, c)
	}
	r.place = i + 1
	return r.columns[i], nil
}

// guess learns from the values of a row.
func (r *reader) guess() error {
	at := r.at
	for _, c := range r.touched {
		if !c.wanted {
			continue
		}
		c.size += c.latest.end - c.latest.start
		if c.latest.kinds == isList && !c.typed {
			r.at = c.latest.start
			if err := r.learn(&c.guess, r.depth); err != nil {
				return err
			}
			continue
		}
		c.guess.kinds |= c.latest.kinds
	}
	r.at = at
	return nil
}

// pick returns the columns that are asked for.
func (r *reader) pick(o Options) ([]*column, error) {
	find := func(name string) (*column, error) {
		i, ok := r.byName[name]
		if ok {
			return r.columns[i], nil
		}
		names := make([]string, len(r.columns))
		for k, c := range r.columns {
			names[k] = c.name
		}
		return nil, status.Errorf(status.Invalid, "there is no column %q", name).WithHint(fmt.Sprintf("there are: %.500q", names))
	}
	for name := range o.Types {
		if _, err := find(name); err != nil {
			return nil, err
		}
	}
	if o.Columns == nil {
		return r.columns, nil
	}
	var pick []*column
	for _, name := range o.Columns {
		c, err := find(name)
		if err != nil {
			return nil, err
		}
		if slices.Contains(pick, c) {
			return nil, status.Errorf(status.Invalid, "column %q is asked for twice", name)
		}
		pick = append(pick, c)
	}
	return pick, nil
}

// decode is the second pass.
func (r *reader) decode(pick []*column, alloc memory.Allocator) (*typed.Table, error) {
	rows := r.row
	fields := make([]arrow.Field, len(pick))
	for i, c := range pick {
		dt := r.types[c.name]
		if dt == nil {
			dt = c.guess.arrow()
		}
		if !supported(dt) {
			return nil, status.Errorf(status.NotImplemented, "column %q: values of type %s are not read from JSON", c.name, dt)
		}
		fields[i] = arrow.Field{Name: c.name, Type: dt, Nullable: true}
	}
	for i, c := range pick {
		b := array.NewBuilder(alloc, fields[i].Type)
		defer b.Release()
		b.Resize(rows)
		if text, ok := b.(interface{ ReserveData(n int) }); ok {
			text.ReserveData(c.size)
		}
		g := &c.guess
		if c.typed {
			g = nil
		}
		c.sink = newSink(b, g)
	}
	err := r.each(func() error {
		for _, c := range pick {
			if c.row != r.row {
				c.sink.b.AppendNull()
			} else if err := r.fill(c); err != nil {
				return fmt.Errorf("line %d, column %q: %w", r.line(c.latest.start), c.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	columns := make([]arrow.Array, len(pick))
	for i, c := range pick {
		columns[i] = c.sink.b.NewArray()
		defer columns[i].Release()
	}
	schema := arrow.NewSchema(fields, nil)
	return typed.NewTable(schema, array.NewRecordBatch(schema, columns, int64(rows))), nil
}

// fill decodes the value of a row.
func (r *reader) fill(c *column) error {
	if c.latest.kinds != isList || c.sink.elem == nil {
		return c.sink.add(&r.scanner, c.latest)
	}
	at := r.at
	r.at = c.latest.start
	err := c.sink.next(&r.scanner, r.depth)
	r.at = at
	return err
}
