package speaker

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// interfaceOf returns the name of the interface that has the address.
func interfaceOf(addr netip.Addr) (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr {
				return i.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no interface has %s; name the interface", addr)
}

// routers lists the IPv4 gateways of the main routing table that are reached by the interface. An error is the
// same as none: other neighbours are asked too.
func routers(ifindex int) []netip.Addr {
	if ifindex == 0 {
		return nil
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{LinkIndex: ifindex}, netlink.RT_FILTER_OIF)
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, r := range routes {
		if a, ok := netip.AddrFromSlice(r.Gw.To4()); ok {
			out = append(out, a)
		}
	}
	return out
}
