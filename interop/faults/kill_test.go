//go:build linux

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/server"
)

const (
	killRounds = 5
	killCrowd  = 5 // clients that die at once
)

// victims are one round of clients that are about to die.
type victims struct {
	t     *testing.T
	d     *daemon
	c     *client.Client // of the parent
	round int
	id    client.ID // a blob of the parent that they were told of
}

// point is a place in a client's work.
type point struct {
	name   string
	roles  []string                                   // taken in turn; the name if there is none
	before func(v *victims) (what func(i int) uint64) // makes what the clients need and tells each of it
	during func(v *victims)                           // when all of them are there
	held   func(v *victims, st *server.Status) bool   // whether the daemon sees them there
	stays  func(v *victims, st *server.Status) error  // what is right to be left of them; nil: nothing unsealed, nothing else
	after  func(v *victims)                           // cleans up what is right to be left
	asks   bool                                       // the last thing was a request: every other round does not wait for held
	known  string                                     // why the daemon does not do it right
}

// usageIs is what stays of those who die with sealed blobs.
func usageIs(n int64) func(*victims, *server.Status) error {
	return func(_ *victims, st *server.Status) error {
		if st.Ledger.Unsealed != 0 || st.Ledger.Usage != n {
			return fmt.Errorf("%d bytes are in use, %d unsealed; want %d sealed", st.Ledger.Usage, st.Ledger.Unsealed, n)
		}
		return nil
	}
}

func byNumber(i int) uint64 { return seed + uint64(i) }

func (v *victims) putShared(size int) func(int) uint64 {
	v.t.Helper()
	id, err := v.c.PutBlob(ctx, pattern(seed, size))
	if err != nil {
		v.t.Fatal(err)
	}
	v.id = id
	return func(int) uint64 { return uint64(id) }
}

func (v *victims) dropShared() {
	v.t.Helper()
	if err := v.c.DropBlob(ctx, v.id); err != nil {
		v.t.Fatal(err)
	}
}

func (v *victims) stream(i int) client.ID { return client.ID(5000 + v.round*100 + i) }

// makeStreams makes a stream for each client; with written ones the parent has
// queued a chunk and is writing the next.
func (v *victims) makeStreams(written bool) func(int) uint64 {
	v.t.Helper()
	for i := range killCrowd {
		err := v.c.CreateStream(ctx, v.stream(i))
		for range 2 {
			if written && err == nil {
				_, err = v.c.NextChunk(ctx, v.stream(i), blobSize)
			}
		}
		if err != nil {
			v.t.Fatal(err)
		}
	}
	return func(i int) uint64 { return uint64(v.stream(i)) }
}

// readBack gets what sealed blobs the dead left, each with its bytes, and
// deletes it. Nobody may refer to them any more.
func (v *victims) readBack() {
	v.t.Helper()
	want := map[string]bool{}
	for i := range killCrowd {
		want[string(pattern(byNumber(i), blobSize))] = true
	}
	for row, err := range v.c.BlobRows(ctx) {
		if err != nil {
			v.t.Fatal(err)
		}
		if row.Refs != 0 || !row.Sealed {
			v.t.Errorf("a blob of a dead client: %+v", row)
		}
		b, err := v.c.GetBlob(ctx, row.ID)
		if err != nil {
			v.t.Fatal(err)
		}
		if !want[string(b.Bytes())] {
			v.t.Errorf("blob %s of a dead client has other bytes", row.ID)
		}
		delete(want, string(b.Bytes()))
		if err := errors.Join(b.Release(ctx), v.c.DropBlob(ctx, row.ID)); err != nil {
			v.t.Fatal(err)
		}
	}
	if len(want) > 0 {
		v.t.Errorf("%d sealed blobs of dead clients are lost", len(want))
	}
}

func (v *victims) deleteObjects() {
	v.t.Helper()
	n := 0
	for id, err := range v.c.IDs(ctx, client.PageOptions{Type: "faults::*"}) {
		if err == nil {
			err = v.c.Delete(ctx, []client.ID{id}, client.DeleteOptions{})
		}
		if err != nil {
			v.t.Fatal(err)
		}
		n++
	}
	if n != killCrowd {
		v.t.Errorf("%d objects were asked for, %d are there", killCrowd, n)
	}
}

// endStreams reads on where the producers died: what they had queued is there,
// what they were writing is freed with the stream.
func (v *victims) endStreams() {
	v.t.Helper()
	for i := range killCrowd {
		id := v.stream(i)
		if i%2 == 0 { // read what there is to its end
			chunk, err := v.c.PullChunk(ctx, id)
			if err != nil {
				v.t.Fatalf("the chunk that a dead producer had queued: %v", err)
			}
			b, err := v.c.GetBlob(ctx, chunk)
			if err != nil || len(b.Bytes()) != blobSize {
				v.t.Fatalf("the chunk that a dead producer had queued: %v", err)
			}
			if err := errors.Join(b.Release(ctx), v.c.StopStream(ctx, id, true)); err != nil {
				v.t.Fatal(err)
			}
			if _, err := v.c.PullChunk(ctx, id); err != nil {
				v.t.Fatalf("the chunk that a producer was writing when it died: %v", err)
			}
			if _, err := v.c.PullChunk(ctx, id); !errors.Is(err, client.StreamFailed) {
				v.t.Errorf("the end of a stream that was stopped as failed: %v", err)
			}
		}
		if err := v.c.DropStream(ctx, id); err != nil {
			v.t.Fatal(err)
		}
	}
}

var points = []point{
	{
		name: "put/created",
		held: func(_ *victims, st *server.Status) bool { return st.Ledger.Unsealed == killCrowd*blobSize },
	},
	{
		name: "put/writing",
		held: func(_ *victims, st *server.Status) bool { return st.Ledger.Unsealed == killCrowd*blobSize },
	},
	{
		name:  "put/sealed",
		held:  func(_ *victims, st *server.Status) bool { return st.Ledger.Usage == killCrowd*blobSize },
		stays: usageIs(killCrowd * blobSize),
		after: (*victims).readBack,
	},
	{
		name:  "put/created-data",
		asks:  true,
		held:  func(_ *victims, st *server.Status) bool { return st.Objects == killCrowd },
		stays: usageIs(killCrowd * blobSize),
		after: (*victims).deleteObjects,
	},
	{
		name:   "get/holding",
		roles:  []string{"get/holding", "get/holding-classic"},
		before: func(v *victims) func(int) uint64 { return v.putShared(blobSize) },
		during: (*victims).dropShared, // a zombie, as long as they live
		held:   func(_ *victims, st *server.Status) bool { return st.Ledger.Zombies == 1 },
	},
	{
		name:   "get/asked",
		asks:   true,
		before: func(v *victims) func(int) uint64 { return v.putShared(blobSize) },
		held: func(v *victims, _ *server.Status) bool {
			for row, err := range v.c.BlobRows(ctx) {
				if err == nil && row.ID == v.id {
					return row.Refs == killCrowd+1 // the parent sealed it
				}
			}
			return false
		},
		stays: usageIs(blobSize),
		after: func(v *victims) {
			for row, err := range v.c.BlobRows(ctx) {
				if err != nil || row.ID == v.id && row.Refs != 1 {
					v.t.Errorf("the dead still refer to a blob: %+v, %v", row, err)
				}
			}
			v.dropShared()
		},
	},
	{
		name:   "stream/producer",
		before: func(v *victims) func(int) uint64 { return v.makeStreams(false) },
		held:   func(_ *victims, st *server.Status) bool { return st.Ledger.Unsealed == killCrowd*blobSize },
		// A chunk belongs to its stream, not to the connection: docs/protocol.md.
		stays: func(_ *victims, st *server.Status) error {
			if st.Ledger.Usage != 2*killCrowd*blobSize || len(st.Streams) != killCrowd {
				return fmt.Errorf("streams of dead producers: %+v, %d bytes", st.Streams, st.Ledger.Usage)
			}
			return nil
		},
		after: (*victims).endStreams,
	},
	{
		name:   "stream/consumer",
		before: func(v *victims) func(int) uint64 { return v.makeStreams(true) },
		held: func(_ *victims, st *server.Status) bool {
			return st.Sessions[0].Deferred == killCrowd && st.Ledger.Unsealed == killCrowd*blobSize
		},
		after: func(v *victims) {
			for i := range killCrowd {
				if _, err := v.c.NextChunk(ctx, v.stream(i), 100); err == nil {
					v.t.Errorf("the stream of a dead consumer takes chunks")
				}
			}
		},
	},
	{
		name: "remote/uploading",
		held: func(_ *victims, st *server.Status) bool { return st.Ledger.Unsealed == killCrowd*blobSize },
	},
	{
		name:   "remote/reading",
		before: func(v *victims) func(int) uint64 { return v.putShared(24 * mib) },
		during: (*victims).dropShared,
		held:   func(_ *victims, st *server.Status) bool { return st.Ledger.Deferred >= 24*mib },
	},
	{
		name: "session/asked",
		asks: true,
		held: func(_ *victims, st *server.Status) bool {
			return len(st.Sessions) == 1+2*killCrowd && st.Ledger.Unsealed == killCrowd*blobSize
		},
		stays: usageIs(killCrowd * 1000), // their sessions stay: docs/operations.md
		after: func(v *victims) {
			if n := v.d.endStraySessions(v.t); n != 2*killCrowd {
				v.t.Errorf("the dead left %d sessions, want %d", n, 2*killCrowd)
			}
		},
	},
	{
		name:   "stream/reading",
		before: func(v *victims) func(int) uint64 { return v.makeStreams(true) },
		held: func(_ *victims, st *server.Status) bool {
			return st.Ledger.Usage == 2*killCrowd*blobSize && st.Ledger.Unsealed == killCrowd*blobSize
		},
	},
}

// testKills kills clients at every point of their work.
func testKills(t *testing.T) {
	d := serve(t, "--size", "256MiB")
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, p := range points {
		ok := t.Run(p.name, func(t *testing.T) {
			if p.known != "" {
				known(t, p.known)
			}
			c := d.dial(t)
			defer c.Close()
			if _, err := c.Exists(ctx, 1); err != nil {
				t.Fatal(err)
			}
			before := d.books(t, 1)
			kills, slowest := 0, time.Duration(0)
			for round := range killRounds {
				v := &victims{t: t, d: d, c: c, round: round}
				slowest = max(slowest, v.die(&p, before, rng))
				if p.after != nil {
					p.after(v)
				}
				d.even(t, before)
				kills += killCrowd
			}
			d.balanced(t, before)
			t.Logf("%d clients killed, all freed after %d ms at most; ledger balanced", kills, slowest.Milliseconds())
		})
		if !ok {
			return // the next would only meet what this one left
		}
	}
	d.stop()
}

// die brings clients to a point, kills them, and returns how long it took until
// all that must go was gone.
func (v *victims) die(p *point, before books, rng *rand.Rand) time.Duration {
	v.t.Helper()
	what := byNumber
	if p.before != nil {
		what = p.before(v)
	}
	var crowd []*process
	for i := range killCrowd {
		role := p.name
		if len(p.roles) > 0 {
			role = p.roles[i%len(p.roles)]
		}
		crowd = append(crowd, v.d.spawn(v.t, role, what(i)))
	}
	for _, c := range crowd {
		c.arrive(v.t)
	}
	if p.during != nil {
		p.during(v)
	}
	if !p.asks || v.round%2 == 0 {
		v.d.await(v.t, "the clients to be at "+p.name, patience, func(st server.Status) bool { return p.held(v, &st) })
		// While they live the books cannot balance: or else this test sees nothing.
		if v.d.differs(before) == nil {
			v.t.Fatalf("the ledger balances while %d clients are at %s", killCrowd, p.name)
		}
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
	}
	began := time.Now()
	for _, c := range crowd {
		if err := c.kill(); err != nil {
			v.t.Fatal(err)
		}
	}
	if err := within(settled, func() error {
		st := v.d.status(v.t)
		if n := len(st.Connections); n != before.connections {
			return fmt.Errorf("%d connections, %d before", n, before.connections)
		}
		if st.Ledger.Zombies != 0 || st.Ledger.Deferred != 0 {
			return fmt.Errorf("%d zombies of %d bytes", st.Ledger.Zombies, st.Ledger.Deferred)
		}
		if p.stays != nil {
			return p.stays(v, &st)
		}
		return usageIs(before.usage)(v, &st)
	}); err != nil {
		v.t.Fatalf("two seconds after kill -9: %v", err)
	}
	return time.Since(began)
}

// sameBytes compares without printing megabytes.
func sameBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes differ from the %d that were put", what, len(got), len(want))
	}
}
