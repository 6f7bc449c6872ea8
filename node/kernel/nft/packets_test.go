package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/proxy"
)

// addresses are those of one run, all of one family.
//
//	client ── LAN ── node ──┬── hyt… ── pod a
//	                        ├── hyt… ── pod b
//	                        └── hythe.vxlan (here a veth) ── remote pod
type addresses struct {
	client, node, a, b, gateway, overlay, remote string
	hairpin                                      string // the address that a pod sees of itself
	ranges                                       [2]string
	service, vip                                 string // formats
	bits                                         int
}

var (
	four = addresses{"192.168.1.100", "192.168.1.11", "10.244.1.2", "10.244.1.3", "169.254.1.1", "10.244.1.1", "10.244.2.2",
		"192.168.1.11", [2]string{"10.244.1.0/24", "10.244.2.0/24"}, "10.96.0.%d", "203.0.113.%d", 32}
	six = addresses{"fd00::100", "fd00::11", "fd01:0:0:1::2", "fd01:0:0:1::3", "fe80::1", "fd01:0:0:1::1", "fd01:0:0:2::2",
		"fd01:0:0:1::1", [2]string{"fd01:0:0:1::/64", "fd01:0:0:2::/64"}, "fd10::%d", "2001:db8::%d", 128}
)

// A host is a network namespace.
type host struct {
	*testing.T
	name string
	ns   netns.NsHandle
	nl   *netlink.Handle
}

func newHost(t *testing.T, name string) host {
	t.Helper()
	h := host{T: t, name: name, ns: testenv.NewNetNS(t)}
	var err error
	if h.nl, err = netlink.NewHandleAt(h.ns); err != nil {
		t.Fatalf("make host %s: %v", name, err)
	}
	t.Cleanup(h.nl.Close)
	h.up("lo")
	return h
}

// do runs f in the host's namespace. Sockets that f opens stay there.
func (h host) do(f func()) { testenv.InNetNS(h.T, h.ns, f) }

func (h host) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatalf("host %s: %v", h.name, err)
	}
}

func (h host) sysctl(path, value string) {
	h.do(func() { h.must(os.WriteFile("/proc/sys/net/"+path, []byte(value), 0)) })
}

func (h host) up(link string) netlink.Link {
	l, err := h.nl.LinkByName(link)
	h.must(err)
	h.must(h.nl.LinkSetUp(l))
	return l
}

// connect joins two hosts by a veth pair, with fixed neighbours instead of ARP and NDP.
func connect(h, peer host, name, peerName string) {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peerName, PeerNamespace: netlink.NsFd(peer.ns)}
	h.must(h.nl.LinkAdd(pair))
	h.up(name)
	peer.up(peerName)
}

func (h host) address(link, addr string, bits int) {
	a := netip.MustParseAddr(addr)
	h.must(h.nl.AddrAdd(h.up(link), &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())},
		Flags: unix.IFA_F_NODAD}))
}

// route sends prefix by link, to the neighbour via at the other end if that is given.
func (h host) route(prefix, link, via string, peer host, peerLink string) {
	dev := h.up(link)
	p := netip.MustParsePrefix(prefix)
	r := &netlink.Route{LinkIndex: dev.Attrs().Index, Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	next := p.Addr()
	if via != "" {
		next = netip.MustParseAddr(via)
		r.Gw, r.Flags = next.AsSlice(), int(netlink.FLAG_ONLINK)
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	h.must(h.nl.RouteReplace(r))
	h.must(h.nl.NeighSet(&netlink.Neigh{LinkIndex: dev.Attrs().Index, IP: next.AsSlice(), State: netlink.NUD_PERMANENT,
		HardwareAddr: peer.up(peerLink).Attrs().HardwareAddr}))
}

func everything(bits int) string {
	if bits == 32 {
		return "0.0.0.0/0"
	}
	return "::/0"
}

// serve answers on TCP and UDP 8080 with the host's name and the client's address.
func (h host) serve(addr string) {
	where := net.JoinHostPort(addr, "8080")
	h.do(func() {
		l, err := net.Listen("tcp", where)
		h.must(err)
		h.Cleanup(func() { _ = l.Close() })
		p, err := net.ListenPacket("udp", where)
		h.must(err)
		h.Cleanup(func() { _ = p.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s %s", h.name, c.RemoteAddr().(*net.TCPAddr).IP)
				_ = c.Close()
			}
		}()
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := p.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = p.WriteTo(fmt.Appendf(nil, "%s %s", h.name, from.(*net.UDPAddr).IP), from)
			}
		}()
	})
}

// patience is for one answer: longer than a SYN's first repetition, so that a busy machine fails no test.
const patience = 2500 * time.Millisecond

// ask connects and returns which host answered and what address it saw.
func (h host) ask(network, addr string, port int) (server, seen string, err error) {
	return h.askWithin(patience, network, addr, port)
}

func (h host) askWithin(wait time.Duration, network, addr string, port int) (server, seen string, err error) {
	h.do(func() {
		var c net.Conn
		c, err = net.DialTimeout(network, net.JoinHostPort(addr, fmt.Sprint(port)), wait)
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(wait))
		buf := make([]byte, 100)
		n := 0
		if network == "udp" {
			_, _ = c.Write([]byte("?"))
			n, err = c.Read(buf)
		} else {
			var all []byte
			all, err = io.ReadAll(c)
			n = copy(buf, all)
		}
		server, seen, _ = strings.Cut(string(buf[:n]), " ")
	})
	return server, seen, err
}

// reaches waits until the server at addr answers.
func (h host) reaches(addr string) {
	h.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		_, _, err := h.ask("tcp", addr, 8080)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			h.Fatalf("%s does not reach %s: %v", h.name, addr, err)
		}
	}
}

// answers asks often, and wants each of the named servers to answer and to see the given address.
func (h host) answers(network, addr string, port int, want map[string]string) {
	h.Helper()
	seen := map[string]string{}
	for range 60 {
		server, from, err := h.ask(network, addr, port)
		if err != nil {
			h.Errorf("%s to %s %s %d: %v", h.name, network, addr, port, err)
			return
		}
		seen[server] = from
	}
	if !maps.Equal(seen, want) {
		h.Errorf("%s to %s %s %d: answers %v, want %v", h.name, network, addr, port, seen, want)
	}
}

// refused wants a refusal at once.
func (h host) refused(network, addr string, port int) {
	h.Helper()
	best := time.Hour
	for try := 0; try < 5 && best > 10*time.Millisecond; try++ { // the machine may be busy
		start := time.Now()
		_, _, err := h.ask(network, addr, port)
		best = min(best, time.Since(start))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			h.Errorf("%s to %s %s %d: %v, want a refusal", h.name, network, addr, port, err)
			return
		}
	}
	if best > 10*time.Millisecond {
		h.Errorf("%s to %s %s %d: refused after %v", h.name, network, addr, port, best)
	}
}

// dropped wants no answer.
func (h host) dropped(addr string, port int) {
	h.Helper()
	var timeout net.Error
	if _, _, err := h.askWithin(300*time.Millisecond, "tcp", addr, port); !errors.As(err, &timeout) || !timeout.Timeout() {
		h.Errorf("%s to %s %d: %v, want no answer", h.name, addr, port, err)
	}
}

// pings wants an echo reply from addr itself.
func (h host) pings(addr string) {
	h.Helper()
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if netip.MustParseAddr(addr).Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	h.do(func() {
		c, err := net.Dial(network, addr)
		if err != nil {
			h.Errorf("%s pings %s: %v", h.name, addr, err)
			return
		}
		defer c.Close()
		packet := []byte{request, 0, 0, 0, 1, 2, 0, 1}
		binary.BigEndian.PutUint16(packet[2:], ^uint16(int(request)<<8+0x0102+0x0001)) // the kernel does it for IPv6
		_, err = c.Write(packet)
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		for err == nil {
			buf := make([]byte, 100)
			if _, _, err = c.(net.PacketConn).ReadFrom(buf); err == nil && buf[0] == reply {
				return
			}
		}
		h.Errorf("%s pings %s: %v", h.name, addr, err)
	})
}

// watch counts the frames that reach the host which no datapath should send: those to a VIP, and ICMP redirects.
func (h host) watch(vips []string) *atomic.Int32 {
	var count atomic.Int32
	h.do(func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})))
		h.must(err)
		h.must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
		done := make(chan struct{})
		h.Cleanup(func() { <-done; _ = unix.Close(fd) })
		stop := h.Context()
		go func() {
			defer close(done)
			buf := make([]byte, 2000)
			for stop.Err() == nil {
				n, from, err := unix.Recvfrom(fd, buf, 0)
				ll, ok := from.(*unix.SockaddrLinklayer)
				if err != nil || !ok || ll.Pkttype == unix.PACKET_OUTGOING || n < 40 {
					continue
				}
				dst, redirect := buf[16:20], buf[9] == unix.IPPROTO_ICMP && buf[20] == 5
				if buf[0]>>4 == 6 {
					dst, redirect = buf[24:40], buf[6] == unix.IPPROTO_ICMPV6 && buf[40] == 137
				}
				to, _ := netip.AddrFromSlice(dst)
				if redirect || slices.Contains(vips, to.String()) {
					count.Add(1)
				}
			}
		}()
	})
	return &count
}

// service makes a Service with one port, http, and its endpoints.
func service(s *model.Snapshot, n int, local bool, protocol corev1.Protocol, eps []model.Endpoint, at addresses) {
	key := model.Key{Namespace: "default", Name: fmt.Sprint("service-", n)}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Spec: corev1.ServiceSpec{
		Type:      corev1.ServiceTypeLoadBalancer,
		ClusterIP: fmt.Sprintf(at.service, n),
		Ports:     []corev1.ServicePort{{Name: "http", Protocol: protocol, Port: 80, NodePort: int32(30080 + n)}},
	}}
	if local {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	s.Services = s.Services.With(key, svc)
	s.Endpoints = s.Endpoints.With(key, &model.ServiceEndpoints{Ports: []model.PortEndpoints{{Name: "http", Protocol: protocol, Endpoints: eps}}})
	vip := fmt.Sprintf(at.vip, n)
	s.Claims[v1alpha1.ClaimName(netip.MustParseAddr(vip))] = &v1alpha1.AddressClaim{Spec: v1alpha1.AddressClaimSpec{Address: vip,
		Services: []v1alpha1.ServiceRef{{Namespace: key.Namespace, Name: key.Name}}}}
}

// The Services of the test, by number: their ClusterIPs, VIPs and NodePorts end in it.
const (
	clusterPolicy = 1 + iota // endpoints a, b, remote
	localPolicy              // a, remote; externalTrafficPolicy Local
	localAway                // remote; externalTrafficPolicy Local
	empty                    // none
	onlyA                    // a
	datagrams                // a, b; UDP
)

func snapshot(at addresses) *model.Snapshot {
	s := &model.Snapshot{
		Claims: map[string]*v1alpha1.AddressClaim{}, Nodes: map[string]*model.Node{}}
	for i, name := range []string{"one", "two"} {
		s.Nodes[name] = &model.Node{Name: name, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(at.ranges[i])}}
	}
	s.Nodes["one"].Addresses = []netip.Addr{netip.MustParseAddr(at.node)}
	end := func(addr, node string) model.Endpoint {
		return model.Endpoint{AddrPort: netip.AddrPortFrom(netip.MustParseAddr(addr), 8080), Node: node, Ready: true}
	}
	a, b, remote := end(at.a, "one"), end(at.b, "one"), end(at.remote, "two")
	service(s, clusterPolicy, false, corev1.ProtocolTCP, []model.Endpoint{a, b, remote}, at)
	service(s, localPolicy, true, corev1.ProtocolTCP, []model.Endpoint{a, remote}, at)
	service(s, localAway, true, corev1.ProtocolTCP, []model.Endpoint{remote}, at)
	service(s, empty, false, corev1.ProtocolTCP, nil, at)
	service(s, onlyA, false, corev1.ProtocolTCP, []model.Endpoint{a}, at)
	service(s, datagrams, false, corev1.ProtocolUDP, []model.Endpoint{a, b}, at)
	return s
}

type topology struct{ client, node, a, b, remote host }

// build makes the hosts, as overlay and CNI plugin would.
func build(t *testing.T, at addresses) topology {
	n := topology{newHost(t, "client"), newHost(t, "node"), newHost(t, "a"), newHost(t, "b"), newHost(t, "remote")}
	n.node.sysctl("ipv4/ip_forward", "1")
	n.node.sysctl("ipv6/conf/all/forwarding", "1")
	all := everything(at.bits)
	connect(n.node, n.client, "eth0", "eth0")
	n.node.address("eth0", at.node, at.bits)
	n.client.address("eth0", at.client, at.bits)
	n.node.route(all, "eth0", at.client, n.client, "eth0")
	n.client.route(all, "eth0", at.node, n.node, "eth0")
	for _, pod := range []struct {
		host
		addr string
	}{{n.a, at.a}, {n.b, at.b}} {
		link := "hyt" + strings.Repeat(pod.name, 11)
		connect(n.node, pod.host, link, "eth0")
		pod.address("eth0", pod.addr, at.bits)
		pod.route(all, "eth0", at.gateway, n.node, link)
		n.node.route(fmt.Sprintf("%s/%d", pod.addr, at.bits), link, "", pod.host, "eth0")
	}
	connect(n.node, n.remote, "hythe.vxlan", "eth0")
	n.node.address("hythe.vxlan", at.overlay, at.bits)
	n.remote.address("eth0", at.remote, at.bits)
	n.node.route(at.ranges[1], "hythe.vxlan", at.remote, n.remote, "eth0")
	n.remote.route(all, "eth0", at.overlay, n.node, "hythe.vxlan")
	n.client.serve(at.client)
	n.a.serve(at.a)
	n.b.serve(at.b)
	n.remote.serve(at.remote)
	// IPv6 needs a moment before it uses a new link.
	for _, h := range []host{n.client, n.node, n.a, n.b, n.remote} {
		for _, addr := range []string{at.client, at.a, at.b, at.remote} {
			h.reaches(addr)
		}
	}
	return n
}

// TestPackets sends real packets through a node that holds the table.
func TestPackets(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) { packets(t, at) })
	}
}

func packets(t *testing.T, at addresses) {
	n := build(t, at)
	state, problems := proxy.Build(snapshot(at), "one", proxy.DefaultSettings())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	table := testTable(t, InNetNS(int(n.node.ns)))
	set1(t, table, state)
	ip := func(i int) string { return fmt.Sprintf(at.service, i) }
	vip := func(i int) string { return fmt.Sprintf(at.vip, i) }
	stray := n.client.watch([]string{vip(1), vip(2), vip(3), vip(4), ip(1), ip(4)})

	// What is not served is refused at once. First of all, since ICMP errors are limited by the receiver, and hairpins
	// use that up where the node sends redirects.
	for _, h := range []host{n.client, n.a, n.node} {
		h.refused("tcp", vip(clusterPolicy), 81)
		h.refused("tcp", ip(clusterPolicy), 81)
		h.refused("tcp", vip(empty), 80)
		h.refused("tcp", ip(empty), 80)
		h.refused("tcp", at.node, 30080+empty)
		h.refused("udp", vip(clusterPolicy), 82)
		h.pings(vip(clusterPolicy))
	}
	// From outside: spread over all, the client's address kept for endpoints on this node.
	spread := map[string]string{"a": at.client, "b": at.client, "remote": at.overlay}
	n.client.answers("tcp", vip(clusterPolicy), 80, spread)
	n.client.answers("tcp", at.node, 30080+clusterPolicy, spread)
	n.client.answers("udp", vip(datagrams), 80, map[string]string{"a": at.client, "b": at.client})
	// externalTrafficPolicy Local: here only, or not at all; from inside all.
	n.client.answers("tcp", vip(localPolicy), 80, map[string]string{"a": at.client})
	n.client.answers("tcp", at.node, 30080+localPolicy, map[string]string{"a": at.client})
	n.b.answers("tcp", vip(localPolicy), 80, map[string]string{"a": at.b, "remote": at.b})
	n.client.dropped(vip(localAway), 80)
	n.client.dropped(at.node, 30080+localAway)
	n.b.answers("tcp", vip(localAway), 80, map[string]string{"remote": at.b})
	n.b.answers("tcp", at.node, 30080+localAway, map[string]string{"remote": at.b})
	// From pods: their own address everywhere in the cluster, but not at themselves and not outside of it.
	n.b.answers("udp", ip(datagrams), 80, map[string]string{"a": at.b, "b": at.hairpin})
	n.a.answers("tcp", ip(onlyA), 80, map[string]string{"a": at.hairpin})
	n.a.answers("tcp", at.remote, 8080, map[string]string{"remote": at.a})
	n.a.answers("tcp", at.client, 8080, map[string]string{"client": at.node})
	// From a pod of another node, by this node: what is answered past it could not be translated back.
	n.remote.answers("tcp", vip(localAway), 80, map[string]string{"remote": at.overlay})
	n.remote.answers("tcp", at.node, 30080+localAway, map[string]string{"remote": at.overlay})
	n.remote.answers("tcp", at.node, 30080+onlyA, map[string]string{"a": at.remote})
	// From the node.
	n.node.answers("tcp", ip(clusterPolicy), 80, map[string]string{"a": at.node, "b": at.node, "remote": at.overlay})
	n.node.answers("tcp", at.node, 30080+clusterPolicy, map[string]string{"a": at.node, "b": at.node, "remote": at.overlay})
	n.node.answers("tcp", vip(localAway), 80, map[string]string{"remote": at.overlay})
	// Nothing of a VIP went out again.
	if got := stray.Load(); got != 0 {
		t.Errorf("%d frames to a VIP or ICMP redirects reached the client", got)
	}
}
