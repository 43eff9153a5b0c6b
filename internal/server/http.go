package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/v6d-go/v6d/internal/status"
)

// listenHTTP opens the listener for health checks and metrics, if asked for.
func (s *Server) listenHTTP() error {
	if s.cfg.HTTPListen == "off" {
		return nil
	}
	l, err := net.Listen("tcp", s.cfg.HTTPListen)
	if err != nil {
		return status.Errorf(status.IOError, "--http-listen: %w", err).WithHint("choose a free port, or --http-listen off")
	}
	s.http, s.report.HTTP = l, l.Addr().String()
	s.timings = newTimings()
	return nil
}

// serveHTTP answers until ctx ends.
func (s *Server) serveHTTP(ctx context.Context) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{s}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { s.answerHealth(w, s.healthy()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { s.answerHealth(w, s.ready()) })
	scrape := promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		// Who stops reading must not keep others from asking.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(30 * time.Second))
		scrape.ServeHTTP(w, r)
	})
	if s.cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(s.http); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) answerHealth(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "ok")
}

// healthy fails when the store does not answer: a daemon that should be
// restarted.
func (s *Server) healthy() error {
	answered := make(chan struct{})
	go func() {
		s.store.Usage()
		close(answered)
	}()
	select {
	case <-answered:
		return nil
	case <-time.After(2 * time.Second):
		return errors.New("the store has not answered for 2 s")
	}
}

// ready fails when the daemon cannot take new work: it stops, or a client
// truncated the pool.
func (s *Server) ready() error {
	if s.draining.Load() {
		return errors.New("the daemon is stopping")
	}
	return errors.Join(s.healthy(), s.store.CheckFiles())
}
