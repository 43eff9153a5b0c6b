package main

import (
	"fmt"
	"strconv"
	"strings"
)

// streams measures chunks a second from one Python process to another.
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
	}{{64 << 10, pick(b, 4000, 1500), 1.3}, {1 << 20, pick(b, 4000, 1500), 1.2}} {
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
	}
	return nil
}
