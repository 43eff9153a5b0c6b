package client

import (
	"fmt"
	"testing"
)

func TestPlaces(t *testing.T) {
	part := func(id ID, instance InstanceID, blob ID, nbytes int) *Meta {
		m := NewMeta("t::Part").Set("nbytes", nbytes)
		m.ID, m.InstanceID = id, instance
		b := BlobMember(blob)
		b.InstanceID = instance
		empty := BlobMember(EmptyBlob)
		empty.InstanceID = instance
		return m.Add("buffer_", b).Add("again_", b).Add("null_bitmap_", empty)
	}
	const blob = EmptyBlob + 5
	m := NewMeta("t::Global").Set("nbytes", 0)
	m.ID, m.InstanceID, m.Global = 1, spread, true
	shared := part(4, 1, blob+1, 30)
	m.Add("a", part(2, 0, blob, 10)).Add("b", part(3, 1, blob, 20)).Add("c", shared).Add("d", shared)
	if got := fmt.Sprint(m.Places()); got != "[{i1 2 2 50} {i0 1 1 10}]" {
		t.Errorf("the places are %s", got)
	}
	if got := part(2, 3, blob, 10).Places(); fmt.Sprint(got) != "[{i3 1 1 10}]" {
		t.Errorf("of one object they are %v", got)
	}
}
