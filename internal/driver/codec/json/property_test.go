package json

import (
	"bytes"
	stdjson "encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/decimal256"
	"github.com/apache/arrow-go/v18/arrow/float16"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"pgregory.net/rapid"

	"github.com/v6d-go/v6d/typed"
)

// draw appends a value, or null, to a builder of any type that is read.
func draw(t *rapid.T, b array.Builder, null bool) {
	if null && rapid.IntRange(0, 3).Draw(t, "null") == 0 || b.Type().ID() == arrow.NULL {
		b.AppendNull()
		return
	}
	i64 := func() int64 {
		if rapid.Bool().Draw(t, "small") {
			return rapid.Int64Range(-100000, 100000).Draw(t, "v")
		}
		return rapid.Int64().Draw(t, "v")
	}
	float := func() float64 {
		return rapid.Float64().Filter(func(f float64) bool { return !math.IsInf(f, 0) && !math.IsNaN(f) }).Draw(t, "v")
	}
	text := func() string { return rapid.String().Draw(t, "v") }
	switch b := b.(type) {
	case *array.BooleanBuilder:
		b.Append(rapid.Bool().Draw(t, "v"))
	case *array.Int8Builder:
		b.Append(int8(i64()))
	case *array.Int16Builder:
		b.Append(int16(i64()))
	case *array.Int32Builder:
		b.Append(int32(i64()))
	case *array.Int64Builder:
		b.Append(i64())
	case *array.Uint8Builder:
		b.Append(uint8(i64()))
	case *array.Uint16Builder:
		b.Append(uint16(i64()))
	case *array.Uint32Builder:
		b.Append(uint32(i64()))
	case *array.Uint64Builder:
		b.Append(uint64(i64()))
	case *array.Float16Builder:
		b.Append(float16.FromBits(rapid.Uint16().Filter(func(h uint16) bool { return h>>10&0x1f != 0x1f }).Draw(t, "v")))
	case *array.Float32Builder:
		b.Append(rapid.Float32().Filter(func(f float32) bool { return f-f == 0 }).Draw(t, "v"))
	case *array.Float64Builder:
		b.Append(float())
	case *array.StringBuilder:
		b.Append(text())
	case *array.LargeStringBuilder:
		b.Append(text())
	case *array.BinaryBuilder:
		b.Append([]byte(text()))
	case *array.FixedSizeBinaryBuilder:
		b.Append(rapid.SliceOfN(rapid.Byte(), 3, 3).Draw(t, "v"))
	case *array.Date32Builder:
		b.Append(arrow.Date32(i64()))
	case *array.Date64Builder:
		b.Append(arrow.Date64(rapid.Int64Range(-1e6, 1e7).Draw(t, "v") * 86400e3))
	case *array.Time32Builder:
		b.Append(arrow.Time32(i64()))
	case *array.Time64Builder:
		b.Append(arrow.Time64(i64()))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(i64()))
	case *array.DurationBuilder:
		b.Append(arrow.Duration(i64()))
	case *array.Decimal128Builder:
		b.Append(decimal128.FromI64(i64()))
	case *array.Decimal256Builder:
		b.Append(decimal256.FromI64(i64()))
	case array.ListLikeBuilder:
		b.Append(true)
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			draw(t, b.ValueBuilder(), true)
		}
	default:
		t.Fatalf("no values of %T", b)
	}
}

var leaves = []arrow.DataType{
	arrow.Null, arrow.FixedWidthTypes.Boolean, arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64,
	arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Uint64,
	arrow.FixedWidthTypes.Float16, arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64, arrow.BinaryTypes.String, arrow.BinaryTypes.LargeString,
	arrow.BinaryTypes.Binary, arrow.BinaryTypes.LargeBinary, &arrow.FixedSizeBinaryType{ByteWidth: 3}, arrow.FixedWidthTypes.Date32, arrow.FixedWidthTypes.Date64,
	arrow.FixedWidthTypes.Time32s, arrow.FixedWidthTypes.Time32ms, arrow.FixedWidthTypes.Time64us, arrow.FixedWidthTypes.Time64ns,
	arrow.FixedWidthTypes.Timestamp_s, arrow.FixedWidthTypes.Timestamp_ms, arrow.FixedWidthTypes.Timestamp_us, arrow.FixedWidthTypes.Timestamp_ns,
	&arrow.TimestampType{Unit: arrow.Second}, &arrow.TimestampType{Unit: arrow.Nanosecond}, arrow.FixedWidthTypes.Duration_s, arrow.FixedWidthTypes.Duration_ns,
	&arrow.Decimal128Type{Precision: 38, Scale: 5}, &arrow.Decimal128Type{Precision: 38, Scale: -2}, &arrow.Decimal256Type{Precision: 76, Scale: 30},
}

// inferred are the types that are inferred again of what was written.
var inferred = []arrow.DataType{
	arrow.FixedWidthTypes.Boolean, arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Float64, arrow.BinaryTypes.LargeString,
}

// drawTable makes a table of some of the types, and lists of them. The first row
// has values, if full is set, from which the types can be inferred.
func drawTable(t *rapid.T, of []arrow.DataType, full bool) *typed.Table {
	names := rapid.SliceOfNDistinct(rapid.String(), 1, 5, rapid.ID).Draw(t, "names")
	rows := rapid.IntRange(1, 8).Draw(t, "rows")
	var fields []arrow.Field
	var columns []arrow.Array
	for _, name := range names {
		dt := rapid.SampledFrom(of).Draw(t, "type")
		lists := rapid.IntRange(0, 2).Draw(t, "lists")
		for range lists {
			dt = arrow.LargeListOf(dt)
		}
		b := array.NewBuilder(memory.DefaultAllocator, dt)
		for i := range rows {
			if i > 0 || !full {
				draw(t, b, true)
				continue
			}
			inner := b
			for range lists {
				l := inner.(array.ListLikeBuilder)
				l.Append(true)
				inner = l.ValueBuilder()
			}
			draw(t, inner, false)
		}
		fields = append(fields, arrow.Field{Name: name, Type: dt, Nullable: true})
		columns = append(columns, b.NewArray())
	}
	s := arrow.NewSchema(fields, nil)
	return typed.NewTable(s, array.NewRecordBatch(s, columns, int64(rows)))
}

// lines writes a table, and checks that every line is what encoding/json takes.
func lines(t *rapid.T, x *typed.Table) string {
	var b strings.Builder
	if err := WriteTable(&b, x); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if !stdjson.Valid([]byte(line)) {
			t.Fatalf("%s is no JSON", line)
		}
	}
	return b.String()
}

// TestInferredRoundTrip writes tables and reads them, without being told the types.
func TestInferredRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawTable(t, inferred, true)
		text := lines(t, x)
		y, err := ReadTable(strings.NewReader(text), Options{})
		if err != nil || !y.Schema.Equal(x.Schema) || !array.RecordEqual(x.Batches[0], y.Batches[0]) {
			t.Fatalf("%s\nbecame %v, %v\nof\n%s", show(x), y, err, text)
		}
	})
}

// TestTypedRoundTrip writes tables and reads them with their types, as lines and
// as an array.
func TestTypedRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawTable(t, leaves, false)
		types := map[string]arrow.DataType{}
		for _, f := range x.Schema.Fields() {
			types[f.Name] = f.Type
		}
		text := lines(t, x)
		var list bytes.Buffer
		if err := WriteValue(&list, x); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{text, list.String()} {
			y, err := ReadTable(strings.NewReader(text), Options{Types: types})
			if err != nil || !y.Schema.Equal(x.Schema) || !array.RecordEqual(x.Batches[0], y.Batches[0]) {
				t.Fatalf("%s\nbecame %v, %v\nof\n%s", show(x), y, err, text)
			}
		}
	})
}

// drawValue makes what ReadValue can return.
func drawValue(t *rapid.T, depth int, plain bool) any {
	kind := rapid.IntRange(0, 7).Draw(t, "kind")
	if depth > 3 {
		kind %= 6
	}
	var v any
	switch kind {
	case 1:
		v = rapid.Bool().Draw(t, "v")
	case 2:
		v = rapid.Int64().Draw(t, "v")
	case 3:
		v = rapid.Uint64Min(1<<63).Draw(t, "v")
	case 4:
		v = rapid.Float64().Filter(func(f float64) bool { return f-f == 0 }).Draw(t, "v")
	case 5:
		v = rapid.String().Draw(t, "v")
	case 6:
		items := []any{}
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			items = append(items, drawValue(t, depth+1, plain))
		}
		if plain {
			return items
		}
		return &typed.Sequence{Items: items}
	case 7:
		d := typed.Dict{}
		for _, k := range rapid.SliceOfNDistinct(rapid.String(), 0, 12, rapid.ID).Draw(t, "keys") {
			d = append(d, typed.Pair{Key: k, Value: drawValue(t, depth+1, true)})
		}
		return d
	}
	if plain {
		return v
	}
	if v == nil {
		return typed.None{}
	}
	return typed.Scalar{Value: v}
}

func TestValueRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawValue(t, 0, false)
		var b bytes.Buffer
		if err := WriteValue(&b, v); err != nil || !stdjson.Valid(b.Bytes()) {
			t.Fatalf("%v: %s", err, b.String())
		}
		text := b.String()
		if got, err := ReadValue(&b); err != nil || !reflect.DeepEqual(got, v) {
			t.Fatalf("%#v became %#v, %v, of %s", v, got, err, text)
		}
	})
}

// TestHalf goes through all floats of 16 bits.
func TestHalf(t *testing.T) {
	for h := range 1 << 16 {
		if h>>10&0x1f == 0x1f {
			continue
		}
		if got := half(typed.Half(uint16(h))); got != uint16(h) {
			t.Fatalf("%#x became %#x", h, got)
		}
	}
	for v, want := range map[float64]uint16{0x1p-25: 0, 0x1.8p-25: 1, 0x1.8p-24: 2, 0x1.ffep-15: 0x400, 65519: 0x7bff, 2049: 0x6800, 2051: 0x6802, -0x1p-30: 0x8000} {
		if got := half(v); got != want {
			t.Errorf("%v became %#x, not %#x", v, got, want)
		}
	}
}

func FuzzReadTable(f *testing.F) {
	for _, s := range []string{
		"{\"a\":1}\n{\"a\":2.5,\"b\":[1,null]}", "[{\"a\":\"x\"},{\"a\":null}]", `{"a":{"b":[1e400,-0]},"a":"\ud834\udd1e"}`, "\xef\xbb\xbf\r\n{\"\":true}\n\n",
		`{"a":18446744073709551615,"b":[[],[[]]]}`, `{"a":[1,"x",{"y" : 2}]}`,
	} {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s), uint8(len(s)))
	}
	f.Fuzz(func(t *testing.T, in []byte, pick uint8) {
		o := Options{}
		if int(pick) < len(leaves) {
			o.Types = map[string]arrow.DataType{"a": leaves[pick]}
		}
		x, err := ReadTable(bytes.NewReader(in), o)
		trimmed := bytes.TrimPrefix(in, []byte("\xef\xbb\xbf"))
		if err != nil {
			if o.Types == nil {
				mustBeBad(t, trimmed)
			}
			return
		}
		if err := typed.Validate(array.RecordToStructArray(x.Batches[0])); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := WriteTable(&b, x); err != nil {
			t.Fatal(err)
		}
		text := b.String()
		o.Types = map[string]arrow.DataType{}
		for _, c := range x.Schema.Fields() {
			o.Types[c.Name] = c.Type
		}
		y, err := ReadTable(&b, o)
		if err != nil || !y.Schema.Equal(x.Schema) || !partDays(x) && !array.RecordEqual(x.Batches[0], y.Batches[0]) {
			t.Fatalf("%s\nbecame %v, %v, of\n%s", show(x), y, err, text)
		}
	})
}

// partDays reports whether a table has dates of which the text loses what is no
// whole day.
func partDays(x *typed.Table) bool {
	for i := range x.Schema.NumFields() {
		if d, ok := x.Batches[0].Column(i).(*array.Date64); ok {
			for k := range d.Len() {
				if d.IsValid(k) && int64(d.Value(k))%86400e3 != 0 {
					return true
				}
			}
		}
	}
	return false
}

// mustBeBad checks that encoding/json refuses an array as well, unless it has what
// only ReadTable does not take.
func mustBeBad(t *testing.T, in []byte) {
	var rows []map[string]stdjson.RawMessage
	if !bytes.HasPrefix(in, []byte("[")) || bytes.Contains(in, []byte("[[[[[[[")) || bytes.Contains(in, []byte("null")) {
		return
	}
	if stdjson.Unmarshal(in, &rows) == nil && len(rows) > 0 && bytes.Equal(bytes.ToValidUTF8(in, nil), in) && len(in) < 1<<10 {
		t.Fatalf("encoding/json takes %q", in)
	}
}

func FuzzReadValue(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,null,true,"x"],"b":{"c":18446744073709551615}}`, "[[],{}]", `"\ud834\udd1e\n"`, "-0.0", "1e400", "\xef\xbb\xbf null "} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := ReadValue(bytes.NewReader(in))
		trimmed := bytes.TrimPrefix(in, []byte("\xef\xbb\xbf"))
		if err != nil {
			var std any
			if stdjson.Unmarshal(trimmed, &std) == nil && len(in) < 1<<7 && bytes.Equal(bytes.ToValidUTF8(trimmed, nil), trimmed) {
				t.Fatalf("%v, but encoding/json takes %q", err, in)
			}
			return
		}
		if !stdjson.Valid(trimmed) {
			t.Fatalf("encoding/json refuses %q", in)
		}
		var b bytes.Buffer
		if err := WriteValue(&b, v); err != nil {
			t.Fatal(err)
		}
		text := b.String()
		if again, err := ReadValue(&b); err != nil || !reflect.DeepEqual(again, v) {
			t.Fatalf("%q became %#v, %v", text, again, err)
		}
	})
}
