//go:build linux

package recovery

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

// soak is one run: daemons on one socket, one after the other, and a model.
type soak struct {
	t       testing.TB
	h       *host
	m       *model
	rng     *rand.Rand
	seed    uint64
	workers []*worker
	helpers []*helper
	py      *pyWorker // nil without Python
	cycle   int
}

func envNumber(name string, fallback uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return fallback
}

// TestRecovery kills daemons at random moments and wants everything back that
// was acknowledged. Two thirds of the crashes are of a pool on a mount of its
// own (where that can be had), one third of a pool in /dev/shm.
func TestRecovery(t *testing.T) {
	cycles := int(envNumber("V6D_RECOVERY_CYCLES", 12))
	seed := envNumber("V6D_RECOVERY_SEED", rand.Uint64N(1e9))
	t.Logf("seed %d: V6D_RECOVERY_SEED=%d V6D_RECOVERY_CYCLES=%d repeats this run", seed, seed, cycles)
	began := time.Now()
	var sum tally
	for i, part := range []struct {
		name   string
		cycles int
		args   []string
	}{
		{"mount", cycles - cycles/3, nil},
		{"devshm", cycles / 3, []string{"--huge", "never"}},
	} {
		t.Run(part.name, func(t *testing.T) {
			s := newSoak(t, seed+uint64(i), part.args...)
			s.run(part.cycles)
			sum.add(s.m.tally)
			t.Log(s.m.tally.String())
		})
	}
	t.Logf("seed %d, %.0f s: %s", seed, time.Since(began).Seconds(), sum)
}

func (a *tally) add(b tally) {
	a.starts, a.crashes, a.stops, a.stillborn = a.starts+b.starts, a.crashes+b.crashes, a.stops+b.stops, a.stillborn+b.stillborn
	a.checked, a.lost, a.changed, a.risen, a.other = a.checked+b.checked, a.lost+b.lost, a.changed+b.changed, a.risen+b.risen, a.other+b.other
	a.bytes, a.maybe, a.happened = a.bytes+b.bytes, a.maybe+b.maybe, a.happened+b.happened
	a.slowest = max(a.slowest, b.slowest)
}

func (a tally) String() string {
	return fmt.Sprintf("%d cycles (%d crashes, %d clean stops; %d more crashes while starting); %d objects and blobs checked, %d MiB: %d lost, %d changed, %d resurrected, %d other faults; %d of %d operations in flight had happened; slowest start %d ms",
		a.crashes+a.stops, a.crashes, a.stops, a.stillborn, a.checked, a.bytes>>20, a.lost, a.changed, a.risen, a.other, a.happened, a.maybe, a.slowest.Milliseconds())
}

func newSoak(t testing.TB, seed uint64, args ...string) *soak {
	s := &soak{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), m: newModel()}
	s.h = newHost(t, append([]string{"--keep", "--rpc-listen", "127.0.0.1:0", "--log-level", "warn"}, args...)...)
	s.m.places[0] = newPlace(0, s.h.socket)
	for i := range 4 {
		s.workers = append(s.workers, newWorker(s.m, seed, i+1))
	}
	t.Cleanup(func() {
		for _, h := range s.helpers {
			h.stop()
		}
		if s.py != nil {
			s.py.stop()
		}
	})
	return s
}

func (s *soak) run(cycles int) {
	d := s.start()
	s.verify(nil)
	for s.cycle = 1; s.cycle <= cycles && len(s.m.faults) == 0; s.cycle++ {
		quiet := s.cycle%8 == 0
		if quiet {
			s.quiet()
		}
		s.raiseHelpers()
		// Some daemons die in their first moments, some around the first tick of
		// their housekeeping.
		life := time.Duration(30+s.rng.IntN(400)) * time.Millisecond
		if s.rng.IntN(3) == 0 {
			life = time.Duration(900+s.rng.IntN(500)) * time.Millisecond
		}
		idle := quiet && s.rng.IntN(2) == 0 // die with no request under way, perhaps while tidying
		python := pythonPath() != "" && !idle && s.rng.IntN(4) == 0
		wait := s.hammer(idle, python)
		time.Sleep(life)
		clean := s.rng.IntN(8) == 0
		if clean {
			d.stop()
			s.m.tally.stops++
		} else {
			d.kill()
			s.m.tally.crashes++
		}
		wait()
		d = s.start()
		s.verify(d)
		if python && len(s.m.faults) == 0 {
			if err := s.py.check(s.m); err != nil {
				s.m.fault(&s.m.tally.other, "%v", err)
			}
		}
	}
	s.report(d)
	if len(s.m.faults) == 0 {
		s.quiet()
		s.report(d)
	}
}

// report fails the test with the first faults.
func (s *soak) report(d *daemon) {
	s.t.Helper()
	if len(s.m.faults) == 0 {
		return
	}
	for _, f := range s.m.faults[:min(len(s.m.faults), 20)] {
		s.t.Errorf("cycle %d: %s", s.cycle-1, f)
	}
	s.t.Fatalf("%d faults; %s\n%s", len(s.m.faults), s.m.tally, d.log.Tail(30))
}

// start starts the next daemon, sometimes after others that die while starting,
// sometimes with a larger or a smaller pool.
func (s *soak) start() *daemon {
	size := []string{"128MiB", "128MiB", "128MiB", "160MiB", "96MiB"}[s.rng.IntN(5)]
	for s.m.tally.starts > 0 && s.rng.IntN(5) == 0 {
		d := s.h.spawn("--size", size)
		time.Sleep(time.Duration(s.rng.IntN(40)) * time.Millisecond)
		if !d.running() {
			s.t.Fatalf("the daemon does not start:\n%s", d.log)
		}
		d.kill()
		s.m.tally.stillborn++
	}
	began := time.Now()
	d := s.h.spawn("--size", size)
	if err := s.h.answers(d); err != nil {
		s.t.Fatalf("cycle %d: %v\n%s%s", s.cycle, err, d.out, d.log.Tail(30))
	}
	s.m.tally.slowest = max(s.m.tally.slowest, time.Since(began))
	s.m.tally.starts++
	return d
}

// hammer sets the workers going. The returned function waits until they have
// noticed that the daemon is gone.
func (s *soak) hammer(idle, python bool) (wait func()) {
	if idle {
		return func() {}
	}
	if python {
		if s.py == nil {
			s.py = newPyWorker(s.t)
		}
		if err := s.py.work(s.h.socket, s.seed*1000+uint64(s.cycle)); err != nil {
			s.t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for _, w := range s.workers {
		wg.Go(w.work)
	}
	return func() {
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(patience):
			s.t.Fatal("a worker does not notice that the daemon is gone")
		}
		if python {
			if err := s.py.await("down"); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// verify compares a fresh daemon with the model.
func (s *soak) verify(d *daemon) {
	s.t.Helper()
	f, err := gather(s.h.socket)
	if err != nil {
		log := ""
		if d != nil {
			log = d.log.Tail(30)
		}
		s.t.Fatalf("cycle %d: read everything back: %v\n%s", s.cycle, err, log)
	}
	for _, w := range s.workers {
		if w.pend == nil {
			continue
		}
		s.m.tally.maybe++
		if w.pend.resolve(f) {
			s.m.tally.happened++
		}
		w.pend = nil
	}
	if s.py != nil {
		s.py.resolve(s.m, f)
	}
	for _, h := range s.helpers {
		h.age++
		if c := h.complaint(); c != "" {
			s.m.fault(&s.m.tally.changed, "%s", c)
		}
		for _, id := range h.unsealed() {
			s.m.saw(id)
		}
	}
	s.m.compare(f)
	if len(s.m.faults) > 0 {
		return
	}
	if err := s.m.probe(); err != nil {
		s.t.Fatalf("cycle %d: ask for new blobs: %v", s.cycle, err)
	}
}

// raiseHelpers keeps up to two clients that outlive their daemons, each for up
// to three crashes. Every other stretch of cycles has none, so that the daemon
// gets to tidying earlier files.
func (s *soak) raiseHelpers() {
	s.helpers = slices.DeleteFunc(s.helpers, func(h *helper) bool {
		if h.age < 1+s.rng.IntN(3) {
			return false
		}
		h.stop()
		return true
	})
	if s.cycle%8 < 3 {
		return
	}
	for len(s.helpers) < 2 {
		watch := map[client.ID][32]byte{}
		for id, b := range s.m.places[0].blobs {
			if watch[id] = b.sum; len(watch) == 10 {
				break
			}
		}
		s.helpers = append(s.helpers, newHelper(s.t, s.h.socket, watch))
	}
}

// quiet ends every client and waits until the files of earlier daemons are
// gone; what lay in them must be served on.
func (s *soak) quiet() {
	s.t.Helper()
	for _, h := range s.helpers {
		h.stop()
		if text := h.out.String(); strings.Contains(text, "changed") {
			s.m.fault(&s.m.tally.changed, "a client that maps an earlier pool: %s", text)
		}
	}
	s.helpers = nil
	if s.py != nil {
		s.py.stop()
		s.py = nil
	}
	dir := s.h.mountDir()
	if _, err := os.Stat(dir + "/journal"); err != nil {
		dir = s.h.shmDir()
	}
	want := len(s.m.places)
	if err := eventually(func() error {
		if files := poolFiles(s.t, dir); len(files) != want {
			return fmt.Errorf("%d sessions, but these files: %v", want, files)
		}
		return nil
	}); err != nil {
		s.m.fault(&s.m.tally.other, "earlier files are not tidied away: %v", err)
	}
	f, err := gather(s.h.socket)
	if err != nil {
		s.t.Fatalf("read everything back after tidying: %v", err)
	}
	s.m.compare(f)
}

// TestRecoveryOfTerminated is one crash by SIGKILL of the whole process group
// at the end of a burst of small requests: many records, many small blobs.
func TestRecoveryOfBurst(t *testing.T) {
	h := newHost(t, "--size", "64MiB")
	d := h.start()
	c := h.dial(t)
	type made struct {
		id  client.ID
		sum [32]byte
	}
	var blobs []made
	stop := time.Now().Add(500 * time.Millisecond)
	for n := uint64(0); time.Now().Before(stop); n++ {
		b := make([]byte, 1+n%200)
		sum := bytesOf(b, n)
		id, err := c.PutBlob(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, made{id, sum})
	}
	d.signal(syscall.SIGKILL)
	<-d.done
	h.start()
	c = h.dial(t)
	for _, b := range blobs {
		got, err := c.GetBlob(ctx, b.id)
		if err != nil {
			t.Fatal(err)
		}
		if hash(got.Bytes()) != b.sum {
			t.Fatalf("blob %s has other bytes", b.id)
		}
	}
	t.Logf("%d blobs", len(blobs))
}
