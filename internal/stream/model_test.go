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

	journal [][]byte
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

func (f *fakeBacking) NewChunk(_ *store.Holder, size int64, _ bool) (store.View, error) {
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

func (f *fakeBacking) Shorten(id object.ID, size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have, ok := f.chunks[id]; !ok || size > have || size < 0 || f.sealed[id] {
		return status.Errorf(status.Invalid, "shorten %s of %d to %d", id, have, size)
	}
	f.usage -= f.chunks[id] - size
	f.chunks[id] = size
	return nil
}

func (f *fakeBacking) Size(id object.ID) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.chunks[id]
}

func (f *fakeBacking) Record(payload []byte, _ bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.journal = append(f.journal, slices.Clone(payload))
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
		return 0, t.Open(h, s.stream, s.n%4)
	case "next":
		v, err := t.Next(ctx, h, s.stream, s.n)
		return v.ID, err
	case "push":
		return 0, t.Push(h, s.stream, object.ID(s.n))
	case "pull":
		return t.Pull(ctx, h, s.stream)
	case "stop":
		return 0, t.Stop(s.stream, s.fail, "")
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
