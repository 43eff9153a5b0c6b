//go:build linux

package recovery

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/server"
)

// found is what a daemon serves.
type found struct {
	status  server.Status
	places  map[client.SessionID]*foundPlace
	claimed map[client.SessionID]bool // sessions that a pending has adopted
}

type foundPlace struct {
	socket string
	metas  map[client.ID]shown
	rows   map[client.ID]client.BlobRow
	sums   map[client.ID][32]byte
	names  map[string]client.ID
	token  map[string]client.ID
}

// at returns what was found of a session, an empty place if it is gone.
func (f *found) at(p *place) *foundPlace {
	if at := f.places[p.id]; at != nil {
		return at
	}
	return &foundPlace{}
}

// byToken finds an object by the field that its maker gave it.
func (at *foundPlace) byToken(token string) (shown, bool) {
	id, ok := at.token[token]
	return at.metas[id], ok
}

// stray finds a blob by its bytes that the model does not know.
func (at *foundPlace) stray(p *place, sum [32]byte) (client.ID, bool) {
	for id, s := range at.sums {
		if s == sum && p.blobs[id] == nil {
			return id, true
		}
	}
	return 0, false
}

// sessionOf reads the session out of its socket's name.
func sessionOf(socket string) (client.SessionID, error) {
	i := strings.LastIndex(socket, ".S")
	if i < 0 {
		return 0, fmt.Errorf("%q is no socket of a session", socket)
	}
	n, err := strconv.ParseUint(socket[i+2:], 16, 64)
	return client.SessionID(n), err
}

// gather reads everything that a daemon serves.
func gather(socket string) (*found, error) {
	f := &found{places: map[client.SessionID]*foundPlace{}, claimed: map[client.SessionID]bool{}}
	root, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		return nil, err
	}
	defer root.Close()
	raw, err := root.NodeStatus(ctx)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &f.status); err != nil {
		return nil, err
	}
	for _, ss := range f.status.Sessions {
		c, err := client.Dial(ctx, client.Options{Socket: ss.Socket})
		if err != nil {
			return nil, fmt.Errorf("session %s: %w", ss.ID, err)
		}
		at, err := gatherPlace(c)
		c.Close()
		if err != nil {
			return nil, fmt.Errorf("session %s: %w", ss.ID, err)
		}
		at.socket = ss.Socket
		f.places[c.Info().SessionID] = at
		if c.Info().SessionID.String() != ss.ID {
			return nil, fmt.Errorf("socket of session %s leads to %s", ss.ID, c.Info().SessionID)
		}
	}
	return f, nil
}

func gatherPlace(c *client.Client) (*foundPlace, error) {
	at := &foundPlace{
		metas: map[client.ID]shown{}, rows: map[client.ID]client.BlobRow{},
		sums: map[client.ID][32]byte{}, token: map[string]client.ID{},
	}
	var ids, blobs []client.ID
	for row, err := range c.Rows(ctx, client.PageOptions{}) {
		if err != nil {
			return nil, err
		}
		ids = append(ids, row.ID)
	}
	for chunk := range slices.Chunk(ids, 100) {
		metas, err := c.GetObjects(ctx, chunk, client.GetOptions{})
		if err != nil {
			return nil, err
		}
		for _, m := range metas {
			s := show(m)
			at.metas[m.ID] = s
			if token, ok := m.Text("token_"); ok {
				at.token[token] = m.ID
			}
		}
	}
	if len(at.metas) != len(ids) {
		return nil, fmt.Errorf("%d objects are listed, %d of them have a tree", len(ids), len(at.metas))
	}
	for row, err := range c.BlobRows(ctx) {
		if err != nil {
			return nil, err
		}
		at.rows[row.ID] = row
		if row.Sealed && !row.Deleted {
			blobs = append(blobs, row.ID)
		}
	}
	for chunk := range slices.Chunk(blobs, 100) {
		got, err := c.GetBlobs(ctx, chunk)
		if err != nil {
			return nil, err
		}
		for _, b := range got {
			at.sums[b.ID()] = hash(b.Bytes())
		}
	}
	var err error
	at.names, err = c.ListNames(ctx, "*", 1<<20)
	return at, err
}

// compare checks what a fresh daemon serves against the model, after pending
// operations were resolved.
func (m *model) compare(f *found) {
	for id, p := range m.places {
		if f.places[id] == nil {
			m.fault(&m.tally.lost, "session %s is gone, with %d objects and %d blobs", id, len(p.objects), len(p.blobs))
			delete(m.places, id)
			continue
		}
		m.comparePlace(p, f.places[id])
	}
	for id := range f.places {
		if m.places[id] == nil {
			kind, what := &m.tally.other, "nobody made it"
			if m.gone[id.String()] {
				kind, what = &m.tally.risen, "it was deleted"
			}
			m.fault(kind, "session %s exists, but %s", id, what)
		}
	}
	m.compareLedger(f)
}

func (m *model) comparePlace(p *place, at *foundPlace) {
	if at.socket != p.socket {
		m.fault(&m.tally.changed, "session %s moved from %s to %s", p.id, p.socket, at.socket)
	}
	for id, o := range p.objects {
		m.tally.checked++
		got, ok := at.metas[id]
		switch {
		case !ok:
			m.fault(&m.tally.lost, "object %s (%s) is lost", id, o.Type)
			delete(p.objects, id)
			continue
		default:
			if d := o.diff(got); d != "" {
				m.fault(&m.tally.changed, "object %s: %s", id, d)
			}
		}
		o.shown, o.fresh = got, false
	}
	for id, b := range p.blobs {
		m.tally.checked++
		m.tally.bytes += int64(b.size)
		row, ok := at.rows[id]
		if !ok {
			m.fault(&m.tally.lost, "blob %s of %d bytes is lost", id, b.size)
			delete(p.blobs, id)
			continue
		}
		if at.sums[id] != b.sum || int64(b.size) != row.Size {
			m.fault(&m.tally.changed, "blob %s of %d bytes (%s) has other bytes", id, b.size, row.Where)
			b.sum = at.sums[id]
		}
		if owners := p.owners(id); !slices.Equal(owners, slices.Sorted(slices.Values(row.Owners))) {
			m.fault(&m.tally.changed, "blob %s: owners are %v, want %v", id, row.Owners, owners)
		}
		if old := b.row; old != nil && (old.PID != row.PID || old.UID != row.UID || !old.Created.Equal(row.Created)) {
			m.fault(&m.tally.changed, "blob %s: was %+v, is %+v", id, *old, row)
		}
		b.row = &row
	}
	for id := range at.metas {
		if p.objects[id] == nil {
			m.stranger(p, id, "object")
		}
	}
	for id, row := range at.rows {
		if p.blobs[id] == nil {
			m.stranger(p, id, fmt.Sprintf("blob (%d bytes, sealed %v, deleted %v, chunk %v, %s)", row.Size, row.Sealed, row.Deleted, row.Chunk, row.Where))
		} else if !row.Sealed || row.Deleted {
			m.fault(&m.tally.changed, "blob %s: sealed %v, deleted %v", id, row.Sealed, row.Deleted)
		}
	}
	if !maps.Equal(p.names, at.names) {
		m.fault(&m.tally.changed, "names of %s are %v, want %v", p.id, at.names, p.names)
		p.names = at.names
	}
}

// stranger is something that the model does not have.
func (m *model) stranger(p *place, id client.ID, what string) {
	if m.gone[key(p, id)] {
		m.fault(&m.tally.risen, "%s %s was deleted and is back", what, id)
		return
	}
	m.fault(&m.tally.other, "%s %s exists, but nobody made it", what, id)
}

// compareLedger checks that every byte is accounted for. The only connection is
// the one that asks.
func (m *model) compareLedger(f *found) {
	var usage int64
	objects := 0
	seen := map[*int]bool{}
	for _, p := range m.places {
		objects += len(p.objects)
		for _, b := range p.blobs {
			if !seen[b.extent] {
				seen[b.extent] = true
				usage += int64(b.size)
			}
		}
	}
	if m.hostID == "" {
		m.hostID = f.status.HostID
	}
	if m.hostID != f.status.HostID {
		m.fault(&m.tally.changed, "the node was %s and is %s", m.hostID, f.status.HostID)
	}
	l := f.status.Ledger
	if l.Usage != usage || l.Unsealed != 0 || l.Deferred != 0 || l.Uncounted != 0 || f.status.Objects != objects {
		m.fault(&m.tally.other, "the ledger does not balance: usage %d, blobs add up to %d; unsealed %d, deferred %d, uncounted %d; %d objects, want %d",
			l.Usage, usage, l.Unsealed, l.Deferred, l.Uncounted, f.status.Objects, objects)
	}
	// A record that was being written at the kill is a torn end, and no damage.
	damage := slices.DeleteFunc(slices.Clone(f.status.Start.Damage), func(g journal.Gap) bool { return g.Torn })
	if len(f.status.Start.Lost)+len(damage) > 0 {
		m.fault(&m.tally.other, "the daemon reports damage: lost %v, damaged %v", f.status.Start.Lost, f.status.Start.Damage)
	}
}
