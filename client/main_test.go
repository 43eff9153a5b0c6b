//go:build linux

package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/testserver"
)

// daemonEnv makes the test binary a v6d daemon on the socket that it names, so
// that there is one to kill.
const daemonEnv = "V6D_CLIENT_TEST_DAEMON"

func TestMain(m *testing.M) {
	if socket := os.Getenv(daemonEnv); socket != "" {
		os.Exit(runDaemon(socket))
	}
	for _, name := range []string{"V6D_SOCKET", "VINEYARD_IPC_SOCKET"} {
		os.Unsetenv(name)
	}
	os.Exit(m.Run())
}

// runDaemon serves until its standard input ends: it never outlives the test.
func runDaemon(socket string) int {
	cfg := config.Default()
	cfg.Socket, cfg.RPCListen, cfg.Size, cfg.Memory, cfg.Huge = socket, "127.0.0.1:0", "64MiB", "anonymous", "never"
	srv, err := server.New(context.Background(), server.Options{Config: cfg})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := srv.Run(ctx, func() { fmt.Println(srv.Report().RPC) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// daemon is what a test talks to, over IPC or TCP.
type daemon struct {
	kind   string // v6d or vineyardd
	socket string
	rpc    string
	tcp    bool
	kill   func() // as kill -9; nil where the daemon is this process
}

// v6d reports whether the daemon has v6d's extensions.
func (d daemon) v6d() bool { return d.kind == "v6d" }

// over returns the daemon as seen over the other transport.
func (d daemon) over(tcp bool) daemon {
	d.tcp = tcp
	return d
}

// dial connects until the test ends. change, if not nil, alters the options.
func (d daemon) dial(t testing.TB, change func(*client.Options)) *client.Client {
	t.Helper()
	o := client.Options{Socket: d.socket}
	if d.tcp {
		o = client.Options{Endpoint: d.rpc}
	}
	if change != nil {
		change(&o)
	}
	return dial(t, o)
}

func dial(t testing.TB, o client.Options) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, o)
	if err != nil {
		t.Fatalf("dial %+v: %v", o, err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// startV6D runs a v6d daemon in this process, with leak checks.
func startV6D(t testing.TB, change func(*config.Serve)) daemon {
	t.Helper()
	d := testserver.Start(t, change)
	return daemon{kind: "v6d", socket: d.Socket, rpc: d.RPC}
}

// startV6DProcess runs a v6d daemon as a process of its own.
func startV6DProcess(t testing.TB) daemon {
	t.Helper()
	socket := filepath.Join(testserver.ShortTempDir(t), "v6d.sock")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), daemonEnv+"="+socket)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	kill := startProcess(t, cmd, func() { stdin.Close() })
	rpc, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the daemon says nothing: %v", err)
	}
	return daemon{kind: "v6d", socket: socket, rpc: strings.TrimSpace(rpc), kill: kill}
}

// startReference runs the reference daemon, or skips the test.
func startReference(t testing.TB) daemon {
	t.Helper()
	binary := reference(t)
	port := testserver.FreePort(t)
	d := daemon{
		kind: "vineyardd", socket: filepath.Join(testserver.ShortTempDir(t), "v.sock"),
		rpc: fmt.Sprintf("127.0.0.1:%d", port),
	}
	cmd := exec.Command(binary, "--meta", "local", "--socket", d.socket, "--rpc_socket_port", fmt.Sprint(port), "--size", "256Mi")
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(d.socket)) // for its log files
	d.kill = startProcess(t, cmd, func() { _ = cmd.Process.Kill() })
	for deadline := time.Now().Add(20 * time.Second); !answers("unix", d.socket) || !answers("tcp", d.rpc); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer on %s and %s", binary, d.socket, d.rpc)
		}
	}
	return d
}

// reference finds vineyardd: the variable VINEYARDD, or what interop/venv.sh
// installed.
func reference(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("VINEYARDD"); path != "" {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("VINEYARDD: %v", err)
		}
		return path
	}
	pattern := filepath.Join("..", ".interop", "venv", "lib", "python3*", "site-packages", "vineyard", "bdist", "vineyardd")
	if found, _ := filepath.Glob(pattern); len(found) > 0 {
		return found[0]
	}
	t.Skip("no reference daemon: neither is VINEYARDD set nor has interop/venv.sh been run")
	return ""
}

func answers(network, address string) bool {
	c, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// startProcess runs a command until the test ends: asks it to stop, and kills
// it if it does not. It returns a function that kills it at once.
func startProcess(t testing.TB, cmd *exec.Cmd, ask func()) (kill func()) {
	t.Helper()
	var out testserver.Output
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &out
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The kernel kills the child when the thread ends that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	t.Cleanup(func() {
		ask()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Errorf("%s does not stop", cmd.Path)
			kill()
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd.Path, out.String())
		}
	})
	return kill
}

// must fails the test unless err is nil.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ok returns a value of a call that must not fail: ok(c.PutBlob(ctx, b))(t).
func ok[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantErr fails the test unless err is what target says.
func wantErr(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error %v, want %v", err, target)
	}
}
