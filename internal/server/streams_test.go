package server_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

const (
	nextChunk = "get_next_stream_chunk_request"
	pushChunk = "push_next_stream_chunk_request"
	pullChunk = "pull_next_stream_chunk_request"
	stopChunk = "stop_stream_request"
	dropChunk = "drop_stream_request"
	// shortly is how long a request that must wait is watched.
	shortly = 30 * time.Millisecond
)

// streamed is a daemon with a pool of 16 MiB, of which streams may use 12.8, a
// stream 1, and a connection for each side of it.
func streamed(t testing.TB) (d *testserver.Daemon, writer, reader, other *raw) {
	d = startSized(t, "16MiB", false)
	writer, reader, other = connect(t, d), connect(t, d), connect(t, d)
	writer.call("create_stream_request", "object_id", 1)
	return d, writer, reader, other
}

func (c *raw) next(size int) payload {
	c.t.Helper()
	return c.call(nextChunk, "id", 1, "size", size).payload("buffer")
}

func (c *raw) pull() uint64 { c.t.Helper(); return c.call(pullChunk, "id", 1).id("chunk") }

// waits waits until so many requests wait in the root session.
func waits(t testing.TB, d *testserver.Daemon, n int64) {
	t.Helper()
	waitStatus(t, d, fmt.Sprintf("%d requests to wait", n), func(s server.Status) bool { return s.Sessions[0].Deferred == n })
}

// TestStreamErrors: every misuse has its code.
func TestStreamErrors(t *testing.T) {
	_, w, r, _ := streamed(t)
	w.refused(status.ObjectExists, "create_stream_request", "object_id", 1)
	for _, mode := range []int{1, 2} {
		w.call("open_stream_request", "object_id", 1, "mode", mode)
		r.refused(status.StreamOpened, "open_stream_request", "object_id", 1, "mode", mode)
	}
	r.refused(status.StreamOpened, "open_stream_request", "object_id", 1, "mode", 3)
	r.call("open_stream_request", "object_id", 1, "mode", 0)
	for typ, kv := range map[string][]any{
		"open_stream_request": {"object_id", 2, "mode", 1}, nextChunk: {"id", 2, "size", 1}, pushChunk: {"id", 2, "chunk", 1},
		pullChunk: {"id", 2}, stopChunk: {"id", 2, "failed", false}, dropChunk: {"id", 2},
	} {
		w.refused(status.ObjectNotExists, typ, kv...)
	}
	w.refused(status.Invalid, stopChunk, "id", 1) // failed is required
	for _, size := range []uint64{13 * mib, 16 * mib, 1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		w.refused(status.NotEnoughMemory, nextChunk, "id", 1, "size", size)
	}
	w.call(stopChunk, "id", 1, "failed", false)
	w.refused(status.InvalidStreamState, stopChunk, "id", 1, "failed", true)
	w.refused(status.InvalidStreamState, nextChunk, "id", 1, "size", 1)
	w.refused(status.InvalidStreamState, pushChunk, "id", 1, "chunk", 1)
	for range 3 {
		r.refused(status.StreamDrained, pullChunk, "id", 1)
	}
	w.call(dropChunk, "id", 1)
	r.refused(status.ObjectNotExists, pullChunk, "id", 1)
	w.call("create_stream_request", "object_id", 1) // the id is free again
}

// TestStreamOfBuffers: chunks come in order, sealed and whole; the one before is
// gone after each pull; the last comes after the stop.
func TestStreamOfBuffers(t *testing.T) {
	for _, failed := range []bool{false, true} {
		d, w, r, _ := streamed(t)
		var made []payload
		for i := range 3 {
			p := w.next(1000 + i)
			if p.sealed || p.size != int64(1000+i) {
				t.Fatalf("a new chunk is %+v", p)
			}
			w.fill(p, pattern(byte(i), 1000+i))
			made = append(made, p)
			r.refused(status.ObjectNotSealed, "get_buffers_request", "ids", []uint64{p.id}) // still being written
		}
		w.call(stopChunk, "id", 1, "failed", failed)
		for i, p := range made {
			if got := r.pull(); got != p.id {
				t.Fatalf("pull %d: %x, want %x", i, got, p.id)
			}
			sameBytes(t, "a chunk", r.bytes(r.get(p.id)), pattern(byte(i), 1000+i))
			if i > 0 && r.exists(made[i-1].id) {
				t.Error("the chunk before is still there")
			}
		}
		end := status.StreamDrained
		if failed {
			end = status.StreamFailed
		}
		r.refused(end, pullChunk, "id", 1)
		r.refused(end, pullChunk, "id", 1)
		if st := nodeStatus(t, d); st.Ledger.Blobs != 0 || st.Ledger.Deferred != 0 {
			t.Errorf("%d blobs are left", st.Ledger.Blobs)
		}
	}
}

// TestParkedReader: a pull waits for data, for the end, for the failure and for
// the drop, and at most one at a time.
func TestParkedReader(t *testing.T) {
	for what, wake := range map[string]struct {
		do   func(w *raw)
		code status.Code
	}{
		"push":          {func(w *raw) { w.call(pushChunk, "id", 1, "chunk", 77) }, 0},
		"end":           {func(w *raw) { w.call(stopChunk, "id", 1, "failed", false) }, status.StreamDrained},
		"failure":       {func(w *raw) { w.call(stopChunk, "id", 1, "failed", true) }, status.StreamFailed},
		"drop":          {func(w *raw) { w.call(dropChunk, "id", 1) }, status.StreamFailed},
		"second reader": {func(w *raw) { w.call(pushChunk, "id", 1, "chunk", 77) }, 0},
	} {
		t.Run(what, func(t *testing.T) {
			d, w, r, o := streamed(t)
			r.send(pullChunk, "id", 1)
			r.send("exists_request", "id", 1) // waits its turn, unread
			waits(t, d, 1)
			r.silent(shortly)
			if what == "second reader" {
				o.refused(status.InvalidStreamState, pullChunk, "id", 1)
			}
			wake.do(w)
			if wake.code != 0 {
				r.expectError(wake.code, what)
			} else if got := r.expect(pullChunk).id("chunk"); got != 77 {
				t.Errorf("chunk %d", got)
			}
			if rep := r.recv(); rep.str("type") != "exists_reply" {
				t.Errorf("the request behind: %v", rep)
			}
		})
	}
}

// TestParkedWriter: a writer waits while memory is above the threshold. A pull,
// a deletion, a shrink wake it; a drop fails it with 43 and frees its chunk.
func TestParkedWriter(t *testing.T) {
	for what, wake := range map[string]struct {
		do   func(r, o *raw, ballast payload)
		code status.Code
	}{
		"pull":                 {func(r, _ *raw, _ payload) { r.pull(); r.pull() }, 0},
		"delete":               {func(_, o *raw, ballast payload) { o.del(ballast.id) }, 0},
		"drop":                 {func(_, o *raw, ballast payload) { o.call("drop_buffer_request", "id", ballast.id) }, 0},
		"shrink":               {func(_, o *raw, ballast payload) { o.call("shrink_buffer_request", "id", ballast.id, "size", 1) }, 0},
		"hang-up of its owner": {func(_, o *raw, _ payload) { o.close() }, 0},
		"drop of the stream":   {func(r, _ *raw, _ payload) { r.call(dropChunk, "id", 1) }, status.StreamFailed},
	} {
		t.Run(what, func(t *testing.T) {
			d, w, r, o := streamed(t)
			ballast := o.create(4 * mib)
			w.next(4 * mib)
			w.next(4 * mib) // 12 MiB are in use
			w.send(nextChunk, "id", 1, "size", 2*mib)
			w.send("exists_request", "id", 1)
			waits(t, d, 1)
			w.silent(shortly)
			second := connect(t, d)
			second.refused(status.InvalidStreamState, nextChunk, "id", 1, "size", 1)
			second.refused(status.InvalidStreamState, pushChunk, "id", 1, "chunk", 5)
			second.refused(status.InvalidStreamState, stopChunk, "id", 1, "failed", false)
			wake.do(r, o, ballast)
			if wake.code != 0 {
				w.expectError(wake.code, what)
				o.close()
				waitStatus(t, d, "all chunks to go", func(s server.Status) bool { return s.Ledger.Usage == 0 && s.Ledger.Blobs == 0 })
			} else if p := w.expect(nextChunk).payload("buffer"); p.size != 2*mib {
				t.Errorf("chunk %+v", p)
			}
			if rep := w.recv(); rep.str("type") != "exists_reply" {
				t.Errorf("the request behind: %v", rep)
			}
		})
	}
}

// TestWriterWaitsForOnePiece: memory that is free in pieces too small for a
// chunk makes its writer wait, too, rather than fail.
func TestWriterWaitsForOnePiece(t *testing.T) {
	d, w, _, o := streamed(t)
	var made []payload
	for range 16 {
		made = append(made, o.create(mib))
	}
	for i := 0; i < len(made); i += 2 {
		o.call("drop_buffer_request", "id", made[i].id)
	}
	w.send(nextChunk, "id", 1, "size", 3*mib) // 8 of 16 MiB are free, 3 nowhere in one piece
	waits(t, d, 1)
	w.silent(shortly)
	o.call("drop_buffer_request", "id", made[7].id)
	if p := w.expect(nextChunk).payload("buffer"); p.size != 3*mib {
		t.Errorf("chunk %+v", p)
	}
	if st := nodeStatus(t, d); st.Ledger.OutOfMemory != 0 {
		t.Errorf("%d refusals", st.Ledger.OutOfMemory)
	}
}

// TestParkedHangUp: the hang-up of a waiting client is noticed though nobody
// reads its connection, even with requests behind that are unread. The stream is
// then as after any hang-up.
func TestParkedHangUp(t *testing.T) {
	for _, behind := range []int{0, 1, 100} {
		t.Run(fmt.Sprintf("reader %d", behind), func(t *testing.T) {
			d, w, r, _ := streamed(t)
			w.call(pushChunk, "id", 1, "chunk", w.put(pattern(1, 1000)).id)
			chunk := r.pull()
			r.send(pullChunk, "id", 1)
			for range behind {
				r.send("exists_request", "id", 1)
			}
			waits(t, d, 1)
			r.close()
			waits(t, d, 0)
			waitStatus(t, d, "the stream to be dropped", func(s server.Status) bool { return len(s.Streams) == 0 })
			w.refused(status.ObjectNotExists, pushChunk, "id", 1, "chunk", 1)
			if w.exists(chunk) {
				t.Error("the chunk that the second pull replaced is still there")
			}
		})
		t.Run(fmt.Sprintf("writer %d", behind), func(t *testing.T) {
			d, w, r, _ := streamed(t)
			for range 3 {
				w.next(4 * mib)
			}
			w.send(nextChunk, "id", 1, "size", 4*mib)
			for range behind {
				w.send("exists_request", "id", 1)
			}
			waits(t, d, 1)
			w.close()
			waits(t, d, 0)
			// Another one goes on where it stopped: three chunks are queued.
			second := connect(t, d)
			second.call(stopChunk, "id", 1, "failed", false)
			for range 3 {
				r.get(r.pull())
			}
			r.refused(status.StreamDrained, pullChunk, "id", 1)
		})
	}
}

// TestStreamEndsOfLife: what a reader, a writer and a drop leave behind.
func TestStreamEndsOfLife(t *testing.T) {
	d, w, r, o := streamed(t)
	for range 3 {
		w.next(1000)
	}
	w.close() // a writer that goes leaves all as it is
	waitStatus(t, d, "the writer to go", func(s server.Status) bool { return len(s.Connections) == 3 })
	if st := nodeStatus(t, d); st.Ledger.Blobs != 3 || len(st.Streams) != 1 {
		t.Errorf("%d blobs, %d streams after the writer's end", st.Ledger.Blobs, len(st.Streams))
	}
	chunk := r.pull()
	o.call(dropChunk, "id", 1) // all go but the one being read
	if st := nodeStatus(t, d); st.Ledger.Blobs != 1 || !r.exists(chunk) {
		t.Errorf("%d blobs after the drop", st.Ledger.Blobs)
	}
	r.get(chunk)
	r.close() // that one is now an ordinary blob
	waitStatus(t, d, "the reader to go", func(s server.Status) bool { return len(s.Connections) == 2 })
	if !o.exists(chunk) {
		t.Error("the chunk went with its reader")
	}
	o.del(chunk)

	// Objects as chunks are deleted with their blobs.
	o.call("create_stream_request", "object_id", 1)
	reader := connect(t, d)
	var objects []uint64
	for i := range 3 {
		p := o.put(pattern(byte(i), 1000))
		objects = append(objects, o.call("create_data_request", "content", map[string]any{
			"typename": "test::Chunk", "instance_id": 0,
			"buffer_": map[string]any{"id": fmt.Sprintf("o%016x", p.id), "typename": "vineyard::Blob", "instance_id": 0},
		}).id("id"))
		o.call(pushChunk, "id", 1, "chunk", objects[i])
	}
	o.call(pushChunk, "id", 1, "chunk", 4711) // is not checked
	for i := range objects {
		if got := reader.pull(); got != objects[i] {
			t.Errorf("object %d: %x, want %x", i, got, objects[i])
		}
	}
	reader.close() // drops the stream; the object being read stays
	waitStatus(t, d, "the stream to go", func(s server.Status) bool { return len(s.Streams) == 0 && s.Ledger.Blobs == 1 })
	if !o.exists(objects[2]) {
		t.Error("the object being read went")
	}
}

// TestEmptyChunks: chunks of size 0 are the empty blob.
func TestEmptyChunks(t *testing.T) {
	d, w, r, _ := streamed(t)
	for range 2 {
		if p := w.next(0); p.fd != -1 || p.id != 1<<63 {
			t.Errorf("an empty chunk: %+v", p)
		}
	}
	w.call(stopChunk, "id", 1, "failed", false)
	for range 2 {
		if got := r.pull(); got != 1<<63 {
			t.Errorf("chunk %x", got)
		}
	}
	r.refused(status.StreamDrained, pullChunk, "id", 1)
	if st := nodeStatus(t, d); st.Ledger.Blobs != 0 {
		t.Errorf("%d blobs", st.Ledger.Blobs)
	}
}

// TestStreamThrough: many chunks of random sizes, together many times the pool,
// with a reader and a writer at their own pace and a third connection that takes
// and gives memory. Every byte is right, and nothing is left.
func TestStreamThrough(t *testing.T) {
	d, w, r, o := streamed(t)
	const chunks = 50
	size := func(i int) int { return 1 + int(rand.New(rand.NewPCG(7, uint64(i))).Uint32())%(3*mib) }
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range chunks {
			p := w.next(size(i))
			w.fill(p, pattern(byte(i), size(i)))
		}
		w.call(stopChunk, "id", 1, "failed", false)
	}()
	stop := make(chan struct{})
	noise := make(chan struct{})
	go func() {
		defer close(noise)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				p := o.create(int64(1 + i*7919%mib))
				o.call("drop_buffer_request", "id", p.id)
				time.Sleep(200 * time.Microsecond)
			}
		}
	}()
	for i := range chunks {
		id := r.pull()
		sameBytes(t, fmt.Sprintf("chunk %d", i), r.bytes(r.get(id)), pattern(byte(i), size(i)))
	}
	r.refused(status.StreamDrained, pullChunk, "id", 1)
	close(stop)
	<-done
	<-noise
	w.call(dropChunk, "id", 1)
	if st := nodeStatus(t, d); st.Ledger.Blobs != 0 || st.Ledger.Usage != 0 || st.Ledger.Deferred != 0 || st.Ledger.Reclaimed != 0 {
		t.Errorf("left: %+v", st.Ledger)
	}
}
