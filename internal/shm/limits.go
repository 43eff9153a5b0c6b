package shm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/v6d-go/v6d/internal/status"
)

const (
	// margin is what must stay free beyond a request, in bytes: on a tmpfs for
	// the journal, elsewhere for the daemon itself.
	margin = 16 << 20
	// most is the margin in a large memory cgroup; in a small one it is 1/8.
	most = 256 << 20
)

// Limits knows what the machine and the daemon's memory cgroups still allow.
// fallocate beyond a cgroup's limit does not fail: the kernel kills the daemon.
// So the room is looked up before pages are reserved.
//
// The files that tell are opened once and stay open: a daemon that has run out
// of descriptors would otherwise find no limits.
type Limits struct {
	meminfo string
	groups  []group

	mu   sync.Mutex
	open map[string]*os.File // guarded by mu
}

// group is one memory cgroup: files that hold its limit and its use.
type group struct{ dir, limit, usage string }

// NewLimits finds the memory cgroups of this process, v1 and v2.
func NewLimits() *Limits {
	l := &Limits{meminfo: "/proc/meminfo", groups: findGroups("/proc/self/cgroup", "/sys/fs/cgroup")}
	_, _ = l.Available() // opens the files; what cannot be read now is asked again
	return l
}

// Close closes the files.
func (l *Limits) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for path, f := range l.open {
		_ = f.Close() // it was only read
		delete(l.open, path)
	}
}

// read returns what a file of the kernel says now.
func (l *Limits) read(path string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.open[path]
	if f == nil {
		var err error
		if f, err = os.Open(path); err != nil {
			return "", err
		}
		if l.open == nil {
			l.open = map[string]*os.File{}
		}
		l.open[path] = f
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	return string(b), err
}

func findGroups(self, root string) []group {
	b, err := os.ReadFile(self)
	if err != nil {
		return nil
	}
	var out []group
	add := func(mount, path, limit, usage string) {
		for dir := filepath.Join(mount, path); ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, limit)); err == nil {
				out = append(out, group{dir, limit, usage})
			}
			if len(dir) <= len(mount) {
				return
			}
		}
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			for _, mount := range []string{root, filepath.Join(root, "unified")} {
				add(mount, parts[2], "memory.max", "memory.current")
			}
		case strings.Contains(","+parts[1]+",", ",memory,"):
			add(filepath.Join(root, "memory"), parts[2], "memory.limit_in_bytes", "memory.usage_in_bytes")
		}
	}
	return out
}

// Room reports whether n more bytes of pool pages can be had without harm.
func (l *Limits) Room(n int64) error {
	avail, err := l.Available()
	if err != nil {
		return nil //nolint:nilerr // without /proc there is nothing to compare with
	}
	if avail.Bytes < n+avail.Margin {
		return status.Errorf(status.NotEnoughMemory, "%s allows %d MiB more, %d MiB are needed",
			avail.By, max(avail.Bytes-avail.Margin, 0)>>20, (n+Unit-1)>>20).
			WithHint("delete objects, raise that limit, or start with a smaller --size")
	}
	return nil
}

// Availability is the tightest of the limits.
type Availability struct {
	Bytes  int64
	Margin int64  // of these, what the daemon must leave alone
	By     string // what sets it, such as "memory cgroup /x" or "free memory"
}

// Available returns how many bytes of pages can still be had.
func (l *Limits) Available() (Availability, error) {
	mem, err := l.memAvailable()
	if err != nil {
		return Availability{}, err
	}
	a := Availability{mem, margin, "free memory of the machine"}
	for _, g := range l.groups {
		limit, err1 := l.readNumber(filepath.Join(g.dir, g.limit))
		usage, err2 := l.readNumber(filepath.Join(g.dir, g.usage))
		if err1 != nil || err2 != nil || limit < 0 {
			continue
		}
		left, keep := limit-usage+l.reclaimable(g.dir), min(max(limit/8, margin), most)
		if left-keep < a.Bytes-a.Margin {
			a = Availability{left, keep, "memory cgroup " + g.dir}
		}
	}
	return a, nil
}

// reclaimable returns how much of a memory cgroup's use is cache of files that
// the kernel drops when memory is short, such as that of a file that was just
// put. Pages of a tmpfs are not among it.
func (l *Limits) reclaimable(dir string) int64 {
	text, err := l.read(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return 0
	}
	stat := map[string]int64{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			// v1 has its children's share only in the keys with total_.
			key, total := strings.CutPrefix(key, "total_")
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && (total || stat[key] == 0) {
				stat[key] = n
			}
		}
	}
	return stat["inactive_file"] + stat["active_file"]/2
}

// CgroupLimit returns the tightest memory cgroup limit, -1 when there is none.
func (l *Limits) CgroupLimit() (limit int64, dir string) {
	limit = -1
	for _, g := range l.groups {
		n, err := l.readNumber(filepath.Join(g.dir, g.limit))
		if err == nil && n >= 0 && n < 1<<60 && (limit < 0 || n < limit) {
			limit, dir = n, g.dir
		}
	}
	return limit, dir
}

// readNumber reads a cgroup file; "max" is -1.
func (l *Limits) readNumber(path string) (int64, error) {
	text, err := l.read(path)
	if err != nil {
		return 0, err
	}
	s := strings.TrimSpace(text)
	if s == "max" {
		return -1, nil
	}
	u, err := strconv.ParseUint(s, 10, 64)
	return int64(min(u, 1<<62)), err
}

func (l *Limits) memAvailable() (int64, error) {
	text, err := l.read(l.meminfo)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kb); n == 1 {
			return kb << 10, nil
		}
	}
	return 0, errors.New("no MemAvailable in " + l.meminfo)
}

// DefaultSize returns the pool size of a daemon that was given none: half of
// what /dev/shm, cgroup and memory allow.
func DefaultSize() (size int64, by string) {
	l := NewLimits()
	defer l.Close()
	avail, err := l.Available()
	if err != nil {
		avail = Availability{1 << 30, margin, "a guess: /proc/meminfo cannot be read"}
	}
	return max(avail.Bytes/2/Unit*Unit, Unit), "half of the " + avail.By
}
