package xds

import (
	"slices"
	"testing"

	"hythe.dev/hythe/gateway"
)

// A listener waits for the Secrets that Envoy asks for, and no others: all hosts would wait with it.
func TestListenerWaitsForItsOwnSecrets(t *testing.T) {
	config := gateway.Config{
		Certificates: []gateway.Certificate{
			{Name: gateway.DefaultCertificateName, Chain: []byte("chain"), Key: []byte("key")},
			{Name: "shop/a", Chain: []byte("chain"), Key: []byte("key"), ServerNames: []string{"a.test"}},
			{Name: "shop/b", Chain: []byte("chain"), Key: []byte("key")},
			{Name: "shop/c", Chain: []byte("chain"), Key: []byte("key")},
		},
		Authorities: []gateway.Authorities{{Name: "shop/ca", Certificates: []byte("ca")}},
		ClientTLS: []gateway.ClientTLS{
			{Certificate: "shop/b", Authorities: "shop/ca", Depth: 1, ServerNames: []string{"b.test"}},
			{Certificate: "shop/c", Authorities: "shop/missing", Depth: 1, ServerNames: []string{"c.test"}},
		},
	}
	resources, _ := Build(config, Settings{})
	got := resources.Get(Listener, httpsListener).Needs
	want := []string{"clients:shop/ca", "default", "shop/a", "shop/b for clients of shop/ca"}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
