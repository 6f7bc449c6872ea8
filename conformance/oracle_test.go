package conformance

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/internal/model"
)

// An oracle says what a request should be answered, from the Ingress objects and the words of the Ingress API
// (networking.k8s.io/v1, and kubernetes.io/docs/concepts/services-networking/ingress) and of ingress-nginx's
// documentation of its annotations. It shares no code with package gateway. Where these leave something open it holds
// Hythe's decision, with its number in DECISIONS.md.
type oracle struct {
	snapshot *model.Snapshot
	// refused tells which hosts and paths of an Ingress Hythe refuses, with a Problem: they are not asked for.
	refused func(ingress model.Key, reason, text string) bool
	// ingresses are the ones that count, and canaries those that take requests of their paths; oldest first.
	ingresses, canaries []*networkingv1.Ingress
}

// An ask is one request.
type ask struct {
	https      bool
	host, path string
	// known has a password, or what the auth server lets in.
	known bool
}

// An answer is what an ask should get.
type answer struct {
	status   int
	backend  string // "namespace/service:port" for status 200
	location string // of a redirect
	// or is a second backend, where chance decides.
	or string
	// excuse is the reason of the Problem that must explain a 503, and names the annotation or object that it must name.
	excuse, names string
	// ingress is whose rule or default backend it is; nil for the final 404.
	ingress *networkingv1.Ingress
}

const nginx = "nginx.ingress.kubernetes.io/"

func newOracle(s *model.Snapshot, refused func(model.Key, string, string) bool) *oracle {
	o := &oracle{snapshot: s, refused: refused}
	for _, key := range s.Ingresses.SortedKeys() {
		if ing := s.Ingresses.Get(key); isCanary(ing) {
			o.canaries = append(o.canaries, ing)
		} else {
			o.ingresses = append(o.ingresses, ing)
		}
	}
	byAge := func(a, b *networkingv1.Ingress) int {
		x, y := a.CreationTimestamp.Time, b.CreationTimestamp.Time
		switch {
		case x.IsZero() && y.IsZero():
			return 0
		case x.IsZero():
			return 1
		case y.IsZero():
			return -1
		}
		return x.Compare(y)
	}
	slices.SortStableFunc(o.ingresses, byAge)
	slices.SortStableFunc(o.canaries, byAge)
	return o
}

func isCanary(ing *networkingv1.Ingress) bool { return ing.Annotations[nginx+"canary"] == "true" }

func keyOf(ing *networkingv1.Ingress) model.Key {
	return model.Key{Namespace: ing.Namespace, Name: ing.Name}
}

func canonical(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// covers is the API's wildcard: "the wildcard only covers a single DNS label".
func covers(pattern, host string) bool {
	suffix, wild := strings.CutPrefix(pattern, "*.")
	if !wild {
		return pattern == host
	}
	label, rest, _ := strings.Cut(host, ".")
	return label != "" && rest == suffix
}

// A rule is a path of a rule.
type rule struct {
	host    string
	exact   bool
	path    string
	backend *networkingv1.IngressBackend
	ingress *networkingv1.Ingress
	regex   *regexp.Regexp // of the front part of a path; nil where path is compared
}

// rules returns the paths for a request's host: an exact host goes before a wildcard, and that before rules without a
// host. found says whether there is any rule for it, if only without paths.
func (o *oracle) rules(host string) (paths []rule, named, found bool) {
	for _, level := range []func(pattern string) bool{
		func(p string) bool { return p == host },
		func(p string) bool { return strings.HasPrefix(p, "*.") && covers(p, host) },
		func(p string) bool { return p == "" },
	} {
		for _, ing := range o.ingresses {
			for _, r := range ing.Spec.Rules {
				if !level(canonical(r.Host)) || r.Host != "" && o.refused(keyOf(ing), "InvalidHost", r.Host) {
					continue
				}
				found, named = true, r.Host != ""
				paths = append(paths, o.paths(ing, r)...)
			}
		}
		if found {
			return paths, named, true
		}
	}
	return nil, false, false
}

func (o *oracle) paths(ing *networkingv1.Ingress, r networkingv1.IngressRule) []rule {
	var out []rule
	if r.HTTP == nil {
		return nil
	}
	for i := range r.HTTP.Paths {
		p := &r.HTTP.Paths[i]
		if o.refused(keyOf(ing), "InvalidPath", p.Path) {
			continue
		}
		kind := networkingv1.PathTypeImplementationSpecific
		if p.PathType != nil {
			kind = *p.PathType
		}
		path := p.Path
		if re := regexOf(ing, kind, path); re != nil {
			out = append(out, rule{host: canonical(r.Host), path: path, backend: &p.Backend, ingress: ing, regex: re})
			continue
		}
		exact := strings.EqualFold(string(kind), string(networkingv1.PathTypeExact))
		if !exact {
			if kind == networkingv1.PathTypeImplementationSpecific { // decision 5
				path = strings.TrimSuffix(path, "*")
			}
			path = "/" + strings.Trim(path, "/")
		}
		out = append(out, rule{host: canonical(r.Host), exact: exact, path: path, backend: &p.Backend, ingress: ing})
	}
	return out
}

// regexOf is the regular expression that ingress-nginx makes of a path, bound to the Ingress's own paths; nil if it is none.
// A Prefix without its characters stays one of path elements.
func regexOf(ing *networkingv1.Ingress, kind networkingv1.PathType, path string) *regexp.Regexp {
	if ing.Annotations[nginx+"use-regex"] != "true" && ing.Annotations[nginx+"rewrite-target"] == "" {
		return nil
	}
	switch {
	case kind == networkingv1.PathTypeExact, path == "", path == "/":
		return nil
	case kind == networkingv1.PathTypePrefix && !strings.ContainsAny(path, `*^[]{}|()$+?\`):
		return nil
	}
	return regexp.MustCompile("(?i)^(?:" + path + ")") // Hythe refuses those that do not compile, which are left out before
}

// stem is what a path begins with before anything that may be of a regular expression.
func (r rule) stem() string {
	stem := r.path
	if i := strings.IndexAny(stem, `*^[]{}|()$+?\`); r.regex != nil && i >= 0 {
		stem = stem[:i]
	}
	return strings.TrimSuffix(stem, "/")
}

// place says where a rule stands.
func (r rule) place() string { return "host " + cmp.Or(r.host, "*") + ": " + r.match() }

func (r rule) match() string {
	switch {
	case r.regex != nil:
		return "regex " + r.path
	case r.exact:
		return "exact " + r.path
	}
	return "prefix " + r.path
}

// told says whether there is a Problem of the rule's Ingress, by a reason, "" for any, that has the place.
func (r rule) told(problems []model.Problem, reason string) bool {
	where := regexp.MustCompile(`host ` + regexp.QuoteMeta(cmp.Or(r.host, "*")) + `[:,] (?:.* )?` + regexp.QuoteMeta(r.match()) + `(?:[ ,;]|$)`)
	return slices.ContainsFunc(problems, func(p model.Problem) bool {
		return p.Object == model.Ref("Ingress", keyOf(r.ingress)) && (reason == "" || p.Reason == reason) && where.MatchString(p.Message)
	})
}

// at says whether two rules are of the same place.
func (r rule) at(q rule) bool {
	return r.host == q.host && r.exact == q.exact && r.path == q.path && (r.regex == nil) == (q.regex == nil)
}

// matches compares by path elements, as the API says of Prefix.
func (r rule) matches(path string) bool {
	if r.regex != nil {
		return r.regex.MatchString(path)
	}
	if r.exact || r.path == "/" {
		return r.path == "/" && !r.exact || r.path == path
	}
	want, have := strings.Split(r.path, "/"), strings.Split(path, "/")
	return len(have) >= len(want) && slices.Equal(want, have[:len(want)])
}

// expect answers a request.
func (o *oracle) expect(a ask, httpsPort uint16) answer {
	paths, named, found := o.rules(a.host)
	if !a.https && o.redirects(a.host) && !strings.HasPrefix(a.path, "/.well-known/acme-challenge/") {
		return answer{status: 308, location: "https://" + a.host + ":" + strconv.Itoa(int(httpsPort)) + a.path}
	}
	if root := o.appRoot(paths); root != nil && a.path == "/" {
		return o.admitted(root, a, answer{status: 302, location: a.origin() + root.Annotations[nginx+"app-root"], ingress: root})
	}
	var best *rule
	for i := range paths {
		r := &paths[i]
		switch {
		case !r.matches(a.path), best != nil && best.exact && !r.exact:
		case best == nil, r.exact && !best.exact, len(r.path) > len(best.path),
			len(r.path) == len(best.path) && r.exact && !best.exact,
			len(r.path) == len(best.path) && r.exact == best.exact && !serviceNamed(best.backend) && serviceNamed(r.backend): // decision 9
			best = r
		}
	}
	if best != nil {
		return o.withCanary(*best, a, o.serve(best.ingress, best.backend, a))
	}
	// Decision 6: the default backend of an Ingress with rules for the host, else the oldest.
	for _, ing := range o.ingresses {
		if found && named && ing.Spec.DefaultBackend != nil && serviceNamed(ing.Spec.DefaultBackend) && o.has(ing, a.host) {
			return o.serve(ing, ing.Spec.DefaultBackend, a)
		}
	}
	for _, wantService := range []bool{true, false} {
		for _, ing := range o.ingresses {
			if b := ing.Spec.DefaultBackend; b != nil && serviceNamed(b) == wantService {
				return o.serve(ing, b, a)
			}
		}
	}
	return answer{status: 404}
}

// has reports whether an Ingress has a rule for the host.
func (o *oracle) has(ing *networkingv1.Ingress, host string) bool {
	return slices.ContainsFunc(ing.Spec.Rules, func(r networkingv1.IngressRule) bool {
		return r.Host != "" && covers(canonical(r.Host), host)
	})
}

func serviceNamed(b *networkingv1.IngressBackend) bool {
	return b.Resource == nil && b.Service != nil && b.Service.Name != "" && (b.Service.Port.Name != "" || b.Service.Port.Number != 0)
}

// serve is what a backend answers.
func (o *oracle) serve(ing *networkingv1.Ingress, b *networkingv1.IngressBackend, a ask) answer {
	if to, ok := redirect(ing, a); ok {
		return o.admitted(ing, a, to)
	}
	return o.admitted(ing, a, o.backend(ing, b))
}

// backend is what a Service answers that everybody may come to.
func (o *oracle) backend(ing *networkingv1.Ingress, b *networkingv1.IngressBackend) answer {
	unavailable := func(excuse string) answer { return answer{status: 503, excuse: excuse, ingress: ing} }
	if b.Resource != nil {
		return unavailable("ResourceBackend")
	}
	if !serviceNamed(b) {
		return unavailable("InvalidBackend")
	}
	key := model.Key{Namespace: ing.Namespace, Name: b.Service.Name}
	service := o.snapshot.Services.Get(key)
	if service == nil {
		return unavailable("ServiceNotFound")
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return unavailable("ExternalNameRefused")
	}
	for _, p := range service.Spec.Ports {
		if cmp.Or(p.Protocol, corev1.ProtocolTCP) != corev1.ProtocolTCP {
			continue
		}
		if b.Service.Port.Name != "" && p.Name == b.Service.Port.Name || b.Service.Port.Name == "" && p.Port == b.Service.Port.Number {
			if !o.alive(key, p.Name) {
				return answer{status: 503, ingress: ing}
			}
			return answer{status: 200, backend: key.String() + ":" + cmp.Or(p.Name, strconv.Itoa(int(p.Port))), ingress: ing}
		}
	}
	return unavailable("PortNotFound")
}

// alive reports whether a Service port has an endpoint that may be used. One whose endpoints are not in the manifests
// is given some.
func (o *oracle) alive(service model.Key, port string) bool {
	endpoints := o.snapshot.Endpoints.Get(service)
	if endpoints == nil {
		return true
	}
	return slices.ContainsFunc(endpoints.Port(port, corev1.ProtocolTCP), func(e model.Endpoint) bool {
		return e.Serving && podAddress(e.AddrPort.Addr())
	})
}

func podAddress(a netip.Addr) bool { return a.IsGlobalUnicast() }

// redirects reports whether plain http is sent to https: an Ingress with rules for the host has TLS for it.
func (o *oracle) redirects(host string) bool {
	_, named, found := o.rules(host)
	return slices.ContainsFunc(o.ingresses, func(ing *networkingv1.Ingress) bool {
		if ing.Annotations[nginx+"ssl-redirect"] == "false" {
			return false
		}
		if ing.Annotations[nginx+"force-ssl-redirect"] == "true" && o.has(ing, host) {
			return true
		}
		mine := o.has(ing, host) || !named && !found && ing.Spec.DefaultBackend != nil
		return mine && slices.ContainsFunc(ing.Spec.TLS, func(t networkingv1.IngressTLS) bool { return o.names(ing, t, host) })
	})
}

// names reports whether a TLS entry is for a host. One without hosts is for all of the Ingress.
func (o *oracle) names(ing *networkingv1.Ingress, t networkingv1.IngressTLS, host string) bool {
	if len(t.Hosts) == 0 {
		return o.has(ing, host)
	}
	return slices.ContainsFunc(t.Hosts, func(h string) bool { return covers(canonical(h), host) })
}

// certificate returns the leaf that a client of the host gets, nil for the default one: that of the oldest Ingress
// whose TLS entry names the host and whose Secret holds a pair; a name goes before a wildcard.
func (o *oracle) certificate(host string) []byte {
	for _, exact := range []bool{true, false} {
		for _, ing := range o.ingresses {
			for _, t := range ing.Spec.TLS {
				if !o.names(ing, t, host) || exact != (len(t.Hosts) == 0 || slices.ContainsFunc(t.Hosts, func(h string) bool { return canonical(h) == host })) {
					continue
				}
				if leaf := leafOf(o.snapshot.Secrets.Get(model.Key{Namespace: ing.Namespace, Name: t.SecretName})); leaf != nil {
					return leaf
				}
			}
		}
	}
	return nil
}

func leafOf(secret *corev1.Secret) []byte {
	if secret == nil || secret.Type != corev1.SecretTypeTLS && secret.Type != corev1.SecretTypeOpaque {
		return nil
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil || len(pair.Certificate) == 0 {
		return nil
	}
	return bytes.Clone(pair.Certificate[0])
}

// asks are requests that show what an Ingress does: each path, below it, beside it, and where it has none.
func (o *oracle) asks(ing *networkingv1.Ingress) []ask {
	var out []ask
	known := []bool{false}
	if user, _ := o.password(ing); user != "" || ing.Annotations[nginx+"auth-url"] != "" {
		known = append(known, true)
	}
	add := func(host, path string) {
		for _, known := range known {
			out = append(out, ask{host: host, path: path, known: known})
			if slices.ContainsFunc(ing.Spec.TLS, func(t networkingv1.IngressTLS) bool { return o.names(ing, t, host) }) {
				out = append(out, ask{https: true, host: host, path: path, known: known})
			}
		}
	}
	for _, r := range ing.Spec.Rules {
		if r.Host != "" && o.refused(keyOf(ing), "InvalidHost", r.Host) {
			continue
		}
		hosts := []string{cmp.Or(canonical(r.Host), "nobody.invalid")}
		if suffix, wild := strings.CutPrefix(hosts[0], "*."); wild {
			hosts = []string{"one." + suffix, "one.two." + suffix, suffix}
		}
		paths := []string{"/hythe-nothing-here", "/"}
		for _, p := range o.paths(ing, r) {
			stem := p.stem()
			if p.regex == nil {
				paths = append(paths, p.path)
			}
			paths = append(paths, stem+"/deeper", stem+"/")
			if stem != "" {
				paths = append(paths, stem+"x")
			}
		}
		slices.Sort(paths)
		for _, path := range slices.Compact(paths) {
			for _, host := range hosts {
				add(host, path)
			}
		}
	}
	if ing.Spec.DefaultBackend != nil {
		add("nobody.invalid", "/any")
	}
	return out
}
