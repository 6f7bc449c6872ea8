package kube

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
)

// TestOptionalKind starts with an API server that has no ServiceCIDRs yet, or does not give them to who asks: neither keeps
// anybody from a Snapshot, and the server is not asked all the time. Later it has them.
func TestOptionalKind(t *testing.T) {
	clientErrors(t)
	for _, c := range []struct {
		unserved, forbidden, unwatched, problem string
	}{{"servicecidrs", "", "", ""}, {"", "servicecidrs", "", "Forbidden"}, {"", "", "servicecidrs", "Forbidden"}} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeServer()
			f.set("services", services(3)...)
			f.unserved, f.forbidden, f.unwatched = c.unserved, c.forbidden, c.unwatched
			w := watchFake(t, f, APIOptions{Kinds: []string{"Service", "ServiceCIDR"}})
			defer w.stop()
			s := w.last(10 * time.Second)
			if s == nil || s.Services.Len() != 3 || len(s.ServiceCIDRs) != 0 || reasons(s) != c.problem || w.FromCache() {
				t.Fatalf("Snapshot %+v", s)
			}
			n := w.count()
			time.Sleep(time.Hour)
			if more := w.count() - n; more != 0 {
				t.Errorf("%d Snapshots while nothing changed", more)
			}
			if got := f.asked("servicecidrs"); got > 4*60 {
				t.Errorf("%d questions in an hour", got)
			}
			f.mu.Lock()
			f.unserved, f.forbidden, f.unwatched = "", "", ""
			f.mu.Unlock()
			f.set("servicecidrs", map[string]any{"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
				"metadata": map[string]any{"name": "kubernetes"}, "spec": map[string]any{"cidrs": []string{"10.96.0.0/16"}}})
			if s = w.last(5 * time.Minute); len(s.ServiceCIDRs) != 1 || len(s.Problems) != 0 {
				t.Errorf("ServiceCIDRs %v, problems %v", s.ServiceCIDRs, s.Problems)
			}
		})
	}
}

// TestHints keeps the hints of endpoints, equal ones once.
func TestHints(t *testing.T) {
	port, name := int32(8080), "http"
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}}
	zone := func(z string) *discoveryv1.EndpointHints {
		return &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: z}}, ForNodes: []discoveryv1.ForNode{{Name: "n-" + z}}}
	}
	for addr, hints := range map[string]*discoveryv1.EndpointHints{"10.0.0.1": zone("x"), "10.0.0.2": zone("x"), "10.0.0.3": zone("y"), "10.0.0.4": nil, "10.0.0.5": {}} {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr}, Hints: hints})
	}
	trim(slice, false)
	w := newWorld()
	s := w.apply([]change{{kind: "EndpointSlice", key: keyOf(slice), object: slice}})
	eps := s.Endpoints.Get(model.Key{Namespace: "a", Name: "web"}).Port("http", corev1.ProtocolTCP)
	for i, want := range []string{"x", "x", "y", "", ""} {
		switch h := eps[i].Hints; {
		case want == "" && h != nil, want != "" && (h == nil || h.Zones[0] != want || h.Nodes[0] != "n-"+want):
			t.Errorf("%s: %+v, want %q", eps[i].AddrPort, h, want)
		}
	}
	if eps[0].Hints != eps[1].Hints {
		t.Error("equal hints are kept twice")
	}
}
