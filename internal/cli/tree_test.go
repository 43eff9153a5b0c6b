package cli

import (
	"bytes"
	"context"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
)

func walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		walk(sub, visit)
	}
}

// TestCommandTree is the lint over all commands: each has a text, examples that
// use it, documented flags, and no flag means two things.
func TestCommandTree(t *testing.T) {
	root := Root(output.Streams{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}})
	usage := map[string]map[string][]string{} // flag -> meaning -> commands
	short := map[string]map[string]bool{}     // shorthand -> flags
	walk(root, func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" {
			return
		}
		path := c.CommandPath()
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the short text %q must not be empty or end with a full stop", path, c.Short)
		}
		if c.Long == "" && c.HasSubCommands() {
			t.Errorf("%s: no long text", path)
		}
		if n := strings.Count(c.Example, "v6d "); n < 2 {
			t.Errorf("%s: %d examples, want two", path, n)
		}
		if c.Parent() == root && c.GroupID == "" {
			t.Errorf("%s: belongs to no group of the help", path)
		}
		if c != root && c.RunE == nil {
			t.Errorf("%s: runs nothing", path)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: undocumented, or ends with a full stop: %q", path, f.Name, f.Usage)
			}
			if usage[f.Name] == nil {
				usage[f.Name] = map[string][]string{}
			}
			meaning := f.Value.Type()
			usage[f.Name][meaning] = append(usage[f.Name][meaning], path)
			if f.Shorthand == "n" && f.Name == "rows" {
				return // as head and tail have it everywhere; these commands change nothing
			}
			if f.Shorthand != "" {
				if short[f.Shorthand] == nil {
					short[f.Shorthand] = map[string]bool{}
				}
				short[f.Shorthand][f.Name] = true
			}
		})
	})
	for name, meanings := range usage {
		if len(meanings) > 1 {
			t.Errorf("flag --%s has %d types: %v", name, len(meanings), meanings)
		}
	}
	for letter, names := range short {
		if len(names) > 1 {
			t.Errorf("flag -%s means %v", letter, names)
		}
	}
}

// TestArguments throws arguments at every command: whatever they are, the
// command ends with a documented exit code and no stack trace.
func TestArguments(t *testing.T) {
	documented := map[int]bool{
		status.ExitOK: true, status.ExitFailure: true, status.ExitUsage: true, status.ExitNotFound: true, status.ExitDenied: true,
		status.ExitUnavailable: true, status.ExitNoSpace: true, status.ExitConflict: true, status.ExitPartial: true,
		status.ExitIncompatible: true, status.ExitIntegrity: true, status.ExitTimeout: true,
	}
	t.Setenv("V6D_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Chdir(t.TempDir())
	var flags, commands []string
	walk(Root(output.Streams{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}), func(c *cobra.Command) {
		commands = append(commands, strings.TrimSpace(strings.TrimPrefix(c.CommandPath(), "v6d")))
		c.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
		c.InheritedFlags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
	})
	words := []string{"", "-", "--", "o", "o0000000000000000", "offffffffffffffff", "\x00", "ü", "a=b", "=", "1GiB", "-1", "1h", "*", "[", "json", "template={{", "999999999999999999999", strings.Repeat("x", 5000), "--help", "-o", "-q"}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		args := strings.Fields(commands[rng.IntN(len(commands))])
		if len(args) > 0 && args[0] == "serve" {
			args = append(args, "--validate") // it would run for ever
		}
		if len(args) > 0 && args[0] == "vineyardd" {
			args = append(args, "--version") // so would that
		}
		for range rng.IntN(5) {
			if rng.IntN(2) == 0 {
				args = append(args, flags[rng.IntN(len(flags))])
			}
			args = append(args, words[rng.IntN(len(words))])
		}
		var out, errs bytes.Buffer
		exit := Main(context.Background(), args, output.Streams{In: strings.NewReader("input"), Out: &out, Err: &errs})
		if !documented[exit] {
			t.Fatalf("%d: %q: exit code %d is not documented", i, args, exit)
		}
		if exit != 0 && exit != 1 && errs.Len() == 0 {
			t.Fatalf("%d: %q: exit code %d without a word", i, args, exit)
		}
		if s := errs.String() + out.String(); strings.Contains(s, "goroutine ") || strings.Contains(s, "panic:") {
			t.Fatalf("%d: %q: %s", i, args, s)
		}
	}
}
