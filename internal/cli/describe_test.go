package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/testserver"
)

// TestDescribe compares what describe and head say of values with
// testdata/describe; ids, times and processes are made uniform.
func TestDescribe(t *testing.T) {
	d := testserver.Start(t, nil)
	t.Setenv("V6D_SOCKET", d.Socket)
	run := func(stdin string, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if exit := Main(context.Background(), args, output.Streams{In: strings.NewReader(stdin), Out: &out, Err: &errs}); exit != 0 {
			t.Fatalf("%v: %s", args, errs.String())
		}
		return strings.TrimSpace(out.String()) + "\n"
	}
	const rows = "day,price,größe,ok\n2020-01-01,1.5,\"a, b\",true\n2020-01-02,,\"\",\n"
	raw := strings.Repeat("\x00\x00\x80\x3f", 6)
	same := regexp.MustCompile(`(o)[0-9a-f]{16}|(created: +)\S+|(process )\d+|(user )\d+|(on host )[^ ,]+`)
	for name, args := range map[string][]string{
		"table":     {rows, "put", "-", "--format", "csv"},
		"dataframe": {rows, "put", "-", "--format", "csv", "--type", "dataframe"},
		"tensor":    {raw, "put", "-", "--dtype", "f32", "--shape", "2x3"},
		"sequence":  {"[1, [2, 3], \"x\"]", "put", "-", "--format", "json"},
		"scalar":    {"42", "put", "-", "--type", "scalar"},
		"object":    {`{"a": [1, null]}`, "put", "-", "--format", "json"},
		"bytes":     {"data", "put", "-"},
	} {
		id := strings.TrimSpace(run(args[0], args[1:]...))
		text := same.ReplaceAllString(run("", "describe", id), "$1$2$3$4$5*")
		if name == "table" || name == "dataframe" || name == "tensor" {
			text += "\n" + run("", "head", id, "-n", "1") + "\n" + run("", "head", id, "-o", "json")
		}
		golden := filepath.Join("testdata", "describe", name+".txt")
		if *update {
			if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if text != string(want) {
			t.Errorf("%s:\n%swant\n%s", name, text, want)
		}
	}
}
