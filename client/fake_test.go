//go:build linux

package client_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
)

const registered = `{"type":"register_reply","ipc_socket":"x","rpc_endpoint":"x:1","instance_id":0,"session_id":0,"version":"0.24.2","store_match":true,"support_rpc_compression":true}`

func frame(body string) string {
	return string(binary.LittleEndian.AppendUint64(nil, uint64(len(body)))) + body
}

// withFD ends a piece that a file's descriptor follows.
const withFD = "<descriptor>"

// fake is a daemon that answers one connection with prepared bytes, one piece a
// request; after the last it hangs up. The requests can be received once it has.
func fake(t testing.TB, network string, pieces ...string) (o client.Options, requests chan []string) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(testserver.ShortTempDir(t), "fake.sock")
	}
	l := ok(net.Listen(network, address))(t)
	requests = make(chan []string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var got []string
		defer func() { requests <- got }()
		for _, piece := range pieces {
			var header [8]byte
			if _, err := io.ReadFull(c, header[:]); err != nil {
				return
			}
			body := make([]byte, binary.LittleEndian.Uint64(header[:]))
			if _, err := io.ReadFull(c, body); err != nil {
				return
			}
			got = append(got, string(body))
			piece, fd := strings.CutSuffix(piece, withFD)
			if _, err := io.WriteString(c, piece); err != nil {
				return
			}
			if fd {
				if err := sendFile(c.(*net.UnixConn), t.TempDir()); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	if network == "unix" {
		return client.Options{Socket: l.Addr().String()}, requests
	}
	return client.Options{Endpoint: l.Addr().String()}, requests
}

// sendFile sends the descriptor of a file of one page.
func sendFile(c *net.UnixConn, dir string) error {
	f, err := os.Create(filepath.Join(dir, "pool"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		return err
	}
	_, _, err = c.WriteMsgUnix([]byte{0x14}, syscall.UnixRights(int(f.Fd())), nil)
	return err
}

// What is no daemon, or a broken one, is an error in time and never a crash.
func TestBrokenDaemon(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	const payload = `{"object_id":9223372036854775809,"store_fd":3,"data_offset":64,"data_size":100,"map_size":4104,"pointer":0,"is_sealed":true,"is_owner":true,"is_gpu":false}`
	const gone = `{"code":12,"message":"gone"}`
	getReply := func(p string) string {
		return frame(`{"type":"get_buffers_reply","num":1,"0":` + p + `,"payloads":[` + p + `],"fds":[3],"compress":false}`)
	}
	getBlob := func(c *client.Client) error {
		_, err := c.GetBlob(ctx, client.EmptyBlob|1)
		return err
	}
	status := func(c *client.Client) error {
		_, err := c.InstanceStatus(ctx)
		return err
	}
	for _, tt := range []struct {
		name    string
		network string
		pieces  []string
		call    func(*client.Client) error // nil: Dial fails
		says    string
		usable  bool // afterwards
	}{
		{"hangs up", "unix", nil, nil, "hung up during register_request", false},
		{"web server", "tcp", []string{"HTTP/1.1 400 Bad Request\r\n\r\n"}, nil, "is that a v6d or Vineyard daemon?", false},
		{"half a frame", "unix", []string{frame(registered), frame(`{"type":"x"}`)[:12]}, status, "hung up during instance_status_request", false},
		{"no JSON", "tcp", []string{frame(registered), frame(`{"type":`)}, status, "not valid JSON", false},
		{"other reply", "unix", []string{frame(registered), frame(`{"type":"exists_reply","exists":true}`), frame(gone)}, status, "exists_reply", true},
		{"field missing", "unix", []string{frame(registered), frame(`{"type":"instance_status_reply"}`), frame(gone)}, status, `"meta" is missing`, true},
		{"wrong meta", "tcp", []string{frame(registered), frame(`{"type":"instance_status_reply","meta":[]}`), frame(gone)}, status, "the daemon's answer", true},
		{"unknown code", "tcp", []string{frame(registered), frame(`{"code":200,"message":"odd"}`), frame(gone)}, status, "odd", true},
		{"good", "unix", []string{frame(registered), getReply(payload) + withFD, frame(gone)}, func(c *client.Client) error {
			b, err := c.GetBlob(ctx, client.EmptyBlob|1)
			if err != nil || len(b.Bytes()) != 100 {
				return fmt.Errorf("this must not fail: %w", err)
			}
			return errors.New("all is well")
		}, "all is well", true},
		{"outside", "unix", []string{frame(registered), getReply(strings.Replace(payload, `"data_offset":64`, `"data_offset":5000`, 1)) + withFD, frame(gone)}, getBlob, "outside of the mapping", true},
		{"before", "unix", []string{frame(registered), getReply(strings.Replace(payload, `"data_offset":64`, `"data_offset":-64`, 1)) + withFD, frame(gone)}, getBlob, "outside of the mapping", true},
		{"no mapping", "unix", []string{frame(registered), getReply(strings.Replace(payload, `"map_size":4104`, `"map_size":0`, 1)) + withFD, frame(gone)}, getBlob, "map the pool", true},
		{"no descriptor", "unix", []string{frame(registered), getReply(payload) + "\x14"}, getBlob, "no descriptor", false},
		{"short payload", "tcp", []string{frame(registered), getReply(payload) + "short"}, getBlob, "hung up during get_remote_buffers_request", false},
		{"huge payload", "tcp", []string{frame(registered), getReply(strings.Replace(payload, `"data_size":100`, `"data_size":1000000000000`, 1)) + "short"}, getBlob, "hung up during get_remote_buffers_request", false},
		{"negative payload", "tcp", []string{frame(registered), getReply(strings.Replace(payload, `"data_size":100`, `"data_size":-1`, 1))}, getBlob, "claims -1 bytes", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, _ := fake(t, tt.network, tt.pieces...)
			c, err := client.Dial(ctx, o)
			if tt.call != nil {
				must(t, err)
				defer c.Close()
				err = tt.call(c)
			}
			if err == nil {
				t.Fatal("no error")
			}
			text := err.Error()
			if e, isError := errors.AsType[*client.Error](err); isError {
				text += "\n" + e.Hint
			}
			if !strings.Contains(text, tt.says) {
				t.Errorf("%q does not say %q", text, tt.says)
			}
			if ctx.Err() != nil {
				t.Fatal("it took too long")
			}
			if tt.call == nil {
				return
			}
			if tt.usable {
				wantErr(t, status(c), client.NotExist) // the next reply is taken for what it is
			} else {
				wantUnusable(t, c)
			}
		})
	}
}

// Compression is asked for where the daemon offers it, and nowhere else.
func TestCompressionIsOffered(t *testing.T) {
	for _, offered := range []bool{true, false} {
		reply := strings.Replace(registered, `"support_rpc_compression":true`, fmt.Sprintf(`"support_rpc_compression":%v`, offered), 1)
		o, requests := fake(t, "tcp", frame(reply), frame(`{"code":12,"message":"gone"}`), frame(`{"code":41,"message":"full"}`))
		o.Compress = true
		c := dial(t, o)
		_, err := c.GetBlob(t.Context(), client.EmptyBlob|1)
		wantErr(t, err, client.NotExist)
		_, err = c.PutBlob(t.Context(), []byte("x"))
		wantErr(t, err, client.NoMemory)
		for _, q := range (<-requests)[1:] {
			if want := fmt.Sprintf(`"compress":%v`, offered); !strings.Contains(q, want) {
				t.Errorf("compression offered: %v, and the request is %s", offered, q)
			}
		}
	}
}

// A compressed blob may end in a block that decodes to nothing; what follows its
// chunk is the next reply.
func TestCompressedTail(t *testing.T) {
	// The numbers 0 to 9 as int64, as the reference compressed them.
	const golden = "28b52ffd00580c0100d00000010002000300040005000600070008000900000000000000095402000301"
	const empty = "000000"
	chunk := string(ok(hex.DecodeString(golden + empty))(t))
	const payload = `{"object_id":9223372036854775809,"store_fd":3,"data_offset":64,"data_size":80,"map_size":4104,"pointer":0,"is_sealed":true,"is_owner":true,"is_gpu":false}`
	reply := frame(`{"type":"get_buffers_reply","num":1,"0":` + payload + `,"payloads":[` + payload + `],"fds":[],"compress":true}`)
	o, _ := fake(t, "tcp", frame(registered), reply+frame(chunk), frame(`{"code":12,"message":"gone"}`))
	c := dial(t, o)
	b := ok(c.GetBlob(t.Context(), client.EmptyBlob|1))(t)
	for i := range 10 {
		if got := binary.LittleEndian.Uint64(b.Bytes()[8*i:]); got != uint64(i) {
			t.Errorf("number %d is %d", i, got)
		}
	}
	_, err := c.GetBlob(t.Context(), client.EmptyBlob|1)
	wantErr(t, err, client.NotExist)
}

// A daemon that says nothing costs as long as the context says.
func TestSilentDaemon(t *testing.T) {
	path := filepath.Join(testserver.ShortTempDir(t), "silent.sock")
	l := ok(net.Listen("unix", path))(t)
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := client.Dial(ctx, client.Options{Socket: path})
	wantErr(t, err, context.DeadlineExceeded)
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("an error of several lines: %v", err)
	}
}
