package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

func newPersist(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "persist ID...",
		Short:   "Make objects visible to the whole cluster",
		GroupID: "objects",
		Long: `Make objects and their members visible to all instances of the cluster. Only
persistent objects can have names. Their data stays where it is. While the metadata
service is away this fails; with --timeout it is tried again until then.`,
		Example: `  v6d persist o0051dd9f7a2c0002
  v6d put data.bin | xargs v6d persist`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				return each(args, func(arg string) error {
					id, err := resolve(ctx, c, arg)
					if err != nil {
						return err
					}
					return d.retried(ctx, func() error { return c.Persist(ctx, id) })
				})
			})
		},
	}
}

// retried runs a change of what the cluster sees. With --timeout it is tried again
// while the metadata service is away; without, the first failure is the answer.
func (d *deps) retried(ctx context.Context, change func() error) error {
	for {
		err := change()
		if d.global.Timeout <= 0 || status.Of(err) != status.EtcdError {
			return err
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}
