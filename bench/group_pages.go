package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"
)

// pages measures what it costs to meet memory for the first time.
func (b *bench) pages() error {
	const gib = 1 << 30
	// First touch by a new reader, huge pages granted.
	procs, err := b.daemons(options{size: "2GiB", huge: "auto"})
	if err != nil {
		return err
	}
	raws, err := rawSides(procs)
	if err != nil {
		return err
	}
	ids := map[string]uint64{}
	for _, s := range raws {
		if ids[s.name], err = s.c.put(gib, true); err != nil {
			return err
		}
	}
	if err := b.compare("first touch of 1 GiB by a new reader", millis, rawRow(raws, func(s rawSide) func() ([]float64, error) {
		return func() ([]float64, error) {
			out, err := b.touchAsProcess(s.socket, ids[s.name])
			return out[:1], err
		}
	}), mark(20)); err != nil {
		return err
	}
	if err := b.compare("first touch of 1 GiB by a new reader, less a second touch: what the page faults cost", millis, rawRow(raws, func(s rawSide) func() ([]float64, error) {
		return func() ([]float64, error) {
			out, err := b.touchAsProcess(s.socket, ids[s.name])
			return []float64{out[0] - out[1]}, err
		}
	})); err != nil {
		return err
	}
	for _, s := range raws {
		if err := s.c.drop(ids[s.name]); err != nil {
			return err
		}
	}
	b.stopAll()

	// First writes.
	fresh := func(huge string, size int64, idle time.Duration) func(name string) func() ([]float64, error) {
		return func(name string) func() ([]float64, error) {
			return func() ([]float64, error) {
				p, err := b.daemon(name, options{size: "2GiB", huge: huge})
				if err != nil {
					return nil, err
				}
				defer b.stopOne(p)
				w, err := b.worker(b.python, name, "vineyard", p.socket, "0")
				if err != nil {
					return nil, err
				}
				defer w.close()
				if _, err := w.call("prepare", args{"size": size}); err != nil {
					return nil, err
				}
				time.Sleep(idle)
				r, err := w.call("write", args{"size": size})
				return r.Samples, err
			}
		}
	}
	names := []string{"v6d", "reference", "reference again"}
	row := func(run func(string) func() ([]float64, error)) (out []side) {
		for _, n := range names {
			out = append(out, side{n, run(n)})
		}
		return out
	}
	n := pick(b, 9, 2)
	if err := b.compare("first write of 1 GiB, fresh daemon, --huge=never, Python", seconds, row(fresh("never", gib, 0)), mark(0.85), rounds(n)); err != nil {
		return err
	}
	if b.full {
		if err := b.compare("first write of 1 GiB, fresh daemon, huge pages, Python", seconds, row(fresh("auto", gib, 0)), rounds(n)); err != nil {
			return err
		}
		if err := b.compare("first write of 64 MiB after 5 s of idling, fresh daemon, Python", millis, row(fresh("auto", 64<<20, 5*time.Second)), mark(4)); err != nil {
			return err
		}
	} else {
		names = names[:2]
		if err := b.compare("first write of 64 MiB after 5 s of idling, fresh daemon, Python", millis, row(fresh("auto", 64<<20, 5*time.Second)), mark(4), rounds(2)); err != nil {
			return err
		}
	}

	// Steady writes.
	_, py, err := b.contest(options{size: "2GiB"})
	if err != nil {
		return err
	}
	for _, size := range pick(b, []int64{1 << 20, 64 << 20, gib}, []int64{1 << 20, 64 << 20}) {
		if err := b.compare("steady write of "+sizeName(size)+", Python", millis, py.row("write", args{"size": size}), mark(1)); err != nil {
			return err
		}
	}
	return nil
}

// touchAsProcess starts a reader that maps a blob and touches every page of it
// twice; it returns how long each took.
func (b *bench) touchAsProcess(socket string, id uint64) ([2]float64, error) {
	var took [2]float64
	self, err := os.Executable()
	if err != nil {
		return took, err
	}
	out, err := exec.CommandContext(b.ctx, self, "touch", socket, fmt.Sprint(id)).Output()
	if err != nil {
		return took, err
	}
	_, err = fmt.Sscan(string(out), &took[0], &took[1])
	return took, err
}

// touchBlob is that reader.
func touchBlob(socket, id string) error {
	var n uint64
	if _, err := fmt.Sscan(id, &n); err != nil {
		return err
	}
	c, err := dialRaw(socket)
	if err != nil {
		return err
	}
	p, err := c.get(n)
	if err != nil {
		return err
	}
	data, err := c.bytes(p)
	if err != nil {
		return err
	}
	sum := 0 // printed, lest the compiler leave the reads out
	took, err := each(2, func(int) error { sum += touch(data); return nil })
	fmt.Println(took[0], took[1], sum)
	return err
}
