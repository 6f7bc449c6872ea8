package gateway

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A keyPair is what a TLS Secret holds, checked and written anew, so that what Go reads and what Envoy's
// BoringSSL reads cannot differ.
type keyPair struct {
	chain, key []byte // PEM
	certs      []*x509.Certificate
	// authorities is ca.crt, PEM and written anew; empty if there is none that can be read.
	authorities []byte
	staple      staple
}

const (
	minRSABits = 2048 // Envoy refuses less
	maxRSABits = 8192 // a handshake with more costs hundreds of milliseconds
	// maxChainBytes is what OpenSSL clients accept of a chain by default (SSL_CTX_set_max_cert_list).
	maxChainBytes = 100 << 10
)

// readSecret returns the key pair of a TLS Secret. Its errors are sentences of this file only: those of the
// parsers might quote what they read.
func readSecret(secret *corev1.Secret) (*keyPair, error) {
	switch secret.Type {
	case corev1.SecretTypeTLS, corev1.SecretTypeOpaque, "":
	default:
		return nil, fmt.Errorf("is of type %s, not %s", secret.Type, corev1.SecretTypeTLS)
	}
	for _, name := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if len(secret.Data[name]) == 0 {
			return nil, fmt.Errorf("has no %s", name)
		}
	}
	certs, err := readChain(secret.Data[corev1.TLSCertKey])
	if err != nil {
		return nil, err
	}
	// Before the private key: to read one of 16,384 bits takes minutes.
	if err := checkKey(certs[0].PublicKey); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	switch {
	case err != nil && strings.Contains(err.Error(), "does not match"):
		return nil, errors.New("holds a key that does not belong to its certificate")
	case err != nil:
		return nil, errors.New("holds no readable PEM private key in tls.key (encrypted keys are not supported)")
	}
	if key, ok := pair.PrivateKey.(*rsa.PrivateKey); ok && len(key.Primes) != 2 {
		return nil, errors.New("holds an RSA key of more than two primes, which Envoy cannot serve")
	}
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return nil, errors.New("holds a private key of an unknown kind")
	}
	out := &keyPair{certs: certs, staple: readStaple(secret.Data[stapleKey], certs), authorities: readAuthorities(secret.Data[corev1.ServiceAccountRootCAKey]), key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
	for _, cert := range certs {
		out.chain = append(out.chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out, nil
}

// readChain parses all certificates of a PEM text.
func readChain(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	size := 0
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a certificate, number %d of tls.crt, that cannot be parsed", len(certs)+1)
		}
		certs = append(certs, cert)
		if size += len(cert.Raw); size > maxChainBytes {
			return nil, fmt.Errorf("holds a certificate chain of more than %d KiB", maxChainBytes>>10)
		}
	}
	if len(certs) == 0 {
		return nil, errors.New("holds no PEM certificate in tls.crt")
	}
	return certs, nil
}

// checkKey refuses public keys that Envoy cannot serve, or only slowly.
func checkKey(key any) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("holds an RSA key of %d bits; %d to %d are served", bits, minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return fmt.Errorf("holds a key on curve %s; P-256, P-384 and P-521 are served", key.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return errors.New("holds a key that is neither RSA, ECDSA nor Ed25519")
	}
	return nil
}

// warning says what clients will dislike about a pair that is served nevertheless: a late renewal should not
// become an outage. A zero now checks no times.
func (p *keyPair) warning(now time.Time) (reason, message string) {
	if now.IsZero() {
		return "", ""
	}
	for _, cert := range p.certs {
		switch {
		case now.After(cert.NotAfter):
			return "CertificateExpired", "expired on " + cert.NotAfter.UTC().Format(time.DateTime) + " UTC"
		case now.Before(cert.NotBefore):
			return "CertificateNotYetValid", "is valid from " + cert.NotBefore.UTC().Format(time.DateTime) + " UTC only"
		}
	}
	for _, cert := range p.certs {
		if now.After(cert.NotAfter.Add(-soon(cert.NotAfter.Sub(cert.NotBefore)))) {
			return "CertificateExpiresSoon", "expires on " + cert.NotAfter.UTC().Format(time.DateTime) + " UTC, and was not renewed"
		}
	}
	return "", ""
}

// notAfter is when the first of the certificates ends.
func (p *keyPair) notAfter() time.Time {
	out := p.certs[0].NotAfter
	for _, cert := range p.certs[1:] {
		if cert.NotAfter.Before(out) {
			out = cert.NotAfter
		}
	}
	return out
}

// soon is how long before its end a certificate of some lifetime should have been renewed: a tenth of it, and no more than
// two weeks. What renews by itself (RFC 8555) does so when a third is left.
func soon(lifetime time.Duration) time.Duration { return min(lifetime/10, 14*24*time.Hour) }

// uncovered selects those names that the certificate is not for. Clients check subject alternative names only
// (RFC 9525 section 6.3).
func (p *keyPair) uncovered(names []string) []string {
	var out []string
	for _, name := range names {
		if p.certs[0].VerifyHostname(name) != nil {
			out = append(out, name)
		}
	}
	return out
}

// serverNames are the host names that the certificate itself is for.
func (p *keyPair) serverNames() []string {
	var out []string
	for _, name := range p.certs[0].DNSNames {
		if host, err := checkHost(name); err == nil {
			out = append(out, host)
		}
	}
	return out
}

// readAuthorities writes the certificates of ca.crt anew; none if one of them cannot be read.
func readAuthorities(text []byte) []byte {
	certs, err := readChain(text)
	if err != nil {
		return nil
	}
	var out []byte
	for _, cert := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}
