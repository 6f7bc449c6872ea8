package health

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"hythe.dev/hythe/internal/model"
)

// Late is for how long changes of Services may wait for the kernel until the node says that it is not well: that of
// kube-proxy, twice its --ipvs-sync-period.
const Late = time.Minute

// again is when a port that somebody else had is tried once more.
const again = 2 * time.Second

// A Server answers load balancers.
type Server struct {
	log     *slog.Logger
	address string // of /healthz, empty for none

	wake chan struct{}

	mu      sync.Mutex // guards what follows
	state   State
	there   map[uint16]Service // what the kernel has of state.Services, or of those before; nobody changes it
	pending time.Time          // since when a change waits for the kernel, zero for none
	updated time.Time          // when the last one came there
	failed  map[uint16]error   // ports that cannot be served
	healthz error              // why /healthz is not served
}

// NewServer makes a Server that serves nothing before Run. address is where /healthz and /livez are, such as ":10256"; empty
// for nowhere.
func NewServer(log *slog.Logger, address string) *Server {
	return &Server{log: log, address: address, wake: make(chan struct{}, 1), failed: map[uint16]error{}}
}

// Set makes the server say s: what is gone at once, and what is new from Applied on, when the kernel has it. Ports are opened and
// closed by Run.
func (s *Server) Set(state State) {
	s.mu.Lock()
	s.state = state
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Queued notes that a change of Services is on its way to the kernel, Applied that there is none that is not there.
func (s *Server) Queued() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending.IsZero() {
		s.pending = time.Now()
	}
}

// Applied ends what Queued began: the kernel has what Set was last given.
func (s *Server) Applied() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending, s.updated = time.Time{}, time.Now()
	s.there = s.state.Services
}

// healthy is called with mu held.
func (s *Server) healthy() bool { return s.pending.IsZero() || time.Since(s.pending) < Late }

// Problems names the ports that cannot be served, on which balancers take this node for one without endpoints.
func (s *Server) Problems(node string) []model.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []model.Problem
	for _, port := range slices.Sorted(maps.Keys(s.failed)) {
		if _, there := s.state.Services[port]; !there {
			continue
		}
		out = append(out, model.Problemf(model.Ref("Service", s.state.Services[port].Key), "HealthCheckNodePortTaken",
			"healthCheckNodePort %d is not served on node %s, so that load balancers take it for a node without endpoints: %v. End what listens there, or give the Service another port.",
			port, node, s.failed[port]))
	}
	if s.healthz != nil {
		out = append(out, model.Problemf(model.ObjectRef{Kind: "Node", Name: node}, "HealthzNotServed",
			"/healthz is not served at %s: %v. End what listens there, or choose another address by --healthz-address.", s.address, s.healthz))
	}
	return out
}

// Run serves until ctx is done. A port that is taken is tried again until it is free.
func (s *Server) Run(ctx context.Context) error {
	open := map[uint16]*listener{}
	var healthz *listener
	var group sync.WaitGroup
	defer group.Wait()
	defer func() {
		for _, l := range open {
			l.close()
		}
		healthz.close()
	}()
	retry := time.NewTicker(again)
	defer retry.Stop()
	for {
		if s.address != "" && (healthz == nil || healthz.ended.Load()) {
			l, err := listen(ctx, s.address, s, s.node())
			if err == nil {
				healthz = l
				group.Go(l.serve)
			}
			s.note(func() { s.healthz = err })
		}
		s.ports(ctx, open, &group)
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-retry.C:
		}
	}
}

// ports closes those that no Service has any more, and opens new ones.
func (s *Server) ports(ctx context.Context, open map[uint16]*listener, group *sync.WaitGroup) {
	s.mu.Lock()
	want := s.state.Services
	s.mu.Unlock()
	for port, l := range open {
		if _, stays := want[port]; !stays {
			l.close()
			delete(open, port)
		}
	}
	failed := map[uint16]error{}
	for port := range want {
		if l := open[port]; l != nil && !l.ended.Load() {
			continue
		}
		l, err := listen(ctx, ":"+strconv.Itoa(int(port)), s, s.ServiceHandler(port))
		if err != nil {
			failed[port] = err
			continue
		}
		open[port] = l
		group.Go(l.serve)
	}
	s.note(func() {
		for port, err := range failed {
			if s.failed[port] == nil {
				s.log.Warn("a healthCheckNodePort cannot be served", "service", want[port].Key, "port", port, "error", err)
			}
		}
		s.failed = failed
	})
}

func (s *Server) note(what func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what()
}

// An answer is the body for a healthCheckNodePort.
type answer struct {
	Service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"service"`
	LocalEndpoints      int  `json:"localEndpoints"`
	ServiceProxyHealthy bool `json:"serviceProxyHealthy"`
}

// ServiceHandler answers at the port of one Service, whichever has it now.
func (s *Server) ServiceHandler(port uint16) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		svc, there := s.state.Services[port]
		svc = svc.within(s.there[port])
		healthy := s.healthy()
		s.mu.Unlock()
		if !there { // it went just now
			http.NotFound(w, r)
			return
		}
		var a answer
		a.Service.Namespace, a.Service.Name = svc.Namespace, svc.Name
		a.LocalEndpoints, a.ServiceProxyHealthy = svc.endpoints(localAddr(r)), healthy
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(a.LocalEndpoints))
		reply(w, a.LocalEndpoints > 0 && healthy, a)
	})
}

// A nodeAnswer is the body of /healthz and /livez.
type nodeAnswer struct {
	LastUpdated  time.Time `json:"lastUpdated"`
	CurrentTime  time.Time `json:"currentTime"`
	NodeEligible *bool     `json:"nodeEligible,omitempty"`
}

// node answers for the node itself.
func (s *Server) node() http.Handler {
	page := func(w http.ResponseWriter, eligible bool) {
		s.mu.Lock()
		ok := s.healthy()
		a := nodeAnswer{LastUpdated: s.updated, CurrentTime: time.Now()}
		if eligible {
			is := s.state.Eligible // Set may change it while the answer is written
			a.NodeEligible = &is
			ok = ok && is
		}
		s.mu.Unlock()
		if ok { // nothing is waiting: what there is, is of now
			a.LastUpdated = a.CurrentTime
		}
		reply(w, ok, a)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { page(w, true) })
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { page(w, false) })
	return mux
}

func reply(w http.ResponseWriter, ok bool, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body) // who asked is gone
}
