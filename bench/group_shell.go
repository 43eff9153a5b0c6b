package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// shell measures the command line.
func (b *bench) shell() error {
	p, err := b.daemon("v6d", options{size: "3GiB"})
	if err != nil {
		return err
	}
	tool := func(args ...string) func() error {
		return func() error {
			return spawn(b.ctx, []string{"V6D_SOCKET=" + p.socket}, append([]string{b.v6d}, args...)...)
		}
	}
	if err := b.compare("v6d version", millis, []side{{"v6d", once(tool("version"))}}, rounds(20)); err != nil {
		return err
	}
	file := filepath.Join(b.dir, "gigabyte")
	if err := makeFile(file, 1<<30); err != nil {
		return err
	}
	copied, there := filepath.Join(b.dir, "copied"), filepath.Join(b.dir, "there")
	remove := func(path string) {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	ours := func() error {
		remove(copied)
		return errors.Join(tool("rm", "big", "--ignore-not-found")(), tool("put", file, "--name", "big")(), tool("get", "big", copied)())
	}
	cp := func(from, to string) error { remove(to); return exec.CommandContext(b.ctx, "cp", from, to).Run() }
	theirs := func() error { return errors.Join(cp(file, there), cp(there, copied)) }
	if err := b.compare("put and get of 1 GiB, against cp to and from tmpfs", seconds,
		[]side{{"v6d", once(ours)}, {"cp", once(theirs)}, {"cp again", once(theirs)}}, rounds(pick(b, 9, 5))); err != nil {
		return err
	}
	for _, path := range []string{file, copied, there} {
		remove(path)
	}
	c, err := dialRaw(p.socket)
	if err != nil {
		return err
	}
	for i := range 100_000 {
		if _, err := c.create1(fmt.Sprintf(`{"typename":"bench::Object","nbytes":0,"transient":true,"instance_id":0,"global":false,"index":%d}`, i)); err != nil {
			return err
		}
	}
	return b.compare("ls -q of 100,000 objects", millis, []side{{"v6d", once(tool("ls", "-q"))}})
}

func makeFile(path string, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	piece := []byte(strings.Repeat("v6d bench ", 1<<17))
	for n := 0; n < size && err == nil; n += len(piece) {
		_, err = f.Write(piece[:min(len(piece), size-n)])
	}
	return errors.Join(err, f.Close())
}
