// Package meta is the metadata tree of a node: objects, their members, names
// and labels, and what may be done with them.
//
// Vocabulary: an entry is one object as the tree keeps it. Its plain fields
// stay encoded as the client sent them, and so do its links to blobs, so that a
// reply is spliced from fragments; only members that are objects themselves are
// looked up. Owners are the objects that refer to an object or blob. A change
// (Op) is the only way to alter the tree: ops are computed, committed to the
// Backend where they concern other instances, recorded in the journal, and
// applied; recovery applies them again. An object is foreign when it came from
// another instance: it is here to be read, and not in the journal.
//
// A Cluster connects a tree with those of other instances over a Backend: it
// loads and watches the shared keys, registers the instance, and buries dead
// ones. A position in the Backend's history is a revision.
//
// The rules of creation and deletion are those of Vineyard 0.24
// (docs/protocol.md).
package meta

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// BlobType is the typename of blobs.
const BlobType = "vineyard::Blob"

// Blobs is what the tree needs of a session's blob store.
type Blobs interface {
	// Exists reports whether a blob is known, sealed or not.
	Exists(id object.ID) bool
	// Sealed returns the size of a sealed blob.
	Sealed(id object.ID) (size int64, ok bool)
	// SealedIDs lists all sealed blobs.
	SealedIDs() []object.ID
	// Keep sees to it that blobs stay which objects are about to have as members; undo
	// takes that back.
	Keep(ids []object.ID) (undo func(), err error)
}

// Options configures a Tree.
type Options struct {
	Session  object.SessionID
	Instance object.InstanceID
	IDs      *object.Generator
	Blobs    Blobs
	Log      *slog.Logger
	// Free is called with the blobs of objects that another instance deleted,
	// before any other change of the tree.
	Free func([]object.ID)
}

// Tree is the metadata of one session. It is safe for concurrent use.
type Tree struct {
	opts    Options
	cluster *Cluster // nil for a tree that no other instance sees; set before use
	now     func() time.Time

	mu         sync.RWMutex
	published  *sync.Cond                       // of mu: an id has left publishing
	publishing map[object.ID]int                // objects that are on their way to the cluster; guarded by mu
	pending    map[object.ID]*entry             // new ones among them; guarded by mu
	sigOwners  map[object.Signature][]object.ID // global objects that refer to a signature; guarded by mu
	copies     map[object.ID]object.ID          // objects here by what they are migrated copies of; guarded by mu
	former     []object.InstanceID              // numbers that this instance had while clients connected; guarded by mu
	quiet      bool                             // nobody is told of changes; guarded by mu
	journal    *journal.Journal                 // guarded by mu, as all below; nil while recovering
	objects    map[object.ID]*entry
	all        idSet
	types      map[string]*typeIndex
	names      map[string]object.ID
	sigs       map[object.Signature]map[object.InstanceID]object.ID
	owners     map[object.ID][]object.ID // objects that refer to a member or local blob
	waiters    map[*waiter]struct{}
	events     feed
	scratch    []byte
}

// typeIndex is the set of objects of one typename.
type typeIndex struct {
	name string
	ids  idSet
}

// entry is one object. It is immutable once in the tree, except for the
// fields below the line, which ops change under the tree's lock.
type entry struct {
	id        object.ID
	sig       object.Signature
	instance  object.InstanceID
	typ       *typeIndex
	timestamp int64 // unix milliseconds
	global    bool
	hasGlobal bool     // the client sent the key
	plain     []byte   // `"key":value,…` of plain fields and blob links
	members   []member // members that are objects
	blobs     []object.ID

	// Changed by ops.
	transient bool
	copied    bool           // a shallow copy: its signature means its source
	draft     bool           // a migrated copy that was not persisted yet: a crash takes it back
	foreign   bool           // it came from another instance
	uncertain bool           // it may be visible to the cluster, though transient here
	origin    object.ID      // what it is a migrated copy of, as long as that is remembered
	name      string         // __name: the last name, escaped as 0.24 shows it
	labels    wirejson.Value // __labels: a JSON string that holds an object
}

// member links an object. Members of global objects are linked by signature:
// each instance resolves it to its own equivalent.
type member struct {
	key string
	id  object.ID
	sig object.Signature // of a member of a global object, else 0
}

// New returns an empty tree.
func New(o Options) *Tree {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tree{
		opts: o, now: time.Now,
		publishing: map[object.ID]int{}, pending: map[object.ID]*entry{}, sigOwners: map[object.Signature][]object.ID{},
		copies:  map[object.ID]object.ID{},
		objects: map[object.ID]*entry{}, types: map[string]*typeIndex{}, names: map[string]object.ID{},
		sigs: map[object.Signature]map[object.InstanceID]object.ID{}, owners: map[object.ID][]object.ID{},
		waiters: map[*waiter]struct{}{}, events: newFeed(),
	}
	t.published = sync.NewCond(&t.mu)
	return t
}

// SetJournal makes the tree record its changes from now on.
func (t *Tree) SetJournal(j *journal.Journal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.journal = j
}

// Sync catches up with every write that another instance was told is done. While
// the cluster cannot be reached there is nothing to catch up with.
func (t *Tree) Sync(ctx context.Context) error {
	if t.cluster == nil {
		return nil
	}
	return t.cluster.Sync(ctx)
}

// SyncFor is Sync, unless none of the ids can have changed elsewhere: blobs and
// transient objects live here only. Clients sync by asking for no object.
func (t *Tree) SyncFor(ctx context.Context, ids []object.ID) error {
	if t.cluster == nil || !t.cluster.shared {
		return nil
	}
	t.mu.RLock()
	elsewhere := false
	for _, id := range ids {
		e := t.objects[id]
		elsewhere = elsewhere || id == object.InvalidID || !id.IsBlob() && (e == nil || !e.transient || e.global)
	}
	t.mu.RUnlock()
	if !elsewhere {
		return nil
	}
	return t.cluster.Sync(ctx)
}

// current returns the number of an instance that a client names: it may have
// connected when this one still had another. Called with mu held.
func (t *Tree) current(n object.InstanceID) object.InstanceID {
	if slices.Contains(t.former, n) {
		return t.opts.Instance
	}
	return n
}

// Instance returns the number of this instance.
func (t *Tree) Instance() object.InstanceID {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.opts.Instance
}

// Len returns the number of objects.
func (t *Tree) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.objects)
}

// typeFor returns the index of a typename. A new one becomes the tree's with
// the first object that is put: an object that is refused leaves nothing
// behind. Called with mu held.
func (t *Tree) typeFor(name string) *typeIndex {
	if ti := t.types[name]; ti != nil {
		return ti
	}
	return &typeIndex{name: name}
}

// put files an entry. Called with mu held.
func (t *Tree) put(e *entry) {
	t.objects[e.id] = e
	t.all.add(e.id)
	if ti := t.types[e.typ.name]; ti != nil {
		e.typ = ti
	} else {
		t.types[e.typ.name] = e.typ
	}
	e.typ.ids.add(e.id)
	for _, m := range e.members {
		addOwner(t.owners, m.id, e.id)
		addOwner(t.sigOwners, m.sig, e.id)
	}
	for _, b := range e.blobs {
		addOwner(t.owners, b, e.id)
	}
	t.opts.IDs.Continue(uint64(e.id))
}

// evict unfiles an entry. Called with mu held.
func (t *Tree) evict(e *entry) {
	delete(t.objects, e.id)
	if t.copies[e.origin] == e.id {
		delete(t.copies, e.origin)
	}
	t.all.remove(e.id, t.isLive)
	e.typ.ids.remove(e.id, func(id object.ID) bool { o := t.objects[id]; return o != nil && o.typ == e.typ })
	if e.typ.ids.live == 0 {
		delete(t.types, e.typ.name)
	}
	for _, m := range e.members {
		dropOwner(t.owners, m.id, e.id)
		dropOwner(t.sigOwners, m.sig, e.id)
	}
	for _, b := range e.blobs {
		dropOwner(t.owners, b, e.id)
	}
	// Persist files an object under this instance, whichever it names itself.
	by := t.sigs[e.sig]
	for inst, id := range by {
		if id == e.id {
			delete(by, inst)
		}
	}
	if len(by) == 0 {
		delete(t.sigs, e.sig)
	}
}

func (t *Tree) isLive(id object.ID) bool { return t.objects[id] != nil }

// addOwner notes that an object refers to something, once however often it does.
func addOwner[K object.ID | object.Signature](owners map[K][]object.ID, of K, owner object.ID) {
	if list := owners[of]; of != 0 && (len(list) == 0 || list[len(list)-1] != owner) {
		owners[of] = append(list, owner)
	}
}

func dropOwner[K object.ID | object.Signature](owners map[K][]object.ID, of K, owner object.ID) {
	list := owners[of]
	if i := slices.Index(list, owner); i >= 0 {
		list[i] = list[len(list)-1]
		list = list[:len(list)-1]
	}
	if len(list) == 0 {
		delete(owners, of)
	} else {
		owners[of] = list
	}
}

// ownersOf returns the objects that refer to an object or blob. Global objects
// refer to each equivalent of their members. Called with mu held; the result
// must not be changed.
func (t *Tree) ownersOf(id object.ID) []object.ID {
	direct := t.owners[id]
	e := t.objects[id]
	if e == nil || len(t.sigOwners) == 0 {
		return direct
	}
	global := t.sigOwners[e.sig]
	if len(global) == 0 || !t.isEquivalent(e) {
		return direct
	}
	all := slices.Clone(direct)
	for _, owner := range global {
		if !slices.Contains(direct, owner) {
			all = append(all, owner)
		}
	}
	return all
}

// isEquivalent reports whether an object is what its signature stands for on
// some instance: shallow copies have the signature, too, but are not. Called
// with mu held.
func (t *Tree) isEquivalent(e *entry) bool {
	for _, id := range t.sigs[e.sig] {
		if id == e.id {
			return true
		}
	}
	return false
}

// equivalents returns what a member link stands for, in the order of the ids.
// Called with mu held.
func (t *Tree) equivalents(m member) (list []*entry) {
	if e := t.objects[m.id]; e != nil {
		list = append(list, e)
	}
	if m.sig != 0 {
		for _, id := range t.sigs[m.sig] {
			if e := t.objects[id]; e != nil && !slices.Contains(list, e) {
				list = append(list, e)
			}
		}
		slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.id, b.id) })
	}
	return list
}

// resolve finds the object that a member link points at: of a signature this
// instance's equivalent, or else that of the first instance in the order of their
// keys, so that all nodes find the same. Called with mu held.
func (t *Tree) resolve(m member) *entry {
	if m.sig == 0 {
		return t.objects[m.id]
	}
	by := t.sigs[m.sig]
	if e := t.objects[by[t.opts.Instance]]; e != nil {
		return e
	}
	var first *entry
	firstKey := ""
	for inst, id := range by {
		if e := t.objects[id]; e != nil && (first == nil || inst.String() < firstKey) {
			first, firstKey = e, inst.String()
		}
	}
	if first == nil {
		return t.objects[m.id]
	}
	return first
}

// maxTree bounds the JSON of one expanded object, in bytes: members that are
// shared are written once for each way to them, which can grow without limit.
const maxTree = 256 << 20

// appendEntry appends the JSON of an object and all its members, until b is
// longer than most. It reports false when that is not enough, or when a member
// cannot be resolved; what was appended is then garbage.
// Called with mu held.
func (t *Tree) appendEntry(b []byte, e *entry, depth, most int) ([]byte, bool) {
	if depth > wirejson.MaxDepth || len(b) > most {
		return b, false
	}
	b = append(b, `{"id":"`...)
	b, _ = e.id.AppendText(b)
	b = append(b, `","typename":`...)
	b = wirejson.AppendString(b, e.typ.name)
	b = append(b, `,"signature":`...)
	b = strconv.AppendUint(b, uint64(e.sig), 10)
	b = append(b, `,"instance_id":`...)
	b = strconv.AppendUint(b, uint64(e.instance), 10)
	b = append(b, `,"transient":`...)
	b = strconv.AppendBool(b, e.transient)
	if e.hasGlobal {
		b = append(b, `,"global":`...)
		b = strconv.AppendBool(b, e.global)
	}
	b = append(b, `,"__timestamp":`...)
	b = strconv.AppendInt(b, e.timestamp, 10)
	if e.name != "" {
		b = append(b, `,"__name":`...)
		b = wirejson.AppendString(b, e.name)
	}
	if len(e.labels) > 0 {
		b = append(b, `,"__labels":`...)
		b = append(b, e.labels...)
	}
	if len(e.plain) > 0 {
		b = append(b, ',')
		b = append(b, e.plain...)
	}
	for _, m := range e.members {
		target := t.resolve(m)
		if target == nil {
			return b, false
		}
		b = append(b, ',')
		b = wirejson.AppendKey(b, m.key)
		var ok bool
		if b, ok = t.appendEntry(b, target, depth+1, most); !ok {
			return b, false
		}
	}
	return append(b, '}'), true
}

// appendBlobLink appends what a tree shows of a blob: 0.24 prints length 0
// there, since blobs lie outside of the metadata.
func appendBlobLink(b []byte, id object.ID, instance object.InstanceID) []byte {
	return appendBlob(b, id, instance, 0)
}

func appendBlob(b []byte, id object.ID, instance object.InstanceID, size int64) []byte {
	b = append(b, `{"id":"`...)
	b, _ = id.AppendText(b)
	b = append(b, `","typename":"vineyard::Blob","length":`...)
	b = strconv.AppendInt(b, size, 10)
	b = append(b, `,"nbytes":`...)
	b = strconv.AppendInt(b, size, 10)
	b = append(b, `,"instance_id":`...)
	b = strconv.AppendUint(b, uint64(instance), 10)
	return append(b, `,"transient":true}`...)
}

// idSet is a set of ids in ascending order. New ids are nearly always the
// largest, so that it is a slice; removed ones stay in it until half of it is
// dead.
type idSet struct {
	ids  []object.ID
	live int
}

func (s *idSet) search(id object.ID) int {
	lo, hi := 0, len(s.ids)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.ids[mid] < id {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (s *idSet) add(id object.ID) {
	s.live++
	if n := len(s.ids); n == 0 || s.ids[n-1] < id {
		s.ids = append(s.ids, id)
		return
	}
	i := s.search(id)
	if i < len(s.ids) && s.ids[i] == id {
		return // it was dead
	}
	s.ids = append(s.ids, 0)
	copy(s.ids[i+1:], s.ids[i:])
	s.ids[i] = id
}

// remove notes that an id is dead; isLive tells the others.
func (s *idSet) remove(_ object.ID, isLive func(object.ID) bool) {
	s.live--
	if len(s.ids) < 64 || s.live*2 > len(s.ids) {
		if s.live == 0 {
			s.ids = s.ids[:0]
		}
		return
	}
	kept := s.ids[:0]
	for _, id := range s.ids {
		if isLive(id) {
			kept = append(kept, id)
		}
	}
	s.ids = kept
}
