package server_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
	"github.com/v6d-go/v6d/internal/testserver"
)

// patience is how long any one answer of a daemon may take.
const patience = 10 * time.Second

// raw is a client that knows frames and descriptors and nothing else, so that
// tests can send what no client would. It shares no code with package client.
type raw struct {
	t   testing.TB
	net net.Conn
	fds map[int64]*os.File // descriptors received, by store_fd
}

// reply is one decoded reply frame; numbers are kept exact.
type reply map[string]any

// dialUnix connects to a daemon's or session's socket without registering.
func dialUnix(t testing.TB, socket string) *raw {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatalf("dial %s: %v", socket, err)
	}
	return newRaw(t, c)
}

// dialTCP connects to a daemon's RPC port without registering.
func dialTCP(t testing.TB, addr string) *raw {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("dial %s: %v", addr, err)
	}
	return newRaw(t, c)
}

func newRaw(t testing.TB, c net.Conn) *raw {
	r := &raw{t: t, net: c, fds: map[int64]*os.File{}}
	t.Cleanup(r.close)
	return r
}

// connect registers on a daemon's socket as a 0.24 client.
func connect(t testing.TB, d *testserver.Daemon) *raw {
	t.Helper()
	return dialUnix(t, d.Socket).register()
}

// connectRPC registers on a daemon's RPC port as a 0.24 client.
func connectRPC(t testing.TB, d *testserver.Daemon) *raw {
	t.Helper()
	return dialTCP(t, d.RPC).register()
}

// connectExtended registers as a v6d client, which negotiates extensions.
func connectExtended(t testing.TB, d *testserver.Daemon) *raw {
	t.Helper()
	return dialUnix(t, d.Socket).register("extensions", []string{"v6d_status_request"})
}

func (c *raw) register(kv ...any) *raw {
	c.t.Helper()
	c.call("register_request", append([]any{"version", "0.24.2", "store_type", 1}, kv...)...)
	return c
}

// close hangs up without a word, as a killed client does.
func (c *raw) close() {
	c.net.Close()
	for n, f := range c.fds {
		f.Close()
		delete(c.fds, n)
	}
}

// frame encodes one frame.
func frame(body []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(body)))
	return append(b, body...)
}

// request encodes one request: a type, then keys and values in turn.
func request(typ string, kv ...any) []byte {
	m := map[string]any{"type": typ}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i].(string)] = kv[i+1]
	}
	body, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return frame(body)
}

// write sends bytes as they are.
func (c *raw) write(b []byte) {
	c.t.Helper()
	c.net.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.net.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// send sends a request and does not wait for its reply.
func (c *raw) send(typ string, kv ...any) {
	c.t.Helper()
	c.write(request(typ, kv...))
}

// read reads exactly n bytes.
func (c *raw) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	c.net.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(c.net, b); err != nil {
		c.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

// recv reads one reply frame and decodes it.
func (c *raw) recv() reply {
	c.t.Helper()
	r, err := c.tryRecv()
	if err != nil {
		c.t.Fatalf("read a reply: %v", err)
	}
	return r
}

func (c *raw) tryRecv() (reply, error) {
	c.net.SetReadDeadline(time.Now().Add(patience))
	var header [8]byte
	if _, err := io.ReadFull(c.net, header[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(header[:])
	if n > 64<<20 {
		return nil, fmt.Errorf("a reply of %d bytes: the stream is out of step", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.net, body); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var r reply
	if err := dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("reply %q: %w", body, err)
	}
	return r, nil
}

// call sends a request, reads its reply, which must be a success, and takes the
// descriptors that follow.
func (c *raw) call(typ string, kv ...any) reply {
	c.t.Helper()
	c.send(typ, kv...)
	return c.expect(typ)
}

// expect reads the reply to a request that was sent earlier.
func (c *raw) expect(typ string) reply {
	c.t.Helper()
	r := c.recv()
	if r.code() != 0 {
		c.t.Fatalf("%s: code %d, %v", typ, r.code(), r["message"])
	}
	c.takeFDs(r)
	return r
}

// refused sends a request that must fail with a code and returns the message.
func (c *raw) refused(code status.Code, typ string, kv ...any) string {
	c.t.Helper()
	c.send(typ, kv...)
	return c.expectError(code, typ)
}

func (c *raw) expectError(code status.Code, what string) string {
	c.t.Helper()
	r := c.recv()
	if r.code() != code {
		c.t.Fatalf("%.200s: got code %d (%v), want %d; reply %.300v", what, r.code(), r["message"], code, r)
	}
	if _, ok := r["type"]; ok {
		c.t.Errorf("%.200s: an error reply has a type: %v", what, r)
	}
	return r.str("message")
}

// takeFDs receives the descriptors that a reply announced.
func (c *raw) takeFDs(r reply) {
	c.t.Helper()
	var numbers []int64
	if list, ok := r["fds"].([]any); ok {
		for _, n := range list {
			numbers = append(numbers, integer(c.t, n))
		}
	} else if n, ok := r["fd"]; ok && integer(c.t, n) >= 0 {
		numbers = append(numbers, integer(c.t, n))
	}
	for _, n := range numbers {
		if c.fds[n] != nil {
			c.t.Fatalf("descriptor %d was delivered twice", n)
		}
		c.net.SetReadDeadline(time.Now().Add(patience))
		f, err := sys.RecvFD(c.net.(*net.UnixConn))
		if err != nil {
			c.t.Fatalf("descriptor %d: %v", n, err)
		}
		c.fds[n] = f
	}
}

// silent fails the test if the daemon sends anything, or hangs up, within a
// short while.
func (c *raw) silent(d time.Duration) {
	c.t.Helper()
	c.net.SetReadDeadline(time.Now().Add(d))
	var b [1]byte
	n, err := c.net.Read(b[:])
	if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("want silence, got %d bytes, %v", n, err)
	}
}

// hungUp fails the test unless the daemon closes the connection without sending
// anything more.
func (c *raw) hungUp(what string) {
	c.t.Helper()
	c.net.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c.net)
	if len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("%s: want a hang-up, got %q, %v", what, b, err)
	}
}

func (r reply) code() status.Code {
	n, ok := r["code"].(json.Number)
	if !ok {
		return 0
	}
	v, err := n.Int64()
	if err != nil {
		return 255
	}
	return status.Code(v)
}

func (r reply) str(key string) string { s, _ := r[key].(string); return s }

func (r reply) id(key string) uint64 {
	n, _ := r[key].(json.Number)
	v, err := strconv.ParseUint(n.String(), 10, 64)
	if err != nil {
		panic(fmt.Sprintf("reply has no u64 %q: %v", key, r))
	}
	return v
}

func (r reply) payload(key string) payload { return newPayload(r[key]) }

func (r reply) payloads() []payload {
	list, _ := r["payloads"].([]any)
	out := make([]payload, len(list))
	for i := range list {
		out[i] = newPayload(list[i])
	}
	return out
}

func integer(t testing.TB, v any) int64 {
	t.Helper()
	n, err := v.(json.Number).Int64()
	if err != nil {
		t.Fatalf("%v is no integer", v)
	}
	return n
}

// payload is where a blob lies.
type payload struct {
	id        uint64
	fd        int64
	off, size int64
	sealed    bool
}

func newPayload(v any) payload {
	m, ok := v.(map[string]any)
	if !ok {
		panic(fmt.Sprintf("no payload: %v", v))
	}
	num := func(key string) int64 {
		n, err := m[key].(json.Number).Int64()
		if err != nil {
			panic(err)
		}
		return n
	}
	p := payload{id: reply(m).id("object_id"), fd: num("store_fd"), off: num("data_offset"), size: num("data_size")}
	p.sealed, _ = m["is_sealed"].(bool)
	return p
}

// create makes an unsealed blob.
func (c *raw) create(size int64) payload {
	c.t.Helper()
	return c.call("create_buffer_request", "size", size).payload("created")
}

// put makes a sealed blob that holds data.
func (c *raw) put(data []byte) payload {
	c.t.Helper()
	p := c.create(int64(len(data)))
	c.fill(p, data)
	c.call("seal_request", "object_id", p.id)
	return p
}

// get takes a reference to a blob and returns where it lies.
func (c *raw) get(id uint64) payload {
	c.t.Helper()
	list := c.call("get_buffers_request", "ids", []uint64{id}, "unsafe", false).payloads()
	if len(list) != 1 {
		c.t.Fatalf("get %x: %d payloads", id, len(list))
	}
	return list[0]
}

// fill writes a blob's bytes through the descriptor that came with it.
func (c *raw) fill(p payload, data []byte) {
	c.t.Helper()
	if _, err := c.fds[p.fd].WriteAt(data, p.off); err != nil {
		c.t.Fatalf("write blob %x: %v", p.id, err)
	}
}

// bytes reads a blob's bytes through the descriptor that came with it.
func (c *raw) bytes(p payload) []byte {
	c.t.Helper()
	b := make([]byte, p.size)
	if _, err := c.fds[p.fd].ReadAt(b, p.off); err != nil {
		c.t.Fatalf("read blob %x: %v", p.id, err)
	}
	return b
}

// del deletes as the Python client does.
func (c *raw) del(ids ...uint64) {
	c.t.Helper()
	c.call("del_data_request", "id", ids, "force", false, "deep", true, "memory_trim", false, "fastpath", false)
}

func (c *raw) exists(id uint64) bool {
	c.t.Helper()
	v, _ := c.call("exists_request", "id", id)["exists"].(bool)
	return v
}

// alive checks that the daemon serves: on a connection of its own, a blob makes
// the whole way.
func alive(t testing.TB, d *testserver.Daemon) {
	t.Helper()
	c := connect(t, d)
	defer c.close()
	p := c.put([]byte("alive"))
	if got := c.bytes(c.get(p.id)); string(got) != "alive" {
		t.Fatalf("a blob reads %q", got)
	}
	c.del(p.id)
}

// nodeStatus asks a daemon for its status over a v6d connection.
func nodeStatus(t testing.TB, d *testserver.Daemon) server.Status {
	t.Helper()
	c := connectExtended(t, d)
	defer c.close()
	r := c.call("v6d_status_request")
	b, err := json.Marshal(r["status"])
	if err != nil {
		t.Fatal(err)
	}
	var st server.Status
	if err := json.Unmarshal(b, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// waitStatus polls a daemon's status until cond holds, for at most some seconds.
func waitStatus(t testing.TB, d *testserver.Daemon, what string, cond func(server.Status) bool) {
	t.Helper()
	var last server.Status
	for deadline := time.Now().Add(patience / 2); ; time.Sleep(2 * time.Millisecond) {
		if last = nodeStatus(t, d); cond(last) {
			return
		}
		if time.Now().After(deadline) {
			b, _ := json.MarshalIndent(last, "", " ")
			t.Fatalf("waited %v for %s; status:\n%s", patience/2, what, b)
		}
	}
}

// pattern returns n bytes that tell apart who wrote them, and where: every page
// begins with its number.
func pattern(seed byte, n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	for i := range page {
		b[i] = seed ^ byte(i)
	}
	for done := page; done < n; done *= 2 {
		copy(b[done:], b[:done])
	}
	for i := 0; i < n; i += page {
		binary.LittleEndian.PutUint32(b[i:], uint32(i/page)<<8|uint32(seed))
	}
	return b[:n]
}

// sameBytes compares without printing megabytes.
func sameBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range got {
		if i >= len(want) || got[i] != want[i] {
			t.Fatalf("%s: %d bytes, want %d; the first difference is at %d", what, len(got), len(want), i)
		}
	}
	t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
}

func contains(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: %q does not say %q", what, text, p)
		}
	}
}

// noiseBytes returns n bytes that do not compress.
func noiseBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// recvFD receives a descriptor that no field of the reply announced.
func recvFD(c *raw) (*os.File, error) {
	c.net.SetReadDeadline(time.Now().Add(patience))
	return sys.RecvFD(c.net.(*net.UnixConn))
}
