package store

import (
	"maps"
	"slices"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"pgregory.net/rapid"
)

// incoming makes blobs whose bytes come over the connection: they are held
// until the next request, and sealed if all of them came.
func (x *machine) incoming(t *rapid.T) {
	h, ss := x.holder(t)
	if ss.Plasma {
		t.Skip("not in a plasma session")
	}
	sizes := []int64{size(t), size(t)}
	x.byCreate(t, h, func() {
		views, err := ss.CreateIncoming(h.h, sizes)
		if err != nil {
			x.refused(t, h, sizes, err)
			return
		}
		whole := rapid.Bool().Draw(t, "all came")
		if whole {
			want(t, "finish", ss.Finish(views), status.OK)
		}
		for i, v := range views {
			if v.Sealed != (sizes[i] > 0) {
				t.Fatalf("incoming blob: %+v", v)
			}
			if b := x.add(t, h, v, sizes[i]); b != nil {
				h.held = append(h.held, b)
				if whole {
					x.m.seal(b)
				}
			}
		}
	})
}

// chunk makes a chunk of a stream, and seals it some time or never.
func (x *machine) chunk(t *rapid.T) {
	h, ss := x.holder(t)
	if ss.Plasma {
		t.Skip("no streams in a plasma session")
	}
	n := size(t)
	x.byCreate(t, h, func() {
		v, err := ss.NextChunk(h.h, n)
		if err != nil {
			x.refused(t, h, []int64{n}, err)
			return
		}
		b := x.add(t, h, v, n)
		if b == nil {
			return
		}
		b.chunk = true
		if rapid.Bool().Draw(t, "seal") {
			want(t, "seal a chunk", ss.SealChunk(b.id), status.OK)
			x.m.seal(b)
		}
	})
}

func (x *machine) endSession(t *rapid.T) {
	ids := slices.Sorted(maps.Keys(x.m.sessions))
	id := rapid.SampledFrom(ids).Draw(t, "session")
	if id == object.RootSession {
		t.Skip("the root session stays")
	}
	ss, _ := x.s.Session(id)
	if rapid.Bool().Draw(t, "doom") {
		want(t, "doom", ss.Doom(), status.OK)
		x.m.sessions[id].doomed = true
		return
	}
	for _, h := range x.m.holders { // it ends with its last connection
		if h.in == id {
			x.s.Close(h.h)
			x.m.close(h)
			h.in = object.RootSession
		}
	}
	want(t, "end", ss.Delete(), status.OK)
	want(t, "end again", ss.Delete(), status.OK)
	x.m.endSession(id)
}

// move takes blobs over from another session.
func (x *machine) move(t *rapid.T) {
	h, ss := x.holder(t)
	ids := slices.Sorted(maps.Keys(x.m.sessions))
	from := rapid.SampledFrom(ids).Draw(t, "from")
	src, _ := x.s.Session(from)
	if from == h.in || x.m.sessions[from].doomed != x.m.sessions[h.in].doomed {
		t.Skip("nothing to move")
	}
	var pairs []MovePair
	for _, id := range slices.Sorted(maps.Keys(x.m.sessions[from].blobs)) {
		if rapid.Bool().Draw(t, "take") {
			continue
		}
		p := MovePair{From: id, To: id}
		if b := x.m.sessions[from].blobs[id]; b.name != "" {
			p.FromPlasma = b.name
		}
		switch {
		case ss.Plasma && rapid.Bool().Draw(t, "as plasma"):
			p.ToPlasma = rapid.SampledFrom([]string{"p", "q", "m"}).Draw(t, "name")
		case rapid.Bool().Draw(t, "new id"):
			x.made++
			p.To = x.made
		}
		pairs = append(pairs, p)
	}
	pairs = append(pairs, MovePair{From: 1<<63 | 0x99, To: 1<<63 | 0x9a}) // unknown ones are left out
	want(t, "move", ss.MoveFrom(src, pairs), status.OK)
	to := x.m.sessions[h.in]
	for _, p := range pairs {
		b := x.m.sessions[from].blobs[p.From]
		if b == nil || p.ToPlasma == "" && to.blobs[p.To] != nil || p.ToPlasma != "" && to.names[p.ToPlasma] != nil {
			continue
		}
		id := p.To
		if p.ToPlasma != "" {
			if id, _ = ss.PlasmaID(p.ToPlasma); !id.IsBlob() || to.blobs[id] != nil {
				t.Fatalf("moved to plasma id %q: %s", p.ToPlasma, id)
			}
		}
		x.m.move(b, h.in, id, p.ToPlasma)
	}
}
