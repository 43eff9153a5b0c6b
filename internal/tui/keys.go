package tui

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A binding is data: the footer, the help and the manual are made of it.
type binding struct {
	keys  []string // as bubbletea names them
	do    string   // what it means; see Model.act
	help  string
	on    string // pages that have it, separated by blanks; "" for all
	write bool   // changes something: off with --readonly
	foot  bool   // shown in the footer
}

// bindings are all keys, the most useful first.
var bindings = []binding{
	{keys: []string{"enter"}, do: "open", help: "open", foot: true, on: "cluster objects names streams types memory object events"},
	{keys: []string{"v"}, do: "value", help: "value", foot: true, on: "objects names object streams events"},
	{keys: []string{"a"}, do: "actions", help: "actions", foot: true, on: "objects names object streams events"},
	{keys: []string{"/"}, do: "filter", help: "filter (words, or a regular expression for a column, ! inverts, -f fuzzy)", foot: true},
	{keys: []string{":"}, do: "command", help: "go to a view, an id or a name", foot: true},
	{keys: []string{"?"}, do: "help", help: "help", foot: true},
	{keys: []string{"q"}, do: "quit", help: "quit", foot: true},
	{keys: []string{"esc", "backspace"}, do: "back", help: "stop loading, clear the filter or the marks, then back"},
	{keys: []string{"up", "k"}, do: "up", help: "up"},
	{keys: []string{"down", "j"}, do: "down", help: "down"},
	{keys: []string{"pgup", "ctrl+b"}, do: "pageup", help: "page up"},
	{keys: []string{"pgdown", "ctrl+f"}, do: "pagedown", help: "page down"},
	{keys: []string{"ctrl+u"}, do: "halfup", help: "half a page up"},
	{keys: []string{"ctrl+d"}, do: "halfdown", help: "half a page down"},
	{keys: []string{"home", "g"}, do: "first", help: "first"},
	{keys: []string{"end", "G"}, do: "last", help: "last"},
	{keys: []string{"left", "h"}, do: "left", help: "scroll columns left; collapse"},
	{keys: []string{"right", "l"}, do: "right", help: "scroll columns right; expand"},
	{keys: []string{"n"}, do: "next", help: "next line that matches"},
	{keys: []string{"N"}, do: "previous", help: "previous line that matches"},
	{keys: []string{"tab", "]"}, do: "nextview", help: "next view"},
	{keys: []string{"shift+tab", "["}, do: "previousview", help: "previous view"},
	{keys: []string{"1", "2", "3", "4", "5", "6", "7", "8"}, do: "view", help: "that view"},
	{keys: []string{"s"}, do: "sort", help: "sort by the next column"},
	{keys: []string{"S"}, do: "reverse", help: "reverse the order"},
	{keys: []string{"o"}, do: "columns", help: "choose columns", on: "cluster objects names streams clients types memory events"},
	{keys: []string{"t"}, do: "tree", help: "objects with their members below, or all in one list", on: "objects"},
	{keys: []string{"F"}, do: "group", help: "group by type, name, owner or state", on: "memory"},
	{keys: []string{"space"}, do: "mark", help: "mark", on: "objects names"},
	{keys: []string{"*"}, do: "markall", help: "mark all that the filter shows, or none", on: "objects names"},
	{keys: []string{"d"}, do: "describe", help: "describe", on: "objects names object streams events"},
	{keys: []string{"y"}, do: "raw", help: "metadata as JSON", on: "objects names object streams events"},
	{keys: []string{"x", "delete"}, do: "delete", help: "delete", write: true, on: "objects names object streams"},
	{keys: []string{"u"}, do: "unname", help: "drop the name", write: true, on: "names"},
	{keys: []string{"m"}, do: "migrate", help: "migrate", write: true, on: "objects names object"},
	{keys: []string{"e"}, do: "label", help: "label", write: true, on: "objects names object"},
	{keys: []string{"ctrl+s"}, do: "export", help: "save to a file", on: "objects names object"},
	{keys: []string{"c"}, do: "copyid", help: "copy the id", on: "objects names object streams events"},
	{keys: []string{"Y"}, do: "copycommand", help: "copy the command that shows this"},
	{keys: []string{"@"}, do: "log", help: "commands that were run"},
	{keys: []string{"r", "ctrl+r"}, do: "refresh", help: "load again"},
	{keys: []string{"w"}, do: "follow", help: "follow the newest, or stop", on: "events"},
	{keys: []string{"T"}, do: "theme", help: "next theme: dark, light, plain"},
	{keys: []string{"ctrl+z"}, do: "suspend", help: "suspend"},
	{keys: []string{"ctrl+l"}, do: "redraw", help: "draw again"},
	{keys: []string{"ctrl+c"}, do: "interrupt", help: "quit at once"},
}

// Binding is a line of the manual.
type Binding struct{ Keys, Help string }

// Bindings lists all keys for documentation.
func Bindings() []Binding {
	out := make([]Binding, len(bindings))
	for i, b := range bindings {
		out[i] = Binding{b.label(), b.help}
		if b.on != "" {
			out[i].Help += " (" + strings.ReplaceAll(b.on, " ", ", ") + ")"
		}
	}
	return out
}

func (b *binding) label() string {
	if b.do == "view" {
		return "1-8"
	}
	return strings.Join(b.keys, " ")
}

func (b *binding) has(page string) bool {
	return b.on == "" || strings.Contains(" "+b.on+" ", " "+page+" ")
}

// bind returns the bindings with other keys for some of what they mean. A key that
// meant something else loses that, unless nothing would be left of it. What is wrong
// with the changes it tells, and does without.
func bind(changes map[string][]string) (list []binding, wrong []string) {
	list = slices.Clone(bindings)
	tell := func(format string, args ...any) { wrong = append(wrong, "keys: "+fmt.Sprintf(format, args...)) }
	var changed []*binding
	for _, do := range slices.Sorted(maps.Keys(changes)) {
		at := slices.IndexFunc(list, func(b binding) bool { return b.do == do })
		if at < 0 || do == "view" || do == "interrupt" {
			tell("there is no %s to choose keys for", do)
			continue
		}
		list[at].keys = nil
		changed = append(changed, &list[at])
	}
	for _, b := range changed {
		for _, key := range changes[b.do] {
			switch other := holder(list, b, key); {
			case !isKey(key):
				tell("%q is no key", key)
			case other == nil:
				b.keys = append(b.keys, key)
			case len(other.keys) == 1 || other.do == "view" || changes[other.do] != nil:
				tell("%s means %s already, not %s", key, other.do, b.do)
			default:
				other.keys = slices.DeleteFunc(slices.Clone(other.keys), func(k string) bool { return k == key })
				b.keys = append(b.keys, key)
			}
		}
	}
	for _, b := range changed {
		if b.keys != nil {
			continue
		}
		usual := bindings[slices.IndexFunc(bindings, func(u binding) bool { return u.do == b.do })].keys
		for _, key := range usual {
			if holder(list, b, key) == nil {
				b.keys = append(b.keys, key)
			}
		}
		tell("%s gets none of %q and has %q", b.do, changes[b.do], b.keys)
	}
	return list, wrong
}

// holder returns what a key means where b could be meant, or nil.
func holder(list []binding, b *binding, key string) *binding {
	for i := range list {
		if other := &list[i]; other != b && slices.Contains(other.keys, key) && other.meets(b) {
			return other
		}
	}
	return nil
}

// isKey reports whether there is a key of this name.
func isKey(name string) bool {
	for {
		mod, rest, found := strings.Cut(name, "+")
		if !found || rest == "" || !slices.Contains([]string{"ctrl", "alt", "shift"}, mod) {
			break
		}
		name = rest
	}
	if utf8.RuneCountInString(name) == 1 {
		return !strings.ContainsAny(name, " \t\n")
	}
	n, err := strconv.Atoi(strings.TrimPrefix(name, "f"))
	return err == nil && name == "f"+strconv.Itoa(n) && n > 0 && n <= 63 || slices.Contains(strings.Fields(
		"enter space tab backspace delete insert esc up down left right home end pgup pgdown"), name)
}

// meets reports whether there is a page that has both.
func (b *binding) meets(other *binding) bool {
	return b.on == "" || other.on == "" || slices.ContainsFunc(strings.Fields(b.on), other.has)
}

// Keys returns the keys of everything that keys can be chosen for.
func Keys() map[string][]string {
	out := map[string][]string{}
	for _, b := range bindings {
		if b.do != "view" && b.do != "interrupt" {
			out[b.do] = slices.Clone(b.keys)
		}
	}
	return out
}

// keyOf is a key of something, to speak of it.
func (m *Model) keyOf(do string) string {
	for i := range m.bindings {
		if b := &m.bindings[i]; b.do == do && len(b.keys) > 0 {
			return b.keys[0]
		}
	}
	return "no key"
}

// bound returns what a key means on a page, or nil.
func (m *Model) bound(page, key string) *binding {
	for i := range m.bindings {
		b := &m.bindings[i]
		if !b.has(page) {
			continue
		}
		for _, k := range b.keys {
			if k == key {
				return b
			}
		}
	}
	return nil
}
