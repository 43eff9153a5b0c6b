package server

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/v6d-go/v6d/internal/sys"
)

// parked knows the clients that wait for others, and looks now and then whether
// they are still there. It looks without reading: a byte that waits belongs to
// the next request. One goroutine does it, as long as anybody waits.
type parked struct {
	mu      sync.Mutex
	waiting map[*parkedConn]struct{} // guarded by mu
	looking bool                     // guarded by mu: the goroutine runs
}

type parkedConn struct {
	raw  syscall.RawConn
	gone context.CancelCauseFunc
}

// watch calls gone when the client hangs up before done is called.
func (p *parked) watch(raw syscall.RawConn, gone context.CancelCauseFunc) (done func()) {
	c := &parkedConn{raw, gone}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = map[*parkedConn]struct{}{}
	}
	p.waiting[c] = struct{}{}
	if !p.looking {
		p.looking = true
		go p.look()
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.waiting, c)
	}
}

// look ends some rounds after the last client stopped waiting: streams park and
// go on thousands of times a second.
func (p *parked) look() {
	tick := time.NewTicker(hangupEvery)
	defer tick.Stop()
	for idle := 0; ; idle++ {
		<-tick.C
		p.mu.Lock()
		if len(p.waiting) > 0 {
			idle = 0
		} else if idle >= 10 {
			p.looking = false
			p.mu.Unlock()
			return
		}
		for c := range p.waiting {
			if sys.HungUp(c.raw) {
				c.gone(errHungUp)
			}
		}
		p.mu.Unlock()
	}
}
