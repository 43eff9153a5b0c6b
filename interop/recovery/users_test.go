//go:build linux

package recovery

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

// TestOtherUsersMapThePool: a daemon without privileges cannot see what its
// clients map, if they are other users'. It must not take that for nothing.
func TestOtherUsersMapThePool(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run as two users")
	}
	const nobody = 65534
	dir := tempDir(t)
	memory := shmFolder(t)
	for _, d := range []string{dir, memory} {
		if err := os.Chown(d, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	// The binary may lie where nobody cannot reach it.
	exe := filepath.Join(dir, "v6d")
	b, err := os.ReadFile(v6d)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, socket: filepath.Join(dir, "d.sock")}
	t.Cleanup(h.cleanup)
	run := func() *daemon {
		cmd := exec.Command(exe, "serve", "--socket", h.socket, "--rpc-listen", "off", "--size", "64MiB", "--memory", memory)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		d := h.launch(cmd)
		if err := h.answers(d); err != nil {
			t.Fatalf("%v\n%s", err, d.log)
		}
		return d
	}
	d := run()
	c := h.dial(t)
	sums := map[client.ID][32]byte{}
	for i := range 10 {
		b := make([]byte, 1<<20)
		sum := bytesOf(b, uint64(i))
		id, err := c.PutBlob(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		sums[id] = sum
	}
	other := newHelper(t, h.socket, sums)
	defer other.stop()
	// Deleted blobs stay as long as the client reads them, whichever daemon runs.
	for i, id := range slices.Sorted(maps.Keys(sums)) {
		if i%2 == 0 {
			if err := c.DropBlob(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.Close()
	d.kill()
	run()
	time.Sleep(1500 * time.Millisecond) // its housekeeping comes round twice
	if text := other.complaint(); text != "" {
		t.Error(text)
	}
	other.stop()
	pool := h.status(t).Start.Place.Path
	if err := eventually(func() error {
		if files := poolFiles(t, pool); len(files) != 1 {
			return fmt.Errorf("after the client has gone: %v", files)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
