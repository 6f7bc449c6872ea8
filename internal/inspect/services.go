package inspect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// Services compares, Service by Service, the frontends that Build wants of a node's datapath with those that were read
// from its kernel. read is nil where there is no table.
func Services(s *model.Snapshot, want, read map[proxy.Frontend]proxy.Backends) []ServiceAnswer {
	vips := claimedBy(s)
	out := make([]ServiceAnswer, 0, s.Services.Len())
	for _, key := range s.Services.SortedKeys() {
		svc := s.Services.Get(key)
		a := ServiceAnswer{
			Namespace: key.Namespace, Name: key.Name, Type: string(cmp.Or(svc.Spec.Type, corev1.ServiceTypeClusterIP)),
			Since: svc.CreationTimestamp.Time,
		}
		if svc.Spec.ClusterIP == corev1.ClusterIPNone {
			a.Type = "Headless"
		}
		if svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
			a.VIPs = vips[key]
		}
		a.Ready, a.Total = count(s.Endpoints.Get(key))
		for _, f := range frontendsOf(svc, a.VIPs) {
			if backends, wanted := want[f]; wanted {
				a.Frontends = append(a.Frontends, frontend(f, backends, read))
			}
		}
		out = append(out, a)
	}
	return out
}

// frontendsOf are all places at which a Service may be reached, sorted. Those that are not wanted have no datapath: of
// another proxy, or taken by another Service.
func frontendsOf(svc *corev1.Service, vips []netip.Addr) []proxy.Frontend {
	clusterIPs := svc.Spec.ClusterIPs
	if len(clusterIPs) == 0 {
		clusterIPs = []string{svc.Spec.ClusterIP}
	}
	var out []proxy.Frontend
	for i := range svc.Spec.Ports {
		port := &svc.Spec.Ports[i]
		protocol := map[corev1.Protocol]proxy.Protocol{
			corev1.ProtocolTCP: proxy.TCP, corev1.ProtocolUDP: proxy.UDP, corev1.ProtocolSCTP: proxy.SCTP,
		}[model.ProtocolOf(port)]
		add := func(a netip.Addr, number int32) {
			out = append(out, proxy.Frontend{Addr: a.Unmap(), Protocol: protocol, Port: uint16(number)})
		}
		for _, text := range clusterIPs {
			if a, err := netip.ParseAddr(text); err == nil {
				add(a, port.Port)
			}
		}
		if port.NodePort != 0 {
			add(netip.IPv4Unspecified(), port.NodePort)
			add(netip.IPv6Unspecified(), port.NodePort)
		}
		for _, a := range vips {
			add(a, port.Port)
		}
	}
	slices.SortFunc(out, proxy.Frontend.Compare)
	return slices.Compact(out)
}

// claimedBy returns the claimed addresses of each Service, sorted.
func claimedBy(s *model.Snapshot) map[model.Key][]netip.Addr {
	out := map[model.Key][]netip.Addr{}
	for _, claim := range s.Claims {
		addr, err := netip.ParseAddr(claim.Spec.Address)
		if err != nil {
			continue
		}
		for _, ref := range claim.Spec.Services {
			key := model.Key{Namespace: ref.Namespace, Name: ref.Name}
			out[key] = append(out[key], addr)
		}
	}
	for _, addrs := range out {
		slices.SortFunc(addrs, netip.Addr.Compare)
	}
	return out
}

// count counts endpoints by address and port.
func count(eps *model.ServiceEndpoints) (ready, total int) {
	if eps == nil {
		return 0, 0
	}
	for i := range eps.Ports {
		ready += len(model.Usable(eps.Ports[i].Endpoints))
		total += len(eps.Ports[i].Endpoints)
	}
	return ready, total
}

func frontend(f proxy.Frontend, want proxy.Backends, read map[proxy.Frontend]proxy.Backends) FrontendAnswer {
	have, exists := read[f]
	a := FrontendAnswer{
		Address: f.Addr, Protocol: f.Protocol.String(), Port: f.Port,
		Wanted: len(want.Inside), Read: len(have.Inside), OutsideWanted: len(want.Outside), OutsideRead: len(have.Outside),
	}
	switch {
	case exists:
	case read == nil:
		a.Differs = "the table inet hythe is not there"
		return a
	case f.NodePort() || !want.Empty(): // others without endpoints are refused by their address
		a.Differs = "the kernel has no such frontend"
		return a
	}
	a.Differs = endpointDifference("", have.Inside, want.Inside)
	if have.Differ() || want.Differ() {
		a.Differs = join(a.Differs, endpointDifference(" for outside", have.Outside, want.Outside))
	}
	if len(want.Outside)+len(want.Inside) == 0 {
		want.Affinity = 0 // no chain says it
	}
	if len(want.Outside) < 2 && len(want.Inside) < 2 {
		want.Choice = proxy.Random // there is none
	}
	if a.Differs == "" && !have.Equal(want) {
		a.Differs = "source ranges or session affinity are other ones"
	}
	return a
}

// endpointDifference names what is missing and what is too many, two of each at most.
func endpointDifference(whom string, have, want []netip.AddrPort) string {
	return join(some("is missing"+whom, without(want, have)), some("should be gone"+whom, without(have, want)))
}

func without(a, b []netip.AddrPort) []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(a), func(e netip.AddrPort) bool { return slices.Contains(b, e) })
}

func some(verb string, list []netip.AddrPort) string {
	switch len(list) {
	case 0:
		return ""
	case 1:
		return list[0].String() + " " + verb
	}
	return fmt.Sprintf("%s and %d more: %s", list[0], len(list)-1, verb)
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ", ")
}
