package follow

import (
	"net/netip"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/xds"
)

// TestCanaryRoutes follows requests through the routes of a canary, a limit with exempt clients, and retries.
func TestCanaryRoutes(t *testing.T) {
	p := &policy.Route{
		Session: policy.Session{Cookie: "S"}, Retry: policy.Retry{Reset: true},
		Limits: policy.Limits{PerSecond: 1, Exempt: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
	}
	config := gateway.Config{Hosts: []gateway.Host{{Name: "a.test", Routes: []gateway.Route{{
		Match: gateway.Prefix, Path: "/", Backend: "main", Policy: p,
		Canary: &gateway.Canary{Backend: "next", Canary: policy.Canary{Header: "X-Canary", Cookie: "c", Weight: 10, Total: 100}},
	}}}}}
	resources, problems := xds.Build(config, xds.Settings{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var host routev3.VirtualHost
	if err := resources.Get(xds.VirtualHost, xds.HostResource("a.test")).Body.UnmarshalTo(&host); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		headers map[string]string
		client  string
		cluster string
		limited bool
	}{
		"plain":             {cluster: "main", limited: true},
		"header":            {headers: map[string]string{"x-canary": "always"}, cluster: "next", limited: true},
		"header before":     {headers: map[string]string{"x-canary": "never", "cookie": "c=always"}, cluster: "main", limited: true},
		"cookie":            {headers: map[string]string{"cookie": "a=b; c=always"}, cluster: "next", limited: true},
		"session":           {headers: map[string]string{"cookie": "S=x", "x-canary": "always"}, cluster: "main", limited: true},
		"session of canary": {headers: map[string]string{"cookie": "S-canary=x", "x-canary": "never"}, cluster: "next", limited: true},
		"exempt":            {client: "192.0.2.7", cluster: "main"},
		"exempt canary":     {client: "192.0.2.7", headers: map[string]string{"x-canary": "always"}, cluster: "next"},
		"not exempt":        {client: "198.51.100.1", cluster: "main", limited: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := seen{path: "/x", headers: map[string]string{":method": "GET", ":authority": "a.test"}, state: map[string]netip.Addr{}}
			for k, v := range c.headers {
				s.headers[k] = v
			}
			if c.client != "" {
				s.state[xds.ClientState] = netip.MustParseAddr(c.client)
			}
			r := routeFor(&host, s)
			if got := r.GetRoute().GetCluster(); got != c.cluster {
				t.Errorf("%s, want %s", got, c.cluster)
			}
			if _, limited := r.GetTypedPerFilterConfig()["hythe.rate-limit"]; limited != c.limited {
				t.Errorf("limited is %v, want %v", limited, c.limited)
			}
		})
	}
	if routes := routesOf(&host); len(routes) != 1 || routes[0].Backend != "main" {
		t.Errorf("%+v, want the path once", routes)
	}
}
