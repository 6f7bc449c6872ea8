package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/internal/trace/road"
)

// concerns says whether packets of an address's family can come to the chain. own is for those that the node itself sends
// or takes, which pass other hooks than those that it forwards.
func concerns(c asked.ForeignChain, to netip.Addr, own bool) bool {
	switch {
	case c.Table == "filter" && c.Chain == "KUBE-FIREWALL":
		return false // the kubelet's, on each node: it drops what comes from elsewhere to 127.0.0.0/8
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
func (b *builder) firewallHops(node string, chains []asked.ForeignChain, own bool) {
	to, _ := b.To()
	for _, c := range chains {
		table := c.Family + " " + c.Table
		shown := node + " " + table
		if !concerns(c, to, own) || slices.Contains(b.firewalls, shown) {
			continue
		}
		b.firewalls = append(b.firewalls, shown)
		b.add(asked.Hop{Where: node + "/kernel", Part: partFirewall, State: asked.Unknown,
			Text: fmt.Sprintf("table %s is not Hythe's, and its chain %s (%s) drops packets; whether this one is not known",
				table, c.Chain, strings.Join(c.Hooks, ", ")),
			Remedy: fmt.Sprintf("table %s, chain %s drops packets on %s: see nft list table %s there; hythe trace --live shows whether this one.",
				table, c.Chain, node, table)})
	}
}

// probed adds to the hop of an overlay what came of the packet that was sent through it.
func probed(h asked.Hop, l road.Leg, got asked.RouteAnswer) asked.Hop {
	switch p := got.Probe; {
	case p == nil || h.State == asked.Broken:
	case p.Error == "":
		h.Text += ", answers in " + millis(p.After)
	default:
		h.State = asked.Broken
		h.Text += fmt.Sprintf(", carries nothing: %s: %s", p.To, p.Error)
		h.Remedy = fmt.Sprintf("Let UDP port 4789 pass between %s and %s (%s) in both directions: look at nft list ruleset on both, at the cable of %s, and at firewalls between them.",
			l.From, cmp.Or(l.Node, "the other node"), got.Peer, cmp.Or(l.Node, "the other node"))
	}
	return h
}
