package follow

import (
	"strings"
	"testing"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/xds"
)

// TestDoorkeeper wants a path that asks for a password to say so, and one whose auth server decides to name it.
func TestDoorkeeper(t *testing.T) {
	config := envoytest.Config(t, "a.test", one, two)
	route := config.Hosts[0].Routes[0]
	password, server := route, route
	password.Path, password.Auth = "/password", "shop/password"
	server.Path, server.Auth = "/server", "shop/server"
	config.Hosts[0].Routes = []gateway.Route{password, server, route}
	config.Auth = auth.Table{
		"shop/password": {Users: []auth.User{{Name: "ada", Hash: "geheim"}}},
		"shop/server":   {Ask: &auth.Ask{ExternalAuth: policy.ExternalAuth{Scheme: "https", Host: "sso.test", URI: policy.Pattern{{Text: "/auth"}}}}},
	}
	resources, problems := xds.Build(config, xds.Settings{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := Want{Config: config, Resources: &resources}
	for path, c := range map[string]struct {
		headers map[string]string
		status  int
		text    string
	}{
		"/password":     {status: 401, text: "asks for a user and a password"},
		"/password/in":  {headers: map[string]string{"authorization": "Basic eA=="}, status: 200},
		"/server":       {status: 200, text: "if https://sso.test/auth lets the client in"},
		"/passwordless": {status: 200},
	} {
		answer := Follow(has(t, config, &resources), want, Request{Scheme: "http", Host: "a.test", Path: path, Headers: c.headers})
		var text strings.Builder
		for _, h := range answer.Hops {
			text.WriteString(h.Text + h.Remedy + "\n")
		}
		if answer.Status != c.status || !strings.Contains(text.String(), c.text) || strings.Contains(text.String(), "geheim") {
			t.Errorf("%s: %d, %s", path, answer.Status, text.String())
		}
	}
}
