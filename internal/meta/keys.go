package meta

import (
	"strconv"
	"strings"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// The keys that instances share, below <prefix>/S<session>, and how objects are
// written there: the key space of Vineyard 0.24 (docs/protocol.md, "Shared
// metadata").
const (
	keyData       = "/data/"             // /data/o<id>: an object; /data/o<id>/<field>: one field of it
	keySignatures = "/signatures/"       // /signatures/i<N>/s<sig>: "o<id>"
	keyNames      = "/names/"            // /names/<escaped>: id as a number
	keyInstances  = "/instances/"        // /instances/i<N>/<field>
	keyNext       = "/next_instance_id"  // the number of the next new instance
	keyLock       = "/meta_sync_lock"    // the lock of every change that is not one transaction
	keyLockHolder = keyLock + "/"        // its holders and those who wait
	keyUserLocks  = "/locks.of.sessions" // where child sessions have their locks
)

func dataKey(id object.ID) string            { return keyData + id.String() }
func fieldKey(id object.ID, f string) string { return keyData + id.String() + "/" + f }
func nameKey(name string) string             { return keyNames + escapeName(name) }
func instanceKey(n object.InstanceID) string { return keyInstances + n.String() + "/" }
func signatureKey(n object.InstanceID, s object.Signature) string {
	return keySignatures + n.String() + "/" + s.String()
}

var (
	escaper   = strings.NewReplacer("~", "~0", "/", "~1")
	unescaper = strings.NewReplacer("~0", "~", "~1", "/")
)

// escapeName is how names stand in keys, and in an object's __name.
func escapeName(name string) string { return escaper.Replace(name) }

// place is what a key means.
type place struct {
	kind     placeKind
	id       object.ID
	field    string // of an object or instance; "" for the object itself
	name     string
	sig      object.Signature
	instance object.InstanceID
}

type placeKind uint8

const (
	placeOther placeKind = iota // not ours, or malformed
	placeData
	placeSignature
	placeName
	placeInstance
	placeNext
)

func parsePlace(key string) place {
	none := place{}
	switch {
	case strings.HasPrefix(key, keyData):
		text, field, _ := strings.Cut(key[len(keyData):], "/")
		id, err := parseIDText(text)
		if err != nil || id.IsBlob() {
			return none
		}
		return place{kind: placeData, id: id, field: field}
	case strings.HasPrefix(key, keySignatures):
		inst, text, ok := strings.Cut(key[len(keySignatures):], "/")
		n, ok2 := parseInstance(inst)
		sig, err := parseSignature(text)
		if !ok || !ok2 || err != nil {
			return none
		}
		return place{kind: placeSignature, instance: n, sig: sig}
	case strings.HasPrefix(key, keyNames) && len(key) > len(keyNames):
		return place{kind: placeName, name: unescaper.Replace(key[len(keyNames):])}
	case strings.HasPrefix(key, keyInstances):
		inst, field, _ := strings.Cut(key[len(keyInstances):], "/")
		n, ok := parseInstance(inst)
		if !ok || field == "" {
			return none
		}
		return place{kind: placeInstance, instance: n, field: field}
	case key == keyNext:
		return place{kind: placeNext}
	}
	return none
}

func parseInstance(s string) (object.InstanceID, bool) {
	if len(s) < 2 || s[0] != 'i' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[1:], 10, 64)
	return object.InstanceID(n), err == nil
}

func parseSignature(s string) (object.Signature, error) {
	if len(s) < 2 || s[0] != 's' {
		return 0, status.Errorf(status.MetaTreeLinkInvalid, "%q is no signature", s)
	}
	n, err := strconv.ParseUint(s[1:], 16, 64)
	if err != nil {
		return 0, status.Errorf(status.MetaTreeLinkInvalid, "%q is no signature", s)
	}
	return object.Signature(n), nil
}

// appendValue appends a text as the shared store has it: behind a v.
func appendValue(b []byte, text string) []byte { return wirejson.AppendString(b, "v"+text) }

// appendLink appends a member: l, its id or signature, a dot and the typename up
// to its parameters; of a blob also where it is.
func appendLink(b []byte, name, typename string, at string) []byte {
	typename, _, _ = strings.Cut(typename, "<")
	typename = strings.ReplaceAll(typename, ".", "_") // a link has one dot
	return wirejson.AppendString(b, "l"+name+"."+typename+at)
}

// encodeObject writes an object as the shared store has it, less the name that it
// shows: that can go, and has a key of its own. Called with mu held for reading.
func (t *Tree) encodeObject(e *entry) ([]byte, error) {
	b := make([]byte, 0, len(e.plain)+256)
	b = append(b, `{"typename":`...)
	b = appendValue(b, e.typ.name)
	b = append(b, `,"signature":`...)
	b = strconv.AppendUint(b, uint64(e.sig), 10)
	b = append(b, `,"instance_id":`...)
	b = strconv.AppendUint(b, uint64(e.instance), 10)
	b = append(b, `,"transient":false`...)
	if e.hasGlobal {
		b = append(b, `,"global":`...)
		b = strconv.AppendBool(b, e.global)
	}
	b = append(b, `,"__timestamp":`...)
	b = strconv.AppendInt(b, e.timestamp, 10)
	if len(e.labels) > 0 {
		b = append(b, `,"__labels":`...)
		b = appendStored(b, e.labels)
	}
	for k, v := range asObject(e.plain).Members() {
		b = append(b, ',')
		b = wirejson.AppendKey(b, string(k))
		if v.Kind() != wirejson.Object {
			b = appendStored(b, v)
			continue
		}
		id, err := v.Get("id").Text()
		if err != nil {
			return nil, status.Errorf(status.MetaTreeInvalid, "field %q of %s is no link to a blob", k, e.id)
		}
		inst, err := v.Get("instance_id").Uint64()
		if err != nil {
			return nil, status.Errorf(status.MetaTreeInvalid, "blob %q of %s: instance_id %v", k, e.id, err)
		}
		b = appendLink(b, id, BlobType, "@"+strconv.FormatUint(inst, 10))
	}
	for _, m := range e.members {
		to := t.resolve(m)
		if to == nil {
			return nil, status.Errorf(status.MetaTreeSubtreeNotExists, "member %q of %s does not exist", m.key, e.id)
		}
		name := to.id.String()
		if m.sig != 0 {
			name = m.sig.String()
		}
		b = append(b, ',')
		b = wirejson.AppendKey(b, m.key)
		b = appendLink(b, name, to.typ.name, "")
	}
	return append(b, '}'), nil
}

// appendStored appends a plain value: texts get their v.
func appendStored(b []byte, v wirejson.Value) []byte {
	if v.Kind() == wirejson.String {
		b = append(b, `"v`...)
		return append(b, v[1:]...)
	}
	return append(b, v...)
}

// asObject puts the braces around plain fields.
func asObject(plain []byte) wirejson.Value {
	whole := make([]byte, 0, len(plain)+2)
	return append(append(append(whole, '{'), plain...), '}')
}

// decodeObject reads an object of the shared store. It is an error unless it has
// a typename and an instance; keys that are wrong in themselves are errors too.
// Called with mu held.
func (t *Tree) decodeObject(id object.ID, fields []wirejson.Member) (*entry, error) {
	e := &entry{id: id, foreign: true}
	typename, hasInst := "", false
	invalid := func(key []byte, err error) error {
		return status.Errorf(status.MetaTreeInvalid, "object %s: %s %w", id, key, err)
	}
	for _, m := range fields {
		var err error
		switch key := string(m.Key); key {
		case "id", "transient":
		case "typename":
			typename, err = storedText(m.Value)
		case "signature":
			var n uint64
			n, err = m.Value.Uint64()
			e.sig = object.Signature(n)
		case "instance_id":
			var n uint64
			n, err = m.Value.Uint64()
			e.instance, hasInst = object.InstanceID(n), true
		case "global":
			e.global, err = m.Value.Bool()
			e.hasGlobal = true
		case "__timestamp":
			e.timestamp, err = m.Value.Int64()
		case "__name":
			e.name, err = storedText(m.Value)
		case "__labels":
			e.labels, err = storedValue(m.Value)
		default:
			err = e.addStored(key, m.Value)
		}
		if err != nil {
			return nil, invalid(m.Key, err)
		}
	}
	if typename == "" || !hasInst || typename == BlobType {
		return nil, status.Errorf(status.MetaTreeInvalid, "object %s lacks its typename or instance", id)
	}
	e.typ = t.typeFor(typename)
	e.blobs = t.localBlobs(e.plain)
	return e, nil
}

// storedText reads a text behind its v.
func storedText(v wirejson.Value) (string, error) {
	text, err := v.Text()
	if err == nil && (text == "" || text[0] != 'v') {
		err = status.Errorf(status.MetaTreeTypeInvalid, "must begin with v, but is %q", text)
	}
	if err != nil {
		return "", err
	}
	return text[1:], nil
}

// storedValue reads a plain value and takes a text's v away.
func storedValue(v wirejson.Value) (wirejson.Value, error) {
	if v.Kind() != wirejson.String {
		return v.Clone(), nil
	}
	if len(v) > 2 && v[1] == 'v' {
		return append(wirejson.Value{'"'}, v[2:]...), nil
	}
	text, err := storedText(v)
	return wirejson.AppendString(nil, text), err
}

// addStored adds a plain field, blob link or member.
func (e *entry) addStored(key string, v wirejson.Value) error {
	if v.Kind() == wirejson.Object {
		return status.Errorf(status.MetaTreeTypeInvalid, "must not be an object")
	}
	text := ""
	if v.Kind() == wirejson.String {
		text, _ = v.Text()
	}
	if text == "" || text[0] != 'l' {
		plain, err := storedValue(v)
		if err == nil {
			e.plain = appendPlain(e.plain, key, plain)
		}
		return err
	}
	name, typename, ok := strings.Cut(text[1:], ".")
	if !ok || len(name) < 2 {
		return status.Errorf(status.MetaTreeLinkInvalid, "is %q, which is no link", text)
	}
	if name[0] == 's' {
		sig, err := parseSignature(name)
		e.members = append(e.members, member{key: key, sig: sig})
		return err
	}
	id, err := parseIDText(name)
	if err != nil {
		return err
	}
	if !id.IsBlob() {
		e.members = append(e.members, member{key: key, id: id})
		return nil
	}
	_, at, _ := strings.Cut(typename, "@")
	inst, err := strconv.ParseUint(at, 10, 64)
	if err != nil {
		return status.Errorf(status.MetaTreeLinkInvalid, "is %q: a blob's instance is missing", text)
	}
	if len(e.plain) > 0 {
		e.plain = append(e.plain, ',')
	}
	e.plain = wirejson.AppendKey(e.plain, key)
	e.plain = appendBlobLink(e.plain, id, object.InstanceID(inst))
	return nil
}
