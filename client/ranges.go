package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
	"github.com/v6d-go/v6d/internal/zstream"
)

// Range is a part of a blob: Len bytes from Off on.
type Range struct {
	ID  ID
	Off int64
	Len int64
}

// Whole is the range of all bytes of a blob whose size is known.
func Whole(id ID, size int64) Range { return Range{ID: id, Len: size} }

// RangeOptions says how ranges travel.
type RangeOptions struct {
	Compress bool // as zstd, if the daemon offers that
	Sums     bool // compare checksums (CRC-32C); the sink has got the bytes before
}

// Sink receives the bytes of one blob or range: i is its place in the request, size
// the number of bytes in body. A sink that fails, or that leaves bytes unread,
// costs the connection.
type Sink func(i int, size int64, body *Body) error

// Body is the bytes of one blob or range on their way. After an error it has no more.
type Body struct {
	src  io.Reader
	pc   *protocol.Conn // nil when the bytes have to be looked at
	sum  io.Writer      // nil for none
	left int64
	err  error // of the connection
	lost error // of a file that did not take what had come
}

// Read implements [io.Reader].
func (b *Body) Read(p []byte) (int, error) {
	if err := cmp.Or(b.err, b.lost); err != nil {
		return 0, err
	}
	if b.left <= 0 {
		return 0, io.EOF
	}
	n, err := b.src.Read(p[:min(int64(len(p)), b.left)])
	if b.left -= int64(n); b.sum != nil {
		_, _ = b.sum.Write(p[:n]) // a hash never fails
	}
	if err != nil {
		b.err = err
	}
	return n, err
}

// ReadToFile reads the next n bytes into a file at off, and returns how many are
// there. came, unless nil, is told how many have come whenever some have, and can
// stop it. Over TCP on Linux they do not pass through this process, unless they
// are compressed or checked.
func (b *Body) ReadToFile(f *os.File, off, n int64, came func(int64) error) (int64, error) {
	if err := cmp.Or(b.err, b.lost); err != nil {
		return 0, err
	}
	if n > b.left {
		return 0, status.Errorf(status.Invalid, "%d bytes are wanted, %d are left", n, b.left)
	}
	if b.pc == nil {
		n, err := protocol.CopyToFile(f, off, n, b, came)
		if _, ok := errors.AsType[*sys.WriteError](err); ok {
			b.lost = err
		}
		return n, err
	}
	var stopped error
	n, err := b.pc.ReadToFile(f, off, n, func(k int64) error {
		if came != nil {
			stopped = came(k)
		}
		return stopped
	})
	b.left -= n
	if _, ok := errors.AsType[*sys.WriteError](err); ok {
		b.lost = err
	} else if err != nil && stopped == nil {
		b.err = err
	}
	return n, err
}

// BlobSizes returns the sizes of sealed blobs in bytes. It needs a v6d daemon.
func (c *Client) BlobSizes(ctx context.Context, ids []ID) ([]int64, error) {
	if err := c.needsV6D("asking for sizes"); err != nil {
		return nil, err
	}
	var r protocol.BlobSizesReply
	if err := call(ctx, c, protocol.BlobSizes, &protocol.IDListRequest{IDs: ids}, &r, nil); err != nil {
		return nil, err
	}
	if len(r.Sizes) != len(ids) {
		return nil, status.Errorf(status.IOError, "%d sizes came for %d blobs", len(r.Sizes), len(ids))
	}
	sizes := make([]int64, len(ids))
	for i, n := range r.Sizes {
		if n > 1<<62 {
			return nil, status.Errorf(status.IOError, "blob %s claims %d bytes", ids[i], n)
		}
		sizes[i] = int64(n)
	}
	return sizes, nil
}

// ReadRanges hands parts of blobs to sink, in order, as they arrive: nothing is
// kept in memory. A request names each blob at most once. It needs a v6d daemon.
func (c *Client) ReadRanges(ctx context.Context, ranges []Range, o RangeOptions, sink Sink) error {
	if err := c.needsV6D("reading parts of blobs"); err != nil {
		return err
	}
	q := protocol.ReadRangesRequest{Compress: o.Compress, Sums: o.Sums}
	for _, r := range ranges {
		if r.Off < 0 || r.Len < 0 {
			return status.Errorf(status.Invalid, "%d bytes of blob %s from %d on", r.Len, r.ID, r.Off)
		}
		q.IDs = append(q.IDs, r.ID)
		q.Offsets = append(q.Offsets, uint64(r.Off))
		q.Lengths = append(q.Lengths, uint64(r.Len))
	}
	var r protocol.ReadRangesReply
	f := flow{sink: sink}
	err := call(ctx, c, protocol.ReadRanges, &q, &r, func() error {
		if o.Sums && len(r.Sums) != len(ranges) {
			return fmt.Errorf("%d checksums came for %d parts of blobs", len(r.Sums), len(ranges))
		}
		src, end, err := c.payloadReader(r.Compress)
		if err != nil {
			return err
		}
		defer end.Close()
		for i, want := range ranges {
			sum := crc32.New(castagnoli)
			if o.Sums {
				f.sum = sum
			}
			if err := f.pour(src, i, want.Len); err != nil {
				return err
			}
			if o.Sums && uint64(sum.Sum32()) != r.Sums[i] {
				return fmt.Errorf("%w: %d bytes of blob %s from %d on", ErrChecksum, want.Len, want.ID, want.Off)
			}
		}
		return nil
	})
	return f.end(err)
}

// ErrChecksum means that bytes changed on their way.
var ErrChecksum = errors.New("the checksum does not fit")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// StreamBlobs hands sealed blobs to sink, in order, as they arrive over TCP:
// nothing is kept in memory. sizes, if not nil, is called first, with the size of
// each blob. It fails with NotExist if one is unknown. Any daemon will do.
func (c *Client) StreamBlobs(ctx context.Context, ids []ID, o RangeOptions, sizes func([]int64) error, sink Sink) error {
	q := protocol.GetRemoteRequest{IDs: ids, Compress: o.Compress}
	var r protocol.GetBuffersReply
	f := flow{sink: sink}
	err := call(ctx, c, protocol.GetRemote, &q, &r, func() error {
		list := make([]int64, len(r.Payloads))
		for i := range r.Payloads {
			if list[i] = r.Payloads[i].DataSize; list[i] < 0 || list[i] > 1<<62 {
				return f.fail(status.Errorf(status.IOError, "blob %s claims %d bytes", r.Payloads[i].ObjectID, list[i]))
			}
		}
		if len(list) > len(ids) {
			return f.fail(status.Errorf(status.IOError, "%d blobs came, %d were asked for", len(list), len(ids)))
		}
		for i, id := range ids {
			if i >= len(r.Payloads) || r.Payloads[i].ObjectID != id {
				// The bytes of the others are on their way: the connection ends.
				return f.fail(status.Errorf(status.ObjectNotExists, "no blob %s", id))
			}
		}
		if sizes != nil {
			if err := sizes(list); err != nil {
				return f.fail(err)
			}
		}
		src, end, err := c.payloadReader(r.Compress)
		if err != nil {
			return err
		}
		defer end.Close()
		for i, n := range list {
			if err := f.pour(src, i, n); err != nil {
				return err
			}
		}
		return nil
	})
	return f.end(err)
}

// flow is payload on its way to a sink.
type flow struct {
	sink   Sink
	sum    io.Writer // of the current range, nil for none
	failed error     // what the sink said
}

var errSink = errors.New("the payload was not wanted to its end")

// fail ends the connection because of something on this side: whatever the error
// is, the reply has not been read to its end.
func (f *flow) fail(err error) error {
	f.failed = err
	return errSink
}

// end returns what a call failed with.
func (f *flow) end(err error) error {
	if f.failed != nil {
		return f.failed
	}
	return err
}

// pour hands n bytes of a connection to the sink.
func (f *flow) pour(src io.Reader, i int, n int64) error {
	body := Body{src: src, sum: f.sum, left: n}
	if f.sum == nil {
		body.pc, _ = src.(*protocol.Conn)
	}
	if err := f.sink(i, n, &body); err != nil {
		if body.err != nil { // the peer's fault
			return body.err
		}
		return f.fail(err)
	}
	if body.lost != nil {
		return f.fail(body.lost)
	}
	if body.left > 0 {
		return fmt.Errorf("%d of %d bytes were not read", body.left, n)
	}
	if z, ok := src.(*zstream.Reader); ok && n > 0 {
		return z.EndBlob()
	}
	return nil
}

// Identity tells daemons of one host from others.
type Identity struct {
	Nonce  string // the daemon's, the same by whichever way it is asked
	Socket string // of the session, on the daemon's host
}

// Identity returns what tells daemons of one host from others. It needs a v6d
// daemon.
func (c *Client) Identity(ctx context.Context) (Identity, error) {
	if err := c.needsV6D("telling daemons from each other"); err != nil {
		return Identity{}, err
	}
	var r protocol.PeerReply
	err := call(ctx, c, protocol.Peer, &protocol.None{}, &r, nil)
	return Identity{r.Nonce, r.Socket}, err
}
