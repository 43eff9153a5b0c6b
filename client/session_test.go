//go:build linux

package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

// session makes a session and returns a client in it, over the transport that
// is tested.
func (d daemon) session(t testing.TB, root *client.Client) *client.Client {
	t.Helper()
	socket := ok(root.NewSession(t.Context(), false))(t)
	c := dial(t, client.Options{Socket: socket})
	t.Cleanup(func() { _ = c.DeleteSession(context.Background()) })
	if !d.tcp {
		return c
	}
	return d.dial(t, func(o *client.Options) { o.Session = c.Info().SessionID })
}

func testSessions(t *testing.T, d daemon) {
	ctx := t.Context()
	root := d.connect(t)
	socket := ok(root.NewSession(ctx, false))(t)
	if !strings.HasPrefix(socket, d.socket+".S") {
		t.Errorf("the session's socket is %s, the root's %s", socket, d.socket)
	}
	a := dial(t, client.Options{Socket: socket})
	info := a.Info()
	if info.Socket != socket || info.SessionID == 0 || !info.Local || info.RPCEndpoint != "0.0.0.0:0" || root.Info().SessionID != 0 {
		t.Errorf("the session says %+v", info)
	}
	b := a
	if d.tcp {
		b = d.dial(t, func(o *client.Options) { o.Session = info.SessionID })
		if got := b.Info(); got.SessionID != info.SessionID || got.Local {
			t.Errorf("joined over TCP: %+v", got)
		}
		_, err := client.Dial(ctx, client.Options{Endpoint: d.rpc, Session: 12345})
		wantErr(t, err, client.Invalid)
	}
	if d.tcp && !d.v6d() {
		b = a // the reference puts remote blobs into the root session
	}
	id, blob := put(t, b, unique(t))
	if !ok(a.Exists(ctx, id))(t) || !ok(a.Exists(ctx, blob))(t) {
		t.Error("object and blob do not exist in their session")
	}
	if ok(root.Exists(ctx, id))(t) || ok(root.Exists(ctx, blob))(t) {
		t.Error("object or blob of a session exist in the root session")
	}
	rootID, _ := put(t, root, unique(t))
	must(t, b.Clear(ctx))
	if ok(a.Exists(ctx, id))(t) || !ok(root.Exists(ctx, rootID))(t) {
		t.Error("Clear must take its own session and nothing else")
	}
	if d.v6d() { // the reference lets anyone delete the root session
		err := root.DeleteSession(ctx)
		wantErr(t, err, client.Invalid)
	}
	must(t, a.DeleteSession(ctx))
	_, err := a.InstanceStatus(ctx)
	wantErr(t, err, net.ErrClosed)
	must(t, b.Close())
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(socket); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", socket)
		}
	}
	_, err = client.Dial(ctx, client.Options{Socket: socket})
	wantErr(t, err, client.Unreachable)
}

// Over IPC, client and session must agree on who chooses the ids of blobs.
func testPlasmaSession(t *testing.T, d daemon) {
	ctx := t.Context()
	root := d.connect(t)
	_, err := client.Dial(ctx, client.Options{Socket: d.socket, Plasma: true})
	wantErr(t, err, client.Invalid)
	socket := ok(root.NewSession(ctx, true))(t)
	_, err = client.Dial(ctx, client.Options{Socket: socket})
	wantErr(t, err, client.Invalid)
	c := dial(t, client.Options{Socket: socket, Plasma: true})
	if d.v6d() { // it kills the reference
		_, err = c.CreateBlob(ctx, 10)
		wantErr(t, err, client.Invalid)
	}
	must(t, c.DeleteSession(ctx))
}

func testTakeBlobs(t *testing.T, d daemon) {
	ctx := t.Context()
	root := d.connectIPC(t)
	src := d.over(false).session(t, root)
	if d.tcp && !d.v6d() {
		t.Skip("the reference looks for remote blobs in the root session")
	}
	dst := d.session(t, root)
	data := random(20_000)
	a, b := ok(src.PutBlob(ctx, data))(t), ok(src.PutBlob(ctx, data[:7]))(t)
	if ok(dst.Exists(ctx, a))(t) {
		t.Fatal("sessions are not isolated")
	}
	must(t, dst.TakeBlobs(ctx, src.Info().SessionID, []client.ID{a, b, client.EmptyBlob | 1}))
	wantBlob(t, dst, a, data)
	wantBlob(t, dst, b, data[:7])
	wantBlob(t, src, a, data) // both have it
	own := ok(dst.PutBlob(ctx, []byte("own")))(t)
	blobs := ok(dst.GetBlobs(ctx, []client.ID{own, a}))(t) // of two files, over IPC
	if string(blobs[0].Bytes()) != "own" || !bytes.Equal(blobs[1].Bytes(), data) {
		t.Error("own and taken blobs in one request differ")
	}
	wantErr(t, dst.TakeBlobs(ctx, 12345, []client.ID{a}), client.Invalid)
	if d.v6d() { // the reference never answers
		must(t, dst.TakeBlobs(ctx, dst.Info().SessionID, []client.ID{a}))
	}
}

func testLock(t *testing.T, d daemon) {
	ctx := t.Context()
	a, b := d.connect(t), d.connect(t)
	key := strings.ReplaceAll(unique(t), "/", ":")
	unlock, err := a.Lock(ctx, key)
	if !d.v6d() {
		wantErr(t, err, client.NotImplemented) // with local metadata
		return
	}
	must(t, err)
	other := ok(a.Lock(ctx, key+"other"))(t)
	type result struct {
		unlock func(context.Context) error
		err    error
	}
	done := make(chan result, 1)
	take := func() {
		unlock, err := b.Lock(ctx, key)
		done <- result{unlock, err}
	}
	go take()
	select {
	case r := <-done:
		t.Fatalf("two hold the lock: %v", r.err)
	case <-time.After(30 * time.Millisecond):
	}
	must(t, other(ctx))
	must(t, unlock(ctx))
	r := <-done
	must(t, r.err)
	must(t, r.unlock(ctx))

	ok(a.Lock(ctx, key))(t)
	go take()
	must(t, a.Close()) // gives the lock back
	r = <-done
	must(t, r.err)
	must(t, r.unlock(ctx))
}

func testStatus(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	before := ok(c.InstanceStatus(ctx))(t)
	id := ok(c.PutBlob(ctx, make([]byte, 12345)))(t)
	st := ok(c.InstanceStatus(ctx))(t)
	if st.MemoryUsage-before.MemoryUsage != 12345 || st.MemoryLimit < 64<<20 {
		t.Errorf("a blob of 12345 bytes later, usage went from %d to %d of %d", before.MemoryUsage, st.MemoryUsage, st.MemoryLimit)
	}
	if st.Deployment != "local" || st.InstanceID != uint64(c.Info().InstanceID) || st.IPCConnections+st.RPCConnections < 1 {
		t.Errorf("status %+v", st)
	}
	must(t, c.DropBlob(ctx, id))
	if got := ok(c.InstanceStatus(ctx))(t); got.MemoryUsage != before.MemoryUsage {
		t.Errorf("after the blob was dropped, usage is %d, not %d", got.MemoryUsage, before.MemoryUsage)
	}
	info := c.Info()
	if info.Socket != d.socket || info.SessionID != 0 || info.Local == d.tcp || info.Extended != d.v6d() || info.Version != "0.24.2" {
		t.Errorf("info %+v", info)
	}
	if d.v6d() && info.RPCEndpoint != d.rpc {
		t.Errorf("the endpoint is %s, info says %s", d.rpc, info.RPCEndpoint)
	}
}

func testCluster(t *testing.T, d daemon) {
	c := d.connect(t)
	all := ok(c.Cluster(t.Context()))(t)
	self, known := all[c.Info().InstanceID.String()]
	if len(all) != 1 || !known || self.IPCSocket != d.socket || self.RPCEndpoint != c.Info().RPCEndpoint || self.Hostname == "" {
		t.Errorf("the cluster is %+v", all)
	}
	if s := self.Timestamp >> 32; time.Since(time.Unix(s, 0)) > 10*time.Minute {
		t.Errorf("the instance's time is %v", time.Unix(s, 0))
	}
}

// What needs a v6d daemon says so on any other, and to a classic client.
func testExtensions(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.dial(t, func(o *client.Options) { o.Classic = d.v6d() })
	if c.Info().Extended {
		t.Fatal("extensions were negotiated")
	}
	errs := map[string]error{}
	_, errs["NodeStatus"] = c.NodeStatus(ctx)
	for _, err := range c.Rows(ctx, client.PageOptions{}) {
		errs["Rows"] = err
	}
	for _, err := range c.BlobRows(ctx) {
		errs["BlobRows"] = err
	}
	for _, err := range c.Watch(ctx, "") {
		errs["Watch"] = err
	}
	for _, err := range c.WatchSince(ctx, "", time.Now()) {
		errs["WatchSince"] = err
	}
	for _, name := range []string{"NodeStatus", "Rows", "BlobRows", "Watch", "WatchSince"} {
		err := errs[name]
		wantErr(t, err, client.NotImplemented)
		if e, isError := errors.AsType[*client.Error](err); !isError || e.Hint == "" || !strings.Contains(e.Msg, "v6d") {
			t.Errorf("%s: no hint in %#v", name, err)
		}
	}
	if !d.v6d() {
		return
	}
	var st struct {
		PID         int              `json:"pid"`
		Connections []map[string]any `json:"connections"`
	}
	must(t, json.Unmarshal(ok(d.connect(t).NodeStatus(ctx))(t), &st))
	if st.PID != os.Getpid() || len(st.Connections) < 2 {
		t.Errorf("status %+v", st)
	}
}
