package cluster

import (
	"net/netip"
	"strings"

	"hythe.dev/hythe/internal/lab/topology"
)

// Addresses of the second family, where the cluster has one: RFC 3849 keeps the first two networks for documentation, RFC 4193
// the others for those who need nobody's leave.
var (
	lan6           = netip.MustParsePrefix("2001:db8:113::/64")
	routerInside6  = netip.MustParsePrefix("2001:db8:113::1/64")
	control6       = netip.MustParsePrefix("2001:db8:113::100/64")
	routerOutside6 = netip.MustParsePrefix("2001:db8:198::1/64")
	client6        = netip.MustParsePrefix("2001:db8:198::10/64")
	podCIDR6       = netip.MustParsePrefix("fd00:10:244::/56")
	serviceCIDR6   = netip.MustParsePrefix("fd00:10:96::/112")
)

// An Address is one of the second family, which an interface gets beside the one of its cable.
type Address struct {
	Namespace, Interface string
	Address              netip.Prefix
	// Gateway is the address of the default route, if any.
	Gateway netip.Addr
}

// Addresses are those of the second family of all machines that are no nodes; none without DualStack.
func (c Cluster) Addresses() []Address {
	if !c.DualStack {
		return nil
	}
	return []Address{
		{Namespace: Namespace(Router), Interface: "inet0", Address: routerOutside6},
		{Namespace: Namespace(Router), Interface: topology.RouterLANInterface, Address: routerInside6},
		{Namespace: Namespace(Client), Interface: "eth0", Address: client6, Gateway: routerOutside6.Addr()},
		{Namespace: Namespace(Control), Interface: nodeLink, Address: control6, Gateway: routerInside6.Addr()},
	}
}

// NodeAddresses are those of the second family of one node; none without DualStack.
func (c Cluster) NodeAddresses(n Node) []Address {
	if !c.DualStack {
		return nil
	}
	return []Address{{
		Namespace: Namespace(n.Name), Interface: nodeLink,
		Address: netip.PrefixFrom(n.address6(), lan6.Bits()), Gateway: routerInside6.Addr(),
	}}
}

// address6 is the node's address of the second family: 2001:db8:113::101 for the first one. It stays when the other changes.
func (n Node) address6() netip.Addr {
	a := lan6.Addr().As16()
	a[14], a[15] = 1, byte(number(n.Name))
	return netip.AddrFrom16(a)
}

// addresses are all of the node, as the kubelet takes them.
func (c Cluster) addresses(n Node) []netip.Addr {
	if !c.DualStack {
		return []netip.Addr{n.Address}
	}
	return []netip.Addr{n.Address, n.address6()}
}

// via is the address of a node through which a pod CIDR is reached.
func (n Node) via(to netip.Prefix) netip.Addr {
	if to.Addr().Is6() {
		return n.address6()
	}
	return n.Address
}

// ranges are an IPv4 range and, with DualStack, that of the second family: as flags take them.
func (c Cluster) ranges(first, second netip.Prefix) string {
	if !c.DualStack {
		return first.String()
	}
	return first.String() + "," + second.String()
}

// forwarding are the sysctls by which a machine forwards packets.
func (c Cluster) forwarding() [][2]string {
	out := [][2]string{{"net/ipv4/ip_forward", "1"}}
	if c.DualStack {
		out = append(out, [2]string{"net/ipv6/conf/all/forwarding", "1"})
	}
	return out
}

// joined is a list as flags take it.
func joined(addresses []netip.Addr) string {
	var out []string
	for _, a := range addresses {
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}
