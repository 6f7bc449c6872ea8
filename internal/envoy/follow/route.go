package follow

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/xds"
)

func (f *follower) route() bool {
	path, query, _ := strings.Cut(f.request.Path, "?")
	if strings.Contains(f.request.Path, "#") || !strings.HasPrefix(path, "/") {
		f.answer.Status = http.StatusBadRequest
		return f.broken("route", fmt.Sprintf("path %q is not one that a request may have", f.request.Path),
			"ask for a path that begins with / and has no #")
	}
	path, redirect := canonicalPath(path)
	if redirect {
		f.answer.Status, f.answer.Location = http.StatusTemporaryRedirect, withQuery(path, query)
		f.hop(asked.Hop{Part: "route", Text: "307 to " + f.answer.Location + ": the path holds an escaped slash"}, inspect.ReadBack{})
		return false
	}
	if f.chain.refused(path) {
		f.answer.Status = http.StatusForbidden
		return f.broken("route", fmt.Sprintf("path %q is answered 403 on every host", path),
			"ask without dots and a semicolon in a path element: servers read such paths in two ways")
	}
	s := seen{path: path, state: maps.Clone(f.chain.state), headers: map[string]string{}, certificate: f.chain.tls && f.request.Subject != ""}
	if f.request.Client.IsValid() {
		s.state[xds.ClientState] = f.request.Client
	}
	maps.Copy(s.headers, f.request.Headers)
	delete(s.headers, xds.SubjectHeader)
	if s.certificate {
		s.headers[xds.SubjectHeader] = f.request.Subject
	}
	s.headers[":authority"] = canonicalHost(f.request.Host)
	maps.Copy(s.headers, f.chain.headers)
	s.headers[":path"] = withQuery(path, query)
	s.headers["x-forwarded-proto"] = f.request.Scheme
	r := routeFor(f.virtual, s)
	if r == nil {
		f.answer.Status = http.StatusNotFound
		return f.broken("route", "no route of the host takes "+path, "add a path to an Ingress of this host")
	}
	h := asked.Hop{Part: "route", Text: xds.RouteText(r), Object: f.origin(r)}
	if sources, ok := xds.RouteSources(r); ok && f.request.Client.IsValid() && !sources.Admits(f.request.Client) {
		f.answer.Status = http.StatusForbidden
		h.State, h.Remedy = asked.Broken, fmt.Sprintf("the source ranges of %s keep %s out: ask from elsewhere, or change its annotations",
			h.Object, f.request.Client)
		return f.hop(h, inspect.ReadBack{})
	}
	f.tellAuth(r, &h)
	if f.asksPassword(r) && f.request.Headers["authorization"] == "" {
		f.answer.Status = http.StatusUnauthorized
		h.State, h.Remedy = asked.Broken, fmt.Sprintf("%s asks for a user and a password: send the header Authorization", h.Object)
		return f.hop(h, inspect.ReadBack{})
	}
	switch a := r.GetAction().(type) {
	case *routev3.Route_Route:
		f.answer.Cluster = a.Route.GetCluster()
		return f.hop(h, inspect.ReadBack{})
	case *routev3.Route_Redirect:
		f.answer.Status, f.answer.Location = redirectStatus(a.Redirect), f.location(a.Redirect, path, query)
		h.Text += " to " + f.answer.Location
		f.hop(h, inspect.ReadBack{})
		return false
	default:
		f.answer.Status = int(r.GetDirectResponse().GetStatus())
		if to := xds.RouteLocation(r); to != "" {
			f.answer.Location = to
			f.hop(h, inspect.ReadBack{})
			return false
		}
		h.State, h.Remedy = asked.Broken, f.directRemedy(h.Object, path)
		return f.hop(h, inspect.ReadBack{})
	}
}

// origin is the Ingress that asked for a route, or the only one that has a part in the host.
func (f *follower) origin(r *routev3.Route) model.ObjectRef {
	if key, ok := xds.RouteOrigin(r.GetName()); ok {
		return model.Ref("Ingress", key)
	}
	if r.GetRedirect() != nil {
		if all := ingresses(f.want.host(f.domain)); len(all) == 1 {
			return all[0]
		}
	}
	return model.ObjectRef{}
}

// directRemedy says what to do about an answer that Envoy gives itself.
func (f *follower) directRemedy(object model.ObjectRef, path string) string {
	switch f.answer.Status {
	case http.StatusMisdirectedRequest:
		return fmt.Sprintf("ask for %s on a connection of its own: this one was made for server name %s, which has another certificate",
			canonicalHost(f.request.Host), f.request.ServerName)
	case http.StatusNotFound:
		if f.domain == "*" {
			return fmt.Sprintf("no Ingress of Hythe has the host %s: add a rule for it, and see hythe get problems", canonicalHost(f.request.Host))
		}
		return fmt.Sprintf("no path of host %s takes %s: add it to an Ingress of the host", f.domain, path)
	}
	if h := f.want.host(f.domain); h != nil && h.Clients != nil && object.Name == "" {
		return fmt.Sprintf("host %s is for clients with a certificate (auth-tls-secret): ask by https, and show one that an authority of Secret %s has signed",
			f.domain, h.Clients.Secret)
	}
	if object.Name == "" {
		return ""
	}
	if text := f.refusedBackend(object, path); text != "" {
		return fmt.Sprintf("%s: %s", object, text)
	}
	return fmt.Sprintf("look at the backend of %s", object)
}

func redirectStatus(a *routev3.RedirectAction) int {
	switch a.GetResponseCode() {
	case routev3.RedirectAction_PERMANENT_REDIRECT:
		return http.StatusPermanentRedirect
	case routev3.RedirectAction_TEMPORARY_REDIRECT:
		return http.StatusTemporaryRedirect
	case routev3.RedirectAction_FOUND:
		return http.StatusFound
	case routev3.RedirectAction_SEE_OTHER:
		return http.StatusSeeOther
	default:
		return http.StatusMovedPermanently
	}
}

// location is where a redirect leads.
func (f *follower) location(a *routev3.RedirectAction, path, query string) string {
	scheme := cmp.Or(a.GetSchemeRedirect(), f.request.Scheme)
	if a.GetHttpsRedirect() {
		scheme = "https"
	}
	host := cmp.Or(a.GetHostRedirect(), strippedHost(f.request.Host))
	if p := a.GetPortRedirect(); p != 0 {
		host += ":" + strconv.Itoa(int(p))
	}
	if a.GetStripQuery() {
		query = ""
	}
	if rw := a.GetRegexRewrite(); rw != nil {
		path = substituted(rw, path)
	}
	return scheme + "://" + host + withQuery(cmp.Or(a.GetPathRedirect(), path), query)
}

// substituted is a path as a rewrite leaves it.
func substituted(rw *matcherv3.RegexMatchAndSubstitute, path string) string {
	re, err := regexp.Compile(rw.GetPattern().GetRegex())
	if err != nil {
		return path
	}
	to := strings.ReplaceAll(rw.GetSubstitution(), "$", "$$")
	to = groupReference.ReplaceAllStringFunc(to, func(s string) string {
		if s == `\\` {
			return `\`
		}
		return "${" + s[1:] + "}"
	})
	return re.ReplaceAllString(path, to)
}

// groupReference is a backslash, or what it makes of the next character, in a substitution of RE2.
var groupReference = regexp.MustCompile(`\\[0-9\\]`)

func withQuery(path, query string) string {
	if query == "" {
		return path
	}
	return path + "?" + query
}

func (f *follower) cluster() bool {
	name := f.answer.Cluster
	h := asked.Hop{Part: "cluster", Object: service(name)}
	f.pod = f.config.Cluster(name)
	if f.pod == nil {
		f.answer.Status = http.StatusServiceUnavailable
		h.Text, h.State = "Envoy does not have cluster "+name, asked.Broken
		return f.hop(h, f.want.compareVersion(xds.Cluster, name, "", f.config.Read))
	}
	h.Text = "cluster " + name
	if t := f.pod.Body.GetConnectTimeout(); t != nil {
		h.Text += fmt.Sprintf(", connect within %s", t.AsDuration())
	}
	switch {
	case f.pod.Warming:
		h.Text += ", waits for its endpoints"
		h.State = asked.Differs
	case len(f.pod.Open) > 0:
		f.answer.Status = http.StatusServiceUnavailable
		h.Text += ", circuit breaker open: " + strings.Join(f.pod.Open, " ")
		h.State, h.Remedy = asked.Broken, "Envoy has more requests to it than it may: add pods to the Service, or look why they do not answer"
	}
	return f.hop(h, f.want.compareVersion(xds.Cluster, name, f.pod.Version, f.pod.Updated))
}

func (f *follower) endpoints() bool {
	var take, not []string
	var have []netip.AddrPort
	for _, e := range f.pod.Endpoints {
		have = append(have, e.Address)
		a := asked.EnvoyEndpoint{Address: e.Address, Healthy: e.Healthy, Health: e.Health}
		a.Node, a.Pod = f.want.podOf(f.answer.Cluster, e.Address)
		f.answer.Endpoints = append(f.answer.Endpoints, a)
		if e.Healthy {
			take = append(take, e.Address.String())
		} else {
			not = append(not, e.Address.String()+" "+e.Health)
		}
	}
	h := asked.Hop{Part: "endpoints", Object: service(f.answer.Cluster)}
	h.Text = fmt.Sprintf("%d of %d take requests", len(take), len(have))
	if len(take) > 0 {
		h.Text += ": " + shorten(take)
	}
	if len(not) > 0 {
		h.Text += "; not: " + shorten(not)
		h.State = asked.Differs
		h.Remedy = "Envoy could not connect to some: look at these pods, and at the way to their nodes"
	}
	if len(take) == 0 {
		f.answer.Status = http.StatusServiceUnavailable
		h.State = asked.Broken
		h.Remedy = f.noEndpoints(len(have))
	}
	return f.hop(h, f.compareEndpoints(have))
}

func (f *follower) noEndpoints(known int) string {
	if known > 0 {
		return "Envoy can connect to none of them: look at these pods, and at the way to their nodes"
	}
	if text := f.want.problems(service(f.answer.Cluster), ""); text != "" {
		return fmt.Sprintf("%s: %s", service(f.answer.Cluster), text)
	}
	return fmt.Sprintf("%s has no ready endpoint: look at its pods and their readiness, and whether its selector is theirs",
		service(f.answer.Cluster))
}

// compareEndpoints compares addresses: Envoy keeps no version of them.
func (f *follower) compareEndpoints(have []netip.AddrPort) inspect.ReadBack {
	wanted, ok := f.want.addresses(f.answer.Cluster)
	if !ok {
		return inspect.ReadBack{State: inspect.Surplus, Reason: "the gateway does not want the cluster any more"}
	}
	if slices.Equal(have, wanted) {
		return inspect.ReadBack{State: inspect.InUse}
	}
	text := make([]string, len(wanted))
	for i, a := range wanted {
		text[i] = a.String()
	}
	return inspect.ReadBack{State: inspect.Outstanding, Reason: fmt.Sprintf("%d endpoints: %s", len(wanted), shorten(text))}
}

// shorten names the first few.
func shorten(words []string) string {
	const most = 5
	if len(words) <= most {
		return strings.Join(words, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(words[:most], ", "), len(words)-most)
}

// podOf finds the node and pod of an endpoint of a cluster.
func (w Want) podOf(cluster string, addr netip.AddrPort) (node, pod string) {
	o := service(cluster)
	if w.Snapshot == nil {
		return "", ""
	}
	endpoints := w.Snapshot.Endpoints.Get(model.Key{Namespace: o.Namespace, Name: o.Name})
	if endpoints == nil {
		return "", ""
	}
	for _, p := range endpoints.Ports {
		for _, e := range p.Endpoints {
			if e.AddrPort == addr {
				return e.Node, e.Pod
			}
		}
	}
	return "", ""
}
