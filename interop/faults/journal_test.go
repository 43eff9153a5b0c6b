//go:build linux

package faults

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/server"
)

// extent is a stretch of the journal.
type extent struct{ from, to int }

func (e extent) meets(others []extent) bool {
	return slices.ContainsFunc(others, func(o extent) bool { return e.from < o.to && o.from < e.to })
}

// exhibit is one object over one blob, and where the journal tells of them.
type exhibit struct {
	number       uint64
	size         int
	blob, object client.ID
	made         extent
	deleted      extent // empty if it was not
}

func (x *exhibit) name() string { return fmt.Sprintf("exhibit %d", x.number) }

// museum is a pool with a journal that is known byte by byte, as a daemon left
// it that was killed.
type museum struct {
	d        *daemon
	dir      string
	files    map[string][]byte
	exhibits []*exhibit
	records  []extent // of the journal
	end      int      // of the last one
	stale    int      // blobs that came back with the bytes of a lost one
}

const exhibits = 40

// newMuseum fills a pool. Two thirds of what is put is deleted again, so that
// later blobs lie where earlier ones did.
func newMuseum(t *testing.T) *museum {
	t.Helper()
	dir := shmFolder(t)
	m := &museum{d: newDaemon(t, "--size", "4MiB", "--memory", dir), files: map[string][]byte{}}
	m.d.expect = []string{"the journal is damaged", "two blobs claim the same bytes", "its bytes were used again", "its journal is empty or gone"}
	m.d.start()
	c := m.d.dial(t)
	offset := func() int { return m.d.status(t).Journal.Bytes }
	m.dir = m.d.status(t).Start.Place.Path
	var err error
	for i := range exhibits {
		x := &exhibit{number: seed + uint64(i), size: []int{90, 900, 5000, 40_000}[i%4]}
		x.made.from = offset()
		x.blob, err = c.PutBlob(ctx, pattern(x.number, x.size))
		if err == nil {
			x.object, err = c.CreateObject(ctx, client.NewMeta("faults::Exhibit").Set("text", x.name()).Add("buffer_", client.BlobMember(x.blob)))
		}
		if err == nil {
			err = errors.Join(c.Persist(ctx, x.object), c.PutName(ctx, x.object, x.name()))
		}
		if err != nil {
			t.Fatal(err)
		}
		x.made.to = offset()
		m.exhibits = append(m.exhibits, x)
		if old := i - 8; old >= 0 && old%3 != 0 {
			x := m.exhibits[old]
			x.deleted.from = offset()
			if err := errors.Join(c.DropName(ctx, x.name()), c.Delete(ctx, []client.ID{x.object}, client.DeleteOptions{})); err != nil {
				t.Fatal(err)
			}
			x.deleted.to = offset()
		}
	}
	m.end = offset()
	c.Close()
	m.d.kill()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if m.files[e.Name()], err = os.ReadFile(filepath.Join(m.dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	// The format: package journal. Each record is 20 bytes and its payload,
	// aligned to 8.
	journal := m.files["journal"]
	for off := 0; off < m.end; {
		size := 20 + int(binary.LittleEndian.Uint32(journal[off+16:]))
		m.records = append(m.records, extent{off, off + size})
		off += (size + 7) &^ 7
	}
	if n := len(m.records); n < 4*exhibits || m.records[n-1].to > m.end {
		t.Fatalf("%d records that end at %d, the journal ends at %d", n, m.records[n-1].to, m.end)
	}
	return m
}

// damage is what happens to a journal.
type damage struct {
	name string
	do   func(m *museum, rng *rand.Rand, b []byte) (after []byte, hit []extent)
}

var damages = []damage{
	{"nothing", func(_ *museum, _ *rand.Rand, b []byte) ([]byte, []extent) { return b, nil }},
	{"flipped bits", func(m *museum, rng *rand.Rand, b []byte) (_ []byte, hit []extent) {
		for range 1 + rng.IntN(6) {
			at := rng.IntN(m.end)
			b[at] ^= 1 << rng.IntN(8)
			hit = append(hit, extent{at, at + 1})
		}
		return b, hit
	}},
	{"overwritten bytes", func(m *museum, rng *rand.Rand, b []byte) (_ []byte, hit []extent) {
		for range 1 + rng.IntN(3) {
			e := somewhere(m.end, 300, rng)
			fill(b[e.from:e.to], rng.Uint64())
			hit = append(hit, e)
		}
		return b, hit
	}},
	{"a zeroed stretch", func(m *museum, rng *rand.Rand, b []byte) ([]byte, []extent) {
		e := somewhere(m.end, 4000, rng)
		clear(b[e.from:e.to])
		return b, []extent{e}
	}},
	{"a copied stretch", func(m *museum, rng *rand.Rand, b []byte) ([]byte, []extent) {
		// Good records of the past in the wrong place.
		at := rng.IntN(len(m.records)-10) + 5
		r, from := m.records[at], m.records[rng.IntN(at)]
		n := copy(b[r.from:m.end], slices.Clone(b[from.from:min(from.from+500, m.end)]))
		return b, []extent{{r.from, r.from + n}}
	}},
	{"a lost end", func(m *museum, rng *rand.Rand, b []byte) ([]byte, []extent) {
		at := rng.IntN(m.end)
		return b[:at], []extent{{at, len(b)}}
	}},
	{"a zeroed end", func(m *museum, rng *rand.Rand, b []byte) ([]byte, []extent) {
		at := rng.IntN(m.end)
		clear(b[at:])
		return b, []extent{{at, len(b)}}
	}},
	{"garbage after the end", func(m *museum, rng *rand.Rand, b []byte) ([]byte, []extent) {
		fill(b[m.end:m.end+rng.IntN(5000)], rng.Uint64())
		return b, nil
	}},
	{"an empty file", func(m *museum, _ *rand.Rand, _ []byte) ([]byte, []extent) { return nil, []extent{{0, m.end}} }},
	{"all zeros", func(m *museum, _ *rand.Rand, b []byte) ([]byte, []extent) { clear(b); return b, []extent{{0, m.end}} }},
}

func somewhere(end, most int, rng *rand.Rand) extent {
	at := rng.IntN(end)
	return extent{at, min(end, at+1+rng.IntN(most))}
}

// testJournal damages the journal between kill -9 and the next start. The
// daemon starts, says what is damaged, loses no more than the damaged records
// told of, and never serves other bytes than were put.
func testJournal(t *testing.T) {
	m := newMuseum(t)
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, dm := range damages {
		t.Run(strings.ReplaceAll(dm.name, " ", "-"), func(t *testing.T) {
			rounds, lost, back, reported := 6, 0, 0, 0
			m.stale = 0
			if dm.name == "nothing" || dm.name == "an empty file" || dm.name == "all zeros" {
				rounds = 1
			}
			for round := range rounds {
				journal, hit := dm.do(m, rng, slices.Clone(m.files["journal"]))
				files := maps.Clone(m.files)
				files["journal"] = journal
				m.restore(t, files)
				m.d.start()
				l, b, said := m.check(t, journal, hit)
				lost, back = lost+l, back+b
				if said {
					reported++
				}
				if round == 0 { // the next daemon finds the journal whole, and the same
					m.d.kill()
					m.d.start()
					if l2, b2, said := m.check(t, nil, hit); l2 != l || b2 != b || said {
						t.Errorf("the second start differs: %d lost, then %d; %d back, then %d; damage reported: %v", l, l2, b, b2, said)
					}
				}
				m.d.kill()
				if t.Failed() {
					t.Fatalf("round %d, damage at %v", round, hit)
				}
			}
			t.Logf("%d journals tried, %d reported as damaged; of %d objects each %d were lost and %d deleted ones back, %d of them with bytes of others (a known fault); ledger balanced",
				rounds, reported, exhibits, lost, back, m.stale)
		})
	}
	t.Run("reused-memory", journalReused)
	t.Run("lost-beside-pool", journalLost)
}

// journalReused damages the one record of a deletion whose memory was written
// again since: the deleted blob may come back, but not with other bytes.
func journalReused(t *testing.T) {
	for _, later := range []struct {
		name string
		do   func(c *client.Client, b *client.Builder) error
	}{
		{"sealed", func(_ *client.Client, b *client.Builder) error { _, err := b.Seal(ctx); return err }},
		{"deleted", func(c *client.Client, b *client.Builder) error {
			id, err := b.Seal(ctx)
			return errors.Join(err, c.DropBlob(ctx, id))
		}},
		{"unsealed", func(*client.Client, *client.Builder) error { return nil }},
	} {
		t.Run(later.name, func(t *testing.T) {
			if later.name == "unsealed" {
				known(t, "a blob whose deletion is damaged comes back with the bytes of one that was never sealed")
			}
			d := newDaemon(t, "--size", "4MiB", "--memory", shmFolder(t))
			d.expect = []string{"the journal is damaged", "two blobs claim the same bytes", "its bytes were used again", "its journal is empty or gone"}
			d.start()
			c := d.dial(t)
			want := pattern(seed, 5000)
			id, err := c.PutBlob(ctx, want)
			if err != nil {
				t.Fatal(err)
			}
			at := d.status(t).Journal
			if err := c.DropBlob(ctx, id); err != nil {
				t.Fatal(err)
			}
			b, err := c.CreateBlob(ctx, len(want)) // in its place
			if err != nil {
				t.Fatal(err)
			}
			fill(b.Bytes(), seed+1)
			if err := later.do(c, b); err != nil {
				t.Fatal(err)
			}
			d.kill()
			journal, err := os.ReadFile(at.Path)
			if err != nil {
				t.Fatal(err)
			}
			journal[at.Bytes+8] ^= 1 // the record of the deletion
			if err := os.WriteFile(at.Path, journal, 0o600); err != nil {
				t.Fatal(err)
			}
			d.start()
			if len(d.status(t).Start.Damage) != 1 {
				t.Error("no damage is reported")
			}
			c = d.dial(t)
			got, err := c.GetBlob(ctx, id)
			if err == nil {
				sameBytes(t, "a deleted blob that came back", got.Bytes(), want)
			} else if !errors.Is(err, client.NotExist) {
				t.Error(err)
			}
			c.Close()
			d.balanced(t, d.books(t, 0))
			d.stop()
			t.Logf("1 record of a deletion damaged, the blob is back: %v; ledger balanced", err == nil)
		})
	}
}

// journalLost: a pool without a journal is not to be thrown away without a word.
func journalLost(t *testing.T) {
	dir := shmFolder(t)
	d := newDaemon(t, "--size", "4MiB", "--memory", dir)
	d.expect = []string{"its journal is empty or gone"}
	d.start()
	c := d.dial(t)
	if _, err := c.PutBlob(ctx, pattern(seed, 5000)); err != nil {
		t.Fatal(err)
	}
	path := d.status(t).Journal.Path
	d.kill()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	d.start()
	if st := d.status(t); len(st.Start.Damage) == 0 && len(st.Start.Lost) == 0 && len(st.Start.NotRecovered) == 0 {
		t.Errorf("a pool with a blob was discarded, and the status says nothing:\n%s", d.log)
	}
	d.balanced(t, d.books(t, 0))
	d.stop()
	t.Logf("1 journal lost; ledger balanced")
}

func shmFolder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "v6d-flt")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (m *museum) restore(t *testing.T, files map[string][]byte) {
	t.Helper()
	if err := os.RemoveAll(m.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(m.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// check compares what a daemon serves with what its journal can still tell.
func (m *museum) check(t *testing.T, journal []byte, hit []extent) (lost, back int, reported bool) {
	t.Helper()
	// What earlier daemons left moves to a new file soon.
	m.d.await(t, "the pool to be tidied", patience, func(st server.Status) bool { return st.Ledger.Earlier == 0 && st.Ledger.Files == 1 })
	before := m.d.books(t, 0)
	c := m.d.dial(t)
	defer c.Close()
	usage := int64(0)
	for _, x := range m.exhibits {
		meta, err := c.GetObject(ctx, x.object)
		if err != nil && !errors.Is(err, client.NotExist) {
			t.Errorf("%s: %v", x.name(), err)
		}
		object := err == nil
		if object {
			if text, _ := meta.Text("text"); text != x.name() || meta.Typename != "faults::Exhibit" || meta.Member("buffer_") == nil || meta.Member("buffer_").ID != x.blob {
				t.Errorf("%s has other metadata: %v", x.name(), meta)
			}
		}
		b, err := c.GetBlob(ctx, x.blob)
		if err != nil && !errors.Is(err, client.NotExist) {
			t.Errorf("%s: %v", x.name(), err)
		}
		blob := err == nil
		if blob {
			usage += int64(x.size)
			switch {
			case bytes.Equal(b.Bytes(), pattern(x.number, x.size)):
			case x.deleted.meets(hit):
				m.stale++ // a known fault, see journalReused; an error once that is mended
			default:
				t.Errorf("the blob of %s has other bytes; it was deleted: %v", x.name(), x.deleted.to > 0)
			}
			if err := b.Release(ctx); err != nil {
				t.Error(err)
			}
		}
		id, err := c.GetName(ctx, x.name(), false)
		named := err == nil
		if named && id != x.object {
			t.Errorf("the name %q leads elsewhere", x.name())
		}
		switch {
		case x.deleted.to == 0 && !(object && blob && named):
			if lost++; !x.made.meets(hit) {
				t.Errorf("%s is lost (object %v, blob %v, name %v), but its records at %v are whole", x.name(), object, blob, named, x.made)
			}
		case x.deleted.to > 0 && (object || blob || named):
			if back++; !x.deleted.meets(hit) && !x.made.meets(hit) {
				t.Errorf("%s is back (object %v, blob %v, name %v), but the records of its deletion at %v are whole", x.name(), object, blob, named, x.deleted)
			}
		}
	}
	st := m.d.status(t)
	if st.Ledger.Usage != usage {
		t.Errorf("%d bytes are in use, the blobs that are served have %d", st.Ledger.Usage, usage)
	}
	reported = len(st.Start.Damage) > 0
	if said := strings.Contains(m.d.log.String(), "the journal is damaged"); said != reported {
		t.Errorf("the status reports damage: %v, the log: %v", reported, said)
	}
	if lost+back > 0 && !reported && m.shows(journal) {
		t.Errorf("%d objects are lost and %d back, but no damage is reported", lost, back)
	}
	c.Close()
	m.d.balanced(t, before)
	return lost, back, reported
}

// shows tells whether a reader of a damaged journal can know that something is
// missing: not if it simply ends after a record, or there is none.
func (m *museum) shows(journal []byte) bool {
	last := len(bytes.TrimRight(journal, "\x00"))
	for i := len(m.records) - 1; i >= 0; i-- {
		if r := m.records[i]; r.to <= len(journal) && last > r.from && last <= r.to+7 {
			return !bytes.Equal(journal[:r.to], m.files["journal"][:r.to])
		}
	}
	return last > 0
}
