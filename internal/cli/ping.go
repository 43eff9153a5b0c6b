package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
)

func newPing(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "ping",
		Short:   "Check that the daemon answers",
		GroupID: "daemon",
		Long:    `Connect, register, ask for the status, and say how long it took.`,
		Example: `  v6d ping
  v6d ping -H 10.0.0.7:9600 --timeout 2s`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			start := time.Now()
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				connected := time.Since(start)
				st, err := c.InstanceStatus(ctx)
				if err != nil {
					return err
				}
				res := map[string]any{"socket": c.Info().Socket, "connect_us": connected.Microseconds(), "answer_us": (time.Since(start) - connected).Microseconds(), "instance": st.InstanceID}
				return p.Item(c.Info().Socket, res, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "instance %d at %s answers: connected in %v, answered in %v, %s of %s used\n", st.InstanceID, c.Info().Socket,
						connected.Round(time.Microsecond), (time.Since(start) - connected).Round(time.Microsecond), config.FormatSize(st.MemoryUsage), config.FormatSize(st.MemoryLimit))
					return err
				})
			})
		},
	}
}
