package server

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/meta"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
	"github.com/v6d-go/v6d/internal/stream"
)

// session is one isolated part of the daemon: blobs, metadata and streams, on
// a socket of its own.
type session struct {
	srv      *Server
	id       object.SessionID
	socket   string
	listener net.Listener // the root session's is the daemon's
	blobs    *store.Session
	tree     *meta.Tree
	streams  *stream.Table
	far      farCache // blobs of other instances

	ipcConns atomic.Int64
	rpcConns atomic.Int64
	deferred atomic.Int64 // requests that wait
	users    atomic.Int64 // connections of both kinds; the last one of a deleted session ends it
	deleted  atomic.Bool
}

// session returns a session by id, or nil.
func (s *Server) session(id object.SessionID) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[id]
}

// addSession makes the session of a store session that exists.
func (s *Server) addSession(id object.SessionID) *session {
	ss := s.makeSession(id)
	s.mu.Lock()
	s.sessions[id] = ss
	s.mu.Unlock()
	return ss
}

func (s *Server) makeSession(id object.SessionID) *session {
	blobs, _ := s.store.Session(id)
	ss := &session{srv: s, id: id, blobs: blobs, socket: s.cfg.Socket}
	if id != object.RootSession {
		ss.socket += "." + id.String()
	}
	ss.tree = meta.New(meta.Options{Session: id, IDs: s.ids, Blobs: blobs, Log: s.log, Free: ss.freeRemote, Instance: s.number()})
	ss.streams = stream.NewTable(chunks{ss})
	return ss
}

// number returns this node's number; before it has joined its cluster, 0.
func (s *Server) number() object.InstanceID {
	if s.cluster == nil {
		return 0
	}
	return s.cluster.Number()
}

// newSession makes a session and starts serving it. Others see it only when it
// is whole, and a daemon that stops does not begin one: nobody would close it.
func (s *Server) newSession(ctx context.Context, plasma bool) (*session, error) {
	id := s.ids.Session()
	if _, err := s.store.NewSession(id, plasma); err != nil {
		return nil, err
	}
	ss := s.makeSession(id)
	ss.tree.SetJournal(s.journal)
	if err := s.listenSession(ss); err != nil {
		return nil, errors.Join(err, ss.end())
	}
	s.mu.Lock()
	stopping := s.draining.Load()
	if !stopping {
		s.sessions[id] = ss
	}
	s.mu.Unlock()
	if stopping {
		return nil, errors.Join(errStopping, ss.listener.Close(), ss.end())
	}
	s.group.Go(func() error { return s.accept(ctx, ss.listener, ss) })
	return ss, nil
}

func (s *Server) listenSession(ss *session) (err error) {
	ss.listener, err = listenUnix(ss.socket, s.mode)
	return err
}

// enter and leave count connections; the last one out of a deleted session
// destroys it.
func (ss *session) enter() { ss.users.Add(1) }

func (ss *session) leave() {
	if ss.users.Add(-1) == 0 && ss.deleted.Load() {
		if err := ss.end(); err != nil {
			ss.srv.log.Error("cannot end a session", "session", ss.id, "err", err)
		}
	}
}

// remove stops accepting connections. The session is destroyed with its last
// connection.
func (ss *session) remove() error {
	if ss.id == object.RootSession {
		return status.Errorf(status.Invalid, "the root session cannot be deleted")
	}
	if ss.deleted.Swap(true) {
		return nil
	}
	if err := ss.blobs.Doom(); err != nil {
		ss.deleted.Store(false)
		return err
	}
	return ss.listener.Close() // removes the socket file
}

func (ss *session) end() error {
	s := ss.srv
	ss.streams.Discard()
	s.mu.Lock()
	delete(s.sessions, ss.id)
	s.mu.Unlock()
	return ss.blobs.Delete()
}

// dropStreams drops the shared streams among ids whose objects are gone: nobody
// would find them any more. Plain ones stay until they are dropped, as in 0.24.
func (ss *session) dropStreams(ids []object.ID) {
	for _, id := range ss.streams.Shared(ids) {
		if ss.tree.Exists(id) {
			continue
		}
		if err := ss.streams.Drop(id); err != nil && status.Of(err) != status.ObjectNotExists {
			ss.srv.log.Warn("cannot drop the stream of a deleted object", "id", id, "err", err)
		}
	}
}

// deleteAny deletes a blob, or an object with those of its members that nothing
// else refers to, for a connection; h may be nil.
func (ss *session) deleteAny(h *store.Holder, id object.ID) error {
	_, err := ss.tree.Delete(context.Background(), []object.ID{id}, meta.DeleteOptions{Deep: true},
		func(blobs []object.ID) { ss.blobs.DropAll(h, blobs) })
	return err
}

// chunks is a session as its streams see it.
type chunks struct{ ss *session }

var _ stream.Backing = chunks{}

func (c chunks) Fits(size int64) bool {
	return c.ss.blobs.Fits(size, c.ss.srv.cfg.StreamThreshold)
}

func (c chunks) Possible(size int64) bool {
	return size < c.ss.srv.store.Limit()/100*int64(c.ss.srv.cfg.StreamThreshold)
}

func (c chunks) Freed() <-chan struct{} { return c.ss.srv.store.Freed() }

func (c chunks) NewChunk(h *store.Holder, size int64, owned bool) (store.View, error) {
	if owned {
		return c.ss.blobs.Create(h, size)
	}
	return c.ss.blobs.NextChunk(h, size)
}

func (c chunks) Shorten(id object.ID, size int64) error { return c.ss.blobs.Shrink(id, size) }

func (c chunks) Size(id object.ID) int64 {
	if size, ok := c.ss.blobs.Sealed(id); ok || id.IsBlob() {
		return size
	}
	return c.ss.tree.Bytes(id)
}

func (c chunks) Record(payload []byte, freeing bool) error {
	w := journal.Begin(nil, recStream)
	w.Uint(uint64(c.ss.id))
	if w = append(w, payload...); freeing {
		return c.ss.srv.journal.AppendFreeing(w)
	}
	return c.ss.srv.journal.Append(w)
}

func (c chunks) Seal(id object.ID) error { return c.ss.blobs.SealChunk(id) }

func (c chunks) Queued(id object.ID) error { return c.ss.blobs.Queue(id) }

func (c chunks) Dequeued(id object.ID) {
	if err := c.ss.blobs.Dequeue(id); err != nil {
		c.ss.srv.log.Warn("cannot record that a chunk left its stream", "id", id, "err", err)
	}
}

func (c chunks) Delete(h *store.Holder, id object.ID) {
	c.Dequeued(id)
	if err := c.ss.deleteAny(h, id); err != nil {
		c.ss.srv.log.Warn("cannot free a stream chunk", "id", id, "err", err)
	}
}
