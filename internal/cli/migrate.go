package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
)

type migrateOptions struct {
	To         string
	From       string
	DryRun     bool
	Names      bool
	Progress   bool
	NoProgress bool
	travel     travelOptions
}

// travelOptions are the flags of every command that moves bytes between daemons.
type travelOptions struct {
	Parallel int
	Limit    string
	Compress string
	Verify   bool
}

func (o *travelOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.IntVar(&o.Parallel, "parallel", 0, "connections for each object (default: the daemon's choice, up to 4)")
	f.StringVar(&o.Limit, "bwlimit", "", "most bytes a second for each object, such as 100MiB")
	f.StringVar(&o.Compress, "compress", "auto", "auto (on slow links, what shrinks), on or off")
	f.BoolVar(&o.Verify, "verify", false, "compare checksums of what comes over the network")
}

func (o *travelOptions) settings() (client.MigrateOptions, error) {
	m := client.MigrateOptions{Parallel: o.Parallel, Compress: o.Compress, Verify: o.Verify}
	if o.Limit != "" {
		var err error
		if m.Limit, err = config.ParseSize(o.Limit); err != nil {
			return m, usage("--bwlimit: %v", err)
		}
		if m.Limit <= 0 {
			return m, usage("--bwlimit %s: nothing would ever come", o.Limit)
		}
	}
	if o.Parallel < 0 || o.Parallel > 32 {
		return m, usage("--parallel %d: want 1 to 32", o.Parallel)
	}
	if !slices.Contains([]string{"auto", "on", "off"}, o.Compress) {
		return m, usage("--compress %q: want auto, on or off", o.Compress)
	}
	return m, nil
}

func newMigrate(d *deps) *cobra.Command {
	var o migrateOptions
	c := &cobra.Command{
		Use:     "migrate ID|NAME...",
		Short:   "Bring copies of objects to another instance",
		GroupID: "objects",
		Long: `Bring a copy of each object to the daemon that is asked, or to the instance that --to
names, and print its id there. The copy has the same fields and signatures and new
ids; the original stays, and so do its names, unless --names. What is there already
is not moved again. The object must be persistent: others do not see it otherwise.

Of a global object the members are moved that are not there yet, or those of them that
are on the instance --from. It finds the copies by their signatures, so that the
global object itself stays as it is.

Between daemons of one host the bytes are copied once, from pool to pool. Over the
network several connections carry them; what was lost with a connection comes again.
A migration that is interrupted leaves nothing behind.`,
		Example: `  v6d migrate table
  v6d migrate table --to i2 --bwlimit 100MiB --verify
  v6d migrate table --from i0 --dry-run`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.runMigrate(c.Context(), args, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.To, "to", "", "instance that gets the copies, i1 or 1 (default: the daemon that is asked)")
	f.StringVar(&o.From, "from", "", "move only what is on this instance")
	f.BoolVarP(&o.DryRun, "dry-run", "n", false, "say what would be moved, and move nothing")
	f.BoolVar(&o.Names, "names", false, "let the names of the originals point at the copies")
	f.BoolVar(&o.Progress, "progress", false, "show progress on stderr even where that is no terminal")
	f.BoolVar(&o.NoProgress, "no-progress", false, "never show progress")
	o.travel.flags(c)
	return c
}

// migrateRow is one object of a migration as the command prints it in JSON.
type migrateRow struct {
	Object   client.ID        `json:"object"`
	Typename string           `json:"typename"`
	Part     string           `json:"member_of,omitempty"` // the global object that it is a member of
	From     uint64           `json:"from"`
	To       uint64           `json:"to"`
	Copy     client.ID        `json:"copy"`     // 0 with --dry-run
	Bytes    int64            `json:"bytes"`    // moved; with --dry-run what the metadata says
	State    string           `json:"state"`    // moved, was there, would move
	Transfer *client.Transfer `json:"transfer"` // null when nothing moved, or the daemon does not tell
}

var migrateColumns = []output.Column{
	{Name: "OBJECT"}, {Name: "TYPE", Cut: true}, {Name: "FROM"}, {Name: "TO"}, {Name: "COPY"}, {Name: "BYTES"}, {Name: "TIME"}, {Name: "WAY"}, {Name: "STATE"},
}

func (r *migrateRow) cells() []output.Cell {
	copied, took, way := "-", "-", "-"
	if r.Copy != 0 {
		copied = r.Copy.String()
	}
	if t := r.Transfer; t != nil {
		took, way = (time.Duration(t.MS) * time.Millisecond).String(), t.Way
		if t.Compressed {
			way += ", compressed"
		}
		if t.Resumed > 0 {
			way += ", resumed " + strconv.FormatInt(t.Resumed, 10)
		}
	}
	return []output.Cell{
		output.Text(r.Object.String()), output.Text(r.Typename), output.Text(location(r.From)), output.Text(location(r.To)),
		output.Text(copied), output.Size(r.Bytes), output.Text(took), output.Text(way), output.Text(r.State),
	}
}

func (d *deps) runMigrate(ctx context.Context, args []string, o migrateOptions) error {
	settings, err := o.travel.settings()
	if err != nil {
		return err
	}
	settings.Names = o.Names
	p, err := d.printer()
	if err != nil {
		return err
	}
	return d.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		from, err := d.instanceFlag(ctx, c, "--from", o.From)
		if err != nil {
			return err
		}
		dst, done, err := d.instanceClient(ctx, c, o.To)
		if err != nil {
			return err
		}
		defer done()
		st, err := dst.InstanceStatus(ctx)
		if err != nil {
			return err
		}
		rows := []*migrateRow{}
		failed := each(args, func(arg string) error {
			found, err := d.parts(ctx, c, arg, from, st.InstanceID)
			if err != nil {
				return err
			}
			for _, r := range found {
				rows = append(rows, r)
				if o.DryRun || r.State != "" {
					continue
				}
				if err := d.move(ctx, dst, r, settings, o); err != nil {
					rows = rows[:len(rows)-1]
					return fmt.Errorf("migrate %s: %w", r.Object, err)
				}
			}
			return nil
		})
		l := output.List{Columns: migrateColumns, Items: rows}
		for _, r := range rows {
			if r.State == "" {
				r.State = "would move"
			}
			id := r.Copy
			if id == 0 {
				id = r.Object
			}
			l.IDs = append(l.IDs, id.String())
			l.Rows = append(l.Rows, r.cells())
		}
		return errors.Join(p.List(l), failed)
	})
}

// parts lists what migrating an object to an instance moves: the object, or the
// members of a global one. from, if not nil, narrows it.
func (d *deps) parts(ctx context.Context, c *client.Client, arg string, from *uint64, to uint64) ([]*migrateRow, error) {
	id, err := d.find(ctx, c, arg)
	if err != nil {
		return nil, err
	}
	m, err := c.GetObject(ctx, id)
	if err != nil {
		return nil, d.missing(ctx, c, id, err)
	}
	row := func(m *client.Meta) *migrateRow {
		r := &migrateRow{Object: m.ID, Typename: m.Typename, From: uint64(m.InstanceID), To: to}
		for _, place := range m.Places() {
			r.Bytes += place.Bytes
		}
		if r.From == to {
			r.Copy, r.State, r.Bytes = m.ID, "was there", 0
		}
		return r
	}
	if !m.Global {
		if from != nil && uint64(m.InstanceID) != *from {
			return nil, status.Errorf(status.ObjectNotExists, "%s is on %s, not on %s", arg, location(uint64(m.InstanceID)), location(*from))
		}
		return []*migrateRow{row(m)}, nil
	}
	var rows []*migrateRow
	seen := map[client.ID]bool{}
	for _, member := range m.Members {
		if member.IsBlob() || seen[member.ID] || from != nil && uint64(member.InstanceID) != *from {
			continue
		}
		seen[member.ID] = true
		r := row(member)
		r.Part = m.ID.String()
		rows = append(rows, r)
	}
	if len(rows) == 0 && from != nil {
		return nil, status.Errorf(status.ObjectNotExists, "no member of %s is on %s", arg, location(*from)).
			WithHint("`v6d locate " + arg + "` shows where they are")
	}
	return rows, nil
}

// move migrates one object and notes how that went.
func (d *deps) move(ctx context.Context, dst *client.Client, r *migrateRow, settings client.MigrateOptions, o migrateOptions) error {
	if !dst.Info().Extended {
		if settings.Parallel != 0 || settings.Limit != 0 || settings.Verify || settings.Names || settings.Compress != "auto" {
			return usage("--parallel, --bwlimit, --compress, --verify and --names need a v6d daemon on %s", location(r.To))
		}
		settings = client.MigrateOptions{}
	}
	stop := d.showTransfer(ctx, dst, r, o)
	var m client.Migration
	err := d.retried(ctx, func() (err error) {
		m, err = dst.Migrate(ctx, r.Object, settings)
		return err
	})
	stop()
	if err != nil {
		return err
	}
	r.Copy, r.State = m.ID, "moved"
	if dst.Info().Extended {
		r.Transfer, r.Bytes = &m.Transfer, m.Transfer.Bytes
		if m.Transfer.Way == "here" {
			r.State, r.Transfer = "was there", nil
		}
	}
	return nil
}

// showTransfer shows the progress of a migration to dst until it is stopped: over
// another connection, since the migration holds its own.
func (d *deps) showTransfer(ctx context.Context, dst *client.Client, r *migrateRow, o migrateOptions) (stop func()) {
	progress := output.NewProgress(d.streams.Err, r.Object.String(), max(r.Bytes, 1), o.Progress, o.NoProgress)
	if progress == nil || !dst.Info().Extended {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer progress.Done()
		look, err := dst.DialAgain(ctx)
		if err != nil {
			return // the migration itself says what is the matter
		}
		defer func() { _ = look.Close() }()
		shown := int64(0)
		for {
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
				return
			}
			st, err := nodeStatus(ctx, look)
			if err != nil {
				return
			}
			for _, t := range st.Transfers {
				if t.Object == r.Object && t.Bytes > shown {
					progress.Add(int(t.Bytes - shown))
					shown = t.Bytes
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// instanceFlag reads the number of an instance of the cluster: i1 or 1; nil for
// an empty text.
func (d *deps) instanceFlag(ctx context.Context, c *client.Client, what, text string) (*uint64, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // nothing was asked for
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "i"), 10, 64)
	if err != nil {
		return nil, usage("%s %q: want an instance such as i1", what, text).WithHint("`v6d cluster ls` shows who there is")
	}
	all, err := c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	if _, ok := all[location(n)]; !ok {
		return nil, status.Errorf(status.ObjectNotExists, "%s: there is no instance %d in the cluster", what, n).WithHint("`v6d cluster ls` shows who there is")
	}
	return &n, nil
}

// instanceClient connects to an instance of the cluster; the empty text means the
// one that c is connected to.
func (d *deps) instanceClient(ctx context.Context, c *client.Client, text string) (dst *client.Client, done func(), err error) {
	n, err := d.instanceFlag(ctx, c, "--to", text)
	if err != nil || n == nil || *n == uint64(c.Info().InstanceID) {
		return c, func() {}, err
	}
	dst, err = c.DialInstance(ctx, client.InstanceID(*n))
	if err != nil {
		return nil, nil, err
	}
	return dst, func() { _ = dst.Close() }, nil
}
