//go:build linux

package recovery

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

// TestSecondDaemon starts a daemon on a socket that another one serves: it is
// refused and harms nothing, whatever its flags.
func TestSecondDaemon(t *testing.T) {
	homes(t, func(t *testing.T, args []string) {
		h := newHost(t, append([]string{"--size", "32MiB"}, args...)...)
		first := h.start()
		m := populate(t, h, 100)
		old := h.dial(t)
		for _, flags := range [][]string{nil, {"--fresh"}, {"--memory", "anonymous"}, {"--size", "64MiB", "--huge", "never"}} {
			second := h.spawn(flags...)
			if code := second.wait(); code != 7 {
				t.Errorf("serve %v on a live socket exits with %d, want 7:\n%s", flags, code, second.log)
			}
			if text := second.log.String(); !strings.Contains(text, h.socket) || !strings.Contains(text, "hint:") {
				t.Errorf("serve %v on a live socket says:\n%s", flags, text)
			}
		}
		h.cur = first
		if _, err := old.InstanceStatus(ctx); err != nil {
			t.Errorf("an old connection: %v", err)
		}
		old.Close()
		served(t, h, m)
		first.kill()
		h.start()
		served(t, h, m)
	})
}

// TestSecondDaemonOnBusySocket: a daemon that does not get to accepting is
// alive all the same.
func TestSecondDaemonOnBusySocket(t *testing.T) {
	h := newHost(t, "--size", "32MiB")
	first := h.start()
	m := populate(t, h, 100)
	first.signal(syscall.SIGSTOP)
	// Connections wait in the kernel until its queue is full.
	var waiting []net.Conn
	defer func() {
		for _, c := range waiting {
			c.Close()
		}
	}()
	full := false
	for range 10_000 {
		var d net.Dialer
		c, cancel := context.WithTimeout(ctx, time.Second)
		nc, err := d.DialContext(c, "unix", h.socket)
		cancel()
		if err != nil {
			full = true
			break
		}
		waiting = append(waiting, nc)
	}
	if !full {
		t.Skipf("the queue of the socket takes more than %d connections", len(waiting))
	}
	second := h.spawn()
	code := second.wait()
	h.cur = first
	first.signal(syscall.SIGCONT)
	if code != 7 {
		t.Errorf("exit code %d, want 7:\n%s", code, second.log)
	}
	for _, c := range waiting {
		c.Close()
	}
	waiting = nil
	if err := eventually(func() error {
		c, err := client.Dial(ctx, client.Options{Socket: h.socket})
		if err == nil {
			c.Close()
		}
		return err
	}); err != nil {
		t.Fatalf("the first daemon cannot be reached any more: %v", err)
	}
	served(t, h, m)
}

// TestStartsAtOnce starts several daemons at the same moment after a crash: one
// gets the socket and the pool, the others are refused.
func TestStartsAtOnce(t *testing.T) {
	h := newHost(t, "--size", "32MiB")
	d := h.start()
	m := populate(t, h, 100)
	for round := range 8 {
		d.kill()
		all := make([]*daemon, 4)
		var wg sync.WaitGroup
		for i := range all {
			all[i] = h.spawn()
			wg.Go(func() {
				select {
				case <-all[i].done:
				case <-time.After(patience):
				case <-ready(all[i]):
				}
			})
		}
		wg.Wait()
		var alive []*daemon
		for _, d := range all {
			if d.running() {
				alive = append(alive, d)
			} else if code := d.cmd.ProcessState.ExitCode(); code != 7 {
				t.Errorf("round %d: a daemon that came too late exits with %d:\n%s", round, code, d.log)
			}
		}
		if len(alive) != 1 {
			for _, d := range all {
				t.Logf("%v\n%s%s", d.cmd.ProcessState, d.out, d.log)
			}
			for _, d := range alive {
				d.kill()
			}
			t.Fatalf("round %d: %d daemons run", round, len(alive))
		}
		d = alive[0]
		h.cur = d
		served(t, h, m)
	}
}

// ready is closed when a daemon has said that it is.
func ready(d *daemon) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		_ = eventually(func() error {
			if d.running() && !strings.Contains(d.out.String(), "to stop") {
				return errors.New("not yet")
			}
			return nil
		})
	}()
	return c
}

// TestStaleSocket: a socket on which nobody listens is replaced, anything else
// at its path is left alone.
func TestStaleSocket(t *testing.T) {
	h := newHost(t, "--size", "32MiB")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	d := h.start()
	h.status(t)
	d.stop()
	nothingLeft(t, h)
	if err := os.WriteFile(h.socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = h.spawn("--fresh")
	if code := d.wait(); code != 7 {
		t.Errorf("a file in the place of the socket: exit code %d\n%s", code, d.log)
	}
	if b, err := os.ReadFile(h.socket); err != nil || string(b) != "precious" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

// TestPoolInUse: the pool of a live daemon is refused even to one that found no
// socket in its way, because somebody removed it.
func TestPoolInUse(t *testing.T) {
	homes(t, func(t *testing.T, args []string) {
		h := newHost(t, append([]string{"--size", "32MiB"}, args...)...)
		first := h.start()
		m := populate(t, h, 50)
		c := h.dial(t)
		if err := os.Remove(h.socket); err != nil {
			t.Fatal(err)
		}
		for _, flags := range [][]string{nil, {"--fresh"}} {
			second := h.spawn(flags...)
			if code := second.wait(); code != 7 {
				t.Errorf("serve %v on the pool of a running daemon exits with %d:\n%s", flags, code, second.log)
			}
		}
		h.cur = first
		if _, err := c.InstanceStatus(ctx); err != nil {
			t.Errorf("an old connection: %v", err)
		}
		c.Close()
		first.kill()
		h.start()
		served(t, h, m)
	})
}
