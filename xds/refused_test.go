package xds

import (
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// TestRefusedPathIsClosed: what Envoy would not take costs its path, which answers 503. Neither a wider path nor another host
// answers in its place.
func TestRefusedPathIsClosed(t *testing.T) {
	long := strings.Repeat("x", 17_000)
	origin := model.Key{Namespace: "shop", Name: "bad"}
	for name, p := range map[string]*policy.Route{
		"a header of answers":  {ResponseHeaders: []policy.Header{{Name: "X-A", Value: policy.Literal(long)}}},
		"a redirect":           {Redirect: policy.Redirect{Code: 302, Scheme: "https", Host: long + ".test", Path: "/"}},
		"a header of requests": {RequestHeaders: []policy.Header{{Name: "X-A", Value: policy.Literal(long)}}},
	} {
		t.Run(name, func(t *testing.T) {
			out, problems := Build(gateway.Config{Hosts: []gateway.Host{{Name: gateway.CatchAll}, {Name: "a.test", Routes: []gateway.Route{
				{Match: gateway.Prefix, Path: "/admin", Backend: "shop/web:http", Policy: p, Origin: origin},
				{Match: gateway.Prefix, Path: "/", Backend: "shop/web:http"},
			}}}}, Settings{})
			resource := out.Get(VirtualHost, HostResource("a.test"))
			if resource == nil {
				t.Fatalf("the host is gone: %v", problems)
			}
			var host routev3.VirtualHost
			if err := resource.Body.UnmarshalTo(&host); err != nil {
				t.Fatal(err)
			}
			for _, r := range host.Routes {
				switch path := r.GetMatch().GetPathSeparatedPrefix(); {
				case path == "/admin" && r.GetDirectResponse().GetStatus() != 503:
					t.Errorf("the bad path: %v", r.GetAction())
				case path == "/admin":
					if !strings.Contains(problems[0].Message, "/admin") || problems[0].Object != model.Ref("Ingress", origin) || strings.Contains(problems[0].Message, long) {
						t.Errorf("problems %v", problems)
					}
					return
				}
			}
			t.Errorf("no route for the bad path: %v", host.Routes)
		})
	}
}
