package ruleset

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/proxy"
)

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// Index ends the key of the endpoint with this index.
func Index(i int) string { return string(native(uint32(i))) }

// InterfaceName is a name as the kernel compares whole ones: filled with zeros to IFNAMSIZ.
func InterfaceName(name string) string {
	var b [unix.IFNAMSIZ]byte
	copy(b[:unix.IFNAMSIZ-1], name)
	return string(b[:])
}

// Digit ends the names of the sets for the family of a: "4" or "6".
func Digit(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// PortKey is protocol . port, each in a register of its own.
func PortKey(protocol proxy.Protocol, port uint16) string {
	return string([]byte{byte(protocol), 0, 0, 0, byte(port >> 8), byte(port), 0, 0})
}

func frontendKey(f proxy.Frontend) string {
	if f.NodePort() {
		return PortKey(f.Protocol, f.Port)
	}
	return string(f.Addr.AsSlice()) + PortKey(f.Protocol, f.Port)
}

func endpointValue(e netip.AddrPort) string {
	return string(e.Addr().AsSlice()) + string([]byte{byte(e.Port() >> 8), byte(e.Port()), 0, 0})
}

// Encode returns the elements that s asks for. An endpoint that have already holds stays at its index, so that a
// change of one writes one.
func Encode(s proxy.State, have nfnetlink.Contents) nfnetlink.Contents {
	want := make(nfnetlink.Contents, 4*len(s.Frontends)+len(s.Addresses)) // most have a few endpoints: a map that grows costs as much again
	for f, b := range s.Frontends {
		for _, p := range Picks() {
			if p.NodePort != f.NodePort() || p.Inside && !b.Differ() {
				continue
			}
			endpoints := b.Outside
			if p.Inside {
				endpoints = b.Inside
			}
			if !b.Empty() {
				addFrontend(want, p, f, endpoints, b, have)
			}
		}
		restrict(want, f, b)
		if f.NodePort() {
			want[nfnetlink.Element{Set: NodePortsSet + Digit(f.Addr), Key: PortKey(f.Protocol, f.Port)}] = ""
		}
	}
	for f := range s.HostPorts {
		if !f.NodePort() {
			want[nfnetlink.Element{Set: HostPortsSet + Digit(f.Addr), Key: frontendKey(f)}] = ""
		}
	}
	for a := range s.Addresses {
		want[nfnetlink.Element{Set: AddressesSet + Digit(a), Key: string(a.AsSlice())}] = ""
	}
	for vip, by := range s.Pings {
		want[nfnetlink.Element{Set: PingsSet + Digit(vip), Key: string(vip.AsSlice())}] = string(by.AsSlice())
	}
	for a := range s.Hairpins {
		want[nfnetlink.Element{Set: HairpinsSet + Digit(a), Key: string(a.AsSlice()) + string(a.AsSlice())}] = ""
	}
	for set, addrs := range map[string]proxy.Set[netip.Addr]{ExternalsSet: s.Externals, OthersSet: s.Others} {
		for a := range addrs {
			want[nfnetlink.Element{Set: set + Digit(a), Key: string(a.AsSlice())}] = ""
		}
	}
	for set, ranges := range map[string]proxy.Set[netip.Prefix]{PodRangesSet: s.PodRanges, ServiceRangesSet: s.ServiceRanges, NodePortRangesSet: s.NodePortRanges} {
		for p := range ranges {
			want[interval(set, p)] = ""
		}
	}
	for name := range s.Overlays {
		want[nfnetlink.Element{Set: OverlaysSet, Key: InterfaceName(name)}] = ""
	}
	return want
}

// interval is the element of a prefix in a set.
func interval(set string, p netip.Prefix) nfnetlink.Element {
	e := nfnetlink.Element{Set: set + Digit(p.Addr()), Key: string(p.Masked().Addr().AsSlice())}
	// The first address after p: one more in the last bit of the prefix, with carry.
	end := p.Masked().Addr().AsSlice()
	for bit := p.Bits() - 1; bit >= 0; bit-- {
		mask := byte(0x80 >> (bit % 8))
		end[bit/8] ^= mask
		if end[bit/8]&mask != 0 {
			e.End = string(end)
			break
		}
	}
	return e
}

// restrict adds what says that a frontend has no endpoints, and which sources it is for.
func restrict(c nfnetlink.Contents, f proxy.Frontend, b proxy.Backends) {
	d, key := Digit(f.Addr), frontendKey(f)
	if b.Empty() && !f.NodePort() {
		c[nfnetlink.Element{Set: EmptySet + d, Key: key}] = ""
	}
	if b.Sources == nil {
		return
	}
	restricted, sources := RestrictedSet, SourcesSet
	if f.NodePort() {
		restricted, sources = RestrictedNodePortsSet, NodePortSourcesSet
	}
	c[nfnetlink.Element{Set: restricted + d, Key: key}] = ""
	for _, p := range b.Sources {
		c[nfnetlink.Element{Set: sources + d, Key: key + string(p.Masked().Addr().AsSlice()), End: key + string(lastOf(p))}] = ""
	}
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) []byte {
	out := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(out); bit++ {
		out[bit/8] |= 0x80 >> (bit % 8)
	}
	return out
}

// addFrontend adds the elements of one frontend: the chain to go to, and its endpoints by index.
func addFrontend(c nfnetlink.Contents, p Pick, f proxy.Frontend, endpoints []netip.AddrPort, b proxy.Backends, have nfnetlink.Contents) {
	d, key := Digit(f.Addr), frontendKey(f)
	to := nfnetlink.Element{Set: p.Frontends + d, Key: key}
	if len(endpoints) == 0 {
		c[to] = NoLocalEndpoint
		return
	}
	lead := leadOf(len(endpoints), b)
	for _, fam := range families() {
		if fam.digit == d {
			c[to] = p.chainName(fam, lead)
		}
	}
	set, members := p.EndpointsOf(lead)+d, p.members+d // one string for all endpoints
	value := endpointValue
	if lead.Stay > 0 {
		value = func(e netip.AddrPort) string { return string([]byte{byte(f.Protocol), 0, 0, 0}) + endpointValue(e) }
	}
	values := make([]string, len(endpoints))
	for i, e := range endpoints {
		values[i] = value(e)
		if lead.Stay > 0 {
			c[nfnetlink.Element{Set: members, Key: endpointValue(e) + key}] = ""
		}
	}
	at := func(i int) nfnetlink.Element {
		return nfnetlink.Element{Set: set, Key: key + Index(i)}
	}
	if lead.By != proxy.Random {
		for i, e := range proxy.Slots(endpoints) {
			c[at(i)] = value(e)
		}
		return
	}
	for i, value := range arrange(values, func(i int) string { return have[at(i)] }) {
		c[at(i)] = value
	}
}

// arrange orders values so that each which is at an index now, as told by now ("" for none), stays there if it can.
func arrange(values []string, now func(i int) string) []string {
	missing := make(map[string]bool, len(values))
	for _, v := range values {
		missing[v] = true
	}
	out := make([]string, len(values))
	for i := range out {
		if v := now(i); missing[v] {
			out[i] = v
			delete(missing, v)
		}
	}
	next := 0
	for _, v := range values {
		if !missing[v] {
			continue
		}
		for out[next] != "" {
			next++
		}
		out[next] = v
	}
	return out
}
