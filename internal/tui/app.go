package tui

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"github.com/v6d-go/v6d/client"
)

// Options says how the browser starts.
type Options struct {
	ReadOnly bool   // no action that changes anything
	Theme    string // dark, light or plain; "" is what the terminal says
	View     string // the first view; "" is objects
	NoMouse  bool
	Columns  map[string][]string // by view, in their order; the usual ones of others
	Keys     map[string][]string // by what they mean; the usual ones of others
	Notes    []string            // said when it starts

	Input  io.Reader // tests; nil for the terminal
	Output io.Writer
}

// watchState is how the browser learns of changes.
type watchState int

const (
	watchStarting watchState = iota
	watchLive
	watchBroken // the connection was lost; it is tried again
	watchNone   // this daemon has no events: pages are loaded again now and then
)

// Model is the state of the browser.
type Model struct {
	ctx   context.Context //nolint:containedctx // bubbletea's commands have none
	src   Source
	opts  Options
	theme theme

	bindings []binding
	columns  map[string][]string // chosen ones, by view

	fixed bool // the theme was chosen
	lay   layout
	now   func() time.Time

	stack  []page
	lastID int
	dialog dialog
	prompt *prompt

	over    Overview
	overErr error
	known   bool // an overview has come
	asking  bool
	asked   time.Time

	watching watchState
	watchGen int
	events   []eventRow
	told     int    // events, ever
	since    uint64 // cursor from which on they are collected
	recalled bool   // events has those before it, too
	pending  map[client.ID]bool
	lost     bool // everything may have changed
	flushing bool
	looking  int // questions about changed objects under way

	log     []string
	toast   string
	toastN  int
	running int
	ticks   int
}

// New returns a browser over a source.
func New(ctx context.Context, src Source, o Options) *Model {
	m := &Model{ctx: ctx, src: src, opts: o, now: time.Now, pending: map[client.ID]bool{}}
	m.bindings, _ = bind(o.Keys)
	m.columns = maps.Clone(o.Columns)
	m.theme, m.fixed = newTheme("dark"), o.Theme != ""
	if m.fixed {
		m.theme = newTheme(o.Theme)
	}
	m.lay = newLayout(80, 24)
	first := 1
	for i, v := range views {
		if v.name == o.View {
			first = i
		}
	}
	m.stack = []page{m.adopt(views[first].make(m))}
	return m
}

// Themes lists the names for Options.
func Themes() []string { return slices.Clone(themeNames) }

// Views lists the names for Options.
func Views() (names []string) {
	for _, v := range views {
		names = append(names, v.name)
	}
	return names
}

// Check returns what is wrong with the options, and is done without.
func (o *Options) Check() (wrong []string) {
	if o.Theme != "" && !slices.Contains(themeNames, o.Theme) {
		wrong = append(wrong, "theme: "+o.Theme+" is none of "+strings.Join(themeNames, ", "))
		o.Theme = ""
	}
	if o.View != "" && !slices.Contains(Views(), o.View) {
		wrong = append(wrong, "view: "+o.View+" is none of "+strings.Join(Views(), ", "))
		o.View = ""
	}
	_, badKeys := bind(o.Keys)
	all := Columns()
	for _, view := range slices.Sorted(maps.Keys(o.Columns)) {
		if all[view] == nil {
			wrong = append(wrong, "columns: "+view+" is no view")
			continue
		}
		for _, name := range o.Columns[view] {
			if !slices.Contains(all[view], name) {
				wrong = append(wrong, "columns: "+view+" has no "+name+", but "+strings.Join(all[view], ", "))
			}
		}
	}
	return append(wrong, badKeys...)
}

// Run shows the browser on the terminal until the user leaves it, or ctx ends.
func Run(ctx context.Context, src Source, o Options) error {
	options := []tea.ProgramOption{tea.WithContext(ctx), tea.WithoutSignalHandler(), tea.WithFPS(120)} // a signal ends ctx; a key waits for the next frame
	if o.Input != nil {
		options = append(options, tea.WithInput(o.Input), tea.WithOutput(o.Output))
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel() // ends what commands still wait for
	_, err := tea.NewProgram(New(inner, src, o), options...).Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// adopt gives a page its number.
func (m *Model) adopt(p page) page {
	m.lastID++
	p.state().id = m.lastID
	if t, ok := p.(tabular); ok && len(m.columns[p.kind()]) > 0 {
		t.showColumns(m.columns[p.kind()])
	}
	return p
}

func (m *Model) page() page { return m.stack[len(m.stack)-1] }

// push opens a page.
func (m *Model) push(p page) tea.Cmd {
	m.stack = append(m.stack, m.adopt(p))
	return m.page().load(m)
}

// pop goes back to the page before.
func (m *Model) pop() tea.Cmd {
	if len(m.stack) == 1 {
		return nil
	}
	m.page().state().stop()
	m.stack = m.stack[:len(m.stack)-1]
	return m.freshen()
}

// freshen loads the page that is looked at again, if it may have changed.
func (m *Model) freshen() tea.Cmd {
	st := m.page().state()
	if !st.busy && !st.halted && (st.stale || !st.done && st.err == nil) {
		return m.page().load(m)
	}
	return nil
}

// show replaces the stack by a view.
func (m *Model) show(i int) tea.Cmd {
	for _, p := range m.stack {
		p.state().stop()
	}
	m.stack = m.stack[:0]
	return m.push(views[i].make(m))
}

// Init implements tea.Model.
func (m *Model) Init() tea.Cmd {
	cmds := []tea.Cmd{m.page().load(m), m.overview(), m.watch(0), later(time.Second, tickMsg{}), tea.RequestBackgroundColor}
	if len(m.opts.Notes) > 0 {
		cmds = append(cmds, m.say(strings.Join(m.opts.Notes, "; ")))
	}
	return tea.Batch(cmds...)
}

// Update implements tea.Model.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) { return m, m.update(msg) }

func (m *Model) update(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.lay = newLayout(msg.Width, msg.Height)
	case tea.BackgroundColorMsg:
		if !m.fixed && m.theme.name != "plain" && !msg.IsDark() {
			m.theme = newTheme("light")
		}
	case tea.ColorProfileMsg:
		if !m.fixed && msg.Profile <= colorprofile.ASCII {
			m.theme = newTheme("plain")
		}
	case tea.KeyPressMsg:
		return m.key(msg)
	case tea.PasteMsg:
		return m.pass(tea.PasteMsg{Content: typable(msg.Content)})
	case tea.MouseClickMsg:
		m.click(msg.Mouse())
	case tea.MouseWheelMsg:
		return m.wheel(msg.Mouse())
	case answer:
		for _, p := range m.stack {
			if p.state().id == msg.page {
				return p.receive(m, msg)
			}
		}
	case overviewMsg:
		return m.gotOverview(msg)
	case eventsMsg:
		return m.gotEvents(msg)
	case flushMsg:
		return m.flush()
	case changesMsg:
		return m.gotChanges(msg)
	case againMsg:
		if msg.gen == m.watchGen && m.watching == watchBroken {
			return m.watch(0)
		}
	case tickMsg:
		return m.tick()
	case ranMsg:
		return m.ran(msg)
	case foundMsg:
		return m.found(msg)
	case namesMsg:
		msg.p.names = msg.names
	case triedMsg:
		return m.tried(msg)
	case toastMsg:
		if msg.n == m.toastN {
			m.toast = ""
		}
	default:
		return m.pass(msg)
	}
	return nil
}

// pass hands a message to whoever types.
func (m *Model) pass(msg tea.Msg) tea.Cmd {
	switch {
	case m.dialog != nil:
		return m.dialog.update(m, msg)
	case m.prompt != nil:
		return m.prompt.update(m, msg)
	}
	return nil
}

// say shows a line at the bottom for some seconds.
func (m *Model) say(text string) tea.Cmd {
	m.toast = clean(text)
	m.toastN++
	return later(5*time.Second, toastMsg{m.toastN})
}

// tick runs once a second: it asks again for what is not told of.
func (m *Model) tick() tea.Cmd {
	m.ticks++
	cmds := []tea.Cmd{later(time.Second, tickMsg{})}
	if m.now().Sub(m.asked) >= 2*time.Second {
		m.asked = m.now()
		cmds = append(cmds, m.overview())
	}
	st := m.page().state()
	every := st.poll
	if every == 0 && m.watching == watchNone {
		every = 3 * time.Second
	}
	if m.overErr == nil && !st.busy && !st.halted && (every > 0 && m.now().Sub(st.polled) >= every || st.stale) {
		cmds = append(cmds, m.page().load(m))
	}
	return tea.Batch(cmds...)
}

func (m *Model) gotOverview(msg overviewMsg) tea.Cmd {
	m.asking = false
	failed := m.overErr != nil
	if m.overErr = msg.err; msg.err != nil {
		return nil
	}
	m.over, m.known = msg.over, true
	if !failed {
		return nil
	}
	m.outdate()
	cmds := []tea.Cmd{m.page().load(m), m.say("the daemon answers again")}
	if m.watching == watchNone { // it may be another one
		m.watching = watchBroken
		m.watchGen++
		cmds = append(cmds, m.watch(0))
	}
	return tea.Batch(cmds...)
}

// outdate notes that everything may have changed.
func (m *Model) outdate() {
	for _, p := range m.stack {
		p.state().stale = true
	}
}

func (m *Model) gotEvents(msg eventsMsg) tea.Cmd {
	if msg.gen != m.watchGen {
		return nil
	}
	if msg.err != nil {
		if unwatchable(msg.err) {
			m.watching = watchNone
			return nil
		}
		if m.ctx.Err() != nil {
			return nil
		}
		m.watching = watchBroken
		return later(time.Second, againMsg{m.watchGen})
	}
	cmds := []tea.Cmd{m.watch(msg.cursor)}
	if m.watching != watchLive { // what happened before was not told
		m.watching, m.since = watchLive, msg.cursor
		m.outdate()
		cmds = append(cmds, m.freshen())
	}
	for _, e := range msg.events {
		m.told++
		m.events = append(m.events, eventRow{e, m.told})
		m.pending[e.ID] = true
	}
	if n := len(m.events) - mostEvents; n > mostEvents/10 {
		m.events = slices.Clone(m.events[n:])
	}
	m.lost = m.lost || msg.lost
	if (len(m.pending) > 0 || m.lost) && !m.flushing {
		m.flushing = true
		cmds = append(cmds, later(150*time.Millisecond, flushMsg{}))
	}
	return tea.Batch(cmds...)
}

// recall puts events of before to those that were collected. Their numbers grow, also
// from one daemon to the next.
func (m *Model) recall(past []client.Event) {
	m.recalled = true
	have := map[uint64]bool{}
	for i := range m.events {
		have[m.events[i].Seq] = true
	}
	past = slices.DeleteFunc(past, func(e client.Event) bool { return have[e.Seq] })
	past = past[max(len(past)-mostEvents, 0):]
	all := make([]eventRow, 0, len(past)+len(m.events))
	for i, e := range past {
		all = append(all, eventRow{e, i - len(past)})
	}
	all = append(all, m.events...)
	slices.SortStableFunc(all, func(a, b eventRow) int { return cmp.Compare(a.Seq, b.Seq) })
	m.events = all
}

// mostLooked is how many objects are asked for one by one; of more everything is
// loaded again.
const mostLooked = 1000

// flush shows what events have changed. Objects are asked about by one question at
// a time: an older answer must not come after a newer one.
func (m *Model) flush() tea.Cmd {
	if m.looking > 0 {
		return later(150*time.Millisecond, flushMsg{})
	}
	m.flushing = false
	changed, all := m.pending, m.lost || len(m.pending) > mostLooked
	m.pending, m.lost = map[client.ID]bool{}, false
	var cmds []tea.Cmd
	for _, p := range m.stack {
		st := p.state()
		switch x := p.(type) {
		case *objectsPage:
			if all || st.busy || !st.done {
				st.stale = true
				break
			}
			ids := make([]client.ID, 0, len(changed))
			for id := range changed {
				ids = append(ids, id)
			}
			slices.Sort(ids)
			cmds = append(cmds, m.look(st, ids))
		case *objectPage:
			st.stale = st.stale || all || x.shows(changed)
		case *valuePage: // does not change, but may go
			st.stale = st.stale || all || changed[x.object]
		case *eventsPage:
			x.collect(m)
		default:
			st.stale = true
		}
	}
	if m.now().Sub(m.page().state().polled) >= time.Second { // tick does it otherwise
		cmds = append(cmds, m.freshen())
	}
	return tea.Batch(cmds...)
}

func (m *Model) gotChanges(msg changesMsg) tea.Cmd {
	m.looking--
	for _, p := range m.stack {
		st := p.state()
		if st.id != msg.page {
			continue
		}
		if msg.err != nil || msg.gen != st.gen { // or it was loaded meanwhile: which is newer?
			st.stale = true
			return nil
		}
		return p.receive(m, answer{page: st.id, gen: st.gen, data: msg.change})
	}
	return nil
}

// ran says how commands ended.
func (m *Model) ran(msg ranMsg) tea.Cmd {
	m.running--
	last := msg.commands[len(msg.commands)-1]
	if msg.err != nil {
		m.log = append(m.log, "          failed: "+clean(msg.err.Error()))
	}
	m.outdate()
	cmds := []tea.Cmd{m.page().load(m)}
	switch {
	case msg.err == nil && msg.done > 1:
		cmds = append(cmds, m.say(fmt.Sprintf("done: %d commands, the last: %s", msg.done, last)))
	case msg.err == nil:
		cmds = append(cmds, m.say("done: "+last))
	case m.asks(): // what is asked stays
		cmds = append(cmds, m.say("failed: "+last+"; @ tells more"))
	default:
		m.dialog = &message{"It did not work", m.errorText(msg.err), last}
	}
	return tea.Batch(cmds...)
}

// key acts on a key.
func (m *Model) key(msg tea.KeyPressMsg) tea.Cmd {
	key := msg.String()
	if key == "alt+esc" { // two of them came at once
		once := tea.KeyPressMsg{Code: tea.KeyEscape}
		return tea.Batch(m.key(once), m.key(once))
	}
	switch {
	case key == "ctrl+c":
		return tea.Quit
	case m.dialog != nil:
		return m.dialog.key(m, msg)
	case m.prompt != nil:
		return m.prompt.key(m, msg)
	}
	b := m.bound(m.page().kind(), key)
	if b == nil {
		return nil
	}
	if b.write && m.opts.ReadOnly {
		return m.say("--readonly: nothing can be changed")
	}
	if b.do == "view" {
		return m.show(int(key[0] - '1'))
	}
	return m.actPage(b)
}

func (m *Model) actPage(b *binding) tea.Cmd {
	if b == nil {
		return nil
	}
	if cmd, ok := m.act(b.do); ok {
		return cmd
	}
	cmd, _ := m.page().act(m, b.do)
	return cmd
}

// click acts on a press of the mouse.
func (m *Model) click(at tea.Mouse) {
	if at.Button != tea.MouseLeft || m.dialog != nil {
		return
	}
	if line := at.Y - m.lay.top; line < m.lay.body {
		m.page().click(m, line)
	}
}

func (m *Model) wheel(at tea.Mouse) tea.Cmd {
	do := "down"
	if at.Button == tea.MouseWheelUp {
		do = "up"
	}
	if m.dialog != nil {
		return nil
	}
	var cmds []tea.Cmd
	for range 3 {
		cmd, _ := m.page().act(m, do)
		cmds = append(cmds, cmd)
	}
	return tea.Batch(cmds...)
}

// spinner is drawn while something is under way.
func (m *Model) spinner() string { return string(`|/-\`[m.ticks%4]) }

// message says what a command came to, until a key is pressed.
type message struct {
	title   string
	lines   []string
	command string
}

func (*message) update(*Model, tea.Msg) tea.Cmd { return nil }

func (*message) key(m *Model, _ tea.KeyPressMsg) tea.Cmd {
	m.close()
	return nil
}

func (d *message) draw(m *Model, width, height int) []string {
	var lines []string
	for _, l := range d.lines {
		lines = append(lines, wrap(l, width)...)
	}
	return stack(height, []string{m.theme.bad.Bold(true).Render(fit(d.title, width, m.theme.more))}, lines,
		commandLines(&m.theme, d.command, width), []string{m.theme.key.Render("any key") + " goes on"})
}

func (m *Model) errorText(err error) []string {
	var out []string
	for _, l := range m.errorLines(err, 1000) {
		if l = strings.TrimSpace(l); l != "" && !strings.Contains(l, "tries again") {
			out = append(out, l)
		}
	}
	return out
}
