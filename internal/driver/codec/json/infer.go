package json

import "github.com/apache/arrow-go/v18/arrow"

// guess is what values a column, or a list, has had.
type guess struct {
	kinds kinds
	elem  *guess // of lists
}

// learn skips a value and adds it to a guess.
func (s *scanner) learn(g *guess, depth int) error {
	if s.next() != '[' {
		t, err := s.value(depth)
		g.kinds |= t.kinds
		return err
	}
	g.kinds |= isList
	if g.elem == nil {
		g.elem = &guess{}
	}
	return s.list(depth, func() error { return s.learn(g.elem, depth+1) })
}

// arrow returns the type that holds all the values.
func (g *guess) arrow() arrow.DataType {
	k := g.kinds &^ isNull
	switch {
	case k == 0:
		return arrow.Null
	case k == isBool:
		return arrow.FixedWidthTypes.Boolean
	case k&^(isInt|isMinus) == 0:
		return arrow.PrimitiveTypes.Int64
	case k&^(isInt|isBig) == 0:
		return arrow.PrimitiveTypes.Uint64
	case k&^(isInt|isMinus|isBig|isFloat) == 0:
		return arrow.PrimitiveTypes.Float64
	case k == isList:
		return arrow.LargeListOf(g.elem.arrow())
	}
	return arrow.BinaryTypes.LargeString
}

// text reports whether the values are kept as JSON text.
func (g *guess) text() bool {
	return g.kinds&^isNull != isText && g.arrow().ID() == arrow.LARGE_STRING
}
