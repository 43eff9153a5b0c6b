package typed

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/float16"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/internal/status"
)

// Between tables and data frames. A table has nulls, a data frame has NaN, NaT
// and None instead.

// Table returns a data frame as a table: numbers share its memory, NaN and NaT
// become nulls. The index is the first column unless it only numbers the rows.
func (f *DataFrame) Table() (*Table, error) {
	var fields []arrow.Field
	var columns []arrow.Array
	add := func(name string, v any) error {
		a, err := asArrow(v)
		if err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
		fields = append(fields, arrow.Field{Name: name, Type: a.DataType(), Nullable: true})
		columns = append(columns, a)
		return nil
	}
	if f.Index != nil && !f.Index.counts() {
		name := f.indexName()
		if err := add(name, f.Index.Values); err != nil {
			return nil, err
		}
	}
	for i := range f.Columns {
		if err := add(f.Columns[i].Name(), f.Columns[i].Values); err != nil {
			return nil, err
		}
	}
	s := arrow.NewSchema(fields, nil)
	return NewTable(s, array.NewRecordBatch(s, columns, f.Rows())), nil
}

// indexName returns what the index is called among the columns, as pandas does.
func (f *DataFrame) indexName() string {
	if f.Index.Name != nil {
		return labelText(f.Index.Name)
	}
	for i := range f.Columns {
		if f.Columns[i].Name() == "index" {
			return "level_0"
		}
	}
	return "index"
}

// counts reports whether an index numbers the rows from 0, and has no name.
func (x *Index) counts() bool {
	rows, err := Elements[int64](x.Values)
	if x.Name != nil || err != nil || x.Values.DType != Int64 {
		return false
	}
	for i, v := range rows {
		if v != int64(i) {
			return false
		}
	}
	return true
}

// Table returns a series as a table of one column, or two with its index.
func (s *Series) Table() (*Table, error) {
	name := s.Name
	if name == nil {
		name = "0"
	}
	return (&DataFrame{Index: s.Index, Columns: []Column{{name, s.Values}}}).Table()
}

// Table returns a tensor of one or two dimensions as a table, of columns 0, 1, 2
// and so on.
func (t *Tensor) Table() (*Table, error) {
	if len(t.Shape) > 2 {
		return nil, status.Errorf(status.Invalid, "a tensor of the shape %v is no table", t.Shape)
	}
	f := &DataFrame{}
	if len(t.Shape) < 2 {
		flat := *t
		flat.Shape = []int64{int64(t.Len())}
		f.Columns = []Column{{"0", &flat}}
		return f.Table()
	}
	rows, width := int(t.Shape[0]), int(t.Shape[1])
	size := t.DType.Size
	if size == 0 {
		return nil, status.Errorf(status.NotImplemented, "a tensor of %s of two dimensions is no table", t.DType)
	}
	for c := range width {
		b := make([]byte, 0, rows*size)
		for r := range rows {
			at := (r*width + c) * size
			b = append(b, t.Data[at:at+size]...)
		}
		f.Columns = append(f.Columns, Column{strconv.Itoa(c), &Tensor{DType: t.DType, Shape: []int64{int64(rows)}, Data: b}})
	}
	return f.Table()
}

// asArrow returns a column as an Arrow array.
func asArrow(v any) (arrow.Array, error) {
	switch x := v.(type) {
	case *Tensor:
		return x.Arrow()
	case *SparseArray:
		d, err := x.Dense()
		if err != nil {
			return nil, err
		}
		return d.Arrow()
	case Scalar:
		return nil, status.Errorf(status.NotImplemented, "Vineyard's Python client stored only its first value, as it does with categories").
			WithHint("--columns leaves columns out; in Python, convert the column before it is put")
	case *Pickle:
		return nil, status.Errorf(status.NotImplemented, "it is a pickle of Python's, of a kind that is not decoded here").
			WithHint("--columns leaves columns out")
	}
	return nil, status.Errorf(status.NotImplemented, "a column of %T", v)
}

// Arrow returns the elements of a tensor as an Arrow array, over the same memory
// where Arrow has the layout. NaN and NaT are null. Complex numbers, and objects
// that are not all of one kind, become text.
func (t *Tensor) Arrow() (arrow.Array, error) {
	n := t.Len()
	primitive := func(dt arrow.DataType, b []byte, null func(i int) bool) arrow.Array {
		valid, nulls := marks(n, null)
		return buffers{length: n, nulls: nulls, valid: valid}.data(dt, nil, b)
	}
	switch t.DType.Kind {
	case Bool:
		packed := make([]byte, bitutil.BytesForBits(int64(n)))
		for i, b := range t.Data {
			if b != 0 {
				bitutil.SetBit(packed, i)
			}
		}
		return buffers{length: n}.data(arrow.FixedWidthTypes.Boolean, nil, packed), nil
	case Int, Uint:
		return primitive(primitives[t.DType], t.Data, nil), nil
	case Float:
		var null func(int) bool
		switch t.DType.Size {
		case 2:
			x := slice[float16.Num](t.Data)
			null = func(i int) bool { return x[i].IsNaN() }
		case 4:
			x := slice[float32](t.Data)
			null = func(i int) bool { return x[i] != x[i] }
		default:
			x := slice[float64](t.Data)
			null = func(i int) bool { return x[i] != x[i] }
		}
		return primitive(primitives[t.DType], t.Data, null), nil
	case Datetime, Timedelta:
		x := slice[int64](t.Data)
		null := func(i int) bool { return x[i] == math.MinInt64 }
		unit, ok := timeUnits[t.DType.Unit]
		if !ok {
			if t.DType.Kind == Datetime && (t.DType.Unit == "M" || t.DType.Unit == "Y") {
				return t.calendar(x)
			}
			per := map[string]int64{"D": 86400, "h": 3600, "m": 60, "W": 7 * 86400}[t.DType.Unit]
			if per == 0 {
				return nil, status.Errorf(status.NotImplemented, "times in %s", t.DType)
			}
			seconds := make([]int64, n)
			for i, v := range x {
				switch {
				case null(i):
				case v > math.MaxInt64/per || v < math.MinInt64/per:
					return nil, status.Errorf(status.Invalid, "row %d: the time is out of range", i)
				default:
					seconds[i] = v * per
				}
			}
			b := bytesOf(seconds)
			if t.DType.Kind == Timedelta {
				return primitive(&arrow.DurationType{Unit: arrow.Second}, b, null), nil
			}
			return primitive(&arrow.TimestampType{Unit: arrow.Second}, b, null), nil
		}
		if t.DType.Kind == Timedelta {
			return primitive(&arrow.DurationType{Unit: unit}, t.Data, null), nil
		}
		return primitive(&arrow.TimestampType{Unit: unit}, t.Data, null), nil
	case String:
		return t.Text, nil
	case Pickled:
		return objects(t)
	}
	b := array.NewLargeStringBuilder(heap)
	defer b.Release()
	for i := range n {
		switch v := t.At(i).(type) {
		case string:
			b.Append(v)
		default:
			b.Append(fmt.Sprint(v))
		}
	}
	return b.NewArray(), nil
}

// calendar returns months or years as timestamps of their first days.
func (t *Tensor) calendar(counts []int64) (arrow.Array, error) {
	b := array.NewTimestampBuilder(heap, &arrow.TimestampType{Unit: arrow.Second})
	defer b.Release()
	for i, n := range counts {
		at, ok := t.DType.Time(n)
		switch {
		case ok:
			b.Append(arrow.Timestamp(at.Unix()))
		case n == math.MinInt64:
			b.AppendNull()
		default:
			return nil, status.Errorf(status.Invalid, "row %d: the time is out of range", i)
		}
	}
	return b.NewArray(), nil
}

// marks returns a bitmap of what is not null, nil if nothing is.
func marks(n int, null func(i int) bool) (valid []byte, nulls int) {
	if null == nil {
		return nil, 0
	}
	for i := range n {
		if !null(i) {
			continue
		}
		if valid == nil {
			valid = make([]byte, bitutil.BytesForBits(int64(n)))
			memory.Set(valid, 0xff)
		}
		bitutil.ClearBit(valid, i)
		nulls++
	}
	return valid, nulls
}

// objects makes an array of Python's objects: of their kind if they have one in
// common, of text otherwise.
func objects(t *Tensor) (arrow.Array, error) {
	if t.Items == nil && t.Len() > 0 {
		return nil, status.Errorf(status.NotImplemented, "it holds objects of Python's that are not decoded here").
			WithHint("--columns leaves columns out")
	}
	kinds := map[string]bool{}
	for _, v := range t.Items {
		switch v.(type) {
		case nil:
		case bool:
			kinds["bool"] = true
		case int64:
			kinds["int"] = true
		case float64:
			kinds["float"] = true
		default:
			kinds["text"] = true
		}
	}
	switch {
	case len(kinds) == 1 && kinds["bool"]:
		b := array.NewBooleanBuilder(heap)
		defer b.Release()
		for _, v := range t.Items {
			if x, ok := v.(bool); ok {
				b.Append(x)
			} else {
				b.AppendNull()
			}
		}
		return b.NewArray(), nil
	case len(kinds) == 1 && kinds["int"]:
		b := array.NewInt64Builder(heap)
		defer b.Release()
		for _, v := range t.Items {
			if x, ok := v.(int64); ok {
				b.Append(x)
			} else {
				b.AppendNull()
			}
		}
		return b.NewArray(), nil
	case !kinds["text"] && !kinds["bool"] && len(kinds) > 0:
		b := array.NewFloat64Builder(heap)
		defer b.Release()
		for _, v := range t.Items {
			switch x := v.(type) {
			case int64:
				b.Append(float64(x))
			case float64:
				b.Append(x)
			default:
				b.AppendNull()
			}
		}
		return b.NewArray(), nil
	}
	b := array.NewLargeStringBuilder(heap)
	defer b.Release()
	for _, v := range t.Items {
		switch x := v.(type) {
		case nil:
			b.AppendNull()
		case string:
			b.Append(x)
		case float64:
			if x != x {
				b.AppendNull()
			} else {
				b.Append(strconv.FormatFloat(x, 'g', -1, 64))
			}
		default:
			b.Append(jsonText(Plain(x)))
		}
	}
	return b.NewArray(), nil
}

// Plain returns a value that was unpickled as what encoding/json can write:
// tuples and sets as lists, dictionaries as maps, times as text.
func Plain(v any) any {
	list := func(items []any) []any {
		out := make([]any, len(items))
		for i, item := range items {
			out[i] = Plain(item)
		}
		return out
	}
	switch x := v.(type) {
	case []any:
		return list(x)
	case Tuple:
		return list(x)
	case Set:
		return list(x)
	case Dict:
		out := make(map[string]any, len(x))
		for _, p := range x {
			out[labelText(Plain(p.Key))] = Plain(p.Value)
		}
		return out
	case *Tensor:
		out := make([]any, x.Len())
		for i := range out {
			out[i] = Plain(x.At(i))
		}
		return out
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return strconv.FormatFloat(x, 'g', -1, 64)
		}
	case complex128:
		return fmt.Sprint(x)
	case *big.Int:
		return x.String()
	case time.Duration:
		return x.String()
	case []byte:
		return fmt.Sprintf("%x", x)
	}
	return v
}

// maxDense bounds a sparse array that is written out, in elements.
const maxDense = 1 << 32

// Dense returns all elements of a sparse array.
func (s *SparseArray) Dense() (*Tensor, error) {
	d := s.Values.DType
	if d.Size == 0 || s.Kind != "IntIndex" || s.Length > maxDense {
		return nil, status.Errorf(status.NotImplemented, "a sparse array of %s with a %s", d, s.Kind)
	}
	where, err := Elements[int32](s.Index)
	if err != nil {
		return nil, err
	}
	if len(where) != s.Values.Len() {
		return nil, status.Errorf(status.MetaTreeTypeInvalid, "a sparse array has %d places and %d values", len(where), s.Values.Len())
	}
	t := &Tensor{DType: d, Shape: []int64{s.Length}, Data: make([]byte, s.Length*int64(d.Size))}
	if fill := fillBytes(s.Fill, d); fill != nil {
		for i := 0; i < len(t.Data); i += d.Size {
			copy(t.Data[i:], fill)
		}
	}
	for k, i := range where {
		if i < 0 || int64(i) >= s.Length {
			return nil, status.Errorf(status.MetaTreeTypeInvalid, "a sparse array of %d has a value at %d", s.Length, i)
		}
		copy(t.Data[int(i)*d.Size:], s.Values.Data[k*d.Size:(k+1)*d.Size])
	}
	return t, nil
}

// fillBytes encodes the value that fills a sparse array, nil for zero.
func fillBytes(text string, d DType) []byte {
	switch d.Kind {
	case Float:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || f == 0 {
			return nil
		}
		if d.Size == 4 {
			return bytesOf([]float32{float32(f)})
		}
		return bytesOf([]float64{f})
	case Int:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n != 0 {
			return bytesOf([]int64{n})[:d.Size]
		}
	case Bool:
		if text == "True" {
			return []byte{1}
		}
	}
	return nil
}

// DataFrame returns a table as a data frame, whose columns are in memory of
// pool, which may be nil. Columns of one piece that need no change are not
// copied. Whole numbers with nulls become float64, as pandas does; dates and
// timestamps datetime64[ns] without their zone, in UTC; times of day
// timedelta64[ns].
func (t *Table) DataFrame(pool *Pool) (*DataFrame, error) {
	f := NewDataFrame()
	p := t.pandasIndex()
	for i, field := range t.Schema.Fields() {
		x, err := pandas(t.Column(i), pool)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", field.Name, err)
		}
		if p.stored && field.Name == p.column && f.Index == nil {
			f.Index = &Index{Name: p.name, Values: x}
			continue
		}
		f.Columns = append(f.Columns, Column{field.Name, x})
	}
	if n := int(t.Rows()); !p.stored && (p.step != 0 || len(f.Columns) == 0) {
		f.Index = rangeIndex(n)
		for i, rows := 0, slice[int64](f.Index.Values.Data); i < n && p.step != 0; i++ {
			rows[i] = p.start + int64(i)*p.step
		}
		f.Index.Name = p.name
	}
	return f, nil
}

// pandasIndex is what pandas notes of the index of a data frame that it writes as
// a table: the column that it is stored in, or a range, which is not.
type pandasIndex struct {
	stored      bool
	column      string
	name        any   // nil for none
	start, step int64 // of a range; step is 0 if there is none
}

// pandasIndex reads the note. Indexes of several levels stay columns.
func (t *Table) pandasIndex() (p pandasIndex) {
	text, ok := t.Schema.Metadata().GetValue("pandas")
	var meta struct {
		IndexColumns []json.RawMessage `json:"index_columns"`
		Columns      []struct {
			Name      any    `json:"name"`
			FieldName string `json:"field_name"`
		} `json:"columns"`
	}
	if !ok || json.Unmarshal([]byte(text), &meta) != nil || len(meta.IndexColumns) != 1 {
		return p
	}
	if p.stored = json.Unmarshal(meta.IndexColumns[0], &p.column) == nil; !p.stored {
		var r struct {
			Name        any
			Start, Step int64
		}
		if json.Unmarshal(meta.IndexColumns[0], &r) == nil {
			p.name, p.start, p.step = r.Name, r.Start, r.Step
		}
		return p
	}
	for _, c := range meta.Columns {
		if c.FieldName == p.column {
			p.name = c.Name
		}
	}
	return p
}

// TensorOf returns an Arrow array as a tensor of one dimension, by the rules of
// DataFrame, over the same memory where it needs no change.
func TensorOf(a arrow.Array) (*Tensor, error) {
	return pandas(arrow.NewChunked(a.DataType(), []arrow.Array{a}), nil)
}

// pandas returns a column as the tensor that a data frame holds.
func pandas(c *arrow.Chunked, pool *Pool) (*Tensor, error) {
	n := c.Len()
	shape := []int64{int64(n)}
	chunks := make([]arrow.Array, len(c.Chunks()))
	for i, chunk := range c.Chunks() {
		var err error
		if chunks[i], err = stored(chunk); err != nil {
			return nil, err
		}
	}
	dt := c.DataType()
	if len(chunks) > 0 {
		dt = chunks[0].DataType()
	}
	room := func(size int) []byte {
		if pool == nil || n*size < small {
			return make([]byte, n*size)
		}
		return pool.Take(n * size)
	}
	switch x := dt.(type) {
	case *arrow.LargeStringType, *arrow.StringType, *arrow.StringViewType:
		if len(chunks) == 0 {
			return &Tensor{DType: Strings, Shape: shape, Text: array.MakeArrayOfNull(heap, arrow.BinaryTypes.LargeString, 0).(*array.LargeString)}, nil
		}
		text := chunks[0]
		if len(chunks) > 1 {
			mem := heap
			if pool != nil {
				mem = pool
			}
			var err error
			if text, err = array.Concatenate(chunks, mem); err != nil {
				return nil, err
			}
		}
		return &Tensor{DType: Strings, Shape: shape, Text: text.(*array.LargeString)}, nil
	case *arrow.NullType:
		return &Tensor{DType: Float64, Shape: shape, Data: fill(room(8), math.NaN())}, nil
	case *arrow.BooleanType:
		return bools(chunks, room, shape, c.NullN() > 0)
	case *arrow.TimestampType:
		return times(chunks, DType{Kind: Datetime, Size: 8, Unit: "ns"}, int64(x.Unit.Multiplier()), room, shape)
	case *arrow.DurationType:
		return times(chunks, DType{Kind: Timedelta, Size: 8, Unit: "ns"}, int64(x.Unit.Multiplier()), room, shape)
	case *arrow.Time32Type:
		return times(chunks, DType{Kind: Timedelta, Size: 8, Unit: "ns"}, int64(x.Unit.Multiplier()), room, shape)
	case *arrow.Time64Type:
		return times(chunks, DType{Kind: Timedelta, Size: 8, Unit: "ns"}, int64(x.Unit.Multiplier()), room, shape)
	case *arrow.Date32Type:
		return times(chunks, DType{Kind: Datetime, Size: 8, Unit: "ns"}, int64(24*time.Hour), room, shape)
	case *arrow.Date64Type:
		return times(chunks, DType{Kind: Datetime, Size: 8, Unit: "ns"}, int64(time.Millisecond), room, shape)
	}
	for d, p := range primitives {
		if p.ID() != dt.ID() {
			continue
		}
		if c.NullN() == 0 {
			return joined(chunks, d, room, shape), nil
		}
		return withNaN(chunks, d, room, shape), nil
	}
	return nil, status.Errorf(status.NotImplemented, "a data frame has no place for %s", dt).
		WithHint("--type table keeps it, --columns leaves columns out")
}

// values returns the elements of an array of a fixed width.
func values(a arrow.Array, width int) []byte {
	data := a.Data()
	if a.Len() == 0 || data.Buffers()[1] == nil {
		return nil
	}
	return data.Buffers()[1].Bytes()[data.Offset()*width : (data.Offset()+a.Len())*width]
}

func joined(chunks []arrow.Array, d DType, room func(int) []byte, shape []int64) *Tensor {
	if len(chunks) == 1 {
		return &Tensor{DType: d, Shape: shape, Data: values(chunks[0], d.Size)}
	}
	out := room(d.Size)
	at := 0
	for _, c := range chunks {
		at += copy(out[at:], values(c, d.Size))
	}
	return &Tensor{DType: d, Shape: shape, Data: out}
}

// withNaN returns numbers of which some are null: floats with NaN.
func withNaN(chunks []arrow.Array, d DType, room func(int) []byte, shape []int64) *Tensor {
	if d == Float32 {
		b := room(4)
		out := slice[float32](b)
		at := 0
		for _, c := range chunks {
			copy(b[at*4:], values(c, 4))
			for i := range c.Len() {
				if c.IsNull(i) {
					out[at+i] = float32(math.NaN())
				}
			}
			at += c.Len()
		}
		return &Tensor{DType: d, Shape: shape, Data: b}
	}
	b := room(8)
	out := slice[float64](b)
	at := 0
	for _, c := range chunks {
		x := &Tensor{DType: d, Data: values(c, d.Size)}
		for i := range c.Len() {
			switch {
			case c.IsNull(i):
				out[at] = math.NaN()
			default:
				switch v := x.At(i).(type) {
				case int64:
					out[at] = float64(v)
				case uint64:
					out[at] = float64(v)
				case float64:
					out[at] = v
				}
			}
			at++
		}
	}
	return &Tensor{DType: Float64, Shape: shape, Data: b}
}

// bools returns a byte a value; with nulls they are floats: 0, 1 and NaN.
func bools(chunks []arrow.Array, room func(int) []byte, shape []int64, nulls bool) (*Tensor, error) {
	if nulls {
		b := room(8)
		out := slice[float64](b)
		at := 0
		for _, c := range chunks {
			for i := range c.Len() {
				switch x := c.(*array.Boolean); {
				case x.IsNull(i):
					out[at] = math.NaN()
				case x.Value(i):
					out[at] = 1
				default:
					out[at] = 0
				}
				at++
			}
		}
		return &Tensor{DType: Float64, Shape: shape, Data: b}, nil
	}
	b := room(1)
	at := 0
	for _, c := range chunks {
		for i := range c.Len() {
			b[at] = 0
			if c.(*array.Boolean).Value(i) {
				b[at] = 1
			}
			at++
		}
	}
	return &Tensor{DType: Bools, Shape: shape, Data: b}, nil
}

// times returns counts of nanoseconds.
func times(chunks []arrow.Array, d DType, per int64, room func(int) []byte, shape []int64) (*Tensor, error) {
	b := room(8)
	out := slice[int64](b)
	at := 0
	for _, c := range chunks {
		width := c.DataType().(arrow.FixedWidthDataType).BitWidth() / 8
		x := values(c, width)
		for i := range c.Len() {
			v := int64(math.MinInt64)
			if c.IsValid(i) {
				v = signed(x[i*width : (i+1)*width])
				if v > math.MaxInt64/per || v < -math.MaxInt64/per {
					return nil, status.Errorf(status.Invalid, "row %d: %s is out of the range of %s", at+1, c.ValueStr(i), d).
						WithHint("--type table keeps it")
				}
				v *= per
			}
			out[at] = v
			at++
		}
	}
	return &Tensor{DType: d, Shape: shape, Data: b}, nil
}

func fill(b []byte, v float64) []byte {
	x := slice[float64](b)
	for i := range x {
		x[i] = v
	}
	return b
}
