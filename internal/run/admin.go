package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Admin is what each process shows of itself over HTTP: /healthz, /readyz, /metrics and /debug/NAME.
type Admin struct {
	// Ready returns nil when the process does its work, else why it does not yet.
	Ready func() error
	// Gatherer serves /metrics.
	Gatherer prometheus.Gatherer
	// Debug are text forms by name, for people. They hold no secrets.
	Debug map[string]func(io.Writer)
	// Inspect are answers for machines by name, served as JSON under /inspect/NAME. An error is answered with 404 if it
	// is ErrNotFound, with 400 if it is ErrBadQuery, else with 500. They hold no secrets. Who asks sends InspectHeader.
	Inspect map[string]Inspector
	// Shared names those of Inspect that cost much: all who ask the same wait for one answer, made once a second at most.
	Shared []string
}

// An Inspector answers a question about what a process has, from where it is in use: the kernel, Envoy, the wire.
type Inspector func(ctx context.Context, query url.Values) (any, error)

var (
	// ErrNotFound says that what was asked for is not there.
	ErrNotFound = errors.New("not found")
	// ErrBadQuery says that the question cannot be understood.
	ErrBadQuery = errors.New("bad query")
)

// Public is the part of a that may be seen from other hosts: /healthz, /readyz and /metrics.
func (a Admin) Public() Admin { return Admin{Ready: a.Ready, Gatherer: a.Gatherer} }

// Handler serves the admin pages.
func (a Admin) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if a.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(a.Gatherer, promhttp.HandlerOpts{}))
	}
	names := make([]string, 0, len(a.Debug))
	for name, write := range a.Debug {
		names = append(names, name)
		mux.HandleFunc("GET /debug/"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			write(w)
		})
	}
	gate := newGate(a.Shared)
	for name, answer := range a.Inspect {
		mux.HandleFunc("GET /inspect/"+name, gate.handle(name, answer))
	}
	if len(names) == 0 {
		return mux
	}
	slices.Sort(names)
	mux.HandleFunc("GET /debug", func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range names {
			fmt.Fprintf(w, "/debug/%s\n", name)
		}
	})
	return mux
}

func inspect(w http.ResponseWriter, r *http.Request, answer Inspector) {
	out, err := answer(r.Context(), r.URL.Query())
	code := http.StatusInternalServerError
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
		return
	case errors.Is(err, ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, ErrBadQuery):
		code = http.StatusBadRequest
	case errors.Is(err, errBusy):
		code = http.StatusServiceUnavailable
	}
	http.Error(w, err.Error(), code)
}

// Serve listens on addr ("HOST:PORT", or "unix:PATH") until ctx is done. An empty addr serves nothing.
func (a Admin) Serve(ctx context.Context, addr string) error {
	if addr == "" {
		<-ctx.Done()
		return nil
	}
	network, address := "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, address = "unix", path
		if err := removeStale(path); err != nil {
			return err
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return fmt.Errorf("listen for admin pages: %w", err)
	}
	s := &http.Server{Handler: a.Handler(), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: answerWithin, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin pages: %w", err)
	}
	return nil
}

// removeStale removes the socket that a killed process left at path. One that somebody still serves stays.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil // nothing is there, or what Listen will refuse
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return fmt.Errorf("listen for admin pages: another process serves %s: end it, or choose another --admin", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove socket of an ended process: %w", err)
	}
	return nil
}
