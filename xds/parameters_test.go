package xds

import (
	"regexp"
	"testing"

	"hythe.dev/hythe/gateway"
)

// TestParameters says which paths are answered 400 because of a parameter.
func TestParameters(t *testing.T) {
	serve := func(match gateway.PathMatch, path string) gateway.Route {
		return gateway.Route{Match: match, Path: path, Pattern: path, Backend: "b"}
	}
	for _, c := range []struct {
		routes        []gateway.Route
		refused, free []string
	}{
		{[]gateway.Route{serve(gateway.Prefix, "/")}, nil, []string{"/;x", "/a;x/b", "/;x/a"}},
		{
			[]gateway.Route{serve(gateway.Prefix, "/admin"), serve(gateway.Prefix, "/")},
			[]string{"/admin;x", "/admin;", "/admin;x/y", "/admin%3bx", "/admin%3Bx", "/;x/admin", "/;/y"},
			[]string{"/admin/x;y", "/administration;x", "/;jsessionid=1", "/page;x", "/admin"},
		},
		{[]gateway.Route{serve(gateway.Exact, "/a.b"), serve(gateway.Prefix, "/")}, []string{"/a.b;x"}, []string{"/aXb;x"}},
		{
			[]gateway.Route{serve(gateway.Prefix, "/app/admin/"), serve(gateway.Prefix, "/app")},
			[]string{"/app/admin;x", "/app/;x/admin"},
			[]string{"/app/x;y", "/app;x/admin"}, // nobody serves the last one
		},
		{[]gateway.Route{serve(gateway.Prefix, "/admin"), {Match: gateway.Prefix, Path: "/", Status: 404}}, nil, []string{"/admin;x"}},
		{
			[]gateway.Route{serve(gateway.Regex, "(?i:/ADMIN)((?i:/|(?-m:$)))(.*)"), serve(gateway.Regex, "/api/v[0-9]+/x"), serve(gateway.Prefix, "/")},
			[]string{"/admin;x", "/ADMIN;x", "/api;x/v1/x"},
			[]string{"/api/v1/x;y"},
		},
		{[]gateway.Route{serve(gateway.Regex, "/page"), serve(gateway.Prefix, "/")}, nil, []string{"/page;jsessionid=1"}},
	} {
		made := parameters(gateway.Host{Routes: c.routes})
		matches := func(path string) bool {
			for _, r := range made {
				if regexp.MustCompile("^(?:" + r.GetMatch().GetSafeRegex().GetRegex() + ")$").MatchString(path) {
					return true
				}
			}
			return false
		}
		for _, path := range c.refused {
			if !matches(path) {
				t.Errorf("%v: %s is not refused", c.routes, path)
			}
		}
		for _, path := range c.free {
			if matches(path) {
				t.Errorf("%v: %s is refused", c.routes, path)
			}
		}
	}
}
