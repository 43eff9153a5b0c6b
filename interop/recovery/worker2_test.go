//go:build linux

package recovery

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"

	"github.com/v6d-go/v6d/client"
)

func hash(b []byte) [32]byte { return sha256.Sum256(b) }

func (w *worker) putName(s *site) error {
	id, ok := pick(w.rng, s.objects)
	if !ok {
		return nil
	}
	w.m.mu.Lock()
	transient := s.p.objects[id].Transient
	w.m.mu.Unlock()
	if transient {
		return nil
	}
	name := fmt.Sprintf("%s/name~%d", w.name, w.rng.IntN(6))
	return w.try("name "+id.String(), func(f *found) bool {
		at := f.at(s.p)
		moved := at.names[name] == id && s.p.names[name] != id
		shown := at.metas[id].Name == escapeName(name) && s.p.objects[id].Name != escapeName(name)
		if moved || shown {
			s.p.named(id, name)
		}
		return moved || shown
	}, func() error {
		err := s.c.PutName(ctx, id, name)
		if err == nil {
			w.change(func() { s.p.named(id, name) })
		}
		return err
	})
}

func (w *worker) dropName(s *site) error {
	name := fmt.Sprintf("%s/name~%d", w.name, w.rng.IntN(6))
	return w.try("drop name "+name, func(f *found) bool {
		_, there := f.at(s.p).names[name]
		if _, was := s.p.names[name]; there || !was {
			return false
		}
		s.p.unnamed(name)
		return true
	}, func() error {
		err := s.c.DropName(ctx, name)
		if err == nil {
			w.change(func() { s.p.unnamed(name) })
		}
		return err
	})
}

func (w *worker) copy(s *site) error {
	src, ok := pick(w.rng, s.objects)
	if !ok {
		return nil
	}
	token := w.token()
	adopt := func(id client.ID) {
		from := s.p.objects[src]
		o := &object{shown: from.shown, fresh: from.fresh}
		o.ID, o.Fields, o.Members, o.Labels = id, maps.Clone(o.Fields), maps.Clone(o.Members), maps.Clone(o.Labels)
		o.Fields["token_"] = `"` + token + `"`
		w.m.saw(id)
		s.p.objects[id] = o
		s.objects = append(s.objects, id)
	}
	return w.try("copy "+src.String(), func(f *found) bool {
		got, ok := f.at(s.p).byToken(token)
		if ok {
			adopt(got.ID)
		}
		return ok
	}, func() error {
		id, err := s.c.ShallowCopy(ctx, src, map[string]any{"token_": token})
		if err == nil {
			w.change(func() { adopt(id) })
		}
		return err
	})
}

// removal does an operation that deletes a known set of ids, all at once.
func (w *worker) removal(what string, s *site, gone map[client.ID]bool, fn func() error) error {
	done := func() {
		w.m.remove(s.p, gone)
		s.forget(gone)
	}
	return w.try(what, func(f *found) bool {
		at := f.at(s.p)
		for id := range gone {
			_, object := at.metas[id]
			_, blob := at.rows[id]
			if !object && !blob {
				done() // the comparison that follows wants all of them gone
				return true
			}
		}
		return false
	}, func() error {
		err := fn()
		if err == nil {
			w.change(done)
		}
		return err
	})
}

func (w *worker) delete(s *site) error {
	id, ok := pick(w.rng, s.objects)
	if !ok {
		return nil
	}
	ids := []client.ID{id}
	for w.rng.IntN(3) == 0 {
		if more, ok := pick(w.rng, append(s.objects[:len(s.objects):len(s.objects)], s.blobs...)); ok {
			ids = append(ids, more)
		}
	}
	o := client.DeleteOptions{Force: w.rng.IntN(4) == 0, Shallow: w.rng.IntN(4) == 0, GiveBack: w.rng.IntN(20) == 0}
	w.m.mu.Lock()
	gone := s.p.deletion(ids, o)
	w.m.mu.Unlock()
	return w.removal("delete", s, gone, func() error { return s.c.Delete(ctx, ids, o) })
}

func (w *worker) dropBlob(s *site) error {
	id, ok := pick(w.rng, s.blobs)
	if !ok {
		return nil
	}
	return w.removal("drop "+id.String(), s, map[client.ID]bool{id: true}, func() error { return s.c.DropBlob(ctx, id) })
}

// read checks that a blob or object is what it was, in the running daemon.
func (w *worker) read(s *site) error {
	if id, ok := pick(w.rng, s.blobs); ok && w.rng.IntN(2) == 0 {
		w.m.mu.Lock()
		want := s.p.blobs[id].sum
		w.m.mu.Unlock()
		return w.try("read "+id.String(), nil, func() error {
			b, err := s.c.GetBlob(ctx, id)
			if err != nil {
				return err
			}
			if hash(b.Bytes()) != want {
				w.change(func() { w.m.fault(&w.m.tally.changed, "blob %s has other bytes in the running daemon", id) })
			}
			return b.Release(ctx)
		})
	}
	id, ok := pick(w.rng, s.objects)
	if !ok {
		return nil
	}
	return w.try("read "+id.String(), nil, func() error {
		got, err := s.c.GetObject(ctx, id)
		if err != nil {
			return err
		}
		w.change(func() {
			o := s.p.objects[id]
			if d := o.diff(show(got)); d != "" {
				w.m.fault(&w.m.tally.changed, "object %s in the running daemon: %s", id, d)
			}
			o.Time, o.fresh = got.Time, false
		})
		return nil
	})
}

// session makes a session of the worker's own, or ends it.
func (w *worker) session(*site) error {
	if len(w.sites) > 1 {
		if w.rng.IntN(3) > 0 {
			return nil
		}
		return w.endSession(w.sites[1])
	}
	join := func(p *place) *site {
		w.m.places[p.id] = p
		s := &site{p: p}
		w.sites = append(w.sites, s)
		return s
	}
	var socket string
	err := w.try("make a session", func(f *found) bool {
		for id, at := range f.places {
			if w.m.places[id] == nil && !f.claimed[id] {
				f.claimed[id] = true
				join(newPlace(id, at.socket))
				return true
			}
		}
		return false
	}, func() (err error) {
		socket, err = w.sites[0].c.NewSession(ctx, false)
		return err
	})
	if err != nil {
		return err
	}
	// From here on the session exists, whoever dies.
	id, err := sessionOf(socket)
	if err != nil {
		return err
	}
	var s *site
	w.change(func() {
		w.m.saw(client.ID(id))
		s = join(newPlace(id, socket))
	})
	return w.try("join the session", nil, func() (err error) {
		s.c, err = client.Dial(ctx, client.Options{Socket: socket})
		return err
	})
}

func (w *worker) endSession(s *site) error {
	if w.rng.IntN(2) == 0 {
		gone := map[client.ID]bool{}
		for _, id := range append(s.blobs[:len(s.blobs):len(s.blobs)], s.objects...) {
			gone[id] = true
		}
		if len(gone) > 0 {
			return w.removal("clear "+s.p.id.String(), s, gone, func() error { return s.c.Clear(ctx) })
		}
	}
	done := func() {
		delete(w.m.places, s.p.id)
		w.m.gone[s.p.id.String()] = true
		w.sites = w.sites[:1]
	}
	return w.try("end "+s.p.id.String(), func(f *found) bool {
		if f.places[s.p.id] != nil {
			return false
		}
		done()
		return true
	}, func() error {
		err := s.c.DeleteSession(ctx)
		if err == nil {
			w.change(done)
		}
		return err
	})
}

// takeBlob takes a blob of the root session over into the worker's own.
func (w *worker) takeBlob(*site) error {
	if len(w.sites) < 2 {
		return nil
	}
	from, to := w.sites[0], w.sites[1]
	id, ok := pick(w.rng, from.blobs)
	if !ok {
		return nil
	}
	w.m.mu.Lock()
	known := to.p.blobs[id] != nil || w.m.gone[key(to.p, id)]
	w.m.mu.Unlock()
	if known {
		return nil
	}
	adopt := func() {
		src := from.p.blobs[id]
		to.p.blobs[id] = &blob{size: src.size, sum: src.sum, extent: src.extent}
		to.blobs = append(to.blobs, id)
	}
	return w.try("take over "+id.String(), func(f *found) bool {
		if _, ok := f.at(to.p).rows[id]; !ok {
			return false
		}
		adopt()
		return true
	}, func() error {
		err := to.c.TakeBlobs(ctx, from.p.id, []client.ID{id})
		if err == nil {
			w.change(adopt)
		}
		return err
	})
}

// putRemote stores a blob over TCP; its id is not known until it is there.
func (w *worker) putRemote(*site) error {
	s := w.sites[0]
	if w.rpc == nil {
		o := client.Options{Endpoint: s.c.Info().RPCEndpoint, Compress: w.rng.IntN(2) == 0}
		if err := w.try("connect over TCP", nil, func() (err error) { w.rpc, err = client.Dial(ctx, o); return err }); err != nil {
			return err
		}
	}
	b := make([]byte, w.size())
	sum := bytesOf(b, w.rng.Uint64())
	adopt := func(id client.ID) {
		w.m.addBlob(s.p, id, len(b), sum)
		s.blobs = append(s.blobs, id)
	}
	err := w.try("put over TCP", func(f *found) bool {
		id, ok := f.at(s.p).stray(s.p, sum)
		if ok {
			adopt(id)
		}
		return ok
	}, func() error {
		id, err := w.rpc.PutBlob(ctx, b)
		if err == nil {
			w.change(func() { adopt(id) })
		}
		return err
	})
	if errors.Is(err, client.NoMemory) {
		return nil
	}
	return err
}

// stream sends some chunks through a 0.24 stream. Chunks do not survive a
// crash, but for one that an object has taken over.
func (w *worker) stream(s *site) error {
	m := w.draft(s)
	m.Typename = "vineyard::ByteStream"
	id, err := w.createOne(s, m, nil)
	if err != nil {
		return err
	}
	ok := func(what string, fn func() error) bool {
		if err == nil {
			err = w.try(what, nil, fn)
		}
		return err == nil
	}
	ok("make a stream", func() error { return s.c.CreateStream(ctx, id) })
	ok("open it", func() error { return s.c.OpenStream(ctx, id, true) })
	ok("open it", func() error { return s.c.OpenStream(ctx, id, false) })
	var sums [][32]byte
	for range 2 + w.rng.IntN(3) {
		ok("next chunk", func() error {
			b, err := s.c.NextChunk(ctx, id, w.size())
			if err == nil {
				sums = append(sums, bytesOf(b, w.rng.Uint64()))
			}
			return err
		})
	}
	var chunk client.ID
	ok("pull", func() (err error) { chunk, err = s.c.PullChunk(ctx, id); return err })
	if err == nil {
		w.change(func() { w.m.saw(chunk) })
	}
	if err == nil && w.rng.IntN(2) == 0 {
		var b *client.Blob
		if ok("read the chunk", func() (err error) { b, err = s.c.GetBlob(ctx, chunk); return err }) {
			sum, size := hash(b.Bytes()), len(b.Bytes())
			if sum != sums[0] {
				w.change(func() { w.m.fault(&w.m.tally.changed, "chunk %s is not what was written", chunk) })
			}
			keep := w.draft(s).Add("chunk_", client.BlobMember(chunk))
			if _, err := w.createOne(s, keep, func() {
				w.m.addBlob(s.p, chunk, size, sum)
				s.blobs = append(s.blobs, chunk)
			}); err != nil {
				return err
			}
			ok("release the chunk", func() error { return b.Release(ctx) })
		}
	}
	if w.rng.IntN(10) > 0 {
		ok("drop the stream", func() error { return s.c.DropStream(ctx, id) })
	}
	if errors.Is(err, client.NoMemory) {
		return nil
	}
	return err
}
