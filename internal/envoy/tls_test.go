package envoy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
)

const tlsHost = "shop.test"

// tlsConfig has one host with a certificate of its own.
func tlsConfig(t *testing.T, serial string) gateway.Config {
	t.Helper()
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(backend.Close)
	config := envoytest.Config(t, tlsHost, netip.MustParseAddrPort(backend.Listener.Addr().String()))
	config.Hosts[0].Certificate = "shop/tls"
	return rotated(t, config, serial)
}

// rotated gives the host a new key pair.
func rotated(t *testing.T, config gateway.Config, serial string) gateway.Config {
	t.Helper()
	chain, key := envoytest.Pair(t, serial, tlsHost)
	config.Certificates = append(config.Certificates[:1:1], gateway.Certificate{
		Name: "shop/tls", ServerNames: []string{tlsHost}, Chain: chain, Key: key,
	})
	return config
}

// A client is a TLS connection that is asked again and again.
type client struct {
	*tls.Conn
	reader *bufio.Reader
}

func dialTLS(address netip.AddrPort, name string) (client, error) {
	conn, err := tls.Dial("tcp", address.String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		return client{}, err
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return client{conn, bufio.NewReader(conn)}, nil
}

// ask returns an error unless the answer is 200 and the connection stays open.
func (c client) ask() error { return c.askFor(tlsHost) }

func (c client) askFor(host string) error {
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Close {
		return fmt.Errorf("status %d, close %t", resp.StatusCode, resp.Close)
	}
	return nil
}

// A host that is passed through comes, changes its backend and goes, and a connection of another host does not notice, long
// after Envoy would have drained it (1 s here).
func TestPassthroughLeavesOtherConnections(t *testing.T) {
	r := envoytest.New(t, nil)
	config := tlsConfig(t, "1")
	r.Set(t, config)
	conn, err := dialTLS(r.Settings.HTTPS, tlsHost)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func() {
		t.Helper()
		if err := conn.ask(); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	with := config
	passed := policy.Backend{Passthrough: true}
	with.Backends = append(with.Backends[:1:1], gateway.Backend{
		Name: "shop/web:http" + passed.String(), Endpoints: "shop/web:http", Backend: passed,
	})
	with.Passthroughs = []gateway.Passthrough{{ServerName: "pass.test", Backend: "shop/web:http" + passed.String()}}
	for _, c := range []gateway.Config{with, config} {
		r.Set(t, c)
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			ask()
		}
	}
}

// Certificates are rotated while clients open connections without a pause: each handshake succeeds, with the old certificate
// or the new one, and a connection of before lives on.
func TestRotationUnderLoad(t *testing.T) {
	r := envoytest.New(t, nil)
	config := tlsConfig(t, "0")
	r.Set(t, config)
	old, err := dialTLS(r.Settings.HTTPS, tlsHost)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	stop := make(chan struct{})
	var mu sync.Mutex
	seen, handshakes := map[string]int{}, 0
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := dialTLS(r.Settings.HTTPS, tlsHost)
				if err == nil {
					err = c.ask()
				}
				if err != nil {
					t.Errorf("a handshake or its request: %v", err)
					return
				}
				mu.Lock()
				handshakes++
				seen[c.ConnectionState().PeerCertificates[0].Subject.CommonName]++
				mu.Unlock()
				c.Close()
			}
		})
	}
	const rotations = 10
	for i := 1; i <= rotations; i++ {
		config = rotated(t, config, fmt.Sprint(i))
		r.Set(t, config)
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
			mu.Lock()
			n := seen[fmt.Sprint(i)]
			mu.Unlock()
			if n > 100 {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("nobody sees certificate %d", i)
				break
			}
		}
	}
	close(stop)
	clients.Wait()
	if err := old.ask(); err != nil {
		t.Errorf("the connection of before the rotations: %v", err)
	}
	t.Logf("%d handshakes, %d rotations", handshakes, rotations)
}

// Browsers are told to come by https only where a host has a certificate of its own, and never over plain http.
func TestHSTS(t *testing.T) {
	r := envoytest.New(t, nil)
	r.Settings.HSTS = "max-age=31536000; includeSubDomains"
	r.Set(t, tlsConfig(t, "1"))
	for _, c := range []struct{ scheme, host, want string }{
		{"https", tlsHost, r.Settings.HSTS},
		{"https", "other.test", ""},
		{"http", tlsHost, ""},
	} {
		address := r.Settings.HTTP
		if c.scheme == "https" {
			address = r.Settings.HTTPS
		}
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{ServerName: c.host, InsecureSkipVerify: true}}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.scheme+"://"+address.String()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		var got string
		for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			resp, err := client.Do(req)
			if err != nil {
				continue
			}
			resp.Body.Close()
			got = resp.Header.Get("Strict-Transport-Security")
			if c.host != tlsHost || resp.StatusCode == http.StatusOK {
				break
			}
		}
		if got != c.want {
			t.Errorf("%s://%s: Strict-Transport-Security %q, want %q", c.scheme, c.host, got, c.want)
		}
	}
}
