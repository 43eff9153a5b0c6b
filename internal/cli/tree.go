package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/typed"
)

type treeOptions struct {
	Depth int
	ASCII bool
}

func newTree(d *deps) *cobra.Command {
	var o treeOptions
	c := &cobra.Command{
		Use:     "tree ID|NAME",
		Short:   "Draw an object's members, down to the blobs",
		GroupID: "objects",
		Long:    `Draw an object and its members, without the plain fields that "v6d meta" shows.`,
		Example: `  v6d tree frame
  v6d tree frame --depth 1 --ascii`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.withObject(c.Context(), args[0], func(ctx context.Context, c *client.Client, m *client.Meta) error {
				return d.paged(ctx, m.ID.String(), m, func(w io.Writer) error {
					dr := drawing{ascii: o.ASCII, depth: o.Depth, own: c.Info().InstanceID}
					dr.draw(m, "", 1)
					_, err := io.WriteString(w, m.ID.String()+"  "+output.OneLine(m.Typename)+"\n"+dr.b.String())
					return err
				})
			})
		},
	}
	c.Flags().IntVar(&o.Depth, "depth", 0, "draw at most so many levels; 0 for all")
	c.Flags().BoolVar(&o.ASCII, "ascii", false, "draw with ASCII characters only")
	return c
}

// withObject runs fn with the tree of the object that an argument means.
func (d *deps) withObject(ctx context.Context, arg string, fn func(context.Context, *client.Client, *client.Meta) error) error {
	return d.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		id, err := resolve(ctx, c, arg)
		if err != nil {
			return err
		}
		m, err := c.GetObject(ctx, id)
		if errors.Is(err, client.NotExist) {
			return d.missing(ctx, c, id, err)
		}
		if err != nil {
			return err
		}
		return fn(ctx, c, m)
	})
}

// drawing draws a tree, one line a member or, with fields, a field.
type drawing struct {
	b      strings.Builder
	ascii  bool
	fields bool
	depth  int // 0: no limit
	own    client.InstanceID
}

func (d *drawing) draw(m *client.Meta, indent string, level int) {
	type line struct {
		text string
		sub  *client.Meta
	}
	var lines []line
	if d.fields {
		for _, text := range fieldLines(m) {
			lines = append(lines, line{text: text})
		}
	}
	for key, sub := range m.Members {
		lines = append(lines, line{fmt.Sprintf("%s: %s  %s%s", output.OneLine(key), sub.ID, output.OneLine(sub.Typename), d.away(sub)), sub})
	}
	tee, corner, bar := "├─ ", "└─ ", "│  "
	if d.ascii {
		tee, corner, bar = "|- ", "`- ", "|  "
	}
	for i, l := range lines {
		branch, below := tee, bar
		if i == len(lines)-1 {
			branch, below = corner, "   "
		}
		d.b.WriteString(indent + branch + l.text + "\n")
		if l.sub != nil && (d.depth == 0 || level < d.depth) {
			d.draw(l.sub, indent+below, level+1)
		}
	}
}

// away tells of a member that it is on another instance.
func (d *drawing) away(m *client.Meta) string {
	if m.InstanceID == d.own || uint64(m.InstanceID) == math.MaxUint64 {
		return ""
	}
	return fmt.Sprintf("  (on %s, not here)", location(uint64(m.InstanceID)))
}

// fieldLines writes what an object has besides members.
func fieldLines(m *client.Meta) []string {
	if m.IsBlob() {
		return nil
	}
	lines := []string{fmt.Sprintf("scope: %s, location: %s, signature: %s, created: %s",
		scope(!m.Transient), location(uint64(m.InstanceID)), m.Signature, m.Time.Format("2006-01-02T15:04:05.000Z07:00"))}
	if m.Name != "" {
		lines = append(lines, "name: "+m.Name)
	}
	if len(m.Labels) > 0 {
		lines = append(lines, "labels: "+labelText(m.Labels))
	}
	for _, key := range m.Keys() {
		lines = append(lines, fmt.Sprintf("%s: %s", key, m.Raw(key)))
	}
	for i := range lines {
		lines[i] = output.OneLine(lines[i])
	}
	return lines
}

func newDescribe(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "describe ID|NAME",
		Short:   "Explain an object: its size, who holds it, what deleting it frees",
		GroupID: "objects",
		Long: `Explain an object for people: type, scope, names, labels, bytes and blobs, who made
them and who holds them, which objects refer to it, and what deleting it would free.`,
		Example: `  v6d describe model
  v6d describe o0051dd9f7a2c0002 -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.withObject(c.Context(), args[0], func(ctx context.Context, c *client.Client, m *client.Meta) error {
				desc, err := describe(ctx, c, m)
				if err != nil {
					return err
				}
				return d.paged(ctx, m.ID.String(), desc, desc.write)
			})
		},
	}
}

// description is what describe prints.
type description struct {
	ID         client.ID         `json:"id"`
	Type       string            `json:"typename"`
	Persistent bool              `json:"persistent"`
	Instance   uint64            `json:"instance"`
	Host       string            `json:"host"` // of the instance, where that is known
	Created    string            `json:"created"`
	Names      []string          `json:"names"`
	Labels     map[string]string `json:"labels"`
	Bytes      int64             `json:"bytes"`
	Members    int               `json:"members"`
	Absent     int               `json:"absent"` // blobs on other instances
	Blobs      []client.BlobRow  `json:"blobs"`
	Owners     []client.ID       `json:"owners"` // objects that refer to it
	Frees      int64             `json:"frees"`  // bytes that deleting it would free

	Rows    int64         `json:"rows"` // -1: it has none
	Shape   []int64       `json:"shape,omitempty"`
	DType   string        `json:"dtype,omitempty"`
	Batches int           `json:"batches,omitempty"`
	Columns []typed.Field `json:"columns,omitempty"`
	Note    string        `json:"note,omitempty"`
}

func describe(ctx context.Context, c *client.Client, m *client.Meta) (*description, error) {
	d := &description{
		ID: m.ID, Type: m.Typename, Persistent: !m.Transient, Instance: uint64(m.InstanceID),
		Created: m.Time.Format("2006-01-02T15:04:05.000Z07:00"), Names: []string{}, Labels: nonNilMap(m.Labels), Owners: []client.ID{},
	}
	v := typed.Summarize(m)
	d.Rows, d.Shape, d.DType, d.Batches, d.Columns, d.Note = v.Rows, v.Shape, v.DType, v.Batches, v.Columns, v.Note
	names, err := c.ListNames(ctx, "*", 1<<40)
	if err != nil {
		return nil, err
	}
	for n, id := range names {
		if id == m.ID {
			d.Names = append(d.Names, n)
		}
	}
	slices.Sort(d.Names)
	inside := map[client.ID]bool{} // objects of the tree
	var walk func(*client.Meta)
	walk = func(m *client.Meta) {
		inside[m.ID] = true
		for _, sub := range m.Members {
			d.Members++
			walk(sub)
		}
	}
	walk(m)
	all, err := c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	d.Host = all[location(d.Instance)].Hostname
	d.Absent = absentBlobs(m, c.Info().InstanceID)
	mine := m.Blobs()
	if !c.Info().Extended {
		d.Blobs = []client.BlobRow{}
		for _, id := range mine {
			d.Blobs = append(d.Blobs, client.BlobRow{ID: id, Sealed: true})
		}
		d.Bytes, d.Frees = -1, -1
		return d, nil
	}
	for r, err := range c.BlobRows(ctx) {
		if err != nil {
			return nil, err
		}
		if r.Deleted || !slices.Contains(mine, r.ID) {
			continue
		}
		d.Blobs = append(d.Blobs, r)
		d.Bytes += r.Size
		if !slices.ContainsFunc(r.Owners, func(o client.ID) bool { return !inside[o] }) {
			d.Frees += r.Size
		}
	}
	rows, err := c.RowsOf(ctx, []client.ID{m.ID})
	if err != nil {
		return nil, err
	}
	if len(rows) > 0 && rows[0].Owned {
		if d.Owners, err = ownersOf(ctx, c, m.ID); err != nil {
			return nil, err
		}
		d.Frees = 0
	}
	return d, nil
}

// absentBlobs counts the distinct blobs of a tree that are on other instances.
func absentBlobs(m *client.Meta, own client.InstanceID) int {
	seen := map[client.ID]bool{}
	var walk func(*client.Meta)
	walk = func(m *client.Meta) {
		for _, sub := range m.Members {
			if sub.IsBlob() && sub.InstanceID != own {
				seen[sub.ID] = true
			}
			walk(sub)
		}
	}
	walk(m)
	return len(seen)
}

// ownersOf finds the objects that have a member. The daemon knows them for
// blobs only, so that the trees are looked through.
func ownersOf(ctx context.Context, c *client.Client, id client.ID) ([]client.ID, error) {
	objects, err := c.ListObjects(ctx, "*", false, 1<<40)
	if err != nil {
		return nil, err
	}
	owners := []client.ID{}
	for _, m := range objects {
		for _, sub := range m.Members {
			if sub.ID == id {
				owners = append(owners, m.ID)
				break
			}
		}
	}
	return owners, nil
}

// value says what the object is, for people.
func (d *description) value() (pairs [][2]string) {
	add := func(key, text string) { pairs = append(pairs, [2]string{key, text}) }
	if d.Shape != nil {
		add("shape", shapeOf(d.Shape))
	}
	if d.DType != "" {
		add("elements", d.DType)
	}
	if d.Rows >= 0 {
		add("rows", strconv.FormatInt(d.Rows, 10))
	}
	if d.Batches > 0 {
		add("parts", strconv.Itoa(d.Batches))
	}
	const most = 50
	for i, f := range d.Columns {
		if i == most {
			add("...", fmt.Sprintf("%d more columns", len(d.Columns)-most))
			break
		}
		add("column "+f.Name, f.Type)
	}
	if d.Note != "" {
		add("note", d.Note)
	}
	return pairs
}

func (d *description) write(w io.Writer) error {
	join := func(list []string) string {
		if len(list) == 0 {
			return "none"
		}
		return strings.Join(list, ", ")
	}
	var owners []string
	for _, id := range d.Owners {
		owners = append(owners, id.String())
	}
	size := func(n int64) string {
		if n < 0 {
			return "not told by this daemon"
		}
		return config.FormatSize(n)
	}
	where := location(d.Instance)
	if d.Host != "" {
		where += " on host " + d.Host
	}
	if d.Absent > 0 {
		where += fmt.Sprintf("; blobs on other instances, not here: %d", d.Absent)
	}
	if !d.Persistent {
		where += ", this daemon's clients only (persist it to show it to the cluster)"
	}
	pairs := [][2]string{
		{"object", d.ID.String()},
		{"type", d.Type},
		{"names", join(d.Names)},
		{"labels", labelText(d.Labels)},
		{"created", d.Created},
		{"where", where},
		{"members", fmt.Sprint(d.Members)},
		{"bytes", size(d.Bytes)},
		{"part of", join(owners)},
		{"deleting frees", size(d.Frees)},
	}
	pairs = append(pairs, d.value()...)
	for _, b := range d.Blobs {
		text := fmt.Sprintf("%s, %s, held by %d connections", config.FormatSize(b.Size), blobState(&b), b.Refs)
		if b.PID > 0 {
			text += fmt.Sprintf(", made by process %d of user %d", b.PID, b.UID)
		}
		pairs = append(pairs, [2]string{"blob " + b.ID.String(), text})
	}
	return output.Fields(w, pairs...)
}
