//go:build linux

package recovery

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/testserver"
)

// pyWorker is soak.py: a process with the published client that works beside
// the Go workers and survives the daemons.
type pyWorker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	err *testserver.Output

	mu     sync.Mutex
	events []pyEvent     // guarded by mu
	ended  chan struct{} // closed when its output ends
	ids    []client.ID   // what is its own, as of the last resolve
}

// pyEvent is one line of soak.py.
type pyEvent struct {
	Ev, Op, ID, Sum, Name, Why string
	Size, Count                int
}

func newPyWorker(t testing.TB) *pyWorker {
	t.Helper()
	p := &pyWorker{cmd: exec.Command(pythonPath(), script(t, "soak.py")), err: &testserver.Output{}, ended: make(chan struct{})}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.err
	p.cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := testserver.StartProcess(p.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		sc := bufio.NewScanner(out)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			var e pyEvent
			if json.Unmarshal(sc.Bytes(), &e) != nil {
				e = pyEvent{Ev: "bad", Why: "it printed " + sc.Text()}
			}
			p.mu.Lock()
			p.events = append(p.events, e)
			p.mu.Unlock()
		}
	}()
	return p
}

func (p *pyWorker) tell(command map[string]any) {
	b, err := json.Marshal(command)
	if err != nil {
		panic(err)
	}
	_, _ = p.in.Write(append(b, '\n')) // a dead one is noticed by await
}

// await waits until one of some events has been told.
func (p *pyWorker) await(kinds ...string) error {
	for deadline := time.Now().Add(3 * patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		p.mu.Lock()
		for _, e := range p.events {
			for _, kind := range kinds {
				if e.Ev == kind {
					p.mu.Unlock()
					return nil
				}
			}
		}
		p.mu.Unlock()
		select {
		case <-p.ended:
			return fmt.Errorf("the Python client died: %s", p.err)
		default:
		}
	}
	return fmt.Errorf("the Python client never said %v: %s", kinds, p.err)
}

// work sets it to work and returns once it has connected.
func (p *pyWorker) work(socket string, seed uint64) error {
	p.events = nil
	ids := []string{}
	for _, id := range p.ids {
		ids = append(ids, id.String())
	}
	p.tell(map[string]any{"do": "work", "socket": socket, "seed": seed, "ids": ids})
	return p.await("ready", "down")
}

// resolve brings the model up to date with what it did and what was found. Its
// puts are learnt here: the client makes the metadata, the soak knows bytes.
func (p *pyWorker) resolve(m *model, f *found) {
	root := m.places[0]
	at := f.at(root)
	type put struct {
		pyEvent
		id client.ID
	}
	var puts []*put
	var open *put
	deleted := func(id client.ID) {
		for i, made := range puts {
			if made.id == id {
				puts = append(puts[:i], puts[i+1:]...)
				m.gone[key(root, id)] = true
				root.names[made.Name] = id // a name outlives its object
				break
			}
		}
		m.remove(root, root.deletion([]client.ID{id}, client.DeleteOptions{}))
	}
	for _, e := range p.events {
		id, _ := client.ParseID(e.ID)
		switch e.Ev + " " + e.Op {
		case "begin put":
			open = &put{pyEvent: e}
			puts = append(puts, open)
		case "ack put":
			open.id, open = id, nil
		case "begin delete":
			open = &put{pyEvent: e, id: id}
		case "ack delete":
			open = nil
			deleted(id)
		case "bad ":
			m.fault(&m.tally.changed, "the Python client: %s %s", e.ID, e.Why)
		}
	}
	if open != nil && open.Op == "delete" {
		m.tally.maybe++
		if _, there := at.metas[open.id]; !there {
			m.tally.happened++
			deleted(open.id)
		}
	}
	delete(root.names, "")
	for _, made := range puts {
		p.learn(m, at, made.pyEvent, made.id)
	}
	p.ids = p.ids[:0]
	for id, o := range root.objects {
		if strings.HasPrefix(o.Type, "vineyard::Tensor<") && o.Fields["token_"] == "" {
			p.ids = append(p.ids, id)
		}
	}
	p.events = nil
}

// learn files one put: acknowledged under an id, or perhaps done.
func (p *pyWorker) learn(m *model, at *foundPlace, e pyEvent, id client.ID) {
	root := m.places[0]
	acked := id != 0
	var sum [32]byte
	if _, err := hex.Decode(sum[:], []byte(e.Sum)); err != nil {
		m.fault(&m.tally.other, "the Python client told a sum of %q", e.Sum)
		return
	}
	blob, stored := at.stray(root, sum)
	if !acked {
		m.tally.maybe++
		for found, s := range at.metas {
			if stored && s.Members["buffer_"] == blob && root.objects[found] == nil {
				id = found
			}
		}
	}
	if stored {
		m.addBlob(root, blob, e.Size, sum)
	}
	got, ok := at.metas[id]
	switch {
	case acked && !ok:
		m.fault(&m.tally.lost, "object %s of the Python client is lost", id)
		return
	case !ok:
		return
	case !stored:
		m.fault(&m.tally.lost, "the bytes of array %s of the Python client are lost or changed", id)
	case got.Members["buffer_"] != blob:
		m.fault(&m.tally.changed, "array %s of the Python client has buffer %s, want %s", id, got.Members["buffer_"], blob)
	}
	if acked && e.Name != "" && (got.Transient || at.names[e.Name] != id) {
		m.fault(&m.tally.changed, "array %s of the Python client should be persistent under the name %s", id, e.Name)
	}
	if e.Name != "" && at.names[e.Name] == id {
		root.names[e.Name] = id
	}
	if !acked {
		m.tally.happened++
	}
	m.saw(id)
	root.objects[id] = &object{shown: got}
}

// check reads its arrays back through the Python client.
func (p *pyWorker) check(m *model) error {
	p.events = nil
	sums := map[string]string{}
	root := m.places[0]
	for _, id := range p.ids {
		if b := root.blobs[root.objects[id].Members["buffer_"]]; b != nil {
			sums[id.String()] = hex.EncodeToString(b.sum[:])
		}
	}
	p.tell(map[string]any{"do": "check", "socket": root.socket, "sums": sums})
	if err := p.await("checked", "down"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Ev == "bad" {
			m.fault(&m.tally.changed, "the Python client reads %s: %s", e.ID, e.Why)
		}
	}
	p.events = nil
	return nil
}

func (p *pyWorker) stop() {
	p.tell(map[string]any{"do": "quit"})
	p.in.Close()
	timer := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	<-p.ended
	_ = p.cmd.Wait()
	timer.Stop()
}
