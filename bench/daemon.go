package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/v6d-go/v6d/internal/testserver"
)

// proc is a daemon under measurement.
type proc struct {
	cmd    *exec.Cmd
	name   string // v6d, reference, or reference again
	socket string
	port   int
	took   time.Duration // from its start to the first reply
}

// options of a daemon, in terms that both have.
type options struct {
	size  string // 1GiB
	rpc   bool
	huge  string // v6d only
	extra []string

	etcd, prefix string           // URL, and below which keys; metadata is local without
	patience     time.Duration    // until the first reply; ten seconds by default
	on           *testserver.Host // where it runs; on the machine itself without
}

// daemons starts v6d, the reference, and the reference again as its own noise.
func (b *bench) daemons(o options) ([]*proc, error) {
	var out []*proc
	for _, name := range []string{"v6d", "reference", "reference again"} {
		p, err := b.daemon(name, o)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// daemon starts one and waits for its first reply. stopAll ends it.
func (b *bench) daemon(name string, o options) (*proc, error) {
	p := &proc{name: name, socket: filepath.Join(b.dir, fmt.Sprintf("%d.sock", time.Now().UnixNano()))}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	var args []string
	if name == "v6d" {
		args = []string{b.v6d, "serve", "--socket", p.socket, "--size", o.size, "--log-level", "error"}
		if o.rpc {
			args = append(args, "--rpc-listen", net.JoinHostPort(address(o.on), strconv.Itoa(port)))
		} else {
			args = append(args, "--rpc-listen", "off")
		}
		if o.huge != "" {
			args = append(args, "--huge", o.huge)
		}
		if o.etcd != "" {
			args = append(args, "--meta", "etcd", "--etcd-endpoints", o.etcd, "--etcd-prefix", o.prefix)
		}
	} else {
		args = []string{b.reference, "--socket", p.socket, "--size", strings.TrimSuffix(o.size, "B")}
		if o.etcd != "" {
			args = append(args, "--meta", "etcd", "--etcd_endpoint", o.etcd, "--etcd_prefix", o.prefix)
		} else {
			args = append(args, "--meta", "local")
		}
		if o.rpc {
			args = append(args, "--rpc_socket_port", strconv.Itoa(port))
		} else {
			args = append(args, "--rpc=false")
		}
		if o.on != nil { // it tells others its host's name, and nothing else will do
			args = append([]string{"unshare", "--uts", "sh", "-c", `hostname "$0" && exec "$@"`, o.on.Addr}, args...)
		}
	}
	args = append(args, o.extra...)
	if o.rpc {
		p.port = port
	}
	p.cmd = exec.Command(args[0], args[1:]...)
	if o.on != nil {
		p.cmd = o.on.Command(context.Background(), args[0], args[1:]...)
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var diagnostics testserver.Output
	p.cmd.Stderr = &diagnostics
	start := time.Now()
	if err := testserver.StartProcess(p.cmd); err != nil {
		return nil, err
	}
	b.procs = append(b.procs, p)
	for time.Since(start) < cmp.Or(o.patience, 10*time.Second) {
		if name != "v6d" && o.rpc && o.etcd != "" && !strings.Contains(diagnostics.String(), "for RPC") {
			time.Sleep(time.Millisecond) // it opens its socket too early, and dies of a client then
			continue
		}
		if c, err := dialRaw(p.socket); err == nil {
			p.took = time.Since(start)
			return p, c.close()
		}
		time.Sleep(200 * time.Microsecond)
	}
	return nil, fmt.Errorf("%s does not come up: %s", name, diagnostics.String())
}

// stop ends a daemon cleanly, or after ten seconds in any case.
func (p *proc) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	done := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-done
	}
}

func (b *bench) stopAll() {
	for _, w := range b.helpers {
		w.close()
	}
	b.helpers = nil
	for _, p := range b.procs {
		p.stop()
	}
	b.procs = nil
}

func (b *bench) stopOne(p *proc) {
	p.stop()
	for i := range b.procs {
		if b.procs[i] == p {
			b.procs = append(b.procs[:i], b.procs[i+1:]...)
			return
		}
	}
}

// sides makes a row's sides, one a daemon.
func sides(procs []*proc, run func(p *proc) func() ([]float64, error)) []side {
	out := make([]side, len(procs))
	for i, p := range procs {
		out[i] = side{p.name, run(p)}
	}
	return out
}

// memory returns fields of /proc/PID/status, in bytes.
func (p *proc) memory(fields ...string) (int64, error) {
	return memoryOf(p.cmd.Process.Pid, fields...)
}

func memoryOf(pid int, fields ...string) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var total int64
	for sc := bufio.NewScanner(f); sc.Scan(); {
		for _, name := range fields {
			if rest, ok := strings.CutPrefix(sc.Text(), name+":"); ok {
				n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				if err != nil {
					return 0, err
				}
				total += n << 10
			}
		}
	}
	return total, nil
}

// pool returns the bytes of real memory behind a daemon's largest file.
func (p *proc) pool() (int64, error) {
	dir := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var size, held int64
	for _, e := range entries {
		var st syscall.Stat_t
		if syscall.Stat(filepath.Join(dir, e.Name()), &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG && st.Size > size {
			size, held = st.Size, st.Blocks*512
		}
	}
	if size == 0 {
		return 0, errors.New("no pool file is open")
	}
	return held, nil
}

// spawn runs a command of the machine and fails with what it printed.
func spawn(ctx context.Context, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
