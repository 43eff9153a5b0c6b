package tui

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/charmbracelet/x/exp/teatest/v2"
	"github.com/charmbracelet/x/vt"

	"github.com/v6d-go/v6d/client"
)

// flow is a browser run by a real program, on the screen of a terminal.
type flow struct {
	t    *testing.T
	src  *fake
	tm   *teatest.TestModel
	term *vt.Emulator
	raw  strings.Builder
}

func startFlow(t *testing.T, o Options, rows int) *flow {
	src := newFake().fill(rows)
	o.Theme = "dark"
	f := &flow{t: t, src: src, term: vt.NewEmulator(100, 30)}
	f.tm = teatest.NewTestModel(t, New(t.Context(), src, o), teatest.WithInitialTermSize(100, 30))
	go func() { _, _ = io.Copy(io.Discard, f.term) }() // what the terminal answers
	t.Cleanup(func() { f.term.InputPipe().(io.Closer).Close() })
	return f
}

func (f *flow) draw() string {
	out, err := io.ReadAll(f.tm.Output())
	if err != nil {
		f.t.Fatal(err)
	}
	f.raw.Write(out)
	// Without a terminal to set to raw mode, the program leaves newlines to it.
	if _, err := f.term.WriteString(strings.ReplaceAll(string(out), "\n", "\r\n")); err != nil {
		f.t.Fatal(err)
	}
	return f.term.String()
}

// sees waits until texts are on the screen; ! before one means that it is not.
func (f *flow) sees(texts ...string) {
	f.t.Helper()
	missing := func(screen string) bool {
		return slices.ContainsFunc(texts, func(text string) bool {
			rest, not := strings.CutPrefix(text, "!")
			return strings.Contains(screen, rest) == not
		})
	}
	deadline := time.Now().Add(10 * time.Second)
	for missing(f.draw()) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%q is wanted\n%s", texts, f.term.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (f *flow) keys(keys ...string) {
	for _, k := range keys {
		f.tm.Send(press(k))
	}
}

// ran fails unless these commands were run.
func (f *flow) ran(want string) {
	f.t.Helper()
	if got := f.src.commands(); got != want {
		f.t.Errorf("ran %q, want %q", got, want)
	}
}

// quits waits for the end, and looks at what is left on the terminal.
func (f *flow) quits() {
	f.t.Helper()
	f.tm.WaitFinished(f.t, teatest.WithFinalTimeout(10*time.Second))
	f.draw()
	raw := f.raw.String()
	for on, off := range map[string]string{"\x1b[?1049h": "\x1b[?1049l", "\x1b[?1002h": "\x1b[?1002l", "\x1b[?25l": "\x1b[?25h", "\x1b[?2004h": "\x1b[?2004l"} {
		if strings.Count(raw, on) == 0 || strings.LastIndex(raw, on) > strings.LastIndex(raw, off) {
			f.t.Errorf("%q was not undone by %q", on, off)
		}
	}
	if screen := strings.TrimSpace(f.term.String()); screen != "" {
		f.t.Errorf("left on the terminal:\n%s", screen)
	}
}

// TestFlowDelete goes from the list to a value and back, and deletes.
func TestFlowDelete(t *testing.T) {
	t.Parallel()
	f := startFlow(t, Options{View: "objects"}, 30)
	f.sees("v6d › i1 › objects 30", "▸ "+oid(0).String(), "live")
	f.keys("/")
	f.tm.Type("name_0")
	f.sees("objects 1/30", "/name_0", "!"+oid(1).String())
	f.keys("enter", "enter")
	f.sees("objects 1/30 › name_0", "type   vineyard::DataFrame", "members (30)", "__columns_-0")
	f.keys("v")
	f.sees("› value", "30 rows, 3 columns", "city string", "Łódź", "NaN")
	f.keys("esc", "esc")
	f.sees("objects 1/30", "!› name_0")
	f.keys("x")
	f.sees("Delete?", "name_0 ("+oid(0).String(), "$ v6d rm "+oid(0).String(), "y does it, esc leaves")
	f.ran("")
	f.keys("esc", "x", "y")
	f.sees("objects 0/29", "nothing matches name_0", "done: v6d rm "+oid(0).String())
	f.keys("esc")
	f.sees("objects 29", oid(1).String(), "!name_0 ")
	f.ran("rm " + oid(0).String() + "\n")
	f.keys("q")
	f.quits()
}

// TestFlowMigrate moves marked objects, where to is typed.
func TestFlowMigrate(t *testing.T) {
	t.Parallel()
	f := startFlow(t, Options{View: "names"}, 30)
	f.sees("names 30", "name_00000")
	f.keys("space", "space", "m")
	f.sees("Migrate", "2 objects", "to instance:")
	f.tm.Type("i2")
	f.sees("$ v6d migrate " + oid(0).String() + " --to i2")
	f.keys("enter")
	f.sees("Migrate?", "and 1 more", "y or enter does it")
	f.ran("")
	f.src.hold("Run")
	f.keys("enter", "q")
	f.sees("Quit?", "A command is still at work")
	f.keys("esc")
	f.src.release("Run")
	f.sees("done: 2 commands")
	f.ran("migrate " + oid(0).String() + " --to i2\nmigrate " + oid(1).String() + " --to i2\n")
	f.keys("@")
	f.sees("commands that were run", "v6d migrate "+oid(1).String()+" --to i2")
	f.keys("ctrl+c")
	f.quits()
}

// TestFlowLive shows what happens while it is looked at.
func TestFlowLive(t *testing.T) {
	t.Parallel()
	f := startFlow(t, Options{View: "objects"}, 5)
	f.sees("objects 5", "live")
	f.src.change("created", []client.ID{oid(99)}, func() {
		f.src.rows = append(f.src.rows, client.Row{ID: oid(99), Names: []string{"東京 🎉"}})
	})
	f.sees("objects 6", oid(99).String(), "東京 🎉")
	f.src.change("deleted", []client.ID{oid(0)}, func() { f.src.rows = f.src.rows[1:] })
	f.sees("objects 5", "!"+oid(0).String(), "!▸")
	f.keys("x")
	f.sees("nothing is selected")
	f.keys("q")
	f.quits()
	f.ran("")
}

// output is what a program writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// TestRun ends with a key, or with its context, and leaves nothing at work.
func TestRun(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"a key", "the context"} {
		t.Run(how, func(t *testing.T) {
			src := newFake().fill(3)
			src.hold("Objects")
			in, keys := io.Pipe()
			defer keys.Close()
			var out output
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			ended := make(chan error, 1)
			go func() { ended <- Run(ctx, src, Options{Input: in, Output: &out}) }()
			for src.asked("Objects") == 0 || src.asked("Watch") < 2 || !strings.Contains(out.String(), "\x1b[?1049h") {
				time.Sleep(time.Millisecond)
			}
			var want error
			if how == "a key" {
				if _, err := io.WriteString(keys, "q"); err != nil {
					t.Fatal(err)
				}
			} else {
				want = errBroken
				cancel(want)
			}
			select {
			case err := <-ended:
				if !errors.Is(err, want) {
					t.Errorf("it ended with %v, want %v", err, want)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it does not end")
			}
			if text := out.String(); !strings.Contains(text, "\x1b[?1049h") || strings.LastIndex(text, "\x1b[?1049h") > strings.LastIndex(text, "\x1b[?1049l") {
				t.Errorf("the alternate screen was not taken or not left: %q", text)
			}
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				src.mu.Lock()
				n := src.ended["Objects"] + src.ended["Watch"]
				src.mu.Unlock()
				if n == 2 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("questions are still at work")
				}
			}
		})
	}
}
