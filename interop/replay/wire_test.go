package replay

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pair returns a wire and the daemon's end of it.
func pair(t *testing.T) (*wire, *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	w, err := dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test may have closed either end.
		for _, err := range []error{l.Close(), w.Close(), d.Close()} {
			if err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	})
	return w, d
}

// pass sends bytes with n descriptors attached.
func pass(t *testing.T, d *net.UnixConn, b []byte, n int) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	fds := make([]int, n)
	for i := range fds {
		fds[i] = int(f.Fd())
	}
	_, _, err = d.WriteMsgUnix(b, syscall.UnixRights(fds...), nil)
	if err := errors.Join(err, f.Truncate(100), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestDescriptors receives well and badly passed descriptors.
func TestDescriptors(t *testing.T) {
	w, d := pair(t)
	pass(t, d, []byte{dataByte}, 1)
	f, err := w.descriptor()
	if err != nil {
		t.Fatal(err)
	}
	if err := (mapping{fd: 7, bytes: 100}).verify(f); err != nil {
		t.Error(err)
	}
	if err := (mapping{fd: 7, bytes: 101}).verify(f); err == nil {
		t.Error("a file that is too short passes")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}

	pass(t, d, []byte{dataByte}, 2)
	if _, err := w.descriptor(); err == nil {
		t.Error("two descriptors in one message pass")
	}
	pass(t, d, []byte{0}, 1)
	if _, err := w.descriptor(); err == nil {
		t.Error("a descriptor with another data byte passes")
	}
	if _, err := d.Write([]byte{dataByte}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.descriptor(); err == nil {
		t.Error("a data byte without a descriptor passes")
	}
	pass(t, d, []byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"), 1)
	if _, err := w.frame(); err == nil || !strings.Contains(err.Error(), "attached") {
		t.Errorf("a descriptor attached to a frame: got %v", err)
	}
}

// TestSilence tells a quiet connection from a talking and from a closed one.
func TestSilence(t *testing.T) {
	w, d := pair(t)
	for _, quiet := range []func() error{w.quiet, func() error { return w.silent(10 * time.Millisecond) }} {
		if err := quiet(); err != nil {
			t.Errorf("nothing sent: got %v", err)
		}
	}
	if _, err := d.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, quiet := range []func() error{w.quiet, w.hungUp} {
		if err := quiet(); err == nil || errors.Is(err, errHungUp) {
			t.Errorf("a byte sent: got %v", err)
		}
	}
	if _, err := w.take(1); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.hungUp(); err != nil {
		t.Errorf("closed: got %v", err)
	}
}

// TestAnnounced checks the fd fields of replies as clients do.
func TestAnnounced(t *testing.T) {
	for name, c := range map[string]struct {
		reply     string
		delivered map[int64]bool
		remote    bool
		follow    int
		wrong     bool
	}{
		"first":          {`{"created":{"store_fd":5,"data_size":8,"data_offset":64},"fd":5}`, nil, false, 1, false},
		"again":          {`{"created":{"store_fd":5,"data_size":8,"data_offset":64},"fd":-1}`, map[int64]bool{5: true}, false, 0, false},
		"again, named":   {`{"created":{"store_fd":5,"data_size":8,"data_offset":64},"fd":5}`, map[int64]bool{5: true}, false, 0, true},
		"empty blob":     {`{"created":{"store_fd":-1,"data_size":0,"data_offset":0},"fd":-1}`, nil, false, 0, false},
		"remote":         {`{"created":{"store_fd":5,"data_size":8,"data_offset":64},"fd":-1}`, nil, true, 0, false},
		"order":          {`{"0":{"store_fd":6,"data_size":8},"1":{"store_fd":5,"data_size":8},"fds":[6,5],"type":"get_buffers_reply"}`, nil, false, 2, false},
		"ascending":      {`{"0":{"store_fd":6,"data_size":8},"1":{"store_fd":5,"data_size":8},"fds":[5,6],"type":"create_buffers_reply"}`, nil, false, 2, false},
		"not ascending":  {`{"0":{"store_fd":6,"data_size":8},"1":{"store_fd":5,"data_size":8},"fds":[6,5],"type":"create_buffers_reply"}`, nil, false, 2, true},
		"twice":          {`{"0":{"store_fd":6,"data_size":8},"1":{"store_fd":6,"data_size":8},"fds":[6]}`, nil, false, 1, false},
		"two forms":      {`{"0":{"store_fd":6,"data_size":8},"payloads":[{"store_fd":6,"data_size":9}],"fds":[6]}`, nil, false, 1, true},
		"arena":          {`{"type":"make_arena_reply","fd":9,"size":4096}`, nil, false, 1, false},
		"error":          {`{"code":12,"message":""}`, nil, false, 0, false},
		"implicit":       {`{"0":{"store_fd":6,"data_size":8},"num":1}`, nil, false, 1, false},
		"nothing, a fd":  {`{"payloads":[],"fds":[6]}`, nil, false, 0, true},
		"none announced": {`{"0":{"store_fd":6,"data_size":8},"fds":[]}`, nil, false, 1, true},
	} {
		var reply map[string]any
		if err := decode([]byte(c.reply), &reply); err != nil {
			t.Fatal(name, err)
		}
		follow, wrong := announced(reply, c.delivered, c.remote)
		if len(follow) != c.follow || (len(wrong) > 0) != c.wrong {
			t.Errorf("%s: expected %d descriptors, wrong %v; got %v, %v", name, c.follow, c.wrong, follow, wrong)
		}
	}
}
