package xds

import (
	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// contain does what is about one resource, and reports whether it came to its end. After a panic cost says what Envoy does
// without the resource.
func (b *builder) contain(resource *Resource, cost string, f func()) bool {
	fault := contain.Do(f)
	if fault == nil {
		return true
	}
	b.packErr = nil
	for _, p := range resource.Problem("", "") {
		b.problems = append(b.problems, model.InternalError(p.Object, "It has no "+resource.Kind.String()+" "+resource.Name+" in Envoy, so "+cost, fault))
	}
	return false
}

// addEndpoints adds the endpoints of a set, or none after a panic: Envoy would wait for what is not there.
func (b *builder) addEndpoints(s gateway.EndpointSet) {
	resource := &Resource{Kind: Endpoints, Name: s.Name, Objects: b.now.origins[s.Name]}
	if !b.contain(resource, "requests are answered 503", func() { b.add(resource, loadAssignment(s)) }) {
		b.add(resource, loadAssignment(gateway.EndpointSet{Name: s.Name}))
	}
}

// addSecrets adds the key pairs, and notes the certificates whose key pair Envoy gets: a listener waits for those of all
// its chains, so one that lacks its key pair must have no chain.
func (b *builder) addSecrets() {
	gone := func(c *gateway.Certificate) {
		b.drop(Secret, c.Name)
		b.changes.touch(c)
	}
	sideBySide(b.last.config.Certificates, b.config.Certificates, certificateName, gone, func(was, is *gateway.Certificate) {
		names := was != nil && b.keep(Secret, is.Name, func() bool { return sameNames(was, is) })
		if names && b.keep(Secret, is.Name, func() bool { return samePair(was, is) }) {
			return
		}
		b.remake(Secret, is.Name, func() { b.addSecret(*is) })
		if !names || b.now.faulty[resourceID{Secret, is.Name}] {
			b.changes.touch(was, is)
		}
	})
	if b.now.certificates = b.last.certificates; !b.changes.certificates {
		return
	}
	b.now.certificates = nil
	for _, c := range b.config.Certificates {
		if b.get(Secret, c.Name) != nil && forServers(c) {
			b.now.certificates = append(b.now.certificates, public(c))
		}
	}
}

// forServers reports whether a certificate is shown to others than clients with a certificate alone: addClients.
func forServers(c gateway.Certificate) bool {
	return len(c.ServerNames) > 0 || c.Name == gateway.DefaultCertificateName
}

func (b *builder) addSecret(c gateway.Certificate) {
	if !forServers(c) {
		return
	}
	resource := &Resource{Kind: Secret, Name: c.Name, Objects: certificateObjects(c.Name)}
	b.contain(resource, "clients get another certificate", func() {
		_ = newChainTable([]gateway.Certificate{c}) // which reads all of its names
		b.add(resource, secret(c))
	})
}
