package csv_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"pgregory.net/rapid"

	"github.com/v6d-go/v6d/internal/driver/codec/csv"
	"github.com/v6d-go/v6d/typed"
)

func read(t testing.TB, text string, o csv.Options) (*typed.Table, error) {
	t.Helper()
	o.Size = int64(len(text))
	return csv.Read(t.Context(), iotest.HalfReader(strings.NewReader(text)), o)
}

// flat writes a table as its types and columns.
func flat(t *typed.Table) string {
	var b strings.Builder
	for i, f := range t.Schema.Fields() {
		fmt.Fprintf(&b, "%s %s", f.Name, f.Type)
		for _, batch := range t.Batches {
			fmt.Fprintf(&b, " %v", batch.Column(i))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name, text string
		o          csv.Options
		want       string
	}{
		{
			"types", "i,f,b,d,t,ts,s\n1,1.5,true,2020-02-29,12:30:01,2020-01-01T00:00:01,x\n-2,1e3,FALSE,1969-12-31,00:00:00,2020-01-01 00:00,\"a,\"\"b\"\"\"\n",
			csv.Options{},
			"i int64 [1 -2]\nf float64 [1.5 1000]\nb bool [true false]\nd date32 [2020-02-29 1969-12-31]\nt time32[s] [45001 0]\nts timestamp[s] [1577836801 1577836800]\ns large_utf8 [\"x\" \"a,\\\"b\\\"\"]\n",
		},
		{
			"fractions and zones", "a,b\n2020-01-01T00:00:00.5,2020-01-01T00:00:00+01:00\n",
			csv.Options{},
			"a timestamp[ms] [1577836800500]\nb timestamp[s, tz=UTC] [1577833200]\n",
		},
		{
			"nulls", "i,f,s,n\n,NaN,,\n1,2.5,\"\",NA\nNULL,,NaN,\n",
			csv.Options{},
			"i int64 [(null) 1 (null)]\nf float64 [(null) 2.5 (null)]\ns large_utf8 [(null) \"\" \"NaN\"]\nn null [(null) (null) (null)]\n",
		},
		{"own nulls", "s\n-\nx\n", csv.Options{Nulls: []string{"-"}}, "s large_utf8 [(null) \"x\"]\n"},
		{"bom, crlf, blank lines", "\xef\xbb\xbfa,b\r\n\r\n1,2\r\n\n3,4", csv.Options{}, "a int64 [1 3]\nb int64 [2 4]\n"},
		{"line breaks in quotes", "a,b\n\"x\r\ny\",1\n\"\n\",2\n", csv.Options{}, "a large_utf8 [\"x\\r\\ny\" \"\\n\"]\nb int64 [1 2]\n"},
		{"header only", "a,b\n", csv.Options{}, "a null\nb null\n"},
		{"no header", "1,x\n2,y\n", csv.Options{NoHeader: true}, "f0 int64 [1 2]\nf1 large_utf8 [\"x\" \"y\"]\n"},
		{"tabs", "a\tb\n1\t2\n", csv.Options{}, "a int64 [1]\nb int64 [2]\n"},
		{"semicolons", "a;b\n1,5;2\n", csv.Options{}, "a large_utf8 [\"1,5\"]\nb int64 [2]\n"},
		{"quotes as characters", "a,b\n5\" disk,1\n\"x,2\n", csv.Options{NoQuotes: true}, "a large_utf8 [\"5\\\" disk\" \"\\\"x\"]\nb int64 [1 2]\n"},
		{"quote in the middle", "a,b\nx\"y\"z,1\n", csv.Options{}, "a large_utf8 [\"x\\\"y\\\"z\"]\nb int64 [1]\n"},
		{"latin1", "a\nb\xe4r\n", csv.Options{Latin1: true}, "a large_utf8 [\"bär\"]\n"},
		{"columns", "a,b,c\n1,2,3\n", csv.Options{Columns: []string{"c", "a"}}, "c int64 [3]\na int64 [1]\n"},
		{
			"schema", "a,b\n1,2\n",
			csv.Options{Types: map[string]arrow.DataType{"a": arrow.BinaryTypes.String, "b": arrow.PrimitiveTypes.Uint8}},
			"a large_utf8 [\"1\"]\nb uint8 [2]\n",
		},
		{
			"large numbers", "a,b\n9223372036854775807,9223372036854775808\n-9223372036854775808,1\n",
			csv.Options{},
			"a int64 [9223372036854775807 -9223372036854775808]\nb uint64 [9223372036854775808 1]\n",
		},
		{
			"numbers that no type holds", "id,f\n123456789012345678901234567890,18446744073709551616\n1,0.5\n",
			csv.Options{},
			"id large_utf8 [\"123456789012345678901234567890\" \"1\"]\nf float64 [1.8446744073709552e+19 0.5]\n",
		},
		{"digits of a fraction", "a,b\n9999-12-31 00:00:00.123,2020-01-01T00:00:00.123456\n", csv.Options{}, "a timestamp[ms] [253402214400123]\nb timestamp[us] [1577836800123456]\n"},
		{"windows-1252", "a\n\x80uro \x93q\x94\n", csv.Options{Latin1: true}, "a large_utf8 [\"€uro “q”\"]\n"},
		{"unicode names", "größe,数\n1,2\n", csv.Options{}, "größe int64 [1]\n数 int64 [2]\n"},
		{"no digits", "a\n.\n-\n", csv.Options{}, "a large_utf8 [\".\" \"-\"]\n"},
		{"hexadecimals are text", "a\n0x10\n1_000\n", csv.Options{}, "a large_utf8 [\"0x10\" \"1_000\"]\n"},
	} {
		got, err := read(t, c.text, c.o)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if flat(got) != c.want {
			t.Errorf("%s:\n%swant\n%s", c.name, flat(got), c.want)
		}
	}
}

func TestBadInput(t *testing.T) {
	many := "a,b\n" + strings.Repeat("1,2\n", 400_000)
	for _, c := range []struct {
		name, text string
		o          csv.Options
		want       string
	}{
		{"empty", "", csv.Options{}, "it is empty"},
		{"ragged", "a,b\n1,2\n3\n", csv.Options{}, "row 2 (line 3): 1 fields, not 2"},
		{"too many", "a,b\n1,2,3\n", csv.Options{}, "row 1 (line 2): 3 fields, not 2"},
		{"wrong type, late", many + "1,x\n" + many, csv.Options{}, `row 400001 (line 400002), column "b": "x" is no int64`},
		{"ragged, late", many + "1\n", csv.Options{}, "row 400001 (line 400002): 1 fields, not 2"},
		{"open quote", "a,b\n1,\"x\n", csv.Options{}, "row 1 (line 2): a quoted field is not closed"},
		{"after a quote", "a,b\n1,\"x\"y\n", csv.Options{}, `row 1 (line 2): field 2 goes on after its closing quote: "y"`},
		{"latin1", "a\nx\nb\xe4r\n", csv.Options{}, `row 2 (line 3), column "a": "b\xe4r" is not UTF-8`},
		{"utf-16", "\xff\xfea\x00\n\x00", csv.Options{}, "it is UTF-16"},
		{"carriage returns", "a,b\r1,2\r", csv.Options{}, "carriage returns alone"},
		{"no such column", "a,b\n1,2\n", csv.Options{Columns: []string{"c"}}, `there is no column "c"`},
		{"no such date", "d\n2020-02-29\n2021-02-29\n", csv.Options{Types: map[string]arrow.DataType{"d": arrow.FixedWidthTypes.Date32}}, `row 2 (line 3), column "d": "2021-02-29" is no date32`},
		{"date out of range", "d\n9999-01-01T00:00:00.123456789\n", csv.Options{}, `column "d": "9999-01-01T00:00:00.123456789" is no timestamp[ns]`},
		{"not in the type", "a\n300\n", csv.Options{Types: map[string]arrow.DataType{"a": arrow.PrimitiveTypes.Uint8}}, `"300" is no uint8`},
		{"line breaks before", "a,b\n\"\n\n\",1\n\n2,x,\n", csv.Options{}, "row 2 (line 6): 3 fields"},
	} {
		_, err := read(t, c.text, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	if _, err := csv.Read(t.Context(), io.MultiReader(strings.NewReader(many), iotest.ErrReader(io.ErrUnexpectedEOF)), csv.Options{Size: -1}); err == nil {
		t.Error("an error of the source is lost")
	}
}

// TestBlocks reads the same text in one block and in many.
func TestBlocks(t *testing.T) {
	var b strings.Builder
	b.WriteString("id,text,value\n")
	for i := range 300_000 {
		fmt.Fprintf(&b, "%d,\"line %d\nof \"\"two\"\"\",%d.25\n", i, i, i)
	}
	got, err := csv.Read(t.Context(), strings.NewReader(b.String()), csv.Options{Size: int64(b.Len())})
	if err != nil {
		t.Fatal(err)
	}
	if got.Rows() != 300_000 || len(got.Batches) < 4 {
		t.Fatalf("%d rows in %d batches", got.Rows(), len(got.Batches))
	}
	var out bytes.Buffer
	if err := csv.Write(&out, got, csv.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if out.String() != b.String() {
		t.Errorf("it was not written as it was read")
	}
}

// TestStrayQuotes: a quote that begins no field does not hide where records end,
// in whatever blocks they are.
func TestStrayQuotes(t *testing.T) {
	var b strings.Builder
	b.WriteString("size;text;n\n")
	for i := range 150_000 {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&b, "5\" disk;\"a\nb;\"\"c\"\"\";%d\n", i)
		case 1:
			fmt.Fprintf(&b, "7;x\"y;%d\r\n", i)
		default:
			fmt.Fprintf(&b, "\"\n\";\"\";%d\n", i)
		}
	}
	got, err := csv.Read(t.Context(), strings.NewReader(b.String()), csv.Options{Size: int64(b.Len())})
	if err != nil {
		t.Fatal(err)
	}
	if got.Rows() != 150_000 || len(got.Batches) < 3 {
		t.Errorf("%d rows in %d batches", got.Rows(), len(got.Batches))
	}
	n := int64(0)
	for _, batch := range got.Batches {
		for i, v := range batch.Column(2).(*array.Int64).Int64Values() {
			if v != n {
				t.Fatalf("row %d of a batch is %d, not %d", i, v, n)
			}
			n++
		}
	}
}

// TestRoundTrip: what is written is read back.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cells := rapid.SliceOfN(rapid.OneOf(rapid.Just(""), rapid.String(), rapid.SampledFrom([]string{"\"", "a,b", "\n", " x", "1", "true", "NULL", "\r\n", "2020-01-01"})), 1, 40).Draw(t, "cells")
		width := rapid.IntRange(1, len(cells)).Draw(t, "width")
		var text strings.Builder
		for i := range width {
			if i > 0 {
				text.WriteByte(',')
			}
			fmt.Fprintf(&text, "c%d", i)
		}
		text.WriteByte('\n')
		for i := 0; i+width <= len(cells); i += width {
			for k, c := range cells[i : i+width] {
				if k > 0 {
					text.WriteByte(',')
				}
				text.WriteString(`"` + strings.ReplaceAll(c, `"`, `""`) + `"`)
			}
			text.WriteByte('\n')
		}
		types := map[string]arrow.DataType{}
		for i := range width {
			types[fmt.Sprintf("c%d", i)] = arrow.BinaryTypes.LargeString
		}
		first, err := csv.Read(t.Context(), strings.NewReader(text.String()), csv.Options{Size: -1, Types: types})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := csv.Write(&out, first, csv.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		again, err := csv.Read(t.Context(), &out, csv.Options{Size: -1, Types: types})
		if err != nil {
			t.Fatal(err)
		}
		if flat(first) != flat(again) || first.Rows() != int64(len(cells)/width) {
			t.Fatalf("%s became %s", flat(first), flat(again))
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{"", "a,b\n1,2\n", "a\n\"", "\"a\nb\",c\r\n1,\"\"\"\"\n", "a;b\n2020-01-01T00:00:00Z;12:00\n", "\xef\xbb\xbf\n\n", "a\n1\nx\n"} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, noHeader bool) {
		table, err := csv.Read(t.Context(), bytes.NewReader(b), csv.Options{Size: int64(len(b)), NoHeader: noHeader})
		if err != nil {
			return
		}
		if len(table.Schema.Fields()) > 0 {
			if err := csv.Write(io.Discard, table, csv.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
