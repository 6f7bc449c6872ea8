package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// A request is what one Ingress asks for, checked as far as the Ingress alone tells.
type request struct {
	key     model.Key
	ingress *networkingv1.Ingress
	// paths holds the valid paths by host, in the order of the Ingress. A host whose paths are all invalid, or
	// that has none, is in it too: it is claimed.
	paths map[string][]path
	// fallback is spec.defaultBackend.
	fallback *networkingv1.IngressBackend
	tls      []tlsRequest
	// tlsNames are the hosts of all of tls that are known without a certificate.
	tlsNames map[string]bool
	// mayCatchAll is set where an administrator allowed rules without a host and a default backend for all hosts.
	mayCatchAll bool
	// grants are what it may refer to outside of its namespace.
	grants grants
	// asked is what its annotations ask for, and policy that of it which holds for each of its routes; nil for nothing.
	asked  nginx.Settings
	policy *policy.Route
	// canaryBy says which requests a canary takes, with expressions as Envoy has them.
	canaryBy policy.Canary
	// refused is set where an annotation asks for protection that is not there: then all paths answer 503, for an open
	// door is not what was asked for.
	refused *refusal
	// users are who may come in by a password; nil where that is not asked for.
	users *BasicAuth
	// passwords are users whom Envoy cannot tell, and auth what is asked of clients, at authTargets; nil for nothing.
	passwords   []auth.User
	auth        *auth.Entry
	authTargets []authTarget
}

// A path is one path of a request.
type path struct {
	match   PathMatch
	path    string
	pattern string // of a Regex
	backend *networkingv1.IngressBackend
	from    *request
	// answer is what the gateway answers itself, in the place of backend and of from's policy; nil for nothing. plain exempts
	// it from the redirect to https.
	answer *policy.Route
	plain  bool
}

// broken reports whether the path can never work as it is written.
func (p path) broken() bool { return p.answer == nil && permanent(p.backend) != nil }

// policy is what happens to requests for the path. ACME challenges are not redirected: whoever asks for them follows, but
// not to where nobody knows of them.
func (p path) policy() *policy.Route {
	if p.answer != nil {
		return p.answer
	}
	out := p.from.policy
	if out != nil && out.Redirect.Code != 0 && challengePath(p.path) {
		without := *out
		without.Redirect = policy.Redirect{}
		out = &without
	}
	return out
}

// A tlsRequest is one entry of spec.tls.
type tlsRequest struct {
	// hosts are names as of checkHost; when empty, those that the certificate itself names are meant.
	hosts []string
	// secret has no name where the default certificate is asked for.
	secret model.Key
	// aliases are names that get the certificate where it is for them.
	aliases []string
}

// newRequest reads an Ingress. What is wrong with it costs the smallest part: one path, one rule, one
// name.
func newRequest(key model.Key, ing *networkingv1.Ingress, mayCatchAll bool, config classConfig) (*request, []model.Problem) {
	r := &request{
		key: key, ingress: ing, mayCatchAll: mayCatchAll, paths: map[string][]path{}, tlsNames: map[string]bool{},
		fallback: ing.Spec.DefaultBackend, grants: config.grants,
	}
	var problems []model.Problem
	report := func(reason, format string, args ...any) {
		problems = append(problems, model.Problemf(model.Ref("Ingress", key), reason, format, args...))
	}
	r.readAnnotations(config.under(ing.Annotations), report)
	if r.asked.Canary {
		r.canaryNotes(report)
		r.readRules(report)
		return r, problems
	}
	r.readRules(report)
	for _, entry := range ing.Spec.TLS {
		if t, ok := r.readTLS(entry, report); ok {
			r.tls = append(r.tls, t)
		}
	}
	if len(ing.Spec.Rules) == 0 && ing.Spec.DefaultBackend == nil {
		report("NothingToServe", "it has neither rules nor a default backend")
	}
	return r, problems
}

func (r *request) readRules(report reportFunc) {
	refused := 0
	for _, rule := range r.ingress.Spec.Rules {
		host := CatchAll
		if rule.Host != "" {
			var err error
			if host, err = checkHost(rule.Host); err != nil {
				report("InvalidHost", "host %s %v; its rule is ignored", quote(rule.Host), err)
				continue
			}
		}
		if host == CatchAll && !r.mayCatchAll {
			refused++
			continue
		}
		r.readPaths(host, rule.HTTP, report)
	}
	switch {
	case refused > 0:
		report("CatchAllNotAllowed", "rules without a host serve all hosts that nobody names, and are ignored; %s", r.remedy())
	case r.fallback != nil && !r.mayCatchAll && len(r.paths) == 0:
		report("CatchAllNotAllowed", "its default backend would serve all hosts that nobody names, and is not used; %s", r.remedy())
	case r.fallback != nil && !r.mayCatchAll:
		report("CatchAllNotAllowed", "its default backend serves its own hosts only, not those that nobody names; to change that, %s", r.remedy())
	}
}

// remedy says how an administrator allows a catch-all.
func (r *request) remedy() string {
	class := className(r.ingress)
	if class == "" {
		class = "the default class"
	} else {
		class = "class " + shorten(class)
	}
	return fmt.Sprintf("name hosts, or let an administrator allow it to namespace %s by the annotation %s of %s or by --catch-all-namespace",
		r.key.Namespace, v1alpha1.CatchAllAnnotation, class)
}

func (r *request) readPaths(host string, rule *networkingv1.HTTPIngressRuleValue, report reportFunc) {
	r.paths[host] = r.paths[host][:len(r.paths[host]):len(r.paths[host])]
	if rule == nil {
		return
	}
	for i := range rule.Paths {
		p := &rule.Paths[i]
		checked, notes, err := checkPath(p.Path, p.PathType, r.asked.Regex)
		if err != nil {
			report("InvalidPath", "host %s: path %s %v; it is ignored", host, quote(p.Path), err)
			continue
		}
		for _, note := range notes {
			report(note.reason, "host %s, path %s: %s", host, quote(p.Path), note.message)
		}
		checked.backend, checked.from = &p.Backend, r
		r.paths[host] = append(r.paths[host], checked)
	}
}

// readTLS reads one entry of spec.tls. It returns false if none of its names is valid.
func (r *request) readTLS(entry networkingv1.IngressTLS, report reportFunc) (tlsRequest, bool) {
	var t tlsRequest
	if entry.SecretName != "" {
		t.secret = model.Key{Namespace: r.key.Namespace, Name: entry.SecretName}
		if namespace, name, ok := strings.Cut(entry.SecretName, "/"); ok {
			t.secret = model.Key{Namespace: namespace, Name: name}
		}
	}
	for _, name := range entry.Hosts {
		host, err := checkHost(name)
		if err != nil {
			report("InvalidHost", "TLS host %s %v; it is ignored", quote(name), err)
			continue
		}
		t.hosts = append(t.hosts, host)
	}
	if len(entry.Hosts) == 0 {
		for host := range r.paths {
			if host != CatchAll {
				t.hosts = append(t.hosts, host)
			}
		}
		slices.Sort(t.hosts)
	}
	for _, host := range t.hosts {
		r.tlsNames[host] = true
	}
	return t, len(entry.Hosts) == 0 || len(t.hosts) > 0
}

// A reportFunc adds a Problem of the object at hand.
type reportFunc func(reason, format string, args ...any)

// redirects reports whether the request asks that plain http requests to host be sent to https.
func (r *request) redirects(host string) bool {
	if r.asked.ForceRedirect {
		return true
	}
	if r.asked.NoRedirect || host == CatchAll {
		return false
	}
	return r.tlsNames[host] || r.tlsNames[wildcardOf(host)]
}

// works reports whether what the request asks for under a host can work as it is written, whatever Services and
// Secrets there are.
func (r *request) works(host string) bool {
	if len(r.paths[host]) == 0 {
		return r.fallback != nil && permanent(r.fallback) == nil
	}
	return slices.ContainsFunc(r.paths[host], func(p path) bool { return !p.broken() })
}

// older orders Ingresses by age: the oldest first, those without a creation time last, then by namespace and name.
func older(a, b *request) int {
	x, y := a.ingress.CreationTimestamp.Time, b.ingress.CreationTimestamp.Time
	return cmp.Or(model.CompareAge(x, y), model.CompareKeys(a.key, b.key))
}
