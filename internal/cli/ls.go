package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
)

func newLs(d *deps) *cobra.Command {
	var o lsOptions
	c := &cobra.Command{
		Use:     "ls [NAME-GLOB]",
		Aliases: []string{"list"},
		Short:   "List objects",
		GroupID: "objects",
		Long: `List objects, or with --blobs the blobs, with their size, age, scope and names.
Scope "local" means that only this daemon's clients see it; "cluster" that it is
persistent. Without a limit everything is listed; with one, the rest is counted on
stderr.`,
		Example: `  v6d ls 'model-*' -o json
  v6d ls --size '>1MiB' --sort-by -size --limit 10
  v6d rm $(v6d ls -q --type 'vineyard::Tensor*' --older-than 1h)`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				if o.Name != "" {
					return usage("the name is given twice: %s and --name %s", args[0], o.Name)
				}
				o.Name = args[0]
			}
			if err := o.validate(); err != nil {
				return err
			}
			if err := runLs(c.Context(), d, o); err != nil || !o.Watch {
				return err
			}
			return runEvents(c.Context(), d, eventsOptions{Type: o.Type})
		},
	}
	o.addFlags(c.Flags())
	return c
}

func runLs(ctx context.Context, d *deps, o lsOptions) error {
	p, err := d.printer()
	if err != nil {
		return err
	}
	return d.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		list := listObjects
		switch {
		case o.Blobs:
			list = listBlobs
		case p.OnlyIDs() && o.idsSuffice() && c.Info().Extended:
			list = listIDs
		}
		l, more, err := list(ctx, c, o)
		if err != nil {
			return err
		}
		if err := p.List(l); err != nil {
			return err
		}
		if more != 0 {
			_, err = io.WriteString(d.streams.Err, o.note(more))
		}
		return err
	})
}

// objectRow is one object as ls prints it in JSON.
type objectRow struct {
	ID         client.ID         `json:"id"`
	Type       string            `json:"typename"`
	Bytes      int64             `json:"bytes"` // -1 where the daemon does not tell
	Created    time.Time         `json:"created"`
	Persistent bool              `json:"persistent"`
	Global     bool              `json:"global"`
	Member     bool              `json:"member"` // another object refers to it
	Instance   uint64            `json:"instance"`
	Names      []string          `json:"names"`
	Labels     map[string]string `json:"labels"`
}

var objectColumns = []output.Column{
	{Name: "ID"},
	{Name: "TYPE", Cut: true},
	{Name: "SIZE"},
	{Name: "AGE"},
	{Name: "SCOPE"},
	{Name: "LOCATION"},
	{Name: "NAME", Cut: true},
	{Name: "GLOBAL", Wide: true},
	{Name: "MEMBER", Wide: true},
	{Name: "LABELS", Wide: true},
}

func (r *objectRow) cells() []output.Cell {
	return []output.Cell{
		output.Text(r.ID.String()), output.Text(r.Type), output.Size(r.Bytes), output.Age(r.Created), output.Text(scope(r.Persistent)),
		output.Text(location(r.Instance)), output.Text(strings.Join(r.Names, ",")), output.Text(fmt.Sprint(r.Global)),
		output.Text(fmt.Sprint(r.Member)), output.Text(labelText(r.Labels)),
	}
}

func scope(persistent bool) string {
	if persistent {
		return "cluster"
	}
	return "local"
}

// labelText writes labels as key=value, in order of the keys.
func labelText(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}

// listObjects lists what the options select. more counts what the limit left
// out; it is negative where that is not known.
func listObjects(ctx context.Context, c *client.Client, o lsOptions) (l output.List, more int, err error) {
	if o.sort == nil {
		if err := o.validate(); err != nil {
			return l, 0, err
		}
	}
	mine, err := ownedBy(ctx, c, o.Owner)
	if err != nil {
		return l, 0, err
	}
	rows := []objectRow{}
	source := classicRows
	if c.Info().Extended {
		source = pagedRows
	}
	err = source(ctx, c, o, func(r objectRow) bool {
		if !o.keep(&r) || !mine(r.ID) {
			return true
		}
		if o.plain() && len(rows) == o.Limit {
			more = -1
			return false
		}
		rows = append(rows, r)
		return true
	})
	if err != nil {
		return l, 0, err
	}
	if more == 0 {
		rows, more = o.order(rows)
	}
	l = output.List{Columns: objectColumns, Items: rows}
	for i := range rows {
		l.IDs = append(l.IDs, rows[i].ID.String())
		l.Rows = append(l.Rows, rows[i].cells())
	}
	return l, more, nil
}

// listIDs is listObjects where only ids are wanted, for pipes: a hundred
// thousand of them take a fraction of the time.
func listIDs(ctx context.Context, c *client.Client, o lsOptions) (l output.List, more int, err error) {
	for id, err := range c.IDs(ctx, client.PageOptions{Type: o.Type, Name: o.Name, Size: 100_000}) {
		if err != nil {
			return l, 0, err
		}
		if o.Limit > 0 && len(l.IDs) == o.Limit {
			return l, -1, nil
		}
		l.IDs = append(l.IDs, id.String())
	}
	return l, 0, nil
}

func pagedRows(ctx context.Context, c *client.Client, o lsOptions, add func(objectRow) bool) error {
	for r, err := range c.Rows(ctx, client.PageOptions{Type: o.Type, Name: o.Name, Size: 10_000}) {
		if err != nil {
			return err
		}
		if !add(objectRow{
			ID: r.ID, Type: r.Type, Bytes: r.Bytes, Created: time.UnixMilli(r.TimeMS).UTC(), Persistent: !r.Transient,
			Global: r.Global, Member: r.Owned, Instance: r.Instance, Names: nonNil(r.Names), Labels: nonNilMap(r.Labels),
		}) {
			return nil
		}
	}
	return nil
}

// classicRows lists on a daemon without paging: everything in one reply.
func classicRows(ctx context.Context, c *client.Client, o lsOptions, add func(objectRow) bool) error {
	pattern, glob := o.Type, o.Name
	if pattern == "" {
		pattern = "*"
	}
	if glob == "" {
		glob = "*"
	}
	objects, err := c.ListObjects(ctx, pattern, false, 1<<40)
	if err != nil {
		return err
	}
	names, err := c.ListNames(ctx, glob, 1<<40)
	if err != nil {
		return err
	}
	byID := map[client.ID][]string{}
	for n, id := range names {
		byID[id] = append(byID[id], n)
	}
	for _, m := range objects {
		if m.IsBlob() || o.Name != "" && len(byID[m.ID]) == 0 {
			continue
		}
		size := int64(-1)
		if n, ok := m.Int("nbytes"); ok && n > 0 {
			size = n
		}
		slices.Sort(byID[m.ID])
		if !add(objectRow{
			ID: m.ID, Type: m.Typename, Bytes: size, Created: m.Time, Persistent: !m.Transient, Global: m.Global,
			Instance: uint64(m.InstanceID), Names: nonNil(byID[m.ID]), Labels: nonNilMap(m.Labels),
		}) {
			return nil
		}
	}
	return nil
}

func listBlobs(ctx context.Context, c *client.Client, o lsOptions) (l output.List, more int, err error) {
	mine, err := ownedBy(ctx, c, o.Owner)
	if err != nil {
		return l, 0, err
	}
	rows := []client.BlobRow{}
	for r, err := range c.BlobRows(ctx) {
		if err != nil {
			return l, 0, err
		}
		if !mine(r.ID) || r.Size < o.minSize || r.Size > o.maxSize || o.OlderThan > 0 && time.Since(r.Created) < o.OlderThan {
			continue
		}
		if o.Limit > 0 && len(rows) == o.Limit {
			more++
			continue
		}
		rows = append(rows, r)
	}
	l = output.List{Columns: output.Columns("ID", "SIZE", "STATE", "REFS", "PID", "AGE", "OWNERS"), Items: rows}
	for _, r := range rows {
		var owners []string
		for _, id := range r.Owners {
			owners = append(owners, id.String())
		}
		l.IDs = append(l.IDs, r.ID.String())
		l.Rows = append(l.Rows, []output.Cell{
			output.Text(r.ID.String()), output.Size(r.Size), output.Text(blobState(&r)), output.Count(int64(r.Refs)),
			output.Count(int64(r.PID)), output.Age(r.Created), output.Text(strings.Join(owners, ",")),
		})
	}
	return l, more, nil
}

func blobState(r *client.BlobRow) string {
	switch {
	case r.Deleted:
		return "deleted, held"
	case !r.Sealed:
		return "unsealed"
	}
	return "sealed"
}

func userID(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, status.Errorf(status.UserInputError, "--owner %s: neither a process number nor a user here", name)
	}
	return strconv.Atoi(u.Uid)
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func nonNilMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
