package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/node/kernel/nft/readback"
)

// OverlayWait is how long the other end of the overlay may take to answer.
const OverlayWait = 300 * time.Millisecond

// A ForeignChain is a chain of nftables that is not Hythe's and drops or refuses packets; see readback.Dropper.
type ForeignChain struct {
	Family string   `json:"family"`
	Table  string   `json:"table"`
	Chain  string   `json:"chain"`
	Hooks  []string `json:"hooks,omitempty"`
}

// An OverlayProbe is what came of a packet that was sent through the overlay.
type OverlayProbe struct {
	// To is the end of the overlay on the other node.
	To    netip.Addr    `json:"to"`
	After time.Duration `json:"after"`
	Error string        `json:"error,omitempty"`
}

// FromDroppers are the chains as they were found in the kernel.
func FromDroppers(list []readback.Dropper) []ForeignChain {
	var out []ForeignChain
	for _, d := range list {
		out = append(out, ForeignChain(d))
	}
	return out
}

// concerns says whether packets of an address's family can come to the chain. own is for those that the node itself sends
// or takes, which pass other hooks than those that it forwards.
func (c ForeignChain) concerns(to netip.Addr, own bool) bool {
	switch {
	case c.Family == "arp" || c.Family == "ip" && !to.Is4() || c.Family == "ip6" && to.Is4():
		return false
	case c.Family == "netdev" || c.Family == "bridge":
		return true
	}
	return slices.ContainsFunc(c.Hooks, func(hook string) bool {
		return own || hook != "input" && hook != "output"
	})
}

// firewallHops names the chains of somebody else on a node that may drop the packets. Which packets their rules match is not
// known, so they end nothing. Each node is shown once.
func (b *builder) firewallHops(node string, chains []ForeignChain, own bool) {
	to, _ := b.to()
	for _, c := range chains {
		table := c.Family + " " + c.Table
		shown := node + " " + table
		if !c.concerns(to, own) || slices.Contains(b.firewalls, shown) {
			continue
		}
		b.firewalls = append(b.firewalls, shown)
		b.add(Hop{Where: node + "/kernel", Part: partFirewall, State: Unknown,
			Text: fmt.Sprintf("table %s is not Hythe's, and its chain %s (%s) drops packets; whether this one is not known",
				table, c.Chain, strings.Join(c.Hooks, ", ")),
			Remedy: fmt.Sprintf("table %s, chain %s drops packets on %s: see nft list table %s there; hythe trace --live shows whether this one.",
				table, c.Chain, node, table)})
	}
}

// probed adds to the hop of an overlay what came of the packet that was sent through it.
func probed(h Hop, l leg, got RouteAnswer) Hop {
	switch p := got.Probe; {
	case p == nil || h.State == Broken:
	case p.Error == "":
		h.Text += ", answers in " + millis(p.After)
	default:
		h.State = Broken
		h.Text += fmt.Sprintf(", carries nothing: %s: %s", p.To, p.Error)
		h.Remedy = fmt.Sprintf("Let UDP port 4789 pass between %s and %s (%s) in both directions: look at nft list ruleset on both, at the cable of %s, and at firewalls between them.",
			l.from, orElse(l.node, "the other node"), got.Peer, orElse(l.node, "the other node"))
	}
	return h
}
