package nginx

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/internal/model"
)

// TestQuiet wants each request in the access log but those of routes with enable-access-log "false"
// (docs/user-guide/nginx-configuration/annotations.md "Enable Access Log").
func TestQuiet(t *testing.T) {
	r := envoytest.New(t, nil)
	r.Settings.AccessLog = true
	c := config(t, nil, policy.Backend{}, named(t, "main", nil))
	origin := model.Key{Namespace: "shop", Name: "quiet"}
	quiet := &policy.Route{Quiet: true}
	gone := &policy.Route{Quiet: true, Answer: policy.Answer{Status: 410}}
	c.Hosts[0].Routes = append([]gateway.Route{
		{Match: gateway.Prefix, Path: "/quiet", Backend: c.Backends[0].Name, Origin: origin, Policy: quiet},
		{Match: gateway.Prefix, Path: "/gone", Status: 410, Origin: origin, Policy: gone},
	}, c.Hosts[0].Routes...)
	r.Set(t, c)
	until(t, "an answer", func() bool { return try(r, "GET /gone/first HTTP/1.1\r\nHost: a.test\r\n\r\n") == http.StatusGone })
	for _, request := range []string{
		"GET /quiet/path HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET /gone/path HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET /loud/path HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET /nobody HTTP/1.1\r\nHost: b.test\r\n\r\n", "GET /without-host HTTP/1.1\r\n\r\n",
	} {
		if try(r, request) == 0 {
			t.Errorf("no answer to %q", request)
		}
	}
	want := []string{"/loud/path", "/nobody", "/without-host"}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) { // Envoy writes its log every 10 s
		log := r.Output.String()
		missing := ""
		for _, path := range want {
			if !strings.Contains(log, path) {
				missing = path
			}
		}
		if strings.Contains(log, "/quiet/path") || strings.Contains(log, "/gone/") {
			t.Fatalf("the access log has a request of a route without one:\n%s", log)
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not in the access log", missing)
		}
	}
}

// try sends a request as it is written, and returns the status of the answer.
func try(r *envoytest.Rig, request string) int {
	conn, err := net.Dial("tcp", r.Settings.HTTP.String())
	if err != nil {
		return 0
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprint(conn, request)
	status := 0
	_, _ = fmt.Fscanf(conn, "HTTP/1.1 %d", &status)
	return status
}
