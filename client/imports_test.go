package client_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Go users embed this package: what it pulls in is decided here. In particular
// no etcd, no cobra, no Arrow.
func TestImports(t *testing.T) {
	const module = "github.com/v6d-go/v6d/"
	allowed := []string{
		module + "client",
		module + "internal/object", module + "internal/protocol", module + "internal/shm", module + "internal/status",
		module + "internal/sys", module + "internal/wirejson", module + "internal/zstream",
	}
	modules := []string{"github.com/klauspost/compress/", "golang.org/x/sys/"}
	for _, goos := range []string{"linux", "darwin", "windows"} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
		cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		list := strings.Fields(string(out))
		if !slices.Contains(list, module+"internal/protocol") {
			t.Fatalf("%s: the list of imports is %v", goos, list)
		}
		for _, path := range list {
			if !slices.Contains(allowed, path) && !slices.ContainsFunc(modules, func(m string) bool { return strings.HasPrefix(path+"/", m) }) {
				t.Errorf("%s: package client pulls in %s", goos, path)
			}
		}
	}
}
