package wirejson

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

// TestParseRules has a line for every rule of docs/protocol.md about what is
// JSON on this wire and what is not.
func TestParseRules(t *testing.T) {
	digits := strings.Repeat("9", 308)
	for _, c := range []struct {
		name, in string
		ok       bool
	}{
		{"empty text", "", false},
		{"space only", " \n\t\r", false},
		{"object", `{"a":1}`, true},
		{"space everywhere", " \t{ \"a\" : [ 1 , 2 ] , \"b\" : { } }\r\n", true},
		{"scalar", `7`, true},
		{"duplicate keys", `{"a":1,"a":2}`, true},
		{"bytes after the text", `{"a":1}x`, false},
		{"a control byte after the text", "{}\x0b", false},
		{"a second text", `{} {}`, false},
		{"one NUL after the text", "{}\x00", true},
		{"many NULs after space", "{} \n\x00\x00\x00", true},
		{"bytes after the NULs", "{}\x00x", false},
		{"NUL before the text", "\x00{}", false},
		{"NUL inside a string", "\"a\x00b\"", false},
		{"escaped NUL", `"a\u0000b"`, true},
		{"NaN", `{"a":NaN}`, false},
		{"Infinity", `[Infinity]`, false},
		{"-Infinity", `[-Infinity]`, false},
		{"word cut short", `tru`, false},
		{"word with a tail", `truest`, false},
		{"capital word", `True`, false},
		{"overflow of a double", `1e400`, false},
		{"negative overflow", `-1e400`, false},
		{"overflow by digits", strings.Repeat("9", 400), false},
		{"many digits that fit", digits, true},
		{"the largest double", `1.7976931348623157e308`, true},
		{"just above the largest double", `1.7976931348623159e308`, false},
		{"underflow to zero", `1e-400`, true},
		{"minus zero", `-0`, true},
		{"minus zero point zero", `-0.0`, true},
		{"beyond u64", `18446744073709551616`, true},
		{"leading zero", `01`, false},
		{"minus and leading zero", `-01`, false},
		{"lone minus", `-`, false},
		{"plus", `+1`, false},
		{"no digits before the point", `.5`, false},
		{"no digits after the point", `1.`, false},
		{"no digits in the exponent", `1e`, false},
		{"signed exponent without digits", `1e+`, false},
		{"exponent", `1E5`, true},
		{"hex", `0x10`, false},
		{"surrogate pair", `"\ud83d\ude00"`, true},
		{"lone high surrogate", `"\ud800"`, false},
		{"lone low surrogate", `"\udc00"`, false},
		{"high surrogate and a letter", `"\ud800x"`, false},
		{"two high surrogates", `"\ud800\ud800"`, false},
		{"surrogates in the wrong order", `"\ude00\ud83d"`, false},
		{"lone surrogate in a key", `{"\ud800":1}`, false},
		{"cut escape", `"\u12"`, false},
		{"escape that is none", `"\x41"`, false},
		{"escape at the end", `"\`, false},
		{"raw newline in a string", "\"a\nb\"", false},
		{"DEL in a string", "\"a\x7fb\"", true},
		{"invalid UTF-8", "\"\xff\"", false},
		{"truncated UTF-8", "\"\xe4\xb8\"", false},
		{"overlong UTF-8", "\"\xc0\x80\"", false},
		{"UTF-8 surrogate", "\"\xed\xa0\x80\"", false},
		{"invalid UTF-8 in a key", "{\"\xff\":1}", false},
		{"valid UTF-8", `"中文😀"`, true},
		{"byte order mark", "\ufeff{}", false},
		{"open string", `"abc`, false},
		{"open object", `{"a":1`, false},
		{"open array", `[1,`, false},
		{"comma before the brace", `{"a":1,}`, false},
		{"comma before the bracket", `[1,]`, false},
		{"missing comma", `[1 2]`, false},
		{"missing colon", `{"a" 1}`, false},
		{"missing value", `{"a":}`, false},
		{"key that is no string", `{1:1}`, false},
		{"key without quotes", `{a:1}`, false},
		{"single quotes", `{'a':1}`, false},
		{"comment", `{}/**/`, false},
		{"wrong bracket", `[1}`, false},
		{"deepest", nested(MaxDepth), true},
		{"too deep", nested(MaxDepth + 1), false},
	} {
		v, err := Parse([]byte(c.in))
		if (err == nil) != c.ok {
			t.Errorf("%s: Parse says %v, want ok=%v", c.name, err, c.ok)
		}
		if _, err := ParseObject([]byte(c.in), nil); (err == nil) != c.ok {
			t.Errorf("%s: ParseObject says %v, want ok=%v", c.name, err, c.ok)
		}
		if c.ok && string(v) != strings.Trim(c.in, " \n\t\r\x00") {
			t.Errorf("%s: the value is %q", c.name, v)
		}
	}
	// An object counts as a level, whichever way it is read.
	deep := `{"a":` + nested(MaxDepth-1) + `}`
	tooDeep := `{"a":` + nested(MaxDepth) + `}`
	if _, err := ParseObject([]byte(deep), nil); err != nil {
		t.Errorf("ParseObject at the greatest depth: %v", err)
	}
	if _, err := ParseObject([]byte(tooDeep), nil); err == nil {
		t.Error("ParseObject accepts one level too many")
	}
}

func TestMembers(t *testing.T) {
	in := []byte(" {\"a\":1, \"b\" : [ {\"x\":\"]}\"} , null ] ,\"a\":\"\\\"}\",\"\\u0061\\n\":{}} \x00")
	want := []string{"a=1", `b=[ {"x":"]}"} , null ]`, `a="\"}"`, "a\n={}"}
	list, err := ParseObject(in, make([]Member, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	v, err := Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	var a, b []string
	for _, m := range list {
		a = append(a, fmt.Sprintf("%s=%s", m.Key, m.Value))
	}
	for k, val := range v.Members() {
		b = append(b, fmt.Sprintf("%s=%s", k, val))
	}
	if !slices.Equal(a, want) || !slices.Equal(b, want) {
		t.Errorf("ParseObject %q\nMembers     %q\nwant        %q", a, b, want)
	}
	if got := v.Get("a"); string(got) != `"\"}"` {
		t.Errorf("of duplicates the last wins; Get says %s", got)
	}
	if got := v.Get("none"); got != nil || got.Kind() != 0 {
		t.Errorf("an absent key has value %q", got)
	}
	var elems []string
	for e := range v.Get("b").Elements() {
		elems = append(elems, string(e))
	}
	if !slices.Equal(elems, []string{`{"x":"]}"}`, "null"}) {
		t.Errorf("elements %q", elems)
	}
	for _, other := range []string{`[]`, `{}`, `"x"`, `3`, `null`} {
		v, _ := Parse([]byte(other))
		for range v.Elements() {
			t.Errorf("%s has an element", other)
		}
		for range v.Members() {
			t.Errorf("%s has a member", other)
		}
	}
	prefix := []Member{{Key: []byte("kept")}}
	if got, err := ParseObject([]byte(`[1]`), prefix); err != nil || len(got) != 1 {
		t.Errorf("a text that is no object: %v %v", got, err)
	}
}

func TestNumbers(t *testing.T) {
	const bad = math.MaxUint64
	for _, c := range []struct {
		in   string
		want uint64
		ok   bool
	}{
		{"0", 0, true},
		{"-0", 0, true},
		{"16753670150938427393", 16753670150938427393, true}, // not a float64
		{"18446744073709551615", math.MaxUint64, true},
		{"18446744073709551616", 0, false},
		{"99999999999999999999", 0, false},
		{"-1", math.MaxUint64, true}, // Java sends ids as signed longs
		{"-9223372036854775808", 1 << 63, true},
		{"-9223372036854775809", 1 << 63, true}, // as a double it is -2^63
		{"-9223372036854777856", 0, false},
		{"1.9", 1, true},
		{"-1.9", bad, true},
		{"-0.5", 0, true},
		{"1e3", 1000, true},
		{"1e19", 10000000000000000000, true},
		{"1e20", 0, false},
		{"18446744073709551615.0", 0, false},
		{`"1"`, 0, false},
		{"true", 0, false},
		{"null", 0, false},
		{"[1]", 0, false},
	} {
		v, err := Parse([]byte(c.in))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		got, err := v.Uint64()
		if (err == nil) != c.ok || c.ok && got != c.want {
			t.Errorf("Uint64 of %s: %d, %v", c.in, got, err)
		}
		if i, err := v.Int64(); (err == nil) != c.ok || c.ok && i != int64(c.want) {
			t.Errorf("Int64 of %s: %d, %v", c.in, i, err)
		}
	}
	if _, err := Value(nil).Uint64(); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("an absent number: %v", err)
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		`""`:                               "",
		`"plain"`:                          "plain",
		`"\"\\\/\b\f\n\r\t"`:               "\"\\/\b\f\n\r\t",
		`"\u0000\u001F\u4e2d\ud83D\uDE00"`: "\x00\x1f中😀",
		`"a\u0041\ud83d\ude00z"`:           "aA😀z",
		"\"\x7f\"":                         "\x7f",
	} {
		v, err := Parse([]byte(in))
		if err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		got, err := v.Text()
		if err != nil || got != want {
			t.Errorf("%s reads as %q, %v; want %q", in, got, err, want)
		}
		again, err := Parse(AppendString(nil, got))
		if err != nil {
			t.Fatalf("%q is written as %s: %v", got, AppendString(nil, got), err)
		}
		if back, _ := again.Text(); back != want {
			t.Errorf("%q comes back as %q", want, back)
		}
	}
	if got := string(AppendString(nil, "a\xffb\xe4")); got != "\"a\ufffdb\ufffd\"" {
		t.Errorf("invalid UTF-8 is written as %q", got)
	}
	if got := string(AppendKey(nil, "a\"b")); got != `"a\"b":` {
		t.Errorf("key %s", got)
	}
}

// TestScanAllocs pins what the path of every request may allocate: nothing but
// unescaped keys.
func TestScanAllocs(t *testing.T) {
	frame := []byte(`{"type":"get_buffers_request","num":3,"0":16753670150938427393,"1":2,"2":-3,"unsafe":false,"f":1.5e3,"s":"中文"}`)
	escaped := []byte(`{"\u0061":1}`)
	members := make([]Member, 0, 16)
	v, _ := Parse(frame)
	for _, c := range []struct {
		name string
		most float64
		f    func()
	}{
		{"Parse", 0, func() { _, _ = Parse(frame) }},
		{"ParseObject", 0, func() { members, _ = ParseObject(frame, members[:0]) }},
		{"Members", 0, func() {
			for k, e := range v.Members() {
				if len(k) > 0 {
					_, _ = e.Kind(), e
				}
			}
		}},
		{"Get", 0, func() { _ = v.Get("2") }},
		{"Uint64", 0, func() { _, _ = v.Get("0").Uint64() }},
		{"negative Uint64", 0, func() { _, _ = v.Get("2").Uint64() }},
		{"one escaped key", 1, func() { members, _ = ParseObject(escaped, members[:0]) }},
	} {
		if n := testing.AllocsPerRun(200, c.f); n > c.most {
			t.Errorf("%s allocates %v times, at most %v", c.name, n, c.most)
		}
	}
}
