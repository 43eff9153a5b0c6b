package store

import (
	"maps"
	"slices"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"pgregory.net/rapid"
)

func (x *machine) holder(t *rapid.T) (*modelHolder, *Session) {
	h := rapid.SampledFrom(x.m.holders).Draw(t, "holder")
	ss, ok := x.s.Session(h.in)
	if !ok {
		t.Fatalf("session %s is gone", h.in)
	}
	return h, ss
}

// anyBlob draws the id of a blob of a session, mostly; else one that is deleted
// or was never there.
func (x *machine) anyBlob(t *rapid.T, h *modelHolder) object.ID {
	ids := slices.Sorted(maps.Keys(x.m.sessions[h.in].blobs))
	ids = append(ids, ids...)
	ids = append(ids, slices.Sorted(maps.Keys(h.refs))...)
	for _, z := range x.m.zombies {
		ids = append(ids, z.id)
	}
	return rapid.SampledFrom(append(ids, 1<<63|0x99, object.EmptyBlob)).Draw(t, "blob")
}

func (x *machine) someBlobs(t *rapid.T, h *modelHolder) (ids []object.ID) {
	for range rapid.IntRange(0, 3).Draw(t, "blobs") {
		ids = append(ids, x.anyBlob(t, h))
	}
	return ids
}

func size(t *rapid.T) int64 {
	return rapid.OneOf(rapid.Int64Range(1000, 600<<10), rapid.Int64Range(0, 1000), rapid.Just(int64(testLimit))).Draw(t, "size")
}

// found is what a request for blobs answers: known ones in the order of the
// request. ok is false when one is not sealed, and must be.
func (x *machine) found(h *modelHolder, ids []object.ID, unsafe bool) (out []string, ok bool) {
	for _, id := range ids {
		if id == object.EmptyBlob {
			out = append(out, texts([]View{emptyView})...)
		}
		if b := x.m.sessions[h.in].blobs[id]; b != nil {
			if !b.sealed && !unsafe {
				return nil, false
			}
			out = append(out, b.text())
		}
	}
	return out, true
}

func (x *machine) actions() map[string]func(*rapid.T) {
	create := func(t *rapid.T) {
		h, ss := x.holder(t)
		if ss.Plasma {
			x.createPlasma(t, h, ss)
			return
		}
		x.create(t, h, ss)
	}
	get := func(t *rapid.T) {
		h, ss := x.holder(t)
		ids, unsafe := x.someBlobs(t, h), rapid.Bool().Draw(t, "unsafe")
		expect, ok := x.found(h, ids, unsafe)
		views, err := ss.Get(nil, h.h, ids, unsafe)
		if !ok {
			want(t, "get", err, status.ObjectNotSealed)
			return
		}
		want(t, "get", err, status.OK)
		if got := texts(views); !slices.Equal(got, expect) {
			t.Fatalf("get %v: %q, want %q", ids, got, expect)
		}
		for _, id := range ids {
			x.m.depend(h, id, true)
		}
	}
	return map[string]func(*rapid.T){
		"":        x.check,
		"create":  create,
		"create2": create,
		"create3": create,
		"get":     get,
		"get2":    get,
		"seal": func(t *rapid.T) {
			h, ss := x.holder(t)
			id := x.anyBlob(t, h)
			b := x.m.sessions[h.in].blobs[id]
			err := ss.Seal(h.h, id)
			if b == nil && id != object.EmptyBlob {
				want(t, "seal", err, status.ObjectNotExists)
				return
			}
			want(t, "seal", err, status.OK)
			if b != nil {
				x.m.seal(b)
			}
			x.m.depend(h, id, false)
		},
		"add refs": func(t *rapid.T) {
			h, ss := x.holder(t)
			ids := x.someBlobs(t, h)
			ss.AddRefs(h.h, ids)
			for _, id := range ids {
				x.m.depend(h, id, true)
			}
		},
		"release": func(t *rapid.T) {
			h, ss := x.holder(t)
			id := x.anyBlob(t, h)
			err := ss.Release(h.h, id)
			switch {
			case len(h.refs) == 0:
				want(t, "release", err, status.KeyError)
			case h.refs[id] == nil:
				want(t, "release", err, status.ObjectNotExists)
			default:
				want(t, "release", err, status.OK)
				x.m.release(h, id)
			}
		},
		"drop": func(t *rapid.T) {
			h, ss := x.holder(t)
			id := x.anyBlob(t, h)
			b := x.m.sessions[h.in].blobs[id]
			err := ss.Drop(h.h, id)
			switch {
			case id == object.EmptyBlob:
				want(t, "drop", err, status.OK)
			case b == nil:
				want(t, "drop", err, status.ObjectNotExists)
			default:
				want(t, "drop", err, status.OK)
				x.m.remove(b, h)
			}
		},
		"shrink": func(t *rapid.T) {
			h, ss := x.holder(t)
			id, n := x.anyBlob(t, h), size(t)
			b := x.m.sessions[h.in].blobs[id]
			err := ss.Shrink(id, n)
			switch {
			case b == nil:
				want(t, "shrink", err, status.ObjectNotExists)
			case b.sealed:
				want(t, "shrink", err, status.ObjectSealed)
			case n > b.size:
				want(t, "shrink", err, status.Invalid)
			default:
				want(t, "shrink", err, status.OK)
				b.size = n
			}
		},
		"hold": func(t *rapid.T) {
			h, ss := x.holder(t)
			ids := x.someBlobs(t, h)
			expect, ok := x.found(h, ids, false)
			views, err := ss.Hold(h.h, ids, false)
			if !ok {
				want(t, "hold", err, status.KeyError)
				return
			}
			want(t, "hold", err, status.OK)
			if got := texts(views); !slices.Equal(got, expect) {
				t.Fatalf("hold %v: %q, want %q", ids, got, expect)
			}
			for _, id := range ids {
				if b := x.m.sessions[h.in].blobs[id]; b != nil {
					h.held = append(h.held, b)
				}
			}
		},
		"unhold": func(t *rapid.T) {
			h, _ := x.holder(t)
			x.s.Unhold(h.h)
			x.m.unhold(h)
		},
		"hang up": func(t *rapid.T) {
			h, _ := x.holder(t)
			x.s.Close(h.h)
			x.m.close(h)
			ids := slices.Sorted(maps.Keys(x.m.sessions))
			h.in = rapid.SampledFrom(ids).Draw(t, "session")
		},
		"be strict": func(t *rapid.T) {
			h, _ := x.holder(t)
			x.s.SetStrict(h.h)
			h.strict = true
		},
		"incoming": x.incoming,
		"chunk":    x.chunk,
		"queue": func(t *rapid.T) {
			h, ss := x.holder(t)
			key := QueuedID{h.in, x.anyBlob(t, h)}
			if rapid.Bool().Draw(t, "in") {
				want(t, "queue", ss.Queue(key.ID), status.OK)
				x.m.queued[key] = true
			} else {
				want(t, "dequeue", ss.Dequeue(key.ID), status.OK)
				delete(x.m.queued, key)
			}
		},
		"new session": func(t *rapid.T) {
			if len(x.m.sessions) > 2 {
				t.Skip("there are enough")
			}
			x.newSession(t, x.ids.Session(), rapid.Bool().Draw(t, "plasma"))
		},
		"end session": x.endSession,
		"move":        x.move,
		"trim": func(t *rapid.T) {
			if _, err := x.s.Trim(); err != nil {
				t.Fatal(err)
			}
			x.m.zombies = slices.DeleteFunc(x.m.zombies, func(z *thing) bool {
				_, _, strict := x.m.readers(z)
				return strict == 0 && !x.m.strict
			})
			if free := x.s.Account(); free.Reserved > free.PoolFileMax+int64(free.Files)*4096 {
				t.Fatalf("more memory is reserved than there is: %+v", free)
			}
		},
		"tidy": func(t *rapid.T) {
			if rapid.IntRange(0, 2).Draw(t, "now") > 0 {
				t.Skip("it looks at every process")
			}
			if err := x.s.Tidy(rapid.Int64Range(0, 1<<20).Draw(t, "budget")); err != nil {
				t.Fatal(err)
			}
		},
		"compact": func(t *rapid.T) {
			x.s.Lock()
			defer x.s.Unlock()
			snap, err := journal.NewSnapshot(x.home.JournalPath())
			if err == nil {
				err = x.s.Snapshot(snap.Append)
			}
			if err == nil {
				err = x.journal.Adopt(snap)
			}
			want(t, "compact", err, status.OK)
		},
		"crash": func(t *rapid.T) {
			if rapid.IntRange(0, 2).Draw(t, "now") > 0 {
				t.Skip("it looks at every process")
			}
			x.crash(t)
		},
	}
}

func (x *machine) create(t *rapid.T, h *modelHolder, ss *Session) {
	sizes := []int64{size(t)}
	if rapid.IntRange(0, 3).Draw(t, "several") == 0 {
		sizes = append(sizes, size(t), size(t))
	}
	x.byCreate(t, h, func() {
		var views []View
		var err error
		if len(sizes) > 1 {
			views, err = ss.CreateAll(h.h, sizes)
		} else {
			var v View
			v, err = ss.Create(h.h, sizes[0])
			views = append(views, v)
		}
		if err != nil {
			x.refused(t, h, sizes, err)
			return
		}
		defer func() { // what was reclaimed was so before these were filled
			for i, v := range views {
				x.add(t, h, v, sizes[i])
			}
		}()
	})
}

func (x *machine) createPlasma(t *rapid.T, h *modelHolder, ss *Session) {
	name, n := rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "name"), max(size(t), 1)
	x.byCreate(t, h, func() {
		v, err := ss.CreatePlasma(h.h, name, n, n+5)
		if err != nil {
			x.refused(t, h, []int64{n}, err)
			return
		}
		if v.Plasma != name || v.PlasmaSize != n+5 {
			t.Fatalf("plasma blob %q: %+v", name, v)
		}
		if old := x.m.sessions[h.in].names[name]; old != nil {
			x.m.remove(old, h)
		}
		b := x.add(t, h, v, n)
		b.name = name
		x.m.sessions[h.in].names[name] = b
	})
}
