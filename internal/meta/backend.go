package meta

import (
	"context"
	"errors"
)

// Backend is the store that the instances of a cluster share: keys and values
// below one prefix, where every change has a revision and can be watched.
// Revisions only grow, except when the store was replaced by an empty one.
//
// What the keys and values mean is this package's business (keys.go), so that a
// Backend knows nothing of objects. It is safe for concurrent use. Every call
// ends when its context does.
type Backend interface {
	// Shared reports whether other instances can see the store. What is not
	// shared holds instances and locks, but no objects: nobody would read them.
	Shared() bool
	// Load returns all pairs, in the order of their keys, as they were at one
	// position.
	Load(ctx context.Context) (pairs []Pair, at Position, err error)
	// Head returns the position of the newest change anywhere in the store.
	Head(ctx context.Context) (Position, error)
	// Watch calls apply with every revision after the given one that changed
	// something below the prefix, in order, until apply or ctx ends it. After
	// Progress it also calls it with a revision up to which there is nothing else.
	// The error is ErrCompacted when changes after the revision are forgotten.
	Watch(ctx context.Context, after int64, apply func(Batch)) error
	// Progress makes the watches tell soon how far they are.
	Progress(ctx context.Context) error
	// Commit makes the changes, all at one revision, if all conditions hold;
	// ok is false, and nothing is changed, when one does not. There are at most
	// 4,096 changes, and a key occurs at most once. After an error the changes may or may not have been made.
	Commit(ctx context.Context, conditions []Condition, changes []Change) (at Position, ok bool, err error)
	// Lock waits for the lock of a key and returns the key by which to give it
	// back: the key, a slash and the holder's number. A lock whose holder dies is
	// free after some seconds.
	Lock(ctx context.Context, key string) (full string, err error)
	// Unlock gives a lock back; an unknown one is no error.
	Unlock(ctx context.Context, full string) error
	// Close ends what the backend has running. Locks are given back.
	Close() error
}

// ErrCompacted means that a watch cannot go on from a revision: the caller
// loads everything again.
var ErrCompacted = errors.New("the changes since the last revision are forgotten")

// Position names a state of a store.
type Position struct {
	Cluster  string // identity of the store
	Revision int64
}

// Pair is a key and its value. Keys are relative to the prefix and begin with a
// slash.
type Pair struct {
	Key   string
	Value []byte
}

// Change puts or deletes one key, or deletes all keys that begin with it.
type Change struct {
	Key    string
	Value  []byte // of a put
	Delete bool
	Prefix bool // of a deletion
}

// Put, Delete and DeleteAll make changes.
func Put(key string, value []byte) Change { return Change{Key: key, Value: value} }

// Delete removes one key.
func Delete(key string) Change { return Change{Key: key, Delete: true} }

// DeleteAll removes the keys that begin with prefix.
func DeleteAll(prefix string) Change { return Change{Key: prefix, Delete: true, Prefix: true} }

// Batch is what happened at one revision. No changes tell that there are none up
// to it.
type Batch struct {
	Revision int64
	Changes  []Change // deletions name single keys here
}

// Condition is what a Commit depends on.
type Condition struct {
	Key    string
	Is     ConditionKind
	Equals []byte
}

// ConditionKind tells what a Condition demands.
type ConditionKind uint8

// The kinds of conditions.
const (
	NoneUnder ConditionKind = iota + 1 // no key begins with Key
	SomeUnder                          // at least one key begins with Key
	Equals                             // Key has this value
)
