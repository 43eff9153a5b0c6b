package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/server"
	"github.com/v6d-go/v6d/internal/sys"
)

type serveOptions struct {
	ConfigFile  string
	PrintConfig bool
	Validate    bool
}

func newServe(d *deps) *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:     "serve",
		Short:   "Run the daemon",
		GroupID: "daemon",
		Long: `Run the daemon of this node. Without arguments it works at once: it takes half of
the memory there is, needs no other service, and prints how to reach and stop it.

Settings come from flags, then V6D_* variables (V6D_SIZE, V6D_RPC_LISTEN, …), then
the config file (YAML, with the flags' names as keys).

SIGTERM and SIGINT end it cleanly; SIGHUP reads the log level anew. A clean stop
discards the pool unless --keep or --memory PATH is given; after a crash the next
start on the same socket finds it and serves everything that was sealed.`,
		Example: `  v6d serve
  v6d serve --socket /tmp/v6d.sock --size 4GiB --rpc-listen 127.0.0.1:9600`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&o.ConfigFile, "config", "", "config file")
	f.BoolVar(&o.PrintConfig, "print-config", false, "print the resulting configuration and exit")
	f.BoolVar(&o.Validate, "validate", false, "check the configuration and exit")
	addServeFlags(f)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := loadServe(f, o.ConfigFile, d.global.Socket)
		if err != nil {
			return err
		}
		switch {
		case o.PrintConfig:
			return printConfig(d.streams.Out, cfg)
		case o.Validate:
			_, err := fmt.Fprintln(d.streams.Out, "the configuration is valid")
			return err
		}
		return serve(c.Context(), d, f, o, cfg)
	}
	return c
}

func addServeFlags(f *pflag.FlagSet) {
	def := config.Default()
	f.String("socket-mode", def.SocketMode, "permissions of the socket: who may open it can read and write the pool")
	f.String("rpc-listen", def.RPCListen, "where to serve remote clients, HOST:PORT or off")
	f.String("http-listen", def.HTTPListen, "where to serve /healthz, /readyz and /metrics, HOST:PORT or off")
	f.Bool("pprof", false, "serve profiles at /debug/pprof of --http-listen")
	f.String("size", "", "size of the pool, such as 4GiB (default: half of the memory)")
	f.String("memory", def.Memory, "where the pool lies: auto, anonymous, or a folder on a tmpfs")
	f.String("huge", def.Huge, "huge pages: auto, always or never")
	f.Bool("strict-reads", false, "never reuse deleted memory that a 0.24 client may still read")
	f.Bool("keep", false, "leave the pool for the next start at a clean stop")
	f.Bool("fresh", false, "discard what an earlier daemon left")
	f.String("meta", def.Meta, "where metadata lives: local, etcd (a cluster), or embed (a cluster, etcd inside)")
	f.String("log-level", def.LogLevel, "debug, info, warn or error")
	f.String("log-format", def.LogFormat, "text or json")
	f.String("htpasswd", "", "password file; clients must then give user and password")
	f.Bool("compression", def.Compression, "offer zstd to remote clients")
	f.Bool("peer-ipc", def.PeerIPC, "copy from daemons of this host through their sockets instead of TCP")
	f.String("peer-user", "", "user for pulling from daemons with --htpasswd; the password comes from --peer-password-file or V6D_PEER_PASSWORD")
	f.String("peer-password-file", "", "file with the password of --peer-user")
	f.Int("stream-threshold", def.StreamThreshold, "percent of the pool above which stream writers wait")
	f.String("deployment", def.Deployment, "what clients are told of the deployment: local or distributed")
	f.String("rpc-advertise", "", "HOST:PORT by which other hosts reach --rpc-listen")
	f.Duration("meta-timeout", def.MetaTimeout, "how long a start waits for etcd, or for a quorum of the embedded one")
	f.String("etcd-endpoints", def.EtcdEndpoints, "URLs of etcd, separated by commas")
	f.String("etcd-prefix", def.EtcdPrefix, "prefix of all keys in etcd: the same on all nodes of a cluster")
	f.String("etcd-user", "", "user for etcd; the password comes from --etcd-password-file or V6D_ETCD_PASSWORD")
	f.String("etcd-password-file", "", "file with the password for etcd")
	f.String("etcd-cacert", "", "certificates that sign etcd's, PEM")
	f.String("etcd-cert", "", "certificate for etcd, PEM")
	f.String("etcd-key", "", "key of --etcd-cert, PEM")
	f.String("embed-name", def.EmbedName, "name of the embedded etcd member")
	f.String("embed-peers", "", "all embedded members, NAME=URL,… (default: this one alone)")
	f.String("embed-client", def.EmbedClient, "URL of the embedded member, for --etcd-endpoints of other nodes")
	f.String("embed-dir", "", "folder for the embedded member's data (default: in the user's state folder)")
}

// loadServe merges flags, environment, config file and defaults.
func loadServe(f *pflag.FlagSet, file, socket string) (config.Serve, error) {
	cfg := config.Default()
	v := viper.New()
	v.SetEnvPrefix("V6D")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	if err := v.BindPFlags(f); err != nil {
		return cfg, err
	}
	if err := v.BindEnv("socket", "V6D_SOCKET", "VINEYARD_IPC_SOCKET"); err != nil {
		return cfg, err
	}
	if file != "" {
		v.SetConfigFile(file)
		v.SetConfigType("yaml")
		if err := v.ReadInConfig(); err != nil {
			return cfg, usage("--config: %v", err)
		}
		for _, key := range v.AllKeys() {
			if f.Lookup(key) == nil && key != "socket" {
				return cfg, usage("--config %s: unknown key %q", file, key)
			}
		}
	}
	if socket != "" {
		v.Set("socket", socket)
	}
	if err := v.Unmarshal(&cfg); err != nil {
		return cfg, usage("configuration: %v", err)
	}
	if cfg.Socket == "" {
		cfg.Socket = writableSocket(client.DefaultSockets())
	}
	abs, err := filepath.Abs(cfg.Socket)
	if err != nil {
		return cfg, err
	}
	cfg.Socket = abs
	if cfg.Meta == "embed" && cfg.EmbedDir == "" {
		if cfg.EmbedDir, err = stateDir("etcd-" + cfg.EmbedName); err != nil {
			return cfg, err
		}
	}
	return cfg, cfg.Validate()
}

// stateDir is where data that outlives a reboot lies: /var/lib/v6d for root, else
// in the user's state folder.
func stateDir(name string) (string, error) {
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/v6d", name), nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "v6d", name), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", usage("--embed-dir: %v", err)
	}
	return filepath.Join(home, ".local", "state", "v6d", name), nil
}

// writableSocket returns the first path whose folder can be written, else the
// last.
func writableSocket(paths []string) string {
	for _, p := range paths {
		probe, err := os.CreateTemp(filepath.Dir(p), ".v6d-*")
		if err == nil {
			probe.Close()
			os.Remove(probe.Name())
			return p
		}
	}
	return paths[len(paths)-1]
}

// printConfig writes the configuration as a config file has it.
func printConfig(w io.Writer, c config.Serve) error {
	var doc yaml.Node
	doc.Kind = yaml.MappingNode
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("mapstructure")
		if key == "-" {
			continue
		}
		value := v.Field(i).Interface()
		if d, ok := value.(time.Duration); ok {
			value = d.String()
		}
		var k, n yaml.Node
		k.SetString(key)
		if err := n.Encode(value); err != nil {
			return err
		}
		doc.Content = append(doc.Content, &k, &n)
	}
	return yaml.NewEncoder(w).Encode(&doc)
}

func serve(ctx context.Context, d *deps, f *pflag.FlagSet, o serveOptions, cfg config.Serve) error {
	var level slog.LevelVar
	setLevel(&level, cfg.LogLevel)
	log := newLogger(d.streams.Err, cfg.LogFormat, &level)
	if _, err := sys.RaiseFileLimit(); err != nil {
		log.Debug("cannot raise the limit of open files", "err", err)
	}
	inherited, err := inheritedListener()
	if err != nil {
		return err
	}
	if inherited != nil {
		cfg.Socket = inherited.Addr().String()
	}
	srv, err := server.New(ctx, server.Options{Config: cfg, Log: log, Version: Version, IPC: inherited})
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-hup:
				if f == nil {
					break // without a config file there is nothing to read anew
				}
				if next, err := loadServe(f, o.ConfigFile, cfg.Socket); err != nil {
					log.Error("the configuration is not reloaded", "err", err)
				} else {
					setLevel(&level, next.LogLevel)
					log.Info("log level", "level", level.Level())
				}
			case <-done:
				return
			}
		}
	}()
	ready := func() {
		if cfg.LogFormat == "json" {
			log.Info("ready", "report", srv.Report())
		} else {
			banner(d.streams.Out, srv.Report())
		}
		if err := notifyReady("READY=1\n"); err != nil {
			log.Warn("cannot tell the service manager", "err", err)
		}
		if err := sys.ForgetText(); err != nil {
			log.Debug("cannot give the start's code back", "err", err)
		}
	}
	// A signal is how a daemon ends: that is no failure.
	err = srv.Run(ctx, ready)
	_ = notifyReady("STOPPING=1\n")
	return err
}

func setLevel(v *slog.LevelVar, name string) {
	var l slog.Level
	if l.UnmarshalText([]byte(name)) == nil {
		v.Set(l)
	}
}

func newLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// banner tells the user what runs where, and how to use and stop it.
func banner(w io.Writer, r server.Report) {
	place := r.Place.Path
	if place == "" {
		place = "anonymous memory"
	}
	why := ""
	if r.Place.Why != "" {
		why = " (" + r.Place.Why + ")"
	}
	yes := map[bool]string{true: "yes", false: "no"}
	rpc := r.RPC
	if rpc == "" {
		rpc = "off"
		if r.RPCNote != "" {
			rpc += " (" + r.RPCNote + ")"
		}
	}
	fmt.Fprintf(w, "v6d %s (protocol %s) is ready, process %d\n", Version, config.ProtocolVersion, os.Getpid())
	pairs := [][2]string{
		{"socket", r.Socket},
		{"remote", rpc},
		{"metadata", metadataLine(r)},
		{"pool", fmt.Sprintf("%s, %s, at %s%s", config.FormatSize(r.Size), r.SizeBy, place, why)},
		{"huge pages", yes[r.Place.Huge]},
		{"survives a crash", yes[r.Place.Survives]},
	}
	if r.HTTP != "" {
		pairs = append(pairs, [2]string{"metrics", "http://" + r.HTTP + "/metrics"})
	}
	if r.Recovered+r.Objects > 0 {
		pairs = append(pairs, [2]string{"recovered", fmt.Sprintf("%d objects, %d blobs, %s", r.Objects, r.Recovered, config.FormatSize(r.Bytes))})
	}
	if n := len(r.Lost) + len(r.Damage); n > 0 {
		pairs = append(pairs, [2]string{"lost", fmt.Sprintf("%d blobs; %d damaged places in the journal, see the log", len(r.Lost), len(r.Damage))})
	}
	if r.CgroupNote != "" {
		pairs = append(pairs, [2]string{"warning", r.CgroupNote})
	}
	pairs = append(pairs,
		[2]string{"for other clients", "export VINEYARD_IPC_SOCKET=" + r.Socket},
		[2]string{"to stop", "Ctrl-C, or kill " + strconv.Itoa(os.Getpid())})
	for i := range pairs {
		pairs[i][0] = "  " + pairs[i][0]
	}
	_ = output.Fields(w, pairs...)
}

func metadataLine(r server.Report) string {
	if r.Meta == "local" {
		return "in this process"
	}
	return fmt.Sprintf("%s, %s; this node is instance %d", r.Meta, r.MetaAt, r.Instance)
}

// inheritedListener returns the socket that a service manager opened for us
// (LISTEN_FDS), or nil.
func inheritedListener() (net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 {
		return nil, nil
	}
	if n > 1 {
		return nil, usage("LISTEN_FDS is %d: one UNIX socket can be taken over", n)
	}
	f := sys.FileFromFD(3, "LISTEN_FD_3")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over the inherited socket: %w", err)
	}
	if _, ok := l.(*net.UnixListener); !ok {
		return nil, errors.Join(usage("the inherited socket is no UNIX stream socket"), l.Close())
	}
	return l, nil
}

// notifyReady tells the service manager, if there is one (sd_notify).
func notifyReady(state string) error {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return nil
	}
	if addr[0] == '@' {
		addr = "\x00" + addr[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return err
	}
	_, err = io.WriteString(c, state)
	return errors.Join(err, c.Close())
}
