package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
	"pgregory.net/rapid"
)

// sharedModel is a shared stream by the words of the package comment: everything
// that was ever written, and where each cursor is.
type sharedModel struct {
	retain  Retain
	written []int64     // sizes, by number
	at      []time.Time // when
	base    int
	state   string
	writer  int // client, -1 for none
	wrote   bool
	cursors map[string]*modelCursor
}

type modelCursor struct {
	done, at, by int // by is -1 while nobody reads
}

// trim moves base as far as the stream may forget.
func (m *sharedModel) trim() {
	needed := len(m.written)
	for _, c := range m.cursors {
		needed = min(needed, c.done)
	}
	if m.retain.All || len(m.cursors) == 0 && m.retain == (Retain{}) {
		return
	}
	for m.base < needed {
		var left int64
		for _, n := range m.written[m.base:] {
			left += n
		}
		if m.retain.Bytes > 0 && (left <= m.retain.Bytes || m.base == len(m.written)-1) || m.retain.Age > 0 && time.Since(m.at[m.base]) < m.retain.Age {
			return
		}
		m.base++
	}
}

func (m *sharedModel) String() string {
	text := fmt.Sprintf("base %d, head %d, %s", m.base, len(m.written), m.state)
	names := []string{}
	for name := range m.cursors {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		text += fmt.Sprintf(", %s %d", name, m.cursors[name].done)
	}
	return text
}

// TestSharedModel plays random scripts on a shared stream: each cursor gets every
// chunk from where it began, in order; what may be forgotten is freed, nothing
// else; and a journal brings all of it back.
func TestSharedModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &sharedModel{state: "open", writer: -1, cursors: map[string]*modelCursor{}, retain: rapid.SampledFrom([]Retain{
			{}, {}, {All: true}, {Bytes: 25}, {Age: 10 * time.Second},
		}).Draw(rt, "retain")}
		script := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) [3]int {
			return [3]int{rapid.IntRange(0, 99).Draw(t, "op"), rapid.IntRange(0, 3).Draw(t, "client"), rapid.IntRange(1, 9).Draw(t, "n")}
		}), 5, 60).Draw(rt, "script")
		var err error
		synctest.Test(t, func(*testing.T) { err = playShared(m, script) })
		if err != nil {
			rt.Fatalf("%v: %v", m.retain, err)
		}
	})
}

func playShared(m *sharedModel, script [][3]int) error {
	const id = object.ID(1)
	ctx := context.Background()
	back := newBacking()
	back.limit = 1 << 40
	table := NewTable(back)
	if err := table.CreateShared(id, m.retain); err != nil {
		return err
	}
	defer func() { table.Discard() }()
	var clients []*store.Holder
	for i := range 4 {
		clients = append(clients, store.NewHolder(i, 0))
	}
	var chunks []object.ID // by number
	same := func(what string, got error, want status.Code) error {
		if want == 0 && got != nil || want != 0 && !errors.Is(got, want) {
			return fmt.Errorf("%s: %w, want code %d", what, got, uint8(want))
		}
		return nil
	}
	name := func(client, n int) string { return []string{"", "a", "b", ""}[(client+n)%4] }
	key := func(name string, client int) string {
		if name == "" {
			return fmt.Sprint("connection ", client)
		}
		return name
	}
	for i, s := range script {
		op, who, n := s[0], s[1], s[2]
		h := clients[who]
		var err error
		switch {
		case op < 35: // write a chunk, in two requests
			want := status.Code(0)
			switch {
			case m.state != "open":
				want = status.InvalidStreamState
			case m.writer >= 0 && m.writer != who:
				want = status.StreamOpened
			}
			v, got := table.Write(ctx, h, id, 0, 0, int64(2*n))
			if err = same("write", got, want); err != nil || got != nil {
				break
			}
			if _, err = table.Write(ctx, h, id, v.ID, int64(n), 0); err != nil {
				break
			}
			m.writer, m.wrote = who, true
			m.written, m.at, chunks = append(m.written, int64(n)), append(m.at, time.Now()), append(chunks, v.ID)
			m.trim()
		case op < 45: // open a cursor
			name := name(who, n)
			k := key(name, who)
			c := m.cursors[k]
			want := status.Code(0)
			if c != nil && c.by >= 0 {
				want = status.StreamOpened
			}
			at, _, got := table.OpenReader(h, id, name, n == 9)
			if err = same("open", got, want); err != nil || got != nil {
				break
			}
			if c == nil {
				c = &modelCursor{done: m.base, at: m.base}
				if n == 9 {
					c.done, c.at = len(m.written), len(m.written)
				}
				m.cursors[k] = c
			}
			if n == 9 {
				m.trim()
			}
			if c.by = who; int(at) != c.at {
				err = fmt.Errorf("the cursor is at %d, want %d", at, c.at)
			}
		case op < 75: // read, giving back some of what was got
			name := name(who, n)
			c := m.cursors[key(name, who)]
			if c == nil || c.by != who {
				_, _, got := table.Read(ctx, h, id, name, 0, 1)
				err = same("read without a cursor", got, status.Invalid)
				break
			}
			done := min(c.at, c.done+n/3)
			end := c.at == len(m.written)
			if end && m.state == "open" { // it would wait
				_, _, got := table.Read(ctx, h, id, name, uint64(done), 0)
				err = same("give back", got, 0)
				c.done = done
				m.trim()
				break
			}
			first, ids, got := table.Read(ctx, h, id, name, uint64(done), n)
			c.done = done
			m.trim()
			want := status.Code(0)
			if end {
				want = map[string]status.Code{"drained": status.StreamDrained, "failed": status.StreamFailed}[m.state]
			}
			if err = same("read", got, want); err != nil || got != nil {
				break
			}
			if int(first) != c.at || !slices.Equal(ids, chunks[c.at:][:min(n, len(chunks)-c.at)]) {
				err = fmt.Errorf("read %d from %d, want %d from %d", ids, first, n, c.at)
			}
			c.at += len(ids)
		case op < 80: // hang up
			table.Close(h)
			clients[who] = store.NewHolder(who, 0)
			if m.writer == who {
				if m.writer = -1; m.state == "open" {
					m.state = "failed"
				}
			}
			left := false
			for k, c := range m.cursors {
				switch {
				case c.by != who:
				case k != "a" && k != "b":
					delete(m.cursors, k)
					left = true
				default:
					c.by, c.at = -1, c.done
				}
			}
			if left {
				m.trim()
			}
		case op < 83:
			want := status.Code(0)
			if m.state != "open" {
				want = status.InvalidStreamState
			}
			if err = same("stop", table.Stop(id, n > 5, "why"), want); err == nil && want == 0 {
				m.state = map[bool]string{true: "failed", false: "drained"}[n > 5]
			}
		case op < 86:
			c := m.cursors["a"]
			want := status.Code(0)
			switch {
			case c == nil:
				want = status.ObjectNotExists
			case c.by >= 0:
				want = status.InvalidStreamState
			}
			if err = same("forget", table.Forget(id, "a"), want); err == nil && want == 0 {
				delete(m.cursors, "a")
				m.trim()
			}
		case op < 92:
			time.Sleep(time.Duration(n) * time.Second)
			synctest.Wait()
			if m.retain.Age > 0 {
				m.trim()
			}
		default: // the daemon dies and comes back, perhaps with a compacted journal
			if n > 4 {
				back.journal = nil
				table.Lock()
				err = table.Snapshot(func(payload []byte) error { return back.Record(payload, false) })
				table.Unlock()
			}
			again := NewTable(back)
			records := back.journal
			for _, r := range records {
				if err == nil {
					err = again.Replay(journal.NewReader(append([]byte{0}, r...))) // a kind comes first
				}
			}
			if err != nil {
				break
			}
			again.Recovered(func(id object.ID) bool { _, ok := back.chunks[id]; return ok }, func(object.ID) bool { return true })
			table.Discard()
			table = again
			for who := range clients {
				clients[who] = store.NewHolder(who, 0)
			}
			for k, c := range m.cursors {
				if k != "a" && k != "b" {
					delete(m.cursors, k)
					continue
				}
				c.by, c.at = -1, c.done
			}
			if m.state == "open" && m.wrote {
				m.state = "failed"
			}
			m.writer = -1
			table.Resume() // what only lost cursors needed goes
			m.trim()
		}
		if err != nil {
			return fmt.Errorf("step %d, %v: %w", i, s, err)
		}
		synctest.Wait()
		in := table.List()[0]
		is := &sharedModel{written: make([]int64, in.Pushed), base: int(in.Pushed) - in.Chunks, state: in.State, cursors: map[string]*modelCursor{}}
		want := *m
		want.cursors = map[string]*modelCursor{}
		for k, c := range m.cursors {
			if k == "a" || k == "b" {
				want.cursors[k] = c
			}
		}
		for _, r := range in.Readers {
			if r.Name != "" {
				is.cursors[r.Name] = &modelCursor{done: int(r.Done)}
			}
		}
		if is.String() != want.String() || len(in.Readers) != len(m.cursors) {
			return fmt.Errorf("after step %d, %v: %v and %d readers, want %v and %d", i, s, is, len(in.Readers), &want, len(m.cursors))
		}
		back.mu.Lock()
		for number, chunk := range chunks {
			_, there := back.chunks[chunk]
			if there != (number >= m.base) || there && !back.sealed[chunk] {
				err = fmt.Errorf("after step %d, %v: chunk %d is there: %t, sealed: %t, the first one needed is %d", i, s, number, there, back.sealed[chunk], m.base)
			}
		}
		back.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// TestSharedWaits: a writer waits for a slow reader, readers wait for the writer,
// and both hear of the end.
func TestSharedWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := newBacking() // 80 bytes may be used
		table := NewTable(back)
		w, a, b := store.NewHolder(1, 0), store.NewHolder(2, 0), store.NewHolder(3, 0)
		if err := table.CreateShared(1, Retain{}); err != nil {
			t.Fatal(err)
		}
		var got [2]int
		read := func(i int, h *store.Holder, wait time.Duration) {
			name := fmt.Sprint("reader ", i)
			if _, _, err := table.OpenReader(h, 1, name, false); err != nil {
				t.Error(err)
				return
			}
			for {
				first, ids, err := table.Read(t.Context(), h, 1, name, uint64(got[i]), 1)
				if err != nil {
					if !errors.Is(err, status.StreamFailed) || !strings.Contains(err.Error(), "connection ended") {
						t.Errorf("%s: %v", name, err)
					}
					return
				}
				time.Sleep(wait)
				got[i] = int(first) + len(ids)
			}
		}
		go read(0, a, 0)
		go read(1, b, time.Second)
		synctest.Wait()
		began := time.Now()
		var filled object.ID
		for range 10 {
			v, err := table.Write(t.Context(), w, 1, filled, 30, 30)
			if err != nil {
				t.Fatal(err)
			}
			filled = v.ID
		}
		if took := time.Since(began); took < 6*time.Second {
			t.Errorf("the writer did not wait for the slow reader: %v", took)
		}
		if _, err := table.Write(t.Context(), w, 1, filled, 31, 0); !errors.Is(err, status.Invalid) {
			t.Errorf("a chunk that is longer than itself: %v", err)
		}
		table.Close(w)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got != [2]int{9, 9} {
			t.Errorf("the readers got %v", got)
		}
		if in := table.List()[0]; in.State != "failed" || in.Chunks != 0 || in.Writer != "gone" {
			t.Errorf("in the end %+v", in)
		}
	})
}

// TestDamagedJournal: records that are missing cost the stream that they belong to,
// or its end, never the recovery.
func TestDamagedJournal(t *testing.T) {
	back := newBacking()
	table := NewTable(back)
	h := store.NewHolder(1, 0)
	for id := object.ID(1); id <= 2; id++ {
		if err := table.CreateShared(id, Retain{All: true}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			v, err := table.Write(t.Context(), h, id, 0, 0, 1)
			if err == nil {
				_, err = table.Write(t.Context(), h, id, v.ID, 1, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := table.Stop(id, false, ""); err != nil {
			t.Fatal(err)
		}
	}
	for missing := range back.journal {
		again := NewTable(back)
		for i, r := range back.journal {
			if i == missing {
				continue
			}
			if err := again.Replay(journal.NewReader(append([]byte{0}, r...))); err != nil {
				t.Fatalf("without record %d: record %d: %v", missing, i, err)
			}
		}
		there := func(id object.ID) bool { _, ok := back.chunks[id]; return ok }
		again.Recovered(there, func(object.ID) bool { return true })
		for _, in := range again.List() {
			if in.State == "drained" && in.Chunks != 3 {
				t.Errorf("without record %d: %+v", missing, in)
			}
		}
		if n := len(again.Held()); n < 3 {
			t.Errorf("without record %d only %d chunks are held", missing, n)
		}
	}
}
