//go:build linux

package types_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/float16"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/typed"
)

var nan = math.NaN()

// nat is NaT: no time.
const nat = math.MinInt64

// le writes numbers little endian.
func le(numbers ...any) []byte {
	var b bytes.Buffer
	for _, n := range numbers {
		if err := binary.Write(&b, binary.LittleEndian, n); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func tensor[T typed.Element](data []T, shape ...int64) *typed.Tensor {
	return must(typed.NewTensor(data, shape...))
}

// raw makes a tensor of any dtype of its bytes.
func raw(dtype string, data []byte, shape ...int64) *typed.Tensor {
	return &typed.Tensor{DType: must(typed.ParseDType(dtype)), Shape: shape, Data: data}
}

// texts makes a tensor of strings; nil is none.
func texts(list ...any) *typed.Tensor {
	b := array.NewLargeStringBuilder(memory.DefaultAllocator)
	for _, s := range list {
		if s == nil {
			b.AppendNull()
		} else {
			b.Append(s.(string))
		}
	}
	return &typed.Tensor{DType: typed.Strings, Shape: []int64{int64(len(list))}, Text: b.NewLargeStringArray()}
}

// count makes a tensor of the shape 2x3 that counts from 0.
func count(dtype string) *typed.Tensor {
	var b []byte
	d := must(typed.ParseDType(dtype))
	for i := range 6 {
		switch d.Kind {
		case typed.Bool:
			b = append(b, min(byte(i), 1))
		case typed.Float:
			b = append(b, le(map[int]any{2: float16.New(float32(i)).Uint16(), 4: float32(i), 8: float64(i)}[d.Size])...)
		case typed.Complex:
			b = append(b, le(map[int]any{8: complex(float32(i), 0), 16: complex(float64(i), 0)}[d.Size])...)
		default:
			b = append(b, le(int64(i))[:d.Size]...)
		}
	}
	return raw(dtype, b, 2, 3)
}

func tensorCases() []testCase {
	var cases []testCase
	plain := func(name, kind, want, python string, v *typed.Tensor) testCase {
		return testCase{name: name, section: "§6", want: want, kind: kind, python: python, golang: value(v), cli: written("x.npy", python)}
	}
	recorded := func(c testCase) testCase {
		c.recorded = c.name
		return c
	}
	noCLI := func(c testCase, why string) testCase {
		c.cli, c.without = nil, without("cli", why)
		return c
	}
	const ints = `[[0,1,2],[3,4,5]]`
	stamps := func(format string) string {
		var list []any
		for i := range 6 {
			list = append(list, fmt.Sprintf(format, i))
		}
		return fmt.Sprintf(`[["%s","%s","%s"],["%s","%s","%s"]]`, list...)
	}
	const complexes = `[[[0,0],[1,0],[2,0]],[[3,0],[4,0],[5,0]]]`
	for _, c := range []struct {
		dtype, want string
		recorded    bool
	}{
		{"bool", `[[false,true,true],[true,true,true]]`, true},
		{"int8", ints, true},
		{"int16", ints, true},
		{"int32", ints, true},
		{"int64", ints, true},
		{"uint8", ints, true},
		{"uint16", ints, true},
		{"uint32", ints, true},
		{"uint64", ints, true},
		{"float16", ints, true},
		{"float32", ints, true},
		{"float64", ints, true},
		{"complex64", complexes, true},
		{"complex128", complexes, true},
		{"datetime64[ns]", stamps("1970-01-01T00:00:00.00000000%d"), true},
		{"datetime64[us]", stamps("1970-01-01T00:00:00.00000%d"), false},
		{"datetime64[ms]", stamps("1970-01-01T00:00:00.00%d"), false},
		{"datetime64[s]", stamps("1970-01-01T00:00:0%d"), true},
		{"datetime64[m]", stamps("1970-01-01T00:0%d:00"), false},
		{"datetime64[h]", stamps("1970-01-01T0%d:00:00"), false},
		{"datetime64[D]", `[["1970-01-01","1970-01-02","1970-01-03"],["1970-01-04","1970-01-05","1970-01-06"]]`, false},
		{"datetime64[W]", `[["1970-01-01","1970-01-08","1970-01-15"],["1970-01-22","1970-01-29","1970-02-05"]]`, false},
		{"datetime64[M]", `[["1970-01-01","1970-02-01","1970-03-01"],["1970-04-01","1970-05-01","1970-06-01"]]`, false},
		{"datetime64[Y]", `[["1970-01-01","1971-01-01","1972-01-01"],["1973-01-01","1974-01-01","1975-01-01"]]`, false},
		{"timedelta64[ns]", ints, true},
		{"timedelta64[us]", ints, false},
		{"timedelta64[ms]", ints, false},
		{"timedelta64[s]", ints, false},
		{"timedelta64[h]", ints, false},
		{"timedelta64[D]", ints, false},
	} {
		name := "tensor_" + strings.NewReplacer("[", "_", "]", "").Replace(c.dtype)
		tc := plain(name, c.dtype+"[2,3]", c.want, "np.arange(6).reshape(2,3).astype('"+c.dtype+"')", count(c.dtype))
		if c.recorded {
			tc.recorded = name
		}
		cases = append(cases, tc)
	}
	fortran := count("int64")
	fortran.Fortran = true
	partition := tensor([]int64{0, 1, 2, 3})
	partition.PartitionIndex = []int64{0, 1}
	deep := func(n int) (open, end string) { return strings.Repeat("[", n), strings.Repeat("]", n) }
	open, end := deep(8)
	cpp := func(name, typename, want, kind string, fields map[string]any, b []byte) testCase {
		return testCase{
			name: name, section: "§6", want: want, kind: kind, without: without("py cli", "others write so"),
			golang: func(w *world) any {
				m := client.NewMeta("vineyard::Tensor<"+typename+">").Set("shape_", []int64{2}).Set("nbytes", len(b)).Add("buffer_", w.blob(b))
				for key, v := range fields {
					m.Set(key, v)
				}
				return w.make(m)
			},
		}
	}
	pickled := func(name, want, kind, python string) testCase {
		return testCase{name: name, section: "§6.2", want: want, kind: kind, python: python, without: without("go", "Go pickles no arrays", "cli", "npy files with pickles are refused: they can hold programs")}
	}
	return append(cases,
		recorded(plain("tensor_0d", "int64[]", `7`, `np.array(7, dtype="int64")`, &typed.Tensor{DType: typed.Int64, Shape: []int64{}, Data: le(int64(7))})),
		recorded(plain("tensor_empty", "float64[0,3]", `[]`, `np.zeros((0,3), dtype="float64")`, tensor([]float64{}, 0, 3))),
		plain("tensor_empty_inside", "float64[2,0]", `[[],[]]`, `np.zeros((2,0))`, tensor([]float64{}, 2, 0)),
		plain("tensor_10d", "int64[1,1,1,1,1,1,1,1,2,2]", open+"[[1,2],[3,4]]"+end, `np.array([1,2,3,4]).reshape((1,)*8+(2,2))`, tensor([]int64{1, 2, 3, 4}, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2)),
		recorded(plain("tensor_fortran", "int64[2,3] F", ints, `np.asfortranarray(np.arange(6, dtype="int64").reshape(2,3))`, fortran)),
		recorded(noCLI(testCase{
			name: "tensor_partition_index", section: "§6", want: `[0,1,2,3]`, kind: "int64[4] | int64[4] @0,1",
			python: `client.put(np.arange(4, dtype="int64"), partition_index=[0, 1])`, golang: value(partition),
		}, "put makes no parts")),
		plain("tensor_strided", "int64[3]", `[0,2,4]`, `np.arange(6)[::2]`, tensor([]int64{0, 2, 4})),
		plain("tensor_nan", "float64[3]", `[1.5,null,-0.25]`, `np.array([1.5, np.nan, -0.25])`, tensor([]float64{1.5, nan, -0.25})),
		plain("tensor_complex", "complex128[2]", `[[1.5,-2],[0,1]]`, `np.array([1.5-2j, 1j])`, tensor([]complex128{1.5 - 2i, 1i})),
		plain("tensor_extremes", "uint64[2]", `[18446744073709551615,9007199254740993]`, `np.array([2**64-1, 2**53+1], dtype="uint64")`, tensor([]uint64{1<<64 - 1, 1<<53 + 1})),
		plain("tensor_nat", "datetime64[ns][2]", `[null,"2020-02-29T01:02:03.000000004"]`, `np.array(["NaT", "2020-02-29T01:02:03.000000004"], dtype="datetime64[ns]")`,
			raw("datetime64[ns]", le(int64(nat), int64(1582938123000000004)), 2)),
		plain("tensor_timedelta_nat", "timedelta64[s][2]", `[null,-5]`, `np.array(["NaT", -5], dtype="timedelta64[s]")`, raw("timedelta64[s]", le(int64(nat), int64(-5)), 2)),
		plain("tensor_before_1970", "datetime64[ms][2]", `["1969-12-31T23:59:59.999","1969-12-31"]`, `np.array([-1, -86400000], dtype="datetime64[ms]")`, raw("datetime64[ms]", le(int64(-1), int64(-86400000)), 2)),
		plain("tensor_long_ago", "datetime64[s][1]", `["1066-10-14"]`, `np.array(["1066-10-14"], dtype="datetime64[s]")`, raw("datetime64[s]", le(int64(-28502755200)), 1)),
		recorded(plain("tensor_str", "string[3]", `["a","bcd",""]`, `np.array(["a","bcd",""])`, texts("a", "bcd", ""))),
		recorded(plain("tensor_str_2d", "string[2,2]", `[["a","bcd"],["e","f"]]`, `np.array([["a","bcd"],["e","f"]])`,
			raw("str96", le([]int32{'a', 0, 0, 'b', 'c', 'd', 'e', 0, 0, 'f', 0, 0}), 2, 2))),
		plain("tensor_str_unicode", "string[2]", `["größe","🚀"]`, `np.array(["größe","🚀"])`, texts("größe", "🚀")),
		recorded(testCase{
			name: "tensor_object_str", section: "§6.1", want: `["a",null,"c"]`, kind: "string[3]", python: `np.array(["a",None,"c"], dtype=object)`,
			golang: value(texts("a", nil, "c")), without: without("cli", "npy files with pickles are refused: they can hold programs"),
		}),
		recorded(pickled("tensor_object_mixed", `[1,"x",{"k":2}]`, "object[3]", `np.array([1,"x",{"k":2}], dtype=object)`)),
		pickled("tensor_object_2d", `[["a",null],["b","c"]]`, "string[2,2]", `np.array([["a",None],["b","c"]], dtype=object)`),
		pickled("tensor_object_empty", `[]`, "string[0]", `np.array([], dtype=object)`),
		pickled("tensor_object_fortran", `[[1,"x"],[null,2.5]]`, "object[2,2] F", `np.asfortranarray(np.array([[1,"x"],[None,2.5]], dtype=object))`),
		recorded(testCase{
			name: "tensor_bigendian", section: "§6", want: `[0,1,2]`, kind: "int32[3]", python: `np.arange(3, dtype=">i4")`, golang: value(tensor([]int32{0, 1, 2})),
			cli: written("x.npy", `np.arange(3, dtype=">i4")`),
		}),
		testCase{
			name: "tensor_bigendian_double", section: "§6", want: `[1.5,-2]`, kind: "float64[2]", python: `np.array([1.5,-2], dtype=">f8")`, golang: value(tensor([]float64{1.5, -2})),
			cli: written("x.npy", `np.array([1.5,-2], dtype=">f8")`),
		},
		testCase{
			name: "tensor_bigendian_complex", section: "§6", want: `[[1.5,-2]]`, kind: "complex64[1]", python: `np.array([1.5-2j], dtype=">c8")`, golang: value(tensor([]complex64{1.5 - 2i})),
			cli: written("x.npy", `np.array([1.5-2j], dtype=">c8")`),
		},
		testCase{
			name: "tensor_bigendian_time", section: "§6.3", want: `["1970-01-01T00:00:01"]`, kind: "datetime64[s][1]", python: `np.array([1], dtype=">M8[s]")`, golang: value(raw("datetime64[s]", le(int64(1)), 1)),
			cli: written("x.npy", `np.array([1], dtype=">M8[s]")`),
		},
		testCase{
			name: "tensor_bigendian_str", section: "§6", want: `[["a","bc"]]`, kind: "string[1,2]", python: `np.array([["a","bc"]], dtype=">U2")`, golang: value(raw("str64", le([]int32{'a', 0, 'b', 'c'}), 1, 2)),
			cli: written("x.npy", `np.array([["a","bc"]], dtype=">U2")`),
		},
		plain("tensor_large", "int64[100,100]", large(100), `np.arange(10000).reshape(100,100)`, largeTensor(100)),
		recorded(testCase{
			name: "tensor_bytes", section: "§6", want: `["YWI=","YwA="]`, kind: "bytes16[2]", python: `np.array([b"ab", b"c"])`,
			without: without("cli go", "refused, because Python could not read it"),
		}),
		recorded(testCase{
			name: "tensor_struct", section: "§6", want: `["AQAAAAAAAAAAAABA"]`, kind: "bytes96[1]", python: `np.array([(1,2.0)], dtype=[("x","i4"),("y","f8")])`,
			without: without("cli go", "refused, because Python could not read it"),
		}),
		testCase{
			name: "tensor_raw", section: "§13", want: `[[1.5,2.5],[3.5,4.5]]`, kind: "float32[2,2]", python: `np.array([[1.5,2.5],[3.5,4.5]], dtype="float32")`,
			golang: value(tensor([]float32{1.5, 2.5, 3.5, 4.5}, 2, 2)), cli: written("x.raw", `np.array([1.5,2.5,3.5,4.5], dtype="float32").tobytes()`, "--dtype", "f32", "--shape", "2x2"),
		},
		testCase{
			name: "tensor_of_column", section: "§13", want: `[1.5,null]`, kind: "float64[2]", python: `np.array([1.5, np.nan])`, golang: value(tensor([]float64{1.5, nan})),
			cli: text("x.csv", "a,b\n1.5,x\n,y\n", "--type", "tensor", "--columns", "a"),
		},
		cpp("tensor_least", "int64", `[1,2]`, "int64[2]", map[string]any{"value_type_": "int64"}, le(int64(1), int64(2))),
		cpp("tensor_cpp_uint", "uint", `[1,2]`, "uint32[2]", map[string]any{"value_type_": "uint32", "partition_index_": "[]"}, le(uint32(1), uint32(2))),
		cpp("tensor_cpp_float", "float", `[1.5,2.5]`, "float32[2]", map[string]any{"value_type_": "float", "partition_index_": "[]"}, le(float32(1.5), float32(2.5))),
		cpp("tensor_cpp_double", "double", `[1.5,2.5]`, "float64[2]", map[string]any{"value_type_": "double", "partition_index_": "[]"}, le(1.5, 2.5)),
		cpp("tensor_spaced", "int64", `[1,2]`, "int64[2]", map[string]any{"value_type_": "int64", "shape_": "[ 2 ]", "partition_index_": "[ ]", "order_": `"C"`}, le(int64(1), int64(2))),
		cpp("tensor_torch", "torch.float32", `[1.5,2.5]`, "float32[2]", map[string]any{"value_type_": "torch.float32", "partition_index_": "[]"}, le(float32(1.5), float32(2.5))),
		testCase{
			name: "tensor_cpp_strings", section: "§6.1", want: `["a","bb"]`, kind: "string[2]", without: without("py cli", "others write so"),
			golang: func(w *world) any {
				return w.make(client.NewMeta("vineyard::Tensor<std::string>").Set("shape_", []int64{2}).Set("partition_index_", "[]").Set("value_type_", "string").Set("nbytes", 3).
					AddObject("buffer_", w.put(arr(arrow.BinaryTypes.LargeString, `["a","bb"]`))))
			},
		},
	)
}

func sparseCases() []testCase {
	none := without("go", "package typed reads sparse matrices and writes none", "cli", "no file holds sparse matrices")
	matrix := func(format, want string) testCase {
		return testCase{
			name: "sparse_" + format, section: "§6.4", want: want, kind: "sparse float64", without: none,
			python: "sparse." + format + "_matrix(np.array([[1.5,0.,0.],[0.,0.,2.5]]))",
		}
	}
	return []testCase{
		matrix("csr", `{"format":"csr","shape":[2,3],"data":[1.5,2.5],"indices":[0,2],"indptr":[0,1,2]}`),
		matrix("csc", `{"format":"csc","shape":[2,3],"data":[1.5,2.5],"indices":[0,1],"indptr":[0,1,1,2]}`),
		matrix("coo", `{"format":"coo","shape":[2,3],"col":[0,2],"data":[1.5,2.5],"row":[0,1]}`),
		matrix("bsr", `{"format":"bsr","shape":[2,3],"data":[[[1.5]],[[2.5]]],"indices":[0,2],"indptr":[0,1,2]}`),
		matrix("dia", `{"format":"dia","shape":[2,3],"data":[[1.5,0,0],[0,0,2.5]],"offsets":[0,1]}`),
		{
			name: "sparse_array", section: "§7.3", want: `[0,0,1,2]`, kind: "sparse int64[4]", python: `pd.arrays.SparseArray([0,0,1,2])`, recorded: "sparse_array",
			without: without("go cli", "package typed reads sparse columns and writes none"),
		},
		{
			name: "sparse_array_nan", section: "§7.3", want: `[null,1.5,null]`, kind: "sparse float64[3]", python: `pd.arrays.SparseArray([np.nan,1.5,np.nan])`,
			without: without("go cli", "package typed reads sparse columns and writes none"),
		},
		{
			name: "sparse_array_fill", section: "§7.3", want: `[1,7,1]`, kind: "sparse int64[3]", python: `pd.arrays.SparseArray([1,7,1], fill_value=1)`,
			without: without("go cli", "package typed reads sparse columns and writes none"),
		},
		{
			name: "sparse_array_blocks", section: "§7.3", want: `[0,1,2,0]`, kind: "sparse int64[4]", python: `pd.arrays.SparseArray([0,1,2,0], kind="block")`,
			without: without("go cli", "package typed reads sparse columns and writes none"),
		},
		{
			name: "sparse_array_bool", section: "§7.3", want: `[false,true,false]`, kind: "sparse bool[3]", python: `pd.arrays.SparseArray([False,True,False])`,
			without: without("go cli", "package typed reads sparse columns and writes none"),
		},
	}
}

// large is a square of numbers, and largeTensor the same: more than fits the
// buffers that are copied because they are small.
func large(n int) string {
	rows := make([]string, n)
	for i := range rows {
		row := make([]string, n)
		for k := range row {
			row[k] = fmt.Sprint(i*n + k)
		}
		rows[i] = "[" + strings.Join(row, ",") + "]"
	}
	return "[" + strings.Join(rows, ",") + "]"
}

func largeTensor(n int) *typed.Tensor {
	numbers := make([]int64, n*n)
	for i := range numbers {
		numbers[i] = int64(i)
	}
	return tensor(numbers, int64(n), int64(n))
}
