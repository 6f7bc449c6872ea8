package trace

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/internal/trace/road"
	"hythe.dev/hythe/node/kernel/nft/readback"
)

// Build makes the hops of what was read back, and says what becomes of what was asked for. The error wraps ErrQuestion
// if the question names something that is not there.
func Build(q asked.Question, ev asked.Evidence) (Trace, error) {
	b := builder{Road: road.Road{Question: q, Evidence: &ev}, pods: map[netip.AddrPort]asked.State{}}
	src, err := b.From()
	if err != nil {
		return Trace{}, err
	}
	b.src = src
	b.processes()
	b.walk()
	return b.trace(), nil
}

// A builder collects hops.
type builder struct {
	road.Road
	src  road.Source
	hops []asked.Hop
	pods map[netip.AddrPort]asked.State // those that are shown

	// partly, unclear: a way of several is broken, a hop that counts could not be read.
	partly, unclear bool
	broken          *asked.Hop
	// perhaps is the first hop of somebody else's rules that may drop it, firewalls the nodes whose rules are shown.
	perhaps   *asked.Hop
	firewalls []string
	// answer is how the request is answered, if Envoy does.
	answer string
}

// add appends a hop and reports whether the road goes on.
func (b *builder) add(h asked.Hop) bool {
	if h.State == "" {
		h.State = asked.OK
	}
	b.hops = append(b.hops, h)
	switch {
	case h.State == asked.Broken && b.broken == nil:
		b.broken = &h
	case h.State == asked.Unknown && h.Part == partFirewall:
		b.perhaps = cmp.Or(b.perhaps, &h)
	case h.State == asked.Unknown && h.Part != partName:
		b.unclear = true
	}
	return h.State != asked.Broken
}

// way appends a hop of one of several ways: if it is broken, the others may go on.
func (b *builder) way(h asked.Hop) bool {
	broken, unclear := b.broken, b.unclear
	ok := b.add(h)
	if broken == nil && !ok {
		b.broken = nil
	}
	b.unclear = unclear
	return ok
}

// The parts of a road, as Hop.Part names them.
const (
	partProcesses = "processes"
	partName      = "name"
	partService   = "service"
	partClaim     = "claim"
	partOwner     = "owner"
	partARP       = "arp"
	partSource    = "source"
	partFrontend  = "frontend"
	partFirewall  = "firewall"
	partRequest   = "request"
	partOverlay   = "overlay"
	partPod       = "pod"
)

const whereCluster = "cluster"

// walk goes along the road until it ends.
func (b *builder) walk() {
	if b.Evidence.Service.Error != "" {
		b.add(asked.Hop{Where: whereCluster, Part: partService, State: asked.Unknown, Text: "no node could be asked: " + b.Evidence.Service.Error,
			Remedy: "Start hythe node, or name its address by --admin; hythe get nodes says who answers."})
		return
	}
	b.name()
	to, kind := b.To()
	if !b.serviceHop(kind) || !b.sourceHop() {
		return
	}
	if kind == road.ToVIP {
		if !b.claimHop(to) {
			return
		}
		if !b.src.Inside && (!b.ownerHop(to) || !b.arpHops(to)) {
			return
		}
	}
	if f, ok := b.Frontend(); ok {
		b.firewallHops(b.Entry(), f.Got.Firewall, f.Got.Source == readback.FromNode)
	}
	if !b.frontendHop(to, kind) {
		return
	}
	if b.ways(b.EntryLegs(), nil) && b.Question.Kind == asked.KindURL {
		b.envoys()
	}
}

// trace draws the conclusion.
func (b *builder) trace() Trace {
	t := Trace{Question: b.Question, From: b.src.Text, Hops: b.hops, Verdict: Arrives, Summary: b.answer}
	say := func(verdict Verdict, what string, h *asked.Hop) {
		t.Verdict, t.Remedy = verdict, h.Remedy
		t.Summary = fmt.Sprintf("%s %s, %s", what, h.Where, h.Part)
	}
	switch {
	case b.broken != nil:
		say(Fails, "it ends at", b.broken)
	case b.partly:
		say(Partly, "some of it may end at", b.first(asked.Broken, asked.Differs))
	case b.unclear:
		say(Unclear, "see", b.first(asked.Unknown))
	case b.perhaps != nil:
		say(Perhaps, "see", b.perhaps)
	default:
		if h := b.first(asked.Broken, asked.Differs, asked.Unknown); h != nil {
			t.Remedy = h.Remedy
		}
	}
	return t
}

// first returns the first hop in a state, of states in this order; nil if there is none. What DNS says decides nothing,
// and rules that may drop it are the last to be named.
func (b *builder) first(states ...asked.State) *asked.Hop {
	for _, s := range states {
		for i := range b.hops {
			if h := &b.hops[i]; h.State == s && h.Remedy != "" && (h.Part != partName || s == asked.Differs) && h.Part != partFirewall {
				return h
			}
		}
	}
	return nil
}

// processes says who was asked, and whether they see the cluster as it is.
func (b *builder) processes() {
	count := map[string]int{}
	versions := map[string][]string{}
	for _, p := range b.Evidence.Processes {
		count[p.Component]++
		versions[p.Version] = append(versions[p.Version], p.Name())
	}
	var parts []string
	for _, c := range []string{"controller", "gateway", "node", "run"} {
		if n := count[c]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, c))
		}
	}
	h := asked.Hop{Where: whereCluster, Part: partProcesses, Text: "answered by " + strings.Join(parts, ", ")}
	if len(b.Evidence.Processes) > 0 {
		h.Text += map[string]string{"files": "; from files", "api": "; from the API server"}[b.Evidence.Processes[0].Source]
	}
	b.add(h)
	for _, s := range b.Evidence.Silent {
		b.add(asked.Hop{Where: whereCluster, Part: partProcesses, State: asked.Differs, Text: s,
			Remedy: "Look whether that process runs; what it would say is missing here."})
	}
	if len(versions) > 1 {
		var list []string
		for _, v := range slices.Sorted(maps.Keys(versions)) {
			list = append(list, fmt.Sprintf("%s %s", strings.Join(versions[v], ", "), v))
		}
		b.add(asked.Hop{Where: whereCluster, Part: partProcesses, State: asked.Differs, Text: "versions differ: " + strings.Join(list, "; "),
			Remedy: "Finish the upgrade."})
	}
	for _, p := range b.Evidence.Processes {
		b.connection(p)
	}
}

// connection says of a process that has no state of the cluster, or not that of now, and why.
func (b *builder) connection(p asked.ProcessEvidence) {
	h := asked.Hop{Where: p.Name(), Part: partProcesses, State: asked.Differs, Remedy: b.refused(p.Name())}
	old := fmt.Sprintf("works from the last state that it saw, %s ago", age(b.Evidence.Now.Sub(p.Snapshot)))
	switch {
	case p.Snapshot.IsZero():
		h.Text = "is not ready: it has no complete state of the cluster yet"
		if h.Remedy == "" {
			h.Remedy = "See what hythe get problems says of it, and its log."
		}
	case p.Source == "cache" && h.Remedy != "":
		h.Text = old + ": the API server refuses it the state of now"
	case p.Source == "cache":
		h.Text = old + ": the API server is away"
		h.Remedy = "Bring the API server back, and look at the way to it: what changed since is not in use."
	case h.Remedy != "":
		h.Text = "works in part from an old state: the API server refuses it that of now"
	default:
		return
	}
	b.add(h)
}

// refused is what a process says of an API server that answers, and does not give it what it asks for. The reasons are
// those of package kube.
func (b *builder) refused(process string) string {
	for _, p := range b.Evidence.Problems {
		if p.Process == process && p.Object.Kind == "APIServer" && slices.Contains([]string{"Unauthorized", "Forbidden", "KindNotServed"}, p.Reason) {
			return p.Message
		}
	}
	return ""
}

// name compares what DNS says of a URL's host with where the road leads. It decides nothing: clients ask other servers.
func (b *builder) name() {
	to, kind := b.To()
	host := b.Question.Request.Host
	if b.Question.Kind != asked.KindURL || kind == road.ToNothing {
		return
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return
	}
	h := asked.Hop{Where: "DNS", Part: partName}
	switch {
	case b.Question.Addr.IsValid():
		h.Text = fmt.Sprintf("not asked: %s is taken for %s, as --via says", to, host)
	case slices.Contains(b.Evidence.Resolved, to):
		h.Text = fmt.Sprintf("%s is %s", host, to)
	case len(b.Evidence.Resolved) > 0:
		h.State, h.Text = asked.Differs, fmt.Sprintf("%s is %s", host, joinAddrs(b.Evidence.Resolved))
		h.Want = to.String()
		h.Remedy = fmt.Sprintf("Let DNS say %s for %s, or trace the other way by --via.", to, host)
	default:
		h.State, h.Text = asked.Unknown, fmt.Sprintf("%s is not found from here; taken for %s, the address of Service %s", host, to, b.Evidence.Gateway)
		h.Remedy = fmt.Sprintf("Clients need a DNS record %s for %s.", to, host)
	}
	b.add(h)
}

func joinAddrs[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, " ")
}

// serviceHop says which Service it is, and ends the road if there is none, or not the port.
func (b *builder) serviceHop(kind road.Target) bool {
	s := b.Service()
	h := asked.Hop{Where: whereCluster, Part: partService, Object: s.Object, Since: s.Since}
	port, hasPort := b.Port()
	switch {
	case !b.Found():
		h.State, h.Text = asked.Broken, b.nobody()
		h.Remedy = "Check the name or the address: hythe get services lists them."
		if b.Question.Kind == asked.KindURL && !b.Question.Addr.IsValid() {
			h.Remedy = "Make the Service of the gateways, or name another by --gateway-service."
		}
		if node, isPod := b.NodeOf(b.Question.Addr); node != "" && !isPod {
			h.State = asked.Unknown
			h.Text = fmt.Sprintf("no Service has %s %d as its NodePort; a pod may have it as its hostPort", b.Question.Protocol, b.Question.Port)
			h.Remedy = fmt.Sprintf("Host ports are not traced: /debug/services of hythe node on %s shows them, and hythe get problems those that were refused.", node)
		}
	case s.Type == "ExternalName":
		h.State, h.Text = asked.Broken, "it is of type ExternalName: a name in DNS, without address or ports of its own"
		h.Remedy = "Trace where spec.externalName leads; Hythe sends nothing to such a Service, also not for an Ingress."
	case !hasPort:
		h.State, h.Text = asked.Broken, fmt.Sprintf("it has no port %s", b.wantedPort())
		h.Remedy = "It has " + ports(s.Ports) + ". Ask for one of them, or add the port to spec.ports."
	case kind == road.ToNothing && s.Type == "LoadBalancer":
		h.State, h.Text, h.Remedy = asked.Broken, "it is of type LoadBalancer and has no address", b.whyUnclaimed()
	case kind == road.ToNothing:
		h.State, h.Text = asked.Broken, "it has no address of its own"
		h.Remedy = "A headless Service, or one of type ExternalName, is reached by DNS only. Trace the endpoint, or give it a type with an address."
	default:
		h.Text = fmt.Sprintf("%s, %s port %d", s.Type, port.Protocol, port.Port)
		if kind == road.ToNodePort {
			h.Text = fmt.Sprintf("%s, %s NodePort %d", s.Type, port.Protocol, port.NodePort)
		}
		h.Text += fmt.Sprintf(", %d of %d endpoints usable", usable(port.Endpoints), len(port.Endpoints))
	}
	return b.add(h) && b.Found()
}

func usable(endpoints []asked.EndpointAnswer) int {
	n := 0
	for _, e := range endpoints {
		if e.Usable {
			n++
		}
	}
	return n
}

func (b *builder) nobody() string {
	switch b.Question.Kind {
	case asked.KindService:
		return fmt.Sprintf("there is no Service %s", b.Question.Service)
	case asked.KindURL:
		if !b.Question.Addr.IsValid() {
			return fmt.Sprintf("there is no Service %s, which would lead to the gateways", b.Evidence.Gateway)
		}
	}
	return fmt.Sprintf("no Service and no claim has %s", b.Question.Addr)
}

func (b *builder) wantedPort() string {
	if b.Question.PortName != "" {
		return b.Question.PortName
	}
	return fmt.Sprintf("%s %d", b.Question.Protocol, b.Question.Port)
}

func ports(list []asked.PortAnswer) string {
	var texts []string
	for _, p := range list {
		text := fmt.Sprintf("%s %d", p.Protocol, p.Port)
		if p.Name != "" {
			text += " (" + p.Name + ")"
		}
		if p.NodePort != 0 {
			text += fmt.Sprintf(" NodePort %d", p.NodePort)
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return "no ports"
	}
	return strings.Join(texts, ", ")
}

// whyUnclaimed is the remedy for a LoadBalancer Service without an address.
func (b *builder) whyUnclaimed() string {
	s := b.Service()
	if p := b.Problem(s.Object); p != "" {
		return p
	}
	if _, ok := b.Process("controller", ""); !ok {
		return "Start hythe controller, which gives addresses: it does not answer."
	}
	if why := b.refused("controller"); why != "" {
		return why
	}
	if s.Class == "" {
		return "Set spec.loadBalancerClass to hythe.dev/lb, or let the controller take Services without a class (--without-class)."
	}
	if s.Class != "hythe.dev/lb" {
		return fmt.Sprintf("Its spec.loadBalancerClass is %s, which is somebody else's: ask there, or make it hythe.dev/lb with a new Service.", s.Class)
	}
	return "Make an AddressPool with free addresses, and see what hythe get problems says."
}

// claimHop says which claim gives the VIP to the Service, and whether all nodes know it.
func (b *builder) claimHop(to netip.Addr) bool {
	c := b.Claim()
	h := asked.Hop{Where: whereCluster, Part: partClaim, Object: c.Object, Since: c.Since}
	if c.Object.Name == "" {
		h.State, h.Text = asked.Broken, fmt.Sprintf("no AddressClaim gives %s to %s", to, b.Service().Object)
		h.Remedy = "Take one of the addresses that hythe get vips shows."
		return b.add(h)
	}
	h.Text = fmt.Sprintf("%s of AddressPool %s is %s's", to, c.Pool, b.Service().Object)
	var without []string
	for _, v := range b.Evidence.VIPs {
		if v.Error == "" && !v.Got.Claimed && !v.Got.Without {
			without = append(without, v.Node)
		}
	}
	switch {
	case len(c.Announce) == 0:
		h.State = asked.Broken
		h.Text += ", but is not to be announced"
		h.Remedy = b.Problem(b.Service().Object, c.Object)
		if h.Remedy == "" {
			h.Remedy = "Only IPv4 addresses are announced: give the Service one."
		}
	case len(without) > 0:
		h.State = asked.Differs
		h.Text += ", but " + strings.Join(without, " and ") + " does not know that"
		h.Remedy = "A node takes it over from the API server within a second: look at the log of hythe node there."
	}
	return b.add(h)
}

// age is a duration for people, with one unit or two.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func podRef(pod string) model.ObjectRef {
	namespace, name, ok := strings.Cut(pod, "/")
	if !ok {
		return model.ObjectRef{}
	}
	return model.ObjectRef{Kind: "Pod", Namespace: namespace, Name: name}
}
