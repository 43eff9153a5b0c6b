package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/tui"
)

func newTUI(d *deps) *cobra.Command {
	var o tui.Options
	var f tuiFlags
	c := &cobra.Command{
		Use:     "tui",
		Aliases: []string{"ui"},
		Short:   "Browse the daemon and its cluster in the terminal",
		GroupID: "daemon",
		Long: `Browse instances, objects, names, streams, clients, types, memory and events, live:
members down to the blobs, values as tables, statistics and bytes, who holds what. What
it does to objects it asks about first, with the command of v6d that does the same.

? shows the keys of the page that is looked at, : goes to a view, an id or a name, / filters,
q quits. Without a daemon it waits for one. "v6d" alone on a terminal does the same.

Theme, first view, columns and keys are read from $XDG_CONFIG_HOME/v6d/tui.yaml, of which
--print-default prints one that changes nothing; flags go before it. --plain-ui prints what
there is and then what happens, line by line, as "v6d watch" does: for screen readers and
for terminals that can do no more.`,
		Example: `  v6d tui
  v6d tui -H 10.0.0.7:9600 --readonly --view memory`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case f.printDefault:
				return writeDefaultTUI(d.streams.Out)
			case f.plain:
				return runWatch(c.Context(), d, eventsOptions{})
			}
			return d.browse(c.Context(), o, c.Flags().Changed)
		},
	}
	flags := c.Flags()
	flags.BoolVar(&o.ReadOnly, "readonly", false, "turn everything off that changes something")
	flags.StringVar(&o.Theme, "theme", "", strings.Join(tui.Themes(), ", ")+" (default: what the terminal says)")
	flags.StringVar(&o.View, "view", "", "first view: "+strings.Join(tui.Views(), ", ")+" (default: objects)")
	flags.BoolVar(&o.NoMouse, "no-mouse", false, "leave the mouse to the terminal")
	flags.BoolVar(&f.printDefault, "print-default", false, "print the settings file that changes nothing, and end")
	flags.BoolVar(&f.plain, "plain-ui", false, "print lines instead: what there is, then what happens")
	return c
}

// tuiFlags are those that the browser does not see.
type tuiFlags struct{ printDefault, plain bool }

// browse runs the browser on the terminal.
func (d *deps) browse(ctx context.Context, o tui.Options, given func(flag string) bool) error {
	switch {
	case o.Theme != "" && !slices.Contains(tui.Themes(), o.Theme):
		return usage("--theme %q: want %s", o.Theme, strings.Join(tui.Themes(), ", "))
	case o.View != "" && !slices.Contains(tui.Views(), o.View):
		return usage("--view %q: want %s", o.View, strings.Join(tui.Views(), ", "))
	case !output.IsTerminal(d.streams.Out) || !output.IsTerminal(d.streams.In):
		return usage("the browser needs a terminal").WithHint("in a pipe: `v6d ls`, `v6d tree ID`, `v6d top --once`")
	}
	settings, wrong := loadTUI()
	if !given("readonly") {
		o.ReadOnly = settings.ReadOnly
	}
	if !given("no-mouse") {
		o.NoMouse = !settings.Mouse
	}
	if o.Theme == "" && (d.global.Out.Color == "never" || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb") {
		o.Theme = "plain"
	}
	o.Theme, o.View = cmp.Or(o.Theme, settings.Theme), cmp.Or(o.View, settings.View)
	o.Columns, o.Keys = settings.Columns, settings.Keys
	for _, w := range o.Check() {
		wrong = append(wrong, "tui.yaml: "+w)
	}
	o.Notes = wrong
	if _, err := d.connection(); err != nil { // a wrong context is said before the screen is taken
		return err
	}
	src := newLiveSource(d)
	err := tui.Run(ctx, src, o)
	for _, w := range wrong { // the screen it was on is gone
		fmt.Fprintln(d.streams.Err, "v6d: "+w)
	}
	return errors.Join(err, src.Close())
}
