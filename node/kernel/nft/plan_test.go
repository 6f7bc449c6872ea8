package nft

import (
	"net/netip"
	"slices"
	"testing"

	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// TestOrder looks at the order in which the parts of a Service come and go.
func TestOrder(t *testing.T) {
	byName := map[string]ruleset.Set{}
	for _, s := range ruleset.Sets() {
		byName[s.Name] = s
	}
	addr := netip.MustParseAddr("10.96.0.1")
	f := proxy.Frontend{Addr: addr, Protocol: proxy.TCP, Port: 80}
	eps := endpoints("10.244.1.2", 2)
	with := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{f: {Outside: eps, Inside: eps}},
		Addresses: proxy.Set[netip.Addr]{addr: {}}}
	names := func(changes []change) []string {
		order(changes, byName)
		var out []string
		for _, c := range changes {
			out = append(out, c.Set)
		}
		return slices.Compact(out)
	}
	there := ruleset.Encode(with, nil)
	if got := names(difference(nil, nil, there)); !slices.Equal(got, []string{"endpoints4", "frontends4", "addresses4"}) {
		t.Errorf("a Service comes as %v", got)
	}
	if got := names(difference(there, there, nil)); !slices.Equal(got, []string{"frontends4", "addresses4", "endpoints4"}) {
		t.Errorf("a Service goes as %v", got)
	}
}
