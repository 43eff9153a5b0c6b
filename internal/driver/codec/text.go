package codec

import (
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/v6d-go/v6d/internal/driver/codec/csv"
)

// Cell returns a value of a column as people read it, on one line: null is
// "null", what would break the line is escaped.
func Cell(a arrow.Array, row int) string {
	if a.IsNull(row) || a.DataType().ID() == arrow.NULL {
		return "null"
	}
	text := string(csv.AppendCell(nil, a, row))
	if strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0 {
		return text
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return '⏎'
		case r == '\t':
			return '→'
		case r < ' ' || r == 0x7f:
			return '�'
		}
		return r
	}, text)
}
