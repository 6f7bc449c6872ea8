package conformance

import (
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/internal/model"
)

// What the oracle knows of ingress-nginx's annotations: those that decide what is answered.

func (a ask) origin() string {
	if a.https {
		return "https://" + a.host
	}
	return "http://" + a.host
}

// fill puts a request into a text with nginx's variables.
func (a ask) fill(text string) string {
	scheme, _, _ := strings.Cut(a.origin(), ":")
	return strings.NewReplacer("$request_uri", a.path, "$http_host", a.host, "$best_http_host", a.host, "$host", a.host,
		"$pass_access_scheme", scheme, "$scheme", scheme).Replace(text)
}

// appRoot is the Ingress that sends / elsewhere: nginx does for the whole server, whatever paths there are.
func (o *oracle) appRoot(paths []rule) *networkingv1.Ingress {
	for _, r := range paths {
		if strings.HasPrefix(r.ingress.Annotations[nginx+"app-root"], "/") {
			return r.ingress
		}
	}
	return nil
}

// redirect is where an Ingress sends all requests. temporal-redirect goes before permanent-redirect.
func redirect(ing *networkingv1.Ingress, a ask) (answer, bool) {
	if strings.HasPrefix(a.path, "/.well-known/acme-challenge/") { // decision 122
		return answer{}, false
	}
	for _, by := range []struct {
		annotation string
		status     int
	}{{"temporal-redirect", 302}, {"permanent-redirect", 301}} {
		to := ing.Annotations[nginx+by.annotation]
		if to == "" {
			continue
		}
		if n, err := strconv.Atoi(ing.Annotations[nginx+by.annotation+"-code"]); err == nil {
			by.status = n
		}
		return answer{status: by.status, location: a.fill(to), ingress: ing}, true
	}
	return answer{}, false
}

// admitted is what a request gets that would get answer if its Ingress let everybody in.
func (o *oracle) admitted(ing *networkingv1.Ingress, a ask, got answer) answer {
	unavailable := func(excuse, names string) answer {
		return answer{status: 503, excuse: excuse, names: names, ingress: ing}
	}
	instead := func(status int, location string) {
		if got.excuse == "" { // a Service that is missing is 503 to everybody
			got = answer{status: status, location: location, ingress: ing}
		}
	}
	of := func(annotation string) string { return ing.Annotations[nginx+annotation] }
	if secret := of("proxy-ssl-secret"); of("proxy-ssl-verify") == "on" { // decision 112
		switch s := o.snapshot.Secrets.Get(o.named(ing, secret)); {
		case secret == "":
			return unavailable("UpstreamNotVerified", "proxy-ssl-verify")
		case s == nil:
			return unavailable("SecretNotFound", "proxy-ssl-secret")
		case !holdsAuthorities(s):
			return unavailable("SecretInvalid", "proxy-ssl-secret")
		}
	}
	if secret := of("auth-tls-secret"); secret != "" {
		s := o.snapshot.Secrets.Get(o.named(ing, secret))
		name := of("auth-tls-match-cn")
		switch {
		case name != "" && !strings.HasPrefix(name, "CN="):
			return unavailable("InvalidAnnotation", "auth-tls-match-cn")
		case s == nil:
			return unavailable("SecretNotFound", "auth-tls-secret")
		case !holdsAuthorities(s):
			return unavailable("SecretInvalid", "auth-tls-secret")
		}
		instead(400, "") // nobody here has a certificate
	}
	if of("auth-type") != "" {
		s := o.snapshot.Secrets.Get(o.named(ing, of("auth-secret")))
		if s == nil || len(s.Data["auth"]) == 0 {
			return unavailable("SecretNotFound", "auth-secret")
		}
		if user, _ := o.password(ing); !a.known || user == "" {
			instead(401, "")
		}
	}
	if auth := of("auth-url"); auth != "" {
		if excuse := o.askable(ing, auth, a); excuse != "" {
			return unavailable(excuse, "auth-url")
		}
		if !a.known {
			if page := of("auth-signin"); page != "" {
				instead(302, signIn(a, page))
			} else {
				instead(401, "")
			}
		}
	}
	if headers := of("custom-headers"); headers != "" {
		switch key := o.named(ing, headers); {
		case key.Namespace != ing.Namespace:
			return unavailable("ReferenceNotAllowed", "custom-headers")
		case o.snapshot.ConfigMaps.Get(key) == nil: // decision 155; as ingress-nginx
			return unavailable("ConfigMapNotFound", "custom-headers")
		}
	}
	if list := of("allowlist-source-range") + of("whitelist-source-range"); list != "" {
		switch in, err := admits(list); {
		case err != nil:
			return unavailable("InvalidAnnotation", "-source-range")
		case !in:
			instead(403, "")
		}
	}
	return got
}

func holdsAuthorities(s *corev1.Secret) bool {
	return x509.NewCertPool().AppendCertsFromPEM(s.Data["ca.crt"])
}

// named is an object that an annotation names: of the Ingress's namespace, unless it has one.
func (o *oracle) named(ing *networkingv1.Ingress, name string) model.Key {
	if namespace, rest, ok := strings.Cut(name, "/"); ok {
		return model.Key{Namespace: namespace, Name: rest}
	}
	return model.Key{Namespace: ing.Namespace, Name: name}
}

// password is one of those in an Ingress's file of htpasswd, if it is "password"; user is empty if it is not.
func (o *oracle) password(ing *networkingv1.Ingress) (user, password string) {
	s := o.snapshot.Secrets.Get(o.named(ing, ing.Annotations[nginx+"auth-secret"]))
	if s == nil {
		return "", ""
	}
	sum := sha1.Sum([]byte("password"))
	for line := range strings.Lines(string(s.Data["auth"])) {
		if user, hash, _ := strings.Cut(strings.TrimSpace(line), ":"); hash == "{SHA}"+base64.StdEncoding.EncodeToString(sum[:]) {
			return user, "password"
		}
	}
	return "", ""
}

// askable says why the server of auth-url cannot be asked: it must be a Service of the namespace, or under a host that is
// served (decision 127).
func (o *oracle) askable(ing *networkingv1.Ingress, text string, a ask) (excuse string) {
	u, err := url.Parse(a.fill(text))
	if err != nil {
		return "InvalidAnnotation"
	}
	labels := strings.Split(u.Hostname(), ".")
	if len(labels) == 1 || len(labels) > 2 && labels[2] == "svc" {
		key := model.Key{Namespace: ing.Namespace, Name: labels[0]}
		if len(labels) > 1 {
			key.Namespace = labels[1]
		}
		switch {
		case key.Namespace != ing.Namespace:
			return "ReferenceNotAllowed"
		case o.snapshot.Services.Get(key) == nil:
			return "ServiceNotFound"
		}
		return ""
	}
	paths, _, found := o.rules(u.Hostname())
	switch {
	case !found:
		return "ReferenceNotAllowed"
	case !slices.ContainsFunc(paths, func(r rule) bool { return r.matches(u.Path) }):
		return "AuthNotServed"
	}
	return ""
}

// signIn is the page of auth-signin, which is told where the client wanted to go.
func signIn(a ask, page string) string {
	page = a.fill(page)
	if u, err := url.Parse(page); err == nil && !u.Query().Has("rd") {
		separator := "?"
		if u.RawQuery != "" {
			separator = "&"
		}
		page += separator + "rd=" + a.origin() + a.path
	}
	return page
}

// withCanary is what a path of a rule answers that canaries take requests from: those without the header or cookie that
// a canary wants, by its weight.
func (o *oracle) withCanary(main rule, a ask, got answer) answer {
	_, elsewhere := redirect(main.ingress, a)
	canary := o.canaryOf(main)
	if canary == nil || elsewhere || got.excuse != "" || got.status != 200 && got.status != 503 {
		return got
	}
	weight, _ := strconv.Atoi(canary.ingress.Annotations[nginx+"canary-weight"])
	total := 100
	if n, err := strconv.Atoi(canary.ingress.Annotations[nginx+"canary-weight-total"]); err == nil {
		total = n
	}
	taken := o.backend(canary.ingress, canary.backend)
	switch {
	case weight == 0, taken.excuse != "":
		return got
	case weight >= total:
		return taken
	}
	got.or = taken.backend
	return got
}

// canaryOf is the oldest canary of a path's namespace with the same host, path and pathType.
func (o *oracle) canaryOf(main rule) *rule {
	for _, ing := range o.canaries {
		for _, r := range ing.Spec.Rules {
			for _, p := range o.paths(ing, r) {
				if ing.Namespace == main.ingress.Namespace && p.at(main) {
					return &p
				}
			}
		}
	}
	return nil
}

// idle says by which reason a Problem must tell that a canary's path takes nothing; "" if none must.
func (o *oracle) idle(canary rule) string {
	for _, ing := range o.ingresses {
		for _, r := range ing.Spec.Rules {
			for _, main := range o.paths(ing, r) {
				if ing.Namespace != canary.ingress.Namespace || !main.at(canary) {
					continue
				}
				if first := o.canaryOf(main); first.ingress != canary.ingress {
					return "PathConflict"
				}
				if o.backend(ing, main.backend).excuse != "" {
					return "" // there is nothing to take
				}
				return o.backend(canary.ingress, canary.backend).excuse
			}
		}
	}
	return "CanaryAlone"
}

// admits says whether a list of ranges has the address from which the tests ask.
func admits(list string) (bool, error) {
	me := netip.MustParseAddr("127.0.0.1")
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if !strings.Contains(part, "/") {
			part += "/32"
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return false, err
		}
		if p.Contains(me) {
			return true, nil
		}
	}
	return false, nil
}
