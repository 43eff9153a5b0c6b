package typed

import (
	"strings"

	"github.com/v6d-go/v6d/client"
)

// Narrow returns the metadata of those parts of a table, or of a global data frame,
// that hold the rows from first to before last: loading it brings only their blobs
// here. Of what has no parts, or parts of which the rows are not known, it returns
// the metadata as they are. The metadata must not be stored.
func Narrow(m *client.Meta, first, last int64) *client.Meta {
	t, _ := Default.Lookup(m.Typename)
	switch t.Name {
	case "vineyard::Table", "vineyard::GlobalDataFrame":
	default:
		return m
	}
	parts, err := list(m, "partitions_", "batch_num_")
	if err != nil || len(parts) < 2 {
		return m
	}
	n := client.NewMeta(m.Typename)
	n.ID, n.Signature, n.InstanceID, n.Global, n.Transient, n.Time, n.Name, n.Labels = m.ID, m.Signature, m.InstanceID, m.Global, m.Transient, m.Time, m.Name, m.Labels
	var at, rows int64
	kept := 0
	for i, part := range parts {
		k := Summarize(part).Rows
		if k < 0 {
			return m
		}
		// One part stays in any case: it tells the columns.
		if k > 0 && at < last && at+k > first || i == len(parts)-1 && kept == 0 {
			n.Add("partitions_-"+itoa(kept), part)
			kept++
			rows += k
		}
		at += k
	}
	for _, key := range m.Keys() {
		switch key {
		case "partitions_-size", "batch_num_":
			n.Set(key, kept)
		case "num_rows_":
			n.Set(key, rows)
		default:
			n.Set(key, m.Raw(key))
		}
	}
	for key, member := range m.Members {
		if !strings.HasPrefix(key, "partitions_-") {
			n.Add(key, member)
		}
	}
	return n
}
