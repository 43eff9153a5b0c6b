package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
)

const (
	// completeBudget is how long a completion may ask the daemon.
	completeBudget = 300 * time.Millisecond
	// completeMost is how many ids a completion offers.
	completeMost = 200
)

// addCompletions makes the arguments of all commands complete: ids and names
// of the daemon's objects, typenames, and the words that flags know.
func (d *deps) addCompletions(root *cobra.Command) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		switch {
		case c.ValidArgsFunction != nil || len(c.ValidArgs) > 0:
		case strings.Contains(c.Use, "ID|NAME"), strings.Contains(c.Use, " ID"):
			c.ValidArgsFunction = d.completeObjects
		case c.Parent() != nil && c.Parent().Name() == "name" && strings.Contains(c.Use, "NAME"):
			c.ValidArgsFunction = d.completeNames
		case c.Parent() != nil && c.Parent().Name() == "context" && strings.Contains(c.Use, "NAME") && c.Name() != "add":
			c.ValidArgsFunction = completeContexts
		}
		for flag, words := range map[string][]string{
			"by":         {"type", "name", "owner", "state"},
			"for":        {"exists", "persistent", "deleted"},
			"sort-by":    {"id", "type", "size", "age", "name", "-size", "-age"},
			"huge":       {"auto", "always", "never"},
			"memory":     {"auto", "anonymous"},
			"log-level":  {"debug", "info", "warn", "error"},
			"log-format": {"text", "json"},
			"color":      {"auto", "always", "never"},
			"output":     output.Formats,
		} {
			if c.Flags().Lookup(flag) != nil || c.PersistentFlags().Lookup(flag) != nil {
				_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
			}
		}
		if c.Flags().Lookup("type") != nil {
			_ = c.RegisterFlagCompletionFunc("type", d.completeTypes) // the flag exists
		}
		if c.PersistentFlags().Lookup("context") != nil {
			_ = c.RegisterFlagCompletionFunc("context", completeContexts) // the flag exists
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

// ask runs fn with the daemon if it answers within the budget.
func (d *deps) ask(c *cobra.Command, fn func(context.Context, *client.Client) error) {
	ctx := c.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeBudget)
	defer cancel()
	_ = d.withClient(ctx, fn) // without an answer nothing is offered
}

func (d *deps) completeObjects(c *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	names, directive := d.completeNames(c, nil, prefix)
	d.ask(c, func(ctx context.Context, c *client.Client) error {
		if !c.Info().Extended {
			return nil
		}
		for r, err := range c.Rows(ctx, client.PageOptions{Size: 1000}) {
			if err != nil || len(names) >= completeMost {
				return err
			}
			if id := r.ID.String(); strings.HasPrefix(id, prefix) {
				names = append(names, id+"\t"+r.Type)
			}
		}
		return nil
	})
	return names, directive
}

func (d *deps) completeNames(c *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var found []string
	d.ask(c, func(ctx context.Context, c *client.Client) error {
		names, err := c.ListNames(ctx, globQuote(prefix)+"*", completeMost)
		for n, id := range names {
			found = append(found, n+"\t"+id.String())
		}
		return err
	})
	slices.Sort(found)
	return found, cobra.ShellCompDirectiveNoFileComp
}

// globQuote makes a text match itself in a glob.
func globQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

func (d *deps) completeTypes(c *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	seen := map[string]bool{}
	d.ask(c, func(ctx context.Context, c *client.Client) error {
		if !c.Info().Extended {
			return nil
		}
		for r, err := range c.Rows(ctx, client.PageOptions{Size: 10_000}) {
			if err != nil {
				return err
			}
			if strings.HasPrefix(r.Type, prefix) {
				seen[r.Type] = true
			}
		}
		return nil
	})
	var found []string
	for t := range seen {
		found = append(found, t)
	}
	slices.Sort(found)
	return found, cobra.ShellCompDirectiveNoFileComp
}

func completeContexts(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	list, err := loadContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var found []string
	for name, e := range list.Contexts {
		if strings.HasPrefix(name, prefix) {
			found = append(found, name+"\t"+e.Socket+e.Host)
		}
	}
	slices.Sort(found)
	return found, cobra.ShellCompDirectiveNoFileComp
}
