package xds

import (
	"net/netip"
	"testing"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

// TestSatisfyAlone: without a password or an auth server, satisfy any leaves the addresses.
func TestSatisfyAlone(t *testing.T) {
	p := &policy.Route{SatisfyAny: true, Sources: policy.Sources{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	for name, c := range map[string]struct {
		route gateway.Route
		asks  bool
	}{
		"nobody is asked":     {gateway.Route{Path: "/", Match: gateway.Prefix, Backend: "shop/web:http", Policy: p}, true},
		"by an auth server":   {gateway.Route{Path: "/", Match: gateway.Prefix, Backend: "shop/web:http", Policy: p, Auth: "shop/web"}, false},
		"by a password alone": {gateway.Route{Path: "/", Match: gateway.Prefix, Backend: "shop/web:http", Policy: p, BasicAuth: &gateway.BasicAuth{Users: "ada:x"}}, false},
	} {
		if got := !sourcesOf(c.route).Empty(); got != c.asks {
			t.Errorf("%s: addresses count for everybody: %v, want %v", name, got, c.asks)
		}
	}
}
