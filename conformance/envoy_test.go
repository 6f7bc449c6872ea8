package conformance

import (
	"bufio"
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
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/envoy"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/xds"
	"hythe.dev/hythe/xds/server"
)

// A rig is a real Envoy, and for each backend a web server that answers with the backend's name.
type rig struct {
	t        *testing.T
	settings xds.Settings
	server   *server.Server
	echoes   map[string]netip.AddrPort
	// defaultChain and defaultKey are the pair for hosts without an own one.
	defaultChain, defaultKey []byte
}

func newRig(t *testing.T) *rig {
	path := testenv.Envoy(t)
	dir, err := os.MkdirTemp("", "hythe") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, echoes: map[string]netip.AddrPort{}, settings: xds.Settings{
		HTTP: testenv.FreeAddress(t), HTTPS: testenv.FreeAddress(t), Ready: testenv.FreeAddress(t), HTTPSPort: 8443,
	}}
	r.defaultChain, r.defaultKey = makePair(t, "default.invalid")
	socket := filepath.Join(dir, "xds.sock")
	if r.server, err = server.New(server.Options{Socket: socket, Grace: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run server: %v", err)
		}
	})
	p, err := envoy.Start(t.Context(), envoy.Options{
		Path: path, BootstrapFile: filepath.Join(dir, "bootstrap.yaml"), Concurrency: 1, DrainTime: time.Second,
		Bootstrap: envoy.BootstrapOptions{Node: "n1", XDSSocket: socket},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Wait() })
	return r
}

// set sends a Config, with the rig's web servers in the place of pods, and waits until Envoy has it.
func (r *rig) set(t *testing.T, config gateway.Config) {
	t.Helper()
	resources, problems := xds.Build(config, r.settings)
	if len(problems) > 0 {
		t.Errorf("what the gateway serves, Envoy would refuse:\n%s", problemText(problems))
	}
	r.server.Set(resources)
	r.eventually(t, func() error {
		status := r.server.Status()
		if len(status.Refused) > 0 {
			t.Fatalf("Envoy refuses %v", status.Refused)
		}
		if !status.Ready || status.Outstanding > 0 {
			return fmt.Errorf("not acknowledged: %s", status)
		}
		return nil
	})
}

func (r *rig) eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// echo is the address of the web server for a backend.
func (r *rig) echo(name string) netip.AddrPort {
	if r.echoes[name] == (netip.AddrPort{}) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }))
		r.t.Cleanup(s.Close)
		r.echoes[name] = netip.MustParseAddrPort(s.Listener.Addr().String())
	}
	return r.echoes[name]
}

// request asks Envoy on a connection of its own, for the path as it stands. The leaf is that of the certificate.
func (r *rig) request(a ask) (got answer, leaf []byte, err error) {
	address := r.settings.HTTP
	if a.https {
		address = r.settings.HTTPS
	}
	conn, err := net.Dial("tcp", address.String())
	if err != nil {
		return got, nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if a.https {
		client := tls.Client(conn, &tls.Config{ServerName: a.host, InsecureSkipVerify: true})
		if err := client.Handshake(); err != nil {
			return got, nil, err
		}
		leaf, conn = client.ConnectionState().PeerCertificates[0].Raw, client
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", a.path, a.host)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return got, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return got, nil, err
	}
	got.status, got.location = resp.StatusCode, resp.Header.Get("Location")
	if got.status == http.StatusOK {
		got.backend = string(body)
	}
	return got, leaf, nil
}

// makePair makes a self-signed pair.
func makePair(t testing.TB, names ...string) (chain, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}
