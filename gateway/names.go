package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checkHost returns the form of a host name in which it is compared: lower case, without the final dot of an
// absolute name. The rest of the rules are the API server's, which files have not passed: RFC 1123 names, a
// wildcard only as the whole first label, no addresses. An empty name is an error.
func checkHost(name string) (string, error) {
	for i := range len(name) {
		if name[i] >= 0x80 {
			return "", errors.New("is not ASCII; write it in its xn-- form (punycode, RFC 5891)")
		}
	}
	host := strings.ToLower(strings.TrimSuffix(name, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return "", errors.New("is an address; only names can be hosts")
	}
	if strings.Contains(host, ":") {
		return "", errors.New("must be a name without port or scheme")
	}
	check := validation.IsDNS1123Subdomain
	if strings.Contains(host, "*") {
		if host == CatchAll {
			return "", errors.New("is not a name; leave the host out for a rule that serves all hosts")
		}
		if !strings.HasPrefix(host, "*.") || strings.Count(host, "*") > 1 {
			return "", errors.New("may have a wildcard only as its whole first label, as in *.example.com")
		}
		check = validation.IsWildcardDNS1123Subdomain
	}
	switch {
	case len(host) > validation.DNS1123SubdomainMaxLength:
		return "", fmt.Errorf("is longer than %d bytes", validation.DNS1123SubdomainMaxLength)
	case strings.Contains(host, "..") || strings.HasPrefix(host, "."):
		return "", errors.New("has an empty label")
	case len(check(host)) > 0:
		return "", errors.New("is not a DNS name: labels of letters, digits and inner dashes, with dots between them")
	}
	return host, nil
}

// wildcardOf returns the wildcard name that covers a name by one label: *.example.com for www.example.com. It is
// empty for a name of one label and for a wildcard.
func wildcardOf(name string) string {
	_, parent, found := strings.Cut(name, ".")
	if !found || strings.HasPrefix(name, "*") {
		return ""
	}
	return "*." + parent
}

// A pathNote is a Problem with a path that is served nevertheless.
type pathNote struct{ reason, message string }

// checkPath turns the path and path type of an Ingress into a match. Notes say where the path is served otherwise
// than its author may think; err says why it is not served.
//
// ImplementationSpecific is Prefix here, with "/foo/*" read as "/foo/", unless the Ingress asks for regular expressions.
func checkPath(text string, pathType *networkingv1.PathType, regex bool) (out path, notes []pathNote, err error) {
	kind, notes, err := checkPathType(pathType)
	if err != nil {
		return out, nil, err
	}
	special := "*^[]{}|" // what few paths hold, and RFC 3986 mostly forbids in them
	switch {
	case regex && wantsRegex(text, kind):
		out = path{match: Regex, path: text}
		out.pattern, err = checkRegex(text)
		return out, notes, err
	case kind == networkingv1.PathTypeImplementationSpecific:
		special += "()$" // legal in paths, but here more often meant as a regular expression
		if stem, found := strings.CutSuffix(text, "/*"); found {
			text = stem + "/"
		}
	case kind == networkingv1.PathTypePrefix && text == "":
		notes = append(notes, pathNote{"PathAssumed", `path is missing, taken as "/"`})
	}
	if text == "" && kind != networkingv1.PathTypeExact {
		text = "/"
	}
	if err := checkPathBytes(text); err != nil {
		return out, nil, err
	}
	if strings.ContainsAny(text, special) {
		notes = append(notes, pathNote{"RegexNotSupported",
			"it is compared literally: regular expressions need the annotation nginx.ingress.kubernetes.io/use-regex and a pathType other than Exact"})
	}
	if kind == networkingv1.PathTypeExact {
		return path{match: Exact, path: text}, notes, nil
	}
	if len(text) > 1 {
		text = strings.TrimSuffix(text, "/")
	}
	return path{match: Prefix, path: text}, notes, nil
}

// checkPathType returns the path type. The API server insists on one of three words; files may have none, or
// write it in small letters.
func checkPathType(pathType *networkingv1.PathType) (networkingv1.PathType, []pathNote, error) {
	if pathType == nil || *pathType == "" {
		note := pathNote{"PathTypeAssumed", "pathType is missing, taken as Prefix; an API server would refuse it"}
		return networkingv1.PathTypeImplementationSpecific, []pathNote{note}, nil
	}
	for _, known := range []networkingv1.PathType{
		networkingv1.PathTypeExact, networkingv1.PathTypePrefix, networkingv1.PathTypeImplementationSpecific,
	} {
		if *pathType == known {
			return known, nil, nil
		}
		if strings.EqualFold(string(*pathType), string(known)) {
			note := pathNote{"PathTypeAssumed", fmt.Sprintf("pathType %q is taken as %s; an API server would refuse it", *pathType, known)}
			return known, []pathNote{note}, nil
		}
	}
	return "", nil, fmt.Errorf("has pathType %q; it must be Exact, Prefix or ImplementationSpecific", *pathType)
}

// checkPathBytes refuses what no request can match once Envoy has normalized its path, or what would be
// understood differently by Envoy and the API server.
func checkPathBytes(path string) error {
	if !strings.HasPrefix(path, "/") {
		return errors.New("must start with a slash")
	}
	for i := range len(path) {
		switch c := path[i]; {
		case c < 0x20 || c == 0x7f:
			return errors.New("has a control character")
		case c == ' ' || c >= 0x80:
			return errors.New("has a space or a character beyond ASCII; write it percent-encoded")
		case c == '?' || c == '#':
			return fmt.Errorf("has a %q; queries, fragments and regular expressions are no part of a path", c)
		case c == '\\':
			return errors.New("has a backslash, which Envoy turns into a slash in requests")
		}
	}
	lower := strings.ToLower(path)
	for _, escape := range []string{"%2f", "%2e", "%5c", "%00"} {
		if strings.Contains(lower, escape) {
			return fmt.Errorf("has the escape %s", escape)
		}
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		switch {
		case segment == "" && path != "/":
			return errors.New("has an empty segment (//)")
		case segment == "." || segment == "..":
			return fmt.Errorf("has the segment %q", segment)
		}
	}
	return nil
}
