package sys

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Readable waits until a read of f would not block, or a time has passed. Regular
// files, and what has ended, are always readable.
func Readable(f *os.File, wait time.Duration) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	deadline := time.Now().Add(wait)
	for {
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Round(time.Millisecond).Milliseconds()))
		switch {
		case err == nil:
			return n > 0, nil
		case !errors.Is(err, unix.EINTR):
			return false, os.NewSyscallError("poll", err)
		}
	}
}
