package road

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/trace/asked"
)

// A Road is a Question with what is known so far. Its methods are pure: Ask uses them to know what to ask next, Build of
// package trace to know what the answers mean.
type Road struct {
	Question asked.Question
	Evidence *asked.Evidence
}

// A Source is where the traced packets come from.
type Source struct {
	// Inside says that the source is a node or a pod.
	Inside bool
	Pod    bool       // it is a pod
	Node   string     // where its packets enter the datapath, for inside
	Addr   netip.Addr // of the source; invalid if not known
	Text   string
}

func (r Road) Service() asked.ServiceAnswer { return r.Evidence.Service.Got }

// Found says whether the Service of the question is known.
func (r Road) Found() bool { return r.Service().Object.Name != "" }

// NodeOf returns the Node that has the address itself, or pods with such addresses.
func (r Road) NodeOf(a netip.Addr) (node string, isPod bool) {
	for _, n := range r.Service().Nodes {
		if slices.Contains(n.Addresses, a) {
			return n.Name, false
		}
	}
	for _, n := range r.Service().Nodes {
		if slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return n.Name, true
		}
	}
	return "", false
}

// From finds the source. The error is for people and says how to ask.
func (r Road) From() (Source, error) {
	switch from := r.Question.From; {
	case from == "" && r.internal():
		node := r.anyNode()
		return Source{Inside: true, Node: node, Text: "node " + node + " (chosen: a ClusterIP is reached from inside only)"}, nil
	case from == "":
		return Source{Text: "outside of the cluster"}, nil
	case strings.Contains(from, "/"):
		e := r.Service().From
		if e.Node == "" {
			return Source{}, asked.BadQuestion(r.Question.Text, "--from %s: no Service has a pod of this name; give its address instead", from)
		}
		return Source{Inside: true, Pod: true, Node: e.Node, Addr: e.Address.Addr(), Text: fmt.Sprintf("pod %s %s on %s", from, e.Address.Addr(), e.Node)}, nil
	default:
		return r.fromName(from)
	}
}

func (r Road) fromName(from string) (Source, error) {
	if a, err := netip.ParseAddr(from); err == nil {
		node, isPod := r.NodeOf(a.Unmap())
		switch {
		case node == "":
			return Source{Addr: a.Unmap(), Text: from + ", outside of the cluster"}, nil
		case isPod:
			return Source{Inside: true, Pod: true, Node: node, Addr: a.Unmap(), Text: "pod " + from + " on " + node}, nil
		default:
			return Source{Inside: true, Node: node, Addr: a.Unmap(), Text: "node " + node}, nil
		}
	}
	var names []string
	for _, n := range r.Service().Nodes {
		if n.Name == from {
			return Source{Inside: true, Node: from, Addr: first(n.Addresses), Text: "node " + from}, nil
		}
		names = append(names, n.Name)
	}
	if len(names) == 0 {
		return Source{Inside: true, Node: from, Text: "node " + from}, nil // no node answers: Build says so
	}
	return Source{}, asked.BadQuestion(r.Question.Text, "--from %s: there is no such node (there are %s); a pod is NAMESPACE/NAME", from, strings.Join(names, ", "))
}

func first[T any](list []T) (zero T) {
	if len(list) > 0 {
		return list[0]
	}
	return zero
}

// anyNode is a node whose agent answers.
func (r Road) anyNode() string {
	for _, p := range r.Evidence.Processes {
		if p.Component == "node" || p.Component == "run" {
			return p.Node
		}
	}
	return ""
}

// Port is the Service's port that is asked for; ok is false if it has no such port.
func (r Road) Port() (_ asked.PortAnswer, ok bool) {
	to, kind := r.To()
	for _, p := range r.Service().Ports {
		switch {
		case p.Protocol != r.Question.Protocol && (r.Question.Port != 0 || r.Question.PortName != ""):
		case kind == ToNodePort:
			if p.NodePort == r.Question.Port && to.IsValid() {
				return p, true
			}
		case r.Question.PortName != "":
			if p.Name == r.Question.PortName {
				return p, true
			}
		case r.Question.Port == 0 || p.Port == r.Question.Port:
			return p, true
		}
	}
	return asked.PortAnswer{}, false
}

// A Target is the kind of address that packets go to.
type Target int

const (
	ToNothing Target = iota // the Service has no address
	ToVIP
	ToClusterIP
	ToNodePort
)

// To is the address that packets go to.
func (r Road) To() (netip.Addr, Target) {
	s := r.Service()
	if a := r.Question.Addr; a.IsValid() {
		switch node, isPod := r.NodeOf(a); {
		case slices.Contains(s.ClusterIPs, a):
			return a, ToClusterIP
		case node != "" && !isPod:
			return a, ToNodePort
		default:
			return a, ToVIP
		}
	}
	inside := r.Question.From != "" && r.Question.Kind == asked.KindService // pods ask a Service by its ClusterIP
	if inside {
		if a, err := netip.ParseAddr(r.Question.From); err == nil {
			node, _ := r.NodeOf(a.Unmap())
			inside = node != ""
		}
	}
	if len(s.VIPs) > 0 && !inside {
		return s.VIPs[0].Addr, ToVIP
	}
	if len(s.ClusterIPs) > 0 && (inside || s.Type != "LoadBalancer") {
		return s.ClusterIPs[0], ToClusterIP
	}
	return netip.Addr{}, ToNothing
}

// internal says that only sources inside can reach the target.
func (r Road) internal() bool {
	_, kind := r.To()
	return kind == ToClusterIP
}

// Claim is the claim of the VIP, the zero value if it is not known.
func (r Road) Claim() asked.ClaimAnswer {
	to, _ := r.To()
	for _, c := range r.Service().VIPs {
		if c.Addr == to {
			return c
		}
	}
	return asked.ClaimAnswer{}
}

// Owners are the nodes that say that they own the VIP, the highest generation first.
func (r Road) Owners() []asked.Answer[asked.VIPAnswer] {
	var out []asked.Answer[asked.VIPAnswer]
	for _, v := range r.Evidence.VIPs {
		if v.Error == "" && v.Got.Owned {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(a, b asked.Answer[asked.VIPAnswer]) int { return cmp.Compare(b.Got.Generation, a.Got.Generation) })
	return out
}

// Askers are the nodes that ask by ARP: two of those that do not own the VIP.
func (r Road) Askers() []asked.Answer[asked.VIPAnswer] {
	var out []asked.Answer[asked.VIPAnswer]
	for _, v := range r.Evidence.VIPs {
		if v.Error == "" && !v.Got.Owned && v.Got.Up && len(out) < 2 {
			out = append(out, v)
		}
	}
	return out
}

// Entry is the node whose kernel takes the packets, empty if there is none.
func (r Road) Entry() string {
	src, err := r.From()
	if err != nil {
		return ""
	}
	if src.Inside {
		return src.Node
	}
	to, kind := r.To()
	switch kind {
	case ToNodePort:
		node, _ := r.NodeOf(to)
		return node
	case ToVIP:
		// Where packets really go is what ARP says; what nodes say of themselves is the next best.
		for _, a := range r.Evidence.ARP {
			for _, reply := range a.Got.Replies {
				if node := r.NodeOfMAC(reply); node != "" {
					return node
				}
			}
		}
		if owners := r.Owners(); len(owners) > 0 {
			return owners[0].Node
		}
	}
	return ""
}

// NodeOfMAC is the node whose interface has the MAC that answered.
func (r Road) NodeOfMAC(reply asked.ARPReply) string {
	for _, v := range r.Evidence.VIPs {
		if v.Error == "" && v.Got.MAC == reply.MAC {
			return v.Node
		}
	}
	return reply.Node
}

// Frontend is the answer of the entry node's kernel; ok is false if there is none.
func (r Road) Frontend() (_ asked.Answer[asked.FrontendAnswer], ok bool) {
	entry := r.Entry()
	for _, f := range r.Evidence.Frontends {
		if f.Node == entry {
			return f, true
		}
	}
	return asked.Answer[asked.FrontendAnswer]{}, false
}

// A Leg is one way from a node to a pod behind it.
type Leg struct {
	From   string     // the node
	Source netip.Addr // the packet's; invalid for the node itself
	To     netip.AddrPort
	Node   string // of the pod, empty if not known
	Pod    string // NAMESPACE/NAME, empty if not known
}

// maxLegs bounds how many endpoints are followed.
const maxLegs = 8

// EntryLegs lead from the entry node to the endpoints that its kernel knows.
func (r Road) EntryLegs() []Leg {
	f, ok := r.Frontend()
	if !ok || f.Error != "" {
		return nil
	}
	var out []Leg
	for _, a := range f.Got.Kernel.Endpoints {
		out = append(out, r.Leg(f.Node, a))
	}
	return out[:min(len(out), maxLegs)]
}

// Leg fills in what the endpoints of Services say of an address.
func (r Road) Leg(from string, to netip.AddrPort) Leg {
	l := Leg{From: from, To: to}
	known := []asked.ServiceAnswer{r.Service()}
	for _, b := range r.Evidence.Backends {
		known = append(known, b.Got)
	}
	for _, s := range known {
		for _, p := range s.Ports {
			for _, e := range p.Endpoints {
				if e.Address != to {
					continue
				}
				l.Node = e.Node
				if e.Pod != "" {
					l.Pod = s.Object.Namespace + "/" + e.Pod
				}
				return l
			}
		}
	}
	l.Node, _ = r.NodeOf(to.Addr())
	return l
}

// Backends are the Services that Envoys send the request to.
func (r Road) Backends() []model.ObjectRef {
	var out []model.ObjectRef
	for _, a := range r.Evidence.Requests {
		for _, h := range a.Got.Hops {
			if h.Object.Kind == "Service" && !slices.Contains(out, h.Object) {
				out = append(out, h.Object)
			}
		}
	}
	return out
}

// SourcePod is the way back to the pod that the packets come from; ok is false if they come from elsewhere.
func (r Road) SourcePod() (_ Leg, ok bool) {
	src, err := r.From()
	l := Leg{From: src.Node, Node: src.Node, To: netip.AddrPortFrom(src.Addr, 0)}
	if strings.Contains(r.Question.From, "/") {
		l.Pod = r.Question.From
	}
	return l, err == nil && src.Pod
}

// Gateways are the nodes of the Envoys that a request can come to, that of the entry node first.
func (r Road) Gateways() []string {
	if r.Question.Kind != asked.KindURL {
		return nil
	}
	entry := r.Entry()
	var out []string
	for _, l := range r.EntryLegs() {
		if l.Node != "" && !slices.Contains(out, l.Node) {
			out = append(out, l.Node)
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
func (r Road) envoy(node string) Leg {
	for _, l := range r.EntryLegs() {
		if l.Node == node {
			return l
		}
	}
	return Leg{}
}

// EnvoyLegs lead from an Envoy's node to the endpoints of its cluster.
func (r Road) EnvoyLegs(a asked.Answer[asked.RequestAnswer]) []Leg {
	envoy := r.envoy(a.Node)
	var out []Leg
	for _, e := range a.Got.Endpoints {
		l := r.Leg(a.Node, e.Address)
		l.Source = envoy.To.Addr()
		l.Node, l.Pod = cmp.Or(l.Node, e.Node), cmp.Or(l.Pod, e.Pod)
		out = append(out, l)
	}
	return out[:min(len(out), maxLegs)]
}

// Legs are all ways to pods that matter.
func (r Road) Legs() []Leg {
	out := r.EntryLegs()
	for _, a := range r.Evidence.Requests {
		out = append(out, r.EnvoyLegs(a)...)
	}
	return out
}

// Route and podAt return what was answered about a leg.
func (r Road) Route(l Leg) (_ asked.AddrAnswer[asked.RouteAnswer], ok bool) {
	for _, a := range r.Evidence.Routes {
		if a.Node == l.From && a.Addr.Addr() == l.To.Addr() {
			return a, true
		}
	}
	return asked.AddrAnswer[asked.RouteAnswer]{}, false
}

func (r Road) PodAt(l Leg) (_ asked.AddrAnswer[asked.PodAnswer], ok bool) {
	for _, a := range r.Evidence.Pods {
		if a.Addr == l.To {
			return a, true
		}
	}
	return asked.AddrAnswer[asked.PodAnswer]{}, false
}

// Problem is the message of a Problem about an object, of any process; empty if there is none.
func (r Road) Problem(objects ...model.ObjectRef) string {
	for _, o := range objects {
		for _, p := range r.Evidence.Problems {
			if p.Object == o && o.Name != "" {
				return p.Message
			}
		}
	}
	return ""
}

// Process returns the process of a component on a node.
func (r Road) Process(component, node string) (_ asked.ProcessEvidence, ok bool) {
	for _, p := range r.Evidence.Processes {
		if (p.Component == component || p.Component == "run") && (node == "" || p.Node == node) {
			return p, true
		}
	}
	return asked.ProcessEvidence{}, false
}

// Destination is where the packets of a question go; ok is false if there is no such place.
func Destination(q asked.Question, ev asked.Evidence) (_ netip.AddrPort, ok bool) {
	r := Road{Question: q, Evidence: &ev}
	to, kind := r.To()
	port, ok := r.Port()
	number := port.Port
	if kind == ToNodePort {
		number = port.NodePort
	}
	return netip.AddrPortFrom(to, number), ok && kind != ToNothing
}
