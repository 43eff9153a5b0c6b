// Package replay plays recorded wire traffic of the reference daemon against
// a daemon and compares what comes back: the same fields, JSON types, codes
// and descriptors.
//
// The recordings under testdata/vectors are copies of the specification's.
// A recording is a list of lines; a line is a request, a reply, a raw payload
// or an event, on one of several connections. The replay opens a real
// connection for each recorded one and goes down the list: requests are sent,
// replies are awaited and compared. Ids, socket paths and other names that the
// daemon chooses are paired with the recorded ones as replies show them, and
// requests go out with the live ones.
//
// What is not replayed stands in testdata/excluded.json, what the daemon
// answers otherwise on purpose in testdata/deviations.json, and what a
// recording found when it began in testdata/setup.json.
package replay

import (
	"errors"
	"fmt"
	"testing"
)

// A Target is a running daemon.
type Target struct {
	Socket string // path of the IPC socket
	RPC    string // host:port of the TCP socket; "" if there is none
}

// Stats count what a replay did.
type Stats struct {
	Recordings  int
	Requests    int
	Replies     int // compared
	Deviations  int // replies compared with a deviation's answer
	Descriptors int // received and mapped
	Payloads    int // raw payloads sent or received
}

func (s *Stats) add(o Stats) {
	s.Recordings += o.Recordings
	s.Requests += o.Requests
	s.Replies += o.Replies
	s.Deviations += o.Deviations
	s.Descriptors += o.Descriptors
	s.Payloads += o.Payloads
}

func (s Stats) String() string {
	return fmt.Sprintf("%d recordings replayed: %d requests, %d replies compared (%d of them deviations), %d descriptors, %d raw payloads",
		s.Recordings, s.Requests, s.Replies, s.Deviations, s.Descriptors, s.Payloads)
}

// All replays every recording that is not excluded, each as a subtest on the
// daemon that start gives it. The daemon must be fresh and meet req; start
// stops it again with t.Cleanup.
func All(t *testing.T, start func(t testing.TB, req Requirements) Target) {
	t.Helper()
	all(t, false, start)
}

func all(t *testing.T, reference bool, start func(t testing.TB, req Requirements) Target) {
	t.Helper()
	excluded, err := Excluded()
	if err != nil {
		t.Fatal(err)
	}
	whole := map[string]bool{}
	for _, e := range excluded {
		if len(e.Lines) == 0 {
			whole[e.File] = true
		}
	}
	files, err := Recordings()
	if err != nil {
		t.Fatal(err)
	}
	var total Stats
	for _, file := range files {
		if whole[file] {
			continue
		}
		t.Run(file, func(t *testing.T) {
			req, err := RequirementsOf(file)
			if err != nil {
				t.Fatal(err)
			}
			total.add(run(t, file, start(t, req), reference))
		})
	}
	t.Log(total)
}

// Run replays one recording on a fresh daemon that meets its Requirements.
// Differences are test errors that name the recorded line.
func Run(t testing.TB, file string, target Target) Stats {
	t.Helper()
	return run(t, file, target, false)
}

// run is Run; for the reference daemon it expects what was recorded where
// ours deviates.
func run(t testing.TB, file string, target Target, reference bool) Stats {
	t.Helper()
	p, err := newPlayer(file, target, reference)
	if err != nil {
		t.Fatal(err)
	}
	p.dir = t.TempDir()
	p.differs = func(l *line, format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %s", l.at(), fmt.Sprintf(format, args...))
	}
	if err := errors.Join(p.play(), p.close()); err != nil {
		t.Fatal(err)
	}
	return p.stats
}
