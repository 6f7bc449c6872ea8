package gateway

import (
	"crypto/x509"
	"testing"
	"time"
)

func TestExpiresSoon(t *testing.T) {
	const day = 24 * time.Hour
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		lifetime, left time.Duration
		want           string
	}{
		{90 * day, 30 * day, ""},
		{90 * day, 10 * day, ""},
		{90 * day, 8 * day, "CertificateExpiresSoon"},
		{365 * day, 15 * day, ""},
		{365 * day, 13 * day, "CertificateExpiresSoon"},
		{6 * day, day, ""},
		{6 * day, 14 * time.Hour, "CertificateExpiresSoon"},
		{90 * day, -time.Second, "CertificateExpired"},
	} {
		pair := keyPair{certs: []*x509.Certificate{{NotBefore: start, NotAfter: start.Add(c.lifetime)}}}
		if got, _ := pair.warning(start.Add(c.lifetime - c.left)); got != c.want {
			t.Errorf("%v before the end of %v: %q, want %q", c.left, c.lifetime, got, c.want)
		}
	}
}
