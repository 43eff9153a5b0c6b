package cli

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/driver/codec"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
)

type putOptions struct {
	Name       string
	Labels     []string
	Replace    bool
	IfAbsent   bool
	DryRun     bool
	Progress   bool
	NoProgress bool

	typeOptions
	labels map[string]string
}

func newPut(d *deps) *cobra.Command {
	var o putOptions
	c := &cobra.Command{
		Use:     "put FILE|-...",
		Short:   "Store files or the standard input, and print their ids",
		GroupID: "objects",
		Long: `Store files, or the standard input (-), as objects and print their ids, one a line.

What a file is its name says, or its first bytes, or --format: CSV, TSV, Parquet,
Arrow IPC (Feather) and newline-delimited JSON become tables, .npy a tensor, .npz a
sequence of tensors, .json a scalar, a sequence or a dictionary; gzip and Zstandard
are unpacked. Everything else, and everything with --type bytes, is stored byte by
byte, straight into shared memory. In Python, client.get(id) is a pyarrow.Table, a
pandas.DataFrame (with --type dataframe), a numpy array or a tuple, without a copy;
of bytes, bytes(client.get(id)) are the file's.

The columns of CSV get the narrowest type that a sample fits; what does not fit
further on is an error that names row and column, and --schema COLUMN=TYPE decides.
An empty field is null, "" is an empty string; where no text is meant, NULL, NA, NaN and
None are null as well. With --dtype raw numbers become a
tensor. A put that fails leaves nothing behind.

With --name the object is made persistent and gets that name. A name that exists is
an error unless --replace (the name then points at the new object; the old one stays)
or --if-absent (nothing is stored, the old object's id is printed).`,
		Example: `  v6d put sales.csv --name sales --type dataframe
  v6d put model.bin --label stage=prod
  tar c src | v6d put -
  curl -s https://example.com/rows | v6d put - --format ndjson
  v6d put weights.raw --dtype f32 --shape 512x512`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			if err := o.validate(args); err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				return each(args, func(source string) error {
					res, err := runPut(ctx, c, d.streams, source, o)
					if err != nil {
						return fmt.Errorf("put %s: %w", source, err)
					}
					return p.Item(res.ID.String(), res, func(w io.Writer) error {
						if o.DryRun {
							_, err := fmt.Fprintf(w, "%s would take %s\n", source, strings.TrimSuffix(config.FormatSize(res.Bytes)+" as "+res.Shape, " as "))
							return err
						}
						_, err := fmt.Fprintln(w, res.ID)
						return err
					})
				})
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.Name, "name", "", "make the object persistent under this name")
	f.StringArrayVarP(&o.Labels, "label", "l", nil, "give the object a label, KEY=VALUE; may be repeated")
	o.flags(f)
	f.BoolVar(&o.Replace, "replace", false, "point the name at the new object if it exists")
	f.BoolVar(&o.IfAbsent, "if-absent", false, "store nothing if the name exists, and print its object's id")
	f.BoolVarP(&o.DryRun, "dry-run", "n", false, "say how much memory it would take, and store nothing")
	f.BoolVar(&o.Progress, "progress", false, "show progress on stderr even where that is no terminal")
	f.BoolVar(&o.NoProgress, "no-progress", false, "never show progress")
	return c
}

func (o *putOptions) validate(sources []string) (err error) {
	switch {
	case o.Name != "" && len(sources) > 1:
		return usage("--name names one object, %d are put", len(sources))
	case (o.Replace || o.IfAbsent) && o.Name == "":
		return usage("--replace and --if-absent need --name")
	case o.Replace && o.IfAbsent:
		return usage("--replace and --if-absent exclude each other")
	}
	if err := o.typeOptions.validate(); err != nil {
		return err
	}
	stdin := 0
	for _, s := range sources {
		if s == "-" {
			stdin++
		}
	}
	if stdin > 1 {
		return usage("the standard input can be put once")
	}
	o.labels, err = parseLabels(o.Labels)
	return err
}

// putResult is what put prints as JSON.
type putResult struct {
	Source string    `json:"source"`
	ID     client.ID `json:"id"`
	Bytes  int64     `json:"bytes"`
	Format string    `json:"format,omitempty"` // what it was decoded as; none: it is bytes
	Shape  string    `json:"shape,omitempty"`
	Name   string    `json:"name,omitempty"`
	Stored bool      `json:"stored"` // false with --dry-run, and with --if-absent where the name existed
}

func runPut(ctx context.Context, c *client.Client, s output.Streams, source string, o putOptions) (putResult, error) {
	res := putResult{Source: source, Name: o.Name}
	if old, err := o.taken(ctx, c); err != nil || old != 0 {
		res.ID = old
		return res, err
	}
	in, hint, name, err := openSource(s, source)
	if err != nil {
		return res, err
	}
	defer in.Close()
	format, isTyped, err := o.format(in, source)
	if err != nil {
		return res, err
	}
	if isTyped {
		return o.put(ctx, c, s, res, in, format, hint)
	}
	if o.DryRun {
		return o.dryRun(ctx, c, res, in, hint)
	}
	progress := output.NewProgress(s.Err, source, hint, o.Progress, o.NoProgress || source == "-" && output.IsTerminal(s.In))
	data, err := fill(ctx, c, in, hint, progress)
	progress.Done()
	if err != nil {
		return res, err
	}
	res.Bytes = data.size
	if o.DType != "" {
		res.ID, err = rawTensor(ctx, c, &data, &o.typeOptions)
	} else {
		res.ID, err = fileObject(ctx, c, &data, name)
	}
	if err != nil {
		return res, errors.Join(err, c.DropBlob(context.WithoutCancel(ctx), data.id))
	}
	if err := o.finish(ctx, c, res.ID); err != nil {
		return res, errors.Join(err, c.Delete(context.WithoutCancel(ctx), []client.ID{res.ID}, client.DeleteOptions{}))
	}
	res.Stored = true
	return res, nil
}

// put stores what a file of a known format holds.
func (o *putOptions) put(ctx context.Context, c *client.Client, s output.Streams, res putResult, in io.Reader, format codec.Format, hint int64) (putResult, error) {
	progress := output.NewProgress(s.Err, res.Source, hint, o.Progress, o.NoProgress || res.Source == "-" && output.IsTerminal(s.In))
	res.Format = format.Name
	res, err := putTyped(ctx, c, s, in, format, *o, res, progress)
	progress.Done()
	if err != nil {
		return res, err
	}
	if o.DryRun {
		return fits(ctx, c, res)
	}
	if err := o.finish(ctx, c, res.ID); err != nil {
		return res, errors.Join(err, c.Delete(context.WithoutCancel(ctx), []client.ID{res.ID}, client.DeleteOptions{}))
	}
	res.Stored = true
	return res, nil
}

// taken returns the object of a name that exists, where that ends the put.
func (o *putOptions) taken(ctx context.Context, c *client.Client) (client.ID, error) {
	if o.Name == "" || o.Replace {
		return 0, nil
	}
	old, err := c.GetName(ctx, o.Name, false)
	switch {
	case isNotFound(err):
		return 0, nil
	case err != nil:
		return 0, err
	case !o.IfAbsent:
		return 0, taken(o.Name, old)
	}
	return old, nil
}

// finish labels and names a new object.
func (o *putOptions) finish(ctx context.Context, c *client.Client, id client.ID) error {
	if len(o.labels) > 0 {
		if err := c.Label(ctx, id, o.labels); err != nil {
			return err
		}
	}
	if o.Name == "" {
		return nil
	}
	if err := c.Persist(ctx, id); err != nil {
		return err
	}
	if !o.Replace && c.Info().Extended {
		// Two puts of one name may have seen that it is free: one of them looks first.
		unlock, err := c.Lock(ctx, "v6d/name/"+o.Name)
		if err != nil {
			return err
		}
		defer unlock(context.WithoutCancel(ctx)) //nolint:errcheck // it ends with the connection
		if old, err := c.GetName(ctx, o.Name, false); err == nil {
			return taken(o.Name, old)
		} else if !isNotFound(err) {
			return err
		}
	}
	return c.PutName(ctx, id, o.Name)
}

func taken(name string, old client.ID) error {
	return status.Errorf(status.ObjectExists, "name %q points at %s already", name, old).
		WithHint("--replace points it at the new object, --if-absent keeps the old one")
}

// dryRun tells how much memory a put would take, and fails if there is less.
func (o *putOptions) dryRun(ctx context.Context, c *client.Client, res putResult, in io.Reader, hint int64) (putResult, error) {
	if hint < 0 {
		n, err := io.Copy(io.Discard, in)
		if err != nil {
			return res, err
		}
		hint = n
	}
	res.Bytes = hint
	return fits(ctx, c, res)
}

// openSource opens a file or the standard input; hint is its size, -1 if that
// is not known.
func openSource(s output.Streams, source string) (in io.ReadCloser, hint int64, name string, err error) {
	if source == "-" {
		if output.IsTerminal(s.In) {
			fmt.Fprintln(s.Err, "reading from the terminal; end with Ctrl-D")
		}
		return io.NopCloser(s.In), -1, "", nil
	}
	f, err := os.Open(source)
	if err != nil {
		return nil, 0, "", err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, 0, "", errors.Join(err, f.Close())
	}
	switch {
	case st.IsDir():
		return nil, 0, "", errors.Join(usage("it is a folder"), f.Close())
	case st.Mode().IsRegular():
		return f, st.Size(), filepath.Base(source), nil
	}
	return f, -1, filepath.Base(source), nil
}

// stored is a sealed blob and what was learnt while it was filled.
type stored struct {
	id   client.ID
	size int64
	crc  uint32 // CRC-32C of the bytes
	head []byte // a copy of the first bytes
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// firstGuess is the size of the first blob for input of unknown length, in
// bytes; it doubles while more comes.
const firstGuess = 1 << 20

// fill reads all of in into a sealed blob, straight into the pool.
func fill(ctx context.Context, c *client.Client, in io.Reader, hint int64, progress *output.Progress) (data stored, err error) {
	size := int(hint)
	if hint < 0 {
		size = firstGuess
	}
	b, err := c.CreateBlob(ctx, size)
	if err != nil {
		return data, err
	}
	// The blob is given up even when ctx has ended.
	defer func() {
		if err != nil {
			_ = b.Abort(context.WithoutCancel(ctx)) // the first error counts
		}
	}()
	src := source{ctx: ctx, in: in, progress: progress}
	filled := 0
	for {
		var got int
		got, err = src.into(b.Bytes()[filled:])
		filled += got
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return data, err
		}
		// The memory is full: is there more?
		var one [1]byte
		if got, err = src.into(one[:]); got == 0 {
			if err != nil && !errors.Is(err, io.EOF) {
				return data, err
			}
			break
		}
		if b, err = grow(ctx, c, b, filled, max(2*filled, firstGuess)); err != nil {
			return data, err
		}
		b.Bytes()[filled] = one[0]
		filled++
	}
	data.size, data.crc = int64(filled), src.crc
	if filled == 0 {
		data.id = client.EmptyBlob
		return data, b.Abort(ctx)
	}
	if waste := len(b.Bytes()) - filled; waste > filled/8 && waste > 4096 {
		if b, err = grow(ctx, c, b, filled, filled); err != nil {
			return data, err
		}
	}
	if err = b.Shrink(ctx, filled); err != nil {
		return data, err
	}
	data.head = append(data.head, b.Bytes()[:min(filled, 512)]...)
	data.id, err = b.Seal(ctx)
	return data, err
}

// source reads input in pieces, so that a signal is noticed, and sums it up
// while it is in the cache.
type source struct {
	ctx      context.Context //nolint:containedctx // lives for one fill
	in       io.Reader
	progress *output.Progress
	crc      uint32
}

// into fills b as far as input comes.
func (s *source) into(b []byte) (n int, err error) {
	const piece = 256 << 10
	for n < len(b) && err == nil {
		if s.ctx.Err() != nil {
			return n, context.Cause(s.ctx)
		}
		var got int
		got, err = s.in.Read(b[n:min(n+piece, len(b))])
		s.crc = crc32.Update(s.crc, castagnoli, b[n:n+got])
		s.progress.Add(got)
		n += got
	}
	return n, err
}

// grow moves what was read into a blob of another size. Where the pool is too
// full for twice the size it tries a smaller step.
func grow(ctx context.Context, c *client.Client, old *client.Builder, filled, size int) (*client.Builder, error) {
	b, err := c.CreateBlob(ctx, size)
	if errors.Is(err, client.NoMemory) && size > filled+filled/8+4096 {
		b, err = c.CreateBlob(ctx, filled+filled/8+4096)
	}
	if err != nil {
		return old, err
	}
	copy(b.Bytes(), old.Bytes()[:filled])
	return b, old.Abort(ctx)
}

func contentType(name string, head []byte) string {
	if t := mime.TypeByExtension(filepath.Ext(name)); t != "" {
		return t
	}
	return http.DetectContentType(head)
}

const (
	// bytesType is the type under which raw bytes are stored: Python shows an
	// array of uint8.
	bytesType = "vineyard::Tensor<uint8>"
	// crcField holds the CRC-32C of the bytes, for `v6d get --verify`.
	crcField = "crc32c_"
	// fileNameField holds the name of the file that was put.
	fileNameField = "file_name_"
)

// fileObject makes the object that raw bytes are stored as.
func fileObject(ctx context.Context, c *client.Client, data *stored, name string) (client.ID, error) {
	m := client.NewMeta(bytesType).
		Set("shape_", []int64{data.size}).
		Set("partition_index_", []int64{}).
		Set("value_type_", "uint8").
		Set("value_type_meta_", "|u1").
		Set("order_", `"C"`).
		Set("nbytes", data.size).
		Set(fileNameField, name).
		Set("content_type_", contentType(name, data.head)).
		Set(crcField, data.crc).
		Add("buffer_", client.BlobMember(data.id))
	return c.CreateObject(ctx, m)
}
