package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// indexes maps the names of devices to their index.
type indexes map[string]int

// addresses gives the device exactly those of want that are on it. Link-local IPv6 addresses are the kernel's.
func (s *space) addresses(device string, index int, want []Address) error {
	l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index, Name: device}}
	is, err := dump("addresses", func() ([]netlink.Addr, error) { return s.nl.AddrList(l, unix.AF_UNSPEC) })
	if err != nil {
		return err
	}
	have := map[netip.Prefix]bool{}
	var errs []error
	for _, a := range is {
		p := prefix(a.IPNet)
		have[p] = true
		if p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() || slices.Contains(want, Address{device, p}) {
			continue
		}
		errs = append(errs, s.write(fmt.Sprintf("delete %s", Address{device, p}),
			func() error { return ignoreGone(s.nl.AddrDel(l, &a)) }))
	}
	for _, a := range want {
		if a.Device != device || have[a.Prefix] {
			continue
		}
		na := &netlink.Addr{IPNet: ipNet(a.Prefix)}
		if a.Prefix.Addr().Is6() {
			// Nobody else can have it, so it need not wait for duplicate address detection.
			na.Flags = unix.IFA_F_NODAD
		}
		errs = append(errs, s.write("add "+a.String(), func() error { return s.nl.AddrReplace(l, na) }))
	}
	return errors.Join(errs...)
}

// neighbours gives the device exactly those permanent entries of want that are on it.
func (s *space) neighbours(device string, index int, want []Neighbour) error {
	is, err := dump("neighbours", func() ([]netlink.Neigh, error) { return s.nl.NeighList(index, unix.AF_UNSPEC) })
	if err != nil {
		return err
	}
	have := map[netip.Addr]MAC{}
	wanted := map[netip.Addr]bool{}
	for _, n := range want {
		wanted[n.Addr] = n.Device == device
	}
	var errs []error
	for _, n := range is {
		if n.State != netlink.NUD_PERMANENT || (n.Family != unix.AF_INET && n.Family != unix.AF_INET6) {
			continue
		}
		a := addr(n.IP)
		have[a] = mac(n.HardwareAddr)
		if !wanted[a] {
			errs = append(errs, s.write("delete "+Neighbour{device, a, mac(n.HardwareAddr)}.String(),
				func() error { return ignoreGone(s.nl.NeighDel(&n)) }))
		}
	}
	for _, n := range want {
		if n.Device != device || have[n.Addr] == n.MAC {
			continue
		}
		entry := &netlink.Neigh{LinkIndex: index, Family: family(n.Addr), State: netlink.NUD_PERMANENT,
			IP: ip(n.Addr), HardwareAddr: n.MAC[:]}
		errs = append(errs, s.write("set "+n.String(), func() error { return s.nl.NeighSet(entry) }))
	}
	return errors.Join(errs...)
}

// forwards gives the VXLAN exactly those entries of want that are on it.
func (s *space) forwards(device string, index int, want []Forward) error {
	is, err := dump("forwarding entries", func() ([]netlink.Neigh, error) { return s.nl.NeighList(index, unix.AF_BRIDGE) })
	if err != nil {
		return err
	}
	have := map[MAC]netip.Addr{}
	wanted := map[MAC]bool{}
	for _, f := range want {
		wanted[f.MAC] = f.Device == device
	}
	var errs []error
	for _, n := range is {
		m := mac(n.HardwareAddr)
		if n.State&netlink.NUD_PERMANENT != 0 {
			have[m] = addr(n.IP)
		}
		if !wanted[m] {
			errs = append(errs, s.write("delete "+Forward{device, m, addr(n.IP)}.String(),
				func() error { return ignoreGone(s.nl.NeighDel(&n)) }))
		}
	}
	for _, f := range want {
		if f.Device != device || have[f.MAC] == f.Dst {
			continue
		}
		entry := &netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT,
			Flags: netlink.NTF_SELF, IP: ip(f.Dst), HardwareAddr: f.MAC[:]}
		errs = append(errs, s.write("set "+f.String(), func() error { return s.nl.NeighSet(entry) }))
	}
	return errors.Join(errs...)
}

// routeState is what of a route can differ while it stays the same route.
type routeState struct {
	unreachable bool
	index       int
	via, src    netip.Addr
	scope       netlink.Scope
	onLink      bool
}

// routes makes the routes with the protocol number exactly want. With only > 0 it looks at that device alone.
func (s *space) routes(protocol, only int, devices indexes, want []Route) error {
	have, err := s.ownRoutes(protocol, only)
	if err != nil {
		return err
	}
	var errs []error
	wanted := map[netip.Prefix]bool{}
	for _, r := range want {
		wanted[r.Dst] = true
		index, ok := devices[r.Device]
		if !ok && !r.Unreachable {
			errs = append(errs, fmt.Errorf("set %s: no such device", r))
			continue
		}
		errs = append(errs, s.route(protocol, index, r, have))
	}
	for dst, is := range have {
		if !wanted[dst] {
			errs = append(errs, s.write(fmt.Sprintf("delete route %s", dst),
				func() error { return ignoreGone(s.nl.RouteDel(&is)) }))
		}
	}
	return errors.Join(errs...)
}

// ownRoutes reads the routes with the protocol number, by destination.
func (s *space) ownRoutes(protocol, only int) (map[netip.Prefix]netlink.Route, error) {
	is, err := dump("routes", func() ([]netlink.Route, error) {
		return s.nl.RouteListFiltered(unix.AF_UNSPEC, &netlink.Route{Protocol: netlink.RouteProtocol(protocol)},
			netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, err
	}
	have := map[netip.Prefix]netlink.Route{}
	for _, r := range is {
		if only == 0 || r.LinkIndex == only {
			have[destination(r)] = r
		}
	}
	return have, nil
}

// route sets one route. One of another owner in its place is left there, and is an error.
func (s *space) route(protocol, index int, r Route, have map[netip.Prefix]netlink.Route) error {
	want := netlink.Route{Dst: ipNet(r.Dst), Protocol: netlink.RouteProtocol(protocol), Src: ip(r.Src)}
	switch {
	case r.Unreachable:
		want.Type = unix.RTN_UNREACHABLE
	case r.Via.IsValid():
		want.LinkIndex, want.Gw, want.Flags, want.Type = index, ip(r.Via), int(netlink.FLAG_ONLINK), unix.RTN_UNICAST
	default:
		want.LinkIndex, want.Type = index, unix.RTN_UNICAST
		if r.Dst.Addr().Is4() {
			want.Scope = netlink.SCOPE_LINK
		}
	}
	is, ours := have[r.Dst]
	if !ours {
		return s.write("add "+r.String(), func() error { return s.nl.RouteAdd(&want) })
	}
	if stateOf(is) == stateOf(want) {
		return nil
	}
	return s.write("replace "+r.String(), func() error { return s.nl.RouteReplace(&want) })
}

func stateOf(r netlink.Route) routeState {
	if r.Type == unix.RTN_UNREACHABLE {
		// The kernel puts IPv6 ones on lo.
		return routeState{unreachable: true}
	}
	return routeState{index: r.LinkIndex, via: addr(r.Gw), src: addr(r.Src), scope: r.Scope,
		onLink: r.Flags&int(netlink.FLAG_ONLINK) != 0}
}

// destination is the Dst of a route that was read; default routes may come without one.
func destination(r netlink.Route) netip.Prefix {
	if r.Dst != nil {
		return prefix(r.Dst)
	}
	if r.Family == unix.AF_INET6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// ignoreGone takes the error of a deletion: what is not there is deleted.
func ignoreGone(err error) error {
	for _, gone := range []error{unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.EADDRNOTAVAIL} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}
