package tui

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

// page is one screen.
type page interface {
	kind() string  // what bindings refer to
	crumb() string // in the head line
	// load asks for the data, or returns nil when there is nothing to ask for.
	load(m *Model) tea.Cmd
	// receive takes the answer of load; later ones than the newest only.
	receive(m *Model, a answer) tea.Cmd
	// act does what a key means; handled is false for what the page knows nothing of.
	act(m *Model, do string) (cmd tea.Cmd, handled bool)
	draw(m *Model, width, height int) []string
	subjects() []subject // at the cursor, or marked
	state() *loading
	command() string // of v6d that shows the same
	setFilter(text string)
	filterText() string
	click(m *Model, line int)
}

// subject is what actions are about.
type subject struct {
	id     client.ID
	name   string // of the name, or of the object
	typ    string
	bytes  int64
	stream bool
	hidden bool // by the filter
}

// title names a subject for questions.
func (s *subject) title() string {
	text := s.id.String()
	if s.name != "" {
		text = s.name + " (" + text + ")"
	}
	if s.typ != "" {
		text += ", " + s.typ
	}
	if s.bytes > 0 {
		text += ", " + size(s.bytes)
	}
	return clean(text)
}

// arg is what commands call the subject.
func (s *subject) arg() string { return s.id.String() }

// loading is how far a page's data are.
type loading struct {
	id     int // of the page
	gen    int // of the newest question
	busy   bool
	done   bool // something was loaded
	err    error
	cancel context.CancelFunc
	halted bool // the user gave the question up
	stale  bool // something has happened since
	poll   time.Duration
	polled time.Time // when it was asked
}

// answer is what a question of a page came to.
type answer struct {
	page, gen int
	data      any
	err       error
	partial   bool // more is to come
}

// How long answers may take: patience bounds the question of a page, glance the one
// for the head line, which tells that the daemon hangs.
const (
	patience = 30 * time.Second
	glance   = 5 * time.Second
)

// overdue says it when an answer took too long.
func overdue(err error, limit time.Duration) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v", limit)
	}
	return err
}

// ask runs a question in the background. Its answer comes back to the page.
func (m *Model) ask(st *loading, f func(context.Context, Source) (any, error)) tea.Cmd {
	if st.cancel != nil {
		st.cancel()
	}
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	st.gen++
	st.busy, st.cancel, st.stale, st.halted, st.polled = true, cancel, false, false, m.now()
	id, gen, src := st.id, st.gen, m.src
	return func() tea.Msg {
		defer cancel()
		data, err := f(ctx, src)
		return answer{page: id, gen: gen, data: data, err: overdue(err, patience)}
	}
}

// settle notes that an answer has come; it reports false for one that nobody waits
// for any more.
func (st *loading) settle(a answer) bool {
	if a.gen != st.gen {
		return false
	}
	if !a.partial {
		st.busy = false
	}
	if errors.Is(a.err, context.Canceled) {
		return false
	}
	st.err = a.err
	if a.err == nil {
		st.done = true
	}
	return a.err == nil
}

// stop gives a question up.
func (st *loading) stop() bool {
	if !st.busy || st.cancel == nil {
		return false
	}
	st.cancel()
	st.gen++
	st.busy = false
	return true
}

// notice is what is drawn instead of data: while loading, after an error, or when
// there is nothing.
func (m *Model) notice(st *loading, empty string, width int) []string {
	t := &m.theme
	switch {
	case st.err != nil:
		return m.errorLines(st.err, width)
	case st.halted:
		return []string{"", "  stopped; " + t.key.Render(m.keyOf("refresh")) + " loads again"}
	case !st.done:
		return []string{"", "  " + t.dim.Render(m.spinner()+" loading, esc stops")}
	}
	return []string{"", fit("  "+empty, width, t.more)}
}

// errorLines explains an error and says what to do.
func (m *Model) errorLines(err error, width int) []string {
	t := &m.theme
	lines := []string{""}
	for text := range strings.SplitSeq(err.Error(), "\n") {
		for _, line := range wrap(clean(text), width-4) {
			lines = append(lines, "  "+t.bad.Render(line))
		}
	}
	if hint := status.HintOf(err); hint != "" {
		for _, line := range wrap(clean(hint), width-4) {
			lines = append(lines, "  "+line)
		}
	}
	return append(lines, "", "  "+t.key.Render(m.keyOf("refresh"))+" tries again")
}

// ago writes how long ago a time is.
func (m *Model) ago(at time.Time) string {
	if at.IsZero() || at.Unix() <= 0 {
		return "-"
	}
	d := m.now().Sub(at)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(int(d.Seconds()), 0))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	case d < 1000*24*time.Hour:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
	return fmt.Sprintf("%dy", int(d.Hours()/24/365))
}
