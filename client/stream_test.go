//go:build linux

package client_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

// stream makes a stream and opens both of its ends.
func stream(t testing.TB, w, r *client.Client) client.ID {
	t.Helper()
	ctx := t.Context()
	id := ok(w.CreateObject(ctx, client.NewMeta(unique(t))))(t)
	must(t, w.CreateStream(ctx, id))
	must(t, w.OpenStream(ctx, id, true))
	must(t, r.OpenStream(ctx, id, false))
	return id
}

// Chunks are filled in place, which needs IPC; they can be read over TCP.
func testStreamChunks(t *testing.T, d daemon) {
	ctx := t.Context()
	w, r := d.connectIPC(t), d.connect(t)
	id := stream(t, w, r)
	type result struct {
		text string
		err  error
	}
	got := make(chan result)
	go func() {
		for {
			chunk, err := r.PullChunk(ctx, id)
			var b *client.Blob
			if err == nil {
				b, err = r.GetBlob(ctx, chunk)
			}
			if err != nil {
				got <- result{"", err}
				return
			}
			got <- result{string(b.Bytes()), nil}
			if err := b.Release(ctx); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := range 20 {
		text := fmt.Sprintf("chunk %d", i)
		b := ok(w.NextChunk(ctx, id, len(text)))(t)
		if len(b) != len(text) {
			t.Fatalf("a chunk has %d bytes, want %d", len(b), len(text))
		}
		copy(b, text)
		if i == 0 {
			continue // it is queued when the next one is asked for
		}
		if res := <-got; res.err != nil || res.text != fmt.Sprintf("chunk %d", i-1) {
			t.Fatalf("chunk %d came as %q, %v", i-1, res.text, res.err)
		}
	}
	must(t, w.StopStream(ctx, id, false))
	if res := <-got; res.err != nil || res.text != "chunk 19" {
		t.Errorf("the last chunk came as %q, %v", res.text, res.err)
	}
	wantErr(t, (<-got).err, client.Drained)
	_, err := r.PullChunk(ctx, id)
	wantErr(t, err, client.Drained)
	must(t, w.DropStream(ctx, id))
	_, err = r.PullChunk(ctx, id)
	wantErr(t, err, client.NotExist)
	if d.tcp {
		over := d.connect(t)
		_, err := over.NextChunk(ctx, id, 10)
		wantErr(t, err, client.Invalid)
		ok(over.InstanceStatus(ctx))(t)
	}
	_, err = w.NextChunk(ctx, id, -1)
	wantErr(t, err, client.Invalid)
}

// Objects and blobs that were made before can be chunks; the next pull deletes
// them.
func testStreamPush(t *testing.T, d daemon) {
	ctx := t.Context()
	w, r := d.connect(t), d.connect(t)
	id := stream(t, w, r)
	obj, blob := put(t, w, unique(t))
	free := ok(w.PutBlob(ctx, []byte("free")))(t)
	must(t, w.PushChunk(ctx, id, obj))
	must(t, w.PushChunk(ctx, id, free))
	if got := ok(r.PullChunk(ctx, id))(t); got != obj {
		t.Errorf("pulled %s, want %s", got, obj)
	}
	if !ok(r.Exists(ctx, obj))(t) {
		t.Error("the chunk is gone before it could be read")
	}
	if got := ok(r.PullChunk(ctx, id))(t); got != free {
		t.Errorf("pulled %s, want %s", got, free)
	}
	if ok(r.Exists(ctx, obj))(t) || ok(r.Exists(ctx, blob))(t) {
		t.Error("the chunk before, or its blob, is still there")
	}
	must(t, w.StopStream(ctx, id, false))
	_, err := r.PullChunk(ctx, id)
	wantErr(t, err, client.Drained)
	if ok(r.Exists(ctx, free))(t) {
		t.Error("the last chunk is still there")
	}
	must(t, w.DropStream(ctx, id))
}

// A reader gets what was queued before the writer failed, then the failure.
func testStreamFailed(t *testing.T, d daemon) {
	ctx := t.Context()
	w, r := d.connect(t), d.connect(t)
	id := stream(t, w, r)
	chunk := ok(w.PutBlob(ctx, []byte("good")))(t)
	must(t, w.PushChunk(ctx, id, chunk))
	must(t, w.StopStream(ctx, id, true))
	if got := ok(r.PullChunk(ctx, id))(t); got != chunk {
		t.Errorf("pulled %s, want %s", got, chunk)
	}
	for range 2 {
		_, err := r.PullChunk(ctx, id)
		wantErr(t, err, client.StreamFailed)
	}
	must(t, w.DropStream(ctx, id))

	id = stream(t, w, r) // a reader that waits
	done := make(chan error, 1)
	go func() {
		_, err := r.PullChunk(ctx, id)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("there is no chunk, and the pull says %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	must(t, w.StopStream(ctx, id, true))
	wantErr(t, <-done, client.StreamFailed)
	must(t, w.DropStream(ctx, id))
}

// A writer waits while the pool is short of memory, until the reader goes on.
func testStreamPressure(t *testing.T, d daemon) {
	ctx := t.Context()
	w, r := d.connectIPC(t), d.connect(t)
	id := stream(t, w, r)
	st := ok(w.InstanceStatus(ctx))(t)
	size := int(st.MemoryLimit/100*80-st.MemoryUsage) * 2 / 5 // two fit, three do not
	ok(w.NextChunk(ctx, id, size))(t)
	ok(w.NextChunk(ctx, id, size))(t)
	done := make(chan error, 1)
	go func() {
		_, err := w.NextChunk(ctx, id, size)
		done <- err
	}()
	waits := func(what string) {
		t.Helper()
		select {
		case err := <-done:
			t.Fatalf("%s, and the writer does not wait: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	waits("memory is short")
	first := ok(r.PullChunk(ctx, id))(t)
	waits("the first chunk is being read")
	second := ok(r.PullChunk(ctx, id))(t) // done with the first
	must(t, <-done)
	if first == second || ok(r.Exists(ctx, first))(t) {
		t.Errorf("chunks %s and %s", first, second)
	}
	must(t, w.StopStream(ctx, id, false))
	ok(r.PullChunk(ctx, id))(t)
	_, err := r.PullChunk(ctx, id)
	wantErr(t, err, client.Drained)
	must(t, w.DropStream(ctx, id))
	if got := ok(w.InstanceStatus(ctx))(t).MemoryUsage; got != st.MemoryUsage {
		t.Errorf("the stream has ended, and usage is %d, not %d", got, st.MemoryUsage)
	}
}

func testStreamErrors(t *testing.T, d daemon) {
	ctx := t.Context()
	w, r := d.connect(t), d.connect(t)
	id := stream(t, w, r)
	wantErr(t, w.CreateStream(ctx, id), client.Exists)
	wantErr(t, r.OpenStream(ctx, id, false), client.StreamOpened)
	wantErr(t, w.OpenStream(ctx, id, true), client.StreamOpened)
	must(t, w.StopStream(ctx, id, false))
	wantErr(t, w.StopStream(ctx, id, false), client.StreamState)
	wantErr(t, w.PushChunk(ctx, id, client.EmptyBlob), client.StreamState)
	must(t, w.DropStream(ctx, id))
	wantErr(t, w.DropStream(ctx, id), client.NotExist)
	wantErr(t, w.OpenStream(ctx, id, true), client.NotExist)
	wantErr(t, w.PushChunk(ctx, id, client.EmptyBlob), client.NotExist)

	id = stream(t, w, r) // the reader's end takes the stream with it
	must(t, w.PushChunk(ctx, id, ok(w.PutBlob(ctx, []byte("x")))(t)))
	ok(r.PullChunk(ctx, id))(t)
	must(t, r.Close())
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		err := w.PushChunk(ctx, id, client.EmptyBlob)
		if err != nil {
			wantErr(t, err, client.NotExist)
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the reader has gone, and its stream is still there")
		}
	}
}
