package model

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
)

func testOwn() Own {
	s := &Snapshot{
		Nodes: map[string]*Node{"n1": {Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11")}},
			"n2": {Name: "n2", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.12")}}},
		Claims: map[string]*v1alpha1.AddressClaim{
			"203.0.113.1": {Spec: v1alpha1.AddressClaimSpec{Address: "203.0.113.1"}},
			"bad":         {Spec: v1alpha1.AddressClaimSpec{Address: "no address"}},
			"192.0.2.12":  {Spec: v1alpha1.AddressClaimSpec{Address: "192.0.2.12"}},
		},
	}
	return OwnOf(s, DefaultOwnPorts(), netip.MustParseAddr("192.0.2.99"))
}

func TestRefuse(t *testing.T) {
	own := testOwn()
	for _, test := range []struct {
		endpoint string
		protocol corev1.Protocol
		why      string // part of it; empty: allowed
	}{
		{"10.244.1.5:8080", "", ""},
		{"[fd00::5]:8080", "", ""},
		{"198.51.100.7:443", "", ""}, // a host outside of the cluster
		{"192.0.2.11:6443", "", ""},  // the API server on a node
		{"[2001:db8::11]:10250", "", ""},
		{"192.0.2.12:6443", "", ""}, // a claim of a node's address takes nothing away
		{"10.244.1.5:9901", "", ""}, // a pod may use any port
		{"192.0.2.11:7472", corev1.ProtocolTCP, ""},
		{"[::ffff:10.244.1.5]:80", "", ""},
		{"127.0.0.1:80", "", "loopback"},
		{"127.255.255.254:80", "", "loopback"},
		{"[::1]:80", "", "loopback"},
		{"[::ffff:127.0.0.1]:80", "", "loopback"},
		{"[::127.0.0.1]:80", "", "IPv4 address in IPv6"},
		{"169.254.169.254:80", "", "link-local"},
		{"[::ffff:169.254.169.254]:80", "", "link-local"},
		{"[64:ff9b::a9fe:a9fe]:80", "", "link-local"},
		{"[64:ff9b::808:808]:80", "", ""},
		{"[fd00:ec2::254]:80", "", "metadata"},
		{"[fd00:ec2::253]:80", "", ""},
		{"168.63.129.16:80", "", "metadata"},
		{"100.100.100.200:80", "", "metadata"},
		{"192.0.0.192:80", "", "metadata"},
		{"[fe80::1]:80", "", "link-local"},
		{"[fe80::1%eth0]:80", "", "zone"},
		{"[fd00::1%eth0]:80", "", "zone"},
		{"0.0.0.0:80", "", "unspecified"},
		{"0.1.2.3:80", "", "unspecified"},
		{"[::]:80", "", "unspecified"},
		{"224.0.0.1:80", "", "multicast"},
		{"[ff02::1]:80", "", "multicast"},
		{"255.255.255.255:80", "", "broadcast"},
		{"10.244.1.5:0", "", "port is 0"},
		{"203.0.113.1:80", "", "LoadBalancer"},
		{"[::ffff:203.0.113.1]:80", "", "LoadBalancer"},
		{"203.0.113.2:80", "", ""},
		{"192.0.2.11:9901", "", "node n1"},
		{"192.0.2.11:9902", corev1.ProtocolTCP, "hythe gateway"},
		{"[2001:db8::11]:9903", corev1.ProtocolTCP, "hythe node"},
		{"[::ffff:192.0.2.11]:9903", corev1.ProtocolTCP, "hythe node"},
		{"192.0.2.11:7472", corev1.ProtocolUDP, "heartbeats"},
		{"192.0.2.11:4789", corev1.ProtocolUDP, "overlay"},
		{"192.0.2.99:9902", "", "this node"},
	} {
		got := own.Refuse(test.protocol, netip.MustParseAddrPort(test.endpoint))
		if (got == "") != (test.why == "") || !strings.Contains(got, test.why) {
			t.Errorf("%s %s: %q, want %q", test.protocol, test.endpoint, got, test.why)
		}
	}
	if own.Refuse("", netip.AddrPort{}) == "" || (Own{}).Refuse("", netip.MustParseAddrPort("127.0.0.1:80")) == "" {
		t.Error("nothing at all, or loopback without knowledge of the cluster, is allowed")
	}
}

func TestAllowed(t *testing.T) {
	own, service := testOwn(), Key{Namespace: "shop", Name: "web"}
	port := &corev1.ServicePort{Port: 80}
	endpoints := func(list ...string) (out []Endpoint) {
		for _, s := range list {
			out = append(out, Endpoint{AddrPort: netip.MustParseAddrPort(s), Ready: true})
		}
		return out
	}
	good := endpoints("10.0.0.1:80", "10.0.0.2:80")
	if got, problems := own.Allowed(service, port, good); problems != nil || &got[0] != &good[0] {
		t.Errorf("good ones: %v, %v", got, problems)
	}
	mixed := endpoints("10.0.0.1:80", "127.0.0.1:80", "10.0.0.2:80", "192.0.2.11:9901", "169.254.0.1:80", "[::1]:80", "224.0.0.1:80")
	before := slices.Clone(mixed)
	got, problems := own.Allowed(service, port, mixed)
	if !slices.Equal(got, good) || !slices.Equal(mixed, before) {
		t.Errorf("of %v: %v", mixed, got)
	}
	const want = "Service shop/web: EndpointRefused: 5 endpoints of port 80 are not used: 127.0.0.1:80 (it is a loopback address), " +
		"192.0.2.11:9901 (on node n1 it is that of the admin pages of hythe controller), 169.254.0.1:80 (it is a link-local address), " +
		"[::1]:80 (it is a loopback address), …. Name addresses of pods in the EndpointSlices with the label kubernetes.io/service-name=web."
	if len(problems) != 1 || problems[0].String() != want {
		t.Errorf("problems %v", problems)
	}
	if got, problems := own.Allowed(service, port, endpoints("127.0.0.1:80")); len(got) != 0 || len(problems) != 1 {
		t.Errorf("only a bad one: %v, %v", got, problems)
	}
}
