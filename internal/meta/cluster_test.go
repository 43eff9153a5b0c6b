package meta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

func joinCluster(t testing.TB, c *Cluster) {
	t.Helper()
	if err := c.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Leave(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
}

// node is one member of a cluster in this process.
type node struct {
	*Cluster
	tree  *Tree
	blobs *blobSet
	saved atomic.Pointer[Saved]
	jump  atomic.Int64 // by how much the node's wall clock is wrong, in nanoseconds
}

// blobSet is fakeBlobs for several goroutines.
type blobSet struct {
	mu  sync.Mutex
	all fakeBlobs
}

func (s *blobSet) Exists(id object.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.Exists(id)
}

func (s *blobSet) Sealed(id object.ID) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.Sealed(id)
}

func (s *blobSet) Keep([]object.ID) (func(), error) { return func() {}, nil }
func (s *blobSet) SealedIDs() []object.ID           { s.mu.Lock(); defer s.mu.Unlock(); return s.all.SealedIDs() }

func (s *blobSet) add(id object.ID) { s.mu.Lock(); defer s.mu.Unlock(); s.all[id] = 10 }

func (s *blobSet) drop(ids []object.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.all, id)
	}
}

func (s *blobSet) len() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.all) }

// cut keeps a node from the hub while it is set.
type cut struct {
	*Local
	away *atomic.Bool
}

var errAway = errors.New("no route to the hub")

func (c cut) refuse() error {
	if c.away.Load() {
		return errAway
	}
	return nil
}

func (c cut) Load(ctx context.Context) ([]Pair, Position, error) {
	if err := c.refuse(); err != nil {
		return nil, Position{}, err
	}
	return c.Local.Load(ctx)
}

func (c cut) Head(ctx context.Context) (Position, error) {
	if err := c.refuse(); err != nil {
		return Position{}, err
	}
	return c.Local.Head(ctx)
}

func (c cut) Commit(ctx context.Context, conditions []Condition, changes []Change) (Position, bool, error) {
	if err := c.refuse(); err != nil {
		return Position{}, false, err
	}
	return c.Local.Commit(ctx, conditions, changes)
}

func (c cut) Lock(ctx context.Context, key string) (string, error) {
	if err := c.refuse(); err != nil {
		return "", err
	}
	return c.Local.Lock(ctx, key)
}

// Watch looks for the cut each 100 ms: nothing arrives while it lasts.
func (c cut) Watch(ctx context.Context, after int64, apply func(Batch)) error {
	for {
		if err := c.refuse(); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		err := c.Local.Watch(short, after, func(b Batch) {
			if !c.away.Load() {
				apply(b)
				after = b.Revision
			}
		})
		cancel()
		if ctx.Err() != nil || errors.Is(err, ErrCompacted) {
			return err
		}
	}
}

func newNode(t testing.TB, b Backend, hostID uint64, earlier *node) *node {
	n := &node{blobs: &blobSet{all: fakeBlobs{}}}
	n.tree = New(Options{IDs: object.NewGenerator(0), Blobs: n.blobs, Free: n.blobs.drop, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	o := ClusterOptions{
		Now:    func() time.Time { return time.Now().Add(time.Duration(n.jump.Load())) },
		HostID: hostID, Self: func() Instance { return Instance{Hostname: "h", RPCEndpoint: "h:1", IPCSocket: "/s"} },
		Acknowledged: func(s Saved) { n.saved.Store(&s) },
	}
	if earlier != nil {
		// As a recovered node: own objects and blobs, and what the journal remembers.
		o.Saved = *earlier.saved.Load()
		maps.Copy(n.blobs.all, earlier.blobs.all)
		n.tree.mu.Lock()
		_ = earlier.tree.Snapshot(func(payload []byte) error {
			n.tree.mu.Unlock()
			defer n.tree.mu.Lock()
			_, err := n.tree.Replay(payload)
			return err
		})
		n.tree.mu.Unlock()
	}
	n.Cluster = NewCluster(b, n.tree, o)
	joinCluster(t, n.Cluster)
	return n
}

// put makes an object with a blob of a size.
func (n *node) put(t testing.TB, typename string) object.ID {
	t.Helper()
	blob := n.tree.opts.IDs.Blob()
	n.blobs.add(blob)
	inst := uint64(n.Number())
	return mustCreate(t, n.tree, wirejson.Value(fmt.Sprintf(
		`{"typename":%q,"instance_id":%d,"text":"a\"b","number":18446744073709551615,"list_":"[1, 2]","null":null,"b":{"id":"%s","typename":"vineyard::Blob","instance_id":%d}}`,
		typename, inst, blob, inst)))[0].ID
}

func (n *node) persist(t testing.TB, ids ...object.ID) {
	t.Helper()
	for _, id := range ids {
		if err := n.tree.Persist(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

// seen returns an object as another node shows it, "" if it does not.
func (n *node) seen(t testing.TB, id object.ID) string {
	t.Helper()
	if err := n.tree.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := n.tree.AppendObjects(t.Context(), nil, []object.ID{id}, false)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(string(text), "null")
}

func (n *node) remove(t testing.TB, o DeleteOptions, ids ...object.ID) {
	t.Helper()
	_, err := n.tree.Delete(t.Context(), ids, o, n.blobs.drop)
	if err != nil {
		t.Fatal(err)
	}
}

func keysOf(hub *Local, prefix string) (keys []string) {
	pairs, _, _ := hub.Load(context.Background())
	for _, p := range pairs {
		if strings.HasPrefix(p.Key, prefix) {
			keys = append(keys, p.Key)
		}
	}
	return keys
}

// inCluster runs f with two nodes on one hub, in virtual time.
func inCluster(t *testing.T, f func(t *testing.T, hub *Local, a, b *node, awayB *atomic.Bool)) {
	synctest.Test(t, func(t *testing.T) {
		hub, away := NewHub("hub"), atomic.Bool{}
		a := newNode(t, hub, 100, nil)
		b := newNode(t, cut{hub, &away}, 200, nil)
		if a.Number() != 0 || b.Number() != 1 {
			t.Fatalf("the numbers are %d and %d", a.Number(), b.Number())
		}
		f(t, hub, a, b, &away)
	})
}

// TestDropNameAway: a node that cannot see the store does not say that a name is
// gone which it may not have heard of.
func TestDropNameAway(t *testing.T) {
	inCluster(t, func(t *testing.T, hub *Local, a, b *node, awayB *atomic.Bool) {
		x := a.put(t, "t::A")
		a.persist(t, x)
		awayB.Store(true)
		if err := a.tree.PutName(t.Context(), x, "x"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		if err := b.tree.DropName(t.Context(), "x"); status.Of(err) != status.EtcdError {
			t.Errorf("drop a name while the store is away: %v", err)
		}
		awayB.Store(false)
		time.Sleep(11 * time.Second)
		if err := b.tree.DropName(t.Context(), "x"); err != nil {
			t.Error(err)
		}
		_ = a.tree.Sync(t.Context())
		if _, err := a.tree.GetName(t.Context(), "x", false); err == nil {
			t.Error("the name is still there")
		}
	})
}

func TestPersistedIsSeen(t *testing.T) {
	inCluster(t, func(t *testing.T, hub *Local, a, b *node, _ *atomic.Bool) {
		id := a.put(t, "t::A<x>")
		if b.seen(t, id) != "" {
			t.Error("a transient object is seen elsewhere")
		}
		a.persist(t, id)
		want := a.seen(t, id)
		if got := b.seen(t, id); got != want || want == "" {
			t.Errorf("there %s, here %s", got, want)
		}
		if err := b.tree.PutName(t.Context(), id, "a/b~c"); err != nil {
			t.Fatal(err)
		}
		if err := b.tree.Label(t.Context(), id, []string{"k"}, []string{"v"}); err != nil {
			t.Fatal(err)
		}
		if err := a.tree.Label(t.Context(), id, []string{"l"}, []string{"w"}); err != nil {
			t.Fatal(err)
		}
		if here, there := a.seen(t, id), b.seen(t, id); here != there || !strings.Contains(here, `{\"k\":\"v\",\"l\":\"w\"}`) {
			t.Errorf("there %s, here %s", there, here)
		}
		if got, err := a.tree.GetName(t.Context(), "a/b~c", false); err != nil || got != id {
			t.Errorf("the name is %s, %v", got, err)
		}
		copied, err := b.tree.ShallowCopy(t.Context(), id, wirejson.Value(`{"extra":1}`))
		if err != nil {
			t.Fatal(err)
		}
		if here, there := a.seen(t, copied), b.seen(t, copied); here != there || !strings.Contains(here, `"extra":1`) {
			t.Errorf("the copy is there %s, here %s", there, here)
		}
		// The other one deletes: the owner's memory is freed, nothing is left.
		b.remove(t, DeleteOptions{Deep: true}, id, copied)
		if a.seen(t, id) != "" || a.blobs.len() > 0 {
			t.Errorf("%d blobs and %s are left", a.blobs.len(), a.seen(t, id))
		}
		if left := slices.Concat(keysOf(hub, keyData), keysOf(hub, keyNames), keysOf(hub, keySignatures)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// TestLargePersist: more than one transaction, under the lock.
func TestLargePersist(t *testing.T) {
	inCluster(t, func(t *testing.T, hub *Local, a, b *node, _ *atomic.Bool) {
		var text strings.Builder
		text.WriteString(`{"typename":"t::Big","instance_id":0`)
		for i := range 5000 {
			fmt.Fprintf(&text, `,"m%d":{"id":"%s"}`, i, a.put(t, "t::M"))
		}
		text.WriteString("}")
		id := mustCreate(t, a.tree, wirejson.Value(text.String()))[0].ID
		a.persist(t, id)
		if got := b.seen(t, id); got != a.seen(t, id) || got == "" {
			t.Error("not seen whole")
		}
		b.remove(t, DeleteOptions{Deep: true}, id)
		if len(a.seen(t, id)) > 0 || a.blobs.len() > 0 || len(keysOf(hub, keyData)) > 0 {
			t.Errorf("%d blobs and %d keys are left", a.blobs.len(), len(keysOf(hub, keyData)))
		}
	})
}

func (n *node) global(t testing.TB, members ...object.ID) object.ID {
	t.Helper()
	text := `{"typename":"t::Global","instance_id":0,"global":true`
	for i, id := range members {
		text += fmt.Sprintf(`,"m%d":{"id":"%s"}`, i, id)
	}
	return mustCreate(t, n.tree, wirejson.Value(text+"}"))[0].ID
}

func TestGlobalObject(t *testing.T) {
	inCluster(t, func(t *testing.T, hub *Local, a, b *node, _ *atomic.Bool) {
		x, y := a.put(t, "t::A"), b.put(t, "t::A")
		a.persist(t, x)
		b.persist(t, y)
		_ = a.tree.Sync(t.Context())
		g := a.global(t, x, y)
		a.persist(t, g)
		if here, there := a.seen(t, g), b.seen(t, g); here != there || strings.Count(there, "t::A") != 2 {
			t.Errorf("there %s, here %s", there, here)
		}
		b.remove(t, DeleteOptions{}, x)
		if a.seen(t, x) == "" {
			t.Error("a member in use was deleted")
		}
		b.remove(t, DeleteOptions{Deep: true}, g)
		_ = a.tree.Sync(t.Context())
		if a.blobs.len()+b.blobs.len() > 0 || len(keysOf(hub, keyData)) > 0 {
			t.Errorf("left: %d %d %v", a.blobs.len(), b.blobs.len(), keysOf(hub, keyData))
		}
	})
}

// TestDeadInstance: the objects of a node that is silent for thirty seconds go,
// with the global objects that need them; those of others stay.
func TestDeadInstance(t *testing.T) {
	inCluster(t, func(t *testing.T, hub *Local, a, b *node, awayB *atomic.Bool) {
		x, y, z := a.put(t, "t::A"), b.put(t, "t::A"), a.put(t, "t::A")
		a.persist(t, x, z)
		b.persist(t, y)
		_ = a.tree.Sync(t.Context())
		g := a.global(t, x, y)
		a.persist(t, g)
		if err := b.tree.PutName(t.Context(), y, "y"); err != nil || b.seen(t, g) == "" {
			t.Fatal(err)
		}
		awayB.Store(true)
		time.Sleep(25 * time.Second)
		if a.seen(t, y) == "" {
			t.Error("declared dead too early")
		}
		time.Sleep(30 * time.Second)
		if a.seen(t, y)+a.seen(t, g) != "" || a.seen(t, x) == "" || a.seen(t, z) == "" || a.blobs.len() != 2 {
			t.Errorf("y %q, g %q, x %q, z %q, %d blobs", a.seen(t, y), a.seen(t, g), a.seen(t, x), a.seen(t, z), a.blobs.len())
		}
		if left := slices.Concat(keysOf(hub, "/instances/i1"), keysOf(hub, "/signatures/i1"), keysOf(hub, keyNames)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		// It was only cut off: everything comes back under the same ids.
		if b.blobs.len() != 1 || b.seen(t, y) == "" {
			t.Error("the lonely node has lost its own")
		}
		awayB.Store(false)
		time.Sleep(5 * time.Second)
		for _, n := range []*node{a, b} {
			if n.seen(t, y) == "" || n.seen(t, g) == "" || n.seen(t, y) != a.seen(t, y) {
				t.Errorf("after the cut: y %q, g %q", n.seen(t, y), n.seen(t, g))
			}
			if id, err := n.tree.GetName(t.Context(), "y", false); err != nil || id != y {
				t.Errorf("the name: %s, %v", id, err)
			}
			if len(n.Instances()) != 2 {
				t.Errorf("instances: %v", n.Instances())
			}
		}
	})
}

// TestDeletedWhileAway: what others delete while a node is cut off for less time
// than makes it dead is deleted there, too.
func TestDeletedWhileAway(t *testing.T) {
	inCluster(t, func(t *testing.T, _ *Local, a, b *node, awayB *atomic.Bool) {
		x, y := b.put(t, "t::A"), b.put(t, "t::A")
		b.persist(t, x, y)
		awayB.Store(true)
		time.Sleep(15 * time.Second)
		a.remove(t, DeleteOptions{}, x)
		awayB.Store(false)
		time.Sleep(45 * time.Second)
		if b.seen(t, x) != "" || b.blobs.len() != 1 || b.seen(t, y) == "" || a.seen(t, y) == "" {
			t.Errorf("x %q, %d blobs, y %q", b.seen(t, x), b.blobs.len(), b.seen(t, y))
		}
	})
}

// TestOutage: while the store is away local work goes on, and changes for others
// fail at once; later it goes on as before.
func TestOutage(t *testing.T) {
	inCluster(t, func(t *testing.T, _ *Local, a, b *node, awayB *atomic.Bool) {
		y := b.put(t, "t::A")
		awayB.Store(true)
		time.Sleep(11 * time.Second)
		z := b.put(t, "t::A")
		start := time.Now()
		if err := b.tree.Persist(t.Context(), y); err == nil || time.Since(start) > commitTimeout {
			t.Errorf("persisting without the store: %v after %v", err, time.Since(start))
		}
		if b.seen(t, z) == "" || b.Health() == nil {
			t.Errorf("%q, %v", b.seen(t, z), b.Health())
		}
		b.remove(t, DeleteOptions{}, z)
		awayB.Store(false)
		time.Sleep(2 * time.Second)
		b.persist(t, y)
		if a.seen(t, y) == "" || b.Health() != nil {
			t.Errorf("%q, %v", a.seen(t, y), b.Health())
		}
	})
}

// TestWiped: an empty store gets back what its instances know, with names and
// labels, however short it was away.
func TestWiped(t *testing.T) {
	inCluster(t, func(t *testing.T, hub *Local, a, b *node, _ *atomic.Bool) {
		x, y := a.put(t, "t::A"), b.put(t, "t::A")
		a.persist(t, x)
		b.persist(t, y)
		_ = b.tree.PutName(t.Context(), x, "x")
		_ = a.tree.Label(t.Context(), y, []string{"k"}, []string{"v"})
		_ = a.tree.Sync(t.Context())
		g := a.global(t, x, y)
		a.persist(t, g)
		before := a.seen(t, g)
		if b.seen(t, g) != before {
			t.Fatal("not seen")
		}
		hub.Wipe()
		time.Sleep(14 * time.Second)
		for _, n := range []*node{a, b} {
			if got := n.seen(t, g); got != before {
				t.Errorf("node %d after the wipe: %s, before: %s", n.Number(), got, before)
			}
			if id, err := n.tree.GetName(t.Context(), "x", false); err != nil || id != x {
				t.Errorf("the name: %s, %v", id, err)
			}
			if got := Number(n.Instances()); !slices.Equal(got, []object.InstanceID{0, 1}) {
				t.Errorf("instances: %v", got)
			}
		}
	})
}

// Number lists the numbers of instances in order.
func Number[V any](m map[object.InstanceID]V) []object.InstanceID { return slices.Sorted(maps.Keys(m)) }

// TestCompacted: a watch whose revision is forgotten loads everything again.
func TestCompacted(t *testing.T) {
	inCluster(t, func(t *testing.T, hub *Local, a, b *node, awayB *atomic.Bool) {
		x, y := a.put(t, "t::A"), a.put(t, "t::A")
		a.persist(t, x)
		if b.seen(t, x) == "" {
			t.Fatal("not seen")
		}
		awayB.Store(true)
		time.Sleep(time.Second)
		a.persist(t, y)
		a.remove(t, DeleteOptions{}, x)
		hub.Forget()
		awayB.Store(false)
		time.Sleep(2 * time.Second)
		if b.seen(t, x) != "" || b.seen(t, y) == "" {
			t.Errorf("x %q, y %q", b.seen(t, x), b.seen(t, y))
		}
	})
}

// TestComesBack: a node that crashed and recovered, or was cut off, keeps its
// number; what others deleted, named or labelled before they took it for dead
// stays so, and what was cleaned up comes back.
func TestComesBack(t *testing.T) {
	for _, how := range []string{"briefly", "for long", "for long, and nobody remembers", "cut off for long"} {
		t.Log(how)
		inCluster(t, func(t *testing.T, hub *Local, a, b *node, awayB *atomic.Bool) {
			w, x, y, z := b.put(t, "t::A"), b.put(t, "t::A"), b.put(t, "t::A"), b.put(t, "t::A")
			b.persist(t, w, x, y)
			_ = b.tree.PutName(t.Context(), x, "x")
			_ = b.tree.PutName(t.Context(), w, "dropped")
			part := a.put(t, "t::A")
			a.persist(t, part)
			_ = b.tree.Sync(t.Context())
			g := b.global(t, part, y)
			b.persist(t, g)
			_ = a.tree.Sync(t.Context())
			time.Sleep(11 * time.Second)
			awayB.Store(true)
			a.remove(t, DeleteOptions{}, g)
			a.remove(t, DeleteOptions{Deep: true}, y)
			_ = a.tree.DropName(t.Context(), "dropped")
			_ = a.tree.PutName(t.Context(), w, "given")
			_ = a.tree.Label(t.Context(), w, []string{"k"}, []string{"meanwhile"})
			time.Sleep(map[bool]time.Duration{true: 5 * time.Second, false: time.Minute}[how == "briefly"])
			if how == "for long, and nobody remembers" {
				hub.Forget()
			}
			again := b
			if how == "cut off for long" {
				awayB.Store(false)
				time.Sleep(2 * time.Second)
			} else {
				again = newNode(t, hub, 200, b)
			}
			if again.Number() != 1 {
				t.Errorf("the number is %d", again.Number())
			}
			time.Sleep(time.Second)
			if a.seen(t, x) == "" || again.seen(t, x) != a.seen(t, x) || again.seen(t, z) == "" {
				t.Errorf("%s: x %q, z %q", how, again.seen(t, x), again.seen(t, z))
			}
			if id, err := a.tree.GetName(t.Context(), "x", false); err != nil || id != x {
				t.Errorf("the name: %s, %v", id, err)
			}
			known := how != "for long, and nobody remembers"
			if gone := again.seen(t, y) == "" && again.seen(t, g) == ""; gone != known {
				t.Errorf("away %s: what was deleted meanwhile is gone: %v", how, gone)
			}
			for _, n := range []*node{a, again} {
				names := n.tree.ListNames("*", false, 10)
				if !known {
					break
				}
				if len(names) != 2 || names["given"] != w || names["x"] != x {
					t.Errorf("away %s: the names are %v", how, names)
				}
				if text := n.seen(t, w); !strings.Contains(text, "meanwhile") || !strings.Contains(text, "given") {
					t.Errorf("away %s: on node %d a label or name is lost: %s", how, n.Number(), text)
				}
			}
			if here, there := a.seen(t, w), again.seen(t, w); here != there {
				t.Errorf("away %s: there %s, here %s", how, there, here)
			}
		})
	}
}

// TestDangling: an object that comes back after its node was taken for dead, and
// whose member is gone for good meanwhile, waits for the member and then goes.
func TestDangling(t *testing.T) {
	inCluster(t, func(t *testing.T, hub *Local, a, b *node, awayB *atomic.Bool) {
		x, y := a.put(t, "t::A"), b.put(t, "t::A")
		a.persist(t, x)
		b.persist(t, y)
		_ = b.tree.Sync(t.Context())
		g := b.global(t, x, y)
		b.persist(t, g)
		_ = a.tree.Sync(t.Context())
		time.Sleep(11 * time.Second)
		awayB.Store(true)
		time.Sleep(time.Minute) // b is taken for dead
		if a.seen(t, g) != "" {
			t.Fatal("a global object is there without its member")
		}
		a.remove(t, DeleteOptions{}, x)
		awayB.Store(false)
		time.Sleep(12 * time.Second)
		if a.seen(t, g) != "" || a.seen(t, y) == "" || len(keysOf(hub, keySignatures+"i0")) > 0 {
			t.Errorf("g %q, y %q, signatures %v", a.seen(t, g), a.seen(t, y), keysOf(hub, keySignatures))
		}
		if err := b.tree.Label(t.Context(), x, []string{"k"}, []string{"v"}); status.Of(err) != status.ObjectNotExists {
			t.Errorf("labelling what is deleted: %v", err)
		}
		other := b.global(t, x, y)
		if err := b.tree.Persist(t.Context(), other); err == nil || !strings.Contains(err.Error(), "was deleted") {
			t.Errorf("persisting what holds a deleted object: %v", err)
		}
		b.remove(t, DeleteOptions{}, other)
		time.Sleep(2 * time.Minute)
		if b.seen(t, g) != "" || b.seen(t, x) != "" || b.seen(t, y) == "" {
			t.Errorf("in the end g %q, x %q, y %q", b.seen(t, g), b.seen(t, x), b.seen(t, y))
		}
	})
}

// TestWaits: what holds an object of a node that comes back later is there again
// when that node is.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, awayB, awayC := NewHub("hub"), atomic.Bool{}, atomic.Bool{}
		a := newNode(t, hub, 100, nil)
		b, c := newNode(t, cut{hub, &awayB}, 200, nil), newNode(t, cut{hub, &awayC}, 300, nil)
		x, y := c.put(t, "t::A"), b.put(t, "t::A")
		c.persist(t, x)
		b.persist(t, y)
		_ = b.tree.Sync(t.Context())
		g := b.global(t, x, y)
		b.persist(t, g)
		want := a.seen(t, g)
		time.Sleep(11 * time.Second)
		awayB.Store(true)
		awayC.Store(true)
		time.Sleep(2 * time.Minute) // both are taken for dead
		awayB.Store(false)
		time.Sleep(15 * time.Second)
		if a.seen(t, g) != "" || a.seen(t, y) == "" || !strings.Contains(b.seen(t, g), `"transient":true`) {
			t.Errorf("it is there without its member: %q and %q", a.seen(t, g), b.seen(t, g))
		}
		awayC.Store(false)
		time.Sleep(15 * time.Second)
		for _, n := range []*node{a, b, c} {
			if got := n.seen(t, g); got != want {
				t.Errorf("node %d: %s, not %s", n.Number(), got, want)
			}
		}
	})
}

// TestOvertaken: after a wipe a new node is faster and gets the number of one that
// was cut off. Both keep their objects, the old one under another number; clients
// that know it by the old one go on.
func TestOvertaken(t *testing.T) {
	inCluster(t, func(t *testing.T, hub *Local, a, b *node, awayB *atomic.Bool) {
		x := a.put(t, "t::A")
		a.persist(t, x)
		y := b.put(t, "t::A")
		b.persist(t, y)
		_ = b.tree.PutName(t.Context(), y, "y")
		awayB.Store(true)
		time.Sleep(time.Second)
		hub.Wipe()
		time.Sleep(12 * time.Second) // a is back as 0
		c := newNode(t, hub, 300, nil)
		z := c.put(t, "t::C")
		c.persist(t, z)
		if c.Number() != 1 {
			t.Fatalf("the new node is %d", c.Number())
		}
		awayB.Store(false)
		time.Sleep(15 * time.Second)
		if b.Number() < 2 {
			t.Errorf("the old node is %d", b.Number())
		}
		old := mustCreate(t, b.tree, wirejson.Value(`{"typename":"t::Old","instance_id":1}`))[0]
		if old.Instance != b.Number() {
			t.Errorf("an object of a client that connected before is on %d", old.Instance)
		}
		b.persist(t, old.ID)
		for _, n := range []*node{a, b, c} {
			for _, id := range []object.ID{x, y, z, old.ID} {
				if got := n.seen(t, id); got == "" || got != b.seen(t, id) {
					t.Errorf("node %d shows %s as %q", n.Number(), id, got)
				}
			}
			if id, err := n.tree.GetName(t.Context(), "y", false); err != nil || id != y {
				t.Errorf("the name: %s, %v", id, err)
			}
		}
		if a.blobs.len() != 1 || b.blobs.len() != 1 || c.blobs.len() != 1 {
			t.Errorf("blobs: %d %d %d", a.blobs.len(), b.blobs.len(), c.blobs.len())
		}
		if left := keysOf(hub, "/signatures/"); len(left) != 4 {
			t.Errorf("signatures: %v", left)
		}
	})
}

// TestClockJumps: a wall clock that jumps by an hour, either way, makes nobody dead
// and no deletion doubtful; the dead are found all the same.
func TestClockJumps(t *testing.T) {
	inCluster(t, func(t *testing.T, _ *Local, a, b *node, awayB *atomic.Bool) {
		x, y := a.put(t, "t::A"), b.put(t, "t::A")
		a.persist(t, x)
		b.persist(t, y)
		for _, jump := range []time.Duration{time.Hour, -time.Hour, 0} {
			b.jump.Store(int64(jump))
			a.jump.Store(int64(-jump))
			time.Sleep(50 * time.Second)
			if len(a.Instances()) != 2 || a.seen(t, y) == "" || b.seen(t, x) == "" {
				t.Fatalf("after a jump of %v: %d instances", jump, len(a.Instances()))
			}
		}
		a.remove(t, DeleteOptions{}, y)
		if b.seen(t, y) != "" || b.blobs.len() > 0 {
			t.Error("a deletion is held")
		}
		b.jump.Store(int64(time.Hour))
		awayB.Store(true)
		time.Sleep(55 * time.Second)
		if len(a.Instances()) != 1 {
			t.Errorf("%d instances, one of them dead", len(a.Instances()))
		}
	})
}

// TestCopyOutlivesSource: while a node is down, another one copies its object and
// deletes the original: the copy needs the blob, which is still there.
func TestCopyOutlivesSource(t *testing.T) {
	inCluster(t, func(t *testing.T, hub *Local, a, b *node, awayB *atomic.Bool) {
		x := b.put(t, "t::A")
		b.persist(t, x)
		time.Sleep(11 * time.Second)
		awayB.Store(true)
		_ = a.tree.Sync(t.Context())
		copied, err := a.tree.ShallowCopy(t.Context(), x, nil)
		if err != nil {
			t.Fatal(err)
		}
		a.remove(t, DeleteOptions{}, x)
		again := newNode(t, hub, 200, b)
		time.Sleep(time.Second)
		if again.seen(t, copied) == "" || again.seen(t, copied) != a.seen(t, copied) || again.blobs.len() != 1 || again.seen(t, x) != "" {
			t.Errorf("the copy is %q, %d blobs", again.seen(t, copied), again.blobs.len())
		}
	})
}

// TestForeignKeys: what makes no sense is left alone.
func TestForeignKeys(t *testing.T) {
	inCluster(t, func(t *testing.T, hub *Local, a, b *node, _ *atomic.Bool) {
		_, _, err := hub.Commit(t.Context(), nil, []Change{
			Put("/data/o0000000000000123/__name", []byte(`"vghost"`)), Put("/data/o0000000000000124", []byte(`{"typename":`)),
			Put("/data/o0000000000000125", []byte(`{"typename":"vt::A","instance_id":0,"m":"lnonsense"}`)), Put("/data/nonsense", nil),
			Put("/instances/i9/foo", []byte("1")), Put("/instances/x", []byte("1")), Put("/names/ghost", []byte("291")), Put("/other", nil),
			Put("/names/nonsense", []byte("{")), Put("/signatures/i0/nonsense", []byte(`"o1"`)), Put("mylock/123", nil),
			Put("/data/o0000000000000126", []byte(`{"typename":"vt::A","instance_id":8,"t":"vx","x.y":"lo0000000000000777.a.b.c"}`)),
		})
		if err != nil {
			t.Fatal(err)
		}
		c := newNode(t, hub, 300, nil)
		for _, n := range []*node{a, b, c} {
			if n.seen(t, 0x123)+n.seen(t, 0x124)+n.seen(t, 0x125) != "" || n.tree.Len() != 1 || len(n.Instances()) != 3 {
				t.Errorf("%d objects, instances %v", n.tree.Len(), n.Instances())
			}
		}
		b.remove(t, DeleteOptions{Force: true, Deep: true}, b.tree.AllIDs()...)
		time.Sleep(time.Minute)
		if left := keysOf(hub, "/instances/i9"); len(left) > 0 {
			t.Errorf("the half instance is still there: %v", left)
		}
		if len(a.Instances()) != 3 {
			t.Errorf("instances: %v", a.Instances())
		}
	})
}

// TestLocksExclude: one holder at a time, on whichever node.
func TestLocksExclude(t *testing.T) {
	inCluster(t, func(t *testing.T, _ *Local, a, b *node, _ *atomic.Bool) {
		full, err := a.Lock(t.Context(), 0, "mine")
		if err != nil || !strings.HasPrefix(full, "mine/") {
			t.Fatal(full, err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Lock(short, 0, "mine"); err == nil {
			t.Error("locked twice")
		}
		if other, err := b.Lock(t.Context(), 5, "mine"); err != nil || !strings.HasPrefix(other, "mine/") {
			t.Error("the lock of another session:", other, err)
		}
		if err := a.Unlock(t.Context(), 0, full); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Lock(t.Context(), 0, "mine"); err != nil {
			t.Error(err)
		}
	})
}

// TestMemberGone: an own member that another node deletes while what holds it is
// not in the store comes back with that.
func TestMemberGone(t *testing.T) {
	for _, wait := range []time.Duration{15 * time.Second, 35 * time.Second} { // the deletion is doubted first, then not
		synctest.Test(t, func(t *testing.T) { testMemberGone(t, wait) })
	}
}

func testMemberGone(t *testing.T, wait time.Duration) {
	hub, awayB, awayC := NewHub("hub"), atomic.Bool{}, atomic.Bool{}
	a := newNode(t, hub, 100, nil)
	b, c := newNode(t, cut{hub, &awayB}, 200, nil), newNode(t, cut{hub, &awayC}, 300, nil)
	x, y := c.put(t, "t::X"), b.put(t, "t::Y")
	c.persist(t, x)
	b.persist(t, y)
	_ = b.tree.Sync(t.Context())
	g := b.global(t, x, y)
	b.persist(t, g)
	want := a.seen(t, g)
	time.Sleep(11 * time.Second)
	awayB.Store(true)
	awayC.Store(true)
	time.Sleep(2 * time.Minute) // both are taken for dead
	awayB.Store(false)
	time.Sleep(wait) // the global object waits for x
	a.remove(t, DeleteOptions{Deep: true}, y)
	if a.seen(t, y) != "" || b.seen(t, y) == "" || b.blobs.len() != 1 {
		t.Fatalf("y is %q, for its owner %q; %d blobs", a.seen(t, y), b.seen(t, y), b.blobs.len())
	}
	awayC.Store(false)
	time.Sleep(15 * time.Second)
	for _, n := range []*node{a, b, c} {
		if got := n.seen(t, g); got != want {
			t.Errorf("node %d: %s, not %s", n.Number(), got, want)
		}
	}
	time.Sleep(time.Minute)
	a.remove(t, DeleteOptions{Deep: true}, g)
	_ = b.tree.Sync(t.Context())
	_ = c.tree.Sync(t.Context())
	if left := slices.Concat(keysOf(hub, keyData), keysOf(hub, keySignatures)); len(left) > 0 || b.blobs.len()+c.blobs.len() > 0 {
		t.Errorf("left: %v, %d and %d blobs", left, b.blobs.len(), c.blobs.len())
	}
}

// lateness keeps what happens in the hub from a node while it is set.
type lateness struct {
	*Local
	late *atomic.Bool
}

func (l lateness) Watch(ctx context.Context, after int64, apply func(Batch)) error {
	return l.Local.Watch(ctx, after, func(b Batch) {
		for l.late.Load() && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		apply(b)
	})
}

// TestMemberGoneUnheard: a node that has not heard yet that a member was deleted
// elsewhere persists what holds it with that member if it has it, and not at all
// if it has not.
func TestMemberGoneUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, late := NewHub("hub"), atomic.Bool{}
		a := newNode(t, hub, 100, nil)
		b := newNode(t, lateness{hub, &late}, 200, nil)
		x, y := a.put(t, "t::X"), b.put(t, "t::Y")
		a.persist(t, x)
		b.persist(t, y)
		_ = b.tree.Sync(t.Context())
		own, foreign := b.global(t, y), b.global(t, x)
		time.Sleep(time.Second)
		late.Store(true)
		time.AfterFunc(time.Second, func() { late.Store(false) })
		a.remove(t, DeleteOptions{Deep: true}, x, y)
		b.persist(t, own)
		if text := a.seen(t, own); !strings.Contains(text, "t::Y") {
			t.Errorf("the member is missing: %s", text)
		}
		late.Store(true)
		time.AfterFunc(time.Second, func() { late.Store(false) })
		if err := b.tree.Persist(t.Context(), foreign); err == nil || !strings.Contains(err.Error(), "was deleted") {
			t.Errorf("persisting what holds a deleted object: %v", err)
		}
	})
}
