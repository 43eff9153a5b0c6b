//go:build linux

// Package cluster holds tests that form clusters of real daemon processes, each
// on a host of its own (a network namespace), with a real etcd on another, and
// then do to them what goes wrong in practice: nodes and etcd are killed, hang,
// are slow, cut off, come back empty or full; others write into the same keys.
// What was acknowledged must be there afterwards, everywhere, and nothing else.
//
//	go test -v ./interop/cluster                       # all but the slow ones and chaos
//	V6D_SLOW=1 go test -v ./interop/cluster            # all but chaos
//	V6D_CHAOS_SECONDS=600 go test -v -run Chaos ./interop/cluster
//
// Environment:
//
//	V6D_BIN            binary to test; otherwise one is built from the checkout
//	V6D_SLOW           run the tests that take more than a minute
//	V6D_CHAOS_SECONDS  how long chaos lasts; without it there is none
//	V6D_CHAOS_SEED     seed of what is drawn; without one it is drawn, and always printed
//
// The hosts share files with the machine, so the tests reach every daemon by its
// socket, whatever is done to its network.
package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/testserver"
)

const (
	// patience is how long something may take that is not measured.
	patience = 20 * time.Second
	// burial is how long a dead node's keys may stay: its neighbour looks every
	// 10 s, and wants to see the same timestamp four times.
	burial = 50 * time.Second
)

var (
	ctx  = context.Background() // with a deadline in tests: a daemon that hangs is a fault, too
	v6d  string                 // path of the daemon under test
	slow = os.Getenv("V6D_SLOW") != ""
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait for heartbeats most of the time, not for the processors.
	if err := flag.Set("test.parallel", "16"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "v6d-cluster")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if v6d, err = testserver.Binary(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	chaos := time.Duration(envNumber("V6D_CHAOS_SECONDS", 0)) * time.Second
	limited, cancel := context.WithTimeout(ctx, 10*time.Minute+2*chaos)
	ctx = limited
	code := m.Run()
	cancel()
	os.RemoveAll(dir)
	os.Exit(code)
}

func envNumber(name string, fallback uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return fallback
}

// within polls until cond returns nil, and returns its last error after limit.
func within(limit time.Duration, cond func() error) error {
	var err error
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if err = cond(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// must ends the test if one of the errors is one.
func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// since is a duration for the log.
func since(t time.Time) time.Duration { return time.Since(t).Round(10 * time.Millisecond) }

// pattern returns size bytes that depend on a number.
func pattern(number uint64, size int) []byte {
	b := make([]byte, (size+7)&^7)
	r := rand.NewPCG(number, 86)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:size]
}
