package overlay

import (
	"crypto/sha256"
	"net/netip"

	"hythe.dev/hythe/node/kernel/link"
)

// State is what the node's network namespace should have for the overlay. It is text by String.
type State = link.State

// The modes of an overlay.
const (
	// VXLAN encapsulates all packets between pods of different nodes.
	VXLAN = "vxlan"
	// None leaves the network between nodes to others.
	None = "none"
)

// Bytes that VXLAN adds to a packet: the inner Ethernet header, VXLAN, UDP and IP (RFC 7348, section 5).
const (
	overheadIPv4 = 14 + 8 + 8 + 20
	overheadIPv6 = 14 + 8 + 8 + 40
)

// Settings are the same on all nodes. The zero Settings mean the defaults.
type Settings struct {
	// Mode is VXLAN, which is the default, or None.
	Mode string
	// VNI is the VXLAN network identifier, 24 bits; 0 means 72.
	VNI uint32
	// Port is the UDP port; 0 means 4789, the one of IANA.
	Port uint16
	// MTU in bytes of the overlay and of pods; 0 means the underlay's less what encapsulation adds.
	MTU int
}

const (
	defaultVNI  = 72
	defaultPort = 4789
)

func (s Settings) withDefaults() Settings {
	if s.Mode == "" {
		s.Mode = VXLAN
	}
	if s.VNI == 0 {
		s.VNI = defaultVNI
	}
	if s.Port == 0 {
		s.Port = defaultPort
	}
	return s
}

// PodMTU returns the MTU in bytes of a pod's link on a node with the given address, on an underlay of that MTU.
func PodMTU(settings Settings, node netip.Addr, underlay int) int {
	switch {
	case settings.MTU != 0:
		return settings.MTU
	case settings.Mode == None:
		return underlay
	default:
		return underlay - overhead(node)
	}
}

func overhead(node netip.Addr) int {
	if node.Is6() {
		return overheadIPv6
	}
	return overheadIPv4
}

// nodeMAC is the hardware address of a node's end of the overlay.
func nodeMAC(node string) link.MAC {
	sum := sha256.Sum256([]byte(link.OverlayName + "/" + node))
	return link.LocalMAC(sum[:])
}
