package main

import (
	"fmt"
	"time"
)

// sizes of blobs in the rows that go over sizes.
func (b *bench) sizes() []int64 {
	return pick(b, []int64{64, 4 << 10, 1 << 20, 64 << 20, 1 << 30}, []int64{64, 1 << 20, 1 << 30})
}

func sizeName(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// rawSide is a daemon with a raw client of it.
type rawSide struct {
	*proc
	c *raw
}

func rawSides(procs []*proc) ([]rawSide, error) {
	var out []rawSide
	for _, p := range procs {
		c, err := dialRaw(p.socket)
		if err != nil {
			return nil, err
		}
		out = append(out, rawSide{p, c})
	}
	return out, nil
}

func rawRow(list []rawSide, run func(rawSide) func() ([]float64, error)) []side {
	var out []side
	for _, s := range list {
		out = append(out, side{s.name, run(s)})
	}
	return out
}

// ipcRows measures single requests through the published client and the raw one.
func (b *bench) ipcRows() error {
	procs, py, err := b.contest(options{size: "3GiB"})
	if err != nil {
		return err
	}
	raws, err := rawSides(procs)
	if err != nil {
		return err
	}
	n := pick(b, 1500, 500)
	if err := b.compare("exists, Python", micros, py.row("exists", args{"n": n}), mark(1.2)); err != nil {
		return err
	}
	if err := b.compare("exists, raw", micros, rawRow(raws, func(s rawSide) func() ([]float64, error) {
		request := existsFrame(1)
		return func() ([]float64, error) {
			return each(n, func(int) error { _, err := s.c.call(request); return err })
		}
	}), mark(1.6)); err != nil {
		return err
	}
	for _, size := range b.sizes() {
		times := n
		if size >= 1<<26 {
			times = 100
		}
		if err := b.compare("get of "+sizeName(size)+", Python", micros, py.row("get", args{"n": times, "size": size}), mark(1.2)); err != nil {
			return err
		}
		if err := b.compare("get of "+sizeName(size)+", raw", micros, rawRow(raws, func(s rawSide) func() ([]float64, error) {
			return rawGet(s.c, size, times)
		}), mark(1.6)); err != nil {
			return err
		}
	}
	if err := py.each("forget", nil); err != nil {
		return err
	}
	for _, size := range b.sizes() {
		times := n
		if size >= 1<<26 {
			times = 30
		}
		if err := b.compare("create and seal of "+sizeName(size)+", Python", micros, py.row("create_seal", args{"n": times, "size": size}), mark(1.2)); err != nil {
			return err
		}
		if err := b.compare("create and seal of "+sizeName(size)+", raw", micros, rawRow(raws, func(s rawSide) func() ([]float64, error) {
			return rawCreate(s.c, size, times)
		}), mark(1.6)); err != nil {
			return err
		}
	}
	return nil
}

// rawGet gets one blob again and again.
func rawGet(c *raw, size int64, times int) func() ([]float64, error) {
	return func() ([]float64, error) {
		id, err := c.put(size, false)
		if err != nil {
			return nil, err
		}
		if _, err := c.get(id); err != nil { // the descriptor comes with the first
			return nil, err
		}
		request := getFrame(id)
		out, err := each(times, func(int) error { _, err := c.call(request); return err })
		if err != nil {
			return nil, err
		}
		return out, c.drop(id)
	}
}

// rawCreate times create and seal together; the delete between is not timed.
func rawCreate(c *raw, size int64, times int) func() ([]float64, error) {
	create := frame(`{"type":"create_buffer_request","size":%d}`, size)
	return func() ([]float64, error) {
		if p, err := c.create(size); err != nil { // takes the descriptor, warms the extent
			return nil, err
		} else if err := c.drop(p.ObjectID); err != nil {
			return nil, err
		}
		out := make([]float64, times)
		for i := range out {
			start := time.Now()
			body, err := c.call(create)
			if err != nil {
				return nil, err
			}
			id := number(body, `"object_id":`)
			if _, err := c.call(sealFrame(id)); err != nil {
				return nil, err
			}
			out[i] = time.Since(start).Seconds()
			if err := c.drop(id); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
}

// clientRows measures eight clients at once.
func (b *bench) clientRows() error {
	procs, err := b.daemons(options{size: "1GiB"})
	if err != nil {
		return err
	}
	const clients = 8
	var pairs []*pinger
	for range clients {
		p, err := pingPong()
		if err != nil {
			return err
		}
		defer p.close()
		pairs = append(pairs, p)
	}
	conns := map[*proc][]*raw{}
	ids := map[*proc][]uint64{}
	for _, p := range procs {
		for range clients {
			c, err := dialRaw(p.socket)
			if err != nil {
				return err
			}
			id, err := c.put(4096, false)
			if err != nil {
				return err
			}
			if _, err := c.get(id); err != nil {
				return err
			}
			conns[p], ids[p] = append(conns[p], c), append(ids[p], id)
		}
	}
	d := pick(b, time.Second, 400*time.Millisecond)
	var bare []func() error
	for _, p := range pairs {
		bare = append(bare, p.ping)
	}
	for _, what := range []string{"exists", "get"} {
		calls := func(p *proc) (all []func() error) {
			for i, c := range conns[p] {
				request := existsFrame(1)
				if what == "get" {
					request = getFrame(ids[p][i])
				}
				all = append(all, func() error { _, err := c.call(request); return err })
			}
			return all
		}
		rate := sides(procs, func(p *proc) func() ([]float64, error) {
			return func() ([]float64, error) {
				r, _, err := together(calls(p), d)
				return []float64{r}, err
			}
		})
		rate = append(rate, side{"bare sockets", func() ([]float64, error) {
			r, _, err := together(bare, d)
			return []float64{r}, err
		}})
		if err := b.compare(fmt.Sprintf("%s, raw, %d clients", what, clients), perSec, rate, mark(1.5), orShare(0.85)); err != nil {
			return err
		}
		if err := b.compare(fmt.Sprintf("%s, raw, %d clients, p99 of a round", what, clients), micros, sides(procs, func(p *proc) func() ([]float64, error) {
			return func() ([]float64, error) {
				_, samples, err := together(calls(p), d)
				return samples, err
			}
		}), mark(2), byP99()); err != nil {
			return err
		}
	}
	return nil
}
