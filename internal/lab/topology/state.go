package topology

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
)

// Roles of the namespaces that are no nodes.
const (
	Client  = "inet"
	Router  = "router"
	LAN     = "lan"
	Control = "control"
)

const (
	prefix    = "hythe-"
	podPrefix = "pod-"
	nodes     = 3
	gateways  = 2
)

// A Plan is everything that Up makes.
type Plan struct {
	// Lab is the lab's name; empty for the first one.
	Lab        string
	Namespaces []Namespace
	Cables     []Cable
	Nodes      []Node
}

// A Namespace is one machine.
type Namespace struct {
	// Name is the name under /run/netns.
	Name string
	// Bridge is the name of a bridge to make in it, if any.
	Bridge string
	// Sysctls are written in order: pairs of path below /proc/sys and value. A missing file is no error.
	Sysctls [][2]string
}

// A Cable is a veth pair.
type Cable struct{ A, B End }

// An End is one end of a Cable.
type End struct {
	// Namespace may be empty at end A: that is the current one.
	Namespace, Interface string
	MAC                  net.HardwareAddr
	// Address is the zero Prefix for a port of a bridge.
	Address netip.Prefix
	// Gateway is the address of the default route, if any.
	Gateway netip.Addr
	// Bridge is the bridge that the interface is a port of, if any.
	Bridge string
}

// A Node is one node of the lab's cluster.
type Node struct {
	Name    string
	Address netip.Addr
	MAC     net.HardwareAddr
	PodCIDR netip.Prefix
	// Gateway says whether the node is labelled hythe.dev/gateway.
	Gateway bool
}

// Addresses that tests and the demo rely on.
var (
	clientAddress = netip.MustParsePrefix("198.51.100.10/24")
	routerOutside = netip.MustParsePrefix("198.51.100.1/24")
	routerInside  = netip.MustParsePrefix("203.0.113.1/24")
	controlNode   = netip.MustParsePrefix("203.0.113.100/24")
)

// ClientAddress is the address of the client on the internet side.
func ClientAddress() netip.Addr { return clientAddress.Addr() }

// ControlAddress is the control machine's address on the LAN.
func ControlAddress() netip.Addr { return controlNode.Addr() }

// RouterAddress is the router's address on the LAN.
func RouterAddress() netip.Addr { return routerInside.Addr() }

// RouterLANInterface is the name of the router's interface on the LAN.
const RouterLANInterface = "lan0"

var labName = regexp.MustCompile(`^[a-z0-9]{0,16}$`)

// CheckName says whether name can name a lab: at most 16 lower-case letters and digits; none for the first lab.
func CheckName(name string) error {
	if !labName.MatchString(name) {
		return fmt.Errorf("lab name %q: want at most 16 lower-case letters and digits", name)
	}
	return nil
}

// NamespaceName is the name under /run/netns of a role ("router", "node1") in the named lab.
func NamespaceName(lab, role string) string {
	if lab == "" {
		return prefix + role
	}
	return prefix + role + "." + lab
}

// PodNamespaceName is the name under /run/netns for a pod.
func PodNamespaceName(lab, namespace, pod string) string {
	return NamespaceName(lab, podPrefix+strings.ReplaceAll(namespace+"-"+pod, ".", "-"))
}

var roleName = regexp.MustCompile(`^hythe-(inet|router|lan|control|node[0-9]+|pod-[^.]+)(\.[a-z0-9]+)?$`)

// owns says whether the namespace of this name is one of the named lab.
func owns(lab, name string) bool {
	m := roleName.FindStringSubmatch(name)
	return m != nil && strings.TrimPrefix(m[2], ".") == lab
}
