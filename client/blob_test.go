//go:build linux

package client_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/v6d-go/v6d/client"
)

// random returns n bytes that do not compress.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// wantBlob compares a blob with bytes and gives it back.
func wantBlob(t testing.TB, c *client.Client, id client.ID, want []byte) {
	t.Helper()
	b := ok(c.GetBlob(t.Context(), id))(t)
	if b.ID() != id {
		t.Errorf("asked for blob %s, got %s", id, b.ID())
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Fatalf("blob %s has %d bytes that differ from the %d stored", id, len(b.Bytes()), len(want))
	}
	must(t, b.Release(t.Context()))
}

func testBlobRoundTrip(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	data := random(100_000)
	w := ok(c.CreateBlob(ctx, len(data)))(t)
	if len(w.Bytes()) != len(data) || cap(w.Bytes()) != len(data) {
		t.Fatalf("the builder has %d bytes, capacity %d, want %d", len(w.Bytes()), cap(w.Bytes()), len(data))
	}
	copy(w.Bytes(), data)
	id := ok(w.Seal(ctx))(t)
	if !id.IsBlob() || w.ID() != id {
		t.Errorf("sealed blob %s, the builder says %s", id, w.ID())
	}
	if w.Bytes() != nil {
		t.Error("a sealed builder still hands out its slice")
	}
	for name, r := range map[string]*client.Client{"writer": c, "reader": d.connect(t), "over the other transport": d.over(!d.tcp).connect(t)} {
		b := ok(r.GetBlob(ctx, id))(t)
		if !bytes.Equal(b.Bytes(), data) {
			t.Errorf("%s: the bytes differ", name)
		}
		must(t, b.Release(ctx))
		if b.Bytes() != nil {
			t.Errorf("%s: a released blob still hands out its slice", name)
		}
		must(t, b.Release(ctx)) // a second one does nothing
	}
	wantBlob(t, c, ok(c.PutBlob(ctx, data[:10]))(t), data[:10])
}

func testEmptyBlob(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	if id := ok(c.PutBlob(ctx, nil))(t); id != client.EmptyBlob {
		t.Errorf("no bytes became blob %s, want %s", id, client.EmptyBlob)
	}
	wantBlob(t, c, client.EmptyBlob, nil)
	w := ok(c.CreateBlob(ctx, 0))(t)
	must(t, w.Abort(ctx))
	id := ok(c.PutBlob(ctx, []byte("x")))(t)
	list := ok(c.GetBlobs(ctx, []client.ID{client.EmptyBlob, id, client.EmptyBlob}))(t)
	if len(list) != 3 || len(list[0].Bytes()) != 0 || string(list[1].Bytes()) != "x" || len(list[2].Bytes()) != 0 {
		t.Errorf("empty, x and empty came back as %d blobs", len(list))
	}
}

// Sizes around pages, cache lines and buffers, read back in one request.
func testBlobSizes(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	data := random(3 << 20)
	var ids []client.ID
	sizes := []int{1, 63, 64, 65, 4095, 4096, 4097, 1<<20 - 1, 1<<20 + 1, 3 << 20}
	for _, n := range sizes {
		ids = append(ids, ok(c.PutBlob(ctx, data[:n]))(t))
	}
	for i, b := range ok(c.GetBlobs(ctx, ids))(t) {
		if !bytes.Equal(b.Bytes(), data[:sizes[i]]) {
			t.Errorf("a blob of %d bytes came back as other %d", sizes[i], len(b.Bytes()))
		}
	}
	must(t, c.Delete(ctx, ids, client.DeleteOptions{}))
}

func testAbort(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	w := ok(c.CreateBlob(ctx, 1000))(t)
	must(t, w.Abort(ctx))
	must(t, w.Abort(ctx))
	if w.Bytes() != nil {
		t.Error("an aborted builder still hands out its slice")
	}
	_, err := w.Seal(ctx)
	wantErr(t, err, client.Sealed)
	if !d.tcp {
		if ok(c.Exists(ctx, w.ID()))(t) {
			t.Errorf("aborted blob %s exists", w.ID())
		}
	}
	w = ok(c.CreateBlob(ctx, 1000))(t)
	id := ok(w.Seal(ctx))(t)
	must(t, w.Abort(ctx)) // after Seal it does nothing
	if !ok(c.Exists(ctx, id))(t) {
		t.Error("Abort after Seal took the blob away")
	}
	_, err = c.CreateBlob(ctx, -1)
	wantErr(t, err, client.Invalid)
}

func testShrink(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	data := random(10_000)
	w := ok(c.CreateBlob(ctx, len(data)))(t)
	copy(w.Bytes(), data)
	must(t, w.Shrink(ctx, 5000))
	must(t, w.Shrink(ctx, 5000))
	if len(w.Bytes()) != 5000 {
		t.Errorf("a shrunk builder has %d bytes, want 5000", len(w.Bytes()))
	}
	wantErr(t, w.Shrink(ctx, 5001), client.Invalid)
	wantErr(t, w.Shrink(ctx, -1), client.Invalid)
	id := ok(w.Seal(ctx))(t)
	wantErr(t, w.Shrink(ctx, 1), client.Sealed)
	wantBlob(t, d.connect(t), id, data[:5000])

	w = ok(c.CreateBlob(ctx, 100))(t)
	must(t, w.Shrink(ctx, 0))
	wantBlob(t, d.connect(t), ok(w.Seal(ctx))(t), nil)
}

func testSealTwice(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	w := ok(c.CreateBlob(ctx, 10))(t)
	id := ok(w.Seal(ctx))(t)
	again, err := w.Seal(ctx)
	wantErr(t, err, client.Sealed)
	if again != id {
		t.Errorf("the second Seal says %s, the first %s", again, id)
	}
}

func testUnsealed(t *testing.T, d daemon) {
	ctx := t.Context()
	w := ok(d.connectIPC(t).CreateBlob(ctx, 10))(t)
	c := d.connect(t)
	_, err := c.GetBlob(ctx, w.ID())
	if d.tcp {
		if err == nil { // over TCP the protocol says KeyError, whatever is wrong
			t.Error("an unsealed blob can be got")
		}
	} else {
		wantErr(t, err, client.NotSealed)
	}
	if !ok(c.Exists(ctx, w.ID()))(t) {
		t.Error("an unsealed blob does not exist")
	}
	ok(w.Seal(ctx))(t)
	if n := len(ok(c.GetBlob(ctx, w.ID()))(t).Bytes()); n != 10 {
		t.Errorf("the sealed blob has %d bytes", n)
	}
}

func testGetBlobs(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	a, b := ok(c.PutBlob(ctx, []byte("a")))(t), ok(c.PutBlob(ctx, []byte("bb")))(t)
	var got []string
	for _, blob := range ok(c.GetBlobs(ctx, []client.ID{b, a, b}))(t) {
		got = append(got, string(blob.Bytes()))
	}
	if len(got) != 3 || got[0] != "bb" || got[1] != "a" || got[2] != "bb" {
		t.Errorf("got %q, want bb a bb", got)
	}
	if list := ok(c.GetBlobs(ctx, nil))(t); len(list) != 0 {
		t.Errorf("no ids gave %d blobs", len(list))
	}
	const unknown = client.EmptyBlob | 1
	for _, ids := range [][]client.ID{{unknown}, {a, unknown}, {unknown, a}} {
		list, err := c.GetBlobs(ctx, ids)
		wantErr(t, err, client.NotExist)
		if list != nil {
			t.Errorf("%v: an error and %d blobs", ids, len(list))
		}
	}
	wantBlob(t, c, a, []byte("a")) // the connection still works
}

func testDropBlob(t *testing.T, d daemon) {
	ctx := t.Context()
	c, reader := d.connect(t), d.connect(t)
	data := random(50_000)
	id := ok(c.PutBlob(ctx, data))(t)
	held := ok(reader.GetBlob(ctx, id))(t)
	must(t, c.DropBlob(ctx, id))
	_, err := c.GetBlob(ctx, id)
	wantErr(t, err, client.NotExist)
	wantErr(t, c.DropBlob(ctx, id), client.NotExist)
	if d.v6d() { // the reference reuses it at once
		other := ok(c.PutBlob(ctx, make([]byte, len(data))))(t)
		if !bytes.Equal(held.Bytes(), data) {
			t.Error("the bytes changed under a reader that holds the dropped blob")
		}
		must(t, c.DropBlob(ctx, other))
	}
	must(t, held.Release(ctx))
}

func testNoMemory(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connectIPC(t)
	limit := ok(c.InstanceStatus(ctx))(t).MemoryLimit
	_, err := c.CreateBlob(ctx, int(limit)+1)
	wantErr(t, err, client.NoMemory)
	if d.tcp {
		c = d.connect(t)
		// The daemon refuses before the bytes are sent.
		_, err := c.PutBlob(ctx, make([]byte, limit+1))
		wantErr(t, err, client.NoMemory)
	}
	wantBlob(t, c, ok(c.PutBlob(ctx, []byte("fits")))(t), []byte("fits"))
}
