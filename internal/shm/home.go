package shm

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
)

const (
	// Unit is the granularity in which memory is reserved and given back.
	Unit = 2 << 20
	// smallPool is the size below which huge pages are not worth their 2 MiB.
	smallPool = 16 << 20

	mountPoint = "mount" // kinds of a Home
	devShm     = "devshm"
	folder     = "folder"
	anonymous  = "memfd"
)

// HomeOptions says where a pool may lie.
type HomeOptions struct {
	Memory string // auto, anonymous, or a folder on a tmpfs
	Huge   string // auto, always or never
	Socket string // the daemon's socket: the pool is found again by it
	Size   int64  // the pool's limit in bytes
	Fresh  bool   // discard what an earlier daemon left
}

// Home is the place of a daemon's pool files and journal. It is locked for one
// daemon. A Home that survives a crash is found by the next daemon on the same
// socket.
type Home struct {
	kind string
	dir  string
	lock *os.File
	huge bool
	why  string // what kept a better place from being taken; "" when this is the best
}

// fileSpace is the size of a pool file for a limit: 1/8 of slack for
// fragmentation, and at least a page for the pseudo blob's offset.
func fileSpace(limit int64) int64 {
	page := int64(sys.PageSize)
	return (limit + max(limit/8, page) + page - 1) / page * page
}

// OpenHome finds or makes the place for a pool, the first that works of: a
// tmpfs of the daemon's own with huge pages, /dev/shm, anonymous memory.
func OpenHome(o HomeOptions) (*Home, error) {
	socket, err := filepath.Abs(o.Socket)
	if err != nil {
		return nil, fmt.Errorf("socket path: %w", err)
	}
	o.Socket = socket // a relative path means different sockets in different folders
	mount := socket + ".pool"
	sum := sha256.Sum256([]byte(socket))
	shm := filepath.Join("/dev/shm", "v6d-"+hex.EncodeToString(sum[:8]))

	if o.Fresh {
		if err := errors.Join(unused(mount), unused(shm)); err != nil {
			return nil, err
		}
		if err := errors.Join(discardMount(mount), os.RemoveAll(shm)); err != nil {
			return nil, fmt.Errorf("discard the earlier pool: %w", err)
		}
	}
	if o.Memory == "" || o.Memory == "auto" {
		return openAuto(o, mount, shm)
	}
	if left := leftover(mount, shm); left != "" {
		return nil, status.Errorf(status.ObjectExists, "an earlier daemon left a pool at %s", left).
			WithHint("start with --memory auto to recover it, or with --fresh to discard it")
	}
	if o.Memory == "anonymous" {
		return openAnonymous(o, "asked for by --memory anonymous")
	}
	return openFolder(o)
}

// unused fails when a running daemon has a folder as its home.
func unused(dir string) error {
	h, err := lockDir(&Home{dir: dir})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		h.unlock()
	}
	return err
}

func openAuto(o HomeOptions, mount, shm string) (*Home, error) {
	if mounted(mount) > 0 {
		for mounted(mount) > 1 { // stacked by a start that lost a race; the lower one is older
			if err := sys.Detach(mount); err != nil {
				return nil, err
			}
		}
		return lockDir(&Home{kind: mountPoint, dir: mount, huge: true})
	}
	if _, err := os.Stat(filepath.Join(shm, journalName)); err == nil {
		return lockDir(&Home{kind: devShm, dir: shm, why: "an earlier pool lies there"})
	}
	var why []string
	switch {
	case o.Huge == "never":
		why = append(why, "huge pages: off (--huge never)")
	case o.Size < smallPool && o.Huge != "always":
		why = append(why, fmt.Sprintf("huge pages: not used for pools under %d MiB", smallPool>>20))
	default:
		h, err := mountHuge(mount, o)
		if err == nil {
			return h, nil
		}
		if o.Huge == "always" {
			return nil, fmt.Errorf("huge pages: %w", err)
		}
		why = append(why, fmt.Sprintf("huge pages: %v (run as root or with CAP_SYS_ADMIN)", err))
	}
	h, err := openShm(shm, o)
	if err == nil {
		h.why = strings.Join(why, "; ")
		return h, nil
	}
	return openAnonymous(o, strings.Join(append(why, "/dev/shm: "+err.Error()), "; "))
}

func mountHuge(dir string, o HomeOptions) (*Home, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := sys.MountHugeTmpfs(dir, mountSpace(o.Size), "always"); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	h, err := lockDir(&Home{kind: mountPoint, dir: dir, huge: true})
	if err != nil {
		return nil, errors.Join(err, discardMount(dir))
	}
	return h, nil
}

func openShm(dir string, o HomeOptions) (*Home, error) {
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	free, tmpfs, err := sys.FreeBytes(parent)
	switch {
	case err != nil:
		return nil, err
	case !tmpfs:
		return nil, errors.New("not a tmpfs")
	case free < o.Size+margin:
		return nil, fmt.Errorf("%d MiB free, the pool needs %d", free>>20, (o.Size+margin)>>20)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return lockDir(&Home{kind: devShm, dir: dir})
}

func openFolder(o HomeOptions) (*Home, error) {
	sum := sha256.Sum256([]byte(o.Socket))
	dir := filepath.Join(o.Memory, "v6d-"+hex.EncodeToString(sum[:8]))
	if o.Fresh {
		if err := unused(dir); err != nil {
			return nil, err
		}
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("discard the earlier pool: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, status.Errorf(status.IOError, "--memory: %w", err)
	}
	h, err := lockDir(&Home{kind: folder, dir: dir, why: "asked for by --memory"})
	if err != nil {
		return nil, err
	}
	if _, tmpfs, err := sys.FreeBytes(h.lock); err != nil || !tmpfs {
		h.unlock()
		return nil, status.Errorf(status.Invalid, "--memory %s does not lie on a tmpfs", o.Memory).
			WithHint("give a folder under /dev/shm, or leave --memory out")
	}
	return h, nil
}

func openAnonymous(o HomeOptions, why string) (*Home, error) {
	if o.Huge == "always" {
		return nil, status.Errorf(status.Invalid, "--huge always cannot be had: %s", why)
	}
	return &Home{kind: anonymous, why: why}, nil
}

// lockDir takes the home for this process.
func lockDir(h *Home) (*Home, error) {
	f, err := os.Open(h.dir)
	if err != nil {
		return nil, err
	}
	free, err := sys.Flock(f)
	if err == nil && !free {
		err = status.Errorf(status.ObjectExists, "the pool at %s belongs to a running daemon", h.dir).
			WithHint("stop it, or choose another --socket")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	h.lock = f
	return h, nil
}

func (h *Home) unlock() {
	if h.lock != nil {
		h.lock.Close()
		h.lock = nil
	}
}

const journalName = "journal"

// JournalPath returns where the journal lies, or "" when the home does not
// survive a crash and a journal would be useless.
func (h *Home) JournalPath() string {
	if h.kind == anonymous {
		return ""
	}
	return filepath.Join(h.dir, journalName)
}

// Lacks returns by how much the file system is too small for need more bytes of
// blobs, and for the journal beside them.
func (h *Home) Lacks(need int64) int64 {
	free, ok := h.Free()
	if !ok {
		return 0
	}
	return max(need+margin-free, 0)
}

// Free returns the free bytes of the file system that the home lies on; ok is
// false for anonymous memory, which has none.
func (h *Home) Free() (free int64, ok bool) {
	if h.kind == anonymous {
		return 0, false
	}
	free, _, err := sys.FreeBytes(h.lock)
	return free, err == nil
}

// Create makes a new, sparse pool file of the given size.
func (h *Home) Create(name string, number int32, size int64) (*File, error) {
	if h.kind == anonymous {
		f, err := sys.Memfd("v6d-"+name, size)
		if err != nil {
			return nil, err
		}
		if err := sys.SealSize(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return newFile(f, "", number, size), nil
	}
	path := filepath.Join(h.dir, name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return newFile(f, path, number, size), nil
}

// Open opens a pool file of an earlier daemon. It is never truncated or grown:
// clients of that daemon may still map it. Without a name it is looked for by
// its number.
func (h *Home) Open(name string, number int32) (*File, error) {
	if name == "" {
		found, err := filepath.Glob(filepath.Join(h.dir, fmt.Sprintf("pool-*-%d", number)))
		if err != nil || len(found) == 0 {
			return nil, errors.Join(err, os.ErrNotExist)
		}
		name = filepath.Base(found[0])
	}
	if filepath.Base(name) != name || name == journalName {
		return nil, fmt.Errorf("%q is no pool file", name) // it would be removed with its last blob
	}
	path := filepath.Join(h.dir, name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return newFile(f, path, number, st.Size()), nil
}

// Grow makes sure that the home's own mount can hold a pool for limit bytes of
// blobs beside what lies there already. It never shrinks the mount.
func (h *Home) Grow(limit int64) error {
	if h.kind != mountPoint {
		return nil
	}
	total, err := sys.TotalBytes(h.lock)
	if err != nil {
		return err
	}
	free, _, err := sys.FreeBytes(h.lock)
	if err != nil {
		return err
	}
	if need := total - free + mountSpace(limit); need > total {
		return sys.ResizeTmpfs(h.dir, need)
	}
	return nil
}

// mountSpace is the size of a mount for a pool: its file, room for sessions and
// rounding, the journal.
func mountSpace(limit int64) int64 { return fileSpace(limit) + limit/8 + 64<<20 }

// HighestNumber returns the highest number of a pool file that lies in the
// home, 0 when there is none.
func (h *Home) HighestNumber() (highest int32) {
	if h.kind == anonymous {
		return 0
	}
	entries, _ := os.ReadDir(h.dir) // as far as it can be read
	for _, e := range entries {
		name := e.Name()
		if n, err := strconv.ParseInt(name[strings.LastIndexByte(name, '-')+1:], 10, 32); err == nil && strings.HasPrefix(name, "pool-") {
			highest = max(highest, int32(n))
		}
	}
	return highest
}

// RemoveOthers deletes files of the home that are not in keep: remains of
// generations that the journal no longer knows.
func (h *Home) RemoveOthers(keep map[string]bool) (removed []string, err error) {
	if h.kind == anonymous {
		return nil, nil
	}
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if rerr := os.Remove(filepath.Join(h.dir, e.Name())); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		removed = append(removed, e.Name())
	}
	return removed, err
}

// Close leaves the home: with discard everything in it is removed, otherwise
// it is left for the next daemon. Memory that clients still map stays theirs.
func (h *Home) Close(discard bool) error {
	defer h.unlock()
	if !discard || h.kind == anonymous {
		return nil
	}
	if h.kind == mountPoint {
		return discardMount(h.dir)
	}
	return os.RemoveAll(h.dir)
}

// Describe tells the user about the place.
func (h *Home) Describe() Place {
	p := Place{Kind: h.kind, Path: h.dir, Huge: h.huge, Survives: h.kind != anonymous, Why: h.why}
	return p
}

// Place is what status and log say about a Home.
type Place struct {
	Kind     string `json:"kind"`     // mount, devshm, folder or memfd
	Path     string `json:"path"`     // "" for memfd
	Huge     bool   `json:"huge"`     // huge pages are asked of the kernel
	Survives bool   `json:"survives"` // a crash of the daemon loses nothing sealed
	Why      string `json:"why"`      // what kept a better place from being taken
}

// leftover names an earlier pool that a --memory other than auto would ignore.
func leftover(mount, shm string) string {
	if mounted(mount) > 0 {
		return mount
	}
	if _, err := os.Stat(filepath.Join(shm, journalName)); err == nil {
		return shm
	}
	return ""
}

// discardMount unmounts whatever is mounted on dir and removes the folder.
// Files go first: a lazily detached tmpfs keeps its files for as long as one
// of them is mapped.
func discardMount(dir string) error {
	for mounted(dir) > 0 {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
		if err := sys.Detach(dir); err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// mounted counts the file systems that are mounted on exactly this folder.
func mounted(dir string) int {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return 0
	}
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if fields := strings.Fields(sc.Text()); len(fields) > 4 && unescapeMount(fields[4]) == real {
			n++
		}
	}
	return n
}

// unescapeMount resolves the octal escapes of /proc/self/mountinfo.
func unescapeMount(s string) string {
	r := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	return r.Replace(s)
}
