//go:build linux

package faults

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/status"
)

// testTruncate shortens the pool's file while the daemon runs, as every client
// can.
func testTruncate(t *testing.T) {
	for _, home := range []struct {
		name string
		args []string
	}{
		{"mount", nil},
		{"devshm", []string{"--huge", "never"}},
	} {
		t.Run(home.name, func(t *testing.T) {
			refusals, sizes := 0, []int{0, 4096, 5 * mib}
			for _, size := range sizes {
				refusals += truncated(t, size, home.args...)
			}
			t.Logf("%d files truncated, %d requests answered with an error that names the file; ledger balanced", len(sizes), refusals)
		})
	}
}

func truncated(t *testing.T, size int, args ...string) (refusals int) {
	d := serve(t, append([]string{"--size", "64MiB"}, args...)...)
	d.expect = []string{"the pool is damaged"}
	before := d.books(t, 0)
	p, far := connect(t, d.socket), connect(t, d.rpc)
	want := pattern(seed, 24*mib)
	blob, err := p.put(want)
	if err != nil {
		t.Fatal(err)
	}
	// Transfers that are under way when it happens.
	loading, saving := connect(t, d.rpc), connect(t, d.rpc)
	if _, found, err := loading.download(blob); err != nil || !found {
		t.Fatalf("download: found %v, %v", found, err)
	}
	rest := pattern(seed, 2*mib)
	if err := saving.upload(rest, mib); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond)

	culprit := d.spawn(t, "truncate", uint64(size))
	culprit.arrive(t)
	named := []string{d.status(t).Start.Place.Path + "/pool-", "truncated", strconv.Itoa(culprit.cmd.Process.Pid)}
	for i, err := range []error{
		ask(p, protocol.GetBuffers, protocol.GetBuffersRequest{IDs: protocol.IDs{blob}}, &protocol.GetBuffersReply{}),
		ask(p, protocol.CreateBuffer, protocol.SizeRequest{Size: 100}, &protocol.CreateBufferReply{}),
		ask(p, protocol.CreateBuffers, protocol.CreateBuffersRequest{Sizes: []uint64{100, 200}}, &protocol.CreateBuffersReply{}),
		ask(far, protocol.GetRemote, protocol.GetRemoteRequest{IDs: protocol.IDs{blob}}, &protocol.GetBuffersReply{}),
		ask(far, protocol.GetRemote, protocol.GetRemoteRequest{IDs: protocol.IDs{blob}, Compress: true}, &protocol.GetBuffersReply{}),
		ask(far, protocol.CreateRemote, protocol.CreateRemoteRequest{Size: 100}, &protocol.CreateBufferReply{}),
		ask(far, protocol.CreateRemotes, protocol.CreateRemotesRequest{Sizes: []uint64{100, 200}}, &protocol.CreateBuffersReply{}),
	} {
		if !errors.Is(err, status.IOError) {
			t.Errorf("request %d after the pool was truncated to %d: %v, want an I/O error", i, size, err)
			continue
		}
		contains(t, fmt.Sprintf("the answer to request %d", i), err.Error(), named...)
		refusals++
	}
	contains(t, "the status", d.status(t).Damage, named...)

	// The download ends early, or is right. What came before its end may be zeros
	// in part: the socket holds the pool's own pages, and huge ones are truncated
	// in place.
	loading.limit(patience)
	got := make([]byte, 0, len(want))
	for buf := make([]byte, mib); len(got) < len(want); {
		n, err := loading.pc.Read(buf)
		if got = append(got, buf[:n]...); err != nil {
			break
		}
	}
	if len(got) == len(want) {
		sameBytes(t, "a download that came whole", got, want)
	}
	// The upload may fail or not; what is stored must not be served as whole.
	saving.limit(patience)
	if _, err := saving.pc.Write(rest[mib:]); err == nil {
		var r protocol.CreateBufferReply
		if err := hear(saving, protocol.CreateRemote, &r); err == nil {
			if _, _, err := far.download(r.ID); !errors.Is(err, status.IOError) {
				t.Errorf("an upload whose first half was cut off is served: %v", err)
			}
		}
	}

	// Nobody else is concerned: metadata, deletions, other sessions.
	var session protocol.NewSessionReply
	if err := ask(p, protocol.NewSession, protocol.NewSessionRequest{StoreType: protocol.StoreDefault}, &session); err != nil {
		t.Fatal(err)
	}
	d.serves(t, session.SocketPath)
	if n := d.endStraySessions(t); n != 1 {
		t.Errorf("%d sessions ended, want 1", n)
	}
	if ok, err := p.exists(blob); err != nil || !ok {
		t.Errorf("exists: %v, %v", ok, err)
	}
	if err := ask(p, protocol.Clear, protocol.None{}, &protocol.None{}); err != nil {
		t.Error(err)
	}
	for _, c := range []*peer{p, far, loading, saving} {
		c.drop()
	}
	if err := culprit.kill(); err != nil {
		t.Error(err)
	}
	d.even(t, before)
	if err := within(settled, func() error { // its housekeeping looks once a second
		if size == 0 && !strings.Contains(d.log.String(), "the pool is damaged") {
			return errors.New("the log does not mention it")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	d.stop()
	d.args = append(d.args, "--fresh") // as the hint says
	d.start()
	d.await(t, "a pool that is whole", settled, func(st server.Status) bool { return st.Damage == "" })
	d.balanced(t, d.books(t, 0))
	d.stop()
	return refusals
}
