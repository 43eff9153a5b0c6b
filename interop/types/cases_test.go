//go:build linux

package types_test

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/typed"
)

// allCases is the matrix.
func allCases() []testCase {
	return slices.Concat(scalarCases(), pickleCases(), blobCases(), plainArrayCases(), arrowCases(), slicedCases(), spellingCases(),
		batchCases(), tableCases(), tensorCases(), sparseCases(), indexCases(), seriesCases(), frameCases(), globalCases(), opaqueCases())
}

// Why writers make nothing of some kinds.
func without(writersAndReasons ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(writersAndReasons); i += 2 {
		for _, writer := range strings.Split(writersAndReasons[i], " ") {
			m[writer] = writersAndReasons[i+1]
		}
	}
	return m
}

const (
	noPython   = "no value of Python's is written so"
	noGoPickle = "Go pickles None, bool, int, float, str, bytes, list, tuple and dict"
	noCLIType  = "no file holds such a value"
)

// value is for a writer in Go that stores a value.
func value(v any) func(*world) any { return func(*world) any { return v } }

// text puts a file with some text.
func text(name, content string, args ...string) func(w *world) string {
	return func(w *world) string {
		path := w.file(name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			panic(err)
		}
		return w.putFile(path, args)
	}
}

// written puts a file that Python writes of an expression.
func written(name, expr string, args ...string) func(w *world) string {
	return func(w *world) string {
		path := w.file(name)
		must(w.py.ask(command{Op: "write", Expr: expr, Path: path}))
		return w.putFile(path, args)
	}
}

func (w *world) putFile(path string, args []string) string {
	return strings.TrimSpace(string(must(w.command(append([]string{"put", path}, args...)...))))
}

func scalarCases() []testCase {
	number := func(name, want, kind, python string, v any) testCase {
		return testCase{name: name, section: "§4.1", want: want, kind: kind, python: python, golang: value(v), cli: text("x.json", want)}
	}
	cases := []testCase{
		number("scalar_int", `42`, "int", `42`, 42),
		number("scalar_int_negative", `-9223372036854775808`, "int", `-2**63`, int64(-1<<63)),
		number("scalar_int_big", `1099511627776`, "int", `2**40`, int64(1<<40)),
		number("scalar_int_exact", `9007199254740993`, "int", `2**53+1`, int64(1<<53+1)),
		number("scalar_int_huge", `9223372036854775809`, "int", `2**63+1`, uint64(1<<63+1)),
		number("scalar_double", `3.5`, "float", `3.5`, 3.5),
		number("scalar_double_whole", `3.0`, "float", `3.0`, 3.0),
		number("scalar_double_digits", `0.1`, "float", `0.1`, 0.1),
		number("scalar_double_large", `1e300`, "float", `1e300`, 1e300),
		number("scalar_string", `"hello"`, "str", `"hello"`, "hello"),
		number("scalar_string_empty", `""`, "str", `""`, ""),
		number("scalar_string_unicode", `"größe 🚀 \"\\\n"`, "str", `"größe 🚀 \"\\\n"`, "größe 🚀 \"\\\n"),
		number("scalar_bool", `true`, "bool", `True`, true),
	}
	for i := range cases {
		switch cases[i].name {
		case "scalar_int", "scalar_int_big", "scalar_double", "scalar_string", "scalar_bool":
			cases[i].recorded = cases[i].name
		}
	}
	scalar := func(name, typename string, field any) func(w *world) any {
		return func(w *world) any {
			return w.make(client.NewMeta("vineyard::Scalar<"+typename+">").Set("value_", field).Set("type_", name).Set("nbytes", 0))
		}
	}
	cpp := without("py cli", "C++ writes so")
	return append(cases,
		testCase{
			name: "scalar_text", section: "§4.1", want: `"plain text"`, kind: "str", python: `"plain text"`, golang: value("plain text"),
			cli: text("x.txt", "plain text\n", "--type", "scalar"),
		},
		testCase{name: "scalar_cpp_int64", section: "§4.1", want: `5`, kind: "int", golang: scalar("int64", "int64", 5), without: cpp},
		testCase{name: "scalar_cpp_uint64", section: "§4.1", want: `5`, kind: "int", golang: scalar("uint64", "uint64", 5), without: cpp},
		testCase{name: "scalar_cpp_float", section: "§4.1", want: `1.5`, kind: "float", golang: scalar("float", "float", 1.5), without: cpp},
		testCase{name: "scalar_cpp_bool", section: "§4.1", want: `true`, kind: "bool", golang: scalar("bool", "bool", true), without: cpp},

		testCase{
			name: "tuple", section: "§4.2", want: `[1,"a",2.5]`, kind: "(int str float)", python: `(1, "a", 2.5)`,
			golang: value([]any{1, "a", 2.5}), cli: text("x.json", `[1,"a",2.5]`), recorded: "tuple",
		},
		testCase{
			name: "list", section: "§4.2", want: `[1,[2,3],"x"]`, kind: "(int (int int) str)", python: `[1, [2, 3], "x"]`,
			golang: value([]any{1, []any{2, 3}, "x"}), cli: text("x.json", `[1,[2,3],"x"]`, "--type", "sequence"), recorded: "list",
		},
		testCase{name: "list_empty", section: "§4.2", want: `[]`, kind: "()", python: `[]`, golang: value([]any{}), cli: text("x.json", `[]`), recorded: "list_empty"},
		testCase{
			name: "list_deep", section: "§4.2", want: `[[[[[]]]],null]`, kind: "((((()))) none)", python: `[[[[[]]]], None]`,
			golang: value([]any{[]any{[]any{[]any{[]any{}}}}, typed.None{}}), cli: text("x.json", `[[[[[]]]],null]`),
		},
		testCase{
			name: "list_long", section: "§4.2", want: numbers(300), kind: "(" + strings.TrimSpace(strings.Repeat("int ", 300)) + ")", python: `list(range(300))`,
			golang: func(*world) any {
				list := make([]any, 300)
				for i := range list {
					list[i] = i
				}
				return list
			}, cli: text("x.json", numbers(300)),
		},
		testCase{
			name: "list_of_arrays", section: "§4.2", want: `[[0,1,2],[[1.5]]]`, kind: "(int64[3] float64[1,1])",
			python: `(np.arange(3), np.array([[1.5]]))`, golang: value([]any{tensor([]int64{0, 1, 2}), tensor([]float64{1.5}, 1, 1)}),
			cli: written("x.npz", `{"a": np.arange(3), "b": np.array([[1.5]])}`),
		},
		testCase{
			name: "list_of_tables", section: "§4.2", want: `[[{"i":1}],[{"f":1.5}]]`, kind: "(table i:int64 frame f:float64)",
			python:  `[pa.table({"i": [1]}), pd.DataFrame({"f": [1.5]})]`,
			golang:  value([]any{table(fields("i", i64), `[{"i":1}]`), frame("f", tensor([]float64{1.5}))}),
			without: without("cli", noCLIType),
		},
		testCase{
			name: "sequence_cpp", section: "§4.2", want: `[7]`, kind: "(int)",
			golang: func(w *world) any {
				return w.make(client.NewMeta("vineyard::Sequence").Set("size_", 1).Set("__elements_-size", 1).Set("nbytes", 0).AddObject("__elements_-0", w.put(7)))
			},
			without: without("py cli", "made by hand"),
		},
	)
}

// numbers is the JSON of a list of n numbers.
func numbers(n int) string {
	text := make([]string, n)
	for i := range text {
		text[i] = fmt.Sprint(i)
	}
	return "[" + strings.Join(text, ",") + "]"
}

func pickleCases() []testCase {
	noFile := without("cli", noCLIType, "go", noGoPickle)
	nested := `{"a":null,"b":true,"c":[1,"x",[]],"d":{"k":"größe","n":-70000},"f":1.5,"i":9007199254740993}`
	return []testCase{
		{name: "none", section: "§4.4", want: `null`, kind: "none", python: `None`, golang: value(typed.None{}), cli: text("x.json", `null`), recorded: "none"},
		{
			name: "dict_pickle", section: "§4.4", want: `{"a":1,"b":[1,2]}`, kind: "dict", python: `{"a": 1, "b": [1,2]}`,
			golang: value(typed.Dict{{Key: "a", Value: 1}, {Key: "b", Value: []any{1, 2}}}), cli: text("x.json", `{"a":1,"b":[1,2]}`), recorded: "dict_pickle",
		},
		{
			name: "dict_nested", section: "§4.4", want: nested, kind: "dict",
			python: `{"a": None, "b": True, "c": [1, "x", []], "d": {"k": "größe", "n": -70000}, "f": 1.5, "i": 2**53+1}`,
			golang: value(typed.Dict{
				{Key: "a", Value: nil},
				{Key: "b", Value: true},
				{Key: "c", Value: []any{1, "x", []any{}}},
				{Key: "d", Value: typed.Dict{{Key: "k", Value: "größe"}, {Key: "n", Value: -70000}}},
				{Key: "f", Value: 1.5},
				{Key: "i", Value: 1<<53 + 1},
			}),
			cli: text("x.json", nested),
		},
		{name: "dict_empty", section: "§4.4", want: `{}`, kind: "dict", python: `{}`, golang: value(typed.Dict{}), cli: text("x.json", `{}`)},
		{
			name: "dict_keys", section: "§4.4", want: `{"1":"a","[2,3]":"b"}`, kind: "dict", python: `{1: "a", (2, 3): "b"}`,
			golang:  value(typed.Dict{{Key: 1, Value: "a"}, {Key: typed.Tuple{2, 3}, Value: "b"}}),
			without: without("cli", "keys of JSON are strings"),
		},
		{
			name: "dict_unusual", section: "§4.4", want: `{"huge":18446744073709551615,"raw":"AP8=","tuple":[1,[2]]}`, kind: "dict",
			python:  `{"huge": 2**64-1, "raw": b"\x00\xff", "tuple": (1, [2])}`,
			golang:  value(typed.Dict{{Key: "huge", Value: uint64(1<<64 - 1)}, {Key: "raw", Value: []byte{0, 255}}, {Key: "tuple", Value: typed.Tuple{1, []any{2}}}}),
			without: without("cli", "JSON has no bytes and no tuples"),
		},
		{
			name: "dict_shared", section: "§4.4", want: `{"a":[1],"b":[1]}`, kind: "dict", python: `(lambda x: {"a": x, "b": x})([1])`,
			without: without("cli", noCLIType, "go", "values are trees in Go"),
		},
		{name: "dict_of_arrays", section: "§4.4", want: `{"a":[[1,2],[3,4]],"f":1.5}`, kind: "dict", python: `{"a": np.array([[1,2],[3,4]]), "f": np.float64(1.5)}`, without: noFile},
		{name: "set_pickle", section: "§4.4", want: `[1,2]`, kind: "set", python: `{1,2}`, recorded: "set_pickle", without: noFile},
		{name: "numpy_scalar", section: "§4.4", want: `1.5`, kind: "float32", python: `np.float32(1.5)`, recorded: "numpy_scalar", without: noFile},
		{name: "numpy_scalar_time", section: "§4.4", want: `"2020-01-02T03:04:05"`, kind: "datetime64[s]", python: `np.datetime64("2020-01-02T03:04:05")`, without: noFile},
		{name: "complex_pickle", section: "§4.4", want: `[1,2]`, kind: "complex", python: `1+2j`, without: noFile},
		{name: "date_pickle", section: "§4.4", want: `"2020-01-02"`, kind: "date", python: `__import__("datetime").date(2020, 1, 2)`, without: noFile},
		{name: "timestamp_pickle", section: "§4.4", want: `"2020-01-02"`, kind: "timestamp", python: `pd.Timestamp("2020-01-02")`, without: noFile},
		{name: "huge_pickle", section: "§4.4", want: `{"n":1180591620717411303424}`, kind: "dict", python: `{"n": 2**70}`, without: noFile},
		{
			name: "arrow_struct", section: "§4.4", want: `[{"x":1}]`, kind: "array struct<x: int64>", python: `pa.array([{"x":1}])`, recorded: "arrow_struct",
			without: without("cli go", "Vineyard has no layout of structures"),
		},
		{
			name: "arrow_chunked", section: "§4.4", want: `[1,2,3]`, kind: "array int64", python: `pa.chunked_array([[1,2],[3]])`, recorded: "arrow_chunked",
			without: without("cli go", "a chunked array is a column of a table there"),
		},
	}
}

func blobCases() []testCase {
	noCLI := without("cli", "what it puts can have a name, a blob cannot: it makes arrays of bytes")
	blob := func(name, want, python string, b []byte, recorded string) testCase {
		return testCase{name: name, section: "§3", want: want, kind: "bytes", python: python, golang: value(b), recorded: recorded, without: noCLI}
	}
	return []testCase{
		blob("bytes", `"YWJjZGVmZw=="`, `b"abcdefg"`, []byte("abcdefg"), "bytes"),
		blob("bytes_empty", `""`, `b""`, []byte{}, "bytes_empty"),
		blob("memoryview", `"eHl6"`, `memoryview(b"xyz")`, []byte("xyz"), "memoryview"),
		blob("arrow_buffer", `"MDEyMzQ1Njc4OQ=="`, `pa.py_buffer(b"0123456789")`, []byte("0123456789"), "arrow_buffer"),
		{
			name: "file", section: "§13", want: `[97,0,255]`, kind: "uint8[3]", python: `np.frombuffer(b"a\x00\xff", dtype="uint8")`,
			golang: value(tensor([]uint8{97, 0, 255})), cli: text("x.bin", "a\x00\xff"), noFile: "what was put as bytes is got as bytes",
		},
		{
			name: "file_empty", section: "§13", want: `[]`, kind: "uint8[0]", python: `np.zeros(0, dtype="uint8")`,
			golang: value(tensor([]uint8{})), cli: text("x.bin", ""), noFile: "what was put as bytes is got as bytes",
		},
	}
}

func plainArrayCases() []testCase {
	array := func(name, typename, want, kind string, n int, b []byte) testCase {
		return testCase{
			name: name, section: "§4.5", want: want, kind: kind, without: without("py cli", "C++ writes so"),
			golang: func(w *world) any {
				return w.make(client.NewMeta("vineyard::Array<"+typename+">").Set("size_", n).Set("nbytes", len(b)).Add("buffer_", w.blob(b)))
			},
		}
	}
	return []testCase{
		array("array_int", "int", `[1,-2]`, "int32[2]", 2, le(int32(1), int32(-2))),
		array("array_int64", "int64", `[1,-2]`, "int64[2]", 2, le(int64(1), int64(-2))),
		array("array_uint64", "uint64", `[18446744073709551615]`, "uint64[1]", 1, le(uint64(1<<64-1))),
		array("array_double", "double", `[1.5,null]`, "float64[2]", 2, le(1.5, nan)),
		array("array_float", "float", `[1.5]`, "float32[1]", 1, le(float32(1.5))),
		array("array_uchar", "unsigned char", `[255]`, "uint8[1]", 1, []byte{255}),
		array("array_empty", "int64", `[]`, "int64[0]", 0, nil),
		array("array_longer", "int64", `[7]`, "int64[1]", 1, le(int64(7), int64(8))),
	}
}

func globalCases() []testCase {
	parts := func(w *world, values ...any) []any {
		ids := make([]any, len(values))
		for i, v := range values {
			ids[i] = w.put(v)
		}
		return ids
	}
	halves := func(w *world) []any { return parts(w, tensor([]int64{0, 1, 2, 3}), tensor([]int64{4, 5, 6, 7})) }
	part := func(order int64, values ...int64) *typed.DataFrame {
		f := frame("a", tensor(values))
		f.Row, f.Column, f.RowBatch = order, 0, order
		return f
	}
	frames := func(w *world) []any { return parts(w, part(0, 1, 2), part(1, 3, 4)) }
	ids := func(list []any) []string {
		var out []string
		for _, id := range list {
			out = append(out, id.(client.ID).String())
		}
		return out
	}
	made := func(typename string, fields []string, list func(w *world) []any) func(w *world) string {
		return func(w *world) string {
			args := []string{"global", "create", "--type", typename}
			for _, f := range fields {
				args = append(args, "--field", f)
			}
			return strings.TrimSpace(string(must(w.command(append(args, ids(list(w))...)...))))
		}
	}
	return []testCase{
		{
			name: "global_tensor", section: "§7.4", want: `[[0,1,2,3],[4,5,6,7]]`, kind: "[2] of [8] (int64[4] int64[4])",
			python: `make_global_tensor(client, [client.put(np.arange(4), partition_index=[0]), client.put(np.arange(4, 8), partition_index=[1])], shape=(8,), partition_shape=(2,))`,
			golang: func(w *world) any {
				return &typed.Global{Typename: "vineyard::GlobalTensor", Parts: halves(w), Shape: []int64{8}, PartitionShape: []int64{2}}
			},
			cli:      made("vineyard::GlobalTensor", []string{`shape_="[8]"`, `partition_shape_="[2]"`}, halves),
			recorded: "global_tensor",
		},
		{
			name: "global_dataframe", section: "§7.4", want: `[[{"a":1},{"a":2}],[{"a":3},{"a":4}]]`, kind: "(frame a:int64 frame a:int64)",
			python: `make_global_dataframe(client, [client.put(pd.DataFrame({"a":[1,2]}), partition_index=[0, 0], row_batch_index=0),` +
				` client.put(pd.DataFrame({"a":[3,4]}), partition_index=[1, 0], row_batch_index=1)])`,
			golang:   func(w *world) any { return &typed.Global{Typename: "vineyard::GlobalDataFrame", Parts: frames(w)} },
			cli:      made("vineyard::GlobalDataFrame", []string{`partition_shape_row_=2`, `partition_shape_column_=1`}, frames),
			recorded: "global_dataframe",
		},
		{
			name: "collection", section: "§7.4", want: `[1,"x"]`, kind: "(int str)",
			golang: func(w *world) any {
				return w.make(client.NewMeta("vineyard::Collection<vineyard::Object>").Set("partitions_-size", 2).Set("nbytes", 0).
					AddObject("partitions_-0", w.put(1)).AddObject("partitions_-1", w.put("x")))
			},
			without: without("py cli", "C++ writes so"),
		},
	}
}

func opaqueCases() []testCase {
	opaque := func(name, section, typename string, build func(w *world, m *client.Meta)) testCase {
		return testCase{
			name: name, section: section, want: fmt.Sprintf(`{"opaque":%q}`, typename), kind: "known",
			golang: func(w *world) any {
				m := client.NewMeta(typename).Set("nbytes", 0)
				build(w, m)
				return w.make(m)
			},
			without: without("py cli", "C++ writes so"),
		}
	}
	recorded := func(name, section, typename, kind string) testCase {
		return testCase{
			name: name, section: section, want: fmt.Sprintf(`{"opaque":%q}`, typename), kind: kind, recorded: name,
			without: without("py cli go", "interop/streams makes streams"),
		}
	}
	return []testCase{
		opaque("hashmap", "§10", "vineyard::Hashmap<int64,uint64,wy::hash<int64>,std::equal_to<int64>>", func(w *world, m *client.Meta) {
			entries := client.NewMeta("vineyard::Array<ska::detailv3::sherwood_v3_entry<std::pair<int64,uint64>>>").
				Set("size_", 3).Set("nbytes", 72).Add("buffer_", w.blob(make([]byte, 72)))
			m.Set("num_slots_minus_one_", 1).Set("max_lookups_", 1).Set("num_elements_", 1).Set("data_buffer_", 0).
				Add("entries_", entries).Add("data_buffer_mapped_", w.blob(nil))
		}),
		opaque("hashmap_perfect", "§10", "vineyard::PerfectHashmap<int64,uint64>", func(w *world, m *client.Meta) {
			keys := client.NewMeta("vineyard::Array<int64>").Set("size_", 1).Set("nbytes", 8).Add("buffer_", w.blob(le(int64(5))))
			m.Set("num_elements_", 1).Add("ph_keys_", keys).Add("ph_values_", w.blob(le(uint64(6)))).Add("ph_", w.blob([]byte{1}))
		}),
		opaque("fragment", "§11", "vineyard::ArrowFragment<int64,uint64,vineyard::ArrowVertexMap<int64,uint64>,false>", func(w *world, m *client.Meta) {
			vm := client.NewMeta("vineyard::ArrowVertexMap<int64,uint64>").Set("fnum", 1).Set("label_num", 1).Set("use_perfect_hash_", false).Set("nbytes", 0)
			m.Set("fid_", 0).Set("fnum_", 1).Set("directed_", true).Set("vertex_label_num_", 1).Set("edge_label_num_", 0).
				Set("oid_type", "int64").Set("vid_type", "uint64").Set("schema_json_", "{}").
				Set("__vertex_tables_-size", 1).AddObject("__vertex_tables_-0", w.put(table(fields("id", i64), `[{"id":1}]`))).Add("vm_ptr_", vm)
		}),
		opaque("fragment_group", "§11", "vineyard::ArrowFragmentGroup", func(w *world, m *client.Meta) {
			fragment := client.NewMeta("vineyard::ArrowFragment<int64,uint64>").Set("fid_", 0).Set("nbytes", 0)
			m.Set("total_frag_num", 1).Set("fid_0", 0).Set("frag_instance_id_0", 0).Add("frag_object_id_0", fragment)
		}),
		opaque("vertex_map_local", "§11", "vineyard::ArrowLocalVertexMap<int64,uint64>", func(_ *world, m *client.Meta) {
			m.Set("fnum", 1).Set("fid", 0).Set("label_num", 1).Set("vertices_num_0_0", 0)
		}),
		recorded("stream_byte", "§8", "vineyard::ByteStream", "known"),
		recorded("stream_dataframe", "§8", "vineyard::DataframeStream", "known"),
		recorded("stream_recordbatch", "§8", "vineyard::RecordBatchStream", "known"),
		recorded("stream_collection", "§8", "vineyard::StreamCollection", "known"),
		recorded("stream_parallel", "§8", "vineyard::ParallelStream", "known"),
		{
			name: "meta_value_types", section: "§1.3", want: `{"opaque":"test::Types"}`, kind: "unknown", recorded: "meta_value_types",
			without: without("py cli go", "metadata of no type of Vineyard's"),
		},
	}
}
