package testserver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestHosts(t *testing.T) {
	before := interfaces(t)
	n := Hosts(t, 2)
	a, b := n.Hosts[0], n.Hosts[1]
	if after := interfaces(t); !slices.Equal(before, after) {
		t.Errorf("the machine's interfaces were %v, are %v", before, after)
	}
	onA, onB, onHub := echo(t, a.Listen, a.Addr), echo(t, b.Listen, b.Addr), echo(t, n.Hub.Listen, n.Hub.Addr)
	old := dial(t, a, onB)
	ping(t, old)
	ping(t, dial(t, b, onHub))
	ping(t, dial(t, n.Hub, onA))

	b.Cut()
	ping(t, dial(t, a, onHub))
	ping(t, dial(t, b, onB)) // itself
	ping(t, dial(t, b, echo(t, b.Listen, "127.0.0.1")))
	if err := silent(old); err != nil {
		t.Errorf("an old connection to a host that is cut: %v", err)
	}
	for _, way := range []struct {
		from *Host
		to   string
	}{{a, onB}, {b, onA}, {b, onHub}} {
		if conn, err := dialFor(way.from, way.to, 200*time.Millisecond); err == nil {
			conn.Close()
			t.Errorf("%s reaches %s in spite of the cut", way.from.Name, way.to)
		}
	}

	b.Heal()
	ping(t, dial(t, a, onB))
	ping(t, dial(t, b, onA))
	want := "lost" // silent sent it
	got := make([]byte, len(want))
	_ = old.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(old, got); err != nil || string(got) != want {
		t.Errorf("an old connection after the cut: %q, %v", got, err)
	}
	if _, err := a.Dial("tcp", "localhost:1"); err == nil || !strings.Contains(err.Error(), "not numeric") {
		t.Errorf("dial a name: %v", err)
	}
}

func TestHostCommand(t *testing.T) {
	h := Hosts(t, 1).Hosts[0]
	out, err := h.Command(t.Context(), "ip", "-o", "-4", "address").CombinedOutput()
	if err != nil || !strings.Contains(string(out), h.Addr+"/24") {
		t.Errorf("ip address: %v\n%s", err, out)
	}
	cmd := h.Command(t.Context(), "sh", "-c", "echo $$; kill -TERM $$")
	out, err = cmd.Output()
	if want := fmt.Sprintln(cmd.Process.Pid); string(out) != want {
		t.Errorf("the program is process %s, the command says %s", out, want)
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); err == nil || !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("the program ended with %v, want its signal", err)
	}
}

// A thread that was on a host is back when f returns, whichever way.
func TestHostDo(t *testing.T) {
	h := Hosts(t, 1).Hosts[0]
	here, there := netnsOf(t), ""
	wrong := errors.New("wrong")
	if err := h.Do(func() error { there = netnsOf(t); return wrong }); !errors.Is(err, wrong) {
		t.Errorf("Do returns %v", err)
	}
	if there == here {
		t.Errorf("Do calls its function in the network it was called in")
	}
	func() {
		defer func() { _ = recover() }()
		_ = h.Do(func() error { panic(wrong) })
	}()
	for range 100 {
		if now := netnsOf(t); now != here {
			t.Fatalf("after Do the network is %s, was %s", now, here)
		}
	}
}

func TestHostsEnd(t *testing.T) {
	var names []string
	pid := 0
	t.Run("test", func(t *testing.T) {
		n := Hosts(t, 2)
		names = []string{n.Hub.Name, n.Hosts[0].Name, n.Hosts[1].Name, n.Hub.sw}
		for _, name := range names {
			if !exists(name) {
				t.Errorf("there is no network namespace %s", name)
			}
		}
		cmd := n.Hosts[1].Command(t.Context(), "sh", "-c", "trap '' TERM; echo; while :; do sleep 100; done")
		cmd.Cancel = func() error { return os.ErrProcessDone } // t's context ends before Cleanup
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := StartProcess(cmd); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it is there now
			t.Fatal(err)
		}
		pid = cmd.Process.Pid
		t.Cleanup(func() { go func() { _ = cmd.Wait() }() })
	})
	if alive(pid) {
		t.Errorf("process %d is there after the test", pid)
	}
	for _, name := range names {
		if exists(name) {
			t.Errorf("network namespace %s is there after the test", name)
		}
	}
}

// exists tells whether there is a network namespace of a name.
func exists(name string) bool {
	_, err := os.Lstat(filepath.Join(netnsDir, name))
	return err == nil
}

func netnsOf(t *testing.T) string {
	t.Helper()
	s, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return s
}

func interfaces(t *testing.T) (names []string) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names
}

// echo runs a server that sends everything back until the test ends.
func echo(t *testing.T, listen func(network, addr string) (net.Listener, error), host string) string {
	t.Helper()
	l, err := listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // until the client has enough
			}()
		}
	}()
	return l.Addr().String()
}

func dialFor(h *Host, addr string, limit time.Duration) (conn net.Conn, err error) {
	err = h.Do(func() error {
		conn, err = net.DialTimeout("tcp", addr, limit)
		return err
	})
	return conn, err
}

func dial(t *testing.T, h *Host, addr string) net.Conn {
	t.Helper()
	conn, err := dialFor(h, addr, 5*time.Second)
	if err != nil {
		t.Fatalf("%s to %s: %v", h.Name, addr, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ping sends something and awaits it back.
func ping(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	got := make([]byte, 4)
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ping" {
		t.Fatalf("ping: %q, %v", got, err)
	}
}

// silent sends something, and tells what is wrong unless nothing comes back.
func silent(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := conn.Write([]byte("lost")); err != nil {
		return err
	}
	n, err := conn.Read(make([]byte, 4))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%d bytes came back", n)
}
