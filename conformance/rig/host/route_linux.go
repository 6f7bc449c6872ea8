package host

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// SetRoute adds or replaces a route in a network namespace.
func SetRoute(namespace string, to netip.Prefix, via netip.Addr) error {
	h, err := open(namespace)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.RouteReplace(&netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("set route to %s via %s in %s: %w", to, via, namespace, err)
	}
	return nil
}

// RemoveRoute removes a route from a network namespace.
func RemoveRoute(namespace string, to netip.Prefix) error {
	h, err := open(namespace)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.RouteDel(&netlink.Route{Dst: ipNet(to)}); err != nil {
		return fmt.Errorf("remove route to %s in %s: %w", to, namespace, err)
	}
	return nil
}

// AddAddress adds an address to an interface, unless it has it. One of IPv6 can be used at once: nobody else has it, so nobody
// is asked (RFC 4862, section 5.4).
func AddAddress(namespace, link string, address netip.Prefix) error {
	h, err := open(namespace)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(link)
	if err == nil {
		added := &netlink.Addr{IPNet: ipNet(address)}
		if address.Addr().Is6() {
			added.Flags = unix.IFA_F_NODAD
		}
		err = h.AddrReplace(l, added)
	}
	if err != nil {
		return fmt.Errorf("add address %s to %s in %s: %w", address, link, namespace, err)
	}
	return nil
}

// ReplaceAddress gives an interface one address in the place of another, and the default route that goes with the old one.
func ReplaceAddress(namespace, link string, old, address netip.Prefix, gateway netip.Addr) error {
	h, err := open(namespace)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(link)
	if err == nil {
		err = h.AddrDel(l, &netlink.Addr{IPNet: ipNet(old)})
	}
	if err == nil {
		err = h.AddrAdd(l, &netlink.Addr{IPNet: ipNet(address)})
	}
	if err == nil {
		everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		err = h.RouteReplace(&netlink.Route{Dst: ipNet(everywhere), Gw: gateway.AsSlice(), LinkIndex: l.Attrs().Index})
	}
	if err != nil {
		return fmt.Errorf("replace address %s of %s in %s by %s: %w", old, link, namespace, address, err)
	}
	return nil
}

func open(namespace string) (*netlink.Handle, error) {
	ns, err := netns.GetFromName(namespace)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", namespace, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", namespace, err)
	}
	return h, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
