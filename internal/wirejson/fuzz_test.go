package wirejson

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse compares Parse with encoding/json wherever the two have the same
// rules, and its own parts with each other.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "{}", "[]", "null", "true", "-0", "1e400", "1E5", "18446744073709551615", "-9223372036854775808", "1.10",
		`{"type":"create_buffer_request","size":48}`, "{\"a\":1}\x00\x00", `{"a":1,"a":2}`, `"\ud800"`, `"\ud83d\ude00"`,
		`{"k":[1,{"x":"\u0000"}],"":null}`, "\"\xff\"", `[[[[[[1]]]]]]`, `{"a" : [ ] , "b":{ } } `, strings.Repeat("9", 310),
	} {
		f.Add([]byte(s))
	}
	for _, name := range []string{"raw_misc.jsonl", "raw_errors.jsonl"} {
		lines, err := os.ReadFile("../../interop/replay/testdata/vectors/" + name)
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(lines) {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1<<16 {
			return
		}
		v, err := Parse(in)
		list, oerr := ParseObject(in, nil)
		if (err == nil) != (oerr == nil) {
			t.Fatalf("Parse says %v, ParseObject %v", err, oerr)
		}
		compareStd(t, in, v, err)
		if err != nil {
			return
		}
		var out []byte
		n := 0
		for k, e := range v.Members() {
			if n >= len(list) || !bytes.Equal(list[n].Key, k) || !bytes.Equal(list[n].Value, e) {
				t.Fatalf("member %d differs: %q %q", n, k, e)
			}
			n++
		}
		if n != len(list) {
			t.Fatalf("%d members, ParseObject has %d", n, len(list))
		}
		out = rebuild(t, out, v)
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("rebuilt as %q: %v", out, err)
		}
		if second := rebuild(t, nil, again); !bytes.Equal(out, second) {
			t.Fatalf("rebuilt as %q, then as %q", out, second)
		}
	})
}

// compareStd checks the verdict against encoding/json's. The rules differ for
// NULs behind the text, invalid UTF-8, lone surrogates, numbers that no double
// holds, and depth; everything else must agree.
func compareStd(t *testing.T, in []byte, v Value, err error) {
	trimmed := bytes.TrimRight(in, "\x00")
	std := json.Valid(trimmed)
	switch {
	case err == nil && !std:
		t.Fatalf("Parse accepts %q, encoding/json does not", in)
	case err == nil:
		var any any
		d := json.NewDecoder(bytes.NewReader(v))
		d.UseNumber()
		if e := d.Decode(&any); e != nil {
			t.Fatalf("encoding/json cannot read %q: %v", v, e)
		}
		return
	case !std || !utf8.Valid(in) || errors.Is(err, errDepth) || bytes.Contains(in, []byte(`\u`)):
		return
	case strings.Contains(err.Error(), "out of range"):
		var any any
		if json.Unmarshal(trimmed, &any) == nil {
			t.Fatalf("Parse says %v of %q, which encoding/json reads", err, in)
		}
		return
	}
	t.Fatalf("Parse says %v of %q, encoding/json accepts it", err, in)
}

// rebuild writes a value again from what the accessors return.
func rebuild(t *testing.T, b []byte, v Value) []byte {
	switch v.Kind() {
	case Object:
		b = append(b, '{')
		first := true
		for k, e := range v.Members() {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = rebuild(t, AppendKey(b, string(k)), e)
		}
		return append(b, '}')
	case Array:
		b = append(b, '[')
		first := true
		for e := range v.Elements() {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = rebuild(t, b, e)
		}
		return append(b, ']')
	case String:
		s, err := v.Text()
		if err != nil || !utf8.ValidString(s) {
			t.Fatalf("text of %q: %q, %v", v, s, err)
		}
		var std string
		if err := json.Unmarshal(v, &std); err != nil || std != s {
			t.Fatalf("%q reads as %q, by encoding/json as %q (%v)", v, s, std, err)
		}
		return AppendString(b, s)
	case Number:
		_, _ = v.Uint64()
		var std float64
		if err := json.Unmarshal(v, &std); err != nil {
			t.Fatalf("number %q: %v", v, err)
		}
	case Bool:
		if got, err := v.Bool(); err != nil || got != (string(v) == "true") {
			t.Fatalf("%q is %v, %v", v, got, err)
		}
	case Null:
	default:
		t.Fatalf("%q has no kind", v)
	}
	return append(b, v...)
}
