//go:build linux

package recovery

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/v6d-go/v6d/client"
)

// worker does random things through the Go client, in the root session and in
// one of its own. What it made belongs to it alone, so that the model of it
// needs no order among workers.
type worker struct {
	m     *model
	rng   *rand.Rand
	name  string
	sites []*site // of the root session, and of its own one if it has it
	pend  *pending
	rpc   *client.Client // to the root session over TCP; nil until used
	tame  bool           // no streams, whose chunks end with the daemon, and no TCP
	n     int
}

// site is a worker's part of a session.
type site struct {
	p       *place
	c       *client.Client // of the current daemon
	objects []client.ID
	blobs   []client.ID
}

// pending is an operation that was asked and not answered. resolve looks at
// what the next daemon serves and changes the model if it was done.
type pending struct {
	what    string
	resolve func(f *found) (happened bool)
}

// errDown is returned when the daemon died under an operation.
var errDown = errors.New("the daemon has gone")

func newWorker(m *model, seed uint64, i int) *worker {
	return &worker{
		m: m, rng: rand.New(rand.NewPCG(seed, uint64(i))), name: fmt.Sprintf("w%d", i),
		sites: []*site{{p: m.places[0]}},
	}
}

// work connects and does random things until the daemon dies.
func (w *worker) work() {
	defer w.hangUp()
	for _, s := range w.sites {
		c, err := client.Dial(ctx, client.Options{Socket: s.p.socket})
		if err != nil {
			return // killed before we came
		}
		s.c = c
	}
	for {
		if err := w.step(); errors.Is(err, errDown) {
			return
		} else if err != nil {
			w.m.mu.Lock()
			w.m.fault(&w.m.tally.other, "%s: %v", w.name, err)
			w.m.mu.Unlock()
			return
		}
	}
}

func (w *worker) hangUp() {
	for _, s := range w.sites {
		if s.c != nil {
			s.c.Close()
			s.c = nil
		}
	}
	if w.rpc != nil {
		w.rpc.Close()
		w.rpc = nil
	}
}

// try does one operation. While it is under way, resolve tells what became of
// it if the daemon dies.
func (w *worker) try(what string, resolve func(f *found) bool, fn func() error) error {
	if resolve != nil {
		w.pend = &pending{what, resolve}
	}
	err := fn()
	if down(err) {
		return errDown
	}
	w.pend = nil
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// down tells whether an error means that nobody knows what was done.
func down(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	return errors.Is(err, client.Unreachable) || strings.Contains(text, "daemon is stopping") ||
		strings.Contains(text, "connection reset") || strings.Contains(text, "broken pipe") || strings.Contains(text, "EOF")
}

// step does one random thing that makes sense now.
func (w *worker) step() error {
	s := w.sites[w.rng.IntN(len(w.sites))]
	if w.bytes() > 7<<20 || len(s.objects) > 50 || len(s.blobs) > 80 {
		if len(s.objects) > 0 && w.rng.IntN(3) > 0 {
			return w.delete(s)
		}
		if len(s.blobs) > 0 {
			return w.dropBlob(s)
		}
	}
	table := []struct {
		weight int
		do     func(*site) error
	}{
		{26, w.putBlob},
		{22, w.create},
		{5, w.createSeveral},
		{8, w.persist},
		{6, w.label},
		{8, w.putName},
		{3, w.dropName},
		{3, w.copy},
		{10, w.delete},
		{4, w.dropBlob},
		{12, w.read},
		{2, w.session},
		{2, w.takeBlob},
		{1, w.flood},
		{1, func(s *site) error { return w.try("give back", nil, func() error { return s.c.GiveBack(ctx) }) }},
		{3, w.stream},
		{4, w.putRemote},
	}
	sum := 0
	for _, e := range table {
		sum += e.weight
	}
	if w.tame {
		sum -= 3 + 4 // the last two
	}
	n := w.rng.IntN(sum)
	for _, e := range table {
		if n -= e.weight; n < 0 {
			return e.do(s)
		}
	}
	return nil
}

func (w *worker) bytes() (n int) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for _, s := range w.sites {
		for _, id := range s.blobs {
			if b := s.p.blobs[id]; b != nil {
				n += b.size
			}
		}
	}
	return n
}

func (w *worker) size() int {
	switch r := w.rng.IntN(100); {
	case r < 50:
		return 1 + w.rng.IntN(1024)
	case r < 80:
		return 1 + w.rng.IntN(64<<10)
	case r < 97:
		return 1 + w.rng.IntN(1<<20)
	}
	return 1 + w.rng.IntN(3<<20)
}

func pick(rng *rand.Rand, ids []client.ID) (client.ID, bool) {
	if len(ids) == 0 {
		return 0, false
	}
	return ids[rng.IntN(len(ids))], true
}

// change is model work after a reply.
func (w *worker) change(fn func()) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	fn()
}

// forget drops ids from the site's lists.
func (s *site) forget(gone map[client.ID]bool) {
	s.objects = slices.DeleteFunc(s.objects, func(id client.ID) bool { return gone[id] })
	s.blobs = slices.DeleteFunc(s.blobs, func(id client.ID) bool { return gone[id] })
}

// token names an object whose id is not known yet.
func (w *worker) token() string {
	w.n++
	return fmt.Sprintf("%s-%d-%x", w.name, w.n, w.rng.Uint32())
}

func (w *worker) depth(p *place, id client.ID) int {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	var walk func(client.ID) int
	walk = func(id client.ID) int {
		deepest := 0
		if o := p.objects[id]; o != nil {
			for _, member := range o.Members {
				deepest = max(deepest, 1+walk(member))
			}
		}
		return deepest
	}
	return walk(id)
}

// removal does an operation that deletes a known set of ids, all at once.
func (w *worker) removal(what string, s *site, gone map[client.ID]bool, fn func() error) error {
	done := func() {
		w.m.remove(s.p, gone)
		s.forget(gone)
	}
	return w.try(what, func(f *found) bool {
		at := f.at(s.p)
		for id := range gone {
			_, object := at.metas[id]
			_, blob := at.rows[id]
			if !object && !blob {
				done() // the comparison that follows wants all of them gone
				return true
			}
		}
		return false
	}, func() error {
		err := fn()
		if err == nil {
			w.change(done)
		}
		return err
	})
}

// read checks that a blob or object is what it was, in the running daemon.
func (w *worker) read(s *site) error {
	if id, ok := pick(w.rng, s.blobs); ok && w.rng.IntN(2) == 0 {
		w.m.mu.Lock()
		want := s.p.blobs[id].sum
		w.m.mu.Unlock()
		return w.try("read "+id.String(), nil, func() error {
			b, err := s.c.GetBlob(ctx, id)
			if err != nil {
				return err
			}
			if hash(b.Bytes()) != want {
				w.change(func() { w.m.fault(&w.m.tally.changed, "blob %s has other bytes in the running daemon", id) })
			}
			return b.Release(ctx)
		})
	}
	id, ok := pick(w.rng, s.objects)
	if !ok {
		return nil
	}
	return w.try("read "+id.String(), nil, func() error {
		got, err := s.c.GetObject(ctx, id)
		if err != nil {
			return err
		}
		w.change(func() {
			o := s.p.objects[id]
			if d := o.diff(show(got)); d != "" {
				w.m.fault(&w.m.tally.changed, "object %s in the running daemon: %s", id, d)
			}
			o.Time, o.fresh = got.Time, false
		})
		return nil
	})
}

// session makes a session of the worker's own, or ends it.
func (w *worker) session(*site) error {
	if len(w.sites) > 1 {
		if w.rng.IntN(3) > 0 {
			return nil
		}
		return w.endSession(w.sites[1])
	}
	join := func(p *place) *site {
		w.m.places[p.id] = p
		s := &site{p: p}
		w.sites = append(w.sites, s)
		return s
	}
	var socket string
	err := w.try("make a session", func(f *found) bool {
		for id, at := range f.places {
			if w.m.places[id] == nil && !f.claimed[id] {
				f.claimed[id] = true
				join(newPlace(id, at.socket))
				return true
			}
		}
		return false
	}, func() (err error) {
		socket, err = w.sites[0].c.NewSession(ctx, false)
		return err
	})
	if err != nil {
		return err
	}
	// From here on the session exists, whoever dies.
	id, err := sessionOf(socket)
	if err != nil {
		return err
	}
	var s *site
	w.change(func() {
		w.m.saw(client.ID(id))
		s = join(newPlace(id, socket))
	})
	return w.try("join the session", nil, func() (err error) {
		s.c, err = client.Dial(ctx, client.Options{Socket: socket})
		return err
	})
}

func (w *worker) endSession(s *site) error {
	if w.rng.IntN(2) == 0 {
		gone := map[client.ID]bool{}
		for _, id := range append(s.blobs[:len(s.blobs):len(s.blobs)], s.objects...) {
			gone[id] = true
		}
		if len(gone) > 0 {
			return w.removal("clear "+s.p.id.String(), s, gone, func() error { return s.c.Clear(ctx) })
		}
	}
	done := func() {
		delete(w.m.places, s.p.id)
		w.m.gone[s.p.id.String()] = true
		w.sites = w.sites[:1]
	}
	return w.try("end "+s.p.id.String(), func(f *found) bool {
		if f.places[s.p.id] != nil {
			return false
		}
		done()
		return true
	}, func() error {
		err := s.c.DeleteSession(ctx)
		if err == nil {
			w.change(done)
		}
		return err
	})
}
