package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/testenv"
)

// newSharedWorld has hosts h0.test … with certificates of their own, a and b.test with one for both, plain.test without one, and
// a catch-all.
func newSharedWorld(t *testing.T, hosts int) *world {
	w := newWorld(t)
	for n := range hosts {
		w.grow(t, n)
	}
	w.backend("shop/web", backend(t, "web"))
	w.Certificates = append(w.Certificates, certificate(t, "default/both", "both", "a.test", "b.test"))
	for name, certificate := range map[string]string{"a.test": "default/both", "b.test": "default/both", "plain.test": "", "*": ""} {
		w.host(gateway.Host{Name: name, Certificate: certificate, Routes: []gateway.Route{prefix("/", "shop/web")}})
	}
	return w
}

// TestEnvoySharedChain asks for hosts that share a filter chain: each has its certificate, and answers for no other's.
func TestEnvoySharedChain(t *testing.T) {
	r := newRig(t)
	r.settings.OwnChains, r.settings.HSTS = 1, "max-age=1"
	w := newSharedWorld(t, 3)
	w.backend("shop/headers", headerBackend(t))
	w.host(gateway.Host{Name: "plain.test", Routes: []gateway.Route{prefix("/", "shop/headers")}})
	r.set(w.Config)
	if status := r.settle(); len(status.Refused) != 0 {
		t.Fatalf("refused: %v", status.Refused)
	}
	for _, c := range []struct {
		sni, host  string
		status     int
		commonName string
	}{
		{"h0.test", "h0.test", 200, "h0.test"},
		{"H1.Test", "h1.test", 200, "h1.test"},
		{"h1.test", "H1.TEST", 200, "h1.test"},
		{"h0.test", "h1.test", 421, "h0.test"},
		{"h1.test", "plain.test", 421, "h1.test"},
		{"h1.test", "unknown.test", 421, "h1.test"},
		{"a.test", "b.test", 200, "both"},
		{"a.test", "h0.test", 421, "both"},
		{"plain.test", "plain.test", 200, "default"},
		{"plain.test", "h0.test", 421, "default"},
		{"unknown.test", "unknown.test", 200, "default"},
		{"unknown.test", "h0.test", 421, "default"},
		{"", "unknown.test", 200, "default"},
		{"", "plain.test", 200, "default"},
		{"", "h0.test", 421, "default"},
		{"default", "h0.test", 421, "default"},
		{"default/h0", "h0.test", 421, "h0.test"},
		{"default/none", "h0.test", 0, ""},
		{"clients:default/ca", "plain.test", 0, ""},
		{"\xff\xfe.test", "h0.test", 0, ""},
	} {
		a, header, err := r.ask(c.sni, c.host)
		if c.status == 0 {
			if err == nil {
				t.Errorf("server name %q, host %s: %+v, want no handshake", c.sni, c.host, a)
			}
			continue
		}
		if err != nil || a.status != c.status || a.commonName != c.commonName {
			t.Errorf("server name %q, host %s: %+v, %v, want %d with %s", c.sni, c.host, a, err, c.status, c.commonName)
		}
		if got, want := header.Get("Strict-Transport-Security") != "", c.commonName != "default" && a.status == 200; got != want && a.status == 200 {
			t.Errorf("server name %q, host %s: HSTS %t, want %t", c.sni, c.host, got, want)
		}
		if strings.Contains(a.body, "X-Hythe") {
			t.Errorf("a pod sees %s", a.body)
		}
	}
	if status := r.settle(); len(status.Refused) != 0 || status.Streams != 1 {
		t.Errorf("afterwards: %v", status)
	}
	if a := get(t, r.client("h2.test"), "https://h2.test/"); a.commonName != "h2.test" {
		t.Errorf("a host that was not asked for before: %+v", a)
	}
	if text := r.log.String(); strings.Contains(text, "disconnected") {
		t.Error("a server name ended Envoy's stream")
	}
}

// headerBackend answers with the names of the headers that it got.
func headerBackend(t *testing.T) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			fmt.Fprintln(w, name)
		}
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// ask makes a connection of its own with a server name, and asks for a host on it.
func (r *rig) ask(sni, host string) (answer, http.Header, error) {
	client := r.client(sni)
	transport := client.Transport.(*http.Transport)
	defer transport.CloseIdleConnections()
	transport.ForceAttemptHTTP2 = false
	transport.DialTLSContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		name := sni
		if name == "" {
			name = "127.0.0.1" // of which Go sends none
		}
		d := tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}}
		return d.DialContext(ctx, network, r.settings.HTTPS.String())
	}
	request, err := http.NewRequest(http.MethodGet, "https://any.test/", nil)
	if err != nil {
		return answer{}, nil, err
	}
	request.Host = host
	request.Header.Set("X-Hythe-Server-Name", host)
	request.Header.Set("X-Hythe-Same-Name", "true")
	resp, err := client.Do(request)
	if err != nil {
		return answer{}, nil, err
	}
	defer resp.Body.Close()
	body := make([]byte, 4096)
	n, _ := resp.Body.Read(body)
	return answer{status: resp.StatusCode, body: string(body[:n]), commonName: resp.TLS.PeerCertificates[0].Subject.CommonName}, resp.Header, nil
}

// TestEnvoySharedMoves moves hosts between chains of their own and the shared one, and rotates certificates meanwhile: no
// request and no handshake fails, and every host has its own certificate at all times.
func TestEnvoySharedMoves(t *testing.T) {
	const hosts = 8
	r := newRig(t)
	w := newSharedWorld(t, hosts)
	r.set(w.Config)
	r.settle()
	var asked, lost atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	check := func(a answer, err error, host string) {
		asked.Add(1)
		if err != nil || a.status != 200 || a.commonName != host {
			lost.Add(1)
			t.Errorf("%s: %+v, %v", host, a, err)
		}
	}
	for n := range 4 {
		clients.Go(func() { // connections of their own
			for i := n; ctx.Err() == nil && lost.Load() < 10; i++ {
				host := fmt.Sprintf("h%d.test", i%hosts)
				a, _, err := r.ask(host, host)
				check(a, err, host)
			}
		})
		clients.Go(func() { // one connection that stays
			host := fmt.Sprintf("h%d.test", n)
			client := r.client(host)
			for ctx.Err() == nil && lost.Load() < 10 {
				a, err := tryGet(client, "https://"+host+"/")
				check(a, err, host)
			}
		})
	}
	for i := range 12 {
		r.settings.OwnChains = []int{1, 100, 5, 1, 7, 3}[i%6]
		for c := range w.Certificates {
			if w.Certificates[c].Name == fmt.Sprintf("default/h%d", i%hosts) {
				w.Certificates[c] = certificate(t, w.Certificates[c].Name, fmt.Sprintf("h%d.test", i%hosts), w.Certificates[c].ServerNames...)
			}
		}
		r.set(w.Config)
		r.settle()
		time.Sleep(200 * time.Millisecond)
	}
	time.Sleep(3 * time.Second) // Envoy's drain time
	stop()
	clients.Wait()
	t.Logf("%d requests, %d lost", asked.Load(), lost.Load())
}

// TestEnvoySharedRotation rotates the certificate of a host on the shared chain, and restarts the gateway: what Envoy has is not
// sent again.
func TestEnvoySharedRotation(t *testing.T) {
	r := newRig(t)
	r.settings.OwnChains = 1
	w := newSharedWorld(t, 3)
	r.set(w.Config)
	r.settle()
	for _, host := range []string{"h0.test", "h1.test", "h2.test"} {
		get(t, r.client(host), "https://"+host+"/")
	}
	for i, c := range w.Certificates {
		if c.Name == "default/h1" {
			w.Certificates[i] = certificate(t, c.Name, "new", c.ServerNames...)
		}
	}
	r.set(w.Config)
	r.settle()
	eventually(t, "the new certificate", func() error {
		if a := get(t, r.client("h1.test"), "https://h1.test/"); a.commonName != "new" || a.status != 200 {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	r.stopServer()
	if a := get(t, r.client("h2.test"), "https://h2.test/"); a.status != 200 {
		t.Errorf("without a gateway: %+v", a)
	}
	r.startServer()
	r.set(w.Config)
	eventually(t, "Envoy comes back", func() error {
		if !r.server.Status().Ready {
			return errors.New("not ready")
		}
		return nil
	})
	r.settle()
	if got := r.pushedOf("secret"); got != 0 {
		t.Errorf("%v secrets were sent again", got)
	}
	if a := get(t, r.client("h0.test"), "https://h0.test/"); a.status != 200 || a.commonName != "h0.test" {
		t.Errorf("afterwards: %+v", a)
	}
}

// TestEnvoyGuests lets clients come with more names that are nobody's than Envoy may have at a time.
func TestEnvoyGuests(t *testing.T) {
	testenv.Envoy(t)
	r := newRig(t)
	r.settings.OwnChains = 1
	w := newSharedWorld(t, 2)
	r.set(w.Config)
	r.settle()
	get(t, r.client("h0.test"), "https://h0.test/")
	var clients sync.WaitGroup
	for n := range 4 {
		clients.Go(func() {
			for i := n; i < mostGuests+300; i += 4 {
				c, err := tls.Dial("tcp", r.settings.HTTPS.String(), &tls.Config{ServerName: fmt.Sprintf("g%d.guest.test", i), InsecureSkipVerify: true})
				if err != nil {
					t.Errorf("guest %d: %v", i, err)
					return
				}
				c.Close()
			}
		})
	}
	clients.Wait()
	eventually(t, "guests are withdrawn", func() error {
		if n := r.guests(); n > mostGuests {
			return fmt.Errorf("%d guests", n)
		}
		return nil
	})
	for sni, want := range map[string]string{"h0.test": "h0.test", "h1.test": "h1.test", "g0.guest.test": "default"} {
		a, _, err := r.ask(sni, sni)
		if err != nil || a.status != 200 || a.commonName != want {
			t.Errorf("%s: %+v, %v", sni, a, err)
		}
	}
	t.Logf("%d guests", r.guests())
}

// guests counts the server names that are nobody's and have a certificate in Envoy.
func (r *rig) guests() int {
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	count := 0
	for s := range r.server.sessions {
		s.mu.Lock()
		for name := range s.machine.lanes[2].held {
			if strings.HasSuffix(name, ".guest.test") {
				count++
			}
		}
		s.mu.Unlock()
	}
	return count
}

// pushedOf counts the resources of a kind that were sent.
func (r *rig) pushedOf(kind string) float64 {
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "hythe_xds_resources_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == kind {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
