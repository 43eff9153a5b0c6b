package replay

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Requirements say what a recording needs of the daemon it is replayed on:
// always a fresh one, alone, with local metadata and no spill path.
type Requirements struct {
	File        string            // the recording
	Size        int64             // pool size in bytes
	RPC         bool              // the recording speaks over TCP
	Compression bool              // announced in register_reply
	Users       map[string]string // user -> password; none: no authentication
}

// HTPasswd returns Users as the text of an htpasswd file with SHA-1 entries.
func (r *Requirements) HTPasswd() string {
	var b strings.Builder
	for _, user := range slices.Sorted(maps.Keys(r.Users)) {
		sum := sha1.Sum([]byte(r.Users[user]))
		fmt.Fprintf(&b, "%s:{SHA}%s\n", user, base64.StdEncoding.EncodeToString(sum[:]))
	}
	return b.String()
}

// setup is an entry of testdata/setup.json: what a recording's daemon was, and
// had behind it, when the recording began. The recordings were made one after
// the other, most on one daemon.
type setup struct {
	Size  int64             `json:"size"`
	Users map[string]string `json:"users"`
	// Seed lists the sizes of sealed blobs that earlier recordings left and
	// this one lists, oldest first.
	Seed []int64 `json:"seed"`
	// Usage is the memory_usage that earlier recordings left, less the Seed.
	Usage int64 `json:"usage"`
	// Hangups are closed connections that left no event in the recording.
	Hangups []struct {
		After int    `json:"after"` // line
		Conn  string `json:"conn"`
	} `json:"hangups"`
}

// setupOf returns the setup of a recording; without an entry it is the default.
func setupOf(file string) (setup, error) {
	var table map[string]setup
	if err := loadTable("setup.json", &table); err != nil {
		return setup{}, err
	}
	s := table[file]
	if s.Size == 0 {
		s.Size = table["default"].Size
	}
	return s, nil
}

// RequirementsOf returns what a recording needs of its daemon.
func RequirementsOf(file string) (Requirements, error) {
	s, err := setupOf(file)
	if err != nil {
		return Requirements{}, err
	}
	lines, err := load(file)
	if err != nil {
		return Requirements{}, err
	}
	return Requirements{
		File:        file,
		Size:        s.Size,
		RPC:         slices.ContainsFunc(lines, func(l *line) bool { return l.T == "rpc" }),
		Compression: true,
		Users:       s.Users,
	}, nil
}
