package json

import (
	"io"
	"slices"
	"strconv"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

// maxValue bounds the text of a value, in bytes.
const maxValue = 1 << 30

// ReadValue reads one JSON text as a value that can be stored: numbers, strings
// and bools as [typed.Scalar], of int64, uint64 if they need it, or float64; null
// as [typed.None]; arrays as [typed.Sequence] of the same. Objects are
// [typed.Dict], in the order of their keys, of plain values: nil, bool, int64,
// uint64, float64, string, []any and typed.Dict.
func ReadValue(r io.Reader) (any, error) {
	b, err := readAll(r, maxValue)
	if err != nil {
		return nil, err
	}
	s := &scanner{b: b}
	if s.space(); s.at == len(b) {
		return nil, status.Errorf(status.Invalid, "it is empty")
	}
	v, err := s.build(1, false)
	if err != nil {
		return nil, err
	}
	if s.space(); s.at < len(b) {
		return nil, s.expected("the end")
	}
	return v, nil
}

// build makes the next value. Those inside of an object are plain.
func (s *scanner) build(depth int, inside bool) (any, error) {
	switch s.next() {
	case '[':
		items := []any{}
		err := s.list(depth, func() error {
			v, err := s.build(depth+1, inside)
			items = append(items, v)
			return err
		})
		if inside || err != nil {
			return items, err
		}
		return &typed.Sequence{Items: items}, nil
	case '{':
		return s.dict(depth)
	}
	t, err := s.value(depth)
	if err != nil {
		return nil, err
	}
	v, err := s.scalar(t)
	switch {
	case inside || err != nil:
		return v, err
	case v == nil:
		return typed.None{}, nil
	}
	return typed.Scalar{Value: v}, nil
}

// few is up to how many items an object is searched for a key one by one.
const few = 8

// dict makes an object. Of a key that it has twice the last value counts, at the
// place of the first, as in Python.
func (s *scanner) dict(depth int) (any, error) {
	d := typed.Dict{}
	var places map[string]int
	err := s.object(depth, func() error {
		key, err := s.key()
		if err != nil {
			return err
		}
		name := string(s.content(key, nil))
		v, err := s.build(depth+1, true)
		if err != nil {
			return err
		}
		if len(d) == few {
			places = make(map[string]int, 2*few)
			for i, p := range d {
				places[p.Key.(string)] = i
			}
		}
		i, ok := places[name]
		if len(d) < few {
			i = slices.IndexFunc(d, func(p typed.Pair) bool { return p.Key == name })
			ok = i >= 0
		}
		if ok {
			d[i].Value = v
			return nil
		}
		if places != nil {
			places[name] = len(d)
		}
		d = append(d, typed.Pair{Key: name, Value: v})
		return nil
	})
	return d, err
}

// scalar makes a value of a token that is no list and no object.
func (s *scanner) scalar(t token) (any, error) {
	raw := s.b[t.start:t.end]
	switch {
	case t.kinds == isNull:
		return nil, nil
	case t.kinds == isBool:
		return raw[0] == 't', nil
	case t.kinds == isText:
		return string(s.content(t, nil)), nil
	case t.kinds == isBig:
		return strconv.ParseUint(string(raw), 10, 64)
	case t.kinds&isInt != 0:
		v, _ := integer(raw, t.kinds)
		return v, nil
	}
	v, ok := float(raw, 64)
	if !ok {
		return nil, s.fail(t.start, "%.64s is out of the range of numbers", raw)
	}
	return v, nil
}
