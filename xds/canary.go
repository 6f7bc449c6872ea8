package xds

import (
	"math"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

// canarySuffix ends the name of a canary's cookie of a session: its pods are not those of the other backend.
const canarySuffix = "-canary"

// variants are the routes for the same requests that differ by what is to be seen in them: which backend takes them, and
// when they are tried again. The last one takes all that the others do not.
func (b *builder) variants(r gateway.Route, out *routev3.Route) []*routev3.Route {
	if out.GetRoute() == nil {
		return []*routev3.Route{out}
	}
	b.traffic(r, out)
	all := b.canaries(r, out)
	if r.Policy == nil || len(r.Policy.Limits.Exempt) == 0 {
		return all
	}
	var unlimited []*routev3.Route
	for _, v := range all {
		unlimited = append(unlimited, exempt(r.Policy.Limits.Exempt, v))
	}
	return append(unlimited, all...)
}

// canaries are the routes for what the canary takes, and what it does not.
func (b *builder) canaries(r gateway.Route, out *routev3.Route) []*routev3.Route {
	if r.Canary == nil {
		return b.retries(r, out)
	}
	canary := proto.CloneOf(out)
	canary.Name = RouteName(r.Canary.Origin)
	canary.GetRoute().ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: r.Canary.Backend}
	var session policy.Session
	if r.Policy != nil {
		session = r.Policy.Session
	}
	if session.Cookie != "" {
		own := session
		own.Cookie += canarySuffix
		b.enableSession(r, canary, own)
	}
	var all []*routev3.Route
	add := func(to *routev3.Route, condition func(*routev3.RouteMatch)) {
		to = proto.CloneOf(to)
		condition(to.Match)
		all = append(all, b.retries(r, to)...)
	}
	c := r.Canary
	if session.Cookie != "" && !c.Free { // a client stays where it was, as in ingress-nginx
		add(out, cookieIs(session.Cookie, fullMatch(".+")))
		add(canary, cookieIs(session.Cookie+canarySuffix, fullMatch(".+")))
	}
	switch {
	case c.Header == "":
	case c.Value != "":
		add(canary, headerIs(c.Header, exactly(c.Value)))
	case c.Pattern != "":
		add(canary, headerIs(c.Header, fullMatch("(?s:.*)(?:"+c.Pattern+")(?s:.*)")))
	default:
		add(canary, headerIs(c.Header, exactly("always")))
		add(out, headerIs(c.Header, exactly("never")))
	}
	if c.Cookie != "" {
		add(canary, cookieIs(c.Cookie, exactly("always")))
		add(out, cookieIs(c.Cookie, exactly("never")))
	}
	if c.Weight > 0 {
		add(canary, func(m *routev3.RouteMatch) { m.RuntimeFraction = share(c.Weight, c.Total) })
	}
	return append(all, b.retries(r, out)...)
}

func exactly(value string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}}
}

func headerIs(name string, value *matcherv3.StringMatcher) func(*routev3.RouteMatch) {
	return func(m *routev3.RouteMatch) {
		m.Headers = append(m.Headers, &routev3.HeaderMatcher{
			Name: strings.ToLower(name), HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: value},
		})
	}
}

func cookieIs(name string, value *matcherv3.StringMatcher) func(*routev3.RouteMatch) {
	return func(m *routev3.RouteMatch) {
		m.Cookies = append(m.Cookies, &routev3.CookieMatcher{Name: name, StringMatch: value})
	}
}

// share takes weight of total requests at random.
func share(weight, total uint32) *corev3.RuntimeFractionalPercent {
	millionths := math.Round(float64(weight) / float64(max(total, 1)) * 1_000_000)
	return &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
		Numerator: uint32(min(millionths, 1_000_000)), Denominator: typev3.FractionalPercent_MILLION,
	}}
}

// mirror sends copies of the requests to another cluster.
func mirror(m *gateway.Mirror) []*routev3.RouteAction_RequestMirrorPolicy {
	if m == nil {
		return nil
	}
	return []*routev3.RouteAction_RequestMirrorPolicy{{
		Cluster: m.Backend, HostRewriteLiteral: m.Host, DisableShadowHostSuffixAppend: true,
	}}
}

// traffic is what a route does with its requests besides what routes does.
func (b *builder) traffic(r gateway.Route, out *routev3.Route) {
	action, p := out.GetRoute(), r.Policy
	action.RequestMirrorPolicies = mirror(r.Mirror)
	if p == nil {
		return
	}
	if p.Session.Cookie != "" {
		b.enableSession(r, out, p.Session)
	}
	if p.Limits.Rated() {
		b.enable(out, filterRateLimit, rateLimit(p.Limits))
	}
	if p.Limits.Bandwidth != 0 {
		b.enable(out, filterBandwidth, bandwidth(p.Limits.Bandwidth))
	}
	action.HashPolicy = hashPolicies(p.Hash)
}
