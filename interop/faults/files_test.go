//go:build linux

package faults

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
)

// testFiles takes the daemon's descriptors away.
func testFiles(t *testing.T) {
	t.Run("limit", filesLimit)
	t.Run("limit-in-cgroup", filesLimitInCgroup)
}

// guest is a client of a daemon that may be too busy to answer.
type guest struct {
	p      *peer
	local  bool
	served atomic.Bool // it was registered
	ended  chan struct{}
}

// crowdIn connects so many clients, every third over TCP. Each asks to be
// registered; whether it is answered shows in served.
func crowdIn(t testing.TB, d *daemon, n int) (all []*guest) {
	t.Helper()
	for i := range n {
		address := d.socket
		if i%3 == 2 {
			address = d.rpc
		}
		p, err := dialMute(address)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		t.Cleanup(p.drop)
		g := &guest{p: p, local: address == d.socket, ended: make(chan struct{})}
		all = append(all, g)
		go func() {
			defer close(g.ended)
			q := protocol.RegisterRequest{Version: client.Version, StoreType: protocol.StoreDefault, Extensions: []string{"v6d"}}
			g.served.Store(ask(p, protocol.Register, q, &protocol.RegisterReply{}) == nil)
		}()
	}
	return all
}

func served(all []*guest) (yes []*guest) {
	for _, g := range all {
		if g.served.Load() {
			yes = append(yes, g)
		}
	}
	return yes
}

// settle waits until nobody has been served for a while.
func settle(all []*guest) []*guest {
	for n, since := -1, time.Now(); time.Since(since) < 250*time.Millisecond; time.Sleep(5 * time.Millisecond) {
		if now := len(served(all)); now != n {
			n, since = now, time.Now()
		}
	}
	return served(all)
}

// filesLimit: more connections than descriptors. Those that got in are served,
// the others when there is room, and nothing spins meanwhile.
func filesLimit(t *testing.T) {
	const clients = 120
	d := newDaemon(t, "--size", "64MiB")
	d.prefix = "ulimit -n 40"
	d.start()
	before := d.books(t, 0)
	all := crowdIn(t, d, clients)
	in := settle(all)
	if len(in) < 15 || len(in) > 39 {
		t.Fatalf("%d of %d clients are served with 40 descriptors", len(in), clients)
	}
	most := len(in)
	busy := d.cpu(t)
	time.Sleep(time.Second)
	if busy = d.cpu(t) - busy; busy > 200*time.Millisecond {
		t.Errorf("while it cannot accept, the daemon takes %v of a second", busy)
	}
	for _, g := range in {
		g.p.limit(patience)
		useGuest(t, g)
	}
	// What needs descriptors is refused, and leaves nothing.
	for _, g := range in {
		if !g.local {
			continue
		}
		var session protocol.NewSessionReply
		if err := ask(g.p, protocol.NewSession, protocol.NewSessionRequest{StoreType: protocol.StoreDefault}, &session); err == nil {
			t.Errorf("a session without descriptors: %s", session.SocketPath)
		} else if errors.Is(err, client.Unreachable) {
			t.Fatalf("asking for a session: %v", err)
		}
		if err := ask(g.p, protocol.MakeArena, protocol.SizeRequest{Size: mib}, &protocol.MakeArenaReply{}); err == nil {
			t.Error("an arena without descriptors")
		}
		if err := ask(g.p, protocol.CreateDiskBuffer, protocol.CreateDiskBufferRequest{Size: mib}, &protocol.CreateBufferReply{}); err == nil {
			t.Error("a disk buffer without descriptors")
		}
		useGuest(t, g)
	}
	// As some go, others come in.
	rounds := 0
	for gone := map[*guest]bool{}; len(gone) < clients-most; rounds++ {
		before := served(all)
		for i, n := 0, 0; i < len(before) && n < 10; i++ {
			if g := before[i]; !gone[g] {
				g.p.drop()
				gone[g] = true
				n++
			}
		}
		want := min(len(before)+10, clients)
		if err := within(settled, func() error {
			if n := len(served(all)); n < want {
				return errors.New("waiting clients are not served when others go")
			}
			return nil
		}); err != nil {
			t.Fatalf("round %d: %v: %d were served, %d are, %d are gone", rounds, err, len(before), len(served(all)), len(gone))
		}
		for _, g := range served(all) {
			if !gone[g] {
				g.p.limit(patience)
				useGuest(t, g)
			}
		}
	}
	for _, g := range all {
		g.p.drop()
		<-g.ended
	}
	d.balanced(t, before)
	if n := strings.Count(d.log.String(), "cannot accept"); n == 0 || n > 3*rounds+10 {
		t.Errorf("the log says %d times that connections cannot be accepted", n)
	}
	d.stop()
	t.Logf("%d clients with 40 descriptors, %d at a time, %d ms of processor time in a second; ledger balanced", clients, most, busy.Milliseconds())
}

// useGuest has a client put, read and delete something.
func useGuest(t testing.TB, g *guest) {
	t.Helper()
	want := pattern(seed, 3000)
	if !g.local {
		id, err := g.p.uploadAll(want)
		if err != nil {
			t.Fatalf("upload of a client that is in: %v", err)
		}
		at, found, err := g.p.download(id)
		if err != nil || !found {
			t.Fatalf("download of a client that is in: found %v, %v", found, err)
		}
		b, err := g.p.payload(at.DataSize)
		if err != nil {
			t.Fatal(err)
		}
		sameBytes(t, "a download", b, want)
		g.p.delete(t, id)
		return
	}
	id, err := g.p.put(want)
	if err != nil {
		t.Fatalf("put of a client that is in: %v", err)
	}
	at, found, err := g.p.get(id)
	if err != nil || !found {
		t.Fatalf("get of a client that is in: found %v, %v", found, err)
	}
	b, err := g.p.read(at)
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "a blob", b, want)
	g.p.delete(t, id)
}

// filesLimitInCgroup: without descriptors the daemon cannot look up how much
// memory is left; it must not take more than there is.
func filesLimitInCgroup(t *testing.T) {
	dir, events := memoryCgroup(t, 128*mib)
	d := serveIn(t, dir, " && ulimit -n 40", "--size", "1GiB", "--huge", "never")
	before := d.books(t, 0)
	p := connect(t, d.socket)
	all := crowdIn(t, d, 60)
	in := len(settle(all))
	made, message := fillUp(t, p, 4*mib)
	p.delete(t, made...)
	for _, g := range all {
		g.p.drop()
		<-g.ended
	}
	p.drop()
	d.balanced(t, before)
	d.stop()
	nobodyKilled(t, events)
	t.Logf("%d clients with 40 descriptors in a cgroup of 128 MiB, %d blobs of 4 MiB until %.40q; ledger balanced", in, len(made), message)
}
