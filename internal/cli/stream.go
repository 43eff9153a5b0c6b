package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

func newStream(d *deps) *cobra.Command {
	c := &cobra.Command{
		Use:     "stream",
		Short:   "Pipe data between commands, processes and languages while it is being made",
		GroupID: "objects",
		Long: `A stream is a queue of chunks in shared memory, with a name. One command or program
writes it, others read it, in whatever order they start; readers see data as it
comes. When the pool is short of memory the writer waits for the readers. When the
writer fails, readers get what it wrote and then its error.

Each reader gets every byte. A reader with a name (--reader) goes on where it was
when it comes back. Streams that 0.24 clients made have one reader, and end with it.`,
		Example: `  seq 1000000 | v6d stream put numbers
  v6d stream cat numbers --wait | sort -rn | head`,
	}
	c.AddCommand(newStreamCreate(d), newStreamPut(d), newStreamTee(d), newStreamCat(d), newStreamCollect(d),
		newStreamLs(d), newStreamInfo(d), newStreamStop(d), newStreamAbort(d), newStreamRm(d))
	return c
}

// streamTypes are the types of streams by what --type calls them.
var streamTypes = map[string]string{
	"bytes": client.ByteStream, "recordbatch": client.RecordBatchStream, "dataframe": client.DataframeStream,
}

// makeOptions say how a stream is made.
type makeOptions struct {
	Type    string
	Retain  string
	Params  []string
	Plain   bool
	Replace bool
}

func (o *makeOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.Type, "type", "", "what chunks hold: bytes (the default), recordbatch or dataframe")
	f.StringVar(&o.Retain, "retain", "none", "what to keep when readers are done with it: none, all, a size or a time")
	f.StringArrayVar(&o.Params, "param", nil, "a parameter for readers, KEY=VALUE; may be repeated")
	f.BoolVar(&o.Plain, "plain", false, "make it as 0.24 clients do: one reader, and it ends with that reader")
	f.BoolVar(&o.Replace, "replace", false, "make a new stream if the name exists; an old stream of that name is removed")
}

// parse turns the flags into what the client wants.
func (o *makeOptions) parse() (out client.StreamOptions, err error) {
	if o.Type == "" {
		o.Type = "bytes"
	}
	typename, ok := streamTypes[o.Type]
	if !ok {
		return out, usage("--type %q: want bytes, recordbatch or dataframe", o.Type)
	}
	out = client.StreamOptions{Typename: typename, Plain: o.Plain}
	if out.Retain, err = parseRetain(o.Retain); err != nil {
		return out, err
	}
	if o.Plain && out.Retain != (client.Retain{}) {
		return out, usage("--plain streams retain nothing: leave --retain out")
	}
	out.Params, err = parseLabels(o.Params)
	return out, err
}

// parseRetain reads none, all, a size such as 1GiB or a time such as 10m.
func parseRetain(text string) (client.Retain, error) {
	switch text {
	case "none", "":
		return client.Retain{}, nil
	case "all":
		return client.Retain{All: true}, nil
	}
	if age, err := time.ParseDuration(text); err == nil && age >= time.Millisecond {
		return client.Retain{Age: age}, nil
	}
	if n, err := config.ParseSize(text); err == nil && n > 0 {
		return client.Retain{Bytes: n}, nil
	}
	return client.Retain{}, usage("--retain %q: want none, all, a size such as 1GiB, or a time such as 10m", text)
}

// make makes a stream with a name.
func (o *makeOptions) make(ctx context.Context, d *deps, c *client.Client, name string) (client.ID, error) {
	opts, err := o.parse()
	if err != nil {
		return 0, err
	}
	old, typename, err := d.named(ctx, c, name)
	switch {
	case err != nil:
		return 0, err
	case old != 0 && !o.Replace:
		return 0, status.Errorf(status.ObjectExists, "name %q points at %s already", name, old).WithHint("--replace makes a new stream")
	case old != 0 && !isStream(typename):
		return 0, status.Errorf(status.ObjectExists, "name %q is that of a %s, not of a stream", name, typename).WithHint("choose another name")
	}
	id, err := c.NewStream(ctx, opts)
	if err != nil {
		return 0, err
	}
	err = d.retried(ctx, func() error {
		if err := c.Persist(ctx, id); err != nil {
			return err
		}
		return c.PutName(ctx, id, name)
	})
	if err != nil {
		return 0, errors.Join(err, removeStream(context.WithoutCancel(ctx), c, id))
	}
	if old != 0 {
		if err := removeStream(ctx, c, old); err != nil {
			return id, fmt.Errorf("remove the stream that had the name: %w", err)
		}
	}
	return id, nil
}

// named returns the object of a name, and its type; 0 where there is none, or where
// it is gone and only the name was left.
func (d *deps) named(ctx context.Context, c *client.Client, name string) (client.ID, string, error) {
	id, err := c.GetName(ctx, name, false)
	if isNotFound(err) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	m, err := c.GetObject(ctx, id)
	if isNotFound(err) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	return id, m.Typename, nil
}

func isStream(typename string) bool { return strings.HasSuffix(typename, "Stream") }

// removeStream drops a stream and deletes its metadata and names.
func removeStream(ctx context.Context, c *client.Client, id client.ID) error {
	if err := c.DropStream(ctx, id); err != nil && !isNotFound(err) {
		return err
	}
	names, err := c.ListNames(ctx, "*", math.MaxInt64)
	if err != nil {
		return err
	}
	for name, of := range names {
		if of == id {
			if err := c.DropName(ctx, name); err != nil {
				return err
			}
		}
	}
	return c.Delete(ctx, []client.ID{id}, client.DeleteOptions{})
}

// renamed makes an error speak of a stream as the user does, not by its id.
func renamed(err error, id client.ID, arg string) error {
	e, ok := errors.AsType[*status.Error](err)
	if !ok || arg == id.String() || !strings.Contains(e.Error(), id.String()) {
		return err
	}
	return &status.Error{Code: e.Code, Msg: strings.ReplaceAll(err.Error(), id.String(), arg), Hint: e.Hint}
}

func newStreamCreate(d *deps) *cobra.Command {
	var o makeOptions
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a stream, for a writer that comes later, and print its id",
		Long: `Make a stream. "stream put" does it by itself; this is for writers in other languages,
which find the stream by its name.`,
		Example: `  v6d stream create events --retain 10m
  v6d stream create batches --type recordbatch`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			if _, err := o.parse(); err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				id, err := o.make(ctx, d, c, args[0])
				if err != nil {
					return err
				}
				return p.Item(id.String(), streamMade{id, args[0]}, func(w io.Writer) error {
					_, err := fmt.Fprintln(w, id)
					return err
				})
			})
		},
	}
	o.flags(c)
	return c
}

// streamMade is what create prints as JSON.
type streamMade struct {
	ID   client.ID `json:"id"`
	Name string    `json:"name"`
}

type streamPutOptions struct {
	makeOptions
	Chunk string
	Flush time.Duration

	given []string // of the flags that say how a stream is made
}

func (o *streamPutOptions) flags(c *cobra.Command) {
	o.makeOptions.flags(c)
	c.Flags().StringVar(&o.Chunk, "chunk", "1MiB", "how to cut the input: a size, lines, ndjson or arrow")
	c.Flags().DurationVar(&o.Flush, "flush", 100*time.Millisecond, "pass on what has come after this time, even if the chunk is not full; 0 waits until it is")
}

func newStreamPut(d *deps) *cobra.Command {
	var o streamPutOptions
	c := &cobra.Command{
		Use:   "put NAME [FILE|-] | put NAME -- COMMAND [ARG...]",
		Short: "Write the standard input, a file, or what a command prints to a stream",
		Long: `Write to the stream of that name, which is made if it does not exist. It ends when the
input ends. When this command is killed, its input cannot be read, or the command
after -- fails, the stream has failed, and its readers say so.

Chunks of --chunk lines and ndjson hold whole lines of at most about 1 MiB together,
so that a reader that comes back never gets half a line; ndjson checks that each is
JSON. With --chunk arrow the input is an Arrow IPC stream, and each record batch is a
chunk.`,
		Example: `  tail -f app.log | v6d stream put log --chunk lines --retain 1h
  v6d stream put rows -- ./export.sh --all
  v6d stream put batches table.arrow --chunk arrow`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() == 0 {
				return usage("the name of the stream comes before --")
			}
			command := c.ArgsLenAtDash() == 1
			if !command && len(args) > 2 {
				return usage("one file at most, %d are given", len(args)-1).WithHint("to run a command, put -- before it")
			}
			o.given = givenFlags(c)
			return runStreamPut(c.Context(), d, args, command, o, nil)
		},
	}
	o.flags(c)
	return c
}

// givenFlags lists the flags that say how a stream is made, of those that were
// given.
func givenFlags(c *cobra.Command) (list []string) {
	for _, name := range []string{"type", "retain", "param", "plain"} {
		if c.Flags().Changed(name) {
			list = append(list, "--"+name)
		}
	}
	return list
}

func newStreamTee(d *deps) *cobra.Command {
	var o streamPutOptions
	c := &cobra.Command{
		Use:   "tee NAME",
		Short: "Copy the standard input to a stream and to the standard output",
		Long:  `As "stream put", but what is read is also written to the standard output, at once.`,
		Example: `  make-rows | v6d stream tee rows | gzip > rows.gz
  v6d stream cat rows --wait | wc -l`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.given = givenFlags(c)
			signal.Ignore(syscall.SIGPIPE) // a closed output is an error to be told, not a death
			return runStreamPut(c.Context(), d, args, false, o, d.streams.Out)
		},
	}
	o.flags(c)
	return c
}

// runStreamPut writes the input to a stream; args are the name, and a file or a
// command.
func runStreamPut(ctx context.Context, d *deps, args []string, command bool, o streamPutOptions, tee io.Writer) error {
	cut, err := parseChunk(o.Chunk)
	if err != nil {
		return err
	}
	switch {
	case cut.arrow && o.Type == "":
		o.Type = "recordbatch"
	case cut.arrow != (o.Type == "recordbatch" || o.Type == "dataframe"):
		return usage("--type %s and --chunk %s do not go together", o.Type, o.Chunk).WithHint("record batches and data frames come with --chunk arrow, bytes without")
	}
	run := ""
	if command {
		if run, err = exec.LookPath(args[1]); err != nil {
			return usage("%s: %v", args[1], errors.Unwrap(err))
		}
	}
	if _, err := o.parse(); err != nil {
		return err
	}
	if o.Flush < 0 {
		return usage("--flush %v: want a time of 0 or more", o.Flush)
	}
	return d.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		st, err := c.InstanceStatus(ctx)
		if err == nil && int64(cut.size) > st.MemoryLimit/2 {
			err = status.Errorf(status.NotEnoughMemory, "--chunk %s is more than half of the pool, which has %s", o.Chunk, config.FormatSize(st.MemoryLimit))
		}
		if err != nil {
			return err
		}
		in, wait := io.NopCloser(d.streams.In), func() error { return nil }
		switch {
		case command:
		case len(args) == 2:
			in, _, _, err = openSource(d.streams, args[1])
		default:
			in, _, _, err = openSource(d.streams, "-")
		}
		if err != nil {
			return err
		}
		w, err := o.openWriter(ctx, d, c, args[0])
		if err == nil && command { // it begins its work only when there is somewhere to put it
			running, cancel := context.WithCancel(ctx)
			defer cancel()
			if in, wait, err = startCommand(running, d, run, args[1:]); err != nil {
				_ = w.Abort(ctx, err.Error())
			}
		}
		if err != nil {
			return err
		}
		defer in.Close()
		p := pump{w: w, cut: cut, flush: o.Flush, in: in, tee: tee}
		if !command && len(args) == 1 {
			p.in = d.streams.In // the file itself, which can be polled
		}
		err = p.run(ctx)
		if err == nil {
			err = wait()
		}
		if err == nil {
			return w.Close(ctx)
		}
		reason := err.Error()
		if cause := context.Cause(ctx); cause != nil {
			reason = cause.Error()
		}
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = w.Abort(late, reason) // a connection that broke says the same
		return err
	})
}

// openWriter opens the stream of a name for writing, or makes it.
func (o *streamPutOptions) openWriter(ctx context.Context, d *deps, c *client.Client, name string) (*client.StreamWriter, error) {
	id, _, err := d.named(ctx, c, name)
	switch {
	case err != nil:
	case id == 0 || o.Replace:
		id, err = o.make(ctx, d, c, name)
	case len(o.given) > 0:
		err = usage("the stream %q exists: %s cannot be changed", name, strings.Join(o.given, ", ")).WithHint("--replace makes a new one")
	}
	if err != nil {
		return nil, err
	}
	w, err := c.OpenWriter(ctx, id)
	err = renamed(err, id, name)
	switch {
	case errors.Is(err, client.StreamState):
		return nil, status.Errorf(status.ObjectExists, "the stream %q has ended already", name).WithHint("--replace makes a new one")
	case isNotFound(err):
		return nil, d.noStream(ctx, c, name, id, err)
	}
	return w, err
}

// noStream explains why an object is no stream here.
func (d *deps) noStream(ctx context.Context, c *client.Client, arg string, id client.ID, err error) error {
	m, metaErr := c.GetObject(ctx, id)
	switch {
	case metaErr != nil:
		return err
	case !isStream(m.Typename):
		return status.Errorf(status.ObjectNotExists, "%s is a %s, not a stream", arg, m.Typename)
	case m.InstanceID != c.Info().InstanceID:
		return status.Errorf(status.ObjectNotExists, "the stream %s is on %s, not here", arg, location(uint64(m.InstanceID))).
			WithHint("`v6d cluster ls` shows its address, for -H")
	}
	return status.Errorf(status.ObjectNotExists, "the stream %s has gone: its reader has left it, or the daemon was restarted", arg).
		WithHint("`v6d rm` removes what is left of it")
}

// startCommand runs a command whose output is the input of a stream.
func startCommand(ctx context.Context, d *deps, path string, args []string) (io.ReadCloser, func() error, error) {
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Stdin, cmd.Stderr = d.streams.In, d.streams.Err
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	return out, func() error {
		err := cmd.Wait()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return &producerError{args[0], exit}
		}
		return err
	}, nil
}

// producerError is the failure of the command that fed a stream: it is told to the
// readers, and its exit code is this command's.
type producerError struct {
	name string
	exit *exec.ExitError
}

func (e *producerError) Error() string { return fmt.Sprintf("%s: %v", e.name, e.exit) }

// Unwrap gives the exit code.
func (e *producerError) Unwrap() error { return childExit(e.exit) }

type streamCatOptions struct {
	Reader string
	Wait   bool
	Newest bool
	Remove bool
	Force  bool
}

func newStreamCat(d *deps) *cobra.Command {
	var o streamCatOptions
	c := &cobra.Command{
		Use:   "cat ID|NAME",
		Short: "Write a stream to the standard output, as it comes",
		Long: `Write the stream to the standard output until it ends. When its writer failed, what it
wrote is written, then the command fails with the writer's error.

Every reader gets the whole stream, from the oldest chunk that is there. With --reader
the daemon remembers how far that reader is: when it comes back it goes on there, and
at most one chunk comes twice. What a reader with a name has not read is kept for it
until "stream rm NAME --reader READER".

Record batches are written as one Arrow IPC stream.`,
		Example: `  v6d stream cat log --wait | grep ERROR
  v6d stream cat log --reader indexer | ./index.sh
  v6d stream cat batches | python3 -c 'import sys, pyarrow as pa; print(pa.ipc.open_stream(sys.stdin.buffer).read_all())'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				return runStreamCat(ctx, d, c, args[0], o)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.Reader, "reader", "", "read as the reader of this name, and go on where it was")
	f.BoolVar(&o.Wait, "wait", false, "wait until there is a stream of that name")
	f.BoolVar(&o.Newest, "newest", false, "begin with what is written from now on, unless the reader has begun already")
	f.BoolVar(&o.Remove, "rm", false, "remove the stream when it was read to its end")
	f.BoolVar(&o.Force, "force", false, "write binary data to a terminal")
	return c
}

// openReader finds a stream and opens it for reading.
func (d *deps) openReader(ctx context.Context, c *client.Client, arg string, wait bool, o client.ReaderOptions) (*client.StreamReader, *client.Meta, error) {
	if wait {
		if err := waitFor(ctx, c, arg, "exists"); err != nil {
			if ctx.Err() != nil {
				err = fmt.Errorf("wait for %s: %w", arg, context.Cause(ctx))
			}
			return nil, nil, err
		}
	}
	id, err := d.find(ctx, c, arg)
	if err != nil {
		return nil, nil, err
	}
	m, err := c.GetObject(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	r, err := c.OpenReader(ctx, id, o)
	if isNotFound(err) {
		err = d.noStream(ctx, c, arg, id, err)
	}
	return r, m, renamed(err, id, arg)
}

func runStreamCat(ctx context.Context, d *deps, c *client.Client, arg string, o streamCatOptions) error {
	ro := client.ReaderOptions{Name: o.Reader, Newest: o.Newest}
	if o.Reader != "" {
		ro.Ahead = 1
	}
	r, m, err := d.openReader(ctx, c, arg, o.Wait, ro)
	if err != nil {
		return err
	}
	out, err := newSink(c, m, d.streams.Out)
	if err != nil {
		return err
	}
	if n := r.Start(); n > 0 && o.Reader == "" && !o.Newest {
		fmt.Fprintf(d.streams.Err, "v6d: the first %d chunks of %s are gone: others have read them, and it does not retain them\n", n, arg)
	}
	guard := output.IsTerminal(d.streams.Out) && !o.Force
	if guard && out.binary() {
		return usage("record batches would be written to the terminal").WithHint("redirect them, or use --force")
	}
	for ch, err := range r.All(ctx) {
		if err != nil {
			return errors.Join(renamed(err, m.ID, arg), out.end())
		}
		if guard && !isText(ch.Bytes) {
			return usage("binary data would be written to the terminal").WithHint("redirect it, or use --force")
		}
		if err := out.add(ctx, ch); err != nil {
			return err
		}
	}
	if err := out.end(); err != nil {
		return err
	}
	if o.Remove {
		return removeStream(ctx, c, m.ID)
	}
	return nil
}

// isText reports whether bytes can be shown on a terminal.
func isText(b []byte) bool {
	b = b[:min(len(b), 4096)]
	for cut := 0; cut < utf8.UTFMax && len(b) > 0 && !utf8.Valid(b); cut++ {
		b = b[:len(b)-1] // a chunk may end within a character
	}
	return utf8.Valid(b) && !bytes.ContainsAny(b, "\x00\x1b")
}

func newStreamCollect(d *deps) *cobra.Command {
	var o putOptions
	var wait bool
	c := &cobra.Command{
		Use:   "collect ID|NAME",
		Short: "Turn a stream into an object: read it to its end, and store what it held",
		Long: `Read the stream to its end and store it as one object, as "v6d put" does: bytes as bytes,
record batches and data frames as a table. When the writer fails, nothing is stored.`,
		Example: `  v6d stream collect log --name log-2026-11-23
  v6d stream collect rows --wait --label source=export`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			if err := o.validate(args); err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				res, err := runCollect(ctx, d, c, args[0], wait, o)
				if err != nil {
					return err
				}
				return p.Item(res.ID.String(), res, func(w io.Writer) error {
					_, err := fmt.Fprintln(w, res.ID)
					return err
				})
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.Name, "name", "", "make the object persistent under this name")
	f.StringArrayVarP(&o.Labels, "label", "l", nil, "give the object a label, KEY=VALUE; may be repeated")
	f.BoolVar(&o.Replace, "replace", false, "point the name at the new object if it exists")
	f.BoolVar(&wait, "wait", false, "wait until there is a stream of that name")
	o.Type = "bytes"
	return c
}

func runCollect(ctx context.Context, d *deps, c *client.Client, arg string, wait bool, o putOptions) (putResult, error) {
	res := putResult{Source: arg, Name: o.Name}
	if _, err := o.taken(ctx, c); err != nil {
		return res, err
	}
	r, m, err := d.openReader(ctx, c, arg, wait, client.ReaderOptions{})
	if err != nil {
		return res, err
	}
	if n := r.Start(); n > 0 {
		return res, status.Errorf(status.InvalidStreamState, "the first %d chunks of %s are gone: others have read them", n, arg).
			WithHint("--retain all keeps what is read, for a stream that is to be collected")
	}
	// Chunks end with the next request on their connection: the object is filled
	// on another one.
	store, err := d.dial(ctx)
	if err != nil {
		return res, err
	}
	defer store.Close() //nolint:errcheck // everything was acknowledged
	if m.Typename == client.ByteStream {
		res, err = collectBytes(ctx, store, r, res)
	} else {
		res, err = collectTable(ctx, c, store, r, res)
	}
	if err != nil {
		return res, renamed(err, m.ID, arg)
	}
	if err := o.finish(ctx, store, res.ID); err != nil {
		return res, errors.Join(err, store.Delete(context.WithoutCancel(ctx), []client.ID{res.ID}, client.DeleteOptions{}))
	}
	res.Stored = true
	return res, nil
}

// collectBytes stores the bytes of a stream as put does.
func collectBytes(ctx context.Context, store *client.Client, r *client.StreamReader, res putResult) (putResult, error) {
	data, err := fill(ctx, store, &chunkReader{ctx: ctx, r: r}, -1, output.NewProgress(io.Discard, "", -1, false, true))
	if err != nil {
		return res, err
	}
	res.Bytes = data.size
	if res.ID, err = fileObject(ctx, store, &data, ""); err != nil {
		return res, errors.Join(err, store.DropBlob(context.WithoutCancel(ctx), data.id))
	}
	return res, nil
}

// collectTable stores the record batches of a stream as a table, each when it
// comes. c is the connection that the stream is read on.
func collectTable(ctx context.Context, c, store *client.Client, r *client.StreamReader, res putResult) (_ putResult, err error) {
	w := typed.NewWriter(store, nil, nil)
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Undo(context.WithoutCancel(ctx)))
		}
	}()
	var table *typed.TableWriter
	for ch, err := range r.All(ctx) {
		if err != nil {
			return res, err
		}
		err = batchesOf(ctx, c, ch, func(b arrow.RecordBatch) (err error) {
			if table == nil {
				if table, err = typed.NewTableWriter(w, b.Schema()); err != nil {
					return err
				}
			}
			res.Bytes += typed.Size(b)
			return table.Add(ctx, b)
		})
		if err != nil {
			return res, err
		}
	}
	if table == nil {
		return res, status.Errorf(status.Invalid, "%s ended without a record batch: nothing says what its columns are", res.Source)
	}
	res.Shape = fmt.Sprintf("%d rows", table.Rows())
	res.ID, err = table.File(ctx)
	return res, err
}

// chunkReader reads the bytes of a stream's chunks.
type chunkReader struct {
	ctx  context.Context //nolint:containedctx // lives for one fill
	r    *client.StreamReader
	left []byte
}

func (r *chunkReader) Read(b []byte) (int, error) {
	for len(r.left) == 0 {
		ch, err := r.r.Next(r.ctx)
		if err != nil {
			return 0, err
		}
		if !ch.ID.IsBlob() {
			return 0, status.Errorf(status.ObjectTypeError, "chunk %d is the object %s, not bytes", ch.Number, ch.ID)
		}
		r.left = ch.Bytes
	}
	n := copy(b, r.left)
	r.left = r.left[n:]
	return n, nil
}

// streamInfo is a stream as ls and info print it in JSON.
type streamInfo struct {
	Name     string          `json:"name"`
	Typename string          `json:"typename"`
	ID       client.ID       `json:"id"`
	State    string          `json:"state"` // open, drained (it has ended) or failed
	Reason   string          `json:"reason,omitempty"`
	Shared   bool            `json:"shared"` // false: one of a 0.24 client, with one reader
	Retain   json.RawMessage `json:"retain,omitempty"`
	Chunks   int64           `json:"chunks"` // in memory
	Bytes    int64           `json:"bytes"`  // of those
	Ready    int64           `json:"ready"`  // chunks that wait for the slowest reader
	Pushed   uint64          `json:"pushed"`
	Pulled   uint64          `json:"pulled"` // by the fastest reader
	Waits    string          `json:"waits"`  // reader, writer or ""
	Writer   string          `json:"writer"` // none, connected or gone
	Readers  []streamReader  `json:"readers"`
}

type streamReader struct {
	Name      string `json:"name"`
	Done      uint64 `json:"done"`
	At        uint64 `json:"at"`
	Connected bool   `json:"connected"`
	Waits     bool   `json:"waits"`
}

var streamColumns = []output.Column{
	{Name: "NAME", Cut: true},
	{Name: "STATE"},
	{Name: "WRITER"},
	{Name: "READERS"},
	{Name: "READY"},
	{Name: "CHUNKS"},
	{Name: "BYTES"},
	{Name: "WRITTEN"},
	{Name: "RETAIN"},
	{Name: "TYPE"},
	{Name: "ID"},
	{Name: "REASON", Wide: true},
}

func (s *streamInfo) cells() []output.Cell {
	state := s.State
	switch {
	case s.State == "drained":
		state = "ended"
	case s.State == "open" && s.Waits == "writer":
		state = "full"
	case s.State == "open" && s.Writer == "gone":
		state = "abandoned" // a plain stream whose reader waits on
	}
	readers := strconv.Itoa(len(s.Readers))
	if !s.Shared {
		readers = "plain"
	}
	return []output.Cell{
		output.Text(s.Name),
		{Human: state, Exact: s.State},
		output.Text(s.Writer),
		output.Text(readers),
		output.Count(s.Ready),
		output.Count(s.Chunks),
		output.Size(s.Bytes),
		output.Count(int64(s.Pushed)),
		output.Text(s.retention()),
		output.Text(s.Typename),
		output.Text(s.ID.String()),
		output.Text(s.Reason),
	}
}

// retention is what is retained, as --retain takes it.
func (s *streamInfo) retention() string {
	var r struct {
		All   bool
		Bytes int64
		Age   time.Duration `json:"age_ns"`
	}
	if json.Unmarshal(s.Retain, &r) != nil {
		return "none"
	}
	switch {
	case r.All:
		return "all"
	case r.Bytes > 0:
		return config.FormatSize(r.Bytes)
	case r.Age > 0:
		return r.Age.String()
	}
	return "none"
}

// listStreams asks for all streams of the session, with their names.
func listStreams(ctx context.Context, c *client.Client) ([]streamInfo, error) {
	raw, err := c.Streams(ctx)
	if err != nil {
		return nil, err
	}
	list := []streamInfo{}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("the daemon's list of streams: %w", err)
	}
	ids := make([]client.ID, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	metas, err := c.GetObjects(ctx, ids, client.GetOptions{})
	if err != nil {
		return nil, err
	}
	for _, m := range metas {
		for i := range list {
			if list[i].ID == m.ID {
				list[i].Name, list[i].Typename = m.Name, m.Typename
			}
		}
	}
	slices.SortStableFunc(list, func(a, b streamInfo) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func newStreamLs(d *deps) *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the streams of this node",
		Long: `List the streams of this node. STATE is open, full (the writer waits for memory), ended,
failed, or abandoned (the writer of a 0.24 stream has gone; its reader waits on).
READY counts the chunks that the slowest reader has yet to get.

With --watch a stream is printed again whenever it changes, until interrupted; with
-o json or ndjson each time as a line.`,
		Example: `  v6d stream ls
  v6d stream ls --watch`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				if watch {
					return watchStreams(ctx, c, p)
				}
				list, err := listStreams(ctx, c)
				if err != nil {
					return err
				}
				l := output.List{Columns: streamColumns, Items: list}
				for i := range list {
					l.IDs = append(l.IDs, list[i].ID.String())
					l.Rows = append(l.Rows, list[i].cells())
				}
				return p.List(l)
			})
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "print streams again when they change, until interrupted")
	return c
}

// watchStreams prints each stream that is new or has changed.
func watchStreams(ctx context.Context, c *client.Client, p *output.Printer) error {
	const format = "%-12s  %-10s %-10s %7s %7s %7s %10s %9s  %s\n"
	shown := map[client.ID]string{}
	header := true
	for {
		list, err := listStreams(ctx, c)
		if err != nil {
			return err
		}
		there := map[client.ID]bool{}
		for i := range list {
			s := &list[i]
			there[s.ID] = true
			text, err := json.Marshal(s)
			if err != nil {
				return err
			}
			if shown[s.ID] == string(text) {
				continue
			}
			shown[s.ID] = string(text)
			if err := p.Event(s.ID.String(), s, func(w io.Writer) error {
				if header {
					fmt.Fprintf(w, format, "TIME", "STATE", "WRITER", "READERS", "READY", "CHUNKS", "BYTES", "WRITTEN", "NAME")
					header = false
				}
				cells := s.cells()
				_, err := fmt.Fprintf(w, format, time.Now().Format("15:04:05.000"), cells[1].Human, cells[2].Human, cells[3].Human,
					cells[4].Human, cells[5].Human, cells[6].Human, cells[7].Human, s.Name)
				return err
			}); err != nil {
				return err
			}
		}
		for id := range shown {
			if !there[id] {
				delete(shown, id)
				gone := streamInfo{ID: id, State: "removed", Readers: []streamReader{}}
				if err := p.Event(id.String(), gone, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%-12s  removed    %s\n", time.Now().Format("15:04:05.000"), id)
					return err
				}); err != nil {
					return err
				}
			}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// oneStream finds a stream by id or name.
func (d *deps) oneStream(ctx context.Context, c *client.Client, arg string) (*streamInfo, error) {
	id, err := resolve(ctx, c, arg)
	if err != nil {
		return nil, err
	}
	list, err := listStreams(ctx, c)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].ID == id {
			return &list[i], nil
		}
	}
	if _, err := d.find(ctx, c, arg); err != nil {
		return nil, err
	}
	return nil, d.noStream(ctx, c, arg, id, status.Errorf(status.ObjectNotExists, "no stream %s", id))
}

func newStreamInfo(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "info ID|NAME",
		Short: "Show a stream and its readers",
		Example: `  v6d stream info log
  v6d stream info log -o json --jq '.item.readers'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := d.printer()
			if err != nil {
				return err
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				s, err := d.oneStream(ctx, c, args[0])
				if err != nil {
					return err
				}
				return p.Item(s.ID.String(), s, s.write)
			})
		},
	}
}

// write prints a stream for people.
func (s *streamInfo) write(w io.Writer) error {
	cells := s.cells()
	pairs := [][2]string{
		{"Name", s.Name}, {"Id", s.ID.String()}, {"Type", s.Typename}, {"State", cells[1].Human},
	}
	if s.Reason != "" {
		pairs = append(pairs, [2]string{"Reason", s.Reason})
	}
	pairs = append(pairs, [2]string{"Writer", s.Writer},
		[2]string{"Written", fmt.Sprintf("%d chunks", s.Pushed)},
		[2]string{"In memory", fmt.Sprintf("%d chunks, %s", s.Chunks, cells[6].Human)})
	if !s.Shared {
		return output.Fields(w, append(pairs, [2]string{"Readers", "one, as in 0.24"}, [2]string{"Waiting", fmt.Sprintf("%d chunks", s.Ready)})...)
	}
	pairs = append(pairs, [2]string{"Retains", s.retention()})
	for _, r := range s.Readers {
		name, state := r.Name, "away"
		if name == "" {
			name = "(no name)"
		}
		switch {
		case r.Waits:
			state = "waits"
		case r.Connected:
			state = "reads"
		}
		pairs = append(pairs, [2]string{"Reader", fmt.Sprintf("%s: %s, %d chunks behind", name, state, s.Pushed-min(r.Done, s.Pushed))})
	}
	return output.Fields(w, pairs...)
}

func newStreamStop(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "stop ID|NAME",
		Short: "End a stream: readers get what was written, then its end",
		Example: `  v6d stream stop log
  v6d stream stop o0051dd9f7a2c0002`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				s, err := d.oneStream(ctx, c, args[0])
				if err != nil {
					return err
				}
				return renamed(c.StopStream(ctx, s.ID, false), s.ID, args[0])
			})
		},
	}
}

func newStreamAbort(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "abort ID|NAME [REASON]",
		Short: "End a stream in failure: readers get what was written, then the reason",
		Example: `  v6d stream abort log
  v6d stream abort log "the input was wrong"`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			reason := "it was aborted"
			if len(args) == 2 {
				reason = args[1]
			}
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				s, err := d.oneStream(ctx, c, args[0])
				if err != nil {
					return err
				}
				return renamed(c.AbortStream(ctx, s.ID, reason), s.ID, args[0])
			})
		},
	}
}

func newStreamRm(d *deps) *cobra.Command {
	var reader string
	c := &cobra.Command{
		Use:   "rm ID|NAME...",
		Short: "Remove streams with their chunks, or one reader of a stream",
		Long: `Remove streams: chunks are freed, whoever reads or writes fails. With --reader only that
reader is removed, so that what it has not read is no longer kept for it.`,
		Example: `  v6d stream rm log
  v6d stream rm log --reader indexer`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.withClient(c.Context(), func(ctx context.Context, c *client.Client) error {
				return each(args, func(arg string) error {
					s, err := d.oneStream(ctx, c, arg)
					if err != nil {
						return err
					}
					if reader != "" {
						return renamed(c.ForgetReader(ctx, s.ID, reader), s.ID, arg)
					}
					return removeStream(ctx, c, s.ID)
				})
			})
		},
	}
	c.Flags().StringVar(&reader, "reader", "", "remove only this reader")
	return c
}
