// Package migrate moves blobs between daemons.
//
// Vocabulary: a pull brings blobs of a peer into this daemon's pool; a Transfer is
// what others see of a pull that is under way. Whoever wants the bytes pulls them:
// nobody pushes. A piece is what one request brings: a range of a large blob, or
// many small blobs.
//
// There are three ways. A daemon on the same host is read over its IPC socket: its
// pool is mapped, and one copy brings the bytes here. Two daemons know that they
// share a host when the nonce that one gives over TCP is what answers on the
// socket that it names. Another v6d daemon is read over several connections, piece
// by piece, so that a broken connection costs a piece and not the whole. Any
// other daemon is read with one get_remote_buffers request, as 0.24 daemons do
// among themselves.
//
// A pull that fails leaves nothing behind.
package migrate

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/v6d-go/v6d/internal/object"
)

// Options configures a Mover.
type Options struct {
	Log *slog.Logger
	// Patience is how long a pull goes on without a byte, while its peer cannot be
	// reached or says nothing (20 s).
	Patience time.Duration
	// Username and Password are for peers with --htpasswd.
	Username, Password string
}

// Mover pulls blobs from other daemons. It is safe for concurrent use.
type Mover struct {
	opts  Options
	nonce string

	mu      sync.Mutex
	running map[*Transfer]struct{} // guarded by mu
	last    uint64                 // number of the newest transfer; guarded by mu
	count   Counters               // guarded by mu, but for Sent
	sent    atomic.Uint64
}

// Counters count since the start.
type Counters struct {
	Transfers uint64 `json:"transfers"`       // that ended well
	Failed    uint64 `json:"failed"`          // that did not
	Received  uint64 `json:"received_bytes"`  // by transfers
	Sent      uint64 `json:"sent_bytes"`      // to v6d peers, over TCP
	Reconnect uint64 `json:"reconnections"`   // of transfers that went on
	Local     uint64 `json:"same_host_bytes"` // of those received, without TCP
}

// New returns a Mover of which nobody else has the nonce.
func New(o Options) *Mover {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Patience == 0 {
		o.Patience = 20 * time.Second
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	return &Mover{opts: o, nonce: hex.EncodeToString(nonce), running: map[*Transfer]struct{}{}}
}

// Nonce is what this daemon says to those who ask whether it is on their host.
func (m *Mover) Nonce() string { return m.nonce }

// Sent counts bytes that a peer has been sent.
func (m *Mover) Sent(n int64) { m.sent.Add(uint64(n)) }

// Counters returns what was counted.
func (m *Mover) Counters() Counters {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.count
	c.Sent = m.sent.Load()
	return c
}

// Transfer is a pull under way.
type Transfer struct {
	number  uint64
	what    object.ID
	why     string
	from    Source
	started time.Time
	cancel  context.CancelCauseFunc

	done     atomic.Int64 // bytes
	resumed  atomic.Int64
	squeezed atomic.Bool // some of it was asked for compressed

	mu    sync.Mutex
	way   Way   // guarded by mu, as all below
	blobs int   // -1 before they are known
	total int64 // bytes
	took  time.Duration
}

// Way is how bytes come.
type Way string

// The ways.
const (
	Here     Way = "here"    // nothing had to move
	SameHost Way = "ipc"     // one copy from the peer's pool
	Network  Way = "tcp"     // ranges, over several connections
	Classic  Way = "classic" // one request of the 0.24 protocol
)

// Status is a Transfer as others see it, and what a migration answers.
type Status struct {
	Number     uint64            `json:"transfer"`
	Object     object.ID         `json:"object"`             // that is moved, or of which members are fetched
	Kind       string            `json:"kind"`               // migrate or fetch
	Instance   object.InstanceID `json:"instance"`           // where the bytes come from
	Endpoint   string            `json:"endpoint,omitempty"` // its address
	Way        Way               `json:"way"`                // ipc, tcp, classic, here; empty while connecting
	Blobs      int               `json:"blobs"`
	Bytes      int64             `json:"bytes"` // that are here
	Total      int64             `json:"total"` // that are to come; 0 before that is known
	MS         int64             `json:"time_ms"`
	Resumed    int64             `json:"resumed"`    // how often a connection was lost
	Compressed bool              `json:"compressed"` // at least a part was asked for compressed
}

// Status describes a transfer.
func (t *Transfer) Status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	took := t.took
	if took == 0 {
		took = time.Since(t.started)
	}
	return Status{
		Number: t.number, Object: t.what, Kind: t.why, Instance: t.from.Instance, Endpoint: t.from.Endpoint, Way: t.way,
		Blobs: t.blobs, Bytes: t.done.Load(), Total: t.total, MS: took.Milliseconds(), Resumed: t.resumed.Load(),
		Compressed: t.squeezed.Load(),
	}
}

// known notes what is to come.
func (t *Transfer) known(way Way, sizes []int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.way, t.blobs, t.total = way, len(sizes), 0
	for _, n := range sizes {
		t.total += n
	}
}

// begin registers a transfer; end takes it off and counts it.
func (m *Mover) begin(t *Transfer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	t.number, t.started = m.last, time.Now()
	m.running[t] = struct{}{}
}

func (m *Mover) end(t *Transfer, err error) {
	t.mu.Lock()
	t.took = max(time.Since(t.started), 1)
	way := t.way
	t.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.running, t)
	n := uint64(t.done.Load())
	m.count.Received += n
	m.count.Reconnect += uint64(t.resumed.Load())
	if way == SameHost {
		m.count.Local += n
	}
	if err != nil {
		m.count.Failed++
	} else {
		m.count.Transfers++
	}
}

// Running lists the transfers under way, the oldest first.
func (m *Mover) Running() []Status {
	m.mu.Lock()
	list := slices.Collect(maps.Keys(m.running))
	m.mu.Unlock()
	out := make([]Status, 0, len(list))
	for _, t := range list {
		out = append(out, t.Status())
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Number, b.Number) })
	return out
}
