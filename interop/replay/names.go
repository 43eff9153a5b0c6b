package replay

import (
	"fmt"
	"maps"
)

// A pairing relates what a recorded run called something to what the live run
// calls it, one to one.
type pairing[K comparable] struct{ live, recorded map[K]K }

func newPairing[K comparable]() *pairing[K] {
	return &pairing[K]{live: map[K]K{}, recorded: map[K]K{}}
}

// check reports why rec and live cannot be the same thing; nil if they can.
func (p *pairing[K]) check(rec, live K) error {
	if known, ok := p.live[rec]; ok {
		if known != live {
			return fmt.Errorf("recorded %v is live %v, got %v", rec, known, live)
		}
		return nil
	}
	if known, ok := p.recorded[live]; ok {
		return fmt.Errorf("recorded %v is new, but live %v is already recorded %v", rec, live, known)
	}
	return nil
}

// bind makes rec and live the same thing unless one of them is taken.
func (p *pairing[K]) bind(rec, live K) error {
	if err := p.check(rec, live); err != nil {
		return err
	}
	p.live[rec], p.recorded[live] = live, rec
	return nil
}

func (p *pairing[K]) clone() *pairing[K] {
	return &pairing[K]{live: maps.Clone(p.live), recorded: maps.Clone(p.recorded)}
}

// names holds the pairings of a replay: everything that differs from one run
// to the next and that later messages refer to.
type names struct {
	ids       *pairing[uint64] // object, blob, stream and session ids, signatures
	instances *pairing[uint64] // instance ids
	texts     *pairing[string] // socket paths, lock keys
	arenas    *pairing[uint64] // descriptor numbers of arenas
}

// Ids that mean the same in every run.
const (
	emptyBlob = 1 << 63
	allOnes   = 1<<64 - 1
)

func newNames() *names {
	n := &names{newPairing[uint64](), newPairing[uint64](), newPairing[string](), newPairing[uint64]()}
	for _, id := range []uint64{0, emptyBlob, allOnes} {
		n.ids.live[id], n.ids.recorded[id] = id, id
	}
	return n
}

func (n *names) clone() *names {
	return &names{n.ids.clone(), n.instances.clone(), n.texts.clone(), n.arenas.clone()}
}

// localize returns a recorded request with the live run's names. Ids that no
// reply has shown yet are the request's own: they go out as they are, and stay
// themselves from then on.
func (n *names) localize(request map[string]any) map[string]any {
	return n.localizeValue("", request).(map[string]any)
}

func (n *names) localizeValue(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = n.localizeValue(k, e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = n.localizeValue(key, e)
		}
		return out
	case string:
		if id, ok := parseObjectText(v); ok {
			return objectText(n.own(id))
		}
		if live, ok := n.texts.live[v]; ok {
			return live
		}
		return v
	}
	u, ok := asUint(v)
	if !ok {
		return v
	}
	switch key {
	case "fd":
		if live, ok := n.arenas.live[u]; ok {
			return number(live)
		}
		return v
	case "instance_id":
		if live, ok := n.instances.live[u]; ok {
			return number(live)
		}
		return v
	}
	return number(n.own(u))
}

// own returns the live id for a recorded one; an id never seen becomes itself.
func (n *names) own(rec uint64) uint64 {
	if live, ok := n.ids.live[rec]; ok {
		return live
	}
	n.ids.live[rec], n.ids.recorded[rec] = rec, rec
	return rec
}
