package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/driver/codec"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
)

type getOptions struct {
	File       string
	Force      bool
	Range      string
	Verify     bool
	Progress   bool
	NoProgress bool
	Format     string
	Columns    []string
	Rows       int64
	NoHeader   bool
	Fetch      bool
}

func newGet(d *deps) *cobra.Command {
	var o getOptions
	c := &cobra.Command{
		Use:     "get ID|NAME [FILE|FOLDER|-]",
		Short:   "Write an object to a file or the standard output",
		GroupID: "objects",
		Long: `Write an object to a file, into a folder, or to the standard output (-, the default),
straight from shared memory. A file appears under its name only when it is complete.

What "v6d put" stored as bytes, and blobs, are written byte by byte. Tables, data
frames, tensors and other values are written in the format that the file's extension
says, or --format: Parquet, CSV, TSV, Arrow IPC, npy, npz, JSON, newline-delimited
JSON. Without either, tables are drawn on a terminal and CSV in a pipe, tensors are
npy, everything else is JSON.

What lies on other instances is got from there with --fetch: the whole object, or the
members of a global one. "v6d locate" shows what is where.`,
		Example: `  v6d get model > model.bin
  v6d get sales sales.parquet --columns day,price
  v6d get sales --format ndjson | jq .price
  v6d get global-frame all.parquet --fetch
  v6d get o0051dd9f7a2c0002 copy.bin --verify
  v6d get model --range 0-511 | xxd`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 2 {
				if o.File != "" {
					return usage("the target is given twice: %s and -O %s", args[1], o.File)
				}
				o.File = args[1]
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				return d.runGet(ctx, c, args[0], o)
			})
		},
	}
	f := c.Flags()
	f.StringVarP(&o.File, "output-file", "O", "", "write to this file or folder")
	f.BoolVar(&o.Force, "force", false, "write binary data to a terminal")
	f.StringVar(&o.Range, "range", "", "only these bytes: FIRST-LAST, FIRST- or -COUNT for the end")
	f.BoolVar(&o.Verify, "verify", false, "compare with the checksum that put stored first; exit code 10 if it differs")
	f.StringVar(&o.Format, "format", "", "write it as: "+strings.Join(codec.Names(), ", "))
	f.StringSliceVar(&o.Columns, "columns", nil, "only these columns of a table, in this order")
	f.Int64Var(&o.Rows, "rows", 40, "draw at most so many rows on a terminal")
	f.BoolVar(&o.NoHeader, "no-header", false, "write CSV without the line of names")
	f.BoolVar(&o.Fetch, "fetch", false, "get what lies on other instances from there")
	f.BoolVar(&o.Progress, "progress", false, "show progress on stderr even where that is no terminal")
	f.BoolVar(&o.NoProgress, "no-progress", false, "never show progress")
	return c
}

func (d *deps) runGet(ctx context.Context, c *client.Client, arg string, o getOptions) error {
	s := d.streams
	id, err := resolve(ctx, c, arg)
	if err != nil {
		return err
	}
	var m *client.Meta
	if !id.IsBlob() {
		if m, err = c.GetObject(ctx, id); err != nil {
			return err
		}
	}
	if !o.isRaw(m) {
		if o.Range != "" || o.Verify {
			return usage("--range and --verify write bytes, --format and --columns values: %s is a %s", id, typenameOf(m))
		}
		if m == nil {
			m = client.BlobMember(id)
			m.InstanceID = c.Info().InstanceID
		}
		return getTyped(ctx, c, s, m, o)
	}
	toStdout := o.File == "" || o.File == "-"
	if toStdout && output.IsTerminal(s.Out) && !o.Force {
		return usage("binary data would be written to the terminal").WithHint("redirect it, name a file, or use --force")
	}
	data, err := contentOf(ctx, c, id, m, o.Fetch)
	if err != nil {
		return err
	}
	defer data.close()
	first, last, err := cutRange(data.size, o.Range)
	if err != nil {
		return err
	}
	whole := first == 0 && last == data.size
	if o.Verify && (data.mapped || !whole) {
		if err := data.verify(m, 0, data.size, io.Discard); err != nil {
			return err
		}
	}
	// On a terminal the bar and the data would mix.
	progress := output.NewProgress(s.Err, arg, last-first, o.Progress, o.NoProgress || toStdout && output.IsTerminal(s.Out))
	defer progress.Done()
	write := func(w io.Writer) error {
		w = &counted{ctx, w, progress}
		if o.Verify && !data.mapped && whole {
			return data.verify(m, first, last, w)
		}
		return data.copy(w, first, last)
	}
	if toStdout {
		return write(s.Out)
	}
	path := o.File
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, fileName(m, id))
	}
	return writeFileBy(path, write)
}

func typenameOf(m *client.Meta) string {
	if m == nil {
		return client.BlobType
	}
	return m.Typename
}

// fileName is the name under which an object's bytes go into a folder: that of
// the file that was put, or the id.
func fileName(m *client.Meta, id client.ID) string {
	if m != nil {
		if name, ok := m.Text(fileNameField); ok && name != "" {
			if base := filepath.Base(filepath.Clean("/" + name)); base != "/" {
				return base
			}
		}
	}
	return id.String()
}

// errIntegrity is an error with exit code 10.
func errIntegrity(format string, args ...any) error {
	return status.Errorf(status.MetaTreeTypeInvalid, format, args...)
}

// cutRange returns which of size bytes a range such as 10-19, 10- or -10 means:
// those from first on, before last.
func cutRange(size int64, text string) (first, last int64, err error) {
	if text == "" {
		return 0, size, nil
	}
	from, to, ok := strings.Cut(text, "-")
	lo, err1 := strconv.ParseInt(orZero(from), 10, 64)
	hi, err2 := strconv.ParseInt(orZero(to), 10, 64)
	if !ok || err1 != nil || err2 != nil || from == "" && to == "" {
		return 0, 0, usage("--range %q: want FIRST-LAST, FIRST- or -COUNT", text)
	}
	switch {
	case from == "":
		lo, hi = max(0, size-hi), size
	case to == "":
		hi = size
	default:
		hi = min(hi, size-1) + 1
	}
	if lo > size || lo > hi {
		return 0, 0, usage("--range %s lies outside of the %d bytes", text, size)
	}
	return lo, hi, nil
}

func orZero(s string) string {
	if s == "" {
		return "0"
	}
	return s
}

// writeFileBy writes a file that appears only when it is complete. Devices and
// pipes are written directly.
func writeFileBy(path string, write func(io.Writer) error) (err error) {
	if st, serr := os.Stat(path); serr == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".v6d-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err = errors.Join(write(f), f.Chmod(0o666&^umask()), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
