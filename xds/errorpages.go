package xds

import (
	"slices"
	"strconv"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	customv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/custom_response/v3"
	redirectv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/custom_response/redirect_policy/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// errorHeader marks a request that Envoy itself sends to the pages for an error; its value is their cluster. Nobody else can
// send it: see forgeable.
const errorHeader = "x-hythe-error"

// replaceErrors has answers with some statuses replaced by those of another backend: Envoy drops the answer and sends the
// request anew, as GET without a body, to the route of errorRoutes.
func (b *builder) replaceErrors(r gateway.Route, routes []*routev3.Route) []*routev3.Route {
	pages := r.ErrorPages
	if pages == nil || len(pages.Statuses) == 0 {
		return routes
	}
	byStatus := map[string]*xdsmatcherv3.Matcher_OnMatch{}
	for _, status := range pages.Statuses {
		text := strconv.Itoa(int(status))
		byStatus[text] = &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
			Action: &xdscorev3.TypedExtensionConfig{Name: "pages", TypedConfig: b.any(toPages(pages, r.Origin, text))},
		}}
	}
	config := &customv3.CustomResponse{CustomResponseMatcher: &xdsmatcherv3.Matcher{
		MatcherType: &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: &xdsmatcherv3.Matcher_MatcherTree{
			Input: &xdscorev3.TypedExtensionConfig{Name: "status", TypedConfig: b.any(&matcherv3.HttpResponseStatusCodeMatchInput{})},
			TreeType: &xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap{
				ExactMatchMap: &xdsmatcherv3.Matcher_MatcherTree_MatchMap{Map: byStatus},
			},
		}},
	}}
	for _, out := range routes {
		b.enable(out, filterCustomResponse, config)
	}
	return routes
}

// toPages is where an answer with a status comes from instead.
func toPages(pages *gateway.ErrorPages, origin model.Key, status string) *redirectv3.RedirectPolicy {
	out := &redirectv3.RedirectPolicy{
		RedirectActionSpecifier: &redirectv3.RedirectPolicy_RedirectAction{RedirectAction: &routev3.RedirectAction{
			PathRewriteSpecifier: &routev3.RedirectAction_PathRedirect{PathRedirect: "/"}, StripQuery: true,
		}},
		RequestHeadersToAdd: []*corev3.HeaderValueOption{overwrite(errorHeader, pages.Backend)},
	}
	for _, h := range pages.Headers(origin, status) {
		if h.Value[0].Of == policy.HeaderText {
			out.RequestHeadersToAdd = append(out.RequestHeadersToAdd, overwrite(h.Name, headerFormat(h.Value)))
		}
	}
	return out
}

// errorRoutes are the routes to the pages of a host. They go before all others.
func (b *builder) errorRoutes(h gateway.Host) []*routev3.Route {
	var clusters []string
	for _, r := range h.Routes {
		if r.ErrorPages != nil && len(r.ErrorPages.Statuses) > 0 {
			clusters = append(clusters, r.ErrorPages.Backend)
		}
	}
	slices.Sort(clusters)
	var out []*routev3.Route
	for _, cluster := range slices.Compact(clusters) {
		r := &routev3.Route{
			Match: routeMatch(gateway.Route{Match: gateway.Prefix, Path: "/"}),
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}, Timeout: durationpb.New(0),
			}},
			RequestHeadersToAdd:    []*corev3.HeaderValueOption{overwrite("x-format", "%REQ(ACCEPT)%")},
			RequestHeadersToRemove: []string{errorHeader},
		}
		headerIs(errorHeader, exactly(cluster))(r.Match)
		b.enable(r, filterCustomResponse, &customv3.CustomResponse{}) // which ends what it began
		out = append(out, r)
	}
	return out
}
