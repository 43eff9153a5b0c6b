//go:build linux

package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/testserver"
)

// rpcPort is the same on all hosts: each has all of its ports to itself.
const rpcPort = 9600

// node is a daemon on a host: one process after the other on the same socket,
// with the same flags. Its methods that return errors may be called by any
// goroutine.
type node struct {
	t      testing.TB
	host   *testserver.Host
	name   string
	socket string
	args   []string // of every start; the later ones override

	cmd  *exec.Cmd
	out  *testserver.Output // standard output of the process: the banner
	log  *testserver.Output // standard error of all of them
	done chan struct{}
	// expect are errors that it may log.
	expect []string
}

// newNode returns a node that does not run yet, and has neither metadata nor
// remote access.
func newNode(t testing.TB, host *testserver.Host, args ...string) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "v6d-cl") // short: sockets lie there
	must(t, err)
	n := &node{
		t: t, host: host, name: "host " + host.Addr, socket: filepath.Join(dir, "d.sock"), log: &testserver.Output{},
		args: append([]string{"--size", "64MiB", "--huge", "never", "--log-level", "debug", "--rpc-listen", "off"}, args...),
	}
	t.Cleanup(func() {
		n.cleanup()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the work folder: %v", err)
		}
	})
	return n
}

// remote are the flags for remote access.
func remote(h *testserver.Host) []string {
	addr := fmt.Sprintf("%s:%d", h.Addr, rpcPort)
	return []string{"--rpc-listen", addr, "--rpc-advertise", addr}
}

// launch starts the daemon without waiting for it. The flags follow those of the
// node.
func (n *node) launch(args ...string) {
	n.t.Helper()
	all := slices.Concat([]string{"serve", "--socket", n.socket}, n.args, args)
	cmd := n.host.Command(context.Background(), v6d, all...)
	n.cmd, n.out, n.done = cmd, &testserver.Output{}, make(chan struct{})
	fmt.Fprintf(n.log, "--- start at %s\n", time.Now().Format("15:04:05.000"))
	cmd.Stdout, cmd.Stderr = n.out, n.log
	if err := testserver.StartProcess(cmd); err != nil {
		n.t.Fatalf("start %s: %v", n.name, err)
	}
	done := n.done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
}

// start starts the daemon, and waits until it is part of its cluster.
func (n *node) start(args ...string) {
	n.t.Helper()
	n.launch(args...)
	n.ready(patience)
}

// ready waits until the daemon serves. The banner comes after the listeners.
func (n *node) ready(limit time.Duration) {
	n.t.Helper()
	if err := n.answers(limit); err != nil {
		n.t.Fatalf("%s: %v\n%s%s", n.name, err, n.out, n.log.Tail(30))
	}
}

func (n *node) answers(limit time.Duration) error {
	ended := false
	err := within(limit, func() error {
		if ended = !n.running(); ended || strings.Contains(n.out.String(), "to stop") {
			return nil
		}
		return errors.New("the daemon does not get ready")
	})
	if ended {
		err = fmt.Errorf("the daemon ended at once: %v", n.cmd.ProcessState)
	}
	return err
}

func (n *node) running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// kill ends the daemon as a crash does.
func (n *node) kill() {
	n.t.Helper()
	if err := n.cmd.Process.Kill(); err != nil {
		n.t.Fatalf("kill -9 %s: %v\n%s", n.name, err, n.log.Tail(30))
	}
	<-n.done
}

// stop ends the daemon as a service manager does. It must end well.
func (n *node) stop() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatalf("%s is gone: %v\n%s", n.name, err, n.log.Tail(30))
	}
	select {
	case <-n.done:
	case <-time.After(patience):
		_ = n.cmd.Process.Signal(syscall.SIGQUIT)
		<-n.done
		n.t.Fatalf("%s did not stop:\n%s", n.name, n.log)
	}
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		n.t.Errorf("%s exits with %d after SIGTERM:\n%s", n.name, code, n.log.Tail(30))
	}
}

func (n *node) cleanup() {
	if n.running() {
		_ = n.cmd.Process.Kill()
		<-n.done
	}
	n.complaints()
	if n.t.Failed() {
		n.t.Logf("the end of the log of %s:\n%s", n.name, n.log.Tail(60))
	}
	for mounted(n.mount()) {
		if err := syscall.Unmount(n.mount(), syscall.MNT_DETACH); err != nil {
			n.t.Errorf("unmount: %v", err)
			break
		}
	}
	if err := os.RemoveAll(n.shm()); err != nil {
		n.t.Errorf("clean /dev/shm: %v", err)
	}
}

// complaints fails the test for errors and worse in the log.
func (n *node) complaints() {
	for line := range strings.Lines(n.log.String()) {
		told := slices.ContainsFunc(n.expect, func(e string) bool { return strings.Contains(line, e) })
		for _, bad := range []string{"level=ERROR", "panic:", "fatal error:", "DATA RACE"} {
			if strings.Contains(line, bad) && !told {
				n.t.Errorf("%s logged: %s", n.name, line)
			}
		}
	}
}

// mount and shm are where the daemon's pool may lie.
func (n *node) mount() string { return n.socket + ".pool" }

func (n *node) shm() string {
	sum := sha256.Sum256([]byte(n.socket))
	return "/dev/shm/v6d-" + hex.EncodeToString(sum[:8])
}

func mounted(dir string) bool {
	b, err := os.ReadFile("/proc/self/mountinfo")
	return err == nil && bytes.Contains(b, []byte(" "+dir+" "))
}

// dial connects a client by the socket until the test ends.
func (n *node) dial() *client.Client {
	n.t.Helper()
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := client.Dial(limited, client.Options{Socket: n.socket})
	if err != nil {
		n.t.Fatalf("dial %s: %v\n%s", n.name, err, n.log.Tail(30))
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}

// do calls f with a client of its own, by the socket.
func (n *node) do(f func(context.Context, *client.Client) error) error {
	limited, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	c, err := client.Dial(limited, client.Options{Socket: n.socket})
	if err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	defer c.Close()
	if err := f(limited, c); err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	return nil
}

// dialFrom connects to an endpoint from the node's host, as its programs would.
func (n *node) dialFrom(ctx context.Context, endpoint string) (c *client.Client, err error) {
	err = n.host.Do(func() error {
		var err error
		c, err = client.Dial(ctx, client.Options{Endpoint: endpoint})
		return err
	})
	return c, err
}

// number is the node's in the cluster.
func (n *node) number() (number uint64, err error) {
	err = n.do(func(_ context.Context, c *client.Client) error {
		number = uint64(c.Info().InstanceID)
		return nil
	})
	return number, err
}

// status asks the daemon for its status.
func (n *node) status() (st server.Status, err error) {
	err = n.do(func(ctx context.Context, c *client.Client) error {
		raw, err := c.NodeStatus(ctx)
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &st)
	})
	return st, err
}

// balanced tells what is wrong with the books of a node that nobody uses, two
// seconds later still: every byte of the pool is accounted for, and nobody waits.
func (n *node) balanced() error { return within(2*time.Second, n.even) }

func (n *node) even() error {
	st, err := n.status()
	if err != nil {
		return err
	}
	l := &st.Ledger
	var wrong []string
	note := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	note(l.Unsealed != 0, "%d bytes are unsealed", l.Unsealed)
	note(l.Zombies != 0 || l.Deferred != 0, "%d zombies, %d bytes deferred", l.Zombies, l.Deferred)
	sum := l.Free + l.Usage - l.Earlier + l.Deferred + l.Overhead
	note(sum != l.PoolFileMax, "free and used are %d, the pool files %d", sum, l.PoolFileMax)
	note(l.Overhead < 0 || l.Free < 0, "overhead %d, free %d", l.Overhead, l.Free)
	for _, ss := range st.Sessions {
		note(ss.Deferred != 0, "session %s: %d requests wait", ss.ID, ss.Deferred)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the ledger of %s does not balance: %s", n.name, strings.Join(wrong, "; "))
	}
	return nil
}

// cli runs a command of v6d against the node's socket, on its host.
func (n *node) cli(args ...string) (stdout, stderr string, code int) {
	return n.cliFor(patience, args...)
}

// cliFor is cli for commands that take their time.
func (n *node) cliFor(limit time.Duration, args ...string) (stdout, stderr string, code int) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := n.host.Command(limited, v6d, args...)
	cmd.Env = append(os.Environ(), "V6D_SOCKET="+n.socket)
	var out, errs testserver.Output
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := testserver.StartProcess(cmd); err != nil {
		return "", err.Error(), -1
	}
	_ = cmd.Wait()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// etcdStore reads and writes etcd behind the daemons' backs.
type etcdStore struct {
	*testserver.Etcd
	prefix string // of the root session's keys
}

const defaultPrefix = "vineyard/S0000000000000000"

// keys returns all pairs below the prefix, relative to it.
func (e *etcdStore) keys() (map[string]string, error) {
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	end := []byte(e.prefix)
	end[len(end)-1]++
	b, err := e.Call(limited, "/v3/kv/range", map[string]any{"key": []byte(e.prefix), "range_end": end})
	if err != nil {
		return nil, err
	}
	var r struct {
		KVs []struct{ Key, Value []byte }
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	out := make(map[string]string, len(r.KVs))
	for _, kv := range r.KVs {
		out[strings.TrimPrefix(string(kv.Key), e.prefix)] = string(kv.Value)
	}
	return out, nil
}

// put writes a key below the prefix.
func (e *etcdStore) put(key, value string) error {
	return e.ask("/v3/kv/put", map[string]any{"key": []byte(e.prefix + key), "value": []byte(value)}, nil)
}

// drop removes all keys below the prefix that begin with one.
func (e *etcdStore) drop(key string) error {
	from := []byte(e.prefix + key)
	end := slices.Clone(from)
	end[len(end)-1]++
	return e.ask("/v3/kv/deleterange", map[string]any{"key": from, "range_end": end}, nil)
}

func (e *etcdStore) ask(path string, in, out any) error {
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	b, err := e.Call(limited, path, in)
	if err == nil && out != nil {
		err = json.Unmarshal(b, out)
	}
	return err
}

// head is etcd's revision.
func (e *etcdStore) head() (int64, error) {
	var r struct {
		Header struct{ Revision string }
	}
	if err := e.ask("/v3/kv/range", map[string]any{"key": []byte("none")}, &r); err != nil {
		return 0, err
	}
	return strconv.ParseInt(r.Header.Revision, 10, 64)
}

// compact forgets all history, and tidies up.
func (e *etcdStore) compact() error {
	rev, err := e.head()
	if err != nil {
		return err
	}
	return errors.Join(
		e.ask("/v3/kv/compaction", map[string]any{"revision": strconv.FormatInt(rev, 10), "physical": true}, nil),
		e.ask("/v3/maintenance/defragment", map[string]any{}, nil),
	)
}

// disarm ends the alarms of an etcd that has space again.
func (e *etcdStore) disarm() error {
	var r struct {
		Alarms []struct{ MemberID, Alarm string }
	}
	if err := e.ask("/v3/maintenance/alarm", map[string]any{"action": "GET"}, &r); err != nil {
		return err
	}
	for _, a := range r.Alarms {
		if err := e.ask("/v3/maintenance/alarm", map[string]any{"action": "DEACTIVATE", "alarm": a.Alarm, "memberID": a.MemberID}, nil); err != nil {
			return err
		}
	}
	return nil
}

// of filters keys that concern an instance: its own, its signatures, the objects
// that say they are on it, and the names of those.
func (e *etcdStore) of(number uint64) ([]string, error) {
	all, err := e.keys()
	if err != nil {
		return nil, err
	}
	var list []string
	ids := map[string]bool{} // decimal, as names have them
	for key, value := range all {
		switch id, ok := strings.CutPrefix(key, "/data/o"); {
		case strings.HasPrefix(key, fmt.Sprintf("/instances/i%d/", number)), strings.HasPrefix(key, fmt.Sprintf("/signatures/i%d/", number)):
			list = append(list, key)
		case ok:
			var o struct {
				Instance *uint64 `json:"instance_id"`
			}
			id, field, _ := strings.Cut(id, "/")
			if n, err := strconv.ParseUint(id, 16, 64); err == nil {
				mine := field == "" && json.Unmarshal([]byte(value), &o) == nil && o.Instance != nil && *o.Instance == number ||
					field == "instance_id" && value == strconv.FormatUint(number, 10)
				if mine {
					list = append(list, key)
					ids[strconv.FormatUint(n, 10)] = true
				}
			}
		}
	}
	for key, value := range all {
		if strings.HasPrefix(key, "/names/") && ids[value] {
			list = append(list, key)
		}
	}
	slices.Sort(list)
	return list, nil
}
