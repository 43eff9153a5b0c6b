//go:build linux

package faults

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/server"
)

// staller connects and stops being useful; it returns when it is stuck.
type staller struct {
	name  string
	count int
	stall func(t testing.TB, d *daemon, i int, blob client.ID) (*peer, error)
}

// endless sends requests and reads nothing until the daemon takes no more.
func endless[Q, R any](address string, d *protocol.Def[Q, R], q Q) (*peer, error) {
	p, err := dialPeer(address, false)
	if err != nil {
		return nil, err
	}
	for range 1_000_000 {
		p.limit(100 * time.Millisecond)
		switch err := say(p, d, q); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return p, nil
		case err != nil:
			p.drop()
			return nil, err
		}
	}
	p.drop()
	return nil, errors.New("the daemon reads on although nobody reads its replies")
}

var stallers = []staller{
	{"a download that nobody reads", 4, func(_ testing.TB, d *daemon, _ int, blob client.ID) (*peer, error) {
		p, err := dialPeer(d.rpc, false)
		if err == nil {
			err = say(p, protocol.GetRemote, protocol.GetRemoteRequest{IDs: protocol.IDs{blob}})
		}
		return p, err
	}},
	{"several downloads at once", 4, func(_ testing.TB, d *daemon, i int, blob client.ID) (*peer, error) {
		return endless(d.rpc, protocol.GetRemote, protocol.GetRemoteRequest{IDs: protocol.IDs{blob}, Compress: i%2 == 1})
	}},
	{"lists that nobody reads", 4, func(_ testing.TB, d *daemon, i int, _ client.ID) (*peer, error) {
		return endless([]string{d.socket, d.rpc}[i%2], protocol.ListData, protocol.ListRequest{Pattern: "*", Limit: 1000})
	}},
	{"descriptors that nobody takes", 2, func(_ testing.TB, d *daemon, _ int, _ client.ID) (*peer, error) {
		return endless(d.socket, protocol.CreateBuffer, protocol.SizeRequest{Size: 64})
	}},
	{"references that nobody reads of", 2, func(_ testing.TB, d *daemon, _ int, blob client.ID) (*peer, error) {
		return endless(d.socket, protocol.GetBuffers, protocol.GetBuffersRequest{IDs: protocol.IDs{blob}})
	}},
	{"an upload that stops", 4, func(_ testing.TB, d *daemon, i int, _ client.ID) (*peer, error) {
		p, err := dialPeer(d.rpc, false)
		if err == nil {
			err = p.upload(pattern(1, 4*mib), i*mib)
		}
		return p, err
	}},
	{"half a request", 4, func(_ testing.TB, d *daemon, i int, _ client.ID) (*peer, error) {
		p, err := dialPeer([]string{d.socket, d.rpc}[i%2], false)
		if err == nil {
			// The second kind claims 200 MiB.
			_, err = p.pc.Write([][]byte{{200, 0, 0, 0, 0, 0, 0, 0, '{', '"'}, {0, 0, 0, 200 >> 4, 0, 0, 0, 0, '{'}}[i/2])
		}
		return p, err
	}},
}

// testStalled: clients that stop reading or sending hold up nobody but
// themselves, and cost no memory to speak of.
func testStalled(t *testing.T) {
	for _, where := range []string{"kept", "deleted"} {
		t.Run(where, func(t *testing.T) { stalled(t, where == "deleted") })
	}
}

func stalled(t *testing.T, deleted bool) {
	d := serve(t, "--size", "128MiB")
	c := d.dial(t)
	var objects []client.ID
	for i := range 300 {
		id, err := c.CreateObject(ctx, client.NewMeta("faults::Stalled").Set("text", fmt.Sprintf("%0800d", i)))
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, id)
	}
	others := newOthers(t, d)
	others.work(t) // warms up
	before := d.books(t, 3)
	quick := others.work(t)
	large := make([]byte, 24*mib) // that does not get smaller when it is compressed
	for i, r := 0, rand.NewPCG(seed, 3); i < len(large); i += 8 {
		binary.LittleEndian.PutUint64(large[i:], r.Uint64())
	}
	blob, err := c.PutBlob(ctx, large)
	if err != nil {
		t.Fatal(err)
	}
	heap := d.heap(t)

	var stuck []*peer
	for _, s := range stallers {
		for i := range s.count {
			p, err := s.stall(t, d, i, blob)
			if err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			t.Cleanup(p.drop)
			stuck = append(stuck, p)
		}
	}
	d.await(t, "the clients to be stuck", patience, func(st server.Status) bool {
		busy := 0
		for _, c := range st.Connections {
			if !c.Idle {
				busy++
			}
		}
		return busy >= 4+4+4+2+2+4+1 && len(st.Connections) == before.connections+len(stuck)
	})
	if deleted { // readers that are stuck hold it
		if err := c.DropBlob(ctx, blob); err != nil {
			t.Fatal(err)
		}
		if st := d.status(t); st.Ledger.Zombies != 1 {
			t.Errorf("%d zombies, want the blob that is being sent", st.Ledger.Zombies)
		}
	}
	if d.differs(before) == nil {
		t.Fatal("the ledger balances while clients are stuck: this test sees nothing")
	}
	busy := d.cpu(t)
	time.Sleep(300 * time.Millisecond)
	if busy = d.cpu(t) - busy; busy > 90*time.Millisecond {
		t.Errorf("with all clients stuck, the daemon takes %v in 300 ms", busy)
	}
	slow := others.work(t)
	if slow.median > 5*quick.median+2*time.Millisecond || slow.most > time.Second {
		t.Errorf("beside clients that are stuck, others take %v, at most %v; before %v, %v", slow.median, slow.most, quick.median, quick.most)
	}
	grown := d.heap(t) - heap
	if grown > 64*mib {
		t.Errorf("%d clients that are stuck cost %d MiB", len(stuck), grown/mib)
	}
	for _, p := range stuck {
		p.drop()
	}
	if !deleted {
		if err := c.DropBlob(ctx, blob); err != nil {
			t.Fatal(err)
		}
	}
	d.balanced(t, before)
	if err := c.Delete(ctx, objects, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	d.stop()
	t.Logf("%d clients stuck in %d ways; others take %d µs (%d µs without), %d ms at most; %d KiB of heap; ledger balanced", len(stuck), len(stallers),
		slow.median.Microseconds(), quick.median.Microseconds(), slow.most.Milliseconds(), grown>>10)
}

// others are well-behaved clients whose speed is measured.
type others struct{ local, far *client.Client }

type speed struct{ median, most time.Duration }

func newOthers(t testing.TB, d *daemon) *others {
	return &others{d.dial(t), d.dialWith(t, client.Options{Endpoint: d.rpc})}
}

// work puts, reads and deletes blobs over both transports.
func (o *others) work(t testing.TB) speed {
	t.Helper()
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var took []time.Duration
	for i := range 100 {
		for _, pair := range [][2]*client.Client{{o.local, o.far}, {o.far, o.local}} {
			began := time.Now()
			want := pattern(uint64(i), 20_000)
			id, err := pair[0].PutBlob(limited, want)
			if err != nil {
				t.Fatalf("put beside clients that are stuck: %v", err)
			}
			b, err := pair[1].GetBlob(limited, id)
			if err != nil {
				t.Fatalf("get beside clients that are stuck: %v", err)
			}
			sameBytes(t, "a blob", b.Bytes(), want)
			if err := errors.Join(b.Release(limited), pair[0].DropBlob(limited, id)); err != nil {
				t.Fatalf("delete beside clients that are stuck: %v", err)
			}
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	return speed{took[len(took)/2], took[len(took)-1]}
}
