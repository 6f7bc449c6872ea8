package policy

import (
	"cmp"
	"strconv"
	"strings"
)

// A ClientAuth is who must show a certificate (RFC 8446 section 4.3.2) before anything of a host is served. The zero value
// asks nobody.
type ClientAuth struct {
	// Secret is the NAMESPACE/NAME of the one with the authorities in ca.crt, and with what they revoked in ca.crl.
	Secret string
	Mode   ClientAuthMode
	// Depth is how many authorities may stand between a client's certificate and one of ca.crt; 0 means 1, as in nginx.
	Depth uint8
	// Subject is what the common name of the certificate must be, all of it, as a regular expression; empty for any.
	Subject string
	// ErrorPage is where those are sent who may not come; without a Code they are answered 400.
	ErrorPage Redirect
	// PassCertificate tells pods the certificate.
	PassCertificate bool
}

// A ClientAuthMode says what becomes of clients without a valid certificate.
type ClientAuthMode uint8

// The modes, in nginx' words on, optional and optional_no_ca. Pods are told in each how it went.
const (
	// ClientRequired keeps them out.
	ClientRequired ClientAuthMode = iota
	// ClientOptional lets in who shows none, and keeps out who shows one that is not valid.
	ClientOptional
	// ClientUntrusted lets all in.
	ClientUntrusted
)

// String is nginx' word.
func (m ClientAuthMode) String() string { return [...]string{"on", "optional", "optional_no_ca"}[m] }

// String lists what is set: "shop/ca:on,depth=2,subject". It is empty for the zero value.
func (a ClientAuth) String() string {
	if a.Secret == "" {
		return ""
	}
	words := []string{a.Secret + ":" + a.Mode.String()}
	add := func(on bool, word string) {
		if on {
			words = append(words, word)
		}
	}
	add(a.Depth != 0, "depth="+strconv.Itoa(int(a.Depth)))
	add(a.Subject != "", "subject")
	add(a.ErrorPage.Code != 0, "error-page="+a.ErrorPage.String())
	add(a.PassCertificate, "certificate")
	return strings.Join(words, ",")
}

// VerifyDepth is Depth or its default.
func (a ClientAuth) VerifyDepth() uint32 { return uint32(cmp.Or(a.Depth, 1)) }
