package testserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// ProxyOptions say where a proxy listens and whom it calls. The functions let it
// stand in another network, or between two: those of a Host fit.
type ProxyOptions struct {
	Listen string // address; any port of 127.0.0.1 by default
	Target string

	ListenFunc func(network, addr string) (net.Listener, error)                  // net.Listen by default
	DialFunc   func(ctx context.Context, network, addr string) (net.Conn, error) // net.Dialer's by default
}

// Proxy hands TCP connections on to a target, as late and as badly as a test
// wants. Cleanup closes it and all its connections. A frozen connection does not
// see that its client is gone: Heal before a Daemon's end looks for leaks.
type Proxy struct {
	Addr string // where it listens

	t  testing.TB
	o  ProxyOptions
	wg sync.WaitGroup

	mu       sync.Mutex
	delay    time.Duration      // guarded by mu, as everything below
	listener net.Listener       // nil while it refuses
	open     chan struct{}      // closed while bytes may pass
	links    map[*link]struct{} // the connections
}

// Fault is how a proxy is cut.
type Fault int

const (
	// Refuse resets the connections and refuses new ones: the target's process died.
	Refuse Fault = iota
	// BlackHole resets the connections; new ones come about, but nothing passes
	// until Heal: the target restarted, and hangs.
	BlackHole
	// Freeze lets nothing pass until Heal, on connections old or new: the network
	// between the two is cut. Nothing is lost.
	Freeze
)

// link is one connection through the proxy.
type link struct {
	client net.Conn
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	mu     sync.Mutex
	target net.Conn // nil until it is dialled; guarded by mu
}

// chunk is what was read at once, to be written when it is due. An error is the
// stream's end: io.EOF, or what makes it a reset.
type chunk struct {
	b   []byte
	err error
	due time.Time
}

// StartProxy runs a proxy until the test ends.
func StartProxy(t testing.TB, o ProxyOptions) *Proxy {
	t.Helper()
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.ListenFunc == nil {
		o.ListenFunc = net.Listen
	}
	if o.DialFunc == nil {
		o.DialFunc = (&net.Dialer{}).DialContext
	}
	p := &Proxy{t: t, o: o, open: make(chan struct{}), links: map[*link]struct{}{}}
	close(p.open)
	p.Addr = o.Listen
	p.listen()
	p.Addr = p.listener.Addr().String()
	t.Cleanup(func() {
		p.Cut(Refuse)
		p.wg.Wait()
	})
	return p
}

// SetDelay makes bytes take d longer each way from now on. They stay in order.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Cut disturbs the connections until Heal.
func (p *Proxy) Cut(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default: // cut already
	}
	if f == Refuse && p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	if f != Freeze {
		for l := range p.links {
			l.end(true)
		}
	}
}

// Heal undoes Cut. What a frozen connection sent goes on.
func (p *Proxy) Heal() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
	if p.listener == nil {
		p.listen()
	}
}

// listen is called with mu held, or before anybody else knows the proxy.
func (p *Proxy) listen() {
	p.t.Helper()
	l, err := p.o.ListenFunc("tcp", p.Addr)
	if err != nil {
		p.t.Fatalf("proxy: %v", err)
	}
	p.listener = l
	p.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			p.admit(l, conn)
		}
	})
}

// admit starts to serve a connection, unless the listener it came from has been
// closed since.
func (p *Proxy) admit(from net.Listener, conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &link{client: conn}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if p.listener != from {
		l.end(true)
		return
	}
	p.links[l] = struct{}{}
	p.wg.Go(func() {
		p.serve(l)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.links, l)
	})
}

// gate returns a channel that is closed once bytes may pass, and the delay.
func (p *Proxy) gate() (<-chan struct{}, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open, p.delay
}

func (p *Proxy) serve(l *link) {
	open, _ := p.gate()
	select {
	case <-open:
	case <-l.ctx.Done():
		return
	}
	target, err := p.o.DialFunc(l.ctx, "tcp", p.o.Target)
	if err != nil || !l.connected(target) {
		l.end(true)
		return
	}
	var wg sync.WaitGroup
	for _, way := range []struct{ to, from net.Conn }{{target, l.client}, {l.client, target}} {
		chunks := make(chan chunk, 64)
		wg.Go(func() { p.read(l, way.from, chunks) })
		wg.Go(func() { p.write(l, way.to, chunks) })
	}
	wg.Wait()
	l.end(false)
}

// read takes bytes from one side until that side has no more.
func (p *Proxy) read(l *link, from net.Conn, chunks chan<- chunk) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		_, delay := p.gate()
		select {
		case chunks <- chunk{bytes.Clone(buf[:n]), err, time.Now().Add(delay)}:
		case <-l.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// write gives bytes to the other side when they are due, and tells it the end.
func (p *Proxy) write(l *link, to net.Conn, chunks <-chan chunk) {
	for {
		var c chunk
		select {
		case c = <-chunks:
		case <-l.ctx.Done():
			return
		}
		if wait := time.Until(c.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-l.ctx.Done():
				return
			}
		}
		open, _ := p.gate()
		select {
		case <-open:
		case <-l.ctx.Done():
			return
		}
		_, err := to.Write(c.b)
		switch {
		case err != nil, c.err != nil && !errors.Is(c.err, io.EOF):
			l.end(true)
			return
		case c.err != nil:
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite() // or the connection has ended anyway
			}
			return
		}
	}
}

// connected gives the link its target, if the link has not ended meanwhile.
func (l *link) connected(target net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		target.Close()
		return false
	}
	l.target = target
	return true
}

// end closes both sides, with a reset if so told.
func (l *link) end(reset bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return
	}
	l.cancel()
	for _, conn := range []net.Conn{l.client, l.target} {
		if conn == nil {
			continue
		}
		if tcp, ok := conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0) // it is closed anyway
		}
		conn.Close()
	}
}
