package client

import (
	"context"
	"encoding/json"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/status"
)

// MigrateOptions says how an object travels. The zero value is the daemon's
// choice of everything; a daemon of the reference knows nothing else.
type MigrateOptions struct {
	Parallel int    // connections; 0 for the daemon's choice
	Limit    int64  // bytes a second; 0 for none
	Compress string // auto, on or off; "" is auto: on slow links, what shrinks
	Verify   bool   // compare checksums
	Names    bool   // names of the original are to point at the copy
}

// Migration is what a migration did.
type Migration struct {
	ID       ID       // of the copy; the object's own if it was there already
	Transfer Transfer // zero from a daemon of the reference
}

// Transfer describes bytes on their way, or how they came.
type Transfer struct {
	Number     uint64     `json:"transfer"`
	Object     ID         `json:"object"`
	Kind       string     `json:"kind"`       // migrate or fetch
	Instance   InstanceID `json:"instance"`   // where they come from
	Endpoint   string     `json:"endpoint"`   // its address
	Way        string     `json:"way"`        // ipc, tcp, classic, or here: nothing had to move
	Blobs      int        `json:"blobs"`      // to come
	Bytes      int64      `json:"bytes"`      // that have come
	Total      int64      `json:"total"`      // bytes to come
	MS         int64      `json:"time_ms"`    // since it began
	Resumed    int64      `json:"resumed"`    // how often a connection was lost
	Compressed bool       `json:"compressed"` // at least a part was asked for compressed
}

// Migrate brings a copy of a persistent object of another instance to the daemon
// of this client, and persists it: same fields and signatures, new ids. The
// original stays. Repeated and simultaneous calls return the same copy. When ctx
// ends, and nobody else asked for the object, the transfer ends and leaves nothing.
// Global objects cannot be migrated; their members can.
func (c *Client) Migrate(ctx context.Context, id ID, o MigrateOptions) (Migration, error) {
	if !c.info.Extended {
		if o != (MigrateOptions{}) {
			return Migration{}, c.needsV6D("settings of a migration")
		}
		var r protocol.MigrateReply
		err := call(ctx, c, protocol.MigrateObject, &protocol.ObjectIDRequest{ObjectID: id}, &r, nil)
		return Migration{ID: r.ObjectID}, err
	}
	if o.Parallel < 0 || o.Limit < 0 {
		return Migration{}, status.Errorf(status.Invalid, "%d connections, %d bytes a second", o.Parallel, o.Limit)
	}
	q := protocol.MigrateToRequest{
		ObjectID: id, Parallel: uint64(o.Parallel), Limit: uint64(o.Limit), Compress: o.Compress, Verify: o.Verify, Names: o.Names,
	}
	var r protocol.MigrateToReply
	m := Migration{}
	var bad error
	err := call(ctx, c, protocol.MigrateTo, &q, &r, func() error {
		m.ID = r.ObjectID
		bad = json.Unmarshal(r.Transfer, &m.Transfer)
		return nil
	})
	if err == nil && bad != nil {
		err = status.Errorf(status.IOError, "the daemon's account of the migration: %w", bad)
	}
	return m, err
}
