package csv

import (
	"bufio"
	"encoding/base64"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/v6d-go/v6d/typed"
)

// WriteOptions say how text is written.
type WriteOptions struct {
	Delimiter byte // 0 for a comma
	NoHeader  bool
}

// Write writes a table: a header, and a line a row. Null is an empty field, an
// empty string is ""; times are ISO 8601, bytes are base64, lists JSON.
func Write(w io.Writer, t *typed.Table, o WriteOptions) error {
	out := writer{bufio.NewWriterSize(w, 256<<10), o.Delimiter}
	if out.comma == 0 {
		out.comma = ','
	}
	var line []byte
	if !o.NoHeader {
		for i, name := range t.Names() {
			line = out.sep(line, i)
			line = out.text(line, name)
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	for _, b := range t.Batches {
		columns := make([]func(line []byte, row int) []byte, b.NumCols())
		for i := range columns {
			columns[i] = out.cells(b.Column(i))
		}
		for row := range int(b.NumRows()) {
			line = line[:0]
			for i, cell := range columns {
				line = out.sep(line, i)
				if b.Column(i).IsValid(row) {
					line = cell(line, row)
				}
			}
			if len(line) == 0 {
				line = append(line, `""`...) // a blank line would be no row
			}
			if _, err := out.Write(append(line, '\n')); err != nil {
				return err
			}
		}
	}
	return out.Flush()
}

type writer struct {
	*bufio.Writer
	comma byte
}

func (w *writer) sep(line []byte, i int) []byte {
	if i > 0 {
		line = append(line, w.comma)
	}
	return line
}

// text quotes what would not be read back as it is.
func (w *writer) text(line []byte, s string) []byte {
	if s != "" && strings.IndexByte(s, w.comma) < 0 && !strings.ContainsAny(s, "\"\n\r") && s[0] != ' ' && s[len(s)-1] != ' ' {
		return append(line, s...)
	}
	line = append(line, '"')
	for {
		i := strings.IndexByte(s, '"')
		if i < 0 {
			break
		}
		line = append(append(line, s[:i+1]...), '"')
		s = s[i+1:]
	}
	return append(append(line, s...), '"')
}

// AppendCell appends a value that is not null as it is written in a field, but
// for the quotes.
func AppendCell(b []byte, a arrow.Array, row int) []byte {
	switch x := a.(type) {
	case *array.LargeString:
		return append(b, x.Value(row)...)
	case *array.String:
		return append(b, x.Value(row)...)
	}
	w := writer{comma: 0}
	return w.cells(a)(b, row)
}

// cells returns how the values of an array are written.
func (w *writer) cells(a arrow.Array) func(line []byte, row int) []byte {
	switch x := a.(type) {
	case *array.Int64:
		v := x.Int64Values()
		return func(line []byte, i int) []byte { return strconv.AppendInt(line, v[i], 10) }
	case *array.Float64:
		v := x.Float64Values()
		return func(line []byte, i int) []byte { return appendFloat(line, v[i], 64) }
	case *array.Float32:
		v := x.Float32Values()
		return func(line []byte, i int) []byte { return appendFloat(line, float64(v[i]), 32) }
	case *array.Float16:
		return func(line []byte, i int) []byte { return appendFloat(line, typed.Half(x.Value(i).Uint16()), 32) }
	case *array.Boolean:
		return func(line []byte, i int) []byte { return strconv.AppendBool(line, x.Value(i)) }
	case *array.LargeString:
		return func(line []byte, i int) []byte { return w.text(line, x.Value(i)) }
	case *array.String:
		return func(line []byte, i int) []byte { return w.text(line, x.Value(i)) }
	case *array.LargeBinary:
		return func(line []byte, i int) []byte { return base64.StdEncoding.AppendEncode(line, x.Value(i)) }
	case *array.Binary:
		return func(line []byte, i int) []byte { return base64.StdEncoding.AppendEncode(line, x.Value(i)) }
	case *array.Date32:
		return func(line []byte, i int) []byte { return x.Value(i).ToTime().AppendFormat(line, time.DateOnly) }
	case *array.Date64:
		return func(line []byte, i int) []byte { return x.Value(i).ToTime().AppendFormat(line, time.DateOnly) }
	case *array.Timestamp:
		t := x.DataType().(*arrow.TimestampType)
		form := "2006-01-02T15:04:05.999999999"
		if t.TimeZone != "" {
			form += "Z07:00"
		}
		return func(line []byte, i int) []byte { return x.Value(i).ToTime(t.Unit).AppendFormat(line, form) }
	case *array.Decimal128:
		scale := x.DataType().(*arrow.Decimal128Type).Scale
		return func(line []byte, i int) []byte { return append(line, x.Value(i).ToString(scale)...) }
	case *array.Decimal256:
		scale := x.DataType().(*arrow.Decimal256Type).Scale
		return func(line []byte, i int) []byte { return append(line, x.Value(i).ToString(scale)...) }
	case *array.Null:
		return func(line []byte, _ int) []byte { return line }
	case *array.Duration:
		return func(line []byte, i int) []byte { return strconv.AppendInt(line, int64(x.Value(i)), 10) }
	}
	return func(line []byte, i int) []byte { return w.text(line, a.ValueStr(i)) }
}

// appendFloat writes a number so that it is read back as a float: 19.0, not 19.
func appendFloat(line []byte, v float64, bits int) []byte {
	if abs := math.Abs(v); abs >= 1e-4 && abs < 1e16 || v == 0 {
		if v == math.Trunc(v) {
			return strconv.AppendFloat(line, v, 'f', 1, bits)
		}
		return strconv.AppendFloat(line, v, 'f', -1, bits)
	}
	return strconv.AppendFloat(line, v, 'g', -1, bits)
}
