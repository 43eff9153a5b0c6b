package replay

import (
	"fmt"
	"net"
	"regexp"
	"strings"
)

// The tables below name every field whose value may differ between two runs.
// A field that stands in none of them must be equal. They are chosen by place:
// a field of a reply, of a payload in it, of a metadata tree, and so on.

// replyField returns the rule of a top-level field of a reply.
func (c *comparison) replyField(key string) rule {
	if isIndex(key) {
		return payload
	}
	if r, ok := replyFields[key]; ok {
		return r
	}
	return equal
}

var replyFields = map[string]rule{
	"id":           idNumber,
	"object_id":    idNumber,
	"target_id":    idNumber,
	"chunk":        idNumber,
	"signature":    idNumber,
	"session_id":   idNumber,
	"ids":          each(idNumber),
	"signatures":   each(idNumber),
	"deleted_bids": each(idNumber),
	"instance_id":  instance,
	"instance_ids": each(instance),

	"created":  payload,
	"buffer":   payload,
	"payloads": each(payload),

	// Which descriptors were passed is checked against the payloads, as a
	// client does (descriptors.go); here only that the fields are alike.
	"fd":   descriptor,
	"fds":  each(descriptor),
	"base": address,

	"content": contentByID,
	"names":   namesToID,
	"meta":    statusOrCluster,

	"message":      anyText,
	"version":      versionText,
	"ipc_socket":   socketPath,
	"socket_path":  socketPath,
	"rpc_endpoint": endpoint,
	"key":          lockKey,
}

// payloadFields are the fields of a blob's description; its sizes and flags
// are equal in every run.
var payloadFields = map[string]rule{
	"object_id":   idNumber,
	"store_fd":    descriptor,
	"data_offset": offset,
	"map_size":    mapSize,
	"pointer":     address,
}

// treeFields are the fields that the daemon puts into a metadata tree.
var treeFields = map[string]rule{
	"id":          idText,
	"signature":   idNumber,
	"instance_id": instance,
	"__timestamp": positive,
}

var statusFields = map[string]rule{
	"instance_id":       instance,
	"memory_usage":      usage,
	"deferred_requests": counter("deferred_requests"),
	"ipc_connections":   counter("ipc_connections"),
	"rpc_connections":   counter("rpc_connections"),
}

var clusterFields = map[string]rule{
	"hostid":       positive,
	"hostname":     anyText,
	"nodename":     anyText,
	"ipc_socket":   anyText,
	"rpc_endpoint": endpoint,
	"timestamp":    positive,
	"member_id":    anyText,
}

// fields compares an object by a table.
func fields(table map[string]rule) rule {
	return func(c *comparison, path string, rec, live any) {
		c.object(path, rec, live, func(key string) rule {
			if r, ok := table[key]; ok {
				return r
			}
			return equal
		})
	}
}

var payload = fields(payloadFields)

// idNumber: the live id is the one that the recorded id was before, or a new
// one for a new one.
func idNumber(c *comparison, path string, rec, live any) {
	c.pairID(path, rec, live, asUint)
}

// idText is idNumber for the text form.
func idText(c *comparison, path string, rec, live any) {
	c.pairID(path, rec, live, func(v any) (uint64, bool) {
		s, _ := v.(string)
		return parseObjectText(s)
	})
}

func (c *comparison) pairID(path string, rec, live any, parse func(any) (uint64, bool)) {
	r, okR := parse(rec)
	l, okL := parse(live)
	switch {
	case !okR:
		equal(c, path, rec, live)
	case !okL:
		c.differ(path, missing("an id like "+show(rec)), live)
	default:
		if err := c.names.ids.bind(r, l); err != nil {
			c.differ(path, rec, err)
		} else if r>>63 != l>>63 {
			c.differ(path, missing("bit 63 as in "+show(rec)), live)
		}
	}
}

func instance(c *comparison, path string, rec, live any) {
	r, okR := asUint(rec)
	l, okL := asUint(live)
	if !okR || !okL {
		equal(c, path, rec, live)
		return
	}
	if err := c.names.instances.bind(r, l); err != nil {
		c.differ(path, rec, err)
	}
}

// descriptor: -1 stays -1, and every other number is positive.
var descriptor = shaped(func(_ *comparison, rec, live any) string {
	r, okR := asInt(rec)
	l, okL := asInt(live)
	switch {
	case !okR || !okL:
		return "a descriptor number"
	case r < 0 && l != r, r >= 0 && (l <= 0 || l > 1<<31-1):
		return "a descriptor number of the same sign"
	}
	return ""
})

// offset: 0 stays 0; every other one keeps clear of the first 64 bytes and of
// its neighbours' cache lines.
var offset = shaped(func(_ *comparison, rec, live any) string {
	r, okR := asInt(rec)
	l, okL := asInt(live)
	switch {
	case !okR || !okL:
		return "an offset"
	case r == 0 && l != 0:
		return "offset 0"
	case r != 0 && (l < 64 || l%64 != 0):
		return "a positive multiple of 64"
	}
	return ""
})

// mapSize: 0 stays 0. Its bounds are checked with the descriptor.
var mapSize = shaped(func(_ *comparison, rec, live any) string {
	r, okR := asInt(rec)
	l, okL := asInt(live)
	if !okR || !okL || (r == 0) != (l == 0) || l < 0 {
		return "a length, zero or not as recorded"
	}
	return ""
})

// address: an address of the daemon's; 0 is as good as any other.
var address = shaped(func(_ *comparison, rec, live any) string {
	r, okR := asInt(rec)
	l, okL := asInt(live)
	if !okR || !okL || l < 0 || r == 0 && l != 0 {
		return "an address below 2^63, 0 if recorded so"
	}
	return ""
})

var positive = shaped(func(_ *comparison, _, live any) string {
	if n, ok := asUint(live); !ok || n == 0 {
		return "a positive number"
	}
	return ""
})

// usage: what earlier recordings left is not there in a fresh daemon.
var usage = shaped(func(c *comparison, rec, live any) string {
	r, okR := asInt(rec)
	l, okL := asInt(live)
	if !okR || !okL || l != r-c.usage {
		return fmt.Sprintf("%d bytes", r-c.usage)
	}
	return ""
})

// counter: the number of connections or parked requests that the replay has.
func counter(name string) rule {
	return shaped(func(c *comparison, _, live any) string {
		l, ok := asUint(live)
		if !ok {
			return "a count"
		}
		if want, known := c.counts[name]; known && l != want {
			return fmt.Sprintf("%d, as the replay holds", want)
		}
		return ""
	})
}

func anyText(c *comparison, path string, rec, live any) { c.sameKind(path, rec, live) }

var versionPattern = regexp.MustCompile(`^\d+\.\d+\.\d+$`)

var versionText = shaped(func(_ *comparison, _, live any) string {
	if s, _ := live.(string); !versionPattern.MatchString(s) {
		return "MAJOR.MINOR.PATCH"
	}
	return ""
})

var sessionSuffix = regexp.MustCompile(`^\.S[0-9a-f]{16}$`)

// socketPath: the daemon's socket, or <socket>.S<16 hex> for a session's.
var socketPath = shaped(func(c *comparison, rec, live any) string {
	r, l := rec.(string), live.(string)
	if isSession(r) {
		suffix, ok := strings.CutPrefix(l, c.root)
		if !ok || !sessionSuffix.MatchString(suffix) {
			return c.root + ".S<16 hex>"
		}
		if err := c.names.ids.bind(sessionOf(r), sessionOf(l)); err != nil {
			return err.Error()
		}
	} else if l != c.root {
		return c.root
	}
	if err := c.names.texts.bind(r, l); err != nil {
		return err.Error()
	}
	return ""
})

// isSession tells a session's recorded socket from the daemon's.
func isSession(socket string) bool {
	return len(socket) > 18 && sessionSuffix.MatchString(socket[len(socket)-18:])
}

// sessionOf returns the id in a session's socket path.
func sessionOf(socket string) uint64 {
	id, _ := parseObjectText("o" + socket[len(socket)-16:])
	return id
}

// endpoint: "0.0.0.0:0" stays, everything else is host:port of the daemon.
var endpoint = shaped(func(c *comparison, rec, live any) string {
	const off = "0.0.0.0:0"
	if rec == off {
		if live != off {
			return off
		}
		return ""
	}
	host, port, err := net.SplitHostPort(live.(string))
	if err != nil || host == "" || strings.Contains(host, ":") || port == "0" || c.rpcPort != "" && port != c.rpcPort {
		return "host:port of the daemon"
	}
	return ""
})

// lockKey: the key asked for, a slash, and the holder's number in hex.
var lockKey = shaped(func(c *comparison, rec, live any) string {
	r, l := rec.(string), live.(string)
	asked := r[:strings.LastIndexByte(r, '/')+1]
	if holder, ok := strings.CutPrefix(l, asked); !ok || strings.Trim(holder, "0123456789abcdef") != "" {
		return asked + "<hex>"
	}
	if err := c.names.texts.bind(r, l); err != nil {
		return err.Error()
	}
	return ""
})
