package gateway_test

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/model"
)

// BenchmarkCertificates shows what the Cache saves when nothing about 1,000 Secrets changed.
func BenchmarkCertificates(b *testing.B) {
	snapshot := manyIngresses(1000)
	snapshot.Secrets = model.Objects[*corev1.Secret]{}
	chain, key := pair(b, "*.example.com")
	for name, ing := range snapshot.Ingresses.All() {
		ing.Spec.TLS = []networkingv1.IngressTLS{{SecretName: name.Name}}
		snapshot.Secrets = snapshot.Secrets.With(name, &corev1.Secret{Data: map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key}})
	}
	build := func(b *testing.B, cache *gateway.Cache) {
		if config, problems := cache.Build(snapshot, gateway.Settings{WithoutClass: true}); len(problems) > 0 || len(config.Certificates) != 2 {
			b.Fatal(len(config.Certificates), problems)
		}
	}
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			build(b, new(gateway.Cache))
		}
	})
	b.Run("warm", func(b *testing.B) {
		var cache gateway.Cache
		build(b, &cache)
		for b.Loop() {
			build(b, &cache)
		}
	})
}

// BenchmarkBuild builds many Ingresses of two paths each, each with a Service of its own.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		snapshot := manyIngresses(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if config, problems := gateway.Build(snapshot, gateway.Settings{WithoutClass: true}); len(problems) > 0 || len(config.Hosts) != n+1 {
					b.Fatal(len(config.Hosts), problems)
				}
			}
		})
	}
}

func manyIngresses(n int) *model.Snapshot {
	s := &model.Snapshot{}
	prefix := networkingv1.PathTypePrefix
	for i := range n {
		key := model.Key{Namespace: fmt.Sprintf("team-%d", i%50), Name: fmt.Sprintf("app-%d", i)}
		s.Services = s.Services.With(key, &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}})
		s.Endpoints = s.Endpoints.With(key, &model.ServiceEndpoints{Ports: []model.PortEndpoints{{Name: "http", Protocol: corev1.ProtocolTCP}}})
		for pod := range 3 {
			addr := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(pod + 1)})
			ports := s.Endpoints.Get(key).Ports
			ports[0].Endpoints = append(ports[0].Endpoints, model.Endpoint{AddrPort: netip.AddrPortFrom(addr, 8080), Ready: true})
		}
		backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
			Name: key.Name, Port: networkingv1.ServiceBackendPort{Number: 80},
		}}
		ing := &networkingv1.Ingress{}
		ing.Spec.Rules = []networkingv1.IngressRule{{Host: fmt.Sprintf("app-%d.example.com", i)}}
		ing.Spec.Rules[0].HTTP = &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{
			{Path: "/", PathType: &prefix, Backend: backend}, {Path: "/api", PathType: &prefix, Backend: backend},
		}}
		s.Ingresses = s.Ingresses.With(key, ing)
	}
	return s
}
