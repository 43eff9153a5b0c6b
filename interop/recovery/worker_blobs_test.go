//go:build linux

package recovery

import (
	"crypto/sha256"
	"errors"

	"github.com/v6d-go/v6d/client"
)

func hash(b []byte) [32]byte { return sha256.Sum256(b) }

func (w *worker) putBlob(s *site) error {
	size := w.size()
	var b *client.Builder
	err := w.try("create a blob", nil, func() (err error) {
		b, err = s.c.CreateBlob(ctx, size)
		return err
	})
	if errors.Is(err, client.NoMemory) {
		return nil
	}
	if err != nil {
		return err
	}
	id := b.ID()
	w.change(func() { w.m.saw(id) })
	sum := bytesOf(b.Bytes(), w.rng.Uint64())
	if w.rng.IntN(20) == 0 {
		return w.try("abort", nil, func() error {
			err := b.Abort(ctx)
			if err == nil {
				w.change(func() { w.m.gone[key(s.p, id)] = true })
			}
			return err
		})
	}
	if size > 1 && w.rng.IntN(10) == 0 {
		size = 1 + w.rng.IntN(size-1)
		if err := w.try("shrink", nil, func() error { return b.Shrink(ctx, size) }); err != nil {
			return err
		}
		sum = hash(b.Bytes())
	}
	adopt := func() {
		w.m.addBlob(s.p, id, size, sum)
		s.blobs = append(s.blobs, id)
	}
	return w.try("seal "+id.String(), func(f *found) bool {
		if _, ok := f.at(s.p).rows[id]; !ok {
			return false
		}
		adopt() // the comparison that follows wants it complete
		return true
	}, func() error {
		_, err := b.Seal(ctx)
		if err == nil {
			w.change(adopt)
		}
		return err
	})
}

func (w *worker) dropBlob(s *site) error {
	id, ok := pick(w.rng, s.blobs)
	if !ok {
		return nil
	}
	return w.removal("drop "+id.String(), s, map[client.ID]bool{id: true}, func() error { return s.c.DropBlob(ctx, id) })
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
