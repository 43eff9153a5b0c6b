package replay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReference proves the replay right against the daemon that was recorded:
// it must answer as recorded everywhere, also where ours deviates.
func TestReference(t *testing.T) {
	binary := os.Getenv("VINEYARDD")
	if binary == "" {
		t.Skip("VINEYARDD is not set: give the path of a reference daemon 0.24.2 to check the replay itself")
	}
	all(t, true, func(t testing.TB, req Requirements) Target { return startReference(t, binary, req) })
}

// startReference runs the reference daemon until the test ends.
func startReference(t testing.TB, binary string, req Requirements) Target {
	t.Helper()
	dir, err := os.MkdirTemp("", "replay") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	target := Target{Socket: filepath.Join(dir, "s"), RPC: freePort(t)}
	_, port, _ := net.SplitHostPort(target.RPC)
	args := []string{
		"--meta", "local", "--socket", target.Socket, "--size", fmt.Sprint(req.Size),
		"--rpc_socket_port", port, "--compression=" + fmt.Sprint(req.Compression),
	}
	path := os.Getenv("PATH")
	if len(req.Users) > 0 {
		args = append(args, "--htpasswd", writeUsers(t, dir, req))
		path = dir + string(os.PathListSeparator) + path
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "PATH="+path)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		err := cmd.Wait() // it dies of the signal, or of a recorded crash
		if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		text, err := os.ReadFile(log.Name())
		if err := errors.Join(err, log.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", binary, text)
		}
	})
	waitFor(t, target)
	return target
}

// writeUsers writes the password file and the htpasswd command by which the
// reference reads it; only its use `htpasswd -v -b FILE USER PASSWORD` is.
func writeUsers(t testing.TB, dir string, req Requirements) string {
	t.Helper()
	file := filepath.Join(dir, "users")
	var script strings.Builder
	script.WriteString("#!/bin/sh\ncase \"$4 $5\" in\n")
	for user, password := range req.Users {
		fmt.Fprintf(&script, "%q) exit 0;;\n", user+" "+password)
	}
	script.WriteString("esac\nexit 3\n")
	for name, text := range map[string]string{file: req.HTPasswd(), filepath.Join(dir, "htpasswd"): script.String()} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// waitFor waits until the daemon accepts connections.
func waitFor(t testing.TB, target Target) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := errors.Join(knock("unix", target.Socket), knock("tcp", target.RPC))
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func knock(network, address string) error {
	c, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	return c.Close()
}
