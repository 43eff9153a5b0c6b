//go:build linux

package recovery

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
)

// pyClient is reader.py: a process with the published client.
type pyClient struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	err *testserver.Output
}

// pyAnswer is one answer of reader.py.
type pyAnswer struct {
	Ready   bool
	Address uint64
	Size    int
	XOR     string `json:"xor"`
	ID      string
	Error   string

	PrivateClean int64 `json:"Private_Clean"`
	PrivateDirty int64 `json:"Private_Dirty"`
	Anonymous    int64
	RssAnon      int64
	RssShmem     int64
}

func newPyClient(t testing.TB, socket string) *pyClient {
	t.Helper()
	p := &pyClient{t: t, cmd: exec.Command(python(t), script(t, "reader.py"), socket), err: &testserver.Output{}}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	p.cmd.Stderr = p.err
	p.cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := testserver.StartProcess(p.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.in.Close()
		kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
		_ = p.cmd.Wait()
		kill.Stop()
	})
	if a := p.answer(); !a.Ready {
		t.Fatalf("the Python client says %+v\n%s", a, p.err)
	}
	return p
}

func (p *pyClient) answer() (a pyAnswer) {
	p.t.Helper()
	if !p.out.Scan() {
		p.t.Fatalf("the Python client ended:\n%s", p.err)
	}
	if err := json.Unmarshal(p.out.Bytes(), &a); err != nil {
		p.t.Fatalf("the Python client says %q: %v", p.out.Text(), err)
	}
	if a.Error != "" {
		p.t.Fatalf("the Python client: %s\n%s", a.Error, p.err)
	}
	return a
}

func (p *pyClient) do(command string, kv ...any) pyAnswer {
	p.t.Helper()
	m := map[string]any{"do": command}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i].(string)] = kv[i+1]
	}
	b, err := json.Marshal(m)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		p.t.Fatalf("the Python client: %v\n%s", err, p.err)
	}
	return p.answer()
}

// tensor files a sealed blob as what Python shows as an array of uint64.
func tensor(t testing.TB, c *client.Client, blob client.ID, size int) client.ID {
	t.Helper()
	id, err := c.CreateObject(ctx, client.NewMeta("vineyard::Tensor<uint64>").
		Set("shape_", []int{size / 8}).Set("partition_index_", []int{}).
		Set("value_type_", "uint64").Set("value_type_meta_", "<u8").Set("order_", `"C"`).Set("nbytes", size).
		Add("buffer_", client.BlobMember(blob)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// fill writes words into a blob's memory and returns their xor, in decimal.
func fill(b []byte, seed uint64) string {
	var x uint64
	for i := 0; i+8 <= len(b); i += 8 {
		seed = seed*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(b[i:], seed)
		x ^= seed
	}
	return strconv.FormatUint(x, 10)
}

// location is where an address of a process lies: a file, and a place in it.
type location struct {
	dev, ino string
	off      uint64
	perms    string
}

// locate looks an address up in the kernel's list of a process's mappings.
func locate(t testing.TB, pid int, addr uint64) location {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var lo, hi, off uint64
		var perms, dev, ino string
		if _, err := fmt.Sscanf(line, "%x-%x %s %x %s %s", &lo, &hi, &perms, &off, &dev, &ino); err != nil {
			continue
		}
		if lo <= addr && addr < hi {
			return location{dev, ino, off + addr - lo, perms}
		}
	}
	t.Fatalf("process %d maps nothing at %x", pid, addr)
	return location{}
}

// TestZeroCopy stores 512 MiB from Go and reads them from Python: both see the
// same bytes of the same file, and the reader's own memory does not grow.
func TestZeroCopy(t *testing.T) {
	const size = 512 << 20
	const slack = 8 << 20
	python(t)
	homes(t, func(t *testing.T, args []string) {
		if args != nil && args[0] == "--memory" {
			t.Skip("the same as devshm")
		}
		h := newHost(t, append([]string{"--size", "640MiB"}, args...)...)
		d := h.start()
		c := h.dial(t)
		w, err := c.CreateBlob(ctx, size)
		if err != nil {
			t.Fatal(err)
		}
		written := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(w.Bytes()))))
		xor := fill(w.Bytes(), 1)
		from := locate(t, os.Getpid(), written)
		if _, err := w.Seal(ctx); err != nil {
			t.Fatal(err)
		}
		id := tensor(t, c, w.ID(), size)

		p := newPyClient(t, h.socket)
		before := p.do("memory")
		got := p.do("get", "id", id.String())
		to := locate(t, p.cmd.Process.Pid, got.Address)
		if got.Size != size || to.dev != from.dev || to.ino != from.ino || to.off != from.off {
			t.Errorf("the writer wrote at %+v, the reader reads %d bytes at %+v", from, got.Size, to)
		}
		if !strings.HasPrefix(to.perms, "r") || !strings.HasSuffix(to.perms, "s") {
			t.Errorf("the reader's mapping is %s", to.perms)
		}
		began := time.Now()
		if read := p.do("read"); read.XOR != xor {
			t.Errorf("the reader finds %s, want %s", read.XOR, xor)
		}
		took := time.Since(began)
		after := p.do("memory")
		// Pages that the reader alone has mapped count as private even if they are
		// the pool's; the writer maps them here, so that they are shared.
		for _, kind := range []struct {
			name          string
			before, after int64
		}{
			{"Private_Clean + Private_Dirty", before.PrivateClean + before.PrivateDirty, after.PrivateClean + after.PrivateDirty},
			{"Anonymous", before.Anonymous, after.Anonymous},
			{"RssAnon", before.RssAnon, after.RssAnon},
		} {
			if grown := kind.after - kind.before; grown > slack {
				t.Errorf("%s of the reader grew by %d MiB", kind.name, grown>>20)
			}
		}
		if after.RssShmem-before.RssShmem < size/2 {
			t.Errorf("the reader has read only %d MiB of shared memory", (after.RssShmem-before.RssShmem)>>20)
		}
		t.Logf("512 MiB read in %v; RssAnon %+d KiB, private %+d KiB, shared %+d MiB; %s, file %s:%s at %#x",
			took.Round(time.Millisecond), (after.RssAnon-before.RssAnon)>>10,
			(after.PrivateClean+after.PrivateDirty-before.PrivateClean-before.PrivateDirty)>>10, (after.RssShmem-before.RssShmem)>>20,
			to.perms, to.dev, to.ino, to.off)
		c.Close()
		d.stop()
	})
}

// TestThroughSmallPool sends 30 arrays of 16 MiB through a pool of 96 MiB. The
// reader drops each and the writer deletes it; 0.24 clients never tell that they
// have dropped something.
func TestThroughSmallPool(t *testing.T) {
	const size = 16 << 20
	python(t)
	homes(t, func(t *testing.T, args []string) {
		if args != nil && args[0] == "--memory" {
			t.Skip("the same as devshm")
		}
		h := newHost(t, append([]string{"--size", "96MiB"}, args...)...)
		d := h.start()
		reader := newPyClient(t, h.socket)
		through := func(t *testing.T, put func(i int) (id, xor string), del func(id string)) {
			for i := range 30 {
				id, xor := put(i)
				reader.do("get", "id", id)
				if got := reader.do("read"); got.XOR != xor {
					t.Fatalf("array %d: read %s, want %s", i, got.XOR, xor)
				}
				reader.do("drop")
				del(id)
			}
			st := h.status(t)
			if st.Ledger.Usage != 0 {
				t.Errorf("%d bytes are still in use", st.Ledger.Usage)
			}
			t.Logf("deferred %d MiB, reused under readers: %d blobs", st.Ledger.Deferred>>20, st.Ledger.Reclaimed)
		}
		t.Run("Python writer", func(t *testing.T) {
			w := newPyClient(t, h.socket)
			through(t, func(i int) (string, string) {
				a := w.do("put", "size", size, "seed", i)
				return a.ID, a.XOR
			}, func(id string) { w.do("delete", "id", id) })
		})
		t.Run("Go writer", func(t *testing.T) {
			c := h.dial(t)
			through(t, func(i int) (string, string) {
				b, err := c.CreateBlob(ctx, size)
				if err != nil {
					t.Fatalf("array %d: %v", i, err)
				}
				xor := fill(b.Bytes(), uint64(i))
				if _, err := b.Seal(ctx); err != nil {
					t.Fatal(err)
				}
				return tensor(t, c, b.ID(), size).String(), xor
			}, func(text string) {
				id, err := client.ParseID(text)
				if err == nil {
					err = c.Delete(ctx, []client.ID{id}, client.DeleteOptions{})
				}
				if err != nil {
					t.Fatal(err)
				}
			})
		})
		d.stop()
		nothingLeft(t, h)
	})
}
