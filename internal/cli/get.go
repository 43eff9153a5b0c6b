package cli

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
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
	peers, done := d.peers(c, o.Fetch)
	defer done()
	if m != nil && !m.Global && m.InstanceID != c.Info().InstanceID && peers != nil {
		if c, err = peers(ctx, m.InstanceID); err != nil { // all of it is there
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
		return getTyped(ctx, c, s, m, o, peers)
	}
	toStdout := o.File == "" || o.File == "-"
	if toStdout && output.IsTerminal(s.Out) && !o.Force {
		return usage("binary data would be written to the terminal").WithHint("redirect it, name a file, or use --force")
	}
	data, err := bytesOf(ctx, c, id, m)
	if err != nil {
		return err
	}
	if o.Verify {
		if err := verify(m, data); err != nil {
			return err
		}
	}
	if data, err = cutRange(data, o.Range); err != nil {
		return err
	}
	// On a terminal the bar and the data would mix.
	progress := output.NewProgress(s.Err, arg, int64(len(data)), o.Progress, o.NoProgress || toStdout && output.IsTerminal(s.Out))
	defer progress.Done()
	if toStdout {
		return writeAll(ctx, s.Out, data, progress)
	}
	path := o.File
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, fileName(m, id))
	}
	return writeFile(ctx, path, data, progress)
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

// bytesOf returns the bytes of an object that put stored as bytes, or of a blob,
// whose metadata is nil.
func bytesOf(ctx context.Context, c *client.Client, id client.ID, m *client.Meta) ([]byte, error) {
	if m != nil {
		buffer := m.Member("buffer_")
		if buffer == nil || !buffer.IsBlob() {
			return nil, status.Errorf(status.MetaTreeTypeInvalid, "object %s has no blob of bytes", id)
		}
		id = buffer.ID
	}
	b, err := c.GetBlob(ctx, id)
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// errIntegrity is an error with exit code 10.
func errIntegrity(format string, args ...any) error {
	return status.Errorf(status.MetaTreeTypeInvalid, format, args...)
}

// verify compares bytes with the checksum in the metadata.
func verify(m *client.Meta, data []byte) error {
	if m == nil || m.Raw(crcField) == nil {
		return usage("there is no checksum to compare with").WithHint("objects that `v6d put` stored have one")
	}
	want, ok := m.Int(crcField)
	if got := crc32.Checksum(data, castagnoli); !ok || int64(got) != want {
		return errIntegrity("the bytes of %s are not those that were put: CRC-32C %08x, want %08x", m.ID, got, want)
	}
	return nil
}

// cutRange returns the part of b that a range such as 10-19, 10- or -10 means.
func cutRange(b []byte, text string) ([]byte, error) {
	if text == "" {
		return b, nil
	}
	first, last, ok := strings.Cut(text, "-")
	lo, err1 := strconv.Atoi(orZero(first))
	hi, err2 := strconv.Atoi(orZero(last))
	if !ok || err1 != nil || err2 != nil || first == "" && last == "" {
		return nil, usage("--range %q: want FIRST-LAST, FIRST- or -COUNT", text)
	}
	switch {
	case first == "":
		lo, hi = max(0, len(b)-hi), len(b)
	case last == "":
		hi = len(b)
	default:
		hi = min(hi+1, len(b))
	}
	if lo > len(b) || lo > hi {
		return nil, usage("--range %s lies outside of the %d bytes", text, len(b))
	}
	return b[lo:hi], nil
}

func orZero(s string) string {
	if s == "" {
		return "0"
	}
	return s
}

// writeAll writes in pieces, so that a signal is noticed.
func writeAll(ctx context.Context, w io.Writer, b []byte, progress *output.Progress) error {
	const piece = 1 << 20
	for len(b) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := w.Write(b[:min(piece, len(b))])
		if err != nil {
			return fmt.Errorf("write the data: %w", err)
		}
		progress.Add(n)
		b = b[n:]
	}
	return nil
}

// writeFile writes bytes to a file as writeFileBy does.
func writeFile(ctx context.Context, path string, b []byte, progress *output.Progress) error {
	return writeFileBy(path, func(w io.Writer) error { return writeAll(ctx, w, b, progress) })
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
