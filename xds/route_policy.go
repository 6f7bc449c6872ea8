package xds

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	bodyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/body_size_limit/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

// routes are what serves a gateway.Route with its Policy. There is at least one, and they match what routeMatch says.
func (b *builder) routes(r gateway.Route) []*routev3.Route {
	return quiet(b.replaceErrors(r, b.withCORS(r, withSatisfy(r, b.served(r)))), r.Policy)
}

func (b *builder) served(r gateway.Route) []*routev3.Route {
	out := route(r)
	p := r.Policy
	b.authenticate(r, out)
	b.ask(r, out)
	b.takeGRPCWeb(r, out)
	if p == nil {
		b.changeHeaders(out, requestHeaders(r), nil)
		return b.variants(r, out)
	}
	if s := sourcesOf(r); !s.Empty() {
		b.enable(out, filterSources, onlyFrom(s))
	}
	b.changeHeaders(out, requestHeaders(r), p.ResponseHeaders)
	if p.Redirect.Code != 0 {
		redirectTo(out, r, p.Redirect)
		return []*routev3.Route{out}
	}
	if p.Answer.Status != 0 {
		out.Action = answer(p.Answer)
		return []*routev3.Route{out}
	}
	action := out.GetRoute()
	if action == nil {
		return []*routev3.Route{out}
	}
	if p.MaxBody != 0 {
		b.enable(out, filterBodySize, b.always("body-size", &bodyv3.BodySizeLimit{MaxRequestBytes: wrapperspb.UInt64(p.MaxBody)}))
	}
	b.changeAnswers(out, p.Answers)
	if p.Idle != 0 {
		action.IdleTimeout = durationpb.New(p.Idle)
	}
	if p.HostHeader != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: p.HostHeader}
	}
	if p.Rewrite != "" {
		action.RegexRewrite = substitute(r, p.Rewrite)
	}
	return b.variants(r, out)
}

// validateAll says what Envoy would refuse of routes.
func validateAll(routes []*routev3.Route) error {
	var errs []error
	for _, r := range routes {
		errs = append(errs, r.ValidateAll())
	}
	return errors.Join(errs...)
}

// wholePath is the regular expression of a Regex route for the whole path, as Envoy compares it.
func wholePath(r gateway.Route) string { return "(?:" + r.Pattern + ").*" }

// substitute puts a path in the place of the whole path. Envoy refuses references to groups that the expression of the route
// does not have; in nginx they are empty.
func substitute(r gateway.Route, target string) *matcherv3.RegexMatchAndSubstitute {
	pattern, groups := ".*", 0
	if r.Match == gateway.Regex {
		pattern = wholePath(r)
		if re, err := regexp.Compile(pattern); err == nil {
			groups = re.NumSubexp()
		}
	}
	var out strings.Builder
	for i := 0; i < len(target); i++ {
		switch {
		case target[i] == '\\':
			out.WriteString(`\\`)
		case target[i] == '$' && i+1 < len(target) && '1' <= target[i+1] && target[i+1] <= '9':
			i++
			if int(target[i]-'0') <= groups {
				out.WriteByte('\\')
				out.WriteByte(target[i])
			}
		default:
			out.WriteByte(target[i])
		}
	}
	return &matcherv3.RegexMatchAndSubstitute{
		Pattern: &matcherv3.RegexMatcher{Regex: "^" + pattern + "$"}, Substitution: out.String(),
	}
}

// onlyFrom answers 403 to clients that may not come.
func onlyFrom(s policy.Sources) *rbacv3.RBACPerRoute {
	var who []*rbacconfigv3.Principal
	if len(s.Allow) > 0 {
		who = append(who, anyOf(s.Allow))
	}
	if len(s.Deny) > 0 {
		who = append(who, &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: anyOf(s.Deny)}})
	}
	return &rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{
		Action: rbacconfigv3.RBAC_ALLOW,
		Policies: map[string]*rbacconfigv3.Policy{"sources": {
			Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
			Principals: []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_AndIds{
				AndIds: &rbacconfigv3.Principal_Set{Ids: who},
			}}},
		}},
	}}}
}

// RouteSources are the clients that a route of Envoy lets in; false if all are.
func RouteSources(r *routev3.Route) (policy.Sources, bool) {
	var config rbacv3.RBACPerRoute
	if r.GetTypedPerFilterConfig()[filterSources].UnmarshalTo(&config) != nil {
		return policy.Sources{}, false
	}
	var out policy.Sources
	for _, p := range config.GetRbac().GetRules().GetPolicies() {
		for _, who := range p.GetPrincipals() {
			for _, id := range who.GetAndIds().GetIds() {
				out.Allow = append(out.Allow, ranges(id)...)
				out.Deny = append(out.Deny, ranges(id.GetNotId())...)
			}
		}
	}
	return out, true
}

// ranges are the addresses of anyOf.
func ranges(p *rbacconfigv3.Principal) []netip.Prefix {
	var out []netip.Prefix
	for _, id := range p.GetOrIds().GetIds() {
		if a, err := netip.ParseAddr(id.GetRemoteIp().GetAddressPrefix()); err == nil {
			out = append(out, netip.PrefixFrom(a, int(id.GetRemoteIp().GetPrefixLen().GetValue())))
		}
	}
	return out
}

func anyOf(prefixes []netip.Prefix) *rbacconfigv3.Principal {
	ids := make([]*rbacconfigv3.Principal, len(prefixes))
	for i, p := range prefixes {
		ids[i] = &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_RemoteIp{RemoteIp: &corev3.CidrRange{
			AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits())),
		}}}
	}
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_OrIds{OrIds: &rbacconfigv3.Principal_Set{Ids: ids}}}
}

var redirectCodes = map[int]routev3.RedirectAction_RedirectResponseCode{
	301: routev3.RedirectAction_MOVED_PERMANENTLY, 302: routev3.RedirectAction_FOUND, 303: routev3.RedirectAction_SEE_OTHER,
	307: routev3.RedirectAction_TEMPORARY_REDIRECT, 308: routev3.RedirectAction_PERMANENT_REDIRECT,
}

// actionWords says what else a route does, for RouteText.
func actionWords(a *routev3.RouteAction) []string {
	var words []string
	if rw := a.GetRegexRewrite(); rw != nil {
		words = append(words, "rewrite "+rw.GetSubstitution())
	}
	if h := a.GetHostRewriteLiteral(); h != "" {
		words = append(words, "host "+h)
	}
	for _, m := range a.GetRequestMirrorPolicies() {
		words = append(words, "mirror "+m.GetCluster())
	}
	if a.GetRetryPolicy() != nil {
		words = append(words, fmt.Sprintf("retry %s %d", a.GetRetryPolicy().GetRetryOn(), a.GetRetryPolicy().GetNumRetries().GetValue()))
	}
	if d := a.GetIdleTimeout(); d != nil {
		words = append(words, "idle "+d.AsDuration().String())
	}
	return words
}

// filterWords names the filters that a route switches on.
func filterWords(r *routev3.Route) []string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(r.GetTypedPerFilterConfig())) {
		words = append(words, strings.TrimPrefix(name, "hythe."))
	}
	return words
}

func redirectWords(a *routev3.RedirectAction) string {
	code := 301
	for number, c := range redirectCodes {
		if c == a.GetResponseCode() {
			code = number
		}
	}
	out := strconv.Itoa(code)
	if a.GetHttpsRedirect() {
		out += " https"
	}
	if s := a.GetSchemeRedirect(); s != "" {
		out += " " + s
	}
	if h := a.GetHostRedirect(); h != "" {
		out += " " + h
	}
	if p := a.GetPortRedirect(); p != 0 {
		out += fmt.Sprintf(" port %d", p)
	}
	if p := a.GetPathRedirect(); p != "" {
		out += " " + p
	}
	return out
}

// Takes says whether the expression of a Regex route takes a path.
func Takes(r gateway.Route, path string) bool {
	re, err := regexp.Compile("^" + wholePath(r) + "$")
	return err == nil && re.MatchString(path)
}
