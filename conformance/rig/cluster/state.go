package cluster

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The flavours of a cluster.
const (
	// Hythe is a bare cluster: Hythe is its CNI plugin, overlay, Service proxy, load balancer and gateway.
	Hythe = "hythe"
	// Peer has the reference plugins, static routes and kube-proxy, and nothing of Hythe.
	Peer = "peer"
	// Guest is Peer with Hythe as gateway and load balancer.
	Guest = "guest"
)

// Flavours lists them.
func Flavours() []string { return []string{Hythe, Peer, Guest} }

// Roles of the machines that are no nodes.
const (
	Client  = "client"
	Router  = "router"
	LAN     = "lan"
	Control = "control"
)

// HostLink is the one interface that the rig makes in the namespace of the machine itself: its cable to the LAN.
const HostLink = "hc-host"

const (
	prefix  = "hc-"
	apiPort = 6443
	// MaxNodes is how many nodes have an address.
	MaxNodes = 6
)

// Addresses of the cluster. RFC 5737 keeps these networks for documentation; those of the lab are the same, so that a
// reader of both knows his way.
var (
	lan          = netip.MustParsePrefix("203.0.113.0/24")
	routerInside = netip.MustParsePrefix("203.0.113.1/24")
	// The machine reaches the API server and the nodes (.96 to .127) and keeps its own way to the rest of the network.
	hostAddress   = netip.MustParsePrefix("203.0.113.126/27")
	control       = netip.MustParsePrefix("203.0.113.100/24")
	control2      = netip.MustParsePrefix("203.0.113.99/24") // of the second API server, on the same machine
	routerOutside = netip.MustParsePrefix("198.51.100.1/24")
	client        = netip.MustParsePrefix("198.51.100.10/24")
	podCIDR       = netip.MustParsePrefix("10.244.0.0/16")
	serviceCIDR   = netip.MustParsePrefix("10.96.0.0/16")
	dnsAddress    = netip.MustParseAddr("10.96.0.10")
)

// ClientAddress is the address of the client on the internet's side.
func ClientAddress() netip.Addr { return client.Addr() }

// APIServers lists where API servers answer, for nodes, for the client and for the machine itself. Hythe is given all of
// them, in this order.
func (c Cluster) APIServers() []netip.AddrPort {
	out := []netip.AddrPort{netip.AddrPortFrom(control.Addr(), apiPort)}
	if c.TwoAPIServers {
		out = append(out, netip.AddrPortFrom(control2.Addr(), apiPort))
	}
	return out
}

// endpoint is the API server that everybody else asks, the last one: the first may die.
func (c Cluster) endpoint() netip.AddrPort {
	all := c.APIServers()
	return all[len(all)-1]
}

// SecondAddress is the address of the second API server, and the interface of the control machine that gets it.
func SecondAddress() (link string, address netip.Prefix) { return nodeLink, control2 }

// A Cluster is what Up makes. It is kept as JSON beside the running cluster.
type Cluster struct {
	// Dir holds everything of the cluster, Binaries the programs that scripts/kubernetes.sh builds.
	Dir, Binaries string
	Flavour       string
	// TwoAPIServers asks for a second API server, which kubelets and the rest of the control plane use.
	TwoAPIServers bool
	// DualStack gives nodes, pods and Services addresses of both families. The LAN's addresses for Hythe's VIPs stay IPv4.
	DualStack bool
	Nodes     []Node
}

// A Node is one node.
type Node struct {
	Name    string
	Address netip.Addr
	MAC     net.HardwareAddr
}

// New is a cluster of count nodes.
func New(dir, binaries, flavour string, count int) (Cluster, error) {
	if !slices.Contains(Flavours(), flavour) {
		return Cluster{}, fmt.Errorf("flavour %q: want one of %s", flavour, strings.Join(Flavours(), ", "))
	}
	if count < 1 || count > MaxNodes {
		return Cluster{}, fmt.Errorf("%d nodes: want 1 to %d", count, MaxNodes)
	}
	c := Cluster{Dir: dir, Binaries: binaries, Flavour: flavour}
	for range count {
		n, _ := c.NextNode()
		c.Nodes = append(c.Nodes, n)
	}
	return c, nil
}

// NextNode is the first node that the cluster does not have yet; ok is false when it has all.
func (c Cluster) NextNode() (n Node, ok bool) {
	for i := 1; i <= MaxNodes; i++ {
		name := "node" + strconv.Itoa(i)
		if _, there := c.Node(name); !there {
			return Node{Name: name, Address: nodeAddress(i), MAC: mac(2, byte(100+i))}, true
		}
	}
	return Node{}, false
}

// nodeAddress is the address that a node begins with.
func nodeAddress(number int) netip.Addr {
	a := lan.Addr().As4()
	a[3] = byte(100 + number)
	return netip.AddrFrom4(a)
}

// number is that of a node's name.
func number(name string) int {
	i, _ := strconv.Atoi(strings.TrimPrefix(name, "node"))
	return i
}

// Zone is the topology zone of a node: a and b in turn, and c from the fifth on, so that six nodes are three zones of two.
func (n Node) Zone() string {
	if number(n.Name) > 4 {
		return "c"
	}
	return string("ba"[number(n.Name)%2])
}

// Node finds a node by name.
func (c Cluster) Node(name string) (n Node, ok bool) {
	i := slices.IndexFunc(c.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return c.Nodes[i], true
}

// ReaddressNode gives a node another address.
func (c *Cluster) ReaddressNode(name string, address netip.Addr) error {
	i := slices.IndexFunc(c.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return fmt.Errorf("no node %q", name)
	}
	// The machine itself reaches only these; the lower half may be in a pool of Hythe's.
	if reach := hostAddress.Masked(); !reach.Contains(address) {
		return fmt.Errorf("address %s: want one of %s", address, reach)
	}
	taken := []netip.Addr{hostAddress.Addr(), control.Addr(), control2.Addr()}
	for j := range MaxNodes {
		taken = append(taken, nodeAddress(j+1))
	}
	for _, n := range c.Nodes {
		taken = append(taken, n.Address)
	}
	if own := nodeAddress(number(name)); slices.Contains(taken, address) && address != own || address == c.Nodes[i].Address {
		return fmt.Errorf("address %s is taken", address)
	}
	c.Nodes[i].Address = address
	return nil
}

// OwnNetwork says whether the cluster has a CNI plugin and kube-proxy of its own.
func (c Cluster) OwnNetwork() bool { return c.Flavour != Hythe }

// WithHythe says whether Hythe is installed in it.
func (c Cluster) WithHythe() bool { return c.Flavour != Peer }

// Path is a path below Dir.
func (c Cluster) Path(elements ...string) string {
	return filepath.Join(append([]string{c.Dir}, elements...)...)
}

// Kubeconfig is the administrator's kubeconfig.
func (c Cluster) Kubeconfig() string { return c.Path("kubeconfig") }

// Binary is the path of a program.
func (c Cluster) Binary(name string) string { return filepath.Join(c.Binaries, name) }

// Namespace is the name under /run/netns of a machine.
func Namespace(machine string) string { return prefix + machine }

// Owns says whether a name under /run/netns is of the rig: one of its machines, not whatever begins alike.
func Owns(name string) bool {
	machine, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	if slices.Contains([]string{Client, Router, LAN, Control}, machine) {
		return true
	}
	number, ok := strings.CutPrefix(machine, "node")
	i, err := strconv.Atoi(number)
	return ok && err == nil && strconv.Itoa(i) == number && i >= 1 && i <= MaxNodes
}

// mac is an address that a reader of a packet capture recognises: segment and host.
func mac(segment, host byte) net.HardwareAddr {
	return net.HardwareAddr{0x02, 'h', 'c', 0x00, segment, host}
}
