package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
	"github.com/v6d-go/v6d/internal/sys"
)

// Source is a daemon to pull from.
type Source struct {
	Instance object.InstanceID
	Endpoint string // host:port
	Session  object.SessionID
	Local    bool // may be on this host: its socket is tried
}

// Mode says when payload is compressed.
type Mode string

// The modes. Auto compresses what shrinks on links that are slower than the
// compressor.
const (
	Auto Mode = "auto"
	On   Mode = "on"
	Off  Mode = "off"
)

// Settings says how a pull goes.
type Settings struct {
	Parallel int   // connections; 0 for the usual number
	Limit    int64 // bytes a second; 0 for none
	Compress Mode  // "" is Auto
	Verify   bool  // compare checksums of what comes over TCP
}

const (
	usualParallel = 4
	mostParallel  = 32
)

// Check reports settings that make no sense.
func (s *Settings) Check() error {
	switch {
	case s.Compress != "" && s.Compress != Auto && s.Compress != On && s.Compress != Off:
		return status.Errorf(status.UserInputError, "compress is %q: want auto, on or off", s.Compress)
	case s.Parallel < 0 || s.Parallel > mostParallel:
		return status.Errorf(status.UserInputError, "parallel is %d: want 1 to %d", s.Parallel, mostParallel)
	case s.Limit < 0:
		return status.Errorf(status.UserInputError, "a limit of %d bytes a second", s.Limit)
	}
	return nil
}

// Pull is one request to bring blobs here.
type Pull struct {
	Object   object.ID // that they belong to, for people
	Kind     string    // migrate or fetch
	From     Source
	IDs      []object.ID // distinct, without the empty blob
	Into     *store.Session
	Holder   *store.Holder // who owns them until they are sealed
	Settings Settings
}

// Run pulls the blobs and returns where they are, in the order of the ids: all
// written, none sealed. On an error there are none. When ctx ends, so does the
// pull.
func (m *Mover) Run(ctx context.Context, p Pull) (views []store.View, st Status, err error) {
	if err := p.Settings.Check(); err != nil {
		return nil, Status{}, err
	}
	t := &Transfer{what: p.Object, why: p.Kind, from: p.From, blobs: len(p.IDs)}
	ctx, t.cancel = context.WithCancelCause(ctx)
	defer t.cancel(nil)
	m.begin(t)
	j := &job{m: m, p: p, t: t, step: step}
	if p.Settings.Limit > 0 {
		// Nobody waits for its turn so long that its peer seems to be silent.
		j.step = min(step, max(p.Settings.Limit/mostParallel, 1))
		j.limit = rate.NewLimiter(rate.Limit(p.Settings.Limit), int(min(max(p.Settings.Limit/10, step), 64<<20)))
	}
	err = j.run(ctx)
	if err != nil {
		j.discard()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	m.end(t, err)
	if err != nil {
		m.opts.Log.Warn("a transfer failed", "object", p.Object, "from", p.From.Instance, "at", p.From.Endpoint, "err", err)
		return nil, t.Status(), err
	}
	st = t.Status()
	level := slog.LevelInfo
	if p.Kind == "fetch" { // readers may cause thousands
		level = slog.LevelDebug
	}
	m.opts.Log.Log(ctx, level, "transferred", "kind", p.Kind, "object", p.Object, "from", p.From.Instance, "way", st.Way, "bytes", st.Bytes, "ms", st.MS, "resumed", st.Resumed)
	return j.views, st, nil
}

// job is a pull at work.
type job struct {
	m     *Mover
	p     Pull
	t     *Transfer
	limit *rate.Limiter // nil for none
	step  int64         // bytes that are written at once
	views []store.View
}

// step is the piece in which bytes are written to the pool.
const step = 1 << 20

func (j *job) run(ctx context.Context) error {
	if len(j.p.IDs) == 0 {
		j.t.known(Here, nil)
		return nil
	}
	c, err := j.connect(ctx)
	if err != nil {
		return err
	}
	if !c.Info().Extended {
		defer func() { _ = c.Close() }()
		return j.classic(ctx, c)
	}
	if j.p.From.Local {
		near, err := j.m.sameHost(ctx, c)
		if err != nil {
			j.m.opts.Log.Debug("not read over the peer's socket", "peer", j.p.From.Endpoint, "err", err)
		}
		if near != nil {
			_ = c.Close() // another connection takes over
			defer func() { _ = near.Close() }()
			return j.near(ctx, near)
		}
	}
	return j.far(ctx, c)
}

// allot makes room for the blobs, all or none.
func (j *job) allot(way Way, sizes []int64) (err error) {
	j.t.known(way, sizes)
	j.views, err = j.p.Into.CreateIncoming(j.p.Holder, sizes)
	if err != nil {
		return fmt.Errorf("make room for %d blobs of %s: %w", len(sizes), j.whose(), err)
	}
	for _, v := range j.views {
		if v.File == nil {
			continue
		}
		if err := v.File.CheckSize(); err != nil {
			return err
		}
	}
	return nil
}

// discard gives up what was allotted.
func (j *job) discard() {
	ids := make([]object.ID, len(j.views))
	for i, v := range j.views {
		ids[i] = v.ID
	}
	j.p.Into.DropAll(j.p.Holder, ids)
	j.views = nil
}

// near copies blobs out of the mapped pool of a daemon on this host.
func (j *job) near(ctx context.Context, c *client.Client) error {
	var blobs []*client.Blob
	err := j.guarded(ctx, func(ctx context.Context, _ *atomic.Bool) (err error) {
		blobs, err = c.GetBlobs(ctx, j.p.IDs)
		return err
	})
	if err != nil {
		return j.gone(err)
	}
	sizes := make([]int64, len(blobs))
	for i, b := range blobs {
		sizes[i] = int64(len(b.Bytes()))
	}
	if err := j.allot(SameHost, sizes); err != nil {
		return err
	}
	for i, b := range blobs {
		for off, rest := int64(0), b.Bytes(); len(rest) > 0; {
			n := min(len(rest), int(j.step))
			if err := j.pace(ctx, n); err != nil {
				return err
			}
			// The kernel reads the peer's memory: a pool that was cut short is an
			// error here, not a signal.
			if _, err := j.views[i].File.WriteAt(rest[:n], j.views[i].Off+off); err != nil {
				return status.Errorf(status.IOError, "copy blob %s from the pool of instance %d: %w", b.ID(), j.p.From.Instance, err)
			}
			j.t.done.Add(int64(n))
			off += int64(n)
			rest = rest[n:]
		}
	}
	return nil
}

// mostRestarts bounds how often a transfer starts from the beginning again.
const mostRestarts = 3

// classic reads blobs with one request that any daemon knows. It cannot be
// resumed: when the connection breaks, it starts again.
func (j *job) classic(ctx context.Context, c *client.Client) error {
	// Whether compression pays cannot be found out here, and usually it does not.
	o := client.RangeOptions{Compress: j.p.Settings.Compress == On}
	if o.Compress {
		j.t.squeezed.Store(true)
	}
	defer func() { _ = c.Close() }()
	for failures := 0; ; {
		before := j.t.done.Load()
		err := j.guarded(ctx, func(ctx context.Context, seen *atomic.Bool) error {
			return c.StreamBlobs(ctx, j.p.IDs, o, func(sizes []int64) error {
				if j.views == nil {
					return j.allot(Classic, sizes)
				}
				for i, n := range sizes { // it starts again
					if n != j.views[i].Size {
						return status.Errorf(status.IOError, "blob %s had %d bytes, now %d", j.p.IDs[i], j.views[i].Size, n)
					}
				}
				return nil
			}, func(i int, size int64, body *client.Body) error {
				var came int64
				return j.write(ctx, j.views[i], 0, size, body, &came, seen)
			})
		})
		if err == nil || !broken(err) || ctx.Err() != nil {
			return j.gone(err)
		}
		if failures == mostRestarts {
			return j.unsteady(err)
		}
		failures++
		if errors.Is(err, errSilent) { // that took long enough: once more
			failures = mostRestarts
		}
		j.t.resumed.Add(1)
		j.t.done.Add(before - j.t.done.Load())
		j.m.opts.Log.Info("a transfer starts again", "object", j.p.Object, "err", err)
		_ = c.Close()
		if c, err = j.connect(ctx); err != nil {
			return err
		}
	}
}

// write brings n bytes of a blob into the pool, and sets seen whenever something
// comes. came counts them.
func (j *job) write(ctx context.Context, v store.View, off, n int64, body *client.Body, came *int64, seen *atomic.Bool) error {
	for n > 0 {
		piece := n
		if j.limit != nil {
			piece = min(n, j.step)
		}
		got, err := body.ReadToFile(v.File.File, v.Off+off, piece, func(k int64) error {
			*came += k
			j.t.done.Add(k)
			seen.Store(true)
			err := j.pace(ctx, int(k))
			seen.Store(true) // waiting for our own limit is no silence of the peer
			return err
		})
		if _, ok := errors.AsType[*sys.WriteError](err); ok {
			return status.Errorf(status.IOError, "write blob %s: %w", v.ID, err)
		}
		if err != nil {
			return err
		}
		off += got
		n -= got
	}
	return nil
}

// pace waits until the next bytes may come, after so many.
func (j *job) pace(ctx context.Context, n int) error {
	if ctx.Err() != nil || j.limit == nil {
		return context.Cause(ctx)
	}
	err := j.limit.WaitN(ctx, n)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// errSilent is why a request to a peer that says nothing ends.
var errSilent = status.Errorf(status.ConnectionFailed, "the peer has sent nothing for too long")

// guarded runs a request and ends it when nothing is seen for too long.
func (j *job) guarded(ctx context.Context, f func(ctx context.Context, seen *atomic.Bool) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var seen atomic.Bool
	ended := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		tick := time.NewTicker(j.m.opts.Patience / 4)
		defer tick.Stop()
		for silent := 0; silent < 4; {
			select {
			case <-ended:
				return nil
			case <-tick.C:
				if silent++; seen.Swap(false) {
					silent = 0
				}
			}
		}
		cancel(errSilent)
		return nil
	})
	err := f(ctx, &seen)
	close(ended)
	_ = g.Wait() // never fails
	return err
}

// broken reports whether an error is the connection's, so that another one may
// do better.
func broken(err error) bool {
	if _, ok := errors.AsType[givenUp](err); ok {
		return false
	}
	return errors.Is(err, client.Unreachable) // errSilent among them
}

// unsteady is the error of a peer whose connections break again and again.
func (j *job) unsteady(err error) error {
	return status.Errorf(status.ConnectionFailed, "connections to instance %d at %s broke again and again: %w", j.p.From.Instance, j.p.From.Endpoint, err)
}

// gone explains the error of a peer that lacks a blob.
func (j *job) gone(err error) error {
	switch {
	case !errors.Is(err, client.NotExist):
		return err
	case j.p.Object == 0:
		return status.Errorf(status.ObjectNotExists, "it is not on instance %d, or no longer: %w", j.p.From.Instance, err)
	}
	return status.Errorf(status.ObjectNotExists, "object %s was deleted on instance %d meanwhile: %w", j.p.Object, j.p.From.Instance, err)
}

// whose names what the blobs belong to, for people.
func (j *job) whose() string {
	if j.p.Object == 0 {
		return fmt.Sprintf("instance %d", j.p.From.Instance)
	}
	return fmt.Sprintf("object %s", j.p.Object)
}
