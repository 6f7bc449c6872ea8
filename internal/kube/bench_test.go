package kube

import (
	"fmt"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// slicesOf makes an EndpointSlice with 25 endpoints for each of n Services.
func slicesOf(n int) []change {
	var out []change
	port, name, node, yes := int32(8080), "http", "n1", true
	for i := range n {
		o := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprintf("s%d-x", i), Labels: map[string]string{discoveryv1.LabelServiceName: fmt.Sprintf("s%d", i)}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		}
		for j := range 25 {
			o.Endpoints = append(o.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{fmt.Sprintf("10.%d.%d.%d", i>>8, i&255, j)}, NodeName: &node,
				Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
			})
		}
		out = append(out, change{kind: "EndpointSlice", key: keyOf(o), object: o})
	}
	return out
}

// BenchmarkChange is one changed EndpointSlice among 10,000 Services with 250,000 endpoints.
func BenchmarkChange(b *testing.B) {
	w := newWorld()
	w.apply(slicesOf(10_000))
	one := slicesOf(1)
	for i := 0; b.Loop(); i++ {
		o := one[0].object.(*discoveryv1.EndpointSlice).DeepCopy()
		o.Endpoints = o.Endpoints[:1+i%24]
		w.apply([]change{{kind: "EndpointSlice", key: keyOf(o), object: o}})
	}
}

// BenchmarkFirst is the first Snapshot of 10,000 Services with 250,000 endpoints.
func BenchmarkFirst(b *testing.B) {
	all := slicesOf(10_000)
	for b.Loop() {
		newWorld().apply(all)
	}
}
