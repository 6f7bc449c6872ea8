package asked

import (
	"net/netip"
	"time"
)

// A ServiceAnswer is what a node knows of a Service from its Snapshot, and of the nodes that its endpoints are on.
type ServiceAnswer struct {
	Decider
	Type string `json:"type"`
	// Class is spec.loadBalancerClass.
	Class string `json:"class,omitempty"`
	// Local says that externalTrafficPolicy is Local.
	Local      bool         `json:"local,omitempty"`
	ClusterIPs []netip.Addr `json:"clusterIPs,omitempty"`
	// VIPs are those that claims give it.
	VIPs  []ClaimAnswer `json:"vips,omitempty"`
	Ports []PortAnswer  `json:"ports"`
	Nodes []NodeAnswer  `json:"nodes"`
	// From is where the pod is that the query names by pod=NAMESPACE/NAME; the zero value if no endpoint is that pod.
	From EndpointAnswer `json:"from,omitzero"`
}

// A ClaimAnswer is an AddressClaim.
type ClaimAnswer struct {
	Decider
	Addr netip.Addr `json:"addr"`
	Pool string     `json:"pool"`
	// Announce is how; empty where nobody announces the address.
	Announce []string `json:"announce,omitempty"`
}

// A PortAnswer is one port of a Service with its endpoints.
type PortAnswer struct {
	Name      string           `json:"name,omitempty"`
	Port      uint16           `json:"port"`
	NodePort  uint16           `json:"nodePort,omitempty"`
	Protocol  string           `json:"protocol"` // "tcp", "udp" or "sctp"
	Endpoints []EndpointAnswer `json:"endpoints"`
}

// An EndpointAnswer is an endpoint of a Service's EndpointSlices.
type EndpointAnswer struct {
	Address netip.AddrPort `json:"address"`
	Node    string         `json:"node,omitempty"`
	Pod     string         `json:"pod,omitempty"`
	Ready   bool           `json:"ready"`
	// Usable says that new connections go to it.
	Usable bool `json:"usable"`
}

// A NodeAnswer is a Node object.
type NodeAnswer struct {
	Name      string         `json:"name"`
	Addresses []netip.Addr   `json:"addresses"`
	PodCIDRs  []netip.Prefix `json:"podCIDRs"`
}

// A VIPAnswer is what one node knows of a VIP and does about it.
type VIPAnswer struct {
	// Claimed says that the node knows an AddressClaim that is to be announced.
	Claimed bool `json:"claimed"`
	// Without says that this node announces nothing at all: it has no heartbeat key, or runs --without-lb.
	Without   bool   `json:"without,omitempty"`
	Local     bool   `json:"local,omitempty"` // only a node with a working backend may own it
	Interface string `json:"interface,omitempty"`
	MAC       string `json:"mac,omitempty"`
	Up        bool   `json:"up"`
	Owned     bool   `json:"owned"`
	// Generation is the one in which it owns the VIP, or the highest that it knows.
	Generation uint64 `json:"generation"`
	// Healthy is the node's own probe of its backends; always true unless Local.
	Healthy   bool `json:"healthy"`
	Draining  bool `json:"draining,omitempty"`
	Blocked   bool `json:"blocked,omitempty"`   // a foreign host answered for the address
	Asking    bool `json:"asking,omitempty"`    // the LAN is being asked whether the address is free
	Listening bool `json:"listening,omitempty"` // the process has just begun
	// Problem is why the VIP is not announced, or contested.
	Problem string         `json:"problem,omitempty"`
	Probes  []ProbeAnswer  `json:"probes,omitempty"`
	Members []MemberAnswer `json:"members,omitempty"`
}

// A ProbeAnswer is how one backend of this node did the last time.
type ProbeAnswer struct {
	Target string `json:"target"` // "10.244.1.1:8081/ready"
	Good   bool   `json:"good"`
	Error  string `json:"error,omitempty"`
}

// A MemberAnswer is another node in the member table of the one that was asked, and what it said about the VIP last.
type MemberAnswer struct {
	Node string `json:"node"`
	// Alive is false for a node of which nothing is heard.
	Alive      bool          `json:"alive"`
	Heard      time.Duration `json:"heard"` // time since its last heartbeat
	Held       bool          `json:"held,omitempty"`
	MACs       []string      `json:"macs,omitempty"`
	Owned      bool          `json:"owned"`
	Generation uint64        `json:"generation"`
	Healthy    bool          `json:"healthy"`
}

// An ARPAnswer is who answered on the wire when a node asked who has an address.
type ARPAnswer struct {
	Interface string        `json:"interface"`
	Replies   []ARPReply    `json:"replies"`
	Waited    time.Duration `json:"waited"`
}

// An ARPReply is one host's answer.
type ARPReply struct {
	MAC string `json:"mac"`
	// Node is the one whose MAC that is by its heartbeats, empty for a host that is none.
	Node  string        `json:"node,omitempty"`
	After time.Duration `json:"after"`
}

// A FrontendAnswer is what the kernel of a node does with connections to an address and port, beside what Build wants.
type FrontendAnswer struct {
	Kernel Frontend `json:"kernel"`
	Want   Frontend `json:"want"`
	// Source is what the kernel takes the source for: "node", "pod" or "outside".
	Source string `json:"source"`
	// Without says that this node leaves Services to another proxy.
	Without bool `json:"without,omitempty"`
	// Firewall are chains of somebody else on this node that drop packets.
	Firewall []ForeignChain `json:"firewall,omitempty"`
}

// A Frontend is what a datapath does with a connection.
type Frontend struct {
	// Verdict is one of readback.Lookup's: "forwarded", "refused", "dropped", "not a Service".
	Verdict string `json:"verdict"`
	// Why names the element that decided it.
	Why string `json:"why,omitempty"`
	// Endpoints are those that connections are sent to, sorted.
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
	// Choice says that a hash chooses one of them, "by source" for example, and Chosen which one for this source; the zero
	// AddrPort where it depends on the source port too. Stays is the one that this source has by session affinity.
	Choice string         `json:"choice,omitempty"`
	Chosen netip.AddrPort `json:"chosen,omitzero"`
	Stays  netip.AddrPort `json:"stays,omitzero"`
	// Masquerade says to how many of them the source's address is hidden.
	Masquerade int `json:"masquerade,omitempty"`
}

// A RouteAnswer is a node's way to an address, as its kernel would take it, beside what Build wants.
type RouteAnswer struct {
	// Kind is link.ReadRoute's: "unicast", "local", "unreachable", "none".
	Kind string `json:"kind"`
	// Kernel and Want are the objects that count (a route, a neighbour, a forwarding entry), in the words of ip(8) and
	// bridge(8). Want is empty where the way is nobody's business but the administrator's.
	Kernel []string `json:"kernel"`
	Want   []string `json:"want,omitempty"`
	// Device is the one that the packet leaves by, and State how it is if it does not work.
	Device string `json:"device,omitempty"`
	State  string `json:"state,omitempty"`
	// Peer is the other end of the overlay for it, the zero Addr where it does not go through the overlay.
	Peer netip.Addr `json:"peer,omitzero"`
	MTU  int        `json:"mtu,omitempty"`
	// Probe is what came of a packet to the other end of the overlay, nil where none was sent.
	Probe *OverlayProbe `json:"probe,omitempty"`
}

// A PodAnswer is a pod's link on its node, and whether it answers.
type PodAnswer struct {
	// HostNetwork says that the address is the node's own.
	HostNetwork bool `json:"hostNetwork,omitempty"`
	// Plugin says that Hythe's CNI plugin attaches pods on this node.
	Plugin bool `json:"plugin,omitempty"`
	// Container has the address by the plugin's leases; empty if nobody has. Since is when it was attached.
	Container string    `json:"container,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	// Link is the node's end of the pod's link.
	Link   string `json:"link,omitempty"`
	Exists bool   `json:"exists"`
	Up     bool   `json:"up"`
	// Missing is what the node's end lacks of what Build wants, one change a line.
	Missing []string `json:"missing,omitempty"`
	// Connected says that a TCP connection from the pod's node to the port came about. Asked is false for UDP and SCTP.
	Asked     bool          `json:"asked"`
	Connected bool          `json:"connected"`
	After     time.Duration `json:"after"`
	Error     string        `json:"error,omitempty"` // why not
	// Firewall are chains of somebody else on the pod's node that drop packets.
	Firewall []ForeignChain `json:"firewall,omitempty"`
}

// A ForeignChain is a chain of nftables that is not Hythe's and drops or refuses packets; see readback.Dropper.
type ForeignChain struct {
	Family string   `json:"family"`
	Table  string   `json:"table"`
	Chain  string   `json:"chain"`
	Hooks  []string `json:"hooks,omitempty"`
}

// An OverlayProbe is what came of a packet that was sent through the overlay.
type OverlayProbe struct {
	// To is the end of the overlay on the other node.
	To    netip.Addr    `json:"to"`
	After time.Duration `json:"after"`
	Error string        `json:"error,omitempty"`
}
