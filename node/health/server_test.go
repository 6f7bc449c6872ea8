package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hythe.dev/hythe/internal/model"
)

func testServer(t *testing.T, address string) *Server {
	return NewServer(slog.New(slog.NewTextHandler(t.Output(), nil)), address)
}

// run runs a server until the test ends.
func run(t *testing.T, s *Server) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// freePort is one that nobody has now.
func freePort(t *testing.T) uint16 {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// get asks once, without a connection of before.
func get(host string, port uint16, path string) (code int, header http.Header, body string, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	r, err := client.Get("http://" + net.JoinHostPort(host, fmt.Sprint(port)) + path)
	if err != nil {
		return 0, nil, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, r.Header, string(b), err
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in 10 s", what)
		}
	}
}

func services(port uint16, four, six int) State {
	return State{Services: map[uint16]Service{port: service("web", four, six)}, Eligible: true}
}

// service has so many endpoints of each family: the first ones are the same each time.
func service(name string, four, six int) Service {
	s := Service{Key: model.Key{Namespace: "shop", Name: name}}
	for i := range four {
		s.Endpoints = append(s.Endpoints, netip.AddrFrom4([4]byte{10, 244, 1, byte(i + 2)}))
	}
	for i := range six {
		s.Endpoints = append(s.Endpoints, netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i + 2)}))
	}
	return s
}

// TestService asks at a healthCheckNodePort, whose Service changes.
func TestService(t *testing.T) {
	s, port := testServer(t, ""), freePort(t)
	s.Set(services(port, 2, 0))
	s.Applied()
	run(t, s)
	answers := func(code int) bool {
		got, _, _, err := get("127.0.0.1", port, "/")
		return err == nil && got == code
	}
	eventually(t, "the port is open", func() bool { return answers(http.StatusOK) })
	_, header, body, err := get("127.0.0.1", port, "/any")
	const want = `{"service":{"namespace":"shop","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}`
	if err != nil || strings.TrimSpace(body) != want || header.Get("X-Load-Balancing-Endpoint-Weight") != "2" || header.Get("Content-Type") != "application/json" {
		t.Errorf("%v %s %v", header, body, err)
	}
	if code, _, _, err := get("::1", port, "/"); err == nil && code != http.StatusServiceUnavailable { // there may be no IPv6 here
		t.Errorf("asked over IPv6: %d", code)
	}
	s.Set(services(port, 0, 0))
	eventually(t, "no endpoint", func() bool { return answers(http.StatusServiceUnavailable) })
	if _, header, _, _ := get("127.0.0.1", port, "/"); header.Get("X-Load-Balancing-Endpoint-Weight") != "0" {
		t.Error(header)
	}
	other := freePort(t)
	s.Set(services(other, 1, 0))
	s.Applied()
	eventually(t, "another port", func() bool {
		_, _, _, old := get("127.0.0.1", port, "/")
		code, _, _, _ := get("127.0.0.1", other, "/")
		return old != nil && code == http.StatusOK
	})
	s.Set(State{})
	eventually(t, "none", func() bool { _, _, _, err := get("127.0.0.1", other, "/"); return err != nil })
}

// TestTakenPort has somebody else on the port, until he goes.
func TestTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	state := services(port, 1, 0)
	free := freePort(t)
	state.Services[free] = service("other", 1, 0)
	s := testServer(t, l.Addr().String())
	s.Set(state)
	run(t, s)
	eventually(t, "the other port is open", func() bool { _, _, _, err := get("127.0.0.1", free, "/"); return err == nil })
	eventually(t, "Problems", func() bool { return len(s.Problems("n1")) == 2 })
	p := s.Problems("n1")
	if p[0].Reason != "HealthCheckNodePortTaken" || p[0].Object.Name != "web" || !strings.Contains(p[0].Message, fmt.Sprint(port)) || p[1].Reason != "HealthzNotServed" {
		t.Error(p)
	}
	_ = l.Close()
	s.Set(state) // in the place of two seconds
	eventually(t, "the port is open", func() bool {
		_, _, _, err := get("127.0.0.1", port, "/")
		return err == nil || len(s.Problems("n1")) == 1
	})
}

// TestNode asks for the node itself.
func TestNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testServer(t, ":10256")
		ask := func(path string) (int, map[string]any) {
			w := httptest.NewRecorder()
			s.node().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			body := map[string]any{}
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatalf("%s: %v", w.Body, err)
			}
			return w.Code, body
		}
		want := func(when string, healthz, livez int) {
			t.Helper()
			code, body := ask("/healthz")
			live, liveBody := ask("/livez")
			if code != healthz || live != livez || body["currentTime"] == nil || body["lastUpdated"] == nil || body["nodeEligible"] != s.state.Eligible || liveBody["nodeEligible"] != nil {
				t.Errorf("%s: %d %v, %d %v", when, code, body, live, liveBody)
			}
			if live == http.StatusServiceUnavailable && liveBody["lastUpdated"] == liveBody["currentTime"] {
				t.Errorf("%s: %v", when, liveBody)
			}
		}
		want("before the Node is known", 503, 200)
		s.Set(services(1, 1, 0))
		want("at rest", 200, 200)
		s.Queued()
		time.Sleep(Late - time.Second)
		s.Queued() // the first one counts
		want("a change is on its way", 200, 200)
		time.Sleep(time.Second)
		want("it does not arrive", 503, 503)
		w := httptest.NewRecorder()
		s.ServiceHandler(1).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code != 503 || !strings.Contains(w.Body.String(), `"serviceProxyHealthy":false`) {
			t.Errorf("of a Service: %d %s", w.Code, w.Body)
		}
		s.Applied()
		want("it arrived", 200, 200)
		s.Set(State{})
		want("the node is about to go", 503, 200)
	})
}

// A fakeListener gives connections to one address of the node.
type fakeListener struct {
	net.Listener
	to  net.Addr
	got int
}

type fakeConn struct {
	net.Conn
	to     net.Addr
	closed *int
}

func (c fakeConn) LocalAddr() net.Addr { return c.to }
func (c fakeConn) Close() error        { *c.closed++; return nil }

func (l *fakeListener) Accept() (net.Conn, error) {
	if l.got == maxConns+3 {
		return nil, errors.New("that is all")
	}
	l.got++
	return fakeConn{to: l.to, closed: new(int)}, nil
}

// TestAccept takes connections to some addresses of the node only, and only so many.
func TestAccept(t *testing.T) {
	s := testServer(t, "")
	s.Set(State{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	accept := func(to string) (taken []net.Conn) {
		l := &listener{Listener: &fakeListener{to: &net.TCPAddr{IP: net.ParseIP(to), Port: 1}}, of: s, slots: make(chan struct{}, maxConns)}
		for {
			c, err := l.Accept()
			if err != nil {
				return taken
			}
			if taken = append(taken, c); len(taken) == 3 {
				_ = c.Close()
				_ = c.Close() // gives back one slot
			}
		}
	}
	if got := len(accept("192.0.2.7")); got != maxConns+1 {
		t.Errorf("%d connections at a time", got-1)
	}
	if got := len(accept("127.0.0.1")); got != maxConns+1 {
		t.Errorf("%d connections to loopback", got-1)
	}
	if got := len(accept("198.51.100.7")); got != 0 {
		t.Errorf("%d connections to another address", got)
	}
}

// TestProgrammed asks while changes are on their way to the kernel: endpoints that go do not count from then on, and those that
// come when they are there.
func TestProgrammed(t *testing.T) {
	const port = 32000
	s := testServer(t, "")
	is := func(when, weight string, code int) {
		t.Helper()
		w := httptest.NewRecorder()
		s.ServiceHandler(port).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if got := w.Header().Get("X-Load-Balancing-Endpoint-Weight"); got != weight || w.Code != code {
			t.Errorf("%s: %d with %s endpoints, want %d with %s", when, w.Code, got, code, weight)
		}
	}
	set := func(state State) {
		s.Queued()
		s.Set(state)
	}
	set(services(port, 2, 0))
	is("before the kernel has anything", "0", http.StatusServiceUnavailable)
	s.Applied()
	is("the kernel has both", "2", http.StatusOK)
	set(services(port, 1, 0))
	is("one of them goes", "1", http.StatusOK)
	set(services(port, 3, 0)) // the kernel still has the two
	is("others come", "2", http.StatusOK)
	s.Applied()
	is("they are there", "3", http.StatusOK)
	moved, web := services(port, 3, 0), service("web", 6, 0)
	web.Endpoints = web.Endpoints[3:] // as many, and none of those that there were
	moved.Services[port] = web
	set(moved)
	is("all of them are replaced", "0", http.StatusServiceUnavailable)
	s.Applied()
	is("the kernel has the new ones", "3", http.StatusOK)
	other := services(port, 3, 0)
	other.Services[port] = service("other", 3, 0)
	set(other)
	is("another Service has the port", "0", http.StatusServiceUnavailable)
	s.Applied()
	is("the kernel has that one", "3", http.StatusOK)
}

// TestFamilies asks at addresses of both families. A node of both has Services of one: Kubernetes' tests ask them at each of its
// addresses.
func TestFamilies(t *testing.T) {
	for name, c := range map[string]struct {
		clusterIPs []string
		endpoints  []model.Endpoint
		at4, at6   int
	}{
		"IPv4":                   {[]string{"10.96.0.1"}, []model.Endpoint{end("10.244.1.2:8080", "n1", true)}, 1, 1},
		"IPv6":                   {[]string{"fd00:96::1"}, []model.Endpoint{end("[fd00::2]:8080", "n1", true)}, 1, 1},
		"both":                   {[]string{"10.96.0.1", "fd00:96::1"}, []model.Endpoint{end("10.244.1.2:8080", "n1", true), end("10.244.1.3:8080", "n1", true), end("[fd00::2]:8080", "n1", true)}, 2, 1},
		"both, endpoints of one": {[]string{"10.96.0.1", "fd00:96::1"}, []model.Endpoint{end("10.244.1.2:8080", "n1", true)}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			snapshot, svc := healthy(c.endpoints...)
			svc.Spec.ClusterIP, svc.Spec.ClusterIPs = c.clusterIPs[0], c.clusterIPs
			state, _ := Build(snapshot, "n1", model.Own{}, nil)
			s := state.Services[32000]
			now := s.within(Service{Key: s.Key, Endpoints: s.Endpoints[:1], Only: familyOf(s.Endpoints[0])})
			if n := now.endpoints(netip.MustParseAddr("2001:db8::1")); n != min(1, c.at4) {
				t.Errorf("%d endpoints over IPv6 while the kernel has the first one and its family alone", n)
			}
			if got4, got6 := s.endpoints(netip.MustParseAddr("192.0.2.1")), s.endpoints(netip.MustParseAddr("2001:db8::1")); got4 != c.at4 || got6 != c.at6 {
				t.Errorf("%d endpoints over IPv4 and %d over IPv6, want %d and %d", got4, got6, c.at4, c.at6)
			}
		})
	}
}
