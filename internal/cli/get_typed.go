package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/driver/codec"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

// isRaw reports whether an object is written byte by byte: blobs, and what put
// stored as bytes, unless a format is asked for.
func (o *getOptions) isRaw(m *client.Meta) bool {
	return o.Format == "" && len(o.Columns) == 0 && (m == nil || m.Typename == bytesType && m.Raw(fileNameField) != nil)
}

// target finds out the format that an object is written in: --format, the
// extension of the file, or what suits the value.
func (o *getOptions) target(v any) (codec.Format, error) {
	name := o.Format
	if name == "" && o.File != "" && o.File != "-" {
		if f, ok := codec.ByExtension(o.File); ok {
			return f, nil
		}
		if ext := filepath.Ext(o.File); ext != "" && ext != "."+filepath.Base(o.File) && o.isFile() {
			return codec.Format{}, usage("nothing says in which format %s is to be written", o.File).
				WithHint("--format does: " + strings.Join(codec.Names(), ", "))
		}
	}
	if name == "" {
		name = defaultFormat(v)
	}
	f, ok := codec.ByName(name)
	if !ok {
		return f, usage("--format %q: want one of %s", name, strings.Join(codec.Names(), ", "))
	}
	return f, nil
}

// isFile reports whether the target is a file, or will be one.
func (o *getOptions) isFile() bool {
	st, err := os.Stat(o.File)
	return err != nil || st.Mode().IsRegular()
}

func defaultFormat(v any) string {
	switch x := v.(type) {
	case *typed.Table, arrow.RecordBatch, *typed.DataFrame, *typed.Series:
		return "csv"
	case *typed.Global:
		if x.Typename == "vineyard::GlobalDataFrame" {
			return "csv"
		}
	case *typed.Tensor:
		return "npy"
	}
	return "json"
}

// getTyped writes the value of an object.
func getTyped(ctx context.Context, c *client.Client, s output.Streams, m *client.Meta, o getOptions) error {
	return withValue(ctx, c, m, o.Fetch, func(v any) error {
		v, err := selected(v, o.Columns)
		if err != nil {
			return err
		}
		if err := typed.ValidateValue(v); err != nil {
			return fmt.Errorf("object %s is damaged: %w", m.ID, err)
		}
		toStdout := o.File == "" || o.File == "-"
		if toStdout && o.Format == "" && output.IsTerminal(s.Out) {
			if t, err := codec.Table(v); err == nil {
				return writeBox(s, t.Slice(0, o.Rows), t.Rows(), false)
			}
			if _, ok := v.(*typed.Tensor); ok {
				return usage("an array would be written to the terminal as npy").WithHint("--format csv or json writes text; or name a file")
			}
		}
		f, err := o.target(v)
		if err != nil {
			return err
		}
		if toStdout && output.IsTerminal(s.Out) && !o.Force && f.Binary() {
			return usage("binary data would be written to the terminal").WithHint("redirect it, name a file, or use --force")
		}
		encode := func(w io.Writer) error {
			b := bufio.NewWriterSize(&stoppable{ctx, w}, 1<<20)
			if err := f.Encode(b, v, codec.WriteOptions{NoHeader: o.NoHeader}); err != nil {
				return fmt.Errorf("write %s as %s: %w", m.ID, f.Name, err)
			}
			return b.Flush()
		}
		if toStdout {
			return encode(s.Out)
		}
		path := o.File
		if st, err := os.Stat(path); err == nil && st.IsDir() {
			path = filepath.Join(path, m.ID.String()+f.Extensions[0])
		}
		return writeFileBy(path, encode)
	})
}

// stoppable is a writer that a signal ends.
type stoppable struct {
	ctx context.Context //nolint:containedctx // lives for one command
	w   io.Writer
}

func (w *stoppable) Write(b []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.w.Write(b)
	if err != nil {
		err = fmt.Errorf("write the data: %w", err)
	}
	return n, err
}

// withValue calls f with the value of an object, of which arrays are not
// checked yet: the object may be anybody's. With fetch it may lie anywhere.
func withValue(ctx context.Context, c *client.Client, m *client.Meta, fetch bool, f func(v any) error) error {
	var options []client.GetOption
	if fetch {
		options = append(options, client.Fetch)
	}
	o, err := typed.Load(ctx, c, nil, m, options...)
	if err != nil {
		return err
	}
	err = codec.Faults(func() error {
		switch x := o.Value.(type) {
		case *typed.Absent:
			return status.Errorf(status.ObjectNotExists, "object %s lies on instance %d, not here", x.ID, x.Instance).
				WithHint("--fetch gets it from there")
		case *typed.Opaque:
			return status.Errorf(status.NotImplemented, "object %s is a %s, which has no value that v6d can write", m.ID, m.Typename).
				WithHint("`v6d tree " + m.ID.String() + "` shows its blobs, which can be got one by one")
		}
		return f(o.Value)
	})
	return errors.Join(err, o.Release(context.WithoutCancel(ctx)))
}

// selected picks columns of a table or a data frame.
func selected(v any, columns []string) (any, error) {
	if len(columns) == 0 {
		return v, nil
	}
	if f, ok := v.(*typed.DataFrame); ok {
		return f.Select(columns)
	}
	t, err := codec.Table(v)
	if err != nil {
		return nil, err
	}
	return t.Select(columns)
}
