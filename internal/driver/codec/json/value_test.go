package json

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

func scalar(v any) typed.Scalar { return typed.Scalar{Value: v} }

func sequence(items ...any) *typed.Sequence {
	return &typed.Sequence{Items: append([]any{}, items...)}
}

func TestReadValue(t *testing.T) {
	var nine []string
	for _, k := range "abcdefghijklmnopqrstuvwxyz" {
		nine = append(nine, fmt.Sprintf(`"%c":0`, k))
	}
	many := typed.Dict{}
	for _, k := range "abcdefghijklmnopqrstuvwxyz" {
		many = append(many, typed.Pair{Key: string(k), Value: int64(0)})
	}
	many[1].Value, many[12].Value = "x", "y"
	for _, c := range []struct {
		in   string
		want any
	}{
		{"1", scalar(int64(1))},
		{" -5\n", scalar(int64(-5))},
		{"\xef\xbb\xbf1", scalar(int64(1))},
		{"9223372036854775807", scalar(int64(math.MaxInt64))},
		{"-9223372036854775808", scalar(int64(math.MinInt64))},
		{"9223372036854775808", scalar(uint64(1 << 63))},
		{"18446744073709551616", scalar(18446744073709551616.0)},
		{"1.0", scalar(1.0)},
		{"1e2", scalar(100.0)},
		{"true", scalar(true)},
		{"false", scalar(false)},
		{"null", typed.None{}},
		{`"x\u00e9"`, scalar("xé")},
		{"[]", sequence()},
		{`[1,[null,"a"],{"b":[1,null,{"c":2.5}]}]`, sequence(scalar(int64(1)), sequence(typed.None{}, scalar("a")), typed.Dict{{Key: "b", Value: []any{int64(1), nil, typed.Dict{{Key: "c", Value: 2.5}}}}})},
		{"{}", typed.Dict{}},
		{`{"z":1,"a":true,"m":18446744073709551615,"e":[],"n":null,"s":"x"}`, typed.Dict{{Key: "z", Value: int64(1)}, {Key: "a", Value: true}, {Key: "m", Value: uint64(math.MaxUint64)}, {Key: "e", Value: []any{}}, {Key: "n", Value: nil}, {Key: "s", Value: "x"}}},
		{`{"a":1,"b":2,"a":3}`, typed.Dict{{Key: "a", Value: int64(3)}, {Key: "b", Value: int64(2)}}},
		{"{" + strings.Join(nine, ",") + `,"b":"x","m":"y"}`, many},
	} {
		v, err := ReadValue(iotest.HalfReader(strings.NewReader(c.in)))
		if err != nil || !reflect.DeepEqual(v, c.want) {
			t.Errorf("%s is %#v, %v, not %#v", c.in, v, err, c.want)
		}
	}
}

func TestBadValues(t *testing.T) {
	nested := func(n int, open, inside, end string) string {
		return strings.Repeat(open, n) + inside + strings.Repeat(end, n)
	}
	for in, want := range map[string]string{
		"":                                   "it is empty",
		" \n":                                "it is empty",
		"1 2":                                "line 1, byte 3: the end was expected, not '2'",
		"{}\n\n [],":                         "line 3, byte 2: the end was expected, not '['",
		"[1,\n 2":                            "line 2, byte 3: it ends where a comma or ] was expected",
		"[1,\n nil]":                         "line 2, byte 3: null was expected, not 'i'",
		`{"a":1e400}`:                        "line 1, byte 6: 1e400 is out of the range of numbers",
		"[" + strings.Repeat("9", 310) + "]": "line 1, byte 2: " + strings.Repeat("9", 64) + " is out of the range",
		`{"a"}`:                              "a colon was expected",
		`{1:2}`:                              "a key in quotes was expected, not '1'",
		"\xff":                               "a value was expected",
		nested(201, "[", "", "]"):            "line 1, byte 201: it is nested more than 200 deep",
		nested(200, "[", "1", "]"):           "line 1, byte 201: it is nested more than 200 deep",
		nested(200, `{"a":`, "1", "}"):       "line 1, byte 1001: it is nested more than 200 deep",
		nested(100000, `{"a":`, "1", "}"):    "line 1, byte 1001: it is nested more than 200 deep",
	} {
		v, err := ReadValue(strings.NewReader(in))
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, status.Invalid) {
			t.Errorf("%.40q is %v, %v, not %s", in, v, err, want)
		}
	}
	for _, in := range []string{nested(200, "[", "", "]"), nested(199, "[", "1", "]"), nested(199, `{"a":`, "1", "}")} {
		v, err := ReadValue(strings.NewReader(in))
		if err != nil {
			t.Error(err)
			continue
		}
		var b strings.Builder
		if err := WriteValue(&b, v); err != nil || b.String() != in+"\n" {
			t.Errorf("%.20s: %v", in, err)
		}
	}
	if _, err := ReadValue(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if _, err := ReadValue(zeros{}); err == nil || !strings.Contains(err.Error(), "it has more than 1073741824 bytes") {
		t.Error(err)
	}
}

// zeros does not end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
func (zeros) Len() int                   { return math.MaxInt }

func tensor(d typed.DType, data []byte, shape ...int64) *typed.Tensor {
	return &typed.Tensor{DType: d, Data: data, Shape: shape}
}

func of[T typed.Element](t testing.TB, data []T, shape ...int64) *typed.Tensor {
	t.Helper()
	x, err := typed.NewTensor(data, shape...)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestWriteValue(t *testing.T) {
	text := array.NewLargeStringBuilder(memory.DefaultAllocator)
	text.AppendValues([]string{"x", "", "y"}, []bool{true, false, true})
	strs := &typed.Tensor{DType: typed.Strings, Shape: []int64{3}, Text: text.NewLargeStringArray()}
	two := &typed.Tensor{DType: typed.Strings, Shape: []int64{2}, Text: array.NewSlice(strs.Text, 0, 2).(*array.LargeString)}
	times := func(kind typed.Kind, unit string, v ...int64) *typed.Tensor {
		x := of(t, v)
		x.DType = typed.DType{Kind: kind, Size: 8, Unit: unit}
		return x
	}
	table, err := ReadTable(strings.NewReader(`{"a":1,"b":["x"]}`+"\n"+`{"a":null,"b":[]}`), Options{})
	if err != nil {
		t.Fatal(err)
	}
	frame := typed.NewDataFrame()
	frame.Columns = []typed.Column{{Label: "a", Values: of(t, []float64{1, math.NaN()})}, {Label: stdjson.Number("7"), Values: two}}
	frame.Index = &typed.Index{Name: "i", Values: of(t, []int64{5, 6})}
	day := times(typed.Datetime, "D", 18263, math.MinInt64, math.MaxInt64)
	const nat = math.MinInt64
	for _, c := range []struct {
		v    any
		want string
	}{
		{nil, "null"},
		{typed.None{}, "null"},
		{scalar(int64(math.MaxInt64)), "9223372036854775807"},
		{scalar(uint64(math.MaxUint64)), "18446744073709551615"},
		{scalar(1.0), "1.0"},
		{scalar(math.NaN()), "null"},
		{scalar(true), "true"},
		{scalar("a\"\n"), `"a\"\n"`},
		{scalar(nil), "null"},
		{7, "7"},
		{stdjson.Number("1.50"), "1.50"},
		{[]byte{1, 2}, `"AQI="`},
		{[]byte(nil), `""`},
		{sequence(), "[]"},
		{sequence(scalar(int64(1)), sequence(typed.None{}), typed.Dict{{Key: "z", Value: int64(1)}, {Key: "a", Value: []any{nil, typed.Tuple{"x"}, typed.Set{}}}}), `[1,[null],{"z":1,"a":[null,["x"],[]]}]`},
		{&typed.Sequence{Names: []string{"b", "a"}, Items: []any{scalar(int64(1)), sequence()}}, `{"b":1,"a":[]}`},
		{&typed.Sequence{Names: []string{}}, `{}`},
		{typed.Dict{{Key: int64(1), Value: 2.5}, {Key: nil, Value: true}, {Key: typed.Tuple{int64(1), "x"}, Value: new(big.Int).Lsh(big.NewInt(1), 70)}}, `{"1":2.5,"null":true,"[1,\"x\"]":1180591620717411303424}`},
		{[]any{complex(1, -2), 90 * time.Second, time.Unix(0, 5e8), client.ID(17)}, `["(1-2i)","1m30s","1970-01-01T00:00:00.5","o0000000000000011"]`},

		{of(t, []int64{1, 2, 3, 4, 5, 6}, 2, 3), "[[1,2,3],[4,5,6]]"},
		{tensor(typed.Int64, []byte{7, 0, 0, 0, 0, 0, 0, 0}), "7"},
		{tensor(typed.Int64, nil, 2, 0, 3), "[[],[]]"},
		{tensor(typed.Int64, nil, 0, 2), "[]"},
		{tensor(typed.Float64, nil, 0), "[]"},
		{tensor(typed.Bools, nil, 0), "[]"},
		{of(t, []bool{true, false}, 1, 2, 1), "[[[true],[false]]]"},
		{of(t, []int8{-1}), "[-1]"},
		{of(t, []uint64{math.MaxUint64}), "[18446744073709551615]"},
		{of(t, []float64{1, math.NaN(), math.Inf(1), 0.1}), "[1.0,null,null,0.1]"},
		{of(t, []float32{0.1}), "[0.1]"},
		{tensor(typed.Float16, []byte{0, 0x3c, 1, 0, 0, 0x7e}, 3), "[1.0,5.9604645e-08,null]"},
		{of(t, []complex64{1 + 2i}), `["(1+2i)"]`},
		{strs, `["x",null,"y"]`},
		{tensor(typed.DType{Kind: typed.Unicode, Size: 8}, []byte("a\x00\x00\x00\xe9\x00\x00\x00b\x00\x00\x00\x00\x00\x00\x00"), 2), `["aé","b"]`},
		{tensor(typed.DType{Kind: typed.Unicode}, nil, 2), `["",""]`},
		{tensor(typed.DType{Kind: typed.Raw, Size: 2}, []byte{1, 2, 0, 0}, 2), `["AQI=","AAA="]`},
		{day, `["2020-01-02",null,9223372036854775807]`},
		{times(typed.Datetime, "W", 0, 1, math.MaxInt64, 2635249153387078803), `["1970-01-01","1970-01-08",9223372036854775807,2635249153387078803]`},
		{times(typed.Datetime, "ns", 1577934245678901234, nat), `["2020-01-02T03:04:05.678901234",null]`},
		{times(typed.Datetime, "us", -1), `["1969-12-31T23:59:59.999999"]`},
		{times(typed.Datetime, "ms", 1500), `["1970-01-01T00:00:01.5"]`},
		{times(typed.Datetime, "s", 1, math.MaxInt64), `["1970-01-01T00:00:01",9223372036854775807]`},
		{times(typed.Datetime, "m", 1, 4223371680), `["1970-01-01T00:01:00",4223371680]`},
		{times(typed.Datetime, "h", 1), `["1970-01-01T01:00:00"]`},
		{times(typed.Datetime, "Y", 50, nat), `["2020-01-01",null]`},
		{times(typed.Timedelta, "h", 5, nat), `[5,null]`},
		{&typed.Tensor{DType: typed.Objects, Shape: []int64{2, 1}, Items: []any{nil, typed.Dict{{Key: "a", Value: int64(1)}}}}, `[[null],[{"a":1}]]`},
		{&typed.Tensor{DType: typed.Objects, Shape: []int64{0}}, `[]`},

		{table, `[{"a":1,"b":["x"]},{"a":null,"b":[]}]`},
		{typed.NewTable(table.Schema), `[]`},
		{typed.NewTable(table.Schema, table.Batches[0], table.Batches[0].NewSlice(0, 0), table.Batches[0].NewSlice(0, 1)), `[{"a":1,"b":["x"]},{"a":null,"b":[]},{"a":1,"b":["x"]}]`},
		{table.Batches[0], `[{"a":1,"b":["x"]},{"a":null,"b":[]}]`},
		{table.Batches[0].Column(1), `[["x"],[]]`},
		{frame, `[{"i":5,"a":1.0,"7":"x"},{"i":6,"a":null,"7":null}]`},
		{&typed.Series{Name: "s", Index: frame.Index, Values: day}, `["2020-01-02",null,9223372036854775807]`},
		{frame.Index, `[5,6]`},
		{table.Schema, `[{"name":"a","type":"int64","nullable":true},{"name":"b","type":"large_list<item: large_utf8, nullable>","nullable":true}]`},
		{&typed.SparseArray{Length: 3, Kind: "IntIndex", Index: of(t, []int32{1}), Values: of(t, []float64{2}), Fill: "nan"}, `[null,2.0,null]`},
		{&typed.Sparse{Format: "csr", Shape: []int64{1, 2}, Parts: map[string]*typed.Tensor{"indptr": of(t, []int32{0, 1}), "data": of(t, []int8{5}), "indices": of(t, []int32{1})}}, `{"format":"csr","shape":[1,2],"data":[5],"indices":[1],"indptr":[0,1]}`},
		{&typed.Global{Parts: []any{of(t, []int8{1}), &typed.Absent{ID: 17, Instance: 3}}}, `[[1],{"absent":"o0000000000000011","instance":3}]`},

		{
			&typed.Pickle{Bytes: []byte("\x80\x04\x95B\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01b\x94K\x01G@\x04\x00\x00\x00\x00\x00\x00G\x7f\xf8\x00\x00\x00\x00\x00\x00\x87\x94K\x01]\x94(C\x01x\x94\x8f\x94(K\x03\x90eN\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@K\x01K\x02\x86\x94\x88u.")},
			`{"b":[1,2.5,null],"1":["eA==",[3]],"null":1180591620717411303424,"[1,2]":true}`,
		},
		{
			&typed.Tensor{DType: typed.Objects, Shape: []int64{3}, Pickle: &typed.Pickle{Bytes: []byte("\x80\x04\x95\x93\x00\x00\x00\x00\x00\x00\x00\x8c\x15numpy.core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x03\x85\x94h\x03\x8c\x05dtype\x94\x93\x94\x8c\x02O8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t\x94b\x89]\x94(N\x8c\x01a\x94]\x94K\x01aet\x94b.")}},
			`[null,"a",[1]]`,
		},
	} {
		var b strings.Builder
		if err := WriteValue(&b, c.v); err != nil || b.String() != c.want+"\n" {
			t.Errorf("%T is written as\n%s, %v, not\n%s", c.v, b.String(), err, c.want)
		}
	}
}

func TestUnwritable(t *testing.T) {
	var deep any = typed.None{}
	for range 300 {
		deep = sequence(deep)
	}
	object := &typed.Pickle{Bytes: []byte("\x80\x04\x8c\x08builtins\x94\x8c\x06object\x94\x93\x94)\x81\x94.")}
	table, err := ReadTable(strings.NewReader(`{"a":1}`), Options{})
	if err != nil {
		t.Fatal(err)
	}
	double, err := table.Select([]string{"a", "a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		v    any
		want string
	}{
		{deep, "it is nested more than 200 deep"},
		{typed.Dict{{Key: deep, Value: nil}}, "it is nested more than 200 deep"},
		{object, "the pickle cannot be read: it needs builtins.object"},
		{sequence(object), "the pickle cannot be read"},
		{&typed.Tensor{DType: typed.Objects, Shape: []int64{1}, Pickle: object}, "the pickle cannot be read"},
		{&typed.Tensor{DType: typed.Objects, Shape: []int64{1}, Pickle: &typed.Pickle{Bytes: []byte("\x80\x04N.")}}, "holds something else"},
		{&typed.Tensor{DType: typed.Objects, Shape: []int64{2}, Items: []any{nil}}, "1 elements do not have the shape [2]"},
		{tensor(typed.Int64, nil, 1), "0 elements do not have the shape [1]"},
		{tensor(typed.Int64, nil, 1<<40, 1<<40), "no tensor has the shape"},
		{tensor(typed.Int64, nil, -1), "no tensor has the shape"},
		{tensor(typed.Int64, nil, 1<<40, 0), "has too many arrays in arrays"},
		{tensor(typed.DType{Kind: typed.Unicode}, nil, 1<<40), "elements do not have the shape"},
		{of(t, []int8{1}, slices.Repeat([]int64{1}, 300)...), "has too many arrays in arrays"},
		{double, `two columns are called "a"`},
		{&typed.Sequence{Names: []string{"a"}}, "a sequence has 1 names for 0 items"},
		{&typed.DataFrame{Columns: []typed.Column{{Label: "a", Values: object}}}, "column a: it is a pickle"},
		{&typed.SparseArray{Length: 1, Kind: "BlockIndex", Values: of(t, []int8{1})}, "a sparse array of int8 with a BlockIndex"},
		{&typed.Opaque{Meta: client.NewMeta("vineyard::Hashmap<int>")}, "a vineyard::Hashmap<int> has no value that could be written"},
		{make(chan int), "a chan int cannot be written as JSON"},
	} {
		if err := WriteValue(io.Discard, c.v); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%T: %v, not %s", c.v, err, c.want)
		}
	}
	for _, v := range []any{scalar(int64(1)), of(t, make([]int64, 1<<20)), table, sequence(scalar(strings.Repeat("x", 1<<20)))} {
		if err := WriteValue(full{}, v); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("a full disk: %v", err)
		}
	}
}
