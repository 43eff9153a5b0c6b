package server

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
	"github.com/v6d-go/v6d/internal/sys"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// conn is one client's connection. It belongs to one goroutine.
type conn struct {
	srv        *Server
	pc         *protocol.Conn
	ss         *session // where its requests go; a register over TCP may change it
	holder     *store.Holder
	pid, uid   int
	since      time.Time
	registered bool
	extended   bool // negotiated v6d's extensions; status reads a copy
	closing    bool // hang up after this reply
	thread     bool // its calls block a thread of its own
	refused    bool // the last request was answered with an error
	failed     error

	members   []wirejson.Member
	views     []store.View // scratch
	out       []byte
	delivered map[int32]bool // store_fd numbers that the client has
	promised  []*shm.File    // descriptors that follow the reply being written
	locks     map[string]struct{}
	reading   map[cursor][]held // what cursors of shared streams hold

	idle     atomic.Bool // waiting for a request
	requests atomic.Uint64
	shown    atomic.Pointer[ConnStatus] // what status tells, set by register
}

const (
	keepOut     = 1 << 20 // larger reply buffers are not kept
	keepViews   = 64      // nor longer lists of blobs
	hangupEvery = 10 * time.Millisecond

	// maxThreads is how many local connections have a thread of their own, which
	// waits for the client in the kernel: a third less latency with several
	// clients at work than through the poller (docs/benchmarks.md).
	maxThreads = 256
)

func newConn(s *Server, nc net.Conn, ss *session) *conn {
	c := &conn{
		srv: s, ss: ss, uid: -1, since: time.Now(),
		delivered: map[int32]bool{}, locks: map[string]struct{}{},
	}
	if u, ok := nc.(*net.UnixConn); ok {
		var err error
		if c.pid, c.uid, err = sys.PeerCred(u); err != nil {
			s.log.Warn("peer credentials", "err", err)
			c.uid = -1
		}
		if s.threads.Add(1) <= maxThreads {
			if c.pc, err = protocol.NewBlockingConn(u); err != nil {
				s.log.Debug("a connection without a thread of its own", "err", err)
			}
			c.thread = err == nil
		}
		if !c.thread {
			s.threads.Add(-1)
		}
	}
	if c.pc == nil {
		c.pc = protocol.NewServerConn(nc)
	}
	c.holder = store.NewHolder(c.pid, c.uid)
	c.enter(ss)
	c.show()
	return c
}

// enter makes the connection one of a session.
func (c *conn) enter(ss *session) {
	ss.enter()
	switch {
	case c.pc.IsUnix():
		ss.ipcConns.Add(1)
	case ss.id == object.RootSession:
		ss.rpcConns.Add(1) // 0.24 shows none for other sessions
	}
	c.ss = ss
}

// exit gives back everything that the connection holds in its session.
func (c *conn) exit() {
	ss := c.ss
	ss.streams.Close(c.holder)
	c.srv.store.Close(c.holder)
	for key := range c.locks {
		_ = c.srv.cluster.Unlock(context.Background(), ss.id, key)
	}
	clear(c.locks)
	switch {
	case c.pc.IsUnix():
		ss.ipcConns.Add(-1)
	case ss.id == object.RootSession:
		ss.rpcConns.Add(-1)
	}
	ss.leave()
}

// serve answers requests until the client hangs up or errs.
func (c *conn) serve(ctx context.Context) {
	defer func() {
		c.exit()
		c.pc.Close()
	}()
	if c.thread {
		runtime.LockOSThread()
		defer func() {
			runtime.UnlockOSThread()
			c.srv.threads.Add(-1)
		}()
	}
	for !c.closing {
		c.idle.Store(true)
		frame, err := c.pc.ReadFrame()
		c.idle.Store(false)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !c.srv.draining.Load() {
				c.srv.log.Debug("connection lost", "pid", c.pid, "err", err)
			}
			return
		}
		// The client has read the last reply: its pages may be reused.
		c.srv.store.Unhold(c.holder)
		c.dispatch(ctx, frame)
		if c.failed != nil {
			c.srv.log.Debug("connection failed", "pid", c.pid, "err", c.failed)
			return
		}
		if cap(c.out) > keepOut {
			c.out = nil
		}
		if c.srv.draining.Load() {
			return
		}
	}
}

// interruptIdle ends a connection that waits for its client.
func (c *conn) interruptIdle() {
	if c.idle.Load() {
		c.pc.Interrupt()
	}
}

// dispatch answers one request.
func (c *conn) dispatch(ctx context.Context, frame []byte) {
	c.requests.Add(1)
	c.srv.requests.Add(1)
	var err error
	c.members, err = wirejson.ParseObject(frame, c.members[:0])
	if err != nil {
		c.replyError(status.Errorf(status.Invalid, "the request is not valid JSON: %w", err))
		return
	}
	typ, ok := requestType(c.members)
	if !ok {
		c.replyError(status.Errorf(status.Invalid, "Invalid message: no 'type' field"))
		return
	}
	if code := bounced(c.members); code != 0 {
		c.replyError(status.Errorf(code, "the request carries an error code"))
		return
	}
	h := handlers[string(typ)]
	switch {
	case h == nil || h.extension && !c.extended:
		if !c.registered {
			c.replyError(notRegistered(typ))
			return
		}
		c.replyError(status.Errorf(status.Invalid, "Got unexpected command: %s", typ))
	case !c.registered && !h.early:
		c.replyError(notRegistered(typ))
	default:
		c.answer(ctx, h)
	}
	if cap(c.members) > 4096 {
		c.members = nil
	}
}

// answer runs a request's handler, and times it when somebody can ask for that.
func (c *conn) answer(ctx context.Context, h *handler) {
	t := c.srv.timings[h]
	if t == nil {
		h.serve(ctx, c)
		return
	}
	start := time.Now()
	c.refused = false
	h.serve(ctx, c)
	t.add(time.Since(start), c.refused || c.failed != nil)
}

func notRegistered(typ []byte) error {
	return status.Errorf(status.Invalid, "The connection is not registered yet, command is: %s", typ)
}

// requestType returns the text of type; it must be a string without escapes,
// as every request's name is.
func requestType(members []wirejson.Member) ([]byte, bool) {
	for i := len(members) - 1; i >= 0; i-- {
		if string(members[i].Key) == "type" {
			v := members[i].Value
			if v.Kind() != wirejson.String {
				return nil, false
			}
			return v[1 : len(v)-1], true
		}
	}
	return nil, false
}

// bounced returns the error code that a request carries: 0.24 sends it back.
func bounced(members []wirejson.Member) status.Code {
	for i := range members {
		if string(members[i].Key) == "code" {
			if n, err := members[i].Value.Int64(); err == nil {
				return status.Code(n)
			}
		}
	}
	return 0
}

// begin starts a reply frame.
func (c *conn) begin() { c.out = protocol.BeginFrame(c.out[:0]) }

// flush sends the reply frame and the descriptors that it promised.
func (c *conn) flush() {
	c.out = protocol.EndFrame(c.out, 0)
	if _, err := c.pc.Write(c.out); err != nil {
		c.fail(err)
		return
	}
	for _, f := range c.promised {
		if err := c.pc.SendFD(f.File); err != nil {
			c.fail(err)
			return
		}
	}
	c.promised = c.promised[:0]
}

// fail ends the connection after an I/O error.
func (c *conn) fail(err error) {
	if c.failed == nil {
		c.failed = err
	}
}

// replyError answers with an error. Descriptors that the failed reply would
// have promised count as not delivered.
func (c *conn) replyError(err error) {
	c.refused = true
	for _, f := range c.promised {
		delete(c.delivered, f.Number)
	}
	c.promised = c.promised[:0]
	c.begin()
	text := err.Error()
	if hint := status.HintOf(err); hint != "" {
		text += " (" + hint + ")" // the wire has no other place for it
	}
	c.out = protocol.AppendError(c.out, status.Of(err), text)
	c.flush()
}

// deliver notes that a client needs a file's descriptor. It returns the number
// if the descriptor will follow the reply, else -1.
func (c *conn) deliver(f *shm.File) int64 {
	if f == nil || !c.pc.IsUnix() || c.delivered[f.Number] {
		return -1
	}
	c.delivered[f.Number] = true
	c.promised = append(c.promised, f)
	return int64(f.Number)
}

// payload describes a blob; the descriptor of its file is delivered if the
// client lacks it.
func (c *conn) payload(v store.View) (p protocol.Payload, fd int64) {
	if v.File == nil {
		return protocol.EmptyPayload, -1
	}
	if v.Size == 0 {
		fd = -1 // a shrunk blob: nothing to map
	} else {
		fd = c.deliver(v.File)
	}
	return payload(v), fd
}

func payload(v store.View) protocol.Payload {
	if v.File == nil {
		return protocol.EmptyPayload
	}
	return protocol.Payload{
		ObjectID: v.ID, StoreFD: int64(v.File.Number), DataOffset: v.Off, DataSize: v.Size, MapSize: v.MapSize,
		IsSealed: v.Sealed, IsOwner: v.Owner,
	}
}

// payloads describes blobs and lists the descriptors that follow; it appends.
func (c *conn) payloads(list protocol.Payloads, fds []int64, views []store.View) (protocol.Payloads, []int64) {
	list = slices.Grow(list, len(views))
	for _, v := range views {
		p, fd := c.payload(v)
		if list = append(list, p); fd >= 0 {
			fds = append(fds, fd)
		}
	}
	return list, fds
}

// park runs something that may wait for other clients. Its context ends when
// this client hangs up or the daemon stops.
func (c *conn) park(ctx context.Context, wait func(context.Context) error) error {
	c.ss.deferred.Add(1)
	defer c.ss.deferred.Add(-1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if raw := c.pc.Raw(); raw != nil {
		defer c.srv.parked.watch(raw, cancel)()
	}
	if c.thread { // whoever wakes us needs no detour through that thread
		runtime.UnlockOSThread()
		defer runtime.LockOSThread()
	}
	err := wait(ctx)
	if err != nil && ctx.Err() != nil {
		cause := context.Cause(ctx)
		if errors.Is(cause, errHungUp) {
			c.fail(cause)
		}
		return cause
	}
	return err
}

var errHungUp = status.Errorf(status.ConnectionError, "the client has gone")

// show publishes what status tells about the connection.
func (c *conn) show() {
	st := ConnStatus{PID: c.pid, UID: c.uid, Session: c.ss.id.String(), Since: c.since.UTC(), Extended: c.extended}
	if !c.pc.IsUnix() {
		st.Remote = c.pc.RemoteAddr().String()
	}
	c.shown.Store(&st)
}

// status describes the connection; any goroutine may ask.
func (c *conn) status() ConnStatus {
	st := *c.shown.Load()
	st.Requests, st.Idle = c.requests.Load(), c.idle.Load()
	return st
}
