//go:build linux

// Package faults holds tests that do to a real daemon process what goes wrong in
// practice: clients are killed at every point of their work, memory, descriptors
// and disk run out, readers stall, the pool is truncated, the journal damaged.
// After each of them the daemon's books must be what they were before, and it
// must still serve.
//
//	go test -v ./interop/faults                        # all, the crowd for 5 s
//	go test -v -run 'Faults/kill' ./interop/faults     # one group
//	V6D_FAULT_SECONDS=120 go test -v -run 'Faults/crowd' ./interop/faults
//
// Environment:
//
//	V6D_BIN            binary to test; otherwise one is built from the checkout
//	V6D_FAULT_SECONDS  how long the crowd works (5); it is never less than 1,000 clients
//	V6D_FAULT_SEED     seed of what is drawn; without one it is drawn, and always printed
//	V6D_FAULT_KNOWN    run the subtests that are known to fail, too
//
// The killed clients are this test binary, told by the environment what to be
// (child_test.go). Each subtest logs one line that ends with "ledger balanced"
// once that has been verified (daemon_test.go).
package faults

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/testserver"
)

const (
	mib = 1 << 20
	// settled is how long the daemon may take to free what the dead held.
	settled = 2 * time.Second
	// patience is how long anything else may take; the machine may be busy.
	patience = 20 * time.Second
)

var (
	ctx  = context.Background() // with a deadline in tests: a daemon that hangs is a fault, too
	v6d  string                 // path of the daemon under test
	seed = envNumber("V6D_FAULT_SEED", rand.Uint64N(1e9))
)

func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		os.Exit(child(role))
	}
	dir, err := os.MkdirTemp("", "v6d-faults")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if v6d, err = testserver.Binary(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	seconds := time.Duration(envNumber("V6D_FAULT_SECONDS", 0)) * time.Second
	limited, cancel := context.WithTimeout(ctx, 4*time.Minute+2*seconds)
	ctx = limited
	code := m.Run()
	cancel()
	os.RemoveAll(dir)
	os.Exit(code)
}

// TestFaults is all of them, one after the other: the daemons share a machine.
func TestFaults(t *testing.T) {
	t.Logf("V6D_FAULT_SEED=%d repeats what was drawn", seed)
	for _, group := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"kill", testKills},
		{"full", testFull},
		{"files", testFiles},
		{"stalled", testStalled},
		{"truncate", testTruncate},
		{"journal", testJournal},
		{"crowd", testCrowd},
	} {
		t.Run(group.name, group.run)
	}
}

// known skips a subtest that fails because of a fault of the daemon that is
// known. Who mends it takes the call out.
func known(t *testing.T, fault string) {
	t.Helper()
	if os.Getenv("V6D_FAULT_KNOWN") == "" {
		t.Skipf("known fault of the daemon, V6D_FAULT_KNOWN=1 shows it: %s", fault)
	}
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
	for deadline := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		if err = cond(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// noise is what fill copies: made once, since the race detector looks at every
// store.
var noise = func() []byte {
	b := make([]byte, 2*page)
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}()

const page = 4096

// fill writes bytes that depend on a number: in every 4 KiB the number and then
// noise. A longer slice begins as a shorter one does.
func fill(b []byte, number uint64) {
	var first [8]byte
	binary.LittleEndian.PutUint64(first[:], number)
	for ; len(b) > 0; b = b[min(len(b), page):] {
		if n := copy(b, first[:]); n == len(first) {
			copy(b[n:min(len(b), page)], noise[number%page:])
		}
	}
}

// pattern returns size bytes made by fill.
func pattern(number uint64, size int) []byte {
	b := make([]byte, size)
	fill(b, number)
	return b
}
