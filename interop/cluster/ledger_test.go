//go:build linux

package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/v6d-go/v6d/client"
)

// The ledger knows what every acknowledged operation implies. Operations that
// fail may have been done or not; one that is done by a cluster which lost a
// node for long, or its etcd's data, may be undone when that node comes back
// with what it last knew. What then can be is counted as optional: all nodes
// must still agree on it.

// answer is what is known of an operation.
type answer int

const (
	never answer = iota // not asked for
	maybe               // asked for, no good answer
	yes                 // acknowledged
)

func answered(err error) answer {
	if err != nil {
		return maybe
	}
	return yes
}

// item is an object of the ledger: a thing, a copy of one, or a global object.
type item struct {
	thing
	node   int     // where its bytes are, as the metadata says; a global's maker
	maker  int     // the node on which it was made
	parts  []*item // of a global object
	copied bool    // it is a shallow copy
	busy   bool    // somebody works with it

	persisted answer
	deleted   answer
	asked     time.Time // when its persist began
	ended     time.Time // when the last deletion was asked for
	labels    map[string]*labelled
	inGlobal  bool // it is, or was, part of a global object
	migrated  bool // it has equivalents on other nodes, or had
	told      []string
}

// tell adds to what explain says of an item. Called with the ledger's lock held.
func (it *item) tell(what string, on int, err error) {
	it.told = append(it.told, fmt.Sprintf("%s %s on node %d: %v", time.Now().UTC().Format("15:04:05.000"), what, on, err))
}

// labelled is what a label of an object can be.
type labelled struct {
	values []string // of those the last acknowledged one, and all that failed since
	at     time.Time
}

// write is an attempt to change a name.
type write struct {
	to         *item // nil: the name was dropped, or not there yet
	on         int   // the node that was asked
	began, end time.Time
	acked      bool
}

// absence is a time in which a node was down, or cut off.
type absence struct {
	from, to time.Time // to is zero while it lasts
}

// long is the absence after which others may clean up, with a margin.
const long = 10 * time.Second

// late is how long a request that failed may still be on its way.
const late = 20 * time.Second

type ledger struct {
	mu       sync.Mutex
	items    []*item // guarded by mu, as all below
	names    map[string][]write
	absences [][]absence // by node
	wipes    []time.Time
	counts   map[string]int // of what was done, by kind
	failed   map[string]int
	slowest  map[string]time.Duration
	wrong    []string // what must not happen at all, and did
}

func newLedger(nodes int) *ledger {
	return &ledger{
		names: map[string][]write{}, absences: make([][]absence, nodes),
		counts: map[string]int{}, failed: map[string]int{}, slowest: map[string]time.Duration{},
	}
}

// count notes an operation.
func (l *ledger) count(kind string, began time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[kind]++
	if err != nil {
		l.failed[kind]++
	}
	l.slowest[kind] = max(l.slowest[kind], time.Since(began))
}

// violation notes what must not happen.
func (l *ledger) violation(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) < 20 {
		l.wrong = append(l.wrong, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// pick takes a random item that fulfils ok, for its user alone until put.
func (l *ledger) pick(r *rand.Rand, ok func(*item) bool) *item {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.items) == 0 {
		return nil
	}
	for range 20 {
		if it := l.items[r.IntN(len(l.items))]; !it.busy && ok(it) {
			it.busy = true
			return it
		}
	}
	return nil
}

// takeParts takes the parts of an item that nobody else works with: all, or nil.
func (l *ledger) takeParts(it *item) []*item {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.ContainsFunc(it.parts, func(p *item) bool { return p.busy }) {
		return nil
	}
	for _, p := range it.parts {
		p.busy = true
	}
	return slices.Clone(it.parts)
}

// put gives items back, changed by f.
func (l *ledger) put(f func(), items ...*item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	for _, it := range items {
		it.busy = false
	}
}

// add files a new item, which nobody else uses yet.
func (l *ledger) add(it *item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	it.busy = true
	it.labels = map[string]*labelled{}
	l.items = append(l.items, it)
}

// rest is how long a node may need after an absence until its heart beats again:
// two absences with less than that in between are one to the others.
const rest = 15 * time.Second

// away and back note that a node is absent, and that it no longer is.
func (l *ledger) away(node int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.absences[node]); n > 0 && time.Since(l.absences[node][n-1].to) < rest {
		l.absences[node][n-1].to = time.Time{}
		return
	}
	l.absences[node] = append(l.absences[node], absence{from: time.Now()})
}

func (l *ledger) back(node int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.absences[node]
	list[len(list)-1].to = time.Now()
}

// wiped notes that etcd lost everything.
func (l *ledger) wiped() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wipes = append(l.wipes, time.Now())
}

// The rest is for the end, when nobody else works: it takes no lock.

// wasLost reports whether a node was away for long, or at a wipe, at some time
// after t.
func (l *ledger) wasLost(node int, t time.Time) bool {
	return slices.ContainsFunc(l.absences[node], func(a absence) bool {
		to := a.to
		if to.IsZero() {
			to = time.Now()
		}
		return to.After(t) && (to.Sub(a.from) > long ||
			slices.ContainsFunc(l.wipes, func(w time.Time) bool { return w.After(a.from.Add(-late)) && w.Before(to.Add(late)) }))
	})
}

// wipedSince reports whether etcd lost its data after t.
func (l *ledger) wipedSince(t time.Time) bool {
	return slices.ContainsFunc(l.wipes, func(w time.Time) bool { return w.After(t) })
}

// required reports whether an item must be there at the end, and impossible
// whether it must not. dead is the node that was killed for good, or -1.
func (l *ledger) required(it *item, dead int) bool {
	switch {
	case it.persisted != yes || it.deleted != never || it.node == dead || it.maker == dead:
		return false
	case it.parts != nil:
		return !slices.ContainsFunc(it.parts, func(p *item) bool {
			return p.deleted != never || p.node == dead || l.wasLost(p.node, it.asked)
		}) && !l.wasLost(it.maker, it.asked)
	case it.maker != it.node: // a copy of what is elsewhere goes with that node, and its maker cannot know
		return !l.wasLost(it.node, it.asked) && !l.wasLost(it.maker, it.asked)
	}
	return true
}

func (l *ledger) impossible(it *item, dead int) bool {
	if it.node == dead && it.parts == nil {
		// What another node made of it may come back with that one after a wipe.
		return it.maker == it.node || !l.wipedSince(it.asked)
	}
	if it.deleted != yes {
		return false
	}
	before := it.ended.Add(-late)
	for _, n := range append([]int{it.maker, it.node}, nodesOf(it.parts)...) {
		if l.wasLost(n, before) {
			return false // it could not hear of it, or took it for a clean-up
		}
	}
	return !slices.ContainsFunc(l.wipes, func(w time.Time) bool { return w.After(before) && w.Before(it.ended.Add(late)) })
}

func nodesOf(parts []*item) (list []int) {
	for _, p := range parts {
		list = append(list, p.node)
	}
	return list
}

// candidates returns the items that a name can point at, nil for none.
func (l *ledger) candidates(name string, dead int) []*item {
	writes := l.names[name]
	var list []*item
	for i, w := range writes {
		settled := w.end
		if !w.acked {
			settled = settled.Add(late)
		}
		superseded := slices.ContainsFunc(writes[i+1:], func(later write) bool {
			return later.acked && later.began.After(settled) && !l.unsettled(later) && !l.unsettled(write{to: w.to, on: w.on, began: w.began})
		})
		if superseded {
			continue
		}
		list = append(list, w.to)
		if w.to != nil && (!w.acked || !l.required(w.to, dead) || l.wasLost(w.on, w.began)) {
			list = append(list, nil)
		}
	}
	return list
}

// unsettled reports whether nodes that a write concerns came back later with
// what they knew before.
func (l *ledger) unsettled(w write) bool {
	return l.wasLost(w.on, w.began) || w.to != nil && (l.wasLost(w.to.node, w.began) || l.wasLost(w.to.maker, w.began))
}

// verify compares what all nodes agree on with the ledger.
func (l *ledger) verify(v view, dead int) (required, optional int, wrong []string) {
	known := map[string]bool{}
	for _, it := range l.items {
		key := "object " + it.id.String()
		is, there := v[key]
		known[key] = there
		switch must := l.required(it, dead); {
		case must && !there:
			wrong = append(wrong, fmt.Sprintf("%s is lost: %s", key, it.story()))
		case there && l.impossible(it, dead):
			wrong = append(wrong, fmt.Sprintf("%s is still there: %s: %s", key, it.story(), is))
		case must:
			required++
		default:
			optional++
		}
		if !there {
			continue
		}
		if len(it.parts) > 0 && strings.Count(is, "part_") != len(it.parts) {
			wrong = append(wrong, fmt.Sprintf("%s has not %d parts: %s", key, len(it.parts), is))
		}
		for label, can := range it.labels {
			if l.wasLost(it.node, can.at) || l.wasLost(it.maker, can.at) || l.wipedSince(can.at.Add(-late)) {
				continue
			}
			if !slices.ContainsFunc(can.values, func(value string) bool { return value == "" || strings.Contains(is, label+":"+value) }) {
				wrong = append(wrong, fmt.Sprintf("%s: label %s is none of %q: %s", key, label, can.values, is))
			}
		}
	}
	for key := range v {
		unknown := strings.HasPrefix(key, "object ") && !known[key]
		if unknown && strings.Contains(v[key], ", copy=") && l.failed["copy"] > 0 {
			optional++ // its maker never learned the id
		} else if unknown && strings.Contains(v[key], thingType) && l.failed["migrate"] > 0 {
			optional++ // nor did who asked for it
		} else if unknown {
			wrong = append(wrong, key+" is there, nobody made it: "+v[key])
		}
	}
	byID := map[string]*item{}
	for _, it := range l.items {
		byID[it.id.String()] = it
	}
	for name := range l.names {
		var is *item
		if id, ok := v["name "+name]; ok {
			if is = byID[id]; is == nil {
				wrong = append(wrong, fmt.Sprintf("name %s is %s, which nobody made", name, id))
				continue
			}
			if v["object "+id] == "" {
				wrong = append(wrong, fmt.Sprintf("name %s is %s, which is not there: %s", name, id, is.story()))
			}
		}
		if can := l.candidates(name, dead); !slices.Contains(can, is) {
			var text []string
			for _, w := range l.names[name] {
				to := "none"
				if w.to != nil {
					to = w.to.id.String()
				}
				text = append(text, fmt.Sprintf("%s on node %d %s–%s acknowledged %t", to, w.on, w.began.Format("04:05.000"), w.end.Format("04:05.000"), w.acked))
			}
			is := v["name "+name]
			wrong = append(wrong, fmt.Sprintf("name %s is %q; writes were\n\t\t%s", name, is, strings.Join(text[max(0, len(text)-6):], "\n\t\t")))
		}
	}
	return required, optional, wrong
}

// story is what the ledger knows of an item.
func (it *item) story() string {
	kind := "thing"
	switch {
	case it.parts != nil:
		kind = "global object"
	case it.maker != it.node:
		kind = "copy of another node's thing"
	}
	return fmt.Sprintf("%s %d of node %d made on %d, persisted %d at %s, deleted %d at %s",
		kind, it.seed, it.node, it.maker, it.persisted, it.asked.Format("15:04:05.000"), it.deleted, it.ended.Format("15:04:05.000"))
}

// summary is one line of counts.
func (l *ledger) summary() string {
	var text []string
	kinds := make([]string, 0, len(l.counts))
	for kind := range l.counts {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		text = append(text, fmt.Sprintf("%d %s (%d failed, at most %v)", l.counts[kind], kind, l.failed[kind], l.slowest[kind].Round(time.Millisecond)))
	}
	return strings.Join(text, ", ")
}

// ids lists the ids of items.
func ids(list []*item) (out []client.ID) {
	for _, it := range list {
		out = append(out, it.id)
	}
	return out
}
