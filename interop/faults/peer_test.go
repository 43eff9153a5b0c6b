//go:build linux

package faults

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// peer speaks the protocol by hand, so that it can stop anywhere and hang up
// without a word. It maps nothing: bytes go through the pool file's descriptor.
type peer struct {
	writing sync.Mutex
	hungUp  bool // guarded by writing

	pc    *protocol.Conn
	files map[int64]*os.File // by store_fd
}

// dialPeer connects and registers over a UNIX socket, or over TCP if the
// address has a port and no slash. classic is a 0.24 client.
func dialPeer(address string, classic bool) (*peer, error) {
	p, err := dialMute(address)
	if err != nil {
		return nil, err
	}
	q := protocol.RegisterRequest{Version: client.Version, StoreType: protocol.StoreDefault, Extensions: []string{"v6d"}}
	if classic {
		q.Extensions = nil
	}
	p.limit(patience)
	if err := ask(p, protocol.Register, q, &protocol.RegisterReply{}); err != nil {
		p.drop()
		return nil, err
	}
	return p, p.pc.SetDeadline(time.Time{})
}

// dialMute connects and says nothing.
func dialMute(address string) (*peer, error) {
	network := "tcp"
	if address[0] == '/' {
		network = "unix"
	}
	nc, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return &peer{pc: protocol.NewClientConn(nc, 0), files: map[int64]*os.File{}}, nil
}

// say sends a request and reads nothing.
func say[Q, R any](p *peer, d *protocol.Def[Q, R], q Q) error {
	b := d.AppendRequest(protocol.BeginFrame(nil), &q)
	_, err := p.pc.Write(protocol.EndFrame(b, 0))
	return err
}

// hear reads one reply.
func hear[Q, R any](p *peer, d *protocol.Def[Q, R], r *R) error {
	frame, err := p.pc.ReadFrame()
	if err != nil {
		return err
	}
	members, err := wirejson.ParseObject(append([]byte(nil), frame...), nil)
	if err != nil {
		return err
	}
	return d.DecodeReply(members, r)
}

func ask[Q, R any](p *peer, d *protocol.Def[Q, R], q Q, r *R) error {
	err := say(p, d, q)
	if err == nil {
		err = hear(p, d, r)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.Request, err)
	}
	return nil
}

// take receives the descriptors that a reply promised; -1 stands for none.
func (p *peer) take(numbers ...int64) error {
	for _, n := range numbers {
		if n < 0 {
			continue
		}
		f, err := p.pc.RecvFD()
		if err != nil {
			return err
		}
		p.files[n] = f
	}
	return nil
}

// create makes an unsealed blob.
func (p *peer) create(size int) (protocol.Payload, error) {
	var r protocol.CreateBufferReply
	err := ask(p, protocol.CreateBuffer, protocol.SizeRequest{Size: uint64(size)}, &r)
	if err == nil {
		err = p.take(r.FD)
	}
	return r.Created, err
}

// write fills a blob, unless the peer is dead: one that goes on writing after it
// hung up would write where another blob lies by then.
func (p *peer) write(at protocol.Payload, b []byte) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	if p.hungUp {
		return net.ErrClosed
	}
	_, err := p.files[at.StoreFD].WriteAt(b, at.DataOffset)
	return err
}

// die hangs up, whatever else goes on.
func (p *peer) die() {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.hungUp = true
	p.pc.Close()
}

// put makes a sealed blob and returns its id.
func (p *peer) put(b []byte) (client.ID, error) {
	at, err := p.create(len(b))
	if err != nil {
		return 0, err
	}
	if err := p.write(at, b); err != nil {
		return 0, fmt.Errorf("write blob %s: %w", at.ObjectID, err)
	}
	return at.ObjectID, ask(p, protocol.Seal, protocol.ObjectIDRequest{ObjectID: at.ObjectID}, &protocol.None{})
}

// get takes a reference to a blob and returns where it lies; found is false if
// it is not there.
func (p *peer) get(id client.ID) (at protocol.Payload, found bool, err error) {
	var r protocol.GetBuffersReply
	err = ask(p, protocol.GetBuffers, protocol.GetBuffersRequest{IDs: protocol.IDs{id}}, &r)
	if err == nil {
		err = p.take(r.FDs...)
	}
	if err != nil || len(r.Payloads) == 0 {
		return at, false, err
	}
	return r.Payloads[0], true, nil
}

// read returns the bytes of a blob that get found.
func (p *peer) read(at protocol.Payload) ([]byte, error) {
	b := make([]byte, at.DataSize)
	_, err := p.files[at.StoreFD].ReadAt(b, at.DataOffset)
	return b, err
}

// download asks for a blob over TCP and reads the reply, not the bytes.
func (p *peer) download(id client.ID) (at protocol.Payload, found bool, err error) {
	var r protocol.GetBuffersReply
	err = ask(p, protocol.GetRemote, protocol.GetRemoteRequest{IDs: protocol.IDs{id}}, &r)
	if err != nil || len(r.Payloads) == 0 {
		return at, false, err
	}
	return r.Payloads[0], true, nil
}

// upload asks to send a blob over TCP and sends the first part of it only.
func (p *peer) upload(b []byte, part int) error {
	var r protocol.CreateBufferReply
	if err := ask(p, protocol.CreateRemote, protocol.CreateRemoteRequest{Size: uint64(len(b))}, &r); err != nil {
		return err
	}
	_, err := p.pc.Write(b[:part])
	return err
}

// uploadAll stores a blob over TCP.
func (p *peer) uploadAll(b []byte) (client.ID, error) {
	if err := p.upload(b, len(b)); err != nil {
		return 0, err
	}
	var r protocol.CreateBufferReply
	err := hear(p, protocol.CreateRemote, &r)
	return r.ID, err
}

// payload reads the bytes that follow a reply.
func (p *peer) payload(size int64) ([]byte, error) {
	b := make([]byte, size)
	_, err := io.ReadFull(p.pc, b)
	return b, err
}

// exists asks something small.
func (p *peer) exists(id client.ID) (bool, error) {
	var r protocol.ExistsReply
	err := ask(p, protocol.Exists, protocol.IDRequest{ID: id}, &r)
	return r.Exists, err
}

// limit makes everything on the connection fail after a while.
func (p *peer) limit(d time.Duration) { _ = p.pc.SetDeadline(time.Now().Add(d)) }

// drop hangs up without a word, over TCP with a reset.
func (p *peer) drop() {
	if tcp, ok := p.pc.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	p.pc.Close()
	for _, f := range p.files {
		f.Close()
	}
}
