//go:build linux

package client_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
)

// faults reports whether writing to b[i] faults.
func faults(b []byte, i int) (yes bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, isFault := r.(interface{ Addr() uintptr }); !isFault {
				panic(r)
			}
			yes = true
		}
	}()
	b[i] = b[i] ^ 1
	b[i] = b[i] ^ 1
	return false
}

// mapping returns permissions and inode of the mapping that b lies in.
func mapping(t testing.TB, b []byte) (perms, inode string) {
	t.Helper()
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	maps := ok(os.ReadFile("/proc/self/maps"))(t)
	for line := range strings.Lines(string(maps)) {
		var lo, hi uintptr
		var off, dev string
		if _, err := fmt.Sscanf(line, "%x-%x %s %s %s %s", &lo, &hi, &perms, &off, &dev, &inode); err == nil && lo <= at && at < hi {
			return perms, dev + " " + inode
		}
	}
	t.Fatalf("no mapping contains %x", at)
	return "", ""
}

// Over IPC the slices of writer and readers are the same pages of one file.
func testZeroCopy(t *testing.T, d daemon) {
	ctx := t.Context()
	w := d.connect(t)
	data := random(10_000)
	b := ok(w.CreateBlob(ctx, len(data)))(t)
	slice := b.Bytes()
	copy(slice, data)
	id := ok(b.Seal(ctx))(t)
	r := d.connect(t)
	got, again := ok(r.GetBlob(ctx, id))(t), ok(r.GetBlob(ctx, id))(t)
	if d.tcp {
		if &got.Bytes()[0] == &again.Bytes()[0] {
			t.Error("two remote gets share their memory")
		}
		if faults(got.Bytes(), 0) {
			t.Error("a copy cannot be written")
		}
		return
	}
	if &got.Bytes()[0] != &again.Bytes()[0] {
		t.Error("one client maps the pool twice for reading")
	}
	wp, wi := mapping(t, slice)
	rp, ri := mapping(t, got.Bytes())
	if wp != "rw-s" || rp != "r--s" {
		t.Errorf("the writer's mapping is %s, the reader's %s; want rw-s, r--s", wp, rp)
	}
	if wi != ri {
		t.Errorf("the writer maps inode %s, the reader %s", wi, ri)
	}
	slice[5000] ^= 0xff // what nobody should do shows that nothing is copied
	if got.Bytes()[5000] != data[5000]^0xff {
		t.Error("the reader does not see the writer's memory")
	}
	if !faults(got.Bytes(), 0) {
		t.Error("the slice of a sealed blob can be written")
	}
}

// With Strict a late write to a whole page of a sealed blob faults.
func testStrict(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.dial(t, func(o *client.Options) { o.Strict = true })
	page := os.Getpagesize()
	data := random(4 * page)
	b := ok(c.CreateBlob(ctx, len(data)))(t)
	slice := b.Bytes()
	if faults(slice, 2*page) {
		t.Fatal("an unsealed blob cannot be written")
	}
	copy(slice, data)
	id := ok(b.Seal(ctx))(t)
	if faults(slice, 2*page) == d.tcp {
		t.Errorf("a late write to a sealed blob faults: %v; over TCP: %v", !d.tcp, d.tcp)
	}
	wantBlob(t, c, id, data)
	for _, n := range []int{0, 1, 100, page - 1, page, page + 1} { // mostly no whole page
		id := ok(c.PutBlob(ctx, data[:n]))(t)
		wantBlob(t, c, id, data[:n])
	}
	b = ok(c.CreateBlob(ctx, 3*page))(t)
	slice = b.Bytes()
	must(t, b.Shrink(ctx, 10))
	id = ok(b.Seal(ctx))(t)
	if faults(slice, 2*page) {
		t.Error("the tail that a blob was shrunk by is protected")
	}
	must(t, c.DropBlob(ctx, id))
}

// Blobs that share a page with a sealed one can be written on.
func testStrictNeighbours(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.dial(t, func(o *client.Options) { o.Strict = true })
	size := os.Getpagesize()*3/2 + 64
	var open []*client.Builder
	for range 10 {
		sealed, still := ok(c.CreateBlob(ctx, size))(t), ok(c.CreateBlob(ctx, size))(t)
		ok(sealed.Seal(ctx))(t)
		open = append(open, still)
	}
	for i, b := range open {
		for at := 0; at < size; at += 64 {
			if faults(b.Bytes(), at) {
				t.Fatalf("byte %d of unsealed blob %d cannot be written", at, i)
			}
		}
		must(t, b.Abort(ctx))
	}
}

// Memory that was protected for one blob can be written as another's, or as a
// stream's chunk.
func TestStrictReuse(t *testing.T) {
	ctx := t.Context()
	d := startV6D(t, func(c *config.Serve) { c.Size = "1MiB" })
	c := d.dial(t, func(o *client.Options) { o.Strict = true })
	data := random(700 << 10) // more than half of the pool: the next ones overlap
	protect := func() {
		t.Helper()
		b := ok(c.CreateBlob(ctx, len(data)))(t)
		slice := b.Bytes()
		id := ok(b.Seal(ctx))(t)
		if !faults(slice, len(slice)/2) {
			t.Fatal("a late write does not fault")
		}
		must(t, c.DropBlob(ctx, id))
	}
	protect()
	id := ok(c.PutBlob(ctx, data))(t) // would fault
	wantBlob(t, c, id, data)
	must(t, c.DropBlob(ctx, id))

	protect()
	stream := ok(c.CreateObject(ctx, client.NewMeta("test::Stream")))(t)
	must(t, c.CreateStream(ctx, stream))
	chunk := ok(c.NextChunk(ctx, stream, 600<<10))(t)
	for i := 0; i < len(chunk); i += 4096 {
		if faults(chunk, i) {
			t.Fatalf("byte %d of a chunk cannot be written", i)
		}
	}
	copy(chunk, data)
	must(t, c.StopStream(ctx, stream, false))
	got := ok(c.GetBlob(ctx, ok(c.PullChunk(ctx, stream))(t)))(t)
	if !bytes.Equal(got.Bytes(), data[:600<<10]) {
		t.Error("the chunk's bytes differ")
	}
	must(t, got.Release(ctx))
	must(t, c.DropStream(ctx, stream))
}

func testCompress(t *testing.T, d daemon) {
	ctx := t.Context()
	zip := d.dial(t, func(o *client.Options) { o.Compress = true })
	plain := d.connect(t)
	text := bytes.Repeat([]byte("all work and no play "), 200_000) // 4 MB
	mixed := append(append([]byte{}, text[:1_500_000]...), random(1_500_000)...)
	var ids []client.ID
	all := [][]byte{nil, {7}, text, random(3 << 20), mixed, nil, text[:131_591], random(131_592)}
	for _, data := range all {
		id := ok(zip.PutBlob(ctx, data))(t)
		wantBlob(t, plain, id, data)
		wantBlob(t, zip, id, data)
		ids = append(ids, id)
	}
	for i, b := range ok(zip.GetBlobs(ctx, ids))(t) {
		if !bytes.Equal(b.Bytes(), all[i]) {
			t.Errorf("blob %d of %d bytes in one request differs", i, len(all[i]))
		}
		must(t, b.Release(ctx))
	}
	must(t, zip.Delete(ctx, ids, client.DeleteOptions{}))
}

// A daemon that does not offer compression still serves who wants it.
func TestCompressionOff(t *testing.T) {
	d := startV6D(t, func(c *config.Serve) { c.Compression = false }).over(true)
	c := d.dial(t, func(o *client.Options) { o.Compress = true })
	data := bytes.Repeat([]byte("text "), 100_000)
	wantBlob(t, c, ok(c.PutBlob(t.Context(), data))(t), data)
}

// Above 64 MiB the memory of a remote blob grows as its bytes come.
func TestLargeRemoteBlob(t *testing.T) {
	d := startV6D(t, func(c *config.Serve) { c.Size = "72MiB" }).over(true)
	c := d.connect(t)
	data := make([]byte, 64<<20+12345)
	copy(data[len(data)-5:], "tail.")
	data[32<<20] = 1
	wantBlob(t, c, ok(c.PutBlob(t.Context(), data))(t), data)
}
