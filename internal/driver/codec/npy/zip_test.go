package npy

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

func loadZip(b []byte) (*typed.Sequence, error) {
	return ReadZip(bytes.NewReader(b), int64(len(b)), new(counted).alloc)
}

func describe(s *typed.Sequence) string {
	var b strings.Builder
	for i, item := range s.Items {
		x := item.(*typed.Tensor)
		v := fmt.Sprint(all(x))
		if len(v) > 40 {
			v = v[:40]
		}
		fmt.Fprint(&b, s.Names[i], " ", x.DType, " ", x.Shape, " ", v, "\n")
	}
	return b.String()
}

func TestReadZip(t *testing.T) {
	for name, want := range map[string]string{
		"plain.npz":      "x float64 [1 2] [0.1 1e+300]\ny str128 [2 2] [a grün  𝄞]\n",
		"positional.npz": "arr_0 int8 [2 3 4] [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 1\narr_1 float64 [] [3.5]\n",
		"deflated.npz":   "grün/ä bool [3] [true false true]\nzeros float64 [100 100] [0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
	} {
		s, err := loadZip(file(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if name == "deflated.npz" {
			slices.Reverse(s.Items)
			slices.Reverse(s.Names)
			if s.Names[0] != "grün/ä" {
				slices.Reverse(s.Items)
				slices.Reverse(s.Names)
			}
		}
		if got := describe(s); got != want {
			t.Errorf("%s is\n%s, not\n%s", name, got, want)
		}
	}
}

// TestHeaderLengths compares headers of many lengths with those that NumPy wrote.
func TestHeaderLengths(t *testing.T) {
	b := file(t, "headers.npz")
	s, err := loadZip(b)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(z.File) != len(s.Items) || len(z.File) < 80 {
		t.Fatal(err, len(z.File))
	}
	for i, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := Write(&got, s.Items[i].(*typed.Tensor)); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%v: %v, %q, not %q", s.Items[i].(*typed.Tensor).Shape, err, got.Bytes(), want)
		}
	}
}

// pack makes a zip of members, which are names and texts.
func pack(t *testing.T, change func(h *zip.FileHeader), members ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for i := 0; i < len(members); i += 2 {
		h := &zip.FileHeader{Name: members[i], Method: zip.Deflate}
		if change != nil {
			change(h)
		}
		create := z.CreateHeader
		if h.UncompressedSize64 > 0 {
			create = z.CreateRaw
		}
		w, err := create(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, members[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBadZip(t *testing.T) {
	good := frame(1, dict("'<i2'", "False", "(2,)"), "abcd")
	huge := frame(1, dict("'<i2'", "False", "(100000000,)"), "abcd")
	damaged := pack(t, func(h *zip.FileHeader) { h.Method = zip.Store }, "a.npy", good)
	damaged[bytes.Index(damaged, []byte("abcd"))]++
	shared := bytes.Clone(pack(t, nil, "a.npy", good, "b.npy", good))
	raw := func(method uint16, claim uint64) func(h *zip.FileHeader) {
		return func(h *zip.FileHeader) {
			h.Method, h.UncompressedSize64, h.CompressedSize64 = method, claim, uint64(len(good))
		}
	}
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"no zip":      {[]byte("hello"), "it is no .npz file: zip: not a valid zip file"},
		"an npy":      {[]byte(good), "it is no .npz file"},
		"other":       {file(t, "other.npz"), `member "readme.txt" is no .npy file`},
		"directory":   {pack(t, nil, "a.npy/", ""), `member "a.npy/" is no .npy file`},
		"no utf-8":    {pack(t, nil, "\xff.npy", good), "is no .npy file"},
		"twice":       {pack(t, nil, "a.npy", good, "a.npy", good), `there are two members "a.npy"`},
		"bad member":  {pack(t, nil, "a.npy", "hello"), `member "a.npy": truncated: 5 of the 8`},
		"huge shape":  {pack(t, nil, "a.npy", huge), `member "a.npy": truncated: there are 4 bytes of data, the shape [100000000] of <i2 needs 200000000`},
		"trailing":    {pack(t, nil, "a.npy", good+"x"), `member "a.npy": there are 1 bytes after the array`},
		"checksum":    {damaged, `member "a.npy": it is damaged: its checksum is wrong`},
		"encrypted":   {pack(t, func(h *zip.FileHeader) { h.Flags |= encrypted }, "a.npy", good), "it is encrypted"},
		"method":      {pack(t, raw(12, 5), "a.npy", good), "it is compressed by method 12"},
		"claim":       {pack(t, raw(zip.Store, 1<<40), "a.npy", good), "cannot be in 69"},
		"claim small": {pack(t, raw(zip.Deflate, 1<<40), "a.npy", good), "cannot be in 69"},
		"shared":      {lie(shared), "its members have more bytes than it has itself"},
	} {
		_, err := loadZip(c.in)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, not %s", name, err, c.want)
		}
	}
	s, err := loadZip(pack(t, nil))
	if err != nil || s.Items == nil || s.Names == nil || len(s.Items) != 0 {
		t.Errorf("an empty one: %v, %v", s, err)
	}
}

// lie makes the directory of a zip say that every member has a third of a file
// of 1000 bytes more than it has.
func lie(b []byte) []byte {
	for at := range b {
		if bytes.HasPrefix(b[at:], []byte("PK\x01\x02")) {
			b[at+20], b[at+21] = 0, 1
		}
	}
	return b
}

func TestWriteZip(t *testing.T) {
	items := []any{load(t, "float64"), load(t, "unicode"), load(t, "empty")}
	for _, names := range [][]string{nil, {"x", "grün/ä", ""}} {
		for _, limit := range []int64{plainSize, 0} {
			old := plainSize
			plainSize = limit
			var out bytes.Buffer
			err := WriteZip(&out, &typed.Sequence{Items: items, Names: names})
			plainSize = old
			if err != nil {
				t.Fatal(err)
			}
			s, err := loadZip(out.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			want := names
			if names == nil {
				want = []string{"arr_0", "arr_1", "arr_2"}
			}
			if !slices.Equal(s.Names, want) || describe(s) != describe(&typed.Sequence{Items: items, Names: want}) {
				t.Errorf("%v became %s", names, describe(s))
			}
			z, err := zip.NewReader(bytes.NewReader(out.Bytes()), int64(out.Len()))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range z.File {
				if streamed := f.Flags&8 != 0; f.NonUTF8 || f.Method != zip.Store || streamed != (limit == 0) {
					t.Errorf("%q: method %d, flags %x", f.Name, f.Method, f.Flags)
				}
			}
		}
	}
	for want, s := range map[string]*typed.Sequence{
		"there are 1 names for 2 arrays":         {Items: []any{items[0], items[0]}, Names: []string{"a"}},
		`two arrays are called "a"`:              {Items: []any{items[0], items[0]}, Names: []string{"a", "a"}},
		`item "arr_0" is a typed.Scalar`:         {Items: []any{typed.Scalar{Value: int64(1)}}},
		`no member of a zip can be called "\xff`: {Items: []any{items[0]}, Names: []string{"\xff"}},
		`no member of a zip can be called "xx`:   {Items: []any{items[0]}, Names: []string{strings.Repeat("x", 65532)}},
		`array "o": an array of objects`:         {Items: []any{&typed.Tensor{DType: typed.Objects}}, Names: []string{"o"}},
	} {
		if err := WriteZip(io.Discard, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v (%s), not %s", err, status.HintOf(err), want)
		}
	}
	if err := WriteZip(full{}, &typed.Sequence{Items: items}); err == nil {
		t.Error("a full disk is no error")
	}
}
