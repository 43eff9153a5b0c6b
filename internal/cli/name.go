package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
)

func newName(d *deps) *cobra.Command {
	c := &cobra.Command{
		Use:     "name",
		Short:   "Give names to objects, and look them up",
		GroupID: "objects",
		Long:    `Names are how people and programs find objects: any string that points at one.`,
		Example: `  v6d name set o0051dd9f7a2c0002 model
  v6d name ls 'mod*'`,
	}
	c.AddCommand(newNameSet(d), newNameGet(d), newNameLs(d), newNameRm(d))
	return c
}

type nameSetOptions struct {
	Replace bool
}

func newNameSet(d *deps) *cobra.Command {
	var o nameSetOptions
	c := &cobra.Command{
		Use:   "set ID NAME",
		Short: "Point a name at an object, which becomes persistent",
		Example: `  v6d name set o0051dd9f7a2c0002 model
  v6d name set o0051dd9f7a2c0002 model --replace`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				id, err := resolve(ctx, c, args[0])
				if err != nil {
					return err
				}
				if !o.Replace {
					old, err := c.GetName(ctx, args[1], false)
					if err == nil && old != id {
						return status.Errorf(status.ObjectExists, "name %q points at %s already", args[1], old).WithHint("use --replace to point it elsewhere")
					}
				}
				return d.retried(ctx, func() error {
					if err := c.Persist(ctx, id); err != nil {
						return err
					}
					return c.PutName(ctx, id, args[1])
				})
			})
		},
	}
	c.Flags().BoolVar(&o.Replace, "replace", false, "point the name elsewhere if it exists")
	return c
}

type nameGetOptions struct {
	Wait bool
}

func newNameGet(d *deps) *cobra.Command {
	var o nameGetOptions
	c := &cobra.Command{
		Use:   "get NAME",
		Short: "Print the id that a name points at",
		Example: `  v6d name get model
  v6d name get model --wait --timeout 1m`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				id, err := c.GetName(ctx, args[0], o.Wait)
				if err != nil {
					return err
				}
				return p.Item(id.String(), nameRow{Name: args[0], ID: id}, func(w io.Writer) error {
					_, err := fmt.Fprintln(w, id)
					return err
				})
			})
		},
	}
	c.Flags().BoolVar(&o.Wait, "wait", false, "wait until the name exists")
	return c
}

// nameRow is one name as it is printed in JSON.
type nameRow struct {
	Name string    `json:"name"`
	ID   client.ID `json:"id"`
	// Dangling tells that the object is gone: names outlive it, as in 0.24.
	Dangling bool `json:"dangling"`
}

func newNameLs(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "ls [GLOB]",
		Aliases: []string{"list"},
		Short:   "List names",
		Example: `  v6d name ls
  v6d name ls 'model-*' -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			glob := "*"
			if len(args) == 1 {
				glob = args[0]
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				l, err := listNames(ctx, c, glob)
				if err != nil {
					return err
				}
				return p.List(l)
			})
		},
	}
}

func listNames(ctx context.Context, c *client.Client, glob string) (output.List, error) {
	names, err := c.ListNames(ctx, glob, 1<<40)
	if err != nil {
		return output.List{}, err
	}
	rows := []nameRow{}
	for name, id := range names {
		known, err := c.Exists(ctx, id)
		if err != nil {
			return output.List{}, err
		}
		rows = append(rows, nameRow{name, id, !known})
	}
	slices.SortFunc(rows, func(a, b nameRow) int { return strings.Compare(a.Name, b.Name) })
	l := output.List{Columns: output.Columns("NAME", "ID", "STATE"), Items: rows}
	for _, r := range rows {
		state := "ok"
		if r.Dangling {
			state = "dangling"
		}
		l.IDs = append(l.IDs, r.ID.String())
		l.Rows = append(l.Rows, []output.Cell{output.Text(r.Name), output.Text(r.ID.String()), output.Text(state)})
	}
	return l, nil
}

func newNameRm(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"delete"},
		Short:   "Forget names; the objects stay",
		Example: `  v6d name rm model
  v6d name rm old-a old-b`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				return each(args, func(name string) error {
					if _, err := c.GetName(ctx, name, false); err != nil {
						return err
					}
					return c.DropName(ctx, name)
				})
			})
		},
	}
}
