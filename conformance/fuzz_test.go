package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway"
	annotation "hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/internal/envoy"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/xds"
)

// A chooser turns bytes into choices. When they are used up all choices are the first.
type chooser struct{ data []byte }

func (c *chooser) upTo(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b) % n
}

func pick[T any](c *chooser, from []T) T { return from[c.upTo(len(from))] }

// plain is one of a list most times, else as text.
func (c *chooser) plain(good, pieces []string) string {
	if c.upTo(4) > 0 {
		return pick(c, good)
	}
	return c.text(pieces)
}

// text is some pieces of a list, or the next bytes as they are.
func (c *chooser) text(pieces []string) string {
	if c.upTo(8) == 7 {
		n := min(c.upTo(40), len(c.data))
		raw := string(c.data[:n])
		c.data = c.data[n:]
		return raw
	}
	var b strings.Builder
	for range 1 + c.upTo(5) {
		b.WriteString(pick(c, pieces))
	}
	return b.String()
}

var (
	hostPieces = []string{
		"a.example.com", "b", ".", "*.", "example.com", "*", "A.Example.COM", "..", ":80", "xn--bcher-kva.test", "ü", "-",
		"_", "192.0.2.1", "::1", "localhost", strings.Repeat("a", 64), strings.Repeat("long.", 51), "", " ", "\n", "\x00", "%", "/", "*.example.com",
	}
	pathPieces = []string{
		"/", "/a", "/b/", "//", "/.", "/..", "..;", "%2e", "%2F", "%5c", "%00", "%7E", "%zz", "%", ";x=1", "?", "#", "*", "/*", "(.*)", "$1", "[a-z]+",
		"{x}", "|", "^", "\\", "\"", "'", "`", "<>", " ", "\n", "\r\n", "\x00", "\x7f", "é", "\xff", "+", "~", "@", ":", "&", "=", "!", ",",
		strings.Repeat("/long", 500), "/.well-known/acme-challenge", "", "a",
	}
	pathTypes = []*networkingv1.PathType{
		new(networkingv1.PathTypePrefix), new(networkingv1.PathTypeExact), new(networkingv1.PathTypeImplementationSpecific), nil,
		new(networkingv1.PathType("prefix")), new(networkingv1.PathType("")), new(networkingv1.PathType("Regex\n")),
	}
	// annotations are all that ingress-nginx has, and others that decide whose an Ingress is.
	annotations = func() []string {
		out := []string{"kubernetes.io/ingress.class", v1alpha1.CatchAllAnnotation, nginx + "\n"}
		for _, key := range annotation.Keys() {
			out = append(out, nginx+key.Name)
		}
		return out
	}()
	values = []string{
		"true", "false", "FALSE", "", "hythe", "other", "on", "off", "0", "1", "10", "100", "301", "307", "404,503", "10m", "1s",
		"/$1", "/new$request_uri", "/", "https://example.com", "https://b.test/x?y#z", "http://web.shop.svc/auth?u=$request_uri", "https://$host/login?rd=$scheme://$host",
		"HTTP", "HTTPS", "GRPC", "basic", "cookie", "round_robin", "$request_uri", "$http_x_user", "TLSv1.2 TLSv1.3", "CN=(a|b).*", "optional", "headers",
		"*", "10.0.0.0/8, ::1/128", "https://*.example.com, http://a.test", "GET, PUT", "X-Foo, X-Bar", "X-User", "always", "bar(.*)", "shop/tls", "web", "a.alias.test, b.alias.test",
		"error http_502 non_idempotent", "Strict", "~*^http /", "a.test b.test",
		"return 200;\n}", "return 302 https://a.test/$1;", "more_set_headers 'X-Frame-Options: DENY';", "add_header X \"$host\" always; proxy_set_header Y z;", strings.Repeat("x", 5000),
	}
)

// understood are the values that an annotation may have, by its name: a random one is mostly refused.
var understood = sync.OnceValue(func() map[string][]string {
	out := map[string][]string{}
	for _, name := range annotations {
		for _, value := range values {
			if _, notes := annotation.Read(map[string]string{name: value}); len(notes) == 0 {
				out[name] = append(out[name], value)
			}
		}
	}
	return out
})

func annotationFrom(c *chooser) (name, value string) {
	name = pick(c, annotations)
	if good := understood()[name]; len(good) > 0 && c.upTo(4) > 0 {
		return name, pick(c, good)
	}
	return name, pick(c, values)
}

func backendFrom(c *chooser) networkingv1.IngressBackend {
	switch c.upTo(12) {
	case 10:
		return networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{Kind: "Bucket", Name: "x"}}
	case 11:
		return networkingv1.IngressBackend{}
	}
	port := pick(c, []networkingv1.ServiceBackendPort{{Number: 80}, {Number: 80}, {Number: 80}, {Name: "http"}, {Number: 81}, {}, {Number: -1}, {Name: "x:y/z"}})
	return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
		Name: pick(c, []string{"web", "web", "web", "web", "api", "gone", "external", "", "a/b:c", "web\n"}), Port: port,
	}}
}

func ingressFrom(c *chooser) *networkingv1.Ingress {
	ing := &networkingv1.Ingress{}
	for range c.upTo(8) {
		name, value := annotationFrom(c)
		metav1.SetMetaDataAnnotation(&ing.ObjectMeta, name, value)
	}
	if c.upTo(4) == 3 {
		metav1.SetMetaDataAnnotation(&ing.ObjectMeta, nginx+"auth-type", "basic")
		metav1.SetMetaDataAnnotation(&ing.ObjectMeta, nginx+"auth-secret", "users")
	}
	ing.CreationTimestamp.Time = pick(c, []time.Time{{}, time.Unix(1, 0), time.Unix(2, 0), time.Unix(1<<40, 0)})
	ing.Spec.IngressClassName = pick(c, []*string{nil, nil, nil, new("hythe"), new("hythe"), new("other"), new(""), new("gone")})
	if c.upTo(3) == 2 {
		ing.Spec.DefaultBackend = new(backendFrom(c))
	}
	for range c.upTo(4) {
		rule := networkingv1.IngressRule{Host: c.plain([]string{"a.example.com", "b.example.com", "*.example.com", "www.example.com"}, hostPieces)}
		if c.upTo(8) < 7 {
			rule.HTTP = &networkingv1.HTTPIngressRuleValue{}
			for range c.upTo(6) {
				rule.HTTP.Paths = append(rule.HTTP.Paths, networkingv1.HTTPIngressPath{
					Path: c.plain([]string{"/", "/a", "/a/b", "/(.*)", "/b(/|$)(.*)"}, pathPieces), PathType: pick(c, pathTypes), Backend: backendFrom(c),
				})
			}
		}
		ing.Spec.Rules = append(ing.Spec.Rules, rule)
	}
	for range c.upTo(3) {
		entry := networkingv1.IngressTLS{SecretName: pick(c, []string{"tls", "wild", "bad", "gone", "", "../tls"})}
		for range c.upTo(4) {
			entry.Hosts = append(entry.Hosts, c.plain([]string{"a.example.com", "*.example.com"}, hostPieces))
		}
		ing.Spec.TLS = append(ing.Spec.TLS, entry)
	}
	return ing
}

// A maker makes snapshots of bytes. The Secrets are made once.
type maker struct{ secrets map[string]*corev1.Secret }

func newMaker(t testing.TB) *maker {
	secret := func(names ...string) *corev1.Secret {
		chain, key := makePair(t, names...)
		return &corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key}}
	}
	authority := secret("a.example.com")
	authority.Data[corev1.ServiceAccountRootCAKey] = authority.Data[corev1.TLSCertKey]
	bad := secret("bad.example.com")
	bad.Data[corev1.TLSPrivateKeyKey] = secret("x").Data[corev1.TLSPrivateKeyKey]
	return &maker{map[string]*corev1.Secret{"tls": authority, "wild": secret("*.example.com", "xn--bcher-kva.test"), "bad": bad}}
}

func (m *maker) snapshot(data []byte) *model.Snapshot {
	c := &chooser{data}
	s := &model.Snapshot{
		IngressClasses: map[string]*networkingv1.IngressClass{},
	}
	class := &networkingv1.IngressClass{}
	class.Name, class.Spec.Controller = "hythe", v1alpha1.IngressController
	class.Annotations = map[string]string{v1alpha1.CatchAllAnnotation: pick(c, []string{"*", "", "shop", "shop, other", "\n"})}
	s.IngressClasses["hythe"] = class
	for _, namespace := range []string{"shop", "other"} {
		key := func(name string) model.Key { return model.Key{Namespace: namespace, Name: name} }
		ports := []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "udp", Port: 81, Protocol: corev1.ProtocolUDP}}
		s.Services = s.Services.With(key("web"), &corev1.Service{Spec: corev1.ServiceSpec{Ports: ports}})
		s.Services = s.Services.With(key("api"), &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
		s.Services = s.Services.With(key("external"), &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, Ports: ports}})
		s.ConfigMaps = s.ConfigMaps.With(key("headers"), &corev1.ConfigMap{Data: map[string]string{"X-Frame-Options": "DENY"}})
		s.Secrets = s.Secrets.With(key("users"), &corev1.Secret{Data: map[string][]byte{"auth": []byte("ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")}})
		for _, name := range slices.Sorted(maps.Keys(m.secrets)) {
			if c.upTo(4) > 0 {
				s.Secrets = s.Secrets.With(key(name), m.secrets[name])
			}
		}
	}
	for i := range 1 + c.upTo(5) {
		s.Ingresses = s.Ingresses.With(model.Key{Namespace: pick(c, []string{"shop", "other"}), Name: fmt.Sprintf("i%d", i)}, ingressFrom(c))
	}
	return s
}

// build builds twice and checks what must hold whatever the objects are.
func build(t *testing.T, s *model.Snapshot) xds.Resources {
	t.Helper()
	settings := gateway.Settings{WithoutClass: true, OwnPorts: model.DefaultOwnPorts(), Now: time.Unix(1, 0)}
	config, problems := gateway.Build(s, settings)
	if err := gateway.Check(config); err != nil {
		t.Fatalf("%v in\n%s", err, config)
	}
	for _, p := range problems {
		if len(p.Message) > 1000 || strings.ContainsAny(p.Message, "\n\x00") {
			t.Errorf("a Problem that does not fit into a line: %q", p.Message)
		}
	}
	resources, refused := xds.Build(config, xds.Settings{})
	if len(refused) > 0 {
		t.Fatalf("what the gateway serves, Envoy would refuse:\n%s", problemText(refused))
	}
	config, _ = gateway.Build(s, settings)
	again, _ := xds.Build(config, xds.Settings{})
	for _, kind := range xds.Kinds() {
		if !slices.Equal(resources.Names(kind), again.Names(kind)) {
			t.Fatalf("two Builds differ: %v and %v", resources.Names(kind), again.Names(kind))
		}
		for r := range resources.All(kind) {
			if !proto.Equal(r.Body, again.Get(kind, r.Name).Body) || r.Version != again.Get(kind, r.Name).Version {
				t.Fatalf("%s %s differs when it is built again", kind, r.Name)
			}
			body, err := r.Body.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			if err := body.(interface{ ValidateAll() error }).ValidateAll(); err != nil {
				t.Fatalf("%s %s: %v", kind, r.Name, err)
			}
			for _, need := range r.Needs {
				if kind == xds.VirtualHost && resources.Get(xds.Cluster, need) == nil {
					t.Fatalf("%s needs cluster %s, which is not there", r.Name, need)
				}
			}
		}
	}
	return resources
}

// FuzzEnvoy wants any Ingresses to give valid resources, the same each time. What Envoy itself says of such ones is
// TestEnvoyValidates.
func FuzzEnvoy(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		f.Add(randomBytes(random))
	}
	m := newMaker(f)
	f.Fuzz(func(t *testing.T, data []byte) { build(t, m.snapshot(data)) })
}

func randomBytes(random *rand.Rand) []byte {
	data := make([]byte, 50+random.IntN(1000))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return data
}

// TestEnvoyValidates asks a real Envoy about a sample of what FuzzEnvoy makes, and about all that it found: many
// configurations in one bootstrap, since Envoy's start is most of the time. If it refuses them it is asked for each.
func TestEnvoyValidates(t *testing.T) {
	path := testenv.Envoy(t)
	m := newMaker(t)
	random := rand.New(rand.NewPCG(2, 2))
	sample := fuzzCorpus(t, "testdata/fuzz/FuzzEnvoy")
	for len(sample) < 300 {
		sample = append(sample, randomBytes(random))
	}
	all := make([]xds.Resources, len(sample))
	for i := range sample {
		all[i] = build(t, m.snapshot(sample[i]))
	}
	if out, err := validate(t, path, all); err != nil {
		for i := range all {
			if out, err := validate(t, path, all[i:i+1]); err != nil {
				t.Fatalf("Envoy refuses: %v\n%s\nof\n%s", err, out, &all[i])
			}
		}
		t.Fatalf("Envoy refuses all, but none alone: %v\n%s", err, out)
	}
}

// TestEnvoyTakesAnnotations asks a real Envoy about each value of each annotation that is understood, and about random
// sets of them: each Ingress has a host of its own.
func TestEnvoyTakesAnnotations(t *testing.T) {
	path := testenv.Envoy(t)
	m := newMaker(t)
	random := rand.New(rand.NewPCG(3, 3))
	var sets []map[string]string
	for _, name := range annotations {
		for _, value := range understood()[name] {
			sets = append(sets, map[string]string{name: value})
		}
	}
	alone := len(sets)
	for range 500 {
		set := map[string]string{}
		for range 2 + random.IntN(8) {
			name := annotations[random.IntN(len(annotations))]
			if good := understood()[name]; len(good) > 0 {
				set[name] = good[random.IntN(len(good))]
			}
		}
		sets = append(sets, set)
	}
	world := func(sets ...map[string]string) xds.Resources {
		s := m.snapshot(bytes.Repeat([]byte{1}, 100))
		s.Ingresses = model.Objects[*networkingv1.Ingress]{}
		for i, set := range sets {
			s.Ingresses = s.Ingresses.With(model.Key{Namespace: "shop", Name: fmt.Sprint(i)}, annotated(fmt.Sprintf("h%d.example.com", i), set))
		}
		return build(t, s)
	}
	out, err := validate(t, path, []xds.Resources{world(sets...)})
	if err == nil {
		t.Logf("%d values alone, %d sets", alone, len(sets)-alone)
		return
	}
	for len(sets) > 1 {
		half := len(sets) / 2
		if _, err := validate(t, path, []xds.Resources{world(sets[:half]...)}); err != nil {
			sets = sets[:half]
		} else {
			sets = sets[half:]
		}
	}
	t.Errorf("Envoy refuses: %v\n%s\nof %v", err, out, sets)
}

func annotated(host string, annotations map[string]string) *networkingv1.Ingress {
	ing := &networkingv1.Ingress{}
	ing.Annotations = annotations
	rule := networkingv1.IngressRule{Host: host}
	rule.HTTP = &networkingv1.HTTPIngressRuleValue{}
	for _, path := range []string{"/", "/b(/|$)(.*)", "/c"} {
		rule.HTTP.Paths = append(rule.HTTP.Paths, networkingv1.HTTPIngressPath{
			Path: path, PathType: new(networkingv1.PathTypePrefix),
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}},
		})
	}
	ing.Spec.Rules = []networkingv1.IngressRule{rule}
	ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{host}, SecretName: "wild"}}
	return ing
}

// fuzzCorpus reads what a fuzz target of one []byte argument has found.
func fuzzCorpus(t *testing.T, dir string) [][]byte {
	t.Helper()
	var out [][]byte
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, value, _ := strings.Cut(string(text), "[]byte(")
		var data string
		if _, err := fmt.Sscanf(value, "%q", &data); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out = append(out, []byte(data))
	}
	return out
}

// validate asks Envoy about the clusters, secrets, listeners and hosts of some configurations. Names are made unique;
// the hosts of a configuration are those of a listener.
func validate(t *testing.T, path string, all []xds.Resources) ([]byte, error) {
	t.Helper()
	static := map[string][]json.RawMessage{}
	add := func(kind string, m proto.Message) {
		text, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		static[kind] = append(static[kind], text)
	}
	for i := range all {
		table := &routev3.RouteConfiguration{Name: fmt.Sprint(i), ValidateClusters: wrapperspb.Bool(false)}
		for _, name := range all[i].Names(xds.VirtualHost) {
			host := new(routev3.VirtualHost)
			unpack(t, all[i].Get(xds.VirtualHost, name), host)
			table.VirtualHosts = append(table.VirtualHosts, host)
		}
		for _, name := range all[i].Names(xds.Cluster) {
			cluster := new(clusterv3.Cluster)
			unpack(t, all[i].Get(xds.Cluster, name), cluster)
			cluster.Name = fmt.Sprintf("%d %s", i, name)
			add("clusters", cluster)
		}
		for _, name := range all[i].Names(xds.Listener) {
			listener := new(listenerv3.Listener)
			unpack(t, all[i].Get(xds.Listener, name), listener)
			listener.Name = fmt.Sprintf("%d %s", i, name)
			listener.Address.GetSocketAddress().Address = fmt.Sprintf("127.1.%d.%d", i/250, 1+i%250)
			add("listeners", listener)
		}
		if i == 0 {
			for _, name := range all[i].Names(xds.Secret) {
				secret := new(tlsv3.Secret)
				unpack(t, all[i].Get(xds.Secret, name), secret)
				if len(secret.GetTlsCertificate().GetPrivateKey().GetInlineBytes()) > 0 {
					add("secrets", secret)
				}
			}
		}
		add("listeners", withRoutes(t, i, table))
	}
	bootstrap, err := json.Marshal(map[string]any{
		"node":             map[string]string{"id": "n", "cluster": "c"},
		"layered_runtime":  productRuntime(t),
		"static_resources": static,
		"dynamic_resources": map[string]any{"ads_config": map[string]any{
			"api_type": "DELTA_GRPC", "transport_api_version": "V3",
			"grpc_services": []any{map[string]any{"google_grpc": map[string]string{"target_uri": "127.0.0.1:1", "stat_prefix": "x"}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, bootstrap, 0o600); err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), path, "--mode", "validate", "-c", file, "--log-level", "error").CombinedOutput()
}

// productRuntime are the runtime values, Envoy's limits among them, that the product's own bootstrap has.
func productRuntime(t *testing.T) json.RawMessage {
	t.Helper()
	text, err := envoy.Bootstrap(envoy.BootstrapOptions{Node: "n", XDSSocket: "/unused"})
	if err != nil {
		t.Fatal(err)
	}
	var bootstrap struct {
		Runtime json.RawMessage `json:"layered_runtime"`
	}
	if err := yaml.Unmarshal(text, &bootstrap); err != nil {
		t.Fatal(err)
	}
	return bootstrap.Runtime
}

func unpack(t *testing.T, r *xds.Resource, into proto.Message) {
	t.Helper()
	if err := r.Body.UnmarshalTo(into); err != nil {
		t.Fatal(err)
	}
}

// withRoutes is a listener that holds a route table itself.
func withRoutes(t *testing.T, n int, table *routev3.RouteConfiguration) *listenerv3.Listener {
	t.Helper()
	pack := func(m proto.Message) *anypb.Any {
		out, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	listener := new(listenerv3.Listener)
	if err := protojson.Unmarshal(fmt.Appendf(nil,
		`{"name": "routes %d", "address": {"socket_address": {"address": "127.2.%d.%d", "port_value": 80}}}`, n, n/250, 1+n%250), listener); err != nil {
		t.Fatal(err)
	}
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix:     "x",
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: table},
		HttpFilters: []*hcmv3.HttpFilter{{
			Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{})},
		}},
	}
	listener.FilterChains = []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
		Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(manager)},
	}}}}
	return listener
}
