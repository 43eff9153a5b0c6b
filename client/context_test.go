//go:build linux

package client_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
)

var errStop = errors.New("the test stops the call")

// stoppable returns a context that ends with errStop.
func stoppable(t testing.TB) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	return ctx, func() { cancel(errStop) }
}

// park starts a call that the daemon does not answer yet and returns once the
// daemon has it.
func (d daemon) park(t testing.TB, call func()) {
	t.Helper()
	watch := d.connectIPC(t)
	defer watch.Close()
	parked := func() int64 { return ok(watch.InstanceStatus(t.Context()))(t).Deferred }
	if d.v6d() { // it soon notices that a waiting client has gone; the reference never does
		testserver.WaitFor(t, "earlier waits to end", func() bool { return parked() == 0 })
	}
	before := parked()
	go call()
	testserver.WaitFor(t, "the request to be parked", func() bool { return parked() > before })
}

// waiting starts a call on a client that nothing will answer.
func waiting(t testing.TB, ctx context.Context, d daemon, c *client.Client) (done chan error) {
	t.Helper()
	done = make(chan error, 1)
	d.park(t, func() {
		_, err := c.GetName(ctx, "a name that never comes", true)
		done <- err
	})
	return done
}

// wantUnusable checks that a connection says clearly that it is done for.
func wantUnusable(t testing.TB, c *client.Client) {
	t.Helper()
	_, err := c.InstanceStatus(t.Context())
	wantErr(t, err, client.Unreachable)
	e, isError := errors.AsType[*client.Error](err)
	if !isError || e.Hint == "" || !strings.Contains(err.Error(), "can no longer be used") {
		t.Errorf("unclear: %v", err)
	}
	if errors.Is(err, errStop) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v looks as if the context of this call had ended", err)
	}
}

func testCancel(t *testing.T, d daemon) {
	c := d.connect(t)
	ctx, stop := stoppable(t)
	done := waiting(t, ctx, d, c)
	stop()
	wantErr(t, <-done, errStop)
	wantUnusable(t, c)
	must(t, c.Close())

	c = d.connect(t) // a context that has ended already costs nothing
	_, err := c.InstanceStatus(ctx)
	wantErr(t, err, errStop)
	ok(c.InstanceStatus(t.Context()))(t)
	_, err = client.Dial(ctx, client.Options{Socket: d.socket})
	wantErr(t, err, context.Canceled)
	_, err = client.Dial(ctx, client.Options{Endpoint: d.rpc})
	wantErr(t, err, context.Canceled)
}

func testDeadline(t *testing.T, d daemon) {
	c := d.connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := c.GetName(ctx, "a name that never comes", true)
	wantErr(t, err, context.DeadlineExceeded)
	wantUnusable(t, c)
}

// A context that ends after the reply has come must not break later calls. The
// daemon's answer and the end of the context race; the seam decides the race.
func TestLateCancel(t *testing.T) {
	d := startV6D(t, nil)
	for _, tcp := range []bool{false, true} {
		c := d.over(tcp).connect(t)
		for range 200 {
			ctx, cancel := context.WithCancel(t.Context())
			stop := client.WatchContext(c, ctx)
			cancel() // starts the interruption on its own goroutine
			stop()
			ok(c.InstanceStatus(t.Context()))(t)
		}
		for range 200 { // the same without the seam: both outcomes are right
			ctx, cancel := context.WithCancel(t.Context())
			go cancel()
			if _, err := c.InstanceStatus(ctx); err != nil {
				wantErr(t, err, context.Canceled)
				_, err := c.InstanceStatus(t.Context())
				if err != nil {
					c = d.over(tcp).connect(t)
				}
				continue
			}
			ok(c.InstanceStatus(t.Context()))(t)
			cancel()
		}
	}
}

// The daemon notices that a waiting client has gone and takes back all that it
// held.
func TestHangUpIsNoticed(t *testing.T) {
	d := startV6D(t, nil)
	for _, tcp := range []bool{false, true} {
		watch := d.connect(t)
		var idle client.InstanceStatus
		testserver.WaitFor(t, "the connection of the round before to go", func() bool {
			idle = ok(watch.InstanceStatus(t.Context()))(t)
			return idle.IPCConnections == 1
		})
		c := d.over(tcp).connect(t)
		if !tcp {
			ok(c.CreateBlob(t.Context(), 1<<20))(t) // never sealed
		}
		ok(c.Lock(t.Context(), "lock"))(t)
		ctx, stop := stoppable(t)
		done := waiting(t, ctx, d, c)
		stop()
		wantErr(t, <-done, errStop)
		testserver.WaitFor(t, "the daemon to notice", func() bool {
			st := ok(watch.InstanceStatus(t.Context()))(t)
			return st == idle
		})
		unlock := ok(watch.Lock(t.Context(), "lock"))(t)
		must(t, unlock(t.Context()))
		must(t, watch.Close())
	}
}

func testClose(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	w := ok(c.CreateBlob(ctx, 10))(t)
	b := ok(c.GetBlob(ctx, ok(c.PutBlob(ctx, []byte("x")))(t)))(t)
	must(t, c.Close())
	must(t, c.Close())
	_, sealErr := w.Seal(ctx)
	_, getErr := c.GetName(ctx, "x", true)
	_, createErr := c.CreateBlob(ctx, 10)
	errs := []error{sealErr, getErr, c.Clear(ctx)}
	if !d.tcp {
		errs = append(errs, createErr, w.Abort(ctx), b.Release(ctx)) // over TCP they need no daemon
	}
	for i, err := range errs {
		wantErr(t, err, client.Unreachable)
		wantErr(t, err, net.ErrClosed)
		if !strings.Contains(err.Error(), "the client is closed") {
			t.Errorf("call %d after Close: %v", i, err)
		}
	}
	for _, err := range c.Rows(ctx, client.PageOptions{}) {
		if err == nil {
			t.Error("a closed client lists")
		}
	}
	if info := c.Info(); info.Local == d.tcp {
		t.Error("a closed client forgot its Info")
	}
}

// Close ends a call that waits, whoever calls it, however often.
func testCloseDuringCall(t *testing.T, d daemon) {
	c := d.connect(t)
	done := waiting(t, t.Context(), d, c)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	err := <-done
	wantErr(t, err, client.Unreachable)
	wantErr(t, err, net.ErrClosed)
	wg.Wait()
	_, err = c.InstanceStatus(t.Context())
	wantErr(t, err, net.ErrClosed)
}

// A daemon that is killed ends the calls that wait for it.
func TestDaemonDies(t *testing.T) {
	for _, start := range []func(testing.TB) daemon{startV6DProcess, startReference} {
		for _, tcp := range []bool{false, true} {
			t.Run(transport(tcp), func(t *testing.T) {
				d := start(t).over(tcp)
				c, idle := d.connect(t), d.connect(t)
				data := random(10_000)
				id := ok(idle.PutBlob(t.Context(), data))(t)
				held := ok(idle.GetBlob(t.Context(), id))(t)
				done := waiting(t, t.Context(), d, c)
				d.kill()
				err := <-done
				wantErr(t, err, client.Unreachable)
				e, isError := errors.AsType[*client.Error](err)
				if !isError || e.Hint == "" || !strings.Contains(err.Error(), "the daemon hung up during get_name_request") {
					t.Errorf("unclear: %v", err)
				}
				wantUnusable(t, c)
				_, err = idle.GetBlob(t.Context(), id)
				wantErr(t, err, client.Unreachable)
				if string(held.Bytes()) != string(data) {
					t.Error("the bytes of a held blob went with the daemon")
				}
				_, err = client.Dial(t.Context(), client.Options{Socket: d.socket})
				wantErr(t, err, client.Unreachable)
			})
		}
	}
}
