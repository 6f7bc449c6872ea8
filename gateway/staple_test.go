package gateway

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"hythe.dev/hythe/internal/authority"
)

// TestStaple shows only what is of the issuer, for the certificate, good and fresh.
func TestStaple(t *testing.T) {
	issuer, other := authority.New(t, "issuer", nil), authority.New(t, "issuer", nil)
	now := time.Now().Truncate(time.Second)
	cert := issuer.Sign(t, pkix.Name{}, now.Add(time.Hour), "a.test").Leaf
	chain := []*x509.Certificate{cert, issuer.Certificate}
	demanding := issuer.SignTemplate(t, &x509.Certificate{NotAfter: now.Add(time.Hour), ExtraExtensions: []pkix.Extension{{Id: mustStaple, Value: []byte{0x30, 3, 2, 1, 5}}}})
	answer := func(by *authority.Authority, change func(*ocsp.Response)) []byte {
		r := ocsp.Response{Status: ocsp.Good, SerialNumber: cert.SerialNumber, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}
		if change != nil {
			change(&r)
		}
		der, err := ocsp.CreateResponse(by.Certificate, by.Certificate, r, by.Signer())
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for name, c := range map[string]struct {
		der   []byte
		chain []*x509.Certificate
		want  string // the fault; empty if it is shown
	}{
		"good":          {answer(issuer, nil), chain, ""},
		"another's":     {answer(other, nil), chain, "not signed by its issuer"},
		"other serial":  {answer(issuer, func(r *ocsp.Response) { r.SerialNumber = issuer.Certificate.SerialNumber }), chain, "not for the certificate"},
		"revoked":       {answer(issuer, func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, now }), chain, "revoked"},
		"unknown":       {answer(issuer, func(r *ocsp.Response) { r.Status = ocsp.Unknown }), chain, "does not know"},
		"old":           {answer(issuer, func(r *ocsp.Response) { r.NextUpdate = now }), chain, "was to be renewed"},
		"early":         {answer(issuer, func(r *ocsp.Response) { r.ThisUpdate = now.Add(time.Minute) }), chain, "holds from"},
		"no end":        {answer(issuer, func(r *ocsp.Response) { r.NextUpdate = time.Time{} }), chain, "until when"},
		"no issuer":     {answer(issuer, nil), chain[:1], "issuer's certificate"},
		"rubbish":       {[]byte("rubbish"), chain, "is not an OCSP response"},
		"more after it": {append(answer(issuer, nil), 0), chain, "is not an OCSP response"},
		"try later":     {ocsp.TryLaterErrorResponse, chain, "could not answer"},
		"long":          {make([]byte, maxStapleBytes+1), chain, "longer"},
		"none":          {nil, chain, "-"},
	} {
		der, fault := readStaple(c.der, c.chain).at(now)
		if c.want != "-" {
			pair := keyPair{certs: []*x509.Certificate{demanding.Leaf}, staple: readStaple(c.der, c.chain)}
			if err := pair.lacks(now); (err == nil) != (c.want == "") {
				t.Errorf("%s: where it is demanded: %v", name, err)
			}
		}
		switch {
		case c.want == "-":
			if der != nil || fault != "" {
				t.Errorf("%s: %d bytes, fault %q", name, len(der), fault)
			}
		case c.want == "" && (len(der) == 0 || fault != ""), c.want != "" && (der != nil || !strings.Contains(fault, c.want)):
			t.Errorf("%s: %d bytes, fault %q, want %q", name, len(der), fault, c.want)
		}
	}
}
