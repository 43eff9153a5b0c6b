package testserver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEtcd(t *testing.T) {
	t.Parallel()
	e := StartEtcd(t, EtcdOptions{Quota: 16 << 20})
	endpoint := e.Endpoint()
	put(t, e, "one")
	steps := []struct {
		name string
		do   func()
		want string
	}{
		{"crash", func() { e.Kill(); e.Start() }, "one"},
		{"orderly stop", func() { e.Stop(); e.Start() }, "one"},
		{"stop while paused", func() { e.Pause(); e.Stop(); e.Start() }, "one"},
		{"wipe", func() { e.Kill(); e.Wipe(); e.Start() }, ""},
	}
	for _, s := range steps {
		s.do()
		if got := get(t, e); got != s.want {
			t.Errorf("after %s: %q, want %q", s.name, got, s.want)
		}
		if e.Endpoint() != endpoint {
			t.Errorf("after %s: the endpoint is %s, was %s", s.name, e.Endpoint(), endpoint)
		}
	}
	if out := e.Output(); !strings.Contains(out, `"quota-backend-bytes":16777216`) {
		t.Errorf("the quota is not in etcd's output:\n%s", out)
	}
}

func TestEtcdPause(t *testing.T) {
	t.Parallel()
	e := StartEtcd(t, EtcdOptions{})
	put(t, e, "one")
	e.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if b, err := e.Call(ctx, "/v3/kv/range", kv{Key: []byte("k")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused etcd answers: %s, %v", b, err)
	}
	e.Resume()
	if got := get(t, e); got != "one" {
		t.Errorf("after a pause: %q", got)
	}
}

// An etcd ends with its test, and with its test's process when that is killed;
// the namespaces of the latter go with the next test that makes some.
func TestEtcdEnds(t *testing.T) {
	if os.Getenv("V6D_TEST_ROLE") == "victim" {
		host := Hosts(t, 1).Hosts[0]
		e := StartEtcd(t, EtcdOptions{Dir: os.Getenv("V6D_TEST_DIR"), On: host})
		fmt.Println("victim:", e.Pid(), host.Name)
		time.Sleep(time.Minute)
		return
	}
	t.Parallel()
	pid := 0
	t.Run("test", func(t *testing.T) { pid = StartEtcd(t, EtcdOptions{}).Pid() })
	if alive(pid) {
		t.Errorf("etcd, process %d, runs after its test", pid)
	}

	Hosts(t, 0) // or skip
	cmd := exec.Command(os.Args[0], "-test.run=^TestEtcdEnds$", "-test.v")
	cmd.Env = append(os.Environ(), "V6D_TEST_ROLE=victim", "V6D_TEST_DIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := StartProcess(cmd); err != nil {
		t.Fatal(err)
	}
	name := ""
	var all strings.Builder
	for s := bufio.NewScanner(out); name == "" && s.Scan(); {
		all.WriteString(s.Text() + "\n")
		if f := strings.Fields(s.Text()); len(f) == 3 && f[0] == "victim:" {
			pid, _ = strconv.Atoi(f[1])
			name = f[2]
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	if name == "" {
		t.Fatalf("the victim did not start:\n%s", &all)
	}
	WaitFor(t, "the etcd of a killed test to end", func() bool { return !alive(pid) })
	Hosts(t, 0)
	if exists(name) {
		t.Errorf("network namespace %s of a killed test is still there", name)
	}
}

func TestEtcdOnHost(t *testing.T) {
	t.Parallel()
	n := Hosts(t, 1)
	e := StartEtcd(t, EtcdOptions{On: n.Hub})
	if want := "http://" + n.Hub.Addr + ":"; !strings.HasPrefix(e.Endpoint(), want) {
		t.Errorf("the endpoint is %s, want %s...", e.Endpoint(), want)
	}
	put(t, e, "one")
	e.Kill()
	e.Start()
	if got := get(t, e); got != "one" {
		t.Errorf("after a crash: %q", got)
	}
	conn, err := n.Hosts[0].Dial("tcp", strings.TrimPrefix(e.Endpoint(), "http://"))
	if err != nil {
		t.Fatalf("from another host: %v", err)
	}
	conn.Close()
}

// kv is as etcd's JSON has it.
type kv struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value,omitempty"`
}

func put(t *testing.T, e *Etcd, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := e.Call(ctx, "/v3/kv/put", kv{[]byte("k"), []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

// get returns "" if there is no value.
func get(t *testing.T, e *Etcd) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	b, err := e.Call(ctx, "/v3/kv/range", kv{Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		Kvs []kv `json:"kvs"`
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if len(out.Kvs) == 0 {
		return ""
	}
	return string(out.Kvs[0].Value)
}

// alive tells whether a process runs: one that nobody has waited for does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ") && syscall.Kill(pid, 0) == nil
}
