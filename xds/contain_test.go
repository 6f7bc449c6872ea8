package xds

import (
	"net/netip"
	"slices"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/contain/broken"
	"hythe.dev/hythe/internal/model"
)

// threeHosts is a Config of hosts a, b and c, each with a Backend and a Certificate of its own.
func threeHosts() gateway.Config {
	config := gateway.Config{Certificates: []gateway.Certificate{{Name: gateway.DefaultCertificateName, Chain: []byte("x"), Key: []byte("y")}}}
	for _, name := range []string{"a", "b", "c"} {
		key := model.Key{Namespace: "shop", Name: name}
		config.Hosts = append(config.Hosts, gateway.Host{Name: name + ".test", Ingresses: []model.Key{key}, Routes: []gateway.Route{
			{Match: gateway.Prefix, Path: "/", Backend: key.String(), Origin: key}}})
		config.Backends = append(config.Backends, gateway.Backend{Name: key.String(), Endpoints: key.String()})
		config.EndpointSets = append(config.EndpointSets, gateway.EndpointSet{Name: key.String(), Addresses: []netip.AddrPort{netip.MustParseAddrPort("10.244.0.1:80")}})
		config.Certificates = append(config.Certificates, gateway.Certificate{Name: key.String(), ServerNames: []string{name + ".test"}, Chain: []byte("x"), Key: []byte("y")})
	}
	return config
}

// TestPanicCostsOneObject breaks what one resource is made of: all others are as they were, and what is left of b is safe.
func TestPanicCostsOneObject(t *testing.T) {
	whole, problems := Build(threeHosts(), Settings{})
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	for name, c := range map[string]struct {
		breakIt func(*gateway.Config)
		object  string
		kind    Kind
		gone    bool
	}{
		"routes":    {func(c *gateway.Config) { c.Hosts[1].Routes = broken.Slice[gateway.Route]() }, "Ingress shop/b", VirtualHost, false},
		"path":      {func(c *gateway.Config) { c.Hosts[1].Routes[0].Path = broken.Text() }, "Ingress shop/b", VirtualHost, false},
		"addresses": {func(c *gateway.Config) { c.EndpointSets[1].Addresses = broken.Slice[netip.AddrPort]() }, "Ingress shop/b", Endpoints, false},
		"key pair":  {func(c *gateway.Config) { c.Certificates[2].Key = broken.Slice[byte]() }, "Secret shop/b", Secret, true},
		"names":     {func(c *gateway.Config) { c.Certificates[2].ServerNames = broken.Slice[string]() }, "Secret shop/b", Secret, true},
	} {
		t.Run(name, func(t *testing.T) {
			config := threeHosts()
			c.breakIt(&config)
			resources, problems := Build(config, Settings{})
			if !slices.ContainsFunc(problems, func(p model.Problem) bool {
				return p.Object.String() == c.object && p.Reason == model.ReasonInternalError && p.Stack != ""
			}) {
				t.Errorf("no Problem of %s with a stack: %v", c.object, problems)
			}
			for _, kind := range Kinds() {
				for _, name := range whole.Names(kind) {
					was, is := whole.Get(kind, name), resources.Get(kind, name)
					if name == "shop/b" || name == "all/b.test" {
						if kind == c.kind && (is == nil) != c.gone {
							t.Errorf("%s %s: %v, want that it is gone: %v", kind, name, is, c.gone)
						}
						continue
					}
					if is == nil || is.Version != was.Version && (kind != Listener && kind != VirtualHost || c.kind != Secret) {
						t.Errorf("%s %s is not as it was", kind, name)
					}
				}
			}
			if c.kind == Secret && slices.Contains(resources.Get(Listener, httpsListener).Needs, "shop/b") {
				t.Error("the listener waits for a key pair that does not come")
			}
			if c.kind == VirtualHost {
				wantUnavailable(t, resources.Get(VirtualHost, "all/b.test"))
			}
		})
	}
}

// wantUnavailable wants a virtual host that answers 503 to all.
func wantUnavailable(t *testing.T, resource *Resource) {
	t.Helper()
	var host routev3.VirtualHost
	if err := resource.Body.UnmarshalTo(&host); err != nil {
		t.Fatal(err)
	}
	if len(host.Routes) != 1 || host.Routes[0].GetDirectResponse().GetStatus() != 503 || host.Routes[0].GetMatch().GetPrefix() != "/" {
		t.Errorf("%v", &host)
	}
}
