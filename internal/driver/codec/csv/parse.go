package csv

import (
	"bytes"
	"errors"
	"fmt"
)

// dialect is how records are written.
type dialect struct {
	comma byte
	quote bool // "..." encloses fields
}

// errUnclosed is a quoted field that the text ends in.
var errUnclosed = errors.New(`a quoted field is not closed: a " is missing`)

// scanner cuts text into records and fields.
type scanner struct {
	dialect
	b    []byte
	at   int
	from int // where the record begins

	fields  [][]byte // of the record; over b, or over scratch
	quoted  []bool
	scratch []byte
}

// next reads a record; ok is false at the end. Blank lines are skipped.
func (s *scanner) next() (ok bool, err error) {
	for s.at < len(s.b) { // blank lines
		if s.b[s.at] == '\n' {
			s.at++
		} else if s.b[s.at] == '\r' && s.at+1 < len(s.b) && s.b[s.at+1] == '\n' {
			s.at += 2
		} else {
			break
		}
	}
	s.from = s.at
	if s.at >= len(s.b) {
		return false, nil
	}
	s.fields, s.quoted, s.scratch = s.fields[:0], s.quoted[:0], s.scratch[:0]
	for {
		if s.quote && s.at < len(s.b) && s.b[s.at] == '"' {
			if err := s.quotedField(); err != nil {
				return false, err
			}
		} else {
			s.plainField()
		}
		if s.at >= len(s.b) {
			return true, nil
		}
		c := s.b[s.at]
		s.at++
		if c == '\n' {
			return true, nil
		}
	}
}

// plainField reads up to the delimiter or the end of the line.
func (s *scanner) plainField() {
	b := s.b[s.at:]
	i := 0
	for i < len(b) && b[i] != s.comma && b[i] != '\n' {
		i++
	}
	f := b[:i]
	s.at += i
	if i > 0 && f[i-1] == '\r' && (i == len(b) || b[i] == '\n') {
		f = f[:i-1]
	}
	s.fields, s.quoted = append(s.fields, f), append(s.quoted, false)
}

// quotedField reads a field in quotes, and what stands between the closing quote
// and the delimiter, which has to be nothing.
func (s *scanner) quotedField() error {
	start := s.at + 1
	i := start
	double := false
	for {
		k := bytes.IndexByte(s.b[i:], '"')
		if k < 0 {
			return errUnclosed
		}
		i += k
		if i+1 < len(s.b) && s.b[i+1] == '"' {
			double = true
			i += 2
			continue
		}
		break
	}
	f := s.b[start:i]
	if double {
		from := len(s.scratch)
		for rest := f; ; {
			k := bytes.IndexByte(rest, '"')
			if k < 0 {
				s.scratch = append(s.scratch, rest...)
				break
			}
			s.scratch = append(s.scratch, rest[:k+1]...)
			rest = rest[k+2:]
		}
		f = s.scratch[from:len(s.scratch):len(s.scratch)]
	}
	s.at = i + 1
	if s.at < len(s.b) && s.b[s.at] == '\r' && (s.at+1 == len(s.b) || s.b[s.at+1] == '\n') {
		s.at++
	}
	if s.at < len(s.b) && s.b[s.at] != s.comma && s.b[s.at] != '\n' {
		return fmt.Errorf("field %d goes on after its closing quote: %q", len(s.fields)+1, excerpt(s.b[s.at:]))
	}
	s.fields, s.quoted = append(s.fields, f), append(s.quoted, true)
	return nil
}

// excerpt shortens what an error quotes.
func excerpt(b []byte) string {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	if len(b) > 40 {
		return string(b[:40]) + "..."
	}
	return string(b)
}

// whole returns how many bytes of b are whole records, given that b begins with
// one: up to the last line break that is not in quotes.
func whole(b []byte, d dialect) int {
	if !d.quote || bytes.IndexByte(b, '"') < 0 {
		return bytes.LastIndexByte(b, '\n') + 1
	}
	end, quoted := 0, false
	for i := 0; ; {
		q := bytes.IndexByte(b[i:], '"')
		if !quoted {
			outside := b[i:]
			if q >= 0 {
				outside = outside[:q]
			}
			if n := bytes.LastIndexByte(outside, '\n'); n >= 0 {
				end = i + n + 1
			}
		}
		if q < 0 {
			return end
		}
		q += i
		i = q + 1
		switch {
		case !quoted: // only at the beginning of a field does it mean anything
			quoted = q == 0 || b[q-1] == d.comma || b[q-1] == '\n' || q == len(bom) && bytes.HasPrefix(b, bom)
		case i < len(b) && b[i] == '"':
			i++
		default:
			quoted = false
		}
	}
}
