package localhost

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"hythe.dev/hythe/node/proxy"
)

// Build returns what is served of s: the NodePorts that have endpoints, unless a host port has the loopback address,
// NodePorts are not served there, or only sources elsewhere are let in.
func Build(s proxy.State) State {
	out := State{}
	for f, b := range s.Frontends {
		if !f.NodePort() || f.Protocol == proxy.SCTP || len(b.Inside) == 0 {
			continue
		}
		owner, service := s.Owners[f]
		at := loopback(f)
		_, hostPort := s.Frontends[proxy.Frontend{Addr: at, Protocol: f.Protocol, Port: f.Port}]
		allowed := b.Sources == nil || slices.ContainsFunc(b.Sources, func(p netip.Prefix) bool { return p.Contains(at) })
		if !service || hostPort || !allowed || !contains(s.NodePortRanges, at) {
			continue
		}
		out[Listener{netip.AddrPortFrom(at, f.Port), f.Protocol}] = Backends{Endpoints: b.Inside, Keep: slices.Concat(b.Outside, b.Keep),
			Sticky: b.Affinity > 0 || b.Choice == proxy.BySource, Reset: b.Reset, Owner: owner}
	}
	return out
}

// baseOf returns what update needs of a State: host ports at loopback addresses, which no update changes. Of all the rest
// nothing stays in memory.
func baseOf(s proxy.State) proxy.State {
	out := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}, NodePortRanges: s.NodePortRanges}
	for f, b := range s.Frontends {
		if f.Addr.IsLoopback() {
			out.Frontends[f] = b
		}
	}
	return out
}

// update returns what is served after a change, and whether it differs. base is baseOf of the last State that was Set.
func update(have State, base proxy.State, c proxy.Change) (State, bool) {
	part := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}, Owners: c.Come.Owners, NodePortRanges: base.NodePortRanges}
	out := maps.Clone(have)
	for f := range c.Gone.Frontends {
		if f.NodePort() {
			delete(out, Listener{netip.AddrPortFrom(loopback(f), f.Port), f.Protocol})
		}
	}
	for f, b := range c.Come.Frontends {
		if f.NodePort() {
			part.Frontends[f] = b
			at := proxy.Frontend{Addr: loopback(f), Protocol: f.Protocol, Port: f.Port}
			if b, hostPort := base.Frontends[at]; hostPort {
				part.Frontends[at] = b
			}
		}
	}
	if len(part.Frontends) == 0 && len(out) == len(have) {
		return have, false
	}
	for f := range part.Frontends {
		delete(out, Listener{netip.AddrPortFrom(loopback(f), f.Port), f.Protocol})
	}
	maps.Copy(out, Build(part))
	return out, true
}

// loopback is the loopback address of a frontend's family.
func loopback(f proxy.Frontend) netip.Addr {
	if f.Addr.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

func contains(ranges proxy.Set[netip.Prefix], a netip.Addr) bool {
	for p := range ranges {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// choose returns the endpoint for a new connection. One of a sticky Service stays for as long as it is there.
func (b Backends) choose() netip.AddrPort {
	if b.Sticky {
		return proxy.Slots(b.Endpoints)[0]
	}
	return b.Endpoints[rand.IntN(len(b.Endpoints))]
}

// keeps says whether what goes to an endpoint goes on.
func (b Backends) keeps(e netip.AddrPort) bool {
	return slices.Contains(b.Endpoints, e) || slices.Contains(b.Keep, e)
}
