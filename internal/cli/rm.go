package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
)

type rmOptions struct {
	Force          bool
	Shallow        bool
	IgnoreNotFound bool
	DryRun         bool
	All            bool
	Yes            bool
	Stdin          bool
	Null           bool
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
one, too.

--all deletes everything in the session; on a terminal it asks first, elsewhere it
needs --yes.`,
		Example: `  v6d rm model
  v6d ls -q --older-than 1h | v6d rm --stdin
  v6d rm --all --yes`,
		RunE: func(c *cobra.Command, args []string) error {
			args, err := o.targets(args, d.streams.In)
			if err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				if o.All {
					return removeAll(ctx, c, d.streams, o)
				}
				return each(args, func(arg string) error { return runRm(ctx, c, d.streams.Out, arg, o) })
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&o.Force, "force", false, "delete what refers to the object, too")
	f.BoolVar(&o.Shallow, "shallow", false, "keep members that are objects")
	f.BoolVar(&o.IgnoreNotFound, "ignore-not-found", false, "succeed when there is no such object")
	f.BoolVarP(&o.DryRun, "dry-run", "n", false, "say what would be deleted, and delete nothing")
	f.BoolVar(&o.All, "all", false, "delete all objects and blobs of the session")
	f.BoolVarP(&o.Yes, "yes", "y", false, "do not ask before --all")
	f.BoolVar(&o.Stdin, "stdin", false, "read ids and names from the standard input, one a line")
	f.BoolVarP(&o.Null, "null", "0", false, "with --stdin: separated by NUL bytes instead of lines")
	return c
}

// targets collects the objects to delete from arguments and standard input.
func (o *rmOptions) targets(args []string, in io.Reader) ([]string, error) {
	if o.Stdin {
		more, err := readList(in, o.Null)
		if err != nil {
			return nil, err
		}
		return append(args, more...), nil
	}
	switch {
	case o.All && len(args) > 0:
		return nil, usage("--all and %s exclude each other", args[0])
	case o.Null:
		return nil, usage("-0 needs --stdin")
	case !o.All && len(args) == 0:
		return nil, usage("nothing to delete: give ids or names").WithHint("see `v6d rm --help`")
	}
	return args, nil
}

// readList reads lines, or texts that end with NUL, and leaves empty ones out.
func readList(in io.Reader, null bool) ([]string, error) {
	sc := bufio.NewScanner(in)
	if null {
		sc.Split(func(data []byte, atEOF bool) (int, []byte, error) {
			if i := bytes.IndexByte(data, 0); i >= 0 {
				return i + 1, data[:i], nil
			}
			if atEOF && len(data) > 0 {
				return len(data), data, nil
			}
			return 0, nil, nil
		})
	}
	var list []string
	for sc.Scan() {
		text := sc.Text()
		if !null {
			text = strings.TrimSpace(text)
		}
		if text != "" {
			list = append(list, text)
		}
	}
	return list, sc.Err()
}

func runRm(ctx context.Context, c *client.Client, out io.Writer, arg string, o rmOptions) error {
	id, err := resolve(ctx, c, arg)
	if err == nil {
		var known bool
		if known, err = c.Exists(ctx, id); err == nil && !known {
			err = status.Errorf(status.ObjectNotExists, "no object %s", id)
		}
	}
	if err != nil {
		if o.IgnoreNotFound && isNotFound(err) {
			return nil
		}
		return err
	}
	var with []*client.Meta
	if o.Force {
		if with, err = referrers(ctx, c, id); err != nil {
			return err
		}
	}
	if o.DryRun {
		var b strings.Builder
		fmt.Fprintf(&b, "would delete %s\n", id)
		for _, m := range with {
			fmt.Fprintf(&b, "would delete %s %s, which refers to it\n", m.ID, output.OneLine(m.Typename))
		}
		_, err := io.WriteString(out, b.String())
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
			WithHint("`v6d describe " + id.String() + "` shows which; --force deletes both")
	}
	return dropNames(ctx, c, func(target client.ID) bool {
		return target == id || slices.ContainsFunc(with, func(m *client.Meta) bool { return m.ID == target })
	})
}

// referrers returns what refers to an object, and what refers to that: --force deletes
// it, too. A daemon without extensions does not tell.
func referrers(ctx context.Context, c *client.Client, id client.ID) (list []*client.Meta, err error) {
	if !c.Info().Extended {
		return nil, nil
	}
	seen := map[client.ID]bool{id: true}
	for next := []client.ID{id}; len(next) > 0; {
		var more []client.ID
		for _, id := range next {
			m, err := c.GetObject(ctx, id)
			if err != nil {
				return nil, err
			}
			desc, err := describe(ctx, c, m)
			if err != nil {
				return nil, err
			}
			for _, owner := range desc.Owners {
				if !seen[owner] {
					seen[owner] = true
					more = append(more, owner)
				}
			}
		}
		owners, err := c.GetObjects(ctx, more, client.GetOptions{})
		if err != nil {
			return nil, err
		}
		list, next = append(list, owners...), more
	}
	return list, nil
}

// dropNames forgets the names of deleted objects.
func dropNames(ctx context.Context, c *client.Client, deleted func(client.ID) bool) error {
	names, err := c.ListNames(ctx, "*", 1<<40)
	if err != nil {
		return err
	}
	var errs []error
	for name, target := range names {
		if deleted(target) {
			errs = append(errs, c.DropName(ctx, name))
		}
	}
	return errors.Join(errs...)
}

// removeAll empties the session after asking.
func removeAll(ctx context.Context, c *client.Client, s output.Streams, o rmOptions) error {
	st, err := c.InstanceStatus(ctx)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("all objects and blobs at %s, %s", c.Info().Socket, config.FormatSize(st.MemoryUsage))
	if o.DryRun {
		_, err := fmt.Fprintln(s.Out, "would delete "+what)
		return err
	}
	if !o.Yes {
		if !output.IsTerminal(s.In) || os.Getenv("V6D_NO_INPUT") != "" || os.Getenv("CI") != "" {
			return usage("--all would delete %s", what).WithHint("add --yes to do it")
		}
		fmt.Fprintf(s.Err, "Delete %s? Type yes: ", what)
		line, err := bufio.NewReader(s.In).ReadString('\n')
		if err != nil || strings.TrimSpace(line) != "yes" {
			return usage("nothing was deleted")
		}
	}
	if err := c.Clear(ctx); err != nil {
		return err
	}
	return dropNames(ctx, c, func(client.ID) bool { return true })
}
