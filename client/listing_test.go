//go:build linux

package client_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

// Rows lists everything once and in order, whatever the size of a page.
func TestRows(t *testing.T) {
	ctx := t.Context()
	d := startV6D(t, nil)
	c := d.connect(t)
	var ids []client.ID
	for i := range 25 {
		typename := "test::Odd"
		if i%2 == 0 {
			typename = "test::Even"
		}
		blob := ok(c.PutBlob(ctx, make([]byte, 100+i)))(t)
		m := client.NewMeta(typename).Set("i", i).Set("names", "a field as rows have one").
			Add("a", client.BlobMember(blob)).Add("again", client.BlobMember(blob))
		ids = append(ids, ok(c.CreateObject(ctx, m))(t))
	}
	must(t, c.Persist(ctx, ids[3]))
	must(t, c.PutName(ctx, ids[3], "beta"))
	must(t, c.PutName(ctx, ids[3], "alpha"))
	must(t, c.Label(ctx, ids[3], map[string]string{"k": "v"}))
	parent := ok(c.CreateObject(ctx, client.NewMeta("test::Parent").AddObject("child", ids[4])))(t)

	for _, tcp := range []bool{false, true} {
		c := d.over(tcp).connect(t)
		for _, size := range []int{0, 1, 2, 7, 25, 26, 27, 1000} {
			var got []client.ID
			for r, err := range c.Rows(ctx, client.PageOptions{Size: size}) {
				must(t, err)
				got = append(got, r.ID)
			}
			if want := append(slices.Clone(ids), parent); !slices.Equal(got, want) {
				t.Errorf("pages of %d list %v, want %v", size, got, want)
			}
		}
	}
	for _, tt := range []struct {
		o    client.PageOptions
		want int
	}{
		{client.PageOptions{Type: "test::Odd", Size: 5}, 12},
		{client.PageOptions{Type: "test::*"}, 26},
		{client.PageOptions{Type: "nothing"}, 0},
		{client.PageOptions{Name: "*"}, 1},
		{client.PageOptions{Name: "alp*"}, 1},
		{client.PageOptions{Name: "gamma"}, 0},
		{client.PageOptions{Name: "*", Type: "test::Even"}, 0},
	} {
		n := 0
		for _, err := range c.Rows(ctx, tt.o) {
			must(t, err)
			n++
		}
		if n != tt.want {
			t.Errorf("%+v lists %d, want %d", tt.o, n, tt.want)
		}
	}

	row := func(o client.PageOptions, id client.ID) (found client.Row) {
		for r, err := range c.Rows(ctx, o) {
			must(t, err)
			if r.ID == id {
				return r // the iteration can be left
			}
		}
		t.Fatalf("%s is not listed", id)
		return found
	}
	for _, o := range []client.PageOptions{{Size: 2}, {Size: 2, Fields: []string{"i", "names", "absent"}}} {
		r := row(o, ids[3])
		if r.Type != "test::Odd" || r.Transient || r.Global || r.Bytes != 103 || r.Members != 1 || r.Owned || r.Signature == 0 ||
			!slices.Equal(r.Names, []string{"alpha", "beta"}) || r.Labels["k"] != "v" || time.Since(time.UnixMilli(r.TimeMS)) > time.Minute {
			t.Errorf("%+v: row %+v", o, r)
		}
		if n := len(o.Fields); n == 0 && r.Fields != nil ||
			n > 0 && (len(r.Fields) != 2 || string(r.Fields["i"]) != "3" || string(r.Fields["names"]) != `"a field as rows have one"`) {
			t.Errorf("%+v: fields %s", o, r.Fields)
		}
		if r := row(o, ids[4]); !r.Transient || !r.Owned || len(r.Names) != 0 || r.Labels != nil {
			t.Errorf("%+v: row %+v", o, r)
		}
	}
}

func TestBlobRows(t *testing.T) {
	ctx := t.Context()
	d := startV6D(t, nil)
	c := d.connect(t)
	const n = 1100 // more than a page of the daemon's choice
	want := map[client.ID]int64{}
	var first client.ID
	for i := range n {
		id := ok(c.PutBlob(ctx, make([]byte, 10+i)))(t)
		want[id] = int64(10 + i)
		if i == 0 {
			first = id
		}
	}
	owner := ok(c.CreateObject(ctx, client.NewMeta("test::Owner").Add("b", client.BlobMember(first))))(t)
	unsealed := ok(c.CreateBlob(ctx, 7))(t)
	remote := ok(d.over(true).connect(t).PutBlob(ctx, []byte("remote")))(t)
	want[unsealed.ID()], want[remote] = 7, 6
	reader := d.connect(t)
	held := ok(reader.GetBlob(ctx, remote))(t)

	seen := map[client.ID]client.BlobRow{}
	last := client.ID(0)
	for r, err := range c.BlobRows(ctx) {
		must(t, err)
		if r.ID <= last {
			t.Errorf("%s comes after %s", r.ID, last)
		}
		last, seen[r.ID] = r.ID, r
	}
	if len(seen) != len(want) {
		t.Errorf("%d blobs are listed, want %d", len(seen), len(want))
	}
	for id, size := range want {
		r := seen[id]
		if r.Size != size || r.Sealed != (id != unsealed.ID()) || r.Deleted || r.Where != "pool" || r.Chunk || time.Since(r.Created) > time.Minute {
			t.Fatalf("blob %s of %d bytes is listed as %+v", id, size, r)
		}
	}
	if r := seen[first]; len(r.Owners) != 1 || r.Owners[0] != owner || r.PID != os.Getpid() || r.UID != os.Getuid() || r.Refs != 1 {
		t.Errorf("the owned blob is listed as %+v", r)
	}
	if r := seen[remote]; r.PID != 0 || r.Refs != 1 || len(r.Owners) != 0 {
		t.Errorf("the remote blob is listed as %+v", r)
	}
	must(t, c.DropBlob(ctx, remote))
	for r, err := range c.BlobRows(ctx) {
		must(t, err)
		if r.ID == remote && !r.Deleted {
			t.Errorf("the deleted blob is listed as %+v", r)
		}
		seen[r.ID] = r
	}
	if !seen[remote].Deleted {
		t.Error("a deleted blob that is held is not listed")
	}
	must(t, held.Release(ctx))
	must(t, unsealed.Abort(ctx))
}

// Events come in order, with what they are about, and only those asked for.
func TestWatch(t *testing.T) {
	ctx := t.Context()
	d := startV6D(t, nil)
	for _, tcp := range []bool{false, true} {
		c, watcher := d.connect(t), d.over(tcp).connect(t)
		put(t, c, "test::Seen")
		events := watcher.Watch(ctx, "test::Seen")
		id, _ := put(t, c, "test::Seen") // before the iteration starts
		put(t, c, "test::Other")
		must(t, c.Persist(ctx, id))
		must(t, c.PutName(ctx, id, "a/name"))
		must(t, c.Label(ctx, id, map[string]string{"k": "v"}))
		must(t, c.DropName(ctx, "a/name"))
		want := []string{"created ", "persisted ", "named a/name", "labelled ", "unnamed a/name"}
		var got []string
		var seq uint64
		check := func(e client.Event) {
			t.Helper()
			if e.ID != id || e.Type != "test::Seen" || e.Seq <= seq || time.Since(time.UnixMilli(e.TimeMS)) > time.Minute {
				t.Errorf("event %+v after number %d, want object %s", e, seq, id)
			}
			seq = e.Seq
			got = append(got, e.Kind+" "+e.Name)
		}
		for e, err := range events {
			must(t, err)
			check(e)
			ok(watcher.InstanceStatus(ctx))(t) // between events the connection is free
			if len(got) == 2 {
				break
			}
		}
		for e, err := range events { // goes on where the first was left
			must(t, err)
			check(e)
			if len(got) == len(want) {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("seen %q, want %q", got, want)
		}
		done := make(chan client.Event, 1)
		go func() { // one that has to wait
			for e, err := range events {
				if err != nil {
					t.Error(err)
				}
				done <- e
				return
			}
		}()
		must(t, c.Delete(ctx, []client.ID{id}, client.DeleteOptions{}))
		if e := <-done; e.Kind != "deleted" || e.ID != id {
			t.Errorf("seen %+v, want deleted", e)
		}
	}
}

// What the daemon remembers comes first, however many replies that takes, then
// what is new; nothing twice.
func TestWatchSince(t *testing.T) {
	ctx := t.Context()
	d := startV6D(t, nil)
	c, watcher := d.connect(t), d.connect(t)
	list := make([]*client.Meta, 1500) // more than one reply holds
	for i := range list {
		list[i] = client.NewMeta("test::Old")
	}
	ids := ok(c.CreateObjects(ctx, list))(t)
	time.Sleep(2 * time.Millisecond)
	between := time.Now()
	time.Sleep(2 * time.Millisecond)
	ids = append(ids, ok(c.CreateObject(ctx, client.NewMeta("test::Between")))(t))

	everything := watcher.WatchSince(ctx, "test::*", time.UnixMilli(1))
	some := watcher.WatchSince(ctx, "", between)
	fresh := watcher.WatchSince(ctx, "", time.Time{})
	ids = append(ids, ok(c.CreateObject(ctx, client.NewMeta("test::New")))(t))
	for name, tt := range map[string]struct {
		events iter.Seq2[client.Event, error]
		want   []client.ID
	}{"everything": {everything, ids}, "some": {some, ids[1500:]}, "fresh": {fresh, ids[1501:]}} {
		var got []client.ID
		for e, err := range tt.events {
			must(t, err)
			if got = append(got, e.ID); e.Type == "test::New" {
				break
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %d events, want %d in the order of creation", name, len(got), len(tt.want))
		}
	}

	ids = append(ids, ok(c.CreateObject(ctx, client.NewMeta("test::Last")))(t))
	var got []client.ID
	end := make(chan client.ID, 1)
	for e, err := range everything { // again: from what is remembered to what is new
		must(t, err)
		got = append(got, e.ID)
		if e.Type == "test::Last" && len(got) == len(ids) {
			time.AfterFunc(20*time.Millisecond, func() {
				id, err := c.CreateObject(ctx, client.NewMeta("test::End"))
				if err != nil {
					t.Error(err)
				}
				end <- id
			})
		}
		if e.Type == "test::End" {
			break
		}
	}
	ids = append(ids, <-end)
	if !slices.Equal(got, ids) {
		t.Errorf("again: %d events, want %d", len(got), len(ids))
	}
}

func TestWatchEnds(t *testing.T) {
	d := startV6D(t, nil)
	ctx, stop := stoppable(t)
	c := d.connect(t)
	events := c.Watch(ctx, "")
	time.AfterFunc(20*time.Millisecond, stop)
	var errs []error
	for _, err := range events {
		errs = append(errs, err)
	}
	if len(errs) != 1 || !errors.Is(errs[0], errStop) {
		t.Errorf("watching ended with %v", errs)
	}
	n := 0
	for _, err := range events {
		if n++; !errors.Is(err, errStop) {
			t.Errorf("again: %v", err)
		}
	}
	if n != 1 {
		t.Errorf("%d errors", n)
	}
}

// A watcher that is too slow learns that it missed something, and then sees
// everything that is still remembered, without a gap.
func TestWatchLost(t *testing.T) {
	ctx := t.Context()
	d := startV6D(t, nil)
	c, watcher := d.connect(t), d.connect(t)
	events := watcher.Watch(ctx, "")
	const n = 8192 + 100 // the daemon remembers 8192
	for i := 0; i < n; i += 100 {
		list := make([]*client.Meta, 100)
		for j := range list {
			list[j] = client.NewMeta("test::Many")
		}
		ok(c.CreateObjects(ctx, list))(t)
	}
	end := ok(c.CreateObject(ctx, client.NewMeta("test::End")))(t)
	var lost, seen int
	var seq uint64
	for e, err := range events {
		if err != nil {
			wantErr(t, err, client.ErrEventsLost)
			if lost++; seen > 0 {
				t.Error("events were lost in the middle")
			}
			continue
		}
		if seen++; seq != 0 && e.Seq != seq+1 {
			t.Fatalf("event %d after %d", e.Seq, seq)
		}
		seq = e.Seq
		if e.ID == end {
			break
		}
	}
	if lost != 1 || seen != 8192 {
		t.Errorf("told %d times that events were lost, then saw %d", lost, seen)
	}
}

// Many goroutines share one client; each gets the answers to its own requests.
func testConcurrency(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.dial(t, func(o *client.Options) { o.Strict = true })
	typename := unique(t)
	errs := make(chan error, 8)
	for g := range cap(errs) {
		go func() { errs <- roundTrips(ctx, c, fmt.Sprintf("%s-%d", typename, g), g) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// roundTrips puts, gets and deletes blobs and objects that no other goroutine
// knows.
func roundTrips(ctx context.Context, c *client.Client, typename string, g int) error {
	for i := range 15 {
		data := random(1000*g + 5000*i + 1)
		data[0] = byte(g)
		blob, err := c.PutBlob(ctx, data)
		if err != nil {
			return err
		}
		id, err := c.CreateObject(ctx, client.NewMeta(typename).Set("i", i).AddObject("b", blob))
		if err != nil {
			return err
		}
		m, err := c.GetObject(ctx, id)
		if err != nil {
			return err
		}
		if n, _ := m.Int("i"); m.Typename != typename || int(n) != i {
			return fmt.Errorf("object %s of %s came back as %s, number %d", id, typename, m.Typename, n)
		}
		b, err := c.GetBlob(ctx, m.Member("b").ID)
		if err != nil {
			return err
		}
		if string(b.Bytes()) != string(data) {
			return fmt.Errorf("blob %s differs", blob)
		}
		if err := errors.Join(b.Release(ctx), c.Delete(ctx, []client.ID{id}, client.DeleteOptions{})); err != nil {
			return err
		}
		if exists, err := c.Exists(ctx, blob); err != nil || exists {
			return fmt.Errorf("deleted blob %s exists: %v, %w", blob, exists, err)
		}
	}
	return nil
}
