package stream

import (
	"context"
	"fmt"
	"slices"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
)

// call is a request as the model sees it.
type call struct{ answer }

// modelStream is the state of one stream by docs/protocol.md: what is queued,
// being written and being read, and who waits.
type modelStream struct {
	id               object.ID
	state            string // open, drained or failed
	ready            []object.ID
	writing, reading object.ID
	by               int // the client that got reading
	mode             int64
	reader, writer   *call
	pulledBy         map[int]bool
	pushed, pulled   uint64
}

type model struct {
	streams        map[object.ID]*modelStream
	chunks         map[object.ID]int64
	sealed         map[object.ID]bool
	usage          int64
	hog, hogBefore int64
	last           object.ID
}

func newModel() *model {
	return &model{streams: map[object.ID]*modelStream{}, chunks: map[object.ID]int64{}, sealed: map[object.ID]bool{}, last: 1 << 63}
}

func (c *call) end(chunk object.ID, err error) { c.chunk, c.err, c.done = chunk, err, true }

func (m *model) step(s step) *call {
	c := &call{answer{step: s}}
	if s.op == "push" {
		m.chunks[object.ID(s.n)] = 0
	}
	st := m.streams[s.stream]
	stopped := st != nil && st.state != "open"
	switch {
	case s.op == "memory":
		m.hogBefore, m.hog = m.hog, s.n
		m.usage += m.hog - m.hogBefore
		c.end(0, nil)
	case s.op == "cancel":
		c.end(0, nil)
	case s.op == "close":
		for _, st := range m.streams {
			if st.pulledBy[s.client] {
				if st.reading.IsBlob() && st.by == s.client { // nobody pulls again, which would free it
					m.free(st.reading)
				}
				m.drop(st)
			}
		}
		c.end(0, nil)
	case s.op == "create":
		if st != nil {
			c.end(0, status.ObjectExists)
			break
		}
		m.streams[s.stream] = &modelStream{id: s.stream, state: "open", pulledBy: map[int]bool{}}
		c.end(0, nil)
	case st == nil:
		c.end(0, status.ObjectNotExists)
	case s.op == "open":
		if st.mode&(s.n%4) != 0 {
			c.end(0, status.StreamOpened)
			break
		}
		st.mode |= s.n % 4
		c.end(0, nil)
	case s.op == "next":
		switch {
		case stopped || st.writer != nil:
			c.end(0, status.InvalidStreamState)
		default:
			m.flush(st)
			if s.n >= 80 {
				c.end(0, status.NotEnoughMemory)
				break
			}
			st.writer = c
		}
	case s.op == "push":
		if stopped || st.writer != nil {
			c.end(0, status.InvalidStreamState)
			break
		}
		m.queue(st, object.ID(s.n))
		c.end(0, nil)
	case s.op == "pull":
		if st.reader != nil {
			c.end(0, status.InvalidStreamState)
			break
		}
		st.pulledBy[s.client] = true
		m.free(st.reading)
		st.reading, st.reader = 0, c
	case s.op == "stop":
		if stopped || st.writer != nil {
			c.end(0, status.InvalidStreamState)
			break
		}
		m.flush(st)
		st.state = "drained"
		if s.fail {
			st.state = "failed"
		}
		c.end(0, nil)
	case s.op == "drop":
		m.drop(st)
		c.end(0, nil)
	}
	m.settle()
	return c
}

// settle answers whoever waits and can be answered now.
func (m *model) settle() {
	for _, st := range m.streams {
		if c := st.writer; c != nil && m.usage+c.step.n < 80 {
			id := object.EmptyBlob
			if c.step.n > 0 {
				m.last++
				id = m.last
				m.chunks[id] = c.step.n
				m.usage += c.step.n
			}
			st.writing, st.writer = id, nil
			c.end(id, nil)
		}
		if c := st.reader; c != nil {
			switch {
			case len(st.ready) > 0:
				st.reading, st.ready, st.reader, st.by = st.ready[0], st.ready[1:], nil, c.step.client
				st.pulled++
				c.end(st.reading, nil)
			case st.state == "drained":
				st.reader = nil
				c.end(0, status.StreamDrained)
			case st.state == "failed":
				st.reader = nil
				c.end(0, status.StreamFailed)
			}
		}
	}
}

func (m *model) flush(st *modelStream) {
	if st.writing != 0 {
		m.sealed[st.writing] = true
		m.queue(st, st.writing)
		st.writing = 0
	}
}

func (m *model) queue(st *modelStream, id object.ID) {
	st.ready = append(st.ready, id)
	st.pushed++
}

func (m *model) free(id object.ID) {
	m.usage -= m.chunks[id]
	delete(m.chunks, id)
}

// drop forgets a stream; the chunk that is being read stays.
func (m *model) drop(st *modelStream) {
	for _, id := range append(st.ready, st.writing) {
		m.free(id)
	}
	for _, c := range []*call{st.reader, st.writer} {
		if c != nil {
			c.end(0, status.StreamFailed)
		}
	}
	delete(m.streams, st.id)
	m.settle()
}

// cancel ends a request whose client has gone.
func (m *model) cancel(c *call) {
	for _, st := range m.streams {
		if st.reader == c {
			st.reader = nil
		}
		if st.writer == c {
			st.writer = nil
		}
	}
	c.end(0, context.Canceled)
}

// compare checks what a Table shows, and what its session holds.
func (m *model) compare(t *Table, back *fakeBacking) error {
	type row struct {
		id             object.ID
		state, waits   string
		ready          int
		mode           int64
		pushed, pulled uint64
	}
	var list, want []row
	for _, in := range t.List() {
		list = append(list, row{in.ID, in.State, in.Waits, in.Ready, in.Mode, in.Pushed, in.Pulled})
	}
	queued := map[object.ID]int{}
	for id := object.ID(1); id < 3; id++ {
		st := m.streams[id]
		if st == nil {
			continue
		}
		in := row{id: id, state: st.state, ready: len(st.ready), mode: st.mode, pushed: st.pushed, pulled: st.pulled}
		switch {
		case st.reader != nil:
			in.waits = "reader"
		case st.writer != nil:
			in.waits = "writer"
		}
		want = append(want, in)
		for _, chunk := range append(slices.Clone(st.ready), st.reading) {
			if chunk != 0 {
				queued[chunk]++
			}
		}
	}
	if !slices.Equal(list, want) {
		return fmt.Errorf("streams %+v, want %+v", list, want)
	}
	back.mu.Lock()
	defer back.mu.Unlock()
	for what, pair := range map[string][2]string{
		"chunks": {fmt.Sprint(back.chunks), fmt.Sprint(m.chunks)},
		"sealed": {fmt.Sprint(back.sealed), fmt.Sprint(m.sealed)},
		"queued": {fmt.Sprint(back.queued), fmt.Sprint(queued)},
		"usage":  {fmt.Sprint(back.usage), fmt.Sprint(m.usage)},
	} {
		if pair[0] != pair[1] {
			return fmt.Errorf("%s %s, want %s", what, pair[0], pair[1])
		}
	}
	return nil
}
