package json

import (
	"encoding/base64"
	stdjson "encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/v6d-go/v6d/typed"
)

// AppendValue appends element i of an array as JSON. Times that RFC 3339 has no
// text for, of a year before 0 or after 9999, are counts of their unit.
func AppendValue(b []byte, a arrow.Array, i int) []byte {
	if a.IsNull(i) {
		return append(b, "null"...)
	}
	switch x := a.(type) {
	case *array.Int64:
		return strconv.AppendInt(b, x.Value(i), 10)
	case *array.Float64:
		return appendFloat(b, x.Value(i), 64)
	case *array.LargeString:
		return appendText(b, x.Value(i))
	case *array.String:
		return appendText(b, x.Value(i))
	case *array.StringView:
		return appendText(b, x.Value(i))
	case *array.Boolean:
		return strconv.AppendBool(b, x.Value(i))
	case *array.Int8:
		return strconv.AppendInt(b, int64(x.Value(i)), 10)
	case *array.Int16:
		return strconv.AppendInt(b, int64(x.Value(i)), 10)
	case *array.Int32:
		return strconv.AppendInt(b, int64(x.Value(i)), 10)
	case *array.Uint8:
		return strconv.AppendUint(b, uint64(x.Value(i)), 10)
	case *array.Uint16:
		return strconv.AppendUint(b, uint64(x.Value(i)), 10)
	case *array.Uint32:
		return strconv.AppendUint(b, uint64(x.Value(i)), 10)
	case *array.Uint64:
		return strconv.AppendUint(b, x.Value(i), 10)
	case *array.Float16:
		return appendFloat(b, typed.Half(x.Value(i).Uint16()), 32)
	case *array.Float32:
		return appendFloat(b, float64(x.Value(i)), 32)
	case *array.LargeBinary:
		return appendBytes(b, x.Value(i))
	case *array.Binary:
		return appendBytes(b, x.Value(i))
	case *array.BinaryView:
		return appendBytes(b, x.Value(i))
	case *array.FixedSizeBinary:
		return appendBytes(b, x.Value(i))
	case *array.Struct:
		return appendStruct(b, x, i)
	case array.ListLike:
		from, to := x.ValueOffsets(i)
		b = append(b, '[')
		for k := from; k < to; k++ {
			if k > from {
				b = append(b, ',')
			}
			b = AppendValue(b, x.ListValues(), int(k))
		}
		return append(b, ']')
	case *array.Dictionary:
		return AppendValue(b, x.Dictionary(), x.GetValueIndex(i))
	case array.ExtensionArray:
		return AppendValue(b, x.Storage(), i)
	}
	return appendTime(b, a, i)
}

// appendTime appends a time, and whatever is left.
func appendTime(b []byte, a arrow.Array, i int) []byte {
	switch x := a.(type) {
	case *array.Null:
		return append(b, "null"...)
	case *array.Timestamp:
		t := x.DataType().(*arrow.TimestampType)
		zone := ""
		if t.TimeZone != "" {
			zone = "Z"
		}
		return appendStamp(b, int64(x.Value(i)), int64(time.Second/t.Unit.Multiplier()), 1, zone)
	case *array.Date32:
		return appendDate(b, int64(x.Value(i)), int64(x.Value(i)))
	case *array.Date64:
		return appendDate(b, floorDiv(int64(x.Value(i)), 86400e3), int64(x.Value(i)))
	case *array.Time32:
		return appendClock(b, int64(x.Value(i)), x.DataType().(*arrow.Time32Type).Unit)
	case *array.Time64:
		return appendClock(b, int64(x.Value(i)), x.DataType().(*arrow.Time64Type).Unit)
	case *array.Duration:
		return strconv.AppendInt(b, int64(x.Value(i)), 10)
	case *array.Decimal32:
		return appendDecimal(b, big.NewInt(int64(x.Value(i))), a)
	case *array.Decimal64:
		return appendDecimal(b, big.NewInt(int64(x.Value(i))), a)
	case *array.Decimal128:
		return appendDecimal(b, x.Value(i).BigInt(), a)
	case *array.Decimal256:
		return appendDecimal(b, x.Value(i).BigInt(), a)
	}
	text, err := stdjson.Marshal(a.GetOneForMarshal(i))
	if err != nil { // it holds NaN
		return append(b, "null"...)
	}
	return append(b, text...)
}

func appendStruct(b []byte, a *array.Struct, i int) []byte {
	fields := a.DataType().(*arrow.StructType).Fields()
	b = append(b, '{')
	for k, f := range fields {
		if k > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, f.Name), ':')
		b = AppendValue(b, a.Field(k), i)
	}
	return append(b, '}')
}

// appendFloat appends the shortest digits that are read as the same number, with
// a fraction or an exponent.
func appendFloat(b []byte, v float64, bits int) []byte {
	abs := math.Abs(v)
	if !(abs <= math.MaxFloat64) {
		return append(b, "null"...)
	}
	if abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		return strconv.AppendFloat(b, v, 'e', -1, bits)
	}
	b = strconv.AppendFloat(b, v, 'f', -1, bits)
	if v == math.Trunc(v) {
		b = append(b, ".0"...)
	}
	return b
}

// appendDecimal appends all digits of a decimal, as a string.
func appendDecimal(b []byte, n *big.Int, a arrow.Array) []byte {
	scale := int(a.DataType().(arrow.DecimalType).GetScale())
	digits := new(big.Int).Abs(n).String()
	b = append(b, '"')
	if n.Sign() < 0 {
		b = append(b, '-')
	}
	if scale <= 0 {
		if n.Sign() != 0 {
			digits += strings.Repeat("0", -scale)
		}
		return append(append(b, digits...), '"')
	}
	if missing := scale + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	point := len(digits) - scale
	b = append(append(b, digits[:point]...), '.')
	return append(append(b, digits[point:]...), '"')
}

func appendBytes(b, v []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(append(b, '"'), v), '"')
}

// appendText appends a string in quotes. What is not UTF-8 becomes U+FFFD.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		if plain[s[i]] {
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r >= utf8.RuneSelf && (r != utf8.RuneError || n > 1) {
			i += n
			continue
		}
		b = append(b, s[from:i]...)
		switch r {
		case '"', '\\':
			b = append(b, '\\', byte(r))
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		case utf8.RuneError:
			b = append(b, "�"...)
		default:
			const digits = "0123456789abcdef"
			b = append(b, `\u00`...)
			b = append(b, digits[r>>4], digits[r&15])
		}
		i += n
		from = i
	}
	return append(append(b, s[from:]...), '"')
}

// The seconds of the years that have four digits, since 1970.
const (
	firstSecond = -62167219200
	lastSecond  = 253402300799
)

// appendStamp appends the time at v counts since 1970, of which there are per in a
// second, or which last unit seconds.
func appendStamp(b []byte, v, per, unit int64, zone string) []byte {
	seconds := floorDiv(v, per)
	rest := (v - seconds*per) * (int64(time.Second) / per)
	if seconds < firstSecond/unit || seconds > lastSecond/unit {
		return strconv.AppendInt(b, v, 10)
	}
	b = append(b, '"')
	b = time.Unix(seconds*unit, rest).UTC().AppendFormat(b, "2006-01-02T15:04:05.999999999")
	return append(append(b, zone...), '"')
}

// appendDate appends a day since 1970, count if it has no text.
func appendDate(b []byte, day, count int64) []byte {
	if day < firstSecond/86400 || day > lastSecond/86400 {
		return strconv.AppendInt(b, count, 10)
	}
	return append(time.Unix(day*86400, 0).UTC().AppendFormat(append(b, '"'), time.DateOnly), '"')
}

// appendClock appends a time of day.
func appendClock(b []byte, v int64, unit arrow.TimeUnit) []byte {
	per := int64(time.Second / unit.Multiplier())
	if v < 0 || v >= 86400*per {
		return strconv.AppendInt(b, v, 10)
	}
	b = append(b, '"')
	b = time.Unix(v/per, v%per*(int64(time.Second)/per)).UTC().AppendFormat(b, "15:04:05.999999999")
	return append(b, '"')
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
