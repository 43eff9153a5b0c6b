//go:build linux

package recovery

import (
	"fmt"
	"maps"
	"strings"

	"github.com/v6d-go/v6d/client"
)

// draft makes metadata over blobs and objects of the site.
func (w *worker) draft(s *site) *client.Meta {
	m := client.NewMeta([]string{"test::Thing", "test::Pair<int>", "vineyard::Tensor<uint8>"}[w.rng.IntN(3)])
	m.Set("token_", w.token())
	m.Set("text", "tab\there \"quoted\" ünïcode   "+strings.Repeat("x", w.rng.IntN(40)))
	m.Set("number", w.rng.Int64()).Set("ratio", w.rng.Float64()).Set("yes", w.rng.IntN(2) == 0).Set("none", nil)
	m.Set("shape_", []int{w.rng.IntN(9), w.rng.IntN(9)})
	switch w.rng.IntN(12) {
	case 0:
		m.Set("big", strings.Repeat(string(rune('a'+w.rng.IntN(26))), 16<<10+w.rng.IntN(64<<10)))
	case 1:
		m.Set("nbytes", w.rng.IntN(1000))
	case 2:
		m.Add("empty_", client.BlobMember(client.EmptyBlob))
	}
	for i := range w.rng.IntN(3) {
		if id, ok := pick(w.rng, s.blobs); ok {
			m.Add(fmt.Sprintf("buffer_%d_", i), client.BlobMember(id))
		}
	}
	for i := range w.rng.IntN(3) {
		if id, ok := pick(w.rng, s.objects); ok && w.depth(s.p, id) < 3 {
			m.AddObject(fmt.Sprintf("part_%d_", i), id)
		}
	}
	return m
}

func (w *worker) create(s *site) error {
	_, err := w.createOne(s, w.draft(s), nil)
	return err
}

// createOne creates an object; also runs with it, whenever its creation becomes
// known.
func (w *worker) createOne(s *site, m *client.Meta, also func()) (client.ID, error) {
	err := w.try("create an object", w.madeOf(s, also, m), func() error {
		_, err := s.c.CreateObject(ctx, m)
		if err == nil {
			w.change(func() { w.adopt(s, also, m) })
		}
		return err
	})
	return m.ID, err
}

func (w *worker) createSeveral(s *site) error {
	list := []*client.Meta{w.draft(s), w.draft(s)}
	for w.rng.IntN(2) == 0 {
		list = append(list, w.draft(s))
	}
	return w.try("create objects", w.madeOf(s, nil, list...), func() error {
		_, err := s.c.CreateObjects(ctx, list)
		if err == nil {
			w.change(func() { w.adopt(s, nil, list...) })
		}
		return err
	})
}

func (w *worker) adopt(s *site, also func(), list ...*client.Meta) {
	for _, m := range list {
		w.m.addObject(s.p, m)
		s.objects = append(s.objects, m.ID)
	}
	if also != nil {
		also()
	}
}

// madeOf resolves a creation: all of the objects are there, or none.
func (w *worker) madeOf(s *site, also func(), list ...*client.Meta) func(*found) bool {
	return func(f *found) bool {
		at := f.at(s.p)
		var there []*client.Meta
		for _, m := range list {
			token, _ := m.Text("token_")
			if got, ok := at.byToken(token); ok {
				m.ID, m.Signature = got.ID, got.Signature
				there = append(there, m)
			}
		}
		if len(there) > 0 && len(there) < len(list) {
			w.m.fault(&w.m.tally.other, "%s: %d of %d objects of one request exist", w.name, len(there), len(list))
		}
		if len(there) > 0 {
			w.adopt(s, also, there...)
		}
		return len(there) > 0
	}
}

func (w *worker) persist(s *site) error {
	id, ok := pick(w.rng, s.objects)
	if !ok {
		return nil
	}
	return w.try("persist "+id.String(), func(f *found) bool {
		got, ok := f.at(s.p).metas[id]
		if !ok || got.Transient || !s.p.objects[id].Transient {
			return false
		}
		s.p.persisted(id)
		return true
	}, func() error {
		err := s.c.Persist(ctx, id)
		if err == nil {
			w.change(func() { s.p.persisted(id) })
		}
		return err
	})
}

func (w *worker) label(s *site) error {
	id, ok := pick(w.rng, s.objects)
	if !ok {
		return nil
	}
	return w.labelOne(s, id, map[string]string{fmt.Sprintf("k%d", w.rng.IntN(4)): w.token(), "who": w.name + `"\`})
}

// flood fills the journal with history, so that the daemon compacts it.
func (w *worker) flood(s *site) error {
	id, ok := pick(w.rng, s.objects)
	if !ok || w.rng.IntN(3) > 0 {
		return nil
	}
	for range 40 {
		if err := w.labelOne(s, id, map[string]string{"flood": strings.Repeat(w.token(), 5000)}); err != nil {
			return err
		}
	}
	return w.labelOne(s, id, map[string]string{"flood": "over"})
}

func (w *worker) labelOne(s *site, id client.ID, add map[string]string) error {
	merge := func() {
		o := s.p.objects[id]
		o.Labels = maps.Clone(o.Labels)
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		maps.Copy(o.Labels, add)
	}
	return w.try("label "+id.String(), func(f *found) bool {
		for k, v := range add {
			if f.at(s.p).metas[id].Labels[k] != v {
				return false
			}
		}
		merge()
		return true
	}, func() error {
		err := s.c.Label(ctx, id, add)
		if err == nil {
			w.change(merge)
		}
		return err
	})
}

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
