package protocol

import (
	"strings"

	"github.com/v6d-go/v6d/internal/object"
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
		Pattern string      `wire:"pattern,optional"` // glob on the typename; empty for all
		Name    string      `wire:"name,optional"`    // glob on the object's names; empty for all
		Cursor  string      `wire:"cursor,optional"`  // from the page before
		Limit   uint64      `wire:"limit,optional"`   // most objects in one page; 0 for the daemon's choice
		Fields  []string    `wire:"fields,optional"`  // keys of the rows; empty for the usual ones
		Blobs   bool        `wire:"blobs,optional"`   // list sealed blobs instead of objects
		IDs     []object.ID `wire:"ids,optional"`     // these objects only, those that exist, in one page
	}
	PageReply struct {
		Items  wirejson.Value `wire:"items"`  // [{id, typename, …}]
		Cursor string         `wire:"cursor"` // "" on the last page
	}
	CreateSharedRequest struct {
		ID          object.ID `wire:"id"`
		RetainAll   bool      `wire:"retain_all,optional"`
		RetainBytes uint64    `wire:"retain_bytes,optional"`
		RetainMS    uint64    `wire:"retain_ms,optional"`
	}
	OpenEndRequest struct {
		ID     object.ID `wire:"id"`
		Write  bool      `wire:"write,optional"`  // the writing end
		Reader string    `wire:"reader,optional"` // whose cursor; empty for one that ends with the connection
		Newest bool      `wire:"newest,optional"` // a new cursor begins behind the newest chunk
	}
	OpenEndReply struct {
		Shared bool   `wire:"shared"` // false: one of a 0.24 client, to be used with the requests of 0.24
		At     uint64 `wire:"at"`     // number of the next chunk of that cursor
	}
	WriteChunkRequest struct {
		ID   object.ID `wire:"id"`
		Done object.ID `wire:"done,optional"` // chunk that this request returned before, now filled; 0 for none
		Used uint64    `wire:"used,optional"` // bytes of it that were filled
		Size uint64    `wire:"size,optional"` // of the chunk to return; 0 for none. Over TCP: wait for room, and return none
	}
	ReadChunksRequest struct {
		ID     object.ID `wire:"id"`
		Reader string    `wire:"reader,optional"`
		Done   uint64    `wire:"done"`           // chunks before this number are given back
		Limit  uint64    `wire:"limit,optional"` // most chunks to return; 0 to give back only
	}
	ReadChunksReply struct {
		First    uint64      `wire:"first"`    // number of the first chunk
		IDs      []object.ID `wire:"ids"`      // blobs and objects
		Payloads Payloads    `wire:"payloads"` // of the blobs, over IPC: each is held until it is given back
		FDs      []int64     `wire:"fds"`      // as in get_buffers_reply
	}
	EndStreamRequest struct {
		ID     object.ID `wire:"id"`
		Failed bool      `wire:"failed"`
		Reason string    `wire:"reason,optional"` // of a failure, for the readers
	}
	ForgetReaderRequest struct {
		ID     object.ID `wire:"id"`
		Reader string    `wire:"reader"`
		Close  bool      `wire:"close,optional"` // only end this connection's use of the cursor
	}
	StreamsReply struct {
		Streams wirejson.Value `wire:"streams"` // see docs/json-output.md
	}
	NodeStatusReply struct {
		Status wirejson.Value `wire:"status"` // see docs/json-output.md
	}
	PeerReply struct {
		Nonce  string `wire:"nonce"`  // the same over IPC and TCP, and nobody else's: see package migrate
		Socket string `wire:"socket"` // the session's, on its host
	}
	BlobSizesReply struct {
		Sizes []uint64 `wire:"sizes"` // of the sealed blobs, in the order asked
	}
	ReadRangesRequest struct {
		IDs      []object.ID `wire:"ids"` // of sealed blobs, each at most once
		Offsets  []uint64    `wire:"offsets"`
		Lengths  []uint64    `wire:"lengths"`
		Compress bool        `wire:"compress,optional"`
		Sums     bool        `wire:"sums,optional"` // CRC-32C of each range as well
	}
	ReadRangesReply struct {
		Compress bool     `wire:"compress"` // the bytes follow in the form of get_remote_buffers
		Sums     []uint64 `wire:"sums"`     // empty unless asked for
	}
	MigrateToRequest struct {
		ObjectID object.ID `wire:"object_id"`
		Parallel uint64    `wire:"parallel,optional"` // connections; 0 for the daemon's choice
		Limit    uint64    `wire:"limit,optional"`    // bytes a second; 0 for none
		Compress string    `wire:"compress,optional"` // auto, on or off; empty for auto
		Verify   bool      `wire:"verify,optional"`   // compare checksums
		Names    bool      `wire:"names,optional"`    // the copy takes the names of the original over
	}
	MigrateToReply struct {
		ObjectID object.ID      `wire:"object_id"` // of the copy; the same when the object was here
		Transfer wirejson.Value `wire:"transfer"`  // see docs/json-output.md
	}
	FetchRequest struct {
		Instance object.InstanceID `wire:"instance"`
		IDs      []object.ID       `wire:"ids"`
	}
)

var (
	Watch        = Define[WatchRequest, WatchReply]("v6d_watch_request", "v6d_watch_reply", "events since a cursor, or wait for one")
	Page         = Define[PageRequest, PageReply]("v6d_list_request", "v6d_list_reply", "one page of objects or blobs, chosen fields only")
	CreateShared = Define[CreateSharedRequest, None]("v6d_create_stream_request", "v6d_create_stream_reply", "make an id a shared stream")
	OpenEnd      = Define[OpenEndRequest, OpenEndReply]("v6d_open_stream_request", "v6d_open_stream_reply", "claim the writing end of a stream, or open a cursor")
	WriteChunk   = Define[WriteChunkRequest, NextChunkReply]("v6d_write_stream_request", "v6d_write_stream_reply", "queue a filled chunk, and get memory for the next one")
	ReadChunks   = Define[ReadChunksRequest, ReadChunksReply]("v6d_read_stream_request", "v6d_read_stream_reply", "give chunks back, and get the next ones")
	EndStream    = Define[EndStreamRequest, None]("v6d_stop_stream_request", "v6d_stop_stream_reply", "end a stream, in failure with a reason")
	ForgetReader = Define[ForgetReaderRequest, None]("v6d_forget_reader_request", "v6d_forget_reader_reply", "remove a reader of a shared stream")
	Streams      = Define[None, StreamsReply]("v6d_streams_request", "v6d_streams_reply", "the streams of this session")

	Peer       = Define[None, PeerReply]("v6d_peer_request", "v6d_peer_reply", "tell daemons of one host from others")
	BlobSizes  = Define[IDListRequest, BlobSizesReply]("v6d_blob_sizes_request", "v6d_blob_sizes_reply", "sizes of sealed blobs")
	ReadRanges = Define[ReadRangesRequest, ReadRangesReply]("v6d_read_ranges_request", "v6d_read_ranges_reply", "read parts of blobs; their bytes follow the reply")
	MigrateTo  = Define[MigrateToRequest, MigrateToReply]("v6d_migrate_request", "v6d_migrate_reply", "bring an object to this instance, and tell how")
	FetchBlobs = Define[FetchRequest, GetBuffersReply]("v6d_fetch_request", "v6d_fetch_reply", "get blobs of another instance, through a cache here")

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
