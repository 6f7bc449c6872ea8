package gateway

import (
	"maps"
	"slices"

	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// A Passthrough is a server name whose TLS connections are handed to a Backend as they are.
type Passthrough struct {
	// ServerName is an exact one (RFC 6066 section 3), in lower case. No Certificate has it.
	ServerName string
	// Backend is the Name of the Backend.
	Backend string
	// Origin is the Ingress that asked for it.
	Origin model.Key
}

// settlePassthrough finds the hosts whose TLS connections are handed on, and takes these names from the certificates. One
// that cannot be handed on is served as others are.
func (x *index) settlePassthrough() []model.Problem {
	var problems []model.Problem
	for _, host := range slices.Sorted(maps.Keys(x.byHost)) {
		i := slices.IndexFunc(x.byHost[host], func(r *request) bool { return r.asked.Passthrough && r.owns(host, x) })
		if i < 0 {
			continue
		}
		r := x.byHost[host][i]
		to, refused := x.passthroughTo(host, r)
		if refused != nil {
			problems = append(problems, model.Problemf(model.Ref("Ingress", r.key), refused.reason,
				"host %s: %s; its TLS connections are not passed through", host, refused.message))
			continue
		}
		x.passthroughs = append(x.passthroughs, Passthrough{ServerName: host, Backend: to.name(), Origin: r.key})
		x.passed = append(x.passed, to)
		x.certificates.release(host)
	}
	return problems
}

// passthroughTo is the backend of path / of a host, as in ingress-nginx.
func (x *index) passthroughTo(host string, r *request) (target, *refusal) {
	if host == CatchAll || host != exactName(host) {
		return target{}, &refusal{"PassthroughNotPossible", "passthrough is by server name, and needs a host without a wildcard"}
	}
	if r.refused != nil {
		return target{}, r.refused
	}
	if _, asks := x.clients[host]; asks {
		return target{}, &refusal{"PassthroughNotPossible", "auth-tls-secret asks for clients' certificates, which cannot be seen in connections that are passed through"}
	}
	for _, p := range r.paths[host] {
		if p.path != "/" || p.match == Exact || p.answer != nil {
			continue
		}
		port, refused := resolve(x.snapshot.Services, r.key.Namespace, p.backend)
		to := target{port, policy.Backend{
			ConnectTimeout: r.asked.Backend.ConnectTimeout, Passthrough: true, ServiceAddress: r.asked.Backend.ServiceAddress,
		}}
		if refused == nil {
			refused = x.speakProxy(&to)
		}
		return to, refused
	}
	return target{}, &refusal{"PassthroughNotPossible", "it needs a path / with pathType Prefix or ImplementationSpecific, whose backend gets the connections"}
}

// exactName is the host without what makes it a wildcard.
func exactName(host string) string {
	if len(host) > 2 && host[:2] == "*." {
		return host[2:]
	}
	return host
}

// release takes a name from its certificate.
func (c *certificates) release(name string) {
	certificate := c.byName[name]
	if certificate == nil {
		return
	}
	delete(c.byName, name)
	certificate.ServerNames = slices.DeleteFunc(slices.Clone(certificate.ServerNames), func(n string) bool { return n == name })
	if certificate == &c.fallback {
		c.pinned = certificate.ServerNames
	}
}
