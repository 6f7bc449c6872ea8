package link_test

import (
	"net/netip"
	"strings"
	"testing"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/overlay"
)

// TestOwnAddressChanges gives a node another InternalIP, as a DHCP server may, and then another pod range: its overlay is that of a
// node which always had them, and what it had before is gone.
func TestOwnAddressChanges(t *testing.T) {
	testenv.Root(t)
	cluster := func(address, pods string) *model.Snapshot {
		return &model.Snapshot{Nodes: map[string]*model.Node{
			"a": {Name: "a", Addresses: []netip.Addr{netip.MustParseAddr(address)}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(pods)}},
			"b": {Name: "b", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.12")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}},
		}}
	}
	links := node(t)
	set := func(address, pods string) string {
		t.Helper()
		state, problems := overlay.Build(cluster(address, pods), "a", overlay.Settings{})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if err := links.Set(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		return kernel(t)
	}
	run(t, "ip addr add 192.0.2.77/24 dev eth0")
	first := set("192.0.2.11", "10.244.1.0/24")
	if !strings.Contains(first, "local 192.0.2.11") || !strings.Contains(first, "10.244.2.0/24 via 10.244.2.0 dev hythe.vxlan") {
		t.Fatalf("overlay:\n%s", first)
	}
	second := set("192.0.2.77", "10.244.1.0/24")
	if !strings.Contains(second, "local 192.0.2.77") || strings.ReplaceAll(second, "local 192.0.2.77", "local 192.0.2.11") != first {
		t.Errorf("with another address:\n%s\nbefore:\n%s", second, first)
	}
	third := set("192.0.2.77", "10.244.9.0/24")
	if strings.Contains(third, "10.244.1.0") || !strings.Contains(third, "unreachable 10.244.9.0/24") || !strings.Contains(third, "src 10.244.9.0") {
		t.Errorf("with another range:\n%s", third)
	}

	// The other node, for which the first is a peer, forgets the old address and range.
	other := node(t)
	for _, step := range [][2]string{{"192.0.2.12", "10.244.1.0/24"}, {"192.0.2.77", "10.244.1.0/24"}, {"192.0.2.77", "10.244.9.0/24"}} {
		s := cluster(step[0], step[1])
		s.Nodes["b"].Addresses[0] = netip.MustParseAddr("192.0.2.11") // as eth0 has it
		state, problems := overlay.Build(s, "b", overlay.Settings{})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if err := other.Set(t.Context(), state); err != nil {
			t.Fatal(err)
		}
	}
	got := kernel(t)
	_, fdb, _ := strings.Cut(got, "hythe.vxlan ")
	if strings.Contains(got, "10.244.1.0") || strings.Contains(fdb, "dst 192.0.2.12") || !strings.Contains(fdb, "dst 192.0.2.77") || !strings.Contains(got, "10.244.9.0/24 via 10.244.9.0 dev hythe.vxlan") {
		t.Errorf("the other node:\n%s", got)
	}
}
