package server

import (
	"context"
	"sync"

	"github.com/v6d-go/v6d/internal/status"
)

// flights makes work that several ask for at the same time happen once. The work
// ends early when all who asked have gone.
type flights[K comparable, V any] struct {
	mu  sync.Mutex
	all map[K]*flight[V] // guarded by mu
}

// flight is one piece of work under way.
type flight[V any] struct {
	askers int // guarded by the mu of flights
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when value and err are there
	value  V
	err    error
}

var errNobody = status.Errorf(status.ConnectionError, "nobody waits for it any more")

// do returns what f returns, from a call for the same key that is under way
// already, or else from one of its own, which is given to spawn to run. f gets the
// context of spawn, not ctx.
func (fs *flights[K, V]) do(ctx context.Context, key K, spawn func(func(context.Context)), f func(context.Context) (V, error)) (V, error) {
	fs.mu.Lock()
	fl := fs.all[key]
	if fl == nil {
		fl = &flight[V]{done: make(chan struct{})}
		if fs.all == nil {
			fs.all = map[K]*flight[V]{}
		}
		fs.all[key] = fl
		started := make(chan struct{})
		spawn(func(ctx context.Context) {
			ctx, fl.cancel = context.WithCancelCause(ctx)
			defer fl.cancel(nil)
			close(started)
			fl.value, fl.err = f(ctx)
			fs.forget(key, fl)
			close(fl.done)
		})
		<-started
	}
	fl.askers++
	fs.mu.Unlock()
	select {
	case <-fl.done:
		return fl.value, fl.err
	case <-ctx.Done():
	}
	fs.mu.Lock()
	if fl.askers--; fl.askers == 0 {
		fl.cancel(errNobody)
		if fs.all[key] == fl { // who comes now gets a new one
			delete(fs.all, key)
		}
	}
	fs.mu.Unlock()
	var none V
	return none, context.Cause(ctx)
}

func (fs *flights[K, V]) forget(key K, fl *flight[V]) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.all[key] == fl {
		delete(fs.all, key)
	}
}
