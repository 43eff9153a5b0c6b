package typed

import (
	"context"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/client"
)

// small is the size in bytes under which a Pool allocates from Go's heap: a
// request to the daemon costs more than the copy.
const small = 4096

// Pool is an Arrow allocator whose memory lies in the daemon's pool, in blobs
// that are not sealed yet: what is built in it is stored by [Put] without a copy.
// Buffers of less than 4 KiB are the exception; they are copied.
//
// Arrow's allocators cannot fail: when the daemon refuses, methods panic with an
// error that [Guard] returns. A Pool is safe for concurrent use. What was not
// stored goes back with Close, or with the connection.
type Pool struct {
	ctx context.Context //nolint:containedctx // Arrow's interface has none; lives as long as one build
	all context.Context //nolint:containedctx // of requests, which are not cut short
	end func()          // of all
	c   *client.Client

	mu   sync.Mutex
	live map[*byte]*piece // by the address of the first byte
}

var _ memory.Allocator = (*Pool)(nil)

// piece is one blob of a Pool.
type piece struct {
	b      *client.Builder
	whole  []byte
	sealed bool
	length int // when sealed
}

// NewPool returns an allocator in the daemon's pool. ctx bounds its requests.
func NewPool(ctx context.Context, c *client.Client) *Pool {
	all, end := lasting(ctx)
	return &Pool{ctx: ctx, all: all, end: end, c: c, live: map[*byte]*piece{}}
}

// patience is how long a request may last after its context has ended.
const patience = 2 * time.Second

// lasting returns a context for requests that are not cut short when ctx ends: a
// connection that is cut in the middle of one cannot be used to give back what
// was made, and the reference daemon does not free it either. end has to be
// called: ctx may live much longer than the requests.
func lasting(ctx context.Context) (long context.Context, end func()) {
	long, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(patience, cancel) })
	return long, func() {
		stop()
		cancel()
	}
}

// refused is what a Pool panics with.
type refused struct{ err error }

func (r refused) Error() string { return r.err.Error() }
func (r refused) Unwrap() error { return r.err }

// Guard runs f and returns its error, or the one for which a Pool could not
// allocate in it.
func Guard(f func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case refused:
			err = r.err
		default:
			panic(r)
		}
	}()
	return f()
}

// Allocate implements memory.Allocator. The memory is zeroed.
func (p *Pool) Allocate(size int) []byte {
	b := p.Take(size)
	clear(b)
	return b
}

// Take is Allocate for those who write every byte: the memory is not zeroed.
func (p *Pool) Take(size int) []byte {
	if size < small {
		return memory.DefaultAllocator.Allocate(size)
	}
	err := context.Cause(p.ctx)
	var b *client.Builder
	if err == nil {
		b, err = p.c.CreateBlob(p.all, size)
	}
	if err != nil {
		panic(refused{fmt.Errorf("allocate %d bytes: %w", size, err)})
	}
	whole := b.Bytes()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live[unsafe.SliceData(whole)] = &piece{b: b, whole: whole}
	return whole
}

// Reallocate implements memory.Allocator.
func (p *Pool) Reallocate(size int, b []byte) []byte {
	if size <= cap(b) {
		return b[:size]
	}
	// Over the size asked for: builders that grow step by step would copy each time.
	bigger := p.Take(max(size, min(2*cap(b), size+size/4)))
	clear(bigger[copy(bigger, b):])
	p.Free(b)
	return bigger[:size]
}

// Free implements memory.Allocator. What is stored already stays.
func (p *Pool) Free(b []byte) {
	if cap(b) == 0 {
		return
	}
	at := unsafe.SliceData(b[:1])
	p.mu.Lock()
	x := p.live[at]
	delete(p.live, at)
	p.mu.Unlock()
	if x != nil && !x.sealed {
		_ = x.b.Abort(p.all) // it goes with the connection otherwise
	}
}

// Close gives back all that was not stored.
func (p *Pool) Close(ctx context.Context) error {
	defer p.end()
	p.mu.Lock()
	live := p.live
	p.live = map[*byte]*piece{}
	p.mu.Unlock()
	for _, x := range live {
		if !x.sealed {
			if err := x.b.Abort(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// adopt seals the blob that b is the beginning of; ok is false when there is
// none, or it was sealed at another length.
func (p *Pool) adopt(ctx context.Context, b []byte) (id client.ID, fresh, ok bool, err error) {
	if p == nil || len(b) == 0 {
		return 0, false, false, nil
	}
	p.mu.Lock()
	x := p.live[unsafe.SliceData(b)]
	p.mu.Unlock()
	switch {
	case x == nil || len(b) > len(x.whole):
		return 0, false, false, nil
	case x.sealed:
		return x.b.ID(), false, x.length == len(b), nil
	}
	if err := x.b.Shrink(ctx, len(b)); err != nil {
		return 0, false, false, err
	}
	if id, err = x.b.Seal(ctx); err != nil {
		return 0, false, false, err
	}
	x.sealed, x.length = true, len(b)
	return id, true, true, nil
}
