package policy

import (
	"cmp"
	"strconv"
	"strings"
)

// A TLSVersion is a version of TLS; the zero value leaves the choice to package xds.
type TLSVersion uint8

// The versions that are spoken.
const (
	TLS12 TLSVersion = iota + 1 // RFC 5246
	TLS13                       // RFC 8446
)

// String is "1.2" or "1.3"; empty for the zero value.
func (v TLSVersion) String() string { return [...]string{"", "1.2", "1.3"}[v] }

// An Upstream is how TLS is spoken to pods. The zero value verifies nothing and sends no server name.
type Upstream struct {
	// Secret is the NAMESPACE/NAME of the one whose ca.crt pods are verified by, and whose tls.crt and tls.key are shown to them.
	Secret string
	// Verify refuses pods whose certificate is not signed by ca.crt, or is not for Name.
	Verify bool
	// Name is what certificates must be for, and the server name (RFC 6066) if SendName is set.
	Name     string
	SendName bool
	// Depth is how many authorities may stand between a pod's certificate and ca.crt; 0 means 1, as in nginx.
	Depth uint8
	// Lowest and Highest bound the version.
	Lowest, Highest TLSVersion
}

// String lists what is not the default, as the end of a Backend's name: ";tls=shop/ca,verify,name=web.shop,sni".
func (u Upstream) String() string {
	if u == (Upstream{}) {
		return ""
	}
	var words []string
	add := func(on bool, word string) {
		if on {
			words = append(words, word)
		}
	}
	add(u.Secret != "", u.Secret)
	add(u.Verify, "verify")
	add(u.Name != "", "name="+u.Name)
	add(u.SendName, "sni")
	add(u.Depth != 0, "depth="+strconv.Itoa(int(u.Depth)))
	add(u.Lowest != 0, u.Lowest.String()+"-"+u.Highest.String())
	return ";tls=" + strings.Join(words, ",")
}

// VerifyDepth is Depth or its default.
func (u Upstream) VerifyDepth() uint32 { return uint32(cmp.Or(u.Depth, 1)) }
