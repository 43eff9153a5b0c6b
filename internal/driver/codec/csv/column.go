package csv

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// kind is how the fields of a column are decoded.
type kind uint8

const (
	kindNull kind = iota
	kindInt
	kindFloat
	kindBool
	kindDate
	kindTime
	kindStamp
	kindText
	kindOther // by Arrow's own parser
)

// column decodes the fields of one column of one block.
type column struct {
	name  string
	t     arrow.DataType
	kind  kind
	size  float64 // bytes of a field, about
	skip  bool    // it is not wanted
	nulls map[string]bool

	mem     memory.Allocator
	n       int
	values  []byte // or the text
	used    int    // bytes of values
	offsets []byte // of text
	valid   []byte // nil while nothing is null
	nullN   int
	other   array.Builder
}

// width is the size of a value, in bytes.
func (c *column) width() int {
	switch c.kind {
	case kindInt, kindFloat, kindStamp:
		return 8
	case kindDate, kindTime:
		return 4
	}
	return 0
}

// reserve makes room for about so many rows.
func (c *column) reserve(rows int) {
	switch {
	case c.skip || c.kind == kindNull || c.kind == kindBool:
	case c.kind == kindOther:
		c.other = array.NewBuilder(c.mem, c.t)
	case c.kind == kindText:
		c.offsets = c.mem.Allocate((rows + 1) * 8)
		c.values = c.mem.Allocate(max(int(1.1*c.size*float64(rows)), 64))
	default:
		c.values = c.mem.Allocate(max(rows, 8) * c.width())
	}
}

// release gives back what was not made an array of.
func (c *column) release() {
	for _, b := range [][]byte{c.values, c.offsets, c.valid} {
		if b != nil {
			c.mem.Free(b)
		}
	}
	c.values, c.offsets, c.valid = nil, nil, nil
	if c.other != nil {
		c.other.Release()
	}
}

// grow makes room for n more bytes.
func (c *column) grow(n int) {
	if need := c.used + n; need > len(c.values) {
		c.values = c.mem.Reallocate(max(need, len(c.values)+len(c.values)/2), c.values)
	}
}

// text views a field as a string for as long as its memory lasts.
func text(f []byte) string { return unsafe.String(unsafe.SliceData(f), len(f)) }

// isNull reports whether a field says that there is no value.
func (c *column) isNull(f []byte, quoted bool) bool {
	if c.kind == kindText {
		return len(f) == 0 && !quoted || len(c.nulls) > 0 && !quoted && c.nulls[text(f)]
	}
	return len(f) == 0 || nullWord(f) || c.nulls[text(f)]
}

// nullWord knows what other programs write for nothing where no text is meant.
func nullWord(f []byte) bool {
	if len(f) > 8 {
		return false
	}
	switch string(f) {
	case "NULL", "null", "NA", "N/A", "n/a", "#N/A", "#NA", "None", "nan", "NaN", "-nan", "-NaN", "<NA>":
		return true
	}
	return false
}

// add decodes a field.
func (c *column) add(f []byte, quoted bool) error {
	if c.isNull(f, quoted) {
		c.addNull()
		return nil
	}
	switch c.kind {
	case kindInt:
		v, ok := parseInt(f)
		if !ok {
			return c.misfit(f)
		}
		c.put64(uint64(v))
	case kindFloat:
		v, ok := parseFloat(f)
		if !ok {
			return c.misfit(f)
		}
		c.put64(math.Float64bits(v))
	case kindStamp:
		v, ok := c.parseStamp(f)
		if !ok {
			return c.misfit(f)
		}
		c.put64(uint64(v))
	case kindDate:
		v, ok := parseDate(f)
		if !ok {
			return c.misfit(f)
		}
		c.put32(uint32(v))
	case kindTime:
		v, ok := parseClock(f)
		if !ok {
			return c.misfit(f)
		}
		c.put32(uint32(v))
	case kindBool:
		v, ok := parseBool(f)
		if !ok {
			return c.misfit(f)
		}
		if c.n%8 == 0 {
			c.grow(1)
			c.values[c.used] = 0
			c.used++
		}
		if v {
			bitutil.SetBit(c.values, c.n)
		}
	case kindText:
		if !utf8.Valid(f) {
			return fmt.Errorf("%q is not UTF-8", excerpt(f))
		}
		c.grow(len(f))
		c.used += copy(c.values[c.used:], f)
		c.end()
	case kindOther:
		if err := c.other.AppendValueFromString(string(f)); err != nil {
			return c.misfit(f)
		}
	default:
		return c.misfit(f)
	}
	c.n++
	if c.valid != nil {
		c.mark(true)
	}
	return nil
}

func (c *column) misfit(f []byte) error {
	return fmt.Errorf("%q is no %s", excerpt(f), c.t)
}

func (c *column) addNull() {
	switch c.kind {
	case kindNull:
	case kindBool:
		if c.n%8 == 0 {
			c.grow(1)
			c.values[c.used] = 0
			c.used++
		}
	case kindText:
		c.end()
	case kindOther:
		c.other.AppendNull()
	case kindDate, kindTime:
		c.put32(0)
	default:
		c.put64(0)
	}
	c.n++
	c.nullN++
	if c.kind != kindNull && c.kind != kindOther {
		if c.valid == nil {
			size := max(int(bitutil.BytesForBits(int64(c.n))), 64)
			c.valid = c.mem.Allocate(size)
			memory.Set(c.valid, 0xff)
		}
		c.mark(false)
	}
}

// mark sets the bit of the value that was just added.
func (c *column) mark(valid bool) {
	if need := int(bitutil.BytesForBits(int64(c.n))); need > len(c.valid) {
		c.valid = c.mem.Reallocate(2*need, c.valid)
	}
	bitutil.SetBitTo(c.valid, c.n-1, valid)
}

func (c *column) put64(v uint64) {
	c.grow(8)
	*(*uint64)(unsafe.Pointer(&c.values[c.used])) = v
	c.used += 8
}

func (c *column) put32(v uint32) {
	c.grow(4)
	*(*uint32)(unsafe.Pointer(&c.values[c.used])) = v
	c.used += 4
}

// end notes where a text ends.
func (c *column) end() {
	at := (c.n + 1) * 8
	if at+8 > len(c.offsets) {
		c.offsets = c.mem.Reallocate(max(at+8, len(c.offsets)+len(c.offsets)/2), c.offsets)
	}
	*(*int64)(unsafe.Pointer(&c.offsets[at])) = int64(c.used)
}

// array returns what was decoded; the memory is the array's.
func (c *column) array() arrow.Array {
	switch c.kind {
	case kindNull:
		return array.NewNull(c.n)
	case kindOther:
		return c.other.NewArray()
	}
	buffer := func(b []byte, n int) *memory.Buffer {
		if b == nil {
			return memory.NewBufferBytes([]byte{})
		}
		return memory.NewBufferBytes(b[:n])
	}
	bufs := []*memory.Buffer{nil}
	if c.valid != nil {
		bufs[0] = buffer(c.valid, int(bitutil.BytesForBits(int64(c.n))))
	}
	if c.kind == kindText {
		bufs = append(bufs, buffer(c.offsets, (c.n+1)*8))
	}
	bufs = append(bufs, buffer(c.values, c.used))
	return array.MakeFromData(array.NewData(c.t, c.n, bufs, nil, c.nullN, 0))
}

func parseInt(f []byte) (int64, bool) {
	b := f
	neg := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		neg = b[0] == '-'
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	var v uint64
	for _, d := range b {
		if d -= '0'; d > 9 {
			return 0, false
		}
		v = v*10 + uint64(d)
	}
	if neg {
		return -int64(v), v <= 1<<63
	}
	return int64(v), v <= math.MaxInt64
}

// parseFloat takes what strconv does, but for hexadecimals, underscores and the
// spellings of infinity that are words of their own.
func parseFloat(f []byte) (float64, bool) {
	if len(f) == 0 || f[0] > '9' && len(f) > 9 {
		return 0, false
	}
	if bytes.IndexByte(f, '_') >= 0 || len(f) > 2 && (f[1] == 'x' || f[1] == 'X' || f[2] == 'x' || f[2] == 'X') {
		return 0, false
	}
	v, err := strconv.ParseFloat(text(f), 64)
	if err != nil && !math.IsInf(v, 0) {
		return 0, false
	}
	return v, true
}

func parseBool(f []byte) (v, ok bool) {
	switch text(f) {
	case "true", "True", "TRUE":
		return true, true
	case "false", "False", "FALSE":
		return false, true
	}
	return false, false
}

// digits decodes n decimal digits.
func digits(f []byte) (v int, ok bool) {
	for _, d := range f {
		if d -= '0'; d > 9 {
			return 0, false
		}
		v = v*10 + int(d)
	}
	return v, len(f) > 0
}

// parseDate decodes YYYY-MM-DD as days since 1970.
func parseDate(f []byte) (int32, bool) {
	if len(f) != 10 || f[4] != '-' || f[7] != '-' {
		return 0, false
	}
	y, ok1 := digits(f[:4])
	m, ok2 := digits(f[5:7])
	d, ok3 := digits(f[8:])
	if !ok1 || !ok2 || !ok3 || m < 1 || m > 12 || d < 1 || d > daysIn(y, m) {
		return 0, false
	}
	return int32(days(y, m, d)), true
}

func daysIn(y, m int) int {
	switch {
	case m == 2 && y%4 == 0 && (y%100 != 0 || y%400 == 0):
		return 29
	case m == 2:
		return 28
	case m == 4 || m == 6 || m == 9 || m == 11:
		return 30
	}
	return 31
}

// days counts from 1970-01-01 in the proleptic Gregorian calendar, by Howard
// Hinnant's "chrono-Compatible Low-Level Date Algorithms".
func days(y, m, d int) int64 {
	if m <= 2 {
		y--
	}
	era := y / 400
	if y < 0 {
		era = (y - 399) / 400
	}
	yoe := y - era*400
	mp := (m + 9) % 12
	doy := (153*mp+2)/5 + d - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return int64(era)*146097 + int64(doe) - 719468
}

// parseClock decodes HH:MM or HH:MM:SS as seconds.
func parseClock(f []byte) (int32, bool) {
	if (len(f) != 5 && len(f) != 8) || f[2] != ':' {
		return 0, false
	}
	h, ok1 := digits(f[:2])
	m, ok2 := digits(f[3:5])
	s, ok3 := 0, true
	if len(f) == 8 {
		s, ok3 = digits(f[6:])
		ok3 = ok3 && f[5] == ':'
	}
	return int32(h*3600 + m*60 + s), ok1 && ok2 && ok3 && h < 24 && m < 60 && s < 60
}

// stamp is a timestamp in parts.
type stamp struct {
	seconds int64
	nanos   int64
	digits  int  // of the fraction
	zoned   bool // it had a zone; seconds are in UTC
}

// parseTimestamp decodes ISO 8601: a date, T or a space, a time of day, a
// fraction of up to nine digits, Z or an offset.
func parseTimestamp(f []byte) (s stamp, ok bool) {
	if len(f) < 16 || f[10] != 'T' && f[10] != ' ' {
		return s, false
	}
	d, ok := parseDate(f[:10])
	if !ok {
		return s, false
	}
	rest := f[11:]
	n := 5
	if len(rest) >= 8 && rest[5] == ':' {
		n = 8
	}
	c, ok := parseClock(rest[:n])
	if !ok {
		return s, false
	}
	s.seconds = int64(d)*86400 + int64(c)
	rest = rest[n:]
	if len(rest) > 1 && rest[0] == '.' {
		i := 1
		for i < len(rest) && rest[i]-'0' <= 9 {
			i++
		}
		v, ok := digits(rest[1:i])
		if s.digits = i - 1; !ok || s.digits > 9 {
			return s, false
		}
		s.nanos = int64(v)
		for range 9 - s.digits {
			s.nanos *= 10
		}
		rest = rest[i:]
	}
	if len(rest) == 0 {
		return s, true
	}
	s.zoned = true
	if len(rest) == 1 && rest[0] == 'Z' {
		return s, true
	}
	if len(rest) < 3 || rest[0] != '+' && rest[0] != '-' {
		return s, false
	}
	sign := int64(1)
	if rest[0] == '-' {
		sign = -1
	}
	h, ok1 := digits(rest[1:3])
	m, ok2 := 0, true
	if rest = rest[3:]; len(rest) > 0 {
		if rest[0] == ':' {
			rest = rest[1:]
		}
		m, ok2 = digits(rest)
		ok2 = ok2 && len(rest) == 2
	}
	s.seconds -= sign * int64(h*3600+m*60)
	return s, ok1 && ok2 && h < 24 && m < 60
}

// parseStamp decodes a timestamp in the unit of the column.
func (c *column) parseStamp(f []byte) (int64, bool) {
	t := c.t.(*arrow.TimestampType)
	var s stamp
	if d, ok := parseDate(f); ok {
		s.seconds = int64(d) * 86400
	} else if s, ok = parseTimestamp(f); !ok {
		return 0, false
	}
	if s.zoned && t.TimeZone == "" {
		return 0, false
	}
	per := int64(time.Second / t.Unit.Multiplier())
	if s.seconds > math.MaxInt64/per-1 || s.seconds < math.MinInt64/per+1 {
		return 0, false
	}
	fraction := s.nanos / int64(t.Unit.Multiplier())
	if fraction*int64(t.Unit.Multiplier()) != s.nanos {
		return 0, false
	}
	return s.seconds*per + fraction, true
}
