package follow

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// certificateText is a certificate in one line.
func certificateText(name string, c *x509.Certificate) string {
	names := c.DNSNames
	if len(names) == 0 {
		names = []string{"no host"}
	}
	return fmt.Sprintf("certificate %s for %s until %s, sha256 %s", name, shorten(names),
		c.NotAfter.UTC().Format("2006-01-02"), fingerprint(c)[:16])
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// certificateProblems says why a client that checks would refuse a certificate for a host, apart from who signed it. An
// empty host and a zero now are not checked.
func certificateProblems(c *x509.Certificate, now time.Time, host string) []string {
	var out []string
	switch {
	case now.IsZero():
	case now.After(c.NotAfter):
		out = append(out, "expired at "+c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		out = append(out, "not valid before "+c.NotBefore.UTC().Format(time.RFC3339))
	}
	if host != "" && !covers(c, host) {
		out = append(out, "not valid for "+host)
	}
	return out
}

// covers says whether a certificate is for a host; a wildcard host is one of its names.
func covers(c *x509.Certificate, host string) bool {
	if !strings.HasPrefix(host, "*.") {
		return c.VerifyHostname(host) == nil
	}
	for _, name := range c.DNSNames {
		if strings.EqualFold(name, host) {
			return true
		}
	}
	return false
}
