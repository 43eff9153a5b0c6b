package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/testserver"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestJSON compares the shape of every command's JSON (keys and types) with
// testdata/json. The shapes are the contract: docs/json-output.md is made from
// them, and a change is a change of the API.
func TestJSON(t *testing.T) {
	d := testserver.Start(t, nil)
	t.Setenv("V6D_SOCKET", d.Socket)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	file := filepath.Join(t.TempDir(), "data.txt")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		exit := Main(context.Background(), args, output.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
		return exit, out.String(), errs.String()
	}
	if exit, _, errs := run("put", file, "--name", "a", "--label", "k=v"); exit != 0 {
		t.Fatal(errs)
	}
	if exit, _, errs := run("context", "add", "here", "--socket", d.Socket); exit != 0 {
		t.Fatal(errs)
	}
	if exit, _, errs := run("stream", "put", "s", file, "--retain", "1MiB"); exit != 0 {
		t.Fatal(errs)
	}
	c, err := client.Dial(t.Context(), client.Options{Socket: d.Socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := c.GetName(t.Context(), "s", false)
	if err == nil {
		_, err = c.OpenReader(t.Context(), s, client.ReaderOptions{Name: "r"})
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"put":           {"put", file},
		"ls":            {"ls"},
		"ls-blobs":      {"ls", "--blobs"},
		"locate":        {"locate", "a"},
		"migrate":       {"migrate", "a"},
		"meta":          {"meta", "a"},
		"tree":          {"tree", "a"},
		"describe":      {"describe", "a"},
		"label":         {"label", "a"},
		"exists":        {"exists", "a"},
		"name-ls":       {"name", "ls"},
		"name-get":      {"name", "get", "a"},
		"du":            {"du"},
		"df":            {"df"},
		"top":           {"top", "--once"},
		"status":        {"status"},
		"ping":          {"ping"},
		"doctor":        {"doctor"},
		"version":       {"version"},
		"events":        {"events", "--since", "1m", "--timeout", "500ms"},
		"context-ls":    {"context", "ls"},
		"context-show":  {"context", "show", "here"},
		"config-view":   {"config", "view"},
		"stream-create": {"stream", "create", "made"},
		"stream-ls":     {"stream", "ls"},
		"stream-info":   {"stream", "info", "s"},
		"error":         {"get", "nosuch"},
	} {
		_, out, errs := run(append(args, "-o", "json")...)
		if name == "error" {
			out = errs
		}
		if name == "events" {
			out, _, _ = strings.Cut(out, "\n")
		}
		var v any
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Errorf("%s: %v: %q, %q", name, err, out, errs)
			continue
		}
		var lines []string
		shape(v, "", &lines)
		slices.Sort(lines)
		got := strings.Join(slices.Compact(lines), "\n") + "\n"
		golden := filepath.Join("testdata", "json", name+".txt")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Errorf("%v: run with -update", err)
			continue
		}
		if got != string(want) {
			t.Errorf("%s: the shape of the JSON changed, which is a change of the API; run with -update if it is meant\n--- want\n%s--- got\n%s", name, want, got)
		}
	}
}

// shape lists the paths of a value with their types. Keys of maps that users
// choose are shown as {}.
func shape(v any, path string, lines *[]string) {
	switch x := v.(type) {
	case map[string]any:
		if strings.HasSuffix(path, ".labels") || strings.HasSuffix(path, ".fields") || strings.HasSuffix(path, ".members") {
			*lines = append(*lines, path+": object")
			for _, e := range x {
				if strings.HasSuffix(path, ".members") {
					shape(e, path+".{}", lines)
				}
			}
			return
		}
		for k, e := range x {
			shape(e, strings.TrimPrefix(path+"."+k, "."), lines)
		}
	case []any:
		*lines = append(*lines, path+": list")
		for _, e := range x {
			shape(e, path+"[]", lines)
		}
	case nil:
		*lines = append(*lines, path+": null")
	case float64:
		*lines = append(*lines, path+": number")
	default:
		*lines = append(*lines, fmt.Sprintf("%s: %T", path, x))
	}
}
