package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/kernel/nft/readback"
)

// Build makes the hops of what was read back, and says what becomes of what was asked for. The error wraps ErrQuestion
// if the question names something that is not there.
func Build(q Question, ev Evidence) (Trace, error) {
	b := builder{road: road{q: q, ev: &ev}, pods: map[netip.AddrPort]State{}}
	src, err := b.from()
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
	road
	src  source
	hops []Hop
	pods map[netip.AddrPort]State // those that are shown

	// partly, unclear: a way of several is broken, a hop that counts could not be read.
	partly, unclear bool
	broken          *Hop
	// perhaps is the first hop of somebody else's rules that may drop it, firewalls the nodes whose rules are shown.
	perhaps   *Hop
	firewalls []string
	// answer is how the request is answered, if Envoy does.
	answer string
}

// add appends a hop and reports whether the road goes on.
func (b *builder) add(h Hop) bool {
	if h.State == "" {
		h.State = OK
	}
	b.hops = append(b.hops, h)
	switch {
	case h.State == Broken && b.broken == nil:
		b.broken = &h
	case h.State == Unknown && h.Part == partFirewall:
		b.perhaps = cmp.Or(b.perhaps, &h)
	case h.State == Unknown && h.Part != partName:
		b.unclear = true
	}
	return h.State != Broken
}

// way appends a hop of one of several ways: if it is broken, the others may go on.
func (b *builder) way(h Hop) bool {
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
	if b.ev.Service.Error != "" {
		b.add(Hop{Where: whereCluster, Part: partService, State: Unknown, Text: "no node could be asked: " + b.ev.Service.Error,
			Remedy: "Start hythe node, or name its address by --admin; hythe get nodes says who answers."})
		return
	}
	b.name()
	to, kind := b.to()
	if !b.serviceHop(kind) || !b.sourceHop() {
		return
	}
	if kind == toVIP {
		if !b.claimHop(to) {
			return
		}
		if !b.src.inside && (!b.ownerHop(to) || !b.arpHops(to)) {
			return
		}
	}
	if f, ok := b.frontend(); ok {
		b.firewallHops(b.entry(), f.Got.Firewall, f.Got.Source == readback.FromNode)
	}
	if !b.frontendHop(to, kind) {
		return
	}
	if b.ways(b.entryLegs(), nil) && b.q.Kind == KindURL {
		b.envoys()
	}
}

// trace draws the conclusion.
func (b *builder) trace() Trace {
	t := Trace{Question: b.q, From: b.src.text, Hops: b.hops, Verdict: Arrives, Summary: b.answer}
	say := func(verdict Verdict, what string, h *Hop) {
		t.Verdict, t.Remedy = verdict, h.Remedy
		t.Summary = fmt.Sprintf("%s %s, %s", what, h.Where, h.Part)
	}
	switch {
	case b.broken != nil:
		say(Fails, "it ends at", b.broken)
	case b.partly:
		say(Partly, "some of it may end at", b.first(Broken, Differs))
	case b.unclear:
		say(Unclear, "see", b.first(Unknown))
	case b.perhaps != nil:
		say(Perhaps, "see", b.perhaps)
	default:
		if h := b.first(Broken, Differs, Unknown); h != nil {
			t.Remedy = h.Remedy
		}
	}
	return t
}

// first returns the first hop in a state, of states in this order; nil if there is none. What DNS says decides nothing,
// and rules that may drop it are the last to be named.
func (b *builder) first(states ...State) *Hop {
	for _, s := range states {
		for i := range b.hops {
			if h := &b.hops[i]; h.State == s && h.Remedy != "" && (h.Part != partName || s == Differs) && h.Part != partFirewall {
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
	for _, p := range b.ev.Processes {
		count[p.Component]++
		versions[p.Version] = append(versions[p.Version], p.name())
	}
	var parts []string
	for _, c := range []string{"controller", "gateway", "node", "run"} {
		if n := count[c]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, c))
		}
	}
	h := Hop{Where: whereCluster, Part: partProcesses, Text: "answered by " + strings.Join(parts, ", ")}
	if len(b.ev.Processes) > 0 {
		h.Text += map[string]string{"files": "; from files", "api": "; from the API server"}[b.ev.Processes[0].Source]
	}
	b.add(h)
	for _, s := range b.ev.Silent {
		b.add(Hop{Where: whereCluster, Part: partProcesses, State: Differs, Text: s,
			Remedy: "Look whether that process runs; what it would say is missing here."})
	}
	if len(versions) > 1 {
		var list []string
		for _, v := range sortedNames(versions) {
			list = append(list, fmt.Sprintf("%s %s", strings.Join(versions[v], ", "), v))
		}
		b.add(Hop{Where: whereCluster, Part: partProcesses, State: Differs, Text: "versions differ: " + strings.Join(list, "; "),
			Remedy: "Finish the upgrade."})
	}
	for _, p := range b.ev.Processes {
		if p.Source != "cache" {
			continue
		}
		b.add(Hop{Where: p.name(), Part: partProcesses, State: Differs,
			Text:   fmt.Sprintf("works from the last state that it saw, %s ago: the API server is away", age(b.ev.Now.Sub(p.Snapshot))),
			Remedy: "Bring the API server back, and look at the way to it: what changed since is not in use."})
	}
}

func (p ProcessEvidence) name() string {
	if p.Node == "" {
		return p.Component
	}
	return p.Node + "/" + p.Component
}

// name compares what DNS says of a URL's host with where the road leads. It decides nothing: clients ask other servers.
func (b *builder) name() {
	to, kind := b.to()
	host := b.q.Request.Host
	if b.q.Kind != KindURL || kind == toNothing {
		return
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return
	}
	h := Hop{Where: "DNS", Part: partName}
	switch {
	case b.q.Addr.IsValid():
		h.Text = fmt.Sprintf("not asked: %s is taken for %s, as --via says", to, host)
	case slices.Contains(b.ev.Resolved, to):
		h.Text = fmt.Sprintf("%s is %s", host, to)
	case len(b.ev.Resolved) > 0:
		h.State, h.Text = Differs, fmt.Sprintf("%s is %s", host, joinAddrs(b.ev.Resolved))
		h.Want = to.String()
		h.Remedy = fmt.Sprintf("Let DNS say %s for %s, or trace the other way by --via.", to, host)
	default:
		h.State, h.Text = Unknown, fmt.Sprintf("%s is not found from here; taken for %s, the address of Service %s", host, to, b.ev.Gateway)
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
func (b *builder) serviceHop(kind target) bool {
	s := b.service()
	h := Hop{Where: whereCluster, Part: partService, Object: s.Object, Since: s.Since}
	port, hasPort := b.port()
	switch {
	case !b.found():
		h.State, h.Text = Broken, b.nobody()
		h.Remedy = "Check the name or the address: hythe get services lists them."
		if b.q.Kind == KindURL && !b.q.Addr.IsValid() {
			h.Remedy = "Make the Service of the gateways, or name another by --gateway-service."
		}
	case s.Type == "ExternalName":
		h.State, h.Text = Broken, "it is of type ExternalName: a name in DNS, without address or ports of its own"
		h.Remedy = "Trace where spec.externalName leads; Hythe sends nothing to such a Service, also not for an Ingress."
	case !hasPort:
		h.State, h.Text = Broken, fmt.Sprintf("it has no port %s", b.wantedPort())
		h.Remedy = "It has " + ports(s.Ports) + ". Ask for one of them, or add the port to spec.ports."
	case kind == toNothing && s.Type == "LoadBalancer":
		h.State, h.Text, h.Remedy = Broken, "it is of type LoadBalancer and has no address", b.whyUnclaimed()
	case kind == toNothing:
		h.State, h.Text = Broken, "it has no address of its own"
		h.Remedy = "A headless Service, or one of type ExternalName, is reached by DNS only. Trace the endpoint, or give it a type with an address."
	default:
		h.Text = fmt.Sprintf("%s, %s port %d", s.Type, port.Protocol, port.Port)
		if kind == toNodePort {
			h.Text = fmt.Sprintf("%s, %s NodePort %d", s.Type, port.Protocol, port.NodePort)
		}
		h.Text += fmt.Sprintf(", %d of %d endpoints usable", usable(port.Endpoints), len(port.Endpoints))
	}
	return b.add(h)
}

func usable(endpoints []EndpointAnswer) int {
	n := 0
	for _, e := range endpoints {
		if e.Usable {
			n++
		}
	}
	return n
}

func (b *builder) nobody() string {
	switch b.q.Kind {
	case KindService:
		return fmt.Sprintf("there is no Service %s", b.q.Service)
	case KindURL:
		if !b.q.Addr.IsValid() {
			return fmt.Sprintf("there is no Service %s, which would lead to the gateways", b.ev.Gateway)
		}
	}
	return fmt.Sprintf("no Service and no claim has %s", b.q.Addr)
}

func (b *builder) wantedPort() string {
	if b.q.PortName != "" {
		return b.q.PortName
	}
	return fmt.Sprintf("%s %d", b.q.Protocol, b.q.Port)
}

func ports(list []PortAnswer) string {
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
	s := b.service()
	if p := b.problem(s.Object); p != "" {
		return p
	}
	if _, ok := b.process("controller", ""); !ok {
		return "Start hythe controller, which gives addresses: it does not answer."
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
	c := b.claim()
	h := Hop{Where: whereCluster, Part: partClaim, Object: c.Object, Since: c.Since}
	if c.Object.Name == "" {
		h.State, h.Text = Broken, fmt.Sprintf("no AddressClaim gives %s to %s", to, b.service().Object)
		h.Remedy = "Take one of the addresses that hythe get vips shows."
		return b.add(h)
	}
	h.Text = fmt.Sprintf("%s of AddressPool %s is %s's", to, c.Pool, b.service().Object)
	var without []string
	for _, v := range b.ev.VIPs {
		if v.Error == "" && !v.Got.Claimed && !v.Got.Without {
			without = append(without, v.Node)
		}
	}
	switch {
	case len(c.Announce) == 0:
		h.State = Broken
		h.Text += ", but is not to be announced"
		h.Remedy = b.problem(b.service().Object, c.Object)
		if h.Remedy == "" {
			h.Remedy = "Only IPv4 addresses are announced: give the Service one."
		}
	case len(without) > 0:
		h.State = Differs
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
