//go:build linux

package recovery

import (
	"net"
	"os"
	"testing"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
)

// dialPlasmaRaw joins a session in which clients choose the ids of blobs.
func dialPlasmaRaw(socket string) (*rawConn, error) {
	nc, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &rawConn{pc: protocol.NewClientConn(nc), fds: map[int64]*os.File{}}
	var r protocol.RegisterReply
	if err := call(c, protocol.Register, protocol.RegisterRequest{Version: client.Version, StoreType: protocol.StorePlasma}, &r); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func dialPlasma(t testing.TB, socket string) *client.Client {
	t.Helper()
	c, err := client.Dial(ctx, client.Options{Socket: socket, Plasma: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// plasmaPut stores 5000 bytes under a client's own id and returns their hash.
// The entry lives as long as somebody refers to it, so the connection stays.
func plasmaPut(t testing.TB, socket, name string) [32]byte {
	t.Helper()
	c, err := dialPlasmaRaw(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	var made protocol.PlasmaCreateReply
	q := protocol.PlasmaCreateRequest{PlasmaID: name, Size: 5000, PlasmaSize: 5000}
	if err := call(c, protocol.PlasmaCreate, q, &made); err != nil {
		t.Fatal(err)
	}
	if err := c.receive(made.FD); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5000)
	sum := bytesOf(b, 42)
	if _, err := c.fds[made.FD].WriteAt(b, made.Created.DataOffset); err != nil {
		t.Fatal(err)
	}
	if err := call(c, protocol.PlasmaSeal, protocol.PlasmaIDRequest{PlasmaID: name}, &protocol.None{}); err != nil {
		t.Fatal(err)
	}
	return sum
}
