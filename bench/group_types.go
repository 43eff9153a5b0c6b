package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/typed"
)

// types measures arrays, data frames and tables: put and get, files that become
// one, and a pipeline that hands them on.
func (b *bench) types() error {
	procs, py, err := b.contest(options{size: "3GiB"})
	if err != nil {
		return err
	}
	c, err := client.Dial(b.ctx, client.Options{Socket: procs[0].socket})
	if err != nil {
		return err
	}
	defer c.Close()
	rows := pick(b, 10_000_000, 1_000_000)
	for _, v := range []value{
		{"array", 1_000_000, "an array of 8 MB", 30},
		{"array", 100_000_000, "an array of 800 MB", 3},
		{"frame", rows, "a data frame of 10 x " + thousands(rows), 3},
		{"table", rows, "an Arrow table of 10 x " + thousands(rows), 3},
	} {
		if err := b.putAndGet(c, py, v); err != nil {
			return err
		}
	}
	if err := b.constantTime(c, py[0]); err != nil {
		return err
	}
	debug.FreeOSMemory()
	files, err := b.worker(b.python, "pyarrow", "files", b.dir)
	if err != nil {
		return err
	}
	b.helpers = append(b.helpers, files)
	if err := b.ingest(c, procs[0], py, files); err != nil {
		return err
	}
	return b.pipeline(procs, py, files)
}

// value is one that Go and Python make the same: worker.py, value.
type value struct {
	what string
	n    int // of elements, or of rows in each of ten columns
	name string
	puts int // a round
}

func (v value) args(times int) args { return args{"what": v.what, "n": v.n, "times": times} }

// make returns it for package typed.
func (v value) make() (any, error) {
	floats := func(c int) []float64 {
		return filled(v.n, func(i int) float64 { return float64(i)*0.5 + float64(c) })
	}
	if v.what == "array" {
		return typed.NewTensor(floats(0))
	}
	frame := typed.NewDataFrame()
	for c := range 10 {
		var t *typed.Tensor
		var err error
		if c%2 == 0 {
			t, err = typed.NewTensor(filled(v.n, func(i int) int64 { return int64(i + c) }))
		} else {
			t, err = typed.NewTensor(floats(c))
		}
		if err != nil {
			return nil, err
		}
		frame.Columns = append(frame.Columns, typed.Column{Label: fmt.Sprintf("c%d", c), Values: t})
	}
	if v.what == "frame" {
		return frame, nil
	}
	var fields []arrow.Field
	var columns []arrow.Array
	for _, c := range frame.Columns {
		t := c.Values.(*typed.Tensor)
		dt := arrow.DataType(arrow.PrimitiveTypes.Float64)
		if t.DType == typed.Int64 {
			dt = arrow.PrimitiveTypes.Int64
		}
		fields = append(fields, arrow.Field{Name: c.Name(), Type: dt, Nullable: true})
		columns = append(columns, array.MakeFromData(array.NewData(dt, v.n, []*memory.Buffer{nil, memory.NewBufferBytes(t.Data)}, nil, 0, 0)))
	}
	schema := arrow.NewSchema(fields, nil)
	return typed.NewTable(schema, array.NewRecordBatch(schema, columns, int64(v.n))), nil
}

// filled repeats the first thousand elements.
func filled[T any](n int, at func(i int) T) []T {
	out := make([]T, n)
	for i := range min(n, 1000) {
		out[i] = at(i)
	}
	for done := 1000; done < n; done *= 2 {
		copy(out[done:], out[:done])
	}
	return out
}

// same compares what was got with what was put.
func same(got, want any) error {
	ok := false
	switch w := want.(type) {
	case *typed.Tensor:
		g, is := got.(*typed.Tensor)
		ok = is && g.DType == w.DType && slices.Equal(g.Shape, w.Shape) && bytes.Equal(g.Data, w.Data)
	case *typed.DataFrame:
		g, is := got.(*typed.DataFrame)
		ok = is && slices.EqualFunc(g.Columns, w.Columns, func(a, b typed.Column) bool {
			return a.Name() == b.Name() && same(a.Values, b.Values) == nil
		})
	case *typed.Table:
		g, is := got.(*typed.Table)
		ok = is && slices.EqualFunc(g.Batches, w.Batches, array.RecordEqual)
	}
	if !ok {
		return fmt.Errorf("what comes back of a %T is something else", want)
	}
	return nil
}

// putAndGet makes four rows of a value: put and get, by Python and by Go. Before,
// Python reads what Go put.
func (b *bench) putAndGet(c *client.Client, py workers, v value) error {
	goValue, err := v.make()
	if err != nil {
		return err
	}
	defer debug.FreeOSMemory()
	id, err := typed.Put(b.ctx, c, goValue)
	if err != nil {
		return err
	}
	_, err = py[0].call("check_typed", args{"what": v.what, "n": v.n, "id": id.String()})
	if err := errors.Join(err, drop(b.ctx, c, id)); err != nil {
		return err
	}
	put, gets := py.row("put_typed", v.args(v.puts)), 100
	if err := b.compare("put of "+v.name+", Python", millis, put, mark(1)); err != nil {
		return err
	}
	ours := side{"Go, v6d", func() ([]float64, error) { return goPut(b.ctx, c, goValue, v.puts) }}
	if err := b.compare("put of "+v.name+", Go, against Python", millis, append([]side{ours}, put[1:]...)); err != nil {
		return err
	}
	get := py.row("get_typed", v.args(gets))
	if err := b.compare("get of "+v.name+", Python", micros, get, mark(1.2)); err != nil {
		return err
	}
	ours = side{"Go, v6d", func() ([]float64, error) { return goGet(b.ctx, c, goValue, gets) }}
	if err := b.compare("get of "+v.name+", Go, against Python", micros, append([]side{ours}, get[1:]...)); err != nil {
		return err
	}
	return py.each("forget", nil)
}

// goPut times puts; what they made goes again, untimed. The first is read back.
func goPut(ctx context.Context, c *client.Client, v any, times int) ([]float64, error) {
	out := make([]float64, times)
	for i := range out {
		start := time.Now()
		id, err := typed.Put(ctx, c, v)
		if err != nil {
			return nil, err
		}
		out[i] = time.Since(start).Seconds()
		if i == 0 {
			err = checkObject(ctx, c, id, v)
		}
		if err := errors.Join(err, drop(ctx, c, id)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func drop(ctx context.Context, c *client.Client, ids ...client.ID) error {
	return c.Delete(ctx, ids, client.DeleteOptions{})
}

func checkObject(ctx context.Context, c *client.Client, id client.ID, want any) error {
	o, err := typed.Get(ctx, c, id)
	if err != nil {
		return err
	}
	return errors.Join(same(o.Value, want), o.Release(ctx))
}

// goGet times gets with their release, as Python's let go of what they return.
func goGet(ctx context.Context, c *client.Client, v any, times int) ([]float64, error) {
	id, err := typed.Put(ctx, c, v)
	if err != nil {
		return nil, err
	}
	if err := checkObject(ctx, c, id, v); err != nil {
		return nil, err
	}
	out, err := each(times, func(int) error { return getOnce(ctx, c, id) })
	return out, errors.Join(err, drop(ctx, c, id))
}

func getOnce(ctx context.Context, c *client.Client, id client.ID) error {
	o, err := typed.Get(ctx, c, id)
	if err != nil {
		return err
	}
	return o.Release(ctx)
}

// constantTime measures whether get takes as long for a large array as for a
// small one.
func (b *bench) constantTime(c *client.Client, w *worker) error {
	const n = 300
	small := value{what: "array", n: 1 << 10 / 8}
	large := value{what: "array", n: pick(b, 1<<30, 256<<20) / 8}
	name := fmt.Sprintf("get of an array of %s against one of 1 KiB, v6d, ", sizeName(int64(large.n)*8))
	if err := b.compare(name+"Python", times, []side{{"v6d", w.round("get_ratio", args{"small": small.n, "large": large.n, "times": n})}}, atMost(2)); err != nil {
		return err
	}
	ids := make([]client.ID, 2)
	for i, v := range []value{small, large} {
		made, err := v.make()
		if err != nil {
			return err
		}
		if ids[i], err = typed.Put(b.ctx, c, made); err != nil {
			return err
		}
		if err := checkObject(b.ctx, c, ids[i], made); err != nil {
			return err
		}
	}
	err := b.compare(name+"Go", times, []side{{"v6d", func() ([]float64, error) {
		var took [2][]float64
		for range n {
			for i, id := range ids {
				one, err := each(1, func(int) error { return getOnce(b.ctx, c, id) })
				if err != nil {
					return nil, err
				}
				took[i] = append(took[i], one...)
			}
		}
		return []float64{percentile(took[1], 0.5) / percentile(took[0], 0.5)}, nil
	}}}, atMost(2))
	return errors.Join(err, drop(b.ctx, c, ids...))
}

// ingest measures files that become objects.
func (b *bench) ingest(c *client.Client, p *proc, py workers, files *worker) error {
	rows := pick(b, 2_000_000, 400_000)
	made, err := files.call("generate", args{"rows": rows})
	if err != nil {
		return err
	}
	want := json.RawMessage(made.Value)
	table := func(ext string) string { return filepath.Join(b.dir, "table."+ext) }
	defer os.Remove(table("csv"))
	defer os.Remove(table("parquet"))
	// put runs the command, what follows it once it has a result, and rm.
	checked := map[string]bool{}
	put := func(extra float64, then func(id string, check any) (float64, error), argv ...string) func() ([]float64, error) {
		return func() ([]float64, error) {
			start := time.Now()
			id, err := b.putCommand(p, argv...)
			if err != nil {
				return nil, err
			}
			took := time.Since(start).Seconds()
			key := strings.Join(argv, " ")
			var check any
			if !checked[key] {
				checked[key], check = true, want
			}
			more, err := then(id.String(), check)
			return []float64{took + extra*more}, errors.Join(err, drop(b.ctx, c, id))
		}
	}
	get := func(id string, check any) (float64, error) {
		r, err := py[0].call("get_frame", args{"id": id, "want": check})
		if err != nil {
			return 0, err
		}
		return r.Samples[0], nil
	}
	onlyCheck := func(id string, check any) (float64, error) {
		if check == nil {
			return 0, nil
		}
		return get(id, check)
	}
	for _, one := range []struct {
		ext, library string
		mark         float64
	}{{"parquet", "pyarrow.parquet.read_table", 0.5}, {"csv", "pyarrow.csv.read_csv", 0.4}} {
		st, err := os.Stat(table(one.ext))
		if err != nil {
			return err
		}
		read := files.round("read", args{"name": "table." + one.ext})
		if err := b.compare(fmt.Sprintf("v6d put of a %s file of %s rows, %d MB, against %s in a warm process", one.ext, thousands(rows), st.Size()/1e6, one.library), millis,
			[]side{{"v6d", put(0, onlyCheck, table(one.ext))}, {"pyarrow", read}, {"pyarrow again", read}}, mark(one.mark)); err != nil {
			return err
		}
	}
	// The whole way from a file to a data frame that others can have.
	row := py.row("read_and_put", args{"path": table("csv"), "want": want})
	row[0].run = put(1, get, table("csv"), "--type", "dataframe")
	return b.compare(fmt.Sprintf("CSV of %s rows to a data frame: v6d put --type dataframe and Python's get, against pandas.read_csv and Python's put", thousands(rows)), millis, row, mark(1))
}

// putCommand runs v6d put and returns the id that it prints.
func (b *bench) putCommand(p *proc, argv ...string) (client.ID, error) {
	cmd := exec.CommandContext(b.ctx, b.v6d, append([]string{"put"}, argv...)...)
	cmd.Env = append(os.Environ(), "V6D_SOCKET="+p.socket)
	var diagnostics bytes.Buffer
	cmd.Stderr = &diagnostics
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("v6d put %s: %w: %s", strings.Join(argv, " "), err, diagnostics.String())
	}
	return client.ParseID(strings.TrimSpace(string(out)))
}

// pipeline measures three processes that hand a data frame on: by daemons, and by
// files in memory and on disk.
func (b *bench) pipeline(procs []*proc, py workers, files *worker) error {
	rows := pick(b, 500_000, 150_000)
	if _, err := files.call("generate_orders", args{"rows": rows}); err != nil {
		return err
	}
	source := filepath.Join(b.dir, "orders.csv")
	defer os.Remove(source)
	disk, err := os.MkdirTemp("", "v6d-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(disk)
	env, learner := b.learner()

	type way struct {
		name, how, dir string
		w              *worker
		sharing        []float64
	}
	var ways []*way
	for i, p := range procs {
		ways = append(ways, &way{name: p.name, how: p.socket, w: py[i]})
	}
	for _, how := range []string{"pickle", "parquet", "csv"} {
		ways = append(ways, &way{name: how + " in " + filepath.Dir(b.dir), how: how, dir: b.dir})
		ways = append(ways, &way{name: how + " in " + filepath.Dir(disk) + onDisk(disk), how: how, dir: disk})
	}
	var first []float64 // what the first pipeline computed
	run := func(w *way) ([]float64, error) {
		start, place, sharing := time.Now(), source, 0.0
		var made []string
		var check []float64
		for _, stage := range []string{"clean", "features", "train"} {
			target := "-"
			if w.dir != "" {
				target = filepath.Join(w.dir, stage+"."+w.how)
			}
			out, err := b.stage(env, stage, w.how, place, target)
			if err != nil {
				return nil, err
			}
			sharing += out.Sharing
			if place = out.Place; place != "" {
				made = append(made, place)
			}
			check = out.Check
		}
		took := time.Since(start).Seconds()
		w.sharing = append(w.sharing, sharing)
		if w.w != nil {
			if _, err := w.w.call("drop", args{"ids": made}); err != nil {
				return nil, err
			}
		} else {
			for _, path := range made {
				if err := os.Remove(path); err != nil {
					return nil, err
				}
			}
		}
		if first == nil {
			first = check
		}
		if len(check) != 3 || !slices.EqualFunc(check, first, func(a, b float64) bool { return math.Abs(a-b) <= 1e-6*math.Abs(b) }) {
			return nil, fmt.Errorf("the pipeline computes %v, not %v", check, first)
		}
		return []float64{took}, nil
	}
	var whole, sharing []side
	for _, w := range ways {
		whole = append(whole, side{w.name, func() ([]float64, error) { return run(w) }})
		sharing = append(sharing, side{w.name, func() ([]float64, error) { // of the same runs
			s := w.sharing[:1]
			w.sharing = w.sharing[1:]
			return s, nil
		}})
	}
	name, opt := fmt.Sprintf("three Python processes, CSV of %s rows to %s, ", thousands(rows), learner), rounds(3)
	if err := b.compare(name+"end to end", seconds, whole, opt); err != nil {
		return err
	}
	return b.compare(name+"writing and reading between them", seconds, sharing, opt)
}

// stage runs one process of the pipeline.
func (b *bench) stage(env []string, argv ...string) (out struct {
	Sharing float64
	Place   string
	Check   []float64
}, err error,
) {
	cmd := exec.CommandContext(b.ctx, b.python, append([]string{"-W", "ignore", "bench/pipeline.py"}, argv...)...)
	cmd.Env = env
	var diagnostics bytes.Buffer
	cmd.Stderr = &diagnostics
	text, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("pipeline.py %s: %w: %s", strings.Join(argv, " "), err, diagnostics.String())
	}
	return out, json.Unmarshal(text, &out)
}

// learner returns the environment of the pipeline's processes, and what they
// train with.
func (b *bench) learner() (env []string, name string) {
	// Threads of BLAS spin while they wait: on a machine that is busy for minutes.
	env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1")
	folder, err := filepath.Abs(b.learn)
	if err != nil {
		folder = b.learn
	}
	with := append(slices.Clone(env), "PYTHONPATH="+folder)
	cmd := exec.CommandContext(b.ctx, b.python, "-c", "import sklearn")
	cmd.Env = with
	if cmd.Run() != nil {
		return env, "least squares of NumPy (no scikit-learn: bench/peers.sh)"
	}
	return with, "scikit-learn's LinearRegression"
}

// onDisk says what a folder is on, if that is not memory.
func onDisk(dir string) string {
	const tmpfs = 0x01021994
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) == nil && st.Type == tmpfs {
		return ", which is memory, too"
	}
	return " on disk"
}
