package journal

import (
	"encoding/binary"
	"errors"
)

// Writer builds a record's payload: a kind byte and fields in order.
type Writer []byte

// Begin starts a record of one kind on a reused buffer.
func Begin(buf []byte, kind byte) Writer { return append(Writer(buf[:0]), kind) }

// Uint appends an unsigned number.
func (w *Writer) Uint(v uint64) { *w = binary.AppendUvarint(*w, v) }

// Int appends a signed number.
func (w *Writer) Int(v int64) { *w = binary.AppendVarint(*w, v) }

// Bool appends a truth value.
func (w *Writer) Bool(v bool) {
	if v {
		*w = append(*w, 1)
	} else {
		*w = append(*w, 0)
	}
}

// Bytes appends a length and bytes.
func (w *Writer) Bytes(v []byte) {
	w.Uint(uint64(len(v)))
	*w = append(*w, v...)
}

// Text appends a string.
func (w *Writer) Text(v string) {
	w.Uint(uint64(len(v)))
	*w = append(*w, v...)
}

// ErrRecord is returned for a record that ends early. Its checksum was right,
// so it was written by another version.
var ErrRecord = errors.New("record ends early")

// Reader takes a payload apart. After the first error it returns zeros; ask Err
// at the end.
type Reader struct {
	b   []byte
	err error
}

// NewReader reads the fields after the kind byte.
func NewReader(payload []byte) *Reader {
	if len(payload) == 0 {
		return &Reader{err: ErrRecord}
	}
	return &Reader{b: payload[1:]}
}

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

func (r *Reader) fail() { r.err, r.b = ErrRecord, nil }

// Uint reads an unsigned number.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Int reads a signed number.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Bool reads a truth value.
func (r *Reader) Bool() bool {
	if len(r.b) == 0 {
		r.fail()
		return false
	}
	v := r.b[0] != 0
	r.b = r.b[1:]
	return v
}

// Bytes reads bytes; they alias the payload.
func (r *Reader) Bytes() []byte {
	n := r.Uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// Text reads a string.
func (r *Reader) Text() string { return string(r.Bytes()) }

// Count reads the length of a list and checks it against what is left, each
// element taking at least a byte.
func (r *Reader) Count() int {
	n := r.Uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}
