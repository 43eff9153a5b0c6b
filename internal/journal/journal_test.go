package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
)

// folder returns a folder in memory, where journals lie in earnest.
func folder(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "v6d-journal-test-")
	if err != nil {
		t.Skipf("no folder in /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start makes an empty journal.
func start(t testing.TB, path string) *Journal {
	t.Helper()
	s, err := NewSnapshot(path)
	if err != nil {
		t.Fatal(err)
	}
	j, err := s.Commit()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func add(t testing.TB, j *Journal, payloads ...string) {
	t.Helper()
	for _, p := range payloads {
		if err := j.Append([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
}

// list replays bytes into a list of payloads.
func list(t testing.TB, b []byte) ([]string, Report) {
	t.Helper()
	var got []string
	rep, err := replay(b, func(p []byte) error { got = append(got, string(p)); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if rep.Records != len(got) {
		t.Fatalf("the report counts %d records of %d", rep.Records, len(got))
	}
	return got, rep
}

// sample is a journal of records of all kinds of lengths, and where they start.
func sample(t testing.TB) (b []byte, payloads []string, offs []int) {
	dir := folder(t)
	defer os.RemoveAll(dir) // at once: the processes that fuzz end without their clean-up
	path := filepath.Join(dir, "journal")
	j := start(t, path)
	for i, n := range []int{1, 0, 4, 5, 12, 100, 3, 60, 8} {
		p := bytes.Repeat([]byte{byte('a' + i)}, n)
		payloads = append(payloads, string(p))
		offs = append(offs, j.off)
		add(t, j, string(p))
	}
	offs = append(offs, j.off)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[:j.off+512], payloads, offs // the rest is zeros
}

func TestReplay(t *testing.T) {
	b, payloads, offs := sample(t)
	got, rep := list(t, b)
	if !slices.Equal(got, payloads) || len(rep.Damaged) > 0 || rep.Bytes != offs[len(offs)-1] {
		t.Fatalf("%q, %+v", got, rep)
	}
	if rep, err := Replay(filepath.Join(t.TempDir(), "none"), nil); err != nil || rep.Records > 0 {
		t.Fatalf("no journal: %+v, %v", rep, err)
	}
	whole := b[:rep.Bytes]
	if got, rep := list(t, slices.Concat(whole, whole)); !slices.Equal(got, payloads) || len(rep.Damaged) != 1 {
		t.Fatalf("records of an earlier time behind the last: %q, %+v", got, rep)
	}
	stop := errors.New("stop")
	n := 0
	_, err := replay(b, func([]byte) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 3 {
		t.Fatalf("apply failed at record %d: %v", n, err)
	}
}

// TestTornTail cuts the last record at every byte, in the order of addresses
// and in the order in which Append writes: magic last.
func TestTornTail(t *testing.T) {
	b, payloads, offs := sample(t)
	last := len(payloads) - 1
	off, end := offs[last], offs[last]+header+len(payloads[last])
	for n := 0; n <= end-off; n++ {
		for _, magicLast := range []bool{false, true} {
			torn := bytes.Clone(b)
			clear(torn[off+n : end])
			if magicLast && n < end-off {
				clear(torn[off : off+min(n, 4)])
			}
			got, rep := list(t, torn)
			whole := n == end-off
			if want := payloads[:last]; !whole && !slices.Equal(got, want) || whole && !slices.Equal(got, payloads) {
				t.Fatalf("%d bytes of the last record: replayed %q", n, got)
			}
			switch {
			case whole || isZero(torn[off:]):
				if len(rep.Damaged) > 0 {
					t.Fatalf("%d bytes of the last record: damage %+v", n, rep.Damaged)
				}
			case len(rep.Damaged) != 1 || rep.Damaged[0] != Gap{off, len(b) - off, true}:
				t.Fatalf("%d bytes of the last record: damage %+v", n, rep.Damaged)
			}
		}
	}
}

// TestFlippedBits flips every bit of every record: exactly that record is
// lost, and the damage is reported where it is.
func TestFlippedBits(t *testing.T) {
	b, payloads, offs := sample(t)
	for i := range payloads {
		want := slices.Delete(slices.Clone(payloads), i, i+1)
		for bit := 8 * offs[i]; bit < 8*(offs[i]+header+len(payloads[i])); bit++ {
			b[bit/8] ^= 1 << (bit % 8)
			got, rep := list(t, b)
			gap := Gap{offs[i], offs[i+1] - offs[i], false}
			if i == len(payloads)-1 {
				gap = Gap{offs[i], len(b) - offs[i], true}
			}
			if !slices.Equal(got, want) || len(rep.Damaged) != 1 || rep.Damaged[0] != gap {
				t.Fatalf("record %d, bit %d: replayed %q, damage %+v, want %+v", i, bit-8*offs[i], got, rep.Damaged, gap)
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// TestWipedRecords: stretches of zeros, or of noise, over several records.
func TestWipedRecords(t *testing.T) {
	b, payloads, offs := sample(t)
	for from := range payloads {
		for to := from + 1; to < len(payloads); to++ {
			for _, fill := range []byte{0, 0xa5} {
				bad := bytes.Clone(b)
				for i := offs[from] + 4; i < offs[to]-1; i++ {
					bad[i] = fill
				}
				got, rep := list(t, bad)
				want := slices.Delete(slices.Clone(payloads), from, to)
				if !slices.Equal(got, want) || len(rep.Damaged) != 1 || rep.Damaged[0] != (Gap{offs[from], offs[to] - offs[from], false}) {
					t.Fatalf("records %d to %d filled with %d: %q, %+v", from, to, fill, got, rep.Damaged)
				}
			}
		}
	}
}

// TestGrowth appends past the first 2 MiB, with records that are themselves
// longer than a step.
func TestGrowth(t *testing.T) {
	path := filepath.Join(folder(t), "journal")
	j := start(t, path)
	r := rand.New(rand.NewPCG(1, 2))
	var want [][]byte
	for total := 0; total < 12<<20; {
		n := r.IntN(100 << 10)
		if len(want)%40 == 39 {
			n = 3 << 20
		}
		p := make([]byte, n)
		p = fmt.Appendf(p[:0], "%d", r.Uint64())[:min(n, 8)]
		p = append(p, make([]byte, n-len(p))...)
		if err := j.Append(p); err != nil {
			t.Fatal(err)
		}
		want = append(want, p)
		total += n
	}
	st, err := os.Stat(path)
	if err != nil || st.Size()%grow != 0 || st.Size() < int64(j.off) || st.Size() > int64(j.off)+2*grow {
		t.Errorf("the file has %d bytes for %d used: %v", st.Size(), j.off, err)
	}
	i := 0
	rep, err := Replay(path, func(p []byte) error {
		if i >= len(want) || !bytes.Equal(p, want[i]) {
			return fmt.Errorf("record %d differs", i)
		}
		i++
		return nil
	})
	if err != nil || i != len(want) || len(rep.Damaged) > 0 || rep.Bytes != j.off {
		t.Fatalf("%d of %d records, %+v, %v", i, len(want), rep, err)
	}
	if got := j.Stats(); got.Bytes != j.off || got.Records != uint64(len(want)) || got.Path != path {
		t.Errorf("stats %+v", got)
	}
}

// TestClosed: a nil journal keeps nothing, a closed one refuses.
func TestClosed(t *testing.T) {
	var none *Journal
	if err := errors.Join(none.Append([]byte("x")), none.Close()); err != nil || none.WantsCompaction() || none.Stats() != (Stats{}) {
		t.Errorf("a nil journal: %v", err)
	}
	path := filepath.Join(folder(t), "journal")
	j := start(t, path)
	add(t, j, "a")
	if err := errors.Join(j.Close(), j.Close()); err != nil {
		t.Error(err)
	}
	if err := j.Append([]byte("b")); !errors.Is(err, status.AlreadyStopped) {
		t.Errorf("append to a closed journal: %v", err)
	}
	f, err := sys.Memfd("too long", MaxRecord+1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	long, err := sys.Map(f, MaxRecord+1, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sys.Unmap(long) }()
	if err := start(t, path+"2").Append(long); !errors.Is(err, status.Invalid) {
		t.Errorf("a record that Replay would not take: %v", err)
	}
}

// TestFull fills the file system of a journal: an append fails with 41, nothing
// of it is there, and what was acknowledged is.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	if err := sys.MountHugeTmpfs(dir, 6<<20, "never"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = sys.Detach(dir) })
	path := filepath.Join(dir, "journal")
	j := start(t, path)
	var want []string
	fill := func(size int) error {
		for i := 0; ; i++ {
			p := fmt.Sprint(len(want), " ", string(make([]byte, size)))
			before := j.Stats()
			if err := j.Append([]byte(p)); err != nil {
				if j.Stats() != before {
					t.Errorf("a failed append changed %+v to %+v", before, j.Stats())
				}
				return err
			}
			want = append(want, p)
			if i > 10<<20 {
				t.Fatal("the file system never fills")
			}
		}
	}
	same := func(when string) {
		t.Helper()
		var got []string
		rep, err := Replay(path, func(p []byte) error { got = append(got, string(p)); return nil })
		if err != nil || len(rep.Damaged) > 0 || !slices.Equal(got, want) {
			t.Fatalf("%s: %d of %d records, %+v, %v", when, len(got), len(want), rep.Damaged, err)
		}
	}
	for _, size := range []int{300 << 10, 10 << 10, 100} {
		if err := fill(size); !errors.Is(err, status.NotEnoughMemory) {
			t.Fatalf("on a full file system: %v", err)
		}
		same("full")
	}
	if _, err := NewSnapshot(path); !errors.Is(err, status.NotEnoughMemory) {
		t.Errorf("snapshot on a full file system: %v", err)
	}
	if names, _ := filepath.Glob(dir + "/*"); len(names) != 1 {
		t.Errorf("the failed snapshot left %v", names)
	}
	same("after a failed snapshot")
	remount(t, dir, 10<<20)
	add(t, j, "room again")
	want = append(want, "room again")
	same("with room again")
}

func remount(t *testing.T, dir string, size int64) {
	t.Helper()
	if err := sys.ResizeTmpfs(dir, size); err != nil {
		t.Fatal(err)
	}
}
