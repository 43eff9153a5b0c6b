package testserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestProxy(t *testing.T) {
	t.Parallel()
	p := StartProxy(t, ProxyOptions{Target: echo(t, net.Listen, "127.0.0.1")})
	connect := func() *net.TCPConn {
		t.Helper()
		conn, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn.(*net.TCPConn)
	}
	conn := connect()
	ping(t, conn)

	p.SetDelay(100 * time.Millisecond)
	began := time.Now()
	ping(t, conn)
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("100 ms each way take %v", took)
	}
	p.SetDelay(0)
	ping(t, conn)

	p.Cut(Freeze)
	frozen := connect()
	for name, conn := range map[string]net.Conn{"an old": conn, "a new": frozen} {
		if err := silent(conn); err != nil {
			t.Errorf("%s connection, frozen: %v", name, err)
		}
	}
	p.Heal()
	for name, conn := range map[string]net.Conn{"an old": conn, "a new": frozen} {
		got := make([]byte, 4)
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "lost" {
			t.Errorf("%s connection, after the frost: %q, %v", name, got, err)
		}
		ping(t, conn)
	}

	for name, f := range map[string]Fault{"refuse": Refuse, "black hole": BlackHole} {
		conn := connect()
		ping(t, conn)
		p.Cut(f)
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: an old connection: %v", name, err)
		}
		if f == BlackHole {
			if err := silent(connect()); err != nil {
				t.Errorf("%s: a new connection: %v", name, err)
			}
		} else if conn, err := net.Dial("tcp", p.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: a new connection: %v, %v", name, conn, err)
		}
		p.Heal()
		ping(t, connect())
	}
}

// Bytes come whole and in order, and a side that has no more to say still hears.
func TestProxyStream(t *testing.T) {
	t.Parallel()
	p := StartProxy(t, ProxyOptions{Target: echo(t, net.Listen, "127.0.0.1")})
	p.SetDelay(time.Millisecond)
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want := make([]byte, 4<<20)
	for i := range want {
		want[i] = byte(i * i >> 8)
	}
	go func() {
		_, _ = conn.Write(want) // an error shows below
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes come back of %d, the same %v: %v", len(got), len(want), bytes.Equal(got, want), err)
	}
}

// A proxy lets the machine talk to an etcd on the hub.
func TestProxyIntoNet(t *testing.T) {
	t.Parallel()
	n := Hosts(t, 0)
	e := StartEtcd(t, EtcdOptions{On: n.Hub})
	p := StartProxy(t, ProxyOptions{Target: strings.TrimPrefix(e.Endpoint(), "http://"), DialFunc: n.Hub.DialContext})
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, "GET /version HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil || !strings.Contains(string(b), "etcdserver") {
		t.Errorf("etcd answers %q, %v", b, err)
	}
}

// Cleanup does not wait for a target that never answers.
func TestProxyEnds(t *testing.T) {
	t.Parallel()
	var began time.Time
	t.Run("test", func(t *testing.T) {
		dialled := make(chan struct{})
		p := StartProxy(t, ProxyOptions{DialFunc: func(ctx context.Context, _, _ string) (net.Conn, error) {
			close(dialled)
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		conn, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		<-dialled
		began = time.Now()
	})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Cleanup took %v", took)
	}
}
