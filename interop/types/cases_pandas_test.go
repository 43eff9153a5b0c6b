//go:build linux

package types_test

import (
	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/typed"
)

const (
	noIndexCLI = "indexes of several levels stay columns"
	noLabelCLI = "columns of files have names"
)

// frame makes a data frame of labels and tensors, by turns.
func frame(labelsAndColumns ...any) *typed.DataFrame {
	f := typed.NewDataFrame()
	for i := 0; i < len(labelsAndColumns); i += 2 {
		f.Columns = append(f.Columns, typed.Column{Label: labelsAndColumns[i], Values: labelsAndColumns[i+1]})
	}
	return f
}

// indexed gives a frame an index.
func indexed(f *typed.DataFrame, name any, values *typed.Tensor) *typed.DataFrame {
	f.Index = &typed.Index{Name: name, Values: values}
	return f
}

// days makes times as pandas has them, of days after 2020-01-01.
func days(after ...int64) *typed.Tensor {
	var b []byte
	for _, n := range after {
		if n != nat {
			n = 1577836800e9 + n*86400e9
		}
		b = append(b, le(n)...)
	}
	return raw("datetime64[ns]", b, int64(len(after)))
}

func indexCases() []testCase {
	none := without("cli", "the command line makes no bare indexes")
	index := func(name, want, kind, python string, v *typed.Index, recorded string) testCase {
		return testCase{name: name, section: "§7.1", want: want, kind: "index " + kind, python: python, golang: value(v), recorded: recorded, without: none}
	}
	return []testCase{
		index("index_int64", `[1,2,3]`, "int64 idx", `pd.Index([1,2,3], name="idx")`, &typed.Index{Name: "idx", Values: tensor([]int64{1, 2, 3})}, "index_int64"),
		index("index_range", `[0,1,2,3]`, "int64", `pd.RangeIndex(4)`, &typed.Index{Values: tensor([]int64{0, 1, 2, 3})}, "index_range"),
		index("index_float", `[0.5,1.5]`, "float64", `pd.Index([0.5,1.5])`, &typed.Index{Values: tensor([]float64{0.5, 1.5})}, ""),
		index("index_bool", `[true,false]`, "bool", `pd.Index([True,False])`, &typed.Index{Values: tensor([]bool{true, false})}, ""),
		index("index_string", `["a","b"]`, "string", `pd.Index(["a","b"])`, &typed.Index{Values: texts("a", "b")}, "index_string"),
		index("index_empty", `[]`, "int64", `pd.Index([], dtype="int64")`, &typed.Index{Values: tensor([]int64{})}, ""),
		index("index_datetime", `["2020-01-01","2020-01-02","2020-01-03"]`, "datetime64[ns]", `pd.date_range("2020-01-01", periods=3)`, &typed.Index{Values: days(0, 1, 2)}, "index_datetime"),
		index("index_timedelta", `[1000000000]`, "timedelta64[ns]", `pd.to_timedelta(["1s"])`, &typed.Index{Values: raw("timedelta64[ns]", le(int64(1e9)), 1)}, ""),
		{
			name: "index_multi", section: "§7.1", want: `[["a",1],["b",2]]`, kind: "index object", python: `pd.MultiIndex.from_tuples([("a",1),("b",2)])`, recorded: "index_multi",
			without: without("cli", "the command line makes no bare indexes", "go", "Go pickles no arrays"),
		},
		{
			name: "index_datetime_tz", section: "§7.1", want: `["2020-01-01T05:00:00"]`, kind: "", python: `pd.DatetimeIndex(["2020-01-01"], tz="America/New_York")`,
			without: without("cli", "the command line makes no bare indexes", "go", "dtypes have no zone"),
		},
	}
}

func seriesCases() []testCase {
	none := without("cli", "the command line makes no series")
	series := func(name, want, kind, python string, v *typed.Series, recorded string) testCase {
		return testCase{name: name, section: "§7.2", want: want, kind: "series " + kind, python: python, golang: value(v), recorded: recorded, without: none}
	}
	list := []testCase{
		series("series_int64", `[1,2,3]`, "int64 s", `pd.Series([1,2,3], name="s")`, &typed.Series{Name: "s", Values: tensor([]int64{1, 2, 3})}, "series_int64"),
		series("series_float_noname", `[1.5,2.5]`, "float64", `pd.Series([1.5,2.5])`, &typed.Series{Values: tensor([]float64{1.5, 2.5})}, "series_float_noname"),
		series("series_bool", `[true,false]`, "bool", `pd.Series([True,False])`, &typed.Series{Values: tensor([]bool{true, false})}, "series_bool"),
		series("series_string", `["a","b",null]`, "string", `pd.Series(["a","b",None])`, &typed.Series{Values: texts("a", "b", nil)}, "series_string"),
		series("series_datetime", `["2020-01-01","2020-01-02"]`, "datetime64[ns]", `pd.Series(pd.date_range("2020-01-01", periods=2))`, &typed.Series{Values: days(0, 1)}, "series_datetime"),
		series("series_category", `["a","b","a"]`, "string", `pd.Series(["a","b","a"], dtype="category")`, &typed.Series{Values: texts("a", "b", "a")}, "series_category"),
		series("series_empty", `[]`, "float64", `pd.Series([], dtype="float64")`, &typed.Series{Values: tensor([]float64{})}, ""),
		series("series_number_name", `[1]`, "int64 7", `pd.Series([1], name=7)`, &typed.Series{Name: 7, Values: tensor([]int64{1})}, ""),
		series("series_index", `{"index":["x","y"],"values":[1,2]}`, "int64 s, index string", `pd.Series([1,2], name="s", index=["x","y"])`,
			&typed.Series{Name: "s", Index: &typed.Index{Values: texts("x", "y")}, Values: tensor([]int64{1, 2})}, ""),
		series("series_index_named", `{"index":["2020-01-01"],"values":[1]}`, "int64 s, index datetime64[ns] when", `pd.Series([1], name="s", index=pd.Index(pd.date_range("2020-01-01", periods=1), name="when"))`,
			&typed.Series{Name: "s", Index: &typed.Index{Name: "when", Values: days(0)}, Values: tensor([]int64{1})}, ""),
		{
			name: "series_nullable", section: "§7.2", want: `[1,null]`, kind: "series object", python: `pd.Series([1,None], dtype="Int64")`,
			without: without("cli", "the command line makes no series", "go", "Go pickles no arrays"),
		},
		{
			name: "series_datetime_tz", section: "§7.2", want: `["2020-01-01T05:00:00"]`, kind: "", python: `pd.Series(pd.DatetimeIndex(["2020-01-01"], tz="America/New_York"))`,
			without: without("cli", "the command line makes no series", "go", "dtypes have no zone"),
		},
	}
	for i := range list {
		if list[i].want[0] == '{' {
			list[i].view = "ndjson"
		}
	}
	return list
}

func frameCases() []testCase {
	plain := func(name, want, kind, python string, v *typed.DataFrame) testCase {
		return testCase{
			name: name, section: "§7.3", want: want, kind: "frame" + kind, python: python, golang: value(v), cli: written("x.arrow", python, "--type", "dataframe"),
		}
	}
	recorded := func(c testCase) testCase {
		c.recorded = c.name
		return c
	}
	noCLI := func(c testCase, why string) testCase {
		c.cli = nil
		if c.without == nil {
			c.without = map[string]string{}
		}
		c.without["cli"] = why
		return c
	}
	noGo := func(c testCase, why string) testCase {
		c.golang = nil
		if c.without == nil {
			c.without = map[string]string{}
		}
		c.without["go"] = why
		return c
	}
	// withIndex is for frames that files of pandas hold with their index.
	withIndex := func(name, want, kind, python string, v *typed.DataFrame) testCase {
		c := plain(name, want, kind, python, v)
		c.cli = written("x.parquet", "pa.Table.from_pandas("+python+")", "--type", "dataframe")
		return c
	}
	// noTwice is for frames in which two columns have one name.
	noTwice := func(c testCase) testCase {
		c.noJSON, c.noFile = "objects have no two keys of one name", "pandas makes no frame of it that has"
		return c
	}
	// objects is for frames with columns of objects.
	objects := func(c testCase) testCase {
		c.noFile, c.noCSV = "columns of files have one type: these are text", "lists are text"
		return c
	}
	two, three := tensor([]int64{1, 2}), tensor([]int64{1, 2, 3})
	mixed := `[{"i":1,"f":1.5,"s":"a","b":true},{"i":2,"f":2.5,"s":"bb","b":false},{"i":3,"f":3.5,"s":"ccc","b":true}]`
	part := frame("a", two)
	part.Row, part.Column, part.RowBatch = 1, 0, 3
	ab := `[{"a":1,"b":1},{"a":null,"b":2},{"a":3,"b":3}]`
	cpp := func(name, want, kind string, build func(w *world, m *client.Meta)) testCase {
		return testCase{
			name: name, section: "§7.3", want: want, kind: "frame" + kind, without: without("py cli", "others write so"),
			golang: func(w *world) any {
				m := client.NewMeta("vineyard::DataFrame").Set("partition_index_row_", 0).Set("partition_index_column_", 0).Set("row_batch_index_", -1).Set("nbytes", 0)
				build(w, m)
				return w.make(m)
			},
		}
	}
	return []testCase{
		recorded(plain("dataframe_mixed", mixed, " i:int64 f:float64 s:string b:bool",
			`pd.DataFrame({"i": np.array([1,2,3],dtype="int64"), "f": [1.5,2.5,3.5], "s": ["a","bb","ccc"], "b": [True,False,True]})`,
			frame("i", three, "f", tensor([]float64{1.5, 2.5, 3.5}), "s", texts("a", "bb", "ccc"), "b", tensor([]bool{true, false, true})))),
		recorded(plain("dataframe_same_dtype", `[{"a":1,"b":3},{"a":2,"b":4}]`, " a:int64 b:int64", `pd.DataFrame({"a":[1,2],"b":[3,4]})`, frame("a", two, "b", tensor([]int64{3, 4})))),
		recorded(plain("dataframe_single_column", `[{"a":1},{"a":2}]`, " a:int64", `pd.DataFrame({"a":[1,2]})`, frame("a", two))),
		plain("dataframe_bool", `[{"b":true},{"b":false}]`, " b:bool", `pd.DataFrame({"b":[True,False]})`, frame("b", tensor([]bool{true, false}))),
		plain("dataframe_numbers", `[{"a":-1,"b":255,"c":1.5,"d":4294967295}]`, " a:int8 b:uint8 c:float32 d:uint32",
			`pd.DataFrame({"a":np.array([-1],"int8"),"b":np.array([255],"uint8"),"c":np.array([1.5],"float32"),"d":np.array([2**32-1],"uint32")})`,
			frame("a", tensor([]int8{-1}), "b", tensor([]uint8{255}), "c", tensor([]float32{1.5}), "d", tensor([]uint32{1<<32 - 1}))),
		recorded(plain("dataframe_zero_rows", `[]`, " a:int64", `pd.DataFrame({"a":np.array([],dtype="int64")})`, frame("a", tensor([]int64{})))),
		recorded(noCLI(plain("dataframe_empty", `[]`, "", `pd.DataFrame()`, frame()), "no file has no columns")),
		recorded(plain("dataframe_nan", `[{"f":1},{"f":null}]`, " f:float64", `pd.DataFrame({"f":[1.0,np.nan]})`, frame("f", tensor([]float64{1, nan})))),
		recorded(plain("dataframe_object_none", `[{"s":"a"},{"s":null}]`, " s:string", `pd.DataFrame({"s":["a",None]})`, frame("s", texts("a", nil)))),
		recorded(withIndex("dataframe_string_index", `[{"index":"x","a":1},{"index":"y","a":2}]`, " index:string a:int64", `pd.DataFrame({"a":[1,2]}, index=["x","y"])`,
			indexed(frame("a", two), nil, texts("x", "y")))),
		withIndex("dataframe_named_index", `[{"k":5,"a":1},{"k":7,"a":2}]`, " k:int64 a:int64", `pd.DataFrame({"a":[1,2]}, index=pd.Index([5,7], name="k"))`,
			indexed(frame("a", two), "k", tensor([]int64{5, 7}))),
		withIndex("dataframe_datetime_index", `[{"index":"2020-01-01","a":1},{"index":"2020-01-02","a":2}]`, " index:datetime64[ns] a:int64",
			`pd.DataFrame({"a":[1,2]}, index=pd.date_range("2020-01-01", periods=2))`, indexed(frame("a", two), nil, days(0, 1))),
		withIndex("dataframe_only_index", `[{"index":"x"},{"index":"y"}]`, " index:string", `pd.DataFrame(index=["x","y"])`, indexed(frame(), nil, texts("x", "y"))),
		noTwice(withIndex("dataframe_index_column", `[{"level_0":"x","index":1},{"level_0":"y","index":2}]`, " level_0:string index:int64", `pd.DataFrame({"index":[1,2]}, index=["x","y"])`,
			indexed(frame("index", two), nil, texts("x", "y")))),
		noTwice(noCLI(noGo(plain("dataframe_duplicate_labels", `[{"a":1,"b":2,"a":3}]`, " a:int64 b:int64 a:int64", `pd.DataFrame([[1,2,3]], columns=["a","b","a"])`, nil), "refused"), "refused")),
		objects(noCLI(noGo(plain("dataframe_multi_index", `[{"index":["a",1],"v":1},{"index":["b",2],"v":2}]`, " index:object v:int64",
			`pd.DataFrame({"v":[1,2]}, index=pd.MultiIndex.from_tuples([("a",1),("b",2)]))`, nil), "Go pickles no arrays"), noIndexCLI)),
		recorded(plain("dataframe_datetime", `[{"t":"2020-01-01","v":1},{"t":"2020-01-02","v":2}]`, " t:datetime64[ns] v:int64",
			`pd.DataFrame({"t": pd.date_range("2020-01-01", periods=2), "v":[1,2]})`, frame("t", days(0, 1), "v", two))),
		recorded(plain("dataframe_two_datetime", `[{"t":"2020-01-01","u":"2021-01-01"},{"t":"2020-01-02","u":"2021-01-02"}]`, " t:datetime64[ns] u:datetime64[ns]",
			`pd.DataFrame({"t": pd.date_range("2020-01-01", periods=2), "u":pd.date_range("2021-01-01", periods=2)})`, frame("t", days(0, 1), "u", days(366, 367)))),
		plain("dataframe_nat", `[{"t":null},{"t":"2020-01-02"}]`, " t:datetime64[ns]", `pd.DataFrame({"t": pd.to_datetime([None, "2020-01-02"])})`, frame("t", days(nat, 1))),
		recorded(plain("dataframe_tz", `[{"t":"2020-01-01","v":1},{"t":"2020-01-02","v":2}]`, " t:datetime64[ns] v:int64",
			`pd.DataFrame({"t": pd.date_range("2020-01-01", periods=2, tz="UTC"), "v":[1,2]})`, frame("t", days(0, 1), "v", two))),
		noGo(plain("dataframe_tz_berlin", `[{"t":"2019-12-31T23:00:00"}]`, " t:datetime64[ns]", `pd.DataFrame({"t": pd.date_range("2020-01-01", periods=1, tz="Europe/Berlin")})`, nil), "dtypes have no zone"),
		plain("dataframe_timedelta", `[{"t":1000000000},{"t":null}]`, " t:timedelta64[ns]", `pd.DataFrame({"t": pd.to_timedelta(["1s", None])})`,
			frame("t", raw("timedelta64[ns]", le(int64(1e9), int64(nat)), 2))),
		recorded(plain("dataframe_nullable_int", ab, " a:float64 b:int64", `pd.DataFrame({"a":pd.array([1,None,3],dtype="Int64"),"b":[1,2,3]})`,
			frame("a", tensor([]float64{1, nan, 3}), "b", three))),
		recorded(plain("dataframe_category", `[{"c":"a","v":1},{"c":"b","v":2}]`, " c:string v:int64", `pd.DataFrame({"c":pd.Categorical(["a","b"]), "v":[1,2]})`,
			frame("c", texts("a", "b"), "v", two))),
		recorded(plain("dataframe_arrow_string", `[{"a":"x","b":1},{"a":null,"b":2}]`, " a:string b:int64", `pd.DataFrame({"a":pd.array(["x",None],dtype="string[pyarrow]"),"b":[1,2]})`,
			frame("a", texts("x", nil), "b", two))),
		noCLI(noGo(recorded(plain("dataframe_sparse", `[{"a":0,"b":1},{"a":0,"b":2},{"a":1,"b":3}]`, " a:int64 b:int64", `pd.DataFrame({"a":pd.arrays.SparseArray([0,0,1]), "b":[1,2,3]})`, nil)),
			"package typed reads sparse columns and writes none"), "files hold no sparse columns"),
		noCLI(recorded(plain("dataframe_int_columns", `[{"0":1,"1":3},{"0":2,"1":4}]`, " 0:int64 1:float64", `pd.DataFrame({0:[1,2],1:[3.0,4.0]})`,
			frame(0, two, 1, tensor([]float64{3, 4})))), noLabelCLI),
		noCLI(recorded(plain("dataframe_multiindex_columns", `[{"[\"a\",1]":1,"[\"a\",2]":3},{"[\"a\",1]":2,"[\"a\",2]":4}]`, ` ["a",1]:int64 ["a",2]:int64`,
			`pd.DataFrame({("a",1):[1,2],("a",2):[3,4]})`, frame([]any{"a", 1}, two, []any{"a", 2}, tensor([]int64{3, 4})))), noLabelCLI),
		plain("dataframe_unicode", `[{"größe":"🚀","日本":1}]`, " größe:string 日本:int64", `pd.DataFrame({"größe":["🚀"],"日本":[1]})`, frame("größe", texts("🚀"), "日本", tensor([]int64{1}))),
		noCLI(recorded(testCase{
			name: "dataframe_partition_index", section: "§7.3", want: `[{"a":1},{"a":2}]`, kind: "frame a:int64 | frame a:int64 @1,0,3",
			python: `client.put(pd.DataFrame({"a":[1,2]}), partition_index=[1, 0], row_batch_index=3)`, golang: value(part),
		}), "put makes no parts"),
		objects(noGo(noCLI(plain("dataframe_objects", `[{"o":1},{"o":"x"},{"o":[2]}]`, " o:object", `pd.DataFrame({"o":[1,"x",[2]]})`, nil), "files have columns of one type"), "Go pickles no arrays")),
		{
			name: "dataframe_complex", section: "§7.3", want: `[{"z":[1,2]}]`, kind: "frame z:complex128", python: `pd.DataFrame({"z":[1+2j]})`, golang: value(frame("z", tensor([]complex128{1 + 2i}))),
			without: without("cli", "no file of tables has complex numbers"), noFile: "Arrow has no complex numbers: they are text", noCSV: "they are text",
		},
		{
			name: "dataframe_of_csv", section: "§13", want: `[{"i":1,"f":1.5,"s":"a"},{"i":2,"f":null,"s":null}]`, kind: "frame i:int64 f:float64 s:string",
			golang: value(frame("i", two, "f", tensor([]float64{1.5, nan}), "s", texts("a", nil))), cli: text("x.csv", "i,f,s\n1,1.5,a\n2,,\n", "--type", "dataframe"),
			python: `pd.DataFrame({"i":[1,2],"f":[1.5,np.nan],"s":["a",None]})`,
		},
		{
			name: "dataframe_of_types", section: "§13", kind: "frame a:float64 b:float64 c:float32 d:datetime64[ns] t:timedelta64[ns] z:datetime64[ns] k:string n:float64",
			want: `[{"a":1,"b":1,"c":1.5,"d":"1970-01-02","t":1500000000,"z":"2020-01-01T12:00:00","k":"x","n":null},{"a":null,"b":null,"c":null,"d":null,"t":null,"z":null,"k":null,"n":null}]`,
			cli: written("x.arrow", `pa.table({"a":pa.array([1,None],pa.int8()),"b":pa.array([True,None]),"c":pa.array([1.5,None],pa.float32()),"d":pa.array([1,None],pa.date32()),`+
				`"t":pa.array([1500,None],pa.time32("ms")),"z":pa.array([1577880000,None],pa.timestamp("s",tz="Europe/Berlin")),"k":pa.array(["x",None]).dictionary_encode(),"n":pa.nulls(2)})`, "--type", "dataframe"),
			golang: value(frame("a", tensor([]float64{1, nan}), "b", tensor([]float64{1, nan}), "c", tensor([]float32{1.5, float32(nan)}), "d", raw("datetime64[ns]", le(int64(86400e9), int64(nat)), 2),
				"t", raw("timedelta64[ns]", le(int64(1500000000), int64(nat)), 2), "z", raw("datetime64[ns]", le(int64(1577880000e9), int64(nat)), 2), "k", texts("x", nil), "n", tensor([]float64{nan, nan}))),
			without: without("py", "the same as of other frames"),
		},
		{
			name: "dataframe_of_batches", section: "§13", want: `[{"i":1},{"i":2},{"i":3}]`, kind: "frame i:int64", golang: value(frame("i", three)), python: `pd.DataFrame({"i":[1,2,3]})`,
			cli: written("x.arrow", `pa.Table.from_batches([pa.record_batch([pa.array([1,2])],names=["i"]), pa.record_batch([pa.array([3])],names=["i"])])`, "--type", "dataframe"),
		},
		{
			name: "dataframe_of_dates", section: "§13", want: `[{"d":"2020-01-02"}]`, kind: "frame d:datetime64[ns]", golang: value(frame("d", days(1))), python: `pd.DataFrame({"d":pd.to_datetime(["2020-01-02"])})`,
			cli: text("x.csv", "d\n2020-01-02\n", "--type", "dataframe"),
		},
		cpp("dataframe_cpp", `[{"index":"x","b":1,"a":3},{"index":"y","b":2,"a":4}]`, " index:string b:int64 a:int64", func(w *world, m *client.Meta) {
			m.Set("columns_", `["b","a"]`).Set("__values_-size", 3).
				Set("__values_-key-0", `"a"`).AddObject("__values_-value-0", w.put(tensor([]int64{3, 4}))).
				Set("__values_-key-1", `"b"`).AddObject("__values_-value-1", w.put(two)).
				Set("__values_-key-2", `"index_"`).AddObject("__values_-value-2", w.put(texts("x", "y")))
		}),
		cpp("dataframe_no_index", `[{"a":1},{"a":2}]`, " a:int64", func(w *world, m *client.Meta) {
			m.Set("columns_", `["a"]`).Set("__values_-size", 1).Set("__values_-key-0", `"a"`).AddObject("__values_-value-0", w.put(two))
		}),
	}
}
