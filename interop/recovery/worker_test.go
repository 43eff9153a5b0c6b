//go:build linux

package recovery

import (
	"errors"
	"fmt"
	"maps"
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

func (w *worker) putBlob(s *site) error {
	size := w.size()
	var b *client.Builder
	err := w.try("create a blob", nil, func() (err error) {
		b, err = s.c.CreateBlob(ctx, size)
		return err
	})
	if errors.Is(err, client.NoMemory) {
		return nil
	}
	if err != nil {
		return err
	}
	id := b.ID()
	w.change(func() { w.m.saw(id) })
	sum := bytesOf(b.Bytes(), w.rng.Uint64())
	if w.rng.IntN(20) == 0 {
		return w.try("abort", nil, func() error {
			err := b.Abort(ctx)
			if err == nil {
				w.change(func() { w.m.gone[key(s.p, id)] = true })
			}
			return err
		})
	}
	if size > 1 && w.rng.IntN(10) == 0 {
		size = 1 + w.rng.IntN(size-1)
		if err := w.try("shrink", nil, func() error { return b.Shrink(ctx, size) }); err != nil {
			return err
		}
		sum = hash(b.Bytes())
	}
	adopt := func() {
		w.m.addBlob(s.p, id, size, sum)
		s.blobs = append(s.blobs, id)
	}
	return w.try("seal "+id.String(), func(f *found) bool {
		if _, ok := f.at(s.p).rows[id]; !ok {
			return false
		}
		adopt() // the comparison that follows wants it complete
		return true
	}, func() error {
		_, err := b.Seal(ctx)
		if err == nil {
			w.change(adopt)
		}
		return err
	})
}

// token names an object whose id is not known yet.
func (w *worker) token() string {
	w.n++
	return fmt.Sprintf("%s-%d-%x", w.name, w.n, w.rng.Uint32())
}

// draft makes metadata over blobs and objects of the site.
func (w *worker) draft(s *site) *client.Meta {
	m := client.NewMeta([]string{"test::Thing", "test::Pair<int>", "vineyard::Tensor<uint8>"}[w.rng.IntN(3)])
	m.Set("token_", w.token())
	m.Set("text", "tab\there \"quoted\" ünïcode   "+strings.Repeat("x", w.rng.IntN(40)))
	m.Set("number", w.rng.Int64()).Set("ratio", w.rng.Float64()).Set("yes", w.rng.IntN(2) == 0).Set("none", nil)
	m.Set("shape_", []int{w.rng.IntN(9), w.rng.IntN(9)})
	switch w.rng.IntN(12) {
	case 0:
		m.Set("big", strings.Repeat(string(rune('a'+w.rng.IntN(26))), 16<<10+w.rng.IntN(64<<10)))
	case 1:
		m.Set("nbytes", w.rng.IntN(1000))
	case 2:
		m.Add("empty_", client.BlobMember(client.EmptyBlob))
	}
	for i := range w.rng.IntN(3) {
		if id, ok := pick(w.rng, s.blobs); ok {
			m.Add(fmt.Sprintf("buffer_%d_", i), client.BlobMember(id))
		}
	}
	for i := range w.rng.IntN(3) {
		if id, ok := pick(w.rng, s.objects); ok && w.depth(s.p, id) < 3 {
			m.AddObject(fmt.Sprintf("part_%d_", i), id)
		}
	}
	return m
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

func (w *worker) create(s *site) error {
	_, err := w.createOne(s, w.draft(s), nil)
	return err
}

// createOne creates an object; also runs with it, whenever its creation becomes
// known.
func (w *worker) createOne(s *site, m *client.Meta, also func()) (client.ID, error) {
	err := w.try("create an object", w.madeOf(s, also, m), func() error {
		_, err := s.c.CreateObject(ctx, m)
		if err == nil {
			w.change(func() { w.adopt(s, also, m) })
		}
		return err
	})
	return m.ID, err
}

func (w *worker) createSeveral(s *site) error {
	list := []*client.Meta{w.draft(s), w.draft(s)}
	for w.rng.IntN(2) == 0 {
		list = append(list, w.draft(s))
	}
	return w.try("create objects", w.madeOf(s, nil, list...), func() error {
		_, err := s.c.CreateObjects(ctx, list)
		if err == nil {
			w.change(func() { w.adopt(s, nil, list...) })
		}
		return err
	})
}

func (w *worker) adopt(s *site, also func(), list ...*client.Meta) {
	for _, m := range list {
		w.m.addObject(s.p, m)
		s.objects = append(s.objects, m.ID)
	}
	if also != nil {
		also()
	}
}

// madeOf resolves a creation: all of the objects are there, or none.
func (w *worker) madeOf(s *site, also func(), list ...*client.Meta) func(*found) bool {
	return func(f *found) bool {
		at := f.at(s.p)
		var there []*client.Meta
		for _, m := range list {
			token, _ := m.Text("token_")
			if got, ok := at.byToken(token); ok {
				m.ID, m.Signature = got.ID, got.Signature
				there = append(there, m)
			}
		}
		if len(there) > 0 && len(there) < len(list) {
			w.m.fault(&w.m.tally.other, "%s: %d of %d objects of one request exist", w.name, len(there), len(list))
		}
		if len(there) > 0 {
			w.adopt(s, also, there...)
		}
		return len(there) > 0
	}
}

func (w *worker) persist(s *site) error {
	id, ok := pick(w.rng, s.objects)
	if !ok {
		return nil
	}
	return w.try("persist "+id.String(), func(f *found) bool {
		got, ok := f.at(s.p).metas[id]
		if !ok || got.Transient || !s.p.objects[id].Transient {
			return false
		}
		s.p.persisted(id)
		return true
	}, func() error {
		err := s.c.Persist(ctx, id)
		if err == nil {
			w.change(func() { s.p.persisted(id) })
		}
		return err
	})
}

func (w *worker) label(s *site) error {
	id, ok := pick(w.rng, s.objects)
	if !ok {
		return nil
	}
	return w.labelOne(s, id, map[string]string{fmt.Sprintf("k%d", w.rng.IntN(4)): w.token(), "who": w.name + `"\`})
}

// flood fills the journal with history, so that the daemon compacts it.
func (w *worker) flood(s *site) error {
	id, ok := pick(w.rng, s.objects)
	if !ok || w.rng.IntN(3) > 0 {
		return nil
	}
	for range 40 {
		if err := w.labelOne(s, id, map[string]string{"flood": strings.Repeat(w.token(), 5000)}); err != nil {
			return err
		}
	}
	return w.labelOne(s, id, map[string]string{"flood": "over"})
}

func (w *worker) labelOne(s *site, id client.ID, add map[string]string) error {
	merge := func() {
		o := s.p.objects[id]
		o.Labels = maps.Clone(o.Labels)
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		maps.Copy(o.Labels, add)
	}
	return w.try("label "+id.String(), func(f *found) bool {
		for k, v := range add {
			if f.at(s.p).metas[id].Labels[k] != v {
				return false
			}
		}
		merge()
		return true
	}, func() error {
		err := s.c.Label(ctx, id, add)
		if err == nil {
			w.change(merge)
		}
		return err
	})
}

// forget drops ids from the site's lists.
func (s *site) forget(gone map[client.ID]bool) {
	s.objects = slices.DeleteFunc(s.objects, func(id client.ID) bool { return gone[id] })
	s.blobs = slices.DeleteFunc(s.blobs, func(id client.ID) bool { return gone[id] })
}
