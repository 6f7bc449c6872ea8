package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/xds"
)

// Options say how a Server serves.
type Options struct {
	// Socket is the path of the unix socket. Its folder is made if need be.
	Socket string
	// AllowUIDs are the users that may connect, besides the own one and root.
	AllowUIDs []uint32
	// Grace is how long Envoy keeps a cluster after its last route; default 5 s.
	Grace time.Duration
	// AccessLogs takes the access logs that Envoy sends on the same socket; nil for none.
	AccessLogs accesslogv3.AccessLogServiceServer
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
	// Log takes what administrators should see; nil for none.
	Log *slog.Logger
}

// A Server sends the latest Resources to each Envoy that connects.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	options Options
	log     *slog.Logger
	metrics *metrics
	changed chan struct{}

	mu       sync.Mutex
	target   *xds.Resources
	sessions map[*session]struct{}
}

// New makes a Server. It fails if the metrics cannot be registered.
func New(options Options) (*Server, error) {
	options.Grace = cmp.Or(options.Grace, 5*time.Second)
	s := &Server{
		options: options, log: options.Log, changed: make(chan struct{}, 1), sessions: map[*session]struct{}{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.metrics, err = newMetrics(options.Registerer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return s, nil
}

// Set makes resources what all Envoys should have. It never waits for one of them.
func (s *Server) Set(resources xds.Resources) {
	s.mu.Lock()
	s.target = &resources
	for session := range s.sessions {
		session.target.Put(&resources)
	}
	s.mu.Unlock()
	s.signal()
}

// Changed is readable when Status may have changed.
func (s *Server) Changed() <-chan struct{} { return s.changed }

func (s *Server) signal() { run.Wake(s.changed) }

// Run listens and serves until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	l, err := listen(s.options.Socket, s.options.AllowUIDs, s.log)
	if err != nil {
		return fmt.Errorf("listen for Envoy: %w", err)
	}
	g := grpc.NewServer(
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(64<<20), // all names of a large configuration come in one request
	)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	if s.options.AccessLogs != nil {
		accesslogv3.RegisterAccessLogServiceServer(g, s.options.AccessLogs)
	}
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) && ctx.Err() == nil {
		return fmt.Errorf("serve Envoy: %w", err)
	}
	return nil
}

// DeltaAggregatedResources serves one Envoy. The state-of-the-world form is not implemented.
func (s *Server) DeltaAggregatedResources(
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	session := &session{
		server: s, stream: stream, target: run.NewLatest[*xds.Resources](), machine: newMachine(s.options.Grace),
	}
	s.mu.Lock()
	s.sessions[session] = struct{}{}
	if s.target != nil {
		session.target.Put(s.target)
	}
	s.mu.Unlock()
	s.metrics.streams.Inc()
	s.log.Info("Envoy connected")
	defer func() {
		s.mu.Lock()
		delete(s.sessions, session)
		s.mu.Unlock()
		s.metrics.streams.Dec()
		s.log.Info("Envoy disconnected")
		s.signal()
	}()
	return session.run()
}

// Status says how far the connected Envoys are.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{Streams: len(s.sessions)}
	if s.target == nil || len(s.sessions) == 0 {
		return out
	}
	out.Ready = true
	var machines []*machine
	for session := range s.sessions {
		session.mu.Lock()
		defer session.mu.Unlock() // not before served has read all machines
		machines = append(machines, session.machine)
		p := session.machine.progress()
		if session.machine.target != s.target {
			out.Outstanding++ // it was not looked at yet
		}
		out.Ready = out.Ready && session.settled
		out.Outstanding += p.outstanding
		out.Refused = append(out.Refused, p.refused...)
	}
	out.served(s.target, machines)
	slices.SortFunc(out.Refused, compareRefusals)
	return out
}
