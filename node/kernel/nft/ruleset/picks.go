package ruleset

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/netlink"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/proxy"
)

// A Pick is one of the ways from a frontend to an endpoint: for everybody or for sources inside, by address or by
// NodePort.
type Pick struct {
	Frontends, Endpoints string // names of the maps, without the digit
	stays                string // the map of endpoints of frontends with affinity
	members              string // the set of these
	Affinity             string // the map of who stays where
	chain                string // begins the names of the chains
	NodePort, Inside     bool
}

// Picks returns all picks, those for everybody first.
func Picks() []Pick {
	return []Pick{
		{"frontends", "endpoints", "stay-endpoints", "members", "affinity", "pick", false, false},
		{"nodeports", "nodeport-endpoints", "stay-nodeport-endpoints", "nodeport-members", "nodeport-affinity", "pick-nodeport", true, false},
		{"inside-frontends", "inside-endpoints", "stay-inside-endpoints", "inside-members", "affinity", "pick-inside", false, true},
		{"inside-nodeports", "inside-nodeport-endpoints", "stay-inside-nodeport-endpoints", "inside-nodeport-members", "nodeport-affinity", "pick-inside-nodeport", true, true},
	}
}

// A Lead says to which chain a frontend leads.
type Lead struct {
	N    int           // number of indexes: of endpoints or, unless By is Random, of slots
	Stay time.Duration // how long a client stays with its endpoint, 0 for not at all
	By   proxy.Choice
}

// leads is the name of the map from Leads to chains, without the digit.
func (p Pick) leads() string { return p.chain + "s" }

// choices are how names of chains say a Choice.
func choices() map[proxy.Choice]string {
	return map[proxy.Choice]string{proxy.Random: "", proxy.BySource: "source-", proxy.BySourcePort: "port-"}
}

// leadOf is the Lead for endpoints. One endpoint takes no choice.
func leadOf(endpoints int, b proxy.Backends) Lead {
	if b.Choice == proxy.Random || endpoints < 2 {
		return Lead{endpoints, b.Affinity, proxy.Random}
	}
	return Lead{proxy.SlotCount(endpoints), b.Affinity, b.Choice}
}

// chainName is "pick4-3": for IPv4 frontends of three endpoints. "pick4-3-10800" is for those whose clients stay for
// 10800 seconds: a timeout is part of a rule. "pick4-source-251" is for those of 251 slots, one of which the source chooses.
func (p Pick) chainName(f family, l Lead) string {
	name := p.chain + f.digit + "-" + choices()[l.By] + strconv.Itoa(l.N)
	if l.Stay > 0 {
		name += "-" + strconv.Itoa(int(l.Stay/time.Second))
	}
	return name
}

// pickChain makes the chain that chainName names. One rule loads the key, appends an index, finds the endpoint
// and translates: kernels of 2024 and later refuse a rule that reads a register which another one wrote.
func (p Pick) pickChain(f family, l Lead) nfnetlink.Chain {
	out := nfnetlink.Chain{Name: p.chainName(f, l)}
	if l.Stay > 0 {
		out.Rules = p.sticky(f, l)
		return out
	}
	ports, last := reg+uint32(0), reg+uint32(2)
	var key [][]byte
	if !p.NodePort {
		key = f.load(f.daddr, reg)
		ports, last = f.after(), f.after()+2
	}
	out.Rules = []nfnetlink.Rule{say(l.text(), f.is(), key, protocolPort(ports), f.index(last, l),
		lookup(p.Endpoints+f.digit), f.dnat(reg, f.after()))}
	return out
}

func (l Lead) text() string {
	if l.By == proxy.Random {
		return fmt.Sprintf("one of %d", l.N)
	}
	return fmt.Sprintf("one of %d slots %s", l.N, l.By)
}

// index puts the index of an endpoint into a register, and may use those after it.
func (f family) index(register uint32, l Lead) [][]byte {
	from := register + 1
	switch l.By {
	case proxy.BySource:
		return concat(f.load(f.saddr, from), hash(from, f.addr.Bytes, register, uint32(l.N)))
	case proxy.BySourcePort:
		return concat(f.load(f.saddr, from), sourcePort(from+f.addr.Bytes/4), hash(from, f.addr.Bytes+4, register, uint32(l.N)))
	}
	return random(register, uint32(l.N))
}

// EndpointsOf is the map with the endpoints of a frontend with this Lead, without the digit.
func (p Pick) EndpointsOf(l Lead) string {
	if l.Stay > 0 {
		return p.stays
	}
	return p.Endpoints
}

// sticky are the rules for clients that stay. The registers hold protocol . endpoint . frontend . source. The first two are what the maps of
// endpoints, and of who stays where, have; the next two are a member; the last two the key of who stays where. A learned
// endpoint counts only while it is a member.
//
// The protocol is loaded again after each lookup, and the endpoint's registers are loaded before it, all for nft: see family.pick.
func (p Pick) sticky(f family, l Lead) []nfnetlink.Rule {
	words := f.addr.Bytes / 4
	first, endpoint, front := reg+uint32(0), reg+uint32(1), reg+2+words
	ports := front
	frontend := f.is()
	if !p.NodePort {
		frontend = concat(frontend, f.load(f.daddr, front))
		ports += words
	}
	source := ports + 2
	frontend = concat(frontend, protocolPort(ports))
	plain := concat(l4proto(first), f.load(f.daddr, endpoint), destinationPort(endpoint+words))
	dnat := f.dnat(endpoint, endpoint+words)
	learn := update(p.Affinity+f.digit, front, first, l.Stay)
	known := concat(frontend, plain, f.load(f.saddr, source), lookupTo(p.Affinity+f.digit, front, first), l4proto(first))
	chosen := concat(frontend, f.stickyIndex(endpoint, source, l), plain, lookupTo(p.stays+f.digit, front, first), l4proto(first))
	return []nfnetlink.Rule{
		say("stays", known, inFrom(p.members+f.digit, endpoint), learn, dnat),
		say("its endpoint is gone", known, forget(p.Affinity+f.digit, front, first)),
		say(l.text(), chosen, f.load(f.saddr, source), learn, dnat),
		// The map is full, and the rule before ended at the update: better a client that does not stay than one refused.
		say(l.text()+", not remembered", chosen, dnat),
	}
}

// stickyIndex is index with the registers from free on for the source. Ports do not choose then: see proxy.Choice.
func (f family) stickyIndex(free, register uint32, l Lead) [][]byte {
	if l.By == proxy.Random {
		return random(register, uint32(l.N))
	}
	return concat(f.load(f.saddr, free), hash(free, f.addr.Bytes, register, uint32(l.N)))
}

// PickChainNamed makes the chain of that name, or says that there is none.
func PickChainNamed(name string) (nfnetlink.Chain, bool) {
	f, p, l, ok := parseChainName(name)
	if !ok {
		return nfnetlink.Chain{}, false
	}
	return p.pickChain(f, l), true
}

// NewPick makes the chain of that name, and what leads to it; nothing where there is none.
func NewPick(name string) []netlink.Message {
	f, p, l, ok := parseChainName(name)
	if !ok {
		return nil
	}
	return append(nfnetlink.NewChain(p.pickChain(f, l)), p.lead(f, l, name)...)
}

// DeletePick deletes that chain, to which no frontend leads any more.
func DeletePick(name string) []netlink.Message {
	f, p, l, ok := parseChainName(name)
	if !ok {
		return nil
	}
	return append(nfnetlink.DeleteElements(p.leadSet(f), p.leadElement(f, l)), nfnetlink.DeleteChain(name))
}

// lead makes the element that leads to a chain.
func (p Pick) lead(f family, l Lead, chain string) []netlink.Message {
	return nfnetlink.NewElements(p.leadSet(f), p.leadElement(f, l), []string{chain})
}

func (p Pick) leadElement(f family, l Lead) []nfnetlink.Element {
	return []nfnetlink.Element{{Set: p.leadSet(f).Name, Key: l.key()}}
}

// Led says whether the elements of LeadSets lead to the chains of these picks, and nowhere else.
func Led(picks map[string]bool, elements nfnetlink.Contents) bool {
	want := nfnetlink.Contents{}
	for _, f := range families() {
		for _, p := range Picks() {
			want[nfnetlink.Element{Set: p.leadSet(f).Name, Key: Lead{}.key()}] = NoLocalEndpoint
		}
	}
	for name := range picks {
		if f, p, l, ok := parseChainName(name); ok {
			want[nfnetlink.Element{Set: p.leadSet(f).Name, Key: l.key()}] = name
		}
	}
	return maps.Equal(want, elements)
}

// key is a Lead as the kernel has it, two numbers: how many indexes, and the seconds that clients stay with the Choice above them.
func (l Lead) key() string {
	return string(native(uint32(l.N))) + string(native(uint32(l.Stay/time.Second)|uint32(l.By)<<choiceShift))
}

// choiceShift leaves room for the longest stay of a Service, a day (Service, sessionAffinityConfig.clientIP.timeoutSeconds).
const choiceShift = 24

// word is the value of a frontend: see family.pick for what comes before the key.
func (l Lead) word() string { return string(native(0)) + l.key() }

// leadOfWord is the inverse of word.
func leadOfWord(word string) (Lead, bool) {
	if len(word) != 12 {
		return Lead{}, false
	}
	n, how := binary.NativeEndian.Uint32([]byte(word[4:])), binary.NativeEndian.Uint32([]byte(word[8:]))
	l := Lead{int(n), time.Duration(how&(1<<choiceShift-1)) * time.Second, proxy.Choice(how >> choiceShift)}
	_, known := choices()[l.By]
	return l, known
}

// words are how the maps of frontends say chains.
func (p Pick) words(f family) *nfnetlink.Words {
	return &nfnetlink.Words{
		Word: func(chain string) string { return LeadOf(chain).word() },
		Name: func(word string) string { return p.ChainOf(f.digit, word) },
	}
}

// ChainOf is the name of the chain that the word of a frontend stands for; empty for what is none.
func (p Pick) ChainOf(digit, word string) string {
	l, ok := leadOfWord(word)
	switch {
	case !ok:
		return ""
	case l.N == 0:
		return NoLocalEndpoint
	}
	return p.chainName(family{digit: digit}, l)
}

// LeadOf is what a chain's name says, the zero lead if it is none of ours.
func LeadOf(chain string) Lead {
	_, _, l, _ := parseChainName(chain)
	return l
}

// parseChainName is the inverse of chainName.
func parseChainName(name string) (family, Pick, Lead, bool) {
	for _, f := range families() {
		for _, p := range Picks() {
			rest, ok := strings.CutPrefix(name, p.chain+f.digit+"-")
			if !ok {
				continue
			}
			for by, prefix := range choices() {
				count, seconds, _ := strings.Cut(strings.TrimPrefix(rest, prefix), "-")
				n, _ := strconv.Atoi(count)
				stay, _ := strconv.Atoi(cmp.Or(seconds, "0"))
				l := Lead{n, time.Duration(stay) * time.Second, by}
				if n >= 1 && n <= math.MaxInt32 && stay >= 0 && stay <= math.MaxInt32 && p.chainName(f, l) == name {
					return f, p, l, true
				}
			}
		}
	}
	return family{}, Pick{}, Lead{}, false
}
