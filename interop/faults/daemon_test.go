//go:build linux

package faults

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

// daemon is a socket with a daemon process on it. Cleanup stops the process and
// removes whatever it can leave: mounts, files, sockets.
type daemon struct {
	t      testing.TB
	socket string
	rpc    string   // host:port
	args   []string // flags of every start
	prefix string   // shell commands before the daemon takes the shell's place
	expect []string // errors that it may log

	cmd  *exec.Cmd
	out  *testserver.Output // standard output: the banner
	log  *testserver.Output // standard error
	done chan struct{}
}

// newDaemon returns a daemon that is not started yet.
func newDaemon(t testing.TB, args ...string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "v6d-flt") // short: sockets lie there
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, socket: filepath.Join(dir, "d.sock"), args: args}
	t.Cleanup(func() {
		d.cleanup()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the work folder: %v", err)
		}
	})
	return d
}

// serve starts a daemon with remote access on a port of its own.
func serve(t testing.TB, args ...string) *daemon {
	t.Helper()
	d := newDaemon(t, args...)
	d.start()
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	args := append([]string{"serve", "--socket", d.socket, "--rpc-listen", "127.0.0.1:0"}, d.args...)
	cmd := exec.Command(v6d, args...)
	if d.prefix != "" {
		cmd = exec.Command("sh", append([]string{"-c", d.prefix + ` && exec "$@"`, "sh", v6d}, args...)...)
	}
	d.cmd, d.out, d.log, d.done = cmd, &testserver.Output{}, &testserver.Output{}, make(chan struct{})
	cmd.Stdout, cmd.Stderr = d.out, d.log
	if err := testserver.StartProcess(cmd); err != nil {
		d.t.Fatalf("start the daemon: %v", err)
	}
	done := d.done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	// The banner comes after the listeners.
	err := within(patience, func() error {
		switch {
		case !d.running():
			return nil
		case !strings.Contains(d.out.String(), "to stop"):
			return errors.New("the daemon does not get ready")
		}
		return nil
	})
	if err == nil && !d.running() {
		err = fmt.Errorf("the daemon ended at once: %v", cmd.ProcessState)
	}
	if err != nil {
		d.t.Fatalf("%v\n%s%s", err, d.out, d.log)
	}
	d.rpc = d.status(d.t).Start.RPC
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

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
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Fatalf("kill -9: %v\n%s", err, d.log)
	}
	<-d.done
}

// stop ends the daemon as a service manager does. It must end well, and must
// not have logged an error.
func (d *daemon) stop() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatalf("the daemon is gone: %v\n%s", err, d.log)
	}
	select {
	case <-d.done:
	case <-time.After(patience):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT)
		<-d.done
		d.t.Fatalf("the daemon did not stop:\n%s", d.log)
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		d.t.Errorf("the daemon exits with %d after SIGTERM:\n%s", code, d.log)
	}
}

func (d *daemon) cleanup() {
	if d.cmd != nil && d.cmd.Process != nil && d.running() {
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	if d.t.Failed() && d.log != nil {
		log := d.log.String()
		d.t.Logf("the end of the daemon's log:\n%s", log[max(0, len(log)-5000):])
	}
	mount := d.socket + ".pool"
	for mounted(mount) {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			d.t.Errorf("unmount: %v", err)
			break
		}
	}
	sum := sha256.Sum256([]byte(d.socket))
	if err := os.RemoveAll("/dev/shm/v6d-" + hex.EncodeToString(sum[:8])); err != nil {
		d.t.Errorf("clean /dev/shm: %v", err)
	}
}

func mounted(dir string) bool {
	b, err := os.ReadFile("/proc/self/mountinfo")
	return err == nil && bytes.Contains(b, []byte(" "+dir+" "))
}

// dial connects a client of the Go library until the test ends.
func (d *daemon) dial(t testing.TB) *client.Client {
	t.Helper()
	return d.dialWith(t, client.Options{Socket: d.socket})
}

func (d *daemon) dialWith(t testing.TB, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Dial(ctx, o)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// status asks the daemon for its status on a connection of its own.
func (d *daemon) status(t testing.TB) server.Status {
	t.Helper()
	st, _, err := d.look()
	if err != nil {
		t.Fatalf("status: %v\n%s", err, d.log)
	}
	return st
}

// look asks the daemon for its status and, while that connection is still open,
// counts its descriptors.
func (d *daemon) look() (st server.Status, open descriptors, err error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := client.Dial(limited, client.Options{Socket: d.socket})
	if err != nil {
		return st, open, err
	}
	defer c.Close()
	raw, err := c.NodeStatus(limited)
	if err == nil {
		err = json.Unmarshal(raw, &st)
	}
	if err == nil {
		open, err = d.descriptors()
	}
	return st, open, err
}

// await polls the status until cond holds.
func (d *daemon) await(t testing.TB, what string, limit time.Duration, cond func(server.Status) bool) {
	t.Helper()
	if err := within(limit, func() error {
		if st := d.status(t); !cond(st) {
			return fmt.Errorf("connections %d, ledger %+v, sessions %+v, streams %+v", len(st.Connections), st.Ledger, st.Sessions, st.Streams)
		}
		return nil
	}); err != nil {
		t.Fatalf("waited %v for %s: %v", limit, what, err)
	}
}

// descriptors are what a process has open.
type descriptors struct{ sockets, others int }

func (d *daemon) descriptors() (open descriptors, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", d.pid())
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		switch target, err := os.Readlink(filepath.Join(dir, e.Name())); {
		case err != nil:
		case strings.HasPrefix(target, "socket:"):
			open.sockets++
		case strings.HasPrefix(target, "/proc"), strings.HasPrefix(target, "/sys"): // it looks for memory at the moment
		default:
			open.others++
		}
	}
	return open, err
}

// books is what a daemon has before something goes wrong, and must have again
// afterwards.
type books struct {
	usage, free, overhead, poolFile, uncounted int64
	blobs, objects, sessions, files, streams   int
	connections                                int
	open                                       descriptors
}

// books reads them while the test has so many connections open.
func (d *daemon) books(t testing.TB, connections int) books {
	t.Helper()
	var b books // of the moment when connections of earlier questions are gone
	if err := within(settled, func() error {
		st, open, err := d.look()
		if err != nil {
			return err
		}
		if b = booksOf(&st, open); b.connections != connections+1 || open.sockets != b.connections+b.sessions+1 {
			return fmt.Errorf("%d connections, %d of them the test's; with %d sessions and the TCP listener they have %d sockets",
				b.connections, connections, b.sessions, open.sockets)
		}
		if b.overhead >= mib { // the daemon has taken a part aside for the moment, to reserve memory
			return fmt.Errorf("%d bytes of the pool are neither free nor in use", b.overhead)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

func booksOf(st *server.Status, open descriptors) books {
	l := &st.Ledger
	return books{
		l.Usage, l.Free, l.Overhead, l.PoolFileMax, l.Uncounted,
		l.Blobs, st.Objects, len(st.Sessions), l.Files, len(st.Streams),
		len(st.Connections), open,
	}
}

// balanced verifies within two seconds that the books are as before: nothing
// unsealed or deleted-but-held is left, nobody waits, connections are gone, every
// byte of the pool is accounted for. Then it verifies that the daemon serves.
func (d *daemon) balanced(t testing.TB, before books) {
	t.Helper()
	d.even(t, before)
	d.serves(t, d.socket)
	d.even(t, before)
}

// even is balanced without using the daemon.
func (d *daemon) even(t testing.TB, before books) {
	t.Helper()
	began := time.Now()
	if err := within(settled, func() error { return d.differs(before) }); err != nil {
		t.Fatalf("the ledger does not balance after %v: %v", time.Since(began).Round(time.Millisecond), err)
	}
	for line := range strings.Lines(d.log.String()) {
		told := slices.ContainsFunc(d.expect, func(e string) bool { return strings.Contains(line, e) })
		for _, bad := range []string{"level=ERROR", "panic:", "fatal error:", "DATA RACE"} {
			if strings.Contains(line, bad) && !told {
				t.Errorf("the daemon logged: %s", line)
			}
		}
	}
}

// differs tells what of the books is not as before.
func (d *daemon) differs(before books) error {
	if !d.running() {
		return fmt.Errorf("the daemon is dead: %v\n%s", d.cmd.ProcessState, d.log)
	}
	st, open, err := d.look()
	if err != nil {
		return fmt.Errorf("status: %w", err)
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
	for _, s := range st.Streams {
		note(s.Waits != "", "stream %s: the %s waits", s.ID, s.Waits)
	}
	if now := booksOf(&st, open); now != before {
		note(true, "books are %+v, were %+v", now, before)
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// serves puts, gets, checks and deletes something of every size through a
// session's socket and over TCP.
func (d *daemon) serves(t testing.TB, socket string) {
	t.Helper()
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	writer, err := client.Dial(limited, client.Options{Socket: socket})
	if err != nil {
		t.Fatalf("the daemon no longer serves: %v", err)
	}
	defer writer.Close()
	readers := []client.Options{{Socket: socket}, {Endpoint: d.rpc, Session: writer.Info().SessionID}}
	for i, size := range []int{1, 700, 5000, 100_000} {
		want := pattern(uint64(i)+seed, size)
		id, err := writer.PutBlob(limited, want)
		if err != nil {
			t.Fatalf("the daemon no longer serves: put: %v", err)
		}
		for _, o := range readers {
			r, err := client.Dial(limited, o)
			if err != nil {
				t.Fatalf("the daemon no longer serves: %v", err)
			}
			b, err := r.GetBlob(limited, id)
			if err != nil {
				t.Fatalf("the daemon no longer serves: get: %v", err)
			}
			if !bytes.Equal(b.Bytes(), want) {
				t.Fatalf("a blob of %d bytes comes back with other bytes", size)
			}
			r.Close()
		}
		if err := writer.DropBlob(limited, id); err != nil {
			t.Fatalf("the daemon no longer serves: delete: %v", err)
		}
	}
}

// cpu returns the processor time that the daemon has taken so far.
func (d *daemon) cpu(t testing.TB) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.pid()))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * time.Second / 100
}

// heap returns the daemon's private memory. The pool is not part of it.
func (d *daemon) heap(t testing.TB) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
			return n << 10
		}
	}
	t.Fatal("no RssAnon in the daemon's status")
	return 0
}

// endStraySessions ends every session but the root: those whose makers died
// before they learned of them stay, as docs/operations.md says. It returns how
// many there were.
func (d *daemon) endStraySessions(t testing.TB) int {
	t.Helper()
	n := 0
	for _, ss := range d.status(t).Sessions {
		if ss.Socket == d.socket {
			continue
		}
		c, err := client.Dial(ctx, client.Options{Socket: ss.Socket, Plasma: ss.Plasma})
		if err == nil {
			err = c.DeleteSession(ctx)
		}
		if err != nil {
			t.Fatalf("end session %s: %v", ss.ID, err)
		}
		n++
	}
	return n
}
