package kube

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/model"
)

// randomObject makes an object of one of few names, so that changes meet.
func randomObject(r *rand.Rand) metav1.Object {
	name := func() string { return fmt.Sprintf("n%d", r.IntN(4)) }
	var o metav1.Object
	switch r.IntN(5) {
	case 4:
		o = &networkingv1.ServiceCIDR{Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{[]string{"10.96.0.0/16", "fd10::/112"}[r.IntN(2)]}}}
	case 0:
		o = &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.96.0.%d", r.IntN(3))}}
	case 1:
		node := &corev1.Node{Spec: corev1.NodeSpec{PodCIDRs: []string{[]string{"10.0.0.0/24", "wrong", "fd00::/64"}[r.IntN(3)]}}}
		o = node
	case 2:
		o = &v1alpha1.AddressClaim{Spec: v1alpha1.AddressClaimSpec{Pool: name()}}
	default:
		port, portName := int32(1+r.IntN(3)), "p"
		slice := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port}}}
		for range r.IntN(4) {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.0.%d", r.IntN(5))},
				Hints: []*discoveryv1.EndpointHints{nil, {ForZones: []discoveryv1.ForZone{{Name: "a"}}}, {ForNodes: []discoveryv1.ForNode{{Name: "n1"}}}}[r.IntN(3)]})
		}
		if r.IntN(5) > 0 {
			slice.Labels = map[string]string{discoveryv1.LabelServiceName: name()}
		}
		o = slice
	}
	o.SetName(name())
	if kind, _ := client.ResourceOf(kindOf(o)); !kind.Clustered {
		o.SetNamespace([]string{"a", "b"}[r.IntN(2)])
	}
	return o
}

// TestWorldEqualsAssemble checks, for random histories, that a Snapshot made of changes is the one made of all
// objects, that earlier Snapshots stay as they were, and that what did not change is shared.
func TestWorldEqualsAssemble(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld()
		objects := map[string]metav1.Object{}
		previous := w.last
		for step := range 40 {
			var changes []change
			for _, object := range pick(r) {
				id := refOf(object).String()
				c := change{kind: kindOf(object), key: keyOf(object), object: object}
				if r.IntN(3) == 0 {
					c.object = nil
					delete(objects, id)
				} else {
					objects[id] = object
				}
				changes = append(changes, c)
			}
			before := snapshotJSON(t, previous)
			got := w.apply(changes)
			d := document{name: "all"}
			for _, o := range objects {
				d.objects = append(d.objects, o)
			}
			want := assemble([]document{d})
			if !reflect.DeepEqual(normal(got), normal(want)) {
				t.Fatalf("seed %d, step %d:\n%s\nwant\n%s", seed, step, snapshotJSON(t, got), snapshotJSON(t, want))
			}
			if after := snapshotJSON(t, previous); after != before {
				t.Fatalf("seed %d, step %d: the Snapshot before was changed", seed, step)
			}
			for service, endpoints := range got.Endpoints.All() {
				if old := previous.Endpoints.Get(service); old != nil && old != endpoints && reflect.DeepEqual(old, endpoints) {
					t.Fatalf("seed %d, step %d: equal endpoints of %s are not shared", seed, step, service)
				}
			}
			previous = got
		}
	}
}

// pick makes some random objects, each name once.
func pick(r *rand.Rand) []metav1.Object {
	seen := map[string]bool{}
	var out []metav1.Object
	for range 1 + r.IntN(4) {
		o := randomObject(r)
		if id := refOf(o).String(); !seen[id] {
			seen[id] = true
			out = append(out, o)
		}
	}
	return out
}

// normal makes no difference between no problems and an empty list of them.
func normal(s *model.Snapshot) model.Snapshot {
	out := *s
	if len(out.Problems) == 0 {
		out.Problems = nil
	}
	return out
}

// TestNoSnapshotBeforeAllKinds checks that one late kind holds back the first Snapshot.
func TestNoSnapshotBeforeAllKinds(t *testing.T) {
	a, err := NewAPI(&client.RESTConfig{Host: "https://127.0.0.1:1"}, APIOptions{Kinds: []string{"Service", "Node"}}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	web := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "web", ResourceVersion: "5"}}
	if err := a.replicas[0].Replace([]any{web}, "5"); err != nil {
		t.Fatal(err)
	}
	if changes, ok := a.changes(); ok {
		t.Fatalf("with Nodes missing: %v", changes)
	}
	if err := a.replicas[1].Replace(nil, "5"); err != nil {
		t.Fatal(err)
	}
	if changes, ok := a.changes(); !ok || len(changes) != 1 {
		t.Fatalf("with all kinds: %v, %v", changes, ok)
	}
	// The same list again is no change; one without the Service is its end.
	for want, list := range [][]any{{web.DeepCopy()}, {}} {
		if err := a.replicas[0].Replace(list, "6"); err != nil {
			t.Fatal(err)
		}
		if changes, _ := a.changes(); len(changes) != want {
			t.Errorf("list of %d: %d changes, want %d", len(list), len(changes), want)
		}
	}
}
