package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestFlights: one call for all who ask at the same time; it ends when the last of
// them has gone, and not before.
func TestFlights(t *testing.T) {
	var fs flights[string, int]
	var running sync.WaitGroup
	spawn := func(f func(context.Context)) { running.Go(func() { f(t.Context()) }) }
	var calls atomic.Int32
	release := make(chan struct{})
	ended := make(chan error, 10)
	work := func(ctx context.Context) (int, error) {
		n := int(calls.Add(1))
		select {
		case <-release:
			return n, nil
		case <-ctx.Done():
			ended <- context.Cause(ctx)
			return 0, context.Cause(ctx)
		}
	}
	type result struct {
		n   int
		err error
	}
	ask := func(ctx context.Context) chan result {
		out := make(chan result, 1)
		go func() {
			n, err := fs.do(ctx, "key", spawn, work)
			out <- result{n, err}
		}()
		for deadline := time.Now().Add(5 * time.Second); calls.Load() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nothing began")
			}
		}
		return out
	}
	first, goFirst := context.WithCancel(t.Context())
	a := ask(first)
	b := ask(t.Context())
	for { // until both are counted
		fs.mu.Lock()
		n := fs.all["key"].askers
		fs.mu.Unlock()
		if n == 2 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	goFirst()
	if r := <-a; !errors.Is(r.err, context.Canceled) {
		t.Errorf("who went away got %+v", r)
	}
	close(release)
	if r := <-b; r.err != nil || r.n != 1 {
		t.Errorf("who stayed got %+v", r)
	}
	running.Wait()
	release = make(chan struct{})
	calls.Store(0)
	last, goLast := context.WithCancel(t.Context())
	c := ask(last)
	goLast()
	<-c
	if err := <-ended; !errors.Is(err, errNobody) {
		t.Errorf("the work ended with %v", err)
	}
	running.Wait()
	if len(fs.all) != 0 {
		t.Errorf("%d are remembered", len(fs.all))
	}
}
