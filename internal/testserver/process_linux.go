package testserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// Binary returns the path of the v6d that tests run as a process: $V6D_BIN, or
// one that it builds in dir.
func Binary(dir string) (string, error) {
	if path := os.Getenv("V6D_BIN"); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, "v6d")
	build := exec.Command("go", "build", "-o", path, "github.com/v6d-go/v6d/cmd/v6d")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the daemon: %w\n%s", err, out)
	}
	return path, nil
}

// StartProcess starts a command that dies with us, of SIGKILL unless the command
// says otherwise. The kernel means the death of the thread that started it, so
// one thread starts them all, and is kept.
func StartProcess(cmd *exec.Cmd) error {
	starter.Do(func() {
		go func() {
			runtime.LockOSThread()
			for f := range starts {
				f()
			}
		}()
	})
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	result := make(chan error)
	starts <- func() { result <- cmd.Start() }
	return <-result
}

var (
	starter sync.Once
	starts  = make(chan func())
)

// Tmpfs mounts a tmpfs of size bytes until the test ends, or skips the test.
func Tmpfs(t testing.TB, size int64) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	dir := ShortTempDir(t)
	if err := syscall.Mount("v6d-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return dir
}
