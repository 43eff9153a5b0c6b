package tui

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	tea "charm.land/bubbletea/v2"
)

// action is something that can be done to subjects: a command line of v6d, which
// may need one word from the user.
type action struct {
	key    string
	name   string
	asks   string             // what to type; "" for nothing
	hint   string             // an example of it
	many   bool               // on several subjects at once
	fits   func(subject) bool // nil: on everything but streams
	args   func(s subject, word string) []string
	try    string                   // flag with which the command tells what it would do; "" for none
	check  func(word string) string // what else to say before it is done; may be nil
	reads  bool                     // changes nothing in the daemon: allowed with --readonly
	danger bool                     // what it does cannot be undone
}

func isObject(s subject) bool { return !s.stream && !s.id.IsBlob() }

// typedLabels splits what the user typed: the value of a single label may have blanks.
func typedLabels(text string) []string {
	if strings.Count(text, "=") == 1 {
		return []string{text}
	}
	return strings.Fields(text)
}

var actions = []action{
	{
		key: "x", name: "delete", many: true, danger: true, fits: func(s subject) bool { return !s.stream },
		args: func(s subject, _ string) []string { return []string{"rm", s.arg()} },
	},
	{
		key: "X", name: "delete with what refers to it", many: true, danger: true, fits: isObject, try: "--dry-run",
		args: func(s subject, _ string) []string { return []string{"rm", "--force", s.arg()} },
	},
	{
		key: "n", name: "name", asks: "name", hint: "sales", fits: isObject,
		args: func(s subject, w string) []string { return []string{"name", "set", s.arg(), w} },
	},
	{
		key: "u", name: "drop the name", fits: func(s subject) bool { return isObject(s) && s.name != "" }, danger: true,
		args: func(s subject, _ string) []string {
			if strings.HasPrefix(s.name, "-") {
				return []string{"name", "rm", "--", s.name}
			}
			return []string{"name", "rm", s.name}
		},
	},
	{
		key: "e", name: "label", asks: "labels", hint: "stage=raw owner=me", many: true, fits: isObject,
		args: func(s subject, w string) []string { return append([]string{"label", s.arg()}, typedLabels(w)...) },
	},
	{
		key: "p", name: "persist", many: true, fits: isObject,
		args: func(s subject, _ string) []string { return []string{"persist", s.arg()} },
	},
	{
		key: "m", name: "migrate", asks: "to instance", hint: "i1", many: true, fits: isObject,
		args: func(s subject, w string) []string { return []string{"migrate", s.arg(), "--to", w} },
	},
	{
		key: "s", name: "save to a file", asks: "file", hint: "data.parquet", fits: func(s subject) bool { return !s.stream }, reads: true,
		args:  func(s subject, w string) []string { return []string{"get", s.arg(), fromHome(w)} },
		check: replaces,
	},
	{
		key: "S", name: "stop the stream", fits: func(s subject) bool { return s.stream }, danger: true,
		args: func(s subject, _ string) []string { return []string{"stream", "stop", s.arg()} },
	},
	{
		key: "A", name: "abort the stream", fits: func(s subject) bool { return s.stream }, danger: true,
		args: func(s subject, _ string) []string { return []string{"stream", "abort", s.arg()} },
	},
	{
		key: "R", name: "remove the stream", fits: func(s subject) bool { return s.stream }, danger: true,
		args: func(s subject, _ string) []string { return []string{"stream", "rm", s.arg()} },
	},
}

// actionNamed finds the action that a key of a page means.
func actionNamed(name string) *action {
	for i := range actions {
		if actions[i].name == name {
			return &actions[i]
		}
	}
	return nil
}

// possible lists what can be done to all of the subjects.
func (m *Model) possible(list []subject) (out []*action) {
	for i := range actions {
		a := &actions[i]
		ok := len(list) > 0 && (len(list) == 1 || a.many) && (a.reads || !m.opts.ReadOnly)
		for _, s := range list {
			ok = ok && (a.fits == nil || a.fits(s))
		}
		if ok {
			out = append(out, a)
		}
	}
	return out
}

// begin asks what is to be asked for an action, and at last whether to do it.
func (m *Model) begin(a *action, list []subject) tea.Cmd {
	if len(list) == 0 {
		return m.say("nothing is selected")
	}
	if m.opts.ReadOnly && !a.reads {
		return m.say("--readonly: nothing can be changed")
	}
	for _, s := range list {
		if a.fits != nil && !a.fits(s) {
			return m.say("cannot " + a.name + " " + s.title())
		}
	}
	if len(list) > 1 && !a.many {
		return m.say(a.name + " works on one object at a time")
	}
	if a.try != "" {
		return m.tryFirst(a, list)
	}
	if a.asks == "" {
		m.askFor(a, list, "", "")
		return nil
	}
	m.input(input{
		title: strings.ToUpper(a.name[:1]) + a.name[1:], label: a.asks, hint: a.hint, about: about(list),
		preview: func(word string) string { return commandLine(a.args(list[0], word)) },
		submit: func(m *Model, word string) tea.Cmd {
			if strings.TrimSpace(word) == "" {
				return m.say(a.asks + ": nothing was typed")
			}
			word = strings.TrimSpace(word)
			if a.check == nil {
				m.askFor(a, list, word, "")
				return nil
			}
			page := m.page().state().id
			return func() tea.Msg { return triedMsg{page: page, a: a, list: list, word: word, more: a.check(word)} }
		},
	})
	return nil
}

// about tells which subjects a question is about.
func about(list []subject) string {
	if len(list) == 1 {
		return list[0].title()
	}
	var bytes int64
	hidden := 0
	for i := range list {
		bytes += list[i].bytes
		if list[i].hidden {
			hidden++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d objects", len(list))
	if bytes > 0 {
		b.WriteString(", " + size(bytes))
	}
	if hidden > 0 {
		fmt.Fprintf(&b, "; the filter hides %d of them", hidden)
	}
	const most = 8
	for i := range list {
		if i == most {
			fmt.Fprintf(&b, "\nand %d more", len(list)-most)
			break
		}
		b.WriteString("\n" + list[i].title())
	}
	return b.String()
}

// askFor shows the commands of an action, and runs them when the answer is yes.
// More than one deletion wants the number typed.
// more is what else there is to say.
func (m *Model) askFor(a *action, list []subject, word, more string) {
	var lines [][]string
	for _, s := range list {
		lines = append(lines, a.args(s, word))
	}
	c := confirm{
		title: strings.ToUpper(a.name[:1]) + a.name[1:] + "?", text: about(list), command: commandLine(lines[0]), danger: a.danger,
		yes: func(m *Model) tea.Cmd { return m.run(lines) },
	}
	n := len(lines)
	if n > 1 {
		c.command += fmt.Sprintf("   and %d more", n-1)
	}
	if more != "" {
		c.text += "\n" + more
		c.danger = true
		n += strings.Count(more, "\n") + 1
	}
	if n > 1 && a.danger { // not a file that is replaced
		c.typed = fmt.Sprint(n)
	}
	m.confirm(c)
}

// triedMsg is what an action would do beside what was asked for.
type triedMsg struct {
	page int // that it was asked on
	a    *action
	list []subject
	word string
	more string
	err  error
}

// fromHome does what shells do with ~.
func fromHome(path string) string {
	rest, ok := strings.CutPrefix(path, "~/")
	home, err := os.UserHomeDir()
	if !ok || err != nil {
		return path
	}
	return filepath.Join(home, rest)
}

// replaces tells of a file that a new one would replace.
func replaces(path string) string {
	path = fromHome(path)
	st, err := os.Stat(path)
	if err != nil {
		return "" // the command says what is wrong with it
	}
	if st.IsDir() {
		return path + " is a folder"
	}
	return path + " is there, " + size(st.Size()) + ": it is replaced"
}

// tryFirst has the commands of an action tell what they would do, before the question.
func (m *Model) tryFirst(a *action, list []subject) tea.Cmd {
	src, ctx, page := m.src, m.ctx, m.page().state().id
	return tea.Batch(m.say("asking what that would do"), func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		var more []string
		for _, s := range list {
			out, err := src.Run(ctx, append(a.args(s, ""), a.try)...)
			if err != nil {
				return triedMsg{page: page, a: a, list: list, err: overdue(err, patience)}
			}
			for line := range strings.Lines(out) {
				own := slices.ContainsFunc(list, func(s subject) bool { return strings.Contains(line, s.id.String()) })
				if line = clean(strings.TrimSpace(line)); !own && line != "" && !slices.Contains(more, line) {
					more = append(more, line)
				}
			}
		}
		return triedMsg{page: page, a: a, list: list, more: strings.Join(more, "\n")}
	})
}

// tried asks whether to do it, unless the user has gone elsewhere since.
func (m *Model) tried(msg triedMsg) tea.Cmd {
	switch {
	case msg.page != m.page().state().id || m.asks():
		return nil
	case msg.err != nil:
		m.dialog = &message{"It did not work", m.errorText(msg.err), commandLine(msg.a.args(msg.list[0], ""))}
		return nil
	}
	m.askFor(msg.a, msg.list, msg.word, msg.more)
	return nil
}

// special reports characters that a shell takes for something else.
func special(r rune) bool {
	return r <= ' ' || r == 0x7f || strings.ContainsRune("'\"\\$&|;<>*?()[]{}!^#~`", r) || unicode.IsSpace(r)
}

// commandLine writes a command as one would type it.
func commandLine(args []string) string {
	out := []string{"v6d"}
	for _, a := range args {
		if a == "" || strings.ContainsFunc(a, special) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out = append(out, a)
	}
	return clean(strings.Join(out, " "))
}
