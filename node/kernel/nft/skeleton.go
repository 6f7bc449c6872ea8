package nft

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/link"
)

// datatypes are the types of a concatenation. nft shows elements by them.
type datatypes []nftables.SetDatatype

// magic is the number by which nft knows the concatenation.
func (d datatypes) magic() uint32 {
	var m uint32
	for _, t := range d {
		m = m<<nftables.SetConcatTypeBits | t.GetNFTMagic()
	}
	return m
}

// size is the number of bytes: each part of a concatenation fills whole registers.
func (d datatypes) size() uint32 {
	if len(d) == 1 {
		return d[0].Bytes
	}
	var n uint32
	for _, t := range d {
		n += (t.Bytes + 3) &^ 3
	}
	return n
}

// A set is a named set or map. The phase says when its elements are written: see plan.
type set struct {
	name     string
	key      datatypes
	data     datatypes
	verdicts bool
	interval bool
	dynamic  bool // rules put elements in, and they go by themselves
	phase    int
}

// concatenated says whether the set holds ranges of concatenations. Each part of such an element is a range of its own.
func (s set) concatenated() bool { return s.interval && len(s.key) > 1 }

func (s set) isMap() bool { return s.verdicts || s.data != nil }

// A chain with a kind ("nat", "filter") hangs at a hook.
type chain struct {
	name     string
	kind     string
	hook     uint32
	priority int32
	rules    []rule
}

// Names of sets without the digit of their family. The maps that picks describes are named there.
const (
	addressesSet  = "addresses"       // ClusterIPs and VIPs
	pingsSet      = "pings"           // VIP : the address that answers
	podRangesSet  = "pod-ranges"      // the pod CIDRs of the cluster
	hairpinsSet   = "hairpins"        // local pods, as source . destination
	nodePortsSet  = "node-ports"      // protocol . port of all NodePorts
	overlaysSet   = "overlays"        // interface names
	emptySet      = "empty-frontends" // frontends without any endpoint, but for NodePorts
	restrictedSet = "restricted"      // frontends that are only for some sources
	sourcesSet    = "sources"         // those frontends . source
)

// A pick is one of the ways from a frontend to an endpoint: for everybody or for sources inside, by address or by
// NodePort.
type pick struct {
	frontends, endpoints string // names of the maps, without the digit
	members              string // the set of the endpoints of frontends with affinity
	affinity             string // the map of who stays where
	chain                string // begins the names of the chains
	nodePort, inside     bool
}

func picks() []pick {
	return []pick{
		{"frontends", "endpoints", "members", "affinity", "pick", false, false},
		{"nodeports", "nodeport-endpoints", "nodeport-members", "nodeport-affinity", "pick-nodeport", true, false},
		{"inside-frontends", "inside-endpoints", "inside-members", "affinity", "pick-inside", false, true},
		{"inside-nodeports", "inside-nodeport-endpoints", "inside-nodeport-members", "nodeport-affinity", "pick-inside-nodeport", true, true},
	}
}

// A lead says to which chain a frontend leads.
type lead struct {
	n    int           // number of endpoints
	stay time.Duration // how long a client stays with its endpoint, 0 for not at all
}

// chainName is "pick4-3": for IPv4 frontends of three endpoints. "pick4-3-10800" is for those whose clients stay for
// 10800 seconds: a timeout is part of a rule.
func (p pick) chainName(f family, l lead) string {
	name := p.chain + f.digit + "-" + strconv.Itoa(l.n)
	if l.stay > 0 {
		name += "-" + strconv.Itoa(int(l.stay/time.Second))
	}
	return name
}

// pickChain makes the chain that chainName names. One rule loads the key, appends a random index, finds the endpoint
// and translates: kernels of 2024 and later refuse a rule that reads a register which another one wrote.
func (p pick) pickChain(f family, l lead) chain {
	out := chain{name: p.chainName(f, l)}
	if l.stay > 0 {
		out.rules = p.sticky(f, l)
		return out
	}
	ports, last := reg+uint32(0), reg+uint32(2)
	var key [][]byte
	if !p.nodePort {
		key = f.load(f.daddr, reg)
		ports, last = f.after(), f.after()+2
	}
	out.rules = []rule{say(fmt.Sprintf("one of %d", l.n), f.is(), key, protocolPort(ports), random(last, uint32(l.n)),
		lookup(p.endpoints+f.digit), f.dnat(reg, f.after()))}
	return out
}

// sticky are the rules for clients that stay. The registers hold source . frontend . endpoint: the first two are the
// key of the map of who stays where, the last two a member, the last one its value. A learned endpoint counts only
// while it is a member.
func (p pick) sticky(f family, l lead) []rule {
	front := f.after() // where the frontend begins
	key := f.load(f.saddr, reg)
	ports := front
	if !p.nodePort {
		key = concat(key, f.load(f.daddr, front))
		ports += f.addr.Bytes / 4
	}
	key = concat(f.is(), key, protocolPort(ports))
	endpoint := ports + 2
	known := concat(key, lookupTo(p.affinity+f.digit, reg, endpoint))
	learn := concat(update(p.affinity+f.digit, endpoint, l.stay), f.dnat(endpoint, endpoint+f.addr.Bytes/4))
	return []rule{
		say("stays", known, inFrom(p.members+f.digit, front), learn),
		say("its endpoint is gone", known, forget(p.affinity+f.digit, endpoint)),
		say(fmt.Sprintf("one of %d", l.n), key, random(endpoint, uint32(l.n)), lookupTo(p.endpoints+f.digit, front, endpoint), learn),
		// The map is full, and the rule before ended at the update: better a client that does not stay than one refused.
		say(fmt.Sprintf("one of %d, not remembered", l.n), key, random(endpoint, uint32(l.n)),
			lookupTo(p.endpoints+f.digit, front, endpoint), f.dnat(endpoint, endpoint+f.addr.Bytes/4)),
	}
}

// pickChainNamed makes the chain of that name, or says that there is none.
func pickChainNamed(name string) (chain, bool) {
	for _, f := range families() {
		for _, p := range picks() {
			rest, ok := strings.CutPrefix(name, p.chain+f.digit+"-")
			if !ok {
				continue
			}
			count, seconds, _ := strings.Cut(rest, "-")
			n, _ := strconv.Atoi(count)
			stay, _ := strconv.Atoi(cmp.Or(seconds, "0"))
			l := lead{n, time.Duration(stay) * time.Second}
			if n >= 1 && n <= math.MaxInt32 && stay >= 0 && stay <= math.MaxInt32 && p.chainName(f, l) == name {
				return p.pickChain(f, l), true
			}
		}
	}
	return chain{}, false
}

// frontend is the type of address . protocol . port.
func (f family) frontend() datatypes {
	return datatypes{f.addr, nftables.TypeInetProto, nftables.TypeInetService}
}

// sets returns all sets and maps of the table.
func sets() []set {
	port := datatypes{nftables.TypeInetProto, nftables.TypeInetService}
	out := []set{
		{name: overlaysSet, key: datatypes{nftables.TypeIFName}},
	}
	for _, f := range families() {
		addr := datatypes{f.addr}
		out = append(out,
			set{name: addressesSet + f.digit, key: addr, phase: phaseAddresses},
			set{name: nodePortsSet + f.digit, key: port, phase: phaseAddresses},
			set{name: pingsSet + f.digit, key: addr, data: addr},
			set{name: podRangesSet + f.digit, key: addr, interval: true},
			set{name: hairpinsSet + f.digit, key: datatypes{f.addr, f.addr}},
			set{name: emptySet + f.digit, key: f.frontend(), phase: phaseAddresses},
			set{name: restrictedSet + f.digit, key: f.frontend()},
			set{name: sourcesSet + f.digit, key: append(f.frontend(), f.addr), interval: true})
		for _, p := range picks() {
			frontend := port
			if !p.nodePort {
				frontend = f.frontend()
			}
			index := append(append(datatypes{}, frontend...), nftables.TypeMark)
			out = append(out,
				set{name: p.frontends + f.digit, key: frontend, verdicts: true, phase: phaseFrontends},
				set{name: p.endpoints + f.digit, key: index, data: datatypes{f.addr, nftables.TypeInetService}},
				set{name: p.members + f.digit, key: append(append(datatypes{}, frontend...), f.addr, nftables.TypeInetService)})
			if !p.inside {
				out = append(out, set{name: p.affinity + f.digit, key: append(datatypes{f.addr}, frontend...),
					data: datatypes{f.addr, nftables.TypeInetService}, dynamic: true})
			}
		}
	}
	return out
}

// chains returns all chains but the picks, those that are gone to before those that go.
func chains() []chain {
	return []chain{
		refuse(), unserved(), sourceRanges(),
		{name: NoLocalEndpoint, rules: []rule{say("no endpoint here", count(NoLocalEndpoint), drop())}},
		{name: "services", rules: dispatch(false)},
		{name: "inside", rules: dispatch(true)},
		spoofed(),
		natPrerouting(),
		{name: "nat-output", kind: "nat", hook: unix.NF_INET_LOCAL_OUT, priority: -100, rules: []rule{
			say("this node", jump("source-ranges")),
			say("this node", jump("inside")),
			say("this node", jump("services")),
		}},
		// Just after translation, and before routing: a packet that nobody serves is never forwarded.
		{name: "filter-prerouting", kind: "filter", hook: unix.NF_INET_PRE_ROUTING, priority: -90, rules: []rule{
			say("not translated", jump("unserved")),
		}},
		{name: "filter-output", kind: "filter", hook: unix.NF_INET_LOCAL_OUT, priority: -90, rules: []rule{
			say("not translated", jump("unserved")),
		}},
		filterForward(),
		natPostrouting(),
	}
}

func natPrerouting() chain {
	c := chain{name: "nat-prerouting", kind: "nat", hook: unix.NF_INET_PRE_ROUTING, priority: -100,
		rules: []rule{say("everybody", jump("source-ranges"))}}
	for _, f := range families() {
		c.rules = append(c.rules, say("pods", f.from(podRangesSet+f.digit), jump("inside")))
	}
	c.rules = append(c.rules, say("everybody", jump("services")))
	return c
}

// spoofed drops what a pod sends from an address that is not its own, before conntrack notes it. Where strict reverse
// path filtering is on it comes first, so that it counts; IPv6 has no other guard. A pod that takes an address asks
// from the unspecified one whether it is free (RFC 4862 section 5.4.3), which no router forwards; newer kernels pass that
// over by themselves.
func spoofed() chain {
	c := chain{name: "raw-prerouting", kind: "filter", hook: unix.NF_INET_PRE_ROUTING, priority: -300}
	for _, f := range families() {
		own := [][]byte{}
		if f.digit == "6" {
			own = f.isNot(f.saddr, make([]byte, 16))
		}
		c.rules = append(c.rules, say("spoofed", f.is(), inByPod(), own, fromElsewhere(), count(Spoofed), drop()))
	}
	return c
}

// sourceRanges drops connections to frontends that are not for their source. It is asked once for each connection, as
// all of translation: one that is there goes on when the ranges change.
func sourceRanges() chain {
	c := chain{name: "source-ranges"}
	for _, f := range families() {
		c.rules = append(c.rules, say("source not allowed", f.is(), f.load(f.daddr, reg), protocolPort(f.after()),
			f.load(f.saddr, f.after()+2), in(restrictedSet+f.digit), notIn(sourcesSet+f.digit), count(SourceRange), drop()))
	}
	return c
}

// filterForward drops packets of pods that conntrack cannot place: an answer that is not translated back would reach
// the client from an address that it does not know, and a reset that the client sends would end the connection.
func filterForward() chain {
	c := chain{name: "filter-forward", kind: "filter", hook: unix.NF_INET_FORWARD, priority: 0}
	for _, f := range families() {
		for _, where := range []uint32{f.saddr, f.daddr} {
			c.rules = append(c.rules, say("out of window", state(expr.CtStateBitINVALID), f.is(), f.load(where, reg),
				in(podRangesSet+f.digit), count(Invalid), drop()))
		}
	}
	return c
}

// dispatch goes to the pick of a frontend, if there is one for sources inside, or for everybody. No route_localnet:
// NodePorts are not served at loopback addresses.
func dispatch(inside bool) []rule {
	var out []rule
	for _, f := range families() {
		if !inside {
			out = append(out, say("ping of a VIP", f.echoRequest(), f.load(f.daddr, reg), lookup(pingsSet+f.digit), f.dnat(reg, 0)))
		}
		for _, p := range picks() {
			switch {
			case p.inside != inside:
			case p.nodePort:
				out = append(out, say("NodePort", f.notLoopback(), toThisNode(), protocolPort(reg), vmap(p.frontends+f.digit)))
			default:
				out = append(out, say("ClusterIP or VIP", f.is(), f.load(f.daddr, reg), protocolPort(f.after()),
					vmap(p.frontends+f.digit)))
			}
		}
	}
	return out
}

// unserved finds packets to a Service that were not translated.
func unserved() chain {
	c := chain{name: "unserved", rules: []rule{
		say("known flow", state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept()),
		say("served", translated(), accept()),
	}}
	for _, f := range families() {
		c.rules = append(c.rules,
			// A reset for a packet that conntrack found out of its window would end a living connection.
			say("out of window", f.to(addressesSet+f.digit), state(expr.CtStateBitINVALID), count(Invalid), drop()),
			say("no endpoint", f.is(), f.load(f.daddr, reg), protocolPort(f.after()), in(emptySet+f.digit), count(NoEndpoint),
				goTo("refuse")),
			say("no such port", f.to(addressesSet+f.digit), count(ClosedPort), goTo("refuse")),
			say("NodePort without endpoint", f.is(), state(expr.CtStateBitNEW), toThisNode(), protocolPort(reg),
				in(nodePortsSet+f.digit), count(NoEndpoint), goTo("refuse")))
	}
	return c
}

// refuse answers at once.
func refuse() chain {
	return chain{name: "refuse", rules: []rule{
		say("refuse", protocol(unix.IPPROTO_TCP), resetTCP()),
		say("refuse", portUnreachable()),
	}}
}

// natPostrouting masquerades what would not find its way back. It needs no packet marks: source, destination and the
// way out tell. An endpoint on this node sees the client's own address, since its answers pass here in any case.
func natPostrouting() chain {
	c := chain{name: "nat-postrouting", kind: "nat", hook: unix.NF_INET_POST_ROUTING, priority: 100, rules: []rule{
		say("to this node", outBy("lo"), accept()),
	}}
	for _, f := range families() {
		c.rules = append(c.rules, say("pod to itself", f.is(), outByPrefix(link.PodPrefix), f.load(f.saddr, reg),
			f.load(f.daddr, f.after()), in(hairpinsSet+f.digit), masquerade()))
	}
	// The overlay's own name begins like those of the pods.
	c.rules = append(c.rules, say("to a local pod", outByPrefix(link.PodPrefix), outByAny(overlaysSet, false), accept()))
	for _, f := range families() {
		ranges := podRangesSet + f.digit
		c.rules = append(c.rules,
			say("pod to pod", f.from(ranges), f.load(f.daddr, reg), in(ranges), accept()),
			say("pod to outside", f.from(ranges), masquerade()),
			say("by a ClusterIP or VIP", f.is(), f.originallyTo(addressesSet+f.digit), masquerade()),
			say("by a NodePort", f.is(), translated(), protocolOriginalPort(), in(nodePortsSet+f.digit), masquerade()))
	}
	c.rules = append(c.rules,
		say("to a pod elsewhere", outByAny(overlaysSet, true), masquerade()))
	return c
}

// chainMessages makes a chain and its rules.
func chainMessages(c chain) []netlink.Message {
	out := []netlink.Message{newChain(c)}
	for _, r := range c.rules {
		out = append(out, newRule(c.name, r))
	}
	return out
}

// skeleton makes the table without its elements.
func skeleton(flags uint32) []netlink.Message {
	return append([]netlink.Message{newTable(tableName, comment(version()), flags)}, body()...)
}

func body() []netlink.Message {
	var out []netlink.Message
	for _, reason := range Reasons() {
		out = append(out, newCounter(reason))
	}
	for i, s := range sets() {
		out = append(out, newSet(s, uint32(i+1)))
	}
	for _, c := range chains() {
		out = append(out, chainMessages(c)...)
	}
	return out
}

// comment is that of a table with this version of the skeleton.
func comment(version string) string { return "hythe skeleton " + version }

// version names the skeleton by its content, so that a restarted agent knows whether the table is its own.
func version() string {
	h := sha256.New()
	messages := body()
	for _, f := range families() {
		for _, p := range picks() {
			messages = append(messages, chainMessages(p.pickChain(f, lead{n: 1}))...)
			messages = append(messages, chainMessages(p.pickChain(f, lead{1, time.Hour}))...)
		}
	}
	for _, m := range messages {
		fmt.Fprint(h, m.Header.Type)
		h.Write(m.Data)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}
