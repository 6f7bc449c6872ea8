package conformance

import (
	"bufio"
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
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/xds"
)

// A rig is a real Envoy, and for each backend a web server that answers with the backend's name.
type rig struct {
	*envoytest.Rig
	t      *testing.T
	echoes map[string]netip.AddrPort
	// auth is a server that lets in whoever has letMeIn.
	auth netip.AddrPort
	// defaultChain and defaultKey are the pair for hosts without an own one.
	defaultChain, defaultKey []byte
}

// letMeIn is the header of clients that the auth server knows.
const letMeIn = "Let-Me-In"

func newRig(t *testing.T) *rig {
	r := &rig{Rig: envoytest.New(t, nil), t: t, echoes: map[string]netip.AddrPort{}}
	r.defaultChain, r.defaultKey = makePair(t, "default.invalid")
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get(letMeIn) == "" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(auth.Close)
	r.auth = netip.MustParseAddrPort(auth.Listener.Addr().String())
	return r
}

// set sends a Config, with the rig's web servers in the place of pods, and waits until Envoy has it.
func (r *rig) set(t *testing.T, config gateway.Config) {
	t.Helper()
	if _, problems := xds.Build(config, r.Settings); len(problems) > 0 {
		t.Errorf("what the gateway serves, Envoy would refuse:\n%s", problemText(problems))
	}
	if _, status := r.Set(t, config); len(status.Refused) > 0 {
		t.Fatalf("Envoy refuses %v", status.Refused)
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

// request asks Envoy on a connection of its own, for the path as it stands, with further lines of a header. The leaf is that
// of the certificate.
func (r *rig) request(a ask, lines string) (got answer, leaf []byte, err error) {
	address := r.Settings.HTTP
	if a.https {
		address = r.Settings.HTTPS
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
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%sConnection: close\r\n\r\n", a.path, a.host, lines)
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
