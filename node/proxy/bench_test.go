package proxy_test

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// BenchmarkBuild builds 10,000 Services with three endpoints each.
func BenchmarkBuild(b *testing.B) {
	s := &model.Snapshot{}
	for i := range 10_000 {
		key := model.Key{Namespace: "default", Name: fmt.Sprint("service-", i)}
		s.Services = s.Services.With(key, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
			Spec: corev1.ServiceSpec{ClusterIP: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}).String(),
				Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}})
		var eps []model.Endpoint
		for n := range 3 {
			addr := netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i*4 + n)})
			eps = append(eps, model.Endpoint{AddrPort: netip.AddrPortFrom(addr, 8080), Ready: true})
		}
		s.Endpoints = s.Endpoints.With(key, &model.ServiceEndpoints{Ports: []model.PortEndpoints{{Name: "http", Protocol: "TCP", Endpoints: eps}}})
	}
	for b.Loop() {
		if state, _ := proxy.Build(s, "node-1", proxy.DefaultSettings()); len(state.Frontends) != 10_000 {
			b.Fatal(len(state.Frontends))
		}
	}
}
