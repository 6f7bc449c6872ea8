package xds_test

import (
	"fmt"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/xds"
)

// many is a Config of hosts with a certificate each; that of host n was made n seconds after the first.
func many(hosts int) gateway.Config {
	c := gateway.Config{Certificates: []gateway.Certificate{{Name: gateway.DefaultCertificateName, Chain: []byte("c"), Key: []byte("k")}}}
	for n := range hosts {
		name := fmt.Sprintf("shop/h%02d", hosts-n)
		host := fmt.Sprintf("h%02d.test", hosts-n)
		c.Certificates = append(c.Certificates, gateway.Certificate{
			Name: name, ServerNames: []string{host}, Chain: []byte(name), Key: []byte("k"), Since: time.Unix(int64(hosts-n), 0),
		})
		c.Hosts = append(c.Hosts, gateway.Host{Name: host, Certificate: name})
	}
	return c
}

// TestSharedChangeIsSmall adds a host beyond the limit: nothing else changes.
func TestSharedChangeIsSmall(t *testing.T) {
	settings := xds.Settings{OwnChains: 10}
	before, _ := xds.Build(many(20), settings)
	after, problems := xds.Build(many(21), settings)
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	for _, kind := range xds.Kinds() {
		for _, name := range after.Names(kind) {
			old := before.Get(kind, name)
			if added := name == "shop/h21" || name == "all/h21.test"; added != (old == nil) {
				t.Errorf("%s %s: was there: %t", kind, name, old != nil)
			} else if old != nil && old.Version != after.Get(kind, name).Version {
				t.Errorf("%s %s has changed", kind, name)
			}
		}
	}
	if got := after.OnDemand("H21.test"); got == nil || got.Name != "H21.test" || got.Version != after.Get(xds.Secret, "shop/h21").Version {
		t.Errorf("on demand: %+v", got)
	}
}

// TestSharedHosts says which certificates go to the shared chain: the youngest, and none with a wildcard, below one, or with many names.
func TestSharedHosts(t *testing.T) {
	config := many(6)
	config.Certificates[1].ServerNames = []string{"*.wild.test", "h06.test"}
	config.Certificates = append(config.Certificates, gateway.Certificate{
		Name: "shop/under", ServerNames: []string{"a.b.wild.test"}, Chain: []byte("c"), Key: []byte("k"), Since: time.Unix(100, 0),
	})
	var names []string
	for n := range 17 {
		names = append(names, fmt.Sprintf("n%d.test", n))
	}
	config.Certificates = append(config.Certificates, gateway.Certificate{
		Name: "shop/wide", ServerNames: names, Chain: []byte("c"), Key: []byte("k"), Since: time.Unix(100, 0),
	})
	for limit, want := range map[int]string{
		8: "[default shop/h01 shop/h02 shop/h03 shop/h04 shop/h05 shop/h06 shop/under shop/wide]",
		6: "[default shop/h01 shop/h02 shop/h06 shop/under shop/wide]",
		1: "[default shop/h06 shop/under shop/wide]",
	} {
		resources, _ := xds.Build(config, xds.Settings{OwnChains: limit})
		got := fmt.Sprint(resources.Get(xds.Listener, "https").Needs)
		if limit == 8 {
			resources, _ = xds.Build(config, xds.Settings{OwnChains: -1})
			got = fmt.Sprint(resources.Get(xds.Listener, "https").Needs)
		}
		if got != want {
			t.Errorf("with %d chains: %s, want %s", limit, got, want)
		}
	}
}
