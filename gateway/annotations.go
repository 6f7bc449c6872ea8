package gateway

import (
	"slices"
	"strings"

	"hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/internal/model"
)

// readAnnotations reads what the annotations ask for, and says what of it is not done.
func (r *request) readAnnotations(annotations map[string]string, report reportFunc) {
	settings, notes := nginx.Read(annotations)
	r.asked = settings
	if settings.Route.String() != "" {
		r.policy = &settings.Route
	}
	var ignored, unprotected []string
	for _, n := range notes {
		switch {
		case n.Reason == nginx.Ignored:
			text := shorten(n.Annotation)
			if n.Message != "" {
				text += " (" + n.Message + ")"
			}
			ignored = append(ignored, text)
		case n.Reason == nginx.Unprotected:
			unprotected = append(unprotected, n.Annotation)
		case n.Closed:
			r.refused = &refusal{n.Reason, n.Message}
		default:
			report(n.Reason, "%s; it has no effect", n.Message)
		}
	}
	if len(unprotected) > 0 {
		r.refused = &refusal{nginx.Unprotected,
			"it must not be served without the protection of " + strings.Join(unprotected, ", ") + ", which is not supported"}
	}
	if len(ignored) > 0 && !settings.Canary {
		report(nginx.Ignored, "these annotations have no effect: %s", firstFew(ignored))
	}
}

// plain says whether a route of the request stays on plain http where the rest of its host is redirected to https: it asks
// for that, or only others ask for the redirect of a host that has no TLS.
func (x *index) plain(host string, r *request) bool {
	if r.asked.ForceRedirect {
		return false
	}
	return r.asked.NoRedirect || !x.hasTLS(host)
}

// hasTLS reports whether an Ingress that serves a host has a TLS entry for it and wants the redirect.
func (x *index) hasTLS(host string) bool {
	wants := func(r *request) bool {
		return r != nil && !r.asked.NoRedirect && host != CatchAll && (r.tlsNames[host] || r.tlsNames[wildcardOf(host)])
	}
	rules := x.rulesOf(host)
	return slices.ContainsFunc(x.byHost[rules], wants) || rules == CatchAll && wants(x.fallback)
}

// keptRegexes reports Ingresses whose regular expressions are for their own paths only, where ingress-nginx makes regular
// expressions of all paths of the host.
func keptRegexes(host string, requests []*request) []model.Problem {
	var problems []model.Problem
	for _, r := range requests {
		if !r.asked.Regex || len(r.paths[host]) == 0 {
			continue
		}
		var others []string
		for _, other := range requests {
			if !other.asked.Regex && len(other.paths[host]) > 0 {
				others = append(others, other.key.String())
			}
		}
		if len(others) > 0 {
			problems = append(problems, model.Problemf(model.Ref("Ingress", r.key), "RegexOwnPathsOnly",
				"host %s: its regular expressions are for its own paths; ingress-nginx would apply them to those of %s, too",
				host, firstFew(others)))
		}
	}
	return problems
}
