package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
)

type eventsOptions struct {
	Type  string
	Since time.Duration
}

func newEvents(d *deps) *cobra.Command {
	var o eventsOptions
	c := &cobra.Command{
		Use:     "events",
		Short:   "Follow what happens to objects",
		GroupID: "objects",
		Long: `Print an event for each object that is created, persisted, labelled, named or
deleted, until interrupted. With -o json or ndjson each event is a line.`,
		Example: `  v6d events
  v6d events --since 10m --type 'vineyard::DataFrame*' -o ndjson`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runEvents(c.Context(), d, o) },
	}
	addEventFlags(c, &o)
	return c
}

func addEventFlags(c *cobra.Command, o *eventsOptions) {
	c.Flags().StringVar(&o.Type, "type", "", "only objects whose typename matches this glob")
	c.Flags().DurationVar(&o.Since, "since", 0, "start with remembered events of this last time")
}

// newWatch lists what is there, then follows.
func newWatch(d *deps) *cobra.Command {
	var o eventsOptions
	c := &cobra.Command{
		Use:     "watch",
		Short:   "List objects, then follow what happens to them",
		GroupID: "objects",
		Long:    `Print what "v6d ls" prints, then an event for each change, until interrupted.`,
		Example: `  v6d watch
  v6d watch --type 'vineyard::Tensor*'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runWatch(c.Context(), d, o) },
	}
	addEventFlags(c, &o)
	return c
}

func runWatch(ctx context.Context, d *deps, o eventsOptions) error {
	p, err := d.printer()
	if err != nil {
		return err
	}
	err = d.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		l, _, err := listObjects(ctx, c, lsOptions{Type: o.Type})
		if err != nil {
			return err
		}
		return p.List(l)
	})
	if err != nil {
		return err
	}
	return runEvents(ctx, d, o)
}

func runEvents(ctx context.Context, d *deps, o eventsOptions) error {
	p, err := d.printer()
	if err != nil {
		return err
	}
	err = d.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		var since time.Time
		if o.Since > 0 {
			since = time.Now().Add(-o.Since)
		}
		for e, err := range c.WatchSince(ctx, o.Type, since) {
			if errors.Is(err, client.ErrEventsLost) {
				fmt.Fprintln(d.streams.Err, "v6d: some events were lost: they came faster than they were read")
				continue
			}
			if err != nil {
				return err
			}
			if err := p.Event(e.ID.String(), e, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", time.UnixMilli(e.TimeMS).Format("15:04:05.000"), e.Kind, e.ID, output.OneLine(e.Type), output.OneLine(e.Name))
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
