package sys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is what the pipe of a splicer should hold: with less, bytes come in
	// smaller pieces. Users without rights get small ones when all their pipes
	// together hold 64 MiB; below leastPipe copying is faster.
	pipeSize  = 1 << 20
	leastPipe = 256 << 10
	// mostSplicers bounds the descriptors and the memory of pipes.
	mostSplicers = 16
)

var splicers atomic.Int32

// Splicer brings bytes of connections into files without a copy of them in this
// process. It is used by one goroutine at a time.
type Splicer struct {
	fds [2]int // of a pipe, which is empty between calls
}

// NewSplicer returns a splicer, which the caller closes. It takes two descriptors, and
// is refused when there are many.
func NewSplicer() (*Splicer, error) {
	var s Splicer
	if splicers.Add(1) > mostSplicers {
		splicers.Add(-1)
		return nil, errors.New("there are enough splicers")
	}
	if err := unix.Pipe2(s.fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		splicers.Add(-1)
		return nil, os.NewSyscallError("pipe2", err)
	}
	_, _ = unix.FcntlInt(uintptr(s.fds[1]), unix.F_SETPIPE_SZ, pipeSize)
	if n, err := unix.FcntlInt(uintptr(s.fds[1]), unix.F_GETPIPE_SZ, 0); err != nil || n < leastPipe {
		s.Close()
		return nil, fmt.Errorf("a pipe holds %d bytes only", n)
	}
	return &s, nil
}

// Close frees the descriptors.
func (s *Splicer) Close() {
	splicers.Add(-1)
	_ = unix.Close(s.fds[0])
	_ = unix.Close(s.fds[1])
}

// Receive waits for bytes of a connection and writes them to a file at off: at most
// n, and at least one. It returns how many, and io.EOF when the peer has hung up.
// ErrUnsupported means that nothing was taken, and Read has to do it. After a
// WriteError the splicer is of no use any more, and neither is the connection.
func (s *Splicer) Receive(c syscall.RawConn, f *os.File, off, n int64) (got int64, err error) {
	if got, err = s.fill(c, n); err != nil {
		return 0, err
	}
	if err := with(f, func(file int) error { return s.drain(file, off, got) }); err != nil {
		return 0, &WriteError{err}
	}
	return got, nil
}

// fill waits for bytes of a connection and takes at most n.
func (s *Splicer) fill(c syscall.RawConn, n int64) (got int64, err error) {
	broken := c.Read(func(fd uintptr) bool {
		for {
			got, err = unix.Splice(int(fd), nil, s.fds[1], nil, int(min(n, pipeSize)), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EAGAIN):
				return false
			}
			return true
		}
	})
	switch {
	case broken != nil:
		return 0, broken
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		return 0, ErrUnsupported
	case err != nil:
		return 0, os.NewSyscallError("splice", err)
	case got == 0:
		return 0, io.EOF
	}
	return got, nil
}

// drain writes n bytes to a file at off.
func (s *Splicer) drain(file int, off, n int64) error {
	for n > 0 {
		k, err := unix.Splice(s.fds[0], nil, file, &off, int(n), unix.SPLICE_F_MOVE)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EINVAL): // not into a file of this kind
			return s.copyOut(file, off, n)
		case err != nil:
			return os.NewSyscallError("splice", err)
		case k == 0:
			return io.ErrShortWrite
		}
		n -= k // splice moves off
	}
	return nil
}

// copyOut is drain where splice is refused.
func (s *Splicer) copyOut(file int, off, n int64) error {
	buf := make([]byte, min(n, pipeSize))
	for n > 0 {
		k, err := unix.Read(s.fds[0], buf[:min(n, int64(len(buf)))])
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		for b := buf[:k]; len(b) > 0; {
			w, err := unix.Pwrite(file, b, off)
			if err != nil {
				return os.NewSyscallError("pwrite", err)
			}
			b, off, n = b[w:], off+int64(w), n-int64(w)
		}
	}
	return nil
}
