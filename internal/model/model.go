// Package model is the world as Hythe sees it: an immutable Snapshot of the Kubernetes objects that matter.
//
// Endpoints and nodes, of which there are many, are compact types of their own. Ingress, Service and Secret are
// the k8s.io/api types; nobody mutates them. A new Snapshot shares everything unchanged with its predecessor.
//
//	files or API ── internal/kube ──> *Snapshot ──> gateway.Build, lb.Build, proxy.Build, overlay.Build
package model

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"hythe.dev/hythe/api/v1alpha1"
)

// Key names a namespaced object.
type Key = types.NamespacedName

// A Snapshot is the state of the cluster at one moment. Nil maps are empty ones. It is never changed after it
// was handed out, and neither is anything that it points to.
type Snapshot struct {
	Ingresses      Objects[*networkingv1.Ingress]
	IngressClasses map[string]*networkingv1.IngressClass
	Services       Objects[*corev1.Service]
	Endpoints      Objects[*ServiceEndpoints] // by Service
	Secrets        Objects[*corev1.Secret]
	ConfigMaps     Objects[*corev1.ConfigMap]
	Nodes          map[string]*Node
	Pools          map[string]*v1alpha1.AddressPool
	Claims         map[string]*v1alpha1.AddressClaim // by v1alpha1.ClaimName
	Reports        map[string]*v1alpha1.Report       // by "component-node"
	GatewayConfigs map[string]*v1alpha1.GatewayConfig
	// ServiceCIDRs are where ClusterIPs are taken from (networking.k8s.io/v1); there may be none that we know of.
	ServiceCIDRs map[string]*networkingv1.ServiceCIDR

	// Problems are objects that could not be read.
	Problems []Problem
	// Recalled is true of a state that an earlier process kept: what came after it is not in it.
	Recalled bool

	history *History // nil where nobody noted it
	number  uint64   // in the history
}

// A Node is what Hythe needs of a Kubernetes Node.
type Node struct {
	Name string
	// Created is the time in the object; zero where it has none, as in files.
	Created time.Time
	// Addresses are its InternalIPs, in the order of the Node object: the first of each family is used.
	Addresses []netip.Addr
	// PodCIDRs are its pod ranges (node.spec.podCIDRs), at most one of each family.
	PodCIDRs []netip.Prefix
	Labels   map[string]string
	// Unschedulable is true for a cordoned node.
	Unschedulable bool
	// Leaving is true for one that is being deleted, or that the cluster autoscaler is about to delete (KEP-3836).
	Leaving bool
	// NetworkUnavailable is the status of the condition of that name, empty where it is absent or was not asked for.
	NetworkUnavailable corev1.ConditionStatus
	// BootID tells one boot of the node from another (status.nodeInfo.bootID, by its kubelet); empty if not known.
	BootID string
}

// Address returns the node's first address of the family of which like is one, or the zero Addr.
func (n *Node) Address(is6 bool) netip.Addr {
	for _, a := range n.Addresses {
		if a.Is6() == is6 {
			return a
		}
	}
	return netip.Addr{}
}

// ServiceEndpoints are the endpoints of one Service, merged from all its EndpointSlices.
type ServiceEndpoints struct {
	// Ports is sorted by Name and Protocol.
	Ports []PortEndpoints
	// Unported is true if there are endpoints without any port: pods of which no container has the port that the
	// Service's targetPort names.
	Unported bool
}

// PortEndpoints are the endpoints behind one Service port, named as in the Service.
type PortEndpoints struct {
	Name     string
	Protocol corev1.Protocol
	// Endpoints is sorted by address and port and has no duplicates.
	Endpoints []Endpoint
}

// An Endpoint is one address and port of a pod. The three conditions are those of discovery.k8s.io/v1 with
// their defaults applied: Ready is never true for a terminating endpoint, Serving is readiness regardless of it.
type Endpoint struct {
	AddrPort    netip.AddrPort
	Node        string // the name of the node, may be empty
	Pod         string // the name of the pod, in the Service's namespace; may be empty
	Ready       bool
	Serving     bool
	Terminating bool
	Hints       *Hints // nil: for everybody
}

// Hints say for whom an endpoint is best (EndpointHints of discovery.k8s.io/v1; KEP-2433, KEP-3015). Endpoints share them.
type Hints struct {
	Zones []string // values of the node label topology.kubernetes.io/zone
	Nodes []string // names
}

// For says whether h names the zone, or the node.
func (h *Hints) For(zone, node string) (sameZone, sameNode bool) {
	return h != nil && slices.Contains(h.Zones, zone), h != nil && slices.Contains(h.Nodes, node)
}

// Compare orders endpoints by address and port.
func (e Endpoint) Compare(o Endpoint) int { return e.AddrPort.Compare(o.AddrPort) }

// Port returns the endpoints of the named port, nil if there is none.
func (s *ServiceEndpoints) Port(name string, protocol corev1.Protocol) []Endpoint {
	if s == nil {
		return nil
	}
	for i := range s.Ports {
		if s.Ports[i].Name == name && s.Ports[i].Protocol == protocol {
			return s.Ports[i].Endpoints
		}
	}
	return nil
}

// ProtocolOf returns the protocol of a Service port with its default applied: files need not name it.
func ProtocolOf(port *corev1.ServicePort) corev1.Protocol {
	return cmp.Or(port.Protocol, corev1.ProtocolTCP)
}

// Usable selects those endpoints that new connections should go to: the ready ones or, when there are none,
// those that are terminating but still serve (KEP-1669).
func Usable(endpoints []Endpoint) []Endpoint {
	var ready, serving []Endpoint
	for _, e := range endpoints {
		switch {
		case e.Ready:
			ready = append(ready, e)
		case e.Serving && e.Terminating:
			serving = append(serving, e)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return serving
}

// Near selects of usable endpoints those that are best for a node, if their hints can be followed: all ready ones have some
// of a kind, and at least one of them names this node, or its zone. The node comes before the zone. Else it returns all of
// them: hints that are not complete may be of a moment in which they change, and endpoints without any would get no traffic.
// Those that terminate are the last ones there are, and are taken wherever they run.
func Near(node *Node, usable []Endpoint) []Endpoint {
	if node == nil || len(usable) == 0 || !usable[0].Ready {
		return usable
	}
	zone := node.Labels[corev1.LabelTopologyZone]
	allNodes, allZones := true, true
	var onNode, inZone []Endpoint
	for _, e := range usable {
		allNodes = allNodes && e.Hints != nil && len(e.Hints.Nodes) > 0
		allZones = allZones && e.Hints != nil && len(e.Hints.Zones) > 0
		if !allNodes && !allZones {
			return usable
		}
		sameZone, sameNode := e.Hints.For(zone, node.Name)
		if sameNode {
			onNode = append(onNode, e)
		}
		if sameZone {
			inZone = append(inZone, e)
		}
	}
	switch {
	case allNodes && len(onNode) > 0:
		return onNode
	case allZones && len(inZone) > 0 && zone != "":
		return inZone
	}
	return usable
}

// On selects the endpoints on the named node.
func On(node string, endpoints []Endpoint) []Endpoint {
	var out []Endpoint
	for _, e := range endpoints {
		if e.Node == node {
			out = append(out, e)
		}
	}
	return out
}

// SortedKeys returns the keys of m ordered by namespace and name, so that Build functions are deterministic.
func SortedKeys[V any](m map[Key]V) []Key {
	return slices.SortedFunc(maps.Keys(m), CompareKeys)
}

// CompareKeys orders keys by namespace and name.
func CompareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// CompareAge orders creation times, the oldest first. Objects without one, as in files, come last.
func CompareAge(a, b time.Time) int {
	if a.IsZero() != b.IsZero() {
		if a.IsZero() {
			return 1
		}
		return -1
	}
	return a.Compare(b)
}
