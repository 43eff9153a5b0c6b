package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/driver/codec"
	"github.com/v6d-go/v6d/internal/driver/codec/arrowipc"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
	"github.com/v6d-go/v6d/typed"
)

// cutting says how input is cut into chunks.
type cutting struct {
	size  int // bytes; of whole lines as many as fit
	lines bool
	json  bool // each line is checked
	arrow bool // a record batch is a chunk
}

// parseChunk reads --chunk: a size, lines, ndjson or arrow.
func parseChunk(text string) (cutting, error) {
	c := cutting{size: 1 << 20}
	switch text {
	case "lines":
		c.lines = true
	case "ndjson":
		c.lines, c.json = true, true
	case "arrow":
		c.arrow = true
	default:
		n, err := config.ParseSize(text)
		if err != nil || n < 1 || n > 1<<40 {
			return c, usage("--chunk %q: want a size such as 1MiB, lines, ndjson or arrow", text)
		}
		c.size = int(n)
	}
	return c, nil
}

// pump moves input into a stream.
type pump struct {
	w     *client.StreamWriter
	cut   cutting
	flush time.Duration // after which a chunk goes though it is not full; 0 for never
	in    io.Reader
	tee   io.Writer // gets what is read as well; may be nil
	line  int       // lines that were checked
}

// run moves all input. It does not end the stream.
func (p *pump) run(ctx context.Context) error {
	switch {
	case p.cut.arrow:
		return p.batches(ctx)
	case p.cut.lines:
		return p.wholeLines(ctx)
	}
	return p.pieces(ctx)
}

// errFlush means that what was read so far shall go on its way.
var errFlush = errors.New("time to flush")

// slice is how long a wait for input does not look at the context.
const slice = 50 * time.Millisecond

// read reads once. With a deadline it gives up then, with errFlush; that needs an
// input that can be polled.
func (p *pump) read(ctx context.Context, b []byte, deadline time.Time) (int, error) {
	for {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		f, ok := p.in.(*os.File)
		if !ok {
			break
		}
		wait := slice
		if !deadline.IsZero() {
			wait = min(wait, max(0, time.Until(deadline)))
		}
		ready, err := sys.Readable(f, wait)
		if err != nil {
			return 0, err
		}
		if ready {
			break
		}
		if !deadline.IsZero() && !time.Now().Before(deadline) {
			return 0, errFlush
		}
	}
	n, err := p.in.Read(b)
	if n > 0 && p.tee != nil {
		if _, err := p.tee.Write(b[:n]); err != nil {
			return n, fmt.Errorf("write the data: %w", err)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("read the input: %w", err)
	}
	return n, err
}

// due is when what is read now has to go.
func (p *pump) due() time.Time {
	if p.flush == 0 {
		return time.Time{}
	}
	return time.Now().Add(p.flush)
}

// pieces cuts at a number of bytes. Input that comes fast is read straight into
// chunks; what trickles is collected first, so that a chunk takes no more memory
// than it has bytes.
func (p *pump) pieces(ctx context.Context) error {
	// Small at first: nothing is known of the input.
	size := min(p.cut.size, 64<<10)
	if p.w.Plain() {
		size = p.cut.size
	}
	stage := make([]byte, size)
	fast := false
	for {
		b := stage
		if fast {
			var err error
			if b, err = p.w.Next(ctx, p.cut.size); err != nil {
				return err
			}
		}
		n, err := p.fillUp(ctx, b)
		switch {
		case err != nil && !errors.Is(err, errFlush) && !errors.Is(err, io.EOF):
			p.w.Shorten(n)
			p.rescue(ctx, fast, stage[:min(n, len(stage))])
			return err
		case fast && n > len(b)/2:
			p.w.Shorten(n)
		case fast: // the chunk is much too large
			stage = append(stage[:0], b[:n]...)
			p.w.Shorten(0)
			fallthrough
		default:
			if err := p.w.Put(ctx, stage[:n]); err != nil {
				return err
			}
			stage = slices.Grow(stage[:0], size)[:size]
		}
		full := n == len(b)
		fast = full && !p.w.Plain() // there a chunk cannot be given up
		if full {
			continue
		}
		if ferr := p.w.Flush(ctx); ferr != nil {
			return ferr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}

// rescue queues what was read before an error, if that can be done at once.
func (p *pump) rescue(ctx context.Context, filled bool, b []byte) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if filled {
		_ = p.w.Flush(late) // the error that led here is told
		return
	}
	_ = p.w.Put(late, b)
}

// fillUp reads until b is full, the input ends, or it is time to flush.
func (p *pump) fillUp(ctx context.Context, b []byte) (n int, err error) {
	var deadline time.Time
	for n < len(b) && err == nil {
		var got int
		got, err = p.read(ctx, b[n:], deadline)
		if n == 0 && got > 0 {
			deadline = p.due()
		}
		n += got
	}
	return n, err
}

// wholeLines cuts after lines.
func (p *pump) wholeLines(ctx context.Context) error {
	b, n := make([]byte, p.cut.size), 0
	var deadline time.Time
	for {
		if n == len(b) { // a line that is longer than a chunk
			b = append(b, make([]byte, len(b))...)
		}
		got, err := p.read(ctx, b[n:], deadline)
		n += got
		end := bytes.LastIndexByte(b[:n], '\n') + 1
		if end > 0 && deadline.IsZero() {
			deadline = p.due()
		}
		last := errors.Is(err, io.EOF)
		switch {
		case err != nil && !last && !errors.Is(err, errFlush):
			p.rescue(ctx, false, b[:end])
			return err
		case last:
			end = n
		case end < p.cut.size/2 && !errors.Is(err, errFlush):
			continue
		}
		if end > 0 {
			if good, err := p.check(b[:end]); err != nil {
				p.rescue(ctx, false, b[:good])
				return err
			}
			if err := p.w.Put(ctx, b[:end]); err != nil {
				return err
			}
			n = copy(b, b[end:n])
		}
		deadline = time.Time{}
		if last {
			return nil
		}
	}
}

// check makes sure that lines are JSON, where that is asked for, and returns how
// many bytes are.
func (p *pump) check(b []byte) (good int, err error) {
	if !p.cut.json {
		return len(b), nil
	}
	for line := range bytes.Lines(b) {
		p.line++
		if text := bytes.TrimSpace(line); len(text) > 0 && !json.Valid(text) {
			return good, status.Errorf(status.UserInputError, "line %d of the input is not JSON: %.60q", p.line, text)
		}
		good += len(line)
	}
	return good, nil
}

// input reads as the pump does, and remembers what went wrong: libraries wrap
// errors, or leave them out.
type input struct {
	ctx context.Context //nolint:containedctx // lives for one run of the pump
	p   *pump
	err error
}

func (in *input) Read(b []byte) (int, error) {
	n, err := in.p.read(in.ctx, b, time.Time{})
	if err != nil && !errors.Is(err, io.EOF) {
		in.err = err
	}
	return n, err
}

// or returns what went wrong with the input, or else that it is no Arrow data.
func (in *input) or(err error) error {
	if in.err != nil {
		return in.err
	}
	return status.Errorf(status.UserInputError, "the input is not an Arrow IPC stream: %w", err)
}

// batches makes a chunk of each record batch of an Arrow IPC stream: a whole
// stream of its own, so that any reader can begin there.
func (p *pump) batches(ctx context.Context) error {
	in := &input{ctx: ctx, p: p}
	r, err := ipc.NewReader(in)
	if err != nil {
		return in.or(err)
	}
	defer r.Release()
	var b bytes.Buffer
	for r.Next() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b.Reset()
		w := ipc.NewWriter(&b, ipc.WithSchema(r.Schema()))
		if err := errors.Join(w.Write(r.RecordBatch()), w.Close()); err != nil {
			return err
		}
		if err := p.w.Put(ctx, b.Bytes()); err != nil {
			return err
		}
	}
	if err := r.Err(); err != nil {
		return in.or(err)
	}
	return nil
}

// sink writes chunks to the standard output.
type sink interface {
	add(context.Context, client.Chunk) error
	end() error
	binary() bool
}

// newSink writes what chunks of a stream hold: bytes as they are, record batches
// as one Arrow IPC stream.
func newSink(c *client.Client, m *client.Meta, out io.Writer) (sink, error) {
	switch m.Typename {
	case client.RecordBatchStream, client.DataframeStream:
		return &batchSink{c: c, out: out}, nil
	}
	return byteSink{out}, nil
}

type byteSink struct{ out io.Writer }

func (s byteSink) add(ctx context.Context, ch client.Chunk) error {
	if !ch.ID.IsBlob() {
		return status.Errorf(status.ObjectTypeError, "chunk %d is the object %s, not bytes", ch.Number, ch.ID).
			WithHint("`v6d tree " + ch.ID.String() + "` shows what is in it")
	}
	return writeAll(&counted{ctx, s.out, nil}, ch.Bytes)
}

func (byteSink) end() error { return nil }

func (byteSink) binary() bool { return false }

// batchSink joins the record batches that chunks are.
type batchSink struct {
	c      *client.Client
	out    io.Writer
	w      *ipc.Writer
	schema *arrow.Schema
}

func (s *batchSink) add(ctx context.Context, ch client.Chunk) error {
	return batchesOf(ctx, s.c, ch, func(b arrow.RecordBatch) error {
		if s.w == nil {
			s.schema = b.Schema()
			s.w = ipc.NewWriter(s.out, ipc.WithSchema(s.schema))
		}
		if !typed.SameColumns(b.Schema(), s.schema) {
			return status.Errorf(status.ObjectTypeError, "chunk %d has another schema than those before it", ch.Number)
		}
		if err := s.w.Write(array.NewRecordBatch(s.schema, b.Columns(), b.NumRows())); err != nil {
			return fmt.Errorf("write the data: %w", err)
		}
		return nil
	})
}

// batchesOf calls f with the record batches of a chunk: a blob of an Arrow IPC
// stream, or an object that is a record batch, a table or a data frame.
func batchesOf(ctx context.Context, c *client.Client, ch client.Chunk, f func(arrow.RecordBatch) error) error {
	if ch.ID.IsBlob() {
		t, err := arrowipc.Read(ch.Bytes, memory.DefaultAllocator)
		if err != nil {
			return status.Errorf(status.ObjectTypeError, "chunk %d: %w", ch.Number, err)
		}
		return eachBatch(t, f)
	}
	m, err := c.GetObject(ctx, ch.ID)
	if err != nil {
		return err
	}
	return withValue(ctx, c, m, false, func(v any) error {
		t, err := codec.Table(v)
		if err != nil {
			return fmt.Errorf("chunk %d: %w", ch.Number, err)
		}
		if err := typed.ValidateValue(t); err != nil {
			return fmt.Errorf("chunk %d, object %s, is damaged: %w", ch.Number, ch.ID, err)
		}
		return eachBatch(t, f)
	})
}

func eachBatch(t *typed.Table, f func(arrow.RecordBatch) error) error {
	for _, b := range t.Batches {
		if err := f(b); err != nil {
			return err
		}
	}
	return nil
}

func (s *batchSink) end() error {
	if s.w == nil {
		return nil
	}
	return s.w.Close()
}

func (*batchSink) binary() bool { return true }
