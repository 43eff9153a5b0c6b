package testserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/sys"
)

// Net is a network of hosts that exists for one test. Each host is a network
// namespace with an address of its own; a bridge in one further namespace
// connects them. Nothing is added to the machine's own network, which also has
// no route to the hosts: what runs there reaches them by Host.Dial, by a Proxy
// that dials so, or by a process on the hub.
type Net struct {
	Hub   *Host // no part of the cluster: etcd can run there
	Hosts []*Host
}

// Host is a network namespace that plays a machine. It shares everything but
// the network with the real one: files, processes, users.
type Host struct {
	Name string // of the namespace
	Addr string // IPv4

	t    testing.TB
	sw   string // namespace of the bridge
	port string // our link's other end there
}

// netnsDir is where the ip command keeps the namespaces it names.
const netnsDir = "/run/netns"

var nets atomic.Int32 // made so far by this process

// Hosts connects n hosts and a hub until the test ends, or skips the test. What
// then still runs on them is killed.
func Hosts(t testing.TB, n int) *Net {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%v: what needs several hosts is not tested; apt-get install iproute2 util-linux", err)
		}
	}
	removeStale()
	prefix := fmt.Sprintf("v6d%d-%d", os.Getpid(), nets.Add(1))
	sw := prefix + "-switch"
	if err := addNetns(t, sw); err != nil {
		t.Skipf("cannot make network namespaces here: %v", err)
	}
	if err := ip("-n", sw, "link", "add", "br0", "up", "type", "bridge"); err != nil {
		t.Skipf("cannot make a bridge here: %v", err)
	}
	all := make([]*Host, n+1)
	for i := range all {
		h := &Host{Name: fmt.Sprintf("%s-%d", prefix, i), Addr: fmt.Sprintf("10.86.0.%d", i), t: t, sw: sw, port: fmt.Sprintf("p%d", i)}
		if i == 0 {
			h.Addr = "10.86.0.254"
		}
		if err := h.plugIn(); err != nil {
			t.Fatalf("make host %d: %v", i, err)
		}
		all[i] = h
	}
	return &Net{Hub: all[0], Hosts: all[1:]}
}

// plugIn makes the namespace, and the cable from it to the bridge.
func (h *Host) plugIn() error {
	if err := addNetns(h.t, h.Name); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"-n", h.sw, "link", "add", h.port, "type", "veth", "peer", "name", "eth0", "netns", h.Name},
		{"-n", h.sw, "link", "set", h.port, "master", "br0", "up"},
		{"-n", h.Name, "link", "set", "lo", "up"},
		{"-n", h.Name, "address", "add", h.Addr + "/24", "dev", "eth0"},
		{"-n", h.Name, "link", "set", "eth0", "up"},
	} {
		if err := ip(args...); err != nil {
			return err
		}
	}
	return nil
}

// Cut unplugs the host at the bridge. It notices nothing but silence, as when a
// switch fails: its links stay up, and it still reaches itself by either of its
// addresses. Connections survive if Heal comes soon.
func (h *Host) Cut() {
	h.t.Helper()
	if err := ip("-n", h.sw, "link", "set", h.port, "nomaster"); err != nil {
		h.t.Fatalf("cut %s: %v", h.Name, err)
	}
}

// Heal undoes Cut. The kernel repeats what was lost at ever longer intervals:
// an old connection comes back after up to twice the time it was cut.
func (h *Host) Heal() {
	h.t.Helper()
	if err := ip("-n", h.sw, "link", "set", h.port, "master", "br0"); err != nil {
		h.t.Fatalf("heal %s: %v", h.Name, err)
	}
}

// Command is a command that runs on the host. Its process ID is the program's
// own, so signals reach that; StartProcess may start it. Unlike `ip netns exec`
// it leaves mounts alone: those that the program makes are seen outside.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + h.path(), "--", name}, args...)...)
}

// Do calls f on a thread that is in the host's network: see sys.InNetns.
func (h *Host) Do(f func() error) error { return sys.InNetns(h.path(), f) }

// Dial connects from the host to a numeric address.
func (h *Host) Dial(network, addr string) (net.Conn, error) {
	return h.DialContext(context.Background(), network, addr)
}

// DialContext is Dial for transports that want a context.
func (h *Host) DialContext(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	if ap, _, err := net.SplitHostPort(addr); err != nil || net.ParseIP(ap) == nil {
		return nil, fmt.Errorf("dial %s from %s: the address is not numeric", addr, h.Name)
	}
	err = h.Do(func() error {
		var d net.Dialer
		var err error
		conn, err = d.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Listen listens on the host, at a numeric address.
func (h *Host) Listen(network, addr string) (l net.Listener, err error) {
	err = h.Do(func() error {
		var err error
		l, err = net.Listen(network, addr)
		return err
	})
	return l, err
}

func (h *Host) path() string { return filepath.Join(netnsDir, h.Name) }

// addNetns makes a namespace that is there until the test ends.
func addNetns(t testing.TB, name string) error {
	if err := ip("netns", "add", name); err != nil {
		return err
	}
	t.Cleanup(func() {
		if err := errors.Join(killAll(name), ip("netns", "del", name)); err != nil {
			t.Errorf("remove network namespace %s: %v", name, err)
		}
	})
	return nil
}

// killAll ends the processes in a namespace.
func killAll(name string) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		out, err := exec.Command("ip", "netns", "pids", name).Output()
		if err != nil {
			return fmt.Errorf("ip netns pids: %w", err)
		}
		var left []int
		for _, f := range strings.Fields(string(out)) {
			// A thread of ours may be there, in InNetns.
			if pid, err := strconv.Atoi(f); err == nil && pid != os.Getpid() {
				left = append(left, pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v cannot be killed", left)
		}
	}
}

var ourNetns = regexp.MustCompile(`^v6d([0-9]+)-[0-9]+-(switch|[0-9]+)$`)

// removeStale removes the namespaces of test processes that were killed before
// they could do so. Of several that try at once one succeeds.
func removeStale() {
	entries, _ := os.ReadDir(netnsDir) // none if there never was one
	for _, e := range entries {
		if m := ourNetns.FindStringSubmatch(e.Name()); m != nil {
			pid, _ := strconv.Atoi(m[1])
			if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				_ = ip("netns", "del", e.Name())
			}
		}
	}
}

// ip runs the ip command.
func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
