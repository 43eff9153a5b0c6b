//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
)

// TestPeerGone kills owners for good at several points of a transfer: an error that
// names the peer comes in time, and nothing is left.
func TestPeerGone(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 6, overTCP)
	to := c.nodes[5]
	before := to.mustBooks()
	var wg sync.WaitGroup
	for i, at := range []int64{0, mib, 3 * mib, 5 * mib} {
		from := c.nodes[i]
		p := from.pack(uint64(10+i), 5*mib, 3*mib)
		r := to.migrating(ctx, p.id, client.MigrateOptions{Limit: 4 * mib, Compress: []string{"off", "on"}[i%2]})
		to.moving(p.id, at)
		from.kill()
		killed := time.Now()
		wg.Go(func() {
			got := <-r
			took := since(killed)
			if got.err == nil || !errors.Is(got.err, client.Unreachable) || !strings.Contains(got.err.Error(), fmt.Sprintf("instance %d", i)) ||
				!strings.Contains(got.err.Error(), from.host.Addr) || took > 27*time.Second || took < 18*time.Second {
				t.Errorf("killed after %d bytes: after %v %v", at, took, got.err)
			}
		})
	}
	p := c.nodes[4].pack(20, 100_000)
	c.nodes[4].kill()
	_, errs, code := to.cliWithin(time.Minute, "migrate", p.id.String())
	if code != 5 || !strings.Contains(errs, "instance 4") {
		t.Errorf("v6d migrate from a node that was killed: exit code %d: %s", code, errs)
	}
	wg.Wait()
	must(t, to.unchanged(before))
	// One of them is there again.
	c.nodes[3].start()
	to.brings(c.nodes[3].pack(30, 100_000), client.MigrateOptions{})
}

// cliWithin is cli for what takes longer.
func (n *node) cliWithin(limit time.Duration, args ...string) (stdout, stderr string, code int) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := n.host.Command(limited, v6d, slices.Concat(args, []string{"--socket", n.socket})...)
	var out, errs testserver.Output
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := testserver.StartProcess(cmd); err != nil {
		return "", err.Error(), -1
	}
	_ = cmd.Wait()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// TestPeerBack kills owners at several points of a transfer and starts them again:
// it goes on, and every byte is right.
func TestPeerBack(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP, "--size", "128MiB")
	from, to := c.nodes[0], c.nodes[1]
	for i, tt := range []struct {
		at    int64
		sizes []int
		o     client.MigrateOptions
	}{
		{0, []int{9 * mib}, client.MigrateOptions{}},
		{2*mib + 1, []int{11 * mib, 9 * mib}, client.MigrateOptions{}},
		{3 * mib, several(400, 30_000), client.MigrateOptions{Verify: true}},
		{5 * mib, []int{4 * mib, 6 * mib}, client.MigrateOptions{Compress: "on"}},
	} {
		p := from.pack(uint64(10+i), tt.sizes...)
		before, was := to.mustBooks(), to.moved().Moved
		tt.o.Limit = 8 * mib
		r := to.migrating(ctx, p.id, tt.o)
		to.moving(p.id, tt.at)
		from.kill()
		from.start()
		got := <-r
		to.got(p, got)
		if got.Transfer.Resumed == 0 {
			t.Errorf("killed after %d bytes: no connection was lost", tt.at)
		}
		now := to.moved().Moved
		t.Logf("killed after %d of %d bytes: %v, resumed %d times, %d bytes received", tt.at, p.bytes(), got.took, got.Transfer.Resumed, now.Received-was.Received)
		if now.Reconnect == was.Reconnect || now.Transfers != was.Transfers+1 || now.Received != was.Received+uint64(p.bytes()) {
			t.Errorf("%+v became %+v", was, now)
		}
		to.drop(got.ID)
		must(t, to.unchanged(before), from.balanced())
	}
}

// TestPeerStops stops an owner as a service manager does, in the middle of a
// transfer: its objects are gone then.
func TestPeerStops(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	from, to := c.nodes[0], c.nodes[1]
	p := from.pack(1, 12*mib)
	before := to.mustBooks()
	r := to.migrating(ctx, p.id, client.MigrateOptions{Limit: 4 * mib})
	to.moving(p.id, mib)
	from.stop()
	got := <-r
	if got.took > 40*time.Second {
		t.Errorf("took %v", got.took)
	}
	to.left(before, got, nil, "instance 0")
}

// TestReceiverStops stops and kills the receiver in the middle of transfers: it
// ends well, nothing of them is there afterwards, and they can be had again.
func TestReceiverStops(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	from, to := c.nodes[0], c.nodes[1]
	p := from.pack(1, 6*mib, 6*mib)
	kept, err := to.things(100, 105)
	must(t, err)
	before, source := to.mustBooks(), from.mustBooks()
	for _, at := range []int64{0, 3 * mib, 11 * mib} {
		r := to.migrating(ctx, p.id, client.MigrateOptions{Limit: 8 * mib})
		to.moving(p.id, at)
		to.kill()
		if got := <-r; !errors.Is(got.err, client.Unreachable) {
			t.Errorf("a client of a daemon that was killed: %v", got.err)
		}
		to.start()
		before.files = to.mustBooks().files
		must(t, to.keeps(kept), to.unchanged(before), from.unchanged(source))
		got := to.brings(p, client.MigrateOptions{})
		to.drop(got.ID)
		must(t, to.unchanged(before))
	}
	r := to.migrating(ctx, p.id, client.MigrateOptions{Limit: mib / 2}) // this would take a while
	to.moving(p.id, mib)
	began := time.Now()
	to.stop()
	if took := since(began); took > 8*time.Second {
		t.Errorf("a daemon with a transfer under way stops after %v", took)
	}
	if got := <-r; got.err == nil {
		t.Error("a client of a daemon that stopped got its object")
	} else {
		t.Logf("a client of a daemon that stops: %v", got.err)
	}
	must(t, from.unchanged(source))
}

// TestReceiverCrashesLate kills the receiver when all bytes are there, and the copy
// is being made known to the others: either it is there afterwards, or nothing.
func TestReceiverCrashesLate(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	from, to := c.nodes[0], c.nodes[1]
	p := from.pack(1, 2*mib, 1000)
	before := to.mustBooks()
	for _, tt := range []struct{ away, back func() }{{c.etcd.Kill, c.etcd.Start}, {c.etcd.Pause, c.etcd.Resume}} {
		r := to.migrating(ctx, p.id, client.MigrateOptions{Limit: mib})
		to.moving(p.id, mib)
		tt.away()
		must(t, within(patience, func() error {
			if st, err := to.status(); err != nil || st.Moved.Transfers == 0 {
				return fmt.Errorf("not there yet: %+v, %w", st.Moved, err)
			}
			return nil
		}))
		time.Sleep(200 * time.Millisecond) // what follows is in memory
		to.kill()
		tt.back()
		<-r
		to.start()
		now := to.mustBooks()
		before.files = now.files
		if now.objects == before.objects { // etcd did not get it, or not in time
			must(t, to.unchanged(before))
		}
		got := to.brings(p, client.MigrateOptions{})
		if now.objects != before.objects && got.Transfer.Way != "here" {
			t.Errorf("after the crash there was %+v, and it came again", now)
		}
		to.drop(got.ID)
		must(t, to.unchanged(before))
	}
	must(t, from.balanced())
}

// TestMigrateWithoutEtcd moves an object while etcd is away, or hangs, when its copy
// is to be filed: that fails in time and leaves nothing, neither after a crash nor
// when etcd comes back and has got it all the same. A copy of a member that was here
// before stays.
func TestMigrateWithoutEtcd(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	from, to := c.nodes[0], c.nodes[1]
	member := from.pack(1, 1000)
	big := from.pack(2, 2*mib)
	var top client.ID
	must(t, from.do(func(ctx context.Context, c *client.Client) (err error) {
		if top, err = c.CreateObject(ctx, client.NewMeta("cluster::Top").AddObject("member", member.id).AddObject("big", big.id)); err == nil {
			err = c.Persist(ctx, top)
		}
		return err
	}))
	copied := to.brings(member, client.MigrateOptions{})
	before := to.mustBooks()
	data := func() (keys []string) { // a signature that came late may stay, until the next migration
		list, err := c.etcd.of(1)
		must(t, err)
		for _, key := range list {
			if strings.HasPrefix(key, "/data/") {
				keys = append(keys, key)
			}
		}
		return keys
	}
	want := data()
	for _, tt := range []struct{ away, back func() }{{c.etcd.Kill, c.etcd.Start}, {c.etcd.Pause, c.etcd.Resume}} {
		r := to.migrating(ctx, top, client.MigrateOptions{Limit: mib})
		to.moving(top, mib)
		tt.away()
		got := <-r
		if got.took > 30*time.Second {
			t.Errorf("without etcd a migration fails after %v", got.took)
		}
		tt.back()
		to.left(before, got, nil, "etcd")
		must(t, to.arrived(member, copied.ID), within(patience, func() error {
			if now := data(); !slices.Equal(now, want) {
				return fmt.Errorf("etcd has %v of the receiver, it had %v", now, want)
			}
			return nil
		}))
		to.kill()
		to.start()
		before.files = to.mustBooks().files
		must(t, to.unchanged(before), to.arrived(member, copied.ID))
	}
	// A daemon that is killed while it tidies up leaves the cluster's lock for a while.
	must(t, within(patience, func() error { return to.migrate(ctx, top, client.MigrateOptions{}).err }), from.balanced(), c.agreed())
}

// TestNearFaults disturbs the copy from the pool of a daemon on the same host: what
// is mapped outlives that one's process, and a pool that is cut short is an error.
func TestNearFaults(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 1)
	from := c.nodes[0]
	to := c.add(0, c.etcd.Endpoint(), "--rpc-listen", "10.86.0.1:9601", "--rpc-advertise", "10.86.0.1:9601")
	to.start()
	p := from.pack(1, 10*mib)
	o := client.MigrateOptions{Limit: 8 * mib}
	before, source := to.mustBooks(), from.mustBooks()
	start := func(way string) <-chan carried {
		t.Helper()
		r := to.migrating(ctx, p.id, o)
		to.moving(p.id, 3*mib)
		if tr := to.moved().Transfers; len(tr) != 1 || string(tr[0].Way) != way {
			t.Errorf("under way: %+v", tr)
		}
		return r
	}

	r := start("ipc")
	from.kill()
	got := <-r
	to.got(p, got)
	to.drop(got.ID)
	from.start()
	must(t, to.unchanged(before))

	r = start("ipc")
	to.kill()
	<-r
	to.start()
	before.files, source.files = to.mustBooks().files, from.mustBooks().files
	must(t, to.unchanged(before), from.unchanged(source))

	r = start("ipc")
	must(t, from.do(func(ctx context.Context, c *client.Client) error {
		return c.Delete(ctx, []client.ID{p.id}, client.DeleteOptions{})
	}))
	to.left(before, <-r, client.NotExist, "deleted")
	must(t, from.balanced())

	p = from.pack(2, 10*mib)
	st, err := from.status()
	must(t, err)
	pools, err := filepath.Glob(filepath.Join(st.Start.Place.Path, "pool-*"))
	if err != nil || len(pools) == 0 {
		t.Fatalf("no pool files in %s: %v", st.Start.Place.Path, err)
	}
	from.expect = []string{"pool"}
	r = start("ipc")
	for _, path := range pools {
		must(t, os.Truncate(path, 0))
	}
	to.left(before, <-r, nil, "instance 0")
}

// TestDeletedMeanwhile deletes the object, its blob, or everything while it comes.
func TestDeletedMeanwhile(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	from, to := c.nodes[0], c.nodes[1]
	o := client.MigrateOptions{Limit: 6 * mib}
	for i, tt := range []struct {
		name string
		del  func(ctx context.Context, p parcel) error
		says string
		o    client.MigrateOptions
	}{
		{"the object", func(ctx context.Context, p parcel) error {
			return from.do(func(ctx context.Context, c *client.Client) error {
				return c.Delete(ctx, []client.ID{p.id}, client.DeleteOptions{})
			})
		}, "deleted", o},
		{"the object, by another node", func(ctx context.Context, p parcel) error {
			return to.do(func(ctx context.Context, c *client.Client) error {
				return c.Delete(ctx, []client.ID{p.id}, client.DeleteOptions{})
			})
		}, "deleted", client.MigrateOptions{Limit: 6 * mib, Compress: "on"}},
		{"a blob", func(ctx context.Context, p parcel) error {
			return from.do(func(ctx context.Context, c *client.Client) error {
				m, err := c.GetObject(ctx, p.id)
				if err == nil {
					err = c.DropBlob(ctx, m.Member("part_1").ID)
				}
				return err
			})
		}, "deleted", o},
		{"a blob of the copy", func(ctx context.Context, p parcel) error {
			return to.do(func(ctx context.Context, c *client.Client) error {
				for row, err := range c.BlobRows(ctx) {
					if err != nil {
						return err
					}
					if err := c.DropBlob(ctx, row.ID); err != nil {
						return err
					}
				}
				return nil
			})
		}, "deleted", o},
		{"everything", func(ctx context.Context, p parcel) error {
			return to.do(func(ctx context.Context, c *client.Client) error { return c.Clear(ctx) })
		}, "deleted", o},
	} {
		p := from.pack(uint64(10+i), 5*mib, 2*mib)
		before := to.mustBooks()
		r := to.migrating(ctx, p.id, tt.o)
		to.moving(p.id, 2*mib)
		must(t, tt.del(ctx, p))
		t.Logf("deleted meanwhile: %s", tt.name)
		to.left(before, <-r, client.NotExist, tt.says)
		must(t, from.balanced())
	}
}

// cutter is a proxy whose connections break after as many bytes, either way, as
// draw says; below zero they never do.
type cutter struct {
	addr string
	cuts func() int
}

func cut(t testing.TB, on *testserver.Host, target string, draw func() int64) *cutter {
	t.Helper()
	l, err := on.Listen("tcp", on.Addr+":0")
	must(t, err)
	var mu sync.Mutex
	done := 0
	open := map[net.Conn]bool{}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		open = nil
		mu.Unlock()
		wg.Wait()
	})
	keep := func(conn net.Conn) bool {
		mu.Lock()
		defer mu.Unlock()
		if open == nil {
			conn.Close()
			return false
		}
		open[conn] = true
		return true
	}
	drop := func(conn net.Conn) {
		conn.Close()
		mu.Lock()
		delete(open, conn)
		mu.Unlock()
	}
	serve := func(conn net.Conn) {
		defer drop(conn)
		mu.Lock()
		left := draw()
		mu.Unlock()
		back, err := on.Dial("tcp", target)
		if err != nil || !keep(back) {
			return
		}
		defer drop(back)
		var budget sync.Mutex
		hand := func(to, from net.Conn) {
			buf := make([]byte, 32<<10)
			for {
				n, err := from.Read(buf)
				budget.Lock()
				cut := left >= 0 && int64(n) >= left
				if cut {
					n = int(left)
				}
				if left >= 0 {
					left -= int64(n)
				}
				budget.Unlock()
				_, werr := to.Write(buf[:n])
				if cut && werr == nil {
					mu.Lock()
					done++
					reset := done%2 == 0
					mu.Unlock()
					if reset { // half of them with what is on its way
						_ = conn.(*net.TCPConn).SetLinger(0)
					}
				}
				if cut || err != nil || werr != nil {
					conn.Close()
					back.Close()
					return
				}
			}
		}
		var both sync.WaitGroup
		both.Go(func() { hand(back, conn) })
		hand(conn, back)
		both.Wait()
	}
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if keep(conn) {
				wg.Go(func() { serve(conn) })
			}
		}
	})
	return &cutter{addr: l.Addr().String(), cuts: func() int {
		mu.Lock()
		defer mu.Unlock()
		return done
	}}
}

// behind adds a node whose advertised address is another one.
func (c *cluster) behind(host int, addr string, args ...string) *node {
	c.t.Helper()
	n := c.add(host, c.etcd.Endpoint(), slices.Concat(args, []string{"--rpc-advertise", addr})...)
	n.start()
	return n
}

// TestCutConnections breaks every connection after a random number of bytes: a
// transfer always ends, and well.
func TestCutConnections(t *testing.T) {
	heavy(t)
	t.Parallel()
	seed := envNumber("V6D_CHAOS_SEED", rand.Uint64N(1e9))
	r := rand.New(rand.NewPCG(seed, 1))
	t.Logf("V6D_CHAOS_SEED=%d repeats what was drawn", seed)
	c := hosts(t, 2, noOptions)
	var small atomic.Bool // objects
	x := cut(t, c.net.Hub, "10.86.0.1:9600", func() int64 {
		if r.IntN(4) == 0 || small.Load() && r.IntN(2) == 0 {
			return r.Int64N(1500) // within what is said before bytes come
		}
		return r.Int64N(3 * mib)
	})
	from := c.behind(0, x.addr, overTCP)
	to := c.add(1, c.etcd.Endpoint(), overTCP)
	to.start()
	for i, tt := range []struct {
		sizes []int
		o     client.MigrateOptions
	}{
		{[]int{9 * mib}, client.MigrateOptions{}},
		{[]int{9*mib + 1, 20 * mib}, client.MigrateOptions{}},
		{several(2000, 3001), client.MigrateOptions{}},
		{append(several(50, 100_000), 3*mib), client.MigrateOptions{Compress: "on"}},
		{[]int{12*mib - 1, 5}, client.MigrateOptions{Verify: true, Parallel: 8}},
		{[]int{7 * mib, 6 * mib}, client.MigrateOptions{Verify: true, Compress: "on"}},
		{several(3, 10), client.MigrateOptions{}},
		{several(3, 20), client.MigrateOptions{}},
		{several(3, 30), client.MigrateOptions{}},
		{several(3, 40), client.MigrateOptions{}},
	} {
		p := from.pack(uint64(10+i), tt.sizes...)
		small.Store(p.bytes() < 1000)
		before, cuts := to.mustBooks(), x.cuts()
		got := to.brings(p, tt.o)
		t.Logf("%d bytes in %d blobs, %+v: %v, %d cuts, resumed %d times", p.bytes(), len(tt.sizes), tt.o, got.took, x.cuts()-cuts, got.Transfer.Resumed)
		to.drop(got.ID)
		must(t, to.unchanged(before))
		from.drop(p.id)
	}
	must(t, from.balanced())
}

// TestCutEvery breaks every connection after the same number of bytes, less than
// what is asked for at once: checksums must not keep a transfer from getting on.
func TestCutEvery(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := hosts(t, 3, noOptions)
	to := c.add(2, c.etcd.Endpoint(), overTCP)
	to.start()
	for i, after := range []int64{5 * mib, 600_000} {
		x := cut(t, c.net.Hub, c.net.Hosts[i].Addr+":9600", func() int64 { return after })
		from := c.behind(i, x.addr, overTCP)
		for k, o := range []client.MigrateOptions{{}, {Verify: true}, {Compress: "on"}} {
			p := from.pack(uint64(10+10*i+k), 3*int(after)+77)
			asking, cancel := context.WithTimeout(ctx, 10*time.Second)
			r := to.migrate(asking, p.id, o)
			cancel()
			to.got(p, r)
			t.Logf("a connection for each %d of %d bytes, %+v: %v, resumed %d times", after, p.bytes(), o, r.took, r.Transfer.Resumed)
			to.drop(r.ID)
		}
		must(t, from.balanced())
	}
	must(t, to.balanced())
}

// TestClassicPeer pulls from a daemon that seems to be one of 0.24: all in one
// request, and from the start again when the connection breaks.
func TestClassicPeer(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := hosts(t, 2, noOptions)
	var mu sync.Mutex
	budgets := []int64{}
	x := cut(t, c.net.Hub, "10.86.0.1:9600", func() int64 {
		mu.Lock()
		defer mu.Unlock()
		if len(budgets) == 0 {
			return -1
		}
		n := budgets[0]
		budgets = budgets[1:]
		return n
	})
	hide := veil(t, c.net.Hub, x.addr)
	from := c.behind(0, hide, overTCP)
	to := c.add(1, c.etcd.Endpoint(), overTCP)
	to.start()
	p := from.pack(1, append(several(30, 10_000), 3*mib, 0)...)
	for _, tt := range []struct {
		cuts []int64
		o    client.MigrateOptions
		ok   bool
	}{
		{nil, client.MigrateOptions{}, true},
		{nil, client.MigrateOptions{Compress: "on"}, true},
		{[]int64{100_000, 2 * mib, 50}, client.MigrateOptions{}, true},
		{[]int64{100_000, 500_000}, client.MigrateOptions{Compress: "on"}, true},
		{[]int64{1e5, 1e5, 1e5, 1e5, 1e5, 1e5}, client.MigrateOptions{}, false},
	} {
		before := to.mustBooks()
		mu.Lock()
		budgets = tt.cuts
		mu.Unlock()
		r := to.migrate(ctx, p.id, tt.o)
		mu.Lock()
		budgets = nil
		mu.Unlock()
		if !tt.ok {
			to.left(before, r, client.Unreachable, "get_remote_buffers")
			continue
		}
		to.got(p, r)
		if r.Transfer.Way != "classic" || r.Transfer.Compressed != (tt.o.Compress == "on") {
			t.Errorf("%+v", r.Transfer)
		}
		to.drop(r.ID)
		must(t, to.unchanged(before))
	}
	// Deleted meanwhile, which a classic peer tells by leaving it out.
	before := to.mustBooks()
	must(t, from.do(func(ctx context.Context, c *client.Client) error {
		m, err := c.GetObject(ctx, p.id)
		if err == nil {
			err = c.DropBlob(ctx, m.Member("part_3").ID)
		}
		return err
	}))
	to.left(before, to.migrate(ctx, p.id, client.MigrateOptions{}), client.NotExist, "deleted")
	must(t, from.balanced())
}

// veil is a proxy that hides v6d's extensions from those who connect.
func veil(t testing.TB, on *testserver.Host, target string) (addr string) {
	t.Helper()
	return testserver.StartProxy(t, testserver.ProxyOptions{
		Listen: on.Addr + ":0", Target: target,
		ListenFunc: func(network, addr string) (net.Listener, error) {
			l, err := on.Listen(network, addr)
			return veiled{l}, err
		},
		DialFunc: on.DialContext,
	}).Addr
}

type veiled struct{ net.Listener }

func (v veiled) Accept() (net.Conn, error) {
	c, err := v.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &veiledConn{Conn: c}, nil
}

// veiledConn changes the key of the extensions in the first frame that is read.
type veiledConn struct {
	net.Conn
	read bool
}

func (c *veiledConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

func (c *veiledConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.read && n > 0 { // a register request comes in one piece
		c.read = true
		copy(p, strings.Replace(string(p[:n]), `"extensions"`, `"extensionz"`, 1))
	}
	return n, err
}

// TestSlowLink moves 32 MiB over a link that is far away and loses packets.
func TestSlowLink(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := hosts(t, 2, noOptions)
	size := 32 * mib
	args := []string{overTCP, "--size", "128MiB"}
	h := c.net.Hosts[0]
	err := h.Command(ctx, "tc", "qdisc", "add", "dev", "eth0", "root", "netem", "loss", "5%", "delay", "50ms").Run()
	var from *node
	if err == nil {
		from = c.behind(0, h.Addr+":9600", args...)
	} else {
		t.Logf("the kernel has no netem (%v): a proxy delays and cuts instead", err)
		r := rand.New(rand.NewPCG(1, 2))
		x := cut(t, c.net.Hub, h.Addr+":9600", func() int64 { return 2*mib + r.Int64N(12*mib) })
		p := testserver.StartProxy(t, testserver.ProxyOptions{
			Listen: c.net.Hub.Addr + ":0", Target: x.addr, ListenFunc: c.net.Hub.Listen, DialFunc: c.net.Hub.DialContext,
		})
		p.SetDelay(50 * time.Millisecond)
		from = c.behind(0, p.Addr, args...)
	}
	to := c.add(1, c.etcd.Endpoint(), args...)
	to.start()
	p := from.pack(1, size)
	before := to.mustBooks()
	for _, o := range []client.MigrateOptions{{}, {Parallel: 8, Verify: true}} {
		r := to.brings(p, o)
		t.Logf("%d MiB over a bad link, %+v: %v, resumed %d times", size/mib, o, r.took, r.Transfer.Resumed)
		to.drop(r.ID)
		must(t, to.unchanged(before))
	}
	must(t, from.balanced())
}

// TestLinkCut unplugs the owner for a moment in the middle of a transfer, and stops
// its process: it just goes on.
func TestLinkCut(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	from, to := c.nodes[0], c.nodes[1]
	p := from.pack(1, 16*mib)
	for _, off := range []func() func(){
		func() func() { from.host.Cut(); return from.host.Heal },
		func() func() {
			must(t, from.cmd.Process.Signal(syscall.SIGSTOP))
			return func() { must(t, from.cmd.Process.Signal(syscall.SIGCONT)) }
		},
	} {
		r := to.migrating(ctx, p.id, client.MigrateOptions{Limit: 8 * mib})
		to.moving(p.id, 4*mib)
		on := off()
		time.Sleep(2 * time.Second)
		on()
		got := <-r
		to.got(p, got)
		if got.took < 3*time.Second {
			t.Errorf("took %v, two seconds of which there was no network", got.took)
		}
		to.drop(got.ID)
	}
	must(t, from.balanced(), to.balanced())
}

// TestPeerSilent stops the owner's process, or unplugs it, for good: an error comes
// when patience is at its end.
func TestPeerSilent(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 3, overTCP)
	to := c.nodes[2]
	before := to.mustBooks()
	var wg sync.WaitGroup
	for i, from := range c.nodes[:2] {
		p := from.pack(uint64(10+i), 16*mib)
		r := to.migrating(ctx, p.id, client.MigrateOptions{Limit: 8 * mib})
		to.moving(p.id, 4*mib)
		if i == 0 {
			must(t, from.cmd.Process.Signal(syscall.SIGSTOP))
		} else {
			from.host.Cut()
		}
		began := time.Now()
		wg.Go(func() {
			got := <-r
			took := since(began)
			t.Logf("after %v of silence: %v", took, got.err)
			if !errors.Is(got.err, client.Unreachable) || !strings.Contains(got.err.Error(), fmt.Sprintf("instance %d", i)) ||
				took > 55*time.Second || took < 18*time.Second {
				t.Errorf("after %v of silence: %v", took, got.err)
			}
		})
	}
	wg.Wait()
	must(t, to.unchanged(before))
	must(t, c.nodes[0].cmd.Process.Signal(syscall.SIGCONT))
}

// TestSlowLimit moves an object so slowly that a piece takes longer than a peer may
// be silent.
func TestSlowLimit(t *testing.T) {
	heavy(t)
	slowly(t, time.Minute)
	t.Parallel()
	c := formWith(t, 2)
	near := c.add(0, c.etcd.Endpoint(), "--rpc-listen", "10.86.0.1:9601", "--rpc-advertise", "10.86.0.1:9601", overTCP)
	near.start()
	p := c.nodes[0].pack(1, 2*mib)
	r := near.brings(p, client.MigrateOptions{Limit: 20_000})
	if r.took < 45*time.Second {
		t.Errorf("%d bytes at 20 kB/s took %v", p.bytes(), r.took)
	}
	must(t, near.balanced(), c.nodes[0].balanced())
}
