package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/v6d-go/v6d/internal/output"
)

// pager returns where long text goes: the user's pager on a terminal, else the
// standard output. done waits until the user has left the pager.
func (d *deps) pager(ctx context.Context) (w io.Writer, done func() error) {
	direct := func() error { return nil }
	if d.global.NoPager || !output.IsTerminal(d.streams.Out) || os.Getenv("TERM") == "dumb" {
		return d.streams.Out, direct
	}
	line := envOr("V6D_PAGER", envOr("PAGER", "less -FRX"))
	if line == "cat" {
		return d.streams.Out, direct
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Stdout, cmd.Stderr = d.streams.Out, d.streams.Err
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return d.streams.Out, direct
	}
	return in, func() error { return errors.Join(in.Close(), cmd.Wait()) }
}

// joinPager joins the errors of writing to a pager and of the pager; a user who
// leaves early is no error.
func joinPager(write, pager error) error {
	if errors.Is(write, syscall.EPIPE) {
		write = nil
	}
	return errors.Join(write, pager)
}

// paged prints one item through the pager.
func (d *deps) paged(ctx context.Context, id string, item any, text func(io.Writer) error) error {
	w, done := d.pager(ctx)
	p, err := output.NewPrinter(w, d.global.Out)
	if err == nil {
		err = p.Item(id, item, text)
	}
	return joinPager(err, done())
}
