package sys

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize is what a pipe should hold: with less, bytes come in smaller pieces.
const pipeSize = 1 << 20

// pipe is what bytes pass through between a socket and a file.
type pipe struct {
	fds [2]int
}

// pipes keeps empty pipes, as internal/poll does for the splices of package net.
// Those that nobody wants any more are closed by the garbage collector.
var pipes sync.Pool

func newPipe() (*pipe, error) {
	if p, ok := pipes.Get().(*pipe); ok {
		return p, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // users have a limit
	p := &pipe{fds}
	runtime.AddCleanup(p, closePipe, fds)
	return p, nil
}

func closePipe(fds [2]int) {
	_ = unix.Close(fds[0])
	_ = unix.Close(fds[1])
}

// ReceiveFile brings bytes that come over a connection into a file at off, without
// a copy of them in this process: at most n, and at least one. It returns how many,
// and io.EOF when the peer has hung up. ErrUnsupported means that nothing was taken
// and Read has to do it; a WriteError that bytes are lost, since the file did not
// take them.
func ReceiveFile(c syscall.RawConn, f *os.File, off, n int64) (got int64, err error) {
	p, err := newPipe()
	if err != nil { // no descriptor is left
		return 0, ErrUnsupported
	}
	if got, err = p.fill(c, n); err == nil {
		if err := with(f, func(file int) error { return p.drain(file, off, got) }); err != nil {
			runtime.KeepAlive(p) // what is left in it is nobody's
			return 0, &WriteError{err}
		}
	}
	pipes.Put(p)
	return got, err
}

// fill waits for bytes of a connection and takes at most n.
func (p *pipe) fill(c syscall.RawConn, n int64) (got int64, err error) {
	broken := c.Read(func(fd uintptr) bool {
		for {
			got, err = unix.Splice(int(fd), nil, p.fds[1], nil, int(min(n, pipeSize)), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
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
func (p *pipe) drain(file int, off, n int64) error {
	for n > 0 {
		k, err := unix.Splice(p.fds[0], nil, file, &off, int(n), unix.SPLICE_F_MOVE)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EINVAL): // not into a file of this kind
			return p.copyOut(file, off, n)
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
func (p *pipe) copyOut(file int, off, n int64) error {
	buf := make([]byte, min(n, pipeSize))
	for n > 0 {
		k, err := unix.Read(p.fds[0], buf[:min(n, int64(len(buf)))])
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
