//go:build linux

package cluster

import "testing"

// heavy leaves a test out of the run with the race detector beside all other
// packages: it moves so much, or waits so exactly, that it needs the machine to
// itself. `make faults` runs it.
func heavy(t *testing.T) {
	t.Helper()
	if underRace {
		t.Skip("needs the machine to itself: make faults")
	}
}
