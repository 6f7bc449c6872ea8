package server

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/xds"
)

// recorder is a web server that shows its requests.
func recorder(t *testing.T, see func(*http.Request)) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { see(req) }))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// rawGet asks for a target as it stands, which net/http's client would not.
func rawGet(t *testing.T, address, host, target string, header ...string) (*http.Response, error) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", target, host)
	for _, h := range header {
		fmt.Fprintf(conn, "%s\r\n", h)
	}
	fmt.Fprint(conn, "\r\n")
	return http.ReadResponse(bufio.NewReader(conn), nil)
}

// TestEnvoyPaths compares CanonicalPath with what Envoy makes of each character, raw and escaped: a route for the
// one must match a request for the other.
func TestEnvoyPaths(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	seen := make(chan string, 1000)
	w.backend("b", recorder(t, func(req *http.Request) { seen <- req.RequestURI }))
	w.backend("exact", recorder(t, func(req *http.Request) { seen <- "exact" }))
	routes := []gateway.Route{}
	var targets []string
	for c := 0x21; c < 0x7f; c++ {
		if c != '?' && c != '#' && c != '\\' {
			targets = append(targets, "/x"+string(rune(c))+"y")
		}
		targets = append(targets, fmt.Sprintf("/x%%%02Xy", c), fmt.Sprintf("/x%%%02xy", c))
	}
	targets = append(targets, "/x%20y", "/x%C3%9Fy", "/x%c3%9fy", "/api(/|$)(.*)", "/foo/[A-Z0-9]{3}")
	for _, target := range targets {
		routes = append(routes, exact("/route"+target, "exact"))
	}
	w.host(gateway.Host{Name: "a.example", Routes: append(routes, prefix("/", "b"))})
	r.set(w.Config)
	r.settle()
	compared := 0
	for _, target := range targets {
		resp, err := rawGet(t, r.settings.HTTP.String(), "a.example", target)
		if err != nil {
			t.Fatal(err)
		}
		// Escaped slashes are redirected, and % alone is refused: gateway.Build takes no such path.
		if resp.StatusCode != http.StatusOK {
			continue
		}
		compared++
		if got := <-seen; got != xds.CanonicalPath(target) {
			t.Errorf("%s: Envoy says %s, CanonicalPath says %s", target, got, xds.CanonicalPath(target))
		}
		resp, err = rawGet(t, r.settings.HTTP.String(), "a.example", "/route"+target)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v, %v", target, resp, err)
		}
		if got := <-seen; got != "exact" {
			t.Errorf("%s: its own route does not match, the request went on as %s", target, got)
		}
	}
	if compared < 250 {
		t.Errorf("only %d of %d paths were compared", compared, len(targets))
	}
}

// TestEnvoyClientIdentity sends headers by which a client would pass for another.
func TestEnvoyClientIdentity(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	seen := make(chan http.Header, 10)
	w.backend("b", recorder(t, func(req *http.Request) { seen <- req.Header }))
	w.host(gateway.Host{Name: "a.example", Routes: []gateway.Route{prefix("/", "b")}})
	r.set(w.Config)
	r.settle()
	resp, err := rawGet(t, r.settings.HTTP.String(), "a.example", "/",
		"X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "X-Real-IP: 192.0.2.1", "X-Forwarded-Host: evil.example",
		"X-Forwarded-Port: 1", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /evil", "X-Original-URL: /evil",
		"X-Envoy-Attempt-Count: 7", "X-Envoy-External-Address: 192.0.2.1", "X-Scheme: https", "X-Sent-From: evil", "X-Other: stays")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	got := <-seen
	// Envoy names loopback clients by an address of the machine.
	if f := got.Get("X-Forwarded-For"); f == "" || strings.Contains(f, ",") || f == "192.0.2.1" {
		t.Errorf("X-Forwarded-For is %q", f)
	}
	want := map[string]string{
		"X-Real-Ip": "127.0.0.1", "X-Forwarded-Host": "a.example", "X-Forwarded-Proto": "http", "X-Other": "stays",
		"X-Scheme": "http", "X-Sent-From": "", "Forwarded": "", "X-Forwarded-Port": "", "X-Forwarded-Prefix": "", "X-Original-Url": "", "X-Envoy-Attempt-Count": "",
	}
	for name, value := range want {
		if got.Get(name) != value || len(got.Values(name)) > 1 {
			t.Errorf("%s is %q, want %q", name, got.Values(name), value)
		}
	}
}

// TestEnvoyHTTP10 asks as old proxies and health checks do.
func TestEnvoyHTTP10(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	w.backend("b", backend(t, "b"))
	w.host(gateway.Host{Name: "a.example", Routes: []gateway.Route{prefix("/", "b")}})
	r.set(w.Config)
	r.settle()
	conn, err := net.Dial("tcp", r.settings.HTTP.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, "GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("HTTP/1.0: %v, %v", resp, err)
	}
}

// TestEnvoyConfusingPaths sends paths that a route and a pod could read differently: what a pod gets must be what its
// route was chosen by, so that a path which leads elsewhere once the pod has normalized it is refused or normalized
// before.
func TestEnvoyConfusingPaths(t *testing.T) {
	r := newRig(t)
	w := newWorld(t)
	seen := make(chan string, 1)
	record := func(name string) netip.AddrPort {
		return recorder(t, func(req *http.Request) { seen <- name + " " + req.RequestURI })
	}
	w.backend("public", record("public"))
	w.backend("admin", record("admin"))
	w.host(gateway.Host{Name: "a.example", Routes: []gateway.Route{prefix("/public", "public"), prefix("/admin", "admin")}})
	r.set(w.Config)
	r.settle()
	for _, c := range []struct{ target, want string }{
		{"/public/../admin", "200 admin /admin"},
		{"/public/%2e%2e/admin", "200 admin /admin"},
		{"/public/%2E./admin", "200 admin /admin"},
		{"/public\\..\\admin", "200 admin /admin"},
		{"/public/./x", "200 public /public/x"},
		{"/public//../admin", "200 public /public/admin"},
		{"/public//x", "200 public /public/x"},
		{"//admin", "200 admin /admin"},
		{"/public/..", "404 "},
		{"/public/..?/admin", "404 "},
		{"/public/.../admin", "200 public /public/.../admin"},
		// Parameters of a segment belong to it, but for those of a dot segment.
		{"/public/a;x/y", "200 public /public/a;x/y"},
		{"/public;x/y", "404 "},
		{"/admin;x", "404 "},
		{"/public/..;/admin", "200 admin /admin"},
		{"/public/..;x=1/admin", "200 admin /admin"},
		{"/..;/admin", "200 admin /admin"},
		{"/public/.;/x", "200 public /public/x"},
		{"/public/;/../admin", "200 public /public/admin"},
		{"/public/%2e%2e;/admin", "403 "},
		{"/public/%2e%2e;x=1/admin", "403 "},
		{"/public/%2E;/x", "403 "},
		{"/public/..%3b/admin", "403 "},
		{"/public/%2e%2E%3Bx/admin", "403 "},
		{"/public/x?/..;/admin", "200 public /public/x?/..;/admin"},
		// A client is told the path that is meant.
		{"/public/..%2fadmin", "307 /admin"},
		{"/public%2F..%2Fadmin", "307 /admin"},
		{"/public/..%5cadmin", "307 /admin"},
		{"/public/%2fx", "307 /public/x"},
		{"/public/%00", "400 "},
		{"/public/..%00/admin", "400 "},
		{"/public/%u002e", "400 "},
		{"/public#/../admin", "400 "},
		// Unescaped once only, by the pod as by Envoy.
		{"/public/%252e%252e/admin", "200 public /public/%252e%252e/admin"},
	} {
		resp, err := rawGet(t, r.settings.HTTP.String(), "a.example", c.target)
		if err != nil {
			t.Errorf("%s: %v", c.target, err)
			continue
		}
		got := fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Location"))
		if resp.StatusCode == http.StatusOK {
			got = "200 " + <-seen
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.target, got, c.want)
		}
	}
}
