package server_test

import (
	"errors"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

// TestTruncatedPool: a client that truncates the pool's file costs errors that
// name the file and who maps it; the daemon lives and says so in its status.
func TestTruncatedPool(t *testing.T) {
	d := testserver.Start(t, nil)
	c, rpc := connect(t, d), connectRPC(t, d)
	blob := c.put(pattern(1, 2<<20))
	path := d.Server.Report().Place.Path
	p := start(t, "truncater", envSocket+"="+d.Socket)
	named := []string{path, "truncated", strconv.Itoa(p.Process.Pid)}

	contains(t, "download", rpc.refused(status.IOError, "get_remote_buffers_request", "num", 1, "0", blob.id), named...)
	contains(t, "packed download", rpc.refused(status.IOError, "get_remote_buffers_request", "num", 1, "0", blob.id, "compress", true), named...)
	contains(t, "upload", rpc.refused(status.IOError, "create_remote_buffer_request", "size", 1000), named...)
	contains(t, "uploads", rpc.refused(status.IOError, "create_remote_buffers_request", "sizes", []int{1000, 0}, "num", 2), named...)
	contains(t, "status", nodeStatus(t, d).Damage, named...)
	testserver.WaitFor(t, "the log to say so", func() bool { return strings.Contains(d.Log(), "the pool is damaged") })

	// Who maps the file would die of SIGBUS beyond its end: no more of it is
	// handed out once the damage is known.
	contains(t, "create", c.refused(status.IOError, "create_buffer_request", "size", 1000), named...)
	contains(t, "creates", c.refused(status.IOError, "create_buffers_request", "sizes", []int{1000}, "num", 1), named...)
	contains(t, "get", c.refused(status.IOError, "get_buffers_request", "ids", []uint64{blob.id}), named...)

	// Growing the file again does not bring the bytes back.
	if err := c.fds[blob.fd].Truncate(72 << 20); err != nil {
		t.Fatal(err)
	}
	contains(t, "after growing", c.refused(status.IOError, "get_buffers_request", "ids", []uint64{blob.id}), named...)

	// Metadata, deletion and other sessions are not concerned.
	c.del(blob.id)
	other := dialUnix(t, c.call("new_session_request", "bulk_store_type", 1).str("socket_path")).register()
	q := other.put(pattern(2, 1000))
	sameBytes(t, "another session", other.bytes(q), pattern(2, 1000))
	p.kill()
	waitStatus(t, d, "its unsealed blobs to go", func(s server.Status) bool { return s.Damage != "" && s.Ledger.Unsealed == 0 })
}

// TestTruncatedWhileSending: the file shrinks while its bytes are on the way.
func TestTruncatedWhileSending(t *testing.T) {
	for _, compress := range []bool{false, true} {
		d := testserver.Start(t, nil)
		c, rpc := connect(t, d), connectRPC(t, d)
		blob := c.put(noiseBytes(32 << 20))
		rpc.call("get_remote_buffers_request", "num", 1, "0", blob.id, "compress", compress) // not read: the socket is full
		if err := c.fds[blob.fd].Truncate(0); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1<<20)
		total := 0
		for {
			n, err := rpc.net.Read(buf)
			if total += n; err != nil {
				break
			}
		}
		if total >= 32<<20 {
			t.Errorf("compress %v: %d bytes came from a file that was truncated", compress, total)
		}
		alive := connect(t, d)
		alive.exists(1)
	}
}

// TestMemfdCannotBeTruncated: anonymous pools are sealed against it.
func TestMemfdCannotBeTruncated(t *testing.T) {
	d := testserver.Start(t, func(c *config.Serve) { c.Memory = "anonymous" })
	c := connect(t, d)
	p := c.put(pattern(1, 1000))
	for _, size := range []int64{0, 4096, 1 << 40} {
		if err := c.fds[p.fd].Truncate(size); !errors.Is(err, syscall.EPERM) {
			t.Errorf("truncate to %d: %v, want EPERM", size, err)
		}
	}
	alive(t, d)
	c.bytes(p)
}
