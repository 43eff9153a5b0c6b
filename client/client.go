// Package client talks to a v6d daemon, or to any daemon of the Vineyard 0.24
// protocol, from Go.
//
// Over a UNIX socket (IPC) blobs are shared memory: a Builder's slice is the
// pool itself, and so is a Blob's. Over TCP (RPC) the same calls copy the bytes
// through the connection.
//
// # Ownership of slices
//
// The slice of a Builder may be written until Seal or Abort; the slice of a
// Blob may be read until Release. Afterwards the memory can become another
// blob's. With Options.Strict a late write through a Builder's slice faults
// where that can be had (whole pages).
//
// # Errors
//
// Errors are *Error values with the code of the daemon: errors.Is(err,
// client.NotExist) and so on; their Hint says what to do, where that is known.
// A call whose context ends fails with the context's cause. If the daemon was
// already at work, the connection can no longer be used: later calls fail with
// Unreachable; dial again.
//
// # Concurrency
//
// A Client may be used by several goroutines; its requests go one after the
// other. A request that waits (GetName and GetObjects with wait, Lock, NextChunk,
// PullChunk, Watch) holds the connection meanwhile: dial another for it. A
// Builder or Blob belongs to one goroutine at a time.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// ID names a blob or an object. Its text form is "o" and 16 hex digits; the top
// bit is set for blobs.
type ID = object.ID

// Signature names an object's content; it survives migration.
type Signature = object.Signature

// InstanceID numbers a daemon of a cluster.
type InstanceID = object.InstanceID

// SessionID names an isolated session of a daemon; 0 is the root session.
type SessionID = object.SessionID

// EmptyBlob is the id of every blob of no bytes.
const EmptyBlob = object.EmptyBlob

// ParseID reads the text form of an id.
func ParseID(s string) (ID, error) { return object.ParseID(s) }

// Error is what calls fail with: a code, a message, a cause, and sometimes a
// hint what to do.
type Error = status.Error

// Codes to test errors for with errors.Is. The daemon's others are in
// docs/exit-codes.md.
const (
	NotExist       = status.ObjectNotExists
	Exists         = status.ObjectExists
	Sealed         = status.ObjectSealed
	NotSealed      = status.ObjectNotSealed
	Invalid        = status.Invalid
	NoMemory       = status.NotEnoughMemory
	Drained        = status.StreamDrained
	StreamFailed   = status.StreamFailed
	StreamOpened   = status.StreamOpened       // that end is claimed already
	StreamState    = status.InvalidStreamState // it is stopped, or somebody else waits on it
	Denied         = status.ConnectionError
	Unreachable    = status.ConnectionFailed
	NotImplemented = status.NotImplemented
)

// Version is the protocol version that this client announces.
const Version = "0.24.2"

// Options says where and how to connect. At most one of Socket and Endpoint may
// be set; with neither, the usual sockets are tried (DefaultSockets).
type Options struct {
	Socket   string    // path of the daemon's UNIX socket
	Endpoint string    // host:port of the daemon, for remote access
	Session  SessionID // over TCP: the session to join
	Username string
	Password string
	Plasma   bool // the session must be of the plasma type
	Strict   bool // make late writes to sealed blobs fault; costs two system calls a blob

	// Compress sends and asks for remote payload as zstd where the daemon offers
	// it. It helps on slow networks only.
	Compress bool
	// MaxReply is the length of the longest reply that is read, in bytes, payload
	// aside; 0 for any. A longer one costs the connection.
	MaxReply int64
	// Classic hides that this client knows v6d's extensions, as 0.24 clients do.
	Classic bool
	// Trace, if set, is called after each request with its type and how long it
	// took, while the connection is still held. It never sees a password.
	Trace func(request string, took time.Duration, err error)
}

// Info is what the daemon said of itself.
type Info struct {
	InstanceID  InstanceID
	SessionID   SessionID // 0 for the root session
	Version     string    // of the protocol
	Socket      string    // the session's socket
	RPCEndpoint string    // host:port, "0.0.0.0:0" when off
	Extended    bool      // a v6d daemon: extensions can be used
	Local       bool      // blobs are shared memory
}

// Client is a connection to a daemon.
type Client struct {
	opts Options
	info Info

	mu     sync.Mutex // held for one request and its reply
	pc     *protocol.Conn
	out    []byte
	reply  []wirejson.Member
	files  map[int64]*file // by store_fd number; guarded by mu
	broken error           // why the connection can no longer be used; it is closed then
	zstd   bool            // compress remote payload
	closed atomic.Bool     // Close was called
}

// DefaultSockets lists where a daemon's socket is looked for, in order: the
// V6D_SOCKET or VINEYARD_IPC_SOCKET variable alone if set, otherwise
// $XDG_RUNTIME_DIR/v6d.sock, /run/v6d.sock and /var/run/vineyard.sock.
func DefaultSockets() []string {
	for _, env := range []string{"V6D_SOCKET", "VINEYARD_IPC_SOCKET"} {
		if p := os.Getenv(env); p != "" {
			return []string{p}
		}
	}
	var list []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		list = append(list, filepath.Join(dir, "v6d.sock"))
	}
	return append(list, "/run/v6d.sock", "/var/run/vineyard.sock")
}

// Dial connects and registers. It fails with Unreachable when no daemon answers
// and with Denied when it may not be used. The context is for dialling only.
func Dial(ctx context.Context, o Options) (*Client, error) {
	nc, err := dial(ctx, o)
	if err != nil {
		return nil, err
	}
	c := &Client{opts: o, pc: protocol.NewClientConn(nc, uint64(max(o.MaxReply, 0))), files: map[int64]*file{}}
	if err := c.register(ctx); err != nil {
		_ = c.Close() // the first error says more
		return nil, err
	}
	return c, nil
}

// DialAgain makes another connection to the same daemon and session, as the same user.
func (c *Client) DialAgain(ctx context.Context) (*Client, error) {
	o := c.opts
	if o.Socket == "" && o.Endpoint == "" { // it was found
		o.Socket = c.pc.RemoteAddr().String()
	}
	return Dial(ctx, o)
}

func dial(ctx context.Context, o Options) (net.Conn, error) {
	var d net.Dialer
	switch {
	case o.Socket != "" && o.Endpoint != "":
		return nil, status.Errorf(status.Invalid, "both a socket and an endpoint are given")
	case o.Endpoint != "":
		nc, err := d.DialContext(ctx, "tcp", o.Endpoint)
		if err != nil {
			return nil, unreachable(o.Endpoint, err)
		}
		return nc, nil
	case o.Socket != "":
		nc, err := d.DialContext(ctx, "unix", o.Socket)
		if err != nil {
			return nil, unreachable(o.Socket, err)
		}
		return nc, nil
	}
	var errs []error
	for _, path := range DefaultSockets() {
		nc, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return nc, nil
		}
		errs = append(errs, err)
	}
	return nil, unreachable("", errors.Join(errs...))
}

func unreachable(where string, err error) error {
	code := status.ConnectionFailed
	if errors.Is(err, os.ErrPermission) {
		code = status.ConnectionError
	}
	if where == "" {
		return &Error{
			Code: code, Msg: "no daemon answers on the usual sockets", Err: err,
			Hint: "start one with `v6d serve`, or name its socket (--socket, V6D_SOCKET) or host:port (-H, V6D_HOST)",
		}
	}
	return &Error{
		Code: code, Msg: "cannot connect to the daemon at " + where, Err: err,
		Hint: "is it running? `v6d serve` starts one; --socket or -H name another",
	}
}

func (c *Client) register(ctx context.Context) error {
	q := protocol.RegisterRequest{
		Version: Version, StoreType: protocol.StoreDefault, SessionID: c.opts.Session,
		Username: c.opts.Username, Password: c.opts.Password, Extensions: []string{"v6d"},
	}
	if c.opts.Plasma {
		q.StoreType = protocol.StorePlasma
	}
	if c.opts.Classic {
		q.Extensions = nil
	}
	var r protocol.RegisterReply
	if err := call(ctx, c, protocol.Register, &q, &r, nil); err != nil {
		return err
	}
	if c.pc.IsUnix() && !r.StoreMatch {
		return status.Errorf(status.Invalid, "the session at %s is of another store type", r.IPCSocket)
	}
	c.zstd = c.opts.Compress && r.Compression
	c.info = Info{
		InstanceID: r.InstanceID, SessionID: r.SessionID, Version: r.Version, Socket: r.IPCSocket,
		RPCEndpoint: r.RPCEndpoint, Extended: len(r.Extensions) > 0, Local: c.pc.IsUnix(),
	}
	return nil
}

// Info returns what the daemon said of itself.
func (c *Client) Info() Info { return c.info }

// Close hangs up: the daemon takes back every reference and every unsealed blob
// of this connection. A call that waits in another goroutine fails. Slices of
// builders, blobs and chunks must no longer be used over IPC: touching one is a
// fault that the program cannot recover from. Closing again does nothing.
func (c *Client) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	if !c.mu.TryLock() {
		c.pc.Interrupt()
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	var errs []error
	if c.broken == nil {
		_ = c.pc.SetWriteDeadline(time.Now().Add(time.Second))
		_ = c.write(protocol.Exit.AppendRequest(protocol.BeginFrame(c.out[:0]), &protocol.None{}))
		c.broken = net.ErrClosed
		errs = append(errs, c.pc.Close())
	}
	for n, f := range c.files {
		errs = append(errs, f.close())
		delete(c.files, n)
	}
	return errors.Join(errs...)
}

// call sends a request and decodes its reply. after, if not nil, runs on
// success before the connection is free for others: it receives descriptors or
// payload that belong to the reply. An *Error from it means that the reply was
// read to its end; after any other error the connection is given up.
func call[Q, R any](ctx context.Context, c *Client, d *protocol.Def[Q, R], q *Q, r *R, after func() error) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opts.Trace != nil {
		start := time.Now()
		defer func() { c.opts.Trace(d.Request, time.Since(start), err) }()
	}
	switch {
	case c.closed.Load():
		return &Error{Code: status.ConnectionFailed, Msg: "the client is closed", Err: net.ErrClosed}
	case c.broken != nil:
		return &Error{Code: status.ConnectionFailed, Msg: "the connection can no longer be used", Err: c.broken, Hint: "connect again"}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	defer c.watch(ctx)()
	err = c.write(d.AppendRequest(protocol.BeginFrame(c.out[:0]), q))
	var frame []byte
	if err == nil {
		frame, err = c.pc.ReadFrame()
	}
	if err != nil {
		return c.fail(ctx, d.Request, err)
	}
	if c.reply, err = wirejson.ParseObject(frame, c.reply[:0]); err != nil {
		return c.fail(ctx, d.Request, fmt.Errorf("the reply is not valid JSON: %w", err))
	}
	if err := d.DecodeReply(c.reply, r); err != nil {
		return err
	}
	if after != nil {
		if err := after(); err != nil {
			if _, ok := errors.AsType[*Error](err); ok {
				return err
			}
			return c.fail(ctx, d.Request, err)
		}
	}
	return nil
}

// watch makes the context's end interrupt the connection until stop is called.
// A context that ends too late for this call leaves no trace for the next.
func (c *Client) watch(ctx context.Context) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	ran := make(chan struct{})
	undo := context.AfterFunc(ctx, func() {
		defer close(ran)
		c.pc.Interrupt()
	})
	return func() {
		if !undo() {
			<-ran
			_ = c.pc.SetDeadline(time.Time{}) // fails on a closed connection only
		}
	}
}

// fail gives the connection up: nobody knows where in its bytes the next reply
// starts.
func (c *Client) fail(ctx context.Context, request string, err error) error {
	c.pc.Close()
	e := &Error{Code: status.ConnectionFailed, Msg: "the connection failed during " + request, Err: err}
	switch {
	case c.closed.Load():
		e.Msg, e.Err = "the client was closed during "+request, net.ErrClosed
	case ctx.Err() != nil:
		// Not wrapped: it is not the context of the calls that will see this.
		c.broken = errors.New(request + " was cut short: " + context.Cause(ctx).Error())
		return context.Cause(ctx)
	case errors.Is(err, protocol.ErrFrameTooLong):
		e.Hint = "is that a v6d or Vineyard daemon?"
	case hungUp(err):
		// Not the end of anything that a caller reads, nor its own broken pipe.
		e.Msg, e.Hint = "the daemon hung up during "+request, "it may have been restarted; connect again"
		e.Err = io.ErrUnexpectedEOF
	}
	c.broken = e
	return e
}

func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

func (c *Client) write(b []byte) error {
	c.out = b
	_, err := c.pc.Write(protocol.EndFrame(b, 0))
	if cap(c.out) > 1<<20 {
		c.out = nil
	}
	return err
}

// do is call for requests whose reply carries nothing.
func do[Q any](ctx context.Context, c *Client, d *protocol.Def[Q, protocol.None], q Q) error {
	return call(ctx, c, d, &q, &protocol.None{}, nil)
}
