package follow

import (
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"google.golang.org/protobuf/proto"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/envoy/dump"
	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/xds"
	"hythe.dev/hythe/xds/server"
)

var (
	one     = netip.MustParseAddrPort("10.244.1.1:8080")
	two     = netip.MustParseAddrPort("10.244.2.1:8080")
	created = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	changed = time.Date(2026, 4, 1, 10, 0, 0, 0, time.UTC)
)

// world has shop.test with a certificate and a redirect, and other.test without. What Envoy has and what the gateway
// wants is the same.
func world(t *testing.T) (*dump.Config, Want) {
	t.Helper()
	config := envoytest.Config(t, "other.test", one, two)
	chain, key := envoytest.Pair(t, "shop", "shop.test")
	shop := config.Hosts[0]
	shop.Name, shop.Certificate, shop.RedirectHTTPS = "shop.test", "shop/tls", true
	shop.Routes = append([]gateway.Route{{Match: gateway.Prefix, Path: "/gone", Status: 503, Origin: shop.Ingresses[0]}}, shop.Routes...)
	config.Hosts = append(config.Hosts, shop)
	config.Certificates = append(config.Certificates, gateway.Certificate{Name: "shop/tls", ServerNames: []string{"shop.test"}, Chain: chain, Key: key})
	resources, problems := xds.Build(config, xds.Settings{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := Want{
		Config: config, Resources: &resources, Node: "n1", Now: time.Now(),
		Snapshot: &model.Snapshot{Ingresses: model.ObjectsOf(map[model.Key]*networkingv1.Ingress{
			shop.Ingresses[0]: {ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(created), ManagedFields: []metav1.ManagedFieldsEntry{
				{Time: &metav1.Time{Time: changed}}, {Time: &metav1.Time{Time: changed.AddDate(0, 1, 0)}, Subresource: "status"},
			}}},
		})},
	}
	return has(t, config, &resources), want
}

// has is what an Envoy shows that took all resources.
func has(t *testing.T, config gateway.Config, resources *xds.Resources) *dump.Config {
	t.Helper()
	out := &dump.Config{Tables: []dump.RouteTable{{Name: "all"}}}
	for _, kind := range xds.Kinds() {
		for _, name := range resources.Names(kind) {
			r := resources.Get(kind, name)
			body, err := r.Body.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			switch m := body.(type) {
			case *listenerv3.Listener:
				a := m.GetAddress().GetSocketAddress()
				addr := netip.AddrPortFrom(netip.MustParseAddr(a.GetAddress()), uint16(a.GetPortValue()))
				out.Listeners = append(out.Listeners, dump.Listener{Name: name, Version: r.Version, Body: m, Address: addr})
			case *routev3.VirtualHost:
				out.Tables[0].Hosts = append(out.Tables[0].Hosts, m)
			case *clusterv3.Cluster:
				out.Clusters = append(out.Clusters, dump.Cluster{Name: name, Version: r.Version, Body: m, Endpoints: []dump.Endpoint{
					{Address: one, Healthy: true, Health: "HEALTHY"}, {Address: two, Healthy: true, Health: "HEALTHY"},
				}})
			}
		}
	}
	for _, c := range config.Certificates {
		out.Certificates = append(out.Certificates, dump.Certificate{
			Name: c.Name, Version: resources.Get(xds.Secret, c.Name).Version, Chain: []*x509.Certificate{parse(t, c.Chain)},
		})
	}
	return out
}

func parse(t *testing.T, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestFollow breaks one thing each and wants the hop where it shows, and words of what it says.
func TestFollow(t *testing.T) {
	shop := Request{Scheme: "https", Host: "shop.test", Path: "/cart"}
	for name, c := range map[string]struct {
		request Request
		breaks  func(*dump.Config, *Want)
		part    string
		state   asked.State
		status  int
		words   []string // in text, want or remedy of the hop
	}{
		"all is well":        {shop, nil, "endpoints", asked.OK, 200, []string{"2 of 2 take requests"}},
		"redirect":           {Request{Scheme: "http", Host: "shop.test", Path: "/cart?a=b"}, nil, "route", asked.OK, 308, []string{"https://shop.test/cart?a=b"}},
		"escaped slash":      {Request{Scheme: "https", Host: "shop.test", Path: "/a%2Fb"}, nil, "route", asked.OK, 307, []string{"307 to /a/b"}},
		"fragment":           {Request{Scheme: "https", Host: "shop.test", Path: "/a#b"}, nil, "route", asked.Broken, 400, []string{"no #"}},
		"nobody's host":      {Request{Scheme: "http", Host: "nobody.test", Path: "/"}, nil, "route", asked.Broken, 404, []string{"no Ingress of Hythe has the host nobody.test"}},
		"other's connection": {Request{Scheme: "https", Host: "shop.test", Path: "/", ServerName: "other.test"}, nil, "route", asked.Broken, 421, []string{"on a connection of its own", "other.test"}},
		"no listener":        {Request{Scheme: "http", Host: "shop.test", Path: "/", Port: 99}, nil, "listener", asked.Broken, 0, []string{"no listener on port 99"}},
		"http to TLS":        {Request{Scheme: "http", Host: "shop.test", Path: "/", Port: 8443}, nil, "listener", asked.Broken, 0, []string{"use https"}},
		"TLS to http":        {Request{Scheme: "https", Host: "shop.test", Path: "/", Port: 8080}, nil, "listener", asked.Broken, 0, []string{"plain http"}},
		"Service missing": {Request{Scheme: "https", Host: "shop.test", Path: "/gone"}, func(_ *dump.Config, w *Want) {
			w.Problems = []model.Problem{model.Problemf(model.ObjectRef{Kind: "Ingress", Namespace: "shop", Name: "shop"}, "ServiceNotFound", "Service shop/x is missing: create it")}
		}, "route", asked.Broken, 503, []string{"Service shop/x is missing: create it"}},
		"listener not acknowledged": {shop, func(c *dump.Config, _ *Want) {
			l := c.Listener("https")
			l.Version, l.Body = "old", proto.CloneOf(l.Body)
			l.Body.StatPrefix = "old"
		}, "listener", asked.Differs, 200, []string{"not acknowledged yet", "earlier version"}},
		// Envoy shows the version before where it changed filter chains in place.
		"listener changed in place": {shop, func(c *dump.Config, _ *Want) { c.Listener("https").Version = "old" }, "listener", asked.OK, 200, nil},
		"listener refused": {shop, func(c *dump.Config, w *Want) {
			c.Listeners = nil
			w.Refused = []server.Refusal{{Kind: xds.Listener, Name: "https", Reason: "cannot bind: Address already in use"}}
		}, "listener", asked.Broken, 0, []string{"Address already in use"}},
		"host not acknowledged": {shop, func(c *dump.Config, _ *Want) {
			c.Host("all/shop.test").Routes = c.Host("all/shop.test").GetRoutes()[1:]
		}, "host", asked.Differs, 200, []string{"not acknowledged yet", "earlier version"}},
		"host refused": {shop, func(c *dump.Config, w *Want) {
			c.Host("all/shop.test").Routes = c.Host("all/shop.test").GetRoutes()[1:]
			w.Refused = []server.Refusal{{Kind: xds.VirtualHost, Name: "all/shop.test", Version: w.Resources.Get(xds.VirtualHost, "all/shop.test").Version, Reason: "too odd"}}
		}, "host", asked.Differs, 200, []string{"refused", "too odd", "change the object"}},
		"an earlier version was refused": {shop, func(c *dump.Config, w *Want) {
			c.Host("all/shop.test").Routes = c.Host("all/shop.test").GetRoutes()[1:]
			w.Refused = []server.Refusal{{Kind: xds.VirtualHost, Name: "all/shop.test", Version: "old", Reason: "too odd"}}
		}, "host", asked.Differs, 200, []string{"not acknowledged yet"}},
		"host not there yet": {Request{Scheme: "http", Host: "other.test", Path: "/"}, func(c *dump.Config, _ *Want) {
			c.Tables[0].Hosts = c.Tables[0].Hosts[:1] // _default
		}, "host", asked.Differs, 404, []string{"virtual host *", "Envoy does not have it"}},
		"host surplus":            {shop, func(_ *dump.Config, w *Want) { w.Resources = &xds.Resources{} }, "host", asked.Differs, 200, []string{"to be removed"}},
		"certificate not there":   {shop, func(c *dump.Config, _ *Want) { c.Certificates = nil }, "certificate", asked.Broken, 0, []string{"waits for certificate shop/tls"}},
		"certificate expired":     {shop, func(_ *dump.Config, w *Want) { w.Now = time.Now().Add(24 * time.Hour) }, "certificate", asked.Differs, 200, []string{"expired", "into Secret shop/tls"}},
		"certificate for another": {Request{Scheme: "https", Host: "other.test", Path: "/"}, nil, "certificate", asked.Differs, 200, []string{"not valid for other.test", "spec.tls"}},
		"cluster not there":       {shop, func(c *dump.Config, _ *Want) { c.Clusters = nil }, "cluster", asked.Broken, 503, []string{"does not have cluster shop/web:http"}},
		"circuit breaker":         {shop, func(c *dump.Config, _ *Want) { shopCluster(c).Open = []string{"rq_open"} }, "cluster", asked.Broken, 503, []string{"circuit breaker open: rq_open"}},
		"one endpoint ejected": {shop, func(c *dump.Config, _ *Want) {
			shopCluster(c).Endpoints[1] = dump.Endpoint{Address: two, Health: "failed_outlier_check"}
		}, "endpoints", asked.Differs, 200, []string{"1 of 2", "not: 10.244.2.1:8080 failed_outlier_check"}},
		"all endpoints ejected": {shop, func(c *dump.Config, _ *Want) {
			shopCluster(c).Endpoints = []dump.Endpoint{{Address: one, Health: "failed_outlier_check"}, {Address: two, Health: "failed_outlier_check"}}
		}, "endpoints", asked.Broken, 503, []string{"0 of 2", "can connect to none"}},
		"no endpoint":      {shop, func(c *dump.Config, _ *Want) { shopCluster(c).Endpoints = nil }, "endpoints", asked.Broken, 503, []string{"Service shop/web has no ready endpoint", "2 endpoints"}},
		"another endpoint": {shop, func(c *dump.Config, _ *Want) { shopCluster(c).Endpoints = shopCluster(c).Endpoints[:1] }, "endpoints", asked.Differs, 200, []string{"1 of 1", "not acknowledged yet: 2 endpoints"}},
	} {
		t.Run(name, func(t *testing.T) {
			config, want := world(t)
			if c.breaks != nil {
				c.breaks(config, &want)
			}
			got := Follow(config, want, c.request)
			if got.Status != c.status {
				t.Errorf("status %d, want %d", got.Status, c.status)
			}
			var hop asked.Hop
			for i, h := range got.Hops {
				if h.Part == c.part {
					hop = h
				}
				if h.State == asked.Broken && i < len(got.Hops)-1 {
					t.Errorf("the road goes on after %+v", h)
				}
			}
			if hop.State != c.state {
				t.Fatalf("hop %s is %q, want %q: %+v", c.part, hop.State, c.state, got.Hops)
			}
			for _, word := range c.words {
				if !strings.Contains(hop.Text+"\n"+hop.Want+"\n"+hop.Remedy, word) {
					t.Errorf("%q is not said in %+v", word, hop)
				}
			}
		})
	}
}

// TestFollowNamesWhoDecided wants the Ingress of a route, read from Envoy, and when it was last changed, not its status.
func TestFollowNamesWhoDecided(t *testing.T) {
	config, want := world(t)
	want.Config = gateway.Config{} // what the gateway wants by now is no help
	for _, h := range Follow(config, want, Request{Scheme: "https", Host: "shop.test", Path: "/cart"}).Hops {
		if h.Part == "route" && (h.Object != model.ObjectRef{Kind: "Ingress", Namespace: "shop", Name: "shop"} || !h.Since.Equal(changed)) {
			t.Errorf("the route is of %s since %s", h.Object, h.Since)
		}
	}
}

func TestLists(t *testing.T) {
	config, want := world(t)
	shopCluster(config).Endpoints[1].Healthy = false
	config.Tables[0].Hosts = config.Tables[0].Hosts[:2] // without shop.test, which the gateway wants
	hosts := Hosts(config, want)
	if len(hosts) != 3 || hosts[1].Host != "other.test" || hosts[1].Envoy.State != inspect.InUse || hosts[1].Certificate != "default" ||
		hosts[2].Host != "shop.test" || hosts[2].Envoy.State != inspect.Outstanding || hosts[2].Certificate != "shop/tls" || hosts[2].NotAfter.IsZero() {
		t.Errorf("hosts %+v", hosts)
	}
	routes := Routes(config, want, "other.test")
	if len(routes) != 1 || routes[0].Path != "/" || routes[0].Backend != "shop/web:http" || routes[0].Ready != 1 || routes[0].Total != 2 ||
		routes[0].Wanted != 2 || routes[0].Ingress.Name != "shop" || !routes[0].Since.Equal(changed) {
		t.Errorf("routes of other.test %+v", routes)
	}
	routes = Routes(config, want, "shop.test")
	if len(routes) != 2 || routes[0].Path != "/gone" || routes[0].Status != 503 || routes[1].Envoy.State != inspect.Outstanding {
		t.Errorf("routes of shop.test %+v", routes)
	}
	want.Now = time.Now().Add(24 * time.Hour)
	certificates := Certificates(config, want)
	if len(certificates) != 2 || certificates[1].Name != "shop/tls" || certificates[1].Secret.Name != "tls" || len(certificates[1].ServerNames) != 1 ||
		len(certificates[1].Problems) != 1 || !strings.HasPrefix(certificates[1].Problems[0], "expired") || len(certificates[1].Fingerprint) != 64 {
		t.Errorf("certificates %+v", certificates)
	}
}

// shopCluster is that of the shop's pods; the doorkeeper has one, too.
func shopCluster(c *dump.Config) *dump.Cluster {
	for i := range c.Clusters {
		if c.Clusters[i].Name == "shop/web:http" {
			return &c.Clusters[i]
		}
	}
	return &dump.Cluster{}
}
