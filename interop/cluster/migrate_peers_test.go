//go:build linux

package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
)

// impostor is an instance of the cluster that only the test knows to be none: it
// speaks the protocol as far as the test wants, about a parcel of one blob.
type impostor struct {
	parcel
	number uint64
	blob   client.ID
	says   map[string]speech // by request; others are answered honestly

	mu    sync.Mutex
	heard map[string]int // requests
}

// speech answers a request. The connection ends after it if it returns false.
type speech func(im *impostor, w *talk, q request) bool

// request is what an impostor is asked.
type request struct {
	IDs      []uint64 `json:"ids"`
	Offsets  []uint64 `json:"offsets"`
	Lengths  []uint64 `json:"lengths"`
	Compress bool     `json:"compress"`
	Sums     bool     `json:"sums"`
}

// talk is a connection to an impostor.
type talk struct{ net.Conn }

// frame sends a frame, and bytes after it.
func (w *talk) frame(body string, payload ...byte) bool {
	b := append(binary.LittleEndian.AppendUint64(nil, uint64(len(body))), body...)
	_, err := w.Write(append(b, payload...))
	return err == nil
}

// impostors adds instances 100 and up that say what they are told to.
func (c *cluster) impostors(size int, says ...map[string]speech) (list []*impostor) {
	c.t.Helper()
	for i, say := range says {
		n := uint64(100 + i)
		im := &impostor{parcel: parcel{id: client.ID(0x6000000000000000 + n), seed: n, sizes: []int{size}}, number: n, says: say, heard: map[string]int{}}
		im.blob = im.id | 1<<63
		addr := im.listen(c.t, c.net.Hub)
		for field, value := range map[string]string{
			"hostid": fmt.Sprint(4711 + n), "hostname": `"impostor"`, "nodename": `"impostor"`, "ipc_socket": `"/nowhere"`,
			"rpc_endpoint": `"` + addr + `"`, "timestamp": fmt.Sprint(time.Now().Unix() << 32),
		} {
			must(c.t, c.etcd.put(fmt.Sprintf("/instances/i%d/%s", n, field), value))
		}
		must(c.t, c.etcd.put("/data/"+im.id.String(), fmt.Sprintf(
			`{"typename":"v%s","signature":%d,"instance_id":%d,"transient":false,"__timestamp":1,"seed":%d,"nbytes":%d,"note":"vv\"l~/.","part_0":"l%s.vineyard::Blob@%d"}`,
			parcelType, 0x5000000000000000+n, n, n, size, im.blob, n)))
		list = append(list, im)
	}
	return list
}

func (im *impostor) listen(t testing.TB, on *testserver.Host) (addr string) {
	t.Helper()
	l, err := on.Listen("tcp", on.Addr+":0")
	must(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			wg.Go(func() {
				im.serve(&talk{conn})
				conn.Close()
				mu.Lock()
				delete(open, conn)
				mu.Unlock()
			})
		}
	})
	return l.Addr().String()
}

func (im *impostor) serve(w *talk) {
	for {
		var header [8]byte
		if _, err := io.ReadFull(w, header[:]); err != nil {
			return
		}
		body := make([]byte, binary.LittleEndian.Uint64(header[:]))
		if _, err := io.ReadFull(w, body); err != nil {
			return
		}
		var what struct{ Type string }
		var q request
		if json.Unmarshal(body, &what) != nil || json.Unmarshal(body, &q) != nil {
			return
		}
		im.mu.Lock()
		im.heard[what.Type]++
		im.mu.Unlock()
		say := im.says[what.Type]
		if say == nil {
			say = honest[what.Type]
		}
		if say == nil || !say(im, w, q) {
			return
		}
	}
}

func (im *impostor) asked(what string) int {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.heard[what]
}

const (
	registerRequest = "register_request"
	peerRequest     = "v6d_peer_request"
	sizesRequest    = "v6d_blob_sizes_request"
	rangesRequest   = "v6d_read_ranges_request"
	classicRequest  = "get_remote_buffers_request"
)

func registered(number uint64, extensions string) string {
	return fmt.Sprintf(`{"type":"register_reply","ipc_socket":"/nowhere","rpc_endpoint":"x:1","instance_id":%d,"session_id":0,"version":"0.24.2",`+
		`"store_match":true,"support_rpc_compression":true%s}`, number, extensions)
}

// honest are the answers of an instance that has the blob.
var honest = map[string]speech{
	registerRequest: func(im *impostor, w *talk, _ request) bool {
		return w.frame(registered(im.number, `,"extensions":["v6d_status_request"]`))
	},
	peerRequest: say(`{"type":"v6d_peer_reply","nonce":"abc","socket":""}`),
	sizesRequest: func(im *impostor, w *talk, _ request) bool {
		return w.frame(fmt.Sprintf(`{"type":"v6d_blob_sizes_reply","sizes":[%d]}`, im.sizes[0]))
	},
	rangesRequest: func(im *impostor, w *talk, q request) bool {
		return im.ranges(w, q, func(b []byte) []byte { return b })
	},
}

// ranges answers with what a function makes of the bytes that were asked for.
func (im *impostor) ranges(w *talk, q request, change func([]byte) []byte) bool {
	var all []byte
	var sums []uint32
	for i := range q.IDs {
		b := im.content(0)[q.Offsets[i]:][:q.Lengths[i]]
		sums = append(sums, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		all = append(all, b...)
	}
	if !q.Sums {
		sums = []uint32{}
	}
	text, _ := json.Marshal(sums)
	return w.frame(`{"type":"v6d_read_ranges_reply","compress":false,"sums":`+string(text)+`}`, change(all)...)
}

// say answers with a frame.
func say(body string) speech {
	return func(_ *impostor, w *talk, _ request) bool { return w.frame(body) }
}

// spit answers with bytes.
func spit(b string) speech {
	return func(_ *impostor, w *talk, _ request) bool {
		_, err := io.WriteString(w, b)
		return err == nil
	}
}

// mute answers nothing.
func mute(*impostor, *talk, request) bool { return true }

// hangUp ends the connection.
func hangUp(*impostor, *talk, request) bool { return false }

// bend answers with changed bytes.
func bend(change func([]byte) []byte) speech {
	return func(im *impostor, w *talk, q request) bool { return im.ranges(w, q, change) }
}

// classic makes a speech of get_remote_buffers from payloads, in which ID and SIZE
// stand for the blob and its size.
func classic(payload string, bytes func(im *impostor) []byte) map[string]speech {
	return map[string]speech{
		registerRequest: func(im *impostor, w *talk, _ request) bool { return w.frame(registered(im.number, "")) },
		classicRequest: func(im *impostor, w *talk, q request) bool {
			p := strings.NewReplacer("ID", fmt.Sprint(uint64(im.blob)), "SIZE", fmt.Sprint(im.sizes[0])).Replace(payload)
			return w.frame(fmt.Sprintf(`{"type":"get_buffers_reply","num":%d,"payloads":[%s],"fds":[],"compress":%t}`,
				strings.Count(p, "object_id"), p, q.Compress), bytes(im)...)
		},
	}
}

const payloadText = `{"object_id":ID,"store_fd":1,"data_offset":64,"data_size":SIZE,"map_size":4096,"pointer":0,"is_sealed":true,"is_owner":true,"is_gpu":false}`

// memoryOf is the memory of a process, less what is the pool's.
func memoryOf(t testing.TB, pid int) (bytes int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	var anon int64
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &anon); err == nil {
			return anon << 10
		}
	}
	return 0
}

// lie is what an impostor says, and what comes of it.
type lie struct {
	name string
	says map[string]speech
	o    client.MigrateOptions
	want string // "" for success
}

// TestImpostors pulls from peers that lie: about sizes, ids, checksums, frames. Each
// is an error in time, or does no harm; nothing is left, nothing grows.
func TestImpostors(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := hosts(t, 1, noOptions)
	to := c.add(0, c.etcd.Endpoint())
	to.start()
	kept, err := to.things(1, 4) // so that something is in use
	must(t, err)
	const size = 3*mib + 5
	sizes := func(list string) map[string]speech {
		return map[string]speech{sizesRequest: say(`{"type":"v6d_blob_sizes_reply","sizes":` + list + `}`)}
	}
	instead := func(what string, s speech) map[string]speech { return map[string]speech{what: s} }
	half := func(b []byte) []byte { return b[:(len(b)+1)/2] }
	payloadOf := func(size string) map[string]speech {
		return classic(strings.Replace(payloadText, "SIZE", size, 1), func(*impostor) []byte { return make([]byte, 1000) })
	}
	whole := func(im *impostor) []byte { return im.content(0) }
	verify := client.MigrateOptions{Verify: true}
	squeezed := client.MigrateOptions{Compress: "on"}
	compressed := func(b string) speech {
		return func(_ *impostor, w *talk, _ request) bool {
			return w.frame(`{"type":"v6d_read_ranges_reply","compress":true,"sums":[1]}`, []byte(b)...)
		}
	}
	count := func(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }
	cases := []lie{
		{"honest", nil, client.MigrateOptions{}, ""},
		{"honest, verified", nil, verify, ""},
		{"honest, classic", classic(payloadText, whole), client.MigrateOptions{}, ""},
		{"larger than the pool", sizes("[1099511627776]"), client.MigrateOptions{}, "allocate"},
		{"2^62", sizes("[4611686018427387904]"), client.MigrateOptions{}, "allocate"},
		{"2^63", sizes("[9223372036854775808]"), client.MigrateOptions{}, "claims"},
		{"2^64-1", sizes("[18446744073709551615]"), client.MigrateOptions{}, "claims"},
		{"a negative size", sizes("[-5]"), client.MigrateOptions{}, "claims"},
		{"no size", sizes("[]"), client.MigrateOptions{}, "0 sizes came for 1 blobs"},
		{"two sizes", sizes("[1,2]"), client.MigrateOptions{}, "2 sizes came for 1 blobs"},
		{"text", sizes(`"many"`), client.MigrateOptions{}, "sizes"},
		{"no such blob", instead(sizesRequest, say(`{"code":12,"message":"no blob"}`)), client.MigrateOptions{}, "deleted"},
		{"an unknown code", instead(sizesRequest, say(`{"code":77777777777,"message":"odd"}`)), client.MigrateOptions{}, "odd"},
		{"a long message", instead(sizesRequest, say(`{"code":1,"message":"`+strings.Repeat("long ", 1<<20)+`"}`)), client.MigrateOptions{}, "long"},
		{"no access", instead(registerRequest, say(`{"code":34,"message":"who are you"}`)), client.MigrateOptions{}, "who are you"},
		{"another instance", instead(registerRequest, func(im *impostor, w *talk, _ request) bool {
			return w.frame(registered(77, `,"extensions":["v6d_status_request"]`))
		}), client.MigrateOptions{}, "77"},
		{"half of each piece", instead(rangesRequest, func(im *impostor, w *talk, q request) bool { im.ranges(w, q, half); return false }), client.MigrateOptions{}, ""},
		{"half of each piece, verified", instead(rangesRequest, func(im *impostor, w *talk, q request) bool { im.ranges(w, q, half); return false }), verify, "again and again"},
		{"no bytes", instead(rangesRequest, func(im *impostor, w *talk, q request) bool {
			im.ranges(w, q, func([]byte) []byte { return nil })
			return false
		}), client.MigrateOptions{}, "again and again"},
		{"more bytes", instead(rangesRequest, bend(func(b []byte) []byte { return append(b, "more than was asked for"...) })), client.MigrateOptions{}, ""},
		{"wrong bytes, verified", instead(rangesRequest, bend(func(b []byte) []byte { b[len(b)/2]++; return b })), verify, "checksum"},
		{"no checksums", instead(rangesRequest, say(`{"type":"v6d_read_ranges_reply","compress":false,"sums":[]}`)), verify, "checksums"},
		{"no zstd", instead(rangesRequest, compressed(count(5)+"12345")), squeezed, "again and again"},
		{"a chunk of 2^62 bytes", instead(rangesRequest, compressed(count(1<<62)+"12345")), squeezed, "again and again"},
		{"empty chunks", instead(rangesRequest, compressed(strings.Repeat("\x00", 1<<20))), squeezed, "again and again"},
		{"hangs up at each range", instead(rangesRequest, hangUp), client.MigrateOptions{}, "again and again"},
		{"hangs up at sizes", instead(sizesRequest, hangUp), client.MigrateOptions{}, "v6d_blob_sizes_request"},
		{"a web server", instead(sizesRequest, spit("HTTP/1.1 400 Bad Request\r\n\r\n")), client.MigrateOptions{}, "frame is too long"},
		{"a frame of 2^64-1 bytes", instead(rangesRequest, spit(count(1<<64-1))), client.MigrateOptions{}, "frame is too long"},
		{"no JSON", instead(sizesRequest, say(`{"type":`)), client.MigrateOptions{}, "not valid JSON"},
		{"nested", instead(sizesRequest, say(strings.Repeat("[", 1<<20))), client.MigrateOptions{}, "not valid JSON"},
		{"another reply", instead(sizesRequest, say(`{"type":"exists_reply","exists":true}`)), client.MigrateOptions{}, "exists_reply"},
		{"empty frames", instead(rangesRequest, say("")), client.MigrateOptions{}, "not valid JSON"},
		{"a socket that is none", instead(peerRequest, say(`{"type":"v6d_peer_reply","nonce":"abc","socket":"/dev/zero"}`)), client.MigrateOptions{}, ""},
		{"the asker's socket", instead(peerRequest, say(`{"type":"v6d_peer_reply","nonce":"abc","socket":"`+to.socket+`"}`)), client.MigrateOptions{}, ""},
		{"slow to say who it is", instead(peerRequest, func(im *impostor, w *talk, q request) bool {
			time.Sleep(3 * time.Second)
			return honest[peerRequest](im, w, q)
		}), client.MigrateOptions{}, ""},
		{"classic, 2^63-1", payloadOf("9223372036854775807"), client.MigrateOptions{}, "claims"},
		{"classic, 2^63-1000", payloadOf("9223372036854774808"), client.MigrateOptions{}, "claims"},
		{"classic, -1", payloadOf("-1"), client.MigrateOptions{}, "claims -1 bytes"},
		{"classic, larger than the pool", payloadOf("1099511627776"), client.MigrateOptions{}, "allocate"},
		{"classic, another blob", classic(strings.Replace(payloadText, "ID", "9223372036854775809", 1), whole), client.MigrateOptions{}, "deleted"},
		{"classic, no blob", classic("", whole), client.MigrateOptions{}, "deleted"},
		{"classic, two blobs", classic(payloadText+","+payloadText, func(im *impostor) []byte {
			return append(im.content(0), im.content(0)...)
		}), client.MigrateOptions{}, "2 blobs"},
		{"classic, few bytes", payloadOf("SIZE"), client.MigrateOptions{}, "get_remote_buffers"},
		{"classic, no zstd", payloadOf("SIZE"), squeezed, "get_remote_buffers"},
	}
	// Who says too few bytes waits for more; these end their connections.
	for i := range cases {
		if s := cases[i].says[classicRequest]; s != nil {
			cases[i].says[classicRequest] = func(im *impostor, w *talk, q request) bool { s(im, w, q); return false }
		}
	}
	var says []map[string]speech
	for _, tt := range cases {
		says = append(says, tt.says)
	}
	list := c.impostors(size, says...)
	before := to.mustBooks()
	st, err := to.status()
	must(t, err)
	memory := memoryOf(t, st.PID)
	var wg sync.WaitGroup
	turns := make(chan struct{}, 8)
	for i, tt := range cases {
		im := list[i]
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			asking, cancel := context.WithTimeout(ctx, 12*time.Second)
			defer cancel()
			r := to.migrate(asking, im.id, tt.o)
			switch {
			case tt.want == "" && r.err != nil:
				t.Errorf("%s: after %v: %.200v", tt.name, r.took, r.err)
			case tt.want != "" && (r.err == nil || !strings.Contains(r.err.Error(), tt.want) || errors.Is(r.err, context.DeadlineExceeded)):
				t.Errorf("%s: after %v: %.300v, which says nothing of %q", tt.name, r.took, r.err, tt.want)
			case r.err == nil:
				if err := to.arrived(im.parcel, r.ID); err != nil {
					t.Errorf("%s: %v", tt.name, err)
				}
				to.drop(r.ID)
			default:
				t.Logf("%s: after %v: %.200v", tt.name, r.took, r.err)
			}
			// The same of the cache.
			if tt.o != (client.MigrateOptions{}) {
				return
			}
			err := to.do(func(ctx context.Context, c *client.Client) error {
				ctx, cancel := context.WithTimeout(ctx, 12*time.Second)
				defer cancel()
				b, err := c.FetchBlobs(ctx, client.InstanceID(im.number), []client.ID{im.blob})
				if err == nil && !bytes.Equal(b[0].Bytes(), im.content(0)) {
					t.Errorf("%s: %d bytes of the cache are not those of the blob", tt.name, len(b[0].Bytes()))
				}
				return err
			})
			if want := strings.Replace(tt.want, "deleted", "not on instance", 1); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, fetched: %.300v", tt.name, err)
			}
		})
	}
	wg.Wait()
	if !to.running() {
		t.Fatal("the daemon is gone")
	}
	must(t, to.do(func(ctx context.Context, c *client.Client) error { // what was fetched stays otherwise
		for row, err := range c.BlobRows(ctx) {
			if err != nil {
				return err
			}
			if row.Where != "cache" {
				continue
			}
			if err := c.DropBlob(ctx, row.ID); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, to.unchanged(before), to.keeps(kept))
	if now := memoryOf(t, st.PID); now > memory+200*mib {
		t.Errorf("the daemon had %d MiB, it has %d MiB", memory/mib, now/mib)
	}
	for i, tt := range cases {
		if n := list[i].asked(rangesRequest); n > 200 {
			t.Errorf("%s: parts of one blob were asked for %d times", tt.name, n)
		}
	}
}

// TestEndlessFrame pulls from a peer whose reply does not end: it is not kept.
func TestEndlessFrame(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := hosts(t, 1, noOptions)
	to := c.add(0, c.etcd.Endpoint())
	to.start()
	im := c.impostors(1000, map[string]speech{sizesRequest: func(_ *impostor, w *talk, _ request) bool {
		piece := bytes.Repeat([]byte(" "), mib)
		if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, 1<<39)); err != nil {
			return false
		}
		for range 1000 {
			if _, err := w.Write(piece); err != nil {
				return false
			}
		}
		return true
	}})[0]
	st, err := to.status()
	must(t, err)
	r := to.migrating(ctx, im.id, client.MigrateOptions{})
	for done := false; !done; {
		select {
		case <-r:
			done = true
		case <-time.After(100 * time.Millisecond):
		}
		if n := memoryOf(t, st.PID); n > 500*mib {
			t.Fatalf("the daemon has %d MiB", n/mib)
		}
	}
}

// TestMuteImpostors pulls from peers that answer some requests and not others: the
// patience with them has an end.
func TestMuteImpostors(t *testing.T) {
	heavy(t)
	t.Parallel()
	c := hosts(t, 1, noOptions)
	to := c.add(0, c.etcd.Endpoint())
	to.start()
	says := []map[string]speech{
		{sizesRequest: mute},
		{rangesRequest: mute},
		{rangesRequest: say(`{"type":"v6d_read_ranges_reply","compress":false,"sums":[]}`)},
		{registerRequest: mute},
		{registerRequest: func(im *impostor, w *talk, _ request) bool { return w.frame(registered(im.number, "")) }, classicRequest: mute},
	}
	list := c.impostors(mib, says...)
	before := to.mustBooks()
	var wg sync.WaitGroup
	for i, im := range list {
		wg.Go(func() {
			r := to.migrate(ctx, im.id, client.MigrateOptions{})
			if !errors.Is(r.err, client.Unreachable) || !strings.Contains(r.err.Error(), fmt.Sprintf("instance %d", im.number)) ||
				r.took < 18*time.Second || r.took > 50*time.Second {
				t.Errorf("mute in way %d: after %v: %v", i, r.took, r.err)
			}
			t.Logf("mute in way %d: after %v: %v", i, r.took, r.err)
		})
	}
	done := make(chan struct{})
	var beat sync.WaitGroup
	beat.Go(func() { // or they would be taken for dead
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Second):
			}
			for _, im := range list {
				_ = c.etcd.put(fmt.Sprintf("/instances/i%d/timestamp", im.number), fmt.Sprint(time.Now().Unix()<<32))
			}
		}
	})
	wg.Wait()
	close(done)
	beat.Wait()
	must(t, to.unchanged(before))
}
