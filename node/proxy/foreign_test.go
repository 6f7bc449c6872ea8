package proxy

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// TestForeignClaims has claims of a node's, a pod's and another Service's address: no frontend is made of them.
func TestForeignClaims(t *testing.T) {
	key := model.Key{Namespace: "default", Name: "web"}
	s := &model.Snapshot{
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{
			key:                                {ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Port: 80}}}},
			{Namespace: "default", Name: "db"}: {ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.2"}},
		}),
		Nodes:  map[string]*model.Node{"n1": {Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.11")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}},
		Claims: map[string]*v1alpha1.AddressClaim{},
	}
	for _, a := range []string{"203.0.113.1", "192.0.2.11", "10.244.1.9", "10.96.0.2", "127.0.0.1"} {
		s.Claims[a] = &v1alpha1.AddressClaim{ObjectMeta: metav1.ObjectMeta{Name: a}, Spec: v1alpha1.AddressClaimSpec{Address: a, Services: []v1alpha1.ServiceRef{{Namespace: "default", Name: "web"}}}}
	}
	state, problems := Build(s, "n1", DefaultSettings())
	text := state.String()
	if !strings.Contains(text, "203.0.113.1") {
		t.Errorf("the good claim has no frontend:\n%s", text)
	}
	for f := range state.Frontends {
		if a := f.Addr.String(); a != "203.0.113.1" && a != "10.96.0.1" {
			t.Errorf("frontend at %s", a)
		}
	}
	foreign := 0
	for _, p := range problems {
		if p.Reason == model.ReasonForeignAddress {
			foreign++
		}
	}
	if foreign != 4 {
		t.Errorf("problems: %v", problems)
	}
}
