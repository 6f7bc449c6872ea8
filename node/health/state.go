package health

import (
	"cmp"
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
	// Endpoints are the addresses of ready endpoints on this node, sorted.
	Endpoints []netip.Addr
	// Only is 4 or 6 for a Service of one family, 0 for one of both. A balancer may ask a node of both families at any address.
	Only int
}

// endpoints is the number for who asks at an address: that of its family, if the Service has it.
func (s Service) endpoints(at netip.Addr) int { return s.count(cmp.Or(s.Only, familyOf(at))) }

// count is the number of endpoints of a family, 4 or 6.
func (s Service) count(of int) (n int) {
	for _, a := range s.Endpoints {
		if familyOf(a) == of {
			n++
		}
	}
	return n
}

func familyOf(a netip.Addr) int {
	if a.Unmap().Is6() {
		return 6
	}
	return 4
}

// at says whether an address of the node is asked.
func (s State) at(a netip.Addr) bool {
	return s.Addresses == nil || a.IsLoopback() || slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// within returns s with those of its endpoints that there are in the kernel: none if that has another Service there. A family that the kernel
// does not have yet is none of the Service's.
func (s Service) within(there Service) Service {
	if there.Key != s.Key {
		there = Service{}
	}
	s.Endpoints = slices.DeleteFunc(slices.Clone(s.Endpoints), func(a netip.Addr) bool { return !slices.Contains(there.Endpoints, a) })
	s.Only = cmp.Or(s.Only, there.Only)
	return s
}
