package replay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// maxRequest is the longest request that a daemon accepts.
const maxRequest = 256 << 20

// comments are events that only say what the neighbouring lines show, or what
// is checked wherever it occurs.
var comments = map[string]bool{
	"created": true, "sealed": true, "released": true, "got again": true, "dropped": true,
	"client disconnected": true, // in setup.json
	"^ unsealed blob of a disconnected client still exists": true,
	"second pull frees first chunk, wakes writer":           true,
	"fstat of received fd":                                  true, // every one is, see mapping.verify
}

// event plays a line that is no message.
func (p *player) event(i int, l *line) error {
	c := p.clients[l.Conn]
	switch {
	case comments[l.Ev]:
		return nil
	case l.Ev == "open":
		_, err := p.open(i, l)
		return err
	case l.Ev == "session socket exists after delete: False":
		return p.sessionGone(i)
	case c == nil && (l.Ev == "close" || p.ended[l.Conn]):
		return nil // closed before, or not opened in this recording
	case c == nil:
		return fmt.Errorf("event %q: no connection %q", l.Ev, l.Conn)
	case l.Ev == "close" && l.By == "c2s":
		return p.hangUp(l.Conn)
	case l.Ev == "close" && l.By == "s2c":
		return p.gone(l.Conn)
	case strings.HasPrefix(l.Ev, "timeout ("), l.Ev == "eof":
		if d, ok := p.deviations[l.n]; ok && !p.reference {
			return p.awaitReply(l, d.Answer, 0)
		}
		if l.Ev == "eof" {
			return p.gone(l.Conn)
		}
		return c.silent(silenceTime)
	case l.Ev == "sent oversized header":
		return c.write(binary.LittleEndian.AppendUint64(nil, maxRequest+1))
	case l.Ev == "sent zero length frame":
		c.unpaid++
		return c.send(nil)
	case strings.Contains(l.Ev, "pipelined"):
		return p.pipeline(i, l, c)
	}
	return fmt.Errorf("unknown event %q", l.Ev)
}

// pipeline sends "N pipelined TYPE": N equal requests in one piece.
func (p *player) pipeline(i int, l *line, c *client) error {
	var n int
	var typ string
	if _, err := fmt.Sscanf(l.Ev, "%d pipelined %s", &n, &typ); err != nil {
		return fmt.Errorf("event %q: %w", l.Ev, err)
	}
	c.request = map[string]any{"type": typ}
	body, err := encode(c.request)
	if err != nil {
		return err
	}
	bodies := slices.Repeat([][]byte{body}, n)
	if err := p.settle(i, c); err != nil {
		return err
	}
	c.unpaid += n
	p.stats.Requests += n
	return c.send(bodies...)
}

// settle waits until the daemon has counted out connections that were just
// closed, if the next reply on c shows the numbers. It gives up in time for
// the recorded request to show the wrong ones.
func (p *player) settle(i int, c *client) error {
	next := slices.IndexFunc(p.lines[i:], func(l *line) bool { return l.Conn == p.lines[i].Conn && l.reply() })
	if next < 0 || p.lines[i+next].typ() != "instance_status_reply" {
		return nil
	}
	for range 100 {
		answer, err := c.ask(map[string]any{"type": "instance_status_request"})
		if err != nil {
			return err
		}
		meta, _ := answer["meta"].(map[string]any)
		settled := true
		for name, want := range p.exchange(c).counts {
			got, _ := asUint(meta[name])
			settled = settled && got == want
		}
		if settled {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// sessionGone checks that the socket of the session deleted last is gone.
func (p *player) sessionGone(i int) error {
	for i--; i >= 0; i-- {
		l := p.lines[i]
		if l.typ() != "delete_session_reply" {
			continue
		}
		socket := p.socketOf(0, l.Conn)
		for deadline := time.Now().Add(replyTimeout); ; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Lstat(socket); errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("expected no socket %s, it is still there", socket)
			}
		}
	}
	return errors.New("no session was deleted")
}

// clientOf returns the connection of a line. Hand-made clients (x…) open
// theirs without an event; every other one that is not open yet was opened and
// registered before the recording began.
func (p *player) clientOf(i int, l *line) (*client, error) {
	if c := p.clients[l.Conn]; c != nil {
		return c, nil
	}
	c, err := p.open(i, l)
	if err != nil || strings.HasPrefix(l.Conn, "x") || l.typ() == "register_request" {
		return c, err
	}
	return c, p.register(c)
}

// open dials the daemon for a recorded connection.
func (p *player) open(i int, l *line) (*client, error) {
	network, address := "unix", p.socketOf(i, l.Conn)
	if l.T == "rpc" {
		network, address = "tcp", p.target.RPC
	}
	w, err := dial(network, address)
	if err != nil {
		return nil, err
	}
	c := &client{wire: w, rpc: l.T == "rpc", delivered: map[int64]bool{}}
	if !c.rpc {
		c.socket = address
	}
	// Names are a for the first daemon and b for the second, r before those of TCP.
	if strings.HasPrefix(strings.TrimPrefix(l.Conn, "r"), "b") {
		c.ownID = 1
	}
	p.clients[l.Conn] = c
	return c, nil
}

// socketOf returns the live socket of a connection whose lines start at i: a
// session's if the daemon's first answer on it says so.
func (p *player) socketOf(i int, conn string) string {
	for _, l := range p.lines[i:] {
		if l.Conn != conn || !l.reply() {
			continue
		}
		recorded, _ := l.message()["ipc_socket"].(string)
		if live, ok := p.names.texts.live[recorded]; ok && isSession(recorded) {
			return live
		}
		break
	}
	return p.target.Socket
}

// register does what the recording has behind it.
func (p *player) register(c *client) error {
	answer, err := c.ask(map[string]any{
		"type": "register_request", "version": "0.24.2", "store_type": 1,
		"session_id": 0, "username": "", "password": "",
	})
	if err != nil {
		return err
	}
	id, ok := asUint(answer["instance_id"])
	if !ok {
		return fmt.Errorf("register: got %s", show(answer))
	}
	return p.names.instances.bind(c.ownID, id)
}

// seedTime is how much older than the recording's own the seed is: lists are
// in the order of ids, and ids in that of milliseconds.
const seedTime = 5 * time.Millisecond

// seed makes the blobs that earlier recordings left.
func (p *player) seed() error {
	if len(p.setup.Seed) == 0 {
		return nil
	}
	w, err := dial("unix", p.target.Socket)
	if err != nil {
		return err
	}
	c := &client{wire: w, delivered: map[int64]bool{}}
	if err := p.makeBlobs(c); err != nil {
		return errors.Join(err, c.Close())
	}
	time.Sleep(seedTime)
	return c.hangUp()
}

// makeBlobs creates and seals the seed.
func (p *player) makeBlobs(c *client) error {
	if err := p.register(c); err != nil {
		return err
	}
	for _, size := range p.setup.Seed {
		created, err := c.ask(map[string]any{"type": "create_buffer_request", "size": size})
		if err != nil {
			return err
		}
		if _, err := c.ask(map[string]any{"type": "seal_request", "object_id": created["id"]}); err != nil {
			return err
		}
	}
	return nil
}

// ask sends a request and returns its reply, which must be no error.
func (c *client) ask(request map[string]any) (map[string]any, error) {
	body, err := encode(request)
	if err != nil {
		return nil, err
	}
	if err := c.send(body); err != nil {
		return nil, err
	}
	if body, err = c.frame(); err != nil {
		return nil, fmt.Errorf("%s: %w", request["type"], err)
	}
	var answer map[string]any
	if err := decode(body, &answer); err != nil {
		return nil, fmt.Errorf("%s: %w", request["type"], err)
	}
	if answer["code"] != nil {
		return nil, fmt.Errorf("%s: got %s", request["type"], show(answer))
	}
	follow, _ := announced(answer, c.delivered, c.rpc)
	for _, m := range follow {
		if err := c.receive(m); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// gone waits until the daemon has closed a connection.
func (p *player) gone(conn string) error {
	c := p.clients[conn]
	delete(p.clients, conn)
	p.ended[conn] = true
	if err := c.hungUp(); err != nil {
		return errors.Join(fmt.Errorf("expected the daemon to close %s: %w", conn, err), c.Close())
	}
	return c.Close()
}

// hangUp closes a connection from our side.
func (p *player) hangUp(conn string) error {
	c := p.clients[conn]
	if c == nil {
		return fmt.Errorf("no connection %s", conn)
	}
	delete(p.clients, conn)
	return c.hangUp()
}
