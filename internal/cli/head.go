package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/driver/codec"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/typed"
)

type headOptions struct {
	Rows    int64
	Columns []string
	Fetch   bool
	tail    bool
}

func newHead(d *deps) *cobra.Command {
	return rowsCommand(d, headOptions{}, &cobra.Command{
		Use:     "head ID|NAME",
		Short:   "Show the first rows of a table, data frame or tensor",
		GroupID: "objects",
		Long: `Show the first rows of a table, data frame, series or tensor, straight from shared
memory: a box on a terminal, CSV in a pipe, or what -o says (json, ndjson, csv, tsv).
A box shows the columns that fit, with their types; --no-trunc shows all.`,
		Example: `  v6d head sales
  v6d head sales -n 3 --columns day,price -o json`,
	})
}

func newTail(d *deps) *cobra.Command {
	return rowsCommand(d, headOptions{tail: true}, &cobra.Command{
		Use:     "tail ID|NAME",
		Short:   "Show the last rows of a table, data frame or tensor",
		GroupID: "objects",
		Long: `Show the last rows of a table, data frame, series or tensor, straight from shared
memory: a box on a terminal, CSV in a pipe, or what -o says (json, ndjson, csv, tsv).`,
		Example: `  v6d tail sales
  v6d tail sales -n 3 --columns day,price -o ndjson`,
	})
}

func rowsCommand(d *deps, o headOptions, c *cobra.Command) *cobra.Command {
	c.Args = cobra.ExactArgs(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		if o.Rows < 0 {
			return usage("-n %d: want a number of rows", o.Rows)
		}
		return d.withObject(c.Context(), args[0], func(ctx context.Context, c *client.Client, m *client.Meta) error {
			all := typed.Summarize(m).Rows
			narrow := m
			if all >= 0 { // parts that are not shown are not fetched
				first := int64(0)
				if o.tail {
					first = max(all-o.Rows, 0)
				}
				narrow = typed.Narrow(m, first, first+o.Rows)
			}
			return withValue(ctx, c, narrow, o.Fetch, func(v any) error {
				v, total, err := o.rows(v)
				if err != nil {
					return err
				}
				if narrow != m {
					total = all
				}
				return d.writeRows(v, total)
			})
		})
	}
	c.Flags().Int64VarP(&o.Rows, "rows", "n", 10, "how many rows")
	c.Flags().StringSliceVar(&o.Columns, "columns", nil, "only these columns, in this order")
	c.Flags().BoolVar(&o.Fetch, "fetch", false, "get what lies on other instances from there")
	return c
}

// rows cuts the rows that are asked for out of a value; total is how many it has.
func (o *headOptions) rows(v any) (cut any, total int64, err error) {
	if v, err = selected(v, o.Columns); err != nil {
		return nil, 0, err
	}
	bounds := func(total int64) (first, last int64) {
		if o.tail {
			return max(total-o.Rows, 0), total
		}
		return 0, o.Rows
	}
	switch x := v.(type) {
	case *typed.DataFrame: // before it becomes a table, which looks at all values
		total = x.Rows()
		first, last := bounds(total)
		cut, err = x.Slice(first, last)
		return cut, total, err
	case *typed.Tensor:
		if len(x.Shape) == 0 {
			return x, 1, nil
		}
		first, last := bounds(x.Shape[0])
		return x.Rows(first, last), x.Shape[0], nil
	case *typed.Series:
		total = int64(x.Values.Len())
		first, last := bounds(total)
		s := &typed.Series{Name: x.Name, Values: x.Values.Rows(first, last)}
		if x.Index != nil {
			s.Index = &typed.Index{Name: x.Index.Name, Values: x.Index.Values.Rows(first, last)}
		}
		return s, total, nil
	}
	t, err := codec.Table(v)
	if err != nil {
		return nil, 0, err
	}
	first, last := bounds(t.Rows())
	return t.Slice(first, last), t.Rows(), nil
}

// writeRows writes a piece of a value as -o says.
func (d *deps) writeRows(v any, total int64) error {
	if _, err := d.printer(); err != nil {
		return err
	}
	if err := typed.ValidateValue(v); err != nil {
		return err
	}
	format := d.global.Out.Format
	if d.global.Out.JQ != "" && format == "table" {
		format = "json"
	}
	if t, ok := v.(*typed.Tensor); ok && len(t.Shape) > 2 && format != "json" {
		format = "json" // no table has so many dimensions
	}
	switch format {
	case "table", "wide":
		t, err := codec.Table(v)
		if err != nil {
			return err
		}
		if output.IsTerminal(d.streams.Out) {
			return writeBox(d.streams, t, total, d.global.Out.NoTrunc)
		}
		format = "csv"
	case "csv", "tsv", "json", "ndjson":
	default:
		return usage("-o %s: rows are written as table, csv, tsv, json or ndjson", format)
	}
	f, _ := codec.ByName(format)
	if d.global.Out.JQ != "" {
		return d.jqRows(f, v)
	}
	return f.Encode(d.streams.Out, v, codec.WriteOptions{NoHeader: d.global.Out.NoHeaders})
}

// jqRows applies --jq to the rows.
func (d *deps) jqRows(f codec.Format, v any) error {
	var b strings.Builder
	if err := f.Encode(&b, v, codec.WriteOptions{}); err != nil {
		return err
	}
	var rows any
	if err := json.Unmarshal([]byte(b.String()), &rows); err != nil {
		return fmt.Errorf("--jq needs -o json: %w", err)
	}
	p, err := d.printer()
	if err != nil {
		return err
	}
	return p.Query(rows)
}

// writeBox draws a table of which these rows are a part.
func writeBox(s output.Streams, t *typed.Table, total int64, whole bool) error {
	b := output.Box{Names: t.Names(), Caption: fmt.Sprintf("%s, %s", plural(total, "row"), plural(int64(len(t.Names())), "column"))}
	if t.Rows() < total {
		b.Caption = fmt.Sprintf("%d of ", t.Rows()) + b.Caption
	}
	for _, f := range t.Schema.Fields() {
		b.Types = append(b.Types, typeText(f.Type))
		b.Numeric = append(b.Numeric, isNumeric(f.Type))
	}
	for _, batch := range t.Batches {
		for row := range int(batch.NumRows()) {
			cells := make([]string, batch.NumCols())
			for i, a := range batch.Columns() {
				cells[i] = codec.Cell(a, row)
			}
			b.Rows = append(b.Rows, cells)
		}
	}
	width := output.Width(s.Out)
	if whole {
		width = 0
	}
	return output.WriteBox(s.Out, b, width)
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatInt(n, 10) + " " + what + "s"
}

// typeText shortens the names of types.
func typeText(t arrow.DataType) string {
	switch t.ID() {
	case arrow.LARGE_STRING, arrow.STRING:
		return "string"
	case arrow.LARGE_BINARY, arrow.BINARY:
		return "binary"
	case arrow.LARGE_LIST, arrow.LIST:
		return "list of " + typeText(t.(arrow.ListLikeType).Elem())
	case arrow.DATE32:
		return "date"
	}
	return t.String()
}

func isNumeric(t arrow.DataType) bool {
	return slices.Contains([]arrow.Type{
		arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64,
		arrow.FLOAT16, arrow.FLOAT32, arrow.FLOAT64, arrow.DECIMAL128, arrow.DECIMAL256,
	}, t.ID())
}
