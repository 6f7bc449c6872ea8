package gateway

import (
	"cmp"
	"maps"
	"slices"

	"hythe.dev/hythe/gateway/policy"
)

// A ClientTLS is the server names on whose connections clients are asked for a certificate, as far as these connections
// are alike: what else is asked of clients is their Hosts' to say.
type ClientTLS struct {
	// Certificate is the Name of the Certificate that is shown.
	Certificate string
	// Authorities is the Name of the Authorities that clients' certificates are verified by, and Depth how many others may
	// stand between.
	Authorities string
	Depth       uint32
	// ServerNames are as those of a Certificate. None of them is a Certificate's or another ClientTLS's.
	ServerNames []string
}

// settleClientTLS takes the server names of hosts that are for clients with a certificate from the Certificates.
func (x *index) settleClientTLS() []ClientTLS {
	hosts := slices.Sorted(maps.Keys(x.byHost))
	asks := func(name string) *policy.ClientAuth { return x.clientsOf(x.rulesOf(name)) }
	c := x.certificates
	for _, host := range hosts {
		if x.clientsOf(host) != nil {
			c.name(host)
		}
	}
	for _, host := range hosts {
		// Envoy's wildcards take names of any depth: a host below that is for everybody has a name of its own.
		if above := c.entryOf(host); host != CatchAll && above != "" && asks(above) != nil && asks(host) == nil {
			c.part(host, x.owner(host))
		}
	}
	byKey := map[clientTLSKey]*ClientTLS{}
	for _, name := range slices.Sorted(maps.Keys(c.byName)) {
		auth := asks(name)
		if auth == nil {
			continue
		}
		key := clientTLSKey{c.byName[name].Name, auth.Secret, auth.VerifyDepth()}
		if byKey[key] == nil {
			byKey[key] = &ClientTLS{Certificate: key.certificate, Authorities: key.authorities, Depth: key.depth}
		}
		byKey[key].ServerNames = append(byKey[key].ServerNames, name)
		c.withdraw(name)
	}
	out := make([]ClientTLS, 0, len(byKey))
	for _, t := range byKey {
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b ClientTLS) int {
		return cmp.Or(cmp.Compare(a.Certificate, b.Certificate), cmp.Compare(a.Authorities, b.Authorities), cmp.Compare(a.Depth, b.Depth))
	})
	return out
}

// A clientTLSKey is what the connections of a ClientTLS have in common.
type clientTLSKey struct {
	certificate, authorities string
	depth                    uint32
}

// name gives a server name an entry of its own, with the certificate that it gets anyway.
func (c *certificates) name(host string) {
	if c.byName[host] != nil {
		return
	}
	if above := c.entryOf(host); above != "" {
		c.byName[host], c.owners[host] = c.byName[above], c.owners[above]
		return
	}
	c.byName[host] = &c.fallback
}

// part gives a host below the wildcard of others a server name of its own, with the certificate of that wildcard where
// the host's namespace asked for it, too, as pin does.
func (c *certificates) part(host, owner string) {
	if c.byName[host] != nil {
		return
	}
	above := c.entryOf(host)
	certificate := c.byName[above]
	if certificate == &c.fallback || !c.owners[above].namespaces[owner] {
		c.byName[host] = &c.fallback
		c.pinned = append(slices.Clone(c.pinned), host)
		slices.Sort(c.pinned)
		c.fallback.ServerNames = c.pinned
		return
	}
	c.byName[host], c.owners[host] = certificate, c.owners[above]
	certificate.ServerNames = append(slices.Clone(certificate.ServerNames), host)
}

// withdraw takes a name from the server names of its certificate, which goes on to be shown for it.
func (c *certificates) withdraw(name string) {
	certificate := c.byName[name]
	certificate.ServerNames = slices.DeleteFunc(slices.Clone(certificate.ServerNames), func(n string) bool { return n == name })
	if certificate == &c.fallback {
		c.pinned = certificate.ServerNames
	}
	if c.shown == nil {
		c.shown = map[string]bool{}
	}
	c.shown[certificate.Name] = true
}

// usedAuthorities are those that connections are verified by, sorted by name.
func (x *index) usedAuthorities(used []ClientTLS) []Authorities {
	byName := map[string]Authorities{}
	for _, t := range used {
		byName[t.Authorities] = x.authorities[t.Authorities]
	}
	var out []Authorities
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}
