package replay

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// A player replays one recording.
type player struct {
	file       string
	lines      []*line
	setup      setup
	target     Target
	reference  bool // play against the reference daemon: no deviations
	excluded   []Exclusion
	deviations map[int]Deviation
	dir        string // for files that requests name
	differs    func(l *line, format string, args ...any)

	names    *names
	clients  map[string]*client // those open
	ended    map[string]bool    // those that the daemon closed
	contents map[uint64][]byte  // of blobs that were sent, by live id
	stats    Stats
}

// A client is one recorded connection, live.
type client struct {
	*wire
	rpc       bool
	socket    string         // live path it was opened on; "" on TCP
	ownID     uint64         // recorded instance id of its daemon
	request   map[string]any // the last one sent, with live names
	unpaid    int            // requests without a reply yet
	delivered map[int64]bool // store_fd numbers received
	payloads  []map[string]any
}

func newPlayer(file string, target Target, reference bool) (*player, error) {
	p := &player{
		file: file, target: target, reference: reference, deviations: map[int]Deviation{},
		names: newNames(), clients: map[string]*client{}, ended: map[string]bool{}, contents: map[uint64][]byte{},
	}
	var err error
	if p.lines, err = load(file); err != nil {
		return nil, err
	}
	if p.setup, err = setupOf(file); err != nil {
		return nil, err
	}
	excluded, err := Excluded()
	if err != nil {
		return nil, err
	}
	for _, e := range excluded {
		if e.File == file {
			p.excluded = append(p.excluded, e)
		}
	}
	deviations, err := Deviations()
	if err != nil {
		return nil, err
	}
	for _, d := range deviations {
		if d.File == file {
			p.deviations[d.Line] = d
		}
	}
	return p, nil
}

// play goes down the recording. An error means that it cannot go on.
func (p *player) play() error {
	if err := p.seed(); err != nil {
		return fmt.Errorf("%s.jsonl: seed: %w", p.file, err)
	}
	for i, l := range p.lines {
		if slices.ContainsFunc(p.excluded, func(e Exclusion) bool { return e.covers(l.n) }) {
			continue
		}
		if err := p.step(i, l); err != nil {
			return fmt.Errorf("%s: %w", l.at(), err)
		}
		for _, h := range p.setup.Hangups {
			if h.After != l.n {
				continue
			}
			if err := p.hangUp(h.Conn); err != nil {
				return fmt.Errorf("%s: close %s after this line: %w", l.at(), h.Conn, err)
			}
		}
	}
	for name, c := range p.clients {
		if err := c.silent(strayTime); err != nil && !errors.Is(err, errHungUp) {
			return fmt.Errorf("%s.jsonl: %s at the end: %w", p.file, name, err)
		}
	}
	p.stats.Recordings = 1
	return nil
}

// close drops the connections that the recording leaves open.
func (p *player) close() error {
	var err error
	for _, c := range p.clients {
		err = errors.Join(err, c.Close())
	}
	return err
}

func (p *player) step(i int, l *line) error {
	switch {
	case l.Ev != "":
		return p.event(i, l)
	case l.request():
		return p.sendRequest(i, l)
	case l.reply():
		return p.awaitReply(l, l.JSON, l.NFDs)
	case l.Dir == "c2s":
		return p.sendPayload(l)
	default:
		return p.awaitPayload(l)
	}
}

// sendRequest sends a recorded request with the live names.
func (p *player) sendRequest(i int, l *line) error {
	c, err := p.clientOf(i, l)
	if err != nil {
		return err
	}
	if err := c.quiet(); err != nil {
		return fmt.Errorf("before the request: %w", err)
	}
	if err := p.settle(i, c); err != nil {
		return err
	}
	body, err := p.body(l, c)
	if err != nil {
		return err
	}
	if err := c.send(body); err != nil {
		return err
	}
	p.stats.Requests++
	if l.typ() == "exit_request" {
		return p.gone(l.Conn)
	}
	c.unpaid++
	if p.parks(i) {
		if err := c.silent(parkTime); err != nil {
			return fmt.Errorf("the recorded request stays unanswered here: %w", err)
		}
	}
	return nil
}

// body returns the bytes of a recorded request. "__raw__" is one that is no
// JSON; files that requests name move to the replay's folder.
func (p *player) body(l *line, c *client) ([]byte, error) {
	message := l.message()
	if raw, ok := message["__raw__"].(string); ok {
		return []byte(raw), nil
	}
	c.request = p.names.localize(message)
	if path, ok := c.request["path"].(string); ok && path != "" {
		c.request["path"] = filepath.Join(p.dir, filepath.Base(path))
	}
	return encode(c.request)
}

// parks reports whether the reply to the request in line i comes only after
// other requests, or never: the daemon must be silent meanwhile.
func (p *player) parks(i int) bool {
	requests := false
	for _, l := range p.lines[i+1:] {
		if l.Conn == p.lines[i].Conn {
			return requests && l.reply()
		}
		requests = requests || l.request()
	}
	return true
}

// awaitReply reads a reply with its descriptors and compares it.
func (p *player) awaitReply(l *line, want any, fds int) error {
	c := p.clients[l.Conn]
	if c == nil {
		return fmt.Errorf("no connection %s", l.Conn)
	}
	body, err := c.frame()
	if err != nil {
		return fmt.Errorf("expected %s, got none: %w", show(want), err)
	}
	c.unpaid = max(0, c.unpaid-1) // a create of no bytes is answered twice at once
	var live any
	if err := decode(body, &live); err != nil {
		return fmt.Errorf("expected %s, got %q: %w", show(want), body, err)
	}
	message, _ := live.(map[string]any)
	follow, wrong := announced(message, c.delivered, c.remote())
	for _, m := range follow {
		if err := c.receive(m); err != nil {
			return fmt.Errorf("descriptor %d of reply %s: %w", m.fd, show(live), err)
		}
		p.stats.Descriptors++
	}
	c.payloads, _ = payloadsOf(message)
	for _, w := range wrong {
		p.differs(l, "%s", w)
	}
	for _, d := range p.compare(l, c, reply{want, fds}, reply{live, len(follow)}) {
		p.differs(l, "%s", d)
	}
	if l.typ() == "make_arena_reply" {
		recorded, _ := asUint(l.message()["fd"])
		number, _ := asUint(message["fd"])
		if err := p.names.arenas.bind(recorded, number); err != nil {
			p.differs(l, "fd: %v", err)
		}
	}
	p.stats.Replies++
	return nil
}

// compare compares a reply with the recorded one, or with the deviation's
// answer in its place.
func (p *player) compare(l *line, c *client, recorded, live reply) []string {
	x := p.exchange(c)
	d, deviates := p.deviations[l.n]
	if !deviates || p.reference && !d.Undefined {
		return compare(x, recorded, live)
	}
	p.stats.Deviations++
	ours := reply{d.Answer, recorded.fds}
	if p.reference && len(compare(x.probe(), recorded, live)) == 0 {
		return compare(x, recorded, live)
	}
	return compare(x, ours, live)
}

func (p *player) exchange(c *client) *exchange {
	_, port, _ := strings.Cut(p.target.RPC, ":")
	x := &exchange{
		names: p.names, root: p.target.Socket, rpcPort: port, ownID: c.ownID, usage: p.setup.Usage,
		counts: map[string]uint64{"ipc_connections": 0, "rpc_connections": 0, "deferred_requests": 0},
	}
	for _, o := range p.clients {
		switch {
		case o.rpc && (c.rpc || c.socket == p.target.Socket): // the one TCP port is the root session's
			x.counts["rpc_connections"]++
		case !o.rpc && o.socket == c.socket:
			x.counts["ipc_connections"]++
		}
		if o != c && o.unpaid > 0 {
			x.counts["deferred_requests"]++
		}
	}
	return x
}

// receive takes the descriptor that follows a reply.
func (c *client) receive(m mapping) error {
	f, err := c.descriptor()
	if err != nil {
		return err
	}
	c.delivered[m.fd] = true
	return errors.Join(m.verify(f), f.Close())
}

// remote reports whether replies to the last request carry no descriptors.
func (c *client) remote() bool {
	t, _ := c.request["type"].(string)
	return c.rpc || strings.HasPrefix(t, "create_remote_") || strings.HasPrefix(t, "get_remote_")
}

// compressed reports whether the payload of the last request is.
func (c *client) compressed() bool {
	return c.request["compress"] == true
}

// sizes returns the lengths of the blobs that the last reply describes.
func (c *client) sizes() (sizes []int, total int) {
	for _, p := range c.payloads {
		n, _ := asInt(p["data_size"])
		sizes = append(sizes, int(n))
		total += int(n)
	}
	return sizes, total
}
