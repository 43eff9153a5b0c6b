package csv

import (
	"bytes"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
)

// guess is what the sample says of a column: which kinds hold all of it.
type guess struct {
	seen bool // a value that is not null
	size int  // of all fields, in bytes

	notInt, notUint, notFloat, notBool, notDate, notTime, notStamp bool

	parts          bool // a number that is not written as a whole one
	digits         int  // of the fraction of a second
	zoned, unzoned bool
}

// look takes a field into account.
func (g *guess) look(f []byte, quoted bool, nulls map[string]bool) {
	if len(f) == 0 && !quoted || nullWord(f) || nulls[text(f)] {
		return
	}
	g.seen = true
	g.size += len(f)
	if !g.notInt {
		_, ok := parseInt(f)
		g.notInt = !ok
	}
	if !g.notFloat {
		_, ok := parseFloat(f)
		g.notFloat = !ok
		if _, err := strconv.ParseUint(text(f), 10, 64); err != nil {
			g.notUint = true
			g.parts = g.parts || bytes.ContainsAny(f, ".eEiInN")
		}
	}
	if !g.notBool {
		_, ok := parseBool(f)
		g.notBool = !ok
	}
	if !g.notTime {
		_, ok := parseClock(f)
		g.notTime = !ok
	}
	_, date := parseDate(f)
	if !g.notDate {
		g.notDate = !date
	}
	if !g.notStamp {
		s, ok := parseTimestamp(f)
		g.notStamp = !ok && !date
		g.digits = max(g.digits, s.digits)
		g.zoned = g.zoned || s.zoned
		g.unzoned = g.unzoned || !s.zoned
	}
}

// kind returns the narrowest kind, and its type.
func (g *guess) kind() (kind, arrow.DataType) {
	switch {
	case !g.seen:
		return kindNull, arrow.Null
	case !g.notInt:
		return kindInt, arrow.PrimitiveTypes.Int64
	case !g.notFloat && !g.notUint:
		return kindOther, arrow.PrimitiveTypes.Uint64
	case !g.notFloat && !g.parts:
		return kindText, arrow.BinaryTypes.LargeString // digits that no number holds: ids
	case !g.notFloat:
		return kindFloat, arrow.PrimitiveTypes.Float64
	case !g.notBool:
		return kindBool, arrow.FixedWidthTypes.Boolean
	case !g.notDate:
		return kindDate, arrow.FixedWidthTypes.Date32
	case !g.notTime:
		return kindTime, arrow.FixedWidthTypes.Time32s
	case !g.notStamp && !(g.zoned && g.unzoned):
		t := &arrow.TimestampType{Unit: arrow.Second}
		if g.digits > 0 { // the coarsest, whose range is the widest
			t.Unit = arrow.TimeUnit((g.digits + 2) / 3)
		}
		if g.zoned {
			t.TimeZone = "UTC"
		}
		return kindStamp, t
	}
	return kindText, arrow.BinaryTypes.LargeString
}

// kindOf returns how a type that was asked for is decoded.
func kindOf(t arrow.DataType) kind {
	switch t.ID() {
	case arrow.NULL:
		return kindNull
	case arrow.INT64:
		return kindInt
	case arrow.FLOAT64:
		return kindFloat
	case arrow.BOOL:
		return kindBool
	case arrow.DATE32:
		return kindDate
	case arrow.TIME32:
		if t.(*arrow.Time32Type).Unit == arrow.Second {
			return kindTime
		}
	case arrow.TIMESTAMP:
		return kindStamp
	case arrow.LARGE_STRING:
		return kindText
	}
	return kindOther
}
