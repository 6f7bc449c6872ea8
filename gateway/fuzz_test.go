package gateway_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
)

// FuzzBuild wants every manifest to give a Config that keeps its promises.
func FuzzBuild(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			if filepath.Ext(part.Name) == ".yaml" {
				f.Add(part.Data)
			}
		}
	}
	path := filepath.Join(f.TempDir(), "fuzz.yaml")
	f.Fuzz(func(t *testing.T, manifest []byte) {
		if err := os.WriteFile(path, manifest, 0o600); err != nil {
			t.Fatal(err)
		}
		snapshot, err := kube.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		checkBuild(t, snapshot, gateway.Settings{
			Now: now, WithoutClass: true, Classes: []string{"nginx", "hythe"},
			DefaultCertificate: model.Key{Namespace: "default", Name: "tls"},
		})
	})
}

// FuzzCertificate wants every Secret to be refused or to give a pair that a TLS server can use.
func FuzzCertificate(f *testing.F) {
	for _, kind := range []string{"a.example.com", "p384 b.example.com", "rsa2048 c.example.com", "ed25519 d.example.com"} {
		chain, key := pair(f, kind)
		f.Add(chain, key)
	}
	f.Fuzz(func(t *testing.T, chain, key []byte) {
		config, problems := gateway.Build(tlsSnapshot(chain, key), gateway.Settings{WithoutClass: true, Now: now})
		if err := gateway.Check(config); err != nil {
			t.Fatal(err)
		}
		if served := config.Hosts[1].Certificate == "shop/tls"; served {
			if _, err := tls.X509KeyPair(config.Certificates[1].Chain, config.Certificates[1].Key); err != nil {
				t.Errorf("served, but %v", err)
			}
		} else if len(problems) == 0 {
			t.Error("not served, and no Problem says why")
		}
	})
}

// tlsSnapshot is a host a.example.com with a TLS Secret shop/tls of the given PEM texts.
func tlsSnapshot(chain, key []byte) *model.Snapshot {
	name := model.Key{Namespace: "shop", Name: "tls"}
	ing := &networkingv1.Ingress{}
	ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"a.example.com"}, SecretName: "tls"}}
	ing.Spec.Rules = []networkingv1.IngressRule{{Host: "a.example.com"}}
	return &model.Snapshot{
		Ingresses: model.ObjectsOf(map[model.Key]*networkingv1.Ingress{{Namespace: "shop", Name: "shop"}: ing}),
		Secrets: model.ObjectsOf(map[model.Key]*corev1.Secret{name: {
			Type: corev1.SecretTypeTLS,
			Data: map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key},
		}}),
	}
}
