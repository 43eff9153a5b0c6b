//go:build linux

package typed_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"pgregory.net/rapid"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/typed"
)

// arrowTypes are the types of which columns are drawn.
var arrowTypes = []arrow.DataType{
	arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64,
	arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Uint64,
	arrow.FixedWidthTypes.Float16, arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64, arrow.FixedWidthTypes.Boolean,
	arrow.FixedWidthTypes.Date32, arrow.FixedWidthTypes.Date64, arrow.FixedWidthTypes.Time32ms, arrow.FixedWidthTypes.Time64ns,
	arrow.FixedWidthTypes.Timestamp_us, &arrow.TimestampType{Unit: arrow.Second}, arrow.FixedWidthTypes.Duration_ms,
	arrow.BinaryTypes.String, arrow.BinaryTypes.LargeString, arrow.BinaryTypes.Binary, arrow.BinaryTypes.LargeBinary, arrow.BinaryTypes.StringView,
	&arrow.FixedSizeBinaryType{ByteWidth: 3}, &arrow.Decimal128Type{Precision: 20, Scale: 2}, arrow.Null,
	arrow.ListOf(arrow.PrimitiveTypes.Int32), arrow.LargeListOf(arrow.BinaryTypes.String), arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float64),
	&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String},
}

// drawArray draws an array of n elements, as a slice of a longer one.
func drawArray(t *rapid.T, dt arrow.DataType, n int, mem memory.Allocator) arrow.Array {
	before, after := rapid.IntRange(0, 9).Draw(t, "before"), rapid.IntRange(0, 3).Draw(t, "after")
	nulls := rapid.SampledFrom([]int{0, 0, 30, 100}).Draw(t, "nulls")
	b := array.NewBuilder(mem, dt)
	defer b.Release()
	var add func(b array.Builder, i int)
	add = func(b array.Builder, i int) {
		if rapid.IntRange(1, 100).Draw(t, "null") <= nulls {
			b.AppendNull()
			return
		}
		v := rapid.IntRange(0, 120).Draw(t, "value")
		switch x := b.(type) {
		case *array.NullBuilder:
			x.AppendNull()
		case *array.FixedSizeBinaryBuilder:
			x.Append([]byte{byte(v), 0, 255})
		case *array.BinaryBuilder:
			x.Append(bytes.Repeat([]byte{byte(v)}, v%7))
		case *array.StringBuilder:
			x.Append(fmt.Sprintf("ä%03d", v)[:2+v%3])
		case *array.LargeStringBuilder:
			x.Append(fmt.Sprintf("ä%03d", v)[:2+v%3])
		case *array.StringViewBuilder:
			x.Append(fmt.Sprint("a long string that is not inlined ", v))
		case *array.BinaryDictionaryBuilder:
			if err := x.AppendString(fmt.Sprint(v % 3)); err != nil {
				t.Fatal(err)
			}
		case *array.ListBuilder:
			x.Append(true)
			for k := range v % 4 {
				add(x.ValueBuilder(), k)
			}
		case *array.LargeListBuilder:
			x.Append(true)
			for k := range v % 4 {
				add(x.ValueBuilder(), k)
			}
		case *array.FixedSizeListBuilder:
			x.Append(true)
			add(x.ValueBuilder(), 0)
			add(x.ValueBuilder(), 1)
		case *array.BooleanBuilder:
			x.Append(v%2 == 0)
		case *array.Date32Builder:
			x.Append(arrow.Date32(v))
		case *array.Date64Builder:
			x.Append(arrow.Date64(v * 86400000))
		case *array.Time32Builder:
			x.Append(arrow.Time32(v))
		case *array.Time64Builder:
			x.Append(arrow.Time64(v))
		case *array.TimestampBuilder:
			x.Append(arrow.Timestamp(v))
		case *array.DurationBuilder:
			x.Append(arrow.Duration(v))
		default:
			if err := b.AppendValueFromString(fmt.Sprint(v)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range before + n + after {
		add(b, i)
	}
	whole := b.NewArray()
	return array.NewSlice(whole, int64(before), int64(before+n))
}

// TestTables: a table that is put is got as it was, but for the types that are
// stored as others.
func TestTables(t *testing.T) {
	c := connect(t)
	rapid.Check(t, func(t *rapid.T) {
		ctx := t.Context()
		pool := typed.NewPool(ctx, c)
		mem := memory.DefaultAllocator
		if rapid.Bool().Draw(t, "in the pool") {
			mem = pool
		}
		types := rapid.SliceOfN(rapid.SampledFrom(arrowTypes), 0, 5).Draw(t, "types")
		fields := make([]arrow.Field, len(types))
		for i, dt := range types {
			fields[i] = arrow.Field{Name: fmt.Sprintf("größe %d", i), Type: dt, Nullable: true}
		}
		meta := arrow.NewMetadata([]string{"k"}, []string{"v"})
		table := typed.NewTable(arrow.NewSchema(fields, &meta))
		for range rapid.IntRange(0, 3).Draw(t, "batches") {
			n := rapid.SampledFrom([]int{0, 1, 7, 8, 40}).Draw(t, "rows")
			columns := make([]arrow.Array, len(types))
			for i, dt := range types {
				columns[i] = drawArray(t, dt, n, mem)
			}
			table.Batches = append(table.Batches, array.NewRecordBatch(table.Schema, columns, int64(n)))
		}
		id, err := typed.PutFrom(ctx, c, nil, pool, table)
		if err != nil {
			t.Fatal(err)
		}
		o, err := typed.Get(ctx, c, id)
		if err != nil {
			t.Fatal(err)
		}
		got := o.Value.(*typed.Table)
		if got.Rows() != table.Rows() || len(got.Batches) != max(len(table.Batches), 1) {
			t.Fatalf("%d rows in %d batches became %d in %d", table.Rows(), len(table.Batches), got.Rows(), len(got.Batches))
		}
		if v, _ := got.Schema.Metadata().GetValue("k"); v != "v" {
			t.Fatalf("the schema's metadata is %v", got.Schema.Metadata())
		}
		for i, b := range table.Batches {
			for k, a := range b.Columns() {
				have := got.Batches[i].Column(k)
				want, err := typed.Storable(a.DataType())
				if err != nil || !arrow.TypeEqual(have.DataType(), want) {
					t.Fatalf("%s became %s, not %s: %v", a.DataType(), have.DataType(), want, err)
				}
				if err := typed.Validate(have); err != nil {
					t.Fatal(err)
				}
				for row := range a.Len() {
					if a.IsValid(row) != have.IsValid(row) || a.IsValid(row) && a.ValueStr(row) != have.ValueStr(row) {
						t.Fatalf("row %d of %s is %s, was %s", row, a.DataType(), have.ValueStr(row), a.ValueStr(row))
					}
				}
			}
		}
		if err := o.Release(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(ctx, []client.ID{id}, client.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := pool.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if st, err := c.InstanceStatus(ctx); err != nil || st.MemoryUsage != 0 {
			t.Fatalf("%d bytes are left, %v", st.MemoryUsage, err)
		}
	})
}

// drawTensor draws a tensor of any dtype and shape.
func drawTensor(t *rapid.T) *typed.Tensor {
	name := rapid.SampledFrom([]string{
		"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
		"complex64", "complex128", "datetime64[ns]", "datetime64[D]", "timedelta64[us]", "str64",
	}).Draw(t, "dtype")
	d, err := typed.ParseDType(name)
	if err != nil {
		t.Fatal(err)
	}
	x := &typed.Tensor{DType: d, Shape: rapid.SliceOfN(rapid.Int64Range(0, 3), 0, 10).Draw(t, "shape"), Fortran: rapid.Bool().Draw(t, "order")}
	x.Data = make([]byte, x.Len()*d.Size)
	for i := range x.Data {
		x.Data[i] = byte(i * 7)
		if d.Kind == typed.Bool {
			x.Data[i] &= 1
		}
		if d.Kind == typed.Unicode {
			x.Data[i] = 0
			if i%4 == 0 {
				x.Data[i] = 'a' + byte(i%20)
			}
		}
	}
	return x
}

func TestTensors(t *testing.T) {
	c := connect(t)
	rapid.Check(t, func(t *rapid.T) {
		x := drawTensor(t)
		id, err := typed.Put(t.Context(), c, x)
		if err != nil {
			t.Fatal(err)
		}
		o, err := typed.Get(t.Context(), c, id)
		if err != nil {
			t.Fatal(err)
		}
		got := o.Value.(*typed.Tensor)
		if got.DType != x.DType || fmt.Sprint(got.Shape) != fmt.Sprint(x.Shape) || got.Fortran != x.Fortran || !bytes.Equal(got.Data, x.Data) {
			t.Fatalf("%v became %v", x, got)
		}
		if err := o.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(t.Context(), []client.ID{id}, client.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestFrames: a table becomes a data frame and a table again.
func TestFrames(t *testing.T) {
	c := connect(t)
	rapid.Check(t, func(t *rapid.T) {
		ctx := t.Context()
		types := rapid.SliceOfN(rapid.SampledFrom(arrowTypes[:23]), 1, 5).Draw(t, "types")
		fields := make([]arrow.Field, len(types))
		for i, dt := range types {
			fields[i] = arrow.Field{Name: fmt.Sprint(i), Type: dt, Nullable: true}
		}
		table := typed.NewTable(arrow.NewSchema(fields, nil))
		for range rapid.IntRange(1, 3).Draw(t, "batches") {
			n := rapid.IntRange(0, 20).Draw(t, "rows")
			columns := make([]arrow.Array, len(types))
			for i, dt := range types {
				columns[i] = drawArray(t, dt, n, memory.DefaultAllocator)
			}
			table.Batches = append(table.Batches, array.NewRecordBatch(table.Schema, columns, int64(n)))
		}
		pool := typed.NewPool(ctx, c)
		f, err := table.DataFrame(pool)
		if err != nil {
			for _, dt := range types {
				if dt.ID() == arrow.BINARY || dt.ID() == arrow.LARGE_BINARY {
					return // a data frame has no place for them
				}
			}
			t.Fatal(err)
		}
		id, err := typed.PutFrom(ctx, c, nil, pool, f)
		if err != nil {
			t.Fatal(err)
		}
		o, err := typed.Get(ctx, c, id)
		if err != nil {
			t.Fatal(err)
		}
		back, err := o.Value.(*typed.DataFrame).Table()
		if err != nil {
			t.Fatal(err)
		}
		if back.Rows() != table.Rows() {
			t.Fatalf("%d rows became %d", table.Rows(), back.Rows())
		}
		for i := range types {
			was, is := table.Column(i), back.Column(i)
			if was.NullN() != is.NullN() {
				t.Fatalf("column %d of %s has %d nulls, had %d", i, types[i], is.NullN(), was.NullN())
			}
		}
		if err := o.Release(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(ctx, []client.ID{id}, client.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := pool.Close(ctx); err != nil {
			t.Fatal(err)
		}
	})
}
