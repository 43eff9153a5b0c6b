package client

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// BlobType is the typename of blobs in a tree.
const BlobType = "vineyard::Blob"

// Meta is the metadata tree of an object: a typename, plain fields, and members
// that are objects or blobs. Build one with NewMeta, Set and Add, and hand it to
// CreateObject; GetObject returns one with the daemon's fields filled in.
type Meta struct {
	ID         ID
	Typename   string
	Signature  Signature
	InstanceID InstanceID
	Global     bool
	Transient  bool
	Time       time.Time         // when it was created
	Name       string            // the last name that it was given, "" for none
	Labels     map[string]string // nil for none

	fields  []field
	members []memberMeta
}

type field struct {
	key   string
	value wirejson.Value
}

type memberMeta struct {
	key  string
	meta *Meta
}

// NewMeta starts the metadata of a new object.
func NewMeta(typename string) *Meta { return &Meta{Typename: typename, Transient: true} }

// BlobMember refers to a blob of this instance.
func BlobMember(id ID) *Meta { return &Meta{ID: id, Typename: BlobType, Transient: true} }

// Set sets a plain field: a string, number or bool as it is; nil as null;
// json.RawMessage verbatim unless it is an object, which would be a member;
// anything else as JSON text in a string, as all clients do with lists and maps.
// Named types count as anything else: convert them first. The keys of Meta's own
// fields, such as typename and id, must not be set this way.
func (m *Meta) Set(key string, value any) *Meta {
	var v wirejson.Value
	switch x := value.(type) {
	case nil:
		v = wirejson.Value("null")
	case string:
		v = wirejson.AppendString(nil, x)
	case json.RawMessage:
		v = wirejson.Value(x)
		if v.Kind() == wirejson.Object {
			v = wirejson.AppendString(nil, []byte(x))
		}
	case bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64:
		v, _ = json.Marshal(x) // these never fail but for NaN and Inf
		if v == nil {
			v = wirejson.Value("null")
		}
	default:
		text, err := json.Marshal(value)
		if err != nil {
			text = []byte("null")
		}
		v = wirejson.AppendString(nil, text)
	}
	for i := range m.fields {
		if m.fields[i].key == key {
			m.fields[i].value = v
			return m
		}
	}
	m.fields = append(m.fields, field{key, v})
	return m
}

// Add sets a member: an object's metadata, or BlobMember.
func (m *Meta) Add(key string, member *Meta) *Meta {
	for i := range m.members {
		if m.members[i].key == key {
			m.members[i].meta = member
			return m
		}
	}
	m.members = append(m.members, memberMeta{key, member})
	return m
}

// AddObject sets a member to an existing object, or blob of this instance, by
// its id.
func (m *Meta) AddObject(key string, id ID) *Meta {
	if id.IsBlob() {
		return m.Add(key, BlobMember(id))
	}
	return m.Add(key, &Meta{ID: id})
}

// IsBlob reports whether this node of a tree is a blob.
func (m *Meta) IsBlob() bool { return m.Typename == BlobType }

// Raw returns the JSON of a plain field, nil if there is none.
func (m *Meta) Raw(key string) json.RawMessage {
	for i := range m.fields {
		if m.fields[i].key == key {
			return json.RawMessage(m.fields[i].value)
		}
	}
	return nil
}

// Text returns a plain field that is a string.
func (m *Meta) Text(key string) (string, bool) {
	s, err := wirejson.Value(m.Raw(key)).Text()
	return s, err == nil
}

// Int returns a plain field that is a whole number.
func (m *Meta) Int(key string) (int64, bool) {
	n, err := strconv.ParseInt(string(m.Raw(key)), 10, 64)
	return n, err == nil
}

// JSON decodes a field that holds JSON text in a string, such as shape_.
func (m *Meta) JSON(key string, into any) error {
	s, ok := m.Text(key)
	if !ok {
		return status.Errorf(status.MetaTreeTypeInvalid, "object %s has no field %q of JSON text", m.ID, key)
	}
	if err := json.Unmarshal([]byte(s), into); err != nil {
		return status.Errorf(status.MetaTreeTypeInvalid, "field %q of object %s: %w", key, m.ID, err)
	}
	return nil
}

// Keys lists the plain fields in the daemon's order.
func (m *Meta) Keys() []string {
	keys := make([]string, len(m.fields))
	for i := range m.fields {
		keys[i] = m.fields[i].key
	}
	return keys
}

// Member returns a member by key, nil if there is none.
func (m *Meta) Member(key string) *Meta {
	for i := range m.members {
		if m.members[i].key == key {
			return m.members[i].meta
		}
	}
	return nil
}

// Members calls yield for every member in order; it has the form of an
// iterator.
func (m *Meta) Members(yield func(key string, member *Meta) bool) {
	for i := range m.members {
		if !yield(m.members[i].key, m.members[i].meta) {
			return
		}
	}
}

// Blobs lists the distinct blobs in the tree, in the order met.
func (m *Meta) Blobs() []ID {
	seen := map[ID]bool{}
	var ids []ID
	var walk func(*Meta)
	walk = func(m *Meta) {
		if m.IsBlob() {
			if !seen[m.ID] {
				seen[m.ID] = true
				ids = append(ids, m.ID)
			}
			return
		}
		for i := range m.members {
			walk(m.members[i].meta)
		}
	}
	walk(m)
	return ids
}

// append appends the content of a create request.
func (m *Meta) append(b []byte, instance InstanceID) []byte {
	b = append(b, `{"typename":`...)
	b = wirejson.AppendString(b, m.Typename)
	b = append(b, `,"instance_id":`...)
	b = strconv.AppendUint(b, uint64(instance), 10)
	b = append(b, `,"transient":true,"global":`...)
	b = strconv.AppendBool(b, m.Global)
	if m.Raw("nbytes") == nil {
		b = append(b, `,"nbytes":0`...)
	}
	for i := range m.fields {
		b = append(b, ',')
		b = wirejson.AppendKey(b, m.fields[i].key)
		b = append(b, m.fields[i].value...)
	}
	for i := range m.members {
		b = append(b, ',')
		b = wirejson.AppendKey(b, m.members[i].key)
		b = m.members[i].meta.appendMember(b, instance)
	}
	return append(b, '}')
}

func (m *Meta) appendMember(b []byte, instance InstanceID) []byte {
	b = append(b, `{"id":"`...)
	b, _ = m.ID.AppendText(b)
	b = append(b, '"')
	if m.IsBlob() {
		b = append(b, `,"typename":"vineyard::Blob","length":0,"nbytes":0,"instance_id":`...)
		b = strconv.AppendUint(b, uint64(instance), 10)
		b = append(b, `,"transient":true`...)
	}
	return append(b, '}')
}

// parseMeta reads a tree from a reply. Everything in it is copied.
func parseMeta(v wirejson.Value) (*Meta, error) {
	if v.Kind() != wirejson.Object {
		return nil, fmt.Errorf("metadata must be object, but is %s", v.Kind())
	}
	m := &Meta{}
	var err error
	for k, val := range v.Members() {
		key := string(k)
		switch key {
		case "id":
			var text string
			if text, err = val.Text(); err == nil {
				m.ID, err = object.ParseID(text)
			}
		case "typename":
			m.Typename, err = val.Text()
		case "signature":
			var n uint64
			if val.Kind() == wirejson.Number {
				n, err = val.Uint64()
			}
			m.Signature = Signature(n)
		case "instance_id":
			var n uint64
			n, err = val.Uint64()
			m.InstanceID = InstanceID(n)
		case "global":
			m.Global, err = val.Bool()
		case "transient":
			m.Transient, err = val.Bool()
		case "__timestamp":
			var n int64
			n, err = val.Int64()
			m.Time = time.UnixMilli(n).UTC()
		case "__name":
			m.Name, err = val.Text()
		case "__labels":
			if text, terr := val.Text(); terr == nil {
				_ = json.Unmarshal([]byte(text), &m.Labels) // what is no map is no label
			}
		default:
			if val.Kind() == wirejson.Object {
				var sub *Meta
				if sub, err = parseMeta(val); err == nil {
					m.members = append(m.members, memberMeta{key, sub})
				}
				break
			}
			m.fields = append(m.fields, field{key, val.Clone()})
		}
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", key, err)
		}
	}
	return m, nil
}

// MarshalJSON writes the tree as the daemon shows it, with ids as text.
func (m *Meta) MarshalJSON() ([]byte, error) {
	b := append([]byte{}, `{"id":"`...)
	b, _ = m.ID.AppendText(b)
	b = append(b, `","typename":`...)
	b = wirejson.AppendString(b, m.Typename)
	b = append(b, `,"instance_id":`...)
	b = strconv.AppendUint(b, uint64(m.InstanceID), 10)
	if !m.IsBlob() {
		b = append(b, `,"signature":"`...)
		b = append(append(b, m.Signature.String()...), '"')
		b = strconv.AppendBool(append(b, `,"global":`...), m.Global)
		b = strconv.AppendBool(append(b, `,"transient":`...), m.Transient)
		b = append(b, `,"created":`...)
		b = wirejson.AppendString(b, m.Time.Format(time.RFC3339Nano))
		if m.Name != "" {
			b = append(b, `,"name":`...)
			b = wirejson.AppendString(b, m.Name)
		}
		if m.Labels != nil {
			text, err := json.Marshal(m.Labels)
			if err != nil {
				return nil, err
			}
			b = append(append(b, `,"labels":`...), text...)
		}
	}
	b = append(b, `,"fields":{`...)
	for i := range m.fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(wirejson.AppendKey(b, m.fields[i].key), m.fields[i].value...)
	}
	b = append(b, `},"members":{`...)
	for i := range m.members {
		if i > 0 {
			b = append(b, ',')
		}
		b = wirejson.AppendKey(b, m.members[i].key)
		sub, err := m.members[i].meta.MarshalJSON()
		if err != nil {
			return nil, err
		}
		b = append(b, sub...)
	}
	return append(b, '}', '}'), nil
}
