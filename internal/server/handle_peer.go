package server

import (
	"bufio"
	"context"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
	"github.com/v6d-go/v6d/internal/sys"
)

// What other daemons, and remote clients, ask of this one's blobs.

func init() {
	handle(protocol.Peer, peer)
	handle(protocol.BlobSizes, blobSizes)
	handleRaw(protocol.ReadRanges, readRanges)
}

// peer says by which socket this session can be reached on this host, and how to
// tell that it is this one.
func peer(_ context.Context, c *conn, _ *protocol.None, r *protocol.PeerReply) error {
	r.Nonce, r.Socket = c.srv.mover.Nonce(), c.ss.socket
	return nil
}

func blobSizes(_ context.Context, c *conn, q *protocol.IDListRequest, r *protocol.BlobSizesReply) error {
	if err := checkCount(len(q.IDs)); err != nil {
		return err
	}
	r.Sizes = make([]uint64, len(q.IDs))
	for i, id := range q.IDs {
		if id == object.EmptyBlob {
			continue
		}
		size, ok := c.ss.blobs.Sealed(id)
		if !ok || id == object.InvalidID { // the whole pool, for 0.24 clients
			return status.Errorf(status.ObjectNotExists, "no blob %s", id)
		}
		r.Sizes[i] = uint64(size)
	}
	return nil
}

// gatherBelow is the size of ranges that are collected in a buffer: a system call
// and a packet for each would take longer than the copy.
const gatherBelow = 64 << 10

// castagnoli is the polynomial of the checksums of ranges; processors have an
// instruction for it.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readRanges sends parts of blobs after the reply. As with getRemote, what leaves
// uncompressed is the pool's own pages, held until the peer's next request.
func readRanges(_ context.Context, c *conn, q *protocol.ReadRangesRequest) error {
	views, err := c.ranges(q)
	if err != nil {
		return err
	}
	r := protocol.ReadRangesReply{Compress: q.Compress && c.srv.cfg.Compression, Sums: []uint64{}}
	if q.Sums {
		for _, v := range views {
			h := crc32.New(castagnoli)
			if err := copyOut(h, v); err != nil {
				return status.Errorf(status.IOError, "read blob %s: %w", v.ID, err)
			}
			r.Sums = append(r.Sums, uint64(h.Sum32()))
		}
	}
	copied := c.pc.Buffered() > 0 || c.pc.Raw() == nil // as in getRemote
	if send(c, protocol.ReadRanges, &r); c.failed != nil {
		return nil
	}
	if r.Compress {
		err = c.sendCompressed(views)
	} else {
		err = c.sendRanges(views, copied)
	}
	if err != nil {
		c.fail(fmt.Errorf("send parts of blobs: %w", err))
		return nil
	}
	for _, v := range views {
		c.srv.mover.Sent(v.Size)
	}
	return nil
}

// ranges holds the blobs of a request and returns views of the parts.
func (c *conn) ranges(q *protocol.ReadRangesRequest) ([]store.View, error) {
	if err := checkCount(len(q.IDs)); err != nil {
		return nil, err
	}
	if len(q.Offsets) != len(q.IDs) || len(q.Lengths) != len(q.IDs) {
		return nil, status.Errorf(status.Invalid, "%d ids, %d offsets and %d lengths", len(q.IDs), len(q.Offsets), len(q.Lengths))
	}
	views, err := c.ss.blobs.Hold(c.holder, q.IDs, false)
	if err != nil {
		return nil, err
	}
	for i, id := range q.IDs {
		if i >= len(views) || views[i].ID != id {
			return nil, status.Errorf(status.ObjectNotExists, "no blob %s", id)
		}
		v := &views[i]
		if size := uint64(v.Size); q.Offsets[i] > size || q.Lengths[i] > size-q.Offsets[i] {
			return nil, status.Errorf(status.Invalid, "%d bytes from %d on do not lie in blob %s of %d", q.Lengths[i], q.Offsets[i], id, v.Size)
		}
		if v.File != nil {
			if err := v.File.CheckSize(); err != nil {
				return nil, err
			}
		}
		v.Off += int64(q.Offsets[i])
		v.Size = int64(q.Lengths[i])
	}
	return views, nil
}

func (c *conn) sendRanges(views []store.View, copied bool) error {
	w := bufio.NewWriterSize(c.pc.Conn, copyBuffer)
	for _, v := range views {
		if v.Size < gatherBelow || copied {
			if err := copySmall(w, v); err != nil {
				return err
			}
			continue
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if err := sys.SendFile(c.pc.Raw(), v.File.File, v.Off, v.Size); err != nil {
			return err
		}
	}
	return w.Flush()
}

// copySmall is copyOut into a buffer, without another one between.
func copySmall(w *bufio.Writer, v store.View) error {
	for v.Size > 0 {
		if w.Available() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		b := w.AvailableBuffer()
		b = b[:min(int64(cap(b)), v.Size)]
		n, err := v.File.ReadAt(b, v.Off)
		if n < len(b) {
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		v.Off += int64(n)
		v.Size -= int64(n)
	}
	return nil
}
