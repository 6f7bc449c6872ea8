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
	return []nfnetlink.Chain{
		refuse(), ended(), unserved(), sourceRanges(),
		{Name: NoLocalEndpoint, Rules: []nfnetlink.Rule{say("no endpoint here", count(NoLocalEndpoint), drop())}},
		{Name: "services", Rules: dispatch(false)},
		{Name: "inside", Rules: dispatch(true)},
		spoofed(),
		untrackedProbes(),
		natPrerouting(),
		{Name: "nat-output", Kind: "nat", Hook: unix.NF_INET_LOCAL_OUT, Priority: -100, Rules: []nfnetlink.Rule{
			say("this node", jump("ended")),
			say("this node", jump("source-ranges")),
			say("this node", jump("inside")),
			say("this node", jump("services")),
		}},
		// Just after translation, and before routing: a packet that nobody serves is never forwarded.
		{Name: "filter-prerouting", Kind: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: -90, Rules: []nfnetlink.Rule{
			say("not translated", jump("unserved")),
		}},
		{Name: "filter-output", Kind: "filter", Hook: unix.NF_INET_LOCAL_OUT, Priority: -90, Rules: []nfnetlink.Rule{
			say("not translated", jump("unserved")),
		}},
		filterForward(),
		natPostrouting(),
	}
}

func natPrerouting() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "nat-prerouting", Kind: "nat", Hook: unix.NF_INET_PRE_ROUTING, Priority: -100,
		Rules: []nfnetlink.Rule{say("everybody", jump("ended")), say("everybody", jump("source-ranges"))}}
	for _, f := range families() {
		c.Rules = append(c.Rules, say("pods", f.from(PodRangesSet+f.digit), jump("inside")))
	}
	c.Rules = append(c.Rules, say("everybody", jump("services")))
	return c
}

// spoofed drops, before conntrack notes it, what comes in for a loopback address, and what a pod sends from an address that
// is not its own. Where strict reverse
// path filtering is on it comes first, so that it counts; IPv6 has no other guard. A pod that takes an address asks
// from the unspecified one whether it is free (RFC 4862 section 5.4.3), which no router forwards; newer kernels pass that
// over by themselves.
func spoofed() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "raw-prerouting", Kind: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: -300}
	for _, f := range families() {
		own := [][]byte{}
		if f.digit == "6" {
			own = f.isNot(f.saddr, make([]byte, 16))
		}
		c.Rules = append(c.Rules,
			// Before translation, which would let it in: a host port at a loopback address is this node's own, and
			// route_localnet on the links of pods that have one opens no other. The kernel would not count it either.
			say("loopback from elsewhere", f.toLoopback(), inByOther("lo"), drop()),
			say("spoofed", f.is(), inByPod(), own, fromElsewhere(), count(Spoofed), drop()))
	}
	return c
}

// sourceRanges drops connections to frontends that are not for their source. It is asked once for each connection, as
// all of translation: one that is there goes on when the ranges change.
func sourceRanges() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "source-ranges"}
	for _, f := range families() {
		c.Rules = append(c.Rules, say("source not allowed", f.is(), f.load(f.daddr, reg), protocolPort(f.after()),
			f.load(f.saddr, f.after()+2), in(RestrictedSet+f.digit), notIn(SourcesSet+f.digit), count(SourceRange), drop()),
			// The sets first: looking up whose address it is costs more, and few ports are restricted.
			say("source not allowed", f.is(), protocolPort(reg), f.load(f.saddr, reg+2), in(RestrictedNodePortsSet+f.digit),
				notIn(NodePortSourcesSet+f.digit), f.toNodePorts(), count(SourceRange), drop()))
	}
	return c
}

// filterForward drops packets of pods that conntrack cannot place: an answer that is not translated back would reach
// the client from an address that it does not know, and a reset that the client sends would end the connection.
func filterForward() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "filter-forward", Kind: "filter", Hook: unix.NF_INET_FORWARD, Priority: 0}
	for _, f := range families() {
		for _, where := range []uint32{f.saddr, f.daddr} {
			c.Rules = append(c.Rules, say("out of window", state(expr.CtStateBitINVALID), f.is(), f.load(where, reg),
				in(PodRangesSet+f.digit), count(Invalid), drop()))
		}
	}
	return c
}

// dispatch goes to the pick of a frontend, if there is one for sources inside, or for everybody. NodePorts are not served
// at loopback addresses: endpoints elsewhere would take route_localnet on all links. Host ports there have frontends of
// their own.
func dispatch(inside bool) []nfnetlink.Rule {
	var out []nfnetlink.Rule
	for _, f := range families() {
		if !inside {
			out = append(out, say("ping of a VIP", f.echoRequest(), f.load(f.daddr, reg), lookup(PingsSet+f.digit), f.dnat(reg, 0)))
		}
		for _, p := range Picks() {
			switch {
			case p.Inside != inside:
			case p.NodePort:
				out = append(out, say("NodePort", f.toNodePorts(), protocolPort(reg), vmap(p.Frontends+f.digit)))
			default:
				out = append(out, say("ClusterIP or VIP", f.is(), f.load(f.daddr, reg), protocolPort(f.after()),
					vmap(p.Frontends+f.digit)))
			}
		}
	}
	return out
}

// unserved finds packets to a Service that were not translated.
func unserved() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "unserved", Rules: []nfnetlink.Rule{
		say("known flow", state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept()),
		// Somebody else's rules keep it from translation on purpose: a DNS cache on each node has the ClusterIP itself.
		say("not tracked", state(expr.CtStateBitUNTRACKED), accept()),
		say("served", translated(), accept()),
		// Where net.netfilter.nf_conntrack_tcp_loose is off; else translation has asked already.
		say("of no connection", state(expr.CtStateBitINVALID), jump("ended")),
	}}
	for _, f := range families() {
		c.Rules = append(c.Rules,
			// A reset for a packet that conntrack found out of its window would end a living connection.
			say("out of window", f.to(AddressesSet+f.digit), state(expr.CtStateBitINVALID), count(Invalid), drop()),
			say("no endpoint", f.is(), f.load(f.daddr, reg), protocolPort(f.after()), in(EmptySet+f.digit), count(NoEndpoint),
				goTo("refuse")),
			say("no such port", f.to(AddressesSet+f.digit), count(ClosedPort), goTo("refuse")),
			say("no such Service", f.to(ServiceRangesSet+f.digit), notIn(OthersSet+f.digit), count(Unallocated), drop()),
			say("NodePort without endpoint", f.notLoopback(), f.to(NodePortRangesSet+f.digit), state(expr.CtStateBitNEW), toThisNode(), protocolPort(reg),
				in(NodePortsSet+f.digit), count(NoEndpoint), goTo("refuse")))
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

// natPostrouting masquerades what would not find its way back. It needs no packet marks: source, destination and the
// way out tell. An endpoint on this node sees the client's own address, since its answers pass here in any case.
func natPostrouting() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "nat-postrouting", Kind: "nat", Hook: unix.NF_INET_POST_ROUTING, Priority: 100, Rules: []nfnetlink.Rule{
		say("to this node", outBy("lo"), accept()),
	}}
	for _, f := range families() {
		c.Rules = append(c.Rules, say("pod to itself", f.is(), outByPrefix(link.PodPrefix), f.load(f.saddr, reg),
			f.load(f.daddr, f.after()), in(HairpinsSet+f.digit), masquerade()))
	}
	// The overlay's own name begins like those of the pods.
	c.Rules = append(c.Rules,
		say("from loopback to a pod", outByPrefix(link.PodPrefix), families()[0].fromLoopback(), masquerade()),
		say("to a local pod", outByPrefix(link.PodPrefix), outByAny(OverlaysSet, false), accept()))
	for _, f := range families() {
		ranges := PodRangesSet + f.digit
		c.Rules = append(c.Rules,
			say("pod to pod", f.from(ranges), f.load(f.daddr, reg), in(ranges), accept()),
			say("pod to outside", f.from(ranges), masquerade()),
			say("by a ClusterIP or VIP", f.is(), f.originallyTo(AddressesSet+f.digit), masquerade()),
			say("by an external address", f.is(), f.originallyTo(ExternalsSet+f.digit), masquerade()),
			say("by a NodePort", f.is(), translated(), protocolOriginalPort(), in(NodePortsSet+f.digit), masquerade()))
	}
	c.Rules = append(c.Rules,
		say("to a pod elsewhere", outByAny(OverlaysSet, true), masquerade()))
	return c
}

// Skeleton makes the table without its elements. flags are those of the table.
func Skeleton(flags uint32) []netlink.Message {
	return append([]netlink.Message{nfnetlink.NewTable(nfnetlink.TableName, Comment(Version()), flags)}, body()...)
}

func body() []netlink.Message {
	var out []netlink.Message
	for _, reason := range Reasons() {
		out = append(out, nfnetlink.NewCounter(reason))
	}
	for i, s := range Sets() {
		out = append(out, nfnetlink.NewSet(s.Set, uint32(i+1)))
	}
	for _, c := range chains() {
		out = append(out, nfnetlink.NewChain(c)...)
	}
	return out
}

// Comment is that of a table with this version of the skeleton.
func Comment(version string) string { return "hythe skeleton " + version }

// Version names the skeleton by its content, so that a restarted agent knows whether the table is its own.
func Version() string {
	h := sha256.New()
	messages := body()
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
