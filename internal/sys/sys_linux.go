// Package sys is the one place that talks to the kernel: thin, typed wrappers
// over system calls. Elsewhere than Linux they answer ErrUnsupported, so that
// the remote client builds anywhere.
package sys

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Memfd creates an anonymous memory file of the given size. It is created
// close-on-exec.
func Memfd(name string, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:"+name)
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// with calls fn with a file's descriptor, which stays this file's until fn
// returns, whoever closes the file meanwhile.
func with(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = raw.Control(func(fd uintptr) { ferr = fn(int(fd)) })
	return errors.Join(err, ferr)
}

// SealSize forbids that a memfd is ever resized.
func SealSize(f *os.File) error {
	return with(f, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
		return os.NewSyscallError("fcntl(F_ADD_SEALS)", err)
	})
}

// Fallocate reserves real memory for a range of a file: later writes to it
// cannot fail for want of space.
func Fallocate(f *os.File, off, size int64) error {
	return fallocate(f, unix.FALLOC_FL_KEEP_SIZE, off, size)
}

func fallocate(f *os.File, mode uint32, off, size int64) error {
	return with(f, func(fd int) error {
		for {
			err := unix.Fallocate(fd, mode, off, size)
			if !errors.Is(err, unix.EINTR) {
				return os.NewSyscallError("fallocate", err)
			}
		}
	})
}

// Populate puts zeroed pages behind a range that Fallocate reserved: until then
// the first write to each pays for that. It maps the range for a moment; a file
// that someone truncated costs an error, no signal.
func Populate(f *os.File, off, size int64) error {
	m, err := mmap(f, off, size, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return err
	}
	err = unix.Madvise(m, unix.MADV_POPULATE_WRITE) // Linux 5.14
	return errors.Join(os.NewSyscallError("madvise", err), os.NewSyscallError("munmap", unix.Munmap(m)))
}

// PunchHole gives the memory of a range back; it reads as zeros afterwards.
func PunchHole(f *os.File, off, size int64) error {
	return fallocate(f, unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, off, size)
}

// Map maps size bytes of a file, shared. The mapping outlives the file.
func Map(f *os.File, size int, writable bool) ([]byte, error) {
	prot := unix.PROT_READ
	if writable {
		prot |= unix.PROT_WRITE
	}
	return mmap(f, 0, int64(size), prot)
}

func mmap(f *os.File, off, size int64, prot int) (b []byte, err error) {
	err = with(f, func(fd int) error {
		var err error
		b, err = unix.Mmap(fd, off, int(size), prot, unix.MAP_SHARED)
		return os.NewSyscallError("mmap", err)
	})
	return b, err
}

// Unmap removes a mapping made by Map. Slices of it fault afterwards.
func Unmap(b []byte) error { return os.NewSyscallError("munmap", unix.Munmap(b)) }

// Protect makes the whole pages of b read-only, or writable again.
func Protect(b []byte, writable bool) error {
	prot := unix.PROT_READ
	if writable {
		prot |= unix.PROT_WRITE
	}
	return os.NewSyscallError("mprotect", unix.Mprotect(b, prot))
}

// PageSize is the size of a plain page in bytes.
var PageSize = os.Getpagesize()

// Flock takes an exclusive lock on an open file or folder without waiting. It
// reports whether the lock was free.
func Flock(f *os.File) (bool, error) {
	err := with(f, func(fd int) error { return os.NewSyscallError("flock", unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// FreeBytes returns what is free on the file system of path and its type.
func FreeBytes(f *os.File) (free int64, tmpfs bool, err error) {
	st, err := statfs(f)
	if err != nil {
		return 0, false, err
	}
	return int64(st.Bavail) * st.Bsize, st.Type == unix.TMPFS_MAGIC, nil
}

// TotalBytes returns the size of the file system of an open file.
func TotalBytes(f *os.File) (int64, error) {
	st, err := statfs(f)
	if err != nil {
		return 0, err
	}
	return int64(st.Blocks) * st.Bsize, nil
}

func statfs(f *os.File) (st unix.Statfs_t, err error) {
	err = with(f, func(fd int) error { return os.NewSyscallError("fstatfs", unix.Fstatfs(fd, &st)) })
	return st, err
}

// MountHugeTmpfs mounts a private tmpfs of the given size whose files use huge
// pages. It needs CAP_SYS_ADMIN.
func MountHugeTmpfs(dir string, size int64, huge string) error {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	for _, kv := range [][2]string{{"huge", huge}, {"size", fmt.Sprint(size)}, {"mode", "0700"}, {"source", "v6d"}} {
		if err := unix.FsconfigSetString(fs, kv[0], kv[1]); err != nil {
			return fmt.Errorf("fsconfig %s=%s: %w", kv[0], kv[1], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return os.NewSyscallError("fsconfig", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mnt)
	return os.NewSyscallError("move_mount", unix.MoveMount(mnt, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// ResizeTmpfs changes the size limit of a mounted tmpfs.
func ResizeTmpfs(dir string, size int64) error {
	return os.NewSyscallError("mount", unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("size=%d", size)))
}

// Detach unmounts a folder lazily: files that are still mapped stay until
// their last user is gone.
func Detach(dir string) error {
	return os.NewSyscallError("umount2", unix.Unmount(dir, unix.MNT_DETACH))
}

// SetQuickAck asks the kernel to acknowledge at once. 0.24 clients send header
// and body apart and would stall 44 ms a request otherwise; the kernel forgets
// the wish, so it is repeated after reads.
func SetQuickAck(c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	})
	return errors.Join(cerr, err)
}

// HungUp reports whether the peer of a connection has gone, without reading.
func HungUp(c syscall.RawConn) bool {
	gone := false
	err := c.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return err != nil || gone
}

// PeerCred returns process and user of the other end of a UNIX connection.
func PeerCred(c *net.UnixConn) (pid, uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(cerr, os.NewSyscallError("getsockopt(SO_PEERCRED)", err)); err != nil {
		return 0, 0, err
	}
	return int(cred.Pid), int(cred.Uid), nil
}

// Blocking takes a connection over as a file whose reads and writes block their
// thread: no poller stands between the peer and who waits for it.
func Blocking(c *net.UnixConn) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	own := -1
	cerr := raw.Control(func(fd uintptr) {
		if own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(own, false)
		}
	})
	if err = errors.Join(cerr, os.NewSyscallError("fcntl", err)); err != nil {
		if own >= 0 {
			err = errors.Join(err, unix.Close(own))
		}
		return nil, err
	}
	return os.NewFile(uintptr(own), "unix"), c.Close()
}

// Shutdown ends a connection both ways: whoever waits for it goes on.
func Shutdown(c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	return errors.Join(cerr, os.NewSyscallError("shutdown", err))
}

// SendFD sends one data byte with a file descriptor attached.
func SendFD(c syscall.RawConn, data byte, f *os.File) error {
	what, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := what.Control(func(send uintptr) { // it stays open meanwhile
		rights := unix.UnixRights(int(send))
		werr := c.Write(func(fd uintptr) bool {
			for {
				if err = unix.Sendmsg(int(fd), []byte{data}, rights, nil, unix.MSG_NOSIGNAL); !errors.Is(err, unix.EINTR) {
					return !errors.Is(err, unix.EAGAIN)
				}
			}
		})
		err = errors.Join(werr, os.NewSyscallError("sendmsg", err))
	})
	return errors.Join(cerr, err)
}

// RecvFD reads one data byte and the descriptor attached to it.
func RecvFD(c *net.UnixConn) (*os.File, error) {
	var data [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(data[:], oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errors.New("connection closed where a descriptor was due")
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, os.NewSyscallError("parse control message", err)
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil || len(fds) == 0 {
			continue
		}
		for _, extra := range fds[1:] {
			unix.Close(extra)
		}
		unix.CloseOnExec(fds[0])
		return os.NewFile(uintptr(fds[0]), "received"), nil
	}
	return nil, errors.New("no descriptor came with the byte")
}

// ListenReuse makes a TCP listener's port reusable at once, as 0.24 does.
func ListenReuse(_, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	return errors.Join(cerr, err)
}

// RaiseFileLimit lifts the soft limit of open files to the hard one and
// returns it.
func RaiseFileLimit() (uint64, error) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	lim.Cur = lim.Max
	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
	return lim.Cur, os.NewSyscallError("setrlimit", err)
}

// Umask sets the file mode mask and returns the old one.
func Umask(mask int) int { return unix.Umask(mask) }

// FileFromFD takes over a descriptor that the process inherited.
func FileFromFD(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// Inode returns the device and inode numbers of an open file.
func Inode(f *os.File) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := with(f, func(fd int) error { return os.NewSyscallError("fstat", unix.Fstat(fd, &st)) }); err != nil {
		return 0, 0, err
	}
	return uint64(st.Dev), st.Ino, nil
}

// OpenElsewhere reports whether another open file description of a file exists:
// some process has it open or mapped, other than through a descriptor that f was
// passed on as. It needs no right to look at that process. It works by asking
// for a write lease, which is given back at once; where there are none, it fails.
func OpenElsewhere(f *os.File) (elsewhere bool, err error) {
	err = with(f, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK)
		if errors.Is(err, unix.EAGAIN) {
			elsewhere = true
			return nil
		}
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
		}
		return os.NewSyscallError("fcntl(F_SETLEASE)", err)
	})
	return elsewhere, err
}

// IsNoSpace reports whether an error says that space or memory ran out.
func IsNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EDQUOT)
}

// IsInvalid reports a request that this kernel does not know.
func IsInvalid(err error) bool { return errors.Is(err, unix.EINVAL) }

// SendFile sends n bytes of a file at off over a connection without copying
// them: the socket holds the file's pages until the peer has read them.
func SendFile(c syscall.RawConn, f *os.File, off, n int64) error {
	return with(f, func(file int) error {
		var failed error
		err := c.Write(func(fd uintptr) bool {
			for n > 0 {
				sent, err := unix.Sendfile(int(fd), file, &off, int(min(n, 1<<30)))
				switch {
				case errors.Is(err, unix.EAGAIN):
					return false
				case errors.Is(err, unix.EINTR):
					continue
				case err != nil:
					failed = os.NewSyscallError("sendfile", err)
					return true
				case sent == 0:
					failed = errors.New("sendfile: the file is shorter than it was")
					return true
				}
				n -= int64(sent)
			}
			return true
		})
		return errors.Join(err, failed)
	})
}

// ReadUmask returns the file mode mask without changing it.
func ReadUmask() int {
	old := unix.Umask(0o022)
	unix.Umask(old)
	return old
}
