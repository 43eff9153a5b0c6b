package npy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"pgregory.net/rapid"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

// counted is an alloc that notes what it was asked for.
type counted struct{ sizes []int }

func (c *counted) alloc(n int) []byte {
	if n <= 0 {
		panic("alloc of nothing")
	}
	c.sizes = append(c.sizes, n)
	return bytes.Repeat([]byte{0xa5}, n)
}

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// load reads a file of testdata.
func load(t testing.TB, name string) *typed.Tensor {
	t.Helper()
	var c counted
	x, err := Read(bytes.NewReader(file(t, name+".npy")), c.alloc)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if want := len(x.Data); want > 0 && !slices.Equal(c.sizes, []int{want}) || want == 0 && c.sizes != nil {
		t.Errorf("%s: alloc was asked for %v, the array has %d bytes", name, c.sizes, want)
	}
	return x
}

func all(x *typed.Tensor) []any {
	list := make([]any, x.Len())
	for i := range list {
		list[i] = x.At(i)
	}
	return list
}

// TestNumPy reads what NumPy wrote, and writes the same bytes.
func TestNumPy(t *testing.T) {
	for _, name := range []string{
		"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
		"complex64", "complex128", "datetime64", "timedelta64", "day", "unicode", "scalar", "empty", "deep",
	} {
		x := load(t, name)
		var out bytes.Buffer
		if err := Write(&out, x); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if want := file(t, name+".npy"); !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s is written as\n%q, by NumPy as\n%q", name, out.Bytes(), want)
		}
		if x.Fortran {
			t.Errorf("%s is in Fortran's order", name)
		}
	}
}

func TestValues(t *testing.T) {
	for name, want := range map[string]string{
		"bool":           "bool [3] [true false true]",
		"int32":          "int32 [2 3 4] [0 -1 -2 -3 -4 -5 -6 -7 -8 -9 -10 -11 -12 -13 -14 -15 -16 -17 -18 -19 -20 -21 -22 -23]",
		"uint64":         "uint64 [2] [0 18446744073709551615]",
		"float16":        "float16 [3] [0.5 -1.25 +Inf]",
		"complex64":      "complex64 [2] [(1+2i) (-0-3i)]",
		"datetime64":     "datetime64[ns] [3] [2020-01-02 03:04:05.678901234 +0000 UTC <nil> 1969-12-31 23:59:59 +0000 UTC]",
		"day":            "datetime64[D] [3] [2020-01-02 00:00:00 +0000 UTC <nil> 1969-12-31 00:00:00 +0000 UTC]",
		"unicode":        "str128 [2 2] [a grün  𝄞]",
		"scalar":         "float64 [] [3.5]",
		"empty":          "uint16 [2 0 3] []",
		"deep":           "int16 [1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2] [1 1]",
		"big_unicode":    "str128 [2] [a grün]",
		"big_complex128": "complex128 [2] [(1+2i) (-0-3i)]",
		"version2":       "int32 [2 3 4] [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23]",
	} {
		x := load(t, name)
		if got := fmt.Sprint(x.DType, x.Shape, all(x)); got != want {
			t.Errorf("%s is\n%s, not\n%s", name, got, want)
		}
	}
	same := func(name, as string, fortran bool) {
		t.Helper()
		x, y := load(t, name), load(t, as)
		if x.DType.Big || !slices.Equal(x.Shape, y.Shape) || !reflect.DeepEqual(all(x), all(y)) || x.Fortran != fortran {
			t.Errorf("%s is %+v %v, %s is %v", name, x, all(x), as, all(y))
		}
	}
	same("version3", "version2", false)
	same("big_datetime64", "datetime64", false)
	same("big_fortran", "int16", true)
	if got := fmt.Sprint(all(load(t, "big_int32"))); got != fmt.Sprint(all(load(t, "version2"))) {
		t.Errorf("big_int32 is %s", got)
	}
	if got := fmt.Sprint(all(load(t, "fortran"))); got != fmt.Sprint(all(load(t, "version2"))) {
		t.Errorf("fortran is %s", got)
	}
	if got := fmt.Sprint(all(load(t, "fortran_unicode"))); got != "[a b cc d e ff]" {
		t.Errorf("fortran_unicode is %s", got)
	}
}

// frame makes a file of a header and data.
func frame(version byte, header, data string) string {
	b := []byte(magic + string(version) + "\x00")
	if version == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	}
	return string(b) + header + data
}

func dict(descr, order, shape string) string {
	return fmt.Sprintf("{'descr': %s, 'fortran_order': %s, 'shape': %s}", descr, order, shape)
}

func TestHeaders(t *testing.T) {
	for _, text := range []string{
		dict("'<i2'", "False", "(2,)"),
		dict("\"<i2\"", "True", "( 2 , )"),
		dict("'i2'", "False", "(2L,)"),
		dict("'=i2'", "False", "(1, 2)"),
		"{'shape':(2,),'descr':'<i2','fortran_order':False,}   \n",
		" {\n\t'fortran_order': False, 'shape': (1L, 2L, ), 'descr': '<i2'\r\n}",
	} {
		for version := byte(1); version <= 3; version++ {
			x, err := Read(strings.NewReader(frame(version, text, "\x05\x00\x06\x00")), new(counted).alloc)
			if err != nil || fmt.Sprint(x.DType, all(x)) != "int16 [5 6]" {
				t.Errorf("%s: %v, %v", text, x, err)
			}
		}
	}
}

func TestBad(t *testing.T) {
	good := dict("'<i2'", "False", "(2,)")
	for _, c := range []struct{ in, want, hint string }{
		{"", "truncated: 0 of the 8 bytes", ""},
		{"\x93NUM", "truncated: 4 of the 8 bytes", ""},
		{"hello, world", "it is no .npy file: it begins with \"hello, w\"", ""},
		{"PK\x03\x04 and more", "it is no .npy file", ".npz"},
		{"\x80\x04\x95 and more", "pickles are not read from files, because loading one can run any code", "allow_pickle=False"},
		{frame(4, good, ""), "version 4.0 of NumPy's format is not known", "3.0"},
		{"\x93NUMPY\x01\x00\x05", "truncated: 1 of 2 bytes of the header's length", ""},
		{"\x93NUMPY\x02\x00\x05\x00", "truncated: 2 of 4 bytes of the header's length", ""},
		{"\x93NUMPY\x02\x00\x01\x00\x10\x00", "a header of 1048577 bytes is more than 1048576", ""},
		{frame(1, good, "")[:30], "truncated: 20 of 55 bytes of the header are there", ""},
		{frame(1, good, "abc"), "truncated: there are 3 bytes of data, the shape [2] of <i2 needs 4", ""},
		{frame(1, good, "abcde"), "there are 1 bytes after the array", "np.savez"},
		{frame(1, dict("'|O'", "False", "(2,)"), ""), "pickles are not read from files, because loading one can run any code", "allow_pickle=False"},
		{frame(1, dict("'O'", "False", "(2,)"), ""), "pickles are not read", ""},
		{frame(1, dict("[('a', '<i4')]", "False", "(2,)"), ""), "structured array", "one by one"},
		{frame(1, dict("'|O8'", "False", "(2,)"), ""), "pickles are not read", ""},
		{frame(1, dict("''", "False", "(2,)"), ""), `dtype ""`, ""},
		{frame(1, dict("('<i4', (2,))", "False", "(2,)"), ""), "structured array", ""},
		{frame(1, dict("'|S3'", "False", "(2,)"), ""), `"|S3", bytes of a fixed length`, "astype(str)"},
		{frame(1, dict("'|V3'", "False", "(2,)"), ""), `"|V3", bytes of a fixed length`, ""},
		{frame(1, dict("'<f16'", "False", "(2,)"), ""), `dtype "<f16", which tensors cannot have`, "astype"},
		{frame(1, dict("'<M8'", "False", "(2,)"), ""), `dtype "<M8"`, "unit"},
		{frame(1, dict("'<m8[25s]'", "False", "(2,)"), ""), `dtype "<m8[25s]"`, ""},
		{frame(1, dict("'str'", "False", "(2,)"), ""), `dtype "str"`, ""},
		{frame(1, dict("'<U0'", "False", "(1125899906842624,)"), ""), "has no bytes", ""},
		{frame(1, dict("'<i8'", "False", "(4294967296, 4294967296)"), ""), "no array has the shape [4294967296 4294967296]", ""},
		{frame(1, dict("'<i8'", "False", "(0, 4294967296, 4294967296)"), ""), "no array has the shape", ""},
		{frame(1, dict("'<c16'", "False", "(1125899906842624,)"), ""), "truncated: there are 0 bytes of data", ""},
		{frame(1, dict("'<U67108864'", "False", "(1125899906842624,)"), ""), "no array has the shape", ""},
		{frame(1, dict("'<i8'", "False", "(99999999999999999999,)"), ""), "a dimension was expected", ""},
		{frame(1, dict("'<i8'", "False", "(-1,)"), ""), "a dimension was expected", ""},
		{frame(1, dict("'<i8'", "False", "(1.5,)"), ""), "a comma or ) was expected", ""},
		{frame(1, dict("'<i8'", "False", "(1 2)"), ""), "a comma or ) was expected", ""},
		{frame(1, dict("'<i8'", "False", "(,)"), ""), "a dimension was expected", ""},
		{frame(1, dict("'<i8'", "False", "(3)"), ""), "(3) is no tuple", ""},
		{frame(1, dict("'<i8'", "False", "[3]"), ""), "a tuple was expected", ""},
		{frame(1, dict("'<i8'", "False", "(3,"), ""), "a dimension was expected", ""},
		{frame(1, dict("'<i8'", "0", "(3,)"), ""), "True or False was expected", ""},
		{frame(1, dict("<i8", "False", "(3,)"), ""), "a string was expected", ""},
		{frame(1, dict("'<i8", "False", "(3,)")[:14], ""), "the string does not end", ""},
		{frame(1, dict(`'<i\x38'`, "False", "(3,)"), ""), "has escapes", ""},
		{frame(1, "{'descr': '<i8', 'shape': ()}", ""), `the key "fortran_order" is missing`, ""},
		{frame(1, "{'descr': '<i8', 'descr': '<i8'}", ""), `the key "descr" comes twice`, ""},
		{frame(1, "{'order': '<i8'}", ""), `the key "order" is not known`, ""},
		{frame(1, "{'descr' '<i8'}", ""), "a colon was expected", ""},
		{frame(1, "{'descr': '<i8' 'shape': ()}", ""), "a comma or } was expected", ""},
		{frame(1, good+" x", ""), "there is more after the dictionary", ""},
		{frame(1, "[1]", ""), "a dictionary was expected", ""},
		{frame(1, "", ""), "a dictionary was expected", ""},
	} {
		var a counted
		_, err := Read(strings.NewReader(c.in), a.alloc)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(status.HintOf(err), c.hint) {
			t.Errorf("%q: %v (hint: %s), not %s (%s)", c.in, err, status.HintOf(err), c.want, c.hint)
		}
		if a.sizes != nil {
			t.Errorf("%q: %v bytes were allocated", c.in, a.sizes)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, want := range map[string]string{
		"object": "pickles are not read", "structured": "structured", "bytes": "fixed length", "void": "fixed length",
		"longdouble": "<f16", "unitless": "<m8", "multiple": "<M8[25s]",
	} {
		_, err := Read(bytes.NewReader(file(t, name+".npy")), new(counted).alloc)
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, status.NotImplemented) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStreams reads from readers that do not know how long they are.
func TestStreams(t *testing.T) {
	whole := file(t, "big_fortran.npy")
	for _, r := range []io.Reader{iotest.OneByteReader(bytes.NewReader(whole)), iotest.DataErrReader(bytes.NewReader(whole)), io.MultiReader(bytes.NewReader(whole))} {
		x, err := Read(r, new(counted).alloc)
		if err != nil || !reflect.DeepEqual(all(x), all(load(t, "int16"))) {
			t.Errorf("%v, %v", x, err)
		}
	}
	if _, err := Read(io.MultiReader(bytes.NewReader(whole[:len(whole)-5])), new(counted).alloc); err == nil || !strings.Contains(err.Error(), "there are 43 bytes of data, the shape [2 3 4] of >i2 needs 48") {
		t.Error(err)
	}
	if _, err := Read(io.MultiReader(bytes.NewReader(whole), strings.NewReader("x")), new(counted).alloc); err == nil || !strings.Contains(err.Error(), "bytes after the array") {
		t.Error(err)
	}
	if _, err := Read(io.MultiReader(bytes.NewReader(whole), iotest.ErrReader(io.ErrClosedPipe)), new(counted).alloc); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if _, err := Read(io.MultiReader(bytes.NewReader(whole[:90]), iotest.ErrReader(io.ErrClosedPipe)), new(counted).alloc); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// TestRemaining checks that a file, and what can seek, is not read beyond what it
// has, and that a pipe is.
func TestRemaining(t *testing.T) {
	huge := frame(1, dict("'<f8'", "False", "(123456789, 1000)"), "12345678")
	path := filepath.Join(t.TempDir(), "huge.npy")
	if err := os.WriteFile(path, []byte(huge), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, r := range []io.Reader{f, io.NewSectionReader(f, 0, int64(len(huge))), struct{ io.ReadSeeker }{bytes.NewReader([]byte(huge))}} {
		if s, ok := r.(io.Seeker); ok {
			_, _ = s.Seek(0, io.SeekStart)
		}
		var a counted
		if _, err := Read(r, a.alloc); err == nil || !strings.Contains(err.Error(), "there are 8 bytes of data") || a.sizes != nil {
			t.Errorf("%T: %v, allocated %v", r, err, a.sizes)
		}
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	go func() {
		_, _ = pw.Write(file(t, "int8.npy"))
		_ = pw.Close()
	}()
	if x, err := Read(pr, new(counted).alloc); err != nil || x.Len() != 24 {
		t.Error(x, err)
	}
	func() {
		defer func() {
			if r := recover(); r != "full" {
				t.Errorf("alloc's panic became %v", r)
			}
		}()
		_, _ = Read(struct{ io.Reader }{strings.NewReader(huge)}, func(int) []byte { panic("full") })
	}()
}

func TestWrite(t *testing.T) {
	text := func(items ...any) *typed.Tensor {
		b := array.NewLargeStringBuilder(memory.DefaultAllocator)
		for _, s := range items {
			if s == nil {
				b.AppendNull()
			} else {
				b.Append(s.(string))
			}
		}
		return &typed.Tensor{DType: typed.Strings, Shape: []int64{int64(len(items))}, Text: b.NewLargeStringArray()}
	}
	for name, x := range map[string]*typed.Tensor{"": text(), "a": text("a"), "grün| |𝄞𝄞𝄞𝄞𝄞": text("grün", " ", "𝄞𝄞𝄞𝄞𝄞"), "|": text("", "")} {
		var out bytes.Buffer
		if err := Write(&out, x); err != nil {
			t.Fatal(err)
		}
		y, err := Read(&out, new(counted).alloc)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]string, y.Len())
		for i := range got {
			got[i] = y.At(i).(string)
		}
		if strings.Join(got, "|") != name {
			t.Errorf("%q was written as %q", name, got)
		}
	}
	wide := text(slices.Repeat([]any{strings.Repeat("x", 1000), "y"}, 30)...)
	wide.Shape = []int64{30, 2}
	var out bytes.Buffer
	if err := Write(&out, wide); err != nil {
		t.Fatal(err)
	}
	if y, err := Read(&out, new(counted).alloc); err != nil || y.At(58) != strings.Repeat("x", 1000) || y.At(59) != "y" {
		t.Error(err)
	}

	long := text("a")
	long.Shape = []int64{2}
	tensor := func(d typed.DType, n int, shape ...int64) *typed.Tensor {
		return &typed.Tensor{DType: d, Shape: shape, Data: make([]byte, n)}
	}
	for _, c := range []struct {
		x    *typed.Tensor
		want string
		hint string
	}{
		{text("a", nil), "row 1 is null", "parquet or csv"},
		{text("a\x00"), "row 0 ends with a zero byte", "parquet or csv"},
		{text("\xff"), "row 0 is not UTF-8", ""},
		{text(strings.Repeat("x", maxElement/4+1)), "too long for NumPy's files", "parquet or csv"},
		{long, "1 strings do not have the shape [2]", ""},
		{&typed.Tensor{DType: typed.Objects}, "objects would have to be pickled", "in Python"},
		{tensor(typed.Int64, 8, 2), "8 bytes do not have the shape [2] of int64", ""},
		{tensor(typed.Int64, 0, 1<<40, 1<<40), "do not have the shape", ""},
		{tensor(typed.Int64, 0, -1), "do not have the shape [-1]", ""},
		{tensor(typed.DType{Kind: typed.Int, Size: 3}, 3, 1), "an array of int24 cannot be written", ""},
		{tensor(typed.DType{Kind: typed.Datetime, Size: 8}, 8, 1), "an array of datetime64[] cannot be written", ""},
		{tensor(typed.DType{Kind: typed.Unicode}, 0, 1), "cannot be written", ""},
		{tensor(typed.DType{}, 0, 1), "cannot be written", ""},
		{tensor(typed.Int8, 1, slices.Repeat([]int64{1}, maxHeader)...), "a header of", ""},
	} {
		if err := Write(io.Discard, c.x); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(status.HintOf(err), c.hint) {
			t.Errorf("%v: %v (%s), not %s", c.x.DType, err, status.HintOf(err), c.want)
		}
	}
	for _, x := range []*typed.Tensor{text("a"), tensor(typed.Int64, 8, 1)} {
		if err := Write(full{}, x); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("a full disk: %v", err)
		}
	}
	raw := tensor(typed.DType{Kind: typed.Raw, Size: 3}, 6, 2)
	if err := Write(&out, raw); err != nil || !strings.Contains(out.String(), "'|S3'") {
		t.Errorf("raw bytes: %v", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// TestVersions checks when a later version of the format is used.
func TestVersions(t *testing.T) {
	for _, c := range []struct {
		text    string
		version byte
		in      string
	}{{"{}", 1, "{}"}, {"ü", 1, "\xfc"}, {strings.Repeat("x", 65000), 1, "x"}, {strings.Repeat("x", 65535), 2, "x"}, {"ü" + strings.Repeat("x", 65535), 2, "\xfcx"}, {"€", 3, "€"}} {
		b, err := wrap(c.text)
		if err != nil || b[6] != c.version || len(b)%align != 0 || !bytes.HasSuffix(b, []byte(" \n")) {
			t.Errorf("%.9s: %v, %.20q", c.text, err, b)
			continue
		}
		at, length := 12, int(binary.LittleEndian.Uint32(b[8:]))
		if c.version == 1 {
			at, length = 10, length&0xffff
		}
		if at+length != len(b) || !bytes.HasPrefix(b[at:], []byte(c.in)) {
			t.Errorf("%.9s: a header of %d bytes in %d: %.20q", c.text, length, len(b), b)
		}
	}
	deep := &typed.Tensor{DType: typed.Uint8, Shape: slices.Repeat([]int64{1}, 30000), Data: []byte{7}}
	var out bytes.Buffer
	if err := Write(&out, deep); err != nil || out.Bytes()[6] != 2 {
		t.Fatal(err)
	}
	if x, err := Read(&out, new(counted).alloc); err != nil || !slices.Equal(x.Shape, deep.Shape) || x.Data[0] != 7 {
		t.Error(err)
	}
}

// dtypes are all that a file can hold.
var dtypes = []typed.DType{
	typed.Bools, typed.Int8, typed.Int16, typed.Int32, typed.Int64, typed.Uint8, typed.Uint16, typed.Uint32, typed.Uint64,
	typed.Float16, typed.Float32, typed.Float64, typed.Complex64, typed.Complex128,
	{Kind: typed.Datetime, Size: 8, Unit: "ns"},
	{Kind: typed.Datetime, Size: 8, Unit: "Y"},
	{Kind: typed.Timedelta, Size: 8, Unit: "D"},
	{Kind: typed.Unicode, Size: 4},
	{Kind: typed.Unicode, Size: 12},
}

// TestRoundTrip writes arrays and reads them back, and reads them in Fortran's
// order and big endian, made element by element.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.SampledFrom(dtypes).Draw(t, "dtype")
		shape := rapid.SliceOfN(rapid.Int64Range(0, 5), 0, 10).Draw(t, "shape")
		if len(shape) == 2 { // beyond one tile
			shape[0] *= 23
			shape[1] *= 11
		}
		n, _ := size(shape, d.Size)
		if n > 1<<16 {
			t.Skip("another draw: it has more elements than a check needs")
		}
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i*7 + i>>8)
		}
		x := &typed.Tensor{DType: d, Shape: shape, Data: data}
		var out bytes.Buffer
		if err := Write(&out, x); err != nil {
			t.Fatal(err)
		}
		if (out.Len()-len(data))%align != 0 {
			t.Fatalf("the data begins at %d", out.Len()-len(data))
		}
		y, err := Read(&out, new(counted).alloc)
		if err != nil || y.DType != d || !slices.Equal(y.Shape, shape) || !bytes.Equal(y.Data, data) || y.Fortran {
			t.Fatalf("%v became %v, %v", x, y, err)
		}

		big := rapid.Bool().Draw(t, "big") && unit(d) > 1
		h := header{descr: d.Protocol(), fortran: true, shape: shape}
		if big {
			h.descr = ">" + h.descr[1:]
		}
		b, err := h.bytes()
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, fortran(x, big)...)
		y, err = Read(bytes.NewReader(b), new(counted).alloc)
		if err != nil || y.DType != d || !slices.Equal(y.Shape, shape) || !bytes.Equal(y.Data, data) || !y.Fortran {
			t.Fatalf("%v became %v, %v", x, y, err)
		}
	})
}

// fortran returns the elements of x in Fortran's order, the slow way.
func fortran(x *typed.Tensor, big bool) []byte {
	out := make([]byte, 0, len(x.Data))
	index := make([]int64, len(x.Shape))
	for range x.Len() {
		at := int64(0)
		for i, k := range index {
			at = at*x.Shape[i] + k
		}
		element := slices.Clone(x.Data[at*int64(x.DType.Size) : (at+1)*int64(x.DType.Size)])
		if big {
			for part := range slices.Chunk(element, unit(x.DType)) {
				slices.Reverse(part)
			}
		}
		out = append(out, element...)
		for i := range index {
			if index[i]++; index[i] < x.Shape[i] {
				break
			}
			index[i] = 0
		}
	}
	return out
}

// limited is an alloc that panics over a limit.
func limited(n int) []byte {
	if n <= 0 || n > 1<<16 {
		panic(errLimit)
	}
	return make([]byte, n)
}

var errLimit = errors.New("too much")

func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*.npy")
	if err != nil || len(files) < 20 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		f.Add(file(f, filepath.Base(name)))
	}
	f.Add([]byte(frame(1, dict("'<i2'", "True", "(2L, 1,)"), "abcd")))
	f.Fuzz(func(t *testing.T, in []byte) {
		defer func() {
			if r := recover(); r != nil && r != any(errLimit) {
				panic(r)
			}
		}()
		x, err := Read(bytes.NewReader(in), limited)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := Write(&out, x); err != nil {
			t.Fatal(err)
		}
		y, err := Read(&out, limited)
		if err != nil || y.DType != x.DType || !slices.Equal(y.Shape, x.Shape) || !bytes.Equal(y.Data, x.Data) {
			t.Fatalf("%v became %v, %v", x, y, err)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	const side = 2048
	x := &typed.Tensor{DType: typed.Float64, Shape: []int64{side, side}, Data: make([]byte, side*side*8)}
	buffer := make([]byte, len(x.Data))
	for _, c := range []struct {
		name string
		h    header
	}{
		{"C", header{"<f8", false, x.Shape}},
		{"big", header{">f8", false, x.Shape}},
		{"fortran", header{"<f8", true, x.Shape}},
		{"fortran1", header{"|i1", true, []int64{side * 8, side}}},
		{"fortran3", header{"<f4", true, []int64{side, 256, 16}}},
		{"fortranU", header{"<U4", true, []int64{side, side / 2}}},
	} {
		head, err := c.h.bytes()
		if err != nil {
			b.Fatal(err)
		}
		in := append(head, x.Data...)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(x.Data)))
			for b.Loop() {
				if _, err := Read(bytes.NewReader(in), func(n int) []byte { return buffer[:n] }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
