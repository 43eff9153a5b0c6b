// Package terminal plays a terminal for a program: a pseudo-terminal, and an emulator
// that keeps the screen as a user would see it. Tests and benchmarks look at screens
// with it.
package terminal

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"golang.org/x/term"
)

// Terminal is a program on a terminal of its own.
type Terminal struct {
	Cmd   *exec.Cmd
	Modes term.State // as they were before the program

	ours   *os.File // the terminal's side
	theirs *os.File // kept open to look at its modes
	ended  chan error

	mu      sync.Mutex
	screen  *vt.Emulator  // guarded by mu
	raw     []byte        // guarded by mu
	changed chan struct{} // closed when something is drawn; guarded by mu
	drawn   time.Time     // when the last of it came; guarded by mu
}

// Start runs a command on a terminal of so many columns and rows. The caller closes
// it.
func Start(cmd *exec.Cmd, columns, rows int) (*Terminal, error) {
	ours, theirs, err := pty.Open()
	if err != nil {
		return nil, err
	}
	t := &Terminal{
		Cmd: cmd, ours: ours, theirs: theirs, ended: make(chan error, 1),
		screen: vt.NewEmulator(columns, rows), changed: make(chan struct{}),
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err = t.Resize(columns, rows); err == nil {
		if t.Modes, err = t.ReadModes(); err == nil {
			err = cmd.Start()
		}
	}
	if err != nil {
		return nil, errors.Join(err, ours.Close(), theirs.Close())
	}
	go func() { t.ended <- cmd.Wait() }()
	go func() { _, _ = io.Copy(ours, t.screen) }() // what the terminal answers
	go t.draw()
	return t, nil
}

// draw brings what the program writes to the screen, until it is closed.
func (t *Terminal) draw() {
	b := make([]byte, 64<<10)
	for {
		n, err := t.ours.Read(b)
		now := time.Now()
		t.mu.Lock()
		t.raw = append(t.raw, b[:n]...)
		_, _ = t.screen.Write(b[:n])
		t.drawn = now
		close(t.changed)
		t.changed = make(chan struct{})
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Close kills the program, if it is still there, and frees the terminal.
func (t *Terminal) Close() {
	_ = t.Cmd.Process.Kill() // it may have ended by itself
	_ = t.ours.Close()
	_ = t.theirs.Close()
	if in, ok := t.screen.InputPipe().(io.Closer); ok {
		_ = in.Close()
	}
}

// Ended yields the error of the program's end, once.
func (t *Terminal) Ended() <-chan error { return t.ended }

// Resize tells the program another size. The screen of the emulator stays as large as
// it was.
func (t *Terminal) Resize(columns, rows int) error {
	return pty.Setsize(t.ours, &pty.Winsize{Rows: uint16(rows), Cols: uint16(columns)})
}

// ReadModes returns the modes of the terminal.
func (t *Terminal) ReadModes() (term.State, error) {
	m, err := term.GetState(int(t.theirs.Fd()))
	if err != nil {
		return term.State{}, err
	}
	return *m, nil
}

// Type presses keys.
func (t *Terminal) Type(keys string) error {
	_, err := io.WriteString(t.ours, keys)
	return err
}

// Sent returns all that the program has written.
func (t *Terminal) Sent() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.raw)
}

// Screen returns what is to be seen: lines, without colours.
func (t *Terminal) Screen() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.screen.String()
}

// Wait waits until the screen is as wanted, and returns when the last of it had come
// from the program.
func (t *Terminal) Wait(ctx context.Context, wanted func(screen string) bool) (time.Time, error) {
	for {
		t.mu.Lock()
		screen, drawn, changed := t.screen.String(), t.drawn, t.changed
		t.mu.Unlock()
		if wanted(screen) {
			return drawn, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
	}
}
