package xds

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

// enableSession keeps clients with their pod. The cookie has the pod's address, so that each gateway knows it and no other
// pod's going or coming changes it. Envoy takes it only where it is one of the cluster's endpoints; a client can choose among
// these, and among no others.
func (b *builder) enableSession(r gateway.Route, out *routev3.Route, s policy.Session) {
	cookie := &httpv3.Cookie{
		Name: s.Cookie, Ttl: durationpb.New(s.MaxAge), Path: s.Path, // Envoy adds HttpOnly
	}
	switch {
	case cookie.Path != "":
	case r.Match == gateway.Regex:
		cookie.Path = "/"
	default:
		cookie.Path = CanonicalPath(r.Path)
	}
	if s.Domain != "" {
		cookie.Attributes = append(cookie.Attributes, &httpv3.CookieAttribute{Name: "Domain", Value: s.Domain})
	}
	if s.SameSite != "" {
		cookie.Attributes = append(cookie.Attributes, &httpv3.CookieAttribute{Name: "SameSite", Value: s.SameSite})
	}
	if s.Secure {
		cookie.Attributes = append(cookie.Attributes, &httpv3.CookieAttribute{Name: "Secure"})
	}
	if s.Partitioned {
		cookie.Attributes = append(cookie.Attributes, &httpv3.CookieAttribute{Name: "Partitioned"})
	}
	b.enable(out, filterSession, &sessionv3.StatefulSessionPerRoute{
		Override: &sessionv3.StatefulSessionPerRoute_StatefulSession{StatefulSession: &sessionv3.StatefulSession{
			SessionState: &corev3.TypedExtensionConfig{
				Name: "envoy.http.stateful_session.cookie", TypedConfig: b.any(&cookiev3.CookieBasedSessionState{Cookie: cookie}),
			},
		}},
	})
}
