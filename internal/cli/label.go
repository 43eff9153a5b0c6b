package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
)

func newLabel(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "label ID|NAME [KEY=VALUE...]",
		Short:   "Set an object's labels, or show them",
		GroupID: "objects",
		Long:    `Merge labels into those of an object; without KEY=VALUE show what it has.`,
		Example: `  v6d label model stage=prod owner=ann
  v6d label model`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			labels, err := parseLabels(args[1:])
			if err != nil {
				return err
			}
			return d.withObject(c.Context(), args[0], func(ctx context.Context, c *client.Client, m *client.Meta) error {
				if len(labels) > 0 {
					return d.retried(ctx, func() error { return c.Label(ctx, m.ID, labels) })
				}
				return p.Item(m.ID.String(), nonNilMap(m.Labels), func(w io.Writer) error {
					for _, kv := range strings.Split(labelText(m.Labels), ",") {
						if kv == "" {
							continue
						}
						if _, err := io.WriteString(w, kv+"\n"); err != nil {
							return err
						}
					}
					return nil
				})
			})
		},
	}
}

// parseLabels reads KEY=VALUE arguments.
func parseLabels(args []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return nil, usage("%q: want KEY=VALUE", a)
		}
		labels[k] = v
	}
	return labels, nil
}

func newExists(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "exists ID|NAME",
		Short:   "Tell whether an object exists: exit code 0 or 1",
		GroupID: "objects",
		Long:    `Print yes or no, and end with exit code 0 if the object or blob exists, 1 if not.`,
		Example: `  v6d exists model && v6d get model > model.bin
  until v6d exists model -q; do sleep 1; done`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				known, err := existsArg(ctx, c, args[0])
				if err != nil {
					return err
				}
				answer := map[bool]string{true: "yes", false: "no"}[known]
				if !d.global.Out.Quiet {
					if err := p.Item(answer, map[string]bool{"exists": known}, func(w io.Writer) error {
						_, err := io.WriteString(w, answer+"\n")
						return err
					}); err != nil {
						return err
					}
				}
				if !known {
					return errSilent
				}
				return nil
			})
		},
	}
}

// existsArg tells whether an argument means something that exists.
func existsArg(ctx context.Context, c *client.Client, arg string) (bool, error) {
	id, err := resolve(ctx, c, arg)
	if isNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return c.Exists(ctx, id)
}

// kv is one line of a small table of two columns.
func kv(pairs ...string) []output.Cell {
	cells := make([]output.Cell, len(pairs))
	for i, p := range pairs {
		cells[i] = output.Text(p)
	}
	return cells
}
