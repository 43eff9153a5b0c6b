package server_test

import (
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/testserver"
)

// TestMemoryAhead: memory is made ready in the background, again when it was
// used, given back when a client asks for that, and then left alone until the
// next create. Small pools do without.
func TestMemoryAhead(t *testing.T) {
	const least = 68 * mib // of 72: what is used up to a unit counts
	d := testserver.Start(t, func(c *config.Serve) { c.Size = "512MiB" })
	c := connect(t, d)
	ahead := func(s server.Status) bool { return s.Ledger.Ahead >= least && s.Ledger.Ahead < least+16*mib }
	waitStatus(t, d, "memory ahead of the first create", ahead)
	p := c.put(pattern(1, 64*mib))
	if p.off > 8*mib {
		t.Errorf("the first blob lies at %d: not in what was ready", p.off)
	}
	waitStatus(t, d, "more memory ahead", ahead)
	sameBytes(t, "the blob", c.bytes(p), pattern(1, 64*mib))

	c.del(p.id)
	c.call("memory_trim_request")
	for range 20 {
		if st := nodeStatus(t, d); st.Ledger.Reserved > 8*mib {
			t.Fatalf("%d bytes are reserved after memory_trim", st.Ledger.Reserved)
		}
		time.Sleep(5 * time.Millisecond)
	}
	c.put([]byte("something small"))
	waitStatus(t, d, "memory ahead after the next create", ahead)

	small := testserver.Start(t, func(c *config.Serve) { c.Size = "48MiB" })
	connect(t, small).put([]byte("x"))
	time.Sleep(20 * time.Millisecond)
	if st := nodeStatus(t, small); st.Ledger.Reserved > 2*mib {
		t.Errorf("%d bytes are reserved in a small pool", st.Ledger.Reserved)
	}
}

// TestMoreClientsThanThreads: the first local connections have a thread of their
// own, the others are served all the same, and threads go with their
// connections.
func TestMoreClientsThanThreads(t *testing.T) {
	d := testserver.Start(t, nil)
	for round := range 2 {
		var all []*raw
		for range 300 {
			all = append(all, connect(t, d))
		}
		for i, c := range all {
			p := c.put([]byte{byte(i)})
			sameBytes(t, "a blob", c.bytes(p), []byte{byte(i)})
			c.del(p.id)
		}
		if st := nodeStatus(t, d); len(st.Connections) != len(all)+1 {
			t.Errorf("round %d: %d connections", round, len(st.Connections))
		}
		for _, c := range all {
			c.close()
		}
		waitStatus(t, d, "the clients to go", func(s server.Status) bool { return len(s.Connections) == 1 })
	}
}
