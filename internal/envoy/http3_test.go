package envoy_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/envoy/envoytest"
)

// byHTTP3 is a client that comes by QUIC with one server name, on one connection as long as that lives.
func byHTTP3(t *testing.T, r *envoytest.Rig, serverName string) *http.Client {
	t.Helper()
	transport := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: serverName},
		Dial: func(ctx context.Context, _ string, tlsConfig *tls.Config, config *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, r.Settings.HTTPS.String(), tlsConfig, config)
		},
	}
	t.Cleanup(func() { _ = transport.Close() })
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func getFrom(t *testing.T, client *http.Client, host string, header http.Header) (*http.Response, http.Header, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		request.Header = header
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	var saw http.Header
	_ = json.NewDecoder(response.Body).Decode(&saw)
	return response, saw, nil
}

// altService is what https says about HTTP/3 to who asks for a host.
func altService(t *testing.T, r *envoytest.Rig, host string) string {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", r.Settings.HTTPS.String())
		},
	}
	defer transport.CloseIdleConnections()
	response, _, err := getFrom(t, &http.Client{Transport: transport, Timeout: 10 * time.Second}, host, nil)
	if err != nil || response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
		t.Fatalf("https of %s: %v %v", host, response, err)
	}
	return response.Header.Get("Alt-Svc")
}

// TestHTTP3 has the same hosts as https, with the same rules.
func TestHTTP3(t *testing.T) {
	r := envoytest.New(t, nil)
	c := envoytest.Config(t, "a.test", tellHeaders(t))
	withOwnChain(t, &c)
	set(t, r, c)
	if got := altService(t, r, "a.test"); got != "" {
		t.Errorf("without HTTP/3 Alt-Svc is %q", got)
	}
	c.Listen.HTTP3 = 443
	set(t, r, c)
	for _, host := range []string{"a.test", "b.test"} {
		if got := altService(t, r, host); got != `h3=":443"; ma=3600` {
			t.Errorf("Alt-Svc of %s is %q", host, got)
		}
		client := byHTTP3(t, r, host)
		response, saw, err := getFrom(t, client, host, http.Header{"X-Forwarded-For": {"6.6.6.6"}, "X-Real-Ip": {"6.6.6.6"}})
		if err != nil || response.StatusCode != http.StatusOK || response.ProtoMajor != 3 {
			t.Fatalf("%s by HTTP/3: %v %v", host, response, err)
		}
		if saw.Get("X-Forwarded-Proto") != "https" || saw.Get("X-Forwarded-For") == "6.6.6.6" || saw.Get("X-Real-Ip") != "127.0.0.1" {
			t.Errorf("the pod sees %v", saw)
		}
		other := map[string]string{"a.test": "b.test", "b.test": "a.test"}[host]
		if response, _, err := getFrom(t, client, other, nil); err != nil || response.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s on a connection for %s: %v %v, want 421", other, host, response, err)
		}
	}
}

// TestHTTP3BesideSharedChain has no HTTP/3, and says nothing of it, for hosts without a chain of their own.
func TestHTTP3BesideSharedChain(t *testing.T) {
	r := envoytest.New(t, nil)
	c := envoytest.Config(t, "a.test", tellHeaders(t))
	withOwnChain(t, &c)
	c.Listen.HTTP3 = 8443
	for i, name := range []string{"old.test", "new.test"} {
		chain, key := envoytest.Pair(t, name, name)
		since := time.Unix(int64(i), 0)
		c.Certificates = append(c.Certificates, gateway.Certificate{Name: "shop/" + name, Chain: chain, Key: key, ServerNames: []string{name}, Since: since})
		host := c.Hosts[0]
		host.Name, host.Certificate = name, "shop/"+name
		c.Hosts = append(c.Hosts, host)
	}
	c.Certificates[1].Since = time.Unix(-1, 0) // a.test
	slices.SortFunc(c.Certificates, func(a, b gateway.Certificate) int { return strings.Compare(a.Name, b.Name) })
	r.Settings.OwnChains = 3 // the default one, a.test, old.test
	set(t, r, c)
	for host, want := range map[string]bool{"a.test": true, "old.test": true, "new.test": false, "b.test": false} {
		if got := altService(t, r, host); (got != "") != want {
			t.Errorf("Alt-Svc of %s is %q", host, got)
		}
		response, _, err := getFrom(t, byHTTP3(t, r, host), host, nil)
		if want && (err != nil || response.StatusCode != http.StatusOK) {
			t.Errorf("%s by HTTP/3: %v %v", host, response, err)
		}
		if !want && err == nil {
			t.Errorf("%s is there by HTTP/3: %d", host, response.StatusCode)
		}
	}
}

// TestHTTP3LivesThroughCertificates asks on one connection while certificates come.
func TestHTTP3LivesThroughCertificates(t *testing.T) {
	r := envoytest.New(t, nil)
	c := envoytest.Config(t, "a.test", tellHeaders(t))
	withOwnChain(t, &c)
	c.Listen.HTTP3 = 443
	set(t, r, c)
	client := byHTTP3(t, r, "a.test")
	if _, _, err := getFrom(t, client, "a.test", nil); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan []string, 1)
	go func() {
		var lost []string
		n := 0
		for {
			select {
			case <-stop:
				t.Logf("%d requests", n)
				ended <- lost
				return
			default:
			}
			n++
			if response, _, err := getFrom(t, client, "a.test", nil); err != nil || response.StatusCode != http.StatusOK {
				lost = append(lost, fmt.Sprint(response, err))
			}
		}
	}()
	for i := range 5 {
		name := fmt.Sprintf("z%d.test", i)
		chain, key := envoytest.Pair(t, name, name)
		c.Certificates = append(c.Certificates, gateway.Certificate{Name: "shop/" + name, Chain: chain, Key: key, ServerNames: []string{name}})
		set(t, r, c)
		response, _, err := getFrom(t, byHTTP3(t, r, name), "b.test", nil)
		if err != nil || response.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s by HTTP/3: %v %v", name, response, err)
		}
	}
	time.Sleep(3 * time.Second) // the traffic goes on for longer than the listeners before drain
	close(stop)
	if lost := <-ended; len(lost) > 0 {
		t.Errorf("%d requests are lost, first: %s", len(lost), lost[0])
	}
}
