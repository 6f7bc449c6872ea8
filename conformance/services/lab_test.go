package services

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/link"
)

// A host is a network namespace of the lab.
type host struct {
	name  string
	ns    netns.NsHandle
	nl    *netlink.Handle
	addrs []netip.Addr // IPv4 and IPv6
}

// A lab is the picture of the package's comment.
type lab struct {
	*testing.T
	hosts map[string]*host
	// names of all addresses that a server may see.
	names map[netip.Addr]string
	kept  map[string]*kept // connections by open, guarded by keptMu
	keeping
}

// places are the addresses on the LAN, and pods with their node.
var (
	onLAN = map[string]string{"router": "192.0.2.1", "client": "192.0.2.100", "node1": "192.0.2.11", "node2": "192.0.2.12"}
	pods  = map[string][2]string{"a": {"10.244.1.2", "node1"}, "b": {"10.244.1.3", "node1"}, "c": {"10.244.1.4", "node1"},
		"d": {"10.244.2.2", "node2"}, "e": {"10.244.2.3", "node2"}}
)

// client2 is a further address of the client.
const client2 = "192.0.2.101"

// routed is what everybody sends to node1: ClusterIPs, VIPs and external addresses.
var routed = []string{"10.96.0.0/16", "203.0.113.0/24", "198.51.100.0/24"}

func newLab(t *testing.T) *lab {
	testenv.Root(t)
	l := &lab{T: t, hosts: map[string]*host{}, names: map[netip.Addr]string{}, kept: map[string]*kept{}}
	bridge := l.host("lan")
	for _, file := range []string{"iptables", "ip6tables", "arptables"} {
		l.sysctl(bridge, "bridge/bridge-nf-call-"+file, "0")
	}
	l.must(bridge.nl.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	l.up(bridge, "br0")
	for name, addr := range onLAN {
		h := l.host(name)
		l.connect(bridge, h, name, "eth0")
		port, master := l.up(bridge, name), l.up(bridge, "br0")
		l.must(bridge.nl.LinkSetMaster(port, master))
		l.address(h, "eth0", addr, 24)
		l.forwards(h)
	}
	l.address(l.hosts["client"], "eth0", client2, 24)
	l.names[netip.MustParseAddr(client2)], l.names[SixOf(netip.MustParseAddr(client2))] = "client2", "client2"
	for name, pod := range pods {
		l.pod(name, pod[0], l.hosts[pod[1]])
	}
	l.routes()
	l.sysctl(l.hosts["node1"], "netfilter/nf_conntrack_udp_timeout", "600") // flows stay through all of a step
	for i, name := range []string{"node1", "node2"} {                       // in the overlay
		a := netip.AddrFrom4([4]byte{10, 244, byte(i + 1), 0})
		l.names[a], l.names[SixOf(a)] = name, name
	}
	for name, h := range l.hosts {
		if name != "lan" && name != "router" {
			l.serve(h)
		}
	}
	return l
}

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lab) host(name string) *host {
	l.Helper()
	h := &host{name: name, ns: testenv.NewNetNS(l.T)}
	var err error
	h.nl, err = netlink.NewHandleAt(h.ns)
	l.must(err)
	l.Cleanup(h.nl.Close)
	l.up(h, "lo")
	l.hosts[name] = h
	return h
}

func (l *lab) in(h *host, f func()) { testenv.InNetNS(l.T, h.ns, f) }

func (l *lab) sysctl(h *host, path, value string) {
	l.Helper()
	l.in(h, func() { l.must(os.WriteFile("/proc/sys/net/"+path, []byte(value), 0)) })
}

// forwards makes a host a router that answers each bad packet with an error, however many there are.
func (l *lab) forwards(h *host) {
	for _, s := range [][2]string{{"ipv4/ip_forward", "1"}, {"ipv6/conf/all/forwarding", "1"}, {"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/eth0/rp_filter", "0"}, {"ipv4/icmp_ratelimit", "0"}, {"ipv6/icmp/ratelimit", "0"}, {"ipv4/conf/all/send_redirects", "0"}} {
		l.sysctl(h, s[0], s[1])
	}
}

func (l *lab) up(h *host, name string) netlink.Link {
	l.Helper()
	dev, err := h.nl.LinkByName(name)
	l.must(err)
	l.must(h.nl.LinkSetUp(dev))
	return dev
}

func (l *lab) connect(a, b *host, nameA, nameB string) {
	l.Helper()
	l.must(a.nl.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.ns)}))
	l.up(a, nameA)
	l.up(b, nameB)
}

// address gives a host an address of each family. The first one is the host's own.
func (l *lab) address(h *host, dev, text string, bits int) {
	l.Helper()
	four := netip.MustParseAddr(text)
	for _, p := range []netip.Prefix{netip.PrefixFrom(four, bits), netip.PrefixFrom(SixOf(four), bits+96)} {
		l.must(h.nl.AddrAdd(l.up(h, dev), &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}))
		if len(h.addrs) < 2 {
			h.addrs = append(h.addrs, p.Addr())
			l.names[p.Addr()] = h.name
		}
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// pod makes one as the CNI plugin does: a cable without a net, and a gateway that nobody has.
func (l *lab) pod(name, addr string, node *host) {
	h, dev := l.host(name), link.PodPrefix+strings.Repeat(name, 11)
	l.connect(node, h, dev, "eth0")
	l.sysctl(node, "ipv4/conf/"+dev+"/rp_filter", "0")
	l.address(h, "eth0", addr, 32)
	inside, outside := l.up(h, "eth0"), l.up(node, dev)
	four := netip.MustParseAddr(addr)
	for i, a := range []netip.Addr{four, SixOf(four)} {
		gateway := netip.MustParseAddr([]string{"169.254.1.1", "fe80::1"}[i])
		all := netip.PrefixFrom([]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[i], 0)
		l.must(h.nl.RouteReplace(&netlink.Route{LinkIndex: inside.Attrs().Index, Dst: ipNet(all), Gw: gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}))
		l.neighbour(h, inside, gateway, outside)
		l.must(node.nl.RouteReplace(&netlink.Route{LinkIndex: outside.Attrs().Index, Dst: ipNet(netip.PrefixFrom(a, a.BitLen())), Scope: netlink.SCOPE_LINK}))
		l.neighbour(node, outside, a, inside)
	}
}

func (l *lab) neighbour(h *host, dev netlink.Link, a netip.Addr, peer netlink.Link) {
	l.must(h.nl.NeighSet(&netlink.Neigh{LinkIndex: dev.Attrs().Index, IP: a.AsSlice(), State: netlink.NUD_PERMANENT, HardwareAddr: peer.Attrs().HardwareAddr}))
}

// routes sends what is a Service's to node1, and what nobody knows to a router that says nothing.
func (l *lab) routes() {
	node1, router := netip.MustParseAddr(onLAN["node1"]), netip.MustParseAddr(onLAN["router"])
	for name := range onLAN {
		h := l.hosts[name]
		dev := l.up(h, "eth0").Attrs().Index
		add := func(p netip.Prefix, via netip.Addr) {
			l.must(h.nl.RouteReplace(&netlink.Route{LinkIndex: dev, Dst: ipNet(p), Gw: via.AsSlice()}))
			l.must(h.nl.RouteReplace(&netlink.Route{LinkIndex: dev, Dst: ipNet(netip.PrefixFrom(SixOf(p.Addr()), sixBits(p))), Gw: SixOf(via).AsSlice()}))
		}
		if name == "router" {
			for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
				l.must(h.nl.RouteReplace(&netlink.Route{Dst: ipNet(netip.PrefixFrom(a, 0)), Type: unix.RTN_BLACKHOLE}))
			}
			continue
		}
		add(netip.PrefixFrom(netip.IPv4Unspecified(), 0), router)
		if name != "node1" {
			for _, p := range routed {
				add(netip.MustParsePrefix(p), node1)
			}
		}
	}
}

func sixBits(p netip.Prefix) int {
	if p.Bits() == 0 {
		return 0
	}
	return p.Bits() + 96
}

// serve answers on ports 8080 and 8081: name, port and the address of who asks, once at first and once for each byte.
func (l *lab) serve(h *host) {
	for _, port := range []string{"8080", "8081"} {
		l.in(h, func() {
			listener, err := net.Listen("tcp", ":"+port)
			l.must(err)
			l.Cleanup(func() { _ = listener.Close() })
			packets, err := net.ListenPacket("udp", ":"+port)
			l.must(err)
			l.Cleanup(func() { _ = packets.Close() })
			hello := h.name + " " + port
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					go talk(c, hello)
				}
			}()
			go func() {
				buf := make([]byte, 100)
				for {
					_, from, err := packets.ReadFrom(buf)
					if err != nil {
						return
					}
					_, _ = packets.WriteTo(fmt.Appendf(nil, "%s %s\n", hello, from), from)
				}
			}()
		})
	}
}

func talk(c net.Conn, hello string) {
	defer c.Close()
	buf := make([]byte, 1)
	for err := error(nil); err == nil; _, err = c.Read(buf) {
		fmt.Fprintf(c, "%s %s\n", hello, c.RemoteAddr())
	}
}
