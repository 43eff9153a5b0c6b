//go:build linux

package typed_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/typed"
)

// TestRecorded reads what the reference client wrote. What is expected was
// compared with what that client reads back (python_get in the recordings).
func TestRecorded(t *testing.T) {
	c := connect(t)
	all := recordings(t)
	var got strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text := ""
		o, err := typed.Get(t.Context(), c, restore(t, c, all[name]))
		if err != nil {
			text = "error: " + err.Error()[strings.LastIndex(err.Error(), ": ")+2:]
		} else {
			text = show(o.Value)
			if err := o.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintf(&got, "%s: %s\n    %s\n\n", name, strings.Join(strings.Fields(all[name].Expression), " "), text)
	}
	const golden = "testdata/recorded.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got.String() {
		t.Errorf("what was read differs from %s; -update writes it anew:\n%s", golden, got.String())
	}
}
