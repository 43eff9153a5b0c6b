package wirejson

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

func (v Value) wrongKind(want Kind) error {
	got := "absent"
	if len(v) > 0 {
		got = v.Kind().String()
	}
	return fmt.Errorf("must be %s, but is %s", want, got)
}

// Uint64 reads an id, signature or size. As in 0.24, a negative integer is
// taken as two's complement (Java sends ids as signed longs) and a fraction is
// truncated; a number that fits neither uint64 nor int64 is an error.
func (v Value) Uint64() (uint64, error) {
	if v.Kind() != Number {
		return 0, v.wrongKind(Number)
	}
	if u, ok := parseUint(v); ok {
		return u, nil
	}
	if i, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return uint64(i), nil
	}
	f, err := strconv.ParseFloat(string(v), 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("number %s out of range", v)
	case f >= 0 && f < 1<<64:
		return uint64(f), nil
	case f < 0 && f >= math.MinInt64:
		return uint64(int64(f)), nil
	}
	return 0, fmt.Errorf("number %s out of range", v)
}

// parseUint reads plain decimal digits without allocating.
func parseUint(v Value) (uint64, bool) {
	if len(v) == 0 || len(v) > 20 {
		return 0, false
	}
	var u uint64
	for _, c := range v {
		if !isDigit(c) {
			return 0, false
		}
		d := uint64(c - '0')
		if u > (math.MaxUint64-d)/10 {
			return 0, false
		}
		u = u*10 + d
	}
	return u, true
}

// Int64 reads a signed number; a fraction is truncated.
func (v Value) Int64() (int64, error) {
	u, err := v.Uint64()
	return int64(u), err
}

// Bool reads true or false.
func (v Value) Bool() (bool, error) {
	if v.Kind() != Bool {
		return false, v.wrongKind(Bool)
	}
	return v[0] == 't', nil
}

// Text reads a string and unescapes it.
func (v Value) Text() (string, error) {
	if v.Kind() != String {
		return "", v.wrongKind(String)
	}
	raw := v[1 : len(v)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), nil
	}
	return string(unescape(raw)), nil
}

// unescape resolves the escapes of a validated string.
func unescape(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		switch c := raw[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(raw, i+1)
			i += 4
			if r >= 0xd800 && r <= 0xdbff {
				low, _ := hex4(raw, i+3)
				r = (r-0xd800)<<10 + (low - 0xdc00) + 0x10000
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
	}
	return out
}

// AppendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD.
func AppendString[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+4, len(s))]))
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

// AppendKey appends `"key":`.
func AppendKey(b []byte, key string) []byte {
	return append(AppendString(b, key), ':')
}
