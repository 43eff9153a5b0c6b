package meta

import (
	"errors"
	"log/slog"
	"testing"
	"time"
)

// TestLateFailure: a question of before an outage that fails late does not make the
// service unreachable again, when a later one was answered.
func TestLateFailure(t *testing.T) {
	c := &Cluster{log: slog.New(slog.DiscardHandler)}
	old, newer := time.Now(), time.Now().Add(time.Second)
	down := errors.New("no answer")
	c.fail(down, old)
	if c.Health() == nil {
		t.Fatal("a failure is not noticed")
	}
	c.fail(nil, newer)
	c.fail(down, old)
	if err := c.Health(); err != nil {
		t.Errorf("a late failure counts: %v", err)
	}
	c.heard(newer.Add(time.Second))
	c.fail(down, newer)
	if err := c.Health(); err != nil {
		t.Errorf("a late failure counts after an answer: %v", err)
	}
	c.fail(down, newer.Add(2*time.Second))
	if c.Health() == nil {
		t.Error("a failure after the last answer is not noticed")
	}
}
