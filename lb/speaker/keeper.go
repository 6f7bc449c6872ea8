package speaker

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/lb"
	"hythe.dev/hythe/lb/arp"
	"hythe.dev/hythe/lb/members"
)

// Reasons of Problems about VIPs.
const (
	// ReasonAddressConflict: a host that is no node uses a VIP.
	ReasonAddressConflict = "AddressConflict"
	// ReasonOwnerAnswers: a node that is silent, or says that it does not own a VIP, answers for it.
	ReasonOwnerAnswers = "SilentOwnerAnswers"
)

const (
	// retryForeign is how long a VIP is left alone after a foreign host answered for it.
	retryForeign = 10 * time.Second
	// retryMember is the same after a member answered: it may die any moment.
	retryMember = 300 * time.Millisecond
	// rememberConflict is how long a conflict about an owned VIP is shown after it was seen last.
	rememberConflict = time.Minute
)

// A keeper knows what this node owns and is about to own. It has no clock and no socket.
type keeper struct {
	self  string
	first arp.Question // for VIPs that nobody ever owned
	vips  map[netip.Addr]*holding
}

// A holding is what is known of one VIP.
type holding struct {
	owned, claimed bool   // see lb.Own
	generation     uint64 // see lb.Own
	asking         bool
	free           bool // the question was answered by silence
	retry          time.Time
	blocked        bool // a foreign host answered; until retry
	rivals         []string
	reason         string // of the last decision

	problem string // reason of the Problem, if there is one
	by      string // who causes it
	until   time.Time
}

// An input is all that a step depends on but for what happened before.
type input struct {
	vips      []lb.VIP
	members   []members.Member
	known     map[string]members.Heartbeat
	healthy   func(netip.Addr) bool
	carrier   bool
	evidence  bool
	listening bool
	late      bool
	draining  bool
}

// An output is what is to be done after a step.
type output struct {
	owned    []netip.Addr
	ask      map[netip.Addr]arp.Question
	drop     []netip.Addr
	announce []netip.Addr // owned ones that others announced too
	say      []members.VIP
	// changes are VIPs that were taken or released; what is owned must be written down first.
	changes []change
	// forgot says that this node no longer owns what it owned before its restart: that must be written down, too, or
	// it would resume it after the next one.
	forgot bool
}

// A change is one VIP that changed hands.
type change struct {
	vip        netip.Addr
	taken      bool
	generation uint64
	reason     string
}

func newKeeper(self string, first arp.Question, stored map[netip.Addr]Stored) *keeper {
	k := &keeper{self: self, first: first, vips: map[netip.Addr]*holding{}}
	for a, s := range stored {
		k.vips[a] = &holding{claimed: s.Owned, generation: s.Generation}
	}
	return k
}

func (k *keeper) holding(a netip.Addr) *holding {
	h := k.vips[a]
	if h == nil {
		h = &holding{}
		k.vips[a] = h
	}
	return h
}

// event takes what was heard on the LAN.
func (k *keeper) event(now time.Time, e arp.Event) {
	h := k.vips[e.Addr]
	if h == nil {
		return
	}
	switch {
	case e.Kind == arp.Free && h.asking:
		h.free = true
	case e.Kind == arp.Answered && h.asking:
		h.asking, h.free = false, false
		h.by = e.MAC
		h.problem, h.blocked, h.retry = ReasonAddressConflict, true, now.Add(retryForeign)
		if e.Member != "" {
			h.by = e.Member
			h.problem, h.blocked, h.retry = ReasonOwnerAnswers, false, now.Add(retryMember)
		}
		h.until = time.Time{}
	case e.Kind == arp.Conflict && h.owned && e.Member == "":
		h.problem, h.by, h.until = ReasonAddressConflict, e.MAC, now.Add(rememberConflict)
	}
}

// step decides anew.
func (k *keeper) step(now time.Time, in input) output {
	view := k.view(now, in)
	out := output{ask: map[netip.Addr]arp.Question{}}
	for _, p := range lb.Elect(view) {
		k.apply(now, p, &out)
	}
	for _, a := range slices.SortedFunc(maps.Keys(k.vips), netip.Addr.Compare) {
		h := k.vips[a]
		if h.owned {
			out.owned = append(out.owned, a)
		}
		if !h.until.IsZero() && now.After(h.until) {
			h.problem = ""
		}
	}
	out.say = k.say(in, view)
	return out
}

// view is what the election may know.
func (k *keeper) view(now time.Time, in input) lb.View {
	k.learn(in)
	view := lb.View{
		Self: k.self, VIPs: in.vips, Own: map[netip.Addr]lb.Own{}, Members: in.members,
		Carrier: in.carrier, Evidence: in.evidence, Listening: in.listening, Late: in.late,
	}
	for _, v := range in.vips {
		h := k.holding(v.Addr)
		// What was owned before the restart is not given up before the probes had time to look.
		healthy := !v.Local || in.healthy(v.Addr) || h.claimed && in.listening
		if h.blocked && now.After(h.retry) {
			h.blocked = false
		}
		view.Own[v.Addr] = lb.Own{
			Owned: h.owned, Claimed: h.claimed, Generation: h.generation,
			Healthy: healthy, Draining: in.draining || v.Draining, Blocked: h.blocked,
		}
	}
	for a, h := range k.vips {
		if _, ok := view.Own[a]; !ok && (h.owned || h.claimed) {
			view.Own[a] = lb.Own{Owned: h.owned, Claimed: h.claimed, Generation: h.generation}
		}
	}
	return view
}

// learn takes over the generations that others know, and forgets VIPs that no claim names any more: who is given such
// an address later probes it at length.
func (k *keeper) learn(in input) {
	wanted := make(map[netip.Addr]bool, len(in.vips))
	for _, v := range in.vips {
		wanted[v.Addr] = true
		k.holding(v.Addr)
	}
	for _, heard := range in.known {
		for _, said := range heard.VIPs {
			if h := k.vips[said.Addr]; h != nil && wanted[said.Addr] && !h.owned && !h.claimed {
				h.generation = max(h.generation, said.Generation)
			}
		}
	}
	for a, h := range k.vips {
		if !wanted[a] && !h.owned && !h.claimed {
			delete(k.vips, a)
		}
	}
}

// apply carries out one proposal, as far as it goes without waiting.
func (k *keeper) apply(now time.Time, p lb.Proposal, out *output) {
	h := k.holding(p.VIP)
	h.reason = p.Reason
	switch p.Action {
	case lb.Keep:
		if len(h.rivals) > 0 && !slices.Equal(h.rivals, p.Rivals) {
			out.announce = append(out.announce, p.VIP) // the loser is gone: the last word is ours
		}
		h.rivals = p.Rivals
	case lb.Release:
		h.stopAsking(p.VIP, out)
		if h.owned {
			out.changes = append(out.changes, change{p.VIP, false, p.Generation, p.Reason})
		}
		if h.claimed && p.Reason != lb.ReasonNoCarrier {
			out.forgot = true
		}
		// Carrier lost is no reason to forget: when it is back and nobody else took the VIP, it is resumed.
		h.claimed = p.Reason == lb.ReasonNoCarrier
		h.owned, h.generation, h.rivals, h.problem = false, max(h.generation, p.Generation), nil, ""
	case lb.Take, lb.Resume:
		k.take(now, h, p, out)
	case lb.None:
		h.stopAsking(p.VIP, out)
		if !h.blocked {
			h.problem = ""
		}
	}
}

func (h *holding) stopAsking(a netip.Addr, out *output) {
	if h.asking {
		out.drop = append(out.drop, a)
	}
	h.asking, h.free = false, false
}

// take owns the VIP if its owner gave it up or nobody answered for it, else it asks.
func (k *keeper) take(now time.Time, h *holding, p lb.Proposal, out *output) {
	if p.GivenUp || h.free {
		h.stopAsking(p.VIP, out)
		h.owned, h.claimed, h.generation = true, false, p.Generation
		h.problem, h.blocked, h.retry = "", false, time.Time{}
		out.changes = append(out.changes, change{p.VIP, true, p.Generation, p.Reason})
		return
	}
	if !h.asking && !now.Before(h.retry) {
		h.asking = true
		out.ask[p.VIP] = arp.Quick()
		if p.New {
			out.ask[p.VIP] = k.first
		}
	}
}

// say is what this node tells the others.
func (k *keeper) say(in input, view lb.View) []members.VIP {
	var out []members.VIP
	for a, own := range view.Own {
		h := k.vips[a]
		out = append(out, members.VIP{
			Addr: a, Generation: h.generation, Owned: (h.owned || h.claimed) && in.carrier,
			Healthy: own.Healthy, Draining: own.Draining, Blocked: h.blocked || !in.evidence || !in.carrier,
		})
	}
	slices.SortFunc(out, func(x, y members.VIP) int { return x.Addr.Compare(y.Addr) })
	return out[:min(len(out), members.MaxVIPs)]
}

// settled says whether nothing is left to resume.
func (k *keeper) settled() bool {
	for _, h := range k.vips {
		if h.claimed {
			return false
		}
	}
	return true
}

// problems lists what stands in the way of VIPs.
func (k *keeper) problems() []model.Problem {
	var out []model.Problem
	for a, h := range k.vips {
		ref := model.ObjectRef{Kind: "AddressClaim", Name: v1alpha1.ClaimName(a)}
		switch h.problem {
		case ReasonAddressConflict:
			verb := "is not announced"
			if h.owned {
				verb = "is announced but contested"
			}
			out = append(out, model.Problemf(ref, ReasonAddressConflict,
				"%s %s: the host with the MAC %s, which is no node, uses it. Take the address away from that host or out of its pool.", a, verb, h.by))
		case ReasonOwnerAnswers:
			out = append(out, model.Problemf(ref, ReasonOwnerAnswers,
				"%s is not taken over: node %s answers ARP for it but sends no heartbeat that owns it. Look at its agent and at UDP between the nodes.", a, h.by))
		}
	}
	return model.SortProblems(out)
}

// stored is what must survive a restart.
func (k *keeper) stored() map[netip.Addr]Stored {
	out := map[netip.Addr]Stored{}
	for a, h := range k.vips {
		if h.generation > 0 {
			out[a] = Stored{Generation: h.generation, Owned: h.owned || h.claimed}
		}
	}
	return out
}
