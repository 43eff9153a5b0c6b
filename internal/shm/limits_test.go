package shm

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/internal/status"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// fakeGroups writes the files of a cgroup tree and returns what findGroups
// makes of them.
func fakeGroups(t *testing.T, self string, files map[string]string) *Limits {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, "fs", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	proc := filepath.Join(root, "cgroup")
	meminfo := filepath.Join(root, "meminfo")
	err := errors.Join(os.WriteFile(proc, []byte(self), 0o600),
		os.WriteFile(meminfo, []byte("MemFree: 1 kB\nMemAvailable:    8388608 kB\nBuffers: 1 kB\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return &Limits{meminfo: meminfo, groups: findGroups(proc, filepath.Join(root, "fs"))}
}

func TestLimits(t *testing.T) {
	const memory = "the machine"
	for name, c := range map[string]struct {
		self   string
		files  map[string]string
		groups int
		avail  int64
		by     string // the end of the folder that is tightest
		limit  int64  // of CgroupLimit
	}{
		"no cgroups": {"", nil, 0, 8 << 30, memory, -1},
		"v2, no limit": {
			"0::/a/b\n",
			map[string]string{"a/memory.max": "max", "a/memory.current": "5", "a/b/memory.max": "max", "a/b/memory.current": "5"},
			2, 8 << 30, memory, -1,
		},
		"v2, the ancestor is tighter": {
			"0::/a/b/c\n", map[string]string{
				"a/memory.max": "1000000", "a/memory.current": "900000",
				"a/b/memory.max": "max", "a/b/memory.current": "1",
				"a/b/c/memory.max": "500000", "a/b/c/memory.current": "100",
			}, 3, 100000, "fs/a", 500000,
		},
		"v2, own limit": {
			"0::/a\n",
			map[string]string{"a/memory.max": "1073741824", "a/memory.current": "73741824"},
			1, 1000000000, "fs/a", 1 << 30,
		},
		"v2, cache that the kernel would drop": {
			"0::/a\n", map[string]string{
				"a/memory.max": "1000000", "a/memory.current": "900000",
				"a/memory.stat": "anon 5\ninactive_file 300000\nactive_file 100000\nshmem 77",
			}, 1, 450000, "fs/a", 1000000,
		},
		"v2, more used than allowed": {
			"0::/a\n", map[string]string{"a/memory.max": "100", "a/memory.current": "150"}, 1, -50, "fs/a", 100,
		},
		"v2, a path outside of the namespace": {
			"0::/../../other\n", map[string]string{"memory.max": "77", "memory.current": "0", "other/memory.max": "5"}, 0, 8 << 30, memory, -1,
		},
		"v2, a folder that is not mounted here": {
			"0::/docker/1234\n", map[string]string{"memory.max": "4096", "memory.current": "96"}, 1, 4000, "fs", 4096,
		},
		"v1": {
			"3:cpu,cpuacct:/x\n5:memory:/x/y\n1:name=systemd:/x\n", map[string]string{
				"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "123456",
				"memory/x/memory.limit_in_bytes": "2000000", "memory/x/memory.usage_in_bytes": "1000000",
				"memory/x/y/memory.limit_in_bytes": "9223372036854771712", "memory/x/y/memory.usage_in_bytes": "5",
			}, 3, 1000000, "memory/x", 2000000,
		},
		"v1, cache, with and without children": {
			"5:memory:/x\n", map[string]string{
				"memory/x/memory.limit_in_bytes": "500000", "memory/x/memory.usage_in_bytes": "400000",
				"memory/x/memory.stat": "cache 1\ninactive_file 7\ntotal_inactive_file 50000\nactive_file 7\ntotal_active_file 10000",
			}, 1, 155000, "memory/x", 500000,
		},
		"v1, controllers together": {
			"5:hugetlb,memory,pids:/x\n",
			map[string]string{"memory/x/memory.limit_in_bytes": "500", "memory/x/memory.usage_in_bytes": "100"},
			1, 400, "memory/x", 500,
		},
		"v1, a controller of a similar name": {
			"5:memory2:/x\n",
			map[string]string{"memory/x/memory.limit_in_bytes": "500", "memory/x/memory.usage_in_bytes": "100"},
			0, 8 << 30, memory, -1,
		},
		"both versions": {
			"4:memory:/x\n0::/u\n", map[string]string{
				"memory/x/memory.limit_in_bytes": "7000", "memory/x/memory.usage_in_bytes": "0",
				"unified/u/memory.max": "6000", "unified/u/memory.current": "0",
			}, 2, 6000, "unified/u", 6000,
		},
		"files that make no sense": {
			"0::/a\nnonsense\n", map[string]string{"a/memory.max": "lots", "a/memory.current": "5", "memory.max": "10"}, 2, 8 << 30, memory, 10,
		},
	} {
		l := fakeGroups(t, c.self, c.files)
		a, err := l.Available()
		if err != nil || a.Bytes != c.avail || !strings.HasSuffix(a.By, c.by) {
			t.Errorf("%s: %+v, %v; want %d by %s", name, a, err, c.avail, c.by)
		}
		if len(l.groups) != c.groups {
			t.Errorf("%s: groups %+v, want %d", name, l.groups, c.groups)
		}
		limit, dir := l.CgroupLimit()
		if limit != c.limit || (dir == "") != (limit < 0) {
			t.Errorf("%s: the tightest limit is %d of %q, want %d", name, limit, dir, c.limit)
		}
		room := c.avail - a.Margin
		if err := l.Room(room); err != nil {
			t.Errorf("%s: no room for %d: %v", name, room, err)
		}
		if err := l.Room(room + 1); !errors.Is(err, status.NotEnoughMemory) {
			t.Errorf("%s: room for %d: %v", name, room+1, err)
		}
		if keep := a.Margin; keep < margin || c.by == "fs/a" && c.limit > 8*margin && keep != c.limit/8 || keep > most {
			t.Errorf("%s: a margin of %d", name, keep)
		}
	}
}

// TestLimitsWithoutProc: where nothing can be read nothing is refused.
func TestLimitsWithoutProc(t *testing.T) {
	l := &Limits{meminfo: filepath.Join(t.TempDir(), "none")}
	if err := l.Room(1 << 50); err != nil {
		t.Error(err)
	}
	if got := findGroups(l.meminfo, "/"); got != nil {
		t.Errorf("groups of no file: %v", got)
	}
	if n, by := DefaultSize(); n < Unit || n%Unit != 0 || by == "" {
		t.Errorf("default size %d by %q", n, by)
	}
}
