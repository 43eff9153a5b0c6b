package server

import (
	"context"
	"sync"

	"github.com/v6d-go/v6d/internal/protocol"
)

// handler answers one kind of request.
type handler struct {
	serve     func(ctx context.Context, c *conn)
	early     bool // allowed before register
	extension bool // only for clients that negotiated it
}

// handlers is the routing table by request type. A test compares it with the
// definitions in package protocol.
var handlers = map[string]*handler{}

// handle routes a message to fn, which fills the reply or fails.
func handle[Q, R any](d *protocol.Def[Q, R], fn func(ctx context.Context, c *conn, q *Q, r *R) error) *handler {
	type pair struct {
		q Q
		r R
	}
	pool := sync.Pool{New: func() any { return new(pair) }}
	return route(d.Request, func(ctx context.Context, c *conn) {
		p := pool.Get().(*pair)
		err := d.DecodeRequest(c.members, &p.q)
		if err == nil {
			err = fn(ctx, c, &p.q, &p.r)
		}
		switch {
		case c.failed != nil:
		case err != nil:
			c.replyError(err)
		default:
			c.begin()
			c.out = d.AppendReply(c.out, &p.r)
			c.flush()
		}
		reset(&p.q) // it refers to the frame
		reset(&p.r)
		pool.Put(p)
	})
}

// handleRaw routes a message whose answer is more, or less, than one frame: fn
// writes it itself, or returns an error before it has written anything.
func handleRaw[Q, R any](d *protocol.Def[Q, R], fn func(ctx context.Context, c *conn, q *Q) error) *handler {
	pool := sync.Pool{New: func() any { return new(Q) }}
	return route(d.Request, func(ctx context.Context, c *conn) {
		q := pool.Get().(*Q)
		err := d.DecodeRequest(c.members, q)
		if err == nil {
			err = fn(ctx, c, q)
		}
		if err != nil && c.failed == nil {
			c.replyError(err)
		}
		reset(q) // it refers to the frame
		pool.Put(q)
	})
}

// reset empties a message that was used before. Those of hot requests keep the
// memory of their lists.
func reset[T any](m *T) {
	if r, ok := any(m).(interface{ Reset() }); ok {
		r.Reset()
		return
	}
	var zero T
	*m = zero
}

func route(request string, serve func(context.Context, *conn)) *handler {
	h := &handler{serve: serve, extension: protocol.IsExtension(request)}
	handlers[request] = h
	return h
}

// send writes one reply frame of a message; handleRaw's functions use it.
func send[Q, R any](c *conn, d *protocol.Def[Q, R], r *R) {
	c.begin()
	c.out = d.AppendReply(c.out, r)
	c.flush()
}
