package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// EmbedOptions describes the etcd member that runs in this process.
type EmbedOptions struct {
	Name   string   // of this member among the peers
	Peers  []string // name=url of all members, this one included; empty for one alone
	Client string   // URL at which other nodes and etcdctl reach this member
	Dir    string   // of its data
	// NoSync leaves out fsync: for tests, which survive no power cut.
	NoSync bool
}

// soloPeer is where a member without peers listens for them: nobody calls.
const soloPeer = "http://127.0.0.1:0"

// Embed starts an etcd member and connects to it without a socket. With peers it
// waits for a quorum until ctx ends.
func Embed(ctx context.Context, e EmbedOptions, o Options) (*Backend, error) {
	cfg, err := e.config()
	if err != nil {
		return nil, err
	}
	relay := &zapToSlog{log: o.Log}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(relay))
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start the embedded etcd member %s in %s: %w", cfg.Name, cfg.Dir, err)
	}
	member := &member{server, relay}
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		member.abort()
		return nil, fmt.Errorf("the embedded etcd member %s: %w", cfg.Name, err)
	case <-ctx.Done():
		member.abort()
		return nil, fmt.Errorf("the embedded etcd member %s found no quorum of %s: %w", cfg.Name, cfg.InitialCluster, context.Cause(ctx))
	}
	watcher := adapter.WatchServerToWatchClient(v3rpc.NewWatchServer(server.Server))
	return newBackend(v3client.New(server.Server), watcher, o, "the embedded member "+cfg.Name, member), nil
}

func (e EmbedOptions) config() (*embed.Config, error) {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = e.Name, e.Dir
	client, err := url.Parse(e.Client)
	if err != nil {
		return nil, fmt.Errorf("the client URL of the embedded etcd: %w", err)
	}
	peers := e.Peers
	if len(peers) == 0 {
		peers = []string{e.Name + "=" + soloPeer}
	}
	i := slices.IndexFunc(peers, func(p string) bool { return strings.HasPrefix(p, e.Name+"=") })
	if i < 0 {
		return nil, fmt.Errorf("--embed-name %s is none of --embed-peers %s", e.Name, strings.Join(peers, ","))
	}
	self, err := url.Parse(peers[i][len(e.Name)+1:])
	if err != nil {
		return nil, fmt.Errorf("--embed-peers: %w", err)
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*self}, []url.URL{*self}
	cfg.InitialCluster = strings.Join(peers, ",")
	cfg.InitialClusterToken = "v6d"
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	cfg.QuotaBackendBytes = 8 << 30
	cfg.MaxRequestBytes = 16 << 20
	cfg.UnsafeNoFsync = e.NoSync
	// Elections are for lost hosts; a busy one must not be taken for lost.
	cfg.TickMs, cfg.ElectionMs = 200, 2000
	cfg.StrictReconfigCheck = true
	return cfg, nil
}

// member is an etcd server that ends with its backend.
type member struct {
	server *embed.Etcd
	relay  *zapToSlog
}

// Close stops the member. Other nodes that are connected get a moment to hang up.
func (m *member) Close() error {
	m.relay.closing.Store(true)
	done := make(chan struct{})
	go func() {
		m.server.Close()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(2 * time.Second):
		m.server.Server.HardStop()
	}
	select {
	case <-done:
		return nil
	case <-time.After(8 * time.Second):
		return errors.New("the embedded etcd does not stop")
	}
}

// abort ends a member that has never been ready: Close would wait for that. What
// it leaves running ends with the process, which cannot do without it.
func (m *member) abort() {
	m.relay.closing.Store(true)
	m.server.Server.HardStop()
	go m.server.Close()
}

// zapToSlog brings etcd's warnings and errors into the daemon's log. While it
// closes, etcd reports the connections that it closes itself as errors.
type zapToSlog struct {
	log     *slog.Logger
	closing atomic.Bool
}

var _ zapcore.Core = (*zapToSlog)(nil)

// Enabled implements zapcore.Core.
func (z *zapToSlog) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (z *zapToSlog) With(fields []zapcore.Field) zapcore.Core {
	return &child{z, fields}
}

// Check implements zapcore.Core.
func (z *zapToSlog) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if z.Enabled(e.Level) {
		return c.AddCore(e, z)
	}
	return c
}

// Write implements zapcore.Core.
func (z *zapToSlog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if z.log == nil || z.closing.Load() {
		return nil
	}
	level := slog.LevelDebug // a warning of etcd is about itself
	if e.Level >= zapcore.ErrorLevel {
		level = slog.LevelWarn
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	z.log.Log(context.Background(), level, "etcd: "+e.Message, "details", enc.Fields)
	return nil
}

// Sync implements zapcore.Core.
func (*zapToSlog) Sync() error { return nil }

// child is a logger with fields of its own.
type child struct {
	*zapToSlog
	fields []zapcore.Field
}

// With implements zapcore.Core.
func (c *child) With(fields []zapcore.Field) zapcore.Core {
	return &child{c.zapToSlog, append(slices.Clone(c.fields), fields...)}
}

// Check implements zapcore.Core.
func (c *child) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *child) Write(e zapcore.Entry, fields []zapcore.Field) error {
	return c.zapToSlog.Write(e, append(slices.Clone(c.fields), fields...))
}
