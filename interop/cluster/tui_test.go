//go:build linux

package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/testserver"
)

// screen is a terminal on a node's host that shows a program: a server of tmux of
// its own.
type screen struct {
	t    *testing.T
	name string
}

func newScreen(t *testing.T, on *node, width, height int, command string) *screen {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("needs tmux")
	}
	s := &screen{t, filepath.Join(t.TempDir(), "tmux")}
	cmd := on.host.Command(ctx, "tmux", "-S", s.name, "-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height), command)
	must(t, testserver.StartProcess(cmd), cmd.Wait())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen:\n%s", s.text())
		}
		_ = s.command("kill-server").Run() // it may have ended with its program
	})
	return s
}

func (s *screen) command(args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "tmux", append([]string{"-S", s.name}, args...)...)
}

func (s *screen) tmux(args ...string) string {
	s.t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("tmux %v: %v: %s", args, err, out)
	}
	return string(out)
}

func (s *screen) text() string {
	out, err := s.command("capture-pane", "-p").Output()
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// keys presses keys, one after the other.
func (s *screen) keys(keys ...string) {
	s.t.Helper()
	for _, k := range keys {
		s.tmux("send-keys", k)
		time.Sleep(30 * time.Millisecond)
		if k == "Escape" { // what follows at once would be one key with it
			time.Sleep(200 * time.Millisecond)
		}
	}
}

// shows waits until the screen matches, and returns how long that took.
func (s *screen) shows(limit time.Duration, pattern string) time.Duration {
	s.t.Helper()
	began := time.Now()
	re := regexp.MustCompile("(?m)" + pattern)
	if err := within(limit, func() error {
		if !re.MatchString(s.text()) {
			return fmt.Errorf("the screen does not show %s", pattern)
		}
		return nil
	}); err != nil {
		s.t.Fatalf("%v after %v:\n%s", err, since(began), s.text())
	}
	return time.Since(began)
}

// python runs a program with the published client, or skips the test.
func python(t *testing.T, program string) {
	t.Helper()
	path, err := filepath.Abs("../../.interop/venv/bin/python")
	must(t, err)
	if _, err := os.Stat(path); err != nil {
		t.Skip("needs the published client: make interop-once installs it")
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if out, err := exec.CommandContext(limited, path, "-W", "ignore", "-c", program).CombinedOutput(); err != nil {
		t.Fatalf("python: %v: %s", err, out)
	}
}

// TestBrowser looks at a cluster of three nodes while things happen to it.
func TestBrowser(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := form(t, 3)
	a, b, third := c.nodes[0], c.nodes[1], c.nodes[2]
	th, err := putPersistent(ctx, b.dial(), 7, 3000)
	must(t, err, b.dial().PutName(ctx, th.id, "elsewhere"))
	must(t, a.reads([]thing{th}, false))

	s := newScreen(t, a, 120, 30, fmt.Sprintf("%s tui --socket %s; echo left with $?; sleep 1000", v6d, a.socket))
	took := s.shows(patience, "elsewhere .*i1 ")
	t.Logf("open after %v", took.Round(time.Millisecond))

	// What Python puts while one looks is there, with its value.
	python(t, fmt.Sprintf(`import vineyard, numpy as np
c = vineyard.connect(%q)
o = c.put(np.array([[1.5, 2.5], [3.5, 40.25]])); c.persist(o); c.put_name(o, "fresh")`, a.socket))
	took = s.shows(2*time.Second, "fresh .*Tensor<double>.*32B")
	t.Logf("an object of Python is on the screen after %v", took.Round(time.Millisecond))
	s.keys("/", "f", "r", "e", "s", "h", "Enter", "v")
	s.shows(patience, `array 2x2 of float64`)
	s.shows(patience, `1 +3\.5 +40\.25`)
	s.keys("Escape", "Escape")

	// A migration, asked for here.
	s.keys("/", "e", "l", "s", "e", "Enter", "m")
	s.shows(patience, "to instance:")
	s.keys("i", "0", "Enter")
	s.shows(patience, `v6d migrate `+th.id.String()+` --to i0`)
	s.keys("y")
	s.shows(patience, "done: v6d migrate")
	s.keys("Escape")
	s.shows(patience, `Thing .*i0 `)

	// A node dies while one looks, and others see to what it leaves.
	s.keys("1")
	s.shows(patience, `i2 +up`)
	third.kill()
	s.shows(patience, `i2 +unreachable`)
	s.shows(burial+patience, `cluster 2\b`)

	// Deleting asks, and names the object.
	s.keys("2", "/", "f", "r", "e", "s", "h", "Enter", "x")
	s.shows(patience, `fresh \(o[0-9a-f]{16}\), vineyard::Tensor<double>, 32B`)
	s.keys("Escape")
	s.shows(patience, `fresh .*Tensor<double>`)
	s.keys("x", "y")
	s.shows(patience, `nothing matches fresh`)
	if _, err := a.dial().GetName(ctx, "fresh", false); err == nil {
		t.Error("what was deleted has its name still")
	}

	// The daemon that is looked at is started again.
	s.keys("Escape")
	a.kill()
	s.shows(patience, "NO ANSWER")
	a.start()
	s.shows(patience, `live`)
	s.shows(patience, `elsewhere|Thing`)
	s.keys("q")
	s.shows(patience, "left with 0")
	if text := s.text(); strings.Contains(text, "objects") {
		t.Errorf("the browser leaves something on the screen:\n%s", text)
	}
	if modes := s.tmux("display-message", "-p", "#{alternate_on} #{mouse_any_flag} #{cursor_flag}"); strings.TrimSpace(modes) != "0 0 1" {
		t.Errorf("alternate screen, mouse and cursor are %q after the browser", modes)
	}
}
