package shm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/v6d-go/v6d/internal/status"
)

// machine makes files that look like a machine with so much free memory and, per
// cgroup from the root down, limit, use, and cache that can be dropped.
func machine(t *testing.T, freeMiB int, version string, groups ...[3]int) *Limits {
	t.Helper()
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	meminfo, self := filepath.Join(root, "meminfo"), filepath.Join(root, "self")
	write(meminfo, fmt.Sprintf("MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable:   %d kB\n", freeMiB<<10))
	mount, line, limit, usage, prefix := filepath.Join(root, "cg", "memory"), "7:cpu,memory:", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
	if version == "v2" {
		mount, line, limit, usage, prefix = filepath.Join(root, "cg"), "0::", "memory.max", "memory.current", ""
	}
	path := "/"
	for i, g := range groups {
		dir := filepath.Join(mount, path)
		text := fmt.Sprint(g[0] << 20)
		if g[0] < 0 && version == "v2" {
			text = "max"
		} else if g[0] < 0 {
			text = "9223372036854771712" // no limit, in v1
		}
		write(filepath.Join(dir, limit), text+"\n")
		write(filepath.Join(dir, usage), fmt.Sprintln(g[1]<<20))
		write(filepath.Join(dir, "memory.stat"), fmt.Sprintf("cache 1\n%[2]sactive_file 0\n%[2]sinactive_file %[1]d\n", g[2]<<20, prefix))
		if i < len(groups)-1 {
			path = filepath.Join(path, fmt.Sprintf("g%d", i))
		}
	}
	write(self, "12:pids:/x\n"+line+path+"\n")
	return &Limits{meminfo: meminfo, groups: findGroups(self, filepath.Join(root, "cg"))}
}

// TestRoom: the tightest of memory and all cgroups above decides, less what the
// daemon needs itself, plus cache that the kernel drops when asked.
func TestRoom(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		for _, c := range []struct {
			what   string
			free   int
			groups [][3]int
			room   int // MiB that can be had; one more cannot
		}{
			{"no cgroup", 1000, nil, 1000 - 16},
			{"no limit", 1000, [][3]int{{-1, 900, 0}}, 1000 - 16},
			{"a limit", 9999, [][3]int{{-1, 0, 0}, {800, 300, 0}}, 500 - 100},
			{"a small one", 9999, [][3]int{{-1, 0, 0}, {100, 20, 0}}, 80 - 16},
			{"a large one", 99999, [][3]int{{-1, 0, 0}, {8000, 2000, 0}}, 6000 - 256},
			{"an ancestor's", 9999, [][3]int{{-1, 0, 0}, {400, 200, 0}, {800, 100, 0}}, 200 - 50},
			{"full of cache", 9999, [][3]int{{-1, 0, 0}, {800, 800, 600}}, 600 - 100},
			{"memory is tighter", 300, [][3]int{{-1, 0, 0}, {800, 100, 0}}, 300 - 16},
			{"over the limit", 9999, [][3]int{{-1, 0, 0}, {800, 900, 0}}, -1},
		} {
			l := machine(t, c.free, version, c.groups...)
			if c.room >= 0 {
				if err := l.Room(int64(c.room) << 20); err != nil {
					t.Errorf("%s, %s: %d MiB: %v", version, c.what, c.room, err)
				}
			}
			if err := l.Room(int64(c.room+1)<<20 + 1); !errors.Is(err, status.NotEnoughMemory) {
				t.Errorf("%s, %s: %d MiB: %v, want NotEnoughMemory", version, c.what, c.room+1, err)
			}
		}
	}
}
