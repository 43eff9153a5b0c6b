package server

import (
	"context"
	"os"
	"slices"
	"sync"

	"github.com/v6d-go/v6d/internal/migrate"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
)

// Far memory: blobs of other instances are read through a cache in the pool. Each
// is pulled once for all who ask, and goes when memory is short and nobody reads
// it.

func init() { handle(protocol.FetchBlobs, fetchBlobs) }

// farBlob names a blob of another instance.
type farBlob struct {
	instance object.InstanceID
	id       object.ID
}

// farCache knows which blobs of other instances are here, or on their way.
type farCache struct {
	mu     sync.Mutex
	here   map[farBlob]object.ID // cached ones, some of which may have gone; guarded by mu
	coming map[farBlob]*coming   // guarded by mu
}

// coming is a pull of some blobs.
type coming struct {
	from   object.InstanceID
	ids    []object.ID
	askers int // requests that wait for it; guarded by the mu of farCache
	cancel context.CancelCauseFunc
	free   func()        // lets the blobs go; set when they are here; guarded by the mu of farCache
	done   chan struct{} // closed when err is there
	err    error
}

// fetchTries bounds how often a request fails for what others do.
const fetchTries = 3

// fetchBlobs gets blobs of another instance for a client on this host.
func fetchBlobs(ctx context.Context, c *conn, q *protocol.FetchRequest, r *protocol.GetBuffersReply) error {
	if err := c.local(false); err != nil {
		return err
	}
	if err := checkCount(len(q.IDs)); err != nil {
		return err
	}
	for _, id := range q.IDs {
		if !id.IsBlob() || id == object.InvalidID {
			return status.Errorf(status.ObjectNotExists, "no blob %s", id)
		}
	}
	if !c.pc.IsUnix() {
		return status.Errorf(status.NotImplemented, "the cache is for clients on this host").
			WithHint("ask the instance that has the blobs")
	}
	var views []store.View
	err := c.park(ctx, func(ctx context.Context) (err error) {
		views, err = c.ss.fetch(ctx, c.holder, q.Instance, q.IDs)
		return err
	})
	if err != nil {
		return err
	}
	r.Payloads, r.FDs = c.payloads(r.Payloads, r.FDs, views)
	return nil
}

// fetch returns cached copies of blobs, with a reference of h to each.
func (ss *session) fetch(ctx context.Context, h *store.Holder, from object.InstanceID, ids []object.ID) ([]store.View, error) {
	if from == ss.srv.number() {
		return ss.blobs.Get(nil, h, ids, false)
	}
	for try := 1; ; try++ {
		views, again, err := ss.fetchOnce(ctx, h, from, ids)
		if err == nil && again {
			err = status.Errorf(status.ObjectNotExists, "copies of blobs of instance %d are deleted here before they can be read", from)
		}
		if err == nil || !again || try == fetchTries {
			return views, err
		}
	}
}

// fetchOnce is fetch, unless it fails for what others do: who delete one of the
// blobs just then, or asked for it together with others that cannot be had. What
// is here already stays while the rest comes.
func (ss *session) fetchOnce(ctx context.Context, h *store.Holder, from object.InstanceID, ids []object.ID) (views []store.View, again bool, err error) {
	pin := store.NewHolder(os.Getpid(), os.Getuid())
	defer ss.srv.store.Close(pin)
	local, waits, err := ss.look(ctx, pin, from, ids)
	defer func() {
		for _, w := range waits {
			ss.far.leave(w)
		}
	}()
	if err != nil {
		return nil, false, err
	}
	for _, w := range waits {
		select {
		case <-w.done:
			if w.err != nil {
				return nil, !w.within(ids), w.err
			}
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
	if len(waits) > 0 { // now they are here
		var more []*coming
		local, more, err = ss.look(ctx, pin, from, ids)
		waits = append(waits, more...)
		if err != nil || len(more) > 0 {
			return nil, err == nil, err
		}
	}
	views, all, err := ss.blobs.GetAll(h, local)
	return views, !all && err == nil, err
}

// within reports whether all that a pull brings is among ids.
func (w *coming) within(ids []object.ID) bool {
	among := make(map[object.ID]bool, len(ids))
	for _, id := range ids {
		among[id] = true
	}
	return !slices.ContainsFunc(w.ids, func(id object.ID) bool { return !among[id] })
}

// look returns the cached copies of blobs, which pin then holds, and the pulls to
// wait for, of which it begins those that are lacking.
func (ss *session) look(ctx context.Context, pin *store.Holder, from object.InstanceID, ids []object.ID) (local []object.ID, waits []*coming, err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, nil, err
	}
	f := &ss.far
	f.mu.Lock()
	defer f.mu.Unlock()
	local = make([]object.ID, len(ids))
	var lacking []object.ID
	wanted := map[object.ID]bool{}
	for i, id := range ids {
		key := farBlob{from, id}
		switch have := f.here[key]; {
		case id == object.EmptyBlob || have == object.EmptyBlob: // the copy of one that was shortened to nothing
			local[i] = object.EmptyBlob
		case have != 0 && ss.hold(pin, have):
			local[i] = have
		case f.coming[key] != nil:
			waits = f.join(waits, f.coming[key])
		case !wanted[id]:
			delete(f.here, key)
			wanted[id] = true
			lacking = append(lacking, id)
		}
	}
	if len(lacking) > 0 {
		waits = f.join(waits, ss.begin(from, lacking))
	}
	return local, waits, nil
}

// hold holds a blob that was cached, if it is still here.
func (ss *session) hold(pin *store.Holder, id object.ID) bool {
	views, err := ss.blobs.Hold(pin, []object.ID{id}, false)
	return err == nil && len(views) == 1
}

// join counts a request among those that wait for a pull, once. Called with mu
// held.
func (*farCache) join(waits []*coming, w *coming) []*coming {
	for _, have := range waits {
		if have == w {
			return waits
		}
	}
	w.askers++
	return append(waits, w)
}

// leave ends a request's interest in a pull: with the last one the pull ends, if it
// is under way, and its blobs may go.
func (f *farCache) leave(w *coming) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.askers--; w.askers > 0 {
		return
	}
	w.cancel(errNobody)
	f.forget(w) // who comes now gets a new one
	if w.free != nil {
		w.free()
	}
}

// forget takes a pull off those under way. Called with mu held.
func (f *farCache) forget(w *coming) {
	for _, id := range w.ids {
		if key := (farBlob{w.from, id}); f.coming[key] == w {
			delete(f.coming, key)
		}
	}
}

// begin pulls blobs into the cache. Called with the mu of far held.
func (ss *session) begin(from object.InstanceID, ids []object.ID) *coming {
	f := &ss.far
	if f.coming == nil {
		f.coming, f.here = map[farBlob]*coming{}, map[farBlob]object.ID{}
	}
	started := make(chan struct{})
	w := &coming{from: from, ids: ids, done: make(chan struct{})}
	for _, id := range ids {
		f.coming[farBlob{from, id}] = w
	}
	ss.srv.spawn(func(ctx context.Context) {
		ctx, w.cancel = context.WithCancelCause(ctx)
		defer w.cancel(nil)
		close(started)
		views, _, done, err := ss.pull(ctx, "fetch", 0, from, ids, migrate.Settings{})
		if err == nil {
			ss.blobs.FinishCached(views)
		}
		f.mu.Lock()
		f.forget(w)
		for i, v := range views {
			f.here[farBlob{from, ids[i]}] = v.ID
		}
		f.tidy(ss.blobs)
		w.err = err
		if w.free = done; w.askers == 0 { // all have gone
			done()
		}
		f.mu.Unlock()
		close(w.done)
	})
	<-started
	return w
}

// tidy forgets blobs that have gone, now and then. Called with mu held.
func (f *farCache) tidy(blobs *store.Session) {
	if len(f.here) < 1024 || len(f.here)&(len(f.here)-1) != 0 {
		return // at powers of two only
	}
	for key, id := range f.here {
		if !blobs.Exists(id) {
			delete(f.here, key)
		}
	}
}
