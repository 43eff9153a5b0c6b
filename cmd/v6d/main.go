// Command v6d is the daemon, the tools and the browser of a v6d node in one
// binary. See `v6d --help`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/v6d-go/v6d/internal/cli"
	"github.com/v6d-go/v6d/internal/output"
)

func main() {
	os.Exit(run())
}

// run turns signals into the end of the context: the first one lets the command
// clean up, the second one kills.
func run() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		cause := cli.ErrInterrupted
		if <-signals == syscall.SIGTERM {
			cause = cli.ErrTerminated
		}
		signal.Reset(syscall.SIGINT, syscall.SIGTERM)
		cancel(cause)
	}()
	return cli.Main(ctx, cli.Args(os.Args), output.System())
}
