package object

import (
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := ID(rapid.Uint64().Draw(t, "id"))
		var back ID
		text, _ := id.MarshalText()
		if err := back.UnmarshalText(text); err != nil || back != id || len(text) != 17 || string(text) != id.String() {
			t.Fatalf("%d is %s, which reads as %d, %v", id, text, back, err)
		}
	})
	for _, bad := range []string{
		"", "o", "o1", "x0000000000000001", "o00000000000000001", "o000000000000000g", "o+00000000000001", "o0x0000000000001", "O0000000000000001", " o000000000000001",
	} {
		if id, err := ParseID(bad); err == nil {
			t.Errorf("%q reads as %s", bad, id)
		}
	}
	if got := Signature(10).String() + SessionID(11).String() + InstanceID(12).String(); got != "s000000000000000aS000000000000000bi12" {
		t.Errorf("texts of the other kinds: %s", got)
	}
}

// TestGenerator: ids are unique and grow, whatever the clock does; objects,
// signatures and sessions lack the top bit, blobs have it; all carry the
// instance.
func TestGenerator(t *testing.T) {
	g := NewGenerator(1<<10 + 5)
	now := time.UnixMilli(1_800_000_000_000)
	g.now = func() time.Time { return now }
	var last uint64
	for i := range 30000 {
		switch i % 5000 {
		case 100:
			now = now.Add(time.Second)
		case 200:
			now = now.Add(-time.Hour)
		case 300:
			now = now.Add(time.Hour)
		}
		id := []uint64{uint64(g.Object()), uint64(g.Signature()), uint64(g.Session()), uint64(g.Blob())}[3-i%4]
		if blob := i%4 == 0; ID(id).IsBlob() != blob {
			t.Fatalf("id %x: blob %v", id, !blob)
		}
		if id&^blobBit <= last || id>>12&0x3ff != 5 {
			t.Fatalf("id %x after %x", id, last)
		}
		last = uint64(g.Object())
	}
}

func TestGeneratorTogether(t *testing.T) {
	g := NewGenerator(0)
	lists := make([][]ID, 4)
	var wg sync.WaitGroup
	for i := range lists {
		wg.Go(func() {
			for range 3000 {
				lists[i] = append(lists[i], g.Object())
			}
		})
	}
	wg.Wait()
	all := slices.Concat(lists...)
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != 12000 {
		t.Errorf("%d different ids of 12000", n)
	}
	for i, list := range lists {
		if !slices.IsSorted(list) {
			t.Errorf("the ids of caller %d do not grow", i)
		}
	}
}

// TestContinue: ids go on above those of an earlier life, even when the clock
// has gone back. Ids that clients make up cannot lead to where ids run out.
func TestContinue(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	earlier := NewGenerator(7)
	earlier.now = func() time.Time { return now.Add(24 * time.Hour) }
	g := NewGenerator(7)
	g.now = func() time.Time { return now }
	last := earlier.Blob()
	g.Continue(uint64(last))
	if next := g.Blob(); next <= last {
		t.Errorf("%s after %s", next, last)
	}
	before := g.Object()
	for _, id := range []ID{InvalidID, InvalidID &^ blobBit, 1<<63 - 1<<30, EmptyBlob, 0, 1} {
		g.Continue(uint64(id))
		object, blob := g.Object(), g.Blob()
		if object <= before || object.IsBlob() || !blob.IsBlob() || blob == EmptyBlob || blob == InvalidID || blob&^blobBit <= object {
			t.Errorf("after id %s come %s and %s, before it came %s", id, object, blob, before)
		}
		if ms := uint64(object) >> 22; ms > uint64(now.Add(366*24*time.Hour).UnixMilli()) {
			t.Errorf("id %s leads to %s, years ahead", id, object)
		}
		before = object
	}
}
