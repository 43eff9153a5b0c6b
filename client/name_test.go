//go:build linux

package client_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

func testNames(t *testing.T, d daemon) {
	ctx := t.Context()
	c, other := d.connect(t), d.connect(t)
	id, blob := put(t, c, unique(t))
	prefix := strings.ReplaceAll(unique(t), "/", ":")
	wantErr(t, c.PutName(ctx, id, prefix), client.Invalid) // transient
	must(t, c.Persist(ctx, id))
	all := map[string]client.ID{}
	for _, name := range []string{"plain", "with/slash", "til~de", "~1~0//", "ünïcode 名前", "sp ace", `quo"te\`, "[x]*?"} {
		name = prefix + name
		must(t, c.PutName(ctx, id, name))
		if got := ok(other.GetName(ctx, name, false))(t); got != id {
			t.Errorf("name %q is %s, want %s", name, got, id)
		}
		if got := ok(other.GetName(ctx, name, true))(t); got != id {
			t.Errorf("name %q is %s when waited for, want %s", name, got, id)
		}
		all[name] = id
	}
	if got := ok(c.ListNames(ctx, prefix+"*", 100))(t); !maps.Equal(got, all) {
		t.Errorf("the names are %v, want %v", got, all)
	}
	if got := ok(c.ListNames(ctx, prefix+"*", 2))(t); len(got) != 2 {
		t.Errorf("at most 2 names are %v", got)
	}
	if got := ok(c.ListNames(ctx, prefix+"with*", 100))(t); len(got) != 1 || got[prefix+"with/slash"] != id {
		t.Errorf("with* lists %v", got)
	}
	if got := ok(c.ListNames(ctx, prefix+"nothing*", 100))(t); len(got) != 0 {
		t.Errorf("nothing* lists %v", got)
	}

	second, _ := put(t, c, unique(t))
	must(t, c.Persist(ctx, second))
	must(t, c.PutName(ctx, second, prefix+"plain"))
	if got := ok(c.GetName(ctx, prefix+"plain", false))(t); got != second {
		t.Errorf("the name was put again and is %s, want %s", got, second)
	}
	if m := ok(c.GetObject(ctx, second))(t); m.Name != prefix+"plain" {
		t.Errorf("the object says that its name is %q", m.Name)
	}
	for name := range all {
		must(t, c.DropName(ctx, name))
		must(t, c.DropName(ctx, name))
		_, err := c.GetName(ctx, name, false)
		wantErr(t, err, client.NotExist)
	}
	if m := ok(c.GetObject(ctx, second))(t); m.Name != "" {
		t.Errorf("the name was dropped; the object says %q", m.Name)
	}
	wantErr(t, c.PutName(ctx, 12345, prefix), client.NotExist)
	wantErr(t, c.PutName(ctx, blob, prefix), client.Invalid)
}

func testNameWait(t *testing.T, d daemon) {
	ctx := t.Context()
	c, waiter := d.connect(t), d.connect(t)
	name := strings.ReplaceAll(unique(t), "/", ":")
	id, _ := put(t, c, unique(t))
	must(t, c.Persist(ctx, id))
	type result struct {
		id  client.ID
		err error
	}
	done := make(chan result, 1)
	d.park(t, func() {
		id, err := waiter.GetName(ctx, name, true)
		done <- result{id, err}
	})
	must(t, c.PutName(ctx, id, name+"other"))
	select {
	case r := <-done:
		t.Fatalf("another name was put, and the waiting get says %s, %v", r.id, r.err)
	case <-time.After(10 * time.Millisecond):
	}
	must(t, c.PutName(ctx, id, name))
	if r := <-done; r.err != nil || r.id != id {
		t.Errorf("the waiting get says %s, %v; want %s", r.id, r.err, id)
	}
	ok(waiter.InstanceStatus(ctx))(t) // the connection goes on
	must(t, c.DropName(ctx, name))
	must(t, c.DropName(ctx, name+"other"))
}
