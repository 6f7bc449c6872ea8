package link_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/link"
)

// TestReadRoute reads ways that an overlay and a pod's link have made, and sees each break.
func TestReadRoute(t *testing.T) {
	testenv.Root(t)
	links := node(t)
	if err := links.Set(t.Context(), states()["three nodes"]); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"ip link add hyt0123456789a type veth peer name inside",
		"ip link set hyt0123456789a up",
		"ip link set inside up",
		"ip route add 10.244.1.7/32 dev hyt0123456789a proto 73",
		"ip neigh replace 10.244.1.7 lladdr 02:00:00:00:00:77 dev hyt0123456789a nud permanent",
	} {
		run(t, command)
	}
	read := func(to, from string) link.FoundRoute {
		t.Helper()
		var source netip.Addr
		if from != "" {
			source = netip.MustParseAddr(from)
		}
		f, err := link.ReadRoute(netip.MustParseAddr(to), source)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	want := func(f link.FoundRoute, parts ...string) {
		t.Helper()
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if !strings.Contains(string(b), p) {
				t.Errorf("%s is not in %s", p, b)
			}
		}
	}
	remote := []string{`"kind":"unicast"`, `"name":"hythe.vxlan"`, `"type":"vxlan"`, `"up":true`, `"mtu":1450`, `"protocol":72`, `"state":"permanent"`}
	want(read("10.244.2.5", ""), append(remote, `"dst":"10.244.2.0/24"`, `"src":"10.244.1.0"`, `"dst":"192.0.2.12"`)...)
	want(read("10.244.3.5", "10.244.1.7"), append(remote, `"from":"10.244.1.7"`, `"dst":"192.0.2.13"`)...)
	want(read("fd00:2::5", ""), append(remote, `"dst":"fd00:2::/64"`)...)
	want(read("10.244.1.7", ""), `"kind":"unicast"`, `"podLink":true`, `"name":"hyt0123456789a"`, `"state":"up"`,
		`"protocol":73`, `"dst":"10.244.1.7/32"`, `"mac":"02:00:00:00:00:77","state":"permanent"`)
	want(read("192.0.2.11", ""), `"kind":"local"`)
	want(read("198.51.100.9", ""), `"via":"192.0.2.254"`, `"name":"eth0"`)
	want(read("10.244.1.99", ""), `"kind":"unreachable"`) // the range is this node's, the pod is not there
	want(read("203.0.113.1", ""), `"kind":"none"`)

	run(t, "ip link set inside down")
	if f := read("10.244.1.7", ""); f.Device.Works() {
		t.Errorf("a pod's link whose other end is down works: %+v", f.Device)
	}
	forward := read("10.244.2.5", "").Forward
	run(t, "bridge fdb del "+forward.MAC+" dev hythe.vxlan dst "+forward.Dst.String())
	if f := read("10.244.2.5", ""); f.Forward != nil || f.Neighbour == nil {
		t.Errorf("without its forwarding entry: %+v", f)
	}
	run(t, "ip neigh del "+read("10.244.2.5", "").Via.String()+" dev hythe.vxlan")
	if f := read("10.244.2.5", ""); f.Neighbour != nil && f.Neighbour.State == "permanent" {
		t.Errorf("without its neighbour: %+v", f.Neighbour)
	}
	run(t, "ip link set hyt0123456789a down")
	if f := read("10.244.1.7", ""); f.PodLink {
		t.Errorf("the route of a link that is down is still found: %+v", f)
	}
	if _, err := link.ReadRoute(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")); err == nil {
		t.Error("a route between two families")
	}
}
