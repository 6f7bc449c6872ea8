package speaker

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/lb/arp"
	"hythe.dev/hythe/lb/members"
	"hythe.dev/hythe/lb/probe"
)

// An Inspection is what this node knows of one VIP and does about it.
type Inspection struct {
	Link arp.Link
	// Claimed says that a claim asks for the VIP to be announced. Local is lb.VIP.Local.
	Claimed, Local bool
	// The following are those of the keeper and the election.
	Owned, Healthy, Draining, Blocked, Asking, Listening bool

	Generation uint64
	// OwnedSince is when this process took the VIP, zero for one that it does not own.
	OwnedSince time.Time
	// Problem is the message of the Problem about the VIP, empty if there is none.
	Problem string
	Probes  []probe.Result
	// Peers are all other nodes, sorted by name.
	Peers []PeerView
}

// A PeerView is another node as this one sees it.
type PeerView struct {
	Node  string
	Alive bool
	// Heard is the time since the last heartbeat of one that is alive.
	Heard time.Duration
	Held  bool
	MACs  []string
	// Said is what it said about the VIP last, the zero VIP if nothing.
	Said members.VIP
}

// Inspect returns what this node knows of the VIP.
func (s *Speaker) Inspect(vip netip.Addr) Inspection {
	alive, known := s.members.Alive(), s.members.Known()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Inspection{Listening: s.listening, Draining: s.draining, Healthy: true, Probes: s.prober.Results(vip)}
	if s.arp != nil {
		out.Link = s.arp.Link()
	}
	for _, v := range s.vips {
		if v.Addr != vip {
			continue
		}
		out.Claimed, out.Local, out.Draining = true, v.Local, out.Draining || v.Draining
		if v.Local {
			out.Healthy = s.prober.Healthy(vip)
		}
	}
	out.OwnedSince = s.since[vip]
	if h := s.keeper.vips[vip]; h != nil {
		out.Owned, out.Generation, out.Asking, out.Blocked = h.owned, h.generation, h.asking, h.blocked
	}
	for _, p := range s.keeper.problems() {
		if p.Object.Name == v1alpha1.ClaimName(vip) {
			out.Problem = p.Message
		}
	}
	for name := range s.nodes {
		if name != s.opts.Node {
			out.Peers = append(out.Peers, peerView(name, vip, alive, known))
		}
	}
	slices.SortFunc(out.Peers, func(a, b PeerView) int { return strings.Compare(a.Node, b.Node) })
	return out
}

func peerView(name string, vip netip.Addr, alive []members.Member, known map[string]members.Heartbeat) PeerView {
	p := PeerView{Node: name}
	for _, mac := range known[name].MACs {
		p.MACs = append(p.MACs, mac.String())
	}
	for _, m := range alive {
		if m.Name == name {
			p.Alive, p.Heard, p.Held = true, m.Age, m.Held
			p.Said, _ = m.VIP(vip)
			return p
		}
	}
	for _, said := range known[name].VIPs {
		if said.Addr == vip {
			p.Said = said
		}
	}
	return p
}
