package nft

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// TestHostPorts sends real packets to host ports: one port at the node's address and at its loopback address leads to two
// pods, another one at all addresses to a pod. Pods see the client, but for themselves and for 127.0.0.1.
func TestHostPorts(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) { hostPorts(t, at) })
	}
}

func hostPorts(t *testing.T, at addresses) {
	n := build(t, at)
	addr := netip.MustParseAddr
	loopback := map[int]string{32: "127.0.0.1", 128: "::1"}[at.bits]
	settings := proxy.DefaultSettings()
	settings.LocalAddresses = []netip.Addr{addr(at.node)}
	port := func(host netip.Addr, protocol proxy.Protocol, number uint16, pod string) proxy.HostPort {
		return proxy.HostPort{Addr: host, Protocol: protocol, Port: number, Pods: []netip.Addr{addr(pod)}, PodPort: 8080}
	}
	settings.HostPorts = []proxy.HostPort{
		port(addr(loopback), proxy.TCP, 54323, at.a),
		port(addr(at.node), proxy.TCP, 54323, at.b),
		port(addr(at.node), proxy.UDP, 54323, at.a),
		port(netip.Addr{}, proxy.TCP, 8081, at.a),
	}
	s := snapshot(at)
	s.Services = model.Objects[*corev1.Service]{} // which would have hairpins of their own
	clear(s.Claims)
	state, problems := proxy.Build(s, "one", settings)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	table := testTable(t, InNetNS(int(n.node.ns)))
	set1(t, table, state)
	// As the plugin does for the links of such pods.
	n.node.sysctl("ipv4/conf/hytaaaaaaaaaaa/route_localnet", "1")
	n.node.sysctl("ipv4/conf/hytaaaaaaaaaaa/rp_filter", "1")

	to := func(pod, seen string) map[string]string { return map[string]string{pod: seen} }
	n.client.answers("tcp", at.node, 54323, to("b", at.client))
	n.client.answers("udp", at.node, 54323, to("a", at.client))
	n.client.answers("tcp", at.node, 8081, to("a", at.client))
	n.client.refused("udp", at.node, 8081)
	n.node.answers("tcp", at.node, 54323, to("b", at.node))
	n.node.answers("udp", at.node, 54323, to("a", at.node))
	n.node.answers("tcp", at.node, 8081, to("a", at.node))
	n.a.answers("tcp", at.node, 54323, to("b", at.a))
	n.a.answers("tcp", at.node, 8081, to("a", at.hairpin))
	n.b.answers("tcp", at.node, 54323, to("b", at.hairpin))
	// The loopback address: as Kubernetes' test asks it, from the node's own one, and from itself.
	if pod, seen, err := n.node.askFrom(at.node, loopback, 54323); err != nil || pod != "a" || seen != at.node {
		t.Errorf("%s from %s: %s sees %q, error %v", loopback, at.node, pod, seen, err)
	}
	if at.bits == 32 {
		n.node.answers("tcp", loopback, 54323, to("a", at.node))
		n.node.answers("tcp", loopback, 8081, to("a", at.node))
	} else {
		n.node.refused("tcp", loopback, 8081)
	}
	n.node.do(func() {
		f, err := readback.Lookup(readback.Query{From: addr(at.client), To: addr(at.node), Protocol: proxy.TCP, Port: 54323})
		if err != nil || f.Verdict != readback.Forwarded || len(f.Endpoints) != 1 || f.Endpoints[0].Address.Addr() != addr(at.b) {
			t.Errorf("read back: %+v, %v", f, err)
		}
	})

	// What conntrack cannot place is not answered by the node itself.
	n.node.counts(ruleset.Invalid, func() { n.client.resetsPort(at.node, 54323) })
	n.node.counts(ruleset.Invalid, func() { n.client.resetsPort(at.node, 8081) })

	// They go without trace.
	settings.HostPorts = nil
	state, _ = proxy.Build(s, "one", settings)
	set1(t, table, state)
	n.client.refused("tcp", at.node, 54323)
	n.client.refused("tcp", at.node, 8081)
	n.client.refused("udp", at.node, 54323)
	n.node.refused("tcp", loopback, 54323)
}

// askFrom connects from an address, as curl --interface does.
func (h host) askFrom(from, to string, port int) (server, seen string, err error) {
	h.do(func() {
		d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		var c net.Conn
		if c, err = d.Dial("tcp", net.JoinHostPort(to, fmt.Sprint(port))); err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		var all []byte
		all, err = io.ReadAll(c)
		server, seen, _ = strings.Cut(string(all), " ")
	})
	return server, seen, err
}

// TestHostPortLoopback: neither the LAN nor a pod reaches a host port at the node's loopback address, nor, where
// route_localnet is on, a server of the node there (CVE-2020-8558). IPv6 has no such road.
func TestHostPortLoopback(t *testing.T) {
	testenv.Root(t)
	at := four
	n := build(t, at)
	settings := proxy.DefaultSettings()
	settings.HostPorts = []proxy.HostPort{{Addr: netip.MustParseAddr("127.0.0.1"), Protocol: proxy.TCP, Port: 54323,
		Pods: []netip.Addr{netip.MustParseAddr(at.b)}, PodPort: 8080}}
	state, _ := proxy.Build(snapshot(at), "one", settings)
	table := testTable(t, InNetNS(int(n.node.ns)))
	set1(t, table, state)
	n.node.sysctl("ipv4/conf/hytaaaaaaaaaaa/route_localnet", "1")
	n.node.serve("127.0.0.1")
	for _, from := range []struct {
		host
		via, link string
	}{{n.client, at.node, "eth0"}, {n.a, at.gateway, "hytaaaaaaaaaaa"}} {
		// A host that wants to talk to its neighbour's 127.0.0.1.
		lo := from.up("lo")
		from.must(from.nl.AddrDel(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(8, 32)}}))
		from.sysctl("ipv4/conf/all/route_localnet", "1")
		from.route("127.0.0.1/32", "eth0", from.via, n.node, from.link)
		from.dropped("127.0.0.1", 54323)
		from.dropped("127.0.0.1", 8080)
	}
}
