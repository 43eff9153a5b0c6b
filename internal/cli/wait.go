package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

type waitOptions struct {
	For string
}

func newWait(d *deps) *cobra.Command {
	var o waitOptions
	c := &cobra.Command{
		Use:     "wait ID|NAME...",
		Short:   "Wait until objects exist, are persistent, or are gone",
		GroupID: "objects",
		Long: `Wait until all arguments meet a condition: exists (the default), persistent or
deleted. With --timeout the command gives up with exit code 124.`,
		Example: `  v6d wait model --timeout 30s && v6d get model > model.bin
  v6d wait model --for deleted`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.For != "exists" && o.For != "persistent" && o.For != "deleted" {
				return usage("--for %q: want exists, persistent or deleted", o.For)
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				for _, a := range args {
					if err := waitFor(ctx, c, a, o.For); err != nil {
						if ctx.Err() != nil {
							return fmt.Errorf("wait for %s to be %s: %w", a, o.For, context.Cause(ctx))
						}
						return err
					}
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&o.For, "for", "exists", "what to wait for: exists, persistent or deleted")
	return c
}

// waitFor polls; the daemon's own waiting would leave a connection that cannot
// be used any more when the time is up.
func waitFor(ctx context.Context, c *client.Client, arg, cond string) error {
	const first, most = 2 * time.Millisecond, 100 * time.Millisecond
	for pause := first; ; pause = min(2*pause, most) {
		ok, err := holds(ctx, c, arg, cond)
		if ok || err != nil {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func holds(ctx context.Context, c *client.Client, arg, cond string) (bool, error) {
	id, err := resolve(ctx, c, arg)
	if isNotFound(err) {
		return cond == "deleted", nil
	}
	if err != nil {
		return false, err
	}
	if cond == "persistent" {
		ok, err := c.IsPersistent(ctx, id)
		if isNotFound(err) {
			return false, nil
		}
		return ok, err
	}
	known, err := c.Exists(ctx, id)
	return known == (cond == "exists"), err
}

// isNotFound reports whether an error says that there is no such thing.
func isNotFound(err error) bool {
	e, ok := errors.AsType[*status.Error](err)
	return ok && e.Code.Exit() == status.ExitNotFound
}
