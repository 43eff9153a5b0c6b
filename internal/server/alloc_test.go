//go:build !race

// The race detector makes pools forget at random: make allocs runs these without.

package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/object"
)

// hotConn is a registered connection whose replies nobody reads.
func hotConn(t *testing.T) *conn {
	t.Helper()
	dir, err := os.MkdirTemp("", "v6d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cfg := config.Default()
	cfg.Socket, cfg.RPCListen, cfg.Size, cfg.Huge = filepath.Join(dir, "sock"), "off", "32MiB", "never"
	s, err := New(t.Context(), Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.closeListeners()
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	go func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{ends[0]}, make([]byte, 64<<10))
	}()
	c := newConn(s, ends[1], s.session(object.RootSession))
	t.Cleanup(func() {
		c.exit()
		c.pc.Close()
		ends[0].Close()
	})
	c.dispatch(context.Background(), []byte(`{"type":"register_request","version":"0.24.2","store_type":"Normal","session_id":0}`))
	if !c.registered || c.failed != nil {
		t.Fatalf("not registered: %v", c.failed)
	}
	return c
}

// TestHotRequestsDoNotAllocate pins what the hot requests allocate, from the
// frame to the reply: nothing that outlives them, and nothing for them.
func TestHotRequestsDoNotAllocate(t *testing.T) {
	c := hotConn(t)
	ctx := context.Background()
	view, err := c.ss.blobs.Create(c.holder, 1000)
	if err != nil {
		t.Fatal(err)
	}
	id := view.ID
	c.dispatch(ctx, []byte(`{"type":"create_data_request","content":{"typename":"t","instance_id":0,"nbytes":0,"transient":true}}`))
	object := numberAfter(t, c.out, `"id":`)
	c.dispatch(ctx, fmt.Appendf(nil, `{"type":"persist_request","id":%s}`, object))
	c.dispatch(ctx, fmt.Appendf(nil, `{"type":"put_name_request","object_id":%s,"name":"there"}`, object))
	for _, r := range []struct {
		what   string
		most   float64
		frames []string
	}{
		{"exists", 0, []string{`{"type":"exists_request","id":1}`}},
		{"seal again", 0, []string{fmt.Sprintf(`{"type":"seal_request","object_id":%d}`, id)}},
		{"get of a blob", 0, []string{fmt.Sprintf(`{"type":"get_buffers_request","num":1,"0":%d,"unsafe":false}`, id)}},
		{"get and release of a blob", 1, []string{ // the reference
			fmt.Sprintf(`{"type":"get_buffers_request","ids":[%d],"unsafe":false}`, id),
			fmt.Sprintf(`{"type":"release_request","object_id":%d}`, id),
		}},
		{"get_data of a blob", 0, []string{fmt.Sprintf(`{"type":"get_data_request","id":[%d],"sync_remote":false,"wait":false}`, id)}},
		{"get_data of an object", 0, []string{`{"type":"get_data_request","id":[OBJECT],"sync_remote":false,"wait":false}`}},
		{"get_name", 1, []string{`{"type":"get_name_request","name":"there","wait":false}`}}, // the name
	} {
		frames := make([][]byte, len(r.frames))
		for i, f := range r.frames {
			frames[i] = []byte(strings.Replace(f, "OBJECT", object, 1))
		}
		got := testing.AllocsPerRun(500, func() {
			for _, f := range frames {
				c.dispatch(ctx, f)
			}
		})
		if c.failed != nil {
			t.Fatalf("%s: %v", r.what, c.failed)
		}
		t.Logf("%s: %v allocations", r.what, got)
		if got > r.most {
			t.Errorf("%s: %v allocations, at most %v", r.what, got, r.most)
		}
	}
	var frame []byte
	got := testing.AllocsPerRun(500, func() {
		c.dispatch(ctx, []byte(`{"type":"create_buffer_request","size":1000}`))
		made := bytesAfter(c.out, `"object_id":`)
		frame = append(append(append(frame[:0], `{"type":"seal_request","object_id":`...), made...), '}')
		c.dispatch(ctx, frame)
		frame = append(append(append(frame[:0], `{"type":"drop_buffer_request","id":`...), made...), '}')
		c.dispatch(ctx, frame)
	})
	// The blob, the reference, and what the store's tables take on average.
	if t.Logf("create, seal and drop of a blob: %v allocations", got); got > 3 {
		t.Errorf("create, seal and drop of a blob: %v allocations, at most 3", got)
	}
}

// bytesAfter returns the digits that follow a text.
func bytesAfter(b []byte, text string) []byte {
	i := bytes.Index(b, []byte(text))
	if i < 0 {
		return nil
	}
	b = b[i+len(text):]
	n := 0
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	return b[:n]
}

func numberAfter(t *testing.T, b []byte, text string) string {
	t.Helper()
	digits := string(bytesAfter(b, text))
	if digits == "" {
		t.Fatalf("no %s in %s", text, b)
	}
	return digits
}
