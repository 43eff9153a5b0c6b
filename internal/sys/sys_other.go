//go:build !linux

// Package sys is the one place that talks to the kernel. Elsewhere than Linux
// it answers ErrUnsupported, so that the remote client builds anywhere.
package sys

import (
	"net"
	"os"
	"syscall"
)

// PageSize is the size of a plain page in bytes.
var PageSize = os.Getpagesize()

// Map is not supported here.
func Map(*os.File, int, bool) ([]byte, error) { return nil, ErrUnsupported }

// Unmap is not supported here.
func Unmap([]byte) error { return ErrUnsupported }

// Protect is not supported here.
func Protect([]byte, bool) error { return ErrUnsupported }

// SetQuickAck does nothing here.
func SetQuickAck(syscall.RawConn) error { return nil }

// SendFD is not supported here.
func SendFD(syscall.RawConn, byte, *os.File) error { return ErrUnsupported }

// Blocking is not supported here.
func Blocking(*net.UnixConn) (*os.File, error) { return nil, ErrUnsupported }

// Shutdown is not supported here.
func Shutdown(syscall.RawConn) error { return ErrUnsupported }

// RecvFD is not supported here.
func RecvFD(*net.UnixConn) (*os.File, error) { return nil, ErrUnsupported }

// Splicer is not supported here.
type Splicer struct{}

// NewSplicer is not supported here.
func NewSplicer() (*Splicer, error) { return nil, ErrUnsupported }

// Close does nothing here.
func (*Splicer) Close() {}

// Receive is not supported here.
func (*Splicer) Receive(syscall.RawConn, *os.File, int64, int64) (int64, error) {
	return 0, ErrUnsupported
}
