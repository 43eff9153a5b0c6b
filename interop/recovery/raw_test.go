//go:build linux

package recovery

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/sys"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// probe checks that new ids are above all earlier ones, and that no store_fd
// number ever names two files.
func (m *model) probe() error {
	c, err := client.Dial(ctx, client.Options{Socket: m.places[0].socket})
	if err != nil {
		return err
	}
	defer c.Close()
	meta := client.NewMeta("test::Probe")
	object, err := c.CreateObject(ctx, meta)
	if err != nil {
		return err
	}
	if uint64(object) <= m.maxID {
		m.fault(&m.tally.other, "object id %s is not above all earlier ones (%x)", object, m.maxID)
	}
	m.saw(object)
	if err := c.Delete(ctx, []client.ID{object}, client.DeleteOptions{}); err != nil {
		return err
	}
	m.gone[key(m.places[0], object)] = true
	before := m.maxFD
	for _, p := range m.places {
		if err := m.probeFiles(p, before); err != nil {
			return fmt.Errorf("session %s: %w", p.id, err)
		}
	}
	return nil
}

// probeFiles asks for the files of a session as a 0.24 client does.
func (m *model) probeFiles(p *place, before int64) error {
	c, err := dialRaw(p.socket)
	if err != nil {
		return err
	}
	defer c.close()
	var made protocol.CreateBufferReply
	if err := call(c, protocol.CreateBuffer, protocol.SizeRequest{Size: 64}, &made); err != nil {
		return err
	}
	if uint64(made.ID)&^(1<<63) <= m.maxID {
		m.fault(&m.tally.other, "blob id %s is not above all earlier ones (%x)", made.ID, m.maxID)
	}
	m.saw(made.ID)
	if made.Created.StoreFD <= before {
		m.fault(&m.tally.other, "new blobs lie in file %d, but %d was used before the crash", made.Created.StoreFD, before)
	}
	if made.FD >= 0 {
		if err := c.receive(made.FD); err != nil {
			return err
		}
	}
	if err := call(c, protocol.DropBuffer, protocol.IDRequest{ID: made.ID}, &protocol.None{}); err != nil {
		return err
	}
	for id := range p.blobs {
		var got protocol.GetBuffersReply
		if err := call(c, protocol.GetBuffers, protocol.GetBuffersRequest{IDs: protocol.IDs{id}}, &got); err != nil {
			return err
		}
		for _, fd := range got.FDs {
			if err := c.receive(fd); err != nil {
				return err
			}
		}
	}
	for n, f := range c.fds {
		dev, ino, err := sys.Inode(f)
		if err != nil {
			return err
		}
		file := fileID{dev, ino}
		if old, ok := m.files[n]; ok && old != file {
			m.fault(&m.tally.other, "store_fd %d named file %v and now %v", n, old, file)
		}
		m.files[n] = file
		m.maxFD = max(m.maxFD, n)
	}
	return nil
}

// rawConn speaks the protocol as a 0.24 client: no extensions, descriptors kept
// by number.
type rawConn struct {
	pc  *protocol.Conn
	fds map[int64]*os.File
}

func dialRaw(socket string) (*rawConn, error) {
	nc, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &rawConn{pc: protocol.NewClientConn(nc, 0), fds: map[int64]*os.File{}}
	var r protocol.RegisterReply
	if err := call(c, protocol.Register, protocol.RegisterRequest{Version: client.Version, StoreType: protocol.StoreDefault}, &r); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func call[Q, R any](c *rawConn, d *protocol.Def[Q, R], q Q, r *R) error {
	b := d.AppendRequest(protocol.BeginFrame(nil), &q)
	if _, err := c.pc.Write(protocol.EndFrame(b, 0)); err != nil {
		return err
	}
	frame, err := c.pc.ReadFrame()
	if err != nil {
		return err
	}
	members, err := wirejson.ParseObject(frame, nil)
	if err != nil {
		return err
	}
	return d.DecodeReply(members, r)
}

func (c *rawConn) receive(number int64) error {
	f, err := c.pc.RecvFD()
	if err == nil {
		c.fds[number] = f
	}
	return err
}

func (c *rawConn) close() {
	c.pc.Close()
	for _, f := range c.fds {
		f.Close()
	}
}

// dialPlasmaRaw joins a session in which clients choose the ids of blobs.
func dialPlasmaRaw(socket string) (*rawConn, error) {
	nc, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &rawConn{pc: protocol.NewClientConn(nc, 0), fds: map[int64]*os.File{}}
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
