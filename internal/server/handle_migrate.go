package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/v6d-go/v6d/internal/meta"
	"github.com/v6d-go/v6d/internal/migrate"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
)

func init() {
	handle(protocol.MigrateObject, migrateObject)
	handle(protocol.MigrateTo, migrateTo)
}

// moved is an object that came here.
type moved struct {
	id     object.ID
	status migrate.Status
}

// migrateObject brings an object of another instance here, as 0.24 clients ask.
func migrateObject(ctx context.Context, c *conn, q *protocol.ObjectIDRequest, r *protocol.MigrateReply) error {
	if err := c.ss.tree.Sync(ctx); err != nil {
		return err
	}
	m, err := c.migrate(ctx, q.ObjectID, migrate.Settings{})
	if status.Of(err) == status.ConnectionFailed {
		// To these clients that code means their own connection. 0.24 answers so, too.
		err = status.Errorf(status.IOError, "%w", err)
	}
	r.ObjectID = m.id
	return err
}

// migrateTo is the same with settings, and tells how it went.
func migrateTo(ctx context.Context, c *conn, q *protocol.MigrateToRequest, r *protocol.MigrateToReply) error {
	s := migrate.Settings{
		Parallel: int(min(q.Parallel, 1<<30)), Limit: int64(min(q.Limit, 1<<62)), Compress: migrate.Mode(q.Compress), Verify: q.Verify,
	}
	if err := s.Check(); err != nil {
		return err
	}
	if err := c.ss.tree.Sync(ctx); err != nil {
		return err
	}
	m, err := c.migrate(ctx, q.ObjectID, s)
	if err != nil {
		return err
	}
	if q.Names {
		if err := c.ss.tree.MoveNames(ctx, q.ObjectID, m.id); err != nil {
			return fmt.Errorf("object %s is here as %s, but not all of its names point there: %w", q.ObjectID, m.id, err)
		}
	}
	r.ObjectID = m.id
	r.Transfer, err = json.Marshal(m.status)
	return err
}

// migrate brings an object here, once for all who ask at the same time. What the
// first asker set holds for all.
func (c *conn) migrate(ctx context.Context, id object.ID, s migrate.Settings) (m moved, err error) {
	o, err := c.ss.tree.Origin(id)
	if err != nil {
		return moved{}, err
	}
	if o.Here != 0 {
		return alreadyHere(o), nil
	}
	ss := c.ss
	err = c.park(ctx, func(ctx context.Context) error {
		m, err = c.srv.moves.do(ctx, id, c.srv.spawn, func(ctx context.Context) (moved, error) { return ss.bring(ctx, id, s) })
		return err
	})
	return m, err
}

func alreadyHere(o meta.Origin) moved {
	return moved{id: o.Here, status: migrate.Status{Object: o.ID, Kind: "migrate", Instance: o.Instance, Way: migrate.Here}}
}

// bring pulls an object's blobs and files the copy.
func (ss *session) bring(ctx context.Context, id object.ID, s migrate.Settings) (moved, error) {
	o, err := ss.tree.Origin(id)
	if err != nil {
		return moved{}, err
	}
	if o.Here != 0 { // it came while we began
		return alreadyHere(o), nil
	}
	views, st, done, err := ss.pull(ctx, "migrate", id, o.Instance, o.Blobs, s)
	defer done()
	if err != nil {
		return moved{}, err
	}
	blobs := make(map[object.ID]object.ID, len(views))
	ids := make([]object.ID, len(views))
	for i, v := range views {
		blobs[o.Blobs[i]], ids[i] = v.ID, v.ID
	}
	m := moved{status: st}
	m.id, err = ss.tree.Adopt(ctx, id, blobs, func() error { return ss.finish(views) })
	// Of an object that failed nothing is kept, nor what a copy of a member brought
	// meanwhile.
	for _, b := range ids {
		if len(ss.tree.Owners(b)) == 0 {
			if err := ss.blobs.Drop(nil, b); err != nil && !errors.Is(err, status.ObjectNotExists) {
				ss.srv.log.Warn("a blob that nothing needs stays", "blob", b, "err", err)
			}
		}
	}
	if err != nil {
		return moved{}, err
	}
	return m, nil
}

// finish seals blobs that have been brought, unless one was deleted meanwhile.
func (ss *session) finish(views []store.View) error {
	if err := ss.blobs.Finish(views); err != nil {
		return err
	}
	for _, v := range views {
		if _, ok := ss.blobs.Sealed(v.ID); !ok {
			return status.Errorf(status.ObjectNotExists, "blob %s of the copy was deleted meanwhile", v.ID)
		}
	}
	return nil
}

// pull brings blobs of another instance here, all written and none sealed. The
// caller calls done when they are sealed or dropped.
func (ss *session) pull(ctx context.Context, kind string, id object.ID, from object.InstanceID, ids []object.ID, s migrate.Settings) (
	views []store.View, st migrate.Status, done func(), err error,
) {
	at, err := ss.srv.source(from)
	if err != nil {
		return nil, st, func() {}, err
	}
	h := store.NewHolder(os.Getpid(), os.Getuid())
	done = func() { ss.srv.store.Close(h) }
	views, st, err = ss.srv.mover.Run(ctx, migrate.Pull{
		Object: id, Kind: kind, From: at, IDs: ids, Into: ss.blobs, Holder: h, Settings: s,
	})
	return views, st, done, err
}

// source finds an instance.
func (s *Server) source(n object.InstanceID) (migrate.Source, error) {
	fields, ok := s.cluster.Instances()[n]
	if !ok {
		return migrate.Source{}, status.Errorf(status.Invalid, "instance %d is not in the cluster", n).
			WithHint("`v6d cluster ls` shows who is")
	}
	var endpoint string
	if err := json.Unmarshal(fields["rpc_endpoint"], &endpoint); err != nil || endpoint == "" || endpoint == "0.0.0.0:0" {
		return migrate.Source{}, status.Errorf(status.Invalid, "instance %d has no remote access", n).
			WithHint("start its daemon with --rpc-listen, and --rpc-advertise where others reach it")
	}
	return migrate.Source{Instance: n, Endpoint: endpoint, Local: s.cfg.PeerIPC}, nil
}

// spawn runs something that outlives the request that began it; the daemon's stop
// waits for its end.
func (s *Server) spawn(f func(context.Context)) {
	s.group.Go(func() error {
		f(s.working)
		return nil
	})
}
