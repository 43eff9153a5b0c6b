package tui

import (
	"context"
	"errors"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/v6d-go/v6d/client"
)

// What commands answer with, besides answer.
type (
	// overviewMsg is the newest head line.
	overviewMsg struct {
		over Overview
		err  error
	}
	// eventsMsg is what the daemon told, or why it tells nothing.
	eventsMsg struct {
		gen    int
		events []client.Event
		cursor uint64
		lost   bool
		err    error
	}
	// ranMsg is how commands ended.
	ranMsg struct {
		commands []string
		out      string
		err      error
		done     int
	}
	tickMsg    time.Time // once a second
	flushMsg   struct{}  // what events have changed is to be shown
	againMsg   struct{ gen int }
	toastMsg   struct{ n int }
	changesMsg struct {
		page, gen int
		change    changed
		err       error
	}
)

// overview asks for the head line.
func (m *Model) overview() tea.Cmd {
	if m.asking {
		return nil
	}
	m.asking = true
	src, ctx := m.src, m.ctx
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, glance)
		defer cancel()
		over, err := src.Overview(ctx)
		return overviewMsg{over, overdue(err, glance)}
	}
}

// watch waits for events.
func (m *Model) watch(cursor uint64) tea.Cmd {
	src, ctx, gen := m.src, m.ctx, m.watchGen
	return func() tea.Msg {
		events, next, lost, err := src.Watch(ctx, cursor)
		return eventsMsg{gen, events, next, lost, err}
	}
}

// later sends a message after a while.
func later(d time.Duration, msg tea.Msg) tea.Cmd {
	return tea.Tick(d, func(time.Time) tea.Msg { return msg })
}

// run runs commands of v6d, one after the other, until one fails.
func (m *Model) run(lines [][]string) tea.Cmd {
	src, ctx := m.src, m.ctx
	m.running++
	for _, args := range lines {
		m.log = append(m.log, m.now().Format("15:04:05")+"  "+commandLine(args))
	}
	return func() tea.Msg {
		var r ranMsg
		for _, args := range lines {
			r.commands = append(r.commands, commandLine(args))
			out, err := src.Run(ctx, args...)
			r.out = out
			if err != nil {
				r.err = err
				return r
			}
			r.done++
		}
		return r
	}
}

// look asks what became of objects, for a page that lists them.
func (m *Model) look(st *loading, ids []client.ID) tea.Cmd {
	src, ctx, page, gen := m.src, m.ctx, st.id, st.gen
	m.looking++
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		rows, err := src.Rows(ctx, ids)
		return changesMsg{page, gen, changed{ids, rows}, err}
	}
}

// unwatchable reports that a daemon has no events.
func unwatchable(err error) bool { return errors.Is(err, client.NotImplemented) }
