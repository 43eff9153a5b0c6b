package parquet_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	goparquet "github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/v6d-go/v6d/internal/driver/codec/parquet"
	"github.com/v6d-go/v6d/typed"
)

// batch makes a record batch of columns as JSON.
func batch(t testing.TB, s *arrow.Schema, rows string) arrow.RecordBatch {
	t.Helper()
	b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s, strings.NewReader(rows))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var schema = arrow.NewSchema([]arrow.Field{
	{Name: "i", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	{Name: "größe", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "s", Type: arrow.BinaryTypes.LargeString, Nullable: true},
	{Name: "t", Type: &arrow.TimestampType{Unit: arrow.Microsecond}, Nullable: true},
	{Name: "d", Type: arrow.FixedWidthTypes.Duration_ms, Nullable: true},
	{Name: "z", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "Europe/Berlin"}, Nullable: true},
	{Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int32), Nullable: true},
}, nil)

func example(t testing.TB) *typed.Table {
	one := batch(t, schema, `[{"i":1,"größe":1.5,"s":"a","t":1577934245678000,"d":5,"z":1577934245678000,"l":[1,2]},{"i":null,"größe":null,"s":null,"t":null,"d":null,"z":null,"l":null}]`)
	two := batch(t, schema, `[{"i":3,"größe":2.5,"s":"","t":-1,"d":-7,"z":0,"l":[]}]`)
	return typed.NewTable(schema, one, two)
}

func encoded(t testing.TB, table *typed.Table) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := parquet.Write(&b, table); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(ctx context.Context, b []byte, o parquet.Options) (*typed.Table, error) {
	return parquet.Read(ctx, bytes.NewReader(b), int64(len(b)), o)
}

func flat(t *typed.Table) string {
	var b strings.Builder
	for i, name := range t.Names() {
		fmt.Fprintf(&b, "%s:", name)
		for _, batch := range t.Batches {
			fmt.Fprintf(&b, " %v", batch.Column(i))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestRoundTrip(t *testing.T) {
	table := example(t)
	b := encoded(t, table)
	got, err := read(t.Context(), b, parquet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Rows() != 3 || strings.ReplaceAll(flat(got), "] [", " ") != strings.ReplaceAll(flat(table), "] [", " ") {
		t.Errorf("%s became %s", flat(table), flat(got))
	}
	for i, f := range got.Schema.Fields() {
		want, err := typed.Storable(schema.Field(i).Type)
		if have, err2 := typed.Storable(f.Type); err != nil || err2 != nil || !arrow.TypeEqual(have, want) {
			t.Errorf("column %s is a %s, was a %s", f.Name, f.Type, schema.Field(i).Type)
		}
	}
	some, err := read(t.Context(), b, parquet.Options{Columns: []string{"s", "i"}})
	if err != nil || fmt.Sprint(some.Names()) != "[s i]" || some.Rows() != 3 {
		t.Errorf("%v, %v", some, err)
	}
	empty, err := read(t.Context(), encoded(t, typed.NewTable(schema)), parquet.Options{})
	if err != nil || empty.Rows() != 0 || len(empty.Names()) != 7 {
		t.Errorf("of no rows: %v, %v", empty, err)
	}
}

func TestBadInput(t *testing.T) {
	good := encoded(t, example(t))
	fields := []arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Int64}}
	nested := arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.StructOf(fields...), Nullable: true}}, nil)
	var structs, encrypted bytes.Buffer
	if err := parquet.Write(&structs, typed.NewTable(nested, batch(t, nested, `[{"n":{"x":1}}]`))); err != nil {
		t.Fatal(err)
	}
	props := goparquet.NewWriterProperties(goparquet.WithEncryptionProperties(goparquet.NewFileEncryptionProperties("0123456789012345")))
	numbers := arrow.NewSchema([]arrow.Field{{Name: "i", Type: arrow.PrimitiveTypes.Int64}}, nil)
	w, err := pqarrow.NewFileWriter(numbers, &encrypted, props, pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(batch(t, numbers, `[{"i":1}]`)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
		o    parquet.Options
		want string
	}{
		{"empty", nil, parquet.Options{}, "no Parquet file"},
		{"truncated", good[:len(good)-20], parquet.Options{}, "truncated"},
		{"something else", []byte("id,name\n1,a\n"), parquet.Options{}, "no Parquet file"},
		{"no such column", good, parquet.Options{Columns: []string{"x"}}, `there is no column "x"`},
		{"a structure", structs.Bytes(), parquet.Options{}, `column "n": values of type struct<x: int64> cannot be stored`},
		{"encrypted", encrypted.Bytes(), parquet.Options{}, "encrypt"},
	} {
		_, err := read(t.Context(), c.data, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

// TestDamaged changes each byte of a small file: an error, or some table, but no
// panic.
func TestDamaged(t *testing.T) {
	good := encoded(t, example(t))
	failed := 0
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 0x55
		if _, err := read(t.Context(), b, parquet.Options{}); err != nil {
			failed++
		}
	}
	if failed == 0 {
		t.Error("nothing was noticed")
	}
}

func FuzzRead(f *testing.F) {
	f.Add(encoded(f, example(f)))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := read(t.Context(), b, parquet.Options{})
		if err == nil {
			_ = flat(table)
		}
	})
}
