package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/internal/model"
)

// A road is a Question with what is known so far. Its methods are pure: Ask uses them to know what to ask next, Build to
// know what the answers mean.
type road struct {
	q  Question
	ev *Evidence
}

// A source is where the traced packets come from.
type source struct {
	// inside says that the source is a node or a pod.
	inside bool
	pod    bool       // it is a pod
	node   string     // where its packets enter the datapath, for inside
	addr   netip.Addr // of the source; invalid if not known
	text   string
}

func (r road) service() ServiceAnswer { return r.ev.Service.Got }

// found says whether the Service of the question is known.
func (r road) found() bool { return r.service().Object.Name != "" }

// nodeOf returns the Node that has the address itself, or pods with such addresses.
func (r road) nodeOf(a netip.Addr) (node string, isPod bool) {
	for _, n := range r.service().Nodes {
		if slices.Contains(n.Addresses, a) {
			return n.Name, false
		}
	}
	for _, n := range r.service().Nodes {
		if slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return n.Name, true
		}
	}
	return "", false
}

// from finds the source. The error is for people and says how to ask.
func (r road) from() (source, error) {
	switch from := r.q.From; {
	case from == "" && r.internal():
		node := r.anyNode()
		return source{inside: true, node: node, text: "node " + node + " (chosen: a ClusterIP is reached from inside only)"}, nil
	case from == "":
		return source{text: "outside of the cluster"}, nil
	case strings.Contains(from, "/"):
		e := r.service().From
		if e.Node == "" {
			return source{}, badQuestion(r.q.Text, "--from %s: no Service has a pod of this name; give its address instead", from)
		}
		return source{inside: true, pod: true, node: e.Node, addr: e.Address.Addr(), text: fmt.Sprintf("pod %s %s on %s", from, e.Address.Addr(), e.Node)}, nil
	default:
		return r.fromName(from)
	}
}

func (r road) fromName(from string) (source, error) {
	if a, err := netip.ParseAddr(from); err == nil {
		node, isPod := r.nodeOf(a.Unmap())
		switch {
		case node == "":
			return source{addr: a.Unmap(), text: from + ", outside of the cluster"}, nil
		case isPod:
			return source{inside: true, pod: true, node: node, addr: a.Unmap(), text: "pod " + from + " on " + node}, nil
		default:
			return source{inside: true, node: node, addr: a.Unmap(), text: "node " + node}, nil
		}
	}
	var names []string
	for _, n := range r.service().Nodes {
		if n.Name == from {
			return source{inside: true, node: from, addr: first(n.Addresses), text: "node " + from}, nil
		}
		names = append(names, n.Name)
	}
	if len(names) == 0 {
		return source{inside: true, node: from, text: "node " + from}, nil // no node answers: Build says so
	}
	return source{}, badQuestion(r.q.Text, "--from %s: there is no such node (there are %s); a pod is NAMESPACE/NAME", from, strings.Join(names, ", "))
}

func first[T any](list []T) (zero T) {
	if len(list) > 0 {
		return list[0]
	}
	return zero
}

// anyNode is a node whose agent answers.
func (r road) anyNode() string {
	for _, p := range r.ev.Processes {
		if p.Component == "node" || p.Component == "run" {
			return p.Node
		}
	}
	return ""
}

// port is the Service's port that is asked for; ok is false if it has no such port.
func (r road) port() (_ PortAnswer, ok bool) {
	to, kind := r.to()
	for _, p := range r.service().Ports {
		switch {
		case p.Protocol != r.q.Protocol && (r.q.Port != 0 || r.q.PortName != ""):
		case kind == toNodePort:
			if p.NodePort == r.q.Port && to.IsValid() {
				return p, true
			}
		case r.q.PortName != "":
			if p.Name == r.q.PortName {
				return p, true
			}
		case r.q.Port == 0 || p.Port == r.q.Port:
			return p, true
		}
	}
	return PortAnswer{}, false
}

// A target is the kind of address that packets go to.
type target int

const (
	toNothing target = iota // the Service has no address
	toVIP
	toClusterIP
	toNodePort
)

// to is the address that packets go to.
func (r road) to() (netip.Addr, target) {
	s := r.service()
	if a := r.q.Addr; a.IsValid() {
		switch node, isPod := r.nodeOf(a); {
		case slices.Contains(s.ClusterIPs, a):
			return a, toClusterIP
		case node != "" && !isPod:
			return a, toNodePort
		default:
			return a, toVIP
		}
	}
	inside := r.q.From != "" && r.q.Kind == KindService // pods ask a Service by its ClusterIP
	if inside {
		if a, err := netip.ParseAddr(r.q.From); err == nil {
			node, _ := r.nodeOf(a.Unmap())
			inside = node != ""
		}
	}
	if len(s.VIPs) > 0 && !inside {
		return s.VIPs[0].Addr, toVIP
	}
	if len(s.ClusterIPs) > 0 && (inside || s.Type != "LoadBalancer") {
		return s.ClusterIPs[0], toClusterIP
	}
	return netip.Addr{}, toNothing
}

// internal says that only sources inside can reach the target.
func (r road) internal() bool {
	_, kind := r.to()
	return kind == toClusterIP
}

// claim is the claim of the VIP, the zero value if it is not known.
func (r road) claim() ClaimAnswer {
	to, _ := r.to()
	for _, c := range r.service().VIPs {
		if c.Addr == to {
			return c
		}
	}
	return ClaimAnswer{}
}

// owners are the nodes that say that they own the VIP, the highest generation first.
func (r road) owners() []Answer[VIPAnswer] {
	var out []Answer[VIPAnswer]
	for _, v := range r.ev.VIPs {
		if v.Error == "" && v.Got.Owned {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(a, b Answer[VIPAnswer]) int { return cmp.Compare(b.Got.Generation, a.Got.Generation) })
	return out
}

// askers are the nodes that ask by ARP: two of those that do not own the VIP.
func (r road) askers() []Answer[VIPAnswer] {
	var out []Answer[VIPAnswer]
	for _, v := range r.ev.VIPs {
		if v.Error == "" && !v.Got.Owned && v.Got.Up && len(out) < 2 {
			out = append(out, v)
		}
	}
	return out
}

// entry is the node whose kernel takes the packets, empty if there is none.
func (r road) entry() string {
	src, err := r.from()
	if err != nil {
		return ""
	}
	if src.inside {
		return src.node
	}
	to, kind := r.to()
	switch kind {
	case toNodePort:
		node, _ := r.nodeOf(to)
		return node
	case toVIP:
		// Where packets really go is what ARP says; what nodes say of themselves is the next best.
		for _, a := range r.ev.ARP {
			for _, reply := range a.Got.Replies {
				if node := r.nodeOfMAC(reply); node != "" {
					return node
				}
			}
		}
		if owners := r.owners(); len(owners) > 0 {
			return owners[0].Node
		}
	}
	return ""
}

// nodeOfMAC is the node whose interface has the MAC that answered.
func (r road) nodeOfMAC(reply ARPReply) string {
	for _, v := range r.ev.VIPs {
		if v.Error == "" && v.Got.MAC == reply.MAC {
			return v.Node
		}
	}
	return reply.Node
}

// frontend is the answer of the entry node's kernel; ok is false if there is none.
func (r road) frontend() (_ Answer[FrontendAnswer], ok bool) {
	entry := r.entry()
	for _, f := range r.ev.Frontends {
		if f.Node == entry {
			return f, true
		}
	}
	return Answer[FrontendAnswer]{}, false
}

// A leg is one way from a node to a pod behind it.
type leg struct {
	from   string     // the node
	source netip.Addr // the packet's; invalid for the node itself
	to     netip.AddrPort
	node   string // of the pod, empty if not known
	pod    string // NAMESPACE/NAME, empty if not known
}

// maxLegs bounds how many endpoints are followed.
const maxLegs = 8

// entryLegs lead from the entry node to the endpoints that its kernel knows.
func (r road) entryLegs() []leg {
	f, ok := r.frontend()
	if !ok || f.Error != "" {
		return nil
	}
	var out []leg
	for _, a := range f.Got.Kernel.Endpoints {
		out = append(out, r.leg(f.Node, a))
	}
	return out[:min(len(out), maxLegs)]
}

// leg fills in what the endpoints of Services say of an address.
func (r road) leg(from string, to netip.AddrPort) leg {
	l := leg{from: from, to: to}
	known := []ServiceAnswer{r.service()}
	for _, b := range r.ev.Backends {
		known = append(known, b.Got)
	}
	for _, s := range known {
		for _, p := range s.Ports {
			for _, e := range p.Endpoints {
				if e.Address != to {
					continue
				}
				l.node = e.Node
				if e.Pod != "" {
					l.pod = s.Object.Namespace + "/" + e.Pod
				}
				return l
			}
		}
	}
	l.node, _ = r.nodeOf(to.Addr())
	return l
}

// backends are the Services that Envoys send the request to.
func (r road) backends() []model.ObjectRef {
	var out []model.ObjectRef
	for _, a := range r.ev.Requests {
		for _, h := range a.Got.Hops {
			if h.Object.Kind == "Service" && !slices.Contains(out, h.Object) {
				out = append(out, h.Object)
			}
		}
	}
	return out
}

// sourcePod is the way back to the pod that the packets come from; ok is false if they come from elsewhere.
func (r road) sourcePod() (_ leg, ok bool) {
	src, err := r.from()
	l := leg{from: src.node, node: src.node, to: netip.AddrPortFrom(src.addr, 0)}
	if strings.Contains(r.q.From, "/") {
		l.pod = r.q.From
	}
	return l, err == nil && src.pod
}

// gateways are the nodes of the Envoys that a request can come to, that of the entry node first.
func (r road) gateways() []string {
	if r.q.Kind != KindURL {
		return nil
	}
	entry := r.entry()
	var out []string
	for _, l := range r.entryLegs() {
		if l.node != "" && !slices.Contains(out, l.node) {
			out = append(out, l.node)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int {
		return cmp.Compare(boolInt(a != entry), boolInt(b != entry))
	})
	return out
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// envoy is the leg to the Envoy on a node.
func (r road) envoy(node string) leg {
	for _, l := range r.entryLegs() {
		if l.node == node {
			return l
		}
	}
	return leg{}
}

// envoyLegs lead from an Envoy's node to the endpoints of its cluster.
func (r road) envoyLegs(a Answer[RequestAnswer]) []leg {
	envoy := r.envoy(a.Node)
	var out []leg
	for _, e := range a.Got.Endpoints {
		l := r.leg(a.Node, e.Address)
		l.source = envoy.to.Addr()
		l.node, l.pod = orElse(l.node, e.Node), orElse(l.pod, e.Pod)
		out = append(out, l)
	}
	return out[:min(len(out), maxLegs)]
}

// legs are all ways to pods that matter.
func (r road) legs() []leg {
	out := r.entryLegs()
	for _, a := range r.ev.Requests {
		out = append(out, r.envoyLegs(a)...)
	}
	return out
}

// route and podAt return what was answered about a leg.
func (r road) route(l leg) (_ AddrAnswer[RouteAnswer], ok bool) {
	for _, a := range r.ev.Routes {
		if a.Node == l.from && a.Addr.Addr() == l.to.Addr() {
			return a, true
		}
	}
	return AddrAnswer[RouteAnswer]{}, false
}

func (r road) podAt(l leg) (_ AddrAnswer[PodAnswer], ok bool) {
	for _, a := range r.ev.Pods {
		if a.Addr == l.to {
			return a, true
		}
	}
	return AddrAnswer[PodAnswer]{}, false
}

// problem is the message of a Problem about an object, of any process; empty if there is none.
func (r road) problem(objects ...model.ObjectRef) string {
	for _, o := range objects {
		for _, p := range r.ev.Problems {
			if p.Object == o && o.Name != "" {
				return p.Message
			}
		}
	}
	return ""
}

// process returns the process of a component on a node.
func (r road) process(component, node string) (_ ProcessEvidence, ok bool) {
	for _, p := range r.ev.Processes {
		if (p.Component == component || p.Component == "run") && (node == "" || p.Node == node) {
			return p, true
		}
	}
	return ProcessEvidence{}, false
}

// Target is where the packets of a question go; ok is false if there is no such place.
func Target(q Question, ev Evidence) (_ netip.AddrPort, ok bool) {
	r := road{q: q, ev: &ev}
	to, kind := r.to()
	port, ok := r.port()
	number := port.Port
	if kind == toNodePort {
		number = port.NodePort
	}
	return netip.AddrPortFrom(to, number), ok && kind != toNothing
}
