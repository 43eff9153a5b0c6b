package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6d-go/v6d/client"
)

// streams measures chunks a second from one process to another, and the command
// line as a pipe.
func (b *bench) streams() error {
	procs, producers, err := b.contest(options{size: "1GiB"})
	if err != nil {
		return err
	}
	consumers, err := b.workers("vineyard", procs)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		size, n int
		mark    float64
	}{{64 << 10, pick(b, 4000, 1500), 1.3}, {1 << 20, pick(b, 4000, 1500), 1.2}, {16 << 20, pick(b, 400, 100), 1}} {
		var row []side
		for i := range producers {
			row = append(row, side{producers[i].name, func() ([]float64, error) {
				made, err := producers[i].call("new_stream", nil)
				if err != nil {
					return nil, err
				}
				id, err := strconv.ParseUint(strings.TrimPrefix(strings.Trim(made.Value, `"`), "o"), 16, 64)
				if err != nil {
					return nil, err
				}
				if err := consumers[i].send("consume", args{"stream": id, "n": c.n}); err != nil {
					return nil, err
				}
				if err := producers[i].send("produce", args{"stream": id, "n": c.n, "size": c.size}); err != nil {
					return nil, err
				}
				if _, err := producers[i].receive(); err != nil {
					return nil, err
				}
				r, err := consumers[i].receive()
				if err != nil {
					return nil, err
				}
				return []float64{float64(c.n) / r.Samples[0]}, nil
			}})
		}
		if err := b.compare(fmt.Sprintf("chunks of %s, Python to Python", sizeName(int64(c.size))), perSec, row, mark(c.mark)); err != nil {
			return err
		}
		// The same from one Go program to another, as programs with several readers do it.
		ours := side{"Go, v6d", func() ([]float64, error) { return goStream(b.ctx, procs[0].socket, c.size, c.n) }}
		if err := b.compare(fmt.Sprintf("chunks of %s, Go to Go, against Python to Python", sizeName(int64(c.size))), perSec,
			append([]side{ours}, row[1:]...), mark(5)); err != nil {
			return err
		}
	}
	b.stopAll()
	return b.pipes()
}

// goStream writes and reads a stream of empty chunks with the Go client, and
// returns the chunks a second.
func goStream(ctx context.Context, socket string, size, n int) ([]float64, error) {
	w, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	r, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	id, err := w.NewStream(ctx, client.StreamOptions{})
	if err != nil {
		return nil, err
	}
	out, err := w.OpenWriter(ctx, id)
	if err != nil {
		return nil, err
	}
	in, err := r.OpenReader(ctx, id, client.ReaderOptions{})
	if err != nil {
		return nil, err
	}
	var g errgroup.Group
	g.Go(func() error {
		for range n {
			if _, err := out.Next(ctx, size); err != nil {
				return err
			}
		}
		return out.Close(ctx)
	})
	start, got := time.Now(), 0
	for _, err := range in.All(ctx) {
		if err != nil {
			return nil, err
		}
		got++
	}
	took := time.Since(start)
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if got != n {
		return nil, fmt.Errorf("%d chunks of %d", got, n)
	}
	return []float64{float64(n) / took.Seconds()}, w.DropStream(ctx, id)
}

// pipes measures the command line between programs.
func (b *bench) pipes() error {
	p, err := b.daemon("v6d", options{size: "256MiB"})
	if err != nil {
		return err
	}
	script := func(text string) func() error {
		return func() error {
			return spawn(b.ctx, []string{"V6D_SOCKET=" + p.socket, "PATH=" + filepath.Dir(b.v6d) + ":" + os.Getenv("PATH")}, "sh", "-ec", text)
		}
	}
	size := pick(b, int64(8<<30), 2<<30)
	ours := script(fmt.Sprintf("v6d stream cat s --wait --rm | cat > /dev/null & head -c %d /dev/zero | v6d stream put s; wait", size))
	theirs := script(fmt.Sprintf("head -c %d /dev/zero | cat | cat > /dev/null", size))
	if err := b.compare(fmt.Sprintf("%s from stream put to stream cat in a pool of 256 MiB, against two cats", sizeName(size)), seconds,
		[]side{{"v6d", once(ours)}, {"cat", once(theirs)}, {"cat again", once(theirs)}}, mark(0.6), rounds(pick(b, 5, 3))); err != nil {
		return err
	}
	// Three stages that take two seconds each.
	const work = "while read x; do sleep 0.1; echo $x; done"
	stages := script("seq 20 | " + work + " | v6d stream put a --chunk lines --flush 1ms & " +
		"v6d stream cat a --wait --rm | " + work + " | v6d stream put b --chunk lines --flush 1ms & " +
		"v6d stream cat b --wait --rm | " + work + " > /dev/null; wait")
	files := script("cd $(mktemp -d); seq 20 | " + work + " > a; " + work + " < a > b; " + work + " < b > /dev/null; rm a b; rmdir $PWD")
	return b.compare("three stages of 2 s each, against files between them", seconds,
		[]side{{"v6d", once(stages)}, {"files", once(files)}}, mark(2), rounds(pick(b, 3, 1)))
}
