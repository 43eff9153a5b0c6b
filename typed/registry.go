package typed

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

// A Resolver makes a value of an object. Members are resolved with
// [Reader.Resolve], blobs are [Reader.Blob]: nothing is fetched any more.
type Resolver func(r *Reader, m *client.Meta) (any, error)

// A Builder makes the metadata of an object of a value: blobs are made with the
// writer, members are added as metadata that is not filed yet.
type Builder func(ctx context.Context, w *Writer, value any) (*client.Meta, error)

// Type is what a registry knows of a typename.
type Type struct {
	Name    string // the typename, without what is in angle brackets unless that matters
	Go      string // the Go type of its values
	Note    string // what is special about it
	Resolve Resolver
	Writes  bool // Put makes objects of this type
}

// Registry finds the resolver of a typename and the builder of a Go type. What
// it does not know it asks the registry that it was made from. A registry is
// filled before it is used; using it is safe for concurrent use.
type Registry struct {
	parent   *Registry
	types    map[string]Type
	builders map[reflect.Type]Builder
}

// Default knows every type of Vineyard that has a value in Go. It must not be
// changed: make a Scope of it.
var Default = newDefault()

// Scope returns a registry that can be extended, and overrides r without
// changing it.
func (r *Registry) Scope() *Registry {
	return &Registry{parent: r, types: map[string]Type{}, builders: map[reflect.Type]Builder{}}
}

// Register adds a type. Its name matches typenames that are equal to it, or that
// go on with an angle bracket: "vineyard::Tensor" matches
// "vineyard::Tensor<int64>".
func (r *Registry) Register(t Type) { r.types[t.Name] = t }

// RegisterBuilder makes build the builder of the Go type of sample, which may be
// a nil pointer. If that is an interface, as in (*arrow.Array)(nil), it is for
// all values that implement it and have no builder of their own.
func (r *Registry) RegisterBuilder(sample any, build Builder) {
	t := reflect.TypeOf(sample)
	if t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Interface {
		t = t.Elem()
	}
	r.builders[t] = build
}

// Lookup returns what is known of a typename: of the registered names that match
// it the longest one.
func (r *Registry) Lookup(typename string) (t Type, ok bool) {
	for ; r != nil; r = r.parent {
		for name := typename; name != ""; {
			if t, ok = r.types[name]; ok {
				return t, true
			}
			i := strings.LastIndexByte(name, '<')
			name = name[:max(i, 0)]
		}
	}
	return t, false
}

// Types lists what is registered, by name.
func (r *Registry) Types() []Type {
	all := map[string]Type{}
	for ; r != nil; r = r.parent {
		for name, t := range r.types {
			if _, ok := all[name]; !ok {
				all[name] = t
			}
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Type) int { return cmp.Compare(a.Name, b.Name) })
}

func (r *Registry) builder(value any) (Builder, error) {
	t := reflect.TypeOf(value)
	if t == nil {
		t = reflect.TypeFor[None]()
	}
	for reg := r; reg != nil; reg = reg.parent {
		if b := reg.builders[t]; b != nil {
			return b, nil
		}
	}
	for reg := r; reg != nil; reg = reg.parent {
		for of, b := range reg.builders {
			if of.Kind() == reflect.Interface && t.Implements(of) {
				return b, nil
			}
		}
	}
	return nil, status.Errorf(status.NotImplemented, "there is no builder for values of type %s", t).
		WithHint("register one in a Scope of typed.Default")
}

// None is the value None of Python.
type None struct{}
