//go:build linux

package recovery

import (
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

	"github.com/v6d-go/v6d/client"
)

// manager is the end of NOTIFY_SOCKET that a service manager holds.
type manager struct {
	conn *net.UnixConn
	addr string
}

func newManager(t testing.TB, name string) *manager {
	t.Helper()
	bind := name
	if strings.HasPrefix(name, "@") {
		bind = "\x00" + name[1:]
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: bind, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &manager{c, name}
}

// expect waits for a state; others may come before it.
func (m *manager) expect(t testing.TB, state string) {
	t.Helper()
	b := make([]byte, 4096)
	if err := m.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := m.conn.Read(b)
		if err != nil {
			t.Fatalf("no %s: %v", state, err)
		}
		for line := range strings.Lines(string(b[:n])) {
			if strings.TrimSpace(line) == state {
				return
			}
		}
	}
}

// silent checks that nothing has been told yet.
func (m *manager) silent(t testing.TB) {
	t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := m.conn.Read(make([]byte, 4096)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes came too early (%v)", n, err)
	}
}

// TestNotify checks READY=1 when clients can connect, not before, and
// STOPPING=1, on a socket with a path and on an abstract one.
func TestNotify(t *testing.T) {
	for _, abstract := range []bool{false, true} {
		t.Run(fmt.Sprintf("abstract %v", abstract), func(t *testing.T) {
			h := newHost(t, "--size", "32MiB")
			name := filepath.Join(filepath.Dir(h.socket), "notify")
			if abstract {
				name = "@v6d-test-" + filepath.Base(filepath.Dir(h.socket))
			}
			m := newManager(t, name)
			cmd := exec.Command(v6d, append([]string{"serve", "--socket", h.socket, "--rpc-listen", "off"}, h.args...)...)
			cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+name)
			d := h.launch(cmd)
			m.expect(t, "READY=1")
			h.status(t) // at once, without waiting for anything
			m.silent(t)
			d.signal(syscall.SIGTERM)
			m.expect(t, "STOPPING=1")
			if code := d.wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
	t.Run("manager gone", func(t *testing.T) {
		h := newHost(t, "--size", "32MiB")
		cmd := exec.Command(v6d, "serve", "--socket", h.socket, "--rpc-listen", "off", "--size", "32MiB")
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+h.socket+".nobody")
		d := h.launch(cmd)
		if err := h.answers(d); err != nil {
			t.Fatal(err)
		}
		d.stop()
	})
}

// activate starts a daemon that inherits a listening socket as descriptor 3.
// The launcher is a shell, which knows its process id before it becomes the
// daemon.
func (h *host) activate(l *net.UnixListener, args ...string) *daemon {
	h.t.Helper()
	f, err := l.File()
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	line := `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", line, v6d, "serve", "--rpc-listen", "off", "--size", "32MiB"}, args...)...)
	cmd.ExtraFiles = []*os.File{f}
	return h.launch(cmd)
}

// TestSocketActivation takes a listening socket over, serves whoever connected
// before the daemon was there, and leaves the socket to its owner.
func TestSocketActivation(t *testing.T) {
	h := newHost(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.socket})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	early := make(chan error, 1)
	go func() {
		c, err := client.Dial(ctx, client.Options{Socket: h.socket})
		if err == nil {
			_, err = c.PutBlob(ctx, []byte("before there was a daemon"))
			c.Close()
		}
		early <- err
	}()
	// The flag must not win over the inherited socket, nor make another one.
	d := h.activate(l, "--socket", h.socket+".other")
	if err := <-early; err != nil {
		t.Fatalf("a client that came before the daemon: %v\n%s", err, d.log)
	}
	if err := h.answers(d); err != nil {
		t.Fatal(err)
	}
	m := populate(t, h, 100)
	if _, err := os.Stat(h.socket + ".other"); err == nil {
		t.Error("the daemon made a socket of its own")
	}
	if st := h.status(t); st.Start.Socket != h.socket {
		t.Errorf("status says the socket is %s", st.Start.Socket)
	}
	// Clients that connect between two daemons wait in the socket.
	d.kill()
	between := make(chan error, 1)
	go func() {
		c, err := client.Dial(ctx, client.Options{Socket: h.socket})
		if err == nil {
			defer c.Close()
			_, err = c.InstanceStatus(ctx)
		}
		between <- err
	}()
	time.Sleep(20 * time.Millisecond)
	d = h.activate(l)
	if err := <-between; err != nil {
		t.Errorf("a client that came between two daemons: %v\n%s", err, d.log)
	}
	if err := h.answers(d); err != nil {
		t.Fatal(err)
	}
	f, err := gather(h.socket)
	if err != nil {
		t.Fatal(err)
	}
	for id, b := range m.places[0].blobs {
		if f.places[0].sums[id] != b.sum {
			t.Errorf("blob %s is lost or changed", id)
		}
	}
	d.stop()
	if _, err := os.Stat(h.socket); err != nil {
		t.Errorf("the daemon removed a socket that is not its own: %v", err)
	}
	if n := mounts(h.mountDir()); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
}

// TestForeignListenVariables: variables that are meant for another process, or
// are nonsense, are no reason to touch descriptor 3.
func TestForeignListenVariables(t *testing.T) {
	for _, c := range []struct {
		env  []string
		code int // of a start that is refused, -1 for none
	}{
		{[]string{"LISTEN_PID=1", "LISTEN_FDS=1"}, -1},
		{[]string{"LISTEN_FDS=1"}, -1},
	} {
		h := newHost(t)
		cmd := exec.Command(v6d, "serve", "--socket", h.socket, "--rpc-listen", "off", "--size", "32MiB")
		cmd.Env = append(os.Environ(), c.env...)
		d := h.launch(cmd)
		if err := h.answers(d); err != nil {
			t.Errorf("%v: %v\n%s", c.env, err, d.log)
			continue
		}
		d.stop()
	}
	// No UNIX socket: a usage error, not a crash.
	h := newHost(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve --size 32MiB`, v6d)
	cmd.ExtraFiles = []*os.File{null}
	d := h.launch(cmd)
	if code := d.wait(); code == 0 || strings.Contains(d.log.String(), "panic") {
		t.Errorf("an inherited descriptor that is no socket: exit code %d\n%s", code, d.log)
	}
}
