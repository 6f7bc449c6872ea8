package kube

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// randomSlice is an EndpointSlice with something of everything that the API allows, and more.
func randomSlice(r *rand.Rand) *discoveryv1.EndpointSlice {
	flag := func() *bool { return []*bool{nil, new(bool), func() *bool { yes := true; return &yes }()}[r.IntN(3)] }
	text := func(of ...string) *string { return &of[r.IntN(len(of))] }
	o := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "web-1", UID: "u"},
		AddressType: []discoveryv1.AddressType{"IPv4", "IPv4", "IPv6", "FQDN"}[r.IntN(4)]}
	if r.IntN(5) > 0 {
		o.Labels = map[string]string{discoveryv1.LabelServiceName: "web"}
	}
	for range r.IntN(4) {
		number := int32(r.IntN(4)) * 40
		p := discoveryv1.EndpointPort{Port: &number, Name: text("", "http", "dns")}
		if r.IntN(3) > 0 {
			p.Protocol = []*corev1.Protocol{orTCP("TCP"), orTCP("UDP")}[r.IntN(2)]
		}
		o.Ports = append(o.Ports, p)
	}
	for range r.IntN(6) {
		address := fmt.Sprint("10.0.0.", r.IntN(9))
		if o.AddressType == "IPv6" {
			address = fmt.Sprint("fd00::", r.IntN(9))
		}
		e := discoveryv1.Endpoint{Addresses: []string{address}[:min(1, r.IntN(9))],
			Conditions: discoveryv1.EndpointConditions{Ready: flag(), Serving: flag(), Terminating: flag()}}
		if r.IntN(3) > 0 {
			e.NodeName = text("n1", "n2", "a \"strange\" <näme>\n")
		}
		if r.IntN(3) > 0 {
			e.TargetRef = &corev1.ObjectReference{Kind: *text("Pod", "VM"), Name: *text("web-0", "wéb")}
		}
		if r.IntN(3) == 0 {
			e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: *text("z1", "z2")}}}
			if r.IntN(2) == 0 {
				e.Hints.ForNodes = []discoveryv1.ForNode{{Name: "n1"}}
			}
		}
		o.Endpoints = append(o.Endpoints, e)
	}
	return o
}

// TestSliceInCache reads what is kept of random EndpointSlices back from what the cache holds of it, and from the API's type.
func TestSliceInCache(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		o := randomSlice(r)
		s := compactSlice(o)
		data, err := appendSlice(nil, s)
		if err != nil {
			t.Fatal(err)
		}
		back := &discoveryv1.EndpointSlice{}
		if err := json.Unmarshal(data, back); err != nil {
			t.Fatalf("seed %d: %v in %s", seed, err, data)
		}
		if back.Kind != "EndpointSlice" {
			t.Fatalf("seed %d: kind %q", seed, back.Kind)
		}
		for how, again := range map[string]*endpointSlice{"the cache": compactSlice(back), "the API's type": compactSlice(s.expand())} {
			if !s.equal(again) {
				t.Fatalf("seed %d: of\n%+v\ncame by %s\n%+v", seed, s, how, again)
			}
			if got, want := merge([]*endpointSlice{again}), merge([]*endpointSlice{s}); !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: endpoints by %s\n%+v\nwant\n%+v", seed, how, got, want)
			}
		}
	}
}

// TestSliceEqual wants two of random EndpointSlices to be equal where all their fields are, and only there.
func TestSliceEqual(t *testing.T) {
	same := 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed%50, 2))
		a := compactSlice(randomSlice(r))
		if seed%2 == 0 {
			r = rand.New(rand.NewPCG(seed%50, 2))
		}
		b := compactSlice(randomSlice(r))
		if got, want := a.equal(b), reflect.DeepEqual(a, b); got != want {
			t.Fatalf("equal is %v of\n%+v\n%+v", got, a, b)
		} else if got {
			same++
		}
	}
	if same < 1000 {
		t.Errorf("%d pairs were equal", same)
	}
}

// TestEndpointsOnce wants the endpoints of a Service with one EndpointSlice and one port to be those of the slice, in whatever
// order they came: hundreds of thousands are in memory once.
func TestEndpointsOnce(t *testing.T) {
	w := newWorld()
	changes := slicesOf(1)
	o := changes[0].object.(*discoveryv1.EndpointSlice)
	o.Endpoints[0], o.Endpoints[7] = o.Endpoints[7], o.Endpoints[0]
	s := compactSlice(o)
	got := w.apply([]change{{kind: "EndpointSlice", key: keyOf(s), object: s}})
	for _, e := range got.Endpoints.All() {
		if &e.Ports[0].Endpoints[0] != &s.endpoints[0] || len(e.Ports[0].Endpoints) != len(o.Endpoints) {
			t.Errorf("%d endpoints, or a copy of them", len(e.Ports[0].Endpoints))
		}
	}
}
