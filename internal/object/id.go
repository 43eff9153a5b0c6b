// Package object holds the values that everything else passes around: ids,
// signatures and the metadata tree.
//
// Vocabulary, used in this sense throughout the project:
//
//   - A blob is a run of bytes in the pool. It is created unsealed, written by
//     its creator, and sealed; from then on it is immutable.
//   - An object is a metadata tree: a JSON dictionary with a typename, plain
//     fields and members. A member is another object or a blob.
//   - A signature names an object's content: it stays the same when an object is
//     migrated, while its id changes.
//   - An instance is one daemon of a cluster. A session is an isolated part of a
//     daemon with its own pool file, its own metadata and its own socket.
//
// The id scheme and the text forms are Vineyard 0.24's (docs/protocol.md).
package object

import (
	"fmt"
	"strconv"
	"sync"
	"time"
)

// ID names a blob or an object. The top bit is set for blobs only.
type ID uint64

// Signature names an object's content across instances.
type Signature uint64

// SessionID names a session; 0 is the root session.
type SessionID uint64

// InstanceID numbers a daemon in its cluster.
type InstanceID uint64

const (
	// EmptyBlob is the id of every blob of no bytes.
	EmptyBlob ID = 1 << 63
	// InvalidID means "no object"; as a blob id it is the pseudo blob that
	// spans the whole pool.
	InvalidID ID = 1<<64 - 1
	// AnyInstance stands for "spread over several instances".
	AnyInstance InstanceID = 1<<64 - 1
	// RootSession is the session that a daemon starts with.
	RootSession SessionID = 0

	blobBit = 1 << 63
)

// IsBlob reports whether the id is a blob's.
func (id ID) IsBlob() bool { return id&blobBit != 0 }

// String returns the text form: "o" and 16 lower-case hex digits.
func (id ID) String() string { return string(appendHex(make([]byte, 0, 17), 'o', uint64(id))) }

// AppendText appends the text form to b.
func (id ID) AppendText(b []byte) ([]byte, error) { return appendHex(b, 'o', uint64(id)), nil }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := ParseID(string(b))
	*id = v
	return err
}

// String returns "s" and 16 hex digits.
func (s Signature) String() string { return string(appendHex(nil, 's', uint64(s))) }

// MarshalText implements encoding.TextMarshaler.
func (s Signature) MarshalText() ([]byte, error) { return appendHex(nil, 's', uint64(s)), nil }

// String returns "S" and 16 hex digits.
func (s SessionID) String() string { return string(appendHex(nil, 'S', uint64(s))) }

// String returns "i" and the decimal number.
func (i InstanceID) String() string { return "i" + strconv.FormatUint(uint64(i), 10) }

func appendHex(b []byte, prefix byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	text := [17]byte{prefix}
	for i := range 16 {
		text[16-i] = digits[v>>(4*i)&15]
	}
	return append(b, text[:]...)
}

// ParseID reads the text form of an id: "o" and exactly 16 hex digits.
func ParseID(s string) (ID, error) {
	if len(s) != 17 || s[0] != 'o' {
		return 0, fmt.Errorf("%q is not an object id (want o and 16 hex digits)", s)
	}
	v, err := strconv.ParseUint(s[1:], 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not an object id (want o and 16 hex digits)", s)
	}
	return ID(v), nil
}

// Generator hands out ids that are unique in a daemon's life and above those
// of every earlier life that Continue was told of. Ids of one generator are
// strictly increasing in creation order. The layout is that of 0.24: 41 bits
// of milliseconds, 10 bits of instance, 12 bits of counter. Unlike 0.24, blob
// ids carry the instance bits as well, so that the nodes of a cluster do not
// mint the same blob id.
type Generator struct {
	mu       sync.Mutex
	last     uint64 // ms<<12 | counter of the newest id; guarded by mu
	instance uint64 // guarded by mu
	now      func() time.Time
}

// NewGenerator returns a generator for one instance.
func NewGenerator(instance InstanceID) *Generator {
	return &Generator{instance: uint64(instance) & 0x3ff, now: time.Now}
}

// SetInstance makes all later ids those of an instance.
func (g *Generator) SetInstance(instance InstanceID) {
	g.mu.Lock()
	g.instance = uint64(instance) & 0x3ff
	g.mu.Unlock()
}

// horizon is how far ahead of the clock an id can lie that a daemon minted.
const horizon = 366 * 24 * time.Hour

// Continue makes all later ids greater than id, which an earlier life minted.
// An id from years ahead is one that a client made up: following it, ids would
// run out.
func (g *Generator) Continue(id uint64) {
	ticks := (id&^blobBit)>>22<<12 | id&0xfff
	if ticks>>12 > uint64(g.now().Add(horizon).UnixMilli()) {
		return
	}
	g.mu.Lock()
	g.last = max(g.last, ticks)
	g.mu.Unlock()
}

func (g *Generator) next() uint64 {
	ms := uint64(g.now().UnixMilli()) & (1<<41 - 1)
	g.mu.Lock()
	g.last = max(g.last+1, ms<<12)
	ticks, instance := g.last, g.instance
	g.mu.Unlock()
	return ticks>>12<<22 | instance<<12 | ticks&0xfff
}

// Object returns a new object id.
func (g *Generator) Object() ID { return ID(g.next() &^ blobBit) }

// Blob returns a new blob id.
func (g *Generator) Blob() ID { return ID(g.next() | blobBit) }

// Signature returns a new signature.
func (g *Generator) Signature() Signature { return Signature(g.next() &^ blobBit) }

// Session returns a new session id.
func (g *Generator) Session() SessionID { return SessionID(g.next() &^ blobBit) }
