package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"time"
)

// side is one contestant of a row: run does one round and returns its samples.
type side struct {
	name string
	run  func() ([]float64, error)
}

// unit says how samples are shown, and which of two is better.
type unit struct {
	name     string
	scale    float64 // a sample times scale is shown
	moreWins bool    // rates; times and sizes win by being small
}

var (
	micros  = unit{"us", 1e6, false}
	millis  = unit{"ms", 1e3, false}
	seconds = unit{"s", 1, false}
	gbps    = unit{"GB/s", 1e-9, true}
	perSec  = unit{"/s", 1, true}
	bytesU  = unit{"B", 1, false}
	mib     = unit{"MiB", 1.0 / (1 << 20), false}
	times   = unit{"x", 1, false}
)

// row is what a comparison gave.
type row struct {
	Group  string
	Name   string
	Unit   string
	Sides  []sideResult
	Ratio  *spread `json:",omitempty"` // second side against the first
	Noise  *spread `json:",omitempty"` // third against the second: the reference and its twin
	Share  *spread `json:",omitempty"` // first side's part of what the hardware gives: the last side
	Enough float64 `json:",omitempty"` // a share that meets the mark too
	Limit  float64 `json:",omitempty"` // the mark: the least ratio, or the greatest value of the first side
	Absent string  `json:",omitempty"` // why there is no measurement
}

type sideResult struct {
	Name              string
	Best, Median, P99 float64
	Samples           int
}

// spread is a ratio over the rounds.
type spread struct{ Median, Low, High float64 }

// option changes how a row is measured or judged.
type option func(*row, *settings)

type settings struct {
	rounds   int
	absolute bool
	p99      bool
	twin     bool // the third side is the reference again
}

// mark is the least ratio that docs/benchmarks.md promises.
func mark(ratio float64) option { return func(r *row, _ *settings) { r.Limit = ratio } }

// atMost is a mark on the first side's median, in the row's unit.
func atMost(v float64) option {
	return func(r *row, s *settings) { r.Limit, s.absolute = v, true }
}

// rounds overrides the number of rounds, for what takes long.
func rounds(n int) option { return func(_ *row, s *settings) { s.rounds = n } }

// orShare says that the last side is the physical limit, and which part of it
// meets the mark as well.
func orShare(part float64) option { return func(r *row, _ *settings) { r.Enough = part } }

// withoutTwin says that the third side is not the reference again.
func withoutTwin() option { return func(_ *row, s *settings) { s.twin = false } }

// byP99 compares the rounds' 99th percentiles instead of their medians.
func byP99() option { return func(_ *row, s *settings) { s.p99 = true } }

// compare measures the sides in turn and adds a row.
func (b *bench) compare(name string, u unit, sides []side, opts ...option) error {
	r := row{Name: name, Unit: u.name}
	set := settings{rounds: b.rounds, twin: true}
	for _, o := range opts {
		o(&r, &set)
	}
	all := make([][]float64, len(sides))
	rounds := make([][]float64, len(sides)) // one value a round
	for round := range set.rounds + 1 {
		values := make([]float64, len(sides))
		for k := range sides {
			i := k
			if round%2 == 1 {
				i = len(sides) - 1 - k
			}
			if err := b.ctx.Err(); err != nil {
				return err
			}
			samples, err := sides[i].run()
			if err != nil {
				return fmt.Errorf("%s on %s: %w", name, sides[i].name, err)
			}
			if len(samples) == 0 {
				return fmt.Errorf("%s on %s: no samples", name, sides[i].name)
			}
			values[i] = percentile(samples, 0.5)
			if set.p99 {
				values[i] = percentile(samples, 0.99)
			}
			if round > 0 { // the first is a warm-up
				all[i] = append(all[i], samples...)
			}
		}
		if round > 0 {
			for i, v := range values {
				rounds[i] = append(rounds[i], v)
			}
		}
	}
	for i, s := range sides {
		res := sideResult{Name: s.name, Samples: len(all[i])}
		res.Best, res.Median, res.P99 = percentile(all[i], 0), percentile(all[i], 0.5), percentile(all[i], 0.99)
		if u.moreWins {
			res.Best, res.P99 = percentile(all[i], 1), percentile(all[i], 0.01)
		}
		res.Best, res.Median, res.P99 = res.Best*u.scale, res.Median*u.scale, res.P99*u.scale
		r.Sides = append(r.Sides, res)
	}
	if len(sides) > 1 && !set.absolute {
		r.Ratio = ratios(rounds[1], rounds[0], u.moreWins)
	}
	if r.Enough > 0 {
		r.Share = ratios(rounds[len(sides)-1], rounds[0], u.moreWins)
	}
	if len(sides) > 2 && !set.absolute && set.twin {
		r.Noise = ratios(rounds[2], rounds[1], u.moreWins)
	}
	b.report.add(os.Stdout, r)
	return nil
}

// ratios divides round by round: above 1, ours is the better.
func ratios(other, ours []float64, moreWins bool) *spread {
	list := make([]float64, len(ours))
	for i := range ours {
		list[i] = other[i] / ours[i]
		if moreWins {
			list[i] = ours[i] / other[i]
		}
	}
	return &spread{percentile(list, 0.5), percentile(list, 0), percentile(list, 1)}
}

func percentile(samples []float64, p float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	return s[int(math.Round(p*float64(len(s)-1)))]
}

// each times single calls.
func each(n int, fn func(i int) error) ([]float64, error) {
	out := make([]float64, n)
	for i := range out {
		start := time.Now()
		if err := fn(i); err != nil {
			return nil, err
		}
		out[i] = time.Since(start).Seconds()
	}
	return out, nil
}

// once makes a side's round of one timed call.
func once(fn func() error) func() ([]float64, error) {
	return func() ([]float64, error) { return each(1, func(int) error { return fn() }) }
}
