package cli

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
)

// content is the bytes of one blob: mapped memory, or what comes over TCP when it
// is copied, so that a blob of any size needs no memory here.
type content struct {
	size   int64
	mapped bool
	copy   func(w io.Writer, first, last int64) error // of the bytes from first on, before last
	close  func()
}

// contentOf returns the bytes of an object that put stored as bytes, or of a blob,
// whose metadata is nil; with fetch wherever they lie.
func contentOf(ctx context.Context, c *client.Client, id client.ID, m *client.Meta, fetch bool) (*content, error) {
	here := c.Info().InstanceID
	at := here
	if m != nil {
		buffer := m.Member("buffer_")
		if buffer == nil || !buffer.IsBlob() {
			return nil, status.Errorf(status.MetaTreeTypeInvalid, "object %s has no blob of bytes", id)
		}
		id, at = buffer.ID, buffer.InstanceID
		if at != here && !fetch {
			return nil, status.Errorf(status.ObjectNotExists, "object %s lies on instance %d, not here", m.ID, at).
				WithHint("--fetch gets it from there; `v6d migrate` brings it here")
		}
	}
	done := func() {}
	if c.Info().Local {
		if at == here || c.Info().Extended {
			return mappedContent(ctx, c, id, at)
		}
	}
	if at != here {
		peer, err := c.DialInstance(ctx, at)
		if err != nil {
			return nil, err
		}
		c, done = peer, func() { _ = peer.Close() }
	}
	data, err := remoteContent(ctx, c, id)
	if err != nil {
		done()
		return nil, err
	}
	data.close = done
	return data, nil
}

func mappedContent(ctx context.Context, c *client.Client, id client.ID, at client.InstanceID) (*content, error) {
	get := c.GetBlobs
	if at != c.Info().InstanceID {
		get = func(ctx context.Context, ids []client.ID) ([]*client.Blob, error) { return c.FetchBlobs(ctx, at, ids) }
	}
	blobs, err := get(ctx, []client.ID{id})
	if err != nil {
		return nil, err
	}
	b := blobs[0].Bytes()
	return &content{
		size: int64(len(b)), mapped: true,
		copy:  func(w io.Writer, first, last int64) error { return writeAll(w, b[first:last]) },
		close: func() { _ = blobs[0].Release(context.WithoutCancel(ctx)) }, // the connection ends soon anyway
	}, nil
}

// remoteContent streams a blob of the daemon that c is connected to.
func remoteContent(ctx context.Context, c *client.Client, id client.ID) (*content, error) {
	if c.Info().Extended {
		sizes, err := c.BlobSizes(ctx, []client.ID{id})
		if err != nil {
			return nil, err
		}
		return &content{size: sizes[0], copy: func(w io.Writer, first, last int64) error {
			return c.ReadRanges(ctx, []client.Range{{ID: id, Off: first, Len: last - first}}, client.RangeOptions{},
				func(_ int, _ int64, body *client.Body) error { return pour(w, body) })
		}}, nil
	}
	b, err := c.GetBlob(ctx, id) // a daemon of the reference tells the size with the bytes only
	if err != nil {
		return nil, err
	}
	return &content{
		size: int64(len(b.Bytes())),
		copy: func(w io.Writer, first, last int64) error { return writeAll(w, b.Bytes()[first:last]) },
	}, nil
}

// pour copies in large pieces.
func pour(w io.Writer, r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 1<<20))
	return err
}

// writeAll writes in pieces, so that a signal is noticed.
func writeAll(w io.Writer, b []byte) error {
	const piece = 1 << 20
	for len(b) > 0 {
		n, err := w.Write(b[:min(piece, len(b))])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// verify copies all bytes and compares their checksum with that in the metadata.
func (c *content) verify(m *client.Meta, first, last int64, w io.Writer) error {
	if m == nil || m.Raw(crcField) == nil {
		return usage("there is no checksum to compare with").WithHint("objects that `v6d put` stored have one")
	}
	want, ok := m.Int(crcField)
	sum := crc32.New(castagnoli)
	if err := c.copy(io.MultiWriter(sum, w), first, last); err != nil {
		return err
	}
	if got := sum.Sum32(); !ok || int64(got) != want {
		return errIntegrity("the bytes of %s are not those that were put: CRC-32C %08x, want %08x", m.ID, got, want)
	}
	return nil
}

// counted is a writer that a signal ends and that shows its progress.
type counted struct {
	ctx      context.Context //nolint:containedctx // lives for one command
	w        io.Writer
	progress *output.Progress
}

func (w *counted) Write(b []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.w.Write(b)
	w.progress.Add(n)
	if err != nil {
		err = fmt.Errorf("write the data: %w", err)
	}
	return n, err
}
