package sys

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ForgetText takes the program's code out of the process's resident memory; it
// stays in the page cache, from where the parts that are still run come back at
// once. A program that has started needs a small part of what it ran to start.
//
// Only mappings of the program's file that can be executed are touched: nothing
// is ever written there, so that nothing can be lost.
func ForgetText() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	var errs []error
	for s := bufio.NewScanner(bytes.NewReader(maps)); s.Scan(); {
		var from, to uintptr
		var perm string
		line := s.Text()
		if n, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perm); err != nil || n != 3 || perm != "r-xp" || !bytes.HasSuffix(s.Bytes(), []byte(program)) {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			errs = append(errs, os.NewSyscallError("madvise", errno))
		}
	}
	return errors.Join(errs...)
}
