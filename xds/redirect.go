package xds

import (
	"cmp"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

// redirectTo answers in the place of the backend. A place that is the same for all requests is sent as it is written: Envoy's
// redirects always name scheme and host, add a slash, and know no fragment.
func redirectTo(out *routev3.Route, r gateway.Route, p policy.Redirect) {
	if place := p.Literal(); place != "" {
		out.Action = direct(uint32(p.Code))
		out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, overwrite("location", strings.ReplaceAll(place, "%", "%%")))
		return
	}
	a := &routev3.RedirectAction{
		HostRedirect: p.Host, PortRedirect: uint32(p.Port), ResponseCode: redirectCodes[p.Code], StripQuery: !p.KeepQuery,
	}
	if p.Scheme != "" {
		a.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: p.Scheme}
	}
	switch {
	case p.KeepPath && p.Path == "":
	case p.KeepPath:
		whole := gateway.Route{Match: gateway.Regex, Pattern: "(.*)"}
		a.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: substitute(whole, strings.ReplaceAll(p.Path, "$", "")+"$1")}
	case strings.Contains(p.Path, "$"):
		a.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: substitute(r, p.Path)}
	default:
		a.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: cmp.Or(p.Path, "/")}
	}
	out.Action = &routev3.Route_Redirect{Redirect: a}
}

// RouteLocation is where a route sends its requests that are not redirected by Envoy's own action; empty for nowhere.
func RouteLocation(r *routev3.Route) string {
	for _, h := range r.GetResponseHeadersToAdd() {
		if r.GetDirectResponse() != nil && h.GetHeader().GetKey() == "location" {
			return strings.ReplaceAll(h.GetHeader().GetValue(), "%%", "%")
		}
	}
	return ""
}

// quietKey is metadata of routes whose requests are not in the access log.
const quietKey = "hythe.quiet"

// notQuiet leaves out what a quiet route answered. What no route answered is logged.
func (b *builder) notQuiet() *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
		ExtensionFilter: &accesslogv3.ExtensionFilter{
			Name: "envoy.access_loggers.extension_filters.cel",
			ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: b.any(&celv3.ExpressionFilter{
				Expression: "!has(xds.route_metadata) || !('" + quietKey + "' in xds.route_metadata.filter_metadata)",
			})},
		},
	}}
}

// quiet writes no access log of what the routes answer.
func quiet(routes []*routev3.Route, p *policy.Route) []*routev3.Route {
	if p == nil || !p.Quiet {
		return routes
	}
	for _, r := range routes {
		r.Metadata = &corev3.Metadata{FilterMetadata: mark(quietKey)}
	}
	return routes
}
