package json

import (
	"bytes"
	"io"
	"io/fs"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"github.com/v6d-go/v6d/internal/status"
)

// maxDepth bounds how deep values may be nested, as package typed does.
const maxDepth = 200

// kinds is a set of kinds of values.
type kinds uint16

const (
	isNull kinds = 1 << iota
	isBool
	isInt   // it fits int64
	isMinus // an int below 0
	isBig   // it fits uint64 and not int64
	isFloat // it has a fraction or an exponent, or fits no integer
	isHuge  // a number that fits no float64
	isText
	isList
	isObject
)

// token is a value in the text.
type token struct {
	start, end int
	kinds      kinds
	escaped    bool // a string with escapes
}

// scanner goes through JSON text, and checks it.
type scanner struct {
	b     []byte // up to where the text ends: in lines the end of this one
	at    int
	lines bool
}

// fail returns an error that names a place.
func (s *scanner) fail(at int, format string, args ...any) error {
	err := status.Errorf(status.Invalid, "line %d, byte %d: "+format, append([]any{s.line(at), at - bytes.LastIndexByte(s.b[:at], '\n')}, args...)...)
	if s.lines && at == len(s.b) {
		return err.WithHint("each line holds one whole object (jq -c writes that), unless all are in one array")
	}
	return err
}

// line returns the number of the line that a place is on.
func (s *scanner) line(at int) int { return 1 + bytes.Count(s.b[:at], []byte{'\n'}) }

// expected returns the error for what is there in the place of something.
func (s *scanner) expected(what string) error {
	if s.at >= len(s.b) {
		if s.lines {
			return s.fail(len(s.b), "the line ends where %s was expected", what)
		}
		return s.fail(len(s.b), "it ends where %s was expected", what)
	}
	r, _ := utf8.DecodeRune(s.b[s.at:])
	return s.fail(s.at, "%s was expected, not %q", what, r)
}

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// next skips space and returns the byte after it, 0 at the end.
func (s *scanner) next() byte {
	if s.at < len(s.b) && s.b[s.at] > ' ' {
		return s.b[s.at]
	}
	if s.space(); s.at < len(s.b) {
		return s.b[s.at]
	}
	return 0
}

// value skips a value.
func (s *scanner) value(depth int) (t token, err error) {
	c := s.next()
	t.start = s.at
	switch {
	case c == '"':
		t.kinds = isText
		t.escaped, err = s.text()
	case c == '-' || c-'0' <= 9:
		t.kinds, err = s.number()
	case c == '{':
		t.kinds = isObject
		err = s.object(depth, func() error {
			if _, err := s.key(); err != nil {
				return err
			}
			_, err := s.value(depth + 1)
			return err
		})
	case c == '[':
		t.kinds = isList
		err = s.list(depth, func() error { _, err := s.value(depth + 1); return err })
	case c == 'n':
		t.kinds = isNull
		err = s.word("null")
	case c == 't':
		t.kinds = isBool
		err = s.word("true")
	case c == 'f':
		t.kinds = isBool
		err = s.word("false")
	default:
		err = s.expected("a value")
	}
	if depth > maxDepth && err == nil {
		err = s.tooDeep(t.start)
	}
	t.end = s.at
	return t, err
}

func (s *scanner) tooDeep(at int) error {
	return s.fail(at, "it is nested more than %d deep", maxDepth)
}

func (s *scanner) word(w string) error {
	for i := range len(w) {
		if s.at+i >= len(s.b) || s.b[s.at+i] != w[i] {
			s.at = min(s.at+i, len(s.b))
			return s.expected(w)
		}
	}
	s.at += len(w)
	return nil
}

// list skips a list; element has to skip an element.
func (s *scanner) list(depth int, element func() error) error {
	if depth > maxDepth {
		return s.tooDeep(s.at)
	}
	s.at++
	if s.next() == ']' {
		s.at++
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.at++
		case ']':
			s.at++
			return nil
		default:
			return s.expected("a comma or ]")
		}
	}
}

// object skips an object; member has to skip a key, as key does, and the value.
func (s *scanner) object(depth int, member func() error) error {
	if depth > maxDepth {
		return s.tooDeep(s.at)
	}
	s.at++
	if s.next() == '}' {
		s.at++
		return nil
	}
	for {
		if err := member(); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.at++
		case '}':
			s.at++
			return nil
		default:
			return s.expected("a comma or }")
		}
	}
}

// key skips a key and its colon.
func (s *scanner) key() (t token, err error) {
	if s.next() != '"' {
		return t, s.expected("a key in quotes")
	}
	t = token{start: s.at, kinds: isText}
	if t.escaped, err = s.text(); err != nil {
		return t, err
	}
	t.end = s.at
	return t, s.colon()
}

func (s *scanner) colon() error {
	if s.next() != ':' {
		return s.expected("a colon")
	}
	s.at++
	return nil
}

// number skips a number.
func (s *scanner) number() (kinds, error) {
	b, start, i := s.b, s.at, s.at
	minus := b[i] == '-'
	if minus {
		i++
	}
	first := i
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	digits := i - first
	if digits == 0 {
		s.at = i
		return 0, s.expected("a digit")
	}
	if b[first] == '0' && digits > 1 {
		return 0, s.fail(first, "a number begins with 0")
	}
	s.at = i
	if i < len(b) && (b[i] == '.' || b[i]|0x20 == 'e') {
		return s.fraction(start, digits)
	}
	switch {
	case digits <= 18 && !minus:
		return isInt, nil
	case digits <= 18:
		return isInt | isMinus, nil
	}
	text := string(b[start:i])
	if _, err := strconv.ParseInt(text, 10, 64); err == nil && minus {
		return isInt | isMinus, nil
	} else if err == nil {
		return isInt, nil
	}
	if _, err := strconv.ParseUint(text, 10, 64); err == nil {
		return isBig, nil
	}
	return s.float(start, digits > 300), nil
}

// fraction skips what follows the whole part of a number.
func (s *scanner) fraction(start, digits int) (kinds, error) {
	b := s.b
	some := func() bool {
		from := s.at
		for s.at < len(b) && b[s.at]-'0' <= 9 {
			s.at++
		}
		return s.at > from
	}
	if b[s.at] == '.' {
		if s.at++; !some() {
			return 0, s.expected("a digit")
		}
	}
	wide := digits > 300
	if s.at < len(b) && b[s.at]|0x20 == 'e' {
		wide = true
		if s.at++; s.at < len(b) && (b[s.at] == '+' || b[s.at] == '-') {
			s.at++
		}
		if !some() {
			return 0, s.expected("a digit")
		}
	}
	return s.float(start, wide), nil
}

// float tells numbers that are out of the range of float64.
func (s *scanner) float(start int, wide bool) kinds {
	if wide {
		if _, err := strconv.ParseFloat(view(s.b[start:s.at]), 64); err != nil {
			return isHuge
		}
	}
	return isFloat
}

// view is bytes as a string, for as long as they do not change.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// plain are the bytes that mean themselves in a string. Those of more than one
// byte are looked at afterwards.
var plain = func() (t [256]bool) {
	for i := ' '; i < utf8.RuneSelf; i++ {
		t[i] = i != '"' && i != '\\'
	}
	return t
}()

// text skips a string.
func (s *scanner) text() (escaped bool, err error) {
	b, i := s.b, s.at+1
	wide := false
	for {
		for i < len(b) && plain[b[i]] {
			i++
		}
		if i >= len(b) {
			return false, s.fail(len(b), "a string does not end")
		}
		switch c := b[i]; {
		case c == '"':
			if wide && !utf8.Valid(b[s.at:i]) {
				return false, s.fail(s.at, "a string is not UTF-8")
			}
			s.at = i + 1
			return escaped, nil
		case c == '\\':
			escaped = true
			n := escape(b[i:])
			if n == 0 {
				return false, s.fail(i, "%q is no escape", b[i:min(i+6, len(b))])
			}
			i += n
		case c >= utf8.RuneSelf:
			wide = true
			i++
		default:
			return false, s.fail(i, "a string has the control character %q, which has to be escaped", c)
		}
	}
}

// escape returns the length of an escape, 0 if it is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if c-'0' > 9 && c|0x20-'a' > 5 {
				return 0
			}
		}
		return 6
	}
	return 0
}

// content returns the characters of a string, in the text if it has no escapes
// and appended to scratch otherwise.
func (s *scanner) content(t token, scratch []byte) []byte {
	b := s.b[t.start+1 : t.end-1]
	if !t.escaped {
		return b
	}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return append(scratch, b...)
		}
		scratch = append(scratch, b[:i]...)
		if b = b[i:]; b[1] != 'u' {
			scratch = append(scratch, unescaped[b[1]])
			b = b[2:]
			continue
		}
		r := hex(b)
		b = b[6:]
		if utf16.IsSurrogate(r) {
			pair := rune(utf8.RuneError)
			if len(b) >= 6 && b[0] == '\\' && b[1] == 'u' {
				pair = utf16.DecodeRune(r, hex(b))
			}
			if r = pair; r != utf8.RuneError {
				b = b[6:]
			}
		}
		scratch = utf8.AppendRune(scratch, r)
	}
	return scratch
}

var unescaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// hex decodes an escape of four digits.
func hex(b []byte) (r rune) {
	for _, c := range b[2:6] {
		if c >= 'A' {
			c += 9
		}
		r = r<<4 | rune(c&15)
	}
	return r
}

// readAll reads all of r, at most limit bytes, without its byte order mark. What
// knows its length is read into memory of that length.
func readAll(r io.Reader, limit int64) (b []byte, err error) {
	n := length(r)
	if n <= limit {
		all := io.LimitReader(r, limit+1)
		if n > 0 {
			buffer := bytes.NewBuffer(make([]byte, 0, n+bytes.MinRead))
			_, err = buffer.ReadFrom(all)
			b = buffer.Bytes()
		} else {
			b, err = io.ReadAll(all)
		}
	}
	if err != nil {
		return nil, err
	}
	if max(n, int64(len(b))) > limit {
		return nil, status.Errorf(status.Invalid, "it has more than %d bytes", limit).
			WithHint("rows can be in a .ndjson file of any size, one object a line")
	}
	return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), nil
}

// length returns how many bytes a reader has left at most, 0 if it does not know.
func length(r io.Reader) int64 {
	if l, ok := r.(interface{ Len() int }); ok {
		return int64(l.Len())
	}
	if f, ok := r.(interface{ Stat() (fs.FileInfo, error) }); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			return info.Size()
		}
	}
	return 0
}
