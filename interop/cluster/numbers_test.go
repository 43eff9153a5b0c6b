//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

// TestUsurped writes another host's id over the keys of a node that lives. It
// takes another number, and keeps what it has; the usurper, who never shows
// himself, is buried.
func TestUsurped(t *testing.T) {
	t.Parallel()
	c, own, all, _ := populated(t)
	must(t, c.etcd.put("/instances/i1/hostid", "4711"))
	began := time.Now()
	var number uint64
	must(t, within(patience, func() (err error) {
		if number, err = c.nodes[1].number(); err == nil && number == 1 {
			err = errors.New("the node has not noticed")
		}
		return err
	}))
	t.Logf("a node whose number was taken is i%d after %v", number, since(began))
	must(t, within(patience, func() error { return c.nodes[0].reads(all, true) }))
	c.works(patience, 500)
	for _, n := range c.nodes {
		must(t, n.reads(all, true))
	}
	v := c.mustAgree(patience, nil)
	if !strings.Contains(v["instance i1"], " 4711") {
		t.Errorf("the usurper is %s", v["instance i1"])
	}
	for _, th := range own[1] {
		if is := v["object "+th.id.String()]; !strings.Contains(is, fmt.Sprintf(" on %d,", number)) {
			t.Errorf("an object of i%d, once i1: %s", number, is)
		}
	}
	c.buried(1, burial)
	t.Logf("the usurper was buried after %v", since(began))
	v = v.without(1, nil)
	c.mustAgree(patience, v)
	must(t, c.nodes[1].keeps(own[1]))
	for _, n := range c.nodes {
		must(t, n.reads(all, true), n.balanced())
	}
	// It still is that number after a crash.
	c.nodes[1].kill()
	c.nodes[1].start()
	c.mustAgree(patience, v)
	must(t, c.nodes[1].keeps(own[1]))
}

// TestOvertaken starts a new node on an etcd that was wiped before the old nodes
// can see it: the newcomer gets the number of one of them.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	c := hosts(t, 4, noOptions)
	for i := range 3 {
		c.add(i, c.etcd.Endpoint()).start()
	}
	own, all := c.populate()
	global := c.global(c.nodes[0], own[0][1], own[1][1], own[2][1])
	for _, n := range c.nodes {
		n.host.Cut()
	}
	c.etcd.Kill()
	c.etcd.Wipe()
	c.etcd.Start()
	c.add(3, c.etcd.Endpoint()).start()
	if n, err := c.nodes[3].number(); err != nil || n != 0 {
		t.Fatalf("the first node of an empty etcd is i%d, %v", n, err)
	}
	list, err := c.nodes[3].things(300, 305)
	must(t, err)
	all = append(all, list...)
	for _, n := range c.nodes[:3] {
		n.host.Heal()
	}
	healed := time.Now()
	for _, n := range c.nodes {
		if err := within(2*patience, func() error { return n.reads(all, true) }); err != nil {
			t.Fatalf("%v after the network is back: %v", since(healed), err)
		}
	}
	t.Logf("everybody sees everything %v after the network is back", since(healed))
	c.works(patience, 500)
	v := c.mustAgree(patience, nil)
	seen := map[uint64]string{}
	for i, n := range c.nodes {
		number, err := n.number()
		must(t, err)
		if other, ok := seen[number]; ok {
			t.Errorf("%s and %s both are i%d", other, n.name, number)
		}
		seen[number] = n.name
		t.Logf("node %d is now i%d", i, number)
		if v[fmt.Sprintf("instance i%d", number)] == "" {
			t.Errorf("%s is i%d, which nobody knows", n.name, number)
		}
		must(t, n.balanced())
		if i < 3 {
			must(t, n.keeps(own[i]))
		}
	}
	if is := v["object "+global.String()]; is == "" || strings.Count(is, "part_") != 3 {
		t.Errorf("the global object is %q", is)
	}
	// A crash changes nothing of that.
	c.nodes[0].kill()
	c.nodes[0].start()
	c.mustAgree(patience, v)
}

// TestPrefixes runs two clusters on one etcd, and sessions besides the root one.
func TestPrefixes(t *testing.T) {
	t.Parallel()
	c := hosts(t, 2, noOptions)
	c.add(0, c.etcd.Endpoint(), "--etcd-prefix", "vineyard").start()
	c.add(1, c.etcd.Endpoint(), "--etcd-prefix", "vineyard/S0000000000000000").start()
	must(t, c.etcd.put("1/data/o00000000000000c1", `{"typename":"vcluster::Stranger","instance_id":0}`))
	own, _ := c.populate()
	for i, n := range c.nodes {
		if nums, err := n.numbers(); err != nil || !slices.Equal(nums, []string{"i0"}) {
			t.Errorf("cluster %d has instances %v, %v", i, nums, err)
		}
		v, err := n.look()
		must(t, err)
		for _, th := range own[1-i] {
			if v["name "+th.name()] != "" || v["object "+th.id.String()] != "" {
				t.Errorf("cluster %d sees thing %d of the other one", i, th.seed)
			}
		}
		if len(v) != 1+2*len(own[i]) {
			t.Errorf("cluster %d has %v", i, v)
		}
	}
	must(t, c.nodes[0].do(func(ctx context.Context, c *client.Client) error { return c.Clear(ctx) }))
	must(t, c.nodes[1].keeps(own[1]), c.nodes[1].reads(own[1], true))

	// A session has its own objects, and nobody else sees them.
	for _, n := range c.nodes {
		before, err := n.look()
		must(t, err)
		var th thing
		must(t, n.do(func(ctx context.Context, root *client.Client) error {
			socket, err := root.NewSession(ctx, false)
			if err != nil {
				return err
			}
			s, err := client.Dial(ctx, client.Options{Socket: socket})
			if err != nil {
				return err
			}
			defer s.Close()
			if th, err = putPersistent(ctx, s, 1, 100); err == nil {
				err = s.PutName(ctx, th.id, "in a session")
			}
			after, lookErr := n.look()
			if lookErr == nil {
				lookErr = after.differs(before)
			}
			return errors.Join(err, lookErr, th.intact(ctx, s), s.DeleteSession(ctx))
		}))
		after, err := n.look()
		must(t, err, after.differs(before), n.balanced())
	}
}

// TestNudged gives a node work before its heartbeat is due, again and again: its
// neighbour, who beats every ten seconds only, is not dead for that.
func TestNudged(t *testing.T) {
	t.Parallel()
	c, own, all, _ := populated(t)
	alive := 0
	for i := range 12 {
		// An object that node 0 does not have, though it says so: it removes that at once.
		must(t, c.etcd.put(fmt.Sprintf("/data/o%016x", 0xf000000+i), `{"typename":"vcluster::Orphan","instance_id":0,"signature":5,"transient":false}`))
		time.Sleep(500 * time.Millisecond)
		nums, err := c.nodes[2].numbers()
		must(t, err)
		if alive = len(nums); alive != 3 {
			break
		}
	}
	if alive != 3 {
		t.Errorf("instances are down to %d, though all live", alive)
	}
	if keys, err := c.etcd.keys(); err != nil || keys["/data/o000000000f000000"] != "" {
		t.Errorf("what node 0 does not have is still there: %v", err)
	}
	must(t, c.nodes[1].keeps(own[1]))
	must(t, within(patience, func() error { return c.nodes[0].reads(all, true) }))
}

// TestCopied makes shallow copies, which have the signature of their source: a
// global object means the source all the same, whoever asks, and whoever has
// been away.
func TestCopied(t *testing.T) {
	t.Parallel()
	c := form(t, 3)
	own, _ := c.populate()
	var copies []client.ID
	for _, n := range c.nodes[:2] {
		must(t, n.do(func(ctx context.Context, cl *client.Client) error {
			id, err := cl.ShallowCopy(ctx, own[0][0].id, map[string]any{"copy": 1})
			copies = append(copies, id)
			return err
		}))
	}
	id := c.global(c.nodes[2], own[0][0], own[1][0])
	want := c.mustAgree(patience, nil)
	verify := func(what string) {
		t.Helper()
		v, err := c.agree(patience, want)
		if err != nil {
			t.Fatalf("after %s: %v", what, err)
		}
		if is := v["object "+id.String()]; !strings.Contains(is, "part_0={"+own[0][0].id.String()) {
			t.Errorf("after %s: part 0 of the global object is not the source: %s", what, is)
		}
	}
	verify("nothing")
	for i, n := range c.nodes {
		n.kill()
		n.start()
		verify(fmt.Sprintf("a crash of node %d", i))
	}
	c.etcd.Kill()
	c.etcd.Wipe()
	c.etcd.Start()
	verify("a wipe of etcd")
	must(t, c.nodes[0].do(func(ctx context.Context, cl *client.Client) error {
		return cl.Delete(ctx, copies, client.DeleteOptions{})
	}))
	for _, id := range copies {
		delete(want, "object "+id.String())
	}
	verify("the end of the copies")
	must(t, c.nodes[0].keeps(own[0]))
	must(t, c.nodes[1].do(func(ctx context.Context, cl *client.Client) error { return cl.Clear(ctx) }))
	must(t, within(patience, func() error {
		keys, err := c.etcd.keys()
		for key := range keys {
			if !isHousekeeping(key) {
				return fmt.Errorf("etcd has %s after everything was cleared", key)
			}
		}
		return err
	}))
}

// TestCrowd starts many nodes at once: each gets a number of its own.
func TestCrowd(t *testing.T) {
	t.Parallel()
	c := hosts(t, 1, noOptions)
	for range 8 {
		c.add(0, c.etcd.Endpoint(), "--size", "8MiB", "--rpc-listen", "off", "--rpc-advertise", "")
	}
	began := time.Now()
	for _, n := range c.nodes {
		n.launch()
	}
	for _, n := range c.nodes {
		n.ready(2 * patience)
	}
	t.Logf("eight nodes are ready after %v", since(began))
	seen := map[uint64]bool{}
	for _, n := range c.nodes {
		number, err := n.number()
		must(t, err)
		seen[number] = true
	}
	nums, err := c.nodes[0].numbers()
	must(t, err)
	if len(seen) != len(c.nodes) || len(nums) != len(c.nodes) {
		t.Errorf("eight nodes have the numbers %v, and %v are registered", seen, nums)
	}
	c.mustAgree(patience, nil)
}
