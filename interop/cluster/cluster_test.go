//go:build linux

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
)

// cluster is an etcd, and nodes on hosts of their own.
type cluster struct {
	t     testing.TB
	net   *testserver.Net
	etcd  *etcdStore
	nodes []*node
}

// noOptions are those of an etcd that needs none.
var noOptions testserver.EtcdOptions

// hosts makes a cluster without nodes: etcd runs on the hub.
func hosts(t testing.TB, n int, o testserver.EtcdOptions) *cluster {
	t.Helper()
	net := testserver.Hosts(t, n)
	o.On = net.Hub
	return &cluster{t: t, net: net, etcd: &etcdStore{testserver.StartEtcd(t, o), defaultPrefix}}
}

// form makes a cluster of n nodes that run, with the numbers 0 to n-1.
func form(t testing.TB, n int) *cluster {
	t.Helper()
	return formOn(t, n, noOptions)
}

func formOn(t testing.TB, n int, o testserver.EtcdOptions) *cluster {
	t.Helper()
	c := hosts(t, n, o)
	for i := range n {
		c.add(i, c.etcd.Endpoint()).start()
	}
	return c
}

// add returns another node, on a host, that does not run yet.
func (c *cluster) add(host int, endpoints string, args ...string) *node {
	c.t.Helper()
	h := c.net.Hosts[host]
	n := newNode(c.t, h, slices.Concat([]string{"--meta", "etcd", "--etcd-endpoints", endpoints}, remote(h), args)...)
	c.nodes = append(c.nodes, n)
	return n
}

// thing is an object with one blob, whose bytes follow from its seed.
type thing struct {
	id   client.ID
	blob client.ID
	seed uint64
	size int
}

const thingType = "cluster::Thing"

// put makes a thing that is not persistent yet.
func put(ctx context.Context, c *client.Client, seed uint64, size int) (th thing, err error) {
	th = thing{seed: seed, size: size}
	if th.blob, err = c.PutBlob(ctx, pattern(seed, size)); err != nil {
		return th, fmt.Errorf("put a blob: %w", err)
	}
	m := client.NewMeta(thingType).Set("seed", seed).Set("size", size).Set("note", `v"l~/.`).Set("nbytes", size).AddObject("buffer_", th.blob)
	if th.id, err = c.CreateObject(ctx, m); err != nil {
		return th, fmt.Errorf("create an object: %w", err)
	}
	return th, nil
}

// putPersistent makes a thing that all can see.
func putPersistent(ctx context.Context, c *client.Client, seed uint64, size int) (thing, error) {
	th, err := put(ctx, c, seed, size)
	if err == nil {
		if err = c.Persist(ctx, th.id); err != nil {
			err = fmt.Errorf("persist: %w", err)
		}
	}
	return th, err
}

// things makes some that have names of their own and a label.
func (n *node) things(from, to uint64) (list []thing, err error) {
	err = n.do(func(ctx context.Context, c *client.Client) error {
		for seed := from; seed < to; seed++ {
			th, err := putPersistent(ctx, c, seed, 1000+int(seed)*7)
			if err == nil {
				err = c.PutName(ctx, th.id, th.name())
			}
			if err == nil {
				err = c.Label(ctx, th.id, map[string]string{"seed": fmt.Sprint(seed)})
			}
			if err != nil {
				return err
			}
			list = append(list, th)
		}
		return nil
	})
	return list, err
}

func (th thing) name() string { return fmt.Sprintf("thing/%d~", th.seed) }

// intact verifies that a node has a thing of its own, with all its bytes.
func (th thing) intact(ctx context.Context, c *client.Client) error {
	m, err := c.GetObject(ctx, th.id)
	if err != nil {
		return fmt.Errorf("thing %d: %w", th.seed, err)
	}
	if seed, ok := m.Int("seed"); !ok || uint64(seed) != th.seed {
		return fmt.Errorf("thing %d, %s, says that it is %d", th.seed, th.id, seed)
	}
	return th.bytes(ctx, c)
}

func (th thing) bytes(ctx context.Context, c *client.Client) error {
	b, err := c.GetBlob(ctx, th.blob)
	if err != nil {
		return fmt.Errorf("blob of thing %d: %w", th.seed, err)
	}
	if !bytes.Equal(b.Bytes(), pattern(th.seed, th.size)) {
		return fmt.Errorf("thing %d, %s: %d bytes are not what was put", th.seed, th.id, len(b.Bytes()))
	}
	return b.Release(ctx)
}

// keeps verifies that a node has its own things.
func (n *node) keeps(list []thing) error {
	return n.do(func(ctx context.Context, c *client.Client) error {
		for _, th := range list {
			if err := th.intact(ctx, c); err != nil {
				return err
			}
		}
		return nil
	})
}

// reads verifies that a node sees things of others, by name if they have one,
// and gets their bytes from where the metadata says that they are.
func (n *node) reads(list []thing, named bool) error {
	return n.do(func(ctx context.Context, c *client.Client) error {
		instances, err := c.Cluster(ctx)
		if err != nil {
			return err
		}
		peers := map[client.InstanceID]*client.Client{}
		defer func() {
			for _, p := range peers {
				p.Close()
			}
		}()
		for _, th := range list {
			if named {
				if id, err := c.GetName(ctx, th.name(), false); err != nil || id != th.id {
					return fmt.Errorf("name %s is %s, want %s: %w", th.name(), id, th.id, err)
				}
			}
			m, err := c.GetObject(ctx, th.id)
			if err != nil {
				return fmt.Errorf("thing %d: %w", th.seed, err)
			}
			if m.Member("buffer_") == nil || m.Member("buffer_").ID != th.blob {
				return fmt.Errorf("thing %d, %s: its blob is not %s", th.seed, th.id, th.blob)
			}
			p := peers[m.InstanceID]
			if p == nil {
				in, ok := instances[m.InstanceID.String()]
				if !ok {
					return fmt.Errorf("thing %d is on %s, which is none of %v", th.seed, m.InstanceID, instances)
				}
				if p, err = n.dialFrom(ctx, in.RPCEndpoint); err != nil {
					return err
				}
				peers[m.InstanceID] = p
			}
			if err := th.bytes(ctx, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// view is what a node says of the cluster, in a form that can be compared: lines
// by what they are about.
type view map[string]string

// look returns a node's view, without what only it can know.
func (n *node) look() (view, error) {
	v := view{}
	err := n.do(func(ctx context.Context, c *client.Client) error {
		if _, err := c.Exists(ctx, 1); err != nil { // this catches up with the others
			return err
		}
		instances, err := c.Cluster(ctx)
		if err != nil {
			return err
		}
		for name, in := range instances {
			v["instance "+name] = fmt.Sprintf("%s %s %d", in.RPCEndpoint, in.IPCSocket, in.HostID)
		}
		names, err := c.ListNames(ctx, "*", 1_000_000)
		if err != nil {
			return err
		}
		for name, id := range names {
			v["name "+name] = id.String()
		}
		var ids []client.ID
		for r, err := range c.Rows(ctx, client.PageOptions{}) {
			if err != nil {
				return err
			}
			if !r.Transient {
				ids = append(ids, r.ID)
			}
		}
		for part := range slices.Chunk(ids, 500) {
			list, err := c.GetObjects(ctx, part, client.GetOptions{})
			if err != nil {
				return err
			}
			for _, m := range list {
				v["object "+m.ID.String()] = describe(m)
			}
			for _, id := range part {
				if _, ok := v["object "+id.String()]; !ok {
					v["object "+id.String()] = "cannot be read"
				}
			}
		}
		return nil
	})
	return v, err
}

// describe writes down what of an object must be the same everywhere.
func describe(m *client.Meta) string {
	if m.IsBlob() {
		return fmt.Sprintf("%s@%d", m.ID, m.InstanceID)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s on %d, global %t, name %q, labels %v", m.ID, m.Typename, m.Signature, m.InstanceID, m.Global, m.Name, m.Labels)
	for _, key := range slices.Sorted(slices.Values(m.Keys())) {
		fmt.Fprintf(&b, ", %s=%s", key, m.Raw(key))
	}
	members := map[string]*client.Meta{}
	for key, sub := range m.Members {
		members[key] = sub
	}
	for _, key := range slices.Sorted(maps.Keys(members)) {
		fmt.Fprintf(&b, ", %s={%s}", key, describe(members[key]))
	}
	return b.String()
}

// differs tells where a view is not like another one.
func (v view) differs(want view) error {
	var wrong []string
	for key, is := range want {
		switch have, ok := v[key]; {
		case !ok:
			wrong = append(wrong, key+" is missing")
		case have != is:
			wrong = append(wrong, fmt.Sprintf("%s is\n\t\t%s, want\n\t\t%s", key, have, is))
		}
	}
	for key := range v {
		if _, ok := want[key]; !ok {
			wrong = append(wrong, key+" is too much")
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	if n := len(wrong); n > 8 {
		wrong = append(wrong[:8], fmt.Sprintf("and %d more", n-8))
	}
	return errors.New(strings.Join(wrong, "\n\t"))
}

// agree waits until all nodes that run have the same view, and returns it. want,
// if not nil, is what it must be.
func (c *cluster) agree(limit time.Duration, want view) (view, error) {
	first := want
	err := within(limit, func() error {
		want := first
		for _, n := range c.nodes {
			if !n.running() {
				continue
			}
			v, err := n.look()
			if err != nil {
				return err
			}
			if want == nil {
				want = v
			}
			if err := v.differs(want); err != nil {
				return fmt.Errorf("the view of %s:\n\t%w", n.name, err)
			}
		}
		if first == nil {
			first = want
		}
		return nil
	})
	return first, err
}

// mustAgree is agree for tests that cannot go on otherwise.
func (c *cluster) mustAgree(limit time.Duration, want view) view {
	c.t.Helper()
	began := time.Now()
	v, err := c.agree(limit, want)
	if err != nil {
		c.t.Fatalf("after %v %v", since(began), err)
	}
	return v
}

// numbers returns the numbers of the instances that a node knows.
func (n *node) numbers() (list []string, err error) {
	err = n.do(func(ctx context.Context, c *client.Client) error {
		instances, err := c.Cluster(ctx)
		list = slices.Sorted(maps.Keys(instances))
		return err
	})
	return list, err
}

// slowly skips what takes more than a minute, unless that is wanted.
func slowly(t *testing.T, takes time.Duration) {
	t.Helper()
	if !slow {
		t.Skipf("takes %v: set V6D_SLOW=1, as `make chaos` does", takes)
	}
}
