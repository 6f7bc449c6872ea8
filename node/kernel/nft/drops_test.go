package nft

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// dropped1 returns the counters of a node by reason.
func (h host) dropped1() map[string]uint64 {
	h.Helper()
	out := map[string]uint64{}
	h.do(func() {
		drops, err := readback.Drops()
		h.must(err)
		for _, d := range drops {
			out[d.Reason] = d.Packets
		}
	})
	return out
}

// counts wants f to raise the counter of one reason, and no other.
func (h host) counts(reason string, f func()) {
	h.Helper()
	before := h.dropped1()
	f()
	var after map[string]uint64
	h.eventually(reason+" is counted", func() bool { // the packet may be under way still
		after = h.dropped1()
		return after[reason] > before[reason]
	})
	if len(after) != len(ruleset.Reasons()) {
		h.Errorf("counters: %v", after)
	}
	for other, n := range after {
		if other != reason && n != before[other] {
			h.Errorf("%s counted %s too: %v before, %v after", reason, other, before, after)
		}
	}
}

// sends sends one UDP packet from an address of the host.
func (h host) sends(from, to string, port int) {
	h.Helper()
	h.do(func() {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(to), Port: port})
		h.must(err)
		defer c.Close()
		_, err = c.Write([]byte("?"))
		h.must(err)
	})
}

// resets sends a TCP reset that belongs to no connection.
func (h host) resets(to string) { h.resetsPort(to, 40000) }

func (h host) resetsPort(to string, port int) {
	h.Helper()
	h.do(func() {
		network := "ip4:tcp"
		if netip.MustParseAddr(to).Is6() {
			network = "ip6:tcp"
		}
		c, err := net.Dial(network, to)
		h.must(err)
		defer c.Close()
		_, err = c.Write([]byte{0x1f, 0x90, byte(port >> 8), byte(port), 0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 4, 0, 0, 0, 0, 0, 0})
		h.must(err)
	})
}

// eventually polls until ok.
func (h host) eventually(what string, ok func() bool) {
	h.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.Errorf("%s: not in 5 s", what)
			return
		}
	}
}

// TestDrops sends what the table does not take, and finds it under its reason.
func TestDrops(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) { drops(t, at) })
	}
}

func drops(t *testing.T, at addresses) {
	n := build(t, at)
	state, _ := proxy.Build(snapshot(at), "one", proxy.DefaultSettings())
	table := testTable(t, InNetNS(int(n.node.ns)))
	set1(t, table, state)
	ip := func(i int) string { return fmt.Sprintf(at.service, i) }
	vip := func(i int) string { return fmt.Sprintf(at.vip, i) }
	for _, h := range []host{n.client, n.a, n.node} {
		n.node.counts(ruleset.NoEndpoint, func() {
			h.refused("tcp", vip(empty), 80)
			h.refused("tcp", ip(empty), 80)
			h.refused("tcp", at.node, 30080+empty)
		})
		n.node.counts(ruleset.ClosedPort, func() { h.refused("tcp", vip(clusterPolicy), 81) })
	}
	n.node.do(func() { // a NodePort is the Service's, whoever listens
		l, err := net.Listen("tcp", net.JoinHostPort(at.node, fmt.Sprint(30080+empty)))
		n.node.must(err)
		t.Cleanup(func() { _ = l.Close() })
	})
	n.node.counts(ruleset.NoEndpoint, func() { n.client.refused("tcp", at.node, 30080+empty) })
	n.node.counts(ruleset.NoLocalEndpoint, func() { n.client.dropped(vip(localAway), 80) })
	n.node.counts(ruleset.NoLocalEndpoint, func() { n.client.dropped(at.node, 30080+localAway) })
	n.node.counts(ruleset.Invalid, func() { n.a.resets(at.client) })
	n.node.counts(ruleset.Invalid, func() { n.client.resets(at.a) })
	n.node.counts(ruleset.Invalid, func() { n.client.resets(vip(clusterPolicy)) })
	for _, port := range []int{clusterPolicy, empty} { // the node itself would answer what is no reset by one
		n.node.counts(ruleset.Invalid, func() { n.client.resetsPort(at.node, 30080+port) })
		n.node.counts(ruleset.Invalid, func() { n.a.resetsPort(at.node, 30080+port) })
	}
	invalid := n.node.dropped1()[ruleset.Invalid]
	n.client.resets(at.node) // no port of a Service
	n.client.resetsPort(at.node, 30080+clusterPolicy)
	n.node.eventually("the last one is counted", func() bool { return n.node.dropped1()[ruleset.Invalid] > invalid })
	if is := n.node.dropped1()[ruleset.Invalid]; is != invalid+1 {
		t.Errorf("%d packets were dropped, of which one was to a NodePort", is-invalid)
	}
	before := n.node.dropped1()
	n.client.answers("tcp", vip(onlyA), 80, map[string]string{"a": at.client})
	set1(t, table, proxy.State{})
	set1(t, table, state)
	if after := n.node.dropped1(); !maps.Equal(before, after) {
		t.Errorf("counters changed without a drop: %v before, %v after", before, after)
	}
}

// TestSpoofed has pods send from addresses that are not theirs.
func TestSpoofed(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) { spoofs(t, at) })
	}
}

func spoofs(t *testing.T, at addresses) {
	n := build(t, at)
	state, _ := proxy.Build(snapshot(at), "one", proxy.DefaultSettings())
	set1(t, testTable(t, InNetNS(int(n.node.ns))), state)
	foreign := fmt.Sprintf(at.vip, 200)
	arrived := func(h host, from string, send func()) bool {
		found := false
		h.do(func() {
			p, err := net.ListenPacket("udp", net.JoinHostPort(map[bool]string{true: at.a, false: at.client}[h.name == "a"], "9"))
			h.must(err)
			defer p.Close()
			send()
			h.must(p.SetReadDeadline(time.Now().Add(300 * time.Millisecond)))
			_, seen, err := p.ReadFrom(make([]byte, 9))
			found = err == nil && seen.(*net.UDPAddr).IP.Equal(net.ParseIP(from))
		})
		return found
	}
	// Of another pod, of this node, of nobody.
	for _, from := range []string{at.b, at.node, foreign} {
		n.a.address("eth0", from, at.bits)
		n.node.counts(ruleset.Spoofed, func() {
			if arrived(n.client, from, func() { n.a.sends(from, at.client, 9) }) {
				t.Errorf("what a pod sent from %s arrived", from)
			}
		})
		n.node.counts(ruleset.Spoofed, func() { n.a.sends(from, fmt.Sprintf(at.service, clusterPolicy), 80) })
		n.a.must(n.a.nl.AddrDel(n.a.up("eth0"), &netlink.Addr{IPNet: netlink.NewIPNet(net.ParseIP(from))}))
	}
	// The overlay's name begins like those of pods' links; sources there are other nodes' business.
	n.remote.address("eth0", foreign, at.bits)
	before := n.node.dropped1()
	if !arrived(n.a, foreign, func() { n.remote.sends(foreign, at.a, 9) }) {
		t.Error("a packet from the overlay did not arrive")
	}
	// A pod's own addresses are fine: the one that it was given, and the kernel's own doings on the link.
	n.a.answers("tcp", at.remote, 8080, map[string]string{"remote": at.a})
	if at.bits == 128 {
		n.a.tentative(fmt.Sprintf(at.vip, 201))
	}
	if after := n.node.dropped1(); after[ruleset.Spoofed] != before[ruleset.Spoofed] {
		t.Errorf("%d packets of honest sources were counted as spoofed", after[ruleset.Spoofed]-before[ruleset.Spoofed])
	}
}

// tentative gives the host an IPv6 address, and waits until the kernel has asked the link whether it is free.
func (h host) tentative(addr string) {
	h.Helper()
	l := h.up("eth0")
	a := netip.MustParseAddr(addr)
	h.must(h.nl.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(128, 128)}}))
	h.eventually("address "+addr+" is free", func() bool {
		list, err := h.nl.AddrList(l, unix.AF_INET6)
		h.must(err)
		for _, x := range list {
			if x.IP.Equal(a.AsSlice()) {
				return x.Flags&unix.IFA_F_TENTATIVE == 0
			}
		}
		return false
	})
}

// TestSourceRanges opens and closes a VIP for its clients.
func TestSourceRanges(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) { sourceRanges1(t, at) })
	}
}

func sourceRanges1(t *testing.T, at addresses) {
	n := build(t, at)
	table := testTable(t, InNetNS(int(n.node.ns)))
	vip, ip := fmt.Sprintf(at.vip, onlyA), fmt.Sprintf(at.service, onlyA)
	toA := func(seen string) map[string]string { return map[string]string{"a": seen} }
	for _, c := range []struct {
		ranges         []string
		client, b, all bool
	}{
		{[]string{"198.51.100.0/24", "2001:db8:1::/48"}, false, false, false},
		{[]string{at.client + "/" + fmt.Sprint(at.bits)}, true, false, false},
		{[]string{at.b + "/" + fmt.Sprint(at.bits-1), at.b + "/" + fmt.Sprint(at.bits), at.ranges[0], "nonsense"}, false, true, false},
		{[]string{at.ranges[0], everything(at.bits)}, true, true, true},
		{[]string{"nonsense"}, false, false, false},
		{nil, true, true, true},
	} {
		s := snapshot(at)
		for key, svc := range s.Services.All() {
			if strings.HasSuffix(key.Name, fmt.Sprint("-", onlyA)) {
				svc.Spec.LoadBalancerSourceRanges = c.ranges
			}
		}
		state, _ := proxy.Build(s, "one", proxy.DefaultSettings())
		set1(t, table, state)
		for _, from := range []struct {
			host
			addr  string
			allow bool
		}{{n.client, at.client, c.client}, {n.b, at.b, c.b}} {
			if from.allow {
				from.answers("tcp", vip, 80, toA(from.addr))
			} else {
				n.node.counts(ruleset.SourceRange, func() { from.dropped(vip, 80) })
			}
			n.node.do(func() {
				f, err := readback.Lookup(readback.Query{From: netip.MustParseAddr(from.addr), To: netip.MustParseAddr(vip), Protocol: proxy.TCP, Port: 80})
				if err != nil || (f.Verdict == readback.Forwarded) != from.allow || f.Restricted == c.all || from.allow == (f.Reason == ruleset.SourceRange) {
					t.Errorf("%q, from %s: %+v, %v", c.ranges, from.addr, f, err)
				}
			})
		}
		// Ranges are the load balancer's: ClusterIP, NodePort and other Services are open.
		n.b.answers("tcp", ip, 80, toA(at.b))
		n.client.answers("tcp", at.node, 30080+onlyA, toA(at.client))
		n.client.answers("tcp", fmt.Sprintf(at.vip, localPolicy), 80, toA(at.client))
	}
}

// TestNodePortIsThisNode: a NodePort takes nothing that is addressed to somebody else, and is not served on loopback.
func TestNodePortIsThisNode(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) {
			n := build(t, at)
			state, _ := proxy.Build(snapshot(at), "one", proxy.DefaultSettings())
			any := netip.IPv4Unspecified()
			if at.bits == 128 {
				any = netip.IPv6Unspecified()
			}
			eps := []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(at.b), 8080)}
			state.Frontends[proxy.Frontend{Addr: any, Protocol: proxy.TCP, Port: 8080}] = proxy.Backends{Outside: eps, Inside: eps}
			set1(t, testTable(t, InNetNS(int(n.node.ns))), state)
			n.client.answers("tcp", at.node, 8080, map[string]string{"b": at.client})
			n.b.answers("tcp", at.client, 8080, map[string]string{"client": at.node})
			n.b.answers("tcp", at.a, 8080, map[string]string{"a": at.b})
			loopback := "127.0.0.1"
			if at.bits == 128 {
				loopback = "::1"
			}
			n.node.refused("tcp", loopback, 8080)
			n.node.do(func() {
				names, err := os.ReadDir("/proc/sys/net/ipv4/conf")
				n.node.must(err)
				for _, name := range names {
					b, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + name.Name() + "/route_localnet")
					if err != nil || strings.TrimSpace(string(b)) != "0" {
						t.Errorf("route_localnet of %s is %q, %v", name.Name(), b, err)
					}
				}
			})
		})
	}
}

// TestDropMetrics reads the counters as Prometheus does.
func TestDropMetrics(t *testing.T) {
	ns := testenv.NewNetNS(t)
	reg := prometheus.NewRegistry()
	table, err := New(testTable(t, InNetNS(int(ns))).log, reg, InNetNS(int(ns)))
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	gathered := func() (reasons int) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "hythe_node_dropped_packets_total" {
				reasons = len(f.GetMetric())
			}
		}
		return reasons
	}
	if n := gathered(); n != 0 {
		t.Errorf("without a table: %d reasons", n)
	}
	set1(t, table, services(1))
	if n := gathered(); n != len(ruleset.Reasons()) {
		t.Errorf("%d reasons", n)
	}
	if link.PodPrefix != "hyt" || !strings.HasPrefix(link.OverlayName, link.PodPrefix) {
		t.Error("names of links changed: look at inByPod")
	}
}
