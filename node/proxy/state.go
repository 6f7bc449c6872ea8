package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/kernel/link"
)

// Settings are what an administrator chooses for the datapath.
type Settings struct {
	// Overlay is the name of the overlay's interface. Packets from outside of the pod ranges that leave by it
	// are masqueraded, so that the answer comes back the same way. Empty: there is no overlay.
	Overlay string
	// BalancerClasses are values of spec.loadBalancerClass of other load balancers. The addresses in the status of their
	// Services are served as kube-proxy does: those of ipMode VIP, not those of ipMode Proxy (KEP-1860). "*" stands for each
	// class and for none, "" for none. By default no status is believed: who may write one could take any address.
	BalancerClasses []string
	// OwnPorts are the ports of nodes that no endpoint may have, and no pod as its host port.
	OwnPorts model.OwnPorts
	// HostPorts are those of this node's pods, the oldest first: of two that claim one frontend the older one has it.
	HostPorts []HostPort
	// ExternalIPs serves spec.externalIPs. By default they are not: who may write a Service could take any address.
	ExternalIPs bool
	// NodePortSourceRanges applies spec.loadBalancerSourceRanges to the NodePorts of those Services too.
	NodePortSourceRanges bool
	// NodePortRanges are where the addresses of this node have to be for NodePorts, see ParseNodePortAddresses;
	// NodePortPrimary adds the node's first InternalIP of each family. Without both it is all addresses.
	NodePortRanges  []netip.Prefix
	NodePortPrimary bool
	// ResetGone resets TCP connections to endpoints that are gone, where a Service's annotation does not say otherwise.
	ResetGone bool
	// LocalAddresses are all addresses of this node: no host port may have another one, and no Service one of them.
	LocalAddresses []netip.Addr
}

// A HostPort is a port of this node that leads to one of its pods (ports[].hostPort of a container).
type HostPort struct {
	// Addr is an address of the node. The zero Addr is all of them, an unspecified one all of its family.
	Addr     netip.Addr
	Protocol Protocol
	Port     uint16
	// Pods are the pod's addresses, at most one of each family, and PodPort the port there.
	Pods    []netip.Addr
	PodPort uint16
	// Owner names the pod; the zero Key if that is not known.
	Owner model.Key
}

// DefaultSettings returns the settings that hold where nothing else is said.
func DefaultSettings() Settings {
	return Settings{Overlay: link.OverlayName, OwnPorts: model.DefaultOwnPorts()}
}

// A Protocol is an IP protocol number.
type Protocol uint8

// The protocols that a Service port can have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String is the protocol's name in lower case, as nft writes it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return "unknown"
}

// A Frontend is where a Service is reached. The unspecified address (0.0.0.0 or ::) stands for each address of
// this node: such a frontend is a NodePort.
type Frontend struct {
	Addr     netip.Addr
	Protocol Protocol
	Port     uint16
}

// NodePort says whether f is a NodePort.
func (f Frontend) NodePort() bool { return f.Addr.IsUnspecified() }

// Compare orders frontends by address, protocol and port.
func (f Frontend) Compare(o Frontend) int {
	return cmp.Or(f.Addr.Compare(o.Addr), cmp.Compare(f.Protocol, o.Protocol), cmp.Compare(f.Port, o.Port))
}

// Backends are the endpoints behind a Frontend, sorted, all of the frontend's address family. They differ by the
// source of a connection where externalTrafficPolicy is Local.
type Backends struct {
	// Outside is for sources that are neither pods nor this node. Where it is empty and Inside is not, packets
	// from outside are dropped. Where both are empty the frontend is refused.
	Outside []netip.AddrPort
	// Inside is for the cluster's pods and this node.
	Inside []netip.AddrPort
	// Elsewhere is set where both are empty, and other nodes have endpoints, which this frontend must not lead to
	// (internalTrafficPolicy Local). All packets are then dropped.
	Elsewhere bool
	// Sources are the only addresses that may connect, pods included; sorted, none contains another. Nil is
	// everybody, and empty is nobody.
	Sources []netip.Prefix
	// Affinity is how long a source stays with the endpoint of its last connection, in whole seconds; 0 is not at
	// all.
	Affinity time.Duration
	// Choice is how a connection comes to one of the endpoints, where Affinity does not say it.
	Choice Choice
	// Keep are further endpoints, of the frontend's family and sorted: they get no new connections, and those that they
	// have go on. The kernel's rules do not know them. See serviceBuilder.keep.
	Keep []netip.AddrPort
	// Reset says that TCP connections to endpoints that are gone are reset.
	Reset bool
}

// Empty says that no source gets an endpoint, and that there is none elsewhere: the frontend is refused.
func (b Backends) Empty() bool { return len(b.Outside) == 0 && len(b.Inside) == 0 && !b.Elsewhere }

// Differ says whether sources inside get other endpoints than those outside.
func (b Backends) Differ() bool { return !slices.Equal(b.Outside, b.Inside) }

// Equal says whether b and o do the same with every new connection.
func (b Backends) Equal(o Backends) bool {
	return slices.Equal(b.Outside, o.Outside) && slices.Equal(b.Inside, o.Inside) &&
		slices.Equal(b.Sources, o.Sources) && (b.Sources == nil) == (o.Sources == nil) && b.Affinity == o.Affinity && b.Choice == o.Choice && b.Elsewhere == o.Elsewhere
}

// A Set is a set of comparable things.
type Set[T comparable] map[T]struct{}

// State is all that the datapath of a node holds. Nobody changes it once Build returned it.
type State struct {
	Frontends map[Frontend]Backends
	// Owners are the Services that the frontends belong to. The kernel does not know them.
	Owners map[Frontend]model.Key
	// HostPorts are the pods that frontends belong to, the zero Key where the name is not known.
	HostPorts map[Frontend]model.Key
	// Addresses are the Services' own addresses, ClusterIPs and VIPs. What goes to one and is no frontend, or one
	// without endpoints, is refused, and never forwarded.
	Addresses Set[netip.Addr]
	// Externals are addresses that lead to Services without being their own: externalIPs, and those of other load
	// balancers. Only what is said of their frontends is said of them.
	Externals Set[netip.Addr]
	// Others are ClusterIPs of Services that another proxy serves (service-proxy-name).
	Others Set[netip.Addr]
	// ServiceRanges are the ServiceCIDRs of the cluster; none contains another. What goes there, is translated by
	// nobody and goes to none of Addresses and Others, is dropped.
	ServiceRanges Set[netip.Prefix]
	// NodePortRanges are where this node's addresses have to be for NodePorts; none contains another.
	NodePortRanges Set[netip.Prefix]
	// Pings maps each VIP to the address of this node that answers its ICMP echo requests.
	Pings map[netip.Addr]netip.Addr
	// PodRanges are the pod CIDRs of the cluster; none contains another. Between them nothing is masqueraded.
	PodRanges Set[netip.Prefix]
	// Hairpins are the local pods that may reach themselves by a Service: then, and only then, a packet to a local
	// pod is masqueraded, since a pod takes no packet from its own address.
	Hairpins Set[netip.Addr]
	// Overlays are the names of interfaces that lead to the pods of other nodes.
	Overlays Set[string]
}

func newState() State {
	return State{
		Frontends: map[Frontend]Backends{},
		Owners:    map[Frontend]model.Key{},
		HostPorts: map[Frontend]model.Key{},
		Addresses: Set[netip.Addr]{},
		Externals: Set[netip.Addr]{},
		Others:    Set[netip.Addr]{},
		Pings:     map[netip.Addr]netip.Addr{},
		PodRanges: Set[netip.Prefix]{},
		Hairpins:  Set[netip.Addr]{},
		Overlays:  Set[string]{},

		ServiceRanges:  Set[netip.Prefix]{},
		NodePortRanges: Set[netip.Prefix]{},
	}
}

// AddEndpoints adds to the set of each of these Services the addresses of its endpoints, and of those that keep what they have,
// whichever of its frontends has them.
func (s State) AddEndpoints(of map[model.Key]Set[netip.Addr]) {
	if len(of) == 0 {
		return
	}
	for f, owner := range s.Owners {
		into := of[owner]
		if into == nil {
			continue
		}
		b := s.Frontends[f]
		for _, e := range slices.Concat(b.Outside, b.Inside, b.Keep) {
			into[e.Addr()] = struct{}{}
		}
	}
}
