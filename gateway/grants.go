package gateway

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// grants are what an administrator lets Ingresses refer to: spec.grants of a GatewayConfig. The zero value grants nothing.
type grants struct {
	list []v1alpha1.Grant
	// from is the name of the GatewayConfig; empty where the class has none.
	from string
}

// allowed decides for every reference: whether an Ingress of a namespace may refer to an object of a kind, one of
// v1alpha1.GrantSecret and its likes. A URL has no namespace, and its name is urlOrigin's.
func (g grants) allowed(kind, fromNamespace, toNamespace, name string) bool {
	if kind != v1alpha1.GrantURL && toNamespace == fromNamespace {
		return true
	}
	return slices.ContainsFunc(g.list, func(grant v1alpha1.Grant) bool {
		from := slices.Contains(grant.From, "*") || slices.Contains(grant.From, fromNamespace)
		return from && slices.ContainsFunc(grant.To, func(to v1alpha1.GrantTo) bool { return covers(to, kind, toNamespace, name) })
	})
}

// covers says whether to means an object. What must not be empty in it, and is, means nothing.
func covers(to v1alpha1.GrantTo, kind, namespace, name string) bool {
	switch {
	case to.Kind != kind:
		return false
	case kind == v1alpha1.GrantURL:
		origin, ok := urlOrigin(to.Name)
		return ok && origin == name
	case to.Namespace == "" || to.Namespace != namespace:
		return false
	case kind == v1alpha1.GrantHost:
		return to.Name == "" || strings.EqualFold(to.Name, name)
	}
	return to.Name == "" || to.Name == name
}

// urlOrigin is scheme and host of a URL, with its port if it is not the scheme's own: "https://login.example.com".
func urlOrigin(text string) (string, bool) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		u.Path != "" && u.Path != "/" {
		return "", false
	}
	return originOf(u.Scheme, u.Hostname(), u.Port()), true
}

// originOf puts an origin together; port may be empty or "0".
func originOf(scheme, host, port string) string {
	if port == "" || port == "0" || scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		port = ""
	} else {
		port = ":" + port
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return scheme + "://" + strings.ToLower(host) + port
}

// remedyFor says how a reference that is not allowed is allowed.
func (g grants) remedyFor(kind, fromNamespace, toNamespace, name string) string {
	where := "a GatewayConfig that the IngressClass names"
	if g.from != "" {
		where = "GatewayConfig " + g.from
	}
	object := kind + " " + shorten(name)
	if toNamespace != "" {
		object += " of namespace " + shorten(toNamespace)
	}
	return fmt.Sprintf("let an administrator grant %s to namespace %s in spec.grants of %s", object, fromNamespace, where)
}

// mayRefer is allowed for a request. Of another namespace's object that is not granted it returns the refusal, which says
// that the Ingress may not refer to it and, after without, how to do without or whom to ask.
func (r *request) mayRefer(kind string, to model.Key, without string) *refusal {
	if r.grants.allowed(kind, r.key.Namespace, to.Namespace, to.Name) {
		return nil
	}
	if without != "" {
		without += ", or "
	}
	return &refusal{"ReferenceNotAllowed", fmt.Sprintf("%s %s is in another namespace; %s%s", kind, shorten(to.String()), without,
		r.grants.remedyFor(kind, r.key.Namespace, to.Namespace, to.Name))}
}

// mayName says whether a request may name a URL by its scheme, host and port, 0 for the scheme's own, that is nobody's in the
// cluster.
func (r *request) mayName(scheme, host string, port uint16) *refusal {
	origin := originOf(scheme, host, fmt.Sprint(port))
	if r.grants.allowed(v1alpha1.GrantURL, r.key.Namespace, "", origin) {
		return nil
	}
	return &refusal{"ReferenceNotAllowed", fmt.Sprintf("%s is nothing of the cluster's; %s", shorten(origin),
		r.grants.remedyFor(v1alpha1.GrantURL, r.key.Namespace, "", origin))}
}
