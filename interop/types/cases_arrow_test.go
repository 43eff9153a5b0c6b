//go:build linux

package types_test

import (
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/typed"
)

var (
	i64 = arrow.PrimitiveTypes.Int64
	i32 = arrow.PrimitiveTypes.Int32
	f64 = arrow.PrimitiveTypes.Float64
	str = arrow.BinaryTypes.String
)

const (
	noBareCLI    = "the command line makes tables of files, no bare arrays"
	noFixedArrow = "Python of this version fails on arrays of a fixed width in bytes"
)

// arr makes an array of JSON.
func arr(t arrow.DataType, elements string) arrow.Array {
	a, _, err := array.FromJSON(memory.DefaultAllocator, t, strings.NewReader(elements))
	return must(a, err)
}

// fields makes a schema of names and types, by turns.
func fields(namesAndTypes ...any) *arrow.Schema {
	var list []arrow.Field
	for i := 0; i < len(namesAndTypes); i += 2 {
		list = append(list, arrow.Field{Name: namesAndTypes[i].(string), Type: namesAndTypes[i+1].(arrow.DataType), Nullable: true})
	}
	return arrow.NewSchema(list, nil)
}

// batch makes a record batch of rows as JSON.
func batch(s *arrow.Schema, rows string) arrow.RecordBatch {
	b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s, strings.NewReader(rows))
	return must(b, err)
}

// table makes a table of batches of rows as JSON.
func table(s *arrow.Schema, batches ...string) *typed.Table {
	t := typed.NewTable(s)
	for _, rows := range batches {
		t.Batches = append(t.Batches, batch(s, rows))
	}
	return t
}

func stampOf(unit arrow.TimeUnit, zone string) arrow.DataType {
	return &arrow.TimestampType{Unit: unit, TimeZone: zone}
}

func durationOf(unit arrow.TimeUnit) arrow.DataType { return &arrow.DurationType{Unit: unit} }

// bare is a case of an array: Python's name of its type, and the same elements for
// Python, for Go, and as they are read.
func bare(name, section, kind string, t arrow.DataType, python, elements, want, recorded string) testCase {
	return testCase{
		name: name, section: section, want: want, kind: "array " + kind, recorded: recorded, without: without("cli", noBareCLI),
		python: python, golang: func(*world) any { return arr(t, elements) },
	}
}

func arrowCases() []testCase {
	var cases []testCase
	add := func(c ...testCase) { cases = append(cases, c...) }
	for _, n := range []struct{ name, kind, recorded string }{
		{"int8", "int8", "int8"},
		{"int16", "int16", "int16"},
		{"int32", "int32", "int32"},
		{"int64", "int64", "int64"},
		{"uint8", "uint8", "uint8"},
		{"uint16", "uint16", "uint16"},
		{"uint32", "uint32", "uint32"},
		{"uint64", "uint64", "uint64"},
		{"float32", "float", "float"},
		{"float64", "double", "double"},
	} {
		t, _ := typed.ParseArrowType(n.name)
		add(bare("arrow_"+n.name, "§5.1", n.kind, t, `pa.array([1,None,3], type=pa.`+n.name+`())`, `[1,null,3]`, `[1,null,3]`, "arrow_numeric_"+n.recorded))
	}
	const day, clocks = `["1970-01-02","1970-01-03"]`, `["00:00:01","00:00:02"]`
	add(
		bare("arrow_nonull", "§5.1", "int64", i64, `pa.array([1,2,3], type=pa.int64())`, `[1,2,3]`, `[1,2,3]`, "arrow_numeric_nonull"),
		bare("arrow_empty", "§5.1", "int64", i64, `pa.array([], type=pa.int64())`, `[]`, `[]`, "arrow_numeric_empty"),
		bare("arrow_allnull", "§5.1", "int64", i64, `pa.array([None]*9, type=pa.int64())`, `[null,null,null,null,null,null,null,null,null]`,
			`[null,null,null,null,null,null,null,null,null]`, ""),
		bare("arrow_extremes", "§5.1", "uint64", arrow.PrimitiveTypes.Uint64, `pa.array([2**64-1, 2**53+1], type=pa.uint64())`,
			`[18446744073709551615,9007199254740993]`, `[18446744073709551615,9007199254740993]`, ""),
		bare("arrow_nan", "§5.1", "double", f64, `pa.array([1.5, float("nan"), None])`, `[1.5,"NaN",null]`, `[1.5,null,null]`, ""),
		bare("arrow_float16", "§5.1", "halffloat", arrow.FixedWidthTypes.Float16, `pa.array([np.float16(1)], type=pa.float16())`, `[1]`, `[1]`, "arrow_float16"),
		bare("arrow_boolean", "§5.2", "bool", arrow.FixedWidthTypes.Boolean, `pa.array([True,None,False,True])`, `[true,null,false,true]`, `[true,null,false,true]`, "arrow_boolean"),
		bare("arrow_boolean_empty", "§5.2", "bool", arrow.FixedWidthTypes.Boolean, `pa.array([], type=pa.bool_())`, `[]`, `[]`, ""),

		bare("arrow_date32", "§5.1", "date32[day]", arrow.FixedWidthTypes.Date32, `pa.array([1,2], type=pa.date32())`, day, day, "arrow_date32"),
		bare("arrow_date64", "§5.1", "date64[ms]", arrow.FixedWidthTypes.Date64, `pa.array([86400000], type=pa.date64())`, `["1970-01-02"]`, `["1970-01-02"]`, "arrow_date64"),
		bare("arrow_time32", "§5.1", "time32[s]", arrow.FixedWidthTypes.Time32s, `pa.array([1,2], type=pa.time32("s"))`, clocks, clocks, "arrow_time32"),
		bare("arrow_time32_ms", "§5.1", "time32[ms]", arrow.FixedWidthTypes.Time32ms, `pa.array([1500,None], type=pa.time32("ms"))`, `["00:00:01.5",null]`, `["00:00:01.5",null]`, ""),
		bare("arrow_time64", "§5.1", "time64[us]", arrow.FixedWidthTypes.Time64us, `pa.array([1,2], type=pa.time64("us"))`, `["00:00:00.000001","00:00:00.000002"]`,
			`["00:00:00.000001","00:00:00.000002"]`, "arrow_time64"),
		bare("arrow_time64_ns", "§5.1", "time64[ns]", arrow.FixedWidthTypes.Time64ns, `pa.array([1], type=pa.time64("ns"))`, `["00:00:00.000000001"]`, `["00:00:00.000000001"]`, ""),
		bare("arrow_timestamp", "§5.1", "timestamp[ns]", stampOf(arrow.Nanosecond, ""), `pa.array([1,2], type=pa.timestamp("ns"))`,
			`["1970-01-01T00:00:00.000000001","1970-01-01T00:00:00.000000002"]`, `["1970-01-01T00:00:00.000000001","1970-01-01T00:00:00.000000002"]`, "arrow_timestamp"),
		bare("arrow_timestamp_tz", "§5.1", "timestamp[us, tz=UTC]", stampOf(arrow.Microsecond, "UTC"), `pa.array([1,2], type=pa.timestamp("us", tz="UTC"))`,
			`["1970-01-01T00:00:00.000001Z","1970-01-01T00:00:00.000002Z"]`, `["1970-01-01T00:00:00.000001","1970-01-01T00:00:00.000002"]`, "arrow_timestamp_tz"),
		bare("arrow_duration", "§5.1", "duration[s]", durationOf(arrow.Second), `pa.array([1,2], type=pa.duration("s"))`, `["1s","2s"]`, `[1,2]`, "arrow_duration"),
	)
	for _, unit := range []arrow.TimeUnit{arrow.Second, arrow.Millisecond, arrow.Microsecond} {
		add(bare("arrow_timestamp_"+unit.String(), "§5.1", "timestamp["+unit.String()+"]", stampOf(unit, ""),
			fmt.Sprintf(`pa.array([np.datetime64("2020-02-29T01:02:03", "%s"), None], type=pa.timestamp("%[1]s"))`, unit), `["2020-02-29T01:02:03",null]`, `["2020-02-29T01:02:03",null]`, ""))
	}
	for _, unit := range []arrow.TimeUnit{arrow.Millisecond, arrow.Microsecond, arrow.Nanosecond} {
		add(bare("arrow_duration_"+unit.String(), "§5.1", "duration["+unit.String()+"]", durationOf(unit),
			fmt.Sprintf(`pa.array([7, None], type=pa.duration("%s"))`, unit), fmt.Sprintf(`["7%s",null]`, unit), `[7,null]`, ""))
	}
	add(bare("arrow_before_1970", "§5.1", "timestamp[us]", stampOf(arrow.Microsecond, ""), `pa.array([-1,-86400000000], type=pa.timestamp("us"))`,
		`["1969-12-31T23:59:59.999999","1969-12-31T00:00:00"]`, `["1969-12-31T23:59:59.999999","1969-12-31"]`, ""))
	const a, ab, lists = `["a",null,"ccc"]`, `["YQ==",null,"YmM="]`, `[[1,2],null,[3]]`
	add(
		bare("arrow_string", "§5.3", "large_string", str, `pa.array(["a",None,"ccc"])`, a, a, "arrow_string"),
		bare("arrow_string_nonull", "§5.3", "large_string", str, `pa.array(["a","bb"])`, `["a","bb"]`, `["a","bb"]`, "arrow_string_nonull"),
		bare("arrow_string_unicode", "§5.3", "large_string", str, `pa.array(["größe","🚀",""])`, `["größe","🚀",""]`, `["größe","🚀",""]`, ""),
		bare("arrow_large_string", "§5.3", "large_string", arrow.BinaryTypes.LargeString, `pa.array(["a",None,"ccc"], type=pa.large_string())`, a, a, "arrow_large_string"),
		bare("arrow_string_empty", "§5.3", "large_string", arrow.BinaryTypes.LargeString, `pa.array([], type=pa.large_string())`, `[]`, `[]`, "arrow_string_empty"),
		bare("arrow_string_view", "§5.3", "large_string | array string_view", arrow.BinaryTypes.StringView, `pa.array(["a",None,"a text of more than 12 bytes"], type=pa.string_view())`,
			`["a",null,"a text of more than 12 bytes"]`, `["a",null,"a text of more than 12 bytes"]`, ""),
		bare("arrow_binary", "§5.3", "large_binary | array binary", arrow.BinaryTypes.Binary, `pa.array([b"a",b"bc"], type=pa.binary())`, `["YQ==","YmM="]`, `["YQ==","YmM="]`, "arrow_binary"),
		bare("arrow_large_binary", "§5.3", "large_binary", arrow.BinaryTypes.LargeBinary, `pa.array([b"a",None,b"bc"], type=pa.large_binary())`, ab, ab, "arrow_large_binary"),
		bare("arrow_fixed_size_binary", "§5.4", "fixed_size_binary[4]", &arrow.FixedSizeBinaryType{ByteWidth: 4}, `pa.array([b"abcd",None,b"efgh"], type=pa.binary(4))`,
			`["YWJjZA==",null,"ZWZnaA=="]`, `["YWJjZA==",null,"ZWZnaA=="]`, ""),
		bare("arrow_decimal", "§5.4", "decimal128(10, 2)", &arrow.Decimal128Type{Precision: 10, Scale: 2}, `pa.array([decimal.Decimal("1.10"), None], type=pa.decimal128(10,2))`,
			`["1.10",null]`, `["1.10",null]`, ""),
		bare("arrow_null", "§5.5", "null", arrow.Null, `pa.nulls(3)`, `[null,null,null]`, `[null,null,null]`, "arrow_null"),
		bare("arrow_null_empty", "§5.5", "null", arrow.Null, `pa.nulls(0)`, `[]`, `[]`, ""),
		bare("arrow_list", "§5.6", "large_list<item: int64>", arrow.ListOf(i64), `pa.array([[1,2],None,[3]], type=pa.list_(pa.int64()))`, lists, lists, "arrow_list"),
		bare("arrow_list_empty", "§5.6", "large_list<item: int64>", arrow.ListOf(i64), `pa.array([], type=pa.list_(pa.int64()))`, `[]`, `[]`, ""),
		bare("arrow_list_strings", "§5.6", "large_list<item: large_string>", arrow.ListOf(str), `pa.array([["a",None],[],["ccc"]])`, `[["a",null],[],["ccc"]]`, `[["a",null],[],["ccc"]]`, ""),
		bare("arrow_list_lists", "§5.6", "large_list<item: large_list<item: int64>>", arrow.ListOf(arrow.ListOf(i64)), `pa.array([[[1],[2,3]],None,[[]]])`, `[[[1],[2,3]],null,[[]]]`, `[[[1],[2,3]],null,[[]]]`, ""),
		bare("arrow_large_list", "§5.6", "large_list<item: int64>", arrow.LargeListOf(i64), `pa.array([[1,2],None,[3]], type=pa.large_list(pa.int64()))`, lists, lists, "arrow_large_list"),
		bare("arrow_fixed_size_list", "§5.6", "large_list<item: int64> | array fixed_size_list<item: int64>[2]", arrow.FixedSizeListOf(2, i64), `pa.array([[1,2],[3,4]], type=pa.list_(pa.int64(), 2))`, `[[1,2],[3,4]]`, `[[1,2],[3,4]]`, "arrow_fixed_size_list"),
		bare("arrow_fixed_size_list_null", "§5.6", "large_list<item: int64> | array fixed_size_list<item: int64>[2]", arrow.FixedSizeListOf(2, i64), `pa.array([[1,2],None,[3,4]], type=pa.list_(pa.int64(), 2))`, `[[1,2],null,[3,4]]`, `[[1,2],null,[3,4]]`, ""),
		bare("arrow_dictionary", "§5.9", "large_string | array dictionary<values=string, indices=int32, ordered=0>", &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: str},
			`pa.array(["a","b","a"]).dictionary_encode()`, `["a","b","a"]`, `["a","b","a"]`, "arrow_dictionary"),
	)
	s := fields("i", i64, "s", str, "l", arrow.ListOf(i32))
	return append(cases, testCase{
		name: "arrow_schema", section: "§5.7", kind: "schema", recorded: "arrow_schema", without: without("cli", noBareCLI),
		want: `[{"name":"i","type":"int64","nullable":true},{"name":"s","type":"large_string","nullable":true},{"name":"l","type":"large_list<item: int32>","nullable":true}]`,
		golang: func(*world) any {
			stored := make([]any, 0, 6)
			for _, f := range s.Fields() {
				stored = append(stored, f.Name, must(typed.Storable(f.Type)))
			}
			return fields(stored...)
		},
		python: `pa.schema([("i",pa.int64()),("s",pa.string()),("l",pa.list_(pa.int32()))])`,
	})
}

// slicedCases are parts of longer arrays.
func slicedCases() []testCase {
	part := func(name, section, kind string, t arrow.DataType, python, elements string, from, to int64, want, recorded string) testCase {
		c := bare(name, section, kind, t, python, elements, want, recorded)
		c.golang = func(*world) any { return array.NewSlice(arr(t, elements), from, to) }
		return c
	}
	return []testCase{
		part("sliced_numeric", "§5.1", "int64", i64, `pa.array([1,2,None,4,5], type=pa.int64())[1:4]`, `[1,2,null,4,5]`, 1, 4, `[2,null,4]`, "arrow_numeric_sliced"),
		part("sliced_string", "§5.3", "large_string", str, `pa.array(["a","bb",None,"dd"])[1:3]`, `["a","bb",null,"dd"]`, 1, 3, `["bb",null]`, "arrow_string_sliced"),
		part("sliced_boolean", "§5.2", "bool", arrow.FixedWidthTypes.Boolean, `pa.array([True,None,False,True]*3)[3:11]`,
			`[true,null,false,true,true,null,false,true,true,null,false,true]`, 3, 11, `[true,true,null,false,true,true,null,false]`, ""),
		part("sliced_binary", "§5.3", "large_binary", arrow.BinaryTypes.LargeBinary, `pa.array([b"a",b"",None,b"d"], type=pa.large_binary())[1:]`, `["YQ==","",null,"ZA=="]`, 1, 4, `["",null,"ZA=="]`, ""),
		part("sliced_fixed_size_binary", "§5.4", "fixed_size_binary[2]", &arrow.FixedSizeBinaryType{ByteWidth: 2}, `pa.array([b"ab",None,b"cd"], type=pa.binary(2))[1:]`,
			`["YWI=",null,"Y2Q="]`, 1, 3, `[null,"Y2Q="]`, ""),
		part("sliced_list", "§5.6", "large_list<item: int64>", arrow.ListOf(i64), `pa.array([[1,2],None,[3],[4,5]])[1:]`, `[[1,2],null,[3],[4,5]]`, 1, 4, `[null,[3],[4,5]]`, ""),
		part("sliced_fixed_size_list", "§5.6", "large_list<item: int64> | array fixed_size_list<item: int64>[2]", arrow.FixedSizeListOf(2, i64), `pa.array([[1,2],[3,4],[5,6]], type=pa.list_(pa.int64(), 2))[1:]`,
			`[[1,2],[3,4],[5,6]]`, 1, 3, `[[3,4],[5,6]]`, ""),
		part("sliced_to_nothing", "§5.3", "large_string", str, `pa.array(["a","bb"])[2:]`, `["a","bb"]`, 2, 2, `[]`, ""),
		part("sliced_dictionary", "§5.9", "large_string | array dictionary<values=string, indices=int32, ordered=0>", &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: str},
			`pa.array(["a","b",None,"a"]).dictionary_encode()[1:]`, `["a","b",null,"a"]`, 1, 4, `["b",null,"a"]`, ""),
	}
}

// spellingCases are arrays that C++ and others write under names of their own.
func spellingCases() []testCase {
	blob := func(b []byte) func(w *world) *client.Meta { return func(w *world) *client.Meta { return w.blob(b) } }
	type members map[string]func(w *world) *client.Meta
	made := func(name, section, typename, want, kind string, n int, fields map[string]any, parts members) testCase {
		return testCase{
			name: name, section: section, want: want, kind: kind, without: without("py cli", "others write so"),
			golang: func(w *world) any {
				m := client.NewMeta("vineyard::"+typename).Set("length_", n).Set("null_count_", 0).Set("offset_", 0).Set("nbytes", 0)
				for key, v := range fields {
					m.Set(key, v)
				}
				m.Add("null_bitmap_", w.blob(nil))
				for key, part := range parts {
					m.Add(key, part(w))
				}
				return w.make(m)
			},
		}
	}
	numeric := func(name, typename, dataType, want, kind string, n int, b []byte) testCase {
		f := map[string]any{}
		if dataType != "" {
			f["data_type_"] = dataType
		}
		return made("cpp_"+name, "§2", "NumericArray<"+typename+">", want, "array "+kind, n, f, members{"buffer_": blob(b)})
	}
	var cases []testCase
	for _, c := range []struct {
		name, typename, dataType, want, kind string
		n                                    int
		b                                    []byte
	}{
		{"int8", "signed char", "int8", `[1,-2]`, "int8", 2, le(int8(1), int8(-2))},
		{"uint8", "unsigned char", "uint8", `[1,254]`, "uint8", 2, []byte{1, 254}},
		{"int16", "short int", "int16", `[1,-2]`, "int16", 2, le(int16(1), int16(-2))},
		{"short", "short", "", `[1,-2]`, "int16", 2, le(int16(1), int16(-2))},
		{"uint16", "short unsigned int", "uint16", `[65535]`, "uint16", 1, le(uint16(65535))},
		{"int32", "int", "int32", `[-2]`, "int32", 1, le(int32(-2))},
		{"uint32", "uint", "uint32", `[4294967295]`, "uint32", 1, le(uint32(1<<32 - 1))},
		{"uint32_rust", "uint32", "", `[4294967295]`, "uint32", 1, le(uint32(1<<32 - 1))},
		{"float", "float", "float", `[1.5,2.5]`, "float", 2, le(float32(1.5), float32(2.5))},
		{"double", "double", "double", `[1.5]`, "double", 1, le(1.5)},
		{"float64", "float64", "", `[1.5]`, "double", 1, le(1.5)},
		{"date32", "arrow::Date32Type", "date32[day]", `["1970-01-02"]`, "date32[day]", 1, le(int32(1))},
		{"date32_default", "arrow::Date32Type", "", `["1970-01-02"]`, "date32[day]", 1, le(int32(1))},
		{"date64", "arrow::Date64Type", "date64[ms]", `["1970-01-02"]`, "date64[ms]", 1, le(int64(86400000))},
		{"time32", "arrow::Time32Type", "time[32][S]", `["00:00:01"]`, "time32[s]", 1, le(int32(1))},
		{"time32_default", "arrow::Time32Type", "", `["00:00:00.001"]`, "time32[ms]", 1, le(int32(1))},
		{"time64", "arrow::Time64Type", "time[64][US]", `["00:00:00.000001"]`, "time64[us]", 1, le(int64(1))},
		{"timestamp", "arrow::TimestampType", "timestamp[S][]", `["1970-01-01T00:00:01"]`, "timestamp[s]", 1, le(int64(1))},
		{"timestamp_zone", "arrow::TimestampType", "timestamp[US][Europe/Berlin]", `["1970-01-01T00:00:00.000001"]`, "timestamp[us, tz=Europe/Berlin]", 1, le(int64(1))},
		{"timestamp_default", "arrow::TimestampType", "", `["1970-01-01T00:00:00.001"]`, "timestamp[ms]", 1, le(int64(1))},
	} {
		cases = append(cases, numeric(c.name, c.typename, c.dataType, c.want, c.kind, c.n, c.b))
	}
	ints := func(w *world) *client.Meta {
		return client.NewMeta("vineyard::NumericArray<int64>").Set("length_", 3).Set("null_count_", 0).Set("offset_", 0).Set("nbytes", 24).
			Add("buffer_", w.blob(le(int64(1), int64(2), int64(3)))).Add("null_bitmap_", w.blob(nil))
	}
	narrow, wide, words := blob(le(int32(0), int32(1), int32(3))), blob(le(int64(0), int64(1), int64(3))), blob([]byte("abb"))
	return append(cases,
		made("cpp_string", "§5.3", "BaseBinaryArray<arrow::StringArray>", `["a","bb"]`, "array string", 2, nil, members{"buffer_offsets_": narrow, "buffer_data_": words}),
		made("cpp_string_alias", "§5.3", "StringArray", `["a","bb"]`, "array string", 2, nil, members{"buffer_offsets_": narrow, "buffer_data_": words}),
		made("cpp_binary", "§5.3", "BaseBinaryArray<arrow::BinaryArray>", `["YQ==","YmI="]`, "array binary", 2, nil, members{"buffer_offsets_": narrow, "buffer_data_": words}),
		made("cpp_large_binary", "§5.3", "BaseBinaryArray<arrow::LargeBinaryArray>", `["YQ==","YmI="]`, "array large_binary", 2, nil, members{"buffer_offsets_": wide, "buffer_data_": words}),
		made("alias_large_string", "§5.3", "LargeStringArray", `["a","bb"]`, "array large_string", 2, nil, members{"buffer_offsets_": wide, "buffer_data_": words}),
		made("alias_large_binary", "§5.3", "LargeBinaryArray", `["YQ==","YmI="]`, "array large_binary", 2, nil, members{"buffer_offsets_": wide, "buffer_data_": words}),
		made("java_string", "§5.3", "BaseBinaryArray<arrow::LargeStringArray>", `["a","bb"]`, "array large_string", 2, nil, members{"buffer_offsets_": wide, "buffer_": words}),
		made("offsets_not_from_0", "§5.3", "BaseBinaryArray<arrow::LargeStringArray>", `["bb"]`, "array large_string", 1, nil,
			members{"buffer_offsets_": blob(le(int64(1), int64(3))), "buffer_data_": words}),
		made("string_empty_blobs", "§5.3", "BaseBinaryArray<arrow::LargeStringArray>", `[]`, "array large_string", 0, nil, members{"buffer_offsets_": blob(nil), "buffer_data_": blob(nil)}),
		made("cpp_list", "§5.6", "BaseListArray<arrow::ListArray>", `[[1],[2,3]]`, "array list<item: int64>", 2, nil, members{"buffer_offsets_": narrow, "values_": ints}),
		made("cpp_large_list", "§5.6", "BaseListArray<arrow::LargeListArray>", `[[1],[2,3]]`, "array large_list<item: int64>", 2, nil, members{"buffer_offsets_": wide, "values_": ints}),
		made("cpp_fixed_size_list", "§5.6", "FixedSizeListArray", `[[1,2,3]]`, "array fixed_size_list<item: int64>[3]", 1, map[string]any{"list_size_": 3}, members{"values_": ints}),
		made("null_count_unknown", "§5", "NumericArray<int64>", `[null,2]`, "array int64", 2, map[string]any{"null_count_": -1},
			members{"buffer_": blob(le(int64(1), int64(2))), "null_bitmap_": blob([]byte{2})}),
		testCase{
			name: "schema_legacy", section: "§5.7", kind: "schema", want: `[{"name":"i","type":"int64","nullable":true}]`, without: without("py cli", "older writers"),
			golang: func(w *world) any {
				var s struct{ Bytes []uint16 }
				m := must(w.c.GetObject(w.ctx, w.put(fields("i", i64))))
				if err := m.JSON("schema_binary_", &s); err != nil {
					panic(err)
				}
				raw := make([]byte, len(s.Bytes))
				for i, x := range s.Bytes {
					raw[i] = byte(x)
				}
				return w.make(client.NewMeta("vineyard::SchemaProxy").Set("nbytes", len(raw)).Add("buffer_", w.blob(raw)))
			},
		},
	)
}

func batchCases() []testCase {
	s := fields("i", i64, "s", str, "f", f64)
	return []testCase{
		{
			name: "recordbatch", section: "§5.8", kind: "batch i:int64 s:large_string f:double", recorded: "recordbatch", without: without("cli", "the command line makes tables"),
			want:   `[{"i":1,"s":"a","f":1.5},{"i":2,"s":null,"f":2.5},{"i":3,"s":"c","f":null}]`,
			python: `pa.record_batch([pa.array([1,2,3]), pa.array(["a",None,"c"]), pa.array([1.5,2.5,None])], names=["i","s","f"])`,
			golang: func(*world) any {
				return batch(s, `[{"i":1,"s":"a","f":1.5},{"i":2,"s":null,"f":2.5},{"i":3,"s":"c","f":null}]`)
			},
		},
		{
			name: "recordbatch_zero_rows", section: "§5.8", kind: "batch i:int64 s:large_string f:double", want: `[]`, without: without("cli", "the command line makes tables"),
			python: `pa.record_batch([pa.array([], pa.int64()), pa.array([], pa.string()), pa.array([], pa.float64())], names=["i","s","f"])`,
			golang: func(*world) any { return batch(s, `[]`) },
		},
		{
			name: "recordbatch_zero_columns", section: "§5.8", kind: "batch", want: `[]`, without: without("cli", "the command line makes tables"),
			python: `pa.RecordBatch.from_arrays([], names=[])`, golang: func(*world) any { return batch(fields(), `[]`) },
		},
		{
			name: "recordbatch_sliced", section: "§5.8", kind: "batch i:int64 s:large_string", want: `[{"i":2,"s":null},{"i":3,"s":"c"}]`, without: without("cli", "the command line makes tables"),
			python: `pa.record_batch([pa.array([1,2,3]), pa.array(["a",None,"c"])], names=["i","s"]).slice(1)`,
			golang: func(*world) any {
				return batch(fields("i", i64, "s", str), `[{"i":1,"s":"a"},{"i":2,"s":null},{"i":3,"s":"c"}]`).NewSlice(1, 3)
			},
		},
	}
}

func tableCases() []testCase {
	dict := &arrow.DictionaryType{IndexType: i32, ValueType: str}
	rowsIS := `[{"i":1,"s":"a"},{"i":2,"s":"b"},{"i":3,"s":"c"}]`
	plain := func(name, kind, want, python string, s *arrow.Schema, file string, batches ...string) testCase {
		return testCase{
			name: name, section: "§5.9", kind: "table" + kind, want: want, python: python,
			golang: func(*world) any { return table(s, batches...) }, cli: written(file, python),
		}
	}
	recorded := func(c testCase) testCase {
		c.recorded = c.name
		return c
	}
	times := fields("d", arrow.FixedWidthTypes.Date32, "e", arrow.FixedWidthTypes.Date64, "t", arrow.FixedWidthTypes.Time32ms, "u", arrow.FixedWidthTypes.Time64ns,
		"s", stampOf(arrow.Second, ""), "n", stampOf(arrow.Nanosecond, ""), "z", stampOf(arrow.Microsecond, "Europe/Berlin"), "l", durationOf(arrow.Millisecond))
	timeRows := func(z, l string) string {
		return `[{"d":"1970-01-02","e":"1970-01-03","t":"00:00:01.5","u":"00:00:00.000000001","s":"2020-02-29T01:02:03","n":"2020-02-29T01:02:03.000000004","z":"2020-02-29T01:02:03` + z + `","l":` + l + `},` +
			`{"d":null,"e":null,"t":null,"u":null,"s":null,"n":null,"z":null,"l":null}]`
	}
	lists := `[{"l":[1,2],"s":["a",null],"n":[[1],[]]},{"l":null,"s":[],"n":null},{"l":[],"s":null,"n":[null,[2]]}]`
	unicode := `[{"größe":1,"日本 語":"x","a,b\"c":true}]`
	wideNames := make([]any, 0, 2000)
	var wideRow, wideKind strings.Builder
	for i := range 1000 {
		wideNames = append(wideNames, fmt.Sprintf("c%d", i), i64)
		fmt.Fprintf(&wideRow, `,"c%d":%d`, i, i)
		fmt.Fprintf(&wideKind, " c%d:int64", i)
	}
	wide := "[{" + wideRow.String()[1:] + "}]"
	cases := []testCase{
		recorded(plain("table", " i:int64 s:large_string", rowsIS, `pa.table({"i":[1,2,3],"s":["a","b","c"]})`, fields("i", i64, "s", str), "x.parquet", rowsIS)),
		recorded(plain("table_two_batches", " 2+1 i:int64", `[{"i":1},{"i":2},{"i":3}]`,
			`pa.Table.from_batches([pa.record_batch([pa.array([1,2])],names=["i"]), pa.record_batch([pa.array([3])],names=["i"])])`,
			fields("i", i64), "x.arrow", `[{"i":1},{"i":2}]`, `[{"i":3}]`)),
		recorded(plain("table_empty", " i:int64", `[]`, `pa.table({"i":pa.array([],type=pa.int64())})`, fields("i", i64), "x.parquet")),
		plain("table_zero_rows", " i:int64 s:large_string l:large_list<item: int64> t:timestamp[ns] b:bool n:null", `[]`,
			`pa.Table.from_batches([pa.record_batch([pa.array([], t) for t in (pa.int64(), pa.string(), pa.list_(pa.int64()), pa.timestamp("ns"), pa.bool_(), pa.null())], names=list("isltbn"))])`,
			fields("i", i64, "s", str, "l", arrow.ListOf(i64), "t", stampOf(arrow.Nanosecond, ""), "b", arrow.FixedWidthTypes.Boolean, "n", arrow.Null), "x.arrow", `[]`),
		plain("table_zero_columns", "", `[]`, `pa.Table.from_batches([pa.RecordBatch.from_arrays([], names=[])])`, fields(), "x.arrow", `[]`),
		plain("table_chunks", " 1+1+1 a:int64 b:large_string", `[{"a":1,"b":"x"},{"a":2,"b":"y"},{"a":3,"b":"z"}]`,
			`pa.table({"a": pa.chunked_array([[1,2],[3]]), "b": pa.chunked_array([["x"],["y","z"]])})`,
			fields("a", i64, "b", str), "x.arrow", `[{"a":1,"b":"x"}]`, `[{"a":2,"b":"y"}]`, `[{"a":3,"b":"z"}]`),
		plain("table_nulls", " i:int64 f:double s:large_string b:bool n:null", `[{"i":null,"f":null,"s":null,"b":null,"n":null},{"i":1,"f":1.5,"s":"","b":false,"n":null}]`,
			`pa.table({"i":[None,1],"f":[None,1.5],"s":[None,""],"b":[None,False],"n":pa.nulls(2)})`,
			fields("i", i64, "f", f64, "s", str, "b", arrow.FixedWidthTypes.Boolean, "n", arrow.Null), "x.arrow",
			`[{"i":null,"f":null,"s":null,"b":null,"n":null},{"i":1,"f":1.5,"s":"","b":false,"n":null}]`),
		plain("table_unicode_names", ` größe:int64 日本 語:large_string a,b"c:bool`, unicode, `pa.table({"größe":[1],"日本 語":["x"],"a,b\"c":[True]})`,
			fields("größe", i64, "日本 語", str, `a,b"c`, arrow.FixedWidthTypes.Boolean), "x.parquet", unicode),
		plain("table_1000_columns", wideKind.String(), wide, `pa.table({f"c{i}": [i] for i in range(1000)})`, fields(wideNames...), "x.parquet", wide),
		plain("table_lists", " l:large_list<item: int64> s:large_list<item: large_string> n:large_list<item: large_list<item: int64>>", lists,
			`pa.table({"l":[[1,2],None,[]],"s":[["a",None],[],None],"n":[[[1],[]],None,[None,[2]]]})`,
			fields("l", arrow.ListOf(i64), "s", arrow.ListOf(str), "n", arrow.ListOf(arrow.ListOf(i64))), "x.arrow", lists),
		plain("table_numbers", " a:int8 b:uint8 c:int16 d:uint16 e:int32 f:uint32 g:int64 h:double",
			`[{"a":-128,"b":255,"c":-32768,"d":65535,"e":-2147483648,"f":4294967295,"g":-9223372036854775808,"h":0.1}]`,
			`pa.table({k: pa.array([v], t) for k, v, t in (("a",-128,pa.int8()),("b",255,pa.uint8()),("c",-32768,pa.int16()),("d",65535,pa.uint16()),("e",-2**31,pa.int32()),("f",2**32-1,pa.uint32()),("g",-2**63,pa.int64()),("h",0.1,pa.float64()))})`,
			fields("a", arrow.PrimitiveTypes.Int8, "b", arrow.PrimitiveTypes.Uint8, "c", arrow.PrimitiveTypes.Int16, "d", arrow.PrimitiveTypes.Uint16,
				"e", i32, "f", arrow.PrimitiveTypes.Uint32, "g", i64, "h", f64), "x.parquet",
			`[{"a":-128,"b":255,"c":-32768,"d":65535,"e":-2147483648,"f":4294967295,"g":-9223372036854775808,"h":0.1}]`),
		plain("table_uint64", " u:uint64", `[{"u":18446744073709551615}]`, `pa.table({"u":pa.array([2**64-1], pa.uint64())})`, fields("u", arrow.PrimitiveTypes.Uint64), "x.parquet", `[{"u":18446744073709551615}]`),
		plain("table_float32", " f:float", `[{"f":1.5},{"f":null}]`, `pa.table({"f":pa.array([1.5,None], pa.float32())})`, fields("f", arrow.PrimitiveTypes.Float32), "x.parquet", `[{"f":1.5},{"f":null}]`),
		plain("table_float16", " f:halffloat", `[{"f":1.5}]`, `pa.table({"f":pa.array([np.float16(1.5)], pa.float16())})`, fields("f", arrow.FixedWidthTypes.Float16), "x.arrow", `[{"f":1.5}]`),
		plain("table_binary", " b:large_binary", `[{"b":"AP8="},{"b":null}]`, `pa.table({"b":[b"\x00\xff", None]})`, fields("b", arrow.BinaryTypes.Binary), "x.parquet", `[{"b":"AP8="},{"b":null}]`),
		plain("table_fixed_size_binary", " b:fixed_size_binary[2]", `[{"b":"AP8="},{"b":null}]`, `pa.table({"b":pa.array([b"\x00\xff", None], pa.binary(2))})`, fields("b", &arrow.FixedSizeBinaryType{ByteWidth: 2}), "x.arrow", `[{"b":"AP8="},{"b":null}]`),
		plain("table_decimal", " d:decimal128(10, 2)", `[{"d":"1.10"},{"d":"-12345678.90"},{"d":null}]`, `pa.table({"d":pa.array([decimal.Decimal("1.10"),decimal.Decimal("-12345678.90"),None], pa.decimal128(10,2))})`,
			fields("d", &arrow.Decimal128Type{Precision: 10, Scale: 2}), "x.parquet", `[{"d":"1.10"},{"d":"-12345678.90"},{"d":null}]`),
		plain("table_decimal256", " d:decimal256(50, 3)", `[{"d":"1.100"}]`, `pa.table({"d":pa.array([decimal.Decimal("1.100")], pa.decimal256(50,3))})`,
			fields("d", &arrow.Decimal256Type{Precision: 50, Scale: 3}), "x.arrow", `[{"d":"1.100"}]`),
		plain("table_dictionary", " c:large_string v:int64 | table c:dictionary<values=string, indices=int32, ordered=0> v:int64", `[{"c":"a","v":1},{"c":null,"v":2},{"c":"a","v":3}]`, `pa.table({"c":pa.array(["a",None,"a"]).dictionary_encode(),"v":[1,2,3]})`,
			fields("c", dict, "v", i64), "x.arrow", `[{"c":"a","v":1},{"c":null,"v":2},{"c":"a","v":3}]`),
		plain("table_dates", " d:date32[day] t:timestamp[ns]", `[{"d":"1970-01-02","t":"2020-02-29T01:02:03.5"}]`,
			`pa.table({"d":pa.array([1],pa.date32()),"t":pa.array([np.datetime64("2020-02-29T01:02:03.5","ns")])})`,
			fields("d", arrow.FixedWidthTypes.Date32, "t", stampOf(arrow.Nanosecond, "")), "x.parquet", `[{"d":"1970-01-02","t":"2020-02-29T01:02:03.5"}]`),
		plain("table_times", " d:date32[day] e:date64[ms] t:time32[ms] u:time64[ns] s:timestamp[s] n:timestamp[ns] z:timestamp[us, tz=Europe/Berlin] l:duration[ms]", timeRows("", "7"),
			`pa.table({"d":pa.array([1,None],pa.date32()),"e":pa.array([2*86400000,None],pa.date64()),"t":pa.array([1500,None],pa.time32("ms")),"u":pa.array([1,None],pa.time64("ns")),`+
				`"s":pa.array([1582938123,None],pa.timestamp("s")),"n":pa.array([1582938123000000004,None],pa.timestamp("ns")),"z":pa.array([1582938123000000,None],pa.timestamp("us",tz="Europe/Berlin")),"l":pa.array([7,None],pa.duration("ms"))})`,
			times, "x.arrow", timeRows("Z", `"7ms"`)),
		recorded(plain("table_temporal", " d:date32[day] t:timestamp[ns] b:bool", `[{"d":"1970-01-02","t":"1970-01-01T00:00:00.000000001","b":true},{"d":"1970-01-03","t":"1970-01-01T00:00:00.000000002","b":false}]`,
			`pa.table({"d":pa.array([1,2],type=pa.date32()),"t":pa.array([1,2],type=pa.timestamp("ns")),"b":pa.array([True,False])})`,
			fields("d", arrow.FixedWidthTypes.Date32, "t", stampOf(arrow.Nanosecond, ""), "b", arrow.FixedWidthTypes.Boolean), "x.arrow",
			`[{"d":"1970-01-02","t":"1970-01-01T00:00:00.000000001","b":true},{"d":"1970-01-03","t":"1970-01-01T00:00:00.000000002","b":false}]`)),
	}
	withMeta := plain("table_metadata", " i:int64 #k", `[{"i":1}]`, `pa.table({"i":[1]}).replace_schema_metadata({"k":"v"})`, nil, "x.parquet")
	withMeta.recorded = "table_metadata"
	withMeta.golang = func(*world) any {
		m := arrow.NewMetadata([]string{"k"}, []string{"v"})
		return table(arrow.NewSchema(fields("i", i64).Fields(), &m), `[{"i":1}]`)
	}
	fromPandas := plain("table_from_pandas", " a:int64 b:large_string #pandas", `[{"a":1,"b":"x"},{"a":2,"b":"y"}]`, `pa.Table.from_pandas(pd.DataFrame({"a":[1,2],"b":["x","y"]}))`, nil, "x.parquet")
	fromPandas.recorded = "table_from_pandas"
	fromPandas.golang = func(*world) any {
		m := arrow.NewMetadata([]string{"pandas"}, []string{`{"index_columns":[],"columns":[]}`})
		return table(arrow.NewSchema(fields("a", i64, "b", str).Fields(), &m), `[{"a":1,"b":"x"},{"a":2,"b":"y"}]`)
	}
	noRows := testCase{
		name: "table_only_rows", section: "§5.8", kind: "table", want: `[{},{}]`, noCSV: "lines of no columns are empty", noFile: "pyarrow reads batches of no columns as of no rows",
		python:  `pa.Table.from_batches([pa.RecordBatch.from_arrays([pa.array([1,2])], names=["i"])]).select([])`,
		golang:  func(*world) any { return typed.NewTable(fields(), array.NewRecordBatch(fields(), nil, 2)) },
		without: without("cli", "no file has rows without columns"),
	}
	largeRows := func(from, to int) string {
		rows := make([]string, 0, to-from)
		for i := from; i < to; i++ {
			f := "null"
			if i%3 > 0 {
				f = fmt.Sprint(float64(i) / 4)
			}
			rows = append(rows, fmt.Sprintf(`{"i":%d,"f":%s,"s":"größe %d","b":%v}`, i, f, i, i%2 == 0))
		}
		return "[" + strings.Join(rows, ",") + "]"
	}
	// More than fits the buffers that are copied because they are small.
	big := plain("table_large", " 2000+2000+1000 i:int64 f:double s:large_string b:bool", largeRows(0, 5000),
		`pa.Table.from_batches([(lambda r: pa.record_batch([pa.array(list(r)), pa.array([i/4 if i%3 else None for i in r]), pa.array([f"größe {i}" for i in r]), pa.array([i%2==0 for i in r])], names=list("ifsb")))(range(a, b)) for a, b in ((0,2000),(2000,4000),(4000,5000))])`,
		fields("i", i64, "f", f64, "s", str, "b", arrow.FixedWidthTypes.Boolean), "x.arrow", largeRows(0, 2000), largeRows(2000, 4000), largeRows(4000, 5000))
	oneGroup := big
	oneGroup.name, oneGroup.python, oneGroup.golang = "table_large_parquet", "", nil
	oneGroup.without = without("py go", "the same as table_large")
	oneGroup.kind = "table i:int64 f:double s:large_string b:bool"
	oneGroup.cli = written("x.parquet", big.python)
	csv := oneGroup
	csv.name, csv.kind = "table_large_csv", "table i:int64 f:double s:large_string b:bool"
	csv.cli = written("x.csv", `"i,f,s,b\n" + "".join(f"{i},{i/4 if i%3 else ''},größe {i},{str(i%2==0).lower()}\n" for i in range(5000))`)
	framed := oneGroup
	framed.name, framed.section, framed.kind = "dataframe_large", "§7.3", "frame i:int64 f:float64 s:string b:bool"
	framed.cli = written("x.arrow", big.python, "--type", "dataframe")
	structs := plain("table_struct", " s:struct<x: int64>", `[{"s":{"x":1}}]`, `pa.table({"s":[{"x":1}]})`, nil, "")
	structs.golang, structs.cli, structs.without = nil, nil, without("go cli", "refused: Vineyard has no layout of structures")
	sliced := plain("table_sliced", " i:int64 l:large_list<item: large_string> b:bool", `[{"i":2,"l":["b",null],"b":true},{"i":null,"l":null,"b":null}]`,
		`pa.table({"i":[1,2,None,4],"l":[["a"],["b",None],None,[]],"b":[False,True,None,True]}).slice(1,2)`, nil, "x.arrow")
	sliced.golang = func(*world) any {
		return table(fields("i", i64, "l", arrow.ListOf(str), "b", arrow.FixedWidthTypes.Boolean),
			`[{"i":1,"l":["a"],"b":false},{"i":2,"l":["b",null],"b":true},{"i":null,"l":null,"b":null},{"i":4,"l":[],"b":true}]`).Slice(1, 3)
	}
	sliced.noCSV = "CSV has no lists"
	twice := plain("table_duplicate_names", " a:int64 b:large_string a:int64", `[{"a":1,"b":"x","a":2}]`, `pa.Table.from_arrays([pa.array([1]),pa.array(["x"]),pa.array([2])], names=["a","b","a"])`, nil, "x.arrow")
	twice.golang = func(*world) any {
		s := fields("a", i64, "b", str, "a", i64)
		return typed.NewTable(s, array.NewRecordBatch(s, []arrow.Array{arr(i64, `[1]`), arr(str, `["x"]`), arr(i64, `[2]`)}, 1))
	}
	twice.noJSON = "objects have no two keys of one name"
	cases = append(cases, big, oneGroup, csv, framed, structs, sliced, twice)
	for i := range cases {
		switch cases[i].name {
		case "table_lists", "table_binary", "table_fixed_size_binary":
			cases[i].noCSV = "CSV has no lists and no bytes"
		}
	}
	polars := plain("table_polars", " i:int64 s:large_string | polars table i:int64 s:large_string", `[{"i":1,"s":"x"},{"i":null,"s":null}]`, `polars.DataFrame({"i":[1,None],"s":["x",None]})`, fields("i", i64, "s", str), "", `[{"i":1,"s":"x"},{"i":null,"s":null}]`)
	polars.cli = written("x.parquet", `polars.DataFrame({"i":[1,None],"s":["x",None]}).to_arrow()`)
	ofText := func(name, file, content, kind, want string, s *arrow.Schema, args ...string) testCase {
		return testCase{
			name: name, section: "§13", kind: kind, want: want, cli: text(file, content, args...),
			golang: func(*world) any { return table(s, want) }, without: without("py", "the same as of other tables"),
		}
	}
	lines := ofText("table_of_ndjson", "x.ndjson", `{"a":1,"b":"x","l":[1,2]}`+"\n"+`{"a":null,"b":null,"l":null}`+"\n", "table a:int64 b:large_string l:large_list<item: int64>",
		`[{"a":1,"b":"x","l":[1,2]},{"a":null,"b":null,"l":null}]`, fields("a", i64, "b", str, "l", arrow.ListOf(i64)))
	lines.noCSV = "CSV has no lists"
	return append(cases, withMeta, fromPandas, noRows, polars, lines,
		ofText("table_of_csv", "x.csv", "i,f,s,b,d,t\n1,1.5,a,true,2020-02-29,2020-02-29T01:02:03\n2,,,false,,\n", "table i:int64 f:double s:large_string b:bool d:date32[day] t:timestamp[s]",
			`[{"i":1,"f":1.5,"s":"a","b":true,"d":"2020-02-29","t":"2020-02-29T01:02:03"},{"i":2,"f":null,"s":null,"b":false,"d":null,"t":null}]`,
			fields("i", i64, "f", f64, "s", str, "b", arrow.FixedWidthTypes.Boolean, "d", arrow.FixedWidthTypes.Date32, "t", stampOf(arrow.Second, ""))),
		ofText("table_of_csv_typed", "x.csv", "a;b\n1;2\n", "table a:int8 b:large_string", `[{"a":1,"b":"2"}]`, fields("a", arrow.PrimitiveTypes.Int8, "b", str),
			"--schema", "a=int8", "--schema", "b=string"),
		ofText("table_of_tsv", "x.tsv", "a\tb\n1\tx y\n", "table a:int64 b:large_string", `[{"a":1,"b":"x y"}]`, fields("a", i64, "b", str)),
		ofText("table_of_json", "x.json", `[{"a":1.5},{"a":2}]`, "table a:double", `[{"a":1.5},{"a":2}]`, fields("a", f64), "--type", "table"),
	)
}
