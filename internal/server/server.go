// Package server is the daemon: listeners, connections, sessions, and one thin
// handler per request that decodes, calls store, meta or stream, and encodes.
//
// Each connection is one goroutine: it reads a frame, answers it, and only then
// reads the next. A request that has to wait (for an object, a name, a chunk, a
// lock) waits in that goroutine; a hang-up meanwhile is noticed without reading.
// When a connection ends, everything that it held is given back at once.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/meta"
	"github.com/v6d-go/v6d/internal/migrate"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/shm"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/store"
	"github.com/v6d-go/v6d/internal/sys"
)

// Options is what a daemon needs besides its configuration.
type Options struct {
	Config  config.Serve
	Log     *slog.Logger
	Version string       // of v6d, for status
	IPC     net.Listener // inherited from a service manager; nil to make one
}

// Server is one daemon. New recovers or makes its pool, Run serves until its
// context ends.
type Server struct {
	cfg     config.Serve
	log     *slog.Logger
	version string
	started time.Time

	home    *shm.Home
	store   *store.Store
	cluster *meta.Cluster
	journal *journal.Journal // nil when the pool does not survive a crash
	ids     *object.Generator
	hostID  uint64
	saved   meta.Saved // of the cluster; guarded by mu once the daemon serves

	fresh     bool // nothing of an earlier daemon was found
	remembers bool // saved is what an earlier daemon recorded
	auth      *authenticator
	report    Report

	ipc   net.Listener
	rpc   net.Listener // nil when off
	http  net.Listener // nil when off
	mode  os.FileMode
	group *errgroup.Group

	mover   *migrate.Mover
	moves   flights[object.ID, moved] // objects on their way here
	working context.Context           // of what outlives requests; set by Run

	mu       sync.Mutex
	sessions map[object.SessionID]*session // guarded by mu
	conns    map[*conn]struct{}            // guarded by mu
	draining atomic.Bool
	requests atomic.Uint64
	threads  atomic.Int64 // local connections with a thread of their own
	parked   parked
	timings  map[*handler]*timing // nil unless somebody can ask for metrics
}

// Report tells what a start found and made, for people.
type Report struct {
	Place        shm.Place         `json:"place"`
	Size         int64             `json:"size"`
	SizeBy       string            `json:"size_by"` // why it is that large
	Socket       string            `json:"socket"`
	RPC          string            `json:"rpc"` // host:port, or "" when off
	RPCNote      string            `json:"rpc_note,omitempty"`
	Meta         string            `json:"meta"`              // where metadata lives: local, etcd or embed
	MetaAt       string            `json:"meta_at,omitempty"` // URLs of the metadata service
	Instance     object.InstanceID `json:"instance_id"`       // this node's number in its cluster
	HTTP         string            `json:"http,omitempty"`    // host:port of health checks and metrics
	Recovered    int               `json:"recovered_blobs"`
	Objects      int               `json:"recovered_objects"`
	Bytes        int64             `json:"recovered_bytes"`
	Lost         []string          `json:"lost"`   // what could not be recovered
	Damage       []journal.Gap     `json:"damage"` // damaged places of the journal
	CgroupNote   string            `json:"cgroup_note,omitempty"`
	SpaceNote    string            `json:"space_note,omitempty"` // the pool's file system is too small for it
	NotRecovered []string          `json:"not_recovered,omitempty"`
}

// New prepares a daemon: it takes the socket, finds or makes the pool, recovers
// what an earlier daemon left there, and joins the cluster. ctx bounds that, not
// the daemon's life.
func New(ctx context.Context, o Options) (_ *Server, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: o.Config, log: o.Log, version: o.Version, started: time.Now(),
		sessions: map[object.SessionID]*session{}, conns: map[*conn]struct{}{},
		ids: object.NewGenerator(0),
	}
	secret, err := password("peer", s.cfg.PeerPassword)
	if err != nil {
		return nil, err
	}
	s.mover = migrate.New(migrate.Options{Log: o.Log, Patience: s.cfg.PeerPatience, Username: s.cfg.PeerUser, Password: secret})
	if s.mode, err = s.cfg.Mode(); err != nil {
		return nil, err
	}
	if s.cfg.Socket, err = filepath.Abs(s.cfg.Socket); err != nil {
		return nil, err
	}
	if s.cfg.HTPasswd != "" {
		s.auth = &authenticator{file: s.cfg.HTPasswd}
	}
	size, by := shm.DefaultSize()
	if s.cfg.Size != "" {
		if size, err = config.ParseSize(s.cfg.Size); err != nil {
			return nil, err
		}
		by = "asked for by --size"
	}
	s.report.Size, s.report.SizeBy, s.report.Socket = size, by, s.cfg.Socket
	s.report.Lost, s.report.Damage = []string{}, []journal.Gap{}

	// The socket first: it says whether another daemon is alive, and the pool is
	// found by its path.
	if s.ipc = o.IPC; s.ipc == nil {
		if s.ipc, err = listenUnix(s.cfg.Socket, s.mode); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			s.ipc.Close()
		}
	}()
	if err = s.listenRPC(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && s.rpc != nil {
			s.rpc.Close()
		}
	}()
	if err = s.listenHTTP(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && s.http != nil {
			s.http.Close()
		}
	}()
	s.home, err = shm.OpenHome(shm.HomeOptions{
		Memory: s.cfg.Memory, Huge: s.cfg.Huge, Socket: s.cfg.Socket, Size: size, Fresh: s.cfg.Fresh,
	})
	if err != nil {
		return nil, fmt.Errorf("open the pool: %w", err)
	}
	defer func() {
		if err != nil {
			_ = s.home.Close(s.fresh) // what was found must stay, what was made must not
		}
	}()
	s.report.Place = s.home.Describe()
	s.store = store.New(s.home, store.Options{Limit: size, Strict: s.cfg.StrictReads, IDs: s.ids, Log: s.log})
	defer func() {
		if err != nil {
			_ = s.store.Shutdown() // before the home
		}
	}()
	s.noteCgroup(size)
	defer func() {
		if err != nil && s.cluster != nil {
			_ = s.cluster.Leave(context.WithoutCancel(ctx), true)
		}
	}()
	if err = s.recover(ctx); err != nil {
		return nil, err
	}
	s.noteSpace(size)
	starting, cancel := context.WithTimeout(ctx, s.cfg.MetaTimeout)
	defer cancel()
	if err = s.cluster.Start(starting); err != nil {
		return nil, s.explainMeta(err)
	}
	s.report.Instance, s.report.Meta = s.cluster.Number(), s.cfg.Meta
	switch s.cfg.Meta {
	case "etcd":
		s.report.MetaAt = s.cfg.EtcdEndpoints
	case "embed":
		s.report.MetaAt = s.cfg.EmbedClient
	}
	return s, nil
}

// noteSpace compares the pool with the file system that it lies on.
func (s *Server) noteSpace(size int64) {
	if lacks := s.home.Lacks(size - s.store.Usage()); lacks > 0 {
		s.report.SpaceNote = fmt.Sprintf("the file system of %s lacks %s for a pool of %s: larger puts will be refused",
			s.report.Place.Path, config.FormatSize(lacks), config.FormatSize(size))
		s.log.Warn("the file system is too small for the pool", "path", s.report.Place.Path, "lacks", lacks, "pool", size)
	}
}

// noteCgroup compares the pool with the daemon's memory cgroup: all pool pages
// are charged to it.
func (s *Server) noteCgroup(size int64) {
	limits := shm.NewLimits()
	defer limits.Close()
	limit, dir := limits.CgroupLimit()
	if need := size + size/8 + 256<<20; limit >= 0 && limit < need {
		s.report.CgroupNote = fmt.Sprintf("memory cgroup %s allows %s; a pool of %s needs %s: larger puts will be refused",
			dir, config.FormatSize(limit), config.FormatSize(size), config.FormatSize(need))
		s.log.Warn("the memory cgroup is too small for the pool", "cgroup", dir, "limit", limit, "needed", need)
	}
}

var umask sync.Mutex

// listenUnix makes the IPC socket. A socket that nobody listens on is replaced;
// a live one is an error.
func listenUnix(path string, mode os.FileMode) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, status.Errorf(status.IOError, "socket: %w", err)
	}
	defer lockFolder(filepath.Dir(path))()
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&os.ModeSocket == 0 {
			return nil, status.Errorf(status.ObjectExists, "%s exists and is no socket", path).WithHint("choose another --socket")
		}
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, status.Errorf(status.ObjectExists, "a daemon is already listening on %s", path).
				WithHint("use it (v6d status), stop it, or choose another --socket")
		} else if errors.Is(err, os.ErrPermission) {
			return nil, status.Errorf(status.ConnectionError, "socket %s belongs to someone else: %w", path, err)
		} else if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, os.ErrNotExist) {
			// Someone listens, but is too busy to answer, or stopped.
			return nil, status.Errorf(status.ObjectExists, "a daemon is already listening on %s, but does not accept connections: %w", path, err).
				WithHint("stop it, or choose another --socket")
		}
		if err := os.Remove(path); err != nil {
			return nil, status.Errorf(status.IOError, "replace the stale socket: %w", err)
		}
	}
	umask.Lock() // one for the process: two at once would restore each other's
	old := sys.Umask(int(^mode & 0o777))
	l, err := net.Listen("unix", path)
	sys.Umask(old)
	umask.Unlock()
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, status.Errorf(status.ConnectionError, "socket: %w", err).WithHint("choose a --socket in a folder that you may write to")
		}
		return nil, status.Errorf(status.IOError, "socket: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// lockFolder keeps two daemons that start at once from replacing each other's
// socket. Where a folder cannot be locked they are on their own.
func lockFolder(dir string) (unlock func()) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if got, err := sys.Flock(f); got || err != nil {
			break
		}
	}
	return func() { f.Close() }
}

func (s *Server) listenRPC() error {
	if s.cfg.RPCListen == "off" {
		return nil
	}
	lc := net.ListenConfig{Control: sys.ListenReuse}
	l, err := lc.Listen(context.Background(), "tcp4", s.cfg.RPCListen)
	switch {
	case err == nil:
		s.rpc = l
		s.report.RPC = s.rpcEndpoint()
	case s.cfg.RPCListen == config.DefaultRPC:
		s.report.RPCNote = fmt.Sprintf("remote access is off: %v", err)
		s.log.Warn("remote access is off: the default port is taken", "addr", s.cfg.RPCListen, "err", err)
	default:
		return status.Errorf(status.IOError, "--rpc-listen: %w", err).WithHint("choose a free port, or --rpc-listen off")
	}
	return nil
}

// rpcEndpoint is what clients and other nodes are told. It is never the hostname
// unless that was asked for: nothing says that others can resolve it.
func (s *Server) rpcEndpoint() string {
	if s.rpc == nil {
		return "0.0.0.0:0"
	}
	if a := s.advertised(); a != "" {
		return a
	}
	addr := s.rpc.Addr().(*net.TCPAddr)
	host := "127.0.0.1"
	if ip := addr.IP; !ip.IsUnspecified() && !ip.IsLoopback() {
		host = ip.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

// self describes this node to the cluster.
func (s *Server) self() meta.Instance {
	host, _ := os.Hostname()
	node := host
	if v := os.Getenv("MY_HOST_NAME"); v != "" {
		host = v
	}
	if v := os.Getenv("MY_NODE_NAME"); v != "" {
		node = v
	}
	return meta.Instance{Hostname: host, Nodename: node, IPCSocket: s.cfg.Socket, RPCEndpoint: s.rpcEndpoint()}
}

// Report returns what the start found and made.
func (s *Server) Report() Report { return s.report }

// Run serves until ctx ends, then drains: no new connections, requests under
// way are answered, idle connections are closed. ready is called once clients
// can connect.
func (s *Server) Run(ctx context.Context, ready func()) error {
	// Connections outlive ctx for as long as the drain takes.
	connCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	s.group = &errgroup.Group{}
	s.working = connCtx
	root := s.session(object.RootSession)
	s.group.Go(func() error { return s.accept(connCtx, s.ipc, root) })
	if s.rpc != nil {
		s.group.Go(func() error { return s.accept(connCtx, s.rpc, root) })
	}
	s.mu.Lock()
	for _, ss := range s.sessions {
		if ss != root {
			s.group.Go(func() error { return s.accept(connCtx, ss.listener, ss) })
		}
	}
	s.mu.Unlock()
	maintenance, stopMaintenance := context.WithCancel(connCtx)
	httpCtx, stopHTTP := context.WithCancel(context.WithoutCancel(ctx)) // it tells that the daemon drains
	defer stopHTTP()
	if s.http != nil {
		s.group.Go(func() error { return s.serveHTTP(httpCtx) })
	}
	s.group.Go(func() error { s.store.KeepAhead(maintenance); return nil })
	s.group.Go(func() error { s.maintain(maintenance); return nil })
	s.group.Go(func() error { s.checkAdvertised(maintenance); return nil })
	if ready != nil {
		ready()
	}
	<-ctx.Done()
	s.log.Info("stopping", "connections", s.connections())
	stopMaintenance()
	s.drain(cancel)
	stopHTTP()
	err := s.group.Wait()
	return errors.Join(err, s.close())
}

var errStopping = status.Errorf(status.AlreadyStopped, "the daemon is stopping")

// drain lets requests under way end, at most for some seconds.
func (s *Server) drain(cancel context.CancelCauseFunc) {
	s.draining.Store(true)
	s.closeListeners()
	deadline := time.Now().Add(5 * time.Second)
	cancel(errStopping)
	for s.connections() > 0 && time.Now().Before(deadline) {
		s.mu.Lock()
		for c := range s.conns {
			c.interruptIdle()
		}
		s.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.pc.Close()
	}
}

func (s *Server) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *Server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ipc.Close()
	if s.rpc != nil {
		s.rpc.Close()
	}
	for _, ss := range s.sessions {
		if ss.listener != nil {
			ss.listener.Close()
		}
	}
}

// close releases the pool. A clean stop discards it unless the user wants it
// kept.
func (s *Server) close() error {
	keep := s.cfg.Keep || filepath.IsAbs(s.cfg.Memory)
	var errs []error
	if err := s.cluster.Leave(context.Background(), keep && s.journal != nil); err != nil {
		s.log.Warn("cannot leave the cluster cleanly: others notice within half a minute", "err", err)
	}
	if keep {
		if err := s.compact(); err != nil {
			s.log.Warn("the journal is left as it is", "err", err) // longer, but complete
		}
	}
	s.mu.Lock()
	for _, ss := range s.sessions {
		ss.streams.Discard()
	}
	s.mu.Unlock()
	errs = append(errs, s.store.Shutdown(), s.journal.Close(), s.home.Close(!keep))
	return errors.Join(errs...)
}

// accept serves the connections of one listener until it is closed.
func (s *Server) accept(ctx context.Context, l net.Listener, ss *session) error {
	for failing := false; ; {
		nc, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Out of descriptors, most likely: others must end first.
			if !failing {
				s.log.Warn("cannot accept connections for now", "err", err)
			}
			failing = true
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		failing = false
		c := newConn(s, nc, ss)
		s.mu.Lock()
		if s.draining.Load() {
			s.mu.Unlock()
			c.exit()
			c.pc.Close()
			continue
		}
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.group.Go(func() error {
			defer s.forget(c)
			c.serve(ctx)
			return nil
		})
	}
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// maintain compacts the journal, tidies earlier pool files and looks after the
// pool's files. It begins a second after the start: a daemon that crashes again
// and again, sooner than that, leaves the files as they are and adds none.
func (s *Server) maintain(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	warned := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.journal.WantsCompaction() {
			if err := s.compact(); err != nil {
				s.log.Error("cannot compact the journal", "err", err)
			}
		}
		if err := s.store.Tidy(256 << 20); err != nil {
			s.log.Warn("cannot tidy an earlier pool file", "err", err)
		}
		if err := s.store.CheckFiles(); err != nil && !warned {
			s.log.Error("the pool is damaged", "err", err)
			warned = true
		}
	}
}

// CheckLedger verifies that what connections hold, what the store counts and
// what the allocators gave out agree. Nothing may be going on meanwhile.
func (s *Server) CheckLedger() error {
	s.mu.Lock()
	holders := make([]*store.Holder, 0, len(s.conns))
	for c := range s.conns {
		holders = append(holders, c.holder)
	}
	s.mu.Unlock()
	return s.store.Check(holders)
}
