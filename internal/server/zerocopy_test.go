package server_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/sys"
	"github.com/v6d-go/v6d/internal/testserver"
)

// TestSameMemory: all connections see a blob in the same file at the same place,
// from its creation on; what the creator writes after a get is seen by all.
func TestSameMemory(t *testing.T) {
	d := testserver.Start(t, nil)
	creator := connect(t, d)
	var inode [2]uint64
	p := creator.put(pattern(1, 100_000))
	for i := range 4 {
		c := connect(t, d)
		q := c.get(p.id)
		if q.off != p.off || q.fd != p.fd || q.size != p.size {
			t.Errorf("connection %d finds the blob at %+v, the creator at %+v", i, q, p)
		}
		dev, ino, err := sys.Inode(c.fds[q.fd])
		if err != nil {
			t.Fatal(err)
		}
		if inode == [2]uint64{} {
			inode = [2]uint64{dev, ino}
		}
		if inode != [2]uint64{dev, ino} {
			t.Errorf("connection %d got inode %d of device %d, others %v", i, ino, dev, inode)
		}
		creator.fill(p, pattern(byte(10+i), 100_000))
		sameBytes(t, "a shared blob", c.bytes(q), pattern(byte(10+i), 100_000))
	}
}

// dialSmall registers over TCP with a small receive buffer, so that little of a
// download leaves the daemon before it is read.
func dialSmall(t testing.TB, d *testserver.Daemon) *raw {
	t.Helper()
	c := dialTCP(t, d.RPC)
	if err := c.net.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	return c.register()
}

// readSlowly reads n bytes in pieces, with pauses.
func (c *raw) readSlowly(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	for done := 0; done < n; {
		c.net.SetReadDeadline(time.Now().Add(patience))
		m, err := io.ReadFull(c.net, b[done:min(done+512<<10, n)])
		if done += m; err != nil {
			c.t.Fatalf("after %d of %d bytes: %v", done, n, err)
		}
		time.Sleep(100 * time.Microsecond)
	}
	return b
}

// overwrite fills all memory of the pool that is free, again and again, with
// other bytes.
func overwrite(c *raw, free int64) {
	for round := range 2 {
		var list []uint64
		for n := int64(0); n+mib <= free; n += mib {
			list = append(list, c.put(pattern(byte(0xf0+round), mib)).id)
		}
		c.call("del_data_request", "id", list, "fastpath", true)
	}
}

// TestStalledDownload: a client asks for a blob and does not read it yet. The
// blob is deleted and all other memory reused meanwhile. What it reads in the
// end is right, whether the bytes were still in the pool or already on their
// way: the kernel sends the pool's own pages.
func TestStalledDownload(t *testing.T) {
	for name, dial := range map[string]func(testing.TB, *testserver.Daemon) *raw{"tcp": dialSmall, "unix": connect} {
		for _, size := range []int{100, 50_000, 5 * mib} {
			for _, packed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %d packed=%v", name, size, packed), func(t *testing.T) {
					d := startSized(t, "10MiB", false)
					c, slow := connect(t, d), dial(t, d)
					data := noiseBytes(size)
					p := c.put(data)
					slow.call("get_remote_buffers_request", "num", 1, "0", p.id, "compress", packed)
					c.call("drop_buffer_request", "id", p.id)
					if _, deferred, _ := ledger(t, d); deferred != int64(size) {
						t.Fatalf("deferred %d of %d bytes that are on their way", deferred, size)
					}
					overwrite(c, 10*mib-int64(size))
					if packed {
						sameBytes(t, "a packed download", slow.unpack(size), data)
					} else {
						sameBytes(t, "a download", slow.readSlowly(size), data)
					}
					if st := nodeStatus(t, d); st.Ledger.Reclaimed != 0 {
						t.Errorf("%d blobs on their way were reclaimed", st.Ledger.Reclaimed)
					}
					slow.exists(1) // the next request proves that it has read all
					if _, deferred, _ := ledger(t, d); deferred != 0 {
						t.Errorf("deferred %d after the next request", deferred)
					}
				})
			}
		}
	}
}

// TestAbandonedDownload: the hang-up of a client that never read frees the blob.
func TestAbandonedDownload(t *testing.T) {
	d := startSized(t, "24MiB", false)
	c := connect(t, d)
	for _, dial := range []func(testing.TB, *testserver.Daemon) *raw{dialSmall, connect} {
		p := c.put(noiseBytes(12 * mib))
		slow := dial(t, d)
		slow.call("get_remote_buffers_request", "num", 2, "0", p.id, "1", p.id)
		c.del(p.id)
		slow.close()
		waitStatus(t, d, "the blob to be free", func(s server.Status) bool { return s.Ledger.Deferred == 0 })
	}
}

// TestPipelinedDownload: requests that were sent before a download was read
// prove nothing; the bytes of all of them are right.
func TestPipelinedDownload(t *testing.T) {
	for name, dial := range map[string]func(testing.TB, *testserver.Daemon) *raw{"tcp": dialSmall, "unix": connect} {
		t.Run(name, func(t *testing.T) {
			d := startSized(t, "10MiB", false)
			c, slow := connect(t, d), dial(t, d)
			var blobs []payload
			var all []byte
			for i := range 8 {
				p := c.put(pattern(byte(i), 20_000))
				blobs = append(blobs, p)
				all = append(all, request("get_remote_buffers_request", "num", 1, "0", p.id)...)
			}
			all = append(all, request("exists_request", "id", 1)...)
			slow.write(all)
			waitStatus(t, d, "all to be answered", func(s server.Status) bool {
				return s.Connections[1].Requests == 10 && s.Connections[1].Idle // in order of arrival
			})
			c.call("del_data_request", "id", ids(blobs), "fastpath", true)
			overwrite(c, 10*mib)
			for i := range blobs {
				if r := slow.recv(); r.code() != 0 {
					t.Fatal(r)
				}
				sameBytes(t, fmt.Sprintf("download %d", i), slow.readSlowly(20_000), pattern(byte(i), 20_000))
			}
			if r := slow.recv(); r.str("type") != "exists_reply" {
				t.Fatal(r)
			}
		})
	}
}
