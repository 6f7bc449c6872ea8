package nginx

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
)

// serveAuth puts a server in the place of each auth server. It answers the status of the header Test-Auth, 401 without, says
// in Saw what it was asked, in Saw-NAME which header NAME it got, and in Count how often it was asked.
func serveAuth(t *testing.T, config *gateway.Config, pod pair) {
	t.Helper()
	for _, entry := range config.Auth {
		if entry.Ask == nil {
			continue
		}
		var count atomic.Int64
		handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			status := http.StatusUnauthorized
			_, _ = fmt.Sscan(req.Header.Get("Test-Auth"), &status)
			h := w.Header()
			h.Set("Saw", req.Method+"_"+req.Host+"_"+req.RequestURI)
			for name, values := range req.Header {
				h.Set("Saw-"+name, strings.ReplaceAll(strings.Join(values, ","), " ", "_"))
			}
			h.Set("Count", fmt.Sprint(count.Add(1)))
			h.Set("X-User", "ada")
			h.Set("Set-Cookie", "auth=1; Path=/")
			h.Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(status)
		})
		for i := range entry.Ask.Targets {
			target := &entry.Ask.Targets[i]
			if len(target.Addresses) == 0 {
				continue
			}
			s := httptest.NewUnstartedServer(handler)
			if target.TLS {
				s.TLS = pod.config()
				s.StartTLS()
			} else {
				s.Start()
			}
			t.Cleanup(s.Close)
			target.Addresses = []netip.AddrPort{netip.MustParseAddrPort(s.Listener.Addr().String())}
		}
	}
}

// guarded is a host whose requests a doorkeeper decides about, by the header Test-Auth.
func guarded(t *testing.T) gateway.Config {
	t.Helper()
	c := config(t, nil, policy.Backend{}, named(t, "web", nil))
	c.Hosts[0].Routes[0].Auth = "shop/shop"
	c.Auth = auth.Table{"shop/shop": {Ask: &auth.Ask{
		ExternalAuth: policy.ExternalAuth{Scheme: "http", Host: "auth", URI: policy.Pattern{{Text: "/"}}},
		Targets:      []auth.Target{{For: "*", Host: "auth", Addresses: []netip.AddrPort{{}}}},
	}}}
	serveAuth(t, &c, pair{})
	return c
}

// statusOf asks for a path of a.test, on a connection of its own.
func statusOf(t *testing.T, r *envoytest.Rig, header ...string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Settings.HTTP.String()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host, req.Close = "a.test", true
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestDoorkeeperAway wants 503 while nobody can say who may come in, and no such answer as soon as somebody can.
func TestDoorkeeperAway(t *testing.T) {
	r := envoytest.New(t, nil)
	r.Set(t, guarded(t))
	is := func(status int, header ...string) func() bool {
		return func() bool { return statusOf(t, r, header...) == status }
	}
	until(t, "a yes", is(200, "Test-Auth", "200"))
	until(t, "a no", is(401))
	for range 3 {
		r.StopDoorkeeper()
		for range 20 {
			if got := statusOf(t, r, "Test-Auth", "200"); got != 503 {
				t.Fatalf("without a doorkeeper: %d", got)
			}
		}
		r.StartDoorkeeper(t)
		start := time.Now()
		until(t, "a yes", is(200, "Test-Auth", "200"))
		t.Logf("served again after %s", time.Since(start))
		for range 20 {
			if got := statusOf(t, r, "Test-Auth", "200"); got != 200 {
				t.Fatalf("with a doorkeeper again: %d", got)
			}
		}
	}
	if err := os.Remove(r.Auth.Path); err != nil {
		t.Fatal(err)
	}
	if got := statusOf(t, r, "Test-Auth", "200"); got != 503 {
		t.Errorf("without its table: %d", got)
	}
}

// TestAuthComesAndGoes wants no 503 when a host begins and ends to ask who comes, and nobody to come in without having been
// asked while it does.
func TestAuthComesAndGoes(t *testing.T) {
	r := envoytest.New(t, nil)
	with := guarded(t)
	without := with
	without.Auth = nil
	without.Hosts = slices.Clone(with.Hosts)
	without.Hosts[0].Routes = slices.Clone(with.Hosts[0].Routes)
	without.Hosts[0].Routes[0].Auth = ""
	r.Set(t, without)
	until(t, "the host", func() bool { return statusOf(t, r) == 200 })
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	var asked atomic.Int64
	for range 2 {
		done.Go(func() {
			for ctx.Err() == nil {
				if got := statusOf(t, r, "Test-Auth", "200"); got != 200 {
					t.Errorf("one who may come in: %d", got)
				}
				asked.Add(1)
			}
		})
	}
	for range 10 {
		r.Set(t, with)
		until(t, "a no", func() bool { return statusOf(t, r) == 401 })
		for range 10 {
			if got := statusOf(t, r); got != 401 {
				t.Errorf("one who may not come in: %d", got)
			}
		}
		r.Set(t, without)
		until(t, "a yes", func() bool { return statusOf(t, r) == 200 })
	}
	stop()
	done.Wait()
	t.Logf("%d requests", asked.Load())
}
