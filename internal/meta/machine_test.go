package meta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"pgregory.net/rapid"
)

// fakeBlobs is a session's blob store: sealed blobs with their sizes; a
// negative size is an unsealed one.
type fakeBlobs map[object.ID]int64

func (f fakeBlobs) Keep([]object.ID) (func(), error) { return func() {}, nil }

func (f fakeBlobs) Exists(id object.ID) bool { _, ok := f[id]; return ok || id == object.InvalidID }

func (f fakeBlobs) Sealed(id object.ID) (int64, bool) {
	n, ok := f[id]
	return max(n, 0), ok && n >= 0 || id == object.EmptyBlob
}

func (f fakeBlobs) SealedIDs() (ids []object.ID) {
	for id, n := range f {
		if n >= 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

const (
	ownInstance   = 3
	otherInstance = 9
)

// machine drives a tree and the model side by side.
type machine struct {
	m       *model
	tree    *Tree
	blobs   fakeBlobs
	ids     *object.Generator
	journal *journal.Journal
	path    string
	cursor  uint64
	unknown object.ID   // ids that clients choose, ascending
	free    []object.ID // of these, what was deleted
}

func (x *machine) newTree() *Tree {
	t := New(Options{Session: 5, Instance: ownInstance, IDs: x.ids, Blobs: x.blobs})
	t.now = func() time.Time { return time.UnixMilli(x.m.clock) }
	return t
}

var canceled = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func newMachine(t testing.TB, dir string) *machine {
	x := &machine{
		m: newModel(ownInstance), blobs: fakeBlobs{}, ids: object.NewGenerator(ownInstance),
		path: filepath.Join(dir, "journal"), unknown: 0x1000,
	}
	x.tree = x.newTree()
	_, x.cursor, _ = x.tree.Watch(canceled, 0, "", 1)
	s, err := journal.NewSnapshot(x.path)
	if err != nil {
		t.Fatal(err)
	}
	if x.journal, err = s.Commit(); err != nil {
		t.Fatal(err)
	}
	x.tree.SetJournal(x.journal)
	return x
}

// anyID draws an id: mostly a known object's, else a blob's or an unknown one.
func (x *machine) anyID(t *rapid.T, label string) object.ID {
	pool := x.m.ids()
	pool = append(pool, slices.Sorted(maps.Keys(x.blobs))...)
	pool = append(pool, 0x77, object.EmptyBlob, 1<<63|0x99)
	return rapid.SampledFrom(pool).Draw(t, label)
}

// persistent draws a persistent object's id where there is one, mostly.
func (x *machine) persistent(t *rapid.T) object.ID {
	var pool []object.ID
	for _, id := range x.m.ids() {
		if !x.m.objs[id].transient {
			pool = append(pool, id)
		}
	}
	if len(pool) == 0 || rapid.IntRange(0, 4).Draw(t, "any") == 0 {
		return x.anyID(t, "id")
	}
	return rapid.SampledFrom(pool).Draw(t, "persistent")
}

// family draws an object's member and then the object.
func (x *machine) family(t *rapid.T) (ids []object.ID) {
	for _, id := range x.m.ids() {
		for _, key := range x.m.objs[id].keys {
			if l, ok := x.m.objs[id].links[key]; ok {
				ids = append(ids, l.id, id)
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	i := rapid.IntRange(0, len(ids)/2-1).Draw(t, "family") * 2
	return ids[i : i+2 : i+2]
}

// want checks an error against a code; 0 is success.
func want(t *rapid.T, what string, err error, code status.Code) {
	t.Helper()
	if code == status.OK && err != nil || code != status.OK && !errors.Is(err, code) {
		t.Fatalf("%s: %v, want code %d", what, err, code)
	}
}

// decode reads JSON into plain Go values; labels, a text that holds an object,
// into a map.
func decode(t *rapid.T, text []byte) (v map[string]any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	var labels func(any)
	labels = func(v any) {
		if o, ok := v.(map[string]any); ok {
			if s, ok := o["__labels"].(string); ok {
				m := map[string]string{}
				_ = json.Unmarshal([]byte(s), &m)
				o["__labels"] = m
			}
			for _, e := range o {
				labels(e)
			}
		}
	}
	labels(v)
	return v
}

// differs names the first place where two trees differ.
func differs(path string, got, want any) string {
	g, ok1 := got.(map[string]any)
	w, ok2 := want.(map[string]any)
	if !ok1 || !ok2 || len(g) == 0 || len(w) == 0 {
		if reflect.DeepEqual(got, want) || ok1 && ok2 && len(g)+len(w) == 0 {
			return ""
		}
		return fmt.Sprintf("%s is %v, want %v", path, got, want)
	}
	for _, key := range slices.Sorted(maps.Keys(w)) {
		if d := differs(path+"."+key, g[key], w[key]); d != "" {
			return d
		}
	}
	for _, key := range slices.Sorted(maps.Keys(g)) {
		if _, ok := w[key]; !ok {
			return fmt.Sprintf("%s.%s is %v, want nothing", path, key, g[key])
		}
	}
	return ""
}

// check compares all that can be asked for.
func (x *machine) check(t *rapid.T) {
	all := x.m.ids()
	if got := x.tree.AllIDs(); !slices.Equal(got, all) || x.tree.Len() != len(all) {
		t.Fatalf("objects %v (%d), want %v", got, x.tree.Len(), all)
	}
	probe := append(slices.Sorted(maps.Keys(x.blobs)), object.EmptyBlob, 0x77)
	probe = append(append(probe, all...), all...) // ids may repeat
	text, err := x.tree.AppendObjects(canceled, []byte("kept"), probe, false)
	if err != nil {
		t.Fatal(err)
	}
	if d := differs("content", decode(t, text[4:]), x.m.get(probe)); d != "" {
		t.Fatal(d)
	}
	for _, id := range probe {
		if got, want := x.tree.Owners(id), x.m.owners(id); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Fatalf("owners of %s: %v, want %v", id, got, want)
		}
		_, blob := x.blobs[id]
		if got := x.tree.Exists(id); got != (x.m.objs[id] != nil || blob) {
			t.Fatalf("%s exists: %v", id, got)
		}
	}
	for _, o := range x.m.objs {
		if got, err := x.tree.IsPersistent(o.id); err != nil || got == o.transient {
			t.Fatalf("%s is persistent: %v, %v", o.id, got, err)
		}
	}
	if got := x.tree.ListNames("*", false, 1<<62); !maps.Equal(got, x.m.names) {
		t.Fatalf("names %v, want %v", got, x.m.names)
	}
	x.checkEvents(t)
	for name, n := range x.tree.types {
		if n.ids.live == 0 {
			t.Fatalf("an empty index of type %q is left", name)
		}
	}
}

func (x *machine) checkEvents(t *rapid.T) {
	events, next, lost := x.tree.Watch(canceled, x.cursor, "", 1000)
	var got []string
	for i, e := range events {
		if e.Seq != x.cursor+uint64(i) {
			t.Fatalf("event %d has number %d after cursor %d", i, e.Seq, x.cursor)
		}
		got = append(got, fmt.Sprint(e.Kind, " ", e.ID, " ", e.Name))
	}
	slices.Sort(got)
	slices.Sort(x.m.events)
	if !slices.Equal(got, x.m.events) || lost || next != x.cursor+uint64(len(got)) {
		t.Fatalf("events %q (next %d, lost %v), want %q after %d", got, next, lost, x.m.events, x.cursor)
	}
	x.cursor, x.m.events = next, nil
}

// same compares two trees byte by byte.
func same(t *rapid.T, what string, a, b *Tree) {
	t.Helper()
	ids := a.AllIDs()
	ta, _ := a.AppendObjects(canceled, nil, ids, false)
	tb, _ := b.AppendObjects(canceled, nil, ids, false)
	if !bytes.Equal(ta, tb) || !slices.Equal(ids, b.AllIDs()) {
		t.Fatalf("after %s:\n%s\nbefore:\n%s", what, tb, ta)
	}
	if !maps.Equal(a.names, b.names) || !reflect.DeepEqual(a.sigs, b.sigs) {
		t.Fatalf("after %s: names %v signatures %v, before %v %v", what, b.names, b.sigs, a.names, a.sigs)
	}
	ra, _ := a.Page("", "", 0, 1<<20, false)
	if rb, _ := b.Page("", "", 0, 1<<20, false); fmt.Sprint(ra) != fmt.Sprint(rb) {
		t.Fatalf("after %s: rows %+v, before %+v", what, rb, ra)
	}
}

func (x *machine) snapshot(t *rapid.T) {
	next := x.newTree()
	x.tree.Lock()
	err := x.tree.Snapshot(func(p []byte) error {
		if s, ok := IsRecord(p); !ok || s != 5 {
			t.Fatalf("record of session %v, %v", s, ok)
		}
		_, err := next.Replay(bytes.Clone(p))
		return err
	})
	x.tree.Unlock()
	want(t, "replay of a snapshot", err, status.OK)
	same(t, "a snapshot", x.tree, next)
}

// crash goes on with a tree that was recovered from the journal.
func (x *machine) crash(t *rapid.T) {
	next := x.newTree()
	rep, err := journal.Replay(x.path, func(p []byte) error {
		blobs, err := next.Replay(p)
		for _, b := range blobs {
			if _, ok := x.blobs[b]; ok {
				t.Fatalf("recovery deletes blob %s, which is alive", b)
			}
		}
		return err
	})
	if err != nil || len(rep.Damaged) > 0 {
		t.Fatalf("replay: %+v, %v", rep, err)
	}
	same(t, "recovery", x.tree, next)
	_, x.cursor, _ = next.Watch(canceled, 0, "", 1)
	next.SetJournal(x.journal)
	x.tree = next
}

func (x *machine) actions() map[string]func(*rapid.T) {
	ctx := context.Background()
	return map[string]func(*rapid.T){
		"": x.check,
		"blob": func(t *rapid.T) {
			id := x.ids.Blob()
			x.blobs[id] = rapid.Int64Range(-1, 1000).Draw(t, "size")
			if x.blobs[id] >= 0 {
				x.m.blobs[id] = x.blobs[id]
			}
		},
		"create":  x.create,
		"create2": x.create,
		"shallow copy": func(t *rapid.T) {
			x.m.clock++
			x.shallowCopy(t)
		},
		"persist": func(t *rapid.T) {
			id := x.anyID(t, "id")
			code := status.OK
			switch {
			case id.IsBlob():
				code = status.AssertionFailed
			case x.m.objs[id] == nil:
				code = status.MetaTreeSubtreeNotExists
			}
			want(t, "persist", x.tree.Persist(ctx, id), code)
			if _, err := x.tree.IsPersistent(id); id.IsBlob() != (err == nil && x.m.objs[id] == nil) {
				t.Fatalf("IsPersistent(%s): %v", id, err)
			}
			if code == status.OK {
				x.m.persist(id)
			}
		},
		"label": func(t *rapid.T) {
			id := x.anyID(t, "id")
			keys := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b\"", ""}), 0, 3).Draw(t, "keys")
			values := rapid.SliceOfN(rapid.SampledFrom([]string{"", "1", "中\n"}), 0, 3).Draw(t, "values")
			err := x.tree.Label(ctx, id, keys, values)
			o := x.m.objs[id]
			switch {
			case len(keys) != len(values):
				want(t, "label", err, status.Invalid)
			case id.IsBlob():
				want(t, "label of a blob", err, status.OK)
			case o == nil:
				want(t, "label", err, status.ObjectNotExists)
			default:
				want(t, "label", err, status.OK)
				merged := map[string]string{}
				maps.Copy(merged, o.labels)
				for i, k := range keys {
					merged[k] = values[i]
				}
				o.labels = merged
				x.m.event(Labelled, id, "")
			}
		},
		"put name": func(t *rapid.T) {
			id, name := x.persistent(t), drawName(t)
			err := x.tree.PutName(ctx, id, name)
			o := x.m.objs[id]
			switch {
			case id.IsBlob() || o != nil && o.transient:
				want(t, "put name", err, status.Invalid)
			case o == nil:
				want(t, "put name", err, status.ObjectNotExists)
			default:
				want(t, "put name", err, status.OK)
				x.m.putName(id, name)
			}
		},
		"get name": func(t *rapid.T) {
			name := drawName(t)
			id, err := x.tree.GetName(canceled, name, false)
			if wantID, ok := x.m.names[name]; ok != (err == nil) || id != wantID || !ok && !errors.Is(err, status.ObjectNotExists) {
				t.Fatalf("name %q is %s, %v; want %s", name, id, err, wantID)
			}
		},
		"drop name": func(t *rapid.T) {
			name := drawName(t)
			want(t, "drop name", x.tree.DropName(ctx, name), status.OK)
			x.m.dropName(name)
		},
		"delete": func(t *rapid.T) {
			var ids []object.ID
			if rapid.Bool().Draw(t, "members first") {
				ids = x.family(t)
			}
			for range rapid.IntRange(0, 2).Draw(t, "n") {
				ids = append(ids, x.anyID(t, "id"))
			}
			o := DeleteOptions{Force: rapid.Bool().Draw(t, "force"), Deep: rapid.Bool().Draw(t, "deep")}
			if o.Force && o.Deep {
				// What one id takes upwards, without its members, another may take
				// with them: the order decides, and nobody has said which it is.
				ids = ids[:min(len(ids), 1)]
			}
			var freed []object.ID
			got, err := x.tree.Delete(ctx, ids, o, func(blobs []object.ID) {
				freed = append(freed, blobs...)
				for _, b := range blobs {
					delete(x.blobs, b)
				}
			})
			want(t, "delete", err, status.OK)
			slices.Sort(freed)
			known := x.m.ids()
			if wantBlobs := x.m.del(ids, o.Force, o.Deep); !slices.Equal(freed, wantBlobs) || len(got) != len(freed) {
				t.Fatalf("delete %v %+v frees %v and returns %v, want %v", ids, o, freed, got, wantBlobs)
			}
			for _, id := range known {
				if x.m.objs[id] == nil && id <= x.unknown {
					x.free = append(x.free, id)
				}
			}
		},
		"list":     x.list,
		"page":     x.page,
		"snapshot": x.snapshot,
		"crash": func(t *rapid.T) {
			if rapid.IntRange(0, 2).Draw(t, "now") == 0 { // it reads the whole journal
				x.crash(t)
			}
		},
	}
}

func drawName(t *rapid.T) string {
	return rapid.SampledFrom([]string{"n", "a/b", "a~b", "a~1b", "数"}).Draw(t, "name")
}

// TestModel lets random clients loose on a tree and the model.
func TestModel(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "v6d-meta-test-")
	if err != nil {
		t.Skipf("no folder in /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	rapid.Check(t, func(rt *rapid.T) {
		x := newMachine(t, dir)
		defer x.journal.Close()
		rt.Repeat(x.actions())
		x.snapshot(rt)
		x.crash(rt)
		// Clear: everything goes, whatever refers to what.
		ids := append(x.tree.AllIDs(), slices.Collect(maps.Keys(x.blobs))...)
		_, err := x.tree.Delete(context.Background(), ids, DeleteOptions{Force: true, Deep: true}, func(blobs []object.ID) {
			for _, b := range blobs {
				delete(x.blobs, b)
			}
		})
		if err != nil || x.tree.Len() > 0 || len(x.blobs) > 0 || len(x.tree.sigs) > 0 || len(x.tree.owners) > 0 || len(x.tree.types) > 0 {
			rt.Fatalf("clear leaves %d objects, blobs %v, signatures %v, owners %v, types %v: %v",
				x.tree.Len(), x.blobs, x.tree.sigs, x.tree.owners, x.tree.types, err)
		}
	})
}
