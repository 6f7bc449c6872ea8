package gateway_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/xds"
)

// oneIngress is a snapshot with Service shop/web, which has the port 80, and Ingress shop/big.
func oneIngress(ing *networkingv1.Ingress) *model.Snapshot {
	ing.Namespace, ing.Name = "shop", "big"
	return &model.Snapshot{
		Ingresses: model.ObjectsOf(map[model.Key]*networkingv1.Ingress{{Namespace: "shop", Name: "big"}: ing}),
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{{Namespace: "shop", Name: "web"}: {
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}}),
	}
}

func addPath(ing *networkingv1.Ingress, host, path string) {
	prefix := networkingv1.PathTypePrefix
	backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
		Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80},
	}}
	rule := networkingv1.IngressRule{Host: host}
	rule.HTTP = &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: path, PathType: &prefix, Backend: backend}}}
	ing.Spec.Rules = append(ing.Spec.Rules, rule)
}

// TestBoundedProblems wants few and short Problems of an Ingress however much is wrong with it, and the good path of
// it served.
func TestBoundedProblems(t *testing.T) {
	ing := &networkingv1.Ingress{}
	ing.Annotations = map[string]string{
		"nginx.ingress.kubernetes.io/" + strings.Repeat("x", 256<<10): "y",
		"nginx.ingress.kubernetes.io/stream-snippet":                  strings.Repeat("z", 256<<10),
	}
	for i := range 3000 {
		ing.Annotations[fmt.Sprintf("nginx.ingress.kubernetes.io/%d\n", i)] = "x"
		addPath(ing, "a.example.com", fmt.Sprintf("/%d/../%s", i, strings.Repeat("p", 300)))
		addPath(ing, fmt.Sprintf("%d..%s", i, strings.Repeat("h", 300)), "/")
		ing.Spec.TLS = append(ing.Spec.TLS, networkingv1.IngressTLS{
			Hosts: []string{fmt.Sprintf("t%d.%s.%s", i, strings.Repeat("a", 60), strings.Repeat("b.", 90)+"c")}, SecretName: strings.Repeat("s", 5000),
		})
	}
	addPath(ing, "a.example.com", "/good")
	config, problems := gateway.Build(oneIngress(ing), gateway.Settings{WithoutClass: true, Now: now})
	if len(problems) == 0 || len(problems) > 100 {
		t.Errorf("%d Problems", len(problems))
	}
	reasons := map[string]int{}
	for _, p := range problems {
		reasons[p.Reason]++
		if len(p.Message) > 1000 || strings.ContainsAny(p.Message, "\n\x00") {
			t.Errorf("a message of %d bytes: %.100q…", len(p.Message), p.Message)
		}
	}
	for _, reason := range []string{"InvalidPath", "InvalidHost", "AnnotationsIgnored", "SecretNotFound"} {
		if reasons[reason] == 0 {
			t.Errorf("no Problem %s among %v", reason, reasons)
		}
	}
	if text := config.String(); !strings.Contains(text, "prefix /good shop/web:80") {
		t.Errorf("the good path is not served: %s", text)
	}
}

// TestBoundedWork wants twice as many hosts, paths and TLS names to be about twice the work, by what is allocated.
func TestBoundedWork(t *testing.T) {
	for name, make := range map[string]func(ing *networkingv1.Ingress, n int){
		"paths": func(ing *networkingv1.Ingress, n int) {
			for i := range n {
				addPath(ing, "a.example.com", fmt.Sprintf("/p%d", i))
			}
		},
		"hosts": func(ing *networkingv1.Ingress, n int) {
			var names []string
			for i := range n {
				addPath(ing, fmt.Sprintf("h%d.example.com", i), "/")
				names = append(names, fmt.Sprintf("h%d.example.com", i))
			}
			ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: names, SecretName: "tls"}}
		},
		"names below a wildcard": func(ing *networkingv1.Ingress, n int) {
			var names []string
			for i := range n {
				addPath(ing, "*.example.com", fmt.Sprintf("/p%d", i))
				names = append(names, fmt.Sprintf("h%d.example.com", i))
			}
			ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: names, SecretName: "tls"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			chain, key := pair(t, "*.example.com")
			work := func(n int) float64 {
				ing := &networkingv1.Ingress{}
				make(ing, n)
				snapshot := oneIngress(ing)
				snapshot.Secrets = model.ObjectsOf(map[model.Key]*corev1.Secret{{Namespace: "shop", Name: "tls"}: {
					Data: map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key},
				}})
				return testing.AllocsPerRun(1, func() {
					config, _ := gateway.Build(snapshot, gateway.Settings{WithoutClass: true})
					xds.Build(config, xds.Settings{})
				})
			}
			small, large := work(500), work(1000)
			t.Logf("%.0f and %.0f allocations", small, large)
			if large > 3*small {
				t.Errorf("%.0f allocations for 500, %.0f for 1,000", small, large)
			}
		})
	}
}

// TestUnaffected changes what a Build does not look at, and what it does.
func TestUnaffected(t *testing.T) {
	ing := &networkingv1.Ingress{}
	addPath(ing, "a.example.com", "/")
	ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"a.example.com"}, SecretName: "tls"}}
	first, other := oneIngress(ing), model.Key{Namespace: "shop", Name: "other"}
	first.Secrets = model.ObjectsOf(map[model.Key]*corev1.Secret{other: {}})
	var cache gateway.Cache
	if cache.Unaffected(first) {
		t.Error("a Cache without a Build knows nothing")
	}
	cache.Build(first, gateway.Settings{WithoutClass: true})
	with := func(change func(*model.Snapshot)) *model.Snapshot {
		s := *first
		change(&s)
		return &s
	}
	for name, s := range map[string]*model.Snapshot{
		"a Secret that nobody names": with(func(s *model.Snapshot) {
			s.Secrets = s.Secrets.With(other, &corev1.Secret{})
		}),
		"another one": with(func(s *model.Snapshot) {
			s.Secrets = s.Secrets.With(model.Key{Namespace: "shop", Name: "new"}, &corev1.Secret{})
		}),
		"nothing": with(func(*model.Snapshot) {}),
	} {
		if !cache.Unaffected(s) {
			t.Errorf("%s: it should make no difference", name)
		}
	}
	for name, s := range map[string]*model.Snapshot{
		"the Secret appears": with(func(s *model.Snapshot) {
			s.Secrets = s.Secrets.With(model.Key{Namespace: "shop", Name: "tls"}, &corev1.Secret{})
		}),
		"Services":  with(func(s *model.Snapshot) { s.Services = s.Services.With(other, &corev1.Service{}) }),
		"Ingresses": with(func(s *model.Snapshot) { s.Ingresses = s.Ingresses.With(other, &networkingv1.Ingress{}) }),
		"Endpoints": with(func(s *model.Snapshot) { s.Endpoints = s.Endpoints.With(other, &model.ServiceEndpoints{}) }),
	} {
		if cache.Unaffected(s) {
			t.Errorf("%s: it makes a difference", name)
		}
	}
}
