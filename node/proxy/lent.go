package proxy

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// lent returns the addresses that other load balancers gave to Services of the given classes and that they leave to
// nodes to serve. Those of further classes are one Problem of this node: connections to them stay unanswered, unless the
// balancer translates them before.
func lent(s *model.Snapshot, self string, vips map[model.Key][]netip.Addr, classes []string) (map[model.Key][]netip.Addr, []model.Problem) {
	out := map[model.Key][]netip.Addr{}
	var all []netip.Addr
	var others []model.Key
	for _, key := range s.Services.SortedKeys() {
		_ = contain.Do(func() { // addServices tells of it
			svc := s.Services.Get(key)
			addrs := statusAddrs(svc)
			switch {
			case len(addrs) == 0 || len(vips[key]) > 0 || !proxied(svc):
			case believed(svc, classes):
				out[key] = addrs
				all = append(all, addrs...)
			default:
				others = append(others, key)
			}
		})
	}
	problems := refuse(s, out, all, vips)
	if len(others) > 0 {
		svc := s.Services.Get(others[0])
		problems = append(problems, model.Problemf(model.ObjectRef{Kind: "Node", Name: self}, "BalancerNotServed",
			"Other load balancers gave addresses to Services that this node does not serve (%d; the first is %s with %s). Unless the balancer translates "+
				"these addresses itself, allow its class: hythe node --balancer-class %q.", len(others), others[0], statusAddrs(svc)[0], class(svc)))
	}
	return out, problems
}

// refuse takes the addresses away that are somebody else's.
func refuse(s *model.Snapshot, lent map[model.Key][]netip.Addr, all []netip.Addr, vips map[model.Key][]netip.Addr) []model.Problem {
	slices.SortFunc(all, netip.Addr.Compare)
	taken := model.ForeignAddresses(s, all)
	for key, addrs := range vips {
		for _, a := range addrs {
			taken[a] = fmt.Sprintf("it is claimed for Service %s", key)
		}
	}
	var problems []model.Problem
	for key, addrs := range lent {
		lent[key] = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
			if taken[a] != "" {
				problems = append(problems, model.Problemf(model.Ref("Service", key), model.ReasonForeignAddress,
					"%s in its status is not served: %s. Its load balancer has to give it another address.", a, taken[a]))
			}
			return taken[a] != ""
		})
	}
	return problems
}

// statusAddrs are the addresses of a Service that another load balancer leaves to nodes, sorted. An absent ipMode means
// VIP, as in the API.
func statusAddrs(svc *corev1.Service) []netip.Addr {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || class(svc) == v1alpha1.LoadBalancerClass {
		return nil
	}
	var out []netip.Addr
	for _, in := range svc.Status.LoadBalancer.Ingress {
		addr, err := netip.ParseAddr(in.IP)
		if err == nil && addr.Zone() == "" && (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) {
			out = append(out, addr.Unmap())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func class(svc *corev1.Service) string {
	if svc.Spec.LoadBalancerClass == nil {
		return ""
	}
	return *svc.Spec.LoadBalancerClass
}

func believed(svc *corev1.Service, classes []string) bool {
	return slices.Contains(classes, "*") || slices.Contains(classes, class(svc))
}
