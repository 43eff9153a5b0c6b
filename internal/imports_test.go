package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/v6d-go/v6d"

// layers are the parts of the project from the bottom to the top. A package
// imports lower layers only, packages of its own part, and what beside names.
// A new part needs a place here: docs/architecture.md says which.
var layers = [][]string{
	{"internal/status", "internal/sys", "internal/wirejson", "internal/zstream"},
	{"internal/object", "internal/config", "internal/journal"},
	{"internal/protocol", "internal/shm"},
	{"internal/store", "internal/meta", "internal/stream", "client"},
	{"typed"},
	{"internal/migrate", "internal/driver"},
	{"internal/server"},
	{"internal/tui", "internal/output"},
	{"internal/cli"},
	{"cmd/v6d"},
}

// beside lists imports inside a layer.
var beside = map[string][]string{
	"internal/stream": {"internal/store"},
}

// only narrows what a part may import of the project.
var only = map[string][]string{
	"client": {"internal/protocol", "internal/shm", "internal/sys", "internal/object", "internal/status", "internal/wirejson", "internal/zstream"},
	"internal/server": {
		"internal/store", "internal/meta", "internal/stream", "internal/protocol", "internal/migrate", "internal/shm", "internal/journal",
		"internal/object", "internal/config", "internal/status", "internal/sys", "internal/wirejson", "internal/zstream",
	},
}

// owners are the only parts that import something.
var owners = map[string]string{
	"github.com/spf13":       "internal/cli",
	"golang.org/x/sys/unix":  "internal/sys",
	"go.etcd.io":             "internal/meta/etcd",
	"charm.land/bubbletea":   "internal/tui",
	module + "/internal/cli": "cmd/v6d",
}

// tests are parts that only tests run: they may import everything that nobody
// owns, and nothing else may import them.
var tests = []string{"internal/testserver", "interop", "bench"}

// under reports whether a path is dir or lies in it.
func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// part returns the part that a package belongs to, and its layer; -1 for none.
func part(pkg string) (string, int) {
	for i, layer := range layers {
		for _, p := range layer {
			if under(pkg, p) {
				return p, i
			}
		}
	}
	return "", -1
}

// violation tells why a package of the project must not import a path, or "".
func violation(pkg, imported string) string {
	for prefix, owner := range owners {
		if under(imported, prefix) && !under(pkg, owner) && !under(pkg, strings.TrimPrefix(prefix, module+"/")) {
			return "only " + owner + " may"
		}
	}
	target, ours := strings.CutPrefix(imported, module+"/")
	isTest := func(p string) bool { return slices.ContainsFunc(tests, func(t string) bool { return under(p, t) }) }
	if !ours || isTest(pkg) {
		return ""
	}
	if isTest(target) {
		return "only tests may"
	}
	from, layer := part(pkg)
	to, below := part(target)
	switch {
	case layer < 0:
		return pkg + " has no layer: give it one in internal/imports_test.go"
	case below < 0:
		return target + " has no layer: give it one in internal/imports_test.go"
	case from == to || slices.Contains(beside[from], to):
		return ""
	case below >= layer:
		return "it is not below"
	}
	if allowed := only[from]; allowed != nil && !slices.Contains(allowed, to) {
		return from + " is kept apart from it"
	}
	return ""
}

// exits returns where a file ends the process.
func exits(f *ast.File) (at []token.Pos) {
	names := map[string]bool{} // of os and syscall in this file
	for _, spec := range f.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		if p != "os" && p != "syscall" {
			continue
		}
		name := p
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = true
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Exit" {
			if x, ok := s.X.(*ast.Ident); ok && names[x.Name] {
				at = append(at, s.Pos())
			}
		}
		return true
	})
	return at
}

// TestImports reads every file that is no test, for whatever system it is.
func TestImports(t *testing.T) {
	root, files, fset := "..", 0, token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			_, nested := os.Stat(filepath.Join(name, "go.mod"))
			if name != root && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata" || nested == nil) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		files++
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(rel))
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := violation(pkg, imported); why != "" {
				t.Errorf("%s imports %s: %s", rel, imported, why)
			}
		}
		if !under(pkg, "cmd/v6d") {
			for _, pos := range exits(f) {
				t.Errorf("%s ends the process: only cmd/v6d may", fset.Position(pos))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 40 {
		t.Errorf("only %d files were found", files)
	}
}

// The rules themselves, since they find nothing as long as all is well.
func TestImportRules(t *testing.T) {
	for _, tt := range []struct {
		pkg, imported string
		allowed       bool
	}{
		{"internal/server", "internal/store", true},
		{"internal/store", "internal/server", false},
		{"internal/store", "internal/meta", false},
		{"internal/stream", "internal/store", true},
		{"internal/status", "internal/sys", false},
		{"internal/object", "internal/wirejson", true},
		{"internal/wirejson", "internal/object", false},
		{"internal/journal", "internal/sys", true},
		{"internal/meta/etcd", "internal/meta", true},
		{"internal/driver/kafka", "internal/driver", true},
		{"internal/driver/kafka", "typed", true},
		{"typed", "internal/driver/codec", false},
		{"typed", "client", true},
		{"client", "typed", false},
		{"client", "internal/shm", true},
		{"client", "internal/config", false},
		{"client", "internal/server", false},
		{"internal/server", "client", false},
		{"internal/tui", "client", true},
		{"internal/tui", "internal/cli", false},
		{"internal/cli", "internal/testserver", false},
		{"internal/testserver", "internal/server", true},
		{"interop/replay", "internal/testserver", true},
		{"internal/server", "interop/replay", false},
		{"internal/cli/gen", "internal/cli", true},
		{"internal/server", "internal/cli", false},
		{"interop/replay", "internal/cli", false},
		{"cmd/v6d", "internal/cli", true},
		{"internal/cli", "cmd/v6d", false},
		{"internal/util", "internal/status", false},
		{"internal/cli", "internal/util", false},
		{"internal/cli", "github.com/spf13/cobra", true},
		{"internal/output", "github.com/spf13/pflag", false},
		{"internal/testserver", "github.com/spf13/viper", false},
		{"internal/sys", "golang.org/x/sys/unix", true},
		{"internal/shm", "golang.org/x/sys/unix", false},
		{"internal/meta/etcd", "go.etcd.io/etcd/client/v3", true},
		{"internal/meta", "go.etcd.io/etcd/client/v3", false},
		{"client", "fmt", true},
	} {
		imported := tt.imported
		if !strings.Contains(imported, ".") && imported != "fmt" {
			imported = module + "/" + imported
		}
		if why := violation(tt.pkg, imported); (why == "") != tt.allowed {
			t.Errorf("%s imports %s: allowed %v, the rules say %q", tt.pkg, tt.imported, tt.allowed, why)
		}
	}
	for source, want := range map[string]int{
		`import "os"; func f() { os.Exit(1) }`:                           1,
		`import stdos "os"; func f() { defer stdos.Exit(1) }`:            1,
		`import "syscall"; var die = syscall.Exit`:                       1,
		`import "os"; func f() { os.Getpid() }`:                          0,
		`type t struct{}; func (t) Exit() {}; var os t; var x = os.Exit`: 0,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "f.go", "package p; "+source, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(exits(f)); got != want {
			t.Errorf("%s ends the process %d times, want %d", source, got, want)
		}
	}
}
