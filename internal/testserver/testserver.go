// Package testserver runs a real daemon on a temporary socket for tests, and
// checks when the test ends that it leaked nothing: no descriptor, no
// goroutine, no file, no mount, and a ledger that balances.
package testserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/server"
)

// Daemon is a running daemon.
type Daemon struct {
	Socket string
	RPC    string // host:port
	Server *server.Server

	stop func() error
	log  *Output
}

// Start runs a daemon until the test ends. change, if not nil, alters its
// configuration: by default a 64 MiB pool, remote access on a free port.
func Start(t testing.TB, change func(*config.Serve)) *Daemon {
	t.Helper()
	cfg := config.Default()
	cfg.Socket = filepath.Join(ShortTempDir(t), "v6d.sock")
	cfg.RPCListen = "127.0.0.1:0"
	cfg.Size = "64MiB"
	cfg.Huge = "never"
	cfg.LogLevel = "debug"
	if change != nil {
		change(&cfg)
	}
	d := &Daemon{Socket: cfg.Socket, log: &Output{}}
	before := openFiles()
	goroutines := runtime.NumGoroutine()
	srv, err := server.New(context.Background(), server.Options{
		Config: cfg, Version: "test", Log: slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatalf("start the daemon: %v", err)
	}
	d.Server = srv
	d.RPC = srv.Report().RPC
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- srv.Run(ctx, func() { close(ready) }) }()
	<-ready
	d.stop = sync.OnceValue(func() error {
		ledger := srv.CheckLedger()
		if ledger != nil {
			ledger = fmt.Errorf("ledger: %w", ledger)
		}
		cancel()
		select {
		case err := <-done:
			return errors.Join(ledger, err)
		case <-time.After(20 * time.Second):
			return fmt.Errorf("the daemon does not stop:\n%s", stacks())
		}
	})
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Errorf("stop the daemon: %v", err)
		}
		if t.Failed() {
			t.Logf("daemon log:\n%s", d.log)
			return
		}
		place := srv.Report().Place
		if _, err := os.Stat(place.Path); place.Path != "" && err == nil && !cfg.Keep {
			t.Errorf("the pool is still at %s", place.Path)
		}
		if _, err := os.Stat(cfg.Socket); err == nil {
			t.Errorf("the socket is still at %s", cfg.Socket)
		}
		checkLeaks(t, before, goroutines)
	})
	return d
}

// Stop ends the daemon as SIGTERM does. It may be called before the test ends.
func (d *Daemon) Stop() error { return d.stop() }

// Log returns what the daemon logged so far.
func (d *Daemon) Log() string { return d.log.String() }

// ShortTempDir is t.TempDir for sockets, whose paths must be short.
func ShortTempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "v6d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return dir
}

// RemoveAll removes a folder, and the pools that killed daemons left mounted in it.
func RemoveAll(dir string) error {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil { // not here
		return os.RemoveAll(dir)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			if out, err := exec.Command("umount", "--lazy", f[1]).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
		}
	}
	return os.RemoveAll(dir)
}

// WaitFor polls until cond holds, for at most two seconds.
func WaitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited two seconds for %s", what)
		}
	}
}

// FreePort returns a TCP port that was free a moment ago.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// openFiles lists the process's descriptors that a daemon could leak.
func openFiles() map[string]string {
	out := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return out
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (strings.HasPrefix(target, "socket:") || strings.Contains(target, "v6d")) {
			out[e.Name()] = target
		}
	}
	return out
}

// checkLeaks compares descriptors and goroutines with those before the daemon
// started. Tests that run in parallel share the process, so only a lasting
// surplus counts.
func checkLeaks(t testing.TB, before map[string]string, goroutines int) {
	t.Helper()
	var leaked []string
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		leaked = leaked[:0]
		for fd, target := range openFiles() {
			if before[fd] != target {
				leaked = append(leaked, fd+" -> "+target)
			}
		}
		if len(leaked) == 0 && runtime.NumGoroutine() <= goroutines {
			return
		}
	}
	t.Errorf("leaked descriptors: %v; goroutines: %d before, %d after\n%s", leaked, goroutines, runtime.NumGoroutine(), stacks())
}

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}
