package protocol

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/v6d-go/v6d/internal/sys"
)

// connect returns both ends of a connection, over TCP or a pipe without a descriptor.
func connect(t *testing.T, network string) (*Conn, net.Conn) {
	t.Helper()
	if network == "pipe" {
		a, b := net.Pipe()
		t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
		return NewClientConn(a, 0), b
	}
	at := "127.0.0.1:0"
	if network == "unix" {
		at = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return NewClientConn(a, 0), b
}

// TestReadToFile brings a frame and payload after it over all kinds of connections:
// what came with the frame, what is spliced, and what is not for the file.
func TestReadToFile(t *testing.T) {
	payload := make([]byte, 5<<20+17)
	for i := range payload {
		payload[i] = byte(rand.Uint32())
	}
	for _, network := range []string{"tcp", "unix", "pipe"} {
		t.Run(network, func(t *testing.T) {
			c, peer := connect(t, network)
			sent := make(chan error, 1)
			go func() {
				b := BeginFrame(nil)
				b = append(b, "{}"...)
				b = append(EndFrame(b, 0), payload...)
				_, err := peer.Write(append(b, "rest"...))
				sent <- err
			}()
			if frame, err := c.ReadFrame(); err != nil || string(frame) != "{}" {
				t.Fatalf("%q, %v", frame, err)
			}
			f, err := os.Create(filepath.Join(t.TempDir(), "f"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			const at = 4099
			var came int64
			n, err := c.ReadToFile(f, at, int64(len(payload)), func(k int64) error { came += k; return nil })
			if n != int64(len(payload)) || came != n || err != nil {
				t.Fatalf("%d bytes, told of %d, %v", n, came, err)
			}
			rest := make([]byte, 4)
			if _, err := io.ReadFull(c, rest); err != nil || string(rest) != "rest" {
				t.Fatalf("then comes %q, %v", rest, err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(f.Name())
			if err != nil || !bytes.Equal(got, append(make([]byte, at), payload...)) {
				t.Fatalf("the file has %d bytes, and others: %v", len(got), err)
			}

			go func(peer net.Conn) { _, _ = peer.Write(payload) }(peer)
			enough := errors.New("enough")
			if n, err := c.ReadToFile(f, 0, int64(len(payload)), func(int64) error { return enough }); n == 0 || !errors.Is(err, enough) {
				t.Errorf("stopped after %d bytes, %v", n, err)
			}

			c, peer = connect(t, network)
			go func(peer net.Conn) { _, _ = peer.Write(payload[:1000]); _ = peer.Close() }(peer)
			if n, err := c.ReadToFile(f, 0, 1<<20, nil); n != 1000 || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("cut short: %d bytes, %v", n, err)
			}
		})
	}
}

// TestReadToFileRefused tells the file's errors from the connection's.
func TestReadToFileRefused(t *testing.T) {
	for _, network := range []string{"tcp", "pipe"} {
		t.Run(network, func(t *testing.T) {
			c, peer := connect(t, network)
			const size = 100_000
			go func() { _, _ = peer.Write(make([]byte, size)) }()
			f, err := os.Open(os.DevNull) // not for writing
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			n, err := c.ReadToFile(f, 0, size, nil)
			if _, ok := errors.AsType[*sys.WriteError](err); n != 0 || !ok {
				t.Errorf("%d bytes, %v", n, err)
			}
			c.Interrupt()
			n, err = c.ReadToFile(f, 0, size, nil)
			if _, ok := errors.AsType[*sys.WriteError](err); n != 0 || err == nil || ok {
				t.Errorf("interrupted: %d bytes, %v", n, err)
			}
		})
	}
}
