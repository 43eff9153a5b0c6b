//go:build linux

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/testserver"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// Hosts share the files of one machine: daemons would find each other's sockets,
// and no byte would pass the network.
const overTCP = "--peer-ipc=false"

const mib = 1 << 20

// formWith makes a cluster of n nodes that run, with further flags.
func formWith(t testing.TB, n int, args ...string) *cluster {
	t.Helper()
	c := hosts(t, n, noOptions)
	for i := range n {
		c.add(i, c.etcd.Endpoint(), args...).start()
	}
	return c
}

// parcel is an object of several blobs, whose bytes follow from its seed.
type parcel struct {
	id    client.ID
	seed  uint64
	sizes []int
}

const parcelType = "cluster::Parcel"

// content is what the i-th blob holds.
func (p parcel) content(i int) []byte { return pattern(p.seed<<20|uint64(i), p.sizes[i]) }

func (p parcel) bytes() (sum int64) {
	for _, n := range p.sizes {
		sum += int64(n)
	}
	return sum
}

// several are n blobs of one size.
func several(n, size int) []int { return slices.Repeat([]int{size}, n) }

// pack makes a parcel that all can see.
func pack(ctx context.Context, c *client.Client, seed uint64, sizes ...int) (parcel, error) {
	p := parcel{seed: seed, sizes: sizes}
	m := client.NewMeta(parcelType).Set("seed", seed).Set("nbytes", p.bytes()).Set("note", `v"l~/.`)
	for i := range sizes {
		id, err := c.PutBlob(ctx, p.content(i))
		if err != nil {
			return p, fmt.Errorf("put a blob: %w", err)
		}
		m.AddObject(fmt.Sprintf("part_%d", i), id)
	}
	var err error
	if p.id, err = c.CreateObject(ctx, m); err == nil {
		err = c.Persist(ctx, p.id)
	}
	return p, err
}

// pack makes parcels of a node, one for each seed.
func (n *node) pack(seed uint64, sizes ...int) parcel {
	n.t.Helper()
	var p parcel
	must(n.t, n.do(func(ctx context.Context, c *client.Client) (err error) {
		p, err = pack(ctx, c, seed, sizes...)
		return err
	}))
	return p
}

// arrived verifies that a node has a persistent copy of its own of a parcel.
func (n *node) arrived(p parcel, id client.ID) error {
	return n.do(func(ctx context.Context, c *client.Client) error {
		m, err := c.GetObject(ctx, id)
		if err != nil {
			return err
		}
		seed, _ := m.Int("seed")
		note, _ := m.Text("note")
		if m.InstanceID != c.Info().InstanceID || m.Transient || m.Typename != parcelType || uint64(seed) != p.seed || note != `v"l~/.` {
			return fmt.Errorf("the copy of parcel %d on %s is %s", p.seed, n.name, describe(m))
		}
		return p.verify(ctx, c, m)
	})
}

// verify compares the bytes of a parcel that lies on the client's instance.
func (p parcel) verify(ctx context.Context, c *client.Client, m *client.Meta) error {
	ids := make([]client.ID, len(p.sizes))
	for i := range ids {
		part := m.Member(fmt.Sprintf("part_%d", i))
		if part == nil || part.InstanceID != c.Info().InstanceID {
			return fmt.Errorf("part %d of parcel %d is not on i%d: %+v", i, p.seed, c.Info().InstanceID, part)
		}
		ids[i] = part.ID
	}
	blobs, err := c.GetBlobs(ctx, ids)
	if err != nil {
		return fmt.Errorf("parcel %d, %s: %w", p.seed, m.ID, err)
	}
	for i, b := range blobs {
		if !bytes.Equal(b.Bytes(), p.content(i)) {
			return fmt.Errorf("parcel %d, %s: the %d bytes of part %d are not what was put", p.seed, m.ID, len(b.Bytes()), i)
		}
	}
	return nil
}

// carried is how a migration ended.
type carried struct {
	client.Migration
	err  error
	took time.Duration
}

// migrate brings an object to a node.
func (n *node) migrate(ctx context.Context, id client.ID, o client.MigrateOptions) (r carried) {
	began := time.Now()
	r.err = n.doWithin(ctx, 2*time.Minute, func(ctx context.Context, c *client.Client) (err error) {
		r.Migration, err = c.Migrate(ctx, id, o)
		return err
	})
	r.took = since(began)
	return r
}

// doWithin is do for what takes longer.
func (n *node) doWithin(ctx context.Context, limit time.Duration, f func(context.Context, *client.Client) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := client.Dial(limited, client.Options{Socket: n.socket})
	if err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	defer c.Close()
	return f(limited, c)
}

// migrating is migrate beside what else is done.
func (n *node) migrating(ctx context.Context, id client.ID, o client.MigrateOptions) <-chan carried {
	out := make(chan carried, 1)
	go func() { out <- n.migrate(ctx, id, o) }()
	return out
}

// brings is migrate for tests that want it to end well.
func (n *node) brings(p parcel, o client.MigrateOptions) carried {
	n.t.Helper()
	r := n.migrate(ctx, p.id, o)
	n.got(p, r)
	return r
}

func (n *node) got(p parcel, r carried) {
	n.t.Helper()
	if r.err != nil {
		n.t.Fatalf("migrate parcel %d of %d bytes to %s: after %v: %v", p.seed, p.bytes(), n.name, r.took, r.err)
	}
	must(n.t, n.arrived(p, r.ID))
	if tr := r.Transfer; tr.Way != "here" && (tr.Bytes != p.bytes() || tr.Total != p.bytes()) {
		n.t.Errorf("parcel %d has %d bytes, %d of %d were brought", p.seed, p.bytes(), tr.Bytes, tr.Total)
	}
}

// moving waits until so many bytes of an object have come to a node.
func (n *node) moving(id client.ID, bytes int64) {
	n.t.Helper()
	must(n.t, within(patience, func() error {
		st, err := n.status()
		if err != nil {
			return err
		}
		for _, tr := range st.Transfers {
			if tr.Object == id && tr.Bytes >= bytes {
				return nil
			}
		}
		return fmt.Errorf("%s has not yet got %d bytes of %s: %+v", n.name, bytes, id, st.Transfers)
	}))
}

// books is what a node has of its own, and holds open.
type books struct {
	usage, uncounted  int64
	blobs, sealed     int
	objects, changing int // persistent and transient ones
	files             int
}

func (n *node) books() (b books, err error) {
	st, err := n.status()
	if err != nil {
		return b, err
	}
	l := &st.Ledger
	b = books{usage: l.Usage, uncounted: l.Uncounted, blobs: l.Blobs}
	if len(st.Transfers) > 0 {
		return b, fmt.Errorf("under way to %s: %+v", n.name, st.Transfers)
	}
	err = n.do(func(ctx context.Context, c *client.Client) error {
		for r, err := range c.Rows(ctx, client.PageOptions{}) {
			if err != nil {
				return err
			}
			switch {
			case r.Instance != uint64(c.Info().InstanceID):
			case r.Transient:
				b.changing++
			default:
				b.objects++
			}
		}
		for r, err := range c.BlobRows(ctx) {
			if err != nil {
				return err
			}
			if r.Sealed {
				b.sealed++
			}
		}
		return nil
	})
	if fds, ferr := os.ReadDir(fmt.Sprintf("/proc/%d/fd", st.PID)); ferr == nil {
		b.files = len(fds)
	}
	return b, err
}

func (n *node) mustBooks() books {
	n.t.Helper()
	var b books
	must(n.t, within(patience, func() (err error) {
		b, err = n.books()
		return err
	}))
	return b
}

// unchanged waits until a node has what it had before, and nothing more.
func (n *node) unchanged(before books) error {
	return within(4*time.Second, func() error {
		now, err := n.books()
		if err != nil {
			return err
		}
		open := now.files
		if now.files = before.files; now != before {
			return fmt.Errorf("%s has %+v, it had %+v", n.name, now, before)
		}
		if open > before.files+2 { // one to etcd may just be another
			return fmt.Errorf("%s has %d files open, it had %d", n.name, open, before.files)
		}
		return n.even()
	})
}

// left verifies that a migration failed with a code and a text, and left nothing.
func (n *node) left(before books, r carried, code error, says ...string) {
	n.t.Helper()
	if r.err == nil {
		n.t.Errorf("the migration succeeded: %+v", r.Migration)
		return
	}
	n.t.Logf("after %v: %v", r.took, r.err)
	if code != nil && !errors.Is(r.err, code) {
		n.t.Errorf("the error is not %v: %#v", code, r.err)
	}
	for _, text := range says {
		if !strings.Contains(r.err.Error(), text) {
			n.t.Errorf("says nothing of %q: %v", text, r.err)
		}
	}
	if err := n.unchanged(before); err != nil {
		n.t.Error(err)
	}
}

// moved are the counters of a node.
func (n *node) moved() server.Status {
	n.t.Helper()
	st, err := n.status()
	must(n.t, err)
	return st
}

// drop deletes objects of a node.
func (n *node) drop(ids ...client.ID) {
	n.t.Helper()
	must(n.t, n.do(func(ctx context.Context, c *client.Client) error { return c.Delete(ctx, ids, client.DeleteOptions{}) }))
}

// TestMigrateForms moves objects of all shapes, by each way: what comes is what was
// put, deleting it gives everything back, and 0.24 clients may ask, too.
func TestMigrateForms(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	near := c.add(0, c.etcd.Endpoint(), "--rpc-listen", "10.86.0.1:9601", "--rpc-advertise", "10.86.0.1:9601")
	near.start()
	from := c.nodes[0]
	var all []parcel
	for i, sizes := range [][]int{
		{1},
		{5 * mib},
		{3*mib + 7},
		{0},
		{0, 1, 0, 4095, 0, 65536, 65537, 0},
		several(500, 333),
		append(several(40, 70_000), 2*mib, 0, 11),
	} {
		all = append(all, from.pack(uint64(10+i), sizes...))
	}
	for _, tt := range []struct {
		to  *node
		way string
		o   client.MigrateOptions
	}{
		{c.nodes[1], "tcp", client.MigrateOptions{}},
		{c.nodes[1], "tcp", client.MigrateOptions{Parallel: 7, Verify: true}},
		{c.nodes[1], "tcp", client.MigrateOptions{Compress: "on"}},
		{near, "ipc", client.MigrateOptions{}},
		{near, "ipc", client.MigrateOptions{Verify: true, Compress: "on", Limit: 1 << 40}},
	} {
		before, source := tt.to.mustBooks(), from.mustBooks()
		sent := from.moved().Moved.Sent
		var got []client.ID
		for _, p := range all {
			r := tt.to.brings(p, tt.o)
			if way := r.Transfer.Way; way != tt.way && (p.bytes() > 0 || way != "here") {
				t.Errorf("parcel %d came by way of %s, want %s", p.seed, way, tt.way)
			}
			again := tt.to.brings(p, client.MigrateOptions{})
			if again.ID != r.ID || again.Transfer.Way != "here" {
				t.Errorf("once more: %s by way of %s, it is here as %s", again.ID, again.Transfer.Way, r.ID)
			}
			got = append(got, r.ID)
		}
		if n := int64(from.moved().Moved.Sent - sent); tt.way == "ipc" && n != 0 || tt.way == "tcp" && n == 0 {
			t.Errorf("%d bytes were sent over TCP, by way of %s", n, tt.way)
		}
		tt.to.drop(got...)
		must(t, tt.to.unchanged(before), from.unchanged(source))
	}

	// As 0.24 clients ask, and from another host.
	classic, err := client.Dial(ctx, client.Options{Socket: c.nodes[1].socket, Classic: true})
	must(t, err)
	defer classic.Close()
	m, err := classic.Migrate(ctx, all[1].id, client.MigrateOptions{})
	must(t, err, c.nodes[1].arrived(all[1], m.ID))
	far, err := near.dialFrom(ctx, "10.86.0.2:9600")
	must(t, err)
	defer far.Close()
	m, err = far.Migrate(ctx, all[5].id, client.MigrateOptions{})
	must(t, err, c.nodes[1].arrived(all[5], m.ID))

	// What cannot be moved.
	glob := c.global(from, thing{id: all[0].id})
	transient := thing{}
	must(t, from.do(func(ctx context.Context, c *client.Client) (err error) {
		transient, err = put(ctx, c, 1, 10)
		return err
	}))
	before := c.nodes[1].mustBooks()
	for _, tt := range []struct {
		id   client.ID
		o    client.MigrateOptions
		says string
	}{
		{glob, client.MigrateOptions{}, "global"},
		{1 << 62, client.MigrateOptions{}, "no object"},
		{transient.id, client.MigrateOptions{}, "no object"},
		{transient.blob, client.MigrateOptions{}, "blobs cannot be directly migrated"},
		{client.EmptyBlob, client.MigrateOptions{}, "blobs cannot be directly migrated"},
		{all[2].id, client.MigrateOptions{Parallel: 33}, "parallel is 33"},
		{all[2].id, client.MigrateOptions{Limit: -1}, "-1 bytes a second"},
		{all[2].id, client.MigrateOptions{Compress: "gzip"}, "gzip"},
	} {
		c.nodes[1].left(before, c.nodes[1].migrate(ctx, tt.id, tt.o), nil, tt.says)
	}
	closed := c.add(1, c.etcd.Endpoint(), "--rpc-listen", "off", "--rpc-advertise", "")
	closed.start()
	c.nodes[1].left(before, c.nodes[1].migrate(ctx, closed.pack(99, 5).id, client.MigrateOptions{}), client.Invalid, "no remote access")
	out, errs, code := c.nodes[1].cli("migrate", all[3].id.String(), all[4].id.String(), "--verify", "-q")
	if ids := strings.Fields(out); code != 0 || len(ids) != 2 {
		t.Errorf("v6d migrate: exit code %d, %q, %s", code, out, errs)
	}
	if _, errs, code := c.nodes[1].cli("migrate", "o0000000000000077"); code != 3 || !strings.Contains(errs, "o0000000000000077") {
		t.Errorf("v6d migrate of what is not there: exit code %d, %s", code, errs)
	}
	must(t, from.balanced(), near.balanced(), c.nodes[1].balanced())
}

// diskBlob makes a sealed blob in a file of its own, as 0.24 clients can.
func (n *node) diskBlob(b []byte) client.ID {
	n.t.Helper()
	path := filepath.Join(n.t.TempDir(), "blob")
	must(n.t, os.WriteFile(path, b, 0o600))
	c := n.speak()
	defer c.Close()
	var r protocol.CreateBufferReply
	must(n.t, ask(c, protocol.CreateDiskBuffer, protocol.CreateDiskBufferRequest{Size: uint64(len(b)), Path: path}, &r))
	f, err := c.RecvFD()
	must(n.t, err)
	f.Close()
	must(n.t, ask(c, protocol.Seal, protocol.ObjectIDRequest{ObjectID: r.ID}, &protocol.None{}))
	return r.ID
}

// speak connects to a node's socket by hand.
func (n *node) speak() *protocol.Conn {
	n.t.Helper()
	nc, err := net.Dial("unix", n.socket)
	must(n.t, err)
	c := protocol.NewClientConn(nc, 0)
	must(n.t, ask(c, protocol.Register, protocol.RegisterRequest{Version: client.Version, StoreType: protocol.StoreDefault}, &protocol.RegisterReply{}))
	return c
}

// ask sends a request and reads the reply.
func ask[Q, R any](c *protocol.Conn, d *protocol.Def[Q, R], q Q, r *R) error {
	if _, err := c.Write(protocol.EndFrame(d.AppendRequest(protocol.BeginFrame(nil), &q), 0)); err != nil {
		return err
	}
	frame, err := c.ReadFrame()
	if err != nil {
		return err
	}
	members, err := wirejson.ParseObject(bytes.Clone(frame), nil)
	if err != nil {
		return err
	}
	return d.DecodeReply(members, r)
}

// TestMigrateTrees moves objects with members: one that several share comes once,
// and what is here already does not come again. Disk blobs, blobs that were
// shortened to nothing, labels and names are part of it.
func TestMigrateTrees(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	a, b := c.nodes[0], c.nodes[1]
	ca, cb := a.dial(), b.dial()
	disk := pattern(99, 700_001)
	shared := a.pack(1, 100_000, 0)
	left, right := a.pack(2, 5000, 6000), a.pack(3, 1)
	build, err := ca.CreateBlob(ctx, 100)
	must(t, err, build.Shrink(ctx, 0))
	nothing, err := build.Seal(ctx)
	must(t, err)
	inner := client.NewMeta("cluster::Inner").AddObject("shared", shared.id).AddObject("left", left.id)
	innerID, err := ca.CreateObject(ctx, inner)
	must(t, err)
	diskID := a.diskBlob(disk)
	top, err := ca.CreateObject(ctx, client.NewMeta("cluster::Top").Set("list", []int{1, 2}).AddObject("inner", innerID).AddObject("again", shared.id).
		AddObject("right", right.id).AddObject("disk", diskID).AddObject("nothing", nothing).AddObject("empty", client.EmptyBlob))
	must(t, err, ca.Persist(ctx, top), ca.Label(ctx, top, map[string]string{"a": "1", "b": "2"}), ca.Label(ctx, shared.id, map[string]string{"s": "x"}),
		ca.PutName(ctx, top, "top/~"), ca.PutName(ctx, top, "second"), ca.PutName(ctx, shared.id, "shared"))
	names := func() string {
		list, err := cb.ListNames(ctx, "*", 100)
		must(t, err)
		return fmt.Sprint(list)
	}
	before, source, asNamed := b.mustBooks(), a.mustBooks(), names()
	origin, err := cb.GetObject(ctx, top)
	must(t, err)

	// A member first: the tree then takes that copy.
	r := b.brings(left, client.MigrateOptions{})
	leftCopy := r.ID
	r = b.migrate(ctx, top, client.MigrateOptions{Verify: true})
	must(t, r.err)
	if want := shared.bytes() + right.bytes() + int64(len(disk)); r.Transfer.Bytes != want || int64(r.Transfer.Blobs) != 4 {
		t.Errorf("%d bytes in %d blobs were brought, want %d in 4", r.Transfer.Bytes, r.Transfer.Blobs, want)
	}
	m, err := cb.GetObject(ctx, r.ID)
	must(t, err)
	if m.Signature != origin.Signature || m.Typename != origin.Typename || !maps.Equal(m.Labels, origin.Labels) ||
		!slices.Equal(m.Keys(), origin.Keys()) || string(m.Raw("list")) != string(origin.Raw("list")) || m.Transient {
		t.Errorf("the copy is\n%s, of\n%s", describe(m), describe(origin))
	}
	var check func(m *client.Meta)
	check = func(m *client.Meta) {
		if m.InstanceID != cb.Info().InstanceID || !m.IsBlob() && m.Transient {
			t.Errorf("part of the copy: %s", describe(m))
		}
		for _, member := range m.Members {
			check(member)
		}
	}
	check(m)
	in := m.Member("inner")
	if in.Member("left").ID != leftCopy || in.Member("shared").ID != m.Member("again").ID || m.Member("empty").ID != client.EmptyBlob {
		t.Errorf("the copy has other members: %s", describe(m))
	}
	if l := m.Member("again").Labels; l["s"] != "x" {
		t.Errorf("labels of a member: %v", l)
	}
	must(t, b.arrived(shared, m.Member("again").ID), b.arrived(left, leftCopy), b.arrived(right, m.Member("right").ID))
	got, err := cb.GetBlobs(ctx, []client.ID{m.Member("disk").ID, m.Member("nothing").ID})
	must(t, err)
	if !bytes.Equal(got[0].Bytes(), disk) || len(got[1].Bytes()) != 0 {
		t.Errorf("%d and %d bytes", len(got[0].Bytes()), len(got[1].Bytes()))
	}
	must(t, got[0].Release(ctx), got[1].Release(ctx))
	if now := names(); now != asNamed {
		t.Errorf("names were %s, they are %s", asNamed, now)
	}
	after := b.mustBooks()
	if after.objects != before.objects+5 || after.blobs != before.blobs+5 || after.usage != before.usage+shared.bytes()+left.bytes()+right.bytes()+int64(len(disk)) {
		t.Errorf("5 objects with 5 blobs came, and empty ones: %+v became %+v", before, after)
	}
	// Deleting one of two that share a member keeps the member.
	must(t, cb.Delete(ctx, []client.ID{r.ID}, client.DeleteOptions{}))
	must(t, b.unchanged(before), a.unchanged(source), c.agreed())

	// The names of all of it.
	r = b.migrate(ctx, top, client.MigrateOptions{Names: true})
	must(t, r.err)
	if m, err = ca.GetObject(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]client.ID{"top/~": r.ID, "second": r.ID, "shared": m.Member("again").ID} {
		for _, cl := range []*client.Client{ca, cb} {
			if id, err := cl.GetName(ctx, name, false); err != nil || id != want {
				t.Errorf("name %s is %s, want %s: %v", name, id, want, err)
			}
		}
	}
	must(t, ca.Delete(ctx, []client.ID{top}, client.DeleteOptions{}))
	if id, err := cb.GetName(ctx, "top/~", false); err != nil || id != r.ID {
		t.Errorf("when the original is gone, its name is %s, %v", id, err)
	}
	must(t, b.arrived(right, m.Member("right").ID), a.balanced(), b.balanced(), c.agreed())
}

// agreed is mustAgree for what goes into must.
func (c *cluster) agreed() error {
	_, err := c.agree(patience, nil)
	return err
}

// TestMigrateNamesLater moves the names of what is here already, of members, too.
func TestMigrateNamesLater(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2)
	a, b := c.nodes[0], c.nodes[1]
	ca, cb := a.dial(), b.dial()
	member := a.pack(1, 1000)
	top, err := ca.CreateObject(ctx, client.NewMeta("cluster::Top").AddObject("member", member.id))
	must(t, err, ca.Persist(ctx, top), ca.PutName(ctx, top, "top"), ca.PutName(ctx, member.id, "member"))
	r := b.migrate(ctx, top, client.MigrateOptions{})
	must(t, r.err)
	again := b.migrate(ctx, top, client.MigrateOptions{Names: true})
	must(t, again.err)
	m, err := cb.GetObject(ctx, r.ID)
	must(t, err)
	for name, want := range map[string]client.ID{"top": r.ID, "member": m.Member("member").ID} {
		if id, err := ca.GetName(ctx, name, false); err != nil || id != want || again.ID != r.ID {
			t.Errorf("name %s is %s, want %s: %v", name, id, want, err)
		}
	}
}

// TestMigrateMany moves an object of 10,000 blobs, by each way.
func TestMigrateMany(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	near := c.add(0, c.etcd.Endpoint(), "--rpc-listen", "10.86.0.1:9601", "--rpc-advertise", "10.86.0.1:9601")
	near.start()
	p := c.nodes[0].pack(7, several(10_000, 1000)...)
	for _, n := range []*node{c.nodes[1], near} {
		before := n.mustBooks()
		r := n.brings(p, client.MigrateOptions{})
		t.Logf("10,000 blobs by way of %s: %d ms of %v", r.Transfer.Way, r.Transfer.MS, r.took)
		n.drop(r.ID)
		must(t, n.unchanged(before))
	}
	must(t, c.nodes[0].balanced())
}

// TestMigrateHuge moves an object of 4 GiB.
func TestMigrateHuge(t *testing.T) {
	heavy(t)
	slowly(t, time.Minute)
	if free := freeMemory(t); free < 12<<30 {
		t.Skipf("the machine has %d MiB left, two pools of 5 GiB need more", free>>20)
	}
	c := formWith(t, 2, overTCP, "--size", "5GiB")
	p := c.nodes[0].pack(4, several(4, 1<<30)...)
	before := c.nodes[1].mustBooks()
	r := c.nodes[1].brings(p, client.MigrateOptions{})
	t.Logf("4 GiB in %d ms", r.Transfer.MS)
	c.nodes[1].drop(r.ID)
	must(t, c.nodes[1].unchanged(before), c.nodes[0].balanced())
}

func freeMemory(t testing.TB) (bytes int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &bytes); err == nil {
			return bytes << 10
		}
	}
	return 0
}

// TestMigrateTogether lets two nodes pull from each other, several objects at once,
// and many clients ask for one object: its bytes travel once.
func TestMigrateTogether(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP, "--size", "128MiB")
	a, b := c.nodes[0], c.nodes[1]
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	pull := func(to *node, p parcel) {
		wg.Go(func() {
			r := to.migrate(ctx, p.id, client.MigrateOptions{})
			if r.err == nil {
				r.err = to.arrived(p, r.ID)
			}
			if r.err != nil {
				errs <- fmt.Errorf("parcel %d to %s: %w", p.seed, to.name, r.err)
			}
		})
	}
	var there, back []parcel
	for i := range 4 {
		there = append(there, a.pack(uint64(10+i), 3*mib, 70_000, 5))
		back = append(back, b.pack(uint64(20+i), several(100, 31_000)...))
	}
	for i := range there {
		pull(b, there[i])
		pull(a, back[i])
	}
	wg.Wait()

	// Ten at once, of which most come while it is under way.
	p := a.pack(50, 6*mib, 2*mib)
	was, sent := b.moved().Moved, a.moved().Moved.Sent
	ids := make(chan client.ID, 10)
	for range 10 {
		wg.Go(func() {
			r := b.migrate(ctx, p.id, client.MigrateOptions{Limit: 16 * mib})
			if r.err != nil {
				errs <- r.err
			}
			ids <- r.ID
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	first := <-ids
	for range 9 {
		if id := <-ids; id != first {
			t.Errorf("one client got %s, another one %s", first, id)
		}
	}
	must(t, b.arrived(p, first))
	now := b.moved().Moved
	if now.Transfers != was.Transfers+1 || now.Received != was.Received+uint64(p.bytes()) || now.Failed != was.Failed {
		t.Errorf("ten clients asked for %d bytes: %+v became %+v", p.bytes(), was, now)
	}
	if n := a.moved().Moved.Sent - sent; n != uint64(p.bytes()) {
		t.Errorf("%d bytes were sent for an object of %d", n, p.bytes())
	}
	must(t, a.balanced(), b.balanced(), c.agreed())
}

// TestMigrateMember moves an object while one of its members is moved by itself:
// what comes twice is not kept twice.
func TestMigrateMember(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	a, b := c.nodes[0], c.nodes[1]
	ca, cb := a.dial(), b.dial()
	member := a.pack(1, 3*mib)
	big := a.pack(2, 3*mib)
	top, err := ca.CreateObject(ctx, client.NewMeta("cluster::Top").AddObject("member", member.id).AddObject("big", big.id))
	must(t, err, ca.Persist(ctx, top))
	before := b.mustBooks()
	whole := b.migrating(ctx, top, client.MigrateOptions{Limit: 4 * mib})
	b.moving(top, 1)
	part := b.brings(member, client.MigrateOptions{})
	r := <-whole
	must(t, r.err, b.arrived(member, part.ID))
	m, err := cb.GetObject(ctx, r.ID)
	must(t, err, b.arrived(member, m.Member("member").ID), b.arrived(big, m.Member("big").ID))
	for row, err := range cb.BlobRows(ctx) {
		must(t, err)
		if len(row.Owners) == 0 {
			t.Errorf("a blob of %d bytes belongs to nothing: %+v", row.Size, row)
		}
	}
	must(t, cb.Delete(ctx, []client.ID{r.ID, part.ID}, client.DeleteOptions{}), b.unchanged(before), a.balanced())
}

// TestMigrateAskers ends the clients that ask: with the last one the transfer ends,
// within a second, and leaves nothing.
func TestMigrateAskers(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	a, b := c.nodes[0], c.nodes[1]
	p := a.pack(1, 20*mib, 1000)
	o := client.MigrateOptions{Limit: 5 * mib}
	for _, tt := range []struct {
		name string
		end  func() // of the only asker
	}{
		{"cancelled", nil},
		{"killed", nil},
	} {
		before, source := b.mustBooks(), a.mustBooks()
		var ended time.Time
		if tt.name == "cancelled" {
			asking, cancel := context.WithCancelCause(ctx)
			r := b.migrating(asking, p.id, o)
			b.moving(p.id, mib)
			enough := errors.New("enough")
			cancel(enough)
			ended = time.Now()
			if got := <-r; !errors.Is(got.err, enough) {
				t.Errorf("a migration that was cancelled: %v", got.err)
			}
		} else {
			cmd := b.host.Command(ctx, v6d, "migrate", "--socket", b.socket, "--bwlimit", "5MiB", p.id.String())
			must(t, testserver.StartProcess(cmd))
			b.moving(p.id, mib)
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
			ended = time.Now()
		}
		if err := within(time.Second, func() error {
			if st, err := b.status(); err != nil || len(st.Transfers) > 0 {
				return fmt.Errorf("%s: %v after its client had gone: %+v, %w", tt.name, since(ended), st.Transfers, err)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		must(t, b.unchanged(before), a.unchanged(source))
	}

	// Two ask, the one who came first goes.
	was := b.moved().Moved
	asking, cancel := context.WithCancel(ctx)
	first := b.migrating(asking, p.id, client.MigrateOptions{Limit: 15 * mib})
	b.moving(p.id, 1)
	second := b.migrating(ctx, p.id, o)
	must(t, within(patience, func() error {
		if st, err := b.status(); err != nil || st.Sessions[0].Deferred != 2 {
			return fmt.Errorf("%+v, %w", st.Sessions, err)
		}
		return nil
	}))
	cancel()
	if r := <-first; r.err == nil {
		t.Error("who went away got an answer")
	}
	b.got(p, <-second)
	if now := b.moved().Moved; now.Transfers != was.Transfers+1 || now.Failed != was.Failed {
		t.Errorf("two asked, one went: %+v became %+v", was, now)
	}
	must(t, a.balanced(), b.balanced())
}

// TestMigrateFull moves what does not fit: nothing is left, and what was there
// stays.
func TestMigrateFull(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 1, overTCP, "--size", "128MiB")
	a := c.nodes[0]
	b := c.add(0, c.etcd.Endpoint(), overTCP, "--size", "16MiB", "--rpc-listen", "10.86.0.1:9601", "--rpc-advertise", "10.86.0.1:9601")
	b.start()
	near := c.add(0, c.etcd.Endpoint(), "--size", "16MiB", "--rpc-listen", "10.86.0.1:9602", "--rpc-advertise", "10.86.0.1:9602")
	near.start()
	one := a.pack(1, 17*mib)
	many := a.pack(2, several(2000, 9000)...)
	two := a.pack(3, 12*mib)
	for _, n := range []*node{b, near} {
		kept, err := n.things(uint64(100), 110)
		must(t, err)
		before := n.mustBooks()
		for _, p := range []parcel{one, many} {
			n.left(before, n.migrate(ctx, p.id, client.MigrateOptions{}), client.NoMemory, p.id.String(), "make room")
		}
		_, errs, code := n.cli("migrate", many.id.String())
		if code != 6 || !strings.Contains(errs, "memory") {
			t.Errorf("v6d migrate: exit code %d, %s", code, errs)
		}
		must(t, n.unchanged(before))
		// Two that fit one by one.
		r := n.brings(two, client.MigrateOptions{})
		full := n.mustBooks()
		other := a.pack(4, 5*mib)
		n.left(full, n.migrate(ctx, other.id, client.MigrateOptions{}), client.NoMemory)
		n.drop(r.ID)
		must(t, n.unchanged(before))
		r = n.brings(other, client.MigrateOptions{})
		n.drop(r.ID)
		must(t, n.unchanged(before), n.keeps(kept))
		a.drop(other.id)
		for _, th := range kept {
			n.drop(th.id)
		}
	}
	must(t, a.balanced())
}
