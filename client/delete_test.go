//go:build linux

package client_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/v6d-go/v6d/client"
)

func testDelete(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	id, blob := put(t, c, unique(t))
	free, data := ok(c.PutBlob(ctx, []byte("free")))(t), []byte("held")
	held := ok(c.PutBlob(ctx, data))(t)
	reader := d.connect(t)
	b := ok(reader.GetBlob(ctx, held))(t)
	must(t, c.Delete(ctx, []client.ID{id, free, held, 12345}, client.DeleteOptions{}))
	must(t, c.Delete(ctx, []client.ID{id}, client.DeleteOptions{Force: true, GiveBack: true}))
	must(t, c.Delete(ctx, nil, client.DeleteOptions{}))
	if got := d.exist(t, id, blob, free, held); slices.Contains(got, true) {
		t.Errorf("object, its blob, a free blob and a held one exist: %v", got)
	}
	if d.v6d() && string(b.Bytes()) != "held" {
		t.Error("the bytes changed under a reader")
	}
	must(t, b.Release(ctx))
	must(t, c.GiveBack(ctx))
}

// The matrix of force and shallow: a parent, its child, the child's blob.
func testDeleteVariants(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	typename := unique(t)
	for _, tt := range []struct {
		victim string
		o      client.DeleteOptions
		left   string // of p, c, b
	}{
		{"c", client.DeleteOptions{}, "pcb"},
		{"c", client.DeleteOptions{Shallow: true}, "pcb"},
		{"p", client.DeleteOptions{Shallow: true}, "cb"},
		{"p", client.DeleteOptions{}, ""},
		{"c", client.DeleteOptions{Force: true}, ""},
		{"p", client.DeleteOptions{Force: true, Shallow: true}, "cb"},
		{"b", client.DeleteOptions{}, "pcb"},
		{"b", client.DeleteOptions{Force: true}, ""},
		{"cp", client.DeleteOptions{}, ""},
	} {
		child, blob := put(t, c, typename)
		parent := ok(c.CreateObject(ctx, client.NewMeta(typename).AddObject("child", child)))(t)
		ids := map[rune]client.ID{'p': parent, 'c': child, 'b': blob}
		var victims []client.ID
		for _, v := range tt.victim {
			victims = append(victims, ids[v])
		}
		must(t, c.Delete(ctx, victims, tt.o))
		left := ""
		for i, exists := range d.exist(t, parent, child, blob) {
			if exists {
				left += string("pcb"[i])
			}
		}
		if left != tt.left {
			t.Errorf("delete %s %+v leaves %q, want %q", tt.victim, tt.o, left, tt.left)
		}
		must(t, c.Delete(ctx, []client.ID{parent, child, blob}, client.DeleteOptions{Force: true}))
	}
}

func testPersist(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	child, blob := put(t, c, unique(t))
	id := ok(c.CreateObject(ctx, client.NewMeta(unique(t)).AddObject("child", child)))(t)
	if ok(c.IsPersistent(ctx, id))(t) {
		t.Error("a new object is persistent")
	}
	must(t, c.Persist(ctx, id))
	must(t, c.Persist(ctx, id))
	for _, id := range []client.ID{id, child} {
		if !ok(c.IsPersistent(ctx, id))(t) {
			t.Errorf("object %s is not persistent", id)
		}
	}
	if m := ok(c.GetObject(ctx, id))(t); m.Transient || m.Member("child").Transient {
		t.Error("a persistent object is transient")
	}
	if ok(c.IsPersistent(ctx, blob))(t) {
		t.Error("a blob is persistent")
	}
	if err := c.Persist(ctx, 12345); err == nil {
		t.Error("an unknown object was persisted")
	}
	if _, err := c.IsPersistent(ctx, 12345); err == nil {
		t.Error("an unknown object is or is not persistent")
	}
	if err := c.Persist(ctx, blob); err == nil {
		t.Error("a blob was persisted")
	}
}

// Clear takes everything of the session. What others hold is gone as well.
func testClear(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	id, blob := put(t, c, unique(t))
	must(t, c.Persist(ctx, id))
	free := ok(c.PutBlob(ctx, []byte("free")))(t)
	must(t, c.Clear(ctx))
	if got := d.exist(t, id, blob, free); slices.Contains(got, true) {
		t.Errorf("object, its blob and a free blob exist after Clear: %v", got)
	}
	if list := ok(c.ListObjects(ctx, "*", false, 100))(t); len(list) != 0 {
		t.Errorf("%d objects are left, the first a %s", len(list), list[0].Typename)
	}
	if used := ok(c.InstanceStatus(ctx))(t).MemoryUsage; used != 0 && d.v6d() { // the reference pins blobs that were moved
		t.Errorf("%d bytes are still in use", used)
	}
	must(t, c.Clear(ctx))
	if _, err := c.GetBlob(ctx, free); !errors.Is(err, client.NotExist) {
		t.Errorf("the blob: %v", err)
	}
	id, _ = put(t, c, unique(t))
	ok(c.GetObject(ctx, id))(t)
}
