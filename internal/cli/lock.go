package cli

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

func newLock(d *deps) *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use:     "lock NAME -- COMMAND [ARG...]",
		Short:   "Run a command while nobody else in the cluster holds a lock",
		GroupID: "more",
		Long: `Take the lock, run the command, give the lock back, and end with the command's exit
code. In a cluster one command runs at a time, on whichever node. The lock is free
again when this process, its daemon or its host dies; of the latter two after ten
seconds.`,
		Example: `  v6d lock nightly -- ./rebuild-index.sh
  v6d lock --within 5s nightly -- ./rebuild-index.sh || echo "somebody else is at it"`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				return runLocked(ctx, d, c, args[0], args[1:], wait)
			})
		},
	}
	c.Flags().DurationVar(&wait, "within", 0, "give up when the lock is not free after this time (exit code 7); 0 waits for ever")
	return c
}

func runLocked(ctx context.Context, d *deps, c *client.Client, name string, command []string, wait time.Duration) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return usage("%s: %v", command[0], errors.Unwrap(err))
	}
	waiting := ctx
	if wait > 0 {
		limited, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		waiting = limited
	}
	unlock, err := c.Lock(waiting, name)
	if err != nil {
		if ctx.Err() == nil && waiting.Err() != nil {
			return status.Errorf(status.ObjectExists, "somebody else has held the lock %q for %v", name, wait)
		}
		return err
	}
	cmd := exec.CommandContext(ctx, path, command[1:]...)
	cmd.Args[0] = command[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = d.streams.In, d.streams.Out, d.streams.Err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	// The lock goes back whatever became of the command, and of us.
	giving, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if unlockErr := unlock(giving); unlockErr != nil {
		fmt.Fprintf(d.streams.Err, "v6d: the lock %q could not be given back, it ends with this process: %v\n", name, unlockErr)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return childExit(exit)
	}
	return err
}

// childError is the failure of a command that was run: it has said what it had
// to say.
type childError struct{ code int }

func (e *childError) Error() string {
	return fmt.Sprintf("the command ended with exit code %d", e.code)
}

// childExit is a command's exit code as shells give it.
func childExit(e *exec.ExitError) error {
	if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &childError{128 + int(ws.Signal())}
	}
	return &childError{e.ExitCode()}
}
