package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
	"pgregory.net/rapid"
)

// fakeBacking is a session: memory with a limit, chunks, and what the journal
// believes to lie in streams.
type fakeBacking struct {
	mu     sync.Mutex
	limit  int64
	usage  int64
	last   object.ID
	chunks map[object.ID]int64 // size; 0 for what a writer pushed
	sealed map[object.ID]bool
	queued map[object.ID]int
	freed  chan struct{}
	fail   error // of the next Queued
}

func newBacking() *fakeBacking {
	return &fakeBacking{
		limit: 100, last: 1 << 63, chunks: map[object.ID]int64{}, sealed: map[object.ID]bool{},
		queued: map[object.ID]int{}, freed: make(chan struct{}),
	}
}

var _ Backing = (*fakeBacking)(nil)

func (f *fakeBacking) Possible(size int64) bool { return size < f.limit*80/100 }

func (f *fakeBacking) Fits(size int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.usage+size < f.limit*80/100
}

func (f *fakeBacking) Freed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.freed
}

func (f *fakeBacking) NewChunk(_ *store.Holder, size int64) (store.View, error) {
	if size == 0 {
		return store.View{ID: object.EmptyBlob}, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	f.chunks[f.last] = size
	f.usage += size
	return store.View{ID: f.last, Size: size}, nil
}

func (f *fakeBacking) Seal(id object.ID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sealed[id] = true
	return nil
}

func (f *fakeBacking) Delete(_ *store.Holder, id object.ID) {
	f.Dequeued(id)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.usage -= f.chunks[id]
	delete(f.chunks, id)
	f.wake()
}

func (f *fakeBacking) wake() {
	close(f.freed)
	f.freed = make(chan struct{})
}

func (f *fakeBacking) Queued(id object.ID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail; err != nil {
		f.fail = nil
		return err
	}
	f.queued[id]++
	return nil
}

func (f *fakeBacking) Dequeued(id object.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queued[id]--; f.queued[id] <= 0 {
		delete(f.queued, id)
	}
}

// take uses memory for something else; a negative size gives it back.
func (f *fakeBacking) take(size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.usage += size; size < 0 {
		f.wake()
	}
}

// step is one request of a client.
type step struct {
	op     string
	stream object.ID
	client int
	n      int64 // size, mode, or which waiting request to end
	fail   bool
}

func (s step) String() string {
	return fmt.Sprintf("%s(stream %d, client %d, %d, %v)", s.op, s.stream, s.client, s.n, s.fail)
}

var steps = rapid.Custom(func(t *rapid.T) step {
	s := step{
		op: rapid.SampledFrom([]string{
			"create", "create", "open", "next", "next", "next", "push", "push", "pull", "pull", "pull", "stop", "drop", "close", "memory", "cancel",
		}).Draw(t, "op"),
		stream: object.ID(rapid.IntRange(1, 2).Draw(t, "stream")),
		client: rapid.IntRange(0, 2).Draw(t, "client"),
		n:      rapid.Int64Range(0, 60).Draw(t, "n"),
		fail:   rapid.Bool().Draw(t, "fail"),
	}
	if s.op == "next" {
		s.stream = 1 // writers of two streams would race for memory
		if s.n == 60 {
			s.n = 90 // never possible
		}
	}
	return s
})

// answer is how a request ended.
type answer struct {
	step  step
	chunk object.ID
	err   error
	done  bool
}

func (a *answer) String() string {
	if !a.done {
		return "waits"
	}
	if a.err != nil {
		if c := status.Of(a.err); !errors.Is(a.err, context.Canceled) {
			return fmt.Sprintf("code %d", c)
		}
		return "canceled"
	}
	return fmt.Sprintf("chunk %x", uint64(a.chunk))
}

// run plays a script on a Table and on the model and returns the first
// difference. It runs in a synctest bubble: after each step everybody who can
// go on has gone on.
func run(script []step) error {
	back := newBacking()
	table := NewTable(back)
	m := newModel()
	clients := []*store.Holder{store.NewHolder(1, 0), store.NewHolder(2, 0), store.NewHolder(3, 0)}
	type request struct {
		answer
		cancel context.CancelFunc
		model  *call
	}
	var all []*request
	defer func() {
		for _, r := range all {
			r.cancel()
		}
		synctest.Wait()
	}()
	pushed := object.ID(1000)
	for i, s := range script {
		if s.op == "push" {
			pushed++
			s.n = int64(pushed)
			back.mu.Lock()
			back.chunks[pushed] = 0
			back.mu.Unlock()
		}
		ctx, cancel := context.WithCancel(context.Background())
		r := &request{answer: answer{step: s}, cancel: cancel}
		all = append(all, r)
		r.model = m.step(s)
		switch s.op {
		case "memory":
			delta := s.n - m.hogBefore
			back.take(delta)
		case "cancel":
			var waiting []*request
			for _, other := range all {
				if !other.done && other != r {
					waiting = append(waiting, other)
				}
			}
			if len(waiting) > 0 {
				victim := waiting[int(s.n)%len(waiting)]
				m.cancel(victim.model)
				victim.cancel()
			}
		}
		go func() {
			chunk, err := ask(ctx, table, clients[s.client], s)
			r.chunk, r.err, r.done = chunk, err, true
		}()
		synctest.Wait()
		for j, other := range all {
			if got, want := other.String(), other.model.answer.String(); got != want {
				return fmt.Errorf("after step %d, %v: request %d, %v: %s, want %s", i, s, j, other.step, got, want)
			}
		}
		if err := m.compare(table, back); err != nil {
			return fmt.Errorf("after step %d, %v: %w", i, s, err)
		}
	}
	return nil
}

func ask(ctx context.Context, t *Table, h *store.Holder, s step) (object.ID, error) {
	switch s.op {
	case "create":
		return 0, t.Create(s.stream)
	case "open":
		return 0, t.Open(s.stream, s.n%4)
	case "next":
		v, err := t.Next(ctx, h, s.stream, s.n)
		return v.ID, err
	case "push":
		return 0, t.Push(s.stream, object.ID(s.n))
	case "pull":
		return t.Pull(ctx, h, s.stream)
	case "stop":
		return 0, t.Stop(s.stream, s.fail)
	case "drop":
		return 0, t.Drop(s.stream)
	case "close":
		t.Close(h)
	}
	return 0, nil
}

// TestModel plays random scripts of three clients on two streams.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		script := rapid.SliceOfN(steps, 10, 80).Draw(rt, "script")
		script = append([]step{{op: "create", stream: 1}}, script...)
		var err error
		synctest.Test(t, func(*testing.T) { err = run(script) })
		if err != nil {
			for i, s := range script {
				rt.Logf("%d: %v", i, s)
			}
			rt.Fatal(err)
		}
	})
}

// call is a request as the model sees it.
type call struct{ answer }

// modelStream is the state of one stream by docs/protocol.md: what is queued,
// being written and being read, and who waits.
type modelStream struct {
	id               object.ID
	state            string // open, drained or failed
	ready            []object.ID
	writing, reading object.ID
	mode             int64
	reader, writer   *call
	pulledBy         map[int]bool
	pushed, pulled   uint64
}

type model struct {
	streams        map[object.ID]*modelStream
	chunks         map[object.ID]int64
	sealed         map[object.ID]bool
	usage          int64
	hog, hogBefore int64
	last           object.ID
}

func newModel() *model {
	return &model{streams: map[object.ID]*modelStream{}, chunks: map[object.ID]int64{}, sealed: map[object.ID]bool{}, last: 1 << 63}
}

func (c *call) end(chunk object.ID, err error) { c.chunk, c.err, c.done = chunk, err, true }

func (m *model) step(s step) *call {
	c := &call{answer{step: s}}
	if s.op == "push" {
		m.chunks[object.ID(s.n)] = 0
	}
	st := m.streams[s.stream]
	stopped := st != nil && st.state != "open"
	switch {
	case s.op == "memory":
		m.hogBefore, m.hog = m.hog, s.n
		m.usage += m.hog - m.hogBefore
		c.end(0, nil)
	case s.op == "cancel":
		c.end(0, nil)
	case s.op == "close":
		for _, st := range m.streams {
			if st.pulledBy[s.client] {
				m.drop(st)
			}
		}
		c.end(0, nil)
	case s.op == "create":
		if st != nil {
			c.end(0, status.ObjectExists)
			break
		}
		m.streams[s.stream] = &modelStream{id: s.stream, state: "open", pulledBy: map[int]bool{}}
		c.end(0, nil)
	case st == nil:
		c.end(0, status.ObjectNotExists)
	case s.op == "open":
		if st.mode&(s.n%4) != 0 {
			c.end(0, status.StreamOpened)
			break
		}
		st.mode |= s.n % 4
		c.end(0, nil)
	case s.op == "next":
		switch {
		case stopped || st.writer != nil:
			c.end(0, status.InvalidStreamState)
		default:
			m.flush(st)
			if s.n >= 80 {
				c.end(0, status.NotEnoughMemory)
				break
			}
			st.writer = c
		}
	case s.op == "push":
		if stopped || st.writer != nil {
			c.end(0, status.InvalidStreamState)
			break
		}
		m.queue(st, object.ID(s.n))
		c.end(0, nil)
	case s.op == "pull":
		if st.reader != nil {
			c.end(0, status.InvalidStreamState)
			break
		}
		st.pulledBy[s.client] = true
		m.free(st.reading)
		st.reading, st.reader = 0, c
	case s.op == "stop":
		if stopped || st.writer != nil {
			c.end(0, status.InvalidStreamState)
			break
		}
		m.flush(st)
		st.state = "drained"
		if s.fail {
			st.state = "failed"
		}
		c.end(0, nil)
	case s.op == "drop":
		m.drop(st)
		c.end(0, nil)
	}
	m.settle()
	return c
}

// settle answers whoever waits and can be answered now.
func (m *model) settle() {
	for _, st := range m.streams {
		if c := st.writer; c != nil && m.usage+c.step.n < 80 {
			id := object.EmptyBlob
			if c.step.n > 0 {
				m.last++
				id = m.last
				m.chunks[id] = c.step.n
				m.usage += c.step.n
			}
			st.writing, st.writer = id, nil
			c.end(id, nil)
		}
		if c := st.reader; c != nil {
			switch {
			case len(st.ready) > 0:
				st.reading, st.ready, st.reader = st.ready[0], st.ready[1:], nil
				st.pulled++
				c.end(st.reading, nil)
			case st.state == "drained":
				st.reader = nil
				c.end(0, status.StreamDrained)
			case st.state == "failed":
				st.reader = nil
				c.end(0, status.StreamFailed)
			}
		}
	}
}

func (m *model) flush(st *modelStream) {
	if st.writing != 0 {
		m.sealed[st.writing] = true
		m.queue(st, st.writing)
		st.writing = 0
	}
}

func (m *model) queue(st *modelStream, id object.ID) {
	st.ready = append(st.ready, id)
	st.pushed++
}

func (m *model) free(id object.ID) {
	m.usage -= m.chunks[id]
	delete(m.chunks, id)
}

// drop forgets a stream; the chunk that is being read stays.
func (m *model) drop(st *modelStream) {
	for _, id := range append(st.ready, st.writing) {
		m.free(id)
	}
	for _, c := range []*call{st.reader, st.writer} {
		if c != nil {
			c.end(0, status.StreamFailed)
		}
	}
	delete(m.streams, st.id)
	m.settle()
}

// cancel ends a request whose client has gone.
func (m *model) cancel(c *call) {
	for _, st := range m.streams {
		if st.reader == c {
			st.reader = nil
		}
		if st.writer == c {
			st.writer = nil
		}
	}
	c.end(0, context.Canceled)
}

// compare checks what a Table shows, and what its session holds.
func (m *model) compare(t *Table, back *fakeBacking) error {
	list := t.List()
	slices.SortFunc(list, func(a, b Info) int { return int(a.ID) - int(b.ID) })
	var want []Info
	queued := map[object.ID]int{}
	for id := object.ID(1); id < 3; id++ {
		st := m.streams[id]
		if st == nil {
			continue
		}
		in := Info{ID: id, State: st.state, Ready: len(st.ready), Mode: st.mode, Pushed: st.pushed, Pulled: st.pulled}
		switch {
		case st.reader != nil:
			in.Waits = "reader"
		case st.writer != nil:
			in.Waits = "writer"
		}
		want = append(want, in)
		for _, chunk := range append(slices.Clone(st.ready), st.reading) {
			if chunk != 0 {
				queued[chunk]++
			}
		}
	}
	if !slices.Equal(list, want) {
		return fmt.Errorf("streams %+v, want %+v", list, want)
	}
	back.mu.Lock()
	defer back.mu.Unlock()
	for what, pair := range map[string][2]string{
		"chunks": {fmt.Sprint(back.chunks), fmt.Sprint(m.chunks)},
		"sealed": {fmt.Sprint(back.sealed), fmt.Sprint(m.sealed)},
		"queued": {fmt.Sprint(back.queued), fmt.Sprint(queued)},
		"usage":  {fmt.Sprint(back.usage), fmt.Sprint(m.usage)},
	} {
		if pair[0] != pair[1] {
			return fmt.Errorf("%s %s, want %s", what, pair[0], pair[1])
		}
	}
	return nil
}
