package server

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
)

func init() {
	handle(protocol.Register, register).early = true
	handleRaw(protocol.Exit, exit).early = true
	handle(protocol.NewSession, newSession)
	handleRaw(protocol.DeleteSession, deleteSession)
	handle(protocol.MoveBuffers, moveBuffers)
	handle(protocol.MakeArena, makeArena)
	handle(protocol.FinalizeArena, finalizeArena)
	handle(protocol.AcquireLock, acquireLock)
	handle(protocol.ReleaseLock, releaseLock)
	handle(protocol.ClusterMeta, clusterMeta)
	handle(protocol.InstanceStatus, instanceStatus)
	handle(protocol.Debug, debug)
}

func register(_ context.Context, c *conn, q *protocol.RegisterRequest, r *protocol.RegisterReply) error {
	s := c.srv
	if err := s.auth.check(q.Username, q.Password); err != nil {
		return err
	}
	if !c.pc.IsUnix() && q.SessionID != c.ss.id {
		ss := s.session(q.SessionID)
		if ss == nil || ss.deleted.Load() {
			return status.Errorf(status.Invalid, "session %s does not exist", q.SessionID)
		}
		c.exit()
		c.enter(ss)
	}
	c.registered = true
	if len(q.Extensions) > 0 {
		c.extended = true
		s.store.SetStrict(c.holder)
		r.Extensions = protocol.ExtensionNames()
	}
	c.show()
	r.IPCSocket, r.RPCEndpoint = c.ss.socket, s.rpcEndpoint()
	if c.ss.id != object.RootSession {
		r.RPCEndpoint = "0.0.0.0:0"
	}
	r.InstanceID = s.number()
	r.SessionID, r.Version = c.ss.id, config.ProtocolVersion
	r.StoreMatch = (q.StoreType == protocol.StorePlasma) == c.ss.blobs.Plasma
	r.Compression = s.cfg.Compression
	return nil
}

// exit hangs up; the client expects no answer.
func exit(_ context.Context, c *conn, _ *protocol.None) error {
	c.closing = true
	return nil
}

func newSession(ctx context.Context, c *conn, q *protocol.NewSessionRequest, r *protocol.NewSessionReply) error {
	ss, err := c.srv.newSession(ctx, q.StoreType == protocol.StorePlasma)
	if err != nil {
		return err
	}
	r.SocketPath = ss.socket
	return nil
}

func deleteSession(_ context.Context, c *conn, _ *protocol.None) error {
	if err := c.ss.remove(); err != nil {
		return err
	}
	send(c, protocol.DeleteSession, &protocol.None{})
	c.closing = true
	return nil
}

func moveBuffers(_ context.Context, c *conn, q *protocol.MoveRequest, _ *protocol.None) error {
	src := c.srv.session(q.SessionID)
	if src == nil {
		return status.Errorf(status.Invalid, "session %s does not exist", q.SessionID)
	}
	var pairs []store.MovePair
	for _, m := range []struct {
		moves            protocol.Moves
		fromText, toText bool
	}{{q.IDToID, false, false}, {q.IDToPID, false, true}, {q.PIDToID, true, false}, {q.PIDToPID, true, true}} {
		for _, pair := range m.moves.Pairs {
			var p store.MovePair
			var err1, err2 error
			if p.FromPlasma = pair.From; !m.fromText {
				p.FromPlasma = ""
				p.From, err1 = decimalID(pair.From)
			}
			if p.ToPlasma = pair.To; !m.toText {
				p.ToPlasma = ""
				p.To, err2 = decimalID(pair.To)
			}
			if err := errors.Join(err1, err2); err != nil {
				return status.Errorf(status.Invalid, "a pair to move: %w", err)
			}
			pairs = append(pairs, p)
		}
	}
	return c.ss.blobs.MoveFrom(src.blobs, pairs)
}

func decimalID(s string) (object.ID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	return object.ID(n), err
}

func makeArena(_ context.Context, c *conn, q *protocol.SizeRequest, r *protocol.MakeArenaReply) error {
	size := q.Size
	if size == 1<<64-1 {
		size = uint64(c.srv.store.Limit())
	}
	if size == 0 {
		return status.Errorf(status.Invalid, "an arena needs a size")
	}
	if !c.pc.IsUnix() {
		return status.Errorf(status.Invalid, "an arena cannot be made over TCP")
	}
	if size > uint64(c.srv.store.Limit()) {
		return status.Errorf(status.NotEnoughMemory, "an arena of %d bytes is larger than the pool of %d", size, c.srv.store.Limit())
	}
	f, err := shm.NewArena(c.srv.store.NextFileNumber(), int64(size))
	if err != nil {
		return status.Errorf(status.NotEnoughMemory, "make an arena: %w", err)
	}
	c.ss.blobs.AddArena(c.holder, f)
	c.deliver(f)
	r.FD, r.Size = int64(f.Number), size
	return nil
}

func finalizeArena(_ context.Context, c *conn, q *protocol.FinalizeArenaRequest, _ *protocol.None) error {
	if q.FD < 0 || q.FD >= 1<<31 {
		return status.Errorf(status.ObjectNotExists, "arena for fd %d cannot be found", q.FD)
	}
	return c.ss.blobs.FinalizeArena(c.holder, int32(q.FD), q.Offsets, q.Sizes)
}

func acquireLock(ctx context.Context, c *conn, q *protocol.LockRequest, r *protocol.AcquireLockReply) error {
	return c.park(ctx, func(ctx context.Context) error {
		key, err := c.srv.cluster.Lock(ctx, c.ss.id, q.Key)
		if err != nil {
			return err
		}
		c.locks[key] = struct{}{}
		r.Result, r.Key = true, key
		return nil
	})
}

func releaseLock(ctx context.Context, c *conn, q *protocol.LockRequest, r *protocol.ReleaseLockReply) error {
	delete(c.locks, q.Key)
	r.Result = true
	return c.srv.cluster.Unlock(ctx, c.ss.id, q.Key)
}

func clusterMeta(ctx context.Context, c *conn, _ *protocol.None, r *protocol.MetaReply) error {
	if err := c.srv.cluster.Sync(ctx); err != nil {
		return err
	}
	byName := map[string]map[string]json.RawMessage{}
	for n, fields := range c.srv.cluster.Instances() {
		byName[n.String()] = fields
	}
	var err error
	r.Meta, err = json.Marshal(byName)
	return err
}

func instanceStatus(_ context.Context, c *conn, _ *protocol.None, r *protocol.MetaReply) (err error) {
	r.Meta, err = json.Marshal(map[string]any{
		"instance_id": c.srv.number(), "deployment": c.srv.cfg.Deployment,
		"memory_usage": c.srv.store.Usage(), "memory_limit": c.srv.store.Limit(),
		"deferred_requests": c.ss.deferred.Load(), "ipc_connections": c.ss.ipcConns.Load(), "rpc_connections": c.ss.rpcConns.Load(),
	})
	return err
}

func debug(_ context.Context, _ *conn, _ *protocol.DebugRequest, _ *protocol.DebugReply) error {
	return nil
}
