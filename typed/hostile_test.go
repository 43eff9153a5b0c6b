//go:build linux

package typed_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/typed"
)

// TestHostile reads objects of which fields and blobs were changed: an error, or
// a value that passes Validate and can be written, but no panic.
func TestHostile(t *testing.T) {
	c := connect(t)
	all := recordings(t)
	names := slices.Sorted(maps.Keys(all))
	values := []any{
		json.Number("-1"), json.Number("0"), json.Number("1"), json.Number("3"), json.Number("1099511627776"), json.Number("9223372036854775807"), json.Number("1.5"),
		"", "[]", "[-1]", "[1099511627776, 1099511627776]", "[0, 9223372036854775807]", "{}", `{"bytes":[255,255,255,255,255,255,255,127]}`, `{"bytes":[300]}`,
		"int64", "float", "str99999999999", "datetime64[x]", ">c16", "bytes0", "null", nil, true,
	}
	rapid.Check(t, func(t *rapid.T) {
		r := all[rapid.SampledFrom(names).Draw(t, "recording")]
		text, err := json.Marshal(r.Metadata)
		if err != nil {
			t.Fatal(err)
		}
		changed := recording{Metadata: map[string]any{}, Blobs: maps.Clone(r.Blobs)}
		if err := json.Unmarshal(text, &changed.Metadata); err != nil {
			t.Fatal(err)
		}
		trees := []map[string]any{changed.Metadata}
		var walk func(m map[string]any)
		walk = func(m map[string]any) {
			for _, key := range slices.Sorted(maps.Keys(m)) {
				if sub, ok := m[key].(map[string]any); ok && sub["typename"] != client.BlobType {
					trees = append(trees, sub)
					walk(sub)
				}
			}
		}
		walk(changed.Metadata)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			m := rapid.SampledFrom(trees).Draw(t, "tree")
			var keys []string
			for _, key := range slices.Sorted(maps.Keys(m)) {
				if _, member := m[key].(map[string]any); !member && !slices.Contains([]string{"id", "instance_id", "signature", "transient", "global", "typename"}, key) {
					keys = append(keys, key)
				}
			}
			if len(keys) == 0 {
				continue
			}
			key := rapid.SampledFrom(keys).Draw(t, "key")
			if rapid.IntRange(0, 4).Draw(t, "drop") == 0 {
				delete(m, key)
			} else {
				m[key] = rapid.SampledFrom(values).Draw(t, "value")
			}
		}
		if len(changed.Blobs) > 0 && rapid.Bool().Draw(t, "blob") {
			id := rapid.SampledFrom(slices.Sorted(maps.Keys(changed.Blobs))).Draw(t, "id")
			b := changed.Blobs[id]
			if n := len(b.Hex) / 2; n > 0 {
				at := 2 * rapid.IntRange(0, n-1).Draw(t, "at")
				b.Hex = b.Hex[:at] + rapid.SampledFrom([]string{"", "ff", "00", "7f"}).Draw(t, "byte") + b.Hex[at+2:]
			}
			changed.Blobs[id] = b
		}
		id := restore(t, c, changed)
		o, err := typed.Get(t.Context(), c, id)
		if err == nil {
			look(t, o.Value)
			if err := o.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Delete(t.Context(), []client.ID{id}, client.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	})
}

// look uses a value as its readers do.
func look(t *rapid.T, v any) {
	if err := typed.ValidateValue(v); err != nil {
		return
	}
	if f, ok := v.(*typed.DataFrame); ok {
		if _, err := f.Slice(0, 2); err != nil {
			return
		}
	}
	if x, ok := v.(*typed.Tensor); ok && x.Len() > 1<<20 && x.DType.Size > 0 && len(x.Data) == 0 {
		t.Fatalf("a tensor of %v has no data", x.Shape)
	}
	_ = show(v)
}
