package npy

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/v6d-go/v6d/internal/status"
)

// magic is what every .npy file begins with; two bytes of version follow.
const magic = "\x93NUMPY"

const (
	maxHeader = 1 << 20 // bytes; NumPy itself refuses more than 10000 unless told
	align     = 64      // where the data begins
	growth    = 21      // digits that NumPy leaves room for, to append to a file
)

// header is what the dictionary of a file says.
type header struct {
	descr   string
	fortran bool
	shape   []int64
}

// readHeader reads all that comes before the data.
func readHeader(r io.Reader) (header, error) {
	var b [12]byte
	if n, err := io.ReadFull(r, b[:8]); err != nil {
		return header{}, short(err, "%d of the 8 bytes that a .npy file begins with are there", n)
	}
	if string(b[:6]) != magic {
		return header{}, foreign(b[:8])
	}
	wide := 4
	switch b[6] {
	case 1:
		wide = 2
	case 2, 3:
	default:
		return header{}, status.Errorf(status.NotImplemented, "version %d.%d of NumPy's format is not known", b[6], b[7]).
			WithHint("1.0, 2.0 and 3.0 are")
	}
	if n, err := io.ReadFull(r, b[8:8+wide]); err != nil {
		return header{}, short(err, "%d of %d bytes of the header's length are there", n, wide)
	}
	length := binary.LittleEndian.Uint32(b[8:])
	if length > maxHeader {
		return header{}, status.Errorf(status.Invalid, "a header of %d bytes is more than %d", length, maxHeader)
	}
	text := make([]byte, length)
	if n, err := io.ReadFull(r, text); err != nil {
		return header{}, short(err, "%d of %d bytes of the header are there", n, length)
	}
	p := parser{text: string(text)}
	h, err := p.header()
	if err != nil {
		return header{}, err
	}
	return h, nil
}

// short says that a file ends early, if it is that.
func short(err error, format string, args ...any) error {
	if err != io.EOF && err != io.ErrUnexpectedEOF { //nolint:errorlint // io.ReadFull returns them bare
		return err
	}
	return status.Errorf(status.EndOfFile, "truncated: "+format, args...)
}

// foreign says what a file is that does not begin as it should.
func foreign(b []byte) error {
	err := status.Errorf(status.Invalid, "it is no .npy file: it begins with %q", b)
	switch {
	case string(b[:2]) == "PK":
		return err.WithHint("it looks like a zip, as .npz files are")
	case b[0] == 0x80:
		return refusePickle("it is a pickle")
	}
	return err
}

// refusePickle is the answer to all that would have to be unpickled.
func refusePickle(what string) error {
	return status.Errorf(status.NotImplemented, "%s: pickles are not read from files, because loading one can run any code", what).
		WithHint("write it with np.save(..., allow_pickle=False), which refuses objects: convert them first, as with array.astype(str) or array.astype(float)")
}

// parser reads the dictionary.
type parser struct {
	text string
	at   int
}

func (p *parser) fail(format string, args ...any) error {
	return status.Errorf(status.Invalid, "its header is damaged at byte %d: "+format, append([]any{p.at}, args...)...)
}

// space skips what may stand between tokens.
func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

// take skips a token if it comes next.
func (p *parser) take(token string) bool {
	p.space()
	if !strings.HasPrefix(p.text[p.at:], token) {
		return false
	}
	p.at += len(token)
	return true
}

func (p *parser) header() (h header, err error) {
	if !p.take("{") {
		return h, p.fail("a dictionary was expected")
	}
	seen := map[string]bool{}
	for !p.take("}") {
		key, err := p.quoted()
		if err != nil {
			return h, err
		}
		if seen[key] {
			return h, p.fail("the key %q comes twice", key)
		}
		seen[key] = true
		if !p.take(":") {
			return h, p.fail("a colon was expected")
		}
		if err := p.value(&h, key); err != nil {
			return h, err
		}
		if !p.take(",") && !strings.HasPrefix(p.text[p.at:], "}") {
			return h, p.fail("a comma or } was expected")
		}
	}
	if p.space(); p.at < len(p.text) {
		return h, p.fail("there is more after the dictionary")
	}
	for _, key := range []string{"descr", "fortran_order", "shape"} {
		if !seen[key] {
			return h, p.fail("the key %q is missing", key)
		}
	}
	return h, nil
}

func (p *parser) value(h *header, key string) (err error) {
	switch key {
	case "descr":
		if p.take("[") || p.take("(") {
			return status.Errorf(status.NotImplemented, "it is a structured array, whose elements have several fields").
				WithHint("save the fields one by one: np.savez(file, **{name: array[name] for name in array.dtype.names})")
		}
		h.descr, err = p.quoted()
	case "fortran_order":
		h.fortran = p.take("True")
		if !h.fortran && !p.take("False") {
			return p.fail("True or False was expected")
		}
	case "shape":
		h.shape, err = p.tuple()
	default:
		return p.fail("the key %q is not known", key)
	}
	return err
}

// quoted reads a string without escapes: no dtype needs one.
func (p *parser) quoted() (string, error) {
	p.space()
	rest := p.text[p.at:]
	if rest == "" || rest[0] != '\'' && rest[0] != '"' {
		return "", p.fail("a string was expected")
	}
	n := strings.IndexByte(rest[1:], rest[0])
	if n < 0 || strings.ContainsAny(rest[1:1+n], "\\\r\n") {
		return "", p.fail("the string does not end, or has escapes")
	}
	p.at += n + 2
	return rest[1 : 1+n], nil
}

// tuple reads dimensions. Python 2 wrote 3L for 3.
func (p *parser) tuple() ([]int64, error) {
	if !p.take("(") {
		return nil, p.fail("a tuple was expected")
	}
	shape := []int64{}
	comma := true
	for !p.take(")") {
		if !comma {
			return nil, p.fail("a comma or ) was expected")
		}
		end := p.at
		for end < len(p.text) && p.text[end] >= '0' && p.text[end] <= '9' {
			end++
		}
		n, err := strconv.ParseInt(p.text[p.at:end], 10, 64)
		if err != nil {
			return nil, p.fail("a dimension was expected")
		}
		p.at = end
		p.at += len(p.text[end:]) - len(strings.TrimPrefix(p.text[end:], "L"))
		shape = append(shape, n)
		comma = p.take(",")
	}
	if len(shape) == 1 && !comma {
		return nil, p.fail("(%d) is no tuple", shape[0])
	}
	return shape, nil
}

// bytes returns all that comes before the data, as np.save writes it: spaces that
// let the first dimension grow, and more of them up to where the data begins.
func (h header) bytes() ([]byte, error) {
	var b strings.Builder
	order := "False"
	if h.fortran {
		order = "True"
	}
	fmt.Fprintf(&b, "{'descr': '%s', 'fortran_order': %s, 'shape': (", h.descr, order)
	for i, d := range h.shape {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.FormatInt(d, 10))
	}
	if len(h.shape) == 1 {
		b.WriteByte(',')
	}
	b.WriteString("), }")
	if len(h.shape) > 0 {
		b.WriteString(strings.Repeat(" ", max(0, growth-len(strconv.FormatInt(h.shape[0], 10)))))
	}
	return wrap(b.String())
}

// wrap puts the oldest version that will do before the text of a header.
func wrap(text string) ([]byte, error) {
	version, encoded := byte(1), make([]byte, 0, len(text))
	for _, r := range text {
		if r > 0xff {
			version, encoded = 3, []byte(text)
			break
		}
		encoded = append(encoded, byte(r))
	}
	pad := func(prefix int) int { return align - (prefix+len(encoded)+1)%align } // never 0, as in NumPy
	b := []byte(magic)
	if length := len(encoded) + 1 + pad(10); version == 1 && length <= math.MaxUint16 {
		b = binary.LittleEndian.AppendUint16(append(b, 1, 0), uint16(length))
	} else {
		if length = len(encoded) + 1 + pad(12); length > maxHeader {
			return nil, status.Errorf(status.Invalid, "a header of %d bytes is more than %d", length, maxHeader)
		}
		b = binary.LittleEndian.AppendUint32(append(b, max(version, 2), 0), uint32(length))
	}
	spaces := pad(len(b))
	b = append(b, encoded...)
	b = append(b, strings.Repeat(" ", spaces)...)
	return append(b, '\n'), nil
}
