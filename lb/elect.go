package lb

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"hythe.dev/hythe/lb/members"
)

// An Action is what a node should do about one VIP.
type Action uint8

const (
	// None: this node does not own the VIP and should not.
	None Action = iota
	// Keep: go on owning it.
	Keep
	// Release: stop owning it, at once.
	Release
	// Take: become the owner in Proposal.Generation.
	Take
	// Resume: own it again in the generation that this node had before its restart.
	Resume
)

var actionNames = [...]string{None: "none", Keep: "keep", Release: "release", Take: "take", Resume: "resume"}

func (a Action) String() string { return actionNames[a] }

// A Proposal is the decision about one VIP.
type Proposal struct {
	VIP        netip.Addr
	Action     Action
	Generation uint64
	// Reason is one CamelCase word, for metrics and people.
	Reason string
	// Rivals are the members that own the VIP too, in a generation that loses. They have to be outlasted: the
	// owner announces again when they are gone.
	Rivals []string
	// GivenUp says that the present owner has told that it gives the VIP up, so that nobody needs to be asked.
	GivenUp bool
	// New says that nobody is known to have owned the VIP ever: it is to be probed at length (RFC 5227).
	New bool
}

// Reasons of Proposals.
const (
	ReasonNoCarrier  = "NoCarrier"  // the link is down
	ReasonNotClaimed = "NotClaimed" // no AddressClaim asks for it any more
	ReasonSuperseded = "Superseded" // another node owns it in a higher generation
	ReasonFirst      = "First"      // nobody ever owned it
	ReasonOwnerDead  = "OwnerDead"  // its owner is silent
	ReasonGivenUp    = "GivenUp"    // its owner has no working backend, or drains
	ReasonRestarted  = "Restarted"  // this node owned it before it restarted
	ReasonOwner      = "Owner"      // this node owns it
)

// A View is all that the decision of one node depends on.
type View struct {
	Self string
	VIPs []VIP // sorted, see VIPs
	Own  map[netip.Addr]Own
	// Members are the other nodes that live.
	Members []members.Member
	// Carrier is false when the link that VIPs are announced on is down.
	Carrier bool
	// Evidence is true when there was a sign of life on the LAN a moment ago: a heartbeat, or an answer to ARP.
	// Without it a node cannot know whether it is the one that is cut off, and takes nothing.
	Evidence bool
	// Listening is true in the first moments of a process, until it has heard the others: it takes nothing.
	Listening bool
	// Late is true when this process was starved: it takes nothing, since the silence may be its own.
	Late bool
}

// Own is what a node knows and holds of one VIP itself.
type Own struct {
	// Owned says that it owns the VIP; Claimed, that it did so before its process restarted. At most one is set.
	Owned, Claimed bool
	// Generation is the one in which it owns it, else the highest one that it knows, 0 for none.
	Generation uint64
	// Healthy says that its own probe finds a working backend. For a VIP without externalTrafficPolicy Local it
	// is always true.
	Healthy bool
	// Draining says that this node wants to give the VIP up.
	Draining bool
	// Blocked says that the VIP was found to be used by somebody else.
	Blocked bool
}

// Elect decides about each VIP, and about those that are owned but no longer claimed. It is the same function on
// all nodes, so that nodes that see the same come to the same owner.
//
// A living owner is never robbed: others take only what it gives up. Of two owners the one with the higher
// generation stays, then the one with the lower hash of VIP and name. Without a living owner the healthy node
// with the lowest hash takes the VIP in a generation above all that were heard of.
func Elect(v View) []Proposal {
	var out []Proposal
	wanted := make(map[netip.Addr]bool, len(v.VIPs))
	for _, vip := range v.VIPs {
		wanted[vip.Addr] = true
		out = append(out, v.elect(vip.Addr))
	}
	for _, a := range sortedAddrs(v.Own) {
		if own := v.Own[a]; !wanted[a] && (own.Owned || own.Claimed) {
			out = append(out, Proposal{VIP: a, Action: Release, Generation: own.Generation, Reason: ReasonNotClaimed})
		}
	}
	return out
}

func (v View) elect(a netip.Addr) Proposal {
	own := v.Own[a]
	p := Proposal{VIP: a, Generation: own.Generation}
	if !v.Carrier {
		if own.Owned {
			p.Action, p.Reason = Release, ReasonNoCarrier
		}
		return p
	}
	owner := v.strongestOwner(a)
	switch {
	case own.Owned:
		return v.keep(p, owner)
	case own.Claimed && owner != nil && !v.beats(a, own.Generation, v.Self, owner):
		p.Action, p.Reason, p.Generation = Release, ReasonSuperseded, owner.generation
		return p
	case own.Claimed && (owner == nil || !owner.givesUp) && own.Healthy && !own.Draining:
		return v.resume(p)
	}
	return v.take(p, owner)
}

// An owner is a member that owns a VIP.
type owner struct {
	name       string
	generation uint64
	givesUp    bool
}

// strongestOwner returns the member that owns a and beats all other members that do, or nil.
func (v View) strongestOwner(a netip.Addr) *owner {
	var best *owner
	for _, m := range v.Members {
		said, ok := m.VIP(a)
		if !ok || !said.Owned {
			continue
		}
		o := &owner{m.Name, said.Generation, !m.Held && (said.Draining || !said.Healthy)}
		if best == nil || v.beats(a, o.generation, o.name, best) {
			best = o
		}
	}
	return best
}

func (v View) beats(a netip.Addr, generation uint64, name string, o *owner) bool {
	if generation != o.generation {
		return generation > o.generation
	}
	return Rank(a, name) < Rank(a, o.name)
}

// keep is the owner's side. It gives up nothing by itself: others see in its heartbeats that its backend is
// dead or that it drains, take the VIP in a higher generation, and that is when it stops. So there is no moment
// without an owner, and an owner without a healthy successor stays.
func (v View) keep(p Proposal, strongest *owner) Proposal {
	if strongest != nil && !v.beats(p.VIP, p.Generation, v.Self, strongest) {
		p.Action, p.Reason, p.Generation = Release, ReasonSuperseded, strongest.generation
		return p
	}
	p.Action, p.Reason = Keep, ReasonOwner
	for _, m := range v.Members {
		if said, ok := m.VIP(p.VIP); ok && said.Owned {
			p.Rivals = append(p.Rivals, m.Name)
		}
	}
	return p
}

func (v View) resume(p Proposal) Proposal {
	if v.Listening || v.Late || !v.Evidence || v.Own[p.VIP].Blocked {
		return p
	}
	p.Action, p.Reason = Resume, ReasonRestarted
	return p
}

func (v View) take(p Proposal, o *owner) Proposal {
	own := v.Own[p.VIP]
	if o != nil && !o.givesUp || v.Listening || v.Late || !v.Evidence || own.Blocked || !own.Healthy || own.Draining {
		return p
	}
	highest := own.Generation
	for _, m := range v.Members {
		said, ok := m.VIP(p.VIP)
		if !ok {
			continue
		}
		highest = max(highest, said.Generation)
		able := said.Healthy && !said.Draining && !said.Blocked && !m.Held
		if able && Rank(p.VIP, m.Name) < Rank(p.VIP, v.Self) {
			return p
		}
	}
	p.Action, p.Generation, p.New = Take, highest+1, highest == 0
	switch {
	case o != nil:
		p.Reason, p.GivenUp = ReasonGivenUp, true
	case p.New:
		p.Reason = ReasonFirst
	default:
		p.Reason = ReasonOwnerDead
	}
	return p
}

// Rank orders the nodes for one VIP: the lowest takes it first. It spreads VIPs over nodes.
func Rank(vip netip.Addr, node string) uint64 {
	sum := sha256.Sum256([]byte(vip.String() + " " + node))
	return binary.BigEndian.Uint64(sum[:])
}

func sortedAddrs[V any](m map[netip.Addr]V) []netip.Addr {
	return slices.SortedFunc(maps.Keys(m), netip.Addr.Compare)
}
