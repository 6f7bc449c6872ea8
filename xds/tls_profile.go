package xds

import (
	"fmt"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// A TLSProfile is which versions and ciphers clients may choose among: one of Mozilla's server side configurations
// (wiki.mozilla.org/Security/Server_Side_TLS, version 5.8). Hosts cannot choose: each has the same.
type TLSProfile uint8

const (
	// TLSIntermediate is TLS 1.2 and 1.3 with ciphers of forward secrecy and authenticated encryption, without DHE.
	TLSIntermediate TLSProfile = iota
	// TLSModern is TLS 1.3 alone.
	TLSModern
)

// String is Mozilla's name.
func (p TLSProfile) String() string { return [...]string{"intermediate", "modern"}[p] }

// ParseTLSProfile reads Mozilla's name.
func ParseTLSProfile(name string) (TLSProfile, error) {
	for _, p := range []TLSProfile{TLSIntermediate, TLSModern} {
		if p.String() == name {
			return p, nil
		}
	}
	return 0, fmt.Errorf("TLS profile %q is neither intermediate nor modern", name)
}

// parameters are the profile in Envoy's words. Both have the same key exchanges, a hybrid one with ML-KEM (FIPS 203) first:
// what is recorded today is to be safe from the computers of tomorrow.
func (p TLSProfile) parameters() *tlsv3.TlsParameters {
	out := &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		EcdhCurves:                []string{"X25519MLKEM768", "X25519", "P-256", "P-384"},
	}
	if p == TLSIntermediate {
		out.TlsMinimumProtocolVersion = tlsv3.TlsParameters_TLSv1_2
		out.CipherSuites = []string{ // of TLS 1.2; those of 1.3 cannot be chosen
			"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
			"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
			"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
		}
	}
	return out
}
