package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// Build says what is to be served, and what was asked for and is not. Problems are sorted.
func Build(s *model.Snapshot, settings Settings) (Config, []model.Problem) {
	return new(Cache).Build(s, settings)
}

// An index is what all hosts need to know of a snapshot.
type index struct {
	snapshot *model.Snapshot
	// byHost holds the requests with rules for a host, oldest first, all of one namespace.
	byHost       map[string][]*request
	certificates *certificates
	// trusts are Secrets for TLS to pods, by name.
	trusts map[string]Trust
	// passthroughs are server names whose connections are handed on, and passed the Service ports that get them.
	passthroughs []Passthrough
	passed       []target
	// clients are who may come to a host, by host, and clientTLS and authorities what that needs.
	clients     map[string]clientRule
	clientTLS   []ClientTLS
	authorities map[string]Authorities
	// own is what no endpoint may lead to.
	own model.Own
	// configMaps are those that were looked for, nil where there was none.
	configMaps map[model.Key]*corev1.ConfigMap
	// guarded are the requests for which somebody is asked who may come in.
	guarded []*request
	// canaries are paths of canaries by where they are added.
	canaries map[place]path
	// observe is what is told of requests, and collector who gets spans; nil for nobody.
	observe     Observe
	listen      Listen
	compression Compression
	pods        v1alpha1.PodDefaults
	// streams are exposed ports, and streamed the Service ports that get them.
	streams   []Stream
	streamed  []target
	collector *target
	// looked are Services whose endpoints decided something of a host.
	looked map[model.Key]bool
	// fallback is the request whose default backend serves what nobody asked for; may be nil.
	fallback *request
}

func newIndex(s *model.Snapshot, settings Settings, read secretReader) (*index, []model.Problem) {
	x := &index{snapshot: s, byHost: map[string][]*request{}, looked: map[model.Key]bool{}}
	classes := newClasses(s, settings)
	requests, more := readRequests(s, &classes)
	problems := append(classes.problems(), more...)
	problems = append(problems, x.settleUpstreams(requests, read)...)
	problems = append(problems, x.settleUsers(requests, read)...)
	problems = append(problems, x.settleHeaders(requests)...)
	x.own = model.OwnOf(s, settings.OwnPorts, settings.LocalAddresses...)
	canaries := slices.DeleteFunc(slices.Clone(requests), func(r *request) bool { return !r.asked.Canary })
	requests = slices.DeleteFunc(requests, func(r *request) bool { return r.asked.Canary })
	problems = append(problems, addNames(requests, canaries)...)
	for _, r := range requests {
		for host := range r.paths {
			x.byHost[host] = append(x.byHost[host], r)
		}
	}
	problems = append(problems, x.settleOwners()...)
	problems = append(problems, x.settleClients(read, settings.Now)...)
	problems = append(problems, x.settleCanaries(canaries)...)
	allowed := slices.DeleteFunc(slices.Clone(requests), func(r *request) bool { return !r.mayCatchAll })
	x.fallback = oldestDefault(allowed)
	problems = append(problems, unusedDefaults(allowed, x.fallback)...)
	problems = append(problems, x.settleAuth(requests)...)
	x.certificates, more = buildCertificates(settings, requests, read, x.owner)
	x.certificates.pin(slices.Collect(maps.Keys(x.byHost)), x.owner)
	problems = append(problems, more...)
	x.clientTLS = x.settleClientTLS()
	whole := classes.whole()
	x.observe, x.collector, more = x.buildObserve(whole.observe, whole.grants.from)
	problems = append(problems, more...)
	x.listen, more = buildListen(settings.Listen, whole.listeners, whole.grants.from)
	problems = append(problems, more...)
	x.pods = whole.pods
	x.compression, more = buildCompression(whole.compression, whole.grants.from)
	problems = append(problems, x.buildStreams(settings, whole.listeners, whole.grants.from)...)
	problems = append(problems, more...)
	return x, append(problems, x.settlePassthrough()...)
}

// oldestDefault returns the first request that has a default backend, those before that can work as written.
func oldestDefault(requests []*request) *request {
	var broken *request
	for _, r := range requests {
		switch {
		case r.fallback == nil:
		case permanent(r.fallback) == nil:
			return r
		case broken == nil:
			broken = r
		}
	}
	return broken
}

// unusedDefaults reports requests whose default backend is not that of the whole gateway.
func unusedDefaults(requests []*request, winner *request) []model.Problem {
	var problems []model.Problem
	for _, r := range requests {
		if r.fallback == nil || r == winner {
			continue
		}
		problems = append(problems, model.Problemf(model.Ref("Ingress", r.key), "DefaultBackendConflict",
			"requests for hosts that nobody names go to the default backend of Ingress %s, which comes first", winner.key))
	}
	return problems
}

// hosts returns the names of all hosts, sorted: those that have rules, the catch-all, and the names for which an
// Ingress without rules for them wants https, as with a default backend and a TLS entry.
func (x *index) hosts() ([]string, []model.Problem) {
	names := slices.Collect(maps.Keys(x.byHost))
	names = append(names, CatchAll)
	var problems []model.Problem
	copies := map[string]int{} // by the host whose rules are copied
	for _, name := range slices.Sorted(maps.Keys(x.certificates.byName)) {
		rules := x.rulesOf(name)
		if rules == name || !x.redirects(name) {
			continue
		}
		copies[rules]++
		for _, r := range x.byHost[rules] {
			copies[rules] += len(r.paths[rules])
		}
		if copies[rules] > mostCopies {
			problems = append(problems, model.Problemf(model.Ref("Ingress", x.certificates.owners[name].ingress), "TooManyHosts",
				"host %s is not redirected to https: it would be one more copy of the many paths of host %s; name it in a rule of its own", name, rules))
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), problems
}

// mostCopies is how many routes may be copies of those of one wildcard host, or of the catch-all, for names that only
// TLS entries have: an object that fits into etcd has room for a product of many thousand names and paths.
const mostCopies = 10_000

// redirects reports whether plain http requests for a host are to be sent to https: an Ingress that serves it
// has a TLS entry that names it.
func (x *index) redirects(name string) bool {
	wants := func(r *request) bool { return r != nil && r.redirects(name) }
	rules := x.rulesOf(name)
	return slices.ContainsFunc(x.byHost[rules], wants) || rules == CatchAll && wants(x.fallback)
}

// rulesOf returns the host whose rules serve name: itself, the wildcard above it, or the catch-all. A host with
// rules does not fall through to a wider one.
func (x *index) rulesOf(name string) string {
	for _, host := range []string{name, wildcardOf(name)} {
		if len(x.byHost[host]) > 0 {
			return host
		}
	}
	return CatchAll
}

// buildHost says what is served under one host name, and by which Service ports.
func (x *index) buildHost(name string) (Host, []target, []model.Problem) {
	rules := x.rulesOf(name)
	requests := x.byHost[rules]
	host := Host{Name: name, Certificate: x.certificates.of(name), RedirectHTTPS: x.redirects(name), Clients: x.clientsOf(rules)}
	var problems []model.Problem
	var ports []target
	add := func(p path) {
		route, port, problem := x.buildRoute(rules, p)
		more, lost := x.extras(rules, p, &route)
		ports, problems = append(ports, more...), append(problems, lost...)
		more, lost, problem = x.errorPages(rules, p, &route, problem)
		ports, problems = append(ports, more...), append(problems, lost...)
		route.Plain = route.Plain || host.RedirectHTTPS && x.plain(name, p.from)
		host.Routes = append(host.Routes, route)
		if problem != nil {
			problems = append(problems, *problem)
			return
		}
		if route.Backend != "" && route.Backend == port.name() {
			ports = append(ports, port)
		}
	}
	paths, lost := contest(rules, requests)
	problems = append(problems, lost...)
	problems = append(problems, keptRegexes(rules, requests)...)
	for _, p := range paths {
		add(p)
	}
	if n := len(paths); n == 0 || paths[n-1].match != Prefix || paths[n-1].path != "/" {
		if r := x.fallbackOf(rules, requests); r != nil {
			add(path{match: Prefix, path: "/", backend: r.fallback, from: r})
		} else {
			host.Routes = append(host.Routes, Route{Match: Prefix, Path: "/", Status: 404})
			problems = append(problems, emptyRules(rules, requests)...)
		}
	}
	for _, r := range requests {
		host.Ingresses = append(host.Ingresses, r.key)
	}
	for _, route := range host.Routes {
		if route.Origin.Name != "" {
			host.Ingresses = append(host.Ingresses, route.Origin)
		}
	}
	slices.SortFunc(host.Ingresses, model.CompareKeys)
	host.Ingresses = slices.Compact(host.Ingresses)
	return host, ports, problems
}

// fallbackOf returns the request whose default backend serves the paths of a host that no rule matches: the
// oldest of those that have rules for it, else the one for the whole gateway; nil if there is none.
func (x *index) fallbackOf(host string, requests []*request) *request {
	if host != CatchAll {
		if own := oldestDefault(requests); own != nil {
			return own
		}
	}
	return x.fallback
}

// contest puts the paths of a host in the order in which they are tried. Where two are equal, the one of the
// oldest Ingress stands, but not one that cannot work as it is written.
func contest(host string, requests []*request) ([]path, []model.Problem) {
	var all []path
	for _, r := range requests {
		all = append(all, r.paths[host]...)
	}
	slices.SortStableFunc(all, func(a, b path) int {
		return cmp.Or(comparePaths(a, b), compareBool(a.broken(), b.broken()))
	})
	var won []path
	var problems []model.Problem
	for _, p := range all {
		if len(won) == 0 || comparePaths(won[len(won)-1], p) != 0 {
			won = append(won, p)
			continue
		}
		winner := won[len(won)-1].from.key
		by := "by Ingress " + winner.String() + ", which comes first"
		switch {
		case winner == p.from.key && sameBackend(won[len(won)-1].backend, p.backend):
			continue // said twice, served once
		case winner == p.from.key:
			by = "by an earlier path of the same Ingress"
		}
		problems = append(problems, model.Problemf(model.Ref("Ingress", p.from.key), "PathConflict",
			"host %s: %s %s is served %s; this one is ignored", host, p.match, p.path, by))
	}
	return won, problems
}

// comparePaths orders paths as they are tried.
func comparePaths(a, b path) int { return compareMatches(a.match, a.path, b.match, b.path) }

// compareMatches orders matches as they are tried: Exact first; then the longer ones, as ingress-nginx orders regular
// expressions; of equal length a Regex before a Prefix.
func compareMatches(match PathMatch, path string, otherMatch PathMatch, otherPath string) int {
	return cmp.Or(
		compareBool(match != Exact, otherMatch != Exact),
		cmp.Compare(len(otherPath), len(path)),
		cmp.Compare(otherMatch, match),
		strings.Compare(path, otherPath),
	)
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func sameBackend(a, b *networkingv1.IngressBackend) bool {
	return a.Service != nil && b.Service != nil && *a.Service == *b.Service
}

// acmePath is where ACME HTTP-01 challenges are answered (RFC 8555 section 8.3).
const acmePath = "/.well-known/acme-challenge"

func challengePath(path string) bool {
	return path == acmePath || strings.HasPrefix(path, acmePath+"/")
}

// Challenge says that a route takes nothing else than what answers ACME HTTP-01 challenges.
func (r Route) Challenge() bool { return r.Match != Regex && challengePath(r.Path) }

// buildRoute turns a path into a Route. One whose backend is refused answers 503 on exactly that path: a wider
// path must not answer in its place.
func (x *index) buildRoute(host string, p path) (Route, target, *model.Problem) {
	route := Route{
		Match:   p.match,
		Path:    p.path,
		Pattern: p.pattern,
		Plain:   p.plain || challengePath(p.path),
		Origin:  p.from.key,
	}
	closed := x.closed(host, p.from)
	if closed == nil {
		route.protect(p)
		if route.Policy != nil && route.Policy.Redirect.Code != 0 {
			return route, target{}, nil
		}
		if route.Policy != nil && route.Policy.Answer.Status != 0 {
			route.Status = route.Policy.Answer.Status
			return route, target{}, nil
		}
	}
	port, refused := resolve(x.snapshot.Services, p.from.key.Namespace, p.backend)
	if closed != nil {
		refused = closed
	}
	if refused != nil {
		route.Status = 503
		where := fmt.Sprintf("host %s, %s %s answers", host, p.match, p.path)
		if p.backend == p.from.fallback {
			where = "requests for the default backend are answered" // by every host in the same words: one Problem
		}
		problem := model.Problemf(model.Ref("Ingress", p.from.key), refused.reason, "%s; %s 503", refused.message, where)
		route.Policy, route.BasicAuth, route.Auth, route.AuthHeaders = nil, nil, "", ""
		return route, target{}, &problem
	}
	to := target{port, p.from.asked.Backend}
	route.Backend = to.name()
	return route, to, nil
}

// protect gives a Route what its path asks for: who may come in, and what else happens to the requests.
func (r *Route) protect(p path) {
	r.Policy, r.BasicAuth = p.policy(), p.from.users
	if a := p.from.auth; a != nil {
		r.Auth, r.AuthHeaders = p.from.key.String(), authHeaders(a)
	}
}

// emptyRules reports rules of a host that have no paths and no default backend to send requests to.
func emptyRules(host string, requests []*request) []model.Problem {
	var problems []model.Problem
	for _, r := range requests {
		if len(r.paths[host]) == 0 {
			problems = append(problems, model.Problemf(model.Ref("Ingress", r.key), "NothingToServe",
				"host %s: there is no valid path and no default backend", host))
		}
	}
	return problems
}
