package protocol

import (
	"strings"

	"github.com/v6d-go/v6d/internal/wirejson"
)

// Extensions is the list of v6d's own requests that a daemon offers in its
// register reply, and only to a client that listed extensions itself: 0.24
// clients never see one.
type Extensions []string

func (l *Extensions) decodeField(members []wirejson.Member, key string) error {
	*l = (*l)[:0]
	v, _ := lookup(members, key)
	for e := range v.Elements() {
		s, err := e.Text()
		if err != nil {
			return err
		}
		*l = append(*l, s)
	}
	return nil
}

func (l *Extensions) appendField(b []byte, key string) []byte {
	if len(*l) == 0 {
		return b
	}
	b = append(b, ',')
	b = append(wirejson.AppendKey(b, key), '[')
	for i, s := range *l {
		if i > 0 {
			b = append(b, ',')
		}
		b = wirejson.AppendString(b, s)
	}
	return append(b, ']')
}

func (*Extensions) describe() string { return "[string], only in answer to a client that sent its own" }

// The extension requests. Names start with v6d_; a daemon that does not know
// one answers Invalid (1), which the client reports as "needs a v6d daemon".
type (
	WatchRequest struct {
		Cursor  uint64 `wire:"cursor,optional"`  // 0: from now on
		Pattern string `wire:"pattern,optional"` // glob on the typename; empty for all
		WaitMS  uint64 `wire:"wait_ms,optional"` // how long to wait for a first event
		Limit   uint64 `wire:"limit,optional"`   // most events in one reply; 0 for the daemon's choice
	}
	WatchReply struct {
		Events wirejson.Value `wire:"events"` // [{seq, time_ms, event, id, typename, name}]
		Cursor uint64         `wire:"cursor"` // to send next time
		Lost   bool           `wire:"lost"`   // events between the cursor and the first one were forgotten
	}
	PageRequest struct {
		Pattern string   `wire:"pattern,optional"` // glob on the typename; empty for all
		Name    string   `wire:"name,optional"`    // glob on the object's names; empty for all
		Cursor  string   `wire:"cursor,optional"`  // from the page before
		Limit   uint64   `wire:"limit,optional"`   // most objects in one page; 0 for the daemon's choice
		Fields  []string `wire:"fields,optional"`  // keys of the rows; empty for the usual ones
		Blobs   bool     `wire:"blobs,optional"`   // list sealed blobs instead of objects
	}
	PageReply struct {
		Items  wirejson.Value `wire:"items"`  // [{id, typename, …}]
		Cursor string         `wire:"cursor"` // "" on the last page
	}
	NodeStatusReply struct {
		Status wirejson.Value `wire:"status"` // see docs/json-output.md
	}
)

var (
	Watch      = Define[WatchRequest, WatchReply]("v6d_watch_request", "v6d_watch_reply", "events since a cursor, or wait for one")
	Page       = Define[PageRequest, PageReply]("v6d_list_request", "v6d_list_reply", "one page of objects or blobs, chosen fields only")
	NodeStatus = Define[None, NodeStatusReply]("v6d_status_request", "v6d_status_reply", "pool, ledger, journal and connections of this node")
)

// IsExtension reports whether a request is v6d's own.
func IsExtension(request string) bool { return strings.HasPrefix(request, "v6d_") }

// ExtensionNames lists the extension requests of this build.
func ExtensionNames() []string {
	var names []string
	for _, m := range registry {
		if IsExtension(m.Request) {
			names = append(names, m.Request)
		}
	}
	return names
}
