package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/shm"
)

// TestStepAhead: one step of what KeepAhead does puts memory behind the end of
// the pool, leaves the books as they were, and wakes who found no room while a
// part of the pool was out of use.
func TestStepAhead(t *testing.T) {
	const limit = 128 << 20
	s, ss := aheadStore(t, limit)
	if s.stepAhead() {
		t.Fatal("a step for a pool that nobody uses")
	}
	s.mu.Lock()
	s.wantAhead(ss.pool)
	s.mu.Unlock()
	freed, before := s.Freed(), s.Account()
	if !s.stepAhead() {
		t.Fatal("no step was made")
	}
	select {
	case <-freed:
	default:
		t.Error("nobody was woken")
	}
	after := s.Account()
	if after.Reserved != aheadStep || after.Ahead != aheadStep || after.Free != before.Free || after.Overhead != 0 {
		t.Errorf("after one step: %+v", after)
	}
	for steps := 1; s.stepAhead(); steps++ {
		if steps > limit/aheadStep {
			t.Fatal("it never ends")
		}
	}
	if got := s.Account().Ahead; got != limit/4 {
		t.Errorf("%d bytes ahead, want a quarter of the pool", got)
	}
	if _, err := s.Trim(); err != nil || s.Account().Reserved != 0 || s.stepAhead() {
		t.Errorf("after Trim: %v, %+v", err, s.Account())
	}
	if err := s.Check(nil); err != nil {
		t.Error(err)
	}
}

// TestCreateWaitsForTheStepOnly: a create that finds part of the pool out of use
// goes on when the step is over, whoever trims the pool by then.
func TestCreateWaitsForTheStepOnly(t *testing.T) {
	const limit = 128 << 20
	s, ss := aheadStore(t, limit)
	s.stepping.Lock() // as Trim does for as long as it takes
	defer s.stepping.Unlock()
	s.mu.Lock()
	step := &carving{ss.pool, shm.Extent{}, make(chan struct{})}
	s.carved = step
	s.mu.Unlock()
	made := make(chan error)
	go func() {
		_, err := ss.Create(NewHolder(1, 1), aheadStep)
		made <- err
	}()
	select {
	case err := <-made:
		t.Fatalf("the create did not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	s.mu.Lock()
	s.carved = nil
	close(step.done)
	s.mu.Unlock()
	select {
	case err := <-made:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the create waits for who trims")
	}
}

// aheadStore is a store that is large enough to reserve memory ahead.
func aheadStore(t *testing.T, limit int64) (*Store, *Session) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "v6d-store-test-")
	if err != nil {
		t.Skipf("no folder in /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	home, err := shm.OpenHome(shm.HomeOptions{Memory: dir, Huge: "never", Socket: filepath.Join(dir, "sock"), Size: limit})
	if err != nil {
		t.Fatal(err)
	}
	s := New(home, Options{Limit: limit, IDs: object.NewGenerator(0)})
	t.Cleanup(func() { _ = errors.Join(s.Shutdown(), home.Close(true)) })
	ss, err := s.NewSession(object.RootSession, false)
	if err != nil {
		t.Fatal(err)
	}
	return s, ss
}
