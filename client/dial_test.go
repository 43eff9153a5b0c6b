//go:build linux

package client_test

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/testserver"
)

// wantHint checks that an error says what to do.
func wantHint(t testing.TB, err error, parts ...string) {
	t.Helper()
	e, isError := errors.AsType[*client.Error](err)
	if !isError || e.Hint == "" {
		t.Fatalf("no hint in %#v", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error()+"\n"+e.Hint, part) {
			t.Errorf("error %q with hint %q does not mention %q", err, e.Hint, part)
		}
	}
}

func TestDialErrors(t *testing.T) {
	ctx := t.Context()
	dir := testserver.ShortTempDir(t)
	path := filepath.Join(dir, "none.sock")
	_, err := client.Dial(ctx, client.Options{Socket: path})
	wantErr(t, err, client.Unreachable)
	wantErr(t, err, os.ErrNotExist)
	wantHint(t, err, path, "v6d serve")

	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	_, err = client.Dial(ctx, client.Options{Socket: file})
	wantErr(t, err, client.Unreachable)
	wantHint(t, err, file)

	_, err = client.Dial(ctx, client.Options{Socket: filepath.Join(dir, strings.Repeat("x", 200))})
	wantErr(t, err, client.Unreachable)

	l := ok(net.Listen("tcp", "127.0.0.1:0"))(t)
	endpoint := l.Addr().String()
	must(t, l.Close())
	_, err = client.Dial(ctx, client.Options{Endpoint: endpoint})
	wantErr(t, err, client.Unreachable)
	wantHint(t, err, endpoint)

	_, err = client.Dial(ctx, client.Options{Endpoint: "no port"})
	wantErr(t, err, client.Unreachable)
	_, err = client.Dial(ctx, client.Options{Socket: path, Endpoint: endpoint})
	wantErr(t, err, client.Invalid)
}

func TestDialPermission(t *testing.T) {
	d := startV6D(t, func(c *config.Serve) { c.SocketMode = "0000" })
	must(t, os.Chmod(filepath.Dir(d.socket), 0o755))
	var err error
	done := make(chan struct{})
	go func() { // root may open everything; a thread whose files are nobody's may not
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		_, err = client.Dial(t.Context(), client.Options{Socket: d.socket})
	}()
	<-done
	wantErr(t, err, client.Denied)
	wantErr(t, err, os.ErrPermission)
}

// Without a place to dial, the variables and then the usual sockets are tried.
func TestDefaultSockets(t *testing.T) {
	ctx := t.Context()
	d := startV6D(t, func(c *config.Serve) { c.RPCListen = "off" })
	none := filepath.Join(filepath.Dir(d.socket), "none.sock")
	for _, env := range []string{"V6D_SOCKET", "VINEYARD_IPC_SOCKET"} {
		t.Run(env, func(t *testing.T) {
			t.Setenv(env, d.socket)
			if got := client.DefaultSockets(); !slices.Equal(got, []string{d.socket}) {
				t.Errorf("default sockets %v", got)
			}
			if got := dial(t, client.Options{}).Info(); got.Socket != d.socket || got.RPCEndpoint != "0.0.0.0:0" {
				t.Errorf("dialled %+v", got)
			}
			t.Setenv(env, none)
			_, err := client.Dial(ctx, client.Options{})
			wantErr(t, err, client.Unreachable)
			wantHint(t, err, none, "V6D_SOCKET", "v6d serve")
		})
	}
	t.Run("both", func(t *testing.T) {
		t.Setenv("V6D_SOCKET", d.socket)
		t.Setenv("VINEYARD_IPC_SOCKET", none)
		dial(t, client.Options{})
	})
	t.Run("XDG_RUNTIME_DIR", func(t *testing.T) {
		t.Setenv("XDG_RUNTIME_DIR", filepath.Dir(d.socket)) // it is called v6d.sock there
		want := []string{d.socket, "/run/v6d.sock", "/var/run/vineyard.sock"}
		if got := client.DefaultSockets(); !slices.Equal(got, want) {
			t.Errorf("default sockets %v, want %v", got, want)
		}
		if got := dial(t, client.Options{}).Info().Socket; got != d.socket {
			t.Errorf("dialled %s", got)
		}
		t.Setenv("V6D_SOCKET", none) // it alone
		_, err := client.Dial(ctx, client.Options{})
		wantErr(t, err, client.Unreachable)
	})
}

func TestPassword(t *testing.T) {
	ctx := t.Context()
	hash := sha1.Sum([]byte("secret"))
	d := startV6D(t, func(c *config.Serve) {
		c.HTPasswd = filepath.Join(t.TempDir(), "htpasswd")
		must(t, os.WriteFile(c.HTPasswd, []byte("ada:{SHA}"+base64.StdEncoding.EncodeToString(hash[:])), 0o600))
	})
	for _, o := range []client.Options{{Socket: d.socket}, {Endpoint: d.rpc}} {
		for _, login := range [][2]string{{}, {"ada", ""}, {"ada", "Secret"}, {"bob", "secret"}} {
			o.Username, o.Password = login[0], login[1]
			_, err := client.Dial(ctx, o)
			wantErr(t, err, client.Denied)
			if lines := strings.Count(err.Error(), "\n"); lines > 0 {
				t.Errorf("an error of %d lines: %v", lines+1, err)
			}
		}
		o.Username, o.Password = "ada", "secret"
		ok(dial(t, o).InstanceStatus(ctx))(t)
	}
}
