package authz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/xds"
)

// Options say where a Server is, and how much it may do at a time. Zero values are the defaults.
type Options struct {
	// Socket is the path of its unix socket, and Table that of the file of the gateway.
	Socket, Table string
	// Timeout is how long a server that is asked may take; default 10 s.
	Timeout time.Duration
	// Asks is how many questions to servers may be under way; default 1,024.
	Asks int
	// Compares is how many dear hashes are compared at a time; default half of the processors, at least one. Waiting is how
	// many may wait for that; default 64.
	Compares, Waiting int
	Log               *slog.Logger
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// A Server answers one Envoy.
type Server struct {
	authv3.UnimplementedAuthorizationServer

	options Options
	table   auth.Reader
	doors   *dialer
	answers *memory[answer]
	right   *memory[struct{}]
	asks    chan struct{}
	compare chan struct{}
	waiting chan struct{}
	salt    [32]byte
	told    *rate.Limiter
}

// New returns a Server that is not running.
func New(o Options) *Server {
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.Asks = cmp.Or(o.Asks, 1024)
	o.Compares = cmp.Or(o.Compares, max(1, runtime.GOMAXPROCS(0)/2))
	o.Waiting = cmp.Or(o.Waiting, 64)
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		options: o, table: auth.Reader{Path: o.Table}, doors: newDialer(),
		answers: newMemory[answer](mostAnswers, mostAnswerBytes), right: newMemory[struct{}](mostRight, mostRight*rightBytes),
		asks: make(chan struct{}, o.Asks), compare: make(chan struct{}, o.Compares), waiting: make(chan struct{}, o.Waiting),
	}
	s.told = rate.NewLimiter(1, 10)
	fillSalt(&s.salt)
	return s
}

// Run serves until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	l, err := listen(s.options.Socket)
	if err != nil {
		return fmt.Errorf("listen for Envoy's questions: %w", err)
	}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(1 << 20)) // all headers of a request, of which Envoy takes 60 KiB
	authv3.RegisterAuthorizationServer(g, s)
	// A moment is left for what is under way: Envoy asks somebody new then.
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(2*time.Second, g.Stop)
		defer timer.Stop()
		g.GracefulStop()
	})
	defer stop()
	if err := g.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) && ctx.Err() == nil {
		return fmt.Errorf("serve Envoy's questions: %w", err)
	}
	return nil
}

// listen makes the socket under a temporary name and renames it, so that it takes the place of a predecessor's at once.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make socket folder: %w", err)
	}
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: next, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // a successor may have its own there by then
	if err := errors.Join(os.Chmod(next, 0o660), os.Rename(next, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("place socket: %w", err), l.Close())
	}
	return l, nil
}

// Check answers whether a request may come in.
func (s *Server) Check(ctx context.Context, check *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	v := closed(503)
	name := check.GetAttributes().GetContextExtensions()[xds.AuthEntry]
	if fault := contain.Do(func() { v = s.decide(ctx, name, newRequest(check)) }); fault != nil {
		v = closed(503)
		s.warn("panic while it was checked", name, fault)
	}
	return v.response(), nil
}

// warn tells of a request that was answered 503, of some of them: clients decide how many there are.
func (s *Server) warn(why, entry string, err error) {
	if s.told.Allow() {
		s.options.Log.Warn("a request was answered 503: "+why, "entry", entry, "error", err)
	}
}

// decide asks all that an entry wants to be asked.
func (s *Server) decide(ctx context.Context, name string, r *request) verdict {
	entry, version, err := s.table.Entry(name)
	if err != nil {
		s.warn("its entry cannot be read", name, err)
		return closed(503)
	}
	var byPassword, byServer verdict
	switch {
	case len(entry.Users) == 0 && entry.Ask == nil:
		return closed(503)
	case len(entry.Users) > 0:
		byPassword = s.password(ctx, entry, r)
		if entry.Ask == nil || byPassword.ok == entry.Any {
			return byPassword.unasked(entry.Ask)
		}
	}
	byServer = s.ask(ctx, name, version, entry.Ask, r)
	if len(entry.Users) > 0 && byServer.ok && !entry.Any {
		byServer = byServer.without("authorization") // the gateway's password is not the backend's
	}
	return byServer
}
