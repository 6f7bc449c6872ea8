package policy

import (
	"fmt"
	"strings"
	"time"
)

// Pods is how a gateway treats the endpoints of a Service, whoever asks for them. The zero value leaves it to Kubernetes who is
// healthy.
type Pods struct {
	// HealthCheck asks each endpoint itself.
	HealthCheck HealthCheck
	// EjectAfter is the number of statuses of 500 and more in a row after which an endpoint gets nothing for some seconds; 0 for
	// never. At least half of the endpoints stay.
	EjectAfter uint32
	// MaxConnections and MaxRequests are open ones at a time, of one gateway to all endpoints; 0 for no limit.
	MaxConnections, MaxRequests uint32
	// SlowStart is how long a new endpoint gets less than its share; 0 for not at all.
	SlowStart time.Duration
}

// A HealthCheck is what is asked of an endpoint, and how often.
type HealthCheck struct {
	Kind HealthKind
	// Path is for HealthHTTP.
	Path     string
	Interval time.Duration
}

// HealthKind is what is asked.
type HealthKind uint8

// The kinds of health checks.
const (
	NoHealthCheck HealthKind = iota
	HealthHTTP               // GET of a path, answered 200
	HealthTCP                // a connection that can be opened
	HealthGRPC               // grpc.health.v1.Health
)

// String is "health=/healthz/10s eject=5 connections=10 requests=10 slow-start=30s"; empty for the zero value.
func (p Pods) String() string {
	var words []string
	if h := p.HealthCheck; h.Kind != NoHealthCheck {
		words = append(words, "health="+[...]string{"", h.Path, "tcp", "grpc"}[h.Kind]+"/"+h.Interval.String())
	}
	number := func(name string, n uint32) {
		if n != 0 {
			words = append(words, fmt.Sprintf("%s=%d", name, n))
		}
	}
	number("eject", p.EjectAfter)
	number("connections", p.MaxConnections)
	number("requests", p.MaxRequests)
	if p.SlowStart != 0 {
		words = append(words, "slow-start="+p.SlowStart.String())
	}
	return strings.Join(words, " ")
}
