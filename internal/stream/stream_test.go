package stream

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
)

// TestQueueFails: when the journal cannot take a chunk, it is not queued, and
// nothing is lost: the next request of the writer queues it.
func TestQueueFails(t *testing.T) {
	full := status.Errorf(status.NotEnoughMemory, "the journal is full")
	for name, again := range map[string]func(*Table) error{
		"next": func(t *Table) error { _, err := t.Next(context.Background(), nil, 1, 5); return err },
		"stop": func(t *Table) error { return t.Stop(1, false, "") },
	} {
		back := newBacking()
		table := NewTable(back)
		if err := table.Create(1); err != nil {
			t.Fatal(err)
		}
		v, err := table.Next(t.Context(), nil, 1, 10)
		if err != nil {
			t.Fatal(err)
		}
		back.fail = full
		if err := again(table); !errors.Is(err, status.NotEnoughMemory) {
			t.Errorf("%s: %v", name, err)
		}
		if in := table.List()[0]; in.Ready != 0 || in.State != "open" || in.Pushed != 0 {
			t.Errorf("%s: after the failure %+v", name, in)
		}
		if err := again(table); err != nil {
			t.Errorf("%s: the second time: %v", name, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if got, err := table.Pull(ctx, nil, 1); err != nil || got != v.ID {
			t.Errorf("%s: the reader gets %s, %v; want %s", name, got, err, v.ID)
		}
	}
	back := newBacking()
	table := NewTable(back)
	_ = table.Create(1)
	back.fail = full
	if err := table.Push(nil, 1, 7); !errors.Is(err, status.NotEnoughMemory) || table.List()[0].Ready != 0 {
		t.Errorf("push: %v, %+v", err, table.List())
	}
}

// slowBacking makes NewChunk take so long that other requests come between.
type slowBacking struct {
	*fakeBacking
	during func()
	full   bool
}

func (s *slowBacking) NewChunk(h *store.Holder, size int64, owned bool) (store.View, error) {
	v, err := s.fakeBacking.NewChunk(h, size, owned)
	if s.full {
		s.Delete(h, v.ID)
		v, err = store.View{}, status.Errorf(status.IOError, "no chunk")
	}
	s.during()
	return v, err
}

// TestDroppedWhileAllocating: a stream that is dropped while its writer gets
// memory leaves nothing behind; an error of the session is the writer's.
func TestDroppedWhileAllocating(t *testing.T) {
	back := &slowBacking{fakeBacking: newBacking()}
	table := NewTable(back)
	_ = table.Create(1)
	back.during = func() {
		if err := table.Push(nil, 1, 9); !errors.Is(err, status.InvalidStreamState) {
			t.Errorf("push beside a writer: %v", err)
		}
		if err := table.Stop(1, false, ""); !errors.Is(err, status.InvalidStreamState) {
			t.Errorf("stop beside a writer: %v", err)
		}
		if err := table.Drop(1); err != nil {
			t.Error(err)
		}
	}
	if _, err := table.Next(t.Context(), nil, 1, 10); !errors.Is(err, status.StreamFailed) {
		t.Errorf("the writer gets %v", err)
	}
	if len(back.chunks) > 0 || back.usage != 0 || len(table.List()) > 0 {
		t.Errorf("left behind: %v", back.chunks)
	}
	_ = table.Create(2)
	back.during, back.full = func() {}, true
	if _, err := table.Next(t.Context(), nil, 2, 10); !errors.Is(err, status.IOError) {
		t.Errorf("the writer gets %v", err)
	}
	back.full = false
	if _, err := table.Next(t.Context(), nil, 2, 10); err != nil || len(back.chunks) != 1 {
		t.Errorf("after a failure: %v, %v", err, back.chunks)
	}
}

// TestTogether has a writer and a reader a stream go on at full speed in little
// memory, while others hang up and drop. Each reader must see the chunks of its
// writer in order and sealed, and in the end nothing but what readers were still
// holding may be left.
func TestTogether(t *testing.T) {
	back := newBacking()
	back.limit = 1000
	table := NewTable(back)
	const streams, chunks = 3, 300
	handed := make([][]object.ID, streams) // by the writer
	pulled := make([][]object.ID, streams)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range streams {
		id := object.ID(i + 1)
		if err := table.Create(id); err != nil {
			t.Fatal(err)
		}
		reader, writer := store.NewHolder(1, 0), store.NewHolder(2, 0)
		wg.Go(func() {
			for n := range chunks {
				if n%3 == 2 {
					pushed := object.ID(1000*(i+1) + n)
					if table.Push(nil, id, pushed) != nil {
						return
					}
					handed[i] = append(handed[i], pushed)
					continue
				}
				v, err := table.Next(ctx, writer, id, int64(20+n%90))
				if err != nil {
					if i > 0 || ctx.Err() != nil {
						t.Errorf("stream %d: %v", i, err)
					}
					return
				}
				handed[i] = append(handed[i], v.ID)
			}
			if err := table.Stop(id, false, ""); err != nil && i > 0 {
				t.Errorf("stream %d: stop: %v", i, err)
			}
		})
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for {
				// Now and then the reader gives up waiting, and asks again.
				short, stop := context.WithTimeout(ctx, time.Duration(r.IntN(300))*time.Microsecond)
				chunk, err := table.Pull(short, reader, id)
				stop()
				switch {
				case err == nil:
					back.mu.Lock()
					if !back.sealed[chunk] && chunk.IsBlob() {
						t.Errorf("stream %d: chunk %s is not sealed", i, chunk)
					}
					back.mu.Unlock()
					pulled[i] = append(pulled[i], chunk)
				case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
				case errors.Is(err, status.StreamDrained):
					return
				default:
					if i > 0 {
						t.Errorf("stream %d: %v", i, err)
					}
					return
				}
				if i == 0 && len(pulled[i]) == 100 {
					table.Close(reader) // the reader of the first stream goes away
				}
			}
		})
	}
	wg.Wait()
	for i := range streams {
		want := handed[i]
		if i == 0 {
			want = want[:min(len(want), len(pulled[i]))]
		}
		// A chunk that Next and Push hand over in turn is queued by the call after.
		got := slices.Clone(pulled[i])
		slices.Sort(got)
		want = slices.Clone(want)
		slices.Sort(want)
		if i > 0 && !slices.Equal(got, want) {
			t.Errorf("stream %d: %d chunks pulled of %d", i, len(got), len(want))
		}
	}
	for id := object.ID(1); id <= streams; id++ {
		_ = table.Drop(id)
	}
	for id, size := range back.chunks {
		if !slices.Contains(slices.Concat(pulled...), id) {
			t.Errorf("chunk %s of %d bytes is left, and nobody read it", id, size)
		}
	}
	if len(back.chunks) > streams || len(back.queued) > 0 {
		t.Errorf("left: %v, in the journal: %v", back.chunks, back.queued)
	}
}

// TestDropWakes: whoever waits on a stream that is dropped is told so, though
// no memory becomes free by it.
func TestDropWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := newBacking()
		back.take(79)
		table := NewTable(back)
		_ = table.Create(1)
		errs := make(chan error, 2)
		go func() { _, err := table.Next(t.Context(), nil, 1, 10); errs <- err }()
		go func() { _, err := table.Pull(t.Context(), nil, 1); errs <- err }()
		synctest.Wait()
		if err := table.Drop(1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for range 2 {
			select {
			case err := <-errs:
				if !errors.Is(err, status.StreamFailed) {
					t.Error(err)
				}
			default:
				t.Fatal("someone still waits")
			}
		}
	})
}
