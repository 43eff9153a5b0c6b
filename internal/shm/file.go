package shm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
)

// File is one pool file. Number is the store_fd that names it on the wire; a
// number is never reused for another file. The daemon reads and writes payload
// with pread and pwrite: a client that truncates the file costs an error, not a
// signal.
type File struct {
	*os.File
	Number int32
	Size   int64
	path   string // "" for anonymous memory

	damage atomic.Pointer[status.Error] // set when the file was found truncated; never cleared

	mu     sync.Mutex
	backed []bool // units that hold real memory; guarded by mu
	held   int64  // how many of them
}

func newFile(f *os.File, path string, number int32, size int64) *File {
	return &File{File: f, path: path, Number: number, Size: size, backed: make([]bool, (size+Unit-1)/Unit)}
}

// NewDiskFile wraps a file that holds one blob of size bytes. Nothing is
// allocated in it: its size is the client's choice, and sparse.
func NewDiskFile(f *os.File, number int32, size int64) *File {
	return &File{File: f, Number: number, Size: size}
}

// MissingFile stands for a pool file that is no longer there.
func MissingFile(number int32) *File { return newFile(nil, "", number, 0) }

// NewArena makes an anonymous file of size bytes for a client to fill.
func NewArena(number int32, size int64) (*File, error) {
	f, err := sys.Memfd("v6d-arena", size)
	if err != nil {
		return nil, err
	}
	return &File{File: f, Number: number, Size: size}, nil
}

// MapSize is what payloads announce: 0.24 clients map 8 bytes less.
func (f *File) MapSize() int64 { return f.Size + 8 }

// Path returns the file's path, "" for anonymous memory.
func (f *File) Path() string { return f.path }

// NewPoolFile creates a pool file with room for limit bytes of blobs and the
// slack that fragmentation needs.
func (h *Home) NewPoolFile(name string, number int32, limit int64) (*File, error) {
	return h.Create(name, number, fileSpace(limit))
}

// ReservedBytes returns how much of the file holds real memory.
func (f *File) ReservedBytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.held * Unit
	if last := len(f.backed) - 1; last >= 0 && f.backed[last] {
		n -= (int64(last)+1)*Unit - f.Size // the last unit may be cut
	}
	return n
}

// BackedFrom returns how many bytes from the first whole unit of an extent on
// hold real memory without a gap.
func (f *File) BackedFrom(e Extent) int64 {
	first, last := (e.Off+Unit-1)/Unit, (e.Off+e.Size)/Unit
	f.mu.Lock()
	defer f.mu.Unlock()
	u := first
	for u < last && f.backed[u] {
		u++
	}
	return (u - first) * Unit
}

// mark notes whether units hold real memory. Called with mu held.
func (f *File) mark(first, until int64, backed bool) {
	for u := first; u < until; u++ {
		if f.backed[u] == backed {
			continue
		}
		if f.backed[u] = backed; backed {
			f.held++
		} else {
			f.held--
		}
	}
}

// Reserve makes sure that an extent lies on real memory, in whole units, so
// that no client ever meets SIGBUS for want of it. It refuses with
// NotEnoughMemory when the tmpfs, the machine or a memory cgroup lacks room.
// The caller owns the extent and holds no lock.
func (f *File) Reserve(e Extent, lim *Limits) error {
	first, last := e.Off/Unit, (e.Off+e.Size-1)/Unit
	for {
		f.mu.Lock()
		for first <= last && f.backed[first] {
			first++
		}
		until := first
		for until <= last && !f.backed[until] {
			until++
		}
		f.mu.Unlock()
		if first > last {
			return nil
		}
		off := first * Unit
		size := min(until*Unit, f.Size) - off
		if err := errors.Join(lim.Room(size), f.room(size)); err != nil {
			return err
		}
		if err := sys.Fallocate(f.File, off, size); err != nil {
			if sys.IsNoSpace(err) {
				return status.Errorf(status.NotEnoughMemory, "the file system of the pool is full: %w", err).
					WithHint(fullHint)
			}
			return status.Errorf(status.IOError, "reserve %d bytes of the pool: %w", size, err)
		}
		f.mu.Lock()
		f.mark(first, until, true)
		f.mu.Unlock()
	}
}

// Prefault reserves an extent of whole units that nobody uses yet, and makes its
// pages ready to be written to.
func (f *File) Prefault(e Extent, lim *Limits) error {
	if err := f.Reserve(e, lim); err != nil {
		return err
	}
	if err := sys.Populate(f.File, e.Off, e.Size); err != nil && !sys.IsInvalid(err) { // older kernels cannot
		return status.Errorf(status.IOError, "prepare %d bytes of the pool: %w", e.Size, err)
	}
	return nil
}

// room reports whether the file system has room for n more bytes, and for the
// journal to grow beside them: without it nothing could be deleted any more.
func (f *File) room(n int64) error {
	if f.path == "" {
		return nil // anonymous memory has no file system
	}
	free, _, err := sys.FreeBytes(f.File)
	if err == nil && free < n+margin {
		return status.Errorf(status.NotEnoughMemory, "the file system of the pool is full: it has room for %d MiB more, %d MiB are needed",
			max(free-margin, 0)>>20, (n+Unit-1)>>20).WithHint(fullHint)
	}
	return err
}

const fullHint = "delete objects, give the tmpfs more room, or start with a smaller --size"

// BackedUnits returns the first stretch of whole units inside e that holds real
// memory, at most limit bytes long.
func (f *File) BackedUnits(e Extent, limit int64) (Extent, bool) {
	first, last := (e.Off+Unit-1)/Unit, (e.Off+e.Size)/Unit
	f.mu.Lock()
	defer f.mu.Unlock()
	for first < last && !f.backed[first] {
		first++
	}
	until := first
	for until < last && f.backed[until] && (until-first+1)*Unit <= limit {
		until++
	}
	return Extent{first * Unit, (until - first) * Unit}, until > first
}

// GiveBack returns the memory of whole units to the system. The caller keeps
// the extent out of use meanwhile.
func (f *File) GiveBack(e Extent) error {
	first, last := e.Off/Unit, (e.Off+e.Size)/Unit
	f.mu.Lock()
	f.mark(first, last, false)
	f.mu.Unlock()
	return sys.PunchHole(f.File, e.Off, e.Size)
}

// Punch returns the whole plain pages inside an extent of a file that is no
// longer allocated from.
func (f *File) Punch(e Extent) error {
	page := int64(sys.PageSize)
	lo := (e.Off + page - 1) / page * page
	hi := (e.Off + e.Size) / page * page
	if hi <= lo {
		return nil
	}
	return sys.PunchHole(f.File, lo, hi-lo)
}

// Damaged reports what CheckSize found, without looking again: growing the file
// does not bring its bytes back.
func (f *File) Damaged() error {
	if err := f.damage.Load(); err != nil {
		return err
	}
	return nil
}

// CheckSize reports a file that someone truncated, naming the processes that
// map it.
func (f *File) CheckSize() error {
	if err := f.Damaged(); err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() >= f.Size {
		return nil
	}
	damage := status.Errorf(status.IOError, "pool file %s was truncated from %d to %d bytes by one of the processes that map it: %s",
		f.name(), f.Size, st.Size(), f.mappers()).WithHint("whoever may open the socket can do that; restart the daemon with --fresh")
	f.damage.CompareAndSwap(nil, damage)
	return f.Damaged()
}

func (f *File) name() string {
	if f.path == "" {
		return f.Name()
	}
	return f.path
}

// Remove unlinks the file; mappings of it stay valid.
func (f *File) Remove() error {
	if f.path == "" {
		return nil
	}
	return os.Remove(f.path)
}

// Mappers lists the other processes that map the file.
func (f *File) Mappers() []int { return Mappers(f)[f] }

// Mappers lists the other processes that map each of some files.
func Mappers(files ...*File) map[*File][]int {
	want := map[*File][]byte{}
	for _, f := range files {
		if dev, ino, err := sys.Inode(f.File); err == nil {
			want[f] = fmt.Appendf(nil, " %02x:%02x %d ", dev>>8&0xfff, dev&0xff|dev>>12&0xfff00, ino)
		}
	}
	if len(want) == 0 {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	pids := map[*File][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		maps, err := os.ReadFile(filepath.Join("/proc", e.Name(), "maps"))
		if err != nil {
			continue
		}
		for f, line := range want {
			if bytes.Contains(maps, line) {
				pids[f] = append(pids[f], pid)
			}
		}
	}
	return pids
}

// Used tells which of some files of earlier daemons may still be mapped. The maps
// of other users' processes can be hidden from us; but what they map was opened
// by an earlier daemon, which shows.
func Used(files ...*File) map[*File]bool {
	used := map[*File]bool{}
	for f := range Mappers(files...) {
		used[f] = true
	}
	for _, f := range files {
		if elsewhere, err := sys.OpenElsewhere(f.File); err == nil && elsewhere {
			used[f] = true
		}
	}
	return used
}

func (f *File) mappers() string {
	pids := f.Mappers()
	if len(pids) == 0 {
		return "none any more"
	}
	texts := make([]string, len(pids))
	for i, pid := range pids {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		texts[i] = fmt.Sprintf("%d (%s)", pid, strings.TrimSpace(string(comm)))
	}
	return strings.Join(texts, ", ")
}
