package envoy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
)

// tellFirst is a server that answers with the first bytes of each connection, up to the word "end".
func tellFirst(t *testing.T) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var got []byte
				for !strings.HasSuffix(string(got), "end") {
					b := make([]byte, 512)
					n, err := conn.Read(b)
					if got = append(got, b[:n]...); err != nil {
						break
					}
				}
				_, _ = conn.Write(append([]byte("got:"), got...))
			}()
		}
	}()
	return netip.MustParseAddrPort(listener.Addr().String())
}

// talk sends a text from an address, and returns what is answered until the connection ends.
func talk(t *testing.T, from string, to netip.AddrPort, text string) string {
	t.Helper()
	conn := connect(t, from, to)
	_, _ = io.WriteString(conn, text)
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

func connect(t *testing.T, from string, to netip.AddrPort) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(t.Context(), "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

var byAdministrator = model.ObjectRef{Kind: "GatewayConfig", Name: "edge"}

// expose adds a port that leads to an address, and returns where Envoy listens for it.
func expose(t *testing.T, c *gateway.Config, r *envoytest.Rig, s gateway.Stream, settings policy.Backend, to netip.AddrPort) netip.AddrPort {
	t.Helper()
	s.Port = testenv.FreePort(t)
	set := fmt.Sprintf("db/%d:db", s.Port)
	settings.Stream = policy.Connections
	if s.Protocol == corev1.ProtocolUDP {
		settings.Stream = policy.Datagrams
	}
	s.Origin, s.Backend = byAdministrator, set+settings.String()
	c.Backends = append(c.Backends, gateway.Backend{Name: s.Backend, Endpoints: set, Backend: settings})
	c.EndpointSets = append(c.EndpointSets, gateway.EndpointSet{Name: set, Addresses: []netip.AddrPort{to}})
	c.Streams = append(c.Streams, s)
	return netip.AddrPortFrom(r.Settings.HTTP.Addr(), s.Port)
}

// TestStreams has connections and datagrams that go to a Service as they are, and says to the Service who the client is.
func TestStreams(t *testing.T) {
	r := envoytest.New(t, nil)
	r.Settings.PortOffset = -1
	server := tellFirst(t)
	c := envoytest.Config(t, "a.test", server)
	c.Listen.ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	plain := expose(t, &c, r, gateway.Stream{Protocol: tcp}, policy.Backend{}, server)
	v1 := expose(t, &c, r, gateway.Stream{Protocol: tcp}, policy.Backend{ProxyProtocol: policy.ProxyV1}, server)
	v2 := expose(t, &c, r, gateway.Stream{Protocol: tcp, ProxyProtocol: true}, policy.Backend{ProxyProtocol: policy.ProxyV2}, server)
	names := expose(t, &c, r, gateway.Stream{Protocol: udp}, policy.Backend{}, echoDatagrams(t))
	set(t, r, c)

	if got := talk(t, "127.0.0.5", plain, "hello end"); got != "got:hello end" {
		t.Errorf("without PROXY protocol the Service answers %q", got)
	}
	// A listener that is not told to takes it for bytes like others.
	if got := talk(t, "127.0.0.5", plain, "PROXY UNKNOWN\r\nend"); got != "got:PROXY UNKNOWN\r\nend" {
		t.Errorf("of a PROXY header that nobody expects the Service sees %q", got)
	}
	if got := talk(t, "127.0.0.5", v1, "hello end"); !strings.HasPrefix(got, "got:PROXY TCP4 127.0.0.5 "+v1.Addr().String()+" ") || !strings.HasSuffix(got, fmt.Sprintf(" %d\r\nhello end", v1.Port())) {
		t.Errorf("with PROXY protocol version 1 the Service sees %q", got)
	}
	balanced := talk(t, "127.0.0.3", v2, "PROXY TCP4 198.51.100.7 203.0.113.1 4000 25\r\nhello end")
	if want := proxyV2(1, netip.MustParseAddrPort("198.51.100.7:4000"), netip.MustParseAddrPort("203.0.113.1:25")); balanced != "got:"+want+"hello end" {
		t.Errorf("of a balancer's client with PROXY protocol version 2 the Service sees %q, want %q", balanced, want)
	}
	if got := talk(t, "127.0.0.5", v2, "PROXY TCP4 198.51.100.7 203.0.113.1 4000 25\r\nhello end"); strings.Contains(got, "hello") {
		t.Errorf("a stranger who says to be somebody else reaches the Service, which sees %q", got)
	}
	if got := datagram(t, names, "query"); got != "query" {
		t.Errorf("the Service of UDP answers %q", got)
	}
}

// TestStreamsComeAndGo changes the Service of a port, and takes the port away.
func TestStreamsComeAndGo(t *testing.T) {
	r := envoytest.New(t, nil)
	r.Settings.PortOffset = -1
	c := envoytest.Config(t, "a.test", tellFirst(t))
	port := expose(t, &c, r, gateway.Stream{Protocol: corev1.ProtocolTCP}, policy.Backend{}, tellFirst(t))
	set(t, r, c)
	open := connect(t, "127.0.0.5", port)
	if _, err := io.WriteString(open, "be"); err != nil {
		t.Fatal(err)
	}
	moved := c
	moved.EndpointSets = append([]gateway.EndpointSet(nil), c.EndpointSets...)
	moved.EndpointSets[1].Addresses = nil
	set(t, r, moved)
	if got := talk(t, "127.0.0.5", port, "hello end"); got != "" {
		t.Errorf("without endpoints there is an answer: %q", got)
	}
	set(t, r, c)
	if got := talk(t, "127.0.0.5", port, "hello end"); got != "got:hello end" {
		t.Errorf("with endpoints again: %q", got)
	}
	c.Streams = nil
	set(t, r, c)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", port.String(), time.Second)
		if err != nil {
			break
		}
		_ = conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the port is open 20 s after it was taken away")
		}
	}
}

// TestPassthroughTellsClients says to a Service that ends TLS itself who the client is.
func TestPassthroughTellsClients(t *testing.T) {
	r := envoytest.New(t, nil)
	chain, key := envoytest.Pair(t, "pod", "p.test")
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	header := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		line := []byte{}
		for b := make([]byte, 1); !strings.HasSuffix(string(line), "\r\n"); {
			if _, err := conn.Read(b); err != nil {
				break
			}
			line = append(line, b...)
		}
		header <- string(line)
		_, _ = io.WriteString(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}}), "hello\n")
	}()
	c := envoytest.Config(t, "a.test", tellFirst(t))
	settings := policy.Backend{Passthrough: true, ProxyProtocol: policy.ProxyV1}
	c.Backends = append(c.Backends, gateway.Backend{Name: "shop/p:tls" + settings.String(), Endpoints: "shop/p:tls", Backend: settings})
	c.EndpointSets = append(c.EndpointSets, gateway.EndpointSet{Name: "shop/p:tls", Addresses: []netip.AddrPort{netip.MustParseAddrPort(listener.Addr().String())}})
	c.Passthroughs = []gateway.Passthrough{{ServerName: "p.test", Backend: "shop/p:tls" + settings.String()}}
	set(t, r, c)
	conn := tls.Client(connect(t, "127.0.0.5", r.Settings.HTTPS), &tls.Config{InsecureSkipVerify: true, ServerName: "p.test"})
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || line != "hello\n" {
		t.Errorf("the Service says %q, %v", line, err)
	}
	if got := <-header; !strings.HasPrefix(got, "PROXY TCP4 127.0.0.5 ") {
		t.Errorf("the Service sees %q", got)
	}
}

func echoDatagrams(t *testing.T) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		for b := make([]byte, 2048); ; {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(b[:n], from)
		}
	}()
	return netip.MustParseAddrPort(conn.LocalAddr().String())
}

// datagram sends a datagram until one comes back.
func datagram(t *testing.T, to netip.AddrPort, text string) string {
	t.Helper()
	conn, err := net.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if _, err := io.WriteString(conn, text); err != nil {
			continue // refused, for now
		}
		_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		b := make([]byte, 2048)
		if n, err := conn.Read(b); err == nil {
			return string(b[:n])
		}
	}
	return ""
}
