package meta

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/wirejson"
)

const theBlob = object.ID(1<<63 | 5)

// chain makes P -> C -> b, with C under id 1 and P under the id that is returned.
func chain(t *testing.T) (tree *Tree, blobs fakeBlobs, p object.ID) {
	tree, blobs = plainTree()
	blobs[theBlob] = 10
	content := fmt.Sprintf(`{"typename":"t::P","instance_id":3,"m":{"id":"o0000000000000001","typename":"t::C","instance_id":3,
		"b":{"id":"%s","typename":"vineyard::Blob","instance_id":3}}}`, theBlob)
	return tree, blobs, mustCreate(t, tree, wirejson.Value(content))[0].ID
}

// TestDeleteMatrix is the table of docs/protocol.md: what is left of P -> C -> b
// after each kind of delete, as observed of the reference.
func TestDeleteMatrix(t *testing.T) {
	const p, c, b = "P", "C", "b"
	for _, row := range []struct {
		ids         []string
		force, deep bool
		left        string
	}{
		{[]string{c}, false, false, "b C P"},
		{[]string{p}, false, false, "b C"},
		{[]string{p}, false, true, ""},
		{[]string{c}, true, false, ""},
		{[]string{p}, true, false, "b C"},
		{[]string{b}, false, false, "b C P"},
		{[]string{b}, true, false, ""},
		{[]string{c, p}, false, false, ""},
		{[]string{p, c}, false, false, ""},
		{[]string{b, p}, false, false, "b C"},
		{[]string{b, c, p, p}, false, false, ""},
		{[]string{c, b}, false, true, "b C P"},
		{nil, true, true, "b C P"},
	} {
		tree, blobs, parent := chain(t)
		named := map[string]object.ID{p: parent, c: 1, b: theBlob}
		ids := []object.ID{0x777} // unknown ids are ignored
		for _, name := range row.ids {
			ids = append(ids, named[name])
		}
		if _, err := tree.Delete(t.Context(), ids, DeleteOptions{row.force, row.deep}, func(gone []object.ID) {
			for _, id := range gone {
				delete(blobs, id)
			}
		}); err != nil {
			t.Fatal(err)
		}
		var left string
		for _, name := range []string{b, c, p} {
			if tree.Exists(named[name]) {
				left += " " + name
			}
		}
		if left != "" {
			left = left[1:]
		}
		if left != row.left {
			t.Errorf("delete %v force=%v deep=%v leaves %q, want %q", row.ids, row.force, row.deep, left, row.left)
		}
	}
}

// TestDeleteEquivalent: an object that others refer to may go when another
// instance has an equivalent: a global object then shows that one.
func TestDeleteEquivalent(t *testing.T) {
	tree, _ := plainTree()
	of := func(id, inst, sig int) string {
		return fmt.Sprintf(`{"id":"o%016x","typename":"t::A","instance_id":%d,"signature":%d,"at":%d}`, id, inst, sig, inst)
	}
	global := mustCreate(t, tree, wirejson.Value(`{"typename":"t::G","instance_id":3,"global":true,"m":`+of(1, 9, 77)+`,"n":`+of(2, 9, 78)+`}`))[0]
	if global.Instance != 9 {
		t.Errorf("all members are on instance 9, the object on %d", global.Instance)
	}
	remove := func(ids ...object.ID) {
		t.Helper()
		if _, err := tree.Delete(t.Context(), ids, DeleteOptions{}, func([]object.ID) {}); err != nil {
			t.Fatal(err)
		}
	}
	member := func(key string) string {
		t.Helper()
		text, err := tree.AppendObjects(t.Context(), nil, []object.ID{global.ID}, false)
		if err != nil {
			t.Fatal(err)
		}
		at := wirejson.Value(text).Get(global.ID.String()).Get(key).Get("at")
		return string(at)
	}
	remove(1, 2)
	if tree.Len() != 3 || member("m") != "9" {
		t.Fatalf("members without an equivalent were deleted: %d objects", tree.Len())
	}
	// A copy of the first arrives here, as a migration makes it.
	copyID := mustCreate(t, tree, wirejson.Value(`{"typename":"t::A","instance_id":3,"signature":77,"at":3}`))[0].ID
	if member("m") != "9" {
		t.Error("a transient copy counts as an equivalent")
	}
	if err := tree.Persist(t.Context(), copyID); err != nil {
		t.Fatal(err)
	}
	if member("m") != "3" || member("n") != "9" {
		t.Errorf("the members are those of instances %s and %s, want 3 and 9", member("m"), member("n"))
	}
	remove(1, 2)
	if tree.Exists(1) || !tree.Exists(2) || member("m") != "3" {
		t.Errorf("object 1 exists: %v, object 2: %v, m is of instance %s", tree.Exists(1), tree.Exists(2), member("m"))
	}
	remove(copyID)
	if !tree.Exists(copyID) {
		t.Error("the last equivalent of a member was deleted")
	}
	remove(global.ID, copyID, 2)
	if tree.Len() > 0 || len(tree.sigs) > 0 {
		t.Errorf("%d objects and signatures %v are left", tree.Len(), tree.sigs)
	}
}

func listed(t *testing.T, tree *Tree, pattern string, limit uint64) string {
	t.Helper()
	var ids []string
	for k := range wirejson.Value(tree.AppendList(nil, pattern, false, limit)).Members() {
		ids = append(ids, string(k))
	}
	return fmt.Sprint(ids)
}

// TestUnresolvable: an object whose member is gone is not shown, and does not
// count as one that was listed.
func TestUnresolvable(t *testing.T) {
	tree, _ := plainTree()
	object77 := func(id, inst int) string {
		return fmt.Sprintf(`{"id":"o%016x","typename":"t::A","instance_id":%d,"signature":77}`, id, inst)
	}
	p := mustCreate(t, tree, wirejson.Value(`{"typename":"t::P","instance_id":3,"m":`+object77(1, 3)+`}`))[0].ID
	q := mustCreate(t, tree, wirejson.Value(`{"typename":"t::Q","instance_id":3}`))[0].ID
	mustCreate(t, tree, wirejson.Value(`{"typename":"t::G","instance_id":9,"global":true,"m":`+object77(2, 9)+`}`))
	if err := tree.Persist(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, tree, "t::[PQ]", 1); got != "["+p.String()+"]" {
		t.Errorf("listed %s", got)
	}
	if _, err := tree.Delete(t.Context(), []object.ID{1}, DeleteOptions{}, nil); err != nil || tree.Exists(1) {
		t.Fatalf("object 1, with an equivalent on instance 9, is there: %v, %v", tree.Exists(1), err)
	}
	if got := listed(t, tree, "t::[PQ]", 1); got != "["+q.String()+"]" {
		t.Errorf("listed %s", got)
	}
}

// TestIDAgain: a chosen id that comes back with another type is listed as that.
func TestIDAgain(t *testing.T) {
	tree, _ := plainTree()
	a := mustCreate(t, tree, with(1), with(2))[0].ID
	if _, err := tree.Delete(t.Context(), []object.ID{a}, DeleteOptions{Deep: true}, nil); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, tree, wirejson.Value(`{"typename":"t::A","instance_id":3,"m":{"id":"o0000000000000001","typename":"t::C","instance_id":3}}`))
	for pattern, want := range map[string]string{
		"t::B": "[o0000000000000002]", "t::C": "[o0000000000000001]", "t::[BC]": "[o0000000000000001 o0000000000000002]",
	} {
		if got := listed(t, tree, pattern, 10); got != want {
			t.Errorf("%s lists %s, want %s", pattern, got, want)
		}
	}
}

// hooked is a backend that does something while a change is being committed.
type hooked struct {
	*Local
	during func(changes []Change)
}

func (h hooked) Commit(ctx context.Context, conditions []Condition, changes []Change) (Position, bool, error) {
	h.during(changes)
	return h.Local.Commit(ctx, conditions, changes)
}

// TestDeletedWhilePersisting: an object that is deleted while it is persisted
// is gone in the end, here and in the store, whichever of the two comes first.
func TestDeletedWhilePersisting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree, _ := plainTree()
		deleted := make(chan error, 1)
		var id object.ID
		hub := NewHub("hub")
		c := NewCluster(hooked{hub, func(changes []Change) {
			if len(changes) > 1 && changes[0].Key == dataKey(id) && !changes[0].Delete {
				go func() {
					_, err := tree.Delete(context.Background(), []object.ID{id}, DeleteOptions{}, nil)
					deleted <- err
				}()
				time.Sleep(time.Second) // the deletion is as far as it gets
			}
		}}, tree, ClusterOptions{HostID: 7, Self: func() Instance { return Instance{} }})
		joinCluster(t, c)
		id = mustCreate(t, tree, wirejson.Value(`{"typename":"t::A","instance_id":0}`))[0].ID
		if err := tree.Persist(t.Context(), id); err != nil && !isMissing(err) {
			t.Error(err)
		}
		if err := <-deleted; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		pairs, _, _ := hub.Load(t.Context())
		for _, p := range pairs {
			if at := parsePlace(p.Key); at.kind == placeData || at.kind == placeSignature {
				t.Errorf("%s is left", p.Key)
			}
		}
		if tree.Exists(id) || len(tree.sigs) > 0 {
			t.Errorf("exists %v, signatures %v", tree.Exists(id), tree.sigs)
		}
	})
}
