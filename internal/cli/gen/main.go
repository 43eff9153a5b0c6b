// Command gen writes what is generated from the code: man pages, completions,
// and the tables in docs/protocol.md, docs/exit-codes.md, docs/types.md and docs/tui.md. `go generate ./...`
// runs it; .ci/run fails when the result differs from what is committed.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/v6d-go/v6d/internal/cli"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/tui"
	"github.com/v6d-go/v6d/typed"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: gen REPOSITORY")
	}
	// Defaults that come from the environment do not belong into the pages.
	for _, key := range []string{"V6D_HOST", "V6D_USERNAME", "V6D_OUTPUT", "V6D_DEBUG"} {
		if err := os.Unsetenv(key); err != nil {
			log.Fatal(err)
		}
	}
	if err := generate(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func generate(repo string) error {
	if err := manPages(repo, cli.Root(output.Streams{Out: io.Discard, Err: io.Discard})); err != nil {
		return err
	}
	for _, step := range []func(string) error{completions, protocolTable, exitCodes, jsonShapes, typenames, tuiKeys} {
		if err := step(repo); err != nil {
			return err
		}
	}
	return nil
}

func emptyDir(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}

func completions(repo string) error {
	dir := filepath.Join(repo, "completions")
	if err := emptyDir(dir); err != nil {
		return err
	}
	for shell, name := range map[string]string{"bash": "v6d.bash", "zsh": "_v6d", "fish": "v6d.fish"} {
		var b bytes.Buffer
		if exit := cli.Main(context.Background(), []string{"completion", shell}, output.Streams{Out: &b, Err: os.Stderr}); exit != 0 {
			return fmt.Errorf("completion %s: exit code %d", shell, exit)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// protocolTable rewrites the part of docs/protocol.md between the markers.
func protocolTable(repo string) error {
	var b strings.Builder
	b.WriteString("| request | fields | reply | fields | what it does |\n|---|---|---|---|---|\n")
	for _, m := range protocol.Messages() {
		reply := "none"
		if m.Reply != "" {
			reply = "`" + m.Reply + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", m.Request, fields(m.RequestFields()), reply, fields(m.ReplyFields()), m.Doc)
	}
	return replaceGenerated(filepath.Join(repo, "docs", "protocol.md"), "messages", b.String())
}

func fields(list []protocol.FieldDoc) string {
	var parts []string
	for _, f := range list {
		key := "`" + f.Key + "`"
		if f.Optional {
			key += "?"
		}
		parts = append(parts, key+" "+strings.ReplaceAll(f.Type, "|", `\|`))
	}
	return strings.Join(parts, ", ")
}

func exitCodes(repo string) error {
	var b strings.Builder
	b.WriteString("| code | name | exit code | meaning |\n|---|---|---|---|\n")
	for _, r := range status.Rows() {
		fmt.Fprintf(&b, "| %d | %s | %d | %s |\n", r.Code, r.Name, r.Exit, r.Doc)
	}
	return replaceGenerated(filepath.Join(repo, "docs", "exit-codes.md"), "codes", b.String())
}

// typenames writes the types of the default registry.
func typenames(repo string) error {
	var b strings.Builder
	b.WriteString("| typename | in Go | | notes |\n|---|---|---|---|\n")
	for _, t := range typed.Default.Types() {
		value, kind := "`"+t.Go+"`", "read"
		switch {
		case t.Resolve == nil:
			value, kind = "`*Opaque`", "recognised"
		case t.Writes:
			kind = "written"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", t.Name, value, kind, t.Note)
	}
	return replaceGenerated(filepath.Join(repo, "docs", "types.md"), "types", b.String())
}

// jsonShapes writes the keys and types of every command's JSON, as the tests
// saw them.
func jsonShapes(repo string) error {
	files, err := filepath.Glob(filepath.Join(repo, "internal", "cli", "testdata", "json", "*.txt"))
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "### %s\n\n```\n%s```\n\n", strings.TrimSuffix(filepath.Base(f), ".txt"), text)
	}
	return replaceGenerated(filepath.Join(repo, "docs", "json-output.md"), "shapes", b.String())
}

// replaceGenerated puts text between <!-- begin NAME --> and <!-- end NAME -->.
func replaceGenerated(file, name, text string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	before, rest, ok1 := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s lacks the markers of %s", file, name)
	}
	return os.WriteFile(file, []byte(before+begin+text+end+after), 0o644)
}

// tuiKeys writes the keys of the browser.
func tuiKeys(repo string) error {
	var b strings.Builder
	b.WriteString("| key | what it does |\n|---|---|\n")
	for _, k := range tui.Bindings() {
		keys := strings.Fields(k.Keys)
		for i, key := range keys {
			keys[i] = "`" + key + "`"
		}
		fmt.Fprintf(&b, "| %s | %s |\n", strings.Join(keys, " "), k.Help)
	}
	return replaceGenerated(filepath.Join(repo, "docs", "tui.md"), "keys", b.String())
}
