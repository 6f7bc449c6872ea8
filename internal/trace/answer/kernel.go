package answer

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/proxy"
)

// FromKernel is a Frontend as it was found in the kernel.
func FromKernel(f readback.Found) asked.Frontend {
	out := asked.Frontend{Verdict: f.Verdict, Why: f.Why}
	for _, e := range f.Endpoints {
		out.Endpoints = append(out.Endpoints, e.Address)
		if e.Masquerade {
			out.Masquerade++
		}
	}
	slices.SortFunc(out.Endpoints, netip.AddrPort.Compare)
	by := f.Outside
	if f.Inside {
		by = f.Within
	}
	if by != nil && f.Verdict == readback.Forwarded {
		out.Choice, out.Chosen = by.Choice, by.Chosen
		if slices.Contains(out.Endpoints, by.Stays) {
			out.Stays = by.Stays
		}
	}
	return out
}

// Wanted is the Frontend that Build wants for a connection. source is readback.Found's; from may be invalid, for the node
// itself, which is not held to source ranges here.
func Wanted(s proxy.State, from, to netip.Addr, protocol proxy.Protocol, port uint16, nodePort bool, source string) asked.Frontend {
	key := proxy.Frontend{Addr: to, Protocol: protocol, Port: port}
	if nodePort {
		key.Addr = netip.IPv4Unspecified()
		if to.Is6() {
			key.Addr = netip.IPv6Unspecified()
		}
	}
	backends, known := s.Frontends[key]
	_, isService := s.Addresses[to]
	list := backends.Inside
	if source == readback.FromOutside {
		list = backends.Outside
	}
	switch {
	case !known && !isService && unallocated(s, to):
		return asked.Frontend{Verdict: readback.Dropped}
	case !known && !isService:
		return asked.Frontend{Verdict: readback.NotService}
	case backends.Empty():
		return asked.Frontend{Verdict: readback.Refused}
	case len(list) == 0, from.IsValid() && !allowed(backends.Sources, from):
		return asked.Frontend{Verdict: readback.Dropped}
	}
	return asked.Frontend{Verdict: readback.Forwarded, Endpoints: slices.SortedFunc(slices.Values(list), netip.AddrPort.Compare)}
}

// unallocated says whether an address could be a Service's, and is none's.
func unallocated(s proxy.State, a netip.Addr) bool {
	if _, other := s.Others[a]; other {
		return false
	}
	for p := range s.ServiceRanges {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// allowed says whether the ranges let an address in; nil is everybody.
func allowed(ranges []netip.Prefix, a netip.Addr) bool {
	return ranges == nil || slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// RouteFound is a RouteAnswer of what was found in the kernel.
func RouteFound(f link.FoundRoute) asked.RouteAnswer {
	a := asked.RouteAnswer{Kind: f.Kind, Device: f.Device.Name, MTU: f.MTU}
	if f.Kind != link.Unicast {
		return a
	}
	a.Kernel = append(a.Kernel, link.Route{Dst: f.Dst, Device: f.Device.Name, Via: f.Via}.String())
	if !f.Device.Works() {
		a.State = f.Device.State
		if !f.Device.Up {
			a.State = "switched off"
		}
	}
	if f.Device.Type != "vxlan" {
		return a
	}
	if f.Neighbour != nil {
		a.Kernel = append(a.Kernel, fmt.Sprintf("neigh %s lladdr %s dev %s", f.Neighbour.Addr, f.Neighbour.MAC, f.Device.Name))
	}
	if f.Forward != nil {
		a.Peer = f.Forward.Dst
		a.Kernel = append(a.Kernel, fmt.Sprintf("fdb %s dst %s dev %s", f.Forward.MAC, f.Forward.Dst, f.Device.Name))
	}
	return a
}

// RouteWanted are the objects that an overlay's Build wants for the way to an address, nil if the address is in no
// other node's pod range.
func RouteWanted(s link.State, to netip.Addr) []string {
	for _, r := range s.Routes {
		if r.Unreachable || !r.Dst.Contains(to) {
			continue
		}
		out := []string{link.Route{Dst: r.Dst, Device: r.Device, Via: r.Via}.String()}
		for _, n := range s.Neighbours {
			if n.Addr != r.Via {
				continue
			}
			out = append(out, n.String())
			for _, f := range s.Forwards {
				if f.MAC == n.MAC {
					out = append(out, f.String())
				}
			}
		}
		return out
	}
	return nil
}

// FromDroppers are the chains as they were found in the kernel.
func FromDroppers(list []readback.Dropper) []asked.ForeignChain {
	var out []asked.ForeignChain
	for _, d := range list {
		out = append(out, asked.ForeignChain(d))
	}
	return out
}

// OverlayWait is how long the other end of the overlay may take to answer.
const OverlayWait = 300 * time.Millisecond
