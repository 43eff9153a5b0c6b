// Package wirejson reads and writes JSON as the 0.24 wire has it.
//
// Why not a general library: requests are scanned in place, once, without a
// document tree; parts of them are copied verbatim into replies; and the rules
// differ from every library's in small ways that clients rely on. Duplicate
// keys are legal (the last wins), NUL bytes may follow the text, integers are
// 64 bit and exact, negative ids wrap, a number that overflows a double and a
// lone surrogate escape are errors because other clients cannot parse a reply
// that repeats them (docs/protocol.md).
//
// A Value is a validated JSON text. It aliases the buffer that it was scanned
// from: clone what outlives the buffer.
package wirejson

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"unicode/utf8"
)

// MaxDepth bounds the nesting of arrays and objects in one text.
const MaxDepth = 1000

// Kind tells what a Value is.
type Kind byte

// The kinds of JSON values.
const (
	Null   Kind = 'n'
	Bool   Kind = 't'
	Number Kind = '0'
	String Kind = '"'
	Array  Kind = '['
	Object Kind = '{'
)

// String returns the kind's name as error messages print it.
func (k Kind) String() string {
	switch k {
	case Null:
		return "null"
	case Bool:
		return "boolean"
	case Number:
		return "number"
	case String:
		return "string"
	case Array:
		return "array"
	case Object:
		return "object"
	}
	return "nothing"
}

// Value is one validated JSON value without surrounding space. The zero Value
// stands for an absent one.
type Value []byte

// Kind tells what v is; it is 0 for an absent value.
func (v Value) Kind() Kind {
	if len(v) == 0 {
		return 0
	}
	switch c := v[0]; c {
	case 't', 'f':
		return Bool
	case 'n', '"', '[', '{':
		return Kind(c)
	}
	return Number
}

// Member is one key and value of an object. Key is unescaped.
type Member struct {
	Key   []byte
	Value Value
}

var (
	errSyntax = errors.New("syntax error")
	errDepth  = errors.New("nested too deeply")
	errEnd    = errors.New("unexpected end of text")
	errUTF8   = errors.New("invalid UTF-8")
)

// Parse validates one JSON text. Space and NUL bytes may follow it.
func Parse(b []byte) (Value, error) {
	start := skipSpace(b, 0)
	end, err := scanValue(b, start, 0)
	if err != nil {
		return nil, fmt.Errorf("%w at byte %d", err, end)
	}
	if err := checkTail(b, end); err != nil {
		return nil, err
	}
	return Value(b[start:end]), nil
}

// ParseObject validates a JSON text in one pass and appends the members of
// the top-level object to dst. If the text is valid but no object, it returns
// dst unchanged and no error: the caller finds nothing in it.
func ParseObject(b []byte, dst []Member) ([]Member, error) {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		_, err := Parse(b)
		return dst, err
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return dst, checkTail(b, i+1)
	}
	for {
		key, next, err := scanKey(b, i)
		if err != nil {
			return dst, fmt.Errorf("%w at byte %d", err, next)
		}
		i = skipSpace(b, next)
		end, err := scanValue(b, i, 1)
		if err != nil {
			return dst, fmt.Errorf("%w at byte %d", err, end)
		}
		dst = append(dst, Member{Key: key, Value: Value(b[i:end])})
		i = skipSpace(b, end)
		if i >= len(b) {
			return dst, errEnd
		}
		switch b[i] {
		case ',':
			i = skipSpace(b, i+1)
		case '}':
			return dst, checkTail(b, i+1)
		default:
			return dst, fmt.Errorf("%w at byte %d", errSyntax, i)
		}
	}
}

// Members yields the members of an object in order of appearance. It yields
// nothing for other kinds.
func (v Value) Members() iter.Seq2[[]byte, Value] {
	return func(yield func([]byte, Value) bool) {
		if v.Kind() != Object {
			return
		}
		i := skipSpace(v, 1)
		for v[i] != '}' {
			key, next, _ := scanKey(v, i)
			i = skipSpace(v, next)
			end := skipValue(v, i)
			if !yield(key, v[i:end]) {
				return
			}
			if i = skipSpace(v, end); v[i] == ',' {
				i = skipSpace(v, i+1)
			}
		}
	}
}

// Elements yields the elements of an array; nothing for other kinds.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Kind() != Array {
			return
		}
		i := skipSpace(v, 1)
		for v[i] != ']' {
			end := skipValue(v, i)
			if !yield(v[i:end]) {
				return
			}
			if i = skipSpace(v, end); v[i] == ',' {
				i = skipSpace(v, i+1)
			}
		}
	}
}

// Get returns the value of a key, the last one if it is repeated, or an absent
// value.
func (v Value) Get(key string) Value {
	var found Value
	for k, val := range v.Members() {
		if string(k) == key {
			found = val
		}
	}
	return found
}

// Clone returns a copy that does not alias the scanned buffer.
func (v Value) Clone() Value { return bytes.Clone(v) }

func checkTail(b []byte, i int) error {
	i = skipSpace(b, i)
	for ; i < len(b); i++ {
		if b[i] != 0 {
			return fmt.Errorf("%w: bytes after the text at byte %d", errSyntax, i)
		}
	}
	return nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// scanKey reads `"key" :` and returns the unescaped key and the place after
// the colon.
func scanKey(b []byte, i int) (key []byte, next int, err error) {
	if i >= len(b) {
		return nil, i, errEnd
	}
	if b[i] != '"' {
		return nil, i, errSyntax
	}
	end, escaped, err := scanString(b, i)
	if err != nil {
		return nil, end, err
	}
	key = b[i+1 : end-1]
	if escaped {
		key = unescape(key)
	}
	i = skipSpace(b, end)
	if i >= len(b) {
		return nil, i, errEnd
	}
	if b[i] != ':' {
		return nil, i, errSyntax
	}
	return key, i + 1, nil
}

// scanValue validates the value that starts at i and returns its end.
func scanValue(b []byte, i, depth int) (int, error) {
	if i >= len(b) {
		return i, errEnd
	}
	switch c := b[i]; {
	case c == '"':
		end, _, err := scanString(b, i)
		return end, err
	case c == '{':
		return scanContainer(b, i, depth, '}')
	case c == '[':
		return scanContainer(b, i, depth, ']')
	case c == '-' || c >= '0' && c <= '9':
		return scanNumber(b, i)
	case c == 't':
		return scanWord(b, i, "true")
	case c == 'f':
		return scanWord(b, i, "false")
	case c == 'n':
		return scanWord(b, i, "null")
	}
	return i, errSyntax
}

func scanWord(b []byte, i int, word string) (int, error) {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return i, errSyntax
	}
	return i + len(word), nil
}

func scanContainer(b []byte, i, depth int, closing byte) (int, error) {
	if depth >= MaxDepth {
		return i, errDepth
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == closing {
		return i + 1, nil
	}
	for {
		if closing == '}' {
			if i >= len(b) {
				return i, errEnd
			}
			if b[i] != '"' {
				return i, errSyntax
			}
			end, _, err := scanString(b, i)
			if err != nil {
				return end, err
			}
			i = skipSpace(b, end)
			if i >= len(b) {
				return i, errEnd
			}
			if b[i] != ':' {
				return i, errSyntax
			}
			i = skipSpace(b, i+1)
		}
		end, err := scanValue(b, i, depth+1)
		if err != nil {
			return end, err
		}
		i = skipSpace(b, end)
		if i >= len(b) {
			return i, errEnd
		}
		switch b[i] {
		case ',':
			i = skipSpace(b, i+1)
		case closing:
			return i + 1, nil
		default:
			return i, errSyntax
		}
	}
}

// scanString validates the string whose opening quote is at i and returns the
// place after its closing quote.
func scanString(b []byte, i int) (end int, escaped bool, err error) {
	start := i + 1
	wide := false
	for i = start; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			if wide && !utf8.Valid(b[start:i]) {
				return i, escaped, errUTF8
			}
			return i + 1, escaped, nil
		case c == '\\':
			escaped = true
			n, err := scanEscape(b, i)
			if err != nil {
				return i, escaped, err
			}
			i += n - 1
		case c < 0x20:
			return i, escaped, errSyntax
		case c >= utf8.RuneSelf:
			wide = true
		}
	}
	return i, escaped, errEnd
}

// scanEscape validates the escape at i and returns its length. A surrogate
// must be half of a pair.
func scanEscape(b []byte, i int) (int, error) {
	if i+1 >= len(b) {
		return 0, errEnd
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, nil
	case 'u':
		r, ok := hex4(b, i+2)
		if !ok {
			return 0, errSyntax
		}
		switch {
		case r >= 0xdc00 && r <= 0xdfff:
			return 0, errUTF8
		case r >= 0xd800 && r <= 0xdbff:
			if i+7 >= len(b) || b[i+6] != '\\' || b[i+7] != 'u' {
				return 0, errUTF8
			}
			if low, ok := hex4(b, i+8); !ok || low < 0xdc00 || low > 0xdfff {
				return 0, errUTF8
			}
			return 12, nil
		}
		return 6, nil
	}
	return 0, errSyntax
}

func hex4(b []byte, i int) (rune, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// scanNumber validates a number: JSON's grammar, and a value that fits a
// 64-bit integer or a finite double.
func scanNumber(b []byte, start int) (int, error) {
	i := start
	if b[i] == '-' {
		i++
	}
	digits := i
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	if i == digits || b[digits] == '0' && i > digits+1 {
		return i, errSyntax
	}
	integer := i - digits
	plain := true
	if i < len(b) && b[i] == '.' {
		plain = false
		i++
		n := i
		for i < len(b) && isDigit(b[i]) {
			i++
		}
		if i == n {
			return i, errSyntax
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		plain = false
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		n := i
		for i < len(b) && isDigit(b[i]) {
			i++
		}
		if i == n {
			return i, errSyntax
		}
	}
	if plain && integer <= 300 {
		return i, nil
	}
	if _, err := strconv.ParseFloat(string(b[start:i]), 64); err != nil {
		return i, fmt.Errorf("number out of range: %w", errSyntax)
	}
	return i, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// skipValue returns the end of a value that is known to be valid.
func skipValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		depth := 0
		for ; ; i++ {
			switch b[i] {
			case '"':
				i = skipString(b, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	for i < len(b) {
		switch b[i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			return i
		}
		i++
	}
	return i
}

func skipString(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}
