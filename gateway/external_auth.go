package gateway

import (
	"fmt"
	"maps"
	"net"
	pathpkg "path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// An authTarget is where the auth server of a request is, for one host.
type authTarget struct {
	auth.Target
	to target
}

const authURL = "annotation " + nginx.Prefix + "auth-url: "

// settleAuth finds the servers that Ingresses want to be asked. It needs the owners of hosts. Where a server cannot be
// found, or may not be asked, nobody may come in.
func (x *index) settleAuth(requests []*request) []model.Problem {
	var problems []model.Problem
	orders := map[string][]path{}
	for _, r := range requests {
		if r.refused != nil || !r.asked.Auth.Asks() && r.passwords == nil {
			continue
		}
		fault := model.Contain(model.Ref("Ingress", r.key), "Its paths answer 503", func() {
			if r.asked.AuthFault != "" {
				problems = append(problems, model.Problemf(model.Ref("Ingress", r.key), nginx.Invalid, "%s; clients get 401 there", r.asked.AuthFault))
			}
			x.settleAuthOf(r, orders)
		})
		if fault != nil {
			r.refuse(fault[0].Reason, fault[0].Message)
		}
		problems = append(problems, fault...)
	}
	return problems
}

func (x *index) settleAuthOf(r *request, orders map[string][]path) {
	asked := r.asked.Auth
	x.guarded = append(x.guarded, r)
	r.auth = &auth.Entry{Any: r.asked.Route.SatisfyAny}
	if r.passwords != nil {
		r.auth.Users, r.auth.Realm = r.passwords, r.asked.Basic.Realm
	}
	if !asked.Asks() {
		return
	}
	r.auth.Ask = &auth.Ask{ExternalAuth: asked}
	hosts := slices.Sorted(maps.Keys(r.paths))
	if asked.Host != policy.HostOfRequest {
		hosts = []string{CatchAll}
	}
	for _, host := range hosts {
		t, refused := x.findAuth(r, host, orders)
		if refused != nil {
			r.refused, r.auth = refused, nil
			return
		}
		r.authTargets = append(r.authTargets, t)
	}
}

// findAuth finds the auth server for the requests of a host.
func (x *index) findAuth(r *request, host string, orders map[string][]path) (authTarget, *refusal) {
	asked := r.asked.Auth
	name := asked.Host
	if name == policy.HostOfRequest {
		return x.findPublic(r, host, host, orders)
	}
	if service, ok := serviceOf(name, r.key.Namespace); ok {
		return x.findService(r, service)
	}
	if !nginx.IsAddress(name) && len(x.byHost[x.rulesOf(name)]) > 0 && x.rulesOf(name) != CatchAll {
		return x.findPublic(r, CatchAll, name, orders)
	}
	if no := r.mayName(asked.Scheme, name, asked.Port); no != nil {
		return authTarget{}, &refusal{no.reason, authURL + no.message +
			"; or give its server an Ingress, or name a Service of namespace " + r.key.Namespace}
	}
	port := asked.Port
	if port == 0 {
		port = map[string]uint16{"http": 80, "https": 443}[asked.Scheme]
	}
	t := authTarget{Target: auth.Target{For: CatchAll, Host: name, TLS: asked.Scheme == "https", Name: net.JoinHostPort(name, strconv.Itoa(int(port)))}}
	if asked.Port != 0 {
		t.Host = t.Name
	}
	return t, nil
}

// serviceOf reads a host name as that of a Service, as DNS of the cluster would.
func serviceOf(name, namespace string) (model.Key, bool) {
	labels := strings.Split(name, ".")
	switch {
	case len(labels) == 1:
		return model.Key{Namespace: namespace, Name: name}, true
	case len(labels) >= 3 && labels[2] == "svc":
		return model.Key{Namespace: labels[1], Name: labels[0]}, true
	}
	return model.Key{}, false
}

func (x *index) findService(r *request, service model.Key) (authTarget, *refusal) {
	asked := r.asked.Auth
	if no := r.mayRefer(v1alpha1.GrantService, service, "give it an Ingress there and name its host in the URL"); no != nil {
		return authTarget{}, &refusal{no.reason, authURL + no.message}
	}
	number := int32(asked.Port)
	if number == 0 {
		number = map[string]int32{"http": 80, "https": 443}[asked.Scheme]
	}
	port, refused := resolve(x.snapshot.Services, service.Namespace, &networkingv1.IngressBackend{
		Service: &networkingv1.IngressServiceBackend{Name: service.Name, Port: networkingv1.ServiceBackendPort{Number: number}},
	})
	if refused != nil {
		return authTarget{}, &refusal{refused.reason, authURL + refused.message}
	}
	t := authTarget{to: target{servicePort: port}}
	t.Target = auth.Target{For: CatchAll, Host: asked.Host, TLS: asked.Scheme == "https"}
	return t, nil
}

// findPublic finds what serves the auth server's path under a host of the gateway's own, whoever's it is: everybody could ask
// there. So nothing may be in front of it that lets in only some.
func (x *index) findPublic(r *request, from, name string, orders map[string][]path) (authTarget, *refusal) {
	asked := r.asked.Auth
	refuse := func(reason, format string, args ...any) (authTarget, *refusal) {
		return authTarget{}, &refusal{reason, authURL + fmt.Sprintf(format, args...)}
	}
	uri, plain := asked.URI[:1].Plain()
	uri, _, query := strings.Cut(uri, "?")
	if !plain || !query && len(asked.URI) > 1 {
		return refuse("InvalidAnnotation", "its path has a variable; they are possible in the query, and in the path of a Service's URL")
	}
	if uri != cleaned(uri) || strings.ContainsAny(uri, `%;\`) {
		return refuse("InvalidAnnotation", "its path %s is not plain; write it without .., %% and ;", quote(uri))
	}
	if asked.Port != 0 && asked.Port != 80 && asked.Port != 443 {
		return refuse("ReferenceNotAllowed", "host %s is asked at port %d, which is not the gateway's; leave the port out, or name a Service of namespace %s",
			shorten(name), asked.Port, r.key.Namespace)
	}
	rules := x.rulesOf(name)
	p, ok := x.served(rules, uri, orders)
	switch {
	case !ok:
		return refuse("AuthNotServed", "no Ingress serves %s under host %s; add the auth server's path", uri, name)
	case p.from.refused != nil || x.closed(rules, p.from) != nil:
		return refuse("AuthNotServed", "what serves %s under host %s answers 503 itself: see Ingress %s", uri, name, p.from.key)
	case p.from.protected(r) || x.clientsOf(rules) != nil:
		return refuse("AuthProtected", "%s under host %s asks itself who comes in; serve the auth server's path by an Ingress without protection", uri, name)
	}
	if p.from.key.Namespace != r.key.Namespace {
		if what := asksAsGateway(asked); what != "" {
			return refuse("ReferenceNotAllowed", "host %s is of namespace %s, whose pods take %s for the gateway's; leave it out, or name a Service of namespace %s",
				name, p.from.key.Namespace, what, r.key.Namespace)
		}
	}
	if pol := p.policy(); pol != nil && (pol.Rewrite != "" || pol.Redirect.Code != 0 || pol.Answer.Status != 0) {
		return refuse("AuthNotServed", "Ingress %s does not send %s under host %s to its Service as it is; serve it by an Ingress that does",
			p.from.key, uri, name)
	}
	port, refused := resolve(x.snapshot.Services, p.from.key.Namespace, p.backend)
	backend := p.from.asked.Backend
	switch {
	case refused != nil:
		return refuse(refused.reason, "%s", refused.message)
	case backend.Protocol.HTTP2() || backend.Upstream.Verify:
		return refuse("AuthNotServed", "the auth server speaks gRPC, or is to be verified; serve it by an Ingress without backend-protocol and proxy-ssl-verify")
	}
	t := authTarget{to: target{servicePort: port}}
	t.Target = auth.Target{For: from, Host: name, TLS: backend.Protocol.TLS(), Public: asked.Scheme}
	if asked.Host == policy.HostOfRequest {
		t.Host = "" // that of the request
	}
	if pol := p.policy(); pol != nil && pol.HostHeader != "" {
		t.Host = pol.HostHeader
	}
	return t, nil
}

// asksAsGateway names what of a question only the gateway may say to pods of others, empty for nothing: clients could not send it.
func asksAsGateway(asked policy.ExternalAuth) string {
	if m := asked.Method; m != "" && m != "GET" && m != "HEAD" {
		return "auth-method " + m
	}
	for _, h := range asked.Headers {
		name := strings.ToLower(h.Name)
		for _, own := range []string{"x-forwarded-", "x-original-", "x-real-ip", "x-scheme", "x-sent-from", "x-auth-request-redirect", "forwarded", "ssl-client-"} {
			if name == own || strings.HasSuffix(own, "-") && strings.HasPrefix(name, own) {
				return "header " + h.Name
			}
		}
	}
	return ""
}

// cleaned is a path without empty and dotted elements.
func cleaned(p string) string {
	out := pathpkg.Clean(p)
	if strings.HasSuffix(p, "/") && out != "/" {
		out += "/"
	}
	return out
}

// protected says whether not everybody may come to the paths of a request who came to those of asker.
func (r *request) protected(asker *request) bool {
	sources, own := r.asked.Route.Sources, asker.asked.Route.Sources
	passed := !asker.asked.Route.SatisfyAny && slices.Equal(sources.Allow, own.Allow) && slices.Equal(sources.Deny, own.Deny)
	return r.asked.Basic.Enabled || r.asked.Auth.Asks() || r.asked.AsksClients || !sources.Empty() && !passed
}

// served finds the path that takes a request for uri.
func (x *index) served(rules, uri string, orders map[string][]path) (path, bool) {
	order, ok := orders[rules]
	if !ok {
		order, _ = contest(rules, x.byHost[rules])
		orders[rules] = order
	}
	for _, p := range order {
		if p.takes(uri) {
			return p, true
		}
	}
	if r := x.fallbackOf(rules, x.byHost[rules]); r != nil {
		return path{match: Prefix, path: "/", backend: r.fallback, from: r}, true
	}
	return path{}, false
}

func (p path) takes(uri string) bool {
	switch p.match {
	case Exact:
		return uri == p.path
	case Regex:
		re, err := regexp.Compile("^(?:" + p.pattern + ")")
		return err == nil && re.MatchString(uri)
	}
	return p.path == "/" || uri == p.path || strings.HasPrefix(uri, p.path+"/")
}

// authHeaders are the headers of requests that are the doorkeeper's.
func authHeaders(e *auth.Entry) string {
	var out []string
	if len(e.Users) > 0 {
		out = append(out, "authorization") // the gateway's password is not the backend's
	}
	if e.Ask != nil {
		for _, c := range e.Ask.Copy {
			out = append(out, strings.ToLower(c.To))
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ",")
}

// authTable is what the doorkeeper needs of the requests.
func (x *index) authTable() (auth.Table, []model.Problem) {
	out := auth.Table{}
	var problems []model.Problem
	for _, r := range x.guarded {
		if r.auth == nil || r.refused != nil {
			continue
		}
		entry := *r.auth
		if entry.Ask != nil {
			ask := *entry.Ask
			for _, t := range r.authTargets {
				if t.Name == "" {
					set, more := containEndpoints(t.to.name(), t.to, x.snapshot, x.own)
					t.Addresses = set.Addresses
					problems = append(problems, more...)
				}
				ask.Targets = append(ask.Targets, t.Target)
			}
			entry.Ask = &ask
		}
		out[r.key.String()] = entry
	}
	if len(out) == 0 {
		return nil, problems
	}
	return out, problems
}
