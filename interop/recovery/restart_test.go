//go:build linux

package recovery

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/server"
)

// populate lets a worker do n random things; what it leaves is in the model.
func populate(t testing.TB, h *host, n int) *model {
	t.Helper()
	m := newModel()
	m.places[0] = newPlace(0, h.socket)
	w := newWorker(m, rand.Uint64(), 1)
	defer w.hangUp()
	c, err := client.Dial(ctx, client.Options{Socket: h.socket})
	if err != nil {
		t.Fatal(err)
	}
	w.sites[0].c = c
	w.tame = true
	for range n {
		if err := w.step(); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// served checks that the daemon serves the model, and returns its status.
func served(t testing.TB, h *host, m *model) server.Status {
	t.Helper()
	f, err := gather(h.socket)
	if err != nil {
		t.Fatalf("read everything back: %v", err)
	}
	m.compare(f)
	for _, fault := range m.faults[:min(len(m.faults), 10)] {
		t.Error(fault)
	}
	if len(m.faults) > 0 {
		t.FailNow()
	}
	return f.status
}

// homes are the places of a pool that survive a crash, as flags.
func homes(t *testing.T, f func(t *testing.T, args []string)) {
	if canMount() {
		t.Run("mount", func(t *testing.T) { f(t, nil) })
	}
	t.Run("devshm", func(t *testing.T) { f(t, []string{"--huge", "never"}) })
	t.Run("folder", func(t *testing.T) { f(t, []string{"--memory", shmFolder(t)}) })
}

// shmFolder makes a folder on a tmpfs.
func shmFolder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "v6d-rec")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// nothingLeft checks that a clean stop took everything along.
func nothingLeft(t testing.TB, h *host) {
	t.Helper()
	if left, _ := filepath.Glob(h.socket + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if n := mounts(h.mountDir()); n > 0 {
		t.Errorf("%d mounts are left", n)
	}
	if _, err := os.Stat(h.shmDir()); err == nil {
		t.Errorf("%s is left", h.shmDir())
	}
}

// TestOtherSize restarts with a larger pool, which must hold what it promises
// beside the recovered one, and with one that is too small for what there is.
func TestOtherSize(t *testing.T) {
	homes(t, func(t *testing.T, args []string) {
		h := newHost(t, args...)
		d := h.start("--size", "64MiB")
		m := populate(t, h, 200)
		d.kill()
		d = h.start("--size", "256MiB")
		served(t, h, m)
		c := h.dial(t)
		for i := range 8 {
			b, err := c.CreateBlob(ctx, 28<<20)
			if err != nil {
				t.Fatalf("blob %d of 28 MiB in a pool of 256: %v", i, err)
			}
			m.addBlob(m.places[0], b.ID(), 28<<20, bytesOf(b.Bytes(), uint64(i)))
			if _, err := b.Seal(ctx); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		d.kill()
		d = h.start("--size", "32MiB")
		served(t, h, m)
		c = h.dial(t)
		if _, err := c.CreateBlob(ctx, 1<<20); !errors.Is(err, client.NoMemory) {
			t.Errorf("a pool of 32 MiB that holds more takes another MiB: %v", err)
		}
		for id, b := range m.places[0].blobs {
			if b.size == 28<<20 {
				if err := c.DropBlob(ctx, id); err != nil {
					t.Fatal(err)
				}
				m.remove(m.places[0], map[client.ID]bool{id: true})
			}
		}
		if _, err := c.CreateBlob(ctx, 1<<20); err != nil {
			t.Errorf("after all large blobs were deleted: %v", err)
		}
		c.Close()
		d.kill()
		h.start("--size", "64MiB")
		served(t, h, m)
	})
}

// TestFresh discards what a crash left.
func TestFresh(t *testing.T) {
	homes(t, func(t *testing.T, args []string) {
		h := newHost(t, append([]string{"--size", "32MiB"}, args...)...)
		d := h.start()
		populate(t, h, 50)
		d.kill()
		d = h.start("--fresh")
		if st := h.status(t); st.Objects != 0 || st.Ledger.Usage != 0 || len(st.Sessions) != 1 || st.Ledger.Files != 1 {
			t.Errorf("--fresh kept something: %+v", st)
		}
		d.stop()
		if args == nil || args[0] != "--memory" {
			nothingLeft(t, h)
		}
	})
}

// TestKeep stops cleanly and starts again.
func TestKeep(t *testing.T) {
	homes(t, func(t *testing.T, args []string) {
		h := newHost(t, append([]string{"--size", "32MiB"}, args...)...)
		keep := []string{"--keep"}
		if args != nil && args[0] == "--memory" {
			keep = nil // a folder of the user's is always kept
		}
		d := h.start(keep...)
		m := populate(t, h, 100)
		d.stop()
		if left, _ := filepath.Glob(h.socket + "*"); len(left) > 0 && !(len(left) == 1 && left[0] == h.mountDir()) {
			t.Errorf("left behind: %v", left)
		}
		d = h.start(keep...)
		served(t, h, m)
		d.stop()
		d = h.start()
		served(t, h, m)
		d.stop()
		if keep != nil {
			nothingLeft(t, h)
		}
	})
}

// TestCleanStop leaves nothing, even while a client maps the pool.
func TestCleanStop(t *testing.T) {
	homes(t, func(t *testing.T, args []string) {
		if args != nil && args[0] == "--memory" {
			t.Skip("a folder of the user's is kept")
		}
		h := newHost(t, append([]string{"--size", "32MiB"}, args...)...)
		d := h.start()
		populate(t, h, 50)
		c := h.dial(t)
		if _, err := c.NewSession(ctx, false); err != nil {
			t.Fatal(err)
		}
		mapped := newHelper(t, h.socket, nil)
		defer mapped.stop()
		d.stop()
		nothingLeft(t, h)
		if text := mapped.complaint(); text != "" {
			t.Error(text)
		}
		d = h.start()
		if st := h.status(t); st.Objects != 0 || st.Ledger.Usage != 0 {
			t.Errorf("a start after a clean stop finds something: %+v", st.Ledger)
		}
		d.stop()
		nothingLeft(t, h)
	})
}

// TestAnonymous loses everything with the daemon, and says so beforehand.
func TestAnonymous(t *testing.T) {
	h := newHost(t, "--size", "32MiB")
	d := h.start("--memory", "anonymous")
	if st := h.status(t); st.Start.Place.Survives || st.Start.Place.Kind != "memfd" {
		t.Errorf("status says %+v", st.Start.Place)
	}
	if !slices.ContainsFunc(strings.Split(d.out.String(), "\n"), func(line string) bool {
		return strings.Contains(line, "survives a crash:") && strings.Contains(line, "no")
	}) {
		t.Errorf("the banner does not say that a crash loses everything:\n%s", d.out)
	}
	populate(t, h, 50)
	d.kill()
	d = h.start("--memory", "anonymous")
	if st := h.status(t); st.Objects != 0 || st.Ledger.Usage != 0 || st.Start.Recovered != 0 {
		t.Errorf("anonymous memory came back: %+v", st)
	}
	d.stop()
	nothingLeft(t, h)

	// A pool that could be recovered is not ignored.
	d = h.start()
	m := populate(t, h, 50)
	d.kill()
	for _, args := range [][]string{{"--memory", "anonymous"}, {"--memory", shmFolder(t)}} {
		d = h.spawn(args...)
		if code := d.wait(); code != 7 || !strings.Contains(d.log.String(), "--fresh") {
			t.Errorf("%v beside a pool that an earlier daemon left: exit code %d\n%s", args, code, d.log)
		}
	}
	h.start()
	served(t, h, m)
}

// TestCrashLoop kills daemons before they can do anything: their files must not
// pile up.
func TestCrashLoop(t *testing.T) {
	homes(t, func(t *testing.T, args []string) {
		h := newHost(t, append([]string{"--size", "32MiB"}, args...)...)
		d := h.start()
		m := populate(t, h, 100)
		dir := h.status(t).Start.Place.Path
		for i := range 12 {
			d.kill()
			d = h.start()
			if files := poolFiles(t, dir); len(files) > 4*len(m.places) {
				t.Fatalf("after %d crashes: %v", i+1, files)
			}
		}
		served(t, h, m)
		if err := eventually(func() error {
			if files := poolFiles(t, dir); len(files) > len(m.places) {
				return fmt.Errorf("%d sessions, but %v", len(m.places), files)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		served(t, h, m)
	})
}

// TestStackedMounts starts where two file systems are mounted over each other:
// a start that lost a race. The lower one is the older, and has the pool.
func TestStackedMounts(t *testing.T) {
	if !canMount() {
		t.Skip("needs the right to mount")
	}
	h := newHost(t, "--size", "32MiB")
	d := h.start()
	m := populate(t, h, 100)
	d.kill()
	for range 2 {
		if err := syscall.Mount("v6d", h.mountDir(), "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
	}
	d = h.start()
	served(t, h, m)
	if n := mounts(h.mountDir()); n != 1 {
		t.Errorf("%d file systems are mounted", n)
	}
	d.stop()
	nothingLeft(t, h)

	// With --fresh all of them go.
	d = h.start()
	d.kill()
	if err := syscall.Mount("v6d", h.mountDir(), "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	d = h.start("--fresh")
	if n := mounts(h.mountDir()); n != 1 {
		t.Errorf("%d file systems are mounted after --fresh", n)
	}
	d.stop()
	nothingLeft(t, h)
}

// TestSessionsComeBack checks sessions of both types on their sockets.
func TestSessionsComeBack(t *testing.T) {
	homes(t, func(t *testing.T, args []string) {
		h := newHost(t, append([]string{"--size", "32MiB"}, args...)...)
		d := h.start()
		c := h.dial(t)
		socket, err := c.NewSession(ctx, true)
		if err != nil {
			t.Fatal(err)
		}
		gone, err := c.NewSession(ctx, true)
		if err != nil {
			t.Fatal(err)
		}
		const name = "a client's own id"
		want := plasmaPut(t, socket, name)
		plasmaPut(t, gone, name)
		if err := dialPlasma(t, gone).DeleteSession(ctx); err != nil {
			t.Fatal(err)
		}
		// The session has been deleted although a connection of it still lives.
		d.kill()
		h.start()
		r, err := dialPlasmaRaw(socket)
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		var got protocol.PlasmaGetReply
		if err := call(r, protocol.PlasmaGet, protocol.PlasmaGetRequest{IDs: protocol.Texts{name}}, &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Payloads) != 1 || got.Payloads[0].PlasmaID != name || got.Payloads[0].PlasmaSize != 5000 {
			t.Fatalf("got %+v", got)
		}
		if err := r.receive(got.Payloads[0].StoreFD); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, got.Payloads[0].DataSize)
		if _, err := r.fds[got.Payloads[0].StoreFD].ReadAt(b, got.Payloads[0].DataOffset); err != nil || hash(b) != want {
			t.Errorf("the plasma blob has other bytes (%v)", err)
		}
		if _, err := os.Stat(gone); err == nil {
			t.Error("a deleted session is back")
		}
		if st := h.status(t); len(st.Sessions) != 2 {
			t.Errorf("sessions: %+v", st.Sessions)
		}
	})
}
