package proxy_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain/broken"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// TestPanicCostsOneObject breaks one thing after the other: the others have all that is theirs, also what the broken
// one was about to take, and its own address is refused.
func TestPanicCostsOneObject(t *testing.T) {
	b := model.Key{Namespace: "n", Name: "b"}
	for name, c := range map[string]struct {
		breakIt func(*model.Snapshot)
		object  string
		reserve bool // its ClusterIP
	}{
		"ports": {func(s *model.Snapshot) { s.Services.Get(b).Spec.Ports = broken.Slice[corev1.ServicePort]() }, "Service n/b", true},
		"endpoints": {func(s *model.Snapshot) {
			s.Endpoints.Get(b).Ports = append(s.Endpoints.Get(b).Ports, model.PortEndpoints{Name: "y", Protocol: "TCP", Endpoints: broken.Slice[model.Endpoint]()})
		}, "Service n/b", true},
		"ClusterIPs": {func(s *model.Snapshot) { s.Services.Get(b).Spec.ClusterIPs = broken.Slice[string]() }, "Service n/b", false},
		"claim": {func(s *model.Snapshot) {
			s.Claims["203.0.113.9"] = &v1alpha1.AddressClaim{Spec: v1alpha1.AddressClaimSpec{Address: broken.Text()}}
		}, "AddressClaim 203.0.113.9", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &model.Snapshot{Claims: map[string]*v1alpha1.AddressClaim{}}
			for i, name := range []string{"a", "b", "c"} {
				key := model.Key{Namespace: "n", Name: name}
				s.Services = s.Services.With(key, &corev1.Service{
					ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name},
					Spec: corev1.ServiceSpec{
						Type: corev1.ServiceTypeLoadBalancer, ClusterIP: fmt.Sprint("10.96.0.", i+1),
						// b and c want one node port: b is first, and loses it with all else.
						Ports: []corev1.ServicePort{{Name: "x", Port: 80, NodePort: int32(30000 + (i+1)/2)}, {Name: "y", Port: 81}},
					},
				})
				eps := []model.Endpoint{{AddrPort: netip.MustParseAddrPort(fmt.Sprintf("10.244.0.%d:80", i+1)), Ready: true}}
				s.Endpoints = s.Endpoints.With(key, &model.ServiceEndpoints{Ports: []model.PortEndpoints{{Name: "x", Protocol: "TCP", Endpoints: eps}}})
			}
			c.breakIt(s)
			state, problems := proxy.Build(s, "n1", proxy.DefaultSettings())
			if !slices.ContainsFunc(problems, func(p model.Problem) bool {
				return p.Object.String() == c.object && p.Reason == model.ReasonInternalError && p.Stack != ""
			}) {
				t.Errorf("no Problem of %s with a stack: %v", c.object, problems)
			}
			owners := map[string]int{}
			for _, key := range state.Owners {
				owners[key.Name]++
			}
			want := map[string]int{"a": 3, "c": 3} // two ports and the node port
			if c.object != "Service n/b" {
				want = map[string]int{"a": 3, "b": 3, "c": 2}
			}
			if !maps.Equal(owners, want) || len(state.Frontends) != len(state.Owners) {
				t.Errorf("frontends of %v, want %v", owners, want)
			}
			if _, reserved := state.Addresses[netip.MustParseAddr("10.96.0.2")]; reserved != (c.reserve || want["b"] > 0) {
				t.Errorf("addresses %v", state.Addresses)
			}
		})
	}
}
