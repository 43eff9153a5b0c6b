package cli

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/tui"
)

func newTUI(d *deps) *cobra.Command {
	var o tui.Options
	c := &cobra.Command{
		Use:     "tui",
		Aliases: []string{"ui"},
		Short:   "Browse the daemon and its cluster in the terminal",
		GroupID: "daemon",
		Long: `Browse instances, objects, names, streams, clients, types, memory and events, live:
members down to the blobs, values as tables, statistics and bytes, who holds what. What
it does to objects it asks about first, with the command of v6d that does the same.

? shows the keys of the page that is looked at, : goes to a view, an id or a name, / filters,
q quits. Without a daemon it waits for one. "v6d" alone on a terminal does the same.`,
		Example: `  v6d tui
  v6d tui -H 10.0.0.7:9600 --readonly --view memory`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return d.browse(c.Context(), o) },
	}
	f := c.Flags()
	f.BoolVar(&o.ReadOnly, "readonly", false, "turn everything off that changes something")
	f.StringVar(&o.Theme, "theme", "", strings.Join(tui.Themes(), ", ")+" (default: what the terminal says)")
	f.StringVar(&o.View, "view", "objects", "first view: "+strings.Join(tui.Views(), ", "))
	f.BoolVar(&o.NoMouse, "no-mouse", false, "leave the mouse to the terminal")
	return c
}

// browse runs the browser on the terminal.
func (d *deps) browse(ctx context.Context, o tui.Options) error {
	switch {
	case o.Theme != "" && !slices.Contains(tui.Themes(), o.Theme):
		return usage("--theme %q: want %s", o.Theme, strings.Join(tui.Themes(), ", "))
	case o.View != "" && !slices.Contains(tui.Views(), o.View):
		return usage("--view %q: want %s", o.View, strings.Join(tui.Views(), ", "))
	case !output.IsTerminal(d.streams.Out) || !output.IsTerminal(d.streams.In):
		return usage("the browser needs a terminal").WithHint("in a pipe: `v6d ls`, `v6d tree ID`, `v6d top --once`")
	}
	if _, err := d.connection(); err != nil { // a wrong context is said before the screen is taken
		return err
	}
	if o.Theme == "" && (d.global.Out.Color == "never" || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb") {
		o.Theme = "plain"
	}
	src := newLiveSource(d)
	err := tui.Run(ctx, src, o)
	return errors.Join(err, src.Close())
}
