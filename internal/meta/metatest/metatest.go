// Package metatest is what every meta.Backend has to pass.
package metatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/meta"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// Store makes backends for tests. All that Open returns lead to the same store;
// each test gets an empty one.
type Store struct {
	Open func(t *testing.T) meta.Backend
	// Elsewhere changes the store outside of the prefix; nil if there is no
	// outside.
	Elsewhere func(t *testing.T)
	// Compact forgets the history; nil if the store cannot.
	Compact func(t *testing.T)
}

// Run runs all cases on stores that makeStore makes.
func Run(t *testing.T, makeStore func(t *testing.T) Store) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Store)
	}{
		{"Pairs", testPairs},
		{"Conditions", testConditions},
		{"Large", testLarge},
		{"Watch", testWatch},
		{"Compacted", testCompacted},
		{"Progress", testProgress},
		{"Counter", testCounter},
		{"Locks", testLocks},
		{"Ends", testEnds},
		{"Cluster", testCluster},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, makeStore(t)) })
	}
}

func open(t *testing.T, s Store) meta.Backend {
	t.Helper()
	b := s.Open(t)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func commit(t *testing.T, b meta.Backend, changes ...meta.Change) meta.Position {
	t.Helper()
	at, ok, err := b.Commit(t.Context(), nil, changes)
	if err != nil || !ok {
		t.Fatalf("commit: %v, %v", ok, err)
	}
	return at
}

func put(key, value string) meta.Change { return meta.Put(key, []byte(value)) }

// content loads the store as key=value, in order.
func content(t *testing.T, b meta.Backend) (string, meta.Position) {
	t.Helper()
	pairs, at, err := b.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range pairs {
		out = append(out, p.Key+"="+string(p.Value))
	}
	return strings.Join(out, " "), at
}

func testPairs(t *testing.T, s Store) {
	b := open(t, s)
	if got, _ := content(t, b); got != "" {
		t.Fatalf("an empty store holds %s", got)
	}
	first := commit(t, b, put("/b", "1"), put("/a/x", "2"), put("/a/y", "\x00\xff"))
	second := commit(t, b, put("/a/x", ""), meta.Delete("/b"), meta.Delete("/nothing"))
	if second.Revision <= first.Revision || second.Cluster != first.Cluster || first.Cluster == "" {
		t.Errorf("positions %v, %v", first, second)
	}
	if got, at := content(t, b); got != "/a/x= /a/y=\x00\xff" || at != second {
		t.Errorf("%q at %v, want it at %v", got, at, second)
	}
	commit(t, b, put("/ab", "stays"), meta.DeleteAll("/a/"))
	if got, _ := content(t, b); got != "/ab=stays" {
		t.Errorf("after deleting what begins with /a/: %q", got)
	}
	if head, err := b.Head(t.Context()); err != nil || head.Revision <= second.Revision || head.Cluster != first.Cluster {
		t.Errorf("head %v, %v", head, err)
	}
	if got, _ := content(t, open(t, s)); got != "/ab=stays" {
		t.Errorf("through another backend: %q", got)
	}
}

func testConditions(t *testing.T, s Store) {
	b := open(t, s)
	commit(t, b, put("/k", "v"), put("/dir/x", "1"))
	for _, c := range []struct {
		c    meta.Condition
		want bool
	}{
		{meta.Condition{Key: "/k", Is: meta.Equals, Equals: []byte("v")}, true},
		{meta.Condition{Key: "/k", Is: meta.Equals, Equals: []byte("w")}, false},
		{meta.Condition{Key: "/none", Is: meta.Equals, Equals: []byte("")}, false},
		{meta.Condition{Key: "/none", Is: meta.NoneUnder}, true},
		{meta.Condition{Key: "/dir/", Is: meta.NoneUnder}, false},
		{meta.Condition{Key: "/k", Is: meta.NoneUnder}, false},
		{meta.Condition{Key: "/dir/", Is: meta.SomeUnder}, true},
		{meta.Condition{Key: "/dir/y", Is: meta.SomeUnder}, false},
	} {
		before, _ := content(t, b)
		_, ok, err := b.Commit(t.Context(), []meta.Condition{{Key: "/k", Is: meta.SomeUnder}, c.c}, []meta.Change{put("/done", fmt.Sprint(c.c))})
		if err != nil || ok != c.want {
			t.Errorf("%+v: %v, %v", c.c, ok, err)
		}
		if after, _ := content(t, b); after != before && !ok {
			t.Errorf("%+v does not hold, but changes were made", c.c)
		}
	}
}

func testLarge(t *testing.T, s Store) {
	b := open(t, s)
	start := commit(t, b, put("/a", "1"))
	w := watch(t, b, start.Revision)
	total := 1
	for _, n := range []int{127, 128, 129, 4096} {
		var changes []meta.Change
		for i := range n {
			changes = append(changes, put(fmt.Sprintf("/n%d/%d", n, i), strconv.Itoa(i)))
		}
		at := commit(t, b, changes...)
		total += n
		w.until(t, at.Revision)
		w.mu.Lock()
		last := w.batches[len(w.batches)-1]
		w.mu.Unlock()
		if len(last.Changes) != n || last.Revision != at.Revision {
			t.Errorf("%d changes were made in parts: the last has %d", n, len(last.Changes))
		}
		if _, ok, err := b.Commit(t.Context(), []meta.Condition{{Key: "/a", Is: meta.NoneUnder}}, []meta.Change{put("/b", "1"), meta.DeleteAll("/n")}); ok || err != nil {
			t.Errorf("a condition that does not hold: %v, %v", ok, err)
		}
	}
	commit(t, b, meta.Put("/zz", bytes.Repeat([]byte{'x'}, 1<<20)))
	pairs, _, err := b.Load(t.Context())
	if err != nil || len(pairs) != total+1 || len(pairs[total].Value) != 1<<20 {
		t.Errorf("%d pairs, want %d: %v", len(pairs), total+1, err)
	}
}

// watching collects batches until the test ends.
type watching struct {
	mu      sync.Mutex
	batches []meta.Batch
	done    chan error
}

func watch(t *testing.T, b meta.Backend, after int64) *watching {
	w := &watching{done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		w.done <- b.Watch(ctx, after, func(b meta.Batch) {
			w.mu.Lock()
			w.batches = append(w.batches, b)
			w.mu.Unlock()
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-w.done:
			t.Logf("the watch ended: %v", err)
		case <-time.After(10 * time.Second):
			t.Error("the watch does not end with its context")
		}
	})
	return w
}

// until waits for a revision and returns what was seen, in words.
func (w *watching) until(t *testing.T, rev int64) []string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		batches := slices.Clone(w.batches)
		w.mu.Unlock()
		if n := len(batches); n > 0 && batches[n-1].Revision >= rev {
			var out []string
			last := int64(0)
			for _, b := range batches {
				if b.Revision <= last && len(b.Changes) > 0 {
					t.Errorf("revision %d after %d", b.Revision, last)
				}
				last = b.Revision
				var words []string
				for _, c := range b.Changes {
					if c.Delete {
						words = append(words, "-"+c.Key)
					} else {
						words = append(words, c.Key+"="+string(c.Value))
					}
				}
				slices.Sort(words)
				if len(words) > 0 {
					out = append(out, strings.Join(words, " "))
				}
			}
			return out
		}
		if time.Now().After(deadline) {
			t.Fatalf("revision %d is not seen", rev)
		}
	}
}

func testWatch(t *testing.T, s Store) {
	b := open(t, s)
	commit(t, b, put("/before", "1"))
	at := commit(t, b, put("/before", "2"))
	early := commit(t, b, put("/early", "1"))
	w := watch(t, b, at.Revision)
	w.until(t, early.Revision)
	commit(t, b, put("/a", "1"), put("/b", "2"))
	commit(t, b, meta.DeleteAll("/"), put("x", "outside of what begins with a slash"))
	last := commit(t, b, put("/end", "1"))
	got := strings.Join(w.until(t, last.Revision), " | ")
	if want := "/early=1 | /a=1 /b=2 | -/a -/b -/before -/early | /end=1"; strings.ReplaceAll(got, " x=outside of what begins with a slash", "") != want {
		t.Errorf("seen:\n%s\nwant:\n%s", got, want)
	}
}

func testCompacted(t *testing.T, s Store) {
	if s.Compact == nil {
		t.Skip("this store forgets by itself only")
	}
	b := open(t, s)
	at := commit(t, b, put("/a", "1"))
	commit(t, b, put("/a", "2"))
	commit(t, b, put("/a", "3"))
	s.Compact(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.Watch(ctx, at.Revision, func(meta.Batch) {}); !errors.Is(err, meta.ErrCompacted) {
		t.Errorf("watching from a forgotten revision: %v", err)
	}
}

// testProgress: a watch can be brought up to the head, though nothing happens
// below the prefix.
func testProgress(t *testing.T, s Store) {
	b := open(t, s)
	at := commit(t, b, put("/a", "1"))
	w := watch(t, b, at.Revision-1)
	w.until(t, at.Revision)
	if s.Elsewhere == nil {
		t.Skip("there is nothing outside of the prefix")
	}
	s.Elsewhere(t)
	head, err := b.Head(t.Context())
	if err != nil || head.Revision <= at.Revision {
		t.Fatalf("head %v, %v", head, err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err := b.Progress(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		reached := w.batches[len(w.batches)-1].Revision >= head.Revision
		w.mu.Unlock()
		if reached {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the watch does not tell how far it is")
		}
	}
}

// testCounter: commits are atomic, whoever makes them.
func testCounter(t *testing.T, s Store) {
	commit(t, open(t, s), put("/n", "0"))
	var wg sync.WaitGroup
	for range 4 {
		b := open(t, s)
		wg.Go(func() {
			for done := 0; done < 20; {
				pairs, _, err := b.Load(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(pairs[0].Value))
				_, ok, err := b.Commit(t.Context(), []meta.Condition{{Key: "/n", Is: meta.Equals, Equals: pairs[0].Value}}, []meta.Change{put("/n", strconv.Itoa(n+1))})
				if err != nil {
					t.Error(err)
					return
				}
				if ok {
					done++
				}
			}
		})
	}
	wg.Wait()
	if got, _ := content(t, open(t, s)); got != "/n=80" {
		t.Errorf("counted to %s", got)
	}
}

func testLocks(t *testing.T, s Store) {
	a, b := open(t, s), open(t, s)
	for _, key := range []string{"/meta_sync_lock", "user lock", "/user/lock"} {
		full, err := a.Lock(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		number, found := strings.CutPrefix(full, key+"/")
		if _, err := strconv.ParseUint(number, 16, 64); !found || err != nil {
			t.Errorf("the lock %q is held as %q", key, full)
		}
		if _, ok, err := b.Commit(t.Context(), []meta.Condition{{Key: key + "/", Is: meta.NoneUnder}}, []meta.Change{put("/k", "1")}); ok || err != nil {
			t.Errorf("a commit on condition that nobody holds %s: %v, %v", key, ok, err)
		}
		// One who gives up leaves nothing behind that others wait for.
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := b.Lock(short, key); err == nil {
			t.Errorf("%s is held twice", key)
		}
		cancel()
		second := make(chan string, 1)
		go func() {
			full, err := b.Lock(context.Background(), key)
			if err != nil {
				t.Error(err)
			}
			second <- full
		}()
		select {
		case full := <-second:
			t.Errorf("%s is held twice, as %s", key, full)
		case <-time.After(100 * time.Millisecond):
		}
		if err := a.Unlock(t.Context(), full); err != nil {
			t.Error(err)
		}
		select {
		case full = <-second:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s does not become free", key)
		}
		if err := b.Unlock(t.Context(), full); err != nil {
			t.Error(err)
		}
		if err := b.Unlock(t.Context(), full); err != nil {
			t.Errorf("giving %s back twice: %v", key, err)
		}
		if _, ok, err := b.Commit(t.Context(), []meta.Condition{{Key: key + "/", Is: meta.NoneUnder}}, []meta.Change{put("/k", "1")}); !ok || err != nil {
			t.Errorf("%s is free, but a commit finds it held: %v", key, err)
		}
	}
	if err := a.Unlock(t.Context(), "/k"); err != nil {
		t.Error(err)
	}
	if got, _ := content(t, a); !strings.Contains(got, "/k=1") {
		t.Errorf("giving back what is no lock deleted it: %s", got)
	}
}

// testEnds: every call ends with its context.
func testEnds(t *testing.T, s Store) {
	b := open(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := b.Load(ctx); err == nil {
		t.Error("load")
	}
	if _, err := b.Head(ctx); err == nil {
		t.Error("head")
	}
	if _, _, err := b.Commit(ctx, nil, []meta.Change{put("/a", "1")}); err == nil {
		t.Error("commit")
	}
	if _, err := b.Lock(ctx, "k"); err == nil {
		t.Error("lock")
	}
	if err := b.Watch(ctx, 0, func(meta.Batch) {}); err == nil {
		t.Error("watch")
	}
}

// none is a session's blob store without blobs.
type none struct{}

func (none) Exists(object.ID) bool            { return false }
func (none) Sealed(object.ID) (int64, bool)   { return 0, false }
func (none) Keep([]object.ID) (func(), error) { return func() {}, nil }
func (none) SealedIDs() []object.ID           { return nil }

// testCluster: two trees on the store see each other's objects.
func testCluster(t *testing.T, s Store) {
	join := func(host uint64) (*meta.Tree, *meta.Cluster) {
		b := s.Open(t)
		tree := meta.New(meta.Options{IDs: object.NewGenerator(0), Blobs: none{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		c := meta.NewCluster(b, tree, meta.ClusterOptions{HostID: host, Self: func() meta.Instance { return meta.Instance{RPCEndpoint: "h:1"} }})
		if err := c.Join(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Leave(context.Background(), false); err != nil {
				t.Error(err)
			}
		})
		return tree, c
	}
	tree, c := join(1)
	if len(c.Instances()) != 1 || c.Number() != 0 {
		t.Errorf("instances %v", c.Instances())
	}
	made, err := tree.Create([]wirejson.Value{wirejson.Value(`{"typename":"t::A","instance_id":0,"text":"x"}`)})
	if err != nil {
		t.Fatal(err)
	}
	id := made[0].ID
	if err := errors.Join(tree.Persist(t.Context(), id), tree.PutName(t.Context(), id, "n")); err != nil {
		t.Fatal(err)
	}
	full, err := c.Lock(t.Context(), object.RootSession, "mine")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Unlock(t.Context(), object.RootSession, full); err != nil {
		t.Error(err)
	}
	other, d := tree, c
	if s.shared(t) {
		other, d = join(2)
	}
	if err := other.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := other.AppendObjects(t.Context(), nil, []object.ID{id}, false)
	if err != nil || !strings.Contains(string(text), `"text":"x"`) {
		t.Errorf("seen: %s, %v", text, err)
	}
	if got, err := other.GetName(t.Context(), "n", false); got != id || err != nil {
		t.Errorf("the name: %s, %v", got, err)
	}
	if _, err := other.Delete(t.Context(), []object.ID{id}, meta.DeleteOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := tree.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tree.Exists(id) || d.Health() != nil {
		t.Errorf("deleted, but it exists: %v, %v", tree.Exists(id), d.Health())
	}
}

func (s Store) shared(t *testing.T) bool { return open(t, s).Shared() }
