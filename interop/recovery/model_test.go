//go:build linux

package recovery

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/v6d-go/v6d/client"
)

// model is what the daemons of one socket have acknowledged. Every daemon that
// comes back must serve exactly this. Workers own disjoint parts of it and
// change their parts after each reply; what is asked and not yet answered is a
// pending, which the next daemon may or may not have done.
type model struct {
	mu     sync.Mutex
	places map[client.SessionID]*place // guarded by mu, as all below
	gone   map[string]bool             // session/id of all that was acknowledged as deleted
	maxID  uint64                      // largest id handed out, without the blob bit
	files  map[int64]fileID            // store_fd numbers ever seen, and their files
	maxFD  int64
	hostID string // of the node, from the first daemon on
	tally  tally
	faults []string
}

// fileID tells one pool file from all others of a mount.
type fileID struct{ dev, ino uint64 }

// place is one session.
type place struct {
	id      client.SessionID
	socket  string
	blobs   map[client.ID]*blob
	objects map[client.ID]*object
	names   map[string]client.ID
}

// blob is a sealed blob. Blobs that were taken over into another session share
// the extent.
type blob struct {
	size   int
	sum    [32]byte
	extent *int
	row    *client.BlobRow // as listed last; nil for a new one
}

// object is an object's own part of its tree.
type object struct {
	shown
	fresh bool // time and signature are not known yet
}

// shown is what the daemon shows of an object, less the trees of its members.
type shown struct {
	ID        client.ID
	Type      string
	Signature client.Signature
	Transient bool
	Global    bool
	Time      time.Time
	Name      string
	Labels    map[string]string
	Fields    map[string]string    // raw JSON by key
	Members   map[string]client.ID // objects and blobs
}

// tally is what a run has checked and found.
type tally struct {
	starts, crashes, stops, stillborn int
	checked, lost, changed, risen     int // objects and blobs compared; lost, changed, resurrected
	other                             int
	bytes                             int64
	maybe, happened                   int // operations in flight, and those of them that came true
	slowest                           time.Duration
}

func newModel() *model {
	return &model{places: map[client.SessionID]*place{}, gone: map[string]bool{}, files: map[int64]fileID{}}
}

func newPlace(id client.SessionID, socket string) *place {
	return &place{id: id, socket: socket, blobs: map[client.ID]*blob{}, objects: map[client.ID]*object{}, names: map[string]client.ID{}}
}

func key(p *place, id client.ID) string { return fmt.Sprintf("%s/%s", p.id, id) }

// fault notes a violation. Called with mu held or by the only goroutine.
func (m *model) fault(kind *int, format string, args ...any) {
	*kind++
	m.faults = append(m.faults, fmt.Sprintf(format, args...))
}

// saw notes an id that a daemon handed out.
func (m *model) saw(id client.ID) {
	m.maxID = max(m.maxID, uint64(id)&^(1<<63))
}

func (m *model) addBlob(p *place, id client.ID, size int, sum [32]byte) {
	m.saw(id)
	p.blobs[id] = &blob{size: size, sum: sum, extent: new(int)}
}

// addObject files an object whose creation was acknowledged.
func (m *model) addObject(p *place, meta *client.Meta) {
	m.saw(meta.ID)
	o := &object{shown: show(meta), fresh: true}
	p.objects[meta.ID] = o
}

// show takes an object's own part out of a tree.
func show(meta *client.Meta) shown {
	s := shown{
		ID: meta.ID, Type: meta.Typename, Signature: meta.Signature, Transient: meta.Transient, Global: meta.Global,
		Time: meta.Time, Name: meta.Name, Labels: meta.Labels, Fields: map[string]string{}, Members: map[string]client.ID{},
	}
	for _, k := range meta.Keys() {
		s.Fields[k] = string(meta.Raw(k))
	}
	if _, ok := s.Fields["nbytes"]; !ok {
		s.Fields["nbytes"] = "0"
	}
	for k, member := range meta.Members {
		s.Members[k] = member.ID
	}
	return s
}

// String is a canonical text: equal shown have equal texts.
func (s shown) String() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// diff says what differs between two of an object; fresh ones have no time yet.
func (o *object) diff(found shown) string {
	want := o.shown
	if o.fresh {
		want.Time = found.Time
	}
	a, b := want.String(), found.String()
	if a == b {
		return ""
	}
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	cut := func(s string) string { return s[max(0, min(i-60, len(s))):min(len(s), i+120)] }
	return fmt.Sprintf("want …%s…, found …%s…", cut(a), cut(b))
}

// owners lists the objects that refer to an id.
func (p *place) owners(id client.ID) []client.ID {
	var out []client.ID
	for _, o := range p.objects {
		for _, member := range o.Members {
			if member == id {
				out = append(out, o.ID)
				break
			}
		}
	}
	slices.Sort(out)
	return out
}

// deletion computes what a delete request takes with it: the rules of 0.24 as
// docs/protocol.md has them, written down a second time.
func (p *place) deletion(ids []client.ID, o client.DeleteOptions) map[client.ID]bool {
	gone := map[client.ID]bool{}
	var take func(id client.ID, force, deep bool)
	take = func(id client.ID, force, deep bool) {
		obj := p.objects[id]
		if gone[id] || obj == nil && p.blobs[id] == nil {
			return
		}
		owners := slices.DeleteFunc(p.owners(id), func(id client.ID) bool { return gone[id] })
		if len(owners) > 0 && !force {
			return
		}
		gone[id] = true
		if obj != nil {
			members := slices.Sorted(maps.Values(obj.Members))
			for _, member := range members {
				if p.objects[member] == nil {
					take(member, false, false)
				}
			}
			for _, member := range members {
				if deep && p.objects[member] != nil {
					take(member, false, true)
				}
			}
		}
		if force {
			for _, owner := range owners {
				take(owner, true, false)
			}
		}
	}
	want := map[client.ID]bool{}
	for _, id := range ids {
		want[id] = true
	}
	var visit func(id client.ID)
	visit = func(id client.ID) {
		if !want[id] {
			return
		}
		delete(want, id)
		for _, owner := range p.owners(id) {
			visit(owner)
		}
		take(id, o.Force, !o.Shallow)
	}
	for _, id := range ids {
		visit(id)
	}
	return gone
}

// remove forgets what a deletion took; it must not come back.
func (m *model) remove(p *place, gone map[client.ID]bool) {
	for id := range gone {
		delete(p.blobs, id)
		delete(p.objects, id)
		m.gone[key(p, id)] = true
	}
}

// named is what PutName does to the model.
func (p *place) named(id client.ID, name string) {
	p.names[name] = id
	if o := p.objects[id]; o != nil {
		o.Name = escapeName(name)
	}
}

// unnamed is what DropName does to the model.
func (p *place) unnamed(name string) {
	if o := p.objects[p.names[name]]; o != nil && o.Name == escapeName(name) {
		o.Name = ""
	}
	delete(p.names, name)
}

// escapeName is how 0.24 shows a name in an object's metadata.
func escapeName(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// persisted marks an object and its transient members.
func (p *place) persisted(id client.ID) {
	o := p.objects[id]
	if o == nil || !o.Transient {
		return
	}
	o.Transient = false
	for _, member := range o.Members {
		p.persisted(member)
	}
}

// bytesOf makes n bytes from a seed, and their hash.
func bytesOf(b []byte, seed uint64) [32]byte {
	r := rand.NewPCG(seed, 0x9e3779b97f4a7c15)
	i := 0
	for ; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	for last := r.Uint64(); i < len(b); i++ {
		b[i] = byte(last)
		last >>= 8
	}
	return sha256.Sum256(b)
}
