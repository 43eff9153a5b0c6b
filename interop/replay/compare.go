package replay

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// A reply is a message and the number of descriptors that followed it.
type reply struct {
	value any
	fds   int
}

// An exchange is what a comparison knows besides the two replies.
type exchange struct {
	names   *names
	root    string            // the daemon's live socket
	rpcPort string            // the daemon's live TCP port; "" if not known
	ownID   uint64            // recorded instance id of the daemon that answers
	usage   int64             // memory_usage left by earlier recordings
	counts  map[string]uint64 // what the status counters must say; nil: any number
}

// probe returns a copy whose comparisons leave x as it is.
func (x *exchange) probe() *exchange {
	p := *x
	p.names = x.names.clone()
	return &p
}

// A comparison walks a recorded and a live reply side by side and collects
// what differs. Names that both introduce are paired on the way.
type comparison struct {
	*exchange
	diffs []string
}

// compare returns what is wrong with the live reply; nothing if its structure
// is the recorded one's. Names that the reply introduces are added to x.names.
func compare(x *exchange, recorded, live reply) []string {
	c := &comparison{exchange: x}
	c.object("", recorded.value, live.value, c.replyField)
	if recorded.fds != live.fds {
		c.differ("descriptors", recorded.fds, live.fds)
	}
	return c.diffs
}

// A rule compares the values of one field.
type rule func(c *comparison, path string, recorded, live any)

func (c *comparison) differ(path string, expected, got any) {
	c.diffs = append(c.diffs, fmt.Sprintf("%s: expected %s, got %s", path, text(expected), text(got)))
}

// text shows JSON values as JSON and everything else as it is.
func text(v any) string {
	switch v := v.(type) {
	case missing:
		return string(v)
	case error:
		return v.Error()
	}
	return show(v)
}

// missing stands for a value in a message: what was expected, in words.
type missing string

// sameKind reports whether both values have one JSON type, and the type.
func (c *comparison) sameKind(path string, rec, live any) (string, bool) {
	k := kind(rec)
	if k != kind(live) {
		c.differ(path, missing(fmt.Sprintf("%s %s", k, show(rec))), missing(fmt.Sprintf("%s %s", kind(live), show(live))))
		return k, false
	}
	return k, true
}

// object compares two objects with one key set; pick chooses the rule of a key.
func (c *comparison) object(path string, rec, live any, pick func(key string) rule) {
	if k, ok := c.sameKind(path, rec, live); !ok || k != "object" {
		if ok {
			equal(c, path, rec, live)
		}
		return
	}
	r, l := rec.(map[string]any), live.(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(r)) {
		at := join(path, key)
		if v, ok := l[key]; ok {
			pick(key)(c, at, r[key], v)
		} else {
			c.differ(at, r[key], missing("no such key"))
		}
	}
	c.noOthers(path, r, l)
}

// noOthers reports the keys of live that are not in rec.
func (c *comparison) noOthers(path string, rec, live map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(live)) {
		if _, ok := rec[key]; !ok {
			c.differ(join(path, key), missing("no such key"), live[key])
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// equal is the rule of every field that no table names: the same type and the
// same value, all the way down.
func equal(c *comparison, path string, rec, live any) {
	k, ok := c.sameKind(path, rec, live)
	if !ok {
		return
	}
	switch k {
	case "object":
		c.object(path, rec, live, func(string) rule { return equal })
	case "array":
		each(equal)(c, path, rec, live)
	case "float":
		a, errA := rec.(json.Number).Float64()
		b, errB := live.(json.Number).Float64()
		if errA != nil || errB != nil || a != b {
			c.differ(path, rec, live)
		}
	default:
		if rec != live {
			c.differ(path, rec, live)
		}
	}
}

// each applies a rule to the elements of two lists of one length.
func each(element rule) rule {
	return func(c *comparison, path string, rec, live any) {
		if k, ok := c.sameKind(path, rec, live); !ok || k != "array" {
			if ok {
				equal(c, path, rec, live)
			}
			return
		}
		r, l := rec.([]any), live.([]any)
		if len(r) != len(l) {
			c.differ(path, missing(fmt.Sprintf("%d elements", len(r))), missing(fmt.Sprintf("%d: %s", len(l), show(live))))
			return
		}
		for i := range r {
			element(c, fmt.Sprintf("%s[%d]", path, i), r[i], l[i])
		}
	}
}

// shaped compares the type and then asks accept, which sees the live value and
// returns what is wrong with it, or "".
func shaped(accept func(c *comparison, rec, live any) string) rule {
	return func(c *comparison, path string, rec, live any) {
		if _, ok := c.sameKind(path, rec, live); !ok {
			return
		}
		if wrong := accept(c, rec, live); wrong != "" {
			c.differ(path, missing(fmt.Sprintf("%s (recorded %s)", wrong, show(rec))), live)
		}
	}
}
