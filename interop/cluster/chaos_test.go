//go:build linux

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

const (
	chaosNodes = 3
	chaosNames = 16
	crowded    = 300 // things a node at which more are deleted than made
	settle     = 45 * time.Second
)

// chaos is a cluster that is used and disturbed at random.
type chaos struct {
	*cluster
	l      *ledger
	seed   uint64
	next   atomic.Uint64 // seed of the next thing
	life   [chaosNodes]atomic.Int64
	faults map[string]int
	story  []string // of the faults
}

// TestChaos uses a cluster at random while nodes, network and etcd fail at
// random, and compares what is left with what was acknowledged.
func TestChaos(t *testing.T) {
	seconds := envNumber("V6D_CHAOS_SECONDS", 0)
	if seconds == 0 {
		t.Skip("takes as long as V6D_CHAOS_SECONDS says, and two minutes: `make chaos`")
	}
	seed := envNumber("V6D_CHAOS_SEED", rand.Uint64N(1e9))
	t.Logf("V6D_CHAOS_SEED=%d repeats what was drawn", seed)
	c := &chaos{cluster: hosts(t, chaosNodes, noOptions), l: newLedger(chaosNodes), seed: seed, faults: map[string]int{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("this was V6D_CHAOS_SEED=%d:\n\t%s", seed, strings.Join(c.story, "\n\t"))
		}
	})
	for i := range chaosNodes {
		// The last node never reads its peers' memory: it has what it migrates sent.
		c.add(i, c.etcd.Endpoint(), "--log-level", "info", fmt.Sprintf("--peer-ipc=%t", i < chaosNodes-1)).start()
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range chaosNodes {
		wg.Go(func() { c.work(i, rand.New(rand.NewPCG(seed, uint64(i))), stop) })
	}
	// Two clients a node do not wait for each other.
	for i := range chaosNodes {
		wg.Go(func() { c.work(i, rand.New(rand.NewPCG(seed, uint64(chaosNodes+i))), stop) })
	}
	r := rand.New(rand.NewPCG(seed, 99))
	c.disturb(r, time.Now().Add(time.Duration(seconds)*time.Second))
	close(stop)
	wg.Wait()
	dead := -1
	if r.IntN(2) == 0 {
		dead = r.IntN(chaosNodes)
		c.nodes[dead].kill()
		t.Logf("node %d stays dead", dead)
	}
	c.verify(dead)
}

// work uses one node until stop is closed.
func (c *chaos) work(i int, r *rand.Rand, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(20+r.IntN(120)) * time.Millisecond):
		}
		before := c.life[i].Load()
		began := time.Now()
		kind, err := c.step(i, r)
		if kind == "" {
			continue
		}
		c.l.count(kind, began, err)
		disturbed := c.life[i].Load() != before || before%2 != 0
		local := kind == "put" || kind == "get"
		if local && err != nil && !disturbed {
			c.l.violation("%s on node %d, which runs: %v", kind, i, err)
		}
		limit := 30 * time.Second
		switch {
		case local:
			limit = 5 * time.Second
		case kind == "migrate": // 20 s of a silent peer, then 10 s of etcd, and its own 10 s for the copy's signature
			limit = 45 * time.Second
		}
		if took := time.Since(began); !disturbed && took > limit {
			c.l.violation("%s on node %d took %v: %v", kind, i, took, err)
		}
	}
}

// step does one thing, and says what.
func (c *chaos) step(i int, r *rand.Rand) (kind string, err error) {
	n := c.nodes[i]
	exists := func(it *item) bool { return it.persisted == yes && it.deleted == never }
	switch p := r.IntN(100); {
	case p < 30:
		it := &item{node: i, maker: i}
		if err := n.do(func(ctx context.Context, cl *client.Client) (err error) {
			it.thing, err = put(ctx, cl, c.next.Add(1), 1+r.IntN(8000))
			return err
		}); err != nil || it.seed%4 == 0 { // some stay transient
			return "put", err
		}
		c.l.add(it)
		it.asked = time.Now()
		err = n.do(func(ctx context.Context, cl *client.Client) error { return cl.Persist(ctx, it.id) })
		c.l.put(func() {
			it.persisted = answered(err)
			it.tell("persist", i, err)
		}, it)
		return "persist", err

	case p < 50:
		it := c.l.pick(r, func(it *item) bool { return exists(it) && it.node == i && it.maker == i && it.parts == nil })
		if it == nil {
			return "", nil
		}
		err = n.keeps([]thing{it.thing})
		c.l.put(func() {}, it)
		return "get", err

	case p < 60:
		it := c.l.pick(r, exists)
		if it == nil {
			return "", nil
		}
		name := fmt.Sprintf("chaos/%d", r.IntN(chaosNames))
		w := write{to: it, on: i, began: time.Now()}
		err = n.do(func(ctx context.Context, cl *client.Client) error { return cl.PutName(ctx, it.id, name) })
		w.end, w.acked = time.Now(), err == nil
		c.l.put(func() {
			c.l.names[name] = append(c.l.names[name], w)
			it.tell("name "+name, i, err)
		}, it)
		return "name", err

	case p < 63:
		name := fmt.Sprintf("chaos/%d", r.IntN(chaosNames))
		w := write{on: i, began: time.Now()}
		err = n.do(func(ctx context.Context, cl *client.Client) error { return cl.DropName(ctx, name) })
		w.end, w.acked = time.Now(), err == nil
		c.l.put(func() { c.l.names[name] = append(c.l.names[name], w) })
		return "unname", err

	case p < 71:
		it := c.l.pick(r, exists)
		if it == nil {
			return "", nil
		}
		label, value := fmt.Sprintf("l%d", r.IntN(3)), fmt.Sprintf("v%d", r.IntN(1000))
		began := time.Now()
		err = n.do(func(ctx context.Context, cl *client.Client) error {
			return cl.Label(ctx, it.id, map[string]string{label: value})
		})
		c.l.put(func() {
			it.relabel(label, value, began, err)
			it.tell("label "+label+":"+value, i, err)
		}, it)
		return "label", err

	case p < 77:
		from := c.l.pick(r, func(it *item) bool { return exists(it) && it.parts == nil && it.maker == it.node })
		if from == nil {
			return "", nil
		}
		it := &item{thing: from.thing, node: from.node, maker: i, copied: true, asked: time.Now(), persisted: yes}
		err = n.do(func(ctx context.Context, cl *client.Client) (err error) {
			it.id, err = cl.ShallowCopy(ctx, from.id, map[string]any{"copy": i})
			return err
		})
		if err == nil {
			c.l.add(it)
			c.l.put(func() {
				for label, can := range from.labels { // it takes over what there was
					it.labels[label] = &labelled{slices.Clone(can.values), can.at}
				}
			}, it)
		}
		c.l.put(func() { from.tell("copy "+it.id.String(), i, err) }, from)
		return "copy", err

	case p < 82:
		return c.global(i, r, exists)

	case p < 87:
		return c.migrate(i, r, exists)

	default:
		return c.remove(i, r, exists)
	}
}

func (it *item) relabel(label, value string, began time.Time, err error) {
	can := it.labels[label]
	switch {
	case err == nil:
		it.labels[label] = &labelled{[]string{value}, began}
	case can == nil:
		it.labels[label] = &labelled{[]string{"", value}, began}
	default:
		can.values = append(can.values, value)
	}
}

// global makes a global object of things of several nodes.
func (c *chaos) global(i int, r *rand.Rand, exists func(*item) bool) (string, error) {
	var parts []*item
	free := func() { c.l.put(func() {}, parts...) }
	for range 2 + r.IntN(2) {
		// A link to a copy would lead to its source, which has the same signature.
		if p := c.l.pick(r, func(it *item) bool { return exists(it) && it.parts == nil && !it.copied && !it.migrated }); p != nil {
			parts = append(parts, p)
		}
	}
	if len(parts) < 2 {
		free()
		return "", nil
	}
	it := &item{node: i, maker: i, parts: slices.Clone(parts), asked: time.Now()}
	err := c.nodes[i].do(func(ctx context.Context, cl *client.Client) error {
		m := client.NewMeta("cluster::Global")
		m.Global = true
		list, err := cl.GetObjects(ctx, ids(parts), client.GetOptions{Sync: true})
		if err == nil && len(list) < len(parts) {
			err = errors.New("not all parts are known here")
		}
		if err != nil {
			return err
		}
		for k, p := range parts {
			m.AddObject(fmt.Sprintf("part_%d", k), p.id)
		}
		if it.id, err = cl.CreateObject(ctx, m); err == nil {
			c.l.add(it)
			err = cl.Persist(ctx, it.id)
		}
		return err
	})
	if it.id != 0 {
		c.l.put(func() {
			it.persisted = answered(err)
			it.tell("persist", i, err)
			for _, p := range parts {
				p.inGlobal = true
				p.tell("part of "+it.id.String(), i, err)
			}
		}, it)
	}
	free()
	return "global", err
}

// migrate brings a thing of another node here. Things with equivalents are no parts
// of global objects, which would live on with one of them.
func (c *chaos) migrate(i int, r *rand.Rand, exists func(*item) bool) (string, error) {
	from := c.l.pick(r, func(it *item) bool {
		return exists(it) && it.parts == nil && !it.copied && !it.inGlobal && it.maker == it.node && it.node != i
	})
	if from == nil {
		return "", nil
	}
	it := &item{thing: from.thing, node: i, maker: i, migrated: true, asked: time.Now(), persisted: yes}
	err := c.nodes[i].do(func(ctx context.Context, cl *client.Client) error {
		m, err := cl.Migrate(ctx, from.id, client.MigrateOptions{Verify: r.IntN(2) == 0})
		if err != nil {
			return err
		}
		copied, err := cl.GetObject(ctx, m.ID)
		if err == nil {
			it.id, it.blob = m.ID, copied.Member("buffer_").ID
		}
		return err
	})
	known := false
	c.l.put(func() {
		from.migrated = true
		from.tell("migrate to "+it.id.String(), i, err)
		known = slices.ContainsFunc(c.l.items, func(other *item) bool { return other.id == it.id })
	}, from)
	if err == nil && !known { // the same copy is the answer again and again
		c.l.add(it)
		c.l.put(func() {
			for label, can := range from.labels {
				it.labels[label] = &labelled{append(slices.Clone(can.values), ""), can.at}
			}
		}, it)
	}
	return "migrate", err
}

// remove deletes an object. Members of global objects go only with those.
func (c *chaos) remove(i int, r *rand.Rand, exists func(*item) bool) (string, error) {
	alive := 0
	c.l.put(func() {
		for _, it := range c.l.items {
			if it.deleted == never {
				alive++
			}
		}
	})
	if r.IntN(crowded*chaosNodes) > alive {
		return "", nil
	}
	it := c.l.pick(r, func(it *item) bool { return exists(it) && !it.inGlobal })
	if it == nil {
		return "", nil
	}
	shallow := r.IntN(2) == 0
	var parts []*item
	if !shallow {
		if parts = c.l.takeParts(it); parts == nil {
			shallow = true // somebody works with them
		}
	}
	began := time.Now()
	err := c.nodes[i].do(func(ctx context.Context, cl *client.Client) error {
		// Deleting what is not known here is no error: it must be known.
		if ok, err := cl.Exists(ctx, it.id); err != nil || !ok {
			return errors.Join(err, errors.New("not known here"))
		}
		return cl.Delete(ctx, []client.ID{it.id}, client.DeleteOptions{Shallow: shallow})
	})
	c.l.put(func() {
		it.deleted, it.ended = answered(err), time.Now()
		it.tell(fmt.Sprintf("delete, shallow %t", shallow), i, err)
		for _, p := range parts {
			p.deleted, p.ended = maybe, began // unless they are part of another one
			p.tell("deep delete of "+it.id.String(), i, err)
		}
		for name, writes := range c.l.names { // its names go with it
			if slices.ContainsFunc(writes, func(w write) bool { return w.to == it }) {
				c.l.names[name] = append(writes, write{on: i, began: began, end: time.Now()})
			}
		}
	}, append(parts, it)...)
	return "delete", err
}

// outage is a node that is down, or cut off, for a while.
type outage struct {
	node int
	cut  bool
	end  time.Time
}

// disturb lets things fail until a time, then mends everything.
func (c *chaos) disturb(r *rand.Rand, until time.Time) {
	var out []outage
	mend := func(all bool) {
		out = slices.DeleteFunc(out, func(o outage) bool {
			if !all && time.Now().Before(o.end) {
				return false
			}
			if o.cut {
				c.nodes[o.node].host.Heal()
			} else {
				c.restart(o.node)
			}
			c.l.back(o.node)
			return true
		})
	}
	for time.Now().Before(until) {
		time.Sleep(time.Duration(1000+r.IntN(6000)) * time.Millisecond)
		mend(false)
		node := r.IntN(chaosNodes)
		if slices.ContainsFunc(out, func(o outage) bool { return o.node == node }) {
			continue
		}
		short, lasting := time.Duration(1+r.IntN(12))*time.Second, time.Duration(41+r.IntN(15))*time.Second
		took := short
		if r.IntN(4) == 0 {
			took = lasting
		}
		fault := ""
		switch p := r.IntN(100); {
		case p < 25:
			fault = "kill -9 of a node"
			c.l.away(node)
			c.fell(node)
			c.restart(node)
			c.l.back(node)
		case p < 40:
			fault = fmt.Sprintf("a node down for %v", took)
			c.l.away(node)
			c.fell(node)
			out = append(out, outage{node, false, time.Now().Add(took)})
		case p < 65:
			fault = fmt.Sprintf("a node cut off for %v", took)
			c.l.away(node)
			c.nodes[node].host.Cut()
			out = append(out, outage{node, true, time.Now().Add(took)})
		case p < 80:
			fault = "etcd down"
			c.etcd.Kill()
			time.Sleep(short)
			c.etcd.Start()
		case p < 95:
			fault = "etcd hangs"
			c.etcd.Pause()
			time.Sleep(short)
			c.etcd.Resume()
		default:
			fault = "etcd wiped"
			c.etcd.Kill()
			c.l.wiped()
			c.etcd.Wipe()
			time.Sleep(short / 2)
			c.l.wiped()
			c.etcd.Start()
		}
		c.story = append(c.story, fmt.Sprintf("%s node %d: %s", time.Now().Format("15:04:05.000"), node, fault))
		kind, _, _ := strings.Cut(fault, " for ")
		c.faults[kind]++
	}
	mend(true)
}

// fell kills a node; restart starts it again. In between it is odd.
func (c *chaos) fell(node int) {
	c.life[node].Add(1)
	c.nodes[node].kill()
}

func (c *chaos) restart(node int) {
	n := c.nodes[node]
	n.launch()
	n.ready(time.Minute)
	c.life[node].Add(1)
}

// verify waits until the cluster has settled, and compares it with the ledger.
func (c *chaos) verify(dead int) {
	t, l := c.t, c.l
	began := time.Now()
	limit := settle
	if dead >= 0 {
		l.away(dead)
		limit += burial
	}
	var wrong []string
	var required, optional int
	err := within(limit, func() error {
		v, err := c.agree(0, nil)
		if err != nil {
			time.Sleep(500 * time.Millisecond)
			return err
		}
		required, optional, wrong = l.verify(v, dead)
		if wrong = append(wrong, c.stored(v, dead)...); len(wrong) > 0 {
			time.Sleep(time.Second)
			return errors.New(strings.Join(wrong[:min(8, len(wrong))], "\n\t"))
		}
		return nil
	})
	t.Logf("chaos with seed %d: %d objects are required, %d may be there or not; %s; faults %v; settled after %v",
		c.seed, required, optional, l.summary(), c.faults, since(began))
	if err != nil {
		t.Errorf("%v after everything was mended, with %d errors:\n\t%v", since(began), len(wrong), err)
		c.explain(err.Error())
	}
	for _, w := range l.wrong {
		t.Errorf("%s", w)
	}
	if err := c.readable(); err != nil {
		t.Error(err)
	}
	for i, n := range c.nodes {
		if i != dead {
			if err := n.balanced(); err != nil {
				t.Error(err)
			}
		}
	}
	if !t.Failed() {
		c.drained(dead)
	}
	c.emptied(dead)
}

// drained drains a node: nothing is lost, nothing persistent stays there.
func (c *chaos) drained(dead int) {
	t := c.t
	var live []*node
	for i, n := range c.nodes {
		if i != dead {
			live = append(live, n)
		}
	}
	from, by := live[0], live[1]
	number, err := from.number()
	must(t, err)
	contents := func() (seeds map[string]int, there int) {
		seeds = map[string]int{}
		must(t, by.do(func(ctx context.Context, cl *client.Client) error {
			for r, err := range cl.Rows(ctx, client.PageOptions{Fields: []string{"seed"}}) {
				if err != nil {
					return err
				}
				switch {
				case r.Transient:
				case r.Type == thingType:
					seeds[string(r.Fields["seed"])]++
					fallthrough
				default:
					if r.Instance == number {
						there++
					}
				}
			}
			return nil
		}))
		return seeds, there
	}
	before, there := contents()
	names := map[string]string{} // seeds by name
	seedsOf := func(f func(name string, id client.ID, seed string)) {
		must(t, by.do(func(ctx context.Context, cl *client.Client) error {
			list, err := cl.ListNames(ctx, "*", 1_000_000)
			if err != nil {
				return err
			}
			for name, id := range list {
				m, err := cl.GetObject(ctx, id)
				if err != nil {
					return fmt.Errorf("name %s: %w", name, err)
				}
				f(name, id, string(m.Raw("seed")))
			}
			return nil
		}))
	}
	seedsOf(func(name string, _ client.ID, seed string) { names[name] = seed })
	began := time.Now()
	out, errs, code := by.cliFor(5*time.Minute, "cluster", "drain", fmt.Sprintf("i%d", number), "--yes", "--timeout", "4m")
	if code != 0 {
		t.Errorf("drain: exit code %d: %s%s", code, out, errs)
		return
	}
	after, left := contents()
	if left != 0 {
		t.Errorf("%d persistent objects are left on the node that was drained", left)
	}
	for seed := range before {
		if after[seed] == 0 {
			t.Errorf("the drain lost the thing of seed %s", seed)
		}
	}
	seedsOf(func(name string, id client.ID, seed string) {
		if seed != names[name] {
			t.Errorf("name %s is %s with seed %s after the drain, it was seed %s", name, id, seed, names[name])
		}
		delete(names, name)
	})
	for name := range names {
		t.Errorf("name %s is gone after the drain", name)
	}
	// Then the node can go; every byte is elsewhere.
	from.stop()
	read := 0
	for _, n := range live[1:] {
		must(t, n.do(func(ctx context.Context, cl *client.Client) error {
			for r, err := range cl.Rows(ctx, client.PageOptions{Type: thingType}) {
				if err != nil {
					return err
				}
				if r.Transient || r.Instance != uint64(cl.Info().InstanceID) {
					continue
				}
				m, err := cl.GetObject(ctx, r.ID)
				if err != nil {
					return err
				}
				seed, _ := m.Int("seed")
				size, _ := m.Int("size")
				b, err := cl.GetBlob(ctx, m.Member("buffer_").ID)
				if err != nil {
					return err
				}
				if !bytes.Equal(b.Bytes(), pattern(uint64(seed), int(size))) {
					t.Errorf("%s has wrong bytes after the drain", r.ID)
				}
				read++
				if err := b.Release(ctx); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	t.Logf("drained %d objects in %v; %d things are right on the other nodes", there, since(began), read)
	from.start()
}

// explain logs what happened to the objects that an error names: what clients
// did with them, and what etcd was told. The heartbeats of instances give times.
func (c *chaos) explain(about string) {
	ids := regexp.MustCompile("o[0-9a-f]{16}").FindAllString(about, -1)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	ids = ids[:min(12, len(ids))]
	var text strings.Builder
	for _, id := range ids {
		for _, it := range c.l.items {
			if it.id.String() == id {
				fmt.Fprintf(&text, "\n\t%s: %s\n\t\t%s", id, it.story(), strings.Join(it.told, "\n\t\t"))
			}
		}
	}
	limited, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	text.WriteString("\n\tetcd:")
	for _, ev := range c.etcd.History(limited, c.etcd.prefix) {
		key := strings.TrimPrefix(ev.Key, c.etcd.prefix)
		beat, when := strings.HasSuffix(key, "/timestamp"), ""
		if n, err := strconv.ParseInt(ev.Value, 10, 64); beat && err == nil {
			when = time.Unix(n>>32, n&0xffffffff*1000).UTC().Format(" 15:04:05.000")
		}
		if beat || strings.HasSuffix(key, "/hostid") || slices.ContainsFunc(ids, func(id string) bool {
			return strings.Contains(key, id) || strings.Contains(ev.Value, id)
		}) {
			fmt.Fprintf(&text, "\n\t\t%d %s = %.300q, deleted %t%s", ev.Revision, key, ev.Value, ev.Deleted, when)
		}
	}
	c.t.Log(text.String())
}

// stored compares what nodes agree on with what is in etcd.
func (c *chaos) stored(v view, dead int) (wrong []string) {
	keys, err := c.etcd.keys()
	if err != nil {
		return []string{err.Error()}
	}
	for key := range keys {
		if id, ok := strings.CutPrefix(key, "/data/"); ok {
			id, _, _ = strings.Cut(id, "/")
			if v["object "+id] == "" {
				wrong = append(wrong, "etcd has "+key+", which nobody shows")
			}
		}
		if id, ok := strings.CutPrefix(key, "/signatures/"); ok && v["object "+strings.Trim(keys[key], `"`)] == "" {
			wrong = append(wrong, "etcd has signature "+id+" of "+keys[key]+", which is not there")
		}
	}
	for key := range v {
		id, ok := strings.CutPrefix(key, "object ")
		if ok && keys["/data/"+id] == "" && keys["/data/"+id+"/typename"] == "" {
			wrong = append(wrong, "etcd lacks "+id)
		}
	}
	for i, n := range c.nodes {
		if i == dead {
			continue
		}
		number, err := n.number()
		if err == nil && v[fmt.Sprintf("instance i%d", number)] == "" {
			err = fmt.Errorf("%s is i%d, which is not registered", n.name, number)
		}
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	have, want := 0, len(c.nodes)
	if dead >= 0 {
		want--
	}
	for key := range v {
		if strings.HasPrefix(key, "instance ") {
			have++
		}
	}
	if have != want {
		wrong = append(wrong, fmt.Sprintf("%d instances are registered, %d live", have, want))
	}
	slices.Sort(wrong)
	return wrong
}

// readable reads the bytes of everything that is there, on its node and from
// another one.
func (c *chaos) readable() error {
	byNode := make([][]thing, chaosNodes)
	for _, n := range c.nodes {
		if !n.running() {
			continue
		}
		v, err := n.look()
		if err != nil {
			return err
		}
		for _, it := range c.l.items {
			if it.parts == nil && c.nodes[it.node].running() && v["object "+it.id.String()] != "" {
				byNode[it.node] = append(byNode[it.node], it.thing)
			}
		}
		break
	}
	for i, n := range c.nodes {
		if n.running() {
			for part := range slices.Chunk(byNode[i], 100) {
				if err := n.keeps(part); err != nil {
					return err
				}
			}
			for part := range slices.Chunk(byNode[(i+1)%chaosNodes], 100) {
				if err := n.reads(part, false); err != nil {
					return fmt.Errorf("of node %d: %w", (i+1)%chaosNodes, err)
				}
			}
		}
	}
	return nil
}

// emptied clears all nodes: then nothing is left anywhere.
func (c *chaos) emptied(dead int) {
	for i, n := range c.nodes {
		if i == dead {
			continue
		}
		if err := n.do(func(ctx context.Context, cl *client.Client) error { return cl.Clear(ctx) }); err != nil {
			c.t.Errorf("clear: %v", err)
		}
	}
	if err := within(patience, func() error {
		keys, err := c.etcd.keys()
		if err != nil {
			return err
		}
		for key := range keys {
			if !isHousekeeping(key) {
				return fmt.Errorf("etcd has %s after everything was cleared", key)
			}
		}
		for i, n := range c.nodes {
			if i == dead {
				continue
			}
			st, err := n.status()
			if err == nil && (st.Ledger.Usage != 0 || st.Objects != 0) {
				err = fmt.Errorf("%s has %d objects, and %d bytes in use, after everything was cleared", n.name, st.Objects, st.Ledger.Usage)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		c.t.Error(err)
	}
}
