package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
)

func newStatus(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the daemon, its pool and its clients",
		GroupID: "daemon",
		Long: `Show the daemon: version, pool, what is in it, who is connected. A daemon of the
reference implementation tells less.`,
		Example: `  v6d status
  v6d status -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				if !c.Info().Extended {
					return classicStatus(ctx, c, p)
				}
				st, err := nodeStatus(ctx, c)
				if err != nil {
					return err
				}
				return p.Item(c.Info().Socket, st, func(w io.Writer) error { return writeStatus(w, st) })
			})
		},
	}
}

// nodeStatus asks a v6d daemon for everything.
func nodeStatus(ctx context.Context, c *client.Client) (*server.Status, error) {
	raw, err := c.NodeStatus(ctx)
	if err != nil {
		return nil, err
	}
	var st server.Status
	if err := json.Unmarshal(raw, &st); err != nil {
		return nil, status.Errorf(status.IOError, "the daemon's status: %w", err)
	}
	return &st, nil
}

func classicStatus(ctx context.Context, c *client.Client, p *output.Printer) error {
	st, err := c.InstanceStatus(ctx)
	if err != nil {
		return err
	}
	return p.Item(c.Info().Socket, st, func(w io.Writer) error {
		return output.Fields(w,
			[2]string{"daemon", "speaks protocol " + c.Info().Version + ", no v6d extensions"},
			[2]string{"socket", c.Info().Socket},
			[2]string{"remote", c.Info().RPCEndpoint},
			[2]string{"memory", fmt.Sprintf("%s of %s", config.FormatSize(st.MemoryUsage), config.FormatSize(st.MemoryLimit))},
			[2]string{"connections", fmt.Sprintf("%d local, %d remote, %d waiting", st.IPCConnections, st.RPCConnections, st.Deferred)})
	})
}

func writeStatus(w io.Writer, st *server.Status) error {
	l, start := st.Ledger, st.Start
	where := start.Place.Path
	if where == "" {
		where = "anonymous memory"
	}
	remote := start.RPC
	if remote == "" {
		remote = "off"
	}
	yes := map[bool]string{true: "yes", false: "no"}
	pairs := [][2]string{
		{"daemon", fmt.Sprintf("v6d %s, protocol %s, process %d, up %s", st.Version, st.Protocol, st.PID, time.Since(st.StartedAt).Round(time.Second))},
		{"socket", start.Socket},
		{"remote", remote},
		{"metadata", st.Metadata},
		{"pool", fmt.Sprintf("%s at %s", config.FormatSize(l.Limit), where)},
		{"huge pages", yes[start.Place.Huge]},
		{"survives a crash", yes[start.Place.Survives]},
	}
	if start.Place.Why != "" {
		pairs = append(pairs, [2]string{"could be better", start.Place.Why})
	}
	if start.CgroupNote != "" {
		pairs = append(pairs, [2]string{"warning", start.CgroupNote})
	}
	if st.Damage != "" {
		pairs = append(pairs, [2]string{"damage", st.Damage})
	}
	pairs = append(pairs,
		[2]string{"used", fmt.Sprintf("%s in %d blobs, %d objects", config.FormatSize(l.Usage), l.Blobs, st.Objects)},
		[2]string{"unsealed", config.FormatSize(l.Unsealed)},
		[2]string{"deleted but held", fmt.Sprintf("%s in %d blobs", config.FormatSize(l.Deferred), l.Zombies)},
		[2]string{"earlier pools", config.FormatSize(l.Earlier)},
		[2]string{"real memory", fmt.Sprintf("%s, %s of it ahead of need", config.FormatSize(l.Reserved), config.FormatSize(l.Ahead))},
		[2]string{"freed of dead clients", fmt.Sprintf("%d blobs, %s", l.Orphans, config.FormatSize(int64(l.OrphanBytes)))},
		[2]string{"reused under 0.24 readers", fmt.Sprintf("%d blobs, %s", l.Reclaimed, config.FormatSize(int64(l.ReclaimedBytes)))},
		[2]string{"sessions", fmt.Sprint(len(st.Sessions))},
		[2]string{"connections", fmt.Sprint(len(st.Connections))},
		[2]string{"requests", fmt.Sprint(st.Requests)},
	)
	return output.Fields(w, pairs...)
}
