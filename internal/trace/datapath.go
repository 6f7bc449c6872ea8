package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/internal/trace/road"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft/readback"
)

// sourceHop says whether the pod that the packets come from is attached to its node.
func (b *builder) sourceHop() bool {
	l, ok := b.SourcePod()
	if !ok || b.Evidence.From == nil {
		return true
	}
	h := b.podHop(l, *b.Evidence.From, true)
	h.Part = partSource
	h.Text = strings.Replace(strings.Replace(h.Text, ":0", "", 1), notTried, "", 1)
	return b.add(h)
}

// frontendHop says what the kernel of the entry node does with the connection.
func (b *builder) frontendHop(to netip.Addr, kind road.Target) bool {
	entry := b.Entry()
	port, _ := b.Port()
	h := asked.Hop{Where: entry + "/kernel", Part: partFrontend, Object: b.Service().Object, Since: b.Service().Since}
	f, ok := b.Frontend()
	if !ok || f.Error != "" {
		if entry == "" {
			h.Where = whereCluster
		}
		h.State, h.Text = asked.Unknown, "cannot be read: "+cmp.Or(f.Error, "hythe node there does not answer")
		h.Remedy = fmt.Sprintf("Start hythe node on %s; what it put into the kernel works on without it.", cmp.Or(entry, "the nodes"))
		b.add(h)
		return false
	}
	number := port.Port
	if kind == road.ToNodePort {
		number = port.NodePort
	}
	what := fmt.Sprintf("%s %s %d", to, port.Protocol, number)
	kernel, want := f.Got.Kernel, f.Got.Want
	if src, _ := b.From(); !src.Addr.IsValid() && !src.Inside {
		kernel.Chosen, kernel.Stays = netip.AddrPort{}, netip.AddrPort{} // those of an address that stands for all outside
	}
	h.Text = what + " " + frontendText(kernel)
	same := kernel.Verdict == want.Verdict && slices.Equal(kernel.Endpoints, want.Endpoints)
	if !same {
		h.Want = frontendText(want)
	}
	switch {
	case f.Got.Without:
		h.State, h.Text, h.Want = asked.Unknown, "this node leaves Services to another proxy", ""
		h.Remedy = "Ask that proxy, or run hythe node without --without-proxy."
		b.add(h)
		return false
	case kernel.Verdict == readback.Forwarded && same:
		if kernel.Masquerade > 0 && kernel.Masquerade == len(kernel.Endpoints) {
			h.Text += ", the source masqueraded"
		}
	case kernel.Verdict == readback.Forwarded:
		h.State, h.Remedy = asked.Differs, b.repair(entry)
	case want.Verdict == readback.Forwarded:
		h.State, h.Remedy = asked.Broken, b.repair(entry)
	default:
		h.State, h.Remedy = asked.Broken, b.whyRefused(kernel, port)
	}
	return b.add(h)
}

func frontendText(f asked.Frontend) string {
	switch {
	case f.Verdict == readback.Forwarded:
		return "─> " + joinAddrs(f.Endpoints) + choiceText(f)
	case f.Why != "":
		return "is " + f.Verdict + ": " + f.Why
	case f.Verdict == readback.NotService:
		return "is not a Service"
	}
	return "is " + f.Verdict
}

// choiceText says which endpoint the source comes to, as far as that is not chance.
func choiceText(f asked.Frontend) string {
	switch {
	case f.Stays.IsValid():
		return ", by session affinity to " + f.Stays.String()
	case f.Chosen.IsValid():
		return ", " + f.Choice + " to " + f.Chosen.String()
	case f.Choice != "":
		return ", " + f.Choice
	}
	return ""
}

func (b *builder) repair(node string) string {
	if p := b.Problem(model.ObjectRef{Kind: "Node", Name: node}); p != "" {
		return p
	}
	return fmt.Sprintf("hythe node on %s repairs this within a second. If it stays, look at its log, and with nft monitor for who else changes table inet hythe.", node)
}

// whyRefused is the remedy where Build too wants the connection refused or dropped.
func (b *builder) whyRefused(kernel asked.Frontend, port asked.PortAnswer) string {
	s := b.Service()
	if p := b.Problem(s.Object); p != "" {
		return p
	}
	var notReady []string
	for _, e := range port.Endpoints {
		if !e.Usable {
			notReady = append(notReady, cmp.Or(e.Pod, e.Address.String()))
		}
	}
	switch {
	case len(port.Endpoints) == 0:
		return fmt.Sprintf("No pod is behind the Service: compare its spec.selector with the labels of the pods, and its targetPort: kubectl -n %s get endpointslices -l kubernetes.io/service-name=%s.",
			s.Object.Namespace, s.Object.Name)
	case len(notReady) == len(port.Endpoints):
		return fmt.Sprintf("No pod is ready: look at %s in namespace %s, at its readiness probe and log.", strings.Join(notReady, ", "), s.Object.Namespace)
	case kernel.Verdict == readback.Dropped && s.Local:
		return "With externalTrafficPolicy Local only a node with a ready pod of the Service takes traffic from outside: let one run there, or make it Cluster."
	case kernel.Verdict == readback.Dropped:
		return "Only the ranges of spec.loadBalancerSourceRanges may come from outside: ask with --from the client's address, or widen them."
	}
	return "Look at the Service's ports and endpoints."
}

// ways looks at each leg. All broken is the road's end; some broken leaves a part. used says whether a leg is taken at
// all, nil for each; for one that is not, the outcome does not matter.
func (b *builder) ways(legs []road.Leg, used func(netip.AddrPort) bool) bool {
	var failed *asked.Hop
	count := map[asked.State]int{}
	for _, l := range legs {
		before := len(b.hops)
		state := b.leg(l)
		if used != nil && !used(l.To) {
			unused(b.hops[before:])
			continue
		}
		count[state]++
		if state == asked.Broken && failed == nil {
			failed = lastBroken(b.hops[before:], l)
		}
	}
	switch {
	case count[asked.Broken] == 0:
		b.unclear = b.unclear || count[asked.Unknown] > 0 && count[asked.OK] == 0
	case count[asked.OK]+count[asked.Unknown] == 0:
		b.broken = failed
		return false
	default:
		b.partly = true
	}
	return true
}

// unused marks hops that nothing is sent to: their being broken ends nothing.
func unused(hops []asked.Hop) {
	for i := range hops {
		if hops[i].State == asked.Broken {
			hops[i].State = asked.Differs
			hops[i].Text += "; Envoy does not send there"
		}
	}
}

// lastBroken is the hop that ended a way: the last one, since a way is not followed beyond it.
func lastBroken(hops []asked.Hop, l road.Leg) *asked.Hop {
	for _, h := range slices.Backward(hops) {
		if h.State == asked.Broken {
			return &h
		}
	}
	return &asked.Hop{Where: l.Node, Part: partPod, State: asked.Broken, Text: l.To.String() + " was found broken above"}
}

// leg looks at the way to one pod, and at the pod, which is shown once. The state is OK also where something differs.
func (b *builder) leg(l road.Leg) asked.State {
	state := asked.OK
	if a, ok := b.PodAt(l); ok {
		b.firewallHops(a.Node, a.Got.Firewall, a.Got.HostNetwork)
	}
	if l.Node != l.From {
		h := b.overlayHop(l)
		b.way(h)
		state = worse(state, h.State)
	}
	known, shown := b.pods[l.To]
	if !shown {
		a, answered := b.PodAt(l)
		h := b.podHop(l, a, answered)
		b.way(h)
		known = h.State
		b.pods[l.To] = known
	}
	return worse(state, known)
}

// worse is the worse one of how two hops carry something on.
func worse(a, b asked.State) asked.State {
	order := []asked.State{asked.Broken, asked.Unknown}
	for _, s := range order {
		if a == s || b == s {
			return s
		}
	}
	return asked.OK
}

// overlayHop is the way from a node to a pod on another one.
func (b *builder) overlayHop(l road.Leg) asked.Hop {
	h := asked.Hop{Where: l.From + "/kernel", Part: partOverlay, Object: model.ObjectRef{Kind: "Node", Name: l.Node}}
	a, ok := b.Route(l)
	if l.Node == "" {
		h.Object = model.ObjectRef{}
	}
	if !ok || a.Error != "" {
		h.State, h.Text = asked.Unknown, fmt.Sprintf("the way to %s cannot be read: %s", l.To.Addr(), cmp.Or(a.Error, "hythe node there does not answer"))
		h.Remedy = fmt.Sprintf("Start hythe node on %s.", l.From)
		return h
	}
	got := a.Got
	repair := fmt.Sprintf("hythe node on %s repairs this within seconds. If it stays, look at its log, and with ip monitor for who else changes it.", l.From)
	if p := b.Problem(h.Object); p != "" {
		repair = p
	}
	differs := len(got.Want) > 0 && !slices.Equal(got.Kernel, got.Want)
	if differs {
		h.Want = strings.Join(got.Want, "; ")
	}
	h.Text = fmt.Sprintf("to %s: %s", l.To.Addr(), strings.Join(got.Kernel, "; "))
	if !differs && got.Peer.IsValid() {
		h.Text = fmt.Sprintf("to %s ─> %s ─> %s (%s)", l.To.Addr(), strings.TrimSuffix(got.Kernel[0], " onlink"), got.Peer, l.Node)
	}
	switch {
	case got.Kind != link.Unicast && got.Kind != link.Local:
		h.State, h.Text = asked.Broken, fmt.Sprintf("to %s: no way (%s)", l.To.Addr(), got.Kind)
		h.Remedy = fmt.Sprintf("Look on %s for a route of somebody else, by ip route get %s and ip route show table all; what is missing of Hythe's own it repairs within seconds.",
			l.From, l.To.Addr())
		if len(got.Want) == 0 && l.Node == "" {
			h.Remedy = "No node has this address in its pod CIDRs: the EndpointSlice names a pod of no node."
		}
	case got.State != "":
		h.State, h.Text = asked.Broken, fmt.Sprintf("%s: %s is %s", h.Text, got.Device, got.State)
		h.Remedy = fmt.Sprintf("ip link set %s up on %s.", got.Device, l.From)
	case differs && got.Peer != b.nodeAddress(l.Node):
		h.State, h.Remedy = asked.Broken, repair
	case differs:
		h.State, h.Remedy = asked.Differs, repair
	}
	return probed(h, l, got)
}

// nodeAddress is where the overlay's packets to a node go: its InternalIP, the IPv4 one if it has one.
func (b *builder) nodeAddress(node string) netip.Addr {
	for _, n := range b.Service().Nodes {
		if n.Name != node {
			continue
		}
		for _, a := range n.Addresses {
			if a.Is4() {
				return a
			}
		}
		if len(n.Addresses) > 0 {
			return n.Addresses[0]
		}
	}
	return netip.Addr{}
}

// podHop says whether a pod is attached to its node, and answers there.
func (b *builder) podHop(l road.Leg, a asked.AddrAnswer[asked.PodAnswer], ok bool) asked.Hop {
	h := asked.Hop{Where: l.Node + "/pod", Part: partPod, Object: podRef(l.Pod)}
	if !ok || a.Error != "" {
		h.Where = cmp.Or(l.Node, whereCluster)
		h.State, h.Text = asked.Unknown, fmt.Sprintf("%s cannot be looked at: %s", l.To, cmp.Or(a.Error, "hythe node there does not answer"))
		h.Remedy = fmt.Sprintf("Start hythe node on %s.", cmp.Or(l.Node, "the pod's node"))
		return h
	}
	got := a.Got
	h.Since = got.Since
	outside := l.Node == "" // then the node that sends there was asked
	if outside {
		h.Where = a.Node
	}
	h.Text = l.To.String() + " " + podText(got, outside)
	recreate := "Delete the pod, so that it is attached anew"
	if h.Object.Name != "" {
		recreate += fmt.Sprintf(": kubectl -n %s delete pod %s", h.Object.Namespace, h.Object.Name)
	}
	attached := got.Plugin && !got.HostNetwork && !outside
	switch {
	case attached && got.Container == "":
		h.State, h.Text = asked.Broken, fmt.Sprintf("%s is no pod's address on %s", l.To, l.Node)
		h.Remedy = "The EndpointSlice names an address that no pod has: its pod is gone, or was attached by another plugin. " + recreate + "."
	case attached && !got.Exists:
		h.State, h.Text = asked.Broken, fmt.Sprintf("%s: its link %s is gone from the node", l.To, got.Link)
		h.Remedy = recreate + "."
	case got.Asked && !got.Connected && outside:
		h.State = asked.Broken
		h.Remedy = fmt.Sprintf("No node and no pod range has %s: if it is a server outside of the cluster, look at it and at the way from %s.", l.To.Addr(), a.Node)
	case got.Asked && !got.Connected:
		h.State = asked.Broken
		h.Remedy = whyNoConnection(got)
		h.Want = strings.Join(got.Missing, "; ")
	case len(got.Missing) > 0:
		h.State, h.Want = asked.Differs, strings.Join(got.Missing, "; ")
		h.Remedy = fmt.Sprintf("hythe node on %s repairs this within seconds. If it stays, look at its log.", l.Node)
	case attached && !got.Up:
		h.State = asked.Broken
		h.Remedy = fmt.Sprintf("The pod's end of %s is down: look at ip link in the pod. ", got.Link) + recreate + "."
	}
	return h
}

const notTried = ", no connection was tried"

func podText(p asked.PodAnswer, outside bool) string {
	text := "by " + p.Link
	switch {
	case outside:
		text = "outside of the cluster"
	case p.HostNetwork:
		text = "in the node's network"
	case p.Link == "":
		text = "on its node"
	}
	switch {
	case !p.Asked:
		return text + notTried
	case p.Connected:
		return fmt.Sprintf("%s connects in %s", text, millis(p.After))
	}
	return text + " does not connect: " + p.Error
}

func whyNoConnection(p asked.PodAnswer) string {
	switch {
	case len(p.Missing) > 0:
		return "The node's end of the pod's link was changed: hythe node repairs it within seconds. If it stays, look at its log."
	case strings.Contains(p.Error, "refused"):
		return "The pod is there and nothing listens on the port: compare the Service's targetPort with the container's port, and look at the pod's log."
	}
	return "The pod does not answer: look at its state and log, at rules of its own namespace, and at a NetworkPolicy of somebody else."
}
