package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/server"
)

func newCluster(d *deps) *cobra.Command {
	c := &cobra.Command{
		Use:     "cluster",
		Short:   "Show the instances of the cluster",
		GroupID: "daemon",
		Long:    `The daemons that share one metadata tree, as the asked one sees them.`,
		Example: `  v6d cluster ls
  v6d cluster info -H 10.0.0.7:9600`,
	}
	c.AddCommand(newClusterLs(d), newClusterInfo(d), newClusterDrain(d))
	return c
}

func newClusterLs(d *deps) *cobra.Command {
	var probe time.Duration
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the instances with address, pool, objects and age of the heartbeat",
		Long: `List the instances: number, host, remote address, used and total memory, persistent
objects that say they are there, and how long ago the instance last told that it is
alive. An instance does that every 10 seconds; after about 40 seconds of silence its
neighbour removes it. Memory is asked of each instance over its remote address, so
that one that cannot be reached from here shows as such.`,
		Example: `  v6d cluster ls
  v6d cluster ls -o json | jq '.[].rpc_endpoint'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				rows, err := d.instances(ctx, c, probe)
				if err != nil {
					return err
				}
				l := output.List{Columns: instanceColumns, Items: rows}
				for _, r := range rows {
					l.IDs = append(l.IDs, fmt.Sprint(r.Instance))
					l.Rows = append(l.Rows, r.cells())
				}
				return p.List(l)
			})
		},
	}
	c.Flags().DurationVar(&probe, "probe", 2*time.Second, "how long to wait for each instance's answer; 0 asks none")
	return c
}

// instanceRow is one instance as cluster ls prints it in JSON.
type instanceRow struct {
	Instance     uint64 `json:"instance"`
	Hostname     string `json:"hostname"`
	RPCEndpoint  string `json:"rpc_endpoint"`
	IPCSocket    string `json:"ipc_socket"`
	Used         int64  `json:"memory_usage"` // bytes; -1 where it did not answer
	Limit        int64  `json:"memory_limit"` // bytes; -1 where it did not answer
	Objects      int    `json:"objects"`      // persistent ones that are there
	HeartbeatAge int64  `json:"heartbeat_age_ms"`
	State        string `json:"state"` // up, unreachable, no answer asked for
	Self         bool   `json:"self"`  // the daemon that was asked
}

var instanceColumns = []output.Column{
	{Name: "INSTANCE"},
	{Name: "HOST", Cut: true},
	{Name: "REMOTE"},
	{Name: "USED"},
	{Name: "POOL"},
	{Name: "OBJECTS"},
	{Name: "HEARTBEAT"},
	{Name: "STATE"},
	{Name: "SOCKET", Wide: true},
}

func (r *instanceRow) cells() []output.Cell {
	name := location(r.Instance)
	if r.Self {
		name += " (asked)"
	}
	return []output.Cell{
		output.Text(name), output.Text(r.Hostname), output.Text(r.RPCEndpoint), output.Size(r.Used), output.Size(r.Limit),
		output.Count(int64(r.Objects)), output.Text((time.Duration(r.HeartbeatAge) * time.Millisecond).Round(100 * time.Millisecond).String()),
		output.Text(r.State), output.Text(r.IPCSocket),
	}
}

// location is how an instance is written: i and its number, or "several".
func location(instance uint64) string {
	if instance == math.MaxUint64 {
		return "several"
	}
	return "i" + strconv.FormatUint(instance, 10)
}

// instances lists the cluster and asks each instance how it is.
func (d *deps) instances(ctx context.Context, c *client.Client, probe time.Duration) ([]instanceRow, error) {
	all, err := c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	counts, err := objectCounts(ctx, c)
	if err != nil {
		return nil, err
	}
	own, err := c.InstanceStatus(ctx)
	if err != nil {
		return nil, err
	}
	rows := []instanceRow{}
	for name, in := range all {
		n, err := strconv.ParseUint(strings.TrimPrefix(name, "i"), 10, 64)
		if err != nil {
			continue
		}
		beat := time.Unix(in.Timestamp>>32, in.Timestamp&(1<<32-1)*1000)
		rows = append(rows, instanceRow{
			Instance: n, Hostname: in.Hostname, RPCEndpoint: in.RPCEndpoint, IPCSocket: in.IPCSocket, Used: -1, Limit: -1,
			Objects: counts[n], HeartbeatAge: max(0, time.Since(beat).Milliseconds()), State: "not asked", Self: n == own.InstanceID,
		})
	}
	slices.SortFunc(rows, func(a, b instanceRow) int { return cmp.Compare(a.Instance, b.Instance) })
	var wg sync.WaitGroup
	for i := range rows {
		r := &rows[i]
		switch {
		case r.Self:
			r.Used, r.Limit, r.State = own.MemoryUsage, own.MemoryLimit, "up"
		case probe > 0:
			wg.Go(func() { r.ask(ctx, d, probe) })
		}
	}
	wg.Wait()
	return rows, nil
}

// ask fills in what an instance says of itself.
func (r *instanceRow) ask(ctx context.Context, d *deps, probe time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	r.State = "unreachable"
	if r.RPCEndpoint == "0.0.0.0:0" {
		r.State = "no remote access"
		return
	}
	peer, err := d.dialPeer(ctx, r.RPCEndpoint)
	if err != nil {
		return
	}
	defer func() { _ = peer.Close() }()
	st, err := peer.InstanceStatus(ctx)
	switch {
	case err != nil:
	case st.InstanceID != r.Instance:
		r.State = "address of " + location(st.InstanceID)
	default:
		r.Used, r.Limit, r.State = st.MemoryUsage, st.MemoryLimit, "up"
	}
}

// objectCounts counts the persistent objects of each instance.
func objectCounts(ctx context.Context, c *client.Client) (map[uint64]int, error) {
	counts := map[uint64]int{}
	add := func(r objectRow) bool {
		if r.Persistent {
			counts[r.Instance]++
		}
		return true
	}
	if !c.Info().Extended {
		return counts, classicRows(ctx, c, lsOptions{}, add)
	}
	for r, err := range c.Rows(ctx, client.PageOptions{Size: 50_000, Fields: []string{"instance_id", "transient"}}) {
		if err != nil {
			return nil, err
		}
		add(objectRow{Instance: r.Instance, Persistent: !r.Transient})
	}
	return counts, nil
}

func newClusterInfo(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "info",
		Short: "Show where the metadata lie and whether this instance keeps up",
		Long: `Show where the cluster's metadata lie, whether they can be reached, up to which
revision the asked daemon has applied them, and what the cluster holds.`,
		Example: `  v6d cluster info
  v6d cluster info -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				info, err := d.clusterInfo(ctx, c)
				if err != nil {
					return err
				}
				return p.Item(fmt.Sprint(info.Instance), info, info.write)
			})
		},
	}
}

// clusterInfo is what cluster info prints in JSON.
type clusterInfo struct {
	Instance  uint64                `json:"instance"` // the daemon that was asked
	Instances int                   `json:"instances"`
	Objects   int                   `json:"objects"` // persistent ones
	Names     int                   `json:"names"`
	Metadata  *server.ClusterStatus `json:"metadata"` // null where the daemon does not tell
}

func (d *deps) clusterInfo(ctx context.Context, c *client.Client) (*clusterInfo, error) {
	all, err := c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.InstanceStatus(ctx)
	if err != nil {
		return nil, err
	}
	counts, err := objectCounts(ctx, c)
	if err != nil {
		return nil, err
	}
	names, err := c.ListNames(ctx, "*", 1<<40)
	if err != nil {
		return nil, err
	}
	info := &clusterInfo{Instance: st.InstanceID, Instances: len(all), Names: len(names)}
	for _, n := range counts {
		info.Objects += n
	}
	if c.Info().Extended {
		node, err := nodeStatus(ctx, c)
		if err != nil {
			return nil, err
		}
		info.Metadata = &node.Cluster
	}
	return info, nil
}

func (i *clusterInfo) write(w io.Writer) error {
	pairs := [][2]string{{"asked", location(i.Instance)}}
	if m := i.Metadata; m != nil {
		where := m.Metadata
		if m.At != "" {
			where += " at " + m.At + ", prefix " + m.Prefix
		}
		state := "up to date as of revision " + strconv.FormatInt(m.Revision, 10)
		if m.Failure != "" {
			state = "cannot be reached: " + m.Failure
		}
		pairs = append(pairs, [2]string{"metadata", where}, [2]string{"state", state})
		if m.Store != "" {
			pairs = append(pairs, [2]string{"identity", m.Store})
		}
	}
	pairs = append(pairs,
		[2]string{"instances", strconv.Itoa(i.Instances)},
		[2]string{"persistent objects", strconv.Itoa(i.Objects)},
		[2]string{"names", strconv.Itoa(i.Names)})
	return output.Fields(w, pairs...)
}

// elsewhere looks for an object on the instance that its id says made it, and
// returns where it is, or "".
func (d *deps) elsewhere(ctx context.Context, c *client.Client, id client.ID) string {
	maker := uint64(id) >> 12 & 0x3ff
	st, err := c.InstanceStatus(ctx)
	if err != nil || st.InstanceID&0x3ff == maker {
		return ""
	}
	all, err := c.Cluster(ctx)
	if err != nil {
		return ""
	}
	in, ok := all[location(maker)]
	if !ok {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	peer, err := d.dialPeer(ctx, in.RPCEndpoint)
	if err != nil {
		return ""
	}
	defer func() { _ = peer.Close() }()
	if known, err := peer.Exists(ctx, id); err != nil || !known {
		return ""
	}
	return fmt.Sprintf("instance %d (%s)", maker, in.RPCEndpoint)
}
