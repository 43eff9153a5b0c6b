package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/v6d-go/v6d/internal/testserver"
)

// peers measures what people would share memory with instead, each through its
// own Python client: put of bytes that are there, get of a view.
func (b *bench) peers() error {
	procs, err := b.daemons(options{size: "1GiB"})
	if err != nil {
		return err
	}
	all, err := b.workers("vineyard", procs[:2])
	if err != nil {
		return err
	}
	add := func(name, python, kind string, argv ...string) {
		w, err := b.worker(python, name, kind, argv...)
		if err != nil {
			b.report.absent(os.Stdout, name, strings.TrimSpace(strings.Split(err.Error(), "\n")[0]))
			return
		}
		all, b.helpers = append(all, w), append(b.helpers, w)
	}
	if stop, err := b.service(filepath.Join(filepath.Dir(b.plasma), "plasma_store"), []string{"-m", "1000000000", "-s", b.dir + "/plasma.sock"}, b.dir+"/plasma.sock"); err != nil {
		b.report.absent(os.Stdout, "Plasma", err.Error())
	} else {
		defer stop()
		add("Plasma", b.plasma, "plasma", b.dir+"/plasma.sock")
	}
	if stop, err := b.service("redis-server", []string{"--port", "0", "--unixsocket", b.dir + "/redis.sock", "--save", "", "--dir", b.dir}, b.dir+"/redis.sock"); err != nil {
		b.report.absent(os.Stdout, "Redis", err.Error())
	} else {
		defer stop()
		add("Redis", b.plasma, "redis", b.dir+"/redis.sock")
	}
	add("LMDB", b.plasma, "lmdb", b.dir+"/lmdb")
	add("multiprocessing.shared_memory", b.python, "shared_memory")
	add("Arrow file on tmpfs", b.python, "arrow", b.dir)
	for _, op := range []string{"get", "put"} {
		for _, size := range []int64{64, 1 << 20, 64 << 20} {
			n := 500
			if size > 1<<20 {
				n = 10
			} else if size > 64 {
				n = 100
			}
			if err := b.compare(fmt.Sprintf("%s of %s", op, sizeName(size)), micros, all.row(op+"_value", args{"n": n, "size": size}), withoutTwin()); err != nil {
				return err
			}
		}
	}
	return nil
}

// service starts a peer's server and waits for its socket.
func (b *bench) service(name string, argv []string, socket string) (stop func(), err error) {
	cmd := exec.Command(name, argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := testserver.StartProcess(cmd); err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	for range 500 {
		if c, err := net.Dial("unix", socket); err == nil {
			return stop, c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	return nil, errors.New(name + " does not come up")
}
