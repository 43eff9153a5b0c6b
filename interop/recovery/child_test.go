//go:build linux

package recovery

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
)

// child is the main function of a helper process: the test binary itself, told
// by the environment what to be.
func child(mode string) int {
	if mode == "scribble" {
		return scribble()
	}
	fmt.Fprintf(os.Stderr, "no such child: %s\n", mode)
	return 2
}

// scribble is a client that outlives its daemon. It writes without end into
// blobs that it never seals, through the mapping of a pool that soon belongs to
// a dead daemon, and checks all the while that blobs which it got by reference
// keep their bytes. It reads lines "ID SUM" of blobs to watch, an empty line,
// and ends when the standard input does.
func scribble() int {
	c, err := client.Dial(ctx, client.Options{Socket: os.Getenv("V6D_SOCKET")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	type watched struct {
		b   *client.Blob
		sum string
	}
	var watch []watched
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() && in.Text() != "" {
		var text, sum string
		fmt.Sscan(in.Text(), &text, &sum)
		id, err := client.ParseID(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if b, err := c.GetBlob(ctx, id); err == nil { // it may be gone by now
			watch = append(watch, watched{b, sum})
		}
	}
	var mine [][]byte
	for _, size := range []int{64, 700, 5000, 300 << 10, 2 << 20} {
		b, err := c.CreateBlob(ctx, size)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println("unsealed", b.ID())
		mine = append(mine, b.Bytes())
	}
	fmt.Println("ready")
	go func() {
		for in.Scan() { //nolint:revive // until it ends
		}
		os.Exit(0)
	}()
	for n := uint64(0); ; n++ {
		r := rand.NewPCG(n, 1)
		for _, b := range mine {
			x := byte(r.Uint64()) | 1
			for i := range b {
				b[i] += x
			}
		}
		for _, w := range watch {
			if sum := hash(w.b.Bytes()); hex.EncodeToString(sum[:]) != w.sum {
				fmt.Println("changed", w.b.ID())
				return 3
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// helper is a running child.
type helper struct {
	cmd  *exec.Cmd
	in   *os.File
	out  *testserver.Output
	done chan struct{}
	age  int // crashes survived
}

// newHelper starts a scribbler that watches some blobs; it returns when it
// scribbles, or nil when the daemon died under it.
func newHelper(t testing.TB, socket string, watch map[client.ID][32]byte) *helper {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h := &helper{cmd: exec.Command(exe), in: w, out: &testserver.Output{}, done: make(chan struct{})}
	h.cmd.Env = append(os.Environ(), "V6D_RECOVERY_CHILD=scribble", "V6D_SOCKET="+socket)
	h.cmd.Stdin, h.cmd.Stdout, h.cmd.Stderr = r, h.out, h.out
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := testserver.StartProcess(h.cmd); err != nil {
		t.Fatal(err)
	}
	r.Close()
	go func() {
		_ = h.cmd.Wait()
		close(h.done)
	}()
	for id, sum := range watch {
		fmt.Fprintf(w, "%s %x\n", id, sum)
	}
	fmt.Fprintln(w)
	if err := eventually(func() error {
		if !strings.Contains(h.out.String(), "ready") && h.running() {
			return fmt.Errorf("the scribbler does not get ready:\n%s", h.out)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	return h
}

func (h *helper) running() bool {
	select {
	case <-h.done:
		return false
	default:
		return true
	}
}

// complaint returns what a helper found wrong, or died of.
func (h *helper) complaint() string {
	if h.running() {
		return ""
	}
	return fmt.Sprintf("a client that maps an earlier pool ended (%v): %s", h.cmd.ProcessState, h.out)
}

// stop ends a helper and so gives its mapping up.
func (h *helper) stop() {
	h.in.Close()
	select {
	case <-h.done:
	case <-time.After(patience):
	}
	_ = h.cmd.Process.Kill()
	<-h.done
}

// unsealed lists the blobs that a helper writes into.
func (h *helper) unsealed() (ids []client.ID) {
	for line := range strings.Lines(h.out.String()) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "unsealed "); ok {
			if id, err := client.ParseID(text); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}
