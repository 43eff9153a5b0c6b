package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

type rmOptions struct {
	Force          bool
	Shallow        bool
	IgnoreNotFound bool
}

func newRm(d *deps) *cobra.Command {
	var o rmOptions
	c := &cobra.Command{
		Use:     "rm ID|NAME...",
		Aliases: []string{"delete"},
		Short:   "Delete objects",
		GroupID: "objects",
		Long: `Delete objects, their blobs, those of their members that nothing else refers to,
and the names that point at them. Readers that hold a blob keep right bytes. An
object that is part of another one is kept unless --force, which deletes the other
one, too.`,
		Example: `  v6d rm model
  v6d rm $(v6d ls -q)`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				return each(args, func(arg string) error { return runRm(ctx, c, arg, o) })
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&o.Force, "force", false, "delete what refers to the object, too")
	f.BoolVar(&o.Shallow, "shallow", false, "keep members that are objects")
	f.BoolVar(&o.IgnoreNotFound, "ignore-not-found", false, "succeed when there is no such object")
	return c
}

func runRm(ctx context.Context, c *client.Client, arg string, o rmOptions) error {
	id, err := resolve(ctx, c, arg)
	if err == nil {
		var known bool
		if known, err = c.Exists(ctx, id); err == nil && !known {
			err = status.Errorf(status.ObjectNotExists, "no object %s", id)
		}
	}
	if err != nil {
		if o.IgnoreNotFound && status.Of(err).Exit() == status.ExitNotFound {
			return nil
		}
		return err
	}
	if err := c.Delete(ctx, []client.ID{id}, client.DeleteOptions{Force: o.Force, Shallow: o.Shallow}); err != nil {
		return err
	}
	still, err := c.Exists(ctx, id)
	if err != nil {
		return err
	}
	if still {
		return status.Errorf(status.ObjectExists, "%s is kept: another object refers to it", arg).
			WithHint("delete that one, or use --force to delete both")
	}
	return dropNames(ctx, c, id)
}

// dropNames forgets the names of a deleted object.
func dropNames(ctx context.Context, c *client.Client, id client.ID) error {
	if id.IsBlob() {
		return nil
	}
	names, err := c.ListNames(ctx, "*", 1<<40)
	if err != nil {
		return err
	}
	var errs []error
	for name, target := range names {
		if target == id {
			errs = append(errs, c.DropName(ctx, name))
		}
	}
	return errors.Join(errs...)
}
