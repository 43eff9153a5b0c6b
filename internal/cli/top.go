package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/server"
)

type topOptions struct {
	Once  bool
	Every time.Duration
	Lines int
}

func newTop(d *deps) *cobra.Command {
	var o topOptions
	c := &cobra.Command{
		Use:     "top",
		Short:   "Watch the pool, the busiest clients and the largest groups",
		GroupID: "daemon",
		Long: `Show how full the pool is, requests per second, who is connected and what takes
most memory, again and again on a terminal, until interrupted: when objects change, and
after each interval. In a pipe, and with --once, it shows it once.`,
		Example: `  v6d top
  v6d top --once`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				return runTop(ctx, c, d, p, o)
			})
		},
	}
	c.Flags().BoolVar(&o.Once, "once", false, "show it once")
	c.Flags().DurationVar(&o.Every, "interval", 2*time.Second, "time between two pictures while no object changes")
	c.Flags().IntVar(&o.Lines, "lines", 10, "show at most so many clients and groups")
	return c
}

// topPicture is what top shows.
type topPicture struct {
	Status *server.Status `json:"status"`
	Groups []share        `json:"groups"`
	Rate   float64        `json:"requests_per_second"` // since the picture before
	live   bool           // another one follows
}

func runTop(ctx context.Context, c *client.Client, d *deps, p *output.Printer, o topOptions) error {
	live := output.IsTerminal(d.streams.Out) && !o.Once
	if o.Every < 100*time.Millisecond {
		o.Every = 100 * time.Millisecond
	}
	var changes <-chan struct{}
	if live {
		if follower, err := c.DialAgain(ctx); err == nil { // else after each interval only
			changes = follow(ctx, follower)
		}
	}
	var before uint64
	var at time.Time
	for {
		start := time.Now()
		st, err := nodeStatus(ctx, c)
		if err != nil {
			return err
		}
		groups, err := runDu(ctx, c, duOptions{By: "type"})
		if err != nil {
			return err
		}
		pic := topPicture{Status: st, Groups: groups.Items.([]share)}
		if !at.IsZero() {
			pic.Rate = float64(st.Requests-before) / time.Since(at).Seconds()
		}
		before, at = st.Requests, time.Now()
		if live {
			fmt.Fprint(d.streams.Out, "\x1b[H\x1b[2J")
			pic.live = true
		}
		if err := p.Item(c.Info().Socket, pic, func(w io.Writer) error { return pic.write(w, o.Lines) }); err != nil {
			return err
		}
		if !live {
			return nil
		}
		// What a picture costs the daemon, others shall not feel.
		if err := pause(ctx, max(soonest, 4*time.Since(start)), o.Every, changes); err != nil {
			return err
		}
	}
}

// soonest is the least time between two pictures.
const soonest = 250 * time.Millisecond

// pause waits for a change, but at least so long, or for a time.
func pause(ctx context.Context, least, most time.Duration, changes <-chan struct{}) error {
	end := time.After(most)
	select {
	case <-time.After(least):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-end:
	case <-changes:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// follow tells when objects change, as long as the daemon does. It takes the client
// over.
func follow(ctx context.Context, c *client.Client) <-chan struct{} {
	changes := make(chan struct{}, 1)
	go func() {
		defer func() { _ = c.Close() }()
		for _, err := range c.Watch(ctx, "") {
			if err != nil && !errors.Is(err, client.ErrEventsLost) {
				return // the other connection says what is wrong
			}
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	return changes
}

func (t *topPicture) write(w io.Writer, lines int) error {
	l := t.Status.Ledger
	const width = 30
	filled := 0
	if l.Limit > 0 {
		filled = int(l.Usage * width / l.Limit)
	}
	filled = min(max(filled, 0), width)
	var b strings.Builder
	fmt.Fprintf(&b, "pool  [%s%s] %s of %s in %d blobs, %d objects\n", strings.Repeat("#", filled), strings.Repeat(".", width-filled),
		config.FormatSize(l.Usage), config.FormatSize(l.Limit), l.Blobs, t.Status.Objects)
	fmt.Fprintf(&b, "held  %s deleted but held, %s unsealed, %s real memory\n", config.FormatSize(l.Deferred), config.FormatSize(l.Unsealed), config.FormatSize(l.Reserved))
	fmt.Fprintf(&b, "load  %.0f requests/s, %d connections, %d sessions\n", t.Rate, len(t.Status.Connections), len(t.Status.Sessions))
	for _, t := range t.Status.Transfers {
		fmt.Fprintf(&b, "moves %s of %s from %s by %s, object %s (%s)\n", config.FormatSize(t.Bytes), config.FormatSize(t.Total),
			location(uint64(t.Instance)), cmp.Or(string(t.Way), "connecting"), t.Object, t.Kind)
	}
	b.WriteString("\nSIZE      BLOBS  TYPE\n")
	for i, g := range t.Groups {
		if i < lines || g.Key == "total" {
			fmt.Fprintf(&b, "%-8s  %5d  %s\n", config.FormatSize(g.Bytes), g.Blobs, g.Key)
		}
	}
	b.WriteString("\nREQUESTS  CLIENT\n")
	for i, c := range t.Status.Connections {
		if i >= lines {
			fmt.Fprintf(&b, "… %d more\n", len(t.Status.Connections)-i)
			break
		}
		who := c.Remote
		if who == "" {
			who = processName(c.PID, c.UID)
		}
		fmt.Fprintf(&b, "%8d  %s\n", c.Requests, who)
	}
	if t.live {
		b.WriteString("\nctrl-c ends it\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
