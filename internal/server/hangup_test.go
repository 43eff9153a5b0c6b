package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

// samples makes valid requests of every registered message, about things that
// exist.
type samples struct {
	t      testing.TB
	d      *testserver.Daemon
	c      *raw
	blob   payload
	object uint64
	stream uint64
	dir    string
	n      int
}

func newSamples(t testing.TB, d *testserver.Daemon) *samples {
	s := &samples{t: t, d: d, c: connectExtended(t, d), dir: t.TempDir()}
	s.renew()
	return s
}

// renew makes the sample blob, object and stream again if a request, or the end
// of a connection, took them away.
func (s *samples) renew() {
	s.t.Helper()
	if s.blob.id == 0 || !s.c.exists(s.blob.id) || !s.c.exists(s.object) {
		s.blob = s.c.put(pattern(1, 3000))
		s.object = s.c.call("create_data_request", "content", s.content()).id("id")
		s.c.call("persist_request", "id", s.object)
	}
	if s.stream == 0 {
		s.stream = 5000
	}
	s.c.send("create_stream_request", "object_id", s.stream)
	if r := s.c.recv(); r.code() != 0 && r.code() != status.ObjectExists {
		s.t.Fatalf("create the sample stream: %v", r)
	}
	s.c.send("drop_stream_request", "id", sharedSample) // it ends with whoever wrote it
	s.c.recv()
	s.c.call("v6d_create_stream_request", "id", sharedSample)
}

// sharedSample is the sample of v6d's own streams.
const sharedSample = 6000

func (s *samples) content() map[string]any {
	return map[string]any{
		"typename": "test::Object", "instance_id": 0, "nbytes": 3000, "global": false, "key": "value",
		"buffer_": map[string]any{"id": fmt.Sprintf("o%016x", s.blob.id), "typename": "vineyard::Blob", "instance_id": 0},
	}
}

// request makes the body of one request; override may give the text of a field.
func (s *samples) request(m *protocol.Info, override func(protocol.FieldDoc) string) string {
	s.t.Helper()
	s.n++
	body := `{"type":"` + m.Request + `"`
	for _, f := range m.RequestFields() {
		text := ""
		if override != nil {
			text = override(f)
		}
		if text == "" {
			text = s.value(m, f)
		}
		body += `,"` + f.Key + `":` + text
	}
	return body + "}"
}

func (s *samples) value(m *protocol.Info, f protocol.FieldDoc) string {
	id := strconv.FormatUint(s.blob.id, 10)
	switch f.Key {
	case "object_id", "id":
		switch m.Request {
		case protocol.CreateStream.Request:
			return strconv.Itoa(1000 + s.n)
		case protocol.Persist.Request, protocol.IfPersist.Request, protocol.ShallowCopy.Request, protocol.MigrateObject.Request, protocol.MigrateTo.Request,
			protocol.Label.Request, protocol.PutName.Request:
			return strconv.FormatUint(s.object, 10)
		}
		switch {
		case m.Request == protocol.CreateShared.Request:
			return strconv.Itoa(1000 + s.n)
		case protocol.IsExtension(m.Request):
			return strconv.Itoa(sharedSample)
		case strings.Contains(m.Request, "stream"):
			return strconv.FormatUint(s.stream, 10)
		}
	case "done": // no chunk
		return "0"
	case "session_id":
		return "0"
	case "path":
		return strconv.Quote(filepath.Join(s.dir, strconv.Itoa(s.n)))
	case "key", "name":
		return strconv.Quote("sample" + strconv.Itoa(s.n))
	case "content":
		return mustJSON(s.content())
	case "contents":
		return mustJSON([]any{s.content(), s.content()})
	case "wait_ms", "cursor":
		if f.Type == "u64" {
			return "0"
		}
		return `""`
	case "sizes":
		return "[100,200]"
	case "offsets":
		if m.Request == protocol.ReadRanges.Request {
			return "[100]"
		}
		return "[0,512]"
	case "lengths":
		return "[200]"
	case "compress":
		if f.Type == "string" {
			return `"auto"`
		}
	case "parallel":
		return "2"
	case "ids":
		if m.Request == protocol.FetchBlobs.Request {
			return "[]"
		}
	case "instance":
		return "0"
	}
	switch {
	case f.Type == "u64" && strings.Contains(f.Key, "id"), f.Key == "chunk":
		return id
	case f.Type == "u64":
		return "100"
	case f.Type == "i64":
		return "0"
	case f.Type == "bool":
		return "false"
	case f.Type == "string":
		return `"*"`
	case f.Type == "any":
		return "{}"
	case strings.HasPrefix(f.Type, "[u64]"):
		return "[" + id + "]"
	case f.Type == "[string]":
		return `["a"]`
	case strings.HasPrefix(f.Type, "strings under"):
		return `1,"0":"a"`
	case strings.HasPrefix(f.Type, "int or string"):
		return "1"
	case strings.HasPrefix(f.Type, "[[source"):
		return "[[" + id + "," + id + "]]"
	case strings.Contains(f.Type, "string"):
		return "[]"
	}
	s.t.Fatalf("%s.%s: no sample of type %q", m.Request, f.Key, f.Type)
	return ""
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// answersOnce reports whether each request of a message has exactly one reply
// frame and nothing more.
func answersOnce(m *protocol.Info) bool {
	switch m.Request {
	case protocol.Exit.Request, protocol.CreateRemote.Request, protocol.CreateRemotes.Request, protocol.GetRemote.Request,
		protocol.ReadRanges.Request:
		return false
	}
	return true
}

// parks reports whether such a value of a field makes a request wait, or lets
// it write files into the working directory.
func parks(key, value string) bool {
	return key == "wait" && value == "true" || key == "wait_ms" || key == "path" && value == `"x"`
}

// exchange sends one body on a connection of its own, and a marker after it:
// there must be exactly one reply frame to each.
func (s *samples) exchange(what, body string) {
	s.t.Helper()
	s.renew()
	c := connect(s.t, s.d)
	defer c.close()
	c.write(frame([]byte(body)))
	r, err := c.tryRecv()
	if err != nil {
		s.t.Fatalf("%s: %v", body, err)
	}
	c.takeFDs(r)
	if r.code() == status.UnknownError {
		s.t.Errorf("%s: an error without a code: %v", body, r)
	}
	if c.send("exists_request", "id", 1); c.recv().str("type") != "exists_reply" {
		s.t.Fatalf("%s: the connection is out of step after reply %v", body, r)
	}
}

// parking are requests that wait, besides those with plain samples.
func (s *samples) parking() map[string][]byte {
	missing := uint64(4711)
	return map[string][]byte{
		"get_data":      request("get_data_request", "id", []uint64{missing}, "wait", true),
		"get_data_sync": request("get_data_request", "id", []uint64{s.object, missing}, "wait", true, "sync_remote", true),
		"get_name":      request("get_name_request", "name", "never", "wait", true),
		"pull":          request("pull_next_stream_chunk_request", "id", s.stream),
		"lock":          request("acquire_lock_request", "key", "taken"),
		"upload":        append(request("create_remote_buffer_request", "size", 1<<20), pattern(9, 5000)...),
		"uploads":       append(request("create_remote_buffers_request", "sizes", []int{100, 1 << 20}, "num", 2), pattern(9, 5000)...),
		"upload_zstd":   append(request("create_remote_buffer_request", "size", 1<<20, "compress", true), 200, 0, 0, 0, 0, 0, 0, 0, 0x28, 0xb5),
		"download":      request("get_remote_buffers_request", "num", 1, "0", s.blob.id),
	}
}

// refusedSamples are the messages whose sample cannot succeed in a default
// session of a daemon without spill path, and how they are refused.
var refusedSamples = map[string]status.Code{
	protocol.CreateGPUBuffer.Request: status.Invalid,
	protocol.GetGPUBuffers.Request:   status.Invalid,
	protocol.ShrinkBuffer.Request:    status.ObjectSealed,
	protocol.Release.Request:         status.KeyError,
	protocol.Evict.Request:           status.Invalid,
	protocol.PlasmaCreate.Request:    status.Invalid,
	protocol.PlasmaGet.Request:       status.Invalid,
	protocol.PlasmaSeal.Request:      status.Invalid,
	protocol.PlasmaRelease.Request:   status.Invalid,
	protocol.PlasmaDelete.Request:    status.Invalid,
	protocol.GetName.Request:         status.ObjectNotExists,
	protocol.DeleteSession.Request:   status.Invalid,
	protocol.FinalizeArena.Request:   status.ObjectNotExists,
	protocol.ReadChunks.Request:      status.Invalid, // the cursor is another connection's
	protocol.ForgetReader.Request:    status.ObjectNotExists,
}

// TestSamples keeps the samples good: those of messages without a known reason
// to be refused succeed.
func TestSamples(t *testing.T) {
	d := testserver.Start(t, nil)
	s := newSamples(t, d)
	for _, m := range protocol.Messages() {
		if !answersOnce(m) || m.Request == protocol.PullChunk.Request {
			continue
		}
		s.renew()
		c := connectExtended(t, d)
		body := s.request(m, nil)
		c.write(frame([]byte(body)))
		if r := c.recv(); r.code() != refusedSamples[m.Request] {
			t.Errorf("%s: code %d (%v), want %d", body, r.code(), r["message"], refusedSamples[m.Request])
		} else if r.code() == 0 && r.str("type") != m.Reply {
			t.Errorf("%s: reply of type %q, want %q", body, r.str("type"), m.Reply)
		}
		c.close()
	}
}

// TestHangUpInEveryRequest sends every message, cut off at several points or
// whole, and hangs up without reading the answer. Nothing may stay behind.
func TestHangUpInEveryRequest(t *testing.T) {
	d := testserver.Start(t, nil)
	s := newSamples(t, d)
	holder := connect(t, d)
	holder.call("acquire_lock_request", "key", "taken")

	frames := s.parking()
	for _, m := range protocol.Messages() {
		frames[m.Request] = frame([]byte(s.request(m, nil)))
	}
	for _, name := range slices.Sorted(maps.Keys(frames)) {
		full := frames[name]
		for _, cut := range []int{3, 8, 9, len(full) / 2, len(full) - 1, len(full)} {
			s.renew()
			for _, abort := range []bool{false, true} {
				c := connectExtended(t, d)
				c.write(full[:cut])
				if abort {
					time.Sleep(200 * time.Microsecond) // let it be in the middle of its work
				}
				c.close()
			}
			c := connectRPC(t, d)
			c.write(full[:cut])
			c.net.(*net.TCPConn).SetLinger(0)
			c.close()
			if cut == len(full) { // what the whole request deletes must not be renewed too early
				waitStatus(t, d, "the request to end", func(st server.Status) bool { return len(st.Connections) == 3 })
			}
		}
	}
	s.c.send("drop_stream_request", "id", s.stream) // a chunk belongs to its stream
	s.c.recv()
	waitStatus(t, d, "everything that the dead held to be given back", func(st server.Status) bool {
		for _, ss := range st.Sessions {
			if ss.Deferred != 0 {
				return false
			}
		}
		return len(st.Connections) == 3 && st.Ledger.Unsealed == 0 && st.Ledger.Deferred == 0
	})
	for _, st := range nodeStatus(t, d).Streams {
		if st.Waits != "" {
			t.Errorf("stream %s still has a waiting %s", st.ID, st.Waits)
		}
	}
	holder.close()
	c := connect(t, d)
	c.call("acquire_lock_request", "key", "taken") // none of the dead holds it
	alive(t, d)
}

// TestHangUpInASession does the same with what ends a session.
func TestHangUpInASession(t *testing.T) {
	d := testserver.Start(t, nil)
	boot := connect(t, d)
	for range 20 {
		path := boot.call("new_session_request", "bulk_store_type", 1).str("socket_path")
		a, b := dialUnix(t, path).register(), dialUnix(t, path).register()
		a.put(pattern(1, 10_000))
		b.create(10_000)
		b.send("get_data_request", "id", []uint64{1}, "wait", true) // parked in a session that goes away
		a.send("delete_session_request")
		a.close()
		b.close()
	}
	waitStatus(t, d, "the sessions to end", func(st server.Status) bool {
		return len(st.Sessions) == 1 && st.Ledger.Blobs == 0 && st.Ledger.Files == 1
	})
	alive(t, d)
}
