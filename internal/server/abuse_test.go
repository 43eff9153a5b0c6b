package server_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

// TestOversizedFrame: a header above the limit costs its sender the connection,
// without an answer and without the daemon setting memory aside for it.
func TestOversizedFrame(t *testing.T) {
	d := testserver.Start(t, nil)
	for _, n := range []uint64{protocol.MaxRequest + 1, 1 << 40, 1 << 62, 1 << 63, math.MaxUint64} {
		for _, c := range []*raw{connect(t, d), connectRPC(t, d), dialUnix(t, d.Socket)} {
			c.write(append(binary.LittleEndian.AppendUint64(nil, n), `{"type":"`...))
			c.hungUp(fmt.Sprintf("a frame of %d bytes", n))
		}
	}
	alive(t, d)
}

// TestBoundaryFrame: a frame of exactly the limit is announced, but only some of
// it comes; the daemon waits, and holds no more memory than what came.
func TestBoundaryFrame(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	c.write(append(binary.LittleEndian.AppendUint64(nil, protocol.MaxRequest), bytes.Repeat([]byte(" "), 10_000)...))
	alive(t, d)
	c.close()
	waitStatus(t, d, "the half frame's connection to end", func(s server.Status) bool { return len(s.Connections) == 1 })
}

// TestTruncatedFrames hangs up at every byte of a request.
func TestTruncatedFrames(t *testing.T) {
	d := testserver.Start(t, nil)
	full := request("create_buffer_request", "size", 1000)
	for n := range len(full) {
		c := connect(t, d)
		c.write(full[:n])
		c.close()
	}
	waitStatus(t, d, "all connections to end", func(s server.Status) bool { return len(s.Connections) == 1 })
	if st := nodeStatus(t, d); st.Ledger.Blobs != 0 {
		t.Errorf("%d blobs were made by requests that never arrived whole", st.Ledger.Blobs)
	}
	alive(t, d)
}

// TestSlowFrame: a frame may come byte by byte.
func TestSlowFrame(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	for _, b := range request("exists_request", "id", 1) {
		c.write([]byte{b})
	}
	if r := c.recv(); r.code() != 0 || r["exists"] != false {
		t.Fatalf("reply %v", r)
	}
}

// TestNotARequest sends well-framed bodies that are no request. Each is answered
// with Invalid, and the connection stays good.
func TestNotARequest(t *testing.T) {
	d := testserver.Start(t, nil)
	deep := func(n int) string { return strings.Repeat(`[`, n) + strings.Repeat(`]`, n) }
	bodies := []string{
		"", " ", "\x00", "\x00\x00\x00\x00", "null", "true", "0", `"register_request"`, "[]", "{}", "[{}]", "{", "}", `{"`, `{"type"`,
		`{"type":`, `{"type":"`, `{"type":"exists_request"`, `{"type":"exists_request",`, `{"type":"exists_request","id"}`,
		`{"type":"exists_request","id":1}x`, `{"type":"exists_request","id":1}{}`, `{"type":"exists_request",}`,
		`{"type":'exists_request'}`, `{type:"exists_request"}`, `{"type":null}`, `{"type":1}`, `{"type":["exists_request"]}`,
		`{"type":{}}`, `{"type":""}`, `{"type":"no_such_request"}`, `{"type":"request_fd_request"}`, `{"type":"exists_reply"}`,
		`{"type":"v6d_status_request"}`, // this connection did not negotiate it
		`{"type":"exists_request","id":NaN}`, `{"type":"exists_request","id":Infinity}`, `{"type":"exists_request","id":1e400}`,
		`{"type":"exists_request","id":01}`, `{"type":"exists_request","id":+1}`, `{"type":"exists_request","id":.5}`,
		`{"type":"exists_request","id":0x10}`, `{"type":"exists_request","id":--1}`, `{"type":"exists_request","id":-}`,
		`{"type":"exists_request","x":"\ud800","id":1}`, `{"type":"exists_request","x":"\udc00\ud800","id":1}`,
		`{"type":"exists_request","x":"\x","id":1}`, "{\"type\":\"exists_request\",\"x\":\"\n\",\"id\":1}",
		"{\"type\":\"exists_request\",\"x\":\"\xff\xfe\",\"id\":1}", "\xef\xbb\xbf{\"type\":\"exists_request\",\"id\":1}",
		`{"type":"exists_request","x":` + deep(2000) + `,"id":1}`, deep(2000), deep(500_000), strings.Repeat("[", 1<<20),
		strings.Repeat(`{"a":`, 200_000), strings.Repeat("9", 100_000), `{"type":"` + strings.Repeat("x", 100_000) + `"}`,
	}
	for _, transport := range []func(testing.TB, *testserver.Daemon) *raw{connect, connectRPC} {
		c := transport(t, d)
		for _, body := range bodies {
			c.write(frame([]byte(body)))
			c.expectError(status.Invalid, fmt.Sprintf("body %.60q", body))
		}
		if c.exists(1) {
			t.Error("an object 1 exists")
		}
	}
}

// TestTolerated sends what looks wrong but is legal on this wire.
func TestTolerated(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	p := c.put([]byte("tolerated"))
	for _, body := range []string{
		fmt.Sprintf(`{"type":"exists_request","id":%d}`+"\x00\x00", p.id), // C strings end in NUL
		fmt.Sprintf(` { "type" : "exists_request" , "id" : %d } `, p.id),
		fmt.Sprintf(`{"type":"no_such_request","id":1,"type":"exists_request","id":%d}`, p.id), // the last key counts
		fmt.Sprintf(`{"type":"exists_request","id":%d,"unknown":{"a":[1,{"b":null}]}}`, p.id),
		fmt.Sprintf(`{"type":"exists_request","\u0069d":%d}`, p.id),
		fmt.Sprintf(`{"type":"exists_request","id":%d}`, int64(p.id)), // Java's signed longs
	} {
		c.write(frame([]byte(body)))
		if r := c.recv(); r["exists"] != true {
			t.Errorf("%s: %v", body, r)
		}
	}
}

// TestIDForms: ids may be negative or have a fraction; other types are refused.
func TestIDForms(t *testing.T) {
	d := testserver.Start(t, nil)
	c := connect(t, d)
	for _, v := range []string{"0", "1", "-1", "-9223372036854775808", "18446744073709551615", "1.0", "1.9", "-1.5", "1e3", "1E+3", "-0", "-0.0", "9.3e18"} {
		c.write(frame([]byte(`{"type":"exists_request","id":` + v + `}`)))
		if r := c.recv(); r.code() != 0 {
			t.Errorf("id %s: %v", v, r)
		}
		c.write(frame([]byte(`{"type":"get_buffers_request","ids":[` + v + `],"unsafe":true}`)))
		if r := c.expect("get_buffers_request"); r.code() != 0 {
			t.Errorf("ids [%s]: %v", v, r)
		}
	}
	for _, v := range []string{`"1"`, `"o8000000000000000"`, `true`, `null`, `[1]`, `{}`, `18446744073709551616`, `-1e19`, `1e30`} {
		c.write(frame([]byte(`{"type":"exists_request","id":` + v + `}`)))
		c.expectError(status.Invalid, "id "+v)
		c.write(frame([]byte(`{"type":"get_buffers_request","ids":[` + v + `]}`)))
		c.expectError(status.Invalid, "ids ["+v+"]")
		c.write(frame([]byte(`{"type":"get_buffers_request","num":1,"0":` + v + `}`)))
		c.expectError(status.Invalid, "0: "+v)
	}
}

// wrongValues is one value of each JSON type, and numbers at the edges.
var wrongValues = []string{
	`null`, `true`, `0`, `-1`, `1.5`, `1e300`, `9223372036854775808`, `18446744073709551615`, `-9223372036854775808`,
	`""`, `"x"`, `"\u0000"`, `[]`, `[null]`, `["x"]`, `[1.5]`, `[-1]`, `[[]]`, `{}`, `{"":0}`, `{"0":[1,2]}`,
}

// TestWronglyTyped replaces every field of every request by values of every
// type, over both transports. Whatever the answer is, there is exactly one
// frame, and the daemon lives.
func TestWronglyTyped(t *testing.T) {
	d := testserver.Start(t, nil)
	s := newSamples(t, d)
	for _, m := range protocol.Messages() {
		if !answersOnce(m) {
			continue
		}
		fields := m.RequestFields()
		for i := range fields {
			for _, v := range wrongValues {
				if parks(fields[i].Key, v) {
					continue
				}
				body := s.request(m, func(f protocol.FieldDoc) string {
					if f.Key == fields[i].Key {
						return v
					}
					return ""
				})
				s.exchange(m.Request, body)
			}
		}
		// Without any field, and with num that lies.
		s.exchange(m.Request, `{"type":"`+m.Request+`"}`)
		for _, num := range []string{"-1", "1", "18446744073709551615", "1e15"} {
			s.exchange(m.Request, `{"type":"`+m.Request+`","num":`+num+`}`)
		}
	}
	alive(t, d)
}

// TestUnregistered: nothing but register and exit is served before register.
func TestUnregistered(t *testing.T) {
	d := testserver.Start(t, nil)
	s := newSamples(t, d)
	for _, c := range []*raw{dialUnix(t, d.Socket), dialTCP(t, d.RPC)} {
		for _, m := range protocol.Messages() {
			if m.Request == protocol.Register.Request || m.Request == protocol.Exit.Request {
				continue
			}
			c.write(frame([]byte(s.request(m, nil))))
			contains(t, m.Request, c.expectError(status.Invalid, m.Request), "not registered")
		}
		c.register()
		c.exists(1)
	}
	if !s.c.exists(s.blob.id) {
		t.Error("an unregistered connection deleted a blob")
	}
}

// TestRegisterForms: what a register may and may not look like.
func TestRegisterForms(t *testing.T) {
	d := testserver.Start(t, nil)
	c := dialUnix(t, d.Socket)
	for _, body := range []string{
		`{"type":"register_request","version":1}`, `{"type":"register_request","session_id":"0"}`,
		`{"type":"register_request","store_type":[]}`, `{"type":"register_request","username":7}`,
		`{"type":"register_request","extensions":7}`, `{"type":"register_request","extensions":[7]}`,
	} {
		c.write(frame([]byte(body)))
		c.expectError(status.Invalid, body)
	}
	c.refused(status.Invalid, "exists_request", "id", 1) // none of those registered
	for _, body := range []string{
		`{"type":"register_request"}`, `{"type":"register_request","session_id":77}`, `{"type":"register_request","store_type":"Plasma"}`,
		`{"type":"register_request","version":"not a version","extensions":[]}`,
	} {
		c.write(frame([]byte(body)))
		if r := c.recv(); r.str("type") != "register_reply" || r["extensions"] != nil {
			t.Errorf("%s: %v", body, r)
		}
	}
	rpc := dialTCP(t, d.RPC)
	rpc.refused(status.Invalid, "register_request", "session_id", 77)
	rpc.refused(status.Invalid, "register_request", "session_id", -1)
	rpc.register()
}

// TestPipelined sends many requests at once, some of them wrong: the answers
// come one by one, in order, and descriptors lie where they belong.
func TestPipelined(t *testing.T) {
	d := testserver.Start(t, nil)
	c := dialUnix(t, d.Socket)
	var all []byte
	all = append(all, request("exists_request", "id", 1)...) // not registered yet
	all = append(all, request("register_request")...)
	all = append(all, frame([]byte("no JSON"))...)
	for i := range 200 {
		all = append(all, request("create_buffer_request", "size", 64+i)...)
		all = append(all, request("exists_request", "id", i)...)
		all = append(all, request("no_such_request")...)
	}
	all = append(all, request("exit_request")...)
	go c.net.Write(all)
	c.expectError(status.Invalid, "before register")
	c.expect("register")
	c.expectError(status.Invalid, "no JSON")
	for i := range 200 {
		if p := c.expect("create").payload("created"); p.size != int64(64+i) {
			t.Fatalf("create %d: size %d", i, p.size)
		}
		if r := c.expect("exists"); r.str("type") != "exists_reply" {
			t.Fatalf("exists %d: %v", i, r)
		}
		c.expectError(status.Invalid, "unknown")
	}
	c.hungUp("exit")
	if len(c.fds) != 1 {
		t.Errorf("%d descriptors came", len(c.fds))
	}
}

// TestRandomBytes throws noise at the daemon: whole frames of noise, streams of
// noise, and requests with some bytes changed.
func TestRandomBytes(t *testing.T) {
	d := testserver.Start(t, nil)
	s := newSamples(t, d)
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	for range 50 {
		c := connect(t, d)
		c.net.Write(noise(1 + rnd.IntN(5000)))
		c.close()
	}
	c := connect(t, d)
	for range 500 {
		c.write(frame(noise(rnd.IntN(300))))
		c.expectError(status.Invalid, "a frame of noise")
	}
	for _, m := range protocol.Messages() {
		if !answersOnce(m) {
			continue
		}
		for range 20 {
			body := []byte(s.request(m, nil))
			for range 1 + rnd.IntN(3) {
				body[rnd.IntN(len(body))] = byte(rnd.Uint32())
			}
			c := connect(t, d)
			c.write(frame(body))
			c.close() // a mutation may park
		}
	}
	alive(t, d)
}

// TestDescriptorsSentToUs: descriptors that a client attaches to its frames
// stay in the kernel and end with it; the daemon never owns one.
func TestDescriptorsSentToUs(t *testing.T) {
	d := testserver.Start(t, nil)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before := pipes(t)
	for i := range 100 {
		c := connect(t, d)
		b := request("exists_request", "id", i)
		rights := syscall.UnixRights(int(w.Fd()), int(w.Fd()), int(w.Fd()))
		switch i % 3 {
		case 0: // with the first byte of the header
			_, _, err = c.net.(*net.UnixConn).WriteMsgUnix(b, rights, nil)
		case 1: // in the middle of the body
			c.write(b[:12])
			_, _, err = c.net.(*net.UnixConn).WriteMsgUnix(b[12:], rights, nil)
		case 2: // between two frames, which arrive together
			c.write(b)
			_, _, err = c.net.(*net.UnixConn).WriteMsgUnix(b, rights, nil)
			c.recv()
		}
		if err != nil {
			t.Fatal(err)
		}
		if rep := c.recv(); rep.code() != 0 {
			t.Fatalf("reply %v", rep)
		}
	}
	if after := pipes(t); after > before {
		t.Fatalf("%d pipe ends are open, %d before", after, before)
	}
	w.Close()
	// While the connections live: nobody else holds the pipe's other end.
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil || err.Error() != "EOF" {
		t.Fatalf("the pipe's writing end is still open somewhere: %d, %v", n, err)
	}
}

// pipes counts the process's descriptors that are pipes.
func pipes(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, "pipe:") {
			n++
		}
	}
	return n
}

// TestSizesAtTheEdge: sizes that overflow something are refused, not served.
func TestSizesAtTheEdge(t *testing.T) {
	d := testserver.Start(t, nil)
	for _, c := range []*raw{connect(t, d), connectRPC(t, d)} {
		for _, size := range []uint64{1<<63 - 1, 1 << 62, 1<<62 - 1, 1 << 40, 64<<20 + 1} {
			c.refused(status.NotEnoughMemory, "create_buffer_request", "size", size)
			c.refused(status.NotEnoughMemory, "create_buffers_request", "sizes", []uint64{1, size}, "num", 2)
			c.refused(status.NotEnoughMemory, "create_remote_buffer_request", "size", size)
			c.refused(status.NotEnoughMemory, "create_remote_buffers_request", "sizes", []uint64{size, 1}, "num", 2)
		}
		c.refused(status.NotEnoughMemory, "create_buffers_request", "sizes", []uint64{1<<62 - 1, 1<<62 - 1, 1<<62 - 1, 1<<62 - 1, 8}, "num", 5)
	}
	c := connect(t, d)
	p := c.create(100)
	c.refused(status.Invalid, "shrink_buffer_request", "id", p.id, "size", uint64(math.MaxUint64))
	c.refused(status.Invalid, "shrink_buffer_request", "id", p.id, "size", uint64(1<<63))
	c.refused(status.Invalid, "shrink_buffer_request", "id", p.id, "size", 101)
	if st := nodeStatus(t, d); st.Ledger.Usage != 100 || st.Ledger.Blobs != 1 {
		t.Errorf("usage %d, %d blobs, want 100 and 1", st.Ledger.Usage, st.Ledger.Blobs)
	}
}
