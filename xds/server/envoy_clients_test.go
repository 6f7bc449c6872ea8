package server

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/authority"
	"hythe.dev/hythe/internal/testenv"
)

// TestEnvoyRefusesAuthorities lets Envoy refuse what the clients of one host are verified by: that host is closed, all else is
// served, also by an Envoy that starts with it, and the host when its Secret is good again.
func TestEnvoyRefusesAuthorities(t *testing.T) {
	path := testenv.Envoy(t)
	r := newRig(t)
	w := newWorld(t)
	for n := range 3 {
		w.grow(t, n)
	}
	w.host(gateway.Host{Name: "also.test", Certificate: "default/h1", Routes: []gateway.Route{prefix("/", "shop/h1")}})
	red := authority.New(t, "red", nil)
	authorities := func(list []byte) gateway.Config {
		c := w.Config
		c.Hosts, c.Certificates = slices.Clone(c.Hosts), slices.Clone(c.Certificates)
		for i := range c.Hosts {
			if c.Hosts[i].Name == "h1.test" {
				c.Hosts[i].Clients = &policy.ClientAuth{Secret: "default/ca"}
			}
		}
		for i := range c.Certificates {
			if c.Certificates[i].Name == "default/h1" {
				c.Certificates[i].ServerNames = []string{"also.test"}
			}
		}
		c.ClientTLS = []gateway.ClientTLS{{Certificate: "default/h1", Authorities: "default/ca", Depth: 1, ServerNames: []string{"h1.test"}}}
		c.Authorities = []gateway.Authorities{{Name: "default/ca", Certificates: red.PEM(), Revoked: list}}
		return c
	}
	wants := func(host string, want int) {
		t.Helper()
		eventually(t, host, func() error {
			a, err := tryGet(r.client(""), "https://"+host+"/")
			if want == 0 && err != nil {
				return nil
			}
			if err != nil || a.status != want {
				return fmt.Errorf("%+v, want %d, %w", a, want, err)
			}
			return nil
		})
	}
	refused := func() {
		t.Helper()
		r.set(authorities([]byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")))
		status := r.settle()
		names := map[string]bool{}
		for _, x := range status.Refused {
			names[x.Name] = true
		}
		if !names["clients:default/ca"] || names["default/h1"] {
			t.Fatalf("refused: %v", status.Refused)
		}
		wants("h0.test", 200)
		wants("h1.test", 0)
		wants("h2.test", 200)
		wants("also.test", 200)
	}
	r.set(w.Config)
	wants("h1.test", 200)
	refused()
	r.stopEnvoy()
	start := time.Now()
	r.startEnvoy(path)
	eventually(t, "the new Envoy connects", func() error {
		if s := r.server.Status(); !s.Ready || s.Streams != 1 {
			return errors.New("not ready")
		}
		return nil
	})
	refused()
	t.Logf("%v after the start of Envoy", time.Since(start))
	r.set(authorities(red.List(t, time.Now().Add(time.Hour))))
	wants("h0.test", 200)
	wants("h1.test", 400)
}
