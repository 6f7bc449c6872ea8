package nft

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/proxy"
)

// An element names an element of a set by its key, in the kernel's form. In an interval set key is the first address
// and end the first one that is no longer in it, empty if there is none; in one of concatenations end is the last key.
type element struct {
	set, key, end string
}

// contents are elements with their values, in the kernel's form: in a verdict map the name of a chain, empty in a plain
// set.
type contents map[element]string

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// interfaceName is a name as the kernel compares whole ones: filled with zeros to IFNAMSIZ.
func interfaceName(name string) string {
	var b [unix.IFNAMSIZ]byte
	copy(b[:unix.IFNAMSIZ-1], name)
	return string(b[:])
}

func digit(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// portKey is protocol . port, each in a register of its own.
func portKey(protocol proxy.Protocol, port uint16) string {
	return string([]byte{byte(protocol), 0, 0, 0, byte(port >> 8), byte(port), 0, 0})
}

func frontendKey(f proxy.Frontend) string {
	if f.NodePort() {
		return portKey(f.Protocol, f.Port)
	}
	return string(f.Addr.AsSlice()) + portKey(f.Protocol, f.Port)
}

func endpointValue(e netip.AddrPort) string {
	return string(e.Addr().AsSlice()) + string([]byte{byte(e.Port() >> 8), byte(e.Port()), 0, 0})
}

// encode returns the elements that s asks for. An endpoint that have already holds stays at its index, so that a
// change of one writes one.
func encode(s proxy.State, have contents) contents {
	want := contents{}
	for f, b := range s.Frontends {
		for _, p := range picks() {
			if p.nodePort != f.NodePort() || p.inside && !b.Differ() {
				continue
			}
			endpoints := b.Outside
			if p.inside {
				endpoints = b.Inside
			}
			if !b.Empty() {
				want.frontend(p, f, endpoints, b.Affinity, have)
			}
		}
		want.restrict(f, b)
		if f.NodePort() {
			want[element{set: nodePortsSet + digit(f.Addr), key: portKey(f.Protocol, f.Port)}] = ""
		}
	}
	for a := range s.Addresses {
		want[element{set: addressesSet + digit(a), key: string(a.AsSlice())}] = ""
	}
	for vip, by := range s.Pings {
		want[element{set: pingsSet + digit(vip), key: string(vip.AsSlice())}] = string(by.AsSlice())
	}
	for a := range s.Hairpins {
		want[element{set: hairpinsSet + digit(a), key: string(a.AsSlice()) + string(a.AsSlice())}] = ""
	}
	for p := range s.PodRanges {
		want[interval(p)] = ""
	}
	for name := range s.Overlays {
		want[element{set: overlaysSet, key: interfaceName(name)}] = ""
	}
	return want
}

// interval is the element of a prefix.
func interval(p netip.Prefix) element {
	e := element{set: podRangesSet + digit(p.Addr()), key: string(p.Masked().Addr().AsSlice())}
	// The first address after p: one more in the last bit of the prefix, with carry.
	end := p.Masked().Addr().AsSlice()
	for bit := p.Bits() - 1; bit >= 0; bit-- {
		mask := byte(0x80 >> (bit % 8))
		end[bit/8] ^= mask
		if end[bit/8]&mask != 0 {
			e.end = string(end)
			break
		}
	}
	return e
}

// restrict adds what says that a frontend has no endpoints, and which sources it is for.
func (c contents) restrict(f proxy.Frontend, b proxy.Backends) {
	d, key := digit(f.Addr), frontendKey(f)
	if b.Empty() && !f.NodePort() {
		c[element{set: emptySet + d, key: key}] = ""
	}
	if b.Sources == nil || f.NodePort() {
		return
	}
	c[element{set: restrictedSet + d, key: key}] = ""
	for _, p := range b.Sources {
		c[element{set: sourcesSet + d, key: key + string(p.Masked().Addr().AsSlice()), end: key + string(lastOf(p))}] = ""
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

// frontend adds the elements of one frontend: the chain to go to, and its endpoints by index.
func (c contents) frontend(p pick, f proxy.Frontend, endpoints []netip.AddrPort, stay time.Duration, have contents) {
	d, key := digit(f.Addr), frontendKey(f)
	to := element{set: p.frontends + d, key: key}
	if len(endpoints) == 0 {
		c[to] = NoLocalEndpoint
		return
	}
	for _, fam := range families() {
		if fam.digit == d {
			c[to] = p.chainName(fam, lead{len(endpoints), stay})
		}
	}
	values := make([]string, len(endpoints))
	for i, e := range endpoints {
		values[i] = endpointValue(e)
		if stay > 0 {
			c[element{set: p.members + d, key: key + values[i]}] = ""
		}
	}
	at := func(i int) element {
		return element{set: p.endpoints + d, key: key + string(native(uint32(i)))}
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
