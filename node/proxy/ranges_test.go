package proxy_test

import (
	"net/netip"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// TestManyOwnAddresses has a node with the addresses of all Services, as kube-proxy leaves them on kube-ipvs0: the Services are
// not read anew for each of them.
func TestManyOwnAddresses(t *testing.T) {
	build := func(own int) float64 {
		s := &model.Snapshot{
			ServiceCIDRs: map[string]*networkingv1.ServiceCIDR{"kubernetes": {Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}}}}
		settings, addr := proxy.DefaultSettings(), netip.MustParseAddr("10.96.0.1")
		for i := range 200 {
			s.Services = s.Services.With(model.Key{Namespace: "a", Name: strconv.Itoa(i)}, &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: addr.String()}})
			if i < own {
				settings.LocalAddresses = append(settings.LocalAddresses, addr)
			}
			addr = addr.Next()
		}
		return testing.AllocsPerRun(1, func() {
			if _, problems := proxy.Build(s, "n1", settings); len(problems) != 1 { // there is no Node
				t.Fatal(problems)
			}
		})
	}
	if few, many := build(1), build(200); many > 2*few {
		t.Errorf("%v allocations with 200 addresses, %v with one", many, few)
	}
}
