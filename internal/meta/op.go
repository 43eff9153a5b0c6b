package meta

import (
	"slices"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// opKind tells what an op does.
type opKind uint8

const (
	opPut       opKind = iota + 1 // file an object
	opPersist                     // an object is no longer transient
	opLabel                       // set an object's labels
	opName                        // point a name at an object
	opUnname                      // forget a name
	opDelete                      // forget an object
	opBlobs                       // blobs that go with deleted objects
	opSig                         // an instance has an equivalent of a signature
	opUnpersist                   // an object is transient again: others deleted it, but it is in use here
	opTitle                       // the name that an object shows
	opRenumber                    // this instance has another number
)

// op is one change of the tree.
type op struct {
	kind   opKind
	id     object.ID
	entry  *entry
	name   string
	labels wirejson.Value
	blobs  []object.ID
	sig    object.Signature
	inst   object.InstanceID
	to     object.InstanceID // of opRenumber: the new number

	elsewhere bool // a name that another instance gave or took: a key of its own says what the object shows
}

// recOps is the journal record of a list of ops of one session that belong
// together.
const recOps = 32

// commit records ops and applies them. Called with mu held.
func (t *Tree) commit(ops []op) error {
	if len(ops) == 0 {
		return nil
	}
	if own := t.durable(ops); t.journal != nil && len(own) > 0 {
		add := t.journal.Append
		if freeing(own) {
			add = t.journal.AppendFreeing
		}
		if err := add(t.encode(own)); err != nil {
			return err
		}
	}
	t.apply(ops)
	t.wake()
	return nil
}

// follow applies what other instances did: it cannot be refused. Called with mu
// held.
func (t *Tree) follow(ops []op) {
	if err := t.commit(ops); err != nil {
		t.opts.Log.Error("cannot record a change of another instance; after a crash it comes from there again", "err", err)
		t.apply(ops)
		t.wake()
	}
}

// durable returns those ops that the journal needs: foreign objects come from
// the cluster again. Called with mu held, before the ops are applied.
func (t *Tree) durable(ops []op) []op {
	foreign := func(o op) bool {
		id := o.id
		switch o.kind {
		case opPut:
			return o.entry.foreign
		case opBlobs, opRenumber:
			return false
		case opUnname:
			id = t.names[o.name]
		}
		e := t.objects[id]
		return e != nil && e.foreign
	}
	if !slices.ContainsFunc(ops, foreign) {
		return ops
	}
	return slices.DeleteFunc(slices.Clone(ops), foreign)
}

// freeing reports whether ops only take things away.
func freeing(ops []op) bool {
	return !slices.ContainsFunc(ops, func(o op) bool {
		return o.kind != opDelete && o.kind != opUnname && o.kind != opBlobs && o.kind != opUnpersist
	})
}

// apply changes the tree: the only way in, for live requests and for recovery.
// Called with mu held.
func (t *Tree) apply(ops []op) {
	for i := range ops {
		o := &ops[i]
		switch o.kind {
		case opPut:
			t.put(o.entry)
			t.tell(Created, o.entry, "")
		case opPersist:
			if e := t.objects[o.id]; e != nil {
				e.transient, e.uncertain, e.draft = false, false, false
				t.tell(Persisted, e, "")
			}
		case opUnpersist:
			if e := t.objects[o.id]; e != nil {
				e.transient, e.uncertain = true, false
			}
		case opLabel:
			if e := t.objects[o.id]; e != nil {
				e.labels = o.labels
				t.tell(Labelled, e, "")
			}
		case opName:
			t.names[o.name] = o.id
			if e := t.objects[o.id]; e != nil {
				if !o.elsewhere {
					e.name = escapeName(o.name)
				}
				t.tell(Named, e, o.name)
			}
		case opUnname:
			id := t.names[o.name]
			delete(t.names, o.name)
			if e := t.objects[id]; e != nil {
				if e.name == escapeName(o.name) && !o.elsewhere {
					e.name = ""
				}
				t.tell(Unnamed, e, o.name)
			}
		case opDelete:
			if e := t.objects[o.id]; e != nil {
				t.evict(e)
				t.tell(Deleted, e, "")
			}
		case opSig:
			if t.objects[o.id] == nil || !t.maySign(o.sig, o.inst, o.id) {
				break // deleted while it was being persisted: nothing would ever clear the entry
			}
			by := t.sigs[o.sig]
			if by == nil {
				by = map[object.InstanceID]object.ID{}
				t.sigs[o.sig] = by
			}
			by[o.inst] = o.id
		case opTitle:
			if e := t.objects[o.id]; e != nil {
				e.name = o.name
			}
		case opRenumber:
			t.renumber(o.inst, o.to)
		case opBlobs: // the store's business
		}
	}
}

// tell notes an event for those who watch. Called with mu held.
func (t *Tree) tell(kind EventKind, e *entry, name string) {
	if !t.quiet {
		t.events.add(kind, e, name)
	}
}

func (t *Tree) encode(ops []op) []byte {
	w := journal.Begin(t.scratch, recOps)
	w.Uint(uint64(t.opts.Session))
	w.Uint(uint64(len(ops)))
	for i := range ops {
		o := &ops[i]
		w = append(w, byte(o.kind))
		switch o.kind {
		case opPut:
			encodeEntry(&w, o.entry)
		case opPersist, opDelete, opUnpersist:
			w.Uint(uint64(o.id))
		case opLabel:
			w.Uint(uint64(o.id))
			w.Bytes(o.labels)
		case opName, opTitle:
			w.Uint(uint64(o.id))
			w.Text(o.name)
		case opUnname:
			w.Text(o.name)
		case opBlobs:
			w.Uint(uint64(len(o.blobs)))
			for _, b := range o.blobs {
				w.Uint(uint64(b))
			}
		case opRenumber:
			w.Uint(uint64(o.inst))
			w.Uint(uint64(o.to))
		case opSig:
			w.Uint(uint64(o.sig))
			w.Uint(uint64(o.inst))
			w.Uint(uint64(o.id))
		}
	}
	t.scratch = w
	return w
}

func encodeEntry(w *journal.Writer, e *entry) {
	w.Uint(uint64(e.id))
	w.Uint(uint64(e.sig))
	w.Uint(uint64(e.instance))
	w.Text(e.typ.name)
	w.Int(e.timestamp)
	w.Bool(e.global)
	w.Bool(e.hasGlobal)
	w.Uint(flag(e.transient, 1) | flag(e.copied, 2) | flag(e.draft, 4))
	w.Text(e.name)
	w.Bytes(e.labels)
	w.Bytes(e.plain)
	w.Uint(uint64(len(e.members)))
	for _, m := range e.members {
		w.Text(m.key)
		w.Uint(uint64(m.id))
		w.Uint(uint64(m.sig))
	}
	w.Uint(uint64(len(e.blobs)))
	for _, b := range e.blobs {
		w.Uint(uint64(b))
	}
}

func flag(set bool, bit uint64) uint64 {
	if set {
		return bit
	}
	return 0
}

func (t *Tree) decodeEntry(r *journal.Reader) *entry {
	e := &entry{
		id: object.ID(r.Uint()), sig: object.Signature(r.Uint()), instance: object.InstanceID(r.Uint()),
		typ: t.typeFor(r.Text()), timestamp: r.Int(), global: r.Bool(), hasGlobal: r.Bool(),
	}
	flags := r.Uint()
	e.transient, e.copied, e.draft = flags&1 != 0, flags&2 != 0, flags&4 != 0
	e.name, e.labels, e.plain = r.Text(), slices.Clone(wirejson.Value(r.Bytes())), slices.Clone(r.Bytes())
	e.members = make([]member, r.Count())
	for i := range e.members {
		e.members[i] = member{key: r.Text(), id: object.ID(r.Uint()), sig: object.Signature(r.Uint())}
	}
	e.blobs = make([]object.ID, r.Count())
	for i := range e.blobs {
		e.blobs[i] = object.ID(r.Uint())
	}
	return e
}

// IsRecord reports whether a journal record belongs to this package, and to
// which session.
func IsRecord(payload []byte) (object.SessionID, bool) {
	if len(payload) == 0 || payload[0] != recOps {
		return 0, false
	}
	return object.SessionID(journal.NewReader(payload).Uint()), true
}

// Replay applies one record of an earlier daemon's journal and returns the
// blobs that its ops deleted.
func (t *Tree) Replay(payload []byte) (blobs []object.ID, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := journal.NewReader(payload)
	r.Uint() // session
	ops := make([]op, r.Count())
	for i := range ops {
		o := &ops[i]
		o.kind = opKind(r.Uint())
		switch o.kind {
		case opPut:
			o.entry = t.decodeEntry(r)
		case opPersist, opDelete, opUnpersist:
			o.id = object.ID(r.Uint())
		case opLabel:
			o.id = object.ID(r.Uint())
			o.labels = slices.Clone(wirejson.Value(r.Bytes()))
		case opName, opTitle:
			o.id = object.ID(r.Uint())
			o.name = r.Text()
		case opUnname:
			o.name = r.Text()
		case opBlobs:
			o.blobs = make([]object.ID, r.Count())
			for j := range o.blobs {
				o.blobs[j] = object.ID(r.Uint())
			}
			blobs = append(blobs, o.blobs...)
		case opRenumber:
			o.inst, o.to = object.InstanceID(r.Uint()), object.InstanceID(r.Uint())
		case opSig:
			o.sig, o.inst, o.id = object.Signature(r.Uint()), object.InstanceID(r.Uint()), object.ID(r.Uint())
		default:
			return nil, status.Errorf(status.IOError, "unknown metadata change %d", o.kind)
		}
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	t.apply(ops)
	return blobs, nil
}

// Lock stops every change, for a snapshot that spans packages; Unlock resumes.
func (t *Tree) Lock() { t.mu.Lock() }

// Unlock ends Lock.
func (t *Tree) Unlock() { t.mu.Unlock() }

// Snapshot appends the whole tree as records. The caller holds Lock.
func (t *Tree) Snapshot(add func(payload []byte) error) error {
	// Names come before their objects: each object then brings the name that it
	// shows, whichever of its names that is.
	for name, id := range t.names {
		if e := t.objects[id]; e != nil && e.foreign {
			continue
		}
		if err := add(t.encode([]op{{kind: opName, name: name, id: id}})); err != nil {
			return err
		}
	}
	for _, id := range t.all.ids {
		e := t.objects[id]
		if e == nil || e.foreign {
			continue
		}
		if err := add(t.encode([]op{{kind: opPut, entry: e}})); err != nil {
			return err
		}
	}
	for sig, by := range t.sigs {
		for inst, id := range by {
			if e := t.objects[id]; e == nil || e.foreign {
				continue
			}
			if err := add(t.encode([]op{{kind: opSig, sig: sig, inst: inst, id: id}})); err != nil {
				return err
			}
		}
	}
	return nil
}
