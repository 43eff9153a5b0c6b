package tui

import (
	"context"
	"fmt"
	"time"

	"github.com/v6d-go/v6d/client"
)

// Source is what the browser shows. Its methods are called from several
// goroutines at a time and end with their contexts; the first call connects, and a
// call after the connection was lost connects again.
type Source interface {
	// Overview is cheap; it is asked for again and again.
	Overview(ctx context.Context) (Overview, error)
	Instances(ctx context.Context) ([]Instance, error)
	// Objects calls yield with one page of objects after the other, in the order of
	// the ids, until it returns false.
	Objects(ctx context.Context, yield func([]client.Row) bool) error
	// Rows returns those of some objects that still exist.
	Rows(ctx context.Context, ids []client.ID) ([]client.Row, error)
	Names(ctx context.Context) ([]Name, error)
	Streams(ctx context.Context) ([]Stream, error)
	Clients(ctx context.Context) ([]Client, error)
	// Shares says what takes the memory, by type, name, owner or state.
	Shares(ctx context.Context, by string) ([]Share, error)
	Object(ctx context.Context, id client.ID) (*Object, error)
	// Value returns a preview. When more than limit bytes had to come from other
	// instances it fails with FarError; a negative limit is none.
	Value(ctx context.Context, id client.ID, limit int64) (*Value, error)
	// Watch waits for what happens after a cursor, 0 for now, and returns the cursor
	// to go on with. It fails with client.NotImplemented where that cannot be had.
	Watch(ctx context.Context, cursor uint64) (events []client.Event, next uint64, lost bool, err error)
	// Past returns the events before a cursor that the daemon remembers, the oldest
	// first.
	Past(ctx context.Context, until uint64) ([]client.Event, error)
	// Run runs a command of v6d with the connection's flags, and returns what it
	// printed.
	Run(ctx context.Context, args ...string) (string, error)
	Close() error
}

// Overview is what the head line shows.
type Overview struct {
	Address     string // socket, or host:port
	Remote      bool   // over TCP
	Extended    bool   // a v6d daemon
	Version     string
	Instance    uint64
	Used, Limit int64 // bytes
	Deferred    int64 // bytes of deleted blobs that are held
	Cached      int64 // bytes of copies of other instances' blobs
	Objects     int
	Blobs       int
	Clients     int
	Moving      int    // transfers under way
	Failure     string // of the metadata service or the pool
}

// Instance is a daemon of the cluster.
type Instance struct {
	Number    uint64
	Host      string
	Endpoint  string
	Used      int64 // bytes; -1 where it did not answer
	Limit     int64 // bytes; -1 where it did not answer
	Objects   int
	Clients   int // -1 where it does not tell
	Heartbeat time.Duration
	State     string
	Self      bool
}

// Name is a name and what it points at.
type Name struct {
	Name  string
	ID    client.ID
	Type  string
	Bytes int64
	Gone  bool // nothing is there
}

// Stream is a queue of chunks.
type Stream struct {
	Name    string
	ID      client.ID
	Type    string
	State   string
	Reason  string // of a failure
	Writer  string
	Readers []string // with the number of the chunk that they are at
	Chunks  int64
	Bytes   int64
	Ready   int64
	Pushed  uint64
	Pulled  uint64
	Waits   string
	Rate    float64 // chunks a second since the last look; -1 at first
}

// Client is a connection.
type Client struct {
	Key      string // one for each connection
	Process  string // who, as far as this host knows; or the remote address
	PID      int
	Session  string
	Since    time.Time
	Requests uint64
	Idle     bool
	Extended bool
	Made     int64 // bytes of live blobs that the process made
	Unsealed int64 // bytes of those that are not sealed
	Gone     bool  // the process has ended, but its blobs have not: a leak
}

// Share is a group of blobs.
type Share struct {
	Key     string
	Bytes   int64
	Blobs   int
	Counted bool // part of the pool's usage
}

// Object is all that is known of one object.
type Object struct {
	Meta   *client.Meta
	Names  []string
	Owners []Ref // objects that refer to it
	Frees  int64 // bytes that deleting it frees; -1 where that is not known
	Blobs  int   // distinct blobs below it
	Bytes  int64 // of those that are known
	Here   uint64
}

// Ref is another object that is referred to.
type Ref struct {
	ID   client.ID
	Type string
	Name string
}

// Value is a preview of what an object holds.
type Value struct {
	ID      client.ID
	Kind    string // table, array, value, text, bytes
	About   string // one line
	Columns []string
	Types   []string
	Numeric []bool
	Rows    [][]string
	Total   int64 // rows of the whole value
	Stats   []string
	Bars    []int // of a histogram
	From    string
	To      string // bounds of the histogram
	Text    string // of a value
	Bytes   []byte // the first ones of bytes
}

// FarError is the error of a preview for which more bytes had to come from other
// instances than allowed.
type FarError struct{ Bytes int64 }

func (e *FarError) Error() string {
	return fmt.Sprintf("%s of it lie on other instances", size(e.Bytes))
}
