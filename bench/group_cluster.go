package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/v6d-go/v6d/internal/testserver"
)

// cluster measures clusters of two nodes: what is done on one, and when the
// other one sees it. All clusters are on one etcd, each below a prefix of its
// own. Its data lies on the checkout's disk and is synced, as users have it: a
// change is acknowledged only then, whoever makes it, and the first rows show
// what that takes etcd alone.
func (b *bench) cluster() error { return b.onEtcd(b.clusterRows) }

// onEtcd calls f with an etcd, if there is one to be had, and ends the daemons
// that f started before it.
func (b *bench) onEtcd(f func(*etcd) error) error { return b.onEtcdOf(nil, f) }

// onEtcdOf is onEtcd with etcd on a host.
func (b *bench) onEtcdOf(h *testserver.Host, f func(*etcd) error) error {
	store, err := b.startEtcd(h)
	if err != nil {
		b.report.absent(os.Stdout, "clusters", err.Error()+" (make etcd)")
		return nil
	}
	defer store.stop()
	defer b.leave()
	return f(store)
}

func (b *bench) clusterRows(store *etcd) error {
	if err := b.etcdRows(store); err != nil {
		return err
	}
	var pairs []pair
	var err error
	for i, name := range []string{"v6d", "reference", "reference again"} {
		p, err := b.pair(name, options{size: "256MiB", etcd: store.endpoint, prefix: fmt.Sprintf("bench-%d", i)})
		if err != nil {
			return err
		}
		pairs = append(pairs, p)
	}

	for _, c := range []struct {
		members, n int
		mark       float64
	}{{2, pick(b, 20, 10), 2}, {20, pick(b, 10, 5), 2}, {1000, pick(b, 3, 1), 5}} {
		if err := b.compare(fmt.Sprintf("persist with %d members, raw", c.members), millis, pairRow(pairs, c.n, func(p pair) (uint64, error) {
			return p.own.transient(c.members)
		}, pair.persist), mark(c.mark)); err != nil {
			return err
		}
	}
	n := pick(b, 30, 15)
	small := func(p pair) (uint64, error) { return p.own.transient(0) }
	public := func(p pair) (uint64, error) {
		id, err := small(p)
		return id, errors.Join(err, p.persist(id))
	}
	if err := b.compare("put_name, raw", millis, pairRow(pairs, n, public, func(p pair, id uint64) error {
		_, err := p.own.call(frame(`{"type":"put_name_request","object_id":%d,"name":"bench-%d"}`, id, id))
		return err
	}), mark(1)); err != nil {
		return err
	}

	// What the other node sees.
	var seen []side
	for _, p := range pairs {
		seen = append(seen, side{p.name, func() ([]float64, error) { return p.seen(n) }})
	}
	if err := b.compare("persist until exists on the peer, which is asked all the time, raw", millis, seen, mark(1)); err != nil {
		return err
	}
	if err := b.compare("persist, then get_data with sync_remote on the peer, raw", millis, pairRow(pairs, n, small, func(p pair, id uint64) error {
		return errors.Join(p.persist(id), p.peer.until(syncFrame(id), `"typename"`))
	}), mark(1)); err != nil {
		return err
	}
	for _, c := range []struct {
		where string
		node  func(pair) *raw
	}{{"its own node", func(p pair) *raw { return p.own }}, {"the peer", func(p pair) *raw { return p.peer }}} {
		ids := map[string]uint64{}
		for _, p := range pairs {
			if ids[p.name], err = public(p); err != nil {
				return err
			}
			if err := p.peer.until(syncFrame(ids[p.name]), `"typename"`); err != nil {
				return err
			}
		}
		known := func(p pair) (uint64, error) { return ids[p.name], nil }
		if err := b.compare("get_data with sync_remote on "+c.where+", raw", micros, pairRow(pairs, 10*n, known, func(p pair, id uint64) error {
			_, err := c.node(p).call(syncFrame(id))
			return err
		})); err != nil {
			return err
		}
	}

	// Many at once.
	const clients = 8
	crowd := pick(b, 1000, 80)
	var rows []side
	for _, p := range pairs {
		rows = append(rows, side{p.name, func() ([]float64, error) {
			took, err := p.persistMany(crowd, clients, "bench::Small")
			return []float64{took.Seconds()}, err
		}})
	}
	return b.compare(fmt.Sprintf("%s persists by %d clients at once, all of them, raw", thousands(crowd), clients), millis, rows, mark(4), rounds(3))
}

// join measures how long a new node takes to know what a cluster has.
func (b *bench) join() error { return b.onEtcd(b.joinRow) }

func (b *bench) joinRow(store *etcd) error {
	const objects = 100_000
	o := options{size: "256MiB", etcd: store.endpoint, prefix: "bench", patience: time.Minute}
	// Those who have them die at the end: leaving would take all out of etcd first.
	crowded := o
	crowded.extra = []string{"--memory", "anonymous"}
	p, err := b.pair("v6d", crowded)
	if err != nil {
		return err
	}
	defer func() {
		for _, node := range p.nodes {
			_ = node.cmd.Process.Kill() // it may have ended
		}
	}()
	if _, err := p.persistMany(objects, 100, "bench::Crowd"); err != nil {
		return err
	}
	var row []side
	for _, name := range []string{"v6d", "reference"} {
		row = append(row, side{name, func() ([]float64, error) {
			start := time.Now()
			fresh, err := b.daemon(name, o)
			if err != nil {
				return nil, err
			}
			defer b.stopOne(fresh)
			c, err := dialRaw(fresh.socket)
			if err != nil {
				return nil, err
			}
			list := frame(`{"limit":1000000,"pattern":"bench::Crowd","regex":false,"type":"list_data_request"}`)
			for {
				body, err := c.call(list)
				if err != nil {
					return nil, errors.Join(err, c.close())
				}
				took := time.Since(start)
				switch n := bytes.Count(body, []byte(`"bench::Crowd"`)); {
				case n == objects:
					return []float64{took.Seconds()}, c.close()
				case took > o.patience:
					return nil, errors.Join(fmt.Errorf("it knows %d objects of %d after %v", n, objects, took), c.close())
				}
			}
		}})
	}
	return b.compare("start among 100,000 persistent objects, until they are listed", seconds, row, atMost(5), rounds(pick(b, 5, 1)))
}

// pair is a cluster: a node where things are done, and the other one.
type pair struct {
	name      string
	nodes     [2]*proc
	own, peer *raw
}

// pair starts a cluster of two like nodes, each on a host of its own if hosts are
// given. stopAll ends them.
func (b *bench) pair(name string, o options, hosts ...*testserver.Host) (pair, error) {
	p := pair{name: name}
	for i, c := range []**raw{&p.own, &p.peer} {
		var err error
		if len(hosts) > 0 {
			o.on = hosts[i]
		}
		if p.nodes[i], err = b.daemon(name, o); err != nil {
			return p, err
		}
		if *c, err = dialRaw(p.nodes[i].socket); err != nil {
			return p, err
		}
	}
	return p, nil
}

// pairRow makes a row of n calls a round, each with an object that was made for
// it before, untimed.
func pairRow(pairs []pair, n int, create func(pair) (uint64, error), call func(pair, uint64) error) []side {
	var out []side
	for _, p := range pairs {
		out = append(out, side{p.name, func() ([]float64, error) {
			ids := make([]uint64, n)
			for i := range ids {
				var err error
				if ids[i], err = create(p); err != nil {
					return nil, err
				}
			}
			return each(n, func(i int) error { return call(p, ids[i]) })
		}})
	}
	return out
}

func persistFrame(id uint64) []byte { return frame(`{"type":"persist_request","id":%d}`, id) }

func syncFrame(id uint64) []byte {
	return frame(`{"id":[%d],"sync_remote":true,"type":"get_data_request","wait":false}`, id)
}

func (p pair) persist(id uint64) error {
	_, err := p.own.call(persistFrame(id))
	return err
}

// seen persists objects and times how long it takes until the peer knows them,
// be that before or after the request to persist is answered.
func (p pair) seen(n int) ([]float64, error) {
	out := make([]float64, n)
	for i := range out {
		id, err := p.own.transient(0)
		if err != nil {
			return nil, err
		}
		done := make(chan error, 1)
		start := time.Now()
		go func() { done <- p.persist(id) }()
		err = p.peer.until(existsFrame(id), `"exists":true`)
		out[i] = time.Since(start).Seconds()
		if err := errors.Join(err, <-done); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// persistMany makes objects and persists them, each by itself, over so many
// connections at once: the time of the latter.
func (p pair) persistMany(objects, clients int, typename string) (time.Duration, error) {
	work := make([]func() error, clients)
	for i := range work {
		c, err := dialRaw(p.nodes[0].socket)
		if err != nil {
			return 0, err
		}
		defer func() { _ = c.close() }() // nothing is mapped
		var requests [][]byte
		for range objects / clients {
			id, err := c.create1(object(typename))
			if err != nil {
				return 0, err
			}
			requests = append(requests, persistFrame(id))
		}
		work[i] = func() error {
			for _, r := range requests {
				if _, err := c.call(r); err != nil {
					return err
				}
			}
			return nil
		}
	}
	start := time.Now()
	err := atOnce(work)
	return time.Since(start), err
}

// atOnce calls functions at the same time and waits for all.
func atOnce(work []func() error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(work))
	for i, f := range work {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// object is the metadata of an object of about 200 bytes.
func object(typename string) string {
	return fmt.Sprintf(`{"typename":%q,"nbytes":0,"transient":true,"instance_id":0,"global":false,"text_":"%0100d"}`, typename, 0)
}

// transient makes an object with members, all known to its node alone.
func (c *raw) transient(members int) (uint64, error) {
	if members == 0 {
		return c.create1(object("bench::Small"))
	}
	ids := make([]string, members)
	for i := range ids {
		id, err := c.create1(object("bench::Member"))
		if err != nil {
			return 0, err
		}
		ids[i] = fmt.Sprint(id)
	}
	body, err := c.call(frame(`{"id":[%s],"sync_remote":false,"type":"get_data_request","wait":false}`, strings.Join(ids, ",")))
	if err != nil {
		return 0, err
	}
	text, err := withMembers(body, members)
	if err != nil {
		return 0, err
	}
	return c.create1(text)
}

// withMembers makes the metadata of an object from a reply to get_data: all that
// it has become members.
func withMembers(reply []byte, members int) (string, error) {
	var r struct {
		Content map[string]json.RawMessage `json:"content"`
	}
	if err := json.Unmarshal(reply, &r); err != nil {
		return "", err
	}
	if len(r.Content) != members {
		return "", fmt.Errorf("get_data answers with %d objects, want %d", len(r.Content), members)
	}
	var text strings.Builder
	text.WriteString(`{"typename":"bench::Wide","nbytes":0,"transient":true,"instance_id":0,"global":false`)
	for id, one := range r.Content {
		fmt.Fprintf(&text, `,"member_%s":%s`, id, one)
	}
	text.WriteString("}")
	return text.String(), nil
}

// until asks again and again until the reply contains a text. An error may mean
// that the object is not known yet; after five seconds it is one.
func (c *raw) until(request []byte, text string) error {
	for start := time.Now(); ; {
		body, err := c.call(request)
		if err == nil && bytes.Contains(body, []byte(text)) {
			return nil
		}
		if time.Since(start) > 5*time.Second {
			return errors.Join(err, fmt.Errorf("no %s in %.200s", text, body))
		}
	}
}

// thousands puts a comma into a number.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// leave ends the daemons of clusters: those of v6d cleanly, since they have
// mounted their pools, all at once.
func (b *bench) leave() {
	var wg sync.WaitGroup
	for _, p := range b.procs {
		if p.name != "v6d" {
			_ = p.cmd.Process.Kill() // it may have ended
		}
		wg.Go(p.stop)
	}
	wg.Wait()
	b.procs = nil
}

// etcdRows measures what etcd takes for the least that a change needs. Its JSON
// gateway is a part of that: about as much as a read.
func (b *bench) etcdRows(store *etcd) error {
	next := 0
	puts := func(n int) any {
		var ops []any
		for range n {
			next++
			ops = append(ops, map[string]any{"request_put": pairOf(fmt.Sprintf("bare/%d", next), strings.Repeat("v", 250))})
		}
		return map[string]any{"success": ops}
	}
	for _, c := range []struct {
		name string
		n    int
		call func() error
	}{
		{"a read", 50, func() error { return store.call("/v3/kv/range", pairOf("bare/1", "")) }},
		{"a transaction of 2 puts of 250 B", 50, func() error { return store.call("/v3/kv/txn", puts(2)) }},
		{"1,000 puts of 250 B, 8 transactions one after the other", 2, func() error {
			for range 8 {
				if err := store.call("/v3/kv/txn", puts(125)); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		row := []side{{"etcd", func() ([]float64, error) { return each(c.n, func(int) error { return c.call() }) }}}
		if err := b.compare("etcd alone, "+c.name, millis, row); err != nil {
			return err
		}
	}
	return nil
}

// pairOf is a key and value as etcd's JSON has them.
func pairOf(key, value string) map[string][]byte {
	if value == "" {
		return map[string][]byte{"key": []byte(key)}
	}
	return map[string][]byte{"key": []byte(key), "value": []byte(value)}
}

// etcd is a real one, a cluster of one, with its own defaults.
type etcd struct {
	cmd      *exec.Cmd
	dir      string
	endpoint string
	out      testserver.Output
	ended    chan struct{}
	http     http.Client
}

// startEtcd starts an etcd, on a host or on the machine itself, and waits until it
// serves.
func (b *bench) startEtcd(h *testserver.Host) (*etcd, error) {
	binary, err := filepath.Abs(b.etcd)
	if err != nil {
		return nil, err
	}
	e := &etcd{ended: make(chan struct{})}
	ports := make([]string, 2)
	for i := range ports {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		ports[i] = fmt.Sprintf("http://%s:%d", address(h), port)
	}
	e.endpoint = ports[0]
	// The binary's folder is on the checkout's disk: a temporary one may be memory.
	if e.dir, err = os.MkdirTemp(filepath.Dir(binary), "bench-etcd-"); err != nil {
		return nil, err
	}
	args := []string{
		"--name=e", "--data-dir=" + e.dir, "--log-level=error",
		"--listen-client-urls=" + ports[0], "--advertise-client-urls=" + ports[0],
		"--listen-peer-urls=" + ports[1], "--initial-advertise-peer-urls=" + ports[1], "--initial-cluster=e=" + ports[1],
	}
	e.cmd = exec.Command(binary, args...)
	if h != nil {
		e.cmd = h.Command(context.Background(), binary, args...)
		e.http.Transport = &http.Transport{DialContext: h.DialContext}
	}
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	e.cmd.Stdout, e.cmd.Stderr = &e.out, &e.out
	if err := testserver.StartProcess(e.cmd); err != nil {
		return nil, errors.Join(err, os.RemoveAll(e.dir))
	}
	go func() { _ = e.cmd.Wait(); close(e.ended) }()
	for start := time.Now(); ; {
		err := e.call("/v3/kv/put", pairOf("ready", "yes"))
		if err == nil {
			return e, nil
		}
		select {
		case <-e.ended:
			err = errors.New("etcd ended")
		case <-time.After(20 * time.Millisecond):
			if time.Since(start) < 20*time.Second {
				continue
			}
		}
		e.stop()
		return nil, fmt.Errorf("%w: %s", err, e.out.Tail(5))
	}
}

// call asks etcd through its JSON gateway.
func (e *etcd) call(path string, in any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	resp, err := e.http.Post(e.endpoint+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("etcd: %s: %s", path, bytes.TrimSpace(text))
	}
	return err
}

func (e *etcd) stop() {
	_ = e.cmd.Process.Kill() // it may have ended, and its data goes anyway
	<-e.ended
	_ = os.RemoveAll(e.dir)
	e.http.CloseIdleConnections()
}
