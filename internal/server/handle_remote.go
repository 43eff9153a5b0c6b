package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
	"github.com/v6d-go/v6d/internal/sys"
	"github.com/v6d-go/v6d/internal/zstream"
)

func init() {
	handleRaw(protocol.CreateRemote, func(_ context.Context, c *conn, q *protocol.CreateRemoteRequest) error {
		return c.receive([]uint64{q.Size}, q.Compress, q.RDMA, func(views []store.View) {
			send(c, protocol.CreateRemote, &protocol.CreateBufferReply{ID: views[0].ID, FD: -1, Created: payload(views[0])})
		})
	})
	handleRaw(protocol.CreateRemotes, func(_ context.Context, c *conn, q *protocol.CreateRemotesRequest) error {
		return c.receive(q.Sizes, q.Compress, q.RDMA, func(views []store.View) {
			var r protocol.CreateBuffersReply
			fillCreated(&r, views)
			send(c, protocol.CreateRemotes, &r)
		})
	})
	handleRaw(protocol.GetRemote, getRemote)
}

// copyBuffer is the piece in which payload moves between socket and pool.
const copyBuffer = 1 << 20

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

var errNoRDMA = status.Errorf(status.Invalid, "there is no RDMA here")

// receive makes blobs from bytes that the client sends after the first reply;
// the second reply says that they are stored.
func (c *conn) receive(list []uint64, compress, rdma bool, reply func([]store.View)) error {
	if rdma {
		return errNoRDMA
	}
	if err := c.local(false); err != nil {
		return err
	}
	sizes, err := byteSizes(list)
	if err != nil {
		return err
	}
	views, err := c.ss.blobs.CreateIncoming(c.holder, sizes)
	defer c.srv.store.Unhold(c.holder)
	if err != nil {
		return err
	}
	for _, v := range views {
		if v.File == nil {
			continue
		}
		if err := v.File.CheckSize(); err != nil {
			c.dropAll(views)
			return err
		}
	}
	if reply(views); c.failed != nil {
		return nil
	}
	if err := c.readPayload(views, compress); err != nil {
		// What the client still sends cannot be told from requests: hang up.
		c.dropAll(views)
		c.replyError(err)
		c.fail(err)
		return nil
	}
	if err := c.ss.blobs.Finish(views); err != nil {
		c.dropAll(views)
		return err
	}
	reply(views)
	return nil
}

func (c *conn) dropAll(views []store.View) {
	ids := make([]object.ID, len(views))
	for i, v := range views {
		ids[i] = v.ID
	}
	c.ss.blobs.DropAll(c.holder, ids)
}

func (c *conn) readPayload(views []store.View, compress bool) error {
	toFile := c.pc.ReadToFile
	var dec *zstream.Reader
	if compress {
		var err error
		if dec, err = zstream.NewReader(c.pc); err != nil {
			return err
		}
		defer dec.Close()
		toFile = func(f *os.File, off, n int64, came func(int64) error) (int64, error) {
			return protocol.CopyToFile(f, off, n, dec, came)
		}
	}
	for _, v := range views {
		if v.Size > 0 { // the empty blob lies in no file
			done, err := toFile(v.File.File, v.Off, v.Size, nil)
			if _, ok := errors.AsType[*sys.WriteError](err); ok {
				return status.Errorf(status.IOError, "write blob %s: %w", v.ID, err)
			}
			if err != nil {
				return status.Errorf(status.IOError, "receive blob %s, %d of %d bytes: %w", v.ID, done, v.Size, err)
			}
		}
		if dec != nil {
			if err := dec.EndBlob(); err != nil {
				return status.Errorf(status.IOError, "receive blob %s: %w", v.ID, err)
			}
		}
	}
	return nil
}

// getRemote sends blobs after the reply. Uncompressed bytes leave by sendfile:
// the socket then holds the pool's own pages, so that the blobs stay held until
// the client's next request shows that it has read them.
func getRemote(_ context.Context, c *conn, q *protocol.GetRemoteRequest) error {
	if q.RDMA {
		return errNoRDMA
	}
	if err := checkCount(len(q.IDs)); err != nil {
		return err
	}
	compress := q.Compress && c.srv.cfg.Compression
	views, err := c.ss.blobs.Hold(c.holder, q.IDs, q.Unsafe)
	if err != nil {
		return err
	}
	for _, v := range views {
		if v.File == nil {
			continue
		}
		if err := v.File.CheckSize(); err != nil {
			return err
		}
	}
	r := protocol.GetBuffersReply{Payloads: make(protocol.Payloads, len(views)), FDs: []int64{}, Compress: compress}
	for i, v := range views {
		r.Payloads[i] = payload(v)
	}
	pipelined := c.pc.Buffered() > 0
	if send(c, protocol.GetRemote, &r); c.failed != nil {
		return nil
	}
	switch {
	case compress:
		err = c.sendCompressed(views)
	case pipelined || c.pc.Raw() == nil:
		// A request that is here already proves nothing later: copy.
		err = c.sendCopied(views)
	default:
		err = c.sendFiles(views)
	}
	if err != nil {
		c.fail(fmt.Errorf("send blobs: %w", err))
	}
	return nil
}

func (c *conn) sendFiles(views []store.View) error {
	for _, v := range views {
		if v.Size == 0 {
			continue
		}
		if err := sys.SendFile(c.pc.Raw(), v.File.File, v.Off, v.Size); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) sendCopied(views []store.View) error {
	for _, v := range views {
		if err := copyOut(c.pc.Conn, v); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) sendCompressed(views []store.View) error {
	shrinks, err := shrink(views)
	if err != nil {
		return err
	}
	enc, err := zstream.NewWriter(c.pc.Conn, shrinks)
	if err != nil {
		return err
	}
	defer enc.Close()
	for _, v := range views {
		if v.Size == 0 {
			continue
		}
		if err := copyOut(enc, v); err != nil {
			return err
		}
		if err := enc.EndBlob(); err != nil {
			return err
		}
	}
	return nil
}

// shrink guesses whether blobs are worth compressing: by the largest of them.
func shrink(views []store.View) (bool, error) {
	var largest store.View
	for _, v := range views {
		if v.Size > largest.Size {
			largest = v
		}
	}
	return zstream.Shrinks(largest.Size, func(p []byte, off int64) error {
		_, err := largest.File.ReadAt(p, largest.Off+off)
		return err
	})
}

// copyOut writes a blob's bytes to w.
func copyOut(w io.Writer, v store.View) error {
	if v.Size == 0 {
		return nil
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for done := int64(0); done < v.Size; {
		piece := (*buf)[:min(int64(len(*buf)), v.Size-done)]
		if _, err := v.File.ReadAt(piece, v.Off+done); err != nil {
			return err
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
		done += int64(len(piece))
	}
	return nil
}
