package health

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// Build returns what the node named self says of itself. own tells which endpoints are refused, and addresses where the node
// is asked. Of two Services that claim one port the older one has it, as for NodePorts.
func Build(s *model.Snapshot, self string, own model.Own, addresses []netip.Prefix) (State, []model.Problem) {
	state := State{Services: map[uint16]Service{}, Addresses: addresses}
	if node := s.Nodes[self]; node != nil {
		state.Eligible = !node.Leaving
	}
	var problems []model.Problem
	for _, key := range asked(s) {
		svc := s.Services.Get(key)
		problems = append(problems, model.Contain(model.Ref("Service", key), "Its healthCheckNodePort is not served on this node", func() {
			port := svc.Spec.HealthCheckNodePort
			if port > 65535 {
				problems = append(problems, model.Problemf(model.Ref("Service", key), "InvalidHealthCheckNodePort",
					"spec.healthCheckNodePort is %d, which is no port.", port))
				return
			}
			if has, taken := state.Services[uint16(port)]; taken {
				problems = append(problems, model.Problemf(model.Ref("Service", key), "HealthCheckNodePortConflict",
					"healthCheckNodePort %d belongs to Service %s already. Give one of them another port.", port, has.Key))
				return
			}
			state.Services[uint16(port)] = count(key, svc, s.Endpoints.Get(key), self, own)
		})...)
	}
	return state, model.SortProblems(problems)
}

// A Builder is Build with a memory: while nothing but other Services and their endpoints changes, there is nothing to do.
type Builder struct {
	snapshot  *model.Snapshot // of the last Build, nil before
	addresses []netip.Prefix
	asked     map[model.Key]bool
	claimed   map[netip.Addr]bool // what claims name: it decides which endpoints count
	state     State
	problems  []model.Problem
}

// Build is the function Build. ports are those that no endpoint may have.
func (b *Builder) Build(s *model.Snapshot, self string, ports model.OwnPorts, addresses []netip.Prefix) (State, []model.Problem) {
	keys, known := s.ServicesSince(b.snapshot)
	known = known && slices.Equal(addresses, b.addresses)
	if b.snapshot == nil || !known || slices.ContainsFunc(keys, func(k model.Key) bool { return b.concerns(k, s) }) {
		b.state, b.problems = Build(s, self, model.OwnOf(s, ports), addresses)
		b.asked = map[model.Key]bool{}
		for _, svc := range b.state.Services {
			b.asked[svc.Key] = true
		}
		b.claimed = map[netip.Addr]bool{}
		for _, c := range s.Claims {
			_ = contain.Do(func() { // the controller tells of it
				if a, err := netip.ParseAddr(c.Spec.Address); err == nil {
					b.claimed[a.Unmap()] = true
				}
			})
		}
	}
	b.snapshot, b.addresses = s, addresses
	return b.state, b.problems
}

// concerns says whether a Service that changed may change the State: it asks, or asked, or has a claimed address as its own.
func (b *Builder) concerns(key model.Key, s *model.Snapshot) bool {
	if b.asked[key] {
		return true
	}
	old, svc := b.snapshot.Services.Get(key), s.Services.Get(key)
	if old == svc {
		return false
	}
	concerns := false
	err := contain.Do(func() {
		for _, o := range []*corev1.Service{old, svc} {
			if o != nil {
				concerns = concerns || o.Spec.HealthCheckNodePort > 0 || slices.ContainsFunc(model.ClusterIPs(o), func(a netip.Addr) bool { return b.claimed[a] })
			}
		}
	})
	return concerns || err != nil
}

// asked are the Services with a healthCheckNodePort, the oldest first.
func asked(s *model.Snapshot) []model.Key {
	var keys []model.Key
	for key, svc := range s.Services.All() {
		_ = contain.Do(func() { // proxy.Build tells of it
			if svc.Spec.HealthCheckNodePort > 0 && svc.Spec.Type == corev1.ServiceTypeLoadBalancer &&
				svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && proxy.Serves(svc) {
				keys = append(keys, key)
			}
		})
	}
	slices.SortFunc(keys, model.CompareKeys)
	slices.SortStableFunc(keys, func(a, b model.Key) int {
		return model.CompareAge(s.Services.Get(a).CreationTimestamp.Time, s.Services.Get(b).CreationTimestamp.Time)
	})
	return keys
}

// count counts the ready endpoints on this node, each address once, however many ports it has.
func count(key model.Key, svc *corev1.Service, eps *model.ServiceEndpoints, self string, own model.Own) Service {
	out := Service{Key: key, Only: only(svc)}
	for i := range svc.Spec.Ports {
		port := &svc.Spec.Ports[i]
		allowed, _ := own.Allowed(key, port, eps.Port(port.Name, model.ProtocolOf(port))) // proxy.Build tells of it
		for _, e := range allowed {
			if e.Node == self && e.Ready {
				out.Endpoints = append(out.Endpoints, e.AddrPort.Addr().Unmap())
			}
		}
	}
	slices.SortFunc(out.Endpoints, netip.Addr.Compare)
	out.Endpoints = slices.Compact(out.Endpoints)
	return out
}

// only is the family of a Service's ClusterIPs, 0 for both.
func only(svc *corev1.Service) int {
	has := map[int]bool{}
	for _, a := range model.ClusterIPs(svc) {
		has[familyOf(a)] = true
	}
	switch {
	case has[4] && !has[6]:
		return 4
	case has[6] && !has[4]:
		return 6
	}
	return 0
}
