package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/v6d-go/v6d/internal/testserver"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"v6d": main})
}

// TestScripts runs testdata/script/*.txtar: real processes against a real
// daemon. Each script has its own folder and socket ($SOCK), whose path is
// short.
func TestScripts(t *testing.T) { runScripts(t, "testdata/script", v6dDaemon) }

// TestCommonScripts runs the scripts that need no extension, against v6d and
// against the reference daemon.
func TestCommonScripts(t *testing.T) {
	t.Run("v6d", func(t *testing.T) { runScripts(t, "testdata/common", v6dDaemon) })
	t.Run("vineyardd", func(t *testing.T) {
		found, _ := filepath.Glob("../../.interop/venv/lib/python3.11/site-packages/vineyard/bdist/vineyardd") // the pattern is valid
		if len(found) == 0 {
			t.Skip("the reference daemon is not installed: interop/venv.sh does that")
		}
		reference, err := filepath.Abs(found[0])
		if err != nil {
			t.Fatal(err)
		}
		runScripts(t, "testdata/common", func(ts *testscript.TestScript) *exec.Cmd {
			return exec.Command(reference, "--socket", ts.Getenv("SOCK"), "--size", "64Mi", "--meta", "local",
				"--rpc_socket_port", ts.Getenv("PORT"))
		})
	})
}

func v6dDaemon(ts *testscript.TestScript) *exec.Cmd {
	return exec.Command("v6d", "serve", "--size", "64MiB", "--rpc-listen", "127.0.0.1:"+ts.Getenv("PORT"))
}

func runScripts(t *testing.T, dir string, daemon func(*testscript.TestScript) *exec.Cmd) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			dir, err := os.MkdirTemp("", "v6d")
			if err != nil {
				return err
			}
			e.Defer(func() {
				if err := testserver.RemoveAll(dir); err != nil {
					t.Error("clean up:", err)
				}
			})
			sock := filepath.Join(dir, "s")
			e.Setenv("SOCK", sock)
			e.Setenv("V6D_SOCKET", sock)
			for _, name := range []string{"PORT", "PORT2", "PORT3"} {
				e.Setenv(name, strconv.Itoa(freePort(t)))
			}
			e.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each of hundreds of processes otherwise
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon":   func(ts *testscript.TestScript, _ bool, _ []string) { startDaemon(ts, daemon(ts)) },
			"waitfor":  waitFor,
			"exitcode": exitCode,
			"signal":   signalLast,
			"setid":    setID,
		},
	})
}

// TestTools tells which tools the scripts and the lint of the man pages lack;
// .ci/run requires them all.
func TestTools(t *testing.T) {
	for _, tool := range []string{"bash", "zsh", "fish", "mandoc"} {
		t.Run(tool, func(t *testing.T) {
			_, err := exec.LookPath(tool)
			switch {
			case err == nil:
			case os.Getenv("V6D_REQUIRE_TOOLS") != "":
				t.Errorf("%v: apt-get install %s", err, tool)
			default:
				t.Skipf("%v: what needs it is not tested; apt-get install %s", err, tool)
			}
		})
	}
}

// TestManPages runs mandoc's lint over the committed pages.
func TestManPages(t *testing.T) {
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip(err)
	}
	pages, err := filepath.Glob("../../man/*.1")
	if err != nil || len(pages) < 10 {
		t.Fatalf("man pages: %d found, %v", len(pages), err)
	}
	if out, err := exec.Command(mandoc, append([]string{"-Tlint", "-Wwarning"}, pages...)...).CombinedOutput(); err != nil {
		t.Errorf("mandoc: %v\n%s", err, out)
	}
}

// startDaemon runs a daemon until the script ends.
func startDaemon(ts *testscript.TestScript, cmd *exec.Cmd) {
	cmd.Env = append(os.Environ(), "V6D_SOCKET="+ts.Getenv("SOCK"))
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		_ = cmd.Wait()
	})
	waitFor(ts, false, []string{ts.Getenv("SOCK")})
}

// setID puts the last output, an id, into a variable.
func setID(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: setid VARIABLE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// waitFor waits until something listens on a socket.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: waitfor SOCKET")
	}
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var c net.Conn
		if c, err = net.Dial("unix", args[0]); err == nil {
			c.Close()
			return
		}
	}
	ts.Fatalf("waitfor: %v", err)
}

// exitCode runs a command that must end with the given code.
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exitcode CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit interface{ ExitCode() int }
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("exitcode: %v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("%v: exit code %d, want %s", args[1:], code, args[0])
	}
}

// signalLast sends a signal to the background command started last.
func signalLast(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]os.Signal{"TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "HUP": syscall.SIGHUP}
	running := ts.BackgroundCmds()
	if len(args) != 1 || signals[args[0]] == nil || len(running) == 0 {
		ts.Fatalf("usage: signal TERM|KILL|HUP, with a command in the background")
	}
	ts.Check(running[len(running)-1].Process.Signal(signals[args[0]]))
	if args[0] == "KILL" {
		time.Sleep(100 * time.Millisecond)
	}
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
