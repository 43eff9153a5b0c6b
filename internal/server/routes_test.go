package server

import (
	"testing"

	"github.com/v6d-go/v6d/internal/protocol"
)

// TestEveryMessageHasAHandler compares the routing table with the definitions.
func TestEveryMessageHasAHandler(t *testing.T) {
	defined := map[string]bool{}
	for _, m := range protocol.Messages() {
		if defined[m.Request] {
			t.Errorf("%s is defined twice", m.Request)
		}
		defined[m.Request] = true
		h := handlers[m.Request]
		if h == nil {
			t.Errorf("%s has no handler", m.Request)
			continue
		}
		if h.extension != protocol.IsExtension(m.Request) {
			t.Errorf("%s: extension is %v", m.Request, h.extension)
		}
		early := m.Request == protocol.Register.Request || m.Request == protocol.Exit.Request
		if h.early != early {
			t.Errorf("%s: served before register: %v", m.Request, h.early)
		}
	}
	for request := range handlers {
		if !defined[request] {
			t.Errorf("%s has a handler but no definition", request)
		}
	}
	if len(defined) < 50 {
		t.Errorf("only %d messages are defined", len(defined))
	}
}
