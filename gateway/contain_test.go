package gateway

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/internal/contain/broken"
	"hythe.dev/hythe/internal/model"
)

// threeShops is a snapshot of Ingresses a, b and c, each with a host, a Service and a TLS entry of its own.
func threeShops() *model.Snapshot {
	s := &model.Snapshot{

		IngressClasses: map[string]*networkingv1.IngressClass{},
	}
	prefix := networkingv1.PathTypePrefix
	for _, name := range []string{"a", "b", "c"} {
		key, ing := model.Key{Namespace: "shop", Name: name}, &networkingv1.Ingress{}
		backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name, Port: networkingv1.ServiceBackendPort{Number: 80}}}
		ing.Spec.TLS = []networkingv1.IngressTLS{{SecretName: name, Hosts: []string{name + ".example.com"}}}
		ing.Spec.Rules = []networkingv1.IngressRule{{Host: name + ".example.com", IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &prefix, Backend: backend}}},
		}}}
		s.Ingresses = s.Ingresses.With(key, ing)
		s.Services = s.Services.With(key, &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
		s.Endpoints = s.Endpoints.With(key, &model.ServiceEndpoints{Ports: []model.PortEndpoints{{Protocol: corev1.ProtocolTCP, Endpoints: []model.Endpoint{
			{AddrPort: netip.MustParseAddrPort("10.244.0.7:8080"), Ready: true, Serving: true},
		}}}})
	}
	return s
}

// TestPanicCostsOneObject breaks one part of b after the other: a and c are served as before, b only as far as is safe.
func TestPanicCostsOneObject(t *testing.T) {
	b := model.Key{Namespace: "shop", Name: "b"}
	for name, c := range map[string]struct {
		breakIt func(*model.Snapshot)
		object  string
		status  uint32 // of b's host; 0 where it has a Backend
	}{
		"annotation of Ingress": {func(s *model.Snapshot) {
			s.Ingresses.Get(b).Annotations = map[string]string{nginx.Prefix + "ssl-redirect": broken.Text()}
		}, "Ingress shop/b", 503},
		"rules of Ingress": {func(s *model.Snapshot) { s.Ingresses.Get(b).Spec.Rules = broken.Slice[networkingv1.IngressRule]() }, "Ingress shop/b", 0},
		"ports of Service": {func(s *model.Snapshot) { s.Services.Get(b).Spec.Ports = broken.Slice[corev1.ServicePort]() }, "Ingress shop/b", 503},
		"endpoints":        {func(s *model.Snapshot) { s.Endpoints.Get(b).Ports = broken.Slice[model.PortEndpoints]() }, "Service shop/b", 0},
		"Secret": {func(s *model.Snapshot) {
			s.Secrets = s.Secrets.With(b, &corev1.Secret{Type: corev1.SecretType(broken.Text())})
		}, "Ingress shop/b", 0},
		"class": {func(s *model.Snapshot) {
			s.IngressClasses["x"] = &networkingv1.IngressClass{Spec: networkingv1.IngressClassSpec{Controller: broken.Text(), Parameters: &networkingv1.IngressClassParametersReference{}}}
		}, "IngressClass x", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := threeShops()
			c.breakIt(s)
			config, problems := Build(s, Settings{WithoutClass: true})
			faults := slices.DeleteFunc(problems, func(p model.Problem) bool { return p.Reason != model.ReasonInternalError })
			if !slices.ContainsFunc(faults, func(p model.Problem) bool { return p.Object.String() == c.object && p.Stack != "" }) {
				t.Errorf("no Problem of %s with a stack: %v", c.object, faults)
			}
			hosts := map[string]Host{}
			for _, h := range config.Hosts {
				hosts[h.Name] = h
			}
			for _, other := range []string{"a", "c"} {
				if h := hosts[other+".example.com"]; len(h.Routes) != 1 || h.Routes[0].Backend != "shop/"+other+":80" {
					t.Errorf("host %s: %v", other, h)
				}
			}
			for _, set := range config.EndpointSets {
				if set.Name != "shop/b:80" && len(set.Addresses) != 1 {
					t.Errorf("endpoints %v", set)
				}
			}
			h, there := hosts["b.example.com"]
			if name == "rules of Ingress" {
				return // it is not known what it serves
			}
			if !there || h.Routes[0].Status != c.status || h.Routes[0].Backend == "" && c.status == 0 {
				t.Errorf("host b: %v, want status %d", h, c.status)
			}
		})
	}
}

// TestFaultyIngressKeepsItsHost checks that nobody of another namespace gets the host of an Ingress that cannot be read.
func TestFaultyIngressKeepsItsHost(t *testing.T) {
	s := threeShops()
	s.Ingresses.Get(model.Key{Namespace: "shop", Name: "b"}).Annotations = map[string]string{nginx.Prefix + "ssl-redirect": broken.Text()}
	thief := s.Ingresses.Get(model.Key{Namespace: "shop", Name: "a"}).DeepCopy()
	thief.Spec.Rules[0].Host = "b.example.com"
	s.Ingresses = s.Ingresses.With(model.Key{Namespace: "thief", Name: "b"}, thief)
	config, problems := Build(s, Settings{WithoutClass: true})
	for _, h := range config.Hosts {
		if h.Name == "b.example.com" && (h.Routes[0].Status != 503 || len(h.Routes) != 1) {
			t.Errorf("%v", h)
		}
	}
	if !slices.ContainsFunc(problems, func(p model.Problem) bool { return p.Object.Namespace == "thief" && p.Reason == "HostConflict" }) {
		t.Errorf("the other hears nothing: %v", problems)
	}
}

// TestPanicIsNotRemembered checks that a Cache whose Build panicked as a whole does not take the Snapshot for built.
func TestPanicIsNotRemembered(t *testing.T) {
	s, cache := threeShops(), new(Cache)
	func() {
		defer func() { _ = recover() }()
		cache.Build(s, Settings{WithoutClass: true, Classes: broken.Slice[string](), CatchAllNamespaces: []string{"*"}, DefaultCertificate: model.Key{Name: "x", Namespace: broken.Text()}})
		t.Error("it did not panic")
	}()
	if cache.Unaffected(s) {
		t.Error("the Snapshot counts as built")
	}
}

// TestContain lets the parser of one Secret panic: the hosts of all are served, and what it held is not told.
func TestContain(t *testing.T) {
	var none []int
	x, problems := newIndex(threeShops(), Settings{WithoutClass: true}, func(key model.Key) (*keyPair, error) {
		switch key.Name {
		case "b":
			panic("a secret thing")
		case "c":
			_ = none[len(key.Name)]
		}
		return nil, nil
	})
	if x.certificates.of("b.example.com") != DefaultCertificateName || len(x.byHost) != 3 {
		t.Errorf("hosts %v", x.byHost)
	}
	internal := 0
	for _, p := range problems {
		if p.Reason == model.ReasonInternalError {
			internal++
		}
		if strings.Contains(p.Message+p.Stack, "secret thing") {
			t.Errorf("it tells what was in the panic: %s", p)
		}
	}
	if internal != 2 {
		t.Errorf("Problems: %v", problems)
	}
}
