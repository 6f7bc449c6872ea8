package gateway

import (
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/internal/model"
)

// TestContain lets the parser of one Secret panic: the hosts of all are served.
func TestContain(t *testing.T) {
	s := &model.Snapshot{Ingresses: map[model.Key]*networkingv1.Ingress{}}
	for _, name := range []string{"good", "evil", "wild"} {
		ing := &networkingv1.Ingress{}
		ing.Spec.TLS = []networkingv1.IngressTLS{{SecretName: name, Hosts: []string{name + ".example.com"}}}
		ing.Spec.Rules = []networkingv1.IngressRule{{Host: name + ".example.com"}}
		s.Ingresses[model.Key{Namespace: "shop", Name: name}] = ing
	}
	var none []int
	x, problems := newIndex(s, Settings{WithoutClass: true}, func(key model.Key) (*keyPair, error) {
		switch key.Name {
		case "evil":
			panic("a secret thing")
		case "wild":
			_ = none[len(key.Name)]
		}
		return nil, nil
	})
	if x.certificates.of("evil.example.com") != DefaultCertificateName || len(x.byHost) != 3 {
		t.Errorf("hosts %v", x.byHost)
	}
	internal := 0
	for _, p := range problems {
		if p.Reason == "Internal" {
			internal++
		}
		if strings.Contains(p.Message, "secret thing") {
			t.Errorf("it tells what was in the panic: %s", p)
		}
	}
	if internal != 2 {
		t.Errorf("Problems: %v", problems)
	}
}
