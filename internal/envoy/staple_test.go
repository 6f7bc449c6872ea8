package envoy_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509/pkix"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/authority"
	"hythe.dev/hythe/internal/envoy/envoytest"
)

// Envoy shows the staple of a certificate, also a delegated responder's, takes another one without a lost handshake, and
// serves the certificate without one, too.
func TestStapleIsShown(t *testing.T) {
	r := envoytest.New(t, nil)
	issuer := authority.New(t, "issuer", nil)
	hour := time.Now().Add(time.Hour)
	pair := issuer.Sign(t, pkix.Name{CommonName: tlsHost}, hour, tlsHost)
	serial := pair.Leaf.SerialNumber
	pair.Certificate = append(pair.Certificate, issuer.Certificate.Raw)
	staple := func(responder tls.Certificate, at time.Time) []byte {
		answer := ocsp.Response{Status: ocsp.Good, SerialNumber: serial, ThisUpdate: at, NextUpdate: hour}
		by, signer := issuer.Certificate, issuer.Signer()
		if responder.Leaf != nil {
			by, answer.Certificate = responder.Leaf, responder.Leaf
			signer, _ = responder.PrivateKey.(crypto.Signer)
		}
		der, err := ocsp.CreateResponse(issuer.Certificate, by, answer, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	responder := issuer.Sign(t, pkix.Name{CommonName: "responder"}, hour)
	config := tlsConfig(t, "1")
	set := func(der []byte) {
		chain, key := authority.Pair(t, pair)
		config.Certificates = append(config.Certificates[:1:1], gateway.Certificate{
			Name: "shop/tls", ServerNames: []string{tlsHost}, Chain: chain, Key: key, Staple: der,
		})
		if _, status := r.Set(t, config); len(status.Refused) > 0 {
			t.Fatalf("Envoy refuses %v", status.Refused)
		}
	}
	for _, c := range []struct {
		name string
		der  []byte
	}{
		{"first", staple(tls.Certificate{}, time.Now().Add(-time.Hour))},
		{"renewed", staple(tls.Certificate{}, time.Now().Add(-time.Minute))},
		{"none", nil},
		{"delegated", staple(responder, time.Now().Add(-time.Minute))},
	} {
		set(c.der)
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			state, err := handshake(r, &tls.Config{ServerName: tlsHost})
			if err == nil && string(state.OCSPResponse) == string(c.der) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d bytes, want %d (error %v)", c.name, len(state.OCSPResponse), len(c.der), err)
			}
		}
	}
}
