package proxy

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// proxyNameLabel on a Service says that somebody else implements it, as for kube-proxy.
const proxyNameLabel = "service.kubernetes.io/service-proxy-name"

// Build returns the datapath of the node named self. Problems are about what was left out.
func Build(s *model.Snapshot, self string, settings Settings) (State, []model.Problem) {
	state := newState()
	problems := state.addNodes(s.Nodes, self)
	if settings.Overlay != "" {
		state.Overlays[settings.Overlay] = struct{}{}
	}
	vips, more := claimed(s.Claims)
	problems = append(problems, more...)
	owners := map[Frontend]model.Key{}
	for _, key := range model.SortedKeys(s.Services) {
		b := serviceBuilder{into: state, owners: owners, key: key, svc: s.Services[key], node: s.Nodes[self], self: self}
		b.build(s.Endpoints[key], vips[key])
		problems = append(problems, b.problems...)
	}
	return state, model.SortProblems(problems)
}

// addNodes adds what the datapath needs to know of the cluster's nodes.
func (s *State) addNodes(nodes map[string]*model.Node, self string) []model.Problem {
	var problems []model.Problem
	if nodes[self] == nil {
		problems = append(problems, model.Problemf(model.ObjectRef{Kind: "Node", Name: self}, "NodeNotFound",
			"There is no Node of this name: VIPs do not answer ping on it until it is registered."))
	}
	var ranges []netip.Prefix
	for _, n := range nodes {
		for _, p := range n.PodCIDRs {
			ranges = append(ranges, p.Masked())
		}
	}
	// Of two ranges that overlap one contains the other, and the kernel takes no overlaps. Sorted like this, each
	// comes right after the one that contains it, if any does.
	slices.SortFunc(ranges, comparePrefixes)
	var last netip.Prefix
	for _, p := range ranges {
		if !last.IsValid() || !last.Overlaps(p) {
			s.PodRanges[p] = struct{}{}
			last = p
		}
	}
	return problems
}

// claimed returns the VIPs of each Service, sorted.
func claimed(claims map[string]*v1alpha1.AddressClaim) (map[model.Key][]netip.Addr, []model.Problem) {
	vips := map[model.Key][]netip.Addr{}
	var problems []model.Problem
	for name, claim := range claims {
		addr, err := netip.ParseAddr(claim.Spec.Address)
		// A claim under another name is not announced either.
		if err != nil || addr.Zone() != "" || addr.IsUnspecified() || v1alpha1.ClaimName(addr) != name {
			problems = append(problems, model.Problemf(model.ObjectRef{Kind: "AddressClaim", Name: name}, "InvalidClaim",
				"spec.address %q is no IP address that a Service can have, or not the one that names the claim.", claim.Spec.Address))
			continue
		}
		for _, ref := range claim.Spec.Services {
			key := model.Key{Namespace: ref.Namespace, Name: ref.Name}
			vips[key] = append(vips[key], addr.Unmap())
		}
	}
	for key, addrs := range vips {
		slices.SortFunc(addrs, netip.Addr.Compare)
		vips[key] = slices.Compact(addrs)
	}
	return vips, problems
}

// BuildService returns the part of one Service alone: its frontends, addresses, pings and hairpins. vips are the
// addresses that claims give it. node is the node named self, nil if it is not registered.
func BuildService(svc *corev1.Service, eps *model.ServiceEndpoints, vips []netip.Addr, node *model.Node, self string) (State, []model.Problem) {
	key := model.Key{Namespace: svc.Namespace, Name: svc.Name}
	b := serviceBuilder{into: newState(), owners: map[Frontend]model.Key{}, key: key, svc: svc, node: node, self: self}
	b.build(eps, vips)
	return b.into, b.problems
}

// proxied says whether the datapath has anything to do for svc: neither for headless ones, nor for names in DNS, nor
// for Services that name another proxy.
func proxied(svc *corev1.Service) bool {
	_, others := svc.Labels[proxyNameLabel]
	return !others && svc.Spec.Type != corev1.ServiceTypeExternalName && svc.Spec.ClusterIP != corev1.ClusterIPNone
}

// A serviceBuilder adds one Service to a State.
type serviceBuilder struct {
	into     State
	owners   map[Frontend]model.Key // which Service has a frontend
	key      model.Key
	svc      *corev1.Service
	node     *model.Node
	self     string
	problems []model.Problem

	clusterIPs, vips []netip.Addr
}

func (b *serviceBuilder) problemf(reason, format string, args ...any) {
	b.problems = append(b.problems, model.Problemf(model.Ref("Service", b.key), reason, format, args...))
}

func (b *serviceBuilder) build(eps *model.ServiceEndpoints, vips []netip.Addr) {
	if !proxied(b.svc) {
		return
	}
	b.clusterIPs = b.parseClusterIPs()
	if b.svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		b.vips = vips
	}
	for _, addr := range slices.Concat(b.clusterIPs, b.vips) {
		b.into.Addresses[addr] = struct{}{}
	}
	for _, vip := range b.vips {
		if b.node == nil {
			break
		}
		if own := b.node.Address(vip.Is6()); own.IsValid() {
			b.into.Pings[vip] = own
		}
	}
	b.tellUnsupported()
	for i := range b.svc.Spec.Ports {
		port := &b.svc.Spec.Ports[i]
		b.addPort(port, eps.Port(port.Name, model.ProtocolOf(port)))
	}
}

func (b *serviceBuilder) parseClusterIPs() []netip.Addr {
	texts := b.svc.Spec.ClusterIPs
	if len(texts) == 0 && b.svc.Spec.ClusterIP != "" {
		texts = []string{b.svc.Spec.ClusterIP}
	}
	var out []netip.Addr
	for _, text := range texts {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" || addr.IsUnspecified() {
			b.problemf("InvalidClusterIP", "spec.clusterIPs has %q, which is no IP address.", text)
			continue
		}
		out = append(out, addr.Unmap())
	}
	return out
}

// addPort adds the frontends of one Service port.
func (b *serviceBuilder) addPort(port *corev1.ServicePort, eps []model.Endpoint) {
	var protocol Protocol
	switch model.ProtocolOf(port) {
	case corev1.ProtocolTCP:
		protocol = TCP
	case corev1.ProtocolUDP:
		protocol = UDP
	case corev1.ProtocolSCTP:
		protocol = SCTP
	default:
		b.problemf("ProtocolNotSupported", "port %d has protocol %q; Hythe knows TCP, UDP and SCTP.", port.Port, port.Protocol)
		return
	}
	all, local := model.Usable(eps), model.Usable(model.On(b.self, eps))
	for _, e := range local {
		b.into.Hairpins[e.AddrPort.Addr().Unmap()] = struct{}{}
	}
	internal, external := all, all
	if p := b.svc.Spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		internal = local
	}
	if b.svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		external = local
	}
	for _, addr := range b.clusterIPs {
		b.addFrontend(Frontend{addr, protocol, uint16(port.Port)}, internal, internal)
		if port.NodePort != 0 {
			b.addFrontend(Frontend{unspecified(addr), protocol, uint16(port.NodePort)}, external, all)
		}
	}
	if b.restricted() {
		external = nil
	}
	for _, addr := range b.vips {
		b.addFrontend(Frontend{addr, protocol, uint16(port.Port)}, external, all)
	}
}

// restricted reports whether only some sources may reach the Service's VIPs. As the datapath does not know source
// ranges yet, nobody outside may: what was meant to be closed must not be open.
func (b *serviceBuilder) restricted() bool {
	ranges := b.svc.Spec.LoadBalancerSourceRanges
	return len(b.vips) > 0 && len(ranges) > 0 && !slices.Contains(ranges, "0.0.0.0/0") && !slices.Contains(ranges, "::/0")
}

// tellUnsupported names what the Service asks for in vain.
func (b *serviceBuilder) tellUnsupported() {
	if b.restricted() {
		b.problemf("SourceRangesNotSupported",
			"spec.loadBalancerSourceRanges is not supported yet: nobody outside of the cluster reaches the load balancer's address. Remove it to let everybody in.")
	}
	if b.svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		b.problemf("SessionAffinityNotSupported",
			"spec.sessionAffinity ClientIP is not supported yet: each connection may go to another endpoint.")
	}
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// addFrontend adds f. One that an earlier Service has stays with that one.
func (b *serviceBuilder) addFrontend(f Frontend, outside, inside []model.Endpoint) {
	if owner, taken := b.owners[f]; taken {
		b.problemf("FrontendConflict", "%s belongs to Service %s already. Give one of them another port or address.", f, owner)
		return
	}
	b.owners[f] = b.key
	backends := Backends{Outside: addrPorts(outside, f.Addr)}
	backends.Inside = backends.Outside
	if len(outside) != len(inside) || len(inside) > 0 && &outside[0] != &inside[0] {
		backends.Inside = addrPorts(inside, f.Addr)
	}
	b.into.Frontends[f] = backends
}

// addrPorts returns the addresses of eps that are of the family of like, sorted and each once.
func addrPorts(eps []model.Endpoint, like netip.Addr) []netip.AddrPort {
	var out []netip.AddrPort
	for _, e := range eps {
		ap := netip.AddrPortFrom(e.AddrPort.Addr().Unmap(), e.AddrPort.Port())
		if ap.IsValid() && ap.Port() != 0 && ap.Addr().Is4() == like.Is4() {
			out = append(out, ap)
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}
