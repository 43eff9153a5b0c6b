package typed

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

func itoa(i int) string { return strconv.Itoa(i) }

// Scalar is one value: an int64, uint64, float64, bool or string.
type Scalar struct{ Value any }

// resolveScalar reads a scalar of any maker. The value decides, but for floats that
// JSON has shortened to a whole number.
func resolveScalar(_ *Reader, m *client.Meta) (any, error) {
	raw := m.Raw("value_")
	var v any
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, damaged(m, "value_ is %q", raw)
	}
	kind, _ := m.Text("type_")
	switch x := v.(type) {
	case string, nil:
		return Scalar{v}, nil
	case bool:
		return Scalar{x}, nil
	case json.Number:
		if strings.Contains(m.Typename, "double") || strings.Contains(m.Typename, "float") || kind == "float" {
			f, err := x.Float64()
			if err != nil {
				return nil, damaged(m, "value_ is %q", raw)
			}
			return Scalar{f}, nil
		}
		if i, err := x.Int64(); err == nil {
			return Scalar{i}, nil
		}
		if u, err := strconv.ParseUint(x.String(), 10, 64); err == nil {
			return Scalar{u}, nil
		}
		if f, err := x.Float64(); err == nil {
			return Scalar{f}, nil
		}
	}
	return nil, damaged(m, "value_ is %q", raw)
}

func buildScalar(ctx context.Context, w *Writer, value any) (*client.Meta, error) {
	if s, ok := value.(Scalar); ok {
		value = s.Value
	}
	name, kind := "", ""
	switch x := value.(type) {
	case int:
		name, kind, value = "int", "int", int64(x)
	case int64:
		name, kind = "int", "int"
	case uint64:
		name, kind = "int", "int"
		if x > math.MaxInt64 {
			return buildPickle(ctx, w, x) // Python reads None from a Scalar<uint64>
		}
	case bool:
		name, kind = "int", "bool"
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, status.Errorf(status.Invalid, "%v cannot be a scalar: metadata is JSON, which has no such number", x).
				WithHint("store it as a tensor of one element")
		}
		name, kind = "double", "float"
	case string:
		name, kind = "std::string", "str"
	default:
		return nil, status.Errorf(status.Invalid, "a scalar of %T", value)
	}
	return client.NewMeta("vineyard::Scalar<"+name+">").
		Set("value_", value).Set("type_", kind).Set("nbytes", 0), nil
}

// Sequence is a list of values of any type. Python reads it as a tuple.
type Sequence struct {
	Items []any
	Names []string // of the items, if they have some; a field of ours that others ignore
}

// namesField holds the names of a sequence's items.
const namesField = "names_"

func resolveSequence(r *Reader, m *client.Meta) (any, error) {
	members, err := list(m, "__elements_", "size_")
	if err != nil {
		return nil, err
	}
	s := &Sequence{Items: make([]any, len(members))}
	for i, member := range members {
		if s.Items[i], err = r.Resolve(member); err != nil {
			return nil, err
		}
	}
	if m.Raw(namesField) != nil {
		if err := m.JSON(namesField, &s.Names); err != nil || len(s.Names) != len(s.Items) {
			return nil, damaged(m, "it has %d names for %d items", len(s.Names), len(s.Items))
		}
	}
	return s, nil
}

func buildSequence(ctx context.Context, w *Writer, value any) (*client.Meta, error) {
	s, ok := value.(*Sequence)
	if !ok {
		s = &Sequence{Items: value.([]any)}
	}
	m := client.NewMeta("vineyard::Sequence").
		Set("size_", len(s.Items)).Set("__elements_-size", len(s.Items)).Set("nbytes", 0)
	if s.Names != nil {
		m.Set(namesField, s.Names)
	}
	for i, item := range s.Items {
		member, err := w.Build(ctx, item)
		if err != nil {
			return nil, err
		}
		m.Add("__elements_-"+itoa(i), member)
	}
	return m, nil
}
