//go:build linux

// Package recovery holds tests that drive real daemon processes from outside:
// they are killed, damaged, restarted and looked at, through the Go client, the
// published Python client and the kernel's own books (/proc, mounts, sockets).
//
//	go test ./interop/recovery                    # all, 12 crashes in the soak
//	go test ./interop/recovery -run Recovery -v   # the soak alone
//	V6D_RECOVERY_CYCLES=200 go test -run Recovery -v ./interop/recovery
//
// Environment:
//
//	V6D_BIN              binary to test; otherwise one is built from the checkout
//	V6D_RECOVERY_CYCLES  crashes in the soak (12)
//	V6D_RECOVERY_SEED    its seed; without one it is drawn, and always printed
//	V6D_RECOVERY_KEEP    keep the work folder and the daemons' logs
//
// The Python parts need interop/venv.sh to have run, and are skipped otherwise.
//
// The soak keeps a model of everything that a daemon acknowledged (model_test.go),
// works on it at random (worker_test.go, soak.py), kills the daemon at a random
// moment and compares what the next one serves with the model (verify_test.go).
// The seed decides what is done and when the daemon is killed; which requests
// that hits depends on the scheduler, so that a seed repeats a run closely, not
// exactly.
package recovery

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/testserver"
)

// patience is how long anything may take that should take milliseconds; the
// machine may be busy.
const patience = 20 * time.Second

var (
	ctx = context.Background()
	v6d string // path of the daemon under test
)

func TestMain(m *testing.M) {
	if mode := os.Getenv("V6D_RECOVERY_CHILD"); mode != "" {
		os.Exit(child(mode)) // a helper process of a test, see child_test.go
	}
	dir, err := os.MkdirTemp("", "v6d-recovery")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if v6d, err = testserver.Binary(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// python returns the interpreter that has the published client, or skips.
func python(t testing.TB) string {
	t.Helper()
	p := pythonPath()
	if p == "" {
		t.Skip("no Python with the published client: run interop/venv.sh")
	}
	return p
}

// pythonPath is python without a test to skip: "" when there is none.
func pythonPath() string {
	p, err := filepath.Abs("../../.interop/venv/bin/python")
	if err != nil {
		return ""
	}
	if _, err := os.Stat(p); err != nil {
		return ""
	}
	return p
}

// script returns the absolute path of a Python program beside the tests.
func script(t testing.TB, name string) string {
	t.Helper()
	p, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tempDir makes a folder with a short path, for sockets; it goes with the test.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "v6d-rec")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getenv("V6D_RECOVERY_KEEP") != "" {
			t.Logf("kept: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the work folder: %v", err)
		}
	})
	return dir
}

// eventually polls until cond returns nil, and returns its last error after
// patience.
func eventually(cond func() error) error {
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = cond(); err == nil {
			return nil
		}
	}
	return err
}
