package tui

import "strings"

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
	{keys: []string{"/"}, do: "filter", help: "filter (words or a regular expression, ! inverts, -f fuzzy)", foot: true},
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

// bound returns what a key means on a page, or nil.
func bound(page, key string) *binding {
	for i := range bindings {
		b := &bindings[i]
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
