package xds

import (
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/model"
)

const (
	// routeTable is the name of the one RouteConfiguration.
	routeTable = "all"
	// defaultHost is the name of the virtual host for everything that no other one serves.
	defaultHost = "_default"
)

// HostResource is the name of the VirtualHost resource for a gateway.Host.
func HostResource(host string) string {
	if host == gateway.CatchAll {
		host = defaultHost
	}
	return routeTable + "/" + host
}

// HostName is the name of the gateway.Host of a VirtualHost resource.
func HostName(resource string) string {
	host := strings.TrimPrefix(resource, routeTable+"/")
	if host == defaultHost {
		return gateway.CatchAll
	}
	return host
}

// routeConfiguration never changes: the hosts are resources of their own.
func routeConfiguration() *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: routeTable, Vhds: &routev3.Vhds{ConfigSource: ads()}, RequestHeadersToAdd: identify,
		RequestHeadersToRemove: []string{serverNameHeader, sameNameHeader},
	}
}

// addHosts makes the virtual hosts. There is always one for the domain "*": Envoy waits long for a table that has
// none.
func (b *builder) addHosts() {
	rest, sameRest := b.addCatchAll()
	gone := func(h *gateway.Host) {
		if h.Name != gateway.CatchAll {
			b.drop(VirtualHost, HostResource(h.Name))
		}
	}
	sideBySide(b.last.config.Hosts, b.config.Hosts, hostName, gone, func(was, is *gateway.Host) {
		wildcard := strings.HasPrefix(is.Name, "*.")
		if is.Name == gateway.CatchAll || was != nil && (sameRest || !wildcard) && b.keepHost(was, is) {
			return
		}
		h := *is
		b.remake(VirtualHost, HostResource(h.Name), func() {
			b.addHost(h, func() ([]*routev3.Route, []string) {
				own := slices.Concat(b.misdirected(h.Name), b.errorRoutes(h), b.hostRoutes(h))
				needs := backends(h)
				if wildcard {
					own = slices.Concat(deeper(h.Name, rest), own)
					needs = slices.Concat(needs, backends(b.catchAll(b.config)))
				}
				return own, needs
			})
		})
	})
}

// keepHost reports whether the virtual host of a Host stays.
func (b *builder) keepHost(was, is *gateway.Host) bool {
	return b.keep(VirtualHost, HostResource(is.Name), func() bool {
		return sameHost(was, is) && b.sameChains(is.Name) && b.sameGRPC(is)
	})
}

// catchAll is the Host of all names that no other has.
func (b *builder) catchAll(config gateway.Config) gateway.Host {
	out := gateway.Host{Name: gateway.CatchAll}
	for _, h := range config.Hosts {
		if h.Name == gateway.CatchAll {
			out = h
		}
	}
	return out
}

// addCatchAll makes the virtual host for all other names, and returns its routes, and whether they are those of before.
func (b *builder) addCatchAll() (rest []*routev3.Route, same bool) {
	was, is := b.catchAll(b.last.config), b.catchAll(b.config)
	b.now.elsewhere = b.last.elsewhere
	if b.changes.names || b.changes.chains || b.last.elsewhere == nil {
		b.now.elsewhere = b.stampsElsewhere()
	}
	if b.last.rest != nil && slices.Equal(b.last.elsewhere, b.now.elsewhere) && b.keepHost(&was, &is) {
		b.now.rest = b.last.rest
		return b.now.rest, true
	}
	b.remake(VirtualHost, HostResource(is.Name), func() {
		rest = b.addHost(is, func() ([]*routev3.Route, []string) {
			return slices.Concat(b.misdirectedRest(is), b.errorRoutes(is), b.hostRoutes(is)), backends(is)
		})
	})
	b.now.rest = rest
	return rest, false
}

// addHost adds a virtual host with the routes that build returns, and the clusters that they need, and returns the routes. A
// host whose routes cannot be made answers 503: a wider one must not answer in its place.
func (b *builder) addHost(h gateway.Host, build func() ([]*routev3.Route, []string)) (routes []*routev3.Route) {
	resource := &Resource{Kind: VirtualHost, Name: HostResource(h.Name)}
	for _, i := range h.Ingresses {
		resource.Objects = append(resource.Objects, model.Ref("Ingress", i))
	}
	add := func(needs []string) bool {
		slices.Sort(needs)
		resource.Needs = slices.Compact(needs)
		return b.add(resource, &routev3.VirtualHost{
			Name:        resource.Name, // VHDS: a name that differs from the resource's cannot be removed again
			Domains:     []string{h.Name},
			Routes:      routes,
			RetryPolicy: b.retryPolicy(),

			TypedPerFilterConfig: b.withHSTS(h.Name),
		})
	}
	added := false
	good := b.contain(resource, "it answers 503", func() {
		var needs []string
		routes, needs = build()
		added = add(needs)
	})
	if !good || !added {
		routes = []*routev3.Route{{Match: routeMatch(gateway.Route{Match: gateway.Prefix, Path: "/"}), Action: direct(503)}}
		add(nil)
	}
	return routes
}

func backends(h gateway.Host) []string {
	var out []string
	for _, r := range h.Routes {
		out = append(out, r.Backends()...)
		if r.Auth != "" {
			out = append(out, Doorkeeper)
		}
	}
	return out
}

// retryPolicy repeats what never reached an endpoint, on another one. Each choice of LEAST_REQUEST between two idle
// endpoints is a coin's toss, so three more choices meet the dead one again in one of sixteen retries; ten cost nothing.
func (b *builder) retryPolicy() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:    "connect-failure",
		NumRetries: wrapperspb.UInt32(2),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: b.any(&previousv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: 10,
	}
}

// misdirected answers 421 to requests on TLS connections that were made for a host with other TLS settings. Plain
// http has no stamp, which matches neither way.
func (b *builder) misdirected(host string) []*routev3.Route {
	return onlyFor(b.chains.stamps(host), b.ownName(host))
}

// misdirectedRest does so for the names that only the catch-all serves: on chains of certificates that have other hosts'
// names alone they are misdirected. If it serves nothing, 404 says enough.
func (b *builder) misdirectedRest(catchAll gateway.Host) []*routev3.Route {
	if len(catchAll.Ingresses) == 0 {
		return nil
	}
	return onlyFor(b.now.elsewhere, ownNameRest())
}

// stampsElsewhere are the stamps of chains that serve names without a host.
func (b *builder) stampsElsewhere() []netip.Addr {
	own := map[string]bool{}
	for _, h := range b.config.Hosts {
		own[h.Name] = true
	}
	return b.chains.stampsBut(own)
}

// onlyFor answers 421 on TLS connections without one of the stamps, if they match also, which may be nil.
func onlyFor(stamps []netip.Addr, also *routev3.HeaderMatcher) []*routev3.Route {
	others := &matcherv3.AddressMatcher{InvertMatch: true}
	for _, s := range stamps {
		others.Ranges = append(others.Ranges, &xdscorev3.CidrRange{
			AddressPrefix: s.String(), PrefixLen: wrapperspb.UInt32(uint32(s.BitLen())),
		})
	}
	var headers []*routev3.HeaderMatcher
	if also != nil {
		headers = append(headers, also)
	}
	return []*routev3.Route{{
		Match: &routev3.RouteMatch{
			PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"},
			Headers:       headers,
			FilterState: []*matcherv3.FilterStateMatcher{{
				Key:     stampKey,
				Matcher: &matcherv3.FilterStateMatcher_AddressMatch{AddressMatch: others},
			}},
		},
		Action: direct(421),
	}}
}

// deeper gives the catch-all's routes to names with more labels than a wildcard of the Ingress API covers, which
// is exactly one; Envoy's covers any number.
func deeper(host string, routes []*routev3.Route) []*routev3.Route {
	oneLabel := &routev3.HeaderMatcher{
		Name:        ":authority",
		InvertMatch: true,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{
			StringMatch: fullMatch("(?i)[^.]+" + regexp.QuoteMeta(strings.TrimPrefix(host, "*"))),
		},
	}
	out := make([]*routev3.Route, 0, len(routes))
	for _, r := range routes {
		r = proto.CloneOf(r)
		r.Match.Headers = append(r.Match.Headers, oneLabel)
		out = append(out, r)
	}
	return out
}

// hostRoutes are the routes of a host in their order, with the redirects between them: over plain http the first
// route that matches decides, by its Plain, whether it serves or redirects. It always ends with an answer.
func (b *builder) hostRoutes(h gateway.Host) []*routev3.Route {
	if h.Clients != nil {
		return b.clientRoutes(h)
	}
	lastPlain := -1
	for i, r := range h.Routes {
		if r.Plain {
			lastPlain = i
		}
	}
	all := gateway.Route{Match: gateway.Prefix, Path: "/"}
	wider := slices.IndexFunc(h.Routes, func(r gateway.Route) bool { return r.Match != gateway.Exact })
	var out []*routev3.Route
	for i, r := range h.Routes {
		if i == wider { // an Exact path with a parameter is what somebody asked for
			out = append(out, parameters(h)...)
		}
		if h.RedirectHTTPS && i == lastPlain+1 {
			out = append(out, b.redirect(all))
		}
		own := b.validRoutes(h.Name, r)
		if h.RedirectHTTPS && i < lastPlain && !r.Plain {
			out = append(out, b.redirect(r))
		}
		out = append(out, own...)
	}
	if h.RedirectHTTPS && lastPlain+1 >= len(h.Routes) {
		out = append(out, b.redirect(all))
	}
	if n := len(h.Routes); n == 0 || h.Routes[n-1].Match != all.Match || h.Routes[n-1].Path != all.Path {
		out = append(out, &routev3.Route{Match: routeMatch(all), Action: direct(404)})
	}
	return out
}

// validRoutes are the routes of a gateway.Route. Where Envoy would not take one of them, its path answers 503: a wider path must not
// answer in its place. One that no request can have is left out.
func (b *builder) validRoutes(host string, r gateway.Route) []*routev3.Route {
	own := b.routes(r)
	err := errors.Join(b.packErr, validateAll(own))
	b.packErr = nil
	if err == nil {
		return own
	}
	closed, means := []*routev3.Route{{Match: routeMatch(r), Action: direct(503)}}, "answers 503"
	if validateAll(closed) != nil {
		closed, means = nil, "is none"
	}
	b.problems = append(b.problems, model.Problemf(model.Ref("Ingress", r.Origin), "InvalidForEnvoy", "path %q of host %s %s: %v", r.Path, host, means, err))
	return closed
}

func routeMatch(r gateway.Route) *routev3.RouteMatch {
	path := CanonicalPath(r.Path)
	switch {
	case r.Match == gateway.Regex:
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: wholePath(r)}}}
	case r.Match == gateway.Exact:
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: path}}
	case path == "/":
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
	default:
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: path}}
	}
}

// route is what serves a gateway.Route, without its Policy.
func route(r gateway.Route) *routev3.Route {
	out := &routev3.Route{Name: RouteName(r.Origin), Match: routeMatch(r)}
	if r.Backend == "" {
		out.Action = direct(r.Status)
		return out
	}
	out.Action = &routev3.Route_Route{Route: &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: r.Backend},
		Timeout:          durationpb.New(0),
	}}
	return out
}

// RouteName says in Envoy which Ingress asked for a route, so that it can be read back there; empty for none.
func RouteName(origin model.Key) string {
	if origin.Name == "" {
		return ""
	}
	return origin.String()
}

// RouteOrigin is the Ingress of a RouteName.
func RouteOrigin(name string) (model.Key, bool) {
	namespace, ingress, ok := strings.Cut(name, "/")
	return model.Key{Namespace: namespace, Name: ingress}, ok
}

func direct(status uint32) *routev3.Route_DirectResponse {
	return &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: status}}
}

// redirect answers 308 to what r matches over plain http. Envoy sets x-forwarded-proto itself, as
// use_remote_address is on.
func (b *builder) redirect(r gateway.Route) *routev3.Route {
	match := routeMatch(r)
	match.Headers = []*routev3.HeaderMatcher{plainHTTP()}
	return &routev3.Route{Match: match, Action: &routev3.Route_Redirect{Redirect: &routev3.RedirectAction{
		SchemeRewriteSpecifier: &routev3.RedirectAction_HttpsRedirect{HttpsRedirect: true},
		PortRedirect:           uint32(b.settings.HTTPSPort),
		ResponseCode:           routev3.RedirectAction_PERMANENT_REDIRECT,
	}}}
}

func fullMatch(regex string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: regex},
	}}
}
