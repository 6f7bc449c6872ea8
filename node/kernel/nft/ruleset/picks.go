package ruleset

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
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
	N    int           // number of endpoints
	Stay time.Duration // how long a client stays with its endpoint, 0 for not at all
}

// chainName is "pick4-3": for IPv4 frontends of three endpoints. "pick4-3-10800" is for those whose clients stay for
// 10800 seconds: a timeout is part of a rule.
func (p Pick) chainName(f family, l Lead) string {
	name := p.chain + f.digit + "-" + strconv.Itoa(l.N)
	if l.Stay > 0 {
		name += "-" + strconv.Itoa(int(l.Stay/time.Second))
	}
	return name
}

// pickChain makes the chain that chainName names. One rule loads the key, appends a random index, finds the endpoint
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
	out.Rules = []nfnetlink.Rule{say(fmt.Sprintf("one of %d", l.N), f.is(), key, protocolPort(ports), random(last, uint32(l.N)),
		lookup(p.Endpoints+f.digit), f.dnat(reg, f.after()))}
	return out
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
		say(fmt.Sprintf("one of %d", l.N), key, random(endpoint, uint32(l.N)), lookupTo(p.Endpoints+f.digit, front, endpoint), learn),
		// The map is full, and the rule before ended at the update: better a client that does not stay than one refused.
		say(fmt.Sprintf("one of %d, not remembered", l.N), key, random(endpoint, uint32(l.N)),
			lookupTo(p.Endpoints+f.digit, front, endpoint), f.dnat(endpoint, endpoint+f.addr.Bytes/4)),
	}
}

// PickChainNamed makes the chain of that name, or says that there is none.
func PickChainNamed(name string) (nfnetlink.Chain, bool) {
	for _, f := range families() {
		for _, p := range Picks() {
			rest, ok := strings.CutPrefix(name, p.chain+f.digit+"-")
			if !ok {
				continue
			}
			count, seconds, _ := strings.Cut(rest, "-")
			n, _ := strconv.Atoi(count)
			stay, _ := strconv.Atoi(cmp.Or(seconds, "0"))
			l := Lead{n, time.Duration(stay) * time.Second}
			if n >= 1 && n <= math.MaxInt32 && stay >= 0 && stay <= math.MaxInt32 && p.chainName(f, l) == name {
				return p.pickChain(f, l), true
			}
		}
	}
	return nfnetlink.Chain{}, false
}

// LeadOf is what a chain's name says, the zero lead if it is none of ours.
func LeadOf(chain string) Lead {
	if _, ok := PickChainNamed(chain); !ok {
		return Lead{}
	}
	_, numbers, _ := strings.Cut(chain[strings.IndexAny(chain, "46"):], "-")
	count, seconds, _ := strings.Cut(numbers, "-")
	n, _ := strconv.Atoi(count)
	stay, _ := strconv.Atoi(seconds) // "" is 0
	return Lead{n, time.Duration(stay) * time.Second}
}
