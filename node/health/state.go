package health

import (
	"net/netip"
	"slices"

	"hythe.dev/hythe/internal/model"
)

// State is what a node says of itself. Nobody changes it once Build returned it.
type State struct {
	// Services are those with a healthCheckNodePort, by that port.
	Services map[uint16]Service
	// Eligible says that the node is there and stays: new connections are welcome.
	Eligible bool
	// Addresses are ranges in which the addresses of this node are asked; nil is everywhere.
	Addresses []netip.Prefix
}

// A Service is one that is asked about.
type Service struct {
	model.Key
	// Endpoints4 and Endpoints6 are the numbers of addresses of ready endpoints on this node.
	Endpoints4, Endpoints6 int
	// Only is 4 or 6 for a Service of one family, 0 for one of both. A balancer may ask a node of both families at any address.
	Only int
}

// endpoints is the number for who asks at an address: that of its family, if the Service has it.
func (s Service) endpoints(at netip.Addr) int {
	if s.Only == 6 || s.Only == 0 && at.Unmap().Is6() {
		return s.Endpoints6
	}
	return s.Endpoints4
}

// at says whether an address of the node is asked.
func (s State) at(a netip.Addr) bool {
	return s.Addresses == nil || a.IsLoopback() || slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// within returns s with no more endpoints than there are in the kernel: none if that has another Service there.
func (s Service) within(there Service) Service {
	if there.Key != s.Key {
		there = Service{}
	}
	s.Endpoints4, s.Endpoints6 = min(s.Endpoints4, there.Endpoints4), min(s.Endpoints6, there.Endpoints6)
	return s
}
