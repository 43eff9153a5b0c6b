package journal

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// TestCompactionWhileAppending has several writers change a map, each change a
// record, while it is compacted over and over. At any moment the file on disk
// must replay into a state that holds all that was acknowledged before.
func TestCompactionWhileAppending(t *testing.T) {
	path := filepath.Join(folder(t), "journal")
	j := start(t, path)
	var (
		mu    sync.Mutex // guards state and keeps writers out during a compaction
		state = map[string]int{}
		wg    sync.WaitGroup
	)
	const writers, changes = 4, 1500
	apply := func(m map[string]int, p []byte) error {
		var key string
		var value int
		_, err := fmt.Sscanf(string(p), "%s %d", &key, &value)
		m[key] = value
		return err
	}
	for w := range writers {
		wg.Go(func() {
			for i := range changes {
				rec := fmt.Appendf(nil, "w%d-%d %d %s", w, i%7, i, bytes.Repeat([]byte("."), i%100))
				mu.Lock()
				err := j.Append(rec)
				if err == nil {
					err = apply(state, rec)
				}
				mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var rounds int
	for running := true; running; rounds++ {
		select {
		case <-done:
			running = false
		default:
		}
		mu.Lock()
		acknowledged := maps.Clone(state)
		if rounds%2 == 0 {
			snap, err := NewSnapshot(path)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range state {
				if err := snap.Append(fmt.Appendf(nil, "%s %d", k, v)); err != nil {
					t.Fatal(err)
				}
			}
			if err := j.Adopt(snap); err != nil {
				t.Fatal(err)
			}
		}
		mu.Unlock()
		got := map[string]int{}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// Records that are written while the file is read may look damaged.
		rep, err := replay(b, func(p []byte) error { return apply(got, p) })
		if err != nil {
			t.Fatalf("round %d: %+v, %v", rounds, rep.Damaged, err)
		}
		for k, v := range acknowledged {
			if got[k] < v {
				t.Fatalf("round %d: %s is %d, but %d was acknowledged", rounds, k, got[k], v)
			}
		}
		if !running && (!maps.Equal(got, state) || len(rep.Damaged) > 0) {
			t.Fatalf("at the end: %v, want %v", got, state)
		}
	}
	if rounds < 3 {
		t.Skipf("only %d compactions ran beside the writers", rounds)
	}
	if names, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(names) != 1 {
		t.Errorf("files left: %v", names)
	}
}

// TestAdopt: records that follow a snapshot of more records than the journal
// had count as later than these.
func TestAdopt(t *testing.T) {
	path := filepath.Join(folder(t), "journal")
	j := start(t, path)
	add(t, j, "history")
	s, err := NewSnapshot(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"a", "b", "c"} {
		if err := s.Append([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Adopt(s); err != nil {
		t.Fatal(err)
	}
	add(t, j, "d")
	b, _ := os.ReadFile(path)
	if got, rep := list(t, b); fmt.Sprint(got) != "[a b c d]" || len(rep.Damaged) > 0 {
		t.Errorf("%q, %+v", got, rep)
	}
}

// TestSnapshotAbort: an abandoned compaction leaves the journal alone.
func TestSnapshotAbort(t *testing.T) {
	path := filepath.Join(folder(t), "journal")
	j := start(t, path)
	add(t, j, "a", "b")
	s, err := NewSnapshot(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Append([]byte("never")); err != nil {
		t.Fatal(err)
	}
	if err := s.Abort(); err != nil {
		t.Fatal(err)
	}
	add(t, j, "c")
	b, _ := os.ReadFile(path)
	if got, rep := list(t, b); fmt.Sprint(got) != "[a b c]" || len(rep.Damaged) > 0 {
		t.Errorf("%q, %+v", got, rep)
	}
}

// TestWantsCompaction: it is due when history outweighs the last snapshot.
func TestWantsCompaction(t *testing.T) {
	path := filepath.Join(folder(t), "journal")
	j := start(t, path)
	for j.off < 3<<20 {
		add(t, j, string(make([]byte, 100<<10)))
	}
	if j.WantsCompaction() {
		t.Errorf("%d bytes over a base of %d want to be compacted", j.off, j.base)
	}
	for j.off <= 4<<20 {
		add(t, j, string(make([]byte, 100<<10)))
	}
	if !j.WantsCompaction() {
		t.Errorf("%d bytes over a base of %d do not want to be compacted", j.off, j.base)
	}
	s, err := NewSnapshot(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Append(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := j.Adopt(s); err != nil {
		t.Fatal(err)
	}
	for j.off < 5<<20 {
		if j.WantsCompaction() || j.base < 1<<20 {
			t.Errorf("%d bytes over a base of %d want to be compacted", j.off, j.base)
		}
		add(t, j, string(make([]byte, 100<<10)))
	}
}

// TestFields: what a Writer wrote a Reader reads; a payload that ends early is
// an error, never a value.
func TestFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kinds := rapid.SliceOfN(rapid.IntRange(0, 4), 0, 12).Draw(t, "kinds")
		w := Begin(nil, byte(rapid.IntRange(0, 255).Draw(t, "kind")))
		var want []any
		for _, k := range kinds {
			switch k {
			case 0:
				v := rapid.Uint64().Draw(t, "uint")
				w.Uint(v)
				want = append(want, v)
			case 1:
				v := rapid.Int64().Draw(t, "int")
				w.Int(v)
				want = append(want, v)
			case 2:
				v := rapid.Bool().Draw(t, "bool")
				w.Bool(v)
				want = append(want, v)
			case 3:
				v := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes")
				w.Bytes(v)
				want = append(want, string(v))
			case 4:
				v := rapid.String().Draw(t, "text")
				w.Text(v)
				want = append(want, v)
			}
		}
		read := func(b []byte) (got []any, err error) {
			r := NewReader(b)
			for _, k := range kinds {
				switch k {
				case 0:
					got = append(got, r.Uint())
				case 1:
					got = append(got, r.Int())
				case 2:
					got = append(got, r.Bool())
				case 3:
					got = append(got, string(r.Bytes()))
				case 4:
					got = append(got, r.Text())
				}
			}
			return got, r.Err()
		}
		if got, err := read(w); err != nil || fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
			t.Fatalf("read %#v, %v; want %#v", got, err, want)
		}
		if len(kinds) > 0 {
			n := rapid.IntRange(0, len(w)-1).Draw(t, "cut")
			if got, err := read(w[:n]); err == nil {
				t.Fatalf("%d of %d bytes read as %#v", n, len(w), got)
			}
		}
	})
	for _, b := range [][]byte{{1, 5}, {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}} {
		if r := NewReader(b); r.Count() != 0 || r.Err() == nil {
			t.Errorf("a count beyond the payload % x: %v", b, r.Err())
		}
	}
}
