package cli

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAsText(t *testing.T) {
	for in, want := range map[string]string{
		"plain\n\ttext\r\n": "plain\n\ttext\r\n", "Zürich 東京": "Zürich 東京", "cut \xe6\x9d": "cut ",
		"": "", "\x00": "", "a\x1b[31m": "", "\xff\xfe": "", "latin \xe9 1": "", "\xe6": "", "x\u0085": "",
	} {
		got, ok := asText([]byte(in))
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
}

// TestSpread breaks lines without changing the value, and copes with any end.
func TestSpread(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":[1,2,"x,]"],"b":{"c":[[1,2],[3]]}}`: "{\n  \"a\": [1, 2, \"x,]\"],\n  \"b\": {\n    \"c\": [\n      [1, 2],\n      [3]\n    ]\n  }\n}",
		`[]`: "[]", `[{},[{}]]`: "[\n  {},\n  [\n    {}\n  ]\n]", `"a\"b"`: `"a\"b"`, `[[1,2],[3,`: "[\n  [1, 2],\n  [3, ",
	} {
		if got := spread(in); got != want {
			t.Errorf("%s becomes\n%s\nwant\n%s", in, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.Deferred(func() *rapid.Generator[any] { return anyJSON(3) }).Draw(t, "value")
		b, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := json.Unmarshal([]byte(spread(string(b))), &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &want); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s became %v, %v", b, got, err)
		}
		cut := spread(string(b[:rapid.IntRange(0, len(b)).Draw(t, "cut")]))
		if strings.Contains(cut, "\n\n") {
			t.Fatalf("%q", cut)
		}
	})
}

func anyJSON(depth int) *rapid.Generator[any] {
	plain := rapid.OneOf(rapid.Just[any](nil), rapid.Int32().AsAny(), rapid.String().AsAny(), rapid.Bool().AsAny())
	if depth == 0 {
		return plain
	}
	return rapid.OneOf(plain, rapid.SliceOfN(anyJSON(depth-1), 0, 4).AsAny(), rapid.MapOfN(rapid.String(), anyJSON(depth-1), 0, 4).AsAny())
}
