package client

import (
	"cmp"
	"context"
	"slices"
)

// Place is the part of an object that lies on one instance.
type Place struct {
	Instance InstanceID `json:"instance"`
	Objects  int        `json:"objects"` // of the tree, the object itself among them
	Blobs    int        `json:"blobs"`
	// Bytes is what the metadata says: the sum of nbytes of those objects that hold
	// blobs. Nobody checks that, and some clients write 0 or count pointers.
	Bytes int64 `json:"bytes"`
}

// Locate returns which parts of an object lie where, the instance with the most
// bytes first: what a scheduler needs to run a task where its data are. Nothing
// is fetched.
func (c *Client) Locate(ctx context.Context, id ID) ([]Place, error) {
	m, err := c.GetObject(ctx, id)
	if err != nil {
		return nil, err
	}
	return m.Places(), nil
}

// Places is Locate for metadata that is known already.
func (m *Meta) Places() []Place {
	at := map[InstanceID]*Place{}
	seen := map[[2]uint64]bool{} // ids of blobs are unique on an instance only
	var walk func(m *Meta)
	walk = func(m *Meta) {
		key := [2]uint64{uint64(m.InstanceID), uint64(m.ID)}
		if seen[key] || m.ID == EmptyBlob {
			return
		}
		seen[key] = true
		p := at[m.InstanceID]
		if p == nil && m.InstanceID != spread {
			p = &Place{Instance: m.InstanceID}
			at[m.InstanceID] = p
		}
		if m.IsBlob() {
			p.Blobs++
			return
		}
		holds := false
		for _, member := range m.Members {
			holds = holds || member.IsBlob() && member.ID != EmptyBlob
			walk(member)
		}
		if p == nil { // a global object is nowhere in particular
			return
		}
		p.Objects++
		if n, ok := m.Int("nbytes"); ok && holds && n > 0 {
			p.Bytes += n
		}
	}
	walk(m)
	places := make([]Place, 0, len(at))
	for _, p := range at {
		places = append(places, *p)
	}
	slices.SortFunc(places, func(a, b Place) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Instance, b.Instance))
	})
	return places
}

// spread is the instance of objects whose members lie on several.
const spread = ^InstanceID(0)
