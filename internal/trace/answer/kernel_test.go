package answer

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/overlay"
	"hythe.dev/hythe/node/proxy"
)

var (
	vip      = netip.MustParseAddr("203.0.113.10")
	endpoint = netip.MustParseAddrPort("10.244.1.2:8443")
	nodeIP   = netip.MustParseAddr("203.0.113.101")
)

func ranges(only ...string) proxy.Backends {
	b := proxy.Backends{Outside: []netip.AddrPort{endpoint}, Inside: []netip.AddrPort{endpoint}, Sources: []netip.Prefix{}}
	for _, p := range only {
		b.Sources = append(b.Sources, netip.MustParsePrefix(p))
	}
	return b
}

func TestWanted(t *testing.T) {
	s := proxy.State{
		Frontends: map[proxy.Frontend]proxy.Backends{
			{Addr: vip, Protocol: proxy.TCP, Port: 443}:                     {Outside: []netip.AddrPort{endpoint}, Inside: []netip.AddrPort{endpoint}},
			{Addr: vip, Protocol: proxy.TCP, Port: 80}:                      {Inside: []netip.AddrPort{endpoint}},
			{Addr: vip, Protocol: proxy.TCP, Port: 81}:                      {},
			{Addr: vip, Protocol: proxy.TCP, Port: 8080}:                    ranges("198.51.100.0/24"),
			{Addr: vip, Protocol: proxy.TCP, Port: 8081}:                    ranges("192.0.2.0/24"),
			{Addr: vip, Protocol: proxy.TCP, Port: 8082}:                    ranges(),
			{Addr: netip.IPv4Unspecified(), Protocol: proxy.TCP, Port: 443}: {Outside: []netip.AddrPort{endpoint}, Inside: []netip.AddrPort{endpoint}},
			{Addr: netip.IPv4Unspecified(), Protocol: proxy.TCP, Port: 444}: ranges("192.0.2.0/24"),
		},
		Addresses:     proxy.Set[netip.Addr]{vip: {}},
		Others:        proxy.Set[netip.Addr]{netip.MustParseAddr("10.96.0.7"): {}},
		ServiceRanges: proxy.Set[netip.Prefix]{netip.MustParsePrefix("10.96.0.0/16"): {}},
	}
	forwarded := asked.Frontend{Verdict: readback.Forwarded, Endpoints: []netip.AddrPort{endpoint}}
	for _, c := range []struct {
		to       netip.Addr
		port     uint16
		nodePort bool
		source   string
		want     asked.Frontend
	}{
		{vip, 8080, false, readback.FromOutside, forwarded},
		{vip, 8081, false, readback.FromOutside, asked.Frontend{Verdict: readback.Dropped}},
		{vip, 8082, false, readback.FromOutside, asked.Frontend{Verdict: readback.Dropped}},
		{vip, 443, false, readback.FromOutside, forwarded},
		{vip, 80, false, readback.FromOutside, asked.Frontend{Verdict: readback.Dropped}},
		{vip, 80, false, readback.FromPod, forwarded},
		{vip, 80, false, readback.FromNode, forwarded},
		{vip, 81, false, readback.FromPod, asked.Frontend{Verdict: readback.Refused}},
		{vip, 82, false, readback.FromPod, asked.Frontend{Verdict: readback.Refused}},
		{nodeIP, 443, true, readback.FromOutside, forwarded},
		{nodeIP, 444, true, readback.FromOutside, asked.Frontend{Verdict: readback.Dropped}},
		{netip.MustParseAddr("10.96.0.9"), 80, false, readback.FromPod, asked.Frontend{Verdict: readback.Dropped}},
		{netip.MustParseAddr("10.96.0.7"), 80, false, readback.FromPod, asked.Frontend{Verdict: readback.NotService}},
		{nodeIP, 443, false, readback.FromOutside, asked.Frontend{Verdict: readback.NotService}},
	} {
		if got := Wanted(s, netip.MustParseAddr("198.51.100.10"), c.to, proxy.TCP, c.port, c.nodePort, c.source); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s port %d from %s: %+v, want %+v", c.to, c.port, c.source, got, c.want)
		}
	}
}

// What Build wants of the overlay and what is read back of it must be the same text, or each trace would show a difference.
func TestRouteIsAsWanted(t *testing.T) {
	s := &model.Snapshot{Nodes: map[string]*model.Node{}}
	for name, address := range map[string]string{"a": "203.0.113.101", "b": "203.0.113.102"} {
		s.Nodes[name] = &model.Node{Name: name, Addresses: []netip.Addr{netip.MustParseAddr(address)},
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix(map[string]string{"a": "10.244.1.0/24", "b": "10.244.2.0/24"}[name])}}
	}
	state, problems := overlay.Build(s, "a", overlay.Settings{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	to := netip.MustParseAddr("10.244.2.7")
	want := RouteWanted(state, to)
	if len(want) != 3 {
		t.Fatalf("wanted: %q", want)
	}
	mac := state.Forwards[0].MAC.String()
	found := link.FoundRoute{
		To: to, Kind: link.Unicast, Dst: netip.MustParsePrefix("10.244.2.0/24"), Via: netip.MustParseAddr("10.244.2.0"),
		Device:    link.FoundLink{Name: link.OverlayName, Type: "vxlan", Up: true, State: "unknown"},
		Neighbour: &link.FoundNeighbour{Addr: netip.MustParseAddr("10.244.2.0"), MAC: mac, State: "permanent"},
		Forward:   &link.FoundForward{MAC: mac, Dst: netip.MustParseAddr("203.0.113.102")},
	}
	got := RouteFound(found)
	if !slices.Equal(got.Kernel, want) || got.State != "" || got.Peer != found.Forward.Dst {
		t.Errorf("read %+v\nwanted %q", got, want)
	}
	found.Device.Up = false
	if got := RouteFound(found); got.State != "switched off" {
		t.Errorf("a link that is switched off: %+v", got)
	}
	if got := RouteWanted(state, netip.MustParseAddr("10.244.1.7")); got != nil {
		t.Errorf("a pod of this node is wanted by %q", got)
	}
}

// TestFromKernel takes what a hash or session affinity says from the list that decided.
func TestFromKernel(t *testing.T) {
	other := netip.MustParseAddrPort("10.244.1.3:8443")
	list := []readback.FoundEndpoint{{Address: other, Masquerade: true}, {Address: endpoint}}
	outside := &readback.FoundBackends{Choice: "by source", Chosen: endpoint, Stays: other}
	within := &readback.FoundBackends{Choice: "by source and port", Stays: netip.MustParseAddrPort("10.244.1.9:8443")}
	for name, c := range map[string]struct {
		found readback.Found
		want  asked.Frontend
	}{
		"outside": {readback.Found{Verdict: readback.Forwarded, Outside: outside, Within: within, Endpoints: list},
			asked.Frontend{Verdict: readback.Forwarded, Endpoints: []netip.AddrPort{endpoint, other}, Masquerade: 1, Choice: "by source", Chosen: endpoint, Stays: other}},
		"inside, and its endpoint is gone": {readback.Found{Verdict: readback.Forwarded, Inside: true, Outside: outside, Within: within, Endpoints: list},
			asked.Frontend{Verdict: readback.Forwarded, Endpoints: []netip.AddrPort{endpoint, other}, Masquerade: 1, Choice: "by source and port"}},
		"refused": {readback.Found{Verdict: readback.Refused, Why: "why", Outside: outside}, asked.Frontend{Verdict: readback.Refused, Why: "why"}},
	} {
		if got := FromKernel(c.found); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
