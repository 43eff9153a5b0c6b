package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/v6d-go/v6d/internal/testserver"
)

// args of an operation of a worker.
type args map[string]any

// worker is a Python process that measures its own calls: bench/worker.py. A
// request is a line of JSON with the operation's name and arguments, the answer
// a line with what it measured.
type worker struct {
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	trace testserver.Output
}

// workers are one process a side.
type workers []*worker

// worker starts a process for a kind of client.
func (b *bench) worker(python, name, kind string, argv ...string) (*worker, error) {
	w := &worker{name: name}
	w.cmd = exec.Command(python, append([]string{"-W", "ignore", "bench/worker.py", kind}, argv...)...)
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	w.cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	w.cmd.Stderr = &w.trace
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReaderSize(out, 1<<20)
	if err := testserver.StartProcess(w.cmd); err != nil {
		return nil, err
	}
	if _, err := w.call("ready", nil); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// contest starts the daemons of a group and a published client of each. stopAll
// ends them.
func (b *bench) contest(o options) ([]*proc, workers, error) {
	procs, err := b.daemons(o)
	if err != nil {
		return nil, nil, err
	}
	py, err := b.workers("vineyard", procs)
	return procs, py, err
}

// workers starts one process a daemon. stopAll ends them.
func (b *bench) workers(kind string, procs []*proc) (workers, error) {
	var all workers
	for _, p := range procs {
		w, err := b.worker(b.python, p.name, kind, p.socket, fmt.Sprint(p.port))
		if err != nil {
			return nil, err
		}
		all = append(all, w)
		b.helpers = append(b.helpers, w)
	}
	return all, nil
}

func (w *worker) close() {
	_ = w.in.Close()
	_ = w.cmd.Wait() // it ends with its input
}

// send starts an operation, receive waits for what it measured.
func (w *worker) send(op string, a args) error {
	line, err := json.Marshal(map[string]any{"op": op, "args": a})
	if err != nil {
		return err
	}
	_, err = w.in.Write(append(line, '\n'))
	return err
}

func (w *worker) receive() (reply, error) {
	var r reply
	line, err := w.out.ReadBytes('\n')
	if err != nil {
		return r, errors.Join(err, w.cmd.Process.Kill(), fmt.Errorf("the worker of %s ended: %s", w.name, w.trace.String()))
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, fmt.Errorf("the worker of %s: %s", w.name, r.Error)
	}
	return r, nil
}

type reply struct {
	Samples []float64 `json:"samples"`
	Value   string    `json:"value"`
	Error   string    `json:"error"`
}

func (w *worker) call(op string, a args) (reply, error) {
	if err := w.send(op, a); err != nil {
		return reply{}, fmt.Errorf("the worker of %s: %w: %s", w.name, err, w.trace.String())
	}
	return w.receive()
}

// row makes one side of each worker.
func (all workers) row(op string, a args) []side {
	var out []side
	for _, w := range all {
		out = append(out, side{w.name, w.round(op, a)})
	}
	return out
}

func (w *worker) round(op string, a args) func() ([]float64, error) {
	return func() ([]float64, error) {
		r, err := w.call(op, a)
		return r.Samples, err
	}
}

// each calls an operation on all, untimed.
func (all workers) each(op string, a args) error {
	for _, w := range all {
		if _, err := w.call(op, a); err != nil {
			return err
		}
	}
	return nil
}
