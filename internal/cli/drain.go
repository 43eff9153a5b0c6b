package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
)

type drainOptions struct {
	To     string
	DryRun bool
	Yes    bool
	travel travelOptions
}

func newClusterDrain(d *deps) *cobra.Command {
	var o drainOptions
	c := &cobra.Command{
		Use:   "drain INSTANCE",
		Short: "Move everything persistent away from an instance",
		Long: `Move every persistent object of an instance to the others, largest first to where most
room is, so that its daemon can be stopped without a loss. The copies have new ids;
names follow, and global objects find them. Global objects of which every part was
there are made again. What was moved is deleted at the instance at the end, when all
of it is elsewhere; until then nothing is taken away, and a drain that fails or is
interrupted can be repeated.

Transient objects and streams are not moved: they are seen on that instance only, and
end with its daemon. What is persisted there while the drain is at work is moved as
well. With --timeout it waits for a metadata service that is away. On a terminal it asks first, elsewhere it needs --yes.`,
		Example: `  v6d cluster drain i2 --dry-run
  v6d cluster drain i2 --yes && systemctl stop v6d`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return d.runDrain(c.Context(), args[0], o) },
	}
	f := c.Flags()
	f.StringVar(&o.To, "to", "", "only to these instances, separated by commas")
	f.BoolVarP(&o.DryRun, "dry-run", "n", false, "say what would be moved, and move nothing")
	f.BoolVarP(&o.Yes, "yes", "y", false, "do not ask")
	o.travel.flags(c)
	return c
}

// drainRow is one object of a drain as it is printed in JSON.
type drainRow struct {
	Object   client.ID `json:"object"`
	Typename string    `json:"typename"`
	Bytes    int64     `json:"bytes"` // what the metadata say
	To       uint64    `json:"to"`
	Copy     client.ID `json:"copy"`  // 0 with --dry-run
	State    string    `json:"state"` // would move, moved, made again
	Global   bool      `json:"global"`
}

// target is an instance that takes objects in.
type target struct {
	number uint64
	free   int64
	c      *client.Client
}

// drain moves the objects of one instance.
type drain struct {
	d        *deps
	c        *client.Client // of the daemon that is asked
	from     uint64
	targets  []*target
	settings client.MigrateOptions
	rows     []*drainRow
	moved    map[client.ID]client.ID // copies by what they are copies of
}

func (d *deps) runDrain(ctx context.Context, arg string, o drainOptions) error {
	settings, err := o.travel.settings()
	if err != nil {
		return err
	}
	settings.Names = true
	p, err := d.printer()
	if err != nil {
		return err
	}
	return d.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		from, err := d.instanceFlag(ctx, c, "INSTANCE", arg)
		if err != nil {
			return err
		}
		if !c.Info().Extended {
			return status.Errorf(status.NotImplemented, "a drain needs a v6d daemon to ask").WithHint("name one with -H or --socket")
		}
		w := &drain{d: d, c: c, from: *from, settings: settings, moved: map[client.ID]client.ID{}}
		defer w.close()
		if err := w.findTargets(ctx, d, o.To); err != nil {
			return err
		}
		todo, err := w.plan(ctx)
		if err != nil {
			return err
		}
		if o.DryRun || len(todo) == 0 {
			w.rows = todo
			d.noteLeft(ctx, c, w)
			return w.print(p)
		}
		if err := d.confirmDrain(o, w, todo); err != nil {
			return err
		}
		err = w.run(ctx, todo)
		if err == nil {
			d.noteLeft(ctx, c, w)
			fmt.Fprintf(d.streams.Err, "v6d: nothing persistent is left on %s: its daemon can be stopped\n", location(w.from))
		}
		return errors.Join(w.print(p), err)
	})
}

// findTargets connects to the instances that can take something.
func (w *drain) findTargets(ctx context.Context, d *deps, only string) error {
	wanted := map[uint64]bool{}
	for _, text := range config.List(only) {
		n, err := d.instanceFlag(ctx, w.c, "--to", text)
		if err != nil {
			return err
		}
		if *n == w.from {
			return usage("--to %s is the instance that is drained", text)
		}
		wanted[*n] = true
	}
	rows, err := d.instances(ctx, w.c, 3*time.Second)
	if err != nil {
		return err
	}
	var why []string
	for _, r := range rows {
		switch {
		case r.Instance == w.from || len(wanted) > 0 && !wanted[r.Instance]:
			continue
		case r.State != "up":
			why = append(why, fmt.Sprintf("%s: %s", location(r.Instance), r.State))
			continue
		}
		t := &target{number: r.Instance, free: r.Limit - r.Used, c: w.c}
		if !r.Self {
			if t.c, err = w.c.DialInstance(ctx, client.InstanceID(r.Instance)); err != nil {
				return err
			}
		}
		if !t.c.Info().Extended {
			why = append(why, location(r.Instance)+": not a v6d daemon, which names could not follow to")
			if !r.Self {
				_ = t.c.Close()
			}
			continue
		}
		w.targets = append(w.targets, t)
	}
	if len(w.targets) == 0 {
		return status.Errorf(status.Invalid, "there is no instance that could take the objects of %s%s", location(w.from), strings.Join(append([]string{""}, why...), "; ")).
			WithHint("`v6d cluster ls` shows the instances")
	}
	return nil
}

func (w *drain) close() {
	for _, t := range w.targets {
		if t.c != w.c {
			_ = t.c.Close() // everything was answered
		}
	}
}

// plan lists what is to be moved, and where to: objects that are no member of
// another one that moves, largest first, then global objects that are nowhere
// else.
func (w *drain) plan(ctx context.Context) ([]*drainRow, error) {
	rows, inside, err := w.list(ctx)
	if err != nil {
		return nil, err
	}
	var todo, globals []*drainRow
	for _, r := range rows {
		switch {
		case inside[r.Object]:
		case r.Global:
			globals = append(globals, r)
		default:
			todo = append(todo, r)
		}
	}
	slices.SortFunc(todo, func(a, b *drainRow) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Object, b.Object))
	})
	free := map[*target]int64{}
	for _, t := range w.targets {
		free[t] = t.free
	}
	roomiest := func() *target {
		return slices.MaxFunc(w.targets, func(a, b *target) int { return cmp.Compare(free[a], free[b]) })
	}
	var lacking int64
	for _, r := range todo {
		t := roomiest()
		r.To = t.number
		if free[t] -= r.Bytes; free[t] < 0 {
			lacking = max(lacking, -free[t])
		}
	}
	if lacking > 0 {
		return nil, status.Errorf(status.NotEnoughMemory, "the other instances lack %s for what is on %s", config.FormatSize(lacking), location(w.from)).
			WithHint("delete objects, or start another daemon first")
	}
	for _, r := range globals {
		r.To = roomiest().number
	}
	return append(todo, globals...), nil
}

// list returns the persistent objects of the instance, and which of them are
// members of others among them.
func (w *drain) list(ctx context.Context) (rows []*drainRow, inside map[client.ID]bool, err error) {
	var composed []client.ID
	for r, err := range w.c.Rows(ctx, client.PageOptions{Size: 50_000}) {
		if err != nil {
			return nil, nil, err
		}
		if r.Instance != w.from || r.Transient {
			continue
		}
		rows = append(rows, &drainRow{Object: r.ID, Typename: r.Type, Global: r.Global, State: "would move"})
		if r.Members > 0 && !r.Global {
			composed = append(composed, r.ID)
		}
	}
	inside = map[client.ID]bool{}
	bytes := map[client.ID]int64{}
	const batch = 256
	note := func(ids []client.ID, f func(*client.Meta)) error {
		for part := range slices.Chunk(ids, batch) {
			list, err := w.c.GetObjects(ctx, part, client.GetOptions{})
			if err != nil {
				return err
			}
			for _, m := range list {
				f(m)
			}
		}
		return nil
	}
	var mark func(m *client.Meta)
	mark = func(m *client.Meta) {
		for _, member := range m.Members {
			if !member.IsBlob() {
				inside[member.ID] = true
				mark(member)
			}
		}
	}
	if err := note(composed, mark); err != nil {
		return nil, nil, err
	}
	var tops []client.ID
	for _, r := range rows {
		if !inside[r.Object] && !r.Global {
			tops = append(tops, r.Object)
		}
	}
	err = note(tops, func(m *client.Meta) {
		for _, place := range m.Places() {
			bytes[m.ID] += place.Bytes
		}
	})
	for _, r := range rows {
		r.Bytes = bytes[r.Object]
	}
	return rows, inside, err
}

func (d *deps) confirmDrain(o drainOptions, w *drain, todo []*drainRow) error {
	if o.Yes {
		return nil
	}
	var total int64
	for _, r := range todo {
		total += r.Bytes
	}
	what := fmt.Sprintf("%d objects, %s, from %s", len(todo), config.FormatSize(total), location(w.from))
	if !output.IsTerminal(d.streams.In) || os.Getenv("V6D_NO_INPUT") != "" || os.Getenv("CI") != "" {
		return usage("the drain would move %s", what).WithHint("add --yes to do it, or --dry-run to see the plan")
	}
	fmt.Fprintf(d.streams.Err, "Move %s? Type yes: ", what)
	line, err := bufio.NewReader(d.streams.In).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "yes" {
		return usage("nothing was moved")
	}
	return nil
}

// drainRounds bounds how often the instance is looked at for objects that came
// while others were moved.
const drainRounds = 10

// run moves everything, and deletes the originals when all of it is elsewhere.
func (w *drain) run(ctx context.Context, todo []*drainRow) error {
	for range drainRounds {
		if len(todo) == 0 {
			return nil
		}
		var errs []error
		for _, r := range todo {
			err := w.move(ctx, r)
			if err != nil && errors.Is(err, client.NotExist) {
				if known, kerr := w.c.Exists(ctx, r.Object); kerr == nil && !known {
					continue // somebody deleted it meanwhile
				}
			}
			if err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				errs = append(errs, fmt.Errorf("%s %s: %w", r.Typename, r.Object, err))
				continue
			}
			w.rows = append(w.rows, r)
		}
		if len(errs) > 0 {
			return status.Errorf(status.Of(errs[0]), "%d of %d objects stay on %s, and so do the originals of the others: %w",
				len(errs), len(todo), location(w.from), errors.Join(errs...))
		}
		if err := w.deleteOriginals(ctx, todo); err != nil {
			return err
		}
		var err error
		if todo, err = w.plan(ctx); err != nil {
			return err
		}
		if err := w.stays(todo); err != nil {
			return err
		}
	}
	return status.Errorf(status.Invalid, "objects are persisted on %s faster than they can be moved", location(w.from)).
		WithHint("stop who makes them, and drain again")
}

// stays reports originals that were moved, but could not be deleted.
func (w *drain) stays(todo []*drainRow) error {
	var ids []string
	for _, r := range todo {
		if w.moved[r.Object] != 0 {
			ids = append(ids, r.Object.String())
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return status.Errorf(status.ObjectExists, "everything is elsewhere, but %d originals stay on %s, since other objects refer to them: %s",
		len(ids), location(w.from), strings.Join(ids[:min(len(ids), 5)], ", ")).
		WithHint("`v6d describe " + ids[0] + "` shows which; they end with the daemon")
}

// move brings one object to its target, or, when that has no room, to another.
func (w *drain) move(ctx context.Context, r *drainRow) error {
	order := slices.Clone(w.targets)
	slices.SortStableFunc(order, func(a, b *target) int {
		return cmp.Or(-cmp.Compare(flagOf(a.number == r.To), flagOf(b.number == r.To)), cmp.Compare(b.free, a.free))
	})
	var last error
	for _, t := range order {
		last = w.d.retried(ctx, func() error {
			if r.Global {
				return w.makeAgain(ctx, t, r)
			}
			m, err := t.c.Migrate(ctx, r.Object, w.settings)
			if err == nil {
				r.Copy, r.State = m.ID, "moved"
				t.free -= m.Transfer.Bytes
			}
			return err
		})
		if last == nil {
			r.To = t.number
			w.moved[r.Object] = r.Copy
			return nil
		}
		if !errors.Is(last, client.NoMemory) && !errors.Is(last, client.Unreachable) {
			break
		}
	}
	return last
}

func flagOf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// makeAgain makes a global object on an instance that takes its members in: all of
// them were on the one that is drained, and the object would go with it.
func (w *drain) makeAgain(ctx context.Context, t *target, r *drainRow) (err error) {
	old, err := t.c.GetObject(ctx, r.Object)
	if err != nil {
		return err
	}
	m := client.NewMeta(old.Typename)
	m.Global = true
	for _, key := range old.Keys() {
		m.Set(key, old.Raw(key))
	}
	for key, member := range old.Members {
		id := member.ID
		if copied := w.moved[id]; copied != 0 && uint64(member.InstanceID) == w.from {
			id = copied
		}
		m.AddObject(key, id)
	}
	if r.Copy, err = t.c.CreateObject(ctx, m); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = t.c.Delete(context.WithoutCancel(ctx), []client.ID{r.Copy}, client.DeleteOptions{Shallow: true})
			r.Copy = 0
		}
	}()
	if len(old.Labels) > 0 {
		if err = t.c.Label(ctx, r.Copy, old.Labels); err != nil {
			return err
		}
	}
	if err = t.c.Persist(ctx, r.Copy); err != nil {
		return err
	}
	names, err := t.c.ListNames(ctx, "*", 1<<40)
	if err != nil {
		return err
	}
	for name, id := range names {
		if id == r.Object {
			if err = t.c.PutName(ctx, r.Copy, name); err != nil {
				return err
			}
		}
	}
	r.State = "made again"
	return nil
}

// deleteOriginals deletes what was moved, once the copies are seen.
func (w *drain) deleteOriginals(ctx context.Context, moved []*drainRow) error {
	var objects, globals []client.ID
	for _, r := range moved {
		if r.Copy == 0 {
			continue
		}
		known, err := w.c.Exists(ctx, r.Copy)
		if err == nil && !known {
			err = status.Errorf(status.ObjectNotExists, "the copy %s of %s is gone again; nothing was deleted on %s", r.Copy, r.Object, location(w.from)).
				WithHint("drain again")
		}
		if err != nil {
			return err
		}
		if r.Global {
			globals = append(globals, r.Object)
		} else {
			objects = append(objects, r.Object)
		}
	}
	if len(globals) > 0 {
		if err := w.delete(ctx, globals, true); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(objects, 1024) {
		if err := w.delete(ctx, part, false); err != nil {
			return err
		}
	}
	return nil
}

func (w *drain) delete(ctx context.Context, ids []client.ID, shallow bool) error {
	return w.d.retried(ctx, func() error { return w.c.Delete(ctx, ids, client.DeleteOptions{Shallow: shallow}) })
}

// noteLeft says what ends with the instance's daemon.
func (d *deps) noteLeft(ctx context.Context, c *client.Client, w *drain) {
	there := c
	if uint64(c.Info().InstanceID) != w.from {
		var err error
		if there, err = c.DialInstance(ctx, client.InstanceID(w.from)); err != nil {
			return // it is a service only
		}
		defer func() { _ = there.Close() }()
	}
	if !there.Info().Extended {
		return
	}
	transient, streams := 0, 0
	for r, err := range there.Rows(ctx, client.PageOptions{Size: 50_000, Fields: []string{"transient", "instance_id"}}) {
		if err != nil {
			return
		}
		if r.Transient && r.Instance == w.from {
			transient++
		}
	}
	if st, err := nodeStatus(ctx, there); err == nil {
		streams = len(st.Streams)
	}
	if transient+streams > 0 {
		fmt.Fprintf(d.streams.Err, "v6d: %d transient objects and %d streams of %s end with its daemon\n", transient, streams, location(w.from))
	}
}

func (w *drain) print(p *output.Printer) error {
	l := output.List{Columns: []output.Column{
		{Name: "OBJECT"}, {Name: "TYPE", Cut: true}, {Name: "BYTES"}, {Name: "TO"}, {Name: "COPY"}, {Name: "STATE"},
	}, Items: w.rows}
	if w.rows == nil {
		l.Items = []*drainRow{}
	}
	for _, r := range w.rows {
		copied := "-"
		if r.Copy != 0 {
			copied = r.Copy.String()
		}
		l.IDs = append(l.IDs, r.Object.String())
		l.Rows = append(l.Rows, []output.Cell{
			output.Text(r.Object.String()), output.Text(r.Typename), output.Size(r.Bytes), output.Text(location(r.To)), output.Text(copied), output.Text(r.State),
		})
	}
	return p.List(l)
}
