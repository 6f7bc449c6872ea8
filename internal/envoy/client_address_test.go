package envoy_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
)

// A visit is one request on a connection of its own.
type visit struct {
	from    string // address on loopback
	over    string // "http", "https" for the default certificate, or a server name with one of its own
	preface string // before anything else
	header  string // lines that end with \r\n
}

// ask returns the status and the headers that the pod saw. An error says that the connection was ended.
func (v visit) ask(t *testing.T, r *envoytest.Rig) (status int, saw http.Header, err error) {
	t.Helper()
	to := r.Settings.HTTP
	if v.over != "http" {
		to = r.Settings.HTTPS
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(v.from)}, Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(t.Context(), "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, v.preface); err != nil {
		t.Fatal(err)
	}
	if v.over != "http" {
		config := &tls.Config{InsecureSkipVerify: true, ServerName: v.over}
		if v.over == "https" {
			config.ServerName = ""
		}
		conn = tls.Client(conn, config)
	}
	host := "a.test"
	if v.over == "https" {
		host = "b.test"
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n%s\r\n", host, v.header); err != nil {
		return 0, nil, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	_ = json.NewDecoder(response.Body).Decode(&saw)
	return response.StatusCode, saw, nil
}

// tellHeaders is a pod that answers with the headers of the request.
func tellHeaders(t *testing.T) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(w).Encode(r.Header) }))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// withOwnChain gives the host of a Config a certificate, and adds the host b.test without one.
func withOwnChain(t *testing.T, c *gateway.Config) {
	t.Helper()
	other := c.Hosts[0]
	other.Name = "b.test"
	c.Hosts = append(c.Hosts, other)
	chain, key := envoytest.Pair(t, "own", "a.test")
	c.Certificates = append(c.Certificates, gateway.Certificate{Name: "shop/own", Chain: chain, Key: key, ServerNames: []string{"a.test"}})
	c.Hosts[0].Certificate = "shop/own"
}

func set(t *testing.T, r *envoytest.Rig, c gateway.Config) {
	t.Helper()
	if _, status := r.Set(t, c); len(status.Refused) > 0 {
		t.Fatalf("Envoy refuses %v", status.Refused)
	}
}

// TestTrustedProxies asks from a trusted proxy, and from a stranger who says the same.
func TestTrustedProxies(t *testing.T) {
	for name, ownChains := range map[string]int{"own chains": 0, "shared chain": 1} {
		t.Run(name, func(t *testing.T) {
			r := envoytest.New(t, nil)
			r.Settings.OwnChains = ownChains
			c := envoytest.Config(t, "a.test", tellHeaders(t))
			withOwnChain(t, &c)
			c.Listen.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("127.0.0.3/32")}
			c.Hosts[0].RedirectHTTPS = true
			c.Hosts[0].Routes[0].Policy = &policy.Route{Sources: policy.Sources{Deny: []netip.Prefix{netip.MustParsePrefix("198.51.100.66/32")}}}
			set(t, r, c)
			const says = "X-Forwarded-For: 6.6.6.6, 198.51.100.7, 10.9.1.1\r\nX-Forwarded-Host: evil.test\r\nX-Real-Ip: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n" +
				"X-Hythe-Kept-For: 6.6.6.6\r\nX-Hythe-Kept-Proto: https\r\nSsl-Client-Verify: SUCCESS\r\n"
			for _, c := range []struct {
				visit  visit
				status int
				client string // as pods see it
				proto  string
			}{
				{visit{from: "127.0.0.3", over: "a.test", header: says}, 200, "198.51.100.7", "https"},
				{visit{from: "127.0.0.3", over: "a.test", header: says + "X-Forwarded-Proto: https\r\n"}, 200, "198.51.100.7", "https"},
				{visit{from: "127.0.0.3", over: "a.test"}, 200, "127.0.0.3", "https"},
				{visit{from: "127.0.0.3", over: "http", header: says + "X-Forwarded-Proto: https\r\n"}, 200, "198.51.100.7", "https"},
				{visit{from: "127.0.0.3", over: "http", header: says}, 308, "", ""},
				{visit{from: "127.0.0.3", over: "http", header: says + "X-Forwarded-Proto: http\r\n"}, 308, "", ""},
				{visit{from: "127.0.0.3", over: "a.test", header: "X-Forwarded-For: 198.51.100.66\r\n"}, 403, "", ""},
				{visit{from: "127.0.0.3", over: "a.test", header: "X-Forwarded-For: 10.9.1.2\r\n"}, 200, "10.9.1.2", "https"},
				{visit{from: "127.0.0.3", over: "a.test", header: "X-Forwarded-For: nonsense\r\n"}, 200, "127.0.0.3", "https"},

				{visit{from: "127.0.0.2", over: "a.test", header: says}, 200, "127.0.0.2", "https"},
				{visit{from: "127.0.0.2", over: "a.test", header: "X-Forwarded-For: 198.51.100.66\r\n"}, 200, "127.0.0.2", "https"},
				{visit{from: "127.0.0.2", over: "http", header: says + "X-Forwarded-Proto: https\r\n"}, 308, "", ""},
			} {
				status, saw, err := c.visit.ask(t, r)
				if err != nil || status != c.status {
					t.Errorf("%+v: %d %v, want %d", c.visit, status, err, c.status)
					continue
				}
				if c.status != 200 {
					continue
				}
				if f, real := saw.Values("X-Forwarded-For"), saw.Get("X-Real-Ip"); len(f) != 1 || f[0] != c.client || real != c.client {
					t.Errorf("%+v: the pod sees X-Forwarded-For %q and X-Real-Ip %q, want %s", c.visit, f, real, c.client)
				}
				if p := saw.Values("X-Forwarded-Proto"); len(p) != 1 || p[0] != c.proto {
					t.Errorf("%+v: the pod sees X-Forwarded-Proto %q, want %s", c.visit, p, c.proto)
				}
				if saw.Get("X-Forwarded-Host") != "a.test" || saw.Get("Forwarded")+saw.Get("Ssl-Client-Verify") != "" ||
					c.visit.from == "127.0.0.3" && saw.Get("X-Hythe-Kept-For")+saw.Get("X-Hythe-Kept-Proto") != "" {
					t.Errorf("%+v: the pod sees %v", c.visit, saw)
				}
			}
		})
	}
}

// TestTrustedProxyLimits counts requests by client and not by proxy, and the client without limits is known by its address.
func TestTrustedProxyLimits(t *testing.T) {
	r := envoytest.New(t, nil)
	c := envoytest.Config(t, "a.test", tellHeaders(t))
	c.Listen.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}
	c.Hosts[0].Routes[0].Policy = &policy.Route{Limits: policy.Limits{
		PerMinute: 1, Burst: 1, Exempt: []netip.Prefix{netip.MustParsePrefix("198.51.100.9/32")},
	}}
	set(t, r, c)
	for client, want := range map[string]int{"198.51.100.7": 429, "198.51.100.8": 429, "198.51.100.9": 200} {
		last := 0
		for i := range 4 {
			status, _, err := visit{from: "127.0.0.3", over: "http", header: "X-Forwarded-For: " + client + "\r\n"}.ask(t, r)
			if last = status; err != nil || i == 0 && status != 200 {
				t.Errorf("request %d of %s: %d %v", i, client, status, err)
			}
		}
		if last != want {
			t.Errorf("the last request of %s: %d, want %d", client, last, want)
		}
	}
}

// proxyV2 is a header of the PROXY protocol, version 2, section 2.2.
func proxyV2(command byte, source, destination netip.AddrPort) string {
	out := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x20|command)
	if command == 0 {
		return string(append(out, 0, 0, 0))
	}
	family, a, b := byte(0x11), source.Addr().AsSlice(), destination.Addr().AsSlice()
	if len(a) == 16 {
		family = 0x21
	}
	out = append(out, family)
	out = binary.BigEndian.AppendUint16(out, uint16(2*len(a)+4))
	out = append(append(out, a...), b...)
	out = binary.BigEndian.AppendUint16(out, source.Port())
	return string(binary.BigEndian.AppendUint16(out, destination.Port()))
}

// TestProxyProtocol asks as a load balancer, and as a stranger who says the same.
func TestProxyProtocol(t *testing.T) {
	r := envoytest.New(t, nil)
	c := envoytest.Config(t, "a.test", tellHeaders(t))
	withOwnChain(t, &c)
	c.Listen.ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}
	c.Listen.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("198.51.100.80/32")}
	set(t, r, c)
	const v1 = "PROXY TCP4 198.51.100.7 203.0.113.1 4000 443\r\n"
	to := netip.MustParseAddrPort("203.0.113.1:443")
	v2 := proxyV2(1, netip.MustParseAddrPort("198.51.100.8:4000"), to)
	v6 := proxyV2(1, netip.MustParseAddrPort("[2001:db8::8]:4000"), netip.MustParseAddrPort("[2001:db8::1]:443"))
	for _, over := range []string{"http", "https", "a.test"} {
		for _, c := range []struct {
			visit  visit
			client string // empty where the connection is ended
		}{
			{visit{from: "127.0.0.3", preface: v1}, "198.51.100.7"},
			{visit{from: "127.0.0.3", preface: v1, header: "X-Forwarded-For: 6.6.6.6\r\n"}, "198.51.100.7"},
			{visit{from: "127.0.0.3", preface: v2}, "198.51.100.8"},
			{visit{from: "127.0.0.3", preface: v6}, "2001:db8::8"},
			{visit{from: "127.0.0.3", preface: "PROXY UNKNOWN\r\n"}, "127.0.0.3"},
			{visit{from: "127.0.0.3", preface: proxyV2(0, netip.AddrPort{}, netip.AddrPort{})}, "127.0.0.3"}, // a balancer's own check
			{visit{from: "127.0.0.3"}, "127.0.0.3"},
			// A trusted proxy behind the balancer.
			{visit{from: "127.0.0.3", preface: "PROXY TCP4 198.51.100.80 203.0.113.1 4000 443\r\n", header: "X-Forwarded-For: 198.51.100.9\r\n"}, "198.51.100.9"},

			{visit{from: "127.0.0.2"}, "127.0.0.2"},
			{visit{from: "127.0.0.2", preface: v1}, ""},
			{visit{from: "127.0.0.2", preface: v2}, ""},
			{visit{from: "127.0.0.2", preface: v6}, ""},
			{visit{from: "127.0.0.2", preface: "PROXY TCP4 127.0.0.1 203.0.113.1 4000 443\r\n"}, ""},
			{visit{from: "127.0.0.2", header: "X-Forwarded-For: 6.6.6.6\r\n"}, "127.0.0.2"},
		} {
			c.visit.over = over
			status, saw, err := c.visit.ask(t, r)
			if c.client == "" {
				if err == nil {
					t.Errorf("%+v: %d, want no answer", c.visit, status)
				}
				continue
			}
			if err != nil || status != 200 || saw.Get("X-Forwarded-For") != c.client || saw.Get("X-Real-Ip") != c.client {
				t.Errorf("%+v: %d %v, the pod sees %v, want the client %s", c.visit, status, err, saw, c.client)
			}
		}
	}
}
