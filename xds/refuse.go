package xds

import (
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// confusing are dot segments with a parameter (RFC 3986 section 3.3), as they stand after normalize_path: Envoy takes
// "/a/..;x/b" for "/b", but not "/a/%2e%2e;x/b", which it only unescapes. Java servers drop the parameter and then
// read ".." of both, so a pod would serve what its route does not lead to.
var confusing = []string{"/.;", "/..;", "/.%3b", "/..%3b"}

// refuseConfusing answers 403 to requests with such a path.
func (b *builder) refuseConfusing() *hcmv3.HttpFilter {
	var paths []*rbacconfigv3.Permission
	for _, part := range confusing {
		paths = append(paths, &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{
			Rule: &matcherv3.PathMatcher_Path{Path: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Contains{Contains: part}, IgnoreCase: true,
			}},
		}}})
	}
	anybody := []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_Any{Any: true}}}
	rules := &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY, Policies: map[string]*rbacconfigv3.Policy{
		"confusing path": {Permissions: paths, Principals: anybody},
	}}
	return &hcmv3.HttpFilter{
		Name:       "envoy.filters.http.rbac",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.any(&rbacv3.RBAC{Rules: rules})},
	}
}
