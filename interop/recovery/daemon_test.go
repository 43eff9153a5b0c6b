//go:build linux

package recovery

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/testserver"
)

// host is a socket on which one daemon after the other runs. Cleanup kills what
// still runs and removes whatever a daemon can leave: mounts, files, sockets.
type host struct {
	t      testing.TB
	socket string
	args   []string // flags of every start

	mu  sync.Mutex
	cur *daemon // guarded by mu
}

// daemon is one daemon process.
type daemon struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  *testserver.Output // standard output: the banner
	log  *testserver.Output // standard error
	done chan struct{}
}

func newHost(t testing.TB, args ...string) *host {
	t.Helper()
	h := &host{t: t, socket: filepath.Join(tempDir(t), "d.sock"), args: args}
	t.Cleanup(h.cleanup)
	return h
}

// pool paths that a daemon on this socket may use.
func (h *host) mountDir() string { return h.socket + ".pool" }

func (h *host) shmDir() string {
	sum := sha256.Sum256([]byte(h.socket))
	return "/dev/shm/v6d-" + hex.EncodeToString(sum[:8])
}

func (h *host) cleanup() {
	h.mu.Lock()
	d := h.cur
	h.mu.Unlock()
	if d != nil && d.running() {
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	if h.t.Failed() && d != nil {
		h.t.Logf("log of the last daemon:\n%s%s", d.out, d.log.Tail(60))
	}
	for mounts(h.mountDir()) > 0 {
		if err := syscall.Unmount(h.mountDir(), syscall.MNT_DETACH); err != nil {
			h.t.Errorf("unmount: %v", err)
			break
		}
	}
	if err := os.RemoveAll(h.shmDir()); err != nil {
		h.t.Errorf("clean /dev/shm: %v", err)
	}
}

// spawn starts a daemon without waiting for it. The flags follow those of the
// host and override them.
func (h *host) spawn(args ...string) *daemon {
	h.t.Helper()
	all := append([]string{"serve", "--socket", h.socket, "--rpc-listen", "off"}, append(append([]string{}, h.args...), args...)...)
	return h.launch(exec.Command(v6d, all...))
}

func (h *host) launch(cmd *exec.Cmd) *daemon {
	h.t.Helper()
	d := &daemon{t: h.t, cmd: cmd, out: &testserver.Output{}, log: &testserver.Output{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = d.out, d.log
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	// A test that dies takes its daemon along.
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := testserver.StartProcess(cmd); err != nil {
		h.t.Fatalf("start the daemon: %v", err)
	}
	go func() {
		_ = cmd.Wait()
		close(d.done)
	}()
	h.mu.Lock()
	h.cur = d
	h.mu.Unlock()
	return d
}

// start starts a daemon and waits until it answers.
func (h *host) start(args ...string) *daemon {
	h.t.Helper()
	d := h.spawn(args...)
	if err := h.answers(d); err != nil {
		h.t.Fatalf("%v\n%s%s", err, d.out, d.log.Tail(40))
	}
	return d
}

// answers waits until a daemon says that it is ready. The banner comes after
// its listeners.
func (h *host) answers(d *daemon) error {
	ended := false
	err := eventually(func() error {
		if ended = !d.running(); ended || strings.Contains(d.out.String(), "to stop") {
			return nil
		}
		return errors.New("the daemon does not get ready")
	})
	if ended {
		err = fmt.Errorf("the daemon ended at once: %v", d.cmd.ProcessState)
	}
	return err
}

func (d *daemon) running() bool {
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// kill ends the daemon as a crash does.
func (d *daemon) kill() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		d.t.Fatalf("kill -9: %v\n%s", err, d.log.Tail(40))
	}
	<-d.done
}

func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatalf("send %v: %v\n%s", s, err, d.log.Tail(40))
	}
}

// wait returns the exit code of a daemon that is about to end.
func (d *daemon) wait() int {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(patience):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT)
		<-d.done
		d.t.Fatalf("the daemon did not stop:\n%s", d.log.Tail(200))
	}
	return d.cmd.ProcessState.ExitCode()
}

// stop ends the daemon as a service manager does, and wants exit code 0.
func (d *daemon) stop() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	if code := d.wait(); code != 0 {
		d.t.Errorf("serve exits with %d after SIGTERM:\n%s", code, d.log.Tail(40))
	}
}

// dial connects to the daemon's root session.
func (h *host) dial(t testing.TB) *client.Client { return dialSocket(t, h.socket) }

func dialSocket(t testing.TB, socket string) *client.Client {
	t.Helper()
	c, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// status asks the daemon for its status.
func (h *host) status(t testing.TB) server.Status {
	t.Helper()
	c, err := client.Dial(ctx, client.Options{Socket: h.socket})
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer c.Close()
	return statusOf(t, c)
}

func statusOf(t testing.TB, c *client.Client) server.Status {
	t.Helper()
	raw, err := c.NodeStatus(ctx)
	if err != nil {
		t.Fatalf("status: %v", err)
	}
	var st server.Status
	if err := json.Unmarshal(raw, &st); err != nil {
		t.Fatalf("status: %v\n%s", err, raw)
	}
	return st
}

// poolFiles lists what lies beside the journal in a daemon's folder.
func poolFiles(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatalf("list the pool: %v", err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "journal" {
			names = append(names, e.Name())
		}
	}
	return names
}

// mounts counts the file systems that are mounted on a folder.
func mounts(dir string) int {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == dir {
			n++
		}
	}
	return n
}

// canMount tells whether daemons of this user get a mount of their own.
func canMount() bool { return os.Geteuid() == 0 }
