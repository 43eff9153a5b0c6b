package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReadmeTour runs the shell commands of the README's five minutes as they
// stand, but for the socket's place and the build.
func TestReadmeTour(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(readme), "## Five minutes\n")
	if !ok {
		t.Fatal("the README has no five minutes any more")
	}
	var tour []string
	for line := range strings.Lines(section) {
		if code, ok := strings.CutPrefix(line, "    "); ok {
			tour = append(tour, code)
		} else if len(tour) > 0 && strings.TrimSpace(line) != "" {
			break // the first block is the shell's
		}
	}
	if len(tour) < 7 {
		t.Fatalf("the tour has %d lines only", len(tour))
	}
	dir, err := os.MkdirTemp("", "v6d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "bin", "v6d"), ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	script := strings.Join(tour, "")
	script = strings.ReplaceAll(script, "make build", "true")
	script = strings.ReplaceAll(script, "/tmp/v6d.sock", filepath.Join(dir, "s"))
	// The daemon starts in the background; a person waits for its "is ready".
	head, tail, ok := strings.Cut(script, " is needed\n")
	if !ok {
		t.Fatal("the tour does not start a daemon any more")
	}
	script = head + "\nfor i in {1..600}; do [ -S $V6D_SOCKET ] && break; sleep 0.05; done\n" + tail
	// What becomes of files, with the daemon still there.
	_, section, ok = strings.Cut(string(readme), "## Files become objects, and objects files\n")
	if !ok {
		t.Fatal("the README does not say what becomes of files any more")
	}
	script += "v6d get sales sales.parquet\n"
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "## ") {
			break
		}
		if code, ok := strings.CutPrefix(line, "    "); ok {
			script += "\n" + strings.Replace(code, "--name sales ", "--name sales --replace ", 1)
		}
	}
	script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\nhead -c 100000 /dev/urandom > model.bin\nmkdir src; cp model.bin src\n" +
		"echo day,price,qty > sales.csv; echo 2026-01-01,1.5,3 >> sales.csv\n" +
		script +
		"\ncmp model.bin copy.bin; v6d get prices\nkill %1\nwait\n"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"is ready", "\tmodel\n", "buffer_: o", "survives a crash", "day,price\n2026-01-01,1.5\n", "column price: "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the tour does not show %q:\n%s", want, out)
		}
	}
}
