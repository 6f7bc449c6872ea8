package nft

import (
	"net/netip"
	"slices"

	"hythe.dev/hythe/node/proxy"
)

// ReadFrontends lists what the kernel does for each frontend, in the calling thread's network namespace; nil where there
// is no table. It is what Build's State.Frontends should be, and reads all elements: for one frontend ask Lookup.
func ReadFrontends() (map[proxy.Frontend]proxy.Backends, error) {
	c, err := dial(0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if exists, err := c.exists(); !exists {
		return nil, err
	}
	all := contents{}
	for _, s := range sets() {
		if s.dynamic {
			continue
		}
		if err := c.readElements(s, all); err != nil {
			return nil, err
		}
	}
	return decode(all), nil
}

// decode is the inverse of encode, for frontends.
func decode(all contents) map[proxy.Frontend]proxy.Backends {
	out := map[proxy.Frontend]proxy.Backends{}
	bySet := map[string]contents{}
	for e, value := range all {
		if bySet[e.set] == nil {
			bySet[e.set] = contents{}
		}
		bySet[e.set][e] = value
	}
	for _, f := range families() {
		for e := range bySet[nodePortsSet+f.digit] {
			out[f.frontendOf(e.key, true)] = proxy.Backends{}
		}
		for e := range bySet[emptySet+f.digit] {
			out[f.frontendOf(e.key, false)] = proxy.Backends{}
		}
		for _, p := range picks() { // those for everybody come first
			for e, chain := range bySet[p.frontends+f.digit] {
				at := f.frontendOf(e.key, p.nodePort)
				b := out[at]
				b.Inside = all.endpoints(p.endpoints+f.digit, e.key, leadOf(chain).n)
				b.Affinity = max(b.Affinity, leadOf(chain).stay)
				if !p.inside {
					b.Outside = b.Inside
				}
				out[at] = b
			}
		}
		sources(f, bySet, out)
	}
	return out
}

// endpoints returns the list of a frontend, sorted. An index that is missing is left out.
func (c contents) endpoints(set, key string, n int) []netip.AddrPort {
	var out []netip.AddrPort
	for i := range n {
		if value, there := c[element{set: set, key: key + string(native(uint32(i)))}]; there {
			out = append(out, endpointOf(value))
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// sources adds to frontends which sources they are for.
func sources(f family, bySet map[string]contents, into map[proxy.Frontend]proxy.Backends) {
	for e := range bySet[restrictedSet+f.digit] {
		at := f.frontendOf(e.key, false)
		b := into[at]
		b.Sources = []netip.Prefix{}
		into[at] = b
	}
	for e := range bySet[sourcesSet+f.digit] {
		n := len(e.key) - int(f.addr.Bytes)
		at := f.frontendOf(e.key[:n], false)
		b := into[at]
		b.Sources = append(b.Sources, prefixOf(e.key[n:], e.end[n:]))
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

// prefixOf is the range from the first to the last address.
func prefixOf(first, last string) netip.Prefix {
	a, _ := netip.AddrFromSlice([]byte(first))
	bits := a.BitLen()
	for bits > 0 && string(lastOf(netip.PrefixFrom(a, bits))) != last {
		bits--
	}
	return netip.PrefixFrom(a, bits)
}
