//go:build linux

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/typed"
)

// spread makes a global tensor whose chunks lie on all nodes, several on each.
func (c *cluster) spread(seed uint64, each, size int) (id client.ID, chunks [][]byte) {
	c.t.Helper()
	g := &typed.Global{Typename: "vineyard::GlobalTensor", Shape: []int64{int64(len(c.nodes) * each * size)}}
	for i, n := range c.nodes {
		must(c.t, n.do(func(ctx context.Context, cl *client.Client) error {
			for k := range each {
				b := pattern(seed<<20|uint64(i*each+k), size)
				chunks = append(chunks, b)
				x, err := typed.NewTensor(b)
				if err != nil {
					return err
				}
				x.PartitionIndex = []int64{int64(i*each + k)}
				part, err := typed.Put(ctx, cl, x)
				if err == nil {
					err = cl.Persist(ctx, part)
				}
				if err != nil {
					return err
				}
				g.Parts = append(g.Parts, part)
			}
			return nil
		}))
	}
	must(c.t, c.nodes[0].do(func(ctx context.Context, cl *client.Client) (err error) {
		var parts []client.ID
		for _, p := range g.Parts {
			parts = append(parts, p.(client.ID))
		}
		if _, err = cl.GetObjects(ctx, parts, client.GetOptions{Sync: true}); err == nil {
			if id, err = typed.Put(ctx, cl, g); err == nil {
				err = cl.Persist(ctx, id)
			}
		}
		return err
	}))
	return id, chunks
}

// same compares the parts of a global tensor.
func same(value any, chunks [][]byte) error {
	g, ok := value.(*typed.Global)
	if !ok || len(g.Parts) != len(chunks) {
		return fmt.Errorf("a %T of other parts", value)
	}
	for i, p := range g.Parts {
		x, ok := p.(*typed.Tensor)
		if !ok || !bytes.Equal(x.Data, chunks[i]) {
			return fmt.Errorf("chunk %d is another %T", i, p)
		}
	}
	return nil
}

// received are the bytes that came to a node so far.
func (n *node) received() uint64 { n.t.Helper(); return n.moved().Moved.Received }

// TestFar reads a global object whose chunks lie on three nodes: each byte that is
// not here comes once, for whoever asks, and is no part of what is here.
func TestFar(t *testing.T) {
	heavy(t)
	t.Parallel()
	for _, args := range [][]string{{overTCP}, nil} {
		c := formWith(t, 3, args...)
		reader := c.nodes[0]
		id, chunks := c.spread(1, 3, mib+1000)
		away := uint64(6 * (mib + 1000))
		before := reader.mustBooks()
		var others []books
		for _, n := range c.nodes[1:] {
			others = append(others, n.mustBooks())
		}

		// Ten at once.
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := reader.do(func(ctx context.Context, cl *client.Client) error {
					o, err := typed.Get(ctx, cl, id, client.Fetch)
					if err != nil {
						return err
					}
					return errors.Join(same(o.Value, chunks), o.Release(ctx))
				}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := reader.received(); n != away {
			t.Errorf("ten readers of %d bytes made %d come", away, n)
		}
		// Once more, and member by member: nothing comes.
		cl := reader.dial()
		o, err := typed.Get(ctx, cl, id, client.Fetch)
		must(t, err)
		must(t, same(o.Value, chunks), o.Release(ctx))
		m, err := cl.GetObject(ctx, id)
		must(t, err)
		i := 0
		for _, member := range m.Members {
			o, err := typed.Load(ctx, cl, nil, member, client.Fetch)
			must(t, err)
			if !bytes.Equal(o.Value.(*typed.Tensor).Data, chunks[i]) {
				t.Errorf("member %d has other bytes", i)
			}
			must(t, o.Release(ctx))
			i++
		}
		if n := reader.received(); n != away || i != len(chunks) {
			t.Errorf("of %d members of %d bytes that were here %d bytes came", i, away, n-away)
		}
		st := reader.moved()
		if l := st.Ledger; l.Cached != int64(away) || l.CachedIdle != int64(away) || l.Usage != before.usage+int64(away) {
			t.Errorf("the ledger of %d cached bytes: %+v", away, l)
		}
		if st.Moved.Local != 0 == (len(args) > 0) {
			t.Errorf("%v: %+v", args, st.Moved)
		}
		// Without Fetch it is absent.
		o, err = typed.Get(ctx, cl, id)
		must(t, err)
		if _, ok := o.Value.(*typed.Global).Parts[8].(*typed.Absent); !ok {
			t.Errorf("a chunk elsewhere is %T", o.Value.(*typed.Global).Parts[8])
		}
		must(t, o.Release(ctx))
		// Over TCP, from another host: copies, and nothing is cached.
		far, err := reader.dialFrom(ctx, "10.86.0.2:9600")
		must(t, err)
		if _, err := far.FetchBlobs(ctx, 0, []client.ID{1 << 63}); err == nil {
			t.Error("a remote client uses the cache")
		}
		must(t, far.Close())

		// Nobody finds what is cached.
		reader.hidden(before)
		for i, n := range c.nodes[1:] {
			must(t, n.unchanged(others[i]))
		}

		// A crash, or a stop that keeps the pool, and it is gone.
		reader.args = append(reader.args, "--keep")
		for _, end := range []func(){reader.kill, reader.stop} {
			end()
			reader.start()
			st = reader.moved()
			if st.Ledger.Cached != 0 || st.Ledger.Usage != before.usage || len(st.Start.Lost) > 0 {
				t.Errorf("after a restart: %+v, %+v", st.Ledger, st.Start)
			}
			must(t, reader.do(func(ctx context.Context, cl *client.Client) error {
				o, err := typed.Get(ctx, cl, id, client.Fetch)
				if err != nil {
					return err
				}
				return errors.Join(same(o.Value, chunks), o.Release(ctx))
			}))
			if n := reader.received(); n != away {
				t.Errorf("after a restart %d bytes came, %d were away", n, away)
			}
		}
		must(t, c.nodes[0].balanced(), c.nodes[1].balanced(), c.nodes[2].balanced())
	}
}

// hidden verifies that no list of 0.24 has what is cached.
func (n *node) hidden(before books) {
	n.t.Helper()
	must(n.t, n.do(func(ctx context.Context, cl *client.Client) error {
		list, err := cl.ListObjects(ctx, client.BlobType, false, 10_000)
		if err != nil {
			return err
		}
		cached := 0
		for row, err := range cl.BlobRows(ctx) {
			if err != nil {
				return err
			}
			if row.Where != "cache" {
				continue
			}
			cached++
			if slices.ContainsFunc(list, func(m *client.Meta) bool { return m.ID == row.ID }) {
				n.t.Errorf("cached blob %s is in a list of blobs", row.ID)
			}
		}
		if len(list) != before.sealed || cached == 0 {
			n.t.Errorf("a list has %d blobs, %d are here, and %d in the cache", len(list), before.sealed, cached)
		}
		return nil
	}))
}

// scattered are blobs of one size on a node, with the bytes of their numbers.
func (n *node) scattered(seed uint64, count, size int) (ids []client.ID) {
	n.t.Helper()
	must(n.t, n.do(func(ctx context.Context, c *client.Client) error {
		for i := range count {
			id, err := c.PutBlob(ctx, pattern(seed+uint64(i), size))
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return nil
	}))
	return ids
}

// TestFarEviction fetches more than fits: what nobody reads goes, for fetches and
// for puts, and what somebody reads stays as it is.
func TestFarEviction(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 1, "--size", "128MiB")
	owner := c.nodes[0]
	reader := c.add(0, c.etcd.Endpoint(), "--size", "16MiB", "--rpc-listen", "10.86.0.1:9601", "--rpc-advertise", "10.86.0.1:9601", overTCP)
	reader.start()
	blobs := owner.scattered(100, 40, mib)
	cl := reader.dial()
	fetch := func(i int) *client.Blob {
		t.Helper()
		b, err := cl.FetchBlobs(ctx, 0, blobs[i:i+1])
		must(t, err)
		if !bytes.Equal(b[0].Bytes(), pattern(100+uint64(i), mib)) {
			t.Fatalf("blob %d has other bytes", i)
		}
		return b[0]
	}
	held := fetch(0)
	for i := range 40 {
		must(t, okIf(i == 0, fetch(i)))
	}
	l := reader.moved().Ledger
	if l.Evicted == 0 || l.EvictedBytes != l.Evicted*mib || l.Cached > 16*mib || l.Usage > 16*mib {
		t.Errorf("40 MiB were fetched into 16: %+v", l)
	}
	// The one used last is still here, the one used first is not.
	was := reader.received()
	must(t, fetch(39).Release(ctx))
	if n := reader.received(); n != was {
		t.Errorf("the blob used last came again")
	}
	must(t, fetch(1).Release(ctx))
	if n := reader.received(); n != was+mib {
		t.Errorf("the blob used first: %d bytes came", n-was)
	}
	// Puts take the room of what nobody reads, a migration too.
	evicted := reader.moved().Ledger.EvictedBytes
	var puts []client.ID
	for i := range 10 {
		id, err := cl.PutBlob(ctx, pattern(uint64(i), mib))
		must(t, err)
		puts = append(puts, id)
	}
	p := owner.pack(7, 4*mib)
	r := reader.brings(p, client.MigrateOptions{})
	l = reader.moved().Ledger
	if l.EvictedBytes < evicted+9*mib || l.Cached > 2*mib {
		t.Errorf("14 MiB were put beside the cache: %d bytes went before, %+v", evicted, l)
	}
	// What is held has stayed, and takes its room.
	if !bytes.Equal(held.Bytes(), pattern(100, mib)) {
		t.Error("a blob that is held was overwritten")
	}
	if _, err := cl.CreateBlob(ctx, 2*mib); !errors.Is(err, client.NoMemory) {
		t.Errorf("14 MiB are put, one is held: 2 more are %v", err)
	}
	if _, err := cl.FetchBlobs(ctx, 0, blobs[10:14]); !errors.Is(err, client.NoMemory) {
		t.Errorf("14 MiB are put, one is held: 4 more are fetched with %v", err)
	}
	if !bytes.Equal(held.Bytes(), pattern(100, mib)) {
		t.Error("a blob that is held was overwritten")
	}
	must(t, held.Release(ctx))
	for _, id := range puts {
		must(t, cl.DropBlob(ctx, id))
	}
	reader.drop(r.ID)
	if _, err := cl.FetchBlobs(ctx, 0, blobs[:17]); !errors.Is(err, client.NoMemory) {
		t.Errorf("17 MiB at once in 16: %v", err)
	}
	list, err := cl.FetchBlobs(ctx, 0, blobs[:14])
	must(t, err)
	for i, b := range list {
		if !bytes.Equal(b.Bytes(), pattern(100+uint64(i), mib)) {
			t.Errorf("blob %d of many has other bytes", i)
		}
		must(t, b.Release(ctx))
	}
	must(t, reader.balanced(), owner.balanced())
	if l := reader.moved().Ledger; l.Cached != l.CachedIdle || l.Usage != l.Cached {
		t.Errorf("nobody reads anything: %+v", l)
	}
}

// okIf releases a blob unless it is to be kept.
func okIf(keep bool, b *client.Blob) error {
	if keep {
		return nil
	}
	return b.Release(ctx)
}

// TestFarOdd fetches what is odd: blobs of no bytes, twice the same, own ones,
// unknown ones, those of nobody.
func TestFarOdd(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	owner, reader := c.nodes[0], c.nodes[1]
	var nothing, unsealed client.ID
	co := owner.dial()
	build, err := co.CreateBlob(ctx, 100)
	must(t, err, build.Shrink(ctx, 0))
	nothing, err = build.Seal(ctx)
	must(t, err)
	build, err = co.CreateBlob(ctx, 100)
	must(t, err)
	unsealed = build.ID()
	blob := owner.scattered(1, 1, 5000)[0]
	disk := owner.diskBlob(pattern(2, 6000))
	own := reader.scattered(3, 1, 700)[0]
	before := reader.mustBooks()
	cl := reader.dial()
	size := func(b []*client.Blob) (list []int) {
		for _, x := range b {
			list = append(list, len(x.Bytes()))
		}
		return list
	}
	for range 2 {
		for _, tt := range []struct {
			from client.InstanceID
			ids  []client.ID
			want []int
			says string
		}{
			{0, []client.ID{nothing}, []int{0}, ""},
			{0, []client.ID{client.EmptyBlob}, []int{0}, ""},
			{0, []client.ID{blob, blob, nothing, client.EmptyBlob, disk}, []int{5000, 5000, 0, 0, 6000}, ""},
			{0, nil, nil, ""},
			{1, []client.ID{own}, []int{700}, ""},
			{0, []client.ID{blob, 1<<63 | 77}, nil, "o800000000000004d"},
			{0, []client.ID{unsealed}, nil, "no blob"},
			{0, []client.ID{1<<64 - 1}, nil, "no blob"},
			{0, []client.ID{5}, nil, "no blob"},
			{7, []client.ID{blob}, nil, "instance 7 is not in the cluster"},
		} {
			asking, cancel := context.WithTimeout(ctx, 10*time.Second)
			b, err := cl.FetchBlobs(asking, tt.from, tt.ids)
			cancel()
			switch {
			case tt.want != nil || tt.ids == nil:
				if err != nil || !slices.Equal(size(b), tt.want) {
					t.Errorf("%v of %d: %v, %v, want %v", tt.ids, tt.from, size(b), err, tt.want)
				}
				for _, x := range b {
					_ = x.Release(ctx) // the second of two is none
				}
			case err == nil || !strings.Contains(err.Error(), tt.says) || errors.Is(err, context.DeadlineExceeded):
				t.Errorf("%v of %d: %v, which says nothing of %q", tt.ids, tt.from, err, tt.says)
			default:
				t.Logf("%v of %d: %v", tt.ids, tt.from, err)
			}
		}
	}
	must(t, build.Abort(ctx))
	if now := reader.moved(); now.Ledger.Usage != before.usage+11_000 || now.Ledger.Cached != 11_000 || now.Moved.Received != 11_000 {
		t.Errorf("11,000 bytes are cached: %+v, %+v", now.Ledger, now.Moved)
	}
	must(t, reader.balanced(), owner.balanced())
}

// TestFarAskers ends the clients that fetch: the last one takes the transfer with
// it. Kills of the owner and its return are borne.
func TestFarAskers(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := hosts(t, 2, noOptions)
	owner := c.add(0, c.etcd.Endpoint(), overTCP)
	// Slow enough to be caught: there is no limit for fetches.
	must(t, c.net.Hosts[0].Command(ctx, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "64mbit", "burst", "100k", "latency", "50ms").Run())
	owner.start()
	reader := c.add(1, c.etcd.Endpoint(), overTCP)
	reader.start()
	blobs := owner.scattered(1, 4, 4*mib)
	before := reader.mustBooks()
	fetch := func(ctx context.Context) <-chan error {
		out := make(chan error, 1)
		go func() {
			out <- reader.doWithin(ctx, time.Minute, func(ctx context.Context, cl *client.Client) error {
				list, err := cl.FetchBlobs(ctx, 0, blobs)
				if err != nil {
					return err
				}
				for i, b := range list {
					if !bytes.Equal(b.Bytes(), pattern(1+uint64(i), 4*mib)) {
						return fmt.Errorf("blob %d has other bytes", i)
					}
				}
				return nil
			})
		}()
		return out
	}
	asking, cancel := context.WithCancel(ctx)
	r := fetch(asking)
	reader.moving(0, mib)
	cancel()
	if err := <-r; !errors.Is(err, context.Canceled) {
		t.Errorf("a fetch that was cancelled: %v", err)
	}
	must(t, within(time.Second, func() error {
		if st := reader.moved(); len(st.Transfers) > 0 {
			return fmt.Errorf("still under way: %+v", st.Transfers)
		}
		return nil
	}), reader.unchanged(before))
	// Two, and the first goes.
	asking, cancel = context.WithCancel(ctx)
	r = fetch(asking)
	reader.moving(0, mib)
	second := fetch(ctx)
	must(t, within(patience, func() error {
		if n := reader.moved().Sessions[0].Deferred; n != 2 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	}))
	cancel()
	<-r
	owner.kill()
	owner.start()
	must(t, <-second)
	if m := reader.moved().Moved; m.Transfers != 1 || m.Failed != 1 || m.Reconnect == 0 {
		t.Errorf("one fetch was cancelled, one went on: %+v", m)
	}
	must(t, reader.balanced(), owner.balanced())
	if l := reader.moved().Ledger; l.Cached != 16*mib || l.CachedIdle != l.Cached {
		t.Errorf("%+v", l)
	}
}

// TestFarCrowd lets many clients fetch more than fits, at once, and keep some: what
// a client holds never changes.
func TestFarCrowd(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 1)
	owner := c.nodes[0]
	const count, size = 60, 300_000
	blobs := owner.scattered(1, count, size)
	reader := c.add(0, c.etcd.Endpoint(), "--size", "8MiB", "--rpc-listen", "10.86.0.1:9601", "--rpc-advertise", "10.86.0.1:9601")
	reader.start()
	seed := envNumber("V6D_CHAOS_SEED", rand.Uint64N(1e9))
	t.Logf("V6D_CHAOS_SEED=%d repeats what was drawn", seed)
	var wants [count][]byte
	for i := range wants {
		wants[i] = pattern(1+uint64(i), size)
	}
	until := time.Now().Add(3 * time.Second)
	if slow {
		until = until.Add(20 * time.Second)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	fetched, refused := 0, 0
	for k := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(k)))
			err := reader.doWithin(ctx, time.Minute, func(ctx context.Context, cl *client.Client) error {
				held := map[int]*client.Blob{}
				for time.Now().Before(until) {
					for i, b := range held {
						if !bytes.Equal(b.Bytes(), wants[i]) {
							return fmt.Errorf("blob %d changed while it was held", i)
						}
					}
					for i, b := range held {
						if len(held) > 1 || r.IntN(2) == 0 {
							if err := b.Release(ctx); err != nil {
								return err
							}
							delete(held, i)
						}
					}
					var some []int
					for i := range held { // what is held already, and others
						some = append(some, i)
					}
					for len(some) < 1+r.IntN(4) {
						if i := r.IntN(count); !slices.Contains(some, i) {
							some = append(some, i)
						}
					}
					var ids []client.ID
					for _, i := range some {
						ids = append(ids, blobs[i])
					}
					list, err := cl.FetchBlobs(ctx, 0, ids)
					mu.Lock()
					if err == nil {
						fetched++
					} else {
						refused++
					}
					mu.Unlock()
					if err != nil {
						if !errors.Is(err, client.NoMemory) {
							return err
						}
						continue
					}
					for j, i := range some {
						if !bytes.Equal(list[j].Bytes(), wants[i]) {
							return fmt.Errorf("blob %d has other bytes", i)
						}
						if held[i] == nil {
							held[i] = list[j]
						}
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	l := reader.moved().Ledger
	t.Logf("%d fetches, %d refused, %d blobs went", fetched, refused, l.Evicted)
	if fetched == 0 || l.Evicted == 0 {
		t.Errorf("%+v", l)
	}
	must(t, reader.balanced(), owner.balanced())
	if l := reader.moved().Ledger; l.Cached != l.CachedIdle {
		t.Errorf("nobody reads anything: %+v", l)
	}
}

// TestFarContagion fetches blobs of which one is not there, or which do not fit, at
// the same time as good ones of them: who asks for these gets them.
func TestFarContagion(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP)
	owner, reader := c.nodes[0], c.nodes[1]
	blobs := owner.scattered(1, 200, 1000)
	big := owner.scattered(1000, 1, 40*mib)
	full := reader.scattered(1, 1, 30*mib)
	bad, good := reader.dial(), reader.dial()
	failed := 0
	for i := range blobs {
		with := append([]client.ID{1<<63 | 77}, blobs[i])
		if i%2 == 0 {
			with = []client.ID{big[0], blobs[i]}
		}
		done := make(chan error, 1)
		go func() {
			_, err := bad.FetchBlobs(ctx, 0, with)
			done <- err
		}()
		time.Sleep(time.Duration(i%20) * 50 * time.Microsecond)
		list, err := good.FetchBlobs(ctx, 0, blobs[i:i+1])
		if err != nil {
			failed++
			t.Logf("blob %d: %v", i, err)
		} else if !bytes.Equal(list[0].Bytes(), pattern(1+uint64(i), 1000)) {
			t.Errorf("blob %d has other bytes", i)
		}
		if err := <-done; err == nil {
			t.Errorf("blob %d came with what is not there", i)
		}
	}
	if failed > 0 {
		t.Errorf("%d of %d fetches failed because of what others asked for", failed, len(blobs))
	}
	must(t, reader.do(func(ctx context.Context, cl *client.Client) error { return cl.DropBlob(ctx, full[0]) }))
	must(t, bad.Close(), good.Close(), reader.balanced(), owner.balanced())
}

// TestFarMisuse does to cached blobs what clients may do to any: they may go, but
// nothing breaks, now or after a crash.
func TestFarMisuse(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP, "--size", "16MiB")
	owner, reader := c.nodes[0], c.nodes[1]
	blobs := owner.scattered(1, 6, 100_000)
	cl := reader.dial()
	list, err := cl.FetchBlobs(ctx, 0, blobs)
	must(t, err)
	copied := make([]client.ID, len(list))
	for i, b := range list {
		copied[i] = b.ID()
	}
	note := func(what string, err error) { t.Logf("%s: %v", what, err) }

	// Another session takes it.
	socket, err := cl.NewSession(ctx, false)
	must(t, err)
	child, err := client.Dial(ctx, client.Options{Socket: socket})
	must(t, err)
	defer child.Close()
	note("taken by a session", child.TakeBlobs(ctx, 0, copied[1:2]))
	// Sealed, deleted, put into a stream.
	hand := reader.speak()
	defer hand.Close()
	note("sealed", ask(hand, protocol.Seal, protocol.ObjectIDRequest{ObjectID: copied[2]}, &protocol.None{}))
	note("shrunk", ask(hand, protocol.ShrinkBuffer, protocol.ShrinkRequest{ID: copied[2], Size: 1}, &protocol.None{}))
	must(t, cl.DropBlob(ctx, copied[3]))
	stream, err := cl.CreateObject(ctx, client.NewMeta("vineyard::BytesStream"))
	must(t, err)
	must(t, ask(hand, protocol.CreateStream, protocol.ObjectIDRequest{ObjectID: stream}, &protocol.None{}),
		ask(hand, protocol.OpenStream, protocol.OpenStreamRequest{ObjectID: stream, Mode: 2}, &protocol.None{}))
	note("pushed", ask(hand, protocol.PushChunk, protocol.PushChunkRequest{ID: stream, Chunk: copied[4]}, &protocol.None{}))
	for i, b := range list {
		if !bytes.Equal(b.Bytes(), pattern(1+uint64(i), 100_000)) {
			t.Errorf("blob %d changed while it was held", i)
		}
		_ = b.Release(ctx) // one is deleted
	}
	hand.Close()
	// All that can go goes.
	fill := reader.scattered(50, 15, mib)
	after, err := cl.FetchBlobs(ctx, 0, blobs)
	note("fetched again", err)
	for i, b := range after {
		if !bytes.Equal(b.Bytes(), pattern(1+uint64(i), 100_000)) {
			t.Errorf("blob %d has other bytes", i)
		}
		must(t, b.Release(ctx))
	}
	must(t, reader.balanced())
	for _, id := range fill {
		must(t, cl.DropBlob(ctx, id))
	}
	cl.Close()
	child.Close()
	reader.kill()
	reader.start()
	st := reader.moved()
	if len(st.Start.Lost) > 0 || len(st.Start.Damage) > 0 {
		t.Errorf("after a crash: %+v", st.Start)
	}
	must(t, reader.balanced(), owner.balanced())
}

// TestFarMember makes a cached blob a member of an object: that is refused, or the
// object has it for good.
func TestFarMember(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := formWith(t, 2, overTCP, "--size", "16MiB")
	owner, reader := c.nodes[0], c.nodes[1]
	blobs := owner.scattered(1, 1, 2*mib)
	cl := reader.dial()
	list, err := cl.FetchBlobs(ctx, 0, blobs)
	must(t, err)
	copied := list[0].ID()
	id, err := cl.CreateObject(ctx, client.NewMeta("cluster::Thief").AddObject("stolen", copied))
	if err != nil {
		return
	}
	must(t, cl.Persist(ctx, id), list[0].Release(ctx))
	reader.scattered(50, 13, mib) // all that can go goes
	right := func() {
		t.Helper()
		must(t, reader.do(func(ctx context.Context, cl *client.Client) error {
			b, err := cl.GetBlob(ctx, copied)
			if err == nil && !bytes.Equal(b.Bytes(), pattern(1, 2*mib)) {
				err = errors.New("other bytes")
			}
			return err
		}))
	}
	right()
	reader.kill()
	reader.start()
	right()
}
