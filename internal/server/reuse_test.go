package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

// ledger is the part of a status that these tests look at.
func ledger(t testing.TB, d *testserver.Daemon) (usage, deferred int64, reclaimed uint64) {
	t.Helper()
	l := nodeStatus(t, d).Ledger
	return l.Usage, l.Deferred, l.Reclaimed
}

func startSized(t testing.TB, size string, strict bool) *testserver.Daemon {
	return testserver.Start(t, func(c *config.Serve) { c.Size, c.StrictReads = size, strict })
}

// TestWhoseReferencesCount: which references keep a deleted blob's memory, and
// what ends that.
func TestWhoseReferencesCount(t *testing.T) {
	const size = 1 << 20
	take := func(c *raw, id uint64) { c.get(id) }
	count := func(c *raw, id uint64) { c.call("increase_reference_count_request", "ids", []uint64{id}) }
	type setup struct {
		what     string
		hold     func(creator, deleter, other *raw, id uint64)
		deferred bool
	}
	for _, s := range []setup{
		{"nobody's", func(_, _, _ *raw, _ uint64) {}, false},
		{"the deleter's get", func(_, del, _ *raw, id uint64) { take(del, id) }, false},
		{"the deleter's count", func(_, del, _ *raw, id uint64) { count(del, id) }, false},
		{"both of the deleter's", func(_, del, _ *raw, id uint64) { take(del, id); count(del, id); take(del, id) }, false},
		{"another's seal", func(_, _, o *raw, id uint64) { o.call("seal_request", "object_id", id) }, false},
		{"another's get", func(_, _, o *raw, id uint64) { take(o, id) }, true},
		{"another's count", func(_, _, o *raw, id uint64) { count(o, id) }, true},
		{"the creator's get", func(cr, _, _ *raw, id uint64) { take(cr, id) }, true},
		{"another's seal, then get", func(_, _, o *raw, id uint64) { o.call("seal_request", "object_id", id); take(o, id) }, true},
		{"another's and the deleter's", func(_, del, o *raw, id uint64) { take(del, id); take(o, id) }, true},
		{"another's, given back", func(_, _, o *raw, id uint64) { take(o, id); o.call("release_request", "object_id", id) }, false},
	} {
		t.Run(s.what, func(t *testing.T) {
			d := startSized(t, "16MiB", false)
			creator, deleter, other := connect(t, d), connect(t, d), connect(t, d)
			for _, del := range []func(id uint64){
				func(id uint64) { deleter.del(id) },
				func(id uint64) { deleter.call("drop_buffer_request", "id", id) },
				func(id uint64) { deleter.call("del_data_request", "id", []uint64{id}, "fastpath", true) },
				func(id uint64) { deleter.call("del_data_with_feedbacks_request", "id", []uint64{id}) },
			} {
				id := creator.put(pattern(1, size)).id
				s.hold(creator, deleter, other, id)
				del(id)
				usage, deferred, _ := ledger(t, d)
				if usage != 0 || deferred > 0 != s.deferred {
					t.Fatalf("usage %d, deferred %d, want deferred: %v", usage, deferred, s.deferred)
				}
				if deleter.exists(id) {
					t.Error("a deleted blob exists")
				}
				if n := len(other.call("get_buffers_request", "ids", []uint64{id}).payloads()); n != 0 {
					t.Error("a deleted blob can be had")
				}
				if !s.deferred {
					continue
				}
				holder := other
				if strings.HasPrefix(s.what, "the creator") {
					holder = creator
				}
				holder.call("release_request", "object_id", id)
				if _, deferred, _ := ledger(t, d); deferred != 0 {
					t.Fatalf("deferred %d after the release", deferred)
				}
			}
		})
	}
}

// TestReaderOutlivesDelete: what a reader holds keeps its bytes while all other
// memory is deleted and reused, until the reader goes.
func TestReaderOutlivesDelete(t *testing.T) {
	for _, extended := range []bool{false, true} {
		d := startSized(t, "32MiB", false)
		c, reader := connect(t, d), connect(t, d)
		if extended {
			reader = connectExtended(t, d)
		}
		var held []payload
		for i := range 4 {
			held = append(held, reader.get(c.put(pattern(byte(i), mib)).id))
			c.put(pattern(200, mib)) // between them
		}
		c.call("clear_request") // gives zombies of 0.24 readers up
		if _, deferred, _ := ledger(t, d); deferred != 4*mib == extended {
			t.Fatalf("extended %v: deferred %d after clear", extended, deferred)
		}
		held = held[:0]
		for i := range 4 {
			p := c.put(pattern(byte(i), mib))
			held = append(held, reader.get(p.id))
			c.put(pattern(201, mib))
		}
		for i, e := range held {
			c.del(e.id)
			c.put(pattern(byte(202+i), mib))
		}
		// The pool's file has 36 MiB: there is room for this much without touching
		// what is held.
		for i := range 8 {
			c.put(pattern(byte(100+i), 2*mib))
		}
		for i, p := range held {
			sameBytes(t, fmt.Sprintf("extended %v, held blob %d", extended, i), reader.bytes(p), pattern(byte(i), mib))
		}
		reader.close()
		waitStatus(t, d, "the held memory", func(s server.Status) bool { return s.Ledger.Deferred == 0 && s.Ledger.Reclaimed == 0 })
	}
}

// TestReclaimBefore41: before an allocation fails, zombies that only 0.24
// clients hold are reused, oldest first, with a warning and a counter, and no
// more of them than needed.
func TestReclaimBefore41(t *testing.T) {
	d := startSized(t, "16MiB", false)
	c, old, ext := connect(t, d), connect(t, d), connectExtended(t, d)
	var zombies []payload
	for i := range 8 {
		p := c.put(pattern(byte(i), 2*mib))
		zombies = append(zombies, old.get(p.id))
		if i == 0 {
			ext.get(p.id) // the oldest one has a v6d reader as well
		}
	}
	for _, p := range zombies {
		c.del(p.id)
	}
	if usage, deferred, reclaimed := ledger(t, d); usage != 0 || deferred != 16*mib || reclaimed != 0 {
		t.Fatalf("usage %d, deferred %d, reclaimed %d", usage, deferred, reclaimed)
	}
	if strings.Contains(d.Log(), "never released") {
		t.Error("the log warns before anything was reclaimed")
	}
	c.put(pattern(100, mib)) // fits in the file's slack
	if _, _, reclaimed := ledger(t, d); reclaimed != 0 {
		t.Fatalf("%d reclaimed although there was room", reclaimed)
	}
	c.put(pattern(101, 2*mib))
	if _, deferred, reclaimed := ledger(t, d); reclaimed != 1 || deferred != 14*mib {
		t.Fatalf("reclaimed %d, deferred %d, want one blob", reclaimed, deferred)
	}
	sameBytes(t, "the oldest, which a v6d client holds", ext.bytes(zombies[0]), pattern(0, 2*mib))
	for i := 2; i < 8; i++ {
		sameBytes(t, fmt.Sprintf("younger zombie %d", i), old.bytes(zombies[i]), pattern(byte(i), 2*mib))
	}
	contains(t, "the log", d.Log(), "level=WARN", "0.24 client never released", fmt.Sprintf("blob=o%016x", zombies[1].id))
	fillUp(t, c, 2*mib)
	sameBytes(t, "what the v6d client holds", ext.bytes(zombies[0]), pattern(0, 2*mib))
	l := nodeStatus(t, d).Ledger
	if l.Reclaimed < 5 || l.Reclaimed > 7 || l.ReclaimedBytes != l.Reclaimed*2*mib {
		t.Errorf("%d blobs of %d bytes are counted as reclaimed", l.Reclaimed, l.ReclaimedBytes)
	}
}

// TestNeverReclaimed: with --strict-reads for everyone, without it for v6d
// clients, an allocation fails rather than touch what a reader holds; trim and
// clear leave it alone, too.
func TestNeverReclaimed(t *testing.T) {
	for what, setup := range map[string]struct {
		strict bool
		dial   func(testing.TB, *testserver.Daemon) *raw
	}{
		"strict reads":         {true, connect},
		"a v6d client":         {false, connectExtended},
		"one that became v6d":  {false, connect},
		"v6d under strictness": {true, connectExtended},
	} {
		t.Run(what, func(t *testing.T) {
			d := startSized(t, "16MiB", setup.strict)
			c, reader := connect(t, d), setup.dial(t, d)
			held := reader.get(c.put(pattern(1, 8*mib)).id)
			if what == "one that became v6d" {
				reader.register("extensions", []string{"v6d_status_request"})
			}
			c.del(held.id)
			for range 2 { // 8 of 18 MiB are held
				c.put(pattern(2, 4*mib))
			}
			message := c.refused(status.NotEnoughMemory, "create_buffer_request", "size", 6*mib)
			contains(t, "the refusal", message, fmt.Sprintf("still held: %d bytes", 8*mib))
			c.call("memory_trim_request")
			c.refused(status.NotEnoughMemory, "create_buffer_request", "size", 6*mib)
			sameBytes(t, "what is held", reader.bytes(held), pattern(1, 8*mib))
			c.call("clear_request")
			if _, deferred, reclaimed := ledger(t, d); deferred != 8*mib || reclaimed != 0 {
				t.Fatalf("deferred %d, reclaimed %d", deferred, reclaimed)
			}
			sameBytes(t, "what is held", reader.bytes(held), pattern(1, 8*mib))
			reader.call("release_request", "object_id", held.id)
			if _, deferred, _ := ledger(t, d); deferred != 0 {
				t.Fatalf("deferred %d after the release", deferred)
			}
			c.del(c.put(pattern(3, 16*mib)).id)
		})
	}
}

// TestLateExtension: a client that negotiates extensions while it holds blobs
// must not upset the count of those who are waited for.
func TestLateExtension(t *testing.T) {
	d := startSized(t, "16MiB", false)
	c, late, ext := connect(t, d), connect(t, d), connectExtended(t, d)
	p := c.put(pattern(1, 8*mib))
	late.get(p.id)
	late.register("extensions", []string{"v6d_status_request"})
	late.call("release_request", "object_id", p.id)
	ext.get(p.id)
	c.del(p.id)
	c.put(pattern(2, 8*mib))
	c.refused(status.NotEnoughMemory, "create_buffer_request", "size", 4*mib)
	sameBytes(t, "what a v6d client holds", ext.bytes(p), pattern(1, 8*mib))
}

// TestTrimGivesZombiesBack: memory that only 0.24 clients hold is free before
// the reply to memory_trim and to a delete with memory_trim.
func TestTrimGivesZombiesBack(t *testing.T) {
	d := startSized(t, "16MiB", false)
	c, reader := connect(t, d), connect(t, d)
	for _, trim := range []func(id uint64){
		func(id uint64) { c.del(id); c.call("memory_trim_request") },
		func(id uint64) { c.call("del_data_request", "id", []uint64{id}, "memory_trim", true) },
		func(uint64) { c.call("clear_request") },
	} {
		p := c.put(pattern(1, 8*mib))
		reader.get(p.id)
		if before := nodeStatus(t, d).Ledger.Reserved; before < 8*mib {
			t.Fatalf("%d bytes are reserved", before)
		}
		trim(p.id)
		if l := nodeStatus(t, d).Ledger; l.Deferred != 0 || l.Reserved > 2*mib {
			t.Fatalf("after the trim: deferred %d, reserved %d", l.Deferred, l.Reserved)
		}
	}
}

// TestReaderThatNeverReleases: a 0.24 reader gets 30 objects of 16 MiB through a
// pool of 96 MiB and never gives one back; the writer deletes each after it was
// read. All go through, and all bytes are right.
func TestReaderThatNeverReleases(t *testing.T) {
	const size, objects = 16 * mib, 30
	d := startSized(t, "96MiB", false)
	writer, reader := connect(t, d), connect(t, d)
	// Of each blob, three places are written and read.
	places := [...]int64{0, size / 2, size - 100_000}
	for i := range objects {
		p := writer.create(size)
		for j, at := range places {
			writer.fill(payload{id: p.id, fd: p.fd, off: p.off + at}, pattern(byte(3*i+j), 100_000))
		}
		writer.call("seal_request", "object_id", p.id)
		id := writer.call("create_data_request", "content", map[string]any{
			"typename": "vineyard::Tensor<uint8>", "instance_id": 0, "global": false, "transient": true, "nbytes": size,
			"buffer_": map[string]any{"id": fmt.Sprintf("o%016x", p.id), "typename": "vineyard::Blob", "instance_id": 0},
		}).id("id")
		reader.call("get_data_request", "id", []uint64{id}, "sync_remote", true, "wait", false)
		q := reader.get(p.id)
		for j, at := range places {
			got := reader.bytes(payload{id: q.id, fd: q.fd, off: q.off + at, size: 100_000})
			sameBytes(t, fmt.Sprintf("object %d at %d", i, at), got, pattern(byte(3*i+j), 100_000))
		}
		writer.del(id)
		if writer.exists(p.id) {
			t.Fatalf("the blob of object %d outlives it", i)
		}
	}
	usage, deferred, reclaimed := ledger(t, d)
	if usage != 0 || reclaimed < objects-108/16 || deferred > 108*mib {
		t.Errorf("usage %d, deferred %d, reclaimed %d", usage, deferred, reclaimed)
	}
}

// TestStreamChunksAreReleased: the chunk that a pull replaces counts as released
// by the puller; another connection's reference to it is waited for, and a
// writer that waits for memory goes on as soon as the usage allows.
func TestStreamChunksAreReleased(t *testing.T) {
	d := startSized(t, "16MiB", false)
	writer, reader, other := connect(t, d), connect(t, d), connectExtended(t, d)
	writer.call("create_stream_request", "object_id", 1)
	const size = 4 * mib
	next := func() payload {
		return writer.call("get_next_stream_chunk_request", "id", 1, "size", size).payload("buffer")
	}
	for i := range 3 { // three chunks of 4 MiB; the third is being written
		writer.fill(next(), pattern(byte(i), size))
	}
	first := reader.call("pull_next_stream_chunk_request", "id", 1).id("chunk")
	reader.get(first)
	held := other.get(first)
	writer.send("get_next_stream_chunk_request", "id", 1, "size", size) // 16 of 12.8 MiB: waits
	writer.silent(30 * time.Millisecond)
	second := reader.call("pull_next_stream_chunk_request", "id", 1).id("chunk")
	p := writer.expect("the fourth chunk").payload("buffer") // the usage fell, though the memory is still held
	writer.fill(p, pattern(3, size))
	sameBytes(t, "the held chunk", other.bytes(held), pattern(0, size))
	if _, deferred, _ := ledger(t, d); deferred != size {
		t.Errorf("deferred %d, want one chunk", deferred)
	}
	sameBytes(t, "the second chunk", reader.bytes(reader.get(second)), pattern(1, size))
	other.close()
	waitStatus(t, d, "the first chunk's memory", func(s server.Status) bool { return s.Ledger.Deferred == 0 })
	reader.call("pull_next_stream_chunk_request", "id", 1) // its own reference to the second does not count
	if _, deferred, _ := ledger(t, d); deferred != 0 {
		t.Errorf("deferred %d after the reader moved on", deferred)
	}
}
