package gateway

import (
	"cmp"
	"maps"
	"regexp/syntax"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// A Canary is another backend for some of a Route's requests.
type Canary struct {
	// Backend is the Name of the Backend.
	Backend string
	// Canary says which requests.
	policy.Canary
	// Origin is the Ingress that asked for it.
	Origin model.Key
}

// A Mirror is a backend that gets copies of a Route's requests.
type Mirror struct {
	// Backend is the Name of the Backend.
	Backend string
	// Host is the Host header that it gets.
	Host string
}

// Backends are the names of all Backends that the Route refers to.
func (r Route) Backends() []string {
	var out []string
	if r.Backend != "" {
		out = append(out, r.Backend)
	}
	if r.Canary != nil {
		out = append(out, r.Canary.Backend)
	}
	if r.Mirror != nil {
		out = append(out, r.Mirror.Backend)
	}
	if r.ErrorPages != nil {
		out = append(out, r.ErrorPages.Backend)
	}
	return out
}

// A place is where a path stands.
type place struct {
	host  string
	match PathMatch
	path  string
}

// canaryNotes reports what a canary has that is the other Ingress's to say.
func (r *request) canaryNotes(report reportFunc) {
	r.canaryBy = r.asked.CanaryBy
	if r.canaryBy.Pattern != "" {
		pattern, err := plainRegex(r.canaryBy.Pattern, syntax.Perl)
		r.canaryBy.Pattern = pattern
		if err != nil {
			report("InvalidAnnotation", "annotation nginx.ingress.kubernetes.io/canary-by-header-pattern: %s %v; no header sends to the canary",
				quote(r.asked.CanaryBy.Pattern), err)
			r.canaryBy.Header = ""
		}
	}
	own := r.asked.Route
	own.Session, own.Hash = policy.Session{}, nil
	if text := own.String(); text != "" {
		report("CanaryInherits", "annotations of a canary other than those of canaries have no effect, those of the other Ingress hold: %s", text)
	}
	if len(r.ingress.Spec.TLS) > 0 || r.fallback != nil {
		report("CanaryInherits", "spec.tls and spec.defaultBackend of a canary have no effect, those of the other Ingress hold")
	}
	r.fallback = nil
}

// settleCanaries finds for each path of a canary the path of the other Ingress that it is added to. Hosts have their
// owners already: a canary of another namespace gets nothing.
func (x *index) settleCanaries(canaries []*request) []model.Problem {
	x.canaries = map[place]path{}
	var problems []model.Problem
	for _, r := range canaries {
		report := func(reason, format string, args ...any) {
			problems = append(problems, model.Problemf(model.Ref("Ingress", r.key), reason, format, args...))
		}
		if r.refused != nil {
			report(r.refused.reason, "%s; the canary is left out", r.refused.message)
			continue
		}
		for _, host := range slices.Sorted(maps.Keys(r.paths)) {
			for _, p := range r.paths[host] {
				at := place{host, p.match, p.path}
				before, taken := x.canaries[at]
				switch {
				case !x.serves(r.key.Namespace, at):
					report("CanaryAlone", "host %s: no other Ingress of namespace %s serves %s %s, so that nothing is sent to the canary: give both the same host, path and pathType",
						host, r.key.Namespace, p.match, p.path)
				case taken:
					report("PathConflict", "host %s: %s %s has a canary by Ingress %s, which comes first; there can be one", host, p.match, p.path, before.from.key)
				default:
					x.canaries[at] = p
				}
			}
		}
	}
	return problems
}

// serves says whether it is an Ingress of the namespace whose path stands at a place: a guest's does not stand where the
// owner of the host has an equal one.
func (x *index) serves(namespace string, at place) bool {
	var stands *path
	for _, r := range x.byHost[at.host] {
		for i := range r.paths[at.host] {
			p := &r.paths[at.host][i]
			if p.match == at.match && p.path == at.path && (stands == nil || stands.broken() && !p.broken()) { // as contest decides
				stands = p
			}
		}
	}
	return stands != nil && stands.from.key.Namespace == namespace
}

// extras adds to a Route that leads to a Backend what else its requests lead to. What cannot be found costs itself.
func (x *index) extras(host string, p path, route *Route) ([]target, []model.Problem) {
	if route.Backend == "" {
		return nil, nil
	}
	var targets []target
	var problems []model.Problem
	settings := p.from.asked.Backend
	if c, ok := x.canaries[place{host, p.match, p.path}]; ok {
		port, refused := resolve(x.snapshot.Services, c.from.key.Namespace, c.backend)
		if refused != nil {
			problems = append(problems, model.Problemf(model.Ref("Ingress", c.from.key), refused.reason,
				"%s; host %s, %s %s is served without the canary", refused.message, host, p.match, p.path))
		} else {
			to := target{port, settings}
			route.Canary = &Canary{Backend: to.name(), Canary: c.from.canaryBy, Origin: c.from.key}
			targets = append(targets, to)
		}
	}
	mirror := p.from.asked.Mirror
	if mirror.Service == "" {
		return targets, problems
	}
	backend := &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
		Name: mirror.Service, Port: networkingv1.ServiceBackendPort{Number: int32(mirror.Port)},
	}}
	key := model.Key{Namespace: cmp.Or(mirror.Namespace, p.from.key.Namespace), Name: mirror.Service}
	port, refused := resolve(x.snapshot.Services, key.Namespace, backend)
	if no := p.from.mayRefer(v1alpha1.GrantService, key, "put a Service with EndpointSlices of its own into namespace "+p.from.key.Namespace); no != nil {
		refused = &refusal{no.reason, "annotation nginx.ingress.kubernetes.io/mirror-target: " + no.message}
	}
	if refused != nil {
		return targets, append(problems, model.Problemf(model.Ref("Ingress", p.from.key), refused.reason, "%s; requests are not mirrored", refused.message))
	}
	to := target{port, policy.Backend{}}
	if mirror.TLS {
		to.settings.Protocol = policy.HTTPS
	}
	route.Mirror = &Mirror{Backend: to.name(), Host: mirror.Host}
	return append(targets, to), problems
}

// endpoints is the name of the EndpointSet.
func (t target) endpoints() string {
	if t.settings.ServiceAddress {
		return t.servicePort.name() + ";service-address"
	}
	return t.servicePort.name()
}
