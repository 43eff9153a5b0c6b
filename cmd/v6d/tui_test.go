package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/v6d-go/v6d/internal/testserver"
	"github.com/v6d-go/v6d/internal/testserver/terminal"
	"golang.org/x/term"
)

// screen is a v6d on a terminal of its own.
type screen struct {
	*terminal.Terminal
	t *testing.T
}

// node is where a daemon is to be.
type node struct {
	t   *testing.T
	dir string
	env []string
}

func newNode(t *testing.T) *node {
	dir := testserver.ShortTempDir(t)
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NO_COLOR=") || strings.HasPrefix(v, "V6D_") || strings.HasPrefix(v, "VINEYARD_")
	})
	return &node{t: t, dir: dir, env: append(env, "V6D_SOCKET="+filepath.Join(dir, "s"), "XDG_CONFIG_HOME="+dir, "TERM=xterm-256color", "GORACE=atexit_sleep_ms=0")}
}

// command is v6d in the node's environment.
func (n *node) command(args ...string) *exec.Cmd {
	cmd := exec.Command("v6d", args...)
	cmd.Env, cmd.Dir = n.env, n.dir
	return cmd
}

func (n *node) run(args ...string) string {
	n.t.Helper()
	out, err := n.command(args...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("v6d %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// serve runs a daemon.
func (n *node) serve() *exec.Cmd {
	n.t.Helper()
	daemon := n.command("serve", "--size", "64MiB", "--rpc-listen", "off")
	if err := daemon.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = daemon.Process.Kill() // it may have ended by itself
		_ = daemon.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("unix", filepath.Join(n.dir, "s"))
		if err == nil {
			c.Close()
			return daemon
		}
		if time.Now().After(deadline) {
			n.t.Fatal(err)
		}
	}
}

// put makes an object of a name.
func (n *node) put(name string) string {
	n.t.Helper()
	path := filepath.Join(n.dir, "content")
	if err := os.WriteFile(path, []byte("contents of "+name), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return n.run("put", path, "--name", name)
}

// browse starts v6d on a terminal of 100x30.
func (n *node) browse(args ...string) *screen {
	n.t.Helper()
	tt, err := terminal.Start(n.command(args...), 100, 30)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(tt.Close)
	return &screen{tt, n.t}
}

func (tt *screen) readModes() term.State {
	tt.t.Helper()
	m, err := tt.ReadModes()
	if err != nil {
		tt.t.Fatal(err)
	}
	return m
}

// sees waits until texts are on the screen; ! before one means that it is not.
func (tt *screen) sees(within time.Duration, texts ...string) {
	tt.t.Helper()
	ctx, cancel := context.WithTimeout(tt.t.Context(), within)
	defer cancel()
	if _, err := tt.Wait(ctx, func(screen string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool {
			rest, not := strings.CutPrefix(text, "!")
			return strings.Contains(screen, rest) == not
		})
	}); err != nil {
		tt.t.Fatalf("%q is wanted within %v\n%s", texts, within, tt.Screen())
	}
}

func (tt *screen) types(keys string) {
	tt.t.Helper()
	if err := tt.Type(keys); err != nil {
		tt.t.Fatal(err)
	}
}

// ends waits for the end, and for the terminal to be as it was before.
func (tt *screen) ends(code int) {
	tt.t.Helper()
	select {
	case <-tt.Ended():
	case <-time.After(10 * time.Second):
		tt.t.Fatalf("it does not end\n%s", tt.Screen())
	}
	if got := tt.Cmd.ProcessState.ExitCode(); got != code {
		tt.t.Errorf("exit code %d, want %d", got, code)
	}
	var last string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		raw := string(tt.Sent())
		last = ""
		for _, mode := range []string{"?1049", "?25", "?2004", "?1002", "?1003", "?1006", "?1004"} { // alternate screen, cursor, paste, mouse, focus
			on, off := "\x1b["+mode+"h", "\x1b["+mode+"l"
			if mode == "?25" {
				on, off = off, on
			}
			if strings.Contains(raw, on) && strings.LastIndex(raw, on) > strings.LastIndex(raw, off) {
				last += " " + mode
			}
		}
		if last == "" {
			break
		}
	}
	if last != "" {
		tt.t.Errorf("these modes were left on:%s", last)
	}
	if got := tt.readModes(); got != tt.Modes {
		tt.t.Errorf("modes of the terminal: %+v, before %+v", got, tt.Modes)
	}
	if strings.Contains(tt.Screen(), "? help") {
		tt.t.Errorf("left on the terminal:\n%s", tt.Screen())
	}
}

// taken fails unless the program had the screen, so that there is something to give
// back.
func (tt *screen) taken() {
	tt.t.Helper()
	sent := tt.Sent()
	for _, mode := range []string{"\x1b[?1049h", "\x1b[?25l", "\x1b[?1002h"} {
		if !bytes.Contains(sent, []byte(mode)) {
			tt.t.Errorf("%q was never sent", mode)
		}
	}
	if tt.readModes() == tt.Modes {
		tt.t.Error("the terminal is not in raw mode")
	}
}

// TestTUISettings reads the file of settings; what is wrong in it is said, on the screen
// and after it.
func TestTUISettings(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.serve()
	n.put("first")
	usual := n.run("tui", "--print-default")
	settings := func(text string) {
		t.Helper()
		dir := filepath.Join(n.dir, "v6d")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "tui.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"", usual} {
		settings(text)
		tt := n.browse("tui")
		tt.sees(10*time.Second, "ID ", "WHERE", "first", "live", "!tui.yaml")
		tt.types("q")
		tt.ends(0)
		if out := string(tt.Sent()); strings.Contains(out, "tui.yaml") {
			t.Errorf("of the usual settings it says %q", out)
		}
	}
	settings("view: names\ncolumns:\n  names: [ID, NAME]\nkeys:\n  quit: [Q]\n  fly: [f]\ntheme: pink\nspeed: 9\n")
	tt := n.browse("tui")
	tt.sees(10*time.Second, "names 1", "!TYPE", "field speed not found")
	tt.types("q")
	tt.types("Q")
	tt.ends(0)
	for _, want := range []string{"line 8: field speed not found", "there is no fly", "theme: pink is none of"} {
		if !strings.Contains(tt.Screen(), want) {
			t.Errorf("%q is not said at the end:\n%s", want, tt.Screen())
		}
	}
	settings("view: [")
	tt = n.browse("tui", "--view", "memory")
	tt.sees(10*time.Second, "memory by type", "tui.yaml: line 1")
	tt.types("q")
	tt.ends(0)

	tt = n.browse("tui", "--plain-ui")
	tt.sees(10*time.Second, "first")
	n.put("second")
	tt.sees(2*time.Second, "named", "second")
	tt.types("\x03")
	tt.ends(130)
}

// TestTop draws when objects change, whatever its interval is.
func TestTop(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.serve()
	tt := n.browse("top", "--interval", "1h")
	tt.sees(10*time.Second, "in 0 blobs, 0 objects")
	id := n.put("first")
	tt.sees(2*time.Second, "in 1 blobs, 1 objects")
	n.run("rm", id)
	tt.sees(2*time.Second, "in 0 blobs, 0 objects")
	tt.types("\x03")
	tt.ends(130)
}

func TestTUI(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.serve()
	n.put("first")
	for _, args := range [][]string{{"tui"}, {}, {"ui", "--view", "names", "--readonly"}} {
		tt := n.browse(args...)
		tt.sees(10*time.Second, "first", "live")
		tt.taken()
		tt.types("q")
		tt.ends(0)
	}

	tt := n.browse("tui")
	tt.sees(10*time.Second, "objects 1", "▸ o")
	id := n.put("new 東京")
	start := time.Now()
	tt.sees(2*time.Second, "objects 2", id, "new 東京")
	t.Logf("a new object is seen after %v", time.Since(start))
	n.run("rm", id)
	tt.sees(2*time.Second, "objects 1", "!"+id)

	// Into a value and back, and a command of v6d by a key.
	tt.types("v")
	tt.sees(5*time.Second, "value", "17 bytes of text", "contents of first")
	tt.types("\x1b")
	tt.sees(5*time.Second, "objects 1", "!of text")
	tt.types("x")
	tt.sees(5*time.Second, "Delete?", "$ v6d rm o")
	tt.types("y")
	tt.sees(5*time.Second, "objects 0", "done: v6d rm o")
	if out := n.run("ls", "-q"); out != "" {
		t.Errorf("there still is %s", out)
	}

	// The window changes.
	if err := tt.Resize(30, 5); err != nil {
		t.Fatal(err)
	}
	tt.sees(5*time.Second, "too small: 30x5")
	tt.types("\x03")
	tt.ends(0)
}

// TestTUIViews opens every view and page on a real daemon.
func TestTUIViews(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.serve()
	var b strings.Builder
	b.WriteString("city,price\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "%s,%d.5\n", []string{"Köln", "東京", "Łódź"}[i%3], i)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "sales.csv"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	id := n.run("put", filepath.Join(n.dir, "sales.csv"), "--name", "sales")
	n.run("name", "set", id, "z\x1b[31mred\x1b[2J")
	stream := n.command("stream", "put", "lines")
	stream.Stdin = strings.NewReader("one line\n")
	if out, err := stream.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	const soon = 5 * time.Second
	tt := n.browse("tui", "--theme", "light")
	tt.sees(soon, "sales, z·[3", "Table")
	tt.types("\r")
	tt.sees(soon, "id     "+id, "type   vineyard::Table", "num_rows_ = 2000", "partitions_-0", "referred to by (0)")
	tt.types("v")
	tt.sees(soon, "2000 rows, 2 columns, the first 1000 rows", "city string", "price float64", "Łódź")
	tt.types("sg")
	tt.sees(soon, "999.5")
	tt.types("\x7f")
	tt.sees(soon, "referred to by (0)", "!999.5")
	tt.types("d")
	tt.sees(soon, "DESCRIBE", "deleting frees")
	tt.types("\x7f")
	tt.sees(soon, "referred to by (0)")
	tt.types("y")
	tt.sees(soon, "METADATA", "\"apiVersion\": \"v6d/v1\"")
	for _, view := range []struct {
		key   string
		texts []string
	}{
		{"1", []string{"cluster 1", "i0 (asked)", "64MiB", "up"}},
		{"2", []string{"objects 2", "sales"}},
		{"3", []string{"names 3", "sales", id}},
		{"4", []string{"streams 1", "lines", "drained"}},
		{"5", []string{"clients ", "at work", "v6d"}},
		{"6", []string{"types ", "vineyard::Table"}},
		{"7", []string{"memory by type ", "vineyard::NumericArray<double>", "%"}},
		{"F", []string{"memory by name ", "sales"}},
		{"F", []string{"memory by owner "}},
		{"F", []string{"memory by state "}},
		{"8", []string{"events "}},
	} {
		tt.types(view.key)
		tt.sees(soon, view.texts...)
	}
	tt.types(":sales\r")
	tt.sees(soon, "sales", "num_rows_ = 2000")
	tt.types("\x13") // Ctrl-s
	tt.sees(soon, "Save to a file", "file:")
	tt.types("out.csv\r")
	tt.sees(soon, "$ v6d get "+id+" out.csv")
	tt.types("y")
	tt.sees(soon, "done: v6d get "+id+" out.csv")
	if out, err := os.ReadFile(filepath.Join(n.dir, "out.csv")); err != nil || string(out) != b.String() {
		t.Errorf("saved %d bytes: %v", len(out), err)
	}
	tt.types("2/sal\r")
	tt.sees(soon, "objects 1/2")
	tt.types("elevel=raw\r")
	tt.sees(soon, "Label?", "$ v6d label "+id+" level=raw")
	tt.types("\x1b")
	tt.sees(soon, "!$ v6d label")
	tt.types("q")
	tt.ends(0)
	if bytes.Contains(tt.Sent(), []byte("\x1b[31mred")) {
		t.Error("a name reached the terminal as it is")
	}
}

func TestTUINoColor(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.env = append(n.env, "NO_COLOR=1")
	n.serve()
	n.put("first")
	tt := n.browse("tui")
	tt.sees(10*time.Second, "objects 1", "> o")
	tt.types("q")
	tt.ends(0)
	sent := tt.Sent()
	for i, b := range sent {
		if b >= 0x80 {
			t.Fatalf("%q", sent[i:])
		}
	}
	for _, colour := range []string{"\x1b[3", "\x1b[9", ";3", "\x1b[4"} {
		for rest := sent; ; {
			i := bytes.Index(rest, []byte(colour))
			if i < 0 {
				break
			}
			rest = rest[i+len(colour):]
			if end := bytes.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && r != ';' }); end >= 0 && rest[end] == 'm' {
				t.Fatalf("a colour: %q", colour+string(rest[:end+1]))
			}
		}
	}
}

// TestTUISignals ends the browser from outside: the terminal is given back.
func TestTUISignals(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.serve()
	for sig, code := range map[os.Signal]int{syscall.SIGTERM: 143, syscall.SIGINT: 130} {
		for range 3 {
			tt := n.browse("tui")
			tt.sees(10*time.Second, "objects 0", "live")
			tt.taken()
			if err := tt.Cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			tt.ends(code)
			tt.sees(time.Second, map[os.Signal]string{syscall.SIGTERM: "v6d: terminated", syscall.SIGINT: "v6d: interrupted"}[sig])
		}
	}
}

// TestTUIDaemonDies goes on without a daemon, and with the next one.
func TestTUIDaemonDies(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	tt := n.browse("tui")
	tt.sees(10*time.Second, "NO ANSWER", "v6d serve", "r tries again")
	tt.taken()
	daemon := n.serve()
	tt.sees(10*time.Second, "objects 0", "!NO ANSWER", "live")
	id := n.put("first")
	tt.sees(2*time.Second, id)

	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	tt.sees(10*time.Second, "NO ANSWER", "not live", id)
	tt.types("j")
	tt.types("d")
	tt.sees(10*time.Second, "describe", "r tries again")
	tt.types("\x1b")
	tt.sees(10*time.Second, "!DESCRIBE", id)

	n.serve() // which finds the object of the one that died
	tt.sees(10*time.Second, "!NO ANSWER", "!not live", id)
	second := n.put("second")
	tt.sees(2*time.Second, second)

	n.run("rm", "--all", "--yes")
	tt.sees(2*time.Second, "objects 0")
	tt.types("q")
	tt.ends(0)

	// It can be left while there is none.
	n = newNode(t)
	daemon = n.serve()
	tt = n.browse("tui")
	tt.sees(10*time.Second, "objects 0", "live")
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	tt.sees(10*time.Second, "NO ANSWER")
	tt.types("q")
	tt.ends(0)
}

// TestTUIRefuses what it cannot do, before it takes the screen.
func TestTUIRefuses(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, args := range [][]string{{"tui", "--theme", "pink"}, {"tui", "--view", "everything"}, {"tui", "more"}, {"tui", "--context", "nowhere"}} {
		tt := n.browse(args...)
		tt.ends(map[bool]int{true: 3, false: 2}[args[1] == "--context"])
		if bytes.Contains(tt.Sent(), []byte("\x1b[?1049h")) {
			t.Errorf("%q: the screen was taken", args)
		}
		tt.sees(time.Second, map[string]string{"--theme": "dark, light, plain", "--view": "cluster, objects, names", "more": "v6d tui", "--context": "nowhere"}[args[1]])
	}

	// Not on a terminal: standard input or output, or both.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	for _, which := range []string{"in", "out", "neither"} {
		var out, errs bytes.Buffer
		cmd := exec.CommandContext(ctx, "v6d", "tui")
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = n.env, strings.NewReader(""), &out, &errs
		switch which {
		case "in":
			cmd.Stdin = theirs
		case "out":
			cmd.Stdout = theirs
		}
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("%s: %v, exit code %d", which, err, cmd.ProcessState.ExitCode())
		}
		if text := errs.String(); !strings.Contains(text, "needs a terminal") || !strings.Contains(text, "hint: ") || !strings.Contains(text, "v6d top --once") || out.Len() > 0 {
			t.Errorf("%s: %s%s", which, out.String(), text)
		}
	}
}
