package xds

import (
	"net/netip"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"hythe.dev/hythe/gateway"
)

// TestAltServiceIsNotForProxies has Alt-Svc on the chain of the certificate, and not on that for trusted proxies.
func TestAltServiceIsNotForProxies(t *testing.T) {
	config := gateway.Config{
		Certificates: []gateway.Certificate{{Name: "default", Chain: []byte("x"), Key: []byte("y")}},
		Listen:       gateway.Listen{HTTP3: 443, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	}
	resources, _ := Build(config, Settings{})
	var l listenerv3.Listener
	if err := resources.Get(Listener, "https").Body.UnmarshalTo(&l); err != nil {
		t.Fatal(err)
	}
	says := func(c *listenerv3.FilterChain) bool { return strings.Contains(c.String(), "alt-svc") }
	if c := l.GetDefaultFilterChain(); !says(c) {
		t.Error("the chain does not say that there is HTTP/3")
	}
	if c := l.GetFilterChains(); len(c) != 1 || says(c[0]) {
		t.Errorf("%d chains are for trusted proxies; they must not say that there is HTTP/3", len(c))
	}
	if resources.Get(Listener, "http3") == nil {
		t.Error("there is no listener for HTTP/3")
	}
}
