//go:build linux

package recovery

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// TestDrain ends a daemon that is at work: every request that was under way is
// answered in full, waiting ones with an error, and serve exits with 0.
func TestDrain(t *testing.T) {
	h := newHost(t, "--size", "64MiB", "--keep")
	for round := range 5 {
		d := h.start("--fresh")
		var answered, cut atomic.Int64
		var wg sync.WaitGroup
		var mu sync.Mutex
		acked := map[client.ID][32]byte{}
		for i := range 4 {
			c := h.dial(t)
			wg.Go(func() {
				b := make([]byte, 10_000)
				for n := uint64(i) << 32; ; n++ {
					sum := bytesOf(b, n)
					id, err := c.PutBlob(ctx, b)
					if err != nil {
						if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.Unreachable && !strings.Contains(err.Error(), "stopping") {
							t.Errorf("a client at work: %v", err)
						}
						cut.Add(1)
						return
					}
					answered.Add(1)
					mu.Lock()
					acked[id] = sum
					mu.Unlock()
					if n&1 == 1 {
						if err := c.DropBlob(ctx, id); err != nil {
							mu.Lock()
							delete(acked, id) // nobody knows
							mu.Unlock()
							return
						}
						mu.Lock()
						delete(acked, id)
						mu.Unlock()
					}
				}
			})
		}
		waiter := h.dial(t)
		waited := make(chan error, 1)
		go func() {
			_, err := waiter.GetName(ctx, "a name that nobody puts", true)
			waited <- err
		}()
		idle := h.dial(t)
		time.Sleep(time.Duration(20+round*20) * time.Millisecond)
		began := time.Now()
		d.signal(syscall.SIGTERM)
		if code := d.wait(); code != 0 {
			t.Errorf("exit code %d\n%s", code, d.log)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("stopping took %v", took)
		}
		wg.Wait()
		select {
		case err := <-waited:
			if err == nil || !strings.Contains(err.Error(), "stopping") {
				t.Errorf("a request that waits is answered with %v", err)
			}
		case <-time.After(patience):
			t.Fatal("a request that waits is not answered")
		}
		if _, err := idle.InstanceStatus(ctx); err == nil {
			t.Error("an idle connection outlives the daemon")
		}
		// What was acknowledged is in the pool that was kept.
		d = h.start()
		c := h.dial(t)
		for id, sum := range acked {
			b, err := c.GetBlob(ctx, id)
			if err != nil {
				t.Fatalf("acknowledged while stopping, but lost: %v", err)
			}
			if hash(b.Bytes()) != sum {
				t.Errorf("blob %s has other bytes", id)
			}
		}
		c.Close()
		d.stop()
		t.Logf("%d requests answered, %d blobs kept", answered.Load(), len(acked))
	}
}

// TestDrainSlowReply: a reply that is being read slowly is not cut off.
func TestDrainSlowReply(t *testing.T) {
	h := newHost(t, "--size", "64MiB", "--rpc-listen", "127.0.0.1:0")
	d := h.start()
	c := h.dial(t)
	b := make([]byte, 32<<20)
	sum := bytesOf(b, 1)
	id, err := c.PutBlob(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := dialSlowly(c.Info().RPCEndpoint, id)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.pc.Close()
	d.signal(syscall.SIGTERM)
	got, err := slow.read(len(b))
	if err != nil {
		t.Errorf("the reply was cut off: %v", err)
	} else if hash(got) != sum {
		t.Error("the reply has other bytes")
	}
	if code := d.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestSecondSignal: a second signal ends a drain that takes too long.
func TestSecondSignal(t *testing.T) {
	h := newHost(t, "--size", "32MiB")
	d := h.start()
	d.signal(syscall.SIGTERM)
	time.Sleep(time.Millisecond)
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.done
	ws, _ := d.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !(ws.Exited() && ws.ExitStatus() == 0) && !(ws.Signaled() && ws.Signal() == syscall.SIGTERM) {
		t.Errorf("ended with %v", d.cmd.ProcessState)
	}
}

// TestHangup: SIGHUP reads the log level anew and disturbs nobody.
func TestHangup(t *testing.T) {
	h := newHost(t, "--size", "32MiB")
	config := filepath.Join(filepath.Dir(h.socket), "v6d.yaml")
	write := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("log-level: warn\n")
	d := h.start("--config", config)
	m := populate(t, h, 50)
	c := h.dial(t)
	stop, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for stop.Err() == nil {
			if _, err := c.InstanceStatus(ctx); err != nil {
				t.Errorf("during SIGHUP: %v", err)
				return
			}
		}
	})
	for range 20 {
		d.signal(syscall.SIGHUP)
		time.Sleep(2 * time.Millisecond)
	}
	write("log-level: debug\n")
	d.signal(syscall.SIGHUP)
	if err := eventually(func() error {
		if !strings.Contains(d.log.String(), "log level") {
			return errors.New("the log level is not read anew")
		}
		return nil
	}); err != nil {
		t.Errorf("%v\n%s", err, d.log)
	}
	write("log-level: nonsense\n")
	d.signal(syscall.SIGHUP)
	if err := eventually(func() error {
		if !strings.Contains(d.log.String(), "not reloaded") {
			return errors.New("a wrong configuration is not refused")
		}
		return nil
	}); err != nil {
		t.Errorf("%v\n%s", err, d.log)
	}
	cancel()
	wg.Wait()
	c.Close()
	if !d.running() {
		t.Fatal("SIGHUP ended the daemon")
	}
	served(t, h, m)
	d.stop()
}

// slowReader has asked for a blob over TCP and takes its time to read it.
type slowReader struct{ pc *protocol.Conn }

// dialSlowly asks for a blob and reads the head of the reply.
func dialSlowly(endpoint string, id client.ID) (*slowReader, error) {
	nc, err := net.Dial("tcp", endpoint)
	if err != nil {
		return nil, err
	}
	if err := nc.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		return nil, err
	}
	c := &rawConn{pc: protocol.NewClientConn(nc, 0)}
	var r protocol.RegisterReply
	if err := call(c, protocol.Register, protocol.RegisterRequest{Version: client.Version, StoreType: protocol.StoreDefault}, &r); err != nil {
		return nil, err
	}
	var got protocol.GetBuffersReply
	q := protocol.GetRemoteRequest{IDs: protocol.IDs{id}}
	b := protocol.GetRemote.AppendRequest(protocol.BeginFrame(nil), &q)
	if _, err := c.pc.Write(protocol.EndFrame(b, 0)); err != nil {
		return nil, err
	}
	frame, err := c.pc.ReadFrame()
	if err != nil {
		return nil, err
	}
	members, err := wirejson.ParseObject(frame, nil)
	if err != nil {
		return nil, err
	}
	return &slowReader{c.pc}, protocol.GetRemote.DecodeReply(members, &got)
}

// read reads n bytes in about a second.
func (s *slowReader) read(n int) ([]byte, error) {
	b := make([]byte, n)
	step := n / 50
	for off := 0; off < n; off += step {
		time.Sleep(20 * time.Millisecond)
		if _, err := io.ReadFull(s.pc, b[off:min(off+step, n)]); err != nil {
			return nil, err
		}
	}
	return b, nil
}
