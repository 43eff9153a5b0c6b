package etcd_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/v6d-go/v6d/internal/meta"
	"github.com/v6d-go/v6d/internal/meta/etcd"
	"github.com/v6d-go/v6d/internal/meta/metatest"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/testserver"
)

var prefixes atomic.Int64

func options(t testing.TB, endpoint string) etcd.Options {
	return etcd.Options{
		Endpoints: []string{endpoint}, Prefix: fmt.Sprintf("/test/%d", prefixes.Add(1)), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// storeAt makes the stores of the conformance suite: one prefix each.
func storeAt(endpoint string) func(*testing.T) metatest.Store {
	return func(t *testing.T) metatest.Store {
		o := options(t, endpoint)
		raw := rawClient(t, endpoint)
		return metatest.Store{
			Open: func(t *testing.T) meta.Backend {
				b, err := etcd.Open(o)
				if err != nil {
					t.Fatal(err)
				}
				return b
			},
			Elsewhere: func(t *testing.T) {
				if _, err := raw.Put(t.Context(), "/elsewhere", "x"); err != nil {
					t.Fatal(err)
				}
			},
			Compact: func(t *testing.T) {
				r, err := raw.Get(t.Context(), "/")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := raw.Compact(t.Context(), r.Header.Revision); err != nil {
					t.Fatal(err)
				}
			},
		}
	}
}

func rawClient(t *testing.T, endpoint string) *clientv3.Client {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestEtcd(t *testing.T) {
	metatest.Run(t, storeAt(testserver.StartEtcd(t, testserver.EtcdOptions{}).Endpoint()))
}

// freeURL returns a URL at which nobody listens.
func freeURL(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func embedded(t *testing.T, dir, client string) (etcd.Options, *etcd.Backend) {
	o := options(t, client)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b, err := etcd.Embed(ctx, etcd.EmbedOptions{Name: "m", Client: client, Dir: dir, NoSync: true}, o)
	if err != nil {
		t.Fatal(err)
	}
	return o, b
}

// TestEmbedded: an embedded member is an etcd for others, for its own process
// even without a socket, and finds its data again.
func TestEmbedded(t *testing.T) {
	dir, client := t.TempDir(), freeURL(t)
	o, b := embedded(t, dir, client)
	t.Run("Others", func(t *testing.T) { metatest.Run(t, storeAt(client)) })
	if _, ok, err := b.Commit(t.Context(), nil, []meta.Change{meta.Put("/k", []byte("v"))}); !ok || err != nil {
		t.Fatal(err)
	}
	before, err := b.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	again, err := etcd.Embed(ctx, etcd.EmbedOptions{Name: "m", Client: client, Dir: dir, NoSync: true}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	pairs, at, err := again.Load(t.Context())
	if err != nil || len(pairs) != 1 || at.Cluster != before.Cluster || at.Revision < before.Revision {
		t.Errorf("after a restart: %v at %v, before %v, %v", pairs, at, before, err)
	}
}

// TestInProcess runs the suite on the member itself, without a socket.
func TestInProcess(t *testing.T) {
	metatest.Run(t, func(t *testing.T) metatest.Store {
		_, b := embedded(t, t.TempDir(), freeURL(t))
		t.Cleanup(func() {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
		return metatest.Store{Open: func(*testing.T) meta.Backend { return shared{b} }}
	})
}

// shared is a backend that its opener does not close.
type shared struct{ *etcd.Backend }

func (shared) Close() error { return nil }

func TestWrongPeers(t *testing.T) {
	_, err := etcd.Embed(t.Context(), etcd.EmbedOptions{Name: "c", Peers: []string{"a=http://127.0.0.1:1", "b=http://127.0.0.1:2"}, Client: freeURL(t), Dir: t.TempDir()}, options(t, ""))
	if err == nil || !strings.Contains(err.Error(), "--embed-name c") {
		t.Errorf("a member that is none of its peers: %v", err)
	}
}

// TestUsers: with authentication on, a wrong password is final and says what to
// check.
func TestUsers(t *testing.T) {
	server := testserver.StartEtcd(t, testserver.EtcdOptions{})
	raw := rawClient(t, server.Endpoint())
	ctx := t.Context()
	_, err1 := raw.UserAdd(ctx, "root", "secret")
	_, err2 := raw.RoleAdd(ctx, "root")
	_, err3 := raw.UserGrantRole(ctx, "root", "root")
	_, err4 := raw.UserAdd(ctx, "v6d", "pass")
	_, err5 := raw.RoleAdd(ctx, "v6d")
	_, err6 := raw.RoleGrantPermission(ctx, "v6d", "/mine", clientv3.GetPrefixRangeEnd("/mine"), clientv3.PermissionType(clientv3.PermReadWrite))
	_, err7 := raw.UserGrantRole(ctx, "v6d", "v6d")
	_, err8 := raw.AuthEnable(ctx)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8); err != nil {
		t.Fatal(err)
	}
	try := func(user, password, prefix string) error {
		o := options(t, server.Endpoint())
		o.Username, o.Password, o.Prefix = user, password, prefix
		b, err := etcd.Open(o)
		if err != nil {
			return err
		}
		defer b.Close()
		if _, _, err := b.Load(ctx); err != nil {
			return err
		}
		_, _, err = b.Commit(ctx, []meta.Condition{{Key: "/meta_sync_lock/", Is: meta.NoneUnder}}, []meta.Change{meta.Put("/k", nil), meta.DeleteAll("/l")})
		return err
	}
	if err := try("v6d", "pass", "/mine"); err != nil {
		t.Error(err)
	}
	for _, c := range [][3]string{{"v6d", "wrong", "/mine"}, {"v6d", "pass", "/others"}, {"", "", "/mine"}} {
		err := try(c[0], c[1], c[2])
		if !errors.Is(err, meta.ErrUnusable) || status.Of(err) != status.EtcdError || !strings.Contains(status.HintOf(err), "--etcd-user") {
			t.Errorf("%v: %v (%s)", c, err, status.HintOf(err))
		}
	}
}

// TestTLS: https endpoints, with a certificate authority of their own.
func TestTLS(t *testing.T) {
	server := testserver.StartEtcd(t, testserver.EtcdOptions{})
	u, _ := url.Parse(server.Endpoint())
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	endpoint := terminate(t, u.Host, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	o := options(t, endpoint)
	o.TLS = &tls.Config{RootCAs: pool}
	b, err := etcd.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, ok, err := b.Commit(t.Context(), nil, []meta.Change{meta.Put("/k", nil)}); !ok || err != nil {
		t.Error(err)
	}
	o.TLS = nil
	stranger, err := etcd.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := stranger.Head(ctx); err == nil {
		t.Error("a certificate that nobody knows is accepted")
	}
}

// terminate speaks TLS in front of an address.
func terminate(t *testing.T, target string, cert tls.Certificate) (endpoint string) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				to, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				wg.Go(func() {
					_, _ = io.Copy(to, c)
					to.Close()
				})
				_, _ = io.Copy(c, to)
			})
		}
	})
	return "https://" + l.Addr().String()
}

// TestTooLarge: an object that etcd does not take gives an error that says so.
func TestTooLarge(t *testing.T) {
	server := testserver.StartEtcd(t, testserver.EtcdOptions{})
	b, err := etcd.Open(options(t, server.Endpoint()))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	_, _, err = b.Commit(t.Context(), nil, []meta.Change{meta.Put("/k", make([]byte, 3<<20))})
	if status.Of(err) != status.EtcdError || !strings.Contains(status.HintOf(err), "max-request-bytes") {
		t.Errorf("%v (%s)", err, status.HintOf(err))
	}
}

// TestDeadHolder: the lock of a process that dies is free after its lease.
func TestDeadHolder(t *testing.T) {
	server := testserver.StartEtcd(t, testserver.EtcdOptions{})
	proxy := testserver.StartProxy(t, testserver.ProxyOptions{Target: strings.TrimPrefix(server.Endpoint(), "http://")})
	o := options(t, server.Endpoint())
	dying := o
	dying.Endpoints = []string{"http://" + proxy.Addr}
	a, err := etcd.Open(dying)
	if err != nil {
		t.Fatal(err)
	}
	b, err := etcd.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := a.Lock(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	proxy.Cut(testserver.Refuse)
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := b.Lock(ctx, "k"); err != nil || time.Since(start) < 2*time.Second {
		t.Errorf("got the lock after %v: %v", time.Since(start), err)
	}
	if err := a.Close(); err != nil {
		t.Logf("closing what cannot be reached: %v", err)
	}
}
