//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
)

// load is what a client does to a node all the time: it puts, gets, now and then
// persists. Nothing of it may fail or hang while etcd is there; without etcd,
// nothing that is local.
type load struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu        sync.Mutex
	kept      []thing       // acknowledged as persistent; guarded by mu, as all below
	local     int           // puts and gets
	failures  []error       // of those
	slowest   time.Duration // of those
	refused   int           // persists
	lastError error         // of a persist
	longest   time.Duration // of a persist
}

// use puts load on a node until stop is called.
func (n *node) use(seed uint64) *load {
	working, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, done: make(chan struct{})}
	c := n.dial()
	go func() {
		defer close(l.done)
		for working.Err() == nil {
			l.step(working, c, seed)
			seed++
			time.Sleep(30 * time.Millisecond)
		}
	}()
	return l
}

func (l *load) step(working context.Context, c *client.Client, seed uint64) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	note := func(err error, began time.Time) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.local++
		l.slowest = max(l.slowest, time.Since(began))
		if err != nil {
			l.failures = append(l.failures, err)
		}
		return err == nil
	}
	began := time.Now()
	th, err := put(limited, c, seed, 2000)
	if !note(err, began) {
		return
	}
	began = time.Now()
	if !note(th.intact(limited, c), began) || seed%5 != 0 || working.Err() != nil {
		return
	}
	began = time.Now()
	err = c.Persist(limited, th.id)
	l.mu.Lock()
	l.longest = max(l.longest, time.Since(began))
	if err != nil {
		l.refused++
		l.lastError = err
	} else {
		l.kept = append(l.kept, th)
	}
	earlier := slices.Clone(l.kept)
	l.mu.Unlock()
	if len(earlier) > 0 {
		began = time.Now()
		note(earlier[int(seed)%len(earlier)].intact(limited, c), began)
	}
}

// stop ends the load.
func (l *load) stop() {
	l.cancel()
	<-l.done
}

// verify fails the test for what local work must not do.
func (l *load) verify(t *testing.T, what string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%s: %d local puts and gets, slowest %v; %d persisted, %d refused, longest %v: %v",
		what, l.local, l.slowest.Round(time.Millisecond), len(l.kept), l.refused, l.longest.Round(time.Millisecond), l.lastError)
	if len(l.failures) > 0 {
		t.Errorf("%s: %d of %d local puts and gets failed: %v", what, len(l.failures), l.local, l.failures[0])
	}
	if l.slowest > 4*time.Second {
		t.Errorf("%s: a local put or get took %v", what, l.slowest)
	}
	if l.longest > 6*time.Second {
		t.Errorf("%s: a persist took %v", what, l.longest)
	}
}

// works waits until changes go through on all nodes, and everybody sees them.
func (c *cluster) works(limit time.Duration, seed uint64) (all []thing) {
	c.t.Helper()
	began := time.Now()
	for i, n := range c.nodes {
		var list []thing
		if err := within(max(0, limit-time.Since(began)), func() (err error) {
			list, err = n.things(seed+uint64(10*i), seed+uint64(10*i+1))
			return err
		}); err != nil {
			c.t.Fatalf("changes do not go through after %v: %v", since(began), err)
		}
		all = append(all, list...)
	}
	for _, n := range c.nodes {
		if err := within(max(0, limit-time.Since(began)), func() error { return n.reads(all, true) }); err != nil {
			c.t.Fatalf("not everybody sees changes after %v: %v", since(began), err)
		}
	}
	c.t.Logf("everything works after %v", since(began))
	return all
}

// TestEtcdDown kills etcd for a while.
func TestEtcdDown(t *testing.T) {
	t.Parallel()
	c, own, all, want := populated(t)
	var loads []*load
	for i, n := range c.nodes[:2] {
		loads = append(loads, n.use(uint64(10_000*(i+1))))
	}
	time.Sleep(time.Second)
	c.etcd.Kill()
	down := time.Now()
	time.Sleep(8 * time.Second)

	// What people see.
	out, errs, code := c.nodes[2].cli("persist", own[2][0].id.String())
	t.Logf("v6d persist of what is persistent, without etcd: exit code %d: %s%s", code, out, errs)
	th := thing{}
	must(t, c.nodes[2].do(func(ctx context.Context, c *client.Client) (err error) {
		th, err = put(ctx, c, 777, 100)
		return err
	}))
	for _, command := range [][]string{
		{"persist", th.id.String()},
		{"name", "set", own[2][0].id.String(), "another"},
		{"label", own[2][0].id.String(), "x=y"},
		{"rm", own[2][0].id.String()},
	} {
		began := time.Now()
		out, errs, code := c.nodes[2].cli(command...)
		t.Logf("v6d %s without etcd: exit code %d after %v: %s%s", strings.Join(command, " "), code, since(began), out, errs)
		if code != 5 || time.Since(began) > 6*time.Second {
			t.Errorf("v6d %s without etcd: exit code %d after %v, want 5 within 6 s", strings.Join(command, " "), code, since(began))
		}
		if !strings.Contains(errs, "etcd") && !strings.Contains(errs, "metadata") {
			t.Errorf("v6d %s does not say what is missing: %s", command[0], errs)
		}
	}
	for _, command := range [][]string{{"ls"}, {"status"}, {"name", "ls"}, {"get", "-q", own[2][0].blob.String()}} {
		began := time.Now()
		if _, errs, code := c.nodes[2].cli(command...); code != 0 || time.Since(began) > 4*time.Second {
			t.Errorf("v6d %s without etcd: exit code %d after %v: %s", strings.Join(command, " "), code, since(began), errs)
		}
	}
	must(t, c.nodes[2].keeps(own[2]))
	time.Sleep(20*time.Second - time.Since(down))
	c.etcd.Start()
	c.works(15*time.Second, 500)
	for i, l := range loads {
		l.stop()
		l.verify(t, fmt.Sprintf("node %d", i))
		if l.refused == 0 {
			t.Errorf("persists went through without etcd")
		}
		must(t, c.nodes[i].keeps(l.kept), c.nodes[1-i].reads(l.kept, false))
	}
	must(t, c.nodes[2].do(func(ctx context.Context, c *client.Client) error { return c.Persist(ctx, th.id) }))
	must(t, c.nodes[0].reads([]thing{th}, false))
	v := c.mustAgree(patience, nil)
	for key, is := range want {
		if v[key] != is {
			t.Errorf("%s was %s, is %s", key, is, v[key])
		}
	}
	for _, n := range c.nodes {
		must(t, n.reads(all, true), n.balanced())
	}
}

// TestEtcdWiped replaces etcd by an empty one: the nodes fill it again.
func TestEtcdWiped(t *testing.T) {
	t.Parallel()
	c, _, all, _ := populated(t)
	// Also what is on several nodes, and copies.
	global := c.global(c.nodes[1], all[0], all[7], all[12])
	must(t, c.nodes[1].do(func(ctx context.Context, cl *client.Client) error {
		err := cl.PutName(ctx, global, "global")
		if err == nil {
			_, err = cl.ShallowCopy(ctx, all[6].id, map[string]any{"copy": "of my own"})
		}
		if err == nil {
			_, err = cl.ShallowCopy(ctx, all[1].id, map[string]any{"copy": "of another's"})
		}
		if err == nil { // the first name's object keeps its name in its metadata
			err = cl.PutName(ctx, all[7].id, all[6].name())
		}
		if err == nil {
			err = cl.PutName(ctx, all[6].id, all[6].name())
		}
		return err
	}))
	want := c.mustAgree(patience, nil)
	for round := range 2 {
		c.etcd.Kill()
		c.etcd.Wipe()
		time.Sleep(time.Duration(3*round) * time.Second)
		c.etcd.Start()
		began := time.Now()
		v, err := c.agree(15*time.Second, want)
		if err != nil {
			for _, n := range c.nodes {
				if is, err := n.look(); err == nil {
					t.Logf("%s: %v", n.name, is.differs(want))
				}
			}
			t.Fatalf("round %d: %v after etcd came back empty: %v", round, since(began), err)
		}
		want = v
		t.Logf("all views are as before %v after etcd came back empty", since(began))
		for _, n := range c.nodes {
			must(t, n.reads(all, false), n.balanced())
		}
		// A newcomer sees the same: it is in etcd, too.
		late := c.add(round, c.etcd.Endpoint(), "--rpc-listen", "off", "--rpc-advertise", "")
		late.start()
		v, err = late.look()
		must(t, err)
		for key, is := range want {
			if v[key] != is {
				t.Errorf("a newcomer sees %s as\n\t%q, not as\n\t%q", key, v[key], is)
			}
		}
		late.stop()
		c.nodes = c.nodes[:3]
		c.mustAgree(patience, want)
	}
}

// TestEtcdPaused lets etcd hang for five seconds.
func TestEtcdPaused(t *testing.T) {
	t.Parallel()
	c, own, _, want := populated(t)
	for range 2 {
		l := c.nodes[0].use(20_000)
		c.etcd.Pause()
		began := time.Now()
		must(t, c.nodes[1].keeps(own[1]))
		if took := since(began); took > 4*time.Second {
			t.Errorf("reads of local objects took %v while etcd hung", took)
		}
		time.Sleep(5*time.Second - time.Since(began))
		c.etcd.Resume()
		c.works(15*time.Second, 500)
		l.stop()
		l.verify(t, "while etcd hung")
		must(t, c.nodes[0].keeps(l.kept))
		v := c.mustAgree(patience, nil)
		for key, is := range want {
			if v[key] != is {
				t.Errorf("%s was %s, is %s", key, is, v[key])
			}
		}
		must(t, c.nodes[0].do(func(ctx context.Context, cl *client.Client) error {
			for _, name := range []string{"thing/500~", "thing/510~", "thing/520~"} {
				id, err := cl.GetName(ctx, name, false)
				if err == nil {
					err = cl.Delete(ctx, []client.ID{id}, client.DeleteOptions{})
				}
				if err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

// TestEtcdSlow puts a second each way between one node and etcd: nobody is taken
// for dead, and everything works, later.
func TestEtcdSlow(t *testing.T) {
	t.Parallel()
	c := hosts(t, 3, noOptions)
	for i := range 2 {
		c.add(i, c.etcd.Endpoint()).start()
	}
	p := testserver.StartProxy(t, testserver.ProxyOptions{
		Listen: c.net.Hub.Addr + ":0", Target: strings.TrimPrefix(c.etcd.Endpoint(), "http://"),
		ListenFunc: c.net.Hub.Listen, DialFunc: c.net.Hub.DialContext,
	})
	far := c.add(2, "http://"+p.Addr)
	far.start()
	own, all := c.populate()
	want := c.mustAgree(patience, nil)
	p.SetDelay(time.Second)
	l := far.use(20_000)
	began := time.Now()
	seed := uint64(300)
	for time.Since(began) < 50*time.Second { // long enough to be taken for dead, and for its neighbour
		asked := time.Now()
		list, err := far.things(seed, seed+1)
		if err != nil {
			t.Fatalf("%v after a second each way: %v", since(began), err)
		}
		wrote := since(asked)
		asked = time.Now()
		must(t, far.reads(all[:1], true))
		if seed++; seed == 301 {
			t.Logf("a put with persist, name and label took %v, a read %v", wrote, since(asked))
		}
		must(t, c.nodes[0].reads(list, true))
		own[2], all = append(own[2], list...), append(all, list...)
		for _, n := range c.nodes {
			if nums, err := n.numbers(); err != nil || len(nums) != 3 {
				t.Fatalf("%v after a second each way %s sees %v: %v", since(began), n.name, nums, err)
			}
		}
	}
	l.stop()
	p.SetDelay(0)
	t.Logf("%d local puts and gets, slowest %v; %d persisted, %d refused, longest %v", l.local, l.slowest, len(l.kept), l.refused, l.longest)
	if len(l.failures)+l.refused > 0 {
		t.Errorf("with etcd a second away: %v, %v", l.failures, l.lastError)
	}
	if l.slowest > 4*time.Second {
		t.Errorf("a local put or get took %v", l.slowest)
	}
	v := c.mustAgree(patience, nil)
	for key, is := range want {
		if v[key] != is {
			t.Errorf("%s was %s, is %s", key, is, v[key])
		}
	}
	must(t, far.keeps(own[2]), far.keeps(l.kept), c.nodes[0].reads(all, true), c.nodes[0].reads(l.kept, false))
	for _, n := range c.nodes {
		must(t, n.balanced())
	}
}

// TestEtcdFull fills etcd up to its quota.
func TestEtcdFull(t *testing.T) {
	t.Parallel()
	c := formOn(t, 2, testserver.EtcdOptions{Quota: 2 << 20})
	own, all := c.populate()
	want := c.mustAgree(patience, nil)
	chunk := []byte(strings.Repeat("x", 200<<10))
	full := false
	for i := range 40 {
		if err := c.etcd.ask("/v3/kv/put", map[string]any{"key": fmt.Appendf(nil, "fill/%d", i), "value": chunk}, nil); err != nil {
			full = strings.Contains(err.Error(), "space")
			break
		}
	}
	if !full {
		t.Fatal("etcd does not get full")
	}
	l := c.nodes[0].use(20_000)
	time.Sleep(2 * time.Second)
	var th thing
	must(t, c.nodes[1].do(func(ctx context.Context, c *client.Client) (err error) {
		th, err = put(ctx, c, 777, 100)
		return err
	}))
	began := time.Now()
	_, errs, code := c.nodes[1].cli("persist", th.id.String())
	t.Logf("v6d persist into a full etcd: exit code %d after %v: %s", code, since(began), errs)
	if code != 5 && code != 6 || time.Since(began) > 6*time.Second || !strings.Contains(errs, "defrag") {
		t.Errorf("v6d persist into a full etcd: exit code %d after %v: %s", code, since(began), errs)
	}
	time.Sleep(12 * time.Second) // over a heartbeat, which is refused as well
	began = time.Now()
	_, errs, code = c.nodes[1].cli("persist", th.id.String())
	t.Logf("the same later: exit code %d after %v: %s", code, since(began), errs)
	if code != 5 && code != 6 || time.Since(began) > 6*time.Second || !strings.Contains(errs, "defrag") {
		t.Errorf("v6d persist into an etcd that has been full for a while: exit code %d after %v: %s", code, since(began), errs)
	}
	for i, n := range c.nodes {
		must(t, n.keeps(own[i]), n.reads(all, true))
	}
	must(t,
		c.etcd.ask("/v3/kv/deleterange", map[string]any{"key": []byte("fill/"), "range_end": []byte("fill0")}, nil),
		c.etcd.compact(),
		c.etcd.disarm(),
	)
	c.works(15*time.Second, 500)
	l.stop()
	l.verify(t, "while etcd was full")
	if l.refused == 0 {
		t.Error("persists went into a full etcd")
	}
	must(t, c.nodes[0].keeps(l.kept), c.nodes[1].reads(l.kept, false))
	v := c.mustAgree(patience, nil)
	for key, is := range want {
		if v[key] != is {
			t.Errorf("%s was %s, is %s", key, is, v[key])
		}
	}
	must(t, c.nodes[0].balanced(), c.nodes[1].balanced())
}

// TestPartition cuts a node off for a minute: the others clean up after it; it
// goes on by itself, and brings everything back when it returns.
func TestPartition(t *testing.T) {
	t.Parallel()
	slowly(t, 90*time.Second)
	c, own, all, _ := populated(t)
	lonely := c.nodes[1]
	c.global(c.nodes[0], own[0][0], own[1][0]) // its member takes it along, and brings it back
	want := c.mustAgree(patience, nil)
	in := lonely.dial()
	before, err := lonely.status()
	must(t, err)
	l := lonely.use(20_000)
	time.Sleep(time.Second)
	lonely.host.Cut()
	cut := time.Now()
	c.buried(1, burial)
	t.Logf("everything of a node that was cut off was gone after %v", since(cut))
	if v, err := c.nodes[0].look(); err != nil || v["instance i1"] != "" {
		t.Errorf("the dead node is still there: %v", err)
	}
	for time.Since(cut) < 60*time.Second {
		for _, th := range own[1] {
			must(t, th.intact(ctx, in))
		}
		time.Sleep(500 * time.Millisecond)
	}
	if st, err := lonely.status(); err != nil || st.Ledger.Usage < before.Ledger.Usage {
		t.Errorf("memory was freed while the node was cut off: %v", err)
	}
	lonely.host.Heal()
	healed := time.Now()
	if err := within(3*patience, func() error { return c.nodes[0].reads(all, true) }); err != nil {
		t.Fatalf("%v after the network is back: %v", since(healed), err)
	}
	t.Logf("everything was back %v after the network was", since(healed))
	c.works(patience, 500)
	l.stop()
	l.verify(t, "while it was cut off")
	v := c.mustAgree(patience, nil)
	for key, is := range want {
		if v[key] != is {
			t.Errorf("%s was %s, is %s", key, is, v[key])
		}
	}
	must(t, lonely.keeps(own[1]), lonely.keeps(l.kept))
	for _, n := range c.nodes {
		must(t, n.reads(l.kept, false), n.balanced())
	}
}

// TestCompacted forgets etcd's history while a node is cut off: it has to load
// everything again.
func TestCompacted(t *testing.T) {
	t.Parallel()
	c, own, _, _ := populated(t)
	lonely := c.nodes[1]
	lonely.host.Cut()
	cut := time.Now()
	// What the lonely node misses: things come, change and go, some of its own.
	list, err := c.nodes[0].things(600, 605)
	must(t, err)
	must(t, c.nodes[0].do(func(ctx context.Context, cl *client.Client) error {
		return errors.Join(
			cl.Delete(ctx, []client.ID{list[0].id, own[2][0].id, own[1][0].id}, client.DeleteOptions{}),
			cl.PutName(ctx, own[2][1].id, "moved"), cl.PutName(ctx, own[2][2].id, own[0][0].name()),
			cl.DropName(ctx, own[2][3].name()), cl.Label(ctx, own[2][4].id, map[string]string{"new": "label"}),
			cl.Label(ctx, own[1][2].id, map[string]string{"new": "label"}), cl.DropName(ctx, own[1][3].name()),
		)
	}), c.etcd.compact())
	time.Sleep(10*time.Second - time.Since(cut)) // less than what makes it suspicious
	lonely.host.Heal()
	healed := time.Now()
	if err := within(patience, func() error {
		if !strings.Contains(lonely.log.String(), "loading the cluster's metadata again") {
			return errors.New("it has not noticed")
		}
		return nil
	}); err != nil {
		t.Logf("the node that was cut off has not loaded everything again: %v", err)
	}
	want, err := c.nodes[0].look()
	must(t, err)
	c.mustAgree(patience, want)
	t.Logf("all views are the same %v after the network is back", since(healed))
	for _, th := range []thing{own[1][0], own[2][0], list[0]} {
		if _, ok := want["object "+th.id.String()]; ok {
			t.Errorf("thing %d, which was deleted, is back", th.seed)
		}
	}
	for _, th := range []thing{own[1][1], own[1][3], own[2][1], list[1]} {
		if _, ok := want["object "+th.id.String()]; !ok {
			t.Errorf("thing %d is lost", th.seed)
		}
	}
	must(t, lonely.keeps(own[1][1:]))
	c.works(patience, 500)
	for _, n := range c.nodes {
		must(t, n.balanced())
	}
}
