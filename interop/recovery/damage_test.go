//go:build linux

package recovery

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/v6d-go/v6d/client"
)

// image is what a crashed daemon left in its folder: the files by name.
type image map[string][]byte

func takeImage(t testing.TB, dir string) image {
	t.Helper()
	img := image{}
	for _, name := range append(poolFiles(t, dir), "journal") {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		img[name] = b
	}
	return img
}

// restore makes a folder the image again.
func (img image) restore(t testing.TB, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range img {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// span is one record of a journal: header and payload.
type span struct{ off, size int }

const (
	recordMagic  = 0x76364a31
	recordHeader = 20
)

// records finds the records of a journal, by the format that package journal
// documents.
func records(t testing.TB, b []byte) (out []span) {
	t.Helper()
	for off := 0; off+recordHeader <= len(b) && binary.LittleEndian.Uint32(b[off:]) == recordMagic; {
		n := recordHeader + int(binary.LittleEndian.Uint32(b[off+16:]))
		sum := crc32.Checksum(b[off+8:off+n], crc32.MakeTable(crc32.Castagnoli))
		if sum != binary.LittleEndian.Uint32(b[off+4:]) {
			t.Fatalf("the record at %d is damaged to begin with", off)
		}
		out = append(out, span{off, n})
		off += (n + 7) &^ 7
	}
	return out
}

// exhibit is a small pool whose contents are known in full.
type exhibit struct {
	h      *host
	dir    string
	img    image
	sums   map[client.ID][32]byte
	tokens map[client.ID]string
	names  map[string]client.ID
	gone   []client.ID
}

// newExhibit fills a pool with things that do not depend on each other more
// than they must, and crashes its daemon.
func newExhibit(t *testing.T) *exhibit {
	t.Helper()
	x := &exhibit{
		h:    newHost(t, "--memory", shmFolder(t), "--size", "2MiB"),
		sums: map[client.ID][32]byte{}, tokens: map[client.ID]string{}, names: map[string]client.ID{},
	}
	d := x.h.start()
	x.dir = x.h.status(t).Start.Place.Path
	c := x.h.dial(t)
	for i := range 8 {
		b := make([]byte, 100+5000*i)
		sum := bytesOf(b, uint64(i))
		blob, err := c.PutBlob(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		token := fmt.Sprintf("object %d", i)
		id, err := c.CreateObject(ctx, client.NewMeta("test::Exhibit").Set("token_", token).Add("buffer_", client.BlobMember(blob)))
		if err == nil {
			err = c.Persist(ctx, id)
		}
		if err == nil {
			err = c.PutName(ctx, id, token)
		}
		if err != nil {
			t.Fatal(err)
		}
		x.sums[blob], x.tokens[id], x.names[token] = sum, token, id
		if i%4 == 3 {
			if err := c.Delete(ctx, []client.ID{id}, client.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := c.DropName(ctx, token); err != nil {
				t.Fatal(err)
			}
			delete(x.sums, blob)
			delete(x.tokens, id)
			delete(x.names, token)
			x.gone = append(x.gone, id, blob)
		}
	}
	c.Close()
	d.kill()
	x.img = takeImage(t, x.dir)
	return x
}

// check starts a daemon on the folder as it is now and tells what differs from
// what was there. Bytes and metadata that are served must be right in any case.
func (x *exhibit) check(t *testing.T) (differences []string, d *daemon) {
	t.Helper()
	d = x.h.start()
	f, err := gather(x.h.socket)
	if err != nil {
		t.Fatalf("read everything back: %v\n%s", err, d.log)
	}
	at := f.places[0]
	note := func(format string, args ...any) { differences = append(differences, fmt.Sprintf(format, args...)) }
	for id, sum := range x.sums {
		got, ok := at.sums[id]
		if !ok {
			note("blob %s is lost", id)
		} else if got != sum {
			t.Errorf("blob %s has other bytes", id)
		}
	}
	for id, token := range x.tokens {
		got, ok := at.metas[id]
		switch {
		case !ok:
			note("object %s is lost", id)
		case got.Fields["token_"] != `"`+token+`"` || got.Type != "test::Exhibit" || len(got.Members) != 1:
			t.Errorf("object %s: %s", id, got)
		case got.Transient:
			note("object %s is transient again", id)
		}
	}
	for name, id := range x.names {
		if at.names[name] != id {
			note("name %q is lost", name)
		}
	}
	for _, id := range x.gone {
		_, blob := at.rows[id]
		_, object := at.metas[id]
		if blob || object {
			note("%s is back", id)
		}
	}
	return differences, d
}

// TestDamagedRecord damages each record of a journal in turn. The daemon starts,
// says so in log and status, and serves all that the other records tell of.
func TestDamagedRecord(t *testing.T) {
	x := newExhibit(t)
	all := records(t, x.img["journal"])
	if len(all) < 30 {
		t.Fatalf("%d records", len(all))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	differing := 0
	for i, r := range all {
		kind := x.img["journal"][r.off+recordHeader]
		img := maps.Clone(x.img)
		img["journal"] = slices.Clone(img["journal"])
		// Anywhere in it: magic, checksum, sequence, length, payload.
		at := r.off + rng.IntN(r.size)
		img["journal"][at] ^= 1 << rng.IntN(8)
		img.restore(t, x.dir)
		differences, d := x.check(t)
		differing += min(1, len(differences))
		// One lost change can be: an object with its name, or a deletion.
		if len(differences) > 2 {
			t.Errorf("record %d of %d (kind %d, byte %d of %d): %v", i, len(all), kind, at-r.off, r.size, differences)
		}
		st := x.h.status(t)
		if len(st.Start.Damage) == 0 || !strings.Contains(d.log.String(), "the journal is damaged") {
			t.Errorf("record %d (kind %d, byte %d of %d): nothing is said: %+v\n%s", i, kind, at-r.off, r.size, st.Start, d.log)
		}
		if !strings.Contains(d.out.String(), "damaged place") {
			t.Errorf("record %d: the banner does not mention it:\n%s", i, d.out)
		}
		// The damage is gone with the journal: the next start finds all well.
		d.kill()
		again, d := x.check(t)
		slices.Sort(again)
		slices.Sort(differences)
		if !slices.Equal(again, differences) {
			t.Errorf("record %d: the second start differs: %v, then %v", i, differences, again)
		}
		if st := x.h.status(t); len(st.Start.Damage) > 0 {
			t.Errorf("record %d: the damage is still reported: %+v", i, st.Start)
		}
		d.kill()
		if t.Failed() {
			return
		}
	}
	t.Logf("%d records damaged, %d of them cost something", len(all), differing)
}

// TestTornTail cuts journals off where a daemon may have died, and worse.
func TestTornTail(t *testing.T) {
	x := newExhibit(t)
	whole := x.img["journal"]
	all := records(t, whole)
	last := all[len(all)-1]
	end := last.off + (last.size+7)&^7
	garbage := func(n int) []byte {
		b := make([]byte, n)
		bytesOf(b, 7)
		return b
	}
	for _, c := range []struct {
		name     string
		journal  []byte
		lost     int // changes, at most
		reported bool
	}{
		{"untouched", whole, 0, false},
		{"file ends with the last record", whole[:end], 0, false},
		{"file ends inside the last record", whole[:last.off+recordHeader+1], 1, true},
		{"file ends inside a header", whole[:last.off+9], 1, true},
		{"payload half written, no magic", append(append(slices.Clone(whole[:last.off]), make([]byte, 8)...), whole[last.off+8:last.off+recordHeader+2]...), 1, true},
		{"last record zeroed", append(slices.Clone(whole[:last.off]), make([]byte, 4096)...), 1, false},
		{"garbage after the end", append(slices.Clone(whole[:end]), garbage(3000)...), 0, true},
		{"a record of the past after the end", append(slices.Clone(whole[:end]), whole[all[3].off:all[5].off]...), 0, true},
		{"a length beyond the file", append(slices.Clone(whole[:end]), whole[last.off:last.off+16]...), 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := maps.Clone(x.img)
			img["journal"] = c.journal
			img.restore(t, x.dir)
			differences, d := x.check(t)
			if len(differences) > c.lost {
				t.Errorf("%v", differences)
			}
			st := x.h.status(t)
			reported := len(st.Start.Damage) > 0 && strings.Contains(d.log.String(), "the journal is damaged")
			if reported != c.reported {
				t.Errorf("reported: %v, want %v; %+v\n%s", reported, c.reported, st.Start.Damage, d.log)
			}
			d.kill()
		})
	}
}

// TestMissingPoolFile: what lay in a file that someone removed is lost, and
// named; the daemon starts and serves the rest.
func TestMissingPoolFile(t *testing.T) {
	x := newExhibit(t)
	for _, change := range []struct {
		name string
		do   func(img image, pool string)
	}{
		{"removed", func(img image, pool string) { delete(img, pool) }},
		{"cut short", func(img image, pool string) { img[pool] = img[pool][:20_000] }},
		{"empty", func(img image, pool string) { img[pool] = nil }},
	} {
		t.Run(change.name, func(t *testing.T) {
			img := maps.Clone(x.img)
			change.do(img, poolOf(t, img))
			img.restore(t, x.dir)
			d := x.h.start()
			st := x.h.status(t)
			if len(st.Start.Lost) == 0 || !strings.Contains(d.log.String(), "lost") {
				t.Errorf("nothing is said: %+v\n%s", st.Start, d.log)
			}
			f, err := gather(x.h.socket)
			if err != nil {
				t.Fatal(err)
			}
			lost := 0
			for id, sum := range x.sums {
				got, ok := f.places[0].sums[id]
				switch {
				case ok && got != sum:
					t.Errorf("blob %s has other bytes", id)
				case !ok && !slices.Contains(st.Start.Lost, id.String()):
					t.Errorf("blob %s is lost, but not named", id)
				case !ok:
					lost++
				}
			}
			if lost != len(st.Start.Lost) {
				t.Errorf("%d blobs are lost, %v named", lost, st.Start.Lost)
			}
			for id := range x.tokens {
				if _, ok := f.places[0].metas[id]; !ok {
					t.Errorf("object %s is lost with its blob", id)
				}
			}
			t.Logf("%d of %d blobs are lost", lost, len(x.sums))
			d.kill()
		})
	}
}

func poolOf(t testing.TB, img image) string {
	t.Helper()
	for name, b := range img {
		if strings.HasPrefix(name, "pool-") && !bytes.Equal(b, make([]byte, len(b))) {
			return name
		}
	}
	t.Fatal("no pool file")
	return ""
}
