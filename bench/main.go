// Command bench measures the command line side by side with what people would
// use instead, and the daemon side by side with the reference daemon through
// the same client, interleaved in one run. It prints best and median of each,
// and the median of the ratios of the rounds. Numbers of different runs must
// not be compared: machines are noisy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/v6d-go/v6d/client"
)

func main() {
	v6d := flag.String("v6d", "bin/v6d", "binary to measure")
	reference := flag.String("vineyardd", "", "the reference daemon, for the rows that compare with it")
	rounds := flag.Int("rounds", 9, "rounds of each comparison")
	flag.Parse()
	if err := run(*v6d, *reference, *rounds); err != nil {
		log.Fatal(err)
	}
}

func run(v6d, reference string, rounds int) error {
	v6d, err := filepath.Abs(v6d)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/dev/shm", "v6d-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{rounds: rounds, v6d: v6d, dir: dir}
	fmt.Println("| what | ours, best / median | other, best / median | ratio, median of rounds |")
	fmt.Println("|---|---|---|---|")
	return errors.Join(b.shell(), b.daemons(reference))
}

type bench struct {
	rounds   int
	v6d, dir string
}

// compare runs two things in turn and prints a row; other may be nil.
func (b *bench) compare(what string, ours, other func() error) error {
	var a, o []time.Duration
	var ratios []float64
	for i := range b.rounds + 1 {
		ta, err := timed(ours)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		var to time.Duration
		if other != nil {
			if to, err = timed(other); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
		if i == 0 {
			continue // warm-up
		}
		a = append(a, ta)
		if other != nil {
			o = append(o, to)
			ratios = append(ratios, float64(to)/float64(ta))
		}
	}
	row := fmt.Sprintf("| %s | %s |", what, show(a))
	if other == nil {
		fmt.Println(row + " | |")
		return nil
	}
	slices.Sort(ratios)
	fmt.Printf("%s %s | %.2f x |\n", row, show(o), ratios[len(ratios)/2])
	return nil
}

func timed(fn func() error) (time.Duration, error) {
	start := time.Now()
	err := fn()
	return time.Since(start), err
}

func show(d []time.Duration) string {
	slices.Sort(d)
	return fmt.Sprintf("%v / %v", round(d[0]), round(d[len(d)/2]))
}

func round(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(100 * time.Nanosecond)
	}
	return d.Round(10 * time.Microsecond)
}

// daemon starts a daemon and returns its socket and what stops it.
func (b *bench) daemon(name string, args ...string) (socket string, stop func(), err error) {
	socket = filepath.Join(b.dir, filepath.Base(name)+".sock")
	cmd := exec.Command(name, append(args, "--socket", socket)...)
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		_ = cmd.Wait()
	}
	for range 500 {
		c, err := client.Dial(context.Background(), client.Options{Socket: socket})
		if err == nil {
			return socket, stop, c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	return "", nil, fmt.Errorf("%s does not come up", name)
}

// shell measures the command line.
func (b *bench) shell() error {
	socket, stop, err := b.daemon(b.v6d, "serve", "--size", "3GiB", "--rpc-listen", "off")
	if err != nil {
		return err
	}
	defer stop()
	tool := func(args ...string) func() error {
		return func() error {
			cmd := exec.Command(b.v6d, args...)
			cmd.Env = append(os.Environ(), "V6D_SOCKET="+socket)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}
	}
	if err := b.compare("v6d version", tool("version"), nil); err != nil {
		return err
	}
	file := filepath.Join(b.dir, "gigabyte")
	if err := makeFile(file, 1<<30); err != nil {
		return err
	}
	copied := filepath.Join(b.dir, "copied")
	put := func() error {
		return errors.Join(tool("rm", "big", "--ignore-not-found")(), tool("put", file, "--name", "big")())
	}
	get := tool("get", "big", copied)
	cp := func(from, to string) func() error {
		return func() error { os.Remove(to); return exec.Command("cp", from, to).Run() }
	}
	there := filepath.Join(b.dir, "there")
	if err := b.compare("put and get of 1 GiB, against cp to and from tmpfs",
		func() error { os.Remove(copied); return errors.Join(put(), get()) },
		func() error { return errors.Join(cp(file, there)(), cp(there, copied)()) }); err != nil {
		return err
	}
	os.Remove(there)
	os.Remove(copied)
	os.Remove(file)
	if err := fillObjects(socket, 100_000); err != nil {
		return err
	}
	return b.compare("ls -q of 100,000 objects", tool("ls", "-q"), nil)
}

func makeFile(path string, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	piece := []byte(strings.Repeat("v6d bench ", 1<<17))
	for n := 0; n < size && err == nil; n += len(piece) {
		_, err = f.Write(piece[:min(len(piece), size-n)])
	}
	return errors.Join(err, f.Close())
}

func fillObjects(socket string, n int) error {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		return err
	}
	defer c.Close()
	for i := 0; i < n; i += 1000 {
		list := make([]*client.Meta, 1000)
		for j := range list {
			list[j] = client.NewMeta("bench::Object").Set("index", i+j)
		}
		if _, err := c.CreateObjects(ctx, list); err != nil {
			return err
		}
	}
	return nil
}

// daemons measures v6d and the reference through the same Go client.
func (b *bench) daemons(reference string) error {
	if reference == "" {
		return nil
	}
	ours, stop, err := b.daemon(b.v6d, "serve", "--size", "1GiB", "--rpc-listen", "off")
	if err != nil {
		return err
	}
	defer stop()
	theirs, stop2, err := b.daemon(reference, "--size", "1Gi", "--meta", "local", "--rpc=false")
	if err != nil {
		return err
	}
	defer stop2()
	ctx := context.Background()
	var clients [2]*client.Client
	for i, socket := range []string{ours, theirs} {
		if clients[i], err = client.Dial(ctx, client.Options{Socket: socket, Classic: true}); err != nil {
			return err
		}
		defer clients[i].Close()
	}
	const times = 2000
	pair := func(what string, fn func(*client.Client) error) error {
		do := func(c *client.Client) func() error {
			return func() error {
				for range times {
					if err := fn(c); err != nil {
						return err
					}
				}
				return nil
			}
		}
		return b.compare(fmt.Sprintf("%s, %d times", what, times), do(clients[0]), do(clients[1]))
	}
	if err := pair("exists, Go client", func(c *client.Client) error {
		_, err := c.Exists(ctx, 1)
		return err
	}); err != nil {
		return err
	}
	for _, size := range []int{64, 1 << 20} {
		if err := pair(fmt.Sprintf("create, seal, delete of %d bytes, Go client", size), func(c *client.Client) error {
			w, err := c.CreateBlob(ctx, size)
			if err != nil {
				return err
			}
			id, err := w.Seal(ctx)
			if err != nil {
				return err
			}
			return c.DropBlob(ctx, id)
		}); err != nil {
			return err
		}
	}
	return nil
}
