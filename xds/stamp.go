package xds

import (
	"crypto/sha256"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/gateway"
)

// stampKey is the filter state in which a TLS filter chain leaves its stamp.
const stampKey = "hythe.tls"

// tlsPolicy names the TLS settings that all chains share. Change it with them.
const tlsPolicy = "tls12-tls13 ecdhe-aead"

// stamp names a certificate and its TLS policy by 120 bits of a hash. The key pair is no part of it: a rotation
// changes the Secret resource only and drains no connection. It has the form of an IPv6 address, since Envoy's
// matcher for addresses can be inverted and that for strings cannot.
func stamp(certificate string) netip.Addr {
	sum := sha256.Sum256([]byte(tlsPolicy + "\x00" + certificate))
	sum[0] = 0xfd
	return netip.AddrFrom16([16]byte(sum[:16]))
}

// A chainTable answers which filter chain Envoy takes for a server name.
type chainTable struct {
	byName map[string]string       // SNI value or wildcard → certificate
	below  map[string][]netip.Addr // wildcard → stamps of the names that it covers
	names  map[string][]string     // certificate → its SNI values
	only   map[string][]netip.Addr // host that asks for certificates → stamps of its own chains
}

// hostChains is what a host's routes say of chains.
type hostChains struct {
	stamps  []netip.Addr
	ownName string
	plain   bool // with the default certificate
}

func (t chainTable) of(host string) hostChains {
	return hostChains{t.stamps(host), t.ownName(host), t.certificate(host) == gateway.DefaultCertificateName}
}

func (c hostChains) equal(o hostChains) bool {
	return c.ownName == o.ownName && c.plain == o.plain && slices.Equal(c.stamps, o.stamps)
}

func newChainTable(certificates []gateway.Certificate) chainTable {
	t := chainTable{byName: map[string]string{}, below: map[string][]netip.Addr{}, names: map[string][]string{}, only: map[string][]netip.Addr{}}
	for _, c := range certificates {
		t.add(c)
	}
	return t
}

func (t chainTable) add(c gateway.Certificate) {
	t.names[c.Name] = c.ServerNames
	for _, name := range c.ServerNames {
		t.byName[name] = c.Name
		if label, parent, found := strings.Cut(name, "."); found && label != "*" {
			t.below["*."+parent] = append(t.below["*."+parent], stamp(c.Name))
		}
	}
}

// certificate returns the certificate for a server name: its own, that of the longest wildcard, or the default.
// Envoy's wildcards span any number of labels.
func (t chainTable) certificate(name string) string {
	if c, ok := t.byName[name]; ok {
		return c
	}
	rest := strings.TrimPrefix(name, "*.")
	if rest == name {
		_, rest, _ = strings.Cut(name, ".")
	}
	for rest != "" {
		if c, ok := t.byName["*."+rest]; ok {
			return c
		}
		_, rest, _ = strings.Cut(rest, ".")
	}
	return gateway.DefaultCertificateName
}

// stamps returns the stamps of the chains on which a client may rightly ask for the host: the one that its server
// name selects and, for a wildcard host, those of the names that it covers.
func (t chainTable) stamps(host string) []netip.Addr {
	if len(t.only[host]) > 0 {
		return t.onlyStamps(host)
	}
	out := append([]netip.Addr{stamp(t.certificate(host))}, t.below[host]...)
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// stampsBut returns the stamps of the chains that serve names without a host: the default one, those of wildcards,
// and those of names that are not in hosts.
func (t chainTable) stampsBut(hosts map[string]bool) []netip.Addr {
	out := []netip.Addr{stamp(gateway.DefaultCertificateName)}
	for name, c := range t.byName {
		if strings.HasPrefix(name, "*.") || !hosts[name] {
			out = append(out, stamp(c))
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
