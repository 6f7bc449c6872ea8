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
	resource := &Resource{Kind: Endpoints, Name: s.Name, Objects: b.origins[s.Name]}
	if !b.contain(resource, "requests are answered 503", func() { b.add(resource, loadAssignment(s)) }) {
		b.add(resource, loadAssignment(gateway.EndpointSet{Name: s.Name}))
	}
}

// addSecrets adds the key pairs, and returns the certificates whose key pair Envoy gets: a listener waits for those of all
// its chains, so one that lacks its key pair must have no chain.
func (b *builder) addSecrets(certificates []gateway.Certificate) []gateway.Certificate {
	var good []gateway.Certificate
	b.chains = newChainTable(nil)
	for _, c := range certificates {
		if len(c.ServerNames) == 0 && c.Name != gateway.DefaultCertificateName {
			continue // shown to clients with a certificate alone: addClients
		}
		resource := &Resource{Kind: Secret, Name: c.Name, Objects: certificateObjects(c.Name)}
		b.contain(resource, "clients get another certificate", func() {
			_ = newChainTable([]gateway.Certificate{c}) // which reads all of its names, before anything is added
			b.add(resource, secret(c))
			if b.out.Get(Secret, c.Name) != nil {
				b.chains.add(c)
				good = append(good, c)
			}
		})
	}
	return good
}
