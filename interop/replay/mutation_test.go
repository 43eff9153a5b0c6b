package replay

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// A mutant is a reply with one thing wrong.
type mutant struct {
	class string // what kind of thing
	what  string // where
	reply
}

// TestMutants changes one thing at a time in every recorded reply and in every
// answer of a deviation: each change must be seen as a difference. This is
// what a green replay is worth.
func TestMutants(t *testing.T) {
	counts, replies, survivors := map[string]int{}, 0, 0
	files, err := Recordings()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		p, err := newPlayer(file, Target{}, true)
		if err != nil {
			t.Fatal(err)
		}
		clients := map[string]*client{}
		for _, l := range p.lines {
			c := clients[l.Conn]
			if c == nil {
				c = &client{rpc: l.T == "rpc", delivered: map[int64]bool{}}
				if strings.HasPrefix(strings.TrimPrefix(l.Conn, "r"), "b") {
					c.ownID = 1
				}
				clients[l.Conn] = c
			}
			if l.request() {
				c.request = p.names.localize(l.message())
			}
			d, deviates := p.deviations[l.n]
			if deviates {
				replies++
				survivors += huntMutants(t, p, l, c, reply{d.Answer, l.NFDs}, counts)
			}
			if l.reply() {
				replies++
				survivors += huntMutants(t, p, l, c, reply{l.JSON, l.NFDs}, counts)
				follow, _ := announced(l.message(), c.delivered, c.remote())
				for _, m := range follow {
					c.delivered[m.fd] = true
				}
			}
		}
	}
	total := 0
	for _, class := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%6d %s", counts[class], class)
		total += counts[class]
	}
	t.Logf("%6d mutants of %d replies, %d caught", total, replies, total-survivors)
}

// huntMutants compares a reply with itself, which must be right, and with its
// mutants, which must not. It returns how many mutants went unseen.
func huntMutants(t *testing.T, p *player, l *line, c *client, recorded reply, counts map[string]int) (survivors int) {
	t.Helper()
	against := func(m reply) ([]string, *names) {
		x := p.exchange(c)
		x.root, x.usage, x.counts = rootOf(l), 0, nil
		x = x.probe()
		message, _ := m.value.(map[string]any)
		_, wrong := announced(message, c.delivered, c.remote())
		return append(wrong, compare(x, recorded, m)...), x.names
	}
	diffs, after := against(recorded)
	if len(diffs) > 0 {
		t.Errorf("%s: the reply differs from itself: %s", l.at(), diffs)
	}
	for _, m := range mutants(recorded) {
		counts[m.class]++
		if diffs, _ := against(m.reply); len(diffs) == 0 {
			survivors++
			t.Errorf("%s: %s of %s survives: %s", l.at(), m.class, m.what, show(m.value))
		}
	}
	p.names = after
	return survivors
}

// rootOf returns the daemon's socket in a recorded reply.
func rootOf(l *line) string {
	for _, key := range []string{"ipc_socket", "socket_path"} {
		if s, ok := l.message()[key].(string); ok {
			if isSession(s) {
				return s[:len(s)-18]
			}
			return s
		}
	}
	return ""
}

// mutants returns every reply that differs from r in one thing.
func mutants(r reply) []mutant {
	var list []mutant
	add := func(class, what string, value any, fds int) {
		list = append(list, mutant{class, what, reply{value, fds}})
	}
	message := r.value.(map[string]any)
	if code, ok := asInt(message["code"]); ok {
		add("code", "code", with(message, "code", number(uint64(code+1))), r.fds)
		add("error to success", "reply", map[string]any{"type": "exists_reply"}, r.fds)
	} else {
		add("type name", "type", with(message, "type", fmt.Sprint(message["type"], "_")), r.fds)
		add("success to error", "reply", map[string]any{"code": json.Number("1"), "message": ""}, 0)
	}
	add("descriptor count", "nfds", r.value, r.fds+1)
	if r.fds > 0 {
		add("descriptor count", "nfds", r.value, r.fds-1)
	}
	mutateValue("", r.value, func(class, what string, v any) { add(class, what, v, r.fds) })
	return list
}

// mutateValue yields v with one change in it or below it.
func mutateValue(at string, v any, yield func(class, what string, v any)) {
	for _, other := range otherTypes(v) {
		yield("JSON type", at, other)
	}
	switch v := v.(type) {
	case bool:
		yield("boolean", at, !v)
	case []any:
		if len(v) > 0 {
			yield("list length", at, v[:len(v)-1])
		}
		yield("list length", at, append(slices.Clone(v), json.Number("1")))
		for i, e := range v {
			mutateValue(fmt.Sprintf("%s[%d]", at, i), e, func(class, what string, changed any) {
				list := slices.Clone(v)
				list[i] = changed
				yield(class, what, list)
			})
		}
	case map[string]any:
		yield("key added", at, with(v, "extra", json.Number("1")))
		for key, e := range v {
			without := maps.Clone(v)
			delete(without, key)
			if !optional(at, key) {
				yield("key removed", join(at, key), without)
			}
			yield("key renamed", join(at, key), with(without, key+"_", e))
			mutateValue(join(at, key), e, func(class, what string, changed any) {
				yield(class, what, with(v, key, changed))
			})
		}
	}
}

// optional tells what one daemon without etcd need not have in cluster_meta.
func optional(at, key string) bool {
	return key == "member_id" || at == "meta" && instanceKey.MatchString(key) && key != "i0"
}

// otherTypes returns values of other JSON types that look as much like v as
// they can.
func otherTypes(v any) []any {
	switch v := v.(type) {
	case nil:
		return []any{false, map[string]any{}}
	case bool:
		return []any{fmt.Sprint(v), json.Number("1"), nil}
	case string:
		return []any{json.Number("1"), nil, []any{v}}
	case json.Number:
		float := v + ".5"
		if kind(v) == "float" {
			float = "1"
		}
		return []any{string(v), nil, false, float}
	case []any:
		return []any{map[string]any{}, nil}
	default:
		return []any{[]any{v}, nil}
	}
}

// with returns a copy of m in which key is v.
func with(m map[string]any, key string, v any) map[string]any {
	m = maps.Clone(m)
	m[key] = v
	return m
}
