package topology

import (
	"fmt"
	"net"
	"net/netip"
)

const lanBridge = "br0"

// Build plans the lab of this name. It is pure.
func Build(lab string) Plan {
	p := Plan{Lab: lab, Nodes: buildNodes()}
	ns := func(role string) string { return NamespaceName(lab, role) }
	p.Namespaces = []Namespace{
		{Name: ns(LAN), Bridge: lanBridge, Sysctls: [][2]string{
			{"net/bridge/bridge-nf-call-iptables", "0"},
			{"net/bridge/bridge-nf-call-ip6tables", "0"},
			{"net/bridge/bridge-nf-call-arptables", "0"},
			{"net/ipv6/conf/all/disable_ipv6", "1"},
		}},
		{Name: ns(Router), Sysctls: [][2]string{
			{"net/ipv4/ip_forward", "1"},
			{"net/ipv4/conf/all/rp_filter", "1"},
		}},
		{Name: ns(Client)},
		{Name: ns(Control)},
	}
	port := func(name string) End { return End{Namespace: ns(LAN), Interface: name, Bridge: lanBridge} }
	p.Cables = []Cable{
		{
			A: End{Namespace: ns(Router), Interface: "inet0", MAC: mac(1, 1), Address: routerOutside},
			B: End{Namespace: ns(Client), Interface: "eth0", MAC: mac(1, 10), Address: clientAddress, Gateway: routerOutside.Addr()},
		},
		{
			A: port(Router),
			B: End{Namespace: ns(Router), Interface: RouterLANInterface, MAC: mac(2, 1), Address: routerInside},
		},
		{
			A: port(Control),
			B: End{Namespace: ns(Control), Interface: "eth0", MAC: mac(2, 100), Address: controlNode, Gateway: routerInside.Addr()},
		},
	}
	for _, n := range p.Nodes {
		p.Namespaces = append(p.Namespaces, Namespace{Name: ns(n.Name)})
		p.Cables = append(p.Cables, Cable{
			A: port(n.Name),
			B: End{
				Namespace: ns(n.Name), Interface: "eth0", MAC: n.MAC,
				Address: netip.PrefixFrom(n.Address, routerInside.Bits()), Gateway: routerInside.Addr(),
			},
		})
	}
	return p
}

func buildNodes() []Node {
	var out []Node
	for i := 1; i <= nodes; i++ {
		out = append(out, Node{
			Name:    fmt.Sprintf("node%d", i),
			Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + i)}),
			MAC:     mac(2, byte(100+i)),
			PodCIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24),
			Gateway: i <= gateways,
		})
	}
	return out
}

// mac is a locally administered address that a reader of a packet capture recognises: segment and host.
func mac(segment, host byte) net.HardwareAddr {
	return net.HardwareAddr{0x02, 'h', 'y', 0x00, segment, host}
}
