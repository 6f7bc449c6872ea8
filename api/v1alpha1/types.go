// Package v1alpha1 holds the custom resources of the group hythe.dev.
//
// They are few, cluster-scoped and short. Administrators write AddressPools; Hythe's controller alone writes
// AddressClaims; each gateway and node writes one Report about itself.
package v1alpha1

import (
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// Group is the API group of all custom resources.
	Group = "hythe.dev"
	// Version is the version of this package.
	Version = "v1alpha1"
	// APIVersion is what stands in the apiVersion field of each object.
	APIVersion = Group + "/" + Version

	// IngressController is the value of IngressClass.spec.controller that makes a class Hythe's.
	IngressController = Group + "/ingress"
	// CatchAllAnnotation on an IngressClass lists the namespaces, comma separated, whose Ingresses of this class may
	// serve hosts that nobody names: by rules without a host, and by a default backend. "*" means all.
	CatchAllAnnotation = Group + "/catch-all-namespaces"
	// LoadBalancerClass is the value of Service.spec.loadBalancerClass that makes a Service Hythe's.
	LoadBalancerClass = Group + "/lb"
	// FieldManager is how the API server names what Hythe wrote in managedFields: the begin of the User-Agent.
	FieldManager = "hythe"
	// CleanupFinalizer is carried by a Service while a load balancer has something for it (KEP-980). All implementations
	// share its name, so it is Hythe's only on Services that are Hythe's.
	CleanupFinalizer = "service.kubernetes.io/load-balancer-cleanup"
	// AddressesAnnotation on a Service asks for particular addresses, comma separated, at most one per family.
	AddressesAnnotation = Group + "/addresses"
	// PoolAnnotation on a Service asks for an address from the pool of this name.
	PoolAnnotation = Group + "/address-pool"
	// ProbeAnnotation on a Service tells nodes how to see that its local endpoints work:
	// "tcp" (the default: a connection to each endpoint port) or "http:PORT/PATH" (a GET that answers 200).
	ProbeAnnotation = Group + "/probe"
	// EndpointChoiceAnnotation on a Service says how connections come to one of its endpoints: EndpointChoiceRandom (the
	// default), EndpointChoiceSource or EndpointChoiceSourcePort.
	EndpointChoiceAnnotation = Group + "/endpoint-choice"
	// EndpointChoiceRandom chooses anew for each connection.
	EndpointChoiceRandom = "random"
	// EndpointChoiceSource chooses by a hash of the source address, the same on each node.
	EndpointChoiceSource = "source-hash"
	// EndpointChoiceSourcePort chooses by a hash of source address and port, the same on each node.
	EndpointChoiceSourcePort = "source-port-hash"
	// ProxyProtocolAnnotation on a Service is the version of the PROXY protocol, v1 or v2, with which the gateway begins
	// connections to it: those of TCP that are exposed by port or passed through, but not those for requests.
	ProxyProtocolAnnotation = Group + "/proxy-protocol"
	// HealthCheckAnnotation on a Service makes each gateway ask its endpoints: a path, as /healthz, that is answered 200; tcp;
	// or grpc (grpc.health.v1). HealthIntervalAnnotation is the time between two checks in seconds; 10 if absent.
	HealthCheckAnnotation    = Group + "/health-check"
	HealthIntervalAnnotation = Group + "/health-check-seconds"
	// EjectAfterAnnotation on a Service is the number of answers of 500 and more in a row after which an endpoint gets no request
	// for some seconds.
	EjectAfterAnnotation = Group + "/eject-after-errors"
	// MaxConnectionsAnnotation and MaxRequestsAnnotation on a Service bound what one gateway has open to it.
	MaxConnectionsAnnotation = Group + "/max-connections"
	MaxRequestsAnnotation    = Group + "/max-requests"
	// SlowStartAnnotation on a Service is for how many seconds a new endpoint gets less than its share.
	SlowStartAnnotation = Group + "/slow-start-seconds"
	// EndpointGoneAnnotation on a Service says what becomes of TCP connections to endpoints that are gone: EndpointGoneReset
	// or EndpointGoneKeep. Without it the node's setting holds.
	EndpointGoneAnnotation = Group + "/endpoint-gone"
	// EndpointGoneReset resets them at once.
	EndpointGoneReset = "reset"
	// EndpointGoneKeep leaves them to their ends, which notice when they wait for an answer.
	EndpointGoneKeep = "keep"
)

// An AddressPool is a set of addresses that LoadBalancer Services may be given.
type AddressPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AddressPoolSpec   `json:"spec"`
	Status AddressPoolStatus `json:"status,omitempty"`
}

// AddressPoolSpec says which addresses a pool has and who gets them.
type AddressPoolSpec struct {
	// Addresses are ranges ("203.0.113.10-203.0.113.19", both ends included), CIDRs ("203.0.113.32/28", all
	// addresses of it) or single addresses, of either family.
	Addresses []string `json:"addresses"`
	// AutoAssign says whether Services that ask for nothing get an address from this pool. Default true.
	AutoAssign *bool `json:"autoAssign,omitempty"`
	// Priority orders pools for Services that ask for nothing: the highest first, then by name.
	Priority int32 `json:"priority,omitempty"`
}

// AddressPoolStatus counts the addresses of a pool.
type AddressPoolStatus struct {
	Addresses int64 `json:"addresses"`
	Claimed   int64 `json:"claimed"`
}

// An AddressClaim records that an address is given to Services. It is named by the address (see ClaimName), so
// that an API server can create it only once, whoever tries.
type AddressClaim struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec AddressClaimSpec `json:"spec"`
}

// AddressClaimSpec says which address is whose.
type AddressClaimSpec struct {
	// Address is the address itself, for example "203.0.113.10".
	Address string `json:"address"`
	// Pool is the name of the AddressPool that the address was taken from.
	Pool string `json:"pool"`
	// Services use the address. More than one entry means that they share it.
	Services []ServiceRef `json:"services"`
	// Announce lists how nodes announce the address: "arp".
	Announce []string `json:"announce,omitempty"`
}

// A ServiceRef names a Service.
type ServiceRef struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// ClaimName is the object name of the claim for addr. IPv6 is spelt out in full with dashes, since names may
// hold neither colons nor a leading or trailing dash (RFC 1123 subdomain).
func ClaimName(addr netip.Addr) string {
	addr = addr.Unmap()
	if addr.Is4() {
		return addr.String()
	}
	return strings.ReplaceAll(addr.WithZone("").StringExpanded(), ":", "-")
}

// A Report is what one gateway or node says about itself. It is named "COMPONENT-NODE".
type Report struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Component is "gateway" or "node".
	Component string `json:"component"`
	// Node is the name of the node that it runs on.
	Node string `json:"node"`
	// Ready says whether the full configuration was acknowledged by Envoy, or is in the kernel.
	Ready bool `json:"ready"`
	// Network says that Hythe is the network of this node's pods, and that it is in place; only from nodes.
	Network bool `json:"network,omitempty"`
	// BootID is status.nodeInfo.bootID of the Node as the agent saw it when Network was so; only from nodes.
	BootID string `json:"bootID,omitempty"`
	// Ingresses lists, as namespace/name, what Envoy acknowledged; only from gateways.
	Ingresses []string `json:"ingresses,omitempty"`
	// Addresses lists the VIPs that this node owns; only from nodes.
	Addresses []string `json:"addresses,omitempty"`
	// Problems are what this component could not do.
	Problems []ReportedProblem `json:"problems,omitempty"`
}

// A ReportedProblem is a model.Problem in an object.
type ReportedProblem struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Reason    string `json:"reason"`
	Message   string `json:"message"`
}
