// Command bench measures v6d side by side with the reference daemon and with
// what people would use instead, interleaved in one run.
//
//	bench run [-full] [-only GROUP,…] [-rounds N] [-doc FILE] [-json FILE]
//	bench compare OLD.json NEW.json
//
// Vocabulary: a side is one contestant (v6d, the reference daemon, the same
// daemon a second time, a peer). A row is one thing that is measured on several
// sides. A round measures every side once, in an order that changes from round
// to round; a sample is one operation of a round. A row's ratio is the median
// over the rounds of other / ours, so above 1 ours is the better one; the noise
// is the same ratio of the reference daemon to its twin, and a ratio within it
// means nothing. A mark is what docs/benchmarks.md promises of a ratio.
//
// Numbers of different runs must not be compared, machines are noisy; compare
// shows ratios of two runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// group is a set of rows that share their daemons.
type group struct {
	name  string
	doc   string
	quick bool // part of a run without -full
	run   func(*bench) error
}

var groups = []group{
	{"limits", "What the hardware gives", true, (*bench).limits},
	{"shell", "The command line", true, (*bench).shell},
	{"ipc", "Requests over IPC", true, (*bench).ipcRows},
	{"clients", "Eight clients at once", true, (*bench).clientRows},
	{"metadata", "Metadata", true, (*bench).metadata},
	{"cluster", "Two nodes on one etcd", true, (*bench).cluster},
	{"join", "A start in a cluster", false, (*bench).join},
	{"migrate", "Moving objects between two nodes", false, (*bench).migrate},
	{"rpc", "Requests over TCP", true, (*bench).rpc},
	{"pages", "Memory: first touch, first write", true, (*bench).pages},
	{"streams", "Streams", true, (*bench).streams},
	{"types", "Typed data: arrays, data frames, tables, files", false, (*bench).types},
	{"browser", "The browser", true, (*bench).browser},
	{"footprint", "What a daemon takes", true, (*bench).footprint},
	{"peers", "Peers", false, (*bench).peers},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "compare" {
		if len(os.Args) != 4 {
			fail(fmt.Errorf("usage: bench compare OLD.json NEW.json"))
		}
		fail(compareRuns(os.Stdout, os.Args[2], os.Args[3]))
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "hold" {
		fail(hold(os.Args[2]))
		return
	}
	if len(os.Args) == 4 && os.Args[1] == "touch" {
		fail(touchBlob(os.Args[2], os.Args[3]))
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "run" {
		os.Args = slices.Delete(os.Args, 1, 2)
	}
	log.SetFlags(0)
	b := &bench{}
	full := flag.Bool("full", false, "all sizes, more samples, and the peers")
	only := flag.String("only", "", "groups to run, with commas between; all by default")
	doc := flag.String("doc", "", "write the tables into this Markdown file, between its marker lines")
	result := flag.String("json", "", "write what was measured to this file, for compare")
	flag.StringVar(&b.v6d, "v6d", "bin/v6d", "binary to measure")
	flag.StringVar(&b.reference, "vineyardd", ".interop/venv/lib/python3.11/site-packages/vineyard/bdist/vineyardd", "reference daemon")
	flag.StringVar(&b.python, "python", ".interop/venv/bin/python", "Python with the published client")
	flag.StringVar(&b.plasma, "plasma-python", ".interop/plasma/bin/python", "Python with pyarrow 11, for Plasma")
	flag.StringVar(&b.learn, "learn", ".interop/learn", "folder with scikit-learn, as bench/peers.sh installs it")
	flag.StringVar(&b.etcd, "etcd", ".tools/etcd", "etcd, as make etcd builds it")
	flag.IntVar(&b.rounds, "rounds", 0, "rounds of each row; 9 with -full, else 3")
	flag.Parse()
	b.full = *full
	if b.rounds == 0 {
		b.rounds = pick(b, 9, 3)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	b.ctx = ctx
	err := b.run(*only)
	if err == nil && *result != "" {
		err = b.report.save(*result)
	}
	if err == nil && *doc != "" {
		err = b.report.write(*doc)
	}
	fail(err)
}

func fail(err error) {
	if err != nil {
		log.Fatal("bench: ", err)
	}
}

// bench is one run.
type bench struct {
	ctx    context.Context
	rounds int
	full   bool

	v6d, reference, python, plasma, learn, etcd string

	dir     string // holds sockets and files, on tmpfs
	report  report
	procs   []*proc
	helpers []*worker
}

func (b *bench) run(only string) error {
	for _, path := range []*string{&b.v6d, &b.reference, &b.python} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		if _, err := os.Stat(abs); err != nil {
			return fmt.Errorf("%w: run make bench, which builds and installs what is needed", err)
		}
		*path = abs
	}
	dir, err := os.MkdirTemp("/dev/shm", "v6d-bench-")
	if err != nil {
		return err
	}
	b.dir = dir
	defer os.RemoveAll(dir)
	defer b.stopAll()
	b.report.describe(b)
	for _, g := range groups {
		if only == "" && !g.quick && !b.full {
			continue
		}
		if only != "" && !slices.Contains(strings.Split(only, ","), g.name) {
			continue
		}
		b.report.begin(os.Stdout, g)
		err := g.run(b)
		b.stopAll()
		if err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	b.report.end(os.Stdout)
	return nil
}

// pick returns the value for a full run, or the one for a short run.
func pick[T any](b *bench, full, short T) T {
	if b.full {
		return full
	}
	return short
}
