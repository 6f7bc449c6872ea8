package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"

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
	phase    int
}

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
	addressesSet = "addresses"  // ClusterIPs and VIPs
	pingsSet     = "pings"      // VIP : the address that answers
	podRangesSet = "pod-ranges" // the pod CIDRs of the cluster
	hairpinsSet  = "hairpins"   // local pods, as source . destination
	nodePortsSet = "node-ports" // protocol . port of all NodePorts
	overlaysSet  = "overlays"   // interface names
)

// A pick is one of the ways from a frontend to an endpoint: for everybody or for sources inside, by address or by
// NodePort.
type pick struct {
	frontends, endpoints string // names of the maps, without the digit
	chain                string // begins the names of the chains
	nodePort, inside     bool
}

func picks() []pick {
	return []pick{
		{"frontends", "endpoints", "pick", false, false},
		{"nodeports", "nodeport-endpoints", "pick-nodeport", true, false},
		{"inside-frontends", "inside-endpoints", "pick-inside", false, true},
		{"inside-nodeports", "inside-nodeport-endpoints", "pick-inside-nodeport", true, true},
	}
}

// chainName is "pick4-3": for IPv4 frontends of three endpoints.
func (p pick) chainName(f family, n int) string { return p.chain + f.digit + "-" + strconv.Itoa(n) }

// pickChain makes the chain that chainName names. One rule loads the key, appends a random index, finds the endpoint
// and translates: kernels of 2024 and later refuse a rule that reads a register which another one wrote.
func (p pick) pickChain(f family, n int) chain {
	ports, last := reg+uint32(0), reg+uint32(2)
	var key [][]byte
	if !p.nodePort {
		key = f.load(f.daddr, reg)
		ports, last = f.after(), f.after()+2
	}
	return chain{name: p.chainName(f, n), rules: []rule{
		say(fmt.Sprintf("one of %d", n), f.is(), key, protocolPort(ports), random(last, uint32(n)),
			lookup(p.endpoints+f.digit), f.dnat(f.after())),
	}}
}

// pickChainNamed makes the chain of that name, or says that there is none.
func pickChainNamed(name string) (chain, bool) {
	at := strings.LastIndexByte(name, '-')
	if at < 0 {
		return chain{}, false
	}
	n, err := strconv.Atoi(name[at+1:])
	if err != nil || n < 1 || n > math.MaxInt32 {
		return chain{}, false
	}
	for _, f := range families() {
		for _, p := range picks() {
			if p.chainName(f, n) == name {
				return p.pickChain(f, n), true
			}
		}
	}
	return chain{}, false
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
			set{name: hairpinsSet + f.digit, key: datatypes{f.addr, f.addr}})
		for _, p := range picks() {
			frontend := port
			if !p.nodePort {
				frontend = append(datatypes{f.addr}, port...)
			}
			index := append(append(datatypes{}, frontend...), nftables.TypeMark)
			out = append(out,
				set{name: p.frontends + f.digit, key: frontend, verdicts: true, phase: phaseFrontends},
				set{name: p.endpoints + f.digit, key: index, data: datatypes{f.addr, nftables.TypeInetService}})
		}
	}
	return out
}

// chains returns all chains but the picks, those that are gone to before those that go.
func chains() []chain {
	return []chain{
		refuse(), unserved(),
		{name: "services", rules: dispatch(false)},
		{name: "inside", rules: dispatch(true)},
		natPrerouting(),
		{name: "nat-output", kind: "nat", hook: unix.NF_INET_LOCAL_OUT, priority: -100, rules: []rule{
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
		natPostrouting(),
	}
}

func natPrerouting() chain {
	c := chain{name: "nat-prerouting", kind: "nat", hook: unix.NF_INET_PRE_ROUTING, priority: -100}
	for _, f := range families() {
		c.rules = append(c.rules, say("pods", f.from(podRangesSet+f.digit), jump("inside")))
	}
	c.rules = append(c.rules, say("everybody", jump("services")))
	return c
}

// dispatch goes to the pick of a frontend, if there is one for sources inside, or for everybody. No route_localnet:
// NodePorts are not served at loopback addresses.
func dispatch(inside bool) []rule {
	var out []rule
	for _, f := range families() {
		if !inside {
			out = append(out, say("ping of a VIP", f.echoRequest(), f.load(f.daddr, reg), lookup(pingsSet+f.digit), f.dnat(0)))
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
			say("no such port, or no endpoint", f.to(addressesSet+f.digit), goTo("refuse")),
			say("NodePort without endpoint", f.is(), state(expr.CtStateBitNEW), toThisNode(), protocolPort(reg),
				in(nodePortsSet+f.digit), goTo("refuse")))
	}
	return c
}

// refuse answers at once. Invalid packets are dropped: a reset for one that conntrack found out of its window would
// end a living connection.
func refuse() chain {
	return chain{name: "refuse", rules: []rule{
		say("out of window", state(expr.CtStateBitINVALID), drop()),
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
	return append([]netlink.Message{newTable(tableName, comment(), flags)}, body()...)
}

func body() []netlink.Message {
	var out []netlink.Message
	for i, s := range sets() {
		out = append(out, newSet(s, uint32(i+1)))
	}
	for _, c := range chains() {
		out = append(out, chainMessages(c)...)
	}
	return out
}

// comment is that of the table: it holds the version.
func comment() string { return "hythe skeleton " + version() }

// version names the skeleton by its content, so that a restarted agent knows whether the table is its own.
func version() string {
	h := sha256.New()
	messages := body()
	for _, f := range families() {
		for _, p := range picks() {
			messages = append(messages, chainMessages(p.pickChain(f, 1))...)
		}
	}
	for _, m := range messages {
		fmt.Fprint(h, m.Header.Type)
		h.Write(m.Data)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}
