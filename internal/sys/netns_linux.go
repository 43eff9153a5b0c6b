package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// InNetns calls f on a thread that is in another network namespace: that of a
// path such as /run/netns/NAME. A namespace is a property of threads; sockets
// and processes take over that of the thread that creates them, and keep it.
// What f hands to goroutines therefore happens outside: among the rest the
// resolution of host names, so f dials numeric addresses only.
func InNetns(path string, f func() error) (err error) {
	target, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer target.Close()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("network namespace: %w", err)
	}
	defer home.Close()
	if err := setns(target); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		if back := setns(home); back != nil {
			err = errors.Join(err, back) // the thread stays locked: it ends with the goroutine, nobody else gets it
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

func setns(f *os.File) error {
	return with(f, func(fd int) error { return os.NewSyscallError("setns", unix.Setns(fd, unix.CLONE_NEWNET)) })
}
