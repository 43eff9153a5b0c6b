//go:build linux

package cluster

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

// TestShared does on one node what the others must see.
func TestShared(t *testing.T) {
	t.Parallel()
	c := form(t, 3)
	a, b, third := c.nodes[0], c.nodes[1], c.nodes[2]
	ca, cb, cc := a.dial(), b.dial(), third.dial()

	// Not persistent: nobody else sees it.
	th, err := put(ctx, ca, 1, 5000)
	must(t, err)
	if ok, err := cb.Exists(ctx, th.id); ok || err != nil {
		t.Errorf("another node sees an object that is not persistent: %t, %v", ok, err)
	}
	if keys, err := c.etcd.keys(); err != nil || keys["/data/"+th.id.String()] != "" {
		t.Errorf("an object that is not persistent is in etcd: %v", err)
	}

	// Each change is seen by the next request on another node.
	must(t, ca.Persist(ctx, th.id), ca.PutName(ctx, th.id, th.name()), ca.Label(ctx, th.id, map[string]string{"a": "1"}))
	must(t, b.reads([]thing{th}, true), third.reads([]thing{th}, true))
	must(t, cb.Label(ctx, th.id, map[string]string{"b": "2"}))
	if m, err := ca.GetObject(ctx, th.id); err != nil || m.Labels["a"] != "1" || m.Labels["b"] != "2" {
		t.Errorf("labels of two nodes: %v, %v", m, err)
	}
	must(t, cc.PutName(ctx, th.id, "second"))
	if id, err := ca.GetName(ctx, "second", true); err != nil || id != th.id {
		t.Errorf("a name of another node: %s, %v", id, err)
	}
	must(t, ca.DropName(ctx, "second"))
	if id, err := cc.GetName(ctx, "second", false); err == nil {
		t.Errorf("a name that another node has dropped is %s", id)
	}

	// Copies of what is here and of what is elsewhere.
	for i, from := range []*client.Client{ca, cb} {
		id, err := from.ShallowCopy(ctx, th.id, map[string]any{"copy": i})
		must(t, err)
		m, err := cc.GetObject(ctx, id)
		if err != nil {
			t.Fatalf("a shallow copy: %v", err)
		}
		if n, ok := m.Int("copy"); !ok || int(n) != i || m.Member("buffer_") == nil || m.Member("buffer_").ID != th.blob || m.InstanceID != ca.Info().InstanceID {
			t.Errorf("a shallow copy: %s", describe(m))
		}
		c.mustAgree(patience, nil)
		must(t, cc.Delete(ctx, []client.ID{id}, client.DeleteOptions{Shallow: true}))
		if ok, err := ca.Exists(ctx, id); ok || err != nil {
			t.Errorf("a shallow copy that was deleted elsewhere: %t, %v", ok, err)
		}
		must(t, th.intact(ctx, ca))
	}

	// A global object over two nodes, made on the third.
	var parts []thing
	g := client.NewMeta("cluster::Global")
	g.Global = true
	for i, part := range []*client.Client{ca, cb} {
		th, err := putPersistent(ctx, part, uint64(10+i), 3000)
		must(t, err)
		parts = append(parts, th)
		g.AddObject(fmt.Sprintf("part_%d", i), th.id)
	}
	must(t, third.reads(parts, false)) // it must know them
	id, err := cc.CreateObject(ctx, g)
	must(t, err, cc.Persist(ctx, id))
	for _, c := range []*client.Client{ca, cb, cc} {
		m, err := c.GetObject(ctx, id)
		must(t, err)
		for i, th := range parts {
			sub := m.Member(fmt.Sprintf("part_%d", i))
			if sub == nil || sub.ID != th.id {
				t.Errorf("part %d of the global object: %s", i, describe(m))
			}
		}
	}
	c.mustAgree(patience, nil)
	must(t, ca.Delete(ctx, []client.ID{parts[0].id}, client.DeleteOptions{})) // it is referred to
	must(t, a.keeps(parts[:1]))
	must(t, ca.Delete(ctx, []client.ID{id}, client.DeleteOptions{}))
	for i, n := range c.nodes[:2] {
		var gone bool
		must(t, n.do(func(ctx context.Context, c *client.Client) error {
			ok, err := c.Exists(ctx, parts[i].id)
			gone = !ok
			return err
		}))
		if !gone {
			t.Errorf("part %d outlives the global object that was deleted with it", i)
		}
	}

	// The bytes by the command line of another host.
	if got, errs, code := third.cli("get", "-H", fmt.Sprintf("%s:%d", a.host.Addr, rpcPort), th.blob.String()); code != 0 || got != string(pattern(1, 5000)) {
		t.Errorf("v6d get -H from another host: exit code %d, %d bytes: %s", code, len(got), errs)
	}

	// Deleted elsewhere: the owner frees the memory.
	before := usage(t, a)
	must(t, cb.Delete(ctx, []client.ID{th.id}, client.DeleteOptions{}))
	if ok, err := ca.Exists(ctx, th.id); ok || err != nil {
		t.Errorf("an object that another node deleted: %t, %v", ok, err)
	}
	if after := usage(t, a); after > before-5000 {
		t.Errorf("%d bytes were in use, %d after another node deleted 5000 of them", before, after)
	}
	if id, err := ca.GetName(ctx, th.name(), false); err == nil {
		t.Errorf("the name of an object that was deleted is %s", id)
	}
	if keys, err := c.etcd.keys(); err != nil || slices.ContainsFunc(sortedKeys(keys), func(k string) bool { return !isHousekeeping(k) }) {
		t.Errorf("etcd has more than what instances say: %v, %v", sortedKeys(keys), err)
	}

	// Clear takes all that is persistent, and what is local here alone.
	for i, n := range c.nodes {
		_, err := n.things(uint64(20+10*i), uint64(25+10*i))
		must(t, err)
	}
	local, err := put(ctx, ca, 90, 100)
	must(t, err)
	must(t, cb.Clear(ctx))
	for key := range c.mustAgree(patience, nil) {
		if !strings.HasPrefix(key, "instance ") {
			t.Errorf("clear leaves %s", key)
		}
	}
	must(t, local.intact(ctx, ca), ca.Delete(ctx, []client.ID{local.id}, client.DeleteOptions{}))
	for _, n := range c.nodes {
		if u := usage(t, n); u != 0 {
			t.Errorf("%d bytes are in use on %s after all was cleared", u, n.name)
		}
		must(t, n.balanced())
	}
}

func usage(t *testing.T, n *node) int64 {
	t.Helper()
	st, err := n.status()
	must(t, err)
	return st.Ledger.Usage
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// isHousekeeping reports whether a key belongs to no object.
func isHousekeeping(key string) bool {
	return key == "/next_instance_id" || strings.HasPrefix(key, "/instances/") || strings.HasPrefix(key, "/meta_sync_lock/")
}

// TestLocks takes locks on several nodes.
func TestLocks(t *testing.T) {
	t.Parallel()
	c := form(t, 3)
	var inside, worst atomic.Int32
	done := make(chan error, len(c.nodes))
	counter := 0
	began := time.Now()
	for _, n := range c.nodes {
		cl := n.dial()
		go func() {
			done <- func() error {
				for range 10 {
					unlock, err := cl.Lock(ctx, "counter")
					if err != nil {
						return err
					}
					worst.Store(max(worst.Load(), inside.Add(1)))
					counter++ // a race, unless the lock works
					time.Sleep(time.Millisecond)
					inside.Add(-1)
					if err := unlock(ctx); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range c.nodes {
		must(t, <-done)
	}
	if worst.Load() != 1 || counter != 30 {
		t.Errorf("%d holders of a lock at a time, %d of 30 were counted", worst.Load(), counter)
	}
	t.Logf("30 locks in turn on three nodes: %v", since(began))

	// Hanging up gives a lock back; so does the end of the holder's node, later.
	first, second := c.nodes[0].dial(), c.nodes[1].dial()
	_, err := first.Lock(ctx, "held")
	must(t, err)
	if n, err := waitForLock(second, 500*time.Millisecond); err == nil {
		t.Errorf("a lock that is held was taken after %v", n)
	}
	first.Close()
	second = c.nodes[1].dial()
	n, err := waitForLock(second, 5*time.Second)
	if err != nil {
		t.Fatalf("the lock of a client that hung up: %v", err)
	}
	t.Logf("the lock of a client that hung up was free after %v", n)
	c.nodes[1].kill()
	n, err = waitForLock(c.nodes[2].dial(), 15*time.Second)
	if err != nil {
		t.Fatalf("the lock of a node that was killed: %v", err)
	}
	if n > 12*time.Second {
		t.Errorf("the lock of a node that was killed was free after %v", n)
	}
	t.Logf("the lock of a node that was killed was free after %v", n)
	c.nodes[1].start()
	must(t, c.nodes[0].balanced(), c.nodes[2].balanced())
}

func waitForLock(c *client.Client, limit time.Duration) (time.Duration, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	_, err := c.Lock(limited, "held")
	return since(began), err
}

// TestForeignKeys writes what others may leave below the prefix: nobody minds.
func TestForeignKeys(t *testing.T) {
	t.Parallel()
	c := hosts(t, 3, noOptions)
	foreign := map[string]string{
		"/data/o00000000000000aa/__name":     `"vphantom"`, // what 0.24 leaves of a deleted object
		"/data/o00000000000000ab/__labels":   `"v{\"a\":\"1\"}"`,
		"/data/o00000000000000ac":            `{"typename":"vx","instance_`,
		"/data/o00000000000000ad":            ``,
		"/data/o00000000000000ae":            `null`,
		"/data/o00000000000000af":            `{"typename":"vcluster::Odd","instance_id":7,"m":"lo00000000000000aa.x","signature":-1}`,
		"/data/o00000000000000b0":            `{"typename":"vcluster::Dangling","instance_id":7,"signature":77,"transient":false,"m":"lo0000000000000bbb.cluster::Gone"}`,
		"/data/o00000000000000b1":            `{"typename":"vcluster::Self","instance_id":7,"signature":78,"transient":false,"m":"lo00000000000000b1.cluster::Self"}`,
		"/data/o00000000000000b2":            `{"typename":"vcluster::Ring","instance_id":7,"signature":79,"m":"lo00000000000000b3.cluster::Ring"}`,
		"/data/o00000000000000b3":            `{"typename":"vcluster::Ring","instance_id":7,"signature":80,"m":"lo00000000000000b2.cluster::Ring"}`,
		"/data/o00000000000000b4":            `{"typename":"cluster::NoV","instance_id":"x"}`,
		"/data/o8000000000000005":            `{"typename":"vvineyard::Blob"}`,
		"/data/o8000000000000006/length":     `5`,
		"/data/nonsense":                     `1`,
		"/data/":                             `1`,
		"/data/o00000000000000b5/a/b/c":      `{}`,
		"/instances/i9/foo":                  `"bar"`, // this crashes 0.24
		"/instances/x/hostid":                `1`,
		"/instances/i/hostid":                `1`,
		"/instances/i18446744073709551616/x": `1`,
		"/names/nowhere":                     `12345`,
		"/names/text":                        `"abc"`,
		"/names/":                            `1`,
		"/names/~":                           `-5`,
		"/signatures/i0/sx":                  `"o1"`,
		"/signatures/i7/s000000000000004d":   `17`,
		"/signatures/s000000000000004d":      `"o00000000000000b0"`,
		"/somebody/1a2b":                     ``,
		"mylock/694d9ab0":                    ``,
		"":                                   `root`,
		"/":                                  `slash`,
		"1/data/o00000000000000c1":           `{"typename":"vcluster::Stranger","instance_id":0}`, // of session S…01
		"/\xff\xfe":                          "\xff\x00",
	}
	for key, value := range foreign {
		must(t, c.etcd.put(key, value))
	}
	// One starts with all that, the others have it come by.
	c.add(0, c.etcd.Endpoint()).start()
	must(t, c.etcd.drop("/data/o00000000000000a"), c.etcd.drop("/names/"))
	c.add(1, c.etcd.Endpoint()).start()
	for key, value := range foreign {
		must(t, c.etcd.put(key, value))
	}
	c.add(2, c.etcd.Endpoint()).start()

	var all []thing
	for i, n := range c.nodes {
		list, err := n.things(uint64(10*i), uint64(10*i+3))
		must(t, err)
		all = append(all, list...)
	}
	for _, n := range c.nodes {
		must(t, n.reads(all, true))
		if nums, err := n.numbers(); err != nil || !slices.Equal(nums, []string{"i0", "i1", "i2"}) {
			t.Errorf("instances are %v, %v", nums, err)
		}
		for _, command := range [][]string{{"ls"}, {"status"}, {"ls", "-o", "json"}, {"name", "ls"}} {
			if _, errs, code := n.cli(command...); code != 0 {
				t.Errorf("v6d %v: exit code %d: %s", command, code, errs)
			}
		}
		must(t, n.do(func(ctx context.Context, c *client.Client) error {
			for id := client.ID(0xaa); id <= 0xb5; id++ {
				if m, err := c.GetObject(ctx, id); err == nil {
					t.Errorf("%s shows %s", n.name, describe(m))
				}
			}
			return nil
		}))
	}
	for i, n := range c.nodes {
		began := time.Now()
		must(t, n.do(func(ctx context.Context, c *client.Client) error { return c.Clear(ctx) }))
		if took := since(began); took > 2*time.Second {
			t.Errorf("clear took %v", took)
		}
		for _, other := range c.nodes {
			must(t, within(patience, func() error {
				v, err := other.look()
				for key := range v {
					if strings.HasPrefix(key, "object ") && err == nil {
						return fmt.Errorf("%s has %s after a clear of node %d", other.name, key, i)
					}
				}
				return err
			}))
		}
		for key, value := range foreign {
			must(t, c.etcd.put(key, value))
		}
	}
	keys, err := c.etcd.keys()
	must(t, err)
	if _, ok := keys["mylock/694d9ab0"]; !ok || keys["/\xff\xfe"] != "\xff\x00" {
		t.Errorf("keys of strangers have changed")
	}
	must(t, c.nodes[0].balanced(), c.nodes[1].balanced(), c.nodes[2].balanced())
}

// TestNewest puts names and reads them elsewhere at once: a read that began
// after a write was acknowledged sees it.
func TestNewest(t *testing.T) {
	t.Parallel()
	c := form(t, 2)
	a, b := c.nodes[0].dial(), c.nodes[1].dial()
	var slowest time.Duration
	began := time.Now()
	for seed := range uint64(100) {
		th, err := putPersistent(ctx, a, seed, 64)
		must(t, err, a.PutName(ctx, th.id, "newest"))
		asked := time.Now()
		if id, err := b.GetName(ctx, "newest", false); err != nil || id != th.id {
			t.Fatalf("name %d is %s, want %s: %v", seed, id, th.id, err)
		}
		slowest = max(slowest, time.Since(asked))
		got, err := a.GetBlob(ctx, th.blob)
		if err != nil || !bytes.Equal(got.Bytes(), pattern(seed, 64)) {
			t.Fatalf("blob %d: %v", seed, err)
		}
	}
	t.Logf("100 times put, persisted, named and read elsewhere: %v, the slowest read %v", since(began), slowest.Round(10*time.Microsecond))
}
