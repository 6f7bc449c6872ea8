package xds

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	basicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/basic_auth/v3"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

// authenticate asks for a user and a password.
func (b *builder) authenticate(r gateway.Route, out *routev3.Route) {
	if r.BasicAuth == nil {
		return
	}
	config := &basicv3.BasicAuth{
		Users: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: r.BasicAuth.Users}},
		Realm: r.BasicAuth.Realm,
	}
	b.enable(out, filterBasicAuth, b.always("basic-auth", config))
}

// withSatisfy puts before the routes of SatisfyAny those of the allowed addresses, which are not asked.
func withSatisfy(r gateway.Route, served []*routev3.Route) []*routev3.Route {
	if r.Policy == nil || !r.Policy.SatisfyAny || r.BasicAuth == nil && r.Auth == "" || len(r.Policy.Sources.Allow) == 0 {
		return served
	}
	var out []*routev3.Route
	for _, s := range served {
		known := exempt(r.Policy.Sources.Allow, s)
		if config, limited := s.TypedPerFilterConfig[filterRateLimit]; limited {
			known.TypedPerFilterConfig[filterRateLimit] = config
		}
		delete(known.TypedPerFilterConfig, filterBasicAuth)
		delete(known.TypedPerFilterConfig, filterExternalAuth)
		if r.AuthHeaders != "" { // who is not asked could set them
			known.RequestHeadersToRemove = append(known.RequestHeadersToRemove, strings.Split(r.AuthHeaders, ",")...)
		}
		out = append(out, known)
	}
	return append(out, served...)
}

// sourcesOf are the clients that may come whatever they know. Where nobody is asked who he is, addresses are all there is.
func sourcesOf(r gateway.Route) policy.Sources {
	if r.Policy.SatisfyAny && (r.BasicAuth != nil || r.Auth != "") {
		return policy.Sources{Deny: r.Policy.Sources.Deny}
	}
	return r.Policy.Sources
}

// requestHeaders are the changes of a Route's requests. Passwords for the gateway are not for backends.
func requestHeaders(r gateway.Route) []policy.Header {
	var out []policy.Header
	if r.BasicAuth != nil {
		out = append(out, policy.Header{Name: "Authorization"})
	}
	if r.Policy != nil {
		out = append(out, r.Policy.RequestHeaders...)
	}
	if r.ErrorPages != nil { // the pages get it, too, and do not see the path any more
		out = append(out, policy.Header{Name: "X-Original-URI", Value: []policy.HeaderPart{{Of: policy.HeaderRequest, Text: ":path"}}})
	}
	return out
}

// RouteAsks says whether a route of Envoy asks who its client is, and would ask one that says nothing.
func RouteAsks(r *routev3.Route) bool { return r.GetTypedPerFilterConfig()[filterBasicAuth] != nil }
