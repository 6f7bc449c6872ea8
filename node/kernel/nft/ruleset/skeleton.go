package ruleset

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/proxy"
)

// chains returns all chains but the picks, those that are gone to before those that go.
func chains() []nfnetlink.Chain {
	out := []nfnetlink.Chain{
		refuse(), ended(), unplaced(), unserved(),
		{Name: NoLocalEndpoint, Rules: []nfnetlink.Rule{say("no endpoint here", count(NoLocalEndpoint), drop())}},
	}
	var inside, services []nfnetlink.Rule
	for _, f := range families() {
		out = append(out, f.toThisNode(true), f.toThisNode(false), f.inside(), f.services())
		inside = append(inside, say("this node", f.is(), goTo("inside"+f.digit)))
		services = append(services, say("everybody", f.is(), goTo("services"+f.digit)))
	}
	known := say("known flow", state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())
	late := []nfnetlink.Rule{known, say("not translated", jump("unserved"))}
	return append(append(out, spoofed()...),
		nfnetlink.Chain{Name: "nat-prerouting", Kind: "nat", Hook: unix.NF_INET_PRE_ROUTING, Priority: -100,
			Rules: append([]nfnetlink.Rule{say("everybody", notSYN(), jump("ended"))}, services...)},
		nfnetlink.Chain{Name: "nat-output", Kind: "nat", Hook: unix.NF_INET_LOCAL_OUT, Priority: -100,
			Rules: append([]nfnetlink.Rule{say("this node", notSYN(), jump("ended"))}, inside...)},
		probes(), untrackedProbes(),
		// Just after translation, and before routing: a packet that nobody serves is never forwarded.
		nfnetlink.Chain{Name: "filter-prerouting", Kind: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: -90, Rules: late},
		nfnetlink.Chain{Name: "filter-output", Kind: "filter", Hook: unix.NF_INET_LOCAL_OUT, Priority: -90, Rules: late},
		invalid(), filterForward(), toLocalPod(), podToPod(), natPostrouting())
}

// spoofed drops, before conntrack notes it, what comes in for a loopback address, and what a pod sends from an address that
// is not its own. Where strict reverse
// path filtering is on it comes first, so that it counts; IPv6 has no other guard. A pod that takes an address asks
// from the unspecified one whether it is free (RFC 4862 section 5.4.3), which no router forwards; newer kernels pass that
// over by themselves.
func spoofed() []nfnetlink.Chain {
	six := families()[1]
	return []nfnetlink.Chain{
		{Name: "spoofed", Rules: []nfnetlink.Rule{
			say("is the address free", six.is(), six.fromUnspecified(), accept()),
			say("spoofed", count(Spoofed), drop())}},
		{Name: "raw-prerouting", Kind: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: -300, Rules: []nfnetlink.Rule{
			// Before translation, which would let it in: a host port at a loopback address is this node's own, and
			// route_localnet on the links of pods that have one opens no other. The kernel would not count it either.
			say("loopback from elsewhere", families()[0].toLoopback(), inByOther("lo"), drop()),
			say("loopback from elsewhere", families()[1].toLoopback(), inByOther("lo"), drop()),
			// All packets come here, so both families share it.
			say("spoofed", inByPod(), fromElsewhere(), jump("spoofed"))}},
	}
}

// restricted drops connections to frontends that are not for their source. It is asked once for each connection, as
// all of translation: one that is there goes on when the ranges change.
func (f family) restricted() nfnetlink.Rule {
	return say("source not allowed", f.is(), f.load(f.daddr, reg), protocolPort(f.after()), f.load(f.saddr, f.after()+2),
		in(RestrictedSet+f.digit), notIn(SourcesSet+f.digit), count(SourceRange), drop())
}

// restrictedNodePort does the same for NodePorts.
func (f family) restrictedNodePort() nfnetlink.Rule {
	return say("source not allowed", f.is(), protocolPort(reg), f.load(f.saddr, reg+2), in(RestrictedNodePortsSet+f.digit),
		notIn(NodePortSourcesSet+f.digit), count(SourceRange), drop())
}

// The chains of a family are gone to by packets of that family alone. Their rules ask for it all the same: nft lists the
// fields of a header by name only then.
//
// services translates connections of everybody, and those of pods as inside. Most connections to a Service are to a
// ClusterIP: that is looked up first, and whose an address is last, since it costs the most.
func (f family) services() nfnetlink.Chain {
	rules := []nfnetlink.Rule{say("pods", f.is(), f.load(f.saddr, reg), in(PodRangesSet+f.digit), goTo("inside"+f.digit)), f.restricted()}
	return nfnetlink.Chain{Name: "services" + f.digit, Rules: append(rules, f.dispatch(false)...)}
}

// inside translates connections of pods and of this node: what is for them only comes before what is for everybody.
func (f family) inside() nfnetlink.Chain {
	return nfnetlink.Chain{Name: "inside" + f.digit, Rules: append([]nfnetlink.Rule{f.restricted()}, f.dispatch(true)...)}
}

// dispatch goes to the pick of a frontend at an address, if there is one, and else to those of NodePorts.
func (f family) dispatch(inside bool) []nfnetlink.Rule {
	var out []nfnetlink.Rule
	for _, p := range picksFor(inside, false) {
		out = append(out, say("ClusterIP or VIP, by "+p.Frontends+f.digit, f.is(), f.pick(p)))
	}
	return append(out,
		say("ping of a VIP", f.echoRequest(), f.load(f.daddr, reg), lookup(PingsSet+f.digit), f.dnat(reg, 0)),
		say("to this node", f.toNodePorts(), goTo(f.nodeChain(inside))))
}

func (f family) nodeChain(inside bool) string {
	if inside {
		return "this-node-inside" + f.digit
	}
	return "this-node" + f.digit
}

// toThisNode goes to the pick of a NodePort. NodePorts are not served at loopback addresses: endpoints elsewhere would take
// route_localnet on all links. Host ports there have frontends of their own.
func (f family) toThisNode(inside bool) nfnetlink.Chain {
	c := nfnetlink.Chain{Name: f.nodeChain(inside), Rules: []nfnetlink.Rule{f.restrictedNodePort()}}
	for _, p := range picksFor(inside, true) {
		c.Rules = append(c.Rules, say("NodePort, by "+p.Frontends+f.digit, f.pick(p)))
	}
	return c
}

// pick goes to the pick of a frontend, or ends the rule. What the map of frontends has for it begins with a register that nobody needs:
// where a map's value comes first, in what is looked up next, nft 1.0.6 (Debian 12) breaks off its listing of all tables. So it shows the
// frontend itself there, and not the map.
func (f family) pick(p Pick) [][]byte {
	frontend, last := reg+uint32(0), f.after()-1
	key := f.load(f.daddr, frontend)
	if p.NodePort {
		frontend, last = reg+1, reg
		key = nil
	}
	return concat(key, protocolPort(last+1), lookupTo(p.Frontends+f.digit, frontend, last), vmapFrom(p.leads()+f.digit, last+1))
}

// picksFor returns the picks of NodePorts or of addresses, those for sources inside first if they count.
func picksFor(inside, nodePort bool) []Pick {
	var out []Pick
	for _, p := range Picks() {
		switch {
		case p.NodePort != nodePort:
		case !p.Inside:
			out = append(out, p)
		case inside:
			out = append([]Pick{p}, out...)
		}
	}
	return out
}

// filterForward drops packets of pods that conntrack cannot place: an answer that is not translated back would reach
// the client from an address that it does not know, and a reset that the client sends would end the connection.
func filterForward() nfnetlink.Chain {
	return nfnetlink.Chain{Name: "filter-forward", Kind: "filter", Hook: unix.NF_INET_FORWARD, Priority: 0, Rules: []nfnetlink.Rule{
		say("out of window", state(expr.CtStateBitINVALID), jump("invalid"))}}
}

func invalid() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "invalid"}
	for _, f := range families() {
		for _, where := range []uint32{f.saddr, f.daddr} {
			c.Rules = append(c.Rules, say("out of window", f.is(), f.load(where, reg),
				in(PodRangesSet+f.digit), count(Invalid), drop()))
		}
	}
	return c
}

// unserved finds packets to a Service that were not translated.
func unserved() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "unserved", Rules: []nfnetlink.Rule{
		say("served", translated(), accept()),
		// Somebody else's rules keep it from translation on purpose: a DNS cache on each node has the ClusterIP itself.
		say("not tracked", state(expr.CtStateBitUNTRACKED), accept()),
		say("of no connection", state(expr.CtStateBitINVALID), jump("unplaced")),
	}}
	for _, f := range families() {
		c.Rules = append(c.Rules,
			say("no endpoint", f.is(), f.load(f.daddr, reg), protocolPort(f.after()), in(EmptySet+f.digit), count(NoEndpoint),
				goTo("refuse")),
			say("no such port", f.to(AddressesSet+f.digit), count(ClosedPort), goTo("refuse")),
			say("no such Service", f.to(ServiceRangesSet+f.digit), notIn(OthersSet+f.digit), count(Unallocated), drop()),
			say("NodePort without endpoint", f.notLoopback(), f.to(NodePortRangesSet+f.digit), state(expr.CtStateBitNEW), toThisNode(), protocolPort(reg),
				in(NodePortsSet+f.digit), count(NoEndpoint), goTo("refuse")))
	}
	return c
}

// unplaced drops packets to a Service, or to a host port of a pod, that conntrack found out of their connection's window, or
// of no connection. A reset for one, by this table or by the node itself, would end a living connection.
func unplaced() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "unplaced", Rules: []nfnetlink.Rule{
		// Where net.netfilter.nf_conntrack_tcp_loose is off; else translation has asked already.
		say("its endpoint may be gone", notSYN(), jump("ended")),
	}}
	for _, f := range families() {
		c.Rules = append(c.Rules,
			say("of a Service's address", f.to(AddressesSet+f.digit), count(Invalid), drop()),
			say("of a NodePort", f.toNodePorts(), protocolPort(reg), in(NodePortsSet+f.digit), count(Invalid), drop()),
			say("of a host port", f.is(), f.load(f.daddr, reg), protocolPort(f.after()), in(HostPortsSet+f.digit), count(Invalid), drop()))
	}
	return c
}

// refuse answers at once.
func refuse() nfnetlink.Chain {
	return nfnetlink.Chain{Name: "refuse", Rules: []nfnetlink.Rule{
		say("refuse", protocol(unix.IPPROTO_TCP), resetTCP()),
		say("refuse", portUnreachable()),
	}}
}

// natPostrouting masquerades what would not find its way back. It needs no packet marks: source, destination, the way in
// and the way out tell. An endpoint on this node sees the client's own address, since its answers pass here in any case.
func natPostrouting() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "nat-postrouting", Kind: "nat", Hook: unix.NF_INET_POST_ROUTING, Priority: 100, Rules: []nfnetlink.Rule{
		say("to this node", outBy("lo"), accept()),
		// The overlay's own name begins like those of the pods.
		say("to a local pod", outByPrefix(link.PodPrefix), outByAny(OverlaysSet, false), goTo("to-local-pod")),
	}}
	for _, f := range families() {
		ranges := PodRangesSet + f.digit
		c.Rules = append(c.Rules,
			say("pod to pod", f.from(ranges), f.load(f.daddr, reg), in(ranges), goTo("pod-to-pod")),
			say("pod to outside", f.from(ranges), masquerade()),
			say("by a ClusterIP or VIP", f.is(), f.originallyTo(AddressesSet+f.digit), masquerade()),
			say("by an external address", f.is(), f.originallyTo(ExternalsSet+f.digit), masquerade()),
			say("by a NodePort", f.is(), translated(), protocolOriginalPort(), in(NodePortsSet+f.digit), masquerade()))
	}
	c.Rules = append(c.Rules,
		say("to a pod elsewhere", outByAny(OverlaysSet, true), masquerade()))
	return c
}

func toLocalPod() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "to-local-pod"}
	for _, f := range families() {
		c.Rules = append(c.Rules, say("pod to itself", f.is(), f.load(f.saddr, reg), f.load(f.daddr, f.after()),
			in(HairpinsSet+f.digit), masquerade()))
	}
	c.Rules = append(c.Rules, say("from loopback to a pod", families()[0].fromLoopback(), masquerade()))
	return c
}

// podToPod keeps the source, but where a pod of another node comes by this one's VIP or NodePort, as it does if nobody
// translates on its own node: its endpoint would answer it past this node. A ClusterIP is never asked that way, and
// where links of pods are not ours it cannot be told which pods are local: it is not in question here.
func podToPod() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "pod-to-pod", Rules: []nfnetlink.Rule{
		say("of a local pod", inByPod(), accept()),
	}}
	for _, f := range families() {
		c.Rules = append(c.Rules,
			say("pod elsewhere by a VIP", f.is(), f.originalDestination(), lookup(PingsSet+f.digit), masquerade()),
			say("pod elsewhere by an external address", f.is(), f.originallyTo(ExternalsSet+f.digit), masquerade()),
			say("pod elsewhere by a NodePort", f.is(), translated(), f.originalDestination(), notIn(AddressesSet+f.digit),
				protocolOriginalPort(), in(NodePortsSet+f.digit), masquerade()))
	}
	return c
}

// Skeleton makes the table without its elements. flags are those of the table.
func Skeleton(flags uint32) []netlink.Message {
	return slices.Concat([]netlink.Message{nfnetlink.NewTable(nfnetlink.TableName, Comment(Version()), flags)}, hollow(), body(0))
}

// Interim is Skeleton for a table that serves while the other one is replaced: first its sets, then its chains, which are asked before
// those of the other one.
func Interim(flags uint32) (sets, chains []netlink.Message) {
	table := nfnetlink.NewTable(nfnetlink.TableName, "hythe, while its table is replaced", flags)
	return append([]netlink.Message{table}, hollow()...), body(1)
}

// hollow makes the counters and sets.
func hollow() []netlink.Message {
	var out []netlink.Message
	for _, reason := range Reasons() {
		out = append(out, nfnetlink.NewCounter(reason))
	}
	sets := LeadSets()
	for _, s := range Sets() {
		sets = append(sets, s.Set)
	}
	for i, s := range sets {
		out = append(out, nfnetlink.NewSet(s, uint32(i+1)))
	}
	return out
}

// body makes the chains, and what leads to them. Those with a hook come before others of their priority, by some.
func body(before int32) []netlink.Message {
	var out []netlink.Message
	for _, c := range chains() {
		c.Priority -= before
		out = append(out, nfnetlink.NewChain(c)...)
	}
	for _, f := range families() {
		for _, p := range Picks() {
			out = append(out, p.lead(f, Lead{}, NoLocalEndpoint)...)
		}
	}
	return out
}

// Comment is that of a table with this version of the skeleton.
func Comment(version string) string { return "hythe skeleton " + version }

// Version names the skeleton by its content, so that a restarted agent knows whether the table is its own.
func Version() string {
	h := sha256.New()
	messages := append(hollow(), body(0)...)
	for _, f := range families() {
		for _, p := range Picks() {
			for _, l := range []Lead{{N: 1}, {1, time.Hour, proxy.Random}, {1, 0, proxy.BySource}, {1, 0, proxy.BySourcePort}, {1, time.Hour, proxy.BySource}} {
				messages = append(messages, nfnetlink.NewChain(p.pickChain(f, l))...)
			}
		}
	}
	for _, m := range messages {
		fmt.Fprint(h, m.Header.Type)
		h.Write(m.Data)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// Recognise says whether rules, by chain, are this skeleton's: none is missing, foreign or in another place. picks are the
// chains of picks that are there; unless ours, they may be in part.
func Recognise(rules map[string][]nfnetlink.KernelRule) (picks map[string]bool, ours bool) {
	picks = map[string]bool{}
	same := func(c nfnetlink.Chain) bool { return slices.EqualFunc(rules[c.Name], c.Rules, nfnetlink.KernelRule.Is) }
	own := map[string]bool{}
	for _, c := range chains() {
		own[c.Name] = true
		if !same(c) {
			return picks, false
		}
	}
	for name := range rules {
		if own[name] {
			continue
		}
		c, known := PickChainNamed(name)
		if !known || !same(c) {
			return picks, false
		}
		picks[name] = true
	}
	return picks, true
}
