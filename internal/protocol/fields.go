package protocol

import (
	"fmt"
	"strconv"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// Payload tells a client where a blob lies. StoreFD names a mapping; the
// descriptor itself follows the reply the first time that a connection meets
// the number. The blob is at [DataOffset, DataOffset+DataSize) of the file.
// 0.24 clients map MapSize-8 bytes (docs/protocol.md).
type Payload struct {
	ObjectID   object.ID
	StoreFD    int64
	DataOffset int64
	DataSize   int64
	MapSize    int64
	Pointer    uint64
	IsSealed   bool
	IsOwner    bool
	IsGPU      bool
}

// EmptyPayload is the payload of the empty blob, as 0.24 prints it.
var EmptyPayload = Payload{ObjectID: object.EmptyBlob, StoreFD: -1, IsOwner: true}

func (p *Payload) append(b []byte) []byte {
	b = append(p.appendCommon(b), `,"is_gpu":`...)
	return append(strconv.AppendBool(b, p.IsGPU), '}')
}

// appendCommon appends what payloads of both store types have, less the brace.
func (p *Payload) appendCommon(b []byte) []byte {
	b = append(b, `{"object_id":`...)
	b = strconv.AppendUint(b, uint64(p.ObjectID), 10)
	b = append(b, `,"store_fd":`...)
	b = strconv.AppendInt(b, p.StoreFD, 10)
	b = append(b, `,"data_offset":`...)
	b = strconv.AppendInt(b, p.DataOffset, 10)
	b = append(b, `,"data_size":`...)
	b = strconv.AppendInt(b, p.DataSize, 10)
	b = append(b, `,"map_size":`...)
	b = strconv.AppendInt(b, p.MapSize, 10)
	b = append(b, `,"pointer":`...)
	b = strconv.AppendUint(b, p.Pointer, 10)
	b = append(b, `,"is_sealed":`...)
	b = strconv.AppendBool(b, p.IsSealed)
	b = append(b, `,"is_owner":`...)
	return strconv.AppendBool(b, p.IsOwner)
}

func (p *Payload) decode(v wirejson.Value) error {
	if v.Kind() != wirejson.Object {
		return fmt.Errorf("payload must be object, but is %s", v.Kind())
	}
	var err error
	set := func(dst *int64, v wirejson.Value) {
		n, e := v.Int64()
		if e != nil && err == nil {
			err = e
		}
		*dst = n
	}
	seen := 0
	for k, val := range v.Members() {
		switch string(k) {
		case "object_id":
			id, e := val.Uint64()
			if e != nil {
				return e
			}
			p.ObjectID = object.ID(id)
		case "store_fd":
			set(&p.StoreFD, val)
		case "data_offset":
			set(&p.DataOffset, val)
		case "data_size":
			set(&p.DataSize, val)
		case "map_size":
			set(&p.MapSize, val)
		case "is_sealed":
			p.IsSealed = string(val) == "true"
			continue
		case "is_owner":
			p.IsOwner = string(val) == "true"
			continue
		case "is_gpu":
			p.IsGPU = string(val) == "true"
			continue
		case "pointer":
			p.Pointer, _ = val.Uint64() // nobody needs it
			continue
		default:
			continue
		}
		seen++
	}
	if err == nil && seen < 5 {
		err = fmt.Errorf("payload lacks fields: %s", v)
	}
	return err
}

func (p *Payload) decodeField(members []wirejson.Member, key string) error {
	v, ok := lookup(members, key)
	if !ok {
		return fmt.Errorf("missing")
	}
	return p.decode(v)
}

func (p *Payload) appendField(b []byte, key string) []byte {
	b = append(b, ',')
	return p.append(wirejson.AppendKey(b, key))
}

func (*Payload) describe() string { return "payload" }

// PlasmaPayload is the payload of a blob in a session of the plasma type,
// where clients choose the ids.
type PlasmaPayload struct {
	Payload
	PlasmaID   string
	PlasmaSize int64
	RefCount   int64
}

func (p *PlasmaPayload) append(b []byte) []byte {
	b = append(p.appendCommon(b), `,"plasma_id":`...)
	b = wirejson.AppendString(b, p.PlasmaID)
	b = append(b, `,"plasma_size":`...)
	b = strconv.AppendInt(b, p.PlasmaSize, 10)
	b = append(b, `,"ref_cnt":`...)
	return append(strconv.AppendInt(b, p.RefCount, 10), '}')
}

func (p *PlasmaPayload) decode(v wirejson.Value) error {
	p.PlasmaID, _ = v.Get("plasma_id").Text()
	p.PlasmaSize, _ = v.Get("plasma_size").Int64()
	p.RefCount, _ = v.Get("ref_cnt").Int64()
	return p.Payload.decode(v)
}

func (p *PlasmaPayload) decodeField(members []wirejson.Member, key string) error {
	v, ok := lookup(members, key)
	if !ok {
		return fmt.Errorf("missing")
	}
	return p.decode(v)
}

func (p *PlasmaPayload) appendField(b []byte, key string) []byte {
	b = append(b, ',')
	return p.append(wirejson.AppendKey(b, key))
}

func (*PlasmaPayload) describe() string { return "plasma payload" }

// Payloads is a list of payloads under the keys "0", "1", … with their "num",
// and once more as an array: clients read one form or the other.
type Payloads []Payload

func (l *Payloads) decodeField(members []wirejson.Member, key string) error {
	*l = (*l)[:0]
	if v, ok := lookup(members, key); ok {
		for e := range v.Elements() {
			*l = append(*l, Payload{})
			if err := (*l)[len(*l)-1].decode(e); err != nil {
				return err
			}
		}
		return nil
	}
	return numbered(members, func(v wirejson.Value) error {
		*l = append(*l, Payload{})
		return (*l)[len(*l)-1].decode(v)
	})
}

func (l *Payloads) appendField(b []byte, key string) []byte {
	b = append(b, `,"num":`...)
	b = strconv.AppendInt(b, int64(len(*l)), 10)
	for i := range *l {
		b = appendIndex(b, i)
		b = (*l)[i].append(b)
	}
	b = append(b, ',')
	b = append(wirejson.AppendKey(b, key), '[')
	for i := range *l {
		if i > 0 {
			b = append(b, ',')
		}
		b = (*l)[i].append(b)
	}
	return append(b, ']')
}

func (*Payloads) describe() string { return `[payload], also under "0".."num-1"` }

// PlasmaPayloads is a list of plasma payloads under "0", "1", … and "num".
type PlasmaPayloads []PlasmaPayload

func (l *PlasmaPayloads) decodeField(members []wirejson.Member, _ string) error {
	*l = (*l)[:0]
	return numbered(members, func(v wirejson.Value) error {
		*l = append(*l, PlasmaPayload{})
		return (*l)[len(*l)-1].decode(v)
	})
}

func (l *PlasmaPayloads) appendField(b []byte, key string) []byte {
	b = append(b, ',')
	b = strconv.AppendInt(wirejson.AppendKey(b, key), int64(len(*l)), 10)
	for i := range *l {
		b = appendIndex(b, i)
		b = (*l)[i].append(b)
	}
	return b
}

func (*PlasmaPayloads) describe() string { return `plasma payloads under "0".."num-1"` }

// IDs is a list of ids that comes either as an array (Go and Rust clients) or
// as "num" and the keys "0", "1", … (C++, Python and Java clients). It is
// written in the second form, which every daemon reads for every request.
type IDs []object.ID

func (l *IDs) decodeField(members []wirejson.Member, key string) error {
	*l = (*l)[:0]
	add := func(v wirejson.Value) error {
		id, err := v.Uint64()
		*l = append(*l, object.ID(id))
		return err
	}
	if v, ok := lookup(members, key); ok {
		if v.Kind() != wirejson.Array {
			return fmt.Errorf("must be array, but is %s", v.Kind())
		}
		for e := range v.Elements() {
			if err := add(e); err != nil {
				return err
			}
		}
		return nil
	}
	return numbered(members, add)
}

func (l *IDs) appendField(b []byte, _ string) []byte {
	b = append(b, `,"num":`...)
	b = strconv.AppendInt(b, int64(len(*l)), 10)
	for i, id := range *l {
		b = appendIndex(b, i)
		b = strconv.AppendUint(b, uint64(id), 10)
	}
	return b
}

func (*IDs) describe() string { return `[u64], or "num" and "0".."num-1"` }

// Texts is a list of strings under "num" and "0", "1", ….
type Texts []string

func (l *Texts) decodeField(members []wirejson.Member, _ string) error {
	*l = (*l)[:0]
	return numbered(members, func(v wirejson.Value) error {
		s, err := v.Text()
		*l = append(*l, s)
		return err
	})
}

func (l *Texts) appendField(b []byte, key string) []byte {
	b = append(b, ',')
	b = strconv.AppendInt(wirejson.AppendKey(b, key), int64(len(*l)), 10)
	for i, s := range *l {
		b = appendIndex(b, i)
		b = wirejson.AppendString(b, s)
	}
	return b
}

func (*Texts) describe() string { return `strings under "0".."num-1"` }

func appendIndex(b []byte, i int) []byte {
	b = append(b, ',', '"')
	b = strconv.AppendInt(b, int64(i), 10)
	return append(b, '"', ':')
}

// numbered hands over the values under "0".."num-1" in order. Clients write
// them in any order; the C++ client's order is that of the key texts.
func numbered(members []wirejson.Member, add func(wirejson.Value) error) error {
	nv, ok := lookup(members, "num")
	if !ok {
		return fmt.Errorf("neither a list nor num is given")
	}
	n, err := nv.Uint64()
	if err != nil {
		return fmt.Errorf("num %w", err)
	}
	if n > uint64(len(members)) {
		return fmt.Errorf("num is %d, but only %d keys are given", n, len(members))
	}
	var few [16]wirejson.Value
	values := few[:min(n, uint64(len(few)))]
	if n > uint64(len(few)) {
		values = make([]wirejson.Value, n)
	}
	for i := range members {
		key := members[i].Key
		if len(key) == 0 || key[0] < '0' || key[0] > '9' {
			continue
		}
		idx, err := strconv.ParseUint(string(key), 10, 64)
		if err == nil && idx < n {
			values[idx] = members[i].Value
		}
	}
	for i, v := range values {
		if v == nil {
			return fmt.Errorf("key %q is missing", strconv.Itoa(i))
		}
		if err := add(v); err != nil {
			return fmt.Errorf("key %q %w", strconv.Itoa(i), err)
		}
	}
	return nil
}

// Names maps names to object ids.
type Names map[string]object.ID

func (m *Names) decodeField(members []wirejson.Member, key string) error {
	v, ok := lookup(members, key)
	if !ok {
		return fmt.Errorf("missing")
	}
	*m = Names{}
	for k, val := range v.Members() {
		id, err := val.Uint64()
		if err != nil {
			return err
		}
		(*m)[string(k)] = object.ID(id)
	}
	return nil
}

func (m *Names) appendField(b []byte, key string) []byte {
	b = append(b, ',')
	b = append(wirejson.AppendKey(b, key), '{')
	first := true
	for name, id := range *m {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = wirejson.AppendKey(b, name)
		b = strconv.AppendUint(b, uint64(id), 10)
	}
	return append(b, '}')
}

func (*Names) describe() string { return "{name: u64}" }

// StoreType is the kind of a session: 1 default, 2 plasma. Clients send the
// number, or a string of which only "Plasma" means 2.
type StoreType int64

// The store types.
const (
	StoreDefault StoreType = 1
	StorePlasma  StoreType = 2
)

func (s *StoreType) decodeField(members []wirejson.Member, key string) error {
	v, ok := lookup(members, key)
	switch {
	case !ok:
		*s = StoreDefault
	case v.Kind() == wirejson.String:
		*s = StoreDefault
		if t, _ := v.Text(); t == "Plasma" {
			*s = StorePlasma
		}
	default:
		n, err := v.Int64()
		if err != nil {
			return err
		}
		*s = StoreType(n)
	}
	return nil
}

func (s *StoreType) appendField(b []byte, key string) []byte {
	b = append(b, ',')
	return strconv.AppendInt(wirejson.AppendKey(b, key), int64(*s), 10)
}

func (*StoreType) describe() string { return "int or string, default 1" }

// Move is one [source, destination] pair of move_buffers_ownership; the texts
// are ids in decimal or plasma ids.
type Move struct{ From, To string }

// Moves is a map that comes as an array of pairs (maps with integer keys) or
// as an object; Set tells whether the key was there at all.
type Moves struct {
	Pairs []Move
	Set   bool
}

func (m *Moves) decodeField(members []wirejson.Member, key string) error {
	v, ok := lookup(members, key)
	if !ok {
		return nil
	}
	m.Set = true
	switch v.Kind() {
	case wirejson.Object:
		for k, val := range v.Members() {
			to, err := idText(val)
			if err != nil {
				return err
			}
			m.Pairs = append(m.Pairs, Move{string(k), to})
		}
	case wirejson.Array:
		for e := range v.Elements() {
			var pair []string
			for side := range e.Elements() {
				text, err := idText(side)
				if err != nil {
					return err
				}
				pair = append(pair, text)
			}
			if len(pair) != 2 {
				return fmt.Errorf("must hold pairs")
			}
			m.Pairs = append(m.Pairs, Move{pair[0], pair[1]})
		}
	default:
		return fmt.Errorf("must be array or object, but is %s", v.Kind())
	}
	return nil
}

func idText(v wirejson.Value) (string, error) {
	if v.Kind() == wirejson.String {
		return v.Text()
	}
	id, err := v.Uint64()
	return strconv.FormatUint(id, 10), err
}

func (m *Moves) appendField(b []byte, key string) []byte {
	if !m.Set {
		return b
	}
	side := func(b []byte, s string) []byte {
		// A text such as 007 is no JSON number.
		if n, err := strconv.ParseUint(s, 10, 64); err == nil && s == strconv.FormatUint(n, 10) {
			return append(b, s...)
		}
		return wirejson.AppendString(b, s)
	}
	b = append(b, ',')
	b = append(wirejson.AppendKey(b, key), '[')
	for i, p := range m.Pairs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		b = append(side(b, p.From), ',')
		b = append(side(b, p.To), ']')
	}
	return append(b, ']')
}

func (*Moves) describe() string { return "[[source, destination]]" }
