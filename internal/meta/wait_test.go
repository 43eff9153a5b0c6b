package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// plainTree is a tree without a journal.
func plainTree() (*Tree, fakeBlobs) {
	blobs := fakeBlobs{}
	return New(Options{Instance: ownInstance, IDs: object.NewGenerator(ownInstance), Blobs: blobs}), blobs
}

// with returns the metadata of an object that brings a member under a chosen id.
func with(id object.ID) wirejson.Value {
	return wirejson.Value(fmt.Sprintf(`{"typename":"t::A","instance_id":3,"m":{"id":"%s","typename":"t::B","instance_id":3}}`, id))
}

func mustCreate(t testing.TB, tree *Tree, contents ...wirejson.Value) []CreatedObject {
	t.Helper()
	made, err := tree.Create(contents)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestWaitObjects: a request waits until all its objects exist at one time. A
// blob counts as soon as it exists, but is looked at only when metadata change;
// an unsealed one is then left out.
func TestWaitObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree, blobs := plainTree()
		sealed, unsealed := object.ID(1<<63|7), object.ID(1<<63|8)
		ask := func(ids ...object.ID) func() (string, bool) {
			var text []byte
			done := make(chan struct{})
			go func() {
				text, _ = tree.AppendObjects(context.Background(), nil, ids, true)
				close(done)
			}()
			return func() (string, bool) {
				synctest.Wait()
				select {
				case <-done:
					return string(text), true
				default:
					return "", false
				}
			}
		}
		none := ask()
		empty := ask(object.EmptyBlob)
		all := ask(object.InvalidID)
		one := ask(1)
		both := ask(1, 2, 1)
		mixed := ask(2, sealed)
		open := ask(unsealed)
		for _, got := range []func() (string, bool){none, empty, all} {
			if _, ok := got(); !ok {
				t.Error("a request that lacks nothing waits")
			}
		}
		mustCreate(t, tree, with(1))
		if _, ok := one(); !ok {
			t.Error("object 1 is there, its request still waits")
		}
		blobs[sealed], blobs[unsealed] = 5, -1
		if _, ok := open(); ok {
			t.Error("blobs are to be looked at when metadata change")
		}
		mustCreate(t, tree, with(2))
		for _, c := range []struct {
			name string
			ask  func() (string, bool)
			n    int
		}{{"both", both, 2}, {"mixed", mixed, 2}, {"unsealed", open, 0}} {
			text, ok := c.ask()
			content := map[string]json.RawMessage{}
			if err := json.Unmarshal([]byte(text), &content); !ok || err != nil || len(content) != c.n {
				t.Errorf("%s: answered %v with %q, %v", c.name, ok, text, err)
			}
		}
		if n := tree.Waiting(); n != 0 {
			t.Errorf("%d requests still wait", n)
		}
	})
}

// TestWaitEnds: a request whose client is gone no longer waits; one that waits
// for a name gets it.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree, _ := plainTree()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := tree.AppendObjects(ctx, nil, []object.ID{99}, true); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := tree.GetName(ctx, "never", true); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
		id := make(chan object.ID, 1)
		wg.Go(func() {
			got, err := tree.GetName(ctx, "soon", true)
			if err != nil {
				t.Error(err)
			}
			id <- got
		})
		synctest.Wait()
		if n := tree.Waiting(); n != 3 {
			t.Errorf("%d requests wait, want 3", n)
		}
		made := mustCreate(t, tree, with(5))[0].ID
		if err := errors.Join(tree.Persist(ctx, made), tree.PutName(ctx, made, "soon")); err != nil {
			t.Error(err)
		}
		if got := <-id; got != made {
			t.Errorf("the name is %s, want %s", got, made)
		}
		wg.Wait() // a minute, as the clock of the test goes
		if n := tree.Waiting(); n != 0 {
			t.Errorf("%d requests still wait", n)
		}
		if _, err := tree.GetName(ctx, "", true); !errors.Is(err, status.ObjectNotExists) {
			t.Errorf("the empty name: %v", err)
		}
	})
}

// TestWatch: cursors, filters, waiting, and a watcher that was away too long.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree, _ := plainTree()
		_, start, _ := tree.Watch(canceled, 0, "", 10)
		type result struct {
			events []Event
			next   uint64
			lost   bool
		}
		watch := func(cursor uint64, glob string) chan result {
			c := make(chan result, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
				defer cancel()
				e, n, l := tree.Watch(ctx, cursor, glob, 3)
				c <- result{e, n, l}
			}()
			synctest.Wait()
			return c
		}
		any, onlyB, onlyC := watch(0, ""), watch(0, "t::B"), watch(start, "t::C")
		mustCreate(t, tree, with(1))
		// A watcher may see one event or both, as it wakes up.
		if r := <-any; len(r.events) == 0 || r.events[0].ID != 1 || r.next != start+uint64(len(r.events)) || r.lost {
			t.Errorf("the first event: %+v", r)
		}
		if r := <-onlyB; len(r.events) != 1 || r.events[0].Type != "t::B" || r.events[0].Kind != Created {
			t.Errorf("events of t::B: %+v", r)
		}
		if r := <-watch(start, ""); len(r.events) != 2 || r.next != start+2 {
			t.Errorf("both events: %+v", r)
		}
		if r := <-onlyC; len(r.events) != 0 || r.next != start+2 || r.lost {
			t.Errorf("an hour without t::C: %+v", r)
		}
		if r := <-watch(start+1000000, ""); len(r.events) != 0 || r.next != start+2 {
			t.Errorf("a cursor of the future: %+v", r)
		}
		for i := range feedSize {
			mustCreate(t, tree, with(object.ID(10+i)))
		}
		r := <-watch(start, "")
		if oldest := start + 2 + 2*feedSize - feedSize; !r.lost || len(r.events) != 3 || r.events[0].Seq != oldest || r.next != oldest+3 {
			t.Errorf("away too long: %+v, want from %d", r, oldest)
		}
		var seq []uint64
		for cursor := r.next; ; {
			e, next, lost := tree.Watch(canceled, cursor, "", 1000)
			if lost || len(e) == 0 {
				break
			}
			for i := range e {
				seq = append(seq, e[i].Seq)
			}
			cursor = next
		}
		if len(seq) != feedSize-3 || !slices.IsSorted(seq) || seq[0] != r.next || seq[len(seq)-1] != start+2+2*feedSize-1 {
			t.Errorf("%d events from %d to %d", len(seq), seq[0], seq[len(seq)-1])
		}
	})
}

// TestLabelsTogether: labels that several clients set at once are all there.
func TestLabelsTogether(t *testing.T) {
	tree, _ := plainTree()
	id := mustCreate(t, tree, with(1))[0].ID
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for i := range 50 {
				if err := tree.Label(t.Context(), id, []string{fmt.Sprintf("%d-%d", c, i)}, []string{"x"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	rows, _ := tree.Page("t::A", "", 0, 1, false)
	text, _ := rows[0].Labels.Text()
	labels := map[string]string{}
	if err := json.Unmarshal([]byte(text), &labels); err != nil || len(labels) != 200 {
		t.Errorf("%d of 200 labels are left, %v", len(labels), err)
	}
}

// TestJournalFails: a change that cannot be recorded is refused and does not
// happen, not even in part.
func TestJournalFails(t *testing.T) {
	x := newMachine(t, t.TempDir())
	x.blobs[1<<63|5] = 10
	made := mustCreate(t, x.tree, with(1),
		wirejson.Value(`{"typename":"t::C","instance_id":3,"b":{"id":"o8000000000000005","typename":"vineyard::Blob","instance_id":3}}`))
	a, c := made[0].ID, made[1].ID
	ctx := t.Context()
	if err := errors.Join(x.tree.Persist(ctx, a), x.tree.PutName(ctx, a, "n")); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		text, _ := x.tree.AppendObjects(ctx, nil, x.tree.AllIDs(), false)
		return fmt.Sprintf("%s %v %v %v %v", text, x.tree.names, x.tree.sigs, len(x.tree.owners), len(x.tree.types))
	}
	before := state()
	if err := x.journal.Close(); err != nil {
		t.Fatal(err)
	}
	_, createErr := x.tree.Create([]wirejson.Value{with(50)})
	_, copyErr := x.tree.ShallowCopy(t.Context(), a, nil)
	_, deleteErr := x.tree.Delete(ctx, []object.ID{a, c}, DeleteOptions{Force: true, Deep: true}, func(b []object.ID) { t.Errorf("blobs %v are freed", b) })
	for name, err := range map[string]error{
		"create": createErr, "copy": copyErr, "delete": deleteErr, "persist": x.tree.Persist(ctx, c), "label": x.tree.Label(ctx, a, []string{"k"}, []string{"v"}),
		"name": x.tree.PutName(ctx, a, "m"), "drop name": x.tree.DropName(ctx, "n"),
	} {
		if !errors.Is(err, status.AlreadyStopped) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := state(); after != before {
		t.Errorf("changed to\n%s\nfrom\n%s", after, before)
	}
}

// TestReplayDamaged: a record that ends early, or of a change that nobody
// knows, is an error, and nothing of it is applied.
func TestReplayDamaged(t *testing.T) {
	x := newMachine(t, t.TempDir())
	made := mustCreate(t, x.tree, with(1))
	if err := x.tree.Persist(t.Context(), made[0].ID); err != nil {
		t.Fatal(err)
	}
	var records [][]byte
	if _, err := journal.Replay(x.path, func(p []byte) error { records = append(records, slices.Clone(p)); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, rec := range records {
		for n := range rec {
			tree, _ := plainTree()
			if _, err := tree.Replay(rec[:n]); err == nil && n > 2 {
				t.Errorf("%d of %d bytes of a record are accepted", n, len(rec))
			}
			if tree.Len() > 0 || len(tree.types) > 0 {
				t.Fatalf("%d of %d bytes of a record left %d objects", n, len(rec), tree.Len())
			}
		}
	}
	tree, _ := plainTree()
	if _, err := tree.Replay([]byte{recOps, 0, 1, 99}); err == nil {
		t.Error("an unknown change is accepted")
	}
}
