package cluster

import (
	"net/netip"

	"hythe.dev/hythe/internal/lab/topology"
)

const bridge = "br0"

// nodeLink is the interface to the LAN of nodes and of the control machine.
const nodeLink = "eth0"

// Topology plans machines and cables: all namespaces but those of nodes, and the cable of the machine itself.
func (c Cluster) Topology() topology.Plan {
	return topology.Plan{
		Namespaces: []topology.Namespace{
			{Name: Namespace(LAN), Bridge: bridge, Sysctls: [][2]string{
				{"net/bridge/bridge-nf-call-iptables", "0"},
				{"net/bridge/bridge-nf-call-ip6tables", "0"},
				{"net/bridge/bridge-nf-call-arptables", "0"},
				{"net/ipv6/conf/all/disable_ipv6", "1"},
			}},
			{Name: Namespace(Router), Sysctls: append(c.forwarding(), [2]string{"net/ipv4/conf/all/rp_filter", "1"})},
			{Name: Namespace(Client)},
			{Name: Namespace(Control)},
		},
		Cables: []topology.Cable{
			{
				A: topology.End{Namespace: Namespace(Router), Interface: "inet0", MAC: mac(1, 1), Address: routerOutside},
				B: topology.End{Namespace: Namespace(Client), Interface: "eth0", MAC: mac(1, 10), Address: client, Gateway: routerOutside.Addr()},
			},
			{
				A: port(Router),
				B: topology.End{Namespace: Namespace(Router), Interface: topology.RouterLANInterface, MAC: mac(2, 1), Address: routerInside},
			},
			{
				A: port(Control),
				B: topology.End{Namespace: Namespace(Control), Interface: nodeLink, MAC: mac(2, 100), Address: control, Gateway: routerInside.Addr()},
			},
			{
				A: topology.End{Interface: HostLink, MAC: mac(2, 2), Address: hostAddress},
				B: port("host"),
			},
		},
	}
}

// NodeTopology plans the namespace of one node and its cable.
func (c Cluster) NodeTopology(n Node) topology.Plan {
	var sysctls [][2]string
	if c.OwnNetwork() {
		// As an administrator must, before kube-proxy. Hythe's agent sets what it needs itself.
		sysctls = c.forwarding()
	}
	return topology.Plan{
		Namespaces: []topology.Namespace{{Name: Namespace(n.Name), Sysctls: sysctls}},
		Cables: []topology.Cable{{
			A: port(n.Name),
			B: topology.End{
				Namespace: Namespace(n.Name), Interface: nodeLink, MAC: n.MAC,
				Address: netip.PrefixFrom(n.Address, lan.Bits()), Gateway: routerInside.Addr(),
			},
		}},
	}
}

// NodeLink is a node's interface to the LAN, with the address that it has, and its gateway.
func NodeLink(n Node) (link string, address netip.Prefix, gateway netip.Addr) {
	return nodeLink, netip.PrefixFrom(n.Address, lan.Bits()), routerInside.Addr()
}

func port(name string) topology.End {
	return topology.End{Namespace: Namespace(LAN), Interface: name, Bridge: bridge}
}

// A Route says that a machine reaches a node's pods through the node.
type Route struct {
	Namespace string
	To        netip.Prefix
	Via       netip.Addr
}

// Routes are the static routes to pods, by the pod CIDRs of nodes. The API server has them always, as it asks pods for
// kubectl and for webhooks; nodes, router, client and the machine only where no overlay carries the packets.
func (c Cluster) Routes(podCIDRs map[string][]netip.Prefix) []Route {
	var out []Route
	for _, to := range c.Nodes {
		machines := []string{Control}
		if c.OwnNetwork() {
			machines = append(machines, Router)
			for _, from := range c.Nodes {
				if from.Name != to.Name {
					machines = append(machines, from.Name)
				}
			}
		}
		for _, cidr := range podCIDRs[to.Name] {
			for _, m := range machines {
				out = append(out, Route{Namespace: Namespace(m), To: cidr, Via: to.via(cidr)})
			}
		}
	}
	return out
}
