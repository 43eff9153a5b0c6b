// Package protocol is the 0.24 wire: frames, descriptors and every message as
// one definition.
//
// A frame is an 8-byte little-endian length and that many bytes of JSON. A
// request frame is answered by one reply frame, in order; a reply that hands
// out a blob in a mapping that the connection does not know yet is followed by
// one byte carrying its file descriptor (Conn.SendFD).
//
// A message is a Def: the names of request and reply and two structs. Field
// tags give the JSON keys. From a Def come decoder, encoder, the router's key,
// the fuzz seeds and the tables in docs/protocol.md. A Def is used from both
// ends: the server decodes requests and appends replies, the client appends
// requests and decodes replies.
//
// Tags: `wire:"key"` is required; `wire:"key,optional"` keeps the zero value
// when absent; `alt=other` accepts a second spelling that some client sends.
// Field types: bool, string, integers, slices of them, wirejson.Value (kept as
// sent, aliasing the frame), and types that implement field.
package protocol

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// Info is what a definition says besides its types.
type Info struct {
	Request string // the request's type on the wire
	Reply   string // the reply's type; "" when there is no reply
	Doc     string // one line for docs/protocol.md

	request, reply *plan
}

// Def is the definition of one message: request Q, reply R.
type Def[Q, R any] struct{ Info }

var registry []*Info

// Messages returns every definition in the order of definition. The caller
// must not change it.
func Messages() []*Info { return registry }

// Define registers a message. It panics on a struct that cannot be encoded,
// which a test of any message would show.
func Define[Q, R any](request, reply, doc string) *Def[Q, R] {
	d := &Def[Q, R]{Info{
		Request: request, Reply: reply, Doc: doc,
		request: planOf(reflect.TypeFor[Q]()), reply: planOf(reflect.TypeFor[R]()),
	}}
	registry = append(registry, &d.Info)
	return d
}

// DecodeRequest fills q from the members of a request frame. Strings and
// slices are copies, Values alias the frame.
func (d *Def[Q, R]) DecodeRequest(members []wirejson.Member, q *Q) error {
	return d.request.decode(members, unsafe.Pointer(q))
}

// AppendRequest appends the JSON of a request.
func (d *Def[Q, R]) AppendRequest(b []byte, q *Q) []byte {
	return d.request.append(b, d.Request, unsafe.Pointer(q))
}

// DecodeReply fills r from the members of a reply frame. An error reply comes
// back as *status.Error, a reply of another type as AssertionFailed.
func (d *Def[Q, R]) DecodeReply(members []wirejson.Member, r *R) error {
	var typ wirejson.Value
	for i := range members {
		switch string(members[i].Key) {
		case "code":
			code, err := members[i].Value.Uint64()
			if err != nil || code > uint64(status.UnknownError) {
				code = uint64(status.UnknownError)
			}
			if code != 0 {
				return &status.Error{Code: status.Code(code), Msg: textOf(members, "message")}
			}
		case "type":
			typ = members[i].Value
		}
	}
	if got, _ := typ.Text(); got != d.Reply {
		return status.Errorf(status.AssertionFailed, "reply of type %q to %s, want %q", got, d.Request, d.Reply)
	}
	return d.reply.decode(members, unsafe.Pointer(r))
}

// AppendReply appends the JSON of a reply.
func (d *Def[Q, R]) AppendReply(b []byte, r *R) []byte {
	return d.reply.append(b, d.Reply, unsafe.Pointer(r))
}

// AppendError appends the JSON of an error reply.
func AppendError(b []byte, code status.Code, message string) []byte {
	b = append(b, `{"code":`...)
	b = strconv.AppendUint(b, uint64(code), 10)
	b = append(b, `,"message":`...)
	return append(wirejson.AppendString(b, message), '}')
}

func textOf(members []wirejson.Member, key string) string {
	v, _ := lookup(members, key)
	s, _ := v.Text()
	return s
}

// lookup finds the last member with a key.
func lookup(members []wirejson.Member, key string) (wirejson.Value, bool) {
	for i := len(members) - 1; i >= 0; i-- {
		if string(members[i].Key) == key {
			return members[i].Value, true
		}
	}
	return nil, false
}

// field is implemented by types that span several keys of a message or need
// more than one JSON form.
type field interface {
	decodeField(members []wirejson.Member, key string) error
	appendField(b []byte, key string) []byte // leading comma included
	describe() string
}

type codec struct {
	key      string
	alt      string
	optional bool
	offset   uintptr
	typ      reflect.Type
	decode   func(p unsafe.Pointer, v wirejson.Value) error
	append   func(b []byte, p unsafe.Pointer) []byte
	special  func(p unsafe.Pointer) field
}

// plan is the compiled form of one message struct: where each key goes. It
// works by field offsets, so that decoding allocates nothing but strings and
// slices.
type plan struct {
	typ    reflect.Type // the struct
	fields []codec
}

func planOf(t reflect.Type) *plan {
	p := &plan{typ: t}
	for i := range t.NumField() {
		f := t.Field(i)
		parts := strings.Split(f.Tag.Get("wire"), ",")
		if parts[0] == "" {
			panic(fmt.Sprintf("protocol: %s.%s has no wire tag", t, f.Name))
		}
		c := codec{key: parts[0], offset: f.Offset, typ: f.Type}
		for _, opt := range parts[1:] {
			switch {
			case opt == "optional":
				c.optional = true
			case strings.HasPrefix(opt, "alt="):
				c.alt = opt[len("alt="):]
			default:
				panic(fmt.Sprintf("protocol: %s.%s: unknown option %q", t, f.Name, opt))
			}
		}
		if reflect.PointerTo(f.Type).Implements(reflect.TypeFor[field]()) {
			typ := f.Type
			c.special = func(p unsafe.Pointer) field { return reflect.NewAt(typ, p).Interface().(field) }
		} else {
			c.decode, c.append = scalarCodec(f.Type)
		}
		p.fields = append(p.fields, c)
	}
	return p
}

func scalarCodec(t reflect.Type) (func(unsafe.Pointer, wirejson.Value) error, func([]byte, unsafe.Pointer) []byte) {
	if t == reflect.TypeFor[wirejson.Value]() {
		return func(p unsafe.Pointer, v wirejson.Value) error { *(*wirejson.Value)(p) = v; return nil },
			func(b []byte, p unsafe.Pointer) []byte {
				if v := *(*wirejson.Value)(p); len(v) > 0 {
					return append(b, v...)
				}
				return append(b, "null"...)
			}
	}
	switch t.Kind() {
	case reflect.Uint64:
		return func(p unsafe.Pointer, v wirejson.Value) (err error) { *(*uint64)(p), err = v.Uint64(); return err },
			func(b []byte, p unsafe.Pointer) []byte { return strconv.AppendUint(b, *(*uint64)(p), 10) }
	case reflect.Int64:
		return func(p unsafe.Pointer, v wirejson.Value) (err error) { *(*int64)(p), err = v.Int64(); return err },
			func(b []byte, p unsafe.Pointer) []byte { return strconv.AppendInt(b, *(*int64)(p), 10) }
	case reflect.Bool:
		return func(p unsafe.Pointer, v wirejson.Value) (err error) { *(*bool)(p), err = v.Bool(); return err },
			func(b []byte, p unsafe.Pointer) []byte { return strconv.AppendBool(b, *(*bool)(p)) }
	case reflect.String:
		return func(p unsafe.Pointer, v wirejson.Value) (err error) { *(*string)(p), err = v.Text(); return err },
			func(b []byte, p unsafe.Pointer) []byte { return wirejson.AppendString(b, *(*string)(p)) }
	case reflect.Slice:
		return sliceCodec(t)
	}
	panic("protocol: no codec for " + t.String())
}

func sliceCodec(t reflect.Type) (func(unsafe.Pointer, wirejson.Value) error, func([]byte, unsafe.Pointer) []byte) {
	elem := t.Elem()
	decode, appendElem := scalarCodec(elem)
	dec := func(p unsafe.Pointer, v wirejson.Value) error {
		if v.Kind() != wirejson.Array {
			return fmt.Errorf("must be array, but is %s", v.Kind())
		}
		list := reflect.NewAt(t, p).Elem()
		list.SetLen(0)
		n := 0
		for e := range v.Elements() {
			if n == list.Cap() {
				list.Grow(1)
			}
			list.SetLen(n + 1)
			if err := decode(list.Index(n).Addr().UnsafePointer(), e); err != nil {
				return fmt.Errorf("element %d %w", n, err)
			}
			n++
		}
		return nil
	}
	enc := func(b []byte, p unsafe.Pointer) []byte {
		list := reflect.NewAt(t, p).Elem()
		b = append(b, '[')
		for i := range list.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendElem(b, list.Index(i).Addr().UnsafePointer())
		}
		return append(b, ']')
	}
	return dec, enc
}

func (p *plan) decode(members []wirejson.Member, base unsafe.Pointer) error {
	for i := range p.fields {
		f := &p.fields[i]
		at := unsafe.Add(base, f.offset)
		if f.special != nil {
			if err := f.special(at).decodeField(members, f.key); err != nil {
				return status.Errorf(status.Invalid, "field %q: %v", f.key, err)
			}
			continue
		}
		v, ok := lookup(members, f.key)
		if !ok && f.alt != "" {
			v, ok = lookup(members, f.alt)
		}
		if !ok {
			if f.optional {
				continue
			}
			return status.Errorf(status.Invalid, "field %q is missing", f.key)
		}
		if err := f.decode(at, v); err != nil {
			return status.Errorf(status.Invalid, "field %q %v", f.key, err)
		}
	}
	return nil
}

func (p *plan) append(b []byte, typ string, base unsafe.Pointer) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, typ...)
	b = append(b, '"')
	for i := range p.fields {
		f := &p.fields[i]
		at := unsafe.Add(base, f.offset)
		if f.special != nil {
			b = f.special(at).appendField(b, f.key)
			continue
		}
		b = append(b, ',', '"')
		b = append(b, f.key...)
		b = append(b, '"', ':')
		b = f.append(b, at)
	}
	return append(b, '}')
}

// FieldDoc describes one key of a message for docs/protocol.md.
type FieldDoc struct {
	Key, Type string
	Optional  bool
}

// RequestFields and ReplyFields list the keys of a message besides type.
func (i *Info) RequestFields() []FieldDoc { return i.request.docs() }

// ReplyFields lists the keys of the reply besides type.
func (i *Info) ReplyFields() []FieldDoc { return i.reply.docs() }

func (p *plan) docs() []FieldDoc {
	var out []FieldDoc
	for _, f := range p.fields {
		d := FieldDoc{Key: f.key, Optional: f.optional}
		if f.special != nil {
			d.Type = f.special(reflect.New(f.typ).UnsafePointer()).describe()
		} else {
			d.Type = wireType(f.typ)
		}
		out = append(out, d)
	}
	return slices.Clip(out)
}

func wireType(t reflect.Type) string {
	if t == reflect.TypeFor[wirejson.Value]() {
		return "any"
	}
	switch t.Kind() {
	case reflect.Uint64:
		return "u64"
	case reflect.Int64:
		return "i64"
	case reflect.Bool:
		return "bool"
	case reflect.String:
		return "string"
	case reflect.Slice:
		return "[" + wireType(t.Elem()) + "]"
	}
	return t.String()
}
