//go:build linux

package faults

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
)

const (
	crowdClients = 1000
	crowdAtOnce  = 60 // connections of the test
	crowdProcs   = 5  // client processes at once, with some connections each
	crowdPerProc = 4
)

// member is one client of the crowd: a connection that does random things and
// ends at a random moment, often in the middle of something.
type member struct {
	*peer
	rng     *rand.Rand
	w       *world
	far     bool        // over TCP
	dead    atomic.Bool // it has hung up; all else fails from then on
	mine    []client.ID // sealed blobs
	objects []client.ID
	streams []client.ID
	others  []*peer // connections to sessions of its own
	ops     int
}

// errWrong is what must not happen: the rest can, in a crowd.
type errWrong struct{ error }

// expected tells whether a failure can come from what others do, or of a lack of
// memory.
func expected(err error) bool {
	for _, code := range []status.Code{
		status.NotEnoughMemory, status.ObjectNotExists, status.ObjectExists, status.ObjectNotSealed,
		status.MetaTreeSubtreeNotExists, status.StreamDrained, status.StreamFailed, status.InvalidStreamState, status.StreamOpened,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// live is the life of one client, to its end. It returns what was wrong.
func live(w *world, rng *rand.Rand) (ops int, err error) {
	far := rng.IntN(4) == 0
	address := w.socket
	if far {
		address = w.rpc
	}
	p, err := dialPeer(address, rng.IntN(8) == 0)
	if err != nil {
		return 0, fmt.Errorf("dial: %w", err)
	}
	m := &member{peer: p, rng: rng, w: w, far: far}
	var end *time.Timer
	sudden := rng.IntN(3) > 0
	if sudden { // at a random moment, whatever it does then
		end = time.AfterFunc(time.Duration(rng.IntN(60_000))*time.Microsecond, func() {
			m.dead.Store(true)
			m.die()
		})
	}
	for range 1 + rng.IntN(60) {
		p.limit(patience) // the whole life may take longer where many live at once
		err = m.act()
		m.ops++
		if err != nil && expected(err) {
			err = nil
		}
		if err != nil || m.dead.Load() {
			break
		}
	}
	if end != nil {
		end.Stop()
	}
	if err != nil {
		err = fmt.Errorf("code %d: %w", uint8(status.Of(err)), err)
	}
	wrong := errWrong{}
	if m.dead.Load() && !errors.As(err, &wrong) {
		err = nil // its own doing
	}
	if !m.dead.Load() && rng.IntN(2) == 0 {
		_ = say(p, protocol.Exit, protocol.None{})
	} else if !m.dead.Load() && rng.IntN(2) == 0 {
		m.park() // dies while it waits
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
	}
	p.drop()
	for _, o := range m.others {
		o.drop()
	}
	return m.ops, err
}

// act does one random thing.
func (m *member) act() error {
	type action struct {
		weight int
		do     func() error
	}
	local := []action{
		{10, m.putLocal},
		{10, m.getLocal},
		{4, m.createMany},
		{3, m.useStream},
		{2, m.useSession},
		{2, m.useArena},
		{1, m.useDisk},
		{2, m.lock},
	}
	far := []action{{10, m.putFar}, {10, m.getFar}, {3, m.cutFar}}
	table := []action{{6, m.makeObject}, {4, m.useNames}, {6, m.delete}, {4, m.list}, {1, m.nonsense}, {1, m.trim}}
	if m.far {
		table = append(table, far...)
	} else {
		table = append(table, local...)
	}
	sum := 0
	for _, a := range table {
		sum += a.weight
	}
	n := m.rng.IntN(sum)
	for _, a := range table {
		if n -= a.weight; n < 0 {
			return a.do()
		}
	}
	return nil
}

func (m *member) size() int { return 8 + m.rng.IntN(1<<m.rng.IntN(19)) }

func (m *member) putLocal() error {
	id, err := m.put(pattern(m.rng.Uint64(), m.size()))
	if err == nil {
		m.mine = append(m.mine, id)
	}
	if errors.Is(err, client.NoMemory) {
		return m.makeRoom()
	}
	return err
}

// makeRoom deletes what anybody made, up to a point.
func (m *member) makeRoom() error {
	ids, err := m.rows(200)
	if err != nil {
		return err
	}
	return ask(m.peer, protocol.DeleteData, protocol.DeleteRequest{IDs: ids, Deep: true, Force: true}, &protocol.None{})
}

// rows lists ids of sealed blobs that were put by somebody, from a random place
// on.
func (m *member) rows(limit uint64) (ids []client.ID, err error) {
	q := protocol.PageRequest{Blobs: true, Limit: limit}
	if len(m.mine) > 0 && m.rng.IntN(2) == 0 {
		q.Cursor = m.mine[m.rng.IntN(len(m.mine))].String()
	}
	var r protocol.PageReply
	if err := ask(m.peer, protocol.Page, q, &r); err != nil {
		if errors.Is(err, client.Invalid) { // a 0.24 client: no such request
			return m.mine, nil
		}
		return nil, err
	}
	var rows []client.BlobRow
	if err := json.Unmarshal(r.Items, &rows); err != nil {
		return nil, errWrong{err}
	}
	for _, row := range rows {
		if row.Sealed && !row.Deleted && !row.Chunk && row.Where == "pool" && row.Size >= 8 {
			ids = append(ids, row.ID)
		}
	}
	return ids, nil
}

// check compares bytes with what they say that they are.
func check(id client.ID, b []byte) error {
	if len(b) < 8 {
		return nil
	}
	if !bytes.Equal(b, pattern(binary.LittleEndian.Uint64(b), len(b))) {
		return errWrong{fmt.Errorf("blob %s of %d bytes has other bytes than were put: it begins with %x", id, len(b), b[:min(len(b), 32)])}
	}
	return nil
}

func (m *member) getLocal() error {
	ids, err := m.rows(20)
	if err != nil || len(ids) == 0 {
		return err
	}
	id := ids[m.rng.IntN(len(ids))]
	at, found, err := m.get(id)
	if err != nil || !found || m.files[at.StoreFD] == nil {
		return err
	}
	b, err := m.read(at)
	if err != nil {
		return errWrong{err}
	}
	if !m.waitedFor() {
		return nil // its memory may have been reused meanwhile
	}
	if err := check(id, b); err != nil {
		return err
	}
	if m.rng.IntN(2) == 0 {
		return ask(m.peer, protocol.Release, protocol.ReleaseRequest{ObjectID: id}, &protocol.None{})
	}
	return nil
}

// waitedFor tells whether this is a v6d client, whose reads are always waited
// for.
func (m *member) waitedFor() bool {
	return ask(m.peer, protocol.Page, protocol.PageRequest{Limit: 1}, &protocol.PageReply{}) == nil
}

func (m *member) createMany() error {
	sizes := make([]uint64, 1+m.rng.IntN(20))
	for i := range sizes {
		sizes[i] = uint64(m.rng.IntN(3000))
	}
	var r protocol.CreateBuffersReply
	err := ask(m.peer, protocol.CreateBuffers, protocol.CreateBuffersRequest{Sizes: sizes}, &r)
	if err == nil {
		err = m.take(r.FDs...)
	}
	if err == nil && m.rng.IntN(2) == 0 { // one is dropped, the others are left unsealed
		err = ask(m.peer, protocol.DropBuffer, protocol.IDRequest{ID: r.IDs[0]}, &protocol.None{})
	}
	return err
}

func (m *member) useStream() error {
	if len(m.streams) == 0 || m.rng.IntN(4) == 0 {
		id := client.ID(m.rng.Uint64() >> 1)
		m.streams = append(m.streams, id)
		if err := ask(m.peer, protocol.CreateStream, protocol.ObjectIDRequest{ObjectID: id}, &protocol.None{}); err != nil {
			return err
		}
	}
	id := m.streams[m.rng.IntN(len(m.streams))]
	switch m.rng.IntN(6) {
	case 0:
		return ask(m.peer, protocol.StopStream, protocol.StopStreamRequest{ID: id, Failed: m.rng.IntN(2) == 0}, &protocol.None{})
	case 1:
		return ask(m.peer, protocol.DropStream, protocol.IDRequest{ID: id}, &protocol.None{})
	}
	for range 2 {
		var next protocol.NextChunkReply
		if err := ask(m.peer, protocol.NextChunk, protocol.NextChunkRequest{ID: id, Size: uint64(1 + m.rng.IntN(50_000))}, &next); err != nil {
			return err
		}
		if err := m.take(next.FD); err != nil {
			return err
		}
		// A chunk that was being read when its reader died is left to all.
		at := next.Buffer
		if err := m.write(at, pattern(m.rng.Uint64(), int(at.DataSize))); err != nil {
			if m.dead.Load() {
				return err
			}
			return errWrong{err}
		}
	}
	var r protocol.PullChunkReply
	return ask(m.peer, protocol.PullChunk, protocol.IDRequest{ID: id}, &r)
}

// useSession makes a session, works in it, and ends it, or leaves it behind.
func (m *member) useSession() error {
	var r protocol.NewSessionReply
	if err := ask(m.peer, protocol.NewSession, protocol.NewSessionRequest{StoreType: protocol.StoreDefault}, &r); err != nil {
		return err
	}
	p, err := dialPeer(r.SocketPath, false)
	if err != nil {
		return errWrong{err}
	}
	m.others = append(m.others, p)
	p.limit(patience)
	if _, err := p.put(pattern(m.rng.Uint64(), m.size())); err != nil {
		return err
	}
	if _, err := p.create(m.size()); err != nil {
		return err
	}
	if m.rng.IntN(3) == 0 {
		return nil
	}
	return ask(p, protocol.DeleteSession, protocol.None{}, &protocol.None{})
}

func (m *member) useArena() error {
	var r protocol.MakeArenaReply
	err := ask(m.peer, protocol.MakeArena, protocol.SizeRequest{Size: 1 << 20}, &r)
	if err == nil {
		err = m.take(r.FD)
	}
	if err == nil && m.rng.IntN(2) == 0 {
		q := protocol.FinalizeArenaRequest{FD: r.FD, Offsets: []uint64{0, 4096}, Sizes: []uint64{100, 5000}}
		err = ask(m.peer, protocol.FinalizeArena, q, &protocol.None{})
	}
	return err
}

func (m *member) useDisk() error {
	var r protocol.CreateBufferReply
	err := ask(m.peer, protocol.CreateDiskBuffer, protocol.CreateDiskBufferRequest{Size: 5000}, &r)
	if err == nil {
		err = m.take(r.FD)
	}
	if err == nil && m.rng.IntN(2) == 0 {
		err = ask(m.peer, protocol.Seal, protocol.ObjectIDRequest{ObjectID: r.ID}, &protocol.None{})
	}
	return err
}

var lockKeys = []string{"a", "b", "c"}

func (m *member) lock() error {
	// Never two at once: they would wait for each other.
	var r protocol.AcquireLockReply
	if err := ask(m.peer, protocol.AcquireLock, protocol.LockRequest{Key: lockKeys[m.rng.IntN(len(lockKeys))]}, &r); err != nil {
		return err
	}
	if m.dead.Load() {
		return nil
	}
	return ask(m.peer, protocol.ReleaseLock, protocol.LockRequest{Key: r.Key}, &protocol.ReleaseLockReply{})
}

func (m *member) putFar() error {
	id, err := m.uploadAll(pattern(m.rng.Uint64(), m.size()))
	if err == nil {
		m.mine = append(m.mine, id)
	}
	if errors.Is(err, client.NoMemory) {
		return m.makeRoom()
	}
	return err
}

func (m *member) getFar() error {
	ids, err := m.rows(20)
	if err != nil || len(ids) == 0 {
		return err
	}
	id := ids[m.rng.IntN(len(ids))]
	at, found, err := m.download(id)
	if err != nil || !found {
		return err
	}
	b, err := m.payload(at.DataSize)
	if err != nil {
		return err
	}
	return check(id, b)
}

// cutFar stops in the middle of a transfer, which ends the connection.
func (m *member) cutFar() error {
	defer m.dead.Store(true)
	if m.rng.IntN(2) == 0 {
		b := pattern(m.rng.Uint64(), m.size())
		return m.upload(b, m.rng.IntN(len(b)))
	}
	ids, err := m.rows(20)
	if err != nil || len(ids) == 0 {
		return err
	}
	at, found, err := m.download(ids[m.rng.IntN(len(ids))])
	if err == nil && found {
		_, err = m.payload(m.rng.Int64N(at.DataSize))
	}
	return err
}

func (m *member) makeObject() error {
	content := `{"typename":"faults::Crowd","instance_id":0,"transient":true,"text":"` + fmt.Sprint(m.rng.Uint64()) + `"`
	if len(m.mine) > 0 {
		content += fmt.Sprintf(`,"buffer_":{"id":"%s","typename":"vineyard::Blob","instance_id":0}`, m.mine[m.rng.IntN(len(m.mine))])
	}
	var r protocol.CreateDataReply
	err := ask(m.peer, protocol.CreateData, protocol.CreateDataRequest{Content: []byte(content + "}")}, &r)
	if err == nil {
		m.objects = append(m.objects, r.ID)
	}
	return err
}

func (m *member) useNames() error {
	name := fmt.Sprintf("name %d", m.rng.IntN(200))
	if len(m.objects) > 0 && m.rng.IntN(2) == 0 {
		id := m.objects[m.rng.IntN(len(m.objects))]
		if err := ask(m.peer, protocol.Persist, protocol.IDRequest{ID: id}, &protocol.None{}); err != nil {
			return err
		}
		return ask(m.peer, protocol.PutName, protocol.PutNameRequest{ObjectID: id, Name: name}, &protocol.None{})
	}
	if m.rng.IntN(2) == 0 {
		return ask(m.peer, protocol.DropName, protocol.DropNameRequest{Name: name}, &protocol.None{})
	}
	return ask(m.peer, protocol.GetName, protocol.GetNameRequest{Name: name}, &protocol.GetNameReply{})
}

func (m *member) delete() error {
	var id client.ID
	switch {
	case len(m.objects) > 0 && m.rng.IntN(2) == 0:
		id = m.objects[m.rng.IntN(len(m.objects))]
	case len(m.mine) > 0:
		id = m.mine[m.rng.IntN(len(m.mine))]
	default:
		return nil
	}
	return ask(m.peer, protocol.DeleteData, protocol.DeleteRequest{IDs: []object.ID{id}, Deep: true, Force: m.rng.IntN(2) == 0}, &protocol.None{})
}

func (m *member) list() error {
	return ask(m.peer, protocol.ListData, protocol.ListRequest{Pattern: "faults::*", Limit: uint64(m.rng.IntN(20))}, &protocol.GetDataReply{})
}

// nonsense is answered with an error, or costs the connection.
func (m *member) nonsense() error {
	_, err := m.pc.Write([][]byte{
		{2, 0, 0, 0, 0, 0, 0, 0, '{', '}'},
		{4, 0, 0, 0, 0, 0, 0, 0, 'n', 'u', 'l', 'l'},
		{9, 0, 0, 0, 0, 0, 0, 0, '{', '"', 't', 'y', 'p', 'e', '"', ':', '7'},
	}[m.rng.IntN(3)])
	if err == nil {
		if _, err = m.pc.ReadFrame(); err != nil {
			m.dead.Store(true)
		}
	}
	return err
}

func (m *member) trim() error {
	return ask(m.peer, protocol.MemoryTrim, protocol.None{}, &protocol.TrimReply{})
}

// park asks for something that never comes.
func (m *member) park() {
	switch m.rng.IntN(4) {
	case 0:
		_ = say(m.peer, protocol.GetName, protocol.GetNameRequest{Name: "never", Wait: true})
	case 1:
		_ = say(m.peer, protocol.GetData, protocol.GetDataRequest{IDs: []object.ID{1}, Wait: true})
	case 2:
		_ = say(m.peer, protocol.AcquireLock, protocol.LockRequest{Key: lockKeys[0]})
	case 3:
		_ = say(m.peer, protocol.Watch, protocol.WatchRequest{WaitMS: 60_000, Cursor: 1 << 60})
	}
}

// crowdProcess is a process of such clients, until it is killed.
func crowdProcess(w *world, at func()) error {
	fail := make(chan error)
	for i := range crowdPerProc {
		rng := rand.New(rand.NewPCG(w.what, uint64(i)))
		go func() {
			for {
				if _, err := live(w, rng); err != nil {
					fail <- err
					return
				}
			}
		}()
	}
	at()
	return <-fail
}

// testCrowd has a thousand clients work at random and die at random, some by
// their own doing, some with their process by kill -9.
func testCrowd(t *testing.T) {
	long := time.Duration(envNumber("V6D_FAULT_SECONDS", 5)) * time.Second
	d := serve(t, "--size", "192MiB")
	before := d.books(t, 0)
	w := &world{socket: d.socket, rpc: d.rpc}

	first := crowd(t, d, w, crowdClients/10, 0, 1)
	d.tidyUp(t, before)
	heap := d.heap(t)
	began := time.Now()
	all := crowd(t, d, w, crowdClients, long, 2)
	took := time.Since(began)
	streams, sessions := d.tidyUp(t, before)
	d.balanced(t, before)
	// Its collector runs when there is work; what is left then is all that counts.
	if err := within(patience, func() error {
		d.serves(t, d.socket)
		if grown := d.heap(t) - heap; grown > 24*mib {
			return fmt.Errorf("%d MiB of heap more than after the first %d clients", grown/mib, first.clients)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	grown := d.heap(t) - heap
	c := d.dial(t)
	limited, cancel := context.WithTimeout(ctx, patience)
	for _, key := range lockKeys { // none of the dead holds one
		if _, err := c.Lock(limited, key); err != nil {
			t.Errorf("lock %q: %v", key, err)
		}
	}
	cancel()
	c.Close()
	d.balanced(t, before)
	d.stop()
	t.Logf("%d clients and %d processes killed with -9, %d operations in %.1f s; %d streams and %d sessions of the dead; heap %+d KiB; ledger balanced",
		all.clients, all.killed, all.ops, took.Seconds(), streams, sessions, grown>>10)
}

type tally struct{ clients, killed, ops int64 }

// crowd runs at least so many clients for at least so long.
func crowd(t *testing.T, d *daemon, w *world, least int, long time.Duration, stretch uint64) tally {
	t.Helper()
	deadline := time.Now().Add(long)
	limit := deadline.Add(60 * time.Second)
	var clients, killed, ops atomic.Int64
	done := func() bool {
		return clients.Load() >= int64(least) && time.Now().After(deadline) || time.Now().After(limit) || t.Failed()
	}
	var wg sync.WaitGroup
	for i := range crowdAtOnce {
		rng := rand.New(rand.NewPCG(seed+stretch, uint64(i)))
		wg.Go(func() {
			for !done() {
				n, err := live(w, rng)
				clients.Add(1)
				ops.Add(int64(n))
				if err != nil {
					st := d.status(t)
					t.Errorf("a client: %v; usage %d of %d, sessions %+v", err, st.Ledger.Usage, st.Ledger.Limit, st.Sessions[0])
					for _, s := range st.Streams {
						if s.Waits != "" {
							t.Logf("stream %+v", s)
						}
					}
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed+stretch, 1000))
	for n := uint64(0); !done(); n++ {
		var procs []*process
		for i := range crowdProcs {
			procs = append(procs, d.spawn(t, "crowd", seed+stretch<<32+n*crowdProcs+uint64(i)))
		}
		for _, p := range procs {
			p.arrive(t)
			time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
			if err := p.kill(); err != nil {
				t.Error(err)
			}
			killed.Add(1)
		}
	}
	wg.Wait()
	return tally{clients.Load(), killed.Load(), ops.Load()}
}

// tidyUp deletes what the dead may leave: what is sealed, streams that nobody
// pulled from, sessions. All else must be gone by itself.
func (d *daemon) tidyUp(t *testing.T, before books) (streams, sessions int) {
	t.Helper()
	d.await(t, "the connections of the dead to end", settled, func(st server.Status) bool {
		waits := int64(0)
		for _, ss := range st.Sessions {
			waits += ss.Deferred
		}
		return len(st.Connections) == before.connections && waits == 0 && st.Ledger.Zombies == 0 && st.Ledger.Deferred == 0
	})
	sessions = d.endStraySessions(t)
	c := d.dial(t)
	defer c.Close()
	for _, s := range d.status(t).Streams {
		if err := c.DropStream(ctx, s.ID); err != nil {
			t.Fatal(err)
		}
		streams++
	}
	if st := d.status(t); st.Ledger.Unsealed != 0 {
		t.Errorf("%d bytes of the dead are unsealed", st.Ledger.Unsealed)
	}
	names, err := c.ListNames(ctx, "*", 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for name := range names {
		if err := c.DropName(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	c.Close()
	d.even(t, before)
	return streams, sessions
}
