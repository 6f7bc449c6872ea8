package ruleset

// The reasons for which the table refuses or drops a packet. Each has a counter of that name in the table.
const (
	// NoEndpoint: the Service has no endpoint that may be used. Refused.
	NoEndpoint = "no-endpoint"
	// NoLocalEndpoint: externalTrafficPolicy or internalTrafficPolicy is Local, and this node has no endpoint while
	// others have. Dropped.
	NoLocalEndpoint = "no-local-endpoint"
	// ClosedPort: the address is a Service's, and the port is none of the Service's. Refused.
	ClosedPort = "closed-port"
	// SourceRange: the source is in none of spec.loadBalancerSourceRanges. Dropped.
	SourceRange = "source-range"
	// Unallocated: the address is in a ServiceCIDR, and no Service has it. Dropped: an answer would be forged by whoever
	// the packet reaches.
	Unallocated = "unallocated"
	// EndpointGone: the TCP connection was to an endpoint that is gone, and its Service has such reset. Refused.
	EndpointGone = "endpoint-gone"
	// Spoofed: a pod of this node sent it from an address that is not the pod's. Dropped.
	Spoofed = "spoofed"
	// Invalid: conntrack found it out of its connection's window, or of no connection. Dropped: translated back by
	// nobody, it would end a living connection of its receiver.
	Invalid = "invalid"
)

// Reasons returns all reasons, sorted.
func Reasons() []string {
	return []string{ClosedPort, EndpointGone, Invalid, NoEndpoint, NoLocalEndpoint, SourceRange, Spoofed, Unallocated}
}
