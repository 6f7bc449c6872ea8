package gateway_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/model"
)

// FuzzCache changes a Snapshot again and again: what a Cache builds is what Build does, Problems included.
func FuzzCache(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 2))
		s := manyIngresses(4)
		pages := map[string]string{"nginx.ingress.kubernetes.io/default-backend": "app-2", "nginx.ingress.kubernetes.io/custom-http-errors": "503"}
		for key, ing := range s.Ingresses.All() {
			key.Namespace = "shop"
			ing.Annotations = pages
			service, _ := s.Services.Find(model.Key{Namespace: "team-" + key.Name[len("app-"):], Name: key.Name})
			s.Ingresses, s.Services = s.Ingresses.With(key, ing), s.Services.With(key, service)
		}
		var cache gateway.Cache
		settings := gateway.Settings{WithoutClass: true, Now: time.Unix(1e9, 0)}
		for step := range 30 {
			next := *s
			what := changeSnapshot(random, &next)
			s = &next
			got, problems := cache.Build(s, settings)
			want, wantProblems := gateway.Build(s, settings)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d, step %d, after %s:\n%v\nwant\n%v", seed, step, what, got, want)
			}
			if !reflect.DeepEqual(problems, wantProblems) {
				t.Fatalf("seed %d, step %d, after %s: problems %v, want %v", seed, step, what, problems, wantProblems)
			}
		}
	})
}

func changeSnapshot(random *rand.Rand, s *model.Snapshot) string {
	key := model.Key{Namespace: "shop", Name: fmt.Sprintf("app-%d", random.IntN(4))}
	switch random.IntN(6) {
	case 0:
		service := s.Services.Get(key).DeepCopy()
		service.Spec.Ports[0].Name = []string{"http", "web"}[random.IntN(2)]
		s.Services = s.Services.With(key, service)
		return "a port of Service " + key.Name
	case 1:
		ing := s.Ingresses.Get(key).DeepCopy()
		ing.Spec.Rules[0].Host = fmt.Sprintf("app-%d.example.com", random.IntN(3))
		s.Ingresses = s.Ingresses.With(key, ing)
		return "the host of Ingress " + key.Name
	case 2:
		s.Nodes = map[string]*model.Node{"n": {Name: "n", Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(4))})}}}
		return "the address of a node"
	}
	ports := &model.ServiceEndpoints{Unported: random.IntN(2) == 0}
	for range random.IntN(3) {
		ports.Ports = []model.PortEndpoints{{Name: []string{"http", "web"}[random.IntN(2)], Protocol: corev1.ProtocolTCP, Endpoints: []model.Endpoint{{
			AddrPort: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(4))}), 8080), Ready: true}}}}
	}
	s.Endpoints = s.Endpoints.With(key, ports)
	return "endpoints of Service " + key.Name
}

// TestCacheSeesTime builds when a certificate has ended, though only endpoints changed.
func TestCacheSeesTime(t *testing.T) {
	chain, key := pair(t, "app-0.example.com")
	s := manyIngresses(1)
	for name, ing := range s.Ingresses.All() {
		ing.Spec.TLS = []networkingv1.IngressTLS{{SecretName: "tls"}}
		s.Secrets = s.Secrets.With(model.Key{Namespace: name.Namespace, Name: "tls"}, &corev1.Secret{
			Type: corev1.SecretTypeTLS, Data: map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key}})
	}
	var cache gateway.Cache
	settings := gateway.Settings{WithoutClass: true, Now: time.Now()}
	if _, problems := cache.Build(s, settings); len(problems) > 0 {
		t.Fatal(problems)
	}
	next := *s
	for name := range s.Endpoints.Keys() {
		next.Endpoints = next.Endpoints.With(name, &model.ServiceEndpoints{})
	}
	settings.Now = settings.Now.AddDate(200, 0, 0)
	if _, problems := cache.Build(&next, settings); len(problems) == 0 {
		t.Error("no Problem of a certificate that has ended")
	}
}

// BenchmarkEndpoints is one Service of many with other endpoints.
func BenchmarkEndpoints(b *testing.B) {
	for _, n := range []int{3000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := manyIngresses(n)
			var cache gateway.Cache
			cache.Build(s, gateway.Settings{WithoutClass: true})
			key, round := model.Key{Namespace: "team-7", Name: "app-7"}, 0
			endpoints := [2]*model.ServiceEndpoints{s.Endpoints.Get(key), {}}
			b.ReportAllocs()
			for b.Loop() {
				round++
				next := *s
				next.Endpoints = next.Endpoints.With(key, endpoints[round%2])
				if config, _ := cache.Build(&next, gateway.Settings{WithoutClass: true}); len(config.EndpointSets) != n {
					b.Fatal(len(config.EndpointSets))
				}
				s = &next
			}
		})
	}
}
