package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/meta"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
)

// recNode is the journal record of the node's identity: the host id by which
// others know it, and the highest id that it ever minted.
const recNode = 48

// recStream is the journal record of a change of a shared stream: the session, and
// what internal/stream makes of it.
const recStream = 50

// recover brings back what an earlier daemon on this socket left, if there is
// anything, joins the cluster with it, and starts a new journal.
func (s *Server) recover(ctx context.Context) error {
	path := s.home.JournalPath()
	found := false // a journal that tells what an earlier daemon left
	if path != "" {
		var err error
		if found, err = s.replay(path); err != nil {
			return status.Errorf(status.IOError, "recover the pool at %s: %w", s.report.Place.Path, err).
				WithHint("start with --fresh to discard it")
		}
	}
	s.fresh = !found
	if s.hostID == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		s.hostID = binary.LittleEndian.Uint64(b[:]) >> 1
	}
	if root := s.session(object.RootSession); root != nil {
		if err := s.join(ctx, root); err != nil {
			return err
		}
	}
	if path != "" {
		// A daemon that died while making a file left one that no record names.
		if err := s.removeRemains(found); err != nil {
			return err
		}
		if err := s.home.Grow(s.report.Size); err != nil {
			s.log.Warn("cannot enlarge the pool's mount; large puts may be refused", "err", err)
		}
		snap, err := journal.NewSnapshot(path)
		if err != nil {
			return err
		}
		if err := s.snapshot(snap); err != nil {
			return errors.Join(err, snap.Abort())
		}
		if s.journal, err = snap.Commit(); err != nil {
			return err
		}
	}
	s.journal.SetRoom(s.store.JournalRoom)
	if err := s.store.Start(s.journal); err != nil {
		return err
	}
	if _, ok := s.store.Session(object.RootSession); !ok {
		if _, err := s.store.NewSession(object.RootSession, false); err != nil {
			return err
		}
	}
	root := s.session(object.RootSession)
	if root == nil {
		root = s.addSession(object.RootSession)
		if err := s.join(ctx, root); err != nil {
			return err
		}
	}
	root.listener, root.socket = s.ipc, s.cfg.Socket
	for id, ss := range s.sessions {
		ss.tree.SetJournal(s.journal)
		ss.streams.Resume()
		if id != object.RootSession {
			ss.tree.Renumber(s.saved.Number, s.cluster.Number())
			if err := s.listenSession(ss); err != nil {
				return err
			}
		}
	}
	return s.removeSockets()
}

// removeSockets removes the sockets of sessions that did not come back.
func (s *Server) removeSockets() error {
	paths, err := filepath.Glob(s.cfg.Socket + ".S" + strings.Repeat("[0-9a-f]", 16))
	if err != nil {
		return nil //nolint:nilerr // the path has characters that Glob does not take: they stay
	}
	for _, path := range paths {
		id, err := strconv.ParseUint(path[len(path)-16:], 16, 64)
		if err != nil || s.session(object.SessionID(id)) != nil {
			continue
		}
		if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeRemains removes what no journal names. With no journal at all, pool files
// are an earlier pool that cannot be read.
func (s *Server) removeRemains(found bool) error {
	keep := s.store.Files()
	keep["journal"] = true
	removed, err := s.home.RemoveOthers(keep)
	pools := slices.DeleteFunc(slices.Clone(removed), func(name string) bool { return !strings.HasPrefix(name, "pool-") })
	if len(pools) > 0 && !found {
		lost := "pool files " + strings.Join(pools, ", ") + ": the journal beside them is empty or gone"
		s.report.Lost = append(s.report.Lost, lost)
		s.log.Error("an earlier pool is lost: its journal is empty or gone", "files", pools)
	} else if len(removed) > 0 {
		s.log.Info("removed files that no journal knows", "files", removed)
	}
	return err
}

// replay applies the journal; found is false for one that is empty or not there.
func (s *Server) replay(path string) (found bool, err error) {
	rep, err := journal.Replay(path, s.replayRecord)
	if err != nil {
		return false, err
	}
	if rep.Records == 0 && len(rep.Damaged) == 0 {
		return false, nil
	}
	for _, g := range rep.Damaged {
		s.log.Error("the journal is damaged; what was recorded there is lost", "offset", g.Off, "bytes", g.Size, "torn_end", g.Torn)
	}
	s.report.Damage = append(s.report.Damage, rep.Damaged...)
	rec := s.store.EndReplay(len(rep.Damaged) > 0)
	for id := range s.sessions {
		if _, ok := s.store.Session(id); !ok {
			delete(s.sessions, id)
		}
	}
	for _, id := range rec.Session {
		if s.session(id) == nil {
			s.addSession(id)
		}
	}
	for _, b := range rec.Lost {
		s.report.Lost = append(s.report.Lost, b.String())
	}
	for _, ss := range s.sessions {
		ss.streams.Recovered(func(id object.ID) bool {
			_, ok := ss.blobs.Sealed(id)
			return ok || ss.tree.Exists(id)
		}, ss.tree.Exists)
	}
	freed := s.dropChunks(rec.Chunks)
	for _, ss := range s.sessions {
		s.report.Objects += ss.tree.Len()
	}
	s.report.Recovered, s.report.Bytes = rec.Blobs-freed, rec.Bytes
	s.log.Info("recovered", "blobs", s.report.Recovered, "objects", s.report.Objects, "bytes", rec.Bytes,
		"lost", len(rec.Lost), "stream_chunks_freed", freed)
	return true, nil
}

// dropChunks deletes what lay in 0.24 streams, unless an object took it over, and
// what lies in no stream any more. It returns how many those were.
func (s *Server) dropChunks(chunks []store.QueuedID) (freed int) {
	held := map[object.SessionID]map[object.ID]bool{}
	for id, ss := range s.sessions {
		held[id] = ss.streams.Held()
	}
	for _, q := range chunks {
		ss := s.sessions[q.Session]
		if ss == nil || held[q.Session][q.ID] {
			continue
		}
		freed++
		if q.ID.IsBlob() && len(ss.tree.Owners(q.ID)) > 0 {
			continue
		}
		if err := ss.deleteAny(nil, q.ID); err != nil {
			s.log.Warn("cannot free a stream chunk", "id", q.ID, "err", err)
		}
	}
	return freed
}

// replaySession returns the session of a journal record, or nil if it has ended.
func (s *Server) replaySession(id object.SessionID) *session {
	if ss := s.session(id); ss != nil {
		return ss
	}
	if _, known := s.store.Session(id); !known {
		return nil
	}
	return s.addSession(id)
}

func (s *Server) replayRecord(payload []byte) error {
	if len(payload) == 0 {
		return journal.ErrRecord
	}
	if payload[0] < store.FirstForeign {
		return s.store.Replay(payload)
	}
	if payload[0] == recNode {
		r := journal.NewReader(payload)
		s.hostID = r.Uint()
		s.ids.Continue(r.Uint())
		return r.Err()
	}
	if payload[0] == recCluster {
		return s.replayCluster(payload)
	}
	if payload[0] == recStream {
		r := journal.NewReader(payload)
		ss := s.replaySession(object.SessionID(r.Uint()))
		if r.Err() != nil || ss == nil {
			return r.Err()
		}
		return ss.streams.Replay(r)
	}
	id, ok := meta.IsRecord(payload)
	if !ok {
		return fmt.Errorf("unknown record kind %d", payload[0])
	}
	ss := s.replaySession(id)
	if ss == nil {
		return nil
	}
	blobs, err := ss.tree.Replay(payload)
	if err == nil && len(blobs) > 0 {
		ss.blobs.DropAll(nil, blobs)
	}
	return err
}

// snapshot writes the whole state of node, store and trees. It runs before the
// daemon serves, or with everything locked.
func (s *Server) snapshot(snap *journal.Snapshot) error {
	w := journal.Begin(nil, recNode)
	w.Uint(s.hostID)
	w.Uint(uint64(s.ids.Signature()))
	if err := snap.Append(w); err != nil {
		return err
	}
	if s.remembers || s.saved.HostID != 0 {
		if err := snap.Append(clusterRecord(s.saved)); err != nil {
			return err
		}
	}
	if err := s.store.Snapshot(snap.Append); err != nil {
		return err
	}
	for _, ss := range s.sessions {
		if err := ss.tree.Snapshot(snap.Append); err != nil {
			return err
		}
		err := ss.streams.Snapshot(func(payload []byte) error {
			w := journal.Begin(nil, recStream)
			w.Uint(uint64(ss.id))
			return snap.Append(append(w, payload...))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// compact replaces the journal by a snapshot. Changes wait meanwhile; reading
// goes on. Locks are taken in the order of requests: trees, streams, store.
func (s *Server) compact() error {
	if s.journal == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sessions := make([]*session, 0, len(s.sessions))
	for _, ss := range s.sessions {
		sessions = append(sessions, ss)
	}
	slices.SortFunc(sessions, func(a, b *session) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	for _, ss := range sessions {
		ss.tree.Lock()
		defer ss.tree.Unlock()
	}
	for _, ss := range sessions {
		ss.streams.Lock()
		defer ss.streams.Unlock()
	}
	s.store.Lock()
	defer s.store.Unlock()
	snap, err := journal.NewSnapshot(s.home.JournalPath())
	if err != nil {
		return err
	}
	if err := s.snapshot(snap); err != nil {
		return errors.Join(err, snap.Abort())
	}
	return s.journal.Adopt(snap)
}
