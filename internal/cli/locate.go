package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
)

func newLocate(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "locate ID|NAME",
		Short:   "Show on which instances the parts of an object lie",
		GroupID: "objects",
		Long: `Show how many objects, blobs and bytes of an object lie on each instance, the one with
the most bytes first: for schedulers, which run a task where its data are. Bytes are what
the metadata says.`,
		Example: `  v6d locate table
  v6d locate o0051dd9f7a2c0002 -o json --jq '.items[0].rpc_endpoint'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			return d.withObject(c.Context(), args[0], func(ctx context.Context, c *client.Client, m *client.Meta) error {
				all, err := c.Cluster(ctx)
				if err != nil {
					return err
				}
				l := output.List{Columns: output.Columns("INSTANCE", "HOST", "REMOTE", "OBJECTS", "BLOBS", "BYTES")}
				rows := []placeRow{}
				for _, place := range m.Places() {
					at := all[location(uint64(place.Instance))]
					r := placeRow{place, at.Hostname, at.RPCEndpoint, place.Instance == c.Info().InstanceID}
					rows = append(rows, r)
					name := location(uint64(r.Instance))
					if r.Self {
						name += " (asked)"
					}
					l.IDs = append(l.IDs, location(uint64(r.Instance)))
					l.Rows = append(l.Rows, []output.Cell{
						output.Text(name), output.Text(r.Hostname), output.Text(r.RPCEndpoint),
						output.Count(int64(r.Objects)), output.Count(int64(r.Blobs)), output.Size(r.Bytes),
					})
				}
				l.Items = rows
				return p.List(l)
			})
		},
	}
}

// placeRow is one instance as locate prints it in JSON.
type placeRow struct {
	client.Place
	Hostname    string `json:"hostname"`
	RPCEndpoint string `json:"rpc_endpoint"`
	Self        bool   `json:"self"` // the daemon that was asked
}
