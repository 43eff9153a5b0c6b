package shm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
	"pgregory.net/rapid"
)

// folderHome is a home in a folder of its own in /dev/shm.
func folderHome(t testing.TB, size int64) *Home {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "v6d-shm-test-")
	if err != nil {
		t.Skipf("no folder in /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h, err := OpenHome(HomeOptions{Memory: dir, Huge: "never", Socket: filepath.Join(dir, "sock"), Size: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(true); err != nil {
			t.Error(err)
		}
	})
	return h
}

// plenty is a machine without limits.
func plenty(t testing.TB) *Limits {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meminfo")
	if err := os.WriteFile(path, []byte("MemAvailable: 99999999 kB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Limits{meminfo: path}
}

func poolFile(t testing.TB, h *Home, name string, size int64) *File {
	t.Helper()
	f, err := h.Create(name, 1, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// allocated is the memory that the kernel holds for a file.
func allocated(t testing.TB, f *File) int64 {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Blocks * 512
}

// TestReserveModel reserves extents and gives units back in any order, against
// a list of the units that must hold memory, and against the kernel's count.
func TestReserveModel(t *testing.T) {
	const size = 4*Unit + Unit/2 // the last unit is cut
	h, lim := folderHome(t, size), plenty(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		f, err := h.Create("model"+string(rune('0'+n%10)), int32(n), size)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = errors.Join(f.Remove(), f.Close()) }()
		var backed [5]bool
		rt.Repeat(map[string]func(*rapid.T){
			"reserve": func(rt *rapid.T) {
				off := rapid.Int64Range(0, size-1).Draw(rt, "off")
				e := Extent{off, rapid.Int64Range(1, min(size-off, Unit)).Draw(rt, "size")}
				if err := f.Reserve(e, lim); err != nil {
					rt.Fatal(err)
				}
				for u := e.Off / Unit; u <= (e.Off+e.Size-1)/Unit; u++ {
					backed[u] = true
				}
			},
			"give back": func(rt *rapid.T) {
				off := rapid.Int64Range(0, size-1).Draw(rt, "off")
				e := Extent{off, rapid.Int64Range(1, size-off).Draw(rt, "size")}
				limit := rapid.Int64Range(1, 4).Draw(rt, "limit") * Unit
				got, ok := f.BackedUnits(e, limit)
				var want Extent
				for u := (e.Off + Unit - 1) / Unit; u < (e.Off+e.Size)/Unit; u++ {
					if backed[u] && want.Size == 0 {
						want.Off = u * Unit
					}
					if backed[u] && want.Size < limit {
						want.Size += Unit
					} else if want.Size > 0 {
						break
					}
				}
				if ok != (want.Size > 0) || ok && got != want {
					rt.Fatalf("BackedUnits(%v, %d) = %v %v, want %v", e, limit, got, ok, want)
				}
				if !ok {
					return
				}
				if err := f.GiveBack(got); err != nil {
					rt.Fatal(err)
				}
				for u := got.Off / Unit; u < (got.Off+got.Size)/Unit; u++ {
					backed[u] = false
				}
			},
			"": func(rt *rapid.T) {
				var want int64
				for u, b := range backed {
					if b {
						want += min(Unit, size-int64(u)*Unit)
					}
				}
				if got := f.ReservedBytes(); got != want {
					rt.Fatalf("reserved %d, want %d", got, want)
				}
				if got := allocated(t, f); got != want {
					rt.Fatalf("the kernel holds %d bytes, want %d", got, want)
				}
			},
		})
	})
}

// TestReserveFull: on a full file system an extent is refused with 41, what was
// reserved before stays, and a smaller one may still fit.
func TestReserveFull(t *testing.T) {
	dir := t.TempDir()
	if err := sys.MountHugeTmpfs(dir, margin+3*Unit, "never"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = sys.Detach(dir) })
	f := poolFile(t, &Home{kind: folder, dir: dir}, "pool", 8*Unit)
	lim := plenty(t)
	for _, step := range []struct {
		e    Extent
		want error
		used int64
	}{
		{Extent{0, 1}, nil, Unit},
		{Extent{Unit / 2, 5 * Unit}, status.NotEnoughMemory, Unit},
		{Extent{6*Unit - 1, 2}, nil, 3 * Unit},
		{Extent{4 * Unit, 1}, status.NotEnoughMemory, 3 * Unit},
		{Extent{6 * Unit, Unit}, nil, 3 * Unit},
	} {
		if err := f.Reserve(step.e, lim); !errors.Is(err, step.want) || f.ReservedBytes() != step.used {
			t.Fatalf("Reserve(%v) = %v with %d bytes, want %v with %d", step.e, err, f.ReservedBytes(), step.want, step.used)
		}
	}
	if err := f.GiveBack(Extent{5 * Unit, 2 * Unit}); err != nil {
		t.Fatal(err)
	}
	if err := f.Reserve(Extent{Unit, 2 * Unit}, lim); err != nil {
		t.Errorf("memory that was given back cannot be had again: %v", err)
	}
}

// TestReserveLimit: nothing is reserved beyond what the machine allows.
func TestReserveLimit(t *testing.T) {
	f := poolFile(t, folderHome(t, 8*Unit), "pool", 8*Unit)
	lim := plenty(t)
	meminfo := func(n int64) {
		text := "MemTotal: 1 kB\nMemAvailable: " + itoa(n>>10) + " kB\n"
		if err := os.WriteFile(lim.meminfo, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	meminfo(margin + 2*Unit)
	if err := f.Reserve(Extent{0, 2 * Unit}, lim); err != nil {
		t.Fatal(err)
	}
	meminfo(margin + 2*Unit - 1024)
	if err := f.Reserve(Extent{0, 4 * Unit}, lim); !errors.Is(err, status.NotEnoughMemory) {
		t.Errorf("beyond the memory of the machine: %v", err)
	}
	if got := allocated(t, f); got != 2*Unit {
		t.Errorf("the refused extent took %d bytes", got-2*Unit)
	}
	meminfo(0)
	if err := f.Reserve(Extent{Unit / 2, Unit}, lim); err != nil {
		t.Errorf("an extent that lies on memory already: %v", err)
	}
}

// TestReserveConcurrently: callers whose extents share units do not get in each
// other's way, and a hole reads as zeros.
func TestReserveConcurrently(t *testing.T) {
	const size = 16 * Unit
	f, lim := poolFile(t, folderHome(t, size), "pool", size), plenty(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for off := int64(w) * 64; off+Unit <= size; off += Unit / 2 {
				if err := f.Reserve(Extent{off, Unit}, lim); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if f.ReservedBytes() != size || allocated(t, f) != size {
		t.Errorf("reserved %d, the kernel holds %d, want %d", f.ReservedBytes(), allocated(t, f), size)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{7}, 3*Unit), Unit); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.GiveBack(Extent{2 * Unit, Unit}), f.Punch(Extent{3*Unit + 10, 3 * 4096})); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3*Unit)
	if _, err := f.ReadAt(got, Unit); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{7}, 3*Unit)
	clear(want[Unit : 2*Unit])
	page := sys.PageSize
	clear(want[2*Unit+page : 2*Unit+(10+3*4096)/page*page])
	if !bytes.Equal(got, want) {
		t.Error("bytes beside a hole changed, or the hole does not read as zeros")
	}
}

// TestCheckSize: a file that someone cut short is reported, not believed.
func TestCheckSize(t *testing.T) {
	f := poolFile(t, folderHome(t, Unit), "pool", Unit)
	if err := f.CheckSize(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(f.Path(), Unit/2); err != nil {
		t.Fatal(err)
	}
	if err := f.CheckSize(); !errors.Is(err, status.IOError) {
		t.Errorf("a cut file: %v", err)
	}
}

// TestFolderBySocket: the folder of a pool follows the socket, however its path
// is written.
func TestFolderBySocket(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "v6d-shm-test-")
	if err != nil {
		t.Skipf("no folder in /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	open := func(cwd, socket string) string {
		t.Helper()
		t.Chdir(cwd)
		h, err := OpenHome(HomeOptions{Memory: dir, Socket: socket, Size: Unit})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close(false)
		return h.dir
	}
	a, b := t.TempDir(), t.TempDir()
	if open(a, "s.sock") != open("/", filepath.Join(a, "s.sock")) {
		t.Error("a relative path and its absolute form name two pools")
	}
	if open(a, "s.sock") == open(b, "s.sock") {
		t.Error("sockets in two folders share a pool")
	}
}

// TestOpen: pool files are opened by name or number, and nothing else is.
func TestOpen(t *testing.T) {
	h := folderHome(t, Unit)
	made, err := h.NewPoolFile("pool-x-7", 7, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	for _, name := range []string{"pool-x-7", ""} {
		f, err := h.Open(name, 7)
		if err != nil || f.Path() != made.Path() || f.Size != made.Size || f.ReservedBytes() != 0 {
			t.Fatalf("open %q: %+v, %v", name, f, err)
		}
		f.Close()
	}
	if err := os.WriteFile(h.JournalPath(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"journal", "../" + filepath.Base(h.dir) + "/pool-x-7", ".", "..", "/etc/hostname", "none"} {
		if f, err := h.Open(name, 7); err == nil {
			t.Errorf("%q is opened as a pool file: %s", name, f.Path())
		}
	}
	if _, err := h.Open("", 8); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a number that no file has: %v", err)
	}
}
