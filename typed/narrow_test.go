//go:build linux

package typed

import (
	"testing"

	"github.com/v6d-go/v6d/client"
)

// TestNarrow: only the parts that hold the rows stay, and one in any case.
func TestNarrow(t *testing.T) {
	m := client.NewMeta("vineyard::GlobalDataFrame").Set("partitions_-size", 3)
	for i, rows := range []int{2, 0, 3} {
		part := client.NewMeta("vineyard::RecordBatch").Set("row_num_", rows)
		part.ID = client.ID(100 + i)
		m.Add("partitions_-"+itoa(i), part)
	}
	for _, c := range []struct {
		first, last int64
		want        []client.ID
	}{
		{0, 1, []client.ID{100}},
		{1, 3, []client.ID{100, 102}},
		{2, 5, []client.ID{102}},
		{4, 100, []client.ID{102}},
		{0, 0, []client.ID{102}},
		{9, 12, []client.ID{102}},
	} {
		n := Narrow(m, c.first, c.last)
		var got []client.ID
		for _, member := range n.Members {
			got = append(got, member.ID)
		}
		size, _ := n.Int("partitions_-size")
		if len(got) != len(c.want) || int(size) != len(got) {
			t.Errorf("rows %d to %d: parts %v (size %d), want %v", c.first, c.last, got, size, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("rows %d to %d: parts %v, want %v", c.first, c.last, got, c.want)
			}
		}
	}
	other := client.NewMeta("vineyard::Tensor<int64>")
	if Narrow(other, 0, 1) != other {
		t.Error("what has no parts has changed")
	}
}
