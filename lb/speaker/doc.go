// Package speaker is the loop on each node that joins what is known about VIPs to what is done about them.
//
//	SetSnapshot ──> lb.VIPs ─┐                             ┌──> lb/arp: answer, announce, ask
//	lb/members: who lives ───┼──> keeper (pure): lb.Elect ─┼──> lb/members: what this node says
//	lb/probe: what works ────┤                             └──> DIR/vips.json: what it owns
//	lb/arp: what was heard ──┘
//
// A VIP is taken in two steps: the election proposes, then the LAN is asked whether somebody still answers for the
// address. Only when nobody does is it owned, written to disk, announced and told to the others, in this order.
package speaker
