package server

import (
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/xds"
)

// A session is one Envoy's stream: it moves messages between the stream and its machine.
type session struct {
	server *Server
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	target *run.Latest[*xds.Resources]

	mu      sync.Mutex // guards what follows; never held while sending
	machine *machine
	settled bool      // has once acknowledged all of a configuration
	since   time.Time // of the oldest Set that is not all acknowledged
	counted [6]counts
	noted   map[string]bool // refusals that were logged
}

// run serves the stream until it ends.
func (s *session) run() error {
	ctx := s.stream.Context()
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	failed := make(chan error, 1)
	go func() {
		for {
			request, err := s.stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- request:
			case <-ctx.Done():
				return
			}
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var request *discoveryv3.DeltaDiscoveryRequest
		var target *xds.Resources
		select {
		case request = <-requests:
		case <-s.target.Ready():
			target, _ = s.target.Take()
		case <-timer.C:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		responses, wake := s.step(time.Now(), request, target)
		for _, r := range responses {
			if err := s.stream.Send(r); err != nil {
				return err
			}
		}
		wait := time.Hour
		if !wake.IsZero() {
			wait = time.Until(wake)
		}
		timer.Reset(wait)
	}
}

// step gives the machine what happened and returns what to send and when to come again.
func (s *session) step(now time.Time, request *discoveryv3.DeltaDiscoveryRequest, target *xds.Resources,
) ([]*discoveryv3.DeltaDiscoveryResponse, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if target != nil {
		s.machine.Set(target)
		if s.since.IsZero() {
			s.since = now
		}
	}
	if request != nil {
		s.machine.Receive(now, request)
	}
	responses := s.machine.Send(now)
	p := s.machine.progress()
	if p.settled {
		s.settled = true
		if !s.since.IsZero() {
			s.server.metrics.settled.Observe(now.Sub(s.since).Seconds())
			s.since = time.Time{}
		}
	}
	s.count()
	s.note(p.refused)
	s.server.signal()
	return responses, s.machine.Wake()
}

func (s *session) count() {
	for i, l := range s.machine.lanes {
		old, kind := s.counted[i], l.kind.String()
		s.server.metrics.pushes.WithLabelValues(kind).Add(float64(l.counts.pushes - old.pushes))
		s.server.metrics.resources.WithLabelValues(kind).Add(float64(l.counts.resources - old.resources))
		s.server.metrics.acks.WithLabelValues(kind).Add(float64(l.counts.acks - old.acks))
		s.server.metrics.nacks.WithLabelValues(kind).Add(float64(l.counts.nacks - old.nacks))
		s.counted[i] = l.counts
	}
}

// note logs each refusal once.
func (s *session) note(refused []Refusal) {
	now := map[string]bool{}
	for _, r := range refused {
		id := r.Kind.String() + " " + r.Name + " " + r.Version
		now[id] = true
		if !s.noted[id] {
			s.server.log.Warn("Envoy refuses a resource", "kind", r.Kind.String(), "name", r.Name,
				"version", r.Version, "reason", r.Reason)
		}
	}
	s.noted = now
}
