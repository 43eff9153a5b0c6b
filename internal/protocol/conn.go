package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/v6d-go/v6d/internal/sys"
)

const (
	// MaxRequest is the longest request frame, in bytes; a longer one costs its
	// sender the connection.
	MaxRequest = 256 << 20
	// headerSize is the length prefix of a frame.
	headerSize = 8
	// fdByte is the data byte that carries a descriptor. Clients ignore its
	// value; 0.24 sends this one.
	fdByte = 0x14
	// readAhead is the first size of a connection's buffer, and the most that it
	// keeps between requests.
	readAhead = 4 << 10
	keepCap   = 1 << 20
	// quickAckBelow: TCP reads shorter than this re-arm TCP_QUICKACK.
	quickAckBelow = 64 << 10
)

// ErrFrameTooLong is returned for a frame above the limit. Nothing of its body
// has been read.
var ErrFrameTooLong = errors.New("frame is too long")

// Conn reads and writes frames, payload bytes and descriptors on one
// connection. It is used by one goroutine at a time, except for Close, Hungup
// and the deadlines.
type Conn struct {
	net.Conn
	unix     *net.UnixConn // nil over TCP, and when calls block
	local    bool          // a UNIX socket
	blocking bool
	raw      syscall.RawConn
	max      uint64
	readSome bool // may read past a frame; false where descriptors can follow

	buf  []byte // unread input is buf[r:w]
	r, w int
}

// NewServerConn wraps an accepted connection. It reads ahead: descriptors that
// a client sends are dropped by the kernel.
func NewServerConn(c net.Conn) *Conn { return newConn(c, MaxRequest, true) }

// NewBlockingConn is NewServerConn for a UNIX connection whose calls block their
// thread: fewer steps between the client and us, at the price of a thread. It
// takes u over.
func NewBlockingConn(u *net.UnixConn) (*Conn, error) {
	us, peer := u.LocalAddr(), u.RemoteAddr()
	f, err := sys.Blocking(u)
	if err != nil {
		return nil, err
	}
	c := newConn(fileConn{f, us, peer}, MaxRequest, true)
	c.local, c.blocking = true, true
	return c, nil
}

// fileConn makes a net.Conn of a connected socket that is a file.
type fileConn struct {
	*os.File
	us, peer net.Addr
}

// LocalAddr implements net.Conn.
func (c fileConn) LocalAddr() net.Addr { return c.us }

// RemoteAddr implements net.Conn.
func (c fileConn) RemoteAddr() net.Addr { return c.peer }

// NewClientConn wraps a dialled connection. On UNIX sockets it never reads past
// a frame, since a descriptor may follow. Replies are at most so many bytes long; 0
// means any length.
func NewClientConn(c net.Conn, most uint64) *Conn {
	_, isUnix := c.(*net.UnixConn)
	if most == 0 {
		most = 1 << 40
	}
	return newConn(c, most, !isUnix)
}

func newConn(c net.Conn, maxFrame uint64, readAheadOK bool) *Conn {
	pc := &Conn{Conn: c, max: maxFrame, readSome: readAheadOK}
	pc.unix, pc.local = c.(*net.UnixConn)
	if sc, ok := c.(syscall.Conn); ok {
		pc.raw, _ = sc.SyscallConn()
	}
	pc.quickAck()
	return pc
}

// IsUnix reports whether descriptors can travel on this connection.
func (c *Conn) IsUnix() bool { return c.local }

func (c *Conn) quickAck() {
	if !c.local && c.raw != nil {
		_ = sys.SetQuickAck(c.raw) // a missing option costs speed only
	}
}

// ReadFrame returns the body of the next frame. It is valid until the next
// read. The buffer grows with the bytes that arrive, not with the length that
// the header claims.
func (c *Conn) ReadFrame() ([]byte, error) {
	if err := c.fill(headerSize); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(c.buf[c.r:])
	if n > c.max {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrFrameTooLong, n, c.max)
	}
	if err := c.fill(headerSize + int(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	body := c.buf[c.r+headerSize : c.r+headerSize+int(n)]
	c.r += headerSize + int(n)
	return body, nil
}

// Buffered reports whether input is waiting in the buffer.
func (c *Conn) Buffered() int { return c.w - c.r }

// fill makes at least n unread bytes available.
func (c *Conn) fill(n int) error {
	if c.w-c.r >= n {
		return nil
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
		if cap(c.buf) > keepCap {
			c.buf = nil
		}
	}
	for c.w-c.r < n {
		if len(c.buf)-c.r < n && c.r > 0 {
			c.w = copy(c.buf, c.buf[c.r:c.w])
			c.r = 0
		}
		if c.w == len(c.buf) {
			grown := make([]byte, min(max(2*len(c.buf), readAhead), max(n, readAhead)))
			c.w = copy(grown, c.buf[c.r:c.w])
			c.buf, c.r = grown, 0
		}
		room := c.buf[c.w:]
		if !c.readSome {
			room = room[:min(len(room), n-(c.w-c.r))]
		}
		got, err := c.Conn.Read(room)
		c.w += got
		if got < quickAckBelow {
			c.quickAck()
		}
		if err != nil && c.w-c.r < n {
			if errors.Is(err, io.EOF) && c.w > c.r {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// Read reads payload bytes: what is buffered first.
func (c *Conn) Read(p []byte) (int, error) {
	if c.w > c.r {
		n := copy(p, c.buf[c.r:c.w])
		c.r += n
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if n < quickAckBelow {
		c.quickAck()
	}
	return n, err
}

// copyBuffers hold payload on its way into files, where it cannot be spliced.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, copyPiece); return &b }}

const (
	copyPiece = 256 << 10
	// spliceFrom is how many bytes are worth a pipe.
	spliceFrom = 64 << 10
)

// ReadToFile reads n payload bytes into a file at off; over TCP they do not pass
// through this process, if there are many. came, unless nil, is told how many
// have come whenever some have, and can stop it. It returns how many bytes are in
// the file; a [sys.WriteError] is the file's, and costs the connection.
func (c *Conn) ReadToFile(f *os.File, off, n int64, came func(int64) error) (int64, error) {
	var splicer *sys.Splicer
	defer func() {
		if splicer != nil {
			splicer.Close()
		}
	}()
	// The first bytes are copied: a peer that sends none gets no pipe.
	tried := false
	return readToFile(n, came, func(done int64) (int64, error) {
		if done > 0 && !tried {
			tried = true
			if n-done >= spliceFrom && c.raw != nil && !c.local {
				splicer, _ = sys.NewSplicer() // or copies
			}
		}
		if splicer == nil || c.w > c.r {
			return copyToFile(f, off+done, n-done, c)
		}
		got, err := splicer.Receive(c.raw, f, off+done, n-done)
		if errors.Is(err, sys.ErrUnsupported) {
			splicer.Close()
			splicer = nil
			return copyToFile(f, off+done, n-done, c)
		}
		if got < quickAckBelow {
			c.quickAck()
		}
		return got, err
	})
}

// CopyToFile is [Conn.ReadToFile] for any reader.
func CopyToFile(f *os.File, off, n int64, r io.Reader, came func(int64) error) (int64, error) {
	return readToFile(n, came, func(done int64) (int64, error) { return copyToFile(f, off+done, n-done, r) })
}

// readToFile calls read until n bytes have come.
func readToFile(n int64, came func(int64) error, read func(done int64) (int64, error)) (done int64, err error) {
	for done < n {
		got, err := read(done)
		done += got
		if got > 0 && came != nil {
			if err := came(got); err != nil {
				return done, err
			}
		}
		if err != nil && done < n {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return done, err
		}
	}
	return done, nil
}

// copyToFile reads at least one byte, and at most n.
func copyToFile(f *os.File, off, n int64, r io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	piece := (*buf)[:min(n, int64(len(*buf)))]
	got, err := io.ReadAtLeast(r, piece, min(len(piece), 64<<10))
	if got > 0 {
		if _, err := f.WriteAt(piece[:got], off); err != nil {
			return 0, &sys.WriteError{Err: err}
		}
	}
	return int64(got), err
}

// BeginFrame appends room for a frame's header to b.
func BeginFrame(b []byte) []byte { return append(b, make([]byte, headerSize)...) }

// EndFrame fills in the header of the frame that starts at b[start].
func EndFrame(b []byte, start int) []byte {
	binary.LittleEndian.PutUint64(b[start:], uint64(len(b)-start-headerSize))
	return b
}

// SendFD sends one data byte and a descriptor, after the reply that promised it.
func (c *Conn) SendFD(f *os.File) error {
	if !c.local || c.raw == nil {
		return errors.New("a descriptor cannot travel over TCP")
	}
	return sys.SendFD(c.raw, fdByte, f)
}

// RecvFD receives a descriptor that the last reply promised.
func (c *Conn) RecvFD() (*os.File, error) {
	if c.unix == nil {
		return nil, errors.New("a descriptor cannot travel over TCP")
	}
	return sys.RecvFD(c.unix)
}

// Raw returns the connection for calls that wrap system calls; nil when it has
// no descriptor (tests over pipes).
func (c *Conn) Raw() syscall.RawConn { return c.raw }

// Interrupt makes pending and later reads and writes fail.
func (c *Conn) Interrupt() {
	if c.blocking {
		_ = sys.Shutdown(c.raw)
		return
	}
	_ = c.SetDeadline(time.Unix(1, 0))
}

// Close closes the connection. Reads and writes under way fail.
func (c *Conn) Close() error {
	if c.blocking {
		_ = sys.Shutdown(c.raw) // the peer may have hung up
	}
	return c.Conn.Close()
}
