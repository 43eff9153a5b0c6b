//go:build linux

package recovery

import (
	"io"
	"net"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// slowReader has asked for a blob over TCP and takes its time to read it.
type slowReader struct{ pc *protocol.Conn }

// dialSlowly asks for a blob and reads the head of the reply.
func dialSlowly(endpoint string, id client.ID) (*slowReader, error) {
	nc, err := net.Dial("tcp", endpoint)
	if err != nil {
		return nil, err
	}
	if err := nc.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		return nil, err
	}
	c := &rawConn{pc: protocol.NewClientConn(nc)}
	var r protocol.RegisterReply
	if err := call(c, protocol.Register, protocol.RegisterRequest{Version: client.Version, StoreType: protocol.StoreDefault}, &r); err != nil {
		return nil, err
	}
	var got protocol.GetBuffersReply
	q := protocol.GetRemoteRequest{IDs: protocol.IDs{id}}
	b := protocol.GetRemote.AppendRequest(protocol.BeginFrame(nil), &q)
	if _, err := c.pc.Write(protocol.EndFrame(b, 0)); err != nil {
		return nil, err
	}
	frame, err := c.pc.ReadFrame()
	if err != nil {
		return nil, err
	}
	members, err := wirejson.ParseObject(frame, nil)
	if err != nil {
		return nil, err
	}
	return &slowReader{c.pc}, protocol.GetRemote.DecodeReply(members, &got)
}

// read reads n bytes in about a second.
func (s *slowReader) read(n int) ([]byte, error) {
	b := make([]byte, n)
	step := n / 50
	for off := 0; off < n; off += step {
		time.Sleep(20 * time.Millisecond)
		if _, err := io.ReadFull(s.pc, b[off:min(off+step, n)]); err != nil {
			return nil, err
		}
	}
	return b, nil
}
