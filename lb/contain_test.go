package lb

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain/broken"
	"hythe.dev/hythe/internal/model"
)

// claimedSnapshot has Services a, b and c with a claim each, and d without one.
func claimedSnapshot(t *testing.T) *model.Snapshot {
	t.Helper()
	s := &model.Snapshot{
		Claims: map[string]*v1alpha1.AddressClaim{},
		Pools: map[string]*v1alpha1.AddressPool{
			"general": {ObjectMeta: metav1.ObjectMeta{Name: "general"}, Spec: v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/28"}}},
			"spare":   {ObjectMeta: metav1.ObjectMeta{Name: "spare"}, Spec: v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.64/28"}}},
		},
	}
	for _, name := range []string{"a", "b", "c"} {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
		s.Services = s.Services.With(model.Key{Namespace: "n", Name: name}, svc)
	}
	state, problems := Build(s, Settings{WithoutClass: true})
	if len(problems) != 0 || len(state.Claims) != 3 {
		t.Fatalf("%v, %v", state, problems)
	}
	for _, c := range state.Claims {
		s.Claims[c.Name] = c
	}
	for _, st := range state.Services {
		s.Services.Get(st.Service).Status.LoadBalancer.Ingress = st.Ingress
	}
	s.Services = s.Services.With(model.Key{Namespace: "n", Name: "d"}, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "d"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}})
	return s
}

func claimOf(claims map[string]*v1alpha1.AddressClaim, service string) *v1alpha1.AddressClaim {
	for _, c := range claims {
		if c.Spec.Services[0].Name == service {
			return c
		}
	}
	return nil
}

// TestPanicCostsOneObject breaks one object after the other: a and c keep their addresses, d is given one, and b neither
// loses what it has nor is given anything.
func TestPanicCostsOneObject(t *testing.T) {
	b := model.Key{Namespace: "n", Name: "b"}
	for name, c := range map[string]struct {
		breakIt func(*model.Snapshot)
		object  string
	}{
		"addresses": {func(s *model.Snapshot) {
			s.Services.Get(b).Annotations = map[string]string{v1alpha1.AddressesAnnotation: broken.Text()}
		}, "Service n/b"},
		"families": {func(s *model.Snapshot) { s.Services.Get(b).Spec.IPFamilies = broken.Slice[corev1.IPFamily]() }, "Service n/b"},
		"pool": {func(s *model.Snapshot) {
			s.Services.Get(b).Annotations = map[string]string{v1alpha1.PoolAnnotation: "spare"}
			s.Pools["spare"].Spec.Addresses = broken.Slice[string]()
		}, "AddressPool spare"},
		"choice": {func(s *model.Snapshot) {
			s.Services.Get(b).Annotations = map[string]string{v1alpha1.PoolAnnotation: broken.Text()}
		}, "Service n/b"},
		"claim": {func(s *model.Snapshot) {
			old := claimOf(s.Claims, "b")
			other := old.DeepCopy()
			other.Spec.Address = broken.Text()
			s.Claims[old.Name] = other
		}, "AddressClaim 203.0.113.1"},
		"ClusterIP": {func(s *model.Snapshot) { s.Services.Get(b).Spec.ClusterIPs = broken.Slice[string]() }, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			s := claimedSnapshot(t)
			before := s.Services.Get(b).Status.LoadBalancer.Ingress
			names := map[string]bool{}
			for name := range s.Claims {
				names[name] = true
			}
			c.breakIt(s)
			state, problems := Build(s, Settings{WithoutClass: true})
			if c.object != "-" && !slices.ContainsFunc(problems, func(p model.Problem) bool {
				return p.Object.String() == c.object && p.Reason == model.ReasonInternalError && p.Stack != ""
			}) {
				t.Errorf("no Problem of %s with a stack: %v", c.object, problems)
			}
			if len(state.Claims) != 4 {
				t.Errorf("%d claims, want the three of before and one more", len(state.Claims))
			}
			for _, claim := range state.Claims {
				delete(names, claim.Name)
			}
			if len(names) != 0 {
				t.Errorf("given away: %v", names)
			}
			for _, st := range state.Services {
				if len(st.Ingress) != 1 || st.Service == b && st.Ingress[0].IP != before[0].IP {
					t.Errorf("status %v", st)
				}
			}
			if len(state.Services) != 4 {
				t.Errorf("%d Services have a status, want 4", len(state.Services))
			}
		})
	}
}

// TestPanicCostsOneVIP breaks what one VIP is made of: the other two are announced.
func TestPanicCostsOneVIP(t *testing.T) {
	s := claimedSnapshot(t)
	b := model.Key{Namespace: "n", Name: "b"}
	s.Services.Get(b).Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	s.Endpoints = s.Endpoints.With(b, &model.ServiceEndpoints{Ports: broken.Slice[model.PortEndpoints]()})
	vips, problems := VIPs(s, "n1")
	if len(vips) != 2 || vips[0].Addr != netip.MustParseAddr("203.0.113.0") || vips[1].Addr != netip.MustParseAddr("203.0.113.2") {
		t.Errorf("%v", vips)
	}
	if len(problems) != 1 || problems[0].Object.String() != "AddressClaim 203.0.113.1" || problems[0].Stack == "" {
		t.Errorf("%v", problems)
	}
}
