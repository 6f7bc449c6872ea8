package ruleset

import (
	"net/netip"
	"slices"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/proxy"
)

// Decode is the inverse of Encode, for frontends.
func Decode(all nfnetlink.Contents) map[proxy.Frontend]proxy.Backends {
	out := map[proxy.Frontend]proxy.Backends{}
	bySet := map[string]nfnetlink.Contents{}
	for e, value := range all {
		if bySet[e.Set] == nil {
			bySet[e.Set] = nfnetlink.Contents{}
		}
		bySet[e.Set][e] = value
	}
	for _, f := range families() {
		for e := range bySet[NodePortsSet+f.digit] {
			out[f.frontendOf(e.Key, true)] = proxy.Backends{}
		}
		for e := range bySet[EmptySet+f.digit] {
			out[f.frontendOf(e.Key, false)] = proxy.Backends{}
		}
		for _, p := range Picks() { // those for everybody come first
			for e, chain := range bySet[p.Frontends+f.digit] {
				at := f.frontendOf(e.Key, p.NodePort)
				b := out[at]
				lead := LeadOf(chain)
				b.Inside = endpointsOf(all, p.EndpointsOf(lead)+f.digit, e.Key, lead.N)
				b.Affinity, b.Choice = max(b.Affinity, lead.Stay), max(b.Choice, lead.By)
				if !p.Inside {
					b.Outside = b.Inside
				}
				b.Elsewhere = chain == NoLocalEndpoint && !p.Inside
				out[at] = b
			}
		}
		sources(f, bySet, false, out)
		sources(f, bySet, true, out)
	}
	return out
}

// endpointsOf returns the list of a frontend, sorted, each once. An index that is missing is left out.
func endpointsOf(c nfnetlink.Contents, set, key string, n int) []netip.AddrPort {
	var out []netip.AddrPort
	for i := range n {
		if value, there := c[nfnetlink.Element{Set: set, Key: key + Index(i)}]; there {
			out = append(out, EndpointOf(value))
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// sources adds to frontends which sources they are for.
func sources(f family, bySet map[string]nfnetlink.Contents, nodePort bool, into map[proxy.Frontend]proxy.Backends) {
	restricted, ranges := RestrictedSet, SourcesSet
	if nodePort {
		restricted, ranges = RestrictedNodePortsSet, NodePortSourcesSet
	}
	for e := range bySet[restricted+f.digit] {
		at := f.frontendOf(e.Key, nodePort)
		b := into[at]
		b.Sources = []netip.Prefix{}
		into[at] = b
	}
	for e := range bySet[ranges+f.digit] {
		n := len(e.Key) - int(f.addr.Bytes)
		at := f.frontendOf(e.Key[:n], nodePort)
		b := into[at]
		b.Sources = append(b.Sources, PrefixOf(e.Key[n:], e.End[n:]))
		slices.SortFunc(b.Sources, netip.Prefix.Compare)
		into[at] = b
	}
}

// frontendOf is the inverse of frontendKey.
func (f family) frontendOf(key string, nodePort bool) proxy.Frontend {
	addr := netip.IPv4Unspecified()
	if f.digit == "6" {
		addr = netip.IPv6Unspecified()
	}
	if !nodePort {
		n := int(f.addr.Bytes)
		addr, _ = netip.AddrFromSlice([]byte(key[:n]))
		key = key[n:]
	}
	return proxy.Frontend{Addr: addr, Protocol: proxy.Protocol(key[0]), Port: uint16(key[4])<<8 | uint16(key[5])}
}

// PrefixOf is the range from the first to the last address.
func PrefixOf(first, last string) netip.Prefix {
	a, _ := netip.AddrFromSlice([]byte(first))
	bits := a.BitLen()
	for bits > 0 && string(lastOf(netip.PrefixFrom(a, bits))) != last {
		bits--
	}
	return netip.PrefixFrom(a, bits)
}

// EndpointOf is the inverse of endpointValue, also where that comes after a protocol; the zero AddrPort for what is none.
func EndpointOf(value string) netip.AddrPort {
	if len(value) == 4+8 || len(value) == 4+20 {
		value = value[4:]
	}
	if len(value) < 8 {
		return netip.AddrPort{}
	}
	n := len(value) - 4
	a, ok := netip.AddrFromSlice([]byte(value[:n]))
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, uint16(value[n])<<8|uint16(value[n+1]))
}

// FrontendOf is the frontend that an element belongs to; false where it belongs to none.
func FrontendOf(e nfnetlink.Element) (proxy.Frontend, bool) {
	for _, f := range families() {
		nodePorts := map[string]bool{EmptySet + f.digit: false, RestrictedSet + f.digit: false, SourcesSet + f.digit: false, HostPortsSet + f.digit: false,
			NodePortsSet + f.digit: true, RestrictedNodePortsSet + f.digit: true, NodePortSourcesSet + f.digit: true}
		for _, p := range Picks() {
			for _, set := range []string{p.Frontends, p.Endpoints, p.stays, p.members} {
				nodePorts[set+f.digit] = p.NodePort
			}
			if e.Set == p.members+f.digit { // the endpoint comes first
				e.Key = e.Key[f.addr.Bytes+4:]
			}
		}
		if nodePort, ours := nodePorts[e.Set]; ours {
			return f.frontendOf(e.Key, nodePort), true
		}
	}
	return proxy.Frontend{}, false
}
