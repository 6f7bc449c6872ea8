package lb

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// A VIP is an address that nodes announce, and what one node must know to decide about it.
type VIP struct {
	Addr     netip.Addr
	Services []model.Key
	// Local says that only nodes with a working backend may own it: a Service of it has
	// externalTrafficPolicy Local.
	Local bool
	// Draining says that all backends on this node are terminating, or that the node should own no VIP: it is labelled so
	// (node.kubernetes.io/exclude-from-external-load-balancers), or about to be deleted. One that is cordoned, or not
	// ready, may: what its kubelet says is no word about its network (KEP-3458).
	Draining bool
	// Probes says how to see that the backends on this node work, one entry for each pod. Without an entry there
	// is no backend.
	Probes []Probe
}

// A Probe is what must answer for one pod to be a working backend. No Targets means that it cannot be asked,
// and counts as working.
type Probe struct {
	Pod     netip.Addr
	Targets []Target
}

// A Target is a TCP port to connect to or, with a Path, to GET from (RFC 9110) with the answer 200.
type Target struct {
	AddrPort netip.AddrPort
	Path     string
}

// VIPs lists the addresses that claims tell nodes to announce by ARP, sorted, as seen from the node self. A claim of an
// address that is a node's, a pod's or a ClusterIP is believed by nobody: it may be older than what it collides with.
func VIPs(s *model.Snapshot, self string) ([]VIP, []model.Problem) {
	var out []VIP
	var problems []model.Problem
	own := model.OwnOf(s, model.DefaultOwnPorts())
	excluded := false
	if n := s.Nodes[self]; n != nil {
		_, excluded = n.Labels[corev1.LabelNodeExcludeBalancers]
		excluded = excluded || n.Leaving
	}
	for name, c := range s.Claims {
		fault := model.Contain(model.ObjectRef{Kind: "AddressClaim", Name: name}, "Its address is not announced by this node", func() {
			v, more := vipOf(s, c, self, own)
			problems = append(problems, more...)
			if len(v.Services) > 0 {
				v.Draining = v.Draining || excluded
				out = append(out, v)
			}
		})
		problems = append(problems, fault...)
	}
	slices.SortFunc(out, func(a, b VIP) int { return a.Addr.Compare(b.Addr) })
	out, refused := withoutOwned(s, out)
	return out, model.SortProblems(append(problems, refused...))
}

// vipOf makes the VIP of a claim; one without Services if it is none.
func vipOf(s *model.Snapshot, c *v1alpha1.AddressClaim, self string, own model.Own) (VIP, []model.Problem) {
	a, err := parseAddr(c.Spec.Address)
	if err != nil || !a.Is4() || v1alpha1.ClaimName(a) != c.Name || !slices.Contains(c.Spec.Announce, AnnounceARP) {
		return VIP{}, nil // the controller says what is wrong with it
	}
	var problems []model.Problem
	v := VIP{Addr: a, Draining: true}
	for _, ref := range c.Spec.Services {
		key := model.Key{Namespace: ref.Namespace, Name: ref.Name}
		svc := s.Services.Get(key)
		if svc == nil {
			continue
		}
		v.Services = append(v.Services, key)
		if svc.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
			continue
		}
		v.Local = true
		problems = append(problems, v.addProbes(svc, key, s.Endpoints.Get(key), self, own)...)
	}
	v.Draining = v.Draining && len(v.Probes) > 0
	return v, problems
}

// withoutOwned leaves out the VIPs whose addresses are somebody else's.
func withoutOwned(s *model.Snapshot, vips []VIP) ([]VIP, []model.Problem) {
	addrs := make([]netip.Addr, len(vips))
	for i, v := range vips {
		addrs[i] = v.Addr
	}
	others := model.ForeignAddresses(s, addrs)
	var problems []model.Problem
	vips = slices.DeleteFunc(vips, func(v VIP) bool {
		owner, taken := others[v.Addr]
		if taken {
			problems = append(problems, model.ForeignClaim(v.Addr, owner))
		}
		return taken
	})
	return vips, problems
}

// addProbes adds the pods of a Service on this node. Those that terminate count only when there are no others, and
// those that no traffic may be sent to are not asked either: the agent would ask itself, in the name of whoever wrote
// the EndpointSlice.
func (v *VIP) addProbes(svc *corev1.Service, key model.Key, endpoints *model.ServiceEndpoints, self string, own model.Own) []model.Problem {
	if endpoints == nil {
		return nil
	}
	port, path, ok := parseProbe(svc.Annotations[v1alpha1.ProbeAnnotation])
	var problems []model.Problem
	if !ok {
		problems = append(problems, model.Problemf(model.Ref("Service", key), ReasonInvalidProbe,
			"The annotation %s is not used: write tcp or http:PORT/PATH. TCP connections are tried instead.", v1alpha1.ProbeAnnotation))
	}
	pods := map[netip.Addr][]Target{}
	for i := range endpoints.Ports {
		p := &endpoints.Ports[i]
		for _, e := range model.Usable(model.On(self, p.Endpoints)) {
			a := e.AddrPort.Addr()
			asked := e.AddrPort
			if port != 0 {
				asked = netip.AddrPortFrom(a, port)
			}
			if why := cmp.Or(own.Refuse(p.Protocol, e.AddrPort), own.Refuse(corev1.ProtocolTCP, asked)); why != "" {
				problems = append(problems, model.Problemf(model.Ref("Service", key), model.ReasonEndpointRefused,
					"%s is no backend of its address: %s. Correct its EndpointSlices, or the annotation %s.", asked, why, v1alpha1.ProbeAnnotation))
				continue
			}
			v.Draining = v.Draining && e.Terminating
			switch {
			case port != 0:
				pods[a] = []Target{{AddrPort: asked, Path: path}}
			case p.Protocol == corev1.ProtocolTCP:
				pods[a] = append(pods[a], Target{AddrPort: e.AddrPort})
			default:
				pods[a] = append(pods[a], []Target{}...)
			}
		}
	}
	for a, targets := range pods {
		slices.SortFunc(targets, func(x, y Target) int { return x.AddrPort.Compare(y.AddrPort) })
		v.Probes = append(v.Probes, Probe{Pod: a, Targets: slices.Compact(targets)})
	}
	slices.SortFunc(v.Probes, func(a, b Probe) int { return a.Pod.Compare(b.Pod) })
	return problems
}

// parseProbe reads v1alpha1.ProbeAnnotation. Port 0 means TCP connections to the Service's own ports.
func parseProbe(s string) (port uint16, path string, ok bool) {
	if s == "" || s == "tcp" {
		return 0, "", true
	}
	rest, isHTTP := strings.CutPrefix(s, "http:")
	number, path, hasPath := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if !isHTTP || !hasPath || err != nil || n == 0 || strings.ContainsAny(path, " \t\r\n#") {
		return 0, "", false
	}
	return uint16(n), "/" + path, true
}
