package server

import (
	"fmt"
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/xds"
)

// spoil puts a changed copy of a resource in its place, one that package xds would not make.
func spoil[M proto.Message](t *testing.T, resources *xds.Resources, kind xds.Kind, name string, body M, change func(M)) {
	t.Helper()
	old := resources.Get(kind, name)
	if err := old.Body.UnmarshalTo(body); err != nil {
		t.Fatal(err)
	}
	change(body)
	packed, err := anypb.New(body)
	if err != nil {
		t.Fatal(err)
	}
	bad := *old
	bad.Body, bad.Version = packed, "bad "+old.Version
	resources.Put(&bad)
}

// A refusalCase is a resource that Envoy refuses.
type refusalCase struct {
	kind   xds.Kind
	name   string
	object string // that the Problem is of
	spoil  func(*testing.T, *xds.Resources)
	// Which requests of h3.test, the host with the bad resource, cannot be answered.
	downHTTP, downHTTPS bool
	// others says that https of the other hosts is down, too: they share the resource.
	others bool
}

func refusalCases() []refusalCase {
	noSuchSocket := &corev3.TransportSocket{Name: "no.such.extension"}
	return []refusalCase{
		{xds.Cluster, "shop/h3", "Ingress default/h3-test", func(t *testing.T, r *xds.Resources) {
			spoil(t, r, xds.Cluster, "shop/h3", &clusterv3.Cluster{}, func(m *clusterv3.Cluster) { m.TransportSocket = noSuchSocket })
		}, true, true, false},
		{xds.Endpoints, "shop/h3", "Ingress default/h3-test", func(t *testing.T, r *xds.Resources) {
			spoil(t, r, xds.Endpoints, "shop/h3", &endpointv3.ClusterLoadAssignment{}, func(m *endpointv3.ClusterLoadAssignment) {
				m.Endpoints[0].LbEndpoints[0].GetEndpoint().GetAddress().GetSocketAddress().Address = "not an address"
			})
		}, true, true, false},
		{xds.Secret, "default/h3", "Secret default/h3", func(t *testing.T, r *xds.Resources) {
			spoil(t, r, xds.Secret, "default/h3", &tlsv3.Secret{}, func(m *tlsv3.Secret) {
				m.GetTlsCertificate().PrivateKey = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "no key"}}
			})
		}, false, true, false},
		{xds.VirtualHost, "all/h3.test", "Ingress default/h3-test", func(t *testing.T, r *xds.Resources) {
			spoil(t, r, xds.VirtualHost, "all/h3.test", &routev3.VirtualHost{}, func(m *routev3.VirtualHost) { m.Domains = []string{"h1.test"} })
		}, true, true, false},
		{xds.Listener, "https", "EnvoyResource listener https", func(t *testing.T, r *xds.Resources) {
			spoil(t, r, xds.Listener, "https", &listenerv3.Listener{}, func(m *listenerv3.Listener) { m.FilterChains[0].TransportSocket = noSuchSocket })
		}, false, true, true},
	}
}

// grow adds host hN.test with a certificate and a backend of its own.
func (w *world) grow(t *testing.T, n int) {
	name, host, secret := fmt.Sprintf("shop/h%d", n), fmt.Sprintf("h%d.test", n), fmt.Sprintf("default/h%d", n)
	w.backend(name, backend(t, name))
	w.host(gateway.Host{Name: host, Certificate: secret, Routes: []gateway.Route{prefix("/", name)}})
	w.Certificates = append(slices.Clone(w.Certificates), certificate(t, secret, host, host))
}

// set sends w with the bad resource and wants just that to be refused.
func (c refusalCase) set(t *testing.T, r *rig, w *world) {
	t.Helper()
	resources, _ := xds.Build(w.Config, r.settings)
	c.spoil(t, &resources)
	r.server.Set(resources)
	status := r.settle()
	if len(status.Refused) != 1 || status.Refused[0].Kind != c.kind || status.Refused[0].Name != c.name || status.Refused[0].Reason == "" {
		t.Fatalf("refused: %v in\n%s", status.Refused, status)
	}
	problems := status.Problems()
	if len(problems) != 1 || problems[0].Object.String() != c.object || problems[0].Reason != "RefusedByEnvoy" {
		t.Fatalf("problems: %v", problems)
	}
}

// served wants all hosts to be served but the bad one.
func (c refusalCase) served(t *testing.T, r *rig, hosts int) {
	t.Helper()
	for n := range hosts {
		for _, scheme := range []string{"http", "https"} {
			down := scheme == "http" && n == 3 && c.downHTTP || scheme == "https" && (n == 3 && c.downHTTPS || c.others)
			url := fmt.Sprintf("%s://h%d.test/", scheme, n)
			eventually(t, url, func() error {
				a, err := tryGet(r.client(""), url)
				if up := err == nil && a.status == 200; up == down {
					return fmt.Errorf("%+v, %w", a, err)
				}
				return nil
			})
		}
	}
}

// TestEnvoyRefusesKind lets Envoy refuse one resource of each kind. It is named with Envoy's reason and the object
// behind it, all else is served, later changes too, and all of it again when Envoy starts anew.
func TestEnvoyRefusesKind(t *testing.T) {
	for _, c := range refusalCases() {
		t.Run(c.kind.String(), func(t *testing.T) {
			path := testenv.Envoy(t)
			r := newRig(t)
			w := newWorld(t)
			for n := range 8 {
				w.grow(t, n)
			}
			c.set(t, r, w)
			c.served(t, r, 8)
			w.grow(t, 8)
			c.set(t, r, w)
			c.served(t, r, 9)
			r.stopEnvoy()
			r.startEnvoy(path)
			eventually(t, "the new Envoy connects", func() error {
				if s := r.server.Status(); !s.Ready || s.Streams != 1 {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			c.set(t, r, w)
			c.served(t, r, 9)
			r.set(w.Config)
			if s := r.settle(); len(s.Refused) != 0 {
				t.Fatalf("refused when it is good again: %v", s.Refused)
			}
			c.downHTTP, c.downHTTPS, c.others = false, false, false
			c.served(t, r, 9)
		})
	}
}
