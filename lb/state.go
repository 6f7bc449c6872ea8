package lb

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// AnnounceARP is the value in AddressClaimSpec.Announce for addresses that nodes announce by ARP (RFC 826).
const AnnounceARP = "arp"

// Settings are what an administrator decides for the whole cluster. The zero value is usable.
type Settings struct {
	// WithoutClass makes LoadBalancer Services that name no spec.loadBalancerClass Hythe's.
	WithoutClass bool
	// Shared says that others may write the status of Services too, as with an API server. Of the Services without a
	// class those whose status names somebody else's address are left alone.
	Shared bool
	// Release gives everything back: no Service is served, and none carries the finalizer.
	Release bool
	// GatewayService names the Service of the gateways. Its addresses are written to the status of Ingresses.
	GatewayService model.Key
}

// A State is what the controller should write. All lists are sorted and without duplicates.
type State struct {
	// Claims are all AddressClaims that should exist; others should be deleted. Those that exist already and
	// need no change are the very objects of the snapshot.
	Claims []*v1alpha1.AddressClaim
	// Services is the status of Hythe's LoadBalancer Services, and of those that just ceased to be.
	Services []ServiceStatus
	// Ingresses is the status of all Ingresses that a gateway serves.
	Ingresses []IngressStatus
	// Pools is the status of each AddressPool.
	Pools []PoolStatus
}

// A ServiceStatus is status.loadBalancer.ingress of one Service; no entries clear it. Finalizer says whether the Service
// carries v1alpha1.CleanupFinalizer. Yielded says that another controller serves it from now on: what is left of the
// finalizer is taken off if it was Hythe who set it.
type ServiceStatus struct {
	Service   model.Key
	Ingress   []corev1.LoadBalancerIngress
	Finalizer bool
	Yielded   bool
}

// An IngressStatus is status.loadBalancer.ingress of one Ingress.
type IngressStatus struct {
	Ingress   model.Key
	Addresses []networkingv1.IngressLoadBalancerIngress
}

// A PoolStatus is the status of one AddressPool.
type PoolStatus struct {
	Pool   string
	Status v1alpha1.AddressPoolStatus
}

// Reasons of the Problems that Build and VIPs return.
const (
	ReasonInvalidAddresses     = "InvalidAddresses"     // an entry of a pool cannot be read or used
	ReasonOverlappingAddresses = "OverlappingAddresses" // an entry of a pool overlaps another, pods or ClusterIPs
	ReasonNodeAddress          = "NodeAddress"          // a pool holds the address of a node
	ReasonInvalidClaim         = "InvalidClaim"         // a claim's name and address do not agree
	ReasonInvalidRequest       = "InvalidRequest"       // a Service asks for addresses in a way that cannot be read
	ReasonPoolNotFound         = "PoolNotFound"         // a Service asks for a pool that does not exist
	ReasonPoolExhausted        = "PoolExhausted"        // no pool has a free address
	ReasonAddressNotInPool     = "AddressNotInPool"     // a requested address is in no pool
	ReasonAddressInUse         = "AddressInUse"         // a requested address belongs to somebody else
	ReasonOutOfPool            = "OutOfPool"            // a claimed address is no longer in a pool; it is kept
	ReasonNotAnnounced         = "NotAnnounced"         // nothing announces addresses of this family yet
	ReasonServedByAnother      = "ServedByAnother"      // another controller writes the status of a Service without class
	ReasonNotTaken             = "NotTaken"             // nobody serves a Service without class, which is not Hythe's here
	ReasonInvalidProbe         = "InvalidProbe"         // v1alpha1.ProbeAnnotation cannot be read
)
