//go:build linux

package faults

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/protocol"
	"github.com/v6d-go/v6d/internal/sys"
	"github.com/v6d-go/v6d/internal/testserver"
)

// The environment of a client process.
const (
	envRole   = "V6D_FAULTS_ROLE"
	envSocket = "V6D_FAULTS_SOCKET"
	envRPC    = "V6D_FAULTS_RPC"
	envWhat   = "V6D_FAULTS_WHAT" // an id or number, by role
)

// world is what a client process knows.
type world struct {
	socket, rpc string
	what        uint64
}

func (w *world) dial() (*client.Client, error) {
	return client.Dial(ctx, client.Options{Socket: w.socket})
}

// blobSize is that of the blobs that clients die with.
const blobSize = mib

// roles are the clients that die. Each does its work up to its point, calls at
// and returns an error only if it cannot get there; after at it is killed, or
// goes on until it is.
var roles = map[string]func(w *world, at func()) error{
	"put/created":         putCreated,
	"put/writing":         putWriting,
	"put/sealed":          putSealed,
	"put/created-data":    putCreatedData,
	"get/holding":         getHolding(false),
	"get/holding-classic": getHolding(true),
	"get/asked":           getAsked,
	"stream/producer":     streamProducer,
	"stream/consumer":     streamConsumer,
	"stream/reading":      streamReading,
	"remote/uploading":    remoteUploading,
	"remote/reading":      remoteReading,
	"session/asked":       sessionAsked,
	"hoard":               hoard,
	"truncate":            truncate,
	"crowd":               crowdProcess,
}

// child is the main function of a client process.
func child(role string) int {
	w := &world{socket: os.Getenv(envSocket), rpc: os.Getenv(envRPC)}
	w.what, _ = strconv.ParseUint(os.Getenv(envWhat), 10, 64)
	run := roles[role]
	if run == nil {
		fmt.Fprintf(os.Stderr, "no such client: %s\n", role)
		return 2
	}
	if role != "crowd" {
		// What a client has at its point must last until it is killed: a collected
		// connection is a closed one.
		debug.SetGCPercent(-1)
	}
	err := run(w, func() { os.Stdout.WriteString("at the point\n") })
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		return 1
	}
	io.Copy(io.Discard, os.Stdin) // until we are killed
	return 0
}

// putCreated has asked for a blob and not written it.
func putCreated(w *world, at func()) error {
	c, err := w.dial()
	if err == nil {
		_, err = c.CreateBlob(ctx, blobSize)
	}
	if err == nil {
		at()
	}
	return err
}

// putWriting writes without end into a blob.
func putWriting(w *world, at func()) error {
	c, err := w.dial()
	if err != nil {
		return err
	}
	b, err := c.CreateBlob(ctx, blobSize)
	if err != nil {
		return err
	}
	for n := uint64(0); ; n++ {
		fill(b.Bytes(), n)
		if n == 0 {
			at()
		}
	}
}

// putSealed has a sealed blob that no object refers to.
func putSealed(w *world, at func()) error {
	c, err := w.dial()
	if err == nil {
		_, err = c.PutBlob(ctx, pattern(w.what, blobSize))
	}
	if err == nil {
		at()
	}
	return err
}

// putCreatedData has asked for an object over a sealed blob, and not read the
// answer.
func putCreatedData(w *world, at func()) error {
	p, err := dialPeer(w.socket, w.what%2 == 0)
	if err != nil {
		return err
	}
	id, err := p.put(pattern(w.what, blobSize))
	if err != nil {
		return err
	}
	content := fmt.Sprintf(`{"typename":"faults::Object","instance_id":0,"transient":true,"buffer_":{"id":"%s","typename":"vineyard::Blob","instance_id":0}}`, id)
	err = say(p, protocol.CreateData, protocol.CreateDataRequest{Content: []byte(content)})
	if err == nil {
		at()
	}
	return err
}

// getHolding maps a blob and reads it without end.
func getHolding(classic bool) func(w *world, at func()) error {
	return func(w *world, at func()) error {
		c, err := client.Dial(ctx, client.Options{Socket: w.socket, Classic: classic})
		if err != nil {
			return err
		}
		b, err := c.GetBlob(ctx, client.ID(w.what))
		if err != nil {
			return err
		}
		at()
		for sum := byte(0); ; time.Sleep(time.Millisecond) {
			for _, x := range b.Bytes() {
				sum += x
			}
			w.what += uint64(sum) // keeps the compiler from leaving the reading out
		}
	}
}

// getAsked has asked for a blob, and has read neither the answer nor the
// descriptor after it.
func getAsked(w *world, at func()) error {
	p, err := dialPeer(w.socket, false)
	if err == nil {
		err = say(p, protocol.GetBuffers, protocol.GetBuffersRequest{IDs: protocol.IDs{client.ID(w.what)}})
	}
	if err == nil {
		at()
	}
	return err
}

// streamProducer has queued a chunk and writes the next.
func streamProducer(w *world, at func()) error {
	c, err := w.dial()
	if err != nil {
		return err
	}
	if err := c.OpenStream(ctx, client.ID(w.what), true); err != nil {
		return err
	}
	if _, err := c.NextChunk(ctx, client.ID(w.what), blobSize); err != nil {
		return err
	}
	b, err := c.NextChunk(ctx, client.ID(w.what), blobSize)
	if err != nil {
		return err
	}
	fill(b, 1)
	at()
	return nil
}

// streamConsumer has pulled one chunk and waits for the next.
func streamConsumer(w *world, at func()) error {
	p, err := dialPeer(w.socket, false)
	if err != nil {
		return err
	}
	id := client.ID(w.what)
	if err := ask(p, protocol.OpenStream, protocol.OpenStreamRequest{ObjectID: id, Mode: 1}, &protocol.None{}); err != nil {
		return err
	}
	var r protocol.PullChunkReply
	if err := ask(p, protocol.PullChunk, protocol.IDRequest{ID: id}, &r); err != nil {
		return err
	}
	if _, _, err := p.get(r.Chunk); err != nil {
		return err
	}
	if err := say(p, protocol.PullChunk, protocol.IDRequest{ID: id}); err != nil {
		return err
	}
	at()
	return nil
}

// streamReading has pulled a chunk and is at work on it.
func streamReading(w *world, at func()) error {
	c, err := w.dial()
	if err != nil {
		return err
	}
	chunk, err := c.PullChunk(ctx, client.ID(w.what))
	if err == nil {
		_, err = c.GetBlob(ctx, chunk)
	}
	if err == nil {
		at()
	}
	return err
}

// remoteUploading has sent a random part of a blob.
func remoteUploading(w *world, at func()) error {
	p, err := dialPeer(w.rpc, false)
	if err == nil {
		err = p.upload(pattern(w.what, blobSize), rand.IntN(blobSize))
	}
	if err == nil {
		at()
	}
	return err
}

// remoteReading has read a random part of a blob that is larger than any buffer
// on the way.
func remoteReading(w *world, at func()) error {
	p, err := dialPeer(w.rpc, w.what%2 == 0)
	if err != nil {
		return err
	}
	if _, found, err := p.download(client.ID(w.what)); err != nil || !found {
		return fmt.Errorf("download: found %v: %w", found, err)
	}
	if _, err := p.payload(rand.Int64N(mib)); err != nil {
		return err
	}
	at()
	return nil
}

// sessionAsked has an unsealed and a sealed blob in a session of its own, and
// asks for another session without reading the answer.
func sessionAsked(w *world, at func()) error {
	root, err := w.dial()
	if err != nil {
		return err
	}
	socket, err := root.NewSession(ctx, false)
	if err != nil {
		return err
	}
	own, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		return err
	}
	if _, err := own.PutBlob(ctx, pattern(w.what, 1000)); err != nil {
		return err
	}
	if _, err := own.CreateBlob(ctx, blobSize); err != nil {
		return err
	}
	p, err := dialPeer(w.socket, false)
	if err != nil {
		return err
	}
	if err := say(p, protocol.NewSession, protocol.NewSessionRequest{StoreType: protocol.StoreDefault}); err != nil {
		return err
	}
	at()
	return nil
}

// hoard makes so many sealed blobs of 1 MiB.
func hoard(w *world, at func()) error {
	c, err := w.dial()
	if err != nil {
		return err
	}
	for i := range w.what {
		if _, err := c.PutBlob(ctx, pattern(i, mib)); err != nil {
			return err
		}
	}
	at()
	return nil
}

// truncate maps the pool and shortens its file, as every client may.
func truncate(w *world, at func()) error {
	p, err := dialPeer(w.socket, false)
	if err != nil {
		return err
	}
	made, err := p.create(4096)
	if err != nil {
		return err
	}
	f := p.files[made.StoreFD]
	m, err := sys.Map(f, 4096, false)
	if err != nil {
		return err
	}
	if err := f.Truncate(int64(w.what)); err != nil {
		return err
	}
	at()
	io.Copy(io.Discard, os.Stdin)
	return sys.Unmap(m)
}

// process is a running client process.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
	err   *testserver.Output
}

// spawn starts a client process; it ends with the test at the latest.
func (d *daemon) spawn(t testing.TB, role string, what uint64) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envRole+"="+role, envSocket+"="+d.socket, envRPC+"="+d.rpc, envWhat+"="+strconv.FormatUint(what, 10))
	p := &process{cmd: cmd, err: &testserver.Output{}}
	cmd.Stderr = p.err
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := testserver.StartProcess(cmd); err != nil {
		t.Fatalf("start a client: %v", err)
	}
	t.Cleanup(func() { _ = p.kill() })
	return p
}

// arrive waits until the client is at its point.
func (p *process) arrive(t testing.TB) {
	t.Helper()
	watchdog := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer watchdog.Stop()
	if line, err := p.out.ReadString('\n'); !strings.Contains(line, "at the point") {
		_ = p.kill()
		t.Fatalf("a client does not get to its point: %q %v\n%s", line, err, p.err)
	}
}

// kill ends the client with kill -9 and collects it. It fails if the client had
// ended in another way before.
func (p *process) kill() error {
	if p.cmd.ProcessState != nil {
		return nil
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.stdin.Close()
	if st, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGKILL {
		return fmt.Errorf("a client was to be killed, but had ended: %v\n%s", p.cmd.ProcessState, p.err)
	}
	return nil
}
