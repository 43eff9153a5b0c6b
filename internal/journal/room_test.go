package journal

import (
	"errors"
	"path/filepath"
	"testing"
)

// TestRoom: a journal that may not grow refuses what adds, goes on to take what
// frees, asks to be compacted, and takes everything again after that.
func TestRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	snap, err := NewSnapshot(path)
	if err != nil {
		t.Fatal(err)
	}
	j, err := snap.Commit()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	full := errors.New("no room at all")
	asked := int64(0)
	j.SetRoom(func(n int64) error { asked = n; return full })
	payload := make([]byte, 1000)
	n := 0
	for ; err == nil; n++ {
		err = j.Append(payload)
	}
	if !errors.Is(err, full) || n < 1000 {
		t.Fatalf("record %d: %v", n, err)
	}
	if asked < grow+2*grow { // what it grows by, and as much as it holds then
		t.Errorf("asked for %d bytes", asked)
	}
	for range 200 {
		if err := j.AppendFreeing(payload); err != nil {
			t.Fatal(err)
		}
	}
	if !j.WantsCompaction() {
		t.Error("it does not want to be compacted")
	}
	if snap, err = NewSnapshot(path); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(snap.Append(payload), j.Adopt(snap)); err != nil {
		t.Fatal(err)
	}
	if j.WantsCompaction() {
		t.Error("it wants to be compacted again")
	}
	if err := j.Append(payload); err != nil {
		t.Errorf("after compaction: %v", err)
	}
}
