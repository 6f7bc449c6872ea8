package nginx

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/authority"
)

// clients are what clients may show, by name, and the authorities that signed it.
type clients struct {
	authorities map[string]*authority.Authority
	shown       map[string]tls.Certificate
}

// newClients makes two authorities: red, which has revoked bob, and blue.
func newClients(t *testing.T) *clients {
	red, blue := authority.New(t, "red", nil), authority.New(t, "blue", nil)
	below := authority.New(t, "below", red)
	further := authority.New(t, "further", below)
	hour := time.Now().Add(time.Hour)
	sign := func(a *authority.Authority, subject pkix.Name, chain ...*authority.Authority) tls.Certificate {
		c := a.Sign(t, subject, hour)
		for _, above := range chain {
			c.Certificate = append(c.Certificate, above.Certificate.Raw)
		}
		return c
	}
	c := &clients{
		authorities: map[string]*authority.Authority{"red": red, "blue": blue},
		shown: map[string]tls.Certificate{
			"ann":   sign(red, pkix.Name{CommonName: "ann", Organization: []string{"shop"}}),
			"anna":  sign(red, pkix.Name{CommonName: "anna"}),
			"bob":   sign(red, pkix.Name{CommonName: "bob"}),
			"space": sign(red, pkix.Name{CommonName: "ann lee"}),
			// These may choose their organisation, and what it looks like.
			"liar":    sign(red, pkix.Name{CommonName: "liar", Organization: []string{"x,CN=ann"}}),
			"liar2":   sign(red, pkix.Name{CommonName: "liar+CN=ann,CN=ann", OrganizationalUnit: []string{"CN=ann"}}),
			"expired": red.Sign(t, pkix.Name{CommonName: "ann"}, time.Now().Add(-time.Minute)),
			"blue":    sign(blue, pkix.Name{CommonName: "ann"}),
			"deep":    sign(below, pkix.Name{CommonName: "deep"}, below),
			"deeper":  sign(further, pkix.Name{CommonName: "deeper"}, further, below),
		},
	}
	red.Revoke(c.shown["bob"])
	return c
}

// text is what CA(NAME) and CRL(NAME) stand for in manifests; CRL(NAME old) should have been renewed.
func (c *clients) text(t *testing.T, kind, name string) []byte {
	name, old := strings.CutSuffix(name, " old")
	a := c.authorities[name]
	switch {
	case a == nil:
		t.Fatalf("there is no authority %q", name)
	case kind == "CA":
		return a.PEM()
	case old:
		return a.List(t, time.Now().Add(-time.Hour))
	}
	return a.List(t, time.Now().Add(time.Hour))
}

// show puts a client's certificate into a configuration, whatever authorities the server names.
func (c *clients) show(config *tls.Config, name string) {
	if name == "" {
		return
	}
	certificate := c.shown[name]
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
}
