package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
)

type globalCreateOptions struct {
	Type      string
	Fields    []string
	Labels    []string
	Name      string
	Transient bool
}

func newGlobal(d *deps) *cobra.Command {
	c := &cobra.Command{
		Use:     "global",
		Short:   "Objects whose members are on several instances",
		GroupID: "objects",
		Long: `A global object joins objects of several instances: their data stay where they are.
Each instance sees all members; the data of its own it can map, the others show where
they are.`,
		Example: `  v6d global create --type vineyard::GlobalTensor ID ID
  v6d global create --type demo::Pair first_=ID second_=ID --name pair`,
	}
	var o globalCreateOptions
	create := &cobra.Command{
		Use:   "create --type TYPE [KEY=]ID|NAME...",
		Short: "Make a global object of members",
		Long: `Make a global object and print its id. Members with a KEY are put under it; the
others are numbered as the published client has it (partitions_-0, partitions_-1, …,
partitions_-size). Members that are still transient on this instance become
persistent with the object; those of other instances must be persistent.`,
		Example: `  v6d global create --type demo::Pair first_=o0051dd9f7a2c0002 second_=model --name pair
  v6d global create --type vineyard::GlobalTensor --field shape_='"[8]"' --field partition_shape_='"[2]"' $A $B`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return createGlobal(c.Context(), d, o, args) },
	}
	f := create.Flags()
	f.StringVar(&o.Type, "type", "", "typename of the object")
	f.StringArrayVar(&o.Fields, "field", nil, "a plain field, KEY=JSON; may be repeated")
	f.StringArrayVarP(&o.Labels, "label", "l", nil, "a label, KEY=VALUE; may be repeated")
	f.StringVar(&o.Name, "name", "", "point this name at the object")
	f.BoolVar(&o.Transient, "transient", false, "do not persist it: only this instance sees it")
	_ = create.MarkFlagRequired("type")
	c.AddCommand(create)
	return c
}

func createGlobal(ctx context.Context, d *deps, o globalCreateOptions, args []string) error {
	p, err := d.printer()
	if err != nil {
		return err
	}
	if o.Transient && o.Name != "" {
		return usage("a transient object cannot have a --name")
	}
	labels, err := parseLabels(o.Labels)
	if err != nil {
		return err
	}
	m := client.NewMeta(o.Type)
	m.Global = true
	for _, field := range o.Fields {
		k, v, ok := strings.Cut(field, "=")
		if !ok || k == "" || !json.Valid([]byte(v)) {
			return usage("--field %q: want KEY=JSON, such as size_=3 or shape_='\"[8]\"'", field)
		}
		m.Set(k, json.RawMessage(v))
	}
	return d.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		numbered := 0
		for _, arg := range args {
			key, member, ok := strings.Cut(arg, "=")
			if !ok {
				key, member = fmt.Sprintf("partitions_-%d", numbered), arg
				numbered++
			}
			id, err := d.find(ctx, c, member)
			if err != nil {
				return err
			}
			m.AddObject(key, id)
		}
		if numbered > 0 {
			m.Set("partitions_-size", numbered)
		}
		id, err := c.CreateObject(ctx, m)
		if err != nil {
			return err
		}
		if err := finishGlobal(ctx, c, id, o, labels); err != nil {
			// All or nothing: an object of which nobody was told the id is litter.
			_ = c.Delete(context.WithoutCancel(ctx), []client.ID{id}, client.DeleteOptions{})
			return err
		}
		return p.Item(id.String(), map[string]any{"id": id}, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, id)
			return err
		})
	})
}

func finishGlobal(ctx context.Context, c *client.Client, id client.ID, o globalCreateOptions, labels map[string]string) error {
	if len(labels) > 0 {
		if err := c.Label(ctx, id, labels); err != nil {
			return err
		}
	}
	if o.Transient {
		return nil
	}
	if err := c.Persist(ctx, id); err != nil {
		return err
	}
	if o.Name == "" {
		return nil
	}
	return c.PutName(ctx, id, o.Name)
}
