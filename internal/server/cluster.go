package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/journal"
	"github.com/v6d-go/v6d/internal/meta"
	"github.com/v6d-go/v6d/internal/meta/etcd"
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
)

// recCluster is the journal record of what this node remembers of its cluster.
const recCluster = 49

// openBackend connects to where metadata lives, or starts it.
func openBackend(ctx context.Context, cfg *config.Serve, log *slog.Logger) (meta.Backend, error) {
	if cfg.Meta == "local" {
		return meta.NewLocal(), nil
	}
	o := etcd.Options{
		Endpoints: config.List(cfg.EtcdEndpoints), Prefix: cfg.EtcdPrefix, Session: object.RootSession, Username: cfg.EtcdUser, Log: log,
	}
	if cfg.Meta == "embed" {
		return etcd.Embed(ctx, etcd.EmbedOptions{
			Name: cfg.EmbedName, Peers: config.List(cfg.EmbedPeers), Client: cfg.EmbedClient, Dir: cfg.EmbedDir,
		}, o)
	}
	var err error
	if o.Password, err = password("etcd", cfg.EtcdPasswordFile); err != nil {
		return nil, err
	}
	if o.TLS, err = clientTLS(cfg); err != nil {
		return nil, err
	}
	return etcd.Open(o)
}

// password reads a password from its file, or the environment.
func password(of, file string) (string, error) {
	if file == "" {
		return os.Getenv("V6D_" + strings.ToUpper(of) + "_PASSWORD"), nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", status.Errorf(status.UserInputError, "--%s-password-file: %w", of, err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// clientTLS returns how to speak to https endpoints, nil for the system's
// certificates and no certificate of our own.
func clientTLS(cfg *config.Serve) (*tls.Config, error) {
	if cfg.EtcdCACert == "" && cfg.EtcdCert == "" {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.EtcdCACert != "" {
		pem, err := os.ReadFile(cfg.EtcdCACert)
		if err != nil {
			return nil, status.Errorf(status.UserInputError, "--etcd-cacert: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, status.Errorf(status.UserInputError, "--etcd-cacert: %s holds no certificate in PEM", cfg.EtcdCACert)
		}
	}
	if cfg.EtcdCert != "" {
		pair, err := tls.LoadX509KeyPair(cfg.EtcdCert, cfg.EtcdKey)
		if err != nil {
			return nil, status.Errorf(status.UserInputError, "--etcd-cert, --etcd-key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// join makes this node one of its cluster: from here on it has its number. The
// root session's tree holds what was recovered.
func (s *Server) join(ctx context.Context, root *session) error {
	limited, cancel := context.WithTimeoutCause(ctx, s.cfg.MetaTimeout, fmt.Errorf("no answer for %v (--meta-timeout)", s.cfg.MetaTimeout))
	defer cancel()
	b, err := openBackend(limited, &s.cfg, s.log)
	for err != nil && !errors.Is(err, meta.ErrUnusable) && status.Of(err) != status.UserInputError && s.cfg.Meta == "etcd" && limited.Err() == nil {
		s.log.Warn("cannot reach the metadata service, trying again", "err", err)
		select {
		case <-time.After(time.Second):
		case <-limited.Done():
		}
		b, err = openBackend(limited, &s.cfg, s.log)
	}
	if err != nil {
		return s.explainMeta(err)
	}
	s.saved.HostID = s.hostID
	if !s.remembers {
		s.saved = meta.Saved{}
	}
	s.cluster = meta.NewCluster(b, root.tree, meta.ClusterOptions{
		HostID: s.hostID, Self: s.self, Saved: s.saved, Beat: s.cfg.Heartbeat, Acknowledged: s.remember, Renumbered: s.renumbered,
	})
	if err := s.cluster.Join(limited); err != nil {
		return errors.Join(s.explainMeta(err), b.Close())
	}
	return nil
}

// explainMeta says what to do when the metadata service cannot be had.
func (s *Server) explainMeta(err error) error {
	if s.cfg.Meta == "local" || status.Of(err) == status.UserInputError || status.HintOf(err) != "" {
		return err
	}
	// That time ran out here is no matter of the command line's --timeout.
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v (--meta-timeout): %s", s.cfg.MetaTimeout, err.Error())
	}
	hint := "is etcd running at --etcd-endpoints? `v6d serve` alone needs none, `--meta embed` brings its own"
	if s.cfg.Meta == "embed" {
		hint = "are the other members of --embed-peers running, and can they be reached?"
	}
	return status.Errorf(status.EtcdError, "the cluster's metadata: %w", err).WithHint(hint)
}

// remember records what a heartbeat acknowledged, for the next start.
func (s *Server) remember(saved meta.Saved) {
	if s.journal == nil {
		return
	}
	if err := s.journal.Append(clusterRecord(saved)); err != nil {
		s.log.Debug("cannot record the cluster's position", "err", err)
	}
	s.mu.Lock()
	s.saved = saved
	s.mu.Unlock()
}

// renumbered brings the trees of the other sessions up to date.
func (s *Server) renumbered(from, to object.InstanceID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, ss := range s.sessions {
		if id != object.RootSession {
			ss.tree.Renumber(from, to)
		}
	}
}

func clusterRecord(saved meta.Saved) []byte {
	w := journal.Begin(nil, recCluster)
	w.Uint(saved.HostID)
	w.Uint(uint64(saved.Number))
	w.Text(saved.At.Cluster)
	w.Uint(uint64(saved.At.Revision))
	return w
}

// replayCluster reads a record of remember.
func (s *Server) replayCluster(payload []byte) error {
	r := journal.NewReader(payload)
	saved := meta.Saved{HostID: r.Uint(), Number: object.InstanceID(r.Uint())}
	saved.At = meta.Position{Cluster: r.Text(), Revision: int64(r.Uint())}
	if r.Err() == nil {
		s.saved, s.remembers = saved, true
	}
	return r.Err()
}

// freeRemote frees the blobs of objects that another instance deleted.
func (ss *session) freeRemote(ids []object.ID) { ss.blobs.DropAll(nil, ids) }

// advertised is where other hosts reach this node: what --rpc-advertise says, or
// the address that was listened on when it is one of a network.
func (s *Server) advertised() string {
	if s.cfg.RPCAdvertise == "" {
		return ""
	}
	host, port, _ := net.SplitHostPort(s.cfg.RPCAdvertise)
	if port == "0" {
		port = strconv.Itoa(s.rpc.Addr().(*net.TCPAddr).Port)
	}
	return net.JoinHostPort(host, port)
}

// checkAdvertised dials the advertised address once and warns when nobody answers
// there: other hosts would wait in vain.
func (s *Server) checkAdvertised(ctx context.Context) {
	addr := s.advertised()
	if addr == "" {
		return
	}
	d := net.Dialer{Timeout: 3 * time.Second}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		s.log.Warn("the advertised address cannot be reached from here: other hosts may not reach this node", "advertise", addr, "err", err)
		return
	}
	nc.Close()
}
