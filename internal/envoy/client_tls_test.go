package envoy_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/authority"
	"hythe.dev/hythe/internal/envoy/envoytest"
)

// forClients is a Config whose host is for clients that authorities have signed, beside an open one.
func forClients(t *testing.T, authorities ...*authority.Authority) gateway.Config {
	t.Helper()
	config := tlsConfig(t, "server")
	open := config.Hosts[0]
	open.Name, open.Certificate = "open.test", gateway.DefaultCertificateName
	config.Hosts[0].Clients = &policy.ClientAuth{Secret: "shop/ca"}
	config.Hosts = append([]gateway.Host{open}, config.Hosts...)
	config.Certificates[1].ServerNames = nil
	config.ClientTLS = []gateway.ClientTLS{{Certificate: "shop/tls", Authorities: "shop/ca", Depth: 1, ServerNames: []string{tlsHost}}}
	return verifiedBy(t, config, nil, authorities...)
}

// verifiedBy gives the host other authorities, one of which may have a list of revoked certificates.
func verifiedBy(t *testing.T, config gateway.Config, list []byte, authorities ...*authority.Authority) gateway.Config {
	t.Helper()
	a := gateway.Authorities{Name: "shop/ca", Revoked: list}
	for _, authority := range authorities {
		a.Certificates = append(a.Certificates, authority.PEM()...)
	}
	config.Authorities = []gateway.Authorities{a}
	return config
}

// status asks once, on a new connection, and says whether a certificate was asked for.
func status(r *envoytest.Rig, host string, shown *tls.Certificate, sessions tls.ClientSessionCache) (code int, asked, resumed bool, err error) {
	conn, err := tls.Dial("tcp", r.Settings.HTTPS.String(), &tls.Config{
		ServerName: host, InsecureSkipVerify: true, ClientSessionCache: sessions,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			if shown == nil {
				return new(tls.Certificate), nil
			}
			return shown, nil
		},
	})
	if err != nil {
		return 0, asked, false, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, asked, false, err
	}
	resp.Body.Close()
	return resp.StatusCode, asked, conn.ConnectionState().DidResume, nil
}

// until asks until the status is the wanted one, for a while.
func until(t *testing.T, r *envoytest.Rig, shown *tls.Certificate, want int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got, _, _, err := status(r, tlsHost, shown, nil)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("status %d (error %v), want %d", got, err, want)
		}
	}
}

// Only who comes to the host by its name is asked for a certificate: browsers show their users a question then.
func TestOnlyClientHostsAsk(t *testing.T) {
	r := envoytest.New(t, nil)
	red := authority.New(t, "red", nil)
	r.Set(t, forClients(t, red))
	ann := red.Sign(t, pkix.Name{CommonName: "ann"}, time.Now().Add(time.Hour))
	until(t, r, &ann, 200)
	for host, want := range map[string]bool{tlsHost: true, "open.test": false, "nobody.test": false} {
		if _, asked, _, err := status(r, host, &ann, nil); asked != want || err != nil {
			t.Errorf("%s: asked for a certificate: %t, want %t (error %v)", host, asked, want, err)
		}
	}
}

// Authorities change from red over both to blue while clients of each connect without a pause. Nobody whose authority is
// there loses a handshake, or an answer; and one that is there no more, or has revoked him, lets nobody in.
func TestAuthoritiesRotateUnderLoad(t *testing.T) {
	r := envoytest.New(t, nil)
	red, blue := authority.New(t, "red", nil), authority.New(t, "blue", nil)
	hour := time.Now().Add(time.Hour)
	ann, bob := red.Sign(t, pkix.Name{CommonName: "ann"}, hour), blue.Sign(t, pkix.Name{CommonName: "bob"}, hour)
	config := forClients(t, red)
	r.Set(t, config)
	until(t, r, &ann, 200)

	var mu sync.Mutex
	var wrong []string
	count := 0
	// always is whoever must get 200 at any time, until end returns.
	always := func(shown *tls.Certificate) (end func()) {
		var load sync.WaitGroup
		stop := make(chan struct{})
		for range 2 {
			load.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					got, _, _, err := status(r, tlsHost, shown, nil)
					mu.Lock()
					if count++; got != 200 {
						wrong = append(wrong, fmt.Sprintf("%d (%v)", got, err))
					}
					mu.Unlock()
				}
			})
		}
		return func() { close(stop); load.Wait() }
	}
	more := func() {
		t.Helper()
		mu.Lock()
		from := count
		mu.Unlock()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			mu.Lock()
			n := count - from
			mu.Unlock()
			if n > 100 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d connections in 10 s", n)
			}
		}
	}
	endAnn := always(&ann)
	more()
	config = verifiedBy(t, config, nil, red, blue)
	r.Set(t, config)
	until(t, r, &bob, 200)
	endBob := always(&bob)
	for range 5 { // new lists, in which nobody is
		config = verifiedBy(t, config, append(red.List(t, hour), blue.List(t, hour)...), red, blue)
		r.Set(t, config)
		more()
	}
	endAnn()
	config = verifiedBy(t, config, nil, blue)
	r.Set(t, config)
	until(t, r, &ann, 400)
	more()
	endBob()
	if len(wrong) > 0 {
		t.Errorf("%d of %d: %v", len(wrong), count, wrong[:min(len(wrong), 5)])
	}
	t.Logf("%d connections", count)
	until(t, r, &bob, 200)
	blue.Revoke(bob)
	r.Set(t, verifiedBy(t, config, blue.List(t, hour), blue))
	until(t, r, &bob, 400)
}

// A session that was made before a certificate was revoked does not let its client in again.
func TestNoSessionOutlivesItsCertificate(t *testing.T) {
	r := envoytest.New(t, nil)
	red := authority.New(t, "red", nil)
	hour := time.Now().Add(time.Hour)
	ann := red.Sign(t, pkix.Name{CommonName: "ann"}, hour)
	config := forClients(t, red)
	r.Set(t, config)
	until(t, r, &ann, 200)
	sessions := tls.NewLRUClientSessionCache(10)
	for range 3 {
		if got, _, resumed, err := status(r, tlsHost, &ann, sessions); got != 200 || resumed || err != nil {
			t.Fatalf("status %d, resumed %t, error %v", got, resumed, err)
		}
	}
	red.Revoke(ann)
	r.Set(t, verifiedBy(t, config, red.List(t, hour), red))
	until(t, r, &ann, 400)
	if got, _, _, err := status(r, tlsHost, &ann, sessions); got != 400 {
		t.Errorf("status %d (error %v), want 400", got, err)
	}
}

// A host for clients comes and goes, and a connection of another host does not notice.
func TestClientHostsLeaveOtherConnections(t *testing.T) {
	r := envoytest.New(t, nil)
	with := forClients(t, authority.New(t, "red", nil))
	without := with
	without.ClientTLS, without.Authorities = nil, nil
	without.Hosts = slices.Clone(with.Hosts)
	without.Hosts[1].Clients = nil
	without.Certificates = slices.Clone(with.Certificates)
	without.Certificates[1].ServerNames = []string{tlsHost}
	r.Set(t, without)
	conn, err := dialTLS(r.Settings.HTTPS, "open.test")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func() {
		t.Helper()
		if err := conn.askFor("open.test"); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	for _, c := range []gateway.Config{with, without, with} {
		r.Set(t, c)
		for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			ask()
		}
	}
}
