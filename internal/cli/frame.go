package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/driver/codec"
	"github.com/v6d-go/v6d/typed"
)

// frameOptions are the flags of the commands that make tables of tables.
type frameOptions struct {
	Name    string
	Replace bool
	Axis    string
}

// frameResult is what they print as JSON.
type frameResult struct {
	ID     client.ID `json:"id"`
	Shape  string    `json:"shape"`
	Grown  int64     `json:"grown"`  // bytes by which the pool grew
	Shared bool      `json:"shared"` // no column was copied
	Name   string    `json:"name,omitempty"`
}

func (o *frameOptions) flags(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&o.Name, "name", "", "make the object persistent under this name")
	c.Flags().BoolVar(&o.Replace, "replace", false, "point the name at the new object if it exists")
	return c
}

func newDfSelect(d *deps) *cobra.Command {
	var o frameOptions
	return o.flags(&cobra.Command{
		Use:   "select ID|NAME COLUMN...",
		Short: "Make a table of some columns of another, which they share",
		Long: `Make a table, or a data frame, of some columns of another, in the order given. Only
metadata is made: the columns are shared, and stay when the other is deleted. The id is
printed, and on stderr by how much the pool grew.`,
		Example: `  v6d df select sales day price --name prices
  v6d df select o0051dd9f7a2c0002 price -o json`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return d.frame(c.Context(), args[:1], o, func(_ context.Context, _ *frameMaker, sources []*client.Meta) (*client.Meta, error) {
				return typed.SelectColumns(sources[0], args[1:])
			})
		},
	})
}

func newDfAddColumn(d *deps) *cobra.Command {
	var o frameOptions
	return o.flags(&cobra.Command{
		Use:   "add-column ID|NAME COLUMN ID|NAME",
		Short: "Make a table with one more column, sharing the others",
		Long: `Make a table, or a data frame, of all columns of another and one more: an Arrow array, a
tensor, a series, or a table of one column, with as many rows. The columns of the other
are shared, and so is the new one where it lies in the same pieces; otherwise it is
copied. The id is printed, and on stderr by how much the pool grew.`,
		Example: `  v6d df add-column sales tax o0051dd9f7a2c0002 --name taxed
  v6d df add-column sales tax $(v6d put tax.npy)`,
		Args: cobra.ExactArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			return d.frame(c.Context(), []string{args[0], args[2]}, o, func(ctx context.Context, k *frameMaker, sources []*client.Meta) (*client.Meta, error) {
				return k.addColumn(ctx, sources[0], args[1], sources[1])
			})
		},
	})
}

func newDfConcat(d *deps) *cobra.Command {
	var o frameOptions
	c := o.flags(&cobra.Command{
		Use:   "concat ID|NAME ID|NAME...",
		Short: "Make a table of several, which they share",
		Long: `Make a table of the rows of several, which have the same columns, or with --axis columns
of the columns of several, which have the same rows. Only metadata is made: record
batches, or columns, are shared. The rows of data frames are the exception: a data frame
has its columns in one piece, so that they are copied. The id is printed, and on stderr
by how much the pool grew.`,
		Example: `  v6d df concat january february --name q1
  v6d df concat sales taxes --axis columns`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.frame(c.Context(), args, o, func(ctx context.Context, k *frameMaker, sources []*client.Meta) (*client.Meta, error) {
				switch {
				case o.Axis == "columns":
					return typed.JoinColumns(sources, nil)
				case o.Axis != "rows":
					return nil, usage("--axis %q: want rows or columns", o.Axis)
				case sources[0].Typename == "vineyard::DataFrame":
					return k.concatFrames(ctx, sources)
				}
				return typed.ConcatRows(sources)
			})
		},
	})
	c.Flags().StringVar(&o.Axis, "axis", "rows", "put them below each other (rows), or side by side (columns)")
	return c
}

// frameMaker is what a new table or data frame is made with.
type frameMaker struct {
	c      *client.Client
	w      *typed.Writer
	copied bool // a column was copied
}

// frameBuilder returns the metadata of a new object, of which nothing is filed.
type frameBuilder func(context.Context, *frameMaker, []*client.Meta) (*client.Meta, error)

// frame makes an object of others.
func (d *deps) frame(ctx context.Context, args []string, o frameOptions, build frameBuilder) error {
	p, err := d.printer()
	if err != nil {
		return err
	}
	if o.Replace && o.Name == "" {
		return usage("--replace needs --name")
	}
	return d.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		naming := putOptions{Name: o.Name, Replace: o.Replace}
		if _, err := naming.taken(ctx, c); err != nil {
			return err
		}
		var sources []*client.Meta
		for _, arg := range args {
			id, err := d.find(ctx, c, arg)
			if err != nil {
				return err
			}
			m, err := c.GetObject(ctx, id)
			if err != nil {
				return d.missing(ctx, c, id, err)
			}
			sources = append(sources, m)
		}
		before, err := c.InstanceStatus(ctx)
		if err != nil {
			return err
		}
		res, err := d.storeFrame(ctx, c, sources, naming, build)
		if err != nil {
			return err
		}
		after, err := c.InstanceStatus(ctx)
		if err != nil {
			return err
		}
		res.Grown = after.MemoryUsage - before.MemoryUsage
		if !d.global.Out.Quiet {
			fmt.Fprintf(d.streams.Err, "%s; the pool grew by %s\n", res.Shape, config.FormatSize(res.Grown))
		}
		return p.Item(res.ID.String(), res, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, res.ID)
			return err
		})
	})
}

func (d *deps) storeFrame(ctx context.Context, c *client.Client, sources []*client.Meta, naming putOptions, build frameBuilder) (res frameResult, err error) {
	w := typed.NewWriter(c, nil, nil)
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Undo(context.WithoutCancel(ctx)))
		}
	}()
	k := &frameMaker{c: c, w: w}
	m, err := build(ctx, k, sources)
	if err != nil {
		return res, err
	}
	if res.ID, err = w.File(ctx, m); err != nil {
		return res, err
	}
	res.Shared, res.Name = !k.copied, naming.Name
	whole, err := k.c.GetObject(ctx, res.ID)
	if err != nil {
		return res, err
	}
	s := typed.Summarize(whole)
	res.Shape = fmt.Sprintf("%s, %s", plural(s.Rows, "row"), plural(int64(len(s.Columns)), "column"))
	return res, naming.finish(ctx, c, res.ID)
}

// addColumn shares the new column where it lies in the pieces of the table, and
// copies it where it does not.
func (k *frameMaker) addColumn(ctx context.Context, to *client.Meta, name string, column *client.Meta) (*client.Meta, error) {
	m, err := typed.AddColumn(to, name, column)
	if !errors.Is(err, typed.ErrNotShared) {
		return m, err
	}
	t, err := k.table(ctx, column)
	if err != nil {
		return nil, err
	}
	values, ok := columnOf(t)
	if !ok {
		return nil, usage("object %s has %d columns, not one", column.ID, len(t.Names()))
	}
	pieces, err := typed.CutLike(to, name, values)
	if err != nil {
		return nil, err
	}
	k.copied = true
	stored, err := k.w.Build(ctx, pieces)
	if err != nil {
		return nil, err
	}
	return typed.AddColumn(to, name, stored)
}

// table returns an object as a table, which is held until the command ends.
func (k *frameMaker) table(ctx context.Context, m *client.Meta) (*typed.Table, error) {
	o, err := typed.Load(ctx, k.c, nil, m)
	if err != nil {
		return nil, err
	}
	t, err := codec.Table(o.Value)
	if err != nil {
		return nil, err
	}
	return t, typed.ValidateValue(t)
}

// columnOf returns the values of a table of one column, or of one and its index.
func columnOf(t *typed.Table) (*arrow.Chunked, bool) {
	n := len(t.Names())
	if n == 0 || n > 2 || n == 2 && t.Names()[0] != "index" {
		return nil, false
	}
	return t.Column(n - 1), true
}

// concatFrames copies the rows of data frames below each other, with their
// indexes unless those only number the rows.
func (k *frameMaker) concatFrames(ctx context.Context, sources []*client.Meta) (*client.Meta, error) {
	var all *typed.Table
	var index *typed.Index
	for _, m := range sources {
		o, err := typed.Load(ctx, k.c, nil, m)
		if err != nil {
			return nil, err
		}
		f, ok := o.Value.(*typed.DataFrame)
		if !ok {
			return nil, usage("object %s is a %s, not a data frame", m.ID, m.Typename)
		}
		if err := typed.ValidateValue(f); err != nil {
			return nil, err
		}
		t, err := f.Table()
		if err != nil {
			return nil, err
		}
		if len(t.Names()) > len(f.Columns) {
			index = f.Index
		}
		switch {
		case all == nil:
			all = t
		case !typed.SameColumns(all.Schema, t.Schema):
			return nil, usage("%s has other columns, or another index, than %s", m.ID, sources[0].ID)
		default:
			all.Batches = append(all.Batches, t.Batches...)
		}
	}
	f, err := all.DataFrame(nil)
	if err != nil {
		return nil, err
	}
	if index != nil {
		labels, ok := f.Columns[0].Values.(*typed.Tensor)
		if !ok {
			return nil, usage("the index of %s cannot be copied", sources[0].ID)
		}
		f.Index, f.Columns = &typed.Index{Name: index.Name, Values: labels}, f.Columns[1:]
	}
	k.copied = true
	return k.w.Build(ctx, f)
}
