package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/driver/codec"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/tui"
	"github.com/v6d-go/v6d/typed"
)

// liveSource is what the browser shows of a real daemon: each question takes a
// connection of its own for as long as it lasts.
type liveSource struct {
	d *deps

	mu     sync.Mutex
	idle   []*client.Client // guarded by mu
	closed bool             // guarded by mu
}

var _ tui.Source = (*liveSource)(nil)

// mostIdle connections are kept between questions.
const mostIdle = 3

func newLiveSource(d *deps) *liveSource { return &liveSource{d: d} }

// with calls f with a connection.
func (s *liveSource) with(ctx context.Context, f func(context.Context, *client.Client) error) error {
	s.mu.Lock()
	var c *client.Client
	if n := len(s.idle); n > 0 {
		c, s.idle = s.idle[n-1], s.idle[:n-1]
	}
	s.mu.Unlock()
	fresh := c == nil
	if fresh {
		var err error
		if c, err = s.d.dial(ctx); err != nil {
			return err
		}
	}
	err := f(ctx, c)
	if errors.Is(err, client.Unreachable) && !fresh && ctx.Err() == nil {
		// The daemon may have been restarted since: once more, on a new connection.
		_ = c.Close()
		s.forget()
		if c, err = s.d.dial(ctx); err != nil {
			return err
		}
		err = f(ctx, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil || errors.Is(err, client.Unreachable) || s.closed || len(s.idle) >= mostIdle {
		_ = c.Close()
	} else {
		s.idle = append(s.idle, c)
	}
	return err
}

// forget closes the connections that wait: the daemon is another one by now.
func (s *liveSource) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.idle {
		_ = c.Close()
	}
	s.idle = nil
}

// Close implements tui.Source.
func (s *liveSource) Close() error {
	s.forget()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// Overview implements tui.Source.
func (s *liveSource) Overview(ctx context.Context) (o tui.Overview, err error) {
	err = s.with(ctx, func(ctx context.Context, c *client.Client) error {
		info := c.Info()
		o = tui.Overview{Address: info.Socket, Remote: !info.Local, Extended: info.Extended, Version: info.Version, Instance: uint64(info.InstanceID)}
		if !info.Local {
			o.Address = info.RPCEndpoint
		}
		if !info.Extended {
			st, err := c.InstanceStatus(ctx)
			if err == nil {
				o.Used, o.Limit, o.Instance = st.MemoryUsage, st.MemoryLimit, st.InstanceID
				o.Clients = int(st.IPCConnections + st.RPCConnections)
			}
			return err
		}
		st, err := nodeStatus(ctx, c)
		if err != nil {
			return err
		}
		l := st.Ledger
		o.Version, o.Instance = st.Version, uint64(st.Cluster.Instance)
		o.Used, o.Limit, o.Deferred, o.Cached = l.Usage, l.Limit, l.Deferred, l.Cached
		o.Objects, o.Blobs, o.Clients, o.Moving = st.Objects, l.Blobs, len(st.Connections), len(st.Transfers)
		o.Failure = cmp.Or(st.Damage, st.Cluster.Failure)
		return nil
	})
	return o, err
}

// Instances implements tui.Source.
func (s *liveSource) Instances(ctx context.Context) (list []tui.Instance, err error) {
	err = s.with(ctx, func(ctx context.Context, c *client.Client) error {
		rows, err := s.d.instances(ctx, c, 2*time.Second)
		for _, r := range rows {
			i := tui.Instance{
				Number: r.Instance, Host: r.Hostname, Endpoint: r.RPCEndpoint, Used: r.Used, Limit: r.Limit, Objects: r.Objects,
				Clients: -1, Heartbeat: time.Duration(r.HeartbeatAge) * time.Millisecond, State: r.State, Self: r.Self,
			}
			if r.Self {
				if st, err := c.InstanceStatus(ctx); err == nil {
					i.Clients = int(st.IPCConnections + st.RPCConnections)
				}
			}
			list = append(list, i)
		}
		return err
	})
	return list, err
}

// Objects implements tui.Source.
func (s *liveSource) Objects(ctx context.Context, yield func([]client.Row) bool) error {
	return s.with(ctx, func(ctx context.Context, c *client.Client) error {
		if !c.Info().Extended {
			return classicObjects(ctx, c, yield)
		}
		var page []client.Row
		most := 500 // the first ones at once, then more at a time
		for r, err := range c.Rows(ctx, client.PageOptions{Size: 5000}) {
			if err != nil {
				return err
			}
			if page = append(page, r); len(page) == most {
				if !yield(page) {
					return nil
				}
				page, most = make([]client.Row, 0, 5000), 5000
			}
		}
		if len(page) > 0 {
			yield(page)
		}
		return nil
	})
}

// classicObjects lists the objects of a daemon of the reference.
func classicObjects(ctx context.Context, c *client.Client, yield func([]client.Row) bool) error {
	metas, err := c.ListObjects(ctx, "*", false, 1<<40)
	if err != nil {
		return err
	}
	names, err := c.ListNames(ctx, "*", 1<<40)
	if err != nil {
		return err
	}
	by := map[client.ID][]string{}
	for n, id := range names {
		by[id] = append(by[id], n)
	}
	owned := map[client.ID]bool{}
	rows := make([]client.Row, 0, len(metas))
	for _, m := range metas {
		rows = append(rows, classicRow(m, by))
		for _, member := range m.Members {
			owned[member.ID] = true
		}
	}
	for i := range rows {
		rows[i].Owned = owned[rows[i].ID]
	}
	slices.SortFunc(rows, func(a, b client.Row) int { return cmp.Compare(a.ID, b.ID) })
	yield(rows)
	return nil
}

func classicRow(m *client.Meta, names map[client.ID][]string) client.Row {
	r := client.Row{
		ID: m.ID, Type: m.Typename, Instance: uint64(m.InstanceID), Signature: uint64(m.Signature), Transient: m.Transient, Global: m.Global,
		TimeMS: m.Time.UnixMilli(), Names: names[m.ID], Labels: m.Labels,
	}
	slices.Sort(r.Names)
	for range m.Members {
		r.Members++
	}
	for _, p := range m.Places() {
		r.Bytes += p.Bytes
	}
	return r
}

// Rows implements tui.Source.
func (s *liveSource) Rows(ctx context.Context, ids []client.ID) (rows []client.Row, err error) {
	err = s.with(ctx, func(ctx context.Context, c *client.Client) (err error) {
		rows, err = c.RowsOf(ctx, ids)
		return err
	})
	return rows, err
}

// Names implements tui.Source.
func (s *liveSource) Names(ctx context.Context) (list []tui.Name, err error) {
	err = s.with(ctx, func(ctx context.Context, c *client.Client) error {
		names, err := c.ListNames(ctx, "*", 1<<40)
		if err != nil {
			return err
		}
		ids := make([]client.ID, 0, len(names))
		for _, id := range names {
			ids = append(ids, id)
		}
		at := map[client.ID]client.Row{}
		if c.Info().Extended {
			rows, err := c.RowsOf(ctx, ids)
			if err != nil {
				return err
			}
			for _, r := range rows {
				at[r.ID] = r
			}
		} else {
			metas, err := c.GetObjects(ctx, ids, client.GetOptions{})
			if err != nil {
				return err
			}
			for _, m := range metas {
				at[m.ID] = classicRow(m, nil)
			}
		}
		for name, id := range names {
			r, ok := at[id]
			list = append(list, tui.Name{Name: name, ID: id, Type: r.Type, Bytes: r.Bytes, Gone: !ok})
		}
		slices.SortFunc(list, func(a, b tui.Name) int { return strings.Compare(a.Name, b.Name) })
		return nil
	})
	return list, err
}

// Streams implements tui.Source.
func (s *liveSource) Streams(ctx context.Context) (list []tui.Stream, err error) {
	err = s.with(ctx, func(ctx context.Context, c *client.Client) error {
		all, err := listStreams(ctx, c)
		for _, in := range all {
			st := tui.Stream{
				Name: in.Name, ID: in.ID, Type: in.Typename, State: in.State, Reason: in.Reason, Writer: in.Writer, Chunks: in.Chunks,
				Bytes: in.Bytes, Ready: in.Ready, Pushed: in.Pushed, Pulled: in.Pulled, Waits: in.Waits, Rate: -1,
			}
			for _, r := range in.Readers {
				st.Readers = append(st.Readers, fmt.Sprintf("%s at %d", cmp.Or(r.Name, "(no name)"), r.At))
			}
			list = append(list, st)
		}
		return err
	})
	return list, err
}

// Clients implements tui.Source.
func (s *liveSource) Clients(ctx context.Context) (list []tui.Client, err error) {
	err = s.with(ctx, func(ctx context.Context, c *client.Client) error {
		st, err := nodeStatus(ctx, c)
		if err != nil {
			return err
		}
		type sums struct {
			made, unsealed int64
			uid            int
		}
		by := map[int]*sums{} // by process
		for r, err := range c.BlobRows(ctx) {
			if err != nil {
				return err
			}
			if by[r.PID] == nil {
				by[r.PID] = &sums{uid: r.UID}
			}
			by[r.PID].made += r.Size
			if !r.Sealed {
				by[r.PID].unsealed += r.Size
			}
		}
		seen := map[int]bool{}
		alike := map[string]int{}
		for _, cn := range st.Connections {
			key := fmt.Sprintf("%d/%s/%s", cn.PID, cn.Remote, cn.Since)
			alike[key]++
			item := tui.Client{
				Key: fmt.Sprintf("%s/%d", key, alike[key]), PID: cn.PID, Process: cn.Remote, Session: cn.Session, Since: cn.Since,
				Requests: cn.Requests, Idle: cn.Idle, Extended: cn.Extended,
			}
			if cn.PID != 0 {
				item.Process = processName(cn.PID, cn.UID)
				if m := by[cn.PID]; m != nil && !seen[cn.PID] { // once for each process
					item.Made, item.Unsealed = m.made, m.unsealed
				}
				seen[cn.PID] = true
			}
			list = append(list, item)
		}
		for pid, m := range by {
			if pid != 0 && !seen[pid] { // nobody is connected any more, but the blobs are there
				list = append(list, tui.Client{
					Key: "gone/" + strconv.Itoa(pid), PID: pid, Process: processName(pid, m.uid), Made: m.made, Unsealed: m.unsealed,
					Gone: m.unsealed > 0, Idle: true, Session: "not connected",
				})
			}
		}
		slices.SortFunc(list, func(a, b tui.Client) int { return cmp.Or(cmp.Compare(b.Made, a.Made), strings.Compare(a.Key, b.Key)) })
		return nil
	})
	return list, err
}

// Shares implements tui.Source.
func (s *liveSource) Shares(ctx context.Context, by string) (list []tui.Share, err error) {
	err = s.with(ctx, func(ctx context.Context, c *client.Client) error {
		l, err := runDu(ctx, c, duOptions{By: by})
		if err != nil {
			return err
		}
		for _, sh := range l.Items.([]share) {
			if sh.Key != "total" {
				list = append(list, tui.Share(sh))
			}
		}
		return nil
	})
	return list, err
}

// Object implements tui.Source.
func (s *liveSource) Object(ctx context.Context, id client.ID) (o *tui.Object, err error) {
	err = s.with(ctx, func(ctx context.Context, c *client.Client) error {
		m, err := c.GetObject(ctx, id)
		if err != nil {
			return err
		}
		desc, err := describe(ctx, c, m)
		if err != nil {
			return err
		}
		o = &tui.Object{
			Meta: m, Names: desc.Names, Frees: desc.Frees, Blobs: len(m.Blobs()), Bytes: desc.Bytes, Here: uint64(c.Info().InstanceID),
		}
		if desc.Absent > 0 || desc.Bytes < 0 {
			o.Bytes = 0
			for _, p := range m.Places() {
				o.Bytes += p.Bytes
			}
		}
		owners, err := c.GetObjects(ctx, desc.Owners, client.GetOptions{})
		for _, owner := range owners {
			o.Owners = append(o.Owners, tui.Ref{ID: owner.ID, Type: owner.Typename, Name: owner.Name})
		}
		return err
	})
	return o, err
}

// Watch implements tui.Source.
func (s *liveSource) Watch(ctx context.Context, cursor uint64) (events []client.Event, next uint64, lost bool, err error) {
	err = s.with(ctx, func(ctx context.Context, c *client.Client) (err error) {
		events, next, lost, err = c.Events(ctx, cursor, 30*time.Second)
		return err
	})
	return events, next, lost, err
}

// Past implements tui.Source.
func (s *liveSource) Past(ctx context.Context, until uint64) (all []client.Event, err error) {
	err = s.with(ctx, func(ctx context.Context, c *client.Client) error {
		all = nil // it may be the second try
		for cursor := uint64(1); cursor < until; {
			events, next, _, err := c.Events(ctx, cursor, 0)
			if err != nil || len(events) == 0 {
				return err
			}
			all, cursor = append(all, events...), next
		}
		return nil
	})
	return slices.DeleteFunc(all, func(e client.Event) bool { return e.Seq >= until }), err
}

// Run implements tui.Source: the command line is run in this process.
func (s *liveSource) Run(ctx context.Context, args ...string) (string, error) {
	var out, errs bytes.Buffer
	d := &deps{streams: output.Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, global: &globalOptions{}}
	*d.global = *s.d.global
	root := newRoot(d)
	root.SetArgs(append(s.connectionFlags(), args...))
	root.SetIn(d.streams.In)
	root.SetOut(&out)
	root.SetErr(&errs)
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

// connectionFlags are the global flags of the browser that its commands need, too.
func (s *liveSource) connectionFlags() (args []string) {
	g := s.d.global
	for flag, value := range map[string]string{"--socket": g.Socket, "--host": g.Host, "--username": g.Username, "--context": g.Context} {
		if value != "" {
			args = append(args, flag+"="+value)
		}
	}
	return append(args, "--no-pager", "--color=never")
}

// Bounds of a preview.
const (
	previewRows    = 1000
	previewColumns = 200
	previewBytes   = 64 << 10
	previewText    = 256 << 10
	previewCount   = 1 << 20 // elements that statistics look at
)

// Value implements tui.Source.
func (s *liveSource) Value(ctx context.Context, id client.ID, limit int64) (v *tui.Value, err error) {
	err = s.with(ctx, func(ctx context.Context, c *client.Client) error {
		if id.IsBlob() {
			return blobValue(ctx, c, id, &v)
		}
		m, err := c.GetObject(ctx, id)
		if err != nil {
			return err
		}
		var far int64
		for _, p := range m.Places() {
			if p.Instance != c.Info().InstanceID {
				far += p.Bytes
			}
		}
		if limit >= 0 && far > limit {
			return &tui.FarError{Bytes: far}
		}
		return withValue(ctx, c, m, true, func(x any) error {
			v, err = preview(m, x)
			return err
		})
	})
	return v, err
}

func blobValue(ctx context.Context, c *client.Client, id client.ID, v **tui.Value) error {
	data, err := contentOf(ctx, c, id, nil, false)
	if err != nil {
		return err
	}
	defer data.close()
	var b bytes.Buffer
	if err := data.copy(&b, 0, min(data.size, previewBytes)); err != nil {
		return err
	}
	*v = &tui.Value{ID: id, Kind: "bytes", About: "blob of " + plural(data.size, "byte") + shown(int64(b.Len()), data.size), Total: data.size}
	setBytes(*v, b.Bytes())
	return nil
}

// setBytes shows bytes as text, if that is what they are.
func setBytes(v *tui.Value, b []byte) {
	if text, ok := asText(b); ok {
		v.Kind, v.Text = "text", text
		return
	}
	v.Kind, v.Bytes = "bytes", append([]byte{}, b...)
}

func shown(n, of int64) string {
	if n >= of {
		return ""
	}
	return fmt.Sprintf(", the first %d", n)
}

// preview makes what is shown of a value, in memory of its own.
func preview(m *client.Meta, x any) (*tui.Value, error) {
	v := &tui.Value{ID: m.ID, About: m.Typename}
	switch t := x.(type) {
	case []byte:
		v.Total = int64(len(t))
		v.About = plural(v.Total, "byte") + shown(previewBytes, v.Total)
		setBytes(v, t[:min(len(t), previewBytes)])
		return v, nil
	case *typed.Tensor:
		v.Kind = "array"
		v.About = fmt.Sprintf("array %s of %s", shapeOf(t.Shape), t.DType)
		if t.DType.Kind == typed.Uint && t.DType.Size == 1 && len(t.Shape) == 1 { // most likely a file
			v.Total = int64(len(t.Data))
			if setBytes(v, t.Data[:min(len(t.Data), previewBytes)]); v.Kind == "text" {
				v.About = plural(v.Total, "byte") + " of text" + shown(previewBytes, v.Total)
			} else {
				statistics(v, t)
			}
			return v, nil
		}
		statistics(v, t)
		if len(t.Shape) > 0 {
			x = t.Rows(0, previewRows)
			v.Total = t.Shape[0]
		}
	case *typed.DataFrame:
		v.Total = t.Rows()
		cut, err := t.Slice(0, previewRows)
		if err != nil {
			return nil, err
		}
		x = cut
	}
	t, err := codec.Table(x)
	if err != nil {
		f, ok := codec.ByName("json")
		if !ok {
			return nil, err
		}
		var b bytes.Buffer
		if err := f.Encode(&limited{&b, previewText}, x, codec.WriteOptions{}); err != nil && !errors.Is(err, errEnough) {
			return nil, err
		}
		v.Kind, v.Text = "value", spread(b.String())
		return v, nil
	}
	if v.Total == 0 {
		v.Total = t.Rows()
	}
	if v.Kind == "" {
		v.Kind = "table"
		v.About = fmt.Sprintf("%s, %s", plural(v.Total, "row"), plural(int64(len(t.Names())), "column"))
	}
	if v.Total > previewRows {
		v.About += fmt.Sprintf(", the first %d rows", previewRows)
	}
	fields := t.Schema.Fields()
	for i, name := range t.Names() {
		if i == previewColumns {
			v.About += fmt.Sprintf(", the first %d columns", previewColumns)
			break
		}
		v.Columns = append(v.Columns, name)
		v.Types = append(v.Types, typeText(fields[i].Type))
		v.Numeric = append(v.Numeric, isNumeric(fields[i].Type))
	}
	for _, batch := range t.Slice(0, previewRows).Batches {
		for row := range int(batch.NumRows()) {
			cells := make([]string, len(v.Columns))
			for i := range cells {
				cells[i] = codec.Cell(batch.Column(i), row)
			}
			v.Rows = append(v.Rows, cells)
		}
	}
	return v, nil
}

var errEnough = errors.New("that is enough")

// limited takes so many bytes.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), l.left)
	l.left -= n
	if _, err := l.w.Write(b[:n]); err != nil {
		return 0, err
	}
	if n < len(b) {
		return n, errEnough
	}
	return n, nil
}

// statistics describes the numbers of an array: of at most a million, evenly
// spread.
func statistics(v *tui.Value, t *typed.Tensor) {
	n := t.Len()
	step := max(n/previewCount, 1)
	low, high, sum := math.Inf(1), math.Inf(-1), 0.0
	count, odd := 0, 0
	numbers := make([]float64, 0, n/step)
	for i := 0; i < n; i += step {
		f, ok := asFloat(t.At(i))
		if !ok {
			return
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			odd++
			continue
		}
		numbers = append(numbers, f)
		low, high, sum = min(low, f), max(high, f), sum+f
		count++
	}
	if count == 0 {
		return
	}
	mean, spread := sum/float64(count), 0.0
	for _, f := range numbers {
		spread += (f - mean) * (f - mean)
	}
	text := func(f float64) string { return strconv.FormatFloat(f, 'g', 6, 64) }
	v.Stats = []string{"min " + text(low), "max " + text(high), "mean " + text(mean), "std " + text(math.Sqrt(spread/float64(count)))}
	if odd > 0 {
		v.Stats = append(v.Stats, fmt.Sprintf("NaN or infinite %d", odd))
	}
	if step > 1 {
		v.Stats = append(v.Stats, fmt.Sprintf("of every %d. element", step))
	}
	const bars = 32
	v.Bars, v.From, v.To = make([]int, bars), text(low), text(high)
	for _, f := range numbers {
		i := 0
		if high > low {
			i = int((f - low) / (high - low) * bars)
		}
		v.Bars[min(max(i, 0), bars-1)]++
	}
}

func asFloat(x any) (float64, bool) {
	switch n := x.(type) {
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}
