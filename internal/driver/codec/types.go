package codec

import (
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/v6d-go/v6d/typed"
)

// ParseType reads the name of a column's type: those of NumPy and Arrow.
func ParseType(name string) (arrow.DataType, bool) {
	switch name {
	case "string", "str", "text", "utf8", "large_utf8", "large_string":
		return arrow.BinaryTypes.LargeString, true
	case "binary", "bytes":
		return arrow.BinaryTypes.LargeBinary, true
	case "bool", "boolean":
		return arrow.FixedWidthTypes.Boolean, true
	case "int", "integer":
		return arrow.PrimitiveTypes.Int64, true
	case "float", "number":
		return arrow.PrimitiveTypes.Float64, true
	case "date", "date32":
		return arrow.FixedWidthTypes.Date32, true
	case "time":
		return arrow.FixedWidthTypes.Time32s, true
	case "timestamp", "datetime":
		return &arrow.TimestampType{Unit: arrow.Nanosecond}, true
	}
	return typed.ParseArrowType(name)
}
