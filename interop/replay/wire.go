package replay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// How long the replay waits. A reply that does not come is a failure and so
// may take long to notice; silence is expected and has to be short.
const (
	replyTimeout = 10 * time.Second
	parkTime     = 150 * time.Millisecond // a parked request stays unanswered
	strayTime    = 5 * time.Millisecond   // a byte too many after the last reply
	silenceTime  = 300 * time.Millisecond // a "timeout" event of a recording
)

// maxFrame bounds what the replay accepts as the length of a reply.
const maxFrame = 64 << 20

// A wire is a client's connection: frames, descriptors and raw bytes.
type wire struct {
	net.Conn
	unix *net.UnixConn // nil on TCP
}

func dial(network, address string) (*wire, error) {
	c, err := net.DialTimeout(network, address, replyTimeout)
	if err != nil {
		return nil, err
	}
	u, _ := c.(*net.UnixConn)
	return &wire{c, u}, nil
}

// send writes frames, all in one piece.
func (w *wire) send(bodies ...[]byte) error {
	var b []byte
	for _, body := range bodies {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(body)))
		b = append(b, body...)
	}
	return w.write(b)
}

func (w *wire) write(b []byte) error {
	if err := w.SetWriteDeadline(time.Now().Add(replyTimeout)); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// frame reads one frame.
func (w *wire) frame() ([]byte, error) {
	head, err := w.take(8)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(head)
	if n > maxFrame {
		return nil, fmt.Errorf("frame of %d bytes announced", n)
	}
	return w.take(int(n))
}

// take reads exactly n bytes, which must not carry a descriptor.
func (w *wire) take(n int) ([]byte, error) {
	if err := w.SetReadDeadline(time.Now().Add(replyTimeout)); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if w.unix == nil {
		_, err := io.ReadFull(w, b)
		return b, err
	}
	oob := make([]byte, syscall.CmsgSpace(4))
	for at := 0; at < n; {
		got, extra, _, _, err := w.unix.ReadMsgUnix(b[at:], oob)
		if extra > 0 {
			return nil, errors.Join(errors.New("a descriptor attached to bytes of a frame"), closeAll(oob[:extra]))
		}
		if err == nil && got == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		at += got
	}
	return b, nil
}

// dataByte is what the reference sends with each descriptor, and what a client
// that reuses its control buffer for it needs.
const dataByte = 0x14

// descriptor receives one descriptor and its data byte.
func (w *wire) descriptor() (*os.File, error) {
	if w.unix == nil {
		return nil, errors.New("a descriptor expected on TCP")
	}
	if err := w.SetReadDeadline(time.Now().Add(replyTimeout)); err != nil {
		return nil, err
	}
	b, oob := make([]byte, 1), make([]byte, syscall.CmsgSpace(8))
	n, extra, _, _, err := w.unix.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, err
	}
	fds, err := descriptorsIn(oob[:extra])
	if err != nil {
		return nil, err
	}
	if n != 1 || len(fds) != 1 {
		return nil, errors.Join(fmt.Errorf("%d data bytes with %d descriptors, not one with one", n, len(fds)), closeAll(oob[:extra]))
	}
	if b[0] != dataByte {
		return nil, errors.Join(fmt.Errorf("data byte %#x, not %#x", b[0], dataByte), closeAll(oob[:extra]))
	}
	return os.NewFile(uintptr(fds[0]), "received"), nil
}

func descriptorsIn(oob []byte) ([]int, error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range messages {
		rights, err := syscall.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		fds = append(fds, rights...)
	}
	return fds, nil
}

func closeAll(oob []byte) error {
	fds, err := descriptorsIn(oob)
	for _, fd := range fds {
		err = errors.Join(err, syscall.Close(fd))
	}
	return err
}

// errHungUp says that the daemon closed the connection.
var errHungUp = errors.New("the daemon hung up")

// silent waits for d and returns nil if nothing arrived; errHungUp if the
// daemon closed. It consumes nothing.
func (w *wire) silent(d time.Duration) error {
	raw, err := w.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	if err := w.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	var arrived error
	err = raw.Read(func(fd uintptr) bool {
		arrived = peek(int(fd))
		return arrived != nil
	})
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return arrived
}

// quiet is silent without waiting.
func (w *wire) quiet() error {
	raw, err := w.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var arrived error
	if err := raw.Control(func(fd uintptr) { arrived = peek(int(fd)) }); err != nil {
		return err
	}
	return arrived
}

// peek returns nil if nothing can be read, or what can be.
func peek(fd int) error {
	b := make([]byte, 256)
	n, _, err := syscall.Recvfrom(fd, b, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return nil
	case errors.Is(err, syscall.ECONNRESET), err == nil && n == 0:
		return errHungUp
	case err != nil:
		return err
	}
	return fmt.Errorf("bytes that nobody asked for: %q", b[:n])
}

// hungUp waits until the daemon closes the connection without another byte.
func (w *wire) hungUp() error {
	switch err := w.silent(replyTimeout); {
	case errors.Is(err, errHungUp):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("still open after %v", replyTimeout)
}

// hangUp closes the connection and waits until the daemon has noticed: it
// closes its side when it has cleaned up.
func (w *wire) hangUp() error {
	half, ok := w.Conn.(interface{ CloseWrite() error })
	if !ok {
		return w.Close()
	}
	return errors.Join(half.CloseWrite(), w.hungUp(), w.Close())
}
