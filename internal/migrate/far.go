package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

// maxReply bounds what a peer can make this daemon read into memory: a million blobs
// take less.
const maxReply = 256 << 20

// connect dials the peer, for as long as there is patience: it may just be
// starting again. 0.24 tries for ten seconds.
func (j *job) connect(ctx context.Context) (*client.Client, error) {
	deadline := time.Now().Add(j.m.opts.Patience)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		limited, cancel := context.WithTimeout(ctx, min(5*time.Second, j.m.opts.Patience))
		c, err := client.Dial(limited, client.Options{
			Endpoint: j.p.From.Endpoint, Session: j.p.From.Session, Compress: true, MaxReply: maxReply, Username: j.m.opts.Username, Password: j.m.opts.Password,
		})
		cancel()
		switch {
		case err == nil && c.Info().InstanceID != j.p.From.Instance:
			_ = c.Close() // the error says more
			return nil, givenUp{status.Errorf(status.ConnectionFailed, "at %s, where instance %d was, instance %d answers",
				j.p.From.Endpoint, j.p.From.Instance, c.Info().InstanceID)}
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !errors.Is(err, client.Unreachable) && !errors.Is(err, context.DeadlineExceeded) || time.Now().After(deadline):
			if errors.Is(err, context.DeadlineExceeded) {
				err = status.Errorf(status.ConnectionFailed, "no answer")
			}
			return nil, givenUp{status.Errorf(status.Of(err), "connect to instance %d at %s: %w", j.p.From.Instance, j.p.From.Endpoint, err).
				WithHint("is that daemon alive, and can it be reached from here? `v6d cluster ls` shows who can")}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// givenUp is the error of a peer that could not be reached again and again.
type givenUp struct{ error }

func (e givenUp) Unwrap() error { return e.error }

// sameHost connects to the peer over its IPC socket, if that is on this host. It
// returns nil when it is not.
func (m *Mover) sameHost(ctx context.Context, c *client.Client) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	there, err := c.Identity(ctx)
	if err != nil || there.Socket == "" {
		return nil, err
	}
	near, err := client.Dial(ctx, client.Options{Socket: there.Socket, MaxReply: maxReply, Username: m.opts.Username, Password: m.opts.Password})
	if err != nil {
		return nil, err
	}
	here, err := near.Identity(ctx)
	if err == nil && here.Nonce != there.Nonce {
		err = errors.New("another daemon answers on a socket of that name")
	}
	if err != nil {
		return nil, errors.Join(err, near.Close())
	}
	return near, nil
}

// far reads blobs piece by piece, over several connections.
func (j *job) far(ctx context.Context, first *client.Client) error {
	sizes, first, err := j.sizes(ctx, first)
	if err != nil {
		return err
	}
	if err := j.allot(Network, sizes); err != nil {
		return errors.Join(err, first.Close())
	}
	q := &queue{ids: j.p.IDs, sizes: sizes}
	n := j.p.Settings.Parallel
	if n == 0 {
		n = usualParallel
	}
	n = int(min(int64(n), max(1, j.t.Status().Total/(8<<20))))
	g, ctx := errgroup.WithContext(ctx)
	for i := range n {
		w := &worker{j: j, q: q, workers: n, size: firstPiece}
		if i == 0 {
			w.c = first
		}
		g.Go(func() error {
			defer w.hangUp()
			return w.run(ctx)
		})
	}
	return g.Wait()
}

// sizes asks how large the blobs are, over other connections when c breaks. It
// returns the one that it was told over, or closes them all.
func (j *job) sizes(ctx context.Context, c *client.Client) (sizes []int64, _ *client.Client, err error) {
	for idle := 0; ; {
		err = j.guarded(ctx, func(ctx context.Context, _ *atomic.Bool) (err error) {
			sizes, err = c.BlobSizes(ctx, j.p.IDs)
			return err
		})
		if err == nil {
			return sizes, c, nil
		}
		_ = c.Close() // nothing is lost with it
		if err = j.again(ctx, &idle, err); err != nil {
			return nil, nil, err
		}
		if c, err = j.connect(ctx); err != nil {
			return nil, nil, err
		}
	}
}

const (
	leastPiece = 64 << 10 // on links that break again and again
	firstPiece = 1 << 20  // before it is known how fast the link is
	largePiece = 32 << 20 // a round trip more for each does not count any more
	mostRanges = 4096     // of one request
	// pieceTime is what a piece should take: a lost connection costs half of that.
	pieceTime = 300 * time.Millisecond
	// slowLink is below how many bytes a second zstd is worth its time, on one
	// processor core and data that shrink by half.
	slowLink = 150e6
)

// queue hands out what is yet to come.
type queue struct {
	ids   []client.ID
	sizes []int64

	mu   sync.Mutex
	next int       // blob; guarded by mu, as all below
	off  int64     // in it
	back []segment // of pieces that failed
}

// segment is a range of the i-th blob.
type segment struct {
	i      int
	off, n int64
}

// take returns what is to come next, of about so many bytes: a part of one blob,
// or some whole ones. It returns nil when nothing is left.
func (q *queue) take(size int64) (piece []segment) {
	q.mu.Lock()
	defer q.mu.Unlock()
	seen := map[int]bool{}
	for len(q.back) > 0 && size > 0 && len(piece) < mostRanges {
		s := &q.back[len(q.back)-1]
		if seen[s.i] { // a request names each blob once
			return piece
		}
		seen[s.i] = true
		n := min(s.n, size)
		piece = append(piece, segment{s.i, s.off, n})
		size -= n
		if s.off, s.n = s.off+n, s.n-n; s.n == 0 {
			q.back = q.back[:len(q.back)-1]
		}
	}
	for q.next < len(q.ids) && size > 0 && len(piece) < mostRanges {
		if seen[q.next] {
			return piece
		}
		n := min(q.sizes[q.next]-q.off, size)
		if n > 0 {
			piece = append(piece, segment{q.next, q.off, n})
		}
		size -= n
		if q.off += n; q.off == q.sizes[q.next] {
			q.next, q.off = q.next+1, 0
		}
	}
	return piece
}

func (q *queue) giveBack(piece []segment) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.back = append(q.back, slices.DeleteFunc(piece, func(s segment) bool { return s.n == 0 })...)
}

// worker is one connection of a transfer.
type worker struct {
	j        *job
	q        *queue
	c        *client.Client // nil when it has to be connected
	workers  int
	size     int64 // of the next piece
	compress bool
	wasted   bool // bytes came with the last piece that have to come again
	idle     int  // connections that broke one after the other without a byte
}

func (w *worker) hangUp() {
	if w.c != nil {
		_ = w.c.Close() // nothing is lost with it
	}
}

func (w *worker) run(ctx context.Context) error {
	mode := w.j.p.Settings.Compress
	w.compress = mode == On
	for {
		piece := w.q.take(w.size)
		if len(piece) == 0 {
			return nil
		}
		start := time.Now()
		n, err := w.bring(ctx, piece)
		took := time.Since(start)
		if err != nil {
			w.q.giveBack(piece)
			if err = w.recover(ctx, err, n > 0); err != nil {
				return err
			}
			continue
		}
		w.idle = 0
		w.tune(n, took, mode)
	}
}

// tune chooses the size of the next piece, and whether to compress it, by how long
// one took.
func (w *worker) tune(n int64, took time.Duration, mode Mode) {
	switch {
	case n < w.size/2: // there was no more
	case took < pieceTime/2:
		w.size = min(2*w.size, largePiece)
	case took > 2*pieceTime:
		w.size = max(w.size/2, min(w.size, firstPiece))
	}
	// Under a limit of our own nothing is known of the link.
	if mode != On && mode != Off && !w.compress && w.j.limit == nil && n >= firstPiece/2 {
		w.compress = float64(n)*float64(w.workers)/took.Seconds() < slowLink
	}
}

// bring reads a piece. On an error the segments are shortened by what has come, and
// fits its checksum where there is one; n tells how much that was.
func (w *worker) bring(ctx context.Context, piece []segment) (n int64, err error) {
	j := w.j
	if w.c == nil {
		if w.c, err = j.connect(ctx); err != nil {
			return 0, err
		}
	}
	ranges := make([]client.Range, len(piece))
	for i, s := range piece {
		ranges[i] = client.Range{ID: j.p.IDs[s.i], Off: s.off, Len: s.n}
	}
	if w.compress {
		j.t.squeezed.Store(true)
	}
	verify := j.p.Settings.Verify || w.compress
	o := client.RangeOptions{Compress: w.compress, Sums: verify}
	came := make([]int64, len(piece))
	verified := 0 // segments
	err = j.guarded(ctx, func(ctx context.Context, seen *atomic.Bool) error {
		return w.c.ReadRanges(ctx, ranges, o, func(i int, _ int64, body *client.Body) error {
			verified = i // the checksums of those before fit
			return j.write(ctx, j.views[piece[i].i], piece[i].off, piece[i].n, body, &came[i], seen)
		})
	})
	w.wasted = false
	for i, k := range came {
		if err != nil && verify && i >= verified {
			j.t.done.Add(-k)
			w.wasted = w.wasted || k > 0
			k = 0
		}
		n += k
		if err != nil {
			piece[i].off += k
			piece[i].n -= k
		}
	}
	return n, err
}

// recover decides whether a failed piece is worth another connection.
func (w *worker) recover(ctx context.Context, err error, progress bool) error {
	w.hangUp()
	w.c = nil
	least := min(w.size, firstPiece)
	if w.wasted { // so much at once does not get through
		least = leastPiece
	}
	w.size = max(w.size/2, least)
	if progress && ctx.Err() == nil && broken(err) {
		w.idle = 0
		w.j.resume(err)
		return nil
	}
	return w.j.again(ctx, &w.idle, err)
}

// again decides whether a request that failed without a byte is worth another
// connection, and waits a moment before that. idle counts them.
func (j *job) again(ctx context.Context, idle *int, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !broken(err) && !errors.Is(err, client.ErrChecksum) {
		return j.gone(err)
	}
	if *idle++; errors.Is(err, errSilent) { // that took long enough: once more
		*idle += mostIdle / 2
	}
	if *idle > mostIdle {
		return j.unsteady(err)
	}
	j.resume(err)
	select {
	case <-time.After(100 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
}

// resume notes that a connection was lost, and another takes over.
func (j *job) resume(err error) {
	j.t.resumed.Add(1)
	j.m.opts.Log.Info("a transfer goes on over another connection", "object", j.p.Object, "err", err)
}

// mostIdle bounds how often a connection may break before a byte comes.
const mostIdle = 20
