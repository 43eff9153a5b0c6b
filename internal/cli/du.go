package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
)

type duOptions struct {
	By string
}

func newDu(d *deps) *cobra.Command {
	var o duOptions
	c := &cobra.Command{
		Use:     "du",
		Short:   "Show what takes the memory",
		GroupID: "daemon",
		Long: `Sum up the pool by type, name, owner (the process that made the blobs) or state.
Blobs that several objects share count for the first of them; the total is the
pool's usage to the byte. Deleted blobs that a reader still holds, and blobs outside
of the pool (on disk, in arenas), have lines of their own and are not in the total.`,
		Example: `  v6d du
  v6d du --by owner`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				l, err := runDu(ctx, c, o)
				if err != nil {
					return err
				}
				return p.List(l)
			})
		},
	}
	c.Flags().StringVar(&o.By, "by", "type", "type, name, owner or state")
	return c
}

// share is one line of du.
type share struct {
	Key     string `json:"key"`
	Bytes   int64  `json:"bytes"`
	Blobs   int    `json:"blobs"`
	Counted bool   `json:"counted"` // part of the pool's usage
}

func runDu(ctx context.Context, c *client.Client, o duOptions) (output.List, error) {
	key, err := duKey(ctx, c, o.By)
	if err != nil {
		return output.List{}, err
	}
	sums := map[string]*share{}
	var total share
	for r, err := range c.BlobRows(ctx) {
		if err != nil {
			return output.List{}, err
		}
		k, counted := key(&r), true
		switch {
		case r.Deleted:
			k, counted = "(deleted, still held)", false
		case r.Where == "disk" || r.Where == "arena":
			k, counted = "(outside of the pool: "+r.Where+")", false
		}
		if sums[k] == nil {
			sums[k] = &share{Key: k, Counted: counted}
		}
		sums[k].Bytes += r.Size
		sums[k].Blobs++
		if counted {
			total.Bytes += r.Size
			total.Blobs++
		}
	}
	list := []share{}
	for _, s := range sums {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b share) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Key, b.Key))
	})
	list = append(list, share{"total", total.Bytes, total.Blobs, true})
	l := output.List{Columns: output.Columns("SIZE", "BLOBS", strings.ToUpper(o.By)), Items: list}
	for _, s := range list {
		l.IDs = append(l.IDs, s.Key)
		l.Rows = append(l.Rows, []output.Cell{output.Size(s.Bytes), output.Count(int64(s.Blobs)), output.Text(s.Key)})
	}
	return l, nil
}

// duKey returns how a blob is put into a group.
func duKey(ctx context.Context, c *client.Client, by string) (func(*client.BlobRow) string, error) {
	switch by {
	case "owner":
		return func(r *client.BlobRow) string { return processName(r.PID, r.UID) }, nil
	case "state":
		return blobState, nil
	case "type", "name":
	default:
		return nil, usage("--by %q: want type, name, owner or state", by)
	}
	type object struct {
		typ   string
		names []string
	}
	objects := map[client.ID]object{}
	for r, err := range c.Rows(ctx, client.PageOptions{}) {
		if err != nil {
			return nil, err
		}
		objects[r.ID] = object{r.Type, r.Names}
	}
	roots, err := rootNames(ctx, c, by == "name")
	if err != nil {
		return nil, err
	}
	return func(r *client.BlobRow) string {
		switch {
		case !r.Sealed:
			return "(unsealed)"
		case r.Chunk && by == "type":
			return "(stream)"
		case len(r.Owners) == 0:
			return "(no object)"
		}
		owner := slices.Min(r.Owners)
		if by == "type" {
			return objects[owner].typ
		}
		if n := roots[r.ID]; n != "" {
			return n
		}
		if names := objects[owner].names; len(names) > 0 { // a stream's
			return names[0]
		}
		return "(no name)"
	}, nil
}

// rootNames maps each blob to a name of an object whose tree holds it.
func rootNames(ctx context.Context, c *client.Client, wanted bool) (map[client.ID]string, error) {
	out := map[client.ID]string{}
	if !wanted {
		return out, nil
	}
	names, err := c.ListNames(ctx, "*", 1<<40)
	if err != nil {
		return nil, err
	}
	ids := make([]client.ID, 0, len(names))
	byID := map[client.ID]string{}
	for n, id := range names {
		if old, ok := byID[id]; !ok || n < old {
			byID[id] = n
		}
		ids = append(ids, id)
	}
	trees, err := c.GetObjects(ctx, ids, client.GetOptions{})
	if err != nil {
		return nil, err
	}
	for _, m := range trees {
		for _, b := range m.Blobs() {
			if old, ok := out[b]; !ok || byID[m.ID] < old {
				out[b] = byID[m.ID]
			}
		}
	}
	return out, nil
}

// processName describes the maker of a blob, as far as this machine knows it.
func processName(pid, uid int) string {
	if pid == 0 {
		return "remote clients"
	}
	who := strconv.Itoa(uid)
	if u, err := user.LookupId(who); err == nil {
		who = u.Username
	}
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return fmt.Sprintf("process %d of %s (gone)", pid, who)
	}
	return fmt.Sprintf("process %d of %s (%s)", pid, who, strings.TrimSpace(string(comm)))
}
