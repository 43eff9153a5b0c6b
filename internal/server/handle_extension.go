package server

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/meta"
	"github.com/v6d-go/v6d/internal/migrate"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
	"github.com/v6d-go/v6d/internal/stream"
	"github.com/v6d-go/v6d/internal/wirejson"
)

func init() {
	handle(protocol.Watch, watch)
	handle(protocol.Page, page)
	handle(protocol.NodeStatus, nodeStatus)
}

const (
	watchLimit = 1000
	pageLimit  = 1000
	maxPage    = 100_000
)

// watch returns events since a cursor, waiting for a first one as long as the
// client wants to. Running out of time is an empty reply, not an error.
func watch(ctx context.Context, c *conn, q *protocol.WatchRequest, r *protocol.WatchReply) error {
	limit := int(min(max(q.Limit, 1), watchLimit))
	if q.Limit == 0 {
		limit = watchLimit
	}
	var events []meta.Event
	err := c.park(ctx, func(ctx context.Context) error {
		wait, cancel := context.WithTimeout(ctx, time.Duration(min(q.WaitMS, 300_000))*time.Millisecond)
		defer cancel()
		events, r.Cursor, r.Lost = c.ss.tree.Watch(wait, q.Cursor, q.Pattern, limit)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if events == nil {
		events = []meta.Event{}
	}
	r.Events, err = json.Marshal(events)
	return err
}

// page lists one page of objects or blobs.
func page(_ context.Context, c *conn, q *protocol.PageRequest, r *protocol.PageReply) error {
	limit := int(min(q.Limit, maxPage))
	if limit == 0 {
		limit = pageLimit
	}
	var after object.ID
	if q.Cursor != "" {
		var err error
		if after, err = object.ParseID(q.Cursor); err != nil {
			return status.Errorf(status.Invalid, "cursor: %w", err)
		}
	}
	if q.Blobs {
		return pageBlobs(c, after, limit, r)
	}
	var rows []meta.Row
	var more bool
	if len(q.IDs) > 0 {
		if err := checkCount(len(q.IDs)); err != nil {
			return err
		}
		rows = c.ss.tree.Rows(q.IDs)
	} else {
		rows, more = c.ss.tree.Page(q.Pattern, q.Name, after, limit, len(q.Fields) == 1 && q.Fields[0] == "id")
	}
	b := []byte{'['}
	for i := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendRow(b, &rows[i], q.Fields)
	}
	r.Items = append(b, ']')
	if more {
		r.Cursor = rows[len(rows)-1].ID.String()
	}
	return nil
}

// appendRow appends one object with the chosen keys; id is always there.
func appendRow(b []byte, row *meta.Row, fields []string) []byte {
	want := func(key string) bool { return len(fields) == 0 || slices.Contains(fields, key) }
	b = append(b, `{"id":"`...)
	b, _ = row.ID.AppendText(b)
	b = append(b, '"')
	if want("typename") {
		b = append(b, `,"typename":`...)
		b = wirejson.AppendString(b, row.Type)
	}
	if want("instance_id") {
		b = append(b, `,"instance_id":`...)
		b = strconv.AppendUint(b, uint64(row.Instance), 10)
	}
	if want("signature") {
		b = append(b, `,"signature":`...)
		b = strconv.AppendUint(b, uint64(row.Signature), 10)
	}
	if want("transient") {
		b = strconv.AppendBool(append(b, `,"transient":`...), row.Transient)
	}
	if want("global") {
		b = strconv.AppendBool(append(b, `,"global":`...), row.Global)
	}
	if want("timestamp") {
		b = strconv.AppendInt(append(b, `,"timestamp":`...), row.Timestamp, 10)
	}
	if want("bytes") {
		b = strconv.AppendInt(append(b, `,"bytes":`...), row.Bytes, 10)
	}
	if want("members") {
		b = strconv.AppendInt(append(b, `,"members":`...), int64(row.Members), 10)
	}
	if want("owned") {
		b = strconv.AppendBool(append(b, `,"owned":`...), row.Owned)
	}
	if want("names") {
		b = append(b, `,"names":[`...)
		for i, n := range row.Names {
			if i > 0 {
				b = append(b, ',')
			}
			b = wirejson.AppendString(b, n)
		}
		b = append(b, ']')
	}
	if want("labels") && len(row.Labels) > 0 {
		if text, err := row.Labels.Text(); err == nil && json.Valid([]byte(text)) {
			b = append(append(b, `,"labels":`...), text...)
		}
	}
	for _, key := range fields {
		if v := row.Plain.Get(key); len(v) > 0 {
			b = append(b, ',')
			b = append(wirejson.AppendKey(b, key), v...)
		}
	}
	return append(b, '}')
}

func pageBlobs(c *conn, after object.ID, limit int, r *protocol.PageReply) error {
	type row struct {
		store.Entry
		Owners []object.ID `json:"owners"`
	}
	rows := []row{}
	streams := c.ss.streams.Chunks()
	entries, next := c.ss.blobs.Entries(after, limit)
	if next != 0 {
		r.Cursor = next.String()
	}
	for _, e := range entries {
		owners := c.ss.tree.Owners(e.ID) // a copy
		if owners == nil {
			owners = []object.ID{} // a list in JSON
		}
		if st, ok := streams[e.ID]; ok {
			e.Chunk, owners = true, append(owners, st)
		}
		rows = append(rows, row{e, owners})
	}
	var err error
	r.Items, err = json.Marshal(rows)
	return err
}

// Status is what `v6d status` shows of a daemon; docs/json-output.md describes
// it.
type Status struct {
	Version     string           `json:"version"`
	Protocol    string           `json:"protocol"`
	PID         int              `json:"pid"`
	StartedAt   time.Time        `json:"started_at"`
	HostID      string           `json:"host_id"`
	Metadata    string           `json:"metadata"`
	Start       Report           `json:"start"`
	Ledger      store.Account    `json:"ledger"`
	Journal     journal.Stats    `json:"journal"`
	Requests    uint64           `json:"requests"`
	Objects     int              `json:"objects"`
	Sessions    []SessionStatus  `json:"sessions"`
	Connections []ConnStatus     `json:"connections"`
	Streams     []stream.Info    `json:"streams"`
	Transfers   []migrate.Status `json:"transfers"`        // from other instances, under way
	Moved       migrate.Counters `json:"moved"`            // by transfers since the start
	Damage      string           `json:"damage,omitempty"` // a truncated pool file
	Cluster     ClusterStatus    `json:"cluster"`
}

// ClusterStatus tells where metadata lie and how far this node follows them.
type ClusterStatus struct {
	Metadata  string            `json:"metadata"`     // local, etcd or embed
	At        string            `json:"at,omitempty"` // URLs
	Prefix    string            `json:"prefix,omitempty"`
	Store     string            `json:"store,omitempty"` // identity of the store
	Revision  int64             `json:"revision"`        // applied up to here
	Instance  object.InstanceID `json:"instance"`
	Instances int               `json:"instances"`
	Failure   string            `json:"failure,omitempty"` // why the metadata service cannot be reached
}

func (s *Server) clusterStatus() ClusterStatus {
	at := s.cluster.Position()
	st := ClusterStatus{
		Metadata: s.cfg.Meta, At: s.report.MetaAt, Revision: at.Revision, Instance: s.cluster.Number(), Instances: len(s.cluster.Instances()),
	}
	if s.cfg.Meta != "local" {
		st.Store, st.Prefix = at.Cluster, s.cfg.EtcdPrefix
	}
	if err := s.cluster.Health(); err != nil {
		st.Failure = err.Error()
	}
	return st
}

// SessionStatus describes one session.
type SessionStatus struct {
	ID       string `json:"id"`
	Socket   string `json:"socket"`
	Plasma   bool   `json:"plasma"`
	Objects  int    `json:"objects"`
	IPC      int64  `json:"ipc_connections"`
	RPC      int64  `json:"rpc_connections"`
	Deferred int64  `json:"deferred_requests"`
}

// ConnStatus describes one connection.
type ConnStatus struct {
	PID      int       `json:"pid"` // 0 for remote clients
	UID      int       `json:"uid"` // -1 for remote clients
	Remote   string    `json:"remote,omitempty"`
	Session  string    `json:"session"`
	Since    time.Time `json:"since"`
	Requests uint64    `json:"requests"`
	Extended bool      `json:"extended"` // a v6d client
	Idle     bool      `json:"idle"`
}

func nodeStatus(_ context.Context, c *conn, _ *protocol.None, r *protocol.NodeStatusReply) (err error) {
	r.Status, err = json.Marshal(c.srv.status(c.ss))
	return err
}

// status describes the daemon; streams are those of the asking session.
func (s *Server) status(of *session) Status {
	st := Status{
		Version: s.version, Protocol: config.ProtocolVersion, PID: os.Getpid(), StartedAt: s.started.UTC(),
		HostID: fmt.Sprintf("%016x", s.hostID), Metadata: s.cfg.Meta, Start: s.report, Ledger: s.store.Account(),
		Journal: s.journal.Stats(), Requests: s.requests.Load(), Streams: of.streams.List(),
	}
	st.Cluster = s.clusterStatus()
	st.Transfers, st.Moved = s.mover.Running(), s.mover.Counters()
	if err := s.store.CheckFiles(); err != nil {
		st.Damage = err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ss := range s.sessions {
		n := ss.tree.Len()
		st.Objects += n
		st.Sessions = append(st.Sessions, SessionStatus{
			ID: ss.id.String(), Socket: ss.socket, Plasma: ss.blobs.Plasma, Objects: n,
			IPC: ss.ipcConns.Load(), RPC: ss.rpcConns.Load(), Deferred: ss.deferred.Load(),
		})
	}
	slices.SortFunc(st.Sessions, func(a, b SessionStatus) int { return strings.Compare(a.ID, b.ID) })
	for c := range s.conns {
		st.Connections = append(st.Connections, c.status())
	}
	slices.SortFunc(st.Connections, func(a, b ConnStatus) int { return a.Since.Compare(b.Since) })
	return st
}
