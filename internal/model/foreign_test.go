package model

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestForeignAddresses(t *testing.T) {
	s := &Snapshot{
		Nodes: map[string]*Node{
			"n1": {Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.11")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}},
			"n2": {Name: "n2", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.7")}},
		},
		Services: ObjectsOf(map[Key]*corev1.Service{
			{Namespace: "a", Name: "one"}:  {Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1"}},
			{Namespace: "a", Name: "two"}:  {Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.2", ClusterIPs: []string{"10.96.0.2", "fd00:96::2"}}},
			{Namespace: "a", Name: "none"}: {Spec: corev1.ServiceSpec{ClusterIP: "None"}},
		}),
	}
	want := map[string]string{
		"192.0.2.11": "node n1", "10.244.1.0": "pod CIDR", "10.244.1.255": "pod CIDR", "fd00:1::5": "pod CIDR", "10.244.1.7": "node n1",
		"10.96.0.1": "a/one", "10.96.0.2": "a/two", "fd00:96::2": "a/two", "127.0.0.1": "loopback", "::1": "loopback", "224.0.0.5": "multicast", "0.0.0.0": "unspecified",
		"203.0.113.1": "", "10.244.2.0": "", "10.96.0.3": "", "2001:db8::1": "", "192.0.2.12": "",
	}
	var addrs []netip.Addr
	for a := range want {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	got := ForeignAddresses(s, addrs)
	for text, part := range want {
		if owner := got[netip.MustParseAddr(text)]; (owner == "") != (part == "") || !strings.Contains(owner, part) {
			t.Errorf("%s: %q, want %q", text, owner, part)
		}
	}
	if again := ForeignAddresses(s, addrs); again[netip.MustParseAddr("10.244.1.7")] != got[netip.MustParseAddr("10.244.1.7")] {
		t.Error("of two owners another one each time")
	}
}
