package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"
)

// footprint measures start, memory, and what becomes of a killed client's blobs.
func (b *bench) footprint() error {
	names := []string{"v6d", "reference", "reference again"}
	var start []side
	for _, name := range names {
		start = append(start, side{name, func() ([]float64, error) {
			p, err := b.daemon(name, options{size: "1GiB"})
			if err != nil {
				return nil, err
			}
			b.stopOne(p)
			return []float64{p.took.Seconds()}, nil
		}})
	}
	if err := b.compare("start to the first reply", millis, start, atMost(20)); err != nil {
		return err
	}
	measure := func(what string, u unit, opts []option, fn func(p *proc) (float64, error)) error {
		var row []side
		for _, name := range names[:2] {
			row = append(row, side{name, func() ([]float64, error) {
				p, err := b.daemon(name, options{size: "1GiB"})
				if err != nil {
					return nil, err
				}
				defer b.stopOne(p)
				v, err := fn(p)
				return []float64{v}, err
			}})
		}
		return b.compare(what, u, row, append(opts, rounds(1))...)
	}
	if err := measure("idle, RssAnon + RssFile", mib, []option{atMost(35)}, func(p *proc) (float64, error) {
		time.Sleep(2 * time.Second)
		n, err := p.memory("RssAnon", "RssFile")
		return float64(n), err
	}); err != nil {
		return err
	}
	const many = 100_000
	heap := func(fill func(c *raw) error) func(p *proc) (float64, error) {
		return func(p *proc) (float64, error) {
			c, err := dialRaw(p.socket)
			if err != nil {
				return 0, err
			}
			time.Sleep(time.Second)
			before, err := p.memory("RssAnon")
			if err != nil {
				return 0, err
			}
			if err := fill(c); err != nil {
				return 0, err
			}
			if err := c.close(); err != nil {
				return 0, err
			}
			time.Sleep(3 * time.Second)
			after, err := p.memory("RssAnon")
			return float64(after-before) / many, err
		}
	}
	if err := measure("heap a blob of 64 B, among 100,000", bytesU, []option{atMost(250)}, heap(func(c *raw) error {
		for range many {
			if _, err := c.put(64, false); err != nil {
				return err
			}
		}
		return nil
	})); err != nil {
		return err
	}
	if err := measure("heap an object of 200 B, among 100,000", bytesU, []option{atMost(1229)}, heap(func(c *raw) error {
		for i := range many {
			if _, err := c.create1(fmt.Sprintf(`{"typename":"bench::Object","nbytes":0,"transient":true,"instance_id":0,"global":false,"index":%d,"text_":"%0100d"}`, i, i)); err != nil {
				return err
			}
		}
		return nil
	})); err != nil {
		return err
	}
	// No allocator that cannot move what is live fills the holes of the first
	// pattern, so memory has to go back to the system; v6d does that when asked.
	for _, pattern := range []struct {
		name string
		mark float64
		run  func(*proc) (*raw, int64, error)
	}{
		{"sizes growing 10% a step to 64 MiB, every second freed", 1.3, growing},
		{"random mix of 64 B to 8 MiB at 70% fill", 1.15, b.mixed},
	} {
		for _, trim := range pick(b, []bool{false, true}, []bool{true}) {
			what, opts := "pool resident / live, "+pattern.name, []option(nil)
			if trim {
				what += ", after memory_trim"
				opts = []option{atMost(pattern.mark)}
			}
			if err := measure(what, times, opts, func(p *proc) (float64, error) {
				c, live, err := pattern.run(p)
				if err != nil {
					return 0, err
				}
				if trim {
					if _, err := c.call(frame(`{"type":"memory_trim_request"}`)); err != nil {
						return 0, err
					}
				}
				time.Sleep(time.Second)
				held, err := p.pool()
				return float64(held) / float64(live), errors.Join(err, c.close())
			}); err != nil {
				return err
			}
		}
	}
	return b.orphans()
}

func (c *raw) write(size int64) (uint64, error) {
	p, err := c.create(size)
	if err != nil {
		return 0, err
	}
	data, err := c.bytes(p)
	if err != nil {
		return 0, err
	}
	for i := 0; i < len(data); i += 4096 {
		data[i] = 1
	}
	_, err = c.call(sealFrame(p.ObjectID))
	return p.ObjectID, err
}

// growing makes blobs, each a tenth larger than the one before, and deletes
// every second one when the next is there.
func growing(p *proc) (c *raw, live int64, err error) {
	if c, err = dialRaw(p.socket); err != nil {
		return nil, 0, err
	}
	var last uint64
	for i, size := 0, 64.0; size < 64<<20; i, size = i+1, size*1.1 {
		id, err := c.write(int64(size))
		if err != nil {
			return nil, 0, err
		}
		if i%2 == 1 {
			last = id
			continue
		}
		live += int64(size)
		if last != 0 {
			if err := c.drop(last); err != nil {
				return nil, 0, err
			}
			last = 0
		}
	}
	if last != 0 {
		err = c.drop(last)
	}
	return c, live, err
}

// mixed keeps the pool at 70% of 1 GiB while blobs of random sizes come and go.
func (b *bench) mixed(p *proc) (c *raw, live int64, err error) {
	if c, err = dialRaw(p.socket); err != nil {
		return nil, 0, err
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	type blob struct {
		id   uint64
		size int64
	}
	var all []blob
	for range pick(b, 40_000, 10_000) {
		size := int64(64 * math.Pow(2, 17*rnd.Float64()))
		for live+size > 7<<30/10 {
			i := rnd.IntN(len(all))
			if err := c.drop(all[i].id); err != nil {
				return nil, 0, err
			}
			live -= all[i].size
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
		}
		id, err := c.write(size)
		if err != nil {
			return nil, 0, err
		}
		all, live = append(all, blob{id, size}), live+size
	}
	return c, live, nil
}

// orphans measures how long unsealed blobs outlive a client that is killed.
func (b *bench) orphans() error {
	p, err := b.daemon("v6d", options{size: "1GiB"})
	if err != nil {
		return err
	}
	watcher, err := dialRaw(p.socket)
	if err != nil {
		return err
	}
	usage := func() (uint64, error) {
		body, err := watcher.call(frame(`{"type":"instance_status_request"}`))
		return number(body, `"memory_usage":`), err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	kill := side{"v6d", func() ([]float64, error) {
		cmd := exec.Command(self, "hold", p.socket)
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			return nil, err
		}
		if n, err := usage(); err != nil || n == 0 {
			return nil, errors.Join(err, errors.New("the client holds nothing"))
		}
		start := time.Now()
		if err := cmd.Process.Kill(); err != nil {
			return nil, err
		}
		for {
			n, err := usage()
			if err != nil {
				return nil, err
			}
			if n == 0 || time.Since(start) > 10*time.Second {
				break
			}
		}
		took := time.Since(start).Seconds()
		_ = cmd.Wait() // it was killed
		return []float64{took}, nil
	}}
	return b.compare("unsealed blobs of a killed client: until they are freed (the reference never frees them)", millis, []side{kill}, atMost(100))
}

// hold is the client that orphans kills: it makes unsealed blobs and waits.
func hold(socket string) error {
	c, err := dialRaw(socket)
	if err != nil {
		return err
	}
	for range 100 {
		if _, err := c.create(1 << 20); err != nil {
			return err
		}
	}
	fmt.Print("r")
	time.Sleep(time.Minute)
	return nil
}
