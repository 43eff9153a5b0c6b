package json

import (
	stdjson "encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

// output writes in pieces.
type output struct {
	w io.Writer
	b []byte
}

// flush writes what has gathered, if it is more than some bytes.
func (o *output) flush(over int) error {
	if len(o.b) <= over {
		return nil
	}
	_, err := o.w.Write(o.b)
	o.b = o.b[:0]
	return err
}

// piece is the size of a write.
const piece = 64 << 10

// WriteTable writes a table as lines of objects, with all keys in the order of
// the columns.
func WriteTable(w io.Writer, t *typed.Table) error {
	o := &output{w: w}
	if err := o.rows(t, nil, func(int64) { o.b = append(o.b, '\n') }); err != nil {
		return err
	}
	return o.flush(0)
}

// rows writes the rows of a table as objects, and calls after behind each. Some
// columns, by their places, may be written by functions of their own.
func (o *output) rows(t *typed.Table, own map[int]func(row int) error, after func(row int64)) error {
	names := t.Names()
	heads := make([][]byte, len(names)) // of a value: comma, key and colon
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return status.Errorf(status.Invalid, "two columns are called %q, which objects cannot have", name).
				WithHint("--columns leaves columns out")
		}
		heads[i] = append(appendText([]byte{','}, name), ':')
	}
	if len(heads) > 0 {
		heads[0] = heads[0][1:]
	}
	row := int64(0)
	for _, batch := range t.Batches {
		columns := batch.Columns()
		for i := range int(batch.NumRows()) {
			o.b = append(o.b, '{')
			for k, c := range columns {
				o.b = append(o.b, heads[k]...)
				if write := own[k]; write != nil {
					if err := write(int(row)); err != nil {
						return err
					}
					continue
				}
				o.b = AppendValue(o.b, c, i)
			}
			o.b = append(o.b, '}')
			after(row)
			row++
			if err := o.flush(piece); err != nil {
				return err
			}
		}
	}
	return nil
}

// WriteValue writes any value that package typed makes of an object as one JSON
// text on one line: sequences as arrays, or objects if they have names, tensors as
// arrays in arrays, tables and data frames as arrays of objects, arrays, series
// and indexes as arrays, bytes as base64. Pickles are decoded.
func WriteValue(w io.Writer, v any) error {
	o := &output{w: w}
	if err := o.value(v, 1); err != nil {
		return err
	}
	o.b = append(o.b, '\n')
	return o.flush(0)
}

// value writes a value that holds others, or a scalar.
func (o *output) value(v any, depth int) error {
	if depth > maxDepth+1 {
		return status.Errorf(status.Invalid, "it is nested more than %d deep", maxDepth)
	}
	if b, ok := appendScalar(o.b, v); ok {
		o.b = b
		return o.flush(piece)
	}
	switch x := v.(type) {
	case typed.Scalar:
		return o.value(x.Value, depth)
	case []any:
		return o.list(x, depth)
	case typed.Tuple:
		return o.list(x, depth)
	case typed.Set:
		return o.list(x, depth)
	case typed.Dict:
		return o.dict(x, depth)
	case *typed.Sequence:
		return o.sequence(x, depth)
	case *typed.Pickle:
		v, err := x.Value()
		if err != nil {
			return err
		}
		return o.value(v, depth)
	case *typed.Global:
		return o.list(x.Parts, depth)
	case *typed.Sparse:
		return o.sparse(x, depth)
	}
	return o.table(v, depth)
}

// table writes what is or has arrays of one type.
func (o *output) table(v any, depth int) error {
	switch x := v.(type) {
	case *typed.Tensor:
		return o.tensor(x, depth)
	case *typed.Index:
		return o.tensor(x.Values, depth)
	case *typed.Series:
		return o.tensor(x.Values, depth)
	case *typed.SparseArray:
		t, err := x.Dense()
		if err != nil {
			return err
		}
		return o.tensor(t, depth)
	case *typed.Table:
		return o.objects(x, nil)
	case arrow.RecordBatch:
		return o.objects(typed.NewTable(x.Schema(), x), nil)
	case *typed.DataFrame:
		return o.frame(x, depth)
	case arrow.Array:
		return o.array(x.Len(), func(i int) error { o.b = AppendValue(o.b, x, i); return nil })
	case *arrow.Schema:
		fields := x.Fields()
		return o.array(len(fields), func(i int) error {
			f := fields[i]
			return o.dict(typed.Dict{{Key: "name", Value: f.Name}, {Key: "type", Value: f.Type.String()}, {Key: "nullable", Value: f.Nullable}}, depth)
		})
	case *typed.Opaque:
		return status.Errorf(status.NotImplemented, "a %s has no value that could be written", x.Meta.Typename)
	}
	return status.Errorf(status.NotImplemented, "a %T cannot be written as JSON", v)
}

// appendScalar appends a value that holds no others; ok is false for those that do.
func appendScalar(b []byte, v any) (out []byte, ok bool) {
	switch x := v.(type) {
	case nil, typed.None:
		return append(b, "null"...), true
	case bool:
		return strconv.AppendBool(b, x), true
	case int:
		return strconv.AppendInt(b, int64(x), 10), true
	case int64:
		return strconv.AppendInt(b, x, 10), true
	case uint64:
		return strconv.AppendUint(b, x, 10), true
	case float64:
		return appendFloat(b, x, 64), true
	case stdjson.Number:
		return append(b, x...), true
	case *big.Int:
		return x.Append(b, 10), true
	case string:
		return appendText(b, x), true
	case []byte:
		return appendBytes(b, x), true
	case complex128:
		return appendText(b, fmt.Sprint(x)), true
	case time.Time:
		return appendText(b, x.UTC().Format("2006-01-02T15:04:05.999999999")), true
	case time.Duration:
		return appendText(b, x.String()), true
	case client.ID:
		return appendText(b, x.String()), true
	case *typed.Absent:
		b = appendText(append(b, `{"absent":`...), x.ID.String())
		return append(strconv.AppendUint(append(b, `,"instance":`...), uint64(x.Instance), 10), '}'), true
	}
	return b, false
}

// array writes n elements.
func (o *output) array(n int, element func(i int) error) error {
	o.b = append(o.b, '[')
	for i := range n {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		if err := element(i); err != nil {
			return err
		}
		if err := o.flush(piece); err != nil {
			return err
		}
	}
	o.b = append(o.b, ']')
	return nil
}

func (o *output) list(items []any, depth int) error {
	return o.array(len(items), func(i int) error { return o.value(items[i], depth+1) })
}

func (o *output) objects(t *typed.Table, own map[int]func(row int) error) error {
	o.b = append(o.b, '[')
	rows := t.Rows()
	err := o.rows(t, own, func(row int64) {
		if row < rows-1 {
			o.b = append(o.b, ',')
		}
	})
	o.b = append(o.b, ']')
	return err
}

// frame writes the rows of a data frame. A table has its objects as text, where
// they are of several kinds: they are written as what they are.
func (o *output) frame(f *typed.DataFrame, depth int) error {
	t, err := f.Table()
	if err != nil {
		return err
	}
	own := map[int]func(int) error{}
	objects := func(at int, v any) error {
		x, ok := v.(*typed.Tensor)
		if !ok || x.DType != typed.Objects {
			return nil
		}
		write, _, err := o.elements(x, depth)
		own[at] = write
		return err
	}
	first := len(t.Names()) - len(f.Columns) // 1 if the index is one
	if first == 1 {
		if err := objects(0, f.Index.Values); err != nil {
			return err
		}
	}
	for i := range f.Columns {
		if err := objects(first+i, f.Columns[i].Values); err != nil {
			return err
		}
	}
	return o.objects(t, own)
}

// dict writes an object. Keys that are no strings become their JSON text.
func (o *output) dict(d typed.Dict, depth int) error {
	o.b = append(o.b, '{')
	for i, p := range d {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		name, ok := p.Key.(string)
		if !ok {
			key := &output{w: io.Discard}
			if err := key.value(p.Key, depth+1); err != nil {
				return err
			}
			name = string(key.b)
		}
		o.b = append(appendText(o.b, name), ':')
		if err := o.value(p.Value, depth+1); err != nil {
			return err
		}
	}
	o.b = append(o.b, '}')
	return nil
}

func (o *output) sequence(s *typed.Sequence, depth int) error {
	if s.Names == nil {
		return o.list(s.Items, depth)
	}
	if len(s.Names) != len(s.Items) {
		return status.Errorf(status.Invalid, "a sequence has %d names for %d items", len(s.Names), len(s.Items))
	}
	d := make(typed.Dict, len(s.Items))
	for i, item := range s.Items {
		d[i] = typed.Pair{Key: s.Names[i], Value: item}
	}
	return o.dict(d, depth)
}

func (o *output) sparse(s *typed.Sparse, depth int) error {
	shape := make([]any, len(s.Shape))
	for i, n := range s.Shape {
		shape[i] = n
	}
	d := typed.Dict{{Key: "format", Value: s.Format}, {Key: "shape", Value: shape}}
	for _, name := range slices.Sorted(maps.Keys(s.Parts)) {
		d = append(d, typed.Pair{Key: name, Value: s.Parts[name]})
	}
	return o.dict(d, depth)
}

// maxEmpty bounds how many empty arrays a tensor without elements has.
const maxEmpty = 1 << 20

// tensor writes arrays in arrays, as many as there are dimensions.
func (o *output) tensor(t *typed.Tensor, depth int) error {
	n, empty := int64(1), int64(1) // elements, and arrays around them
	for _, d := range t.Shape {
		if d < 0 || d > 0 && n > math.MaxInt64/d {
			return status.Errorf(status.Invalid, "no tensor has the shape %v", t.Shape)
		}
		if n *= d; n > 0 {
			empty = n
		}
	}
	if len(t.Shape) > maxDepth || n == 0 && empty > maxEmpty {
		return status.Errorf(status.Invalid, "a tensor of the shape %v has too many arrays in arrays", t.Shape)
	}
	element, have, err := o.elements(t, depth)
	if err != nil {
		return err
	}
	if have < n {
		return status.Errorf(status.Invalid, "%d elements do not have the shape %v", have, t.Shape)
	}
	at := -1
	var level func(shape []int64) error
	level = func(shape []int64) error {
		if len(shape) == 0 {
			at++
			return element(at)
		}
		return o.array(int(shape[0]), func(int) error { return level(shape[1:]) })
	}
	return level(t.Shape)
}

// elements returns what writes the elements of a tensor, and how many there are.
func (o *output) elements(t *typed.Tensor, depth int) (element func(i int) error, n int64, err error) {
	appender := func(n int, f func(b []byte, i int) []byte) (func(i int) error, int64, error) {
		return func(i int) error { o.b = f(o.b, i); return nil }, int64(n), nil
	}
	ofArray := func(a arrow.Array) (func(i int) error, int64, error) {
		return appender(a.Len(), func(b []byte, i int) []byte { return AppendValue(b, a, i) })
	}
	switch {
	case t.DType.Kind == typed.String:
		return ofArray(t.Text)
	case t.DType.Kind == typed.Pickled:
		items, err := objectsOf(t)
		return func(i int) error { return o.value(items[i], depth+1) }, int64(len(items)), err
	case t.DType.Size == 0:
		return appender(maxEmpty, func(b []byte, _ int) []byte { return append(b, `""`...) })
	}
	whole := len(t.Data) / t.DType.Size
	if whole < t.Len() {
		return nil, int64(whole), nil
	}
	switch t.DType.Kind {
	case typed.Datetime, typed.Timedelta:
		counts := *t
		counts.DType = typed.Int64
		return appender(whole, func(b []byte, i int) []byte { return appendCount(b, counts.At(i).(int64), t.DType) })
	case typed.Complex, typed.Unicode, typed.Raw:
		return appender(whole, func(b []byte, i int) []byte { b, _ = appendScalar(b, t.At(i)); return b })
	}
	a, err := t.Arrow()
	if err != nil {
		return nil, 0, err
	}
	return ofArray(a)
}

// objectsOf returns the objects of Python's that a tensor holds.
func objectsOf(t *typed.Tensor) ([]any, error) {
	if t.Items != nil || t.Pickle == nil {
		return t.Items, nil
	}
	v, err := t.Pickle.Value()
	if err != nil {
		return nil, err
	}
	if x, ok := v.(*typed.Tensor); ok && x.Items != nil {
		return x.Items, nil
	}
	return nil, status.Errorf(status.NotImplemented, "the pickle of a tensor of objects holds something else")
}

// appendCount appends a time of NumPy's: a date or time if it has one, the count
// otherwise.
func appendCount(b []byte, v int64, d typed.DType) []byte {
	if v == math.MinInt64 {
		return append(b, "null"...)
	}
	if d.Kind == typed.Datetime {
		switch d.Unit {
		case "D":
			return appendDate(b, v, v)
		case "M", "Y":
			if x, ok := d.Time(v); ok {
				return appendDate(b, x.Unix()/86400, v)
			}
		case "W":
			if v > -lastSecond && v < lastSecond {
				return appendDate(b, 7*v, v)
			}
		}
		for _, u := range []struct {
			unit       string
			per, lasts int64
		}{{"ns", 1e9, 1}, {"us", 1e6, 1}, {"ms", 1e3, 1}, {"s", 1, 1}, {"m", 1, 60}, {"h", 1, 3600}} {
			if u.unit == d.Unit {
				return appendStamp(b, v, u.per, u.lasts, "")
			}
		}
	}
	return strconv.AppendInt(b, v, 10)
}
