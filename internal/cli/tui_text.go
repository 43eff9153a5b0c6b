package cli

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// asText returns bytes as text, if that is what they are: UTF-8 without control
// characters but those of lines. The last character may be cut off.
func asText(b []byte) (string, bool) {
	if len(b) == 0 {
		return "", false
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			if !utf8.FullRune(b[i:]) {
				return string(b[:i]), i > 0
			}
			return "", false
		case unicode.IsControl(r) && !strings.ContainsRune("\n\r\t\f", r):
			return "", false
		}
		i += n
	}
	return string(b), true
}

// spread breaks JSON into lines, also when its end is missing: objects and arrays of
// other arrays are indented, arrays of plain values stay on a line.
func spread(text string) string {
	var out strings.Builder
	depth := 0
	line := func() {
		out.WriteByte('\n')
		out.WriteString(strings.Repeat("  ", depth))
	}
	flat := 0 // arrays of plain values that we are in
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '"':
			end := stringEnd(text, i)
			out.WriteString(text[i:end])
			i = end - 1
		case c == ' ' || c == '\n' || c == '\t' || c == '\r':
		case c == '[' && isFlat(text[i+1:]):
			flat++
			out.WriteByte(c)
		case strings.HasPrefix(text[i:], "{}"):
			out.WriteString("{}")
			i++
		case c == '[' || c == '{':
			out.WriteByte(c)
			depth++
			line()
		case c == ']' && flat > 0:
			flat--
			out.WriteByte(c)
		case c == ']' || c == '}':
			depth = max(depth-1, 0)
			line()
			out.WriteByte(c)
		case c == ',' && flat > 0:
			out.WriteString(", ")
		case c == ',':
			out.WriteByte(c)
			line()
		case c == ':':
			out.WriteString(": ")
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// stringEnd returns where the JSON string ends that begins at i.
func stringEnd(text string, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// isFlat reports whether an array, of which this is the rest, has plain values only.
func isFlat(rest string) bool {
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '"':
			i = stringEnd(rest, i) - 1
		case ']':
			return true
		case '[', '{':
			return false
		}
	}
	return true
}
