package gateway

import (
	"cmp"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// stapleKey is where a Secret may hold what the authority says of its certificate: an OCSP response (RFC 6960), DER, as other
// controllers of Envoy look for it.
const stapleKey = "tls.ocsp-staple"

// A staple is an OCSP response for the certificate of a keyPair, to be shown in handshakes (RFC 6066 section 8).
type staple struct {
	der          []byte
	since, until time.Time
	// fault says why it cannot be shown at all.
	fault string
}

// maxStapleBytes bounds a response; a large one has a chain of the responder's in it.
const maxStapleBytes = 16 << 10

// readStaple checks that a response is of the issuer of a certificate, and for it: Envoy would refuse the key pair otherwise,
// and clients the connection. It says what is in the response in words of this file.
func readStaple(der []byte, chain []*x509.Certificate) staple {
	switch {
	case len(der) == 0:
		return staple{}
	case len(der) > maxStapleBytes:
		return staple{fault: "is longer than 16 KiB"}
	case len(chain) < 2:
		return staple{fault: "cannot be verified: tls.crt must have the issuer's certificate after the host's own"}
	}
	if _, err := ocsp.ParseResponse(der, nil); err != nil {
		if _, isAnswer := errors.AsType[ocsp.ResponseError](err); isAnswer {
			return staple{fault: "says that the authority could not answer"}
		}
		return staple{fault: "is not an OCSP response for one certificate, in DER"}
	}
	r, err := ocsp.ParseResponseForCert(der, chain[0], chain[1])
	switch {
	case err != nil:
		return staple{fault: "is not for the certificate in tls.crt, or not signed by its issuer"}
	case r.Status == ocsp.Revoked:
		return staple{fault: "says that the certificate was revoked: get a new one"}
	case r.Status != ocsp.Good:
		return staple{fault: "says that the authority does not know the certificate"}
	case r.NextUpdate.IsZero():
		return staple{fault: "does not say until when it holds"}
	}
	return staple{der: der, since: r.ThisUpdate, until: r.NextUpdate}
}

// mustStaple is the extension by which a certificate demands a staple (RFC 7633), and statusRequest the feature in it.
var mustStaple = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

const statusRequest = 5

// mustShow says that clients refuse a certificate without a staple. Envoy does so before.
func mustShow(cert *x509.Certificate) bool {
	for _, extension := range cert.Extensions {
		var features []int
		if !extension.Id.Equal(mustStaple) {
			continue
		}
		if _, err := asn1.Unmarshal(extension.Value, &features); err == nil && slices.Contains(features, statusRequest) {
			return true
		}
	}
	return false
}

// lacks says what a key pair needs to be served at all.
func (p *keyPair) lacks(now time.Time) error {
	if der, fault := p.staple.at(now); mustShow(p.certs[0]) && len(der) == 0 {
		return fmt.Errorf("holds a certificate that clients take with an OCSP response only (RFC 7633), and its %s %s", stapleKey, cmp.Or(fault, "is missing"))
	}
	return nil
}

// at is what can be shown of the staple, and why nothing can. A zero now checks no times.
func (s staple) at(now time.Time) (der []byte, fault string) {
	switch {
	case s.fault != "" || len(s.der) == 0:
		return nil, s.fault
	case now.IsZero():
		return s.der, ""
	case !now.Before(s.until):
		return nil, "was to be renewed until " + s.until.UTC().Format(time.DateTime) + " UTC"
	case now.Before(s.since):
		return nil, "holds from " + s.since.UTC().Format(time.DateTime) + " UTC only"
	}
	return s.der, ""
}
