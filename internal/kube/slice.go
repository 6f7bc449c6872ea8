package kube

import (
	"net/netip"
	"slices"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
)

// An endpointSlice is what a Snapshot has of a discovery.k8s.io/v1 EndpointSlice. There may be hundreds of thousands of endpoints,
// of which the API's type takes three times as much: here they are as in the Snapshot, which shares them where it can.
// Nobody changes one. The name, the namespace, the UID and the time are in the ObjectMeta, and nothing else.
type endpointSlice struct {
	metav1.ObjectMeta

	service string // that it is of; empty for none
	ports   []slicePort
	// endpoints are sorted by address, those of one in their order. Their port is the first of ports, 0 if there is none: pods
	// of which no container has the port that the Service's targetPort names.
	endpoints []model.Endpoint
	// names are those in ports and endpoints that other slices have too. The value of a Handle is kept once only as long as
	// somebody has the Handle.
	names []unique.Handle[string]
}

// name returns a copy of a name which is the same one in all slices.
func (s *endpointSlice) name(text string) string {
	if text == "" {
		return ""
	}
	h := unique.Make(text)
	if !slices.Contains(s.names, h) {
		s.names = append(s.names, h)
	}
	return h.Value()
}

// A slicePort is a port of an EndpointSlice.
type slicePort struct {
	name     string
	protocol corev1.Protocol
	number   uint16
}

// compact returns what is kept of an EndpointSlice, and each other object as it is.
func compact(object metav1.Object) metav1.Object {
	if o, ok := object.(*discoveryv1.EndpointSlice); ok {
		return compactSlice(o)
	}
	return object
}

// compactSlice returns what is kept of an EndpointSlice. Names of hosts are no endpoints, nor is what cannot be read.
func compactSlice(o *discoveryv1.EndpointSlice) *endpointSlice {
	s := &endpointSlice{service: o.Labels[discoveryv1.LabelServiceName]}
	s.Namespace, s.Name, s.UID, s.CreationTimestamp = o.Namespace, o.Name, o.UID, o.CreationTimestamp
	if o.AddressType == discoveryv1.AddressTypeFQDN {
		return s
	}
	for _, p := range o.Ports {
		if p.Port == nil || *p.Port < 1 || *p.Port > 65535 {
			continue // a nil port means all ports, which no Service uses
		}
		port := slicePort{protocol: corev1.ProtocolTCP, number: uint16(*p.Port)}
		if p.Name != nil {
			port.name = s.name(*p.Name)
		}
		if p.Protocol != nil {
			port.protocol = corev1.Protocol(s.name(string(*p.Protocol)))
		}
		s.ports = append(s.ports, port)
	}
	if len(s.ports) == 0 && len(o.Ports) > 0 {
		return s
	}
	hints, first := hintsOf{}, uint16(0)
	if len(s.ports) > 0 {
		first = s.ports[0].number
	}
	s.endpoints = make([]model.Endpoint, 0, len(o.Endpoints))
	for i := range o.Endpoints {
		if e, ok := convertEndpoint(&o.Endpoints[i], first, hints); ok {
			e.Node = s.name(e.Node)
			s.endpoints = append(s.endpoints, e)
		}
	}
	slices.SortStableFunc(s.endpoints, model.Endpoint.Compare)
	return s
}

// expand is an EndpointSlice of which compactSlice makes s.
func (s *endpointSlice) expand() *discoveryv1.EndpointSlice {
	o := &discoveryv1.EndpointSlice{ObjectMeta: s.ObjectMeta, AddressType: discoveryv1.AddressTypeIPv4}
	setType(o)
	if s.service != "" {
		o.Labels = map[string]string{discoveryv1.LabelServiceName: s.service}
	}
	for i := range s.ports {
		p := &s.ports[i]
		number := int32(p.number)
		o.Ports = append(o.Ports, discoveryv1.EndpointPort{Name: &p.name, Protocol: &p.protocol, Port: &number})
	}
	for i := range s.endpoints {
		e := &s.endpoints[i]
		if e.AddrPort.Addr().Is6() {
			o.AddressType = discoveryv1.AddressTypeIPv6
		}
		out := discoveryv1.Endpoint{Addresses: []string{e.AddrPort.Addr().String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &e.Ready, Serving: &e.Serving, Terminating: &e.Terminating}}
		if e.Node != "" {
			out.NodeName = &e.Node
		}
		if e.Pod != "" {
			out.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: e.Pod}
		}
		if e.Hints != nil {
			out.Hints = expandHints(e.Hints)
		}
		o.Endpoints = append(o.Endpoints, out)
	}
	return o
}

func expandHints(h *model.Hints) *discoveryv1.EndpointHints {
	out := &discoveryv1.EndpointHints{}
	for _, z := range h.Zones {
		out.ForZones = append(out.ForZones, discoveryv1.ForZone{Name: z})
	}
	for _, n := range h.Nodes {
		out.ForNodes = append(out.ForNodes, discoveryv1.ForNode{Name: n})
	}
	return out
}

// equal says whether s and o are the same in all that is kept.
func (s *endpointSlice) equal(o *endpointSlice) bool {
	return s.Namespace == o.Namespace && s.Name == o.Name && s.UID == o.UID && s.CreationTimestamp.Equal(&o.CreationTimestamp) &&
		s.service == o.service && slices.Equal(s.ports, o.ports) && slices.EqualFunc(s.endpoints, o.endpoints, sameEndpoint)
}

// sameEndpoint says whether two endpoints are alike, of which each has hints of its own.
func sameEndpoint(a, b model.Endpoint) bool {
	if a.Hints != b.Hints {
		if a.Hints == nil || b.Hints == nil || !slices.Equal(a.Hints.Zones, b.Hints.Zones) || !slices.Equal(a.Hints.Nodes, b.Hints.Nodes) {
			return false
		}
		a.Hints = b.Hints
	}
	return a == b
}

// at returns the endpoints at one of the ports: the slice's own ones if that is the first.
func (s *endpointSlice) at(port slicePort) []model.Endpoint {
	if port.number == s.ports[0].number {
		return s.endpoints
	}
	out := slices.Clone(s.endpoints)
	for i, e := range out {
		out[i].AddrPort = netip.AddrPortFrom(e.AddrPort.Addr(), port.number)
	}
	return out
}
