package proxy

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// proxyNameLabel on a Service says that somebody else implements it, as for kube-proxy.
const proxyNameLabel = "service.kubernetes.io/service-proxy-name"

// Build returns the datapath of the node named self. Problems are about what was left out.
func Build(s *model.Snapshot, self string, settings Settings) (State, []model.Problem) {
	state, problems, _ := build(s, self, settings, nil)
	return state, problems
}

// A site is what the frontends of each Service depend on beside the Service itself and its endpoints.
type site struct {
	self              string
	node              *model.Node
	settings          Settings
	own               model.Own
	vips, lent, outer map[model.Key][]netip.Addr
}

// add adds one Service, and to the books if they are not nil.
func (t site) add(key model.Key, svc *corev1.Service, eps *model.ServiceEndpoints, into State, books *books) []model.Problem {
	b := serviceBuilder{into: into, books: books, own: t.own, key: key, svc: svc, node: t.node, self: t.self,
		external: t.outer[key], nodePortSources: t.settings.NodePortSourceRanges, resetAll: t.settings.ResetGone}
	b.build(eps, t.vips[key], t.lent[key])
	return b.problems
}

func build(s *model.Snapshot, self string, settings Settings, books *books) (State, []model.Problem, site) {
	state := newState()
	problems := state.addNodes(s.Nodes, self)
	if settings.Overlay != "" {
		state.Overlays[settings.Overlay] = struct{}{}
	}
	vips, more := claimed(s.Claims)
	problems = append(append(problems, more...), withoutForeign(s, vips)...)
	lent, more := lent(s, self, vips, settings.BalancerClasses)
	problems = append(problems, more...)
	outer, more := external(s, self, settings, vips, lent)
	problems = append(append(problems, more...), state.addRanges(s, self, settings)...)
	t := site{self: self, node: s.Nodes[self], settings: settings, own: model.OwnOf(s, settings.OwnPorts), vips: vips, lent: lent, outer: outer}
	faults := state.addServices(byAge(s.Services), books.clear, func(key model.Key, into State) []model.Problem {
		return t.add(key, s.Services.Get(key), s.Endpoints.Get(key), into, books)
	}, func(key model.Key, into State) {
		b := serviceBuilder{into: into, books: books, key: key, svc: s.Services.Get(key)}
		for _, addr := range slices.Concat(b.parseClusterIPs(), vips[key]) {
			b.put(ofAddresses, addr)
		}
	})
	problems = append(problems, faults...)
	problems = append(problems, state.addHostPorts(self, settings)...)
	return state, model.SortProblems(problems), t
}

// addRanges adds ServiceCIDRs, and where NodePorts are.
func (s *State) addRanges(of *model.Snapshot, self string, settings Settings) []model.Problem {
	ranges, problems := serviceRanges(of, settings.LocalAddresses)
	for _, p := range ranges {
		s.ServiceRanges[p] = struct{}{}
	}
	for _, p := range settings.NodePortsAt(of.Nodes[self]) {
		s.NodePortRanges[p] = struct{}{}
	}
	return problems
}

// byAge returns the keys of Services, the oldest first, so that of two that claim one frontend it stays with the one
// that had it. Those of one second are in the order of their names.
func byAge(services model.Objects[*corev1.Service]) []model.Key {
	keys := services.SortedKeys()
	slices.SortStableFunc(keys, func(a, b model.Key) int {
		return model.CompareAge(services.Get(a).CreationTimestamp.Time, services.Get(b).CreationTimestamp.Time)
	})
	return keys
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
		_ = contain.Do(func() { // the overlay tells of it
			for _, p := range n.PodCIDRs {
				ranges = append(ranges, p.Masked())
			}
		})
	}
	for _, p := range merge(ranges) {
		s.PodRanges[p] = struct{}{}
	}
	return problems
}

// claimed returns the VIPs of each Service, sorted.
func claimed(claims map[string]*v1alpha1.AddressClaim) (map[model.Key][]netip.Addr, []model.Problem) {
	vips := map[model.Key][]netip.Addr{}
	var problems []model.Problem
	for name, claim := range claims {
		object := model.ObjectRef{Kind: "AddressClaim", Name: name}
		fault := model.Contain(object, "Its address is no VIP on this node", func() {
			addr, err := netip.ParseAddr(claim.Spec.Address)
			// A claim under another name is not announced either.
			if err != nil || addr.Zone() != "" || addr.IsUnspecified() || v1alpha1.ClaimName(addr) != name {
				problems = append(problems, model.Problemf(object, "InvalidClaim",
					"spec.address %q is no IP address that a Service can have, or not the one that names the claim.", claim.Spec.Address))
				return
			}
			for _, ref := range claim.Spec.Services {
				key := model.Key{Namespace: ref.Namespace, Name: ref.Name}
				vips[key] = append(vips[key], addr.Unmap())
			}
		})
		problems = append(problems, fault...)
	}
	for key, addrs := range vips {
		slices.SortFunc(addrs, netip.Addr.Compare)
		vips[key] = slices.Compact(addrs)
	}
	return vips, problems
}

// BuildService returns the part of one Service alone: its frontends, addresses, pings and hairpins. vips are the
// addresses that claims give it, own says which endpoints are refused. node is the node named self, nil if it is not
// registered.
func BuildService(svc *corev1.Service, eps *model.ServiceEndpoints, vips []netip.Addr, own model.Own, node *model.Node, self string) (State, []model.Problem) {
	key := model.Key{Namespace: svc.Namespace, Name: svc.Name}
	b := serviceBuilder{into: newState(), own: own, key: key, svc: svc, node: node, self: self}
	b.build(eps, vips, nil)
	return b.into, b.problems
}

// proxied says whether the datapath has anything to do for svc: neither for headless ones, also by label, nor for names in
// DNS, nor for Services that name another proxy.
func proxied(svc *corev1.Service) bool {
	_, others := svc.Labels[proxyNameLabel]
	_, headless := svc.Labels[corev1.IsHeadlessService]
	return !others && !headless && svc.Spec.Type != corev1.ServiceTypeExternalName && svc.Spec.ClusterIP != corev1.ClusterIPNone
}

// Serves says whether the datapath has anything to do for svc.
func Serves(svc *corev1.Service) bool { return proxied(svc) }

// A serviceBuilder adds one Service to a State.
type serviceBuilder struct {
	into     State
	books    *books    // nil: nobody keeps them
	own      model.Own // which endpoints are refused
	key      model.Key
	svc      *corev1.Service
	node     *model.Node
	self     string
	problems []model.Problem

	external        []netip.Addr // of spec.externalIPs
	nodePortSources bool         // sources are for NodePorts too

	clusterIPs, vips []netip.Addr
	sources          []netip.Prefix // who may reach the VIPs, nil for everybody
	stay             time.Duration  // of a client with its endpoint
	by               Choice
	reset            bool             // TCP connections to endpoints that are gone
	resetAll         bool             // the setting of that
	known            []model.Endpoint // of the port, ready or not
}

func (b *serviceBuilder) problemf(reason, format string, args ...any) {
	b.problems = append(b.problems, model.Problemf(model.Ref("Service", b.key), reason, format, args...))
}

// build adds the Service. lent are addresses of other load balancers: they are frontends, and nothing else is said about
// packets to them.
func (b *serviceBuilder) build(eps *model.ServiceEndpoints, vips, lent []netip.Addr) {
	if !proxied(b.svc) {
		if _, others := b.svc.Labels[proxyNameLabel]; others {
			for _, addr := range model.ClusterIPs(b.svc) {
				b.put(ofOthers, addr)
			}
		}
		return
	}
	b.clusterIPs = b.parseClusterIPs()
	if b.svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		b.vips = vips
	}
	for _, addr := range slices.Concat(b.clusterIPs, b.vips) {
		b.put(ofAddresses, addr)
	}
	for _, vip := range b.vips {
		if b.node == nil {
			break
		}
		if own := b.node.Address(vip.Is6()); own.IsValid() {
			b.into.Pings[vip] = own
			b.count(ofPings, vip)
		}
	}
	for _, addr := range slices.Concat(lent, b.external) {
		b.put(ofExternals, addr)
	}
	b.vips = slices.Concat(b.vips, lent)
	b.sources = b.parseSources()
	b.stay = b.affinity()
	b.by, b.reset = b.choice(), b.resetsGone()
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
	eps, refused := b.own.Allowed(b.key, port, eps)
	b.problems = append(b.problems, refused...)
	b.known = eps
	all, local := b.chosen(eps)
	for _, e := range local {
		b.put(ofHairpins, e.AddrPort.Addr().Unmap())
	}
	internal, external := all, all
	if p := b.svc.Spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		internal = local
	}
	if b.svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		external = local
	}
	for _, addr := range b.clusterIPs {
		b.addFrontend(Frontend{addr, protocol, uint16(port.Port)}, internal, internal, nil)
		b.addElsewhere(Frontend{addr, protocol, uint16(port.Port)}, all)
		if port.NodePort != 0 {
			var sources []netip.Prefix
			if b.nodePortSources {
				sources = ofFamily(b.sources, addr)
			}
			b.addFrontend(Frontend{unspecified(addr), protocol, uint16(port.NodePort)}, external, all, sources)
		}
	}
	for _, addr := range b.external {
		b.addFrontend(Frontend{addr, protocol, uint16(port.Port)}, external, all, nil)
	}
	for _, addr := range b.vips {
		b.addFrontend(Frontend{addr, protocol, uint16(port.Port)}, external, all, ofFamily(b.sources, addr))
	}
}

// chosen returns the endpoints that new connections go to, wherever they are and on this node. Each family is judged alone, as
// by kube-proxy: what the one has is no help to a client of the other.
func (b *serviceBuilder) chosen(eps []model.Endpoint) (all, local []model.Endpoint) {
	one := func(eps []model.Endpoint) (all, local []model.Endpoint) {
		return model.Near(b.node, model.Usable(eps)), model.Usable(model.On(b.self, eps))
	}
	is4 := func(e model.Endpoint) bool { return e.AddrPort.Addr().Unmap().Is4() }
	if len(eps) == 0 || is4(eps[0]) == is4(eps[len(eps)-1]) { // they are sorted, IPv4 first
		return one(eps)
	}
	six := slices.IndexFunc(eps, func(e model.Endpoint) bool { return !is4(e) })
	all, local = one(eps[:six])
	all6, local6 := one(eps[six:])
	return slices.Concat(all, all6), slices.Concat(local, local6)
}

// affinity is how long a client stays with its endpoint, 0 for not at all. The API server fills in the timeout; a file
// may leave it out.
func (b *serviceBuilder) affinity() time.Duration {
	if b.svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	if c := b.svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	const day = 86400 // the API server takes no more
	if seconds < 1 || seconds > day {
		b.problemf("InvalidAffinityTimeout",
			"spec.sessionAffinityConfig.clientIP.timeoutSeconds is %d: clients do not stay with their endpoint. Write a number from 1 to %d.", seconds, day)
		return 0
	}
	return time.Duration(seconds) * time.Second
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// addFrontend adds f. One that an earlier Service has stays with that one.
func (b *serviceBuilder) addFrontend(f Frontend, outside, inside []model.Endpoint, sources []netip.Prefix) {
	if owner, taken := b.into.Owners[f]; taken {
		if b.books != nil {
			b.books.contested[f] = struct{}{}
		}
		b.problemf("FrontendConflict", "%s belongs to Service %s already. Give one of them another port or address.", f, owner)
		return
	}
	b.into.Owners[f] = b.key
	if b.books != nil {
		b.books.owners[f] = b.key
	}
	backends := Backends{Outside: addrPorts(outside, f.Addr), Sources: sources, Affinity: b.stay, Choice: b.by, Reset: b.reset && f.Protocol == TCP}
	backends.Inside = backends.Outside
	if len(outside) != len(inside) || len(inside) > 0 && &outside[0] != &inside[0] {
		backends.Inside = addrPorts(inside, f.Addr)
	}
	backends.Keep = b.keep(f, backends, b.known)
	b.into.Frontends[f] = backends
}

// addElsewhere notes at a frontend without endpoints that other nodes have some: to a Local policy that is another thing than
// a Service without any, as the API says (spec.internalTrafficPolicy).
func (b *serviceBuilder) addElsewhere(f Frontend, all []model.Endpoint) {
	backends := b.into.Frontends[f]
	if b.into.Owners[f] == b.key && backends.Empty() && len(addrPorts(all, f.Addr)) > 0 {
		backends.Elsewhere = true
		b.into.Frontends[f] = backends
	}
}

// addrPorts returns the addresses of eps that are of the family of like, sorted and each once.
func addrPorts(eps []model.Endpoint, like netip.Addr) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(eps))
	for _, e := range eps {
		ap := netip.AddrPortFrom(e.AddrPort.Addr().Unmap(), e.AddrPort.Port())
		if ap.IsValid() && ap.Port() != 0 && ap.Addr().Is4() == like.Is4() {
			out = append(out, ap)
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	if len(out) == 0 {
		return nil
	}
	return slices.Compact(out)
}
