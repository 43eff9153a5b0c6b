package json

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/float16"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

// show writes a table as its types and columns.
func show(t *typed.Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:", t.Rows())
	for i, f := range t.Schema.Fields() {
		fmt.Fprintf(&b, " %s %s", f.Name, f.Type)
		for _, batch := range t.Batches {
			fmt.Fprintf(&b, " %v", batch.Column(i))
		}
	}
	return b.String()
}

func TestReadTable(t *testing.T) {
	types := func(pairs ...any) map[string]arrow.DataType {
		m := map[string]arrow.DataType{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(string)], _ = pairs[i+1].(arrow.DataType)
		}
		return m
	}
	for _, c := range []struct {
		name, in string
		o        Options
		want     string
	}{
		{
			"kinds", `{"n":null,"b":true,"i":1,"f":1.5,"s":"x"}` + "\n" + `{"n":null,"b":false,"i":-2,"f":2,"s":""}` + "\n",
			Options{},
			`2: n null [(null) (null)] b bool [true false] i int64 [1 -2] f float64 [1.5 2] s large_utf8 ["x" ""]`,
		},
		{
			"order of first appearance", `{"b":1}` + "\n" + `{"a":2,"b":3}` + "\n" + `{"c":4,"a":5}`,
			Options{},
			"3: b int64 [1 3 (null)] a int64 [(null) 2 5] c int64 [(null) (null) 4]",
		},
		{
			"nulls", `{"i":null,"s":"x","b":null,"f":1.0,"l":null}` + "\n" + `{"i":1,"s":null,"b":true,"f":null,"l":[1]}`,
			Options{},
			`2: i int64 [(null) 1] s large_utf8 ["x" (null)] b bool [(null) true] f float64 [1 (null)] l large_list<item: int64, nullable> [(null) [1]]`,
		},
		{"extremes", `{"a":-9223372036854775808}` + "\n" + `{"a":9223372036854775807}`, Options{}, "2: a int64 [-9223372036854775808 9223372036854775807]"},
		{"unsigned", `{"a":0}` + "\n" + `{"a":18446744073709551615}`, Options{}, "2: a uint64 [0 18446744073709551615]"},
		{"unsigned and below 0", `{"a":-1}` + "\n" + `{"a":9223372036854775808}`, Options{}, "2: a float64 [-1 9.223372036854776e+18]"},
		{"too large for integers", `{"a":18446744073709551616}` + "\n" + `{"a":-9223372036854775809}`, Options{}, "2: a float64 [1.8446744073709552e+19 -9.223372036854776e+18]"},
		{"exponents", `{"a":1e3,"b":-0,"c":-0.0,"d":1E-2}`, Options{}, "1: a float64 [1000] b int64 [0] c float64 [-0] d float64 [0.01]"},
		{"too large for floats", `{"a":1e400,"b":1,"c":[1e999]}`, Options{}, `1: a large_utf8 ["1e400"] b int64 [1] c large_list<item: large_utf8, nullable> [["1e999"]]`},
		{"a long integer", `{"a":` + strings.Repeat("9", 310) + `,"b":` + strings.Repeat("9", 305) + `}`, Options{}, `1: a large_utf8 ["` + strings.Repeat("9", 310) + `"] b float64 [1e+305]`},
		{
			"lists", `{"a":[1,2],"b":[],"c":[[1.5],null,[]],"d":["x",null]}` + "\n" + `{"a":[],"b":[],"c":[],"d":[]}`,
			Options{},
			`2: a large_list<item: int64, nullable> [[1 2] []] b large_list<item: null, nullable> [[] []] c large_list<item: large_list<item: float64, nullable>, nullable> [[[1.5] (null) []] []] d large_list<item: large_utf8, nullable> [["x" (null)] []]`,
		},
		{"objects", `{"a":{"x" : [1, "a b\"" ] , "y":null}}` + "\n" + `{"a":null}`, Options{}, `2: a large_utf8 ["{\"x\":[1,\"a b\\\"\"],\"y\":null}" (null)]`},
		{
			"mixed", `{"a":"x","b":true,"c":[1]}` + "\n" + `{"a":1.50,"b":0,"c":{}}` + "\n" + `{"a":[ 1 ],"b":null,"c":"\u0041"}`,
			Options{},
			`3: a large_utf8 ["\"x\"" "1.50" "[1]"] b large_utf8 ["true" "0" (null)] c large_utf8 ["[1]" "{}" "\"\\u0041\""]`,
		},
		{"mixed in lists", `{"a":[1,"x"]}` + "\n" + `{"a":[{"b": 1},null]}`, Options{}, `2: a large_list<item: large_utf8, nullable> [["1" "\"x\""] ["{\"b\":1}" (null)]]`},
		{"lists and others in lists", `{"a":[[1],2]}`, Options{}, `1: a large_list<item: large_utf8, nullable> [["[1]" "2"]]`},
		{"twice", `{"a":"x","a":1,"b":[1],"b":["y"]}` + "\n" + `{"a":2}`, Options{}, `2: a int64 [1 2] b large_list<item: large_utf8, nullable> [["y"] (null)]`},
		{
			"escapes", `{"\u0061\"":"\"\\\/\b\f\n\r\t\u00e9\u20AC\ud834\udd1e é"}` + "\n" + `{"a\"":"\ud800"}` + "\n" + `{"a\u0022":"\ud800\u0041\udc00"}`,
			Options{},
			`3: a" large_utf8 ["\"\\/\b\f\n\r\té€𝄞 é" "�" "�A�"]`,
		},
		{"space", " \t{ \"a\" : [ 1 , 2 ] , \"b\" : null } \r\n\r\n  \n{\"a\":[ ]}\t", Options{}, "2: a large_list<item: int64, nullable> [[1 2] []] b null [(null) (null)]"},
		{"byte order mark", "\xef\xbb\xbf{\"a\":1}\r\n", Options{}, "1: a int64 [1]"},
		{"an array", " [ {\"a\":1} ,\n{\n\"a\":2,\"b\":[\n3]}\n]\n", Options{}, "2: a int64 [1 2] b large_list<item: int64, nullable> [(null) [3]]"},
		{"an array after a byte order mark", "\xef\xbb\xbf[{\"a\":1}]", Options{}, "1: a int64 [1]"},
		{"no keys", "{}\n{ }\n", Options{}, "2:"},
		{"an empty key", `{"":1}`, Options{}, "1:  int64 [1]"},
		{"some columns", `{"a":1,"b":"x","c":[1]}` + "\n" + `{"b":"y","c":[2],"a":3}`, Options{Columns: []string{"c", "a"}}, "2: c large_list<item: int64, nullable> [[1] [2]] a int64 [1 3]"},
		{"no columns", `{"a":1}`, Options{Columns: []string{}}, "1:"},

		{
			"integers", `{"a":1,"b":2.0,"c":-3,"d":255,"e":1e2,"f":null}`,
			Options{Types: types("a", arrow.PrimitiveTypes.Int8, "b", arrow.PrimitiveTypes.Int16, "c", arrow.PrimitiveTypes.Int32, "d", arrow.PrimitiveTypes.Uint8, "e", arrow.PrimitiveTypes.Uint16, "f", arrow.PrimitiveTypes.Uint32)},
			"1: a int8 [1] b int16 [2] c int32 [-3] d uint8 [255] e uint16 [100] f uint32 [(null)]",
		},
		{
			"numbers", `{"a":1,"b":18446744073709551615,"c":1,"d":0.1,"e":1,"f":5.0}`,
			Options{Types: types("a", arrow.PrimitiveTypes.Uint64, "b", arrow.PrimitiveTypes.Uint64, "c", arrow.FixedWidthTypes.Float16, "d", arrow.PrimitiveTypes.Float32, "e", arrow.PrimitiveTypes.Float64, "f", arrow.PrimitiveTypes.Int64)},
			"1: a uint64 [1] b uint64 [18446744073709551615] c float16 [1] d float32 [0.1] e float64 [1] f int64 [5]",
		},
		{"text", `{"a":1,"b":"x","c":{"y": 1}}`, Options{Types: types("a", arrow.BinaryTypes.LargeString, "b", arrow.BinaryTypes.String, "c", arrow.BinaryTypes.String)}, `1: a large_utf8 ["1"] b utf8 ["x"] c utf8 ["{\"y\":1}"]`},
		{"mixed as text", `{"a":1}` + "\n" + `{"a":"x\n"}` + "\n" + `{"a":"(null)"}`, Options{Types: types("a", arrow.BinaryTypes.LargeString)}, `3: a large_utf8 ["1" "x\n" "(null)"]`},
		{"bytes", `{"a":"AQI=","b":"","c":"/+8="}`, Options{Types: types("a", arrow.BinaryTypes.Binary, "b", arrow.BinaryTypes.LargeBinary, "c", &arrow.FixedSizeBinaryType{ByteWidth: 2})}, `1: a binary ["\x01\x02"] b large_binary [""] c fixed_size_binary[2] ["\xff\xef"]`},
		{"dates", `{"a":"2020-02-29","b":"1969-12-31","c":-1}`, Options{Types: types("a", arrow.FixedWidthTypes.Date32, "b", arrow.FixedWidthTypes.Date64, "c", arrow.FixedWidthTypes.Date32)}, "1: a date32 [2020-02-29] b date64 [1969-12-31] c date32 [1969-12-31]"},
		{
			"times", `{"a":"12:30","b":"12:30:01.5","c":"00:00:00.000001","d":1,"e":5}`,
			Options{Types: types("a", arrow.FixedWidthTypes.Time32s, "b", arrow.FixedWidthTypes.Time32ms, "c", arrow.FixedWidthTypes.Time64us, "d", arrow.FixedWidthTypes.Time64ns, "e", arrow.FixedWidthTypes.Duration_ms)},
			"1: a time32[s] [45000] b time32[ms] [45001500] c time64[us] [1] d time64[ns] [1] e duration[ms] [5]",
		},
		{
			"timestamps", `{"a":"2020-01-02T03:04:05Z","b":"2020-01-02 03:04:05.25+02:00","c":"2020-01-02T03:04:05","d":7}`,
			Options{Types: types("a", &arrow.TimestampType{Unit: arrow.Second}, "b", arrow.FixedWidthTypes.Timestamp_ms, "c", arrow.FixedWidthTypes.Timestamp_us, "d", arrow.FixedWidthTypes.Timestamp_ns)},
			"1: a timestamp[s] [1577934245] b timestamp[ms, tz=UTC] [1577927045250] c timestamp[us, tz=UTC] [1577934245000000] d timestamp[ns, tz=UTC] [7]",
		},
		{
			"decimals", `{"a":1.5,"b":"-0.10","c":12e3,"d":1.500e-1}`,
			Options{Types: types("a", &arrow.Decimal128Type{Precision: 5, Scale: 2}, "b", &arrow.Decimal128Type{Precision: 5, Scale: 2}, "c", &arrow.Decimal256Type{Precision: 50, Scale: 3}, "d", &arrow.Decimal128Type{Precision: 5, Scale: 2})},
			"1: a decimal(5, 2) [1.5] b decimal(5, 2) [-0.1] c decimal256(50, 3) [12000] d decimal(5, 2) [0.15]",
		},
		{
			"typed lists", `{"a":[1,null],"b":[[1.5]]}`,
			Options{Types: types("a", arrow.LargeListOf(arrow.PrimitiveTypes.Int8), "b", arrow.ListOf(arrow.LargeListOf(arrow.BinaryTypes.LargeString)))},
			`1: a large_list<item: int8, nullable> [[1 (null)]] b list<item: large_list<item: large_utf8, nullable>, nullable> [[["1.5"]]]`,
		},
		{"null type", `{"a":null}`, Options{Types: types("a", arrow.Null)}, "1: a null [(null)]"},
		{"no type", `{"a":1}`, Options{Types: types("a", arrow.DataType(nil))}, "1: a int64 [1]"},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in))} {
			x, err := ReadTable(r, c.o)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			got := show(x)
			if c.name == "times" || c.name == "timestamps" {
				got = counts(x)
			}
			if got != c.want {
				t.Errorf("%s is\n%s, not\n%s", c.name, got, c.want)
			}
		}
	}
}

// counts is show with times as counts of their unit.
func counts(t *typed.Table) string {
	s := fmt.Sprint(t.Rows(), ":")
	s = strings.ReplaceAll(s, " ", "")
	for i, f := range t.Schema.Fields() {
		s += " " + f.Name + " " + f.Type.String()
		for _, b := range t.Batches {
			data := b.Column(i).Data()
			as := arrow.PrimitiveTypes.Int64
			if f.Type.(arrow.FixedWidthDataType).BitWidth() == 32 {
				as = arrow.PrimitiveTypes.Int32
			}
			s += fmt.Sprint(" ", array.MakeFromData(array.NewData(as, data.Len(), data.Buffers(), nil, data.NullN(), data.Offset())))
		}
	}
	return s
}

func TestBadTables(t *testing.T) {
	typedAs := func(dt arrow.DataType) Options { return Options{Types: map[string]arrow.DataType{"price": dt}} }
	two := `{"price":1}` + "\n\n"
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }
	for _, c := range []struct {
		in   string
		o    Options
		want string
		hint string
	}{
		{"", Options{}, "it is empty", ""},
		{" \n\r\n", Options{}, "it is empty", ""},
		{"\xef\xbb\xbf", Options{}, "it is empty", ""},
		{"[]", Options{}, "it is empty", ""},
		{two + "5", Options{}, "line 3, byte 1: an object was expected, not '5'", ""},
		{two + "[1]", Options{}, "line 3, byte 1: an object was expected, not '['", ""},
		{two + `"x"`, Options{}, "line 3, byte 1: an object was expected, not '\"'", ""},
		{two + "{", Options{}, "line 3, byte 2: the line ends where a key in quotes was expected", "jq -c"},
		{"{\n\"a\": 1\n}\n", Options{}, "line 1, byte 2: the line ends where a key in quotes was expected", "array"},
		{two + ` {"a":1`, Options{}, "line 3, byte 8: the line ends where a comma or } was expected", "jq -c"},
		{two + `{"a":1}}`, Options{}, "line 3, byte 8: the end of the line was expected, not '}'", ""},
		{two + `{"a":1} {"a":2}`, Options{}, "line 3, byte 9: the end of the line was expected, not '{'", ""},
		{two + `{"a":1,}`, Options{}, "line 3, byte 8: a key in quotes was expected, not '}'", ""},
		{two + `{a:1}`, Options{}, "line 3, byte 2: a key in quotes was expected, not 'a'", ""},
		{two + `{'a':1}`, Options{}, `line 3, byte 2: a key in quotes was expected, not '\''`, ""},
		{two + `{"price" 1}`, Options{}, "line 3, byte 10: a colon was expected, not '1'", ""},
		{two + `{"a" 1}`, Options{}, "line 3, byte 6: a colon was expected, not '1'", ""},
		{two + `{"a":}`, Options{}, "line 3, byte 6: a value was expected, not '}'", ""},
		{two + `{"a":NaN}`, Options{}, "line 3, byte 6: a value was expected, not 'N'", ""},
		{two + `{"a":nul}`, Options{}, "line 3, byte 9: null was expected, not '}'", ""},
		{two + `{"a":tru`, Options{}, "line 3, byte 9: the line ends where true was expected", ""},
		{two + `{"a":[1 2]}`, Options{}, "line 3, byte 9: a comma or ] was expected, not '2'", ""},
		{two + `{"a":[1,]}`, Options{}, "line 3, byte 9: a value was expected, not ']'", ""},
		{two + `{"a":01}`, Options{}, "line 3, byte 6: a number begins with 0", ""},
		{two + `{"a":-}`, Options{}, "line 3, byte 7: a digit was expected, not '}'", ""},
		{two + `{"a":+1}`, Options{}, "line 3, byte 6: a value was expected, not '+'", ""},
		{two + `{"a":1.}`, Options{}, "line 3, byte 8: a digit was expected, not '}'", ""},
		{two + `{"a":.5}`, Options{}, "line 3, byte 6: a value was expected, not '.'", ""},
		{two + `{"a":1e}`, Options{}, "line 3, byte 8: a digit was expected, not '}'", ""},
		{two + `{"a":1e+}`, Options{}, "line 3, byte 9: a digit was expected, not '}'", ""},
		{two + `{"a":1x}`, Options{}, "line 3, byte 7: a comma or } was expected, not 'x'", ""},
		{two + `{"a":"x`, Options{}, "line 3, byte 8: a string does not end", ""},
		{two + `{"a":"x\"}`, Options{}, "a string does not end", ""},
		{two + `{"a":"\x"}`, Options{}, `line 3, byte 7: "\\x\"}" is no escape`, ""},
		{two + `{"a":"\u12"}`, Options{}, `is no escape`, ""},
		{two + `{"a":"\u12g4"}`, Options{}, `"\\u12g4" is no escape`, ""},
		{two + "{\"a\":\"\t\"}", Options{}, `line 3, byte 7: a string has the control character '\t'`, ""},
		{two + "{\"a\":\"\xff\"}", Options{}, "line 3, byte 6: a string is not UTF-8", ""},
		{two + "{\"\xff\":1}", Options{}, "line 3, byte 2: a string is not UTF-8", ""},
		{two + "{\"a\":1,\x00}", Options{}, `a key in quotes was expected, not '\x00'`, ""},
		{"[{\"a\":1},\n{\"a\":2]", Options{}, "line 2, byte 7: a comma or } was expected, not ']'", ""},
		{"[{\"a\":1},\n2]", Options{}, "line 2, byte 1: an object was expected, not '2'", ""},
		{"[{\"a\":1},", Options{}, "line 1, byte 10: it ends where an object was expected", ""},
		{"[{\"a\":1}]\n]", Options{}, "line 2, byte 1: the end was expected, not ']'", ""},
		{"[{\"a\":1}]\n\x00", Options{}, `line 2, byte 1: the end was expected, not '\x00'`, ""},
		{"[{\"a\":1}", Options{}, "line 1, byte 9: it ends where a comma or ] was expected", ""},
		{deep(200), Options{}, "line 1, byte 205: it is nested more than 200 deep", ""},
		{deep(199)[:204] + "1" + deep(199)[204:], Options{}, "line 1, byte 205: it is nested more than 200 deep", ""},
		{strings.Repeat(" ", maxLine+1), Options{}, "line 1 has 67108865 bytes, more than 67108864", ""},

		{two + `{"price":"abc"}`, typedAs(arrow.PrimitiveTypes.Float64), `line 3, column "price": "abc" is no float64`, ""},
		{two + `{"price":1.5}`, typedAs(arrow.PrimitiveTypes.Int64), `line 3, column "price": 1.5 is no int64`, ""},
		{"[" + `{"price":1},` + "\n" + `{"price":1e300}]`, typedAs(arrow.PrimitiveTypes.Int64), `line 2, column "price": 1e300 is no int64`, ""},
		{two + `{"price":18446744073709551615}`, typedAs(arrow.PrimitiveTypes.Int64), `is no int64`, ""},
		{two + `{"price":-1}`, typedAs(arrow.PrimitiveTypes.Uint64), `line 3, column "price": -1 is no uint64`, ""},
		{two + `{"price":"1"}`, typedAs(arrow.PrimitiveTypes.Uint64), `"1" is no uint64`, ""},
		{two + `{"price":128}`, typedAs(arrow.PrimitiveTypes.Int8), `128 is no int8`, ""},
		{two + `{"price":-1}`, typedAs(arrow.PrimitiveTypes.Uint8), `-1 is no uint8`, ""},
		{two + `{"price":true}`, typedAs(arrow.PrimitiveTypes.Uint16), `true is no uint16`, ""},
		{two + `{"price":1e39}`, typedAs(arrow.PrimitiveTypes.Float32), `1e39 is no float32`, ""},
		{two + `{"price":65520}`, typedAs(arrow.FixedWidthTypes.Float16), `65520 is no float16`, ""},
		{two + `{"price":1e400}`, typedAs(arrow.PrimitiveTypes.Float64), `1e400 is no float64`, ""},
		{two, typedAs(arrow.FixedWidthTypes.Boolean), `line 1, column "price": 1 is no bool`, ""},
		{two, typedAs(arrow.Null), `line 1, column "price": 1 is no null`, ""},
		{two, typedAs(arrow.LargeListOf(arrow.PrimitiveTypes.Int64)), `1 is no large_list`, ""},
		{`{"price":[]}`, typedAs(arrow.PrimitiveTypes.Int64), `line 1, column "price": [] is no int64`, ""},
		{`{"price":[1,"` + strings.Repeat("x", 100) + `"]}`, typedAs(arrow.LargeListOf(arrow.PrimitiveTypes.Int64)), `line 1, column "price": "` + strings.Repeat("x", 63) + `... is no int64`, ""},
		{`{"price":"%"}`, typedAs(arrow.BinaryTypes.Binary), `"%" is no binary`, ""},
		{`{"price":1234}`, typedAs(arrow.BinaryTypes.LargeBinary), `1234 is no large_binary`, ""},
		{`{"price":true}`, typedAs(arrow.PrimitiveTypes.Float64), `true is no float64`, ""},
		{`{"price":"AQ=="}`, typedAs(&arrow.FixedSizeBinaryType{ByteWidth: 2}), `"AQ==" is no fixed_size_binary[2]`, ""},
		{`{"price":"2021-02-29"}`, typedAs(arrow.FixedWidthTypes.Date32), `"2021-02-29" is no date32`, ""},
		{`{"price":4294967296}`, typedAs(arrow.FixedWidthTypes.Date32), `4294967296 is no date32`, ""},
		{`{"price":"x"}`, typedAs(arrow.FixedWidthTypes.Date64), `"x" is no date64`, ""},
		{`{"price":"25:00"}`, typedAs(arrow.FixedWidthTypes.Time32s), `"25:00" is no time32[s]`, ""},
		{`{"price":"12:00:00.1234567"}`, typedAs(arrow.FixedWidthTypes.Time64us), `is no time64[us]`, ""},
		{`{"price":"2020-01-02T03:04:05.5"}`, typedAs(arrow.FixedWidthTypes.Timestamp_s), `"2020-01-02T03:04:05.5" is no timestamp[s, tz=UTC]`, ""},
		{`{"price":"2020-13-02"}`, typedAs(arrow.FixedWidthTypes.Timestamp_s), `is no timestamp`, ""},
		{`{"price":"1s"}`, typedAs(arrow.FixedWidthTypes.Duration_s), `"1s" is no duration[s]`, ""},
		{`{"price":1.001}`, typedAs(&arrow.Decimal128Type{Precision: 9, Scale: 2}), `1.001 is no decimal(9, 2)`, ""},
		{`{"price":"1000"}`, typedAs(&arrow.Decimal128Type{Precision: 5, Scale: 2}), `"1000" is no decimal(5, 2)`, ""},
		{`{"price":"1/2"}`, typedAs(&arrow.Decimal128Type{Precision: 5, Scale: 2}), `"1/2" is no decimal(5, 2)`, ""},
		{`{"price":""}`, typedAs(&arrow.Decimal256Type{Precision: 5, Scale: 2}), `"" is no decimal256(5, 2)`, ""},
		{`{"price":1e999999999}`, typedAs(&arrow.Decimal256Type{Precision: 5, Scale: 2}), `is no decimal256(5, 2)`, ""},
		{`{"price":1e99999999999999999999}`, typedAs(&arrow.Decimal256Type{Precision: 5, Scale: 2}), `is no decimal256(5, 2)`, ""},
		{`{"price":1e900}`, typedAs(&arrow.Decimal128Type{Precision: 5, Scale: 2}), `is no decimal(5, 2)`, ""},
		{two, typedAs(arrow.StructOf()), `column "price": values of type struct<> are not read from JSON`, ""},
		{two, typedAs(arrow.LargeListOf(arrow.StructOf())), `are not read from JSON`, ""},
		{two, typedAs(arrow.ListOf(arrow.BinaryTypes.StringView)), `are not read from JSON`, ""},
		{`{"a":1}`, typedAs(arrow.Null), `there is no column "price"`, `there are: ["a"]`},
		{two, Options{Columns: []string{"b"}}, `there is no column "b"`, `there are: ["price"]`},
		{two, Options{Columns: []string{"price", "price"}}, `column "price" is asked for twice`, ""},
	} {
		_, err := ReadTable(strings.NewReader(c.in), c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(status.HintOf(err), c.hint) {
			t.Errorf("%.40q: %v (%s), not %s (%s)", c.in, err, status.HintOf(err), c.want, c.hint)
		}
	}
	if x, err := ReadTable(strings.NewReader(deep(199)), Options{}); err != nil {
		t.Errorf("200 deep: %v, %v", x, err)
	}
	if _, err := ReadTable(iotest.ErrReader(io.ErrClosedPipe), Options{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// TestSparse checks that a file of other keys in every row takes no memory that
// grows with its square.
func TestSparse(t *testing.T) {
	var b strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&b, "{\"k%d\":1}\n", i)
	}
	if _, err := ReadTable(strings.NewReader(b.String()), Options{}); err == nil || !strings.Contains(err.Error(), "20000 rows of 20000 columns have hardly any values") || !strings.Contains(status.HintOf(err), "--columns") {
		t.Error(err)
	}
	x, err := ReadTable(strings.NewReader(b.String()), Options{Columns: []string{"k7"}})
	if err != nil || x.Rows() != 20000 || x.Column(0).NullN() != 19999 {
		t.Error(x, err)
	}
}

// TestAlloc checks that all memory of a table is from the allocator that was given,
// and goes back to it.
func TestAlloc(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	x, err := ReadTable(bytes.NewReader(flatRows(1<<16)), Options{Alloc: mem})
	if err != nil || mem.CurrentAlloc() < 1<<15 {
		t.Fatal(err, mem.CurrentAlloc())
	}
	x.Batches[0].Release()
	if _, err := ReadTable(strings.NewReader(`{"a":[1,"x"]}`), Options{Alloc: mem, Types: map[string]arrow.DataType{"a": arrow.ListOf(arrow.PrimitiveTypes.Int8)}}); err == nil {
		t.Error("x is an int8")
	}
}

// TestFile reads from a file, whose size is known.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.ndjson")
	if err := os.WriteFile(path, []byte("{\"a\":1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if x, err := ReadTable(f, Options{}); err != nil || show(x) != "1: a int64 [1]" {
		t.Error(x, err)
	}
	if b, err := readAll(strings.NewReader("12345"), 4); err == nil || !strings.Contains(err.Error(), "more than 4 bytes") {
		t.Error(b, err)
	}
	if b, err := readAll(iotest.OneByteReader(strings.NewReader("12345")), 4); err == nil {
		t.Error(b)
	}
	if b, err := readAll(strings.NewReader("1234"), 4); err != nil || string(b) != "1234" {
		t.Error(b, err)
	}
}

func write(t testing.TB, x *typed.Table) string {
	t.Helper()
	var b strings.Builder
	if err := WriteTable(&b, x); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWriteTable(t *testing.T) {
	mem := memory.DefaultAllocator
	from := func(dt arrow.DataType, text string) arrow.Array {
		t.Helper()
		a, _, err := array.FromJSON(mem, dt, strings.NewReader(text))
		if err != nil {
			t.Fatalf("%s %s: %v", dt, text, err)
		}
		return a
	}
	ints := func(dt arrow.DataType, v ...int64) arrow.Array {
		data := array.NewInt64Data(array.NewData(arrow.PrimitiveTypes.Int64, len(v), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(v))}, nil, 0, 0)).Data()
		return array.MakeFromData(array.NewData(dt, len(v), data.Buffers(), nil, 0, 0))
	}
	floats := array.NewFloat64Builder(mem)
	floats.AppendValues([]float64{1, 0.1, 0, math.Copysign(0, -1), 1e21, 1e20, 1e-7, 0.000001, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, 5e-324, 123456789}, nil)
	binary := array.NewBinaryBuilder(mem, arrow.BinaryTypes.LargeBinary)
	binary.AppendValues([][]byte{{1, 2}, {}, nil}, []bool{true, true, false})
	ext := array.NewBuilder(mem, arrow.BinaryTypes.StringView).(*array.StringViewBuilder)
	ext.Append("a-long-string-that-is-not-inline")
	ts := func(unit arrow.TimeUnit, zone string) arrow.DataType {
		return &arrow.TimestampType{Unit: unit, TimeZone: zone}
	}
	bad := array.NewStringBuilder(mem)
	bad.Append("a\"\\\b\f\n\r\t\x00\x1f\x7f<&>é𝄞\u2028\xff\xc3")
	for _, c := range []struct {
		a    arrow.Array
		want string
	}{
		{array.NewNull(2), "null null"},
		{from(arrow.FixedWidthTypes.Boolean, "[true,false,null]"), "true false null"},
		{from(arrow.PrimitiveTypes.Int8, "[-128,null]"), "-128 null"},
		{from(arrow.PrimitiveTypes.Int16, "[-32768]"), "-32768"},
		{from(arrow.PrimitiveTypes.Int32, "[-2147483648]"), "-2147483648"},
		{ints(arrow.PrimitiveTypes.Int64, math.MinInt64, math.MaxInt64), "-9223372036854775808 9223372036854775807"},
		{from(arrow.PrimitiveTypes.Uint8, "[255]"), "255"},
		{from(arrow.PrimitiveTypes.Uint16, "[65535]"), "65535"},
		{from(arrow.PrimitiveTypes.Uint32, "[4294967295]"), "4294967295"},
		{ints(arrow.PrimitiveTypes.Uint64, -1), "18446744073709551615"},
		{from(arrow.FixedWidthTypes.Float16, "[0.5,1]"), "0.5 1.0"},
		{halves(0x0001, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfc00, 0x7e00, 0x8000), "5.9604645e-08 -5.9604645e-08 0.00006097555 0.000061035156 65504.0 null null -0.0"},
		{from(arrow.PrimitiveTypes.Float32, "[0.1,16777216]"), "0.1 16777216.0"},
		{floats.NewArray(), "1.0 0.1 0.0 -0.0 1e+21 100000000000000000000.0 1e-07 0.000001 null null null 1.7976931348623157e+308 5e-324 123456789.0"},
		{from(arrow.BinaryTypes.String, `["x",null,""]`), `"x" null ""`},
		{from(arrow.BinaryTypes.LargeString, `["x"]`), `"x"`},
		{ext.NewArray(), `"a-long-string-that-is-not-inline"`},
		{bad.NewArray(), `"a\"\\\u0008\u000c\n\r\t\u0000\u001f` + "\x7f<&>é𝄞\u2028��\""},
		{binary.NewArray(), `"AQI=" "" null`},
		{from(arrow.BinaryTypes.Binary, `["AQI="]`), `"AQI="`},
		{from(&arrow.FixedSizeBinaryType{ByteWidth: 2}, `["AQI="]`), `"AQI="`},
		{ints(ts(arrow.Second, "UTC"), 1577934245, -1, 253402300799, 253402300800, -62167219200, -62167219201, math.MaxInt64), `"2020-01-02T03:04:05Z" "1969-12-31T23:59:59Z" "9999-12-31T23:59:59Z" 253402300800 "0000-01-01T00:00:00Z" -62167219201 9223372036854775807`},
		{ints(ts(arrow.Millisecond, "Europe/Zurich"), 1577934245250, -1), `"2020-01-02T03:04:05.25Z" "1969-12-31T23:59:59.999Z"`},
		{ints(ts(arrow.Microsecond, ""), 1577934245000001, 1577934245000000), `"2020-01-02T03:04:05.000001" "2020-01-02T03:04:05"`},
		{ints(ts(arrow.Nanosecond, ""), 1577934245678901234, math.MinInt64, math.MaxInt64), `"2020-01-02T03:04:05.678901234" "1677-09-21T00:12:43.145224192" "2262-04-11T23:47:16.854775807"`},
		{ints(arrow.FixedWidthTypes.Date64, 18263*86400000, -1, math.MaxInt64), `"2020-01-02" "1969-12-31" 9223372036854775807`},
		{from(arrow.FixedWidthTypes.Date32, `["2020-01-02",null]`), `"2020-01-02" null`},
		{from(arrow.FixedWidthTypes.Time32s, `["15:04:05"]`), `"15:04:05"`},
		{from(arrow.FixedWidthTypes.Time32ms, `["15:04:05.500"]`), `"15:04:05.5"`},
		{ints(arrow.FixedWidthTypes.Time64us, 1, 86400e6-1, 86400e6, -1), `"00:00:00.000001" "23:59:59.999999" 86400000000 -1`},
		{ints(arrow.FixedWidthTypes.Time64ns, 54245000000001), `"15:04:05.000000001"`},
		{ints(arrow.FixedWidthTypes.Duration_ms, 5, -5), `5 -5`},
		{from(&arrow.Decimal128Type{Precision: 9, Scale: 2}, `["1.50","-0.05",null]`), `"1.50" "-0.05" null`},
		{from(&arrow.Decimal256Type{Precision: 50, Scale: 0}, `["123"]`), `"123"`},
		{from(&arrow.Decimal32Type{Precision: 5, Scale: 3}, `["1.5","-1"]`), `"1.500" "-1.000"`},
		{from(&arrow.Decimal64Type{Precision: 5, Scale: 5}, `["0.5"]`), `"0.50000"`},
		{ints128(&arrow.Decimal128Type{Precision: 5, Scale: -3}, 12, -12, 0), `"12000" "-12000" "0"`},
		{from(arrow.LargeListOf(arrow.PrimitiveTypes.Int64), `[[1,null],[],null]`), `[1,null] [] null`},
		{from(arrow.ListOf(arrow.ListOf(arrow.BinaryTypes.String)), `[[["x"],[]]]`), `[["x"],[]]`},
		{from(arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float64), `[[1,2.5],[3,4]]`), `[1.0,2.5] [3.0,4.0]`},
		{from(arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int8, Nullable: true}, arrow.Field{Name: "b\"", Type: arrow.BinaryTypes.String}), `[{"a":1,"b\"":"x"},{"a":null,"b\"":"y"},null]`), `{"a":1,"b\"":"x"} {"a":null,"b\"":"y"} null`},
		{from(arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int8), `[[{"key":"a","value":1}]]`), `[{"key":"a","value":1}]`},
		{from(&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}, `["b","a",null,"b"]`), `"b" "a" null "b"`},
		{from(arrow.FixedWidthTypes.MonthInterval, `[{"months":3}]`), `{"months":3}`},
		{array.NewSlice(from(arrow.LargeListOf(arrow.BinaryTypes.String), `[["a"],["b","c"],["d"]]`), 1, 2), `["b","c"]`},
	} {
		s := arrow.NewSchema([]arrow.Field{{Name: "x", Type: c.a.DataType(), Nullable: true}}, nil)
		x := typed.NewTable(s, array.NewRecordBatch(s, []arrow.Array{c.a}, int64(c.a.Len())))
		want := ""
		for _, v := range strings.Split(c.want, " ") {
			want += `{"x":` + v + "}\n"
		}
		if got := write(t, x); got != want {
			t.Errorf("%s is written as\n%s, not\n%s", c.a.DataType(), got, want)
		}
	}
}

func TestWriteColumns(t *testing.T) {
	in := `{"b\"\n":1,"a":"x","ü":null}` + "\n" + `{"b\"\n":2,"a":"y","ü":null}` + "\n"
	x, err := ReadTable(strings.NewReader(in), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := write(t, x); got != in {
		t.Errorf("%s became %s", in, got)
	}
	x.Batches = append(x.Batches, x.Slice(1, 2).Batches...)
	if got := write(t, x); got != in+in[len(in)/2:] {
		t.Errorf("two batches are %s", got)
	}
	if got := write(t, x.Slice(0, 0)); got != "" {
		t.Errorf("no rows are %q", got)
	}
	empty := arrow.NewSchema(nil, nil)
	if got := write(t, typed.NewTable(empty, array.NewRecordBatch(empty, nil, 2))); got != "{}\n{}\n" {
		t.Errorf("no columns are %q", got)
	}
	double, err := x.Select([]string{"a", "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteTable(io.Discard, double); err == nil || !strings.Contains(err.Error(), `two columns are called "a"`) {
		t.Error(err)
	}
	big, err := ReadTable(bytes.NewReader(flatRows(1<<20)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []*typed.Table{x, big} {
		if err := WriteTable(full{}, x); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("a full disk: %v", err)
		}
	}
	again, err := ReadTable(strings.NewReader(write(t, big)), Options{})
	if err != nil || !array.RecordEqual(big.Batches[0], again.Batches[0]) {
		t.Errorf("many rows changed: %v", err)
	}
}

func halves(bits ...uint16) arrow.Array {
	b := array.NewFloat16Builder(memory.DefaultAllocator)
	for _, h := range bits {
		b.Append(float16.FromBits(h))
	}
	return b.NewArray()
}

func ints128(dt *arrow.Decimal128Type, v ...int64) arrow.Array {
	b := array.NewDecimal128Builder(memory.DefaultAllocator, dt)
	for _, n := range v {
		b.Append(decimal128.FromI64(n))
	}
	return b.NewArray()
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
