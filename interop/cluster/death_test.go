//go:build linux

package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

// populated is a cluster of three nodes with five things on each.
func populated(t *testing.T) (c *cluster, own [][]thing, all []thing, want view) {
	t.Helper()
	c = form(t, 3)
	own, all = c.populate()
	return c, own, all, c.mustAgree(patience, nil)
}

func (c *cluster) populate() (own [][]thing, all []thing) {
	c.t.Helper()
	for i, n := range c.nodes {
		list, err := n.things(uint64(100*i), uint64(100*i+5))
		must(c.t, err)
		own = append(own, list)
		all = append(all, list...)
	}
	return own, all
}

// without is a view without an instance, its objects and their names.
func (v view) without(number int, list []thing) view {
	out := view{}
	gone := map[string]bool{fmt.Sprintf("instance i%d", number): true}
	for _, th := range list {
		gone["object "+th.id.String()] = true
		gone["name "+th.name()] = true
	}
	for key, is := range v {
		if !gone[key] {
			out[key] = is
		}
	}
	return out
}

// buried waits until nothing of an instance is left in etcd.
func (c *cluster) buried(number uint64, limit time.Duration) {
	c.t.Helper()
	began := time.Now()
	if err := within(limit, func() error {
		left, err := c.etcd.of(number)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d keys of i%d are left, such as %s", len(left), number, left[0])
		}
		return err
	}); err != nil {
		c.t.Fatalf("after %v: %v", since(began), err)
	}
}

// TestDead kills a node for so long that the others clean up after it. When it
// comes back, so does everything that it had.
func TestDead(t *testing.T) {
	t.Parallel()
	c, own, all, want := populated(t)
	// Kept by a node that lives, with a member on the one that dies: it cannot be
	// without it, and goes for good, as in 0.24.
	global := c.global(c.nodes[0], own[0][0], own[1][0])
	c.nodes[1].kill()
	killed := time.Now()
	c.buried(1, burial)
	t.Logf("everything of a node that was killed was gone after %v", since(killed))
	if took := since(killed); took < 25*time.Second {
		t.Errorf("a node was taken for dead after %v", took)
	}
	c.mustAgree(patience, want.without(1, own[1]))

	c.nodes[1].start()
	began := time.Now()
	c.mustAgree(patience, want)
	t.Logf("everything was back %v after the start", since(began))
	must(t, c.nodes[1].keeps(own[1]))
	for _, n := range c.nodes {
		must(t, n.reads(all, true), n.balanced(), n.do(func(ctx context.Context, c *client.Client) error {
			ok, err := c.Exists(ctx, global)
			if ok {
				t.Errorf("%s still has the global object", n.name)
			}
			return err
		}))
	}
}

// global makes a persistent global object on a node.
func (c *cluster) global(on *node, members ...thing) (id client.ID) {
	c.t.Helper()
	m := client.NewMeta("cluster::Global")
	m.Global = true
	var ids []client.ID
	for i, th := range members {
		m.AddObject(fmt.Sprintf("part_%d", i), th.id)
		ids = append(ids, th.id)
	}
	must(c.t, on.do(func(ctx context.Context, c *client.Client) (err error) {
		if _, err = c.GetObjects(ctx, ids, client.GetOptions{Sync: true}); err == nil {
			if id, err = c.CreateObject(ctx, m); err == nil {
				err = c.Persist(ctx, id)
			}
		}
		return err
	}))
	return id
}

// TestRestarted kills a node and starts it again at once, and stops one: what is
// sealed and persistent stays with the first, and goes with the second.
func TestRestarted(t *testing.T) {
	t.Parallel()
	c, own, all, want := populated(t)
	for round := range 3 {
		c.nodes[round].kill()
		began := time.Now()
		c.nodes[round].start()
		c.mustAgree(patience, want) // the instance number is part of it
		t.Logf("node %d is back %v after it was killed", round, since(began))
		must(t, c.nodes[round].keeps(own[round]))
	}
	for _, n := range c.nodes {
		must(t, n.reads(all, true))
	}

	began := time.Now()
	c.nodes[1].stop()
	t.Logf("a node stops in %v", since(began))
	if left, err := c.etcd.of(1); err != nil || len(left) > 0 {
		t.Errorf("a node that was stopped leaves %v, %v", left, err)
	}
	c.mustAgree(patience, want.without(1, own[1]))
	c.nodes[1].start()
	if n, err := c.nodes[1].number(); err != nil || n != 3 {
		t.Errorf("a node that was stopped comes back as %d, want 3: %v", n, err)
	}
	list, err := c.nodes[1].things(900, 903)
	must(t, err)
	for _, n := range c.nodes {
		must(t, n.reads(slices.Concat(own[0], own[2], list), true), n.balanced())
	}
}

// TestKept stops a node with --keep: the others keep its objects as those of a
// node that will be back.
func TestKept(t *testing.T) {
	t.Parallel()
	c := form(t, 2)
	kept := c.add(1, c.etcd.Endpoint(), "--keep", "--rpc-listen", "off", "--rpc-advertise", "")
	kept.start()
	own, all := c.populate()
	want := c.mustAgree(patience, nil)
	kept.stop()
	c.mustAgree(patience, want)
	kept.start()
	c.mustAgree(patience, want)
	must(t, kept.keeps(own[2]), c.nodes[0].reads(all[:10], true))
	kept.args = slices.DeleteFunc(kept.args, func(s string) bool { return s == "--keep" })
	kept.kill()
	kept.start("--fresh") // its objects are gone: nobody shows them any more
	var v view
	must(t, within(patience, func() error {
		var err error
		if v, err = c.nodes[0].look(); err != nil {
			return err
		}
		if n, err := kept.number(); err != nil {
			return err
		} else if n == 2 && strings.Contains(fmt.Sprint(v), own[2][0].id.String()) {
			return fmt.Errorf("instance %d lives, but has nothing", n)
		}
		return nil
	}))
	n, err := kept.number()
	t.Logf("a node that starts with --fresh after it was killed is %d, %v", n, err)
}

// TestNoEtcdAtStart starts nodes while etcd is down: they give up, or wait, and
// what they had is not lost.
func TestNoEtcdAtStart(t *testing.T) {
	t.Parallel()
	c := form(t, 2)
	own, all := c.populate()
	want := c.mustAgree(patience, nil)
	n := c.nodes[1]
	n.kill()
	c.etcd.Kill()
	n.launch("--meta-timeout", "2s")
	select {
	case <-n.done:
	case <-time.After(patience):
		t.Fatalf("a daemon without etcd does not give up:\n%s", n.log)
	}
	n.launch("--meta-timeout", "20s")
	time.Sleep(2 * time.Second)
	if !n.running() {
		t.Errorf("a daemon does not wait for etcd:\n%s", n.log)
	}
	c.etcd.Start()
	n.ready(patience)
	c.mustAgree(patience, want)
	must(t, n.keeps(own[1]))
	for _, n := range c.nodes {
		must(t, n.reads(all, true), n.balanced())
	}
}
