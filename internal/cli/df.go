package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
)

func newDf(d *deps) *cobra.Command {
	c := &cobra.Command{
		Use:     "df",
		Short:   "Show how full the pool is; make data frames and tables of others",
		GroupID: "daemon",
		Long: `Show the pool's limit, what is used of it, what deleted blobs still hold, and how
much real memory lies behind it.

The commands below it make tables and data frames of others without copying them.`,
		Example: `  v6d df
  v6d df -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				l, err := runDf(ctx, c)
				if err != nil {
					return err
				}
				return p.List(l)
			})
		},
	}
	c.AddCommand(newDfSelect(d), newDfAddColumn(d), newDfConcat(d))
	return c
}

// poolLine is one line of df.
type poolLine struct {
	Pool     string `json:"pool"`
	Size     int64  `json:"size"`
	Used     int64  `json:"used"`
	Free     int64  `json:"free"`
	Held     int64  `json:"held"`     // deleted, but a reader still holds it; -1 unknown
	Reserved int64  `json:"reserved"` // real memory; -1 unknown
}

func runDf(ctx context.Context, c *client.Client) (output.List, error) {
	line := poolLine{Pool: c.Info().Socket, Held: -1, Reserved: -1}
	if c.Info().Extended {
		st, err := nodeStatus(ctx, c)
		if err != nil {
			return output.List{}, err
		}
		l := st.Ledger
		line.Size, line.Used, line.Held, line.Reserved = l.Limit, l.Usage, l.Deferred, l.Reserved
	} else {
		st, err := c.InstanceStatus(ctx)
		if err != nil {
			return output.List{}, err
		}
		line.Size, line.Used = st.MemoryLimit, st.MemoryUsage
	}
	line.Free = line.Size - line.Used
	percent := "0%"
	if line.Size > 0 {
		percent = fmt.Sprintf("%d%%", line.Used*100/line.Size)
	}
	return output.List{
		Columns: output.Columns("POOL", "SIZE", "USED", "FREE", "USE%", "HELD", "REAL MEMORY"),
		Rows: [][]output.Cell{{
			output.Text(line.Pool), output.Size(line.Size), output.Size(line.Used), output.Size(line.Free), output.Text(percent),
			output.Size(line.Held), output.Size(line.Reserved),
		}},
		IDs: []string{line.Pool}, Items: []poolLine{line},
	}, nil
}
