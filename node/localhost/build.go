package localhost

import (
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
		at := netip.IPv6Loopback()
		if f.Addr.Is4() {
			at = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		_, hostPort := s.Frontends[proxy.Frontend{Addr: at, Protocol: f.Protocol, Port: f.Port}]
		owner, service := s.Owners[f]
		switch {
		case !f.NodePort() || !service || f.Protocol == proxy.SCTP || hostPort || len(b.Inside) == 0:
		case !contains(s.NodePortRanges, at):
		case b.Sources != nil && !slices.ContainsFunc(b.Sources, func(p netip.Prefix) bool { return p.Contains(at) }):
		default:
			out[Listener{netip.AddrPortFrom(at, f.Port), f.Protocol}] = Backends{Endpoints: b.Inside, Keep: slices.Concat(b.Outside, b.Keep),
				Sticky: b.Affinity > 0 || b.Choice == proxy.BySource, Reset: b.Reset, Owner: owner}
		}
	}
	return out
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
