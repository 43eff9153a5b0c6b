package sys

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// pair returns both ends of a TCP connection, ours as system calls want it.
func pair(t *testing.T) (syscall.RawConn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	raw, err := a.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return raw, b
}

// TestSplicer brings bytes into files that can be spliced into and such that cannot, and
// tells whose fault it is when that fails.
func TestSplicer(t *testing.T) {
	payload := make([]byte, 3<<20+5)
	for i := range payload {
		payload[i] = byte(rand.Uint32())
	}
	s, err := NewSplicer()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	for name, flag := range map[string]int{"spliced": 0, "copied": os.O_APPEND} { // which splice(2) refuses
		c, peer := pair(t)
		f, err := os.OpenFile(filepath.Join(t.TempDir(), name), os.O_RDWR|os.O_CREATE|flag, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		go func() { _, _ = peer.Write(payload); _ = peer.Close() }()
		var done int64
		for err == nil {
			var n int64
			n, err = s.Receive(c, f, done, 1<<40)
			done += n
		}
		got, _ := os.ReadFile(f.Name())
		if !errors.Is(err, io.EOF) || !bytes.Equal(got, payload) {
			t.Errorf("%s: %d bytes came, the file has %d: %v", name, done, len(got), err)
		}
	}

	c, peer := pair(t)
	go func() { _, _ = peer.Write(payload[:1000]) }()
	for _, f := range []string{os.DevNull, "/dev/full"} {
		file, err := os.OpenFile(f, map[string]int{os.DevNull: os.O_RDONLY, "/dev/full": os.O_WRONLY}[f], 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		s, err := NewSplicer()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		n, err := s.Receive(c, file, 0, 10)
		if _, ok := errors.AsType[*WriteError](err); n != 0 || !ok {
			t.Errorf("into %s: %d bytes, %v", f, n, err)
		}
	}

	// What is no socket cannot be spliced from like one: nothing is taken.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	raw, err := dir.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Receive(raw, w, 0, 10); n != 0 || err == nil {
		t.Errorf("from a folder: %d bytes, %v", n, err)
	}
}

// TestSplicerLimit refuses more than there may be, and gives back what is closed.
func TestSplicerLimit(t *testing.T) {
	for range 2 {
		var all []*Splicer
		for {
			s, err := NewSplicer()
			if err != nil {
				break
			}
			all = append(all, s)
		}
		if len(all) != mostSplicers {
			t.Errorf("%d splicers", len(all))
		}
		for _, s := range all {
			s.Close()
		}
	}
}
