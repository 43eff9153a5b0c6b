package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
)

// migrate measures how an object comes from the node that has it to the one that
// is asked for it. A round migrates it and deletes the copy again, untimed: the
// pool is warm in all rounds but the first, which does not count. In that one the
// copy's bytes are compared with the original's.
func (b *bench) migrate() error {
	if err := b.migrateOverTCP(); err != nil {
		return err
	}
	return b.onEtcd(b.migrateOnOneHost)
}

// overTCP is what the rows of a network share.
type overTCP struct {
	*bench
	path  string             // what the bytes take, for the rows' names
	hosts []*testserver.Host // two of them, or none: the nodes are on the machine itself
	pairs []pair             // v6d, the reference, and the reference again
}

// migrateOverTCP has each node on a host of its own, if the machine can play some.
func (b *bench) migrateOverTCP() error {
	t := overTCP{bench: b, path: "TCP on loopback"}
	var hub *testserver.Host
	if network, end, err := hosts(2); err == nil {
		defer end()
		t.path, t.hosts, hub = "TCP between network namespaces", network.Hosts, network.Hub
	}
	return b.onEtcdOf(hub, t.rows)
}

func (t *overTCP) rows(store *etcd) error {
	o := options{size: "4GiB", rpc: true, etcd: store.endpoint}
	start := func(name string, args ...string) (pair, error) {
		o.prefix, o.extra = fmt.Sprintf("bench-%d", len(t.procs)), args
		return t.pair(name, o, t.hosts...)
	}
	for _, name := range []string{"v6d", "reference", "reference again"} {
		var args []string
		if name == "v6d" {
			args = []string{"--peer-ipc=false"} // hosts of one machine share its files
		}
		p, err := start(name, args...)
		if err != nil {
			return err
		}
		t.pairs = append(t.pairs, p)
	}
	bare, err := start("reference, -compression=false", "-compression=false")
	if err != nil {
		return err
	}
	for _, f := range []func() error{
		func() error { return t.large(bare) },
		t.constant, t.small, t.askers, t.far,
	} {
		if err := f(); err != nil {
			return err
		}
		debug.FreeOSMemory()
	}
	return nil
}

// large is one object of one large blob, beside what a socket takes for it.
func (t *overTCP) large(bare pair) error {
	size := pick[int64](t.bench, 1<<30, 256<<20)
	content := noise(size)
	all, drop, err := packAll(append(slices.Clone(t.pairs), bare), [][]byte{content}, 1)
	if err != nil {
		return err
	}
	row := func() []side { return moving(all, rate) }
	what := sizeName(size) + " of noise, " + t.path
	if err := t.compare(what, gbps, row()[:3], mark(3)); err != nil {
		return err
	}
	s := row()
	if err := t.compare(what+", against the reference without compression", gbps, []side{s[0], s[3]}); err != nil {
		return err
	}
	file := filepath.Join(t.dir, "sendfile")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return err
	}
	defer os.Remove(file)
	into, err := os.Create(filepath.Join(t.dir, "received"))
	if err != nil {
		return err
	}
	defer os.Remove(into.Name())
	defer into.Close()
	plain := func(name string, to io.WriterAt) side {
		return side{name, func() ([]float64, error) {
			took, err := t.sendfile(file, size, to)
			return []float64{rate(size, took)}, err
		}}
	}
	against := []side{row()[0], plain("sendfile", nowhere{}), plain("sendfile, received into a warm file on tmpfs", into)}
	if err := t.compare(what+", against sendfile to a reader that discards, one connection", gbps, against, mark(0.9), withoutTwin()); err != nil {
		return err
	}
	return drop()
}

// constant is what compresses best.
func (t *overTCP) constant() error {
	const size = 256 << 20
	all, drop, err := packAll(t.pairs, [][]byte{bytes.Repeat([]byte{7}, size)}, 1)
	if err != nil {
		return err
	}
	if err := t.compare(sizeName(size)+" of one byte, "+t.path, gbps, moving(all, rate)); err != nil {
		return err
	}
	return drop()
}

// small is many blobs, a hundred in each member of one object, as collections have
// them; as members of the object itself they take as long, on all sides.
func (t *overTCP) small() error {
	const each = 100
	members := pick(t.bench, 100, 10)
	blobs := make([][]byte, members*each)
	for i := range blobs {
		blobs[i] = noise(64 + rand.Int64N(193))
	}
	all, drop, err := packAll(t.pairs, blobs, each)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s blobs of 64 to 256 B, %d in each of %d members, %s", thousands(len(blobs)), each, members, t.path)
	// The reference takes some 20 s for 10,000.
	if err := t.compare(name, millis, moving(all, duration), mark(5), rounds(3)); err != nil {
		return err
	}
	return drop()
}

// askers is ten clients who want the same object at the same time.
func (t *overTCP) askers() error {
	const (
		size = 256 << 20
		n    = 10
	)
	all, drop, err := packAll(t.pairs, [][]byte{noise(size)}, 1)
	if err != nil {
		return err
	}
	var nodes [2]*client.Client // of v6d: owner and asker
	for i := range nodes {
		if nodes[i], err = client.Dial(t.ctx, client.Options{Socket: t.pairs[0].nodes[i].socket}); err != nil {
			return err
		}
		defer nodes[i].Close()
	}
	var row []side
	copies := map[string][]float64{}
	var transfers, sent []float64
	for _, m := range all {
		row = append(row, side{m.name, func() ([]float64, error) {
			before, err := t.moved(nodes)
			if err != nil {
				return nil, err
			}
			took, made, err := m.atOnce(n)
			if err != nil {
				return nil, err
			}
			copies[m.name] = append(copies[m.name], float64(made))
			if m.name == "v6d" {
				after, err := t.moved(nodes)
				if err != nil {
					return nil, err
				}
				transfers = append(transfers, after.Transfers-before.Transfers)
				sent = append(sent, after.Sent-before.Sent)
			}
			return []float64{duration(size, took)}, nil
		}})
	}
	what := fmt.Sprintf("%d askers of one object of %s at once, %s", n, sizeName(size), t.path)
	if err := t.compare(what+", until the last has its answer", millis, row); err != nil {
		return err
	}
	said := func(name string, values []float64) side {
		return side{name, func() ([]float64, error) { return values, nil }}
	}
	for _, c := range []struct {
		name  string
		unit  unit
		sides []side
		most  float64
	}{
		{"copies made", count, []side{said("v6d", copies["v6d"]), said("reference", copies["reference"])}, 1},
		{"transfers", count, []side{said("v6d", transfers)}, 1},
		{"sent by the owner", mib, []side{said("v6d", sent)}, size >> 20},
	} {
		if err := t.compare(what+", "+c.name, c.unit, c.sides, atMost(c.most), rounds(1)); err != nil {
			return err
		}
	}
	return drop()
}

var count = unit{"", 1, false}

// movement is what v6d counts of its transfers.
type movement struct {
	Transfers float64 `json:"transfers"`  // of the node that is asked
	Sent      float64 `json:"sent_bytes"` // of the owner
}

func (t *overTCP) moved(nodes [2]*client.Client) (movement, error) {
	var each [2]struct {
		Moved movement `json:"moved"`
	}
	for i, c := range nodes {
		text, err := c.NodeStatus(t.ctx)
		if err == nil {
			err = json.Unmarshal(text, &each[i])
		}
		if err != nil {
			return movement{}, err
		}
	}
	return movement{each[1].Moved.Transfers, each[0].Moved.Sent}, nil
}

// far reads a blob of the other node in the ways that there are with v6d. Each
// ends with a read of one byte a page.
func (t *overTCP) far() error {
	const size = 256 << 20
	content := noise(size)
	p := t.pairs[0]
	all, drop, err := packAll(t.pairs[:1], [][]byte{content}, 1)
	if err != nil {
		return err
	}
	m := all[0]
	near, err := client.Dial(t.ctx, client.Options{Socket: p.nodes[1].socket})
	if err != nil {
		return err
	}
	defer near.Close()
	var remote *client.Client
	var asker, owner *testserver.Host
	if len(t.hosts) > 0 {
		owner, asker = t.hosts[0], t.hosts[1]
	}
	err = at(asker, func() (err error) {
		remote, err = client.Dial(t.ctx, client.Options{Endpoint: net.JoinHostPort(address(owner), strconv.Itoa(p.nodes[0].port))})
		return err
	})
	if err != nil {
		return err
	}
	defer remote.Close()
	from, blob := remote.Info().InstanceID, client.ID(m.blob)

	seen := map[string]bool{}
	// timed gets a blob and reads it; the first one's bytes are compared.
	timed := func(name string, get func() (*client.Blob, error)) (float64, *client.Blob, error) {
		start := time.Now()
		got, err := get()
		if err != nil {
			return 0, nil, err
		}
		sum := touch(got.Bytes())
		took := time.Since(start).Seconds()
		if sum == 0 || !seen[name] && !bytes.Equal(got.Bytes(), content) {
			err = errors.New("the bytes are not those of the owner")
		}
		seen[name] = true
		return took, got, err
	}
	fetch := func() (*client.Blob, error) {
		list, err := near.FetchBlobs(t.ctx, from, []client.ID{blob})
		if err != nil {
			return nil, err
		}
		return list[0], nil
	}
	var again []float64
	sides := []side{
		{"FetchBlobs", func() ([]float64, error) {
			took, _, err := timed("fetch", fetch)
			if err != nil {
				return nil, err
			}
			second, got, err := timed("fetch again", fetch) // a connection has one reference at most
			if err != nil {
				return nil, err
			}
			again = append(again, second)
			return []float64{took}, errors.Join(got.Release(t.ctx), near.DropBlob(t.ctx, got.ID()))
		}},
		{"GetBlobs over TCP", func() ([]float64, error) {
			took, got, err := timed("get", func() (*client.Blob, error) { return remote.GetBlob(t.ctx, blob) })
			if err == nil {
				err = got.Release(t.ctx)
			}
			debug.FreeOSMemory()
			return []float64{took}, err
		}},
		{"migrate, then GetBlobs", func() ([]float64, error) {
			var id uint64
			took, got, err := timed("migrate", func() (*client.Blob, error) {
				var err error
				if id, err = m.pair.migrate(m.id); err != nil {
					return nil, err
				}
				meta, err := near.GetObject(t.ctx, client.ID(id))
				if err != nil {
					return nil, err
				}
				return near.GetBlob(t.ctx, meta.Member(memberKey(m.blob)).ID)
			})
			if err != nil {
				return nil, err
			}
			return []float64{took}, errors.Join(got.Release(t.ctx), m.forget(id))
		}},
	}
	what := sizeName(size) + " of far memory, v6d, Go, " + t.path
	if err := t.compare(what+", first access", millis, sides, withoutTwin()); err != nil {
		return err
	}
	second := side{"FetchBlobs", func() ([]float64, error) { return again, nil }}
	if err := t.compare(what+", second access", millis, []side{second}, rounds(1)); err != nil {
		return err
	}
	return drop()
}

// migrateOnOneHost has both nodes on the machine, with their defaults.
func (b *bench) migrateOnOneHost(store *etcd) error {
	size := pick[int64](b, 1<<30, 256<<20)
	var pairs []pair
	for i, name := range []string{"v6d", "reference", "reference again"} {
		p, err := b.pair(name, options{size: "4GiB", rpc: true, etcd: store.endpoint, prefix: fmt.Sprintf("bench-%d", i)})
		if err != nil {
			return err
		}
		pairs = append(pairs, p)
	}
	all, drop, err := packAll(pairs, [][]byte{noise(size)}, 1)
	if err != nil {
		return err
	}
	if err := b.compare(sizeName(size)+" of noise on one host (IPC; the reference over loopback)", gbps, moving(all, rate), mark(6)); err != nil {
		return err
	}
	return drop()
}

// noise is random, and different each time.
func noise(n int64) []byte {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	out := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(out) // never fails
	return out
}

// parcel is an object of a pair's owner, to be moved to its peer.
type parcel struct {
	pair
	id      uint64
	blob    uint64 // one of them
	size    int64
	content map[string][]byte // by the members' keys
}

// packAll makes the same object on the owners of all pairs; drop deletes it.
func packAll(pairs []pair, blobs [][]byte, each int) (all []parcel, drop func() error, err error) {
	for _, p := range pairs {
		m, err := p.pack(blobs, each)
		if err != nil {
			return nil, nil, fmt.Errorf("make an object on %s: %w", p.name, err)
		}
		all = append(all, m)
	}
	return all, func() error {
		var errs []error
		for _, m := range all {
			errs = append(errs, m.own.forget(m.id))
		}
		return errors.Join(errs...)
	}, nil
}

// pack makes a persistent object that the peer knows, of so many blobs in each
// member, or of these themselves if one member would have all.
func (p pair) pack(blobs [][]byte, each int) (parcel, error) {
	m := parcel{pair: p, content: map[string][]byte{}}
	var parts []uint64
	for some := range slices.Chunk(blobs, each) {
		var ids []uint64
		for _, content := range some {
			at, err := p.own.create(int64(len(content)))
			if err != nil {
				return m, err
			}
			data, err := p.own.bytes(at)
			if err != nil {
				return m, err
			}
			copy(data, content)
			if _, err := p.own.call(sealFrame(at.ObjectID)); err != nil {
				return m, err
			}
			m.blob = at.ObjectID
			m.size += int64(len(content))
			m.content[memberKey(m.blob)] = content
			ids = append(ids, at.ObjectID)
		}
		id, err := p.own.createOver(ids)
		if err != nil {
			return m, err
		}
		parts = append(parts, id)
	}
	m.id = parts[0]
	var err error
	if len(parts) > 1 {
		if m.id, err = p.own.createOver(parts); err != nil {
			return m, err
		}
	}
	return m, errors.Join(p.persist(m.id), p.peer.until(syncFrame(m.id), `"typename"`))
}

// memberKey is the key that withMembers gives a member.
func memberKey(id uint64) string { return fmt.Sprintf("member_o%016x", id) }

// createOver makes an object of members that are there.
func (c *raw) createOver(members []uint64) (uint64, error) {
	text := make([]string, len(members))
	for i, id := range members {
		text[i] = strconv.FormatUint(id, 10)
	}
	body, err := c.call(frame(`{"id":[%s],"sync_remote":false,"type":"get_data_request","wait":false}`, strings.Join(text, ",")))
	if err != nil {
		return 0, err
	}
	meta, err := withMembers(body, len(members))
	if err != nil {
		return 0, err
	}
	return c.create1(meta)
}

// migrate brings an object to the peer and returns the copy's id.
func (p pair) migrate(id uint64) (uint64, error) { return p.peer.migrate(id) }

func (c *raw) migrate(id uint64) (uint64, error) {
	body, err := c.call(frame(`{"object_id":%d,"type":"migrate_object_request"}`, id))
	if err != nil {
		return 0, err
	}
	made := number(body, `"object_id":`)
	if made == 0 || made == id {
		return 0, fmt.Errorf("object %d was not moved: %.200s", id, body)
	}
	return made, nil
}

// forget deletes an object that the peer has, and its blobs.
func (p pair) forget(id uint64) error { return p.peer.forget(id) }

func (c *raw) forget(id uint64) error {
	_, err := c.call(frame(`{"deep":true,"fastpath":false,"force":false,"id":[%d],"memory_trim":false,"type":"del_data_request"}`, id))
	return errors.Join(err, c.until(existsFrame(id), `"exists":false`))
}

// moving makes a row: each side moves its own parcel.
func moving(all []parcel, sample func(size int64, took time.Duration) float64) []side {
	var out []side
	for _, m := range all {
		checked := false
		out = append(out, side{m.name, func() ([]float64, error) {
			start := time.Now()
			id, err := m.migrate(m.id)
			took := time.Since(start)
			if err != nil {
				return nil, err
			}
			if !checked {
				err = m.check(id)
			}
			checked = true
			return []float64{sample(m.size, took)}, errors.Join(err, m.forget(id))
		}})
	}
	return out
}

func rate(size int64, took time.Duration) float64  { return float64(size) / took.Seconds() }
func duration(_ int64, took time.Duration) float64 { return took.Seconds() }

// atOnce has n clients of the peer ask for the object at the same time: the time
// until the last has its answer, and how many copies there are then, which go again.
func (m parcel) atOnce(n int) (took time.Duration, copies int, err error) {
	var mu sync.Mutex
	made := map[uint64]bool{}
	work := make([]func() error, n)
	for i := range work {
		c, err := dialRaw(m.nodes[1].socket)
		if err != nil {
			return 0, 0, err
		}
		defer func() { _ = c.close() }() // nothing is mapped
		work[i] = func() error {
			id, err := c.migrate(m.id)
			mu.Lock()
			defer mu.Unlock()
			made[id] = true
			return err
		}
	}
	start := time.Now()
	if err := atOnce(work); err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	for id := range made {
		err = errors.Join(err, m.forget(id))
	}
	return took, len(made), err
}

// check compares the bytes of a copy. Its references go with its connection.
func (m parcel) check(id uint64) error {
	c, err := dialRaw(m.nodes[1].socket)
	if err != nil {
		return err
	}
	defer func() { _ = c.close() }() // what it mapped was only read
	body, err := c.call(frame(`{"id":[%d],"sync_remote":false,"type":"get_data_request","wait":false}`, id))
	if err != nil {
		return err
	}
	var reply struct {
		Content map[string]any `json:"content"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return err
	}
	ids := map[string]uint64{}
	blobsOf(reply.Content, ids)
	if len(ids) != len(m.content) {
		return fmt.Errorf("the copy has %d blobs, not %d", len(ids), len(m.content))
	}
	for key, want := range m.content {
		at, err := c.get(ids[key])
		if err != nil {
			return err
		}
		got, err := c.bytes(at)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s of the copy: %d bytes, which are not those of the original", key, len(got))
		}
	}
	return nil
}

// blobsOf collects the blobs of a metadata tree by their keys.
func blobsOf(tree map[string]any, into map[string]uint64) {
	for key, v := range tree {
		m, ok := v.(map[string]any)
		if !ok {
			continue
		}
		if m["typename"] != "vineyard::Blob" {
			blobsOf(m, into)
			continue
		}
		text, _ := m["id"].(string)
		id, err := strconv.ParseUint(strings.TrimPrefix(text, "o"), 16, 64)
		if err == nil {
			into[key] = id
		}
	}
}

// nowhere is where bytes go that nobody wants.
type nowhere struct{}

func (nowhere) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// sendfile sends a file from the owner's host to the asker's, where it is received
// over one connection.
func (t *overTCP) sendfile(path string, size int64, to io.WriterAt) (took time.Duration, err error) {
	var owner, asker *testserver.Host
	if len(t.hosts) > 0 {
		owner, asker = t.hosts[0], t.hosts[1]
	}
	var l net.Listener
	if err := at(owner, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(address(owner), "0"))
		return err
	}); err != nil {
		return 0, err
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			defer c.Close()
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = c.(*net.TCPConn).ReadFrom(f)
			return err
		}()
	}()
	var c net.Conn
	start := time.Now()
	if err := at(asker, func() (err error) {
		c, err = net.Dial("tcp", l.Addr().String())
		return err
	}); err != nil {
		return 0, err
	}
	defer c.Close()
	buf := make([]byte, 1<<20)
	n, err := io.CopyBuffer(struct{ io.Writer }{io.NewOffsetWriter(to, 0)}, struct{ io.Reader }{c}, buf)
	took = time.Since(start)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes came of %d", n, size)
	}
	return took, errors.Join(err, <-done)
}
