package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
)

func newPersist(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "persist ID...",
		Short:   "Make objects visible to the whole cluster",
		GroupID: "objects",
		Long: `Make objects and their members visible to all instances of the cluster. Only
persistent objects can have names. Their data stays where it is.`,
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
					return c.Persist(ctx, id)
				})
			})
		},
	}
}
