//go:build linux

package cluster

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRefused starts nodes that cannot work: each says why, in time, and leaves
// nothing.
func TestRefused(t *testing.T) {
	t.Parallel()
	c := hosts(t, 2, noOptions)
	c.add(1, c.etcd.Endpoint()).start()
	before, err := c.etcd.keys()
	must(t, err)
	etcd := []string{"--meta", "etcd", "--etcd-endpoints", c.etcd.Endpoint()}
	addr := c.net.Hosts[0].Addr
	for _, tt := range []struct {
		name  string
		args  []string
		code  int
		says  string
		limit time.Duration
	}{
		{"nothing said of remote access", etcd, 2, "--rpc-advertise", 0},
		{"listens everywhere, advertises nothing", append(etcd, "--rpc-listen", "0.0.0.0:9600"), 2, "--rpc-advertise", 0},
		{"advertises loopback", append(etcd, "--rpc-listen", "0.0.0.0:9600", "--rpc-advertise", "127.0.0.1:9600"), 2, "loopback", 0},
		{"advertises localhost", append(etcd, "--rpc-listen", "0.0.0.0:9600", "--rpc-advertise", "localhost:9600"), 2, "loopback", 0},
		{"advertises no address", append(etcd, "--rpc-listen", "0.0.0.0:9600", "--rpc-advertise", "0.0.0.0:9600"), 2, "--rpc-advertise", 0},
		{"advertises an unknown name", append(etcd, "--rpc-listen", "0.0.0.0:9600", "--rpc-advertise", "no-such-host.invalid:9600"), 2, "no-such-host.invalid", 0},
		{"advertises no port", append(etcd, "--rpc-listen", "0.0.0.0:9600", "--rpc-advertise", addr), 2, "HOST:PORT", 0},
		{"advertises what is off", append(etcd, "--rpc-listen", "off", "--rpc-advertise", addr+":9600"), 2, "off", 0},
		{"advertises without a cluster", []string{"--rpc-listen", "0.0.0.0:9600", "--rpc-advertise", addr + ":9600"}, 2, "--meta etcd", 0},
		{"unknown metadata", []string{"--meta", "redys"}, 2, "redys", 0},
		{"no endpoint", append([]string{"--meta", "etcd", "--etcd-endpoints", ""}, remote(c.net.Hosts[0])...), 2, "--etcd-endpoints", 0},
		{"endpoint without scheme", append([]string{"--meta", "etcd", "--etcd-endpoints", "10.86.0.254:2379"}, remote(c.net.Hosts[0])...), 2, "http://", 0},
		{
			"nobody at the endpoint", append([]string{"--meta", "etcd", "--etcd-endpoints", "http://10.86.0.254:1", "--meta-timeout", "2s"}, remote(c.net.Hosts[0])...),
			5, "10.86.0.254:1", 4 * time.Second,
		},
		{
			"nobody at the host", append([]string{"--meta", "etcd", "--etcd-endpoints", "http://10.86.0.99:2379", "--meta-timeout", "2s"}, remote(c.net.Hosts[0])...),
			5, "--meta-timeout", 4 * time.Second,
		},
		{
			"no etcd at the endpoint", append([]string{"--meta", "etcd", "--etcd-endpoints", "http://" + c.net.Hosts[1].Addr + ":9600", "--meta-timeout", "2s"}, remote(c.net.Hosts[0])...),
			5, c.net.Hosts[1].Addr + ":9600", 4 * time.Second,
		},
		{"no certificate", append(append(etcd, "--etcd-cacert", "/nowhere"), remote(c.net.Hosts[0])...), 2, "--etcd-cacert", 0},
		{"no password file", append(append(etcd, "--etcd-user", "u", "--etcd-password-file", "/nowhere"), remote(c.net.Hosts[0])...), 2, "--etcd-password-file", 0},
		{
			"a member that is not there", append([]string{
				"--meta", "embed", "--embed-dir", "/tmp/v6d-none", "--embed-name", "x", "--embed-peers", "a=http://10.86.0.1:2380",
			}, remote(c.net.Hosts[0])...), 2, "--embed-name", 0,
		},
		{
			"no quorum", append([]string{
				"--meta", "embed", "--embed-dir", filepath.Join(t.TempDir(), "e"), "--embed-name", "a", "--embed-client", "http://10.86.0.1:2379",
				"--embed-peers", "a=http://10.86.0.1:2380,b=http://10.86.0.2:2380", "--meta-timeout", "3s",
			}, remote(c.net.Hosts[0])...), 5, "quorum", 8 * time.Second,
		},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			c.refused(t, tt.args, tt.code, tt.says, max(tt.limit, 2*time.Second))
		})
	}
	after, err := c.etcd.keys()
	must(t, err)
	if len(before) != len(after) {
		t.Errorf("nodes that did not start leave keys: %v", sortedKeys(after))
	}
}

// refused starts a daemon that must end by itself.
func (c *cluster) refused(t *testing.T, args []string, code int, says string, limit time.Duration) {
	t.Helper()
	n := newNode(t, c.net.Hosts[0])
	n.expect = []string{"level=ERROR"}
	n.args = slices.DeleteFunc(n.args, func(s string) bool { return s == "--rpc-listen" || s == "off" })
	began := time.Now()
	n.launch(args...)
	select {
	case <-n.done:
	case <-time.After(patience):
		n.kill()
		t.Fatalf("the daemon does not give up:\n%s%s", n.out, n.log)
	}
	took := since(began)
	text := strings.TrimSpace(n.log.String()[strings.IndexByte(n.log.String(), '\n')+1:])
	t.Logf("exit code %d after %v: %s", n.cmd.ProcessState.ExitCode(), took, text)
	if got := n.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	if !strings.Contains(text, says) {
		t.Errorf("says nothing of %q", says)
	}
	if took > limit {
		t.Errorf("took %v, want %v at most", took, limit)
	}
	for _, path := range []string{n.socket, n.mount(), n.shm()} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("leaves %s", path)
		}
	}
	if mounted(n.mount()) {
		t.Error("leaves its pool mounted")
	}
}

// TestPasswords gives etcd users.
func TestPasswords(t *testing.T) {
	t.Parallel()
	c := hosts(t, 2, noOptions)
	e := c.etcd
	key, end := []byte("vineyard/"), []byte("vineyard0")
	must(t,
		e.ask("/v3/auth/user/add", map[string]any{"name": "root", "password": "r"}, nil),
		e.ask("/v3/auth/role/add", map[string]any{"name": "root"}, nil),
		e.ask("/v3/auth/user/grant", map[string]any{"user": "root", "role": "root"}, nil),
		e.ask("/v3/auth/user/add", map[string]any{"name": "node", "password": "secret"}, nil),
		e.ask("/v3/auth/role/add", map[string]any{"name": "node"}, nil),
		e.ask("/v3/auth/role/grant", map[string]any{"name": "node", "perm": map[string]any{"permType": "READWRITE", "key": key, "range_end": end}}, nil),
		e.ask("/v3/auth/user/grant", map[string]any{"user": "node", "role": "node"}, nil),
		e.ask("/v3/auth/user/add", map[string]any{"name": "nobody", "password": "secret"}, nil),
		e.ask("/v3/auth/enable", map[string]any{}, nil),
	)
	file := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(file, []byte("secret\n"), 0o600))
	wrong := filepath.Join(t.TempDir(), "wrong")
	must(t, os.WriteFile(wrong, []byte("guess\n"), 0o600))
	as := func(user, file string) []string {
		return append([]string{
			"--meta", "etcd", "--etcd-endpoints", e.Endpoint(), "--meta-timeout", "5s", "--etcd-user", user, "--etcd-password-file", file,
		}, remote(c.net.Hosts[0])...)
	}
	c.refused(t, as("node", wrong), 5, "--etcd-user", 3*time.Second)
	c.refused(t, as("stranger", file), 5, "--etcd-user", 3*time.Second)
	c.refused(t, as("nobody", file), 5, "--etcd-user", 3*time.Second)
	c.refused(t, append([]string{"--meta", "etcd", "--etcd-endpoints", e.Endpoint(), "--meta-timeout", "5s"}, remote(c.net.Hosts[0])...), 5, "--etcd-user", 3*time.Second)
	// A user who may do what is needed, and nothing else.
	for i := range 2 {
		c.add(i, e.Endpoint(), "--etcd-user", "node", "--etcd-password-file", file).start()
	}
	_, all := c.populate()
	for _, n := range c.nodes {
		must(t, n.reads(all, true), n.balanced())
	}
	c.mustAgree(patience, nil)
}
