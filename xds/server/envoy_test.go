package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/anypb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/envoy"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/xds"
)

// A rig is a real Envoy with a Server.
type rig struct {
	t        *testing.T
	dir      string
	settings xds.Settings
	server   *Server
	registry *prometheus.Registry
	stop     context.CancelFunc
	stopped  chan struct{}
	log      *logBuffer
	// stopEnvoy ends Envoy and waits for it.
	stopEnvoy func()
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newRig(t *testing.T) *rig {
	path := testenv.Envoy(t)
	dir, err := os.MkdirTemp("", "hythe") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, dir: dir, log: &logBuffer{}, settings: xds.Settings{
		HTTP: testenv.FreeAddress(t), HTTPS: testenv.FreeAddress(t), Ready: testenv.FreeAddress(t), HTTPSPort: 8443,
	}}
	r.startServer()
	t.Cleanup(func() { r.stopServer() })
	r.startEnvoy(path)
	t.Cleanup(func() {
		r.stopEnvoy()
		if t.Failed() || testing.Verbose() {
			t.Logf("Envoy's log:\n%s", r.log.String())
		}
	})
	return r
}

func (r *rig) startEnvoy(path string) {
	ctx, stop := context.WithCancel(context.Background())
	p, err := envoy.Start(ctx, envoy.Options{
		Path: path, BootstrapFile: filepath.Join(r.dir, "bootstrap.yaml"), Concurrency: 2, DrainTime: 2 * time.Second,
		Bootstrap: envoy.BootstrapOptions{Node: "n1", XDSSocket: r.socket(), AdminSocket: filepath.Join(r.dir, "admin.sock")},
		Output:    r.log,
	})
	if err != nil {
		stop()
		r.t.Fatal(err)
	}
	r.stopEnvoy = sync.OnceFunc(func() {
		stop()
		_ = p.Wait()
	})
}

func (r *rig) socket() string { return filepath.Join(r.dir, "xds.sock") }

func (r *rig) startServer() {
	r.registry = prometheus.NewRegistry()
	s, err := New(Options{
		Socket: r.socket(), Grace: time.Second, Registerer: r.registry, Log: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.server, r.stop, r.stopped = s, stop, make(chan struct{})
	done := r.stopped
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			r.t.Errorf("run server: %v", err)
		}
	}()
}

func (r *rig) stopServer() {
	r.stop()
	<-r.stopped
}

// set builds and sends a config.
func (r *rig) set(config gateway.Config) {
	r.t.Helper()
	resources, problems := xds.Build(config, r.settings)
	for _, p := range problems {
		r.t.Logf("problem: %s", p)
	}
	r.server.Set(resources)
}

// settle waits until Envoy has acknowledged everything.
func (r *rig) settle() Status {
	r.t.Helper()
	var s Status
	eventually(r.t, "Envoy acknowledges all", func() error {
		s = r.server.Status()
		if !s.Ready || s.Outstanding > 0 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	return s
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for: %s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// client makes an HTTP client that connects to Envoy whatever the URL says, with its own server name if sni is set.
func (r *rig) client(sni string) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			target := r.settings.HTTP
			if !strings.HasSuffix(addr, ":80") {
				target = r.settings.HTTPS
			}
			return (&net.Dialer{}).DialContext(ctx, network, target.String())
		},
		TLSClientConfig:   &tls.Config{ServerName: sni, InsecureSkipVerify: true},
		ForceAttemptHTTP2: true,
	}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type answer struct {
	status     int
	body, to   string
	commonName string // of the certificate
}

func get(t *testing.T, c *http.Client, url string) answer {
	t.Helper()
	a, err := tryGet(c, url)
	if err != nil {
		t.Fatalf("get %s: %v", url, err)
	}
	return a
}

func tryGet(c *http.Client, url string) (answer, error) {
	resp, err := c.Get(url)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode, body: string(body), to: resp.Header.Get("Location")}
	if resp.TLS != nil {
		a.commonName = resp.TLS.PeerCertificates[0].Subject.CommonName
	}
	return a, nil
}

// backend is a web server that answers with its name.
func backend(t *testing.T, name string) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

func certificate(t *testing.T, name, common string, servers ...string) gateway.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: common}, DNSNames: servers,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return gateway.Certificate{
		Name: name, ServerNames: servers,
		Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}

// A world is a gateway.Config in the making.
type world struct {
	gateway.Config
}

func newWorld(t *testing.T) *world {
	return &world{gateway.Config{
		Certificates: []gateway.Certificate{certificate(t, gateway.DefaultCertificateName, "default")},
	}}
}

func (w *world) backend(name string, addresses ...netip.AddrPort) {
	w.removeBackend(name)
	w.Backends = append(w.Backends, gateway.Backend{Name: name, Endpoints: name})
	w.EndpointSets = append(w.EndpointSets, gateway.EndpointSet{Name: name, Addresses: addresses})
}

func (w *world) removeBackend(name string) {
	w.Backends = slices.DeleteFunc(slices.Clone(w.Backends), func(b gateway.Backend) bool { return b.Name == name })
	w.EndpointSets = slices.DeleteFunc(slices.Clone(w.EndpointSets), func(s gateway.EndpointSet) bool { return s.Name == name })
}

func (w *world) host(h gateway.Host) {
	if h.Certificate == "" {
		h.Certificate = gateway.DefaultCertificateName
	}
	label := strings.ReplaceAll(strings.ReplaceAll(h.Name, ".", "-"), "*", "any")
	h.Ingresses = []model.Key{{Namespace: "default", Name: label}}
	for i := range h.Routes {
		h.Routes[i].Origin = h.Ingresses[0]
	}
	w.Hosts = slices.DeleteFunc(slices.Clone(w.Hosts), func(o gateway.Host) bool { return o.Name == h.Name })
	w.Hosts = append(w.Hosts, h)
}

func prefix(path, backend string) gateway.Route {
	return gateway.Route{Match: gateway.Prefix, Path: path, Backend: backend}
}

func exact(path, backend string) gateway.Route {
	return gateway.Route{Match: gateway.Exact, Path: path, Backend: backend}
}

func TestEnvoyServesHosts(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	for _, name := range []string{"shop", "api", "exact", "wild", "rest"} {
		w.backend(name, backend(t, name))
	}
	w.backend("none")
	w.Certificates = append(w.Certificates,
		certificate(t, "default/shop-tls", "shop", "shop.example.com"),
		certificate(t, "default/wild-tls", "wild", "*.example.org"))
	w.host(gateway.Host{Name: "shop.example.com", Certificate: "default/shop-tls", RedirectHTTPS: true, Routes: []gateway.Route{
		exact("/exact", "exact"),
		{Match: gateway.Prefix, Path: "/.well-known/acme-challenge", Backend: "api", Plain: true},
		prefix("/none", "none"), prefix("/api", "api"), prefix("/", "shop"),
	}})
	w.host(gateway.Host{Name: "*.example.org", Certificate: "default/wild-tls", Routes: []gateway.Route{prefix("/", "wild")}})
	w.host(gateway.Host{Name: "plain.test", Routes: []gateway.Route{prefix("/only", "api")}})
	w.host(gateway.Host{Name: gateway.CatchAll, Routes: []gateway.Route{prefix("/rest", "rest")}})
	r.set(w.Config)
	status := r.settle()
	if want := []string{"*", "*.example.org", "plain.test", "shop.example.com"}; !slices.Equal(status.Hosts, want) {
		t.Errorf("hosts acknowledged: %v, want %v", status.Hosts, want)
	}
	for _, c := range []struct {
		sni, url string
		want     answer
	}{
		{"", "http://shop.example.com/x?y=1", answer{status: 308, to: "https://shop.example.com:8443/x?y=1"}},
		{"", "http://shop.example.com/.well-known/acme-challenge/t", answer{status: 200, body: "api"}},
		{"", "https://shop.example.com/", answer{status: 200, body: "shop", commonName: "shop"}},
		{"", "https://SHOP.example.com.:8443/api/", answer{status: 200, body: "api", commonName: "shop"}},
		{"", "https://shop.example.com/api", answer{status: 200, body: "api", commonName: "shop"}},
		{"", "https://shop.example.com/apis", answer{status: 200, body: "shop", commonName: "shop"}},
		{"", "https://shop.example.com/exact", answer{status: 200, body: "exact", commonName: "shop"}},
		{"", "https://shop.example.com/exact/", answer{status: 200, body: "shop", commonName: "shop"}},
		{"", "https://shop.example.com/none", answer{status: 503, body: "no healthy upstream", commonName: "shop"}},
		{"", "https://shop.example.com/none/../api", answer{status: 200, body: "api", commonName: "shop"}},
		{"other.test", "https://shop.example.com/", answer{status: 421, commonName: "default"}},
		{"shop.example.com", "https://plain.test/only", answer{status: 421, commonName: "shop"}},
		{"shop.example.com", "https://a.example.org/", answer{status: 421, commonName: "shop"}},
		{"shop.example.com", "https://unknown.test/rest", answer{status: 421, commonName: "shop"}},
		{"shop.example.com", "https://a.b.example.org/rest", answer{status: 421, commonName: "shop"}},
		{"other.test", "https://unknown.test/rest", answer{status: 200, body: "rest", commonName: "default"}},
		{"other.test", "https://plain.test/only", answer{status: 200, body: "api", commonName: "default"}},
		{"a.example.org", "https://b.example.org/", answer{status: 200, body: "wild", commonName: "wild"}},
		{"", "https://a.example.org/", answer{status: 200, body: "wild", commonName: "wild"}},
		{"", "https://a.example.org:1234/", answer{status: 200, body: "wild", commonName: "wild"}},
		{"", "https://a.b.example.org/", answer{status: 404, commonName: "wild"}},
		{"", "https://a.b.example.org/rest", answer{status: 200, body: "rest", commonName: "wild"}},
		{"", "https://example.org/", answer{status: 404, commonName: "default"}},
		{"", "http://A.Example.org/", answer{status: 200, body: "wild"}},
		{"", "http://a.b.example.org/", answer{status: 404}},
		{"", "http://plain.test/only/deeper", answer{status: 200, body: "api"}},
		{"", "http://plain.test/", answer{status: 404}},
		{"", "http://plain.test//only", answer{status: 200, body: "api"}},
		{"", "http://nobody.test/", answer{status: 404}},
		{"", "https://plain.test/only", answer{status: 200, body: "api", commonName: "default"}},
	} {
		if got := get(t, r.client(c.sni), c.url); got != c.want {
			t.Errorf("get %s (server name %q): got %+v, want %+v", c.url, c.sni, got, c.want)
		}
	}
	eventually(t, "readiness", func() error {
		resp, err := http.Get("http://" + r.settings.Ready.String() + "/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	})
}

// TestEnvoyBackendSwitch moves a route from one backend to another while requests flow. None may be lost, also not
// when the old backend is gone at once.
func TestEnvoyBackendSwitch(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	addresses := []netip.AddrPort{backend(t, "v0"), backend(t, "v1")}
	set := func(i int) {
		w.removeBackend(fmt.Sprintf("shop/v%d", (i+1)%2))
		w.backend(fmt.Sprintf("shop/v%d", i%2), addresses[i%2])
		w.host(gateway.Host{Name: "shop.test", Routes: []gateway.Route{prefix("/", fmt.Sprintf("shop/v%d", i%2))}})
		r.set(w.Config)
	}
	set(0)
	r.settle()

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]int{}
	for i := range 8 {
		c := r.client("")
		url := []string{"http://shop.test/", "https://shop.test/"}[i%2]
		load.Go(func() {
			for ctx.Err() == nil {
				a, err := tryGet(c, url)
				mu.Lock()
				answers[fmt.Sprint(a.status, a.body, err)]++
				mu.Unlock()
			}
		})
	}
	for i := 1; i <= 40; i++ {
		set(i)
		time.Sleep(50 * time.Millisecond)
	}
	r.settle()
	stop()
	load.Wait()
	for answer, n := range answers {
		t.Logf("%s: %d", answer, n)
		if answer != "200v0<nil>" && answer != "200v1<nil>" {
			t.Errorf("%d answers were %s", n, answer)
		}
	}
	if len(answers) < 2 {
		t.Errorf("not both backends were seen: %v", answers)
	}
	r.clustersGo("shop/v1") // the last switch was to v0
}

// clustersGo waits until Envoy has no more of the named cluster.
func (r *rig) clustersGo(name string) {
	r.t.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(r.dir, "admin.sock"))
	}}}
	eventually(r.t, "Envoy drops cluster "+name, func() error {
		a, err := tryGet(c, "http://admin/clusters")
		if err == nil && strings.Contains(a.body, name+"::") {
			err = fmt.Errorf("it has %s", a.body)
		}
		return err
	})
}

// TestEnvoyNewHosts wants a new host's first answer that is not 404 to be 200, over http and with its own
// certificate.
func TestEnvoyNewHosts(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	r.set(w.Config)
	r.settle()
	for i := range 30 {
		host := fmt.Sprintf("h%d.test", i)
		name := fmt.Sprintf("shop/h%d", i)
		w.backend(name, backend(t, name))
		w.host(gateway.Host{Name: host, Routes: []gateway.Route{prefix("/", name)}})
		if i%2 == 1 {
			w.Certificates = append(slices.Clone(w.Certificates), certificate(t, name, host, host))
		}
		url := "http://" + host + "/"
		if i%2 == 1 {
			url = "https://" + host + "/"
		}
		r.set(w.Config)
		eventually(t, url, func() error {
			a := get(t, r.client(""), url)
			// A connection that began before the certificate was there has the default one, which a client
			// would refuse; its request may meet the new host, and then gets 421.
			if a.status == 404 || (i%2 == 1 && a.commonName != host) {
				return fmt.Errorf("%+v", a)
			}
			if a.status != 200 {
				t.Fatalf("%s: the first answer was %+v", url, a)
			}
			return nil
		})
	}
}

// pushed sums the resources that were sent.
func (r *rig) pushed() (resources, nacks int) {
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "hythe_xds_resources_total":
				resources += int(m.GetCounter().GetValue())
			case "hythe_xds_nacks_total":
				nacks += int(m.GetCounter().GetValue())
			}
		}
	}
	return resources, nacks
}

// TestEnvoyGatewayRestart wants a new gateway process with the same input to send nothing, and a changed one to
// send the change.
func TestEnvoyGatewayRestart(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	w.Certificates = append(w.Certificates, certificate(t, "default/tls", "shop", "shop.test"))
	for i := range 50 {
		name := fmt.Sprintf("shop/h%d", i)
		w.backend(name, backend(t, name))
		w.host(gateway.Host{Name: fmt.Sprintf("h%d.test", i), Routes: []gateway.Route{prefix("/", name)}})
	}
	r.set(w.Config)
	r.settle()
	first, _ := r.pushed()

	r.stopServer()
	if a := get(t, r.client(""), "http://h7.test/"); a.status != 200 {
		t.Errorf("without a gateway: %+v", a)
	}
	r.startServer()
	r.set(w.Config)
	status := r.settle()
	if n, _ := r.pushed(); n != 0 {
		t.Errorf("%d resources were sent again, %d the first time", n, first)
	}
	if len(status.Hosts) != 51 || len(status.Ingresses) != 50 {
		t.Errorf("%d hosts and %d Ingresses are acknowledged, want 51 and 50", len(status.Hosts), len(status.Ingresses))
	}

	r.stopServer()
	r.startServer()
	w.host(gateway.Host{Name: "h7.test", Routes: []gateway.Route{prefix("/", "shop/h8")}})
	w.removeBackend("shop/h7")
	r.set(w.Config)
	r.settle()
	if a := get(t, r.client(""), "http://h7.test/"); a.body != "shop/h8" {
		t.Errorf("after a restart with a change: %+v", a)
	}
	r.clustersGo("shop/h7")
}

// duplicate gives a packed virtual host another domain.
func duplicate(t *testing.T, body *anypb.Any, domain string) *anypb.Any {
	t.Helper()
	host := new(routev3.VirtualHost)
	if err := body.UnmarshalTo(host); err != nil {
		t.Fatal(err)
	}
	host.Domains = []string{domain}
	out, err := anypb.New(host)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEnvoyRefusal wants what Envoy refuses to hold back nothing else, not even after a restart of the gateway, and
// to be named with Envoy's reason.
func TestEnvoyRefusal(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	for i := range 20 {
		name := fmt.Sprintf("shop/h%d", i)
		w.backend(name, backend(t, name))
		w.host(gateway.Host{Name: fmt.Sprintf("h%d.test", i), Routes: []gateway.Route{prefix("/", name)}})
	}
	// The domain of another host: each of the two is valid for itself.
	bad, _ := xds.Build(w.Config, r.settings)
	other := *bad.Get(xds.VirtualHost, "all/h5.test")
	other.Body, other.Version = duplicate(t, other.Body, "h3.test"), "bad"
	bad.Put(&other)
	r.server.Set(bad)
	status := r.settle()
	if len(status.Refused) != 1 || status.Refused[0].Name != "all/h5.test" || status.Refused[0].Reason == "" {
		t.Fatalf("refused: %+v", status.Refused)
	}
	problems := status.Problems()
	if len(problems) != 1 || problems[0].Object.String() != "Ingress default/h5-test" {
		t.Errorf("problems: %v", problems)
	}
	for i := range 20 {
		want := 200
		if i == 5 {
			want = 404
		}
		if a := get(t, r.client(""), fmt.Sprintf("http://h%d.test/", i)); a.status != want {
			t.Errorf("h%d.test: %+v, want %d", i, a, want)
		}
	}
	_, nacks := r.pushed()
	t.Logf("%d NACKs", nacks)
	r.set(w.Config)
	if status := r.settle(); len(status.Refused) != 0 {
		t.Errorf("refused: %+v", status.Refused)
	}
	if a := get(t, r.client(""), "http://h5.test/"); a.status != 200 {
		t.Errorf("h5.test, when it is good again: %+v", a)
	}
}

// TestEnvoyRotation changes a certificate under open connections: they stay, and new ones get the new certificate.
// No request gets 421, since the stamp is not of the key.
func TestEnvoyRotation(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	w.backend("shop/web", backend(t, "web"))
	w.Certificates = append(w.Certificates, certificate(t, "default/tls", "first", "shop.test"))
	w.host(gateway.Host{Name: "shop.test", Certificate: "default/tls", Routes: []gateway.Route{prefix("/", "shop/web")}})
	r.set(w.Config)
	r.settle()
	open := r.client("")
	want := answer{status: 200, body: "web", commonName: "first"}
	if got := get(t, open, "https://shop.test/"); got != want {
		t.Fatalf("before: %+v", got)
	}
	w.Certificates = []gateway.Certificate{w.Certificates[0], certificate(t, "default/tls", "second", "shop.test")}
	r.set(w.Config)
	r.settle()
	if got := get(t, open, "https://shop.test/"); got != want {
		t.Errorf("on the open connection: %+v", got)
	}
	want.commonName = "second"
	if got := get(t, r.client(""), "https://shop.test/"); got != want {
		t.Errorf("on a new connection: %+v", got)
	}
	time.Sleep(3 * time.Second) // longer than the drain time: the chain was not replaced
	want.commonName = "first"
	if got := get(t, open, "https://shop.test/"); got != want {
		t.Errorf("on the open connection, later: %+v", got)
	}
}

// TestEnvoyManyHosts loads many hosts at once and then changes one.
func TestEnvoyManyHosts(t *testing.T) {
	const hosts = 1500 // three chunks
	r := newRig(t)
	w := newWorld(t)
	address := backend(t, "web")
	for i := range hosts {
		name := fmt.Sprintf("shop/h%d", i)
		w.Backends = append(w.Backends, gateway.Backend{Name: name, Endpoints: name})
		w.EndpointSets = append(w.EndpointSets, gateway.EndpointSet{Name: name, Addresses: []netip.AddrPort{address}})
		key := model.Key{Namespace: "default", Name: fmt.Sprintf("h%d", i)}
		w.Hosts = append(w.Hosts, gateway.Host{
			Name: fmt.Sprintf("h%d.test", i), Ingresses: []model.Key{key}, Routes: []gateway.Route{prefix("/", name)},
		})
	}
	start := time.Now()
	resources, _ := xds.Build(w.Config, r.settings)
	t.Logf("Build: %v", time.Since(start))
	start = time.Now()
	r.server.Set(resources)
	status := r.settle()
	t.Logf("load of %d hosts: %v", hosts, time.Since(start))
	if len(status.Hosts) != hosts+1 || len(status.Ingresses) != hosts {
		t.Errorf("%d hosts, %d Ingresses", len(status.Hosts), len(status.Ingresses))
	}
	for _, i := range []int{0, hosts / 2, hosts - 1} {
		if a := get(t, r.client(""), fmt.Sprintf("http://h%d.test/", i)); a.status != 200 {
			t.Errorf("h%d.test: %+v", i, a)
		}
	}
	before, _ := r.pushed()
	w.Hosts[7].Routes = []gateway.Route{prefix("/", "shop/h8")}
	start = time.Now()
	r.set(w.Config)
	r.settle()
	t.Logf("change of one route: %v", time.Since(start))
	if after, _ := r.pushed(); after != before+1 {
		t.Errorf("%d resources were sent for one changed route", after-before)
	}
}

// TestEnvoyDeadEndpoint wants requests to go to the living endpoint when the other refuses connections.
func TestEnvoyDeadEndpoint(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	w.backend("shop/web", testenv.FreeAddress(t), backend(t, "web"))
	w.host(gateway.Host{Name: "shop.test", Routes: []gateway.Route{prefix("/", "shop/web")}})
	r.set(w.Config)
	r.settle()
	for range 100 {
		if a := get(t, r.client(""), "http://shop.test/"); a.status != 200 {
			t.Fatalf("%+v", a)
		}
	}
}

// TestEnvoyUpgrade speaks through a connection that was upgraded as WebSockets are.
func TestEnvoyUpgrade(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.CopyN(c, rw, 5)
	}))
	t.Cleanup(s.Close)
	w.backend("shop/web", netip.MustParseAddrPort(s.Listener.Addr().String()))
	w.host(gateway.Host{Name: "shop.test", Routes: []gateway.Route{prefix("/", "shop/web")}})
	r.set(w.Config)
	r.settle()
	c, err := net.Dial("tcp", r.settings.HTTP.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	fmt.Fprint(c, "hello")
	got := make([]byte, 5)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "hello" {
		t.Errorf("echo: %q, %v", got, err)
	}
}
