package json

import (
	"encoding/base64"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/decimal256"
	"github.com/apache/arrow-go/v18/arrow/float16"

	"github.com/v6d-go/v6d/internal/status"
)

// supported reports whether there is a sink for a type.
func supported(t arrow.DataType) bool {
	switch x := t.(type) {
	case *arrow.LargeListType:
		return supported(x.Elem())
	case *arrow.ListType:
		return supported(x.Elem())
	}
	switch t.ID() {
	case arrow.NULL, arrow.BOOL, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64,
		arrow.FLOAT16, arrow.FLOAT32, arrow.FLOAT64, arrow.STRING, arrow.LARGE_STRING, arrow.BINARY, arrow.LARGE_BINARY, arrow.FIXED_SIZE_BINARY,
		arrow.DATE32, arrow.DATE64, arrow.TIME32, arrow.TIME64, arrow.TIMESTAMP, arrow.DURATION, arrow.DECIMAL128, arrow.DECIMAL256:
		return true
	}
	return false
}

// sink decodes values into an array.
type sink struct {
	b       array.Builder
	json    bool  // values are kept as JSON text, strings as well
	elem    *sink // of lists
	scratch []byte
}

// newSink returns the sink of a builder. The guess is nil if the type was given.
func newSink(b array.Builder, g *guess) *sink {
	k := &sink{b: b, json: g != nil && g.text()}
	if l, ok := b.(array.ListLikeBuilder); ok {
		if g != nil {
			g = g.elem
		}
		k.elem = newSink(l.ValueBuilder(), g)
	}
	return k
}

// next skips the next value and decodes it.
func (k *sink) next(s *scanner, depth int) error {
	if k.elem == nil || s.next() != '[' {
		t, err := s.value(depth)
		if err != nil {
			return err
		}
		return k.add(s, t)
	}
	k.b.(array.ListLikeBuilder).Append(true)
	return s.list(depth, func() error { return k.elem.next(s, depth+1) })
}

// add decodes a value that is no list, or that is no list in this sink.
func (k *sink) add(s *scanner, t token) error {
	raw := s.b[t.start:t.end]
	if t.kinds == isNull {
		k.b.AppendNull()
		return nil
	}
	ok := false
	switch b := k.b.(type) {
	case *array.Int64Builder:
		var v int64
		if v, ok = integer(raw, t.kinds); ok {
			b.Append(v)
		}
	case *array.Float64Builder:
		var v float64
		if v, ok = float(raw, 64); ok {
			b.Append(v)
		}
	case *array.LargeStringBuilder:
		ok = true
		b.BinaryBuilder.Append(k.text(s, t))
	case *array.BooleanBuilder:
		if ok = t.kinds == isBool; ok {
			b.Append(raw[0] == 't')
		}
	default:
		ok = k.other(s, t, raw)
	}
	if !ok {
		more := ""
		if len(raw) > 64 {
			raw, more = raw[:64], "..."
		}
		return status.Errorf(status.Invalid, "%s%s is no %s", raw, more, k.b.Type())
	}
	return nil
}

// other decodes what only Options.Types asks for.
func (k *sink) other(s *scanner, t token, raw []byte) bool {
	switch b := k.b.(type) {
	case *array.Int8Builder:
		return number(b.Append, raw, t)
	case *array.Int16Builder:
		return number(b.Append, raw, t)
	case *array.Int32Builder:
		return number(b.Append, raw, t)
	case *array.Uint8Builder:
		return number(b.Append, raw, t)
	case *array.Uint16Builder:
		return number(b.Append, raw, t)
	case *array.Uint32Builder:
		return number(b.Append, raw, t)
	case *array.DurationBuilder:
		return number(b.Append, raw, t)
	case *array.Uint64Builder:
		v, err := strconv.ParseUint(string(raw), 10, 64)
		if t.kinds != isBig {
			var i int64
			i, ok := integer(raw, t.kinds)
			if v = uint64(i); !ok || i < 0 {
				return false
			}
		} else if err != nil {
			return false
		}
		b.Append(v)
		return true
	case *array.Float16Builder:
		v, ok := float(raw, 64)
		if ok = ok && math.Abs(v) < 65520; ok { // what is less is rounded to 65504, the largest
			b.Append(float16.FromBits(half(v)))
		}
		return ok
	case *array.Float32Builder:
		v, ok := float(raw, 32)
		if ok {
			b.Append(float32(v))
		}
		return ok
	case *array.StringBuilder:
		b.BinaryBuilder.Append(k.text(s, t))
		return true
	case *array.BinaryBuilder:
		v, ok := k.bytes(s, t)
		if ok {
			b.Append(v)
		}
		return ok
	case *array.FixedSizeBinaryBuilder:
		v, ok := k.bytes(s, t)
		if ok = ok && len(v) == b.Type().(*arrow.FixedSizeBinaryType).ByteWidth; ok {
			b.Append(v)
		}
		return ok
	case *array.Decimal128Builder:
		dt := b.Type().(*arrow.Decimal128Type)
		n, ok := decimal(string(k.text(s, t)), dt.Scale)
		if !ok || n.BitLen() > 127 || !decimal128.FromBigInt(n).FitsInPrecision(dt.Precision) {
			return false
		}
		b.Append(decimal128.FromBigInt(n))
		return true
	case *array.Decimal256Builder:
		dt := b.Type().(*arrow.Decimal256Type)
		n, ok := decimal(string(k.text(s, t)), dt.Scale)
		if !ok || n.BitLen() > 255 || !decimal256.FromBigInt(n).FitsInPrecision(dt.Precision) {
			return false
		}
		b.Append(decimal256.FromBigInt(n))
		return true
	}
	return k.time(s, t, raw)
}

// time decodes dates and times: text, or counts of their unit.
func (k *sink) time(s *scanner, t token, raw []byte) bool {
	text := ""
	if t.kinds == isText {
		text = string(k.text(s, t))
	}
	switch b := k.b.(type) {
	case *array.Date32Builder:
		if day, err := time.Parse(time.DateOnly, text); err == nil {
			b.Append(arrow.Date32FromTime(day))
			return true
		}
		return number(b.Append, raw, t)
	case *array.Date64Builder:
		if day, err := time.Parse(time.DateOnly, text); err == nil {
			b.Append(arrow.Date64FromTime(day))
			return true
		}
		return number(b.Append, raw, t)
	case *array.Time32Builder:
		if v, err := arrow.Time32FromString(text, b.Type().(*arrow.Time32Type).Unit); text != "" && err == nil {
			b.Append(v)
			return true
		}
		return number(b.Append, raw, t)
	case *array.Time64Builder:
		if v, err := arrow.Time64FromString(text, b.Type().(*arrow.Time64Type).Unit); text != "" && err == nil {
			b.Append(v)
			return true
		}
		return number(b.Append, raw, t)
	case *array.TimestampBuilder:
		// Without a zone it is UTC, as what WriteTable writes.
		if v, _, err := arrow.TimestampFromStringInLocation(text, b.Type().(*arrow.TimestampType).Unit, time.UTC); err == nil {
			b.Append(v)
			return true
		}
		return number(b.Append, raw, t)
	}
	return false
}

// text returns the characters of a string, or a value as compact JSON.
func (k *sink) text(s *scanner, t token) []byte {
	if t.kinds == isText && !k.json {
		b := s.content(t, k.scratch[:0])
		if t.escaped {
			k.scratch = b
		}
		return b
	}
	b := s.b[t.start:t.end]
	if t.kinds&(isList|isObject) == 0 {
		return b
	}
	out, quoted := k.scratch[:0], false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\':
			out = append(out, c)
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && c <= ' ':
			continue
		}
		out = append(out, b[i])
	}
	k.scratch = out
	return out
}

// bytes decodes base64.
func (k *sink) bytes(s *scanner, t token) ([]byte, bool) {
	if t.kinds != isText {
		return nil, false
	}
	b, err := base64.StdEncoding.AppendDecode(nil, k.text(s, t))
	return b, err == nil
}

// number appends an integer if it fits.
func number[T ~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32](add func(T), raw []byte, t token) bool {
	v, ok := integer(raw, t.kinds)
	if !ok || int64(T(v)) != v {
		return false
	}
	add(T(v))
	return true
}

// integer decodes a number that fits int64, also if it is written with a fraction
// of 0, as pandas does in columns with nulls.
func integer(raw []byte, k kinds) (int64, bool) {
	if k == isFloat {
		f, err := strconv.ParseFloat(view(raw), 64)
		return int64(f), err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53
	}
	if k&isInt == 0 {
		return 0, false
	}
	digits := raw
	if k&isMinus != 0 {
		digits = raw[1:]
	}
	v := uint64(0)
	for _, c := range digits {
		v = 10*v + uint64(c-'0')
	}
	if k&isMinus != 0 {
		v = -v
	}
	return int64(v), true
}

// float decodes a number.
func float(raw []byte, bits int) (float64, bool) {
	f, err := strconv.ParseFloat(view(raw), bits)
	return f, err == nil
}

// half returns the float of 16 bits that is nearest. Arrow's own function cuts off.
func half(v float64) uint16 {
	sign := uint16(0)
	if math.Signbit(v) {
		sign, v = 1<<15, -v
	}
	if v < 0x1p-14 {
		return sign | uint16(math.RoundToEven(v*0x1p24))
	}
	exponent := math.Ilogb(v)
	fraction := math.RoundToEven(math.Ldexp(v, 10-exponent)) // 1024 to 2048, which carries
	return sign | (uint16(exponent+15)<<10 + uint16(fraction) - 1024)
}

// maxDigits bounds the digits and the exponent of a decimal; 76 digits are the
// most that Arrow knows.
const maxDigits = 1000

// decimal decodes a number, which may have been in quotes, exactly, in units of 10 to the power of -scale; ok is
// false if some digits are smaller than that.
func decimal(text string, scale int32) (n *big.Int, ok bool) {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	power := 0
	if exponent != "" {
		var err error
		if power, err = strconv.Atoi(exponent); err != nil {
			return nil, false
		}
	}
	if len(mantissa) > maxDigits || power > maxDigits || power < -maxDigits {
		return nil, false
	}
	if n, ok = new(big.Int).SetString(whole+fraction, 10); !ok {
		return nil, false
	}
	power += int(scale) - len(fraction)
	ten := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(power, -power))), nil)
	if power >= 0 {
		return n.Mul(n, ten), true
	}
	rest := new(big.Int)
	n.QuoRem(n, ten, rest)
	return n, rest.Sign() == 0
}
