package link

import (
	"fmt"
	"net/netip"
)

// The names of Hythe's links. OverlayName begins with PodPrefix: who matches by prefix must leave it out.
const (
	// OverlayName is the name of the overlay's link.
	OverlayName = "hythe.vxlan"
	// PodPrefix begins the name of the node's end of each pod link; 11 hexadecimal digits follow.
	PodPrefix = "hyt"
)

// The numbers in the protocol field of our routes (rtnetlink(7), rtm_protocol). They are free in
// iproute2's rt_protos, and make our routes ours.
const (
	// ProtocolOverlay marks the routes of the overlay.
	ProtocolOverlay = 72
	// ProtocolPod marks the routes to pods of this node, and those inside of pods.
	ProtocolPod = 73
)

// UnderlayName stands in the name of a Sysctl for the interface that holds the VXLAN's local address.
const UnderlayName = "{underlay}"

// A State is what one namespace should have, in the kernel's own words. The zero State is nothing at all.
type State struct {
	// Keep leaves everything as it is, because what is wanted is not known.
	Keep bool
	// Protocol marks the routes of this State. Routes that bear it and are not in the State are removed.
	Protocol int
	// VXLAN is the overlay's link, nil for none.
	VXLAN *VXLAN
	// Addresses, Neighbours and Forwards are on links of ours: others on the same link are removed.
	Addresses  []Address
	Routes     []Route
	Neighbours []Neighbour
	Forwards   []Forward
	// Sysctls are set, never reset.
	Sysctls []Sysctl
}

// A VXLAN is a VXLAN tunnel endpoint (RFC 7348) without learning and without a default destination.
type VXLAN struct {
	Name string
	VNI  uint32
	Port uint16 // UDP, of all endpoints
	// Local is the source address of the outer packets. The interface that holds it is the underlay.
	Local netip.Addr
	MAC   MAC
	// MTU in bytes. 0 means the underlay's less Overhead.
	MTU int
	// Overhead is what encapsulation adds, in bytes.
	Overhead int
}

// A MAC is a 48 bit hardware address.
type MAC [6]byte

// String is the usual form, 02:00:5e:10:00:01.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// LocalMAC makes a unicast, locally administered address of the first 6 bytes of b (IEEE 802, 8.4).
func LocalMAC(b []byte) MAC {
	m := MAC(b[:6])
	m[0] = m[0]&^1 | 2
	return m
}

// An Address is an IP address on a device.
type Address struct {
	Device string
	Prefix netip.Prefix
}

// A Route is a unicast or unreachable route in the main table.
type Route struct {
	Dst netip.Prefix
	// Unreachable routes have neither Device nor Via: packets to Dst get an ICMP error.
	Unreachable bool
	Device      string
	// Via is the next hop, taken to be on the link whatever the addresses there. The zero Addr means that Dst
	// itself is on the link.
	Via netip.Addr
	// Src is the source address that the host prefers for Dst, or the zero Addr.
	Src netip.Addr
}

// A Neighbour is a permanent ARP or NDP entry.
type Neighbour struct {
	Device string
	Addr   netip.Addr
	MAC    MAC
}

// A Forward is a permanent forwarding entry of a VXLAN: frames to MAC go to the endpoint at Dst.
type Forward struct {
	Device string
	MAC    MAC
	Dst    netip.Addr
}

// A Sysctl is a kernel parameter. IPv6 ones are passed over on hosts without IPv6.
type Sysctl struct {
	// Name is the path below /proc/sys, for example net/ipv4/ip_forward.
	Name  string
	Value string
	// Only, if not empty, is the one present value that is to be changed.
	Only string
}

// A Pod is the link between a node and one pod: a veth pair, with what belongs to its two ends.
type Pod struct {
	// HostName and HostMAC are of the end on the node.
	HostName string
	HostMAC  MAC
	// Name and MAC are of the end in the pod.
	Name string
	MAC  MAC
	// MTU in bytes, of both ends.
	MTU int
	// Host and Inside are what the two ends should have.
	Host, Inside State
}

// An Underlay is the interface that holds a node's address.
type Underlay struct {
	Name  string
	Index int
	MTU   int // bytes
	MAC   MAC // zero where the interface has none
}
