// Package etcd is the Backend of package meta on etcd v3: a cluster that exists
// (Open), or a member that runs inside this process (Embed).
//
// Keys are those that Vineyard 0.24 has in etcd, below <prefix>/S<session>; the
// position in the history is etcd's revision, the identity its cluster id. Locks
// are those of etcd's lock service: a key <lock>/<lease> for each holder and
// waiter, the oldest of which holds the lock, on a lease of ten seconds.
package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/v6d-go/v6d/internal/meta"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
)

// Options says which etcd to use, and how to get in.
type Options struct {
	Endpoints []string // URLs
	Prefix    string   // of all keys, verbatim
	Session   object.SessionID
	Username  string
	Password  string
	TLS       *tls.Config // for https endpoints; nil for the system's certificates
	Log       *slog.Logger
}

// leaseTTL is how long a lock outlives its holder, in seconds.
const leaseTTL = 10

// Backend is a meta.Backend on etcd.
type Backend struct {
	client  *clientv3.Client
	watcher pb.WatchClient
	base    string // <prefix>/S<session>
	server  io.Closer
	where   string        // for people
	turn    chan struct{} // holds a token while this process holds the cluster's lock, or wants it

	mu      sync.Mutex
	mine    string                          // the key of the cluster's lock while it is held; guarded by mu
	streams map[*stream]struct{}            // watches under way; guarded by mu
	lease   *concurrency.Session            // of the cluster's lock; nil until it is needed; guarded by mu
	held    map[string]*concurrency.Session // of other locks, by full key; guarded by mu
}

var _ meta.Backend = (*Backend)(nil)

// Open connects to an etcd. It does not wait for it to answer, unless there is a
// password to check.
func Open(o Options) (*Backend, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: o.Endpoints, Username: o.Username, Password: o.Password, TLS: o.TLS,
		DialTimeout: 3 * time.Second, DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		MaxCallSendMsgSize: math.MaxInt32, Logger: zap.NewNop(),
	})
	where := strings.Join(o.Endpoints, ", ")
	if err != nil {
		return nil, (&Backend{where: where, base: o.Prefix}).explain(err)
	}
	return newBackend(client, pb.NewWatchClient(client.ActiveConnection()), o, where, nil), nil
}

func newBackend(client *clientv3.Client, watcher pb.WatchClient, o Options, where string, server io.Closer) *Backend {
	return &Backend{
		client: client, watcher: watcher, streams: map[*stream]struct{}{}, base: o.Prefix + "/" + o.Session.String(), server: server, where: where,
		held: map[string]*concurrency.Session{}, turn: make(chan struct{}, 1),
	}
}

// Shared implements meta.Backend.
func (*Backend) Shared() bool { return true }

// pageSize is how many keys are read at a time: an answer of etcd is built in its
// memory, and for each it counts what is left.
const pageSize = 20_000

// Load implements meta.Backend.
func (b *Backend) Load(ctx context.Context) ([]meta.Pair, meta.Position, error) {
	var pairs []meta.Pair
	var at meta.Position
	from, end := b.base+"/", clientv3.GetPrefixRangeEnd(b.base+"/")
	for {
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageSize)}
		if at.Revision > 0 {
			opts = append(opts, clientv3.WithRev(at.Revision))
		}
		r, err := b.client.Get(ctx, from, opts...)
		if err != nil {
			return nil, at, b.explain(err)
		}
		if at.Revision == 0 {
			at = position(r.Header.ClusterId, r.Header.Revision)
			pairs = make([]meta.Pair, 0, r.Count)
		}
		for _, kv := range r.Kvs {
			pairs = append(pairs, meta.Pair{Key: b.relative(kv.Key), Value: kv.Value})
		}
		if !r.More {
			return pairs, at, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

func position(cluster uint64, revision int64) meta.Position {
	return meta.Position{Cluster: strconv.FormatUint(cluster, 16), Revision: revision}
}

func (b *Backend) relative(key []byte) string { return string(key[len(b.base):]) }

// Head implements meta.Backend.
func (b *Backend) Head(ctx context.Context) (meta.Position, error) {
	r, err := b.client.Get(ctx, b.base+"/next_instance_id", clientv3.WithCountOnly())
	if err != nil {
		return meta.Position{}, b.explain(err)
	}
	return position(r.Header.ClusterId, r.Header.Revision), nil
}

// Commit implements meta.Backend.
func (b *Backend) Commit(ctx context.Context, conditions []meta.Condition, changes []meta.Change) (meta.Position, bool, error) {
	ifs := make([]clientv3.Cmp, len(conditions))
	for i, c := range conditions {
		key := b.base + c.Key
		switch c.Is {
		case meta.Equals:
			ifs[i] = clientv3.Compare(clientv3.Value(key), "=", string(c.Equals))
		case meta.NoneUnder:
			// Of no keys, etcd compares one that was never created.
			ifs[i] = clientv3.Compare(clientv3.CreateRevision(key).WithPrefix(), "=", 0)
		case meta.SomeUnder:
			ifs[i] = clientv3.Compare(clientv3.CreateRevision(key).WithPrefix(), ">", 0)
		}
	}
	ops := make([]clientv3.Op, len(changes))
	for i, c := range changes {
		key := b.base + c.Key
		switch {
		case c.Delete && c.Prefix:
			ops[i] = clientv3.OpDelete(key, clientv3.WithPrefix())
		case c.Delete:
			ops[i] = clientv3.OpDelete(key)
		default:
			ops[i] = clientv3.OpPut(key, string(c.Value))
		}
	}
	r, err := b.client.Txn(ctx).If(ifs...).Then(nest(ops)...).Commit()
	if err != nil {
		return meta.Position{}, false, b.explain(err)
	}
	return position(r.Header.ClusterId, r.Header.Revision), r.Succeeded, nil
}

// nest puts operations into transactions within the transaction where etcd would
// take no more of them side by side: it allows 128 (--max-txn-ops) at each level,
// and counts along each path. All are made at one revision still, as one entry of
// its log.
func nest(ops []clientv3.Op) []clientv3.Op {
	const most, within = 127, 64
	if len(ops) <= most {
		return ops
	}
	var out []clientv3.Op
	for chunk := range slices.Chunk(ops, within) {
		out = append(out, clientv3.OpTxn(nil, chunk, nil))
	}
	return out
}

// clusterLock is the lock that is taken all the time: its lease stays. Since the
// key names the lease, the callers in this process take turns.
const clusterLock = "/meta_sync_lock"

// Lock implements meta.Backend.
func (b *Backend) Lock(ctx context.Context, key string) (full string, err error) {
	if key == clusterLock {
		select {
		case b.turn <- struct{}{}:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		defer func() {
			if err != nil {
				<-b.turn
			}
		}()
	}
	s, err := b.session(ctx, key)
	if err != nil {
		return "", b.explain(err)
	}
	m := concurrency.NewMutex(s, b.base+key)
	locked := make(chan error, 1)
	// When it fails it gives its key back for as long as that takes: the end of the
	// lease does the same, and is not waited for.
	go func() { locked <- m.Lock(ctx) }()
	select {
	case err = <-locked:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		b.endSession(s)
		return "", b.explain(err)
	}
	full = m.Key()[len(b.base):]
	b.mu.Lock()
	defer b.mu.Unlock()
	if key == clusterLock {
		b.mine = full
	} else {
		b.held[full] = s
	}
	return full, nil
}

// session returns a lease for a lock, kept alive while this process lives.
func (b *Backend) session(ctx context.Context, key string) (*concurrency.Session, error) {
	b.mu.Lock()
	s := b.lease
	b.mu.Unlock()
	if key == clusterLock && s != nil {
		select {
		case <-s.Done(): // it has expired
		default:
			return s, nil
		}
	}
	grant, err := b.client.Grant(ctx, leaseTTL)
	if err != nil {
		return nil, err
	}
	s, err = concurrency.NewSession(b.client, concurrency.WithLease(grant.ID), concurrency.WithTTL(leaseTTL))
	if err != nil {
		return nil, err
	}
	if key == clusterLock {
		b.mu.Lock()
		b.lease = s
		b.mu.Unlock()
	}
	return s, nil
}

// endSession gives a lease back, and with it what was locked. What cannot be
// given back ends after leaseTTL.
func (b *Backend) endSession(s *concurrency.Session) {
	b.mu.Lock()
	if b.lease == s {
		b.lease = nil
	}
	b.mu.Unlock()
	s.Orphan()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = b.client.Revoke(ctx, s.Lease())
}

// Unlock implements meta.Backend.
func (b *Backend) Unlock(ctx context.Context, full string) error {
	b.mu.Lock()
	s := b.held[full]
	delete(b.held, full)
	if full == b.mine && full != "" {
		b.mine = ""
		defer func() { <-b.turn }()
	}
	b.mu.Unlock()
	if s != nil {
		s.Orphan()
		_, err := b.client.Revoke(ctx, s.Lease())
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return nil
		}
		return b.explain(err)
	}
	// Of the cluster's lock, or of another process: the key alone goes.
	if !isLockKey(full) {
		return nil
	}
	_, err := b.client.Delete(ctx, b.base+full)
	return b.explain(err)
}

// isLockKey reports whether a key ends in a lease, so that nothing else can be
// deleted by giving back a lock.
func isLockKey(full string) bool {
	i := strings.LastIndexByte(full, '/')
	if i < 0 {
		return false
	}
	lease, err := strconv.ParseUint(full[i+1:], 16, 64)
	return err == nil && lease > 0 && !strings.HasPrefix(full, "/data/") && !strings.HasPrefix(full, "/names/")
}

// Close implements meta.Backend.
func (b *Backend) Close() error {
	b.mu.Lock()
	sessions := []*concurrency.Session{}
	if b.lease != nil {
		sessions = append(sessions, b.lease)
	}
	for _, s := range b.held {
		sessions = append(sessions, s)
	}
	b.lease, b.held = nil, map[string]*concurrency.Session{}
	b.mu.Unlock()
	for _, s := range sessions {
		b.endSession(s)
	}
	err := b.client.Close()
	if errors.Is(err, context.Canceled) {
		err = nil // of a client without connections
	}
	if b.server != nil {
		err = errors.Join(err, b.server.Close())
	}
	return err
}

// explain says which etcd it was, and what to do about it.
func (b *Backend) explain(err error) error {
	if err == nil || errors.Is(err, meta.ErrCompacted) {
		return err
	}
	failed := func(hint string) error {
		return status.Errorf(status.EtcdError, "etcd at %s: %w", b.where, err).WithHint(hint)
	}
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return meta.ErrCompacted
	case errors.Is(err, rpctypes.ErrNoSpace):
		return failed("its database is full: compact and defragment it, then `etcdctl alarm disarm`; local work goes on")
	case errors.Is(err, rpctypes.ErrRequestTooLarge), isTooLarge(err):
		return failed("the metadata of one object is larger than etcd takes: raise its --max-request-bytes")
	case errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserEmpty),
		errors.Is(err, rpctypes.ErrAuthNotEnabled):
		return fmt.Errorf("%w: %w", meta.ErrUnusable, failed("check --etcd-user and its password, and that the user may read and write the prefix "+b.base))
	}
	return fmt.Errorf("etcd at %s: %w", b.where, err)
}

func isTooLarge(err error) bool {
	return grpcstatus.Code(err) == codes.ResourceExhausted && bytes.Contains([]byte(err.Error()), []byte("larger than max"))
}
