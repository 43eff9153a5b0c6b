package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

const vectors = "../../interop/replay/testdata/vectors/"

// unrecorded lists the messages that no recording of the reference can hold.
// Extensions are ours; no reference was built with a GPU, and 0.24 never
// answers evict, load and unpin.
var (
	unrecordedReplies = []string{
		"create_gpu_buffer_reply", "get_gpu_buffers_reply", "evict_reply", "load_reply", "unpin_reply",
	}
)

// recorded returns the JSON texts of all recordings, one direction: c2s or s2c.
func recorded(t testing.TB, dir string) []json.RawMessage {
	files, err := filepath.Glob(vectors + "*.jsonl")
	if err != nil || len(files) < 20 {
		t.Fatalf("recordings: %d files, %v", len(files), err)
	}
	var out []json.RawMessage
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			var rec struct {
				Dir  string
				JSON json.RawMessage
			}
			if err := json.Unmarshal(line, &rec); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if rec.Dir == dir && len(rec.JSON) > 4 {
				out = append(out, rec.JSON)
			}
		}
	}
	return out
}

func typeOf(text []byte) string {
	var m struct{ Type string }
	_ = json.Unmarshal(text, &m) // raw_crash has types that are no strings
	return m.Type
}

// TestRecorded: every message of 0.24 stands in a recording, and every reply of
// the reference can be read by the definition of its request.
func TestRecorded(t *testing.T) {
	requests, replies := map[string]bool{}, map[string]bool{}
	for _, text := range recorded(t, "c2s") {
		requests[typeOf(text)] = true
	}
	for _, text := range recorded(t, "s2c") {
		replies[typeOf(text)] = true
	}
	for _, m := range Messages() {
		if requests[m.Request] == IsExtension(m.Request) {
			t.Errorf("%s: recorded %v, against the list of this test", m.Request, requests[m.Request])
		}
		if m.Reply != "" && replies[m.Reply] == (IsExtension(m.Request) || slices.Contains(unrecordedReplies, m.Reply)) {
			t.Errorf("%s: recorded %v, against the list of this test", m.Reply, replies[m.Reply])
		}
		if m.Doc == "" {
			t.Errorf("%s has no line of documentation", m.Request)
		}
	}
}

// TestNames: requests are unique; a reply's name belongs to one struct.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	shape := map[string]reflect.Type{}
	for _, m := range Messages() {
		if seen[m.Request] {
			t.Errorf("%s is defined twice", m.Request)
		}
		seen[m.Request] = true
		if m.Reply == "" {
			continue
		}
		if other := shape[m.Reply]; other != nil && other != m.reply.typ {
			t.Errorf("%s is both %s and %s", m.Reply, other, m.reply.typ)
		}
		shape[m.Reply] = m.reply.typ
		for _, p := range []*plan{m.request, m.reply} {
			keys := map[string]bool{"type": true, "code": true}
			for _, f := range p.fields {
				if keys[f.key] {
					t.Errorf("%s: key %q is used twice or reserved", p.typ, f.key)
				}
				keys[f.key] = true
			}
		}
	}
}

// filler sets every field to a value that is unlike all others and hard to
// carry: extreme numbers, texts that need escapes.
type filler struct{ n uint64 }

func (f *filler) fill(v reflect.Value) {
	f.n++
	switch {
	case v.Type() == reflect.TypeFor[wirejson.Value]():
		v.SetBytes(fmt.Appendf(nil, `{"k":[%d,-1.5e3,"\u0000",null]}`, f.n))
	case v.Kind() == reflect.Uint64:
		v.SetUint(-f.n)
	case v.Kind() == reflect.Int64:
		v.SetInt(-1<<63 + int64(f.n))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.String:
		v.SetString(fmt.Sprintf("text %d \"\\/\n\x00\u2028中😀~", f.n))
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case v.Kind() == reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 3 {
			key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(key)
			f.fill(val)
			v.SetMapIndex(key, val)
		}
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	default:
		panic("no filling for " + v.Type().String())
	}
}

// TestRoundTrip: what one end writes the other reads, field by field.
func TestRoundTrip(t *testing.T) {
	for _, m := range Messages() {
		for typ, p := range map[string]*plan{m.Request: m.request, m.Reply: m.reply} {
			for _, full := range []bool{true, false} {
				in := reflect.New(p.typ)
				if full {
					(&filler{}).fill(in.Elem())
				}
				text := p.append(nil, typ, in.UnsafePointer())
				if !json.Valid(text) {
					t.Fatalf("%s is written as %s", p.typ, text)
				}
				members, err := wirejson.ParseObject(text, nil)
				if err != nil {
					t.Fatalf("%s is written as %s: %v", p.typ, text, err)
				}
				out := reflect.New(p.typ)
				if err := p.decode(members, out.UnsafePointer()); err != nil {
					t.Errorf("%s: %v in %s", p.typ, err, text)
					continue
				}
				if a, b := normal(in.Elem()), normal(out.Elem()); !reflect.DeepEqual(a, b) {
					t.Errorf("%s (full %v):\nwritten %v\nread    %v", p.typ, full, a, b)
				}
			}
		}
	}
}

// TestDecodeReply: an error reply is an error whatever else it holds, and the
// type is checked.
func TestDecodeReply(t *testing.T) {
	for _, c := range []struct {
		text string
		want status.Code
	}{
		{`{"type":"exists_reply","exists":true}`, status.OK},
		{`{"type":"exists_reply","exists":true,"code":0}`, status.OK},
		{`{"code":12,"message":"x"}`, status.ObjectNotExists},
		{`{"type":"exists_reply","exists":true,"code":41}`, status.NotEnoughMemory},
		{`{"code":256,"message":"x"}`, status.UnknownError},
		{`{"code":"x"}`, status.UnknownError},
		{`{"type":"seal_reply","exists":true}`, status.AssertionFailed},
		{`{"exists":true}`, status.AssertionFailed},
		{`{"type":"exists_reply"}`, status.Invalid},
		{`{"type":"exists_reply","exists":1}`, status.Invalid},
	} {
		members, err := wirejson.ParseObject([]byte(c.text), nil)
		if err != nil {
			t.Fatal(err)
		}
		var r ExistsReply
		err = Exists.DecodeReply(members, &r)
		if c.want == status.OK && (err != nil || !r.Exists) || c.want != status.OK && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.text, err)
		}
	}
	if got := string(AppendError(nil, status.ObjectSealed, "a\"b\xff")); got != `{"code":13,"message":"a\"b`+"\ufffd"+`"}` {
		t.Errorf("error reply %s", got)
	}
}

// TestAlternatives: the spellings that only some client uses.
func TestAlternatives(t *testing.T) {
	var names []string
	for _, m := range Messages() {
		for _, f := range m.request.fields {
			if f.alt != "" {
				names = append(names, m.Request+" "+f.alt)
			}
		}
	}
	want := []string{"release_request id", "del_data_request deep:", "del_data_with_feedbacks_request deep:"}
	if !slices.Equal(names, want) {
		t.Errorf("second spellings: %s", strings.Join(names, ", "))
	}
	members, _ := wirejson.ParseObject([]byte(`{"num":3,"2":12,"1":-1,"0":10}`), nil)
	var q GetBuffersRequest
	if err := GetBuffers.DecodeRequest(members, &q); err != nil || !slices.Equal(q.IDs, IDs{10, 1<<64 - 1, 12}) {
		t.Errorf("numbered ids: %v, %v", q.IDs, err)
	}
	for _, bad := range []string{`{}`, `{"num":-1}`, `{"num":2,"0":1,"x":0,"y":0}`, `{"num":1e18}`, `{"ids":7}`, `{"num":1,"0":"o1"}`} {
		members, _ := wirejson.ParseObject([]byte(bad), nil)
		if err := GetBuffers.DecodeRequest(members, &q); !errors.Is(err, status.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// normal makes two values of one meaning equal: absent and empty lists, absent
// Values and null.
func normal(v reflect.Value) any {
	switch {
	case v.Type() == reflect.TypeFor[wirejson.Value]():
		if s := string(v.Bytes()); s != "" {
			return s
		}
		return "null"
	case v.Kind() == reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, normal(v.Index(i)))
		}
		return list
	case v.Kind() == reflect.Map:
		m := map[string]any{}
		for it := v.MapRange(); it.Next(); {
			m[fmt.Sprint(it.Key())] = normal(it.Value())
		}
		return m
	case v.Type() == reflect.TypeFor[PlasmaPayload]():
		p := v.Interface().(PlasmaPayload)
		return []any{p.appendCommon(nil), p.PlasmaID, p.PlasmaSize, p.RefCount} // is_gpu does not travel
	case v.Kind() == reflect.Struct:
		list := []any{}
		for i := range v.NumField() {
			list = append(list, normal(v.Field(i)))
		}
		return list
	}
	return v.Interface()
}
