package meta

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/v6d-go/v6d/internal/object"
)

// Backend is what makes instances one cluster: it shares the changes of
// persisted objects and names, orders them, and knows the instances. The tree
// calls it without holding its lock.
type Backend interface {
	// Sync returns when every change that was acknowledged anywhere before the
	// call has been applied to this node's tree.
	Sync(ctx context.Context) error
	// Commit makes changes visible to all instances, all or none of them. When it
	// returns nil they are durable as far as the backend is.
	Commit(ctx context.Context, session object.SessionID, changes []Change) error
	// Instances describes the instances of the cluster by number.
	Instances(ctx context.Context) (map[object.InstanceID]Instance, error)
	// Lock takes a cluster-wide lock, waiting for it, and returns the key by which
	// to give it back.
	Lock(ctx context.Context, key string) (string, error)
	// Unlock gives a lock back; an unknown key is no error.
	Unlock(ctx context.Context, key string) error
}

// Change is one change that concerns other instances.
type Change struct {
	Kind   ChangeKind
	ID     object.ID
	Name   string
	Object json.RawMessage // for Put: the object's own fields
}

// ChangeKind tells what a Change does.
type ChangeKind uint8

// The kinds of changes.
const (
	PutObject ChangeKind = iota + 1
	DeleteObject
	PutName
	DeleteName
	PutLabels
)

// Instance describes a daemon of the cluster.
type Instance struct {
	HostID      uint64 `json:"hostid"`
	Hostname    string `json:"hostname"`
	Nodename    string `json:"nodename"`
	IPCSocket   string `json:"ipc_socket"`
	RPCEndpoint string `json:"rpc_endpoint"`
	Timestamp   int64  `json:"timestamp"` // unix seconds << 32 + microseconds
}

// Local is the backend of a node without a cluster: one instance, no network,
// locks in this process.
type Local struct {
	Self func() Instance

	mu    sync.Mutex
	locks map[string]*localLock // by user key; guarded by mu
	lease uint64
}

type localLock struct {
	holder string        // full key of the holder
	freed  chan struct{} // closed when the holder gives it back
}

var _ Backend = (*Local)(nil)

// NewLocal returns a local backend; self describes this node.
func NewLocal(self func() Instance) *Local {
	return &Local{Self: self, locks: map[string]*localLock{}, lease: uint64(os.Getpid()) << 20}
}

// Sync has nothing to wait for. A daemon that is stopping still answers what is
// under way, so that the end of the context does not matter.
func (*Local) Sync(context.Context) error { return nil }

// Commit has nobody to tell.
func (*Local) Commit(context.Context, object.SessionID, []Change) error { return nil }

// Instances returns this node as instance 0.
func (l *Local) Instances(context.Context) (map[object.InstanceID]Instance, error) {
	return map[object.InstanceID]Instance{0: l.Self()}, nil
}

// Lock waits until nobody holds the key. The returned key is the user's, a
// slash and a number, as a lock in etcd has it.
func (l *Local) Lock(ctx context.Context, key string) (string, error) {
	for {
		l.mu.Lock()
		held := l.locks[key]
		if held == nil {
			l.lease++
			full := key + "/" + strconv.FormatUint(l.lease, 16)
			l.locks[key] = &localLock{holder: full, freed: make(chan struct{})}
			l.mu.Unlock()
			return full, nil
		}
		l.mu.Unlock()
		select {
		case <-held.freed:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for lock %q: %w", key, ctx.Err())
		}
	}
}

// Unlock gives a lock back.
func (l *Local) Unlock(_ context.Context, full string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, held := range l.locks {
		if held.holder == full {
			delete(l.locks, key)
			close(held.freed)
		}
	}
	return nil
}
