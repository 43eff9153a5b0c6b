package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
)

func newMeta(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "meta ID|NAME",
		Short:   "Show an object's metadata",
		GroupID: "objects",
		Long: `Show an object's metadata tree: typename, plain fields and members, down to the
blobs. -o json has the same as JSON.`,
		Example: `  v6d meta model
  v6d meta model -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.withObject(c.Context(), args[0], func(ctx context.Context, c *client.Client, m *client.Meta) error {
				return d.paged(ctx, m.ID.String(), m, func(w io.Writer) error {
					dr := drawing{fields: true, own: c.Info().InstanceID}
					dr.draw(m, "", 1)
					_, err := io.WriteString(w, m.ID.String()+"  "+m.Typename+"\n"+dr.b.String())
					return err
				})
			})
		},
	}
}
