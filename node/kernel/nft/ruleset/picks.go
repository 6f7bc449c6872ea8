package ruleset

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/proxy"
)

// A Pick is one of the ways from a frontend to an endpoint: for everybody or for sources inside, by address or by
// NodePort.
type Pick struct {
	Frontends, Endpoints string // names of the maps, without the digit
	members              string // the set of the endpoints of frontends with affinity
	Affinity             string // the map of who stays where
	chain                string // begins the names of the chains
	NodePort, Inside     bool
}

// Picks returns all picks, those for everybody first.
func Picks() []Pick {
	return []Pick{
		{"frontends", "endpoints", "members", "affinity", "pick", false, false},
		{"nodeports", "nodeport-endpoints", "nodeport-members", "nodeport-affinity", "pick-nodeport", true, false},
		{"inside-frontends", "inside-endpoints", "inside-members", "affinity", "pick-inside", false, true},
		{"inside-nodeports", "inside-nodeport-endpoints", "inside-nodeport-members", "nodeport-affinity", "pick-inside-nodeport", true, true},
	}
}

// A Lead says to which chain a frontend leads.
type Lead struct {
	N    int           // number of indexes: of endpoints or, unless By is Random, of slots
	Stay time.Duration // how long a client stays with its endpoint, 0 for not at all
	By   proxy.Choice
}

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

// sticky are the rules for clients that stay. The registers hold source . frontend . endpoint: the first two are the
// key of the map of who stays where, the last two a member, the last one its value. A learned endpoint counts only
// while it is a member.
func (p Pick) sticky(f family, l Lead) []nfnetlink.Rule {
	front := f.after() // where the frontend begins
	key := f.load(f.saddr, reg)
	ports := front
	if !p.NodePort {
		key = concat(key, f.load(f.daddr, front))
		ports += f.addr.Bytes / 4
	}
	key = concat(f.is(), key, protocolPort(ports))
	endpoint := ports + 2
	known := concat(key, lookupTo(p.Affinity+f.digit, reg, endpoint))
	learn := concat(update(p.Affinity+f.digit, endpoint, l.Stay), f.dnat(endpoint, endpoint+f.addr.Bytes/4))
	return []nfnetlink.Rule{
		say("stays", known, inFrom(p.members+f.digit, front), learn),
		say("its endpoint is gone", known, forget(p.Affinity+f.digit, endpoint)),
		say(l.text(), key, f.stickyIndex(endpoint, l), lookupTo(p.Endpoints+f.digit, front, endpoint), learn),
		// The map is full, and the rule before ended at the update: better a client that does not stay than one refused.
		say(l.text()+", not remembered", key, f.stickyIndex(endpoint, l),
			lookupTo(p.Endpoints+f.digit, front, endpoint), f.dnat(endpoint, endpoint+f.addr.Bytes/4)),
	}
}

// stickyIndex is index where the source is in reg already. Ports do not choose then: see proxy.Choice.
func (f family) stickyIndex(register uint32, l Lead) [][]byte {
	if l.By == proxy.Random {
		return random(register, uint32(l.N))
	}
	return hash(reg, f.addr.Bytes, register, uint32(l.N))
}

// PickChainNamed makes the chain of that name, or says that there is none.
func PickChainNamed(name string) (nfnetlink.Chain, bool) {
	f, p, l, ok := parseChainName(name)
	if !ok {
		return nfnetlink.Chain{}, false
	}
	return p.pickChain(f, l), true
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
