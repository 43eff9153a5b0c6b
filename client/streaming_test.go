//go:build linux

package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

// pattern is what chunk n of a test stream holds.
func pattern(n int) []byte { return bytes.Repeat([]byte{byte(n), byte(n >> 8), 7}, 100+n%50) }

func produce(ctx context.Context, w *client.StreamWriter, from, to int) error {
	for n := from; n < to; n++ {
		want := pattern(n)
		b, err := w.Next(ctx, len(want)+n%3)
		if err != nil {
			return err
		}
		w.Shorten(copy(b, want))
		if n%5 == 0 {
			if err := w.Flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// consume reads up to the end, or limit chunks, and compares.
func consume(ctx context.Context, r *client.StreamReader, from, limit int) (n int, err error) {
	n = from
	for n < limit {
		ch, err := r.Next(ctx)
		if err != nil {
			return n, err
		}
		if !bytes.Equal(ch.Bytes, pattern(n)) {
			return n, fmt.Errorf("chunk %d, counted as %d, of %d bytes is not as it was written", n, ch.Number, len(ch.Bytes))
		}
		n++
	}
	return n, nil
}

// testStreaming writes and reads a stream of each kind that the daemon has.
func testStreaming(t *testing.T, d daemon) {
	ctx := t.Context()
	for _, plain := range []bool{true, false} {
		if !plain && !d.v6d() {
			_, err := d.connect(t).NewStream(ctx, client.StreamOptions{})
			wantErr(t, err, client.NotImplemented)
			break
		}
		w, r := d.connect(t), d.connect(t)
		id := ok(d.connectIPC(t).NewStream(ctx, client.StreamOptions{Plain: plain, Params: map[string]string{"k": "v"}}))(t)
		m := ok(r.GetObject(ctx, id))(t)
		if text, _ := m.Text("params_"); m.Typename != client.ByteStream || text != `{"k":"v"}` {
			t.Errorf("the metadata are %s, params %q", m.Typename, text)
		}
		out, in := ok(w.OpenWriter(ctx, id))(t), ok(r.OpenReader(ctx, id, client.ReaderOptions{}))(t)
		done := make(chan error, 1)
		go func() {
			err := produce(ctx, out, 0, 300)
			if err == nil {
				err = out.Close(ctx)
			}
			done <- err
		}()
		if n, err := consume(ctx, in, 0, 1000); n != 300 || !errors.Is(err, io.EOF) {
			t.Errorf("plain %t: %d chunks, then %v", plain, n, err)
		}
		must(t, <-done)
		if _, err := in.Next(ctx); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
		must(t, r.DropStream(ctx, id))
		if st := ok(r.InstanceStatus(ctx))(t); st.MemoryUsage > 1<<20 {
			t.Errorf("plain %t: %d bytes are left", plain, st.MemoryUsage)
		}
	}
}

// testReaders has several readers of one stream: each gets every byte, one that
// dies goes on where it was.
func testReaders(t *testing.T, d daemon) {
	if !d.v6d() {
		t.Skip("a daemon of the reference has one reader a stream")
	}
	ctx := t.Context()
	id := ok(d.connectIPC(t).NewStream(ctx, client.StreamOptions{}))(t)
	const total = 2000
	var wg sync.WaitGroup
	open := func(c *client.Client, name string) *client.StreamReader {
		r, err := c.OpenReader(ctx, id, client.ReaderOptions{Name: name, Ahead: 1})
		if err != nil {
			t.Error(err)
		}
		return r
	}
	first := open(d.connect(t), "a")
	_, err := d.connect(t).OpenReader(ctx, id, client.ReaderOptions{Name: "a"})
	wantErr(t, err, client.StreamOpened)
	wg.Go(func() {
		if n, err := consume(ctx, first, 0, total+1); n != total || !errors.Is(err, io.EOF) {
			t.Errorf("reader a: %d, %v", n, err)
		}
	})
	dying := d.connect(t)
	r := open(dying, "b")
	wg.Go(func() {
		if n, err := consume(ctx, r, 0, 700); n != 700 || err != nil {
			t.Errorf("reader b: %d, %v", n, err)
		}
		must(t, dying.Close())
		again := d.connect(t)
		var r *client.StreamReader
		for deadline := time.Now().Add(10 * time.Second); ; { // until the daemon has seen that it hung up
			var err error
			if r, err = again.OpenReader(ctx, id, client.ReaderOptions{Name: "b"}); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("reader b again: %v", err)
				return
			}
		}
		// It had not given back the last one.
		if n, err := consume(ctx, r, 699, total+1); n != total || !errors.Is(err, io.EOF) {
			t.Errorf("reader b again: %d, %v", n, err)
		}
	})
	out := ok(d.connect(t).OpenWriter(ctx, id))(t)
	_, err = d.connect(t).OpenWriter(ctx, id)
	wantErr(t, err, client.StreamOpened)
	// A reader that loses interest holds nobody up.
	same := d.connect(t)
	bored := ok(same.OpenReader(ctx, id, client.ReaderOptions{}))(t)
	must(t, produce(ctx, out, 0, 10))
	_, err = same.OpenReader(ctx, id, client.ReaderOptions{})
	wantErr(t, err, client.StreamOpened)
	ok(bored.Next(ctx))(t)
	must(t, bored.Close(ctx))
	if _, err := bored.Next(ctx); err == nil {
		t.Error("a closed reader reads on")
	}
	must(t, produce(ctx, out, 10, total))
	must(t, out.Close(ctx))
	wg.Wait()
	c := d.connect(t)
	wantErr(t, c.ForgetReader(ctx, id, "nobody"), client.NotExist)
	must(t, c.Close())
	must(t, d.connect(t).DropStream(ctx, id))
}

// testProducerDies: readers of a shared stream hear of it, with what was queued.
func testProducerDies(t *testing.T, d daemon) {
	if !d.v6d() {
		t.Skip("on a daemon of the reference the reader waits for ever")
	}
	ctx := t.Context()
	for _, how := range []string{"abort", "close"} {
		id := ok(d.connectIPC(t).NewStream(ctx, client.StreamOptions{Retain: client.Retain{All: true}}))(t)
		w := d.connect(t)
		out := ok(w.OpenWriter(ctx, id))(t)
		must(t, produce(ctx, out, 0, 10))
		must(t, out.Flush(ctx))
		want := "connection ended"
		if how == "abort" {
			must(t, out.Abort(ctx, "disk on fire"))
			want = "disk on fire"
			must(t, out.Close(ctx))
			_, err := out.Next(ctx, 1)
			wantErr(t, err, client.StreamState)
		}
		must(t, w.Close())
		for range 2 { // what is retained can be read again
			in := ok(d.connect(t).OpenReader(ctx, id, client.ReaderOptions{}))(t)
			n, err := consume(ctx, in, 0, 100)
			wantErr(t, err, client.StreamFailed)
			if n != 10 || !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("%s: %d chunks, then %v", how, n, err)
			}
			for _, err := range in.All(ctx) {
				wantErr(t, err, client.StreamFailed)
			}
		}
		must(t, d.connect(t).DropStream(ctx, id))
	}
}

// testStreamCancel: a wait ends with its context.
func testStreamCancel(t *testing.T, d daemon) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	id := ok(d.connectIPC(t).NewStream(t.Context(), client.StreamOptions{Plain: !d.v6d()}))(t)
	in := ok(d.connect(t).OpenReader(t.Context(), id, client.ReaderOptions{}))(t)
	for _, err := range in.All(ctx) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the wait ended with %v", err)
		}
	}
	if ctx.Err() == nil {
		t.Error("it did not wait")
	}
	_ = d.connect(t).DropStream(t.Context(), id) // a plain one has gone with its reader
}
