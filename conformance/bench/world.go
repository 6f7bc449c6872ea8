package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hythe.dev/hythe/conformance/bench/stub"
)

const (
	nodeName    = "node-1"
	otherNode   = "node-2"
	servicePort = 80
	podPort     = 8080
)

// A world is the cluster of a benchmark: so many Services, each with so many endpoints in one EndpointSlice. None of the
// addresses exists, but for those that real returns.
type world struct {
	services, endpoints int
	// real is who serves Service i; nil, or empty for i: nobody that exists.
	real func(i int) []netip.Addr
}

// clusterIP is the address of Service i: from 10.96.0.0/12, without the first of it.
func clusterIP(i int) netip.Addr { return offset(netip.MustParseAddr("10.96.1.0"), uint32(i)) }

// endpoint is the n-th address that a pod of no Service has yet: from 11.0.0.0 on.
func endpoint(n int) netip.Addr { return offset(netip.MustParseAddr("11.0.0.1"), uint32(n)) }

func offset(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(b[:])+n)))
}

func key(i int) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: fmt.Sprintf("space-%d", i%50), Name: fmt.Sprintf("service-%d", i),
		UID: "00000000-0000-0000-0000-000000000000", CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))}
}

func (w world) service(i int) *corev1.Service {
	ip := clusterIP(i).String()
	family, policy := corev1.IPFamilyPolicySingleStack, corev1.ServiceInternalTrafficPolicyCluster
	return &corev1.Service{ObjectMeta: key(i), Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, SessionAffinity: corev1.ServiceAffinityNone,
		IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, IPFamilyPolicy: &family, InternalTrafficPolicy: &policy,
		Selector: map[string]string{"app": fmt.Sprint("app-", i)},
		Ports:    []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: servicePort, TargetPort: intstr.FromInt32(podPort)}},
	}}
}

// addresses are those of the endpoints of Service i at first.
func (w world) addresses(i int) []netip.Addr {
	if w.real != nil {
		if out := w.real(i); len(out) > 0 {
			return out
		}
	}
	out := make([]netip.Addr, w.endpoints)
	for n := range out {
		out[n] = endpoint(i*w.endpoints + n)
	}
	return out
}

// slice is the EndpointSlice of Service i, as the EndpointSlice controller writes it.
func (w world) slice(i int, addresses []netip.Addr) *discoveryv1.EndpointSlice {
	meta := key(i)
	service := meta.Name
	meta.Name += "-x7k2p"
	meta.Labels = map[string]string{discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"}
	port, name, protocol, yes, no, node := int32(podPort), "http", corev1.ProtocolTCP, true, false, otherNode
	out := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}}}
	for _, a := range addresses {
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a.String()}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: meta.Namespace, Name: fmt.Sprint(service, "-", a), UID: "00000000-0000-0000-0000-000000000000"},
		})
	}
	return out
}

// nodes are this node and the one with all pods.
func nodes() []stub.Object {
	var out []stub.Object
	for i, name := range []string{nodeName, otherNode} {
		cidr := fmt.Sprintf("10.244.%d.0/24", i)
		out = append(out, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}},
			Status: corev1.NodeStatus{
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.0.2.%d", 11+i)}},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			}})
	}
	return out
}

// serve makes a stub API server that has the world.
func (w world) serve() (*stub.Server, error) {
	s, err := stub.New()
	if err != nil {
		return nil, err
	}
	s.Fill(nodes()...)
	s.Fill(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/12"}}})
	for i := range w.services {
		s.Fill(w.service(i), w.slice(i, w.addresses(i)))
	}
	return s, s.Warm()
}
