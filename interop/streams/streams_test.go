//go:build linux

// Package streams tests streams between the published Python client and the command
// line, both ways (streams.py). It needs interop/venv.sh to have run, and is skipped
// otherwise. V6D_BIN names the binary to test; otherwise one is built.
package streams

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
)

func TestStreams(t *testing.T) {
	python, err := filepath.Abs("../../.interop/venv/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(python); err != nil {
		t.Skip("no Python with the published client: run interop/venv.sh")
	}
	dir, err := os.MkdirTemp("", "v6d-st") // short: socket paths are
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	v6d, err := testserver.Binary(dir)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	var log testserver.Output
	daemon := exec.Command(v6d, "serve", "--socket", socket, "--size", "64MiB", "--rpc-listen", "off")
	daemon.Stdout, daemon.Stderr = &log, &log
	if err := testserver.StartProcess(daemon); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
		if t.Failed() {
			t.Logf("the daemon said:\n%s", log.Tail(30))
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := client.Dial(t.Context(), client.Options{Socket: socket})
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the daemon does not start: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	checks := exec.CommandContext(ctx, python, "-W", "ignore", "streams.py", socket, v6d)
	var out, errs bytes.Buffer
	checks.Stdout, checks.Stderr = &out, &errs
	checks.WaitDelay = time.Second
	err = checks.Run()
	t.Logf("%s", out.String())
	if n := strings.Count(out.String(), "ok "); err != nil || n < 13 {
		t.Errorf("%d checks went well: %v\n%s", n, err, errs.String())
	}
}
