// Package cli is the command line: one file a command. A command parses flags
// into an options struct and calls a run function that takes a context, the
// options and the dependencies; what it found is printed by package output.
// Nothing here is global: flags, configuration and streams are handed down.
package cli

//go:generate go run ./gen ../..

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
)

// Version is what `v6d version` shows; the linker sets it for releases.
var Version = "0.1.0-dev"

// deps is what commands share.
type deps struct {
	streams output.Streams
	global  *globalOptions
}

// globalOptions are the flags that every command has.
type globalOptions struct {
	Socket   string
	Host     string
	Username string
	Context  string
	Timeout  time.Duration
	NoPager  bool
	Debug    bool
	Out      output.Options
}

// usage makes an error of the command line itself: exit code 2.
func usage(format string, args ...any) *status.Error {
	return &status.Error{Code: status.UserInputError, Msg: fmt.Sprintf(format, args...)}
}

// Main runs a command line and returns the exit code.
func Main(ctx context.Context, args []string, streams output.Streams) int {
	d := &deps{streams: streams, global: &globalOptions{}}
	root := newRoot(d)
	if len(args) == 0 && output.IsTerminal(streams.Out) && output.IsTerminal(streams.In) {
		args = []string{"tui"}
	}
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return status.ExitOK
	}
	exit := exitCode(ctx, err)
	if _, ok := errors.AsType[*childError](err); ok {
		return exit
	}
	if errors.Is(err, errSilent) || exit == status.ExitPipe {
		return exit
	}
	if exit == status.ExitTimeout && d.global.Timeout > 0 {
		err = (&status.Error{Code: status.Of(err), Msg: fmt.Sprintf("gave up after %v", d.global.Timeout), Err: err}).WithHint("give it more time with --timeout")
	}
	if errors.Is(err, client.NoMemory) && status.HintOf(err) == "" { // hints do not travel on the wire
		err = (&status.Error{Code: status.NotEnoughMemory, Err: err}).WithHint("delete objects (`v6d du` shows what takes the memory), or start the daemon with a larger --size")
	}
	output.Error(streams.Err, d.global.Out.Format, d.global.Out.Color, err, exit)
	return exit
}

// Root returns the command tree, for generators of documentation.
func Root(streams output.Streams) *cobra.Command {
	return newRoot(&deps{streams: streams, global: &globalOptions{}})
}

// errSilent ends a command with exit code 1 that has said all it had to say.
var errSilent = errors.New("no")

// ErrInterrupted and ErrTerminated are the causes with which main ends the
// context on a signal.
var (
	ErrInterrupted = errors.New("interrupted")
	ErrTerminated  = errors.New("terminated")
)

// exitCode is the one place where an error becomes an exit code.
func exitCode(ctx context.Context, err error) int {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, ErrInterrupted):
		return status.ExitInterrupted
	case errors.Is(cause, ErrTerminated):
		return status.ExitTerminated
	}
	if child, ok := errors.AsType[*childError](err); ok {
		return child.code
	}
	if p, ok := errors.AsType[*partialError](err); ok {
		return p.exit()
	}
	switch {
	case errors.Is(err, errSilent):
		return status.ExitFailure
	case errors.Is(err, syscall.EPIPE):
		return status.ExitPipe
	case errors.Is(err, context.DeadlineExceeded):
		return status.ExitTimeout
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return status.ExitNoSpace
	}
	if e, ok := errors.AsType[*status.Error](err); ok {
		return e.Code.Exit()
	}
	switch { // errors of files that the user named
	case errors.Is(err, os.ErrNotExist):
		return status.ExitNotFound
	case errors.Is(err, os.ErrPermission):
		return status.ExitDenied
	case errors.Is(err, os.ErrExist):
		return status.ExitConflict
	}
	return status.ExitFailure
}

// partialError collects what went wrong with some of several items.
type partialError struct {
	errs []error
	done int // items that went well
}

func (p *partialError) Error() string { return errors.Join(p.errs...).Error() }

// Unwrap gives the failures.
func (p *partialError) Unwrap() []error { return p.errs }

func (p *partialError) exit() int {
	if p.done > 0 {
		return status.ExitPartial
	}
	return exitCode(context.Background(), p.errs[0])
}

// each runs fn on every argument; the others go on when one fails.
func each(args []string, fn func(string) error) error {
	var p partialError
	for _, a := range args {
		if err := fn(a); err != nil {
			p.errs = append(p.errs, err)
			continue
		}
		p.done++
	}
	if len(p.errs) == 0 {
		return nil
	}
	if len(args) == 1 {
		return p.errs[0]
	}
	return &p
}

func newRoot(d *deps) *cobra.Command {
	root := &cobra.Command{
		Use:   "v6d",
		Short: "Share immutable in-memory data between processes, languages and machines",
		Long: `v6d is a store for immutable data in shared memory. One process puts an array,
a table or a file; others map it at once, without copying or serialising.

Start a daemon with "v6d serve", then put and get from shells and programs. It
speaks the Vineyard 0.24 protocol: existing clients work with it unmodified.
v6d never phones home.`,
		Example: `  v6d serve &
  id=$(v6d put data.bin) && v6d get $id > copy.bin`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	g := d.global
	f := root.PersistentFlags()
	f.StringVar(&g.Socket, "socket", "", "path of the daemon's socket (env V6D_SOCKET)")
	f.StringVarP(&g.Host, "host", "H", "", "host:port of a daemon to reach over TCP (env V6D_HOST)")
	f.StringVar(&g.Username, "username", "", "user for daemons with --htpasswd; the password is read from the file named by V6D_PASSWORD_FILE")
	f.StringVarP(&g.Out.Format, "output", "o", envOr("V6D_OUTPUT", "table"), "output format: "+strings.Join(output.Formats, ", "))
	f.StringVar(&g.Out.JQ, "jq", "", "apply a jq expression to the JSON output")
	f.BoolVarP(&g.Out.Quiet, "quiet", "q", false, "print ids only")
	f.BoolVar(&g.Out.NoHeaders, "no-headers", false, "print tables without a heading")
	f.BoolVar(&g.Out.NoTrunc, "no-trunc", false, "do not cut tables to the width of the terminal")
	f.BoolVarP(&g.Out.Bytes, "bytes", "b", false, "print exact bytes and times on a terminal, too")
	f.StringVar(&g.Out.Color, "color", "auto", "colours: auto, always or never")
	f.StringVarP(&g.Context, "context", "c", "", "context to use (env V6D_CONTEXT)")
	f.BoolVar(&g.Debug, "debug", os.Getenv("V6D_DEBUG") != "" && os.Getenv("V6D_DEBUG") != "0", "print each request to the daemon and its time on stderr (env V6D_DEBUG)")
	f.BoolVar(&g.NoPager, "no-pager", false, "never use a pager")
	f.DurationVar(&g.Timeout, "timeout", 0, "give up after this time, such as 10s (exit code 124)")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return (&status.Error{Code: status.UserInputError, Err: err}).WithHint("see `" + c.CommandPath() + " --help`")
	})
	root.AddGroup(
		&cobra.Group{ID: "daemon", Title: "Daemon:"},
		&cobra.Group{ID: "objects", Title: "Objects:"},
		&cobra.Group{ID: "more", Title: "More:"},
	)
	for _, c := range []*cobra.Command{
		newServe(d), newVineyardd(d), newStatus(d), newPing(d), newCluster(d), newDf(d), newDu(d), newTop(d), newTUI(d), newDoctor(d),
		newPut(d), newGet(d), newHead(d), newTail(d), newLocate(d), newMigrate(d), newLs(d), newMeta(d), newTree(d), newDescribe(d), newRm(d), newName(d), newStream(d), newLabel(d), newPersist(d), newGlobal(d),
		newExists(d), newWait(d), newWatch(d), newEvents(d), newLock(d),
		newContext(d), newConfig(d), newVersion(d), newMan(d), newCompletion(),
	} {
		root.AddCommand(c)
	}
	checkArgs(root)
	d.addCompletions(root)
	return root
}

// checkArgs makes wrong numbers of arguments and unknown commands usage errors.
func checkArgs(c *cobra.Command) {
	if args := c.Args; args != nil {
		c.Args = func(c *cobra.Command, list []string) error {
			if err := args(c, list); err != nil {
				return (&status.Error{Code: status.UserInputError, Err: err}).WithHint("see `" + c.CommandPath() + " --help`")
			}
			return nil
		}
	} else if c.HasSubCommands() {
		c.Args = func(c *cobra.Command, list []string) error {
			if len(list) == 0 {
				return nil
			}
			err := &status.Error{Code: status.UserInputError, Msg: fmt.Sprintf("unknown command %q for %q", list[0], c.CommandPath())}
			if s := c.SuggestionsFor(list[0]); len(s) > 0 {
				return err.WithHint(fmt.Sprintf("did you mean %q?", s[0]))
			}
			return err.WithHint("see `" + c.CommandPath() + " --help`")
		}
		if c.RunE == nil && c.Run == nil {
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	}
	for _, sub := range c.Commands() {
		checkArgs(sub)
	}
}

func envOr(key, fallback string) string {
	if v := os.Getenv(key); v != "" {
		return v
	}
	return fallback
}

// printer returns the printer that the global flags ask for.
func (d *deps) printer() (*output.Printer, error) {
	return output.NewPrinter(d.streams.Out, d.global.Out)
}

// within applies --timeout.
func (d *deps) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.global.Timeout > 0 {
		return context.WithTimeout(ctx, d.global.Timeout)
	}
	return context.WithCancel(ctx)
}

// dial connects as flags, variables or the context say.
func (d *deps) dial(ctx context.Context) (*client.Client, error) {
	o, err := d.connection()
	if err != nil {
		return nil, err
	}
	return client.Dial(ctx, o)
}

// dialPeer connects to another instance of the cluster, as the same user.
func (d *deps) dialPeer(ctx context.Context, endpoint string) (*client.Client, error) {
	o, err := d.connection()
	if err != nil {
		return nil, err
	}
	o.Socket, o.Endpoint = "", endpoint
	return client.Dial(ctx, o)
}

// connection is how flags, variables or the context say to connect.
func (d *deps) connection() (o client.Options, err error) {
	settings, err := d.settings()
	if err != nil {
		return o, err
	}
	for _, s := range settings {
		switch s.Name {
		case "socket":
			o.Socket = s.Value
		case "host":
			o.Endpoint = s.Value
		case "username":
			o.Username = s.Value
		case "password-file":
			if s.Value != "" {
				b, err := os.ReadFile(s.Value)
				if err != nil {
					return o, fmt.Errorf("password file: %w", err)
				}
				o.Password = trimNewline(string(b))
			}
		}
	}
	if d.global.Debug {
		n := 0
		o.Trace = func(request string, took time.Duration, err error) {
			n++
			result := "ok"
			if err != nil {
				result = err.Error()
			}
			fmt.Fprintf(d.streams.Err, "debug: %d %s %v %s\n", n, request, took.Round(time.Microsecond), result)
		}
	}
	return o, nil
}

func trimNewline(s string) string {
	for len(s) > 0 && (s[len(s)-1] == '\n' || s[len(s)-1] == '\r') {
		s = s[:len(s)-1]
	}
	return s
}

// withClient runs fn with a connection, under --timeout.
func (d *deps) withClient(ctx context.Context, fn func(context.Context, *client.Client) error) error {
	ctx, cancel := d.within(ctx)
	defer cancel()
	c, err := d.dial(ctx)
	if err != nil {
		return err
	}
	return errors.Join(fn(ctx, c), c.Close())
}
