package answer

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/trace/asked"
)

// A ServiceQuery asks for a Service by its name or by an address.
type ServiceQuery struct {
	Service model.Key // or
	Addr    netip.Addr
	// Port and Protocol choose among Services that share an address; Port 0 takes any.
	Port     uint16
	Protocol corev1.Protocol
	// From is NAMESPACE/NAME of a pod to look for, or empty.
	From string
}

// FindService looks a Service up in a Snapshot. Where there is none, the answer has no Object, and the nodes only.
func FindService(s *model.Snapshot, q ServiceQuery) asked.ServiceAnswer {
	key, found := q.Service, s.Services.Get(q.Service) != nil
	if q.Addr.IsValid() {
		key, found = serviceAt(s, q)
	}
	var out asked.ServiceAnswer
	if found {
		out = serviceAnswer(s, key)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		n := s.Nodes[name]
		out.Nodes = append(out.Nodes, asked.NodeAnswer{Name: n.Name, Addresses: n.Addresses, PodCIDRs: n.PodCIDRs})
	}
	if namespace, pod, ok := strings.Cut(q.From, "/"); ok {
		out.From = findPod(s, namespace, pod)
	}
	return out
}

// serviceAt finds the Service that has an address, with the port if one of them has it.
func serviceAt(s *model.Snapshot, q ServiceQuery) (model.Key, bool) {
	claimed := map[model.Key]bool{}
	for _, c := range s.Claims {
		if a, err := netip.ParseAddr(c.Spec.Address); err != nil || a != q.Addr {
			continue
		}
		for _, ref := range c.Spec.Services {
			claimed[model.Key{Namespace: ref.Namespace, Name: ref.Name}] = true
		}
	}
	onNode := false
	for _, n := range s.Nodes {
		onNode = onNode || slices.Contains(n.Addresses, q.Addr)
	}
	var best model.Key
	found := false
	for _, key := range s.Services.SortedKeys() {
		svc := s.Services.Get(key)
		has := claimed[key] || svc.Spec.ClusterIP == q.Addr.String() || slices.Contains(svc.Spec.ClusterIPs, q.Addr.String())
		if has && !found {
			best, found = key, true
		}
		for _, p := range svc.Spec.Ports {
			if model.ProtocolOf(&p) != q.Protocol {
				continue
			}
			if has && uint16(p.Port) == q.Port || onNode && q.Port != 0 && uint16(p.NodePort) == q.Port {
				return key, true
			}
		}
	}
	return best, found
}

func serviceAnswer(s *model.Snapshot, key model.Key) asked.ServiceAnswer {
	svc := s.Services.Get(key)
	out := asked.ServiceAnswer{
		Decider: asked.Decider{Object: model.Ref("Service", key), Since: svc.CreationTimestamp.Time},
		Type:    string(svc.Spec.Type), Local: svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
	}
	if out.Type == "" {
		out.Type = string(corev1.ServiceTypeClusterIP)
	}
	if svc.Spec.LoadBalancerClass != nil {
		out.Class = *svc.Spec.LoadBalancerClass
	}
	texts := svc.Spec.ClusterIPs
	if len(texts) == 0 {
		texts = []string{svc.Spec.ClusterIP}
	}
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out.ClusterIPs = append(out.ClusterIPs, a)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Claims)) {
		c := s.Claims[name]
		a, err := netip.ParseAddr(c.Spec.Address)
		for _, ref := range c.Spec.Services {
			if err == nil && ref.Namespace == key.Namespace && ref.Name == key.Name {
				out.VIPs = append(out.VIPs, asked.ClaimAnswer{
					Decider: asked.Decider{Object: model.ObjectRef{Kind: "AddressClaim", Name: name}, Since: c.CreationTimestamp.Time},
					Addr:    a, Pool: c.Spec.Pool, Announce: c.Spec.Announce,
				})
			}
		}
	}
	for i := range svc.Spec.Ports {
		out.Ports = append(out.Ports, portAnswer(&svc.Spec.Ports[i], s.Endpoints.Get(key)))
	}
	return out
}

func portAnswer(port *corev1.ServicePort, endpoints *model.ServiceEndpoints) asked.PortAnswer {
	protocol := model.ProtocolOf(port)
	p := asked.PortAnswer{Name: port.Name, Port: uint16(port.Port), NodePort: uint16(port.NodePort), Protocol: strings.ToLower(string(protocol))}
	all := endpoints.Port(port.Name, protocol)
	usable := model.Usable(all)
	for _, e := range all {
		p.Endpoints = append(p.Endpoints, asked.EndpointAnswer{
			Address: e.AddrPort, Node: e.Node, Pod: e.Pod, Ready: e.Ready, Usable: slices.Contains(usable, e),
		})
	}
	return p
}

// findPod looks for a pod among the endpoints of all Services of its namespace.
func findPod(s *model.Snapshot, namespace, pod string) asked.EndpointAnswer {
	for _, key := range s.Endpoints.SortedKeys() {
		if key.Namespace != namespace {
			continue
		}
		for _, p := range s.Endpoints.Get(key).Ports {
			for _, e := range p.Endpoints {
				if e.Pod == pod {
					return asked.EndpointAnswer{Address: e.AddrPort, Node: e.Node, Pod: e.Pod, Ready: e.Ready}
				}
			}
		}
	}
	return asked.EndpointAnswer{}
}
