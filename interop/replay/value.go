package replay

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// kind names the JSON type of a decoded value; integers and other numbers are
// two types, because clients parse ids and sizes as integers.
func kind(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case string:
		return "string"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	case json.Number:
		if strings.ContainsAny(string(v), ".eE") {
			return "float"
		}
		return "integer"
	}
	return fmt.Sprintf("%T", v)
}

// jsonText returns a value as JSON with sorted keys.
func jsonText(v any) string {
	text, err := encode(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

// show is jsonText for messages: shortened.
func show(v any) string {
	text := jsonText(v)
	if len(text) > 160 {
		return text[:160] + "…"
	}
	return text
}

// asUint reads an id; the wire carries ids as unsigned numbers.
func asUint(v any) (uint64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	u, err := strconv.ParseUint(string(n), 10, 64)
	return u, err == nil
}

func asInt(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := strconv.ParseInt(string(n), 10, 64)
	return i, err == nil
}

func number(u uint64) json.Number { return json.Number(strconv.FormatUint(u, 10)) }

// objectText writes an object id as metadata does.
func objectText(id uint64) string { return fmt.Sprintf("o%016x", id) }

// parseObjectText reads an object id in its text form, and nothing else.
func parseObjectText(s string) (uint64, bool) {
	if len(s) != 17 || s[0] != 'o' || s != strings.ToLower(s) {
		return 0, false
	}
	id, err := strconv.ParseUint(s[1:], 16, 64)
	return id, err == nil
}

// isIndex reports whether a key is "0", "1", …: replies with several payloads
// carry them under such keys too.
func isIndex(key string) bool {
	n, err := strconv.ParseUint(key, 10, 31)
	return err == nil && strconv.FormatUint(n, 10) == key
}
