package gateway

import (
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// addNames gives hosts what annotations add to their rules: a redirect of path /, aliases, and names with or without
// "www." in front that are redirected. It adds paths to requests, so that all that follows (owners, conflicts, canaries,
// ACME challenges that are answered beside) is as for rules. Requests are oldest first.
func addNames(requests, canaries []*request) []model.Problem {
	n := names{byHost: map[string][]*request{}, canaries: canaries, added: map[string]string{}, roots: map[string]bool{}}
	for _, r := range requests {
		for host := range r.paths {
			n.byHost[host] = append(n.byHost[host], r)
		}
	}
	for _, add := range []func(*request){n.addRoot, n.addAliases, n.addWWW} {
		for _, r := range requests {
			n.problems = append(n.problems, model.Contain(model.Ref("Ingress", r.key), "Annotations that add names or paths to its hosts have no effect", func() { add(r) })...)
		}
	}
	return n.problems
}

// names is the state of addNames.
type names struct {
	byHost   map[string][]*request // by rules alone
	canaries []*request
	added    map[string]string // names that were added, and the host that each leads to
	roots    map[string]bool   // hosts whose path / is redirected
	problems []model.Problem
}

func (n *names) report(r *request, reason, format string, args ...any) {
	n.problems = append(n.problems, model.Problemf(model.Ref("Ingress", r.key), reason, format, args...))
}

// addRoot sends requests for exactly / elsewhere.
func (n *names) addRoot(r *request) {
	to := r.asked.Host.AppRoot
	if to == "" {
		return
	}
	for _, host := range slices.Sorted(maps.Keys(r.paths)) {
		if len(r.paths[host]) == 0 || n.roots[host] || !n.owns(r, host) {
			continue // app-root of an older Ingress is the host's
		}
		n.roots[host] = true
		answer := policy.Route{}
		if r.policy != nil {
			answer = *r.policy
		}
		answer.Redirect = policy.Redirect{Path: to, Code: 302, Relative: r.asked.Host.RelativeRoot}
		r.paths[host] = append([]path{{match: Exact, path: "/", backend: noBackend, from: r, answer: &answer}}, r.paths[host]...)
	}
}

// noBackend is that of paths which the gateway answers itself.
var noBackend = &networkingv1.IngressBackend{}

// addAliases serves the first host of a request under further names, with the paths of all requests of its namespace.
func (n *names) addAliases(r *request) {
	if len(r.asked.Host.Aliases) == 0 {
		return
	}
	host := firstHost(r)
	if host == "" {
		n.report(r, "AliasWithoutHost", "server-alias is for its first host, and it names none: write the names as hosts of its rules")
		return
	}
	if !n.owns(r, host) {
		return // told
	}
	copied := 0
	for _, text := range r.asked.Host.Aliases {
		name, err := checkHost(text)
		if err != nil {
			n.report(r, "InvalidHost", "server-alias %s %v; it is ignored", quote(text), err)
			continue
		}
		if name == host || !n.take(r, name, host, "server-alias") {
			continue
		}
		for _, q := range slices.Concat(n.byHost[host], n.canaries) {
			if q.key.Namespace == r.key.Namespace {
				copied += len(q.paths[host])
			}
		}
		if copied > mostCopies {
			n.report(r, "TooManyHosts", "server-alias %s and what follows are ignored: there would be too many copies of the paths of host %s", name, host)
			return
		}
		n.copyPaths(r, host, name)
	}
}

// copyPaths serves under a name what is served under a host.
func (n *names) copyPaths(r *request, host, name string) {
	for _, q := range slices.Concat(n.byHost[host], n.canaries) {
		if _, has := q.paths[host]; !has || q.key.Namespace != r.key.Namespace {
			continue
		}
		q.paths[name] = append(q.paths[name], q.paths[host]...)
		q.shareTLS(host, name)
		if q.tlsNames[host] || q.tlsNames[wildcardOf(host)] {
			q.tlsNames[name] = true
		}
	}
}

// addWWW redirects www.example.com to example.com, or the other way round.
func (n *names) addWWW(r *request) {
	if !r.asked.Host.WWW {
		return
	}
	for _, host := range slices.Sorted(maps.Keys(r.paths)) {
		from, with := strings.CutPrefix(host, "www.")
		if !with {
			from = "www." + host
		}
		if _, err := checkHost(from); err != nil || host == CatchAll || strings.HasPrefix(host, "*") || !n.owns(r, host) || n.added[host] != "" {
			continue
		}
		if !n.take(r, from, host, "from-to-www-redirect") {
			continue
		}
		r.paths[from] = append(r.paths[from], path{
			match: Prefix, path: "/", backend: noBackend, from: r, plain: true,
			answer: &policy.Route{Redirect: policy.Redirect{Host: host, KeepPath: true, KeepQuery: true, Code: 308}},
		})
		r.shareTLS(host, from)
	}
}

// take says whether a name may be added, which leads to host. Rules go before it, but those that answer ACME challenges
// for it (RFC 8555 section 8.3), which come and go.
func (n *names) take(r *request, name, host, annotation string) bool {
	for _, q := range n.byHost[name] {
		if q.key.Namespace == r.key.Namespace && onlyChallenges(q.paths[name]) {
			continue
		}
		n.report(r, "AliasConflict", "%s: host %s has rules, of Ingress %s, which go before", annotation, name, q.key)
		return false
	}
	switch to := n.added[name]; to {
	case "":
		n.added[name] = host
		return true
	case host:
		return false // asked for twice
	default:
		n.report(r, "AliasConflict", "%s: host %s leads to host %s already, by an older Ingress", annotation, name, to)
		return false
	}
}

// owns says whether a host belongs to the namespace of a request.
func (n *names) owns(r *request, host string) bool {
	if len(n.byHost[host]) == 0 {
		return true // an alias
	}
	own, _ := settleOwner(host, n.byHost[host])
	return own[0].key.Namespace == r.key.Namespace
}

// onlyChallenges says whether paths are for ACME challenges alone.
func onlyChallenges(paths []path) bool {
	return len(paths) > 0 && !slices.ContainsFunc(paths, func(p path) bool { return !challengePath(p.path) })
}

// firstHost is the host of the first rule that has one.
func firstHost(r *request) string {
	for _, rule := range r.ingress.Spec.Rules {
		if host, err := checkHost(rule.Host); err == nil && rule.Host != "" {
			return host
		}
	}
	return ""
}

// shareTLS lets a name have the certificate of a host, where it is for both.
func (r *request) shareTLS(host, name string) {
	for i := range r.tls {
		t := &r.tls[i]
		if slices.Contains(t.hosts, host) || slices.Contains(t.hosts, wildcardOf(host)) {
			t.aliases = append(t.aliases, name)
		}
	}
}

// addAliases gives names that annotations added the certificate of their host. What spec.tls says goes before.
func (c *certificates) addAliases(r *request, t *tlsRequest) []model.Problem {
	if t.secret.Name == "" || len(t.aliases) == 0 {
		return nil
	}
	pair, err := c.read(t.secret)
	if err != nil || pair == nil {
		return nil // told
	}
	var problems []model.Problem
	for _, name := range t.aliases {
		switch {
		case c.entryOf(name) != "":
		case len(pair.uncovered([]string{name})) > 0:
			problems = append(problems, model.Problemf(model.Ref("Ingress", r.key), "CertificateHostMismatch",
				"host %s gets the default certificate: that in Secret %s is not for it; name both in one certificate", name, t.secret))
		default:
			c.assign(r, &tlsRequest{hosts: []string{name}}, c.certificate(t.secret, pair), func(string, string, ...any) {})
		}
	}
	return problems
}
