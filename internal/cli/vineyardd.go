package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/v6d-go/v6d/internal/config"
)

// Args returns the command line of a process. One that was started as vineyardd
// is that daemon's: `v6d vineyardd …`.
func Args(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	if filepath.Base(argv[0]) == "vineyardd" {
		return append([]string{"vineyardd"}, argv[1:]...)
	}
	return argv[1:]
}

func newVineyardd(d *deps) *cobra.Command {
	c := &cobra.Command{
		Use:     "vineyardd [flags of vineyardd 0.24]",
		Short:   "Run the daemon with the flags of vineyardd",
		GroupID: "daemon",
		Long: `Run the daemon as a drop-in replacement of vineyardd 0.24: with its flags, in both
spellings (--rpc_socket_port, -rpc-socket-port), its defaults and its socket mode
(0777). The same happens when the binary is started under the name vineyardd, so
that launchers that look for it on the PATH start v6d:

  ln -s "$(command -v v6d)" /usr/local/bin/vineyardd

As there, metadata lie in etcd at --etcd_endpoint unless --meta local is given. When
nobody answers at an endpoint of this machine, v6d starts its own etcd there.
Flags that v6d has no use for (the allocator, RDMA, spilling, CRDs, logging to
files) are accepted, and named in the log when they were given.`,
		Example: `  v6d vineyardd --socket /tmp/v.sock --meta local --size 4Gi
  v6d vineyardd -etcd_endpoint=http://10.0.0.1:2379 -rpc_socket_port=9601`,
		DisableFlagParsing: true,
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := parseVineyardd(args)
		switch {
		case errors.Is(err, pflag.ErrHelp):
			return c.Help()
		case err != nil:
			return err
		case o.version:
			_, err := fmt.Fprintf(d.streams.Out, "vineyardd version %s (v6d %s)\n", config.ProtocolVersion, Version)
			return err
		}
		return runVineyardd(c.Context(), d, o)
	}
	return c
}

// vineyarddOptions is what the flags of vineyardd mean here.
type vineyarddOptions struct {
	cfg     config.Serve
	version bool
	unused  []string // flags that were given and mean nothing here
	dataDir string   // for an etcd of our own
}

// Flags of vineyardd 0.24 that mean nothing here; those of its logging library
// are bools, or take a value.
var (
	unusedBools = []string{
		"reserve-memory", "coredump", "metrics", "prometheus", "sync-crds", "skip-launch-etcd", "alsologtostderr", "colorlogtostderr",
		"drop-log-memory", "log-prefix", "log-utc-time", "logtostderr", "stop-logging-if-full-disk", "timestamp-in-logfile-name",
		"symbolize-stacktrace",
	}
	unusedTexts = []string{
		"allocator", "etcd-cmd", "rdma-endpoint", "spill-lower-rate", "spill-path", "spill-upper-rate", "alsologtoemail",
		"log-backtrace-at", "log-dir", "log-link", "logbuflevel", "logbufsecs", "logemaillevel", "logfile-mode", "logmailer", "max-log-size",
		"minloglevel", "stderrthreshold", "v", "vmodule",
	}
	// quietUnused are so common that a warning would be noise.
	quietUnused = []string{"reserve-memory", "skip-launch-etcd", "logtostderr", "alsologtostderr", "v", "allocator"}
)

// parseVineyardd reads flags as gflags does: one dash or two, underscores or
// dashes, a value behind = or as the next argument, and --noflag for bools.
func parseVineyardd(args []string) (*vineyarddOptions, error) {
	o := &vineyarddOptions{cfg: config.Default()}
	cfg := &o.cfg
	cfg.SocketMode, cfg.Meta = "0777", "etcd"
	rpc, port, timeout := true, 9600, 60
	f := pflag.NewFlagSet("vineyardd", pflag.ContinueOnError)
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
	f.StringVar(&cfg.Socket, "socket", "", "")
	f.BoolVar(&rpc, "rpc", rpc, "")
	f.IntVar(&port, "rpc-socket-port", port, "")
	f.StringVar(&cfg.Size, "size", "", "")
	f.StringVar(&cfg.Meta, "meta", cfg.Meta, "")
	f.IntVar(&timeout, "meta-timeout", timeout, "")
	f.StringVar(&cfg.EtcdEndpoints, "etcd-endpoint", cfg.EtcdEndpoints, "")
	f.StringVar(&cfg.EtcdPrefix, "etcd-prefix", cfg.EtcdPrefix, "")
	f.StringVar(&o.dataDir, "etcd-data-dir", "", "")
	f.StringVar(&cfg.HTPasswd, "htpasswd", "", "")
	f.StringVar(&cfg.Deployment, "deployment", cfg.Deployment, "")
	f.BoolVar(&cfg.Compression, "compression", true, "")
	f.IntVar(&cfg.StreamThreshold, "stream-threshold", cfg.StreamThreshold, "")
	f.BoolVar(&o.version, "version", false, "")
	help := f.BoolP("help", "h", false, "")
	f.BoolVar(help, "helpfull", false, "") //nolint:misspell // gflags has it so
	f.BoolVar(help, "helpshort", false, "")
	for _, name := range unusedBools {
		f.Bool(name, false, "")
	}
	for _, name := range unusedTexts {
		f.String(name, "", "")
	}
	if err := f.Parse(gflags(f, args)); err != nil {
		return nil, usage("vineyardd: %v", err)
	}
	if *help {
		return nil, pflag.ErrHelp
	}
	if f.NArg() > 0 {
		return nil, usage("vineyardd: unexpected argument %q", f.Arg(0))
	}
	f.Visit(func(fl *pflag.Flag) {
		if slices.Contains(unusedBools, fl.Name) || slices.Contains(unusedTexts, fl.Name) {
			if !slices.Contains(quietUnused, fl.Name) && fl.Value.String() != "false" && fl.Value.String() != "" {
				o.unused = append(o.unused, fl.Name)
			}
		}
	})
	if cfg.Meta != "local" && cfg.Meta != "etcd" {
		return nil, usage("vineyardd: --meta %s: want etcd or local", cfg.Meta)
	}
	if port < 0 || port > 65535 {
		return nil, usage("vineyardd: --rpc_socket_port %d: want a port number", port)
	}
	if cfg.Size == "0" {
		cfg.Size = ""
	}
	cfg.MetaTimeout = time.Duration(timeout) * time.Second
	if cfg.RPCListen = "off"; rpc {
		cfg.RPCListen = net.JoinHostPort("0.0.0.0", strconv.Itoa(port))
		if cfg.Meta == "etcd" {
			cfg.RPCAdvertise = net.JoinHostPort(ownName(), strconv.Itoa(port))
		}
	}
	if cfg.Socket == "" {
		cfg.Socket = writableSocket([]string{"/var/run/vineyard.sock", filepath.Join(os.Getenv("HOME"), ".local/vineyard/vineyard.sock")})
	}
	var err error
	if cfg.Socket, err = filepath.Abs(cfg.Socket); err != nil {
		return nil, err
	}
	return o, nil
}

// gflags rewrites arguments to what pflag reads.
func gflags(f *pflag.FlagSet, args []string) []string {
	out := make([]string, 0, len(args))
	for _, arg := range args {
		name := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
		if len(name) == len(arg) || name == "" {
			out = append(out, arg)
			continue
		}
		if rest, ok := strings.CutPrefix(name, "no"); ok {
			if fl := f.Lookup(rest); fl != nil && fl.Value.Type() == "bool" && f.Lookup(name) == nil {
				out = append(out, "--"+rest+"=false")
				continue
			}
		}
		out = append(out, "--"+name)
	}
	return out
}

// ownName is the name under which others find this host: MY_HOST_NAME, or the
// host's, if it can be resolved.
func ownName() string {
	host, _ := os.Hostname()
	if v := os.Getenv("MY_HOST_NAME"); v != "" {
		host = v
	}
	if _, err := net.LookupHost(host); err != nil {
		return "127.0.0.1"
	}
	return host
}

func runVineyardd(ctx context.Context, d *deps, o *vineyarddOptions) error {
	cfg := &o.cfg
	clean, err := o.ownEtcd(ctx)
	if err != nil {
		return err
	}
	defer clean()
	if cfg.RPCAdvertise == net.JoinHostPort("127.0.0.1", strings.TrimPrefix(cfg.RPCListen, "0.0.0.0:")) {
		cfg.RPCAdvertise = "" // this host has no name: said when the others are elsewhere
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	if len(o.unused) > 0 {
		newLogger(d.streams.Err, cfg.LogFormat, slog.LevelInfo).Warn("flags without a meaning here", "flags", o.unused)
	}
	return serve(ctx, d, nil, serveOptions{}, *cfg)
}

// ownEtcd makes the daemon run etcd itself when the endpoint is on this machine
// and nobody answers there, as vineyardd does.
func (o *vineyarddOptions) ownEtcd(ctx context.Context) (clean func(), err error) {
	clean = func() {}
	endpoints := config.List(o.cfg.EtcdEndpoints)
	if o.cfg.Meta != "etcd" || len(endpoints) != 1 {
		return clean, nil
	}
	u, err := url.Parse(endpoints[0])
	if err != nil || u.Scheme != "http" {
		return clean, nil //nolint:nilerr // Validate says what is wrong
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return clean, nil
	}
	dialer := net.Dialer{Timeout: time.Second}
	for range 5 {
		if nc, err := dialer.DialContext(ctx, "tcp", u.Host); err == nil {
			nc.Close()
			return clean, nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return clean, context.Cause(ctx)
		}
	}
	o.cfg.Meta, o.cfg.EmbedName, o.cfg.EmbedClient, o.cfg.EmbedDir = "embed", "vineyardd", endpoints[0], o.dataDir
	if o.cfg.EmbedDir == "" {
		if o.cfg.EmbedDir, err = os.MkdirTemp("", "v6d.etcd."); err != nil {
			return clean, err
		}
		clean = func() { os.RemoveAll(o.cfg.EmbedDir) }
	}
	o.cfg.EmbedDir, err = filepath.Abs(o.cfg.EmbedDir)
	return clean, err
}
